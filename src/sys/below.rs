//! Directories that are reached from one that is held: never above it, and through no link (openat2(2)).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The directory `path` below `root`; `root` itself for an empty one. Refuses a path with a link in it, and one that leaves
/// `root` by `..` or from its beginning.
pub fn open_dir_below(root: &File, path: &Path) -> io::Result<File> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: an open_how of zeroes is valid: no flags, no mode, nothing forbidden.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: `path` is a C string and `how` a struct of the size that is named; both live until after the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<libc::open_how>())
    };
    match libc::c_int::try_from(fd) {
        // SAFETY: `fd` was just opened by us and nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { File::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sys::files::{open_dir, stat};

    #[test]
    fn nothing_above_and_nothing_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root");
        fs::create_dir_all(path.join("a/b")).unwrap();
        symlink("a", path.join("link")).unwrap();
        symlink("/etc", path.join("a/out")).unwrap();
        let root = open_dir(&path).unwrap();
        let inode = |file: &File| stat(file).unwrap().inode;
        let found = open_dir_below(&root, Path::new("a/b")).unwrap();
        assert_eq!(inode(&found), inode(&open_dir(&path.join("a/b")).unwrap()));
        assert_eq!(inode(&open_dir_below(&root, Path::new("")).unwrap()), inode(&root));
        for path in ["link", "link/b", "a/out", "..", "../root/a", "a/../../root", "/etc", "none", "a\0b"] {
            assert!(open_dir_below(&root, Path::new(path)).is_err(), "{path:?}");
        }
    }
}
