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
        let limit = if life.is_zero() { 0 } else { limit };
        Cache {
            key,
            limit,
            life,
            entries: HashMap::new(),
            hand: VecDeque::new(),
            absent: HashMap::new(),
            absent_order: VecDeque::new(),
            hits: 0,
            misses: 0,
        }
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
        let entry = Entry { tag: self.tag(user), more, until: now + life, asked: false };
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
        let absent = self.absent.len();
        self.absent.retain(|_, (other, _)| *other != tag);
        let absent = absent - self.absent.len();
        let forgotten = before - self.entries.len();
        if forgotten > 0 {
            let entries = &self.entries;
            self.hand.retain(|key| entries.contains_key(key));
        }
        forgotten + absent
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        let place = size_of::<(Key, Entry)>() + 1;
        let more = self.entries.values().filter_map(|entry| entry.more.as_deref());
        // A table of so many places is at most seven eighths full.
        self.entries.capacity() * 8 / 7 * place
            + (self.hand.capacity() + self.absent_order.capacity()) * size_of::<Key>()
            + self.absent.capacity() * 8 / 7 * (size_of::<(Key, (u32, Instant))>() + 1)
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
