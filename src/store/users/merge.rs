//! The user files as streams of entries, and their merge into one sorted file in bounded memory.
//!
//! An entry is a line with the comments that stand above it. A sorted file is a run as it is; anything else is cut into
//! chunks, sorted, and spilled to a file without a name. Runs are merged by key; of equal keys the later run wins, so the
//! runs stand in the order in which the lines were written.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use super::record::{self, LINE_MOST, Line, classify};

/// What is sorted at a time.
pub(super) const CHUNK_BYTES: usize = 8 << 20;
/// Most comments in one place.
const ABOVE_MOST: usize = 1 << 20;
/// Read ahead in each run.
const AHEAD: usize = 64 * 1024;

/// One line that counts, and what stands above it.
#[derive(Default)]
pub(super) struct Entry {
    place: Place,
    /// Comments and blank lines, each with its line end.
    above: Vec<u8>,
    /// Without its line end; empty at the head and at the tail.
    pub line: Vec<u8>,
}

/// Comments before the first user stay at the top of the file, those after the last one at its end.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Head,
    #[default]
    User,
    Tail,
}

impl Entry {
    /// An entry without comments.
    pub fn new(line: Vec<u8>) -> Entry {
        Entry { line, ..Entry::default() }
    }

    fn name(&self) -> &[u8] {
        match classify(&self.line) {
            Line::User(name) | Line::Gone(name) => name,
            Line::Other => b"",
        }
    }

    fn compare(&self, other: &Entry) -> Ordering {
        self.place.cmp(&other.place).then_with(|| record::order(self.name(), other.name()))
    }

    /// `later` stands for the same user and replaces it; the comments of both stay.
    fn replace(&mut self, later: Entry) {
        self.above.extend_from_slice(&later.above);
        self.line = later.line;
    }

    fn bytes(&self) -> usize {
        self.above.len() + self.line.len() + size_of::<Entry>()
    }

    fn write(&self, output: &mut impl Write) -> io::Result<()> {
        output.write_all(&self.above)?;
        if matches!(classify(&self.line), Line::User(_)) {
            output.write_all(&self.line)?;
            output.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// The entries of a file in the order of its lines.
pub(super) struct Entries<R> {
    input: R,
    /// Comments seen since the last line that counts.
    above: Vec<u8>,
    /// Whether a last line without its line end counts.
    torn_counts: bool,
    started: bool,
    /// The first user, while the head before it is taken.
    waiting: Option<Entry>,
}

impl<R: BufRead> Entries<R> {
    pub fn new(input: R, torn_counts: bool) -> Entries<R> {
        Entries { input, above: Vec::new(), torn_counts, started: false, waiting: None }
    }

    fn next(&mut self) -> io::Result<Option<Entry>> {
        if let Some(entry) = self.waiting.take() {
            return Ok(Some(entry));
        }
        loop {
            let mut line = Vec::new();
            (&mut self.input).take(LINE_MOST as u64 + 1).read_until(b'\n', &mut line)?;
            let torn = line.last() != Some(&b'\n');
            if line.len() > LINE_MOST {
                return Err(too_long());
            }
            if line.is_empty() || torn && !self.torn_counts {
                let above = std::mem::take(&mut self.above);
                let place = if self.started { Place::Tail } else { Place::Head };
                return Ok((!above.is_empty()).then(|| Entry { place, above, line: Vec::new() }));
            }
            if !torn {
                line.pop();
            }
            if classify(&line) == Line::Other {
                self.above.extend_from_slice(&line);
                self.above.push(b'\n');
                if self.above.len() > ABOVE_MOST {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "more than 1 MB of comments in one place"));
                }
                continue;
            }
            let above = std::mem::take(&mut self.above);
            if !std::mem::replace(&mut self.started, true) && !above.is_empty() {
                self.waiting = Some(Entry::new(line));
                return Ok(Some(Entry { place: Place::Head, above, line: Vec::new() }));
            }
            return Ok(Some(Entry { place: Place::User, above, line }));
        }
    }
}

/// A line that no reader takes.
pub(super) fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 16 KB")
}

/// Entries in ascending order, no key twice.
pub(super) enum Run {
    /// A file known to be sorted.
    Sorted(Entries<BufReader<Section>>),
    /// In memory, or made as they are needed.
    Made(Box<dyn Iterator<Item = Entry>>),
    /// In the spill file.
    Spilled(BufReader<Section>),
}

impl Run {
    fn next(&mut self) -> io::Result<Option<Entry>> {
        match self {
            Run::Sorted(entries) => entries.next(),
            Run::Made(entries) => Ok(entries.next()),
            Run::Spilled(input) => unspill(input),
        }
    }
}

/// Sorts `entries` and adds them to `runs`: one run in memory when they are few, else spilled ones, oldest first.
pub(super) fn sort<R: BufRead>(
    mut entries: Entries<R>,
    chunk_bytes: usize,
    runs: &mut Vec<Run>,
    spill: &mut Option<Spill>,
    make_spill: impl Fn() -> io::Result<File>,
) -> io::Result<()> {
    loop {
        let mut chunk: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut ended = false;
        while bytes < chunk_bytes {
            let Some(entry) = entries.next()? else {
                ended = true;
                break;
            };
            bytes += entry.bytes();
            chunk.push(entry);
        }
        // Stable, so that of equal keys the last one written comes last.
        chunk.sort_by(Entry::compare);
        let mut sorted: Vec<Entry> = Vec::with_capacity(chunk.len());
        for entry in chunk {
            match sorted.last_mut() {
                Some(last) if last.compare(&entry) == Ordering::Equal => last.replace(entry),
                _ => sorted.push(entry),
            }
        }
        if ended {
            runs.push(Run::Made(Box::new(sorted.into_iter())));
            return Ok(());
        }
        let spill = match spill {
            Some(spill) => spill,
            None => spill.insert(Spill { file: Rc::new(make_spill()?), end: 0 }),
        };
        runs.push(Run::Spilled(spill.write(&sorted)?));
    }
}

/// Writes the runs as one sorted file: of equal keys the later run's line, and nobody who is deleted.
pub(super) fn merge(mut runs: Vec<Run>, output: &mut impl Write) -> io::Result<()> {
    let mut heads = runs.iter_mut().map(Run::next).collect::<io::Result<Vec<_>>>()?;
    loop {
        let lowest = heads.iter().flatten().min_by(|a, b| a.compare(b));
        let Some(lowest) = lowest else { return Ok(()) };
        let equal: Vec<usize> = (0..heads.len())
            .filter(|&at| heads[at].as_ref().is_some_and(|head| head.compare(lowest) == Ordering::Equal))
            .collect();
        let mut winner: Option<Entry> = None;
        for at in equal {
            let next = runs[at].next()?;
            let head = std::mem::replace(&mut heads[at], next).expect("only heads that are there were chosen");
            match &mut winner {
                Some(winner) => winner.replace(head),
                None => winner = Some(head),
            }
        }
        winner.expect("the lowest head is equal to itself").write(output)?;
    }
}

/// A file for runs that memory should not hold.
pub(super) struct Spill {
    file: Rc<File>,
    /// Where the next run begins.
    end: u64,
}

impl Spill {
    fn write(&mut self, run: &[Entry]) -> io::Result<BufReader<Section>> {
        let from = self.end;
        let mut output = BufWriter::with_capacity(AHEAD, &*self.file);
        for entry in run {
            output.write_all(&[entry.place as u8])?;
            for part in [&entry.above, &entry.line] {
                output.write_all(&(part.len() as u32).to_le_bytes())?;
                output.write_all(part)?;
                self.end += 4 + part.len() as u64;
            }
            self.end += 1;
        }
        output.flush()?;
        Ok(BufReader::with_capacity(AHEAD, Section { file: self.file.clone(), at: from, end: self.end }))
    }
}

fn unspill(input: &mut BufReader<Section>) -> io::Result<Option<Entry>> {
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut place = [0];
    input.read_exact(&mut place)?;
    let mut part = || -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let mut part = vec![0; u32::from_le_bytes(length) as usize];
        input.read_exact(&mut part)?;
        Ok(part)
    };
    let (above, line) = (part()?, part()?);
    let place = [Place::Head, Place::User, Place::Tail][usize::from(place[0].min(2))];
    Ok(Some(Entry { place, above, line }))
}

/// A part of a file, read by position.
pub(super) struct Section {
    file: Rc<File>,
    at: u64,
    end: u64,
}

impl Section {
    /// The whole file, buffered.
    pub fn whole(file: Rc<File>) -> BufReader<Section> {
        BufReader::with_capacity(AHEAD, Section { file, at: 0, end: u64::MAX })
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = (buffer.len() as u64).min(self.end - self.at) as usize;
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The numbers below `count` in the order of their digits: 0, 1, 10, 100, 11, 2 ...
pub(super) fn by_digits(count: u64) -> impl Iterator<Item = u64> {
    let first = (count > 0).then_some(0);
    std::iter::successors(first, move |&number| {
        if number == 0 {
            return (count > 1).then_some(1);
        }
        if number * 10 < count {
            return Some(number * 10);
        }
        let mut number = number;
        while number % 10 == 9 || number + 1 >= count {
            number /= 10;
            if number == 0 {
                return None;
            }
        }
        Some(number + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(files: &[&str], chunk_bytes: usize) -> String {
        let (mut runs, mut spill) = (Vec::new(), None);
        for file in files {
            let entries = Entries::new(file.as_bytes(), true);
            sort(entries, chunk_bytes, &mut runs, &mut spill, tempfile::tempfile).unwrap();
        }
        let mut output = Vec::new();
        merge(runs, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn later_lines_win_comments_travel_and_the_deleted_are_gone() {
        let main = "# top\n\nzoe:1\n# about ann\nann:1\nbob:1\nANN:2\n# end";
        let added = "bob:2\n-zoe\ncid:1\n-dan\n";
        for chunk_bytes in [1, 100, 300, CHUNK_BYTES] {
            assert_eq!(
                merged(&[main, added], chunk_bytes),
                "# top\n\n# about ann\nANN:2\nbob:2\ncid:1\n# end\n",
                "chunks of {chunk_bytes}"
            );
        }
    }

    #[test]
    fn a_torn_last_line_counts_only_where_asked() {
        let count = |torn| {
            let mut entries = Entries::new(&b"a:1\nb:2"[..], torn);
            std::iter::from_fn(|| entries.next().unwrap()).count()
        };
        assert_eq!((count(true), count(false)), (2, 1));
        let long = vec![b'x'; LINE_MOST + 1];
        assert!(Entries::new(&long[..], true).next().is_err());
    }

    #[test]
    fn numbers_come_in_the_order_of_their_digits() {
        for count in [0, 1, 2, 9, 10, 11, 12, 99, 100, 101, 1234] {
            let mut sorted: Vec<String> = (0..count).map(|number| number.to_string()).collect();
            sorted.sort();
            let made: Vec<String> = by_digits(count).map(|number| number.to_string()).collect();
            assert_eq!(made, sorted);
        }
    }
}
