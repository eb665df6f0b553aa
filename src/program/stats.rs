//! `tellpop stats`: what the statistics files come to, a line a user. Reads the files itself; no server is needed.
//!
//! A file is read in pieces and a line is forgotten when it is counted: memory grows with the users in the files and with
//! nothing else. Lines that are not as they should be are counted and told on standard error, with the place of the first.
//! A file that cannot be read ends it, before anything is printed: half a bill is a wrong bill.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use memchr::memchr;
use serde_json::json;

use super::options::{self, DONE, FAILED, USAGE};
use crate::rules::stats::{Key, Sum, Tally, is_file_name, shown};
use crate::settings::{self, Settings};

const USAGE_TEXT: &str = "tellpop stats [--sort KEY] [--top N] [--json] [FILE ...]

Sums up statistics files, a line a user: connections, messages and bytes sent, seconds connected, and seconds from one
connection to the next on the average. A FILE may be a directory, for the files dpopmmmdd.stats in it, or - for standard
input; without any it is the stats_path of the configuration.";

/// Bytes read at a time. A line that does not fit is a bad one.
pub(super) const PIECE: usize = 256 * 1024;

/// Runs the verb with what follows it on the command line; `config` is used to find stats_path. Gives the exit code.
pub fn run(config: &Path, args: &[String]) -> u8 {
    let read = options::read(args, USAGE_TEXT, |options| {
        options.optopt("", "sort", "user, connections, messages, bytes, secs or between (default: user)", "KEY");
        options.optopt("", "top", "the first N users only", "N");
        options.optflag("", "json", "as JSON");
    });
    let (common, matches) = match read {
        Ok(read) => read,
        Err(code) => return code,
    };
    let asked = matches.opt_str("sort").unwrap_or_else(|| "user".to_owned());
    let Some((_, key)) = Key::ALL.into_iter().find(|(name, _)| *name == asked) else {
        let names = Key::ALL.map(|(name, _)| name).join(", ");
        eprintln!("tellpop: --sort takes one of {names}, not `{}`", shown(asked.as_bytes()));
        return USAGE;
    };
    let top = match matches.opt_str("top").map(|text| text.parse()) {
        None => usize::MAX,
        Some(Ok(top)) => top,
        Some(Err(_)) => {
            eprintln!("tellpop: --top takes a number");
            return USAGE;
        }
    };
    let config = if common.config_named { &common.config } else { config };
    let mut named: Vec<PathBuf> = matches.free.iter().map(PathBuf::from).collect();
    let result = folder_of(config, &mut named).and_then(|()| files(named)).and_then(|files| count(&files));
    let Counted { tally, files, complaint } = match result {
        Ok(counted) => counted,
        Err(why) => {
            eprintln!("tellpop: {why}");
            return FAILED;
        }
    };
    if let Some(complaint) = complaint {
        eprintln!("tellpop: {complaint}");
    }
    let mut order = tally.sorted(key);
    order.truncate(top);
    let mut out = BufWriter::new(io::stdout().lock());
    let print = if matches.opt_present("json") { print_json } else { print_text };
    // That nobody reads on (`tellpop stats | head`) is no failure.
    let _ = print(&mut out, &tally, &order, files).and_then(|()| out.flush());
    DONE
}

/// When nothing was named: what the configuration names.
fn folder_of(config: &Path, named: &mut Vec<PathBuf>) -> Result<(), String> {
    if !named.is_empty() {
        return Ok(());
    }
    let settings = configured(config)?;
    let unset = || format!("{}: stats_path is not set: set it, or name the files", config.display());
    named.push(settings.stats_path.ok_or_else(unset)?);
    Ok(())
}

/// What the configuration says. Refuses with its first complaint.
pub(super) fn configured(config: &Path) -> Result<Settings, String> {
    let loaded = settings::load(config);
    loaded.settings.ok_or_else(|| {
        let first = loaded.complaints.first().map(ToString::to_string).unwrap_or_default();
        format!("{first}\n`dmail check -i {}` says more", config.display())
    })
}

/// What was named, with the files of a directory in its place.
fn files(named: Vec<PathBuf>) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path);
            continue;
        }
        let trouble = |error: io::Error| format!("{}: {error}", path.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&path).map_err(trouble)? {
            let entry = entry.map_err(trouble)?;
            let regular = fs::metadata(entry.path()).is_ok_and(|about| about.is_file());
            if regular && entry.file_name().to_str().is_some_and(is_file_name) {
                found.push(entry.path());
            }
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// What came of reading.
struct Counted {
    tally: Tally,
    files: usize,
    /// What to say about bad lines.
    complaint: Option<String>,
}

fn count(files: &[PathBuf]) -> Result<Counted, String> {
    let mut tally = Tally::new(RandomState::new().hash_one(0));
    let mut buffer = vec![0; PIECE];
    let mut first_bad = None;
    for path in files {
        let trouble = |error: io::Error| format!("{}: {error}; nothing was counted", path.display());
        let before = tally.read();
        if path.as_os_str() == OsStr::new("-") {
            feed(&mut tally, &mut io::stdin().lock(), &mut buffer).map_err(trouble)?;
        } else {
            File::open(path).and_then(|mut file| feed(&mut tally, &mut file, &mut buffer)).map_err(trouble)?;
        }
        if let (None, Some(line)) = (&first_bad, tally.first_bad()) {
            first_bad = Some(format!("{}:{}", shown(path.as_os_str().as_encoded_bytes()), line - before));
        }
    }
    let complaint = first_bad
        .map(|place| format!("lines that are not as they should be, not counted: {} (first: {place})", tally.bad()));
    Ok(Counted { tally, files: files.len(), complaint })
}

/// What counts lines.
pub(super) trait Counter {
    /// Counts the whole lines that `bytes` begin with; gives how many bytes they are.
    fn feed(&mut self, bytes: &[u8]) -> usize;
    /// A line that cannot be counted.
    fn reject(&mut self);
    /// Lines read, also bad ones.
    fn read(&self) -> u64;
    /// Which of them was the first bad one; the first line is 1.
    fn first_bad(&self) -> Option<u64>;
}

impl Counter for Tally {
    fn feed(&mut self, bytes: &[u8]) -> usize {
        Tally::feed(self, bytes)
    }

    fn reject(&mut self) {
        Tally::reject(self);
    }

    fn read(&self) -> u64 {
        Tally::read(self)
    }

    fn first_bad(&self) -> Option<u64> {
        Tally::first_bad(self)
    }
}

/// Counts all that `source` gives.
pub(super) fn feed(tally: &mut impl Counter, source: &mut impl Read, buffer: &mut [u8]) -> io::Result<()> {
    let (mut held, mut skipping) = (0, false);
    loop {
        let got = match source.read(&mut buffer[held..]) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if got == 0 {
            if held > 0 {
                tally.reject();
            }
            return Ok(());
        }
        held += got;
        let mut begin = 0;
        if skipping {
            match memchr(b'\n', &buffer[..held]) {
                Some(end) => (begin, skipping) = (end + 1, false),
                None => begin = held,
            }
        }
        begin += tally.feed(&buffer[begin..held]);
        buffer.copy_within(begin..held, 0);
        held -= begin;
        if held == buffer.len() {
            tally.reject();
            (held, skipping) = (0, true);
        }
    }
}

/// The columns behind the user's name: the sum's numbers as text.
fn columns(sum: &Sum) -> [String; 5] {
    let between = sum.between_secs().map_or("-".to_owned(), |secs| secs.to_string());
    [sum.connections.to_string(), sum.messages.to_string(), sum.bytes.to_string(), sum.secs.to_string(), between]
}

const HEADINGS: [&str; 5] = ["connections", "messages", "bytes", "secs", "between_secs"];
/// A name that is longer moves the columns of its line.
const NAME_WIDTH: usize = 40;

fn print_text(out: &mut dyn Write, tally: &Tally, order: &[u32], files: usize) -> io::Result<()> {
    let total = columns(&tally.total());
    // No number is wider than the total's, except the time between.
    let mut widths: [usize; 5] = std::array::from_fn(|at| total[at].len().max(HEADINGS[at].len()));
    widths[4] = widths[4].max(20);
    let name_width = order.iter().map(|&index| shown(tally.user(index as usize).0).len()).max().unwrap_or(0);
    let name_width = name_width.clamp("total".len(), NAME_WIDTH);
    let mut line = |name: &str, columns: &[&str; 5]| {
        write!(out, "{name:name_width$}")?;
        columns.iter().zip(widths).try_for_each(|(column, width)| write!(out, "  {column:>width$}"))?;
        writeln!(out)
    };
    line("user", &HEADINGS)?;
    for &index in order {
        let (name, sum) = tally.user(index as usize);
        line(&shown(name), &columns(&sum).each_ref().map(String::as_str))?;
    }
    line("total", &total.each_ref().map(String::as_str))?;
    let few = if order.len() < tally.users() { format!("{} of ", order.len()) } else { String::new() };
    writeln!(out, "\n{few}{} users, {files} files", tally.users())
}

/// One object; users as they are printed, so that no list of them has to be made.
fn print_json(out: &mut dyn Write, tally: &Tally, order: &[u32], files: usize) -> io::Result<()> {
    let object = |sum: &Sum| {
        json!({
            "connections": sum.connections,
            "messages": sum.messages,
            "bytes": sum.bytes,
            "secs": sum.secs,
            "between_secs": sum.between_secs(),
        })
    };
    write!(out, "{{\"users\":[")?;
    for (place, &index) in order.iter().enumerate() {
        let (name, sum) = tally.user(index as usize);
        let mut user = object(&sum);
        user["user"] = shown(name).into();
        write!(out, "{}{user}", if place > 0 { ",\n" } else { "\n" })?;
    }
    let mut total = object(&tally.total());
    total["users"] = tally.users().into();
    writeln!(out, "\n],\"total\":{total},\"files\":{files},\"bad_lines\":{}}}", tally.bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(print: fn(&mut dyn Write, &Tally, &[u32], usize) -> io::Result<()>, text: &[u8], top: usize) -> String {
        let mut tally = Tally::new(1);
        tally.feed(text);
        let mut order = tally.sorted(Key::User);
        order.truncate(top);
        let mut out = Vec::new();
        print(&mut out, &tally, &order, 1).unwrap();
        String::from_utf8(out).unwrap()
    }

    const TEXT: &[u8] = b"100 105 bob h 10 1\n50 60 ann\x1b[2J h 5 5\n400 401 bob h 10 1\n";

    #[test]
    fn a_person_reads_a_line_a_user_and_the_total() {
        let text = printed(print_text, TEXT, 9);
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["user", "connections", "messages", "bytes", "secs", "between_secs"]);
        assert_eq!(words[1], ["ann%1B[2J", "1", "5", "5", "10", "-"]);
        assert_eq!(words[2], ["bob", "2", "2", "20", "6", "300"]);
        assert_eq!(words[3], ["total", "3", "7", "25", "16", "175"]);
        assert!(text.ends_with("\n\n2 users, 1 files\n"), "{text}");
        let width = text.lines().next().unwrap().len();
        assert!(text.lines().take(4).all(|line| line.len() == width), "{text}");
        let text = printed(print_text, TEXT, 1);
        assert!(text.contains("ann") && !text.contains("bob") && text.ends_with("1 of 2 users, 1 files\n"), "{text}");
    }

    #[test]
    fn a_program_reads_json() {
        let value: serde_json::Value = serde_json::from_str(&printed(print_json, TEXT, 9)).unwrap();
        assert_eq!(value["users"][0]["user"], "ann%1B[2J");
        assert_eq!(value["users"][0]["between_secs"], serde_json::Value::Null);
        assert_eq!(value["users"][1]["bytes"], 20);
        assert_eq!((&value["total"]["users"], &value["total"]["connections"]), (&2.into(), &3.into()));
        let none: serde_json::Value = serde_json::from_str(&printed(print_json, b"", 9)).unwrap();
        assert_eq!(
            (none["users"].as_array().unwrap().len(), &none["total"]["between_secs"]),
            (0, &serde_json::Value::Null)
        );
    }

    /// Gives a few bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let some = self.1.min(self.0.len()).min(buffer.len());
            buffer[..some].copy_from_slice(&self.0[..some]);
            self.0 = &self.0[some..];
            Ok(some)
        }
    }

    #[test]
    fn lines_are_counted_however_they_come_and_long_ones_are_passed_over() {
        let long = format!("1 2 {} h 3 4\n", "x".repeat(100));
        let text = format!("1 2 ann h 3 4\n{long}{long}1 2 bob h 3 4\n{long}1 2 ann h 3 4\n1 2 cut h 3 4");
        for piece in [1, 7, 39, 40, 64] {
            let mut tally = Tally::new(2);
            feed(&mut tally, &mut Drip(text.as_bytes(), piece), &mut [0; 40]).unwrap();
            assert_eq!((tally.users(), tally.read(), tally.bad(), tally.first_bad()), (2, 7, 4, Some(2)), "{piece}");
            assert_eq!(tally.user(0).1.connections, 2);
        }
    }

    #[test]
    fn a_directory_stands_for_its_statistics_files_and_the_first_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("dpopjan01.stats", "1 2 ann h 3 4\n"),
            ("dpopjan02.stats", "1 2 bob h 3 4\nbad\nbad\n"),
            ("dpop.log", "1 2 eve h 3 4\n"),
            ("dpopjan01.stats.old", "1 2 eve h 3 4\n"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        fs::create_dir(folder.path().join("dpopjan03.stats")).unwrap();
        let found = files(vec![folder.path().to_owned(), "-".into()]).unwrap();
        assert_eq!(found.len(), 3);
        let counted = count(&found[..2]).unwrap();
        assert_eq!((counted.tally.users(), counted.files), (2, 2));
        let complaint = counted.complaint.unwrap();
        assert!(complaint.contains("not counted: 2 ") && complaint.ends_with("dpopjan02.stats:2)"), "{complaint}");
        let why = count(&[folder.path().join("nothing")]).err().unwrap();
        assert!(why.contains("nothing: ") && why.ends_with("; nothing was counted"), "{why}");
    }

    #[test]
    fn wrong_options_are_a_usage_error() {
        for args in [&["--sort", "size"][..], &["--top", "x"], &["--top", "-1"], &["--frobnicate"]] {
            let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
            assert_eq!(run(Path::new("/nowhere"), &args), USAGE, "{args:?}");
        }
        assert_eq!(run(Path::new("/nowhere"), &[]), FAILED);
    }
}
