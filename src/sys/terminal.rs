//! A terminal that a password is typed on.

use std::io;
use std::os::fd::AsRawFd;

/// A terminal that shows nothing and gives each key at once, until this is dropped.
pub struct Hidden<'t, T: AsRawFd> {
    terminal: &'t T,
    before: libc::termios,
}

/// Stops a terminal from showing what is typed. Keys come one by one, also those that would end the program: it would leave
/// the terminal mute. Refuses what is no terminal.
pub fn hide<T: AsRawFd>(terminal: &T) -> io::Result<Hidden<'_, T>> {
    // SAFETY: termios is plain data.
    let mut state: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is ours and filled by the call; the descriptor is borrowed from a live file.
    if unsafe { libc::tcgetattr(terminal.as_raw_fd(), &mut state) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let before = state;
    state.c_lflag &= !(libc::ECHO | libc::ICANON | libc::ISIG);
    // SAFETY: the struct is what the system gave, with some flags taken out.
    if unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSAFLUSH, &state) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Hidden { terminal, before })
}

impl<T: AsRawFd> Drop for Hidden<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the struct is what the system gave.
        unsafe { libc::tcsetattr(self.terminal.as_raw_fd(), libc::TCSAFLUSH, &self.before) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::FromRawFd;

    use super::*;

    fn shows(terminal: &File) -> bool {
        // SAFETY: plain data, filled by the call; the descriptor is a live file's.
        unsafe {
            let mut state: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &mut state), 0);
            state.c_lflag & libc::ECHO != 0
        }
    }

    #[test]
    fn what_is_typed_is_hidden_for_a_while() {
        assert!(hide(&File::open("/dev/null").unwrap()).is_err());
        let (mut near, mut far) = (-1, -1);
        // SAFETY: both numbers are ours; the other arguments may be null.
        let opened =
            unsafe { libc::openpty(&mut near, &mut far, std::ptr::null_mut(), std::ptr::null(), std::ptr::null()) };
        assert_eq!(opened, 0);
        // SAFETY: the descriptors were just opened and belong to nobody else.
        let (_near, far) = unsafe { (File::from_raw_fd(near), File::from_raw_fd(far)) };
        assert!(shows(&far));
        let hidden = hide(&far).unwrap();
        assert!(!shows(&far));
        drop(hidden);
        assert!(shows(&far));
    }
}
