//! Programs that are given mail (robots): which file is run, what it is told, and what its end means for the message.
//!
//! | it ended                              | the message                                        | status |
//! |---------------------------------------|-----------------------------------------------------|--------|
//! | with 0                                | is taken, whether or not it was read                | 2.0.0  |
//! | with 75 (EX_TEMPFAIL)                 | waits, and is given once more                       | 4.3.0  |
//! | with another code                     | bounces; [`MEANINGS`] says what sysexits.h has for it | 5.x.x |
//! | by a signal                           | bounces                                             | 5.3.0  |
//! | not by its deadline, so it was killed | waits                                               | 4.3.0  |
//! | with our launcher                     | waits                                               | 4.3.0  |
//! | before it began: no such program, no right to run it | bounces                              | 5.3.5  |
//! | before it began: the machine is short of something   | waits                                | 4.3.0  |
//!
//! A message that waits is given again by the rules of the queue, and bounces when that gives up. A program that was killed,
//! or whose end was not seen because the server went down, may have done its work: it is given such a message twice.
//!
//! What the network chose reaches a program only as bytes on its standard input and as values of an environment, never as a
//! word of its command line; there is no shell.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::text::printable::printable;

/// Longest value in its environment; what is longer is cut.
pub const FACT_BYTES: usize = 512;
/// Lines of what it said that are told to the sender.
const SAID_LINES: usize = 10;
/// EX_TEMPFAIL.
const TRY_AGAIN: i32 = 75;

/// What a program is told of a message, in this order under [`Facts::NAMES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// From whom it is; empty: the null sender.
    pub sender: String,
    /// For whom, as an address.
    pub recipient: String,
    /// The part before the `@` without its detail.
    pub local: String,
    /// The detail: what stands behind the first recipient_delimiter.
    pub extension: String,
    /// The part behind the `@`.
    pub domain: String,
    /// What the message is called in the log.
    pub queue_id: String,
    /// Where it came from; empty: a program of this machine.
    pub client_address: String,
}

impl Facts {
    /// The names in the environment.
    pub const NAMES: [&str; 7] = ["SENDER", "RECIPIENT", "LOCAL", "EXTENSION", "DOMAIN", "QUEUE_ID", "CLIENT_ADDRESS"];

    /// What there is to tell of a message of the queue: its sender, empty for nobody; the address that led to the program, in
    /// whose local part `delimiter` begins the detail; its id; and how it came, for people, as in
    /// `ESMTPSA from 192.0.2.1 as ann`.
    pub fn of(sender: &str, recipient: &str, delimiter: Option<char>, id: &str, came: &str) -> Facts {
        let (name, domain) = recipient.rsplit_once('@').unwrap_or((recipient, ""));
        let (local, extension) = match delimiter.and_then(|delimiter| name.split_once(delimiter)) {
            Some((local, extension)) if !local.is_empty() => (local, extension),
            _ => (name, ""),
        };
        let mut words = came.split_whitespace().map(|word| word.trim_matches(['[', ']']));
        let client = words.find(|word| word.parse::<IpAddr>().is_ok()).unwrap_or_default();
        Facts {
            sender: sender.to_owned(),
            recipient: recipient.to_owned(),
            local: local.to_owned(),
            extension: extension.to_owned(),
            domain: domain.to_owned(),
            queue_id: id.to_owned(),
            client_address: client.to_owned(),
        }
    }

    /// The values, fit for an environment: see [`clean`].
    pub fn values(&self) -> [Vec<u8>; 7] {
        let Facts { sender, recipient, local, extension, domain, queue_id, client_address } = self;
        [sender, recipient, local, extension, domain, queue_id, client_address].map(|value| clean(value.as_bytes()))
    }
}

/// A value without controls, cut to [`FACT_BYTES`]. An old bash takes one that begins with `()` for a program.
pub fn clean(value: &[u8]) -> Vec<u8> {
    let some = &value[..value.len().min(FACT_BYTES)];
    let mut clean: Vec<u8> = some.iter().map(|&byte| if byte.is_ascii_control() { b'?' } else { byte }).collect();
    if clean.starts_with(b"()") {
        clean[0] = b'?';
    }
    clean
}

/// The file that a command's first word means. With `approved`, a directory, only the word's last part counts, and is looked
/// for there; else it is a path, from `folder` when it is relative.
pub fn program(word: &str, approved: Option<&Path>, folder: &Path) -> Result<PathBuf, &'static str> {
    if word.is_empty() || word.contains('\0') {
        return Err("names no program");
    }
    match approved {
        Some(approved) => match word.rsplit('/').next() {
            Some(name) if !name.is_empty() && !name.starts_with('.') => Ok(approved.join(name)),
            _ => Err("names no program"),
        },
        None => Ok(folder.join(word)),
    }
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Signal(i32),
    /// Its time was over, after so many seconds.
    Late(u64),
    /// Nobody can tell: the launcher has ended.
    Lost,
    /// It could not be started, and never can.
    Impossible(String),
    /// It could not be started just now.
    Short(String),
}

/// What that means for the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is delivered.
    Taken,
    /// It waits.
    Later(Why),
    /// It bounces.
    Never(Why),
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The enhanced status code (RFC 3463).
    pub status: &'static str,
    /// In words, with the program's name. One line, fit for a log and a bounce.
    pub text: String,
    /// The first lines of what the program said, in the same way fit to be shown.
    pub said: Vec<String>,
}

impl fmt::Display for Why {
    /// All of it in one line, for a log and for what the queue keeps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.text)?;
        self.said
            .iter()
            .enumerate()
            .try_for_each(|(index, line)| write!(f, "{}{line}", if index == 0 { ": " } else { " / " }))
    }
}

/// What sysexits.h means by a code: code, words, enhanced status.
const MEANINGS: &[(i32, &str, &str)] = &[
    (64, "it was called in a wrong way", "5.3.0"),
    (65, "it cannot use this message", "5.6.0"),
    (66, "a file that it needs is not there", "5.3.0"),
    (67, "it knows no such user", "5.1.1"),
    (68, "it knows no such host", "5.1.2"),
    (69, "something that it needs is not available", "5.3.0"),
    (70, "it found a fault of its own", "5.3.0"),
    (71, "the system refused it something", "5.3.0"),
    (72, "a file of the system is missing or wrong", "5.3.0"),
    (73, "it cannot make its file", "5.2.0"),
    (74, "reading or writing failed", "5.3.0"),
    (TRY_AGAIN, "it asks to be given the message later", "4.3.0"),
    (76, "its peer said something impossible", "5.5.0"),
    (77, "it may not do that", "5.7.0"),
    (78, "its configuration is wrong", "5.3.5"),
];

/// What the end of a program means that was called `name` and said `output`.
pub fn judge(name: &str, end: &End, output: &[u8]) -> Verdict {
    let name = printable(name.as_bytes());
    let lines = output.split(|&byte| byte == b'\n').map(|line| line.trim_ascii()).filter(|line| !line.is_empty());
    let said = lines.take(SAID_LINES).map(printable).collect();
    let why = |status, text: String| Why { status, text: format!("{name}: {text}"), said };
    match end {
        End::Exited(0) => Verdict::Taken,
        End::Exited(code) => {
            let known = MEANINGS.iter().find(|(known, ..)| known == code);
            let (meaning, status) =
                known.map_or((String::new(), "5.3.0"), |(_, words, status)| (format!(", {words}"), *status));
            let why = why(status, format!("the program ended with {code}{meaning}"));
            if *code == TRY_AGAIN { Verdict::Later(why) } else { Verdict::Never(why) }
        }
        End::Signal(signal) => Verdict::Never(why("5.3.0", format!("the program was ended by signal {signal}"))),
        End::Late(secs) => {
            Verdict::Later(why("4.3.0", format!("the program did not end within {secs} seconds and was killed")))
        }
        End::Lost => Verdict::Later(why("4.3.0", "the launcher ended before the program did".to_owned())),
        End::Impossible(text) => Verdict::Never(why("5.3.5", format!("the program cannot be run: {text}"))),
        End::Short(text) => Verdict::Later(why("4.3.0", format!("the program cannot be run just now: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_means_what_the_table_says() {
        assert_eq!(judge("x", &End::Exited(0), b"done\n"), Verdict::Taken);
        for (end, later, status, words) in [
            (End::Exited(75), true, "4.3.0", "ended with 75, it asks to be given"),
            (End::Exited(1), false, "5.3.0", "ended with 1"),
            (End::Exited(67), false, "5.1.1", "ended with 67, it knows no such user"),
            (End::Exited(127), false, "5.3.0", "ended with 127"),
            (End::Signal(9), false, "5.3.0", "signal 9"),
            (End::Late(60), true, "4.3.0", "60 seconds"),
            (End::Lost, true, "4.3.0", "launcher"),
            (End::Impossible("no such file".into()), false, "5.3.5", "cannot be run: no such file"),
            (End::Short("out of memory".into()), true, "4.3.0", "just now: out of memory"),
        ] {
            let (found, why) = match judge("x", &end, b"") {
                Verdict::Later(why) => (true, why),
                Verdict::Never(why) => (false, why),
                Verdict::Taken => panic!("{end:?}"),
            };
            assert_eq!((found, why.status), (later, status), "{end:?}");
            assert!(why.text.starts_with("x: the ") && why.text.contains(words), "{}", why.text);
        }
        for code in 64..=78 {
            assert!(MEANINGS.iter().any(|(known, ..)| *known == code), "sysexits.h has {code}");
        }
    }

    #[test]
    fn what_it_said_is_told_in_a_few_clean_lines() {
        let output = [&b"\n  no \x1b[2Jroom\r\n\n"[..], &b"line\n".repeat(50)[..]].concat();
        let Verdict::Never(why) = judge("a\nb", &End::Exited(1), &output) else { panic!() };
        assert_eq!((why.said.len(), why.said[0].as_str()), (SAID_LINES, "no ?[2Jroom"));
        assert_eq!(why.text, "a?b: the program ended with 1");
        assert!(why.to_string().starts_with("5.3.0 a?b: the program ended with 1: no ?[2Jroom / line / line"));
    }

    #[test]
    fn values_hold_no_line_end_no_nul_and_no_function() {
        assert_eq!(clean(b"ann@x.org"), b"ann@x.org");
        assert_eq!(clean(b"a\nb\0c\rd\x7f;`id` $(x) \xff"), b"a?b?c?d?;`id` $(x) \xff");
        assert_eq!(clean(b"() { :; }; id"), b"?) { :; }; id");
        assert_eq!(clean(&[b'x'; 9000]).len(), FACT_BYTES);
        let facts = Facts { sender: "a\nb@x".into(), client_address: "::1".into(), ..Facts::default() };
        assert_eq!(facts.values()[0], b"a?b@x");
        assert_eq!(facts.values()[6], b"::1");
    }

    #[test]
    fn what_the_queue_knows_is_what_the_program_is_told() {
        let came = "ESMTPSA from 192.0.2.7 as 192.0.2.9";
        let facts = Facts::of("bob@example.org", "ann+tea+x@example.test", Some('+'), "7K2F", came);
        let values = facts.values().map(|value| String::from_utf8(value).unwrap());
        assert_eq!(
            values,
            ["bob@example.org", "ann+tea+x@example.test", "ann", "tea+x", "example.test", "7K2F", "192.0.2.7"]
        );
        for (recipient, delimiter, local, extension) in
            [("ann+x@y", None, "ann+x", ""), ("+x@y", Some('+'), "+x", ""), ("ann@y", Some('+'), "ann", "")]
        {
            let facts = Facts::of("", recipient, delimiter, "x", "a local program [x]");
            assert_eq!((facts.local.as_str(), facts.extension.as_str()), (local, extension), "{recipient}");
            assert_eq!(facts.client_address, "");
        }
        assert_eq!(Facts::of("", "x", None, "x", "from [2001:db8::1]").client_address, "2001:db8::1");
    }

    #[test]
    fn a_program_is_a_path_or_a_name_in_the_approved_directory() {
        let (conf, approved) = (Path::new("/etc/dmail"), Path::new("/srv/robots"));
        for (word, free, bound) in [
            ("/usr/bin/vacation", Some("/usr/bin/vacation"), Some("/srv/robots/vacation")),
            ("bin/x", Some("/etc/dmail/bin/x"), Some("/srv/robots/x")),
            ("x", Some("/etc/dmail/x"), Some("/srv/robots/x")),
            ("/etc/../bin/..", Some("/etc/../bin/.."), None),
            ("x/", Some("/etc/dmail/x/"), None),
            (".x", Some("/etc/dmail/.x"), None),
            ("", None, None),
            ("a\0b", None, None),
        ] {
            assert_eq!(program(word, None, conf).ok().as_deref(), free.map(Path::new), "{word:?}");
            assert_eq!(program(word, Some(approved), conf).ok().as_deref(), bound.map(Path::new), "{word:?}");
        }
    }
}
