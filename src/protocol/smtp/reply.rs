//! What an SMTP server says: every reply text there is, each with its enhanced code (RFC 2034, 3463, 5248), and the shape in
//! which a host says things of its own.
//!
//! Without enhanced code are, as the RFCs want it, the greeting, the answer to EHLO, and what only says "go on" (3xx).

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use crate::text::bytes::Output;

/// Octets of a text; what is longer is cut. With the codes it stays below the 512 of RFC 5321 §4.5.3.1.5.
pub const TEXT_LIMIT: usize = 400;

/// One line of reply with its enhanced code, whose class is that of the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    subject: u16,
    detail: u16,
    text: Cow<'static, str>,
}

impl Reply {
    /// `code class.subject.detail text`, the class being that of the code. What is not printable ASCII in the text becomes `?`.
    pub fn new(code: u16, subject: u16, detail: u16, text: impl Into<Cow<'static, str>>) -> Reply {
        let mut text = text.into();
        let fits = |c: char| matches!(c, ' '..='~');
        if text.len() > TEXT_LIMIT || !text.chars().all(fits) {
            text = text.chars().map(|c| if fits(c) { c } else { '?' }).take(TEXT_LIMIT).collect::<String>().into();
        }
        assert!(matches!(code / 100, 2 | 4 | 5) && subject < 1000 && detail < 1000, "there is no such code");
        Reply { code, subject, detail, text }
    }

    const fn fixed(code: u16, subject: u16, detail: u16, text: &'static str) -> Reply {
        Reply { code, subject, detail, text: Cow::Borrowed(text) }
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Whether it says yes.
    pub fn is_good(&self) -> bool {
        self.code < 400
    }

    /// Its enhanced code and its text.
    pub fn said(&self) -> String {
        format!("{}.{}.{} {}", self.code / 100, self.subject, self.detail, self.text)
    }

    /// Writes it as one line.
    pub fn write(&self, out: &mut Output) {
        // Writing into memory cannot fail.
        let _ = write!(out, "{self}\r\n");
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reply { code, subject, detail, text } = self;
        write!(f, "{code} {}.{subject}.{detail} {text}", code / 100)
    }
}

macro_rules! replies {
    ($($(#[$why:meta])* $name:ident = $code:literal $subject:literal $detail:literal $text:literal;)*) => {
        $($(#[$why])* pub static $name: Reply = Reply::fixed($code, $subject, $detail, $text);)*

        /// All of them, for a manual.
        pub static ALL: &[&Reply] = &[$(&$name),*];
    };
}

replies! {
    /// NOOP, RSET.
    OK = 250 0 0 "Ok";
    /// MAIL.
    SENDER_OK = 250 1 0 "Sender ok";
    /// RCPT.
    RECIPIENT_OK = 250 1 5 "Recipient ok";
    /// After the dot.
    ACCEPTED = 250 0 0 "Accepted";
    /// VRFY: who exists is told to nobody.
    NOT_VERIFIED = 252 0 0 "Send some mail, and see";
    /// QUIT.
    BYE = 221 0 0 "Bye";
    /// STARTTLS.
    BEGIN_TLS = 220 0 0 "Begin TLS";
    /// AUTH.
    AUTHENTICATED = 235 7 0 "Welcome";

    /// Over 2,048 octets.
    LINE_TOO_LONG = 500 5 2 "Line too long";
    /// A control character in a command, or something beyond ASCII where it cannot be.
    NOT_TEXT = 500 5 2 "A command is plain text";
    /// Not a verb of this face.
    UNKNOWN_COMMAND = 500 5 1 "Unknown command";
    /// A verb that is known, and not had.
    NOT_IMPLEMENTED = 502 5 1 "Not implemented";
    /// BDAT: what follows it is no command.
    NO_CHUNKS = 502 5 1 "CHUNKING is not offered; closing";
    /// A browser.
    FOREIGN = 554 5 0 "This is a mail server; closing";
    /// Something was said before the greeting.
    EARLY_TALK = 554 5 0 "You spoke before the greeting; closing";
    /// A missing, extra or malformed argument.
    BAD_ARGUMENT = 501 5 4 "Bad argument";
    /// The name in EHLO is none.
    BAD_HELLO = 501 5 4 "Say your name, as a domain or an address in brackets";
    /// A transaction before EHLO.
    HELLO_FIRST = 503 5 1 "Say EHLO first";
    /// RCPT or DATA without MAIL.
    SENDER_FIRST = 503 5 1 "MAIL first";
    /// A second MAIL.
    SENDER_AGAIN = 503 5 1 "There is a sender already; RSET forgets it";
    /// AUTH between MAIL and the end of the message.
    IN_TRANSACTION = 503 5 1 "Not within a transaction";
    /// DATA when nobody would get it.
    NO_RECIPIENTS = 554 5 1 "No valid recipients";
    /// No reverse path.
    BAD_SENDER = 501 1 7 "Bad sender address";
    /// No forward path.
    BAD_RECIPIENT = 501 1 3 "Bad recipient address";
    /// A path beyond ASCII, and MAIL had no SMTPUTF8.
    NEEDS_UTF8 = 553 6 7 "Such an address needs SMTPUTF8";
    /// A parameter we do not have.
    UNKNOWN_PARAMETER = 555 5 4 "Unknown parameter";
    /// A parameter given twice or with a value that is none.
    BAD_PARAMETER = 501 5 4 "Bad parameter";
    /// It is, or will be, larger than messages may be.
    TOO_BIG = 552 3 4 "The message is too big";
    /// As many recipients as one message may have.
    TOO_MANY_RECIPIENTS = 452 5 3 "Too many recipients; send the others another copy";
    /// MAIL on a submission port without AUTH.
    AUTH_FIRST = 530 7 0 "Authenticate first";
    /// The same, where AUTH needs TLS first.
    TLS_FIRST = 530 7 0 "STARTTLS first, then authenticate";
    /// AUTH in clear.
    AUTH_NEEDS_TLS = 538 7 11 "Authentication is taken under TLS only: STARTTLS first";
    /// AUTH where there is none.
    NO_AUTH = 503 5 1 "There is no authentication on this port";
    /// AUTH after AUTH.
    AUTH_AGAIN = 503 5 1 "You are authenticated already";
    /// A SASL mechanism we do not have.
    UNKNOWN_MECHANISM = 504 5 4 "Unknown mechanism";
    /// `*` in a SASL exchange.
    CANCELLED = 501 7 0 "Cancelled";
    /// Not base64, or not what the mechanism demands.
    BAD_RESPONSE = 501 5 2 "Bad response";
    /// Over 12,288 octets.
    RESPONSE_TOO_LONG = 500 5 6 "Response too long";
    /// Name and password do not fit.
    DENIED = 535 7 8 "Name or password is wrong";
    /// Who it is cannot be found out now.
    AUTH_UNAVAILABLE = 454 7 0 "Authentication is not possible just now; try again later";
    /// A third wrong password.
    TOO_MANY_DENIED = 421 7 0 "Too many wrong passwords; closing";
    /// STARTTLS where it cannot be.
    NO_TLS = 502 5 1 "No TLS here";
    /// STARTTLS under TLS.
    TLS_AGAIN = 503 5 1 "This is under TLS already";
    /// A helper, a disk or another program keeps us from it just now.
    UNAVAILABLE = 451 3 0 "Not possible just now; try again later";
    /// There is no room, or less than delivery_min_space.
    NO_SPACE = 452 3 1 "Not enough space on the disk; try again later";
    /// As `UNAVAILABLE`, before the greeting.
    NO_SERVICE = 421 3 0 "No service just now; try again later";
    /// Errors, unknown commands, or commands that lead nowhere, up to their bound.
    TOO_MANY_ERRORS = 421 7 0 "Too many errors; closing";

    /// ETRN with the name of a queue.
    ETRN_NO_QUEUE = 458 3 0 "There are no queues by name here: ask for a domain";
    /// More ETRNs than one connection may say.
    ETRN_TOO_MANY = 458 7 0 "That is enough for one connection; try again later";
    /// ETRN when it cannot be begun.
    ETRN_UNAVAILABLE = 458 3 0 "Not possible just now; try again later";
    /// ETRN for a domain whose mail is delivered here.
    ETRN_OURS = 459 7 1 "That domain's mail does not wait here";
    /// ETRN: all of what waits has been found, and nothing does.
    ETRN_NOTHING = 251 0 0 "No messages are waiting";
    /// ETRN: another has begun with the same.
    ETRN_BEGUN = 252 0 0 "Messages for it are being sent already";
    /// ETRN: what waits is still being looked for.
    ETRN_STARTED = 250 0 0 "Messages for it are being looked for, and sent";

    /// More lines or bytes of header than may be.
    HEADER_TOO_BIG = 552 6 0 "The header is too big";
    /// As many `Received:` lines as no message has that is not going round.
    LOOPING = 554 4 6 "Too many hops: this message is going round in circles";
    /// Its recipients have had it already, by its `Delivered-To:` lines.
    AGAIN = 554 4 6 "This message has been here already: it is going round in circles";
    /// A line of text longer than may be.
    TEXT_LINE_TOO_LONG = 550 6 0 "A line of the message is too long";
    /// A CR or LF alone, where that is refused.
    BARE_NEWLINE = 550 5 2 "CR and LF may stand in a message as CRLF only; closing";
    /// A NUL, where that is refused.
    NUL_IN_TEXT = 550 6 0 "NUL may not stand in a message; closing";

    /// The deadline is over.
    SILENCE = 421 4 2 "Silent for too long; closing";
    /// As many connections from there as there may be; said in place of the greeting.
    TOO_MANY_CONNECTIONS = 421 7 0 "Too many connections from your network; try again later";
    /// All connections are taken.
    CROWDED = 421 3 2 "All connections are taken; try again later";
    /// The server stops.
    STOPPING = 421 3 2 "The server is stopping; try again later";
    /// An operator ended it.
    ENDED = 421 3 2 "This session was ended; try again later";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: &Reply) -> String {
        let mut out = Output::default();
        reply.write(&mut out);
        String::from_utf8(out.bytes().to_vec()).unwrap()
    }

    #[test]
    fn every_text_is_one_printable_line_and_no_two_are_the_same() {
        let mut seen = std::collections::HashSet::new();
        for reply in ALL {
            let line = written(reply);
            assert_eq!(**reply, Reply::new(reply.code, reply.subject, reply.detail, reply.text.clone()));
            assert!(seen.insert(line.clone()), "{line:?} twice");
            assert!(line.ends_with("\r\n") && line.len() <= 512);
            assert_eq!(&line[..1], &line[4..5], "{line:?}: the class of the enhanced code is the code's");
        }
    }

    #[test]
    fn what_a_host_says_cannot_be_more_than_a_line() {
        let line = written(&Reply::new(550, 1, 1, "no such user: a\r\n250 2.0.0 yes\0\u{e9}"));
        assert_eq!(line, "550 5.1.1 no such user: a??250 2.0.0 yes??\r\n");
        assert_eq!(written(&Reply::new(451, 4, 4, "x".repeat(5000))).len(), 10 + TEXT_LIMIT + 2);
    }
}
