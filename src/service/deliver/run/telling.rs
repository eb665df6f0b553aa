//! That recipients are lost, told to their sender by a message of the queue.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{PAGE, address_of};
use crate::mail::dsn::{BODY_BYTES, Bounce, Failure, HEADER_BYTES, LISTED_MAX, Report, report_id};
use crate::service::deliver::ways;
use crate::settings::Settings;
use crate::store::delivery::{Body, Failed};
use crate::store::maildrop::Refused;
use crate::store::queue::{Envelope, ID_BYTES, Miss, Queue, Stage, State};
use crate::text::fault::Fault;
use crate::text::printable::printable;

/// Makes the bounces that tell of those who are lost, and notes that they are told of. `bounces`: the ids of those that the queue
/// has now, also when others could not be made.
pub(super) fn tell(
    queue: &Queue,
    settings: &Settings,
    id: &str,
    envelope: &Envelope,
    secs: i64,
    bounces: &mut Vec<String>,
) -> Result<(), Miss> {
    if queue.read(id)?.tally.untold == 0 {
        return Ok(());
    }
    let mut losses: BTreeMap<u32, Loss> = BTreeMap::new();
    let mut from = 1;
    loop {
        let rows = queue.page(id, from, PAGE)?;
        let Some(last) = rows.last() else { break };
        from = last.number + 1;
        for row in &rows {
            let (State::Failed { why, bounce } | State::Expired { why, bounce }) = &row.state else { continue };
            let loss = losses.entry(*bounce).or_default();
            loss.count += 1;
            if loss.sender.is_empty() {
                loss.sender = ways::sender(&row.recipient, envelope).to_owned();
            }
            if loss.failures.len() < LISTED_MAX {
                let expired = row.state.stage() == Stage::Expired;
                loss.failures.push((ways::named(&row.recipient), why.clone(), expired));
            }
        }
    }
    let limit = if settings.bounce_body { BODY_BYTES } else { HEADER_BYTES };
    let original = queue.beginning(id, limit + 1)?;
    for (number, loss) in losses {
        let bounce = report_id(id, Report::Bounce, number);
        let Some(sender) = address_of(&loss.sender).filter(|_| bounce.len() <= ID_BYTES) else {
            // Such a sender is taken from nobody; somebody has written into the file.
            return Err(Miss::Damaged(Fault::new(
                "reading the sender of",
                Path::new(id),
                io::ErrorKind::InvalidData.into(),
            )));
        };
        let failures: Vec<Failure<'_>> =
            loss.failures.iter().map(|(address, why, expired)| Failure { address, why, expired: *expired }).collect();
        let text = Bounce {
            id: &bounce,
            host: settings.main_domain(),
            sender: &loss.sender,
            written_secs: secs,
            origin: id,
            received_secs: envelope.received_secs,
            failures: &failures,
            count: loss.count,
            original: &original,
            whole: settings.bounce_body,
        };
        let about = Envelope {
            received_secs: secs,
            came: format!("a bounce of {id}"),
            eight_bit: true,
            utf8: envelope.utf8,
            bounce_of: Some((id.to_owned(), number)),
            ..Envelope::default()
        };
        let to = [ways::anywhere(&sender, settings)];
        let text = text.text();
        match queue.create(&bounce, &about, &to, &Body::Memory(&text)) {
            Ok(_) => {}
            Err(Failed::Refused(Refused::Fault(fault) | Refused::Unsafe(fault)) | Failed::Unknown(fault)) => {
                return Err(Miss::Fault(fault));
            }
            Err(Failed::Refused(Refused::Locked | Refused::InUse)) => return Err(Miss::Gone),
        }
        queue.told(&bounce, secs)?;
        log::info!("delivery {id}: {} is told by {bounce}", printable(loss.sender.as_bytes()));
        // Also one that was there: by a try that did not come to its end, of which nobody heard.
        bounces.push(bounce);
    }
    Ok(())
}

/// Those of whom one bounce tells.
#[derive(Default)]
struct Loss {
    sender: String,
    count: usize,
    /// Whom the sender had named, why, and whether it only took too long.
    failures: Vec<(String, String, bool)>,
}
