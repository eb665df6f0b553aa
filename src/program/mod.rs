//! F7: one file a program: options in, exit code out.

pub mod check;
pub mod options;
pub mod settings;
