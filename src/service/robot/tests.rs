use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::sys::access;

const HEAD: &str = "Return-Path: <bob@example.org>\nDelivered-To: ann@example.test\n";

/// A configuration in a folder, whose programs may be run by the tests' user, or by nobody when that is root.
struct World {
    folder: tempfile::TempDir,
    settings: Settings,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        let mut settings = Settings::for_tests(folder.path());
        settings.robot_user = access::is_root().then(|| "nobody".to_owned());
        World { folder, settings }
    }

    /// For the shell to read: to be run itself it would have to be closed in every process that another test just forks.
    fn script(&self, text: &str) -> String {
        let path = self.folder.path().join("script");
        fs::write(&path, format!("{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn robot(&self, words: &[&str], text: &'static [u8]) -> Robot {
        Robot {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            user: None,
            facts: Facts {
                sender: "bob@example.org\nBcc: all".into(),
                recipient: "ann+tea@example.test".into(),
                local: "ann".into(),
                extension: "tea".into(),
                domain: "example.test".into(),
                queue_id: "7K2F9QXYZ1".into(),
                client_address: "192.0.2.1".into(),
            },
            head: HEAD.as_bytes().to_vec(),
            text: Box::new(move |file| file.write_all(text)),
        }
    }

    /// How a program ends, and what it says.
    fn end(&self, words: &[&str], text: &'static [u8]) -> (End, String) {
        let limits = Limits {
            patience: Duration::from_secs(self.settings.robot_secs),
            output_bytes: self.settings.robot_output * 1024,
        };
        match begin(self.robot(words, text), &self.settings, None) {
            Ok(running) => {
                let (end, said) = running.attend(&limits, &Pulse::unseen());
                (end, String::from_utf8(said).unwrap())
            }
            Err(end) => (end, String::new()),
        }
    }

    /// The same for a script of the shell.
    fn run(&self, script: &str) -> (End, String) {
        self.end(&["/bin/sh", &self.script(script)], b"Subject: x\n\nhello\n")
    }
}

#[test]
fn a_program_reads_the_whole_message_and_its_end_is_the_verdict() {
    let world = World::new();
    let (end, said) = world.run("cat; exit 3");
    assert_eq!((end, said), (End::Exited(3), format!("{HEAD}Subject: x\n\nhello\n")));
    // Also by its other name.
    assert_eq!(world.run("cat /dev/stdin | tail -1").1, "hello\n");
    for (script, verdict) in [("exit 0", true), ("cat > /dev/null", true), ("exit 75", false)] {
        let robot = world.robot(&["/bin/sh", &world.script(script)], b"x");
        let settings = Arc::new(world.settings.clone());
        assert_eq!(run(robot, &settings, None, &Pulse::unseen()) == Verdict::Taken, verdict, "{script}");
    }
}

#[test]
fn who_does_not_read_has_taken_it_all_the_same() {
    let world = World::new();
    let large = vec![b'x'; 1 << 20].leak();
    assert_eq!(world.end(&["/bin/true"], large), (End::Exited(0), String::new()));
}

#[test]
fn words_are_arguments_and_nothing_in_them_is_expanded() {
    let world = World::new();
    let script = world.script(r#"printf '%s|' "$@""#);
    let (end, said) = world.end(&["/bin/sh", &script, "a b", "$HOME", "`id`", "; exit 9", "*"], b"");
    assert_eq!((end, said.as_str()), (End::Exited(0), "a b|$HOME|`id`|; exit 9|*|"));
}

#[test]
fn it_has_a_clean_environment_three_descriptors_a_session_and_the_root_directory() {
    let world = World::new();
    let (_, said) = world.run("tr '\\0' '\\n' < /proc/$$/environ | sort");
    let mut lines: Vec<&str> = said.lines().collect();
    lines.retain(|line| !["HOME=", "USER=", "LOGNAME="].iter().any(|name| line.starts_with(name)));
    assert_eq!(
        lines,
        [
            "CLIENT_ADDRESS=192.0.2.1",
            "DOMAIN=example.test",
            "EXTENSION=tea",
            "LANG=C.UTF-8",
            "LOCAL=ann",
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "QUEUE_ID=7K2F9QXYZ1",
            "RECIPIENT=ann+tea@example.test",
            "SENDER=bob@example.org?Bcc: all"
        ]
    );
    assert!(said.contains("\nHOME=/"), "{said}");
    // 3 is ls's own.
    assert_eq!(world.end(&["/bin/ls", "/proc/self/fd"], b"").1, "0\n1\n2\n3\n");
    assert_eq!(world.run("pwd; umask").1, "/\n0077\n");
    let (_, said) = world.run("ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat; echo $$");
    let ids: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(ids[0], ids[1], "it leads its session");
}

#[test]
fn it_is_nobody_else_and_never_root() {
    let mut world = World::new();
    let (_, said) = world.run("id -u; id -G");
    if access::is_root() {
        let nobody = user::find("nobody").unwrap().unwrap();
        let groups: Vec<String> = nobody.groups.iter().map(ToString::to_string).collect();
        assert_eq!(said, format!("{}\n{}\n", nobody.uid, groups.join(" ")));
        for name in [None, Some("root".to_owned())] {
            world.settings.robot_user = name;
            let (end, _) = world.run("touch /tmp/never");
            assert!(matches!(&end, End::Short(why) if why.contains("set robot_user")), "{end:?}");
        }
    } else {
        assert!(said.starts_with(&format!("{}\n", process::own_uid())));
        world.settings.robot_user = Some("nobody".to_owned());
        assert!(matches!(world.run("exit 0").0, End::Short(_)));
    }
}

#[test]
fn users_own_programs_are_run_only_where_that_is_allowed_and_never_below_min_uid() {
    let mut world = World::new();
    let mut end = |user_robots: bool, uid: u32| {
        world.settings.user_robots = user_robots;
        let robot = Robot { user: Some(uid), ..world.robot(&["/bin/true"], b"") };
        begin(robot, &world.settings, None).err()
    };
    let nobody = user::find("nobody").unwrap().unwrap().uid;
    assert!(matches!(end(false, nobody), Some(End::Impossible(_))));
    for uid in [0, 99] {
        assert!(matches!(end(true, uid), Some(End::Impossible(why)) if why.contains("min_uid")), "{uid}");
    }
    if access::is_root() {
        assert_eq!(end(true, nobody), None);
        assert!(matches!(end(true, 4_000_000_001), Some(End::Short(why)) if why.contains("no user")));
    }
}

#[test]
fn whoever_takes_too_long_is_killed_with_all_it_started() {
    let mut world = World::new();
    world.settings.robot_secs = 1;
    let (end, said) = world.run("sleep 600 & echo $!; sleep 600");
    assert_eq!(end, End::Late(1));
    is_gone(said.trim().parse().unwrap());
}

/// Waits for the end of a process, which has come or is about to.
fn is_gone(pid: u32) {
    if let Ok(eye) = process::watch(pid) {
        assert_eq!(channel::wait(&[eye.as_fd()], Some(Duration::from_secs(60))).unwrap(), [true]);
    }
}

#[test]
fn a_grandchild_that_keeps_the_output_open_is_not_waited_for_and_does_not_stay() {
    let world = World::new();
    let (end, said) = world.run("sleep 600 & echo $!; exit 0");
    assert_eq!(end, End::Exited(0));
    is_gone(said.trim().parse().unwrap());
    // Nor is one that has left the session: it goes on, and is not heard.
    let (end, said) = world.run("setsid sh -c 'echo $$; exec sleep 600' & read x < /dev/null; exec sleep 0.1");
    assert_eq!(end, End::Exited(0));
    let pid: u32 = said.trim().parse().unwrap();
    assert!(process::exists(pid));
    process::kill_session(pid);
}

#[test]
fn of_a_flood_the_beginning_is_kept_and_the_rest_read() {
    let world = World::new();
    let (end, said) = world.run("head -c 3000000 /dev/zero | tr '\\0' y; echo; exit 4");
    assert_eq!(end, End::Exited(4));
    assert_eq!(said, "y".repeat(world.settings.robot_output * 1024));
}

#[test]
fn a_signal_is_told_and_what_cannot_be_run_bounces() {
    let world = World::new();
    assert_eq!(world.run("kill -9 $$"), (End::Signal(9), String::new()));
    let folder = world.folder.path();
    fs::write(folder.join("plain"), "no program").unwrap();
    for word in ["", "missing", "plain", "work", "plain/x", "a\0b"] {
        let (end, _) = world.end(&[word], b"");
        assert!(matches!(end, End::Impossible(_)), "{word:?}: {end:?}");
    }
    assert!(matches!(world.end(&[], b"").0, End::Impossible(_)));
}

#[test]
fn a_message_that_cannot_be_written_or_read_waits() {
    let mut world = World::new();
    let failing =
        Robot { text: Box::new(|_| Err(io::ErrorKind::StorageFull.into())), ..world.robot(&["/bin/true"], b"") };
    assert!(matches!(begin(failing, &world.settings, None).err(), Some(End::Short(_))));
    world.settings.work_path = world.folder.path().join("missing");
    assert!(matches!(world.end(&["/bin/true"], b"").0, End::Short(_)));
}

#[test]
fn with_a_robot_path_only_what_lies_there_is_run() {
    let mut world = World::new();
    world.settings.robot_path = Some(world.folder.path().join("robots"));
    fs::create_dir(world.folder.path().join("robots")).unwrap();
    fs::set_permissions(world.folder.path().join("robots"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/bin/true", world.folder.path().join("robots/agree")).unwrap();
    for word in ["agree", "/usr/bin/agree", "../agree"] {
        assert_eq!(world.end(&[word], b"").0, End::Exited(0), "{word}");
    }
    for word in ["/bin/true", "true", "robots/../../bin/true", ".."] {
        assert!(matches!(world.end(&[word], b"").0, End::Impossible(_)), "{word}");
    }
}

#[test]
fn when_the_launcher_ends_first_nobody_can_tell_and_the_message_waits() {
    let limits = Limits { patience: Duration::from_secs(60), output_bytes: 100 };
    for (told, wanted) in [
        (None, End::Lost),
        (Some(&[0, 75, 0, 0][..]), End::Exited(75)),
        (Some(&[9, 0, 0, 0]), End::Signal(9)),
        (Some(&[0, 0]), End::Lost),
    ] {
        let (launcher, hold) = channel::pair().unwrap();
        let (output, mut theirs) = io::pipe().unwrap();
        theirs.write_all(b"half a li").unwrap();
        if let Some(status) = told {
            channel::send(&launcher, status, &[]).unwrap();
        }
        drop(launcher);
        let running = Running::handed(vec![output.into(), hold]).unwrap();
        assert_eq!(running.attend(&limits, &Pulse::unseen()), (wanted, b"half a li".to_vec()));
    }
    assert!(Running::handed(Vec::new()).is_err());
}
