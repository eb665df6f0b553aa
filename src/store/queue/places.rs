//! Where the files of the queue lie, and how each is found by its id.
//!
//! | directory       | has                                                                    | is read                       |
//! |-----------------|------------------------------------------------------------------------|-------------------------------|
//! | `queue`         | new ones, and those in their first round; what was set aside           | at start                      |
//! | `queue/due/H`   | those that wait until a second of hour H: seconds since 1970 / 3600    | when that hour has begun      |
//! | `queue/due/0`   | those that wait for nothing: called by hand, or put out of the table   | at start, and when it runs low |
//! | `queue/held`    | those of which no recipient may be tried                               | when somebody wants to know   |
//!
//! A file is looked for where it was last seen, then in this order. Of those whom we saw [`SEEN`] are remembered. A file moves under its
//! message's lock; a reader holds none, so it looks once more when one of those that share the lock was moved while it looked.
//!
//! Hours are made on demand, and that is synced once; at the same time those of the past that are empty go.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use super::head::DIRECTORIES;
use super::{LOCKS, NAME};
use crate::store::desk::{Refused, refuse, there};
use crate::store::disk::{Disk, How};
use crate::text::fault::Fault;
use crate::text::number::decimal;

const DUE: &str = DIRECTORIES[0];
const HELD: &str = DIRECTORIES[1];
/// Seconds of an hour.
pub(super) const HOUR_SECS: i64 = 3600;
/// The last hour there is: the end of the year 9999.
const LAST_HOUR: i64 = 70_389_527;
/// Hours whose directories are held open, at most.
const OPEN_MAX: usize = 16;
/// Files whose places are remembered.
const SEEN: usize = 1024;
/// So often is looked once more for what was moved meanwhile.
const LOOKS: usize = 64;

/// What was found; an error says where it came up.
type Looked<T> = Result<T, (Place, io::Error)>;

/// See the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    New,
    Due(u32),
    Held,
}

impl Place {
    /// Where a message belongs that is due then.
    pub(super) fn of(due_secs: Option<i64>) -> Place {
        due_secs.map_or(Place::Held, |secs| Place::Due(hour_of(secs)))
    }
}

/// The hour of a second.
pub(super) fn hour_of(secs: i64) -> u32 {
    secs.div_euclid(HOUR_SECS).clamp(0, LAST_HOUR) as u32
}

/// When an hour begins.
pub(super) fn begin_of(hour: u32) -> i64 {
    i64::from(hour) * HOUR_SECS
}

/// The directories.
pub(super) struct Places<D: Disk> {
    disk: D,
    path: PathBuf,
    new: Arc<D::Dir>,
    due: D::Dir,
    held: Arc<D::Dir>,
    /// The hours there are, and their directories while they are held open.
    hours: Mutex<BTreeMap<u32, Option<Arc<D::Dir>>>>,
    /// Where files were seen last, by the hash of their ids.
    seen: Mutex<Vec<(u64, Place)>>,
    /// Moves of the files of each lock, one for the beginning and one for the end.
    moves: [AtomicU64; LOCKS],
}

/// Which lock a message has.
pub(super) fn lock_of(id: &str) -> usize {
    (xxh3_64(id.as_bytes()) % LOCKS as u64) as usize
}

impl<D: Disk> Places<D> {
    pub(super) fn open(disk: &D, work_path: &Path) -> Result<Places<D>, Refused> {
        let path = work_path.join(NAME);
        let open = |path: &Path| {
            disk.make_dirs(path).map_err(Fault::at("making", path))?;
            let dir = disk.open_dir(path).map_err(Fault::at("opening", path))?;
            let seen = disk.stat_dir(&dir).map_err(Fault::at("looking at", path))?;
            if seen.uid != disk.uid() || seen.mode & 0o022 != 0 {
                return Err(refuse("opening", path, "not a directory that only we may write to"));
            }
            Ok(dir)
        };
        let (new, due, held) = (open(&path)?, open(&path.join(DUE))?, open(&path.join(HELD))?);
        let parent = disk.open_dir(work_path).map_err(Fault::at("opening", work_path))?;
        disk.sync_dir(&parent).map_err(Fault::at("syncing", work_path))?;
        // Whatever the last server had not come to: a name that it gave is on disk before anything is built upon it.
        disk.sync_dir(&new).map_err(Fault::at("syncing", &path))?;
        disk.sync_dir(&due).map_err(Fault::at("syncing", &path.join(DUE)))?;
        let places = Places {
            disk: disk.clone(),
            path,
            new: Arc::new(new),
            due,
            held: Arc::new(held),
            hours: Mutex::default(),
            seen: Mutex::new(vec![(0, Place::New); SEEN]),
            moves: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        places.look_for_hours(&mut |_| {})?;
        Ok(places)
    }

    /// The directory of new ones.
    pub(super) fn of_new(&self) -> &D::Dir {
        &self.new
    }

    /// The path of a directory.
    pub(super) fn path(&self, place: Place) -> PathBuf {
        match place {
            Place::New => self.path.clone(),
            Place::Due(hour) => self.path.join(DUE).join(hour.to_string()),
            Place::Held => self.path.join(HELD),
        }
    }

    /// Where a file is, as far as that is known: for people.
    pub(super) fn path_of(&self, id: &str) -> PathBuf {
        self.path(self.seen(id).unwrap_or(Place::New)).join(id)
    }

    /// Whether a name in `queue` is one of our directories.
    pub(super) fn is_ours(name: &[u8]) -> bool {
        name == DUE.as_bytes() || name == HELD.as_bytes()
    }

    /// Learns which hours there are. What else lies there is `strange`.
    pub(super) fn look_for_hours(&self, strange: &mut dyn FnMut(PathBuf)) -> Result<(), Fault> {
        let mut found = Vec::new();
        let mut each = |name: OsString| {
            let number = name.to_str().and_then(|name| decimal(name.as_bytes()));
            let number = number.and_then(|number| u32::try_from(number).ok());
            match number.filter(|number| name.to_str() == Some(&number.to_string())) {
                Some(hour) => found.push(hour),
                None => strange(self.path.join(DUE).join(name)),
            }
            true
        };
        self.disk.names(&self.due, &mut each).map_err(Fault::at("reading", &self.path.join(DUE)))?;
        for hour in found {
            if self.hours().contains_key(&hour) {
                continue;
            }
            match there(self.disk.look(&self.due, Path::new(&hour.to_string()))) {
                // One that went meanwhile.
                Ok(None) => {}
                Ok(Some(seen)) if seen.is_dir() && seen.uid == self.disk.uid() && seen.mode & 0o022 == 0 => {
                    self.hours().entry(hour).or_default();
                }
                _ => strange(self.path(Place::Due(hour))),
            }
        }
        Ok(())
    }

    /// The hours there are, the first first.
    pub(super) fn all_hours(&self) -> Vec<u32> {
        self.hours().keys().copied().collect()
    }

    /// The directory of a place; `None`: there is none.
    pub(super) fn dir(&self, place: Place) -> io::Result<Option<Arc<D::Dir>>> {
        let hour = match place {
            Place::New => return Ok(Some(self.new.clone())),
            Place::Held => return Ok(Some(self.held.clone())),
            Place::Due(hour) => hour,
        };
        match self.hours().get(&hour) {
            None => return Ok(None),
            Some(Some(dir)) => return Ok(Some(dir.clone())),
            Some(None) => {}
        }
        let Some(dir) = there(self.disk.open_dir(&self.path(place)))? else {
            self.hours().remove(&hour);
            return Ok(None);
        };
        let dir = Arc::new(dir);
        let mut hours = self.hours();
        if hours.values().flatten().count() >= OPEN_MAX {
            hours.values_mut().for_each(|dir| *dir = None);
        }
        hours.insert(hour, Some(dir.clone()));
        Ok(Some(dir))
    }

    /// The same; it is made when it is not there.
    fn made(&self, place: Place) -> io::Result<Arc<D::Dir>> {
        if let Some(dir) = self.dir(place)? {
            return Ok(dir);
        }
        let Place::Due(hour) = place else { return Err(io::ErrorKind::NotFound.into()) };
        self.disk.make_dirs(&self.path(place))?;
        self.disk.sync_dir(&self.due)?;
        self.hours().entry(hour).or_default();
        let past = hour_of(self.disk.now() / 1_000_000_000);
        for old in self.all_hours().into_iter().filter(|&old| old < past && old != hour) {
            self.remove_hour(old);
        }
        self.dir(place)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Takes the directory of an hour away if it is empty.
    pub(super) fn remove_hour(&self, hour: u32) {
        if self.disk.remove_dir(&self.path(Place::Due(hour))).is_ok() {
            self.hours().remove(&hour);
        }
    }

    /// Opens a message's file wherever it lies. An error says where that was.
    pub(super) fn open_file(&self, id: &str, how: How) -> Looked<Option<(Place, D::File)>> {
        self.find(id, |dir| self.disk.open(dir, Path::new(id), how))
    }

    /// Where a message's file lies.
    pub(super) fn whereabouts(&self, id: &str) -> Looked<Option<Place>> {
        Ok(self.find(id, |dir| self.disk.look(dir, Path::new(id)))?.map(|(place, _)| place))
    }

    fn find<T>(&self, id: &str, look: impl Fn(&D::Dir) -> io::Result<T>) -> Looked<Option<(Place, T)>> {
        let moves = &self.moves[lock_of(id)];
        let at = |place: Place| {
            let dir = self.dir(place).map_err(|error| (place, error))?;
            let found = dir.map(|dir| there(look(&dir)).map_err(|error| (place, error))).transpose()?.flatten();
            if found.is_some() {
                self.see(id, place);
            }
            Ok(found.map(|found| (place, found)))
        };
        for _ in 0..LOOKS {
            let before = moves.load(Ordering::SeqCst);
            let seen = self.seen(id);
            if let Some(place) = seen
                && let Some(found) = at(place)?
            {
                return Ok(Some(found));
            }
            let hours = self.all_hours().into_iter().map(Place::Due);
            for place in std::iter::once(Place::New).chain(hours).chain([Place::Held]) {
                if Some(place) != seen
                    && let Some(found) = at(place)?
                {
                    return Ok(Some(found));
                }
            }
            if before.is_multiple_of(2) && moves.load(Ordering::SeqCst) == before {
                return Ok(None);
            }
            std::thread::yield_now();
        }
        Err((Place::New, io::Error::new(io::ErrorKind::WouldBlock, "it is being moved")))
    }

    /// Moves a file. Whoever calls has the message's lock.
    pub(super) fn carry(&self, id: &str, from: Place, to: Place, name: &Path) -> io::Result<()> {
        let carry = || {
            let (source, target) = (self.dir(from)?.ok_or(io::ErrorKind::NotFound)?, self.made(to)?);
            self.disk.carry(&source, Path::new(id), &target, name)
        };
        let moves = &self.moves[lock_of(id)];
        moves.fetch_add(1, Ordering::SeqCst);
        let carried = match (carry(), to) {
            // Its hour was empty, and was taken away at this moment.
            (Err(error), Place::Due(hour)) if error.kind() == io::ErrorKind::NotFound => {
                self.hours().remove(&hour);
                carry()
            }
            (carried, _) => carried,
        };
        moves.fetch_add(1, Ordering::SeqCst);
        if carried.is_ok() {
            self.see(id, to);
        }
        carried
    }

    fn seen(&self, id: &str) -> Option<Place> {
        let hash = xxh3_64(id.as_bytes());
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, place) = seen[hash as usize % SEEN];
        (known == hash).then_some(place)
    }

    fn see(&self, id: &str, place: Place) {
        let hash = xxh3_64(id.as_bytes());
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)[hash as usize % SEEN] = (hash, place);
    }

    fn hours(&self) -> MutexGuard<'_, BTreeMap<u32, Option<Arc<D::Dir>>>> {
        self.hours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
