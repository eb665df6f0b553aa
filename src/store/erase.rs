//! A mailbox taken away for good, with all that is kept beside it: what is delivered later begins an empty one.
//!
//! | step                                               | a crash behind it leaves                                       |
//! |----------------------------------------------------|----------------------------------------------------------------|
//! | 1 session lock, the drop's own locks               | all as it was                                                  |
//! | 2 drop cut to nothing, synced                      | an empty drop: nothing can come back any more                  |
//! | 3 drop removed, unless mail came or we may not     | no drop; its deaths are buried by whoever scans the next one   |
//! | 4 index, copies and what was set aside removed     | the same                                                       |
//! | 5 bin removed                                      | nothing                                                        |
//!
//! Erasing again completes what was interrupted. Each step is on disk before the next begins.

use std::ffi::{OsStr, OsString};
use std::io;

use super::desk::{Bin, Desk, Place, Refused, there};
use super::disk::Disk;
use super::locks::DropLocks;
use super::maildrop::ATTEMPTS;
use super::quota::MARK;
use crate::text::fault::Fault;

/// What was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Erased {
    /// Bytes the drop had, dead ones too; 0: it was empty or not there.
    pub bytes: u64,
}

/// Takes the mailbox at `place` away; none there is as good. [`Refused::InUse`] while a session or a compaction has it,
/// [`Refused::Locked`] while another program has the drop; after any other refusal it may be erased in part. Waits for the disk:
/// only in a job.
pub fn erase_on<D: Disk>(disk: &D, place: &Place) -> Result<Erased, Refused> {
    for _ in 0..ATTEMPTS {
        let Some(desk) = Desk::at(disk, place, true)? else { return Ok(Erased::default()) };
        if let Some(erased) = attempt(&desk)? {
            return Ok(erased);
        }
    }
    Err(Refused::Locked)
}

/// `None`: something was replaced under our hands, begin again.
fn attempt<D: Disk>(desk: &Desk<D>) -> Result<Option<Erased>, Refused> {
    let Bin::Held(bin) = desk.lock_or_make_bin()? else { return Ok(None) };
    let drop = desk.open_drop()?.map(|(drop, _)| drop);
    let locks = DropLocks::take_on(desk, drop.as_ref())?;
    let bytes = match &drop {
        Some(drop) if !desk.is_named(drop)? => return Ok(None),
        Some(drop) => empty(desk, drop)?,
        None => 0,
    };
    for ending in [".idx", ".copy", ".copy.new", ".bin.new", MARK] {
        desk.remove_own(ending)?;
    }
    let mut aside = Vec::new();
    let mut each = |name: OsString| {
        if is_set_aside(desk, &name) {
            aside.push(name);
        }
        true
    };
    let listed = desk.disk.names(&desk.bins, &mut each);
    listed.map_err(Fault::at("listing the directory of", &desk.own_path(".bin")))?;
    for name in aside {
        let removed = there(desk.disk.remove(&desk.bins, name.as_ref()));
        removed.map_err(Fault::at("removing", &desk.own_path(".bin").with_file_name(&name)))?;
    }
    desk.sync_bins()?;
    desk.remove_own(".bin")?;
    desk.sync_bins()?;
    std::mem::drop((locks, bin));
    Ok(Some(Erased { bytes }))
}

/// Steps 2 and 3, and how many bytes it had.
fn empty<D: Disk>(desk: &Desk<D>, drop: &D::File) -> Result<u64, Fault> {
    let disk = &desk.disk;
    let bytes = disk.stat(drop).map_err(desk.fault("looking at"))?.size;
    disk.cut(drop, 0).map_err(desk.fault("cutting"))?;
    disk.sync(drop).map_err(desk.fault("syncing"))?;
    // What a program without locks appended since is the new mailbox.
    if disk.stat(drop).map_err(desk.fault("looking at"))?.size > 0 {
        return Ok(bytes);
    }
    match there(disk.remove(&desk.dir, desk.name())) {
        Ok(_) => disk.sync_dir(&desk.dir).map_err(desk.fault("syncing the directory of"))?,
        // The directory lets us take nothing away; an empty drop is an empty mailbox too.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(desk.fault("removing")(error)),
    }
    Ok(bytes)
}

/// Whether a file was once given this name by [`Desk::set_aside`].
fn is_set_aside<D: Disk>(desk: &Desk<D>, name: &OsStr) -> bool {
    [".bin", ".copy"].iter().any(|ending| {
        let own = desk.own(&format!("{ending}.aside-"));
        let number = name.as_encoded_bytes().strip_prefix(own.as_os_str().as_encoded_bytes());
        number.is_some_and(|number| number.len() == 16 && number.iter().all(u8::is_ascii_hexdigit))
    })
}
