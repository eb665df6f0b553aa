//! `tellsmtp trace`: what the logs say about a message, or about an address, and what the queue knows.
//!
//! **A family.** What comes of a message has its id and something behind it: `b2` is a bounce of it, `w2` says that it takes long, `s2` that
//! it arrived, `r2` goes on in a recipient's place, and all of that again (`K3J9X0QW2BZ7r1b3`). So whoever asks for one of them is
//! shown the way of all, in the order in which things happened: by the twelve letters that they have in common.
//!
//! The logs are read twice, the oldest first: first for the ids of messages in lines that name what is asked for, then for the
//! lines of all of their families. So a recipient's trace has the line in which the message was accepted, which names its sender
//! only. Of memory it takes the ids, at most [`IDS`] families and as many members.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::logs::{files, lines};
use super::{sendlog, tell};
use crate::control::queue::ID_LETTERS;
use crate::control::{self, Teller};
use crate::program::options::{DONE, FAILED};
use crate::program::stats::configured;
use crate::rules::logs::LogFile;
use crate::store::queue::ID_BYTES;

/// Messages that are followed, with what came of them; of an address with more, the newest.
const IDS: usize = 1000;
/// Lines that are shown.
const LINES: usize = 10_000;
/// Messages that the queue is asked about.
const ASKED: usize = 20;
/// The most that stands behind the letters of an id.
const MORE_LETTERS: usize = ID_BYTES - ID_LETTERS;
/// What can come of a message: a bounce, a report of delay or of success, another that goes on in a recipient's place.
const KINDS: &[u8] = b"bwsr";

/// Runs the verb; gives its exit code: 1 when nothing was found.
pub fn run(config: &Path, what: &str, json: bool) -> u8 {
    let settings = match configured(config) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("tellsmtp: {why}");
            return FAILED;
        }
    };
    let what = what.trim_matches(['<', '>']);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let traced = trace(&settings.log_path, what, json, &mut out);
    let traced = match traced {
        Ok(traced) => traced,
        Err(why) => {
            eprintln!("tellsmtp: {why}");
            return FAILED;
        }
    };
    let mut queue = Vec::new();
    for id in traced.asked() {
        let words = ["queue".to_owned(), "show".to_owned(), id.clone()];
        let Ok(parsed) = control::parse(Teller::Smtp, &words) else { continue };
        let words = if json { [&words[..], &["--json".to_owned()]].concat() } else { words.to_vec() };
        match tell(&settings, Teller::Smtp, &parsed, &words) {
            Ok((true, text)) => queue.push(text),
            // It has left the queue.
            Ok((false, _)) => {}
            Err(why) => {
                eprintln!("tellsmtp: the queue was not asked: {why}");
                break;
            }
        }
    }
    let found = traced.shown > 0 || !queue.is_empty();
    // That nobody reads on is no failure.
    let _ = finish(&traced, &queue, json, &mut out);
    if traced.left_out > 0 {
        eprintln!(
            "tellsmtp: lines not shown, of {} that were found: {}",
            traced.shown + traced.left_out,
            traced.left_out
        );
    }
    if !found {
        eprintln!("tellsmtp: {}: nothing in the logs that there are", crate::text::printable::visible(what));
        return FAILED;
    }
    DONE
}

fn finish(traced: &Traced, queue: &[String], json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        let queue: Vec<Value> = queue.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
        writeln!(out, "\n],\"ids\":{},\"queue\":{}}}", json!(traced.ids), json!(queue))?;
    } else {
        for text in queue {
            write!(out, "\nin the queue:\n{text}")?;
        }
    }
    out.flush()
}

/// What was found.
#[derive(Debug, Default)]
struct Traced {
    /// The letters that families have in common, in the order in which they were named first.
    roots: Vec<String>,
    /// All members that were named, in that order.
    ids: Vec<String>,
    shown: usize,
    left_out: usize,
}

impl Traced {
    /// Whom the queue is asked about: the newest, and those that no line names.
    fn asked(&self) -> impl Iterator<Item = &String> {
        let unnamed = self.roots.iter().filter(|root| !self.ids.contains(root));
        unnamed.rev().chain(self.ids.iter().rev()).take(ASKED)
    }
}

/// Shows the lines; with `json` the beginning of an object.
fn trace(folder: &Path, what: &str, json: bool, out: &mut dyn Write) -> Result<Traced, String> {
    let mut traced = Traced::default();
    let upper = what.to_ascii_uppercase();
    let mut known = BTreeSet::new();
    let mut is_address = true;
    if is_id(upper.as_bytes()) {
        let root = upper[..ID_LETTERS].to_owned();
        known.insert(root.clone());
        traced.roots.push(root);
        is_address = false;
    }
    let files = files(folder, LogFile::Smtp);
    let read = |each: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
        files.iter().try_for_each(|path| lines(path, each).map_err(|error| format!("{}: {error}", path.display())))
    };
    if is_address {
        read(&mut |line| {
            if names(line, what.as_bytes()) {
                for id in words(line).filter(|word| is_id(word)) {
                    let root = root_of(id);
                    if known.insert(root.clone()) {
                        traced.roots.push(root);
                    }
                }
                while traced.roots.len() > IDS {
                    known.remove(&traced.roots.remove(0));
                }
            }
            Ok(())
        })?;
    }
    let mut members = BTreeSet::new();
    let mut nobody_reads = false;
    if json {
        nobody_reads = write!(out, "{{\"lines\":[").is_err();
    }
    read(&mut |line| {
        let mut of_message = false;
        for id in words(line).filter(|word| is_id(word) && known.contains(&root_of(word))) {
            of_message = true;
            let id = String::from_utf8_lossy(id).into_owned();
            if members.len() < IDS && members.insert(id.clone()) {
                traced.ids.push(id);
            }
        }
        if nobody_reads || !(of_message || names(line, what.as_bytes())) {
            return Ok(());
        }
        if traced.shown == LINES {
            traced.left_out += 1;
            return Ok(());
        }
        let written = match json {
            true => write!(out, "{}\n{}", if traced.shown > 0 { "," } else { "" }, sendlog::parsed(line)),
            false => out.write_all(line).and_then(|()| out.write_all(b"\n")),
        };
        nobody_reads = written.is_err();
        traced.shown += 1;
        Ok(())
    })?;
    Ok(traced)
}

/// Runs of letters and digits.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

/// What a family has in common, of an id.
fn root_of(id: &[u8]) -> String {
    String::from_utf8_lossy(&id[..ID_LETTERS]).into_owned()
}

/// Whether it looks like the id of a message: capitals and digits without I, L, O and U; and behind them, as often as there is room, a
/// letter that says what came of it, in any case, and a number.
fn is_id(word: &[u8]) -> bool {
    let letter = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'Z') && !b"ILOU".contains(byte);
    let (least, most) = (ID_LETTERS, ID_LETTERS + MORE_LETTERS);
    if !(least..=most).contains(&word.len()) || !word[..least].iter().all(letter) {
        return false;
    }
    let mut rest = &word[least..];
    while let [kind, behind @ ..] = rest {
        let digits = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !KINDS.contains(&kind.to_ascii_lowercase()) || digits == 0 {
            return false;
        }
        rest = &behind[digits..];
    }
    true
}

/// Whether an address stands in the line, as a whole, in any case.
fn names(line: &[u8], address: &[u8]) -> bool {
    let part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b".-_+@%=".contains(byte));
    !address.is_empty()
        && line.windows(address.len()).enumerate().any(|(at, found)| {
            let before = at.checked_sub(1).and_then(|at| line.get(at));
            // A dot or another sign behind it may end a sentence.
            let behind = &line[at + address.len()..];
            let goes_on = part(behind.first()) && behind.get(1).is_some_and(u8::is_ascii_alphanumeric)
                || behind.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'@');
            found.eq_ignore_ascii_case(address) && !part(before) && !goes_on
        })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ONE: &str = "0123456789AB";
    const TWO: &str = "ZYXWVTSRQPNM";

    fn traced(old: &str, new: &str, what: &str, json: bool) -> (Traced, String) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dsmtp1.log"), old).unwrap();
        fs::write(folder.path().join("dsmtp.log"), new).unwrap();
        let mut out = Vec::new();
        let found = trace(folder.path(), what, json, &mut out).unwrap();
        finish(&found, &[], json, &mut out).unwrap();
        (found, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_recipient_has_the_lines_of_its_messages_through_all_files() {
        let old = format!(
            "T INFO  {ONE}: accepted from <ann@a.test>\nT INFO  {TWO}: accepted from <eve@a.test>\nT INFO  something else\n"
        );
        let new = format!("T INFO  {ONE}: delivered to <Bob@b.test>\nT INFO  {TWO}: delivered to <xbob@b.test>\n");
        let (found, text) = traced(&old, &new, "bob@b.test", false);
        assert_eq!(
            text,
            format!("T INFO  {ONE}: accepted from <ann@a.test>\nT INFO  {ONE}: delivered to <Bob@b.test>\n")
        );
        assert_eq!((found.ids, found.shown, found.left_out), (vec![ONE.to_owned()], 2, 0));
        let (found, text) = traced(&old, &new, &TWO.to_lowercase(), true);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((found.shown, &value["ids"], &value["queue"]), (2, &json!([TWO]), &json!([])));
        assert_eq!(value["lines"][1]["text"], format!("{TWO}: delivered to <xbob@b.test>"));
        let (found, _) = traced(&old, "", &TWO.to_lowercase(), false);
        assert_eq!(found.asked().collect::<Vec<_>>(), [TWO]);
        let (found, text) = traced(&old, &new, "nobody@b.test", true);
        assert!(found.shown == 0 && serde_json::from_str::<Value>(&text).unwrap()["lines"] == json!([]));
    }

    #[test]
    fn what_came_of_a_message_is_followed_both_ways() {
        let text = format!(
            "T INFO  {ONE}: accepted from <ann@a.test>\nT INFO  {TWO}: accepted\nT INFO  {ONE}: goes on as {ONE}r1\n\
             T INFO  {ONE}r1: to mx.b.test: 250 ok\nT WARN  {ONE}r1: ann@a.test is told by {ONE}r1b2\n\
             T INFO  {ONE}r1b2: delivered to <ann@a.test>\nT INFO  {TWO}s1: delivered\n"
        );
        let wanted = [ONE.to_owned(), format!("{ONE}r1"), format!("{ONE}r1b2")];
        for what in [ONE.to_owned(), format!("{ONE}R1b2").to_lowercase(), format!("{ONE}r1"), "ann@a.test".to_owned()] {
            let (found, shown) = traced("", &text, &what, false);
            assert_eq!((found.ids, found.shown), (wanted.to_vec(), 5), "{what}");
            assert!(!shown.contains(TWO), "{what}: {shown}");
        }
        let (found, _) = traced("", &text, &format!("{TWO}b9"), false);
        assert_eq!(found.asked().collect::<Vec<_>>(), [&format!("{TWO}s1"), TWO]);
    }

    #[test]
    fn an_address_is_found_as_a_whole() {
        for (line, found) in [
            ("to <bob@b.test>: no", true),
            ("to BOB@B.TEST.", true),
            ("bob@b.test", true),
            ("bob@b.test, eve", true),
            ("xbob@b.test", false),
            ("x.bob@b.test", false),
            ("bob@b.test.org", false),
            ("bob@b.tests", false),
            ("bob@b.test-x", false),
        ] {
            assert_eq!(names(line.as_bytes(), b"bob@b.test"), found, "{line}");
        }
        assert!(!names(b"anything", b""));
    }

    #[test]
    fn ids_are_told_from_words() {
        for id in [ONE, TWO, "0123456789ABb1", "0123456789ABr65536b2s3", "0123456789ABR1"] {
            assert!(is_id(id.as_bytes()), "{id}");
        }
        let far = "0123456789AB".to_owned() + &"r1".repeat(15);
        for word in
            ["0123456789A", "AUTHENTICATE", "0123456789ab", "0123456789A-", "", "0123456789ABx1", "0123456789ABb", &far]
        {
            assert!(!is_id(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn what_is_shown_and_followed_has_bounds() {
        let mut text = String::new();
        for n in 0..LINES + 5 {
            text += &format!("T INFO  {n:012} from <a@b>\n");
        }
        let (found, shown) = traced(&text, "", "a@b", false);
        assert_eq!((found.shown, found.left_out, found.ids.len()), (LINES, 5, IDS));
        assert_eq!(shown.lines().count(), LINES);
        assert_eq!(found.ids.last(), Some(&format!("{:012}", LINES + 4)));
    }
}
