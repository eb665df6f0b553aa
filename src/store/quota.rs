//! How much live mail a drop has, without its session lock: for bounds of mailboxes.
//!
//! | what is found                                        | what counts as live                                      |
//! |------------------------------------------------------|----------------------------------------------------------|
//! | no drop                                              | nothing                                                  |
//! | no index, or one that cannot be believed             | all of the drop                                          |
//! | an index of this very file                           | what it has, without what the ledger has buried since, and what came behind it |
//!
//! So it is never less than the truth, but for mail that others took out of the middle; and more only until the next login brings the
//! index up to date. Bytes are those of the file, From_ lines with them.
//!
//! Who was warned that his mailbox fills has a mark beside his bin, `.NAME.warned`, an empty file. It goes when there is room
//! again, so that the next time he is warned anew. Whoever makes it is the one who warns.

use std::io;

use super::desk::{Desk, Place, Refused, there};
use super::disk::{Disk, How, Reach};
use super::index::{self, Index};
use super::ledger::{self, Ledger};
use crate::text::fault::Fault;

/// The mark of who was warned.
pub(super) const MARK: &str = ".warned";

/// Bytes that a mailbox of `limit` bytes has room for; `None`: it has more than that already. Where there is room for `most` it
/// may say less than there is, but never less than that. Waits for the disk: only in a job.
pub fn room<D: Disk>(disk: &D, place: &Place, limit: u64, most: u64) -> Result<Option<u64>, Refused> {
    let Some(desk) = Desk::at(disk, place, false)? else { return Ok(Some(limit)) };
    let size = size(&desk)?;
    // Most drops are far below: their index is not read.
    let far = limit.checked_sub(size).filter(|room| *room >= most);
    Ok(match far {
        Some(room) => Some(room),
        None => limit.checked_sub(live_bytes(&desk, size)?),
    })
}

/// Mail was delivered: whether its user is to be warned now, because it fills `percent` of `limit` or more, and he was not.
/// Afterwards he was.
pub fn newly_passed<D: Disk>(disk: &D, place: &Place, limit: u64, percent: u8) -> Result<bool, Refused> {
    if limit == 0 || percent == 0 {
        return Ok(false);
    }
    let Some(desk) = Desk::at(disk, place, true)? else { return Ok(false) };
    let passed = |bytes: u64| u128::from(bytes) * 100 >= u128::from(limit) * u128::from(percent);
    let size = size(&desk)?;
    if !(passed(size) && passed(live_bytes(&desk, size)?)) {
        if desk.has_own(MARK)? {
            desk.remove_own(MARK)?;
        }
        return Ok(false);
    }
    match disk.open(&desk.bins, &desk.own(MARK), How::CreateNew) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Fault::new("making", &desk.own_path(MARK), error).into()),
    }
}

fn size<D: Disk>(desk: &Desk<D>) -> Result<u64, Fault> {
    let seen = there(desk.disk.look(&desk.dir, desk.name())).map_err(desk.fault("looking at"))?;
    Ok(seen.filter(super::disk::Stat::is_file).map_or(0, |seen| seen.size))
}

/// Bytes of live mail in a drop that has `size` bytes.
fn live_bytes<D: Disk>(desk: &Desk<D>, size: u64) -> Result<u64, Fault> {
    let seen = there(desk.disk.look(&desk.dir, desk.name())).map_err(desk.fault("looking at"))?;
    let Some((file, header)) = index::open(desk) else { return Ok(size) };
    let same = seen.is_some_and(|seen| (seen.dev, seen.inode) == (header.drop.dev, header.drop.inode));
    if !same || size < header.drop.size || header.live_bytes > header.drop.size {
        return Ok(size);
    }
    let came = size - header.drop.size;
    let dead = buried_since(desk, &header, Index::File(file)).unwrap_or(0);
    Ok(came + header.live_bytes.saturating_sub(dead))
}

/// Bytes of messages in an index that are dead by a younger word of the ledger; `None` when that cannot be told.
fn buried_since<D: Disk>(desk: &Desk<D>, header: &index::Header, index: Index<D>) -> Option<u64> {
    let (bin, seen) = desk.open_own(".bin", How::Write).ok()??;
    if (seen.inode, seen.size) == (header.bin_inode, header.bin_bytes) {
        return Some(0);
    }
    let mut bytes = vec![0; ledger::bounded(seen.size).ok()?];
    desk.read_full(&bin, &mut bytes, 0).ok()?;
    let ledger = Ledger::parse(&bytes);
    if ledger.id != header.bin_id && header.bin_id != 0 {
        return None;
    }
    let mut dead = 0;
    let read = index.read(&desk.disk, header.generation, 0..header.count, Reach::Wait, |entry| {
        let extent = &entry.extent;
        if ledger.deaths.get(&entry.uid()).is_some_and(|(check, _)| *check == extent.from_check) {
            dead += extent.end() - extent.offset;
        }
    });
    // It is being written anew just now: all of it is live, until it is asked again.
    read.ok().map(|()| dead)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::store::disk::RealDisk;
    use crate::store::maildrop::Maildrop;

    fn message(text: &str, bytes: usize) -> String {
        let head = format!("From a@b Thu Jan  1 00:00:00 1970\nSubject: {text}\n\n");
        let body = "x".repeat(bytes - head.len() - 2);
        format!("{head}{body}\n\n")
    }

    fn place(folder: &Path) -> Place {
        fs::create_dir_all(folder.join("work")).unwrap();
        Place {
            full: crate::text::number::Fraction::parse("0").unwrap(),
            ..Place::new(folder.join("ann"), folder.join("work"))
        }
    }

    #[test]
    fn what_is_deleted_does_not_count_and_what_comes_does() {
        let folder = tempfile::tempdir().unwrap();
        let (place, disk) = (place(folder.path()), RealDisk::default());
        let over = |limit, more| room(&disk, &place, limit, more).unwrap().is_none_or(|room| more > room);
        assert!(!over(1000, 1000) && over(1000, 1001));
        fs::write(&place.drop, [message("one", 400), message("two", 400)].concat()).unwrap();
        assert!(!over(1000, 200) && over(1000, 201), "without an index all of it counts");
        let mut maildrop = Maildrop::open(&place).unwrap();
        assert!(!over(1000, 200) && over(1000, 201));
        maildrop.delete(1).unwrap();
        assert!(over(1000, 201), "only marked");
        maildrop.commit().unwrap();
        drop(maildrop);
        assert_eq!(fs::metadata(&place.drop).unwrap().len(), 800, "its bytes are there still");
        assert!(!over(1000, 600) && over(1000, 601));
        fs::write(&place.drop, [fs::read(&place.drop).unwrap(), message("three", 300).into()].concat()).unwrap();
        assert!(!over(1000, 300) && over(1000, 301), "what came since counts");
        drop(Maildrop::open(&place).unwrap());
        assert!(!over(1000, 300) && over(1000, 301));
        assert_eq!(room(&disk, &place, 1000, u64::MAX).unwrap(), Some(300), "all that there is");
        assert_eq!(room(&disk, &place, 10_000, 1000).unwrap(), Some(8900), "or less, when it is enough");
        assert_eq!(room(&disk, &place, 699, 1).unwrap(), None);
        // Somebody put another file there: what the index says is not of it.
        fs::remove_file(&place.drop).unwrap();
        fs::write(&place.drop, message("other", 900)).unwrap();
        assert!(over(1000, 101));
    }

    #[test]
    fn who_passes_the_mark_is_warned_once_until_he_is_below_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let (place, disk) = (place(folder.path()), RealDisk::default());
        let passed = || newly_passed(&disk, &place, 1000, 90).unwrap();
        assert!(!passed());
        fs::write(&place.drop, message("one", 899)).unwrap();
        assert!(!passed());
        fs::write(&place.drop, message("one", 900)).unwrap();
        assert!(passed() && !passed());
        fs::write(&place.drop, message("one", 100)).unwrap();
        assert!(!passed());
        fs::write(&place.drop, message("one", 950)).unwrap();
        assert!(passed());
        assert!(!newly_passed(&disk, &place, 1000, 0).unwrap() && !newly_passed(&disk, &place, 0, 90).unwrap());
        crate::store::maildrop::erase_on(&disk, &place).unwrap();
        assert!(fs::read_dir(folder.path()).unwrap().all(|entry| entry.unwrap().file_name() == "work"));
    }
}
