//! Ways as the queue's files have them: a kind, an address, and words behind it.
//!
//! | kind    | address                      | words                                                             |
//! |---------|------------------------------|-------------------------------------------------------------------|
//! | mailbox | the user's own               | who is the sender from here on, if that is not the message's      |
//! | remote  | the recipient's there        | the same                                                          |
//! | local   | one of ours, asked anew      | the same or nothing, then from which step on, if not the first    |
//! | program | whom the program stands for  | the same or nothing, a user's number or nothing, then the command |

use crate::mail::address::Address;
use crate::protocol::smtp::params;
use crate::rules::domains::Name;
use crate::rules::hops::Hop;
use crate::rules::route::Program;
use crate::service::relay;
use crate::service::route::{Destination, Stage, Way};
use crate::settings::Settings;
use crate::store::queue::{Envelope, Kind, Recipient};

/// A user as an address.
pub(super) fn mailbox(name: &Name, settings: &Settings) -> String {
    let shown = name.shown();
    if shown.contains('@') { shown.to_owned() } else { format!("{shown}@{}", settings.main_domain()) }
}

/// A way for what `sender` sent to `named`. What nobody sent stays nobody's, whatever list passes it on: two owners of lists, each
/// a member of the other's, would hear of each other's bounces for ever.
pub(super) fn recipient(way: &Way, sender: &str, named: &params::Recipient, settings: &Settings) -> Recipient {
    let sender = way.sender.as_ref().filter(|_| !sender.is_empty()).map(ToString::to_string);
    let sender_kept = sender.is_none();
    let named_address = named.path.to_string();
    let (kind, address) = match &way.to {
        Destination::Mailbox(name, _) => (Kind::Mailbox, mailbox(name, settings)),
        Destination::Remote(address) => (Kind::Remote, address.to_string()),
        Destination::Local(address, _) => (Kind::Local, address.to_string()),
        Destination::Program(_) => (Kind::Program, named_address.clone()),
    };
    let with = match &way.to {
        Destination::Program(Program { words, user }) => {
            let user = user.map(|user| user.to_string()).unwrap_or_default();
            [sender.unwrap_or_default(), user].into_iter().chain(words.iter().cloned()).collect()
        }
        Destination::Local(_, stage) if *stage != Stage::Whole => {
            vec![sender.unwrap_or_default(), stage.word().to_owned()]
        }
        _ => sender.into_iter().collect(),
    };
    // Whom the owner of a list hears of, and of what, is not what its writer said.
    let notify = named.notify.filter(|_| sender_kept);
    // A report names whom the sender knows.
    let orcpt = named.orcpt.as_deref().map(str::to_owned);
    let orcpt = orcpt.or_else(|| (address != named_address).then(|| params::original(&named.path)));
    Recipient { kind, address, with, notify, orcpt }
}

/// An address that is to be routed when it is tried, or that another host has.
pub(super) fn anywhere(address: &Address, settings: &Settings) -> Recipient {
    let kind = if relay::is_ours(settings, address) { Kind::Local } else { Kind::Remote };
    Recipient { kind, address: address.to_string(), with: Vec::new(), notify: None, orcpt: None }
}

/// Which way a recipient of another host goes: as an operator has said, if he did, else as the settings say.
pub fn hop(settings: &Settings, sender: &str, recipient: &Recipient, via: Option<&str>) -> Hop {
    // What was a way when it was said may be none in a later version.
    let by_hand = via.and_then(|via| settings.hops.parse_via(via, &recipient.address).ok());
    by_hand.unwrap_or_else(|| settings.hops.hop(sender, &recipient.address))
}

/// From whom he gets it, and who hears of it when he cannot.
pub fn sender<'a>(recipient: &'a Recipient, envelope: &'a Envelope) -> &'a str {
    recipient.with.first().filter(|sender| !sender.is_empty()).unwrap_or(&envelope.sender)
}

/// Whether an address that leads there is expanded: to several, or to those of a list with an owner.
pub(super) fn expand(ways: &[Way]) -> bool {
    ways.len() > 1 || ways.iter().any(|way| way.sender.is_some())
}

/// Whether the sender is to hear that this recipient has his message.
pub(super) fn wants_receipt(recipient: &Recipient, envelope: &Envelope, settings: &Settings) -> bool {
    let is_asked = recipient.notify.is_some_and(|notify| notify.success);
    settings.success_reports && is_asked && !sender(recipient, envelope).is_empty()
}

/// From which step on it is asked where an address of ours leads; a mailbox leads on to nobody else.
pub(super) fn stage(recipient: &Recipient) -> Stage {
    match recipient.kind {
        // A user's own mailbox, whatever he has forwarded.
        Kind::Mailbox => Stage::Exact,
        _ => recipient.with.get(1).and_then(|word| Stage::of(word)).unwrap_or(Stage::Whole),
    }
}

/// The program of a recipient that is one.
pub(super) fn program(recipient: &Recipient) -> Option<Program> {
    let [_, user, words @ ..] = &recipient.with[..] else { return None };
    let user = if user.is_empty() { None } else { Some(user.parse().ok()?) };
    (recipient.kind == Kind::Program && !words.is_empty()).then(|| Program { words: words.to_vec(), user })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::mail::address;
    use crate::protocol::helper::Account;
    use crate::rules::domains::Home;

    fn address_of(text: &str) -> Address {
        address::path(format!("<{text}>").as_bytes(), false).unwrap().0.unwrap()
    }

    #[test]
    fn a_way_is_found_again_in_what_the_queue_has_of_it() {
        let settings = Settings::for_tests(Path::new("/srv/mail"));
        let asked = params::Recipient { path: address_of("team@example.test"), notify: None, orcpt: None };
        let name = settings.domains.resolve(b"fred", Home::default()).unwrap();
        let account = Account { user: b"fred".to_vec(), path: None, uid: None, info: Vec::new() };
        let words = vec!["/bin/x".to_owned(), "-a b".to_owned()];
        let envelope = Envelope { sender: "s@x.test".to_owned(), ..Envelope::default() };
        for (to, kind, address) in [
            (Destination::Mailbox(name, Arc::new(account)), Kind::Mailbox, "fred@example.test"),
            (Destination::Remote(address_of("kim@y.test")), Kind::Remote, "kim@y.test"),
            (Destination::Local(address_of("list@example.test"), Stage::Whole), Kind::Local, "list@example.test"),
            (Destination::Local(address_of("ann@example.test"), Stage::Exact), Kind::Local, "ann@example.test"),
            (Destination::Program(Program { words: words.clone(), user: None }), Kind::Program, "team@example.test"),
            (Destination::Program(Program { words: words.clone(), user: Some(7) }), Kind::Program, "team@example.test"),
        ] {
            for owner in [None, Some("owner-team@example.test")] {
                let way = Way { sender: owner.map(address_of), ..Way::to(to.clone()) };
                let recipient = recipient(&way, &envelope.sender, &asked, &settings);
                assert_eq!((recipient.kind, &*recipient.address), (kind, address));
                assert_eq!(sender(&recipient, &envelope), owner.unwrap_or("s@x.test"));
                if let Destination::Local(_, from) = &to {
                    assert_eq!(stage(&recipient), *from);
                }
                let found = match &to {
                    Destination::Program(program) => Some(program.clone()),
                    _ => None,
                };
                assert_eq!(program(&recipient), found);
                let orcpt = (address != "team@example.test").then_some("rfc822;team@example.test");
                assert_eq!(recipient.orcpt.as_deref(), orcpt);
            }
        }
        assert_eq!(anywhere(&address_of("a@example.test"), &settings).kind, Kind::Local);
        assert_eq!(anywhere(&address_of("a@elsewhere.test"), &settings).kind, Kind::Remote);
    }
}
