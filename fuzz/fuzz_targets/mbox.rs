//! Whatever stands in a drop: the same extents at any cut, none of them overlapping or past the end.
#![no_main]

use dmail::mail::mbox::{Extent, Scanner};
use libfuzzer_sys::fuzz_target;

fn scan(bytes: &[u8], piece: usize) -> Vec<Extent> {
    let mut found = Vec::new();
    let mut scanner = Scanner::new(0);
    for part in bytes.chunks(piece) {
        scanner.feed(part, &mut |extent| found.push(extent));
    }
    scanner.finish(&mut |extent| found.push(extent));
    found
}

fuzz_target!(|data: &[u8]| {
    let whole = scan(data, data.len().max(1));
    let mut end = 0;
    for extent in &whole {
        assert!(extent.offset >= end);
        end = extent.end();
        assert!(end <= data.len() as u64);
    }
    for piece in [1, 3, 64] {
        assert_eq!(scan(data, piece), whole);
    }
});
