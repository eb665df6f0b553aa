//! `nwauth`: the stock external authenticator. A flat file of users, passwords hashed by crypt(3).
//!
//! Without a command word it answers commands from standard input, a line each, until `exit` or the end; a last line without
//! its line end was cut off and does nothing. With one it answers that one and exits: 0 for `+OK`, 1 for anything else, 2
//! when it was called wrongly. The files and their format: [`store::users`](crate::store::users).
//!
//! | command                                   | reply                                                                   |
//! |-------------------------------------------|-------------------------------------------------------------------------|
//! | `check USER PASSWORD [ADDRESS]`           | `+OK user path uid info`, or `-ERR`, the same for whatever was wrong    |
//! | `lookup USER`                             | the same, or `-ERR does not exist`                                      |
//! | `scram USER [ADDRESS]`                    | `+OK user path uid scram=VERIFIER info`, for whatever name              |
//! | `apop USER STAMP DIGEST [ADDRESS]`        | as to `check`; with `-apop` only                                        |
//! | `set USER PASSWORD [LABEL="VALUE"]...`    | adds or changes; password `(NULL)` or `NULL`: it stays as it is         |
//! | `del USER`                                | deletes                                                                 |
//! | `search TEXT [-from N] [-max M]`          | `+DATA user info` for each whose name holds TEXT, or fits it (`*`, `?`) |
//! | `version`                                 | `+OK version 2 [scram] [apop] nwauth ...`, and version 2 from then on   |
//! | `help`                                    | these lines                                                             |
//! | `exit`, `quit`                            | `+OK goodbye`                                                           |
//! | `merge`                                   | sorts `nwauth.txt`, with what was set since, now (command line only)    |
//! | `generate N`                              | makes `test0`, `test1` ... with password `test` (command line only)     |
//! | `encrypt USER`, `encrypt all`             | clear-text entries become hashes (command line only)                    |
//! | `drop_path HASH BASE USER [PREFIX]`       | prints where `hash_spool` HASH puts that drop (command line only)       |
//!
//! * `path` is `config` and `uid` is `0` unless the user has their own: labels `path` and `uid` of `set` fill those fields. Any
//!   other label goes to the info; the ones not named stay; an empty value takes a label away.
//! * Version 1 takes words as they are. In version 2 every word, both ways, is percent-escaped: bytes outside 0x21..=0x7e and
//!   `%`, as `%XX`; a pair is one word, `fullname="Ann%20Lee"`.
//! * `-DEAD reason`: the files or the hash library cannot be used. That is temporary; no password is wrong because of it.
//! * A `-ERR` of `check` does not tell whether the user exists, by text nor by time: one hash is computed either way, of the
//!   kind that users in that place of the file have. A locked or unusable entry costs the same and reads the same. (Clear-text
//!   entries cost none, nor do unknown names beside them: `encrypt all`.)
//! * `set` keeps a SCRAM verifier beside the hash. Entries that came without one get it at their next good `check`, which is
//!   when a password is seen (not with `-readonly`, nor while somebody else writes). Until all have one, `version` does not
//!   offer `scram`: a client that is offered it takes it, and its user would be kept out. `-scram on` offers it all the same.
//! * `scram` says the same kind of thing for whoever is asked about: who is not there, is locked, or has no verifier, gets one
//!   that no password fits, made of the name and `nwauth.key`.
//! * `-apop` keeps passwords as they are (in base64, which hides nothing): who reads the file can log in as anybody. Entries
//!   from before get theirs at their next good `check`, and lose it at the next `set` without `-apop`.
//! * Lines over [`REQUEST_MOST`] bytes get one `-ERR`; nothing that comes in ends the process or grows it.

mod options;
mod proofs;
pub(super) mod requests;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

pub use options::Options;
pub use proofs::Scram;

pub use options::usage as page;
use options::{Only, parse, usage};
use requests::{Request, Requests};

use crate::protocol::sasl::scram::Verifier;
use crate::store::path::drop_path;
use crate::store::users::{Form, Key, Record, Users, judge};
use crate::sys::crypt::Crypt;
use crate::sys::nofollow::NOFOLLOW;
use crate::text::fault::Fault;
use crate::text::number::decimal;
use crate::text::pattern::matches;
use crate::text::percent;
use crate::text::secret::Secret;

/// Longest request, with its line end.
pub const REQUEST_MOST: usize = 4096;
/// Longest reply; a server reads no more. `set` refuses what would not fit.
pub const REPLY_MOST: usize = 4000;
/// Longest text after `-ERR` and `-DEAD`: the manual says under a hundred bytes.
const REASON_MOST: usize = 90;
/// Longest user name.
pub const NAME_MOST: usize = 128;
/// Longest password: crypt(3) takes no more.
const PASSWORD_MOST: usize = 511;
/// Longest path of a drop file.
const PATH_MOST: usize = 512;
/// Longest info of one user.
const INFO_MOST: usize = 1024;
/// Most users that `-generate` makes.
const GENERATE_MOST: u64 = 10_000_000;
/// Longest `-sleep`.
const SLEEP_MOST: u64 = 60_000;
/// How many users `-encrypt all` takes at a time.
const ENCRYPT_BATCH: usize = 1000;
/// Refused in names unless `-badchar` says otherwise. `/`, `:`, blanks and control characters are refused always.
const BAD_CHARACTERS: &[u8] = b"\\\"'`|<>()[]{}*?,;&$!";
/// The reply to a check that failed, whatever was wrong.
const WRONG: &str = "-ERR password wrong or not a valid user";
const NO_SUCH_USER: &str = "-ERR does not exist";

/// Runs the program: options and maybe a command in, exit code out.
pub fn run(args: &[String]) -> u8 {
    let (options, command) = match parse(args) {
        Ok(parsed) => parsed,
        Err(refusal) => {
            eprintln!("nwauth: {refusal}");
            return 2;
        }
    };
    match options.only {
        Some(Only::Help) => {
            print!("{}", usage());
            return 0;
        }
        Some(Only::Version) => {
            println!("nwauth {}", env!("CARGO_PKG_VERSION"));
            return 0;
        }
        None => {}
    }
    // Not through std's stdin: its buffer would keep passwords.
    let input = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(input) => File::from(input),
        Err(error) => {
            eprintln!("nwauth: standard input: {error}");
            return 1;
        }
    };
    let mut nwauth = Nwauth::new(options);
    let mut output = io::BufWriter::new(io::stdout().lock());
    let done = if command.is_empty() {
        nwauth.serve(input, &mut output).map(|()| true)
    } else {
        nwauth.once(command, input, &mut output)
    };
    match done {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("nwauth: {error}");
            1
        }
    }
}

/// Does what one command line asks for, without a word; the reply is the refusal.
pub fn quietly(args: &[String]) -> Result<(), String> {
    let (options, command) = parse(args)?;
    let mut reply = Vec::new();
    match Nwauth::new(options).once(command, io::empty(), &mut reply) {
        Ok(true) => Ok(()),
        Ok(false) => Err(String::from_utf8_lossy(&reply).trim_end().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// One authenticator: its files, its hash library once somebody needed it, and the protocol version its peer speaks.
pub struct Nwauth {
    options: Options,
    users: Users,
    crypt: Option<Crypt>,
    /// Read or made when it is first needed.
    key: Option<Key>,
    /// Hashed with when there is no entry to take the kind from.
    stand_in: Option<Vec<u8>>,
    version: u8,
    requests: u64,
}

impl Nwauth {
    /// An authenticator over the files that `options` name. Opens nothing yet.
    pub fn new(options: Options) -> Nwauth {
        let users = Users::new(&options.path).merge_above(options.size);
        Nwauth { options, users, crypt: None, key: None, stand_in: None, version: 1, requests: 0 }
    }

    /// Answers requests, one line each, until `exit` or the end of `input`. An error is one of the pipes'.
    pub fn serve(&mut self, input: impl Read, output: &mut impl Write) -> io::Result<()> {
        let mut requests = Requests { input, buffer: vec![0; REQUEST_MOST], filled: 0, skipping: false };
        loop {
            let answered = match requests.next()? {
                Request::End => return Ok(()),
                Request::TooLong => self.reply(output, b"-ERR the line is too long").map(|()| Answered::Refused)?,
                Request::Line(line) => match self.words(line.reveal()) {
                    Ok(words) if words.is_empty() => continue,
                    Ok(words) => self.answer(words, true, output)?,
                    Err(reason) => self.reply(output, reason.as_bytes()).map(|()| Answered::Refused)?,
                },
            };
            output.flush()?;
            if answered == Answered::Goodbye {
                return Ok(());
            }
        }
    }

    /// Answers the one command of a command line, or does what `-generate` or `-encrypt` asked for; whether that went well.
    fn once(&mut self, mut command: Vec<Secret>, input: impl Read, output: &mut impl Write) -> io::Result<bool> {
        if command[0].reveal() == b"set" && command.get(2).is_some_and(|password| password.reveal() == b"-") {
            // The command line is there for all to see, and this is how to keep a password off it.
            let mut requests = Requests { input, buffer: vec![0; REQUEST_MOST], filled: 0, skipping: false };
            command[2] = match requests.next()? {
                Request::Line(line) => line,
                _ => Secret::default(),
            };
        }
        let answered = self.answer(command, false, output)?;
        output.flush()?;
        Ok(answered == Answered::Done)
    }

    fn answer(&mut self, words: Vec<Secret>, piped: bool, output: &mut impl Write) -> io::Result<Answered> {
        self.delay();
        let name = words[0].reveal().to_ascii_lowercase();
        let Some(command) =
            COMMANDS.iter().find(|command| command.name.as_bytes() == name && (command.piped || !piped))
        else {
            return self.reply(output, b"-ERR unknown command").map(|()| Answered::Refused);
        };
        let words = &words[1..];
        if words.len() < command.least || words.len() > command.most {
            let reply = format!("-ERR usage: {} {}", command.name, command.takes);
            return self.reply(output, reply.as_bytes()).map(|()| Answered::Refused);
        }
        let reply = match (command.run)(self, words, output) {
            Ok(reply) => reply,
            Err(Trouble::Refused(reason)) => reason.as_bytes().to_vec(),
            Err(Trouble::Fault(fault)) => {
                self.log(&format!("{fault}"));
                let file = fault.path.file_name().unwrap_or_default().to_string_lossy();
                format!("-DEAD {} {file}: {}", fault.doing, fault.source).into_bytes()
            }
            Err(Trouble::Pipe(error)) => return Err(error),
        };
        // What identifies the user is logged; what stands after it may be a password.
        let whom = words.first().map(|user| printable(user.reveal())).unwrap_or_default();
        let at =
            [("check", 2), ("scram", 1), ("apop", 3)].iter().find(|(name, _)| *name == command.name).map(|(_, at)| *at);
        let from = at.and_then(|at| std::str::from_utf8(words.get(at)?.reveal()).ok()?.parse::<IpAddr>().ok());
        let from = from.map(|address| format!(" from {address}"));
        let verdict = String::from_utf8_lossy(reply.split(|&byte| byte == b' ').next().unwrap_or_default());
        self.log(&format!("{} {whom}{}: {verdict}", command.name, from.unwrap_or_default()));
        self.reply(output, &reply)?;
        Ok(match reply.is_empty() || reply.starts_with(b"+OK") {
            true if command.name == "exit" || command.name == "quit" => Answered::Goodbye,
            true => Answered::Done,
            false => Answered::Refused,
        })
    }

    /// Writes one line of reply, or none when there is nothing more to say. Reasons are cut to what the manual allows.
    fn reply(&self, output: &mut dyn Write, reply: &[u8]) -> io::Result<()> {
        let most = if reply.starts_with(b"-") { REASON_MOST } else { usize::MAX };
        if reply.is_empty() {
            return Ok(());
        }
        output.write_all(&reply[..reply.len().min(most)])?;
        output.write_all(b"\n")
    }

    // ---- the commands --------------------------------------------------------------------------------------------------

    fn check(&mut self, words: &[Secret]) -> Result<Vec<u8>, Trouble> {
        let (name, password) = (words[0].reveal(), &words[1]);
        let found = self.users.find(name)?;
        let record = found.record.filter(|_| self.name_refusal(name).is_none());
        // With no such user, the neighbour's entry is checked instead and the result thrown away: one path for both.
        let stored = match &record {
            Some(record) => record.stored.clone(),
            None => found.neighbour.unwrap_or_default(),
        };
        let good = match judge(stored.reveal()) {
            Ok(Form::Plain(clear)) => password.matches(clear),
            Ok(Form::Hash(hash)) => self.hash_of(password, hash)?.is_some_and(|made| made.matches(hash)),
            Err(reason) => {
                let setting = self.stand_in(stored.reveal())?;
                self.hash_of(password, &setting)?;
                if let Some(record) = &record {
                    self.log(&format!("{}: {reason}", printable(&record.name)));
                }
                false
            }
        };
        match record {
            Some(record) if good => {
                self.make_up(&record, password);
                self.described(&record, None)
            }
            _ => Err(Trouble::Refused(WRONG)),
        }
    }

    fn lookup(&mut self, words: &[Secret]) -> Result<Vec<u8>, Trouble> {
        let name = words[0].reveal();
        match self.users.find(name)?.record {
            Some(record) if self.name_refusal(name).is_none() => self.described(&record, None),
            _ => Err(Trouble::Refused(NO_SUCH_USER)),
        }
    }

    fn set(&mut self, words: &[Secret]) -> Result<Vec<u8>, Trouble> {
        let (name, password) = (words[0].reveal(), &words[1]);
        self.may_write()?;
        if let Some(reason) = self.name_refusal(name) {
            return Err(Trouble::Refused(reason));
        }
        let pairs = words[2..].iter().map(|word| pair(word.reveal())).collect::<Result<Vec<_>, _>>()?;
        // Hashed before the lock is taken: it may be the slowest part by far.
        let stored = match password.reveal() {
            b"(NULL)" | b"NULL" => None,
            _ => Some((self.hashed(password)?, self.proofs(name, password)?)),
        };
        let mut spelled = name.to_vec();
        let is_new = self.users.put(name, |before| {
            let is_new = before.is_none();
            let mut record = before.unwrap_or_default();
            match stored {
                Some((stored, proofs)) => {
                    record.stored = stored;
                    proofs.keep_in(&mut record);
                }
                None if is_new => return Err(NO_SUCH_USER),
                None => {}
            }
            if is_new {
                record.name = name.to_vec();
            }
            for (label, value) in &pairs {
                change(&mut record, label, value)?;
            }
            if describe(&record, 2, record.verifier().as_ref()).is_none_or(|reply| reply.len() > REPLY_MOST) {
                return Err("-ERR path and info are too long together");
            }
            spelled.clone_from(&record.name);
            Ok(record)
        })?;
        let done = if is_new.map_err(Trouble::Refused)? { &b"added"[..] } else { b"changed" };
        Ok([b"+OK ", &self.word(&spelled)[..], b" ", done].concat())
    }

    fn del(&mut self, words: &[Secret]) -> Result<Vec<u8>, Trouble> {
        self.may_write()?;
        let name = words[0].reveal();
        match self.users.remove(name)? {
            true => Ok([b"+OK ", &self.word(name)[..], b" deleted"].concat()),
            false => Err(Trouble::Refused(NO_SUCH_USER)),
        }
    }

    fn search(&mut self, words: &[Secret], output: &mut dyn Write) -> Result<Vec<u8>, Trouble> {
        const USAGE: Trouble = Trouble::Refused("-ERR usage: search TEXT [-from N] [-max M]");
        let (mut skip, mut most) = (0, u64::MAX);
        for option in words[1..].chunks(2) {
            let [label, value] = option else { return Err(USAGE) };
            let value = decimal(value.reveal()).ok_or(USAGE)?;
            match label.reveal() {
                b"-from" => skip = value,
                b"-max" => most = value,
                _ => return Err(USAGE),
            }
        }
        let text = words[0].reveal().to_ascii_lowercase();
        let is_pattern = text.iter().any(|byte| b"*?".contains(byte));
        let wanted = |name: &[u8]| {
            let name = percent::decode_leniently(&name.to_ascii_lowercase());
            if is_pattern {
                matches(&String::from_utf8_lossy(&text), &name)
            } else {
                memchr::memmem::find(&name, &text).is_some()
            }
        };
        let mut pipe = Ok(());
        let version = self.version;
        self.users.search(wanted, |record| {
            if skip > 0 {
                skip -= 1;
                return ControlFlow::Continue(());
            }
            if most == 0 {
                return ControlFlow::Break(());
            }
            most -= 1;
            let mut line = [b"+DATA ", &word(&record.name, version)[..]].concat();
            for word in info_words(&record.info, version) {
                line.push(b' ');
                line.extend(word);
            }
            line.push(b'\n');
            pipe = output.write_all(&line);
            if pipe.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        pipe.map_err(Trouble::Pipe)?;
        Ok(b"+OK".to_vec())
    }

    fn version(&mut self) -> Vec<u8> {
        self.version = 2;
        format!("+OK version 2{} nwauth {}", self.abilities(), env!("CARGO_PKG_VERSION")).into_bytes()
    }

    fn merge(&mut self) -> Result<Vec<u8>, Trouble> {
        self.may_write()?;
        self.users.merge()?;
        Ok(b"+OK merged".to_vec())
    }

    /// `-generate N`: all with one hash of `test`, and a cheap one. A yescrypt hash each would take three hours for 500,000,
    /// and what these users are for is to measure everything but the hash.
    fn generate(&mut self, words: &[Secret]) -> Result<Vec<u8>, Trouble> {
        self.may_write()?;
        let count = decimal(words[0].reveal()).filter(|&count| count <= GENERATE_MOST);
        let count = count.ok_or(Trouble::Refused("-ERR generate takes a number up to 10000000"))?;
        let crypt = self.crypt()?;
        let password = Secret::from(&b"test"[..]);
        let salt = [(c"$1$", 0), (c"$5$", 1000), (c"$6$", 1000)]
            .iter()
            .find_map(|(prefix, cost)| crypt.hash(password.reveal(), &crypt.salt_of(prefix, *cost)?));
        let stored = match salt {
            Some(stored) => Secret::new(stored),
            None => self.hashed(&password)?,
        };
        let mut like = Record { stored, ..Record::default() };
        self.proofs(b"test", &password)?.keep_in(&mut like);
        self.users.generate(count, &like)?;
        Ok(format!("+OK {count} users made").into_bytes())
    }

    /// `-encrypt USER`, `-encrypt all`: clear-text entries become hashes.
    fn encrypt(&mut self, words: &[Secret]) -> Result<Vec<u8>, Trouble> {
        self.may_write()?;
        if words[0].reveal() != b"all" {
            return match self.encrypt_one(words[0].reveal())? {
                true => Ok(b"+OK encrypted".to_vec()),
                false => Err(Trouble::Refused("-ERR no clear-text entry of that name")),
            };
        }
        let mut count = 0;
        loop {
            let mut batch = Vec::new();
            self.users.search(
                |_| true,
                |record| {
                    if matches!(judge(record.stored.reveal()), Ok(Form::Plain(_))) {
                        batch.push(record.name);
                    }
                    if batch.len() < ENCRYPT_BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                },
            )?;
            let mut changed = 0;
            for name in batch {
                changed += u64::from(self.encrypt_one(&name)?);
            }
            if changed == 0 {
                return Ok(format!("+OK {count} encrypted").into_bytes());
            }
            count += changed;
        }
    }

    fn encrypt_one(&mut self, name: &[u8]) -> Result<bool, Trouble> {
        let Some(record) = self.users.find(name)?.record else { return Ok(false) };
        let Ok(Form::Plain(clear)) = judge(record.stored.reveal()) else { return Ok(false) };
        let clear = Secret::from(clear);
        let (hashed, proofs) = (self.hashed(&clear)?, self.proofs(name, &clear)?);
        let changed = self.users.put(name, |now| match now {
            // Somebody may have set another password meanwhile.
            Some(now) if now.stored.matches(record.stored.reveal()) => {
                let mut now = Record { stored: hashed, ..now };
                proofs.keep_in(&mut now);
                Ok(now)
            }
            _ => Err(()),
        })?;
        Ok(changed.is_ok())
    }

    /// `drop_path HASH BASE USER [PREFIX]`: where dmail.conf's `hash_spool` HASH puts that user's drop; PREFIX, with its
    /// separator, as virtual domains have it.
    fn drop_path(&mut self, words: &[Secret], output: &mut dyn Write) -> Result<Vec<u8>, Trouble> {
        let text = |at: usize| std::str::from_utf8(words[at].reveal()).ok();
        let prefix = if words.len() > 3 { text(3) } else { Some("") };
        let file = prefix.zip(text(2)).map(|(prefix, user)| format!("{prefix}{user}"));
        let file = file.filter(|file| self.name_refusal(file.as_bytes()).is_none());
        match (text(0).and_then(|hash| decimal(hash.as_bytes())), text(1), text(2), file) {
            (Some(hash @ 0..=3), Some(base), Some(user), Some(file))
                if self.name_refusal(user.as_bytes()).is_none() =>
            {
                let path = drop_path(Path::new(base), hash as u8, user, &file);
                writeln!(output, "{}", path.display()).map_err(Trouble::Pipe)?;
                Ok(Vec::new())
            }
            _ => Err(Trouble::Refused("-ERR drop_path takes 0, 1, 2 or 3, a directory, a user, maybe a prefix")),
        }
    }

    // ---- what they share -----------------------------------------------------------------------------------------------

    fn crypt(&mut self) -> Result<&mut Crypt, Fault> {
        if self.crypt.is_none() {
            let loaded = Crypt::load().map_err(Fault::at("loading", Path::new("libcrypt.so")))?;
            self.crypt = Some(loaded);
        }
        Ok(self.crypt.as_mut().expect("it was loaded above"))
    }

    fn hash_of(&mut self, password: &Secret, setting: &[u8]) -> Result<Option<Secret>, Fault> {
        Ok(self.crypt()?.hash(password.reveal(), setting).map(Secret::new))
    }

    /// A new hash of a password that is to be kept.
    fn hashed(&mut self, password: &Secret) -> Result<Secret, Trouble> {
        let bytes = password.reveal();
        if bytes.is_empty() || bytes.len() > PASSWORD_MOST || bytes.contains(&0) {
            return Err(Trouble::Refused("-ERR the password is empty, too long or not text"));
        }
        let crypt = self.crypt()?;
        let fault = Fault::at("hashing with", Path::new("libcrypt.so"));
        let made = crypt.salt().and_then(|salt| {
            crypt.hash(bytes, &salt).ok_or_else(|| io::Error::other("the library refused its own salt"))
        });
        Ok(Secret::new(made.map_err(fault)?))
    }

    /// What to hash with where the entry itself cannot be: what it was before it was locked, else what `set` would use.
    fn stand_in(&mut self, stored: &[u8]) -> Result<Vec<u8>, Fault> {
        let bare = &stored[stored.iter().take_while(|byte| b"!*".contains(byte)).count()..];
        if let Ok(Form::Hash(hash)) = judge(bare) {
            return Ok(hash.to_vec());
        }
        if let Some(setting) = &self.stand_in {
            return Ok(setting.clone());
        }
        let salt = self.crypt()?.salt().map_err(Fault::at("hashing with", Path::new("libcrypt.so")))?;
        Ok(self.stand_in.insert(salt).clone())
    }

    fn may_write(&self) -> Result<(), Trouble> {
        if self.options.readonly { Err(Trouble::Refused("-ERR this nwauth is read only")) } else { Ok(()) }
    }

    fn word(&self, bytes: &[u8]) -> Vec<u8> {
        word(bytes, self.version)
    }

    /// The words of a request, as its protocol version has them.
    fn words(&self, line: &[u8]) -> Result<Vec<Secret>, &'static str> {
        if self.version >= 2 {
            let words = line.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty());
            let decoded = words.map(|word| percent::decode(word).map(Secret::new)).collect::<Option<Vec<_>>>();
            return decoded.ok_or("-ERR a % begins no escape");
        }
        if line.contains(&0) {
            return Err("-ERR a NUL is in the line");
        }
        let mut words: Vec<Secret> = Vec::new();
        let mut rest = line;
        loop {
            rest = rest.trim_ascii_start();
            if rest.is_empty() {
                return Ok(words);
            }
            // Blanks between quotes belong to the value of a pair; a quote in a password is a quote.
            let has_pairs = words.len() >= 3 && words[0].reveal().eq_ignore_ascii_case(b"set");
            let end = word_end(rest, has_pairs);
            words.push(Secret::from(&rest[..end]));
            rest = &rest[end..];
        }
    }

    /// Why no user has this name, if none may.
    fn name_refusal(&self, name: &[u8]) -> Option<&'static str> {
        let options = &self.options;
        let local = name.split(|&byte| byte == b'@').next().unwrap_or_default();
        let ends_like_a_file = [name, local].iter().any(|part| {
            let part = part.to_ascii_lowercase();
            part.ends_with(b".lock") || part.ends_with(b".fwd")
        });
        if name.is_empty() || name.len() > NAME_MOST {
            return Some("-ERR the name is empty or too long");
        }
        if name.iter().any(|byte| byte.is_ascii_control() || b" /:".contains(byte)) {
            return Some("-ERR the name has a character that none may have");
        }
        if !options.allow_high && !name.is_ascii() {
            return Some("-ERR the name has a character that is not ASCII");
        }
        if !options.allow_ats && name.iter().filter(|&&byte| byte == b'@').count() > 1 {
            return Some("-ERR the name has more than one @");
        }
        if name.iter().any(|byte| options.bad.contains(byte))
            || local.iter().any(|byte| options.bad_local.contains(byte))
        {
            return Some("-ERR the name has a character that is refused here");
        }
        if b".-#@".contains(&name[0]) || ends_like_a_file {
            return Some("-ERR the name would be taken for something else");
        }
        None
    }

    /// `-sleep X Y`: between X and Y milliseconds, differently each time, the same in each run.
    fn delay(&mut self) {
        let Some((least, most)) = self.options.sleep_ms else { return };
        self.requests += 1;
        let spread = xxhash_rust::xxh3::xxh3_64(&self.requests.to_le_bytes()) % (most - least + 1);
        std::thread::sleep(Duration::from_millis(least + spread));
    }

    /// One line to nwauth.log, opened each time so that it may be rotated away. A log that cannot be written stops nothing.
    fn log(&self, line: &str) {
        if self.options.debug {
            eprintln!("nwauth: {line}");
        }
        if !self.options.log {
            return;
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(NOFOLLOW);
        if let Ok(mut file) = options.open(self.options.path.join("nwauth.log"))
            && file.metadata().is_ok_and(|metadata| metadata.is_file())
        {
            let _ = file.write_all(format!("{} {line}\n", Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ")).as_bytes());
        }
    }
}

/// Why a command did not do what it was told.
enum Trouble {
    /// The whole reply.
    Refused(&'static str),
    /// `-DEAD`.
    Fault(Fault),
    /// The reply could not be written.
    Pipe(io::Error),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        Trouble::Fault(fault)
    }
}

impl From<&'static str> for Trouble {
    fn from(reason: &'static str) -> Trouble {
        Trouble::Refused(reason)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answered {
    Done,
    Refused,
    Goodbye,
}

/// What a command does with the words after its name: lines of its own if it has any, and the last line of the reply.
type Run = fn(&mut Nwauth, &[Secret], &mut dyn Write) -> Result<Vec<u8>, Trouble>;

/// One command: how it is called, and what it does.
struct Command {
    name: &'static str,
    takes: &'static str,
    /// Fewest and most words after the name.
    least: usize,
    most: usize,
    /// Whether it is there for a server, or only on the command line.
    piped: bool,
    run: Run,
}

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    Command { name: "check", takes: "USER PASSWORD [ADDRESS]", least: 2, most: 3, piped: true, run: |n, w, _| n.check(w) },
    Command { name: "lookup", takes: "USER", least: 1, most: 2, piped: true, run: |n, w, _| n.lookup(w) },
    Command { name: "scram", takes: "USER [ADDRESS]", least: 1, most: 2, piped: true, run: |n, w, _| n.scram(w) },
    Command { name: "apop", takes: "USER STAMP DIGEST [ADDRESS]", least: 3, most: 4, piped: true, run: |n, w, _| n.apop(w) },
    Command { name: "set", takes: "USER PASSWORD [LABEL=\"VALUE\"]...", least: 2, most: 64, piped: true, run: |n, w, _| n.set(w) },
    Command { name: "del", takes: "USER", least: 1, most: 1, piped: true, run: |n, w, _| n.del(w) },
    Command { name: "search", takes: "TEXT [-from N] [-max M]", least: 1, most: 5, piped: true, run: |n, w, out| n.search(w, out) },
    Command { name: "merge", takes: "", least: 0, most: 0, piped: false, run: |n, _, _| n.merge() },
    Command { name: "generate", takes: "N", least: 1, most: 1, piped: false, run: |n, w, _| n.generate(w) },
    Command { name: "encrypt", takes: "USER|all", least: 1, most: 1, piped: false, run: |n, w, _| n.encrypt(w) },
    Command { name: "drop_path", takes: "HASH BASE USER [PREFIX]", least: 3, most: 4, piped: false, run: |n, w, out| n.drop_path(w, out) },
    Command { name: "version", takes: "", least: 0, most: 0, piped: true, run: |n, _, _| Ok(n.version()) },
    Command { name: "help", takes: "", least: 0, most: 9, piped: true, run: |_, _, out| help(out) },
    Command { name: "exit", takes: "", least: 0, most: 9, piped: true, run: |_, _, _| Ok(b"+OK goodbye".to_vec()) },
    Command { name: "quit", takes: "", least: 0, most: 9, piped: true, run: |_, _, _| Ok(b"+OK goodbye".to_vec()) },
];

fn help(output: &mut dyn Write) -> Result<Vec<u8>, Trouble> {
    for command in COMMANDS.iter().filter(|command| command.piped) {
        writeln!(output, "{}", format!("+DATA {} {}", command.name, command.takes).trim_end())
            .map_err(Trouble::Pipe)?;
    }
    Ok(b"+OK".to_vec())
}

/// `+OK user path uid info`, with the verifier before the info if there is one; `None` when a field cannot be sent in that version.
fn describe(record: &Record, version: u8, verifier: Option<&Verifier>) -> Option<Vec<u8>> {
    let path = if record.path.is_empty() { &b"config"[..] } else { &record.path };
    let uid = if record.uid.is_empty() { &b"0"[..] } else { &record.uid };
    let sendable = |field: &&[u8]| version >= 2 || field.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    let fields = [&record.name, path, uid];
    if !fields.iter().all(sendable) || record.info.iter().any(u8::is_ascii_control) {
        return None;
    }
    let mut reply = b"+OK".to_vec();
    let fields = fields.iter().map(|field| word(field, version)).chain(verifier.map(|v| proofs::field(v, version)));
    for word in fields.chain(info_words(&record.info, version)) {
        reply.push(b' ');
        reply.extend(word);
    }
    Some(reply)
}

/// A field as one word: as it is in version 1, escaped in version 2.
fn word(bytes: &[u8], version: u8) -> Vec<u8> {
    if version >= 2 { percent::encode(bytes) } else { bytes.to_vec() }
}

fn info_words(info: &[u8], version: u8) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = info.trim_ascii_start();
    while !rest.is_empty() {
        let end = word_end(rest, true);
        words.push(word(&rest[..end], version));
        rest = rest[end..].trim_ascii_start();
    }
    words
}

/// Where the first word of `text` ends; a blank between quotes does not end it, if so asked.
fn word_end(text: &[u8], quotes: bool) -> usize {
    let mut inside = false;
    let ends = |&byte: &u8| {
        inside ^= quotes && byte == b'"';
        !inside && b" \t".contains(&byte)
    };
    text.iter().position(ends).unwrap_or(text.len())
}

/// `label="value"`, or the same without quotes, as a shell leaves it.
fn pair(word: &[u8]) -> Result<(Vec<u8>, Vec<u8>), &'static str> {
    const REFUSED: &str = "-ERR a pair is LABEL=\"VALUE\", without quotes inside";
    let at = word.iter().position(|&byte| byte == b'=').ok_or(REFUSED)?;
    let (label, value) = (&word[..at], &word[at + 1..]);
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    let is_label = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let is_value = |byte: &u8| !byte.is_ascii_control() && *byte != b'"';
    if label.is_empty() || label.len() > 64 || !label.iter().all(is_label) || !value.iter().all(is_value) {
        return Err(REFUSED);
    }
    Ok((label.to_ascii_lowercase(), value.to_vec()))
}

/// Gives `record` a new value for `label`.
fn change(record: &mut Record, label: &[u8], value: &[u8]) -> Result<(), &'static str> {
    match label {
        b"uid" => {
            if value.len() > 32 || !value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte)) {
                return Err("-ERR uid is a number or a user name");
            }
            record.uid = value.to_vec();
        }
        b"path" => {
            let value = if value == b"config" { b"" } else { value };
            let is_path = value.first().is_none_or(|&byte| byte == b'/') && value.len() <= PATH_MOST;
            if !is_path || value.contains(&b' ') {
                return Err("-ERR path is config, or begins with / and has no blanks");
            }
            record.path = value.to_vec();
        }
        _ => {
            let mut words = info_words(&record.info, 1);
            words.retain(|word| {
                let other = word.split(|&byte| byte == b'=').next().unwrap_or_default();
                other.len() == word.len() || !other.eq_ignore_ascii_case(label)
            });
            if !value.is_empty() {
                words.push([label, b"=\"", value, b"\""].concat());
            }
            record.info = words.join(&b' ');
            if record.info.len() > INFO_MOST {
                return Err("-ERR the info is too long");
            }
        }
    }
    Ok(())
}

/// Peers' bytes, so that they cannot forge a log line.
fn printable(bytes: &[u8]) -> String {
    bytes.iter().take(NAME_MOST).flat_map(|&byte| std::ascii::escape_default(byte)).map(char::from).collect()
}

#[cfg(test)]
mod tests;
