//! A message from MAIL to the answer after its dot.
//!
//! | step    | what is there                                   | it leaves by                                   |
//! |---------|-------------------------------------------------|------------------------------------------------|
//! | Begun   | a sender, an id; recipients with where they lead | DATA; RSET, EHLO, the end forget it           |
//! | Coming  | its text too                                    | the last dot; trouble forgets it               |
//! | Gone    | who it was, for the log                         | what delivery says: 250, a refusal, no answer  |

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Peer, Said, Service};
use crate::mail::address;
use crate::mail::notice::Notice;
use crate::mail::received::{self, From, Received, With};
use crate::mail::submitted::Submitted;
use crate::mail::undots::Tally;
use crate::net::stream::{Done, Flow};
use crate::protocol::smtp::params::{Recipient, Sender};
use crate::protocol::smtp::reply::{self, Reply};
use crate::protocol::smtp::{Answer, Face};
use crate::rules::relay::Gate;
use crate::rules::route::DESTINATIONS_MOST;
use crate::rules::sending::Over;
use crate::service::deliver::{Body, Dispatched, Parcel, Progress, To};
use crate::service::noise::Event;
use crate::service::relay::{self, Denied, Who};
use crate::service::route::{Routing, Stage, Step, Way};
use crate::service::{Outcome, Shared};
use crate::settings::Settings;
use crate::store::repeats::{Mark, Marking};
use crate::text::printable::printable;

/// A message under way.
pub(super) struct Mail {
    /// Its id in the queue and in every line of the log.
    id: Box<str>,
    /// Who sends it; handed on with its text.
    sender: Option<Box<Sender>>,
    /// Who is to have it, and where that leads; handed on with its text.
    recipients: Vec<To>,
    /// To how many places they lead. One may lead to as many as any; several to no more together, for a message names a
    /// large list in as many ways as it likes.
    ways: usize,
    /// One more would have led to too many: nobody else is even looked up.
    is_full: bool,
    /// Who is being looked up.
    asked: Option<Box<(Recipient, Option<Routing>)>>,
    /// Its text.
    body: Option<Body>,
    /// What it will be known by if its sender sends it again, where he is a server.
    marking: Option<Box<Marking>>,
    /// What is done to a user's message as it passes.
    submitted: Option<Box<Submitted>>,
    /// Its text is whole but for the last of what a user's message lacked, which is being taken.
    whole: Option<Box<Tally>>,
    /// With its recipients its sender is over his bound: it is kept until an operator has looked at it.
    over: Option<Over>,
    /// Its sender is held until there is room for text.
    held: bool,
    /// What the log says of it when it is known what became of it.
    line: Option<Box<Line>>,
}

/// What the log says of a message that was handed on.
struct Line {
    from: String,
    recipients: usize,
    tally: Tally,
    mark: Option<Mark>,
}

impl Mail {
    /// Bytes of its text so far.
    pub(super) fn octets(&self) -> u64 {
        self.body.as_ref().map_or(0, Body::bytes)
    }

    /// Bytes that it holds besides its text.
    pub(super) fn held(&self) -> usize {
        size_of::<Mail>()
            + self.id.len()
            + self.marking.as_ref().map_or(0, |_| size_of::<Marking>())
            + self.recipients.capacity() * size_of::<To>()
            + self.recipients.iter().map(|to| to.ways.capacity() * size_of::<Way>()).sum::<usize>()
    }
}

impl Service<'_> {
    /// Sender, recipients and text are gone.
    pub(super) fn forget(&mut self) {
        self.session.mail = None;
        self.session.committing = false;
    }

    pub(super) fn sender(&mut self, now: Instant, sender: Sender) -> Said {
        if self.shared.transit.is_short() {
            return self.refused(reply::NO_SPACE.clone());
        }
        let path = sender.path.as_ref();
        if let Err(denied) = self.with_sender(|shared, settings, who| relay::sender(now, shared, settings, who, path)) {
            return self.denied(*denied);
        }
        let id = self.shared.transit.new_id();
        self.session.mail = Some(Box::new(Mail {
            id,
            sender: Some(Box::new(sender)),
            recipients: Vec::new(),
            ways: 0,
            is_full: false,
            asked: None,
            body: None,
            marking: None,
            submitted: None,
            whole: None,
            over: None,
            held: false,
            line: None,
        }));
        Done::Now(Answer::Go)
    }

    /// Asks a rule about who sends.
    fn with_sender<T>(&mut self, work: impl FnOnce(&mut Shared, &Settings, &Who<'_>) -> T) -> T {
        let settings = self.session.settings.clone();
        let gate = match (self.session.peer, self.face) {
            (Peer::Program(_), _) => Gate::Program,
            (_, Face::Mx) => Gate::Mx,
            (_, Face::Submission) => Gate::Submission,
            (_, Face::Lmtp) => Gate::Lmtp,
        };
        let (address, login) = match self.session.peer {
            Peer::Host(address) => (Some(address), self.session.user.as_deref()),
            Peer::Program(_) => (None, None),
        };
        work(self.shared, &settings, &Who { gate, address, login })
    }

    /// A rule says no.
    fn denied(&mut self, denied: Denied) -> Said {
        self.turned_down(denied.reply, Some(denied.trail))
    }

    /// Somebody or something is refused: counted, and said in the log.
    fn refused(&mut self, why: Reply) -> Said {
        self.turned_down(why, None)
    }

    fn turned_down(&mut self, why: Reply, trail: Option<String>) -> Said {
        self.session.refused = self.session.refused.saturating_add(1);
        self.shared.counts.smtp.refused += 1;
        if self.has_line(Event::Unwanted) {
            let from = self.session.from();
            let mail = self.session.mail.as_deref();
            let id = mail.map_or("-", |mail| &mail.id);
            let whom = mail.and_then(|mail| mail.asked.as_deref());
            let whom =
                whom.map_or_else(String::new, |(to, _)| format!(" to {}", printable(to.path.to_string().as_bytes())));
            log::info!("smtp {} {id} {from}: mail refused{whom}: {why}", self.id);
            if let Some(trail) = trail {
                log::debug!("smtp {} {id} {from}: {trail}", self.id);
            }
        }
        Done::Now(Answer::Reply(Box::new(why)))
    }

    pub(super) fn recipient(&mut self, now: Instant, recipient: Recipient) -> Said {
        let sender = self.session.mail.as_deref().and_then(|mail| mail.sender.as_deref());
        let sender = sender.and_then(|sender| sender.path.clone());
        let passed = self.with_sender(|shared, settings, who| {
            relay::recipient(now, shared, settings, who, sender.as_ref(), &recipient.path)
        });
        let over = match passed {
            Ok(passed) => passed.held_for,
            Err(denied) => {
                self.whom(recipient, None);
                let said = self.denied(*denied);
                self.nobody_is_asked();
                return said;
            }
        };
        if let Some(mail) = self.session.mail.as_deref_mut() {
            mail.over = mail.over.or(over);
        }
        // It is routed by the settings in force: what was ours when the client came, and is not any more, would go to a host that
        // nobody gave it a right to.
        let is_ours = |settings| relay::is_ours(settings, &recipient.path);
        let is_moved = is_ours(&self.session.settings) != is_ours(&self.shared.settings);
        let is_full = self.session.mail.as_deref().is_some_and(|mail| mail.is_full);
        if is_moved || is_full {
            let why = if is_full { reply::TOO_MANY_RECIPIENTS.clone() } else { reply::UNAVAILABLE.clone() };
            self.whom(recipient, None);
            let said = self.refused(why);
            self.nobody_is_asked();
            return said;
        }
        let octets = self.session.mail.as_deref().and_then(|mail| mail.sender.as_deref()?.size).unwrap_or(0);
        let routing = Routing::begin(&recipient.path, Stage::Whole, octets, false, self.shared);
        self.whom(recipient, Some(routing));
        self.route(now, None)
    }

    /// It is this recipient that is being asked about.
    fn whom(&mut self, recipient: Recipient, routing: Option<Routing>) {
        if let Some(mail) = self.session.mail.as_deref_mut() {
            mail.asked = Some(Box::new((recipient, routing)));
        }
    }

    fn nobody_is_asked(&mut self) -> Option<(Recipient, Option<Routing>)> {
        self.session.mail.as_deref_mut()?.asked.take().map(|asked| *asked)
    }

    /// Whether a recipient is on its way to where it leads.
    pub(super) fn is_routing(&self) -> bool {
        let asked = self.session.mail.as_deref().and_then(|mail| mail.asked.as_deref());
        asked.is_some_and(|(_, routing)| routing.is_some())
    }

    /// A recipient begins its way, or goes on by what was answered.
    pub(super) fn route(&mut self, now: Instant, outcome: Option<Outcome>) -> Said {
        let ticket = self.ticket();
        let asked = self.session.mail.as_deref_mut().and_then(|mail| mail.asked.as_deref_mut());
        let Some((_, Some(routing))) = asked else { return Done::Now(Answer::Failed) };
        let step = match outcome {
            Some(outcome) => routing.told(now, outcome, ticket, self.shared),
            None => routing.go_on(now, ticket, self.shared),
        };
        match step {
            Step::Asked => Done::Later,
            Step::Settled(Ok(ways)) => {
                let Some(mail) = self.session.mail.as_deref_mut() else { return Done::Now(Answer::Failed) };
                if mail.ways > 0 && mail.ways + ways.len() > DESTINATIONS_MOST {
                    mail.is_full = true;
                    let said = self.refused(reply::TOO_MANY_RECIPIENTS.clone());
                    self.nobody_is_asked();
                    return said;
                }
                let Some((recipient, _)) = mail.asked.take().map(|asked| *asked) else {
                    return Done::Now(Answer::Failed);
                };
                mail.ways += ways.len();
                mail.recipients.push(To { recipient, ways });
                Done::Now(Answer::Go)
            }
            Step::Settled(Err(reply)) => {
                let said = self.refused(reply);
                self.nobody_is_asked();
                said
            }
        }
    }

    /// Its text comes next.
    pub(super) fn begin(&mut self) -> Said {
        let body = self.shared.transit.body();
        let host = self.session.settings.main_domain();
        let is_marked = self.face != Face::Submission && self.shared.settings.merge_repeats;
        let marking = is_marked.then(|| Box::new(self.shared.transit.marking()));
        let Some(mail) = self.session.mail.as_deref_mut() else { return Done::Now(Answer::Failed) };
        mail.body = Some(body);
        mail.marking = marking;
        if self.face == Face::Submission {
            let date = received::date(seconds(SystemTime::now()));
            mail.submitted = Some(Box::new(Submitted::new(&date, &format!("<{}@{host}>", mail.id))));
        }
        Done::Now(Answer::Go)
    }

    /// Whether there is no room for text just now.
    pub(super) fn must_wait(&mut self) -> Flow {
        match self.session.mail.as_deref() {
            Some(mail) if mail.body.is_some() && !mail.held => {}
            _ => return Flow::More,
        }
        let ticket = self.ticket();
        let Some(Mail { body: Some(body), held, .. }) = self.session.mail.as_deref_mut() else { return Flow::More };
        let flow = body.wait(ticket, self.shared);
        *held = flow == Flow::Hold;
        flow
    }

    /// Takes a piece of text.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Flow {
        let ticket = self.ticket();
        let Some(Mail { body: Some(body), held, marking, submitted, .. }) = self.session.mail.as_deref_mut() else {
            return Flow::More;
        };
        if let Some(marking) = marking {
            marking.feed(bytes);
        }
        let flow = match submitted {
            None => body.take(bytes, ticket, self.shared),
            Some(submitted) => {
                let mut kept = Vec::with_capacity(bytes.len());
                submitted.feed(bytes, &mut kept);
                body.take(&kept, ticket, self.shared)
            }
        };
        *held = flow == Flow::Hold;
        flow
    }

    /// Whether its sender is held until something is done with its text.
    pub(super) fn is_held(&self) -> bool {
        self.session.mail.as_deref().is_some_and(|mail| mail.held)
    }

    /// What its sender was held for.
    pub(super) fn room(&mut self, progress: Option<Progress>) {
        let Some(Mail { body: Some(body), held, .. }) = self.session.mail.as_deref_mut() else { return };
        match progress {
            Some(progress) => body.told(progress),
            None => body.lost(),
        }
        *held = false;
    }

    /// The text is whole, but perhaps for what a user's message lacked to its very end.
    pub(super) fn commit(&mut self, tally: Tally) -> Said {
        self.shared.counts.smtp.bare += tally.bare;
        self.shared.counts.smtp.nuls += tally.nuls;
        self.session.committing = true;
        let mut rest = Vec::new();
        if let Some(submitted) = self.session.mail.as_deref_mut().and_then(|mail| mail.submitted.take()) {
            submitted.finish(&mut rest);
        }
        if !rest.is_empty() && self.take(&rest) == Flow::Hold {
            if let Some(mail) = self.session.mail.as_deref_mut() {
                mail.whole = Some(Box::new(tally));
            }
            return Done::Later;
        }
        self.hand_over(tally)
    }

    /// What the end of a text was held for has been done: the text is whole.
    pub(super) fn end_taken(&mut self) -> Option<Said> {
        let tally = self.session.mail.as_deref_mut()?.whole.take()?;
        Some(self.hand_over(*tally))
    }

    /// It is delivery's now.
    fn hand_over(&mut self, tally: Tally) -> Said {
        let posted_secs = seconds(SystemTime::now());
        let Some(mail) = self.session.mail.as_deref() else { return Done::Now(Answer::Failed) };
        let received = self.received(mail, posted_secs);
        let came = self.came_by(mail).into();
        let over = mail.over;
        let hold = over.map(|over| format!("{} is used up", over.setting()).into());
        let ticket = self.ticket();
        let Some(mail) = self.session.mail.as_deref_mut() else { return Done::Now(Answer::Failed) };
        let (Some(body), Some(sender)) = (mail.body.take(), mail.sender.take()) else {
            return Done::Now(Answer::Failed);
        };
        let recipients = std::mem::take(&mut mail.recipients);
        let from = sender.path.as_ref().map_or_else(String::new, ToString::to_string);
        // Without a trace of its way nothing tells a repetition from a second message.
        let marking = mail.marking.take().filter(|_| tally.hops > 0);
        let named = || recipients.iter().map(|to| to.recipient.path.to_string()).collect();
        let mark = marking.map(|marking| marking.finish(&from, named()));
        mail.line = Some(Box::new(Line { from, recipients: recipients.len(), tally, mark }));
        let parcel =
            Parcel { id: mail.id.clone(), sender: *sender, recipients, received, came, posted_secs, hold, mark, body };
        self.shared.transit.dispatch(ticket, parcel);
        if let Some(over) = over {
            self.tell_operator(over, posted_secs);
        }
        Done::Later
    }

    /// A user's message is held: a postmaster hears of him once a day. Nobody waits for what becomes of that.
    fn tell_operator(&mut self, over: Over, posted_secs: i64) {
        let Some(user) = self.session.user.as_deref() else { return };
        if !self.shared.guard.sending.tells(self.now, user) {
            return;
        }
        let host = self.session.settings.main_domain();
        let Ok((Some(to), _)) = address::path(format!("<postmaster@{host}>").as_bytes(), false) else { return };
        let (id, whom) = (self.shared.transit.new_id(), to.to_string());
        let subject = format!("mail of {user} is held");
        let text = Notice { host, to: &whom, subject: &subject, id: &id, posted_secs }.written(&[
            &format!(
                "{user} has sent to more recipients than {} allows, last from {}.",
                over.setting(),
                self.session.from()
            ),
            "Either that is much mail, and the bound is too low, or somebody else has the password. What is sent beyond the \
             bound waits in the queue, and nobody gets it, until you have looked at it:",
            "tellsmtp queue list",
            "tellsmtp queue release ID, or tellsmtp queue delete ID",
            "There is one such message a day and user.",
        ]);
        self.shared.transit.tell(id, to, &text, posted_secs);
    }

    fn received(&self, mail: &Mail, posted_secs: i64) -> Box<[u8]> {
        let hello = self.session.hello.as_ref();
        let from = match self.session.peer {
            Peer::Host(address) => From::Client {
                hello: hello.map_or("unknown", |hello| &hello.name),
                name: self.session.host.as_deref(),
                address,
            },
            Peer::Program(uid) => From::Program { user: self.session.user.as_deref(), uid },
        };
        let with = self.with(mail);
        let recipient = match &mail.recipients[..] {
            [only] => Some(only.recipient.path.to_string()),
            _ => None,
        };
        let by = self.session.settings.main_domain();
        Received { from, by, with, id: &mail.id, recipient: recipient.as_deref(), posted_secs }.written().into()
    }

    /// By which protocol it comes.
    fn with(&self, mail: &Mail) -> With {
        With {
            lmtp: self.face == Face::Lmtp,
            extended: self.session.hello.as_ref().is_some_and(|hello| hello.extended),
            tls: self.session.secured,
            login: self.session.user.is_some() && matches!(self.session.peer, Peer::Host(_)),
            utf8: mail.sender.as_deref().is_some_and(|sender| sender.utf8),
        }
    }

    /// How it came, for people: `ESMTPSA from 192.0.2.1 (mx.example.org) as ann`.
    fn came_by(&self, mail: &Mail) -> String {
        let who = self.session.user.as_deref().map(|user| format!(" as {}", printable(user.as_bytes())));
        format!("{} from {}{}", self.with(mail).keyword(), self.session.from(), who.unwrap_or_default())
    }

    /// It is known what became of a message.
    pub(super) fn dispatched(&mut self, dispatched: Dispatched) -> Said {
        let mail = self.session.mail.take();
        self.session.committing = false;
        let Some(Mail { id, line: Some(line), .. }) = mail.map(|mail| *mail) else { return Done::Now(Answer::Failed) };
        match dispatched {
            Dispatched::Kept => {
                self.session.accepted = self.session.accepted.saturating_add(1);
                let counts = &mut self.shared.counts.smtp;
                counts.accepted += 1;
                counts.recipients += line.recipients as u64;
                counts.octets += line.tally.octets();
                self.log_accepted(&id, &line);
                self.kept(&id, &line)
            }
            Dispatched::Before(id) => {
                self.session.accepted = self.session.accepted.saturating_add(1);
                self.kept(&id, &line)
            }
            Dispatched::Refused(why) => {
                self.session.refused = self.session.refused.saturating_add(1);
                self.shared.counts.smtp.refused += 1;
                if self.has_line(Event::Unwanted) {
                    log::info!("smtp {} {id} {}: message refused: {why}", self.id, self.session.from());
                }
                Done::Now(Answer::Reply(Box::new(why)))
            }
            // The connection ends, and is not asked: see `Conversation::deliver`.
            Dispatched::Unknown => Done::Now(Answer::Failed),
        }
    }

    /// A message is kept with this id, or was.
    fn kept(&mut self, id: &str, line: &Line) -> Said {
        self.session.unheard = line.mark;
        let kept = Reply::new(250, 0, 0, format!("Accepted as {id}"));
        match self.face {
            Face::Lmtp => Done::Now(Answer::Each(vec![kept; line.recipients])),
            Face::Mx | Face::Submission => Done::Now(Answer::Reply(Box::new(kept))),
        }
    }

    /// The line of an accepted message.
    fn log_accepted(&self, id: &str, line: &Line) {
        let Line { from, recipients, tally, .. } = line;
        let who = self.session.user.as_deref().map_or("-".into(), |user| printable(user.as_bytes()));
        let how = if self.session.secured { "tls" } else { "plain" };
        let odd = match (tally.bare, tally.nuls) {
            (0, 0) => String::new(),
            (bare, nuls) => format!("; {bare} lone line ends, {nuls} NULs"),
        };
        log::info!(
            "smtp {} {id} {who} {} {how}: accepted from <{}> for {recipients} recipients, {} octets{odd}",
            self.id,
            self.session.from(),
            printable(from.as_bytes()),
            tally.octets(),
        );
    }
}

fn seconds(now: SystemTime) -> i64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since: Duration| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
