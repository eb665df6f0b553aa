//! How a POP3 client gets in: as everywhere ([`entering`](crate::service::entering)), and then to its maildrop.
//!
//! | step   | what it waits for                                                    | and leaves by                        |
//! |--------|----------------------------------------------------------------------|--------------------------------------|
//! | Let in | name, password, where it comes from                                   | Welcome, a refusal                   |
//! | Open   | the maildrop: a job, tried again while it is locked                   | Opened, a refusal                    |
//!
//! What follows a right password (LOGIN-DELAY, sessions, a missing drop) has texts of its own.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::shown::Shown;
use super::{Event, Said, Service, refused};
use crate::net::jobs::Kind;
use crate::net::stream::Done;
use crate::protocol::helper::Verdict;
use crate::protocol::pop3::reply::Refusal;
use crate::protocol::pop3::{Answer, Login};
use crate::service::entering::{Came, Claim, Door, Entering};
use crate::service::{Holder, LOCK_PATIENCE, LOCK_RETRY, Outcome, PEER_PATIENCE, account};
use crate::store::maildrop::{Maildrop, Refused, Remark};
use crate::text::fault::Fault;
use crate::text::printable::visible;

impl Service<'_> {
    pub(super) fn login(&mut self, now: Instant, login: Login) -> Said {
        self.enter(now, &login.user, Claim::Password(login.password))
    }

    /// Somebody says that he is this user.
    pub(super) fn enter(&mut self, now: Instant, user: &[u8], claim: Claim) -> Said {
        self.leave();
        let came = self.at_door(|door| door.enter(now, user, claim));
        self.came(now, came)
    }

    /// Does something at the way in.
    pub(super) fn at_door<T>(&mut self, work: impl FnOnce(&mut Door<'_>) -> T) -> T {
        let settings = self.session.settings.clone();
        work(&mut Door {
            service: "pop3",
            settings: &settings,
            here: self.session.here,
            peer: self.session.from,
            serial: &mut self.session.serial,
            host: &mut self.session.host,
            entering: &mut self.session.entering,
            shared: self.shared,
            id: self.id,
        })
    }

    /// What has come of a login.
    pub(super) fn came(&mut self, now: Instant, came: Came) -> Said {
        match came {
            Came::Later => Done::Later,
            Came::In => self.welcome(now),
            Came::Challenge(challenge) => Done::Now(Answer::Verifier(challenge)),
            Came::Denied => refused(Refusal::Denied),
            Came::Unavailable => refused(Refusal::Unavailable),
        }
    }

    /// Tries again then.
    fn park(&mut self, until: Instant) -> Said {
        self.at_door(|door| door.park(until));
        Done::Later
    }

    /// It is time to try again.
    pub(super) fn again(&mut self, now: Instant) -> Said {
        match self.at_door(|door| door.again(now)) {
            Some(came) => self.came(now, came),
            None => self.open(),
        }
    }

    pub(super) fn judged(&mut self, now: Instant, verdict: Verdict) -> Said {
        let came = self.at_door(|door| door.judged(now, verdict));
        self.came(now, came)
    }

    pub(super) fn proof(&mut self, now: Instant, good: bool) -> Said {
        let came = self.at_door(|door| door.proof(now, good));
        self.came(now, came)
    }

    /// Name and password fit, and every rule holds: now those that are POP3's own.
    fn welcome(&mut self, now: Instant) -> Said {
        let settings = self.session.settings.clone();
        let Some(entering) = self.session.entering.as_deref() else { return self.unavailable() };
        let guard = &mut self.shared.guard;
        let user = guard.user(entering.user());
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
            log::info!("pop3 {} {} {}: {why}", self.id, self.who(), self.session.from.to_canonical());
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
        let Some((name, account)) = self.session.entering.as_deref().and_then(Entering::welcomed) else {
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
                self.session.maildrop = Some(*maildrop);
                self.session.shown = shown;
                if let Some(entering) = self.session.entering.take() {
                    if self.session.settings.login_delay_secs > 0 {
                        let user = self.shared.guard.user(entering.user());
                        self.shared.guard.logins.note(now, user);
                    }
                    self.session.user = Some(entering.user().into());
                }
                self.at_door(|door| door.name_host(now));
                self.may_send_now(now);
                self.shared.counts.logins += 1;
                Done::Now(Answer::Opened(self.totals()))
            }
            Err(refusal @ (Refused::InUse | Refused::Locked)) => {
                let patient = self.patience().is_some_and(|until| now < until && !self.shared.stopping);
                if patient && matches!(refusal, Refused::Locked) {
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

    /// POP before SMTP: who has just proved who he is may send from where he is, if he is one of those.
    fn may_send_now(&mut self, now: Instant) {
        let names = &self.session.settings.forward_user;
        if !names.is_empty() && self.session.user.as_deref().is_some_and(|user| names.matches(user)) {
            self.shared.guard.popped.note(now, self.session.from);
        }
    }

    /// The maildrop was in use. A session whose peer is gone is given up by the kernel, and worth waiting for, as is the end of
    /// what no session does.
    pub(super) fn held(&mut self, now: Instant, holder: Holder) -> Said {
        let until = match holder {
            Holder::Session => None,
            Holder::Fading => self.patience().map(|until| until + (PEER_PATIENCE - LOCK_PATIENCE)),
            Holder::Nobody => self.patience(),
        };
        if until.is_some_and(|until| now < until && !self.shared.stopping) {
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
        let (name, account) = self.session.entering.as_deref()?.welcomed()?;
        account::place(name, account, &self.session.settings).ok().map(|place| place.drop)
    }

    pub(super) fn misconfigured(&mut self, why: &str) -> Said {
        if self.has_line(Event::Trouble) {
            log::error!("pop3 {} {}: {}", self.id, self.who(), visible(why));
        }
        self.leave();
        refused(Refusal::Misconfigured)
    }
}
