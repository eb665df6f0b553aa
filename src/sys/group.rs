//! Who is at the other end of a unix socket, and what a group of users may reach.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

/// Groups of one process: Linux allows 65,536.
const GROUPS_LIMIT: usize = 65_536;

/// Whoever connected to a unix socket, as he was when he did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// His user.
    pub uid: u32,
    /// His groups: the first is the primary one.
    pub groups: Vec<u32>,
}

/// Who is at the other end of a unix socket (SO_PEERCRED, SO_PEERGROUPS). A system that does not tell his further groups
/// gives the primary one alone.
pub fn peer(socket: &impl AsRawFd) -> io::Result<Peer> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointers are to our own struct and its size; the descriptor is borrowed from a live socket.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut groups = vec![credentials.gid];
    groups.extend(further_groups(socket));
    Ok(Peer { uid: credentials.uid, groups })
}

fn further_groups(socket: &impl AsRawFd) -> Vec<u32> {
    let mut groups = vec![0u32; 64];
    loop {
        let room = size_of_val(&groups[..]);
        let mut length = room as libc::socklen_t;
        // SAFETY: the pointers are to our own numbers and to their size in bytes, which the kernel does not exceed.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let needed = length as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(needed);
            return groups;
        }
        let short = io::Error::last_os_error().raw_os_error() == Some(libc::ERANGE);
        if !short || needed <= groups.len() || needed > GROUPS_LIMIT {
            return Vec::new();
        }
        groups.resize(needed, 0);
    }
}

/// The number of a group by name (getgrnam_r(3)); `None` when there is no such group. May wait for a name service: for a
/// job.
pub fn gid_of(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let mut buffer = vec![0 as libc::c_char; 64 * 1024];
    loop {
        // SAFETY: group is plain data, filled by the call; name and buffer live through it, the length is right.
        let (result, found, entry) = unsafe {
            let mut entry: libc::group = std::mem::zeroed();
            let mut found = std::ptr::null_mut();
            let result = libc::getgrnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found);
            (result, found, entry)
        };
        match result {
            0 if found.is_null() => return Ok(None),
            0 => return Ok(Some(entry.gr_gid)),
            // A group with many members.
            libc::ERANGE if buffer.len() < 16 << 20 => buffer.resize(buffer.len() * 4, 0),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::process::own_uid;

    #[test]
    fn the_system_tells_who_is_there() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer(&one).unwrap();
        assert_eq!(peer.uid, own_uid());
        // SAFETY: no pointers.
        assert_eq!(peer.groups[0], unsafe { libc::getegid() });
        assert!(super::peer(&std::fs::File::open("/").unwrap()).is_err());
    }

    #[test]
    fn groups_have_numbers() {
        assert_eq!(gid_of("root").unwrap(), Some(0));
        assert_eq!(gid_of("no such group").unwrap(), None);
        assert_eq!(gid_of("a\0b").unwrap(), None);
    }
}
