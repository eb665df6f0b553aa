//! The drop directory, `work_path/incoming`: messages that programs of this machine leave when the server does not take them
//! at its socket, because it is down or says "later".
//!
//! **A file** is one message: its envelope as SMTP says it, then the text.
//!
//! ```text
//! DMAIL 1
//! MAIL FROM:<ann@example.org> BODY=8BITMIME
//! RCPT TO:<bob@example.com> NOTIFY=NEVER
//! DATA
//! From: ...
//! ```
//!
//! **The directory** belongs to the server and to a group that may make files there and not list it (mode 1730). Whoever leaves
//! a message writes `NAME.tmp`, syncs it, renames it to `NAME`, sixteen letters and digits that nobody can guess, and syncs it
//! once more: for a file system with a journal the new name is then on disk. It may be read by all who know the name; the
//! server needs that, and nobody else comes by it.
//!
//! **The server** trusts nothing but what the system says: a regular file with one name, not reached through a link, and its
//! owner is who sent it. The text is taken as strangers' text is, copied to a file of the server's own, because its owner may
//! still write to it. The file's name becomes the message's id in the queue:
//!
//! | in `incoming` | in the queue | this is                                     | what is done                                    |
//! |---------------|--------------|---------------------------------------------|-------------------------------------------------|
//! | `NAME`        | nothing      | a message that waits                        | [`Incoming::take`]: a queue file, synced        |
//! | `NAME`        | `NAME`       | a crash came between the two steps          | its file here is removed, that synced           |
//! | nothing       | `NAME`       | a message of the queue                      | now it may be tried                             |
//! | `NAME`, none of the above shapes | nothing | none of a message                 | set aside in `incoming.bad`, for the operator   |
//! | `NAME.tmp`    | anything     | somebody writes, or was killed              | removed when it is [`STALE_SECS`] old           |
//!
//! So nobody may try a message of the queue while its file lies here: [`Incoming::settle`] goes through the second row before
//! the queue is tried for the first time, and [`Incoming::take`] tells of a message only in the third. Then none is lost, and
//! none delivered twice. A name that the queue has already is never written over.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use super::delivery::{Body, Failed};
use super::desk::Refused;
use super::disk::{Disk, How, Reach, RealDisk, Stat};
use super::queue::{self, Kind, Made, Queue};
use crate::mail::outgoing::{HEADER_LIMIT, Handed, Intake, TooBig};
use crate::protocol::smtp::params::{self, Recipient, Sender};
use crate::text::fault::Fault;

/// The directory, below work_path.
pub const FOLDER: &str = "incoming";
/// Where what is no message is put, below work_path.
pub const BAD: &str = "incoming.bad";
/// The first line of a file.
const FORM: &[u8] = b"DMAIL 1\n";
/// Letters of a name.
const NAME: usize = 16;
/// Of these: no two that look alike.
const LETTERS: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
/// Recipients of one file. Whoever has more leaves several.
pub const RECIPIENTS: usize = 1_000;
/// Octets of a line before the text.
const LINE_LIMIT: usize = 2_048;
/// Bytes of all that stands before the text.
const ENVELOPE_LIMIT: u64 = (RECIPIENTS as u64 + 3) * LINE_LIMIT as u64;
/// Seconds after which a file that was never finished will not be.
pub const STALE_SECS: i64 = 24 * 3_600;
/// Files set aside that are kept. Further ones are removed: whoever may leave messages shall not fill the disk in this way.
pub const BAD_KEPT: usize = 100;
/// Files that are looked at in one go.
pub const BATCH: usize = 256;
/// Bytes that are read at a time.
const PIECE: usize = 32 * 1024;
/// Bytes of text that stay in memory while a message is taken.
const MEMORY: usize = 64 * 1024;
/// Where a larger text is copied to, below work_path: one at a time.
const COPY: &str = "incoming.copy";
/// Where in that file the text begins: before it there is room for the longest header and its blank line. The hole costs nothing.
const TEXT_FROM: u64 = HEADER_LIMIT as u64 + 2;

/// Where a text is written to, piece by piece.
pub type Writer<'w> = dyn FnMut(&[u8]) -> io::Result<()> + 'w;

/// Leaves a message: what follows `MAIL`, what follows each `RCPT`, and its text, which `write` gives in pieces. Gives its
/// name. Fails with `PermissionDenied` for whoever is not in the group.
pub fn leave(
    work_path: &Path,
    mail: &str,
    recipients: &[&str],
    write: &mut dyn FnMut(&mut Writer<'_>) -> io::Result<()>,
) -> Result<String, Fault> {
    assert!((1..=RECIPIENTS).contains(&recipients.len()), "a file is for 1 to {RECIPIENTS} recipients");
    let folder = work_path.join(FOLDER);
    let mut random = [0; NAME];
    let no_numbers = |_| io::Error::other("the system gives no random numbers");
    SystemRandom::new().fill(&mut random).map_err(no_numbers).map_err(Fault::at("making a file in", &folder))?;
    let name: String = random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
    let path = folder.join(&name);
    let fresh = folder.join(format!("{name}.tmp"));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(Fault::at("making a file in", &folder))?;
    let mut all = || {
        let mut head = [FORM, b"MAIL ", mail.as_bytes(), b"\n"].concat();
        for recipient in recipients {
            head.extend_from_slice(format!("RCPT {recipient}\n").as_bytes());
        }
        head.extend_from_slice(b"DATA\n");
        file.write_all(&head)?;
        write(&mut |bytes| file.write_all(bytes))?;
        file.sync_all()?;
        // Only now: until here nobody needs to read it.
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&fresh, &path)?;
        file.sync_all()
    };
    match all() {
        Ok(()) => Ok(name),
        Err(error) => {
            // Nobody has taken it over: whoever called still has it, so nothing may stay here.
            let _ = fs::remove_file(&fresh);
            let _ = fs::remove_file(&path);
            Err(Fault::new("writing", &path, error))
        }
    }
}

/// A message that was left, without its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Slip {
    /// The file's name, and the message's id.
    pub name: String,
    /// Who left it.
    pub uid: u32,
    /// When, in seconds since 1970.
    pub left_secs: i64,
    /// What follows `MAIL`.
    pub sender: Sender,
    /// What follows each `RCPT`.
    pub recipients: Vec<Recipient>,
    text_from: u64,
    /// Where the file ended when it was looked at: whoever goes on writing is not waited for.
    text_end: u64,
}

/// Why a file is not taken.
#[derive(Debug)]
pub enum Bad {
    /// It is gone.
    Gone,
    /// It is no message, or one that is not taken: for this reason. It is to be set aside.
    Strange(String),
    /// The disk or the system failed: later.
    Fault(Fault),
}

impl From<Fault> for Bad {
    fn from(fault: Fault) -> Bad {
        Bad::Fault(fault)
    }
}

/// What an administrator decides about messages.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Octets of a message, as SMTP counts them; 0 = no bound.
    pub size: u64,
    /// `Received:` fields of a message.
    pub hops: usize,
}

/// What was taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its id in the queue.
    pub id: String,
    /// Who left it.
    pub uid: u32,
    /// From whom it says it is; empty: from nobody.
    pub sender: String,
    /// Who shall have it.
    pub recipients: Vec<String>,
    /// Its octets, as SMTP counts them.
    pub octets: u64,
    /// It was in the queue already: a crash had come between.
    pub again: bool,
}

/// The drop directory, as the server sees it. Every call waits for the disk.
pub struct Incoming<D: Disk = RealDisk> {
    disk: D,
    work_path: PathBuf,
    work: D::Dir,
    path: PathBuf,
    dir: D::Dir,
}

impl Incoming {
    /// Opens the directory in `work_path`. It is made when it is not there; whether it belongs to this group, or to us alone,
    /// is put right either way.
    pub fn open(work_path: &Path, group: Option<u32>) -> Result<Incoming, Fault> {
        let incoming = Incoming::open_on(&RealDisk::default(), work_path)?;
        let mode = if group.is_some() { 0o1730 } else { 0o700 };
        // The group first: a directory that is open to the wrong group is open to strangers.
        let given = std::os::unix::fs::chown(&incoming.path, None, group)
            .and_then(|()| fs::set_permissions(&incoming.path, Permissions::from_mode(mode)));
        given.map_err(Fault::at("giving to submit_group", &incoming.path))?;
        Ok(incoming)
    }
}

impl<D: Disk> Incoming<D> {
    /// [`open`](Incoming::open) on a disk of the caller's, without a group.
    pub fn open_on(disk: &D, work_path: &Path) -> Result<Incoming<D>, Fault> {
        let path = work_path.join(FOLDER);
        disk.make_dirs(&path).map_err(Fault::at("making", &path))?;
        let work = disk.open_dir(work_path).map_err(Fault::at("opening", work_path))?;
        let dir = disk.open_dir(&path).map_err(Fault::at("opening", &path))?;
        Ok(Incoming { disk: disk.clone(), work_path: work_path.to_owned(), work, path, dir })
    }

    /// The names of messages that wait, at most [`BATCH`]; what was begun long ago and never finished is removed on the way.
    pub fn names(&self) -> Result<Vec<String>, Fault> {
        let mut found = Vec::new();
        let mut stale = Vec::new();
        let each = self.disk.names(&self.dir, &mut |name| {
            match name.to_str() {
                Some(name) if is_name(name) => found.push(name.to_owned()),
                Some(name) if name.strip_suffix(".tmp").is_some_and(is_name) && stale.len() < BATCH => {
                    stale.push(name.to_owned());
                }
                _ => {}
            }
            found.len() < BATCH
        });
        each.map_err(Fault::at("listing", &self.path))?;
        for name in stale {
            let old = |stat: Stat| stat.mtime < self.disk.now() - STALE_SECS * 1_000_000_000;
            if self.disk.look(&self.dir, Path::new(&name)).is_ok_and(old) {
                let _ = self.disk.remove(&self.dir, Path::new(&name));
            }
        }
        Ok(found)
    }

    /// Before the queue is tried for the first time: what lies both here and there has been taken. Gives how many those were.
    pub fn settle(&self, queue: &Queue<D>) -> Result<usize, Fault> {
        let mut settled = Vec::new();
        let mut trouble = None;
        let each = self.disk.names(&self.dir, &mut |name| {
            let Some(name) = name.to_str().filter(|name| is_name(name)) else { return true };
            match queue.read(name) {
                Ok(_) => settled.push(name.to_owned()),
                Err(queue::Miss::Gone | queue::Miss::Damaged(_)) => {}
                Err(queue::Miss::Fault(fault)) => trouble = Some(fault),
            }
            trouble.is_none()
        });
        each.map_err(Fault::at("listing", &self.path))?;
        if let Some(fault) = trouble {
            return Err(fault);
        }
        for name in &settled {
            self.disk.remove(&self.dir, Path::new(name)).map_err(Fault::at("removing", &self.path.join(name)))?;
        }
        // Also when there is nothing to remove: the last server may have ended between its removal and the sync of that.
        self.disk.sync_dir(&self.dir).map_err(Fault::at("syncing", &self.path))?;
        Ok(settled.len())
    }

    /// What the file `name` says before its text.
    pub fn read(&self, name: &str, terms: &Terms) -> Result<Slip, Bad> {
        self.open_slip(name, terms).map(|(slip, _)| slip)
    }

    /// Takes a message over: it is in the queue, and not here any more, both on disk, when this returns `Ok`. Then, and only
    /// then, the queue may try it.
    pub fn take(
        &self,
        name: &str,
        terms: &Terms,
        queue: &Queue<D>,
        about: &dyn Fn(&Slip) -> About,
    ) -> Result<Taken, Bad> {
        let (slip, file) = self.open_slip(name, terms)?;
        let mut copy = Copy { memory: Vec::new(), file: None, file_bytes: 0 };
        let queued = self.queued(&slip, &file, &mut copy, terms, queue, about);
        if copy.file.is_some() {
            // Left there, the next one would take it away.
            let _ = self.disk.remove(&self.work, Path::new(COPY));
        }
        let taken = queued?;
        self.disk.remove(&self.dir, Path::new(name)).map_err(Fault::at("removing", &self.path.join(name)))?;
        self.disk.sync_dir(&self.dir).map_err(Fault::at("syncing", &self.path))?;
        Ok(taken)
    }

    /// Makes the queue file.
    fn queued(
        &self,
        slip: &Slip,
        file: &D::File,
        copy: &mut Copy<D>,
        terms: &Terms,
        queue: &Queue<D>,
        about: &dyn Fn(&Slip) -> About,
    ) -> Result<Taken, Bad> {
        let name = slip.name.as_str();
        let handed = self.copied(slip, file, copy)?;
        let head = handed.header.bytes();
        let lines = head.iter().filter(|&&byte| byte == b'\n').count() as u64 + handed.text_lines;
        let octets = head.len() as u64 + handed.text_bytes + lines;
        if terms.size != 0 && octets > terms.size {
            return Err(Bad::Strange(format!("it is too big: {octets} octets")));
        }
        if handed.header.count("Received") > terms.hops {
            return Err(Bad::Strange("it is going round in circles: too many Received fields".to_owned()));
        }
        let whole;
        let body = match &copy.file {
            None => {
                whole = [&head[..], &copy.memory].concat();
                Body::Memory(&whole)
            }
            // The text begins where the longest header would end; this one is put right before it.
            Some(file) => {
                let from = TEXT_FROM - head.len() as u64;
                self.disk.write(file, &head, from).map_err(self.copying())?;
                Body::File(file, from..TEXT_FROM + copy.file_bytes)
            }
        };
        let About { received, came, kinds } = about(slip);
        let envelope = queue::Envelope {
            sender: slip.sender.path.as_ref().map(ToString::to_string).unwrap_or_default(),
            received_secs: slip.left_secs,
            came,
            received,
            ret: slip.sender.ret,
            envid: slip.sender.envid.as_deref().map(str::to_owned),
            eight_bit: slip.sender.eight_bit || handed.eight_bit,
            utf8: slip.sender.utf8,
            bounce_of: None,
            mark: None,
        };
        let each = slip.recipients.iter().zip(kinds);
        let recipients: Vec<queue::Recipient> = each
            .map(|(recipient, kind)| queue::Recipient {
                kind,
                address: recipient.path.to_string(),
                with: Vec::new(),
                notify: recipient.notify,
                orcpt: recipient.orcpt.as_deref().map(str::to_owned),
            })
            .collect();
        assert_eq!(recipients.len(), slip.recipients.len(), "each recipient has its kind");
        let made = queue.create(name, &envelope, &recipients, &body).map_err(|failed| match failed {
            Failed::Refused(Refused::Unsafe(fault) | Refused::Fault(fault)) | Failed::Unknown(fault) => {
                Bad::Fault(fault)
            }
            Failed::Refused(Refused::InUse | Refused::Locked) => {
                Bad::Fault(Fault::new("queueing", &self.path.join(name), io::ErrorKind::WouldBlock.into()))
            }
        })?;
        let recipients = recipients.into_iter().map(|recipient| recipient.address).collect();
        let sender = envelope.sender;
        Ok(Taken { id: name.to_owned(), uid: slip.uid, sender, recipients, octets, again: made == Made::Already })
    }

    /// Puts what is no message out of the way: where it is then, or nothing when it was removed, there being enough of them.
    pub fn set_aside(&self, name: &str) -> Result<Option<PathBuf>, Fault> {
        let bad = self.work_path.join(BAD);
        self.disk.make_dirs(&bad).map_err(Fault::at("making", &bad))?;
        let dir = self.disk.open_dir(&bad).map_err(Fault::at("opening", &bad))?;
        let mut kept = 0;
        let count = self.disk.names(&dir, &mut |_| {
            kept += 1;
            kept < BAD_KEPT
        });
        count.map_err(Fault::at("listing", &bad))?;
        if kept >= BAD_KEPT {
            self.disk.remove(&self.dir, Path::new(name)).map_err(Fault::at("removing", &self.path.join(name)))?;
            return Ok(None);
        }
        self.disk.move_to(&self.dir, Path::new(name), &dir).map_err(Fault::at("moving", &self.path.join(name)))?;
        Ok(Some(bad.join(name)))
    }

    fn open_slip(&self, name: &str, terms: &Terms) -> Result<(Slip, D::File), Bad> {
        let path = self.path.join(name);
        let strange = |why: &str| Bad::Strange(why.to_owned());
        let file = match self.disk.open(&self.dir, Path::new(name), How::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Bad::Gone),
            // What may not be opened without following it, or by us, is none of ours; what the disk cannot is.
            Err(error) => match self.disk.look(&self.dir, Path::new(name)) {
                Ok(stat) if !stat.is_file() => return Err(strange("it is no regular file")),
                Ok(_) if error.kind() == io::ErrorKind::PermissionDenied => return Err(strange("we may not read it")),
                _ => return Err(Fault::new("opening", &path, error).into()),
            },
        };
        let stat = self.disk.stat(&file).map_err(Fault::at("looking at", &path))?;
        if !stat.is_file() {
            return Err(strange("it is no regular file"));
        }
        if stat.links != 1 {
            return Err(strange("it has another name besides"));
        }
        // A line end has two octets and one byte, so this is no more than a first look.
        if terms.size != 0 && stat.size > terms.size.saturating_add(ENVELOPE_LIMIT) {
            return Err(Bad::Strange(format!("it is too big: {} bytes", stat.size)));
        }
        let mut lines = Lines { disk: &self.disk, file: &file, path: &path, at: 0, buffer: Vec::new(), begun: 0 };
        if lines.next()? != &FORM[..FORM.len() - 1] {
            return Err(strange("it does not begin as a message does"));
        }
        let mail = lines.next()?.strip_prefix(b"MAIL ").ok_or_else(|| strange("it names no sender"))?;
        let sender = params::sender(mail, true).map_err(|_| strange("its sender is none"))?;
        let mut recipients = Vec::new();
        loop {
            let line = lines.next()?;
            if line == b"DATA" {
                break;
            }
            let rcpt = line.strip_prefix(b"RCPT ").ok_or_else(|| strange("a line of its envelope is none"))?;
            recipients.push(params::recipient(rcpt, true, sender.utf8).map_err(|_| strange("a recipient is none"))?);
            if recipients.len() > RECIPIENTS {
                return Err(strange("it has too many recipients"));
            }
        }
        if recipients.is_empty() {
            return Err(strange("it names no recipient"));
        }
        let text_from = lines.position();
        let left_secs = stat.mtime.div_euclid(1_000_000_000);
        Ok((
            Slip {
                name: name.to_owned(),
                uid: stat.uid,
                left_secs,
                sender,
                recipients,
                text_from,
                text_end: stat.size,
            },
            file,
        ))
    }

    /// Reads the text, as strangers' text is read, into `copy`.
    fn copied(&self, slip: &Slip, file: &D::File, copy: &mut Copy<D>) -> Result<Handed, Bad> {
        let path = self.path.join(&slip.name);
        let mut intake = Intake::new(false);
        let (mut piece, mut text) = (vec![0; PIECE], Vec::new());
        let mut at = slip.text_from;
        loop {
            let most = PIECE.min(usize::try_from(slip.text_end.saturating_sub(at)).unwrap_or(PIECE));
            let read = match self.disk.read(file, &mut piece[..most], at, Reach::Wait) {
                Ok(read) => read,
                Err(error) => return Err(Fault::new("reading", &path, error).into()),
            };
            let more = read > 0 && intake.feed(&piece[..read], &mut text);
            at += read as u64;
            self.store(copy, &mut text)?;
            if !more {
                break;
            }
        }
        let handed = intake.finish(&mut text).map_err(|TooBig| Bad::Strange("its header is too big".to_owned()))?;
        self.store(copy, &mut text)?;
        Ok(handed)
    }

    fn store(&self, copy: &mut Copy<D>, text: &mut Vec<u8>) -> Result<(), Fault> {
        if copy.file.is_none() && copy.memory.len() + text.len() <= MEMORY {
            copy.memory.append(text);
            return Ok(());
        }
        if copy.file.is_none() {
            // Of a server that was killed; or there is none.
            let _ = self.disk.remove(&self.work, Path::new(COPY));
            let file = self.disk.open(&self.work, Path::new(COPY), How::CreateNew).map_err(self.copying())?;
            self.disk.write(&file, &copy.memory, TEXT_FROM).map_err(self.copying())?;
            copy.file_bytes = std::mem::take(&mut copy.memory).len() as u64;
            copy.file = Some(file);
        }
        let file = copy.file.as_ref().expect("made above");
        self.disk.write(file, text, TEXT_FROM + copy.file_bytes).map_err(self.copying())?;
        copy.file_bytes += text.len() as u64;
        text.clear();
        Ok(())
    }

    fn copying(&self) -> impl FnOnce(io::Error) -> Fault {
        let path = self.work_path.join(COPY);
        move |error| Fault::new("writing", &path, error)
    }
}

/// What the service knows of a message that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Our Received field, with its folded lines and its last line end.
    pub received: Vec<u8>,
    /// How it came, for people.
    pub came: String,
    /// How each recipient is reached, in their order.
    pub kinds: Vec<Kind>,
}

/// A text that is ours alone.
struct Copy<D: Disk> {
    memory: Vec<u8>,
    /// Where it went when it had become too large; it stands at [`TEXT_FROM`].
    file: Option<D::File>,
    file_bytes: u64,
}

/// The lines before a text.
struct Lines<'f, D: Disk> {
    disk: &'f D,
    file: &'f D::File,
    path: &'f Path,
    /// Where the buffer's bytes end in the file.
    at: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were given out.
    begun: usize,
}

impl<D: Disk> Lines<'_, D> {
    /// The next one, without its end.
    fn next(&mut self) -> Result<&[u8], Bad> {
        loop {
            if let Some(length) = memchr::memchr(b'\n', &self.buffer[self.begun..]) {
                let from = self.begun;
                self.begun += length + 1;
                return Ok(&self.buffer[from..from + length]);
            }
            if self.buffer.len() - self.begun > LINE_LIMIT {
                return Err(Bad::Strange("a line of its envelope is too long".to_owned()));
            }
            self.buffer.drain(..self.begun);
            self.begun = 0;
            let old = self.buffer.len();
            self.buffer.resize(old + LINE_LIMIT, 0);
            let read = self.disk.read(self.file, &mut self.buffer[old..], self.at, Reach::Wait);
            let read = read.map_err(Fault::at("reading", self.path))?;
            self.buffer.truncate(old + read);
            self.at += read as u64;
            if read == 0 {
                return Err(Bad::Strange("it ends within its envelope".to_owned()));
            }
        }
    }

    /// Where in the file the next line begins.
    fn position(&self) -> u64 {
        self.at - (self.buffer.len() - self.begun) as u64
    }
}

/// Whether a file of this name is a message.
fn is_name(name: &str) -> bool {
    name.len() == NAME && name.bytes().all(|byte| LETTERS.contains(&byte))
}

#[cfg(test)]
mod tests;
