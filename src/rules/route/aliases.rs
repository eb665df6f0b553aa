//! Alias files: what they say, read once into a table that is never changed; and what is wrong with them, by file and line.
//!
//! ```text
//! # sendmail's syntax: a name, a colon, destinations as in `list.rs`
//! postmaster:  root
//! root:        ann, bob@x.example
//! sales:       carl,              a line that begins with a blank goes on
//!              "|/usr/local/lib/dmail/robots/tickets -queue sales"
//! staff:       :include:/etc/dmail/staff
//! owner-staff: ann                bounces of what `staff` passes on go to owner-staff
//! ```
//!
//! Names are compared without case. A line that begins with `#` is a comment, also between lines that go on. A name stands
//! once in a file. An included file is a list of addresses, a line or a comma between them; it is read with the alias file,
//! so a change of it counts from the next reload on, like one of the alias file itself.
//!
//! **Layout.** One run of bytes, in which each alias is its name and then its destinations, and 16 bytes an alias that say
//! where; these are sorted by file and name and searched by halves. Nothing else, so the table is as large as the files.
//!
//! **Loops.** An alias may name itself: that is the user of that name. A way round through others is refused when the table is
//! drawn. What goes round by way of users' forward files or an authenticator is found when mail comes.

use std::collections::HashMap;

use super::list::{Addressee, Grammar, Reader, Target, Voice};
use crate::rules::domains::Domains;

/// Bytes of one file, and of all together: more is no alias file.
pub const FILE_BYTES: u64 = 16 << 20;
/// Files, included ones with them.
pub const FILES_MOST: usize = 4096;
/// Destinations of one alias.
pub const TARGETS_MOST: usize = 10_000;
/// Complaints after which no more is said.
const TROUBLES_MOST: usize = 50;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The file, as the configuration names it.
    pub file: Box<str>,
    /// The line, from 1; 0: the file as a whole.
    pub line: usize,
    /// What, and what to do.
    pub text: String,
}

/// Where an alias stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    file: u16,
    name_bytes: u16,
    line: u32,
    start: u32,
    bytes: u32,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    path: Box<str>,
    /// The domain of names without one.
    domain: Box<str>,
}

/// All aliases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    files: Vec<Origin>,
    /// The file of a domain of its own.
    by_domain: HashMap<Box<str>, u16>,
    /// The file for all.
    common: Option<u16>,
    /// Whether a domain with a file of its own, or with none, takes what it has not from the file for all.
    falls_through: bool,
    text: Vec<u8>,
    entries: Vec<Entry>,
}

/// An alias that was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    aliases: &'a Aliases,
    entry: Entry,
}

impl Aliases {
    /// The alias of this name in this domain of ours, by its first name.
    pub fn find(&self, name: &str, domain: &str, is_main: bool) -> Option<Found<'_>> {
        let name = name.to_lowercase();
        let own = self.by_domain.get(domain).copied();
        let common = self.common.filter(|_| self.falls_through || is_main);
        let entry = own.into_iter().chain(common).find_map(|file| self.at(file, &name))?;
        Some(Found { aliases: self, entry: self.entries[entry] })
    }

    /// Aliases, and bytes that the table holds.
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.text.capacity() + self.entries.capacity() * size_of::<Entry>())
    }

    fn at(&self, file: u16, name: &str) -> Option<usize> {
        let key = (file, name.as_bytes());
        self.entries.binary_search_by(|entry| (entry.file, self.name(entry)).cmp(&key)).ok()
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        &self.text[entry.start as usize..][..usize::from(entry.name_bytes)]
    }
}

impl<'a> Found<'a> {
    /// Where it leads.
    pub fn targets(self) -> impl Iterator<Item = Target> + 'a {
        let Found { aliases, entry } = self;
        let begin = entry.start as usize + usize::from(entry.name_bytes);
        let bytes = &aliases.text[begin..begin + entry.bytes as usize];
        let domain = &*aliases.files[usize::from(entry.file)].domain;
        bytes.split(|byte| *byte == b'\n').filter(|one| !one.is_empty()).map(move |one| decode(one, domain))
    }

    /// The domain of the names in its file.
    pub fn domain(self) -> &'a str {
        &self.aliases.files[usize::from(self.entry.file)].domain
    }

    /// The file and the line.
    pub fn place(self) -> (&'a str, usize) {
        (&self.aliases.files[usize::from(self.entry.file)].path, self.entry.line as usize)
    }

    /// Whether that is where bounces go of what this alias passes on: the alias of the name with `owner-` before it.
    pub fn owner(self, name: &str, is_main: bool) -> Option<Addressee> {
        let owner = format!("owner-{}", name.to_lowercase());
        if name.get(..6).is_some_and(|begin| begin.eq_ignore_ascii_case("owner-")) {
            return None;
        }
        let domain = self.domain();
        self.aliases.find(&owner, domain, is_main).map(|_| Addressee::new(owner, domain))
    }
}

/// What no destination has in it stands between what does: the parts of an address, the words of a command.
const BETWEEN: char = '\0';

fn encode(target: &Target, domain: &str, text: &mut Vec<u8>) {
    let mut put = |letter: u8, parts: &[&str]| {
        text.push(letter);
        text.extend_from_slice(parts.join("\0").as_bytes());
        text.push(b'\n');
    };
    let whole = |whole: &'_ Addressee| (whole.domain.as_ref() != domain).then(|| whole.domain.clone());
    match target {
        Target::Address(to) | Target::Exact(to) => {
            let letter = if matches!(target, Target::Address(_)) { b'a' } else { b'x' };
            match whole(to) {
                Some(domain) => put(letter, &[&to.local, &domain]),
                None => put(letter, &[&to.local]),
            }
        }
        Target::Own => put(b'o', &[]),
        Target::Program(words) => put(b'p', &words.iter().map(String::as_str).collect::<Vec<_>>()),
        Target::Discard => put(b'd', &[]),
        Target::Include(_) => unreachable!("what is included stands in its place"),
    }
}

fn decode(one: &[u8], domain: &str) -> Target {
    let text = std::str::from_utf8(&one[1..]).expect("it was text when it was written");
    let whole = || match text.split_once(BETWEEN) {
        Some((local, domain)) => Addressee::new(local, domain),
        None => Addressee::new(text, domain),
    };
    match one[0] {
        b'a' => Target::Address(whole()),
        b'x' => Target::Exact(whole()),
        b'o' => Target::Own,
        b'p' => Target::Program(text.split(BETWEEN).map(str::to_owned).collect()),
        _ => Target::Discard,
    }
}

/// What an `:include:` names, read: its bytes, or why not.
pub type Include<'i> = dyn FnMut(&str) -> Result<Vec<u8>, String> + 'i;

/// A table that is being drawn.
pub struct Drawing {
    aliases: Aliases,
    grammar: Grammar,
    troubles: Vec<Trouble>,
    included: usize,
}

impl Drawing {
    /// An empty one.
    pub fn new(falls_through: bool, grammar: Grammar) -> Drawing {
        let aliases = Aliases { falls_through, ..Aliases::default() };
        Drawing { aliases, grammar, troubles: Vec::new(), included: 0 }
    }

    /// Reads a file: of `scope`, a domain of ours by its first name, or the one for all. Names in it are of `domain`.
    pub fn file(&mut self, path: &str, scope: Option<&str>, domain: &str, bytes: &[u8], include: &mut Include<'_>) {
        let file = self.aliases.files.len() as u16; // FILES_MOST is less
        self.aliases.files.push(Origin { path: path.into(), domain: domain.into() });
        match scope {
            Some(scope) => drop(self.aliases.by_domain.insert(scope.into(), file)),
            None => self.aliases.common = Some(file),
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
            Err(error) => {
                let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
                return self.trouble(file, line, "this is not UTF-8: save the file as UTF-8".to_owned());
            }
        };
        for (line, alias) in logical(text) {
            if let Err(why) = self.alias(file, line, &alias, include) {
                self.trouble(file, line, why);
            }
        }
    }

    /// The table, and what is wrong with it: then it must not be used.
    pub fn finish(mut self, domains: &Domains) -> (Aliases, Vec<Trouble>) {
        let text = std::mem::take(&mut self.aliases.text);
        let name = |entry: &Entry| &text[entry.start as usize..][..usize::from(entry.name_bytes)];
        self.aliases.entries.sort_by(|a, b| (a.file, name(a), a.line).cmp(&(b.file, name(b), b.line)));
        let twice: Vec<(Entry, u32)> = (self.aliases.entries.windows(2))
            .filter(|pair| (pair[0].file, name(&pair[0])) == (pair[1].file, name(&pair[1])))
            .map(|pair| (pair[1], pair[0].line))
            .collect();
        self.aliases.text = text;
        for (entry, line) in &twice {
            let name = String::from_utf8_lossy(self.aliases.name(entry)).into_owned();
            let why = format!("{name} stands in line {line} already: put its destinations on one line");
            self.trouble(entry.file, entry.line as usize, why);
        }
        if twice.is_empty() {
            self.loops(domains);
        }
        self.aliases.text.shrink_to_fit();
        self.aliases.entries.shrink_to_fit();
        (self.aliases, self.troubles)
    }

    fn trouble(&mut self, file: u16, line: usize, text: String) {
        if self.troubles.len() < TROUBLES_MOST {
            let file = self.aliases.files[usize::from(file)].path.clone();
            self.troubles.push(Trouble { file, line, text });
        }
    }

    fn alias(&mut self, file: u16, line: usize, alias: &str, include: &mut Include<'_>) -> Result<(), String> {
        let (name, rest) = named(alias)?;
        let domain = self.aliases.files[usize::from(file)].domain.clone();
        let reader = Reader { domain: &domain, voice: Voice::Operator, grammar: self.grammar };
        let mut targets = Vec::new();
        for target in reader.list(rest)? {
            match target {
                Target::Include(path) => targets.extend(self.included(&path, &domain, include)?),
                target => targets.push(target),
            }
        }
        if targets.is_empty() {
            return Err(format!("{name} leads nowhere: name a destination; /dev/null throws mail away"));
        }
        if targets.len() > TARGETS_MOST {
            return Err(format!("{name} has more than {TARGETS_MOST} destinations"));
        }
        let text = &mut self.aliases.text;
        let start = text.len();
        text.extend_from_slice(name.as_bytes());
        let behind = text.len();
        for target in &targets {
            encode(target, &domain, text);
        }
        let (Ok(start), Ok(bytes)) = (u32::try_from(start), u32::try_from(text.len() - behind)) else {
            text.truncate(start);
            return Err("there are too many aliases for one server".to_owned());
        };
        let name_bytes = name.len() as u16; // a local part's bound
        self.aliases.entries.push(Entry { file, name_bytes, line: line as u32, start, bytes });
        Ok(())
    }

    fn included(&mut self, path: &str, domain: &str, include: &mut Include<'_>) -> Result<Vec<Target>, String> {
        self.included += 1;
        if self.aliases.files.len() + self.included > FILES_MOST {
            return Err(format!("this would be the {FILES_MOST}th file: include fewer"));
        }
        let bytes = include(path).map_err(|why| format!("{path}: {why}"))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{path}: this is not UTF-8"))?;
        let reader = Reader { domain, voice: Voice::Included, grammar: self.grammar };
        let mut targets = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
            targets.extend(reader.list(line).map_err(|why| format!("{path}:{}: {why}", index + 1))?);
            if targets.len() > TARGETS_MOST {
                return Err(format!("{path}: it has more than {TARGETS_MOST} destinations"));
            }
        }
        Ok(targets)
    }

    /// Says which aliases lead back to themselves by way of others.
    fn loops(&mut self, domains: &Domains) {
        #[derive(Clone, Copy, PartialEq)]
        enum Seen {
            Not,
            Within,
            Done,
        }
        let aliases = &self.aliases;
        let mut seen = vec![Seen::Not; aliases.entries.len()];
        let mut found = Vec::new();
        for first in 0..aliases.entries.len() {
            if seen[first] != Seen::Not {
                continue;
            }
            // A path of aliases, each with what is left of where it leads.
            let mut path = vec![(first, aliases.leads(first, domains))];
            seen[first] = Seen::Within;
            while let Some((at, next)) = path.last_mut() {
                let at = *at;
                match next.pop() {
                    Some(to) if to == at => {}
                    Some(to) if seen[to] == Seen::Within => {
                        let begin = path.iter().position(|(at, _)| *at == to).unwrap_or(0);
                        found.push(path[begin..].iter().map(|(at, _)| *at).chain([to]).collect::<Vec<_>>());
                    }
                    Some(to) if seen[to] == Seen::Not => {
                        seen[to] = Seen::Within;
                        path.push((to, aliases.leads(to, domains)));
                    }
                    Some(_) => {}
                    None => {
                        seen[at] = Seen::Done;
                        path.pop();
                    }
                }
            }
        }
        for round in found {
            let names: Vec<_> = round
                .iter()
                .map(|at| String::from_utf8_lossy(aliases.name(&aliases.entries[*at])).into_owned())
                .collect();
            let entry = aliases.entries[round[0]];
            if self.troubles.len() < TROUBLES_MOST {
                let file = aliases.files[usize::from(entry.file)].path.clone();
                let text = format!("this goes round in circles: {}", names.join(" -> "));
                self.troubles.push(Trouble { file, line: entry.line as usize, text });
            }
        }
    }
}

impl Aliases {
    /// The aliases that this one leads to.
    fn leads(&self, at: usize, domains: &Domains) -> Vec<usize> {
        let found = Found { aliases: self, entry: self.entries[at] };
        let to = |target: Target| {
            let Target::Address(Addressee { local, domain }) = target else { return None };
            let (domain, is_main) = domains.canonical(&domain)?;
            let to = self.find(&local, domain, is_main)?.entry;
            self.at(to.file, std::str::from_utf8(self.name(&to)).ok()?)
        };
        found.targets().filter_map(to).collect()
    }
}

/// Lines, those that begin with a blank joined to the one before; with the number of the first.
fn logical(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match found.last_mut() {
            Some((_, before)) if line.starts_with([' ', '\t']) => {
                before.push(' ');
                before.push_str(line.trim());
            }
            _ => found.push((index + 1, line.trim_end().to_owned())),
        }
    }
    found
}

/// The name before the colon, in lower case, and what stands behind it.
fn named(alias: &str) -> Result<(String, &str), String> {
    if alias.starts_with([' ', '\t']) {
        return Err("a line that goes on, and none before it".to_owned());
    }
    let (name, rest) = match alias.strip_prefix('"').and_then(|alias| alias.split_once('"')) {
        Some((name, rest)) => (name, rest.trim_start().strip_prefix(':')),
        None => alias.split_once(':').map_or((alias, None), |(name, rest)| (name, Some(rest))),
    };
    let name = name.trim().to_lowercase();
    let shown = crate::text::printable::printable(name.as_bytes());
    let Some(rest) = rest else {
        return Err(format!("`{shown}`: an alias is a name, a colon, and destinations"));
    };
    if name.contains('@') {
        return Err(format!(
            "`{shown}`: the name stands without a domain; a domain's own aliases go into a file of alias_file_domain"
        ));
    }
    if name.is_empty() || name.len() > 64 || name.chars().any(|c| c.is_control()) {
        return Err(format!("`{shown}` is no name"));
    }
    Ok((name, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::list::tests::grammar;
    use super::super::tests::domains;
    use super::*;

    fn draw(files: &[(&str, Option<&str>, &str)], falls_through: bool) -> (Aliases, Vec<String>) {
        let mut drawing = Drawing::new(falls_through, grammar);
        for (path, scope, text) in files {
            let mut include = |path: &str| match path {
                "/list" => Ok(b"# staff\nann, bob@far.example\ncarl\n".to_vec()),
                "/bad" => Ok(b"ann\n|/bin/sh\n".to_vec()),
                _ => Err("there is no such file".to_owned()),
            };
            drawing.file(path, *scope, scope.unwrap_or("main.example"), text.as_bytes(), &mut include);
        }
        let (aliases, troubles) = drawing.finish(&domains());
        let told = |trouble: &Trouble| format!("{}:{}: {}", trouble.file, trouble.line, trouble.text);
        (aliases, troubles.iter().map(told).collect())
    }

    fn good(text: &str) -> Aliases {
        let (aliases, troubles) = draw(&[("aliases", None, text)], true);
        assert_eq!(troubles, [""; 0]);
        aliases
    }

    fn leads(aliases: &Aliases, name: &str, domain: &str) -> Option<String> {
        let found = aliases.find(name, domain, domain == "main.example")?;
        Some(found.targets().map(|target| target.to_string()).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn a_file_is_read_as_sendmail_reads_it() {
        let aliases = good(
            "# comment\n\npostmaster: Root\nroot:ann,\n  # not the end of it\n\tbob@x.example\r\nSales :\t\"|/bin/t -q 'a b'\"\n\
             \"Ann Lee\": ann\nnull: /dev/null\nstaff: :include:/list, \\dora\nself: self, $user\n",
        );
        for (name, targets) in [
            ("POSTMASTER", "Root@main.example"),
            ("root", "ann@main.example, bob@x.example"),
            ("sales", "|/bin/t -q \"a b\""),
            ("ann lee", "ann@main.example"),
            ("null", "/dev/null"),
            ("staff", "ann@main.example, bob@far.example, carl@main.example, \\dora@main.example"),
            ("self", "self@main.example, $user"),
        ] {
            assert_eq!(leads(&aliases, name, "main.example").as_deref(), Some(targets), "{name}");
        }
        assert_eq!(leads(&aliases, "comment", "main.example"), None);
        assert_eq!(leads(&aliases, "roo", "main.example"), None);
        assert_eq!(aliases.find("sales", "main.example", true).unwrap().place(), ("aliases", 7));
    }

    #[test]
    fn what_is_wrong_is_told_with_file_and_line_and_so_is_what_goes_round() {
        for (text, line, why) in [
            ("a: b\nc d\n", 2, "a colon"),
            ("a@x: b", 1, "alias_file_domain"),
            (": b", 1, "no name"),
            ("a:", 1, "leads nowhere"),
            ("  a: b", 1, "none before it"),
            ("a: b\n\nA: c", 3, "stands in line 1 already"),
            ("a: /tmp/x", 1, "not appended"),
            ("a: b\n  c d", 1, "neither"),
            ("a: :include:/none", 1, "/none: there is no such file"),
            ("a: :include:/bad", 1, "/bad:2: "),
            ("a: b\nb: c\nc: x, a", 1, "a -> b -> c -> a"),
            ("a: b@other.main.example\nb: a@MAIN.example", 1, "a -> b -> a"),
        ] {
            let (_, troubles) = draw(&[("aliases", None, text)], true);
            assert_eq!(troubles.len(), 1, "{text:?}: {troubles:?}");
            assert!(troubles[0].starts_with(&format!("aliases:{line}: ")), "{text:?}: {troubles:?}");
            assert!(troubles[0].contains(why), "{text:?}: {troubles:?}");
        }
        good("a: a, b\nb: \\a, b, c\nc: d@far.example");
    }

    #[test]
    fn a_domains_own_file_comes_first_and_the_common_one_only_if_it_may() {
        let files =
            [("common", None, "info: ann\nhelp: bob"), ("abc", Some("abc.example"), "info: dora\nowner-info: eve")];
        let (aliases, _) = draw(&files, true);
        assert_eq!(leads(&aliases, "info", "abc.example").as_deref(), Some("dora@abc.example"));
        assert_eq!(
            leads(&aliases, "help", "abc.example").as_deref(),
            Some("bob@main.example"),
            "the main domain's bob"
        );
        assert_eq!(leads(&aliases, "help", "b.example").as_deref(), Some("bob@main.example"));
        assert_eq!(leads(&aliases, "info", "main.example").as_deref(), Some("ann@main.example"));
        let owner = |name: &str, domain: &str| {
            let found = aliases.find(name, domain, domain == "main.example").unwrap();
            found.owner(name, domain == "main.example").map(|owner| owner.to_string())
        };
        assert_eq!(owner("info", "abc.example").as_deref(), Some("owner-info@abc.example"));
        assert_eq!((owner("info", "main.example"), owner("owner-info", "abc.example")), (None, None));
        let (aliases, _) = draw(&files, false);
        assert_eq!(leads(&aliases, "help", "abc.example"), None);
        assert!(leads(&aliases, "help", "main.example").is_some());
    }

    #[test]
    fn the_table_is_as_large_as_its_file() {
        let text: String = (0..10_000).map(|n| format!("some.body{n}: another.one{n}, third@far.example\n")).collect();
        let aliases = good(&text);
        let (count, bytes) = aliases.size();
        assert_eq!(count, 10_000);
        assert!(bytes < text.len() + 10_000 * 20, "{bytes} for {}", text.len());
        assert_eq!(
            leads(&aliases, "some.body777", "main.example").as_deref(),
            Some("another.one777@main.example, third@far.example")
        );
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic_and_every_alias_is_found_again(bytes in prop::collection::vec(any::<u8>(), 0..200),
            text in "([a-d]{1,2}:( ?[a-d]{1,2},?){0,3}\n){0,8}") {
            let mut drawing = Drawing::new(true, grammar);
            drawing.file("x", None, "main.example", &bytes, &mut |_| Err(String::new()));
            drawing.finish(&domains());
            let (aliases, troubles) = draw(&[("x", None, &text)], true);
            if troubles.is_empty() {
                for line in text.lines() {
                    prop_assert!(leads(&aliases, line.split(':').next().unwrap(), "main.example").is_some(), "{}", text);
                }
            }
        }
    }
}
