//! The server under test: started, waited for, killed, stopped, in a session of its own.
//!
//! | state   | begins with                     | clients                       |
//! |---------|---------------------------------|-------------------------------|
//! | up      | all its doors greet             | work                          |
//! | down    | the kill, before the signal     | wait, in [`Gate::wait`]       |
//! | over    | the last kill has been survived | end                           |
//!
//! A start that fails is tried again, as supervision does, because something of the killed server may still be there; how
//! often is counted. The time to serve again counts from the kill.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dmail::sys::process::{Order, kill_session, new_session, order_session};

/// A server that greets nobody so long after its start does not work.
const START: Duration = Duration::from_secs(60);
/// One that has not ended so long after SIGTERM is killed, and that is told.
const STOP: Duration = Duration::from_secs(30);
/// Pause between two looks, or two starts.
const BEAT: Duration = Duration::from_millis(10);

/// What it writes, in the folder of a run.
pub const OUTPUT: &str = "server.out";

/// Whether there is a server to be talked to.
#[derive(Default)]
pub struct Gate {
    up: Mutex<bool>,
    changed: Condvar,
    over: AtomicBool,
}

impl Gate {
    fn up(&self) -> MutexGuard<'_, bool> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether it is up.
    pub fn set(&self, up: bool) {
        *self.up() = up;
        self.changed.notify_all();
    }

    /// Waits for it, a bounded time.
    pub fn wait(&self) {
        let up = self.up();
        drop(self.changed.wait_timeout_while(up, START, |up| !*up && !self.is_over()));
    }

    /// No more work.
    pub fn close(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Whether there is no more work.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Waits so long, unless it is over before; says whether it is.
    pub fn sleep(&self, long: Duration) -> bool {
        let end = Instant::now() + long;
        let up = self.up();
        drop(self.changed.wait_timeout_while(up, long, |_| !self.is_over() && Instant::now() < end));
        self.is_over()
    }
}

/// The server under test.
pub struct Server {
    command: String,
    dir: PathBuf,
    /// Where it greets, once it serves.
    doors: Vec<SocketAddr>,
    child: Mutex<Option<Child>>,
    pub gate: Arc<Gate>,
}

impl Server {
    /// By this command line, which a shell reads.
    pub fn new(command: &str, dir: &Path, doors: Vec<SocketAddr>, gate: Arc<Gate>) -> Server {
        Server { command: command.to_owned(), dir: dir.to_owned(), doors, child: Mutex::new(None), gate }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self) -> io::Result<Child> {
        let output = OpenOptions::new().append(true).create(true).open(self.dir.join(OUTPUT))?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("exec {}", self.command)]).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        new_session(&mut command, None);
        command.spawn()
    }

    /// Starts it and waits until it serves; gives how many starts that took. Refuses with the end of what it wrote.
    pub fn start(&self) -> Result<u32, String> {
        let mut child = self.child();
        let end = Instant::now() + START;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut started = self.launch().map_err(|error| format!("starting `{}`: {error}", self.command))?;
            loop {
                let ended = started.try_wait().map_err(|error| error.to_string())?;
                if ended.is_none() && self.doors.iter().all(|&door| greets(door)) {
                    *child = Some(started);
                    self.gate.set(true);
                    return Ok(tries);
                }
                if Instant::now() > end {
                    kill_session(started.id());
                    let _ = started.wait();
                    return Err(format!("`{}` does not serve after {START:?}:\n{}", self.command, self.said()));
                }
                std::thread::sleep(BEAT);
                if ended.is_some() {
                    break;
                }
            }
        }
    }

    /// The end of what it wrote.
    fn said(&self) -> String {
        const BYTES: usize = 2000;
        let mut text = Vec::new();
        let read = File::open(self.dir.join(OUTPUT)).and_then(|mut file| file.read_to_end(&mut text));
        match read {
            Ok(_) => String::from_utf8_lossy(&text[text.len().saturating_sub(BYTES)..]).into_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// kill -9, it and what it has started; then nobody is left to be waited for.
    pub fn kill(&self) {
        self.gate.set(false);
        if let Some(mut child) = self.child().take() {
            kill_session(child.id());
            let _ = child.wait();
        }
    }

    /// Stands still so long, if it runs.
    pub fn freeze(&self, long: Duration) {
        // Held, so that nobody kills or starts it meanwhile: the time to serve again is not to have this in it.
        let child = self.child();
        if let Some(child) = &*child {
            order_session(child.id(), Order::Stop);
            self.gate.sleep(long);
            order_session(child.id(), Order::Continue);
        }
    }

    /// Whether it has ended by itself: how.
    pub fn ended(&self) -> Option<String> {
        let mut child = self.child();
        let status = child.as_mut()?.try_wait().ok().flatten()?;
        Some(format!("the server ended by itself: {status}:\n{}", self.said()))
    }

    /// SIGTERM, and if that does not help SIGKILL: then it says so.
    pub fn stop(&self) -> Option<String> {
        self.gate.set(false);
        let mut child = self.child().take()?;
        order_session(child.id(), Order::Terminate);
        let end = Instant::now() + STOP;
        while Instant::now() < end {
            if child.try_wait().ok().flatten().is_some() {
                return None;
            }
            std::thread::sleep(BEAT);
        }
        kill_session(child.id());
        let _ = child.wait();
        Some(format!("the server still ran {STOP:?} after SIGTERM and was killed"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether somebody there says anything.
pub fn greets(door: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&door, Duration::from_secs(1)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    matches!(stream.read(&mut [0]), Ok(1))
}
