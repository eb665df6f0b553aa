//! SCRAM-SHA-256, the server's side (RFC 5802, 7677): a client proves that it knows a password without sending it, and the
//! server that it knows a verifier of it. Messages in, messages out; random numbers are inputs.
//!
//! | message      | what it says                                    | made or taken by                        |
//! |--------------|-------------------------------------------------|-----------------------------------------|
//! | client-first | `n,,n=ann,r=NONCE`: who, and a number of theirs | [`First::parse`]                        |
//! | server-first | `r=NONCENONCE,s=SALT,i=ITERATIONS`              | [`First::challenge`]                    |
//! | client-final | `c=biws,r=NONCENONCE,p=PROOF`                   | [`Challenged::judge`]                   |
//! | server-final | `v=SIGNATURE`                                   | [`Challenged::judge`], for a good proof |
//!
//! **Channel binding** (`-PLUS`) is not offered: the unbuffered TLS connections that the driver runs do not give out the
//! exporter's bytes (RFC 9266). A client that demands it (`p=`) is refused; one that would have liked to (`y`) is served,
//! because it is right that we did not offer it.
//!
//! **Not ASCII.** SASLprep (RFC 4013) asks for normal forms. No table of Unicode is carried for that: names and passwords
//! are taken as the bytes that came. What ASCII has is the same either way, and so is what keyboards usually give; a password
//! with compatibility characters works with PLAIN and not here.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use crate::text::number::decimal;
use crate::text::secret::Secret;

/// Longest message of a client that is looked at.
pub const MESSAGE_MOST: usize = 2048;
/// Longest nonce of a client.
pub const NONCE_MOST: usize = 512;
/// Fewest iterations of a verifier (RFC 7677 §4), and most: a client does that work at each login.
pub const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=10_000_000;
/// Longest salt of a verifier.
pub const SALT_MOST: usize = 64;
/// SHA-256.
const KEY: usize = digest::SHA256_OUTPUT_LEN;

/// What is kept of a password so that it can be proved: nobody can log in with this, but whoever has it can try passwords
/// against it, and can pass for the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored: Secret,
    server: Secret,
}

impl Verifier {
    /// The verifier of a password. This is the work: as many rounds as there are iterations.
    pub fn of(password: &Secret, salt: &[u8], iterations: u32) -> Verifier {
        let mut salted = [0; KEY];
        let rounds = std::num::NonZeroU32::new(iterations).expect("a verifier has iterations");
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.reveal(), &mut salted);
        let salted = Secret::from(&salted[..]);
        let client = Secret::from(sign(&salted, b"Client Key").as_ref());
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored: Secret::from(digest::digest(&digest::SHA256, client.reveal()).as_ref()),
            server: Secret::from(sign(&salted, b"Server Key").as_ref()),
        }
    }

    /// A verifier that no password fits: for a user who is not there, so that the exchange goes as any other does. `stored`
    /// and `server` are to look random, and to be the same each time.
    pub fn of_nobody(salt: &[u8], iterations: u32, stored: &[u8; KEY], server: &[u8; KEY]) -> Verifier {
        let (stored, server) = (Secret::from(&stored[..]), Secret::from(&server[..]));
        Verifier { iterations, salt: salt.to_vec(), stored, server }
    }

    /// `ITERATIONS,SALT,STOREDKEY,SERVERKEY`, the last three in base64. `None` for anything else, and beyond the bounds.
    pub fn parse(text: &[u8]) -> Option<Verifier> {
        let mut fields = text.split(|&byte| byte == b',');
        let iterations = u32::try_from(decimal(fields.next()?)?).ok()?;
        let mut bytes = || BASE64.decode(fields.next()?).ok();
        let (salt, stored, server) = (bytes()?, Secret::new(bytes()?), Secret::new(bytes()?));
        let whole = fields.next().is_none()
            && ITERATIONS.contains(&iterations)
            && (1..=SALT_MOST).contains(&salt.len())
            && stored.reveal().len() == KEY
            && server.reveal().len() == KEY;
        whole.then_some(Verifier { iterations, salt, stored, server })
    }

    /// What [`parse`](Verifier::parse) takes.
    pub fn text(&self) -> String {
        let [salt, stored, server] = [&self.salt, self.stored.reveal(), self.server.reveal()].map(|b| BASE64.encode(b));
        format!("{},{salt},{stored},{server}", self.iterations)
    }

    /// How much work it is to try a password against it.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Its salt.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} iterations)", self.iterations)
    }
}

/// A message that is not what SCRAM has in that place.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// A client-first message.
#[derive(Debug)]
pub struct First {
    user: Vec<u8>,
    /// Up to the second comma. The client repeats it in its final message, so that nobody can have changed it.
    header: Vec<u8>,
    /// What follows the header: it is signed.
    bare: Vec<u8>,
    nonce: Vec<u8>,
}

impl First {
    /// Takes a client-first message apart.
    pub fn parse(message: &[u8]) -> Result<First, Malformed> {
        let text = text(message)?;
        let (flag, rest) = text.split_once(',').ok_or(Malformed)?;
        let (acting, bare) = rest.split_once(',').ok_or(Malformed)?;
        if !matches!(flag, "n" | "y") {
            return Err(Malformed);
        }
        let mut attributes = bare.split(',');
        let user = name(attribute(attributes.next(), "n=")?)?;
        let nonce = attribute(attributes.next(), "r=")?;
        if nonce.is_empty() || nonce.len() > NONCE_MOST || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Malformed);
        }
        // A mandatory extension (`m=`) stands before the name, and is refused there. Others are passed over.
        attributes.try_for_each(extension)?;
        // Acting for somebody else is not offered.
        if !acting.is_empty() && name(attribute(Some(acting), "a=")?)? != user {
            return Err(Malformed);
        }
        let header = &text[..text.len() - bare.len()];
        Ok(First { user, header: header.into(), bare: bare.into(), nonce: nonce.into() })
    }

    /// Who wants to prove something.
    pub fn user(&self) -> &[u8] {
        &self.user
    }

    /// The server-first message, and what judges the reply to it. `nonce` is printable, without commas, and never the same
    /// twice.
    pub fn challenge(self, verifier: Verifier, nonce: &[u8]) -> (Vec<u8>, Challenged) {
        let nonce = [&self.nonce, nonce].concat();
        let (salt, iterations) = (BASE64.encode(&verifier.salt), verifier.iterations.to_string());
        let message = [b"r=", &nonce[..], b",s=", salt.as_bytes(), b",i=", iterations.as_bytes()].concat();
        let signed = [&self.bare[..], b",", &message, b","].concat();
        let binding = BASE64.encode(&self.header).into_bytes();
        (message, Challenged { binding, nonce, signed, verifier })
    }
}

/// A client that has been challenged.
#[derive(Debug)]
pub struct Challenged {
    /// What `c=` has to be.
    binding: Vec<u8>,
    /// Theirs and ours.
    nonce: Vec<u8>,
    /// What is signed, up to the message that is to come.
    signed: Vec<u8>,
    verifier: Verifier,
}

impl Challenged {
    /// Judges a client-final message: the server-final message if it proves the password, `None` if it does not.
    pub fn judge(&self, message: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let text = text(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attribute(attributes.next(), "c=")?;
        let nonce = attribute(attributes.next(), "r=")?;
        attributes.try_for_each(extension)?;
        let proof = BASE64.decode(proof).ok().filter(|proof| proof.len() == KEY).ok_or(Malformed)?;

        let signed = [&self.signed, without_proof.as_bytes()].concat();
        let signature = sign(&self.verifier.stored, &signed);
        let key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let proved = self.verifier.stored.matches(digest::digest(&digest::SHA256, &key).as_ref());
        if !proved || nonce.as_bytes() != self.nonce || binding.as_bytes() != self.binding {
            return Ok(None);
        }
        let signature = BASE64.encode(sign(&self.verifier.server, &signed));
        Ok(Some(format!("v={signature}").into_bytes()))
    }
}

fn sign(key: &Secret, text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.reveal()), text)
}

/// A message as text of a bounded length.
fn text(message: &[u8]) -> Result<&str, Malformed> {
    let fits = message.len() <= MESSAGE_MOST && !message.iter().any(u8::is_ascii_control);
    std::str::from_utf8(message).ok().filter(|_| fits).ok_or(Malformed)
}

/// The value of an attribute that has to stand in this place.
fn attribute<'t>(found: Option<&'t str>, name: &str) -> Result<&'t str, Malformed> {
    found.and_then(|text| text.strip_prefix(name)).ok_or(Malformed)
}

/// Something that a later standard may have added, `x=value`: not understood, and allowed to stand there.
fn extension(text: &str) -> Result<(), Malformed> {
    match text.as_bytes() {
        [letter, b'=', _, ..] if letter.is_ascii_alphabetic() && *letter != b'm' => Ok(()),
        _ => Err(Malformed),
    }
}

/// A name, in which `=2C` stands for a comma and `=3D` for an equals sign.
fn name(escaped: &str) -> Result<Vec<u8>, Malformed> {
    let mut parts = escaped.split('=');
    let mut name = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (byte, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (b',', rest),
            (_, Some(rest)) => (b'=', rest),
            _ => return Err(Malformed),
        };
        name.push(byte);
        name.extend_from_slice(rest.as_bytes());
    }
    if name.is_empty() { Err(Malformed) } else { Ok(name) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// RFC 7677 §3: user `user`, password `pencil`.
    pub(crate) const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    pub(crate) const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    pub(crate) const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const NONCES: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    pub(crate) fn pencil() -> Verifier {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::of(&Secret::from(&b"pencil"[..]), &salt, 4096)
    }

    fn challenged() -> Challenged {
        First::parse(FIRST.as_bytes()).unwrap().challenge(pencil(), NONCE.as_bytes()).1
    }

    /// What a client does, from the other side of the same page of the RFC.
    fn prove(password: &str, header: &str, bare: &str, first: &str, middle: &str) -> String {
        let field = |name: &str| first.split(',').find_map(|part| part.strip_prefix(name)).unwrap();
        let salt = BASE64.decode(field("s=")).unwrap();
        let rounds = field("i=").parse().unwrap();
        let mut salted = [0; KEY];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut salted);
        let key = sign(&Secret::from(&salted[..]), b"Client Key");
        let stored = digest::digest(&digest::SHA256, key.as_ref());
        let without = format!("c={},r={}{middle}", BASE64.encode(header), field("r="));
        let signature = sign(&Secret::from(stored.as_ref()), format!("{bare},{first},{without}").as_bytes());
        let proof: Vec<u8> = key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        format!("{without},p={}", BASE64.encode(proof))
    }

    #[test]
    fn the_exchange_of_rfc_7677_comes_out() {
        let first = First::parse(FIRST.as_bytes()).unwrap();
        assert_eq!(first.user(), b"user");
        let (message, challenged) = first.challenge(pencil(), NONCE.as_bytes());
        assert_eq!(message, format!("r={NONCES},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").as_bytes());
        let last = challenged.judge(FINAL.as_bytes());
        assert_eq!(last, Ok(Some(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_vec())));
    }

    #[test]
    fn every_header_and_extension_that_may_be_there_is_taken_and_signed() {
        for (header, bare, user) in [
            ("n,,", "n=user,r=abc", "user"),
            ("y,,", "n=user,r=abc", "user"),
            ("n,a=user,", "n=user,r=abc", "user"),
            ("n,,", "n=a=2Cb=3Dc,r=abc", "a,b=c"),
            ("n,,", "n=zo\u{eb}@x,r=a=b,x=later", "zo\u{eb}@x"),
        ] {
            let first = First::parse(format!("{header}{bare}").as_bytes()).unwrap();
            assert_eq!(first.user(), user.as_bytes());
            let (message, challenged) = first.challenge(pencil(), b"ours");
            let message = String::from_utf8(message).unwrap();
            for middle in ["", ",x=later"] {
                let good = prove("pencil", header, bare, &message, middle);
                assert!(challenged.judge(good.as_bytes()).unwrap().is_some(), "{header}{bare} {good}");
            }
            let bad = prove("Pencil", header, bare, &message, "");
            assert_eq!(challenged.judge(bad.as_bytes()), Ok(None));
            // Who changed the header on the way is found out, whatever the proof is worth.
            let other = prove("pencil", if header == "y,," { "n,," } else { "y,," }, bare, &message, "");
            assert_eq!(challenged.judge(other.as_bytes()), Ok(None), "{header}{bare}");
        }
    }

    #[test]
    fn a_first_message_that_is_no_such_thing_is_refused() {
        let long_nonce = format!("n,,n=user,r={}", "x".repeat(NONCE_MOST + 1));
        let long = format!("n,,n=user,r=abc,x={}", "y".repeat(MESSAGE_MOST));
        for message in [
            "",
            ",",
            ",,",
            "n",
            "n,",
            "n,,",
            "n,,n=user",
            "n,,n=user,",
            "n,,r=abc,n=user",
            "n,,n=,r=abc",
            "n,,n=user,r=",
            "n,,n=user,r=a\u{e9}",
            "n,,n=user,r=a b",
            "n,,n=us\0er,r=abc",
            "n,,n=user\r\n,r=abc",
            "n,,n=a=2cb,r=abc",
            "n,,n=a=,r=abc",
            "n,,n=a=41,r=abc",
            "n,,n=user,r=abc,",
            "n,,n=user,r=abc,later",
            "n,,n=user,r=abc,x=",
            "n,,n=user,r=abc,m=x",
            "n,,m=x,n=user,r=abc",
            "n,a=other,n=user,r=abc",
            "n,a=,n=user,r=abc",
            "n,user,n=user,r=abc",
            "N,,n=user,r=abc",
            "x,,n=user,r=abc",
            "p=tls-exporter,,n=user,r=abc",
            "p=tls-unique,,n=user,r=abc",
            " n,,n=user,r=abc",
            &long_nonce,
            &long,
        ] {
            assert!(First::parse(message.as_bytes()).is_err(), "{message:?}");
        }
        assert!(First::parse(b"n,,n=\xff,r=abc").is_err());
    }

    #[test]
    fn a_final_message_that_is_no_such_thing_is_refused_and_a_wrong_one_proves_nothing() {
        let challenged = challenged();
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let long = format!("c=biws,r={NONCES},x={},p={proof}", "y".repeat(MESSAGE_MOST));
        for message in [
            "",
            "c=biws",
            &format!("c=biws,r={NONCES}"),
            &format!("c=biws,p={proof}"),
            &format!("r={NONCES},c=biws,p={proof}"),
            &format!("c=biws,r={NONCES},p="),
            &format!("c=biws,r={NONCES},p=AAAA"),
            &format!("c=biws,r={NONCES},p={proof}AAAA"),
            &format!("c=biws,r={NONCES},p=not base64"),
            &format!("c=biws,r={NONCES},p={proof},x=later"),
            &format!("c=biws,r={NONCES},m=x,p={proof}"),
            &format!("c=biws,r={NONCES},later,p={proof}"),
            &format!("c=biws,r={NONCES}\n,p={proof}"),
            &long,
        ] {
            assert_eq!(challenged.judge(message.as_bytes()), Err(Malformed), "{message:?}");
        }
        for message in [
            format!("c=biws,r=rOprNGfwEbeRWgbNEkqO,p={proof}"),
            format!("c=biws,r={NONCES}x,p={proof}"),
            format!("c=biws,r=,p={proof}"),
            format!("c=eSws,r={NONCES},p={proof}"),
            format!("c=,r={NONCES},p={proof}"),
            format!("c=biws,r={NONCES},x=later,p={proof}"),
            format!("c=biws,r={NONCES},p={}", BASE64.encode([0; 32])),
        ] {
            assert_eq!(challenged.judge(message.as_bytes()), Ok(None), "{message:?}");
        }
        let bare = "n=user,r=rOprNGfwEbeRWgbNEkqO";
        let other = prove("pencil", "n,,", bare, "r=elsewhere,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "");
        assert_eq!(challenged.judge(other.as_bytes()), Ok(None), "a proof for another connection");
    }

    #[test]
    fn a_verifier_survives_its_text_and_others_are_none() {
        let verifier = pencil();
        let text = verifier.text();
        assert!(text.starts_with("4096,W22ZaJ0SNY7soEsUEjb6gQ==,"));
        assert_eq!(Verifier::parse(text.as_bytes()), Some(verifier));
        let fields: Vec<&str> = text.split(',').collect();
        let long = BASE64.encode([0; SALT_MOST + 1]);
        for wrong in [
            String::new(),
            text[..text.len() - 1].to_owned(),
            format!("{text},"),
            text.replacen("4096", "4095", 1),
            text.replacen("4096", "10000001", 1),
            text.replacen("4096", "4294971392", 1),
            text.replacen("4096", "x", 1),
            [fields[0], "", fields[2], fields[3]].join(","),
            [fields[0], &long, fields[2], fields[3]].join(","),
            [fields[0], fields[1], "AAAA", fields[3]].join(","),
            [fields[0], fields[1], fields[2], "AAAA"].join(","),
            fields[..3].join(","),
        ] {
            assert_eq!(Verifier::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(format!("{:?}", pencil()), "Verifier(4096 iterations)");
    }
}
