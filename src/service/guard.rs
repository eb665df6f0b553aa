//! What keeps one client from taking what belongs to others: counts of the living, and memories of what was tried.
//!
//! It outlives every reload. A conversation counts under the settings it was born with, and gives back what it counted when
//! it is swept, however it ended.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::names::Names;
use crate::rules::limits::{Logins, Prefix, Tally};
use crate::rules::penalty::{Attempt, Penalties};
use crate::rules::popped::Popped;
use crate::rules::sending::Sending;
use crate::settings::Settings;

/// See the page.
#[derive(Debug)]
pub struct Guard {
    /// Connections of each prefix, where they are limited.
    prefixes: Tally<Prefix>,
    /// Sessions of each user, where they are limited.
    pub users: Tally<u64>,
    /// Last logins, where there is a delay between them.
    pub logins: Logins,
    /// What places have guessed.
    pub penalties: Penalties,
    /// Where users read mail lately who open their address by that.
    pub popped: Popped,
    /// What users and addresses have sent.
    pub sending: Sending,
    /// What clients' hosts are called.
    pub names: Names,
    hash: RandomState,
}

impl Guard {
    /// Nobody is there and nothing happened.
    pub fn new(now: Instant) -> Guard {
        Guard {
            prefixes: Tally::default(),
            users: Tally::default(),
            logins: Logins::new(now),
            penalties: Penalties::new(now),
            popped: Popped::new(now),
            sending: Sending::new(now),
            names: Names::default(),
            hash: RandomState::new(),
        }
    }

    /// The prefix under which a connection counts; none when those from there are not limited.
    fn prefix(settings: &Settings, address: IpAddr) -> Option<Prefix> {
        let limited = settings.max_per_prefix > 0 && !settings.trusted_networks.contains(address);
        limited.then(|| Prefix::of(address, settings.prefix_bits_v4, settings.prefix_bits_v6))
    }

    /// One more connection from there, unless there are as many as there may be.
    pub fn enter(&mut self, settings: &Settings, address: IpAddr) -> bool {
        Self::prefix(settings, address).is_none_or(|prefix| self.prefixes.enter(prefix, settings.max_per_prefix))
    }

    /// One less, that had entered under the same settings.
    pub fn leave(&mut self, settings: &Settings, address: IpAddr) {
        if let Some(prefix) = Self::prefix(settings, address) {
            self.prefixes.leave(&prefix);
        }
    }

    /// What a user is found by in the tables here. Never 0.
    pub fn user(&self, name: &str) -> u64 {
        self.hash.hash_one(name).max(1)
    }

    /// A login as the penalties see it; none where nobody is slowed.
    pub fn attempt(&self, settings: &Settings, address: IpAddr, user: &[u8], password: &[u8]) -> Option<Attempt> {
        let slowed = settings.penalty_max_secs > 0 && !settings.trusted_networks.contains(address);
        let bits = (settings.prefix_bits_v4, settings.prefix_bits_v6);
        slowed.then(|| self.penalties.attempt(address, bits, user, password))
    }

    /// How long that login waits.
    pub fn wait(&self, settings: &Settings, now: Instant, attempt: Option<&Attempt>) -> Duration {
        let most = Duration::from_secs(settings.penalty_max_secs);
        attempt.map_or(Duration::ZERO, |attempt| self.penalties.wait(now, attempt, most))
    }

    /// Prefixes with limited connections, and users with limited sessions.
    pub fn living(&self) -> (usize, usize) {
        (self.prefixes.len(), self.users.len())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::text::pattern::AddressList;

    #[test]
    fn connections_count_by_prefix_and_where_many_people_are_they_do_not() {
        let mut settings = Settings::for_tests(Path::new("/srv/mail"));
        let mut guard = Guard::new(Instant::now());
        let [one, other, home] = ["10.0.0.1", "10.0.0.2", "127.0.0.1"].map(|text| text.parse::<IpAddr>().unwrap());
        for _ in 0..100 {
            assert!(guard.enter(&settings, one), "no bound by default");
        }
        settings.max_per_prefix = 2;
        for address in [one, one, other, other] {
            assert!(guard.enter(&settings, address));
        }
        assert!(!guard.enter(&settings, one));
        for _ in 0..10 {
            assert!(guard.enter(&settings, home));
        }
        guard.leave(&settings, one);
        assert!(guard.enter(&settings, one));
        settings.prefix_bits_v4 = 24;
        assert!(guard.enter(&settings, one), "another prefix");
        settings.trusted_networks = AddressList::parse("10.0.0.1").unwrap();
        assert!(guard.enter(&settings, one));
        assert_eq!(guard.living(), (3, 0));
    }

    #[test]
    fn nobody_is_slowed_where_it_is_off_and_from_where_many_people_are() {
        let mut settings = Settings::for_tests(Path::new("/srv/mail"));
        let guard = Guard::new(Instant::now());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(guard.attempt(&settings, address("10.0.0.1"), b"ann", b"x").is_some());
        assert!(guard.attempt(&settings, address("::ffff:127.0.0.1"), b"ann", b"x").is_none());
        settings.penalty_max_secs = 0;
        assert!(guard.attempt(&settings, address("10.0.0.1"), b"ann", b"x").is_none());
    }
}
