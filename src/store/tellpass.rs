//! The password of remote administration: `tellpass.dat` in work_path, one line that cannot be turned back into it.
//!
//! ```text
//! pbkdf2-sha256 600000 SALT HASH          (both in base64)
//! ```
//!
//! It is replaced as a whole or stays as it was, whenever the power goes. It is for its owner alone, and belongs to whoever
//! has work_path, so that root can set it for a server that is not root.

use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};

use crate::sys::files::{How, effective_uid, open_at, open_dir, remove_at, rename_at};
use crate::text::fault::Fault;
use crate::text::secret::Secret;

/// The file, below work_path.
pub const NAME: &str = "tellpass.dat";
/// The file until it is whole.
const FRESH: &str = "tellpass.dat.new";
const FORM: &str = "pbkdf2-sha256";
/// What OWASP asks for (2023): a quarter of a second on a slow machine.
const ROUNDS: u32 = 600_000;
/// More is not ours: one check must not take minutes.
const ROUNDS_MOST: u32 = 10_000_000;
const HASH: usize = 32;
const SALT: usize = 16;
static ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA256;

/// Sets the password. When it fails, the one before is still there.
pub fn set(work_path: &Path, password: &Secret) -> Result<(), Fault> {
    let path = work_path.join(NAME);
    let fault = |doing| Fault::at(doing, &path);
    let mut salt = [0; SALT];
    let no_numbers = |_| io::Error::other("the system gives no random numbers");
    SystemRandom::new().fill(&mut salt).map_err(no_numbers).map_err(fault("writing"))?;
    let mut hash = [0; HASH];
    let rounds = NonZeroU32::new(ROUNDS).expect("it is not zero");
    pbkdf2::derive(ALGORITHM, rounds, &salt, password.reveal(), &mut hash);
    let line = format!("{FORM} {ROUNDS} {} {}\n", STANDARD.encode(salt), STANDARD.encode(hash));

    let dir = open_dir(work_path).map_err(Fault::at("opening", work_path))?;
    // Left behind by somebody who was interrupted.
    let _ = remove_at(&dir, Path::new(FRESH));
    let mut file = open_at(&dir, Path::new(FRESH), How::CreateNew).map_err(fault("making"))?;
    let written = own(&file, &dir)
        .and_then(|()| file.write_all(line.as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| rename_at(&dir, Path::new(FRESH), Path::new(NAME)))
        .and_then(|()| dir.sync_all());
    written.map_err(fault("writing"))
}

fn own(file: &File, dir: &File) -> io::Result<()> {
    let owner = dir.metadata()?;
    if owner.uid() == effective_uid() { Ok(()) } else { fchown(file, Some(owner.uid()), Some(owner.gid())) }
}

/// Whether this is the password. False when none was set.
pub fn check(work_path: &Path, password: &Secret) -> Result<bool, Fault> {
    let path = work_path.join(NAME);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        read => read.map_err(Fault::at("reading", &path))?,
    };
    let strange = || Fault::new("reading", &path, io::Error::other("not what `tellpop password` writes: set it anew"));
    let (rounds, salt, hash) = parts(&text).ok_or_else(strange)?;
    Ok(pbkdf2::verify(ALGORITHM, rounds, &salt, password.reveal(), &hash).is_ok())
}

fn parts(text: &str) -> Option<(NonZeroU32, Vec<u8>, Vec<u8>)> {
    let [FORM, rounds, salt, hash] = text.split_whitespace().collect::<Vec<_>>()[..] else { return None };
    let rounds = rounds.parse().ok().filter(|rounds: &NonZeroU32| rounds.get() <= ROUNDS_MOST)?;
    let hash = STANDARD.decode(hash).ok().filter(|hash| hash.len() == HASH)?;
    Some((rounds, STANDARD.decode(salt).ok()?, hash))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    #[test]
    fn a_password_is_known_again_and_cannot_be_read() {
        let work = tempfile::tempdir().unwrap();
        assert!(!check(work.path(), &secret("opensesame")).unwrap(), "none is set");
        set(work.path(), &secret("opensesame")).unwrap();
        let path = work.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&path).unwrap().contains("opensesame"));
        assert!(check(work.path(), &secret("opensesame")).unwrap());
        assert!(!check(work.path(), &secret("opensesam")).unwrap());
        // What somebody left behind who was interrupted, and a link that would lead elsewhere.
        std::os::unix::fs::symlink("/etc/passwd", work.path().join(FRESH)).unwrap();
        set(work.path(), &secret("other")).unwrap();
        assert!(!check(work.path(), &secret("opensesame")).unwrap());
        assert!(!work.path().join(FRESH).exists());
    }

    #[test]
    fn what_we_did_not_write_is_no_password() {
        let work = tempfile::tempdir().unwrap();
        let (salt, hash) = (STANDARD.encode([0; SALT]), STANDARD.encode([0; HASH]));
        for text in [
            String::new(),
            "secret\n".to_owned(),
            format!("{FORM} 0 {salt} {hash}\n"),
            format!("{FORM} 4000000000 {salt} {hash}\n"),
            format!("{FORM} 1 {salt} {}\n", STANDARD.encode([0; 3])),
            format!("{FORM} 1 ? {hash}\n"),
            format!("md5 1 {salt} {hash}\n"),
        ] {
            fs::write(work.path().join(NAME), &text).unwrap();
            let fault = check(work.path(), &secret("secret")).unwrap_err().to_string();
            assert!(fault.contains(NAME) && fault.contains("set it anew"), "{text:?}: {fault}");
        }
        let fault = set(&work.path().join("nowhere"), &secret("secret")).unwrap_err().to_string();
        assert!(fault.contains("nowhere"), "{fault}");
    }
}
