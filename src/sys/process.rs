//! Processes, signals and limits.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};

use super::user::User;

/// Descriptors that a program which is given mail may have: what systems give by default.
pub const ROBOT_FILES: libc::rlim_t = 1024;

static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

/// The child will lead a session of its own (setsid(2)), so that one signal reaches all it starts; leave no core file; and
/// be that user, if one is named.
pub fn new_session(command: &mut Command, user: Option<User>) {
    let prepare = move || {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: one takes nothing, the other a struct of ours.
        if unsafe { libc::setsid() < 0 || libc::setrlimit(libc::RLIMIT_CORE, &none) < 0 } {
            return Err(io::Error::last_os_error());
        }
        user.as_ref().map_or(Ok(()), User::step_down)
    };
    // SAFETY: these are system calls, which are async-signal-safe and touch no memory shared with the parent.
    unsafe { command.pre_exec(prepare) };
}

/// The same for a program that is given mail, which moreover ends when the thread that starts it does, makes files for its
/// user alone, and may have [`ROBOT_FILES`] of them open; of ours it has descriptors 0 to 2.
pub fn robot_session(command: &mut Command, user: Option<User>) {
    new_session(command, user);
    let parent = std::process::id();
    let prepare = move || {
        let files = libc::rlimit { rlim_cur: ROBOT_FILES, rlim_max: ROBOT_FILES };
        // SAFETY: numbers, and a struct of ours. The signal comes last: becoming another user would have taken it back.
        let done = unsafe {
            libc::umask(0o077);
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0
                && libc::setrlimit(libc::RLIMIT_NOFILE, &files) == 0
                && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0
        };
        if !done {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: takes nothing. Who was orphaned before that call would never hear of it.
        let orphaned = unsafe { libc::getppid() }.cast_unsigned() != parent;
        if orphaned { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    };
    // SAFETY: these are system calls, which are async-signal-safe and touch no memory shared with the parent.
    unsafe { command.pre_exec(prepare) };
}

/// What the system says when there are too many processes.
pub fn exhausted() -> io::Error {
    io::Error::from_raw_os_error(libc::EAGAIN)
}

/// Sends SIGKILL to a session that [`new_session`] made, leader and all.
pub fn kill_session(leader: u32) {
    let Ok(leader) = libc::pid_t::try_from(leader) else { return };
    if leader > 1 {
        // SAFETY: kill takes two numbers; a negative one names the group of a child that is not reaped yet.
        unsafe { libc::kill(-leader, libc::SIGKILL) };
    }
}

/// What a session can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGSTOP: it stands still.
    Stop,
    /// SIGCONT: it goes on.
    Continue,
    /// SIGTERM: it should end.
    Terminate,
}

/// Sends a signal to a session that [`new_session`] made, leader and all. That it has ended is no error.
pub fn order_session(leader: u32, order: Order) {
    let Ok(leader) = libc::pid_t::try_from(leader) else { return };
    let signal = match order {
        Order::Stop => libc::SIGSTOP,
        Order::Continue => libc::SIGCONT,
        Order::Terminate => libc::SIGTERM,
    };
    if leader > 1 {
        // SAFETY: kill takes two numbers; a negative one names the group of a child that is not reaped yet.
        unsafe { libc::kill(-leader, signal) };
    }
}

/// Whether there is a process of that number, also one that is not ours (kill(2) with signal 0).
pub fn exists(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: kill takes two numbers; signal 0 is sent to nobody, and a positive number names one process.
    pid > 0 && (unsafe { libc::kill(pid, 0) } == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM))
}

/// SIGTERM, SIGINT, SIGHUP and SIGCHLD will each write one byte to `pipe`, which is non-blocking and stays open.
pub fn write_signals_to(pipe: RawFd) -> io::Result<()> {
    SIGNAL_PIPE.store(pipe, Ordering::SeqCst);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD] {
        // SAFETY: the action is fully initialised below; the handler only makes async-signal-safe calls.
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(signal, &action, std::ptr::null_mut())
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn on_signal(signal: libc::c_int) {
    let byte = signal as u8;
    // SAFETY: write and errno are async-signal-safe; the byte lives through the call. A full pipe already holds news.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        libc::write(SIGNAL_PIPE.load(Ordering::SeqCst), (&raw const byte).cast(), 1);
        *errno = saved;
    }
}

/// The name of a signal as written by the handler.
pub fn signal_name(byte: u8) -> &'static str {
    match libc::c_int::from(byte) {
        libc::SIGTERM => "TERM",
        libc::SIGINT => "INT",
        libc::SIGHUP => "HUP",
        libc::SIGCHLD => "CHLD",
        _ => "?",
    }
}

/// Raises the soft limit of descriptors to the hard one, and gives it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is ours and initialised.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// How long a thread that has [`brief_turns`] has a processor before others have it: the least that Linux knows.
#[cfg(target_os = "linux")]
const TURN_NANOS: u64 = 100_000;

/// From now on this thread has a processor for short times, and soon when it wants one: for threads that do little at a time while
/// somebody waits. Linux before 6.12 makes no difference between threads here.
#[cfg(target_os = "linux")]
pub fn brief_turns() -> io::Result<()> {
    let turns = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        // Which is not looked at: whoever started us may have given us another one, for good reasons.
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: libc::SCHED_FLAG_KEEP_POLICY as u64,
        sched_nice: niceness(),
        sched_priority: 0,
        sched_runtime: TURN_NANOS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: `turns` lives through the call and says how large it is; 0 is this thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const turns, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How much this thread stands back for others.
#[cfg(target_os = "linux")]
fn niceness() -> i32 {
    // SAFETY: takes two numbers; 0 is this thread, of which it always knows.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Elsewhere the system decides.
#[cfg(not(target_os = "linux"))]
pub fn brief_turns() -> io::Result<()> {
    Ok(())
}

/// Who we act as.
pub fn own_uid() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() }
}

/// Files we make are for us alone unless we say otherwise.
pub fn private_umask() {
    // SAFETY: takes a number, cannot fail.
    unsafe { libc::umask(0o077) };
}

/// A second process that goes on where this one is: `None` in it, its number in the one that called. Refused with other
/// threads about: they would be missing there, with whatever locks they hold.
pub fn fork() -> io::Result<Option<u32>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process has threads already"));
    }
    // SAFETY: takes nothing; there is one thread only, so the child is a whole process of its own.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some(pid as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Descriptors above 2 that were open when we were started end with us, whatever we run (close_range(2)).
pub fn keep_descriptors() -> io::Result<()> {
    // SAFETY: takes numbers only, and changes a flag that std sets on all it opens.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// This process leaves the terminal and the session it was started from (setsid(2)). Refused to the leader of a group.
pub fn leave_session() -> io::Result<()> {
    // SAFETY: takes nothing.
    if unsafe { libc::setsid() } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// SIGTERM, SIGINT and SIGHUP do nothing here; programs that are run from here know nothing of that.
pub fn shrug_signals() {
    extern "C" fn shrug(_: libc::c_int) {}
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: the handler touches nothing. Handlers, unlike ignoring, end with exec(2).
        unsafe { libc::signal(signal, shrug as *const () as libc::sighandler_t) };
    }
}

/// A descriptor that can be read once the process has ended (pidfd_open(2)).
pub fn watch(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: the descriptor is new and ours alone.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends SIGKILL to the process that is watched; refused when it has ended or is another user's.
pub fn kill_watched(watch: &OwnedFd) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: takes numbers, and no information beside the signal.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, watch.as_raw_fd(), libc::SIGKILL, none, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a child of ours has ended; then it is no zombie any more. Does not wait.
pub fn reap(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return true };
    // SAFETY: takes numbers, and stores no status. An error means that there is no such child.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) != 0 }
}

/// How a child of ours has ended, as wait(2) tells it; then it is no zombie any more. `None`: not yet. Does not wait.
pub fn reap_status(pid: u32) -> io::Result<Option<i32>> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut status = 0;
    // SAFETY: numbers, and a place for one that outlives the call.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
        0 => Ok(None),
        ended if ended == pid => Ok(Some(status)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_thread_with_brief_turns_stands_back_as_before() {
        let before = niceness();
        brief_turns().unwrap();
        assert_eq!(niceness(), before);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_with_brief_turns_keeps_its_scheduling_policy() {
        let none = libc::sched_param { sched_priority: 0 };
        // SAFETY: `none` lives through the call; 0 is this thread, which ends with the test.
        assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const none) }, 0);
        brief_turns().unwrap();
        // SAFETY: takes a number.
        assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_BATCH);
    }

    #[test]
    fn the_system_answers() {
        assert!(raise_descriptor_limit().unwrap() >= 64);
        assert_eq!(signal_name(15), "TERM");
        assert!(exists(std::process::id()) && exists(1) && !exists(0) && !exists(u32::MAX) && !exists(i32::MAX as u32));
    }

    #[test]
    fn a_session_dies_whole() {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg("sleep 60 & wait");
        new_session(&mut command, None);
        let mut child = command.spawn().unwrap();
        kill_session(child.id());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    #[allow(clippy::zombie_processes)] // `reap` is what is tested
    fn the_end_of_a_watched_process_is_seen_before_it_is_reaped() {
        let child = Command::new("/bin/sh").args(["-c", "sleep 60"]).spawn().unwrap();
        let pid = child.id();
        let watched = watch(pid).unwrap();
        assert!(!reap(pid));
        kill_watched(&watched).unwrap();
        assert_eq!(super::super::channel::wait(&[watched.as_fd()], None).unwrap(), [true]);
        assert!(reap(pid));
        assert!(kill_watched(&watched).is_err() && reap(pid), "there is nobody left");
    }

    #[test]
    #[allow(clippy::zombie_processes)] // `reap_status` is what is tested
    fn a_robot_ends_with_the_thread_that_started_it() {
        let started = std::thread::spawn(|| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "umask; ulimit -n; ulimit -c; exec sleep 60"]).stdout(std::process::Stdio::piped());
            robot_session(&mut command, None);
            let mut child = command.spawn().unwrap();
            let mut said = [0; 12];
            io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
            assert_eq!(&said, b"0077\n1024\n0\n");
            (child.id(), watch(child.id()).unwrap())
        });
        let (pid, watched) = started.join().unwrap();
        assert_eq!(super::super::channel::wait(&[watched.as_fd()], None).unwrap(), [true]);
        assert_eq!(reap_status(pid).unwrap(), Some(libc::SIGKILL));
        assert!(reap_status(pid).is_err(), "there is nobody left");
    }

    #[test]
    fn a_process_with_threads_does_not_fork() {
        let (wait, hold) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || hold.recv());
        assert!(fork().is_err());
        drop(wait);
        let _ = thread.join().unwrap();
    }
}
