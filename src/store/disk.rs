//! Every file call the store makes, so that a test can stand in for the disk: lose and reorder what was not synced, split a
//! file's size from its bytes, stop between any two calls, let other programs write in between.
//!
//! [`RealDisk`] is the one that serves; it costs nothing over the calls themselves.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File, FileTimes};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

use crate::sys::files;
pub use crate::sys::files::{How, Stat};
use crate::sys::process;

/// The kernel's pages.
const PAGE_BYTES: u64 = 4096;

/// How far a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only what is in memory: for the loop, which never waits.
    Now,
    /// To the disk and back: for jobs.
    Wait,
}

/// The ways programs lock a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// A file `NAME.lock` beside it.
    Dotlock,
    /// `fcntl`, as lock of the open file.
    Fcntl,
    /// `flock`.
    Flock,
}

/// Who holds a dotlock: enough to tell whether it still lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The machine, its boot, and the process namespace: below one line, processes have numbers that mean something here.
    pub world: String,
    /// The process there.
    pub pid: u32,
    /// When it started, in clock ticks since boot: a number used again has another.
    pub started: u64,
}

/// A disk, and the clock and the process table that go with it.
pub trait Disk: Clone + Send + Sync + 'static {
    /// A directory held open.
    type Dir: Send + Sync;
    /// A file held open; its locks end with it.
    type File: Send + Sync + 'static;

    /// Holds the directory `path`.
    fn open_dir(&self, path: &Path) -> io::Result<Self::Dir>;
    /// Makes what is missing of `path`, with mode 0700.
    fn make_dirs(&self, path: &Path) -> io::Result<()>;
    /// Takes a directory away in which nothing is.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// What a held directory is.
    fn stat_dir(&self, dir: &Self::Dir) -> io::Result<Stat>;
    /// Opens `name` in `dir`, following no link and waiting for nobody.
    fn open(&self, dir: &Self::Dir, name: &Path, how: How) -> io::Result<Self::File>;
    /// What `name` in `dir` is; a link is itself.
    fn look(&self, dir: &Self::Dir, name: &Path) -> io::Result<Stat>;
    /// What an open file is.
    fn stat(&self, file: &Self::File) -> io::Result<Stat>;
    /// Reads at `offset`: at least one byte unless the file ends there; `WouldBlock` when `reach` does not suffice.
    fn read(&self, file: &Self::File, buffer: &mut [u8], offset: u64, reach: Reach) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes zeros from one offset to another.
    fn fill(&self, file: &Self::File, from: u64, to: u64) -> io::Result<()> {
        self.write(file, &vec![0; to.saturating_sub(from) as usize], from)
    }
    /// Writes some of `bytes`, at least one, where the file ends, whoever else may be writing. Says where that was and how many.
    fn append(&self, file: &Self::File, bytes: &[u8]) -> io::Result<(u64, usize)>;
    /// Gives a file to `uid`, if one is named, and to the group of `dir`.
    fn give(&self, file: &Self::File, uid: Option<u32>, dir: &Self::Dir) -> io::Result<()>;
    /// Makes the file `size` bytes long.
    fn cut(&self, file: &Self::File, size: u64) -> io::Result<()>;
    /// Returns when the file's bytes and size are on disk. A failure is final: what was not written may be forgotten.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Begins what [`sync`](Disk::sync) would wait for, and promises nothing.
    fn begin_sync(&self, file: &Self::File) {
        let _ = file;
    }
    /// Returns when the names in `dir` are on disk.
    fn sync_dir(&self, dir: &Self::Dir) -> io::Result<()>;
    /// Renames within `dir`, over whatever had the name.
    fn rename(&self, dir: &Self::Dir, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames from one directory to another of the same volume, over nothing: `AlreadyExists` when something has the name.
    fn carry(&self, from_dir: &Self::Dir, from: &Path, to_dir: &Self::Dir, to: &Path) -> io::Result<()>;
    /// Says each name in `dir` until `each` wants no more; one that comes or goes meanwhile perhaps.
    fn names(&self, dir: &Self::Dir, each: &mut dyn FnMut(OsString) -> bool) -> io::Result<()>;
    /// Adds a name within `dir`, over nothing.
    fn link(&self, dir: &Self::Dir, from: &Path, to: &Path) -> io::Result<()> {
        self.link_across(dir, from, dir, to)
    }
    /// Adds a name in another directory of the same volume, over nothing.
    fn link_across(&self, from_dir: &Self::Dir, from: &Path, to_dir: &Self::Dir, to: &Path) -> io::Result<()>;
    /// Moves a name to another directory, over whatever had it there.
    fn move_to(&self, from: &Self::Dir, name: &Path, to: &Self::Dir) -> io::Result<()>;
    /// How much can be written where `dir` is, in bytes.
    fn free_bytes(&self, dir: &Self::Dir) -> io::Result<u64>;
    /// Takes a name away.
    fn remove(&self, dir: &Self::Dir, name: &Path) -> io::Result<()>;
    /// Tries for `Fcntl` or `Flock`, and says whether it was had.
    fn try_lock(&self, file: &Self::File, kind: LockKind) -> io::Result<bool>;
    /// Gives that lock up.
    fn unlock(&self, file: &Self::File, kind: LockKind) -> io::Result<()>;
    /// Sets the times of last reading and last writing, in nanoseconds since 1970.
    fn set_times(&self, file: &Self::File, atime: i64, mtime: i64) -> io::Result<()>;
    /// The wall clock, in nanoseconds since 1970.
    fn now(&self) -> i64;
    /// A number that nobody can guess and that does not come twice.
    fn random(&self) -> u64;
    /// Something that changes with every boot: what was not synced then may be gone.
    fn boot(&self) -> u64;
    /// Whom new files belong to.
    fn uid(&self) -> u32;
    /// This process.
    fn holder(&self) -> Holder;
    /// Whether a process of our world still runs.
    fn is_alive(&self, holder: &Holder) -> bool;

    /// Opens the drop `path`, which is `owner`'s, where our own rights did not suffice.
    fn open_for(&self, path: &Path, owner: u32, how: How) -> io::Result<Self::File> {
        let _ = (path, owner, how);
        Err(io::ErrorKind::PermissionDenied.into())
    }

    /// Makes the dotlock of that drop, saying `line`, where our own rights did not suffice. It is ours.
    fn lock_for(&self, path: &Path, owner: u32, line: &[u8]) -> io::Result<Self::File> {
        let _ = (path, owner, line);
        Err(io::ErrorKind::PermissionDenied.into())
    }

    /// Takes the dotlock of that drop away if it is still that file, where our own rights did not suffice.
    fn unlock_for(&self, path: &Path, owner: u32, inode: u64) -> io::Result<()> {
        let _ = (path, owner, inode);
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Somebody with more rights than ours, who does the few things that drops of other users need: the last three of [`Disk`].
/// May wait. It judges for itself what it is asked.
pub trait Hand: fmt::Debug + Send + Sync {
    /// See [`Disk::open_for`]; the file is made when it is not there and `create`.
    fn open(&self, path: &Path, owner: u32, create: bool) -> io::Result<File>;
    /// See [`Disk::lock_for`].
    fn lock(&self, path: &Path, owner: u32, line: &[u8]) -> io::Result<File>;
    /// See [`Disk::unlock_for`].
    fn unlock(&self, path: &Path, owner: u32, inode: u64) -> io::Result<()>;
}

/// The system's own, and the hand that helps where our rights end, if there is one.
#[derive(Clone, Debug, Default)]
pub struct RealDisk {
    /// See there.
    pub hand: Option<Arc<dyn Hand>>,
}

impl RealDisk {
    fn hand(&self) -> io::Result<&dyn Hand> {
        self.hand.as_deref().ok_or_else(|| io::ErrorKind::PermissionDenied.into())
    }
}

fn time(nanos: i64) -> SystemTime {
    let size = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - size } else { UNIX_EPOCH + size }
}

impl Disk for RealDisk {
    type Dir = File;
    type File = File;

    fn open_dir(&self, path: &Path) -> io::Result<File> {
        files::open_dir(path)
    }

    fn make_dirs(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn stat_dir(&self, dir: &File) -> io::Result<Stat> {
        files::stat(dir)
    }

    fn open(&self, dir: &File, name: &Path, how: How) -> io::Result<File> {
        files::open_at(dir, name, how)
    }

    fn look(&self, dir: &File, name: &Path) -> io::Result<Stat> {
        files::stat_at(dir, name)
    }

    fn stat(&self, file: &File) -> io::Result<Stat> {
        files::stat(file)
    }

    fn read(&self, file: &File, buffer: &mut [u8], offset: u64, reach: Reach) -> io::Result<usize> {
        if reach == Reach::Now {
            return files::read_now(file, buffer, offset);
        }
        loop {
            match file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn fill(&self, file: &File, from: u64, to: u64) -> io::Result<()> {
        // By pages: what is written in one go the kernel may keep in one piece, which later is dirty as a whole.
        let (zeros, mut at) = ([0; PAGE_BYTES as usize], from);
        while at < to {
            let next = to.min((at / PAGE_BYTES + 1) * PAGE_BYTES);
            file.write_all_at(&zeros[..(next - at) as usize], at)?;
            at = next;
        }
        Ok(())
    }

    fn append(&self, file: &File, bytes: &[u8]) -> io::Result<(u64, usize)> {
        loop {
            match files::append(file, bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok((_, 0)) if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
                result => return result,
            }
        }
    }

    fn give(&self, file: &File, uid: Option<u32>, dir: &File) -> io::Result<()> {
        files::give(file, uid, dir)
    }

    fn cut(&self, file: &File, size: u64) -> io::Result<()> {
        file.set_len(size)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn begin_sync(&self, file: &File) {
        files::begin_writing(file);
    }

    fn sync_dir(&self, dir: &File) -> io::Result<()> {
        dir.sync_all()
    }

    fn rename(&self, dir: &File, from: &Path, to: &Path) -> io::Result<()> {
        files::rename_at(dir, from, to)
    }

    fn carry(&self, from_dir: &File, from: &Path, to_dir: &File, to: &Path) -> io::Result<()> {
        files::carry_at(from_dir, from, to_dir, to)
    }

    fn names(&self, dir: &File, each: &mut dyn FnMut(OsString) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))? {
            if !each(entry?.file_name()) {
                break;
            }
        }
        Ok(())
    }

    fn link_across(&self, from_dir: &File, from: &Path, to_dir: &File, to: &Path) -> io::Result<()> {
        files::link_across(from_dir, from, to_dir, to)
    }

    fn move_to(&self, from: &File, name: &Path, to: &File) -> io::Result<()> {
        files::move_at(from, name, to)
    }

    fn free_bytes(&self, dir: &File) -> io::Result<u64> {
        files::free_bytes(dir)
    }

    fn remove(&self, dir: &File, name: &Path) -> io::Result<()> {
        files::remove_at(dir, name)
    }

    fn try_lock(&self, file: &File, kind: LockKind) -> io::Result<bool> {
        match kind {
            LockKind::Flock => match file.try_lock() {
                Ok(()) => Ok(true),
                Err(fs::TryLockError::WouldBlock) => Ok(false),
                Err(fs::TryLockError::Error(error)) => Err(error),
            },
            LockKind::Fcntl | LockKind::Dotlock => files::try_lock_ofd(file),
        }
    }

    fn unlock(&self, file: &File, kind: LockKind) -> io::Result<()> {
        match kind {
            LockKind::Flock => file.unlock(),
            LockKind::Fcntl | LockKind::Dotlock => files::unlock_ofd(file),
        }
    }

    fn set_times(&self, file: &File, atime: i64, mtime: i64) -> io::Result<()> {
        file.set_times(FileTimes::new().set_accessed(time(atime)).set_modified(time(mtime)))
    }

    fn now(&self) -> i64 {
        // A clock before 1970 or after 2262 makes every index doubtful, which is safe.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |past| i64::try_from(past.as_nanos()).unwrap_or(0))
    }

    fn random(&self) -> u64 {
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_i64(self.now());
        hasher.finish()
    }

    fn boot(&self) -> u64 {
        static BOOT: OnceLock<u64> = OnceLock::new();
        // Without a boot id every process is a boot of its own: indexes are checked more often, never less.
        *BOOT.get_or_init(|| {
            fs::read("/proc/sys/kernel/random/boot_id").map_or_else(|_| self.random(), |id| xxh3_64(&id))
        })
    }

    fn uid(&self) -> u32 {
        files::effective_uid()
    }

    fn holder(&self) -> Holder {
        static WORLD: OnceLock<String> = OnceLock::new();
        let world = WORLD.get_or_init(|| {
            let line =
                |path: &str| fs::read_to_string(path).unwrap_or_default().trim().replace(char::is_whitespace, "_");
            let host = line("/proc/sys/kernel/hostname");
            let (boot, space) = (line("/proc/sys/kernel/random/boot_id"), fs::read_link("/proc/self/ns/pid"));
            match space {
                Ok(space) if !host.is_empty() && !boot.is_empty() => format!("{host} {boot} {}", space.display()),
                // Who cannot tell where he is shares his world with nobody: his locks are judged by their age.
                _ => format!("unknown {:016x}", self.random()),
            }
        });
        // Read once: each dotlock of ours names it. A process that was forked off since has another number.
        static OURS: OnceLock<(u32, u64)> = OnceLock::new();
        let (pid, since) = (std::process::id(), |pid: u32| started(pid).unwrap_or(0));
        let (known, then) = *OURS.get_or_init(|| (pid, since(pid)));
        Holder { world: world.clone(), pid, started: if known == pid { then } else { since(pid) } }
    }

    fn is_alive(&self, holder: &Holder) -> bool {
        // A process that hides from us is still one.
        started(holder.pid).map_or_else(|| process::exists(holder.pid), |started| started == holder.started)
    }

    fn open_for(&self, path: &Path, owner: u32, how: How) -> io::Result<File> {
        self.hand()?.open(path, owner, how == How::Create)
    }

    fn lock_for(&self, path: &Path, owner: u32, line: &[u8]) -> io::Result<File> {
        self.hand()?.lock(path, owner, line)
    }

    fn unlock_for(&self, path: &Path, owner: u32, inode: u64) -> io::Result<()> {
        self.hand()?.unlock(path, owner, inode)
    }
}

/// When a process started, if it still runs.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold blanks and brackets; the 20th word after it is the time.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
