//! `dmail unixauth`: the authenticator for `authent_method unix_user`. The users of this machine and their passwords, by
//! passwd(5), shadow(5) and whatever name services stand behind them.
//!
//! Starts as root, for shadow is root's to read; the server's launcher sees to that. Speaks over its pipes what every
//! authenticator does:
//!
//! | request                         | reply                                                                               |
//! |---------------------------------|-------------------------------------------------------------------------------------|
//! | `check USER PASSWORD [ADDRESS]` | `+OK user config uid`, or the same `-ERR` for whatever was wrong                    |
//! | `lookup USER`                   | the same, also for who may not log in: mail is delivered; or `-ERR does not exist`  |
//! | `version`                       | `+OK version 2 ...`; from then on every word is percent-escaped, both ways          |
//! | `exit`, `quit`                  | `+OK goodbye`                                                                       |
//!
//! Refused, whatever the password: a uid below `-min_uid`; a field that is empty, locked (`!`, `*`), `x` with nothing
//! in shadow, of an unknown kind, longer than 512 bytes or dearer than [`judge`] lets a hash be; an account past its
//! day; a password past its day, or to be changed at the next login, for nobody can do that here. Shells and homes are
//! not asked for: who has /bin/false or nologin may have mail.
//!
//! A `-ERR` of `check` tells nothing by its time either: one hash is computed, with the kind that most users here have
//! when there is none of the user's own. What cannot be read is `-DEAD`: that is temporary, and no password is wrong
//! because of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use super::nwauth::REQUEST_MOST;
use super::nwauth::requests::{Request, Requests};
use super::options::{self, DONE, FAILED, USAGE};
use crate::rules::names::is_user_name;
use crate::store::users::{Form, judge};
use crate::sys::crypt::Crypt;
use crate::sys::user::{self, Entry, Shadow};
use crate::text::number::decimal;
use crate::text::percent;
use crate::text::secret::Secret;

const USAGE_TEXT: &str = "usage: dmail unixauth [-min_uid UID] [check USER PASSWORD [ADDRESS] | lookup USER]

The authenticator for the users of this machine. Without a command it answers requests on its
standard input, a line each; must run as root, who alone may read the passwords.

Options:
    -min_uid UID  users below this are refused (100)
    -h            this page
";

/// Longest user name.
const NAME_MOST: usize = 128;
/// Longest text after `-DEAD`: the manual says under a hundred bytes.
const REASON_MOST: usize = 90;
/// How much of shadow is read to learn which kind of hash is usual here.
const SAMPLE_BYTES: u64 = 1 << 20;
const SECS_A_DAY: u64 = 86_400;
/// The reply to a check that failed, whatever was wrong.
const WRONG: &[u8] = b"-ERR password wrong or not a valid user";
const NO_SUCH_USER: &[u8] = b"-ERR does not exist";

/// What it prints with `-h`.
pub fn page() -> String {
    USAGE_TEXT.to_owned()
}

/// Runs the program: options and maybe a command in, exit code out.
pub fn run(args: &[String]) -> u8 {
    let mut min_uid = 100;
    let mut words = args;
    loop {
        words = match words {
            [option, ..] if option == "-h" || option == "--help" => {
                options::print(USAGE_TEXT);
                return DONE;
            }
            [option, uid, rest @ ..] if option == "-min_uid" => {
                let Some(uid) = decimal(uid.as_bytes()).and_then(|uid| u32::try_from(uid).ok()).filter(|uid| *uid > 0)
                else {
                    eprintln!("unixauth: -min_uid takes a number above 0");
                    return USAGE;
                };
                min_uid = uid;
                rest
            }
            [option, ..] if option.starts_with('-') => {
                eprint!("unixauth: {option}: no such option\n{USAGE_TEXT}");
                return USAGE;
            }
            _ => break,
        };
    }
    let mut unixauth = Unixauth::new(System, min_uid);
    let mut output = io::stdout().lock();
    if !words.is_empty() {
        let words: Vec<Secret> = words.iter().map(|word| Secret::from(word.as_bytes())).collect();
        let reply = unixauth.answer(&words);
        let _ = output.write_all(&[&reply[..], b"\n"].concat());
        return if reply.starts_with(b"+") { DONE } else { FAILED };
    }
    // Not through std's stdin: its buffer would keep passwords.
    let served =
        io::stdin().as_fd().try_clone_to_owned().and_then(|input| unixauth.serve(File::from(input), &mut output));
    match served {
        Ok(()) => DONE,
        Err(error) => {
            eprintln!("unixauth: {error}");
            FAILED
        }
    }
}

/// Where users are looked up.
trait Database {
    fn entry(&self, name: &[u8]) -> io::Result<Option<Entry>>;
    fn shadow(&self, name: &[u8]) -> io::Result<Option<Shadow>>;
    /// Some of all shadow entries.
    fn sample(&self) -> Vec<u8>;
    /// Days since 1970.
    fn today(&self) -> i64;
}

/// This machine's.
struct System;

impl Database for System {
    fn entry(&self, name: &[u8]) -> io::Result<Option<Entry>> {
        user::entry(name)
    }

    fn shadow(&self, name: &[u8]) -> io::Result<Option<Shadow>> {
        user::shadow(name)
    }

    fn sample(&self) -> Vec<u8> {
        let mut sample = Vec::new();
        // Without it the strongest kind is as good a guess as any.
        let _ = File::open("/etc/shadow").and_then(|file| file.take(SAMPLE_BYTES).read_to_end(&mut sample));
        sample
    }

    fn today(&self) -> i64 {
        let past = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (past.as_secs() / SECS_A_DAY) as i64
    }
}

struct Unixauth<D> {
    database: D,
    min_uid: u32,
    crypt: Option<Crypt>,
    /// Hashed with for who has no hash that can be.
    stand_in: Option<Vec<u8>>,
    version: u8,
}

/// What is known of somebody who asks to come in.
struct Known {
    entry: Entry,
    field: Secret,
    /// Why he may not, whatever his password.
    refused: bool,
}

impl<D: Database> Unixauth<D> {
    fn new(database: D, min_uid: u32) -> Unixauth<D> {
        Unixauth { database, min_uid, crypt: None, stand_in: None, version: 1 }
    }

    /// Answers requests, one line each, until `exit` or the end of `input`. An error is one of the pipes'.
    fn serve(&mut self, input: impl Read, output: &mut impl Write) -> io::Result<()> {
        let mut requests = Requests { input, buffer: vec![0; REQUEST_MOST], filled: 0, skipping: false };
        loop {
            let reply = match requests.next()? {
                Request::End => return Ok(()),
                Request::TooLong => b"-ERR the line is too long".to_vec(),
                Request::Line(line) => match self.words(line.reveal()) {
                    Some(words) if words.is_empty() => continue,
                    Some(words) => self.answer(&words),
                    None => b"-ERR a word cannot be read".to_vec(),
                },
            };
            output.write_all(&[&reply[..], b"\n"].concat())?;
            output.flush()?;
            if reply == b"+OK goodbye" {
                return Ok(());
            }
        }
    }

    fn words(&self, line: &[u8]) -> Option<Vec<Secret>> {
        let words = line.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty());
        if self.version >= 2 {
            words.map(|word| percent::decode(word).map(Secret::new)).collect()
        } else {
            Some(words.map(Secret::from).collect())
        }
    }

    fn answer(&mut self, words: &[Secret]) -> Vec<u8> {
        let [command, words @ ..] = words else { return b"-ERR unknown command".to_vec() };
        let answered = match (&command.reveal().to_ascii_lowercase()[..], words) {
            (b"check", [name, password] | [name, password, _]) => self.check(name.reveal(), password),
            (b"lookup", [name]) => self.lookup(name.reveal()),
            (b"version", []) => {
                self.version = 2;
                Ok(concat!("+OK version 2 unixauth ", env!("CARGO_PKG_VERSION")).into())
            }
            (b"exit" | b"quit", _) => Ok(b"+OK goodbye".to_vec()),
            (b"check", _) => Ok(b"-ERR usage: check USER PASSWORD [ADDRESS]".to_vec()),
            (b"lookup", _) => Ok(b"-ERR usage: lookup USER".to_vec()),
            _ => Ok(b"-ERR unknown command".to_vec()),
        };
        answered.unwrap_or_else(|error| {
            let mut reason = format!("-DEAD users of this machine: {error}").into_bytes();
            reason.truncate(REASON_MOST);
            reason
        })
    }

    fn check(&mut self, name: &[u8], password: &Secret) -> io::Result<Vec<u8>> {
        let known = self.known(name)?;
        let hash = known.as_ref().and_then(hash_of);
        let setting = match &hash {
            Some(hash) => hash.clone(),
            None => self.stand_in()?,
        };
        let made = self.crypt()?.hash(password.reveal(), &setting).map(Secret::new);
        let fits = matches!((&hash, made), (Some(hash), Some(made)) if made.matches(hash));
        match known {
            Some(known) if fits && !known.refused => Ok(self.described(&known.entry)),
            _ => Ok(WRONG.to_vec()),
        }
    }

    fn lookup(&mut self, name: &[u8]) -> io::Result<Vec<u8>> {
        match self.known(name)? {
            Some(known) if known.entry.uid >= self.min_uid => Ok(self.described(&known.entry)),
            _ => Ok(NO_SUCH_USER.to_vec()),
        }
    }

    fn described(&self, entry: &Entry) -> Vec<u8> {
        let name = if self.version >= 2 { percent::encode(&entry.name) } else { entry.name.clone() };
        [b"+OK ", &name[..], format!(" config {}", entry.uid).as_bytes()].concat()
    }

    fn known(&self, name: &[u8]) -> io::Result<Option<Known>> {
        let plain = is_user_name(name) && name.len() <= NAME_MOST && !name.iter().any(|byte| b": ".contains(byte));
        // Who is not known costs the same look-ups.
        let asked = if plain { name } else { b"nobody" };
        let (entry, shadow) = (self.database.entry(asked)?, self.database.shadow(asked)?);
        let Some(mut entry) = entry.filter(|_| plain) else { return Ok(None) };
        let mut refused = entry.uid < self.min_uid;
        let field = std::mem::take(&mut entry.field);
        let field = match shadow {
            _ if field != b"x" => field,
            Some(shadow) => {
                refused |= is_over(&shadow, self.database.today());
                shadow.field
            }
            None => Vec::new(),
        };
        Ok(Some(Known { entry, field: Secret::new(field), refused }))
    }

    fn crypt(&mut self) -> io::Result<&mut Crypt> {
        if self.crypt.is_none() {
            self.crypt = Some(Crypt::load()?);
        }
        Ok(self.crypt.as_mut().expect("it was loaded above"))
    }

    fn stand_in(&mut self) -> io::Result<Vec<u8>> {
        if let Some(setting) = &self.stand_in {
            return Ok(setting.clone());
        }
        let setting = match usual(&self.database.sample()) {
            Some(setting) => setting,
            None => self.crypt()?.salt()?,
        };
        Ok(self.stand_in.insert(setting).clone())
    }
}

/// What a password is compared with, when there is something it can be.
fn hash_of(known: &Known) -> Option<Vec<u8>> {
    match judge(known.field.reveal()) {
        Ok(Form::Hash(hash)) => Some(hash.to_vec()),
        // Shadow knows no clear text, and who writes it there gets no password by it.
        Ok(Form::Plain(_)) | Err(_) => None,
    }
}

/// Whether account or password are past their day.
fn is_over(shadow: &Shadow, today: i64) -> bool {
    let expired = shadow.expires >= 0 && today >= shadow.expires;
    let aged = shadow.most >= 0 && shadow.changed > 0 && today - shadow.changed > shadow.most;
    expired || shadow.changed == 0 || aged
}

/// A hash of the kind that most entries of this shadow file have, cost and all.
fn usual(shadow: &[u8]) -> Option<Vec<u8>> {
    let mut kinds: BTreeMap<Vec<u8>, (usize, &[u8])> = BTreeMap::new();
    for line in shadow.split(|&byte| byte == b'\n') {
        let Some(field) = line.split(|&byte| byte == b':').nth(1) else { continue };
        if let Ok(Form::Hash(hash)) = judge(field) {
            kinds.entry(kind(hash)).or_insert((0, hash)).0 += 1;
        }
    }
    kinds.into_values().max_by_key(|(count, _)| *count).map(|(_, hash)| hash.to_vec())
}

/// What two hashes of the same cost begin with: everything before the salt.
fn kind(hash: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = hash.split(|&byte| byte == b'$').collect();
    // The salt of bcrypt stands in one part with the hash.
    let behind = if hash.starts_with(b"$2") { 1 } else { 2 };
    parts[..parts.len().saturating_sub(behind)].join(&b'$')
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A user, a password field, and days: changed, most, expires.
    type Row = (&'static str, u32, &'static str, &'static str, [i64; 3]);

    const HASH: &str = "$5$rounds=1000$saltsalt$w.XbGPxaeOmRBNDP4hO5M9YdjREDwYJk9vBRaEKsnHC";
    const FINE: [i64; 3] = [19_000, 99_999, -1];
    const TODAY: i64 = 20_000;

    struct Table {
        rows: Vec<Row>,
        hash: String,
        broken: Cell<bool>,
    }

    impl Table {
        fn find(&self, name: &[u8]) -> io::Result<Option<&Row>> {
            if self.broken.get() {
                return Err(io::Error::from_raw_os_error(5));
            }
            Ok(self.rows.iter().find(|row| row.0.as_bytes() == name))
        }

        fn field(&self, field: &str) -> Vec<u8> {
            field.replace("HASH", &self.hash).into_bytes()
        }
    }

    impl Database for Table {
        fn entry(&self, name: &[u8]) -> io::Result<Option<Entry>> {
            let row = self.find(name)?;
            Ok(row.map(|row| Entry { name: row.0.into(), uid: row.1, field: self.field(row.2) }))
        }

        fn shadow(&self, name: &[u8]) -> io::Result<Option<Shadow>> {
            let row = self.find(name)?.filter(|row| row.3 != "none");
            Ok(row.map(|row| {
                let [changed, most, expires] = row.4;
                Shadow { field: self.field(row.3), changed, most, expires }
            }))
        }

        fn sample(&self) -> Vec<u8> {
            self.rows
                .iter()
                .map(|row| [row.0.as_bytes(), b":", &self.field(row.3)[..], b":1\n"].concat())
                .collect::<Vec<_>>()
                .concat()
        }

        fn today(&self) -> i64 {
            TODAY
        }
    }

    fn unixauth(rows: &[Row]) -> Unixauth<Table> {
        let mut crypt = Crypt::load().unwrap();
        let hash = String::from_utf8(crypt.hash(b"secret", HASH.as_bytes()).unwrap()).unwrap();
        let mut unixauth = Unixauth::new(Table { rows: rows.to_vec(), hash, broken: Cell::new(false) }, 100);
        unixauth.crypt = Some(crypt);
        unixauth
    }

    fn said(unixauth: &mut Unixauth<Table>, requests: &str) -> String {
        let mut output = Vec::new();
        unixauth.serve(requests.as_bytes(), &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_user_with_a_good_password_comes_in_and_nobody_else() {
        let good: &[Row] = &[
            ("fred", 1000, "x", "HASH", FINE),
            ("old", 1001, "HASH", "none", FINE),
            ("fresh", 1002, "x", "HASH", [19_000, -1, 20_001]),
            ("never", 1003, "x", "HASH", [-1, 10, -1]),
            ("last", 1004, "x", "HASH", [19_900, 100, -1]),
        ];
        let bad: &[Row] = &[
            ("root", 0, "x", "HASH", FINE),
            ("low", 99, "x", "HASH", FINE),
            ("empty", 1000, "x", "", FINE),
            ("open", 1000, "", "HASH", FINE),
            ("locked", 1000, "x", "!HASH", FINE),
            ("star", 1000, "x", "*", FINE),
            ("noshadow", 1000, "x", "none", FINE),
            ("plain", 1000, "x", "{PLAIN}secret", FINE),
            ("unknown", 1000, "x", "$99$salt$hash", FINE),
            ("dear", 1000, "x", "$6$rounds=999999999$salt$hash", FINE),
            ("ended", 1000, "x", "HASH", [19_000, -1, 20_000]),
            ("zero", 1000, "x", "HASH", [19_000, -1, 0]),
            ("change", 1000, "x", "HASH", [0, 99_999, -1]),
            ("aged", 1000, "x", "HASH", [19_899, 100, -1]),
            ("fr ed", 1000, "x", "HASH", FINE),
        ];
        let mut unixauth = unixauth(&[good, bad].concat());
        let wrong = "-ERR password wrong or not a valid user\n";
        for (name, uid, ..) in good {
            assert_eq!(
                said(&mut unixauth, &format!("check {name} secret 10.0.0.1\n")),
                format!("+OK {name} config {uid}\n")
            );
            assert_eq!(said(&mut unixauth, &format!("lookup {name}\n")), format!("+OK {name} config {uid}\n"));
            assert_eq!(said(&mut unixauth, &format!("check {name} Secret\n")), wrong, "{name}");
        }
        for name in bad.iter().map(|row| row.0).chain(["nobody-there", "../root", "fred:x"]) {
            let before = unixauth.crypt().unwrap().calls();
            let words = [b"check", name.as_bytes(), b"secret"].map(Secret::from);
            assert_eq!(unixauth.answer(&words), WRONG, "{name}");
            assert_eq!(unixauth.crypt().unwrap().calls(), before + 1, "{name} costs what any user costs");
            // Mail is delivered also to who has no password that could be right.
            let there = bad.iter().any(|row| row.0 == name && row.1 >= 100 && !name.contains(' '));
            let found = unixauth.answer(&[b"lookup", name.as_bytes()].map(Secret::from));
            assert_eq!(found != NO_SUCH_USER, there, "{name}");
        }
    }

    #[test]
    fn version_two_escapes_words_and_the_conversation_ends_well() {
        let mut unixauth = unixauth(&[("fr%d", 1000, "x", "HASH", FINE)]);
        let asked =
            "\nversion\ncheck fr%25d %73ecret ::1\ncheck fr%25d %7\nset a b\ncheck a\nlookup\nexit\nlookup fred\n";
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            said(&mut unixauth, asked),
            format!(
                "+OK version 2 unixauth {version}\n+OK fr%25d config 1000\n-ERR a word cannot be read\n-ERR unknown command\n\
                 -ERR usage: check USER PASSWORD [ADDRESS]\n-ERR usage: lookup USER\n+OK goodbye\n"
            )
        );
        let long = format!("check fred {}\nexit\n", "x".repeat(9000));
        assert_eq!(said(&mut unixauth, &long), "-ERR the line is too long\n+OK goodbye\n");
    }

    #[test]
    fn a_database_that_fails_makes_no_password_wrong() {
        let mut unixauth = unixauth(&[("fred", 1000, "x", "HASH", FINE)]);
        unixauth.database.broken.set(true);
        for request in ["check fred secret\n", "lookup fred\n"] {
            let reply = said(&mut unixauth, request);
            assert!(reply.starts_with("-DEAD ") && reply.len() < 100, "{reply}");
        }
    }

    #[test]
    fn who_is_unknown_costs_what_most_users_cost() {
        let (sha, md5) = (format!("$6$salt${}", "a".repeat(86)), format!("$1$salt${}", "a".repeat(22)));
        let dear = format!("$6$rounds=9000$salt${}", "a".repeat(86));
        let text = format!("root:*:1\na:{md5}:1\nb:{dear}:1\nc:{sha}:1\nd:{sha}:1\ne:!{md5}:1\nf\n");
        assert_eq!(usual(text.as_bytes()).as_deref(), Some(sha.as_bytes()));
        assert_eq!(usual(b"root:*:1\n"), None);
        assert_eq!(kind(dear.as_bytes()), b"$6$rounds=9000");
        assert_eq!(kind(b"$2b$12$abcdefghijk"), b"$2b$12");
        assert_eq!(kind(b"$y$j9T$salt$hash"), b"$y$j9T");
    }

    #[test]
    fn wrong_options_are_a_usage_error() {
        for args in [&["-min_uid", "0"][..], &["-min_uid", "x"], &["-x"]] {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            assert_eq!(run(&args), USAGE, "{args:?}");
        }
    }
}
