//! Whatever lies beside a drop as its index and ledger: the maildrop opens, or refuses; what it lists can be read.
#![no_main]

use dmail::store::maildrop::{Maildrop, Place, Pulled, Reach};
use dmail::text::bytes::Output;
use libfuzzer_sys::fuzz_target;

const DROP: &[u8] = b"From a@b Mon Jan  5 10:00:00 2026\nSubject: 1\n\nhello\n\nFrom a@b Mon Jan  5 10:00:01 2026\n\nbye\n\n";

fuzz_target!(|data: &[u8]| {
    let dir = std::env::temp_dir().join(format!("dmail-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("work")).unwrap();
    let middle = data.first().map_or(0, |&at| usize::from(at).min(data.len()));
    std::fs::write(dir.join("drop"), DROP).unwrap();
    std::fs::write(dir.join(".drop.bin"), &data[..middle]).unwrap();
    std::fs::write(dir.join(".drop.idx"), &data[middle..]).unwrap();
    if let Ok(maildrop) = Maildrop::open(&Place::new(dir.join("drop"), dir.join("work"))) {
        for row in maildrop.page(1, Reach::Wait).unwrap_or_default() {
            let Ok(mut reader) = maildrop.reader(row.number, None, Reach::Wait) else { continue };
            let (mut scratch, mut out) = (vec![0; 4096], Output::default());
            while let Ok(Pulled::More) = reader.pull(&mut scratch, &mut out) {}
        }
    }
});
