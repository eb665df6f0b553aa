//! Many names, each once: a number for each, in the order in which they came. A name needs its bytes, two for its length and
//! up to 16 for being found again; whoever counts keeps where it begins, four bytes, beside what he counts.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A hash, and an index counted from 1; 0 = free.
type Place = (u32, u32);

/// The names.
pub struct Interner {
    /// Each name behind its length in two bytes.
    names: Vec<u8>,
    /// A power of two of them, at most three quarters taken; a name stands at or behind the place that its hash says.
    places: Vec<Place>,
    seed: u64,
}

impl Interner {
    /// None yet. Nobody who chooses names should be able to guess `seed`.
    pub fn new(seed: u64) -> Interner {
        Interner { names: Vec::new(), places: vec![(0, 0); 64], seed }
    }

    /// The name that begins there.
    pub fn name(&self, begin: u32) -> &[u8] {
        let at = begin as usize;
        let length = usize::from(u16::from_le_bytes([self.names[at], self.names[at + 1]]));
        &self.names[at + 2..at + 2 + length]
    }

    /// The index of a name that is known; `begin_of` says where each begins.
    pub fn find(&self, name: &[u8], begin_of: impl Fn(usize) -> u32) -> Option<usize> {
        self.seek(name, self.hash(name), begin_of).ok()
    }

    /// The same; one that is new has the index `known`, and the error says where it begins. `None`: all names together are
    /// too long.
    pub fn index(&mut self, name: &[u8], known: usize, begin_of: impl Fn(usize) -> u32) -> Option<Result<usize, u32>> {
        let hash = self.hash(name);
        let mut at = match self.seek(name, hash, begin_of) {
            Ok(index) => return Some(Ok(index)),
            Err(at) => at,
        };
        let begin = u32::try_from(self.names.len()).ok()?;
        let length = u16::try_from(name.len()).ok()?;
        let index = u32::try_from(known + 1).ok()?;
        if (known + 1) * 4 > self.places.len() * 3 {
            self.grow();
            at = self.free(hash);
        }
        self.places[at] = (hash, index);
        self.names.extend(length.to_le_bytes());
        self.names.extend(name);
        Some(Err(begin))
    }

    fn hash(&self, name: &[u8]) -> u32 {
        xxh3_64_with_seed(name, self.seed) as u32
    }

    /// The index of a name, or the place for it.
    fn seek(&self, name: &[u8], hash: u32, begin_of: impl Fn(usize) -> u32) -> Result<usize, usize> {
        let mask = self.places.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.places[at] {
                (_, 0) => return Err(at),
                (other, index) if other == hash && self.name(begin_of(index as usize - 1)) == name => {
                    return Ok(index as usize - 1);
                }
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// A free place for this hash.
    fn free(&self, hash: u32) -> usize {
        let mask = self.places.len() - 1;
        let mut at = hash as usize & mask;
        while self.places[at].1 > 0 {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let places = self.places.len() * 2;
        let old = std::mem::replace(&mut self.places, vec![(0, 0); places]);
        for place in old.into_iter().filter(|(_, index)| *index > 0) {
            let at = self.free(place.0);
            self.places[at] = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_has_the_number_it_had_when_it_came(names in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 0..600)) {
            let (mut interner, mut begins, mut naive) = (Interner::new(5), Vec::<u32>::new(), BTreeMap::new());
            for name in &names {
                let next = naive.len();
                let wanted = *naive.entry(name.clone()).or_insert(next);
                prop_assert_eq!(interner.find(name, |index| begins[index]).is_some(), wanted < next);
                match interner.index(name, begins.len(), |index| begins[index]).unwrap() {
                    Ok(index) => prop_assert_eq!(index, wanted),
                    Err(begin) => {
                        prop_assert_eq!(begins.len(), wanted);
                        begins.push(begin);
                    }
                }
            }
            prop_assert_eq!(begins.len(), naive.len());
            for (name, index) in &naive {
                prop_assert_eq!(interner.name(begins[*index]), &name[..]);
            }
        }
    }

    #[test]
    fn a_name_that_is_too_long_has_no_number() {
        let mut interner = Interner::new(0);
        assert_eq!(interner.index(&vec![b'x'; 70_000], 0, |_| 0), None);
        assert_eq!(interner.index(b"x", 0, |_| 0), Some(Err(0)));
    }
}
