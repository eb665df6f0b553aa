//! Where a user's drop lies: `drop_path`, the hash directories of `hash_spool`, the name.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// `base`, then the hash directories, then the name.
///
/// | hash | directories                                                                   |
/// |------|-------------------------------------------------------------------------------|
/// | 1    | qpopper's: one letter, `a` + (sum of the first up to five bytes mod 26)         |
/// | 2    | qpopper's: the first letter, then the second (the first again where it is alone) |
/// | 3    | two letters of 32, ten bits of the name's xxh3: an even spread                 |
/// | else | none                                                                          |
pub fn drop_path(base: &Path, hash_spool: u8, user: &str) -> PathBuf {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut path = base.to_owned();
    let mut letters = user.chars();
    match (hash_spool, letters.next()) {
        (1, Some(_)) => {
            let sum: u32 = user.bytes().take(5).map(u32::from).sum();
            path.push(char::from(b'a' + (sum % 26) as u8).to_string());
        }
        (2, Some(first)) => {
            path.push(first.to_string());
            path.push(letters.next().unwrap_or(first).to_string());
        }
        (3, Some(_)) => {
            let hash = xxh3_64(user.as_bytes());
            path.push(char::from(LETTERS[(hash & 31) as usize]).to_string());
            path.push(char::from(LETTERS[(hash >> 5 & 31) as usize]).to_string());
        }
        _ => {}
    }
    path.push(user);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_directories_are_these() {
        for (hash, user, path) in [
            (0, "fred", "/m/fred"),
            (1, "fred", "/m/b/fred"), // 102 + 114 + 101 + 100 = 417 = 16 * 26 + 1
            (1, "abcdefgh", "/m/b/abcdefgh"),
            (1, "x", "/m/q/x"),
            (2, "fred", "/m/f/r/fred"),
            (2, "x", "/m/x/x/x"),
            (9, "fred", "/m/fred"),
        ] {
            assert_eq!(drop_path(Path::new("/m"), hash, user), Path::new(path), "{hash} {user}");
        }
    }

    #[test]
    fn the_third_spreads_evenly() {
        let mut counts = std::collections::BTreeMap::new();
        for user in 0..50_000 {
            let path = drop_path(Path::new(""), 3, &format!("test{user}"));
            *counts.entry(path.parent().unwrap().to_owned()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 1024);
        assert!(counts.values().all(|&count| (15..100).contains(&count)));
    }
}
