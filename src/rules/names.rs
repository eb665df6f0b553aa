//! Which names may be users: a name becomes part of a file's path, so it is judged before any file is touched.

use std::ffi::OsStr;
use std::path::{Component, Path};

/// Longest user name: the files beside a drop (`.NAME.copy.new`) must still fit into the 255 bytes of a file name.
pub const USER_NAME_BYTES: usize = 240;

/// Whether `name` may be a user: not empty, not too long, one path component that hides nothing (no slash in any
/// spelling, no NUL, no control character), no leading dot or dash, no blank at either end, and none of the endings that
/// belong to files beside a drop.
pub fn is_user_name(name: &[u8]) -> bool {
    let fits = !name.is_empty() && name.len() <= USER_NAME_BYTES;
    let plain = name.iter().all(|&b| b >= 0x20 && b != 0x7f && b != b'/' && b != b'\\');
    let lower = name.to_ascii_lowercase();
    let bare = !name.starts_with(b" ") && !name.ends_with(b" ");
    let spelled = [&b"%2f"[..], b"%5c", b"%00"].iter().any(|code| lower.windows(3).any(|part| part == *code));
    let taken = lower.ends_with(b".lock") || lower.ends_with(b".fwd");
    fits && plain && bare && !spelled && !taken && !matches!(name[0], b'.' | b'-')
}

/// A drop's folder below `root`, and its name in there, when `path` may be a drop of that root: below it, climbing nowhere,
/// nothing hidden on the way, and the last part a user's name.
pub fn drop_below<'p>(path: &'p Path, root: &Path) -> Option<(&'p Path, &'p OsStr)> {
    let below = path.strip_prefix(root).ok()?;
    let plain = |part: Component<'_>| matches!(part, Component::Normal(name) if name.as_encoded_bytes()[0] != b'.');
    let name = below.file_name().filter(|name| is_user_name(name.as_encoded_bytes()))?;
    let whole =
        path.is_absolute() && below.components().all(plain) && !path.as_os_str().as_encoded_bytes().ends_with(b"/");
    whole.then_some((below.parent().unwrap_or(Path::new("")), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_spool_or_meet_our_files_are_no_users() {
        for name in [
            "",
            ".",
            "..",
            "../root",
            "a/b",
            "/",
            "a\\b",
            "a%2fb",
            "a%2Fb",
            "a%00",
            ".user.pop",
            ".fred.bin",
            "-rf",
            "fred.lock",
            "fred.LOCK",
            "fred.fwd",
            "fred ",
            " fred",
            " ",
            "a\0b",
            "a\nb",
            "a\rb",
            "a\tb",
            "a\x7fb",
        ] {
            assert!(!is_user_name(name.as_bytes()), "{name:?}");
        }
        for name in [
            "fred",
            "Fred",
            "fred.smith",
            "fred@example.org",
            "a-b",
            "a_b",
            "o'hara",
            "7",
            "zo\u{eb}",
            "a b",
            "lock",
            "%",
        ] {
            assert!(is_user_name(name.as_bytes()), "{name:?}");
        }
        assert!(is_user_name(&[b'a'; USER_NAME_BYTES]));
        assert!(!is_user_name(&[b'a'; USER_NAME_BYTES + 1]));
    }

    #[test]
    fn a_drop_lies_below_its_root_and_nothing_is_hidden_on_the_way() {
        for (path, root, found) in [
            ("/var/mail/ann", "/var/mail", Some(("", "ann"))),
            ("/var/mail/a/n/ann", "/var/mail/", Some(("a/n", "ann"))),
            ("/home/ann/mbox", "/home", Some(("ann", "mbox"))),
            ("/var/mail", "/var/mail", None),
            ("/var/mail/", "/var/mail", None),
            ("/var/mail/ann/", "/var/mail", None),
            ("/var/mailbox/ann", "/var/mail", None),
            ("/var/mail/../spool/ann", "/var/mail", None),
            ("/var/mail/a/..", "/var/mail", None),
            ("/var/mail/a/../../shadow", "/var/mail", None),
            ("/home/ann/.ssh/keys", "/home", None),
            ("/var/mail/.ann.bin", "/var/mail", None),
            ("/var/mail/ann.lock", "/var/mail", None),
            ("var/mail/ann", "var/mail", None),
            ("", "", None),
        ] {
            let found = found.map(|(folder, name)| (Path::new(folder), OsStr::new(name)));
            assert_eq!(drop_below(Path::new(path), Path::new(root)), found, "{path}");
        }
    }
}
