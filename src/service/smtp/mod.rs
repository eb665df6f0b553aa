//! One SMTP or LMTP client's session: the host of an [`Smtp`] conversation.
//!
//! | asked           | answered                                                                                     |
//! |-----------------|----------------------------------------------------------------------------------------------|
//! | Hold            | when its time is over; at once where nobody is held                                          |
//! | Login, Verifier | from the cache at once, else by an authenticator; both perhaps after a wait                  |
//! | Proof           | at once                                                                                      |
//! | Hello           | at once; for a program on this host by a job, which asks the system what its user is called  |
//! | Sender          | at once                                                                                      |
//! | Recipient       | when it is known where it leads: see [`route`](super::route)                                 |
//! | Reset, Begin    | at once                                                                                      |
//! | Etrn            | when the queue was looked through, or after five seconds: see [`summon`]                    |
//! | data            | taken; while there is no room for text the sender is held                                    |
//! | Commit          | when the message is in a drop or in the queue, on disk; or will not be                       |
//!
//! `entering.rs` is the way in, `mail.rs` a message from MAIL to the answer after its dot.
//!
//! **A sender who goes** takes along what was begun before its last dot came: nothing of it is anywhere. Behind the dot it is
//! delivery's, whoever is still there to hear the answer. Nobody waits longer for that answer than the client would
//! (`after_dot`): then the connection ends without one, because what was begun cannot be taken back.
//!
//! **A sender who does not hear the answer** sends the message again. What was kept is remembered by its mark
//! ([`repeats`](crate::store::repeats)) until he says something more, which is forgotten at once then. What he had said already when he
//! was answered, QUIT together with the dot for instance, says nothing of it.

mod entering;
mod mail;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::deliver::Dispatched;
use super::entering::Entering;
use super::noise::Event;
use super::summon::{self, Begun};
use super::{Channel, Outcome, Shared, relay};
use crate::mail::undots::Bare;
use crate::net::sock::Sock;
use crate::net::stream::{Done, Flow, Host, Never, Readiness, Scratch, Stream, Turn};
use crate::net::tls::Tls;
use crate::net::turn::{Id, Ticket};
use crate::net::{Registry, TcpStream, Token, UnixStream, watch};
use crate::protocol::smtp::reply::Reply;
use crate::protocol::smtp::{Answer, Ask, Face, Hello, Link, Node, Rules, Smtp, reply};
use crate::protocol::{End, Machine};
use crate::rules::domains::Home;
use crate::rules::places::Kind;
use crate::settings::{BareNewline, HideAuth, Settings};
use crate::store::repeats::Mark;
use crate::sys::{group, network};
use crate::text::printable::printable;
use mail::Mail;

/// How long the host may take over a message: then the client would give up (RFC 5321 §4.5.3.2.6).
const AFTER_DOT: Duration = Duration::from_secs(600);
/// Octets read of a message that is too big, beyond twice the largest, to answer it at its end.
const SWALLOW: u64 = 1 << 20;
/// Unknown commands after which a client is closed.
const MAX_UNKNOWN: u16 = 10;
/// Commands that lead nowhere after which it is.
const MAX_IDLE: u16 = 100;
/// Connections of programs on this host at a time. They have their own bound, so that they work when everything else is full.
pub const MOST_PROGRAMS: usize = 64;

/// An SMTP client's connection.
pub struct Conversation {
    stream: Stream<Sock, Smtp, Never>,
    session: Session,
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// Somewhere.
    Host(IpAddr),
    /// On this host, and the system says whose program it is.
    Program(u32),
}

/// Who has come, and how.
struct Caller {
    peer: Peer,
    face: Face,
    link: Link,
    /// The domain of users who name none.
    here: Home,
}

/// What the service knows of one client.
struct Session {
    settings: Arc<Settings>,
    peer: Peer,
    /// The domain of users who name none.
    here: Home,
    began: Instant,
    /// Which ask is owed an answer, counted.
    serial: u32,
    /// The name of the client's host, where names are looked up and it has one.
    host: Option<Box<str>>,
    /// How it calls itself.
    hello: Option<Hello>,
    /// What is only needed while somebody logs in.
    entering: Option<Box<Entering>>,
    /// Who has logged in, or whose program it is.
    user: Option<Box<str>>,
    /// The message under way.
    mail: Option<Box<Mail>>,
    /// The last message that was kept, until it is known that the client has heard so.
    unheard: Option<Mark>,
    /// Messages that were accepted.
    accepted: u32,
    /// Senders, recipients and messages that were refused.
    refused: u32,
    /// The greeting is held back.
    mute: bool,
    secured: bool,
    /// An answer after the dot is owed.
    committing: bool,
    /// Until when an answer to ETRN may wait.
    summoning: Option<Box<Instant>>,
}

impl Shared {
    /// What follows from settings for SMTP conversations.
    pub fn smtp_rules(settings: &Settings) -> Arc<Rules> {
        let seconds = Duration::from_secs;
        Arc::new(Rules {
            host: settings.main_domain().into(),
            hide_version: settings.hide_version,
            hide_auth: settings.hide_auth == HideAuth::Everybody,
            hold: seconds(settings.smtp_greeting_hold_secs),
            greeting: seconds(settings.smtp_greeting_secs),
            command: seconds(settings.smtp_command_secs),
            data: seconds(settings.smtp_data_secs),
            after_dot: AFTER_DOT,
            size: (settings.smtp_max_size > 0).then(|| settings.smtp_max_size.saturating_mul(1024)),
            swallow: SWALLOW,
            recipients: settings.max_rcpts,
            header_lines: settings.smtp_header_lines,
            header_bytes: settings.smtp_header_kbytes.saturating_mul(1024),
            hops: settings.smtp_max_hops,
            text_line: settings.smtp_line_bytes,
            bare_newline: match settings.bare_newline {
                BareNewline::Normalize => Bare::Normalize,
                BareNewline::Reject => Bare::Reject,
            },
            max_errors: settings.smtp_max_errors,
            max_unknown: MAX_UNKNOWN,
            max_idle: MAX_IDLE,
        })
    }
}

/// Which kind of connections this face has.
pub fn kind(face: Face) -> Kind {
    match face {
        Face::Mx | Face::Lmtp => Kind::Servers,
        Face::Submission => Kind::Senders,
    }
}

impl Conversation {
    /// A client that has just come in over the network.
    pub fn new(
        now: Instant,
        sock: TcpStream,
        peer: SocketAddr,
        face: Face,
        tls: bool,
        shared: &Shared,
    ) -> io::Result<Conversation> {
        let abilities = shared.helpers.last().map(|helpers| helpers.pool.abilities()).unwrap_or_default();
        let link = Link {
            tls,
            can_tls: shared.tls.is_some(),
            plain_ok: shared.plain_ok(peer),
            scram: abilities.scram,
            known: face == Face::Submission && relay::needs_no_login(now, shared, peer.ip()),
            etrn: face == Face::Mx && shared.settings.etrn_from_ip.contains(peer.ip().to_canonical()),
        };
        // The address costs a system call: it is asked for only where it tells domains apart.
        let here = match shared.settings.domains.look_at_addresses() {
            true => shared.settings.domains.home_at(sock.local_addr()?.ip()),
            false => Home::default(),
        };
        let at_once = match (tls, &shared.tls) {
            (true, None) => return Err(io::Error::other("a reload has just taken TLS away")),
            (true, Some(tls)) => Some(tls.clone()),
            (false, _) => None,
        };
        let caller = Caller { peer: Peer::Host(peer.ip().to_canonical()), face, link, here };
        Conversation::open(now, Sock::Tcp(sock), caller, at_once, shared)
    }

    /// A program on this host.
    pub fn local(now: Instant, sock: UnixStream, shared: &Shared) -> io::Result<Conversation> {
        let peer = Peer::Program(group::peer(&sock)?.uid);
        let link = Link { tls: false, can_tls: false, plain_ok: false, scram: false, known: true, etrn: false };
        let caller = Caller { peer, face: Face::Submission, link, here: Home::default() };
        Conversation::open(now, Sock::Unix(sock), caller, None, shared)
    }

    /// `at_once`: within this TLS from the first byte.
    fn open(
        now: Instant,
        sock: Sock,
        caller: Caller,
        at_once: Option<Tls>,
        shared: &Shared,
    ) -> io::Result<Conversation> {
        let Caller { peer, face, link, here } = caller;
        let machine = Smtp::new(now, shared.smtp.clone(), face, link);
        Ok(Conversation {
            stream: Stream::open(now, sock, machine, at_once.map(Into::into))?,
            session: Session {
                settings: shared.settings.clone(),
                peer,
                here,
                began: now,
                serial: 0,
                host: None,
                hello: None,
                entering: None,
                user: None,
                mail: None,
                unheard: None,
                accepted: 0,
                refused: 0,
                mute: false,
                secured: link.tls,
                committing: false,
                summoning: None,
            },
        })
    }

    /// Registers the socket, once, for both directions.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        watch(registry, self.stream.sock_mut(), token)
    }

    /// Takes it away again. An error means that it is gone already.
    pub fn deregister(&mut self, registry: &Registry) {
        let _ = registry.deregister(self.stream.sock_mut());
    }

    /// The kernel says something about the socket.
    pub fn mark(&mut self, ready: Readiness) {
        self.stream.mark(ready);
    }

    /// Does what can be done now.
    pub fn turn(&mut self, id: Id, now: Instant, shared: &mut Shared, scratch: &mut Scratch) -> Turn {
        // A server that stops lets nobody wait.
        if self.parked().is_some_and(|at| at <= now || shared.stopping) {
            let spoke = self.session.mute && network::is_readable(self.stream.sock());
            let mut service =
                Service { session: &mut self.session, shared, id, now, face: self.stream.machine().face() };
            match service.again(now, spoke) {
                Done::Later => {}
                done => self.stream.answer(done),
            }
        }
        let face = self.stream.machine().face();
        let mut host = Service { session: &mut self.session, shared, id, now, face };
        if host.must_wait() == Flow::Hold {
            self.stream.hold();
        }
        let turn = self.stream.turn(now, scratch, &mut host);
        if self.stream.machine().has_spoken()
            && let Some(mark) = self.session.unheard.take()
        {
            shared.transit.heard(&mark);
        }
        turn
    }

    /// When [`expire`](Conversation::expire) has to be called.
    pub fn deadline(&self) -> Option<Instant> {
        // What the machine waits for after the dot has a time of its own.
        let committing = self.session.committing && self.stream.is_owed();
        let owed = committing.then(|| self.stream.machine().deadline());
        self.parked().or(owed).or_else(|| self.stream.deadline())
    }

    /// When what is owed is tried again.
    fn parked(&self) -> Option<Instant> {
        if !self.stream.is_owed() {
            return None;
        }
        if let Some(until) = self.session.summoning.as_deref() {
            return Some(*until);
        }
        match self.session.mute {
            true => Some(self.session.began + Duration::from_secs(self.session.settings.smtp_greeting_hold_secs)),
            false => self.session.entering.as_deref().and_then(|entering| entering.parked),
        }
    }

    /// The peer was silent too long, or too slow; or the client would give up; or it is time to try again, which the next turn
    /// does.
    pub fn expire(&mut self, now: Instant) {
        if !self.stream.is_owed() {
            self.stream.expire(now);
        } else if self.session.committing {
            self.stream.end(End::Silence);
        }
    }

    /// Ends it, for a reason of ours.
    pub fn end(&mut self, why: End) {
        self.stream.end(why);
    }

    /// Ends it without a word, because something ran short.
    pub fn abort(&mut self) {
        self.stream.abort();
    }

    /// When it began, if it holds half a TLS record and nothing would be lost with it: the first of these is the cheapest to
    /// lose.
    pub fn partial_since(&self) -> Option<Instant> {
        let losable = self.stream.partial_bytes() > 0 && !self.stream.machine().is_engaged();
        losable.then_some(self.session.began)
    }

    /// How cheap it is to lose when all connections are taken, cheapest first, and since when it has been there; none when
    /// somebody is logged in, a message is under way, or it takes no place that others could have.
    pub fn losable(&self) -> Option<(bool, Instant)> {
        let asked = self.stream.is_owed() && self.parked().is_none();
        let far = matches!(self.session.peer, Peer::Host(_));
        (far && !self.stream.machine().is_engaged()).then_some((asked, self.session.began))
    }

    /// Which kind of connections it is; none where it takes no place of theirs.
    pub fn kind(&self) -> Option<Kind> {
        let far = matches!(self.session.peer, Peer::Host(_));
        far.then(|| kind(self.stream.machine().face()))
    }

    /// It is over: what it counted for is given back.
    pub fn give_back(&mut self, shared: &mut Shared) {
        if let Peer::Host(address) = self.session.peer {
            shared.guard.leave(&self.session.settings, address);
        }
    }

    /// What somebody did for this conversation. False: it came too late, and nobody waits for it.
    pub fn deliver(&mut self, now: Instant, ticket: Ticket, outcome: Outcome, shared: &mut Shared) -> bool {
        if ticket.serial != self.session.serial {
            return false;
        }
        let face = self.stream.machine().face();
        let mut service = Service { session: &mut self.session, shared, id: ticket.id, now, face };
        if service.is_held() {
            // Anything else with that ticket says that a job was lost.
            let progress = match outcome {
                Outcome::Body(progress) => Some(progress),
                _ => None,
            };
            service.room(progress);
            match service.end_taken() {
                Some(Done::Later) => {}
                Some(done) => self.stream.answer(done),
                None => self.stream.release(),
            }
            return true;
        }
        if !self.stream.is_owed() {
            return false;
        }
        // Nobody knows whether it was delivered: neither yes nor no would be true.
        if let Outcome::Dispatched(Dispatched::Unknown) = outcome {
            service.forget();
            self.stream.abort();
            return true;
        }
        let done = service.delivered(now, outcome);
        // What has come by now was said before the answer.
        let is_ahead =
            |stream: &Stream<Sock, Smtp, Never>| stream.buffered() > 0 || network::is_readable(stream.sock());
        self.session.unheard.take_if(|_| is_ahead(&self.stream));
        match done {
            Done::Later => {}
            done => self.stream.answer(done),
        }
        true
    }

    /// Whether this user is logged in on it, or somebody tries to be him: that may be anybody.
    pub fn is_of(&self, user: &str) -> bool {
        let entering = self.session.entering.as_deref().map(Entering::user);
        self.session.user.as_deref().or(entering) == Some(user)
    }

    /// Bytes of memory that it holds, but for what rustls keeps for TLS and for the text of a message.
    pub fn held(&self) -> usize {
        let Session { user, hello, host, entering, mail, .. } = &self.session;
        let text = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
        size_of::<Self>()
            + self.stream.buffered()
            + text(user)
            + text(host)
            + hello.as_ref().map_or(0, |hello| hello.name.len())
            + entering.as_deref().map_or(0, |entering| size_of::<Entering>() + entering.user().len())
            + mail.as_deref().map_or(0, Mail::held)
    }

    /// Whether it is within TLS.
    pub fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }

    /// What there is to say of it as a connection.
    pub fn channel(&self, now: Instant) -> Channel {
        let Session { began, user, mail, accepted, .. } = &self.session;
        Channel {
            service: "smtp",
            peer: self.session.from(),
            user: user.as_deref().map(|user| printable(user.as_bytes())),
            state: self.stream.activity(),
            tls: self.stream.is_tls(),
            age: now.saturating_duration_since(*began),
            messages: *accepted,
            octets: mail.as_deref().map_or(0, Mail::octets),
        }
    }

    /// It is over: the line for the log.
    pub fn farewell(self, id: Id, now: Instant, shared: &mut Shared) {
        let Session { peer, began, accepted, refused, secured, .. } = &self.session;
        let secs = now.saturating_duration_since(*began).as_secs();
        let how = if *secured { "tls" } else { "plain" };
        let who = self.session.user.as_deref().map_or("-".into(), |user| printable(user.as_bytes()));
        let from = self.session.from();
        let parting = self.stream.machine().parting();
        if parting.is_some_and(|why| [&reply::BARE_NEWLINE, &reply::NUL_IN_TEXT].contains(&why)) {
            shared.counts.smtp.rejected += 1;
        }
        let parting = parting.map_or_else(String::new, |reply| format!("; {reply}"));
        let address = match peer {
            Peer::Host(address) => Some(*address),
            Peer::Program(_) => None,
        };
        if *accepted > 0 || shared.has_line(now, Event::Idler, address) {
            log::info!("smtp {id} {who} {from} {how}: {accepted} accepted, {refused} refused, {secs} s{parting}");
        }
    }
}

impl Session {
    /// Where it is.
    fn address(&self) -> IpAddr {
        match self.peer {
            Peer::Host(address) => address,
            Peer::Program(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Where it is, for the log.
    fn from(&self) -> String {
        match (self.peer, &self.host) {
            (Peer::Host(address), Some(host)) => format!("{address} ({})", printable(host.as_bytes())),
            (Peer::Host(address), None) => address.to_string(),
            (Peer::Program(uid), _) => format!("uid {uid}"),
        }
    }
}

type Said = Done<Answer, Never>;

/// The service for one client: its session, and what all share.
struct Service<'a> {
    session: &'a mut Session,
    shared: &'a mut Shared,
    id: Id,
    now: Instant,
    face: Face,
}

impl Host<Smtp> for Service<'_> {
    type Body = Never;

    fn perform(&mut self, now: Instant, ask: Ask) -> Said {
        // It says something more.
        if let Some(mark) = self.session.unheard.take() {
            self.shared.transit.heard(&mark);
        }
        match ask {
            Ask::Hold(_) => self.hold(),
            Ask::StartTls => match self.shared.tls.clone() {
                Some(tls) => {
                    self.session.secured = true;
                    self.session.hello = None;
                    self.session.user = None;
                    self.forget();
                    Done::StartTls(tls.into(), Answer::Go)
                }
                None => Done::Now(Answer::Failed),
            },
            Ask::Login(login) => self.login(now, *login),
            Ask::Verifier(user) => self.verifier(now, &user),
            Ask::Proof(good) => self.proof(now, good),
            Ask::Hello(hello) => self.hello(now, *hello),
            Ask::Sender(sender) => self.sender(now, *sender),
            Ask::Recipient(recipient) => self.recipient(now, *recipient),
            Ask::Etrn(node) => self.summon(*node),
            Ask::Reset => {
                self.forget();
                Done::Now(Answer::Go)
            }
            Ask::Begin => self.begin(),
            Ask::Commit(tally) => self.commit(tally),
        }
    }

    fn data(&mut self, _now: Instant, bytes: &[u8]) -> Flow {
        self.take(bytes)
    }

    fn fetch(&mut self, _now: Instant, body: &mut Never) {
        match *body {}
    }
}

impl Service<'_> {
    /// A new ask that will be answered later.
    fn ticket(&mut self) -> Ticket {
        self.session.serial = self.session.serial.wrapping_add(1);
        Ticket { id: self.id, serial: self.session.serial }
    }

    /// Before the greeting. Within TLS the client speaks first, and who sends mail for our users is no stranger.
    fn hold(&mut self) -> Said {
        let Peer::Host(address) = self.session.peer else { return Done::Now(Answer::Go) };
        let trusted = self.session.settings.trusted_networks.contains(address);
        if self.face != Face::Mx || trusted || self.shared.stopping {
            return Done::Now(Answer::Go);
        }
        self.session.mute = true;
        self.ticket();
        Done::Later
    }

    /// Mail that waits for a domain is asked for.
    fn summon(&mut self, node: Node) -> Said {
        let (from, domain) = (self.session.from(), printable(node.domain.as_bytes()));
        let now_secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let ticket = self.ticket();
        let reply = match summon::begin(node, i64::try_from(now_secs).unwrap_or(i64::MAX), ticket, self.shared) {
            Begun::Asked => {
                log::info!("smtp {}: {from} asks with ETRN for the mail of {domain}", self.id);
                self.session.summoning = Some(Box::new(self.now + summon::PATIENCE));
                return Done::Later;
            }
            Begun::Already => &reply::ETRN_BEGUN,
            Begun::Ours => &reply::ETRN_OURS,
            Begun::Busy => &reply::ETRN_UNAVAILABLE,
        };
        Done::Now(Answer::Reply(Box::new(reply.clone())))
    }

    /// It is time to try again.
    fn again(&mut self, now: Instant, spoke: bool) -> Said {
        if std::mem::take(&mut self.session.mute) {
            // Whoever else was to wake it finds nobody.
            self.ticket();
            return Done::Now(if spoke { Answer::Spoke } else { Answer::Go });
        }
        if self.session.summoning.take().is_some() {
            // It goes on, and nobody waits for it.
            self.ticket();
            return Done::Now(Answer::Go);
        }
        self.try_login(now)
    }

    /// An answer that was owed has come.
    fn delivered(&mut self, now: Instant, outcome: Outcome) -> Said {
        match outcome {
            Outcome::Summoned(found) if self.session.summoning.take().is_some() => {
                log::info!("smtp {}: {} messages are tried because of ETRN", self.id, found.unwrap_or(0));
                Done::Now(match found {
                    None => Answer::Failed,
                    Some(0) => Answer::Reply(Box::new(reply::ETRN_NOTHING.clone())),
                    Some(found) => {
                        let text = format!("{found} messages are waiting, and are sent");
                        Answer::Reply(Box::new(Reply::new(253, 0, 0, text)))
                    }
                })
            }
            Outcome::Verdict(verdict) if self.session.entering.is_some() => self.judged(now, verdict),
            outcome if self.is_routing() => self.route(now, Some(outcome)),
            Outcome::TryAgain => self.try_login(now),
            Outcome::Caller(name) => self.called(name),
            Outcome::Dispatched(dispatched) => self.dispatched(dispatched),
            _ => {
                self.session.committing = false;
                self.session.summoning = None;
                Done::Now(Answer::Failed)
            }
        }
    }

    fn has_line(&mut self, event: Event) -> bool {
        let address = match self.session.peer {
            Peer::Host(address) => Some(address),
            Peer::Program(_) => None,
        };
        self.shared.has_line(self.now, event, address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_is_small() {
        assert!(
            size_of::<Conversation>() <= 384,
            "{} of which {} session, {} machine",
            size_of::<Conversation>(),
            size_of::<Session>(),
            size_of::<Smtp>()
        );
    }
}
