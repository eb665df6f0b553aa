use super::*;

/// The text as CRLF lines, a missing last line end added.
fn crlf(text: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in text.split_inclusive(|&b| b == b'\n') {
        let bare = line.strip_suffix(b"\n").map_or(line, |bare| bare.strip_suffix(b"\r").unwrap_or(bare));
        wire.extend_from_slice(bare);
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

/// Byte by byte, in the plainest words.
fn naive(text: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in crlf(text).split_inclusive(|&b| b == b'\n') {
        if line[0] == b'.' {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// What a client makes of a multi-line reply: lines end at CRLF, one dot at a line start goes, a dot alone ends it.
fn unstuff(wire: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rest = wire;
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("the dot line is there") + 2;
        let (line, after) = rest.split_at(end);
        if line == b".\r\n" {
            assert!(after.is_empty(), "the reply ended early: {:?}", wire.escape_ascii().to_string());
            return text;
        }
        text.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        rest = after;
    }
}

fn encode(pieces: &[&[u8]], mut encoder: DotEncoder) -> Vec<u8> {
    let mut wire = Vec::new();
    pieces.iter().for_each(|piece| encoder.push(piece, &mut wire));
    encoder.finish(&mut wire);
    wire
}

/// All strings up to `length` over the bytes that could go wrong.
fn all(length: u32, mut each: impl FnMut(&[u8])) {
    const LETTERS: &[u8; 5] = b"\r\n.\0x";
    for length in 0..=length {
        for mut code in 0..5u32.pow(length) {
            let mut text = [0; 8];
            for byte in &mut text[..length as usize] {
                *byte = LETTERS[(code % 5) as usize];
                code /= 5;
            }
            each(&text[..length as usize]);
        }
    }
}

#[test]
fn every_short_text_at_every_cut_is_sent_as_the_naive_twin_would() {
    all(7, |text| {
        let expected = naive(text);
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            assert_eq!(
                encode(&[first, second], DotEncoder::whole(false)),
                expected,
                "{:?} at {cut}",
                text.escape_ascii().to_string()
            );
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(encode(&bytes, DotEncoder::whole(false)), expected);
    });
}

#[test]
fn unstuffing_what_was_sent_gives_the_text_with_crlf() {
    all(6, |text| {
        // A CR right before a line end that is added becomes CR CR LF: that is the client's text too.
        assert_eq!(
            unstuff(&encode(&[text], DotEncoder::whole(false))),
            crlf(text),
            "{:?}",
            text.escape_ascii().to_string()
        );
    });
}

#[test]
fn what_retr_sends_is_as_long_as_the_scanner_promised() {
    use crate::mail::mbox::Scanner;
    all(6, |body| {
        let mut file = b"From a Mon Jan  5 10:00:00 2026\n".to_vec();
        file.extend_from_slice(body);
        let mut found = Vec::new();
        let mut scanner = Scanner::new(0);
        scanner.feed(&file, &mut |extent| found.push(extent));
        scanner.finish(&mut |extent| found.push(extent));
        let extent = found[0];
        let text = &file[extent.text() as usize..][..extent.text_bytes as usize];
        let wire = encode(&[text], DotEncoder::whole(extent.verbatim));
        assert_eq!(unstuff(&wire).len() as u64, extent.octets, "{:?}", body.escape_ascii().to_string());
        assert_eq!(wire, naive(text));
    });
}

#[test]
fn text_that_is_crlf_already_takes_the_short_way_to_the_same_bytes() {
    all(5, |text| {
        let text = crlf(text);
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            assert_eq!(encode(&[first, second], DotEncoder::whole(true)), naive(&text));
        }
    });
}

#[test]
fn top_sends_the_header_the_blank_line_and_so_many_lines_at_every_cut() {
    let text = b"A: b\nC: .d\n\n.one\r\n\ntwo";
    for (lines, expected) in [
        (0, &b"A: b\r\nC: .d\r\n\r\n.\r\n"[..]),
        (1, b"A: b\r\nC: .d\r\n\r\n..one\r\n.\r\n"),
        (2, b"A: b\r\nC: .d\r\n\r\n..one\r\n\r\n.\r\n"),
        (3, b"A: b\r\nC: .d\r\n\r\n..one\r\n\r\ntwo\r\n.\r\n"),
        (u64::MAX, b"A: b\r\nC: .d\r\n\r\n..one\r\n\r\ntwo\r\n.\r\n"),
    ] {
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            assert_eq!(encode(&[first, second], DotEncoder::top(lines)), expected, "{lines} lines, cut {cut}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(encode(&bytes, DotEncoder::top(lines)), expected, "{lines} lines, byte by byte");
    }
    assert_eq!(encode(&[b"A: b\n"], DotEncoder::top(5)), b"A: b\r\n\r\n.\r\n");
    assert_eq!(encode(&[b"A: b\r\n\r\n"], DotEncoder::top(0)), b"A: b\r\n\r\n.\r\n");
}
