//! How many at a time, and how often: connections of a prefix, sessions of a user, logins of a user.
//!
//! A [`Tally`] holds the living only: who leaves the last place of a key takes the key along, so its size is bounded by the
//! connections there are. [`Logins`] is bounded by [`LOGINS`]: whoever is pushed out of it may log in too soon, once.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Instant;

use super::recent::Recent;

/// Users whose last login is remembered, at 16 bytes each.
pub const LOGINS: usize = 65_536;

/// The leading bits of an address: what one customer, or one attacker, has all of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix(u128);

impl Prefix {
    /// The prefix of an address; how long it is depends on the family. IPv4 written as IPv6 is IPv4.
    pub fn of(address: IpAddr, bits_v4: u8, bits_v6: u8) -> Prefix {
        let (bits, length) = match address.to_canonical() {
            IpAddr::V4(address) => (u128::from(address.to_ipv6_mapped()), 96 + u32::from(bits_v4.min(32))),
            IpAddr::V6(address) => (u128::from(address), u32::from(bits_v6.min(128))),
        };
        let free = u128::MAX.checked_shr(length).unwrap_or(0);
        Prefix(bits & !free)
    }
}

/// How many there are of each now.
#[derive(Debug)]
pub struct Tally<K>(HashMap<K, u32>);

impl<K> Default for Tally<K> {
    fn default() -> Tally<K> {
        Tally(HashMap::new())
    }
}

impl<K: Hash + Eq> Tally<K> {
    /// One more, unless there are `limit` already. Whoever was let in must [`leave`](Tally::leave).
    pub fn enter(&mut self, key: K, limit: u32) -> bool {
        let count = self.0.entry(key).or_insert(0);
        let room = *count < limit.max(1);
        *count += u32::from(room);
        room
    }

    /// One less.
    pub fn leave(&mut self, key: &K) {
        let Some(count) = self.0.get_mut(key) else {
            debug_assert!(false, "somebody leaves who never entered");
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.0.remove(key);
            // A burst does not keep its memory.
            if self.0.capacity() > 64 && self.0.len() * 8 < self.0.capacity() {
                self.0.shrink_to(self.0.len() * 2);
            }
        }
    }

    /// Keys with somebody there.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// When users logged in last (LOGIN-DELAY of RFC 2449).
#[derive(Debug)]
pub struct Logins {
    epoch: Instant,
    last: Recent<()>,
}

impl Logins {
    /// Nobody has logged in. `now` is where its clock begins.
    pub fn new(now: Instant) -> Logins {
        Logins { epoch: now, last: Recent::new(LOGINS) }
    }

    fn seconds(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.epoch).as_secs().try_into().unwrap_or(u32::MAX)
    }

    /// Seconds this user still has to wait; 0 = none.
    pub fn wait_secs(&self, now: Instant, user: u64, delay_secs: u64) -> u64 {
        let Some((last, ())) = self.last.get(user) else { return 0 };
        delay_secs.saturating_sub(u64::from(self.seconds(now).saturating_sub(last)))
    }

    /// This user has logged in.
    pub fn note(&mut self, now: Instant, user: u64) {
        let now = self.seconds(now);
        self.last.touch(user, now);
    }

    /// Bytes it occupies.
    pub fn bytes(&self) -> usize {
        self.last.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn prefix(address: &str, v4: u8, v6: u8) -> Prefix {
        Prefix::of(address.parse().unwrap(), v4, v6)
    }

    #[test]
    fn a_prefix_is_the_leading_bits_and_ipv4_is_ipv4_however_written() {
        for (one, other, v4, v6, same) in [
            ("10.0.0.1", "10.0.0.1", 32, 64, true),
            ("10.0.0.1", "10.0.0.2", 32, 64, false),
            ("10.0.0.1", "10.0.0.2", 24, 64, true),
            ("10.0.1.1", "10.0.0.2", 24, 64, false),
            ("10.0.0.1", "11.0.0.1", 0, 64, true),
            ("10.0.0.1", "::ffff:10.0.0.1", 32, 64, true),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", 32, 64, true),
            ("2001:db8::1", "2001:db8:0:1::1", 32, 64, false),
            ("2001:db8::1", "2001:db8:0:1::1", 32, 48, true),
            ("2001:db8::1", "2001:db8::2", 32, 128, false),
            ("2001:db8::1", "10.0.0.1", 0, 0, false),
        ] {
            assert_eq!(prefix(one, v4, v6) == prefix(other, v4, v6), same, "{one} {other} {v4} {v6}");
        }
    }

    #[test]
    fn a_tally_holds_the_living_only() {
        let mut tally = Tally::default();
        for _ in 0..3 {
            assert!(tally.enter("a", 3));
        }
        assert!(!tally.enter("a", 3), "full");
        assert!(tally.enter("b", 3), "another's places are his own");
        tally.leave(&"a");
        assert!(tally.enter("a", 3));
        for _ in 0..3 {
            tally.leave(&"a");
        }
        tally.leave(&"b");
        assert!(tally.is_empty());
        let mut many = Tally::default();
        for key in 0..10_000 {
            assert!(many.enter(key, 1));
        }
        for key in 0..10_000 {
            many.leave(&key);
        }
        assert!(many.is_empty() && many.0.capacity() <= 64, "{}", many.0.capacity());
    }

    #[test]
    fn a_login_too_soon_waits_for_the_rest_of_the_delay() {
        let begun = Instant::now();
        let at = |secs| begun + Duration::from_secs(secs);
        let mut logins = Logins::new(begun);
        assert_eq!((logins.wait_secs(at(0), 7, 60), logins.bytes()), (0, 0));
        logins.note(at(100), 7);
        assert_eq!(logins.wait_secs(at(100), 7, 60), 60);
        assert_eq!(logins.wait_secs(at(159), 7, 60), 1);
        assert_eq!(logins.wait_secs(at(160), 7, 60), 0);
        assert_eq!(logins.wait_secs(at(100), 8, 60), 0, "somebody else");
        for user in 0..200_000u64 {
            logins.note(at(200), user.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ user << 17);
        }
        assert!(logins.bytes() <= LOGINS * 16, "{}", logins.bytes());
    }
}
