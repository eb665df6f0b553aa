//! A maildrop looked at and put in order without the server: what `dmail repair` does.
//!
//! | what is found                                       | what is done                                                         |
//! |-----------------------------------------------------|----------------------------------------------------------------------|
//! | temporary files of somebody who was killed          | removed                                                              |
//! | a stale dotlock                                     | removed                                                              |
//! | the bin at the other place of `hash_bindir`         | moved here                                                           |
//! | the ledger of another drop                          | set aside; one of its own begins                                     |
//! | a ledger with a torn tail                           | cut behind its last whole record                                     |
//! | a ledger with damage inside                         | copied aside, and written anew with all that can be read             |
//! | an interrupted compaction                           | completed; where others changed the drop since, its copy is set aside |
//! | an index that is absent, damaged, old, or wrong     | written anew; the whole drop is read to know                         |
//!
//! All of it under the session lock and the drop's own locks: a drop that somebody has is [`Refused`]. Looking only, nothing is
//! written and no dotlock is made. The report says what is there and what was done, a line each, and nothing that was not.

use super::compaction;
use super::desk::{Desk, Place, Refused, Remark, Remarks};
use super::disk::{Disk, How, LockKind, Reach};
use super::index::{self, Header, Index};
use super::ledger::{self, Ledger};
use super::locks::{self, DropLocks, Standing};
use super::refresh::{self, Stale, Survey};
use crate::text::fault::Fault;

/// How often we begin again because something was moved, set aside or replaced.
const ATTEMPTS: u32 = 8;

/// What is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Only look.
    pub look_only: bool,
    /// Take dead bytes out of the drop.
    pub compact: bool,
}

/// What was found and done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// A sentence each, in the order things happened.
    pub lines: Vec<String>,
    /// Nothing is left to do, for us or for the operator.
    pub in_order: bool,
}

impl Report {
    fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Something that stays to be done.
    fn leave(&mut self, line: impl Into<String>) {
        self.say(line);
        self.in_order = false;
    }
}

/// Puts the maildrop at `place` in order, or looks. Refuses what a session or another program has.
pub fn repair_on<D: Disk>(disk: &D, place: &Place, wish: Wish) -> Result<Report, Refused> {
    let mut report = Report { lines: Vec::new(), in_order: true };
    for _ in 0..ATTEMPTS {
        let make = !wish.look_only && Desk::has_mail(disk, place)?;
        let Some(mut desk) = Desk::at(disk, place, make)? else {
            report.say(match Desk::has_mail(disk, place)? {
                true => "there is mail, and no bin yet: nobody has opened it",
                false => "there is no mail, and no bin: nothing to do",
            });
            return Ok(report);
        };
        let dotlocks = place.locks.contains(&LockKind::Dotlock);
        if wish.look_only {
            desk.spot.locks.iter_mut().for_each(|kind| *kind = kind.filter(|kind| *kind != LockKind::Dotlock));
        }
        if attempt(&desk, wish, dotlocks, &mut report)? {
            return Ok(report);
        }
    }
    Err(Refused::Locked)
}

/// `false`: something was replaced, begin again.
fn attempt<D: Disk>(desk: &Desk<D>, wish: Wish, dotlocks: bool, report: &mut Report) -> Result<bool, Refused> {
    let Some(bin) = hold_bin(desk, wish, report)? else { return Ok(false) };
    let Held::Bin(mut bin) = bin else { return Ok(true) };
    leftovers(desk, wish, report)?;
    let Some((drop, _)) = desk.open_drop()? else {
        report.say("there is no drop file: an empty mailbox");
        return Ok(true);
    };
    match locks::standing(desk) {
        _ if !dotlocks => {}
        Standing::Free => {}
        Standing::Held => return Err(Refused::Locked),
        Standing::Stale(..) if wish.look_only => report.leave("a stale dotlock lies beside it"),
        Standing::Stale(..) => report.say("a stale dotlock was removed"),
    }
    let mut locks = DropLocks::take(desk, &drop)?;
    let bin_file = bin.as_ref();
    let (ledger, size) = match bin_file {
        Some(file) => read_ledger(desk, file)?,
        None => (Ledger::default(), 0),
    };
    let name = desk.name().as_os_str().as_encoded_bytes();
    if ledger.name.as_deref().is_some_and(|of| of != name) {
        if wish.look_only {
            report.leave("its ledger is another drop's: it would be set aside");
            return Ok(true);
        }
        desk.set_aside(".bin")?;
        report.say("its ledger was another drop's and was set aside as a file .aside- beside it");
        return Ok(false);
    }
    let copied = desk.has_own(".copy")?;
    say_ledger(&ledger, size, wish, report);
    if wish.look_only {
        say_index(desk, report)?;
        if copied {
            report.leave("a compaction was interrupted: what is in the drop is not counted before it is completed");
        } else {
            say_survey(&refresh::survey(desk, &drop, &ledger, &mut locks)?, report);
        }
        return Ok(true);
    }
    let Some(file) = bin.take() else { return Ok(false) };
    put_in_order(desk, &drop, file, &mut locks, ledger.damaged, wish, report).or_else(|stale| match stale {
        Stale::Replaced => Ok(false),
        Stale::Refused(refused) => Err(refused),
        Stale::Alien => {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, "the ledger became another drop's");
            Err(Fault::new("repairing", &desk.own_path(".bin"), error).into())
        }
    })
}

enum Held<D: Disk> {
    /// Locked for us; `None`: there is none, and we only look.
    Bin(Option<D::File>),
    /// There is nothing to repair.
    Nothing,
}

/// The session lock.
fn hold_bin<D: Disk>(desk: &Desk<D>, wish: Wish, report: &mut Report) -> Result<Option<Held<D>>, Refused> {
    let disk = &desk.disk;
    let found = match desk.open_own(".bin", How::Write)? {
        Some(found) => Some(found),
        None => {
            if wish.look_only && desk.has_other()? {
                report.leave("its bin lies where the other value of hash_bindir puts it: it would be moved");
                return Ok(Some(Held::Nothing));
            }
            if !wish.look_only && desk.take_over()? {
                report.say("its bin lay where the other value of hash_bindir puts it, and was moved");
                return Ok(None);
            }
            if desk.open_drop()?.is_none_or(|(_, seen)| seen.size == 0) && !desk.has_own(".copy")? {
                report.say("there is no mail, and no bin: nothing to do");
                leftovers(desk, wish, report)?;
                return Ok(Some(Held::Nothing));
            }
            if wish.look_only {
                return Ok(Some(Held::Bin(None)));
            }
            desk.open_own(".bin", How::Create)?
        }
    };
    let Some((bin, seen)) = found else { return Ok(None) };
    if !disk.try_lock(&bin, LockKind::Fcntl).map_err(Fault::at("locking", &desk.own_path(".bin")))? {
        return Err(Refused::InUse);
    }
    let named = disk.look(&desk.bins, &desk.own(".bin"));
    let ours = named.is_ok_and(|named| (named.dev, named.inode) == (seen.dev, seen.inode));
    Ok(ours.then_some(Held::Bin(Some(bin))))
}

/// What somebody who was killed left behind. Under the session lock nobody else writes a `.new`.
fn leftovers<D: Disk>(desk: &Desk<D>, wish: Wish, report: &mut Report) -> Result<(), Refused> {
    for ending in [".copy.new", ".bin.new"] {
        if !desk.has_own(ending)? {
            continue;
        }
        if wish.look_only {
            report.leave(format!("a temporary file was left behind: {}", desk.own_path(ending).display()));
        } else {
            desk.remove_own(ending)?;
            report.say(format!("removed a temporary file: {}", desk.own_path(ending).display()));
        }
    }
    if wish.look_only {
        for path in locks::left_behind(desk)? {
            report.leave(format!("a temporary file of a lock may be left behind: {}", path.display()));
        }
    } else {
        for path in locks::sweep(desk)? {
            report.say(format!("removed a temporary file of a lock: {}", path.display()));
        }
    }
    Ok(())
}

fn read_ledger<D: Disk>(desk: &Desk<D>, bin: &D::File) -> Result<(Ledger, u64), Fault> {
    let path = desk.own_path(".bin");
    let size = desk.disk.stat(bin).map_err(Fault::at("looking at", &path))?.size;
    let mut bytes = vec![0; ledger::bounded(size).map_err(Fault::at("reading", &path))?];
    desk.read_full(bin, &mut bytes, 0).map_err(Fault::at("reading", &path))?;
    Ok((Ledger::parse(&bytes), size))
}

fn say_ledger(ledger: &Ledger, size: u64, wish: Wish, report: &mut Report) {
    if ledger.id == 0 && size == 0 {
        report.say("the ledger is empty: no deletion is waiting");
    } else {
        report.say(format!("the ledger names {} deleted messages whose bytes may be in the drop", ledger.deaths.len()));
    }
    let torn = size.saturating_sub(ledger.end);
    match (torn > 0, wish.look_only) {
        (false, _) => {}
        (true, true) => report.leave(format!("the ledger's last {torn} bytes are no record: they would be cut off")),
        (true, false) => report.say(format!("the ledger's last {torn} bytes were no record and are cut off")),
    }
    if ledger.damaged && wish.look_only {
        report.leave("the ledger has damage inside: what it said there is lost, and deleted mail may come back");
    }
}

/// How the index is.
enum State {
    Absent,
    Damaged,
    Good(Box<Header>),
}

fn state<D: Disk>(desk: &Desk<D>) -> Result<State, Fault> {
    if !desk.has_own(".idx")? {
        return Ok(State::Absent);
    }
    let Some((file, header)) = index::open(desk) else { return Ok(State::Damaged) };
    let whole = Index::<D>::File(file).read(&desk.disk, header.generation, 0..header.count, Reach::Wait, |_| ());
    Ok(if whole.is_ok() { State::Good(Box::new(header)) } else { State::Damaged })
}

fn say_index<D: Disk>(desk: &Desk<D>, report: &mut Report) -> Result<(), Refused> {
    match state(desk)? {
        State::Absent => report.leave("there is no index: it would be written"),
        State::Damaged => report.leave("the index is damaged: it would be written anew"),
        State::Good(header) => report.say(format!("the index is whole, messages: {}", header.count)),
    }
    Ok(())
}

fn say_survey(survey: &Survey, report: &mut Report) {
    let Survey { live, live_bytes, dead, dead_bytes, preamble_bytes } = survey;
    report.say(format!(
        "messages: {live} live ({live_bytes} bytes), {dead} dead ({dead_bytes} bytes, which compaction would take out)"
    ));
    if *preamble_bytes > 0 {
        report.say(format!("{preamble_bytes} bytes stand before the first From_ line and are shown to nobody"));
    }
}

/// Everything that writes, under all locks.
fn put_in_order<'d, D: Disk>(
    desk: &'d Desk<D>,
    drop: &D::File,
    mut bin: D::File,
    locks: &mut DropLocks<'d, D>,
    damaged: bool,
    wish: Wish,
    report: &mut Report,
) -> Result<bool, Stale> {
    let before = state(desk)?;
    if matches!(before, State::Damaged) {
        desk.remove_own(".idx")?;
    }
    let mut fresh = refresh::refresh_locked(desk, drop, &bin, locks)?;
    // A long ledger was perhaps written anew: from here on the new one counts.
    let long = fresh.bin.take().map(|renewed| std::mem::replace(&mut bin, renewed));
    let remarks = fresh.remarks.list();
    for remark in &remarks {
        match remark {
            Remark::Recovered => report.say("an interrupted compaction was completed"),
            Remark::CopySetAside => report.leave(
                "an interrupted compaction could not be completed, because others changed the drop since; what it would \
                 have written is kept in a file .copy.aside- beside the bin: compare it with the drop",
            ),
            Remark::NoDotlock => report.say("no dotlock can be made beside the drop; the other locks were held"),
            Remark::NotAnMbox => report.leave("the drop has bytes and no From_ line: is it an mbox file?"),
            _ => {}
        }
    }
    let mut ledger = refresh::load(desk, &bin, &mut Remarks::default())?;
    if damaged {
        report.say("the ledger has damage inside: what it said there is lost, and deleted mail may have come back");
        if let Some(anew) = rewrite(desk, long.as_ref().unwrap_or(&bin), &ledger)? {
            bin = anew;
            report.say("what could be read of it was written anew, and the damaged one is kept in a file .bin.aside- beside it");
        } else {
            report.leave("it could not be written anew");
        }
        fresh = refresh::refresh_locked(desk, drop, &bin, locks)?;
        bin = fresh.bin.take().unwrap_or(bin);
        ledger = refresh::load(desk, &bin, &mut Remarks::default())?;
    }
    let survey = refresh::survey(desk, drop, &ledger, locks)?;
    let counts = |header: &Header| (header.count, header.live_bytes) == (survey.live, survey.live_bytes);
    let mut wrong = false;
    if !counts(&fresh.header) {
        wrong = true;
        desk.remove_own(".idx")?;
        fresh = refresh::refresh_locked(desk, drop, &bin, locks)?;
        bin = fresh.bin.take().unwrap_or(bin);
    }
    let count = fresh.header.count;
    match (&fresh.index, &before) {
        (Index::Memory(_), _) => report.leave("the index cannot be written: there is too little space, or no right to"),
        _ if wrong => {
            report.say(format!("the index did not agree with the drop and was written anew: messages: {count}"))
        }
        (_, State::Absent) => report.say(format!("there was no index: it was written, messages: {count}")),
        (_, State::Damaged) => report.say(format!("the index was damaged and was written anew: messages: {count}")),
        (_, State::Good(then)) if then.generation != fresh.header.generation || **then != fresh.header => {
            report.say(format!("the index was brought up to date: messages: {count}"));
        }
        (_, State::Good(_)) => report.say(format!("the index is whole, messages: {count}")),
    }
    say_survey(&survey, report);
    if wish.compact {
        let compacted = compaction::compact(desk, drop, &bin, locks, &mut || true)?;
        if compacted.waits_for_space {
            report.leave("it was not compacted: the copy would leave less free than min_space");
        } else {
            report.say(format!("compacted: {} bytes left the drop", compacted.freed_bytes));
        }
    }
    Ok(true)
}

/// Writes anew what could be read of a damaged ledger, and keeps a copy of the damaged one. The new file is locked before it
/// has the name; `None` when it could not be.
fn rewrite<D: Disk>(desk: &Desk<D>, bin: &D::File, ledger: &Ledger) -> Result<Option<D::File>, Refused> {
    let disk = &desk.disk;
    let size = disk.stat(bin).map_err(Fault::at("looking at", &desk.own_path(".bin")))?.size;
    let mut bytes = vec![0; ledger::bounded(size).map_err(Fault::at("reading", &desk.own_path(".bin")))?];
    desk.read_full(bin, &mut bytes, 0).map_err(Fault::at("reading", &desk.own_path(".bin")))?;
    let aside = format!(".bin.aside-{:016x}", disk.random());
    let path = desk.own_path(&aside);
    let Some((file, _)) = desk.open_own(&aside, How::Create)? else { return Ok(None) };
    let kept = disk.write(&file, &bytes, 0).and_then(|()| disk.sync(&file));
    kept.map_err(Fault::at("writing", &path))?;
    let anew = refresh::write_bin(desk, &ledger.rewritten().1)?;
    refresh::name_bin(desk)?;
    Ok(Some(anew))
}
