//! The launcher: a process that keeps root while the server gives it up. It reads no network, has no threads, and knows
//! nine requests ([`protocol::launcher`](crate::protocol::launcher)).
//!
//! | it is   | from                                    | until                                                      |
//! |---------|-----------------------------------------|------------------------------------------------------------|
//! | Waiting | [`part`], before any thread exists      | a packet, the end of a process it started, a leash let go   |
//! | Working | a packet came                           | the answer is sent; the next packet waits that long        |
//! | Ended   | the server's end of the channel closed  | what it started and still runs is killed, and it exits     |
//!
//! What it checks, however politely it is asked, for the server may have fallen to somebody:
//! * It believes the configuration only: the file, with all it includes, must be root's and nobody else's to write,
//!   each in a directory of that kind. It reads it for itself at the start and at `Reload`, and holds two at most: the
//!   one the server lives by and the last one read.
//! * Ports, files and programs are those of a configuration it holds, compared word by word. The server names them, and
//!   describes nothing. An authenticator is started as `run_as`; as root only our own, for `authent_method unix_user`.
//! * A drop lies below a `drop_root`, or where a domain has its drops, which is held while the rest is resolved: no
//!   link on the way, nothing hidden, nothing above (`rules::names::drop_below`, openat2(2)). Its owner is at least
//!   `min_uid`; a file that is there is a regular one with one name and belongs to that user; one that is made is 0600,
//!   that user's and of the directory's group.
//! * A forward file is `NAME.fwd` beside such a drop, or `.forward` in the home of a user of at least `min_uid` where
//!   `authent_method` is unix_user and `no_dotforward` is not set: a regular file with one name, that user's or root's, which
//!   nobody else may write, through no link, and handed over to be read alone.
//! * A dotlock is `NAME.lock` beside such a drop, and belongs to `run_as`; what stands there is judged as everywhere
//!   (`store::locks`). It is taken away only if it is the file that was named.
//! * A program that is given mail lies in `robot_path`, a directory that is root's and nobody else's to write, all the way
//!   down. It runs as `robot_user`, or with `user_robots` as the user the server names, of at least `min_uid`, never as root;
//!   with the environment that the launcher makes, where the server has the values of a few fixed names. What its arguments are
//!   and what it reads is the server's word: `service/robot.rs` says what follows from that.
//!
//! It never follows a link that a user could have made, never runs a program that root did not choose, never becomes anybody
//! else itself, never waits for the server, and writes nothing but answers. A signal to end does nothing: it ends
//! with the server, and not before, so that a server which is told to stop can stop in order. When it is killed all the
//! same, the server goes on with what it was handed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use super::start::ports;
use crate::net::{child, listen};
use crate::protocol::launcher::{Answer, PACKET, Request, decode_request, encode_answer};
use crate::rules::names::drop_below;
use crate::service::Services;
use crate::service::helpers::Helpers;
use crate::service::launcher::{Launcher, digest};
use crate::service::robot::{self, Plan};
use crate::settings::{self, Level, Method, Settings};
use crate::store::forward;
use crate::store::maildrop::{lock_for_another, unlock_for_another};
use crate::sys::below::open_dir_below;
use crate::sys::files::{self, How};
use crate::sys::user::{self, User};
use crate::sys::{access, channel, process};

/// Processes it watches at a time: more than two generations of the most copies that can be set.
const CHILDREN: usize = 256;

/// Parts the server from its rights: before any thread exists, a second process is made that keeps root, and this one
/// becomes `run_as` for good. `None`: there is nothing to part with, for we are not root or shall stay it.
pub fn part(settings: &Settings) -> Result<Option<Launcher>, String> {
    let Some(name) = settings.run_as.as_ref().filter(|_| access::is_root()) else { return Ok(None) };
    let user = user::find(name).map_err(|error| format!("run_as {name}: {error}"))?;
    let user = user.filter(|user| user.uid != 0).ok_or_else(|| format!("run_as {name}: no such user, or root"))?;
    let trouble = |error: io::Error| format!("the launcher cannot be made: {error}");
    let (ours, its) = channel::pair().map_err(trouble)?;
    let mut keeper = Keeper::new(settings.file.clone(), user.clone())?;
    let Some(pid) = process::fork().map_err(trouble)? else {
        drop(ours);
        std::process::exit(keeper.serve(&its));
    };
    drop(its);
    user.assume().map_err(|error| format!("this process cannot become {name}: {error}"))?;
    Launcher::new(ours, pid, keeper.last).map(Some).map_err(trouble)
}

/// A configuration it goes by.
struct Held {
    number: u32,
    settings: Settings,
}

/// A process it started, until it is reaped.
struct Kept {
    pid: u32,
    eye: OwnedFd,
    /// The server's hold on it; `None` once that was let go.
    leash: Option<OwnedFd>,
    /// The server is told how it ended, over the leash.
    told: bool,
}

/// Why a request is not carried out: the system's number, or 0, and a sentence.
type Refusal = (i32, String);

fn rule(why: impl Into<String>) -> Refusal {
    (0, why.into())
}

fn system(error: io::Error) -> Refusal {
    (error.raw_os_error().unwrap_or(0), error.to_string())
}

/// What goes back: a number and descriptors.
type Done = (u64, Vec<OwnedFd>);

struct Keeper {
    file: PathBuf,
    user: User,
    held: Vec<Held>,
    last: u32,
    children: Vec<Kept>,
}

impl Keeper {
    fn new(file: PathBuf, user: User) -> Result<Keeper, String> {
        let mut keeper = Keeper { file, user, held: Vec::new(), last: 0, children: Vec::new() };
        keeper.reload(0).map_err(|(_, why)| why)?;
        Ok(keeper)
    }

    /// All that the process does; its exit code.
    fn serve(&mut self, channel: &OwnedFd) -> i32 {
        // What is sent to the group or the terminal that the server was started from is the server's business.
        let _ = process::leave_session();
        process::shrug_signals();
        process::private_umask();
        self.answer(channel)
    }

    /// Answers until the server is gone.
    fn answer(&mut self, channel: &OwnedFd) -> i32 {
        let mut packet = vec![0; PACKET];
        loop {
            let ready = match self.wait(channel) {
                Ok(ready) => ready,
                Err(_) => return 1,
            };
            self.tend(&ready[1..]);
            if !ready[0] {
                continue;
            }
            let (serial, done) = match channel::receive(channel, &mut packet) {
                Ok((0, _)) => break,
                Ok((bytes, along)) => match decode_request(&packet[..bytes]) {
                    Ok((serial, request)) => (serial, self.carry_out(request, along)),
                    Err(serial) => (serial, Err(rule("this is no request"))),
                },
                Err(error) if error.kind() == io::ErrorKind::InvalidData => (0, Err(rule("this is no request"))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let (answer, descriptors) = match done {
                Ok((number, descriptors)) => (Answer::Done(number), descriptors),
                Err((number, why)) => (Answer::Refused(number, why), Vec::new()),
            };
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            // A server that does not take its answer is gone: that shows at the next packet.
            let _ = channel::send(channel, &encode_answer(serial, &answer), &descriptors);
        }
        self.children.iter().for_each(|child| process::kill_session(child.pid));
        0
    }

    /// Whether there is a packet, then for each child whether it ended, and whether its leash was let go.
    fn wait(&self, channel: &OwnedFd) -> io::Result<Vec<bool>> {
        let mut all = vec![channel.as_fd()];
        for child in &self.children {
            all.push(child.eye.as_fd());
            // One that was let go is dying: its eye will see it, and stands in here.
            all.push(child.leash.as_ref().unwrap_or(&child.eye).as_fd());
        }
        channel::wait(&all, None)
    }

    /// Looks after those it started.
    fn tend(&mut self, ready: &[bool]) {
        let mut ready = ready.chunks(2);
        self.children.retain_mut(|child| {
            let Some(&[ended, loose]) = ready.next() else { return true };
            if ended || loose {
                // Whatever it started ends with it. It is not reaped yet, so the number is still its own.
                process::kill_session(child.pid);
            }
            if loose {
                child.leash = None;
            }
            if !ended {
                return true;
            }
            match process::reap_status(child.pid) {
                Ok(None) => true,
                Ok(Some(status)) => {
                    if let Some(leash) = child.leash.as_ref().filter(|_| child.told) {
                        // A server that does not take it knows the end by that of the leash.
                        let _ = channel::send(leash, &status.to_le_bytes(), &[]);
                    }
                    false
                }
                // Nobody's child any more.
                Err(_) => false,
            }
        });
    }

    fn carry_out(&mut self, request: Request, along: Vec<OwnedFd>) -> Result<Done, Refusal> {
        let one = |fd: OwnedFd| (0, vec![fd]);
        match request {
            Request::Reload { in_force } => self.reload(in_force).map(|number| (number.into(), Vec::new())),
            Request::Bind(address) => {
                let opens =
                    |held: &Held| ports(&held.settings, Services::All, true).iter().any(|port| port.address == address);
                if !self.held.iter().any(opens) {
                    return Err(rule(format!("{address}: the configuration opens no such port")));
                }
                listen::bind(address).map(one).map_err(system)
            }
            Request::Read(path) => self.read(Path::new(OsStr::from_bytes(&path))).map(|file| one(file.into())),
            Request::Start(program) => self.start(program),
            Request::Open { path, uid, create } => {
                self.open(Path::new(OsStr::from_bytes(&path)), uid, create).map(|file| one(file.into()))
            }
            Request::Forward { path, uid } => {
                let drop = (!path.is_empty()).then(|| Path::new(OsStr::from_bytes(&path)));
                self.forward(drop, uid).map(|file| one(file.into()))
            }
            Request::Lock { path, uid, line } => {
                self.lock(Path::new(OsStr::from_bytes(&path)), uid, &line).map(|file| one(file.into()))
            }
            Request::Robot { name, args, uid, facts } => {
                let message = <[OwnedFd; 1]>::try_from(along).map_err(|_| rule("a program is given one message"))?;
                let [message] = message;
                self.robot(OsStr::from_bytes(&name), &args, uid, &facts, message.into())
            }
            Request::Unlock { path, uid, inode } => {
                self.unlock(Path::new(OsStr::from_bytes(&path)), uid, inode).map(|()| (0, Vec::new()))
            }
        }
    }

    fn reload(&mut self, in_force: u32) -> Result<u32, Refusal> {
        let trusted = |path: &Path| {
            let file = files::open_to_read(path)?;
            settings::trust(path, &file).map_err(io::Error::other)?;
            Ok(file)
        };
        let loaded = settings::load_by(&self.file, &trusted);
        let Some(settings) = loaded.settings else {
            let errors = loaded.complaints.iter().filter(|complaint| complaint.level == Level::Error);
            return Err(rule(errors.map(ToString::to_string).collect::<Vec<_>>().join("; ")));
        };
        self.held.retain(|held| held.number == in_force);
        self.last = self.last.wrapping_add(1);
        self.held.push(Held { number: self.last, settings });
        Ok(self.last)
    }

    fn read(&self, path: &Path) -> Result<File, Refusal> {
        let names = |held: &Held| {
            let settings = &held.settings;
            let pem = settings.tls_cert.iter().chain(&settings.tls_key).map(|file| &file.path);
            let named = settings.files.iter().chain([&settings.file]).chain(pem).map(PathBuf::as_path);
            named.chain(settings.login_files()).any(|named| named == path)
        };
        if !self.held.iter().any(names) {
            return Err(rule(format!("{}: the configuration names no such file", path.display())));
        }
        let file = files::open_to_read(path).map_err(system)?;
        if !files::stat(&file).map_err(system)?.is_file() {
            return Err(rule(format!("{}: not a regular file", path.display())));
        }
        Ok(file)
    }

    fn start(&mut self, program: u64) -> Result<Done, Refusal> {
        let configured = |held: &&Held| digest(&Helpers::program(&held.settings)) == program;
        let Some(held) = self.held.iter().find(configured) else {
            return Err(rule("the configuration has no such authenticator"));
        };
        if self.children.len() >= CHILDREN {
            return Err(rule("too many authenticators are running"));
        }
        // The passwords of system users are root's to read.
        let user = (held.settings.authent_method != Method::UnixUser).then(|| self.user.clone());
        let (leash, hold) = channel::pair().map_err(system)?;
        let (Some(pid), [stdin, stdout, stderr]) =
            child::start(&Helpers::program(&held.settings), user).map_err(system)?.apart()
        else {
            return Err(rule("the authenticator is nobody's child"));
        };
        let eyes = process::watch(pid).and_then(|eye| Ok((eye.try_clone()?, eye)));
        let (eye, its) = eyes.map_err(|error| {
            process::kill_session(pid);
            process::reap(pid);
            system(error)
        })?;
        self.children.push(Kept { pid, eye, leash: Some(leash), told: false });
        Ok((pid.into(), vec![stdin, stdout, stderr, its, hold]))
    }

    /// Runs a program that is given mail.
    fn robot(
        &mut self,
        name: &OsStr,
        args: &[Vec<u8>],
        uid: Option<u32>,
        facts: &[Vec<u8>; 7],
        message: File,
    ) -> Result<Done, Refusal> {
        let Some(settings) = self.held.last().map(|held| &held.settings) else {
            return Err(rule("there is no configuration"));
        };
        let Some(approved) = &settings.robot_path else {
            return Err(rule("the configuration has no robot_path"));
        };
        // One name, so that nothing leaves the directory.
        if Path::new(name).file_name() != Some(name) || name.as_bytes().starts_with(b".") {
            return Err(rule(format!("{}: not the name of a program", name.display())));
        }
        settings::trust_folder(approved).map_err(rule)?;
        let found = match (uid, &settings.robot_user) {
            (Some(uid), _) if settings.user_robots && uid >= settings.min_uid => user::by_number(uid),
            (Some(uid), _) => return Err(rule(format!("user {uid} may have no programs run"))),
            (None, Some(name)) => match user::find(name) {
                Ok(Some(user)) => user::by_number(user.uid),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            },
            (None, None) => return Err(rule("the configuration has no robot_user")),
        };
        let found = found.map_err(system)?;
        let Some((user, home)) = found.filter(|(user, _)| user.uid != 0) else {
            return Err(rule("there is no such user, or it is root"));
        };
        if self.children.len() >= CHILDREN {
            return Err(system(process::exhausted()));
        }
        let (leash, hold) = channel::pair().map_err(system)?;
        let args: Vec<OsString> = args.iter().map(|word| OsString::from(OsStr::from_bytes(word))).collect();
        let path = approved.join(name);
        let login = Some((user.name.as_str(), home.as_path()));
        let plan = Plan { path: &path, args: &args, login, facts, user: Some(user.clone()) };
        let (child, output) = robot::spawn(plan, message).map_err(system)?;
        let pid = child.id();
        let eye = process::watch(pid).map_err(|error| {
            process::kill_session(pid);
            process::reap(pid);
            system(error)
        })?;
        self.children.push(Kept { pid, eye, leash: Some(leash), told: true });
        Ok((pid.into(), vec![output.into(), hold]))
    }

    /// The folder of a drop, and its name in there, if some configuration lets that user have a drop there.
    fn folder<'p>(&self, path: &'p Path, uid: u32) -> Result<(File, &'p OsStr), Refusal> {
        let mut found: Option<(&Path, _)> = None;
        for settings in self.held.iter().map(|held| &held.settings).filter(|settings| uid >= settings.min_uid) {
            for root in settings.drop_root.iter().map(PathBuf::as_path).chain(settings.domains.all_drops()) {
                let longer = found.is_none_or(|(other, _)| root.as_os_str().len() > other.as_os_str().len());
                if let Some(below) = drop_below(path, root).filter(|_| longer) {
                    found = Some((root, below));
                }
            }
        }
        let Some((root, (folder, name))) = found.filter(|_| uid != 0) else {
            return Err(rule(format!("uid {uid} may have no drop there")));
        };
        let root = files::open_dir(root).map_err(system)?;
        Ok((open_dir_below(&root, folder).map_err(system)?, name))
    }

    fn open(&self, path: &Path, uid: u32, create: bool) -> Result<File, Refusal> {
        let (folder, name) = self.folder(path, uid)?;
        let name = Path::new(name);
        let there = files::open_at(&folder, name, How::Write);
        let file = match there {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                match appear(&folder, &beside(name.as_os_str(), ".", ".new"), name, uid, b"") {
                    // Somebody was quicker: then it is judged like any that is there.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        files::open_at(&folder, name, How::Write)
                    }
                    made => made,
                }
            }
            there => there,
        };
        let file = file.map_err(system)?;
        let seen = files::stat(&file).map_err(system)?;
        if !seen.is_file() || seen.links != 1 || seen.uid != uid {
            return Err(rule(format!("not uid {uid}'s own regular file")));
        }
        Ok(file)
    }

    /// A user's forward file, if one may be used and nobody else can have written it.
    fn forward(&self, drop: Option<&Path>, uid: u32) -> Result<File, Refusal> {
        let absent = || system(files::absent());
        let file = match drop {
            Some(drop) => {
                let (folder, _) = self.folder(drop, uid)?;
                let path = forward::beside(drop);
                let name = path.file_name().ok_or_else(absent)?;
                files::open_at(&folder, Path::new(name), How::Read).map_err(system)?
            }
            None => {
                let follows = |held: &Held| {
                    let settings = &held.settings;
                    let of_system = settings.authent_method == Method::UnixUser && !settings.no_dotforward;
                    of_system && uid >= settings.min_uid
                };
                if uid == 0 || !self.held.iter().any(follows) {
                    return Err(rule(format!("the forward file in the home of uid {uid} is not to be read")));
                }
                forward::open_home(uid).map_err(system)?.ok_or_else(absent)?
            }
        };
        let seen = files::stat(&file).map_err(system)?;
        forward::judge(&seen, Some(uid)).map_err(rule)?;
        Ok(file)
    }

    fn lock(&self, path: &Path, uid: u32, line: &[u8]) -> Result<File, Refusal> {
        let (folder, name) = self.folder(path, uid)?;
        if let Ok(seen) = files::stat_at(&folder, Path::new(name))
            && (!seen.is_file() || seen.uid != uid)
        {
            return Err(rule(format!("not uid {uid}'s own regular file")));
        }
        lock_for_another(&folder, path, self.user.uid, line).map_err(system)
    }

    fn unlock(&self, path: &Path, uid: u32, inode: u64) -> Result<(), Refusal> {
        let (folder, _) = self.folder(path, uid)?;
        match unlock_for_another(&folder, path, inode).map_err(system)? {
            true => Ok(()),
            false => Err(rule("its lock is another one now")),
        }
    }
}

/// A file of that user, of the directory's group, with mode 0600 and those bytes in it, which gets its name when it is
/// whole; `new` is what it is called before. Refused when the name is taken.
fn appear(folder: &File, new: &Path, name: &Path, uid: u32, bytes: &[u8]) -> io::Result<File> {
    // Left by a launcher that was killed: nobody else makes such a name.
    let _ = files::remove_at(folder, new);
    let file = files::open_at(folder, new, How::CreateNew)?;
    let made = (folder.metadata())
        .and_then(|about| fchown(&file, Some(uid), Some(about.gid())))
        .and_then(|()| (&file).write_all(bytes))
        .and_then(|()| files::link_at(folder, new, name));
    let removed = files::remove_at(folder, new);
    made.and(removed).map(|()| file)
}

/// The name of a file that belongs to a drop.
fn beside(name: &OsStr, before: &str, after: &str) -> PathBuf {
    let mut beside = OsString::from(before);
    beside.push(name);
    beside.push(after);
    beside.into()
}

#[cfg(test)]
mod tests;
