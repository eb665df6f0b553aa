//! Users of the system: who they are, what their passwords are checked against, and how a process becomes one of them.

use std::ffi::{CStr, CString, OsString, c_char};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The names and hashes of one user fit into this; the databases of name services may hold more, and are then refused.
const RECORD_BYTES: usize = 64 * 1024;
/// Groups that one user may be in: the kernel allows as many.
const GROUPS: usize = 65_536;

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, as the system spells it.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// All groups, the primary one too.
    pub groups: Vec<u32>,
}

/// What is known of a user's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, as the system spells it.
    pub name: Vec<u8>,
    /// The number.
    pub uid: u32,
    /// The password field of passwd(5): mostly `x`.
    pub field: Vec<u8>,
}

/// A line of shadow(5). Numbers are days; -1: none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The hash.
    pub field: Vec<u8>,
    /// When the password was changed last, in days since 1970; 0: it must be changed at the next login.
    pub changed: i64,
    /// For how many days it is good.
    pub most: i64,
    /// When the account ends, in days since 1970.
    pub expires: i64,
}

fn text(field: *const c_char) -> Vec<u8> {
    if field.is_null() {
        return Vec::new();
    }
    // SAFETY: not NULL, so a NUL-ended string inside the buffer that the caller keeps.
    unsafe { CStr::from_ptr(field) }.to_bytes().to_vec()
}

/// "There is none" is spelled in several ways by name services.
fn found<T>(result: libc::c_int, entry: Option<T>) -> io::Result<Option<T>> {
    match result {
        0 => Ok(entry),
        libc::ENOENT | libc::ESRCH => Ok(None),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn passwd(name: &[u8]) -> io::Result<Option<(Entry, u32)>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let mut buffer = vec![0 as c_char; RECORD_BYTES];
    // SAFETY: passwd is plain data, filled by the call; name and buffer live to the end of the block, the length is right.
    let (result, entry) = unsafe {
        let mut entry: libc::passwd = std::mem::zeroed();
        let mut there = std::ptr::null_mut();
        let result = libc::getpwnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut there);
        (result, (!there.is_null()).then_some(entry))
    };
    let entry = entry.map(|entry| {
        (Entry { name: text(entry.pw_name), uid: entry.pw_uid, field: text(entry.pw_passwd) }, entry.pw_gid)
    });
    found(result, entry)
}

/// What passwd(5) and its name services say of `name`. May wait for them.
pub fn entry(name: &[u8]) -> io::Result<Option<Entry>> {
    Ok(passwd(name)?.map(|(entry, _)| entry))
}

/// How a user is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The name he logs in with.
    pub name: Vec<u8>,
    /// What passwd(5) has about him in words; the part up to the first comma is his name among people.
    pub about: Vec<u8>,
}

/// Who has this number; `None` when nobody has. May wait for a name service.
pub fn person(uid: u32) -> io::Result<Option<Person>> {
    let mut buffer = vec![0 as c_char; RECORD_BYTES];
    // SAFETY: passwd is plain data, filled by the call; the buffer lives to the end of the block, its length is right.
    let (result, entry) = unsafe {
        let mut entry: libc::passwd = std::mem::zeroed();
        let mut there = std::ptr::null_mut();
        let result = libc::getpwuid_r(uid, &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut there);
        (result, (!there.is_null()).then_some(entry))
    };
    found(result, entry.map(|entry| Person { name: text(entry.pw_name), about: text(entry.pw_gecos) }))
}

/// What the user with this number is called; `None` when nobody is. May wait for a name service.
pub fn name_of(uid: u32) -> io::Result<Option<String>> {
    Ok(person(uid)?.map(|person| String::from_utf8_lossy(&person.name).into_owned()))
}

/// What shadow(5) says of `name`. Mostly root alone may know.
pub fn shadow(name: &[u8]) -> io::Result<Option<Shadow>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let mut buffer = vec![0 as c_char; RECORD_BYTES];
    // SAFETY: spwd is plain data, filled by the call; name and buffer live to the end of the block, the length is right.
    let (result, entry) = unsafe {
        let mut entry: libc::spwd = std::mem::zeroed();
        let mut there = std::ptr::null_mut();
        let result = libc::getspnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut there);
        (result, (!there.is_null()).then_some(entry))
    };
    // A long has 32 bits on some machines.
    #[allow(clippy::unnecessary_cast)]
    let entry = entry.map(|entry| Shadow {
        field: text(entry.sp_pwdp),
        changed: entry.sp_lstchg as i64,
        most: entry.sp_max as i64,
        expires: entry.sp_expire as i64,
    });
    found(result, entry)
}

/// A user by name, with all groups; `None` when there is no such user. May wait for a name service.
pub fn find(name: &str) -> io::Result<Option<User>> {
    let Some((entry, gid)) = passwd(name.as_bytes())? else { return Ok(None) };
    let name = CString::new(entry.name).expect("a C string has no NUL inside");
    let mut groups = vec![0; 64];
    loop {
        let mut count = groups.len() as libc::c_int;
        // SAFETY: `name` ends with NUL; `groups` has room for `count` numbers.
        if unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &mut count) } >= 0 {
            groups.truncate(count as usize);
            break;
        }
        if groups.len() >= GROUPS {
            return Err(io::Error::other("the user is in too many groups"));
        }
        groups.resize((groups.len() * 4).min(GROUPS), 0);
    }
    let name = name.into_string().map_err(|_| io::Error::other("the user's name is not UTF-8"))?;
    Ok(Some(User { name, uid: entry.uid, gid, groups }))
}

/// A user by number, with all groups, and the home; `None` when there is no such user. May wait for a name service.
pub fn by_number(uid: u32) -> io::Result<Option<(User, PathBuf)>> {
    let mut buffer = vec![0 as c_char; RECORD_BYTES];
    // SAFETY: passwd is plain data, filled by the call; the buffer lives to the end of the block, the length is right.
    let (result, entry) = unsafe {
        let mut entry: libc::passwd = std::mem::zeroed();
        let mut there = std::ptr::null_mut();
        let result = libc::getpwuid_r(uid, &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut there);
        (result, (!there.is_null()).then(|| (text(entry.pw_name), text(entry.pw_dir))))
    };
    let Some((name, home)) = found(result, entry)? else { return Ok(None) };
    let name = String::from_utf8(name).map_err(|_| io::Error::other("the user's name is not UTF-8"))?;
    // A second user of that name with another number is not who was meant.
    let user = find(&name)?.filter(|user| user.uid == uid);
    Ok(user.map(|user| (user, PathBuf::from(OsString::from_vec(home)))))
}

impl User {
    /// This process becomes that user, for good, and gains nothing by any program it runs. Only for a process without
    /// threads: the kernel changes one thread, and what the library does about the others is a race with them.
    pub fn assume(&self) -> io::Result<()> {
        self.step_down()?;
        // SAFETY: each takes numbers only.
        let hardened = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
        };
        if hardened { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The same without what is inherited by programs it runs. Safe between fork and exec: system calls only.
    pub(super) fn step_down(&self) -> io::Result<()> {
        let (uid, gid) = (self.uid, self.gid);
        // SAFETY: `groups` is as long as is said; the others take numbers. Groups first: only root may change them.
        let done = unsafe {
            libc::setgroups(self.groups.len() as _, self.groups.as_ptr()) == 0
                && libc::setresgid(gid, gid, gid) == 0
                && libc::setresuid(uid, uid, uid) == 0
        };
        if !done {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: takes a number. There must be no way back.
        if uid != 0 && unsafe { libc::setuid(0) } == 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_root_and_nobody_else_by_a_strange_name() {
        let root = find("root").unwrap().unwrap();
        assert_eq!((root.name.as_str(), root.uid, root.gid), ("root", 0, 0));
        assert!(root.groups.contains(&0));
        assert_eq!(entry(b"root").unwrap().unwrap().uid, 0);
        assert_eq!(person(0).unwrap().unwrap().name, b"root");
        assert_eq!(person(u32::MAX - 7).unwrap(), None);
        assert_eq!((name_of(0).unwrap().as_deref(), name_of(u32::MAX - 7).unwrap()), (Some("root"), None));
        assert_eq!(by_number(0).unwrap(), Some((root, "/root".into())));
        assert_eq!(by_number(u32::MAX - 7).unwrap(), None);
        for name in ["", "no such user", "nul\0inside", "root:x", "root\n"] {
            assert_eq!(find(name).unwrap(), None, "{name:?}");
            assert_eq!(entry(name.as_bytes()).unwrap(), None, "{name:?}");
        }
        match shadow(b"root") {
            Ok(found) => assert!(found.is_none_or(|shadow| !shadow.field.is_empty())),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
