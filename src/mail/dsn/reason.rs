//! Why something came to what it came to, as one line: an enhanced code (RFC 3463), and words. What another host said stands
//! in it so that it can be told from words of ours.
//!
//! ```text
//! 5.1.1 No such user here                                                    ours
//! 5.7.1 mx.example.net [192.0.2.1] said: 550 5.7.1 Not from you              a host's; its port may follow either
//! ```

const SAID: &str = " said: ";

/// What such a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason<'a> {
    /// The enhanced code: three numbers with dots.
    pub status: Option<&'a str>,
    /// What follows it: our words, or the host's.
    pub words: &'a str,
    /// Who said that: a name without a blank, or an address in brackets; `None`: we.
    pub host: Option<&'a str>,
}

impl Reason<'_> {
    /// A line of any origin.
    pub fn of(why: &str) -> Reason<'_> {
        let why = why.trim();
        let (status, rest) = match why.split_once(' ') {
            Some((first, rest)) if is_status(first) => (Some(first), rest.trim_start()),
            None if is_status(why) => (Some(why), ""),
            _ => (None, why),
        };
        let told = rest.split_once(SAID).and_then(|(who, reply)| {
            let mut words = who.split(' ');
            let (host, address) = (without_port(words.next()?), words.next().map(without_port));
            let is_reply = reply.len() >= 3 && reply.bytes().take(3).all(|byte| byte.is_ascii_digit());
            let is_whole = is_host(host) && address.is_none_or(is_literal) && words.next().is_none();
            (is_whole && is_reply).then_some((host, reply))
        });
        match told {
            Some((host, words)) => Reason { status, words, host: Some(host) },
            None => Reason { status, words: rest, host: None },
        }
    }

    /// Its class, subject and detail.
    pub fn code(&self) -> Option<(u16, u16, u16)> {
        let mut numbers = self.status?.split('.').map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    }
}

/// `5.1.10`: as RFC 3463 §2 has it, of the classes 2, 4 and 5.
fn is_status(word: &str) -> bool {
    let number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = word.split('.');
    matches!(parts.next(), Some("2" | "4" | "5"))
        && parts.next().is_some_and(number)
        && parts.next().is_some_and(number)
        && parts.next().is_none()
}

/// `mx.example.net:25` without its end.
fn without_port(word: &str) -> &str {
    match word.rsplit_once(':') {
        Some((host, port))
            if is_host(host) && (1..=5).contains(&port.len()) && !port.contains(|c: char| !c.is_ascii_digit()) =>
        {
            host
        }
        _ => word,
    }
}

pub(super) fn is_host(word: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    is_literal(word) || (1..=255).contains(&word.len()) && word.bytes().all(is_name)
}

/// An address in brackets.
fn is_literal(word: &str) -> bool {
    let inner = word.strip_prefix('[').and_then(|word| word.strip_suffix(']'));
    let is_address = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':');
    inner.is_some_and(|inner| (1..=60).contains(&inner.len()) && inner.bytes().all(is_address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_said_is_told_from_words_of_ours() {
        for (why, status, host, words) in [
            ("5.1.1 No such user here", Some("5.1.1"), None, "No such user here"),
            ("5.1.10", Some("5.1.10"), None, ""),
            ("", None, None, ""),
            ("out of order", None, None, "out of order"),
            ("5.1 x", None, None, "5.1 x"),
            ("3.1.1 x", None, None, "3.1.1 x"),
            ("5.1.1.1 x", None, None, "5.1.1.1 x"),
            ("5.1.1000 x", None, None, "5.1.1000 x"),
            ("5.7.1 mx.x said: 550 no", Some("5.7.1"), Some("mx.x"), "550 no"),
            ("5.7.1 mx.x [192.0.2.1] said: 550 5.7.1 said: no", Some("5.7.1"), Some("mx.x"), "550 5.7.1 said: no"),
            ("4.4.1 [IPv6:2001:db8::1] said: 421 later", Some("4.4.1"), Some("[IPv6:2001:db8::1]"), "421 later"),
            ("4.4.1 [192.0.2.1]:25 said: 421 later", Some("4.4.1"), Some("[192.0.2.1]"), "421 later"),
            ("4.4.1 mx.x:587 [::1]:587 said: 421 later", Some("4.4.1"), Some("mx.x"), "421 later"),
            ("5.7.1 /bin/x said: nothing", Some("5.7.1"), None, "/bin/x said: nothing"),
            ("5.7.1 a b said: 550 x", Some("5.7.1"), None, "a b said: 550 x"),
            ("5.7.1 a\nb said: 550 x", Some("5.7.1"), None, "a\nb said: 550 x"),
            ("5.7.1 mx.x said: never", Some("5.7.1"), None, "mx.x said: never"),
        ] {
            assert_eq!(Reason::of(why), Reason { status, words, host }, "{why}");
        }
        assert_eq!(Reason::of("5.1.10 x").code(), Some((5, 1, 10)));
        assert_eq!(Reason::of("x").code(), None);
    }
}
