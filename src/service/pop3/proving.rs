//! The way in for those who do not send their password: APOP and SCRAM.
//!
//! Nothing of it is remembered: the cache is asked by a password, and here is none. What an authenticator says to `scram` is
//! kept apart until the proof was good; until then it is not even known whether there is such a user.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};

use super::entering::Claim;
use super::{Said, Service};
use crate::net::stream::Done;
use crate::protocol::pop3::{Answer, Apop};
use crate::protocol::sasl::scram::Verifier;

/// Random bytes of a nonce or a stamp: none is met twice, and none can be guessed.
const RANDOM: usize = 18;

/// What a greeting offers APOP with. A client should refuse one that is not a message id (RFC 1939 §7): somebody in between
/// could have chosen it so that MD5 gives the password away.
pub(super) fn stamp(host: &str) -> Option<Box<str>> {
    let random: String = random()?.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("<{random}@{host}>").into())
}

fn random() -> Option<[u8; RANDOM]> {
    let mut bytes = [0; RANDOM];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

impl Service<'_> {
    pub(super) fn apop(&mut self, now: Instant, apop: Apop) -> Said {
        self.enter(now, &apop.user, Claim::Apop { stamp: apop.stamp, digest: apop.digest })
    }

    pub(super) fn verifier(&mut self, now: Instant, user: &[u8]) -> Said {
        self.enter(now, user, Claim::Scram)
    }

    pub(super) fn challenge(&mut self, verifier: Verifier) -> Said {
        match random() {
            Some(random) => Done::Now(Answer::Verifier(Box::new((verifier, BASE64.encode(random).into_bytes())))),
            None => {
                log::error!("pop3 {}: the system gives no random numbers", self.id);
                self.unavailable()
            }
        }
    }

    pub(super) fn proof(&mut self, now: Instant, good: bool) -> Said {
        let unproved = self.session.entering.as_deref_mut().and_then(|entering| entering.unproved.take());
        self.settle(now, unproved.filter(|_| good))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_a_message_id_that_is_never_met_twice() {
        let (one, other) = (stamp("example.test").unwrap(), stamp("example.test").unwrap());
        assert_ne!(one, other);
        let (random, host) = one.strip_prefix('<').unwrap().strip_suffix('>').unwrap().split_once('@').unwrap();
        assert_eq!(host, "example.test");
        assert!(random.len() == 2 * RANDOM && random.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
