//! F1: decisions as functions: values in, verdict and trail out.
//!
//! | file           | decides                                                                          |
//! |----------------|----------------------------------------------------------------------------------|
//! | `names.rs`     | which names may be users                                                         |
//! | `bulletins.rs` | which bulletins a user still has                                                 |
//! | `access.rs`    | whether a client may log in, in the manual's order                               |
//! | `limits.rs`    | how many connections and sessions at a time, how often a user may log in         |
//! | `penalty.rs`   | how long a guess of a password waits                                             |
//! | `domains.rs`   | which user of which domain a login means                                         |
//! | `stats.rs`     | what a session comes to in the statistics                                        |
//! | `flood.rs`     | how many log lines strangers may cause                                           |
//! | `retry.rs`     | when a message of the queue is tried again, and when given up                    |
//! | `recent.rs`    | the bounded table behind limits and penalties                                    |

pub mod access;
pub mod bulletins;
pub mod domains;
pub mod flood;
pub mod limits;
pub mod names;
pub mod penalty;
pub mod recent;
pub mod retry;
pub mod stats;
