//! Who may send what to whom through us. Closed: what nothing allows is refused.
//!
//! | when      | rule            | what it says                                                                             |
//! |-----------|-----------------|------------------------------------------------------------------------------------------|
//! | a client  | `BanIp`         | addresses we do not talk to; `ban_ip_except` takes some out                                |
//! | MAIL FROM | `BanMailfrom`   | senders we do not take mail from                                                          |
//! | MAIL FROM | `SenderMatch`   | on the submission port: the sender must belong to the login, if `sender_must_match` says so |
//! | RCPT TO   | `BanRcptto`     | recipients we do not take mail for; a postmaster of ours is never one of them              |
//! | RCPT TO   | `Ours`          | mail for our own domains is taken from everybody. All others ask on:                      |
//! | RCPT TO   | `Handed`        | over LMTP nothing goes on: what a server in front hands us comes from the world            |
//! | RCPT TO   | `Program`       | programs of this machine, by the local socket, may relay                                  |
//! | RCPT TO   | `Login`         | so may who has logged in                                                                 |
//! | RCPT TO   | `ForwardFromIp` | so may these addresses: by default this machine                                            |
//! | RCPT TO   | `ForwardUser`   | so may an address from which one of these users read mail lately; off by default             |
//! | RCPT TO   | `Routes`        | strangers get no further with `%`, `!` or `@` in a local part, nor to an address in brackets |
//! | RCPT TO   | `RelayTo`       | everybody may send to these domains                                                       |
//! | RCPT TO   | `ForwardFrom`   | so may these senders, whoever says he is one: easily forged                               |
//! | RCPT TO   | `Closed`        | nobody else                                                                              |
//!
//! Rules are asked in this order until one decides; the ruling has the trail of all that were asked, with what each of them
//! found. So an explanation is the verdict's own and never a second opinion.
//!
//! How addresses are compared: without quotes, ASCII letters in any case, otherwise as written (a domain beyond ASCII is
//! another text than its `xn--` form: a list names both). `bans` compare an entry with the whole address and with its domain;
//! `relay_to` and `forward_from` an entry with an `@` with the whole address, any other with the domain alone, so that no
//! wildcard for domains is met by a local part. The null sender is `<>`. A route before an address was forgotten before.
//!
//! Not judged here: whether a recipient of ours exists, what a local part means, and the `From:` line of a message, which
//! anybody may write as he likes: what a user sends can be traced by his login in its `Received:` line.

use std::fmt;
use std::net::IpAddr;

use super::domains::{Domains, Home};
use crate::text::pattern::{AddressList, Hit, PatternList, matches};

/// By which door somebody comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// From other servers, port 25.
    Mx,
    /// From users' own programs, who log in.
    Submission,
    /// From a server in front of this one.
    Lmtp,
    /// From a program on this machine, through a socket that tells who it is.
    Program,
}

/// Who sends.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Where he came in.
    pub gate: Gate,
    /// Where he is; a program on this machine is nowhere.
    pub address: Option<IpAddr>,
    /// The canonical name of the user that he has logged in as.
    pub login: Option<&'a str>,
    /// Minutes since a user of `forward_user` read mail from his address, where that was lately enough.
    pub popped: Option<u64>,
}

/// An address of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party<'a> {
    /// Before the `@`, without quotes.
    pub local: &'a str,
    /// After it.
    pub at: At<'a>,
}

/// Where somebody has his address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At<'a> {
    /// A domain.
    Domain(&'a str),
    /// A host, by its address in brackets.
    Literal(IpAddr),
    /// Not said: here.
    Here,
}

impl fmt::Display for Party<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::Domain(domain) => write!(f, "{}@{domain}", self.local),
            At::Literal(address) => write!(f, "{}@[{address}]", self.local),
            At::Here => f.write_str(self.local),
        }
    }
}

/// What the null sender is called in lists.
const NOBODY: &str = "<>";

/// What the administrator has written.
#[derive(Debug, Clone, Copy)]
pub struct Lists<'a> {
    /// `ban_ip`.
    pub ban_ip: &'a AddressList,
    /// `ban_ip_except`.
    pub ban_ip_except: &'a AddressList,
    /// `ban_mailfrom`.
    pub ban_mailfrom: &'a PatternList,
    /// `ban_rcptto`.
    pub ban_rcptto: &'a PatternList,
    /// `sender_must_match`.
    pub sender_must_match: bool,
    /// `forward_from_ip`.
    pub forward_from_ip: &'a AddressList,
    /// `forward_user`.
    pub forward_user: &'a PatternList,
    /// `relay_to`.
    pub relay_to: &'a PatternList,
    /// `forward_from`.
    pub forward_from: &'a PatternList,
}

/// One of the rules; see the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// We talk to that address.
    BanIp,
    /// And to that, whatever else is banned around it.
    BanIpExcept,
    /// We take mail from that sender.
    BanMailfrom,
    /// He is who he says.
    SenderMatch,
    /// We take mail for that recipient.
    BanRcptto,
    /// The recipient is one of ours.
    Ours,
    /// What a server in front hands us stays here.
    Handed,
    /// Programs of this machine.
    Program,
    /// Users with their password.
    Login,
    /// Clients by their address.
    ForwardFromIp,
    /// Clients by a login for POP3.
    ForwardUser,
    /// No ways around the rules that follow.
    Routes,
    /// Recipients by their domain.
    RelayTo,
    /// Senders by what they say.
    ForwardFrom,
    /// The end.
    Closed,
}

impl Rule {
    /// The setting that it is about, where there is one.
    pub fn setting(self) -> Option<&'static str> {
        Some(match self {
            Rule::BanIp => "ban_ip",
            Rule::BanIpExcept => "ban_ip_except",
            Rule::BanMailfrom => "ban_mailfrom",
            Rule::SenderMatch => "sender_must_match",
            Rule::BanRcptto => "ban_rcptto",
            Rule::ForwardFromIp => "forward_from_ip",
            Rule::ForwardUser => "forward_user",
            Rule::RelayTo => "relay_to",
            Rule::ForwardFrom => "forward_from",
            Rule::Ours | Rule::Handed | Rule::Program | Rule::Login | Rule::Routes | Rule::Closed => return None,
        })
    }
}

/// What a refused client hears.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The three digits.
    pub code: u16,
    /// The second number of the enhanced code; the first is the code's class.
    pub subject: u16,
    /// The third.
    pub detail: u16,
    /// One line of printable ASCII.
    pub text: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}.{} {}", self.code, self.code / 100, self.subject, self.detail, self.text)
    }
}

macro_rules! refusals {
    ($($(#[$why:meta])* $name:ident = $code:literal $subject:literal $detail:literal $text:literal;)*) => {
        $($(#[$why])* pub static $name: Refusal = Refusal { code: $code, subject: $subject, detail: $detail, text: $text };)*

        /// All of them, for a manual.
        pub static ALL: &[&Refusal] = &[$(&$name),*];
    };
}

refusals! {
    /// `ban_ip`, in place of the greeting.
    NOT_SERVED = 554 7 1 "Clients at your address are not served here; closing";
    /// `ban_mailfrom`.
    SENDER_BANNED = 550 7 1 "Mail from this sender is not taken here";
    /// `sender_must_match`.
    NOT_YOURS = 550 7 1 "This sender address is not yours; send as the user you logged in as";
    /// `ban_rcptto`.
    RECIPIENT_BANNED = 550 7 1 "Mail to this recipient is not taken here";
    /// Nothing allows it.
    NO_RELAY = 550 7 1 "Relaying denied: send through the submission port, with name and password";
    /// `%`, `!`, `@` or brackets in an address that is not ours, from a stranger.
    ROUTED = 550 7 1 "Relaying denied: no %, ! or @ before the @, and no address in brackets";
    /// LMTP, and not ours.
    NOT_HERE = 550 7 1 "Relaying denied: over LMTP only for users of this server";
    /// `fromip_max`.
    TOO_MANY_MESSAGES = 450 7 1 "Too many messages from your address within an hour; try again later";
    /// `sends_per_hour`.
    HOUR_USED_UP = 452 7 1 "You have sent to as many recipients as you may within an hour; try again later";
    /// `sends_per_day`.
    DAY_USED_UP = 452 7 1 "You have sent to as many recipients as you may within a day; try again tomorrow";
}

/// What a rule saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// Its setting is not written.
    Unset,
    /// No entry of its list matches.
    NoEntry,
    /// This entry does. What an entry leaves out is not matched.
    Entry(Hit<'a>),
    /// What is known without a list.
    Fact(&'static str),
    /// So many minutes ago a user read mail from there.
    Popped(u64),
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Unset => f.write_str("not set"),
            Found::NoEntry => f.write_str("no entry matches"),
            Found::Entry(hit) if hit.excludes => write!(f, "{hit} leaves it out"),
            Found::Entry(hit) => write!(f, "{hit} matches"),
            Found::Fact(fact) => f.write_str(fact),
            Found::Popped(0) => f.write_str("a user of it read mail from this address just now"),
            Found::Popped(minutes) => write!(f, "a user of it read mail from this address {minutes} minutes ago"),
        }
    }
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The next rule is asked.
    GoesOn,
    /// It is allowed, whatever the others would say.
    Allowed,
    /// It is not.
    Refused(&'static Refusal),
}

/// A rule that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// Which.
    pub rule: Rule,
    /// What it saw.
    pub found: Found<'a>,
    /// What follows.
    pub outcome: Outcome,
}

/// A verdict, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling<'a> {
    /// Every rule that was asked, in order. Only the last may decide; where none does it is allowed.
    pub trail: Vec<Step<'a>>,
}

impl<'a> Ruling<'a> {
    fn new() -> Ruling<'a> {
        Ruling { trail: Vec::with_capacity(8) }
    }

    fn note(&mut self, rule: Rule, found: Found<'a>, outcome: Outcome) {
        debug_assert!(self.is_open(), "the last word was said before {rule:?} was asked");
        self.trail.push(Step { rule, found, outcome });
    }

    fn is_open(&self) -> bool {
        self.trail.last().is_none_or(|step| step.outcome == Outcome::GoesOn)
    }

    /// What the client hears if it is refused.
    pub fn refused(&self) -> Option<&'static Refusal> {
        match self.trail.last()?.outcome {
            Outcome::Refused(refusal) => Some(refusal),
            Outcome::GoesOn | Outcome::Allowed => None,
        }
    }

    /// The rule that was asked last: the one that decided, if one did.
    pub fn last(&self) -> Option<Rule> {
        self.trail.last().map(|step| step.rule)
    }

    /// Asks a list: what it matches has the outcome `met`.
    fn list(&mut self, rule: Rule, is_empty: bool, hit: Option<Hit<'a>>, met: Outcome) {
        let found = match hit {
            Some(hit) => Found::Entry(hit),
            None if is_empty => Found::Unset,
            None => Found::NoEntry,
        };
        let outcome = if hit.is_some_and(|hit| !hit.excludes) { met } else { Outcome::GoesOn };
        self.note(rule, found, outcome);
    }
}

/// The trail on one line, for a log: `ban_rcptto not set, forward_from_ip no entry matches, ...`.
impl fmt::Display for Ruling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.trail.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            match step.rule.setting() {
                Some(setting) => write!(f, "{comma}{setting} {}", step.found)?,
                None => write!(f, "{comma}{}", step.found)?,
            }
        }
        Ok(())
    }
}

/// Whether we talk to a client at this address.
pub fn judge_client<'a>(address: IpAddr, lists: &Lists<'a>) -> Ruling<'a> {
    let mut ruling = Ruling::new();
    let banned = lists.ban_ip.decides(address);
    let excepted = lists.ban_ip_except.decides(address);
    if banned.is_some_and(|hit| !hit.excludes) && excepted.is_some_and(|hit| !hit.excludes) {
        ruling.list(Rule::BanIp, false, banned, Outcome::GoesOn);
        ruling.list(Rule::BanIpExcept, false, excepted, Outcome::Allowed);
        return ruling;
    }
    ruling.list(Rule::BanIp, lists.ban_ip.is_empty(), banned, Outcome::Refused(&NOT_SERVED));
    ruling
}

/// Whether a message may have this sender. `belongs` says whether the address is the login's own; it is only asked where that
/// matters.
pub fn judge_sender<'a>(
    client: &Client<'_>,
    sender: Option<Party<'_>>,
    lists: &Lists<'a>,
    belongs: impl FnOnce(&str, &Party<'_>) -> bool,
) -> Ruling<'a> {
    let mut ruling = Ruling::new();
    let list = lists.ban_mailfrom;
    let hit = ban(list, sender);
    ruling.list(Rule::BanMailfrom, list.is_empty(), hit, Outcome::Refused(&SENDER_BANNED));
    if !ruling.is_open() {
        return ruling;
    }
    let (found, outcome) = match (client.login, sender) {
        (None, _) => return ruling,
        _ if !lists.sender_must_match => ("false: a user may send as anybody", Outcome::GoesOn),
        (_, None) => ("the null sender is anybody's", Outcome::GoesOn),
        (Some(login), Some(sender)) if belongs(login, &sender) => ("the address belongs to the login", Outcome::GoesOn),
        _ => ("the address does not belong to the login", Outcome::Refused(&NOT_YOURS)),
    };
    ruling.note(Rule::SenderMatch, Found::Fact(found), outcome);
    ruling
}

/// Whether that message may go to this recipient. `ours`: his domain, or the host he is at, is ours.
pub fn judge_recipient<'a>(
    client: &Client<'_>,
    sender: Option<Party<'_>>,
    recipient: Party<'_>,
    ours: bool,
    lists: &Lists<'a>,
) -> Ruling<'a> {
    let mut ruling = Ruling::new();
    let list = lists.ban_rcptto;
    // RFC 5321 §4.5.1: there is somebody to complain to.
    if ours && recipient.local.eq_ignore_ascii_case("postmaster") {
        ruling.note(Rule::BanRcptto, Found::Fact("a postmaster of ours is never banned"), Outcome::GoesOn);
    } else {
        let hit = ban(list, Some(recipient));
        ruling.list(Rule::BanRcptto, list.is_empty(), hit, Outcome::Refused(&RECIPIENT_BANNED));
    }
    let rights = [
        of_ours as Ask<'a>,
        of_handed as Ask<'a>,
        of_program as Ask<'a>,
        of_login as Ask<'a>,
        of_address as Ask<'a>,
        of_reader as Ask<'a>,
        of_routes as Ask<'a>,
        of_destination as Ask<'a>,
        of_sender as Ask<'a>,
    ];
    let asked = Asked { client, sender, recipient, ours, lists };
    for ask in rights {
        if !ruling.is_open() {
            return ruling;
        }
        ask(&mut ruling, &asked);
    }
    if ruling.is_open() {
        ruling.note(Rule::Closed, Found::Fact("nothing else allows it"), Outcome::Refused(&NO_RELAY));
    }
    ruling
}

struct Asked<'q, 'a> {
    client: &'q Client<'q>,
    sender: Option<Party<'q>>,
    recipient: Party<'q>,
    ours: bool,
    lists: &'q Lists<'a>,
}

/// One rule on recipients.
type Ask<'a> = fn(&mut Ruling<'a>, &Asked<'_, 'a>);

fn of_ours<'a>(ruling: &mut Ruling<'a>, asked: &Asked<'_, 'a>) {
    let (fact, outcome) = match asked.ours {
        true => ("the recipient's domain is ours", Outcome::Allowed),
        false => ("the recipient's domain is not ours", Outcome::GoesOn),
    };
    ruling.note(Rule::Ours, Found::Fact(fact), outcome);
}

fn of_handed<'a>(ruling: &mut Ruling<'a>, asked: &Asked<'_, 'a>) {
    if asked.client.gate == Gate::Lmtp {
        ruling.note(Rule::Handed, Found::Fact("it came over LMTP"), Outcome::Refused(&NOT_HERE));
    }
}

fn of_program<'a>(ruling: &mut Ruling<'a>, asked: &Asked<'_, 'a>) {
    if asked.client.gate == Gate::Program {
        ruling.note(Rule::Program, Found::Fact("a program of this machine sends it"), Outcome::Allowed);
    }
}

fn of_login<'a>(ruling: &mut Ruling<'a>, asked: &Asked<'_, 'a>) {
    let (fact, outcome) = match asked.client.login {
        Some(_) => ("the client has logged in", Outcome::Allowed),
        None => ("the client has not logged in", Outcome::GoesOn),
    };
    ruling.note(Rule::Login, Found::Fact(fact), outcome);
}

fn of_address<'a>(ruling: &mut Ruling<'a>, asked: &Asked<'_, 'a>) {
    let list = asked.lists.forward_from_ip;
    let hit = asked.client.address.and_then(|address| list.decides(address));
    ruling.list(Rule::ForwardFromIp, list.is_empty(), hit, Outcome::Allowed);
}

fn of_reader<'a>(ruling: &mut Ruling<'a>, asked: &Asked<'_, 'a>) {
    let (found, outcome) = match asked.client.popped {
        _ if asked.lists.forward_user.is_empty() => (Found::Unset, Outcome::GoesOn),
        Some(minutes) => (Found::Popped(minutes), Outcome::Allowed),
        None => (Found::Fact("no user of it read mail from this address lately"), Outcome::GoesOn),
    };
    ruling.note(Rule::ForwardUser, found, outcome);
}

/// The next server may follow a route that we do not: then we would have relayed to anywhere for who may relay to there.
fn of_routes<'a>(ruling: &mut Ruling<'a>, asked: &Asked<'_, 'a>) {
    let routed = asked.recipient.local.contains(['%', '!', '@']);
    let (fact, outcome) = match asked.recipient.at {
        At::Domain(_) if !routed => ("the address has no route in it", Outcome::GoesOn),
        At::Domain(_) => ("the local part has a route in it", Outcome::Refused(&ROUTED)),
        At::Literal(_) | At::Here => ("the address has no domain", Outcome::Refused(&ROUTED)),
    };
    ruling.note(Rule::Routes, Found::Fact(fact), outcome);
}

fn of_destination<'a>(ruling: &mut Ruling<'a>, asked: &Asked<'_, 'a>) {
    let list = asked.lists.relay_to;
    ruling.list(Rule::RelayTo, list.is_empty(), right(list, Some(asked.recipient)), Outcome::Allowed);
}

fn of_sender<'a>(ruling: &mut Ruling<'a>, asked: &Asked<'_, 'a>) {
    let list = asked.lists.forward_from;
    ruling.list(Rule::ForwardFrom, list.is_empty(), right(list, asked.sender), Outcome::Allowed);
}

/// The entry of a ban that decides: by the whole address, or by its domain.
fn ban<'a>(list: &'a PatternList, who: Option<Party<'_>>) -> Option<Hit<'a>> {
    if list.is_empty() {
        return None;
    }
    let Some(who) = who else { return list.decides(|entry| matches(entry, NOBODY)) };
    let whole = who.to_string();
    let domain = &whole[whole.len().min(who.local.len() + 1)..];
    list.decides(|entry| matches(entry, &whole) || !domain.is_empty() && matches(entry, domain))
}

/// The entry of a right that decides: with an `@` by the whole address, without one by its domain. Who has no domain has none.
fn right<'a>(list: &'a PatternList, who: Option<Party<'_>>) -> Option<Hit<'a>> {
    let who = who.filter(|_| !list.is_empty())?;
    let At::Domain(domain) = who.at else { return None };
    let whole = who.to_string();
    list.decides(|entry| if entry.contains('@') { matches(entry, &whole) } else { matches(entry, domain) })
}

/// Whether an address is the user's whom `login` canonically names: his own at any name of his domain, with or without a
/// detail behind `delimiter`. Addresses that lead to him in other ways are the aliases' to know.
pub fn belongs(domains: &Domains, delimiter: Option<char>, login: &str, sender: &Party<'_>) -> bool {
    let At::Domain(domain) = sender.at else { return false };
    let is_his = |local: &str| {
        let address = format!("{local}@{domain}");
        domains.resolve(address.as_bytes(), Home::default()).is_some_and(|name| name.shown() == login)
    };
    if is_his(sender.local) {
        return true;
    }
    let detail = sender.local.char_indices().skip(1).find(|(_, c)| delimiter == Some(*c));
    detail.is_some_and(|(at, _)| is_his(&sender.local[..at]))
}

/// Whether these addresses are no network of somebody's but a part of the world: in many networks of IPv4 with 8 bits, or in
/// many of IPv6 with 16.
pub fn is_for_strangers(list: &AddressList) -> bool {
    const MANY: usize = 4;
    let v4 = (1..=223u8).filter(|first| !matches!(first, 10 | 127)).map(|first| IpAddr::from([first, 77, 13, 101]));
    let v6 = (0x2001..0x4000u16).step_by(0x101).map(|first| IpAddr::from([first, 0x4d, 0xd, 0x65, 0, 0, 0, 1]));
    let inside = |addresses: &mut dyn Iterator<Item = IpAddr>| addresses.filter(|one| list.contains(*one)).count();
    inside(&mut { v4 }) > MANY || inside(&mut { v6 }) > MANY
}

/// Whether somebody who has nothing to do with us is named by this list of domains: whoever it is, under whatever is at the
/// top of the names of the world.
pub fn is_anywhere(list: &PatternList) -> bool {
    const NOBODYS: [&str; 5] = ["q7x9.com", "q7x9.net", "q7x9.org", "q7x9.de", "q7x9.invalid"];
    NOBODYS.iter().any(|domain| {
        right(list, Some(Party { local: "q7x9", at: At::Domain(domain) })).is_some_and(|hit| !hit.excludes)
    })
}

#[cfg(test)]
mod tests;
