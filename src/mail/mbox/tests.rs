use super::*;
use xxhash_rust::xxh3::xxh3_128;

const FROM: &str = "From ann@example.org Mon Jan  5 10:00:00 2026\n";

fn scan(pieces: &[&[u8]]) -> Vec<Extent> {
    let mut found = Vec::new();
    let mut scanner = Scanner::new(0);
    pieces.iter().for_each(|piece| scanner.feed(piece, &mut |extent| found.push(extent)));
    scanner.finish(&mut |extent| found.push(extent));
    found
}

/// The rules in the plainest words: all lines at once, one after another.
fn naive(file: &[u8]) -> Vec<Extent> {
    let mut found: Vec<(usize, usize, Vec<&[u8]>)> = Vec::new(); // offset, From_ line's length, lines
    let (mut at, mut blank) = (0, true);
    for line in file.split_inclusive(|&b| b == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        if (blank || found.is_empty()) && line.len() <= FROM_LINE_BYTES && is_from_line(bare) {
            found.push((at, line.len(), Vec::new()));
            blank = false;
        } else if let Some((_, _, lines)) = found.last_mut() {
            lines.push(line);
            blank = line == b"\n" || line == b"\r\n";
        }
        at += line.len();
    }
    let extent = |(offset, from, mut lines): (usize, usize, Vec<&[u8]>)| {
        let is_blank = |line: &[u8]| line == b"\n" || line == b"\r\n";
        let header = lines.iter().position(|line| is_blank(line)).map_or(lines.len(), |index| index + 1);
        let trail =
            if lines.len() > header && is_blank(lines[lines.len() - 1]) { lines.pop().unwrap().len() } else { 0 };
        let (mut note, mut read, mut named, mut octets) = (false, false, Vec::new(), 0);
        let mut takes_status = !lines.first().is_some_and(|line| line.starts_with(b" ") || line.starts_with(b"\t"));
        for (index, line) in lines.iter().enumerate() {
            let bare = line.strip_suffix(b"\n").map(|bare| bare.strip_suffix(b"\r").unwrap_or(bare));
            octets += bare.unwrap_or(line).len() + 2;
            if index < header && !line.starts_with(b" ") && !line.starts_with(b"\t") {
                note = is_note(&line[..line.len().min(HEAD_BYTES)]);
                let status = note && line.len() > 6 && line[..6].eq_ignore_ascii_case(b"status");
                read |= status && line[..line.len().min(HEAD_BYTES)][6..].contains(&b'R');
                takes_status &= !status;
            }
            if index >= header || !note {
                named.extend_from_slice(bare.unwrap_or(line));
                named.extend_from_slice(if bare.is_some() { b"\n" } else { b"" });
            }
        }
        while named.ends_with(b"\n") {
            named.pop();
        }
        let text: usize = lines.iter().map(|line| line.len()).sum();
        Extent {
            offset: offset as u64,
            from_bytes: from as u32,
            from_check: from_check(&file[offset..offset + from]),
            text_bytes: text as u64,
            trail_bytes: trail as u8,
            octets: octets as u64,
            hash: xxh3_128(&named),
            read,
            verbatim: octets == text,
            takes_status,
        }
    };
    found.into_iter().map(extent).collect()
}

fn next(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 11) as usize
}

#[test]
fn every_cut_gives_the_extents_of_the_naive_reader() {
    let long = "y".repeat(1500);
    let from_long = format!("From {} Mon Jan  5 10:00:00 2026\n", "a".repeat(FROM_LINE_BYTES));
    let from_crlf = FROM.replace('\n', "\r\n");
    let words: Vec<&str> = vec![
        FROM,
        FROM,
        FROM,
        "\n",
        "\n",
        "\n",
        "\n",
        "\r\n",
        "\r\n",
        "\r",
        "From x\n",
        "From ",
        ">From b\n",
        "Fro",
        "Status: RO\n",
        "Status: O\r\n",
        "X-UID: 4\n",
        " folded\n",
        "\tR\r\n",
        "Subject: tea\n",
        ".\n",
        "..\r\n",
        "\0",
        "x",
        "body\n",
        "Lines: 3",
        &long,
        &from_long,
        &from_crlf,
        "From c Tue Feb 3 1:02 2026",
    ];
    let mut seed = 0x5eed;
    for round in 0..500 {
        let count = 1 + next(&mut seed) % 24;
        let mut file: String = (0..count).map(|_| words[next(&mut seed) % words.len()]).collect();
        if round % 3 == 0 {
            file.insert_str(0, FROM);
        }
        let file = file.as_bytes();
        let expected = naive(file);
        assert_eq!(scan(&[file]), expected, "round {round} whole: {:?}", file.escape_ascii().to_string());
        let bytes: Vec<&[u8]> = file.chunks(1).collect();
        assert_eq!(scan(&bytes), expected, "round {round} byte by byte: {:?}", file.escape_ascii().to_string());
        let step = 1 + file.len() / 150;
        for cut in (0..file.len()).step_by(step) {
            let other = cut + next(&mut seed) % (file.len() - cut);
            let pieces = [&file[..cut], &file[cut..other], &file[other..]];
            let found = scan(&pieces);
            assert_eq!(found, expected, "round {round} cut {cut} {other}: {:?}", file.escape_ascii().to_string());
        }
        for pair in expected.windows(2) {
            assert_eq!(pair[0].end(), pair[1].offset, "extents touch");
        }
        if let Some(last) = expected.last() {
            assert_eq!(last.end(), file.len() as u64);
        }
    }
}

#[test]
fn a_from_line_has_a_date_and_stands_after_a_blank_line() {
    for (line, is) in [
        ("From ann@x Mon Jan  5 10:00:00 2026", true),
        ("From ann@x Mon Jan  5 10:00:00 2026\r", true),
        ("From ann@x Mon Jan 05 10:00 2026", true),
        ("From ann@x Mon Jan  5 10:00:00 CET 2026", true),
        ("From ann@x Mon Jan  5 10:00:00 MET DST 2026", true),
        ("From ann@x Mon Jan  5 10:00:00 +0100 2026", true),
        ("From ann@x Mon Jan  5 10:00:00 2026 +0100", true),
        ("From ann@x  Mon Jan  5 10:00:00 2026 remote from y", true),
        ("From Mon Jan  5 10:00:00 2026", true),
        ("From \"a b\"@x Mon Jan  5 10:00:00 2026", true),
        ("From MAILER-DAEMON Fri Jul  8 12:08:34 2011", true),
        ("From a Mon Mon Jan  5 10:00:00 2026", true),
        ("From ann@x", false),
        ("From the desk of Mon Jan", false),
        ("From ann@x Mon Jan 32 10:00:00 2026", false),
        ("From ann@x Mon Jan  5 24:00:00 2026", false),
        ("From ann@x Mon Jan  5 10 2026", false),
        ("From ann@x Mon Jan  5 10:00:00", false),
        ("From ann@x Mon Jan  5 10:00:00 26", false),
        ("From: ann@x Mon Jan  5 10:00:00 2026", false),
        (">From ann@x Mon Jan  5 10:00:00 2026", false),
        ("from ann@x Mon Jan  5 10:00:00 2026", false),
        ("From", false),
    ] {
        assert_eq!(is_from_line(line.as_bytes()), is, "{line}");
    }
    let count = |text: String| scan(&[text.as_bytes()]).len();
    assert_eq!(count(format!("{FROM}A: b\n\nbody\n\n{FROM}\nbody\n")), 2);
    assert_eq!(count(format!("{FROM}A: b\n\nbody\n{FROM}\nbody\n")), 1);
    assert_eq!(count(format!("{FROM}A: b\r\n\r\nbody\r\n\r\n{FROM}\nbody\n")), 2);
    assert_eq!(count(format!("{FROM}A: b\n\nbody\n \n{FROM}\nbody\n")), 1);
}

#[test]
fn an_over_long_line_never_hides_or_makes_a_separator() {
    for length in [1019, 1020, 1023, 1024, 1025, 8191, 65_536] {
        let long = "z".repeat(length);
        let file = format!("{FROM}A: b\n\n{long}{FROM}still the body\n\n{FROM}\nsecond\n");
        assert_eq!(scan(&[file.as_bytes()]).len(), 2, "{length}");
        assert_eq!(scan(&file.as_bytes().chunks(7).collect::<Vec<_>>()).len(), 2, "{length}");
    }
}

#[test]
fn a_line_of_100_mb_is_read_in_pieces_without_being_gathered() {
    let piece = vec![b'q'; 1 << 20];
    let mut found = Vec::new();
    let mut scanner = Scanner::new(0);
    scanner.feed(FROM.as_bytes(), &mut |extent| found.push(extent));
    for _ in 0..100 {
        scanner.feed(&piece, &mut |extent| found.push(extent));
        assert!(scanner.carry.capacity() <= 2 * FROM_LINE_BYTES, "held {}", scanner.carry.capacity());
    }
    scanner.finish(&mut |extent| found.push(extent));
    assert_eq!((found.len(), found[0].text_bytes, found[0].octets), (1, 100 << 20, (100 << 20) + 2));
}

/// Frozen: a change here changes the UIDs of every mailbox there is.
#[test]
fn uids_are_what_they_always_were() {
    let uid = |text: &str| {
        let found = scan(&[text.as_bytes()]);
        super::super::identity::Uid { hash: found[0].hash, occurrence: 0 }.to_string()
    };
    let plain = format!("{FROM}Subject: tea\nFrom: a@x\n\nAt five?\n");
    assert_eq!(uid(&plain), GOLDEN[0]);
    assert_eq!(uid(FROM), GOLDEN[1]);
    let long: String = std::iter::repeat_n("all work and no play\n", 500).collect();
    assert_eq!(uid(&format!("{FROM}A: b\n\n{long}")), GOLDEN[2]);
}

const GOLDEN: [&str; 3] = ["378yfyx045bgbrsaprq0d4fxvm", "4sn83d60a7k3c600e34h38tjbz", "2mh91zpwsekg8zpexbxqmxh5d8"];

#[test]
fn a_uid_survives_what_other_programs_do_to_a_message() {
    let hash = |text: &str| scan(&[text.as_bytes()])[0].hash;
    let plain = format!("{FROM}Subject: tea\nFrom: a@x\n\nAt five?\n");
    for (what, same) in [
        ("crlf", plain.replace('\n', "\r\n")),
        ("no final newline", plain.trim_end().to_owned()),
        ("blank line after it", format!("{plain}\n")),
        ("blank lines after it", format!("{plain}\n\n\r\n")),
        ("another From_ line", plain.replace("ann@example.org Mon Jan  5", "bob Tue Jan  6")),
        ("mutt's notes", plain.replace("\n\n", "\nStatus: RO\nContent-Length: 9\nLines: 1\n\n")),
        ("uw-imap's notes", plain.replace("Subject", "X-IMAPbase: 1 2 a\n b\nX-UID: 1\nX-Keywords: a\n\tb\nSubject")),
        ("another's uid", plain.replace("\n\n", "\nX-UIDL: abc\nX-Status: A\n\n")),
    ] {
        assert_eq!(hash(&same), hash(&plain), "{what}");
    }
    for (what, other) in [
        ("subject", plain.replace("tea", "Tea")),
        ("body", plain.replace("five", "six")),
        ("body note", plain.replace("At five?", "Status: RO\nAt five?")),
        ("fold of a header that is no note", plain.replace("\n\n", "\n b\n\n")),
    ] {
        assert_ne!(hash(&other), hash(&plain), "{what}");
    }
}

#[test]
fn read_is_an_r_in_status() {
    for (status, read) in [("Status: RO", true), ("status:R", true), ("Status: O", false), ("X-Status: R", false)] {
        let found = scan(&[format!("{FROM}{status}\n\nStatus: R\n").as_bytes()]);
        assert_eq!(found[0].read, read, "{status}");
    }
}

#[test]
fn a_message_takes_a_status_when_it_has_none_and_its_first_line_begins_one() {
    for (text, takes) in [
        ("Subject: tea\n\nStatus: R\n", true),
        ("X-Status: R\n\n", true),
        ("Statuses: R\n\n", true),
        ("Subject: tea\n folded\n\n", true),
        ("", true),
        ("\n folded\n", true),
        ("Status: O\n\n", false),
        ("Subject: tea\nstatus :\n\n", false),
        (" folded\nSubject: tea\n\n", false),
        ("\tfolded", false),
    ] {
        assert_eq!(scan(&[format!("{FROM}{text}").as_bytes()])[0].takes_status, takes, "{text:?}");
    }
}

#[test]
fn scanning_from_any_from_line_gives_the_rest_of_the_extents() {
    let file = format!("junk\n{FROM}A: b\n\none\n\n{FROM}C: d\n\n\n{FROM}E: f\r\n\r\nthree");
    let all = scan(&[file.as_bytes()]);
    assert_eq!(all.len(), 3);
    assert_eq!(all[0].offset, 5);
    for from in 0..3 {
        let mut found = Vec::new();
        let mut scanner = Scanner::new(all[from].offset);
        scanner.feed(&file.as_bytes()[all[from].offset as usize..], &mut |extent| found.push(extent));
        scanner.finish(&mut |extent| found.push(extent));
        assert_eq!(found, all[from..]);
    }
}
