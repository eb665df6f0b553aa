//! The user file of `nwauth`: flat text, one user a line, looked up without being loaded.
//!
//! | file         | what it holds                                                                                    |
//! |--------------|--------------------------------------------------------------------------------------------------|
//! | `nwauth.txt` | the users; sorted by name whenever we wrote it                                                   |
//! | `nwauth.add` | what was set or deleted since, one line each, appended; the last line of a name counts           |
//! | `nwauth.lock`| locked (flock) by whoever writes; empty, never removed                                           |
//! | `nwauth.key` | what salts of SCRAM are made of; made when it is first needed                                    |
//!
//! A line is `user:password:uid:path:scram:apop:info`. Only the first two fields must be there.
//!
//! | field    | what it holds                                                                                        |
//! |----------|------------------------------------------------------------------------------------------------------|
//! | user     | the name, `user@domain` or with the domain's prefix, as the site has it; compared case-blind         |
//! | password | a crypt(3) hash, or `{PLAIN}` and the password; anything else (`*`, `!`, empty) locks the account     |
//! | uid      | owner of the drop file, number or name; empty means 0                                                |
//! | path     | full path of the drop file; empty means `config`: dmail.conf says                                    |
//! | scram    | `scram=...`: what a proof of the password is judged by (`proofs.rs`); anything else is kept as it is   |
//! | apop     | `apop=...`: the password, where APOP is wanted; anything else is kept as it is                        |
//! | info     | `label="value"` pairs, such as `fwd="ann@example.com"`; may hold colons                              |
//!
//! In the first four fields `:`, `%` and control characters are written `%3A`, `%25`, `%XX`; a `%` that begins no escape
//! stands for itself, but in a user's name it must be written `%25`. Lines that begin with `#` and blank ones are comments:
//! kept, at the top and the end of the file or above the user they stand above. In either file a line `-user` deletes that
//! user. Of several lines for one name the last one counts, and `nwauth.add` counts before `nwauth.txt`.
//!
//! **Editing by hand** is fine: the order does not matter. Hold the lock meanwhile, or a merge is lost or undoes the edit:
//! `flock nwauth.lock vi nwauth.txt`. A file that is not sorted is scanned from one end to the other for each question, until
//! the next `set`, `del` or `merge` sorts it.
//! Whether it is sorted is never believed but seen: the file is read through once when it is opened and whenever its inode,
//! size or times have changed (0.1 s for 500,000 users); where it changed less than two seconds before, once more later, since
//! times have grains. A mark in the file could be wrong after any edit.
//!
//! **Promised.** What [`put`](Users::put) and [`remove`](Users::remove) answered is on disk. Any number of processes may read
//! and write at once; readers wait for nobody and see every change that was answered before they asked. Killed at any point,
//! the files hold each change wholly or not at all: a line of `nwauth.add` without its line end does not count and is cut
//! off by the next writer; a merge writes beside `nwauth.txt` and renames, then puts an empty `nwauth.add` in place, and
//! between the two both say the same. A missing `nwauth.txt` is a fault, not an empty list: users would be turned away for
//! good because a disk was not mounted. Files are 0600, regular, and not symbolic links; who writes as root leaves them to
//! the owner they had (or the directory's). Memory does not depend on the number of users.

mod hash;
mod merge;
mod proofs;
mod record;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use memchr::{memchr, memchr_iter, memrchr};

use crate::sys::nofollow::NOFOLLOW;
use crate::text::fault::Fault;
use crate::text::secret::Secret;

pub use hash::{BCRYPT_MOST, Form, MEMORY_MOST, ROUNDS_MOST, STORED_MOST, judge};
use merge::{CHUNK_BYTES, Entries, Entry, Run, Section, Spill};
pub use proofs::Key;
pub use record::Record;
use record::{LINE_MOST, Line, classify, key, order};

/// `nwauth.add` is merged when it is larger than this, unless told otherwise.
pub const ADD_BYTES: u64 = 100 * 1024;
/// How long a writer waits for another. Less than the ten seconds a server waits for its authenticator.
const LOCK_WAIT: Duration = Duration::from_secs(8);
/// Between two attempts at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// A file that changed less than this ago may change again without its times showing it.
const GRAIN: Duration = Duration::from_secs(2);
/// How often a merge begins again because somebody edited the file meanwhile.
const MERGE_TRIES: usize = 3;
/// Read at a time when a file is scanned.
const BLOCK: usize = 64 * 1024;
/// Read at a time in a binary search: a line's end and the line after it.
const PROBE: usize = 512;
/// The first lines of a new file.
const HEADER: &[u8] =
    b"# user:password:uid:path:scram:apop:info -- see nwauth; lock before editing: flock nwauth.lock vi nwauth.txt\n";

/// The user file in one directory.
pub struct Users {
    dir: PathBuf,
    add_bytes: u64,
    /// What is sorted at a time; smaller in tests.
    chunk_bytes: usize,
    main: Option<Main>,
    add: Option<(Rc<File>, Identity)>,
}

/// The answer to [`Users::find`].
#[derive(Debug, Default)]
pub struct Found {
    /// The user, if there is one.
    pub record: Option<Record>,
    /// If there is none: the password field of the next user in the order of names. A check of a user that is not there is
    /// done against it, so that it takes the time that a check of a user takes here, and the same time at each attempt. In
    /// a file of many kinds of hashes, unknown names take this time or that as often as known ones.
    pub neighbour: Option<Secret>,
}

impl Users {
    /// The user file in `dir`; nothing is opened yet.
    pub fn new(dir: &Path) -> Users {
        Users { dir: dir.to_owned(), add_bytes: ADD_BYTES, chunk_bytes: CHUNK_BYTES, main: None, add: None }
    }

    /// Merges when `nwauth.add` is larger than `bytes`.
    pub fn merge_above(mut self, bytes: u64) -> Users {
        self.add_bytes = bytes;
        self
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The user called `name`, or who stands in for them.
    pub fn find(&mut self, name: &[u8]) -> Result<Found, Fault> {
        let key = key(name);
        // This order matters: a merge first puts the new main file in place and then the empty nwauth.add.
        let added = self.find_added(&key)?;
        self.refresh_main()?;
        if let Some(Some(line)) = added.line {
            return Ok(Found { record: Some(Record::parse(&line)), neighbour: None });
        }
        let main = self.main.as_ref().expect("it was refreshed above");
        let (line, near) =
            if main.sorted { bisect(&main.file, main.identity.size, &key) } else { find_anywhere(&main.file, &key) }
                .map_err(|source| self.fault("reading", "nwauth.txt", source))?;
        Ok(match line {
            Some(line) if added.line.is_none() => Found { record: Some(Record::parse(&line)), neighbour: None },
            stale => {
                let near = near.or(stale).or(added.newest);
                Found { record: None, neighbour: near.map(|line| Record::parse(&line).stored) }
            }
        })
    }

    /// Writes what `change` makes of the user called `name` (who may not be there), and says whether the user is new.
    /// `change` is called with the lock held. On disk when it returns; an error of `change` changes nothing.
    pub fn put<E>(
        &mut self,
        name: &[u8],
        change: impl FnOnce(Option<Record>) -> Result<Record, E>,
    ) -> Result<Result<bool, E>, Fault> {
        self.put_within(LOCK_WAIT, name, change)
    }

    /// The same, but a fault at once where somebody else is writing: for what can be done another time.
    pub fn put_if_free<E>(
        &mut self,
        name: &[u8],
        change: impl FnOnce(Option<Record>) -> Result<Record, E>,
    ) -> Result<Result<bool, E>, Fault> {
        self.put_within(Duration::ZERO, name, change)
    }

    fn put_within<E>(
        &mut self,
        wait: Duration,
        name: &[u8],
        change: impl FnOnce(Option<Record>) -> Result<Record, E>,
    ) -> Result<Result<bool, E>, Fault> {
        let lock = self.lock_within(wait)?;
        self.found()?;
        let before = self.find(name)?.record;
        let is_new = before.is_none();
        let record = match change(before) {
            Ok(record) => record,
            Err(error) => return Ok(Err(error)),
        };
        self.append(&record.line())?;
        self.merge_if_due(&lock);
        Ok(Ok(is_new))
    }

    /// Deletes the user called `name` and says whether there was one. On disk when it returns.
    pub fn remove(&mut self, name: &[u8]) -> Result<bool, Fault> {
        let lock = self.lock()?;
        if self.find(name)?.record.is_none() {
            return Ok(false);
        }
        self.append(&record::tombstone(name))?;
        self.merge_if_due(&lock);
        Ok(true)
    }

    /// Calls `each` for every user whose written name is `wanted`, until it breaks: in the order of names where the file is
    /// sorted; else as they stand there, a name that stands there twice with each of its lines.
    pub fn search(
        &mut self,
        wanted: impl Fn(&[u8]) -> bool,
        mut each: impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        // Bounded as nwauth.add is.
        let mut added: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        self.scan_added(|line| match classify(line) {
            Line::User(name) => drop(added.insert(name.to_ascii_lowercase(), Some(line.to_vec()))),
            Line::Gone(name) => drop(added.insert(name.to_ascii_lowercase(), None)),
            Line::Other => {}
        })?;
        self.refresh_main()?;
        let main = self.main.as_ref().expect("it was refreshed above");
        let mut fresh = added.iter().filter_map(|(key, line)| Some((key, line.as_ref()?))).peekable();
        let mut ended = false;
        let mut show = |name: &[u8], line: &[u8]| {
            if wanted(name) && each(Record::parse(line)).is_break() {
                ended = true;
            }
            if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let walked = scan(&main.file, true, |line| {
            let Line::User(name) = classify(line) else { return ControlFlow::Continue(()) };
            while let Some((key, line)) = fresh.next_if(|(key, _)| order(key, name) == Ordering::Less) {
                show(key, line)?;
            }
            if added.contains_key(&name.to_ascii_lowercase()) {
                return ControlFlow::Continue(());
            }
            show(name, line)
        });
        if walked.map_err(|source| self.fault("reading", "nwauth.txt", source))?.is_continue() {
            let _ = fresh.try_for_each(|(key, line)| show(key, line));
        }
        Ok(())
    }

    /// Sorts `nwauth.txt`, with what `nwauth.add` has, now.
    pub fn merge(&mut self) -> Result<(), Fault> {
        let lock = self.lock()?;
        self.merge_locked(&lock, || None)
    }

    /// Makes the users `test0`, `test1` ... below `count`, all like this one; who has such a name is replaced.
    pub fn generate(&mut self, count: u64, like: &Record) -> Result<(), Fault> {
        let lock = self.lock()?;
        self.found()?;
        self.merge_locked(&lock, || {
            let like = like.clone();
            Some(Run::Made(Box::new(merge::by_digits(count).map(move |number| {
                let name = format!("test{number}").into_bytes();
                Entry::new(Record { name, ..like.clone() }.line())
            }))))
        })
    }

    // ---- reading -------------------------------------------------------------------------------------------------------

    fn find_added(&mut self, key: &[u8]) -> Result<Added, Fault> {
        let mut added = Added::default();
        let mut newest = Vec::new();
        self.scan_added(|line| match classify(line) {
            Line::User(name) => {
                newest.clear();
                newest.extend_from_slice(line);
                if name.eq_ignore_ascii_case(key) {
                    added.line = Some(Some(line.to_vec()));
                }
            }
            Line::Gone(name) if name.eq_ignore_ascii_case(key) => added.line = Some(None),
            _ => {}
        })?;
        added.newest = (!newest.is_empty()).then_some(newest);
        Ok(added)
    }

    fn scan_added(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), Fault> {
        let path = self.dir.join("nwauth.add");
        let Some(identity) = identify(&path)? else {
            self.add = None;
            return Ok(());
        };
        if self.add.as_ref().is_none_or(|(_, held)| (held.device, held.inode) != (identity.device, identity.inode)) {
            let file = open(&path, OpenOptions::new().read(true))?;
            self.add = Some((Rc::new(file), identity));
        }
        if identity.size > 0
            && let Some((file, _)) = &self.add
        {
            let walked = scan(file, false, |line| {
                each(line);
                ControlFlow::Continue(())
            });
            walked.map_err(Fault::at("reading", &path))?.is_break();
        }
        Ok(())
    }

    /// Opens `nwauth.txt`, if it is not the one that is open, and sees whether it is sorted, if it has not been seen.
    fn refresh_main(&mut self) -> Result<(), Fault> {
        let path = self.dir.join("nwauth.txt");
        let missing = || Fault::new("opening", &path, io::Error::from(io::ErrorKind::NotFound));
        let identity = identify(&path)?.ok_or_else(missing)?;
        if let Some(main) = &self.main
            && main.identity == identity
            && (!main.was_fresh || identity.is_fresh())
        {
            return Ok(());
        }
        self.main = None;
        let file = open(&path, OpenOptions::new().read(true))?;
        let identity = Identity::of(&file.metadata().map_err(Fault::at("opening", &path))?);
        let was_fresh = identity.is_fresh();
        let sorted = is_sorted(&file).map_err(Fault::at("reading", &path))?;
        self.main = Some(Main { file: Rc::new(file), identity, was_fresh, sorted });
        Ok(())
    }

    // ---- writing -------------------------------------------------------------------------------------------------------

    /// Waits for other writers, but not for ever.
    fn lock(&self) -> Result<Lock, Fault> {
        self.lock_within(LOCK_WAIT)
    }

    fn lock_within(&self, wait: Duration) -> Result<Lock, Fault> {
        let path = self.dir.join("nwauth.lock");
        let file = match open(&path, OpenOptions::new().read(true).write(true)) {
            Err(fault) if fault.source.kind() == io::ErrorKind::NotFound => match self.create("nwauth.lock") {
                Err(fault) if fault.source.kind() == io::ErrorKind::AlreadyExists => {
                    open(&path, OpenOptions::new().read(true).write(true))?
                }
                made => made?,
            },
            opened => opened?,
        };
        let until = Instant::now() + wait;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(Fault::new("locking", &path, io::Error::from(io::ErrorKind::TimedOut)));
                }
                Err(TryLockError::Error(source)) => return Err(Fault::new("locking", &path, source)),
            }
        }
    }

    /// A first `nwauth.txt`, where neither file is there yet.
    fn found(&self) -> Result<(), Fault> {
        let (main, add) = (self.dir.join("nwauth.txt"), self.dir.join("nwauth.add"));
        if identify(&main)?.is_some() || identify(&add)?.is_some() {
            return Ok(());
        }
        let file = self.create("nwauth.txt")?;
        (&file).write_all(HEADER).and_then(|()| file.sync_all()).map_err(Fault::at("writing", &main))?;
        self.sync_dir()
    }

    /// Appends one line to `nwauth.add` and syncs it. When that fails, the line is not there.
    fn append(&self, line: &[u8]) -> Result<(), Fault> {
        let path = self.dir.join("nwauth.add");
        let (file, is_new) = match open(&path, OpenOptions::new().read(true).write(true)) {
            Err(fault) if fault.source.kind() == io::ErrorKind::NotFound => (self.create("nwauth.add")?, true),
            opened => (opened?, false),
        };
        let end = whole(&file).map_err(Fault::at("reading", &path))?;
        let line = [line, b"\n"].concat();
        let written = (|| {
            file.set_len(end)?;
            file.write_all_at(&line, end)?;
            file.sync_data()
        })();
        if let Err(source) = written {
            let _ = file.set_len(end);
            return Err(Fault::new("writing", &path, source));
        }
        if is_new { self.sync_dir() } else { Ok(()) }
    }

    /// The change that brought us here is on disk: a merge that fails is tried again by the next change.
    fn merge_if_due(&mut self, lock: &Lock) {
        let added = identify(&self.dir.join("nwauth.add")).ok().flatten().map_or(0, |identity| identity.size);
        if added > self.add_bytes || self.main.as_ref().is_some_and(|main| !main.sorted) {
            let _ = self.merge_locked(lock, || None);
        }
    }

    fn merge_locked(&mut self, _: &Lock, more: impl Fn() -> Option<Run>) -> Result<(), Fault> {
        for _ in 0..MERGE_TRIES {
            self.refresh_main()?;
            if self.try_merge(more())? {
                return Ok(());
            }
        }
        let busy = io::Error::new(io::ErrorKind::ResourceBusy, "it is being edited");
        Err(self.fault("merging", "nwauth.txt", busy))
    }

    /// False when somebody edited `nwauth.txt` meanwhile, and nothing was changed.
    fn try_merge(&mut self, more: Option<Run>) -> Result<bool, Fault> {
        let (path, made, add) =
            (self.dir.join("nwauth.txt"), self.dir.join("nwauth.txt.new"), self.dir.join("nwauth.add"));
        self.scan_added(|_| {})?; // opens it as it is now
        let main = self.main.as_ref().expect("it was refreshed before");
        let before = main.identity;

        let entries = |file: &Rc<File>, torn| Entries::new(Section::whole(file.clone()), torn);
        let (mut runs, mut spill): (Vec<Run>, Option<Spill>) = (Vec::new(), None);
        let make_spill = || self.unnamed();
        let sorting = (|| {
            if main.sorted {
                runs.push(Run::Sorted(entries(&main.file, true)));
            } else {
                merge::sort(entries(&main.file, true), self.chunk_bytes, &mut runs, &mut spill, make_spill)?;
            }
            if let Some((file, _)) = &self.add {
                merge::sort(entries(file, false), self.chunk_bytes, &mut runs, &mut spill, make_spill)?;
            }
            io::Result::Ok(())
        })();
        sorting.map_err(Fault::at("sorting", &path))?;
        runs.extend(more);

        remove_left_over(&made)?;
        let file = self.create("nwauth.txt.new")?;
        let mut output = BufWriter::with_capacity(BLOCK, &file);
        merge::merge(runs, &mut output)
            .and_then(|()| output.flush())
            .and_then(|()| keep_mode(&file, before.mode))
            .and_then(|()| file.sync_all())
            .map_err(Fault::at("writing", &made))?;
        drop(output);
        if identify(&path)? != Some(before) {
            return Ok(false);
        }
        fs::rename(&made, &path).map_err(Fault::at("renaming", &made))?;
        self.sync_dir()?;

        // A new file instead of a truncated one: who is reading the old one reads it to its end.
        if self.add.is_some() {
            let empty = self.dir.join("nwauth.add.new");
            remove_left_over(&empty)?;
            drop(self.create("nwauth.add.new")?);
            fs::rename(&empty, &add).map_err(Fault::at("renaming", &empty))?;
            self.sync_dir()?;
        }
        let identity = Identity::of(&file.metadata().map_err(Fault::at("opening", &path))?);
        drop(file);
        let file = Rc::new(open(&path, OpenOptions::new().read(true))?);
        self.main = Some(Main { file, identity, was_fresh: identity.is_fresh(), sorted: true });
        Ok(true)
    }

    /// A new file, 0600, for the owner of the user file, if we may give it away.
    fn create(&self, name: &str) -> Result<File, Fault> {
        let path = self.dir.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).custom_flags(NOFOLLOW);
        let file = options.open(&path).map_err(Fault::at("creating", &path))?;
        let owner = fs::symlink_metadata(self.dir.join("nwauth.txt")).or_else(|_| fs::metadata(&self.dir));
        let ours = file.metadata().map_err(Fault::at("creating", &path))?;
        if let Ok(owner) = owner
            && (owner.uid(), owner.gid()) != (ours.uid(), ours.gid())
            && let Err(source) = fchown(&file, Some(owner.uid()), Some(owner.gid()))
            && source.kind() != io::ErrorKind::PermissionDenied
        {
            return Err(Fault::new("giving away", &path, source));
        }
        Ok(file)
    }

    /// A file without a name, for sorting.
    fn unnamed(&self) -> io::Result<File> {
        let path = self.dir.join("nwauth.sort");
        remove_left_over(&path).map_err(|fault| fault.source)?;
        let file = self.create("nwauth.sort").map_err(|fault| fault.source)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    fn sync_dir(&self) -> Result<(), Fault> {
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(Fault::at("syncing", &self.dir))
    }

    fn fault(&self, doing: &'static str, name: &str, source: io::Error) -> Fault {
        Fault::new(doing, &self.dir.join(name), source)
    }
}

/// Held while the files are changed.
struct Lock {
    _file: File,
}

/// `nwauth.txt` as it is open.
struct Main {
    file: Rc<File>,
    identity: Identity,
    /// Whether `sorted` was seen so soon after a change that another one may not show.
    was_fresh: bool,
    /// Names strictly ascending, nobody deleted by a line.
    sorted: bool,
}

/// What `nwauth.add` says about a name.
#[derive(Default)]
struct Added {
    /// `None`: nothing. `Some(None)`: deleted.
    line: Option<Option<Vec<u8>>>,
    /// The last user set.
    newest: Option<Vec<u8>>,
}

/// By what a file is known to be the same and unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(metadata: &fs::Metadata) -> Identity {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mode: metadata.mode(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_fresh(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.as_secs() as i64 - self.changed.0 <= GRAIN.as_secs() as i64
    }
}

fn identify(path: &Path) -> Result<Option<Identity>, Fault> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(Identity::of(&metadata))),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Fault::new("opening", path, source)),
    }
}

/// Opens a regular file, not through a symbolic link.
fn open(path: &Path, options: &mut OpenOptions) -> Result<File, Fault> {
    let file = options.custom_flags(NOFOLLOW).open(path).map_err(Fault::at("opening", path))?;
    if !file.metadata().map_err(Fault::at("opening", path))?.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(Fault::new("opening", path, source));
    }
    Ok(file)
}

fn remove_left_over(path: &Path) -> Result<(), Fault> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Fault::new("removing", path, source)),
        _ => Ok(()),
    }
}

/// A group that could read the old file can read the new one; others never.
fn keep_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(mode & 0o060 | 0o600))
}

/// Where the last whole line ends.
fn whole(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(LINE_MOST as u64);
    let mut tail = vec![0; (size - from) as usize];
    file.read_exact_at(&mut tail, from)?;
    match memrchr(b'\n', &tail) {
        Some(at) => Ok(from + at as u64 + 1),
        None if from == 0 => Ok(0),
        None => Err(merge::too_long()),
    }
}

/// Calls `each` with every line, without its line end, until it breaks.
fn scan(file: &File, torn_counts: bool, mut each: impl FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<ControlFlow<()>> {
    let mut buffer = vec![0; BLOCK];
    let (mut at, mut held) = (0, 0);
    loop {
        let count = read_at(file, &mut buffer[held..], at)?;
        if count == 0 {
            let torn = held > 0 && torn_counts;
            return Ok(if torn { each(&buffer[..held]) } else { ControlFlow::Continue(()) });
        }
        at += count as u64;
        let filled = held + count;
        let mut start = 0;
        for end in memchr_iter(b'\n', &buffer[held..filled]) {
            if held + end - start > LINE_MOST {
                return Err(merge::too_long());
            }
            if each(&buffer[start..held + end]).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            start = held + end + 1;
        }
        buffer.copy_within(start..filled, 0);
        held = filled - start;
        if held > LINE_MOST {
            return Err(merge::too_long());
        }
    }
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn is_sorted(file: &File) -> io::Result<bool> {
    let mut last = Vec::new();
    let walked = scan(file, true, |line| match classify(line) {
        Line::Other => ControlFlow::Continue(()),
        Line::User(name) if order(&last, name) == Ordering::Less => {
            last.clear();
            last.extend_from_slice(name);
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Break(()),
    })?;
    Ok(walked.is_continue())
}

/// The line of `key` and, if there is none, a neighbour's.
type Sought = (Option<Vec<u8>>, Option<Vec<u8>>);

/// In a file in any order: the last line for `key` counts; the neighbour is the next name in order.
fn find_anywhere(file: &File, key: &[u8]) -> io::Result<Sought> {
    let (mut line, mut near): Sought = (None, None);
    let mut near_name: Vec<u8> = Vec::new();
    scan(file, true, |candidate| {
        match classify(candidate) {
            Line::Gone(name) if name.eq_ignore_ascii_case(key) => line = None,
            Line::User(name) if name.eq_ignore_ascii_case(key) => line = Some(candidate.to_vec()),
            Line::User(name) => {
                let is_next = order(key, name) == Ordering::Less;
                let nearer = order(key, &near_name) != Ordering::Less || order(name, &near_name) == Ordering::Less;
                if near.is_none() || is_next && nearer {
                    near = Some(candidate.to_vec());
                    near_name = name.to_vec();
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })?
    .is_break();
    Ok((line, near))
}

/// In a sorted file, by some twenty small reads.
fn bisect(file: &File, size: u64, key: &[u8]) -> io::Result<Sought> {
    // Users that begin before `low` come before `key`; users that begin at `high` or later come after it.
    let (mut low, mut high) = (0, size);
    let (mut after, mut before): (Option<Vec<u8>>, Option<Vec<u8>>) = (None, None);
    let mut buffer = vec![0; PROBE];
    while low < high {
        let middle = low + (high - low) / 2;
        let Some((start, line)) = first_user(file, middle, high, &mut buffer)? else {
            high = middle;
            continue;
        };
        let Line::User(name) = classify(line) else { unreachable!("first_user gives users") };
        match order(name, key) {
            Ordering::Equal => return Ok((Some(line.to_vec()), None)),
            Ordering::Less => {
                low = start + line.len() as u64 + 1;
                before.get_or_insert_default().clear();
                before.get_or_insert_default().extend_from_slice(line);
            }
            Ordering::Greater => {
                high = middle;
                after.get_or_insert_default().clear();
                after.get_or_insert_default().extend_from_slice(line);
            }
        }
    }
    Ok((None, after.or(before)))
}

/// The first user whose line begins at `from` or later, but before `high`; and where it begins.
fn first_user<'b>(file: &File, from: u64, high: u64, buffer: &'b mut Vec<u8>) -> io::Result<Option<(u64, &'b [u8])>> {
    // One byte earlier, to see whether a line begins at `from`.
    let origin = from.saturating_sub(1);
    let mut line_at = if from == 0 { Some(0) } else { None };
    let (mut seen, mut filled) = (0, 0);
    let found = loop {
        if let Some(start) = line_at
            && origin + start as u64 >= high
        {
            return Ok(None);
        }
        match (memchr(b'\n', &buffer[seen..filled]).map(|at| seen + at), line_at) {
            (Some(end), Some(start)) if matches!(classify(&buffer[start..end]), Line::User(_)) => break start..end,
            (Some(end), _) => {
                line_at = Some(end + 1);
                seen = end + 1;
                continue;
            }
            (None, _) => seen = filled,
        }
        if filled == buffer.len() {
            if filled - line_at.unwrap_or(0) > LINE_MOST {
                return Err(merge::too_long());
            }
            buffer.resize(2 * filled, 0);
        }
        let count = read_at(file, &mut buffer[filled..], origin + filled as u64)?;
        if count == 0 {
            match line_at {
                Some(start) if matches!(classify(&buffer[start..filled]), Line::User(_)) => break start..filled,
                _ => return Ok(None),
            }
        }
        filled += count;
    };
    Ok(Some((origin + found.start as u64, &buffer[found])))
}
