//! F1: decisions as functions: values in, verdict out.

pub mod bulletins;
pub mod names;
