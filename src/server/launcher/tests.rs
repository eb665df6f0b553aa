use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::*;
use crate::rules;
use crate::settings::Settings;
use crate::store::disk::Hand;

/// Users that are nobody's here.
const ANN: u32 = 54_321;
const SERVER: u32 = 54_322;

/// A launcher in a thread of the test, over a real spool in a folder; nothing where the test is not root's.
struct World {
    folder: tempfile::TempDir,
    launcher: Arc<Launcher>,
    keeper: Option<JoinHandle<i32>>,
}

impl World {
    fn new(more: &str) -> Option<World> {
        if !access::is_root() {
            eprintln!("skipped: only root can give files to other users");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // Everybody may pass, as in /var.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["spool", "spool/a", "work", "elsewhere"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let world = World::write(&folder, more);
        let user = User { name: "server".into(), uid: SERVER, gid: SERVER, groups: vec![SERVER] };
        let mut keeper = Keeper::new(world, user).unwrap();
        let (ours, its) = channel::pair().unwrap();
        let launcher = Arc::new(Launcher::new(ours, 0, keeper.last).unwrap());
        let keeper = std::thread::spawn(move || keeper.answer(&its));
        Some(World { folder, launcher, keeper: Some(keeper) })
    }

    fn write(folder: &tempfile::TempDir, more: &str) -> PathBuf {
        let path = folder.path().join("dmail.conf");
        let text = format!(
            "host_domain example.test\nwork_path work\ndrop_path spool\nauthent_process /bin/cat\n\
             bind_address 127.0.0.1\nmin_uid 500\n{more}"
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn drop(&self, name: &str, uid: u32, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, "From a@b Mon Jan  5 10:00:00 2026\nSubject: x\n\nbody\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        path
    }

    fn settings(&self) -> Settings {
        settings::load(&self.path("dmail.conf")).settings.unwrap()
    }

    fn refused<T: std::fmt::Debug>(&self, what: &str, result: io::Result<T>) -> String {
        match result {
            Err(error) => error.to_string(),
            Ok(done) => panic!("{what} was done: {done:?}"),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The last end of the channel: it ends.
        self.launcher = Arc::new(Launcher::new(channel::pair().unwrap().0, 0, 0).unwrap());
        let ended = self.keeper.take().unwrap().join().unwrap();
        if !std::thread::panicking() {
            assert_eq!(ended, 0);
        }
    }
}

#[test]
fn a_drop_is_opened_for_its_owner_and_nothing_else_is() {
    let Some(world) = World::new("") else { return };
    let ann = world.drop("spool/ann", ANN, 0o600);
    let seen = files::stat(&world.launcher.open(&ann, ANN, false).unwrap()).unwrap();
    assert_eq!((seen.uid, seen.mode & 0o777, seen.links), (ANN, 0o600, 1));

    let root = world.drop("spool/root", 0, 0o600);
    let outside = world.drop("elsewhere/ann", ANN, 0o600);
    symlink(&outside, world.path("spool/link")).unwrap();
    symlink(world.path("elsewhere"), world.path("spool/away")).unwrap();
    fs::hard_link(&ann, world.path("spool/second")).unwrap();
    fs::create_dir(world.path("spool/folder")).unwrap();
    chown(world.path("spool/folder"), Some(ANN), Some(ANN)).unwrap();
    for (path, uid) in [
        (world.path("spool/link"), ANN),
        (world.path("spool/away/ann"), ANN),
        (world.path("spool/second"), ANN),
        (world.path("spool/folder"), ANN),
        (world.path("spool/../elsewhere/ann"), ANN),
        (world.path("spool/.ann"), ANN),
        (world.path("spool/ann.lock"), ANN),
        (outside, ANN),
        ("/etc/passwd".into(), 0),
        (root.clone(), 0),
        (root, ANN),
        (ann.clone(), SERVER),
        (ann.clone(), 499),
        ("spool/ann".into(), ANN),
        (PathBuf::new(), ANN),
    ] {
        world.refused(&path.display().to_string(), world.launcher.open(&path, uid, true));
    }
    fs::remove_file(world.path("spool/second")).unwrap();
    assert!(world.launcher.open(&ann, ANN, false).is_ok(), "and it still serves");
}

#[test]
fn however_fast_a_drop_changes_places_with_a_link_only_the_drop_is_opened() {
    let Some(world) = World::new("") else { return };
    let ann = world.drop("spool/ann", ANN, 0o600);
    let inode = fs::metadata(&ann).unwrap().ino();
    // What the link leads to would be let pass: it is the same user's.
    symlink(world.drop("elsewhere/ann", ANN, 0o600), world.path("spool/link")).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let (spare, link) = (world.path("spool/spare"), world.path("spool/link"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for (from, to) in [(&ann, &spare), (&link, &ann), (&ann, &link), (&spare, &ann)] {
                    fs::rename(from, to).unwrap();
                }
            }
        });
        let mut opened = 0;
        for _ in 0..3000 {
            if let Ok(file) = world.launcher.open(&ann, ANN, false) {
                opened += 1;
                assert_eq!(file.metadata().unwrap().ino(), inode);
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(opened > 0, "it was never there");
    });
}

#[test]
fn a_drop_that_is_made_is_its_owners_alone_and_of_the_directorys_group() {
    let Some(world) = World::new("") else { return };
    chown(world.path("spool/a"), Some(0), Some(8)).unwrap();
    let path = world.path("spool/a/ann");
    let missing = world.launcher.open(&path, ANN, false).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    let made = world.launcher.open(&path, ANN, true).unwrap();
    let about = made.metadata().unwrap();
    assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (ANN, 8, 0o600));
    drop(made);
    assert!(world.launcher.open(&path, ANN, true).is_ok(), "the second time it is there");
    assert_eq!(fs::read_dir(world.path("spool/a")).unwrap().count(), 1);
}

#[test]
fn a_dotlock_is_made_once_and_only_that_one_is_taken_away() {
    let Some(world) = World::new("") else { return };
    let ann = world.drop("spool/ann", ANN, 0o600);
    let lock = world.launcher.lock(&ann, ANN, b"dmail 1 2 here\n").unwrap();
    let path = world.path("spool/ann.lock");
    assert_eq!(fs::read(&path).unwrap(), b"dmail 1 2 here\n");
    assert_eq!(fs::metadata(&path).unwrap().uid(), SERVER, "the server can show that it lives");
    let taken = world.launcher.lock(&ann, ANN, b"other\n").unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    let inode = files::stat(&lock).unwrap().inode;
    world.refused("another lock", world.launcher.unlock(&ann, ANN, inode + 1));
    world.refused("a stranger's drop", world.launcher.unlock(&ann, 499, inode));
    world.launcher.unlock(&ann, ANN, inode).unwrap();
    let names: Vec<_> = fs::read_dir(world.path("spool")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    // Of a drop that is not there yet, but not beside somebody else's.
    assert!(world.launcher.lock(&world.path("spool/bob"), ANN, b"").is_ok());
    world.drop("spool/carl", SERVER, 0o600);
    world.refused("carl's lock", world.launcher.lock(&world.path("spool/carl"), ANN, b""));
}

#[test]
fn a_forward_file_is_handed_over_to_be_read_when_nobody_else_can_have_written_it() {
    let Some(world) = World::new("") else { return };
    let drop = world.drop("spool/ann", ANN, 0o600);
    let asked = |path: &Path, uid: u32| world.launcher.forward(uid, Some(path));
    assert_eq!(asked(&drop, ANN).unwrap_err().kind(), io::ErrorKind::NotFound);
    let fwd = world.drop("spool/ann.fwd", ANN, 0o600);
    let mut file = asked(&drop, ANN).unwrap();
    let mut text = String::new();
    io::Read::read_to_string(&mut file, &mut text).unwrap();
    assert!(text.starts_with("From a@b") && (&file).write_all(b"x").is_err(), "to be read alone");
    for (uid, path) in
        [(ANN + 7, &drop), (0, &drop), (ANN, &world.path("elsewhere/ann")), (ANN, &world.path("spool/../ann"))]
    {
        world.refused("another's", asked(path, uid));
    }
    fs::set_permissions(&fwd, fs::Permissions::from_mode(0o660)).unwrap();
    assert!(world.refused("one that others write", asked(&drop, ANN)).contains("others may write to it"));
    fs::remove_file(&fwd).unwrap();
    symlink("/etc/shadow", &fwd).unwrap();
    world.refused("a link", asked(&drop, ANN));
    // Homes are for users of the system alone, and only where their files are followed.
    assert!(world.refused("a home", world.launcher.forward(ANN, None)).contains("is not to be read"));
    let Some(world) = World::new("authent_method unix_user\n") else { return };
    assert_eq!(world.launcher.forward(ANN, None).unwrap_err().kind(), io::ErrorKind::NotFound, "he is nobody");
    world.refused("root's", world.launcher.forward(0, None));
    world.refused("one of the system's own", world.launcher.forward(33, None));
    let Some(world) = World::new("authent_method unix_user\nno_dotforward true\n") else { return };
    assert!(world.refused("what is ignored", world.launcher.forward(ANN, None)).contains("is not to be read"));
}

#[test]
fn only_what_the_configuration_names_is_bound_read_and_started() {
    // A port that nobody has; whoever takes it meanwhile makes the system refuse, not the launcher.
    let free = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
    let more =
        format!("pop_port {}\ntls_cert cert\ntls_key key\ngateway relay.test wrapped login=login\n", free.port());
    let Some(world) = World::new(&more) else { return };
    for name in ["key", "login"] {
        fs::write(world.path(name), "secret").unwrap();
    }
    let bound = world.launcher.bind(free);
    assert!(bound.is_ok() || bound.unwrap_err().kind() == io::ErrorKind::AddrInUse);
    let said = world.refused("port 1", world.launcher.bind("127.0.0.1:1".parse().unwrap()));
    assert!(said.contains("opens no such port"), "{said}");
    let said = world.refused("port everywhere", world.launcher.bind(([0, 0, 0, 0], free.port()).into()));
    assert!(said.contains("opens no such port"), "{said}");
    let read = |path: PathBuf| {
        let handed = world.launcher.request(&Request::Read(path.into_os_string().into_vec()));
        handed.map(|(_, mut descriptors)| descriptors.pop().unwrap())
    };
    for name in ["key", "login"] {
        let mut text = String::new();
        io::Read::read_to_string(&mut File::from(read(world.path(name)).unwrap()), &mut text).unwrap();
        assert_eq!(text, "secret");
    }
    for path in ["/etc/shadow".into(), world.path("other"), world.path("work/../key"), "key".into()] {
        let said = world.refused("reading", read(path));
        assert!(said.contains("names no such file"), "{said}");
    }
    let mut program = Helpers::program(&world.settings());
    program.args.push("-x".to_owned());
    let said = world.refused("starting", world.launcher.start(&program));
    assert!(said.contains("no such authenticator"), "{said}");
}

#[test]
fn an_authenticator_runs_as_the_server_and_ends_when_it_is_let_go() {
    let Some(world) = World::new("") else { return };
    let program = Helpers::program(&world.settings());
    let (_, handed) = world.launcher.request(&Request::Start(digest(&program))).unwrap();
    let [stdin, stdout, _, eye, leash]: [OwnedFd; child::HANDED] = handed.try_into().unwrap();
    (&File::from(stdin.try_clone().unwrap())).write_all(b"x").unwrap();
    let mut byte = [0];
    io::Read::read_exact(&mut File::from(stdout), &mut byte).unwrap();
    let pid = fs::read_dir("/proc").unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let status = fs::read_to_string(path.join("status")).ok()?;
        (status.contains(&format!("Uid:\t{SERVER}\t{SERVER}\t{SERVER}\t{SERVER}\n"))
            && status.starts_with("Name:\tcat\n"))
        .then_some(path)
    });
    assert!(pid.is_some(), "it runs, and as the server's user");
    assert_eq!(channel::wait(&[eye.as_fd()], Some(std::time::Duration::ZERO)).unwrap(), [false]);
    drop(leash);
    assert_eq!(channel::wait(&[eye.as_fd()], None).unwrap(), [true]);
    drop(stdin);
}

#[test]
fn a_reload_believes_root_alone_and_keeps_what_the_server_lives_by() {
    let Some(world) = World::new("pop_port 4001\n") else { return };
    let old = Helpers::program(&world.settings());
    let path = World::write(&world.folder, "pop_port 4001\nmin_uid 600\n");
    assert!(world.refused("nonsense", world.launcher.reload()).contains("min_uid is set already"));
    let spoil: [&dyn Fn(); 4] = [
        &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap(),
        &|| chown(&path, Some(ANN), None).unwrap(),
        &|| fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o777)).unwrap(),
        &|| chown(world.folder.path(), Some(ANN), None).unwrap(),
    ];
    for spoil in spoil {
        World::write(&world.folder, "");
        chown(&path, Some(0), None).unwrap();
        chown(world.folder.path(), Some(0), None).unwrap();
        fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        spoil();
        let said = world.refused("a reload", world.launcher.reload());
        assert!(said.contains("with run_as root does what this file says"), "{said}");
    }
    chown(world.folder.path(), Some(0), None).unwrap();
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("/bin/cat", "/bin/true")).unwrap();
    let new = Helpers::program(&world.settings());
    for _ in 0..3 {
        let number = world.launcher.reload().unwrap();
        assert!(world.launcher.start(&old).is_ok(), "reload {number}: the server still lives by the first");
        assert!(world.launcher.start(&new).is_ok());
    }
    world.launcher.adopt(world.launcher.reload().unwrap());
    world.launcher.reload().unwrap();
    assert!(world.launcher.start(&old).is_err() && world.launcher.start(&new).is_ok());
}

#[test]
fn what_is_no_request_is_refused_and_does_no_harm() {
    let Some(world) = World::new("") else { return };
    let (mut state, mut packet) = (1u64, Vec::new());
    for _ in 0..2000 {
        packet.clear();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        packet.extend(state.to_le_bytes().iter().cycle().take((state >> 32) as usize % 40 + 1));
        assert!(world.launcher.raw(&packet).is_none_or(|answer| matches!(answer, Answer::Refused(..))), "{packet:?}");
    }
    assert!(matches!(world.launcher.raw(&[b'O'; PACKET + 1]), Some(Answer::Refused(0, _))));
    let ann = world.drop("spool/ann", ANN, 0o600);
    assert!(world.launcher.open(&ann, ANN, false).is_ok());
}

#[test]
fn a_robot_is_run_from_the_approved_directory_as_whoever_the_configuration_lets_it_be() {
    let robots = "robot_path robots\nrobot_user nobody\nuser_robots true\nrun_as daemon\n";
    let Some(world) = World::new(robots) else { return };
    let folder = world.path("robots");
    fs::create_dir(&folder).unwrap();
    let may = |mode: u32| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    may(0o755);
    symlink("/bin/sh", folder.join("sh")).unwrap();
    let nobody = user::find("nobody").unwrap().unwrap().uid;
    let request = |name: &str, script: &str, uid: Option<u32>| Request::Robot {
        name: name.into(),
        args: vec![b"-c".to_vec(), script.as_bytes().to_vec()],
        uid,
        facts: std::array::from_fn(|index| vec![b'0' + index as u8]),
    };
    let message = || {
        let path = world.path("message");
        fs::write(&path, "hello\n").unwrap();
        File::open(path).unwrap()
    };
    let ask = |request: &Request| world.launcher.robot(request, &message());
    for uid in [None, Some(nobody)] {
        let running = ask(&request("sh", "id -u; echo $SENDER$RECIPIENT$CLIENT_ADDRESS; cat; exit 7", uid)).unwrap();
        let (end, said) = running.until_end();
        assert_eq!((end, said), (rules::robot::End::Exited(7), format!("{nobody}\n016\nhello\n")));
    }
    // Let go, it ends.
    let running = ask(&request("sh", "echo $$; exec sleep 600", None)).unwrap();
    let pid = running.first_line().parse().unwrap();
    let eye = process::watch(pid).unwrap();
    drop(running);
    assert_eq!(channel::wait(&[eye.as_fd()], None).unwrap(), [true]);

    for (name, uid, why) in [
        ("/bin/sh", None, "not the name"),
        ("../robots/sh", None, "not the name"),
        ("sh/", None, "not the name"),
        ("..", None, "not the name"),
        ("", None, "not the name"),
        ("bash", None, "No such file"),
        ("sh", Some(0), "may have no programs"),
        ("sh", Some(499), "may have no programs"),
        ("sh", Some(ANN), "no such user"),
    ] {
        let said = world.refused(name, ask(&request(name, "exit 0", uid)).map(|_| ()));
        assert!(said.contains(why), "{name}: {said}");
    }
    let bare = world.launcher.request(&request("sh", "exit 0", None));
    assert!(world.refused("no message", bare).contains("one message"));
    may(0o775);
    assert!(world.refused("a directory", ask(&request("sh", "", None)).map(|_| ())).contains("a directory of root's"));
    may(0o755);
    chown(&folder, Some(ANN), None).unwrap();
    assert!(world.refused("a directory", ask(&request("sh", "", None)).map(|_| ())).contains("a directory of root's"));
    fs::remove_file(folder.join("sh")).unwrap();
    fs::remove_dir(&folder).unwrap();
    fs::create_dir(world.path("elsewhere/robots")).unwrap();
    symlink(world.path("elsewhere/robots"), &folder).unwrap();
    assert!(world.refused("a link", ask(&request("sh", "", None)).map(|_| ())).contains("a directory of root's"));
}

#[test]
fn without_settings_for_them_no_robots_are_run() {
    let Some(world) = World::new("") else { return };
    for (more, why) in [("", "no robot_path"), ("robot_path spool\n", "no robot_user")] {
        World::write(&world.folder, more);
        world.launcher.adopt(world.launcher.reload().unwrap());
        let facts = Default::default();
        let request = Request::Robot { name: b"sh".to_vec(), args: Vec::new(), uid: None, facts };
        let message = File::open("/dev/null").unwrap();
        let said = world.refused("a robot", world.launcher.robot(&request, &message).map(|_| ()));
        assert!(said.contains(why), "{said}");
    }
    let request =
        Request::Robot { name: b"sh".to_vec(), args: Vec::new(), uid: Some(65_534), facts: Default::default() };
    let said = world.refused("a user's", world.launcher.robot(&request, &File::open("/dev/null").unwrap()).map(|_| ()));
    assert!(said.contains("may have no programs"), "{said}");
}
