//! Users' forward files: `NAME.fwd` beside a drop, `.forward` in a home. Whoever can write one has a user's mail, so one is
//! believed only when nobody else can: a regular file with one name, through no link, the user's or root's, which group and
//! others may not write, in a home of which the same is true. Of a drop without an owner of its own it must be the server's.
//!
//! What is not so is ignored: the user has his mail himself, and the operator a line in the log. Nothing of such a file's
//! content is ever said.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::sys::files::{self, How, Stat};
use crate::sys::user;
use crate::text::fault::Fault;

/// Bytes of a forward file.
pub const FILE_BYTES: u64 = 64 * 1024;

/// What is found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// None.
    Nothing,
    /// Its text.
    File(String),
    /// One that is not believed, and why.
    Ignored(String),
}

/// Opens the forward file of that user, beside that drop or in his home.
pub type Hand<'a> = dyn Fn(u32, Option<&Path>) -> io::Result<File> + 'a;

/// Which forward file, and somebody to open it where our own rights do not suffice.
pub struct Wanted<'a> {
    /// The drop; `None`: the one in the home.
    pub drop: Option<&'a Path>,
    /// Whose it is; `None`: nobody's of his own.
    pub uid: Option<u32>,
    /// Who opens it for us: with the drop, or for the home.
    pub hand: Option<&'a Hand<'a>>,
}

/// `NAME.fwd` of a drop.
pub fn beside(drop: &Path) -> PathBuf {
    let mut name = drop.file_name().unwrap_or_default().to_owned();
    name.push(".fwd");
    drop.with_file_name(name)
}

/// Whether a drop is known to have none, without waiting for a disk.
pub fn is_known_absent(drop: &Path) -> bool {
    files::is_known_absent(&beside(drop))
}

/// Opens a user's `.forward` in his home, which is looked up. `None`: he has no home, or no such file there.
pub fn open_home(uid: u32) -> io::Result<Option<File>> {
    let Some((_, home)) = user::by_number(uid)? else { return Ok(None) };
    if !home.is_absolute() {
        return Ok(None);
    }
    let Some(dir) = there(files::open_dir(&home))? else { return Ok(None) };
    let seen = files::stat(&dir)?;
    if (seen.uid != uid && seen.uid != 0) || seen.mode & 0o022 != 0 {
        return Err(refused("the home can be written by others"));
    }
    there(files::open_at(&dir, Path::new(".forward"), How::Read))
}

/// Why a file that was opened is not believed.
pub fn judge(seen: &Stat, uid: Option<u32>) -> Result<(), &'static str> {
    let owner = uid.unwrap_or_else(files::effective_uid);
    match () {
        () if !seen.is_file() => Err("it is not a regular file"),
        () if seen.links != 1 => Err("it has other names"),
        () if seen.uid != owner && seen.uid != 0 => Err("it belongs to somebody else"),
        () if seen.mode & 0o022 != 0 => Err("others may write to it"),
        () if seen.size > FILE_BYTES => Err("it is too large"),
        () => Ok(()),
    }
}

/// Reads a forward file. Waits for the disk and for name services: only in a job.
pub fn read(wanted: &Wanted<'_>) -> Result<Found, Fault> {
    let path = wanted.drop.map_or_else(|| PathBuf::from(".forward"), beside);
    let opened = match wanted.drop {
        Some(drop) => open_beside(drop),
        None => wanted.uid.map_or(Ok(None), open_home),
    };
    let opened = match (opened, wanted.hand, wanted.uid) {
        (Err(error), Some(hand), Some(uid)) if error.kind() == io::ErrorKind::PermissionDenied => {
            there(hand(uid, wanted.drop))
        }
        (opened, ..) => opened,
    };
    let file = match opened {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(Found::Nothing),
        // A link, a socket; or somebody who may open it would not.
        Err(error) if is_unsafe(&error) => return Ok(Found::Ignored(format!("it cannot be used: {error}"))),
        Err(error) => return Err(Fault::new("opening", &path, error)),
    };
    let seen = files::stat(&file).map_err(Fault::at("looking at", &path))?;
    if let Err(why) = judge(&seen, wanted.uid) {
        return Ok(Found::Ignored(why.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut bytes).map_err(Fault::at("reading", &path))?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Found::File(text),
        Err(_) => Found::Ignored("it is not UTF-8".to_owned()),
    })
}

fn open_beside(drop: &Path) -> io::Result<Option<File>> {
    let (Some(folder), path) = (drop.parent(), beside(drop)) else { return Ok(None) };
    let Some(dir) = there(files::open_dir(folder))? else { return Ok(None) };
    there(files::open_at(&dir, Path::new(path.file_name().unwrap_or_default()), How::Read))
}

fn is_unsafe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied || files::is_no_file(error)
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned())
}

fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn written(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_forward_file_is_believed_only_when_nobody_else_can_have_written_it() {
        let folder = tempfile::tempdir().unwrap();
        let drop = folder.path().join("ann");
        let own = files::effective_uid();
        let read = |uid: Option<u32>| super::read(&Wanted { drop: Some(&drop), uid, hand: None }).unwrap();
        assert_eq!(read(Some(own)), Found::Nothing);
        let fwd = beside(&drop);
        assert_eq!(fwd, folder.path().join("ann.fwd"));
        for mode in [0o600, 0o644, 0o755] {
            written(&fwd, "bob\n", mode);
            assert_eq!(read(Some(own)), Found::File("bob\n".to_owned()), "{mode:o}");
            assert_eq!(read(None), Found::File("bob\n".to_owned()), "the server's own");
        }
        for mode in [0o620, 0o602, 0o666] {
            written(&fwd, "bob\n", mode);
            assert_eq!(read(Some(own)), Found::Ignored("others may write to it".to_owned()), "{mode:o}");
        }
        written(&fwd, "bob\n", 0o600);
        if own != 0 {
            assert_eq!(read(Some(own + 1)), Found::Ignored("it belongs to somebody else".to_owned()));
        }
        fs::hard_link(&fwd, folder.path().join("other")).unwrap();
        assert_eq!(read(Some(own)), Found::Ignored("it has other names".to_owned()));
        fs::remove_file(folder.path().join("other")).unwrap();
        written(&fwd, &"x".repeat(FILE_BYTES as usize + 1), 0o600);
        assert_eq!(read(Some(own)), Found::Ignored("it is too large".to_owned()));
        fs::write(&fwd, b"\xff").unwrap();
        assert_eq!(read(Some(own)), Found::Ignored("it is not UTF-8".to_owned()));
        fs::remove_file(&fwd).unwrap();
        symlink("/etc/passwd", &fwd).unwrap();
        assert!(matches!(read(Some(own)), Found::Ignored(_)));
        fs::remove_file(&fwd).unwrap();
        fs::create_dir(&fwd).unwrap();
        assert!(matches!(read(Some(own)), Found::Ignored(_)));
        fs::remove_dir(&fwd).unwrap();
        let _socket = UnixListener::bind(&fwd).unwrap();
        assert!(matches!(read(Some(own)), Found::Ignored(_)));
        fs::remove_file(&fwd).unwrap();
        rustix_fifo(&fwd);
        assert!(matches!(read(Some(own)), Found::Ignored(_)), "nobody is waited for");
    }

    fn rustix_fifo(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    #[test]
    fn what_we_may_not_read_is_asked_of_who_may() {
        let folder = tempfile::tempdir().unwrap();
        let drop = folder.path().join("ann");
        written(&folder.path().join("real"), "bob\n", 0o600);
        symlink("nowhere", beside(&drop)).unwrap();
        let asked = std::cell::Cell::new(0);
        let hand = |uid: u32, path: Option<&Path>| {
            asked.set(asked.get() + 1);
            assert_eq!((uid, path), (files::effective_uid(), Some(&*drop)));
            File::open(folder.path().join("real"))
        };
        let wanted = Wanted { drop: Some(&drop), uid: Some(files::effective_uid()), hand: Some(&hand) };
        assert!(matches!(read(&wanted).unwrap(), Found::Ignored(_)), "a link is not for him either");
        assert_eq!(asked.get(), 0);
    }

    #[test]
    fn a_user_who_is_none_has_no_home() {
        assert!(open_home(4_000_000_001).unwrap().is_none());
    }
}
