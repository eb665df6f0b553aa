//! How long a guess waits: wrong passwords slow the place they come from, never an account.
//!
//! | event                                                | what it does                                                   |
//! |------------------------------------------------------|----------------------------------------------------------------|
//! | a *new* wrong password                               | the prefix rises one level, the wider one an eighth            |
//! | one of the last [`SEEN`] wrong ones again, same user | nothing, and it does not wait: a forgotten telephone           |
//! | a good login of a user not known there               | the prefix falls to half its level                             |
//! | a user known there, from there                       | never waits, until [`SLIPS`] new wrong passwords               |
//! | [`DECAY`] goes by                                    | every prefix falls one level                                   |
//!
//! At level 0 nothing waits, then 1, 2, 4, 8 ... seconds, up to what is allowed. The wider prefix is eight bits shorter (IPv4)
//! or sixteen (IPv6): who owns many addresses side by side is slowed by all of them together, a neighbour hardly at all.
//!
//! A user is *known* at a prefix for [`KNOWN_SECS`] after a good login from there, so that whatever strangers try elsewhere,
//! the owner is let in at once from where he always is. A good login of a known user changes no level: who has an account
//! cannot wash his guesses with it.
//!
//! Passwords are kept as 32 bits of a hash under a key made at start. Both tables are bounded ([`PREFIXES`], [`KNOWN`]), and
//! only good logins write into the second.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::limits::Prefix;
use super::recent::Recent;

/// Prefixes remembered, at 56 bytes each.
pub const PREFIXES: usize = 4096;
/// Pairs of user and prefix remembered, at 16 bytes each.
pub const KNOWN: usize = 16_384;
/// Wrong passwords of a prefix that are recognised.
pub const SEEN: usize = 8;
/// New wrong passwords after which a user is not known any more at a prefix.
pub const SLIPS: u8 = 5;
/// In this time a prefix falls one level.
pub const DECAY: Duration = Duration::from_secs(60);
/// How long a good login counts: a month.
pub const KNOWN_SECS: u32 = 30 * 86_400;
/// A level, in the unit of [`Row::level`].
const LEVEL: u16 = 8;
/// The highest level: reached by guessing on at the longest wait, left again within minutes.
const HIGHEST: u16 = 10 * LEVEL;

#[derive(Debug, Clone, Default)]
struct Row {
    /// In eighths, as of the row's stamp. Never above [`HIGHEST`].
    level: u16,
    next: u8,
    seen: [u32; SEEN],
}

impl Row {
    fn level_after(&self, secs: u32) -> u16 {
        let fallen = u64::from(secs) / DECAY.as_secs() * u64::from(LEVEL);
        self.level.saturating_sub(fallen.try_into().unwrap_or(u16::MAX))
    }
}

/// One login as the tables see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    narrow: u64,
    wide: u64,
    pair: u64,
    /// Never 0, which is an empty place.
    secret: u32,
}

/// What the places of the world have done lately.
#[derive(Debug)]
pub struct Penalties {
    epoch: Instant,
    hash: RandomState,
    prefixes: Recent<Row>,
    /// New wrong passwords since the last good login.
    known: Recent<u8>,
}

impl Penalties {
    /// Nobody has done anything. `now` is where its clock begins.
    pub fn new(now: Instant) -> Penalties {
        Penalties { epoch: now, hash: RandomState::new(), prefixes: Recent::new(PREFIXES), known: Recent::new(KNOWN) }
    }

    /// A login from there. `user` is as it is compared.
    pub fn attempt(&self, address: IpAddr, bits: (u8, u8), user: &[u8], password: &[u8]) -> Attempt {
        let narrow = Prefix::of(address, bits.0, bits.1);
        let wide = Prefix::of(address, bits.0.saturating_sub(8), bits.1.saturating_sub(16));
        Attempt {
            narrow: self.hash.hash_one((0, narrow)),
            wide: self.hash.hash_one((1, wide)),
            pair: self.hash.hash_one((2, narrow, user)),
            secret: (self.hash.hash_one((3, user, password)) as u32).max(1),
        }
    }

    fn seconds(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.epoch).as_secs().try_into().unwrap_or(u32::MAX)
    }

    fn level(&self, now: u32, key: u64) -> u16 {
        self.prefixes.get(key).map_or(0, |(stamp, row)| row.level_after(now.saturating_sub(stamp)))
    }

    fn is_known(&self, now: u32, pair: u64) -> bool {
        self.known.get(pair).is_some_and(|(stamp, _)| now.saturating_sub(stamp) < KNOWN_SECS)
    }

    /// How long it has to wait before it is looked at.
    pub fn wait(&self, now: Instant, attempt: &Attempt, most: Duration) -> Duration {
        let now = self.seconds(now);
        let repeated = |(_, row): (u32, &Row)| row.seen.contains(&attempt.secret);
        if self.is_known(now, attempt.pair) || self.prefixes.get(attempt.narrow).is_some_and(repeated) {
            return Duration::ZERO;
        }
        let level = self.level(now, attempt.narrow).max(self.level(now, attempt.wide)) / LEVEL;
        match level {
            0 => Duration::ZERO,
            level => Duration::from_secs(1 << (level - 1)).min(most),
        }
    }

    /// It was refused.
    pub fn wrong(&mut self, now: Instant, attempt: &Attempt) {
        let now = self.seconds(now);
        let row = self.prefixes.touch_decayed(attempt.narrow, now);
        if row.seen.contains(&attempt.secret) {
            return;
        }
        row.seen[usize::from(row.next)] = attempt.secret;
        row.next = (row.next + 1) % SEEN as u8;
        row.level = (row.level + LEVEL).min(HIGHEST);
        let row = self.prefixes.touch_decayed(attempt.wide, now);
        row.level = (row.level + 1).min(HIGHEST);
        if let Some((stamp, &slips)) = self.known.get(attempt.pair) {
            if slips + 1 >= SLIPS {
                self.known.forget(attempt.pair);
            } else {
                *self.known.touch(attempt.pair, stamp) += 1;
            }
        }
    }

    /// It was let in.
    pub fn good(&mut self, now: Instant, attempt: &Attempt) {
        let now = self.seconds(now);
        if !self.is_known(now, attempt.pair) && self.prefixes.get(attempt.narrow).is_some() {
            self.prefixes.touch_decayed(attempt.narrow, now).level /= 2;
        }
        *self.known.touch(attempt.pair, now) = 0;
    }

    /// Prefixes and pairs remembered.
    pub fn len(&self) -> (usize, usize) {
        (self.prefixes.len(), self.known.len())
    }

    /// Bytes both tables occupy.
    pub fn bytes(&self) -> usize {
        self.prefixes.bytes() + self.known.bytes()
    }
}

impl Recent<Row> {
    /// The row of a prefix with its level as of now. What is left of a minute is the prefix's loss.
    fn touch_decayed(&mut self, key: u64, now: u32) -> &mut Row {
        let level = self.get(key).map_or(0, |(stamp, row)| row.level_after(now.saturating_sub(stamp)));
        let row = self.touch(key, now);
        row.level = level;
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(15);

    struct World {
        now: Instant,
        table: Penalties,
    }

    impl World {
        fn new() -> World {
            let now = Instant::now();
            World { now, table: Penalties::new(now) }
        }

        fn attempt(&self, from: &str, user: &str, password: &str) -> Attempt {
            self.table.attempt(from.parse().unwrap(), (32, 64), user.as_bytes(), password.as_bytes())
        }

        fn wait(&self, from: &str, user: &str, password: &str) -> u64 {
            self.table.wait(self.now, &self.attempt(from, user, password), MOST).as_secs()
        }

        /// Says how long it waited, and is refused.
        fn wrong(&mut self, from: &str, user: &str, password: &str) -> u64 {
            let wait = self.wait(from, user, password);
            self.table.wrong(self.now, &self.attempt(from, user, password));
            wait
        }

        fn good(&mut self, from: &str, user: &str) {
            self.table.good(self.now, &self.attempt(from, user, "right"));
        }

        fn pass(&mut self, secs: u64) {
            self.now += Duration::from_secs(secs);
        }
    }

    #[test]
    fn each_new_guess_waits_longer_up_to_the_most() {
        let mut world = World::new();
        let waits: Vec<u64> = (0..8).map(|n| world.wrong("10.0.0.1", "ann", &format!("guess {n}"))).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 15, 15, 15]);
        assert_eq!(world.wait("10.0.0.1", "bob", "x"), 15, "whoever it is for");
        assert_eq!(world.wait("10.9.0.1", "ann", "x"), 0, "but not from elsewhere");
        assert_eq!(world.table.wait(world.now, &world.attempt("10.0.0.1", "bob", "x"), Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn one_stale_password_a_thousand_times_neither_raises_nor_waits() {
        let mut world = World::new();
        for _ in 0..1000 {
            assert_eq!(world.wrong("10.0.0.1", "ann", "last year's"), 0);
        }
        assert_eq!(world.wait("10.0.0.1", "bob", "x"), 1, "it counted once");
        assert_eq!(world.wrong("10.0.0.1", "bob", "last year's"), 1, "the same password of another user is a guess");
    }

    #[test]
    fn time_and_a_good_login_bring_it_down() {
        let mut world = World::new();
        for n in 0..4 {
            world.wrong("10.0.0.1", "ann", &format!("{n}"));
        }
        assert_eq!(world.wait("10.0.0.1", "x", "x"), 8);
        world.pass(60);
        assert_eq!(world.wait("10.0.0.1", "x", "x"), 4);
        world.good("10.0.0.1", "carl");
        assert_eq!(world.wait("10.0.0.1", "x", "x"), 1);
        world.pass(3600);
        assert_eq!(world.wait("10.0.0.1", "x", "x"), 0);
    }

    #[test]
    fn who_has_an_account_cannot_wash_his_guesses_with_it() {
        let mut world = World::new();
        world.good("10.0.0.1", "mallory");
        let mut last = 0;
        for n in 0..8 {
            last = world.wrong("10.0.0.1", "ann", &format!("{n}"));
            world.good("10.0.0.1", "mallory");
        }
        assert_eq!(last, 15);
    }

    #[test]
    fn the_owner_is_let_in_at_once_from_where_he_always_is() {
        let mut world = World::new();
        world.good("10.0.0.7", "ann");
        // Many addresses, one user; among them her own, as behind one router.
        for n in 0..10_000u32 {
            let from = std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n) << 64 | 1).to_string();
            world.wrong(&from, "ann", &format!("{n}"));
        }
        for n in 0..30 {
            world.wrong("10.0.0.7", "bob", &format!("{n}"));
        }
        assert_eq!(world.wait("10.0.0.7", "bob", "x"), 15);
        assert_eq!(world.wait("10.0.0.7", "ann", "right"), 0);
        let (prefixes, _) = world.table.len();
        assert!(prefixes <= PREFIXES && world.table.bytes() <= PREFIXES * 56 + KNOWN * 16, "{}", world.table.bytes());
        world.pass(u64::from(KNOWN_SECS));
        for n in 0..30 {
            world.wrong("10.0.0.7", "bob", &format!("again {n}"));
        }
        assert_eq!(world.wait("10.0.0.7", "ann", "right"), 15, "a month later she is a stranger");
    }

    #[test]
    fn being_known_is_no_licence_to_guess() {
        let mut world = World::new();
        world.good("10.0.0.7", "ann");
        let waits: Vec<u64> = (0..7).map(|n| world.wrong("10.0.0.7", "ann", &format!("{n}"))).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 15, 15]);
    }

    #[test]
    fn who_owns_a_whole_network_is_slowed_by_all_of_it_and_a_neighbour_is_not() {
        let mut world = World::new();
        world.wrong("2001:db8:1:1::1", "ann", "x");
        assert_eq!(world.wait("2001:db8:1:2::1", "ann", "y"), 0, "a neighbour");
        for n in 0..64 {
            world.wrong(&format!("2001:db8:1:{n:x}::1"), "ann", &format!("guess {n}"));
        }
        assert_eq!(world.wait("2001:db8:1:ffff::1", "ann", "z"), 15, "the same /48");
        assert_eq!(world.wait("2001:db8:2::1", "ann", "z"), 0, "another one");
        assert_eq!(world.wait("2001:db8:1:1::ffff", "ann", "z"), 15, "the same /64");
    }

    #[test]
    fn nothing_is_kept_of_a_server_where_nobody_errs() {
        let world = World::new();
        assert_eq!(world.table.bytes(), 0);
    }
}
