//! A bounded table of what happened lately, by keyed hash: once full, what was touched longest ago goes.
//!
//! Layout: sets of [`WAYS`] places; a key's low bits say its set, and of a full set the place with the oldest stamp is given
//! away. The table begins without memory, doubles when a set is full, and stays at its bound. Keys are hashes under a key of
//! ours, so nobody outside can choose whose set his own falls into.

/// Places in a set.
const WAYS: usize = 8;
/// Places of the smallest table.
const FIRST: usize = 64;

#[derive(Debug, Clone, Default)]
struct Place<V> {
    /// 0 = empty.
    key: u64,
    stamp: u32,
    value: V,
}

/// The table.
#[derive(Debug)]
pub struct Recent<V> {
    places: Vec<Place<V>>,
    limit: usize,
}

impl<V: Clone + Default> Recent<V> {
    /// An empty table of at most `limit` places, which is a power of two.
    pub const fn new(limit: usize) -> Recent<V> {
        assert!(limit.is_power_of_two() && limit >= FIRST);
        Recent { places: Vec::new(), limit }
    }

    fn set(&self, key: u64) -> std::ops::Range<usize> {
        let sets = self.places.len() / WAYS;
        let first = (key as usize & (sets - 1)) * WAYS;
        first..first + WAYS
    }

    fn find(&self, key: u64) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        self.set(key).find(|&at| self.places[at].key == key.max(1))
    }

    /// What is kept under this key, and when it was touched.
    pub fn get(&self, key: u64) -> Option<(u32, &V)> {
        self.find(key).map(|at| (self.places[at].stamp, &self.places[at].value))
    }

    /// Touches what is kept under this key; a new one gives its default, and the oldest of its set is gone when that is full.
    pub fn touch(&mut self, key: u64, stamp: u32) -> &mut V {
        let at = match self.find(key) {
            Some(at) => at,
            None => {
                let at = self.room(key);
                self.places[at] = Place { key: key.max(1), ..Place::default() };
                at
            }
        };
        self.places[at].stamp = stamp;
        &mut self.places[at].value
    }

    /// Forgets a key.
    pub fn forget(&mut self, key: u64) {
        if let Some(at) = self.find(key) {
            self.places[at] = Place::default();
        }
    }

    /// A place for a key that has none.
    fn room(&mut self, key: u64) -> usize {
        loop {
            if !self.places.is_empty() {
                let set = self.set(key);
                if let Some(empty) = set.clone().find(|&at| self.places[at].key == 0) {
                    return empty;
                }
                if self.places.len() >= self.limit {
                    return set.min_by_key(|&at| self.places[at].stamp).expect("a set has places");
                }
            }
            self.grow();
        }
    }

    fn grow(&mut self) {
        let size = (self.places.len() * 2).max(FIRST);
        let old = std::mem::replace(&mut self.places, vec![Place::default(); size]);
        // Each set parts into two: there is room for all of it.
        for place in old.into_iter().filter(|place| place.key != 0) {
            let at = self.set(place.key).find(|&at| self.places[at].key == 0).expect("half of a set fits a set");
            self.places[at] = place;
        }
    }

    /// Keys in it. Looks at every place.
    pub fn len(&self) -> usize {
        self.places.iter().filter(|place| place.key != 0).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes it occupies.
    pub fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Place<V>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spreads as a hash does.
    fn key(number: u64) -> u64 {
        number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }

    #[test]
    fn what_was_touched_is_found_until_it_is_forgotten() {
        let mut table: Recent<u32> = Recent::new(1024);
        assert_eq!((table.get(key(1)), table.bytes()), (None, 0), "no memory before there is something");
        for number in 0..200 {
            *table.touch(key(number), number as u32) = number as u32 * 2;
        }
        for number in 0..200 {
            assert_eq!(table.get(key(number)), Some((number as u32, &(number as u32 * 2))));
        }
        table.forget(key(7));
        assert_eq!((table.get(key(7)), table.len()), (None, 199));
        assert_eq!(*table.touch(key(7), 1), 0, "forgotten is forgotten");
        // The key that an empty place has.
        *table.touch(0, 1) = 5;
        assert_eq!(table.get(0), Some((1, &5)));
    }

    #[test]
    fn the_bound_holds_and_the_oldest_go_first() {
        let mut table: Recent<()> = Recent::new(256);
        for number in 0..100_000u32 {
            table.touch(key(u64::from(number)), number);
            // Touched all the time.
            table.touch(key(u64::MAX), number);
        }
        assert!(table.len() <= 256 && table.bytes() <= 256 * 16, "{} {}", table.len(), table.bytes());
        assert!(table.get(key(u64::MAX)).is_some());
        let oldest = (0..100_000).find(|&number| table.get(key(number)).is_some()).unwrap();
        assert!(oldest > 100_000 - 256 * 4, "{oldest}: what is left is young");
    }
}
