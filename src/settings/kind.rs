//! What a setting can hold: the text of the file on one side, a typed field on the other.
//!
//! A [`Kind`] knows how a value is written and what bounds it has; a [`Field`] takes such a value and shows itself again. Every
//! field shows what it would take: `take(show(x))` is `x`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::{Command, Group, Method, TlsFile};
use crate::rules::domains::{Elsewhere, Line, Reach, is_prefix};
use crate::rules::retry::{STEP_SECS, Schedule};
use crate::text::nearest::nearest;
use crate::text::number::{Fraction, decimal};
use crate::text::pattern::{AddressList, PatternList};
use crate::text::words::{Manner, Trouble, Word, is_blank, quote};

/// The word for a number that is never reached.
pub const NEVER: &str = "never";

/// How a value is written.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number between two bounds, both allowed.
    Number {
        /// What is counted: `SECONDS`, `ENTRIES`; in capitals, as manuals have it.
        unit: &'static str,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A decimal fraction from 0 to 1.
    Fraction,
    /// The same, or [`NEVER`].
    NumberOrNever {
        /// What is counted.
        unit: &'static str,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// One of some words.
    OneOf(&'static [&'static str]),
    /// Several of some words, in an order that means something.
    SomeOf(&'static [&'static str]),
    /// Waits in seconds, with commas.
    Schedule,
    /// Words for people.
    Text,
    /// A directory.
    Folder,
    /// A directory; written without one it is unset.
    FolderOrNone,
    /// A file.
    File,
    /// A domain and its file.
    DomainFile,
    /// A whole address.
    Address,
    /// A domain and an address.
    DomainAddress,
    /// An address and where its mail goes.
    Forward,
    /// A file with PEM in it, and perhaps the domain it is for.
    Pem,
    /// A program and its arguments.
    Command,
    /// The name of a group of users.
    Group,
    /// The name of a domain.
    Domain,
    /// The name of a host.
    Host,
    /// Where all mail goes, with options.
    Gateway,
    /// Domains, and where their mail goes.
    Route,
    /// Senders, and where their mail goes.
    SenderRoute,
    /// Addresses of servers, and ports.
    Servers,
    /// The name of a user of this machine.
    User,
    /// A virtual domain: its prefix, which logins it is about, its name, its drop files.
    VirtualDomain,
    /// A domain and the directory of its drop files.
    DomainFolder,
    /// Addresses of this machine.
    Addresses,
    /// A list of addresses, networks, ranges and wildcards.
    Networks,
    /// A list of wildcards for names.
    Patterns,
}

impl Kind {
    /// What stands for the value in a manual: `SECONDS`, `true|false`.
    pub fn form(&self) -> String {
        match self {
            Kind::Flag => "true|false".to_owned(),
            Kind::Number { unit, .. } => (*unit).to_owned(),
            Kind::Fraction => "FRACTION".to_owned(),
            Kind::NumberOrNever { unit, .. } => format!("{unit}|{NEVER}"),
            Kind::OneOf(choices) => choices.join("|"),
            Kind::SomeOf(choices) => format!("LIST of {}", choices.join(", ")),
            Kind::Schedule => "SECONDS[,SECONDS ...]".to_owned(),
            Kind::Text => "TEXT".to_owned(),
            Kind::Folder => "DIRECTORY".to_owned(),
            Kind::FolderOrNone => "[DIRECTORY]".to_owned(),
            Kind::File => "FILE".to_owned(),
            Kind::DomainFile => "DOMAIN FILE".to_owned(),
            Kind::Address => "ADDRESS".to_owned(),
            Kind::DomainAddress => "DOMAIN ADDRESS".to_owned(),
            Kind::Forward => "ADDRESS DESTINATION ...".to_owned(),
            Kind::Pem => "FILE [DOMAIN]".to_owned(),
            Kind::Command => "PROGRAM [ARGUMENT ...]".to_owned(),
            Kind::Group => "GROUP".to_owned(),
            Kind::Domain => "DOMAIN".to_owned(),
            Kind::Host => "HOST".to_owned(),
            Kind::Gateway => "TARGET [OPTION ...]".to_owned(),
            Kind::Route => "DOMAINS TARGET [OPTION ...]".to_owned(),
            Kind::SenderRoute => "SENDERS TARGET [OPTION ...]".to_owned(),
            Kind::Servers => "ADDRESS[:PORT][,ADDRESS[:PORT] ...]".to_owned(),
            Kind::User => "USER".to_owned(),
            Kind::VirtualDomain => "PREFIX ADDRESSES|SUFFIX DOMAIN DIRECTORY".to_owned(),
            Kind::DomainFolder => "DOMAIN DIRECTORY".to_owned(),
            Kind::Addresses => "ADDRESS[,ADDRESS ...]".to_owned(),
            Kind::Networks => "LIST of addresses, networks, ranges, wildcards".to_owned(),
            Kind::Patterns => "LIST of wildcards".to_owned(),
        }
    }

    /// The bounds, when there are any: `600 to 86400`.
    pub fn bounds(&self) -> Option<String> {
        match self {
            Kind::Number { min, max, .. } | Kind::NumberOrNever { min, max, .. } => Some(format!("{min} to {max}")),
            Kind::Fraction => Some("0 to 1".to_owned()),
            Kind::Schedule => Some(format!("{} to {}", STEP_SECS.start(), STEP_SECS.end())),
            _ => None,
        }
    }

    /// How its value is quoted.
    pub fn manner(&self) -> Manner {
        if matches!(self, Kind::Command) { Manner::Shell } else { Manner::Plain }
    }
}

/// A value as it stands in the file.
pub struct Value<'a> {
    /// The setting's name, for sentences.
    pub name: &'static str,
    /// What its row says it holds.
    pub kind: &'a Kind,
    /// Where the value stands, or should stand.
    pub column: usize,
    /// The words after the name.
    pub words: &'a [Word],
    /// The directory that relative paths start from.
    pub base: &'a Path,
}

impl Value<'_> {
    pub(super) fn refuse<T>(&self, word: &Word, why: &str) -> Result<T, Trouble> {
        Err(Trouble::at(word.column, format!("{} cannot be `{}`: {why}", self.name, short(&word.text))))
    }

    pub(super) fn missing(&self) -> Trouble {
        Trouble::at(self.column, format!("{} says nothing: write `{0} {}`", self.name, self.kind.form()))
    }

    /// The only word there is.
    pub(super) fn one(&self) -> Result<&Word, Trouble> {
        match self.words {
            [word] => Ok(word),
            [] => Err(self.missing()),
            [_, second, ..] => {
                let text = format!(
                    "{} takes one value, and `{}` is a second: put a value with blanks in quotes, and # before a comment",
                    self.name,
                    short(&second.text)
                );
                Err(Trouble::at(second.column, text))
            }
        }
    }

    /// As many words as a line of this setting has.
    pub(super) fn fields<const N: usize>(&self) -> Result<[&Word; N], Trouble> {
        match self.words {
            [] => Err(self.missing()),
            words if words.len() == N => Ok(std::array::from_fn(|index| &words[index])),
            words => {
                let column = words.get(N).or(words.last()).map_or(self.column, |word| word.column);
                let text = format!(
                    "{} takes {N} values, and here are {}: write `{0} {}`, a path with blanks in quotes",
                    self.name,
                    words.len(),
                    self.kind.form()
                );
                Err(Trouble::at(column, text))
            }
        }
    }

    fn number(&self) -> Result<u64, Trouble> {
        let word = self.one()?;
        let (Kind::Number { unit, min, max } | Kind::NumberOrNever { unit, min, max }) = *self.kind else {
            unreachable!("a number's row has a number's kind")
        };
        match decimal(word.text.as_bytes()) {
            Some(value) if (min..=max).contains(&value) => Ok(value),
            _ => {
                let or = if matches!(self.kind, Kind::NumberOrNever { .. }) { ", or never" } else { "" };
                self.refuse(word, &format!("{unit} is a number from {min} to {max}{or}"))
            }
        }
    }

    fn flag(&self) -> Result<bool, Trouble> {
        let word = self.one()?;
        match word.text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => self.refuse(word, "it is either true or false"),
        }
    }

    /// Which of `choices` `word` is.
    fn choice(&self, word: &Word, text: &str, choices: &[&'static str]) -> Result<usize, Trouble> {
        if let Some(index) = choices.iter().position(|choice| choice.eq_ignore_ascii_case(text)) {
            return Ok(index);
        }
        let hint = match nearest(text, choices.iter().copied()) {
            Some(meant) => format!(" (did you mean {meant}?)"),
            None => String::new(),
        };
        self.refuse(word, &format!("it takes {}{hint}", choices.join(", ")))
    }

    pub(super) fn path(&self, word: &Word) -> Result<PathBuf, Trouble> {
        if word.text.is_empty() {
            return Err(self.missing());
        }
        if word.text.starts_with('~') {
            return self.refuse(word, "nothing is expanded here, write the whole path");
        }
        Ok(self.base.join(&word.text))
    }

    /// All words as one list: blanks part entries as commas do, except where a comma or a `!` stands beside them.
    fn list(&self) -> Result<(&Word, String), Trouble> {
        let [first, rest @ ..] = self.words else { return Err(self.missing()) };
        let mut text = first.text.clone();
        for word in rest {
            if !text.ends_with([',', '!']) && !word.text.starts_with(',') {
                text.push(',');
            }
            text.push_str(&word.text);
        }
        Ok((first, text))
    }

    /// The entries of comma lists, also written with blanks, and the word each came in.
    pub(super) fn entries(&self) -> Result<Vec<(&Word, &str)>, Trouble> {
        let parts = self.words.iter().flat_map(|word| word.text.split(',').map(move |part| (word, part.trim())));
        let entries: Vec<_> = parts.filter(|(_, part)| !part.is_empty()).collect();
        if entries.is_empty() { Err(self.missing()) } else { Ok(entries) }
    }
}

/// As much of a text from outside as a sentence needs.
pub fn short(text: &str) -> String {
    const ENOUGH: usize = 60;
    match text.char_indices().nth(ENOUGH) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// A typed field of [`Settings`](super::Settings).
pub trait Field {
    /// Takes a value; called once a line, so a repeatable field adds to itself.
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble>;
    /// The values to write in the file to have this again: one a line, none when unset.
    fn show(&self) -> Vec<String>;
}

impl Field for bool {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        *self = value.flag()?;
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        vec![self.to_string()]
    }
}

macro_rules! number_field {
    ($($type:ty),*) => { $(
        impl Field for $type {
            fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
                *self = <$type>::try_from(value.number()?).expect("the row's bounds fit the field: a test sets each to its most");
                Ok(())
            }
            fn show(&self) -> Vec<String> {
                vec![self.to_string()]
            }
        }
    )* };
}
number_field!(u8, u16, u32, u64, usize);

impl Field for Fraction {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let word = value.one()?;
        *self = match Fraction::parse(&word.text) {
            Some(fraction) => fraction,
            None => return value.refuse(word, "it is a fraction from 0 to 1, such as 0.5, with at most six decimals"),
        };
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        vec![self.to_string()]
    }
}

impl Field for Schedule {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let word = value.one()?;
        *self = match Schedule::parse(&word.text) {
            Ok(schedule) => schedule,
            Err(why) => return value.refuse(word, &why),
        };
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        vec![self.to_string()]
    }
}

/// An enum whose values have names in the file. Gives `NAMES`, `name` and the [`Field`].
macro_rules! choice {
    ($(#[$about:meta])* $type:ident { $($(#[$why:meta])* $variant:ident = $name:literal),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$why])* $variant),* }

        impl $type {
            /// The names, in the order of [`ALL`](Self::ALL).
            pub const NAMES: &'static [&'static str] = &[$($name),*];
            /// All there are.
            pub const ALL: &'static [$type] = &[$($type::$variant),*];

            /// As it is written in the file.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name),* }
            }
        }

        impl $crate::settings::kind::Choice for $type {
            fn all() -> (&'static [$type], &'static [&'static str]) {
                (Self::ALL, Self::NAMES)
            }
            fn name(self) -> &'static str {
                self.name()
            }
        }
    };
}
pub(super) use choice;

/// What the `choice!` macro gives, for the fields below.
pub trait Choice: Copy + 'static {
    /// All there are, and their names in the same order.
    fn all() -> (&'static [Self], &'static [&'static str]);
    /// As it is written in the file.
    fn name(self) -> &'static str;
}

impl<T: Choice> Field for T {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let word = value.one()?;
        let (all, names) = T::all();
        *self = all[value.choice(word, &word.text, names)?];
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        vec![self.name().to_owned()]
    }
}

/// A character out of a few.
impl Field for char {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let word = value.one()?;
        let Kind::OneOf(choices) = value.kind else { unreachable!("a character's row names all it can be") };
        *self = choices[value.choice(word, &word.text, choices)?].chars().next().expect("no choice is empty");
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        vec![self.to_string()]
    }
}

/// Words, a blank between them however they were parted.
impl Field for String {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let words: Vec<&str> =
            value.words.iter().map(|word| word.text.trim()).filter(|word| !word.is_empty()).collect();
        *self = words.join(" ");
        if self.is_empty() { Err(value.missing()) } else { Ok(()) }
    }
    fn show(&self) -> Vec<String> {
        vec![quote(self)]
    }
}

impl Field for PathBuf {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        *self = value.path(value.one()?)?;
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        vec![quote(&self.to_string_lossy())]
    }
}

impl Field for Option<PathBuf> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let none = value.words.iter().all(|word| word.text.is_empty());
        *self = if none && matches!(value.kind, Kind::FolderOrNone) { None } else { Some(value.path(value.one()?)?) };
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        self.iter().flat_map(Field::show).collect()
    }
}

impl Field for Vec<PathBuf> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        self.push(value.path(value.one()?)?);
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        self.iter().flat_map(Field::show).collect()
    }
}

impl Field for Option<Group> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let word = value.one()?;
        if word.text.is_empty() {
            return Err(value.missing());
        }
        *self = Some(Group(word.text.clone()));
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        self.iter().map(|group| quote(&group.0)).collect()
    }
}

/// Domains, in lower case and without a last dot.
impl Field for Vec<String> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let word = value.one()?;
        let domain = domain(&word.text).or_else(|why| value.refuse(word, why))?;
        if self.contains(&domain) {
            return value.refuse(word, "it is named twice; once is enough");
        }
        self.push(domain);
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        self.clone()
    }
}

/// A list of choices in the order written; `none` stands alone and means none of them.
impl<T: Choice + PartialEq> Field for Vec<T> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let (all, names) = T::all();
        let entries = value.entries()?;
        if let [(_, only)] = entries[..]
            && only.eq_ignore_ascii_case("none")
        {
            return Ok(());
        }
        for (word, entry) in entries {
            if entry.eq_ignore_ascii_case("none") {
                return value.refuse(word, "none stands alone or not at all");
            }
            let choice = all[value.choice(word, entry, names)?];
            if self.contains(&choice) {
                return value.refuse(word, &format!("{} is there twice", choice.name()));
            }
            self.push(choice);
        }
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        let names: Vec<_> = self.iter().map(|choice| choice.name()).collect();
        vec![if names.is_empty() { "none".to_owned() } else { names.join(",") }]
    }
}

/// What `*` means: every address this machine has. IPv6 first; each is a socket of its own.
const EVERYWHERE: [IpAddr; 2] = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];

impl Field for Vec<IpAddr> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        for (word, entry) in value.entries()? {
            let addresses = match entry.parse::<IpAddr>() {
                Ok(address) => vec![address],
                Err(_) if entry == "*" => EVERYWHERE.to_vec(),
                Err(_) => return value.refuse(word, "it takes addresses as 192.0.2.1 or 2001:db8::1, or * for all"),
            };
            for address in addresses {
                if self.contains(&address) {
                    return value.refuse(word, &format!("{address} is there twice"));
                }
                self.push(address);
            }
        }
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        if self[..] == EVERYWHERE {
            return vec!["*".to_owned()];
        }
        self.iter().map(IpAddr::to_string).collect()
    }
}

/// A list as it is written: as one word, in quotes where an entry has what would part or end it. For `a b` is one entry when
/// it came in quotes, and two without them.
fn listed(text: &str) -> String {
    if text.contains(|c| is_blank(c) || c == '"' || c == '#') { quote(text) } else { text.to_owned() }
}

/// A list of wildcards: [`AddressList`] or [`PatternList`].
macro_rules! list_field {
    ($($type:ty),*) => { $(
        impl Field for $type {
            fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
                let (first, text) = value.list()?;
                let list = <$type>::parse(&text).map_err(|why| Trouble::at(first.column, format!("{}: {why}", value.name)))?;
                if list.is_empty() {
                    return Err(value.missing());
                }
                // Where it may be written several times, all lines are one list.
                self.append(list);
                Ok(())
            }
            fn show(&self) -> Vec<String> {
                if self.is_empty() { Vec::new() } else { vec![listed(&self.to_string())] }
            }
        }
    )* };
}
list_field!(AddressList, PatternList);

/// A number; none is [`NEVER`].
impl Field for Option<u32> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        *self = match value.words {
            [word] if word.text.eq_ignore_ascii_case(NEVER) => None,
            _ => Some(u32::try_from(value.number()?).expect("the row's bounds fit the field")),
        };
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        vec![self.map_or_else(|| NEVER.to_owned(), |number| number.to_string())]
    }
}

impl Field for Vec<TlsFile> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let (file, name) = match value.words {
            [file] => (file, None),
            [file, name] => (file, Some(name)),
            [] => return Err(value.missing()),
            [_, _, third, ..] => {
                let text =
                    format!("{} takes a file and at most one domain: put a name with blanks in quotes", value.name);
                return Err(Trouble::at(third.column, text));
            }
        };
        let domain = match name {
            Some(word) => Some(domain(&word.text).or_else(|why| value.refuse(word, why))?),
            None => None,
        };
        let path = value.path(file)?;
        if let (Some(name), Some(domain)) = (name, &domain)
            && self.iter().any(|other| other.domain.as_ref() == Some(domain))
        {
            return value.refuse(name, "this domain has one already");
        }
        self.push(TlsFile { path, domain });
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        let show = |file: &TlsFile| {
            let path = quote(&file.path.to_string_lossy());
            file.domain.as_ref().map_or(path.clone(), |domain| format!("{path} {domain}"))
        };
        self.iter().map(show).collect()
    }
}

impl Field for Vec<Line> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let [prefix, reach, name, drops] = value.fields()?;
        if !is_prefix(&prefix.text) {
            return value.refuse(prefix, "a prefix begins names: up to 64 letters and digits, and inside also _ - . +");
        }
        let line = Line {
            prefix: prefix.text.clone(),
            reach: Reach::parse(&reach.text).or_else(|why| value.refuse(reach, &why))?,
            domain: domain(&name.text).or_else(|why| value.refuse(name, why))?,
            drops: value.path(drops)?,
        };
        self.push(line);
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        let show = |line: &Line| {
            let reach = match &line.reach {
                Reach::Addresses(addresses) => quote(&addresses.to_string()),
                Reach::Suffix(suffix) => quote(suffix),
            };
            format!("{} {reach} {} {}", line.prefix, line.domain, quote(&line.drops.to_string_lossy()))
        };
        self.iter().map(show).collect()
    }
}

impl Field for Vec<Elsewhere> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let [name, drops] = value.fields()?;
        let domain = domain(&name.text).or_else(|why| value.refuse(name, why))?;
        self.push(Elsewhere { domain, drops: value.path(drops)? });
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        let show = |line: &Elsewhere| format!("{} {}", line.domain, quote(&line.drops.to_string_lossy()));
        self.iter().map(show).collect()
    }
}

impl Field for Command {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let [first, ..] = value.words else { return Err(value.missing()) };
        *self =
            Command { program: value.path(first)?, words: value.words.iter().map(|word| word.text.clone()).collect() };
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        if self.words.is_empty() {
            return Vec::new();
        }
        vec![self.words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")]
    }
}

/// How users prove who they are: with what to do instead for those that sites come with.
impl Field for Method {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let word = value.one()?;
        match word.text.to_ascii_lowercase().as_str() {
            "external" => *self = Method::External,
            "unix_user" => *self = Method::UnixUser,
            "nt_user" | "netwin" | "kerberos" | "apop" => {
                let why = "this version asks a program: write `authent_method external` and `authent_process PROGRAM`, \
                           nwauth for one";
                return value.refuse(word, why);
            }
            _ => return value.refuse(word, "it takes external or unix_user"),
        }
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        let name = match self {
            Method::External => "external",
            Method::UnixUser => "unix_user",
        };
        vec![name.to_owned()]
    }
}

/// The name of a user of this machine; none is no name.
impl Field for Option<String> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let word = value.one()?;
        if word.text.is_empty() {
            return Err(value.missing());
        }
        let odd = |c: char| c == ':' || c == '/' || c.is_whitespace() || c.is_control();
        if word.text.contains(odd) || word.text.len() > 256 {
            return value.refuse(word, "no user has such a name");
        }
        *self = Some(word.text.clone());
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        self.iter().map(|name| quote(name)).collect()
    }
}

/// A domain in lower case and without a last dot, or why it is none.
pub(super) fn domain(text: &str) -> Result<String, &'static str> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    if bare.is_empty() || bare.len() > 253 {
        return Err("a domain has 1 to 253 characters");
    }
    if !bare.is_ascii() {
        return Err("write the domain's xn-- form");
    }
    for label in bare.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err("each part of a domain has 1 to 63 characters");
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err("a domain is made of letters, digits, - and dots");
        }
    }
    Ok(bare.to_ascii_lowercase())
}
