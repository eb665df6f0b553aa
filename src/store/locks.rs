//! The drop's own locks, which other programs know: taken in the order the settings give, given up in reverse, never waited
//! for. Whoever gets [`Refused::Locked`] holds none of them and comes back later.
//!
//! A dotlock `NAME.lock` of ours tells in one line who holds it, is locked by the kernel besides for as long as its holder
//! lives, and is touched every thirty seconds of long work. One that was left behind is judged:
//!
//! | what is found                                                          | stale                                 |
//! |------------------------------------------------------------------------|---------------------------------------|
//! | the kernel's lock on it is held                                         | no: one of us, on this machine, lives |
//! | our line: this machine, boot and process namespace, and the process is gone or its number is another's | at once |
//! | it has the first name too, see below: one of us was killed before he gave that up | at once          |
//! | any other line, a lone process number, nothing (procmail, mutt, mail.local) | when not touched for [`STALE_NANOS`] |
//! | a link, a directory                                                     | never                                 |
//!
//! A lone number is no proof of death: it may count in another namespace. Our dotlock is made as `.NAME.lock.new`, locked and
//! written there, and gets its name by link(2): nobody ever sees an unwritten one, not even right after we were killed. Where the disk
//! has no room for the line, it keeps its first name for as long as it is a lock: that names have one file tells whose it was. That
//! first name is taken by one of us at a time, and only who has it judges and removes: so no two of us can judge the same stale
//! lock, and none removes the fresh one of another. Removing is renaming to a name nobody knows, looking whether it was what
//! had been judged (else it gets its name back), and only then taking it away.
//!
//! Whoever locks again and again ([`Spares`]) makes no file for each dotlock, which is the dearest step of a delivery: he has some
//! in work_path, written and locked by the kernel once, and gives one of them the lock's name by link(2). That goes without the first
//! name, and therefore looks behind itself: when somebody has the first name, he may have judged what stood here before, and
//! about to take ours away; then ours is given up, and it is tried with the first name. A file is lent to one lock at a time, is touched when
//! its last touch is half a minute old, and is not used again when its name could not be taken away for certain. Where work_path and
//! the drop are on two volumes link(2) refuses, and each dotlock is a file of its own.
//!
//! In a directory where we may make or remove nothing, a hand with more rights does the same by the same rules
//! ([`lock_for_another`]), and gives us the file: the kernel's lock on it goes with the open file, so it is ours then.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::desk::{Desk, Refused, Remark, Remarks, there};
use super::disk::{Disk, Holder, How, LockKind, Reach, RealDisk, Stat};
use crate::sys::files;
use crate::text::fault::Fault;

/// A dotlock that was not touched for so long is nobody's: procmail waits as long. Never less than ten minutes, which others
/// may take between two touches.
pub(super) const STALE_NANOS: i64 = 1024 * 1_000_000_000;
/// A dotlock is touched when its last touch is so long ago: far below what anybody takes for stale.
const TOUCH_NANOS: i64 = 30 * 1_000_000_000;
/// How much of another's lock file is read to judge it.
const LINE_BYTES: usize = 512;
/// Names of lent lock files in work_path, before a number.
pub(super) const SPARE: &str = "lock.";
/// Lock files that are kept: as many drops as all jobs of a volume deliver to at a time. Whoever finds none makes his own.
const SPARES_MAX: usize = 256;

/// The locks on one drop, until dropped.
pub(super) struct DropLocks<'d, D: Disk> {
    desk: &'d Desk<D>,
    /// `None`: there is no drop, and only its name is locked.
    file: Option<&'d D::File>,
    /// In the order taken.
    held: Vec<Held<'d, D>>,
    pub(super) remarks: Remarks,
}

enum Held<'d, D: Disk> {
    /// `unwritten`: it has the first name besides.
    Dotlock {
        file: D::File,
        inode: u64,
        touched: i64,
        unwritten: bool,
    },
    Lent {
        spare: Spare<D>,
        spares: &'d Spares<D>,
    },
    Kernel(LockKind),
}

impl<'d, D: Disk> DropLocks<'d, D> {
    /// Takes all locks of the place on `file`, or none.
    pub(super) fn take(desk: &'d Desk<D>, file: &'d D::File) -> Result<DropLocks<'d, D>, Refused> {
        DropLocks::take_on(desk, Some(file))
    }

    /// The same, with a lock file of these.
    pub(super) fn borrow(
        desk: &'d Desk<D>,
        file: &'d D::File,
        spares: &'d Spares<D>,
    ) -> Result<DropLocks<'d, D>, Refused> {
        DropLocks::take_all(desk, Some(file), Some(spares))
    }

    /// The same on a drop that may not be there: then only programs that make dotlocks are kept from making one.
    pub(super) fn take_on(desk: &'d Desk<D>, file: Option<&'d D::File>) -> Result<DropLocks<'d, D>, Refused> {
        DropLocks::take_all(desk, file, None)
    }

    fn take_all(
        desk: &'d Desk<D>,
        file: Option<&'d D::File>,
        spares: Option<&'d Spares<D>>,
    ) -> Result<DropLocks<'d, D>, Refused> {
        let mut locks = DropLocks { desk, file, held: Vec::new(), remarks: Remarks::default() };
        let mut unmade = None;
        for kind in desk.spot.locks.into_iter().flatten() {
            if kind == LockKind::Dotlock {
                let door = Door::of(desk);
                if let Some((spare, spares)) = spares.and_then(|spares| Some((lent(&door, spares)?, spares))) {
                    locks.held.push(Held::Lent { spare, spares });
                    continue;
                }
                match dotlock(&door)? {
                    Dotlock::Ours(held) => locks.held.push(held),
                    Dotlock::MayNot(error) => unmade = Some(error),
                }
            } else if let Some(file) = file {
                if !desk.disk.try_lock(file, kind).map_err(desk.fault("locking"))? {
                    return Err(Refused::Locked);
                }
                locks.held.push(Held::Kernel(kind));
            }
        }
        match unmade {
            // Nothing is held: other programs could write while we take bytes out.
            Some(error) if locks.held.is_empty() => {
                return Err(Fault::new("making", &Door::of(desk).path(), error).into());
            }
            Some(_) => locks.remarks.add(Remark::NoDotlock),
            None => {}
        }
        Ok(locks)
    }

    /// Shows that we still live; called between slices of long work.
    pub(super) fn touch(&mut self) {
        let disk = &self.desk.disk;
        for held in &mut self.held {
            let (file, touched) = match held {
                Held::Dotlock { file, touched, .. } => (&*file, touched),
                Held::Lent { spare, .. } => (&spare.file, &mut spare.touched),
                Held::Kernel(_) => continue,
            };
            let now = disk.now();
            if now - *touched >= TOUCH_NANOS {
                // A failure shows as a lock that others find stale one day; there is nothing better to do.
                let _ = disk.set_times(file, now, now);
                *touched = now;
            }
        }
    }
}

impl<D: Disk> Drop for DropLocks<'_, D> {
    fn drop(&mut self) {
        let disk = &self.desk.disk;
        while let Some(held) = self.held.pop() {
            match held {
                Held::Kernel(kind) => drop(self.file.map(|file| disk.unlock(file, kind))),
                Held::Dotlock { inode, unwritten, .. } => {
                    let name = self.desk.with(".lock");
                    // Somebody may have found us stale and taken the lock for himself.
                    if disk.look(&self.desk.dir, &name).is_ok_and(|seen| seen.inode == inode)
                        && let Err(error) = disk.remove(&self.desk.dir, &name)
                        && denied(&error)
                        && let Some(owner) = self.desk.spot.owner
                    {
                        drop(disk.unlock_for(&self.desk.spot.drop, owner, inode));
                    } else if unwritten {
                        give_up_first(&Door::of(self.desk), inode);
                    }
                }
                Held::Lent { spare, spares } => match is_taken_away(&Door::of(self.desk), &spare) {
                    true => spares.take_back(spare),
                    false => spares.discard(spare),
                },
            }
        }
    }
}

/// Lock files that are lent: see the page. Those of one who has work_path for himself.
pub(super) struct Spares<D: Disk> {
    disk: D,
    dir: D::Dir,
    line: String,
    shelf: Mutex<Shelf<D>>,
}

struct Shelf<D: Disk> {
    free: Vec<Spare<D>>,
    /// Names given so far.
    named: u64,
    /// Those that are lent or free.
    made: usize,
}

struct Spare<D: Disk> {
    file: D::File,
    name: PathBuf,
    inode: u64,
    touched: i64,
}

impl<D: Disk> Spares<D> {
    /// None yet. What one who was killed left in work_path goes: where it is still a lock, it keeps that name.
    pub(super) fn open(disk: &D, work_path: &Path) -> Result<Spares<D>, Fault> {
        let dir = disk.open_dir(work_path).map_err(Fault::at("opening", work_path))?;
        let mut left = Vec::new();
        let is_spare = |name: &OsString| {
            let number = name.as_encoded_bytes().strip_prefix(SPARE.as_bytes());
            number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
        };
        let mut each = |name: OsString| {
            if is_spare(&name) {
                left.push(PathBuf::from(name));
            }
            true
        };
        disk.names(&dir, &mut each).map_err(Fault::at("reading", work_path))?;
        for name in left {
            there(disk.remove(&dir, &name)).map_err(Fault::at("removing", &work_path.join(&name)))?;
        }
        let shelf = Mutex::new(Shelf { free: Vec::new(), named: 0, made: 0 });
        Ok(Spares { disk: disk.clone(), dir, line: line(&disk.holder()), shelf })
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<D>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that nobody has. `None`: there are enough, or none can be made.
    fn lend(&self) -> Option<Spare<D>> {
        let free = self.shelf().free.pop();
        let mut spare = free.or_else(|| self.make())?;
        let now = self.disk.now();
        if now - spare.touched >= TOUCH_NANOS {
            if self.disk.set_times(&spare.file, now, now).is_err() {
                self.discard(spare);
                return None;
            }
            spare.touched = now;
        }
        Some(spare)
    }

    fn make(&self) -> Option<Spare<D>> {
        let name = {
            let mut shelf = self.shelf();
            if shelf.made >= SPARES_MAX {
                return None;
            }
            (shelf.made, shelf.named) = (shelf.made + 1, shelf.named + 1);
            PathBuf::from(format!("{SPARE}{}", shelf.named))
        };
        let disk = &self.disk;
        let made = disk.open(&self.dir, &name, How::CreateNew).ok().and_then(|file| {
            let whole = disk.try_lock(&file, LockKind::Fcntl).is_ok_and(|locked| locked)
                && disk.write(&file, self.line.as_bytes(), 0).is_ok();
            let inode = disk.stat(&file).ok().filter(|_| whole)?.inode;
            Some(Spare { file, name: name.clone(), inode, touched: disk.now() })
        });
        if made.is_none() {
            drop(disk.remove(&self.dir, &name));
            self.shelf().made -= 1;
        }
        made
    }

    /// Its other name is gone.
    fn take_back(&self, spare: Spare<D>) {
        self.shelf().free.push(spare);
    }

    /// It may still be, or become again, the lock of some drop: a lock of nobody's, once its file is closed.
    fn discard(&self, spare: Spare<D>) {
        drop(self.disk.remove(&self.dir, &spare.name));
        self.shelf().made -= 1;
    }
}

impl<D: Disk> Drop for Spares<D> {
    fn drop(&mut self) {
        let free = std::mem::take(&mut self.shelf().free);
        free.into_iter().for_each(|spare| self.discard(spare));
    }
}

/// One of them, with the dotlock's name. `None`: it is to be tried with the first name.
fn lent<D: Disk>(door: &Door<'_, D>, spares: &Spares<D>) -> Option<Spare<D>> {
    let (disk, spare) = (door.disk, spares.lend()?);
    if let Err(error) = disk.link_across(&spares.dir, &spare.name, door.dir, &door.lock()) {
        match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::PermissionDenied | io::ErrorKind::CrossesDevices => {
                spares.take_back(spare);
            }
            _ => spares.discard(spare),
        }
        return None;
    }
    let alone = disk.look(door.dir, &door.first()).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if alone && disk.look(door.dir, &door.lock()).is_ok_and(|seen| seen.inode == spare.inode) {
        return Some(spare);
    }
    match is_taken_away(door, &spare) {
        true => spares.take_back(spare),
        false => spares.discard(spare),
    }
    None
}

/// Takes the dotlock's name from a lent file. False: somebody had found it stale, or has it in his hands now, or it stays.
fn is_taken_away<D: Disk>(door: &Door<'_, D>, spare: &Spare<D>) -> bool {
    let (disk, name) = (door.disk, door.lock());
    disk.look(door.dir, &name).is_ok_and(|seen| seen.inode == spare.inode) && disk.remove(door.dir, &name).is_ok()
}

/// The line by which others of us judge a lock.
fn line(holder: &Holder) -> String {
    format!("dmail {} {} {}\n", holder.pid, holder.started, holder.world)
}

/// The holder that a line names, if one of us wrote it.
fn parse(line: &[u8]) -> Option<Holder> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let mut words = text.strip_prefix("dmail ")?.splitn(3, ' ');
    let pid = words.next()?.parse().ok()?;
    let started = words.next()?.parse().ok()?;
    Some(Holder { world: words.next()?.to_owned(), pid, started })
}

/// Where the dotlock of a drop stands.
struct Door<'d, D: Disk> {
    disk: &'d D,
    dir: &'d D::Dir,
    drop: &'d Path,
    /// Whose drop it is, if a hand may be asked about it.
    owner: Option<u32>,
}

impl<'d, D: Disk> Door<'d, D> {
    fn of(desk: &'d Desk<D>) -> Door<'d, D> {
        Door { disk: &desk.disk, dir: &desk.dir, drop: &desk.spot.drop, owner: desk.spot.owner }
    }

    /// A name in the drop's directory: the drop's own with something before it and after it.
    fn named(&self, before: &str, after: &str) -> PathBuf {
        let mut name = OsString::from(before);
        name.push(self.drop.file_name().unwrap_or(OsStr::new("")));
        name.push(after);
        name.into()
    }

    fn lock(&self) -> PathBuf {
        self.named("", ".lock")
    }

    /// Our dotlock's first name: no user's drop is called so.
    fn first(&self) -> PathBuf {
        self.named(".", ".lock.new")
    }

    /// The full path of the dotlock, for faults.
    fn path(&self) -> PathBuf {
        self.drop.with_file_name(self.lock())
    }

    fn is_at(&self, name: &Path, seen: &Stat) -> bool {
        let same = |now: Stat| (now.dev, now.inode, now.mtime) == (seen.dev, seen.inode, seen.mtime);
        self.disk.look(self.dir, name).is_ok_and(same)
    }
}

/// What came of asking for the dotlock.
enum Dotlock<'d, D: Disk> {
    Ours(Held<'d, D>),
    /// The directory lets us make none.
    MayNot(io::Error),
}

fn dotlock<'d, D: Disk>(door: &Door<'_, D>) -> Result<Dotlock<'d, D>, Refused> {
    let disk = door.disk;
    let line = line(&disk.holder());
    let (file, unwritten) = match make(door, line.as_bytes(), &|_| Ok(()))? {
        Made::Ours { file, unwritten } => (file, unwritten),
        Made::MayNot(error) => match door.owner.filter(|_| denied(&error)) {
            None => return Ok(Dotlock::MayNot(error)),
            Some(owner) => match disk.lock_for(door.drop, owner, line.as_bytes()) {
                // Whoever made it takes its names away.
                Ok(file) => (file, false),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Refused::Locked),
                Err(error) if denied(&error) => return Ok(Dotlock::MayNot(error)),
                Err(error) => return Err(Fault::new("making", &door.path(), error).into()),
            },
        },
    };
    let inode = disk.stat(&file).map_err(Fault::at("looking at", &door.path()))?.inode;
    Ok(Dotlock::Ours(Held::Dotlock { file, inode, touched: disk.now(), unwritten }))
}

fn denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Makes the dotlock of `drop`, which lies in `dir`, for `uid`, who may not: it is his, and says `line`. Refuses as the
/// system does for a name that is taken while somebody else has it.
pub fn lock_for_another(dir: &File, drop: &Path, uid: u32, line: &[u8]) -> io::Result<File> {
    let give = |file: &File| fchown(file, Some(uid), Some(dir.metadata()?.gid()));
    lock_and_give(&RealDisk::default(), dir, drop, line, &give)
}

/// [`lock_for_another`] on a disk of the caller's.
pub(super) fn lock_and_give<D: Disk>(
    disk: &D,
    dir: &D::Dir,
    drop: &Path,
    line: &[u8],
    give: &dyn Fn(&D::File) -> io::Result<()>,
) -> io::Result<D::File> {
    match make(&Door { disk, dir, drop, owner: None }, line, give) {
        Ok(Made::Ours { file, .. }) => Ok(file),
        Ok(Made::MayNot(error)) => Err(error),
        Err(Refused::InUse | Refused::Locked) => Err(files::taken()),
        Err(Refused::Unsafe(fault) | Refused::Fault(fault)) => Err(fault.source),
    }
}

/// Takes that dotlock away, if it is this file; whether it was.
pub fn unlock_for_another(dir: &File, drop: &Path, inode: u64) -> io::Result<bool> {
    unlock_by_number(&RealDisk::default(), dir, drop, inode)
}

/// [`unlock_for_another`] on a disk of the caller's.
pub(super) fn unlock_by_number<D: Disk>(disk: &D, dir: &D::Dir, drop: &Path, inode: u64) -> io::Result<bool> {
    let is_it = |name: &Path| disk.look(dir, name).is_ok_and(|seen| seen.is_file() && seen.inode == inode);
    let door = Door { disk, dir, drop, owner: None };
    let gone = take_away(&door, &is_it)?;
    if gone {
        give_up_first(&door, inode);
    }
    Ok(gone)
}

/// Takes the first name from a lock that had kept it.
fn give_up_first<D: Disk>(door: &Door<'_, D>, inode: u64) {
    let name = door.first();
    if door.disk.look(door.dir, &name).is_ok_and(|seen| seen.inode == inode) {
        // What stays is tidied away by the next of us.
        drop(door.disk.remove(door.dir, &name));
    }
}

/// What came of making it.
enum Made<D: Disk> {
    /// `unwritten`: it has kept the first name.
    Ours {
        file: D::File,
        unwritten: bool,
    },
    MayNot(io::Error),
}

/// The dotlock made under its first name, and given its own; `give` hands it to whose it shall be.
fn make<D: Disk>(
    door: &Door<'_, D>,
    line: &[u8],
    give: &dyn Fn(&D::File) -> io::Result<()>,
) -> Result<Made<D>, Refused> {
    let disk = door.disk;
    let file = match enter(door)? {
        Entered::Ours(file) => file,
        Entered::MayNot(error) => return Ok(Made::MayNot(error)),
    };
    // A full disk: readers go on.
    let unwritten = disk.write(&file, line, 0).is_err();
    let given = give(&file).map_err(Fault::at("making", &door.path()));
    let taken = given.map_err(Refused::from).and_then(|()| take_name(door));
    if !(unwritten && matches!(taken, Ok(true))) {
        drop(disk.remove(door.dir, &door.first()));
    }
    if taken? { Ok(Made::Ours { file, unwritten }) } else { Err(Refused::Locked) }
}

enum Entered<D: Disk> {
    /// The file with the first name. The kernel's lock on it lasts as long as the file is open.
    Ours(D::File),
    MayNot(io::Error),
}

/// Makes the file with the first name, and locks it. One of us at a time comes out of here with it.
fn enter<D: Disk>(door: &Door<'_, D>) -> Result<Entered<D>, Refused> {
    let (disk, new) = (door.disk, door.first());
    for attempt in 0..2 {
        let file = match disk.open(door.dir, &new, How::CreateNew) {
            Ok(file) => file,
            Err(error) => match error.kind() {
                io::ErrorKind::AlreadyExists if attempt == 0 => match tidy(door, &new) {
                    Ok(true) => continue,
                    // What another user left in a directory where each removes his own.
                    Err(error) if denied(&error) => return Ok(Entered::MayNot(error)),
                    _ => return Err(Refused::Locked),
                },
                io::ErrorKind::AlreadyExists => return Err(Refused::Locked),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    return Ok(Entered::MayNot(error));
                }
                _ => return Err(Fault::new("making", &door.path(), error).into()),
            },
        };
        // Until it is locked it looks like one left behind, and may be tidied away.
        let locked = disk.try_lock(&file, LockKind::Fcntl).map_err(Fault::at("locking", &door.path()))?;
        let named = locked && disk.stat(&file).is_ok_and(|ours| door.is_at(&new, &ours));
        return if named { Ok(Entered::Ours(file)) } else { Err(Refused::Locked) };
    }
    Err(Refused::Locked)
}

/// Takes away what was left under the first name by one of us who was killed, with the dotlock that it is. Whether it is gone.
fn tidy<D: Disk>(door: &Door<'_, D>, new: &Path) -> io::Result<bool> {
    let disk = door.disk;
    let dead = match disk.open(door.dir, new, How::Write) {
        Ok(file) => {
            // Stays open until the name is gone: its number is not given to another.
            let dead = matches!(disk.try_lock(&file, LockKind::Fcntl), Ok(true))
                && disk.stat(&file).is_ok_and(|seen| door.is_at(new, &seen));
            if !dead {
                return Ok(false);
            }
            let inode = disk.stat(&file)?.inode;
            take_away(door, &|name| disk.look(door.dir, name).is_ok_and(|seen| seen.inode == inode))?;
            return disk.remove(door.dir, new).map(|()| true);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        // A link, or another user's.
        Err(_) => {
            let old = |seen: Stat| !seen.is_file() || disk.now() - seen.mtime >= STALE_NANOS;
            disk.look(door.dir, new).is_ok_and(old)
        }
    };
    if dead { disk.remove(door.dir, new).map(|()| true) } else { Ok(false) }
}

/// Gives our written lock its name, if nobody has it; once more after a stale one was taken away.
fn take_name<D: Disk>(door: &Door<'_, D>) -> Result<bool, Refused> {
    for attempt in 0..2 {
        match door.disk.link(door.dir, &door.first(), &door.lock()) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if attempt > 0 || !remove_stale(door) {
                    return Ok(false);
                }
            }
            Err(error) => return Err(Fault::new("making", &door.path(), error).into()),
        }
    }
    Ok(false)
}

/// What stands at the dotlock's name.
pub(super) enum Standing<D: Disk> {
    Free,
    Held,
    /// Nobody's any more. The file, where it can be opened, stays open so that its number is not given to another.
    Stale(Option<D::File>, Stat),
}

/// Judges what stands at the dotlock's name, as the page says.
pub(super) fn standing<D: Disk>(desk: &Desk<D>) -> Standing<D> {
    judge(&Door::of(desk))
}

fn judge<D: Disk>(door: &Door<'_, D>) -> Standing<D> {
    let (disk, name) = (door.disk, door.lock());
    let mut seen = match disk.look(door.dir, &name) {
        Ok(seen) if seen.is_file() => seen,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Standing::Free,
        _ => return Standing::Held,
    };
    let mut file = disk.open(door.dir, &name, How::Write).ok();
    if file.as_ref().is_some_and(|file| !matches!(disk.try_lock(file, LockKind::Fcntl), Ok(true))) {
        return Standing::Held;
    }
    let locked = file.is_some();
    // Others make theirs with modes that nobody may write to, or read.
    file = file.or_else(|| disk.open(door.dir, &name, How::Read).ok());
    let mut dead = false;
    if let Some(file) = &file {
        seen = match disk.stat(file) {
            Ok(seen) if seen.is_file() => seen,
            _ => return Standing::Held,
        };
        let mut text = [0; LINE_BYTES];
        let read = disk.read(file, &mut text, 0, Reach::Wait).unwrap_or(0);
        let holder = parse(&text[..read]).filter(|holder| holder.world == disk.holder().world);
        dead = holder.is_some_and(|holder| !disk.is_alive(&holder))
            || locked && disk.look(door.dir, &door.first()).is_ok_and(|first| first.inode == seen.inode);
    }
    if dead || disk.now() - seen.mtime >= STALE_NANOS { Standing::Stale(file, seen) } else { Standing::Held }
}

/// Temporary files of locks: our first name, and what somebody had begun to remove. They may be in use.
pub(super) fn left_behind<D: Disk>(desk: &Desk<D>) -> Result<Vec<PathBuf>, Fault> {
    let parent = desk.spot.drop.parent().unwrap_or(Path::new("/"));
    let start = desk.own(".lock.");
    let away = |name: &&[u8]| name.len() == 16 && name.iter().all(u8::is_ascii_hexdigit);
    let is_ours = |name: &OsString| {
        let rest = name.as_encoded_bytes().strip_prefix(start.as_os_str().as_encoded_bytes());
        rest.is_some_and(|rest| rest == b"new" || away(&rest))
    };
    let mut found = Vec::new();
    let mut each = |name: OsString| {
        if is_ours(&name) {
            found.push(parent.join(name));
        }
        true
    };
    desk.disk.names(&desk.dir, &mut each).map_err(Fault::at("reading", parent))?;
    Ok(found)
}

/// Removes those that are in nobody's use, and says which. Refused while one of us is about to take the lock.
pub(super) fn sweep<D: Disk>(desk: &Desk<D>) -> Result<Vec<PathBuf>, Refused> {
    let found = left_behind(desk)?;
    if found.is_empty() {
        return Ok(found);
    }
    let door = Door::of(desk);
    // Who has the first name is alone: nobody is removing anything now.
    let Entered::Ours(_file) = enter(&door)? else { return Ok(Vec::new()) };
    for path in &found {
        let name = Path::new(path.file_name().unwrap_or_default());
        there(desk.disk.remove(&desk.dir, name)).map_err(Fault::at("removing", path))?;
    }
    drop(there(desk.disk.remove(&desk.dir, &door.first())));
    Ok(found)
}

/// Takes the dotlock away if it is nobody's, and says whether the name is free. Only for who has the first name.
fn remove_stale<D: Disk>(door: &Door<'_, D>) -> bool {
    let (_file, seen) = match judge(door) {
        Standing::Stale(file, seen) => (file, seen),
        Standing::Free => return true,
        Standing::Held => return false,
    };
    match take_away(door, &|name| door.is_at(name, &seen)) {
        // Another user's, in a directory where each removes his own.
        Err(error) if denied(&error) => {
            door.owner.is_some_and(|owner| door.disk.unlock_for(door.drop, owner, seen.inode).is_ok())
        }
        gone => gone.unwrap_or(false),
    }
}

/// Takes the dotlock away if it is what it should be; whether it was.
fn take_away<D: Disk>(door: &Door<'_, D>, is_it: &dyn Fn(&Path) -> bool) -> io::Result<bool> {
    let (disk, name) = (door.disk, door.lock());
    if !is_it(&name) {
        return Ok(false);
    }
    let away = door.named(".", &format!(".lock.{:016x}", disk.random()));
    disk.rename(door.dir, &name, &away)?;
    let ours = is_it(&away);
    if !ours {
        // Another program replaced the lock between the last two looks: it gets its name back.
        drop(disk.link(door.dir, &away, &name));
    }
    drop(disk.remove(door.dir, &away));
    Ok(ours)
}
