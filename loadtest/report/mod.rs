//! How a run is shown: while it runs, and when it is over.

pub mod table;
