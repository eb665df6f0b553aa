//! What an authenticator says of a user beyond name, drop file and owner: the rest of its answer.
//!
//! | written                               | is                                                                    |
//! |---------------------------------------|-----------------------------------------------------------------------|
//! | `fwd="bob@x.example" quota="100k"`    | labels with values: the first of a label counts, labels in any case    |
//! | `bob@x.example, ann@y.example`        | what has no label at its beginning: where his mail is forwarded        |
//!
//! Sizes: a number of bytes, or of 1024 (`k`), 1024² (`M`) or 1024³ (`G`) of them, `kb` and the like as well.

/// The value of a label.
pub fn value<'i>(info: &'i [u8], label: &str) -> Option<&'i [u8]> {
    pairs(info)?.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(label.as_bytes())).map(|(_, value)| value)
}

/// Where a user's mail is forwarded; empty: nowhere.
pub fn forward(info: &[u8]) -> &[u8] {
    match pairs(info) {
        Some(_) => value(info, "fwd").unwrap_or_default().trim_ascii(),
        None => info.trim_ascii(),
    }
}

/// Bytes that a user's mail may have: `Some(0)` is as many as he likes. `None`: nothing is said, or nothing that is a size.
pub fn quota(info: &[u8]) -> Option<u64> {
    size(value(info, "quota")?)
}

fn size(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = crate::text::number::decimal(&text[..digits])?;
    let shift = match text[digits..].trim_ascii().to_ascii_lowercase().as_slice() {
        b"" | b"b" => 0,
        b"k" | b"kb" => 10,
        b"m" | b"mb" => 20,
        b"g" | b"gb" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// Labels and values; `None` when it begins with no label.
fn pairs(info: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut rest = info.trim_ascii();
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let name =
            rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')).count();
        if name == 0 || rest.get(name) != Some(&b'=') {
            if pairs.is_empty() {
                return None;
            }
            // A stray word: on behind it.
            let word = rest.iter().take_while(|byte| !byte.is_ascii_whitespace()).count();
            rest = rest[word..].trim_ascii_start();
            continue;
        }
        let behind = &rest[name + 1..];
        let (value, after) = match behind.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = memchr::memchr(b'"', quoted).unwrap_or(quoted.len());
                (&quoted[..end], quoted.get(end + 1..).unwrap_or_default())
            }
            None => behind.split_at(behind.iter().take_while(|byte| !byte.is_ascii_whitespace()).count()),
        };
        pairs.push((&rest[..name], value));
        rest = after.trim_ascii_start();
    }
    (!pairs.is_empty()).then_some(pairs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_of_a_user_is_read_in_both_manners() {
        for (info, fwd, bytes) in [
            ("", "", None),
            ("bob@x.example", "bob@x.example", None),
            (" bob@x.example, ann ", "bob@x.example, ann", None),
            ("|/bin/x a=b", "|/bin/x a=b", None),
            ("$user", "$user", None),
            (r#"fwd="bob@x.example""#, "bob@x.example", None),
            (r#"groups="a b" FWD=" $user, x@y " quota="100k""#, "$user, x@y", Some(102_400)),
            (r#"fwd="" quota="5M""#, "", Some(5 << 20)),
            (r#"quota=2gb fwd=a@b"#, "a@b", Some(2 << 30)),
            (r#"quota="0""#, "", Some(0)),
            (r#"quota="many" fwd="x"#, "x", None),
            (r#"quota="" fwd="|prog a=b" stray fwd="second""#, "|prog a=b", None),
            (r#"quota="99999999999G""#, "", None),
            (r#"quota="12345""#, "", Some(12_345)),
        ] {
            assert_eq!(String::from_utf8_lossy(forward(info.as_bytes())), fwd, "{info}");
            assert_eq!(quota(info.as_bytes()), bytes, "{info}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(info in "[a-c=\" ,@$|0-9kM]{0,24}") {
            let _ = (forward(info.as_bytes()), quota(info.as_bytes()));
        }
    }
}
