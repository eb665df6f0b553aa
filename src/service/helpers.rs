//! The authenticators' processes: what the pool wants done, done; what they say, told to the pool.
//!
//! Each reload that changes the authenticator makes a new generation; the old one finishes what it was asked and ends.

use std::io;
use std::time::{Duration, Instant};

use super::Shared;
use crate::net::Registry;
use crate::net::Token;
use crate::net::child::{Child, ERROR_BATCH, OWN_EXECUTABLE, Program};
use crate::net::stream::{Readiness, Turn};
use crate::net::turn::{Id, Ticket};
use crate::protocol::helper::{Pool, Rules};
use crate::settings::{Method, Settings};
use crate::text::printable::printable;

/// Lines of standard error that reach the log, per copy and [`ERROR_WINDOW`].
const ERROR_LINES: u32 = 20;
/// See [`ERROR_LINES`].
const ERROR_WINDOW: Duration = Duration::from_secs(60);

/// One generation of authenticators.
pub struct Helpers {
    /// Which.
    pub generation: u32,
    /// Who is asked what.
    pub pool: Pool<Ticket>,
    /// What to start.
    pub program: Program,
    /// Where each copy has its turns.
    pub copies: Vec<Option<Id>>,
}

impl Helpers {
    /// A generation that is not started yet.
    pub fn new(generation: u32, settings: &Settings) -> Helpers {
        let rules = Self::rules(settings);
        Helpers {
            generation,
            pool: Pool::new(rules),
            program: Self::program(settings),
            copies: vec![None; rules.copies],
        }
    }

    /// What settings decide about the pool.
    pub fn rules(settings: &Settings) -> Rules {
        Rules { copies: settings.authent_number, timeout: Duration::from_secs(settings.authent_timeout) }
    }

    /// What settings say is to be started.
    pub fn program(settings: &Settings) -> Program {
        if settings.authent_method == Method::UnixUser {
            return Program {
                path: OWN_EXECUTABLE.into(),
                args: vec!["unixauth".to_owned(), "-min_uid".to_owned(), settings.min_uid.to_string()],
                directory: "/".into(),
            };
        }
        Program {
            path: settings.authent_process.program.clone(),
            args: settings.authent_process.arguments().to_vec(),
            directory: settings.folder().to_owned(),
        }
    }
}

/// A copy of an authenticator, as something that has turns.
pub struct Copy {
    /// Of which generation.
    pub generation: u32,
    /// Which one of it.
    pub copy: usize,
    child: Child,
    window: Option<Instant>,
    complaints: u32,
}

impl Copy {
    /// A process that was started.
    pub fn new(generation: u32, copy: usize, child: Child) -> Copy {
        Copy { generation, copy, child, window: None, complaints: 0 }
    }

    /// Registers its pipes.
    pub fn register(&mut self, registry: &Registry, token: &dyn Fn(usize) -> Token) -> io::Result<()> {
        self.child.register(registry, token)
    }

    /// Takes them away again.
    pub fn deregister(&mut self, registry: &Registry) {
        self.child.deregister(registry);
    }

    /// The kernel says something about a pipe.
    pub fn mark(&mut self, lane: usize, ready: Readiness) {
        self.child.mark(lane, ready);
    }

    /// Sends a request. A copy that cannot take it is as good as dead.
    pub fn send(&mut self, line: &[u8]) -> io::Result<()> {
        self.child.send(line)
    }

    /// Ends the process.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Hands on what it said; notices its end. A copy that its pool does not know (any more) is nobody's: killed and reaped.
    pub fn turn(&mut self, id: Id, now: Instant, shared: &mut Shared) -> Turn {
        let ended = self.child.reap();
        self.complain(now);
        let known =
            |helpers: &&mut Helpers| helpers.generation == self.generation && helpers.copies[self.copy] == Some(id);
        let Some(helpers) = shared.helpers.iter_mut().find(known) else {
            self.child.kill();
            return if ended { Turn::Closed } else { Turn::Idle };
        };
        let said = self.child.receive();
        if !said.is_empty() {
            helpers.pool.output(now, self.copy, &said);
            return Turn::Again;
        }
        if ended && self.child.is_quiet() {
            helpers.copies[self.copy] = None;
            helpers.pool.ended(now, self.copy);
            return Turn::Closed;
        }
        if self.child.has_complaints() { Turn::Again } else { Turn::Idle }
    }

    fn complain(&mut self, now: Instant) {
        let mut budget = ERROR_BATCH;
        while let Some(line) = self.child.complaint(&mut budget) {
            if self.window.is_none_or(|since| now.saturating_duration_since(since) >= ERROR_WINDOW) {
                if self.complaints > ERROR_LINES {
                    log::warn!("authenticator {}: {} lines suppressed", self.copy, self.complaints - ERROR_LINES);
                }
                self.window = Some(now);
                self.complaints = 0;
            }
            self.complaints += 1;
            if self.complaints <= ERROR_LINES {
                log::warn!("authenticator {}: {}", self.copy, printable(&line));
            }
        }
    }
}
