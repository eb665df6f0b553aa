//! Reports to senders: of failure, of delay, of success.

use super::*;
use crate::mail::dsn::{Report, report_id};
use crate::protocol::smtp::params::Notify;
use crate::rules::route;
use crate::service::send;
use crate::store::delivery;
use crate::store::queue::{self, Change, Kind, State, Warned};

const SUCCESS: Notify = Notify { success: true, failure: true, delay: true };
const SENDER: &str = "bob@example.test";

impl World {
    /// A message of bob's for these, with that NOTIFY.
    fn asked(&mut self, users: &[&str], notify: Notify) -> Parcel {
        let mut parcel = self.parcel("Subject: tea\nMessage-ID: <1@x.test>\n\nAt five.\n", users);
        parcel.sender.path = Some(address_of(SENDER));
        for to in &mut parcel.recipients {
            to.recipient.notify = Some(notify);
        }
        parcel
    }

    /// In the queue, as if a server had put it there before this one.
    fn filed(&self, id: &str, sender: &str, recipients: &[queue::Recipient]) {
        let envelope =
            queue::Envelope { sender: sender.to_owned(), received_secs: EPOCH, ..queue::Envelope::default() };
        let body = delivery::Body::Memory(b"Subject: tea\n\nAt five.\n");
        self.shared.transit.queue().create(id, &envelope, recipients, &body).unwrap();
    }

    /// The reports that a user got, one after the other.
    fn reports_of(&self, user: &str) -> Vec<String> {
        let mail = self.mail_of(user);
        let reports = mail.split("From MAILER-DAEMON ").skip(1);
        reports.filter(|text| text.contains("report-type=delivery-status")).map(str::to_owned).collect()
    }

    fn note(&self, id: &str, number: u32, to: State) {
        self.shared.transit.queue().note(id, EPOCH, &[Change { number, to }]).unwrap();
    }
}

fn local(user: &str, notify: Option<Notify>) -> queue::Recipient {
    let address = format!("{user}@example.test");
    queue::Recipient { kind: Kind::Local, address, with: Vec::new(), notify, orcpt: None }
}

#[test]
fn who_asked_for_it_hears_that_it_was_delivered_and_nobody_else() {
    for (is_on, notify, sender, receipts) in [
        (true, SUCCESS, Some(SENDER), 1),
        (true, Notify { success: false, ..SUCCESS }, Some(SENDER), 0),
        (true, SUCCESS, None, 0),
        (false, SUCCESS, Some(SENDER), 0),
    ] {
        let mut world = World::with(|settings| settings.success_reports = is_on);
        let mut parcel = world.asked(&["eve", "kim"], notify);
        parcel.sender.path = sender.map(address_of);
        parcel.sender.envid = Some("QQ+2B1".into());
        assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
        world.pass(Duration::from_secs(10));
        for user in ["eve", "kim"] {
            assert_eq!(world.mail_of(user).matches("At five.").count(), 1);
        }
        let reports = world.reports_of("bob");
        assert_eq!((reports.len(), world.queue().len()), (receipts, 0), "{is_on} {notify:?} {sender:?}");
        for report in reports {
            for said in [
                "\nReturn-Path: <>\n",
                "\nSubject: Your message was delivered\n",
                "\nIn-Reply-To: <1@x.test>\n",
                "\nOriginal-Envelope-Id: QQ+1\n",
                "\nFinal-Recipient: rfc822;eve@example.test\nAction: delivered\nStatus: 2.0.0\n",
                "\nFinal-Recipient: rfc822;kim@example.test\nAction: delivered\nStatus: 2.0.0\n",
            ] {
                assert!(report.contains(said), "{said}: {report}");
            }
            assert!(!report.contains("At five."), "nobody misses what he has");
        }
    }
}

#[test]
fn one_drop_alone_is_told_of_as_well() {
    let mut world = World::new();
    let parcel = world.asked(&["eve"], SUCCESS);
    assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    world.pass(Duration::from_secs(10));
    assert_eq!((world.reports_of("bob").len(), world.mail_of("eve").matches("At five.").count()), (1, 1));
    assert!(world.queue().is_empty());
}

#[test]
fn an_address_that_leads_to_several_is_expanded_and_only_failures_are_told_of_then() {
    let mut world = World::new();
    let mut table = route::Table::default();
    let addressee = |user: &str| route::Addressee::new(user.to_owned(), "example.test".to_owned());
    let targets = ["eve", "kim", "gone"].map(|user| route::Target::Exact(addressee(user))).to_vec();
    table.forward(&world.shared.settings.domains, &addressee("team"), targets, false, ("forward", 0));
    world.shared.routes = Arc::new(table);
    world.users = Some(vec!["bob", "eve", "kim", "team"]);
    let mut parcel = world.asked(&[], SUCCESS);
    let mut team = world.to("team", vec![world.mailbox("eve"), world.mailbox("kim")]);
    team.recipient.notify = Some(SUCCESS);
    parcel.recipients.push(team);
    assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
    for _ in 0..5 {
        world.pass(Duration::from_secs(10));
    }
    for user in ["eve", "kim"] {
        assert_eq!(world.mail_of(user).matches("At five.").count(), 1, "{user}");
    }
    let reports = world.reports_of("bob");
    let of = |what: &str| reports.iter().filter(|report| report.contains(what)).count();
    assert_eq!((reports.len(), of("\nAction: expanded\n"), of("\nAction: failed\n")), (2, 1, 1), "{reports:?}");
    assert_eq!(of("\nFinal-Recipient: rfc822;team@example.test\n"), 1);
    assert_eq!(of("\nOriginal-Recipient: rfc822;team@example.test\nFinal-Recipient: rfc822;gone@example.test\n"), 1);
    assert!(world.queue().is_empty());
}

#[test]
fn what_went_on_in_the_place_of_an_expanded_address_is_told_of_though_the_server_was_killed_then() {
    let world = World::new();
    world.filed("A1", SENDER, &[local("team", Some(SUCCESS))]);
    world.filed("A1r1", SENDER, &[local("eve", None), local("kim", None)]);
    let mut world = world.restart();
    // The other one is tried first, or beside it.
    world.settle();
    world.pass(Duration::from_secs(10));
    let reports = world.reports_of("bob");
    assert!(reports.len() == 1 && reports[0].contains("\nAction: expanded\n"), "{reports:?}");
    assert_eq!(world.mail_of("eve").matches("At five.").count(), 1);
}

#[test]
fn hundreds_who_come_to_the_same_in_one_round_are_told_of_together() {
    let world = World::new();
    let all: Vec<queue::Recipient> = (0..300).map(|k| local(&format!("gone{k}"), None)).collect();
    world.filed("A1", SENDER, &all);
    let mut world = world.restart();
    world.settle();
    for _ in 0..5 {
        world.pass(Duration::from_secs(10));
    }
    let reports = world.reports_of("bob");
    assert!(reports.len() == 1 && reports[0].contains("\nAnd 200 more.\n"), "{}", reports.len());
    assert_eq!((world.shared.transit.counts.failed, world.queue().len()), (300, 0));
}

#[test]
fn a_last_page_with_nothing_to_try_does_not_keep_what_the_pages_before_came_to() {
    let world = World::new();
    let all: Vec<queue::Recipient> = (0..65).map(|k| local(&format!("gone{k}"), None)).collect();
    world.filed("A1", SENDER, &all);
    world.note("A1", 65, State::Held { why: "x".to_owned() });
    let mut world = world.restart();
    world.settle();
    world.pass(Duration::from_secs(10));
    assert_eq!((world.reports_of("bob").len(), world.queue()), (1, vec!["A1".to_owned()]));
}

/// Bob's message waits for eve, whose drop is locked, for so long.
fn waits(notify: Option<Notify>, secs: u64) -> World {
    let mut world = World::with(|settings| settings.delay_warning = 1000);
    let mut parcel = world.asked(&["eve"], SUCCESS);
    parcel.recipients[0].recipient.notify = notify;
    let lock = world.lock("eve");
    world.send(parcel);
    for _ in 0..secs / 100 {
        world.pass(Duration::from_secs(100));
    }
    drop(lock);
    world
}

#[test]
fn who_waits_long_is_told_of_once_and_only_where_that_is_wanted() {
    for (notify, secs, warnings) in [
        (None, 900, 0),
        (None, 4000, 1),
        (Some(Notify { success: false, ..SUCCESS }), 20_000, 1),
        (Some(Notify { delay: false, ..SUCCESS }), 20_000, 0),
        (Some(Notify::default()), 20_000, 0),
    ] {
        let mut world = waits(notify, secs);
        let reports = world.reports_of("bob");
        assert_eq!(reports.len(), warnings, "{notify:?} {secs}");
        for report in &reports {
            for said in [
                "\nSubject: Your message is delayed\n",
                "\nAction: delayed\n",
                "\nWill-Retry-Until: Sat, 10 Jan 2026 11:00:00 +0000\n",
                "You need\nnot send it again.",
            ] {
                assert!(report.contains(said), "{said}: {report}");
            }
        }
        for _ in 0..50 {
            world.pass(Duration::from_secs(100));
        }
        assert_eq!((world.mail_of("eve").matches("At five.").count(), world.queue().len()), (1, 0));
    }
}

#[test]
fn a_report_that_is_owed_is_made_once_whatever_happens_meanwhile() {
    let deferred = State::Deferred {
        next_secs: EPOCH + 3000,
        tries: 1,
        why: "4.2.0 mailbox is locked".to_owned(),
        possibly: false,
        warned: Warned::Owed(0),
    };
    let succeeded = State::Succeeded { how: queue::How::Relayed, why: String::new(), bounce: 0 };
    let failed = State::Failed { why: "5.0.0 no".to_owned(), bounce: 0 };
    for (report, state) in [(Report::Delay, deferred), (Report::Success, succeeded), (Report::Bounce, failed)] {
        // The report is there and nobody has noted that, or it is not.
        for is_made in [false, true] {
            let mut world = World::new();
            world.filed("A1", SENDER, &[local("eve", None)]);
            world.note("A1", 1, state.clone());
            if is_made {
                let envelope = queue::Envelope { bounce_of: Some(("A1".to_owned(), 1)), ..queue::Envelope::default() };
                let text = b"Subject: x\nContent-Type: multipart/report; report-type=delivery-status\n\n\n";
                let (id, to) = (report_id("A1", report, 1), [local("bob", None)]);
                world.shared.transit.queue().create(&id, &envelope, &to, &delivery::Body::Memory(text)).unwrap();
            }
            for _ in 0..3 {
                world = world.restart();
                world.settle();
                world.pass(Duration::from_secs(10));
                assert_eq!(world.reports_of("bob").len(), 1, "{report:?}, made: {is_made}");
                let left = usize::from(report == Report::Delay);
                assert_eq!(world.queue().len(), left, "{report:?}: {:?}", world.queue());
            }
        }
    }
}

#[test]
fn those_of_whom_a_report_was_made_are_not_named_by_another() {
    let failed = State::Failed { why: "5.0.0 no".to_owned(), bounce: 0 };
    let world = World::new();
    world.filed("A1", SENDER, &["eve", "kim", "max"].map(|user| local(user, None)));
    for number in 1..=3 {
        world.note("A1", number, failed.clone());
    }
    let envelope = queue::Envelope { bounce_of: Some(("A1".to_owned(), 2)), ..queue::Envelope::default() };
    let text = b"Content-Type: multipart/report; report-type=delivery-status\n\nkim\n";
    world
        .shared
        .transit
        .queue()
        .create("A1b2", &envelope, &[local("bob", None)], &delivery::Body::Memory(text))
        .unwrap();
    let mut world = world.restart();
    world.settle();
    world.pass(Duration::from_secs(10));
    let reports = world.reports_of("bob");
    let of = |user: &str| reports.iter().filter(|report| report.contains(user)).count();
    assert_eq!((reports.len(), of("eve@"), of("kim"), of("max@")), (2, 1, 1, 1), "{reports:?}");
    assert!(reports.iter().any(|report| report.contains("eve@") && report.contains("max@")));
    assert!(world.queue().is_empty());
}

#[test]
fn what_an_lmtp_server_took_is_delivered_and_what_another_host_took_is_relayed() {
    for (lmtp, action) in [(true, "Action: delivered\n"), (false, "Action: relayed\n")] {
        let mut world = World::new();
        world.calls_last = true;
        let body = world.body(b"Subject: x\n\nhello\n");
        let mut to = world.to("eve", vec![Destination::Remote(address_of("eve@far.test"))]);
        to.recipient.notify = Some(SUCCESS);
        let mut parcel = world.parcel_of(body, vec![to]);
        parcel.sender.path = Some(address_of(SENDER));
        assert!(matches!(world.sent(parcel), Some(Dispatched::Kept)));
        let given = world.runner.doing.iter().find(|(_, doing)| matches!(doing, Doing::Send(..)));
        let ticket = Ticket { id: world.office, serial: *given.unwrap().0 };
        let came = send::Came::Taken { said: "host: 250 ok".to_owned(), dsn: false, lmtp };
        world
            .shared
            .post
            .push_back((ticket, Outcome::Sent(Box::new(send::Sent { fates: vec![(0, came)], line: None }))));
        world.pass(Duration::from_secs(10));
        let reports = world.reports_of("bob");
        assert_eq!((reports.len(), reports[0].matches(action).count()), (1, 1), "{reports:?}");
    }
}
