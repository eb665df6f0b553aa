//! What operators are shown of a server that runs: how it is, who is there, what holds how much memory.
//!
//! Everything is counted or looked up when somebody asks: a session keeps nothing for these pages.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Server;
use super::entry::Entry;
use super::rates::WINDOWS;
use crate::control::sending::{Place, State};
use crate::control::{Report, Told};
use crate::net::jobs::{self, Kind};
use crate::net::profile::Times;
use crate::net::turn::Ticket;
use crate::protocol::helper::QUEUE_LIMIT;
use crate::rules::paused::Paused;
use crate::rules::places::Kind as Crowd;
use crate::service::pop3::Visitor;
use crate::service::{Channel, Counts, Outcome, Relaying, Shared};
use crate::sys::process;
use crate::text::pattern::PatternList;
use crate::text::printable::{printable, visible};

/// Sessions shown at a time: `users PATTERN` shows the others.
const USERS_SHOWN: usize = 1000;
/// What one more idle session with an open maildrop may hold, in bytes; benches/README.md says how it is measured.
const PLAIN_BUDGET: usize = 300;
/// The same within TLS.
const TLS_BUDGET: usize = 3700;
/// What rustls keeps for a connection: it does not say, so this is measured.
const TLS_STATE: usize = 3300;

/// A count whose growth is shown, and what it is called.
type Rate = (&'static str, fn(&Counts) -> u64);
/// The columns of rates.
const RATES: &[&str] = &["what", "last_minute", "last_5_minutes", "since_start"];
/// The columns of volumes.
const VOLUMES: &[&str] = &["root", "running", "waiting", "stuck"];

/// Places that are shown at a time.
const PLACES_SHOWN: usize = 1000;
/// The columns of places.
const PLACES: &[&str] = &["place", "state", "connections", "bound", "waiting", "taken", "deferred", "next_secs", "why"];

/// The columns of connections.
const CHANNELS: &[&str] = &["id", "service", "peer", "user", "state", "tls", "age_secs", "messages", "octets"];

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
    /// How the server is, as tellpop shows it.
    pub(super) fn status(&mut self, report: &mut Report) {
        let sessions = self.sessions();
        self.identity(report);
        let (shared, counts) = (&self.shared, self.shared.counts);
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
        self.mail(report);
        self.works(report);
        report.add("memory.resident_kb", resident_kb());
        report.add("memory.sessions_kb", kb(sessions.bytes() + sessions.tls * TLS_STATE));
        report.add("memory.cache_kb", kb(self.shared.cache.held()));
        let holding = self.lp.holding();
        report.add("memory.loop_kb", kb(holding.slots + holding.tables + holding.buffers));
        report.table(
            "rates",
            RATES,
            self.rate_lines(&[
                ("connections", |counts| counts.connections),
                ("logins", |counts| counts.logins),
                ("denied", |counts| counts.denied),
                ("unavailable", |counts| counts.unavailable),
                ("messages", |counts| counts.retrieved),
                ("octets", |counts| counts.octets),
                ("deleted", |counts| counts.deleted),
                ("accepted", |counts| counts.smtp.accepted),
            ]),
        );
        report.table("volumes", VOLUMES, self.volume_lines());
    }

    /// The same, as tellsmtp shows it: what mail on its way needs.
    pub(super) fn smtp_status(&mut self, report: &mut Report) {
        self.identity(report);
        self.mail(report);
        let counts = self.shared.counts;
        report.add("logins.good", counts.logins);
        report.add("logins.denied", counts.denied);
        report.add("logins.unavailable", counts.unavailable);
        relaying(&counts.relaying, report);
        self.delivery(report);
        self.name_servers(report);
        self.works(report);
        report.add("memory.resident_kb", resident_kb());
        report.table(
            "rates",
            RATES,
            self.rate_lines(&[
                ("connections", |counts| counts.smtp.connections),
                ("accepted", |counts| counts.smtp.accepted),
                ("recipients", |counts| counts.smtp.recipients),
                ("octets", |counts| counts.smtp.octets),
                ("refused", |counts| counts.smtp.refused),
                ("relayed", |counts| counts.relaying.relayed),
            ]),
        );
        report.table("volumes", VOLUMES, self.volume_lines());
    }

    /// Mail on its way to its drops.
    fn delivery(&self, report: &mut Report) {
        let transit = &self.shared.transit;
        let counts = &transit.counts;
        report.add("delivery.kept", counts.accepted);
        report.add("delivery.refused", counts.refused);
        report.add("delivery.unknown", counts.unknown);
        report.add("delivery.repeated", counts.repeated);
        report.add("delivery.unheard", transit.unheard());
        report.add("delivery.delivered", counts.delivered);
        report.add("delivery.deferred", counts.deferred);
        report.add("delivery.failed", counts.failed);
        report.add("delivery.dropped", counts.dropped);
        report.add("delivery.bytes", counts.bytes);
        report.add("delivery.syncs", counts.syncs);
        report.add("delivery.bodies_kb", kb(transit.held()));
        report.add("delivery.open_intents", transit.open_intents());
        report.add("queue.waiting", transit.waiting());
        report.add("queue.put_there", counts.queued);
        let sent = self.shared.outgoing.counts;
        report.add("sending.connections", sent.connections);
        report.add("sending.failed", sent.failed);
        report.add("sending.messages", sent.messages);
        report.add("sending.taken", sent.taken);
        report.add("sending.possibly", sent.possibly);
        report.add("sending.not_tried", sent.not_tried);
        report.add("sending.all_paused", transit.paused().is_all());
        report.add("sending.places_paused", transit.paused().places().len());
    }

    /// Which places mail is sent to, and how each is.
    pub(super) fn sending(&self, report: &mut Report) {
        let paused = self.shared.transit.paused();
        report.add("all_paused", paused.is_all());
        destinations(self.shared.destinations(self.lp.now()), paused, report);
    }

    /// What is asked of name servers.
    fn name_servers(&self, report: &mut Report) {
        let health = self.shared.dns.resolver.health();
        report.add("dns.questions", health.questions);
        report.add("dns.cache_hits", health.remembered);
        report.add("dns.stale_answers", health.stale);
        report.add("dns.failures", health.failed);
        report.add("dns.sent", health.sent);
        report.add("dns.streams", health.streams);
        report.add("dns.foreign", health.foreign);
        report.add("dns.asking_now", health.asking);
        report.add("dns.waiting_now", health.owed);
        report.add("dns.cache_entries", health.known);
        let servers: Vec<String> = self.shared.dns.resolver.servers().map(|server| server.to_string()).collect();
        report.add("dns.servers", servers.join(", "));
    }

    /// Mail that comes in.
    fn mail(&self, report: &mut Report) {
        let (shared, mails) = (&self.shared, self.shared.counts.smtp);
        report.add("smtp.servers_now", shared.places.taken_by(Crowd::Servers));
        report.add("smtp.senders_now", shared.places.taken_by(Crowd::Senders));
        report.add("smtp.programs_now", shared.programs);
        report.add("smtp.connections", mails.connections);
        report.add("smtp.accepted", mails.accepted);
        report.add("smtp.recipients", mails.recipients);
        report.add("smtp.octets", mails.octets);
        report.add("smtp.refused", mails.refused);
        report.add("smtp.lone_line_ends", mails.bare);
        report.add("smtp.nuls", mails.nuls);
        report.add("smtp.rejected", mails.rejected);
    }

    /// What runs here.
    fn identity(&self, report: &mut Report) {
        let shared = &self.shared;
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
    }

    /// Who works for everybody: authenticators, their remembered answers, jobs, the loop.
    fn works(&self, report: &mut Report) {
        let (shared, lp) = (&self.shared, &self.lp);
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
        let (longest, kind) = lp.profile().longest();
        report.add("loop.longest_turn_us", longest.as_micros() as u64);
        report.add("loop.longest_turn_of", kind);
        report.add("loop.faults", lp.panics());
        report.add("loop.late_answers", shared.counts.late);
    }

    fn rate_lines(&self, of: &[Rate]) -> Vec<Vec<Value>> {
        let (now, counts) = (self.lp.now(), self.shared.counts);
        let [minute, five] = WINDOWS.map(|window| self.rates.before(now, window));
        let line = |(what, of): &Rate| {
            let total = of(&counts);
            vec![(*what).into(), (total - of(&minute)).into(), (total - of(&five)).into(), total.into()]
        };
        of.iter().map(line).collect()
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

    /// How long turns take.
    pub(super) fn profile(&self, report: &mut Report) {
        let profile = self.lp.profile();
        let (longest, kind) = profile.longest();
        report.add("longest_us", longest.as_micros() as u64);
        report.add("longest_of", kind);
        let micros = |time: Duration| Value::from(time.as_micros() as u64);
        let line = |row: &Times| {
            let mean = row.total.checked_div(u32::try_from(row.count).unwrap_or(u32::MAX)).unwrap_or_default();
            vec![
                row.kind.into(),
                row.count.into(),
                (row.total.as_millis() as u64).into(),
                micros(mean),
                micros(row.quantile(500)),
                micros(row.quantile(990)),
                micros(row.longest),
            ]
        };
        let columns = &["kind", "turns", "total_ms", "mean_us", "p50_us", "p99_us", "longest_us"];
        report.table("profile", columns, profile.rows().iter().map(line).collect());
    }

    /// Which connections there are.
    pub(super) fn channels(&mut self, report: &mut Report) {
        let now = self.lp.now();
        let channels = self.lp.iter_mut().filter_map(|(id, entry)| Some((id, entry.channel(now)?)));
        wires(channels, report);
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
        let dns = shared.dns.resolver.health();
        let parts = [
            ("sessions, plain", sessions.plain, sessions.plain_bytes),
            ("sessions, TLS", sessions.tls, sessions.tls_bytes),
            ("TLS state (estimated)", sessions.tls, sessions.tls * TLS_STATE),
            ("places for entries", self.lp.len(), holding.slots),
            ("deadlines and queues", 1, holding.tables),
            ("shared buffers", 1, holding.buffers),
            ("answers remembered", cached, shared.cache.held()),
            ("answers of name servers", dns.known, dns.bytes),
            ("history for rates", 1, self.rates.held()),
            ("turn times", self.lp.profile().rows().len(), self.lp.profile().held()),
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

/// Adds which connections there are: the first of them a line each, and how many of each service there are.
fn wires<I: Display>(channels: impl Iterator<Item = (I, Channel)>, report: &mut Report) {
    let (mut lines, mut found) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for (id, channel) in channels {
        *found.entry(channel.service).or_default() += 1;
        if lines.len() < USERS_SHOWN {
            lines.push(vec![
                id.to_string().into(),
                channel.service.into(),
                channel.peer.into(),
                channel.user.into(),
                channel.state.into(),
                channel.tls.into(),
                channel.age.as_secs().into(),
                channel.messages.into(),
                channel.octets.into(),
            ]);
        }
    }
    let all: usize = found.values().sum();
    report.add("connections", all);
    for (service, count) in found {
        report.add(&format!("of.{service}"), count);
    }
    if all > lines.len() {
        report.add("not_shown", all - lines.len());
    }
    report.table("channels", CHANNELS, lines);
}

/// Adds the places that mail is sent to: the first of them a line each, those that an operator has paused with them.
fn destinations(mut places: Vec<Place>, paused: &Paused, report: &mut Report) {
    for place in &mut places {
        if paused.holds(&place.key) {
            place.state = State::Paused;
        }
    }
    let is_there = |key: &str| places.iter().any(|place| place.key.eq_ignore_ascii_case(key));
    let others: Vec<Place> = (paused.places().filter(|key| !is_there(key)))
        .map(|key| Place { key: key.to_owned(), state: State::Paused, ..Place::default() })
        .collect();
    places.extend(others);
    let line = |place: &Place| {
        vec![
            visible(&place.key).into(),
            place.state.word().into(),
            place.connections.into(),
            place.bound.into(),
            place.waiting.into(),
            place.taken.into(),
            place.deferred.into(),
            place.next_secs.into(),
            visible(&place.why).into(),
        ]
    };
    report.add("places", places.len());
    report.add("connections", places.iter().map(|place| place.connections).sum::<usize>());
    report.add("waiting", places.iter().map(|place| place.waiting).sum::<usize>());
    if places.len() > PLACES_SHOWN {
        report.add("not_shown", places.len() - PLACES_SHOWN);
    }
    report.table("sending", PLACES, places.iter().take(PLACES_SHOWN).map(line).collect());
}

/// Adds what malloc and the system count for the whole process. In a job.
fn of_the_system(mut report: Report) -> Report {
    if let Some((used, free)) = crate::sys::memory::heap() {
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

/// How often sending was limited, and by what.
fn relaying(counts: &Relaying, report: &mut Report) {
    report.add("relaying.relayed", counts.relayed);
    report.add("relaying.denied", counts.denied);
    report.add("relaying.banned_clients", counts.banned_clients);
    report.add("relaying.banned_senders", counts.banned_senders);
    report.add("relaying.banned_recipients", counts.banned_recipients);
    report.add("relaying.not_theirs", counts.not_theirs);
    report.add("relaying.over_messages", counts.over_messages);
    report.add("relaying.over_recipients", counts.over_recipients);
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
    fn paused_places_are_shown_whether_mail_waits_for_them_or_not() {
        let mut paused = Paused::default();
        paused.pause(Some("mx b.test")).unwrap();
        paused.pause(Some("mx c.test")).unwrap();
        let place = |key: &str| Place { key: key.to_owned(), state: State::Sending, waiting: 2, ..Place::default() };
        let mut report = Report::default();
        destinations(vec![place("mx a.test"), place("mx B.test")], &paused, &mut report);
        let value: Value = serde_json::from_str(&report.json()).unwrap();
        let states: Vec<&str> =
            value["sending"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
        assert_eq!(
            (states, &value["places"], &value["waiting"]),
            (vec!["sending", "paused", "paused"], &3.into(), &4.into())
        );
        paused.pause(None).unwrap();
        let mut report = Report::default();
        destinations(vec![place("mx a.test")], &paused, &mut report);
        assert!(report.text().contains("mx a.test  paused"), "{}", report.text());
    }

    #[test]
    fn connections_are_counted_by_service_and_a_thousand_are_shown() {
        let channel = |service| Channel {
            service,
            peer: "192.0.2.7:1234".into(),
            user: None,
            state: "waiting",
            tls: true,
            age: Duration::from_secs(5),
            messages: 2,
            octets: 9,
        };
        let mut report = Report::default();
        let all = (0..USERS_SHOWN + 3).map(|id| (id, channel(if id < 2 { "smtp" } else { "pop3" })));
        wires(all, &mut report);
        let value: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&value["of"]["smtp"], &value["of"]["pop3"]), (&2.into(), &1001.into()));
        assert_eq!((&value["connections"], &value["not_shown"]), (&1003.into(), &3.into()));
        assert_eq!(value["channels"].as_array().unwrap().len(), USERS_SHOWN);
        assert_eq!((&value["channels"][0]["age_secs"], &value["channels"][0]["user"]), (&5.into(), &Value::Null));
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
