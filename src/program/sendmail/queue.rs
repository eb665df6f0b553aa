//! `mailq`: what waits in the queue, in the columns that sendmail has always printed, because programs read them.
//!
//! ```text
//!                 Mail queue (2 requests)
//! -----Q-ID----- --Size-- -----Q-Time----- ------------Sender/Recipient-----------
//! 7k2f9qm3x0ab       1204 Mon Jan  5 11:00 <ann@example.org>
//!                  (deferred: 4.2.0 the mailbox is locked)
//!                                          <bob@example.com>
//!                 Total requests: 2
//! ```
//!
//! The server is asked for the list, then for each message: one that leaves the queue in between is not printed. Who has his
//! message is not printed either.

use std::fmt::Write as _;

use jiff::{SignedDuration, Zoned};
use serde_json::Value;

use super::{Office, SOFTWARE, Trouble, asked};

/// What is printed when nothing waits.
const EMPTY: &str = "Mail queue is empty\n";

/// What `mailq` prints.
pub(super) fn listed(office: &Office) -> Result<String, Trouble> {
    let json = |words: &[&str]| {
        let text = asked(office, &[words, &["--json"]].concat())?;
        serde_json::from_str::<Value>(&text).map_err(|error| (SOFTWARE, format!("the server's report: {error}")))
    };
    let list = json(&["tellsmtp", "queue"])?;
    let mut shown = |id: &str| json(&["tellsmtp", "queue", "show", id]).ok();
    Ok(columns(&list, &mut shown, &Zoned::now()))
}

/// The columns, of the server's reports.
fn columns(list: &Value, show: &mut dyn FnMut(&str) -> Option<Value>, now: &Zoned) -> String {
    let messages = list["queue"].as_array().map(Vec::as_slice).unwrap_or_default();
    let count = list["messages"].as_u64().unwrap_or(0);
    if count == 0 {
        return EMPTY.to_owned();
    }
    let requests = if count == 1 { "request" } else { "requests" };
    let mut text = format!("\t\tMail queue ({count} {requests})\n");
    text += "-----Q-ID----- --Size-- -----Q-Time----- ------------Sender/Recipient-----------\n";
    for message in messages {
        let Some(shown) = message["id"].as_str().and_then(&mut *show) else { continue };
        write(&mut text, &shown, now);
    }
    if let Some(rest) = list["not_shown"].as_u64() {
        let _ = writeln!(text, "\t\t({rest} more)");
    }
    let _ = writeln!(text, "\t\tTotal requests: {count}");
    text
}

/// One message, as `queue show` has it.
fn write(text: &mut String, shown: &Value, now: &Zoned) {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let age = SignedDuration::from_secs(shown["age_secs"].as_i64().unwrap_or(0));
    let time = now.checked_sub(age).unwrap_or_else(|_| now.clone()).strftime("%a %b %e %H:%M").to_string();
    let from = word(&shown["from"]);
    let from = if from.starts_with('<') { from } else { format!("<{from}>") };
    let _ = writeln!(text, "{:<14} {:>8} {time} {from}", word(&shown["id"]), shown["bytes"].as_u64().unwrap_or(0));
    let recipients = shown["who"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut said = String::new();
    for recipient in recipients.iter().filter(|recipient| waits(&recipient["state"])) {
        let (state, why) = (word(&recipient["state"]), word(&recipient["why"]));
        let reason = if why.is_empty() { state } else { format!("{state}: {why}") };
        // One reason for all those who stand below it.
        if reason != said {
            let _ = writeln!(text, "                 ({reason})");
            said = reason;
        }
        let _ = writeln!(text, "\t\t\t\t\t <{}>", word(&recipient["address"]));
    }
}

fn waits(state: &Value) -> bool {
    matches!(state.as_str(), Some("waiting" | "deferred" | "held"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_waits_is_printed_in_the_columns_of_sendmail() {
        let now: Zoned = "2026-01-05T11:00:30[UTC]".parse().unwrap();
        let show = |id: &str| {
            let to = |address: &str, state: &str, why: &str| json!({"address": address, "state": state, "why": why});
            match id {
                "A" => Some(json!({
                    "id": "A", "from": "ann@example.org", "age_secs": 90, "bytes": 1204,
                    "who": [
                        to("bob@x.test", "deferred", "4.2.0 locked"), to("eve@x.test", "deferred", "4.2.0 locked"),
                        to("kim@x.test", "delivered", ""), to("lee@x.test", "waiting", ""),
                    ],
                })),
                "B" => Some(json!({
                    "id": "B", "from": "<>", "age_secs": 86_400, "bytes": 7,
                    "who": [to("bob@x.test", "held", "by the operator")],
                })),
                _ => None,
            }
        };
        let list = json!({"messages": 4, "not_shown": 1, "queue": [{"id": "A"}, {"id": "gone"}, {"id": "B"}]});
        assert_eq!(
            columns(&list, &mut { show }, &now),
            "\t\tMail queue (4 requests)\n\
             -----Q-ID----- --Size-- -----Q-Time----- ------------Sender/Recipient-----------\n\
             A                  1204 Mon Jan  5 10:59 <ann@example.org>\n\
             \x20                (deferred: 4.2.0 locked)\n\
             \t\t\t\t\t <bob@x.test>\n\
             \t\t\t\t\t <eve@x.test>\n\
             \x20                (waiting)\n\
             \t\t\t\t\t <lee@x.test>\n\
             B                     7 Sun Jan  4 11:00 <>\n\
             \x20                (held: by the operator)\n\
             \t\t\t\t\t <bob@x.test>\n\
             \t\t(1 more)\n\
             \t\tTotal requests: 4\n"
        );
        assert_eq!(columns(&json!({"messages": 0, "queue": []}), &mut { show }, &now), EMPTY);
    }
}
