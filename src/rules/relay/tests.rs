use proptest::prelude::*;

use super::*;
use crate::rules::domains::{Line, Naming, Plan, Reach, draw};

/// What is written, with the default of `forward_from_ip`.
struct Written {
    addresses: [AddressList; 3],
    patterns: [PatternList; 5],
    sender_must_match: bool,
}

impl Written {
    /// `name list` a line.
    fn new(lines: &str) -> Written {
        let mut written = Written {
            addresses: ["", "", "127.0.0.0/8,::1"].map(|text| AddressList::parse(text).unwrap()),
            patterns: Default::default(),
            sender_must_match: true,
        };
        for line in lines.lines() {
            let (name, text) = line.trim().split_once(' ').unwrap();
            let addresses = ["ban_ip", "ban_ip_except", "forward_from_ip"].iter().position(|known| *known == name);
            let patterns = ["ban_mailfrom", "ban_rcptto", "forward_user", "relay_to", "forward_from"]
                .iter()
                .position(|known| *known == name);
            match (addresses, patterns) {
                (Some(at), _) => written.addresses[at] = AddressList::parse(text).unwrap(),
                (_, Some(at)) => written.patterns[at] = PatternList::parse(text).unwrap(),
                _ => written.sender_must_match = text == "true",
            }
        }
        written
    }

    fn lists(&self) -> Lists<'_> {
        let [ban_ip, ban_ip_except, forward_from_ip] = &self.addresses;
        let [ban_mailfrom, ban_rcptto, forward_user, relay_to, forward_from] = &self.patterns;
        let sender_must_match = self.sender_must_match;
        Lists {
            ban_ip,
            ban_ip_except,
            ban_mailfrom,
            ban_rcptto,
            sender_must_match,
            forward_from_ip,
            forward_user,
            relay_to,
            forward_from,
        }
    }
}

/// Somebody in the world.
const STRANGER: &str = "192.0.2.9";

fn at(gate: Gate, address: &str) -> Client<'static> {
    Client { gate, address: address.parse().ok(), login: None, popped: None }
}

fn stranger() -> Client<'static> {
    at(Gate::Mx, STRANGER)
}

/// `local@domain`, `local@[address]`, `local`; the last `@` counts. Nothing is the null sender.
fn party(text: &str) -> Option<Party<'_>> {
    let (local, at) = match text.rsplit_once('@') {
        None if text.is_empty() => return None,
        None => (text, At::Here),
        Some((local, place)) => match place.strip_prefix('[').and_then(|place| place.strip_suffix(']')) {
            Some(literal) => (local, At::Literal(literal.parse().unwrap())),
            None => (local, At::Domain(place)),
        },
    };
    Some(Party { local, at })
}

/// Whether that recipient is ours: `here.example`, and what has no domain.
fn is_ours(recipient: &Party<'_>) -> bool {
    match recipient.at {
        At::Domain(domain) => domain.eq_ignore_ascii_case("here.example"),
        At::Literal(_) => false,
        At::Here => true,
    }
}

/// Which rule was asked last, and whether it refused.
fn recipient(written: &Written, client: &Client<'_>, from: &str, to: &str) -> (Rule, bool) {
    let to = party(to).unwrap();
    let ruling = judge_recipient(client, party(from), to, is_ours(&to), &written.lists());
    (ruling.last().unwrap(), ruling.refused().is_some())
}

#[test]
fn nothing_relays_for_a_stranger_however_it_is_written() {
    let nothing = Written::new("");
    for to in [
        "ann@there.example",
        "ann@THERE.example",
        "ann@here.example.there.example",
        "ann@there.here.example",
        "ann@[192.0.2.1]",
        "ann@[127.0.0.1]",
        "ann@here.example@there.example",
        "ann%here.example@there.example",
        "ann@b\u{fc}cher.example",
        "postmaster@there.example",
        "here.example!ann@there.example",
    ] {
        for from in ["", "ann@here.example", "bob@there.example", "postmaster@here.example"] {
            for gate in [Gate::Mx, Gate::Lmtp] {
                let (_, refused) = recipient(&nothing, &at(gate, STRANGER), from, to);
                assert!(refused, "{from} {to} {gate:?}");
            }
        }
    }
    // What looks like a route, but is a user of ours or nobody.
    for to in [
        "ann@here.example",
        "ann@HERE.Example",
        "bob%there.example@here.example",
        "there.example!bob@here.example",
        "bob@there.example@here.example",
        "postmaster",
        "PostMaster@here.example",
    ] {
        assert_eq!(recipient(&nothing, &stranger(), "", to), (Rule::Ours, false), "{to}");
    }
}

#[test]
fn each_right_lets_pass_whom_it_names_and_nobody_else() {
    let far = "bob@there.example";
    let lists = Written::new(
        "forward_from_ip 10.0.0.0/8,2001:db8::/32,!10.0.0.13
         forward_user ann
         relay_to partner.example,*.partner.example,!bad.partner.example,one@whole.example,begins*
         forward_from trusted.example,boss@home.example",
    );
    let ann = Client { login: Some("ann"), ..at(Gate::Submission, STRANGER) };
    let reader = |minutes| Client { popped: Some(minutes), ..stranger() };
    for (client, from, to, rule, refused) in [
        (ann, "ann@here.example", far, Rule::Login, false),
        (ann, "", "bob@[192.0.2.1]", Rule::Login, false),
        (ann, "", "a%b@there.example", Rule::Login, false),
        (at(Gate::Submission, STRANGER), "ann@here.example", far, Rule::Closed, true),
        (at(Gate::Program, ""), "", far, Rule::Program, false),
        (at(Gate::Mx, "10.1.2.3"), "", far, Rule::ForwardFromIp, false),
        (at(Gate::Mx, "::ffff:10.1.2.3"), "", far, Rule::ForwardFromIp, false),
        (at(Gate::Mx, "10.0.0.13"), "", far, Rule::Closed, true),
        (at(Gate::Mx, "2001:db8::1"), "", far, Rule::ForwardFromIp, false),
        // Written without it, this machine is a stranger too.
        (at(Gate::Mx, "127.0.0.1"), "", far, Rule::Closed, true),
        (at(Gate::Lmtp, "10.1.2.3"), "", far, Rule::Handed, true),
        (at(Gate::Lmtp, "10.1.2.3"), "", "bob@partner.example", Rule::Handed, true),
        (at(Gate::Lmtp, "10.1.2.3"), "", "ann@here.example", Rule::Ours, false),
        (reader(0), "", far, Rule::ForwardUser, false),
        (stranger(), "", "bob@partner.example", Rule::RelayTo, false),
        (stranger(), "", "bob@PARTNER.example", Rule::RelayTo, false),
        (stranger(), "", "bob@mx.partner.example", Rule::RelayTo, false),
        (stranger(), "", "bob@bad.partner.example", Rule::Closed, true),
        (stranger(), "", "bob@otherpartner.example", Rule::Closed, true),
        (stranger(), "", "x.partner.example@there.example", Rule::Closed, true),
        (stranger(), "", "x@begins.example", Rule::RelayTo, false),
        (stranger(), "", "begins@there.example", Rule::Closed, true),
        (stranger(), "", "one@whole.example", Rule::RelayTo, false),
        (stranger(), "", "two@whole.example", Rule::Closed, true),
        (stranger(), "bob@trusted.example", far, Rule::ForwardFrom, false),
        (stranger(), "boss@home.example", far, Rule::ForwardFrom, false),
        (stranger(), "ann@home.example", far, Rule::Closed, true),
        (stranger(), "trusted.example@there.example", far, Rule::Closed, true),
        (stranger(), "", far, Rule::Closed, true),
        // Nor may the next server be led on.
        (stranger(), "", "bob%far.example@partner.example", Rule::Routes, true),
        (stranger(), "", "far.example!bob@partner.example", Rule::Routes, true),
        (stranger(), "", "bob@far.example@partner.example", Rule::Routes, true),
        (stranger(), "bob@trusted.example", "bob%a@there.example", Rule::Routes, true),
        (stranger(), "bob@trusted.example", "bob@[192.0.2.1]", Rule::Routes, true),
    ] {
        assert_eq!(recipient(&lists, &client, from, to), (rule, refused), "{client:?} {from} {to}");
    }
    let everything = Written::new("relay_to *\nforward_from *");
    for to in ["a%b@there.example", "ann@[192.0.2.1]"] {
        assert_eq!(recipient(&everything, &stranger(), "x@y.example", to), (Rule::Routes, true), "{to}");
    }
    assert_eq!(recipient(&Written::new(""), &at(Gate::Mx, "127.0.0.1"), "", far), (Rule::ForwardFromIp, false));
    // A login for POP3 counts for nothing where no user is named.
    assert_eq!(recipient(&Written::new(""), &reader(0), "", far), (Rule::Closed, true));
}

#[test]
fn bans_hold_whoever_it_is_and_a_postmaster_of_ours_is_never_banned() {
    let lists = Written::new(
        "ban_ip 192.0.2.0/24,2001:db8::/32
         ban_ip_except 192.0.2.7
         ban_mailfrom *@spam.example,bulk.example,noreply@*,!ceo@bulk.example
         ban_rcptto sales@*,post*,closed.example",
    );
    let client = |address: &str| judge_client(address.parse().unwrap(), &lists.lists());
    for (address, refused, last) in [
        ("192.0.2.9", true, Rule::BanIp),
        ("::ffff:192.0.2.9", true, Rule::BanIp),
        ("192.0.2.7", false, Rule::BanIpExcept),
        ("198.51.100.1", false, Rule::BanIp),
        ("2001:db8::7", true, Rule::BanIp),
    ] {
        let ruling = client(address);
        assert_eq!((ruling.refused().is_some(), ruling.last()), (refused, Some(last)), "{address}");
    }
    let nobodys = |_: &str, _: &Party<'_>| false;
    for (from, refused) in [
        ("ann@spam.example", true),
        ("Ann@SPAM.example", true),
        ("ann@mx.spam.example", false),
        ("ann@bulk.example", true),
        ("ceo@bulk.example", false),
        ("noreply@x.example", true),
        ("noreply@[192.0.2.1]", true),
        ("ann@x.example", false),
        ("", false),
    ] {
        for client in [stranger(), at(Gate::Program, "")] {
            let ruling = judge_sender(&client, party(from), &lists.lists(), nobodys);
            assert_eq!(ruling.refused(), refused.then_some(&SENDER_BANNED), "{from}");
        }
    }
    let null = Written::new("ban_mailfrom <>");
    assert_eq!(judge_sender(&stranger(), None, &null.lists(), nobodys).refused(), Some(&SENDER_BANNED));
    for (to, refused) in [
        ("sales@here.example", true),
        ("SALES@there.example", true),
        ("ann@closed.example", true),
        ("post@here.example", true),
        ("postmaster@there.example", true),
        ("postmaster@here.example", false),
        ("Postmaster", false),
        ("ann@here.example", false),
    ] {
        let ann = Client { login: Some("ann"), ..at(Gate::Submission, STRANGER) };
        assert_eq!(recipient(&lists, &ann, "", to).1, refused, "{to}");
    }
}

#[test]
fn a_sender_belongs_to_the_login_or_is_refused() {
    let main = ["here.example".to_owned(), "alias.example".to_owned()];
    let line = Line {
        prefix: "abc".into(),
        reach: Reach::Suffix("/xdom".into()),
        domain: "abc.example".into(),
        drops: "/mail/abc".into(),
    };
    let naming = Naming { separator: '_', drop_prefix: true, ..Naming::default() };
    let plan = Plan { main: &main, drops: "/mail".as_ref(), lines: &[line], elsewhere: &[], naming };
    let (domains, objections) = draw(plan);
    assert!(objections.iter().all(|objection| !objection.fatal), "{objections:?}");
    for (login, sender, his) in [
        ("ann", "ann@here.example", true),
        ("ann", "ANN@Here.Example", true),
        ("ann", "ann@alias.example", true),
        ("ann", "ann+lists@here.example", true),
        ("ann", "ann+a+b@alias.example", true),
        ("ann+b", "ann+b@here.example", true),
        ("ann", "+ann@here.example", false),
        ("ann", "bob@here.example", false),
        ("ann", "ann-lists@here.example", false),
        ("ann", "ann@abc.example", false),
        ("ann", "ann@there.example", false),
        ("ann", "ann@[192.0.2.1]", false),
        ("ann", "ann@here.example@here.example", false),
        ("ann", "ann/xdom@here.example", false),
        ("ann", "\u{e4}nn@here.example", false),
        ("fred@abc.example", "fred@abc.example", true),
        ("fred@abc.example", "fred+x@abc.example", true),
        ("fred@abc.example", "fred@here.example", false),
        ("fred", "fred@abc.example", false),
        // Some authenticators know users by a whole foreign name: such a one is that user's.
        ("fred@far.example", "fred@far.example", true),
    ] {
        assert_eq!(belongs(&domains, Some('+'), login, &party(sender).unwrap()), his, "{login} {sender}");
    }
    assert!(!belongs(&domains, None, "ann", &party("ann+x@here.example").unwrap()));

    let ann = Client { login: Some("ann"), ..at(Gate::Submission, STRANGER) };
    let judged = |client: &Client<'_>, written: &Written, from: &str| {
        let his = |login: &str, sender: &Party<'_>| belongs(&domains, Some('+'), login, sender);
        judge_sender(client, party(from), &written.lists(), his).refused()
    };
    let (strict, lax) = (Written::new("sender_must_match true"), Written::new("sender_must_match false"));
    assert_eq!(judged(&ann, &strict, "ann@here.example"), None);
    assert_eq!(judged(&ann, &strict, "bob@here.example"), Some(&NOT_YOURS));
    assert_eq!(judged(&ann, &lax, "bob@here.example"), None);
    assert_eq!(judged(&ann, &strict, ""), None, "reports that a message was read come from nobody");
    assert_eq!(judged(&stranger(), &strict, "bob@here.example"), None, "who has not logged in has no name to match");
}

#[test]
fn the_trail_is_every_rule_that_was_asked_with_what_it_found() {
    let written = Written::new(
        "ban_rcptto sales@*
         forward_from_ip 10.0.0.0/8,!10.0.0.13
         relay_to partner.example",
    );
    let to = party("bob@there.example").unwrap();
    let ruling = judge_recipient(&at(Gate::Mx, "10.0.0.13"), None, to, false, &written.lists());
    assert_eq!(
        ruling.to_string(),
        "ban_rcptto no entry matches, the recipient's domain is not ours, the client has not logged in, forward_from_ip \
         !10.0.0.13 leaves it out, forward_user not set, the address has no route in it, relay_to no entry matches, \
         forward_from not set, nothing else allows it"
    );
    assert_eq!(ruling.refused().unwrap().to_string().split(": ").next(), Some("550 5.7.1 Relaying denied"));
    let ruling = judge_recipient(&at(Gate::Mx, "10.0.0.1"), None, to, false, &written.lists());
    assert!(ruling.to_string().ends_with("forward_from_ip 10.0.0.0/8 matches"), "{ruling}");
    assert_eq!(ruling.refused(), None);
}

#[test]
fn every_refusal_is_one_line_and_its_class_is_its_code() {
    for refusal in ALL {
        assert!(matches!(refusal.code / 100, 4 | 5) && refusal.text.len() < 120);
        assert!(refusal.text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{refusal}");
    }
}

#[test]
fn lists_that_open_a_relay_to_the_world_are_known() {
    for (list, open) in [
        ("*", true),
        ("0.0.0.0/0", true),
        ("0.0.0.0/1,128.0.0.0/1", true),
        ("1*", true),
        ("::/0", true),
        ("2000::/3", true),
        ("*,!192.0.2.1", true),
        ("127.0.0.0/8,::1", false),
        ("10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7", false),
        ("77.0.0.0/8", false),
        ("2001:db8::/32,2a02::/16", false),
    ] {
        assert_eq!(is_for_strangers(&AddressList::parse(list).unwrap()), open, "{list}");
    }
    for (list, open) in [
        ("*", true),
        ("*.com", true),
        ("*,!bad.example", true),
        ("*@*.net", true),
        ("partner.example,*.partner.example", false),
        ("*.partner.com", false),
    ] {
        assert_eq!(is_anywhere(&PatternList::parse(list).unwrap()), open, "{list}");
    }
    assert!(!is_anywhere(&PatternList::default()) && !is_for_strangers(&AddressList::default()));
}

/// The same without a trail, right by right.
fn naive(written: &Written, client: &Client<'_>, from: Option<Party<'_>>, to: Party<'_>, ours: bool) -> bool {
    let lists = written.lists();
    let banned = lists.ban_rcptto.matches(to.to_string())
        || matches!(to.at, At::Domain(domain) if lists.ban_rcptto.matches(domain));
    if banned && !(ours && to.local == "postmaster") {
        return false;
    }
    let is_plain = matches!(to.at, At::Domain(_)) && !to.local.contains(['%', '!', '@']);
    let named = |list: &PatternList, who: Option<Party<'_>>| match who.map(|who| who.at) {
        Some(At::Domain(domain)) => list.matches(domain),
        _ => false,
    };
    let remote = client.gate == Gate::Program
        || client.login.is_some()
        || client.address.is_some_and(|address| lists.forward_from_ip.contains(address))
        || client.popped.is_some() && !lists.forward_user.is_empty()
        || is_plain && (named(lists.relay_to, Some(to)) || named(lists.forward_from, from));
    ours || client.gate != Gate::Lmtp && remote
}

proptest! {
    #[test]
    fn the_rules_agree_with_their_definition(
        gate in prop::sample::select(vec![Gate::Mx, Gate::Submission, Gate::Lmtp, Gate::Program]),
        address in prop::sample::select(vec!["192.0.2.9", "10.0.0.1", "127.0.0.1", "none"]),
        login in prop::option::of(Just("ann")),
        popped in prop::option::of(0u64..60),
        from in prop::sample::select(vec!["", "a@x", "b@y", "c@[192.0.2.1]"]),
        to in prop::sample::select(vec!["a@x", "b@y", "a%b@x", "a!b@y", "a@b@x", "a@[192.0.2.1]", "postmaster@x", "postmaster"]),
        ours: bool,
        lists in prop::collection::vec(prop::sample::select(vec![
            "ban_rcptto a@*", "ban_rcptto *x", "ban_rcptto post*", "forward_from_ip 10.*", "forward_user *", "relay_to x",
            "relay_to *", "forward_from y", "forward_from *",
        ]), 0..5),
    ) {
        let written = Written::new(&lists.join("\n"));
        let client = Client { gate, address: address.parse().ok(), login, popped };
        let to = party(to).unwrap();
        let ruling = judge_recipient(&client, party(from), to, ours, &written.lists());
        prop_assert_eq!(ruling.refused().is_none(), naive(&written, &client, party(from), to, ours), "{}", ruling);
        let decided = ruling.trail.iter().position(|step| step.outcome != Outcome::GoesOn);
        prop_assert_eq!(decided, Some(ruling.trail.len() - 1), "the last rule asked decides, and no other");
    }
}
