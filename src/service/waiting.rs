//! Orders about messages that wait in the queue.
//!
//! | order            | is carried out by                                                                            |
//! |------------------|----------------------------------------------------------------------------------------------|
//! | list, show       | a job, which reads the files; its report ends the order                                      |
//! | change ID        | delivery's own hands ([`deliver::Order`])                                                    |
//! | change FILTER    | a job, which chooses the messages; then, as far as that was agreed, delivery, one by one     |
//!
//! What leaves the queue between being chosen and being changed is not changed, and that is told.

use std::collections::{HashSet, VecDeque};

use super::deliver::{self, Deed};
use super::{Outcome, Shared};
use crate::control::queue::{Agreed, Ask, Change, Filter};
use crate::control::{Report, Told};
use crate::net::jobs::{self, Kind, Pulse};
use crate::net::turn::Ticket;
use crate::store::queue::{Message, Miss, Queue, Row, Stage};
use crate::text::printable::{printable, visible};

/// Messages, or recipients, that are shown at a time.
const SHOWN: usize = 1000;
/// Recipients that are read at a time.
const PAGE: u32 = 256;
/// Files between two beats of a job's pulse.
const BEAT: usize = 64;

/// A change of many messages, under way.
pub struct Many {
    change: Change,
    agreed: Agreed,
    ids: VecDeque<String>,
    found: usize,
    changed: u64,
    recipients: u64,
    left: u64,
    /// Why some were not changed: the first reason, and how many.
    failed: Option<(String, u64)>,
}

/// What comes next.
pub enum Step {
    /// An outcome comes with that ticket.
    Asked(Option<Box<Many>>),
    /// It is over.
    Told(Told),
}

/// What is to be done with a message.
fn deed(change: Change) -> Deed {
    match change {
        Change::Delete => Deed::Delete,
        Change::Hold => Deed::Hold("by the operator".to_owned()),
        Change::Release => Deed::Release,
        Change::Retry => Deed::Retry,
    }
}

/// Begins with an order: what it comes to is told with this ticket.
pub fn begin(ask: Ask, now_secs: i64, ticket: Ticket, shared: &mut Shared) -> Step {
    if let Ask::One(change, id) = ask {
        shared.transit.order(ticket, deliver::Order { id: id.into(), deed: deed(change) });
        return Step::Asked(None);
    }
    let (queue, all) = (shared.transit.queue(), shared.transit.waiting());
    // A plain list begins with those that are due first.
    let first = if ask == Ask::List(Filter::default()) { SHOWN } else { 0 };
    let first: Vec<String> = shared.transit.table().iter().take(first).map(|(id, _)| id.to_owned()).collect();
    let many = match &ask {
        Ask::All(change, _, agreed) => Some(Box::new(Many::new(*change, *agreed))),
        _ => None,
    };
    let work = move |pulse: &Pulse| match ask {
        Ask::List(filter) => Outcome::Told(list(&queue, &first, all, &filter, now_secs, pulse)),
        Ask::All(change, filter, _) => Outcome::Chosen(chosen(&queue, change, &filter, now_secs, pulse)),
        Ask::Show(id) | Ask::One(_, id) => Outcome::Told(show(&queue, &id, now_secs)),
    };
    match shared.jobs.submit(Some(ticket), Kind::Bulk, shared.transit.volume(), work) {
        Ok(()) => Step::Asked(many),
        Err(jobs::Busy::Full) => Step::Told(Err(vec!["too much waits for the disks: try again later".to_owned()])),
        Err(jobs::Busy::Stuck) => {
            Step::Told(Err(vec!["the volume of work_path does not answer: see `status`".to_owned()]))
        }
    }
}

impl Many {
    fn new(change: Change, agreed: Agreed) -> Many {
        let (ids, failed) = (VecDeque::new(), None);
        Many { change, agreed, ids, found: 0, changed: 0, recipients: 0, left: 0, failed }
    }

    /// These are meant: they are changed if that was agreed, else counted.
    pub fn chosen(mut self: Box<Self>, ids: Vec<String>, ticket: Ticket, shared: &mut Shared) -> Step {
        self.found = ids.len();
        let name = Change::ALL.iter().find(|(_, change)| *change == self.change).map_or("", |(name, _)| name);
        match self.agreed {
            Agreed::Yes => {}
            Agreed::Count(count) if count == self.found as u64 => {}
            Agreed::Count(count) => {
                let found = self.found;
                return Step::Told(Err(vec![format!(
                    "{found} messages are meant by this now, not {count}: none was changed; say {found}, or --yes"
                )]));
            }
            Agreed::No => {
                let mut report = Report::default();
                report.add("would_change", self.found);
                report.add("changed", 0);
                if self.found > 0 {
                    report.add("to_do_it", format!("queue {name} ... {}, or --yes", self.found));
                }
                return Step::Told(Ok(report));
            }
        }
        self.ids = ids.into();
        self.go_on(ticket, shared)
    }

    /// One was changed, or not.
    pub fn told(mut self: Box<Self>, told: Told, ticket: Ticket, shared: &mut Shared) -> Step {
        match told {
            Ok(report) => {
                let number = |name: &str| report.value(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
                self.recipients += number("recipients");
                self.changed += u64::from(number("recipients") > 0);
                self.left +=
                    u64::from(report.value("left_queue").and_then(serde_json::Value::as_bool).unwrap_or(false));
            }
            Err(whys) => {
                let why = whys.into_iter().next().unwrap_or_default();
                self.failed.get_or_insert((why, 0)).1 += 1;
            }
        }
        self.go_on(ticket, shared)
    }

    fn go_on(mut self: Box<Self>, ticket: Ticket, shared: &mut Shared) -> Step {
        if !shared.stopping
            && let Some(id) = self.ids.pop_front()
        {
            shared.transit.order(ticket, deliver::Order { id: id.into(), deed: deed(self.change) });
            return Step::Asked(Some(self));
        }
        let mut report = Report::default();
        report.add("found", self.found);
        report.add("changed", self.changed);
        report.add("recipients", self.recipients);
        report.add("left_queue", self.left);
        if let Some((why, times)) = &self.failed {
            report.add("failed", *times);
            report.add("first_failure", visible(why));
        }
        if !self.ids.is_empty() {
            report.add("not_tried", self.ids.len());
        }
        Step::Told(Ok(report))
    }
}

fn age(message: &Message, now_secs: i64) -> u64 {
    u64::try_from(now_secs - message.envelope.received_secs).unwrap_or(0)
}

/// The message, if the filter passes it; nothing for one that has gone or cannot be read, which is counted.
fn passed(queue: &Queue, id: &str, filter: &Filter, now_secs: i64, unread: &mut u64) -> Option<Message> {
    let mut missed = |miss: Miss| {
        *unread += u64::from(!matches!(miss, Miss::Gone));
    };
    let message = queue.read(id).map_err(&mut missed).ok()?;
    if !filter.takes(&message.envelope.sender, age(&message, now_secs)) {
        return None;
    }
    let mut from = 1;
    while filter.asks_for_recipients() {
        let rows = queue.page(id, from, PAGE).map_err(&mut missed).ok()?;
        let last = rows.last()?;
        from = last.number + 1;
        if rows.iter().any(|row| filter.takes_recipient(&row.recipient.address, row.state.stage().word())) {
            break;
        }
    }
    Some(message)
}

/// Whether a change would change something about it.
fn would_change(message: &Message, change: Change) -> bool {
    let deed = deed(change);
    Stage::ALL.iter().any(|stage| message.tally.by_stage[*stage as usize] > 0 && deed.changes(*stage))
}

fn chosen(queue: &Queue, change: Change, filter: &Filter, now_secs: i64, pulse: &Pulse) -> Vec<String> {
    let (mut ids, mut index, mut unread) = (Vec::new(), 0, 0);
    let walked = queue.walk(&mut |id| {
        if index % BEAT == 0 {
            pulse.beat();
        }
        index += 1;
        let message = passed(queue, id, filter, now_secs, &mut unread);
        if message.is_some_and(|message| would_change(&message, change)) {
            ids.push(id.to_owned());
        }
        true
    });
    if let Err(fault) = walked {
        log::error!("the queue: {fault}");
    }
    ids
}

const LIST: &[&str] = &["id", "age_secs", "bytes", "from", "to", "recipients", "state", "next_secs"];

fn list(queue: &Queue, first: &[String], all: u64, filter: &Filter, now_secs: i64, pulse: &Pulse) -> Told {
    let (mut lines, mut found, mut unread, mut index) = (Vec::new(), 0, 0, 0);
    let mut look = |id: &str| {
        if index % BEAT == 0 {
            pulse.beat();
        }
        index += 1;
        let Some(message) = passed(queue, id, filter, now_secs, &mut unread) else { return true };
        found += 1;
        if lines.len() < SHOWN {
            lines.push(line(queue, &message, now_secs));
        }
        // Of a plain list only so many are looked at as are shown.
        lines.len() < SHOWN || *filter != Filter::default()
    };
    let known: HashSet<&str> = first.iter().map(String::as_str).collect();
    if first.iter().all(|id| look(id)) {
        let walked = queue.walk(&mut |id| known.contains(id) || look(id));
        walked.map_err(|fault| vec![visible(&fault.to_string())])?;
    }
    let mut report = Report::default();
    let plain = *filter == Filter::default();
    let found = if plain { all.max(found) } else { found };
    let shown = lines.len() as u64;
    report.add("messages", found);
    if found > shown {
        report.add("not_shown", found - shown);
    }
    if unread > 0 {
        report.add("unread", unread);
    }
    report.table("queue", LIST, lines);
    Ok(report)
}

/// `2 deferred, 1 held`: those that are not done with.
fn stages(message: &Message) -> String {
    let named = Stage::ALL.iter().filter(|stage| !stage.is_final()).filter_map(|stage| {
        let count = message.tally.by_stage[*stage as usize];
        (count > 0).then(|| format!("{count} {}", stage.word()))
    });
    named.collect::<Vec<_>>().join(", ")
}

/// Seconds until the next try; nothing when there will be none.
fn next(next_secs: Option<i64>, now_secs: i64) -> Option<u64> {
    next_secs.map(|next| u64::try_from(next - now_secs).unwrap_or(0))
}

fn sender(message: &Message) -> String {
    if message.envelope.sender.is_empty() { "<>".to_owned() } else { visible(&message.envelope.sender) }
}

fn line(queue: &Queue, message: &Message, now_secs: i64) -> Vec<serde_json::Value> {
    let first = queue.page(&message.id, 1, 1).ok().and_then(|rows| rows.into_iter().next());
    vec![
        message.id.clone().into(),
        age(message, now_secs).into(),
        message.text_bytes.into(),
        sender(message).into(),
        first.map(|row| visible(&row.recipient.address)).into(),
        message.recipients.into(),
        stages(message).into(),
        next(message.tally.next_secs, now_secs).into(),
    ]
}

const RECIPIENTS: &[&str] = &["number", "address", "kind", "state", "tries", "next_secs", "why"];

fn show(queue: &Queue, id: &str, now_secs: i64) -> Told {
    let sentence = |miss: Miss| match miss {
        Miss::Gone => vec![format!("{}: no such message is in the queue", visible(id))],
        Miss::Damaged(fault) | Miss::Fault(fault) => vec![visible(&fault.to_string())],
    };
    let message = queue.read(id).map_err(sentence)?;
    let mut lines = Vec::new();
    let mut from = 1;
    while lines.len() < SHOWN {
        let rows = queue.page(id, from, PAGE).map_err(sentence)?;
        let Some(last) = rows.last() else { break };
        from = last.number + 1;
        lines.extend(rows.iter().map(|row| recipient(row, now_secs)).take(SHOWN - lines.len()));
    }
    let mut report = Report::default();
    report.add("id", message.id.clone());
    report.add("from", sender(&message));
    report.add("came", visible(&message.envelope.came));
    report.add("age_secs", age(&message, now_secs));
    report.add("bytes", message.text_bytes);
    report.add("state", stages(&message));
    report.add("next_secs", next(message.tally.next_secs, now_secs));
    if let Some((origin, _)) = &message.envelope.bounce_of {
        report.add("bounce_of", origin.clone());
    }
    report.add("recipients", message.recipients);
    if message.recipients as usize > lines.len() {
        report.add("not_shown", message.recipients as usize - lines.len());
    }
    report.table("who", RECIPIENTS, lines);
    Ok(report)
}

fn recipient(row: &Row, now_secs: i64) -> Vec<serde_json::Value> {
    use crate::store::queue::State;
    let (tries, due) = match &row.state {
        State::Deferred { next_secs, tries, .. } => (Some(*tries), Some(*next_secs)),
        State::Waiting => (None, Some(now_secs)),
        _ => (None, None),
    };
    vec![
        row.number.into(),
        printable(row.recipient.address.as_bytes()).into(),
        format!("{:?}", row.recipient.kind).to_ascii_lowercase().into(),
        row.state.stage().word().into(),
        tries.into(),
        next(due, now_secs).into(),
        visible(row.state.why()).into(),
    ]
}
