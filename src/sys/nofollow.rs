//! How a file of ours is opened: not through a symbolic link, and without waiting for a FIFO's other end.

/// For `OpenOptionsExt::custom_flags`. Whoever opens with it looks afterwards whether it is a regular file.
pub const NOFOLLOW: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
