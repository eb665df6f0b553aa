//! F1: decisions as functions: values in, verdict and trail out.
//!
//! | file           | decides                                                                          |
//! |----------------|----------------------------------------------------------------------------------|
//! | `names.rs`     | which names may be users                                                         |
//! | `bulletins.rs` | which bulletins a user still has                                                 |
//! | `access.rs`    | whether a client may log in, in the manual's order                               |
//! | `limits.rs`    | how many connections and sessions at a time, how often a user may log in         |
//! | `penalty.rs`   | how long a guess of a password waits                                             |
//! | `recent.rs`    | the bounded table behind the last two                                            |

pub mod access;
pub mod bulletins;
pub mod limits;
pub mod names;
pub mod penalty;
pub mod recent;
