//! `tellsmtp why`: which rules a message would meet. The rules themselves are asked, with what they know now, and nothing is
//! counted: so the explanation is the verdict's own.

use std::time::Instant;

use super::relay::{self, Asked, Who};
use super::route::{Destination, Routing, Step};
use super::{Outcome, Shared};
use crate::control::{Report, Why};
use crate::mail::address::{Address, path};
use crate::net::turn::Ticket;
use crate::protocol::smtp::reply::Reply;
use crate::rules::relay::Gate;
use crate::text::printable::visible;

/// A message on its way to the end of the explanation.
pub struct Explanation {
    routing: Routing,
    report: Report,
}

/// What comes next.
pub enum Next {
    /// An outcome comes with that ticket.
    Asked(Box<Explanation>),
    /// It is over.
    Told(Report),
}

/// Begins to explain: what may be sent is told at once, where it leads may have to be asked.
pub fn begin(now: Instant, message: &Message, ticket: Ticket, shared: &mut Shared) -> Next {
    let mut report = Report::default();
    let refused = message.relaying(now, shared, &mut report);
    if refused.is_some() || !relay::is_ours(&shared.settings, &message.to) {
        return Next::Told(report);
    }
    let mut routing = Routing::begin(&message.to, 0, true, shared);
    let step = routing.go_on(now, ticket, shared);
    Box::new(Explanation { routing, report }).follow(step)
}

impl Explanation {
    /// What was asked has been answered.
    pub fn told(mut self: Box<Self>, now: Instant, outcome: Outcome, ticket: Ticket, shared: &mut Shared) -> Next {
        let step = self.routing.told(now, outcome, ticket, shared);
        self.follow(step)
    }

    fn follow(mut self: Box<Self>, step: Step) -> Next {
        let settled = match step {
            Step::Asked => return Next::Asked(self),
            Step::Settled(settled) => settled,
        };
        let ways = match settled {
            Ok(ways) => ways,
            Err(reply) => {
                self.report.add("refused_at_rcpt", reply.to_string());
                Vec::new()
            }
        };
        self.report.add("leads_to", ways.iter().map(|way| destination(&way.to)).collect::<Vec<_>>());
        self.report.add("route", self.routing.trail().iter().map(|line| visible(line)).collect::<Vec<_>>());
        Next::Told(self.report)
    }
}

fn destination(to: &Destination) -> String {
    visible(&match to {
        Destination::Mailbox(name, _) => format!("the mailbox of {}", name.shown()),
        Destination::Remote(address) => format!("another host, {address}"),
        Destination::Program(program) => format!("the program {}", program.words.join(" ")),
        Destination::Local(address) => format!("the queue, for {address}"),
    })
}

/// The columns of rules.
const RULES: &[&str] = &["at", "setting", "where", "found", "outcome"];

/// What is asked about, understood.
pub struct Message {
    from: Option<Address>,
    /// Its recipient.
    pub to: Address,
    why: Why,
}

impl Message {
    /// Refuses what is no address with a sentence.
    pub fn new(why: Why) -> Result<Message, String> {
        let address = |text: &str| match path(format!("<{text}>").as_bytes(), true) {
            Ok((address, [])) => Ok(address),
            _ => Err(format!("{}: this is no address", visible(text))),
        };
        let (from, to) = (address(&why.from)?, address(&why.to)?);
        let to = to.ok_or("a message needs a recipient")?;
        Ok(Message { from, to, why })
    }

    /// By which door it would come: who has logged in submits, everybody else is a server that brings mail.
    fn gate(&self) -> Gate {
        if self.why.login.is_some() { Gate::Submission } else { Gate::Mx }
    }

    /// Who may send what to whom: the rules that are asked, and the reply that refuses.
    pub fn relaying(&self, now: Instant, shared: &Shared, report: &mut Report) -> Option<Reply> {
        let who = Who { gate: self.gate(), address: self.why.address, login: self.why.login.as_deref() };
        let (asked, refused) =
            relay::why(now, &shared.guard, &shared.settings, &shared.routes, &who, self.from.as_ref(), &self.to);
        let named = |address: Option<&Address>| address.map_or_else(|| "<>".to_owned(), ToString::to_string);
        report.add("from", visible(&named(self.from.as_ref())));
        report.add("to", visible(&named(Some(&self.to))));
        report.add("client", self.why.address.map_or_else(|| "anywhere".to_owned(), |address| address.to_string()));
        report.add("as", self.why.login.as_deref().map(visible));
        report.add("taken", refused.is_none());
        report.add("reply", refused.as_ref().map(ToString::to_string));
        report.table("rules", RULES, asked.iter().map(line).collect());
        refused
    }
}

fn line(asked: &Asked) -> Vec<serde_json::Value> {
    let place = asked.place.as_ref().map(|place| format!("{}:{}", place.file.display(), place.line));
    let by_default = || asked.setting.map(|_| "by default".to_owned());
    vec![
        asked.at.into(),
        asked.setting.into(),
        place.or_else(by_default).into(),
        visible(&asked.found).into(),
        visible(&asked.outcome).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(from: &str, to: &str) -> Why {
        Why { from: from.into(), to: to.into(), address: None, login: None }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (from, to) in [("a b", "c@d.test"), ("a@b.test", "c"), ("a@b.test> x", "c@d.test"), ("", "")] {
            assert!(Message::new(why(from, to)).is_err(), "{from:?} {to:?}");
        }
        for (from, to) in [("", "c@d.test"), ("a@b.test", "postmaster"), ("a@b.test", "j\u{f6}rg@d.test")] {
            assert!(Message::new(why(from, to)).is_ok(), "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_rule_has_the_place_of_its_setting_or_none() {
        let asked =
            |setting| Asked { at: "RCPT", setting, place: None, found: "x\ny".into(), outcome: "goes on".into() };
        assert_eq!(line(&asked(Some("relay_to")))[1..3], ["relay_to", "by default"]);
        assert_eq!(line(&asked(None))[2], serde_json::Value::Null);
        assert_eq!(line(&asked(None))[3], "x?y");
    }
}
