//! `tellpop statistics`: what the files of messages come to, for each domain or user. Reads the files itself; no server is
//! needed.
//!
//! The files are read twice, in pieces: first to find who comes first, then to count everything of those. What is appended
//! meanwhile does not count. Lines that are not as they should be are counted and told on standard error, with the place of
//! the first. A file that cannot be read ends it, before anything is printed; a day without a file is a day without mail.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};

use super::options::{self, DONE, FAILED, USAGE};
use super::stats::{Counter, PIECE, configured, feed};
use crate::rules::stats::shown;
use crate::rules::traffic::frame::{self, Frame};
use crate::rules::traffic::{By, Class, Key, Peak, Question, Ranking, Role, Sum, Sums, Traffic, file_name};

const USAGE_TEXT: &str = "tellpop statistics [-U|-D] [-R|-S] [-DN] [-PN] [-AN] [-KEY] [--folder DIR] [--json] [TIME]

Sums up the files dmDDMM.log, which oneline_stats makes: messages accepted (sent), put into drops here (recv), transferred to
other servers (delv) and given up (fail), and their bytes, with the peak of each and when it was.

  -U, -D     by user, or by domain (default)
  -S, -R     of senders (default), or of receivers
  -DN        the first N of them (default 10); -Dall: all; -D0: only the total, which is faster
  -PN        peaks are the most in N seconds (default 3600)
  -AN        averages are of N seconds (default 3600)
  -KEY       the order: sent (default), recv, delv, fail, or bsent, brecv, bdelv, bfail by bytes
  --folder   where the files are, instead of log_path

TIME is hour, day, week, month, so_far_today (default), or [MM/dd] [hh.mm.ss] to [MM/dd] [hh.mm.ss].";

/// What is asked, out of the words.
#[derive(Debug)]
struct Asked {
    by: By,
    role: Role,
    most: usize,
    window: u64,
    average: u64,
    key: Key,
    folder: Option<PathBuf>,
    json: bool,
    time: Vec<String>,
}

/// The words, as the manual has them: options of one letter with their number, in any case.
fn asked(words: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        by: By::Domain,
        role: Role::Sender,
        most: 10,
        window: 3600,
        average: 3600,
        key: Key { class: Class::Sent, bytes: false },
        folder: None,
        json: false,
        time: Vec::new(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let low = word.to_ascii_lowercase();
        let refuse = || format!("`{}` is no option of statistics", shown(word.as_bytes()));
        let seconds =
            |text: &str| text.parse().ok().filter(|secs| (1..=366 * 86_400).contains(secs)).ok_or_else(refuse);
        let Some(option) = low.strip_prefix('-') else {
            asked.time.push(word.clone());
            continue;
        };
        match option {
            "-json" => asked.json = true,
            "-folder" => asked.folder = Some(words.next().ok_or("--folder takes a directory")?.into()),
            "u" => asked.by = By::User,
            "d" => asked.by = By::Domain,
            "s" => asked.role = Role::Sender,
            "r" => asked.role = Role::Receiver,
            "dall" => asked.most = usize::MAX,
            option => match (Key::named(option), option.split_at_checked(1)) {
                (Some(key), _) => asked.key = key,
                (None, Some(("d", number))) => asked.most = number.parse().map_err(|_| refuse())?,
                (None, Some(("p", number))) => asked.window = seconds(number)?,
                (None, Some(("a", number))) => asked.average = seconds(number)?,
                _ => return Err(refuse()),
            },
        }
    }
    Ok(asked)
}

/// Runs the verb with what follows it on the command line; `config` is used to find log_path. Gives the exit code.
pub fn run(config: &Path, args: &[String]) -> u8 {
    if args.iter().any(|arg| matches!(&arg[..], "-h" | "--help")) {
        options::print(&format!("usage: {USAGE_TEXT}\n"));
        return DONE;
    }
    let read = asked(args).and_then(|asked| Ok((frame::parse(&asked.time, &Zoned::now())?, asked)));
    let (frame, asked) = match read {
        Ok(read) => read,
        Err(why) => {
            eprintln!("tellpop: {why}");
            return USAGE;
        }
    };
    let folder = match &asked.folder {
        Some(folder) => Ok(folder.clone()),
        None => configured(config).map(|settings| settings.log_path),
    };
    let counted = folder.and_then(|folder| count(&folder, &frame, &asked));
    let Counted { named, names, total, complaint } = match counted {
        Ok(counted) => counted,
        Err(why) => {
            eprintln!("tellpop: {why}");
            return FAILED;
        }
    };
    if let Some(complaint) = complaint {
        eprintln!("tellpop: {complaint}");
    }
    let page = Page { asked: &asked, frame: &frame, zone: TimeZone::system() };
    let mut out = BufWriter::new(io::stdout().lock());
    let print = if asked.json { Page::print_json } else { Page::print_text };
    // That nobody reads on (`tellpop statistics | head`) is no failure.
    let _ = print(&page, &mut out, &named, names, &total).and_then(|()| out.flush());
    DONE
}

/// What came of reading.
struct Counted {
    named: Vec<(Vec<u8>, Sums)>,
    /// How many names there are, where that was counted.
    names: Option<usize>,
    total: Sums,
    /// What to say about bad lines.
    complaint: Option<String>,
}

fn count(folder: &Path, frame: &Frame, asked: &Asked) -> Result<Counted, String> {
    let Asked { by, role, window, key, .. } = *asked;
    let question = Question { by, role, from: frame.from, to: frame.to, window, key };
    let files = files(folder, frame)?;
    let seed = |pass| RandomState::new().hash_one(pass);
    let (mut first, mut names) = (Vec::new(), None);
    if asked.most > 0 {
        let mut ranking = Ranking::new(question, seed(1));
        read(&files, &mut ranking)?;
        names = Some(ranking.names());
        first = ranking.first(asked.most);
    }
    let mut traffic = Traffic::new(question, seed(2), &first);
    drop(first);
    let first_bad = read(&files, &mut traffic)?;
    let bad = traffic.lines.bad;
    let complaint =
        first_bad.map(|place| format!("lines that are not as they should be, not counted: {bad} (first: {place})"));
    let (named, total) = traffic.finish();
    Ok(Counted { named, names, total, complaint })
}

/// The files of these days that there are, as long as they are now.
fn files(folder: &Path, frame: &Frame) -> Result<Vec<(PathBuf, u64)>, String> {
    let trouble = |path: &Path, error: io::Error| format!("{}: {error}; nothing was counted", path.display());
    // Else a wrong directory would be a time without mail.
    folder.read_dir().map_err(|error| trouble(folder, error))?;
    let mut files = Vec::new();
    for &(month, day) in &frame.days {
        let path = folder.join(file_name(month, day));
        match path.metadata() {
            Ok(about) => files.push((path, about.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(trouble(&path, error)),
        }
    }
    Ok(files)
}

/// Counts all that is in the files; gives the place of the first bad line.
fn read(files: &[(PathBuf, u64)], counter: &mut impl Counter) -> Result<Option<String>, String> {
    let mut buffer = vec![0; PIECE];
    let mut first_bad = None;
    for (path, length) in files {
        let before = counter.read();
        let trouble = |error: io::Error| format!("{}: {error}; nothing was counted", path.display());
        let file = File::open(path).map_err(trouble)?;
        feed(counter, &mut file.take(*length), &mut buffer).map_err(trouble)?;
        if let (None, Some(line)) = (&first_bad, counter.first_bad()) {
            first_bad = Some(format!("{}:{}", shown(path.as_os_str().as_encoded_bytes()), line - before));
        }
    }
    Ok(first_bad)
}

macro_rules! counter {
    ($name:ident) => {
        impl Counter for $name {
            fn feed(&mut self, bytes: &[u8]) -> usize {
                $name::feed(self, bytes)
            }

            fn reject(&mut self) {
                self.lines.reject();
            }

            fn read(&self) -> u64 {
                self.lines.read
            }

            fn first_bad(&self) -> Option<u64> {
                self.lines.first_bad
            }
        }
    };
}
counter!(Ranking);
counter!(Traffic);

/// What is printed besides numbers.
struct Page<'p> {
    asked: &'p Asked,
    frame: &'p Frame,
    zone: TimeZone,
}

impl Page<'_> {
    /// A total as so much in the seconds of an average.
    fn average(&self, total: u64) -> f64 {
        total as f64 * self.asked.average as f64 / (self.frame.to - self.frame.from) as f64
    }

    fn time(&self, second: u64, format: &str) -> String {
        let at = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
        at.map_or_else(String::new, |at| at.to_zoned(self.zone.clone()).strftime(format).to_string())
    }

    /// When a peak was: `03/10 14.00.00-15.00.00`.
    fn band(&self, peak: Peak) -> String {
        if peak.most == 0 {
            return "-".to_owned();
        }
        let end = self.time(peak.from.saturating_add(self.asked.window), "%H.%M.%S");
        format!("{}-{end}", self.time(peak.from, "%m/%d %H.%M.%S"))
    }

    fn print_text(
        &self,
        out: &mut dyn Write,
        named: &[(Vec<u8>, Sums)],
        names: Option<usize>,
        total: &Sums,
    ) -> io::Result<()> {
        let Asked { window, average, .. } = self.asked;
        let moment = |second| self.time(second, "%Y-%m-%d %H.%M.%S");
        writeln!(out, "{} to {}", moment(self.frame.from), moment(self.frame.to))?;
        writeln!(out, "peaks of {window} s, averages of {average} s\n")?;
        let line = |out: &mut dyn Write, cells: [&str; 9]| {
            let [what, messages, peak, average, at, bytes, bytes_peak, bytes_average, bytes_at] = cells;
            writeln!(
                out,
                "  {what:<5} {messages:>10} {peak:>9} {average:>10}  {at:<23} {bytes:>15} {bytes_peak:>13} \
                 {bytes_average:>15}  {bytes_at}"
            )
        };
        let group = |out: &mut dyn Write, name: &str, sums: &Sums| -> io::Result<()> {
            writeln!(out, "{name}")?;
            for ((what, _), sum) in Class::ALL.iter().zip(&sums.classes) {
                let (messages, bytes) = (sum.total.messages.to_string(), sum.total.bytes.to_string());
                let average = |total| format!("{:.1}", self.average(total));
                line(
                    out,
                    [
                        what,
                        &messages,
                        &sum.messages.most.to_string(),
                        &average(sum.total.messages),
                        &self.band(sum.messages),
                        &bytes,
                        &sum.bytes.most.to_string(),
                        &average(sum.total.bytes),
                        &self.band(sum.bytes),
                    ],
                )?;
            }
            Ok(())
        };
        line(out, ["", "messages", "peak", "average", "peak at", "bytes", "peak", "average", "peak at"])?;
        for (name, sums) in named {
            group(out, &shown(name), sums)?;
        }
        group(out, "total", total)?;
        let what = self.what();
        match names {
            Some(names) if names > named.len() => writeln!(out, "\n{} of {names} {what}", named.len()),
            Some(names) => writeln!(out, "\n{names} {what}"),
            None => Ok(()),
        }
    }

    fn what(&self) -> &'static str {
        match (self.asked.by, self.asked.role) {
            (By::Domain, Role::Sender) => "domains of senders",
            (By::Domain, Role::Receiver) => "domains of receivers",
            (By::User, Role::Sender) => "senders",
            (By::User, Role::Receiver) => "receivers",
        }
    }

    /// One object; names as they are printed, so that no list of them has to be made.
    fn print_json(
        &self,
        out: &mut dyn Write,
        named: &[(Vec<u8>, Sums)],
        names: Option<usize>,
        total: &Sums,
    ) -> io::Result<()> {
        let Asked { window, average, .. } = self.asked;
        let amount = |total: u64, peak: Peak| {
            let at = (peak.most > 0).then_some(peak.from);
            json!({ "total": total, "peak": peak.most, "peak_at": at, "average": self.average(total) })
        };
        let sum = |sum: &Sum| json!({ "messages": amount(sum.total.messages, sum.messages), "bytes": amount(sum.total.bytes, sum.bytes) });
        let sums = |sums: &Sums| -> Value {
            Class::ALL.iter().zip(&sums.classes).map(|((what, _), of)| ((*what).to_owned(), sum(of))).collect()
        };
        let (from, to) = (self.frame.from, self.frame.to);
        write!(out, "{{\"from\":{from},\"to\":{to},\"peak_secs\":{window},\"average_secs\":{average},")?;
        write!(out, "\"of\":\"{}\",\"names\":[", self.what())?;
        for (place, (name, of)) in named.iter().enumerate() {
            let mut object = sums(of);
            object["name"] = shown(name).into();
            write!(out, "{}{object}", if place > 0 { ",\n" } else { "\n" })?;
        }
        writeln!(out, "\n],\"total\":{},\"all_names\":{}}}", sums(total), json!(names))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_those_of_the_manual() {
        let asked = |line: &str| asked(&words(line));
        let default = asked("").unwrap();
        assert_eq!((default.by, default.role, default.most), (By::Domain, Role::Sender, 10));
        assert_eq!((default.window, default.average, default.key), (3600, 3600, Key::named("sent").unwrap()));
        let all = asked("-d100 -U hour -R -P60 -a7200 -BFAIL --json --folder /x").unwrap();
        assert_eq!((all.by, all.role, all.most, all.window, all.average), (By::User, Role::Receiver, 100, 60, 7200));
        assert_eq!((all.key, all.json, all.time), (Key::named("bfail").unwrap(), true, words("hour")));
        assert_eq!((all.folder, asked("-dall").unwrap().most), (Some("/x".into()), usize::MAX));
        for wrong in ["-x", "-dx", "-p0", "-p", "-a-1", "-sen", "-", "--folder", "-p99999999999", "--sort"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    fn printed(line: &str, text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dm0201.log"), text).unwrap();
        let asked = asked(&words(line)).unwrap();
        let frame = Frame { from: 3600, to: 10_800, days: vec![(1, 1), (1, 2), (1, 3)] };
        let Counted { named, names, total, .. } = count(folder.path(), &frame, &asked).unwrap();
        let page = Page { asked: &asked, frame: &frame, zone: TimeZone::UTC };
        let mut out = Vec::new();
        let print = if asked.json { Page::print_json } else { Page::print_text };
        print(&page, &mut out, &named, names, &total).unwrap();
        String::from_utf8(out).unwrap()
    }

    const TEXT: &str = "3599 sent a 9 ann@a.test bob@b.test\n3600 sent b 100 ann@a.test bob@b.test,x@b.test\n\
                        7300 sent c 50 Ann@a.test x@b.test\n7301 fail c 50 ann@a.test x@b.test\n7302 sent d 1 eve@c.test x@b.test\n";

    #[test]
    fn a_person_reads_four_lines_a_name_and_the_total() {
        let text = printed("-u -d1", TEXT);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(text.lines().next(), Some("1970-01-01 01.00.00 to 1970-01-01 03.00.00"));
        assert_eq!(lines[4], ["ann@a.test"]);
        let first = "sent 2 1 1.0 01/01 01.00.00-02.00.00 150 100 75.0 01/01 01.00.00-02.00.00";
        assert_eq!(lines[5].join(" "), first);
        assert_eq!(lines[6].join(" "), "recv 0 0 0.0 - 0 0 0.0 -");
        assert_eq!(lines[8].join(" "), "fail 1 1 0.5 01/01 02.00.00-03.00.00 50 50 25.0 01/01 02.00.00-03.00.00");
        assert_eq!((&lines[9][..], lines[10][1]), (&["total"][..], "3"));
        assert!(text.ends_with("\n1 of 2 senders\n"), "{text}");
        assert!(!printed("-d0", TEXT).contains("ann") && printed("-d0", TEXT).contains("total"));
        assert!(printed("-r", TEXT).ends_with("\n1 domains of receivers\n"));
    }

    #[test]
    fn a_program_reads_json() {
        let value: Value = serde_json::from_str(&printed("-u --json -p60", TEXT)).unwrap();
        assert_eq!((&value["names"][0]["name"], &value["all_names"]), (&"ann@a.test".into(), &2.into()));
        assert_eq!(value["names"][0]["sent"]["bytes"]["peak"], 100);
        assert_eq!(value["names"][0]["fail"]["messages"]["peak_at"], 7260);
        assert_eq!(value["total"]["recv"]["messages"]["peak_at"], Value::Null);
        assert_eq!(value["total"]["sent"]["messages"]["average"], 1.5);
        let none: Value = serde_json::from_str(&printed("-d0 --json", "")).unwrap();
        assert_eq!((&none["names"], &none["all_names"]), (&json!([]), &Value::Null));
    }

    #[test]
    fn the_first_bad_line_is_named_and_no_folder_is_no_time_without_mail() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dm0101.log"), "3600 sent a 9 a b\n").unwrap();
        fs::write(folder.path().join("dm0201.log"), "3600 sent a 9 a b\nbad\nbad\n3600 sent a 9 a b").unwrap();
        let frame = Frame { from: 0, to: 10_800, days: vec![(1, 1), (1, 2)] };
        for line in ["-d0", "-dall"] {
            let counted = count(folder.path(), &frame, &asked(&words(line)).unwrap()).unwrap();
            let complaint = counted.complaint.unwrap();
            assert!(complaint.contains("not counted: 3 ") && complaint.ends_with("dm0201.log:2)"), "{complaint}");
        }
        let nowhere = folder.path().join("nowhere");
        let why = count(&nowhere, &frame, &asked(&[]).unwrap()).err().unwrap();
        assert!(why.contains("nowhere: ") && why.ends_with("; nothing was counted"), "{why}");
        assert_eq!(run(Path::new("/nowhere"), &words("year")), USAGE);
        assert_eq!(run(Path::new("/nowhere"), &words("hour")), FAILED);
    }
}
