//! What a server says that it can, in its answer to EHLO or LHLO.

use crate::protocol::sasl::Mechanism;
use crate::text::number::decimal;

/// What a server offers; after HELO, nothing. A keyword that is not here is passed over, as RFC 5321 §4.1.1.1 wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions {
    /// RFC 2920: commands may follow each other before the replies.
    pub pipelining: bool,
    /// RFC 6152: text may hold octets above 127.
    pub eight_bit: bool,
    /// RFC 6531: addresses and headers may.
    pub utf8: bool,
    /// RFC 3461: NOTIFY, ORCPT, RET, ENVID.
    pub dsn: bool,
    /// RFC 3030: BDAT.
    pub chunking: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 2034.
    pub enhanced: bool,
    /// RFC 1870: it wants to be told the size.
    pub size: bool,
    /// AUTH was offered, with whatever mechanisms: RFC 4954's parameter of MAIL may be said.
    pub auth: bool,
    /// AUTH PLAIN.
    pub plain: bool,
    /// AUTH LOGIN.
    pub login: bool,
    /// Octets that a message may have; 0 = not said.
    pub size_max: u64,
    /// RFC 9422: recipients that a message may have; 0 = not said.
    pub rcpt_max: u32,
    /// RFC 9422: messages that a connection may carry; 0 = not said.
    pub mail_max: u32,
}

impl Extensions {
    /// Takes a line of the answer, without its code; not the first line, which is the server's name.
    pub(super) fn line(&mut self, line: &[u8]) {
        let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        let is = |name: &str| keyword.eq_ignore_ascii_case(name.as_bytes());
        if is("PIPELINING") {
            self.pipelining = true;
        } else if is("8BITMIME") {
            self.eight_bit = true;
        } else if is("SMTPUTF8") {
            self.utf8 = true;
        } else if is("DSN") {
            self.dsn = true;
        } else if is("CHUNKING") {
            self.chunking = true;
        } else if is("STARTTLS") {
            self.starttls = true;
        } else if is("ENHANCEDSTATUSCODES") {
            self.enhanced = true;
        } else if is("SIZE") {
            self.size = true;
            self.size_max = words.next().and_then(decimal).unwrap_or(0);
        } else if is("LIMITS") {
            words.for_each(|word| self.limit(word));
        } else if is("AUTH") {
            words.for_each(|word| self.mechanism(word));
            self.auth = true;
        } else if let Some((_, first)) =
            keyword.split_at_checked(5).filter(|(name, _)| name.eq_ignore_ascii_case(b"AUTH="))
        {
            // As it was said before there was an RFC, and is said still, beside the other, for old clients.
            self.mechanism(first);
            words.for_each(|word| self.mechanism(word));
        }
    }

    fn mechanism(&mut self, name: &[u8]) {
        match Mechanism::find(name) {
            Some(Mechanism::Plain) => self.plain = true,
            Some(Mechanism::Login) => self.login = true,
            Some(Mechanism::ScramSha256) | None => {}
        }
    }

    fn limit(&mut self, word: &[u8]) {
        let Some(at) = memchr::memchr(b'=', word) else { return };
        let value = decimal(&word[at + 1..]).map_or(0, |value| u32::try_from(value).unwrap_or(u32::MAX));
        if word[..at].eq_ignore_ascii_case(b"RCPTMAX") {
            self.rcpt_max = value;
        } else if word[..at].eq_ignore_ascii_case(b"MAILMAX") {
            self.mail_max = value;
        }
    }
}
