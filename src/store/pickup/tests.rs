//! The drop directory on real files: what is left is read as it was meant, and nothing hostile is.

use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, SystemTime};

use super::*;
use crate::store::tests::sim::SimDisk;

const TERMS: Terms = Terms { size: 10_000_000, hops: 3 };
const MAIL: &str = "FROM:<ann@x.org> BODY=8BITMIME RET=HDRS ENVID=id";

struct Site {
    folder: tempfile::TempDir,
    incoming: Incoming,
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let incoming = Incoming::open(folder.path(), None).unwrap();
        Site { folder, incoming }
    }

    fn leave(&self, text: &str) -> String {
        leave(self.folder.path(), MAIL, &["TO:<bob@y> NOTIFY=NEVER", "TO:<carl@z>"], &mut |out| out(text.as_bytes()))
            .unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(FOLDER).join(name)
    }

    /// A file of anybody's making.
    fn put(&self, bytes: &[u8]) -> String {
        let name = name_of(fs::read_dir(self.folder.path().join(FOLDER)).unwrap().count());
        fs::write(self.path(&name), bytes).unwrap();
        name
    }

    fn strange(&self, name: &str) -> String {
        match self.incoming.read(name, &TERMS) {
            Err(Bad::Strange(why)) => why,
            other => panic!("{name}: {other:?}"),
        }
    }
}

fn name_of(number: usize) -> String {
    let digit = |at: usize| char::from(LETTERS[number / 32_usize.pow(at as u32) % 32]);
    (0..NAME).map(|at| digit(at.min(3))).collect()
}

#[test]
fn what_is_left_is_found_and_says_what_it_was_told() {
    let site = Site::new();
    let name = site.leave("A: b\n\nhello\n");
    assert_eq!(site.incoming.names().unwrap(), std::slice::from_ref(&name));
    let about = fs::metadata(site.path(&name)).unwrap();
    assert_eq!((about.mode() & 0o777, about.nlink()), (0o644, 1));
    let slip = site.incoming.read(&name, &TERMS).unwrap();
    assert_eq!((slip.uid, slip.left_secs), (about.uid(), about.mtime()));
    assert_eq!(slip.sender.path.unwrap().to_string(), "ann@x.org");
    assert!(slip.sender.eight_bit && slip.sender.envid.as_deref() == Some("id"));
    let paths: Vec<String> = slip.recipients.iter().map(|recipient| recipient.path.to_string()).collect();
    assert_eq!(paths, ["bob@y", "carl@z"]);
    assert!(slip.recipients[0].notify.is_some() && slip.recipients[1].notify.is_none());
    let text = fs::read(site.path(&name)).unwrap();
    assert_eq!(&text[slip.text_from as usize..], b"A: b\n\nhello\n");
}

#[test]
fn who_cannot_finish_leaves_nothing_behind() {
    let site = Site::new();
    let fault = leave(site.folder.path(), MAIL, &["TO:<bob@y>"], &mut |out| {
        out(b"half")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert!(fault.unwrap_err().to_string().starts_with("writing "));
    assert_eq!(fs::read_dir(site.folder.path().join(FOLDER)).unwrap().count(), 0);
    fs::remove_dir(site.folder.path().join(FOLDER)).unwrap();
    let fault = leave(site.folder.path(), MAIL, &["TO:<bob@y>"], &mut |_| Ok(())).unwrap_err();
    assert!(fault.to_string().starts_with("making a file in "), "{fault}");
}

#[test]
fn the_directory_is_its_groups_to_write_to_and_nobodys_to_list() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |group| {
        drop(Incoming::open(folder.path(), group).unwrap());
        let about = fs::metadata(folder.path().join(FOLDER)).unwrap();
        (about.mode() & 0o7777, about.gid())
    };
    let own = fs::metadata(folder.path()).unwrap().gid();
    assert_eq!(mode(None), (0o700, own));
    assert_eq!(mode(Some(own)), (0o1730, own));
    // The group was taken out of the configuration.
    assert_eq!(mode(None), (0o700, own));
}

#[test]
fn only_regular_files_of_one_name_are_read() {
    let site = Site::new();
    let name = site.leave("A: b\n");
    fs::hard_link(site.path(&name), site.folder.path().join("second")).unwrap();
    assert_eq!(site.strange(&name), "it has another name besides");
    fs::remove_file(site.folder.path().join("second")).unwrap();
    assert!(site.incoming.read(&name, &TERMS).is_ok());
    let (link, dir) = (name_of(40), name_of(41));
    symlink(site.path(&name), site.path(&link)).unwrap();
    fs::create_dir(site.path(&dir)).unwrap();
    for name in [&link, &dir] {
        assert_eq!(site.strange(name), "it is no regular file");
    }
    assert!(matches!(site.incoming.read(&name_of(42), &TERMS), Err(Bad::Gone)));
}

#[test]
fn what_is_no_message_is_refused_with_a_reason() {
    let site = Site::new();
    let many = format!("DMAIL 1\nMAIL FROM:<>\n{}DATA\n", "RCPT TO:<b@y>\n".repeat(RECIPIENTS + 1));
    for (text, why) in [
        ("", "it ends within its envelope"),
        ("DMAIL 1", "it ends within its envelope"),
        ("DMAIL 2\nMAIL FROM:<>\nRCPT TO:<b@y>\nDATA\n", "it does not begin as a message does"),
        ("From: x\n\n", "it does not begin as a message does"),
        ("DMAIL 1\nRCPT TO:<b@y>\nDATA\n", "it names no sender"),
        ("DMAIL 1\nMAIL FROM:<a b>\nRCPT TO:<b@y>\nDATA\n", "its sender is none"),
        ("DMAIL 1\nMAIL FROM:<> FROB=1\nRCPT TO:<b@y>\nDATA\n", "its sender is none"),
        ("DMAIL 1\nMAIL FROM:<>\nDATA\n", "it names no recipient"),
        ("DMAIL 1\nMAIL FROM:<>\nRCPT TO:<>\nDATA\n", "a recipient is none"),
        ("DMAIL 1\nMAIL FROM:<>\nRCPT TO:<|prog>\nDATA\n", "a recipient is none"),
        ("DMAIL 1\nMAIL FROM:<>\nRCPT TO:<b@y>\r\nDATA\n", "a recipient is none"),
        ("DMAIL 1\nMAIL FROM:<>\nRCPT TO:<b@y>\nBCC\nDATA\n", "a line of its envelope is none"),
        ("DMAIL 1\nMAIL FROM:<>\nRCPT TO:<b@y>\n", "it ends within its envelope"),
        (many.as_str(), "it has too many recipients"),
        (&format!("DMAIL 1\nMAIL FROM:<{}", "x".repeat(3 * LINE_LIMIT)), "a line of its envelope is too long"),
    ] {
        let name = site.put(text.as_bytes());
        assert_eq!(site.strange(&name), why, "{}", &text[..text.len().min(80)]);
    }
    let name = site.put(&[b"DMAIL 1\nMAIL FROM:<>\nRCPT TO:<b@y>\nDATA\n", &vec![b'x'; 100_000][..]].concat());
    assert!(site.incoming.read(&name, &TERMS).is_ok());
    let small = Terms { size: 10, hops: 3 };
    let huge = fs::OpenOptions::new().write(true).open(site.path(&name)).unwrap();
    huge.set_len(ENVELOPE_LIMIT + 11).unwrap();
    assert!(matches!(site.incoming.read(&name, &small), Err(Bad::Strange(why)) if why.starts_with("it is too big")));
}

#[test]
fn strangers_names_are_left_alone_and_unfinished_files_go_when_they_are_old() {
    let site = Site::new();
    let (young, old) = (name_of(1), name_of(2));
    for name in ["README", &format!("{young}.tmp"), &format!("{old}.tmp"), "short", &name_of(20).to_lowercase()] {
        fs::write(site.path(name), "x").unwrap();
    }
    let then = SystemTime::now() - Duration::from_secs(STALE_SECS.unsigned_abs() + 60);
    let file = fs::OpenOptions::new().write(true).open(site.path(&format!("{old}.tmp"))).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(then)).unwrap();
    assert!(site.incoming.names().unwrap().is_empty());
    assert!(site.path(&format!("{young}.tmp")).exists() && !site.path(&format!("{old}.tmp")).exists());
    assert_eq!(fs::read_dir(site.folder.path().join(FOLDER)).unwrap().count(), 4);
}

#[test]
fn one_look_is_a_bounded_number_of_names() {
    let site = Site::new();
    for number in 0..BATCH + 20 {
        fs::write(site.path(&name_of(number)), "").unwrap();
    }
    assert_eq!(site.incoming.names().unwrap().len(), BATCH);
}

#[test]
fn what_is_set_aside_is_kept_for_the_operator_up_to_a_number() {
    let site = Site::new();
    for number in 0..BAD_KEPT + 2 {
        let name = name_of(number);
        fs::write(site.path(&name), "bad").unwrap();
        let aside = site.incoming.set_aside(&name).unwrap();
        assert_eq!(aside.is_some(), number < BAD_KEPT);
        assert!(!site.path(&name).exists() && aside.is_none_or(|path| fs::read(path).unwrap() == b"bad"));
    }
    assert_eq!(fs::read_dir(site.folder.path().join(BAD)).unwrap().count(), BAD_KEPT);
}

fn about(slip: &Slip) -> About {
    let received = format!("Received: from localhost (uid {})\n\tby h with local id {}; today\n", slip.uid, slip.name);
    About { received: received.into_bytes(), came: "left".to_owned(), kinds: vec![Kind::Local; slip.recipients.len()] }
}

#[test]
fn what_is_taken_is_in_the_queue_as_a_message_of_strangers_would_be() {
    let site = Site::new();
    let queue = Queue::open(site.folder.path()).unwrap();
    for (text, stored) in [
        ("A: b\n\nhello\n".to_owned(), "A: b\n\nhello\n".to_owned()),
        ("A: b\r\n\r\nhel\rlo\0\r\n.\r\nend".to_owned(), "A: b\n\nhel\nlo\n.\nend\n".to_owned()),
        ("no header\n".to_owned(), "\nno header\n".to_owned()),
        (format!("A: b\n\n{}", "long\r\n".repeat(50_000)), format!("A: b\n\n{}", "long\n".repeat(50_000))),
    ] {
        let name = site.leave(&text);
        let taken = site.incoming.take(&name, &TERMS, &queue, &about).unwrap();
        let octets = stored.len() as u64 + stored.matches('\n').count() as u64;
        let uid = fs::metadata(site.folder.path()).unwrap().uid();
        let wanted = Taken {
            id: name.clone(),
            uid,
            sender: "ann@x.org".to_owned(),
            recipients: vec!["bob@y".to_owned(), "carl@z".to_owned()],
            octets,
            again: false,
        };
        assert_eq!(taken, wanted);
        let message = queue.read(&name).unwrap();
        assert_eq!((message.text_bytes, message.recipients), (stored.len() as u64, 2));
        assert!(message.envelope.eight_bit && message.envelope.envid.as_deref() == Some("id"));
        let received = String::from_utf8(message.envelope.received).unwrap();
        assert!(received.contains(&format!("(uid {uid})\n\tby h with local id {name}")), "{received}");
        assert_eq!(queue.beginning(&name, 1 << 20).unwrap(), stored.into_bytes());
        assert!(site.incoming.names().unwrap().is_empty() && !site.folder.path().join(COPY).exists());
    }
}

#[test]
fn what_goes_round_or_is_too_big_is_not_taken_and_leaves_nothing_in_the_queue() {
    let site = Site::new();
    let queue = Queue::open(site.folder.path()).unwrap();
    let long = format!("A: b\n\n{}", "x\n".repeat(100_000));
    for (text, terms, why) in [
        ("Received: x\n".repeat(4), TERMS, "it is going round in circles: too many Received fields"),
        (long.clone(), Terms { size: 300_000, ..TERMS }, "it is too big: 300008 octets"),
        (format!("A: {}", "x".repeat(HEADER_LIMIT)), TERMS, "its header is too big"),
    ] {
        let name = site.leave(&text);
        match site.incoming.take(&name, &terms, &queue, &about) {
            Err(Bad::Strange(said)) => assert_eq!(said, why),
            other => panic!("{why}: {other:?}"),
        }
        assert!(matches!(queue.read(&name), Err(queue::Miss::Gone)));
        assert!(!site.folder.path().join(COPY).exists());
    }
    let name = site.leave(&long);
    assert!(site.incoming.take(&name, &Terms { size: 300_008, ..TERMS }, &queue, &about).is_ok());
}

/// A machine that may end at any moment. What was delivered is counted outside of it.
struct Machine {
    disk: SimDisk,
    delivered: Vec<String>,
}

impl Machine {
    fn new(seed: u64, text: &str) -> Machine {
        let disk = SimDisk::new(seed, &["/work", "/work/incoming"]);
        let bytes = format!("DMAIL 1\nMAIL FROM:<ann@x>\nRCPT TO:<bob@y>\nDATA\n{text}");
        disk.world().put(&Path::new("/work/incoming").join(name_of(7)), bytes.as_bytes(), true);
        Machine { disk, delivered: Vec::new() }
    }

    fn open(&self) -> (Incoming<SimDisk>, Queue<SimDisk>) {
        let work = Path::new("/work");
        (Incoming::open_on(&self.disk, work).unwrap(), Queue::open_on(&self.disk, work).unwrap())
    }

    /// What the queue has is delivered and leaves it.
    fn deliver(&mut self, queue: &Queue<SimDisk>, id: &str) {
        self.delivered.push(id.to_owned());
        queue.note(id, 1, &[queue::Change { number: 1, to: queue::State::Delivered }]).unwrap();
        assert!(queue.remove(id).unwrap());
    }

    /// A server starts and does all there is to do.
    fn run(&mut self) {
        let (incoming, queue) = self.open();
        incoming.settle(&queue).unwrap();
        let mut waiting = Vec::new();
        queue
            .each(&mut |found| match found {
                queue::Found::Message(message) => waiting.push(message.id),
                other => panic!("{other:?}"),
            })
            .unwrap();
        for id in waiting {
            self.deliver(&queue, &id);
        }
        for name in incoming.names().unwrap() {
            let taken = incoming.take(&name, &TERMS, &queue, &about).unwrap();
            self.deliver(&queue, &taken.id);
        }
        assert!(incoming.names().unwrap().is_empty());
    }
}

#[test]
fn whenever_the_server_ends_a_message_is_delivered_once() {
    let large = "x\n".repeat(MEMORY);
    for text in ["A: b\n\nhello\n", large.as_str()] {
        let (mut stops, mut between) = (0, 0);
        for at in 1.. {
            let mut whole = false;
            for seed in 0..12 {
                let mut machine = Machine::new(seed, text);
                let (incoming, queue) = machine.open();
                {
                    let mut world = machine.disk.world();
                    world.stop_at = Some(world.calls + at);
                }
                let taken = incoming.take(&name_of(7), &TERMS, &queue, &about);
                machine.disk.world().stop_at = None;
                whole = taken.is_ok();
                if whole {
                    machine.deliver(&queue, &name_of(7));
                }
                drop((incoming, queue));
                if seed % 3 == 0 {
                    machine.disk.world().kill();
                } else {
                    machine.disk.world().cut_power();
                }
                machine.disk = machine.disk.again();
                let names = |dir: &str| machine.disk.world().names(Path::new(dir));
                between +=
                    usize::from(names("/work/queue").contains(&name_of(7)) && !names("/work/incoming").is_empty());
                machine.run();
                assert_eq!(machine.delivered.len(), 1, "stopped at call {at}, seed {seed}: {:?}", machine.delivered);
                machine.disk.world().cut_power();
                machine.disk = machine.disk.again();
                machine.run();
                assert_eq!(machine.delivered.len(), 1, "and once more after a restart: call {at}, seed {seed}");
            }
            stops += 1;
            if whole {
                break;
            }
        }
        assert!(stops > 8 && between > 0, "{stops} stops, {between} between the two steps");
    }
}

#[test]
fn what_is_written_behind_the_end_that_was_judged_is_not_read() {
    let site = Site::new();
    let name = site.leave("A: b\n\nhello\n");
    let (slip, file) = site.incoming.open_slip(&name, &TERMS).unwrap();
    fs::File::options().append(true).open(site.path(&name)).unwrap().set_len(TERMS.size * 2).unwrap();
    let mut copy = Copy { memory: Vec::new(), file: None, file_bytes: 0 };
    site.incoming.copied(&slip, &file, &mut copy).unwrap();
    assert_eq!((&copy.memory[..], copy.file_bytes), (&b"hello\n"[..], 0));
}
