//! Answers that no human writes (RFC 3834): to which messages there is none, and what an answer looks like.
//!
//! | there is no answer to                                  | for                                                       |
//! |--------------------------------------------------------|-----------------------------------------------------------|
//! | the null sender, what is no address                    | nobody reads it; two responders would talk for ever       |
//! | [`is_machine`]: MAILER-DAEMON, owner-x, x-request, noreply and their kin | the same                                |
//! | the recipient's own addresses                          | the same                                                  |
//! | `Auto-Submitted` with anything but `no`                | a machine wrote it                                        |
//! | `Precedence: bulk`, `junk`, `list`                     | many got it                                               |
//! | any `List-` field                                      | a list sent it, and would get the answer                  |
//! | `X-Loop` with one of the addresses, `Delivered-To` with one twice | it was here before                             |
//! | `X-Auto-Response-Suppress`, `X-Autoreply`, `X-Autorespond` | other systems' words for the same                     |
//! | `Content-Type: multipart/report`, `X-Spam-Flag: YES`   | a machine wrote it; whoever is named as sender did not    |
//! | neither `To` nor `Cc` (nor their `Resent-` kin) names one of the addresses | it was not written to this person         |
//!
//! Everything else gets one: to the return path, from the recipient, from the null sender as far as SMTP is concerned. That a
//! correspondent hears the same only once in a while is seen to by whoever sends it.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;

use super::address::{self, Address};
use super::encoded::{decoded, encoded, phrase};
use super::mailboxes::mailboxes;

/// Longest line of a text that is sent as it stands (RFC 5322 §2.1.1).
const LINE_BYTES: usize = 998;
/// Message ids that an answer names: the first, and the last ones.
const REFERENCES: usize = 20;
/// Longest message id that is named.
const ID_BYTES: usize = 250;
/// Longest subject of a message that an answer repeats, in characters.
const SUBJECT_CHARS: usize = 200;

/// The header of a message.
#[derive(Debug, Default)]
pub struct Header {
    /// Names in lower case; bodies in one line, without blanks around them.
    fields: Vec<(String, Vec<u8>)>,
}

impl Header {
    /// The fields at the beginning of a message, with LF or CRLF. A line that is no field is passed over.
    pub fn read(message: &[u8]) -> Header {
        let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
        for line in message.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                break;
            }
            if matches!(line[0], b' ' | b'\t') {
                if let Some((_, body)) = fields.last_mut() {
                    body.push(b' ');
                    body.extend_from_slice(line.trim_ascii());
                }
            } else if let Some(colon) = line.iter().position(|&byte| byte == b':') {
                let name = String::from_utf8_lossy(line[..colon].trim_ascii_end()).to_ascii_lowercase();
                fields.push((name, line[colon + 1..].trim_ascii().to_vec()));
            }
        }
        Header { fields }
    }

    fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.fields.iter().filter(move |(other, _)| other == name).map(|(_, body)| &body[..])
    }

    /// The first field of that name, in lower case.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, body)| &body[..])
    }

    /// The first word of each field of that name, without a comment or parameter behind it, in lower case.
    fn words<'h>(&'h self, name: &'h str) -> impl Iterator<Item = Vec<u8>> + 'h {
        let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b';' | b'(' | b',');
        self.all(name).map(move |body| body.split(ends).next().unwrap_or_default().to_ascii_lowercase())
    }
}

/// Why a message gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Its sender is nobody, or cannot be read.
    Nobody,
    /// Its sender is a machine.
    Machine,
    /// Its sender is its recipient.
    Own,
    /// It says that a machine wrote it.
    Automatic,
    /// It says that many got it.
    Bulk,
    /// A list sent it.
    List,
    /// It was here before.
    Loop,
    /// It asks for none.
    Unwanted,
    /// It reports on other mail.
    Report,
    /// It is taken for spam.
    Spam,
    /// It does not name the recipient.
    NotAddressed,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Silence::Nobody => "the sender is nobody",
            Silence::Machine => "the sender's name is a machine's",
            Silence::Own => "the sender is the recipient",
            Silence::Automatic => "Auto-Submitted says that no human wrote it",
            Silence::Bulk => "Precedence says that many got it",
            Silence::List => "it came by a list",
            Silence::Loop => "it was here before",
            Silence::Unwanted => "it asks for no automatic answer",
            Silence::Report => "it is a report about other mail",
            Silence::Spam => "X-Spam-Flag says that it is spam",
            Silence::NotAddressed => "neither To nor Cc names one of the recipient's addresses: -a names further ones",
        })
    }
}

/// To whom a message is answered, whose return path is `sender`; `own` are the recipient's addresses. `Err`: to nobody, and why.
pub fn answer_to(header: &Header, sender: &str, own: &[Address]) -> Result<Address, Silence> {
    let to = match address::path(format!("<{}>", sender.trim()).as_bytes(), true) {
        Ok((Some(to), b"")) if matches!(to.place, address::Place::Domain(_) | address::Place::Literal(_)) => to,
        _ => return Err(Silence::Nobody),
    };
    if is_machine(&to.local) {
        return Err(Silence::Machine);
    }
    let is_own = |address: &Address| own.iter().any(|own| key(own) == key(address));
    if is_own(&to) {
        return Err(Silence::Own);
    }
    if header.words("auto-submitted").any(|word| word != b"no") {
        return Err(Silence::Automatic);
    }
    if header.words("precedence").any(|word| [&b"bulk"[..], b"junk", b"list"].contains(&&word[..])) {
        return Err(Silence::Bulk);
    }
    if header.fields.iter().any(|(name, _)| name.starts_with("list-") || name == "mailing-list") {
        return Err(Silence::List);
    }
    let names_own = |body: &[u8]| named(body).iter().any(is_own);
    if header.all("x-loop").any(names_own) || header.all("delivered-to").filter(|body| names_own(body)).count() > 1 {
        return Err(Silence::Loop);
    }
    let suppressed = |body: &[u8]| {
        let mut words = body.split(|&byte| byte == b',').map(|word| word.trim_ascii().to_ascii_lowercase());
        words.any(|word| [&b"all"[..], b"oof", b"autoreply"].contains(&&word[..]))
    };
    if header.all("x-auto-response-suppress").any(suppressed)
        || ["x-autoreply", "x-autorespond"].iter().any(|name| header.words(name).any(|word| word != b"no"))
    {
        return Err(Silence::Unwanted);
    }
    if header.words("content-type").any(|word| word == b"multipart/report") {
        return Err(Silence::Report);
    }
    if header.words("x-spam-flag").any(|word| word == b"yes") {
        return Err(Silence::Spam);
    }
    let addressed = ["to", "cc", "resent-to", "resent-cc"].iter().any(|name| header.all(name).any(names_own));
    if addressed { Ok(to) } else { Err(Silence::NotAddressed) }
}

/// Whether nobody reads what is sent to such a name: RFC 3834 §2, and what has become usual.
pub fn is_machine(local: &str) -> bool {
    let local = local.to_lowercase();
    const WHOLE: &[&str] = &[
        "mailer-daemon",
        "mailer",
        "postmaster",
        "listserv",
        "majordomo",
        "uucp",
        "nobody",
        "bounce",
        "bounces",
        "autoreply",
        "auto-reply",
    ];
    const BEGIN: &[&str] = &["owner-", "bounce-", "bounces-", "bounce+", "bounces+", "mailer-daemon"];
    const END: &[&str] = &["-request", "-owner", "-relay", "-bounce", "-bounces", "-errors", "-confirm"];
    const INSIDE: &[&str] = &[
        "noreply",
        "no-reply",
        "no_reply",
        "no.reply",
        "donotreply",
        "do-not-reply",
        "do_not_reply",
        "-bounces+",
        "-return-",
    ];
    WHOLE.contains(&&local[..])
        || BEGIN.iter().any(|begin| local.starts_with(begin))
        || END.iter().any(|end| local.ends_with(end))
        || INSIDE.iter().any(|inside| local.contains(inside))
}

/// The address in the form by which it is compared and remembered.
pub fn key(address: &Address) -> String {
    address.to_string().to_lowercase()
}

/// The addresses in a field that holds a list of them; none when it is no list.
fn named(body: &[u8]) -> Vec<Address> {
    let mailboxes = mailboxes(body).unwrap_or_default().into_iter();
    let addresses = mailboxes.filter_map(|mailbox| {
        let domain = mailbox.domain?;
        let path = [&b"<"[..], &mailbox.local, b"@", &domain, b">"].concat();
        address::path(&path, true).ok()?.0
    });
    addresses.collect()
}

/// What an answer is made of.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// From whom: the recipient of the message.
    pub from: &'a Address,
    /// The name before that address.
    pub name: Option<&'a str>,
    /// To whom.
    pub to: &'a Address,
    /// The file with the text. It may begin with a `Subject:` line and a blank one. `$SUBJECT` in either stands for the subject of
    /// the message.
    pub text: &'a str,
    /// Now, as a `Date` field has it.
    pub date: &'a str,
    /// Its own id, with angle brackets.
    pub id: &'a str,
}

impl Answer<'_> {
    /// The answer to a message with this header; LF ends its lines.
    pub fn write(&self, header: &Header) -> Vec<u8> {
        let asked: String = decoded(header.first("subject").unwrap_or_default()).chars().take(SUBJECT_CHARS).collect();
        let asked = asked.trim();
        let (subject, text) = template(self.text);
        let subject = match subject {
            Some(subject) => subject.replace("$SUBJECT", asked),
            // RFC 3834 §3.1.5.
            None if asked.is_empty() => "Auto: your message".to_owned(),
            None => format!("Auto: {asked}"),
        };
        let text = text.replace("$SUBJECT", asked).replace('\r', "");
        let from = match self.name {
            Some(name) => format!("{} <{}>", phrase(name), self.from),
            None => self.from.to_string(),
        };
        let mut answer = format!(
            "Date: {}\nFrom: {from}\nTo: {}\nSubject: {}\nMessage-ID: {}\n",
            self.date,
            self.to,
            encoded(&subject),
            self.id
        );
        let ids = ids(header);
        if let Some(last) = header.first("message-id").and_then(id) {
            answer += &format!("In-Reply-To: {last}\nReferences: {}\n", ids.join("\n "));
        }
        answer += &format!("Auto-Submitted: auto-replied\nX-Loop: {}\nMIME-Version: 1.0\n", self.from);
        answer += "Content-Type: text/plain; charset=utf-8\n";
        let is_long = text.lines().any(|line| line.len() > LINE_BYTES);
        if is_long {
            answer += "Content-Transfer-Encoding: base64\n\n";
            // Text has CRLF within base64 (RFC 2046 §4.1.1).
            let encoded = BASE64.encode(text.replace('\n', "\r\n"));
            for line in encoded.as_bytes().chunks(76) {
                answer += &String::from_utf8_lossy(line);
                answer.push('\n');
            }
        } else {
            let encoding = if text.is_ascii() { "7bit" } else { "8bit" };
            answer += &format!("Content-Transfer-Encoding: {encoding}\n\n{text}");
            if !answer.ends_with('\n') {
                answer.push('\n');
            }
        }
        answer.into_bytes()
    }
}

/// The subject that a text brings along, and the text behind it. It counts only when a blank line follows.
fn template(file: &str) -> (Option<&str>, &str) {
    let whole = (None, file);
    let Some((first, rest)) = file.split_once('\n') else { return whole };
    let Some((name, subject)) = first.split_once(':') else { return whole };
    let Some((blank, text)) = rest.split_once('\n') else { return whole };
    if name.eq_ignore_ascii_case("subject") && blank.trim().is_empty() { (Some(subject.trim()), text) } else { whole }
}

/// The id that a field is, or `None` when it is none that may be repeated.
fn id(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_id = text.starts_with('<') && text.ends_with('>') && text.len() <= ID_BYTES;
    (is_id && text.bytes().all(|byte| matches!(byte, b'!'..=b'~'))).then_some(text)
}

/// The ids of the messages before the answer (RFC 5322 §3.6.4), oldest first.
fn ids(header: &Header) -> Vec<&str> {
    let before = header.first("references").or(header.first("in-reply-to")).unwrap_or_default();
    let mut ids: Vec<&str> = before.split(u8::is_ascii_whitespace).filter_map(id).collect();
    ids.extend(header.first("message-id").and_then(id));
    if ids.len() > REFERENCES {
        ids.drain(1..=ids.len() - REFERENCES);
    }
    ids
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Address {
        address::path(format!("<{text}>").as_bytes(), true).unwrap().0.unwrap()
    }

    fn own() -> [Address; 2] {
        [address("ann@example.com"), address("Ann.Bell@example.com")]
    }

    fn judged(sender: &str, header: &str) -> Result<String, Silence> {
        answer_to(&Header::read(header.as_bytes()), sender, &own()).map(|to| to.to_string())
    }

    #[test]
    fn a_person_who_writes_to_the_recipient_is_answered() {
        for header in [
            "To: ann@example.com\n",
            "to: Bob <bob@x>, \"Bell, Ann\" <ANN@EXAMPLE.com>\n\nList-Id: in the body\n",
            "Cc: team:\r\n ann.bell@example.com;\r\nTo: x@y\r\n",
            "Resent-To: ann@example.com\nTo: other@x\n",
            "To: ann@example.com\nAuto-Submitted: no (really)\nPrecedence: first-class\nX-Autoreply: no\n",
            "To: ann@example.com\nDelivered-To: ann@example.com\nX-Loop: other@x\n",
            "To: ann@example.com\nX-Auto-Response-Suppress: DR, RN\nX-Spam-Flag: NO\n",
        ] {
            assert_eq!(judged("Bob@x.org", header), Ok("Bob@x.org".to_owned()), "{header}");
        }
    }

    #[test]
    fn nobody_else_is() {
        let to = "To: ann@example.com\n";
        for (sender, header, why) in [
            ("", to, Silence::Nobody),
            ("postmaster", to, Silence::Nobody),
            ("a b@x", to, Silence::Nobody),
            ("bob@x> SIZE=1", to, Silence::Nobody),
            ("MAILER-DAEMON@x", to, Silence::Machine),
            ("owner-list@x", to, Silence::Machine),
            ("List-Request@x", to, Silence::Machine),
            ("noreply+17@x", to, Silence::Machine),
            ("Do-Not-Reply@x", to, Silence::Machine),
            ("news-bounces+ann=example.com@x", to, Silence::Machine),
            ("ANN@Example.com", to, Silence::Own),
            ("bob@x", "Auto-Submitted: auto-replied; x=y\n", Silence::Automatic),
            ("bob@x", "Auto-Submitted:\n\tauto-generated\n", Silence::Automatic),
            ("bob@x", "auto-submitted: no\nAuto-Submitted: auto-notified\n", Silence::Automatic),
            ("bob@x", "Precedence: BULK\n", Silence::Bulk),
            ("bob@x", "Precedence: list (x)\n", Silence::Bulk),
            ("bob@x", "List-Unsubscribe: <mailto:x@y>\n", Silence::List),
            ("bob@x", "X-Loop: ann@example.com\n", Silence::Loop),
            ("bob@x", "Delivered-To: ann@example.com\nDelivered-To: ann.bell@example.com\n", Silence::Loop),
            ("bob@x", "X-Auto-Response-Suppress: DR, OOF\n", Silence::Unwanted),
            ("bob@x", "X-Autorespond: yes\n", Silence::Unwanted),
            ("bob@x", "Content-Type: multipart/report; report-type=x\n", Silence::Report),
            ("bob@x", "X-Spam-Flag: YES\n", Silence::Spam),
        ] {
            assert_eq!(judged(sender, &format!("{header}{to}")), Err(why), "{sender} {header}");
        }
        for header in
            ["", "To: bob@x\n", "Bcc: ann@example.com\n", "To: ann@example.com, <\n", "\nTo: ann@example.com\n"]
        {
            assert_eq!(judged("bob@x", header), Err(Silence::NotAddressed), "{header:?}");
        }
    }

    fn answered(header: &str, text: &str) -> String {
        let (from, to) = (address("ann@example.com"), address("bob@x.org"));
        let answer = Answer {
            from: &from,
            name: None,
            to: &to,
            text,
            date: "Mon, 05 Jan 2026 11:00:00 +0000",
            id: "<1@example.com>",
        };
        String::from_utf8(answer.write(&Header::read(header.as_bytes()))).unwrap()
    }

    #[test]
    fn an_answer_says_whose_and_to_what_it_is_and_that_a_machine_wrote_it() {
        assert_eq!(
            answered("Subject: tea\nMessage-ID: <2@x.org>\nReferences: <0@x.org>\n <1@x.org>\n", "I am away."),
            "Date: Mon, 05 Jan 2026 11:00:00 +0000\nFrom: ann@example.com\nTo: bob@x.org\nSubject: Auto: tea\n\
             Message-ID: <1@example.com>\nIn-Reply-To: <2@x.org>\nReferences: <0@x.org>\n <1@x.org>\n <2@x.org>\n\
             Auto-Submitted: auto-replied\nX-Loop: ann@example.com\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\n\nI am away.\n"
        );
        let none = answered("", "x\n");
        assert!(none.contains("\nSubject: Auto: your message\n") && !none.contains("In-Reply-To"), "{none}");
        // What was answered is answered by no other responder, nor by ourselves.
        let header = Header::read(none.as_bytes());
        assert_eq!(answer_to(&header, "ann@example.com", &[address("bob@x.org")]), Err(Silence::Automatic));
    }

    #[test]
    fn subjects_keep_their_letters_and_may_be_the_texts_own() {
        let subject = |header: &str, text: &str| {
            let answer = answered(header, text);
            let header = Header::read(answer.as_bytes());
            assert!(answer.lines().all(|line| line.len() <= 998), "{answer}");
            (decoded(header.first("subject").unwrap()), answer.split_once("\n\n").unwrap().1.to_owned())
        };
        let asked = "Subject: =?iso-8859-1?Q?Caf=E9?= now\n";
        assert_eq!(subject(asked, "x").0, "Auto: Caf\u{e9} now");
        assert_eq!(
            subject(asked, "subject: Away: $SUBJECT \u{e4}\n\nAbout \"$SUBJECT\": no.\n"),
            ("Away: Caf\u{e9} now \u{e4}".to_owned(), "About \"Caf\u{e9} now\": no.\n".to_owned())
        );
        assert_eq!(
            subject("Subject: a\n", "Subject: tea\nis what it is about\n").1,
            "Subject: tea\nis what it is about\n"
        );
        assert!(subject(&format!("Subject: {}\n", "x ".repeat(5000)), "x").0.len() < 300);
        assert!(subject("Subject: =?utf-8?Q?a=0ABcc:_all?=\n", "x").0.contains("a Bcc: all"));
    }

    #[test]
    fn a_long_line_and_a_long_history_stay_in_bounds() {
        let answer = answered("", &format!("{}\n\u{e4}", "x".repeat(2000)));
        assert!(
            answer.contains("Transfer-Encoding: base64\n") && answer.lines().all(|line| line.len() <= 76),
            "{answer}"
        );
        assert!(answered("", "\u{e4}").contains("Transfer-Encoding: 8bit\n\n\u{e4}\n"));
        let many: String = (0..500).map(|n| format!(" <{n}@x>\n")).collect();
        let answer = answered(&format!("References:\n{many}Message-ID: <last@x>\n"), "x");
        assert_eq!(answer.matches("@x>").count(), REFERENCES + 1);
        assert!(answer.contains("References: <0@x>\n <482@x>") && answer.contains("<last@x>\n"), "{answer}");
        for bad in ["no id", "<a b@x>", "<\u{e4}@x>", "<x", &format!("<{}>", "x".repeat(300))] {
            assert!(!answered(&format!("Message-ID: {bad}\n"), "x").contains("In-Reply-To"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_answered_the_answer_is_one_header_and_one_text(
            header in proptest::collection::vec(any::<u8>(), 0..300),
            subject in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let message = [b"Subject: ", &subject[..], b"\nMessage-ID: ", &subject[..], b"\n", &header[..]].concat();
            let read = Header::read(&message);
            let _ = answer_to(&read, "bob@x", &own());
            let (from, to) = (address("ann@example.com"), address("bob@x.org"));
            let answer = Answer { from: &from, name: Some("Ann"), to: &to, text: "x", date: "d", id: "<i@x>" };
            let text = String::from_utf8(answer.write(&read)).unwrap();
            let (head, _) = text.split_once("\n\n").unwrap();
            let names: Vec<&str> =
                head.lines().filter(|line| !line.starts_with(' ')).map(|line| line.split(':').next().unwrap()).collect();
            prop_assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-')), "{}", text);
            prop_assert!(matches!(names.len(), 10 | 12), "{}", text);
        }
    }
}
