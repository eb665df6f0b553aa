//! What a round needs to know, read by a job: envelope and text once, then a page of recipients.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::settling::{Next, set_aside};
use super::telling::tell;
use super::{DOUBT_SECS, LOCKED_SECS, PAGE, Part, handed_on_from};
use crate::mail::passed::Passed;
use crate::net::jobs::Kind as JobKind;
use crate::rules::retry::Place;
use crate::service::account;
use crate::service::deliver::body::{PIECE, Text};
use crate::service::deliver::lanes::Message;
use crate::service::deliver::runner::{Desk, Doing, Finished};
use crate::service::deliver::{Stores, ways};
use crate::settings::Settings;
use crate::store::disk::RealDisk;
use crate::store::queue::{self, Change, Envelope, How, Kind, Miss, Queue, Row, State, queued};

/// What was read of a message.
pub(in crate::service::deliver) struct Found {
    known: Option<(Message, Envelope)>,
    rows: Vec<Row>,
    next_secs: Option<i64>,
    /// It has left the queue.
    gone: bool,
}

impl Desk<'_> {
    /// Reads what is to be known for the next tries.
    pub(in crate::service::deliver) fn read_page(&mut self, at: usize) {
        let run = &self.runner.runs[at];
        let (id, from, all, secs) = (run.id.clone(), run.next, run.known.is_none(), self.secs);
        let settings = self.shared.settings.clone();
        let volume = self.shared.transit.stores.volume;
        let work = move |stores: &Stores, _: &_| {
            let mut bounces = Vec::new();
            let found = read(stores, &settings, &id, from, all, secs, &mut bounces);
            if let Err(miss) = &found {
                set_aside(&stores.queue, &id, miss);
            }
            Finished::Read(bounces, found.map(Box::new))
        };
        if self.job(Doing::Read(at), JobKind::Read, volume, work).is_err() {
            self.over(at, Next::Soon);
        }
    }

    pub(in crate::service::deliver) fn read(
        &mut self,
        at: usize,
        bounces: &[String],
        result: Result<Box<Found>, Miss>,
    ) {
        self.begin_bounces(bounces);
        let found = match result {
            Ok(found) => *found,
            Err(miss) => return self.missed(at, miss),
        };
        let Found { known, rows, next_secs, gone } = found;
        if gone {
            return self.over(at, Next::Gone);
        }
        let run = &mut self.runner.runs[at];
        if let Some((message, envelope)) = known {
            run.known = Some((Arc::new(message), Arc::new(envelope)));
        }
        run.next = rows.last().filter(|_| rows.len() == PAGE as usize).map_or(0, |last| last.number + 1);
        // What is further ahead than the schedule reaches was noted before the clock was put back. Who is parked waits for
        // somebody, whatever the time is.
        let rules = self.shared.settings.retry_rules();
        let is_due = |kind: Kind, next_secs: i64| {
            next_secs <= self.secs
                || kind != Kind::Remote && rules.bounded(Place::Here, next_secs, self.secs) < next_secs
        };
        let due = rows.into_iter().filter_map(|Row { number, recipient, state, warned, via, .. }| {
            let (tries, waited) = match state {
                State::Waiting => (0, None),
                State::Deferred { next_secs, tries, possibly, .. } if is_due(recipient.kind, next_secs) => {
                    (tries, Some((next_secs, possibly)))
                }
                _ => return None,
            };
            Some(Part { number, recipient, tries, warned, expands: false, to: None, via, waited })
        });
        run.parts = due.collect();
        match (run.parts.is_empty(), run.next) {
            (false, _) => self.try_parts(at),
            // What the pages before came to is told of at the end.
            (true, 0) if run.owes => self.note(at),
            (true, 0) => self.over(at, Next::At(next_secs)),
            (true, _) => self.read_page(at),
        }
    }
}

/// What a round needs to know. In a job.
fn read(
    stores: &Stores,
    settings: &Settings,
    id: &str,
    from: u32,
    all: bool,
    secs: i64,
    bounces: &mut Vec<String>,
) -> Result<Found, Miss> {
    let queue = &stores.queue;
    let mut found = queue.read(id)?;
    if all && found.envelope.bounce_of.is_some() {
        queue.told(id, secs)?;
    }
    if all && let Some((origin, number)) = handed_on_from(id) {
        // Before it is tried, so that whatever happens its origin is not brought here again.
        let first = queue.page(id, 1, 1)?;
        let has_owner = first.iter().any(|row| ways::sender(&row.recipient, &found.envelope) != found.envelope.sender);
        match handed_on(queue, origin, number, found.recipients > 1 || has_owner, secs) {
            Ok(()) | Err(Miss::Gone | Miss::Damaged(_)) => {}
            Err(fault) => return Err(fault),
        }
    }
    if all {
        tell(queue, settings, id, &found.envelope, secs, bounces)?;
    }
    let mut rows = queue.page(id, from, PAGE)?;
    let (mut doubt, like) = (None, account::place_of(PathBuf::new(), settings));
    // Who may have his message already by a try whose end is not known is not tried before that is.
    for row in rows.iter_mut().filter(|row| stores.intents.holds(&queued(id, row.number))) {
        match queue.settle(&stores.intents, &like, id, row.number, secs) {
            Ok(true) => {}
            Ok(false) => row.state = State::Delivered,
            Err(miss) => {
                row.state = State::Held { why: String::new() };
                let (Miss::Fault(fault) | Miss::Damaged(fault)) = miss else { continue };
                log::warn!("the queue: {id}: it is not known whether recipient {} has it: {fault}", row.number);
                let is_locked = fault.source.kind() == io::ErrorKind::WouldBlock;
                let wait = if is_locked { LOCKED_SECS } else { DOUBT_SECS };
                doubt = Some(doubt.map_or(wait, |least: i64| least.min(wait)));
            }
        }
    }
    let text = if all { Some(queue.text(id)?) } else { None };
    // By now some may have become delivered or bounced.
    found.tally = queue.read(id)?.tally;
    let gone = found.tally.is_ended() && queue.remove(id)?;
    let next_secs = doubt.map_or(found.tally.next_secs, |wait| Some(secs + wait));
    if !gone && next_secs.is_none_or(|next| next > secs) {
        // It does not lie where it should, or is looked at for no reason that its place can tell.
        queue.put(id, next_secs)?;
    }
    let known = text.map(|text| {
        // What cannot be read is not delivered either.
        let passed = passed(&text).unwrap_or_default();
        let message = Message {
            id: id.into(),
            sender: found.envelope.sender.as_str().into(),
            received: found.envelope.received.as_slice().into(),
            posted_secs: found.envelope.received_secs,
            text: Text::Queued(text),
            passed,
            mark: found.envelope.mark,
        };
        (message, found.envelope)
    });
    Ok(Found { known, rows, next_secs, gone })
}

/// The message that goes on in place of a recipient is there: he is done with, or expanded.
fn handed_on(queue: &Queue, origin: &str, number: u32, expands: bool, secs: i64) -> Result<(), Miss> {
    let Some(row) = queue.page(origin, number, 1)?.into_iter().next() else { return Ok(()) };
    let wanted = expands && row.recipient.notify.is_some_and(|notify| notify.success);
    // Whether anybody is to hear that is seen when it would be told.
    let expanded = State::Succeeded { how: How::Expanded, why: String::new(), bounce: 0 };
    let to = if wanted { expanded } else { State::Delivered };
    queue.note(origin, secs, &[Change { number, to }]).map(drop)
}

/// Who has had a message already, by what a [`PIECE`] has of its header.
fn passed(text: &queue::Text<RealDisk>) -> io::Result<Passed> {
    let (file, range) = text.parts();
    let bytes = (range.end - range.start).min(PIECE as u64);
    let mut head = vec![0; bytes as usize];
    file.read_exact_at(&mut head, range.start)?;
    Ok(Passed::of(&head))
}
