//! Virtual domains: from a login, and the address it came to, to the one user it means.
//!
//! A `vdomain PREFIX ADDRESSES|SUFFIX DOMAIN PATH` line makes a domain whose `fred` is not the main domain's. Which domain a
//! login names, by the first of these that holds; letters in any case:
//!
//! | login          | where     | means                                                                            |
//! |----------------|-----------|----------------------------------------------------------------------------------|
//! | `fred/xdom`    | anywhere  | `fred` of the domain with the suffix `/xdom`; the longest suffix counts           |
//! | `fred@DOMAIN`  | anywhere  | `fred` of that domain of ours, main or virtual                                   |
//! | `fred@foreign` | anywhere  | the main domain's user of that whole name: some authenticators know such         |
//! | `fred`         | 192.0.2.4 | `fred` of the domain whose line has the address that the client connected to     |
//! | `fred`         | else      | `fred` of the main domain                                                        |
//!
//! And what such a user is called. The main domain's are called `fred` in all places, `fred@MAIN` by `authent_domain true`:
//!
//! | where                                   | `vdomain abc 192.0.2.4 abc.example /mail/abc` |
//! |-----------------------------------------|-----------------------------------------------|
//! | logs, statistics, orders                | `fred@abc.example`                            |
//! | authenticator, `authent_domain false`   | `abc_fred`                                    |
//! | authenticator, `authent_domain true`    | `fred@abc.example`                            |
//! | drop file, `drop_prefix true`           | `/mail/abc/abc_fred`                          |
//! | drop file, `drop_prefix false`          | `/mail/abc/fred`                              |
//!
//! Promised: two logins are one account for the authenticator, or one drop file, only when they are one canonical name. For
//! that, where names carry prefixes, a name that begins with PREFIX and separator is that domain's (the longest such
//! prefix's) and nobody else's: a `b_c` of the domain `a` is no user where there is a domain `a_b`, nor is a main domain's
//! `abc_fred`. The one exception is no second user: where `abc_fred` is asked for, and its drop file found, just as for
//! `fred` of `abc`, it *is* that user, so that the owner of a system account may log in by its name. What a table of
//! domains cannot keep apart by names is an [`Objection`] when it is drawn.
//!
//! A login is ASCII: what other letters are the same in another case or composition depends on who is asked, and a name that
//! is one user for the authenticator and another for the disk is two users' mail in one hand.

mod table;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::names::is_user_name;
use crate::text::pattern::AddressList;

pub use table::{Cited, LINES_MOST, Objection, Plan, draw, is_prefix};

/// What a suffix begins with. Not `.`, `-`, `_` and `'`, which stand inside ordinary names.
pub const SIGNS: &[char] = &['@', '/', '%', ':', '+', '=', '~', '$', '&', '^', '|'];

/// One `vdomain` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Begins the names of its users, as it was written.
    pub prefix: String,
    /// Which logins it is about.
    pub reach: Reach,
    /// The domain, in lower case.
    pub domain: String,
    /// Base directory of its drop files.
    pub drops: PathBuf,
}

/// Which logins a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those to one of these addresses of ours.
    Addresses(AddressList),
    /// Those that end so; in lower case.
    Suffix(String),
}

impl Reach {
    /// Reads the second field of a line; refuses, with a remedy, what is neither.
    pub fn parse(text: &str) -> Result<Reach, String> {
        let refused = match AddressList::parse(text) {
            Ok(addresses) if addresses.is_empty() => "it is empty".to_owned(),
            Ok(addresses) if addresses.is_ranges() => return Ok(Reach::Addresses(addresses)),
            Ok(_) => return Err("write its addresses as a network (10.0.0.0/8) or a range".to_owned()),
            Err(why) => why,
        };
        let bare = text.strip_prefix(SIGNS).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c) || SIGNS.contains(&c);
        if !bare.is_empty() && bare.len() <= 253 && bare.chars().all(plain) {
            return Ok(Reach::Suffix(text.to_ascii_lowercase()));
        }
        let is_address = text.starts_with(|c: char| c.is_ascii_digit() || c == '*' || c == ',');
        Err(if is_address {
            refused
        } else {
            "it takes an address of this machine, or the end of login names, as /abc, @abc.example or %abc".to_owned()
        })
    }
}

/// One `alt_drop_path` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Whose drop files, in lower case.
    pub domain: String,
    /// Their base directory, in place of the one they had.
    pub drops: PathBuf,
}

/// How names are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// Stands between prefix and user.
    pub separator: char,
    /// Whether drop files carry the prefix.
    pub drop_prefix: bool,
    /// Whether the authenticator is told `user@domain`.
    pub authent_domain: bool,
    /// How drop files are spread: 0 not at all.
    pub hash_spool: u8,
}

/// A domain of ours: the main one, or one of a table's virtual ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Home(Option<u16>);

/// Who a login means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Of which domain.
    home: Home,
    /// In lower case, without the domain: `fred`. Drop files are spread by it. Who it is, is [`shown`](Name::shown).
    pub local: String,
    /// The canonical name, `fred` or `fred@abc.example`: for logs, statistics, orders. One user has one.
    shown: String,
    /// What the authenticator is told.
    pub asked: Vec<u8>,
    /// The drop file's name.
    pub file: String,
}

impl Name {
    /// The canonical name: `fred` in the main domain, `fred@abc.example` in a virtual one. One user has one.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// What an authenticator's answer is remembered by: who it was, and what was asked.
    pub fn remembered_by(&self) -> Vec<u8> {
        [self.shown.as_bytes(), b"\0", &self.asked].concat()
    }
}

/// All domains of ours. Drawn once for a configuration, by [`draw`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Domains {
    naming: Naming,
    /// Names of the main domain, the first one first.
    main: Vec<String>,
    /// Base directory of the main domain's drop files.
    drops: PathBuf,
    tenants: Vec<Tenant>,
    by_suffix: HashMap<String, u16>,
    by_domain: HashMap<String, u16>,
    /// By prefix in lower case.
    by_prefix: HashMap<String, u16>,
    /// Lists of different domains have no address in common.
    by_address: Vec<(AddressList, u16)>,
}

/// A virtual domain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tenant {
    prefix: String,
    domain: String,
    drops: PathBuf,
}

impl Domains {
    /// Whether [`home_at`](Domains::home_at) can say anything but the main domain.
    pub fn look_at_addresses(&self) -> bool {
        !self.by_address.is_empty()
    }

    /// Whether this is a domain of ours, main or virtual; letters in any case.
    pub fn has(&self, domain: &str) -> bool {
        let main = self.main.iter().any(|ours| ours.eq_ignore_ascii_case(domain));
        main || self.by_domain.contains_key(&domain.to_ascii_lowercase())
    }

    /// The first name of a domain of ours, and whether that is the main one; letters in any case.
    pub fn canonical(&self, domain: &str) -> Option<(&str, bool)> {
        if self.main.iter().any(|ours| ours.eq_ignore_ascii_case(domain)) {
            return self.main.first().map(|first| (first.as_str(), true));
        }
        let index = self.by_domain.get(&domain.to_ascii_lowercase())?;
        Some((&self.tenant(*index).domain, false))
    }

    /// The domain of clients that connected to this address of ours and name no other.
    pub fn home_at(&self, address: IpAddr) -> Home {
        Home(self.by_address.iter().find(|(addresses, _)| addresses.contains(address)).map(|(_, index)| *index))
    }

    /// The domain of a user, by its first name.
    pub fn domain_of(&self, name: &Name) -> &str {
        match name.home.0 {
            Some(index) => &self.tenants[usize::from(index)].domain,
            None => self.main.first().map_or("", String::as_str),
        }
    }

    /// Base directory of this domain's drop files.
    pub fn drops_of(&self, name: &Name) -> &Path {
        match name.home.0 {
            Some(index) => &self.tenants[usize::from(index)].drops,
            None => &self.drops,
        }
    }

    /// Base directories of the virtual domains' drop files, and the main domain's.
    pub fn all_drops(&self) -> impl Iterator<Item = &Path> {
        self.tenants.iter().map(|tenant| &*tenant.drops).chain([&*self.drops])
    }

    /// Who `login` means when its connection came to `here`; `None` when no user can be called so.
    pub fn resolve(&self, login: &[u8], here: Home) -> Option<Name> {
        let login = std::str::from_utf8(login).ok().filter(|login| login.is_ascii())?.to_ascii_lowercase();
        let (user, home) = self.parted(&login, here);
        match home.0 {
            Some(index) => self.tenants_user(user, index),
            None => self.own_user(user),
        }
    }

    /// The user's own part of a login, and the domain that it names.
    fn parted<'l>(&self, login: &'l str, here: Home) -> (&'l str, Home) {
        // The leftmost sign begins the longest suffix.
        for (at, _) in login.match_indices(SIGNS) {
            if let Some(&index) = self.by_suffix.get(&login[at..]) {
                return (&login[..at], Home(Some(index)));
            }
        }
        match login.rsplit_once('@') {
            Some((user, domain)) => match self.by_domain.get(domain) {
                Some(&index) => (user, Home(Some(index))),
                None if self.main.iter().any(|ours| ours == domain) && !user.contains('@') => (user, Home(None)),
                None => (login, Home(None)),
            },
            None => (login, here),
        }
    }

    fn own_user(&self, user: &str) -> Option<Name> {
        let fits = is_user_name(user.as_bytes()) && user.split('@').all(|part| is_user_name(part.as_bytes()));
        let domain = user.rsplit_once('@').map(|(_, domain)| domain);
        // What still ends in a domain of ours had two of them.
        if !fits || domain.is_some_and(|domain| self.main.iter().any(|ours| ours == domain)) {
            return None;
        }
        if let Some((owner, rest)) = self.owner(user).filter(|(owner, _)| self.must_differ(&self.drops, *owner)) {
            let naming = self.naming;
            let one_drop = naming.drop_prefix && naming.hash_spool == 0 && self.drops == self.tenant(owner).drops;
            return if one_drop && !naming.authent_domain { self.tenants_user(rest, owner) } else { None };
        }
        let asked = match domain {
            None if self.naming.authent_domain => format!("{user}@{}", self.main.first()?),
            _ => user.to_owned(),
        };
        Some(Name {
            home: Home(None),
            local: user.to_owned(),
            shown: user.to_owned(),
            asked: asked.into(),
            file: user.to_owned(),
        })
    }

    fn tenants_user(&self, user: &str, index: u16) -> Option<Name> {
        let tenant = self.tenant(index);
        let full = format!("{}{}{user}", tenant.prefix, self.naming.separator);
        if user.contains('@') || !is_user_name(user.as_bytes()) || !is_user_name(full.as_bytes()) {
            return None;
        }
        let (owner, _) = self.owner(&full)?;
        if owner != index && self.must_differ(&tenant.drops, owner) {
            return None;
        }
        let shown = format!("{user}@{}", tenant.domain);
        Some(Name {
            home: Home(Some(index)),
            local: user.to_owned(),
            asked: if self.naming.authent_domain { shown.clone() } else { full.clone() }.into(),
            shown,
            file: if self.naming.drop_prefix { full } else { user.to_owned() },
        })
    }

    fn tenant(&self, index: u16) -> &Tenant {
        &self.tenants[usize::from(index)]
    }

    /// The virtual domain with the longest PREFIX and separator that begin `name`, and what follows them. What has an `@` in
    /// it is none of theirs.
    fn owner<'n>(&self, name: &'n str) -> Option<(u16, &'n str)> {
        if self.by_prefix.is_empty() || name.contains('@') {
            return None;
        }
        let ends = name.rmatch_indices(self.naming.separator);
        let mut parts = ends.map(|(at, separator)| (&name[..at], &name[at + separator.len()..]));
        parts.find_map(|(prefix, rest)| {
            let index = *self.by_prefix.get(&prefix.to_ascii_lowercase())?;
            (!rest.is_empty()).then_some((index, rest))
        })
    }

    /// Whether a name that is `owner`'s by its prefix must not be used by a domain whose drop files lie in `drops`: it would
    /// be one account, or one drop file.
    fn must_differ(&self, drops: &Path, owner: u16) -> bool {
        !self.naming.authent_domain || self.naming.drop_prefix && *drops == self.tenant(owner).drops
    }
}

#[cfg(test)]
mod tests;
