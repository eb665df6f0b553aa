//! Programs that are given mail: a destination that begins with `|`. What ends mean is in [`rules::robot`](crate::rules::robot).
//!
//! | step     | done by        | what is done                                                                             |
//! |----------|----------------|------------------------------------------------------------------------------------------|
//! | ask      | [`start`]      | a job of a lane of its own takes the message; its outcome is [`Outcome::Robot`]            |
//! | judge    | the job        | which file is run, and as whom: see below                                                  |
//! | write    | the job        | the whole message into a file without a name in work_path, which will be standard input    |
//! | run      | the job, or the launcher | argv as it is written, no shell; a clean environment; a session of its own; cwd `/` |
//! | attend   | the job        | what it says is read, and kept up to robot_output, until it ends or robot_secs are over    |
//! | sweep    | the same       | whatever it started and left in its session is killed                                      |
//!
//! Its input is a file, not a pipe: a program that does not read it does no harm, and none ever takes half a message for a
//! whole one because we were killed in between. It dies with the server, too.
//!
//! | whose words                        | it runs as                       | by whom                                       |
//! |------------------------------------|----------------------------------|-----------------------------------------------|
//! | dmail.conf's, an alias file's      | `robot_user`; unset: `run_as`    | us, when that is who we are, else the launcher |
//! | a user's own forward file, with `user_robots true` | that user        | the launcher                                  |
//!
//! **What the launcher believes.** It cannot know what a user's forward file says without reading as root what users write, nor
//! an alias file without being its parser. So a server that has fallen to somebody could ask for any command as any user. The
//! answer is `robot_path`: the launcher runs what lies in that directory, which is root's, and nothing else; with it set, the last part of
//! a program's name is all that counts, for everybody, as with sendmail's smrsh. The words behind it, and the envelope, are the server's
//! to choose: what is put there must not run what its arguments say (no shell, no interpreter, no procmail). root never runs one:
//! not by the launcher, and not by a server that stayed root, which needs a `robot_user`.
//!
//! What it does not do: decide when a message is given again (the queue does), or read a forward file.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, PipeReader, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::launcher::Launcher;
use super::{Outcome, Shared};
use crate::net::jobs::{Busy, Kind, PROGRAMS, Pulse};
use crate::net::turn::Ticket;
use crate::protocol::launcher::Request;
use crate::rules::robot::{End, Facts, Verdict, judge, program};
use crate::settings::Settings;
use crate::sys::user::{self, User};
use crate::sys::{channel, files, process};

/// Bytes of its output that are read at a time.
const PIECE_BYTES: usize = 16 * 1024;
/// How long the job waits before it shows that it lives.
const BEAT: Duration = Duration::from_secs(1);

/// Writes a message's text into a file, LF at the end of each line.
pub type Text = Box<dyn FnOnce(&mut File) -> io::Result<()> + Send>;

/// A message for a program.
pub struct Robot {
    /// The command: the program and its arguments.
    pub words: Vec<String>,
    /// The user whose own forward file says so; `None`: it is the operator's word.
    pub user: Option<u32>,
    /// What the program is told in its environment.
    pub facts: Facts,
    /// What stands above the text: [`Envelope::fields`](crate::mail::envelope::Envelope::fields).
    pub head: Vec<u8>,
    /// The text.
    pub text: Text,
}

/// Has a job give a message to a program; what became of that comes with this ticket, as [`Outcome::Robot`]. Refused when too
/// much waits already, or when the programs that run seem to be stuck: then the message waits in the queue.
pub fn start(robot: Robot, ticket: Ticket, shared: &mut Shared) -> Result<(), Busy> {
    shared.jobs.allow_robots(shared.settings.robot_number);
    let (settings, launcher) = (shared.settings.clone(), shared.launcher.clone());
    let work = move |pulse: &Pulse| Outcome::Robot(run(robot, &settings, launcher.as_deref(), pulse));
    shared.jobs.submit(Some(ticket), Kind::Robot, PROGRAMS, work)
}

/// Gives it the message and waits for its end.
fn run(robot: Robot, settings: &Arc<Settings>, launcher: Option<&Launcher>, pulse: &Pulse) -> Verdict {
    let name = robot.words.first().cloned().unwrap_or_default();
    let limits =
        Limits { patience: Duration::from_secs(settings.robot_secs), output_bytes: settings.robot_output * 1024 };
    match begin(robot, settings, launcher) {
        Ok(running) => {
            let (end, output) = running.attend(&limits, pulse);
            judge(&name, &end, &output)
        }
        Err(end) => judge(&name, &end, b""),
    }
}

struct Limits {
    patience: Duration,
    output_bytes: usize,
}

fn short(what: &str, error: io::Error) -> End {
    End::Short(format!("{what}: {error}"))
}

/// Why a program was not started: what is not there, may not be run or is no program will not be so the next time.
fn unstarted(error: io::Error) -> End {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::ArgumentListTooLong => End::Impossible(error.to_string()),
        _ => End::Short(error.to_string()),
    }
}

fn begin(robot: Robot, settings: &Settings, launcher: Option<&Launcher>) -> Result<Running, End> {
    let word = robot.words.first().map_or("", String::as_str);
    let approved = settings.robot_path.as_deref();
    let path = program(word, approved, settings.folder()).map_err(|why| End::Impossible(why.to_owned()))?;
    let whom = whom(robot.user, settings)?;
    let own = process::own_uid();
    let message = write(&robot.head, robot.text, &settings.work_path).map_err(|error| short("work_path", error))?;
    let Robot { words, user, facts, .. } = robot;
    match (whom, launcher) {
        (Whom::Uid(uid), Some(launcher)) if uid != own && own != 0 => {
            let name = path.file_name().filter(|_| approved.is_some()).ok_or_else(|| {
                End::Impossible("to run it as another user, robot_path must name the programs that may be".to_owned())
            })?;
            let args = words[1..].iter().map(|word| word.as_bytes().to_vec()).collect();
            let request = Request::Robot { name: name.as_bytes().to_vec(), args, uid: user, facts: facts.values() };
            launcher.robot(&request, &message).map_err(unstarted)
        }
        (whom, _) => {
            let uid = if let Whom::Uid(uid) = whom { uid } else { own };
            let found = user::by_number(uid).map_err(|error| short("looking up the user", error))?;
            let (user, home) = match found {
                Some((user, home)) => (Some(user), home),
                None => (None, PathBuf::from("/")),
            };
            let become_whom = match user.clone() {
                _ if uid == own => None,
                Some(user) if own == 0 => Some(user),
                None if own == 0 => return Err(End::Short(format!("there is no user with the number {uid}"))),
                _ => return Err(End::Short(format!("only root can run it as user {uid}"))),
            };
            let (values, args): (_, Vec<OsString>) = (facts.values(), words[1..].iter().map(OsString::from).collect());
            let plan = Plan {
                path: &path,
                args: &args,
                login: user.as_ref().map(|user| (user.name.as_str(), home.as_path())),
                facts: &values,
                user: become_whom,
            };
            let (child, output) = spawn(plan, message).map_err(unstarted)?;
            Running::own(child, output).map_err(|error| short("watching it", error))
        }
    }
}

/// As whom it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    /// As we do.
    Ourselves,
    /// As this user.
    Uid(u32),
}

fn whom(user: Option<u32>, settings: &Settings) -> Result<Whom, End> {
    let whom = match (user, &settings.robot_user) {
        (Some(_), _) if !settings.user_robots => {
            return Err(End::Impossible("users' own programs are not run here".to_owned()));
        }
        (Some(uid), _) if uid < settings.min_uid => {
            return Err(End::Impossible(format!("user {uid} is below min_uid")));
        }
        (Some(uid), _) => Whom::Uid(uid),
        (None, Some(name)) => {
            let found = user::find(name).map_err(|error| short("robot_user", error))?;
            Whom::Uid(found.ok_or_else(|| End::Short(format!("robot_user: there is no user {name}")))?.uid)
        }
        (None, None) => Whom::Ourselves,
    };
    let is_root = match whom {
        Whom::Ourselves => process::own_uid() == 0,
        Whom::Uid(uid) => uid == 0,
    };
    if is_root {
        Err(End::Short("root runs no programs that are given mail: set robot_user".to_owned()))
    } else {
        Ok(whom)
    }
}

/// The whole message in a file that has no name, to be read from its beginning.
fn write(head: &[u8], text: Text, work_path: &Path) -> io::Result<File> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let name = format!(".robot.{}.{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
    let mut file = files::nameless_at(&files::open_dir(work_path)?, Path::new(&name))?;
    // Whoever runs may open it anew, as /dev/stdin; nobody else can reach it.
    file.set_permissions(Permissions::from_mode(0o444))?;
    file.write_all(head)?;
    text(&mut file)?;
    file.rewind()?;
    Ok(file)
}

/// A program to be run.
pub struct Plan<'a> {
    /// Its file.
    pub path: &'a Path,
    /// What follows its name.
    pub args: &'a [OsString],
    /// The name and the home of the user it will be, as far as there is one.
    pub login: Option<(&'a str, &'a Path)>,
    /// What it is told: values of [`Facts`].
    pub facts: &'a [Vec<u8>; 7],
    /// Whom it shall become; `None`: whoever starts it.
    pub user: Option<User>,
}

/// Runs a program: its standard input is `message`, what it says on the other two comes back.
pub fn spawn(plan: Plan<'_>, message: File) -> io::Result<(Child, PipeReader)> {
    let (output, theirs) = io::pipe()?;
    let mut command = Command::new(plan.path);
    command.args(plan.args).current_dir("/").env_clear();
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
    command.env("HOME", plan.login.map_or(Path::new("/"), |(_, home)| home));
    if let Some((name, _)) = plan.login {
        command.env("USER", name).env("LOGNAME", name);
    }
    for (name, value) in Facts::NAMES.iter().zip(plan.facts) {
        command.env(name, OsStr::from_bytes(value));
    }
    command.stdin(message).stdout(theirs.try_clone()?).stderr(Stdio::from(theirs));
    process::robot_session(&mut command, plan.user);
    Ok((command.spawn()?, output))
}

/// A program that runs.
pub struct Running {
    process: Process,
    /// What it says; `None` once everybody who could say something has closed it.
    output: Option<PipeReader>,
}

enum Process {
    /// A child of ours, and what sees its end.
    Own(Child, OwnedFd),
    /// A child of the launcher: this tells its end, and let go it brings that about.
    Launched(OwnedFd),
}

impl Running {
    fn own(mut child: Child, output: PipeReader) -> io::Result<Running> {
        match process::watch(child.id()) {
            Ok(eye) => Ok(Running { process: Process::Own(child, eye), output: Some(output) }),
            Err(error) => {
                process::kill_session(child.id());
                child.wait()?;
                Err(error)
            }
        }
    }

    /// One that the launcher has started, by the descriptors that it handed over.
    pub fn handed(descriptors: Vec<OwnedFd>) -> io::Result<Running> {
        let handed: [OwnedFd; 2] =
            descriptors.try_into().map_err(|_| io::Error::other("the launcher handed over something else"))?;
        let [output, hold] = handed;
        Ok(Running { process: Process::Launched(hold), output: Some(output.into()) })
    }

    /// Waits for its end or for the end of its time; then nothing of it is left. Gives what it said, as much as is kept.
    fn attend(self, limits: &Limits, pulse: &Pulse) -> (End, Vec<u8>) {
        let Running { process, mut output } = self;
        let deadline = Instant::now() + limits.patience;
        let mut kept = Vec::new();
        let in_time = loop {
            pulse.beat();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            let all: Vec<BorrowedFd<'_>> =
                [process.eye()].into_iter().chain(output.as_ref().map(AsFd::as_fd)).collect();
            let ready = match channel::wait(&all, Some(left.min(BEAT))) {
                Ok(ready) => ready,
                Err(error) => {
                    process.end(false);
                    return (short("waiting for it", error), kept);
                }
            };
            if ready.get(1) == Some(&true) {
                hear(&mut output, &mut kept, limits.output_bytes);
            }
            if ready[0] {
                break true;
            }
        };
        let end = process.end(in_time).unwrap_or(End::Late(limits.patience.as_secs()));
        // What it had said before. Nobody says anything any more, but for those who left its session.
        while kept.len() < limits.output_bytes && has_more(&output) {
            hear(&mut output, &mut kept, limits.output_bytes);
        }
        (end, kept)
    }
}

#[cfg(test)]
impl Running {
    /// How it ends and what it says, however long that takes.
    pub(crate) fn until_end(self) -> (End, String) {
        let limits = Limits { patience: Duration::from_secs(600), output_bytes: 1 << 16 };
        let (end, said) = self.attend(&limits, &Pulse::unseen());
        (end, String::from_utf8(said).unwrap())
    }

    /// The first line that it says.
    pub(crate) fn first_line(&self) -> String {
        let mut line = String::new();
        let output = self.output.as_ref().unwrap().try_clone().unwrap();
        io::BufRead::read_line(&mut io::BufReader::new(output), &mut line).unwrap();
        line.trim_end().to_owned()
    }
}

fn has_more(output: &Option<PipeReader>) -> bool {
    let Some(output) = output else { return false };
    channel::wait(&[output.as_fd()], Some(Duration::ZERO)).is_ok_and(|ready| ready == [true])
}

/// Reads a piece of what it says, which is there; what there is no room for is forgotten.
fn hear(output: &mut Option<PipeReader>, kept: &mut Vec<u8>, most: usize) {
    let mut piece = [0; PIECE_BYTES];
    match output.as_mut().map(|output| output.read(&mut piece)) {
        Some(Ok(count)) if count > 0 => kept.extend_from_slice(&piece[..count.min(most.saturating_sub(kept.len()))]),
        Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
        _ => *output = None,
    }
}

impl Process {
    /// What can be read once it has ended.
    fn eye(&self) -> BorrowedFd<'_> {
        match self {
            Process::Own(_, eye) | Process::Launched(eye) => eye.as_fd(),
        }
    }

    /// Ends it and what it started; how it ended by itself, if it did in time.
    fn end(self, in_time: bool) -> Option<End> {
        match self {
            Process::Own(mut child, _) => {
                // It is not reaped yet, so the number of its session is its own.
                process::kill_session(child.id());
                let status = child.wait();
                in_time.then(|| status.map_or(End::Lost, ended))
            }
            // Let go, it makes the launcher sweep, whether or not the program has ended.
            Process::Launched(hold) => in_time.then(|| {
                let mut status = [0; 4];
                match channel::receive(&hold, &mut status) {
                    Ok((4, _)) => ended(ExitStatus::from_raw(i32::from_le_bytes(status))),
                    _ => End::Lost,
                }
            }),
        }
    }
}

fn ended(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signal(signal),
        (None, None) => End::Lost,
    }
}

#[cfg(test)]
mod tests;
