//! Numbers as peers and files write them: decimal digits only, refused instead of wrapped.

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

#[cfg(test)]
mod tests {
    use super::*;

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
