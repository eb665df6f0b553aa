//! What a user can prove a password by without sending it: in the fifth and sixth field of a line.
//!
//! | field | what it holds                                                                                              |
//! |-------|------------------------------------------------------------------------------------------------------------|
//! | fifth | `scram=MARK,ITERATIONS,SALT,STOREDKEY,SERVERKEY`: a SCRAM-SHA-256 verifier, in base64 but for the number   |
//! | sixth | `apop=MARK,PASSWORD`: the password, in base64, which is no protection; only where APOP is wanted           |
//!
//! MARK is twelve characters of a hash of the password field. A verifier whose mark does not fit is of an older password:
//! whoever edits the second field by hand, or copies another hash there, has changed the password for every way in. Anything
//! else in these fields is somebody else's, and stays.
//!
//! `nwauth.key`, 64 hexadecimal digits, is what salts and the verifiers of users who are not there are made of. Without it, or
//! with another one, those change, and then names can be told from no names by watching; nothing else depends on it. Machines
//! that share a user file share it.

use std::io::{self, Read, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};

use super::{Form, Record, Users, fs, judge, open, remove_left_over};
use crate::protocol::sasl::scram::Verifier;
use crate::text::fault::Fault;
use crate::text::secret::Secret;

/// How long the making of the key waits for another writer: a server that asks for the version waits two seconds.
const KEY_WAIT: Duration = Duration::from_secs(1);
/// Bytes of the key.
const KEY: usize = 32;
/// Bytes of a salt.
const SALT: usize = 16;
/// Bytes of a mark.
const MARK: usize = 9;
const SCRAM: &[u8] = b"scram=";
const APOP: &[u8] = b"apop=";

impl Record {
    /// What a proof of the password is judged by. `None` when there is nothing, when it is of another password, or when the
    /// account is locked.
    pub fn verifier(&self) -> Option<Verifier> {
        judge(self.stored.reveal()).ok()?;
        Verifier::parse(self.marked(&self.reserved[0], SCRAM)?)
    }

    /// The password itself, where it is kept. `None` when it is not, when it is another one, or when the account is locked.
    pub fn secret(&self) -> Option<Secret> {
        match judge(self.stored.reveal()).ok()? {
            Form::Plain(clear) => Some(Secret::from(clear)),
            Form::Hash(_) => BASE64.decode(self.marked(&self.reserved[1], APOP)?).ok().map(Secret::new),
        }
    }

    /// Whether [`prove_by`](Record::prove_by) has room for a verifier, and for the password.
    pub fn has_room(&self) -> (bool, bool) {
        let is_ours = |field: &[u8], name| field.is_empty() || field.starts_with(name);
        (is_ours(&self.reserved[0], SCRAM), is_ours(&self.reserved[1], APOP))
    }

    /// Takes these, and nothing else any more, as the proofs of the password whose hash it has. Fields that are somebody
    /// else's stay as they are.
    pub fn prove_by(&mut self, verifier: Option<&Verifier>, secret: Option<&Secret>) {
        let mark = mark(&self.stored);
        let field = |name: &[u8], text: String| [name, mark.as_bytes(), b",", text.as_bytes()].concat();
        let (scram, apop) = self.has_room();
        if scram {
            self.reserved[0] = verifier.map(|verifier| field(SCRAM, verifier.text())).unwrap_or_default();
        }
        if apop {
            self.reserved[1] = secret.map(|secret| field(APOP, BASE64.encode(secret.reveal()))).unwrap_or_default();
        }
    }

    fn marked<'f>(&self, field: &'f [u8], name: &[u8]) -> Option<&'f [u8]> {
        let rest = field.strip_prefix(name)?.strip_prefix(mark(&self.stored).as_bytes())?;
        rest.strip_prefix(b",")
    }
}

fn mark(stored: &Secret) -> String {
    BASE64.encode(&digest::digest(&digest::SHA256, stored.reveal()).as_ref()[..MARK])
}

/// The content of `nwauth.key`, and what follows from it.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// The salt of a user, who may be there or not: so that a salt says nothing about it.
    pub fn salt(&self, name: &[u8]) -> [u8; SALT] {
        let mut salt = [0; SALT];
        salt.copy_from_slice(&self.made(b"salt", name)[..SALT]);
        salt
    }

    /// The verifier that stands in for a user who is not there.
    pub fn nobody(&self, name: &[u8], iterations: u32) -> Verifier {
        Verifier::of_nobody(&self.salt(name), iterations, &self.made(b"stored", name), &self.made(b"server", name))
    }

    fn made(&self, what: &[u8], name: &[u8]) -> [u8; KEY] {
        let tag = hmac::sign(&self.0, &[what, b":", &name.to_ascii_lowercase()[..]].concat());
        tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }
}

impl Users {
    /// The key in `nwauth.key`. It is made when it is not there, if that is wanted.
    pub fn key(&self, make: bool) -> Result<Option<Key>, Fault> {
        if let Some(key) = self.read_key()? {
            return Ok(Some(key));
        }
        if !make {
            return Ok(None);
        }
        let _lock = self.lock_within(KEY_WAIT)?;
        // Somebody else may have been quicker.
        if let Some(key) = self.read_key()? {
            return Ok(Some(key));
        }
        let (path, made) = (self.dir.join("nwauth.key"), self.dir.join("nwauth.key.new"));
        let mut bytes = [0; KEY];
        let random = SystemRandom::new().fill(&mut bytes);
        random.map_err(|_| Fault::new("making", &path, io::Error::other("the system gives no random numbers")))?;
        let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push('\n');
        remove_left_over(&made)?;
        let mut file = self.create("nwauth.key.new")?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Fault::at("writing", &made))?;
        fs::rename(&made, &path).map_err(Fault::at("renaming", &made))?;
        self.sync_dir()?;
        Ok(Some(Key(hmac::Key::new(hmac::HMAC_SHA256, &bytes))))
    }

    fn read_key(&self) -> Result<Option<Key>, Fault> {
        let path = self.dir.join("nwauth.key");
        let file = match open(&path, fs::OpenOptions::new().read(true)) {
            Err(fault) if fault.source.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut text = String::new();
        file.take(2 * KEY as u64 + 2).read_to_string(&mut text).map_err(Fault::at("reading", &path))?;
        match bytes_of(text.trim_ascii_end()) {
            Some(bytes) => Ok(Some(Key(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))),
            None => {
                let why = io::Error::new(io::ErrorKind::InvalidData, "not 64 hexadecimal digits; remove it");
                Err(Fault::new("reading", &path, why))
            }
        }
    }
}

fn bytes_of(digits: &str) -> Option<[u8; KEY]> {
    let mut bytes = [0; KEY];
    if digits.len() != 2 * KEY || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &[u8] = b"$1$rasmusle$rISCgZzpwk3UhDidwXvin0";

    fn secret(text: &[u8]) -> Secret {
        Secret::from(text)
    }

    #[test]
    fn proofs_survive_their_line_and_end_with_the_password() {
        let verifier = Verifier::of(&secret(b"x"), b"salt", 4096);
        let mut record = Record { name: b"ann".to_vec(), stored: secret(HASH), ..Record::default() };
        assert!(record.verifier().is_none() && record.secret().is_none());
        record.prove_by(Some(&verifier), Some(&secret(b"pa:ss\n")));
        let again = Record::parse(&record.line());
        assert_eq!((again.verifier(), again.secret()), (Some(verifier.clone()), Some(secret(b"pa:ss\n"))));
        for stored in [&b"$1$rasmusle$rISCgZzpwk3UhDidwXvin1"[..], b"*", b"", b"!$1$rasmusle$rISCgZzpwk3UhDidwXvin0"] {
            let edited = Record { stored: secret(stored), ..again.clone() };
            assert!(edited.verifier().is_none() && edited.secret().is_none(), "{}", stored.escape_ascii());
        }
        record.prove_by(None, None);
        assert_eq!(record.reserved, [b"".to_vec(), b"".to_vec()]);
        let clear = Record { stored: secret(b"{PLAIN}x"), ..Record::default() };
        assert_eq!(clear.secret(), Some(secret(b"x")));
    }

    #[test]
    fn what_others_keep_there_stays_and_proves_nothing() {
        let others = [b"theirs".to_vec(), b"1".to_vec()];
        let mut record = Record { stored: secret(HASH), reserved: others.clone(), ..Record::default() };
        assert_eq!(record.has_room(), (false, false));
        record.prove_by(Some(&Verifier::of(&secret(b"x"), b"salt", 4096)), Some(&secret(b"x")));
        assert_eq!(record.reserved, others);
        assert!(record.verifier().is_none() && record.secret().is_none());
        for field in ["scram=", "scram=x", "scram=AAAAAAAAAAAA,", "scram=AAAAAAAAAAAA,4096,AAAA,AAAA,AAAA"] {
            record.reserved[0] = field.into();
            assert!(record.verifier().is_none(), "{field}");
        }
    }

    #[test]
    fn the_key_is_made_once_kept_to_its_owner_and_the_same_for_all() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let users = Users::new(dir.path());
        let path = dir.path().join("nwauth.key");
        assert!(users.key(false).unwrap().is_none() && !path.exists());
        let made = users.key(true).unwrap().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Users::new(dir.path()).key(false).unwrap().unwrap();
        assert_eq!(made.salt(b"Ann"), again.salt(b"ann"));
        assert_eq!(made.nobody(b"ann", 4096), again.nobody(b"ANN", 4096));
        assert_ne!(made.salt(b"ann"), made.salt(b"bob"));
        for bad in ["", "zz", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            fs::write(&path, bad).unwrap();
            let fault = users.key(true).err().expect("no key");
            assert!(fault.to_string().contains("remove it"), "{fault}");
        }
    }
}
