//! How a client gets in, whatever it speaks, in the manual's order: name, password (or what stands for it), where it comes from.
//!
//! | step   | what it waits for                                                    | and leaves by                        |
//! |--------|----------------------------------------------------------------------|--------------------------------------|
//! | Slowed | the time that guesses from its prefix have cost                       | that time                            |
//! | Naming | the name of its host, only where `user_ip_name` asks for one          | the name; its patience is over       |
//! | Asked  | an authenticator; what the cache knows is not asked                   | the verdict; for SCRAM, the proof    |
//! | In     | nothing: what follows is the service's                                |                                      |
//!
//! Who is refused hears one text, whichever rule it was, and hears it as late: a login that a rule shuts out goes to the
//! authenticator like any other, never to the cache, and a name that no user can have is asked about under a name that none
//! has ([`NOBODY`]). All of them count as guesses. The rules themselves are `rules/access.rs`; whatever is refused is
//! counted, and said in the log.
//!
//! Of who does not send his password (APOP, SCRAM) nothing is remembered: the cache is asked by a password. What an
//! authenticator says to `scram` is kept apart until the proof was good; until then it is not even known whether there is
//! such a user.
//!
//! A login that has to be tried later is *parked*: its time is the conversation's deadline, so it takes no thread and no
//! table, and goes with the conversation.

use std::net::IpAddr;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};

use super::cache::Key;
use super::names::Found;
use super::noise::Event;
use super::{Shared, account};
use crate::net::turn::{Id, Ticket};
use crate::protocol::helper::{Account, Question, Verdict};
use crate::protocol::sasl::scram::Verifier;
use crate::rules::access::{Facts, Lists, Rule, Ruling, judge};
use crate::rules::domains::{Home, Name};
use crate::rules::penalty::Attempt;
use crate::settings::Settings;
use crate::text::printable::printable;
use crate::text::secret::Secret;

/// Asked for in place of a name that cannot be asked for. No answer about it lets anybody in.
const NOBODY: &[u8] = b"no.such.user";
/// Random bytes of a nonce or a stamp: none is met twice, and none can be guessed.
pub const RANDOM: usize = 18;

/// What is only needed while somebody logs in.
pub struct Entering {
    /// Who it means; as it was sent when no user can have it.
    name: Result<Name, Box<str>>,
    /// Until it is handed on.
    claim: Option<Claim>,
    /// Where penalties hold.
    attempt: Option<Attempt>,
    step: Step,
    /// When what is owed is tried again.
    pub parked: Option<Instant>,
    /// Until when what follows is tried again, where the service tries.
    pub patience: Option<Instant>,
    /// What the answer is remembered by; without a password nothing is.
    key: Option<Key>,
    /// Who was let in.
    account: Option<Account>,
    /// Who is to be let in once he has proved who he is.
    unproved: Option<Account>,
}

/// What somebody says to prove who he is.
pub enum Claim {
    /// His password.
    Password(Secret),
    /// What APOP makes of it.
    Apop {
        /// What the greeting offered.
        stamp: Box<str>,
        /// The digest, in hexadecimal.
        digest: Secret,
    },
    /// He will prove it.
    Scram,
}

enum Step {
    Slowed,
    Naming,
    /// With what the rules say that need no password.
    Asked(Ruling),
    In,
}

/// What has come of it.
pub enum Came {
    /// Nothing yet: an outcome comes with the last ticket, or it is parked.
    Later,
    /// Name and password fit, and every rule holds.
    In,
    /// By what a proof is judged, and a nonce.
    Challenge(Box<(Verifier, Vec<u8>)>),
    /// A rule says no.
    Denied,
    /// Nobody can tell just now.
    Unavailable,
}

/// Whether it is known what the client's host is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It is, also when it is called nothing.
    Yes,
    /// It is being asked; it is worth waiting until then.
    NotBefore(Instant),
    /// Nobody could tell.
    No,
}

/// Random bytes, when the system gives any.
pub fn random() -> Option<[u8; RANDOM]> {
    let mut bytes = [0; RANDOM];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

impl Entering {
    /// The user's canonical name, or what was sent in place of one.
    pub fn user(&self) -> &str {
        self.name.as_ref().map_or_else(|sent| &**sent, Name::shown)
    }

    /// Whether it is known who it is.
    pub fn is_welcome(&self) -> bool {
        self.account.is_some()
    }

    /// Who was let in, and what is known of him.
    pub fn welcomed(&self) -> Option<(&Name, &Account)> {
        Some((self.name.as_ref().ok()?, self.account.as_ref()?))
    }

    /// What the authenticator is told.
    fn asked(&self) -> &[u8] {
        self.name.as_ref().map_or(NOBODY, |name| &name.asked)
    }
}

/// The way in for one client: what its session lends for it, and what all share.
pub struct Door<'a> {
    /// How the log and the cache call the service.
    pub service: &'static str,
    /// The settings that the conversation was born with.
    pub settings: &'a Settings,
    /// The domain of users who name none.
    pub here: Home,
    /// Where the client is.
    pub peer: IpAddr,
    /// Which ask is owed an answer, counted.
    pub serial: &'a mut u32,
    /// The name of the client's host, where names are looked up and it has one.
    pub host: &'a mut Option<Box<str>>,
    /// What is kept of a login under way.
    pub entering: &'a mut Option<Box<Entering>>,
    /// What all share.
    pub shared: &'a mut Shared,
    /// Whose conversation it is.
    pub id: Id,
}

impl Door<'_> {
    /// Somebody says that he is this user.
    pub fn enter(&mut self, now: Instant, user: &[u8], claim: Claim) -> Came {
        let settings = self.settings;
        let name = account::name(user, self.here, settings)
            .ok_or_else(|| String::from_utf8_lossy(user).into_owned().into_boxed_str());
        let known_by = name.as_ref().map_or_else(|_| NOBODY.to_vec(), Name::remembered_by);
        let key = match &claim {
            Claim::Password(password) => Some(self.shared.cache.key(self.service, &known_by, password)),
            Claim::Apop { .. } | Claim::Scram => None,
        };
        let user = name.as_ref().map_or_else(|sent| &**sent, Name::shown);
        // What does not show the password cannot be known to be the same wrong one again: each is a guess of its own.
        let once = format!("{} {}", self.id, self.serial);
        let guess = match &claim {
            Claim::Password(password) => password.reveal(),
            Claim::Apop { .. } | Claim::Scram => once.as_bytes(),
        };
        let guard = &self.shared.guard;
        let attempt = guard.attempt(settings, self.peer, user.as_bytes(), guess);
        let wait = guard.wait(settings, now, attempt.as_ref());
        *self.entering = Some(Box::new(Entering {
            name,
            claim: Some(claim),
            attempt,
            step: Step::Slowed,
            parked: None,
            patience: None,
            key,
            account: None,
            unproved: None,
        }));
        if wait.is_zero() {
            return self.check(now, true);
        }
        self.shared.counts.access.delayed += 1;
        self.park(now + wait)
    }

    /// A new ask that will be answered later.
    fn ticket(&mut self) -> Ticket {
        *self.serial = self.serial.wrapping_add(1);
        Ticket { id: self.id, serial: *self.serial }
    }

    /// Tries again then.
    pub fn park(&mut self, until: Instant) -> Came {
        if let Some(entering) = self.entering.as_deref_mut() {
            entering.parked = Some(until);
        }
        self.ticket();
        Came::Later
    }

    /// It is time to try again. Nothing: what is to be tried is the service's.
    pub fn again(&mut self, now: Instant) -> Option<Came> {
        if let Some(entering) = self.entering.as_deref_mut() {
            entering.parked = None;
        }
        // Whoever else was to wake it finds nobody.
        self.ticket();
        Some(match self.entering.as_deref().map(|entering| &entering.step) {
            Some(Step::In) => return None,
            Some(Step::Slowed) => self.check(now, true),
            Some(Step::Naming) => self.check(now, false),
            Some(Step::Asked(_)) | None => self.unavailable(),
        })
    }

    /// Asks every rule, the password's last because it takes longest. Once, it may wait for the name of the host.
    fn check(&mut self, now: Instant, patient: bool) -> Came {
        let settings = self.settings;
        let address = self.peer.to_canonical();
        let told = self.note_host(now);
        let Some(entering) = self.entering.as_deref_mut() else { return self.unavailable() };
        if let Told::NotBefore(until) = told
            && patient
            && !settings.user_ip_name.is_everything()
        {
            entering.step = Step::Naming;
            let came = self.park(until);
            let ticket = Ticket { id: self.id, serial: *self.serial };
            self.shared.guard.names.wait(address, ticket);
            return came;
        }
        let facts = Facts {
            user: entering.name.as_ref().ok().map(Name::shown),
            password: None,
            address,
            host: self.host.as_deref(),
        };
        let lists =
            Lists { names: &settings.valid_users, addresses: &settings.user_ip_address, hosts: &settings.user_ip_name };
        let ruling = judge(&facts, &lists);
        if ruling.failed(Rule::Host) && told != Told::Yes {
            // No wrong password, and not for ever: whoever it is and whatever he says, before anything else is known of him.
            if self.has_line(now, Event::Undecided) {
                log::warn!("{} the name of this host could not be found out", self.line());
            }
            return self.unavailable();
        }
        entering.step = Step::Asked(ruling);
        // A remembered answer comes sooner than a refusal, so only those hear it who may know that the password is right.
        if ruling.refused().is_none()
            && let Some(key) = &entering.key
            && let Some(account) = self.shared.cache.get(now, key, entering.asked())
        {
            return self.proved(now, account);
        }
        let user = entering.asked().to_vec();
        let question = match entering.claim.take() {
            Some(Claim::Password(password)) => Question::Check { user, password, from: address },
            Some(Claim::Apop { stamp, digest }) => Question::Apop { user, stamp, digest, from: address },
            Some(Claim::Scram) => Question::Scram { user, from: address },
            None => return self.unavailable(),
        };
        let ticket = self.ticket();
        match self.shared.helpers.last_mut() {
            Some(helpers) => helpers.pool.submit(now, ticket, question),
            None => return self.unavailable(),
        }
        Came::Later
    }

    /// Keeps the name of the client's host with the session, if it is known by now.
    pub fn name_host(&mut self, now: Instant) {
        self.note_host(now);
    }

    fn note_host(&mut self, now: Instant) -> Told {
        if !self.settings.lookup_names || self.host.is_some() {
            return Told::Yes;
        }
        let address = self.peer.to_canonical();
        // It may have been forgotten since the connection began.
        self.shared.look_up(now, address);
        match self.shared.guard.names.find(now, address) {
            Found::Name(name) => {
                *self.host = name.map(Box::from);
                Told::Yes
            }
            Found::Pending(until) => Told::NotBefore(until),
            Found::Unclear | Found::Unknown => Told::No,
        }
    }

    /// Refused: by which rule is for the log alone.
    fn denied(&mut self, now: Instant, rule: Rule, ruling: &Ruling) -> Came {
        let counts = &mut self.shared.counts;
        counts.denied += 1;
        match rule {
            Rule::Name => counts.access.name += 1,
            Rule::Password => {}
            Rule::Address => counts.access.address += 1,
            Rule::Host => counts.access.host += 1,
        }
        if let Some(attempt) = self.entering.as_deref().and_then(|entering| entering.attempt.as_ref()) {
            self.shared.guard.penalties.wrong(now, attempt);
        }
        if self.has_line(now, Event::Refused) {
            let impossible = self.entering.as_deref().is_some_and(|entering| entering.name.is_err());
            let reason = if impossible { "no user can be called so" } else { rule.reason() };
            log::info!("{} login refused: {reason}", self.line());
            log::debug!("{} {ruling}", self.line());
        }
        *self.entering = None;
        Came::Denied
    }

    /// Name and password fit, and every rule holds.
    fn proved(&mut self, now: Instant, account: Account) -> Came {
        let Some(entering) = self.entering.as_deref_mut() else { return self.unavailable() };
        if let Some(attempt) = &entering.attempt {
            self.shared.guard.penalties.good(now, attempt);
        }
        entering.account = Some(account);
        entering.claim = None;
        entering.step = Step::In;
        Came::In
    }

    fn unavailable(&mut self) -> Came {
        self.shared.counts.unavailable += 1;
        *self.entering = None;
        Came::Unavailable
    }

    /// An authenticator has spoken.
    pub fn judged(&mut self, now: Instant, verdict: Verdict) -> Came {
        match verdict {
            Verdict::Accepted(account) => self.settle(now, Some(account)),
            Verdict::Refused => self.settle(now, None),
            Verdict::Verifier(account, verifier) => {
                let Some(entering) = self.entering.as_deref_mut() else { return self.unavailable() };
                entering.unproved = Some(account);
                self.challenge(*verifier)
            }
            Verdict::Unavailable => {
                if self.has_line(now, Event::Undecided) {
                    log::warn!("{} no authenticator could tell", self.line());
                }
                self.unavailable()
            }
        }
    }

    fn challenge(&mut self, verifier: Verifier) -> Came {
        match random() {
            Some(random) => Came::Challenge(Box::new((verifier, BASE64.encode(random).into_bytes()))),
            None => {
                log::error!("{} the system gives no random numbers", self.line());
                self.unavailable()
            }
        }
    }

    /// Whether the proof was good.
    pub fn proof(&mut self, now: Instant, good: bool) -> Came {
        let unproved = self.entering.as_deref_mut().and_then(|entering| entering.unproved.take());
        self.settle(now, unproved.filter(|_| good))
    }

    /// It is known whether the password fits: all rules together say what becomes of it.
    fn settle(&mut self, now: Instant, account: Option<Account>) -> Came {
        let Some(entering @ Entering { step: Step::Asked(ruling), .. }) = self.entering.as_deref() else {
            return self.unavailable();
        };
        let ruling = ruling.with_password(account.is_some());
        match (ruling.refused(), account) {
            (None, Some(account)) => {
                if let Some(key) = entering.key {
                    self.shared.cache.put(now, key, entering.user(), account.clone());
                }
                self.proved(now, account)
            }
            (rule, _) => self.denied(now, rule.unwrap_or(Rule::Password), &ruling),
        }
    }

    fn has_line(&mut self, now: Instant, event: Event) -> bool {
        self.shared.has_line(now, event, Some(self.peer))
    }

    /// What a line of the log begins with: who, and from where.
    fn line(&self) -> String {
        let who = printable(self.entering.as_deref().map_or("-", Entering::user).as_bytes());
        format!("{} {} {who} {}:", self.service, self.id, self.peer.to_canonical())
    }
}
