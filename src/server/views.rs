//! What operators are shown of a server that runs: how it is, who is there, what holds how much memory.
//!
//! Everything is counted or looked up when somebody asks: a session keeps nothing for these pages.

use std::fmt::Display;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Server;
use super::entry::Entry;
use super::rates::WINDOWS;
use crate::control::{Report, Told};
use crate::net::jobs::{self, Kind};
use crate::net::turn::Ticket;
use crate::protocol::helper::QUEUE_LIMIT;
use crate::rules::places::Kind as Crowd;
use crate::service::Shared;
use crate::service::pop3::Visitor;
use crate::service::{Counts, Outcome};
use crate::sys::process;
use crate::text::pattern::PatternList;
use crate::text::printable::printable;

/// Sessions shown at a time: `users PATTERN` shows the others.
const USERS_SHOWN: usize = 1000;
/// What one more idle session with an open maildrop may hold, in bytes; benches/README.md says how it is measured.
const PLAIN_BUDGET: usize = 300;
/// The same within TLS.
const TLS_BUDGET: usize = 3700;
/// What rustls keeps for a connection: it does not say, so this is measured.
const TLS_STATE: usize = 3300;

/// What sessions hold.
#[derive(Debug, Default)]
struct Sessions {
    plain: usize,
    plain_bytes: usize,
    tls: usize,
    /// Without what rustls keeps.
    tls_bytes: usize,
    others: usize,
}

impl Sessions {
    fn bytes(&self) -> usize {
        self.plain_bytes + self.tls_bytes
    }
}

impl Server {
    pub(super) fn status(&mut self, report: &mut Report) {
        let sessions = self.sessions();
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
        report.add("sessions.now", shared.places.taken());
        report.add("sessions.tls", sessions.tls);
        report.add("sessions.most", shared.places.most());
        report.add("sessions.accepted", counts.connections);
        report.add("sessions.short_of_descriptors", counts.short);
        report.add("logins.good", counts.logins);
        report.add("logins.denied", counts.denied);
        report.add("logins.unavailable", counts.unavailable);
        limits(shared, report);
        report.add("messages.retrieved", counts.retrieved);
        report.add("messages.octets", counts.octets);
        report.add("messages.deleted", counts.deleted);
        report.add("messages.changed_under_us", counts.changed);
        report.add("smtp.servers_now", shared.places.taken_by(Crowd::Servers));
        report.add("smtp.senders_now", shared.places.taken_by(Crowd::Senders));
        report.add("smtp.programs_now", shared.programs);
        report.add("smtp.connections", counts.smtp.connections);
        report.add("smtp.accepted", counts.smtp.accepted);
        report.add("smtp.recipients", counts.smtp.recipients);
        report.add("smtp.octets", counts.smtp.octets);
        report.add("smtp.refused", counts.smtp.refused);
        report.add("smtp.lone_line_ends", counts.smtp.bare);
        report.add("smtp.nuls", counts.smtp.nuls);
        report.add("smtp.rejected", counts.smtp.rejected);
        if let Some(helpers) = shared.helpers.last() {
            let health = helpers.pool.health();
            report.add("authenticators.alive", health.alive);
            report.add("authenticators.busy", health.busy);
            report.add("authenticators.waiting", health.waiting);
            report.add("authenticators.most_waiting", QUEUE_LIMIT);
            report.add("authenticators.answered", health.answered);
            report.add("authenticators.unavailable", health.unavailable);
            report.add("authenticators.ended", health.ended);
            let abilities = helpers.pool.abilities();
            report.add("authenticators.scram", abilities.scram);
            report.add("authenticators.apop", abilities.apop);
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
        report.add("memory.sessions_kb", kb(sessions.bytes() + sessions.tls * TLS_STATE));
        report.add("memory.cache_kb", kb(shared.cache.held()));
        let holding = lp.holding();
        report.add("memory.loop_kb", kb(holding.slots + holding.tables + holding.buffers));
        report.table("rates", &["what", "last_minute", "last_5_minutes", "since_start"], self.rate_lines());
        report.table("volumes", &["root", "running", "waiting", "stuck"], self.volume_lines());
    }

    fn rate_lines(&self) -> Vec<Vec<Value>> {
        let (now, counts) = (self.lp.now(), self.shared.counts);
        let [minute, five] = WINDOWS.map(|window| self.rates.before(now, window));
        let line = |what: &str, of: fn(&Counts) -> u64| {
            let total = of(&counts);
            vec![what.into(), (total - of(&minute)).into(), (total - of(&five)).into(), total.into()]
        };
        vec![
            line("connections", |counts| counts.connections),
            line("logins", |counts| counts.logins),
            line("denied", |counts| counts.denied),
            line("unavailable", |counts| counts.unavailable),
            line("messages", |counts| counts.retrieved),
            line("octets", |counts| counts.octets),
            line("deleted", |counts| counts.deleted),
            line("accepted", |counts| counts.smtp.accepted),
        ]
    }

    /// The volumes that drops lie on, and any other that jobs wait for.
    fn volume_lines(&self) -> Vec<Vec<Value>> {
        let busy = self.shared.jobs.volumes();
        let line = |root: String, volume: u64| {
            let load = busy.iter().find(|load| load.volume == volume);
            let (running, waiting) = load.map_or((0, 0), |load| (load.running, load.waiting));
            vec![root.into(), running.into(), waiting.into(), load.is_some_and(|load| load.stuck).into()]
        };
        // A root that is named twice, as drop_path and as drop_root, is one.
        let mut named: Vec<_> = self.shared.volumes.iter().collect();
        named.dedup();
        let roots = named.into_iter().map(|(root, volume)| line(root.display().to_string(), *volume));
        let known = |volume: u64| self.shared.volumes.iter().any(|(_, known)| *known == volume);
        let others = busy.iter().filter(|load| !known(load.volume));
        roots.chain(others.map(|load| line("(elsewhere)".to_owned(), load.volume))).collect()
    }

    fn sessions(&mut self) -> Sessions {
        let mut sessions = Sessions::default();
        for (_, entry) in self.lp.iter_mut() {
            match entry {
                Entry::Pop3(conversation) if conversation.is_tls() => {
                    sessions.tls += 1;
                    sessions.tls_bytes += conversation.held();
                }
                Entry::Pop3(conversation) => {
                    sessions.plain += 1;
                    sessions.plain_bytes += conversation.held();
                }
                Entry::Smtp(conversation) if conversation.is_tls() => {
                    sessions.tls += 1;
                    sessions.tls_bytes += conversation.held();
                }
                Entry::Smtp(conversation) => {
                    sessions.plain += 1;
                    sessions.plain_bytes += conversation.held();
                }
                _ => sessions.others += 1,
            }
        }
        sessions
    }

    /// Who is logged in. Refuses what is no pattern.
    pub(super) fn users(&mut self, pattern: Option<&str>, report: &mut Report) -> Result<(), String> {
        let pattern = pattern.map(PatternList::parse).transpose()?;
        let now = self.lp.now();
        let visitors = self.lp.iter_mut().filter_map(|(id, entry)| match entry {
            Entry::Pop3(conversation) => Some((id, conversation.visitor(now)?)),
            _ => None,
        });
        let visitors = visitors.filter(|(_, who)| pattern.as_ref().is_none_or(|pattern| pattern.matches(who.user)));
        roster(SystemTime::now(), visitors, report);
        Ok(())
    }

    /// What holds how much memory. What the system says about it comes from a job: it counts pages.
    pub(super) fn mem(&mut self, ticket: Ticket) -> Option<Told> {
        let report = self.parts();
        let work = move |_: &jobs::Pulse| Outcome::Told(Ok(of_the_system(report)));
        match self.shared.jobs.submit(Some(ticket), Kind::Read, 0, work) {
            Ok(()) => None,
            Err(_) => Some(Ok(self.parts())),
        }
    }

    fn parts(&mut self) -> Report {
        let sessions = self.sessions();
        let (shared, holding) = (&self.shared, self.lp.holding());
        let (cached, _) = shared.cache.len();
        let parts = [
            ("sessions, plain", sessions.plain, sessions.plain_bytes),
            ("sessions, TLS", sessions.tls, sessions.tls_bytes),
            ("TLS state (estimated)", sessions.tls, sessions.tls * TLS_STATE),
            ("places for entries", self.lp.len(), holding.slots),
            ("deadlines and queues", 1, holding.tables),
            ("shared buffers", 1, holding.buffers),
            ("answers remembered", cached, shared.cache.held()),
            ("history for rates", 1, self.rates.held()),
        ];
        let sum: usize = parts.iter().map(|(_, _, bytes)| bytes).sum();
        let mut report = Report::default();
        report.add("parts_bytes", sum);
        // An idle session's share; what else is a session's is an entry's place and its deadline.
        let each = |bytes: usize, count: usize| (count > 0).then(|| bytes / count + holding.entry);
        let budget = |report: &mut Report, kind: &str, held: Option<usize>, budget: usize| {
            report.add(&format!("{kind}.budget_bytes"), budget);
            report.add(&format!("{kind}.held_bytes"), held);
            report.add(&format!("{kind}.within_budget"), held.map(|held| held <= budget));
        };
        budget(&mut report, "plain_session", each(sessions.plain_bytes, sessions.plain), PLAIN_BUDGET);
        let tls = sessions.tls_bytes + sessions.tls * TLS_STATE;
        budget(&mut report, "tls_session", each(tls, sessions.tls), TLS_BUDGET);
        let line = |(part, count, bytes): &(&str, usize, usize)| {
            vec![(*part).into(), (*count).into(), (*bytes).into(), (*count > 0).then(|| bytes / count).into()]
        };
        report.table("parts", &["part", "count", "bytes", "each"], parts.iter().map(line).collect());
        report
    }
}

/// Adds who is there: the first of them a line each, and how many there are.
fn roster<'v, I: Display>(clock: SystemTime, visitors: impl Iterator<Item = (I, Visitor<'v>)>, report: &mut Report) {
    let (mut lines, mut found) = (Vec::new(), 0usize);
    for (id, who) in visitors {
        found += 1;
        if lines.len() < USERS_SHOWN {
            lines.push(vec![
                id.to_string().into(),
                printable(who.user.as_bytes()).into(),
                who.address.to_string().into(),
                when(clock, who.age).into(),
                who.tls.into(),
                who.messages.into(),
                who.idle.as_secs().into(),
            ]);
        }
    }
    report.add("logged_in", found);
    if found > lines.len() {
        report.add("not_shown", found - lines.len());
    }
    report.table("users", &["id", "user", "address", "since", "tls", "messages", "idle_secs"], lines);
}

/// Adds what malloc and the system count for the whole process. In a job.
fn of_the_system(mut report: Report) -> Report {
    if let Some((used, free)) = crate::sys::process::heap() {
        report.add("heap.used_bytes", used);
        report.add("heap.free_bytes", free);
    }
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let row = |name: &str| field_kb(&rollup, name);
    report.add("process.resident_kb", row("Rss:"));
    report.add("process.pss_kb", row("Pss:"));
    report.add("process.anonymous_kb", row("Anonymous:"));
    report
}

/// A row of one of the system's files: `Pss:   1234 kB`.
fn field_kb(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// VmRSS of proc(5); 0 where there is no /proc. Made up by the system on the spot: no disk is waited for.
fn resident_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    field_kb(&status, "VmRSS:").unwrap_or(0)
}

fn kb(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}

/// The second in which something began that is so old: `2026-01-31T12:00:00Z`.
fn when(clock: SystemTime, age: Duration) -> String {
    let began = clock.checked_sub(age).and_then(|began| began.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let second = i64::try_from(began.as_secs()).ok().and_then(|secs| jiff::Timestamp::from_second(secs).ok());
    second.map_or_else(String::new, |second| second.to_string())
}

/// How often access was limited, by what, and what the limits remember.
fn limits(shared: &Shared, report: &mut Report) {
    let access = shared.counts.access;
    report.add("access.refused_by_name", access.name);
    report.add("access.refused_by_address", access.address);
    report.add("access.refused_by_host", access.host);
    report.add("access.without_drop", access.no_drop);
    report.add("access.delayed", access.delayed);
    report.add("access.too_soon", access.too_soon);
    report.add("access.over_user", access.over_user);
    report.add("access.over_prefix", access.over_prefix);
    report.add("access.crowded_out", access.crowded_out);
    let (prefixes, known) = shared.guard.penalties.len();
    report.add("access.prefixes_remembered", prefixes);
    report.add("access.users_known", known);
    let (prefixes, users) = shared.guard.living();
    report.add("access.prefixes_counted", prefixes);
    report.add("access.users_counted", users);
    let (names, pending) = shared.guard.names.len();
    report.add("access.names_known", names);
    report.add("access.names_pending", pending);
    let relaying = shared.counts.relaying;
    report.add("relaying.banned_clients", relaying.banned_clients);
    report.add("relaying.banned_senders", relaying.banned_senders);
    report.add("relaying.banned_recipients", relaying.banned_recipients);
    report.add("relaying.not_theirs", relaying.not_theirs);
    report.add("relaying.denied", relaying.denied);
    report.add("relaying.relayed", relaying.relayed);
    report.add("relaying.over_messages", relaying.over_messages);
    report.add("relaying.over_recipients", relaying.over_recipients);
    let (accounts, places) = shared.guard.sending.len();
    report.add("relaying.accounts_remembered", accounts);
    report.add("relaying.prefixes_remembered", places);
    report.add("relaying.readers_remembered", shared.guard.popped.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_systems_files_are_found() {
        let text =
            "55d0-7ffc ---p 00000000 00:00 0    [rollup]\nRss:                3428 kB\nPss:                1201 kB\n";
        assert_eq!((field_kb(text, "Pss:"), field_kb(text, "Anonymous:")), (Some(1201), None));
        assert!(resident_kb() > 0);
    }

    #[test]
    fn a_thousand_users_are_shown_and_all_are_counted() {
        let who = Visitor {
            user: "ann",
            address: [127, 0, 0, 1].into(),
            age: Duration::ZERO,
            tls: false,
            messages: None,
            idle: Duration::ZERO,
        };
        for (there, shown) in [(USERS_SHOWN, USERS_SHOWN), (USERS_SHOWN + 5, USERS_SHOWN)] {
            let mut report = Report::default();
            roster(SystemTime::now(), (0..there).map(|id| (id, who)), &mut report);
            let value: Value = serde_json::from_str(&report.json()).unwrap();
            assert_eq!((&value["logged_in"], value["users"].as_array().unwrap().len()), (&there.into(), shown));
            assert_eq!(value.get("not_shown").and_then(Value::as_u64).unwrap_or(0), (there - shown) as u64);
        }
    }

    #[test]
    fn times_are_shown_to_the_second_in_utc() {
        let clock = UNIX_EPOCH + Duration::from_millis(86_400_900);
        assert_eq!(when(clock, Duration::from_secs(60)), "1970-01-01T23:59:00Z");
    }
}
