//! How a run is shown when it is over.

pub mod json;
pub mod table;
