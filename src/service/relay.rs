//! Who may send what to whom: the rules of `rules/relay.rs` and `rules/sending.rs`, asked with what the settings say and what
//! the guard remembers; and the same rules asked by an operator, who wants to know why.
//!
//! | asked at   | by           | in this order                                                              |
//! |------------|--------------|----------------------------------------------------------------------------|
//! | connection | [`client`]   | bans                                                                       |
//! | MAIL       | [`sender`]   | bans, whose address it is, messages of the client's prefix                 |
//! | RCPT       | [`recipient`]| bans, rights to relay, recipients of the account                           |
//!
//! What passes is counted at once, so that connections side by side have no more together than one alone. [`why`] asks all
//! three, counts nothing, and gives a line for each rule that was asked.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use super::guard::Guard;
use super::route::whole;
use super::{Relaying, Shared};
use crate::mail::address::{Address, Place};
use crate::protocol::smtp::reply::Reply;
use crate::rules::relay::{
    self, At, Client, Found, Gate, Lists, Outcome, Party, Refusal, Rule, Ruling, TOO_MANY_MESSAGES, judge_client,
    judge_recipient, judge_sender,
};
use crate::rules::route::{Table, leads_to};
use crate::rules::sending::{Allowance, Over};
use crate::settings::{self, HideAuth, SendsOver, Settings};

/// Who sends, as a session knows him.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// By which door he came.
    pub gate: Gate,
    /// Where he is; a program of this machine is nowhere.
    pub address: Option<IpAddr>,
    /// The canonical name of the user that he has logged in as.
    pub login: Option<&'a str>,
}

/// It is refused.
#[derive(Debug)]
pub struct Denied {
    /// What the client hears.
    pub reply: Reply,
    /// What every rule that was asked had found, for a log.
    pub trail: String,
}

/// A recipient that may be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// The message is to be held: with this recipient its sender is over his bound.
    pub held_for: Option<Over>,
}

/// What the settings say about it.
pub fn lists(settings: &Settings) -> Lists<'_> {
    Lists {
        ban_ip: &settings.ban_ip,
        ban_ip_except: &settings.ban_ip_except,
        ban_mailfrom: &settings.ban_mailfrom,
        ban_rcptto: &settings.ban_rcptto,
        sender_must_match: settings.sender_must_match,
        forward_from_ip: &settings.forward_from_ip,
        forward_user: &settings.forward_user,
        relay_to: &settings.relay_to,
        forward_from: &settings.forward_from,
    }
}

/// An address, as the rules look at it.
pub fn party(address: &Address) -> Party<'_> {
    let at = match &address.place {
        Place::Domain(domain) => At::Domain(domain),
        Place::Literal(address) => At::Literal(*address),
        Place::Here => At::Here,
    };
    Party { local: &address.local, at }
}

/// Whether mail for this address is for us to deliver, or to refuse.
pub fn is_ours(settings: &Settings, address: &Address) -> bool {
    match &address.place {
        Place::Domain(domain) => settings.domains.has(domain),
        Place::Literal(_) => false,
        Place::Here => true,
    }
}

fn reply(refusal: &Refusal) -> Reply {
    Reply::new(refusal.code, refusal.subject, refusal.detail, refusal.text)
}

fn allowance(settings: &Settings) -> Allowance {
    Allowance { per_hour: settings.sends_per_hour, per_day: settings.sends_per_day }
}

fn bits(settings: &Settings) -> (u8, u8) {
    (settings.prefix_bits_v4, settings.prefix_bits_v6)
}

impl Who<'_> {
    fn client(&self, now: Instant, settings: &Settings, guard: &Guard) -> Client<'_> {
        let window = settings.forward_user_minutes;
        let popped = self.address.filter(|_| !settings.forward_user.is_empty());
        Client {
            gate: self.gate,
            address: self.address,
            login: self.login,
            popped: popped.and_then(|address| guard.popped.minutes(now, address, window)),
        }
    }

    /// Where his messages are counted, if they are.
    fn counted_at(&self, settings: &Settings) -> Option<IpAddr> {
        let address = self.address.filter(|_| self.login.is_none() && settings.fromip_max > 0)?;
        (!settings.fromip_nolimit.contains(address)).then_some(address)
    }
}

impl Relaying {
    fn refused(&mut self, rule: Rule) {
        match rule {
            Rule::BanIp | Rule::BanIpExcept => self.banned_clients += 1,
            Rule::BanMailfrom => self.banned_senders += 1,
            Rule::SenderMatch => self.not_theirs += 1,
            Rule::BanRcptto => self.banned_recipients += 1,
            _ => self.denied += 1,
        }
    }
}

/// What came of a ruling, counted if it refuses.
fn settle(ruling: &Ruling<'_>, counts: &mut Relaying) -> Result<(), Box<Denied>> {
    match (ruling.refused(), ruling.last()) {
        (Some(refusal), Some(rule)) => {
            counts.refused(rule);
            Err(Box::new(Denied { reply: reply(refusal), trail: ruling.to_string() }))
        }
        _ => Ok(()),
    }
}

/// Whether who connects to the submission port from there may send without a login, and shall not be offered one.
pub fn needs_no_login(now: Instant, shared: &Shared, address: IpAddr) -> bool {
    let settings = &shared.settings;
    let hides = settings.hide_auth == HideAuth::RecentPop && !settings.forward_user.is_empty();
    hides && shared.guard.popped.minutes(now, address, settings.forward_user_minutes).is_some()
}

/// Whether we talk to a client at this address.
pub fn client(shared: &mut Shared, settings: &Settings, address: IpAddr) -> Result<(), Box<Denied>> {
    settle(&judge_client(address, &lists(settings)), &mut shared.counts.relaying)
}

/// Whether a message may have this sender; `None` is the null sender.
pub fn sender(
    now: Instant,
    shared: &mut Shared,
    settings: &Settings,
    who: &Who<'_>,
    address: Option<&Address>,
) -> Result<(), Box<Denied>> {
    let client = who.client(now, settings, &shared.guard);
    let lists = lists(settings);
    let ruling =
        judge_sender(&client, address.map(party), &lists, |login, _| owns(settings, &shared.routes, login, address));
    settle(&ruling, &mut shared.counts.relaying)?;
    if let Some(address) = who.counted_at(settings)
        && !shared.guard.sending.message(now, address, bits(settings), settings.fromip_max)
    {
        shared.counts.relaying.over_messages += 1;
        let trail = format!("fromip_max {} messages within the hour", settings.fromip_max);
        return Err(Box::new(Denied { reply: reply(&TOO_MANY_MESSAGES), trail }));
    }
    Ok(())
}

/// Whether a user may send as this address: it is his own, or an alias leads its mail to him.
fn owns(settings: &Settings, routes: &Table, login: &str, sender: Option<&Address>) -> bool {
    let Some(sender) = sender else { return false };
    let domains = &settings.domains;
    relay::belongs(domains, settings.recipient_delimiter, login, &party(sender))
        || leads_to(whole(sender, settings.main_domain()), login, routes, domains)
}

/// Whether that message may go to this recipient, who is then counted.
pub fn recipient(
    now: Instant,
    shared: &mut Shared,
    settings: &Settings,
    who: &Who<'_>,
    sender: Option<&Address>,
    address: &Address,
) -> Result<Passed, Box<Denied>> {
    let client = who.client(now, settings, &shared.guard);
    let ours = is_ours(settings, address);
    let ruling = judge_recipient(&client, sender.map(party), party(address), ours, &lists(settings));
    settle(&ruling, &mut shared.counts.relaying)?;
    let mut passed = Passed { held_for: None };
    if let Some(login) = who.login {
        let allowance = allowance(settings);
        passed.held_for = shared.guard.sending.over(now, login, allowance);
        if let Some(over) = passed.held_for {
            shared.counts.relaying.over_recipients += 1;
            if settings.sends_over == SendsOver::Refuse {
                let trail = format!("{} is used up", over.setting());
                return Err(Box::new(Denied { reply: reply(over.refusal()), trail }));
            }
        }
        shared.guard.sending.recipient(now, login, allowance);
    }
    shared.counts.relaying.relayed += u64::from(!ours);
    Ok(passed)
}

/// A rule that was asked, for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What was sent when it was asked: nothing yet, `MAIL` or `RCPT`.
    pub at: &'static str,
    /// The setting it is about, where there is one.
    pub setting: Option<&'static str>,
    /// Where the setting, or the entry that decided, is written; none = it has its default.
    pub place: Option<settings::Place>,
    /// What it found.
    pub found: String,
    /// `goes on`, `allowed`, or the reply that refuses.
    pub outcome: String,
}

/// `RCPT: /etc/dmail.conf:14: relay_to: *.example matches: allowed`.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        match (&self.place, self.setting) {
            (Some(place), Some(setting)) => write!(f, "{}:{}: {setting}: ", place.file.display(), place.line)?,
            (None, Some(setting)) => write!(f, "by default: {setting}: ")?,
            _ => {}
        }
        write!(f, "{}: {}", self.found, self.outcome)
    }
}

/// Every rule that would be asked about a message of `who` from `from` to `to`, in order, up to the one that refuses; and the
/// reply then. Nothing is counted.
pub fn why(
    now: Instant,
    guard: &Guard,
    settings: &Settings,
    routes: &Table,
    who: &Who<'_>,
    from: Option<&Address>,
    to: &Address,
) -> (Vec<Asked>, Option<Reply>) {
    let lists = lists(settings);
    let client = who.client(now, settings, guard);
    let mut asked = Vec::new();
    if let Some(address) = who.address {
        let ruling = judge_client(address, &lists);
        note(&mut asked, "connection", settings, &ruling);
        if let Some(refusal) = ruling.refused() {
            return (asked, Some(reply(refusal)));
        }
    }
    let ruling = judge_sender(&client, from.map(party), &lists, |login, _| owns(settings, routes, login, from));
    note(&mut asked, "MAIL", settings, &ruling);
    if let Some(refusal) = ruling.refused() {
        return (asked, Some(reply(refusal)));
    }
    if let Some(address) = who.counted_at(settings) {
        let (count, most) = (guard.sending.messages(now, address, bits(settings)), settings.fromip_max);
        let refusal = (count >= most).then_some(&TOO_MANY_MESSAGES);
        let found = format!("{count} of {most} messages within the hour");
        asked.push(line("MAIL", settings, Some("fromip_max"), 0, found, refusal));
        if let Some(refusal) = refusal {
            return (asked, Some(reply(refusal)));
        }
    }
    let ruling = judge_recipient(&client, from.map(party), party(to), is_ours(settings, to), &lists);
    note(&mut asked, "RCPT", settings, &ruling);
    if let Some(refusal) = ruling.refused() {
        return (asked, Some(reply(refusal)));
    }
    if let Some(login) = who.login {
        let allowance = allowance(settings);
        let over = guard.sending.over(now, login, allowance);
        let (hour, day) = guard.sending.recipients(now, login);
        for (setting, count, most) in
            [("sends_per_day", day, allowance.per_day), ("sends_per_hour", hour, allowance.per_hour)]
        {
            let is_over = over.is_some_and(|over| over.setting() == setting);
            let refusal =
                over.filter(|_| is_over && settings.sends_over == SendsOver::Refuse).map(|over| over.refusal());
            let found = match most {
                0 => "no bound".to_owned(),
                _ if is_over && refusal.is_none() => format!("{count} of {most} recipients: its message will be held"),
                _ => format!("{count} of {most} recipients"),
            };
            asked.push(line("RCPT", settings, Some(setting), 0, found, refusal));
            if let Some(refusal) = refusal {
                return (asked, Some(reply(refusal)));
            }
        }
    }
    (asked, None)
}

/// A ruling's trail, each rule with the line that it comes from.
fn note(asked: &mut Vec<Asked>, at: &'static str, settings: &Settings, ruling: &Ruling<'_>) {
    for step in &ruling.trail {
        let part = match step.found {
            Found::Entry(hit) => hit.part,
            _ => 0,
        };
        let refusal = match step.outcome {
            Outcome::Refused(refusal) => Some(refusal),
            Outcome::GoesOn | Outcome::Allowed => None,
        };
        let mut line = line(at, settings, step.rule.setting(), part, step.found.to_string(), refusal);
        if step.outcome == Outcome::Allowed {
            line.outcome = "allowed".to_owned();
        }
        asked.push(line);
    }
}

fn line(
    at: &'static str,
    settings: &Settings,
    setting: Option<&'static str>,
    part: usize,
    found: String,
    refusal: Option<&Refusal>,
) -> Asked {
    let written = setting.filter(|setting| settings.places.contains_key(setting));
    Asked {
        at,
        setting,
        place: written.map(|setting| settings.place_of(setting, part)),
        found,
        outcome: refusal.map_or_else(|| "goes on".to_owned(), Refusal::to_string),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::mail::address;
    use crate::rules::route::{Addressee, Target};
    use crate::settings::parse::load_text;

    const CONF: &str = "/etc/dmail.conf";

    fn settings(more: &str) -> Settings {
        let text = format!(
            "host_domain here.example\nwork_path /w\ndrop_path /d\nauthent_process /a\nprefix_bits_v4 24\n{more}"
        );
        let loaded = load_text(Path::new(CONF), text.as_bytes());
        loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.complaints))
    }

    fn address(text: &str) -> Option<Address> {
        address::path(format!("<{text}>").as_bytes(), true).unwrap().0
    }

    /// Mail for sales goes to bob.
    fn routes(settings: &Settings) -> Table {
        let (mut table, whole) = (Table::default(), |local: &str| Addressee::new(local, "here.example"));
        table.delimiter = settings.recipient_delimiter;
        table.forward(&settings.domains, &whole("sales"), vec![Target::Address(whole("bob"))], false, ("forward", 0));
        table
    }

    fn explained(settings: &Settings, guard: &Guard, who: &Who<'_>, from: &str, to: &str) -> (Vec<String>, String) {
        let from = address(from);
        let (asked, reply) =
            why(Instant::now(), guard, settings, &routes(settings), who, from.as_ref(), &address(to).unwrap());
        let told = reply.map_or_else(String::new, |reply| reply.code().to_string());
        (asked.iter().map(Asked::to_string).collect(), told)
    }

    #[test]
    fn an_operator_is_told_every_rule_with_the_line_it_stands_in() {
        let settings = settings(
            "ban_mailfrom *@spam.example\nban_mailfrom *@bulk.example\nrelay_to branch.example\nrelay_to *.branch.example\n",
        );
        let guard = Guard::new(Instant::now());
        let stranger = Who { gate: Gate::Mx, address: "192.0.2.9".parse().ok(), login: None };
        assert_eq!(
            explained(&settings, &guard, &stranger, "bob@there.example", "ann@mx.branch.example"),
            (
                [
                    "connection: by default: ban_ip: not set: goes on",
                    "MAIL: /etc/dmail.conf:6: ban_mailfrom: no entry matches: goes on",
                    "RCPT: by default: ban_rcptto: not set: goes on",
                    "RCPT: the recipient's domain is not ours: goes on",
                    "RCPT: the client has not logged in: goes on",
                    "RCPT: by default: forward_from_ip: no entry matches: goes on",
                    "RCPT: by default: forward_user: not set: goes on",
                    "RCPT: the address has no route in it: goes on",
                    "RCPT: /etc/dmail.conf:9: relay_to: *.branch.example matches: allowed",
                ]
                .map(String::from)
                .to_vec(),
                String::new()
            )
        );
        let (lines, told) = explained(&settings, &guard, &stranger, "x@bulk.example", "ann@here.example");
        assert_eq!(
            (lines.last().unwrap().as_str(), told.as_str()),
            (
                "MAIL: /etc/dmail.conf:7: ban_mailfrom: *@bulk.example matches: 550 5.7.1 Mail from this sender is not taken here",
                "550"
            )
        );
        let ann = Who { gate: Gate::Submission, login: Some("ann"), ..stranger };
        let (lines, told) = explained(&settings, &guard, &ann, "ann@here.example", "bob@there.example");
        assert_eq!(
            lines[lines.len() - 3..],
            [
                "RCPT: the client has logged in: allowed",
                "RCPT: by default: sends_per_day: 0 of 2000 recipients: goes on",
                "RCPT: by default: sends_per_hour: 0 of 500 recipients: goes on"
            ]
        );
        assert_eq!(told, "");
    }

    #[test]
    fn what_has_been_sent_and_read_is_part_of_the_explanation() {
        let settings = settings("fromip_max 2\nforward_user *\nsends_per_hour 1\nsends_over hold\n");
        let now = Instant::now();
        let mut guard = Guard::new(now);
        let stranger = Who { gate: Gate::Mx, address: "192.0.2.9".parse().ok(), login: None };
        let far = "bob@there.example";
        guard.popped.note(now, "192.0.2.9".parse().unwrap());
        let (lines, told) = explained(&settings, &guard, &stranger, "", far);
        assert_eq!(
            (lines.last().unwrap().as_str(), told.as_str()),
            ("RCPT: /etc/dmail.conf:7: forward_user: a user of it read mail from this address just now: allowed", "")
        );
        for neighbour in ["192.0.2.1", "192.0.2.2"] {
            assert!(guard.sending.message(now, neighbour.parse().unwrap(), bits(&settings), 2));
        }
        let (lines, told) = explained(&settings, &guard, &stranger, "", far);
        let (last, says) =
            (lines.last().unwrap(), "MAIL: /etc/dmail.conf:6: fromip_max: 2 of 2 messages within the hour: 450");
        assert!(last.starts_with(says) && told == "450", "{last}");
        let ann = Who { gate: Gate::Submission, login: Some("ann"), ..stranger };
        guard.sending.recipient(now, "ann", allowance(&settings));
        let (lines, told) = explained(&settings, &guard, &ann, "ann@here.example", far);
        assert_eq!(
            (lines.last().unwrap().as_str(), told.as_str()),
            ("RCPT: /etc/dmail.conf:8: sends_per_hour: 1 of 1 recipients: its message will be held: goes on", "")
        );
        assert_eq!(guard.sending.recipients(now + Duration::from_secs(1), "ann"), (1, 1), "asking counts nothing");
    }

    #[test]
    fn who_gets_the_mail_of_an_alias_sends_as_it_and_a_detail_stands_behind_what_the_operator_says() {
        let guard = Guard::new(Instant::now());
        for (delimiter, login, from, told) in [
            ("+", "bob", "sales@here.example", ""),
            ("+", "bob", "sales+may@HERE.example", ""),
            ("+", "bob", "bob+x@here.example", ""),
            ("+", "ann", "sales@here.example", "550"),
            ("+", "ann", "bob@here.example", "550"),
            ("none", "bob", "sales@here.example", ""),
            ("none", "bob", "bob+x@here.example", "550"),
            ("none", "bob", "sales+may@here.example", "550"),
        ] {
            let settings = settings(&format!("recipient_delimiter {delimiter}\n"));
            let who = Who { gate: Gate::Submission, address: None, login: Some(login) };
            let (lines, said) = explained(&settings, &guard, &who, from, "x@there.example");
            assert_eq!(said, told, "{delimiter} {login} {from}: {lines:?}");
        }
    }

    #[test]
    fn a_domain_is_ours_in_any_case_and_an_address_in_brackets_is_not() {
        let settings = settings("host_domain alias.example\nvdomain a /a v.example /v\n");
        for (text, ours) in [
            ("ann@here.example", true),
            ("ann@HERE.example", true),
            ("ann@Alias.Example", true),
            ("ann@V.example", true),
            ("ann@x.here.example", false),
            ("ann@[192.0.2.1]", false),
            ("postmaster", true),
        ] {
            assert_eq!(is_ours(&settings, &address(text).unwrap()), ours, "{text}");
        }
    }
}
