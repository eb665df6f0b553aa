//! A pair of sockets that carries whole packets, and descriptors with them (SOCK_SEQPACKET, SCM_RIGHTS).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Most descriptors that go with one packet.
pub const DESCRIPTORS: usize = 8;

/// Room for the header of a control message and that many descriptors, aligned as one: 16 + 8 * 4 bytes on 64 bits.
type Control = [u64; 8];

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: only called with descriptors that the kernel has just made for us and that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Two ends. What one sends, the other receives packet by packet; the end of one is an end of file to the other.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    match unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) } {
        0 => Ok((owned(ends[0]), owned(ends[1]))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How long [`receive`] waits before it answers `WouldBlock`.
pub fn set_patience(end: &OwnedFd, patience: Duration) -> io::Result<()> {
    let time = libc::timeval {
        tv_sec: patience.as_secs() as libc::time_t,
        tv_usec: patience.subsec_micros() as libc::suseconds_t,
    };
    // SAFETY: the value is a timeval of ours, of the size that is named.
    let result = unsafe {
        libc::setsockopt(
            end.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const time).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends one packet, and copies of at most [`DESCRIPTORS`] descriptors with it. `WouldBlock` when the other end has let
/// too many packets lie.
pub fn send(end: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let numbers: Vec<libc::c_int> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let size = size_of_val(&numbers[..]) as libc::c_uint;
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control: Control = [0; 8];
    // SAFETY: a msghdr of zeroes is valid. What it points to is ours, as large as is said and outlives the call; the one
    // control message fits `control`, which DESCRIPTORS and a test of it guarantee.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !numbers.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size) as _;
            std::ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), size as usize);
        }
        libc::sendmsg(end.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    };
    match usize::try_from(sent) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Waits for a packet: how long it is, 0 at the end, and the descriptors that came with it. One that is longer than
/// `buffer`, or has more than [`DESCRIPTORS`], is `InvalidData`; its descriptors are closed.
pub fn receive(end: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control: Control = [0; 8];
    let mut descriptors = Vec::new();
    // SAFETY: a msghdr of zeroes is valid. What it points to is ours, as large as is said and outlives the call. The kernel
    // leaves whole control messages in `control`; each descriptor in one is new and taken exactly once.
    let (received, flags) = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>() as _;
        let received = libc::recvmsg(end.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
        let mut header = if received < 0 { std::ptr::null_mut() } else { libc::CMSG_FIRSTHDR(&raw const message) };
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for index in 0..bytes / size_of::<libc::c_int>() {
                    let number = libc::CMSG_DATA(header).cast::<libc::c_int>().add(index).read_unaligned();
                    descriptors.push(owned(number));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        (received, message.msg_flags)
    };
    let Ok(received) = usize::try_from(received) else { return Err(io::Error::last_os_error()) };
    if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((received, descriptors))
}

/// Waits until one of these can be read, has ended or failed, and says which; none when a signal came or the time is
/// over.
pub fn wait(descriptors: &[BorrowedFd<'_>], patience: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> =
        descriptors.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let millis = patience.map_or(-1, |time| libc::c_int::try_from(time.as_millis()).unwrap_or(libc::c_int::MAX));
    // SAFETY: `polled` is as long as is said and outlives the call.
    if unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, millis) } < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(vec![false; polled.len()]) } else { Err(error) };
    }
    Ok(polled.iter().map(|one| one.revents != 0).collect())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn packets_stay_whole_and_carry_descriptors() {
        let (one, other) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&one, b"first", &[writer.as_fd(); DESCRIPTORS]).unwrap();
        send(&one, b"second", &[]).unwrap();
        drop(writer);
        let mut buffer = [0; 64];
        let (bytes, descriptors) = receive(&other, &mut buffer).unwrap();
        assert_eq!((&buffer[..bytes], descriptors.len()), (&b"first"[..], DESCRIPTORS));
        for fd in descriptors {
            File::from(fd).write_all(b"x").unwrap();
        }
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"xxxxxxxx", "every copy was ours alone, and is closed");
        let (bytes, descriptors) = receive(&other, &mut buffer).unwrap();
        assert_eq!((&buffer[..bytes], descriptors.len()), (&b"second"[..], 0));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_does_not_come_is_not_waited_for() {
        let (one, other) = pair().unwrap();
        assert!(send(&one, b"x", &[one.as_fd(); DESCRIPTORS + 1]).is_err());
        send(&one, b"long", &[one.as_fd()]).unwrap();
        assert_eq!(receive(&other, &mut [0; 2]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        set_patience(&other, Duration::from_millis(1)).unwrap();
        assert_eq!(receive(&other, &mut [0; 2]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(wait(&[other.as_fd()], Some(Duration::ZERO)).unwrap(), [false]);
        let full = std::iter::repeat_with(|| send(&one, &[0; 8192], &[])).take(1000).find_map(Result::err);
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert_eq!(wait(&[other.as_fd()], None).unwrap(), [true]);
        while receive(&other, &mut [0; 8192]).unwrap().0 > 0 {}
        assert!(send(&other, b"x", &[]).is_err(), "and no signal ends us");
    }
}
