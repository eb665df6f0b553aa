//! What operators can have done: orders come in over the control socket and are carried out here, between turns, when
//! nothing is borrowed.

use std::fs;
use std::time::SystemTime;

use super::Server;
use super::entry::Entry;
use crate::control::{self, Order, Report};
use crate::net::turn::Ticket;
use crate::sys::process;

impl Server {
    pub(super) fn carry_out_orders(&mut self) {
        while let Some((ticket, words)) = self.shared.orders.pop_front() {
            let (done, text) = match control::parse(&words) {
                // Answered when it has been read.
                Ok((Order::Reload, json)) => {
                    self.reload(Some(ticket), json);
                    continue;
                }
                Ok((order, json)) => self.carry_out(order, json),
                Err(why) => (false, format!("{why}\n")),
            };
            self.report(ticket, done, text);
        }
    }

    pub(super) fn report(&mut self, ticket: Ticket, done: bool, text: String) {
        if let Some(Entry::Control(conversation)) = self.lp.get_mut(ticket.id) {
            conversation.report(ticket, done, text);
            self.lp.wake(ticket.id);
        }
    }

    fn carry_out(&mut self, order: Order, json: bool) -> (bool, String) {
        let mut report = Report::default();
        match order {
            Order::Help if !json => return (true, control::help()),
            Order::Help => {
                report.add("commands", control::VERBS.iter().map(|verb| verb.name).collect::<Vec<_>>());
            }
            Order::Version => report.add("version", env!("CARGO_PKG_VERSION")),
            Order::Status => self.status(&mut report),
            Order::LogLevel(level) => {
                log::set_max_level(level);
                report.add("log_level", level.as_str().to_ascii_lowercase());
            }
            Order::Reload => unreachable!("it is begun, not carried out"),
            Order::ByTool(_) => return (false, "tellpop does this itself: it is no order for a server\n".to_owned()),
            Order::Shutdown => {
                report.add("stopping", true);
                self.stop();
            }
        }
        (true, if json { report.json() } else { report.text() })
    }

    fn status(&mut self, report: &mut Report) {
        let (shared, lp) = (&self.shared, &self.lp);
        let counts = shared.counts;
        let up = SystemTime::now().duration_since(shared.started).unwrap_or_default().as_secs();
        report.add("version", env!("CARGO_PKG_VERSION"));
        report.add("pid", std::process::id());
        report.add("uid", process::own_uid());
        if let Some(launcher) = &shared.launcher {
            report.add("launcher.pid", launcher.pid());
            report.add("launcher.alive", launcher.is_there());
        }
        report.add("configuration", shared.settings.file.display().to_string());
        report.add("serving", self.serving());
        report.add("up_secs", up);
        report.add("sessions.now", shared.open);
        report.add("sessions.most", shared.cap);
        report.add("sessions.accepted", counts.connections);
        report.add("sessions.short_of_descriptors", counts.short);
        report.add("logins.good", counts.logins);
        report.add("logins.denied", counts.denied);
        report.add("logins.unavailable", counts.unavailable);
        report.add("messages.retrieved", counts.retrieved);
        report.add("messages.octets", counts.octets);
        report.add("messages.deleted", counts.deleted);
        report.add("messages.changed_under_us", counts.changed);
        if let Some(helpers) = shared.helpers.last() {
            let health = helpers.pool.health();
            report.add("authenticators.alive", health.alive);
            report.add("authenticators.busy", health.busy);
            report.add("authenticators.waiting", health.waiting);
            report.add("authenticators.answered", health.answered);
            report.add("authenticators.unavailable", health.unavailable);
            report.add("authenticators.ended", health.ended);
        }
        let (entries, most) = shared.cache.len();
        report.add("cache.entries", entries);
        report.add("cache.most", most);
        report.add("cache.hits", shared.cache.hits);
        report.add("cache.misses", shared.cache.misses);
        let load = shared.jobs.load();
        report.add("jobs.threads", load.threads);
        report.add("jobs.running", load.running);
        report.add("jobs.waiting", load.waiting);
        report.add("jobs.stuck", load.stuck);
        report.add("loop.longest_turn_us", lp.longest().time.as_micros() as u64);
        report.add("loop.longest_turn_of", lp.longest().kind);
        report.add("loop.faults", lp.panics());
        report.add("loop.late_answers", counts.late);
        report.add("memory.resident_kb", resident_kb());
    }
}

/// What a reload came to.
pub(super) fn reload_report(result: Result<Vec<String>, Vec<String>>, json: bool) -> (bool, String) {
    let mut report = Report::default();
    let done = result.is_ok();
    match result {
        Ok(changes) => report.add("changed", changes),
        Err(complaints) => report.add("refused", complaints),
    }
    (done, if json { report.json() } else { report.text() })
}

/// VmRSS of proc(5); 0 where there is no /proc.
fn resident_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
