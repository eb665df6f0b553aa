//! The drop's own locks, which other programs know: taken in the order the settings give, given up in reverse, never waited
//! for. Whoever gets [`Refused::Locked`] holds none of them and comes back later.
//!
//! A dotlock `NAME.lock` tells in one line who holds it. Left behind, it is judged:
//!
//! | its line says                                         | stale when                                        |
//! |-------------------------------------------------------|---------------------------------------------------|
//! | this machine, this boot, this process namespace       | no such process, or one that started later; or as |
//! | anything else, or nothing (procmail, mutt, mail.local) | not written for five minutes                      |

use std::io;
use std::path::{Path, PathBuf};

use super::desk::{Desk, Refused, Remark, Remarks};
use super::disk::{Disk, Holder, How, LockKind, Reach};
use crate::text::fault::Fault;

/// A stranger's dotlock older than this is nobody's: qpopper and liblockfile wait as long.
const STALE_NANOS: i64 = 300 * 1_000_000_000;
/// A dotlock is written anew when it is older than this, far enough below the five minutes others wait.
const TOUCH_NANOS: i64 = 30 * 1_000_000_000;
/// How much of another's lock file is read to judge it.
const LINE_BYTES: usize = 512;

/// The locks on one drop, until dropped.
pub(super) struct DropLocks<'d, D: Disk> {
    desk: &'d Desk<D>,
    file: &'d D::File,
    /// In the order taken.
    held: Vec<Held<D>>,
    pub(super) remarks: Remarks,
}

enum Held<D: Disk> {
    Dotlock { file: D::File, inode: u64, touched: i64 },
    Kernel(LockKind),
}

impl<'d, D: Disk> DropLocks<'d, D> {
    /// Takes all locks of the place on `file`, or none.
    pub(super) fn take(desk: &'d Desk<D>, file: &'d D::File) -> Result<DropLocks<'d, D>, Refused> {
        let mut locks = DropLocks { desk, file, held: Vec::new(), remarks: Remarks::default() };
        for kind in desk.spot.locks.into_iter().flatten() {
            if kind == LockKind::Dotlock {
                match dotlock(desk)? {
                    Some(held) => locks.held.push(held),
                    None => locks.remarks.add(Remark::NoDotlock),
                }
            } else if desk.disk.try_lock(file, kind).map_err(desk.fault("locking"))? {
                locks.held.push(Held::Kernel(kind));
            } else {
                return Err(Refused::Locked);
            }
        }
        Ok(locks)
    }

    /// Shows that we still live; called between slices of long work.
    pub(super) fn touch(&mut self) {
        let disk = &self.desk.disk;
        for held in &mut self.held {
            if let Held::Dotlock { file, touched, .. } = held {
                let now = disk.now();
                if now - *touched >= TOUCH_NANOS {
                    // A failure shows as a lock that others find stale in five minutes; there is nothing better to do.
                    let _ = disk.set_times(file, now, now);
                    *touched = now;
                }
            }
        }
    }
}

impl<D: Disk> Drop for DropLocks<'_, D> {
    fn drop(&mut self) {
        let disk = &self.desk.disk;
        while let Some(held) = self.held.pop() {
            match held {
                Held::Kernel(kind) => drop(disk.unlock(self.file, kind)),
                Held::Dotlock { inode, .. } => {
                    let name = self.desk.with(".lock");
                    // Somebody may have found us stale and taken the lock for himself.
                    if disk.look(&self.desk.dir, &name).is_ok_and(|seen| seen.inode == inode)
                        && let Err(error) = disk.remove(&self.desk.dir, &name)
                        && denied(&error)
                        && let Some(owner) = self.desk.spot.owner
                    {
                        drop(disk.unlock_for(&self.desk.spot.drop, owner, inode));
                    }
                }
            }
        }
    }
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

/// `None` when the directory lets us make none.
fn dotlock<D: Disk>(desk: &Desk<D>) -> Result<Option<Held<D>>, Refused> {
    let disk = &desk.disk;
    let name = desk.with(".lock");
    let path: PathBuf = desk.spot.drop.with_file_name(&name);
    // Written under another name first: whoever finds the lock, even right after we were killed, can read whose it is.
    let new = desk.with(".lock.new");
    drop(disk.remove(&desk.dir, &new));
    let file = match disk.open(&desk.dir, &new, How::CreateNew) {
        Ok(file) => file,
        Err(error) => match error.kind() {
            io::ErrorKind::AlreadyExists => return Err(Refused::Locked),
            io::ErrorKind::PermissionDenied => return dotlock_for(desk, &path),
            io::ErrorKind::ReadOnlyFilesystem => return Ok(None),
            _ => return Err(Fault::new("making", &path, error).into()),
        },
    };
    // Unwritten (a full disk), it is judged by its age like anybody's.
    drop(disk.write(&file, line(&disk.holder()).as_bytes(), 0));
    let taken = take_name(desk, &new, &name);
    drop(disk.remove(&desk.dir, &new));
    let inode = disk.stat(&file).map_err(Fault::at("looking at", &path))?.inode;
    match taken? {
        true => Ok(Some(Held::Dotlock { file, inode, touched: disk.now() })),
        false => Err(Refused::Locked),
    }
}

/// The same by somebody who may, if there is one: the directory lets us make none.
fn dotlock_for<D: Disk>(desk: &Desk<D>, path: &Path) -> Result<Option<Held<D>>, Refused> {
    let disk = &desk.disk;
    let Some(owner) = desk.spot.owner else { return Ok(None) };
    for attempt in 0..2 {
        match disk.lock_for(&desk.spot.drop, owner, line(&disk.holder()).as_bytes()) {
            Ok(file) => {
                let inode = disk.stat(&file).map_err(Fault::at("looking at", path))?.inode;
                return Ok(Some(Held::Dotlock { file, inode, touched: disk.now() }));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if attempt > 0 || !remove_stale(desk)? {
                    break;
                }
            }
            Err(error) if denied(&error) => return Ok(None),
            Err(error) => return Err(Fault::new("making", path, error).into()),
        }
    }
    Err(Refused::Locked)
}

fn denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Gives our written lock its name, if nobody has it; once more after a stale one was taken away.
fn take_name<D: Disk>(desk: &Desk<D>, new: &Path, name: &Path) -> Result<bool, Refused> {
    for attempt in 0..2 {
        match desk.disk.link(&desk.dir, new, name) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if attempt > 0 || !remove_stale(desk)? {
                    return Ok(false);
                }
            }
            Err(error) => return Err(Fault::new("making", &desk.spot.drop.with_file_name(name), error).into()),
        }
    }
    Ok(false)
}

/// Takes the dotlock away if its holder is gone, and says whether it did.
fn remove_stale<D: Disk>(desk: &Desk<D>) -> Result<bool, Refused> {
    let disk = &desk.disk;
    let name = desk.with(".lock");
    let file = match disk.open(&desk.dir, &name, How::Write) {
        Ok(file) => file,
        Err(error) if denied(&error) => return Ok(remove_old(desk, &name)),
        Err(_) => return Ok(false),
    };
    let Ok(seen) = disk.stat(&file) else { return Ok(false) };
    if !seen.is_file() {
        return Ok(false);
    }
    let mut text = [0; LINE_BYTES];
    let read = disk.read(&file, &mut text, 0, Reach::Wait).unwrap_or(0);
    let dead =
        parse(&text[..read]).is_some_and(|holder| holder.world == disk.holder().world && !disk.is_alive(&holder));
    // One that lives writes to it every thirty seconds: also our own, left behind when it could not be removed.
    let stale = dead || disk.now() - seen.mtime >= STALE_NANOS;
    // Two of us may have judged the same lock: only one of them may remove it, and only it. Whoever comes second finds the
    // kernel's lock on the file taken, or another file under the name.
    if !stale
        || !matches!(disk.try_lock(&file, LockKind::Fcntl), Ok(true))
        || !disk.look(&desk.dir, &name).is_ok_and(|now| now.inode == seen.inode)
    {
        return Ok(false);
    }
    let away = desk.with(&format!(".lock.{:016x}", disk.random()));
    if let Err(error) = disk.rename(&desk.dir, &name, &away) {
        return Ok(denied(&error) && unlock_for(desk, seen.inode));
    }
    let ours = disk.look(&desk.dir, &away).is_ok_and(|moved| moved.inode == seen.inode);
    if !ours {
        // Another program replaced the lock between the last two looks: it gets its name back.
        drop(disk.link(&desk.dir, &away, &name));
    }
    drop(disk.remove(&desk.dir, &away));
    Ok(ours)
}

/// A lock that we may not even read is judged by its age, and taken away by somebody who may.
fn remove_old<D: Disk>(desk: &Desk<D>, name: &Path) -> bool {
    let seen = desk.disk.look(&desk.dir, name);
    seen.is_ok_and(|seen| seen.is_file() && desk.disk.now() - seen.mtime >= STALE_NANOS && unlock_for(desk, seen.inode))
}

fn unlock_for<D: Disk>(desk: &Desk<D>, inode: u64) -> bool {
    desk.spot.owner.is_some_and(|owner| desk.disk.unlock_for(&desk.spot.drop, owner, inode).is_ok())
}
