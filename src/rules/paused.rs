//! Whether sending is paused, all of it or to single places; and how that is written down, so that a restart does not forget it.
//!
//! | the file          | means                                                                    |
//! |-------------------|--------------------------------------------------------------------------|
//! | is not there      | nothing is paused                                                        |
//! | has a line `*`    | all sending is paused                                                    |
//! | any other line    | sending to the place of this name is paused                              |
//! | is empty, or no such text | all sending is paused: who made it wanted to keep something back   |
//!
//! At most [`PLACES_MAX`] places, each with at most [`NAME_BYTES`] bytes. Case of ASCII letters does not matter.

use std::collections::BTreeSet;

/// Places that can be paused one by one.
pub const PLACES_MAX: usize = 1000;
/// Bytes of a place's name.
pub const NAME_BYTES: usize = 300;
/// The longest text that is ours.
pub const TEXT_BYTES: usize = PLACES_MAX * (NAME_BYTES + 1) + 2;
/// The line that means everything.
const ALL: &str = "*";

/// What is paused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paused {
    all: bool,
    /// In small letters.
    places: BTreeSet<String>,
}

impl Paused {
    /// What the file's text says.
    pub fn parse(text: &[u8]) -> Paused {
        let everything = || Paused { all: true, places: BTreeSet::new() };
        let Ok(text) = std::str::from_utf8(text) else { return everything() };
        let mut paused = Paused::default();
        for line in text.lines() {
            let place = (line != ALL).then_some(line);
            if paused.pause(place).is_err() {
                return everything();
            }
        }
        if paused.is_nothing() { everything() } else { paused }
    }

    /// The text for the file; none when there is nothing to be kept.
    pub fn text(&self) -> Option<String> {
        let all = self.all.then_some(ALL).into_iter();
        let lines: Vec<&str> = all.chain(self.places.iter().map(String::as_str)).collect();
        (!lines.is_empty()).then(|| lines.join("\n") + "\n")
    }

    /// Pauses sending to this place, or all of it; whether that is new. Refuses what is no place's name, and one too many.
    pub fn pause(&mut self, place: Option<&str>) -> Result<bool, String> {
        let Some(place) = place else { return Ok(!std::mem::replace(&mut self.all, true)) };
        if place.is_empty() || place == ALL || place.len() > NAME_BYTES || place.chars().any(char::is_control) {
            return Err("that is no place that mail is sent to; `showsend` lists them".to_owned());
        }
        let place = place.to_ascii_lowercase();
        if self.places.len() >= PLACES_MAX && !self.places.contains(&place) {
            return Err(format!("{PLACES_MAX} places are paused already: `pause` alone pauses all sending"));
        }
        Ok(self.places.insert(place))
    }

    /// Takes back what [`pause`](Paused::pause) with the same words did; whether it was so. Places that were paused by their names
    /// stay so when everything is resumed.
    pub fn resume(&mut self, place: Option<&str>) -> bool {
        match place {
            None => std::mem::take(&mut self.all),
            Some(place) => self.places.remove(&place.to_ascii_lowercase()),
        }
    }

    /// Whether nothing is to be sent to this place.
    pub fn holds(&self, place: &str) -> bool {
        self.all || self.has(place)
    }

    /// Whether it was paused by its name.
    pub fn has(&self, place: &str) -> bool {
        !self.places.is_empty() && self.places.contains(&place.to_ascii_lowercase())
    }

    /// Whether all sending is paused.
    pub fn is_all(&self) -> bool {
        self.all
    }

    /// Whether nothing is.
    pub fn is_nothing(&self) -> bool {
        !self.all && self.places.is_empty()
    }

    /// The places that were paused by their names.
    pub fn places(&self) -> impl ExactSizeIterator<Item = &str> {
        self.places.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paused_is_paused_until_it_is_taken_back_in_the_same_words() {
        let mut paused = Paused::default();
        assert!(paused.is_nothing() && !paused.holds("mx a.test"));
        assert_eq!((paused.pause(Some("MX a.test")), paused.pause(Some("mx A.test"))), (Ok(true), Ok(false)));
        assert!(paused.holds("mx a.test") && !paused.holds("mx b.test") && !paused.is_all());
        assert_eq!((paused.pause(None), paused.pause(None)), (Ok(true), Ok(false)));
        assert!(paused.holds("mx b.test") && !paused.has("mx b.test"));
        assert!(paused.resume(None) && !paused.resume(None));
        assert!(paused.holds("mx a.test") && !paused.holds("mx b.test"), "what was named stays");
        assert!(paused.resume(Some("mx a.test")) && !paused.resume(Some("mx a.test")) && paused.is_nothing());
    }

    #[test]
    fn the_text_says_what_is_paused_and_a_text_that_says_nothing_pauses_everything() {
        let mut paused = Paused::default();
        assert_eq!(paused.text(), None);
        paused.pause(Some("relay.b.test:587")).unwrap();
        paused.pause(Some("mx a.test")).unwrap();
        assert_eq!(paused.text().as_deref(), Some("mx a.test\nrelay.b.test:587\n"));
        assert_eq!(Paused::parse(paused.text().unwrap().as_bytes()), paused);
        paused.pause(None).unwrap();
        assert_eq!(Paused::parse(paused.text().unwrap().as_bytes()), paused);
        for text in [&b""[..], b"\n", b"\xff", b"a\0b", "x".repeat(NAME_BYTES + 1).as_bytes()] {
            let found = Paused::parse(text);
            assert!(found.is_all() && found.places().len() == 0, "{text:?}");
        }
    }

    #[test]
    fn names_and_their_number_have_bounds() {
        let mut paused = Paused::default();
        for wrong in ["", "*", "a\nb", &"x".repeat(NAME_BYTES + 1)] {
            assert!(paused.pause(Some(wrong)).is_err(), "{wrong:?}");
        }
        let longest = |n: usize| format!("{n:0width$}", width = NAME_BYTES);
        for n in 0..PLACES_MAX {
            assert_eq!(paused.pause(Some(&longest(n))), Ok(true));
        }
        assert!(paused.pause(Some("one more")).is_err());
        assert_eq!(paused.pause(Some(&longest(7))), Ok(false), "it is there");
        paused.pause(None).unwrap();
        let text = paused.text().unwrap();
        assert!(text.len() <= TEXT_BYTES && Paused::parse(text.as_bytes()) == paused);
    }
}
