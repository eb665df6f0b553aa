//! Lines of a configuration into [`Domains`], and what is wrong with them taken together.

use std::collections::HashMap;
use std::path::{Component, Path};

use super::{Domains, Elsewhere, Line, Naming, Reach, Tenant};
use crate::rules::names::is_user_name;

/// Most `vdomain` lines. Each costs a look at every login that comes to an address.
pub const LINES_MOST: usize = 4096;
/// Longest prefix: it has to fit into a name.
const PREFIX_BYTES: usize = 64;

/// What a table is drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Names of the main domain, the first one first.
    pub main: &'a [String],
    /// Base directory of its drop files.
    pub drops: &'a Path,
    /// The `vdomain` lines.
    pub lines: &'a [Line],
    /// The `alt_drop_path` lines.
    pub elsewhere: &'a [Elsewhere],
    /// How names are made.
    pub naming: Naming,
}

/// A line that an [`Objection`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cited {
    /// The `vdomain` line of this index.
    Line(usize),
    /// The `alt_drop_path` line of this index.
    Elsewhere(usize),
    /// Where `host_domain` is.
    Main,
    /// Where `drop_path` is.
    Drops,
}

/// Lines that do not go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// Whether mail of two users would meet, or a line mean nothing: such a table must not be used.
    pub fatal: bool,
    /// The line at fault.
    pub at: Cited,
    /// The line it does not go with.
    pub other: Option<Cited>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// Whether `text` can be a prefix: letters and digits, and inside also `_`, `-`, `.` and `+`.
pub fn is_prefix(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.+".contains(c);
    text.len() <= PREFIX_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(plain)
        && is_user_name(text.as_bytes())
}

/// The table, and all there is to object to. With a fatal objection it is incomplete.
pub fn draw(plan: Plan<'_>) -> (Domains, Vec<Objection>) {
    let mut drawing = Drawing {
        domains: Domains {
            naming: plan.naming,
            main: plan.main.to_vec(),
            drops: plan.drops.to_owned(),
            ..Domains::default()
        },
        plan,
        first: Vec::new(),
        drops: vec![],
        objections: Vec::new(),
    };
    if plan.lines.len() > LINES_MOST {
        let what = format!("there are more than {LINES_MOST} vdomain lines");
        drawing.object(true, Cited::Line(LINES_MOST), None, what, "serve some of the domains by another server");
        return (drawing.domains, drawing.objections);
    }
    drawing.tenants();
    drawing.reaches();
    drawing.move_drops();
    drawing.shared_drops();
    drawing.nested_drops();
    drawing.nested_prefixes();
    (drawing.domains, drawing.objections)
}

struct Drawing<'a> {
    plan: Plan<'a>,
    domains: Domains,
    /// For each virtual domain, the line that made it.
    first: Vec<usize>,
    /// For each virtual domain, the line that says where its drop files lie; the main domain's last.
    drops: Vec<Cited>,
    objections: Vec<Objection>,
}

impl Drawing<'_> {
    fn object(&mut self, fatal: bool, at: Cited, other: Option<Cited>, what: String, remedy: &str) {
        self.objections.push(Objection { fatal, at, other, what, remedy: remedy.to_owned() });
    }

    /// One domain has one prefix and one path, in however many lines.
    fn tenants(&mut self) {
        const REMEDY: &str = "one prefix, one domain, one path; a line differs from another of its domain only in its addresses or suffix";
        for (at, line) in self.plan.lines.iter().enumerate() {
            let Line { prefix, domain, drops, .. } = line;
            let by_prefix = self.domains.by_prefix.get(&prefix.to_ascii_lowercase()).copied();
            let by_domain = self.domains.by_domain.get(domain).copied();
            let what = match (by_prefix, by_domain) {
                (None, None) => {
                    if self.plan.main.contains(domain) {
                        let what = format!("{domain} is the main domain's by its host_domain");
                        self.object(true, Cited::Line(at), Some(Cited::Main), what, "a domain is one or the other");
                        continue;
                    }
                    let index = self.first.len() as u16; // LINES_MOST is less
                    self.domains.by_prefix.insert(prefix.to_ascii_lowercase(), index);
                    self.domains.by_domain.insert(domain.clone(), index);
                    let tenant = Tenant { prefix: prefix.clone(), domain: domain.clone(), drops: drops.clone() };
                    self.domains.tenants.push(tenant);
                    self.first.push(at);
                    continue;
                }
                (Some(index), Some(same)) if index == same => {
                    let tenant = self.domains.tenant(index);
                    if tenant.prefix == *prefix && tenant.drops == *drops {
                        continue;
                    }
                    let (is, was) = match tenant.drops == *drops {
                        true => (prefix.clone(), tenant.prefix.clone()),
                        false => (drops.display().to_string(), tenant.drops.display().to_string()),
                    };
                    (index, format!("{domain} has {was} already, and cannot have {is}"))
                }
                (_, Some(index)) => {
                    let prefix_was = &self.domains.tenant(index).prefix;
                    (index, format!("{domain} has the prefix {prefix_was} already, and cannot have {prefix}"))
                }
                (Some(index), None) => {
                    let domain_was = &self.domains.tenant(index).domain;
                    (index, format!("the prefix {prefix} is {domain_was}'s already, and cannot be {domain}'s"))
                }
            };
            let (index, what) = what;
            let other = Cited::Line(self.first[usize::from(index)]);
            self.object(true, Cited::Line(at), Some(other), what, REMEDY);
        }
    }

    /// No suffix and no address names two domains.
    fn reaches(&mut self) {
        let mut suffixes: HashMap<&str, usize> = HashMap::new();
        let mut lists = Vec::new();
        for (at, line) in self.plan.lines.iter().enumerate() {
            let Some(&index) = self.domains.by_domain.get(&line.domain) else { continue };
            match &line.reach {
                Reach::Addresses(addresses) => lists.push((at, addresses, index)),
                Reach::Suffix(suffix) => {
                    let named = suffix.strip_prefix('@').unwrap_or_default();
                    let theirs = self.domains.by_domain.get(named).filter(|theirs| **theirs != index);
                    let other = match suffixes.get(suffix.as_str()) {
                        Some(&other) if self.plan.lines[other].domain != line.domain => Some(Cited::Line(other)),
                        _ if self.plan.main.iter().any(|ours| ours == named) => Some(Cited::Main),
                        _ => theirs.map(|&theirs| Cited::Line(self.first[usize::from(theirs)])),
                    };
                    if other.is_some() {
                        let what = format!("logins that end in {suffix} are another domain's already");
                        self.object(true, Cited::Line(at), other, what, "give each domain a suffix of its own");
                        continue;
                    }
                    suffixes.insert(suffix, at);
                    self.domains.by_suffix.insert(suffix.clone(), index);
                }
            }
        }
        let mut told = Vec::new();
        for (_, list, _) in &lists {
            for corner in list.corners() {
                let mut at_corner = lists.iter().filter(|(_, addresses, _)| addresses.contains(corner));
                let Some(&(first, _, index)) = at_corner.next() else { continue };
                let Some(&(at, ..)) = at_corner.find(|(_, _, other)| *other != index) else { continue };
                if !told.contains(&(first, at)) {
                    told.push((first, at));
                    let what = format!("clients that connect to {corner} are another domain's already");
                    let remedy = "give each domain addresses of its own";
                    self.object(true, Cited::Line(at), Some(Cited::Line(first)), what, remedy);
                }
            }
        }
        self.domains.by_address = lists.into_iter().map(|(_, list, index)| (list.clone(), index)).collect();
    }

    fn move_drops(&mut self) {
        self.drops = self.first.iter().map(|&at| Cited::Line(at)).chain([Cited::Drops]).collect();
        let mut moved: HashMap<&str, usize> = HashMap::new();
        for (at, Elsewhere { domain, drops }) in self.plan.elsewhere.iter().enumerate() {
            let here = Cited::Elsewhere(at);
            if let Some(first) = moved.insert(domain, at) {
                let what = format!("{domain} has an alt_drop_path already");
                self.object(true, here, Some(Cited::Elsewhere(first)), what, "keep one of them");
            } else if let Some(&index) = self.domains.by_domain.get(domain) {
                self.domains.tenants[usize::from(index)].drops.clone_from(drops);
                self.drops[usize::from(index)] = here;
            } else if self.plan.main.first() == Some(domain) {
                self.domains.drops.clone_from(drops);
                *self.drops.last_mut().expect("the main domain's is the last") = here;
            } else if let Some(main) = self.plan.main.first().filter(|_| self.plan.main.contains(domain)) {
                let what = format!("{domain} is another name of {main}, with the same users");
                self.object(true, here, Some(Cited::Main), what, &format!("write `alt_drop_path {main} ...`"));
            } else {
                let what = format!("{domain} is no domain of ours");
                self.object(true, here, None, what, "name the first host_domain, or a domain that has a vdomain line");
            }
        }
    }

    /// Base directories in the order of `self.drops`.
    fn bases(&self) -> Vec<std::path::PathBuf> {
        self.domains.all_drops().map(Path::to_owned).collect()
    }

    /// Without prefixes, drop files in one directory are the same for users of the same name.
    fn shared_drops(&mut self) {
        if self.plan.naming.drop_prefix {
            return;
        }
        let bases = self.bases();
        let mut seen: HashMap<&Path, usize> = HashMap::new();
        // The main domain first, so that it is the vdomain line that is at fault.
        let order = (0..bases.len()).rev().take(1).chain(0..bases.len() - 1);
        for index in order {
            if let Some(&other) = seen.get(&*bases[index]) {
                let what = format!(
                    "users of the same name in two domains would have one drop file in {}, for drop_prefix is false",
                    bases[index].display()
                );
                let remedy = "give each domain a path of its own, or take drop_prefix false out";
                self.object(true, self.drops[index], Some(self.drops[other]), what, remedy);
            } else {
                seen.insert(&bases[index], index);
            }
        }
    }

    /// A directory of drop files where another domain's hash directories are: a user's file there can stand where the other
    /// domain needs a directory.
    fn nested_drops(&mut self) {
        let hash = self.plan.naming.hash_spool;
        let bases = self.bases();
        let by_path: HashMap<&Path, usize> = bases.iter().enumerate().map(|(index, base)| (&**base, index)).collect();
        for (index, base) in bases.iter().enumerate().filter(|_| hash != 0) {
            for outer in base.ancestors().skip(1) {
                let Some(&other) = by_path.get(outer) else { continue };
                let below = base.strip_prefix(outer).expect("it is an ancestor");
                if below.components().next().is_some_and(|first| is_hash_directory(hash, first)) {
                    let what = format!("{} lies among the hash directories of {}", base.display(), outer.display());
                    let remedy = "a user there can be called as one of its directories: give each domain a path outside of the others'";
                    self.object(false, self.drops[index], Some(self.drops[other]), what, remedy);
                }
            }
        }
    }

    /// A prefix that begins with another one and a separator takes names away from it.
    fn nested_prefixes(&mut self) {
        let separator = self.plan.naming.separator;
        for index in 0..self.first.len() {
            let Tenant { prefix, domain, .. } = self.domains.tenants[index].clone();
            for (at, _) in prefix.match_indices(separator) {
                let Some(&outer) = self.domains.by_prefix.get(&prefix[..at].to_ascii_lowercase()) else { continue };
                let theirs = self.domains.tenant(outer);
                if !self.domains.must_differ(&theirs.drops, index as u16) {
                    continue;
                }
                let begin = format!("{}{separator}", &prefix[at + separator.len_utf8()..]);
                let what = format!(
                    "users of {} whose names begin with {begin} cannot log in: as {prefix}{separator}... they would be users of {domain}",
                    theirs.domain
                );
                let other = Cited::Line(self.first[usize::from(outer)]);
                let remedy = "choose a prefix that does not begin with another and the separator";
                self.object(false, Cited::Line(self.first[index]), Some(other), what, remedy);
            }
        }
    }
}

/// Whether `hash_spool` can make a directory called so.
fn is_hash_directory(hash_spool: u8, name: Component<'_>) -> bool {
    let name = name.as_os_str().as_encoded_bytes();
    match (hash_spool, name) {
        (1, [letter]) => letter.is_ascii_lowercase(),
        (2, [letter]) => !letter.is_ascii_uppercase(),
        (3, [letter]) => letter.is_ascii_lowercase() || letter.is_ascii_digit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::SIGNS;
    use super::*;

    #[test]
    fn a_prefix_is_the_beginning_of_a_name() {
        for prefix in ["A", "Btwo", "abc", "a_b", "3com", "x-1.y+z"] {
            assert!(is_prefix(prefix), "{prefix}");
        }
        for no in
            ["", "_a", ".a", "-a", "a/b", "a b", "a@b", "a:b", "a%2fb", "\u{e9}", "x.lock", "a\u{0}", &"a".repeat(65)]
        {
            assert!(!is_prefix(no), "{no}");
        }
    }

    #[test]
    fn what_can_be_a_hash_directory() {
        for (hash, name, can) in [
            (1, "a", true),
            (1, "A", false),
            (1, "ab", false),
            (2, "_", true),
            (2, "B", false),
            (3, "7", true),
            (0, "a", false),
        ] {
            assert_eq!(is_hash_directory(hash, Component::Normal(name.as_ref())), can, "{hash} {name}");
        }
    }

    #[test]
    fn signs_are_no_letters_of_ordinary_names() {
        assert!(SIGNS.iter().all(|sign| sign.is_ascii_punctuation() && !"._-'".contains(*sign)));
    }
}
