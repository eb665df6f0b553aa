//! The way in for those who do not send their password: APOP and SCRAM.

use std::time::Instant;

use super::{Said, Service};
use crate::protocol::pop3::Apop;
use crate::service::entering::{Claim, random};

/// What a greeting offers APOP with. A client should refuse one that is not a message id (RFC 1939 §7): somebody in between
/// could have chosen it so that MD5 gives the password away.
pub(super) fn stamp(host: &str) -> Option<Box<str>> {
    let random: String = random()?.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("<{random}@{host}>").into())
}

impl Service<'_> {
    pub(super) fn apop(&mut self, now: Instant, apop: Apop) -> Said {
        self.enter(now, &apop.user, Claim::Apop { stamp: apop.stamp, digest: apop.digest })
    }

    pub(super) fn verifier(&mut self, now: Instant, user: &[u8]) -> Said {
        self.enter(now, user, Claim::Scram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::entering::RANDOM;

    #[test]
    fn a_stamp_is_a_message_id_that_is_never_met_twice() {
        let (one, other) = (stamp("example.test").unwrap(), stamp("example.test").unwrap());
        assert_ne!(one, other);
        let (random, host) = one.strip_prefix('<').unwrap().strip_suffix('>').unwrap().split_once('@').unwrap();
        assert_eq!(host, "example.test");
        assert!(random.len() == 2 * RANDOM && random.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
