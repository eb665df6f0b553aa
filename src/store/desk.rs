//! What every blocking call on a maildrop works with: the two directories held open, the names in them, who may own what.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, How, LockKind, Stat};
use super::locks::DropLocks;
use super::path::letters;
use super::refresh::{self, Stale};
use crate::sys::files;
use crate::text::fault::Fault;
use crate::text::number::Fraction;

/// Where a maildrop is, and how other programs meet us there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The mbox file.
    pub drop: PathBuf,
    /// Where bins lie; `None`: beside the drop, or below `work_path` where others may write to the drop's directory, or we
    /// may not.
    pub bin_path: Option<PathBuf>,
    /// The server's own directory. Shared by all sessions.
    pub work_path: Arc<Path>,
    /// Who must own the drop; `None`: anybody.
    pub owner: Option<u32>,
    /// What part of the drop live mail must fill: with less in it the drop is compacted.
    pub full: Fraction,
    /// How to lock the drop while scanning and compacting, in this order.
    pub locks: Vec<LockKind>,
    /// Bins that do not lie beside their drops are spread over 32 x 32 directories.
    pub hash_bindir: bool,
    /// With less than this free where the bins lie no index is written, and no copy for a compaction; 0: not watched.
    pub min_space_bytes: u64,
    /// Whether a bin is made, and locked, also where there is no mail: because more is remembered there than deletions.
    pub lone: bool,
    /// Whether a message without a Status line is sent with one, see [`status`](crate::mail::status).
    pub add_status: bool,
}

impl Place {
    /// A drop with everything else as the settings' defaults have it.
    pub fn new(drop: impl Into<PathBuf>, work_path: impl AsRef<Path>) -> Place {
        Place {
            drop: drop.into(),
            bin_path: None,
            work_path: work_path.as_ref().into(),
            owner: None,
            full: Fraction::HALF,
            locks: vec![LockKind::Dotlock, LockKind::Fcntl],
            hash_bindir: false,
            min_space_bytes: 0,
            lone: false,
            add_status: false,
        }
    }
}

/// Why a maildrop is not served now.
#[derive(Debug)]
pub enum Refused {
    /// Another session has it.
    InUse,
    /// Another program holds the drop's own lock: try again a little later.
    Locked,
    /// A link, a stranger's file, not a file at all: nothing we may touch. Stays so until somebody acts.
    Unsafe(Fault),
    /// The disk or the system failed.
    Fault(Fault),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::InUse => f.write_str("another session has it"),
            Refused::Locked => f.write_str("another program has it locked"),
            Refused::Unsafe(fault) | Refused::Fault(fault) => fault.fmt(f),
        }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        Refused::Fault(fault)
    }
}

/// What the operator should hear about, though the maildrop is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Remark {
    /// The directory lets us make no dotlock; the other locks were taken.
    NoDotlock,
    /// The bin belonged to another drop; it was set aside, deletions not yet compacted may come back.
    AlienLedger,
    /// Part of the ledger could not be read; the rest counts.
    DamagedLedger,
    /// A compaction was interrupted and the drop was changed by others since; its copy was set aside.
    CopySetAside,
    /// An interrupted compaction was completed.
    Recovered,
    /// The drop has bytes, and no From_ line among them.
    NotAnMbox,
    /// The index could not be written; it lives in memory until the session ends.
    IndexInMemory,
    /// Less is free than [`Place::min_space_bytes`]; the index lives in memory and compaction waits.
    ShortOfSpace,
    /// The bin lay where the other value of `hash_bindir` puts it, and was moved.
    BinMoved,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Remark::NoDotlock => "no dotlock can be made beside it; the other locks were taken",
            Remark::AlienLedger => "its bin belonged to another drop and was set aside; deleted mail may come back",
            Remark::DamagedLedger => "part of its ledger cannot be read; the rest counts",
            Remark::CopySetAside => {
                "a compaction was interrupted and others changed the drop since; the copy was set aside"
            }
            Remark::Recovered => "an interrupted compaction was completed",
            Remark::NotAnMbox => "it has bytes and no From_ line: is it an mbox file?",
            Remark::IndexInMemory => "its index cannot be written; it lives in memory until the session ends",
            Remark::ShortOfSpace => "less than min_space is free; its index lives in memory, compaction waits",
            Remark::BinMoved => "its bin lay where hash_bindir had put it before, and was moved",
        })
    }
}

/// A session's remarks, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Remarks(u16);

impl Remarks {
    const ALL: [Remark; 9] = [
        Remark::NoDotlock,
        Remark::AlienLedger,
        Remark::DamagedLedger,
        Remark::CopySetAside,
        Remark::Recovered,
        Remark::NotAnMbox,
        Remark::IndexInMemory,
        Remark::ShortOfSpace,
        Remark::BinMoved,
    ];

    pub(super) fn add(&mut self, remark: Remark) {
        self.0 |= 1 << remark as u8;
    }

    pub(super) fn join(&mut self, other: Remarks) {
        self.0 |= other.0;
    }

    pub(super) fn list(self) -> Vec<Remark> {
        Self::ALL.into_iter().filter(|&remark| self.0 & 1 << remark as u8 != 0).collect()
    }
}

/// The part of a [`Place`] that a session keeps.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) drop: Box<Path>,
    /// Where its bin lies, when not beside it.
    pub(super) bins: Option<Box<Path>>,
    pub(super) owner: Option<u32>,
    pub(super) full: Fraction,
    pub(super) locks: [Option<LockKind>; 3],
    pub(super) min_space_bytes: u64,
    pub(super) add_status: bool,
    /// Where the intent log is.
    pub(super) work: Arc<Path>,
}

impl Spot {
    /// The spot of a place, without a directory for bins.
    pub(super) fn of(place: &Place) -> Spot {
        let mut locks = [None; 3];
        for (slot, kind) in locks.iter_mut().zip(&place.locks) {
            *slot = Some(*kind);
        }
        let Place { owner, full, min_space_bytes, add_status, .. } = *place;
        let (drop, work) = (place.drop.as_path().into(), place.work_path.clone());
        Spot { drop, bins: None, owner, full, locks, min_space_bytes, add_status, work }
    }
}

/// What came of trying for the session lock.
pub(super) enum Bin<F> {
    /// The bin, locked.
    Held(F),
    /// There is no bin.
    Absent,
    /// It was, or is, where the other value of hash_bindir has it: begin again.
    Moved,
    /// Another file has its name now: begin again.
    Replaced,
}

/// The directories of a spot, held open while a job works there.
pub(super) struct Desk<D: Disk> {
    pub(super) disk: D,
    pub(super) spot: Spot,
    pub(super) dir: Arc<D::Dir>,
    /// Where bin, index and copy lie: may be the same directory.
    pub(super) bins: Arc<D::Dir>,
    /// There was less than min_space when this was made.
    pub(super) short: bool,
    /// Where the bin would lie with the other value of `hash_bindir`.
    other: Option<Box<Path>>,
    name: OsString,
}

impl<D: Disk> Desk<D> {
    /// Holds the directories of `place`; the bins' one is made when `make`. `None`: one of them is not there.
    pub(super) fn at(disk: &D, place: &Place, make: bool) -> Result<Option<Desk<D>>, Refused> {
        let mut spot = Spot::of(place);
        let Some(parent) = place.drop.parent() else {
            return Err(refuse("opening", &place.drop, "not the path of a file"));
        };
        let Some(dir) = there(disk.open_dir(parent)).map_err(Fault::at("opening", parent))? else { return Ok(None) };
        let seen = disk.stat_dir(&dir).map_err(Fault::at("looking at", parent))?;
        let base = match &place.bin_path {
            Some(path) => Some(path.clone()),
            // In a directory where others may write they could take our files away or put theirs in their place.
            None if seen.mode & 0o022 != 0 => Some(place.work_path.join("bin")),
            // Nor is it ours where the drop is another user's and we are not root.
            None if place.owner.is_some_and(|owner| owner != disk.uid()) && disk.uid() != 0 => {
                Some(place.work_path.join("bin"))
            }
            None => None,
        };
        let mut other = None;
        if let Some(base) = base {
            let (flat, hashed) = (mirrored(&base, parent), mirrored(&hashed(&base, &place.drop), parent));
            let (here, there) = if place.hash_bindir { (hashed, flat) } else { (flat, hashed) };
            (spot.bins, other) = (Some(here), Some(there));
        }
        let desk = Desk::hold(disk, spot, Some(Arc::new(dir)), make)?;
        Ok(desk.map(|desk| Desk { other, ..desk }))
    }

    /// The same for a drop as it stands: the bins' directory is made when there is mail, or a lone bin is wanted.
    pub(super) fn of(disk: &D, place: &Place) -> Result<Option<Desk<D>>, Refused> {
        let desk = Desk::at(disk, place, false)?;
        let is_wanted = desk.is_none() && (place.lone || Desk::has_mail(disk, place)?);
        if is_wanted { Desk::at(disk, place, true) } else { Ok(desk) }
    }

    /// Whether there is a drop with bytes in it, as far as a look tells.
    pub(super) fn has_mail(disk: &D, place: &Place) -> Result<bool, Refused> {
        let (Some(parent), Some(name)) = (place.drop.parent(), place.drop.file_name()) else { return Ok(false) };
        let Some(dir) = there(disk.open_dir(parent)).map_err(Fault::at("opening", parent))? else { return Ok(false) };
        let seen = there(disk.look(&dir, Path::new(name))).map_err(Fault::at("looking at", &place.drop))?;
        Ok(seen.is_some_and(|seen| seen.size > 0 || !seen.is_file()))
    }

    /// Holds the directories of a spot again.
    pub(super) fn again(disk: &D, spot: &Spot) -> Result<Option<Desk<D>>, Refused> {
        Desk::hold(disk, spot.clone(), None, true)
    }

    fn hold(disk: &D, spot: Spot, dir: Option<Arc<D::Dir>>, make: bool) -> Result<Option<Desk<D>>, Refused> {
        let Some(name) = spot.drop.file_name().map(OsString::from) else {
            return Err(refuse("opening", &spot.drop, "not the path of a file"));
        };
        let parent = spot.drop.parent().unwrap_or(Path::new("/"));
        let dir = match dir {
            Some(dir) => dir,
            None => match there(disk.open_dir(parent)).map_err(Fault::at("opening", parent))? {
                Some(dir) => Arc::new(dir),
                None => return Ok(None),
            },
        };
        let (path, bins) = match spot.bins.as_deref() {
            None => (parent, dir.clone()),
            Some(path) => {
                if make {
                    disk.make_dirs(path).map_err(Fault::at("making", path))?;
                }
                let bins = there(disk.open_dir(path)).map_err(Fault::at("opening", path))?;
                let Some(bins) = bins else { return Ok(None) };
                (path, Arc::new(bins))
            }
        };
        let short = spot.min_space_bytes > 0
            && disk.free_bytes(&bins).map_err(Fault::at("looking at", path))? < spot.min_space_bytes;
        Ok(Some(Desk { disk: disk.clone(), dir, bins, short, other: None, name, spot }))
    }

    /// A new drop, empty, with its owner and group from the start. That somebody made one meanwhile is as good.
    pub(super) fn make_drop(&self) -> Result<(), Refused> {
        let (disk, new) = (&self.disk, self.own(".new"));
        let path = self.spot.drop.with_file_name(&new);
        // One of us was killed here, or is here now: then the drop is there in a moment.
        there(disk.remove(&self.dir, &new)).map_err(Fault::at("removing", &path))?;
        let file = match disk.open(&self.dir, &new, How::CreateNew) {
            Ok(file) => file,
            Err(error) => match (error.kind(), self.spot.owner) {
                (io::ErrorKind::AlreadyExists, _) => return Err(Refused::Locked),
                // Where our own rights end, another makes it.
                (io::ErrorKind::PermissionDenied, Some(owner)) => {
                    disk.open_for(&self.spot.drop, owner, How::Create).map_err(self.fault("making"))?;
                    return Ok(());
                }
                _ => return Err(Fault::new("making", &path, error).into()),
            },
        };
        let made = match (disk.give(&file, self.spot.owner, &self.dir), self.spot.owner) {
            // We may make files here, and only root may give them away.
            (Err(error), Some(owner)) if error.kind() == io::ErrorKind::PermissionDenied => {
                there(disk.remove(&self.dir, &new)).map_err(Fault::at("removing", &path))?;
                disk.open_for(&self.spot.drop, owner, How::Create).map_err(self.fault("making"))?;
                return Ok(());
            }
            (given, _) => given.map_err(Fault::at("giving to its owner", &path)),
        };
        let named = made.and_then(|()| {
            disk.carry(&self.dir, &new, &self.dir, self.name()).or_else(|error| {
                drop(disk.remove(&self.dir, &new));
                let raced = matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound);
                if raced { Ok(()) } else { Err(self.fault("making")(error)) }
            })
        });
        if named.is_err() {
            drop(disk.remove(&self.dir, &new));
        }
        Ok(named?)
    }

    /// Whether `bytes` more would leave less free than min_space, where the bins lie.
    pub(super) fn lacks(&self, bytes: u64) -> Result<bool, Fault> {
        let least = self.spot.min_space_bytes;
        let free = || self.disk.free_bytes(&self.bins).map_err(Fault::at("looking at", &self.own_path(".copy")));
        Ok(least > 0 && free()? < least.saturating_add(bytes))
    }

    /// Whether there is a bin where the other value of `hash_bindir` puts it.
    pub(super) fn has_other(&self) -> Result<bool, Fault> {
        let Some((path, dir)) = self.other_dir()? else { return Ok(false) };
        let found = there(self.disk.look(&dir, &self.own(".bin"))).map_err(Fault::at("looking at", path))?;
        Ok(found.is_some())
    }

    fn other_dir(&self) -> Result<Option<(&Path, D::Dir)>, Fault> {
        let Some(path) = self.other.as_deref() else { return Ok(None) };
        let dir = there(self.disk.open_dir(path)).map_err(Fault::at("opening", path))?;
        Ok(dir.map(|dir| (path, dir)))
    }

    /// Moves the bin here from where the other value of `hash_bindir` had put it, unless a session holds it there; an
    /// interrupted compaction is completed before. Whether there was one: then begin again. The ledger comes last, because who finds it here looks no further.
    pub(super) fn take_over(&self) -> Result<bool, Refused> {
        let Some((other, dir)) = self.other_dir()? else { return Ok(false) };
        let (disk, name) = (&self.disk, self.own(".bin"));
        let path = other.join(&name);
        let Some((bin, seen)) = self.open(&dir, &name, &path, How::Write, None)? else { return Ok(false) };
        self.ours(&path, &seen)?;
        if !disk.try_lock(&bin, LockKind::Fcntl).map_err(Fault::at("locking", &path))? {
            return Err(Refused::InUse);
        }
        if !disk.look(&dir, &name).is_ok_and(|now| (now.dev, now.inode) == (seen.dev, seen.inode)) {
            return Ok(true);
        }
        // Between two moves copy and ledger would not lie together, and a setting put back then would serve a drop that is
        // half written.
        let _renewed = match self.complete(other, &dir, &bin) {
            Ok(renewed) => renewed,
            Err(Stale::Refused(refused)) => return Err(refused),
            Err(Stale::Replaced) => return Ok(true),
            // Of another drop: it is judged when it is here.
            Err(Stale::Alien) => None,
        };
        if self.has_own(".copy")? && disk.look(&dir, &self.own(".copy")).is_ok() {
            // One of them is of no ledger we have: for the operator to judge.
            self.set_aside(".copy")?;
        }
        for ending in [".copy.new", ".bin.new"] {
            // Of somebody who was killed. They may hold mail, and nobody would look for them there again.
            let removed = there(disk.remove(&dir, &self.own(ending)));
            removed.map_err(Fault::at("removing", &other.join(self.own(ending))))?;
        }
        for ending in [".copy", ".idx", ".bin"] {
            let moved = there(disk.move_to(&dir, &self.own(ending), &self.bins));
            moved.map_err(Fault::at("moving from its old place", &other.join(self.own(ending))))?;
        }
        disk.sync_dir(&self.bins).map_err(Fault::at("syncing the directory of", &self.own_path(".bin")))?;
        disk.sync_dir(&dir).map_err(Fault::at("syncing", other))?;
        Ok(true)
    }

    /// Completes the compaction whose copy lies with `bin` in `dir`, at the other place. The ledger, if it was written anew.
    fn complete(&self, other: &Path, dir: &D::Dir, bin: &D::File) -> Result<Option<D::File>, Stale> {
        let copied = there(self.disk.look(dir, &self.own(".copy"))).map_err(Fault::at("looking at", other))?;
        if copied.is_none() {
            return Ok(None);
        }
        let spot = Spot { bins: Some(other.into()), ..self.spot.clone() };
        let Some(desk) = Desk::hold(&self.disk, spot, None, false)? else { return Ok(None) };
        let Some((drop, _)) = desk.open_drop()? else { return Ok(None) };
        let mut locks = DropLocks::take(&desk, &drop)?;
        Ok(refresh::refresh_locked(&desk, &drop, bin, &mut locks)?.bin)
    }

    /// The drop's name in its directory.
    pub(super) fn name(&self) -> &Path {
        Path::new(&self.name)
    }

    /// The drop's name with something after it: `NAME.lock`.
    pub(super) fn with(&self, ending: &str) -> PathBuf {
        let mut name = self.name.clone();
        name.push(ending);
        name.into()
    }

    /// The name of one of our own files: `.NAME.bin`.
    pub(super) fn own(&self, ending: &str) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(ending);
        name.into()
    }

    /// The full path of one of our own files, for faults.
    pub(super) fn own_path(&self, ending: &str) -> PathBuf {
        let parent = self.spot.drop.parent().unwrap_or(Path::new("/"));
        self.spot.bins.as_deref().unwrap_or(parent).join(self.own(ending))
    }

    /// Opens the drop, if it is there, and sees that it is what it should be.
    pub(super) fn open_drop(&self) -> Result<Option<(D::File, Stat)>, Refused> {
        let found = self.open(&self.dir, self.name(), &self.spot.drop, How::Write, self.spot.owner)?;
        if let Some((_, seen)) = &found
            && let Some(owner) = self.spot.owner
            && seen.uid != owner
        {
            return Err(refuse("opening", &self.spot.drop, &format!("belongs to uid {}, not {owner}", seen.uid)));
        }
        Ok(found)
    }

    /// Whether an open drop has its name still.
    pub(super) fn is_named(&self, drop: &D::File) -> Result<bool, Fault> {
        let named = there(self.disk.look(&self.dir, self.name())).map_err(self.fault("looking at"))?;
        let seen = self.disk.stat(drop).map_err(self.fault("looking at"))?;
        Ok(named.is_some_and(|named| (named.dev, named.inode) == (seen.dev, seen.inode)))
    }

    /// The volume of the drop's directory.
    pub(super) fn dev(&self) -> Result<u64, Fault> {
        Ok(self.disk.stat_dir(&self.dir).map_err(self.fault("looking at the directory of"))?.dev)
    }

    /// Opens one of our own files, if it is there or `how` makes it, and sees that it is ours.
    pub(super) fn open_own(&self, ending: &str, how: How) -> Result<Option<(D::File, Stat)>, Refused> {
        let path = self.own_path(ending);
        let found = self.open(&self.bins, &self.own(ending), &path, how, None)?;
        if let Some((_, seen)) = &found {
            self.ours(&path, seen)?;
        }
        Ok(found)
    }

    /// Takes the session lock: on the file that has the bin's name, and has it still when it is locked.
    pub(super) fn lock_bin(&self, how: How) -> Result<Bin<D::File>, Refused> {
        let Some((bin, held)) = self.open_own(".bin", how)? else {
            return Ok(if self.take_over()? { Bin::Moved } else { Bin::Absent });
        };
        let path = self.own_path(".bin");
        if !self.disk.try_lock(&bin, LockKind::Fcntl).map_err(Fault::at("locking", &path))? {
            return Err(Refused::InUse);
        }
        // A ledger written anew has another inode: who locked the old one has locked nothing.
        let named = self.disk.look(&self.bins, &self.own(".bin"));
        let is_named = named.is_ok_and(|named| (named.dev, named.inode) == (held.dev, held.inode));
        if !is_named {
            return Ok(Bin::Replaced);
        }
        if how == How::Create && held.size == 0 && self.has_other()? {
            // A session that began under the other value of hash_bindir has just made one there.
            self.remove_own(".bin")?;
            return Ok(Bin::Moved);
        }
        Ok(Bin::Held(bin))
    }

    /// The same on a bin that is made when there is none, here or at the other place: one made here hides the one there.
    pub(super) fn lock_or_make_bin(&self) -> Result<Bin<D::File>, Refused> {
        match self.lock_bin(How::Write)? {
            Bin::Absent => self.lock_bin(How::Create),
            found => Ok(found),
        }
    }

    fn ours(&self, path: &Path, seen: &Stat) -> Result<(), Refused> {
        if seen.uid != self.disk.uid() && Some(seen.uid) != self.spot.owner {
            return Err(refuse("opening", path, &format!("belongs to uid {}", seen.uid)));
        }
        Ok(())
    }

    /// With `owner`, and where our own rights do not suffice, with that user's.
    fn open(
        &self,
        dir: &D::Dir,
        name: &Path,
        path: &Path,
        how: How,
        owner: Option<u32>,
    ) -> Result<Option<(D::File, Stat)>, Refused> {
        let opened = match (self.disk.open(dir, name, how), owner) {
            (Err(error), Some(owner)) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.disk.open_for(path, owner, how)
            }
            (opened, _) => opened,
        };
        let file = match there(opened) {
            Ok(None) => return Ok(None),
            Ok(Some(file)) => file,
            // Whoever could have opened it would not, and says why.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && error.get_ref().is_some() => {
                return Err(Refused::Unsafe(Fault::new("opening", path, error)));
            }
            Err(error) => {
                // Links, directories and sockets refuse to be opened, each in its own words.
                return Err(match self.disk.look(dir, name) {
                    Ok(seen) if !seen.is_file() => refuse("opening", path, "not a regular file"),
                    // And it is gone already: whoever comes again may find a file there.
                    _ if files::was_no_file(&error) => Refused::Locked,
                    _ => Fault::new("opening", path, error).into(),
                });
            }
        };
        let seen = self.disk.stat(&file).map_err(Fault::at("looking at", path))?;
        if !seen.is_file() {
            return Err(refuse("opening", path, "not a regular file"));
        }
        if seen.links != 1 {
            return match seen.links {
                // Removed or replaced between the opening and the look.
                0 => Err(Refused::Locked),
                links => Err(refuse("opening", path, &format!("has {links} names"))),
            };
        }
        Ok(Some((file, seen)))
    }

    /// Takes one of our own files away; that it was not there is as good.
    pub(super) fn remove_own(&self, ending: &str) -> Result<(), Fault> {
        there(self.disk.remove(&self.bins, &self.own(ending)))
            .map(drop)
            .map_err(Fault::at("removing", &self.own_path(ending)))
    }

    /// Returns when the names of our own files are on disk.
    pub(super) fn sync_bins(&self) -> Result<(), Fault> {
        self.disk.sync_dir(&self.bins).map_err(Fault::at("syncing the directory of", &self.own_path(".bin")))
    }

    /// Whether one of our own files is there.
    pub(super) fn has_own(&self, ending: &str) -> Result<bool, Fault> {
        let found = there(self.disk.look(&self.bins, &self.own(ending)));
        Ok(found.map_err(Fault::at("looking at", &self.own_path(ending)))?.is_some())
    }

    /// Gives one of our own files a name under which nobody looks for it, for the operator to find.
    pub(super) fn set_aside(&self, ending: &str) -> Result<(), Fault> {
        let aside = format!("{ending}.aside-{:016x}", self.disk.random());
        self.disk
            .rename(&self.bins, &self.own(ending), &self.own(&aside))
            .map_err(Fault::at("setting aside", &self.own_path(ending)))
    }

    /// Reads all of `buffer`; a file that ends before is a fault.
    pub(super) fn read_full(&self, file: &D::File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut read = 0;
        while read < buffer.len() {
            match self.disk.read(file, &mut buffer[read..], offset + read as u64, super::disk::Reach::Wait)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                some => read += some,
            }
        }
        Ok(())
    }

    /// A fault while `doing` something to the drop.
    pub(super) fn fault(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Fault {
        Fault::at(doing, &self.spot.drop)
    }
}

/// `None` for what is not there.
pub(super) fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A permanent refusal of `path`, with our own words for why.
pub(super) fn refuse(doing: &'static str, path: &Path, why: &str) -> Refused {
    Refused::Unsafe(Fault::new(doing, path, io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned())))
}

/// `base` with two letters below it, by the whole path of the drop.
fn hashed(base: &Path, drop: &Path) -> PathBuf {
    let letters = letters(drop.as_os_str().as_bytes());
    letters.iter().fold(base.to_owned(), |path, letter| path.join(OsStr::from_bytes(&[*letter])))
}

/// `base` with the whole of `path` below it: two drops with one name in different directories have different bins.
fn mirrored(base: &Path, path: &Path) -> Box<Path> {
    let mut whole = base.to_owned();
    whole.extend(path.components().filter(|part| matches!(part, Component::Normal(_))));
    whole.into()
}
