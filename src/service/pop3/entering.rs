//! How a client gets in: name, password, maildrop. Whatever is refused here is counted, and said in the log.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::shown::Shown;
use super::{Entering, Event, Said, Service, refused};
use crate::net::jobs::Kind;
use crate::net::stream::Done;
use crate::protocol::helper::{Question, Verdict};
use crate::protocol::pop3::reply::Refusal;
use crate::protocol::pop3::{Answer, Login};
use crate::service::{LOCK_PATIENCE, LOCK_RETRY, Outcome, PEER_PATIENCE, account};
use crate::store::disk::RealDisk;
use crate::store::maildrop::{Maildrop, Refused};
use crate::text::fault::Fault;
use crate::text::printable::{printable, visible};

impl Service<'_> {
    pub(super) fn login(&mut self, now: Instant, login: Login) -> Said {
        let Some(name) = account::name(&login.user, self.session.here, &self.session.settings) else {
            return self.denied(&login.user);
        };
        let key = self.shared.cache.key("pop3", &name.remembered_by(), &login.password);
        let account = self.shared.cache.get(now, &key, &name.asked);
        let known = account.is_some();
        let asked = name.asked.clone();
        self.session.entering = Some(Box::new(Entering { name, key, account }));
        if known {
            return Done::Now(Answer::Welcome);
        }
        let ticket = self.ticket();
        let from = self.session.peer.ip().to_canonical();
        let question = Question::Check { user: asked, password: login.password, from };
        match self.shared.helpers.last_mut() {
            Some(helpers) => helpers.pool.submit(now, ticket, question),
            None => return self.unavailable(),
        }
        Done::Later
    }

    pub(super) fn denied(&mut self, user: &[u8]) -> Said {
        self.shared.counts.denied += 1;
        if self.has_line(Event::Refused) {
            let from = self.session.peer.ip().to_canonical();
            log::info!("pop3 {} {} {from}: login refused", self.id, printable(user));
        }
        refused(Refusal::Denied)
    }

    pub(super) fn unavailable(&mut self) -> Said {
        self.shared.counts.unavailable += 1;
        refused(Refusal::Unavailable)
    }

    pub(super) fn judged(&mut self, now: Instant, verdict: Verdict) -> Said {
        let Some(mut entering) = self.session.entering.take() else { return self.unavailable() };
        match verdict {
            Verdict::Accepted(account) => {
                self.shared.cache.put(now, entering.key, account.clone());
                entering.account = Some(account);
                self.session.entering = Some(entering);
                Done::Now(Answer::Welcome)
            }
            Verdict::Refused => self.denied(entering.name.shown().as_bytes()),
            Verdict::Unavailable => {
                if self.has_line(Event::Undecided) {
                    log::warn!(
                        "pop3 {} {}: no authenticator could tell",
                        self.id,
                        printable(entering.name.shown().as_bytes())
                    );
                }
                self.unavailable()
            }
        }
    }

    /// Opens the maildrop of who was welcomed.
    pub(super) fn open(&mut self) -> Said {
        let settings = self.session.settings.clone();
        let Some(Entering { name, account: Some(account), .. }) = self.session.entering.as_deref() else {
            return self.unavailable();
        };
        let mut place = match account::place(name, account, &settings) {
            Ok(place) => place,
            Err(why) => return self.misconfigured(&why),
        };
        let uid = account.uid.clone();
        let volume = self.shared.volume_of(&place.drop);
        let board = self.shared.board.clone();
        place.lone = settings.hide_old_bulls || !board.numbers.is_empty();
        self.session.volume = volume;
        let disk = RealDisk { hand: self.shared.launcher.clone().map(|launcher| launcher as _) };
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
                for remark in maildrop.remarks() {
                    log::warn!("pop3 {} {}: {}: {remark}", self.id, self.who(), maildrop.path().display());
                }
                self.session.maildrop = Some(maildrop);
                self.session.shown = shown;
                self.session.user = self.session.entering.take().map(|entering| entering.name.shown().into());
                self.shared.counts.logins += 1;
                Done::Now(Answer::Opened(self.totals()))
            }
            Err(refusal @ (Refused::InUse | Refused::Locked)) => {
                let ours = || self.place_is_compacting();
                let patient = self.session.patience.is_some_and(|until| now < until && !self.shared.stopping);
                if patient && (matches!(refusal, Refused::Locked) || ours()) {
                    return self.park(now);
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
                self.session.entering = None;
                self.unavailable()
            }
        }
    }

    /// Another session has the maildrop. One whose peer is gone is given up by the kernel, and worth waiting for.
    pub(super) fn held(&mut self, now: Instant, fading: bool) -> Said {
        let until = self.session.patience.map(|until| until + (PEER_PATIENCE - LOCK_PATIENCE));
        if fading && until.is_some_and(|until| now < until && !self.shared.stopping) {
            return self.park(now);
        }
        self.in_use()
    }

    fn park(&mut self, now: Instant) -> Said {
        let ticket = self.ticket();
        self.shared.parked.push_back((now + LOCK_RETRY, ticket));
        Done::Later
    }

    fn in_use(&mut self) -> Said {
        self.session.entering = None;
        refused(Refusal::InUse)
    }

    /// The drop of who was welcomed.
    fn drop(&self) -> Option<PathBuf> {
        let Entering { name, account: Some(account), .. } = self.session.entering.as_deref()? else { return None };
        account::place(name, account, &self.session.settings).ok().map(|place| place.drop)
    }

    fn place_is_compacting(&self) -> bool {
        self.drop().is_some_and(|drop| self.shared.compacting.contains(&drop))
    }

    pub(super) fn misconfigured(&mut self, why: &str) -> Said {
        if self.has_line(Event::Trouble) {
            log::error!("pop3 {} {}: {}", self.id, self.who(), visible(why));
        }
        self.session.entering = None;
        refused(Refusal::Misconfigured)
    }
}
