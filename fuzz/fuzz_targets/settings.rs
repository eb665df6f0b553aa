//! Whatever stands in a dmail.conf: a verdict with file and line, no panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let loaded = dmail::settings::parse::load_text(Path::new("/nowhere/dmail.conf"), data);
    assert!(loaded.settings.is_some() || !loaded.complaints.is_empty());
});
