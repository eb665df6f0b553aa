//! Good answers of authenticators, remembered for a while.
//!
//! An entry is found by a keyed hash (HMAC-SHA-256, a key made at start) of service, name and password: the table holds no
//! password and none can be tried against a copy of it elsewhere. Failures are never kept, so a changed password works at
//! once; the old one goes on working until its entry ends, which `authent_cache_hours` bounds and a flush cuts short.
//! At its bound the table forgets whoever has not been asked for since the hand of the clock last came round; of many in a
//! row who have, the last.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ring::hmac;
use ring::rand::SystemRandom;

use crate::protocol::helper::Account;
use crate::text::secret::Secret;

/// What an entry is found by.
pub type Key = [u8; 16];

/// Entries that the hand passes for one newcomer. All may have been asked for, and a round of a large table takes longer
/// than a turn should.
const PASSED: usize = 64;

struct Entry {
    /// Whose it is, as a keyed hash that only tells most users apart: enough to forget one, and it fits where the entry had
    /// room.
    tag: u32,
    /// What the answer says beyond the name; most say nothing, and then an entry is one place in the table. Many small
    /// pieces that live for hours would keep the memory of the sessions around them from being given back.
    more: Option<Box<Account>>,
    until: Instant,
    asked: bool,
}

/// The table.
pub struct Cache {
    key: hmac::Key,
    limit: usize,
    life: Duration,
    entries: HashMap<Key, Entry>,
    /// Keys in the order of the clock's hand. As many as there are entries, or a little more after a flush.
    hand: VecDeque<Key>,
    /// Answers given from the table.
    pub hits: u64,
    /// Questions it could not answer.
    pub misses: u64,
}

impl Cache {
    /// An empty table of at most `limit` entries that each live for `life`; either may be zero.
    pub fn new(limit: usize, life: Duration) -> Cache {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).expect("the system has random numbers");
        let limit = if life.is_zero() { 0 } else { limit };
        Cache { key, limit, life, entries: HashMap::new(), hand: VecDeque::new(), hits: 0, misses: 0 }
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
        let entry = self.entries.get_mut(key).filter(|entry| entry.until > now);
        match entry {
            Some(entry) => {
                entry.asked = true;
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

    /// Remembers a good answer about `user`, named as [`forget`](Cache::forget) will be told.
    pub fn put(&mut self, now: Instant, key: Key, user: &str, account: Account) {
        if self.limit == 0 {
            return;
        }
        if !self.entries.contains_key(&key) {
            let mut passed = 0;
            while self.entries.len() >= self.limit {
                self.forget_one(now, passed < PASSED);
                passed += 1;
            }
            self.hand.push_back(key);
        }
        let says_more = account.path.is_some() || account.uid.is_some() || !account.info.is_empty();
        let more = says_more.then(|| Box::new(account));
        let entry = Entry { tag: self.tag(user), more, until: now + self.life, asked: false };
        self.entries.insert(key, entry);
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
        self.entries.retain(|_, entry| entry.tag != tag);
        let forgotten = before - self.entries.len();
        if forgotten > 0 {
            let entries = &self.entries;
            self.hand.retain(|key| entries.contains_key(key));
        }
        forgotten
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        let place = size_of::<(Key, Entry)>() + 1;
        let more = self.entries.values().filter_map(|entry| entry.more.as_deref());
        // A table of so many places is at most seven eighths full.
        self.entries.capacity() * 8 / 7 * place
            + self.hand.capacity() * size_of::<Key>()
            + more.map(Account::held).sum::<usize>()
    }

    /// The hand goes on by one: forgets who is there, but may spare who was asked for.
    fn forget_one(&mut self, now: Instant, may_spare: bool) {
        let Some(key) = self.hand.pop_front() else { return };
        if let Some(entry) = self.entries.get_mut(&key) {
            if may_spare && entry.asked && entry.until > now {
                entry.asked = false;
                self.hand.push_back(key);
            } else {
                self.entries.remove(&key);
            }
        }
    }

    /// Forgets everything; how many answers that were.
    pub fn clear(&mut self) -> usize {
        let forgotten = self.entries.len();
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
            assert!(cache.hand.len() <= 101);
        }
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
        let passed = cache.entries.values().filter(|entry| !entry.asked).count() - 1;
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
        assert_eq!(cache.hand.len(), 1);
        // However often that is done, the hand's keys do not pile up.
        for _ in 0..1000 {
            cache.put(now, keys[0], "ann", account("ann"));
            cache.forget("ann");
        }
        assert!(cache.hand.len() <= 2 && cache.len().0 == 1);
        assert!(cache.held() > 0);
    }

    #[test]
    fn an_entry_is_no_larger_than_the_settings_promise() {
        assert!(size_of::<(Key, Entry)>() + size_of::<Key>() <= 80, "about 100 bytes with the table's spare places");
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
