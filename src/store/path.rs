//! Where a user's drop is: DESIGN's `hash_spool`, and the check on paths that others name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

pub use crate::rules::names::is_user_name;

/// The directory letters of `hash_spool 3` and of `hash_bindir`.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Two directory letters for `bytes`, one of 32 each: the lowest five bits of their XXH3-64, and the next five.
pub(super) fn letters(bytes: &[u8]) -> [u8; 2] {
    let hash = xxh3_64(bytes);
    [LETTERS[hash as usize & 31], LETTERS[(hash >> 5) as usize & 31]]
}

/// The drop of `user` below `base`: called `file`, which is the user's name, or in a virtual domain may have a prefix before
/// it. `hash_spool` is
///
/// | value | path            | by                                                                               |
/// |-------|-----------------|----------------------------------------------------------------------------------|
/// | 0     | `base/file`     |                                                                                  |
/// | 1     | `base/c/file`   | qpopper: `a` + (sum of the user's first up to five bytes) mod 26                 |
/// | 2     | `base/f/r/file` | qpopper: the user's first and second byte, a lone first one twice                |
/// | 3     | `base/b/q/file` | XXH3-64 of the user: its lowest five bits, the next five, each one of 32 letters |
///
/// Give it only names that [`is_user_name`] lets pass, and only these four values.
pub fn drop_path(base: &Path, hash_spool: u8, user: &str, file: &str) -> PathBuf {
    debug_assert!(
        is_user_name(user.as_bytes()) && is_user_name(file.as_bytes()),
        "{user:?}, {file:?} were not checked"
    );
    let bytes = user.as_bytes();
    let mut path = base.to_owned();
    let mut below = |letter: u8| path.push(OsStr::from_bytes(&[letter]));
    match (hash_spool, bytes) {
        (1, _) => below(b'a' + (bytes.iter().take(5).map(|&b| u32::from(b)).sum::<u32>() % 26) as u8),
        (2, [first, rest @ ..]) => {
            below(*first);
            below(*rest.first().unwrap_or(first));
        }
        (3, _) => {
            letters(bytes).into_iter().for_each(below);
        }
        _ => {}
    }
    path.push(file);
    path
}

/// Whether `path`, as somebody else named it, is absolute, climbs nowhere, and lies below one of `roots`.
pub fn below_root(path: &Path, roots: &[PathBuf]) -> bool {
    let plain = path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && !path.as_os_str().as_bytes().ends_with(b"/")
        && !path.as_os_str().as_bytes().contains(&0);
    plain && roots.iter().any(|root| path.starts_with(root) && path != root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_same_drop_for_ever() {
        for (hash_spool, user, path) in [
            (0, "fred", "/d/fred"),
            (1, "fred", "/d/b/fred"),
            (1, "a", "/d/t/a"),
            (1, "frederic", "/d/y/frederic"),
            (2, "fred", "/d/f/r/fred"),
            (2, "a", "/d/a/a/a"),
            (2, "A_fred", "/d/A/_/A_fred"),
            (3, "fred", "/d/b/a/fred"),
            (3, "ann", "/d/8/p/ann"),
            (3, "zo\u{eb}", "/d/2/n/zoë"),
        ] {
            assert_eq!(drop_path(Path::new("/d"), hash_spool, user, user), Path::new(path), "{hash_spool} {user}");
        }
        for (hash_spool, path) in
            [(0, "/d/abc_fred"), (1, "/d/b/abc_fred"), (2, "/d/f/r/abc_fred"), (3, "/d/b/a/abc_fred")]
        {
            let found = drop_path(Path::new("/d"), hash_spool, "fred", "abc_fred");
            assert_eq!(found, Path::new(path), "a prefix does not move a drop to another directory");
        }
    }

    #[test]
    fn hash_3_spreads_evenly() {
        let mut counts = std::collections::HashMap::new();
        for index in 0..102_400 {
            let path = drop_path(Path::new("/d"), 3, &format!("user{index}"), "drop");
            *counts.entry(path.parent().unwrap().to_owned()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 1024);
        assert!(counts.values().all(|count| (50..160).contains(count)));
    }

    #[test]
    fn a_path_from_an_authenticator_must_lie_below_a_root() {
        let roots = [PathBuf::from("/var/mail"), PathBuf::from("/home/")];
        for (path, below) in [
            ("/var/mail/ann", true),
            ("/var/mail/a/n/ann", true),
            ("/home/ann/mbox", true),
            ("/var/mail", false),
            ("/var/mail/", false),
            ("/var/mail/ann/", false),
            ("/var/mailbox/ann", false),
            ("/var/mail/../spool/ann", false),
            ("/var/mail/a/../../shadow", false),
            ("var/mail/ann", false),
            ("/etc/passwd", false),
            ("", false),
        ] {
            assert_eq!(below_root(Path::new(path), &roots), below, "{path}");
        }
    }
}
