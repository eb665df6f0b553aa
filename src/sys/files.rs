//! Files below a directory handle: what `std::fs` cannot say (no-follow opens, reads that would rather fail than wait,
//! locks that belong to the open file).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What the system knows about a file. Times are nanoseconds since 1970, the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stat {
    /// The device the file is on.
    pub dev: u64,
    /// Its number there.
    pub inode: u64,
    /// In bytes.
    pub size: u64,
    /// Of the last change of content.
    pub mtime: i64,
    /// Of the last change of anything.
    pub ctime: i64,
    /// Of the last reading, as far as the mount keeps it.
    pub atime: i64,
    /// Names the file has.
    pub links: u32,
    /// Who owns it.
    pub uid: u32,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
}

impl Stat {
    /// Whether it is a regular file: no link, pipe, device, directory or socket.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// For what a file is opened, and whether it may or must be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// To read a file that is there.
    Read,
    /// To read and write a file that is there.
    Write,
    /// To read and write; made with mode 0600 when it is not there.
    Create,
    /// To read and write a file that was not there before.
    CreateNew,
}

/// A name as the system wants it; refuses names with a NUL.
fn c_name(name: &Path) -> io::Result<CString> {
    CString::new(name.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn openat(dir: RawFd, name: &Path, flags: libc::c_int, mode: libc::c_uint) -> io::Result<File> {
    let name = c_name(name)?;
    // SAFETY: `name` is a C string that lives until after the call; `dir` is an open descriptor or AT_FDCWD.
    let fd = check(unsafe { libc::openat(dir, name.as_ptr(), flags | libc::O_CLOEXEC, mode) })?;
    // SAFETY: `fd` was just opened by us and nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// How we open what is ours: through no link, and waiting for nobody at the other end of a pipe.
const OURS: libc::c_int = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

/// The handle of the directory `path`; links on the way are followed. One that we may not list, only pass through, serves for
/// everything but being synced.
pub fn open_dir(path: &Path) -> io::Result<File> {
    match openat(libc::AT_FDCWD, path, libc::O_RDONLY | libc::O_DIRECTORY, 0) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            openat(libc::AT_FDCWD, path, libc::O_PATH | libc::O_DIRECTORY, 0)
        }
        opened => opened,
    }
}

/// Whether something was not opened because it is a link, or a socket, or the like.
pub fn is_no_file(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::ENOTDIR | libc::EISDIR))
}

/// What the system says where nothing has the name.
pub fn absent() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

/// What the system says where a name is taken.
pub fn taken() -> io::Error {
    io::Error::from_raw_os_error(libc::EEXIST)
}

/// Whether opening failed because of what had the name: a link, a directory, a socket.
pub fn was_no_file(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::IsADirectory || matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO))
}

/// How a file is opened to be read: with our own rights, or with somebody's help.
pub type Opener<'a> = dyn Fn(&Path) -> io::Result<File> + 'a;

/// Opens `path` to read it; links on the way are followed, nobody is waited for. Whoever needs a regular file looks.
pub fn open_to_read(path: &Path) -> io::Result<File> {
    openat(libc::AT_FDCWD, path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0)
}

/// Opens `name` below `dir`. Follows no link, waits for nobody at the other end of a pipe.
pub fn open_at(dir: &File, name: &Path, how: How) -> io::Result<File> {
    let flags = match how {
        How::Read => libc::O_RDONLY,
        How::Write => libc::O_RDWR,
        How::Create => libc::O_RDWR | libc::O_CREAT,
        How::CreateNew => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
    };
    openat(dir.as_raw_fd(), name, flags | OURS, 0o600)
}

/// Opens `name` below `dir` to append to it, in the same way; made with mode 0640, less what the umask takes, when it is not
/// there. Whoever calls looks whether it is a regular file.
pub fn append_at(dir: &File, name: &Path) -> io::Result<File> {
    openat(dir.as_raw_fd(), name, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | OURS, 0o640)
}

/// A new file without a name on the volume of `dir`: it goes with its last handle. Where the file system knows no such files
/// it has the name `spare` in `dir` for a moment; what was killed in it leaves that behind.
pub fn nameless_at(dir: &File, spare: &Path) -> io::Result<File> {
    match openat(dir.as_raw_fd(), Path::new("."), libc::O_RDWR | libc::O_TMPFILE, 0o600) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) => {
            let file = open_at(dir, spare, How::CreateNew)?;
            remove_at(dir, spare)?;
            Ok(file)
        }
        opened => opened,
    }
}

fn statx(fd: RawFd, name: &Path, flags: libc::c_int) -> io::Result<Stat> {
    let name = c_name(name)?;
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = flags | libc::AT_STATX_DONT_SYNC;
    // SAFETY: `name` is a C string that lives until after the call, `found` has room for one statx, `fd` is open.
    check(unsafe { libc::statx(fd, name.as_ptr(), flags, libc::STATX_BASIC_STATS, found.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, and every bit pattern of this struct of integers is valid (it was zeroed).
    let found = unsafe { found.assume_init() };
    let nanos =
        |time: libc::statx_timestamp| time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec));
    Ok(Stat {
        dev: u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor),
        inode: found.stx_ino,
        size: found.stx_size,
        mtime: nanos(found.stx_mtime),
        ctime: nanos(found.stx_ctime),
        atime: nanos(found.stx_atime),
        links: found.stx_nlink,
        uid: found.stx_uid,
        mode: u32::from(found.stx_mode),
    })
}

/// What an open file is, from memory: no file server is asked.
pub fn stat(file: &File) -> io::Result<Stat> {
    statx(file.as_raw_fd(), Path::new(""), libc::AT_EMPTY_PATH)
}

/// What `name` below `dir` is; a link is itself.
pub fn stat_at(dir: &File, name: &Path) -> io::Result<Stat> {
    statx(dir.as_raw_fd(), name, libc::AT_SYMLINK_NOFOLLOW)
}

/// Reads from `offset` what is in memory, at least one byte unless the file ends there. `WouldBlock` when the disk would
/// have to be asked, or the file system cannot tell.
pub fn read_now(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let offset = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `vector` describes `buffer`, which is ours to write to and outlives the call.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &vector, 1, offset, libc::RWF_NOWAIT) };
    if read >= 0 {
        return Ok(read as usize);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINTR) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Err(error),
    }
}

/// Whether it is known, without waiting for a disk, that there is no `path`. False: there is one, or nobody can tell at once.
pub fn is_known_absent(path: &Path) -> bool {
    let Ok(path) = c_name(path) else { return false };
    // SAFETY: all zeros is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_CACHED;
    // SAFETY: `path` ends with NUL and `how` is of the size that is given; both outlive the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), &raw const how, size_of::<libc::open_how>())
    };
    if fd < 0 {
        return io::Error::last_os_error().kind() == io::ErrorKind::NotFound;
    }
    // SAFETY: the call has just opened it, and nobody else has it.
    drop(unsafe { File::from_raw_fd(fd as RawFd) });
    false
}

/// Begins to write out what the file has in memory, and waits for nothing. It promises nothing: only a sync does.
pub fn begin_writing(file: &File) {
    // SAFETY: takes an open descriptor and numbers. What fails here is heard from the sync.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Writes some of `bytes` where the file ends at that moment, whoever else may be writing, and says where that was and how much.
pub fn append(file: &File, bytes: &[u8]) -> io::Result<(u64, usize)> {
    let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: `vector` describes `bytes`, which outlive the call and are only read. Offset -1 is the file's own position, which
    // the call leaves behind what it wrote.
    let written = unsafe { libc::pwritev2(file.as_raw_fd(), &vector, 1, -1, libc::RWF_APPEND) };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes an open descriptor and numbers.
    let end = unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) };
    if end < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((end.cast_unsigned().saturating_sub(written.cast_unsigned() as u64), written.cast_unsigned()))
}

/// Gives an open file to `uid`, if one is named, and to the group of `dir`.
pub fn give(file: &File, uid: Option<u32>, dir: &File) -> io::Result<()> {
    let group = std::os::unix::fs::MetadataExt::gid(&dir.metadata()?);
    match std::os::unix::fs::fchown(file, uid, Some(group)) {
        // Whoever is not in that group, nor root, leaves it as the system made it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => std::os::unix::fs::fchown(file, uid, None),
        result => result,
    }
}

/// Gives `from` below `dir` the name `to`, in place of whatever had it.
pub fn rename_at(dir: &File, from: &Path, to: &Path) -> io::Result<()> {
    let (from, to, dir) = (c_name(from)?, c_name(to)?, dir.as_raw_fd());
    // SAFETY: both names are C strings that live until after the call.
    check(unsafe { libc::renameat(dir, from.as_ptr(), dir, to.as_ptr()) }).map(drop)
}

/// Moves `from` below `from_dir` to `to` below `to_dir`, on the same volume; `AlreadyExists` when something has that name. A file
/// system that cannot promise it looks first.
pub fn carry_at(from_dir: &File, from: &Path, to_dir: &File, to: &Path) -> io::Result<()> {
    let (old, new) = (c_name(from)?, c_name(to)?);
    let (old_dir, new_dir) = (from_dir.as_raw_fd(), to_dir.as_raw_fd());
    // SAFETY: renameat2 takes two pairs of a descriptor, open here, and a C string that lives until after the call, and flags.
    let done = unsafe {
        libc::syscall(libc::SYS_renameat2, old_dir, old.as_ptr(), new_dir, new.as_ptr(), libc::RENAME_NOREPLACE)
    };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) {
        return Err(error);
    }
    match stat_at(to_dir, to) {
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // SAFETY: both names are C strings that live until after the call, both descriptors are open.
    check(unsafe { libc::renameat(old_dir, old.as_ptr(), new_dir, new.as_ptr()) }).map(drop)
}

/// Moves `name` from below one directory to below another, in place of whatever has that name there.
pub fn move_at(from: &File, name: &Path, to: &File) -> io::Result<()> {
    let name = c_name(name)?;
    // SAFETY: the name is a C string that lives until after the call; both descriptors are open.
    check(unsafe { libc::renameat(from.as_raw_fd(), name.as_ptr(), to.as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// What others than root can still write to the file system that `file` is on, in bytes.
pub fn free_bytes(file: &File) -> io::Result<u64> {
    let found = file_system(file)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// How many files others than root can still make there; `None` where the file system has no bound of its own.
pub fn free_inodes(file: &File) -> io::Result<Option<u64>> {
    let found = file_system(file)?;
    Ok((found.f_files > 0).then_some(found.f_favail))
}

fn file_system(file: &File) -> io::Result<libc::statvfs> {
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the descriptor is open, `found` has room for one statvfs.
    check(unsafe { libc::fstatvfs(file.as_raw_fd(), found.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, and every bit pattern of this struct of integers is valid (it was zeroed).
    Ok(unsafe { found.assume_init() })
}

/// Waits until everything that was written to the file system that `file` is on has reached the disk.
pub fn sync_file_system(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    check(unsafe { libc::syncfs(file.as_raw_fd()) }).map(drop)
}

/// Gives `from` below `dir` the second name `to`; `AlreadyExists` when something has it.
pub fn link_at(dir: &File, from: &Path, to: &Path) -> io::Result<()> {
    link_across(dir, from, dir, to)
}

/// Gives `from` below `from_dir` the second name `to` below `to_dir`, on the same volume; `AlreadyExists` when something has it.
pub fn link_across(from_dir: &File, from: &Path, to_dir: &File, to: &Path) -> io::Result<()> {
    let (from, to, from_dir, to_dir) = (c_name(from)?, c_name(to)?, from_dir.as_raw_fd(), to_dir.as_raw_fd());
    // SAFETY: both names are C strings that live until after the call; both descriptors are open.
    check(unsafe { libc::linkat(from_dir, from.as_ptr(), to_dir, to.as_ptr(), 0) }).map(drop)
}

/// Takes the name `name` below `dir` away.
pub fn remove_at(dir: &File, name: &Path) -> io::Result<()> {
    let name = c_name(name)?;
    // SAFETY: `name` is a C string that lives until after the call.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
}

fn ofd_lock(file: &File, kind: libc::c_int) -> io::Result<bool> {
    // SAFETY: a flock struct of zeroes is valid; l_pid must be 0 for this kind of lock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: `lock` is a valid flock struct that outlives the call.
    match check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) }) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tries for the whole file's `fcntl` write lock, owned by the open file, not by the process: it excludes other
/// programs' `fcntl` locks and our own other opens, and ends with the last descriptor. Whether it was had.
pub fn try_lock_ofd(file: &File) -> io::Result<bool> {
    ofd_lock(file, libc::F_WRLCK)
}

/// Gives that lock up.
pub fn unlock_ofd(file: &File) -> io::Result<()> {
    ofd_lock(file, libc::F_UNLCK).map(drop)
}

/// Who we are, to the file system.
pub fn effective_uid() -> u32 {
    // SAFETY: takes nothing, always succeeds.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn files_are_made_seen_renamed_linked_and_removed_below_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open_dir(folder.path()).unwrap();
        assert!(stat(&dir).unwrap().is_dir());
        let file = open_at(&dir, Path::new("a"), How::CreateNew).unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        let seen = stat(&file).unwrap();
        assert_eq!((seen.size, seen.links, seen.mode & 0o7777, seen.uid), (5, 1, 0o600, effective_uid()));
        assert!(seen.is_file() && seen.mtime > 0 && seen.ctime >= seen.mtime);
        assert_eq!(open_at(&dir, Path::new("a"), How::CreateNew).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        link_at(&dir, Path::new("a"), Path::new("b")).unwrap();
        assert_eq!(stat_at(&dir, Path::new("b")).unwrap().links, 2);
        assert_eq!(link_at(&dir, Path::new("a"), Path::new("b")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        remove_at(&dir, Path::new("a")).unwrap();
        rename_at(&dir, Path::new("b"), Path::new("c")).unwrap();
        assert_eq!(stat_at(&dir, Path::new("c")).unwrap().inode, seen.inode);
        assert_eq!(open_at(&dir, Path::new("a"), How::Write).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(open_at(&dir, Path::new("c"), How::Read).unwrap().write_all_at(b"x", 0).is_err());
        assert!(open_at(&dir, Path::new("a\0b"), How::Read).is_err());
        std::fs::create_dir(folder.path().join("below")).unwrap();
        std::os::unix::fs::symlink("c", folder.path().join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        for (name, is_none) in [("below", true), ("link", true), ("socket", true), ("a", false)] {
            assert_eq!(was_no_file(&open_at(&dir, Path::new(name), How::Write).unwrap_err()), is_none, "{name}");
        }
        let below = open_dir(&folder.path().join("below")).unwrap();
        move_at(&dir, Path::new("c"), &below).unwrap();
        assert_eq!(stat_at(&below, Path::new("c")).unwrap().inode, seen.inode);
        assert_eq!(move_at(&dir, Path::new("c"), &below).unwrap_err().kind(), io::ErrorKind::NotFound);
        link_across(&below, Path::new("c"), &dir, Path::new("d")).unwrap();
        assert_eq!(stat_at(&dir, Path::new("d")).unwrap().inode, seen.inode);
        let again = link_across(&below, Path::new("c"), &dir, Path::new("d")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert!(free_bytes(&dir).unwrap() > 0, "tests need a disk that is not full");
        for text in [b"one\n", b"two\n"] {
            io::Write::write_all(&mut append_at(&dir, Path::new("lines")).unwrap(), text).unwrap();
        }
        assert_eq!(std::fs::read(folder.path().join("lines")).unwrap(), b"one\ntwo\n");
        assert_eq!(stat_at(&dir, Path::new("lines")).unwrap().mode & 0o137, 0);
    }

    #[test]
    fn what_is_known_to_be_absent_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ann.fwd");
        // Somebody looked: from now on the system remembers, on a disk of this machine.
        assert!(!path.exists());
        let known = is_known_absent(&path);
        File::create(&path).unwrap();
        assert!(!is_known_absent(&path), "it is there");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(!is_known_absent(&path), "a link is something");
        std::fs::remove_file(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(is_known_absent(&path), known);
        assert!(!is_known_absent(&folder.path().join("never looked for")), "asking has not waited for the answer");
    }

    #[test]
    fn a_file_is_carried_to_another_directory_and_over_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            open_dir(&folder.path().join(name)).unwrap()
        });
        let (a, b) = (Path::new("a"), Path::new("b"));
        let inode = stat(&open_at(&one, a, How::CreateNew).unwrap()).unwrap().inode;
        open_at(&two, a, How::CreateNew).unwrap();
        assert_eq!(carry_at(&one, a, &two, a).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        carry_at(&one, a, &two, b).unwrap();
        assert_eq!(stat_at(&two, b).unwrap().inode, inode);
        assert_eq!(carry_at(&one, a, &two, Path::new("c")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_system_says_what_it_has_room_for_and_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open_dir(folder.path()).unwrap();
        assert!(free_bytes(&dir).unwrap() > 0);
        assert_ne!(free_inodes(&dir).unwrap(), Some(0));
        sync_file_system(&dir).unwrap();
    }

    #[test]
    fn bytes_are_appended_where_the_file_ends_and_files_given_to_the_directorys_group() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open_dir(folder.path()).unwrap();
        let one = open_at(&dir, Path::new("a"), How::CreateNew).unwrap();
        let two = open_at(&dir, Path::new("a"), How::Write).unwrap();
        assert_eq!(append(&one, b"hello").unwrap(), (0, 5));
        assert_eq!(append(&two, b", you").unwrap(), (5, 5));
        assert_eq!(append(&one, b"!").unwrap(), (10, 1));
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"hello, you!");
        assert!(append(&open_at(&dir, Path::new("a"), How::Read).unwrap(), b"x").is_err());
        give(&one, Some(effective_uid()), &dir).unwrap();
        assert_eq!(stat(&one).unwrap().uid, effective_uid());
    }

    #[test]
    fn links_are_not_followed_and_pipes_do_not_wait() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open_dir(folder.path()).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        assert!(open_at(&dir, Path::new("link"), How::Read).is_err());
        assert!(open_at(&dir, Path::new("link"), How::Create).is_err());
        assert!(append_at(&dir, Path::new("link")).is_err());
        assert!(!stat_at(&dir, Path::new("link")).unwrap().is_file());
    }

    #[test]
    fn a_lock_of_the_open_file_excludes_other_opens_and_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open_dir(folder.path()).unwrap();
        let one = open_at(&dir, Path::new("a"), How::Create).unwrap();
        let two = open_at(&dir, Path::new("a"), How::Create).unwrap();
        assert!(try_lock_ofd(&one).unwrap() && try_lock_ofd(&one).unwrap());
        assert!(!try_lock_ofd(&two).unwrap());
        unlock_ofd(&one).unwrap();
        assert!(try_lock_ofd(&two).unwrap());
        drop(two);
        assert!(try_lock_ofd(&one).unwrap());
    }

    #[test]
    fn a_read_that_may_not_wait_gives_what_is_in_memory_or_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open_dir(folder.path()).unwrap();
        let file = open_at(&dir, Path::new("a"), How::Create).unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        let mut buffer = [0; 8];
        match read_now(&file, &mut buffer, 1) {
            Ok(read) => assert_eq!(&buffer[..read], b"ello"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert!(read_now(&file, &mut buffer, u64::MAX).is_err());
    }
}
