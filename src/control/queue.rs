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
//! | `route ... via=TARGET`                  | as a change; TARGET says which way, as a `route` line of the settings does |
//! | `route ... via=normal`                  | the way that the settings say                                           |
//!
//! A CHANGE is one of [`CHANGES`], a FILTER one of [`FILTERS`], each at most once. An ID is letters and digits, in any case.

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Take it out of the queue; nobody is told.
    Delete,
    /// Nobody tries it until it is released.
    Hold,
    /// It is tried again like any other.
    Release,
    /// It is tried now.
    Retry,
    /// It goes this way from now on, a target as in a line of the settings, and is tried now; empty: as the settings say.
    Route(Box<str>),
}

/// The names of all changes there are.
pub const CHANGES: [&str; 5] = ["delete", "hold", "release", "retry", "route"];
/// Bytes of a target.
pub const VIA_BYTES: usize = 255;
/// The target that stands for what the settings say.
const NORMAL: &str = "normal";

impl Change {
    /// Its name.
    pub fn name(&self) -> &'static str {
        CHANGES[match self {
            Change::Delete => 0,
            Change::Hold => 1,
            Change::Release => 2,
            Change::Retry => 3,
            Change::Route(_) => 4,
        }]
    }
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
    /// The domain of one of the recipients.
    pub domain: Option<PatternList>,
    /// The place that it goes to.
    pub place: Option<PatternList>,
    /// Why it waits.
    pub reason: Option<PatternList>,
    /// Bytes of text, at least and at most.
    pub bytes: Option<(u64, u64)>,
    /// The least bytes of text.
    pub larger: Option<u64>,
}

/// What a filter asks of one recipient. What it does not ask for may be empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen<'a> {
    /// Its address.
    pub to: &'a str,
    /// Its state's word.
    pub state: &'a str,
    /// The place that it goes to.
    pub place: &'a str,
    /// Why it waits.
    pub reason: &'a str,
}

/// States that messages of a queue are looked for by.
pub const STATES: [&str; 7] = ["waiting", "deferred", "held", "failed", "expired", "succeeded", "possibly"];

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
    ("domain", "PATTERN", |filter, text| {
        filter.domain = Some(PatternList::parse(text)?);
        Ok(())
    }),
    ("place", "PATTERN", |filter, text| {
        filter.place = Some(PatternList::parse(text)?);
        Ok(())
    }),
    ("reason", "PATTERN", |filter, text| {
        filter.reason = Some(PatternList::parse(text)?);
        Ok(())
    }),
    ("size", "SIZE[-SIZE]", |filter, text| {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let range = bytes(least).zip(bytes(most)).filter(|(least, most)| least <= most);
        filter.bytes = Some(range.ok_or_else(|| format!("`{text}` is no size: 5123, 10k, 1m-2m"))?);
        Ok(())
    }),
    ("larger", "SIZE", |filter, text| {
        filter.larger = Some(bytes(text).ok_or_else(|| format!("`{text}` is no size: 5123, 10k, 1m"))?);
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
    let (mut agreed, mut others) = (Agreed::No, Vec::new());
    let (change, rest) = match &verb[..] {
        "delete" => (Change::Delete, rest.to_vec()),
        "hold" => (Change::Hold, rest.to_vec()),
        "release" => (Change::Release, rest.to_vec()),
        "retry" => (Change::Retry, rest.to_vec()),
        "route" => route(rest)?,
        _ => return Err(format!("`{first}`: queue takes list, show, {}", CHANGES.join(", "))),
    };
    let may_be_all = change == Change::Retry;
    for word in &rest {
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

/// The target in these words, which goes its own way, and the others.
fn route(words: &[String]) -> Result<(Change, Vec<String>), String> {
    let (vias, others): (Vec<&String>, Vec<&String>) =
        words.iter().partition(|word| word.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case("via=")));
    let [via] = vias[..] else { return Err("queue route takes one via=TARGET; via=normal takes it back".to_owned()) };
    let target = via[4..].trim();
    if target.is_empty() || target.len() > VIA_BYTES || target.chars().any(char::is_control) {
        return Err(format!("`{via}`: a target has from 1 to {VIA_BYTES} bytes, as in a `route` line of the settings"));
    }
    let target = if target.eq_ignore_ascii_case(NORMAL) { "" } else { target };
    Ok((Change::Route(target.into()), others.into_iter().cloned().collect()))
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

/// `5123`, `10k`, `2m`, `1g`: bytes, the letters standing for powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().split_last()? {
        (b'k' | b'K', digits) => (digits, 1 << 10),
        (b'm' | b'M', digits) => (digits, 1 << 20),
        (b'g' | b'G', digits) => (digits, 1 << 30),
        _ => (text.as_bytes(), 1),
    };
    decimal(digits)?.checked_mul(unit)
}

impl Filter {
    /// Whether it passes a message of this sender, age and size, judged before its recipients are read.
    pub fn takes(&self, from: &str, age_secs: u64, bytes: u64) -> bool {
        let from = if from.is_empty() { "<>" } else { from };
        self.from.as_ref().is_none_or(|pattern| pattern.matches(from))
            && self.older_secs.is_none_or(|least| age_secs >= least)
            && self.bytes.is_none_or(|(least, most)| (least..=most).contains(&bytes))
            && self.larger.is_none_or(|least| bytes >= least)
    }

    /// Whether this recipient makes it pass.
    pub fn takes_recipient(&self, seen: Seen<'_>) -> bool {
        let passes =
            |pattern: &Option<PatternList>, text: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(text));
        let domain = seen.to.rsplit_once('@').map_or("", |(_, domain)| domain);
        // Who may have it already is deferred as well.
        let is_state = |one: &String| one == seen.state || one == "deferred" && seen.state == "possibly";
        self.state.as_ref().is_none_or(is_state)
            && passes(&self.to, seen.to)
            && passes(&self.domain, domain)
            && passes(&self.reason, seen.reason)
            && passes(&self.place, seen.place)
    }

    /// Whether recipients matter to it.
    pub fn asks_for_recipients(&self) -> bool {
        self.to.is_some()
            || self.state.is_some()
            || self.domain.is_some()
            || self.reason.is_some()
            || self.asks_for_places()
    }

    /// Whether it matters where they go.
    pub fn asks_for_places(&self) -> bool {
        self.place.is_some()
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
            ("route K3J9 via=[::1]:25", Ask::One(Change::Route("[::1]:25".into()), "K3J9".into())),
            ("route VIA=Normal domain=a.test", Ask::All(Change::Route("".into()), only("domain=a.test"), Agreed::No)),
            ("route to=a via=mx 9", Ask::All(Change::Route("mx".into()), only("to=a"), Agreed::Count(9))),
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
            "size=x",
            "size=2-1",
            "size=1t",
            "larger=",
            "weight=1",
            "route K3",
            "route via=mx",
            "route K3 via=",
            "route K3 via=a via=b",
            "hold K3 via=mx",
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
            assert_eq!(filter.takes(from, age, 1), passes, "{from} {age}");
        }
        let seen = |to, state| Seen { to, state, place: "mx b.test", reason: "4.4.1 no answer, none at all" };
        for (to, state, passes) in
            [("y@b.test", "held", true), ("x@b.test", "held", false), ("y@b.test", "waiting", false)]
        {
            assert_eq!(filter.takes_recipient(seen(to, state)), passes, "{to} {state}");
        }
        for (line, passes) in [
            ("domain=B.test", true),
            ("domain=test", false),
            ("domain=*@b.test", false),
            ("place=mx?*.test", true),
            ("place=relay*", false),
            ("reason=4.4.*", true),
            ("reason=*refused*", false),
            ("reason=4.4.* place=relay* state=held", false),
        ] {
            let filter = only(line);
            assert_eq!(filter.takes_recipient(seen("x@b.test", "held")), passes, "{line}");
            assert!(filter.asks_for_recipients() && filter.asks_for_places() == line.contains("place"), "{line}");
        }
        for (line, bytes, passes) in [
            ("size=10", 10, true),
            ("size=10", 11, false),
            ("size=1k-2K", 1024, true),
            ("size=1k-2k", 2049, false),
            ("larger=1m", 1 << 20, true),
            ("larger=1m", (1 << 20) - 1, false),
        ] {
            assert_eq!(only(line).takes("x", 0, bytes), passes, "{line} {bytes}");
        }
        assert!(!only("older=3d").asks_for_recipients() && !only("larger=1").asks_for_recipients());
        assert!(Filter::default().takes("x", 0, 0) && Filter::default().takes_recipient(seen("x", "held")));
        for (text, wanted) in [("90s", 90), ("10m", 600), ("2H", 7200), ("3d", 259_200), ("7", 7)] {
            assert_eq!(secs(text), Some(wanted));
        }
    }
}
