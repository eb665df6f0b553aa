//! Log lines that clients cause, and what keeps them from filling the log: see [`Flood`](crate::rules::flood::Flood).
//!
//! A session of somebody who logged in always has its line. Everything else that a client can make happen over and over is
//! an [`Event`], and asks first.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use super::Shared;
use crate::rules::flood::{More, Origin};

/// What clients can make happen over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A wrong name or password.
    Refused,
    /// An authenticator did not answer, or not as it should.
    Undecided,
    /// A session ended in which nobody had logged in.
    Stranger,
    /// A file of ours, or a maildrop, could not be used.
    Trouble,
    /// There was no room for a job.
    Busy,
    /// A sender, a recipient or a message was refused.
    Unwanted,
    /// A client that brought no mail has gone.
    Idler,
}

impl Event {
    /// In which service it happens. What happens in several belongs to no one's lines.
    fn service(self) -> &'static str {
        match self {
            Event::Stranger => "pop3",
            Event::Unwanted | Event::Idler => "smtp",
            Event::Refused | Event::Undecided | Event::Trouble | Event::Busy => "clients",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Event::Refused => "logins refused",
            Event::Undecided => "logins that no authenticator could judge",
            Event::Stranger => "sessions without a login",
            Event::Trouble => "troubles with maildrops",
            Event::Busy => "times without room for a job",
            Event::Unwanted => "senders, recipients and messages refused",
            Event::Idler => "SMTP sessions without mail",
        })
    }
}

impl Shared {
    /// Whether this event shall have a line in the log; else it is counted, and told by [`tell`](Shared::tell). What no
    /// client's address belongs to comes from `None`.
    pub fn has_line(&mut self, now: Instant, event: Event, from: Option<IpAddr>) -> bool {
        self.flood.admit(now, event, from)
    }

    /// Says what had no line of its own and is old enough; all of it when we stop.
    pub fn tell(&mut self, now: Instant) {
        let told = if self.stopping { self.flood.finish() } else { self.flood.expire(now) };
        for more in &told {
            log::warn!("{}: {}", more.kind.service(), sentence(more));
        }
    }
}

fn sentence(more: &More<Event>) -> String {
    let More { kind, origin, times } = more;
    match origin {
        Origin::Inside => format!("... and {times} more {kind}"),
        origin => format!("... and {times} more {kind} from {origin}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::flood::{Flood, LINES, WINDOW};

    #[test]
    fn what_had_no_line_is_told_in_one_sentence() {
        let (mut flood, begin) = (Flood::new(), Instant::now());
        for _ in 0..LINES + 7 {
            flood.admit(begin, Event::Refused, Some([192, 0, 2, 7].into()));
            flood.admit(begin, Event::Undecided, None);
        }
        let told: Vec<String> = flood.expire(begin + WINDOW).iter().map(sentence).collect();
        assert_eq!(
            told,
            [
                "... and 7 more logins refused from 192.0.2.0/24",
                "... and 7 more logins that no authenticator could judge"
            ]
        );
    }
}
