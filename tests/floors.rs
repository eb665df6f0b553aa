//! The floors are law: a room imports only from floors below it, and the rooms that do no I/O cannot name it.
//!
//! Walks `src`, leaves out what stands behind `#[cfg(test)]` and in `tests.rs`, and prints file and line of each breach.

use std::fs;
use std::path::{Path, PathBuf};

/// Room, floor.
const FLOORS: &[(&str, u8)] = &[
    ("text", 0),
    ("sys", 0),
    ("mail", 1),
    ("rules", 1),
    ("protocol", 2),
    ("store", 3),
    ("net", 3),
    ("settings", 4),
    ("control", 4),
    ("service", 5),
    ("server", 6),
    ("program", 7),
];

/// What F0 to F2 (but not `sys`) may never name: files, sockets, the clock, the log.
const NO_IO: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "TcpStream",
    "UnixStream",
    "std::os::unix::net",
    "std::process",
    "Instant::now",
    "SystemTime",
    "std::thread",
    "log::",
    "mio::",
    "rustls::",
    "libc::",
    "socket2::",
    "std::env",
];

/// Words that only the named rooms may use.
const RESERVED: &[(&str, &[&str])] = &[
    ("mio::", &["net"]),
    ("slab::", &["net"]),
    ("rustls::", &["net"]),
    ("socket2::", &["net"]),
    ("libc::", &["sys"]),
    ("unsafe ", &["sys"]),
    ("getopts::", &["program"]),
];

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The lines of a file that are code of the program: no comments, nothing from the first `#[cfg(test)]` on a module.
fn code(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut pending = false;
    for (number, line) in text.lines().enumerate() {
        let bare = line.trim();
        if bare == "#[cfg(test)]" {
            pending = true;
            continue;
        }
        if pending {
            pending = false;
            if bare.starts_with("mod ") && bare.ends_with('{') || bare.starts_with("pub mod ") && bare.ends_with('{') {
                break; // an inline test module is the last thing in a file
            }
            continue;
        }
        if !bare.starts_with("//") {
            lines.push((number + 1, bare));
        }
    }
    lines
}

#[test]
fn rooms_import_only_from_floors_below_and_pure_rooms_name_no_io() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut breaches = Vec::new();
    let mut read = 0;
    for path in files {
        let relative = path.strip_prefix(&root).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let name = relative.file_name().unwrap().to_str().unwrap();
        let inside_tests = relative.components().any(|c| matches!(c.as_os_str().to_str(), Some("tests" | "sim")));
        if name == "tests.rs" || name == "laws.rs" || inside_tests || first.ends_with(".rs") {
            continue;
        }
        let Some(own) = floor(first) else {
            breaches.push(format!("{}: no floor for this room", path.display()));
            continue;
        };
        read += 1;
        let text = fs::read_to_string(&path).unwrap();
        for (line, code) in code(&text) {
            let mut breach = |why: String| breaches.push(format!("src/{}:{line}: {why}", relative.display()));
            for used in code.match_indices("crate::").map(|(at, _)| &code[at + 7..]) {
                let room: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if let Some(other) = floor(&room)
                    && room != first
                    && other >= own
                {
                    breach(format!("{first} (F{own}) imports {room} (F{other})"));
                }
            }
            if own <= 2 && first != "sys" {
                for word in NO_IO {
                    if code.contains(word) {
                        breach(format!("{first} (F{own}) names {word}"));
                    }
                }
            }
            for (word, rooms) in RESERVED {
                if code.contains(word) && !rooms.contains(&first) {
                    breach(format!("only {} may name {word}", rooms.join(", ")));
                }
            }
        }
    }
    assert!(read > 10, "the walk found only {read} files: is it looking at src?");
    assert!(breaches.is_empty(), "the floors are broken:\n{}", breaches.join("\n"));
}
