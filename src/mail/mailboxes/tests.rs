//! The list reader against sentences of the RFC, and against a naive twin.

use proptest::prelude::*;

use super::*;

fn read(field: &str) -> Result<Vec<String>, NoList> {
    let list = mailboxes(field.as_bytes())?;
    Ok(list
        .into_iter()
        .map(|mailbox| {
            assert!(field.is_char_boundary(mailbox.local_end));
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            match &mailbox.domain {
                Some(domain) => format!("{}@{}", text(&mailbox.local), text(domain)),
                None => text(&mailbox.local),
            }
        })
        .collect())
}

#[test]
fn lists_are_what_the_grammar_says() {
    for (field, wanted) in [
        ("ann@x.org", &["ann@x.org"][..]),
        (" ann @ x . org ", &["ann@x.org"]),
        ("Ann Lee <ann@x.org>, bob@y.org", &["ann@x.org", "bob@y.org"]),
        ("Joe Q. Public <joe@x.org>", &["joe@x.org"]),
        ("\"Lee, Ann <x>\" <ann@x.org>", &["ann@x.org"]),
        ("\"ann b\"@x.org", &["\"ann b\"@x.org"]),
        ("\"a\\\"@b\"@x.org", &["\"a\\\"@b\"@x.org"]),
        ("first.\"mid dle\".last@x", &["first.\"mid dle\".last@x"]),
        ("root (Cron Daemon)", &["root"]),
        ("root(Cron (nested \\) deep) Daemon)@(here)x.org", &["root@x.org"]),
        ("<@a.org,@b.org:ann@x.org>", &["ann@x.org"]),
        ("ann@[192.0.2.1]", &["ann@[192.0.2.1]"]),
        ("Friends: ann@x, Bob <bob@y>;", &["ann@x", "bob@y"]),
        ("Friends: ann@x, Bob <bob@y>;, carl@z", &["ann@x", "bob@y", "carl@z"]),
        ("A: <a@x>; B: b@y;", &["a@x", "b@y"]),
        ("undisclosed-recipients:;", &[]),
        ("Group (with a comment) : ;", &[]),
        ("unclosed: ann@x", &["ann@x"]),
        ("", &[]),
        ("(only a comment)", &[]),
        (",, ann@x ,\r\n , ,bob@y,", &["ann@x", "bob@y"]),
        ("ann@x,\n\tBob\n\t<bob@y>", &["ann@x", "bob@y"]),
        ("<>", &[""]),
        ("ünn@bücher.example", &["ünn@bücher.example"]),
        ("/var/mail/x", &["/var/mail/x"]),
        ("|prog", &["|prog"]),
    ] {
        assert_eq!(read(field).unwrap_or_else(|why| panic!("{field}: {why:?}")), wanted, "{field}");
    }
}

#[test]
fn what_is_no_list_is_refused() {
    for field in [
        "ann bob@x",
        "ann@",
        "@x.org",
        "ann@x@y",
        "ann..b@x",
        "ann.@x",
        ".ann@x",
        "Ann <ann@x",
        "Ann ann@x>",
        "Ann <ann@x> junk",
        "Ann <ann@x> <bob@y>",
        "a@b <ann@x>",
        "<<<>>>",
        "<a <b@x>>",
        "\"open",
        "(open",
        "((open)",
        "[open",
        "ann@x;",
        ";",
        "a: b: c@x;",
        ": ann@x;",
        "ann\\b@x",
        "ann\0@x",
        "ann)@x",
        "ann@[1.2.3.4].x",
        "<@a.org>",
        "<@a.org:>",
    ] {
        assert!(read(field).is_err(), "{field}: {:?}", read(field));
    }
}

#[test]
fn a_domain_left_out_can_be_put_where_the_local_part_ends() {
    for (field, wanted) in [
        ("root (Cron Daemon)", "root@h (Cron Daemon)"),
        ("Ann <ann>, bob@y, \"c d\" (x)", "Ann <ann@h>, bob@y, \"c d\"@h (x)"),
    ] {
        let mut text = field.to_owned();
        for mailbox in mailboxes(field.as_bytes()).unwrap().iter().rev().filter(|mailbox| mailbox.domain.is_none()) {
            text.insert_str(mailbox.local_end, "@h");
        }
        assert_eq!(text, wanted);
    }
}

#[test]
fn depth_and_length_cost_no_stack_and_little_time() {
    let deep = format!("{}{} ann@x", "(".repeat(500_000), ")".repeat(500_000));
    assert_eq!(read(&deep).unwrap(), ["ann@x"]);
    assert!(read(&"<".repeat(1_000_000)).is_err());
    assert!(read(&"(".repeat(1_000_000)).is_err());
    assert_eq!(read(&"a@x,".repeat(100_000)).unwrap().len(), 100_000);
}

/// The same with no thought of speed: comments and blanks are taken out first, quoted things are replaced by one character
/// each, and then the text is split and split again.
fn naive(field: &str) -> Option<Vec<String>> {
    let mut flat = String::new();
    let mut chars = field.chars().peekable();
    let mut blank = true;
    while let Some(c) = chars.next() {
        match c {
            '(' => {
                let mut depth = 1;
                while depth > 0 {
                    match chars.next()? {
                        '\\' => drop(chars.next()),
                        '(' => depth += 1,
                        ')' => depth -= 1,
                        _ => {}
                    }
                }
                blank = true;
            }
            ' ' | '\t' | '\r' | '\n' => blank = true,
            '"' | '[' => {
                let end = if c == '"' { '"' } else { ']' };
                loop {
                    match chars.next()? {
                        '\\' => drop(chars.next()),
                        c if c == end => break,
                        _ => {}
                    }
                }
                // A word is never glued to its neighbour.
                flat.push_str(if c == '"' { " \u{1}" } else { " \u{2}" });
                blank = true;
            }
            '\\' | ')' | ']' | '\0' | '\u{1}' | '\u{2}' => return None,
            c if "<>@,.:;".contains(c) => {
                flat.push(c);
                blank = true;
            }
            c => {
                if std::mem::take(&mut blank) {
                    flat.push(' ');
                }
                flat.push(c);
            }
        }
    }
    let is_dotted = |text: &str| {
        text.split('.').all(|word| word.strip_prefix(' ').is_some_and(|word| !word.is_empty() && !word.contains(' ')))
            && !text.contains(['\u{2}', '@'])
    };
    let spec = |text: &str| -> Option<String> {
        let (local, domain) = match text.split_once('@') {
            Some((local, domain)) => (local, Some(domain)),
            None => (text, None),
        };
        let good = is_dotted(local) && domain.is_none_or(|domain| domain == " \u{2}" || is_dotted(domain));
        good.then_some(text.to_owned())
    };
    let mut found = Vec::new();
    let mut rest = flat.as_str();
    let mut in_group = false;
    loop {
        let end = rest.find([',', ';', ':', '<', '>']).unwrap_or(rest.len());
        let (before, behind) = rest.split_at(end);
        let phrase = !before.contains(['@', '\u{2}']);
        let mark = behind.chars().next();
        rest = if mark.is_some() { &behind[1..] } else { "" };
        match mark {
            Some('<') if phrase => {
                let (inside, behind) = rest.split_once('>')?;
                let inside = match inside.strip_prefix('@') {
                    Some(route) => route.split_once(':')?.1,
                    None if inside.is_empty() => {
                        found.push(String::new());
                        rest = after_angle(behind)?;
                        continue;
                    }
                    None => inside,
                };
                if inside.contains([',', ';', ':', '<']) {
                    return None;
                }
                found.push(spec(inside)?);
                rest = after_angle(behind)?;
            }
            Some(':') if phrase && !before.is_empty() && !in_group => in_group = true,
            None | Some(',' | ';') => {
                if !before.is_empty() {
                    found.push(spec(before)?);
                }
                if mark == Some(';') && !std::mem::take(&mut in_group) {
                    return None;
                }
                if mark.is_none() {
                    return Some(found);
                }
            }
            _ => return None,
        }
    }
}

/// Behind `>` comes a comma, or the end of the group or the field.
fn after_angle(text: &str) -> Option<&str> {
    match text.chars().next() {
        None | Some(';') => Some(text),
        Some(',') => Some(&text[1..]),
        Some(_) => None,
    }
}

proptest! {
    #[test]
    fn it_is_what_the_naive_one_finds(
        words in proptest::collection::vec("a|b|a@x|@|\\.|<|>|,|:|;| |\n |\\(|\\)|\\(c\\)|\"q, <r\"|\"|\\[1\\]|\\[|\\\\|ü|<a@x>|G:", 0..12)
    ) {
        let field = words.concat();
        let ours = read(&field).ok();
        let theirs = naive(&field).map(|list| list.iter().map(|text| text.replace(' ', "")).collect::<Vec<_>>());
        // The twin forgets what is quoted: there it is enough that both find as many, or none.
        if field.contains(['"', '[', '\\']) {
            prop_assert_eq!(ours.map(|list| list.len()), theirs.map(|list| list.len()), "{:?}", field);
        } else {
            prop_assert_eq!(ours, theirs, "{:?}", field);
        }
    }

    #[test]
    fn nothing_panics_and_what_was_read_can_be_written_and_read_again(field in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(list) = mailboxes(&field) {
            let written: Vec<u8> = list
                .iter()
                .map(|mailbox| {
                    let domain = mailbox.domain.iter().flat_map(|domain| [b"@", &domain[..]].concat());
                    [b"<", &mailbox.local[..]].concat().into_iter().chain(domain).chain(*b">,").collect::<Vec<u8>>()
                })
                .collect::<Vec<_>>()
                .concat();
            let again = mailboxes(&written).unwrap();
            let pair = |mailbox: &Mailbox| (mailbox.local.clone(), mailbox.domain.clone());
            prop_assert_eq!(again.iter().map(pair).collect::<Vec<_>>(), list.iter().map(pair).collect::<Vec<_>>());
        }
    }
}
