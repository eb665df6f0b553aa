//! The launcher, as the server sees it: somebody to ask for what root alone may do. Its page is `server/launcher.rs`.
//!
//! Every call waits for the answer, one at a time and at most [`PATIENCE`]: they are for jobs, and for the start. An
//! answer that comes later than that is known by its serial number, and let go. Once the launcher is gone every call
//! fails at once, in words an operator understands; what was handed over before is good as it was.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::robot::Running;
use crate::net::child::{self, Program, Started};
use crate::protocol::launcher::{Answer, PACKET, Request, decode_answer, encode_request};
use crate::store::disk::Hand;
use crate::sys::{channel, files, process};

/// How long it may take for an answer: it opens files, and starts programs.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Our end of the channel to it.
#[derive(Debug)]
pub struct Launcher {
    /// And the serial number of the last request.
    end: Mutex<(OwnedFd, u32)>,
    pid: u32,
    gone: AtomicBool,
    in_force: AtomicU32,
}

impl Launcher {
    /// A launcher that is the child `pid` at the other end, and holds the configuration `in_force`.
    pub fn new(end: OwnedFd, pid: u32, in_force: u32) -> io::Result<Launcher> {
        channel::set_patience(&end, PATIENCE)?;
        Ok(Launcher { end: Mutex::new((end, 0)), pid, gone: AtomicBool::new(false), in_force: in_force.into() })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it can be asked.
    pub fn is_there(&self) -> bool {
        !self.gone.load(Ordering::Relaxed)
    }

    /// A child of ours has ended: was it this one? Does not wait.
    pub fn notice_end(&self) {
        if self.is_there() && process::reap(self.pid) {
            self.lose();
        }
    }

    fn lose(&self) {
        if !self.gone.swap(true, Ordering::Relaxed) {
            log::error!(
                "the launcher (pid {}) is gone: what is open stays open, but low ports, keys and other users' drop files \
                 cannot be opened any more: start the server again",
                self.pid
            );
        }
    }

    fn ask(&self, request: &Request) -> io::Result<(u64, Vec<OwnedFd>)> {
        self.ask_with(request, &[])
    }

    fn ask_with(&self, request: &Request, along: &[BorrowedFd<'_>]) -> io::Result<(u64, Vec<OwnedFd>)> {
        let missing = || io::Error::other("the launcher is gone, and it takes its rights");
        let late = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "the launcher does not answer"),
            _ => error,
        };
        let mut channel = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_there() {
            return Err(missing());
        }
        channel.1 = channel.1.wrapping_add(1);
        let serial = channel.1;
        let packet = encode_request(serial, request);
        while let Err(error) = channel::send(&channel.0, &packet, along) {
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    self.lose();
                    return Err(missing());
                }
                _ => return Err(late(error)),
            }
        }
        let mut packet = [0; PACKET];
        loop {
            let (bytes, descriptors) = match channel::receive(&channel.0, &mut packet) {
                Ok((0, _)) => {
                    self.lose();
                    return Err(missing());
                }
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    self.lose();
                    return Err(missing());
                }
                Err(error) => return Err(late(error)),
            };
            return match decode_answer(&packet[..bytes]) {
                Some((other, _)) if other != serial => continue,
                Some((_, Answer::Done(number))) => Ok((number, descriptors)),
                Some((_, Answer::Refused(0, why))) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
                Some((_, Answer::Refused(number, _))) => Err(io::Error::from_raw_os_error(number)),
                None => Err(io::Error::other("the launcher's answer cannot be read")),
            };
        }
    }

    fn one(&self, request: &Request) -> io::Result<OwnedFd> {
        let (_, mut descriptors) = self.ask(request)?;
        let one = descriptors.pop().filter(|_| descriptors.is_empty());
        one.ok_or_else(|| io::Error::other("the launcher handed over something else"))
    }

    /// Has it read the configuration again; what it is called from now on. Refuses as the launcher does, in a sentence.
    pub fn reload(&self) -> io::Result<u32> {
        let in_force = self.in_force.load(Ordering::Relaxed);
        let (number, _) = self.ask(&Request::Reload { in_force })?;
        u32::try_from(number).map_err(|_| io::Error::other("the launcher's answer cannot be read"))
    }

    /// The server lives by this configuration now. Asks nothing: for the loop.
    pub fn adopt(&self, number: u32) {
        self.in_force.store(number, Ordering::Relaxed);
    }

    /// Opens a file of the configuration, with our own rights if they suffice.
    pub fn read(&self, path: &Path) -> io::Result<File> {
        match files::open_to_read(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.one(&Request::Read(path.as_os_str().as_bytes().to_vec())).map(File::from)
            }
            opened => opened,
        }
    }

    /// Opens a user's forward file, beside his drop or in his home, to read it.
    pub fn forward(&self, uid: u32, drop: Option<&Path>) -> io::Result<File> {
        let path = drop.map_or(Vec::new(), |drop| drop.as_os_str().as_bytes().to_vec());
        self.one(&Request::Forward { path, uid }).map(File::from)
    }

    /// Listens on a configured port.
    pub fn bind(&self, address: SocketAddr) -> io::Result<OwnedFd> {
        self.one(&Request::Bind(address))
    }

    /// Starts the configured authenticator.
    pub fn start(&self, program: &Program) -> io::Result<Started> {
        // Without the launcher we may still have our own rights, which is all that most of them have.
        if !self.is_there() && program.path != Path::new(child::OWN_EXECUTABLE) {
            return child::start(program, None);
        }
        let (_, descriptors) = self.ask(&Request::Start(digest(program)))?;
        Started::handed(descriptors)
    }
}

impl Launcher {
    /// Runs a program that is given this message.
    pub fn robot(&self, request: &Request, message: &File) -> io::Result<Running> {
        let (_, descriptors) = self.ask_with(request, &[message.as_fd()])?;
        Running::handed(descriptors)
    }
}

#[cfg(test)]
impl Launcher {
    /// What is answered to any packet at all.
    pub(crate) fn raw(&self, packet: &[u8]) -> Option<Answer> {
        let channel = self.end.lock().unwrap();
        channel::send(&channel.0, packet, &[]).unwrap();
        let mut answer = [0; PACKET];
        let (bytes, _) = channel::receive(&channel.0, &mut answer).unwrap();
        decode_answer(&answer[..bytes]).map(|(_, answer)| answer)
    }

    /// What comes back to any request, descriptors and all.
    pub(crate) fn request(&self, request: &Request) -> io::Result<(u64, Vec<OwnedFd>)> {
        self.ask(request)
    }
}

impl Hand for Launcher {
    fn open(&self, path: &Path, uid: u32, create: bool) -> io::Result<File> {
        self.one(&Request::Open { path: path.as_os_str().as_bytes().to_vec(), uid, create }).map(File::from)
    }

    fn lock(&self, path: &Path, uid: u32, line: &[u8]) -> io::Result<File> {
        let (path, line) = (path.as_os_str().as_bytes().to_vec(), line.to_vec());
        self.one(&Request::Lock { path, uid, line }).map(File::from)
    }

    fn unlock(&self, path: &Path, uid: u32, inode: u64) -> io::Result<()> {
        self.ask(&Request::Unlock { path: path.as_os_str().as_bytes().to_vec(), uid, inode }).map(drop)
    }
}

/// What a program is called between us: both sides know it from the configuration, so nobody has to be believed.
pub fn digest(program: &Program) -> u64 {
    let mut hash = Xxh3::new();
    let words = program.args.iter().map(String::as_bytes);
    let paths = [&program.path, &program.directory].map(|path| path.as_os_str().as_bytes());
    for word in paths.into_iter().chain(words) {
        hash.update(&(word.len() as u64).to_le_bytes());
        hash.update(word);
    }
    hash.digest()
}
