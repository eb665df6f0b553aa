//! (being built)

pub mod nwauth;
