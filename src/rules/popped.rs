//! POP before SMTP: from which addresses users read their mail lately, so that they may send from there without a password.
//!
//! It is for programs too old to log in for sending. Whoever shares the address with such a user, behind one router or by
//! being given it next, may relay too; that is why nobody is remembered unless `forward_user` names him, and not for longer
//! than the administrator says. IPv6 clients change the lower half of their address as they like, so it is the upper half
//! that is remembered. The table is bounded by [`READERS`]: who is pushed out of it reads his mail once more.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use super::limits::Prefix;
use super::recent::Recent;

/// Addresses remembered, at 16 bytes each.
pub const READERS: usize = 16_384;

/// The table.
#[derive(Debug)]
pub struct Popped {
    epoch: Instant,
    hash: RandomState,
    last: Recent<()>,
}

impl Popped {
    /// Nobody has read mail. `now` is where its clock begins.
    pub fn new(now: Instant) -> Popped {
        Popped { epoch: now, hash: RandomState::new(), last: Recent::new(READERS) }
    }

    fn key(&self, address: IpAddr) -> u64 {
        self.hash.hash_one(Prefix::of(address, 32, 64))
    }

    fn seconds(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.epoch).as_secs().try_into().unwrap_or(u32::MAX)
    }

    /// A user whom `forward_user` names reads mail from there.
    pub fn note(&mut self, now: Instant, address: IpAddr) {
        let (key, now) = (self.key(address), self.seconds(now));
        self.last.touch(key, now);
    }

    /// How many minutes ago one did, if it was less than `window` minutes ago.
    pub fn minutes(&self, now: Instant, address: IpAddr, window: u64) -> Option<u64> {
        let (then, ()) = self.last.get(self.key(address))?;
        let minutes = u64::from(self.seconds(now).saturating_sub(then)) / 60;
        (minutes < window).then_some(minutes)
    }

    /// Addresses remembered, those included that were read from too long ago.
    pub fn len(&self) -> usize {
        self.last.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
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

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_remembered_for_the_window_and_no_longer() {
        let begun = Instant::now();
        let at = |secs| begun + Duration::from_secs(secs);
        let mut popped = Popped::new(begun);
        assert!(popped.is_empty() && popped.bytes() == 0);
        popped.note(at(100), address("10.0.0.1"));
        for (secs, minutes) in [(100, Some(0)), (159, Some(0)), (160, Some(1)), (1_899, Some(29)), (1_900, None)] {
            assert_eq!(popped.minutes(at(secs), address("10.0.0.1"), 30), minutes, "{secs}");
        }
        assert_eq!(popped.minutes(at(1_900), address("10.0.0.1"), 60), Some(30), "a longer window");
        assert_eq!(popped.minutes(at(100), address("10.0.0.1"), 0), None, "no window");
        assert_eq!(popped.minutes(at(100), address("::ffff:10.0.0.1"), 30), Some(0));
        assert_eq!(popped.minutes(at(100), address("10.0.0.2"), 30), None, "a neighbour");
        popped.note(at(5_000), address("10.0.0.1"));
        assert_eq!(popped.minutes(at(5_000), address("10.0.0.1"), 30), Some(0), "once more");
    }

    #[test]
    fn the_upper_half_of_an_ipv6_address_is_remembered() {
        let now = Instant::now();
        let mut popped = Popped::new(now);
        popped.note(now, address("2001:db8:1:2::3"));
        assert_eq!(popped.minutes(now, address("2001:db8:1:2:ffff::9"), 30), Some(0));
        assert_eq!(popped.minutes(now, address("2001:db8:1:3::3"), 30), None);
    }

    #[test]
    fn the_table_stays_at_its_bound() {
        let now = Instant::now();
        let mut popped = Popped::new(now);
        for number in 0..200_000u32 {
            popped.note(now, IpAddr::from(number.to_be_bytes()));
        }
        assert!(popped.len() <= READERS && popped.bytes() <= READERS * 16, "{} {}", popped.len(), popped.bytes());
    }
}
