//! Why a recipient of the queue still waits, in plain words, and what would let it go on.
//!
//! | the first of these that holds              | what is said                                                       |
//! |--------------------------------------------|---------------------------------------------------------------------|
//! | it failed or expired                        | its sender is about to be told                                      |
//! | it is held                                  | `queue release`                                                     |
//! | all sending is paused                       | `resume`                                                            |
//! | sending to its place is paused              | `resume PLACE`                                                      |
//! | its place is parked                         | ETRN, or `queue route`                                              |
//! | it is being tried, or due                   | nothing: it is next                                                 |
//! | the name servers did not answer (4.4.3)     | `dns_host`, and the time                                            |
//! | it may have been delivered                  | ask the recipient; the time                                         |
//! | its place is left alone for a while         | `queue retry`                                                       |
//! | anything else                               | the time, or `queue retry`                                          |

/// How a recipient stands, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It is new, or was released.
    Waiting,
    /// It was tried in vain, and is due at this time, in seconds since 1970.
    Deferred(i64),
    /// An operator released it not yet.
    Held,
    /// It is lost, and its sender not told yet.
    Lost,
}

/// What is paused, of what concerns a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pause {
    /// Nothing.
    #[default]
    Nothing,
    /// All sending.
    All,
    /// Sending to its place.
    Place,
}

/// What is known of a recipient of the queue.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its message.
    pub id: &'a str,
    /// How it stands.
    pub stands: Stands,
    /// Why it was not delivered the last time: an enhanced code, and words.
    pub why: &'a str,
    /// It may have been delivered by the last try.
    pub possibly: bool,
    /// The place that it goes to, if that is another host.
    pub place: Option<&'a str>,
    /// That place is none: it is kept there until somebody asks for it.
    pub parked: bool,
    /// What is paused.
    pub pause: Pause,
    /// For how many seconds more its place is left alone.
    pub place_secs: Option<u64>,
    /// The time, in seconds since 1970.
    pub now_secs: i64,
}

/// What would let it go on, as a sentence.
pub fn unblock(facts: &Facts<'_>) -> String {
    let Facts { id, place, now_secs, .. } = *facts;
    let next_secs = match facts.stands {
        Stands::Lost => return "its sender is told next: nothing is to be done".to_owned(),
        Stands::Held => return format!("held: `tellsmtp queue release {id}` lets it go"),
        Stands::Deferred(next_secs) => next_secs,
        Stands::Waiting => now_secs,
    };
    match (facts.pause, place) {
        (Pause::All, Some(_)) => return "sending is paused: `tellsmtp resume`".to_owned(),
        (Pause::Place, Some(place)) => return format!("sending to {place} is paused: `tellsmtp resume {place}`"),
        _ => {}
    }
    if facts.parked {
        return format!("parked: its host fetches it with ETRN, or `tellsmtp queue route {id} via=TARGET`");
    }
    if next_secs <= now_secs {
        return "nothing: it is being tried, or comes next".to_owned();
    }
    let wait = time(u64::try_from(next_secs - now_secs).unwrap_or(0));
    if status(facts.why) == Some("4.4.3") {
        return format!("see dns_host and the log; it is tried again in {wait}");
    }
    if facts.possibly {
        return format!(
            "it may have arrived: ask there, then `tellsmtp queue delete {id}`; else it is sent once more in {wait}"
        );
    }
    match (place, facts.place_secs.filter(|&secs| secs > 0)) {
        (Some(place), Some(secs)) => {
            let secs = time(secs);
            format!("{place} is left alone for {secs} more: `tellsmtp queue retry {id}` tries it now")
        }
        _ => format!("it is tried again in {wait}; `tellsmtp queue retry {id}` tries it now"),
    }
}

/// What enhanced codes mean, the first digit aside, where that is clearer than what stands behind them.
const MEANINGS: &[(&str, &str)] = &[
    ("1.8", "the other server does not like the sender's domain"),
    ("2.1", "the mailbox is switched off"),
    ("2.2", "the mailbox is full"),
    ("3.2", "the other server takes no mail just now"),
    ("4.1", "the other server does not answer"),
    ("4.2", "the connection broke, or the other server was too slow"),
    ("4.3", "no name server answers"),
    ("4.4", "it is not known where the mail is to go"),
    ("4.5", "the other server has too much to do"),
    ("4.6", "the mail would go round in circles"),
    ("5.3", "the other server takes fewer recipients at a time"),
    ("7.0", "the other server does not trust this one, or not yet"),
    ("7.1", "the other server does not want it, or not yet"),
];

/// Why, in plain words, with what was said behind them; empty where nothing was.
pub fn plain(why: &str) -> String {
    let meaning = status(why).and_then(|status| {
        let (_, detail) = status.split_once('.')?;
        MEANINGS.iter().find(|(known, _)| *known == detail)
    });
    match meaning {
        Some((_, meaning)) => format!("{meaning} ({why})"),
        None => why.to_owned(),
    }
}

/// The enhanced code that begins a reason.
fn status(why: &str) -> Option<&str> {
    let word = why.split(' ').next()?;
    let digits = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    (word.split('.').count() == 3 && word.split('.').all(digits)).then_some(word)
}

/// `45s`, `12m`, `2h05m`, `3d04h`.
fn time(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m", secs / 60),
        3600..86_400 => format!("{}h{:02}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_page_has_its_sentence_and_the_first_that_holds_is_said() {
        let plain = Facts {
            id: "K3",
            stands: Stands::Deferred(1300),
            why: "4.4.1 no answer",
            possibly: false,
            place: Some("mx a.test"),
            parked: false,
            pause: Pause::Nothing,
            place_secs: None,
            now_secs: 1000,
        };
        let worst =
            Facts { why: "4.4.3 x", possibly: true, parked: true, pause: Pause::All, place_secs: Some(30), ..plain };
        let deferred = Stands::Deferred(1300);
        for (facts, wanted) in [
            (Facts { stands: Stands::Lost, ..worst }, "its sender is told next"),
            (Facts { stands: Stands::Held, ..worst }, "held: `tellsmtp queue release K3`"),
            (worst, "sending is paused: `tellsmtp resume`"),
            (Facts { pause: Pause::Place, ..worst }, "sending to mx a.test is paused: `tellsmtp resume mx a.test`"),
            (
                Facts { pause: Pause::Nothing, ..worst },
                "parked: its host fetches it with ETRN, or `tellsmtp queue route K3",
            ),
            (
                Facts { stands: Stands::Waiting, parked: false, pause: Pause::Nothing, ..worst },
                "nothing: it is being tried",
            ),
            (Facts { parked: false, pause: Pause::Nothing, ..worst }, "see dns_host and the log; it is tried again in"),
            (Facts { possibly: true, place_secs: Some(30), ..plain }, "it may have arrived: ask there"),
            (Facts { place_secs: Some(90), ..plain }, "mx a.test is left alone for 1m more: `tellsmtp queue retry K3`"),
            (Facts { place_secs: Some(0), ..plain }, "it is tried again in 5m; `tellsmtp queue retry K3` tries it now"),
            (plain, "it is tried again in 5m"),
            (Facts { stands: Stands::Deferred(1000), ..plain }, "nothing: it is being tried"),
            // Whom no other host is to have is delivered while sending is paused.
            (Facts { place: None, pause: Pause::All, ..plain }, "it is tried again in 5m"),
            (Facts { stands: deferred, place: None, ..plain }, "it is tried again in 5m"),
        ] {
            let said = unblock(&facts);
            assert!(said.starts_with(wanted), "{facts:?}: {said}");
        }
    }

    #[test]
    fn reasons_are_told_in_plain_words_where_their_codes_have_some() {
        for (why, plainly) in [
            ("4.4.1 connecting: refused", "the other server does not answer (4.4.1 connecting: refused)"),
            ("5.2.2 over quota", "the mailbox is full (5.2.2 over quota)"),
            ("4.2.0 the mailbox is locked", "4.2.0 the mailbox is locked"),
            ("by the operator", "by the operator"),
            ("4.4.1.1 x", "4.4.1.1 x"),
            ("4.4 x", "4.4 x"),
            ("", ""),
        ] {
            assert_eq!(plain(why), plainly);
        }
    }

    #[test]
    fn times_are_short() {
        for (secs, text) in [(5, "5s"), (119, "1m"), (7500, "2h05m"), (100_000, "1d03h")] {
            assert_eq!(time(secs), text);
        }
    }
}
