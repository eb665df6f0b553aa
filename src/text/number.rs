//! Numbers as peers and files write them: decimal digits only, refused instead of wrapped.

use std::fmt;

/// The value of one to twenty decimal digits, or `None` for anything else: no sign, no blank, no wrap past `u64::MAX`.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// A part of a whole, none to all of it, counted in millionths so that comparing is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fraction {
    millionths: u32,
}

impl Fraction {
    /// Nothing of it.
    pub const NONE: Fraction = Fraction { millionths: 0 };
    /// Half of it.
    pub const HALF: Fraction = Fraction { millionths: 500_000 };
    /// All of it.
    pub const ALL: Fraction = Fraction { millionths: 1_000_000 };

    /// The value of `0`, `1`, `0.5` or `.5`, with up to six digits behind the point; `None` for anything else and for what
    /// is more than 1.
    pub fn parse(text: &str) -> Option<Fraction> {
        const DIGITS: usize = 6;
        let (whole, part) = match text.split_once('.') {
            Some(("", part)) => ("0", part),
            Some(both) => both,
            None => (text, "0"),
        };
        if part.is_empty() || part.len() > DIGITS {
            return None;
        }
        let whole = decimal(whole.as_bytes())?;
        let part = decimal(format!("{part:0<DIGITS$}").as_bytes())?;
        let millionths = u32::try_from(whole.checked_mul(1_000_000)?.checked_add(part)?).ok()?;
        let fraction = Fraction { millionths };
        (fraction <= Fraction::ALL).then_some(fraction)
    }

    /// Whether `part` is less than this fraction of `whole`.
    pub fn is_more_than(self, part: u64, whole: u64) -> bool {
        u128::from(part) * 1_000_000 < u128::from(self.millionths) * u128::from(whole)
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.millionths / 1_000_000, self.millionths % 1_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_read_exactly_and_shown_as_it_is_read() {
        for (text, shown) in [
            ("0", "0"),
            ("0.0", "0"),
            ("1", "1"),
            ("1.000000", "1"),
            ("01", "1"),
            (".5", "0.5"),
            ("0.5", "0.5"),
            ("0.25", "0.25"),
            ("0.000001", "0.000001"),
            ("0.999999", "0.999999"),
        ] {
            let fraction = Fraction::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(fraction.to_string(), shown);
            assert_eq!(Fraction::parse(shown), Some(fraction));
        }
        for text in
            ["", ".", "1.", "1.000001", "2", "0.0000001", "-0.5", "+1", "0,5", "5%", "1e-1", "0.5.", "0 .5", "nan"]
        {
            assert_eq!(Fraction::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_share_is_compared_exactly() {
        assert!(Fraction::HALF.is_more_than(49, 100) && !Fraction::HALF.is_more_than(50, 100));
        assert!(Fraction::ALL.is_more_than(u64::MAX - 1, u64::MAX) && !Fraction::ALL.is_more_than(u64::MAX, u64::MAX));
        assert!(!Fraction::NONE.is_more_than(0, u64::MAX) && !Fraction::ALL.is_more_than(0, 0));
    }

    #[test]
    fn only_plain_digits_that_fit_are_numbers() {
        for (text, value) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("4294967297", Some(4_294_967_297)),
            ("99999999999999999999", None),
            ("000000000000000000001", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1x", None),
            ("\u{661}", None),
        ] {
            assert_eq!(decimal(text.as_bytes()), value, "{text:?}");
        }
    }
}
