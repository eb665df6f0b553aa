//! F1: decisions as functions: values in, verdict out.

pub mod bulletins;
pub mod domains;
pub mod flood;
pub mod names;
pub mod stats;
