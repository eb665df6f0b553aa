//! What operators can have done: orders come in over the control socket and are carried out here, between turns, when
//! nothing is borrowed. Some are answered at once, some when a job or an authenticator has done its part: see
//! `service/control.rs`. What an order shows is in `views.rs`.

use super::Server;
use super::entry::Entry;
use crate::control::{self, Order, Report, Teller, Told};
use crate::net::jobs::{Kind, Pulse};
use crate::net::turn::{Id, Ticket};
use crate::protocol::End;
use crate::rules::paused::Paused;
use crate::service::Outcome;
use crate::service::control::Conversation;
use crate::service::errand::{self, Deed, Errand};
use crate::service::why::Message;
use crate::settings::{Place, Settings, rows};
use crate::text::printable::{printable, visible};

impl Server {
    pub(super) fn carry_out_orders(&mut self) {
        while let Some((ticket, order)) = self.shared.orders.pop_front() {
            if let Some(told) = self.carry_out(ticket, order) {
                self.report(ticket, &told);
            }
        }
    }

    pub(super) fn report(&mut self, ticket: Ticket, told: &Told) {
        self.with_operator(ticket, |conversation| conversation.report(ticket, told));
    }

    /// Does something with whoever gave an order, if he still waits.
    fn with_operator(&mut self, ticket: Ticket, work: impl FnOnce(&mut Conversation)) {
        if let Some(Entry::Control(conversation)) = self.lp.get_mut(ticket.id) {
            work(conversation);
            self.lp.wake(ticket.id);
        }
    }

    /// What an order came to; nothing yet when it is answered later.
    fn carry_out(&mut self, ticket: Ticket, order: Order) -> Option<Told> {
        let mut report = Report::default();
        match order {
            Order::Help(teller) => {
                report.add("commands", teller.verbs().map(|verb| verb.name).collect::<Vec<_>>());
                report = report.in_prose(control::help(teller));
            }
            Order::Version => report.add("version", env!("CARGO_PKG_VERSION")),
            Order::Remark(about, text) => report.add(about, text),
            Order::Status(Teller::Pop) => self.status(&mut report),
            Order::Status(Teller::Smtp) => self.smtp_status(&mut report),
            Order::Profile => self.profile(&mut report),
            Order::Channels => self.channels(&mut report),
            Order::Config(name) => {
                if let Err(why) = config(&name, &self.shared.settings, &mut report) {
                    return Some(Err(vec![why]));
                }
            }
            Order::ClearCache => self.clear_cache(&mut report),
            Order::Why(why) => match Message::new(why) {
                Ok(message) => {
                    let now = self.lp.now();
                    if let Some(Entry::Control(conversation)) = self.lp.get_mut(ticket.id) {
                        conversation.begin_why(now, ticket, &message, &mut self.shared);
                        self.lp.wake(ticket.id);
                    }
                    return None;
                }
                Err(why) => return Some(Err(vec![why])),
            },
            Order::Queue(ask) => {
                let now = self.lp.now();
                if let Some(Entry::Control(conversation)) = self.lp.get_mut(ticket.id) {
                    conversation.begin_queue(now, ticket, ask, &mut self.shared);
                    self.lp.wake(ticket.id);
                }
                return None;
            }
            Order::Pause(place) => return self.pause(ticket, place.as_deref()),
            Order::Resume(place) => return self.resume(ticket, place.as_deref()),
            Order::Sending => self.sending(&mut report),
            Order::Mem => return self.mem(ticket),
            Order::Users(pattern) => {
                if let Err(why) = self.users(pattern.as_deref(), &mut report) {
                    return Some(Err(vec![why]));
                }
            }
            Order::Kick(whom) => return Some(self.kick(&whom)),
            Order::Forget(user) => match errand::named(&user, &self.shared.settings) {
                Ok(name) => {
                    report.add("user", printable(name.shown().as_bytes()));
                    report.add("forgotten", self.shared.cache.forget(name.shown()));
                }
                Err(why) => return Some(Err(vec![why])),
            },
            Order::Lookup(user) => return self.begin(ticket, Deed::Lookup, &[&user]),
            Order::Undelete(user) => return self.begin(ticket, Deed::Undelete, &[&user]),
            Order::Erase(user) => return self.begin(ticket, Deed::Erase, &[&user]),
            Order::Rename(old, new) => return self.begin(ticket, Deed::Rename, &[&old, &new]),
            Order::ByTool(_) => {
                return Some(Err(vec!["the tool does this itself: it is no order for a server".to_owned()]));
            }
            Order::LogLevel(level) => {
                log::set_max_level(level);
                report.add("log_level", level.as_str().to_ascii_lowercase());
            }
            Order::Reload => {
                self.reload(Some(ticket));
                return None;
            }
            Order::Shutdown => {
                report.add("stopping", true);
                self.stop();
            }
        }
        Some(Ok(report))
    }

    /// Forgets all answers that are only remembered.
    fn clear_cache(&mut self, report: &mut Report) {
        let shared = &mut self.shared;
        report.add("users_forgotten", shared.cache.clear());
        report.add("hosts_forgotten", shared.guard.names.clear());
        report.add("dns_answers_forgotten", shared.dns.resolver.forget());
    }

    /// Nothing goes to this place, or to anybody, from now on.
    fn pause(&mut self, ticket: Ticket, place: Option<&str>) -> Option<Told> {
        let mut paused = self.shared.transit.paused().clone();
        // A slip of the pen would hold up nothing.
        let known = place.map(|place| {
            let mut places = self.shared.outgoing.places(self.lp.now());
            places.any(|shown| shown.key.eq_ignore_ascii_case(place))
        });
        match paused.pause(place) {
            Ok(is_new) => self.keep_paused(ticket, paused, is_new, known),
            Err(why) => Some(Err(vec![why])),
        }
    }

    /// Something goes there again.
    fn resume(&mut self, ticket: Ticket, place: Option<&str>) -> Option<Told> {
        let mut paused = self.shared.transit.paused().clone();
        let is_new = paused.resume(place);
        if !is_new && place.is_some_and(|place| paused.holds(place)) {
            return Some(Err(vec!["all sending is paused: `resume` alone takes that back".to_owned()]));
        }
        self.keep_paused(ticket, paused, is_new, None)
    }

    /// What is paused now holds at once; it is reported when it is on disk.
    ///
    /// `known`: whether mail has gone to that place lately.
    fn keep_paused(&mut self, ticket: Ticket, paused: Paused, is_new: bool, known: Option<bool>) -> Option<Told> {
        let report = move |paused: &Paused| {
            let mut report = Report::default();
            report.add("changed", is_new);
            if let Some(known) = known {
                report.add("place_known", known);
            }
            report.add("all_paused", paused.is_all());
            report.add("places_paused", paused.places().map(visible).collect::<Vec<_>>());
            report
        };
        let shared = &mut self.shared;
        let keep = shared.transit.set_paused(paused.clone(), &shared.settings);
        shared.outgoing.pause(paused.is_all());
        let work = move |_: &Pulse| {
            let unkept = |fault| vec![format!("it is so now, but a restart will forget it: {fault}")];
            Outcome::Told(keep().map(|()| report(&paused)).map_err(unkept))
        };
        match shared.jobs.submit(Some(ticket), Kind::Sync, shared.transit.volume(), work) {
            Ok(()) => None,
            Err(busy) => Some(Err(vec![format!("it is so now, but a restart will forget it: {busy}")])),
        }
    }

    fn begin(&mut self, ticket: Ticket, deed: Deed, users: &[&str]) -> Option<Told> {
        let errand = match Errand::new(deed, users, &self.shared.settings) {
            Ok(errand) => errand,
            Err(why) => return Some(Err(vec![why])),
        };
        if errand.deed().is_alone()
            && let Some((user, id)) = self.logged_in(&errand)
        {
            let user = printable(user.as_bytes());
            return Some(Err(vec![format!("{user} is logged in, by session {id}: `kick {user}` first")]));
        }
        let (now, shared) = (self.lp.now(), &mut self.shared);
        if let Some(Entry::Control(conversation)) = self.lp.get_mut(ticket.id) {
            conversation.begin(now, ticket, errand, shared);
            self.lp.wake(ticket.id);
        }
        None
    }

    /// One of an errand's users who is logged in, and his session. Who is on his way out is waited for; who is asked for his
    /// password still may be anybody, and finds the maildrop in use when he is let in.
    fn logged_in(&mut self, errand: &Errand) -> Option<(String, Id)> {
        self.lp.iter_mut().find_map(|(id, entry)| match entry {
            Entry::Pop3(conversation) if !conversation.is_ending() => {
                let user = errand.users().find(|user| conversation.is_visited_by(user))?;
                Some((user.to_owned(), id))
            }
            _ => None,
        })
    }

    /// Ends the sessions of a user, also those that are being let in; or, where nobody of that name is there, the one
    /// session with that id, whoever it is.
    fn kick(&mut self, whom: &str) -> Told {
        let name = errand::named(whom, &self.shared.settings).ok().map(|name| name.shown().to_owned());
        let clients = self.lp.iter_mut().filter_map(|(id, entry)| {
            let is_of = |name: &str| match &*entry {
                Entry::Pop3(conversation) => Some(conversation.is_of(name)),
                Entry::Smtp(conversation) => Some(conversation.is_of(name)),
                _ => None,
            };
            Some((id, is_of(name.as_deref().unwrap_or_default())?))
        });
        let (mut of_user, mut of_id) = (Vec::new(), None);
        for (id, is_his) in clients {
            if name.is_some() && is_his {
                of_user.push(id);
            } else if id.to_string() == whom {
                of_id = Some(id);
            }
        }
        if of_user.is_empty() {
            of_user.extend(of_id);
        }
        if of_user.is_empty() {
            return Err(vec![format!(
                "{}: nobody of this name is logged in, and no session has this id",
                visible(whom)
            )]);
        }
        for &id in &of_user {
            self.end(id, End::Kicked);
        }
        let mut report = Report::default();
        report.add("kicked", of_user.iter().map(Id::to_string).collect::<Vec<_>>());
        Ok(report)
    }

    pub(super) fn end(&mut self, id: Id, why: End) {
        match self.lp.get_mut(id) {
            Some(Entry::Pop3(conversation)) => conversation.end(why),
            Some(Entry::Smtp(conversation)) => conversation.end(why),
            _ => return,
        }
        self.lp.wake(id);
    }
}

/// Adds what a setting is. Refuses what is none, and says so of one that is not used.
fn config(name: &str, settings: &Settings, report: &mut Report) -> Result<(), String> {
    let Some(row) = rows::find(name) else {
        return Err(match rows::unused(name) {
            Some((name, unused)) => format!("{name}: {}", unused.why),
            None => format!("{}: no setting has this name; `dmail settings` lists them", visible(name)),
        });
    };
    let places: &[Place] = settings.places.get(row.name).map_or(&[], Vec::as_slice);
    report.add("setting", row.name);
    report.add("value", (row.show)(settings).iter().map(|value| visible(value)).collect::<Vec<_>>());
    let follows = row.follows.filter(|_| places.is_empty());
    report.add(
        "from",
        match follows {
            Some(other) => vec![format!("{other}, which it follows")],
            None if places.is_empty() => vec!["the default".to_owned()],
            None => places.iter().map(|place| format!("{}:{}", place.file.display(), place.line)).collect(),
        },
    );
    report.add("default", (!row.default.is_empty()).then_some(row.default));
    report.add("takes_effect", row.takes_effect.to_string());
    Ok(())
}

/// What a reload came to.
pub(super) fn reload_report(result: Result<Vec<String>, Vec<String>>) -> Told {
    result.map(|changes| {
        let mut report = Report::default();
        report.add("changed", changes);
        report
    })
}
