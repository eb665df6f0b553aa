//! One queue file, open: where its parts are, and what has become of its recipients. Memory: one line, and a few bytes a
//! recipient while it is read.

use std::io;
use std::ops::Range;

use super::head::{self, Facts, LINE_BYTES, Reading, Recipient};
use super::places::Place;
use super::state::{self, Line, Stage, State, Warned};
use super::{Row, Tally};
use crate::mail::dsn::Report;
use crate::store::disk::{Disk, Reach};

/// Files are read in pieces of this size.
const PIECE_BYTES: usize = 2 * LINE_BYTES;

/// Behind the text stands this, with the message's id, and behind that the states.
pub(super) fn mark(id: &str) -> Vec<u8> {
    format!("\nStates of {id}:\n").into_bytes()
}

/// Why a file is not read.
pub(super) enum Unread {
    /// It is not what a queue file is: what is wrong with it.
    Damaged(&'static str),
    /// The system said so.
    Error(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Unread {
        Unread::Error(error)
    }
}

/// Lines of a file, from one place to another.
struct Lines<'f, D: Disk> {
    disk: &'f D,
    file: &'f D::File,
    buffer: Vec<u8>,
    /// Where in the buffer the next line begins.
    next: usize,
    /// Where in the file the buffer's end is, and how far to read.
    read: u64,
    end: u64,
}

/// A line.
struct Seen<'l> {
    /// Where in the file it begins.
    at: u64,
    /// Without its end; of one that is longer than [`LINE_BYTES`] nothing.
    text: &'l [u8],
    /// It has an end, and is no longer than that.
    is_whole: bool,
    /// It has an end.
    ended: bool,
}

impl<'f, D: Disk> Lines<'f, D> {
    fn new(disk: &'f D, file: &'f D::File, range: Range<u64>) -> Lines<'f, D> {
        Lines { disk, file, buffer: Vec::new(), next: 0, read: range.start, end: range.end }
    }

    fn at(&self) -> u64 {
        self.read - (self.buffer.len() - self.next) as u64
    }

    /// Reads more; says whether there was more.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.next);
        self.next = 0;
        let held = self.buffer.len();
        let most = (self.end - self.read).min(PIECE_BYTES as u64) as usize;
        self.buffer.resize(held + most, 0);
        let some = read(self.disk, self.file, &mut self.buffer[held..], self.read)?;
        self.buffer.truncate(held + some);
        self.read += some as u64;
        Ok(some > 0)
    }

    fn next(&mut self) -> io::Result<Option<Seen<'_>>> {
        let (at, mut is_long) = (self.at(), false);
        let (text, ended) = loop {
            let rest = &self.buffer[self.next..];
            let end = memchr::memchr(b'\n', rest);
            is_long |= end.unwrap_or(rest.len()) > LINE_BYTES;
            if let Some(length) = end {
                let from = self.next;
                self.next += length + 1;
                break (from..from + length, true);
            }
            if is_long {
                // Its end is looked for; what it says is not.
                self.next = self.buffer.len();
            }
            if !self.fill()? {
                let from = self.next;
                self.next = self.buffer.len();
                if self.next == from && !is_long {
                    return Ok(None);
                }
                break (from..self.next, false);
            }
        };
        let text = if is_long { 0..0 } else { text };
        Ok(Some(Seen { at, text: &self.buffer[text], is_whole: ended && !is_long, ended }))
    }
}

/// Reads as much of `buffer` as there is.
pub(super) fn read<D: Disk>(disk: &D, file: &D::File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match disk.read(file, &mut buffer[read..], offset + read as u64, Reach::Wait)? {
            0 => break,
            some => read += some,
        }
    }
    Ok(read)
}

/// A queue file that is one.
pub(super) struct Opened<D: Disk> {
    disk: D,
    pub(super) file: D::File,
    /// Where it lies.
    pub(super) place: Place,
    id: String,
    pub(super) facts: Facts,
    /// Where the lines of recipients begin.
    to_at: u64,
    /// Where the Received field begins.
    received_at: u64,
    /// Where the states begin, and the file ends.
    pub(super) states: Range<u64>,
}

/// What has become of one recipient, in short.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) stage: Stage,
    /// The report that is to tell of it; of who is deferred: 0, if none is.
    pub(super) bounce: u32,
    pub(super) next_secs: i64,
    /// His sender has once heard that he waits long.
    pub(super) warned: bool,
    /// Where the line is that says which way he goes, in the same manner.
    pub(super) via_at: Option<u32>,
    /// Where the line is that says so, from the states' beginning; no line says that somebody waits from the start.
    pub(super) line_at: Option<u32>,
}

/// What the states of a file say.
pub(super) struct Told {
    /// By recipient.
    pub(super) slots: Vec<Slot>,
    /// They end with a line's end.
    pub(super) ended: bool,
    /// Lines there are, whatever they say.
    pub(super) lines: usize,
}

/// The states of one message are never so long, see [`STATES_BYTES`](super::STATES_BYTES).
const STATES_MAX: u64 = 64 << 20;

impl<D: Disk> Opened<D> {
    /// Reads the envelope. `size`: the file's.
    pub(super) fn new(disk: &D, (place, file): (Place, D::File), id: &str, size: u64) -> Result<Opened<D>, Unread> {
        let mut lines = Lines::new(disk, &file, 0..size);
        let mut reading = Reading::default();
        let (facts, to_at) = loop {
            let Some(line) = lines.next()? else { return Err(Unread::Damaged("its envelope has no end")) };
            if line.text.starts_with(head::TO) {
                let to_at = line.at;
                let facts = reading.finish().ok_or(Unread::Damaged("its envelope is not complete"))?;
                check_recipient(1, &line)?;
                break (facts, to_at);
            }
            if !line.is_whole {
                return Err(Unread::Damaged("its envelope has a line without an end"));
            }
            reading.take(id, line.text).ok_or(Unread::Damaged("its envelope has a line that is none"))?;
        };
        for number in 2..=facts.recipients {
            let Some(line) = lines.next()? else { return Err(Unread::Damaged("it lacks recipients")) };
            check_recipient(number, &line)?;
        }
        match lines.next()? {
            Some(line) if line.text.is_empty() && line.is_whole => {}
            _ => return Err(Unread::Damaged("no blank line follows its recipients")),
        }
        let received_at = lines.at();
        let mark = mark(id);
        let mark_at = received_at.checked_add(facts.received_bytes).and_then(|at| at.checked_add(facts.text_bytes));
        let states_at = mark_at.and_then(|at| at.checked_add(mark.len() as u64));
        let (Some(mark_at), Some(states_at)) = (mark_at, states_at.filter(|&at| at <= size)) else {
            return Err(Unread::Damaged("it is shorter than it says"));
        };
        if size - states_at > STATES_MAX {
            return Err(Unread::Damaged("its states have no end"));
        }
        let mut shown = vec![0; mark.len()];
        if read(disk, &file, &mut shown, mark_at)? < mark.len() || shown != mark {
            return Err(Unread::Damaged("its text does not end where it says"));
        }
        let (disk, id, states) = (disk.clone(), id.to_owned(), states_at..size);
        let mut opened = Opened { disk, file, place, id, facts, to_at, received_at, states };
        let mut received = vec![0; opened.facts.received_bytes as usize];
        if read(&opened.disk, &opened.file, &mut received, received_at)? < received.len() {
            return Err(Unread::Damaged("it is shorter than it says"));
        }
        opened.facts.envelope.received = received;
        Ok(opened)
    }

    /// How many bytes of states there are.
    pub(super) fn states_bytes(&self) -> u64 {
        self.states.end - self.states.start
    }

    /// Where its text is.
    pub(super) fn text(&self) -> Range<u64> {
        let from = self.received_at + self.facts.received_bytes;
        from..from + self.facts.text_bytes
    }

    /// What has become of each recipient.
    pub(super) fn told(&self) -> io::Result<Told> {
        let new = Slot::of(&State::Waiting);
        let mut slots = vec![new; self.facts.recipients as usize];
        let mut lines = Lines::new(&self.disk, &self.file, self.states.clone());
        let (mut ended, mut count) = (true, 0);
        while let Some(line) = lines.next()? {
            ended = line.ended;
            count += 1;
            // One that checks counts though its end is lost: the next line will end it.
            let Some(said) = state::decode(&self.id, line.text) else { continue };
            let line_at = u32::try_from(line.at - self.states.start).ok();
            for (from, to) in said.who {
                let range = from.max(1) as usize - 1..(to as usize).min(slots.len());
                for slot in slots.get_mut(range).unwrap_or_default() {
                    let next = said.state.stage();
                    if said.via.is_some() && slot.stage.may_be_routed() {
                        slot.via_at = line_at;
                    }
                    if slot.stage.may_become(next) || slot.stage == next && next.is_untold() {
                        let (warned, via_at) = (slot.warned, slot.via_at);
                        *slot = Slot { line_at, via_at, ..Slot::of(&said.state) };
                        slot.warned |= warned;
                    }
                }
            }
        }
        Ok(Told { slots, ended, lines: count })
    }

    /// The line of its states that begins there, without its end.
    pub(super) fn line_at(&self, at: u32) -> io::Result<Vec<u8>> {
        let range = self.states.start + u64::from(at)..self.states.end;
        Ok(Lines::new(&self.disk, &self.file, range).next()?.map(|line| line.text.to_vec()).unwrap_or_default())
    }

    /// What that line says.
    pub(super) fn said_at(&self, at: u32) -> Result<Line, Unread> {
        state::decode(&self.id, &self.line_at(at)?).ok_or(Unread::Damaged("its states change"))
    }

    /// A page of recipients.
    pub(super) fn rows(&self, from: u32, limit: u32) -> Result<Vec<Row>, Unread> {
        let slots = self.told()?.slots;
        let mut rows = Vec::new();
        let mut lines = Lines::new(&self.disk, &self.file, self.to_at..self.received_at);
        // Recipients who came to the same by the same line are mostly neighbours.
        let mut last: Option<(u32, State, i64)> = None;
        let mut last_via: Option<(u32, Option<String>)> = None;
        for (number, slot) in (1..).zip(&slots) {
            if rows.len() as u64 >= u64::from(limit) {
                break;
            }
            let Some(line) = lines.next()? else { return Err(Unread::Damaged("it lacks recipients")) };
            if number < from {
                continue;
            }
            let recipient = check_recipient(number, &line)?;
            let (state, at_secs) = match (slot.line_at, &last) {
                (None, _) => (State::Waiting, None),
                (Some(at), Some((known, state, at_secs))) if at == *known => (state.clone(), Some(*at_secs)),
                (Some(at), _) => {
                    let said = self.said_at(at)?;
                    last = Some((at, said.state.clone(), said.at_secs));
                    (said.state, Some(said.at_secs))
                }
            };
            let via = match (slot.via_at, &last_via) {
                (None, _) => None,
                (Some(at), Some((known, via))) if at == *known => via.clone(),
                (Some(at), _) => {
                    let via = self.said_at(at)?.via.filter(|via| !via.is_empty());
                    last_via = Some((at, via.clone()));
                    via
                }
            };
            rows.push(Row { number, recipient, state, at_secs, warned: slot.warned, via });
        }
        Ok(rows)
    }
}

impl Slot {
    pub(super) fn of(state: &State) -> Slot {
        let next_secs = if let State::Deferred { next_secs, .. } = state { *next_secs } else { 0 };
        let warned = matches!(state, State::Deferred { warned: Warned::Yes, .. });
        Slot {
            stage: state.stage(),
            bounce: state.report().unwrap_or(0),
            next_secs,
            warned,
            via_at: None,
            line_at: None,
        }
    }

    /// The kind of report that is to tell its sender of it, if one is.
    pub(super) fn report(&self) -> Option<Report> {
        match self.stage {
            Stage::Failed | Stage::Expired => Some(Report::Bounce),
            Stage::Succeeded => Some(Report::Success),
            Stage::Deferred if self.bounce > 0 => Some(Report::Delay),
            _ => None,
        }
    }
}

pub(super) fn tally(slots: &[Slot]) -> Tally {
    let mut tally = Tally::default();
    for slot in slots {
        tally.by_stage[slot.stage as usize] += 1;
        tally.untold += u32::from(slot.report().is_some());
        if slot.stage.is_open() {
            tally.next_secs = Some(tally.next_secs.map_or(slot.next_secs, |next| next.min(slot.next_secs)));
        }
    }
    tally
}

fn check_recipient(number: u32, line: &Seen<'_>) -> Result<Recipient, Unread> {
    let recipient = if line.is_whole { head::decode_recipient(number, line.text) } else { None };
    recipient.ok_or(Unread::Damaged("its envelope has a recipient that is none"))
}
