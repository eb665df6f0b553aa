//! How much mail people have: the distributions that a spool is drawn from.
//!
//! | what                       | law                                                                                          |
//! |----------------------------|----------------------------------------------------------------------------------------------|
//! | kind of a box              | `empty_share` of the accounts have none, `large_share` leave theirs on the server, the rest is small |
//! | messages of a small box    | geometric from 1, with the mean `small_mean`                                                 |
//! | messages of a large box    | log-normal (`large_median`, `large_sigma`), at most `large_most`                             |
//! | bytes of a message         | log-normal (`text_median`, `text_sigma`); for `attachment_share` of them log-normal (`attachment_median`, `attachment_sigma`); at most `message_most` |
//! | age of a message           | exponential, with the mean `small_days` or, in a large box, `large_days`                     |
//!
//! What is drawn for an account depends on the seed and the account's number and on nothing else, so that accounts can be made
//! in any order, by any number of threads, and be known later without being read. The same seed gives the same mail on every
//! machine (PCG64, and distributions whose algorithms do not change within a version of `rand_distr`); a golden hash in the
//! tests says when an update of a crate changes that.
//!
//! The defaults are no survey. They are what operators of free-mail and ISP spools describe: most boxes are empty or nearly
//! so because clients fetch and delete, a few keep everything, most of the bytes are attachments and lie in those few.

use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp, Geometric, LogNormal};
use rand_pcg::Pcg64;
use serde_json::{Map, Value};

/// The smallest message: a header as real ones are, and a few words.
pub const MESSAGE_LEAST: u64 = 1_000;
/// The most that any law may say of messages in a box.
pub const BOX_MOST: u64 = 1_000_000;
const DAY_SECS: f64 = 86_400.0;

/// One number of the laws.
pub struct Row {
    /// What it is called, on the command line and in the manifest.
    pub name: &'static str,
    /// What it is when nobody says.
    pub default: f64,
    least: f64,
    most: f64,
    /// What it means, in a few words.
    pub help: &'static str,
    field: fn(&mut Laws) -> &mut f64,
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { name: "empty_share", default: 0.55, least: 0.0, most: 1.0, help: "accounts without mail", field: |l| &mut l.empty_share },
    Row { name: "large_share", default: 0.05, least: 0.0, most: 1.0, help: "accounts that leave mail on the server", field: |l| &mut l.large_share },
    Row { name: "small_mean", default: 3.0, least: 1.0, most: 10_000.0, help: "messages of any other, the mean", field: |l| &mut l.small_mean },
    Row { name: "large_median", default: 40.0, least: 1.0, most: 100_000.0, help: "messages of a large box, the median", field: |l| &mut l.large_median },
    Row { name: "large_sigma", default: 1.1, least: 0.0, most: 4.0, help: "how far they spread", field: |l| &mut l.large_sigma },
    Row { name: "large_most", default: 5_000.0, least: 1.0, most: BOX_MOST as f64, help: "and the most", field: |l| &mut l.large_most },
    Row { name: "text_median", default: 2_200.0, least: MESSAGE_LEAST as f64, most: 1e9, help: "bytes of a message, the median", field: |l| &mut l.text_median },
    Row { name: "text_sigma", default: 0.8, least: 0.0, most: 4.0, help: "how far they spread", field: |l| &mut l.text_sigma },
    Row { name: "attachment_share", default: 0.01, least: 0.0, most: 1.0, help: "messages with attachments", field: |l| &mut l.attachment_share },
    Row { name: "attachment_median", default: 60_000.0, least: MESSAGE_LEAST as f64, most: 1e9, help: "their bytes, the median", field: |l| &mut l.attachment_median },
    Row { name: "attachment_sigma", default: 1.2, least: 0.0, most: 4.0, help: "how far they spread", field: |l| &mut l.attachment_sigma },
    Row { name: "message_most", default: 10_485_760.0, least: MESSAGE_LEAST as f64, most: 1e9, help: "bytes of a message, the most", field: |l| &mut l.message_most },
    Row { name: "small_days", default: 4.0, least: 0.01, most: 3_650.0, help: "age of a message in a small box, the mean", field: |l| &mut l.small_days },
    Row { name: "large_days", default: 120.0, least: 0.01, most: 3_650.0, help: "the same in a large box", field: |l| &mut l.large_days },
];

/// All of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Laws {
    empty_share: f64,
    large_share: f64,
    small_mean: f64,
    large_median: f64,
    large_sigma: f64,
    large_most: f64,
    text_median: f64,
    text_sigma: f64,
    attachment_share: f64,
    attachment_median: f64,
    attachment_sigma: f64,
    message_most: f64,
    small_days: f64,
    large_days: f64,
}

impl Default for Laws {
    fn default() -> Laws {
        let mut laws = Laws {
            empty_share: 0.0,
            large_share: 0.0,
            small_mean: 0.0,
            large_median: 0.0,
            large_sigma: 0.0,
            large_most: 0.0,
            text_median: 0.0,
            text_sigma: 0.0,
            attachment_share: 0.0,
            attachment_median: 0.0,
            attachment_sigma: 0.0,
            message_most: 0.0,
            small_days: 0.0,
            large_days: 0.0,
        };
        for row in ROWS {
            *(row.field)(&mut laws) = row.default;
        }
        laws
    }
}

impl Laws {
    /// The numbers there are.
    pub fn rows() -> &'static [Row] {
        ROWS
    }

    /// Takes `NAME=VALUE`. Refuses with one sentence.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = text.split_once('=').ok_or_else(|| format!("{text}: a law is NAME=VALUE"))?;
        let value = value.parse().map_err(|_| format!("{text}: {value} is no number"))?;
        self.put(name, value)
    }

    fn put(&mut self, name: &str, value: f64) -> Result<(), String> {
        let row = ROWS.iter().find(|row| row.name == name).ok_or_else(|| {
            let near = dmail::text::nearest::nearest(name, ROWS.iter().map(|row| row.name));
            let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            format!("there is no law called {name}{near}")
        })?;
        if !(row.least..=row.most).contains(&value) {
            return Err(format!("{name}={value}: it is a number from {} to {}", row.least, row.most));
        }
        *(row.field)(self) = value;
        Ok(())
    }

    /// Whether they fit together.
    pub fn agree(&self) -> Result<(), String> {
        match self.empty_share + self.large_share > 1.0 {
            true => Err("empty_share and large_share are more than 1 together: make one of them smaller".to_owned()),
            false => Ok(()),
        }
    }

    /// As the manifest has them.
    pub fn to_json(&self) -> Value {
        let mut laws = self.clone();
        ROWS.iter().map(|row| (row.name.to_owned(), Value::from(*(row.field)(&mut laws)))).collect::<Map<_, _>>().into()
    }

    /// From the manifest. Refuses with one sentence.
    pub fn from_json(value: &Value) -> Result<Laws, String> {
        let mut laws = Laws::default();
        for row in ROWS {
            let number = value[row.name].as_f64().ok_or_else(|| format!("the law {} is missing", row.name))?;
            laws.put(row.name, number)?;
        }
        laws.agree().map(|()| laws)
    }

    /// What account `index` has. Dates are in seconds since 1970 and before `now_secs`; the oldest message comes first.
    pub fn draw(&self, seed: u64, index: u64, now_secs: i64) -> Mailbox {
        let mut random = random(seed, index);
        let lot: f64 = random.random();
        let (kind, count, mean_days) = if lot < self.empty_share {
            return Mailbox { kind: Kind::Empty, messages: Vec::new() };
        } else if lot < self.empty_share + self.large_share {
            let drawn = log_normal(&mut random, self.large_median, self.large_sigma).round();
            (Kind::Large, drawn.clamp(1.0, self.large_most) as u64, self.large_days)
        } else {
            // How often it fails before it succeeds: one less than the mean.
            let law = Geometric::new(1.0 / self.small_mean).expect("a share of 1 or less, and more than none");
            (Kind::Small, (law.sample(&mut random) + 1).min(BOX_MOST), self.small_days)
        };
        let age = Exp::new(1.0 / (mean_days * DAY_SECS)).expect("days are more than none");
        let mut messages: Vec<Message> = (0..count)
            .map(|_| {
                let bytes = self.bytes(&mut random);
                // Nothing is older than the epoch, by our calendar.
                let age_secs = age.sample(&mut random).min(now_secs as f64);
                Message { bytes, written_secs: now_secs - age_secs as i64 }
            })
            .collect();
        messages.sort_by_key(|message| message.written_secs);
        Mailbox { kind, messages }
    }

    fn bytes(&self, random: &mut Pcg64) -> u64 {
        let drawn = match random.random::<f64>() < self.attachment_share {
            true => log_normal(random, self.attachment_median, self.attachment_sigma),
            false => log_normal(random, self.text_median, self.text_sigma),
        };
        drawn.clamp(MESSAGE_LEAST as f64, self.message_most) as u64
    }
}

/// What one account has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Which kind was drawn.
    pub kind: Kind,
    /// In the order of their dates.
    pub messages: Vec<Message>,
}

/// What kind of box it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing is in it.
    Empty,
    /// Its owner fetches and deletes.
    Small,
    /// Its owner leaves mail on the server.
    Large,
    /// Nobody drew it: it was asked for.
    Shaped,
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Header and body, LF ends.
    pub bytes: u64,
    /// Its date, in seconds since 1970.
    pub written_secs: i64,
}

/// Numbers for one account: close seeds and close accounts have nothing in common.
fn random(seed: u64, index: u64) -> Pcg64 {
    let mut both = [0; 16];
    both[..8].copy_from_slice(&seed.to_le_bytes());
    both[8..].copy_from_slice(&index.to_le_bytes());
    let mixed = xxhash_rust::xxh3::xxh3_128(&both).to_le_bytes();
    let mut state = [0; 32];
    state[..16].copy_from_slice(&mixed);
    state[16..].copy_from_slice(&both);
    Pcg64::from_seed(state)
}

fn log_normal(random: &mut Pcg64, median: f64, sigma: f64) -> f64 {
    LogNormal::new(median.ln(), sigma).expect("the rows bound both").sample(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn drawn(laws: &Laws, count: u64) -> Vec<Mailbox> {
        (0..count).map(|index| laws.draw(1, index, NOW)).collect()
    }

    fn median(mut values: Vec<u64>) -> f64 {
        values.sort_unstable();
        values[values.len() / 2] as f64
    }

    #[test]
    fn boxes_are_as_the_laws_say() {
        let laws = Laws::default();
        let boxes = drawn(&laws, 40_000);
        let of = |kind| boxes.iter().filter(move |mailbox| mailbox.kind == kind);
        let share = |kind| of(kind).count() as f64 / boxes.len() as f64;
        assert!((share(Kind::Empty) - 0.55).abs() < 0.01 && (share(Kind::Large) - 0.05).abs() < 0.005);
        let mean = of(Kind::Small).map(|b| b.messages.len()).sum::<usize>() as f64 / of(Kind::Small).count() as f64;
        assert!((mean - 3.0).abs() < 0.1, "{mean}");
        let large = median(of(Kind::Large).map(|b| b.messages.len() as u64).collect());
        assert!((large - 40.0).abs() < 4.0, "{large}");
        let bytes = median(boxes.iter().flat_map(|b| &b.messages).map(|m| m.bytes).collect());
        assert!((bytes - 2_200.0).abs() < 100.0, "{bytes}");
        let ages = of(Kind::Small).flat_map(|b| &b.messages).map(|m| (NOW - m.written_secs) as f64 / DAY_SECS);
        let mean = ages.clone().sum::<f64>() / ages.count() as f64;
        assert!((mean - 4.0).abs() < 0.15, "{mean}");
    }

    #[test]
    fn nothing_is_beyond_the_bounds_and_the_oldest_comes_first() {
        let mut laws = Laws::default();
        for law in ["large_share=0.45", "large_most=300", "large_sigma=3", "message_most=9000", "large_days=3650"] {
            laws.set(law).unwrap();
        }
        laws.agree().unwrap();
        for mailbox in drawn(&laws, 3_000) {
            assert!(mailbox.messages.len() <= 300 || mailbox.kind == Kind::Small);
            assert!(mailbox.messages.iter().all(|m| (1_000..=9_000).contains(&m.bytes)));
            assert!(mailbox.messages.iter().all(|m| (0..=NOW).contains(&m.written_secs)));
            assert!(mailbox.messages.is_sorted_by_key(|m| m.written_secs));
            assert_eq!(mailbox.messages.is_empty(), mailbox.kind == Kind::Empty);
        }
    }

    #[test]
    fn an_account_depends_on_the_seed_and_its_number_alone() {
        let laws = Laws::default();
        assert_eq!(laws.draw(7, 12, NOW), laws.draw(7, 12, NOW));
        let some = |seed| (0..200).map(|index| laws.draw(seed, index, NOW)).collect::<Vec<_>>();
        assert_ne!(some(7), some(8));
    }

    #[test]
    fn a_wrong_law_is_refused_with_what_to_do() {
        for (law, why) in [
            ("small_mean", "small_mean: a law is NAME=VALUE"),
            ("small_mean=x", "small_mean=x: x is no number"),
            ("small_maen=2", "there is no law called small_maen; did you mean small_mean?"),
            ("small_mean=0.5", "small_mean=0.5: it is a number from 1 to 10000"),
            ("empty_share=NaN", "empty_share=NaN: it is a number from 0 to 1"),
        ] {
            assert_eq!(Laws::default().set(law).unwrap_err(), why);
        }
        let mut laws = Laws::default();
        laws.set("large_share=0.5").unwrap();
        assert!(laws.agree().is_err());
    }

    #[test]
    fn what_the_manifest_has_is_read_again() {
        let mut laws = Laws::default();
        laws.set("small_mean=2.25").unwrap();
        assert_eq!(Laws::from_json(&laws.to_json()), Ok(laws));
        assert!(Laws::from_json(&serde_json::json!({})).is_err());
    }
}
