//! A mailbox given to another name, in the same directory or another of the same volume: the drop is moved, its bin goes along,
//! UIDs stay and the dead stay dead.
//!
//! | step                                                    | a crash behind it leaves                                  |
//! |---------------------------------------------------------|-----------------------------------------------------------|
//! | 1 both session locks, both drops' own locks; refreshed  | the old mailbox                                           |
//! | 2 the ledger written at the new place, in the new name  | the old mailbox; its ledger is written once more          |
//! | 3 the drop moved                                        | the new mailbox, with the old bin left behind             |
//! | 4 the old index and bin removed                         | the new mailbox                                           |
//!
//! The file keeps its owner, and the directories must let us move it: no hand helps there.
//!
//! Whoever crashes renames again: a ledger at the new place with the number of the old one says that both are one mailbox. Each
//! step is on disk before the next begins; the drop is never where its ledger is not. The new index is the next session's to make.

use std::io;

use super::desk::{Bin, Desk, Place, Refused, Remarks, refuse, there};
use super::disk::{Disk, How};
use super::ledger::Ledger;
use super::locks::DropLocks;
use super::maildrop::ATTEMPTS;
use super::refresh::{self, Stale};
use crate::text::fault::Fault;

/// What was renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Renamed {
    /// Bytes of the drop, dead ones too; 0: it was empty, not there, or renamed before.
    pub bytes: u64,
}

/// Gives the mailbox at `from` to `to`. Refuses when there is mail already, and across volumes; [`Refused::InUse`] while a
/// session or a compaction has one of them, [`Refused::Locked`] while another program has a drop. Waits for the disk: only in a
/// job.
pub fn rename_user_on<D: Disk>(disk: &D, from: &Place, to: &Place) -> Result<Renamed, Refused> {
    if from.drop == to.drop {
        return Err(refuse("renaming", &to.drop, "it has that name"));
    }
    if let (Some(old), Some(new)) = (from.owner, to.owner)
        && old != new
    {
        let why = format!("it would be uid {old}'s file, and must be uid {new}'s: give the new user the old one's uid");
        return Err(refuse("renaming", &to.drop, &why));
    }
    for _ in 0..ATTEMPTS {
        let Some(old) = Desk::of(disk, from)? else { return Ok(Renamed::default()) };
        let Some(new) = Desk::at(disk, to, true)? else {
            return Err(refuse("renaming", &to.drop, "its directory is not there: make it first"));
        };
        if let Some(renamed) = attempt(&old, &new)? {
            return Ok(renamed);
        }
    }
    Err(Refused::Locked)
}

/// `None`: something was replaced under our hands, begin again.
fn attempt<D: Disk>(old: &Desk<D>, new: &Desk<D>) -> Result<Option<Renamed>, Refused> {
    let mut old_bin = old.lock_bin(How::Write)?;
    if matches!(old_bin, Bin::Absent) {
        if old.open_drop()?.is_none() {
            return Ok(Some(Renamed::default()));
        }
        old_bin = old.lock_bin(How::Create)?;
    }
    let (Bin::Held(old_bin), Bin::Held(new_bin)) = (old_bin, new.lock_or_make_bin()?) else { return Ok(None) };
    let old_drop = old.open_drop()?.map(|(drop, _)| drop);
    let new_drop = new.open_drop()?.map(|(drop, _)| drop);
    let mut old_locks = DropLocks::take_on(old, old_drop.as_ref())?;
    let new_locks = DropLocks::take_on(new, new_drop.as_ref())?;
    let mut renewed = None;
    if let Some(drop) = &old_drop {
        // Also completes a compaction, whose copy knows the old name only.
        let Some(fresh) = settle(old, refresh::refresh_locked(old, drop, &old_bin, &mut old_locks))? else {
            return Ok(None);
        };
        renewed = fresh.bin;
    }
    let old_bin = renewed.unwrap_or(old_bin);
    let Some(mut ledger) = settle(old, refresh::load(old, &old_bin, &mut Remarks::default()))? else { return Ok(None) };
    let Some(theirs) = settle(new, refresh::load(new, &new_bin, &mut Remarks::default()))? else { return Ok(None) };
    if old_drop.is_none() && (ledger.id == 0 || ledger.id == theirs.id) {
        // Nothing is there, or we were here before and did not come to the end.
        clean(old)?;
        return Ok(Some(Renamed::default()));
    }
    if has_mail(new, new_drop.as_ref())? {
        return Err(refuse("renaming", &new.spot.drop, "there is mail already"));
    }
    if old.dev()? != new.dev()? {
        return Err(elsewhere(new));
    }
    if ledger.id == 0 {
        // By its number the ledger is known again after a crash.
        refresh::append(old, &old_bin, &mut ledger, &[])?;
    }
    let heir = bequeath(new, &ledger)?;
    let mut bytes = 0;
    if let Some(drop) = &old_drop {
        bytes = old.disk.stat(drop).map_err(old.fault("looking at"))?.size;
        if !carry(old, new, new_drop.as_ref())? {
            return Ok(None);
        }
    }
    clean(old)?;
    std::mem::drop((heir, old_locks, new_locks));
    Ok(Some(Renamed { bytes }))
}

/// What came of a look at a mailbox; `None`: begin again.
fn settle<D: Disk, T>(desk: &Desk<D>, found: Result<T, Stale>) -> Result<Option<T>, Refused> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Stale::Replaced) => Ok(None),
        Err(Stale::Alien) => {
            desk.set_aside(".bin")?;
            Ok(None)
        }
        Err(Stale::Refused(refused)) => Err(refused),
    }
}

fn has_mail<D: Disk>(desk: &Desk<D>, drop: Option<&D::File>) -> Result<bool, Refused> {
    let Some(drop) = drop else { return Ok(false) };
    Ok(desk.disk.stat(drop).map_err(desk.fault("looking at"))?.size > 0)
}

fn elsewhere<D: Disk>(desk: &Desk<D>) -> Refused {
    refuse("renaming", &desk.spot.drop, "lies on another volume")
}

/// Step 2: what comes back holds the session lock at the new place.
fn bequeath<D: Disk>(new: &Desk<D>, ledger: &Ledger) -> Result<D::File, Refused> {
    let bytes = ledger.renamed(new.name().as_os_str().as_encoded_bytes());
    let heir = refresh::write_bin(new, &bytes)?;
    refresh::name_bin(new)?;
    // Of whoever had the name before.
    new.remove_own(".idx")?;
    if new.has_own(".copy")? {
        new.set_aside(".copy")?;
    }
    Ok(heir)
}

/// Step 3; `false`: somebody delivered to the new name meanwhile.
fn carry<D: Disk>(old: &Desk<D>, new: &Desk<D>, new_drop: Option<&D::File>) -> Result<bool, Refused> {
    let disk = &old.disk;
    if let Some(drop) = new_drop {
        if has_mail(new, Some(drop))? || !new.is_named(drop)? {
            return Ok(false);
        }
        match there(disk.remove(&new.dir, new.name())) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(may_not(new)?),
            removed => removed.map_err(new.fault("removing"))?,
        };
    }
    match disk.carry(&old.dir, old.name(), &new.dir, new.name()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            new.remove_own(".bin")?;
            return Err(elsewhere(new));
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(may_not(new)?),
        Err(error) => return Err(old.fault("renaming")(error).into()),
    }
    disk.sync_dir(&new.dir).map_err(new.fault("syncing the directory of"))?;
    disk.sync_dir(&old.dir).map_err(old.fault("syncing the directory of"))?;
    Ok(true)
}

/// Why a drop cannot be moved where we may not write; there is no ledger for it at the new place then.
fn may_not<D: Disk>(new: &Desk<D>) -> Result<Refused, Fault> {
    new.remove_own(".bin")?;
    let why = "the server's user may rename nothing here: let it write to the directory, as the group mail may to most \
               systems' /var/mail";
    Ok(refuse("renaming to", &new.spot.drop, why))
}

/// Step 4.
fn clean<D: Disk>(old: &Desk<D>) -> Result<(), Fault> {
    for ending in [".idx", ".copy.new", ".bin.new"] {
        old.remove_own(ending)?;
    }
    old.remove_own(".bin")?;
    old.sync_bins()
}
