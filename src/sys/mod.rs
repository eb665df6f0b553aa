//! F0: every libc call, and all the unsafe there is: one call a function, a safe signature, a `SAFETY` line each.
#![allow(unsafe_code)]

pub mod access;
pub mod below;
pub mod blocks;
pub mod channel;
pub mod crypt;
pub mod files;
pub mod group;
pub mod memory;
pub mod network;
pub mod nofollow;
pub mod process;
pub mod socket;
pub mod terminal;
pub mod user;
