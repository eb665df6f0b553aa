//! Good answers of authenticators, remembered for a while.
//!
//! An entry is found by a keyed hash (HMAC-SHA-256, a key made at start) of service, name and password: the table holds no
//! password and none can be tried against a copy of it elsewhere. Failures are never kept, so a changed password works at
//! once; the old one goes on working until its entry ends, which `authent_cache_hours` bounds and a flush cuts short.
//! At its bound the table forgets whoever has not been asked for since the hand of the clock last came round; of many in a
//! row who have, the last.
//!
//! Of lookups, which need no password, it is also remembered for [`ABSENT_LIFE`] that there was no such user: whoever tries
//! names pays for each once. At most [`ABSENT_MOST`] of these, in a table of their own, so that strangers' guesses push no
//! user out. A good answer to a lookup lives [`LOOKUP_LIFE`] at most: it says what may change behind our back, a bound of a
//! mailbox or where mail is forwarded.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ring::hmac;
use ring::rand::SystemRandom;

use crate::protocol::helper::Account;
use crate::text::secret::Secret;

/// What an entry is found by.
pub type Key = [u8; 16];

/// How long a user is known to be one, whose authenticator was only asked whether he is.
pub const LOOKUP_LIFE: Duration = Duration::from_secs(300);
/// And how long nobody is known to be nobody.
pub const ABSENT_LIFE: Duration = Duration::from_secs(60);
/// Nobodies remembered; beyond that the oldest is forgotten.
pub const ABSENT_MOST: usize = 1000;

/// Entries that the hand passes for one newcomer. All may have been asked for, and a round of a large table takes longer
/// than a turn should.
const PASSED: usize = 64;

/// One remembered answer, in 32 bytes.
struct Entry {
    key: Key,
    /// Until when it holds, in seconds since the table was made, rounded down; and in the highest bit whether it was asked for
    /// since the hand came by.
    until: u32,
    /// Whose it is, as a keyed hash that only tells most users apart: enough to forget one, and it fits where the entry had
    /// room.
    tag: u32,
    /// What the answer says beyond the name; most say nothing, and then an entry is one place in the table. Many small
    /// pieces that live for hours would keep the memory of the sessions around them from being given back.
    more: Option<Box<Account>>,
}

/// The bit of [`Entry::until`] that is no time.
const ASKED: u32 = 1 << 31;

impl Entry {
    fn holds(&self, secs: u32) -> bool {
        secs < self.until & !ASKED
    }

    fn was_asked(&self) -> bool {
        self.until & ASKED != 0
    }
}

/// Where which entry is: places of a table, most of them empty, that are found by a key. Open addressing; keys are keyed hashes, so
/// their own bits spread them.
#[derive(Default)]
struct Places {
    /// A place's number and one, or 0. A power of two of them, at most three quarters used; or none.
    slots: Vec<u32>,
}

impl Places {
    fn home(&self, key: &Key) -> usize {
        let (word, _) = key.split_first_chunk().expect("a key has more than eight bytes");
        u64::from_le_bytes(*word) as usize & (self.slots.len() - 1)
    }

    /// The slot and the place of this key.
    fn find(&self, entries: &[Entry], key: &Key) -> Option<(usize, usize)> {
        if self.slots.is_empty() {
            return None;
        }
        let mut slot = self.home(key);
        loop {
            let place = self.slots[slot].checked_sub(1)? as usize;
            if entries[place].key == *key {
                return Some((slot, place));
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// The entry at this place is a new one: its key is found from now on.
    fn add(&mut self, entries: &[Entry], place: usize) {
        if entries.len() * 4 > self.slots.len() * 3 {
            return self.draw(entries);
        }
        let mut slot = self.home(&entries[place].key);
        while self.slots[slot] != 0 {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = place as u32 + 1;
    }

    /// This slot is empty again. Who had gone past it moves up, so that no search ends before them.
    fn remove(&mut self, entries: &[Entry], mut hole: usize) {
        let mask = self.slots.len() - 1;
        let mut slot = (hole + 1) & mask;
        while let Some(place) = self.slots[slot].checked_sub(1) {
            let home = self.home(&entries[place as usize].key);
            // From its home to where it stands it passes the hole.
            if slot.wrapping_sub(home) & mask >= slot.wrapping_sub(hole) & mask {
                self.slots[hole] = place + 1;
                hole = slot;
            }
            slot = (slot + 1) & mask;
        }
        self.slots[hole] = 0;
    }

    /// All of them, anew.
    fn draw(&mut self, entries: &[Entry]) {
        let slots = if entries.is_empty() { 0 } else { (entries.len() * 4 / 3 + 1).next_power_of_two().max(16) };
        self.slots = vec![0; slots];
        (0..entries.len()).for_each(|place| {
            let mut slot = self.home(&entries[place].key);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (slots - 1);
            }
            self.slots[slot] = place as u32 + 1;
        });
    }
}

/// The table.
pub struct Cache {
    key: hmac::Key,
    limit: usize,
    life: Duration,
    /// What entries count their time from.
    begun: Instant,
    entries: Vec<Entry>,
    places: Places,
    /// The hand of the clock: the next entry that may have to go.
    hand: usize,
    /// Who is nobody, and until when; the oldest first in `absent_order`.
    absent: HashMap<Key, (u32, Instant)>,
    absent_order: VecDeque<Key>,
    /// Answers given from the table.
    pub hits: u64,
    /// Questions it could not answer.
    pub misses: u64,
}

impl Cache {
    /// An empty table of at most `limit` entries that each live for `life`; either may be zero.
    pub fn new(limit: usize, life: Duration) -> Cache {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).expect("the system has random numbers");
        let limit = if life.is_zero() { 0 } else { limit.min(u32::MAX as usize - 1) };
        Cache {
            key,
            limit,
            life,
            begun: Instant::now(),
            entries: Vec::new(),
            places: Places::default(),
            hand: 0,
            absent: HashMap::new(),
            absent_order: VecDeque::new(),
            hits: 0,
            misses: 0,
        }
    }

    /// Whole seconds since the table was made.
    fn secs(&self, at: Instant) -> u32 {
        at.saturating_duration_since(self.begun).as_secs().min(u64::from(ASKED - 1)) as u32
    }

    /// What an entry for these is found by. The lengths go in, so that no two pairs read the same.
    pub fn key(&self, service: &str, user: &[u8], password: &Secret) -> Key {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [service.as_bytes(), user, password.reveal()] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&context.sign().as_ref()[..16]);
        key
    }

    /// The remembered answer for this user, if there is one and it still holds.
    pub fn get(&mut self, now: Instant, key: &Key, user: &[u8]) -> Option<Account> {
        let secs = self.secs(now);
        let found = self.places.find(&self.entries, key).map(|(_, place)| &mut self.entries[place]);
        match found.filter(|entry| entry.holds(secs)) {
            Some(entry) => {
                entry.until |= ASKED;
                self.hits += 1;
                let plain = || Account { user: user.to_vec(), path: None, uid: None, info: Vec::new() };
                Some(entry.more.as_deref().map_or_else(plain, Account::clone))
            }
            None => {
                self.misses += u64::from(self.limit > 0);
                None
            }
        }
    }

    /// What a lookup of this user came to, if it is remembered: what is known of him, or that there is none.
    pub fn find(&mut self, now: Instant, key: &Key, user: &[u8]) -> Option<Option<Account>> {
        if self.absent.get(key).is_some_and(|(_, until)| *until > now) {
            self.hits += 1;
            return Some(None);
        }
        self.get(now, key, user).map(Some)
    }

    /// Remembers what a lookup came to.
    pub fn put_found(&mut self, now: Instant, key: Key, user: &str, found: Option<Account>) {
        if let Some(account) = found {
            self.absent.remove(&key);
            return self.put_for(now, key, user, account, LOOKUP_LIFE.min(self.life));
        }
        if self.limit == 0 {
            return;
        }
        if self.absent.insert(key, (self.tag(user), now + ABSENT_LIFE)).is_none() {
            self.absent_order.push_back(key);
        }
        // Keys that were forgotten meanwhile have a place in the order still.
        while self.absent_order.len() > ABSENT_MOST {
            if let Some(oldest) = self.absent_order.pop_front() {
                self.absent.remove(&oldest);
            }
        }
    }

    /// Remembers a good answer about `user`, named as [`forget`](Cache::forget) will be told.
    pub fn put(&mut self, now: Instant, key: Key, user: &str, account: Account) {
        self.put_for(now, key, user, account, self.life);
    }

    fn put_for(&mut self, now: Instant, key: Key, user: &str, account: Account, life: Duration) {
        if self.limit == 0 {
            return;
        }
        let says_more = account.path.is_some() || account.uid.is_some() || !account.info.is_empty();
        let more = says_more.then(|| Box::new(account));
        let entry = Entry { key, until: self.secs(now + life), tag: self.tag(user), more };
        if let Some((_, place)) = self.places.find(&self.entries, &key) {
            self.entries[place] = entry;
            return;
        }
        let place = if self.entries.len() < self.limit {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let place = self.make_room(now);
            self.entries[place] = entry;
            place
        };
        self.places.add(&self.entries, place);
    }

    fn tag(&self, user: &str) -> u32 {
        let hash = hmac::sign(&self.key, user.as_bytes());
        let (bytes, _) = hash.as_ref().split_first_chunk().expect("SHA-256 has more than four bytes");
        u32::from_le_bytes(*bytes)
    }

    /// Forgets what is remembered about a user, for all services and passwords; how many answers that were. Looks at every
    /// entry, once for each order of an operator. (One user in four thousand million shares another's fate, and is asked
    /// about anew.)
    pub fn forget(&mut self, user: &str) -> usize {
        let tag = self.tag(user);
        let before = self.entries.len();
        self.entries.retain(|entry| entry.tag != tag);
        let absent = self.absent.len();
        self.absent.retain(|_, (other, _)| *other != tag);
        let absent = absent - self.absent.len();
        let forgotten = before - self.entries.len();
        if forgotten > 0 {
            self.places.draw(&self.entries);
            self.hand = 0;
        }
        forgotten + absent
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        let more = self.entries.iter().filter_map(|entry| entry.more.as_deref());
        self.entries.capacity() * size_of::<Entry>()
            + self.places.slots.capacity() * size_of::<u32>()
            + self.absent_order.capacity() * size_of::<Key>()
            // A table of so many places is at most seven eighths full.
            + self.absent.capacity() * 8 / 7 * (size_of::<(Key, (u32, Instant))>() + 1)
            + more.map(Account::held).sum::<usize>()
    }

    /// The hand goes on to an entry that goes, and beyond. It spares who was asked for, but not for ever. Where that one was,
    /// somebody else is to be put at once.
    fn make_room(&mut self, now: Instant) -> usize {
        let secs = self.secs(now);
        let mut passed = 0;
        loop {
            let place = self.hand % self.entries.len();
            self.hand = place + 1;
            let entry = &mut self.entries[place];
            if passed < PASSED && entry.was_asked() && entry.holds(secs) {
                entry.until &= !ASKED;
                passed += 1;
                continue;
            }
            let key = entry.key;
            let (slot, _) = self.places.find(&self.entries, &key).expect("every entry can be found");
            self.places.remove(&self.entries, slot);
            return place;
        }
    }

    /// Forgets everything; how many answers that were.
    pub fn clear(&mut self) -> usize {
        let forgotten = self.entries.len() + self.absent.len();
        self.reset(self.limit, self.life);
        forgotten
    }

    /// Forgets everything, and takes other bounds.
    pub fn reset(&mut self, limit: usize, life: Duration) {
        *self = Cache { hits: self.hits, misses: self.misses, ..Cache::new(limit, life) };
    }

    /// Entries now, and at most.
    pub fn len(&self) -> (usize, usize) {
        (self.entries.len(), self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(user: &str) -> Account {
        Account { user: user.into(), path: None, uid: None, info: Vec::new() }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    #[test]
    fn only_the_same_service_name_and_password_find_an_answer_and_only_for_its_life() {
        let now = Instant::now();
        let mut cache = Cache::new(10, Duration::from_secs(60));
        let key = cache.key("pop3", b"ann", &secret("x"));
        cache.put(now, key, "ann", account("ann"));
        assert_eq!(cache.get(now, &key, b"ann"), Some(account("ann")));
        for (service, user, password) in [
            ("smtp", "ann", "x"),
            ("pop3", "an", "nx"),
            ("pop3", "annx", ""),
            ("pop3", "ann", "X"),
            ("pop3a", "nn", "x"),
        ] {
            let other = cache.key(service, user.as_bytes(), &secret(password));
            assert!(cache.get(now, &other, user.as_bytes()).is_none(), "{service} {user} {password}");
        }
        assert!(cache.get(now + Duration::from_secs(60), &key, b"ann").is_none());
    }

    #[test]
    fn an_answer_that_says_more_than_the_name_comes_back_whole() {
        let now = Instant::now();
        let mut cache = Cache::new(10, Duration::from_secs(60));
        let key = cache.key("pop3", b"ann", &secret("x"));
        let own = Account { path: Some(b"/mail/ann".to_vec()), uid: Some(b"1000".to_vec()), ..account("ann") };
        cache.put(now, key, "ann", own.clone());
        assert_eq!(cache.get(now, &key, b"ann"), Some(own));
    }

    #[test]
    fn the_bound_holds_and_who_is_asked_for_stays() {
        let now = Instant::now();
        let mut cache = Cache::new(100, Duration::from_secs(60));
        let regular = cache.key("pop3", b"regular", &secret("x"));
        cache.put(now, regular, "regular", account("regular"));
        for index in 0..1000 {
            let key = cache.key("pop3", format!("user{index}").as_bytes(), &secret("x"));
            cache.put(now, key, "user", account("user"));
            assert!(cache.get(now, &regular, b"regular").is_some(), "after {index}");
            assert!(cache.len().0 <= 100);
        }
    }

    #[test]
    fn it_remembers_what_a_plain_map_would_whatever_comes_and_goes() {
        let now = Instant::now();
        let mut cache = Cache::new(300, Duration::from_secs(60));
        // Few homes, so that many entries stand far from theirs, and past the end of the table.
        let key = |index: u32| {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&u64::from(index.wrapping_mul(2_654_435_761) % 40).wrapping_sub(20).to_le_bytes());
            key[8..12].copy_from_slice(&index.to_le_bytes());
            key
        };
        let mut seed = 1_u32;
        for step in 0..5000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let index = (seed >> 16) % 700;
            match seed % 97 {
                0 => drop(cache.forget(&format!("user{index}"))),
                1..40 => drop(cache.get(now, &key(index), b"x")),
                _ => cache.put(now, key(index), &format!("user{index}"), account("x")),
            }
            let found = (0..700).filter(|&index| cache.places.find(&cache.entries, &key(index)).is_some()).count();
            assert!(found == cache.entries.len() && found <= 300, "{found} after {step} steps");
            let used = cache.places.slots.iter().filter(|slot| **slot != 0).count();
            assert_eq!(used, found, "no slot is left behind");
        }
        assert!(cache.entries.len() > 200, "{}", cache.entries.len());
    }

    #[test]
    fn one_newcomer_does_not_turn_the_hand_all_round() {
        let now = Instant::now();
        let mut cache = Cache::new(1000, Duration::from_secs(60));
        for index in 0..1000 {
            let key = cache.key("pop3", format!("user{index}").as_bytes(), &secret("x"));
            cache.put(now, key, "user", account("user"));
            assert!(cache.get(now, &key, b"user").is_some());
        }
        let key = cache.key("pop3", b"newcomer", &secret("x"));
        cache.put(now, key, "newcomer", account("newcomer"));
        let passed = cache.entries.iter().filter(|entry| !entry.was_asked()).count() - 1;
        assert_eq!((cache.len().0, passed), (1000, PASSED));
    }

    #[test]
    fn a_user_is_forgotten_for_all_services_and_passwords_and_nobody_else_is() {
        let now = Instant::now();
        let mut cache = Cache::new(100, Duration::from_secs(60));
        let keys: Vec<Key> = [("pop3", "ann", "x"), ("smtp", "ann", "x"), ("pop3", "ann", "old"), ("pop3", "bob", "x")]
            .map(|(service, user, password)| {
                let key = cache.key(service, user.as_bytes(), &secret(password));
                cache.put(now, key, user, account(user));
                key
            })
            .into();
        assert_eq!(cache.forget("ann"), 3);
        for key in &keys[..3] {
            assert!(cache.get(now, key, b"ann").is_none());
        }
        assert!(cache.get(now, &keys[3], b"bob").is_some());
        assert_eq!((cache.forget("ann"), cache.forget("nobody")), (0, 0));
        // However often that is done, nothing piles up.
        for _ in 0..1000 {
            cache.put(now, keys[0], "ann", account("ann"));
            cache.forget("ann");
        }
        assert!(cache.places.slots.len() <= 16 && cache.len().0 == 1);
        assert!(cache.held() > 0);
    }

    #[test]
    fn a_lookup_is_remembered_for_a_while_and_nobody_for_a_shorter_one() {
        let now = Instant::now();
        let after = |life: Duration| now + life;
        let mut cache = Cache::new(10, Duration::from_secs(3600));
        let (ann, bob) = (cache.key("lookup", b"ann", &secret("")), cache.key("lookup", b"bob", &secret("")));
        assert_eq!(cache.find(now, &ann, b"ann"), None);
        cache.put_found(now, ann, "ann", Some(account("ann")));
        cache.put_found(now, bob, "bob", None);
        assert_eq!(cache.find(now, &ann, b"ann"), Some(Some(account("ann"))));
        assert_eq!(cache.find(now, &bob, b"bob"), Some(None));
        let moment = Duration::from_secs(1);
        assert!(cache.find(after(LOOKUP_LIFE - moment), &ann, b"ann").is_some());
        assert_eq!(cache.find(after(LOOKUP_LIFE), &ann, b"ann"), None);
        assert_eq!(cache.find(after(ABSENT_LIFE), &bob, b"bob"), None);
        // Who comes to be is there at once, and who is forgotten is asked about.
        cache.put_found(now, bob, "bob", Some(account("bob")));
        assert_eq!(cache.find(now, &bob, b"bob"), Some(Some(account("bob"))));
        let carl = cache.key("lookup", b"carl", &secret(""));
        cache.put_found(now, carl, "carl", None);
        assert_eq!((cache.forget("carl"), cache.find(now, &carl, b"carl")), (1, None));
        cache.put_found(now, carl, "carl", None);
        assert_eq!((cache.clear(), cache.find(now, &bob, b"bob"), cache.find(now, &carl, b"carl")), (3, None, None));
    }

    #[test]
    fn strangers_who_try_names_push_no_user_out_and_fill_no_memory() {
        let now = Instant::now();
        let mut cache = Cache::new(10, Duration::from_secs(60));
        let ann = cache.key("lookup", b"ann", &secret(""));
        cache.put_found(now, ann, "ann", Some(account("ann")));
        for index in 0..5 * ABSENT_MOST {
            let name = format!("nobody{index}");
            let key = cache.key("lookup", name.as_bytes(), &secret(""));
            cache.put_found(now, key, &name, None);
            cache.forget(&format!("nobody{}", index / 2));
        }
        assert!(cache.absent.len() <= ABSENT_MOST && cache.absent_order.len() <= ABSENT_MOST);
        assert!(cache.find(now, &ann, b"ann").is_some());
        let mut none = Cache::new(0, Duration::from_secs(60));
        none.put_found(now, ann, "ann", None);
        assert_eq!(none.find(now, &ann, b"ann"), None, "no memory means none");
    }

    #[test]
    fn an_entry_is_no_larger_than_the_settings_promise() {
        // With the spare places of a table that grows by doubling, twice that.
        assert!(size_of::<Entry>() == 32, "{}", size_of::<Entry>());
        let mut cache = Cache::new(2000, Duration::from_secs(60));
        for index in 0..2000 {
            let key = cache.key("pop3", format!("user{index}").as_bytes(), &secret("x"));
            cache.put(Instant::now(), key, "user", account("user"));
        }
        assert!(cache.held() <= 2000 * 64, "{}", cache.held());
    }

    #[test]
    fn no_room_or_no_life_means_no_memory() {
        let now = Instant::now();
        for mut cache in [Cache::new(0, Duration::from_secs(9)), Cache::new(9, Duration::ZERO)] {
            let key = cache.key("pop3", b"ann", &secret("x"));
            cache.put(now, key, "ann", account("ann"));
            assert!(cache.get(now, &key, b"ann").is_none());
        }
    }
}
