//! How much may be sent: recipients of an account within an hour and a day, messages from an address within an hour.
//!
//! | who                          | counted                                             | bound                               |
//! |------------------------------|-----------------------------------------------------|-------------------------------------|
//! | a user who has logged in     | recipients, each when it is taken at RCPT            | `sends_per_hour`, `sends_per_day`   |
//! | anybody else, by his address | messages, each when its sender is taken at MAIL      | `fromip_max`                        |
//!
//! What was taken stays counted, whether or not a message came of it: else two connections side by side, or one that breaks
//! off, would have what one does not. What was refused is not counted. Where more than the bound is held instead of refused,
//! it is counted like the rest: who goes on sending stays over his bound until he has been quiet.
//!
//! An hour is the last twelve times five minutes and the five minutes that run, a day the last 24 hours and the one that
//! runs. So within no 60 minutes, and within no 24 hours, more is taken than the bound says; and after 65 minutes, or 25
//! hours, nothing of it counts any more.
//!
//! Memory is fixed: [`ACCOUNTS`] and [`PREFIXES`], used only as they come. Of a full set of places the one that was quiet the
//! longest goes, with its counts: an account that sends all the time is not pushed out by others.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use super::limits::Prefix;
use super::recent::Recent;
use super::relay::{DAY_USED_UP, HOUR_USED_UP, Refusal};

/// Accounts remembered, at 184 bytes each.
pub const ACCOUNTS: usize = 8_192;
/// Prefixes remembered, at 72 bytes each.
pub const PREFIXES: usize = 8_192;
/// An hour: twelve slots of five minutes, and the one that runs.
const HOUR_SLOTS: usize = 13;
const HOUR_SLOT_SECS: u32 = 300;
/// A day: 24 slots of an hour, and the one that runs.
const DAY_SLOTS: usize = 25;
const DAY_SLOT_SECS: u32 = 3_600;
/// An operator hears of one account once in so many seconds.
const TELL_SECS: u32 = 86_400;

/// Counts over a time that moves on, in slots of it.
#[derive(Debug, Clone)]
struct Window<const SLOTS: usize> {
    /// By the number of the slot, modulo how many there are.
    slots: [u32; SLOTS],
    /// The number of the slot that runs.
    newest: u32,
}

impl<const SLOTS: usize> Default for Window<SLOTS> {
    fn default() -> Window<SLOTS> {
        Window { slots: [0; SLOTS], newest: 0 }
    }
}

impl<const SLOTS: usize> Window<SLOTS> {
    /// What is counted, that slot being the one that runs.
    fn sum(&self, slot: u32) -> u32 {
        let gone = slot.saturating_sub(self.newest) as usize;
        let kept =
            (0..SLOTS.saturating_sub(gone)).map(|back| self.slots[(self.newest as usize + SLOTS - back) % SLOTS]);
        kept.fold(0, u32::saturating_add)
    }

    /// One more.
    fn add(&mut self, slot: u32) {
        let gone = slot.saturating_sub(self.newest);
        for ahead in 1..=gone.min(SLOTS as u32) {
            self.slots[(self.newest + ahead) as usize % SLOTS] = 0;
        }
        self.newest = self.newest.max(slot);
        let counted = &mut self.slots[self.newest as usize % SLOTS];
        *counted = counted.saturating_add(1);
    }
}

#[derive(Debug, Clone, Default)]
struct Account {
    hour: Window<HOUR_SLOTS>,
    day: Window<DAY_SLOTS>,
    /// When an operator was told of it, and one second; 0 = never.
    told: u32,
}

/// How many recipients an account may send to; 0 = as many as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// `sends_per_hour`.
    pub per_hour: u32,
    /// `sends_per_day`.
    pub per_day: u32,
}

/// Which bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// That of the hour.
    Hour,
    /// That of the day.
    Day,
}

impl Over {
    /// The setting.
    pub fn setting(self) -> &'static str {
        match self {
            Over::Hour => "sends_per_hour",
            Over::Day => "sends_per_day",
        }
    }

    /// What the client hears.
    pub fn refusal(self) -> &'static Refusal {
        match self {
            Over::Hour => &HOUR_USED_UP,
            Over::Day => &DAY_USED_UP,
        }
    }
}

/// What was sent lately.
#[derive(Debug)]
pub struct Sending {
    epoch: Instant,
    hash: RandomState,
    accounts: Recent<Account>,
    prefixes: Recent<Window<HOUR_SLOTS>>,
}

impl Sending {
    /// Nothing was. `now` is where its clock begins.
    pub fn new(now: Instant) -> Sending {
        let (accounts, prefixes) = (Recent::new(ACCOUNTS), Recent::new(PREFIXES));
        Sending { epoch: now, hash: RandomState::new(), accounts, prefixes }
    }

    fn seconds(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.epoch).as_secs().try_into().unwrap_or(u32::MAX)
    }

    fn place(&self, address: IpAddr, bits: (u8, u8)) -> u64 {
        self.hash.hash_one(Prefix::of(address, bits.0, bits.1))
    }

    /// Messages from that prefix within the hour.
    pub fn messages(&self, now: Instant, address: IpAddr, bits: (u8, u8)) -> u32 {
        let slot = self.seconds(now) / HOUR_SLOT_SECS;
        self.prefixes.get(self.place(address, bits)).map_or(0, |(_, window)| window.sum(slot))
    }

    /// One more message from that prefix, unless there are `most` within the hour. 0 = as many as it likes.
    pub fn message(&mut self, now: Instant, address: IpAddr, bits: (u8, u8), most: u32) -> bool {
        if most == 0 {
            return true;
        }
        let has_room = self.messages(now, address, bits) < most;
        if has_room {
            let (key, now) = (self.place(address, bits), self.seconds(now));
            self.prefixes.touch(key, now).add(now / HOUR_SLOT_SECS);
        }
        has_room
    }

    /// Recipients of an account within the hour and the day.
    pub fn recipients(&self, now: Instant, account: &str) -> (u32, u32) {
        let now = self.seconds(now);
        self.accounts.get(self.hash.hash_one(account)).map_or((0, 0), |(_, account)| {
            (account.hour.sum(now / HOUR_SLOT_SECS), account.day.sum(now / DAY_SLOT_SECS))
        })
    }

    /// Which bound keeps an account from one more recipient; `None` = none does.
    pub fn over(&self, now: Instant, account: &str, allowance: Allowance) -> Option<Over> {
        let (hour, day) = self.recipients(now, account);
        let full = |count: u32, most: u32| most > 0 && count >= most;
        if full(day, allowance.per_day) {
            Some(Over::Day)
        } else if full(hour, allowance.per_hour) {
            Some(Over::Hour)
        } else {
            None
        }
    }

    /// One more recipient of that account was taken. Nothing is remembered of who may send as much as he likes.
    pub fn recipient(&mut self, now: Instant, account: &str, allowance: Allowance) {
        if allowance.per_hour == 0 && allowance.per_day == 0 {
            return;
        }
        let (key, now) = (self.hash.hash_one(account), self.seconds(now));
        let account = self.accounts.touch(key, now);
        account.hour.add(now / HOUR_SLOT_SECS);
        account.day.add(now / DAY_SLOT_SECS);
    }

    /// A message of that account is held for being over its bound: whether an operator is to be told, once a day.
    pub fn tells(&mut self, now: Instant, account: &str) -> bool {
        let (key, now) = (self.hash.hash_one(account), self.seconds(now));
        let account = self.accounts.touch(key, now);
        let due = account.told == 0 || now.saturating_add(1) >= account.told.saturating_add(TELL_SECS);
        if due {
            account.told = now.saturating_add(1);
        }
        due
    }

    /// Accounts and prefixes remembered.
    pub fn len(&self) -> (usize, usize) {
        (self.accounts.len(), self.prefixes.len())
    }

    /// Bytes both tables occupy.
    pub fn bytes(&self) -> usize {
        self.accounts.bytes() + self.prefixes.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const BITS: (u8, u8) = (32, 64);

    struct World {
        begun: Instant,
        sending: Sending,
    }

    impl World {
        fn new() -> World {
            let begun = Instant::now();
            World { begun, sending: Sending::new(begun) }
        }

        fn at(&self, secs: u64) -> Instant {
            self.begun + Duration::from_secs(secs)
        }

        /// Sends to one more, if it may.
        fn send(&mut self, secs: u64, account: &str, allowance: Allowance) -> Option<Over> {
            let over = self.sending.over(self.at(secs), account, allowance);
            if over.is_none() {
                self.sending.recipient(self.at(secs), account, allowance);
            }
            over
        }

        fn message(&mut self, secs: u64, from: &str, most: u32) -> bool {
            self.sending.message(self.at(secs), from.parse().unwrap(), BITS, most)
        }
    }

    fn allowance(per_hour: u32, per_day: u32) -> Allowance {
        Allowance { per_hour, per_day }
    }

    #[test]
    fn an_account_has_its_hour_and_its_day_and_another_has_its_own() {
        let mut world = World::new();
        let (ann, most) = ("ann", allowance(10, 25));
        for n in 0..10 {
            assert_eq!(world.send(n, ann, most), None, "{n}");
        }
        assert_eq!(world.send(20, ann, most), Some(Over::Hour));
        assert_eq!(world.send(20, "bob", most), None);
        assert_eq!(world.send(3_599, ann, most), Some(Over::Hour));
        for n in 0..10 {
            assert_eq!(world.send(3_900, ann, most), None, "{n}: after 65 minutes nothing of the hour is left");
        }
        for n in 0..5 {
            assert_eq!(world.send(7_800, ann, most), None, "{n}");
        }
        assert_eq!(world.send(7_800, ann, most), Some(Over::Day));
        assert_eq!(world.sending.recipients(world.at(7_800), ann), (5, 25));
        assert_eq!(world.send(86_399, ann, most), Some(Over::Day));
        assert_eq!(world.send(90_000, ann, most), None, "the first ten are a day old");
        assert_eq!(world.send(1_000_000, ann, most), None);
        assert_eq!(world.sending.recipients(world.at(1_000_000), ann), (1, 1));
    }

    #[test]
    fn no_bound_is_no_bound_and_costs_nothing() {
        let mut world = World::new();
        for n in 0..10_000 {
            assert_eq!(world.send(n, "ann", allowance(0, 0)), None);
            assert!(world.message(n, "192.0.2.1", 0));
        }
        assert_eq!(world.sending.bytes(), 0);
        for n in 0..100 {
            assert_eq!(world.send(n, "ann", allowance(0, 100)), None);
        }
        assert_eq!(world.send(100, "ann", allowance(0, 100)), Some(Over::Day), "one of both");
        assert_eq!(world.send(100, "ann", allowance(100, 0)), Some(Over::Hour));
    }

    #[test]
    fn an_address_has_its_hour_by_prefix() {
        let mut world = World::new();
        for n in 0..5 {
            assert!(world.message(n, &format!("2001:db8::{n:x}"), 5), "{n}");
        }
        assert!(!world.message(5, "2001:db8::ffff:1", 5), "the same /64");
        assert!(world.message(5, "2001:db8:0:1::1", 5), "another");
        assert!(world.message(5, "192.0.2.1", 1));
        assert!(!world.message(6, "::ffff:192.0.2.1", 1), "the same, written as IPv6");
        assert!(world.message(6, "192.0.2.2", 1));
        assert!(!world.message(3_599, "2001:db8::1", 5));
        assert!(world.message(3_900, "2001:db8::1", 5));
    }

    #[test]
    fn an_operator_hears_of_an_account_once_a_day() {
        let mut world = World::new();
        for (secs, due) in [(0, true), (1, false), (86_399, false), (86_400, true), (86_401, false), (500_000, true)] {
            let now = world.at(secs);
            assert_eq!(world.sending.tells(now, "ann"), due, "{secs}");
        }
        let now = world.at(0);
        assert!(world.sending.tells(now, "bob"));
    }

    #[test]
    fn the_tables_stay_at_their_bounds_and_who_sends_all_the_time_stays_in() {
        let mut world = World::new();
        let most = allowance(60_000, 0);
        for n in 0..50_000u32 {
            let secs = u64::from(n) / 100;
            world.send(secs, &format!("user {n}"), most);
            world.send(secs, "spammer", most);
            world.message(secs, &IpAddr::from(n.to_be_bytes()).to_string(), 5);
        }
        let (accounts, prefixes) = world.sending.len();
        assert!(accounts <= ACCOUNTS && prefixes <= PREFIXES, "{accounts} {prefixes}");
        assert!(world.sending.bytes() <= ACCOUNTS * 184 + PREFIXES * 72, "{}", world.sending.bytes());
        assert_eq!(world.sending.recipients(world.at(500), "spammer"), (50_000, 50_000));
    }

    proptest! {
        #[test]
        fn counts_agree_with_a_list_of_all_that_was_sent(
            waits in prop::collection::vec(prop_oneof![4 => 0u64..200, 2 => 0u64..4_000, 1 => 0u64..200_000], 1..120),
            per_hour in 1u32..12,
            per_day in 1u32..40,
        ) {
            let mut world = World::new();
            let mut sent: Vec<u64> = Vec::new();
            let mut now = 0;
            for wait in waits {
                now += wait;
                let since = |slots: u64, secs: u64| sent.iter().filter(|then| *then / secs + slots > now / secs).count() as u32;
                let (hour, day) = (since(13, 300), since(25, 3_600));
                let counted = world.sending.recipients(world.at(now), "ann");
                prop_assert_eq!(counted, (hour, day), "at {}", now);
                let over = world.send(now, "ann", allowance(per_hour, per_day));
                prop_assert_eq!(over.is_none(), hour < per_hour && day < per_day);
                // Whatever it is built of: what was promised.
                let within = |secs: u64| sent.iter().filter(|then| *then + secs > now).count() as u32;
                if over.is_none() {
                    prop_assert!(within(3_600) < per_hour && within(86_400) < per_day);
                    sent.push(now);
                } else {
                    prop_assert!(within(3_900) >= per_hour || within(90_000) >= per_day, "refused for what is long ago");
                }
            }
        }
    }
}
