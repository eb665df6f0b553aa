//! A child process and its three pipes.
//!
//! It is started by a job, because starting one takes a millisecond; with descriptors 0 to 2 and no others, an
//! environment of two words, and a session of its own, so that killing it kills what it started.
//!
//! Where there is a launcher, it is the launcher's child: its pipes are handed over, with an eye that sees its end and a
//! leash that, let go, ends it.
//!
//! Its end is noticed by SIGCHLD, by the eye or by the end of a pipe, whichever wakes us first; what it wrote before is still read, and
//! the exit reported when the pipe is empty. One that only closes its output is found out by its silence.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::unix::pipe::{Receiver, Sender};
use mio::{Interest, Registry, Token};

use super::stream::Readiness;
use crate::sys::user::User;
use crate::sys::{channel, process};

/// Bytes read from a child in one turn.
const BATCH: usize = 16 * 1024;
/// A line of its standard error, for the log.
const ERROR_LINE: usize = 512;
/// Bytes of standard error that are read in one turn.
pub const ERROR_BATCH: usize = 8 * 1024;

/// The path of the executable that runs, also when its file was replaced or removed since.
pub const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// An absolute path.
    pub path: PathBuf,
    /// Arguments after the name.
    pub args: Vec<String>,
    /// Its working directory.
    pub directory: PathBuf,
}

/// A process that was started and is not yet watched.
#[derive(Debug)]
pub struct Started {
    process: Process,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// How its end is noticed, and brought about.
#[derive(Debug)]
enum Process {
    /// A child of this process.
    Own(std::process::Child),
    /// A child of the launcher, which ends it when the leash is let go.
    Launched { eye: OwnedFd, leash: Option<OwnedFd> },
}

/// How many descriptors a process comes with that the launcher started: its three pipes, an eye (a pidfd), a leash.
pub const HANDED: usize = 5;

impl Started {
    /// A process that the launcher started. Refuses another number of descriptors than [`HANDED`].
    pub fn handed(descriptors: Vec<OwnedFd>) -> io::Result<Started> {
        let handed: [OwnedFd; HANDED] =
            descriptors.try_into().map_err(|_| io::Error::other("the launcher handed over something else"))?;
        let [stdin, stdout, stderr, eye, leash] = handed;
        Ok(Started { process: Process::Launched { eye, leash: Some(leash) }, stdin, stdout, stderr })
    }

    /// For the launcher: the number of a child of its own, and its pipes. Nobody reaps it but who asks for that.
    pub fn apart(self) -> (Option<u32>, [OwnedFd; 3]) {
        let pid = match &self.process {
            Process::Own(child) => Some(child.id()),
            Process::Launched { .. } => None,
        };
        (pid, [self.stdin, self.stdout, self.stderr])
    }
}

/// Starts a program, as that user if one is named. Blocks for about a millisecond: for a job.
pub fn start(program: &Program, user: Option<User>) -> io::Result<Started> {
    let mut command = Command::new(&program.path);
    command.args(&program.args).current_dir(&program.directory);
    if program.path == Path::new(OWN_EXECUTABLE) {
        command.arg0("dmail");
    }
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process::new_session(&mut command, user);
    let mut child = command.spawn()?;
    let missing = || io::Error::other("a pipe of a child is missing");
    let stdin = child.stdin.take().ok_or_else(missing)?.into();
    let stdout = child.stdout.take().ok_or_else(missing)?.into();
    let stderr = child.stderr.take().ok_or_else(missing)?.into();
    Ok(Started { process: Process::Own(child), stdin, stdout, stderr })
}

/// A process and its pipes, in the loop.
#[derive(Debug)]
pub struct Child {
    process: Process,
    /// Gone once it is killed.
    stdin: Option<Sender>,
    stdout: Receiver,
    stderr: Receiver,
    readable: bool,
    errors: bool,
    complaint: Vec<u8>,
    over: bool,
}

/// The lanes of its pipes.
const STDIN: usize = 0;
const STDOUT: usize = 1;
const STDERR: usize = 2;
/// Of the eye on a process that the launcher started.
const EYE: usize = 3;

impl Child {
    /// Takes the pipes of a process that was started.
    pub fn new(started: Started) -> io::Result<Child> {
        let Started { process, stdin, stdout, stderr } = started;
        let (stdin, stdout, stderr) = (Sender::from(stdin), Receiver::from(stdout), Receiver::from(stderr));
        // Pipes made by the standard library block, and one slow child would stop everybody.
        stdin.set_nonblocking(true)?;
        stdout.set_nonblocking(true)?;
        stderr.set_nonblocking(true)?;
        let complaint = Vec::new();
        Ok(Child { process, stdin: Some(stdin), stdout, stderr, readable: true, errors: true, complaint, over: false })
    }

    /// Registers the pipes.
    pub fn register(&mut self, registry: &Registry, token: &dyn Fn(usize) -> Token) -> io::Result<()> {
        if let Some(stdin) = &mut self.stdin {
            registry.register(stdin, token(STDIN), Interest::WRITABLE)?;
        }
        if let Process::Launched { eye, .. } = &self.process {
            registry.register(&mut SourceFd(&eye.as_raw_fd()), token(EYE), Interest::READABLE)?;
        }
        registry.register(&mut self.stdout, token(STDOUT), Interest::READABLE)?;
        registry.register(&mut self.stderr, token(STDERR), Interest::READABLE)
    }

    /// Takes them away again. Errors mean that they are gone already.
    pub fn deregister(&mut self, registry: &Registry) {
        if let Some(stdin) = &mut self.stdin {
            let _ = registry.deregister(stdin);
        }
        if let Process::Launched { eye, .. } = &self.process {
            let _ = registry.deregister(&mut SourceFd(&eye.as_raw_fd()));
        }
        let _ = registry.deregister(&mut self.stdout);
        let _ = registry.deregister(&mut self.stderr);
    }

    /// The kernel says something about a pipe.
    pub fn mark(&mut self, lane: usize, _ready: Readiness) {
        match lane {
            STDOUT => self.readable = true,
            STDERR => self.errors = true,
            _ => {}
        }
    }

    /// Sends one request. It is atomic while it fits the pipe; a child that does not read is as good as dead.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Err(io::ErrorKind::BrokenPipe.into()) };
        match stdin.write(bytes) {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) => Err(error),
        }
    }

    /// What it said since the last call, at most so much; empty when there is nothing now.
    pub fn receive(&mut self) -> Vec<u8> {
        if !self.readable {
            return Vec::new();
        }
        let mut bytes = vec![0; BATCH];
        match self.stdout.read(&mut bytes) {
            Ok(0) => self.readable = false,
            Ok(count) => {
                bytes.truncate(count);
                return bytes;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.readable = false,
        }
        Vec::new()
    }

    /// Whether it has said everything there is for now.
    pub fn is_quiet(&self) -> bool {
        !self.readable
    }

    /// A line of its standard error for the log, cut to what is sane; `None` when there is none now, or when `budget` bytes
    /// have been read.
    pub fn complaint(&mut self, budget: &mut usize) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.complaint) {
                let rest = self.complaint.split_off(at + 1);
                let mut line = std::mem::replace(&mut self.complaint, rest);
                line.truncate(at);
                return Some(line);
            }
            if self.complaint.len() >= ERROR_LINE {
                return Some(std::mem::take(&mut self.complaint));
            }
            if !self.errors || *budget == 0 {
                return None;
            }
            let mut bytes = [0; ERROR_LINE];
            match self.stderr.read(&mut bytes) {
                Ok(0) => self.errors = false,
                Ok(count) => {
                    *budget = budget.saturating_sub(count);
                    self.complaint.extend_from_slice(&bytes[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.errors = false,
            }
        }
    }

    /// Whether there may be more of its standard error to be read.
    pub fn has_complaints(&self) -> bool {
        self.errors
    }

    /// Ends it and all it started.
    pub fn kill(&mut self) {
        if self.over {
            return;
        }
        match &mut self.process {
            Process::Own(child) => process::kill_session(child.id()),
            Process::Launched { eye, leash } => {
                *leash = None;
                // Should the launcher be gone: not allowed for root's, which end with their input.
                let _ = process::kill_watched(eye);
                self.stdin = None;
            }
        }
    }

    /// Whether it has ended; then it is no zombie any more.
    pub fn reap(&mut self) -> bool {
        self.over = self.over
            || match &mut self.process {
                // An error means that there is no such child to wait for.
                Process::Own(child) => !matches!(child.try_wait(), Ok(None)),
                Process::Launched { eye, .. } => {
                    channel::wait(&[eye.as_fd()], Some(Duration::ZERO)).is_ok_and(|ended| ended == [true])
                }
            };
        self.over
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        if let Process::Own(child) = &mut self.process
            && !self.over
        {
            // It was sent SIGKILL, so this is short; without it a zombie would stay.
            let _ = child.wait();
        }
    }
}
