//! A run judged from its folder: the journal, and what its `run.json` says lies where. Needs neither server nor network,
//! nor that the harness came to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dmail::store::path::{drop_path, is_user_name};
use serde_json::{Value, json};

use super::journal::{self, Fact};
use super::reading::{self, Part};
use super::verdict::{Books, Copy, Counts, Kind, Place, Verdict};

/// What a folder is known by.
pub const NAME: &str = "run.json";
/// Of each violation so many lines of the journal are shown.
const LINES_SHOWN: usize = 12;

/// Where things lie: what `run.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The number that its messages bear.
    pub run: u64,
    pub seed: u64,
    /// What the mailboxes' addresses end with.
    pub domain: String,
    /// Where the drop files are; None: the server has none that can be read.
    pub spool: Option<PathBuf>,
    pub hash_spool: u8,
    /// Deleted messages stay in the file for a while: only a last look tells whether they are shown.
    pub keeps_dead: bool,
    /// dmail's queue.
    pub queue: Option<PathBuf>,
    /// What was relayed, as files.
    pub sink: Option<PathBuf>,
}

impl Whereabouts {
    /// Writes it into the folder of a run.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let value = json!({
            "version": 1, "run": format!("{:016x}", self.run), "seed": self.seed, "domain": self.domain,
            "spool": path(&self.spool), "hash_spool": self.hash_spool, "keeps_dead": self.keeps_dead, "queue": path(&self.queue), "sink": path(&self.sink),
        });
        let (new, name) = (dir.join("run.new"), dir.join(NAME));
        fs::write(&new, format!("{value:#}\n"))?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(new, name)
    }

    /// Reads it; a relative path is one below the folder.
    pub fn read(dir: &Path) -> Result<Whereabouts, String> {
        let name = dir.join(NAME);
        let bad = |why: &dyn std::fmt::Display| {
            format!("{}: {why}; name the folder of a run of `loadtest ledger`", name.display())
        };
        let text = fs::read_to_string(&name).map_err(|error| bad(&error))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| bad(&error))?;
        let path = |key: &str| value[key].as_str().map(|path| dir.join(path));
        let run = value["run"].as_str().and_then(|run| u64::from_str_radix(run, 16).ok());
        Ok(Whereabouts {
            run: run.ok_or_else(|| bad(&"it does not say `run`"))?,
            seed: value["seed"].as_u64().unwrap_or_default(),
            domain: value["domain"].as_str().unwrap_or_default().to_owned(),
            spool: path("spool"),
            hash_spool: value["hash_spool"].as_u64().filter(|&hash| hash <= 3).unwrap_or_default() as u8,
            keeps_dead: value["keeps_dead"].as_bool().unwrap_or_default(),
            queue: path("queue"),
            sink: path("sink"),
        })
    }

    /// The mailbox of an address: a login, or the address of another host.
    fn mailbox<'a>(&self, address: &'a str) -> &'a str {
        match address.rsplit_once('@') {
            Some((login, domain)) if domain.eq_ignore_ascii_case(&self.domain) => login,
            _ => address,
        }
    }

    /// Where a mailbox's drop file is.
    pub fn drop_of(&self, name: &str) -> Option<PathBuf> {
        let spool = self.spool.as_ref().filter(|_| is_user_name(name.as_bytes()))?;
        Some(drop_path(spool, self.hash_spool, name, name))
    }
}

/// What was read, and how much.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    pub facts: u64,
    pub drops: u64,
    pub drop_bytes: u64,
    pub queue_files: u64,
    pub sink_files: u64,
}

/// A run, judged.
pub struct Judged {
    pub verdict: Verdict,
    pub extent: Extent,
    /// For each copy of a violation where it was found, and what the journal says of it.
    pub places: BTreeMap<Copy, Vec<String>>,
    pub journal: BTreeMap<Copy, Vec<String>>,
}

/// Something that lies there, or is not as it should be.
enum Item<'a> {
    Found { name: &'a str, place: Place, found: &'a reading::Found, at: String },
    Malformed(String),
}

fn io_words(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}; let this user read it", path.display())
}

/// Goes through everything that lies there.
fn walk(
    at: &Whereabouts,
    names: &BTreeSet<String>,
    extent: &mut Extent,
    take: &mut dyn FnMut(Item<'_>),
) -> Result<(), String> {
    for name in names {
        let Some(path) = at.drop_of(name) else { continue };
        let read = reading::mbox(&path, |part| match part {
            Part::Message(found) => {
                let at = format!("{}:{}", path.display(), found.at);
                take(Item::Found { name, place: Place::Drop, found: &found, at });
            }
            Part::Malformed { at, why } => take(Item::Malformed(format!("{}:{at}: {why}", path.display()))),
        });
        match read {
            Ok(bytes) => {
                extent.drops += 1;
                extent.drop_bytes += bytes;
            }
            // A mailbox that never had mail, or all of whose mail is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_words(&path, &error)),
        }
    }
    if let Some(queue) = &at.queue {
        let mut files = |path: &Path| -> io::Result<()> {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".new") {
                // Nobody was answered for it.
                return Ok(());
            }
            if name.contains('.') {
                take(Item::Malformed(format!("{}: a queue file that its server could not read", path.display())));
                return Ok(());
            }
            extent.queue_files += 1;
            match reading::queue_file(path)? {
                Ok(queued) => {
                    for address in &queued.waits_for {
                        let (name, shown) = (at.mailbox(address), format!("{} for {address}", path.display()));
                        take(Item::Found { name, place: Place::Queue, found: &queued.message, at: shown });
                    }
                }
                Err(why) => take(Item::Malformed(format!("{}: {why}", path.display()))),
            }
            Ok(())
        };
        reading::files(queue, &mut files).map_err(|error| io_words(queue, &error))?;
    }
    if let Some(sink) = &at.sink {
        let mut files = |path: &Path| -> io::Result<()> {
            extent.sink_files += 1;
            let (found, who) = reading::sink_file(path)?;
            if who.is_empty() && found.mark.is_some() {
                take(Item::Malformed(format!(
                    "{}: a file of the sink that does not say for whom it is",
                    path.display()
                )));
            }
            for address in &who {
                let (name, at) = (at.mailbox(address), format!("{} for {address}", path.display()));
                take(Item::Found { name, place: Place::Sink, found: &found, at });
            }
            Ok(())
        };
        reading::files(sink, &mut files).map_err(|error| io_words(sink, &error))?;
    }
    Ok(())
}

/// Judges the run in that folder.
pub fn judge(dir: &Path) -> Result<Judged, String> {
    let at = Whereabouts::read(dir)?;
    let path = dir.join(journal::NAME);
    let mut books = Books::new(at.run, at.keeps_dead);
    let facts = journal::read(&path, |line, fact| books.fact(line, &fact))
        .map_err(|why| format!("{}: {why}", path.display()))?;
    let mut extent = Extent { facts, ..Extent::default() };
    let names = books.mailboxes();
    walk(&at, &names, &mut extent, &mut |item| match item {
        Item::Found { name, place, found, at } => {
            books.found(name, place, found, at);
        }
        Item::Malformed(words) => books.malformed(words),
    })?;
    let verdict = books.close(at.spool.is_some());
    let mut judged = Judged { verdict, extent, places: BTreeMap::new(), journal: BTreeMap::new() };
    judged.explain(&at, &names, &path)?;
    Ok(judged)
}

impl Judged {
    /// Goes through everything once more, for those few that violations name.
    fn explain(&mut self, at: &Whereabouts, names: &BTreeSet<String>, journal: &Path) -> Result<(), String> {
        let copies: Vec<Copy> = self.verdict.violations.iter().filter_map(|violation| violation.copy).collect();
        if copies.is_empty() {
            return Ok(());
        }
        let by_name: BTreeMap<(u64, String), Copy> = copies
            .iter()
            .map(|&copy| {
                let (seq, name) = self.verdict.of(copy);
                ((seq, name.to_owned()), copy)
            })
            .collect();
        let of = |seq: u64, name: &str| by_name.get(&(seq, name.to_owned())).copied();
        let places = &mut self.places;
        walk(at, names, &mut Extent::default(), &mut |item| {
            if let Item::Found { name, found, at: shown, .. } = item
                && let Some(copy) = found.mark.filter(|mark| mark.run == at.run).and_then(|mark| of(mark.seq, name))
            {
                places.entry(copy).or_default().push(shown);
            }
        })?;
        // The sessions that saw or marked one of them.
        let mut sessions: BTreeMap<u64, BTreeSet<Copy>> = BTreeMap::new();
        for pass in 0..2 {
            let lines = &mut self.journal;
            journal::lines(journal, |number, line| {
                let mut tell = |copy: Copy| {
                    let lines = lines.entry(copy).or_default();
                    if lines.len() < LINES_SHOWN {
                        lines.push(format!("{number}: {line}"));
                    }
                };
                match (pass, journal::parse(line)) {
                    (
                        0,
                        Some(
                            Fact::Fetched { session, to, seq: Some(seq), .. }
                            | Fact::Marked { session, to, seq: Some(seq), .. },
                        ),
                    ) => {
                        if let Some(copy) = of(seq, to) {
                            sessions.entry(session).or_default().insert(copy);
                        }
                    }
                    (1, Some(Fact::Begun { seq, to, .. })) => {
                        to.iter().filter_map(|to| of(seq, to)).for_each(&mut tell)
                    }
                    (
                        1,
                        Some(
                            Fact::Acked { seq, to, .. }
                            | Fact::Refused { seq, to, .. }
                            | Fact::Unknown { seq, to, .. }
                            | Fact::Sunk { seq, to }
                            | Fact::Fetched { seq: Some(seq), to, .. }
                            | Fact::Marked { seq: Some(seq), to, .. },
                        ),
                    ) => {
                        of(seq, to).into_iter().for_each(&mut tell);
                    }
                    (
                        1,
                        Some(Fact::Opens { session, .. } | Fact::Deleted { session, .. } | Fact::Doubt { session, .. }),
                    ) => {
                        sessions.get(&session).into_iter().flatten().copied().for_each(&mut tell);
                    }
                    _ => {}
                }
            })
            .map_err(|error| io_words(journal, &error))?;
        }
        Ok(())
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (what, count) in self.rows() {
            // Writing into memory cannot fail.
            let _ = writeln!(text, "  {count:>12}  {what}");
        }
        for violation in &self.verdict.violations {
            let _ = writeln!(text, "\n{}: {}", violation.kind.word(), violation.words);
            if let Some(session) = violation.session {
                let _ = writeln!(text, "    seen by session {session}");
            }
            let Some(copy) = violation.copy else { continue };
            for place in self.places.get(&copy).into_iter().flatten() {
                let _ = writeln!(text, "    found  {place}");
            }
            for line in self.journal.get(&copy).into_iter().flatten() {
                let _ = writeln!(text, "    journal {line}");
            }
        }
        text.push('\n');
        for why in &self.verdict.open {
            let _ = writeln!(text, "no proof: {why}");
        }
        if self.verdict.is_clean() {
            text += "clean: each acknowledged message is in exactly one place\n";
        } else if self.verdict.is_faultless() {
            text += "NOT PROVEN: nothing was found wrong in what could be looked at\n";
        } else {
            let kinds = Kind::ALL.iter().zip(self.verdict.by_kind).filter(|(_, count)| *count > 0);
            let kinds: Vec<String> = kinds.map(|(kind, count)| format!("{count} {}", kind.word())).collect();
            let _ = writeln!(text, "NOT CLEAN: {}", kinds.join(", "));
        }
        text
    }

    fn rows(&self) -> Vec<(&'static str, u64)> {
        let Counts {
            messages,
            copies,
            acked,
            in_drops,
            queued,
            sunk,
            deleted,
            doubtful,
            refused,
            unknown,
            unknown_there,
            sessions,
            fetched,
            quits,
            cut_quits,
            cut_undone,
            dead,
            unlooked,
            unsettled,
            strangers,
            bytes,
        } = self.verdict.counts;
        let Extent { facts, drops, drop_bytes, queue_files, sink_files } = self.extent;
        vec![
            ("facts in the journal", facts),
            ("messages sent", messages),
            ("bytes of their bodies", bytes),
            ("copies: a message for a mailbox", copies),
            ("copies acknowledged, of which", acked),
            ("  in a drop", in_drops),
            ("  in the queue", queued),
            ("  in the sink", sunk),
            ("  fetched and deleted, QUIT answered", deleted),
            ("  marked by a session whose QUIT was not answered, and gone", doubtful),
            ("copies refused, to be nowhere", refused),
            ("copies whose sender got no answer, of which", unknown),
            ("  arrived", unknown_there),
            ("POP3 sessions", sessions),
            ("messages fetched", fetched),
            ("QUITs after deletions or none, answered +OK", quits),
            ("QUITs after deletions, not answered, of which", cut_quits),
            ("  nothing was deleted", cut_undone),
            ("deleted messages that stay in the file, shown to nobody", dead),
            ("mailboxes that the last look could not open", unlooked),
            ("copies in a drop and still in the queue of a run that was cut short", unsettled),
            ("messages of others", strangers),
            ("drops read", drops),
            ("bytes of drops", drop_bytes),
            ("queue files read", queue_files),
            ("sink files read", sink_files),
        ]
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let rows: serde_json::Map<String, Value> =
            self.rows().into_iter().map(|(what, count)| (what.trim().to_owned(), json!(count))).collect();
        let kinds: serde_json::Map<String, Value> = Kind::ALL
            .iter()
            .zip(self.verdict.by_kind)
            .map(|(kind, count)| (kind.word().to_owned(), json!(count)))
            .collect();
        let told = self.verdict.violations.iter().map(|violation| {
            let of = |map: &BTreeMap<Copy, Vec<String>>| violation.copy.and_then(|copy| map.get(&copy).cloned()).unwrap_or_default();
            json!({ "kind": violation.kind.word(), "words": violation.words, "found": of(&self.places), "journal": of(&self.journal) })
        });
        json!({ "clean": self.verdict.is_clean(), "no_proof": self.verdict.open, "counts": rows, "violations": kinds, "told": told.collect::<Vec<_>>() })
    }
}
