//! Bytes that must not be printed, compared byte by byte in measurable time, or left lying in freed memory.

use std::fmt;
use std::hint::black_box;

/// A password, or what is kept of one. It does not print, compares in constant time and is wiped when dropped.
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes over. The vector is not to have grown before: what it grew out of cannot be wiped any more.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes)
    }

    /// The bytes themselves, for the one call that needs them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// Whether `other` is the same. The time depends on the lengths alone.
    pub fn matches(&self, other: &[u8]) -> bool {
        let difference = self.0.iter().zip(other).fold(0u8, |seen, (a, b)| black_box(seen | (a ^ b)));
        black_box(difference) == 0 && self.0.len() == other.len()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Secret {
        Secret(bytes.to_vec())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Overwrites what is no longer needed, in a way the compiler does not take for useless.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_compares_and_does_not_print() {
        let secret = Secret::from(&b"opensesame"[..]);
        assert!(secret.matches(b"opensesame"));
        for other in [&b""[..], b"o", b"opensesamE", b"Opensesame", b"opensesame ", b"opensesam"] {
            assert!(!secret.matches(other), "{other:?}");
        }
        assert!(Secret::default().matches(b""));
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
