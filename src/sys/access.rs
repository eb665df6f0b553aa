//! What this process may do with a file, as the kernel would judge: owner, groups, access lists, read-only mounts and all.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Fails when `path` cannot be read, with the reason.
pub fn read(path: &Path) -> io::Result<()> {
    access(path, libc::R_OK)
}

/// Fails when `path` cannot be written, with the reason.
pub fn write(path: &Path) -> io::Result<()> {
    access(path, libc::W_OK)
}

/// Fails when `path` cannot be executed, or as a directory not be entered, with the reason.
pub fn execute(path: &Path) -> io::Result<()> {
    access(path, libc::X_OK)
}

/// Whether this process is root's.
pub fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn access(path: &Path, mode: libc::c_int) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a C string that lives to the end of the call.
    match unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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
        assert!(read(&file).is_ok() && write(&file).is_ok());
        assert_eq!(execute(&file).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o100)).unwrap();
        assert!(execute(&file).is_ok());
        assert_eq!(read(&file).is_ok(), is_root());
        assert_eq!(write(&dir.path().join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(read(Path::new("a\0b")).is_err());
    }
}
