//! Lists of destinations, as they stand behind an alias, in a forward file, in a forward line and in an authenticator's `fwd`.
//!
//! | written                           | is                                                                         |
//! |-----------------------------------|-----------------------------------------------------------------------------|
//! | `bob@x.example`, `<bob@x.example>` | that address                                                               |
//! | `bob`                             | `bob` of the domain that the list is about                                  |
//! | `$user`                           | whoever the list is about: his own copy                                     |
//! | `\bob`, `\bob@x.example`          | bob's mailbox itself, wherever he has his mail forwarded                    |
//! | `\|program`, `"\|program argument"` | a program, given the message; words as on a command line, without a shell |
//! | `/dev/null`, `:blackhole:`        | nowhere                                                                     |
//! | `:include:/file`                  | the addresses in that file: in an alias file alone                          |
//!
//! Commas and line ends part entries; quotes keep them together. Not taken: files to append to, `:fail:`, a shell's signs in a
//! command. What a user says himself ([`Voice::User`]) names no host by its number and not this one, for such an address
//! leads around whatever guards the network.

use crate::text::words::{Manner, quote, words};

/// Destinations that a user may have himself.
pub const OWN_MOST: usize = 100;

/// A whole address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addressee {
    /// Before the `@`, without quotes.
    pub local: Box<str>,
    /// After it, as it was written; a host's address in brackets.
    pub domain: Box<str>,
}

impl Addressee {
    /// An address of these two parts.
    pub fn new(local: impl Into<Box<str>>, domain: impl Into<Box<str>>) -> Addressee {
        Addressee { local: local.into(), domain: domain.into() }
    }
}

impl std::fmt::Display for Addressee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

/// Where a list sends mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(Addressee),
    /// A user's mailbox itself.
    Exact(Addressee),
    /// Whoever the list is about.
    Own,
    /// A program: its words.
    Program(Vec<String>),
    /// Nowhere.
    Discard,
    /// What stands in a file.
    Include(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Address(whole) => write!(f, "{whole}"),
            Target::Exact(whole) => write!(f, "\\{whole}"),
            Target::Own => f.write_str("$user"),
            Target::Program(words) => {
                let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
                write!(f, "|{}", words.join(" "))
            }
            Target::Discard => f.write_str("/dev/null"),
            Target::Include(path) => write!(f, ":include:{path}"),
        }
    }
}

/// Whose words a list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// The operator's: dmail.conf, an alias file.
    Operator,
    /// A file that an alias file includes: addresses alone.
    Included,
    /// A user's.
    User,
}

/// How an address is read; whoever knows the grammar says so.
pub type Grammar = fn(&str) -> Option<Addressee>;

/// Reads lists.
#[derive(Clone, Copy)]
pub struct Reader<'r> {
    /// The domain of names that have none.
    pub domain: &'r str,
    /// Whose words they are.
    pub voice: Voice,
    /// How addresses are read.
    pub grammar: Grammar,
}

impl Reader<'_> {
    /// The destinations in `text`; or what is wrong with the first that is none.
    pub fn list(&self, text: &str) -> Result<Vec<Target>, String> {
        let mut targets = Vec::new();
        for piece in pieces(text)? {
            targets.push(self.one(piece)?);
        }
        Ok(targets)
    }

    /// What a file of the user's says, each line a list, `#` before a comment; and the lines, counted from 1, of which
    /// something cannot be used, with why.
    pub fn file(&self, text: &str) -> (Vec<Target>, Vec<(usize, String)>) {
        let (mut targets, mut bad) = (Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
            match self.list(line) {
                Ok(more) if targets.len() + more.len() <= OWN_MOST => targets.extend(more),
                Ok(_) => {
                    bad.push((index + 1, format!("more than {OWN_MOST} destinations")));
                    break;
                }
                Err(why) => bad.push((index + 1, why)),
            }
        }
        (targets, bad)
    }

    /// One destination.
    fn one(&self, piece: &str) -> Result<Target, String> {
        let shown = short(piece);
        if piece.chars().any(char::is_control) {
            return Err(format!("`{}` has a control character in it", crate::text::printable::visible(&shown)));
        }
        let quoted = unquoted(piece);
        let bare = quoted.as_deref().unwrap_or(piece);
        if let Some(command) = bare.strip_prefix('|') {
            return self.program(command);
        }
        if let Some(path) = strip_word(bare, ":include:") {
            let path = path.trim();
            return match self.voice {
                Voice::Operator if path.starts_with('/') => Ok(Target::Include(path.to_owned())),
                Voice::Operator => Err(format!("`{shown}`: write the whole path of the file")),
                Voice::Included | Voice::User => Err(format!("`{shown}`: only an alias file may include another file")),
            };
        }
        if bare == "/dev/null" || bare.eq_ignore_ascii_case(":blackhole:") {
            return Ok(Target::Discard);
        }
        if bare.starts_with(':') {
            return Err(format!("`{shown}` is not known: there are :include: and :blackhole:"));
        }
        if bare.starts_with('/') {
            return Err(format!("`{shown}`: mail is not appended to files; name a user, a program, or /dev/null"));
        }
        if bare.eq_ignore_ascii_case("$user") {
            return Ok(Target::Own);
        }
        // What was quoted as a whole is a name with blanks or signs in it.
        if let Some(name) = bare.strip_prefix('\\') {
            return self.address(name, false).map(Target::Exact).ok_or_else(|| no_address(&shown));
        }
        let whole = self.address(bare, quoted.is_some()).ok_or_else(|| no_address(&shown))?;
        if self.voice == Voice::User && is_around(&whole.domain) {
            return Err(format!(
                "`{shown}`: mail is forwarded to a domain, not to a host by its number, nor to this one"
            ));
        }
        Ok(Target::Address(whole))
    }

    /// What stands behind a `|`.
    pub fn program(&self, command: &str) -> Result<Target, String> {
        if self.voice == Voice::Included {
            return Err(format!("`|{}`: a file that is included names addresses, no programs", short(command)));
        }
        let words =
            words(command, 1, Manner::Shell).map_err(|trouble| format!("`|{}`: {}", short(command), trouble.text))?;
        let words: Vec<String> = words.into_iter().map(|word| word.text).collect();
        match words.first() {
            Some(first) if !first.is_empty() => Ok(Target::Program(words)),
            _ => Err("`|` without a program".to_owned()),
        }
    }

    fn address(&self, text: &str, is_name: bool) -> Option<Addressee> {
        if is_name {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            return (self.grammar)(&format!("\"{escaped}\"@{}", self.domain));
        }
        let text = match text.strip_suffix('>').and_then(|text| text.split_once('<')) {
            Some((_, within)) => within,
            None => text,
        };
        if text.contains('@') { (self.grammar)(text) } else { (self.grammar)(&format!("{text}@{}", self.domain)) }
    }
}

/// Whether a domain is none, but a host by its number, or this one.
fn is_around(domain: &str) -> bool {
    let domain = domain.to_ascii_lowercase();
    domain.starts_with('[')
        || domain == "localhost"
        || domain.ends_with(".localhost")
        || domain.starts_with("localhost.")
}

fn no_address(shown: &str) -> String {
    format!("`{shown}` is neither an address nor a program")
}

/// As much of it as a sentence needs.
fn short(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

fn strip_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let (begin, rest) = text.split_at_checked(word.len())?;
    begin.eq_ignore_ascii_case(word).then_some(rest)
}

/// What one whole quoted string says, quotes and the backslashes before `"` and `\` taken off.
fn unquoted(piece: &str) -> Option<String> {
    let within = piece.strip_prefix('"')?.strip_suffix('"')?;
    let (mut text, mut chars) = (String::new(), within.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => return None,
            '\\' => match chars.next()? {
                c @ ('"' | '\\') => text.push(c),
                c => text.extend(['\\', c]),
            },
            c => text.push(c),
        }
    }
    Some(text)
}

/// What stands between commas and line ends that are not within quotes, without the blanks around it.
fn pieces(text: &str) -> Result<Vec<&str>, String> {
    let (mut pieces, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' | '\n' if !quoted => {
                pieces.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return Err("a \" without its partner".to_owned());
    }
    pieces.push(&text[from..]);
    Ok(pieces.into_iter().map(str::trim).filter(|piece| !piece.is_empty()).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A grammar for tests: no blanks, one `@`, quotes around a local part taken off.
    pub(in crate::rules::route) fn grammar(text: &str) -> Option<Addressee> {
        let (local, domain) = text.rsplit_once('@')?;
        let name = local.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        let plain = !local.is_empty() && !local.contains([' ', '@', '(', '<', '>', '"', '\\']);
        let fits = (plain || name.is_some()) && !domain.is_empty() && !domain.contains([' ', ';']);
        fits.then(|| Addressee::new(name.unwrap_or(local), domain))
    }

    fn reader(voice: Voice) -> Reader<'static> {
        Reader { domain: "d.example", voice, grammar }
    }

    fn read(text: &str) -> Result<Vec<String>, String> {
        reader(Voice::Operator).list(text).map(|targets| targets.iter().map(Target::to_string).collect())
    }

    #[test]
    fn destinations_are_what_the_table_says() {
        for (text, targets) in [
            ("", &[][..]),
            (" , ,", &[]),
            ("bob", &["bob@d.example"]),
            ("bob, Ann@x.example", &["bob@d.example", "Ann@x.example"]),
            ("Ann Lee <ann@x.example>, <bob@x.example>", &["ann@x.example", "bob@x.example"]),
            ("$user,$USER", &["$user", "$user"]),
            ("\\bob, \\bob@x.example, \"\\bob\"", &["\\bob@d.example", "\\bob@x.example", "\\bob@d.example"]),
            ("|/bin/a b, c", &["|/bin/a b", "c@d.example"]),
            ("\"|/bin/a 'b, c' d\"", &["|/bin/a \"b, c\" d"]),
            ("\"|/bin/a \\\"b c\\\"\"", &["|/bin/a \"b c\""]),
            ("/dev/null", &["/dev/null"]),
            (":blackhole:", &["/dev/null"]),
            (":include:/etc/list", &[":include:/etc/list"]),
            ("\":include:/etc/the list\"", &[":include:/etc/the list"]),
            ("\"ann lee\"", &["ann lee@d.example"]),
            ("a\nb,\nc", &["a@d.example", "b@d.example", "c@d.example"]),
        ] {
            assert_eq!(read(text), Ok(targets.iter().map(ToString::to_string).collect()), "{text}");
        }
        let words = |text| match &reader(Voice::Operator).list(text).unwrap()[..] {
            [Target::Program(words)] => words.clone(),
            _ => panic!("{text}"),
        };
        assert_eq!(words("\"|/bin/a 'b, c' d\""), ["/bin/a", "b, c", "d"]);
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        for (text, why) in [
            ("\"a", "partner"),
            ("/var/spool/x", "not appended"),
            (":fail: no", "not known"),
            (":include:list", "whole path"),
            ("|", "without a program"),
            ("\"| \"", "without a program"),
            ("|a; b", "no shell"),
            ("\"|IFS=' ' && exec /usr/bin/procmail\"", "no shell"),
            ("a b@x", "neither"),
            ("a@", "neither"),
            ("@x", "neither"),
            ("a\u{1}b", "control"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
        assert!(reader(Voice::Included).list("|a").is_err() && reader(Voice::Included).list(":include:/a").is_err());
        assert!(reader(Voice::Included).list("a, b").is_ok());
    }

    #[test]
    fn a_user_does_not_lead_mail_around_what_guards_the_network() {
        for text in ["a@[127.0.0.1]", "a@[IPv6:::1]", "a@localhost", "a@LOCALHOST.localdomain", "a@x.localhost"] {
            assert!(reader(Voice::User).list(text).is_err_and(|why| why.contains("by its number")), "{text}");
            assert!(reader(Voice::Operator).list(text).is_ok(), "{text}");
        }
        assert!(reader(Voice::User).list(":include:/etc/shadow").is_err());
    }

    #[test]
    fn a_users_file_is_read_line_by_line_and_a_bad_line_costs_itself_alone() {
        let (targets, bad) = reader(Voice::User).file("# mine\nbob, carl@x\n\n/tmp/mbox\n  # more\n\\ann\r\n");
        let shown: Vec<String> = targets.iter().map(Target::to_string).collect();
        assert_eq!(shown, ["bob@d.example", "carl@x", "\\ann@d.example"]);
        assert_eq!(bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4]);
        let many = "a\n".repeat(OWN_MOST + 1);
        let (targets, bad) = reader(Voice::User).file(&many);
        assert_eq!((targets.len(), bad.len()), (OWN_MOST, 1));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_read_is_written_and_read_again(text in "[a-c@.,\"\\\\|/:$ <>\n'#é]{0,24}") {
            if let Ok(targets) = reader(Voice::Operator).list(&text) {
                for target in targets {
                    if matches!(&target, Target::Program(_) | Target::Own | Target::Discard)
                        // A name may begin with a sign; written without its brackets that means something else.
                        || matches!(&target, Target::Address(whole) if !whole.local.starts_with([':', '/', '|', '$', '\\', '"'])
                            && grammar(&whole.to_string()).is_some())
                    {
                        prop_assert_eq!(reader(Voice::Operator).list(&target.to_string()), Ok(vec![target]));
                    }
                }
            }
            let _ = reader(Voice::User).file(&text);
        }
    }
}
