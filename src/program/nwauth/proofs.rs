//! `scram` and `apop`: passwords that are proved and not sent. What is kept for that: `store::users::proofs`.

use md5::{Digest, Md5};

use super::{Nwauth, Trouble, WRONG, describe, printable, word};
use crate::protocol::sasl::scram::Verifier;
use crate::store::users::{Key, Record, judge};
use crate::text::fault::Fault;
use crate::text::secret::Secret;

/// Rounds of a new verifier, unless told otherwise. RFC 7677 asks for 4,096 at least and speaks of 15,000. The work is done
/// once here, when a password is set, and by the client at each login: 15,000 are some 10 ms there, and half a second on a
/// telephone of ten years ago; ten times as many would keep that telephone from polling.
pub(super) const ITERATIONS: u32 = 15_000;
/// The most that `-iterations` takes.
pub(super) const ITERATIONS_MOST: u32 = 1_000_000;
/// How many users are looked at to see whether all of them have a verifier: a fraction of the two seconds that a server waits.
const LOOKED_AT: usize = 100_000;
const UNKNOWN: &str = "-ERR unknown command";

/// Whether SCRAM is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scram {
    /// When every user has a verifier: a client that is offered it takes it, and has no second way.
    Auto,
    /// In any case.
    On,
    /// Not, and no verifiers are made.
    Off,
}

/// What `set` keeps beside the hash.
pub(super) struct Proofs {
    verifier: Option<Verifier>,
    secret: Option<Secret>,
}

impl Proofs {
    pub(super) fn keep_in(&self, record: &mut Record) {
        record.prove_by(self.verifier.as_ref(), self.secret.as_ref());
    }
}

impl Nwauth {
    /// `scram USER`: about a user who is not there, is locked or has no verifier, what looks like one. The same is computed
    /// for all.
    pub(super) fn scram(&mut self, words: &[Secret]) -> Result<Vec<u8>, Trouble> {
        let name = words[0].reveal();
        let key = match self.options.scram {
            Scram::Off => None,
            Scram::Auto | Scram::On => self.key()?,
        };
        let Some(key) = key else { return Err(Trouble::Refused(UNKNOWN)) };
        // Names that nobody can have are told by themselves.
        if self.name_refusal(name).is_some() {
            return Err(Trouble::Refused(WRONG));
        }
        let nobody = key.nobody(name, self.options.iterations);
        let found = self.users.find(name)?.record;
        match found.as_ref().and_then(|record| Some((record, record.verifier()?))) {
            Some((record, verifier)) => self.described(record, Some(&verifier)),
            None => {
                let nameless = Record { name: name.to_vec(), ..Record::default() };
                self.described(&nameless, Some(&nobody))
            }
        }
    }

    /// `apop USER STAMP DIGEST`.
    pub(super) fn apop(&mut self, words: &[Secret]) -> Result<Vec<u8>, Trouble> {
        if !self.options.apop {
            return Err(Trouble::Refused(UNKNOWN));
        }
        let name = words[0].reveal();
        let record = self.users.find(name)?.record.filter(|_| self.name_refusal(name).is_none());
        let secret = record.as_ref().and_then(Record::secret);
        let stand_in = Secret::default();
        let digest = Md5::new()
            .chain_update(words[1].reveal())
            .chain_update(secret.as_ref().unwrap_or(&stand_in).reveal())
            .finalize();
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let good = words[2].matches(digits.as_bytes());
        match record {
            Some(record) if good && secret.is_some() => self.described(&record, None),
            _ => Err(Trouble::Refused(WRONG)),
        }
    }

    /// What can be asked beyond the manual's requests: words for the reply to `version`.
    pub(super) fn abilities(&mut self) -> String {
        let mut words = String::new();
        let scram = match self.options.scram {
            Scram::Off => Ok(false),
            Scram::On => self.key().map(|key| key.is_some()),
            Scram::Auto => self.key().and_then(|key| Ok(key.is_some() && self.all_have_verifiers()?)),
        };
        match scram {
            Ok(true) => words.push_str(" scram"),
            Ok(false) => {}
            Err(fault) => self.log(&format!("no scram: {fault}")),
        }
        if self.options.apop {
            words.push_str(" apop");
        }
        words
    }

    fn all_have_verifiers(&mut self) -> Result<bool, Fault> {
        use std::ops::ControlFlow::{Break, Continue};
        let (mut seen, mut all) = (0, true);
        self.users.search(
            |_| true,
            |record| {
                seen += 1;
                all = seen <= LOOKED_AT && (record.verifier().is_some() || judge(record.stored.reveal()).is_err());
                if all { Continue(()) } else { Break(()) }
            },
        )?;
        Ok(all)
    }

    fn key(&mut self) -> Result<Option<Key>, Fault> {
        if self.key.is_none() {
            self.key = self.users.key(!self.options.readonly)?;
        }
        Ok(self.key.clone())
    }

    /// What this user's new password can be proved by.
    pub(super) fn proofs(&mut self, name: &[u8], password: &Secret) -> Result<Proofs, Fault> {
        let key = if self.options.scram == Scram::Off { None } else { self.key()? };
        Ok(Proofs {
            verifier: key.map(|key| Verifier::of(password, &key.salt(name), self.options.iterations)),
            secret: self.options.apop.then(|| password.clone()),
        })
    }

    /// A password was good: what it can be proved by and is not there yet is made now, for it will not be seen again before
    /// the next login. Whatever keeps us from it, the check was good; and nobody is waited for.
    pub(super) fn make_up(&mut self, record: &Record, password: &Secret) {
        let room = record.has_room();
        let fits = |verifier: &Verifier| verifier.iterations() == self.options.iterations;
        let scram = self.options.scram != Scram::Off && room.0 && !record.verifier().is_some_and(|old| fits(&old));
        let apop = self.options.apop && room.1 && record.secret().is_none();
        if self.options.readonly || !scram && !apop {
            return;
        }
        let made = self.proofs(&record.name, password).and_then(|proofs| {
            self.users.put_if_free(&record.name, |now| match now {
                // Somebody may have set another password meanwhile.
                Some(mut now) if now.stored.matches(record.stored.reveal()) => {
                    let kept = now.secret().filter(|_| !self.options.apop);
                    now.prove_by(proofs.verifier.as_ref(), proofs.secret.as_ref().or(kept.as_ref()));
                    Ok(now)
                }
                _ => Err(()),
            })
        });
        if let Err(fault) = made {
            self.log(&format!("{}: no verifier: {fault}", printable(&record.name)));
        }
    }

    pub(super) fn described(&self, record: &Record, verifier: Option<&Verifier>) -> Result<Vec<u8>, Trouble> {
        match describe(record, self.version, verifier) {
            Some(reply) if reply.len() <= super::REPLY_MOST => Ok(reply),
            _ => {
                let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "an entry cannot be sent as a reply");
                Err(Trouble::Fault(Fault::new("reading", &self.options.path.join("nwauth.txt"), source)))
            }
        }
    }
}

/// The field of a reply to `scram`.
pub(super) fn field(verifier: &Verifier, version: u8) -> Vec<u8> {
    word(format!("scram={}", verifier.text()).as_bytes(), version)
}
