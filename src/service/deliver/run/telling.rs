//! What became of recipients, told to their sender by messages of the queue.
//!
//! | who                                            | becomes               | and his sender gets, unless he is nobody, or said otherwise by NOTIFY |
//! |------------------------------------------------|-----------------------|---------------------------------------------|
//! | cannot have it, or waited too long             | failed, expired       | a bounce, `IDbN`                             |
//! | has waited `delay_warning`, and waits on        | deferred, to be warned of | a warning, `IDwN`, once                  |
//! | has it, and NOTIFY has SUCCESS                 | succeeded             | a receipt, `IDsN`, with `success_reports`    |
//!
//! Those come first to the file, with the number N; then the report is made, whose id follows from it; then they are noted as told of,
//! before it is tried. All that one round came to is told of together, one report of each kind for each sender: a thousand
//! recipients are no thousand reports.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::{Part, address_of};
use crate::mail::dsn::{Dsn, HEADER_BYTES, LISTED_MAX, Original, Report, Told, What, report_id};
use crate::protocol::smtp::params::Ret;
use crate::rules::retry;
use crate::service::deliver::ways;
use crate::settings::Settings;
use crate::store::delivery::{Body, Failed};
use crate::store::maildrop::Refused;
use crate::store::queue::{Envelope, How, ID_BYTES, Miss, Queue, Recipient, Row, Stage, State, Warned};
use crate::text::fault::Fault;
use crate::text::printable::printable;

/// Recipients that are read at a time.
const GATHERED: u32 = 4096;

/// What a recipient becomes whose message is where it belongs. `why`: what was said to that.
pub(super) fn arrived(recipient: &Recipient, envelope: &Envelope, settings: &Settings, how: How, why: String) -> State {
    if ways::wants_receipt(recipient, envelope, settings) {
        State::Succeeded { how, why, bounce: 0 }
    } else {
        State::Delivered
    }
}

/// Whether the sender is to hear now that a recipient waits who was tried in vain, or has heard it.
pub(super) fn warning(part: &Part, envelope: &Envelope, settings: &Settings, now_secs: i64) -> Warned {
    let silent = part.sender(envelope).is_empty() || part.recipient.notify.is_some_and(|notify| !notify.delay);
    let is_due = retry::warning_is_due(settings.delay_warning, envelope.received_secs, now_secs, part.warned);
    match (part.warned, is_due && !silent) {
        (true, _) => Warned::Yes,
        (false, true) => Warned::Owed(0),
        (false, false) => Warned::No,
    }
}

/// Makes the reports that are due, and notes that they tell of whom they tell. `reports`: the ids of those that the queue has now,
/// also when others could not be made.
pub(super) fn tell(
    queue: &Queue,
    settings: &Settings,
    id: &str,
    envelope: &Envelope,
    secs: i64,
    reports: &mut Vec<String>,
) -> Result<(), Miss> {
    let message = queue.read(id)?;
    if message.tally.untold == 0 {
        return Ok(());
    }
    let (mut made, mut due) = (Vec::new(), BTreeMap::new());
    for ((report, number), about) in gathered(queue, id, envelope)? {
        let is_hushed = match report {
            Report::Bounce => false,
            Report::Delay => about.sender.is_empty(),
            Report::Success => about.sender.is_empty() || !settings.success_reports,
        };
        if is_hushed {
            queue.hush(id, report, secs, &[number])?;
        } else if matches!(queue.read(&report_id(id, report, number)), Err(Miss::Gone)) {
            due.entry((report, about.sender.clone())).or_insert_with(Vec::new).push((number, about));
        } else {
            // Of a try that did not come to its end: whom it names is not named by another.
            made.push((report, number, about));
        }
    }
    for ((report, _), mut abouts) in due {
        let numbers: Vec<u32> = abouts.iter().map(|(number, _)| *number).collect();
        if numbers.len() > 1 {
            queue.tell_together(id, report, secs, &numbers)?;
        }
        let (number, mut about) = abouts.remove(0);
        for (_, more) in abouts {
            about.count += more.count;
            about.told.extend(more.told);
        }
        about.told.truncate(LISTED_MAX);
        made.push((report, number, about));
    }
    let whole_bytes = usize::try_from(settings.bounce_max_size.saturating_mul(1024)).unwrap_or(usize::MAX);
    let mut original = Beginning { whole_bytes, text_bytes: message.text_bytes, bytes: None };
    for (report, number, about) in made {
        let name = report_id(id, report, number);
        let Some(sender) = address_of(&about.sender).filter(|_| name.len() <= ID_BYTES) else {
            // Such a sender is taken from nobody; somebody has written into the file.
            return Err(Miss::Damaged(Fault::new(
                "reading the sender of",
                Path::new(id),
                io::ErrorKind::InvalidData.into(),
            )));
        };
        let told: Vec<Told<'_>> = about.told.iter().map(|one| one.told(envelope, settings, secs)).collect();
        // Only where something failed does anybody miss the rest of it (RFC 3461 §4.3).
        let whole = settings.bounce_body && report == Report::Bounce && envelope.ret != Some(Ret::Headers);
        // A list's owner has sent nothing himself.
        let is_own = about.sender == envelope.sender;
        let written = Dsn {
            id: &name,
            report,
            host: settings.main_domain(),
            sender: &about.sender,
            written_secs: secs,
            origin: id,
            received_secs: envelope.received_secs,
            from: came_from(&envelope.came).as_deref(),
            envid: envelope.envid.as_deref().filter(|_| is_own),
            utf8: envelope.utf8,
            told: &told,
            count: about.count,
            original: original.of(queue, id, envelope, whole)?,
        }
        .written();
        let envelope = Envelope {
            received_secs: secs,
            came: format!("{} of {id}", report.name()),
            eight_bit: written.eight_bit,
            utf8: written.utf8,
            bounce_of: Some((id.to_owned(), number)),
            ..Envelope::default()
        };
        let to = [ways::anywhere(&sender, settings)];
        match queue.create(&name, &envelope, &to, &Body::Memory(&written.text)) {
            Ok(_) => {}
            Err(Failed::Refused(Refused::Fault(fault) | Refused::Unsafe(fault)) | Failed::Unknown(fault)) => {
                return Err(Miss::Fault(fault));
            }
            Err(Failed::Refused(Refused::Locked | Refused::InUse)) => return Err(Miss::Gone),
        }
        queue.told(&name, secs)?;
        log::info!("delivery {id}: {} is told by {name}", printable(about.sender.as_bytes()));
        // Also one that was there: by a try that did not come to its end, of which nobody heard.
        reports.push(name);
    }
    Ok(())
}

/// Those of whom one report tells.
#[derive(Default)]
struct About {
    sender: String,
    count: usize,
    /// The first of them.
    told: Vec<One>,
}

/// Of whom a report tells.
struct One {
    recipient: Recipient,
    state: State,
    at_secs: Option<i64>,
}

/// Who is to be told of, by the reports that they are to be told of by.
fn gathered(queue: &Queue, id: &str, envelope: &Envelope) -> Result<BTreeMap<(Report, u32), About>, Miss> {
    let mut abouts: BTreeMap<(Report, u32), About> = BTreeMap::new();
    let mut from = 1;
    loop {
        let rows = queue.page(id, from, GATHERED)?;
        let Some(last) = rows.last() else { return Ok(abouts) };
        from = last.number + 1;
        for Row { recipient, state, at_secs, .. } in rows {
            let (Some(report), Some(number)) = (state.told_by(), state.report()) else { continue };
            let about = abouts.entry((report, number)).or_default();
            if about.count == 0 {
                about.sender = ways::sender(&recipient, envelope).to_owned();
            }
            about.count += 1;
            if about.told.len() < LISTED_MAX {
                about.told.push(One { recipient, state, at_secs });
            }
        }
    }
}

impl One {
    fn told<'o>(&'o self, envelope: &Envelope, settings: &Settings, secs: i64) -> Told<'o> {
        let what = match &self.state {
            State::Succeeded { how: How::Delivered, .. } => What::Delivered,
            State::Succeeded { how: How::Relayed, .. } => What::Relayed,
            State::Succeeded { how: How::Expanded, .. } => What::Expanded,
            state if state.stage() == Stage::Expired => What::Expired,
            state if state.stage() == Stage::Deferred => {
                What::Delayed(settings.retry_rules().end_secs(false, envelope.received_secs))
            }
            _ => What::Failed,
        };
        Told {
            address: &self.recipient.address,
            orcpt: self.recipient.orcpt.as_deref(),
            what,
            why: self.state.why(),
            tried_secs: self.at_secs.unwrap_or(secs),
        }
    }
}

/// How a message begins, read once.
struct Beginning {
    /// So big is one, at most, that is brought back whole.
    whole_bytes: usize,
    text_bytes: u64,
    /// Our own Received field, and as much of the text as is wanted; whether that is all of it.
    bytes: Option<(Vec<u8>, bool)>,
}

impl Beginning {
    fn of(&mut self, queue: &Queue, id: &str, envelope: &Envelope, whole: bool) -> Result<Original<'_>, Miss> {
        let fits = self.text_bytes <= self.whole_bytes as u64;
        let wanted = if whole && fits { self.whole_bytes } else { HEADER_BYTES };
        let is_there = self.bytes.as_ref().is_some_and(|(bytes, complete)| *complete || bytes.len() >= wanted);
        if !is_there {
            let text = queue.beginning(id, wanted)?;
            let is_complete = text.len() as u64 == self.text_bytes;
            self.bytes = Some(([&envelope.received, &text[..]].concat(), is_complete));
        }
        let (bytes, is_complete) = self.bytes.as_ref().map_or((&[][..], true), |(bytes, all)| (&bytes[..], *all));
        Ok(Original { bytes, is_complete, whole: whole && fits })
    }
}

/// The host that a message came from, out of the words of how it came: `ESMTP from 192.0.2.1 (mx.example.org)`.
fn came_from(came: &str) -> Option<String> {
    let (_, from) = came.split_once(" from ")?;
    let mut words = from.split(' ');
    let address: IpAddr = words.next()?.parse().ok()?;
    let name = words.next().and_then(|word| word.strip_prefix('(')?.strip_suffix(')'));
    Some(match (name, address) {
        (Some(name), _) => name.to_owned(),
        (None, IpAddr::V4(address)) => format!("[{address}]"),
        (None, IpAddr::V6(address)) => format!("[IPv6:{address}]"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_that_a_message_came_from_is_found_in_how_it_came() {
        for (came, host) in [
            ("ESMTPSA from 192.0.2.1 (mx.example.org) as ann", Some("mx.example.org")),
            ("ESMTP from 192.0.2.1", Some("[192.0.2.1]")),
            ("ESMTP from 2001:db8::1 as ann", Some("[IPv6:2001:db8::1]")),
            ("left by uid 1000", None),
            ("from this server", None),
            ("ESMTP from uid 7", None),
        ] {
            assert_eq!(came_from(came).as_deref(), host, "{came}");
        }
    }
}
