//! What lies where mail comes to rest, read by code that shares nothing with the server's: mbox files, files of dmail's
//! queue by their documented format, and the files of a sink.
//!
//! | what      | rules                                                                                                  |
//! |-----------|--------------------------------------------------------------------------------------------------------|
//! | mbox      | begins with a From_ line (`From`, sender, date), or is empty; another message begins at a From_ line behind a blank line, which belongs to neither; every line ends; there are no NULs |
//! | queue     | `ID`: envelope, blank line, Received-Bytes + Text-Bytes octets, `States of ID:`, states with a checksum each |
//! | sink      | any file below the folder: one message, whose header says in Delivered-To, X-Original-To or X-Envelope-To for whom |
//!
//! A message of ours says in its header `X-Loadtest: RUN SEQ LENGTH HASH`: RUN and HASH in 16 hexadecimal digits. Its body is
//! whole when, with LF line ends and without the `>` that somebody put before a `From ` at a line's beginning, it has LENGTH
//! bytes with that XXH3-64, and behind them nothing but line ends. The hash's seed is the XXH3-64 of RUN and SEQ, eight
//! bytes each, the lowest first. The file is read in pieces: neither a message nor a line is held in memory.
//!
//! What it does not do: lock, or change anything. It reads what has come to rest.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// A line is looked at in pieces of at most so many bytes.
const PIECE_BYTES: u64 = 64 * 1024;

/// What the header of a message of ours says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub run: u64,
    pub seq: u64,
    pub bytes: u64,
    pub hash: u64,
}

/// A message that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where in the file it begins: its From_ line, where there is one.
    pub at: u64,
    /// Of a message of ours.
    pub mark: Option<Mark>,
    /// What is wrong with its body; of others nothing is known.
    pub torn: Option<String>,
}

/// What an mbox file is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Message(Found),
    /// Not as an mbox file has to be, at that offset.
    Malformed {
        at: u64,
        why: &'static str,
    },
}

/// A piece of a line.
struct Piece<'a> {
    at: u64,
    bytes: &'a [u8],
    starts: bool,
    ends: bool,
}

struct Pieces<R: Read> {
    from: BufReader<R>,
    buffer: Vec<u8>,
    at: u64,
    ended: bool,
}

impl<R: Read> Pieces<R> {
    fn new(from: R) -> Pieces<R> {
        Pieces { from: BufReader::with_capacity(256 * 1024, from), buffer: Vec::new(), at: 0, ended: true }
    }

    fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        self.buffer.clear();
        let at = self.at;
        let count = (&mut self.from).take(PIECE_BYTES).read_until(b'\n', &mut self.buffer)?;
        if count == 0 {
            return Ok(None);
        }
        self.at += count as u64;
        let starts = self.ended;
        self.ended = self.buffer.ends_with(b"\n");
        Ok(Some(Piece { at, bytes: &self.buffer, starts, ends: self.ended }))
    }
}

/// A body as it goes by: see the page.
struct Body {
    mark: Mark,
    hash: Xxh3,
    bytes: u64,
    /// Something but line ends came behind the last byte that belongs to it.
    has_more: bool,
    /// A CR at the end of what came, which is half of a line end or is not.
    held: bool,
}

impl Body {
    fn new(mark: Mark) -> Body {
        let mut which = [0; 16];
        which[..8].copy_from_slice(&mark.run.to_le_bytes());
        which[8..].copy_from_slice(&mark.seq.to_le_bytes());
        Body { mark, hash: Xxh3::with_seed(xxh3_64(&which)), bytes: 0, has_more: false, held: false }
    }

    fn take(&mut self, piece: &[u8], starts: bool) {
        let mut rest = piece;
        if starts {
            let quotes = rest.iter().take_while(|&&byte| byte == b'>').count();
            if rest[quotes..].starts_with(b"From ") {
                rest = &rest[quotes..];
            }
        }
        if std::mem::take(&mut self.held) && rest.first() != Some(&b'\n') {
            self.put(b"\r");
        }
        while let Some(at) = memchr::memchr(b'\r', rest) {
            self.put(&rest[..at]);
            match rest.get(at + 1) {
                Some(b'\n') => {}
                Some(_) => self.put(b"\r"),
                None => self.held = true,
            }
            rest = &rest[at + 1..];
        }
        self.put(rest);
    }

    fn put(&mut self, bytes: &[u8]) {
        let wanted = usize::try_from(self.mark.bytes - self.bytes).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.hash.update(&bytes[..wanted]);
        self.bytes += wanted as u64;
        self.has_more |= bytes[wanted..].iter().any(|&byte| byte != b'\n');
    }

    fn torn(&self) -> Option<String> {
        if self.bytes < self.mark.bytes {
            return Some(format!("its body has {} of {} bytes", self.bytes, self.mark.bytes));
        }
        if self.hash.digest() != self.mark.hash {
            return Some(String::from("its body has other bytes"));
        }
        self.has_more.then(|| String::from("something stands behind its body"))
    }
}

/// A message as it goes by, line by line.
struct Reading {
    at: u64,
    in_body: bool,
    mark: Option<Mark>,
    /// None: in the header, or of a message that is none of ours.
    body: Option<Body>,
    /// A blank line of the body that may be the one between two messages.
    blank: bool,
    /// Said of each message once.
    nul: bool,
}

impl Reading {
    fn new(at: u64) -> Reading {
        Reading { at, in_body: false, mark: None, body: None, blank: false, nul: false }
    }

    fn take(&mut self, piece: &Piece<'_>) {
        let is_blank = piece.starts && matches!(piece.bytes, b"\n" | b"\r\n");
        if !self.in_body {
            if is_blank {
                self.in_body = true;
                self.body = self.mark.map(Body::new);
            } else if piece.starts && self.mark.is_none() {
                self.mark = mark(piece.bytes);
            }
            return;
        }
        let Some(body) = &mut self.body else { return };
        if std::mem::replace(&mut self.blank, is_blank) {
            body.take(b"\n", true);
        }
        if !is_blank {
            body.take(piece.bytes, piece.starts);
        }
    }

    fn found(mut self, is_mbox: bool) -> Found {
        if self.blank
            && !is_mbox
            && let Some(body) = &mut self.body
        {
            body.take(b"\n", true);
        }
        let torn = match (&self.mark, &self.body) {
            (Some(_), None) => Some(String::from("it has no body")),
            (_, body) => body.as_ref().and_then(Body::torn),
        };
        Found { at: self.at, mark: self.mark, torn }
    }
}

/// What such a header line says.
pub fn mark(line: &[u8]) -> Option<Mark> {
    let name = line.get(..11).filter(|name| name.eq_ignore_ascii_case(b"x-loadtest:"))?;
    let line = std::str::from_utf8(&line[name.len()..]).ok()?;
    let mut words = line.split_ascii_whitespace();
    let hex = |word: &str| u64::from_str_radix(word, 16).ok().filter(|_| word.len() == 16);
    let run = hex(words.next()?)?;
    let (seq, bytes) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let mark = Mark { run, seq, bytes, hash: hex(words.next()?)? };
    words.next().is_none().then_some(mark)
}

/// Whether that is a From_ line: `From SENDER Www Mmm dd hh:mm[:ss] [zone] yyyy`.
fn is_from(line: &[u8]) -> bool {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Some(rest) = line.strip_prefix(b"From ") else { return false };
    let rest = String::from_utf8_lossy(rest);
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let digits = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    (0..words.len()).any(|first| match &words[first..] {
        [day, month, date, time, rest @ ..] => {
            DAYS.contains(day)
                && MONTHS.contains(month)
                && digits(date)
                && time.split(':').count() >= 2
                && time.split(':').all(digits)
                && rest.iter().any(|word| word.len() == 4 && digits(word))
        }
        _ => false,
    })
}

/// Goes through an mbox file; gives its size.
pub fn mbox(path: &Path, mut take: impl FnMut(Part)) -> io::Result<u64> {
    let mut pieces = Pieces::new(File::open(path)?);
    let mut reading: Option<Reading> = None;
    let (mut after_blank, mut ended) = (true, true);
    while let Some(piece) = pieces.next()? {
        let mut bad = |why| take(Part::Malformed { at: piece.at, why });
        ended = piece.ends;
        if piece.starts && piece.bytes.starts_with(b"From ") {
            if is_from(piece.bytes) && piece.ends {
                if !after_blank {
                    bad("a From_ line that no blank line stands before");
                }
                if let Some(last) = reading.replace(Reading::new(piece.at)) {
                    take(Part::Message(last.found(true)));
                }
                after_blank = false;
                continue;
            }
            if after_blank {
                bad("a line that begins with `From ` behind a blank one, and is no From_ line");
            }
        }
        match &mut reading {
            None if piece.at == 0 => bad("it does not begin with a From_ line"),
            None => {}
            Some(reading) => {
                if !reading.nul
                    && let Some(nul) = memchr::memchr(0, piece.bytes)
                {
                    reading.nul = true;
                    take(Part::Malformed { at: piece.at + nul as u64, why: "a NUL" });
                }
                reading.take(&piece);
            }
        }
        after_blank = piece.starts && matches!(piece.bytes, b"\n" | b"\r\n");
    }
    if !ended {
        take(Part::Malformed { at: pieces.at, why: "its last line has no end" });
    }
    if let Some(last) = reading {
        take(Part::Message(last.found(true)));
    }
    Ok(pieces.at)
}

/// A message in the queue.
#[derive(Debug, PartialEq, Eq)]
pub struct Queued {
    pub message: Found,
    /// Whom it waits for.
    pub waits_for: Vec<String>,
}

/// Reads a file of dmail's queue. `Err` of the inner one: what is wrong with it.
pub fn queue_file(path: &Path) -> io::Result<Result<Queued, &'static str>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut file = BufReader::new(File::open(path)?);
    let line = |file: &mut BufReader<File>| -> io::Result<Option<String>> {
        let mut line = Vec::new();
        file.take(PIECE_BYTES).read_until(b'\n', &mut line)?;
        Ok((line.pop() == Some(b'\n')).then(|| String::from_utf8_lossy(&line).into_owned()))
    };
    let (mut received, mut text, mut at) = (None, None, 0);
    // Each recipient, and whether it waits.
    let mut recipients: Vec<(String, bool)> = Vec::new();
    let mut is_named = false;
    loop {
        let Some(said) = line(&mut file)? else { return Ok(Err("its envelope has no end")) };
        at += said.len() as u64 + 1;
        if said.is_empty() {
            break;
        }
        let Some((key, value)) = said.split_once(": ") else { return Ok(Err("its envelope has a line that is none")) };
        match key {
            "Id" => is_named = value == name,
            "Received-Bytes" => received = value.parse::<u64>().ok(),
            "Text-Bytes" => text = value.parse::<u64>().ok(),
            "To" => match value.split(' ').nth(2) {
                Some(address) => recipients.push((plain(address), true)),
                None => return Ok(Err("its envelope has a recipient that is none")),
            },
            _ => {}
        }
    }
    let (Some(received), Some(text)) = (received, text) else {
        return Ok(Err("its envelope does not say how long it is"));
    };
    if !is_named || recipients.is_empty() {
        return Ok(Err("its envelope is not its own"));
    }
    let mut pieces = Pieces::new((&mut file).take(received + text));
    let mut reading = Reading::new(at);
    while let Some(piece) = pieces.next()? {
        reading.take(&piece);
    }
    if pieces.at < received + text {
        return Ok(Err("it is shorter than it says"));
    }
    drop(pieces);
    // The reader above has read ahead: begin anew behind the text.
    let mut states = File::open(path)?;
    io::Seek::seek(&mut states, io::SeekFrom::Start(at + received + text))?;
    let mut states = BufReader::new(states);
    let marked = line(&mut states)?.is_some_and(|said| said.is_empty())
        && line(&mut states)?.is_some_and(|said| said == format!("States of {name}:"));
    if !marked {
        return Ok(Err("its text does not end where it says"));
    }
    for said in states.split(b'\n') {
        // Torn ones do not check, and say nothing.
        let said = said?;
        let said = String::from_utf8_lossy(&said);
        let Some((said, sum)) = said.rsplit_once(" sum=") else { continue };
        if u64::from_str_radix(sum, 16).ok() != Some(xxh3_64_with_seed(said.as_bytes(), xxh3_64(name.as_bytes()))) {
            continue;
        }
        let mut words = said.split(' ').skip(1);
        let (Some(who), Some(stage)) = (words.next(), words.next()) else { continue };
        let waits = matches!(stage, "waiting" | "deferred" | "held");
        for run in who.split(',') {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else { continue };
            for number in first.max(1)..=last.min(recipients.len()) {
                recipients[number - 1].1 = waits;
            }
        }
    }
    let waits_for = recipients.into_iter().filter(|(_, waits)| *waits).map(|(address, _)| address).collect();
    Ok(Ok(Queued { message: reading.found(false), waits_for }))
}

/// A word without its `%XX`.
fn plain(word: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), word.as_bytes());
    while let [first, more @ ..] = rest {
        let code = || u8::from_str_radix(std::str::from_utf8(more.get(..2)?).ok()?, 16).ok();
        match if *first == b'%' { code() } else { None } {
            Some(byte) => (bytes.push(byte), rest = &more[2..]).1,
            None => (bytes.push(*first), rest = more).1,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A file of a sink: the message, and for whom it says it is.
pub fn sink_file(path: &Path) -> io::Result<(Found, Vec<String>)> {
    const NAMES: [&str; 3] = ["delivered-to:", "x-original-to:", "x-envelope-to:"];
    let mut pieces = Pieces::new(File::open(path)?);
    let (mut reading, mut who) = (Reading::new(0), Vec::new());
    while let Some(piece) = pieces.next()? {
        if piece.at == 0 && is_from(piece.bytes) {
            continue;
        }
        if !reading.in_body && piece.starts && piece.ends {
            let line = String::from_utf8_lossy(piece.bytes);
            let name =
                NAMES.iter().find(|name| line.get(..name.len()).is_some_and(|word| word.eq_ignore_ascii_case(name)));
            if let Some(name) = name {
                let address = line[name.len()..].trim().trim_matches(['<', '>']).to_owned();
                if !who.contains(&address) {
                    who.push(address);
                }
            }
        }
        reading.take(&piece);
    }
    Ok((reading.found(false), who))
}

/// All files below a folder, in the order of their names.
pub fn files(dir: &Path, take: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files(&entry.path(), take)?;
        } else if kind.is_file() {
            take(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "From a@b.test Mon Jan  5 10:00:00 2026\n";

    fn letter(seq: u64, body: &str) -> String {
        let mut which = 0xaa_u64.to_le_bytes().to_vec();
        which.extend(seq.to_le_bytes());
        let hash = xxh3_64_with_seed(body.as_bytes(), xxh3_64(&which));
        format!("Received: x\nX-Loadtest: 00000000000000aa {seq} {} {hash:016x}\nSubject: s\n\n{body}", body.len())
    }

    fn parts(text: impl AsRef<[u8]>) -> Vec<Part> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ann");
        fs::write(&path, text).unwrap();
        let mut parts = Vec::new();
        mbox(&path, |part| parts.push(part)).unwrap();
        parts
    }

    fn told(text: impl AsRef<[u8]>) -> Vec<String> {
        parts(text)
            .into_iter()
            .map(|part| match part {
                Part::Malformed { at, why } => format!("{at}: {why}"),
                Part::Message(Found { mark, torn, .. }) => {
                    format!(
                        "{}{}",
                        mark.map_or(0, |mark| mark.seq),
                        torn.map(|why| format!(" {why}")).unwrap_or_default()
                    )
                }
            })
            .collect()
    }

    #[test]
    fn whole_messages_are_whole_whatever_their_line_ends() {
        let (one, two) = (letter(1, "a\n\n\nb\nFrom here\n.dot\n"), letter(2, ""));
        assert_eq!(told(format!("{FROM}{one}\n{FROM}{two}\n")), ["1", "2"]);
        // The last blank line is missing: still whole.
        assert_eq!(told(format!("{FROM}{one}\n{FROM}{two}")), ["1", "2"]);
        assert_eq!(told(format!("{FROM}{one}\n{FROM}{two}\n").replace('\n', "\r\n")), ["1", "2"]);
        assert_eq!(told(""), Vec::<String>::new());
        // And with From quoted.
        assert_eq!(told(format!("{FROM}{one}\n").replace("\nFrom here", "\n>>From here")), ["1"]);
        assert_eq!(
            told(format!("{FROM}{one}\n").replace("\nFrom here", "\n>>from here")),
            ["1 its body has other bytes"]
        );
    }

    #[test]
    fn letters_of_this_program_are_read_by_this_reader() {
        use crate::letter::{Heading, Letter, Stamp, State};
        let heading = Heading { from: "a@b.test", to: "ann@b.test", written_secs: 1_767_610_800, state: State::Sent };
        for (seq, bytes) in [(1, 0), (2, 5_000), (3, 40_000), (4, 300_000)] {
            let mut text = Vec::new();
            Letter::new(Stamp { id: 0xaa, seq }, bytes, &heading).push_to(&mut text);
            let file = [FROM.as_bytes(), &text, b"\n"].concat();
            assert_eq!(told(&file), [seq.to_string()]);
            let mut cut = file.clone();
            cut.remove(file.len() - 30);
            assert_eq!(told(&cut).len(), 1);
            assert!(told(&cut)[0].contains("its body has"), "{:?}", told(&cut));
        }
    }

    #[test]
    fn a_line_of_any_length_is_a_line() {
        for length in [65_534, 65_535, 65_536, 65_537, 131_072, 200_000] {
            let one = letter(1, &format!("{}\nend\n", "x".repeat(length)));
            assert_eq!(told(format!("{FROM}{one}\n").replace('\n', "\r\n")), ["1"], "{length}");
        }
    }

    #[test]
    fn a_byte_less_or_other_is_told() {
        let one = letter(1, "abc\n");
        assert_eq!(told(format!("{FROM}{}\n", one.replace("abc", "ab"))), ["1 its body has 3 of 4 bytes"]);
        assert_eq!(told(format!("{FROM}{}\n", one.replace("abc", "abc\nd"))), ["1 something stands behind its body"]);
        assert_eq!(told(format!("{FROM}{}\n", one.replace("abc", "abd"))), ["1 its body has other bytes"]);
    }

    #[test]
    fn what_no_mbox_file_has_is_told_with_its_place() {
        let one = letter(1, "abc\n");
        assert_eq!(
            told(format!("x\n{FROM}{one}\n")),
            ["0: it does not begin with a From_ line", "2: a From_ line that no blank line stands before", "1"]
        );
        let glued = format!("{FROM}{one}{FROM}{}\n", letter(2, "d\n"));
        let at = FROM.len() + one.len();
        assert_eq!(
            told(glued),
            [format!("{at}: a From_ line that no blank line stands before"), "1".into(), "2".into()]
        );
        let nul = told(format!("{FROM}{}\n", one.replace("abc", "a\0c")));
        assert_eq!(nul, [format!("{}: a NUL", FROM.len() + one.len() - 3), "1 its body has other bytes".into()]);
        let cut = format!("{FROM}{}", &one[..one.len() - 1]);
        assert_eq!(
            told(&cut),
            [format!("{}: its last line has no end", cut.len()), "1 its body has 3 of 4 bytes".into()]
        );
        assert_eq!(told(format!("{FROM}{one}\nFrom nowhere\n")).len(), 2);
    }

    fn queue_text(name: &str, states: &[&str]) -> String {
        let (received, text) = ("Received: y\n", letter(7, "abc\n"));
        let mut file = format!(
            "DMail-Queue: 1\nId: {name}\nAt: 1 x\nSender: \nReceived-Bytes: {}\nText-Bytes: {}\nRecipients: 2\n\
             To: 1 mailbox ann@x.test\nTo: 2 remote k%20m@far.test notify=failure\n\n{received}{text}\nStates of {name}:\n",
            received.len(),
            text.len()
        );
        for state in states {
            let said = format!("State: {state}");
            let sum = xxh3_64_with_seed(said.as_bytes(), xxh3_64(name.as_bytes()));
            file += &format!("{said} sum={sum:016x}\n");
        }
        file
    }

    fn queued(text: &str) -> Result<Queued, &'static str> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("7K");
        fs::write(&path, text).unwrap();
        queue_file(&path).unwrap()
    }

    #[test]
    fn a_queue_file_tells_who_still_waits() {
        let all = queued(&queue_text("7K", &[])).unwrap();
        assert_eq!(all.waits_for, ["ann@x.test", "k m@far.test"]);
        assert_eq!((all.message.mark.unwrap().seq, all.message.torn), (7, None));
        assert_eq!(queued(&queue_text("7K", &["1 delivered at=1"])).unwrap().waits_for, ["k m@far.test"]);
        assert_eq!(
            queued(&queue_text("7K", &["1-2 deferred at=1 next=2", "1-2 delivered at=2"])).unwrap().waits_for,
            [""; 0]
        );
        // What does not check says nothing.
        let torn = queue_text("7K", &["1 delivered at=1"]).replace("at=1 sum", "at=2 sum");
        assert_eq!(queued(&torn).unwrap().waits_for.len(), 2);
    }

    #[test]
    fn a_queue_file_that_is_none_is_told() {
        let good = queue_text("7K", &[]);
        assert!(queued(&good[..good.len() - 5]).is_err());
        assert!(queued(&good.replace("Id: 7K", "Id: 7L")).is_err());
        assert!(queued(&good.replace("Text-Bytes: ", "Text-Bytes: 9")).is_err());
        assert!(queued("").is_err());
    }

    #[test]
    fn a_file_of_a_sink_tells_for_whom_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.eml");
        fs::write(&path, format!("Delivered-To: <k@far.test>\n{}", letter(3, "abc\n\n"))).unwrap();
        let (found, who) = sink_file(&path).unwrap();
        assert_eq!((found.mark.unwrap().seq, found.torn, who), (3, None, vec![String::from("k@far.test")]));
    }
}
