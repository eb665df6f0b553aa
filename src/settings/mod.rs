//! F4: dmail.conf. Rows, parser, snapshot, diff.
//!
//! | file         | what it is                                                                              |
//! |--------------|-----------------------------------------------------------------------------------------|
//! | `rows`       | the table: one row a setting. To add a setting, add a row there and a field here        |
//! | `kind`       | what a setting can hold: text of the file on one side, typed field on the other         |
//! | `addresses`  | what holds addresses: forward lines, catch-alls, alias files                             |
//! | `sending`    | what says where mail goes out: routes, the gateway, their logins, DNS servers              |
//! | `parse`      | files into a [`Settings`], with a complaint for each thing that is wrong                |
//! | `judge`      | does what the settings name exist, and can we use it                                    |
//! | `reference`  | the manual, its JSON, and conf/dmail.conf, out of the rows                              |
//!
//! The file: one `name value...` a line; a line that starts with `#` is a comment, except `#include FILE` (relative to the file
//! it stands in, 8 deep). A blank and `#` end a value, quotes keep both. Names and words of ours may be in any case. A setting
//! that is not repeatable stands once. Relative paths start from the directory of the main file, also in included files.
//!
//! [`load`] is all or nothing: with any error there are no settings, and whoever reloads keeps what he had. Nothing here
//! writes a file.

pub mod addresses;
pub mod complaint;
pub mod judge;
pub mod kind;
pub mod parse;
pub mod reference;
pub mod rows;
pub mod sending;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub use addresses::{AliasFile, CatchAll, ForwardLine, addressee};
pub use complaint::{Complaint, Level, Place};
pub use judge::{Rights, judge, trust, trust_folder};
pub use parse::{Loaded, Office, load, load_by, office};
pub use reference::{reference, reference_json, sample};
pub use rows::{ROWS, Row, TakesEffect};
pub use sending::{HostName, Logins};

use crate::rules::domains::{Domains, Elsewhere, Line};
use crate::rules::hops::{Route, SenderRoute, Table as Hops, Way};
use crate::rules::retry::Schedule;
use crate::rules::route::Addressee;
use crate::text::number::Fraction;
use crate::text::pattern::{AddressList, PatternList};

/// A configuration as one value: read once, never changed; a reload makes another. What each field means is in its row.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The file it was read from, absolute.
    pub file: PathBuf,
    /// The same as it was named to us, for sentences.
    named: Arc<Path>,
    /// Where each setting that was written stands; what has its default is not here.
    pub places: BTreeMap<&'static str, Vec<Place>>,

    /// All files it was read from, as they were named; none when it was a text.
    pub files: Vec<PathBuf>,

    /// Whom the server becomes when root starts it; `None` = it stays root.
    pub run_as: Option<String>,
    /// Domains of ours, in lower case; the first is the main domain. Never empty.
    pub host_domain: Vec<String>,
    /// Base directory of the drop files.
    pub drop_path: PathBuf,
    /// Paths from an authenticator must lie below one of these. Never empty.
    pub drop_root: Vec<PathBuf>,
    /// How drop files are spread over directories: 0 to 3.
    pub hash_spool: u8,
    /// Where bins lie; `None` = beside the drop files.
    pub bin_path: Option<PathBuf>,
    /// A drop with less live mail in it is compacted at QUIT.
    pub bin_pfull: Fraction,
    /// Whether bins that do not lie beside their drop files are spread over 32 x 32 directories.
    pub hash_bindir: bool,
    /// Megabytes below which no index is written and nothing compacted; 0 = not watched.
    pub min_space: u64,
    /// Virtual domains, as written. Use [`domains`](Settings::domains).
    pub vdomain: Vec<Line>,
    /// Stands between a virtual domain's prefix and a user.
    pub vdomain_separator: char,
    /// Whether drop files of virtual domains carry the prefix.
    pub drop_prefix: bool,
    /// Drop files of a domain that lie elsewhere, as written. Use [`domains`](Settings::domains).
    pub alt_drop_path: Vec<Elsewhere>,
    /// What follows from these, and from host_domain, drop_path and hash_spool: who a login means.
    pub domains: Domains,
    /// Whether messages without a Status line are sent with one.
    pub add_status: bool,
    /// The locks taken on a drop file, in this order.
    pub lock_method: Vec<LockMethod>,
    /// The least uid that an authenticator may name.
    pub min_uid: u32,

    /// Who is given all mail for other hosts. Use [`hops`](Settings::hops).
    pub gateway: Option<Way>,
    /// Where mail of single domains goes. Use [`hops`](Settings::hops).
    pub route: Vec<Route>,
    /// Where mail of single senders goes. Use [`hops`](Settings::hops).
    pub sender_route: Vec<SenderRoute>,
    /// What follows from these three, smtp_out_port and send_connections: where mail for other hosts goes.
    pub hops: Hops,
    /// What their login files say: see [`Settings::read_logins`].
    pub logins: Logins,
    /// The port that mail is brought to.
    pub smtp_out_port: u16,
    /// How we greet other hosts. Use [`greets_as`](Settings::greets_as).
    pub send_name: Option<HostName>,
    /// From where mail is sent. Use [`sends_from`](Settings::sends_from). Never empty.
    pub send_address: Vec<IpAddr>,
    /// Most connections to one destination.
    pub send_connections: u16,
    /// Most connections to all of them.
    pub send_connections_max: usize,
    /// Seconds to a connection.
    pub send_connect_secs: u64,
    /// Seconds to the greeting.
    pub send_greeting_secs: u64,
    /// Seconds to an answer to EHLO and the like.
    pub send_command_secs: u64,
    /// Seconds to the answer to MAIL.
    pub send_mail_secs: u64,
    /// Seconds to the answer to RCPT.
    pub send_rcpt_secs: u64,
    /// Seconds to the answer to DATA.
    pub send_data_secs: u64,
    /// Seconds without any of the text being taken.
    pub send_block_secs: u64,
    /// Seconds to the answer to the message.
    pub send_dot_secs: u64,
    /// Seconds to the answer to QUIT.
    pub send_quit_secs: u64,
    /// Seconds that a connection is kept for a next message; 0 = it is not.
    pub send_idle_secs: u64,
    /// Seconds for a transaction up to its text, and for a connection.
    pub send_session_secs: u64,
    /// DNS servers; none = those of the system.
    pub dns_host: Vec<SocketAddr>,
    /// Seconds to wait for one of them.
    pub dns_timeout: u64,
    /// Who may say ETRN.
    pub etrn_from_ip: AddressList,

    /// Kilobytes of memory for the texts of messages on their way.
    pub body_memory: u64,
    /// Megabytes below which no new mail is taken; 0 = not watched.
    pub delivery_min_space: u64,
    /// When the queue tries again.
    pub retry_schedule: Schedule,
    /// Seconds that a message may wait there.
    pub queue_life: u64,
    /// Seconds that a message from nobody may wait there.
    pub bounce_life: u64,
    /// Seconds to wait when a message may have been delivered.
    pub possibly_secs: u64,
    /// Seconds after which a sender is told that his message waits; 0 = never.
    pub delay_warning: u64,
    /// Whether who asks is told that his message was delivered.
    pub success_reports: bool,
    /// Whether bounces bring the whole message back.
    pub bounce_body: bool,
    /// Kilobytes of a message that a bounce may bring back whole.
    pub bounce_max_size: u64,
    /// Whether a message that is sent again because our answer got lost is taken once.
    pub merge_repeats: bool,

    /// Work files.
    pub work_path: PathBuf,
    /// The same for all who keep it, once somebody does: see [`shared_work_path`](Settings::shared_work_path).
    pub(super) work_path_once: OnceLock<Arc<Path>>,
    /// Log files.
    pub log_path: PathBuf,
    /// What is logged.
    pub log_level: LogLevel,
    /// Whose members may watch and do daily work.
    pub control_group: Option<Group>,
    /// Whose members may leave messages in the drop directory.
    pub submit_group: Option<Group>,
    /// Seconds between looks at that directory.
    pub pickup_secs: u64,
    /// A log that grew to so many kilobytes is renamed; 0 = never.
    pub log_max_size: u64,
    /// Statistics files; `None` = there are none.
    pub stats_path: Option<PathBuf>,
    /// Whether what becomes of messages is written down, a file a day.
    pub oneline_stats: bool,

    /// Who the administrator is, and postmaster.
    pub sysadmin: Option<Addressee>,
    /// The alias file for all domains.
    pub alias_file: Option<PathBuf>,
    /// Alias files of single domains.
    pub alias_file_domain: Vec<AliasFile>,
    /// Whether what they have not is looked for in alias_file.
    pub alias_fallthrough: bool,
    /// Where mail for single addresses goes.
    pub forward: Vec<ForwardLine>,
    /// The same, and they have it too.
    pub forward_cc: Vec<ForwardLine>,
    /// Who has mail for nobody.
    pub catch_all: Vec<CatchAll>,
    /// What parts a user from a detail.
    pub recipient_delimiter: Option<char>,
    /// Whether `.forward` files in homes are ignored.
    pub no_dotforward: bool,
    /// Most kilobytes of live mail in a drop; 0 = no bound.
    pub drop_max: u64,
    /// What a sender hears for whom there is no room.
    pub quota_reply: QuotaReply,
    /// The percentage at which a user is warned; 0 = never.
    pub quota_warn: u8,

    /// How users prove who they are.
    pub authent_method: Method,
    /// The authenticator.
    pub authent_process: Command,
    /// How many copies of it run.
    pub authent_number: usize,
    /// Seconds to wait for an answer of it.
    pub authent_timeout: u64,
    /// Whether it is told `user@domain`.
    pub authent_domain: bool,
    /// How many good answers are remembered.
    pub authent_cache: usize,
    /// For how many hours; 0 = none are.
    pub authent_cache_hours: u64,
    /// Whether none are remembered.
    pub auth_nocache: bool,
    /// Whether APOP is offered.
    pub apop_enable: bool,

    /// Names that may log in. Never empty.
    pub valid_users: PatternList,
    /// Whether a user without a drop file is refused.
    pub drop_must_exist: bool,
    /// Addresses that users may log in from. Never empty.
    pub user_ip_address: AddressList,
    /// Hosts that users may log in from. Never empty.
    pub user_ip_name: PatternList,
    /// Whether hosts' names are looked up.
    pub lookup_names: bool,
    /// Most sessions of a user at a time; 0 = no bound.
    pub max_per_user: u32,
    /// The least time between two logins of a user; 0 = none.
    pub login_delay_secs: u64,
    /// Days that mail stays; `None` = for ever.
    pub expire_days: Option<u32>,
    /// Most connections of a prefix at a time; 0 = no bound.
    pub max_per_prefix: u32,
    /// Length of a prefix of IPv4.
    pub prefix_bits_v4: u8,
    /// Length of a prefix of IPv6.
    pub prefix_bits_v6: u8,
    /// Where neither that bound nor penalties hold. Never empty.
    pub trusted_networks: AddressList,
    /// The longest wait of a guess; 0 = none.
    pub penalty_max_secs: u64,
    /// Addresses that may relay.
    pub forward_from_ip: AddressList,
    /// Domains that anybody may send to.
    pub relay_to: PatternList,
    /// Users whose logins for POP3 open their address.
    pub forward_user: PatternList,
    /// For how long.
    pub forward_user_minutes: u64,
    /// Senders who may relay.
    pub forward_from: PatternList,
    /// Whether who has logged in sends as himself.
    pub sender_must_match: bool,
    /// Addresses that we do not take mail from.
    pub ban_ip: AddressList,
    /// And those of them that we do.
    pub ban_ip_except: AddressList,
    /// Senders that we do not take mail from.
    pub ban_mailfrom: PatternList,
    /// Recipients that we do not take mail for.
    pub ban_rcptto: PatternList,
    /// Most recipients of a user within an hour; 0 = no bound.
    pub sends_per_hour: u32,
    /// And within a day.
    pub sends_per_day: u32,
    /// What becomes of more.
    pub sends_over: SendsOver,
    /// Most messages of a prefix within an hour; 0 = no bound.
    pub fromip_max: u32,
    /// Where that does not hold.
    pub fromip_nolimit: AddressList,
    /// Where bulletins are; `None` = there are none.
    pub bulletin_path: Option<PathBuf>,
    /// From whom they are.
    pub bulletin_from: String,
    /// Whether newcomers are spared those that are there already.
    pub hide_old_bulls: bool,

    /// Addresses to listen on. Never empty.
    pub bind_address: Vec<IpAddr>,
    /// Port of POP3; 0 = off.
    pub pop_port: u16,
    /// Port of POP3 within TLS; 0 = off.
    pub pops_port: u16,
    /// Port of SMTP for other servers; 0 = off.
    pub smtp_port: u16,
    /// Port of SMTP for users; 0 = off.
    pub submission_port: u16,
    /// The same within TLS; 0 = off.
    pub smtps_port: u16,
    /// Port of LMTP; 0 = off.
    pub lmtp_port: u16,
    /// Kilobytes of a message; 0 = no bound.
    pub smtp_max_size: u64,
    /// Recipients of a message.
    pub max_rcpts: u16,
    /// `Received:` lines of a message.
    pub smtp_max_hops: u64,
    /// Lines of a header.
    pub smtp_header_lines: u64,
    /// Kilobytes of a header.
    pub smtp_header_kbytes: u64,
    /// Bytes of a line of a message.
    pub smtp_line_bytes: u64,
    /// What becomes of lone CRs and LFs.
    pub bare_newline: BareNewline,
    /// From whom it is hidden that there is AUTH.
    pub hide_auth: HideAuth,
    /// Seconds for which a greeting is held back; 0 = it is not.
    pub smtp_greeting_hold_secs: u64,
    /// Seconds to the first command.
    pub smtp_greeting_secs: u64,
    /// Seconds to each further one.
    pub smtp_command_secs: u64,
    /// Seconds of silence within a message.
    pub smtp_data_secs: u64,
    /// Refused commands after which an SMTP client is closed.
    pub smtp_max_errors: u16,
    /// Certificates, as written. Use [`tls_pairs`](Settings::tls_pairs).
    pub tls_cert: Vec<TlsFile>,
    /// Their keys, as written.
    pub tls_key: Vec<TlsFile>,
    /// Who may send a password that is not encrypted.
    pub plain_auth: PlainAuth,
    /// Who may, besides.
    pub plain_networks: AddressList,
    /// Whether banners keep quiet about the version.
    pub hide_version: bool,
    /// Seconds a POP3 client may be silent once logged in.
    pub pop3_idle_secs: u64,
    /// Seconds a POP3 client has to log in.
    pub pop3_login_secs: u64,
    /// Most connections at a time; 0 = as many as there are descriptors for.
    pub max_connections: usize,
    /// Bad commands after which a session is closed.
    pub max_errors: u32,

    /// Where programs lie that are given mail; `None` = anywhere.
    pub robot_path: Option<PathBuf>,
    /// As whom they run; `None` = as the server.
    pub robot_user: Option<String>,
    /// Whether users' own forward files may name them.
    pub user_robots: bool,
    /// Seconds they may take.
    pub robot_secs: u64,
    /// How many run at a time.
    pub robot_number: usize,
    /// Kilobytes of what they say that are kept.
    pub robot_output: usize,
}

kind::choice! {
    /// What is logged: this and all before it.
    LogLevel {
        /// Mail may be late because of us.
        Error = "error",
        /// Someone should look.
        Warn = "warn",
        /// One line a conversation.
        Info = "info",
        /// Everything.
        Debug = "debug",
    }
}

kind::choice! {
    /// A lock on a drop file.
    LockMethod {
        /// A file `NAME.lock` beside it.
        Dotlock = "dotlock",
        /// A POSIX record lock on it.
        Fcntl = "fcntl",
        /// A BSD lock on it.
        Flock = "flock",
    }
}

kind::choice! {
    /// Who may send a password that is not encrypted.
    PlainAuth {
        /// Nobody.
        Never = "never",
        /// Clients on this machine, and those in `plain_networks`.
        Local = "local",
        /// Everybody.
        Always = "always",
    }
}

kind::choice! {
    /// What becomes of a CR or LF that stands alone in a message.
    BareNewline {
        /// It is stored as a line end.
        Normalize = "normalize",
        /// The message is refused.
        Reject = "reject",
    }
}

kind::choice! {
    /// From whom it is hidden that there is AUTH.
    HideAuth {
        /// Nobody.
        Nobody = "false",
        /// Everybody.
        Everybody = "true",
        /// Those who have read mail lately, and need none.
        RecentPop = "recentpop",
    }
}

kind::choice! {
    /// What becomes of messages beyond `sends_per_hour` and `sends_per_day`.
    SendsOver {
        /// Their sender is told to try later.
        Refuse = "refuse",
        /// They are taken, and wait until an operator has looked at them.
        Hold = "hold",
    }
}

kind::choice! {
    /// What a sender hears whose message does not fit into a mailbox.
    QuotaReply {
        /// To try again later.
        Temporary = "temporary",
        /// That it will not be taken.
        Permanent = "permanent",
    }
}

/// How users prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A program is asked: `authent_process`.
    External,
    /// They are users of the system: our own program for these is asked.
    UnixUser,
}

/// A group of users of this machine, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(pub String);

/// A program and its arguments. Nothing is expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The words as written; the first names the program.
    pub words: Vec<String>,
    /// The program: the first word, from the directory of the configuration when it is relative.
    pub program: PathBuf,
}

impl Command {
    /// What the program is given after its name.
    pub fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// A file with PEM in it, and the domain it is for; none = for all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFile {
    /// The file.
    pub path: PathBuf,
    /// The domain a client must ask for (SNI), in lower case.
    pub domain: Option<String>,
}

/// A certificate and its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsPair<'a> {
    /// The domain it is for; `None` = for clients that name no other.
    pub domain: Option<&'a str>,
    /// The certificate chain, PEM.
    pub cert: &'a Path,
    /// The private key, PEM.
    pub key: &'a Path,
}

impl Settings {
    /// The main domain.
    pub fn main_domain(&self) -> &str {
        &self.host_domain[0]
    }

    /// Certificates with their keys: same domain, and among those same order. Loaded settings have a key for each.
    pub fn tls_pairs(&self) -> Vec<TlsPair<'_>> {
        let mut keys: Vec<&TlsFile> = self.tls_key.iter().collect();
        let mut pairs = Vec::new();
        for cert in &self.tls_cert {
            if let Some(at) = keys.iter().position(|key| key.domain == cert.domain) {
                let key = keys.remove(at);
                pairs.push(TlsPair { domain: cert.domain.as_deref(), cert: &cert.path, key: &key.path });
            }
        }
        pairs
    }

    /// `work_path`, in one piece of memory for all who keep it.
    pub fn shared_work_path(&self) -> Arc<Path> {
        self.work_path_once.get_or_init(|| self.work_path.as_path().into()).clone()
    }

    /// The directory that relative paths start from.
    pub fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }

    /// Where the setting `name` was written (the last time, when it is repeatable); the file as a whole when it was not.
    pub fn place(&self, name: &str) -> Place {
        match self.places.get(name).and_then(|places| places.last()) {
            Some(place) => place.clone(),
            None => Place { file: self.named.clone(), line: 0, column: 0 },
        }
    }

    /// Where line `index` (from 0) of the repeatable setting `name` was written.
    pub fn place_of(&self, name: &str, index: usize) -> Place {
        let written = self.places.get(name).and_then(|places| places.get(index));
        written.cloned().unwrap_or_else(|| self.place(name))
    }

    /// Defaults, with every directory below `dir` (none is made) and an authenticator that is not there: for tests.
    pub fn for_tests(dir: &Path) -> Settings {
        let text = b"host_domain example.test\ndrop_path drop\nwork_path work\nauthent_process nwauth\n";
        let loaded = parse::load_text(&dir.join("dmail.conf"), text);
        loaded.settings.unwrap_or_else(|| panic!("the settings for tests are right: {:?}", loaded.complaints))
    }
}

/// A setting that differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub name: &'static str,
    /// What it was, as it is written in the file; empty when unset.
    pub old: String,
    /// What it is now.
    pub new: String,
    /// When the running server follows.
    pub takes_effect: TakesEffect,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unset = |value: &str| if value.is_empty() { "(unset)".to_owned() } else { value.to_owned() };
        write!(f, "{}: {} -> {} ({})", self.name, or_unset(&self.old), or_unset(&self.new), self.takes_effect)
    }
}

/// The settings that differ, in the order of the rows.
pub fn diff(old: &Settings, new: &Settings) -> Vec<Change> {
    let change = |row: &Row| {
        let (old, new) = ((row.show)(old).join(", "), (row.show)(new).join(", "));
        (old != new).then_some(Change { name: row.name, old, new, takes_effect: row.takes_effect })
    };
    ROWS.iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests;
