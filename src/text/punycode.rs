//! Punycode (RFC 3492): how a label of a domain that is beyond ASCII is looked up.
//!
//! Only the encoding, and letters made small; neither are characters composed nor their kinds judged, for which megabytes of
//! tables would be needed. A name that is not written in composed form, as keyboards write it, becomes one that nobody has registered:
//! it is not found, and never another one.

const BASE: u32 = 36;
const LEAST: u32 = 1;
const MOST: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const FIRST_BIAS: u32 = 72;
const FIRST: u32 = 0x80;
/// What the encoded form begins with.
const PREFIX: &str = "xn--";
/// Characters of a label that are looked at: no domain is as long, and the work grows with their square.
const CHARS_MOST: usize = 255;

/// A label in ASCII, in lower case: itself, or `xn--` and its encoding. `None`: it is too long to be one.
pub fn ascii_label(label: &str) -> Option<String> {
    if label.is_ascii() {
        return Some(label.to_ascii_lowercase());
    }
    let chars: Vec<char> = label.chars().flat_map(char::to_lowercase).take(CHARS_MOST + 1).collect();
    let encoded = if chars.len() > CHARS_MOST { None } else { encode(&chars) };
    encoded.map(|encoded| format!("{PREFIX}{encoded}"))
}

/// RFC 3492 §6.3. `None`: a number grew too large for it.
fn encode(chars: &[char]) -> Option<String> {
    let mut output: String = chars.iter().filter(|c| c.is_ascii()).collect();
    let basic = output.len() as u32;
    let mut handled = basic;
    if basic > 0 {
        output.push('-');
    }
    let (mut least, mut delta, mut bias) = (FIRST, 0u32, FIRST_BIAS);
    while (handled as usize) < chars.len() {
        let next = chars.iter().map(|c| u32::from(*c)).filter(|c| *c >= least).min()?;
        delta = delta.checked_add((next - least).checked_mul(handled + 1)?)?;
        least = next;
        for c in chars.iter().map(|c| u32::from(*c)) {
            if c < least {
                delta = delta.checked_add(1)?;
            }
            if c == least {
                let (mut rest, mut at) = (delta, BASE);
                loop {
                    let threshold = at.saturating_sub(bias).clamp(LEAST, MOST);
                    if rest < threshold {
                        break;
                    }
                    output.push(digit(threshold + (rest - threshold) % (BASE - threshold)));
                    rest = (rest - threshold) / (BASE - threshold);
                    at += BASE;
                }
                output.push(digit(rest));
                bias = adapted(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta = delta.checked_add(1)?;
        least += 1;
    }
    Some(output)
}

/// RFC 3492 §6.1.
fn adapted(delta: u32, handled: u32, is_first: bool) -> u32 {
    let mut delta = delta / if is_first { DAMP } else { 2 };
    delta += delta / handled;
    let mut at = 0;
    while delta > ((BASE - LEAST) * MOST) / 2 {
        delta /= BASE - LEAST;
        at += BASE;
    }
    at + (BASE - LEAST + 1) * delta / (delta + SKEW)
}

fn digit(value: u32) -> char {
    // Below 26 a letter, from there on the digits 0 to 9; a value is below BASE.
    char::from_digit(if value < 26 { value + 10 } else { value - 26 }, BASE).unwrap_or('a')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_encoded_as_the_standard_says() {
        for (label, ascii) in [
            ("example", "example"),
            ("EXAMPLE", "example"),
            ("bücher", "xn--bcher-kva"),
            ("BÜCHER", "xn--bcher-kva"),
            ("münchen", "xn--mnchen-3ya"),
            ("例子", "xn--fsqu00a"),
            ("测试", "xn--0zwm56d"),
            // RFC 3492 §7.1, A, B, C, D, I and L.
            ("ليهمابتكلموشعربي؟", "xn--egbpdaj6bu4bxfgehfvwxn"),
            ("他们为什么不说中文", "xn--ihqwcrb4cv8a8dqg056pqjye"),
            ("他們爲什麽不說中文", "xn--ihqwctvzc91f659drss3x8bo0yb"),
            ("pročprostěnemluvíčesky", "xn--proprostnemluvesky-uyb24dma41a"),
            ("почемужеонинеговорятпорусски", "xn--b1abfaaepdrnnbgefbadotcwatmq2g4l"),
            ("3年b組金八先生", "xn--3b-ww4c5e180e575a65lsy2b"),
            ("\u{10ffff}a", "xn--a-g023p"),
        ] {
            assert_eq!(ascii_label(label).as_deref(), Some(ascii), "{label}");
        }
        assert_eq!(ascii_label(&"ü".repeat(CHARS_MOST + 1)), None);
    }

    proptest! {
        #[test]
        fn any_label_becomes_ascii_in_lower_case_and_another_one_another(a in "\\PC{1,30}", b in "[a-cü-þ]{1,8}", c in "[a-cü-þ]{1,8}") {
            if let Some(ascii) = ascii_label(&a) {
                prop_assert!(ascii.is_ascii() && ascii == ascii.to_ascii_lowercase());
            }
            prop_assert_eq!(b.to_lowercase() == c.to_lowercase(), ascii_label(&b) == ascii_label(&c));
        }
    }
}
