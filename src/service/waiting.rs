//! Orders about messages that wait in the queue.
//!
//! | order            | is carried out by                                                                            |
//! |------------------|----------------------------------------------------------------------------------------------|
//! | list, show       | a job, which reads the files; its report ends the order                                      |
//! | change ID        | delivery's own hands ([`deliver::Order`])                                                    |
//! | change FILTER    | a job, which walks through the queue: once to count, where that was asked for, once to change |
//!
//! **A million messages.** No job holds their ids: it walks over the names and judges, and changes, each as it comes, under the
//! message's own lock; the table hears of them through [`deliver::Bulk`]. So what comes or leaves meanwhile may be met or not. A count
//! that was said is held against a walk of its own before anything is changed. A server that stops ends the job between two messages.
//!
//! **What a list says** of each message is that of one recipient: of the first that is not done with, and that passes the filter. Where
//! sending is paused, and how places are, is as it was when the order came.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::deliver::{self, Bulk, Deed};
use super::{Outcome, Shared, send};
use crate::control::queue::{Agreed, Ask, Change, Filter, Seen};
use crate::control::report::time;
use crate::control::{Report, Told, sending};
use crate::net::jobs::{self, Pulse};
use crate::net::turn::Ticket;
use crate::rules::hops::To;
use crate::rules::paused::Paused;
use crate::rules::unblock::{self, Facts, Pause, Stands};
use crate::settings::Settings;
use crate::store::queue::{Kind, Message, Miss, Queue, Row, Stage, State, VIA_BYTES};
use crate::text::printable::{printable, visible};

/// Messages, or recipients, that are shown at a time.
const SHOWN: usize = 1000;
/// Recipients that are read at a time.
const PAGE: u32 = 256;
/// Messages changed by one order that have a line each in the log.
const LOGGED: u64 = 1000;

/// What is to be done with a message.
fn deed(change: Change) -> Deed {
    match change {
        Change::Delete => Deed::Delete,
        Change::Hold => Deed::Hold("by the operator".to_owned()),
        Change::Release => Deed::Release,
        Change::Retry => Deed::Retry,
        Change::Route(via) => Deed::Route(via),
    }
}

/// A way that was said by hand, as it is kept. Refuses what is none with a sentence.
fn checked(change: Change, settings: &Settings) -> Result<Change, String> {
    let Change::Route(via) = change else { return Ok(change) };
    if via.is_empty() {
        return Ok(Change::Route(via));
    }
    let way = settings.hops.way_by_hand(&via).map_err(|why| format!("via={}: {why}", visible(&via)))?.to_string();
    if way.len() > VIA_BYTES {
        return Err(format!("via={}: that is more than {VIA_BYTES} bytes", visible(&via)));
    }
    Ok(Change::Route(way.into()))
}

/// Begins with an order: what it comes to is told with this ticket. Refuses with a sentence.
pub fn begin(ask: Ask, now: Instant, now_secs: i64, ticket: Ticket, shared: &mut Shared) -> Result<(), String> {
    let ask = match ask {
        Ask::One(change, id) => {
            let deed = deed(checked(change, &shared.settings)?);
            shared.transit.order(ticket, deliver::Order { id: id.into(), deed });
            return Ok(());
        }
        Ask::All(change, filter, agreed) => Ask::All(checked(change, &shared.settings)?, filter, agreed),
        ask => ask,
    };
    let transit = &shared.transit;
    let places = shared.destinations(now).into_iter().map(|place| (place.key.clone(), place)).collect();
    let desk = Desk {
        queue: transit.queue(),
        settings: shared.settings.clone(),
        paused: transit.paused().clone(),
        places,
        all: transit.waiting(),
        bulk: transit.bulk(),
        now_secs,
    };
    // A plain list begins with those that are due first.
    let first = if matches!(&ask, Ask::List(filter) if *filter == Filter::default()) { SHOWN } else { 0 };
    let first: Vec<String> = transit.table().iter().take(first).map(|(id, _)| id.to_owned()).collect();
    let work = move |pulse: &Pulse| {
        Outcome::Told(match ask {
            Ask::List(filter) => desk.list(&filter, &first, pulse),
            Ask::Show(id) | Ask::One(_, id) => desk.show(&id),
            Ask::All(change, filter, agreed) => desk.change(change, &filter, agreed, pulse),
        })
    };
    shared.jobs.submit(Some(ticket), jobs::Kind::Bulk, shared.transit.volume(), work).map_err(|busy| match busy {
        jobs::Busy::Full => "too much waits for the disks: try again later".to_owned(),
        jobs::Busy::Stuck => "the volume of work_path does not answer: see `status`".to_owned(),
    })
}

impl Shared {
    /// The places that mail is sent to, those where most waits first.
    pub fn destinations(&self, now: Instant) -> Vec<sending::Place> {
        let place = |shown: send::Shown<'_>| {
            let (connections, bound) = shown.connections;
            let state = match shown.closed {
                Some(_) => sending::State::Waiting,
                None if connections > 0 => sending::State::Sending,
                None if shown.waiting > 0 => sending::State::Calling,
                None => sending::State::Idle,
            };
            let (taken, deferred) = shown.counts;
            sending::Place {
                key: shown.key.to_owned(),
                state,
                connections,
                bound: bound.into(),
                waiting: shown.waiting,
                taken,
                deferred,
                why: shown.closed.map_or_else(String::new, |(_, why)| visible(why)),
                next_secs: shown.closed.map(|(left, _)| left.as_secs() + 1),
            }
        };
        let mut places: Vec<sending::Place> = self.outgoing.places(now).map(place).collect();
        places.sort_by(|one, other| (other.waiting, &one.key).cmp(&(one.waiting, &other.key)));
        places
    }
}

/// What a job about the queue knows.
struct Desk<Q> {
    queue: Q,
    settings: Arc<Settings>,
    paused: Paused,
    places: HashMap<String, sending::Place>,
    /// Messages that there are.
    all: u64,
    bulk: Arc<Bulk>,
    now_secs: i64,
}

/// A recipient, and where it goes.
struct Found {
    row: Row,
    place: Option<String>,
    parked: bool,
}

/// A message that a filter passes, and the first recipient that is not done with and makes it pass.
struct Passed {
    message: Message,
    who: Option<Found>,
}

impl<Q: Deref<Target = Queue>> Desk<Q> {
    fn age(&self, message: &Message) -> u64 {
        u64::try_from(self.now_secs - message.envelope.received_secs).unwrap_or(0)
    }

    /// Where a recipient goes: the place's name, and whether it is kept there. Nowhere: it stays on this machine.
    fn place_of(&self, message: &Message, row: &Row) -> (Option<String>, bool) {
        if row.recipient.kind != Kind::Remote {
            return (None, false);
        }
        let sender = deliver::sender_of(&row.recipient, &message.envelope);
        let hop = deliver::hop_of(&self.settings, sender, &row.recipient, row.via.as_deref());
        (Some(hop.key.into()), hop.to == To::Parked)
    }

    /// A change is of those alone who are as they were when the order came: else one that is tried at once, in vain, would be met
    /// again, and tried again, for as long as the walk goes on.
    fn is_meant(&self, filter: &Filter, message: &Message, row: &Row) -> bool {
        row.at_secs.is_none_or(|at_secs| at_secs <= self.now_secs) && self.takes_row(filter, message, row)
    }

    fn takes_row(&self, filter: &Filter, message: &Message, row: &Row) -> bool {
        let (place, _) = if filter.asks_for_places() { self.place_of(message, row) } else { (None, false) };
        let state = match &row.state {
            State::Deferred { possibly: true, .. } => "possibly",
            state => state.stage().word(),
        };
        let place = place.as_deref().unwrap_or_default();
        filter.takes_recipient(Seen { to: &row.recipient.address, state, place, reason: row.state.why() })
    }

    /// The first recipient that this says yes to.
    fn first(&self, message: &Message, is_wanted: &dyn Fn(&Row) -> bool) -> Result<Option<Row>, Miss> {
        let mut from = 1;
        loop {
            let rows = self.queue.page(&message.id, from, PAGE)?;
            let Some(last) = rows.last() else { return Ok(None) };
            from = last.number + 1;
            if let Some(row) = rows.into_iter().find(is_wanted) {
                return Ok(Some(row));
            }
        }
    }

    /// The message, if the filter passes it.
    fn passed(&self, id: &str, filter: &Filter) -> Result<Option<Passed>, Miss> {
        let message = self.queue.read(id)?;
        if !self.takes(filter, &message) {
            return Ok(None);
        }
        let is_wanted = |row: &Row| !row.state.stage().is_final() && self.takes_row(filter, &message, row);
        let who = self.first(&message, &is_wanted)?;
        if who.is_none() && filter.asks_for_recipients() {
            return Ok(None);
        }
        let who = who.map(|row| {
            let (place, parked) = self.place_of(&message, &row);
            Found { row, place, parked }
        });
        Ok(Some(Passed { message, who }))
    }

    fn takes(&self, filter: &Filter, message: &Message) -> bool {
        filter.takes(&message.envelope.sender, self.age(message), message.text_bytes)
    }

    /// The message, if a change by this filter would change something about it.
    fn meant(&self, id: &str, filter: &Filter, deed: &Deed) -> Result<Option<Message>, Miss> {
        let message = self.queue.read(id)?;
        let changes = |stage: &Stage| message.tally.at(*stage) > 0 && deed.changes(*stage);
        if !self.takes(filter, &message) || !Stage::ALL.iter().any(changes) {
            return Ok(None);
        }
        if filter.asks_for_recipients() || matches!(deed, Deed::Route(_) | Deed::Retry) {
            let is_wanted = |row: &Row| deed.change(row).is_some() && self.is_meant(filter, &message, row);
            if self.first(&message, &is_wanted)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(message))
    }

    /// Walks over all messages while the answer is true; how many could not be read. Who has gone meanwhile is none.
    fn walk(&self, pulse: &Pulse, each: &mut dyn FnMut(&str) -> Result<bool, Miss>) -> Result<u64, Vec<String>> {
        self.walk_from(&[], pulse, each)
    }

    /// The same; these are the first.
    fn walk_from(
        &self,
        first: &[String],
        pulse: &Pulse,
        each: &mut dyn FnMut(&str) -> Result<bool, Miss>,
    ) -> Result<u64, Vec<String>> {
        let known: HashSet<&str> = first.iter().map(String::as_str).collect();
        let mut unread = 0;
        let mut one = |id: &str| {
            pulse.beat();
            if self.bulk.is_stopped() {
                return false;
            }
            each(id).unwrap_or_else(|miss| {
                unread += u64::from(!matches!(miss, Miss::Gone));
                true
            })
        };
        if first.iter().all(|id| one(id)) {
            let walked = self.queue.walk(&mut |id| known.contains(id) || one(id));
            walked.map_err(|fault| vec![visible(&fault.to_string())])?;
        }
        Ok(unread)
    }

    /// How many a change would change.
    fn count(&self, deed: &Deed, filter: &Filter, pulse: &Pulse) -> Result<u64, Vec<String>> {
        let mut found = 0;
        self.walk(pulse, &mut |id| {
            found += u64::from(self.meant(id, filter, deed)?.is_some());
            Ok(true)
        })?;
        Ok(found)
    }

    fn change(&self, change: Change, filter: &Filter, agreed: Agreed, pulse: &Pulse) -> Told {
        let (name, deed) = (change.name(), deed(change));
        match agreed {
            Agreed::Yes => {}
            Agreed::Count(count) => {
                let found = self.count(&deed, filter, pulse)?;
                if found != count {
                    return Err(vec![format!(
                        "{found} messages are meant by this now, not {count}: none was changed; say {found}, or --yes"
                    )]);
                }
            }
            Agreed::No => {
                let found = self.count(&deed, filter, pulse)?;
                let mut report = Report::default();
                report.add("would_change", found);
                report.add("changed", 0);
                if found > 0 {
                    report.add("to_do_it", format!("queue {name} ... {found}, or --yes"));
                }
                return Ok(report);
            }
        }
        let mut sum = Sum::default();
        let unread = self.walk(pulse, &mut |id| {
            let Some(message) = self.meant(id, filter, &deed)? else { return Ok(true) };
            sum.found += 1;
            match deed.done_to(&self.queue, id, self.now_secs, &|row| self.is_meant(filter, &message, row)) {
                Ok(obeyed) => {
                    let recipients = obeyed.changed as u64;
                    sum.changed += u64::from(recipients > 0);
                    sum.recipients += recipients;
                    sum.left += u64::from(obeyed.gone);
                    if recipients > 0 && sum.changed <= LOGGED {
                        log::info!("delivery {id}: {recipients} recipients {} by an operator", deed.done());
                    }
                    self.bulk.tell(id, obeyed);
                }
                Err(why) => sum.failed.get_or_insert((why, 0)).1 += 1,
            }
            Ok(true)
        })?;
        if sum.changed > LOGGED {
            log::info!("the queue: {} messages {} by an operator", sum.changed, deed.done());
        }
        let mut report = Report::default();
        report.add("found", sum.found);
        report.add("changed", sum.changed);
        report.add("recipients", sum.recipients);
        report.add("left_queue", sum.left);
        if let Some((why, times)) = &sum.failed {
            report.add("failed", *times);
            report.add("first_failure", visible(why));
        }
        if unread > 0 {
            report.add("unread", unread);
        }
        if self.bulk.is_stopped() {
            report.add("stopped", true);
        }
        Ok(report)
    }

    /// `first`: those that are looked at before all others.
    fn list(&self, filter: &Filter, first: &[String], pulse: &Pulse) -> Told {
        let plain = *filter == Filter::default();
        let (mut entries, mut found) = (Vec::new(), 0_u64);
        let unread = self.walk_from(first, pulse, &mut |id| {
            let Some(passed) = self.passed(id, filter)? else { return Ok(true) };
            found += 1;
            if entries.len() < SHOWN {
                entries.push(self.entry(&passed));
            }
            // Of a plain list only so many are looked at as are shown.
            Ok(!plain || entries.len() < SHOWN)
        })?;
        entries.sort_by_key(|entry| entry.next_secs.unwrap_or(i64::MAX));
        let found = if plain { self.all.max(found) } else { found };
        let mut report = Report::default();
        report.add("messages", found);
        if found > entries.len() as u64 {
            report.add("not_shown", found - entries.len() as u64);
        }
        if unread > 0 {
            report.add("unread", unread);
        }
        let mut prose = report.text();
        for entry in &entries {
            prose += "\n";
            prose += &entry.prose;
        }
        report.table("queue", LIST, entries.into_iter().map(|entry| entry.line).collect());
        Ok(report.in_prose(prose))
    }

    fn entry(&self, Passed { message, who }: &Passed) -> Entry {
        let mut next_secs = message.tally.next_secs;
        let (mut prose, mut shown) = (String::new(), Standing::default());
        if let Some(found) = who {
            shown = self.standing(&message.id, found);
            // What was chosen for its recipient says when that one is tried.
            next_secs = if shown.next_secs.is_some() { shown.next_secs } else { next_secs };
        }
        let to = who.as_ref().map(|found| printable(found.row.recipient.address.as_bytes()));
        let others = message.recipients.saturating_sub(1);
        let (age, bytes) = (self.age(message), message.text_bytes);
        prose += &format!(
            "{}  from {} to {}{}\n    {}, {} old, {} bytes\n",
            message.id,
            sender(message),
            to.as_deref().unwrap_or("nobody"),
            if others > 0 { format!(" and {others} more") } else { String::new() },
            stages(message),
            time(age),
            bytes,
        );
        prose += &shown.prose("    ", self.now_secs);
        let line = vec![
            message.id.clone().into(),
            age.into(),
            bytes.into(),
            sender(message).into(),
            to.into(),
            message.recipients.into(),
            stages(message).into(),
            shown.tries.into(),
            next(next_secs, self.now_secs).into(),
            next_secs.and_then(moment).into(),
            shown.place.clone().into(),
            shown.via.clone().into(),
            shown.possibly.into(),
            shown.why.clone().into(),
            shown.reason.clone().into(),
            shown.unblock.clone().into(),
        ];
        Entry { line, prose, next_secs }
    }

    fn show(&self, id: &str) -> Told {
        let sentence = |miss: Miss| match miss {
            Miss::Gone => vec![format!("{}: no such message is in the queue", visible(id))],
            Miss::Damaged(fault) | Miss::Fault(fault) => vec![visible(&fault.to_string())],
        };
        let message = self.queue.read(id).map_err(sentence)?;
        let (mut lines, mut prose) = (Vec::new(), String::new());
        let mut from = 1;
        while lines.len() < SHOWN {
            let rows = self.queue.page(id, from, PAGE).map_err(sentence)?;
            let Some(last) = rows.last() else { break };
            from = last.number + 1;
            for row in rows.into_iter().take(SHOWN - lines.len()) {
                let (place, parked) = self.place_of(&message, &row);
                let found = Found { row, place, parked };
                let shown = self.standing(id, &found);
                let address = printable(found.row.recipient.address.as_bytes());
                let word = found.row.state.stage().word();
                prose += &format!("\n{}. {address}: {word}\n{}", found.row.number, shown.prose("    ", self.now_secs));
                lines.push(recipient(&found, shown, self.now_secs));
            }
        }
        let mut report = Report::default();
        report.add("id", message.id.clone());
        report.add("from", sender(&message));
        report.add("came", visible(&message.envelope.came));
        report.add("age_secs", self.age(&message));
        report.add("bytes", message.text_bytes);
        report.add("state", stages(&message));
        if let Some((origin, _)) = &message.envelope.bounce_of {
            report.add("bounce_of", origin.clone());
        }
        report.add("recipients", message.recipients);
        if message.recipients as usize > lines.len() {
            report.add("not_shown", message.recipients as usize - lines.len());
        }
        let prose = report.text() + &prose;
        // People are told with each recipient.
        report.add("next_secs", next(message.tally.next_secs, self.now_secs));
        report.add("next", message.tally.next_secs.and_then(moment));
        report.table("who", RECIPIENTS, lines);
        Ok(report.in_prose(prose))
    }

    /// How a recipient stands, and what would let it go on.
    fn standing(&self, id: &str, Found { row, place, parked }: &Found) -> Standing {
        let (mut tries, mut due, mut was_possibly) = (None, None, false);
        let stands = match &row.state {
            State::Deferred { next_secs, tries: times, possibly, .. } => {
                (tries, due, was_possibly) = (Some(*times), Some(*next_secs), *possibly);
                Some(Stands::Deferred(*next_secs))
            }
            State::Waiting => {
                due = Some(self.now_secs);
                Some(Stands::Waiting)
            }
            State::Held { .. } => Some(Stands::Held),
            State::Failed { .. } | State::Expired { .. } | State::Succeeded { .. } => Some(Stands::Lost),
            State::Delivered | State::Bounced | State::Dropped { .. } | State::Deleted => None,
        };
        let key = place.as_deref();
        let pause = match key {
            Some(_) if self.paused.is_all() => Pause::All,
            Some(place) if self.paused.has(place) => Pause::Place,
            _ => Pause::Nothing,
        };
        let known = key.and_then(|key| self.places.get(key)).filter(|place| place.state == sending::State::Waiting);
        let why = row.state.why();
        let unblock = stands.map(|stands| {
            unblock::unblock(&Facts {
                id,
                stands,
                why,
                possibly: was_possibly,
                place: key,
                parked: *parked,
                pause,
                place_secs: known.and_then(|place| place.next_secs),
                now_secs: self.now_secs,
            })
        });
        Standing {
            tries,
            next_secs: due,
            possibly: was_possibly,
            place: place.as_deref().map(visible),
            via: row.via.as_deref().map(visible),
            why: visible(why),
            reason: visible(&unblock::plain(why)),
            unblock: unblock.map(|text| visible(&text)),
        }
    }
}

/// What a change of many has come to.
#[derive(Default)]
struct Sum {
    found: u64,
    changed: u64,
    recipients: u64,
    left: u64,
    /// Why some were not changed: the first reason, and how many.
    failed: Option<(String, u64)>,
}

/// A message in a list.
struct Entry {
    line: Vec<Value>,
    prose: String,
    next_secs: Option<i64>,
}

/// How a recipient stands, for people.
#[derive(Default)]
struct Standing {
    tries: Option<u32>,
    next_secs: Option<i64>,
    possibly: bool,
    place: Option<String>,
    via: Option<String>,
    why: String,
    reason: String,
    unblock: Option<String>,
}

impl Standing {
    /// A fact a line, each behind `indent`.
    fn prose(&self, indent: &str, now_secs: i64) -> String {
        let mut text = String::new();
        let mut line = |name: &str, said: &str| {
            if !said.is_empty() {
                text += &format!("{indent}{name}: {said}\n");
            }
        };
        if self.possibly {
            line("possibly delivered", "all of it was sent, and no answer came");
        }
        line("tried", &self.tries.map(times).unwrap_or_default());
        if let Some((secs, moment)) = next(self.next_secs, now_secs).zip(self.next_secs.and_then(moment)) {
            line("next try", &format!("{moment}, in {}", time(secs)));
        }
        line("goes to", self.place.as_deref().unwrap_or_default());
        line("by hand via", self.via.as_deref().unwrap_or_default());
        line("why it waits", &self.reason);
        line("what helps", self.unblock.as_deref().unwrap_or_default());
        text
    }
}

/// How often, for people.
fn times(count: u32) -> String {
    match count {
        0 => "not yet".to_owned(),
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{count} times"),
    }
}

const LIST: &[&str] = &[
    "id",
    "age_secs",
    "bytes",
    "from",
    "to",
    "recipients",
    "state",
    "tries",
    "next_secs",
    "next",
    "place",
    "via",
    "possibly",
    "why",
    "reason",
    "unblock",
];

const RECIPIENTS: &[&str] = &[
    "number",
    "address",
    "kind",
    "state",
    "tries",
    "next_secs",
    "next",
    "place",
    "via",
    "possibly",
    "why",
    "reason",
    "unblock",
];

fn recipient(found: &Found, shown: Standing, now_secs: i64) -> Vec<Value> {
    let row = &found.row;
    vec![
        row.number.into(),
        printable(row.recipient.address.as_bytes()).into(),
        format!("{:?}", row.recipient.kind).to_ascii_lowercase().into(),
        row.state.stage().word().into(),
        shown.tries.into(),
        next(shown.next_secs, now_secs).into(),
        shown.next_secs.and_then(moment).into(),
        shown.place.into(),
        shown.via.into(),
        shown.possibly.into(),
        shown.why.into(),
        shown.reason.into(),
        shown.unblock.into(),
    ]
}

/// `2 deferred, 1 held`: those that are not done with.
fn stages(message: &Message) -> String {
    let named = Stage::ALL.iter().filter(|stage| !stage.is_final()).filter_map(|stage| {
        let count = message.tally.at(*stage);
        (count > 0).then(|| format!("{count} {}", stage.word()))
    });
    named.collect::<Vec<_>>().join(", ")
}

/// Seconds until the next try; nothing when there will be none.
fn next(next_secs: Option<i64>, now_secs: i64) -> Option<u64> {
    next_secs.map(|next| u64::try_from(next - now_secs).unwrap_or(0))
}

/// A time of the calendar: `2026-01-31T12:00:00Z`.
fn moment(secs: i64) -> Option<String> {
    jiff::Timestamp::from_second(secs).ok().map(|moment| moment.to_string())
}

fn sender(message: &Message) -> String {
    if message.envelope.sender.is_empty() { "<>".to_owned() } else { visible(&message.envelope.sender) }
}
