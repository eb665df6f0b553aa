//! F1: decisions as functions: values in, verdict and trail out.
//!
//! | file           | decides                                                                          |
//! |----------------|----------------------------------------------------------------------------------|
//! | `names.rs`     | which names may be users                                                         |
//! | `bulletins.rs` | which bulletins a user still has                                                 |
//! | `access.rs`    | whether a client may log in, in the manual's order                               |
//! | `limits.rs`    | how many connections and sessions at a time, how often a user may log in         |
//! | `places.rs`    | which kind of connections gets the places there are                              |
//! | `penalty.rs`   | how long a guess of a password waits                                             |
//! | `domains.rs`   | which user of which domain a login means                                         |
//! | `stats.rs`     | what a session comes to in the statistics                                        |
//! | `traffic.rs`   | what becomes of messages, in the statistics                                      |
//! | `interner.rs`  | nothing: many names, a number for each, behind the statistics                     |
//! | `logs.rs`      | which log a line belongs to                                                      |
//! | `flood.rs`     | how many log lines strangers may cause                                           |
//! | `relay.rs`     | who may send what to whom through us                                             |
//! | `popped.rs`    | from which addresses users read mail lately                                      |
//! | `sending.rs`   | how much an account, or an address, may send                                     |
//! | `robot.rs`     | which program is given mail, what it is told, what its end means                  |
//! | `route.rs`     | where mail for an address goes                                                    |
//! | `hops.rs`      | where mail for other hosts goes                                                  |
//! | `mx.rs`        | which hosts take the mail of a domain, and which addresses may be connected to   |
//! | `info.rs`      | what an authenticator says of a user beyond name and place                       |
//! | `retry.rs`     | when a message of the queue is tried again, and when given up                    |
//! | `paused.rs`    | whether sending is paused                                                        |
//! | `unblock.rs`   | why a recipient waits, in plain words, and what would let it go on                |
//! | `recent.rs`    | the bounded table behind limits and penalties                                    |

pub mod access;
pub mod bulletins;
pub mod domains;
pub mod flood;
pub mod hops;
pub mod info;
mod interner;
pub mod limits;
pub mod logs;
pub mod mx;
pub mod names;
pub mod paused;
pub mod penalty;
pub mod places;
pub mod popped;
pub mod recent;
pub mod relay;
pub mod retry;
pub mod robot;
pub mod route;
pub mod sending;
pub mod stats;
pub mod traffic;
pub mod unblock;
