use proptest::prelude::*;

use super::*;

fn way(text: &str) -> Way {
    let words = words(text, 1, Manner::Plain).unwrap();
    let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    Way::parse(&words, Path::new("/conf")).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
}

fn wrong(text: &str) -> (usize, String) {
    let words = words(text, 1, Manner::Plain).unwrap();
    let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    match Way::parse(&words, Path::new("/conf")) {
        Ok(way) => panic!("{text} is read as {way}"),
        Err(Wrong { word, why }) => (word, why),
    }
}

fn route(text: &str) -> Route {
    let (domains, rest) = text.split_once(' ').unwrap();
    Route { domains: domains.split(',').map(|name| Reach::parse(name).unwrap()).collect(), way: way(rest) }
}

fn sender_route(text: &str) -> SenderRoute {
    let (senders, rest) = text.split_once(' ').unwrap();
    SenderRoute { senders: PatternList::parse(senders).unwrap(), way: way(rest) }
}

fn table(routes: &[&str], senders: &[&str], gateway: Option<&str>) -> Table {
    let routes: Vec<Route> = routes.iter().map(|text| route(text)).collect();
    let senders: Vec<SenderRoute> = senders.iter().map(|text| sender_route(text)).collect();
    Table::new(&routes, &senders, gateway.map(way).as_ref(), 25, 10, Path::new("/conf"))
}

#[test]
fn what_is_written_is_read_and_shown_as_it_is_read() {
    for (text, shown) in [
        ("mx", "mx"),
        ("MX tls=Required", "mx tls=required"),
        ("mx:Example.ORG.", "mx:example.org"),
        ("mx inside connections=1000", "mx inside connections=1000"),
        ("relay.example.net", "relay.example.net"),
        ("Relay.example.net:587 TLS=verified", "relay.example.net:587 tls=verified"),
        ("relay.example.net wrapped login=relay.login", "relay.example.net wrapped login=/conf/relay.login"),
        ("relay \"login=/etc/my login\"", "relay \"login=/etc/my login\""),
        ("192.0.2.1", "[192.0.2.1]"),
        ("[192.0.2.1]:2525", "[192.0.2.1]:2525"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[IPv6:2001:db8::1]:26 tls=never", "[2001:db8::1]:26 tls=never"),
        ("a.example,b.example:26,[192.0.2.1]", "a.example,b.example:26,[192.0.2.1]"),
        ("lmtp:store.example:24", "lmtp:store.example:24"),
        ("lmtp:a:24,LMTP:b:24 connections=4", "lmtp:a:24,lmtp:b:24 connections=4"),
        ("lmtp:/run/dovecot/lmtp connections=2", "lmtp:/run/dovecot/lmtp connections=2"),
        ("\"lmtp:/run/a, b\"", "\"lmtp:/run/a, b\""),
        ("[127.0.0.1]:2525 inside", "[127.0.0.1]:2525 inside"),
        ("PARK", "park"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("mx:BÜCHER.example", "mx:xn--bcher-kva.example"),
        // What is not said is this.
        ("relay tls=offered", "relay"),
        // A host that has a word of ours for its first label.
        ("mx.example.org", "mx.example.org"),
        ("park.example.org:25", "park.example.org:25"),
    ] {
        let read = way(text);
        assert_eq!(read.to_string(), shown, "{text}");
        assert_eq!(way(shown), read, "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_by_word() {
    for (text, word, says) in [
        ("", 0, "a target is missing"),
        ("mx,relay", 0, "`mx` stands alone"),
        ("relay,park", 0, "`park` stands alone"),
        ("a,,b", 0, "a host is missing"),
        ("lmtp:", 0, "a host is missing"),
        ("lmtp:store.example", 0, "LMTP has no port of its own"),
        ("lmtp:a:24,b:25", 0, "SMTP and LMTP are not spoken by the hosts of one line"),
        ("relay:0", 0, "`0` is no port"),
        ("relay:65536", 0, "`65536` is no port"),
        ("relay:smtp", 0, "`smtp` is no port"),
        ("relay:", 0, "`` is no port"),
        ("2001:db8::1", 0, "stands in brackets: [2001:db8::1]"),
        ("[192.0.2.1", 0, "is no address"),
        ("[192.0.2.1]25", 0, "is no address"),
        ("[relay]:25", 0, "is no address"),
        ("192.0.2", 0, "is neither a name nor an address"),
        ("re_lay..example", 0, "is no name of a host"),
        ("-relay", 0, "is no name of a host"),
        ("bücher。example", 0, "is no name of a host"),
        ("a\u{a0}b.example", 0, "is no name of a host"),
        ("mx:", 0, "is no name of a host"),
        ("mx.", 0, "a host that is called mx"),
        ("park:26", 0, "a host that is called park"),
        ("relay tls", 1, "the options are tls=never|offered|required|verified"),
        ("relay tls=maybe", 1, "tls is never, offered, required or verified"),
        ("relay inside=yes", 1, "the options are"),
        ("relay insid", 1, "(did you mean inside?)"),
        ("relay inside inside", 2, "inside is there twice"),
        ("relay tls=never TLS=required", 2, "tls is there twice"),
        ("relay inside connections=0", 2, "connections is a number from 1 to 1000"),
        ("relay connections=1001", 1, "connections is a number from 1 to 1000"),
        ("relay login=", 1, "the options are"),
        ("relay login=~/x", 1, "nothing is expanded"),
        ("relay inside wrapped tls=never", 2, "says the opposite"),
        ("mx wrapped", 1, "begin in clear"),
        ("mx:example.org login=/x", 1, "a password is for a host that you know"),
        ("park tls=required", 1, "it means nothing there"),
        ("park connections=3", 1, "no connection is made"),
        ("lmtp:/run/x inside", 1, "it means nothing there"),
        ("127.0.0.1", 0, "that is this machine: add `inside`"),
        ("relay,[::1]:26", 0, "that is this machine: add `inside`"),
        ("[::ffff:127.0.0.2] tls=never", 0, "that is this machine: add `inside`"),
    ] {
        let (at, why) = wrong(text);
        assert!(at == word && why.contains(says), "{text}: word {at}: {why}");
    }
    assert!(wrong(&vec!["h"; HOSTS_MOST + 1].join(",")).1.contains("more than 20 hosts"));
    assert!(wrong(&format!("lmtp:/{}", "x".repeat(SOCKET_BYTES))).1.contains("at most 107 bytes"));
    for bad in ["", "a..b", "*example", "a.*", "*.", "?", "[10.0.0.1", "[x]", "192.0.2.1", "a\u{3002}b"] {
        assert!(Reach::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_first_that_has_an_answer_decides_and_the_most_specific_domain() {
    let table = table(
        &[
            "*.example.org below",
            "example.org,other.test exact",
            "*.sub.example.org deeper",
            "a.sub.example.org exactly-deep",
            "example.org second-line",
            "*.org org",
            "[192.0.2.9] numbered",
        ],
        &["*@news.test,!root@news.test news", "<> bounces", "ann@us.test hers", "us.test ours"],
        Some("gate tls=required"),
    );
    for (sender, recipient, to) in [
        ("bob@us.example", "x@example.org", "exact:25"),
        ("bob@us.example", "x@EXAMPLE.Org", "exact:25"),
        ("bob@us.example", "x@www.example.org", "below:25"),
        ("bob@us.example", "x@sub.example.org", "below:25"),
        ("bob@us.example", "x@b.sub.example.org", "deeper:25"),
        ("bob@us.example", "x@a.sub.example.org", "exactly-deep:25"),
        ("bob@us.example", "x@b.a.sub.example.org", "deeper:25"),
        ("bob@us.example", "x@notexample.org", "org:25"),
        ("bob@us.example", "x@org", "gate:25 tls=required"),
        ("bob@us.example", "x@elsewhere.test", "gate:25 tls=required"),
        ("bob@us.example", "x@[192.0.2.9]", "numbered:25"),
        ("bob@us.example", "x@[192.0.2.8]", "gate:25 tls=required"),
        ("bob@us.example", "x@[IPv6:::ffff:192.0.2.8]", "gate:25 tls=required"),
        // The sender's line comes before the domain's.
        ("info@news.test", "x@example.org", "news:25"),
        ("INFO@News.Test", "x@example.org", "news:25"),
        ("root@news.test", "x@example.org", "exact:25"),
        ("", "x@example.org", "bounces:25"),
        ("ann@us.test", "x@example.org", "hers:25"),
        ("bob@us.test", "x@example.org", "ours:25"),
        // Quotes and a second @ in a local part.
        ("\"a@news.test\"@x.test", "\"x@y\"@example.org", "exact:25"),
    ] {
        assert_eq!(&*table.hop(sender, recipient).key, to, "{sender} {recipient}");
    }
}

#[test]
fn without_a_line_mail_goes_where_dns_says_and_numbers_inside_are_refused() {
    let plain = table(&[], &[], None);
    let hop = plain.hop("a@b.example", "x@Example.ORG");
    assert_eq!(
        (&*hop.key, hop.to, hop.tls, hop.connections),
        ("mx example.org", To::Mx("example.org".into()), Level::Offered, 10)
    );
    assert!(!hop.lmtp && !hop.inside && !hop.from_first_octet && hop.login.is_none());
    assert_eq!(plain.hop("", "ünn@BÜCHER.例子").to, To::Mx("xn--bcher-kva.xn--fsqu00a".into()));
    let bounds = table(&["bücher.example a", "*.例子 b"], &[], None);
    assert_eq!(&*bounds.hop("", "x@xn--bcher-kva.example").key, "a:25");
    assert_eq!(&*bounds.hop("", "x@BÜCHER.example").key, "a:25");
    assert_eq!(&*bounds.hop("", "x@a.例子").key, "b:25");
    let hop = plain.hop("", "x@[198.51.100.1]");
    assert_eq!((&*hop.key, hop.to), ("[198.51.100.1]:25", To::Hosts(vec![("198.51.100.1".into(), 25)])));
    let hop = plain.hop("", "x@[IPv6:2001:db8::9]");
    assert_eq!((&*hop.key, hop.to), ("[2001:db8::9]:25", To::Hosts(vec![("2001:db8::9".into(), 25)])));
    for inside in [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.0.1",
        "169.254.1.1",
        "0.0.0.0",
        "100.64.0.1",
        "IPv6:::1",
        "IPv6:fd00::1",
        "IPv6:::ffff:10.0.0.1",
        "IPv6:::",
        "IPv6:64:ff9b::a00:1",
    ] {
        let hop = plain.hop("", &format!("x@[{inside}]"));
        assert!(matches!(hop.to, To::Never { status: "5.7.1", .. }), "{inside}: {hop:?}");
    }
    for nowhere in ["x", "x@", "x@[nonsense]", "x@a..b", "x@192.0.2.1", "x@a b.example"] {
        let hop = plain.hop("", nowhere);
        assert!(matches!(hop.to, To::Never { status: "5.1.2", .. }), "{nowhere}: {hop:?}");
    }
    // A route says that it may be so.
    let open = table(&["[10.0.0.1] mx inside", "[10.0.0.2] mx"], &[], None);
    let hop = open.hop("", "x@[10.0.0.1]");
    assert_eq!((&*hop.key, hop.inside), ("[10.0.0.1]:25 inside", true));
    assert_eq!(open.hop("", "x@[10.0.0.2]").to, To::Hosts(vec![("10.0.0.2".into(), 25)]));
}

#[test]
fn each_target_makes_its_hop_and_what_differs_has_another_name() {
    let hop = |line: &str| table(&[line], &[], None).hop("", "x@a.example");
    let port = |line: &str| match hop(line).to {
        To::Hosts(hosts) => hosts.iter().map(|(_, port)| *port).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(port("* relay"), [25]);
    assert_eq!(port("* relay wrapped"), [465]);
    assert_eq!(port("* relay:26,other wrapped"), [26, 465]);
    let sent = hop("* mx:b.example tls=verified connections=3");
    assert_eq!(
        (&*sent.key, &sent.to, sent.tls, sent.connections),
        ("mx b.example tls=verified connections=3", &To::Mx("b.example".into()), Level::Verified, 3)
    );
    let sent = hop("* relay:587 tls=required login=x");
    assert_eq!(&*sent.key, "relay:587 tls=required login=/conf/x");
    assert_eq!(sent.login.as_deref(), Some(Path::new("/conf/x")));
    let sent = hop("* lmtp:/run/lmtp");
    assert_eq!(
        (&*sent.key, sent.to, sent.lmtp, sent.tls),
        ("lmtp /run/lmtp", To::Socket("/run/lmtp".into()), true, Level::Never)
    );
    let sent = hop("* lmtp:[127.0.0.1]:24 inside");
    assert_eq!((&*sent.key, sent.lmtp, sent.inside), ("lmtp [127.0.0.1]:24 inside", true, true));
    let sent = hop("* park");
    assert_eq!((&*sent.key, sent.to), ("park a.example", To::Parked), "each domain is asked for by its name");
}

#[test]
fn a_way_that_is_said_by_hand_is_read_as_a_line_is() {
    let table = table(&["known.example relay tls=required login=secret"], &[], Some("gate"));
    for (text, key) in [
        ("mx", "mx x.example"),
        ("mx:other.example", "mx other.example"),
        ("  relay:26   inside ", "relay:26 inside"),
        ("relay tls=required login=secret", "relay:25 tls=required login=/conf/secret"),
        ("lmtp:/run/lmtp", "lmtp /run/lmtp"),
        ("park", "park x.example"),
    ] {
        assert_eq!(&*table.parse_via(text, "ann@X.example").unwrap().key, key, "{text}");
        let kept = table.way_by_hand(text).unwrap().to_string();
        assert_eq!(&*table.parse_via(&kept, "ann@x.example").unwrap().key, key, "{kept}");
    }
    for (text, says) in [
        ("", "a target is missing"),
        ("\"", "partner"),
        ("relay tls=x", "`tls=x`: tls is never"),
        ("[127.0.0.1]", "add `inside`"),
        ("relay login=/etc/shadow", "no route of dmail.conf has that login"),
    ] {
        let why = table.parse_via(text, "ann@x.example").unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
    }
}

proptest! {
    #[test]
    fn any_way_that_is_taken_is_shown_so_that_it_is_read_the_same(
        target in "(lmtp:|mx:|)[a-cmxpark.:/,\\[\\]0-9 -]{1,12}|mx|park|a,b:2|lmtp:/[ -~]{1,6}",
        options in prop::collection::vec(
            "tls=(never|offered|required|verified)|wrapped|inside|connections=[0-9]{1,3}|login=[ -~é]{0,6}", 0..4)
    ) {
        let words: Vec<&str> = [target.as_str()].into_iter().chain(options.iter().map(String::as_str)).collect();
        if let Ok(read) = Way::parse(&words, Path::new("/conf")) {
            prop_assert_eq!(&way(&read.to_string()), &read);
            let domains = vec![Reach::All];
            let table = Table::new(&[Route { domains, way: read.clone() }], &[], None, 25, 10, Path::new("/"));
            let by_hand = table.way_by_hand(&read.to_string());
            prop_assert_eq!(by_hand, Ok(read));
        }
    }

    #[test]
    fn no_recipient_without_a_route_leads_inside_by_number_and_none_panics(sender in "\\PC{0,12}", recipient in "\\PC{0,6}@?(\\[[0-9.:a-fIPv6]{0,20}\\]|\\PC{0,12})") {
        let hop = table(&[], &[], None).hop(&sender, &recipient);
        match hop.to {
            To::Hosts(hosts) => {
                let address: IpAddr = hosts[0].0.parse().unwrap();
                prop_assert!(!mx::is_inside(address) && mx::may_be(address, 25, false, &mx::Ourselves::default()).is_ok());
            }
            To::Mx(name) => prop_assert!(name.is_ascii() && host_name(&name).is_ok()),
            To::Never { .. } => {}
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
