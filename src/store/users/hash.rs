//! What stands in the password field: which forms are taken, and what each may cost. Values in, verdict out.
//!
//! A stored hash is the administrator's word, but it may have been copied from anywhere: it is judged before crypt(3) sees
//! it, so that no entry can make one check take minutes or gigabytes, and so that half an entry is not a password.

/// Longest stored hash. crypt(3) never makes more than 384 bytes.
pub const STORED_MOST: usize = 512;
/// Most rounds of SHA-crypt, of SHA-1 and Sun MD5 crypt, and of BSDi DES: about 0.3 s; the defaults are 5,000 to 250,000.
pub const ROUNDS_MOST: u64 = 1_000_000;
/// Highest cost of bcrypt, base-two logarithm: about a second; the default is 5 to 12.
pub const BCRYPT_MOST: u64 = 14;
/// Most memory yescrypt and scrypt may ask for. The default is 16 MB; libxcrypt's scrypt takes up to 64 MB by default.
pub const MEMORY_MOST: u64 = 128 << 20;
/// How a clear-text entry begins, in any case of letters.
const PLAIN: &[u8] = b"{PLAIN}";
const LETTERS: &[u8] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Prefix of each form of crypt(3) and how many characters follow its last `$`.
const FORMS: &[(&str, usize)] = &[
    ("$1$", 22),
    ("$2a$", 53),
    ("$2b$", 53),
    ("$2x$", 53),
    ("$2y$", 53),
    ("$3$", 32),
    ("$5$", 43),
    ("$6$", 86),
    ("$7$", 43),
    ("$y$", 43),
    ("$gy$", 43),
    ("$sha1$", 28),
    ("$md5$", 22),
    ("$md5,rounds=", 22),
];

/// What a password is compared with.
#[derive(Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// The password itself.
    Plain(&'a [u8]),
    /// A whole hash that crypt(3) takes as its setting.
    Hash(&'a [u8]),
}

/// The form of a stored password, or why no password at all can match it.
pub fn judge(stored: &[u8]) -> Result<Form<'_>, &'static str> {
    if stored.len() > STORED_MOST {
        return Err("the stored hash is longer than 512 bytes");
    }
    if stored.len() >= PLAIN.len() && stored[..PLAIN.len()].eq_ignore_ascii_case(PLAIN) {
        let clear = &stored[PLAIN.len()..];
        return if clear.is_empty() { Err("the clear-text password is empty") } else { Ok(Form::Plain(clear)) };
    }
    match stored.first() {
        None => return Err("there is no stored hash"),
        Some(b'!' | b'*') => return Err("the account is locked"),
        Some(b'$') => modern(stored)?,
        Some(b'_') => bsdi(stored)?,
        Some(_) => des(stored)?,
    }
    Ok(Form::Hash(stored))
}

fn modern(stored: &[u8]) -> Result<(), &'static str> {
    let (prefix, tail) = FORMS
        .iter()
        .find(|(prefix, _)| stored.starts_with(prefix.as_bytes()))
        .ok_or("the stored hash is of an unknown kind")?;
    if !stored.iter().all(|byte| byte.is_ascii_graphic()) {
        return Err("the stored hash has a character that none has");
    }
    let rest = &stored[prefix.len()..];
    let last = stored.rsplit(|&byte| byte == b'$').next().unwrap_or_default();
    if last.len() != *tail {
        return Err("the stored hash is cut short or too long");
    }
    let fits = match *prefix {
        "$5$" | "$6$" => match rest.strip_prefix(b"rounds=") {
            Some(rounds) => number(rounds).is_some_and(|rounds| rounds <= ROUNDS_MOST),
            None => true,
        },
        "$sha1$" | "$md5,rounds=" => number(rest).is_some_and(|rounds| rounds <= ROUNDS_MOST),
        "$2a$" | "$2b$" | "$2x$" | "$2y$" => number(rest).is_some_and(|cost| cost <= BCRYPT_MOST),
        "$y$" | "$gy$" => yescrypt_memory(rest).is_some_and(|bytes| bytes <= MEMORY_MOST),
        "$7$" => scrypt_memory(rest).is_some_and(|bytes| bytes <= MEMORY_MOST),
        _ => true,
    };
    if fits { Ok(()) } else { Err("the stored hash asks for more work than is allowed") }
}

fn bsdi(stored: &[u8]) -> Result<(), &'static str> {
    if stored.len() != 20 || !stored[1..].iter().all(|byte| LETTERS.contains(byte)) {
        return Err("the stored hash is cut short or too long");
    }
    match little_endian(&stored[1..5]) {
        Some(1..=ROUNDS_MOST) => Ok(()),
        _ => Err("the stored hash asks for more work than is allowed"),
    }
}

/// Traditional DES is 13 characters; bigcrypt adds 11 for each further eight of the password.
fn des(stored: &[u8]) -> Result<(), &'static str> {
    let whole = stored.len() >= 13 && (stored.len() - 2).is_multiple_of(11) && stored.len() <= 178;
    if whole && stored.iter().all(|byte| LETTERS.contains(byte)) {
        return Ok(());
    }
    Err("the stored hash is of an unknown kind")
}

/// The decimal number up to the next `$`.
fn number(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|&byte| byte == b'$')?;
    crate::text::number::decimal(&text[..end])
}

/// 128 · N · r of `jNr`, one letter each. Parameters with more letters (several lanes, more time) are not taken.
fn yescrypt_memory(rest: &[u8]) -> Option<u64> {
    let end = rest.iter().position(|&byte| byte == b'$')?;
    let [_flavor, n, r] = rest[..end] else { return None };
    let (log, r) = (letter(n)? + 1, letter(r)? + 1);
    // From 48 on a letter says that more letters follow.
    (log < 32 && r <= 48).then(|| (128 * r) << log)
}

/// 128 · N · r · p of `Nrrrrrppppp`.
fn scrypt_memory(rest: &[u8]) -> Option<u64> {
    let (log, r, p) = (letter(*rest.first()?)?, little_endian(rest.get(1..6)?)?, little_endian(rest.get(6..11)?)?);
    if log >= 32 || r == 0 || p == 0 {
        return None;
    }
    (128u64 << log).checked_mul(r)?.checked_mul(p)
}

fn letter(byte: u8) -> Option<u64> {
    LETTERS.iter().position(|&letter| letter == byte).map(|at| at as u64)
}

fn little_endian(letters: &[u8]) -> Option<u64> {
    letters.iter().rev().try_fold(0u64, |value, &byte| Some(value << 6 | letter(byte)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::crypt::Crypt;

    #[test]
    fn every_form_the_library_makes_is_taken() {
        let mut crypt = Crypt::load().unwrap();
        let password = b"opensesame";
        let mut seen = 0;
        for (prefix, cost) in [
            (c"$y$", 0),
            (c"$gy$", 0),
            (c"$7$", 6),
            (c"$2a$", 4),
            (c"$2b$", 4),
            (c"$2y$", 4),
            (c"$6$", 0),
            (c"$6$", 1000),
            (c"$5$", 0),
            (c"$5$", 20_000),
            (c"$sha1", 1000),
            (c"$md5", 0),
            (c"$1$", 0),
            (c"$3$", 0),
            (c"_", 0),
            (c"", 0),
        ] {
            let Some(salt) = crypt.salt_of(prefix, cost) else { continue };
            let stored = crypt.hash(password, &salt).unwrap();
            let text = String::from_utf8_lossy(&stored).into_owned();
            assert_eq!(judge(&stored), Ok(Form::Hash(&stored)), "{text}");
            assert!(crypt.hash(password, &stored).unwrap() == stored, "{text}");
            // One character less is not a hash any more.
            assert!(judge(&stored[..stored.len() - 1]).is_err(), "{text}");
            seen += 1;
        }
        assert!(seen >= 3, "the library offers only {seen} forms");
    }

    #[test]
    fn oddities_are_refused_before_crypt_sees_them() {
        let long = format!("$6${}", "a".repeat(4096));
        let sha = "a".repeat(86);
        let tail = "a".repeat(43);
        for stored in [
            "",
            "x",
            "*",
            "!",
            "!!",
            "*0",
            "*1",
            "!$1$rasmusle$rISCgZzpwk3UhDidwXvin0",
            "*LK*",
            "secret",
            "{PLAIN}",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "$99$salt$hash",
            "$6$salt$short",
            "$6$",
            "$",
            "_J9..rasm",
            "_zzzzrasmBYk8r9AiWNc",
            &long,
            &format!("$6$rounds=999999999$salt${sha}"),
            &format!("$6$rounds=99999999999999999999999$salt${sha}"),
            &format!("$6$rounds=$salt${sha}"),
            &format!("$6$sa lt${sha}"),
            "$2b$31$usesomesillystringfore2uDLvp1Ii2e./U9C8sBjqp8I90dH6hi",
            &format!("$y$jFT$abcdefgh${tail}"),
            &format!("$y$jzz$abcdefgh${tail}"),
            &format!("$y$j9T5..$abcdefgh${tail}"),
            &format!("$7$zzzzz.zzzzzsalt${tail}"),
        ] {
            assert!(judge(stored.as_bytes()).is_err(), "{stored:?}");
        }
    }

    #[test]
    fn a_clear_text_entry_needs_its_mark() {
        assert_eq!(judge(b"{PLAIN}secret"), Ok(Form::Plain(b"secret")));
        assert_eq!(judge(b"{plain}!x"), Ok(Form::Plain(b"!x")));
    }
}
