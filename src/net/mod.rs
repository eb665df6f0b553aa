//! F3: the loop and its drivers. The only place that names mio; never opens a mail file.
//!
//! | file        | what it is                                                              |
//! |-------------|-------------------------------------------------------------------------|
//! | `turn.rs`   | the loop's parts: slots, readiness, deadlines, the run queue             |
//! | `stream.rs` | the one generic driver: runs any machine over any byte stream            |
//! | `sock.rs`   | a stream over TCP or within this machine                                |
//! | `wire.rs`   | plain or TLS under the driver                                            |
//! | `tls.rs`    | certificates and keys, and what follows from them                        |
//! | `listen.rs` | listening sockets                                                        |
//! | `datagram.rs` | sockets for questions to name servers                               |
//! | `child.rs`  | child processes and their three pipes                                    |
//! | `signal.rs` | signals as bytes in a pipe                                               |
//! | `profile.rs` | how long turns take                                                    |
//! | `jobs.rs`   | the one other place where work happens: a small pool of threads          |
//! | `watchdog.rs` | says whose turn it is when one does not end                            |

pub mod child;
pub mod datagram;
pub mod jobs;
pub mod listen;
pub mod profile;
pub mod signal;
pub mod sock;
pub mod stream;
pub mod tls;
pub mod turn;
pub mod watchdog;
mod wire;

pub use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
pub use mio::{Registry, Token};
pub use slab::Slab;

/// Registers a socket once, for both directions and for life: a change of mind costs no system call later.
pub fn watch(registry: &Registry, source: &mut impl mio::event::Source, token: Token) -> std::io::Result<()> {
    registry.register(source, token, mio::Interest::READABLE | mio::Interest::WRITABLE)
}
