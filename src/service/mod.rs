//! F5: where files meet sockets. Each service is the host of one kind of conversation; what they share is [`Shared`].
//!
//! | file         | what it is                                                                         |
//! |--------------|--------------------------------------------------------------------------------------|
//! | `pop3/`      | one client's session: who it is, its maildrop, what it costs                         |
//! | `entering.rs` | how a client gets in, whatever it speaks: rules, penalties, authenticators              |
//! | `smtp/`      | one client that brings mail: who it is, its message, where that goes                |
//! | `deliver/`   | messages between DATA and their drops, and those that wait in the queue              |
//! | `account.rs` | from a login and an authenticator's answer to the place where the mail lies          |
//! | `cache.rs`   | good answers of authenticators, remembered under keyed hashes                        |
//! | `guard.rs`   | limits and penalties: counts of the living, memories of what was tried             |
//! | `route.rs`   | from a recipient to the places where its mail goes                                  |
//! | `pickup.rs`  | messages that programs left while the server was down                               |
//! | `dns.rs`     | what name servers say                                                              |
//! | `send/`      | messages on their way to other hosts                                                |
//! | `names.rs`   | what clients' hosts are called                                                     |
//! | `relay.rs`   | who may send what to whom, of settings and guard; and why                          |
//! | `helpers.rs` | the authenticators' processes                                                        |
//! | `launcher.rs` | whom to ask for what root alone may do                                            |
//! | `control.rs` | who may give which orders, and what becomes of each                                  |
//! | `errand.rs`  | orders about one user's mail: an authenticator is asked, then a job works            |
//! | `robot.rs`   | programs that are given mail                                                       |
//! | `why.rs`     | which rules a message would meet, for operators                                        |
//! | `summon.rs`  | hosts that ask for the mail that waits for them                                        |
//! | `waiting.rs` | orders about messages that wait in the queue                                           |
//! | `traffic.rs` | what becomes of messages, for the statistics                                           |
//! | `noise.rs`   | log lines that clients cause, and their bound                                        |

pub mod account;
pub mod cache;
pub mod control;
pub mod deliver;
pub mod dns;
pub mod entering;
pub mod errand;
pub mod guard;
pub mod helpers;
pub mod launcher;
pub mod names;
pub mod noise;
pub mod pickup;
pub mod pop3;
pub mod relay;
pub mod robot;
pub mod route;
pub mod send;
pub mod smtp;
pub mod summon;
pub mod traffic;
pub mod waiting;
pub mod why;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::control::{Order, Told};
use crate::net::child::Started;
use crate::net::jobs::{self, Kind};
use crate::net::tls::Tls;
use crate::net::turn::Ticket;
use crate::net::{TcpListener, TcpStream, UnixStream};
use crate::protocol::dns::Answer;
use crate::protocol::helper::Verdict;
use crate::protocol::pop3::Rules;
use crate::protocol::smtp::{self as smtp_protocol, Face};
use crate::rules;
use crate::rules::flood::Flood;
use crate::rules::places::{self, Places};
use crate::rules::route::Table;
use crate::rules::traffic::Record;
use crate::settings::{PlainAuth, Settings};
use crate::store::bulletins::{self, Board};
use crate::store::disk::RealDisk;
use crate::store::maildrop::{Commit, Fetched, Maildrop, MessageReader, Miss, Refused, Row};
use crate::sys::files::{self, Opener};
use crate::text::fault::Fault;
use launcher::Launcher;
use pop3::shown::Shown;

/// How long a login waits for a maildrop that our own compaction or another program's lock keeps from it.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(20);
/// How long it waits for the end of a session whose peer has begun to leave keep-alive probes unanswered: until the kernel
/// gives that one up, and a little more.
pub const PEER_PATIENCE: Duration = Duration::from_secs(35);
/// How often it tries.
pub const LOCK_RETRY: Duration = Duration::from_millis(250);

/// What comes back to a conversation that was told `Later`, or to the server.
pub enum Outcome {
    /// An authenticator's answer.
    Verdict(Verdict),
    /// A maildrop was opened, or not.
    Opened(Result<(Box<Maildrop>, Option<Box<Shown>>), Refused>),
    /// Bulletins were looked at after so many reloads: `None` when nothing has changed.
    Board(u32, Result<Option<Board>, Fault>),
    /// There is no drop file, where there must be one.
    NoDrop,
    /// The name of a client's host was looked up.
    Named(IpAddr, names::Lookup),
    /// What name servers say to a question.
    Resolved(Answer),
    /// A recipient's forward file and his mailbox were looked at, or could not be.
    Mailbox(Result<route::Looked, String>),
    /// A page of the index that was not in memory.
    Rows(Result<Vec<Row>, Miss>),
    /// A message that was not in memory is ready to be sent.
    Reader(Result<Box<MessageReader>, Miss>),
    /// The next part of a message that was not in memory.
    Fetched(Result<Fetched, Miss>),
    /// Deletions are durable, or not. The maildrop and its volume come along, to be compacted.
    Committed(Option<(Box<Maildrop>, u64)>, Result<Commit, Fault>),
    /// A maildrop was compacted, or not; it is closed now.
    Compacted(PathBuf, Result<(), Refused>),
    /// A copy of an authenticator was started, or not. With the generation of its pool.
    Spawned(u32, usize, std::io::Result<Started>),
    /// After so many reloads, what the certificates' files look like, and what became of reading them again when they
    /// had changed.
    Certificates(u32, Vec<Stamp>, Option<Result<Option<Tls>, String>>),
    /// After so many reloads, which name servers the system names, where it names others.
    NameServers(u32, Option<dns::System>),
    /// The configuration was read again.
    Configuration(Result<Box<Configuration>, Vec<String>>),
    /// What an order came to that was carried out by a job.
    Told(Told),
    /// So many messages are tried because a host asked for them; `None`: they could not be looked for.
    Summoned(Option<u64>),
    /// An order found a maildrop in use: it comes back, and what to say should that last.
    InUse(Box<errand::Errand>, String),
    /// What a sender of text was held for.
    Body(deliver::Progress),
    /// What came of a job for messages on their way.
    Transit(Box<deliver::Done>),
    /// What came of a job for messages that programs left.
    Pickup(Box<pickup::Done>),
    /// What came of a try to send a message to another host.
    Sent(Box<send::Sent>),
    /// The next part of a message on its way to another host.
    Piece(send::Piece),
    /// What became of a message.
    Dispatched(deliver::Dispatched),
    /// What the user of a program on this host is called.
    Caller(std::io::Result<Option<String>>),
    /// A program was given a message: what became of it.
    Robot(rules::robot::Verdict),
    /// It is time to try once more.
    TryAgain,
    /// The maildrop was in use: by whom.
    Held(Holder),
    /// The job that would have answered ended by a fault of ours.
    Lost,
}

impl jobs::Lost for Outcome {
    fn lost() -> Outcome {
        Outcome::Lost
    }
}

/// Who has a maildrop that somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Another session.
    Session,
    /// Another session, whose peer seems to be gone.
    Fading,
    /// No session of ours: one that commits, a compaction that may just have ended, another program of ours.
    Nobody,
}

/// A configuration, and what else had to be read for it.
pub struct Configuration {
    /// The settings.
    pub settings: Settings,
    /// Where mail for which address goes: alias files, forward lines and the like.
    pub routes: Arc<Table>,
    /// The certificates they name.
    pub tls: Option<Tls>,
    /// The number of control_group, where it is set.
    pub control_gid: Option<u32>,
    /// The name servers that the system names.
    pub system: dns::System,
    /// What the certificates' files looked like.
    pub stamps: Vec<Stamp>,
    /// Where drops lie, and the volume of each such place. Longest path first.
    pub volumes: Vec<(PathBuf, u64)>,
    /// The ports that were not open before, as they were opened for it.
    pub opened: Vec<(Port, TcpListener)>,
    /// What the launcher calls it.
    pub launched: u32,
}

/// A port and what is spoken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Where.
    pub address: SocketAddr,
    /// TLS from the first byte.
    pub tls: bool,
    /// Which protocol.
    pub speaks: Speaks,
}

/// What is spoken at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// POP3.
    Pop3,
    /// SMTP or LMTP.
    Smtp(Face),
}

impl Port {
    /// The setting that opens it.
    pub fn setting(self) -> &'static str {
        match (self.speaks, self.tls) {
            (Speaks::Pop3, false) => "pop_port",
            (Speaks::Pop3, true) => "pops_port",
            (Speaks::Smtp(Face::Mx), _) => "smtp_port",
            (Speaks::Smtp(Face::Submission), false) => "submission_port",
            (Speaks::Smtp(Face::Submission), true) => "smtps_port",
            (Speaks::Smtp(Face::Lmtp), _) => "lmtp_port",
        }
    }

    /// Which kind of connections come there.
    pub fn kind(self) -> places::Kind {
        match self.speaks {
            Speaks::Pop3 => places::Kind::Readers,
            Speaks::Smtp(face) => smtp::kind(face),
        }
    }
}

/// What is spoken there, for people.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.speaks {
            Speaks::Pop3 => "POP3",
            Speaks::Smtp(Face::Mx) => "SMTP",
            Speaks::Smtp(Face::Submission) => "submission",
            Speaks::Smtp(Face::Lmtp) => "LMTP",
        };
        write!(f, "{name}{} on {}", if self.tls { " over TLS" } else { "" }, self.address)
    }
}

/// Which of its services a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Services {
    /// All that there are.
    All,
    /// POP3 alone.
    Pop3,
    /// SMTP and LMTP alone.
    Smtp,
}

/// What a file looked like: it has changed when this differs.
pub type Stamp = Option<(u64, u64, SystemTime)>;

/// A connection that was accepted and has no entry yet.
pub enum Newborn {
    /// A POP3 client.
    Pop3 {
        /// Its socket.
        stream: TcpStream,
        /// Where it is.
        peer: SocketAddr,
        /// TLS from the first byte.
        tls: bool,
    },
    /// A client that brings mail.
    Smtp {
        /// Its socket.
        stream: TcpStream,
        /// Where it is.
        peer: SocketAddr,
        /// Which of its faces SMTP shows there.
        face: Face,
        /// TLS from the first byte.
        tls: bool,
    },
    /// A program on this host that brings mail.
    Program(UnixStream),
    /// Somebody with orders.
    Control(UnixStream),
}

/// A connection, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// What is spoken there.
    pub service: &'static str,
    /// Who is at the other end.
    pub peer: String,
    /// Who has logged in.
    pub user: Option<String>,
    /// What it is about.
    pub state: &'static str,
    /// Within TLS.
    pub tls: bool,
    /// How long it has been there.
    pub age: Duration,
    /// Messages that went through it.
    pub messages: u32,
    /// Octets of mail: of POP3 all that were sent, of SMTP those of the message that is coming.
    pub octets: u64,
}

/// Mail that came in, and what did not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mails {
    /// Connections accepted, those of programs on this host with them.
    pub connections: u64,
    /// Messages accepted.
    pub accepted: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Their octets.
    pub octets: u64,
    /// Senders, recipients and messages refused.
    pub refused: u64,
    /// Lone CRs and LFs that became line ends.
    pub bare: u64,
    /// NULs that were left out.
    pub nuls: u64,
    /// Conversations that ended because of a lone CR or LF, or a NUL.
    pub rejected: u64,
}

/// How often access was limited, by what limited it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Access {
    /// Names that `valid_users` has not; among the denied.
    pub name: u64,
    /// Right passwords from addresses that `user_ip_address` has not; among the denied.
    pub address: u64,
    /// The same for `user_ip_name`.
    pub host: u64,
    /// Users without a drop file, where there must be one.
    pub no_drop: u64,
    /// Logins that waited because of what their prefix had guessed.
    pub delayed: u64,
    /// Logins too soon after the last.
    pub too_soon: u64,
    /// Sessions beyond `max_per_user`.
    pub over_user: u64,
    /// Connections beyond `max_per_prefix`.
    pub over_prefix: u64,
    /// Connections ended because all were taken and they had not logged in.
    pub crowded_out: u64,
}

/// How often sending was limited, by what limited it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Relaying {
    /// Clients that `ban_ip` has.
    pub banned_clients: u64,
    /// Senders that `ban_mailfrom` has.
    pub banned_senders: u64,
    /// Recipients that `ban_rcptto` has.
    pub banned_recipients: u64,
    /// Senders that were not the login's own.
    pub not_theirs: u64,
    /// Recipients elsewhere, for whom nothing allowed it.
    pub denied: u64,
    /// Recipients elsewhere, for whom something did.
    pub relayed: u64,
    /// Messages beyond `fromip_max`.
    pub over_messages: u64,
    /// Recipients beyond `sends_per_hour` and `sends_per_day`, refused or held.
    pub over_recipients: u64,
}

/// What has happened since the server started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Times that accepting stopped for want of descriptors.
    pub short: u64,
    /// Good logins.
    pub logins: u64,
    /// Wrong names or passwords, and what is told so.
    pub denied: u64,
    /// Access that was limited.
    pub access: Access,
    /// Sending that was limited.
    pub relaying: Relaying,
    /// Logins that could not be served just now.
    pub unavailable: u64,
    /// Messages sent whole.
    pub retrieved: u64,
    /// Octets of messages sent.
    pub octets: u64,
    /// Messages deleted for good.
    pub deleted: u64,
    /// Answers that came for a conversation that was gone.
    pub late: u64,
    /// Messages in a drop that another program changed under us, and other such ends of a session.
    pub changed: u64,
    /// Mail that came in.
    pub smtp: Mails,
}

/// What all conversations share.
pub struct Shared {
    /// The configuration in force; conversations keep the one they were born with.
    pub settings: Arc<Settings>,
    /// What follows from it for POP3.
    pub pop3: Arc<Rules>,
    /// What follows from it for SMTP.
    pub smtp: Arc<smtp_protocol::Rules>,
    /// Which services there are.
    pub services: Services,
    /// Where mail for which address goes.
    pub routes: Arc<Table>,
    /// Certificates.
    pub tls: Option<Tls>,
    /// The bulletins there are.
    pub board: Arc<Board>,
    /// The authenticators, newest generation last; older ones only finish.
    pub helpers: Vec<helpers::Helpers>,
    /// Their remembered answers.
    pub cache: cache::Cache,
    /// What is asked of name servers, and what they said.
    pub dns: dns::Dns,
    /// Who kept root, when we gave it up.
    pub launcher: Option<Arc<Launcher>>,
    /// Threads for what may wait on a disk.
    pub jobs: jobs::Pool<Outcome>,
    /// Answers for conversations, delivered at the beginning of the next turn.
    pub post: VecDeque<(Ticket, Outcome)>,
    /// Where drops lie, and the volume of each such place. Longest path first.
    pub volumes: Vec<(PathBuf, u64)>,
    /// Accepted, without an entry.
    pub newborn: Vec<Newborn>,
    /// Limits and penalties.
    pub guard: guard::Guard,
    /// All connections that this kind may have are taken, and somebody of it waits to be accepted.
    pub crowded: Option<places::Kind>,
    /// Logins that found the maildrop in use, and which: who has it?
    pub contested: Vec<(PathBuf, Ticket)>,
    /// Volumes of drops whose bins have less than `min_space`: never more than there are volumes.
    pub short: HashSet<u64>,
    /// Messages on their way to drops.
    pub transit: deliver::Transit,
    /// Messages on their way to other hosts.
    pub outgoing: send::Outgoing,
    /// What has become of messages in this turn, to be recorded.
    pub traffic: Vec<Record>,
    /// Orders, to be carried out between turns.
    pub orders: VecDeque<(Ticket, Order)>,
    /// What happened.
    pub counts: Counts,
    /// What clients make happen, as far as it has lines in the log.
    pub flood: Flood<noise::Event>,
    /// Conversations that are open now, and most that may be.
    pub places: Places,
    /// Connections of programs on this host that bring mail.
    pub programs: usize,
    /// One has come since the drop directory was looked at: it may have left something there.
    pub knocked: bool,
    /// The number of control_group, where it is set.
    pub control_gid: Option<u32>,
    /// Control connections that are open now.
    pub controls: usize,
    /// No new connections.
    pub stopping: bool,
    /// When we started.
    pub started: SystemTime,
}

/// How the files that a configuration names are opened.
pub fn opener(launcher: Option<&Launcher>) -> Box<Opener<'_>> {
    match launcher {
        Some(launcher) => Box::new(|path| launcher.read(path)),
        None => Box::new(files::open_to_read),
    }
}

impl Shared {
    /// Where maildrops lie, with the launcher's help where our own rights do not suffice.
    pub fn disk(&self) -> RealDisk {
        RealDisk { hand: self.launcher.clone().map(|launcher| launcher as _) }
    }

    /// What follows from settings for POP3 conversations.
    pub fn pop3_rules(settings: &Settings) -> Arc<Rules> {
        Arc::new(Rules {
            idle: Duration::from_secs(settings.pop3_idle_secs),
            login: Duration::from_secs(settings.pop3_login_secs),
            max_errors: settings.max_errors,
            hide_version: settings.hide_version,
            login_delay_secs: settings.login_delay_secs,
            expire_days: settings.expire_days,
        })
    }

    /// Where bulletins come from.
    pub fn bulletin_source(settings: &Settings) -> bulletins::Source {
        bulletins::Source {
            path: settings.bulletin_path.clone(),
            work_path: settings.work_path.clone(),
            from: settings.bulletin_from.clone(),
            domain: settings.main_domain().to_owned(),
        }
    }

    /// Whether a client there may send a password in clear.
    pub fn plain_ok(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        match self.settings.plain_auth {
            PlainAuth::Always => true,
            PlainAuth::Local if ip.is_loopback() => true,
            PlainAuth::Local | PlainAuth::Never => self.settings.plain_networks.contains(ip),
        }
    }

    /// The volume (st_dev) that jobs on this drop wait for.
    pub fn volume_of(&self, drop: &Path) -> u64 {
        let found = self.volumes.iter().find(|(root, _)| drop.starts_with(root));
        found.map_or(0, |(_, volume)| *volume)
    }

    /// A maildrop on this volume was opened, and there was less than `min_space` for its bin, or enough: said in the log
    /// when it begins and when it ends.
    pub(crate) fn space(&mut self, volume: u64, drop: &Path, is_short: bool) {
        let drop = drop.display();
        if is_short && self.short.insert(volume) {
            log::warn!(
                "less than min_space is free for the bin of {drop}: until there is more no index is written there and \
                 compaction waits; reading and deleting go on"
            );
        } else if !is_short && self.short.remove(&volume) {
            log::info!("there is space again for the bin of {drop}: indexes are written and drops compacted");
        }
    }

    /// When something shared is due.
    pub fn deadline(&self) -> Option<Instant> {
        let helpers = self.helpers.iter().filter_map(|helpers| helpers.pool.deadline());
        helpers.chain(self.transit.deadline()).chain(self.dns.resolver.deadline()).min()
    }

    /// A job came back. What belongs to files is seen to whether or not anybody waits for the answer.
    pub fn collected(&mut self, ticket: Option<Ticket>, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Committed(Some((maildrop, volume)), result) => {
                if matches!(&result, Ok(commit) if commit.wants_compaction) {
                    self.compact(maildrop, volume);
                }
                Outcome::Committed(None, result)
            }
            Outcome::Compacted(path, result) => {
                match result {
                    Ok(()) => log::debug!("compacted {}", path.display()),
                    // The deletions are in the ledger: the next session that finds it due tries again.
                    Err(Refused::InUse | Refused::Locked) => {
                        log::debug!("{}: compaction put off, another program has the drop", path.display());
                    }
                    Err(Refused::Unsafe(fault) | Refused::Fault(fault)) => log::warn!("compaction put off: {fault}"),
                }
                return;
            }
            outcome => outcome,
        };
        if let Some(ticket) = ticket {
            self.post.push_back((ticket, outcome));
        }
    }

    /// Takes the dead bytes out of a drop, with the lock that the session had.
    pub(crate) fn compact(&mut self, maildrop: Box<Maildrop>, volume: u64) {
        let path = maildrop.path().to_owned();
        let work = move |pulse: &jobs::Pulse| {
            let mut keep_going = || {
                pulse.beat();
                true
            };
            // Nobody holds a ticket for it, so its loss must be told here.
            let compact = AssertUnwindSafe(|| maildrop.compact(&mut keep_going).map(|_| ()));
            Outcome::Compacted(path, catch_unwind(compact).unwrap_or(Err(Refused::Locked)))
        };
        // No room now: the next session that quits tries again.
        let _ = self.jobs.submit(None, Kind::Bulk, volume, work);
    }
}

#[cfg(test)]
impl Shared {
    /// What conversations below `dir` share, with settings of tests; its jobs wake this loop.
    pub fn for_tests<E: crate::net::turn::Entry>(dir: &Path, lp: &crate::net::turn::Loop<E>) -> Shared {
        let settings = Settings::for_tests(dir);
        for path in [&settings.work_path, &settings.drop_path] {
            std::fs::create_dir_all(path).unwrap();
        }
        Shared {
            routes: Arc::new(route::draw(&settings, &files::open_to_read).0),
            pop3: Shared::pop3_rules(&settings),
            smtp: Shared::smtp_rules(&settings),
            services: Services::All,
            traffic: Vec::new(),
            tls: None,
            board: Arc::default(),
            helpers: vec![helpers::Helpers::new(0, &settings)],
            cache: cache::Cache::new(16, Duration::from_secs(3600)),
            dns: dns::Dns::new(&settings, dns::System::read(Path::new("/dev/null"))),
            launcher: None,
            jobs: jobs::Pool::new(lp.waker().unwrap()),
            post: VecDeque::new(),
            volumes: Vec::new(),
            newborn: Vec::new(),
            guard: guard::Guard::new(lp.now()),
            crowded: None,
            contested: Vec::new(),
            short: HashSet::new(),
            transit: deliver::Transit::open(lp.now(), &settings, &RealDisk::default()).unwrap(),
            outgoing: send::Outgoing::default(),
            orders: VecDeque::new(),
            counts: Counts::default(),
            flood: Flood::new(),
            places: Places::default(),
            programs: 0,
            knocked: false,
            control_gid: None,
            controls: 0,
            stopping: false,
            started: SystemTime::UNIX_EPOCH,
            settings: Arc::new(settings),
        }
    }
}
