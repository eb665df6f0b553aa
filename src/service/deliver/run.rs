//! One round of tries for a message of the queue: the first, with its text and its recipients still at hand, or a later one,
//! which reads them from its file, [`PAGE`] recipients at a time.
//!
//! | a run is | what is done                                                                                  | it leaves by                     |
//! |----------|-----------------------------------------------------------------------------------------------|----------------------------------|
//! | Reading  | a job reads envelope and text once, and a page of recipients                                   | a page: Trying; no further: over |
//! | Trying   | who is due is brought to his drop; where that is an authenticator is asked anew, but in the first round. Those of other hosts are given to the senders, by hop and sender | all have their fate: Noting |
//! | Noting   | a job writes the new states into the file, synced, or takes a new message away of which nothing is left to do; then closes the intents of those delivered, has the sender told of those who failed, and removes a file that is done with | Reading, over |
//!
//! What other hosts said is written down as soon as it is known, beside the tries of others: the connection that it came by takes
//! no other message before that. A run that waits for senders alone is not one of the [`RUNS`](super::runner::RUNS); how many
//! there are the senders bound, who do not try what there is no room for: then nothing is noted, and the message is in the table again.
//!
//! | a recipient is | he becomes                                                                                  |
//! |----------------|---------------------------------------------------------------------------------------------|
//! | delivered      | delivered                                                                                   |
//! | not, just now  | deferred until `retry_schedule` says; behind `queue_life` expired                           |
//! | perhaps        | deferred, never expired: the next try for him finds the letter if it is there               |
//! | never to be    | failed: his sender is told                                                                  |
//! | perhaps another host's | deferred for `possibly_secs` at least                                               |
//! | not tried      | nothing: he comes again soon                                                                |
//! | parked         | deferred until somebody asks, or he expires                                                 |
//! | delivered, and his sender wants to hear it | succeeded, then delivered: see `telling` |
//!
//! What failed or expired with nobody to tell is dropped.

mod reading;
mod settling;
mod telling;

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lanes::{Fate, Key, Letter, Message, Spot, Stand};
use super::runner::{Desk, Doing, Finished, spot};
use super::ways;
use crate::mail::address::{self, Address};
use crate::mail::dsn::{Report, report_id};
use crate::mail::envelope::Envelope as Stored;
use crate::net::jobs::Kind as JobKind;
use crate::net::turn::Ticket;
use crate::protocol::smtp::params::Recipient as Named;
use crate::protocol::smtp::reply::{self, Reply};
use crate::rules::hops::Hop;
use crate::rules::robot::{self as robots, Facts, Why};
use crate::rules::route::Program;
use crate::service::Outcome;
use crate::service::robot::{self, Robot};
use crate::service::route::{self, Destination, Routing, Step, Way};
use crate::service::send::{self, Consignment, Sent, Whom};
use crate::store::delivery::Failed;
use crate::store::disk::{Disk, RealDisk};
use crate::store::queue::{
    Change, Envelope, ID_BYTES, Kind, Made, Miss, Queue, RECIPIENTS_MAX, Recipient, Stage, State, queued,
};
use crate::text::number::decimal;
pub(super) use reading::Found;
pub(super) use settling::Wound;
use settling::{Next, Noting};

/// Recipients in memory at a time, in a later round.
pub const PAGE: u32 = 64;

/// How long one waits of whom it is not known whether he has it, where the schedule does not say.
const DOUBT_SECS: i64 = 300;

/// The same, when only somebody else has his drop.
const LOCKED_SECS: i64 = 10;
/// How soon it is tried again to write down what could not be.
const NOTE_AGAIN: Duration = Duration::from_secs(10);

/// The least time between two rounds.
const LEAST_SECS: i64 = 5;

/// A recipient who is tried.
pub(super) struct Part {
    /// In the queue's file, from 1.
    pub(super) number: u32,
    pub(super) recipient: Recipient,
    /// How often he was tried before.
    pub(super) tries: u32,
    /// His sender has heard that he waits long.
    pub(super) warned: bool,
    /// His address leads to several, or to those of a list with an owner.
    pub(super) expands: bool,
    /// Where he is, in the first round.
    pub(super) to: Option<Way>,
    /// The way that an operator has said.
    pub(super) via: Option<String>,
    /// How he waited, where he did: until then, and whether another host may have his message.
    pub(super) waited: Option<(i64, bool)>,
}

impl Part {
    fn sender<'a>(&'a self, envelope: &'a Envelope) -> &'a str {
        ways::sender(&self.recipient, envelope)
    }
}

/// Parts that go to other hosts together.
struct Bundle {
    from: Box<str>,
    hop: Arc<Hop>,
    /// The page of its parts, and how they waited.
    like: (u32, Option<(i64, bool)>),
    whom: Vec<Whom>,
}

/// See the page.
pub(super) struct Run {
    id: Box<str>,
    /// Read by the first job of a later round.
    known: Option<(Arc<Message>, Arc<Envelope>)>,
    parts: Vec<Part>,
    /// Parts without a fate.
    out: usize,
    /// Those of them that senders have.
    away: usize,
    /// The table gave it, and it does not wait for senders alone.
    is_counted: bool,
    /// Some parts were not tried: when to come again at the latest.
    again_secs: Option<i64>,
    /// Connections whose outcomes are among the changes.
    lines: Vec<u32>,
    /// Those that are being noted.
    noted_lines: Vec<u32>,
    /// Its file is gone, or cannot be used: it ends when all parts have their fate.
    ends: Option<Next>,
    changes: Vec<Change>,
    stands: Vec<Arc<Stand>>,
    /// What is to be written down of this page, until it is.
    noting: Option<Arc<Mutex<Noting>>>,
    /// Who waits for the first round's end.
    answer: Option<Ticket>,
    /// By how much it waits longer or shorter: the same for all its recipients, so that one line of its file tells of many.
    random: u64,
    /// Senders are to be told of what was noted before.
    owes: bool,
    /// They are with the note that is being written: nothing will follow it.
    tells: bool,
    /// From which number the next page is read; 0: all were at hand.
    next: u32,
}

impl Run {
    /// The first round of a message that has just been filed.
    pub(super) fn first(
        message: Arc<Message>,
        envelope: Arc<Envelope>,
        parts: Vec<Part>,
        answer: Option<Ticket>,
    ) -> Run {
        let id = message.id.clone();
        Run { parts, answer, known: Some((message, envelope)), next: 0, ..Run::of(id.into()) }
    }

    /// A later one.
    pub(super) fn of(id: String) -> Run {
        Run {
            id: id.into(),
            known: None,
            parts: Vec::new(),
            out: 0,
            away: 0,
            is_counted: false,
            again_secs: None,
            lines: Vec::new(),
            noted_lines: Vec::new(),
            ends: None,
            changes: Vec::new(),
            stands: Vec::new(),
            noting: None,
            answer: None,
            random: RealDisk::default().random(),
            owes: false,
            tells: false,
            next: 1,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// One that the table gave: it counts until it only waits for senders.
    pub(super) fn counted(id: String) -> Run {
        Run { is_counted: true, ..Run::of(id) }
    }
}

/// What came of one try for one recipient.
pub(super) enum Came {
    /// It is where it belongs.
    Delivered(Vec<Arc<Stand>>),
    /// Another message of the queue goes on in its place.
    HandedOn,
    /// Not now.
    Later(String),
    /// It never will be.
    Never(String),
    /// Nobody knows.
    Perhaps,
    /// Another host has it: who said what, whether he reports by himself where that was asked for, and whether it was LMTP.
    Sent { said: String, dsn: bool, lmtp: bool },
    /// Another host may have it.
    Possibly(String),
    /// Nothing was tried, and nothing will be before somebody asks.
    Parked,
    /// Nothing was tried, and will be in so many seconds.
    NotTried(u64),
}

impl From<send::Came> for Came {
    fn from(came: send::Came) -> Came {
        match came {
            send::Came::Taken { said, dsn, lmtp } => Came::Sent { said, dsn, lmtp },
            send::Came::Later(why) => Came::Later(why),
            send::Came::Never(why) => Came::Never(why),
            send::Came::Possibly(why) => Came::Possibly(why),
            send::Came::Parked => Came::Parked,
            send::Came::NotTried(secs) => Came::NotTried(secs),
        }
    }
}

impl From<&Reply> for Came {
    fn from(reply: &Reply) -> Came {
        let why = reply.said();
        if reply.code() >= 500 { Came::Never(why) } else { Came::Later(why) }
    }
}

impl From<Fate> for Came {
    fn from(fate: Fate) -> Came {
        match fate {
            Fate::Delivered(stands) => Came::Delivered(stands),
            // Letters of the queue have no mark.
            Fate::Before(_) => Came::Delivered(Vec::new()),
            Fate::Deferred(why) => Came::Later(why),
            Fate::Unknown => Came::Perhaps,
        }
    }
}

impl Desk<'_> {
    /// Tries for all its parts.
    pub(super) fn try_parts(&mut self, at: usize) {
        let run = &mut self.runner.runs[at];
        run.out = run.parts.len();
        let all = run.out;
        let is_remote = |part: &usize| run.parts[*part].recipient.kind == Kind::Remote;
        let (remote, ours): (Vec<usize>, Vec<usize>) = (0..all).partition(is_remote);
        self.send_away(at, &remote);
        for part in ours {
            self.try_part(at, part);
        }
    }

    /// Gives parts of other hosts to the senders: those of one hop and one sender together, of one page, and who waited alike. So
    /// who may have been brought a message in one transaction is brought it again in the same one, be it that a kill or a silent host
    /// left that open: the same message for the same recipients, which the host may know again, and not one to more or fewer of them.
    fn send_away(&mut self, at: usize, parts: &[usize]) {
        let run = &mut self.runner.runs[at];
        let Some((message, envelope)) = run.known.clone() else { return };
        let mut bundles: Vec<Bundle> = Vec::new();
        let mut bad = Vec::new();
        for &part in parts {
            let recipient = &run.parts[part].recipient;
            let from = ways::sender(recipient, &envelope);
            let Some(address) = address_of(&recipient.address) else {
                bad.push(part);
                continue;
            };
            let hop = ways::hop(&self.shared.settings, from, recipient, run.parts[part].via.as_deref());
            let (notify, orcpt) = (recipient.notify, recipient.orcpt.as_deref().map(Into::into));
            let whom = Whom { part, address, notify, orcpt };
            let like = ((run.parts[part].number - 1) / PAGE, run.parts[part].waited);
            let is_one = |known: &&mut Bundle| *known.from == *from && known.hop.key == hop.key && known.like == like;
            match bundles.iter_mut().find(is_one) {
                Some(bundle) => bundle.whom.push(whom),
                None => bundles.push(Bundle { from: from.into(), hop: Arc::new(hop), like, whom: vec![whom] }),
            }
        }
        run.away = parts.len() - bad.len();
        for part in bad {
            self.settle(at, part, Came::Never("5.1.3 this is no address".to_owned()));
        }
        for Bundle { from, hop, whom, .. } in bundles {
            let ticket = self.ticket(Doing::Send(at, whom.len()));
            let sender = address_of(&from);
            let (message, envelope) = (message.clone(), envelope.clone());
            let consignment = Consignment { ticket, message, envelope, sender, recipients: whom, hop, attempts: 0 };
            self.shared.offer(self.now, consignment);
        }
        self.is_away(at);
    }

    /// A run of which nothing is left to do here does not keep another from its turn.
    pub(super) fn is_away(&mut self, at: usize) {
        let Some(run) = self.runner.runs.get_mut(at) else { return };
        if run.is_counted && run.away > 0 && run.away == run.out {
            run.is_counted = false;
            self.runner.tried -= 1;
        }
    }

    /// What came of some of those that senders have.
    pub(super) fn sent(&mut self, ticket: Ticket, at: usize, left: usize, sent: Sent) {
        let Sent { fates, line } = sent;
        let left = left.saturating_sub(fates.len());
        if left > 0 {
            self.expect(ticket, Doing::Send(at, left));
        }
        let run = &mut self.runner.runs[at];
        run.lines.extend(line);
        run.away -= fates.len();
        for (part, came) in fates {
            self.settle(at, part, came);
        }
        self.note_soon(at);
    }

    fn try_part(&mut self, at: usize, part: usize) {
        let run = &mut self.runner.runs[at];
        if run.known.as_ref().is_some_and(|(message, _)| message.has_passed(&run.parts[part].recipient)) {
            return self.settle(at, part, Came::Never(reply::AGAIN.said()));
        }
        let octets = run.known.as_ref().map_or(0, |(message, _)| message.octets());
        let Part { recipient, to, .. } = &mut run.parts[part];
        match (recipient.kind, to.take()) {
            (Kind::Mailbox, Some(way)) if way.lacks_room_for(octets) => {
                let reply = route::full(&self.shared.settings);
                self.settle(at, part, &reply);
            }
            (Kind::Mailbox, Some(Way { to: Destination::Mailbox(name, account), .. })) => {
                let spot = spot(&name, &account, self.shared);
                self.send(at, part, spot);
            }
            (Kind::Mailbox | Kind::Local, _) => self.route(at, part),
            (Kind::Program, _) => self.attend(at, part),
            // These are given to the senders together.
            (Kind::Remote, _) => {}
        }
    }

    fn send(&mut self, at: usize, part: usize, spot: Result<Spot, String>) {
        let run = &self.runner.runs[at];
        let Some((message, _)) = &run.known else { return };
        match spot {
            Ok(spot) => {
                let Part { number, recipient, .. } = &run.parts[part];
                let sender = recipient.with.first().filter(|sender| !sender.is_empty());
                let letter = Letter {
                    key: Key::Queued { run: at, part },
                    message: message.clone(),
                    sender: sender.map(|sender| sender.as_str().into()),
                    recipient: recipient.address.as_str().into(),
                    queued: Some(queued(&run.id, *number)),
                };
                self.runner.lanes.add(self.now, spot, letter);
            }
            Err(why) => {
                log::error!("delivery {}: {why}", run.id);
                self.settle(at, part, Came::Later("4.3.0 the mailbox cannot be found".to_owned()));
            }
        }
    }

    /// Asks where an address of ours leads now, or a user's mailbox is, and whether there is room.
    fn route(&mut self, at: usize, part: usize) {
        let run = &self.runner.runs[at];
        let recipient = &run.parts[part].recipient;
        let Some(address) = address_of(&recipient.address) else {
            return self.settle(at, part, Came::Never("5.1.3 this is no address".to_owned()));
        };
        let stage = ways::stage(recipient);
        let octets = run.known.as_ref().map_or(0, |(message, _)| message.octets());
        let mut routing = Box::new(Routing::begin(&address, stage, octets, false, self.shared));
        let ticket = self.ticket_for_routing();
        let step = routing.go_on(self.now, ticket, self.shared);
        self.stepped(at, part, routing, ticket, step);
    }

    pub(super) fn routed(&mut self, at: usize, part: usize, mut routing: Box<Routing>, outcome: Outcome) {
        let ticket = self.ticket_for_routing();
        let step = routing.told(self.now, outcome, ticket, self.shared);
        self.stepped(at, part, routing, ticket, step);
    }

    fn stepped(&mut self, at: usize, part: usize, routing: Box<Routing>, ticket: Ticket, step: Step) {
        let ways = match step {
            Step::Asked => return self.expect(ticket, Doing::Route(at, part, routing)),
            Step::Settled(Ok(ways)) => ways,
            Step::Settled(Err(reply)) => return self.settle(at, part, &reply),
        };
        match &ways[..] {
            // Thrown away.
            [] => self.settle(at, part, Came::Delivered(Vec::new())),
            [Way { to: Destination::Mailbox(name, account), sender: None, .. }] => {
                let spot = spot(name, account, self.shared);
                self.send(at, part, spot);
            }
            _ => self.hand_on(at, part, &ways),
        }
    }

    /// An address that leads to several, or to others, becomes a message of its own, made once, whatever happens meanwhile.
    fn hand_on(&mut self, at: usize, part: usize, ways: &[Way]) {
        let run = &mut self.runner.runs[at];
        let Some((message, envelope)) = run.known.clone() else { return };
        run.parts[part].expands = ways::expand(ways);
        let Part { number, recipient, .. } = &run.parts[part];
        let id = handed_on_id(&run.id, *number);
        // A bounce of it needs room behind that.
        let longest = report_id(&id, Report::Bounce, RECIPIENTS_MAX).len();
        let Some(path) = address_of(&recipient.address).filter(|_| longest <= ID_BYTES) else {
            return self.settle(at, part, Came::Never("5.4.6 it is going round in circles".to_owned()));
        };
        let mut named = Named { path, notify: recipient.notify, orcpt: recipient.orcpt.as_deref().map(Into::into) };
        if run.parts[part].expands
            && let Some(notify) = &mut named.notify
        {
            // RFC 3461 §5.2.7.3: that it was expanded is the success, and each of the others may still fail.
            notify.success = false;
        }
        let sender = ways::sender(recipient, &envelope).to_owned();
        let recipients: Vec<Recipient> =
            ways.iter().map(|way| ways::recipient(way, &sender, &named, &self.shared.settings)).collect();
        let envelope = Envelope { sender, bounce_of: None, mark: None, ..(*envelope).clone() };
        let volume = self.shared.transit.stores.volume;
        let doing = Doing::HandOn(at, part, id.clone());
        let taken = self.job(doing, JobKind::Sync, volume, move |stores, _| {
            let made = stores.queue.create(&id, &envelope, &recipients, &message.text.body());
            Finished::Filed(match made {
                Ok(Made::New) => once(&stores.queue, &id, recipients.len()),
                made => made,
            })
        });
        if taken.is_err() {
            self.settle(at, part, Came::Later("4.3.0 the disks are too busy".to_owned()));
        }
    }

    pub(super) fn handed_on(&mut self, at: usize, part: usize, id: &str, result: Result<Made, Failed>) {
        match result {
            Ok(made) => {
                self.shared.transit.counts.queued += u64::from(made == Made::New);
                // One that was there may be of a try that did not come to its end, and nobody's.
                self.shared.transit.table.remove(id);
                self.keep(id, self.secs);
                log::info!("delivery {}: goes on as {id}", self.runner.runs[at].id);
                self.settle(at, part, Came::HandedOn);
            }
            Err(Failed::Refused(refused)) => {
                log::error!("delivery {id}: {refused}");
                self.settle(at, part, Came::Later("4.3.0 the queue cannot be written to".to_owned()));
            }
            Err(Failed::Unknown(fault)) => {
                log::error!("delivery {id}: {fault}");
                self.settle(at, part, Came::Later("4.3.0 the queue cannot be written to".to_owned()));
            }
        }
    }

    /// Gives it to a program.
    fn attend(&mut self, at: usize, part: usize) {
        let run = &self.runner.runs[at];
        let Some((message, envelope)) = run.known.clone() else { return };
        let recipient = &run.parts[part].recipient;
        let Some(Program { words, user }) = ways::program(recipient) else {
            return self.settle(at, part, Came::Never("5.3.5 this is no program".to_owned()));
        };
        let sender = ways::sender(recipient, &envelope).to_owned();
        let head = Stored {
            sender: sender.as_bytes(),
            recipient: recipient.address.as_bytes(),
            received: &message.received,
            posted_secs: message.posted_secs,
        };
        let head = head.fields();
        let delimiter = self.shared.settings.recipient_delimiter;
        let facts = Facts::of(&sender, &recipient.address, delimiter, &run.id, &envelope.came);
        let text = Box::new(move |file: &mut File| message.text.write_to(file));
        let ticket = self.ticket(Doing::Robot(at, part));
        if robot::start(Robot { words, user, facts, head, text }, ticket, self.shared).is_err() {
            self.forget(ticket);
            self.settle(at, part, Came::Later("4.3.0 too many programs are running".to_owned()));
        }
    }

    pub(super) fn attended(&mut self, at: usize, part: usize, verdict: robots::Verdict) {
        let sentence = |why: Why| [vec![format!("{} {}", why.status, why.text)], why.said].concat().join("; ");
        let came = match verdict {
            robots::Verdict::Taken => Came::Delivered(Vec::new()),
            robots::Verdict::Later(why) => Came::Later(sentence(why)),
            robots::Verdict::Never(why) => Came::Never(sentence(why)),
        };
        self.settle(at, part, came);
    }
}

/// An address of the queue's.
pub(super) fn address_of(text: &str) -> Option<Address> {
    address::path(format!("<{text}>").as_bytes(), true).ok()?.0
}

/// The id of what goes on in place of a recipient of a message: the same whenever it is made.
fn handed_on_id(id: &str, number: u32) -> String {
    format!("{id}r{number}")
}

/// In whose place a message goes on, if it does.
fn handed_on_from(id: &str) -> Option<(&str, u32)> {
    let (origin, number) = id.rsplit_once('r')?;
    Some((origin, u32::try_from(decimal(number.as_bytes())?).ok()?))
}

/// A message that goes on in place of a recipient has been made. Should he have become delivered meanwhile, one like it was made
/// before, by a server that was killed, and has come to its end: this one is taken away. In a job.
fn once(queue: &Queue, id: &str, recipients: usize) -> Result<Made, Failed> {
    let Some((origin, number)) = handed_on_from(id) else { return Ok(Made::New) };
    let is_over = match queue.page(origin, number, 1) {
        Ok(rows) => rows.iter().any(|row| matches!(row.state.stage(), Stage::Delivered | Stage::Succeeded)),
        Err(_) => false,
    };
    if is_over {
        let deleted = (1..).take(recipients).map(|number| Change { number, to: State::Deleted }).collect::<Vec<_>>();
        let removed = queue.note(id, 0, &deleted).and_then(|_| queue.remove(id));
        if let Err(Miss::Damaged(fault) | Miss::Fault(fault)) = removed {
            return Err(Failed::Unknown(fault));
        }
    }
    Ok(Made::New)
}
