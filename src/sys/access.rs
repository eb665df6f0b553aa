//! What this process may do with a file, as the kernel would judge: owner, groups, access lists, read-only mounts and all.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::user::User;

/// Whether this process is root's.
pub fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// What one may want to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To read it, or to list a directory.
    Read,
    /// To write to it, or to make files in a directory.
    Write,
    /// To run it, or to pass through a directory.
    Execute,
}

impl Right {
    fn mode(self) -> libc::c_int {
        match self {
            Right::Read => libc::R_OK,
            Right::Write => libc::W_OK,
            Right::Execute => libc::X_OK,
        }
    }
}

/// Fails with the reason when this process has not that right.
pub fn may(path: &Path, right: Right) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a C string that lives to the end of the call.
    match unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), right.mode(), libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Fails with the reason when `user`, whom root can become, has not that right. A process is made for it.
pub fn granted(user: &User, path: &Path, right: Right) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the child makes system calls only and ends without coming back; `path` is a C string that both have.
    let status = unsafe {
        let pid = libc::fork();
        if pid == 0 {
            let denied = match user.step_down() {
                Ok(()) => libc::faccessat(libc::AT_FDCWD, path.as_ptr(), right.mode(), libc::AT_EACCESS) < 0,
                Err(_) => true,
            };
            libc::_exit(if denied { *libc::__errno_location() } else { 0 });
        }
        let mut status = 0;
        if pid < 0 || libc::waitpid(pid, &mut status, 0) != pid {
            return Err(io::Error::last_os_error());
        }
        status
    };
    match libc::WEXITSTATUS(status) {
        0 if libc::WIFEXITED(status) => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn access_follows_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(may(&file, Right::Read).is_ok() && may(&file, Right::Write).is_ok());
        assert_eq!(may(&file, Right::Execute).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o100)).unwrap();
        assert!(may(&file, Right::Execute).is_ok());
        assert_eq!(may(&file, Right::Read).is_ok(), is_root());
        assert_eq!(may(&dir.path().join("absent"), Right::Write).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(may(Path::new("a\0b"), Right::Read).is_err());
    }

    #[test]
    fn root_sees_what_another_user_may_do() {
        if !is_root() {
            eprintln!("skipped: only root can become another user");
            return;
        }
        let nobody = User { name: "nobody".into(), uid: 65_534, gid: 65_534, groups: vec![65_534] };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(granted(&nobody, &file, Right::Read).is_ok() && granted(&nobody, dir.path(), Right::Execute).is_ok());
        for (path, right) in [(&file, Right::Write), (&file, Right::Execute), (&dir.path().to_owned(), Right::Read)] {
            assert_eq!(granted(&nobody, path, right).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        assert_eq!(granted(&nobody, &dir.path().join("x"), Right::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
