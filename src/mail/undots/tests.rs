use super::*;
use crate::mail::dots::DotEncoder;

/// What comes of a wire, given in these parts: the text, how many bytes were taken, why it stopped, what was counted.
fn decode(parts: &[&[u8]], bare: Bare) -> (Vec<u8>, usize, Option<Stop>, Tally) {
    let mut decoder = DotDecoder::new(bare);
    let (mut text, mut taken, mut left) = (Vec::new(), 0, Vec::new());
    let mut stop = None;
    for part in parts {
        left.extend_from_slice(part);
        let decoded = decoder.decode(&mut left);
        assert!(decoded.kept <= decoded.taken);
        text.extend_from_slice(&left[..decoded.kept]);
        left.drain(..decoded.taken);
        taken += decoded.taken;
        stop = decoded.stop;
        if stop.is_some() {
            break;
        }
        assert!(left.len() <= 3, "{:?} is left", left.escape_ascii().to_string());
    }
    (text, taken, stop, decoder.tally())
}

/// The text and the wire's length up to the end of the message, from the rule in the plainest words: lines are what stands
/// between CRLFs; the line `.` is the end; else one dot at its start is not text; then lone CRs and LFs are line ends, and
/// NULs are nothing. `None` where there is no end.
fn naive(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut text, mut at) = (Vec::new(), 0);
    loop {
        let length = wire[at..].windows(2).position(|pair| pair == b"\r\n")?;
        let line = &wire[at..at + length];
        at += length + 2;
        if line == b"." {
            return Some((text, at));
        }
        let line = line.strip_prefix(b".").unwrap_or(line);
        text.extend(line.iter().filter(|&&byte| byte != 0).map(|&byte| if byte == b'\r' { b'\n' } else { byte }));
        text.push(b'\n');
    }
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
fn every_short_wire_at_every_cut_is_stored_as_the_naive_twin_would_and_ends_nowhere_else() {
    all(7, |wire| {
        let shown = wire.escape_ascii().to_string();
        let whole = decode(&[wire], Bare::Normalize);
        let (text, taken, stop, tally) = &whole;
        match naive(wire) {
            Some((expected, length)) => {
                assert_eq!((text, taken, stop), (&expected, &length, &Some(Stop::End)), "{shown}");
                assert_eq!(tally.bytes, expected.len() as u64, "{shown}");
                let longest = expected.split(|&byte| byte == b'\n').map(<[u8]>::len).max();
                assert_eq!(tally.longest_line, longest.unwrap_or(0) as u64, "{shown}");
            }
            None => assert_eq!(*stop, None, "{shown}"),
        }
        for cut in 0..=wire.len() {
            let (first, second) = wire.split_at(cut);
            assert_eq!(decode(&[first, second], Bare::Normalize), whole, "{shown} at {cut}");
        }
        assert_eq!(decode(&wire.chunks(1).collect::<Vec<_>>(), Bare::Normalize), whole, "{shown}");
    });
}

#[test]
fn every_short_text_goes_through_the_encoder_and_comes_back_as_one_message() {
    all(7, |text| {
        let shown = text.escape_ascii().to_string();
        let encode = |text: &[u8]| {
            let (mut encoder, mut wire) = (DotEncoder::whole(false), Vec::new());
            encoder.push(text, &mut wire);
            encoder.finish(&mut wire);
            wire
        };
        let wire = encode(text);
        let (stored, taken, stop, _) = decode(&[&wire], Bare::Normalize);
        assert_eq!((taken, stop), (wire.len(), Some(Stop::End)), "{shown}");
        assert!(!stored.contains(&b'\r') && !stored.contains(&0), "{shown}");
        // What is stored leaves and comes again as it is, and holds nothing that another server could take for an end.
        let again = encode(&stored);
        assert_eq!(decode(&[&again], Bare::Reject).0, stored, "{shown}");
        assert_eq!(decode(&[&again], Bare::Reject).2, Some(Stop::End), "{shown}");
    });
}

#[test]
fn where_nothing_is_mended_the_message_stops_at_the_first_lone_line_end_or_nul() {
    all(6, |wire| {
        let shown = wire.escape_ascii().to_string();
        let whole = decode(&[wire], Bare::Reject);
        let mended = decode(&[wire], Bare::Normalize);
        match whole.2 {
            Some(Stop::Bare | Stop::Nul) => {
                let fault = wire[whole.1];
                assert_eq!(whole.2 == Some(Stop::Nul), fault == 0, "{shown}");
                assert!(mended.3.bare + mended.3.nuls > 0, "{shown}");
            }
            _ => assert_eq!(whole, mended, "{shown}"),
        }
        for cut in 0..=wire.len() {
            let (first, second) = wire.split_at(cut);
            assert_eq!(decode(&[first, second], Bare::Reject), whole, "{shown} at {cut}");
        }
    });
}

#[test]
fn header_hops_and_lines_are_counted_at_every_cut() {
    let wire =
        b"Received: one\r\n by x\r\nRECEIVED:two\r\nX-Received: no\r\nReceived : no\r\nA: \0b\nreceived:\r\n\r\n\
        Received: body\r\n...and a long line\r\n.\r\nQUIT\r\n";
    let text = b"Received: one\n by x\nRECEIVED:two\nX-Received: no\nReceived : no\nA: b\nreceived:\n\n\
        Received: body\n..and a long line\n";
    let header = text.windows(2).position(|pair| pair == b"\n\n").unwrap() as u64 + 1;
    for cut in 0..=wire.len() {
        let (first, second) = wire.split_at(cut);
        let (stored, taken, stop, tally) = decode(&[first, second], Bare::Normalize);
        assert_eq!((stored.as_slice(), stop), (&text[..], Some(Stop::End)), "cut at {cut}");
        assert_eq!(&wire[taken..], b"QUIT\r\n");
        let expected = Tally {
            bytes: text.len() as u64,
            lines: 10,
            header_bytes: header,
            header_lines: 7,
            hops: 3,
            longest_line: 17,
            bare: 1,
            nuls: 1,
        };
        assert_eq!(tally, expected, "cut at {cut}");
        assert_eq!(tally.octets(), text.len() as u64 + 10);
    }
}
