//! Whether a client may log in, in the manual's order: name, password, address, name of its host.
//!
//! | rule     | fails when                                                                                     |
//! |----------|------------------------------------------------------------------------------------------------|
//! | Name     | no user can be called so, or `valid_users` does not match                                       |
//! | Password | the authenticator says so, for reasons of its own too                                           |
//! | Address  | `user_ip_address` does not contain where the client is                                          |
//! | Host     | `user_ip_name` does not match what the client's host is called; a host without a name is `""`   |
//!
//! Every rule is looked at, whatever another one said: the verdict names the first that failed, the trail has them all. The
//! client hears the same of each, and is answered by the same way: whoever judges asks the authenticator even when the
//! ruling is clear without it.

use std::fmt;
use std::net::IpAddr;

use crate::text::pattern::{AddressList, PatternList};

/// One of the rules, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The name is valid.
    Name,
    /// Name and password fit.
    Password,
    /// Clients may come from that address.
    Address,
    /// Clients may come from that host.
    Host,
}

/// All there are, in their order.
pub const RULES: [Rule; 4] = [Rule::Name, Rule::Password, Rule::Address, Rule::Host];

/// What the administrator has written.
#[derive(Debug, Clone, Copy)]
pub struct Lists<'a> {
    /// `valid_users`.
    pub names: &'a PatternList,
    /// `user_ip_address`.
    pub addresses: &'a AddressList,
    /// `user_ip_name`.
    pub hosts: &'a PatternList,
}

/// What is known of a login.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The user's name in the one form that is compared; none when no user can have it.
    pub user: Option<&'a str>,
    /// Whether name and password fit; none while nobody has said.
    pub password: Option<bool>,
    /// Where the client is.
    pub address: IpAddr,
    /// What that host is called; none when it has no name, or nobody asked.
    pub host: Option<&'a str>,
}

/// What one rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It holds.
    Passed,
    /// It does not.
    Failed,
    /// It is not known yet.
    Open,
}

/// What all rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    /// The finding of each of [`RULES`].
    pub trail: [Finding; 4],
}

impl Ruling {
    /// The same, now that somebody has said whether name and password fit.
    pub fn with_password(mut self, fits: bool) -> Ruling {
        self.trail[1] = if fits { Finding::Passed } else { Finding::Failed };
        self
    }

    /// Whether this rule failed, whatever the others say.
    pub fn failed(&self, rule: Rule) -> bool {
        self.trail[rule as usize] == Finding::Failed
    }

    /// The first rule that failed; none when none did.
    pub fn refused(&self) -> Option<Rule> {
        RULES.into_iter().zip(self.trail).find(|(_, finding)| *finding == Finding::Failed).map(|(rule, _)| rule)
    }
}

/// The trail, for a log: `name failed, password passed, address passed, host passed`.
impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (rule, finding)) in RULES.into_iter().zip(self.trail).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let finding = match finding {
                Finding::Passed => "passed",
                Finding::Failed => "failed",
                Finding::Open => "not asked",
            };
            write!(f, "{comma}{} {finding}", rule.name())?;
        }
        Ok(())
    }
}

impl Rule {
    /// What it is about, in one word.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Name => "name",
            Rule::Password => "password",
            Rule::Address => "address",
            Rule::Host => "host",
        }
    }

    /// Why a login was refused, for the log. Never for the client.
    pub fn reason(self) -> &'static str {
        match self {
            Rule::Name => "valid_users has no such name",
            Rule::Password => "wrong name or password",
            Rule::Address => "user_ip_address has no such address",
            Rule::Host => "user_ip_name has no such host",
        }
    }
}

/// Looks at every rule.
pub fn judge(facts: &Facts<'_>, lists: &Lists<'_>) -> Ruling {
    let found = |holds: bool| if holds { Finding::Passed } else { Finding::Failed };
    Ruling {
        trail: [
            found(facts.user.is_some_and(|user| lists.names.matches(user))),
            facts.password.map_or(Finding::Open, found),
            found(lists.addresses.contains(facts.address)),
            found(lists.hosts.matches(facts.host.unwrap_or_default())),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Written(PatternList, AddressList, PatternList);

    fn written(names: &str, addresses: &str, hosts: &str) -> Written {
        Written(
            PatternList::parse(names).unwrap(),
            AddressList::parse(addresses).unwrap(),
            PatternList::parse(hosts).unwrap(),
        )
    }

    impl Written {
        fn judge(&self, user: Option<&str>, password: Option<bool>, address: &str, host: Option<&str>) -> Ruling {
            let facts = Facts { user, password, address: address.parse().unwrap(), host };
            judge(&facts, &Lists { names: &self.0, addresses: &self.1, hosts: &self.2 })
        }
    }

    #[test]
    fn the_first_rule_that_fails_is_named_and_the_trail_has_all() {
        let lists = written("a*,!abe", "10.*", "*.example,!bad.example");
        let good = (Some("ann"), Some(true), "10.1.2.3", Some("pc.example"));
        for (facts, refused) in [
            (good, None),
            ((Some("bob"), good.1, good.2, good.3), Some(Rule::Name)),
            ((Some("abe"), good.1, good.2, good.3), Some(Rule::Name)),
            ((None, good.1, good.2, good.3), Some(Rule::Name)),
            ((good.0, Some(false), good.2, good.3), Some(Rule::Password)),
            ((good.0, good.1, "11.1.2.3", good.3), Some(Rule::Address)),
            ((good.0, good.1, "::ffff:10.1.2.3", good.3), None),
            ((good.0, good.1, good.2, Some("bad.example")), Some(Rule::Host)),
            ((good.0, good.1, good.2, Some("pc.elsewhere")), Some(Rule::Host)),
            ((good.0, good.1, good.2, None), Some(Rule::Host)),
            ((good.0, None, good.2, good.3), None),
            ((good.0, None, "11.1.2.3", good.3), Some(Rule::Address)),
            // In the manual's order, whichever else fails too.
            ((Some("bob"), Some(false), "11.1.2.3", None), Some(Rule::Name)),
            ((good.0, Some(false), "11.1.2.3", None), Some(Rule::Password)),
            ((good.0, good.1, "11.1.2.3", None), Some(Rule::Address)),
        ] {
            let (user, password, address, host) = facts;
            assert_eq!(lists.judge(user, password, address, host).refused(), refused, "{facts:?}");
        }
        for fits in [true, false] {
            for user in ["ann", "bob"] {
                let later = lists.judge(Some(user), None, good.2, good.3).with_password(fits);
                assert_eq!(later, lists.judge(Some(user), Some(fits), good.2, good.3), "asked later, judged the same");
            }
        }
        let ruling = lists.judge(Some("bob"), None, "11.1.2.3", good.3);
        assert_eq!(RULES.map(|rule| ruling.failed(rule)), [true, false, true, false]);
        assert_eq!(ruling.to_string(), "name failed, password not asked, address failed, host passed");
    }

    #[test]
    fn what_is_not_restricted_lets_everybody_in() {
        let lists = written("*", "*", "*");
        for address in ["10.0.0.1", "2001:db8::1", "::1"] {
            assert_eq!(lists.judge(Some("ann"), Some(true), address, None).refused(), None);
        }
        assert_eq!(lists.judge(None, Some(true), "::1", None).refused(), Some(Rule::Name));
    }

    #[test]
    fn a_host_without_a_name_is_let_in_by_a_star_and_not_by_a_name() {
        for (hosts, refused) in [("*", None), ("*,!*.bad.example", None), ("?*", Some(Rule::Host))] {
            assert_eq!(
                written("*", "*", hosts).judge(Some("ann"), Some(true), "::1", None).refused(),
                refused,
                "{hosts}"
            );
        }
    }
}
