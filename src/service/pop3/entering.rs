//! How a client gets in, in the manual's order: name, password (or what stands for it), where it comes from; then its maildrop.
//!
//! | step   | what it waits for                                                    | and leaves by                        |
//! |--------|----------------------------------------------------------------------|--------------------------------------|
//! | Slowed | the time that guesses from its prefix have cost                       | that time                            |
//! | Naming | the name of its host, only where `user_ip_name` asks for one          | the name; its patience is over       |
//! | Asked  | an authenticator; what the cache knows is not asked                   | the verdict; for SCRAM, the proof    |
//! | Open   | the maildrop: a job, tried again while it is locked                   | Opened, a refusal                    |
//!
//! Who is refused hears one text, whichever rule it was, and hears it as late: a login that a rule shuts out goes to the
//! authenticator like any other, never to the cache, and a name that no user can have is asked about under a name that none
//! has ([`NOBODY`]). All of them count as guesses. What follows a right password (LOGIN-DELAY, sessions, a missing drop) has
//! texts of its own. The rules themselves are `rules/access.rs`; whatever is refused is counted, and said in the log.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::shown::Shown;
use super::{Event, Said, Service, refused};
use crate::net::jobs::Kind;
use crate::net::stream::Done;
use crate::net::turn::Ticket;
use crate::protocol::helper::{Account, Question, Verdict};
use crate::protocol::pop3::reply::Refusal;
use crate::protocol::pop3::{Answer, Login};
use crate::rules::access::{Facts, Lists, Rule, Ruling, judge};
use crate::rules::domains::Name;
use crate::rules::penalty::Attempt;
use crate::service::cache::Key;
use crate::service::names::Found;
use crate::service::{LOCK_PATIENCE, LOCK_RETRY, Outcome, PEER_PATIENCE, account};
use crate::store::maildrop::{Maildrop, Refused, Remark};
use crate::text::fault::Fault;
use crate::text::printable::visible;
use crate::text::secret::Secret;

/// Asked for in place of a name that cannot be asked for. No answer about it lets anybody in.
const NOBODY: &[u8] = b"no.such.user";

/// What is only needed while somebody logs in.
pub(super) struct Entering {
    /// Who it means; as it was sent when no user can have it.
    name: Result<Name, Box<str>>,
    /// Until it is handed on.
    claim: Option<Claim>,
    /// Where penalties hold.
    attempt: Option<Attempt>,
    step: Step,
    /// When what is owed is tried again.
    pub(super) parked: Option<Instant>,
    /// Until when an open is tried again.
    patience: Option<Instant>,
    /// What the answer is remembered by; without a password nothing is.
    key: Option<Key>,
    /// Who was let in.
    account: Option<Account>,
    /// Who is to be let in once he has proved who he is.
    pub(super) unproved: Option<Account>,
}

/// What somebody says to prove who he is.
pub(super) enum Claim {
    Password(Secret),
    Apop { stamp: Box<str>, digest: Secret },
    Scram,
}

enum Step {
    Slowed,
    Naming,
    /// With what the rules say that need no password.
    Asked(Ruling),
    Open,
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

impl Entering {
    /// The user's canonical name, or what was sent in place of one.
    pub(super) fn user(&self) -> &str {
        self.name.as_ref().map_or_else(|sent| &**sent, Name::shown)
    }

    /// Whether it is known who it is.
    pub(super) fn is_welcome(&self) -> bool {
        self.account.is_some()
    }

    /// What the authenticator is told.
    fn asked(&self) -> &[u8] {
        self.name.as_ref().map_or(NOBODY, |name| &name.asked)
    }
}

impl Service<'_> {
    pub(super) fn login(&mut self, now: Instant, login: Login) -> Said {
        self.enter(now, &login.user, Claim::Password(login.password))
    }

    /// Somebody says that he is this user.
    pub(super) fn enter(&mut self, now: Instant, user: &[u8], claim: Claim) -> Said {
        self.leave();
        let settings = self.session.settings.clone();
        let name = account::name(user, self.session.here, &settings)
            .ok_or_else(|| String::from_utf8_lossy(user).into_owned().into_boxed_str());
        let known_by = name.as_ref().map_or_else(|_| NOBODY.to_vec(), Name::remembered_by);
        let key = match &claim {
            Claim::Password(password) => Some(self.shared.cache.key("pop3", &known_by, password)),
            Claim::Apop { .. } | Claim::Scram => None,
        };
        let user = name.as_ref().map_or_else(|sent| &**sent, Name::shown);
        // What does not show the password cannot be known to be the same wrong one again: each is a guess of its own.
        let once = format!("{} {}", self.id, self.session.serial);
        let guess = match &claim {
            Claim::Password(password) => password.reveal(),
            Claim::Apop { .. } | Claim::Scram => once.as_bytes(),
        };
        let (guard, address) = (&self.shared.guard, self.session.peer.ip());
        let attempt = guard.attempt(&settings, address, user.as_bytes(), guess);
        let wait = guard.wait(&settings, now, attempt.as_ref());
        self.session.entering = Some(Box::new(Entering {
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

    /// Tries again then.
    fn park(&mut self, until: Instant) -> Said {
        if let Some(entering) = self.session.entering.as_deref_mut() {
            entering.parked = Some(until);
        }
        self.ticket();
        Done::Later
    }

    /// It is time to try again.
    pub(super) fn again(&mut self, now: Instant) -> Said {
        if let Some(entering) = self.session.entering.as_deref_mut() {
            entering.parked = None;
        }
        // Whoever else was to wake it finds nobody.
        self.ticket();
        match self.session.entering.as_deref().map(|entering| &entering.step) {
            Some(Step::Open) => self.open(),
            Some(Step::Slowed) => self.check(now, true),
            Some(Step::Naming) => self.check(now, false),
            Some(Step::Asked(_)) | None => self.unavailable(),
        }
    }

    /// Asks every rule, the password's last because it takes longest. Once, it may wait for the name of the host.
    fn check(&mut self, now: Instant, patient: bool) -> Said {
        let settings = self.session.settings.clone();
        let address = self.session.peer.ip().to_canonical();
        let told = self.note_host(now);
        let Some(entering) = self.session.entering.as_deref_mut() else { return self.unavailable() };
        if let Told::NotBefore(until) = told
            && patient
            && !settings.user_ip_name.is_everything()
        {
            entering.step = Step::Naming;
            let said = self.park(until);
            let ticket = Ticket { id: self.id, serial: self.session.serial };
            self.shared.guard.names.wait(address, ticket);
            return said;
        }
        let facts = Facts {
            user: entering.name.as_ref().ok().map(Name::shown),
            password: None,
            address,
            host: self.session.host.as_deref(),
        };
        let lists =
            Lists { names: &settings.valid_users, addresses: &settings.user_ip_address, hosts: &settings.user_ip_name };
        let ruling = judge(&facts, &lists);
        if ruling.failed(Rule::Host) && told != Told::Yes {
            // No wrong password, and not for ever: whoever it is and whatever he says, before anything else is known of him.
            if self.has_line(Event::Undecided) {
                log::warn!("pop3 {} {} {address}: the name of this host could not be found out", self.id, self.who());
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
        Done::Later
    }

    /// Keeps the name of the client's host with the session, if it is known.
    fn note_host(&mut self, now: Instant) -> Told {
        if !self.session.settings.lookup_names || self.session.host.is_some() {
            return Told::Yes;
        }
        let address = self.session.peer.ip().to_canonical();
        // It may have been forgotten since the connection began.
        self.shared.look_up(now, address);
        match self.shared.guard.names.find(now, address) {
            Found::Name(name) => {
                self.session.host = name.map(Box::from);
                Told::Yes
            }
            Found::Pending(until) => Told::NotBefore(until),
            Found::Unclear | Found::Unknown => Told::No,
        }
    }

    /// Refused: by which rule is for the log alone.
    fn denied(&mut self, now: Instant, rule: Rule, ruling: &Ruling) -> Said {
        let counts = &mut self.shared.counts;
        counts.denied += 1;
        match rule {
            Rule::Name => counts.access.name += 1,
            Rule::Password => {}
            Rule::Address => counts.access.address += 1,
            Rule::Host => counts.access.host += 1,
        }
        if let Some(attempt) = self.session.entering.as_deref().and_then(|entering| entering.attempt.as_ref()) {
            self.shared.guard.penalties.wrong(now, attempt);
        }
        if self.has_line(Event::Refused) {
            let address = self.session.peer.ip().to_canonical();
            let impossible = self.session.entering.as_deref().is_some_and(|entering| entering.name.is_err());
            let reason = if impossible { "no user can be called so" } else { rule.reason() };
            log::info!("pop3 {} {} {address}: login refused: {reason}", self.id, self.who());
            log::debug!("pop3 {} {} {address}: {ruling}", self.id, self.who());
        }
        self.leave();
        refused(Refusal::Denied)
    }

    /// Name and password fit, and every rule holds.
    fn proved(&mut self, now: Instant, account: Account) -> Said {
        let settings = self.session.settings.clone();
        let Some(entering) = self.session.entering.as_deref_mut() else { return self.unavailable() };
        let guard = &mut self.shared.guard;
        if let Some(attempt) = &entering.attempt {
            guard.penalties.good(now, attempt);
        }
        let user = guard.user(entering.user());
        entering.account = Some(account);
        entering.claim = None;
        entering.step = Step::Open;
        if guard.logins.wait_secs(now, user, settings.login_delay_secs) > 0 {
            self.shared.counts.access.too_soon += 1;
            return self.turned_away("too soon after the last login", Refusal::TooSoon);
        }
        if settings.max_per_user > 0 {
            if !guard.users.enter(user, settings.max_per_user) {
                self.shared.counts.access.over_user += 1;
                return self.turned_away("max_per_user sessions are open", Refusal::TooManySessions);
            }
            self.session.seat = user;
        }
        Done::Now(Answer::Welcome)
    }

    /// The password was right, and it cannot be now.
    fn turned_away(&mut self, why: &str, refusal: Refusal) -> Said {
        if self.has_line(Event::Refused) {
            log::info!("pop3 {} {} {}: {why}", self.id, self.who(), self.session.peer.ip().to_canonical());
        }
        self.leave();
        refused(refusal)
    }

    /// Nobody is entering any more.
    fn leave(&mut self) {
        self.session.entering = None;
        self.session.stand_up(self.shared);
    }

    pub(super) fn no_drop(&mut self) -> Said {
        self.shared.counts.access.no_drop += 1;
        self.turned_away("there is no drop file, and drop_must_exist", Refusal::NoMailbox)
    }

    pub(super) fn unavailable(&mut self) -> Said {
        self.shared.counts.unavailable += 1;
        self.leave();
        refused(Refusal::Unavailable)
    }

    pub(super) fn judged(&mut self, now: Instant, verdict: Verdict) -> Said {
        match verdict {
            Verdict::Accepted(account) => self.settle(now, Some(account)),
            Verdict::Refused => self.settle(now, None),
            Verdict::Verifier(account, verifier) => {
                let Some(entering) = self.session.entering.as_deref_mut() else { return self.unavailable() };
                entering.unproved = Some(account);
                self.challenge(*verifier)
            }
            Verdict::Unavailable => {
                if self.has_line(Event::Undecided) {
                    log::warn!("pop3 {} {}: no authenticator could tell", self.id, self.who());
                }
                self.unavailable()
            }
        }
    }

    /// It is known whether the password fits: all rules together say what becomes of it.
    pub(super) fn settle(&mut self, now: Instant, account: Option<Account>) -> Said {
        let Some(entering @ Entering { step: Step::Asked(ruling), .. }) = self.session.entering.as_deref() else {
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

    /// The maildrop's turn: for a while it is tried again when it is locked.
    pub(super) fn begin_to_open(&mut self, now: Instant) -> Said {
        if let Some(entering) = self.session.entering.as_deref_mut() {
            entering.patience = Some(now + LOCK_PATIENCE);
        }
        self.open()
    }

    /// Opens the maildrop of who was welcomed.
    fn open(&mut self) -> Said {
        let settings = self.session.settings.clone();
        let Some(Entering { name: Ok(name), account: Some(account), .. }) = self.session.entering.as_deref() else {
            return self.unavailable();
        };
        let mut place = match account::place(name, account, &settings) {
            Ok(place) => place,
            Err(why) => return self.misconfigured(&why),
        };
        let (uid, must_exist) = (account.uid.clone(), settings.drop_must_exist);
        let volume = self.shared.volume_of(&place.drop);
        let board = self.shared.board.clone();
        place.lone = settings.hide_old_bulls || !board.numbers.is_empty();
        self.session.volume = volume;
        let disk = self.shared.disk();
        self.job(Kind::Read, volume, move || {
            if let Some(uid) = uid {
                match account::owner(&uid, settings.min_uid) {
                    Ok(owner) => place.owner = Some(owner),
                    Err(why) => {
                        let error = io::Error::new(io::ErrorKind::PermissionDenied, why);
                        return Outcome::Opened(Err(Refused::Unsafe(Fault::new("opening", &place.drop, error))));
                    }
                }
            }
            // Where the drop lies is known only now; that it is asked for last is nothing a client could tell.
            if must_exist
                && fs::symlink_metadata(&place.drop).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            {
                return Outcome::NoDrop;
            }
            Outcome::Opened(Maildrop::open_on(&disk, &place).map(|maildrop| {
                let mut maildrop = Box::new(maildrop);
                let shown = Shown::of(board, &mut maildrop, settings.hide_old_bulls);
                (maildrop, shown)
            }))
        })
    }

    pub(super) fn opened(
        &mut self,
        now: Instant,
        opened: Result<(Box<Maildrop>, Option<Box<Shown>>), Refused>,
    ) -> Said {
        match opened {
            Ok((maildrop, shown)) => {
                if let Some(is_short) = maildrop.is_short() {
                    self.shared.space(self.session.volume, maildrop.path(), is_short);
                }
                for remark in maildrop.remarks().into_iter().filter(|remark| *remark != Remark::ShortOfSpace) {
                    log::warn!("pop3 {} {}: {}: {remark}", self.id, self.who(), maildrop.path().display());
                }
                self.session.maildrop = Some(maildrop);
                self.session.shown = shown;
                if let Some(entering) = self.session.entering.take() {
                    if self.session.settings.login_delay_secs > 0 {
                        let user = self.shared.guard.user(entering.user());
                        self.shared.guard.logins.note(now, user);
                    }
                    self.session.user = Some(entering.user().into());
                }
                self.note_host(now);
                self.shared.counts.logins += 1;
                Done::Now(Answer::Opened(self.totals()))
            }
            Err(refusal @ (Refused::InUse | Refused::Locked)) => {
                let ours = || self.place_is_compacting();
                let patient = self.patience().is_some_and(|until| now < until && !self.shared.stopping);
                if patient && (matches!(refusal, Refused::Locked) || ours()) {
                    return self.park(now + LOCK_RETRY);
                }
                match self.drop() {
                    Some(drop) if matches!(refusal, Refused::InUse) => {
                        let ticket = self.ticket();
                        self.shared.contested.push((drop, ticket));
                        Done::Later
                    }
                    _ => self.in_use(),
                }
            }
            Err(Refused::Unsafe(fault)) => self.misconfigured(&fault.to_string()),
            Err(Refused::Fault(fault)) => {
                self.report(&fault);
                self.unavailable()
            }
        }
    }

    /// Another session has the maildrop. One whose peer is gone is given up by the kernel, and worth waiting for.
    pub(super) fn held(&mut self, now: Instant, fading: bool) -> Said {
        let until = self.patience().map(|until| until + (PEER_PATIENCE - LOCK_PATIENCE));
        if fading && until.is_some_and(|until| now < until && !self.shared.stopping) {
            return self.park(now + LOCK_RETRY);
        }
        self.in_use()
    }

    /// Until when an open is tried again.
    fn patience(&self) -> Option<Instant> {
        self.session.entering.as_deref().and_then(|entering| entering.patience)
    }

    fn in_use(&mut self) -> Said {
        self.leave();
        refused(Refusal::InUse)
    }

    /// The drop of who was welcomed.
    fn drop(&self) -> Option<PathBuf> {
        let Entering { name: Ok(name), account: Some(account), .. } = self.session.entering.as_deref()? else {
            return None;
        };
        account::place(name, account, &self.session.settings).ok().map(|place| place.drop)
    }

    fn place_is_compacting(&self) -> bool {
        self.drop().is_some_and(|drop| self.shared.compacting.contains(&drop))
    }

    pub(super) fn misconfigured(&mut self, why: &str) -> Said {
        if self.has_line(Event::Trouble) {
            log::error!("pop3 {} {}: {}", self.id, self.who(), visible(why));
        }
        self.leave();
        refused(Refusal::Misconfigured)
    }
}
