//! The engine against servers of a few lines, over loopback. What they do wrong is what is to be found.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use super::*;
use crate::letter::{Heading, Letter, Stamp, State};
use crate::work::{Account, Acts, End, Event, Fate, Line, Mail, PopTask, SmtpTask};

const MS: Duration = Duration::from_millis(1);

/// A server for one conversation at a time.
struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Its side of a conversation.
struct Peer {
    lines: BufReader<TcpStream>,
}

impl Peer {
    /// The next line, without its end; none when the client is gone.
    fn hear(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let count = self.lines.read_until(b'\n', &mut line).unwrap_or(0);
        (count > 0).then(|| String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// That the client is gone is its own affair.
    fn say(&mut self, text: &str) {
        let _ = self.lines.get_mut().write_all(text.as_bytes());
    }
}

impl Server {
    /// `talk` gets each conversation and its number, from 0.
    fn start(mut talk: impl FnMut(&mut Peer, usize) + Send + 'static) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let thread = thread::spawn(move || {
            for number in 0.. {
                let Ok((socket, _)) = listener.accept() else { return };
                if seen.load(Ordering::SeqCst) {
                    return;
                }
                talk(&mut Peer { lines: BufReader::new(socket) }, number);
            }
        });
        Server { address, over, thread: Some(thread) }
    }

    fn run(&self, pace: Pace, duration: Duration) -> Run {
        let target = Target { pop: Some(self.address), smtp: Some(self.address), ..Target::default() };
        Run { target, pace, duration, patience: 5000 * MS, ..Run::default() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// So many tasks like this one, and what was told.
struct Tasks {
    task: Task,
    left: usize,
    told: Vec<String>,
}

impl Tasks {
    fn new(task: Task, left: usize) -> Tasks {
        Tasks { task, left, told: Vec::new() }
    }

    fn pop(acts: Acts) -> PopTask {
        let account = Account { number: 7, login: "ann".into(), password: "x".into() };
        PopTask::new("pop", account, acts)
    }
}

impl Work for Tasks {
    fn next(&mut self, _client: usize, _now: Instant) -> Option<Task> {
        self.left = self.left.checked_sub(1)?;
        Some(self.task.clone())
    }

    fn told(&mut self, event: &Event<'_>) {
        self.told.push(match event {
            Event::Sending { mail } => format!("sending {}", mail.stamp.seq),
            Event::Told { mail, verdict } => format!("{} {:?} {:?}", mail.stamp.seq, verdict.end, verdict.recipients),
            Event::Listed { uids, .. } => format!("listed {}", uids.len()),
            Event::Retrieved { seen, .. } => format!("retrieved {:?}", seen.stamp.map(|stamp| stamp.seq)),
            Event::Quitting { deleted, .. } => format!("quitting {}", deleted.len()),
            Event::Committed { deleted, .. } => format!("committed {}", deleted.len()),
        });
    }
}

const ONE: Pace = Pace::Closed { clients: 1 };
const LONG: Duration = Duration::from_secs(60);

/// Does so many of a task, one after the other, and gives what was measured and told.
fn done(server: &Server, task: Task, times: usize) -> (Meter, Vec<String>) {
    let (mut meter, mut work) = (Meter::default(), Tasks::new(task, times));
    run(&server.run(ONE, LONG), &mut work, &mut meter, &mut |_, _| {}).unwrap();
    (meter, work.told)
}

fn errors(meter: &Meter) -> Vec<(&'static str, u64)> {
    meter.kinds().values().flat_map(|kind| kind.errors.iter().map(|(what, errors)| (*what, errors.count))).collect()
}

/// A drop with these messages, CRLF ends, served as it should be; `bend` may change what is said to a command.
fn drop_of(
    messages: Vec<Vec<u8>>,
    mut bend: impl FnMut(usize, &str, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
) -> Server {
    Server::start(move |peer, number| {
        peer.say("+OK\r\n");
        loop {
            let Some(line) = peer.hear() else { return };
            let mut words = line.split(' ');
            let said = match (words.next().unwrap_or_default(), words.next()) {
                ("STAT", _) => {
                    let octets: usize = messages.iter().map(Vec::len).sum();
                    format!("+OK {} {octets}\r\n", messages.len()).into_bytes()
                }
                ("LIST", _) => listing(messages.iter().map(|message| message.len().to_string())),
                ("UIDL", _) => listing((1..=messages.len()).map(|at| format!("uid{at}"))),
                ("RETR", Some(at)) => {
                    let message = &messages[at.parse::<usize>().unwrap() - 1];
                    let mut said = b"+OK\r\n".to_vec();
                    for line in message.split_inclusive(|&byte| byte == b'\n') {
                        said.extend(line.starts_with(b".").then_some(b'.'));
                        said.extend_from_slice(line);
                    }
                    said.extend_from_slice(b".\r\n");
                    said
                }
                _ => b"+OK\r\n".to_vec(),
            };
            match bend(number, &line, said) {
                Some(said) => drop(peer.lines.get_mut().write_all(&said)),
                None => return,
            }
            if line == "QUIT" {
                return;
            }
        }
    })
}

fn listing(values: impl Iterator<Item = String>) -> Vec<u8> {
    let lines: String = values.enumerate().map(|(at, value)| format!("{} {value}\r\n", at + 1)).collect();
    format!("+OK\r\n{lines}.\r\n").into_bytes()
}

/// Real letters, and one that no loadtest made.
fn messages() -> Vec<Vec<u8>> {
    let heading = Heading { from: "a@b.c", to: "d@e.f", written_secs: 0, state: State::Sent };
    let letter = |seq| {
        let mut text = Vec::new();
        Letter::new(Stamp { id: 1, seq }, 2000, &heading).push_to(&mut text);
        text.iter().flat_map(|&byte| if byte == b'\n' { vec![b'\r', b'\n'] } else { vec![byte] }).collect()
    };
    vec![letter(1), b"Subject: x\r\n\r\n.dot\r\n".to_vec(), letter(2)]
}

#[test]
fn all_that_is_as_it_should_be_is_counted_and_told() {
    let server = drop_of(messages(), |_, _, said| Some(said));
    let (meter, told) = done(&server, Task::Pop(Tasks::pop(Acts::FetchDelete)), 2);
    assert_eq!(errors(&meter), []);
    let kind = &meter.kinds()["pop"];
    assert_eq!((kind.count, kind.messages, kind.steps["retr"].len(), kind.steps["dele"].len()), (2, 6, 6, 6));
    let once = ["retrieved Some(1)", "retrieved None", "retrieved Some(2)", "quitting 3", "committed 3"];
    assert_eq!(told, [once, once].concat());
}

#[test]
fn commands_may_be_under_way_together_and_the_checks_are_the_same() {
    let server = drop_of(messages(), |_, _, said| Some(said));
    let task = PopTask { pipeline: 4, ..Tasks::pop(Acts::FetchDelete) };
    let (meter, told) = done(&server, Task::Pop(task), 1);
    assert_eq!(errors(&meter), []);
    assert_eq!(told.last().map(String::as_str), Some("committed 3"));
}

#[test]
fn each_thing_that_a_server_does_wrong_is_an_error_of_its_kind() {
    type Bend = fn(usize, &str, Vec<u8>) -> Option<Vec<u8>>;
    let cases: &[(&str, Acts, Bend)] = &[
        ("wrong bytes", Acts::Leave, |_, line, mut said| {
            if line == "RETR 3" {
                let at = said.len() - 20;
                said[at] ^= 1;
            }
            Some(said)
        }),
        ("wrong size", Acts::Leave, |_, line, mut said| {
            if line == "RETR 2" {
                said.remove(6);
            }
            Some(said)
        }),
        ("wrong list", Acts::Leave, |_, line, said| Some(if line == "STAT" { b"+OK 3 1\r\n".to_vec() } else { said })),
        ("wrong uid", Acts::Leave, |_, line, said| {
            Some(if line == "UIDL" { listing(["a", "b", "a"].map(str::to_owned).into_iter()) } else { said })
        }),
        ("closed early", Acts::Poll, |_, line, said| (!line.starts_with("STAT")).then_some(said)),
        ("-ERR [IN-USE]", Acts::Poll, |_, line, said| {
            Some(if line.starts_with("PASS") { b"-ERR [IN-USE] locked\r\n".to_vec() } else { said })
        }),
        ("-ERR", Acts::FetchDelete, |_, line, said| {
            Some(if line == "QUIT" { b"-ERR some were not deleted\r\n".to_vec() } else { said })
        }),
        ("nonsense", Acts::Poll, |_, line, said| Some(if line == "STAT" { b"* OK\r\n".to_vec() } else { said })),
    ];
    for (what, acts, bend) in cases {
        let server = drop_of(messages(), bend);
        let (meter, told) = done(&server, Task::Pop(Tasks::pop(*acts)), 1);
        assert_eq!(errors(&meter), [(*what, 1)], "{:?}", meter.kinds()["pop"].errors);
        assert_eq!(meter.count(), 0, "{what}");
        assert!(!told.contains(&"committed 3".to_owned()), "{what}");
    }
}

#[test]
fn a_unique_id_that_changes_between_two_visits_is_an_error_and_new_mail_is_none() {
    let server = drop_of(messages(), |number, line, said| {
        let ids: &[&str] = [&["a", "b", "c"][..], &["a", "b", "c"], &["a", "x", "c"]][number];
        Some(if line == "UIDL" { listing(ids.iter().map(|id| (*id).to_owned())) } else { said })
    });
    let (meter, told) = done(&server, Task::Pop(Tasks::pop(Acts::Leave)), 3);
    assert_eq!(errors(&meter), [("wrong uid", 1)]);
    // The second visit found nothing new; the third trusts nothing that it knew.
    assert_eq!(told.len(), 6);
}

#[test]
fn a_letter_twice_in_a_drop_is_an_error_and_one_that_is_retrieved_twice_is_none() {
    let server = drop_of(messages(), |_, _, said| Some(said));
    assert_eq!(errors(&done(&server, Task::Pop(Tasks::pop(Acts::Retrieve(7))), 1).0), []);
    let twice = [messages(), messages()].concat();
    let server = drop_of(twice, |_, _, said| Some(said));
    assert_eq!(errors(&done(&server, Task::Pop(Tasks::pop(Acts::FetchDelete)), 1).0), [("doubled", 2)]);
}

#[test]
fn a_wrong_password_that_is_good_enough_is_an_error_and_its_refusal_is_none() {
    let task = || Task::Pop(PopTask { wrong_password: true, ..Tasks::pop(Acts::Poll) });
    let server = drop_of(messages(), |_, _, said| Some(said));
    assert_eq!(errors(&done(&server, task(), 1).0), [("let in", 1)]);
    let server = drop_of(messages(), |_, line, said| {
        Some(if line.starts_with("PASS") { b"-ERR [AUTH] no\r\n".to_vec() } else { said })
    });
    let (meter, _) = done(&server, task(), 1);
    assert_eq!((errors(&meter), meter.count()), (vec![], 1));
}

#[test]
fn nobody_at_the_door_is_refused_and_no_door_is_said() {
    let server = Server::start(|_, _| {});
    let mut run = server.run(ONE, LONG);
    // A port that was free a moment ago, and that nobody was told of.
    run.target.pop = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().ok();
    let (mut meter, mut work) = (Meter::default(), Tasks::new(Task::Pop(Tasks::pop(Acts::Poll)), 1));
    super::run(&run, &mut work, &mut meter, &mut |_, _| {}).unwrap();
    assert_eq!(errors(&meter), [("refused", 1)]);
    run.target.pop = None;
    let (mut meter, mut work) = (Meter::default(), Tasks::new(Task::Pop(Tasks::pop(Acts::Poll)), 1));
    super::run(&run, &mut work, &mut meter, &mut |_, _| {}).unwrap();
    assert_eq!(errors(&meter), [("no door", 1)]);
}

#[test]
fn faults_that_are_meant_to_be_are_no_errors() {
    let fates = [
        ("vanished", Fate::Vanishes { after: 100, silent: 10 * MS }),
        ("reset", Fate::Resets { after: 100 }),
        ("half open", Fate::HalfOpen { after: 100 }),
        // No message is that long: it comes before QUIT.
        ("reset", Fate::Resets { after: 1 << 30 }),
    ];
    for (name, fate) in fates {
        let server = drop_of(messages(), |_, _, said| Some(said));
        let task = PopTask { line: Line { fate, ..Line::default() }, ..Tasks::pop(Acts::FetchDelete) };
        let (meter, told) = done(&server, Task::Pop(task), 1);
        let kind = &meter.kinds()["pop"];
        assert_eq!((errors(&meter), kind.injected.get(name), kind.count), (vec![], Some(&1), 0), "{name}");
        assert!(!told.iter().any(|told| told.starts_with("committed")), "{name}: {told:?}");
    }
}

/// A server that lets its third client wait for so long, and with it whoever comes behind.
fn stalling(long: Duration) -> Server {
    let (_keep, never) = mpsc::channel::<()>();
    Server::start(move |peer, number| {
        let _ = &_keep;
        peer.say("+OK\r\n");
        loop {
            let Some(line) = peer.hear() else { return };
            if number == 2 && line == "STAT" {
                let _ = never.recv_timeout(long);
            }
            peer.say(if line == "STAT" { "+OK 0 0\r\n" } else { "+OK\r\n" });
            if line == "QUIT" {
                return;
            }
        }
    })
}

#[test]
fn a_server_that_stalls_is_seen_in_an_open_loop_and_hides_in_a_closed_one() {
    let long = 600 * MS;
    let median = |pace| {
        let server = stalling(long);
        let (mut meter, mut work) = (Meter::default(), Tasks::new(Task::Pop(Tasks::pop(Acts::Poll)), usize::MAX));
        run(&server.run(pace, 800 * MS), &mut work, &mut meter, &mut |_, _| {}).unwrap();
        assert_eq!(errors(&meter), []);
        Duration::from_micros(meter.kinds()["pop"].whole.value_at_quantile(0.5))
    };
    // Each client of the closed loop waits for the server before it comes again: one of hundreds has waited.
    let closed = median(ONE);
    let open = median(Pace::Open { per_sec: 100.0, most: 1000, spacing: Spacing::Even });
    assert!(closed < 100 * MS && open > 100 * MS, "closed {closed:?}, open {open:?}");
}

#[test]
fn what_could_not_be_started_is_counted_and_so_is_what_never_ended() {
    let (keep, never) = mpsc::channel::<()>();
    let server = Server::start(move |_, _| drop(never.recv()));
    let pace = Pace::Open { per_sec: 200.0, most: 3, spacing: Spacing::Even };
    let run = Run { patience: 300 * MS, ..server.run(pace, 200 * MS) };
    let (mut meter, mut work) = (Meter::default(), Tasks::new(Task::Pop(Tasks::pop(Acts::Poll)), 20));
    super::run(&run, &mut work, &mut meter, &mut |_, _| {}).unwrap();
    drop(keep);
    let all = errors(&meter);
    let count = |what: &str| all.iter().find(|(found, _)| *found == what).map_or(0, |(_, count)| *count);
    assert_eq!(count("not started"), 17, "{all:?}");
    assert_eq!(count("timed out") + count("unfinished"), 3, "{all:?}");
}

#[test]
fn a_ramp_and_a_warm_up_are_not_counted() {
    let server = drop_of(Vec::new(), |_, _, said| Some(said));
    let pace = Pace::Open { per_sec: 100.0, most: 1000, spacing: Spacing::Even };
    let run = Run { ramp: 200 * MS, warm_up: 100 * MS, ..server.run(pace, 200 * MS) };
    let (mut meter, mut work) = (Meter::default(), Tasks::new(Task::Pop(Tasks::pop(Acts::Poll)), usize::MAX));
    super::run(&run, &mut work, &mut meter, &mut |_, _| {}).unwrap();
    // A ramp is half of the full rate: 10 arrivals, and 10 of the warm-up; then 20. One more or less by rounding.
    assert!(
        (19..=21).contains(&meter.warm()) && (19..=21).contains(&meter.count()),
        "{} {}",
        meter.warm(),
        meter.count()
    );
}

/// A server for mail; `bend` says what is answered to a line, DATA's end included (as `.`).
fn mail_server(mut bend: impl FnMut(&str) -> Option<&'static str> + Send + 'static) -> Server {
    Server::start(move |peer, _| {
        peer.say("220 x\r\n");
        loop {
            let Some(line) = peer.hear() else { return };
            let Some(said) = bend(&line) else { return };
            peer.say(said);
            if line == "DATA" && said.starts_with('3') {
                while peer.hear().is_some_and(|line| line != ".") {}
                let Some(said) = bend(".") else { return };
                peer.say(said);
            }
            if line == "QUIT" {
                return;
            }
        }
    })
}

fn as_usual(line: &str) -> Option<&'static str> {
    Some(match line {
        "DATA" => "354 x\r\n",
        "QUIT" => "221 x\r\n",
        _ if line.starts_with("EHLO") => "250-x\r\n250 8BITMIME\r\n",
        _ => "250 x\r\n",
    })
}

fn mails(count: u64) -> Task {
    let mail = |seq| Mail {
        stamp: Stamp { id: 1, seq },
        from: "a@b.c".into(),
        to: vec!["d@e.f".into(), "g@h.i".into()],
        bytes: 1500,
        written_secs: 0,
    };
    let mails = (1..=count).map(mail).collect();
    Task::Smtp(SmtpTask { kind: "smtp", port: Port::Smtp, auth: None, mails, line: Line::default() })
}

#[test]
fn what_a_server_says_of_each_mail_is_told_when_it_says_it() {
    let (meter, told) = done(&mail_server(as_usual), mails(2), 1);
    assert_eq!(errors(&meter), []);
    assert_eq!(meter.kinds()["smtp"].messages, 2);
    assert_eq!(told, ["sending 1", "1 Acked [250, 250]", "sending 2", "2 Acked [250, 250]"]);
}

#[test]
fn a_mail_is_refused_or_unknown_or_unsent_as_the_server_had_it() {
    type Bend = fn(&str) -> Option<&'static str>;
    let cases: &[(&str, End, &[u16], Bend)] = &[
        ("5xx", End::Refused(550), &[550, 550], |line| {
            if line.starts_with("MAIL") { Some("550 no\r\n") } else { as_usual(line) }
        }),
        (
            "4xx",
            End::Acked,
            &[450, 250],
            |line| {
                if line.contains("d@e.f") { Some("450 later\r\n") } else { as_usual(line) }
            },
        ),
        ("4xx", End::Refused(452), &[250, 250], |line| if line == "." { Some("452 full\r\n") } else { as_usual(line) }),
        ("closed early", End::Unknown, &[250, 250], |line| if line == "." { None } else { as_usual(line) }),
        ("closed early", End::Unsent, &[0, 0], |line| if line.starts_with("MAIL") { None } else { as_usual(line) }),
    ];
    for (what, end, recipients, bend) in cases {
        let (meter, told) = done(&mail_server(bend), mails(1), 1);
        let expected = format!("1 {end:?} {recipients:?}");
        assert_eq!(told.last(), Some(&expected), "{what}");
        assert!(errors(&meter).iter().all(|(found, _)| found == what), "{:?}", errors(&meter));
        assert!(meter.errors() > 0, "{what}");
    }
}

#[test]
fn a_sender_that_dies_amid_its_message_is_no_error_and_its_mail_has_not_arrived() {
    for fate in [Fate::Resets { after: 200 }, Fate::Vanishes { after: 200, silent: 10 * MS }] {
        let Task::Smtp(task) = mails(1) else { unreachable!("it is mail") };
        let task = Task::Smtp(SmtpTask { line: Line { fate, ..Line::default() }, ..task });
        let (meter, told) = done(&mail_server(as_usual), task, 1);
        assert_eq!((errors(&meter), meter.count()), (vec![], 0));
        assert_eq!(told, ["sending 1", "1 Unsent [250, 250]"]);
    }
}
