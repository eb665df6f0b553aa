//! `DIR/loadtest.json`: what was made in a spool, so that every account of it is known without being read.
//!
//! ```text
//! DIR/loadtest.json     this; written last, so that a folder without it is only half made
//! DIR/dmail.conf        serves it: ports of loopback, above 1024
//! DIR/cert.pem key.pem  a certificate for localhost that nobody else has signed
//! DIR/users/            what nwauth reads
//! DIR/spool/            the drops
//! DIR/work/             for the server: queue, logs, sockets
//! DIR/accounts          for load commands: a line `LOGIN PASSWORD` an account
//! DIR/drops             a line `LOGIN MESSAGES BYTES OCTETS` an account: the file's bytes, and what STAT says
//! ```
//!
//! Accounts are numbered from 0: first those whose mail is drawn from the [`Laws`], then one for each [`Shape`]. Account `n`
//! of the drawn ones is called by one of some names and the number, `ann0`, `bob1`, so that all methods of `hash_spool`
//! spread them; letter `k` (from 1) of account `n` is stamped [`Stamp::in_spool`]`(n, k)`.

use std::fs;
use std::path::{Path, PathBuf};

use dmail::store::path::drop_path;
use dmail::text::fault::Fault;
use serde_json::{Value, json};

use crate::laws::{Kind, Laws, Mailbox, Message};
use crate::letter::{Heading, Letter, Stamp, State};

/// What it is called in its folder.
pub const FILE: &str = "loadtest.json";
/// The folder of the drops.
pub const SPOOL: &str = "spool";
/// Changes whenever the same arguments would make other bytes.
const VERSION: u64 = 1;
/// A manifest is no longer than this; what is, is none.
const FILE_MOST: u64 = 1 << 20;
/// The most accounts of one spool.
pub const ACCOUNTS_MOST: u64 = 10_000_000;
/// The first names of drawn accounts.
const NAMES: &[&str] = &[
    "ann", "bob", "carl", "dora", "emil", "fred", "gina", "hans", "ida", "jack", "kate", "leo", "mary", "nick", "olga",
    "paul", "quinn", "rosa", "sam", "tina", "udo", "vera", "will", "xenia", "yuri", "zoe", "adam", "bella", "cora",
    "dirk", "eva", "felix", "gerd", "hugo", "ines", "jane", "karl", "lisa", "mark", "nora", "otto", "petra", "ralf",
    "sue", "tom", "ulla", "vito", "wanda", "yann", "zara",
];
/// Senders have names of one length, so that all From_ lines are as long.
const SENDERS: &[&str] = &["maria", "james", "peter", "clara", "simon", "helen", "bruno", "astri"];
/// `From maria.0f3a@example.org Mon Jan  5 10:00:00 2026` and its line end.
pub const FROM_LINE_BYTES: u64 = 5 + 22 + 1 + 24 + 1;

/// What was made, or is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// What everything is drawn from.
    pub seed: u64,
    /// Accounts whose mail is drawn. Those of `shapes` come behind them.
    pub accounts: u64,
    /// Boxes that were asked for, and how their owners log in.
    pub shapes: Vec<(Shape, String)>,
    /// 0 to 3, as in dmail.conf.
    pub hash_spool: u8,
    /// What stands behind the @ of everybody's address.
    pub domain: String,
    /// Everybody's.
    pub password: String,
    /// Ages count back from this, in seconds since 1970.
    pub now_secs: i64,
    /// What mail is drawn by.
    pub laws: Laws,
    /// What that came to.
    pub totals: Totals,
}

/// What all drops are together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Boxes without mail.
    pub empty: u64,
    /// Boxes whose owners fetch and delete.
    pub small: u64,
    /// Boxes whose owners leave mail on the server.
    pub large: u64,
    /// In all of them.
    pub messages: u64,
    /// Of the drop files.
    pub bytes: u64,
    /// Of the messages on the wire: what STAT of all accounts says.
    pub octets: u64,
}

/// A box that is asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// 3,000 messages of about ten lines.
    Drop3000,
    /// 100,000 messages, 1 GB.
    Gigabyte,
    /// One message of 50 MB.
    Big,
    /// 300,000 small messages.
    Deep,
}

impl Shape {
    /// All of them, with what they are in a few words.
    pub const ALL: [(Shape, &'static str, &'static str); 4] = [
        (Shape::Drop3000, "drop3000", "3,000 messages of about ten lines"),
        (Shape::Gigabyte, "gigabyte", "100,000 messages, 1 GB"),
        (Shape::Big, "big", "one message of 50 MB"),
        (Shape::Deep, "deep", "300,000 messages of 1 KB"),
    ];

    /// The one called so.
    pub fn named(name: &str) -> Option<Shape> {
        Shape::ALL.iter().find(|(_, known, _)| *known == name).map(|(shape, ..)| *shape)
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        Shape::ALL.iter().find(|(shape, ..)| *shape == self).map(|(_, name, _)| *name).expect("all are there")
    }

    fn mailbox(self, now_secs: i64) -> Mailbox {
        let (count, bytes): (i64, u64) = match self {
            Shape::Drop3000 => (3_000, 1_250),
            Shape::Gigabyte => (100_000, 10_000 - FROM_LINE_BYTES - 1),
            Shape::Big => (1, 50_000_000),
            Shape::Deep => (300_000, 1_024),
        };
        // One came every minute.
        let message = |number| Message { bytes, written_secs: now_secs - (count - number) * 60 };
        Mailbox { kind: Kind::Shaped, messages: (0..count).map(message).collect() }
    }
}

impl Manifest {
    /// Reads what was made in `dir`. Refuses with one sentence that says what to do.
    pub fn read(dir: &Path) -> Result<Manifest, String> {
        let path = dir.join(FILE);
        let advice = "name a folder that loadtest spool has made";
        let fault = |error| format!("{}; {advice}", Fault::new("reading", &path, error));
        let length = fs::metadata(&path).map_err(fault)?.len();
        if length > FILE_MOST {
            return Err(format!("{}: {length} bytes are no manifest; {advice}", path.display()));
        }
        let text = fs::read_to_string(&path).map_err(fault)?;
        let value: Value = serde_json::from_str(&text).map_err(|why| format!("{}: {why}; {advice}", path.display()))?;
        Manifest::from_json(&value).map_err(|why| format!("{}: {why}; {advice}", path.display()))
    }

    /// As the file has it.
    pub fn to_json(&self) -> Value {
        let shapes: Vec<Value> =
            self.shapes.iter().map(|(shape, login)| json!({ "shape": shape.name(), "login": login })).collect();
        let totals = &self.totals;
        json!({
            "version": VERSION,
            "seed": self.seed,
            "accounts": self.accounts,
            "shapes": shapes,
            "hash_spool": self.hash_spool,
            "domain": self.domain,
            "password": self.password,
            "now_secs": self.now_secs,
            "laws": self.laws.to_json(),
            "totals": {
                "empty": totals.empty,
                "small": totals.small,
                "large": totals.large,
                "messages": totals.messages,
                "bytes": totals.bytes,
                "octets": totals.octets,
            },
        })
    }

    fn from_json(value: &Value) -> Result<Manifest, String> {
        let number = |value: &Value, name: &str| value[name].as_u64().ok_or_else(|| format!("{name} is missing"));
        let text = |value: &Value, name: &str| {
            value[name].as_str().map(str::to_owned).ok_or_else(|| format!("{name} is missing"))
        };
        if number(value, "version")? != VERSION {
            return Err("another version of loadtest made it".to_owned());
        }
        let shapes = value["shapes"].as_array().ok_or("shapes is missing")?;
        let shapes = shapes.iter().map(|one| {
            let name = text(one, "shape")?;
            let shape = Shape::named(&name).ok_or_else(|| format!("{name} is no shape"))?;
            Ok((shape, text(one, "login")?))
        });
        let totals = &value["totals"];
        let hash_spool = number(value, "hash_spool")?;
        Ok(Manifest {
            seed: number(value, "seed")?,
            accounts: number(value, "accounts")?,
            shapes: shapes.collect::<Result<_, String>>()?,
            hash_spool: u8::try_from(hash_spool).ok().filter(|method| *method <= 3).ok_or("hash_spool is 0 to 3")?,
            domain: text(value, "domain")?,
            password: text(value, "password")?,
            now_secs: value["now_secs"].as_i64().ok_or("now_secs is missing")?,
            laws: Laws::from_json(&value["laws"])?,
            totals: Totals {
                empty: number(totals, "empty")?,
                small: number(totals, "small")?,
                large: number(totals, "large")?,
                messages: number(totals, "messages")?,
                bytes: number(totals, "bytes")?,
                octets: number(totals, "octets")?,
            },
        })
    }

    /// How many accounts there are.
    pub fn count(&self) -> u64 {
        self.accounts + self.shapes.len() as u64
    }

    /// How account `index` logs in.
    pub fn login(&self, index: u64) -> String {
        match self.shape(index) {
            Some((_, login)) => login.clone(),
            None => drawn_login(index),
        }
    }

    /// What account `index` was given.
    pub fn mailbox(&self, index: u64) -> Mailbox {
        match self.shape(index) {
            Some((shape, _)) => shape.mailbox(self.now_secs),
            None => self.laws.draw(self.seed, index, self.now_secs),
        }
    }

    /// Where below `dir` the drop of `login` lies.
    pub fn drop_path(&self, dir: &Path, login: &str) -> PathBuf {
        drop_path(&dir.join(SPOOL), self.hash_spool, login, login)
    }

    /// Letter `number`, counted from 1, of account `index`, and who sent it.
    pub fn letter(&self, index: u64, login: &str, number: u64, message: &Message) -> (Letter, String) {
        let lot = self.seed.wrapping_add(index.wrapping_mul(0x9e37)).wrapping_add(number);
        let from = format!("{}.{:04x}@example.org", SENDERS[lot as usize % SENDERS.len()], (lot >> 3) & 0xffff);
        let to = format!("{login}@{}", self.domain);
        let heading = Heading { from: &from, to: &to, written_secs: message.written_secs, state: State::Stored };
        (Letter::new(Stamp::in_spool(index, number), message.bytes, &heading), from)
    }

    fn shape(&self, index: u64) -> Option<&(Shape, String)> {
        let behind = index.checked_sub(self.accounts)?;
        self.shapes.get(usize::try_from(behind).ok()?)
    }
}

/// How drawn account `index` logs in.
fn drawn_login(index: u64) -> String {
    format!("{}{index}", NAMES[(index % NAMES.len() as u64) as usize])
}

/// Whether a drawn account may be called so.
pub fn is_drawn_login(login: &str) -> bool {
    let digits = login.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    digits.parse().is_ok_and(|index| index < ACCOUNTS_MOST && drawn_login(index) == login)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            seed: 5,
            accounts: 100,
            shapes: vec![(Shape::Big, "huge".to_owned())],
            hash_spool: 2,
            domain: "example.com".to_owned(),
            password: "word".to_owned(),
            now_secs: 1_790_000_000,
            laws: Laws::default(),
            totals: Totals { empty: 1, small: 2, large: 3, messages: 4, bytes: 5, octets: 6 },
        }
    }

    #[test]
    fn what_was_written_is_read_again_and_garbage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(dir.path().join(FILE), text).unwrap();
        assert!(Manifest::read(dir.path()).unwrap_err().ends_with("name a folder that loadtest spool has made"));
        write(&manifest().to_json().to_string());
        assert_eq!(Manifest::read(dir.path()), Ok(manifest()));
        let other = manifest().to_json().to_string().replace("\"version\":1", "\"version\":9");
        for text in ["", "{}", "[1]", "{\"version\":1}", &other] {
            write(text);
            assert!(Manifest::read(dir.path()).is_err(), "{text}");
        }
        fs::File::create(dir.path().join(FILE)).unwrap().set_len(FILE_MOST + 1).unwrap();
        assert!(Manifest::read(dir.path()).unwrap_err().contains("are no manifest"));
    }

    #[test]
    fn every_account_has_a_login_of_its_own() {
        let manifest = manifest();
        let logins: std::collections::HashSet<String> =
            (0..manifest.count()).map(|index| manifest.login(index)).collect();
        assert_eq!(logins.len(), 101);
        assert_eq!(
            (manifest.login(0), manifest.login(51), manifest.login(100)),
            ("ann0".into(), "bob51".into(), "huge".into())
        );
        for (login, is_drawn) in
            [("ann0", true), ("bob51", true), ("ann1", false), ("ann00", false), ("drop3000", false)]
        {
            assert_eq!(is_drawn_login(login), is_drawn, "{login}");
        }
        assert!((0..5_000).all(|index| is_drawn_login(&drawn_login(index))));
    }

    #[test]
    fn all_from_lines_and_the_smallest_letters_are_as_long_as_the_plan_counts_on() {
        let manifest = Manifest { domain: "a-domain-that-is-rather-long.example.com".to_owned(), ..manifest() };
        for number in (1..5_000).chain([99_999, 1_000_000]) {
            let message = Message { bytes: crate::laws::MESSAGE_LEAST, written_secs: manifest.now_secs };
            let (letter, from) = manifest.letter(number * 31, "somebody1000000", number, &message);
            assert_eq!(letter.bytes(), message.bytes);
            assert_eq!(from.len() as u64 + 5 + 1 + 24 + 1, FROM_LINE_BYTES);
        }
    }

    #[test]
    fn shapes_are_as_large_as_their_names_say() {
        for (shape, name, _) in Shape::ALL {
            assert_eq!((Shape::named(name), shape.name()), (Some(shape), name));
        }
        let bytes = |shape: Shape| {
            shape.mailbox(0).messages.iter().map(|message| FROM_LINE_BYTES + message.bytes + 1).sum::<u64>()
        };
        assert_eq!(bytes(Shape::Gigabyte), 1_000_000_000);
        assert_eq!(Shape::Drop3000.mailbox(0).messages.len(), 3_000);
        assert_eq!(Shape::Deep.mailbox(0).messages.len(), 300_000);
        assert!(bytes(Shape::Big) > 50_000_000);
    }
}
