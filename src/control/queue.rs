//! What the words behind `queue` mean.
//!
//! | words                                   | meaning                                                                 |
//! |-----------------------------------------|-------------------------------------------------------------------------|
//! | nothing, or `list`                      | all messages, a line each                                               |
//! | `FILTER ...`, or `list FILTER ...`      | those that all filters pass                                             |
//! | `show ID`                               | everything about one message                                            |
//! | `CHANGE ID`                             | change it                                                               |
//! | `CHANGE FILTER ...`                     | say how many would be changed; change none                              |
//! | `CHANGE FILTER ... COUNT`               | change them, if there are so many                                       |
//! | `CHANGE FILTER ... --yes`               | change them                                                             |
//! | `retry`, `retry COUNT`, `retry --yes`   | the same for all messages: it loses nothing                             |
//!
//! A CHANGE is one of [`Change::ALL`], a FILTER one of [`FILTERS`], each at most once. An ID is letters and digits, in any case.

use crate::text::number::decimal;
use crate::text::pattern::PatternList;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Which messages there are.
    List(Filter),
    /// Everything about one.
    Show(String),
    /// One is to be changed.
    One(Change, String),
    /// Those that a filter passes are to be changed, as far as that is agreed.
    All(Change, Filter, Agreed),
}

/// What may be done with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Take it out of the queue; nobody is told.
    Delete,
    /// Nobody tries it until it is released.
    Hold,
    /// It is tried again like any other.
    Release,
    /// It is tried now.
    Retry,
}

impl Change {
    /// All there are, by their names.
    pub const ALL: [(&'static str, Change); 4] =
        [("delete", Change::Delete), ("hold", Change::Hold), ("release", Change::Release), ("retry", Change::Retry)];
}

/// How far a change of many is agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreed {
    /// Not: they are only counted.
    No,
    /// If there are so many.
    Count(u64),
    /// Whatever there are.
    Yes,
}

/// Which messages are meant: those that have all of what is named.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// The sender; `<>` is the sender of bounces.
    pub from: Option<PatternList>,
    /// One of the recipients.
    pub to: Option<PatternList>,
    /// The least age, in seconds.
    pub older_secs: Option<u64>,
    /// A state that one of the recipients has.
    pub state: Option<String>,
}

/// States that messages of a queue are looked for by.
pub const STATES: [&str; 6] = ["waiting", "deferred", "held", "failed", "expired", "succeeded"];

/// A filter: its name, what it takes, and how that is read into one.
type Reads = fn(&mut Filter, &str) -> Result<(), String>;

/// All filters: `from=*@example.com`.
pub const FILTERS: &[(&str, &str, Reads)] = &[
    ("from", "PATTERN", |filter, text| {
        filter.from = Some(PatternList::parse(text)?);
        Ok(())
    }),
    ("to", "PATTERN", |filter, text| {
        filter.to = Some(PatternList::parse(text)?);
        Ok(())
    }),
    ("older", "TIME", |filter, text| {
        filter.older_secs = Some(secs(text).ok_or_else(|| format!("`{text}` is no time: 90s, 10m, 2h, 3d"))?);
        Ok(())
    }),
    ("state", "STATE", |filter, text| {
        let word = text.to_ascii_lowercase();
        if !STATES.contains(&&word[..]) {
            return Err(format!("`{text}` is no state: one of {}", STATES.join(", ")));
        }
        filter.state = Some(word);
        Ok(())
    }),
];

/// What the words mean. Refuses with a sentence.
pub fn parse(words: &[String]) -> Result<Ask, String> {
    let Some((first, rest)) = words.split_first() else { return Ok(Ask::List(Filter::default())) };
    let verb = first.to_ascii_lowercase();
    if first.contains('=') {
        return filter(words).map(Ask::List);
    }
    if verb == "list" {
        return filter(rest).map(Ask::List);
    }
    if verb == "show" {
        return match rest {
            [one] => id(one).map(Ask::Show),
            _ => Err("queue show takes the id of one message".to_owned()),
        };
    }
    let Some((_, change)) = Change::ALL.into_iter().find(|(name, _)| *name == verb) else {
        return Err(format!("`{first}`: queue takes list, show, delete, hold, release or retry"));
    };
    let may_be_all = change == Change::Retry;
    let (mut agreed, mut others) = (Agreed::No, Vec::new());
    for word in rest {
        let more = match (&word[..], decimal(word.as_bytes())) {
            ("--yes", _) => Agreed::Yes,
            // An id may have digits alone, with a chance of one in a million.
            (_, Some(count)) if rest.len() > 1 || may_be_all => Agreed::Count(count),
            _ => {
                others.push(word.clone());
                continue;
            }
        };
        if agreed != Agreed::No {
            return Err(format!("`{word}`: one count, or --yes, is enough"));
        }
        agreed = more;
    }
    match &others[..] {
        [] if may_be_all => Ok(Ask::All(change, Filter::default(), agreed)),
        [] => Err(format!("queue {verb} takes the id of a message, or filters; `state=waiting` is one")),
        [one] if !one.contains('=') && agreed == Agreed::No => id(one).map(|id| Ask::One(change, id)),
        others => filter(others).map(|filter| Ask::All(change, filter, agreed)),
    }
}

/// The letters of an id, in capitals. That of a bounce has more behind them, which are not.
pub const ID_LETTERS: usize = 12;

/// An id, as it is written.
fn id(word: &str) -> Result<String, String> {
    if (1..=64).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let (own, bounce) = word.split_at(word.len().min(ID_LETTERS));
        Ok(own.to_ascii_uppercase() + &bounce.to_ascii_lowercase())
    } else {
        Err(format!("`{word}` is no message's id: these are letters and digits"))
    }
}

fn filter(words: &[String]) -> Result<Filter, String> {
    let mut filter = Filter::default();
    let mut seen = Vec::new();
    for word in words {
        let refuse = || {
            let known: Vec<String> = FILTERS.iter().map(|(name, takes, _)| format!("{name}={takes}")).collect();
            format!("`{word}` is no filter: {}", known.join(", "))
        };
        let (name, text) = word.split_once('=').filter(|(_, text)| !text.is_empty()).ok_or_else(refuse)?;
        let (name, _, read) = FILTERS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)).ok_or_else(refuse)?;
        if seen.contains(name) {
            return Err(format!("`{word}`: {name} was named before; commas part several patterns"));
        }
        seen.push(*name);
        read(&mut filter, text)?;
    }
    Ok(filter)
}

/// `90s`, `10m`, `2h`, `3d`; without a letter seconds.
fn secs(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().split_last()? {
        (b's' | b'S', digits) => (digits, 1),
        (b'm' | b'M', digits) => (digits, 60),
        (b'h' | b'H', digits) => (digits, 3600),
        (b'd' | b'D', digits) => (digits, 86_400),
        _ => (text.as_bytes(), 1),
    };
    decimal(digits)?.checked_mul(unit)
}

impl Filter {
    /// Whether it passes a message of this sender and age, judged before its recipients are read.
    pub fn takes(&self, from: &str, age_secs: u64) -> bool {
        let from = if from.is_empty() { "<>" } else { from };
        self.from.as_ref().is_none_or(|pattern| pattern.matches(from))
            && self.older_secs.is_none_or(|least| age_secs >= least)
    }

    /// Whether one recipient in this state makes it pass.
    pub fn takes_recipient(&self, to: &str, state: &str) -> bool {
        self.to.as_ref().is_none_or(|pattern| pattern.matches(to)) && self.state.as_ref().is_none_or(|one| one == state)
    }

    /// Whether recipients matter to it.
    pub fn asks_for_recipients(&self) -> bool {
        self.to.is_some() || self.state.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Ask, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn only(line: &str) -> Filter {
        match read(line) {
            Ok(Ask::List(filter)) => filter,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn words_mean_what_the_page_says() {
        let none = Filter::default();
        for (line, wanted) in [
            ("", Ask::List(none.clone())),
            ("list", Ask::List(none)),
            ("LIST from=*@a.test", Ask::List(only("from=*@a.test"))),
            ("show k3j9x0qw2b", Ask::Show("K3J9X0QW2B".into())),
            ("show 0123456789abB1", Ask::Show("0123456789ABb1".into())),
            ("delete K3J9", Ask::One(Change::Delete, "K3J9".into())),
            ("hold 123456", Ask::One(Change::Hold, "123456".into())),
            ("release to=a*", Ask::All(Change::Release, only("to=a*"), Agreed::No)),
            ("retry", Ask::All(Change::Retry, Filter::default(), Agreed::No)),
            ("retry 3", Ask::All(Change::Retry, Filter::default(), Agreed::Count(3))),
            ("retry --yes", Ask::All(Change::Retry, Filter::default(), Agreed::Yes)),
            ("retry K3J9", Ask::One(Change::Retry, "K3J9".into())),
            ("retry to=a* 12", Ask::All(Change::Retry, only("to=a*"), Agreed::Count(12))),
            ("delete --yes state=HELD from=<>", Ask::All(Change::Delete, only("state=held from=<>"), Agreed::Yes)),
        ] {
            assert_eq!(read(line).unwrap(), wanted, "{line}");
        }
    }

    #[test]
    fn nothing_else_is_taken() {
        for line in [
            "drop K3",
            "show",
            "show a b",
            "show ../x",
            "delete",
            "delete --yes",
            "delete K3 K4",
            "delete K3 --yes",
            "delete 1 2",
            "delete to=a 1 --yes",
            "delete to=a 1 2",
            "from",
            "from=a from=b",
            "size=1",
            "state=gone",
            "older=x",
            "older=1w",
            "older=99999999999999999999",
            "to=!a",
            "list K3",
            "from=",
            "delete a/b",
        ] {
            assert!(read(line).is_err(), "{line}: {:?}", read(line));
        }
    }

    #[test]
    fn a_filter_passes_what_has_all_that_it_names() {
        let filter = only("from=*@a.test,<> older=10m to=*@b.test,!x@b.test state=held");
        for (from, age, passes) in
            [("ann@A.test", 600, true), ("", 600, true), ("ann@A.test", 599, false), ("ann@c.test", 600, false)]
        {
            assert_eq!(filter.takes(from, age), passes, "{from} {age}");
        }
        for (to, state, passes) in
            [("y@b.test", "held", true), ("x@b.test", "held", false), ("y@b.test", "waiting", false)]
        {
            assert_eq!(filter.takes_recipient(to, state), passes, "{to} {state}");
        }
        assert!(filter.asks_for_recipients() && !only("older=3d").asks_for_recipients());
        assert!(Filter::default().takes("x", 0) && Filter::default().takes_recipient("x", "held"));
        for (text, wanted) in [("90s", 90), ("10m", 600), ("2H", 7200), ("3d", 259_200), ("7", 7)] {
            assert_eq!(secs(text), Some(wanted));
        }
    }
}
