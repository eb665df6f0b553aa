//! How an SMTP client gets in: as everywhere ([`entering`](crate::service::entering)); and who it is that speaks without.

use std::io;
use std::time::Instant;

use super::{Peer, Said, Service};
use crate::net::jobs::{Kind, NAME_SERVERS};
use crate::net::stream::Done;
use crate::protocol::helper::Verdict;
use crate::protocol::sasl::Login;
use crate::protocol::smtp::{Answer, Hello};
use crate::service::Outcome;
use crate::service::entering::{Came, Claim, Door};
use crate::service::noise::Event;
use crate::sys::user;

impl Service<'_> {
    pub(super) fn login(&mut self, now: Instant, login: Login) -> Said {
        let came = self.at_door(|door| door.enter(now, &login.user, Claim::Password(login.password)));
        self.came(came)
    }

    pub(super) fn verifier(&mut self, now: Instant, user: &[u8]) -> Said {
        let came = self.at_door(|door| door.enter(now, user, Claim::Scram));
        self.came(came)
    }

    pub(super) fn proof(&mut self, now: Instant, good: bool) -> Said {
        let came = self.at_door(|door| door.proof(now, good));
        self.came(came)
    }

    pub(super) fn judged(&mut self, now: Instant, verdict: Verdict) -> Said {
        let came = self.at_door(|door| door.judged(now, verdict));
        self.came(came)
    }

    /// It is time to try a login again.
    pub(super) fn try_login(&mut self, now: Instant) -> Said {
        match self.at_door(|door| door.again(now)) {
            Some(came) => self.came(came),
            None => Done::Now(Answer::Failed),
        }
    }

    /// Does something at the way in.
    fn at_door<T>(&mut self, work: impl FnOnce(&mut Door<'_>) -> T) -> T {
        let settings = self.session.settings.clone();
        work(&mut Door {
            service: "smtp",
            settings: &settings,
            here: self.session.here,
            peer: self.session.address(),
            serial: &mut self.session.serial,
            host: &mut self.session.host,
            entering: &mut self.session.entering,
            shared: self.shared,
            id: self.id,
        })
    }

    fn came(&mut self, came: Came) -> Said {
        match came {
            Came::Later => Done::Later,
            Came::In => {
                self.session.user = self.session.entering.take().map(|entering| entering.user().into());
                self.shared.counts.logins += 1;
                Done::Now(Answer::Go)
            }
            Came::Challenge(challenge) => Done::Now(Answer::Verifier(challenge)),
            Came::Denied => Done::Now(Answer::Denied),
            Came::Unavailable => Done::Now(Answer::Failed),
        }
    }

    /// The client says its name. By now the one of its host may be known.
    pub(super) fn hello(&mut self, now: Instant, hello: Hello) -> Said {
        self.forget();
        self.session.hello = Some(hello);
        match self.session.peer {
            Peer::Host(_) => {
                self.at_door(|door| door.name_host(now));
                Done::Now(Answer::Go)
            }
            Peer::Program(_) if self.session.user.is_some() => Done::Now(Answer::Go),
            Peer::Program(uid) => {
                let ticket = self.ticket();
                // May ask a name service.
                let work = move |_: &_| Outcome::Caller(user::name_of(uid));
                match self.shared.jobs.submit(Some(ticket), Kind::Name, NAME_SERVERS, work) {
                    Ok(()) => Done::Later,
                    Err(_) => Done::Now(Answer::Failed),
                }
            }
        }
    }

    /// The system has said what the user of a program is called. Who has no name is known by his number alone.
    pub(super) fn called(&mut self, name: io::Result<Option<String>>) -> Said {
        match name {
            Ok(name) => {
                self.session.user = name.map(Box::from);
                Done::Now(Answer::Go)
            }
            Err(error) => {
                if self.has_line(Event::Trouble) {
                    log::error!(
                        "smtp {} {}: the user of this program cannot be looked up: {error}",
                        self.id,
                        self.session.from()
                    );
                }
                Done::Now(Answer::Failed)
            }
        }
    }
}
