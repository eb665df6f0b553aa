//! F3: files. The maildrop: a drop file that stays the mbox it was, and beside it its bin. Never a socket.
//!
//! | page                 | what it holds                                                             |
//! |----------------------|---------------------------------------------------------------------------|
//! | [`maildrop`]         | one session: open, look, mark, commit, compact                            |
//! | [`reader`]           | one message on its way out, a slice at a time, never waiting              |
//! | `index`              | `.NAME.idx`: where the live messages stand; may vanish at any time        |
//! | `ledger`             | `.NAME.bin`: deaths and repetitions; truth; carries the session lock      |
//! | `refresh`            | how the index is brought up to date with drop and ledger                  |
//! | `compaction`         | `.NAME.copy`: how dead bytes leave the drop, and how a crash there heals  |
//! | `undelete`           | the dead that are still in the drop called back, by the operator          |
//! | [`delivery`]         | a message made durable in a drop                                          |
//! | [`queue`]            | messages that wait, with what became of each recipient                   |
//! | [`pickup`]           | `incoming`: messages that programs leave while the server is down         |
//! | [`paused`]           | which sending an operator has paused                                      |
//! | [`intent`]           | `intents`: what is about to be delivered, for after a crash               |
//! | `erase`              | a mailbox taken away for good                                             |
//! | `rename`             | a mailbox given to another name, with its UIDs and its dead               |
//! | `expiry`             | old and fetched messages that go with a commit                            |
//! | `locks`              | the drop's own locks, shared with other programs                          |
//! | [`quota`]            | how much live mail a drop has, and who was warned of that                 |
//! | [`forward`]          | users' forward files, read if nobody else can have written them           |
//! | [`repair`]           | a maildrop put in order without the server                                |
//! | [`disk`]             | every file call the above make, so that tests can stand in for the disk   |
//! | [`path`]             | where a user's drop is                                                    |
//! | [`tellpass`]         | the password of remote administration                                     |
//! | [`bulletins`]        | the board that all users share, as a maildrop                             |
//! | [`users`]            | the stock authenticator's files of users                                  |

pub mod bulletins;
pub mod delivery;
pub mod disk;
pub mod forward;
pub mod intent;
pub mod maildrop;
pub mod path;
pub mod paused;
pub mod pickup;
pub mod queue;
pub mod quota;
pub mod reader;
pub mod repair;
pub mod tellpass;
pub mod users;

mod compaction;
mod desk;
mod erase;
mod expiry;
mod index;
mod ledger;
mod locks;
mod refresh;
mod rename;
mod undelete;

#[cfg(test)]
mod tests;
