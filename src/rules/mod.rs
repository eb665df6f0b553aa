//! F1: decisions as functions: values in, verdict out.

pub mod domains;
pub mod names;
