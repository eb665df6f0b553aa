use proptest::prelude::*;

use super::*;

const WRITTEN: i64 = 1_767_610_800;
const CAME: i64 = 1_767_610_000;
const TEXT: &[u8] =
    b"Received: from mx\n\tby mail.example.com\nMessage-ID: <1@example.org>\r\nSubject: tea\r\n\tand cake\r\n\r\nAt five.\n";

fn told<'a>(address: &'a str, what: What, why: &'a str) -> Told<'a> {
    Told { address, orcpt: None, what, why, tried_secs: WRITTEN - 60 }
}

fn dsn<'a>(report: Report, told: &'a [Told<'a>]) -> Dsn<'a> {
    Dsn {
        id: "7K2Fb1",
        report,
        host: "mail.example.com",
        sender: "ann@example.org",
        written_secs: WRITTEN,
        origin: "7K2F",
        received_secs: CAME,
        from: Some("mx.example.org"),
        envid: Some("QQ+2B314159"),
        utf8: false,
        told,
        count: told.len(),
        original: Original { bytes: TEXT, is_complete: true, whole: false },
    }
}

fn text(dsn: &Dsn<'_>) -> String {
    String::from_utf8(dsn.written().text).unwrap()
}

/// Of which parts a report is: the header of each, and what follows that.
fn parts(text: &str) -> Vec<(String, String)> {
    let (head, body) = text.split_once("\n\n").unwrap();
    let boundary = head.split_once("boundary=\"").unwrap().1.split_once('"').unwrap().0;
    let separator = format!("\n--{boundary}\n");
    let end = format!("\n--{boundary}--\n");
    let inner = body.strip_suffix(&end).expect("it ends");
    assert!(!inner.contains(&end));
    let mut parts = vec![(String::new(), head.to_owned())];
    for part in inner.split(&separator).skip(1) {
        let (head, body) = part.split_once("\n\n").unwrap();
        parts.push((head.to_owned(), body.to_owned()));
    }
    parts
}

#[test]
fn a_bounce_says_who_does_not_get_what_and_why_to_people_and_to_machines() {
    let all = [
        Told {
            orcpt: Some("rfc822;bob+2Btea@example.com"),
            ..told("bob@mail.example.com", What::Failed, "5.1.1 No such user here")
        },
        told("lee@example.net", What::Failed, "5.7.1 mx.example.net [192.0.2.9] said: 550 5.7.1 We do not like you"),
        told("lou@example.net", What::Failed, "5.7.1 mx.example.net [192.0.2.9] said: 550 5.7.1 We do not like you"),
        told("kim@example.net", What::Expired, "4.4.1 no answer"),
        told("max@example.net", What::Failed, ""),
    ];
    assert_eq!(
        text(&dsn(Report::Bounce, &all)),
        "From: Mail Delivery System <MAILER-DAEMON@mail.example.com>
To: <ann@example.org>
Subject: Your message could not be delivered
Date: Mon, 5 Jan 2026 11:00:00 +0000
Message-ID: <7K2Fb1@mail.example.com>
Auto-Submitted: auto-replied
MIME-Version: 1.0
In-Reply-To: <1@example.org>
References: <1@example.org>
Content-Type: multipart/report; report-type=delivery-status;
\tboundary=\"=_7K2Fb1_0\"
Content-Transfer-Encoding: 7bit

This is a report of a mail server, in three parts.

--=_7K2Fb1_0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 7bit

This is the mail server at mail.example.com.

Your message of Mon, 5 Jan 2026 10:46:40 +0000 about \"tea and cake\" could
not be delivered to:

<bob+tea@example.com>
    There is no mailbox of that name. Look whether the part before the @ is
    written as it should be.
    Here it says: 5.1.1 No such user here

<lee@example.net>
<lou@example.net>
    The server there refuses the message. Its reason below may say what it
    does not like.
    The server mx.example.net said:
        550 5.7.1 We do not like you

<kim@example.net>
    It waited too long. At the last try: The server there does not answer.
    Send it again later, or ask in another way.
    Here it says: 4.4.1 no answer

<max@example.net>
    No reason is known. Ask the postmaster.

It is not tried again for them.
Questions? Ask postmaster@mail.example.com, and name this number: 7K2F.

--=_7K2Fb1_0
Content-Type: message/delivery-status
Content-Transfer-Encoding: 7bit

Original-Envelope-Id: QQ+314159
Reporting-MTA: dns; mail.example.com
Received-From-MTA: dns; mx.example.org
Arrival-Date: Mon, 5 Jan 2026 10:46:40 +0000
X-DMail-Queue-Id: 7K2F

Original-Recipient: rfc822;bob+tea@example.com
Final-Recipient: rfc822;bob@mail.example.com
Action: failed
Status: 5.1.1
Diagnostic-Code: x-dmail; No such user here
Last-Attempt-Date: Mon, 5 Jan 2026 10:59:00 +0000

Final-Recipient: rfc822;lee@example.net
Action: failed
Status: 5.7.1
Remote-MTA: dns; mx.example.net
Diagnostic-Code: smtp; 550 5.7.1 We do not like you
Last-Attempt-Date: Mon, 5 Jan 2026 10:59:00 +0000

Final-Recipient: rfc822;lou@example.net
Action: failed
Status: 5.7.1
Remote-MTA: dns; mx.example.net
Diagnostic-Code: smtp; 550 5.7.1 We do not like you
Last-Attempt-Date: Mon, 5 Jan 2026 10:59:00 +0000

Final-Recipient: rfc822;kim@example.net
Action: failed
Status: 4.4.7
Diagnostic-Code: x-dmail; no answer
Last-Attempt-Date: Mon, 5 Jan 2026 10:59:00 +0000

Final-Recipient: rfc822;max@example.net
Action: failed
Status: 5.0.0
Last-Attempt-Date: Mon, 5 Jan 2026 10:59:00 +0000

--=_7K2Fb1_0
Content-Type: text/rfc822-headers
Content-Transfer-Encoding: 7bit

Received: from mx
\tby mail.example.com
Message-ID: <1@example.org>
Subject: tea
\tand cake

--=_7K2Fb1_0--
"
    );
}

#[test]
fn a_warning_says_how_long_it_is_tried() {
    let all = [told("kim@example.net", What::Delayed(CAME + 432_000), "4.2.0 mx.example.net said: 451 4.2.0 Later")];
    let text = text(&Dsn { id: "7K2Fw1", ..dsn(Report::Delay, &all) });
    let parts = parts(&text);
    assert!(parts[0].1.contains("\nSubject: Your message is delayed\n"), "{text}");
    assert_eq!(
        parts[1].1,
        "This is the mail server at mail.example.com.

Your message of Mon, 5 Jan 2026 10:46:40 +0000 about \"tea and cake\" has not
been delivered yet to:

<kim@example.net>
    The mailbox could not take it. It is tried again.
    The server mx.example.net said:
        451 4.2.0 Later

The server goes on trying until Sat, 10 Jan 2026 10:46:40 +0000. You need
not send it again. If it cannot be delivered by then, you are told.
Questions? Ask postmaster@mail.example.com, and name this number: 7K2F.
"
    );
    assert!(
        parts[2].1.ends_with(
            "\n\nFinal-Recipient: rfc822;kim@example.net\nAction: delayed\nStatus: 4.2.0\nRemote-MTA: dns; mx.example.net\n\
             Diagnostic-Code: smtp; 451 4.2.0 Later\nLast-Attempt-Date: Mon, 5 Jan 2026 10:59:00 +0000\n\
             Will-Retry-Until: Sat, 10 Jan 2026 10:46:40 +0000\n"
        ),
        "{text}"
    );
}

#[test]
fn a_receipt_says_how_far_it_came() {
    let all = [
        told("bob@example.com", What::Delivered, ""),
        told("kim@example.net", What::Relayed, "2.0.0 mx.example.net said: 250 OK"),
        told("team@example.com", What::Expanded, ""),
    ];
    let text_of =
        |told: &[Told<'_>]| text(&Dsn { id: "7K2Fs1", from: None, envid: None, ..dsn(Report::Success, told) });
    let both = text_of(&all);
    let parts = parts(&both);
    assert!(parts[0].1.contains("\nSubject: Your message was passed on\n"), "{both}");
    assert!(text_of(&all[..1]).contains("\nSubject: Your message was delivered\n"));
    assert_eq!(
        parts[1].1,
        "This is the mail server at mail.example.com.

You asked to be told what becomes of your message of Mon, 5 Jan 2026
10:46:40 +0000 about \"tea and cake\":

<bob@example.com>
    It has been delivered.

<kim@example.net>
    The next mail server has it. That one does not report what becomes of
    it: you hear no more, unless it fails.
    The server mx.example.net said:
        250 OK

<team@example.com>
    The address stands for several others. It is on its way to them; you
    hear of those only who cannot have it.

Nothing is left to be done here.
Questions? Ask postmaster@mail.example.com, and name this number: 7K2F.
"
    );
    assert_eq!(
        parts[2].1,
        "Reporting-MTA: dns; mail.example.com
Arrival-Date: Mon, 5 Jan 2026 10:46:40 +0000
X-DMail-Queue-Id: 7K2F

Final-Recipient: rfc822;bob@example.com
Action: delivered
Status: 2.0.0
Last-Attempt-Date: Mon, 5 Jan 2026 10:59:00 +0000

Final-Recipient: rfc822;kim@example.net
Action: relayed
Status: 2.0.0
Remote-MTA: dns; mx.example.net
Diagnostic-Code: smtp; 250 OK
Last-Attempt-Date: Mon, 5 Jan 2026 10:59:00 +0000

Final-Recipient: rfc822;team@example.com
Action: expanded
Status: 2.0.0
Last-Attempt-Date: Mon, 5 Jan 2026 10:59:00 +0000
"
    );
}

#[test]
fn addresses_beyond_ascii_make_a_report_that_may_say_them() {
    let all = [Told {
        orcpt: Some("utf-8;b\u{fc}b@example.com"),
        ..told("b\u{fc}b@m.example", What::Failed, "5.1.1 n\u{f6}")
    }];
    let wide = Dsn { utf8: true, ..dsn(Report::Bounce, &all) };
    let written = wide.written();
    assert!(written.utf8 && written.eight_bit);
    let text_of = String::from_utf8(written.text).unwrap();
    let wide_parts = parts(&text_of);
    assert!(
        wide_parts[2].0.starts_with("Content-Type: message/global-delivery-status\nContent-Transfer-Encoding: 8bit")
    );
    assert!(
        wide_parts[2]
            .1
            .contains("\nOriginal-Recipient: utf-8;b\u{fc}b@example.com\nFinal-Recipient: utf-8;b\u{fc}b@m.example\n")
    );
    assert!(wide_parts[1].1.contains("<b\u{fc}b@example.com>\n"));
    assert!(wide_parts[3].0.starts_with("Content-Type: text/rfc822-headers\n"), "its header is plain");
    // A header that came with SMTPUTF8.
    let header = "Subject: t\u{e9}\n\n".as_bytes();
    let original = Original { bytes: header, is_complete: true, whole: false };
    let plain = [told("bob@example.com", What::Failed, "5.1.1 n\u{f6}")];
    let written = Dsn { utf8: true, original, ..dsn(Report::Bounce, &plain) }.written();
    assert!(
        written.utf8 && String::from_utf8(written.text).unwrap().contains("\nContent-Type: message/global-headers\n")
    );
    // Without that, everything is ASCII.
    let written = Dsn { original, ..dsn(Report::Bounce, &plain) }.written();
    assert!(!written.utf8 && !written.eight_bit && written.text.is_ascii());
    let ascii = String::from_utf8(written.text).unwrap();
    assert!(ascii.contains("\nDiagnostic-Code: x-dmail; n?\n") && ascii.contains("about \"t=C3=A9\""), "{ascii}");
    assert!(ascii.contains("Subject: t=C3=A9\n"), "{ascii}");
}

#[test]
fn a_whole_message_comes_back_in_as_many_bits_as_it_has_and_cannot_end_the_part() {
    let body = "Subject: x\n\n\u{e9}\n--=_7K2Fb1_0--\n--=_7K2Fb1_1\nFrom y\n";
    let original = Original { bytes: body.as_bytes(), is_complete: true, whole: true };
    let all = [told("bob@example.com", What::Failed, "5.1.1 no")];
    let written = Dsn { original, ..dsn(Report::Bounce, &all) }.written();
    assert!(written.eight_bit && !written.utf8);
    let text = String::from_utf8(written.text).unwrap();
    assert!(text.contains("\tboundary=\"=_7K2Fb1_2\"\nContent-Transfer-Encoding: 8bit\n"), "{text}");
    let parts = parts(&text);
    assert_eq!((parts.len(), &*parts[3].1), (4, body));
    assert!(parts[3].0.starts_with("Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit"));
}

#[test]
fn what_is_too_much_is_counted_and_strange_facts_are_left_out() {
    let many = vec![told("bob@example.com", What::Failed, "5.1.1 no"); LISTED_MAX + 1];
    let text_of = text(&Dsn { count: 5000, ..dsn(Report::Bounce, &many) });
    assert_eq!(text_of.matches("\n<bob@example.com>").count(), LISTED_MAX);
    assert_eq!(text_of.matches("\nFinal-Recipient:").count(), LISTED_MAX);
    assert!(text_of.contains("\n\nAnd 4900 more.\n"));
    for (orcpt, shown) in [
        ("rfc822;a+40b", Some("Original-Recipient: rfc822;a@b\n")),
        ("x400;a+20b", Some("Original-Recipient: x400;a b\n")),
        ("rfc822;+0AAction:+20delivered", None),
        ("rfc822;a+C3+BC", None),
        ("rfc822;\u{fc}", None),
        ("rf\nc;a", None),
        ("rfc822;+20", None),
        ("rfc822", None),
        ("rfc822;+", None),
    ] {
        let all = [Told { orcpt: Some(orcpt), ..told("bob@example.com", What::Failed, "5.1.1 no") }];
        let text = text(&dsn(Report::Bounce, &all));
        match shown {
            Some(field) => assert!(text.contains(field), "{orcpt:?} {text}"),
            None => assert!(!text.contains("Original-Recipient"), "{orcpt:?} {text}"),
        }
    }
    for envid in ["+0ASubject:+20x", "+", "+C3", " ", "+20"] {
        let all = [told("bob@example.com", What::Failed, "5.1.1 no")];
        let text = text(&Dsn { envid: Some(envid), from: Some("a b"), ..dsn(Report::Bounce, &all) });
        assert!(!text.contains("\nSubject: x") && !text.contains("Received-From-MTA"), "{text}");
    }
    for (report, number, id) in [(Report::Bounce, 1, "Xb1"), (Report::Delay, 20, "Xw20"), (Report::Success, 3, "Xs3")] {
        assert_eq!(report_id("X", report, number), id);
    }
}

/// What may begin a line of the part for machines.
const FIELDS: [&str; 13] = [
    "Original-Envelope-Id",
    "Reporting-MTA",
    "Received-From-MTA",
    "Arrival-Date",
    "X-DMail-Queue-Id",
    "Original-Recipient",
    "Final-Recipient",
    "Action",
    "Status",
    "Remote-MTA",
    "Diagnostic-Code",
    "Last-Attempt-Date",
    "Will-Retry-Until",
];

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        Just(What::Failed),
        Just(What::Expired),
        any::<i64>().prop_map(What::Delayed),
        Just(What::Delivered),
        Just(What::Relayed),
        Just(What::Expanded),
    ]
}

/// What a stranger may have chosen.
fn strange() -> impl Strategy<Value = String> {
    let word = "Action: delivered|\n|\r\n|\r|\n\n|--=_7K2Fb1_0|--=_7K2Fb1_0--|\0|\u{2028}|\u{85}|\\PC{0,60}|5.1.1 | said: 550 |mx.x|[a-z]{0,300}| |\t|;|<|>|=|\\+0A|rfc822;|utf-8;|@|\u{1f600}{0,300}";
    proptest::collection::vec(word, 0..6).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn whatever_strangers_chose_the_report_is_well_formed_and_its_fields_are_ours(
        (sender, address, orcpt, why) in (strange(), strange(), strange(), strange()),
        (from, envid, what) in (strange(), strange(), what()),
        original in proptest::collection::vec("From x|Subject: y\n|Message-ID: <a@b>\n|\r|\n|\0|--=_7K2Fb1_0\n|\\PC{0,300}|x{900,1100}", 0..20),
        report in 0..3usize,
        (whole, is_complete, utf8, not_utf8) in any::<(bool, bool, bool, bool)>(),
    ) {
        let mut original = original.concat().into_bytes();
        if not_utf8 {
            original.insert(0, 0xff);
        }
        let all = [Told { orcpt: Some(&orcpt), ..told(&address, what, &why) }; 2];
        let original = Original { bytes: &original, is_complete, whole };
        let dsn = Dsn {
            sender: &sender,
            from: Some(&from),
            envid: Some(&envid),
            utf8,
            original,
            ..dsn(Report::ALL[report], &all)
        };
        let written = dsn.written();
        prop_assert_eq!(&written, &dsn.written(), "equal facts give equal bytes");
        prop_assert!(written.eight_bit || written.text.is_ascii());
        prop_assert!(written.utf8 || !utf8 || !whole || written.eight_bit || written.text.is_ascii());
        let text = String::from_utf8_lossy(&written.text);
        let parts = parts(&text);
        prop_assert_eq!(parts.len(), 4);
        let head: Vec<&str> = parts[0].1.lines().collect();
        let replies = if head[7].starts_with("In-Reply-To: <a@b>") { 2 } else { 0 };
        prop_assert_eq!(head.len(), 10 + replies, "{}", parts[0].1);
        prop_assert!(head[7 + replies].starts_with("Content-Type: multipart/report;"));
        prop_assert!(written.utf8 || parts[0].1.is_ascii() && parts[2].1.is_ascii());
        for (part, (head, body)) in parts.iter().enumerate().skip(1) {
            prop_assert_eq!(head.lines().count(), 2);
            let plain = head.ends_with("7bit") || head.ends_with("quoted-printable");
            prop_assert!(!plain || body.is_ascii(), "part {} says {}", part, head);
            prop_assert!(body.split('\n').all(|line| line.len() <= 1000), "{}", body);
        }
        let blocks: Vec<&str> = parts[2].1.split("\n\n").collect();
        prop_assert_eq!(blocks.len(), 3, "{}", parts[2].1);
        for block in &blocks {
            let mut last = None;
            for line in block.trim_end_matches('\n').split('\n') {
                if line.starts_with(' ') {
                    prop_assert!(!line.trim().is_empty() && last == Some("Diagnostic-Code"), "{}", block);
                    continue;
                }
                let (name, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
                prop_assert!(FIELDS.contains(&name) && !value.contains(['\r', '\0']), "{}", line);
                last = Some(name);
            }
            prop_assert_eq!(block.matches("\nAction: ").count(), usize::from(!block.starts_with("Original-Envelope-Id") && !block.starts_with("Reporting-MTA")));
        }
    }
}
