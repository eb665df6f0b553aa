//! The least a program could do for the same: no bound here does anything that DMail could leave out.
//!
//! `loadtest versus` has these too, by the same file, at doors of its own choice.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memchr_iter;
use mio::{Events, Interest, Poll, Token};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use slab::Slab;
use xxhash_rust::xxh3::Xxh3;

/// The word that makes this program [`null_server`].
pub const NULL: &str = "--null-server";
/// The word that makes this program [`keeping_server`].
pub const KEEPING: &str = "--keeping-server";
/// The word that makes this program [`bare_server`].
pub const BARE: &str = "--bare-server";
/// The word that makes this program [`bare_server`] within TLS.
pub const SEALED: &str = "--sealed-server";

/// A bound in a process of its own, as the server is one.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Process {
    /// A loop that says `+OK` to every line.
    pub fn null() -> Process {
        Process::start(&[NULL])
    }

    /// Sends a file for every RETR.
    pub fn bare(file: &Path) -> Process {
        Process::start(&[BARE, file.to_str().expect("a plain path")])
    }

    /// The same within TLS.
    pub fn sealed(file: &Path) -> Process {
        Process::start(&[SEALED, file.to_str().expect("a plain path")])
    }

    /// Appends every message to a file of its recipient's in this directory, and syncs it.
    pub fn keeping(dir: &Path) -> Process {
        Process::start(&[KEEPING, dir.to_str().expect("a plain path")])
    }

    fn start(words: &[&str]) -> Process {
        let program = std::env::current_exe().expect("our own path");
        let child = Command::new(program).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("we can be started");
        let mut line = String::new();
        let said = BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line);
        let address = said.ok().and_then(|_| line.trim().parse().ok()).expect("an address");
        Process { child, address }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free port of the loopback, told on standard output. Whoever started us closes our standard input, or dies: then we end too.
pub fn listen() -> TcpListener {
    let listener = listen_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    println!("{}", listener.local_addr().expect("an address"));
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    listener
}

/// This port, with room for many who wait.
pub fn listen_at(address: SocketAddr) -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&address.into()).and_then(|()| socket.listen(4096)).expect("a port");
    TcpListener::from(socket)
}

/// What is said to every line. The numbers make it an answer to STAT too.
const YES: &str = "+OK 0 0\r\n";

/// One epoll loop that greets, says `+OK` to every line, and closes after QUIT.
pub fn null_server(listener: TcpListener) {
    listener.set_nonblocking(true).expect("a socket");
    let mut listener = mio::net::TcpListener::from_std(listener);
    let mut poll = Poll::new().expect("a poll");
    let door = Token(usize::MAX);
    poll.registry().register(&mut listener, door, Interest::READABLE).expect("a listener");
    let mut events = Events::with_capacity(256);
    let mut clients: Slab<mio::net::TcpStream> = Slab::new();
    let mut buffer = [0; 4096];
    loop {
        if poll.poll(&mut events, None).is_err() {
            continue;
        }
        for event in &events {
            if event.token() == door {
                while let Ok((mut socket, _)) = listener.accept() {
                    let vacant = clients.vacant_entry();
                    let token = Token(vacant.key());
                    let registered = poll.registry().register(&mut socket, token, Interest::READABLE);
                    if registered.is_ok() && socket.write_all(YES.as_bytes()).is_ok() {
                        vacant.insert(socket);
                    }
                }
                continue;
            }
            let Some(socket) = clients.get_mut(event.token().0) else { continue };
            let over = match socket.read(&mut buffer) {
                Ok(0) => true,
                Ok(count) => {
                    let lines = memchr_iter(b'\n', &buffer[..count]).count();
                    socket.write_all(YES.repeat(lines).as_bytes()).is_err() || buffer.starts_with(b"QUIT")
                }
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            };
            if over {
                clients.remove(event.token().0);
            }
        }
    }
}

/// Says `+OK` to every line; after RETR comes the file: read by 64 KB, converted, written, in one blocking loop. With a
/// configuration all of it goes through TLS.
pub fn bare_server(listener: TcpListener, path: &Path, tls: Option<&Arc<ServerConfig>>) {
    let file = File::open(path).expect("a file");
    for socket in listener.incoming().flatten() {
        let (file, tls) = (file.try_clone().expect("a descriptor"), tls.cloned());
        std::thread::spawn(move || {
            // A client that goes away ends its thread.
            let _ = socket.set_nodelay(true).and_then(|()| match tls {
                None => bare_session(socket, &file),
                Some(tls) => {
                    let tls = ServerConnection::new(tls).map_err(io::Error::other)?;
                    bare_session(StreamOwned::new(tls, socket), &file)
                }
            });
        });
    }
}

fn bare_session(socket: impl Read + Write, file: &File) -> io::Result<()> {
    let mut lines = BufReader::new(socket);
    lines.get_mut().write_all(YES.as_bytes())?;
    let (mut piece, mut out, mut line) = (vec![0; 64 * 1024], Vec::with_capacity(128 * 1024), String::new());
    while lines.read_line(&mut line)? > 0 {
        out.extend_from_slice(YES.as_bytes());
        if line.starts_with("RETR") {
            let mut at = 0;
            loop {
                let count = file.read_at(&mut piece, at)?;
                if count == 0 {
                    break;
                }
                at += count as u64;
                convert(&piece[..count], &mut out);
                if out.len() >= piece.len() {
                    lines.get_mut().write_all(&out)?;
                    out.clear();
                }
            }
            out.extend_from_slice(b".\r\n");
        }
        // What was asked for at once is answered at once.
        if lines.buffer().is_empty() || out.len() >= piece.len() {
            lines.get_mut().write_all(&out)?;
            out.clear();
        }
        line.clear();
    }
    Ok(())
}

/// Says yes to every line; after DATA reads a text to its dot, appends it to the file that is called like the last RCPT, and
/// syncs that: a thread for each client.
pub fn keeping_server(listener: TcpListener, dir: &Path) {
    for socket in listener.incoming().flatten() {
        let dir = dir.to_owned();
        std::thread::spawn(move || {
            // A client that goes away ends its thread.
            let _ = keeping_session(&socket, &dir);
        });
    }
}

fn keeping_session(mut socket: &TcpStream, dir: &Path) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.write_all(b"220 \r\n")?;
    let mut lines = BufReader::with_capacity(16 * 1024, socket.try_clone()?);
    let (mut line, mut text, mut file) = (Vec::new(), Vec::new(), dir.join("nobody"));
    while lines.read_until(b'\n', &mut line)? > 0 {
        if line.starts_with(b"DATA") {
            socket.write_all(b"354 \r\n")?;
            text.clear();
            while lines.read_until(b'\n', &mut text)? > 0 && !text.ends_with(b"\r\n.\r\n") {}
            let mut file = File::options().append(true).create(true).open(&file)?;
            file.write_all(&text)?;
            file.sync_data()?;
        } else if let Some(recipient) = line.strip_prefix(b"RCPT TO:<") {
            file = dir.join(String::from_utf8_lossy(recipient).trim_end_matches(['>', '\r', '\n']));
        }
        // A client may want to know that it can send any letter, and all at once.
        socket.write_all(if line.starts_with(b"EHLO") {
            b"250-\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
        } else {
            b"250 \r\n"
        })?;
        line.clear();
    }
    Ok(())
}

/// LF to CRLF, dots doubled: the plainest loop, right only for pieces that begin a line.
fn convert(piece: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    for end in memchr_iter(b'\n', piece) {
        if piece[from] == b'.' {
            out.push(b'.');
        }
        out.extend_from_slice(&piece[from..end]);
        out.extend_from_slice(b"\r\n");
        from = end + 1;
    }
    out.extend_from_slice(&piece[from..]);
}

/// A file read, its newlines counted, and one hash over all.
pub fn read_count_and_hash(path: &Path) -> (usize, u128) {
    let file = File::open(path).expect("a file");
    let (mut lines, mut hash, mut at) = (0, Xxh3::new(), 0);
    let mut piece = vec![0; 128 * 1024];
    loop {
        let count = file.read_at(&mut piece, at).expect("a file that can be read");
        if count == 0 {
            return (lines, hash.digest128());
        }
        lines += memchr_iter(b'\n', &piece[..count]).count();
        hash.update(&piece[..count]);
        at += count as u64;
    }
}

/// Appends 4 KB to a file in this directory and syncs it: how long those calls take. A new file needs its name synced as
/// well.
pub fn append_and_sync(dir: &Path, new: bool) -> Duration {
    let path = dir.join(".bench-sync");
    if new {
        let _ = std::fs::remove_file(&path);
    }
    let mut file = File::options().append(true).create(true).open(path).expect("a file");
    let names = File::open(dir).expect("a directory");
    let begun = Instant::now();
    file.write_all(&[b'x'; 4096]).and_then(|()| file.sync_data()).expect("a disk");
    if new {
        names.sync_all().expect("a disk");
    }
    begun.elapsed()
}
