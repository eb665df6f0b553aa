use proptest::prelude::*;

use super::*;

/// The same by its definition: try every run a star could swallow.
fn naive(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|run| naive(rest, &text[run..])),
        Some(('?', rest)) => !text.is_empty() && naive(rest, &text[1..]),
        Some((letter, rest)) => text.first().is_some_and(|c| c.eq_ignore_ascii_case(letter)) && naive(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn the_fast_matcher_agrees_with_its_definition(pattern in "[abéß*?]{0,8}", text in "[abAéß]{0,10}") {
        let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
        prop_assert_eq!(matches(&pattern, &text), naive(&p, &t), "{} {}", pattern, text);
    }

    #[test]
    fn any_text_is_a_list_or_a_refusal_and_a_list_reads_back(text in "[0-9a-f.:*?!,/ -]{0,24}") {
        if let Ok(list) = AddressList::parse(&text) {
            let shown = list.to_string();
            prop_assert_eq!(AddressList::parse(&shown).unwrap(), list, "{} shown as {}", text, shown);
        }
        let _ = PatternList::parse(&text);
    }

    #[test]
    fn networks_contain_what_their_masks_say(address: u32, base: u32, bits in 0u32..=32) {
        let list = AddressList::parse(&format!("{}/{bits}", Ipv4Addr::from_bits(base))).unwrap();
        let inside = bits == 0 || address >> (32 - bits) == base >> (32 - bits);
        let address = Ipv4Addr::from_bits(address);
        prop_assert_eq!(list.contains(address.into()), inside);
        prop_assert_eq!(list.contains(address.to_ipv6_mapped().into()), inside);
    }
}

#[test]
fn patterns_match_as_the_table_says() {
    for (pattern, text, expected) in [
        ("*", "", true),
        ("*", "anything", true),
        ("", "", true),
        ("", "a", false),
        ("?", "", false),
        ("?", "é", true),
        ("??", "é", false),
        ("fred*", "FRED2", true),
        ("fred*", "alfred", false),
        ("*fred", "alfred", true),
        ("f*d", "fred", true),
        ("f*d", "freda", false),
        ("a*b*c", "aXbXbXc", true),
        ("1.2.3.*", "1.2.3.4", true),
        ("1.2.3.*", "1.2.30.4", false),
        ("a**b", "ab", true),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn an_exclusion_wins_wherever_it_stands() {
    for text in ["*,!bad*", "!bad*,*", " * , ! bad* ", "!bad*,*,bad1"] {
        let list = PatternList::parse(text).unwrap();
        assert!(list.matches("ann"), "{text}");
        assert!(!list.matches("BAD1"), "{text}");
    }
    assert!(!PatternList::parse("").unwrap().matches("ann"));
    assert!(PatternList::parse("").unwrap().is_empty());
}

#[test]
fn lists_that_cannot_be_meant_are_refused_with_a_remedy() {
    for (text, says) in [
        ("a,,b", "empty entry"),
        (",", "empty entry"),
        ("!", "empty entry"),
        ("!a", "write `*,!a`"),
        ("!a,!b", "write `*,!a,!b`"),
    ] {
        let why = PatternList::parse(text).unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
    }
    for (text, says) in [
        ("300.1.1.1", "is no address"),
        ("1.2.3", "is no address"),
        ("010.0.0.1", "is no address"),
        ("mail.example.com", "is no address"),
        ("*.example.com", "is no wildcard for addresses"),
        ("10.0.0.0/33", "more than 32"),
        ("::/129", "more than 128"),
        ("10.0.0.0/x", "no network"),
        ("10.0.0.9-10.0.0.1", "ends before it begins"),
        ("10.0.0.1-::1", "mixes"),
        ("10.0.0.1-x", "does not end"),
        ("x-10.0.0.1", "does not begin"),
        ("1.2.3.4.*", "more than four"),
        ("256.*", "not 0 to 255"),
        ("01.*", "not 0 to 255"),
        ("1..*", "empty part"),
        ("2001:db8::*", "write whole groups"),
        ("2001:db8*", "write whole groups"),
        ("1:2:3:4:5:6:7:8:*", "write whole groups"),
    ] {
        let why = AddressList::parse(text).unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
    }
}

#[test]
fn addresses_are_contained_as_the_table_says() {
    for (list, inside, outside) in [
        ("*", "1.2.3.4 ::1", ""),
        ("*,!10.0.0.*", "10.0.1.1 ::1", "10.0.0.1 ::ffff:10.0.0.1"),
        ("1.2.3.4", "1.2.3.4 ::ffff:1.2.3.4", "1.2.3.5 ::1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4 ::ffff:1.2.3.4", "1.2.3.5"),
        ("1.2.*", "1.2.0.0 1.2.255.255", "1.3.0.0 1.1.255.255"),
        ("1.2.*.*", "1.2.9.9", "1.3.0.0"),
        ("10.1*", "10.1.2.3 10.10.0.1 10.199.0.1", "10.2.0.1"),
        ("10.*.0.1", "10.7.0.1", "10.7.0.2"),
        ("10.0.0.?", "10.0.0.9", "10.0.0.10"),
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
        ("10.0.0.9/30", "10.0.0.8 10.0.0.11", "10.0.0.12"),
        ("0.0.0.0/0", "1.2.3.4 ::ffff:1.2.3.4", "::1"),
        ("::/0", "::1 2001:db8::1", "1.2.3.4 ::ffff:1.2.3.4"),
        ("::ffff:10.0.0.0/104", "10.1.1.1", "11.0.0.0"),
        ("10.0.0.1-10.0.1.1", "10.0.0.200 10.0.1.1", "10.0.1.2"),
        ("10.0.0.1-9", "10.0.0.9", "10.0.0.10"),
        ("2001:db8:*", "2001:db8::1 2001:db8:ffff::", "2001:db9::"),
        ("2001:db8:0:*", "2001:db8::1", "2001:db8:1::"),
        ("2001:db8::1-2001:db8::9", "2001:db8::5", "2001:db8::a"),
        ("fe80::/10,127.0.0.1", "fe80::1 127.0.0.1", "127.0.0.2"),
        ("", "", "1.2.3.4 ::1"),
    ] {
        let parsed = AddressList::parse(list).unwrap();
        for address in inside.split_whitespace() {
            assert!(parsed.contains(address.parse().unwrap()), "{list} should contain {address}");
        }
        for address in outside.split_whitespace() {
            assert!(!parsed.contains(address.parse().unwrap()), "{list} should not contain {address}");
        }
    }
}

#[test]
fn a_hostile_text_costs_pattern_times_text_and_not_more() {
    // Tried naively, each of these would outlive us; there is nothing to time.
    let text = "a".repeat(50_000);
    assert!(!matches(&format!("{}b", "*a".repeat(500)), &text));
    assert!(!matches(&format!("*{}b*", "a".repeat(200)), &text));
    assert!(!matches(&format!("{}b", "*?".repeat(500)), &text));
}

#[test]
fn two_lists_of_ranges_meet_at_a_corner_or_not_at_all() {
    let list = |text: &str| AddressList::parse(text).unwrap();
    let meet = |a: &AddressList, b: &AddressList| {
        a.corners().into_iter().chain(b.corners()).any(|corner| a.contains(corner) && b.contains(corner))
    };
    for (a, b, met) in [
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "10.0.0.2", false),
        ("10.0.0.1", "::ffff:10.0.0.1", true),
        ("10.0.0.0/8", "10.1.2.3", true),
        ("10.0.0.0/8,!10.1.2.3", "10.1.2.3", false),
        ("10.0.0.0/8,!10.0.0.0/9", "10.0.0.0/8,!10.128.0.1-10.255.255.255", true),
        ("10.0.0.0/8,!10.0.0.0/9", "10.0.0.0/8,!10.128.0.0/9", false),
        ("0.0.0.0/0,!255.255.255.255", "255.255.255.255", false),
        ("10.0.0.1-10.0.0.9", "10.0.0.9-10.0.0.20", true),
        ("*", "2001:db8::1", true),
        ("*,!2001:db8::/32", "2001:db8::1", false),
        ("2001:db8::/32", "2001:db8:*,!2001:db8::1", true),
        ("2001:db8::1", "10.0.0.1", false),
    ] {
        assert_eq!(meet(&list(a), &list(b)), met, "{a} and {b}");
        assert_eq!(meet(&list(b), &list(a)), met, "{b} and {a}");
    }
    assert!(list("10.0.0.0/8,10.1.*,2001:db8:*").is_ranges());
    assert!(!list("10.*.1.1").is_ranges());
}

#[test]
fn the_entry_that_decides_is_told_with_the_part_it_stands_in() {
    let mut list = PatternList::parse("a*,b*").unwrap();
    list.append(PatternList::parse("abc*,!abd,*").unwrap());
    list.append(PatternList::parse("zz,!b?").unwrap());
    for (text, entry, part) in
        [("abc", "a*", 0), ("b", "b*", 0), ("abd", "!abd", 1), ("bx", "!b?", 2), ("zz", "*", 1), ("", "*", 1)]
    {
        let hit = list.decides(|pattern| matches(pattern, text)).unwrap();
        assert_eq!((hit.to_string().as_str(), hit.part), (entry, part), "{text}");
        assert_eq!(list.matches(text), !hit.excludes, "{text}");
    }
    let mut list = AddressList::default();
    list.append(AddressList::parse("10.0.0.0/8").unwrap());
    list.append(AddressList::parse("10.1.*, 2001:db8::/32, !10.1.2.3").unwrap());
    let told = |address: &str| list.decides(address.parse().unwrap()).map(|hit| (hit.to_string(), hit.part));
    assert_eq!(told("10.1.0.1"), Some(("10.0.0.0/8".into(), 0)));
    assert_eq!(told("::ffff:10.1.2.3"), Some(("!10.1.2.3".into(), 1)));
    assert_eq!(told("2001:db8::1"), Some(("2001:db8::/32".into(), 1)));
    assert_eq!(told("192.0.2.1"), None);
    assert_eq!(list.to_string(), "10.0.0.0/8,10.1.0.0/16,2001:db8::/32,!10.1.2.3");
}
