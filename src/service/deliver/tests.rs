//! Messages on real files and with the real pool of jobs: from DATA to the drop, and through the queue. Time is what the test
//! says.

mod bodies;
mod direct;
mod operated;
mod queued;
mod repeats;
mod together;
mod told;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::runner::{Doing, Runner};
use super::*;
use crate::mail::address::{self, Address};
use crate::net::stream::{Flow, Readiness, Scratch, Turn};
use crate::net::turn::{Entry, Id, Loop, Ticket};
use crate::net::{Registry, Token};
use crate::protocol::dns::{self, Answer, Record};
use crate::protocol::helper::{Account, Verdict};
use crate::rules::domains::Home;
use crate::service::route::Destination;
use crate::service::{Outcome, Shared};
use crate::sys::files::try_lock_ofd;

/// An entry that does nothing: a slot with an id.
struct Nobody;

impl Entry for Nobody {
    type Shared = ();

    fn register(&mut self, _: &Registry, _: &dyn Fn(usize) -> Token) -> std::io::Result<()> {
        Ok(())
    }
    fn deregister(&mut self, _: &Registry) {}
    fn mark(&mut self, _: usize, _: Readiness) {}
    fn turn(&mut self, _: Id, _: Instant, (): &mut (), _: &mut Scratch) -> Turn {
        Turn::Idle
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn expire(&mut self, _: Instant) {}
    fn kind(&self) -> &'static str {
        "nobody"
    }
}

/// When the tests' clock starts.
const EPOCH: i64 = 1_767_610_800;

/// A server of deliveries alone.
struct World {
    lp: Loop<Nobody>,
    shared: Shared,
    runner: Runner,
    office: Id,
    /// A conversation.
    client: Id,
    /// Who looks at other hosts, of whom there is none.
    senders: Id,
    /// Connections to them are being made, and nothing comes of that.
    calls_last: bool,
    serial: u32,
    begun: Instant,
    now: Instant,
    /// What came to the conversation.
    got: Vec<(Ticket, Outcome)>,
    /// Whom the authenticator knows; `None`: it does not answer.
    users: Option<Vec<&'static str>>,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        World::with(|_| {})
    }

    /// With these settings.
    fn with(change: impl FnOnce(&mut Settings)) -> World {
        World::at(tempfile::tempdir().unwrap(), change)
    }

    /// On what another has left.
    fn at(dir: tempfile::TempDir, change: impl FnOnce(&mut Settings)) -> World {
        let mut lp = Loop::new().unwrap();
        let mut shared = Shared::for_tests(dir.path(), &lp);
        let now = lp.now();
        let settings = Arc::make_mut(&mut shared.settings);
        let before = settings.body_memory;
        change(settings);
        if settings.body_memory != before {
            let most = settings.body_memory as usize * 1024;
            shared.transit.budget = Arc::new(Budget::open(&settings.work_path, 0, most).unwrap());
        }
        let (office, client) = (lp.insert(Nobody).unwrap(), lp.insert(Nobody).unwrap());
        let senders = lp.insert(Nobody).unwrap();
        let runner = Runner::at(now, EPOCH);
        World {
            lp,
            shared,
            runner,
            office,
            client,
            senders,
            calls_last: false,
            serial: 0,
            begun: now,
            now,
            got: Vec::new(),
            users: Some(vec!["bob", "eve", "kim"]),
            dir,
        }
    }

    /// The server is stopped, or killed, and another begins where it was.
    fn restart(self) -> World {
        let World { dir, shared, runner, .. } = self;
        drop((shared, runner));
        World::at(dir, |_| {})
    }

    fn ticket(&mut self) -> Ticket {
        self.serial += 1;
        Ticket { id: self.client, serial: self.serial }
    }

    /// One turn of the server. False: nothing moved.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        for (ticket, outcome) in self.shared.jobs.collect() {
            self.shared.collected(ticket, outcome);
        }
        for (ticket, outcome) in std::mem::take(&mut self.shared.post) {
            moved = true;
            if ticket.id == self.senders {
                self.shared.looked_up(self.now, ticket, outcome);
            } else if ticket.id == self.office {
                self.runner.deliver(self.now, ticket, outcome, &mut self.shared);
            } else {
                self.got.push((ticket, outcome));
            }
        }
        self.tell_users();
        self.shared.call_senders();
        self.runner.turn(self.office, self.now, &mut self.shared);
        self.shared.send_mail(self.now, self.senders);
        for (ticket, question) in std::mem::take(&mut self.shared.outgoing.questions) {
            let address = Record::Address([192, 0, 2, 1].into());
            let is_address = question.kind == dns::Kind::A;
            let answer = if is_address { Answer::Records([address].as_slice().into()) } else { Answer::NoData };
            self.shared.post.push_back((ticket, Outcome::Resolved(answer)));
        }
        for birth in self.shared.outgoing.born().into_iter().filter(|_| !self.calls_last) {
            self.shared.outgoing.began(self.now, birth.line(), Err("4.4.1 nobody is there".to_owned()));
            moved = true;
        }
        moved || !self.shared.post.is_empty()
    }

    /// What an authenticator is asked is answered.
    fn tell_users(&mut self) {
        // What routing waits for is a job, or the authenticator.
        let rests = self.shared.jobs.is_idle() && self.shared.post.is_empty();
        let is_asked = |doing: &Doing| rests && matches!(doing, Doing::Route(..));
        let asked = self.runner.doing.iter().filter(|(_, doing)| is_asked(doing));
        for (serial, user) in asked.map(|(serial, doing)| (*serial, self.runner.user_of(doing))).collect::<Vec<_>>() {
            let verdict = match &self.users {
                Some(users) if users.contains(&user.split('@').next().unwrap_or_default()) => {
                    let user = user.split('@').next().unwrap_or_default().into();
                    Verdict::Accepted(Account { user, path: None, uid: None, info: Vec::new() })
                }
                Some(_) => Verdict::Refused,
                None => Verdict::Unavailable,
            };
            self.shared.post.push_back((Ticket { id: self.office, serial }, Outcome::Verdict(verdict)));
        }
    }

    /// The files of the queue.
    fn queue(&self) -> Vec<String> {
        let mut names: Vec<String> = self.places().into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    /// The same, with the directory where each lies.
    fn places(&self) -> Vec<(String, String)> {
        let queue = self.shared.settings.work_path.join("queue");
        let (mut found, mut dirs) = (Vec::new(), vec![queue.clone()]);
        while let Some(dir) = dirs.pop() {
            // One that is empty may be taken away meanwhile.
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    dirs.push(entry.path());
                } else {
                    let place = dir.strip_prefix(&queue).unwrap().to_str().unwrap().to_owned();
                    found.push((entry.file_name().into_string().unwrap(), place));
                }
            }
        }
        found
    }

    fn place_of(&self, id: &str) -> String {
        self.places().into_iter().find(|(name, _)| name == id).unwrap().1
    }

    /// Until nothing moves any more.
    fn settle(&mut self) {
        loop {
            while self.turn() {}
            if self.shared.jobs.is_idle() {
                break;
            }
            self.lp.poll(Some(Instant::now() + Duration::from_secs(10))).unwrap();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.settle();
    }

    fn drop_of(&self, user: &str) -> PathBuf {
        self.shared.settings.drop_path.join(user)
    }

    fn mail_of(&self, user: &str) -> String {
        fs::read_to_string(self.drop_of(user)).unwrap_or_default()
    }

    fn mailbox(&self, user: &str) -> Destination {
        let name = self.shared.settings.domains.resolve(user.as_bytes(), Home::default()).unwrap();
        let account = Account { user: user.into(), path: None, uid: None, info: Vec::new() };
        Destination::Mailbox(name, Arc::new(account))
    }

    /// A body with this text, however long that takes.
    fn body(&mut self, text: &[u8]) -> Body {
        let mut body = self.shared.transit.body();
        for piece in text.chunks(10_000) {
            self.give(&mut body, piece);
        }
        body
    }

    /// Gives a piece to a body, as a conversation would.
    fn give(&mut self, body: &mut Body, piece: &[u8]) {
        let ticket = self.ticket();
        while body.wait(ticket, &mut self.shared) == Flow::Hold {
            self.progress(ticket, body);
        }
        let ticket = self.ticket();
        if body.take(piece, ticket, &mut self.shared) == Flow::Hold {
            self.progress(ticket, body);
        }
    }

    /// Waits for what a held sender is told.
    fn progress(&mut self, ticket: Ticket, body: &mut Body) {
        loop {
            self.turn();
            if let Some(at) = self.got.iter().position(|(known, _)| *known == ticket) {
                return match self.got.swap_remove(at).1 {
                    Outcome::Body(progress) => body.told(progress),
                    _ => body.lost(),
                };
            }
            assert!(!self.shared.jobs.is_idle(), "a sender is held, and nothing moves");
            self.lp.poll(Some(Instant::now() + Duration::from_secs(10))).unwrap();
        }
    }

    /// A message for these users.
    fn parcel(&mut self, text: &str, users: &[&str]) -> Parcel {
        let body = self.body(text.as_bytes());
        let recipients = users.iter().map(|user| self.to(user, vec![self.mailbox(user)])).collect();
        self.parcel_of(body, recipients)
    }

    fn to(&self, user: &str, to: Vec<Destination>) -> To {
        let ways = to.into_iter().map(Way::to).collect();
        let path = address_of(&format!("{user}@example.test"));
        To { recipient: Recipient { path, notify: None, orcpt: None }, ways }
    }

    fn parcel_of(&self, body: Body, recipients: Vec<To>) -> Parcel {
        let id = self.shared.transit.new_id();
        let sender = Sender {
            path: Some(address_of("ann@sender.test")),
            size: None,
            eight_bit: false,
            utf8: false,
            auth: None,
            ret: None,
            envid: None,
        };
        let received = format!("Received: from x by y with ESMTP id {id}; Mon, 5 Jan 2026 11:00:00 +0000\n");
        let (received, came) = (received.into_bytes().into(), "ESMTP from x".into());
        Parcel { id, sender, recipients, received, came, posted_secs: EPOCH, hold: None, mark: None, body }
    }

    /// Dispatches it.
    fn send(&mut self, parcel: Parcel) -> Ticket {
        let ticket = self.ticket();
        self.shared.transit.dispatch(ticket, parcel);
        ticket
    }

    /// What the conversation was told, if it was.
    fn answer(&mut self, ticket: Ticket) -> Option<Dispatched> {
        let at = self.got.iter().position(|(known, _)| *known == ticket)?;
        match self.got.swap_remove(at).1 {
            Outcome::Dispatched(dispatched) => Some(dispatched),
            _ => panic!("another answer came"),
        }
    }

    /// Dispatches it and says what came of it.
    fn sent(&mut self, parcel: Parcel) -> Option<Dispatched> {
        let ticket = self.send(parcel);
        self.settle();
        self.answer(ticket)
    }

    /// Another program's lock on a drop.
    fn lock(&self, user: &str) -> File {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(self.drop_of(user)).unwrap();
        assert!(try_lock_ofd(&file).unwrap());
        file
    }
}

fn address_of(text: &str) -> Address {
    address::path(format!("<{text}>").as_bytes(), false).unwrap().0.unwrap()
}
