//! Signals as bytes in a pipe: the handler writes one, the loop reads it like anything else.

use std::io::{self, Read};
use std::os::fd::AsRawFd;

use mio::unix::pipe::{Receiver, Sender};
use mio::{Interest, Registry, Token};

use crate::sys::process;

/// What a signal means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: stop in an orderly way.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGCHLD: a child has ended.
    Child,
}

/// The signals of this process, once.
#[derive(Debug)]
pub struct Signals {
    pipe: Receiver,
    /// Kept so that the handler's descriptor stays ours.
    _writer: Sender,
}

impl Signals {
    /// Catches the signals.
    pub fn catch() -> io::Result<Signals> {
        let (writer, pipe) = mio::unix::pipe::new()?;
        process::write_signals_to(writer.as_raw_fd())?;
        Ok(Signals { pipe, _writer: writer })
    }

    /// Registers the pipe.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.pipe, token, Interest::READABLE)
    }

    /// Takes it away again.
    pub fn deregister(&mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.pipe);
    }

    /// What came since the last call.
    pub fn take(&mut self) -> Vec<Signal> {
        let mut bytes = [0; 64];
        let mut found = Vec::new();
        while let Ok(count @ 1..) = self.pipe.read(&mut bytes) {
            for &byte in &bytes[..count] {
                let signal = match process::signal_name(byte) {
                    "TERM" | "INT" => Signal::Stop,
                    "HUP" => Signal::Reload,
                    _ => Signal::Child,
                };
                if !found.contains(&signal) {
                    found.push(signal);
                }
            }
        }
        found
    }
}
