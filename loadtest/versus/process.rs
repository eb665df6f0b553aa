//! A server under measurement: started, known by all its processes, and stopped whole.
//!
//! Peers have paths of their own compiled in, put themselves into the background, start helpers and leave children. So each
//! runs in namespaces of its own (`unshare`): in its mount namespace the private folder is `/mnt`, and over `/etc`, `/var` and
//! `/run` lie folders of it where the peer needs that; in its process namespace the first process is a shell of ours,
//! with which the kernel ends every other one, wherever that has gone. This needs root. Ours needs none of it.
//!
//! It is ended too when we are, however we end (`setpriv --pdeathsig`).

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::sample;

/// How long a server may take until it is gone, once it was killed.
const GONE: Duration = Duration::from_secs(10);

/// What is to be started.
#[derive(Debug, Default)]
pub struct Launch {
    /// The program and its words. Within namespaces, paths are those seen there.
    pub words: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
    /// Whether it needs namespaces; what of the private folder lies over the machine's.
    pub apart: Option<Apart>,
}

/// What a peer sees of the machine.
#[derive(Debug, Default)]
pub struct Apart {
    /// Unpacked packages, seen as `/mnt/root`.
    pub root: Option<PathBuf>,
    /// Folders of the private folder that are seen instead of the machine's: `etc`, `var`, `run`.
    pub instead: Vec<&'static str>,
    /// Lines of shell that come before the program.
    pub before: String,
}

/// A server that runs.
pub struct Running {
    child: Child,
    /// Processes above the server's own that are ours: unshare, and its shell.
    ours: usize,
    /// Where it writes what it has to say.
    said: PathBuf,
}

impl Running {
    /// Starts it. What it says goes to `said` in `folder`.
    pub fn start(folder: &Path, launch: &Launch) -> Result<Running, String> {
        let said = folder.join("said");
        let out = File::create(&said).map_err(|error| format!("{}: {error}", said.display()))?;
        let errors = out.try_clone().map_err(|error| format!("{}: {error}", said.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        let ours = match &launch.apart {
            None => {
                command.args(&launch.words);
                0
            }
            Some(apart) => {
                let script = folder.join("start.sh");
                fs::write(&script, self::script(folder, launch, apart))
                    .map_err(|error| format!("{}: {error}", script.display()))?;
                command.args([
                    "unshare",
                    "--mount",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "--propagation",
                    "private",
                    "sh",
                ]);
                command.arg(&script);
                2
            }
        };
        command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
        // Whoever interrupts us interrupts us: servers end when we say so.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(out).stderr(errors).current_dir(folder);
        let child = command.spawn().map_err(|error| format!("setpriv (util-linux) cannot be started: {error}"))?;
        Ok(Running { child, ours, said })
    }

    /// All its processes.
    pub fn pids(&self) -> Vec<u32> {
        sample::descendants(self.child.id(), self.ours)
    }

    /// Why it does not answer, when it has ended; the last thing it said.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("it ended ({status}): {}", self.last_words()))
    }

    /// The last line it wrote.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.said).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing said").chars().take(200).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pids = self.pids();
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The kernel ends the rest of the namespace a moment later; folders are removed after that.
        let begun = Instant::now();
        while pids.iter().any(|pid| Path::new("/proc").join(pid.to_string()).exists()) && begun.elapsed() < GONE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The shell's script: what is mounted where, then the server, of which it waits for every process.
fn script(folder: &Path, launch: &Launch, apart: &Apart) -> String {
    let mut text = format!("set -e\nmount --bind {} /mnt\n", quoted(&folder.display().to_string()));
    if let Some(root) = &apart.root {
        text += &format!("mkdir -p /mnt/root\nmount --bind {} /mnt/root\n", quoted(&root.display().to_string()));
    }
    for name in &apart.instead {
        text += &format!("mount --bind /mnt/{name} /{name}\n");
    }
    // The machine's own would show processes by other numbers.
    text += "mount -t proc proc /proc\ncd /mnt\n";
    text += &apart.before;
    text += &launch.words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    // The shell stays, to be the first process: it takes care of orphans, and signals find servers as they are elsewhere.
    text + " &\nwait $!\n"
}

/// A word as the shell reads it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_reaches_the_program_as_it_is() {
        for word in ["plain", "two words", "it's", "$HOME", "a;b", ""] {
            let said = Command::new("sh").args(["-c", &format!("printf %s {}", quoted(word))]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&said.stdout), word);
        }
    }

    #[test]
    fn the_script_mounts_the_folder_before_what_lies_in_it() {
        let apart =
            Apart { root: Some("/peers/root".into()), instead: vec!["etc", "run"], before: "ldconfig\n".into() };
        let launch = Launch { words: vec!["/mnt/root/x".into(), "-f".into()], ..Launch::default() };
        let text = script(Path::new("/tmp/a b"), &launch, &apart);
        let order =
            ["'/tmp/a b' /mnt\n", "'/peers/root' /mnt/root\n", "/mnt/etc /etc", "/mnt/run /run", "ldconfig", "'-f' &"];
        let found: Vec<_> =
            order.iter().map(|part| text.find(part).unwrap_or_else(|| panic!("{part} in {text}"))).collect();
        assert!(found.is_sorted(), "{text}");
    }

    #[test]
    fn a_server_that_ended_says_so_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let words = ["sh", "-c", "echo first; echo 'no port'; exit 3"].map(str::to_owned).to_vec();
        let mut running = Running::start(folder.path(), &Launch { words, ..Launch::default() }).unwrap();
        let status = running.child.wait().unwrap();
        assert_eq!(status.code(), Some(3));
        let why = running.ended().unwrap();
        assert!(why.contains("exit status: 3") && why.ends_with("no port"), "{why}");
    }
}
