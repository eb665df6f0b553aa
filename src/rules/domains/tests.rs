use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

const NAMING: Naming = Naming { separator: '_', drop_prefix: true, authent_domain: false, hash_spool: 0 };

fn line(text: &str) -> Line {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [prefix, reach, domain, drops] = fields[..] else { panic!("{text}") };
    assert!(is_prefix(prefix), "{prefix}");
    Line { prefix: prefix.into(), reach: Reach::parse(reach).unwrap(), domain: domain.into(), drops: drops.into() }
}

fn drawn(naming: Naming, lines: &[Line], elsewhere: &[Elsewhere]) -> (Domains, Vec<Objection>) {
    let main = ["main.example".to_owned(), "alias.example".to_owned()];
    draw(Plan { main: &main, drops: Path::new("/main"), lines, elsewhere, naming })
}

fn domains(naming: Naming, lines: &[&str]) -> Domains {
    let lines: Vec<Line> = lines.iter().map(|text| line(text)).collect();
    let (domains, objections) = drawn(naming, &lines, &[]);
    assert_eq!(objections, []);
    domains
}

/// What becomes of a login to that address: canonical name, what is asked, drop file.
fn says(domains: &Domains, address: &str, login: &str) -> Option<(String, String, String)> {
    let name = domains.resolve(login.as_bytes(), domains.home_at(address.parse().unwrap()))?;
    let drop = domains.drops_of(&name).join(&name.file).display().to_string();
    Some((name.shown().to_owned(), String::from_utf8(name.asked).unwrap(), drop))
}

#[track_caller]
fn is(domains: &Domains, address: &str, login: &str, shown: &str, asked: &str, drop: &str) {
    let wanted = (!shown.is_empty()).then(|| (shown.to_owned(), asked.to_owned(), drop.to_owned()));
    assert_eq!(says(domains, address, login), wanted, "{login} at {address}");
}

#[test]
fn the_manuals_examples_come_out_as_it_says() {
    let prefixed = domains(
        NAMING,
        &[
            "abc 1.2.3.4 abc.com /mail/abc_com",
            "abc /xdom abc.com /mail/abc_com",
            "Btwo 161.33.44.55 mail.domain.one /var/spool/mail/B",
            "C 222.33.44.22 mail.domain.two /var/spool/mail/domaintwo",
            "J /jds johns.server /var/spool/mail/johnsusers",
            "A 10.0.0.1 a.example /var/spool/mail/A",
            "B 10.0.0.2 b.example /var/spool/mail/B2",
        ],
    );
    for (address, login, shown, asked, drop) in [
        ("1.2.3.4", "fred", "fred@abc.com", "abc_fred", "/mail/abc_com/abc_fred"),
        ("100.2.3.1", "fred/xdom", "fred@abc.com", "abc_fred", "/mail/abc_com/abc_fred"),
        ("161.33.44.55", "fred", "fred@mail.domain.one", "Btwo_fred", "/var/spool/mail/B/Btwo_fred"),
        ("222.33.44.22", "fred", "fred@mail.domain.two", "C_fred", "/var/spool/mail/domaintwo/C_fred"),
        ("100.2.3.1", "Fred/jds", "fred@johns.server", "J_fred", "/var/spool/mail/johnsusers/J_fred"),
        ("10.0.0.1", "fred", "fred@a.example", "A_fred", "/var/spool/mail/A/A_fred"),
        ("10.0.0.2", "fred", "fred@b.example", "B_fred", "/var/spool/mail/B2/B_fred"),
        ("100.2.3.1", "fred", "fred", "fred", "/main/fred"),
    ] {
        is(&prefixed, address, login, shown, asked, drop);
    }
    let bare = domains(
        Naming { drop_prefix: false, ..NAMING },
        &["abc 1.2.3.4 xdomain.com /var/spool/mail/xdomain", "abc /xdom xdomain.com /var/spool/mail/xdomain"],
    );
    for (address, login) in [("1.2.3.4", "fred"), ("9.9.9.9", "fred/xdom"), ("1.2.3.4", "fred/xdom")] {
        is(&bare, address, login, "fred@xdomain.com", "abc_fred", "/var/spool/mail/xdomain/fred");
    }
    for reach in ["9.9.9.9", "@computers.com"] {
        let text = format!("cc {reach} computers.com /p");
        let login = if reach.starts_with('@') { "sales@computers.com" } else { "sales" };
        is(&domains(NAMING, &[&text]), "9.9.9.9", login, "sales@computers.com", "cc_sales", "/p/cc_sales");
        let whole = domains(Naming { authent_domain: true, ..NAMING }, &[&text]);
        is(&whole, "9.9.9.9", login, "sales@computers.com", "sales@computers.com", "/p/cc_sales");
        is(&whole, "9.9.9.8", "test", "test", "test@main.example", "/main/test");
    }
}

#[test]
fn what_the_login_names_beats_the_address_and_case_means_nothing() {
    let table = domains(
        NAMING,
        &[
            "A 10.0.0.1,2001:db8::1 a.example /a",
            "B 10.1.0.0/16 b.example /b",
            "B %bee b.example /b",
            "B %x%bee b.example /b",
        ],
    );
    for (address, login, shown) in [
        ("10.0.0.1", "fred", "fred@a.example"),
        ("2001:db8::1", "FRED", "fred@a.example"),
        ("::ffff:10.0.0.1", "fred", "fred@a.example"),
        ("10.1.255.9", "fred", "fred@b.example"),
        ("10.2.0.1", "fred", "fred"),
        ("10.0.0.1", "fred%BEE", "fred@b.example"),
        ("10.0.0.1", "Fred@B.Example", "fred@b.example"),
        ("10.0.0.1", "fred@main.example", "fred"),
        ("10.0.0.1", "fred@ALIAS.example", "fred"),
        ("10.0.0.1", "fred@foreign.example", "fred@foreign.example"),
        ("10.2.0.1", "fred@foreign.example", "fred@foreign.example"),
        ("10.2.0.1", "fred%bee%bee", "fred%bee@b.example"),
        ("10.2.0.1", "fred/jds", ""),
        ("10.2.0.1", "fred@b.example%bee", ""),
        ("10.2.0.1", "fred@main.example@b.example", ""),
        ("10.2.0.1", "fred@b.example@main.example", ""),
        ("10.2.0.1", "fred@foreign.example@alias.example", ""),
        ("10.2.0.1", "%bee", ""),
        ("10.2.0.1", "@b.example", ""),
        ("10.2.0.1", "@main.example", ""),
        ("10.2.0.1", "@", ""),
        ("10.2.0.1", "@@", ""),
        ("10.2.0.1", "fred@", ""),
        ("10.2.0.1", "fred@@foreign.example", ""),
        ("10.2.0.1", "@foreign.example", ""),
        ("10.2.0.1", "", ""),
    ] {
        let found = says(&table, address, login).map_or(String::new(), |(shown, ..)| shown);
        assert_eq!(found, shown, "{login} at {address}");
    }
}

#[test]
fn an_answer_is_remembered_for_one_user_and_what_was_asked() {
    let lines = ["a 10.0.0.1 a.example /a", "b 10.0.0.2 b.example /b"];
    let (table, whole) = (domains(NAMING, &lines), domains(Naming { authent_domain: true, ..NAMING }, &lines));
    let mut keys = BTreeSet::new();
    for table in [&table, &whole] {
        for login in ["fred", "fred@a.example", "fred@b.example"] {
            keys.insert(table.resolve(login.as_bytes(), Home::default()).unwrap().remembered_by());
        }
    }
    assert_eq!(keys.len(), 6);
    let here = table.home_at("10.0.0.1".parse().unwrap());
    let spelled =
        ["Fred", "fred@A.example"].map(|login| table.resolve(login.as_bytes(), here).unwrap().remembered_by());
    assert_eq!(spelled[0], spelled[1], "another spelling is the same user");
}

#[test]
fn the_longest_suffix_counts() {
    let table = domains(NAMING, &["A %x a.example /a", "B %y%x b.example /b"]);
    is(&table, "9.9.9.9", "fred%x", "fred@a.example", "A_fred", "/a/A_fred");
    is(&table, "9.9.9.9", "fred%y%x", "fred@b.example", "B_fred", "/b/B_fred");
    is(&table, "9.9.9.9", "fred%z%x", "fred%z@a.example", "A_fred%z", "/a/A_fred%z");
}

#[test]
fn without_virtual_domains_names_are_case_blind_and_lose_our_own_domain() {
    let plain = domains(NAMING, &[]);
    let whole = domains(Naming { authent_domain: true, ..NAMING }, &[]);
    assert!(!plain.look_at_addresses());
    for (login, user, asked) in [
        ("fred", "fred", "fred@main.example"),
        ("Fred", "fred", "fred@main.example"),
        ("FRED@Main.Example", "fred", "fred@main.example"),
        ("fred@alias.example", "fred", "fred@main.example"),
        ("fred@other.test", "fred@other.test", "fred@other.test"),
        ("a_fred", "a_fred", "a_fred@main.example"),
        ("a b", "a b", "a b@main.example"),
    ] {
        is(&plain, "1.1.1.1", login, user, user, &format!("/main/{user}"));
        is(&whole, "1.1.1.1", login, user, asked, &format!("/main/{user}"));
    }
    for login in [
        "fred ",
        " fred",
        "fred @main.example",
        "fred\t",
        "fred%00x",
        "fred%2f",
        "../root",
        "a/b",
        ".hidden",
        "-rf",
        "fred.lock",
        "fred.fwd@main.example",
        "fred.lock@other.test",
        "fr\0ed",
        "fr\ned",
        "",
        "@main.example",
        "zo\u{eb}",
        "FR\u{c9}D",
        "fr\u{435}d",
        "\u{212a}en",
    ] {
        is(&plain, "1.1.1.1", login, "", "", "");
    }
    assert_eq!(plain.resolve(b"fr\xe9d", Home::default()), None);
}

#[test]
fn blanks_codes_and_long_names_are_no_users_of_a_virtual_domain_either() {
    let table = domains(NAMING, &["abc /xdom abc.example /abc", "abc 10.0.0.1 abc.example /abc"]);
    let long = "x".repeat(237);
    for login in [
        "fred /xdom",
        " fred/xdom",
        "fred%00/xdom",
        "fred/xdom ",
        "fred/xdom/xdom",
        "../fred/xdom",
        ".x/xdom",
        "x.lock/xdom",
        &long,
    ] {
        is(&table, "10.0.0.1", login, "", "", "");
    }
    assert!(says(&table, "10.0.0.1", &long[1..]).is_some(), "prefix, separator and user have just room");
}

#[test]
fn a_name_with_a_prefix_is_one_users_only() {
    // The same account for the authenticator, and another drop file: nobody's in the main domain.
    let apart = domains(NAMING, &["abc 10.0.0.1 abc.example /abc"]);
    is(&apart, "9.9.9.9", "abc_fred", "", "", "");
    is(&apart, "9.9.9.9", "ABC_fred@main.example", "", "", "");
    is(&apart, "9.9.9.9", "abc_", "abc_", "abc_", "/main/abc_");
    is(&apart, "9.9.9.9", "abcfred", "abcfred", "abcfred", "/main/abcfred");
    is(
        &apart,
        "9.9.9.9",
        "abc_fred@foreign.example",
        "abc_fred@foreign.example",
        "abc_fred@foreign.example",
        "/main/abc_fred@foreign.example",
    );
    is(&apart, "10.0.0.1", "abc_fred", "abc_fred@abc.example", "abc_abc_fred", "/abc/abc_abc_fred");
    // The same account and the same drop file: the same user, by the name of his system account.
    let together = domains(NAMING, &["Abc 10.0.0.1 abc.example /main"]);
    for (address, login) in [("10.0.0.1", "fred"), ("9.9.9.9", "abc_fred"), ("9.9.9.9", "Abc_Fred@main.example")] {
        is(&together, address, login, "fred@abc.example", "Abc_fred", "/main/Abc_fred");
    }
    // With directories spread by the user's name it would be another file.
    let spread = domains(Naming { hash_spool: 1, ..NAMING }, &["abc 10.0.0.1 abc.example /main"]);
    is(&spread, "9.9.9.9", "abc_fred", "", "", "");
    // Another account, and the same drop file.
    let whole = Naming { authent_domain: true, ..NAMING };
    is(&domains(whole, &["abc 10.0.0.1 abc.example /main"]), "9.9.9.9", "abc_fred", "", "", "");
    // Another account and another drop file: another user.
    let (asked, drop) = ("abc_fred@main.example", "/main/abc_fred");
    is(&domains(whole, &["abc 10.0.0.1 abc.example /abc"]), "9.9.9.9", "abc_fred", "abc_fred", asked, drop);
    // Between two virtual domains.
    let lines = [line("a 10.0.0.1 a.example /a"), line("a_b 10.0.0.2 b.example /b")];
    let (table, objections) = drawn(NAMING, &lines, &[]);
    assert!(!objections[0].fatal && objections.len() == 1, "{objections:?}");
    is(&table, "10.0.0.1", "b_c", "", "", "");
    is(&table, "10.0.0.1", "b", "b@a.example", "a_b", "/a/a_b");
    is(&table, "10.0.0.2", "c", "c@b.example", "a_b_c", "/b/a_b_c");
    let (table, objections) = drawn(whole, &lines, &[]);
    assert_eq!(objections, []);
    is(&table, "10.0.0.1", "b_c", "b_c@a.example", "b_c@a.example", "/a/a_b_c");
}

#[test]
fn a_separator_of_ones_own_does_as_well() {
    let table = domains(Naming { separator: '.', ..NAMING }, &["abc 10.0.0.1 abc.example /abc"]);
    is(&table, "10.0.0.1", "fred", "fred@abc.example", "abc.fred", "/abc/abc.fred");
    is(&table, "9.9.9.9", "abc.fred", "", "", "");
    is(&table, "9.9.9.9", "abc_fred", "abc_fred", "abc_fred", "/main/abc_fred");
    is(&table, "10.0.0.1", "lock", "", "", "");
}

#[test]
fn drop_files_of_a_domain_can_lie_elsewhere() {
    let lines = [line("abc 10.0.0.1 abc.example /abc"), line("d 10.0.0.2 d.example /d")];
    let at = |domain: &str, drops: &str| Elsewhere { domain: domain.into(), drops: drops.into() };
    let (table, objections) = drawn(NAMING, &lines, &[at("abc.example", "/e"), at("main.example", "/m")]);
    assert_eq!(objections, []);
    is(&table, "10.0.0.1", "fred", "fred@abc.example", "abc_fred", "/e/abc_fred");
    is(&table, "10.0.0.2", "fred", "fred@d.example", "d_fred", "/d/d_fred");
    is(&table, "10.0.0.3", "fred", "fred", "fred", "/m/fred");
    assert_eq!(table.all_drops().collect::<Vec<_>>(), [Path::new("/e"), Path::new("/d"), Path::new("/m")]);
}

#[test]
fn the_second_field_is_an_address_or_a_suffix_and_nothing_else() {
    for (text, shown) in [
        ("1.2.3.4", "addresses 1.2.3.4"),
        ("::ffff:1.2.3.4", "addresses 1.2.3.4"),
        ("2001:db8::1", "addresses 2001:db8::1"),
        ("::1", "addresses ::1"),
        ("10.0.0.0/8,!10.0.0.1", "addresses 10.0.0.0/8,!10.0.0.1"),
        ("*", "addresses *"),
        ("/xdom", "/xdom"),
        ("@Computers.COM", "@computers.com"),
        ("%x", "%x"),
        (":x", ":x"),
        ("+a-b.c_d", "+a-b.c_d"),
    ] {
        let found = match Reach::parse(text).unwrap() {
            Reach::Addresses(addresses) => format!("addresses {addresses}"),
            Reach::Suffix(suffix) => suffix,
        };
        assert_eq!(found, shown, "{text}");
    }
    for text in [
        "",
        "/",
        "@",
        "smith",
        ".smith",
        "-x",
        "_x",
        "johns.server",
        "localhost",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.4/40",
        "10.*.1.1",
        "!10.0.0.1",
        "/x y",
        "/x\u{e9}",
        "/x*",
        "/x,y",
        "/{}",
    ] {
        assert!(Reach::parse(text).is_err(), "{text}");
    }
}

#[test]
fn lines_that_do_not_go_together_are_objected_to_with_both() {
    use Cited::{Drops, Main};
    let (lines, elsewhere) = (Cited::Line, Cited::Elsewhere);
    let at = |domain: &str, drops: &str| Elsewhere { domain: domain.into(), drops: drops.into() };
    let bare = Naming { drop_prefix: false, ..NAMING };
    let hashed = |hash_spool| Naming { hash_spool, ..NAMING };
    type Row<'a> = (Naming, &'a [&'a str], &'a [Elsewhere], &'a [(bool, Cited, Option<Cited>, &'a str)]);
    let rows: &[Row<'_>] = &[
        (
            NAMING,
            &["a 10.0.0.1 a.example /a", "a /a a.example /a", "a /a a.example /a", "a 10.0.0.1 a.example /a"],
            &[],
            &[],
        ),
        (
            NAMING,
            &["a 10.0.0.1 a.example /a", "a /a a.example /b"],
            &[],
            &[(true, lines(1), Some(lines(0)), "a.example has /a already, and cannot have /b")],
        ),
        (
            NAMING,
            &["a 10.0.0.1 a.example /a", "A /a a.example /a"],
            &[],
            &[(true, lines(1), Some(lines(0)), "a.example has a already, and cannot have A")],
        ),
        (
            NAMING,
            &["a 10.0.0.1 a.example /a", "b /a a.example /a"],
            &[],
            &[(true, lines(1), Some(lines(0)), "a.example has the prefix a already, and cannot have b")],
        ),
        (
            NAMING,
            &["a 10.0.0.1 a.example /a", "A /a b.example /a"],
            &[],
            &[(true, lines(1), Some(lines(0)), "the prefix A is a.example's already, and cannot be b.example's")],
        ),
        (
            NAMING,
            &["a 10.0.0.1 a.example /a", "b 10.0.0.1 b.example /b"],
            &[],
            &[(true, lines(1), Some(lines(0)), "clients that connect to 10.0.0.1 are")],
        ),
        (
            NAMING,
            &["a 10.0.0.0/8,!10.1.0.0/16 a.example /a", "b 10.1.0.1 b.example /b", "c 10.2.0.0-10.2.0.9 c.example /c"],
            &[],
            &[(true, lines(2), Some(lines(0)), "clients that connect to 10.2.0.0 are")],
        ),
        (
            NAMING,
            &["a /x a.example /a", "b /X b.example /b"],
            &[],
            &[(true, lines(1), Some(lines(0)), "logins that end in /x are")],
        ),
        (
            NAMING,
            &["a @b.example a.example /a", "b /b b.example /b", "c @alias.example c.example /c"],
            &[],
            &[
                (true, lines(0), Some(lines(1)), "logins that end in @b.example are"),
                (true, lines(2), Some(Main), "logins that end in @alias.example are"),
            ],
        ),
        (
            NAMING,
            &["a /a alias.example /a"],
            &[],
            &[(true, lines(0), Some(Main), "alias.example is the main domain's")],
        ),
        (
            NAMING,
            &["a /a a.example /a"],
            &[at("a.example", "/b"), at("a.example", "/c"), at("alias.example", "/d"), at("x.example", "/e")],
            &[
                (true, elsewhere(1), Some(elsewhere(0)), "a.example has an alt_drop_path already"),
                (true, elsewhere(2), Some(Main), "alias.example is another name of main.example"),
                (true, elsewhere(3), None, "x.example is no domain of ours"),
            ],
        ),
        (
            bare,
            &["a /a a.example /a", "b /b b.example /b", "c /c c.example /a/.", "d /d d.example /main"],
            &[at("b.example", "/a")],
            &[
                (
                    true,
                    elsewhere(0),
                    Some(lines(0)),
                    "users of the same name in two domains would have one drop file in /a",
                ),
                (true, lines(2), Some(lines(0)), "users of the same name"),
                (
                    true,
                    lines(3),
                    Some(Drops),
                    "users of the same name in two domains would have one drop file in /main",
                ),
            ],
        ),
        (NAMING, &["a /a a.example /main", "b /b b.example /main"], &[], &[]),
        (
            NAMING,
            &["a /a a.example /a", "a_b /b b.example /b"],
            &[],
            &[(false, lines(1), Some(lines(0)), "users of a.example whose names begin with b_ cannot log in")],
        ),
        (
            Naming { authent_domain: true, ..NAMING },
            &["a_b /b b.example /b", "a /a a.example /b"],
            &[],
            &[(false, lines(0), Some(lines(1)), "users of a.example whose names begin with b_ cannot log in")],
        ),
        (Naming { authent_domain: true, ..NAMING }, &["a_b /b b.example /b", "a /a a.example /a"], &[], &[]),
        (hashed(0), &["a /a a.example /main/a"], &[], &[]),
        (hashed(1), &["a /a a.example /main/B"], &[], &[]),
        (
            hashed(1),
            &["a /a a.example /main/b/c"],
            &[],
            &[(false, lines(0), Some(Drops), "/main/b/c lies among the hash directories of /main")],
        ),
        (
            hashed(2),
            &["a /a a.example /x/y/z", "b /b b.example /x"],
            &[],
            &[(false, lines(0), Some(lines(1)), "/x/y/z lies among the hash directories of /x")],
        ),
    ];
    for (naming, texts, elsewhere, wanted) in rows {
        let parsed: Vec<Line> = texts.iter().map(|text| line(text)).collect();
        let (_, mut objections) = drawn(*naming, &parsed, elsewhere);
        objections.sort_by_key(|objection| format!("{:?}", objection.at));
        let found: Vec<_> = objections.iter().map(|found| (found.fatal, found.at, found.other)).collect();
        let expected: Vec<_> = wanted.iter().map(|(fatal, at, other, _)| (*fatal, *at, *other)).collect();
        assert_eq!(found, expected, "{texts:?}: {objections:#?}");
        for (objection, (.., text)) in objections.iter().zip(*wanted) {
            assert!(objection.what.starts_with(text), "{}", objection.what);
            assert!(!objection.remedy.is_empty());
        }
    }
}

#[test]
fn thousands_of_domains_are_told_apart_and_one_too_many_is_refused() {
    let made = |index: usize| {
        let (high, low) = (index / 250, index % 250 + 1);
        line(
            &format!("p{index} 10.0.{high}.{low},%s{index} d{index}.example /d{index}")
                .replace(&format!(",%s{index}"), ""),
        )
    };
    let mut lines: Vec<Line> = (0..LINES_MOST).map(made).collect();
    let (domains, objections) = drawn(NAMING, &lines, &[]);
    assert_eq!(objections, []);
    for index in [0, 1, 777, LINES_MOST - 1] {
        let shown = format!("fred@d{index}.example");
        let address = format!("10.0.{}.{}", index / 250, index % 250 + 1);
        assert_eq!(says(&domains, &address, "fred").unwrap().0, shown);
        assert_eq!(says(&domains, "9.9.9.9", &shown).unwrap().0, shown);
    }
    lines.push(line("z /z z.example /z"));
    let (_, objections) = drawn(NAMING, &lines, &[]);
    assert!(objections[0].fatal && objections[0].at == Cited::Line(LINES_MOST), "{objections:?}");
}

/// The same table without maps, and the rules as one would say them.
struct Twin<'a> {
    lines: &'a [Line],
    naming: Naming,
}

impl Twin<'_> {
    fn resolve(&self, login: &str, address: IpAddr) -> Option<(String, String, String)> {
        let login = login.to_ascii_lowercase();
        let suffix = |line: &&Line| matches!(&line.reach, Reach::Suffix(suffix) if login.ends_with(suffix.as_str()));
        let length = |line: &&Line| if let Reach::Suffix(suffix) = &line.reach { suffix.len() } else { 0 };
        let by_suffix = self.lines.iter().filter(suffix).max_by_key(length);
        let by_address =
            self.lines.iter().find(|line| matches!(&line.reach, Reach::Addresses(list) if list.contains(address)));
        let (user, line) = if let Some(line) = by_suffix {
            (login[..login.len() - length(&line)].to_owned(), Some(line))
        } else if let Some(at) = login.rfind('@') {
            let domain = &login[at + 1..];
            if let Some(line) = self.lines.iter().find(|line| line.domain == domain) {
                (login[..at].to_owned(), Some(line))
            } else if domain == "main.example" || domain == "alias.example" {
                if login[..at].contains('@') {
                    return None;
                }
                (login[..at].to_owned(), None)
            } else {
                (login.clone(), None)
            }
        } else {
            (login.clone(), by_address)
        };
        self.called(&user, line, true)
    }

    fn called(&self, user: &str, line: Option<&Line>, refuse: bool) -> Option<(String, String, String)> {
        if !is_user_name(user.as_bytes()) || user.split('@').any(|part| !is_user_name(part.as_bytes())) {
            return None;
        }
        let Naming { separator, drop_prefix, authent_domain, hash_spool } = self.naming;
        let (base, full) = match line {
            Some(line) => (line.drops.clone(), format!("{}{separator}{user}", line.prefix)),
            None => (PathBuf::from("/main"), user.to_owned()),
        };
        if line.is_some() && user.contains('@') {
            return None;
        }
        let file = if drop_prefix || line.is_none() { full.clone() } else { user.to_owned() };
        let asked = match line {
            Some(line) if authent_domain => format!("{user}@{}", line.domain),
            None if authent_domain && !user.contains('@') => format!("{user}@main.example"),
            _ => full.clone(),
        };
        let directory = if hash_spool == 0 { base } else { base.join(&user[..1]) };
        let drop = directory.join(&file).display().to_string();
        let shown = line.map_or(user.to_owned(), |line| format!("{user}@{}", line.domain));
        let own = line.map_or(0, |line| line.prefix.len());
        for other in self.lines.iter().filter(|_| refuse && !full.contains('@')) {
            let begin = format!("{}{separator}", other.prefix).to_lowercase();
            let Some(rest) = full.to_lowercase().strip_prefix(&begin).map(str::to_owned) else { continue };
            let longer = other.prefix.len() > own && !rest.is_empty();
            let longest = !self.lines.iter().any(|third| {
                let deeper = format!("{}{separator}", third.prefix).to_lowercase();
                deeper.len() > begin.len() && full.to_lowercase().starts_with(&deeper) && full.len() > deeper.len()
            });
            if longer && longest {
                let theirs = self.called(&rest, Some(other), false);
                let same_base = line.map_or(Path::new("/main"), |line| &line.drops) == other.drops;
                if theirs.is_none() && (!authent_domain || drop_prefix && same_base) {
                    return None;
                }
                let Some(theirs) = theirs else { continue };
                let (one_account, one_drop) =
                    (theirs.1.eq_ignore_ascii_case(&asked), theirs.2.eq_ignore_ascii_case(&drop));
                return match (one_account, one_drop) {
                    (true, true) if line.is_none() && hash_spool == 0 => Some(theirs),
                    (false, false) if !(drop_prefix && same_base) => Some((shown, asked, drop)),
                    _ => None,
                };
            }
        }
        Some((shown, asked, drop))
    }
}

fn a_line() -> impl Strategy<Value = Line> {
    let prefix = prop::sample::select(vec!["a", "A", "a_b", "b", "ab", "abc", "a_b_a"]);
    let reach = prop::sample::select(vec![
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.0/24",
        "/a",
        "%b",
        "%a%b",
        "@a.example",
        "@x.example",
    ]);
    let domain = prop::sample::select(vec!["a.example", "b.example", "c.example"]);
    let drops = prop::sample::select(vec!["/main", "/a", "/b", "/a/b"]);
    (prefix, reach, domain, drops)
        .prop_map(|(prefix, reach, domain, drops)| line(&format!("{prefix} {reach} {domain} {drops}")))
}

fn a_naming() -> impl Strategy<Value = Naming> {
    (prop::sample::select(vec!['_', '.']), any::<bool>(), any::<bool>(), 0..2u8).prop_map(
        |(separator, drop_prefix, authent_domain, hash_spool)| Naming {
            separator,
            drop_prefix,
            authent_domain,
            hash_spool,
        },
    )
}

fn a_login() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "B",
        "A_",
        "a_",
        "a_b_",
        "b_",
        "a.",
        "_",
        " ",
        "%00",
        "/",
        "/a",
        "%b",
        "@",
        "@a.example",
        "@b.example",
        "@main.example",
        "@alias.example",
        "@x.example",
        ".lock",
        "fred",
        "Fred",
    ]);
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_two_users_share_an_account_or_a_drop_and_the_naive_twin_agrees(
        lines in prop::collection::vec(a_line(), 0..5),
        naming in a_naming(),
        logins in prop::collection::vec(a_login(), 60),
    ) {
        // Lines one by one, each that goes with those before it: nearly all tables are good ones.
        let mut good: Vec<Line> = Vec::new();
        for line in lines {
            good.push(line);
            if drawn(naming, &good, &[]).1.iter().any(|objection| objection.fatal) {
                good.pop();
            }
        }
        let (table, _) = drawn(naming, &good, &[]);
        let twin = Twin { lines: &good, naming };
        let (mut accounts, mut drops, mut names) = (HashMap::new(), HashMap::new(), HashMap::new());
        for login in &logins {
            for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.1.0.1"] {
                let address: IpAddr = address.parse().unwrap();
                let found = table.resolve(login.as_bytes(), table.home_at(address)).map(|name| {
                    let directory = table.drops_of(&name).to_owned();
                    let directory = if naming.hash_spool == 0 { directory } else { directory.join(&name.local[..1]) };
                    let drop = directory.join(&name.file).display().to_string();
                    (name.shown().to_owned(), String::from_utf8(name.asked).unwrap(), drop)
                });
                prop_assert_eq!(&found, &twin.resolve(login, address), "{} at {} with {:?}", login, address, &good);
                let Some((shown, asked, drop)) = found else { continue };
                // An authenticator compares names case-blind, and so may a disk.
                let same_account = accounts.entry(asked.to_ascii_lowercase()).or_insert_with(|| shown.clone());
                prop_assert_eq!(&*same_account, &shown, "one account {}: {:?}", asked, &good);
                let same_drop = drops.entry(drop.to_ascii_lowercase()).or_insert_with(|| shown.clone());
                prop_assert_eq!(&*same_drop, &shown, "one drop {}: {:?}", drop, &good);
                let one = names.entry(shown.clone()).or_insert_with(|| (asked.clone(), drop.clone()));
                prop_assert_eq!(&*one, &(asked, drop), "one name, two users: {}", shown);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(login in prop::collection::vec(any::<u8>(), 0..40)) {
        let table = domains(NAMING, &["a %x a.example /a", "b 10.0.0.1 b.example /b"]);
        let _ = table.resolve(&login, table.home_at("10.0.0.1".parse().unwrap()));
    }
}

#[test]
fn the_trace_really_meets_every_kind_of_name() {
    let table = domains(NAMING, &["a %b a.example /a", "b 10.0.0.1 b.example /b", "c /x c.example /main"]);
    let met: BTreeSet<String> =
        ["fred", "a_fred", "c_fred", "fred%b", "fred@a.example", "fred/x", "fred@x.example", "fred "]
            .iter()
            .map(|login| says(&table, "10.0.0.1", login).map_or("refused".into(), |(shown, ..)| shown))
            .collect();
    let wanted = [
        "a_fred@b.example",
        "c_fred@b.example",
        "fred@a.example",
        "fred@b.example",
        "fred@c.example",
        "fred@x.example",
        "refused",
    ];
    assert_eq!(met.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
}
