//! What becomes of messages, for the statistics: whoever knows it notes it here, and the server hands it to its journal
//! between turns. Without `oneline_stats` nothing is kept.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Shared;
use crate::rules::traffic::{Class, Record};

impl Shared {
    /// Something has become of a message, for these recipients: see [`Class`]. To be said once for each of them; `Sent` once for
    /// all of a message's, when it is accepted.
    pub fn note<'a>(&mut self, class: Class, id: &str, bytes: u64, from: &str, to: impl Iterator<Item = &'a str>) {
        if !self.settings.oneline_stats {
            return;
        }
        let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (id, from) = (id.to_owned(), from.to_owned());
        self.traffic.push(Record { second, class, id, bytes, from, to: to.map(str::to_owned).collect() });
    }
}
