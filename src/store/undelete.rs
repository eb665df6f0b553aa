//! The dead called back: what QUIT deleted and no compaction took out of the drop is mail again, under the UIDs it had.
//!
//! Only the operator's own act does this, and it is one record in the ledger: after a crash all are alive or all are dead. An
//! index that does not know that record is not believed. What was compacted stays gone; so does what an interrupted compaction
//! was about to take out, because its bytes may be overwritten already.

use super::desk::{Bin, Desk, Place, Refused, Remarks};
use super::disk::{Disk, How};
use super::ledger::Record;
use super::locks::DropLocks;
use super::maildrop::ATTEMPTS;
use super::refresh::{self, Stale};

/// What was called back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Undeleted {
    /// Messages.
    pub messages: u32,
    /// Their size on the wire.
    pub octets: u64,
}

/// Calls back all deleted messages of the maildrop at `place` whose bytes are still in the drop. [`Refused::InUse`] while a
/// session or a compaction has it, [`Refused::Locked`] while another program has the drop. Waits for the disk, and reads all
/// of the drop: only in a job.
pub fn undelete_on<D: Disk>(disk: &D, place: &Place) -> Result<Undeleted, Refused> {
    for _ in 0..ATTEMPTS {
        let Some(desk) = Desk::of(disk, place)? else { return Ok(Undeleted::default()) };
        let bin = match desk.lock_bin(How::Write)? {
            Bin::Held(bin) => bin,
            Bin::Absent => return Ok(Undeleted::default()),
            Bin::Moved | Bin::Replaced => continue,
        };
        let Some((drop, _)) = desk.open_drop()? else { return Ok(Undeleted::default()) };
        let mut locks = DropLocks::take(&desk, &drop)?;
        match revive(&desk, &drop, &bin, &mut locks) {
            Ok(undeleted) => return Ok(undeleted),
            Err(Stale::Replaced) => {}
            // It says nothing about this drop; the next session sets it aside.
            Err(Stale::Alien) => return Ok(Undeleted::default()),
            Err(Stale::Refused(refused)) => return Err(refused),
        }
    }
    Err(Refused::Locked)
}

fn revive<'d, D: Disk>(
    desk: &'d Desk<D>,
    drop: &D::File,
    bin: &D::File,
    locks: &mut DropLocks<'d, D>,
) -> Result<Undeleted, Stale> {
    let fresh = refresh::refresh_locked(desk, drop, bin, locks)?;
    let bin = fresh.bin.as_ref().unwrap_or(bin);
    let mut ledger = refresh::load(desk, bin, &mut Remarks::default())?;
    if ledger.deaths.is_empty() {
        return Ok(Undeleted::default());
    }
    let (uids, octets) = refresh::dead_in(desk, drop, fresh.header.drop.size, &ledger, locks)?;
    if uids.is_empty() {
        return Ok(Undeleted::default());
    }
    let messages = uids.len() as u32;
    refresh::append(desk, bin, &mut ledger, &[Record::Revived(uids)])?;
    // They are alive now; an index that cannot be written is the next session's trouble.
    std::mem::drop(refresh::refresh_locked(desk, drop, bin, locks));
    Ok(Undeleted { messages, octets })
}
