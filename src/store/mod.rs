//! (being built)

pub mod path;
pub mod users;
