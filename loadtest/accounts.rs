//! Whom to be: a rule that makes the n-th account's login, so that half a million of them cost nothing; or a file.
//!
//! A rule is text with one `%d`, `%06d` or the like in it, where the account's number goes; without one all accounts are
//! the same. A file has a line for each account, `LOGIN PASSWORD`, or is a rule itself: see [`Accounts::load`].

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::work::Account;

/// A file of accounts may be so long: some five million of them, and what is offered beyond is no list of accounts.
const FILE_BYTES: u64 = 256 << 20;
/// The widest number a rule may ask for.
const WIDEST: usize = 20;

/// Text with a number in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    before: String,
    /// How many digits at least; None: there is no number in it.
    digits: Option<usize>,
    after: String,
}

impl Rule {
    /// Reads `u%06d`. Refuses with one sentence.
    pub fn parse(text: &str) -> Result<Rule, String> {
        let Some((before, rest)) = text.split_once('%') else {
            return Ok(Rule { before: text.to_owned(), digits: None, after: String::new() });
        };
        let wrong = || format!("{text}: after a % a rule has the digits of the number and a d, as in u%06d");
        let (digits, after) = rest.split_once('d').ok_or_else(wrong)?;
        let digits = if digits.is_empty() { 1 } else { digits.parse().map_err(|_| wrong())? };
        if digits > WIDEST || after.contains('%') {
            return Err(format!("{text}: a rule has one number of at most {WIDEST} digits"));
        }
        Ok(Rule { before: before.to_owned(), digits: Some(digits), after: after.to_owned() })
    }

    /// The text for this number.
    pub fn text(&self, number: u64) -> String {
        match self.digits {
            Some(width) => format!("{}{number:0width$}{}", self.before, self.after),
            None => self.before.clone(),
        }
    }
}

/// All accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    count: u64,
    how: How,
    /// What stands behind the @ of their addresses.
    domain: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    /// Numbers from `first` on.
    Rule { login: Rule, password: Rule, first: u64 },
    /// Whole lines, one after the other, and where each begins.
    Lines { text: String, starts: Vec<u32> },
}

impl Accounts {
    /// `count` accounts by rule, numbered from `first`.
    pub fn rule(count: u64, first: u64, login: &str, password: &str, domain: &str) -> Result<Accounts, String> {
        if count == 0 {
            return Err("there must be an account: say --accounts".to_owned());
        }
        let how = How::Rule { login: Rule::parse(login)?, password: Rule::parse(password)?, first };
        Ok(Accounts { count, how, domain: domain.to_owned() })
    }

    /// Reads a file: lines `LOGIN PASSWORD`; `#` begins a comment; a line `rule COUNT FIRST LOGIN PASSWORD` alone says by what
    /// rule. Refuses with one sentence that names the file.
    pub fn load(path: &Path, domain: &str) -> Result<Accounts, String> {
        let trouble = |error: std::io::Error| {
            format!(
                "{}: {error}; name a file with a line LOGIN PASSWORD for each account, which this user may read",
                path.display()
            )
        };
        let file = File::open(path).map_err(trouble)?;
        if file.metadata().map_err(trouble)?.len() > FILE_BYTES {
            return Err(format!("{}: longer than {FILE_BYTES} bytes; give a rule instead", path.display()));
        }
        let (mut text, mut starts) = (String::new(), Vec::new());
        for (at, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(trouble)?;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["rule", count, first, login, password] if starts.is_empty() => {
                    let number = |word: &str| {
                        word.parse().map_err(|_| format!("{}:{}: {word} is no number", path.display(), at + 1))
                    };
                    return Accounts::rule(number(count)?, number(first)?, login, password, domain);
                }
                [login, password] => {
                    starts.push(text.len() as u32);
                    text.push_str(login);
                    text.push(' ');
                    text.push_str(password);
                    text.push('\n');
                }
                _ => {
                    return Err(format!("{}:{}: a line is a login, a blank, and a password", path.display(), at + 1));
                }
            }
        }
        if starts.is_empty() {
            return Err(format!("{}: no account in it", path.display()));
        }
        Ok(Accounts { count: starts.len() as u64, how: How::Lines { text, starts }, domain: domain.to_owned() })
    }

    /// How many there are; at least one.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The one at this place, counted from 0 and round again.
    pub fn account(&self, number: u64) -> Account {
        let number = number % self.count;
        match &self.how {
            How::Rule { login, password, first } => {
                Account { number, login: login.text(first + number), password: password.text(first + number) }
            }
            How::Lines { text, starts } => {
                let line = text[starts[number as usize] as usize..].lines().next().expect("a line begins there");
                let (login, password) = line.split_once(' ').expect("they are kept with a blank between");
                Account { number, login: login.to_owned(), password: password.to_owned() }
            }
        }
    }

    /// Its address: the login where that has an @, or else the login at the domain.
    pub fn address(&self, number: u64) -> String {
        let login = self.account(number).login;
        if login.contains('@') { login } else { format!("{login}@{}", self.domain) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_rule_puts_the_number_where_it_says() {
        for (rule, text) in [("u%06d", "u000042"), ("%d@a.b", "42@a.b"), ("x", "x"), ("p%3dq", "p042q")] {
            assert_eq!(Rule::parse(rule).unwrap().text(42), text);
        }
        for rule in ["u%", "u%x", "u%06", "%d%d", "%99d"] {
            assert!(Rule::parse(rule).is_err(), "{rule}");
        }
    }

    #[test]
    fn accounts_of_a_rule_go_round_and_have_addresses() {
        let accounts = Accounts::rule(10, 5, "u%03d", "p%d", "example.org").unwrap();
        assert_eq!(accounts.account(13), Account { number: 3, login: "u008".into(), password: "p8".into() });
        assert_eq!(accounts.address(0), "u005@example.org");
        assert!(Accounts::rule(0, 0, "u", "p", "d").is_err());
    }

    fn loaded(text: &str) -> Result<Accounts, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Accounts::load(file.path(), "d")
    }

    #[test]
    fn a_file_has_a_line_for_each_account_or_is_a_rule() {
        let accounts = loaded("# ours\nann secret\n\nben@x.y other\n").unwrap();
        assert_eq!(
            (accounts.count(), accounts.account(0).login, accounts.address(1)),
            (2, "ann".into(), "ben@x.y".into())
        );
        assert_eq!(accounts.account(3).password, "other");
        assert_eq!(loaded("rule 500000 0 u%06d p%d\n"), Accounts::rule(500_000, 0, "u%06d", "p%d", "d"));
        for wrong in ["", "ann\n", "ann a b\n", "rule x 0 u p\n"] {
            assert!(loaded(wrong).is_err(), "{wrong:?}");
        }
    }
}
