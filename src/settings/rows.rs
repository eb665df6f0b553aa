//! The table of settings: one row each. A row gives the parser, the default, `dmail settings`, conf/dmail.conf and the diff.
//!
//! To add one: a row here, a field of the same name in [`Settings`], `dmail settings --sample > conf/dmail.conf`.

use std::fmt;

use super::kind::{Field, Kind, Value};
use super::{BareNewline, HideAuth, LockMethod, LogLevel, PlainAuth, QuotaReply, SendsOver, Settings};
use crate::text::words::Trouble;
use Kind::*;
use TakesEffect::{NewConnections, Now, Restart};

/// One setting.
pub struct Row {
    /// Its name in the file; also the name of its field.
    pub name: &'static str,
    /// When not empty, a new part of the manual begins here.
    pub part: &'static str,
    /// How its value is written, and its bounds.
    pub kind: Kind,
    /// What it is when not written, as one would write it; empty = unset.
    pub default: &'static str,
    /// The setting whose value it has when not written.
    pub follows: Option<&'static str>,
    /// Whether it must be written.
    pub required: bool,
    /// Whether it may be written several times.
    pub repeatable: bool,
    /// When a changed value takes effect in a running server.
    pub takes_effect: TakesEffect,
    /// A value for the sample file; empty = the default.
    pub example: &'static str,
    /// What the operator should know.
    pub why: &'static str,
    /// Takes a value into the field.
    pub set: fn(&mut Settings, &Value<'_>) -> Result<(), Trouble>,
    /// The values one would write to have the field as it is.
    pub show: fn(&Settings) -> Vec<String>,
}

/// When a changed value takes effect in a running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesEffect {
    /// At the reload.
    Now,
    /// For connections made after the reload.
    NewConnections,
    /// When the server is started again.
    Restart,
}

impl fmt::Display for TakesEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Now => "at once",
            NewConnections => "for new connections",
            Restart => "at the next start",
        })
    }
}

/// What most rows are.
const USUAL: Row = Row {
    name: "",
    part: "",
    kind: Flag,
    default: "",
    follows: None,
    required: false,
    repeatable: false,
    takes_effect: Restart,
    example: "",
    why: "",
    set: |_, _| Ok(()),
    show: |_| Vec::new(),
};

/// The row of the field `$name`.
macro_rules! row {
    ($name:ident { $($key:ident: $value:expr),* $(,)? }) => {
        Row {
            name: stringify!($name),
            set: |settings, value| Field::take(&mut settings.$name, value),
            show: |settings| Field::show(&settings.$name),
            $($key: $value,)*
            ..USUAL
        }
    };
}

const fn number(unit: &'static str, min: u64, max: u64) -> Kind {
    Number { unit, min, max }
}

/// All settings of this version, in the order of the manual.
pub static ROWS: &[Row] = &[
    row!(host_domain {
        part: "Who we are",
        kind: Domain,
        required: true,
        repeatable: true,
        takes_effect: NewConnections,
        example: "example.com",
        why: "A domain of this machine's users. The first is the main domain; each further line names another for the same \
              users, so that ann@DOMAIN logs in as ann.",
    }),
    row!(run_as {
        kind: User,
        takes_effect: Restart,
        example: "dmail",
        why: "The user, and the groups, that the server takes when root starts it; work_path and log_path must be that user's. \
              A small launcher keeps root for what needs it: low ports, keys, drop files of other users. This file must then \
              be root's, and nobody else's to write. Unset, a server that root starts stays root.",
    }),
    row!(work_path {
        kind: Folder,
        required: true,
        takes_effect: Restart,
        example: "/var/lib/dmail",
        why: "Directory for work files: the queue, messages in flight, the run lock, the sockets, and logs unless log_path is \
              set. One server to a work_path.",
    }),
    row!(log_path {
        kind: Folder,
        follows: Some("work_path"),
        takes_effect: Now,
        example: "/var/log/dmail",
        why: "Directory for dpop.log and the other logs.",
    }),
    row!(log_max_size {
        kind: number("KILOBYTES", 0, 1_000_000_000),
        default: "10000",
        takes_effect: Now,
        why: "A log that would grow beyond this is renamed, dpop.log to dpop1.log and so on; dpop4.log is the oldest that is \
              kept. 0 = never, for sites where another program does it.",
    }),
    row!(log_level {
        kind: OneOf(LogLevel::NAMES),
        default: "info",
        takes_effect: Now,
        why: "What is logged: this level and those before it. `tellpop log_level` changes it until the next reload.",
    }),
    row!(control_group {
        kind: Group,
        takes_effect: Now,
        example: "mailops",
        why: "A group of users whose members may watch the server and do daily work with tellpop: status, users, mem, kick \
              and whatever `tellpop help` marks with a +. They must be able to reach the socket in work_path. Unset, root and \
              the user that the server runs as are the only ones.",
    }),
    row!(stats_path {
        kind: FolderOrNone,
        takes_effect: Now,
        example: "/var/lib/dmail/stats",
        why: "Directory for the statistics of sessions, a file a day, for billing; `tellpop stats` sums them up. Unset, or \
              written without a directory, there are none.",
    }),
    row!(oneline_stats {
        kind: Flag,
        default: "false",
        takes_effect: Now,
        why: "true: of each message what became of it is written to a file a day in log_path, dmDDMM.log: that it was \
              accepted, and which of its recipients got it, were sent it, or will not have it. `tellpop statistics` sums the \
              files up; see docs/dsmtp-statistics.md.",
    }),
    row!(bind_address {
        part: "The network",
        kind: Addresses,
        default: "*",
        repeatable: true,
        takes_effect: Now,
        example: "192.0.2.1,2001:db8::1",
        why: "The addresses to listen on; * = all this machine has, IPv6 and IPv4.",
    }),
    row!(pop_port {
        kind: number("PORT", 0, 65_535),
        default: "110",
        takes_effect: Now,
        why: "The port for POP3; 0 = off. TLS begins with STLS.",
    }),
    row!(pops_port {
        kind: number("PORT", 0, 65_535),
        default: "995",
        takes_effect: Now,
        why: "The port for POP3 within TLS; 0 = off. It is not opened without a tls_cert.",
    }),
    row!(smtp_port {
        kind: number("PORT", 0, 65_535),
        default: "25",
        takes_effect: Now,
        why: "The port for mail from other servers; 0 = off. Nobody logs in there. dpop opens none of the ports for mail that \
              comes in.",
    }),
    row!(submission_port {
        kind: number("PORT", 0, 65_535),
        default: "587",
        takes_effect: Now,
        why: "The port for mail that users send, who log in first; 0 = off. TLS begins with STARTTLS.",
    }),
    row!(smtps_port {
        kind: number("PORT", 0, 65_535),
        default: "465",
        takes_effect: Now,
        why: "The port for mail that users send, within TLS; 0 = off. It is not opened without a tls_cert.",
    }),
    row!(lmtp_port {
        kind: number("PORT", 0, 65_535),
        default: "0",
        takes_effect: Now,
        example: "24",
        why: "The port for LMTP, for mail from a server in front of this one; 0 = off. Nobody but that server should reach it.",
    }),
    row!(tls_cert {
        kind: Pem,
        repeatable: true,
        takes_effect: NewConnections,
        example: "/etc/dmail/example.com.crt",
        why: "The certificate and its chain, PEM. With a domain it is for clients that ask for that domain; one without is \
              for all others. Files are read again when they change.",
    }),
    row!(tls_key {
        kind: Pem,
        repeatable: true,
        takes_effect: NewConnections,
        example: "/etc/dmail/example.com.key",
        why: "The private key of a tls_cert, PEM: the one with the same domain. Nobody but its owner should be able to read \
              it.",
    }),
    row!(plain_auth {
        kind: OneOf(PlainAuth::NAMES),
        default: "local",
        takes_effect: NewConnections,
        why: "Who may send a password without TLS: nobody, clients on this machine and in plain_networks, or everybody.",
    }),
    row!(plain_networks {
        kind: Networks,
        takes_effect: NewConnections,
        example: "192.168.0.0/16,10.1.2.*,!10.1.2.66",
        why: "For old devices: addresses that may send a password without TLS while plain_auth is local. ! excludes, \
              wherever in the list it stands.",
    }),
    row!(hide_version {
        kind: Flag,
        default: "false",
        takes_effect: NewConnections,
        why: "Whether the greeting keeps the version to itself.",
    }),
    row!(pop3_idle_secs {
        kind: number("SECONDS", 600, 86_400),
        default: "600",
        takes_effect: NewConnections,
        why: "How long a POP3 client may be silent. RFC 1939 asks for at least ten minutes.",
    }),
    row!(pop3_login_secs {
        kind: number("SECONDS", 30, 3_600),
        default: "180",
        takes_effect: NewConnections,
        why: "How long a POP3 client has, in all, until it is logged in.",
    }),
    row!(max_connections {
        kind: number("CONNECTIONS", 0, 1_000_000),
        default: "0",
        takes_effect: Now,
        why: "Most connections at a time; 0 = as many as the limit on open files allows.",
    }),
    row!(max_errors {
        kind: number("COMMANDS", 1, 1_000),
        default: "10",
        takes_effect: NewConnections,
        why: "A session with that many bad commands is closed.",
    }),
    row!(drop_path {
        part: "The spool",
        kind: Folder,
        required: true,
        takes_effect: NewConnections,
        example: "/var/mail",
        why: "Base directory of the drop files, one mbox file a user. Used where the authenticator answers `config`.",
    }),
    row!(hash_spool {
        kind: number("METHOD", 0, 3),
        default: "0",
        takes_effect: NewConnections,
        why: "How drop files are spread over directories below drop_path: 0 not at all; 1 and 2 as qpopper does, so its spool \
              is used in place; 3 evenly over 1024. `nwauth drop_path METHOD BASE USER` prints where a drop file lies.",
    }),
    row!(drop_root {
        kind: Folder,
        follows: Some("drop_path"),
        repeatable: true,
        takes_effect: NewConnections,
        example: "/home/mail",
        why: "Drop files that the authenticator names must lie below one of these directories. The default has the directories \
              of virtual domains too. Setting it replaces the default, so name drop_path again when it is still in use.",
    }),
    row!(bin_path {
        kind: Folder,
        takes_effect: NewConnections,
        example: "/var/lib/dmail/bin",
        why: "Directory for the bins, where indexes and deletions are kept. Unset, a bin lies beside its drop file, as \
              .NAME.bin. Set it where others may write to the directory of the drop files.",
    }),
    row!(bin_pfull {
        kind: Fraction,
        default: "0.5",
        takes_effect: NewConnections,
        why: "How full of live mail a drop file is kept. When a user quits, what he deleted is gone for him; its bytes leave the \
              drop file when live mail is less than this part of it, or when none is left. 1 = always at once, 0 = only when \
              none is left. A drop file that another program than a delivering one was seen to write, a shell user's mailer \
              or another server, is treated as with 1 for 30 days.",
    }),
    row!(add_status {
        kind: Flag,
        default: "false",
        takes_effect: NewConnections,
        why: "true: a message without a Status line is sent with one as its first line: `Status: RO` when it was retrieved \
              whole in an earlier session, else `Status: UN`. Both are as long, so that sizes never change. When a \
              compaction moves a message that was retrieved, the line goes into the drop file, where a shell user's mailer \
              sees it. The original's default is true; here it is false, because then every message is sent as it is \
              stored, byte for byte, and a session that only reads writes nothing.",
    }),
    row!(hash_bindir {
        kind: Flag,
        default: "false",
        takes_effect: NewConnections,
        why: "true: bins that do not lie beside their drop files are spread over 32 x 32 directories, by a hash of the drop \
              file's whole path, which then follows below. After a change each bin is moved to its new place when its \
              maildrop is next opened, and nothing is lost.",
    }),
    row!(min_space {
        kind: number("MEGABYTES", 0, 1_000_000_000),
        default: "0",
        takes_effect: NewConnections,
        why: "With less than this free where the bins lie, no index is written and no drop file compacted that would need \
              space for it; reading and deleting go on. 0 = free space is not watched.",
    }),
    row!(lock_method {
        kind: SomeOf(LockMethod::NAMES),
        default: "dotlock,fcntl",
        takes_effect: NewConnections,
        why: "How a drop file is locked against other programs, taken in this order; `none` when no other program touches \
              the spool. It must be what procmail, mutt and the delivering program use.",
    }),
    row!(min_uid {
        kind: number("UID", 1, 4_294_967_294),
        default: "100",
        takes_effect: NewConnections,
        why: "The least uid that the authenticator may name as owner of a drop file: keeps root and the system's own \
              accounts out of reach of a wrong answer.",
    }),
    row!(vdomain {
        part: "Virtual domains",
        kind: VirtualDomain,
        repeatable: true,
        takes_effect: NewConnections,
        example: "abc 192.0.2.1 abc.example /var/mail/abc.example",
        why: "A domain with users of its own: its fred is not the main domain's fred. Its users are those who connect to one \
              of the ADDRESSES (192.0.2.1, 2001:db8::1, a network, a list), or whose login ends in the SUFFIX: with `vdomain \
              abc /xdom abc.example /var/mail/abc.example` that is fred/xdom; fred@abc.example works too, and @abc.example, \
              %xdom and the like as SUFFIX. A suffix or domain in the login beats the address. One domain may have several \
              lines, with the same prefix and directory. Its users are called PREFIX_fred by the authenticator and in the \
              directory, unless authent_domain and drop_prefix say otherwise. See docs/dpop-virtual-domains.md.",
    }),
    row!(vdomain_separator {
        kind: OneOf(&["_", "-", ".", "+", "=", "~"]),
        default: "_",
        takes_effect: NewConnections,
        why: "What stands between PREFIX and user in the names of virtual domains' users. A name that begins with a PREFIX and \
              this is that domain's alone: nobody of another domain, nor of the main one, can log in by it, where it would be \
              the same account or the same drop file.",
    }),
    row!(drop_prefix {
        kind: Flag,
        default: "true",
        takes_effect: NewConnections,
        why: "Whether drop files of virtual domains are called PREFIX_fred; else fred, and then each domain needs a directory \
              of its own.",
    }),
    row!(alt_drop_path {
        kind: DomainFolder,
        repeatable: true,
        takes_effect: NewConnections,
        example: "abc.example /srv/mail/abc.example",
        why: "The drop files of DOMAIN, the main one or a virtual one, lie below DIRECTORY instead of drop_path or the \
              directory of its vdomain lines. As these it counts where the authenticator answers `config`; a path that the \
              authenticator names stays what it is.",
    }),
    row!(authent_method {
        part: "Who a user is",
        kind: OneOf(&["external", "unix_user"]),
        default: "external",
        takes_effect: Now,
        why: "How users prove who they are: external asks the program of authent_process; unix_user takes the users of this \
              machine and their passwords, for which the server must be started as root. Neither a login shell nor a home \
              is asked for: /bin/false and nologin may have mail.",
    }),
    row!(authent_process {
        kind: Command,
        required: true,
        takes_effect: Now,
        example: "/usr/local/bin/nwauth -path /var/lib/dmail",
        why: "The authenticator and its arguments; with authent_method unix_user not needed. A relative program starts from the directory of this file. The words are \
              split as a shell would, without a shell: quotes work, nothing is expanded.",
    }),
    row!(authent_number {
        kind: number("COPIES", 1, 64),
        default: "2",
        takes_effect: Now,
        why: "How many copies of the authenticator run; requests queue for them.",
    }),
    row!(authent_timeout {
        kind: number("SECONDS", 1, 300),
        default: "10",
        takes_effect: Now,
        why: "How long to wait for the authenticator. After that the client is told to try later, never that its password \
              is wrong.",
    }),
    row!(authent_domain {
        kind: Flag,
        default: "false",
        takes_effect: NewConnections,
        why: "Whether the authenticator is told user@domain instead of user, or of PREFIX_user in a virtual domain.",
    }),
    row!(authent_cache {
        kind: number("ENTRIES", 0, 10_000_000),
        default: "1000",
        takes_effect: Now,
        why: "How many good answers are remembered, at about 50 bytes each; 0 = none. A password that does not match a \
              remembered answer is always asked again, so a new one works at once.",
    }),
    row!(authent_cache_hours {
        kind: number("HOURS", 0, 168),
        default: "12",
        takes_effect: Now,
        why: "For how long; an old password may work that long after it was changed behind our back. 0 = nothing is \
              remembered.",
    }),
    row!(auth_nocache {
        kind: Flag,
        default: "false",
        takes_effect: Now,
        why: "true: remember no answer, whatever authent_cache says.",
    }),
    row!(apop_enable {
        kind: Flag,
        default: "false",
        takes_effect: NewConnections,
        why: "Whether APOP is offered, for old clients, where a password could be sent and the authenticator can judge it. It \
              hides the password only from who does not try, and needs passwords that are kept as they are (nwauth -apop).",
    }),
    row!(valid_users {
        part: "Who may log in",
        kind: Patterns,
        default: "*",
        takes_effect: NewConnections,
        why: "The names that may log in, before the authenticator is believed: ann,b*,!bob. A name of our main domain is \
              compared without it, any other as user@domain. ! excludes, wherever in the list it stands. Who is left out hears \
              what a wrong password hears.",
    }),
    row!(drop_must_exist {
        kind: Flag,
        default: "false",
        takes_effect: NewConnections,
        why: "Whether only users with a drop file may log in. Without it a user who never had mail has an empty mailbox.",
    }),
    row!(user_ip_address {
        kind: Networks,
        default: "*",
        takes_effect: NewConnections,
        why: "The addresses that users may log in from: 192.168.0.0/16,10.1.2.*,!10.1.2.66. Others hear what a wrong password \
              hears.",
    }),
    row!(user_ip_name {
        kind: Patterns,
        default: "*",
        takes_effect: NewConnections,
        why: "The hosts that users may log in from, by name: *.example.com,!lab?.example.com. It needs lookup_names; a client \
              without a name is matched by * alone.",
    }),
    row!(lookup_names {
        kind: Flag,
        default: "false",
        takes_effect: NewConnections,
        why: "Whether the names of clients' hosts are looked up. A name counts when it leads back to the address. The lookup \
              begins with the connection and a login waits for it only when user_ip_name asks, 5 seconds at most; then the \
              client has no name, and is told to try later where it needs one.",
    }),
    row!(max_per_user {
        kind: number("SESSIONS", 0, 1_000_000),
        default: "0",
        takes_effect: NewConnections,
        why: "Most sessions of one user at a time, those included that wait for the mailbox; 0 = no bound. Only right \
              passwords count, so nobody is kept out by strangers.",
    }),
    row!(login_delay_secs {
        kind: number("SECONDS", 0, 86_400),
        default: "0",
        takes_effect: NewConnections,
        why: "The least time between two logins of a user, announced to clients (LOGIN-DELAY); 0 = none.",
    }),
    row!(expire_days {
        kind: NumberOrNever { unit: "DAYS", min: 0, max: 3_650 },
        default: "never",
        takes_effect: NewConnections,
        why: "How long mail stays on the server, announced to clients (EXPIRE). At QUIT older messages are deleted for good; 0 \
              = at QUIT, whatever was retrieved.",
    }),
    row!(max_per_prefix {
        part: "Limits against abuse",
        kind: number("CONNECTIONS", 0, 1_000_000),
        default: "0",
        takes_effect: NewConnections,
        why: "Most connections at a time from one prefix; 0 = no bound. Off, because behind one address may be a whole campus; \
              set it when you know your clients, and name the exceptions in trusted_networks. Without it connections that do \
              not log in still give way when all are taken.",
    }),
    row!(prefix_bits_v4 {
        kind: number("BITS", 8, 32),
        default: "32",
        takes_effect: NewConnections,
        why: "How many bits of an IPv4 address are one customer, for max_per_prefix and penalties.",
    }),
    row!(prefix_bits_v6 {
        kind: number("BITS", 16, 128),
        default: "64",
        takes_effect: NewConnections,
        why: "The same for IPv6, where a customer has a network of his own.",
    }),
    row!(trusted_networks {
        kind: Networks,
        default: "127.0.0.1,::1",
        takes_effect: NewConnections,
        why: "Addresses of machines that many people are behind, such as a webmail server: neither max_per_prefix nor \
              penalties hold there. It does not open what user_ip_address shuts.",
    }),
    row!(penalty_max_secs {
        kind: number("SECONDS", 0, 60),
        default: "15",
        takes_effect: NewConnections,
        why: "The longest wait of a login from a prefix that guesses passwords: each new wrong one doubles it, time and good \
              logins bring it down, and a user who logged in well from there lately does not wait. 0 = nobody waits.",
    }),
    row!(smtp_max_size {
        part: "Mail that comes in",
        kind: number("KBYTES", 0, 4_194_304),
        default: "51200",
        takes_effect: NewConnections,
        why: "The largest message that is taken, as it is sent; 0 = no bound. A larger one is refused: 552 5.3.4.",
    }),
    row!(max_rcpts {
        kind: number("RECIPIENTS", 1, 50_000),
        default: "1000",
        takes_effect: NewConnections,
        why: "Most recipients of one message. For those beyond, the sender is told to send another copy: 452 4.5.3. RFC 5321 \
              asks for at least 100.",
    }),
    row!(smtp_max_hops {
        kind: number("HOPS", 10, 1_000),
        default: "100",
        takes_effect: NewConnections,
        why: "A message that so many servers have passed on, one more than this, is going round in circles and is refused: 554 \
              5.4.6.",
    }),
    row!(smtp_header_lines {
        kind: number("LINES", 100, 1_000_000),
        default: "10000",
        takes_effect: NewConnections,
        why: "Most lines of a message's header; with more it is refused: 552 5.6.0.",
    }),
    row!(smtp_header_kbytes {
        kind: number("KBYTES", 16, 65_536),
        default: "1024",
        takes_effect: NewConnections,
        why: "The largest header of a message; a larger one is refused: 552 5.6.0.",
    }),
    row!(smtp_line_bytes {
        kind: number("BYTES", 998, 16_777_216),
        default: "65536",
        takes_effect: NewConnections,
        why: "The longest line of a message; with a longer one it is refused: 550 5.6.0. RFC 5322 allows 998.",
    }),
    row!(bare_newline {
        kind: OneOf(BareNewline::NAMES),
        default: "normalize",
        takes_effect: NewConnections,
        why: "What becomes of a CR or LF that stands alone in a message: it is stored as a line end, or the message is refused. \
              In neither case does it end a message.",
    }),
    row!(hide_auth {
        kind: OneOf(HideAuth::NAMES),
        default: "false",
        takes_effect: NewConnections,
        why: "Whether AUTH goes unmentioned in the answer to EHLO, because some programs insist on it once they have seen it. \
              true: to all, and who asks for it has it all the same. recentpop: to who connects to submission_port from an address \
              that forward_user has opened; he needs no login there.",
    }),
    row!(smtp_greeting_hold_secs {
        kind: number("SECONDS", 0, 30),
        default: "0",
        takes_effect: NewConnections,
        why: "How long a client on smtp_port waits for the greeting; who speaks before it is no mail server and is closed. 0 = \
              not at all. Those in trusted_networks never wait.",
    }),
    row!(smtp_greeting_secs {
        kind: number("SECONDS", 10, 3_600),
        default: "300",
        takes_effect: NewConnections,
        why: "How long a client may wait with its first command.",
    }),
    row!(smtp_command_secs {
        kind: number("SECONDS", 10, 3_600),
        default: "300",
        takes_effect: NewConnections,
        why: "How long a client may wait with each further command. RFC 5321 asks for at least five minutes.",
    }),
    row!(smtp_data_secs {
        kind: number("SECONDS", 10, 3_600),
        default: "180",
        takes_effect: NewConnections,
        why: "How long a client may be silent within a message.",
    }),
    row!(smtp_max_errors {
        kind: number("COMMANDS", 1, 1_000),
        default: "20",
        takes_effect: NewConnections,
        why: "An SMTP client with that many refused commands is closed; an accepted message makes up for them.",
    }),
    row!(submit_group {
        kind: Group,
        takes_effect: Restart,
        example: "mailsubmit",
        why: "A group of users whose messages wait while the server is down: its members may leave them in the directory \
              incoming of work_path, by sendmail. They must be able to reach it there. Unset, root and the user that the \
              server runs as are the only ones, and others' programs are told to try again later. While the server runs, \
              every user of this machine may send.",
    }),
    row!(pickup_secs {
        kind: number("SECONDS", 1, 3_600),
        default: "30",
        takes_effect: Now,
        why: "How often the server looks for messages in that directory. It also does at its start, and when sendmail leaves \
              one while it runs.",
    }),
    row!(forward_from_ip {
        part: "Who may send what",
        kind: Networks,
        default: "127.0.0.0/8,::1",
        repeatable: true,
        takes_effect: NewConnections,
        why: "Addresses that may send mail to anywhere through smtp_port without logging in: 192.168.0.0/16,!192.168.0.13. Setting \
              it replaces the default, so name 127.0.0.1 again when programs of this machine send by that port. All others may \
              send to users here alone, unless they log in on submission_port. See docs/dsmtp-relaying.md.",
    }),
    row!(relay_to {
        kind: Patterns,
        repeatable: true,
        takes_effect: NewConnections,
        example: "branch.example,*.branch.example",
        why: "Domains of others that everybody may send to through this server, as their second mail exchanger. An entry with an \
              @ is compared with the whole address, one without with its domain; *.branch.example is not branch.example itself.",
    }),
    row!(forward_user {
        kind: Patterns,
        repeatable: true,
        takes_effect: NewConnections,
        example: "ann,*@old.example",
        why: "POP before SMTP, for programs too old to log in for sending: users who, by reading their mail, open smtp_port to \
              their address for forward_user_minutes; * = all. Whoever shares that address may send too, so unset is best. A \
              user of a virtual domain is compared as fred@abc.example.",
    }),
    row!(forward_user_minutes {
        kind: number("MINUTES", 1, 10_080),
        default: "30",
        takes_effect: NewConnections,
        why: "How long an address stays open to a user of forward_user after his last login for reading. A restart forgets all.",
    }),
    row!(forward_from {
        kind: Patterns,
        repeatable: true,
        takes_effect: NewConnections,
        example: "customer.example",
        why: "Senders who may send to anywhere: domains, or whole addresses with an @. Anybody can say that he is one of them, so \
              whoever finds out sends his junk through this server: use forward_from_ip or a login instead.",
    }),
    row!(sender_must_match {
        kind: Flag,
        default: "true",
        takes_effect: NewConnections,
        why: "Whether who has logged in may only send as himself: MAIL FROM must be an address of his own, at any name of his \
              domain, with or without a detail behind recipient_delimiter, or an alias or a forward line that leads its mail to \
              him, or be empty. The From: line of a message is not compared.",
    }),
    row!(ban_ip {
        kind: Networks,
        repeatable: true,
        takes_effect: NewConnections,
        example: "192.0.2.0/24,198.51.100.7",
        why: "Addresses that the ports for sending mail do not talk to, whoever is there: 554 5.7.1 in place of the greeting.",
    }),
    row!(ban_ip_except {
        kind: Networks,
        repeatable: true,
        takes_effect: NewConnections,
        example: "192.0.2.25",
        why: "Addresses that ban_ip does not mean, though it names them.",
    }),
    row!(ban_mailfrom {
        kind: Patterns,
        repeatable: true,
        takes_effect: NewConnections,
        example: "*@spam.example,bulk.example",
        why: "Senders whose mail is refused: 550 5.7.1. An entry is compared with the whole address and with its domain; <> is the \
              null sender, who sends bounces.",
    }),
    row!(ban_rcptto {
        kind: Patterns,
        repeatable: true,
        takes_effect: NewConnections,
        example: "nobody@example.com,*@closed.example",
        why: "Recipients to whom nobody may send, compared as by ban_mailfrom: 550 5.7.1. A postmaster of ours is never one of \
              them.",
    }),
    row!(sends_per_hour {
        kind: number("RECIPIENTS", 0, 1_000_000),
        default: "500",
        takes_effect: NewConnections,
        why: "Most recipients that a user who has logged in may send to within an hour, all his messages together; 0 = no bound. It \
              is what a stolen password is worth.",
    }),
    row!(sends_per_day {
        kind: number("RECIPIENTS", 0, 1_000_000),
        default: "2000",
        takes_effect: NewConnections,
        why: "The same within 24 hours.",
    }),
    row!(sends_over {
        kind: OneOf(SendsOver::NAMES),
        default: "refuse",
        takes_effect: NewConnections,
        why: "What becomes of mail beyond these two: refuse = the sender is told to try later (452 4.7.1); hold = it is taken, waits in \
              the queue until an operator releases it, and sysadmin gets one mail a day about that user.",
    }),
    row!(fromip_max {
        kind: number("MESSAGES", 0, 1_000_000),
        default: "0",
        takes_effect: NewConnections,
        why: "Most messages within an hour from one address, or one network of prefix_bits_v6, without a login; 0 = no bound. More \
              are told to try later: 450 4.7.1.",
    }),
    row!(fromip_nolimit {
        kind: Networks,
        default: "127.0.0.0/8,::1",
        repeatable: true,
        takes_effect: NewConnections,
        why: "Addresses for which fromip_max does not hold, such as a large provider's. Setting it replaces the default.",
    }),
    row!(sysadmin {
        part: "Where mail goes",
        kind: Address,
        takes_effect: Now,
        example: "ann@example.com",
        why: "The administrator: who has mail for postmaster, in every domain, unless an alias says otherwise, and for abuse \
              where nobody is called so. Needed by everybody who takes mail.",
    }),
    row!(alias_file {
        kind: File,
        takes_effect: Now,
        example: "/etc/aliases",
        why: "The aliases of the main domain, and of all others unless alias_fallthrough is false: a file in sendmail's \
              manner, `name: destination, ...`. A destination is an address, a user of the main domain, \\user for his \
              mailbox itself, |program, :include:/file or /dev/null. It is read at the start, by `newaliases` and by a \
              reload; with an error in it nothing changes. See docs/dsmtp-addresses.md.",
    }),
    row!(alias_file_domain {
        kind: DomainFile,
        repeatable: true,
        takes_effect: Now,
        example: "abc.example /etc/dmail/aliases.abc",
        why: "The aliases of one domain, looked at before alias_file. Names without a domain in it are of that domain.",
    }),
    row!(alias_fallthrough {
        kind: Flag,
        default: "true",
        takes_effect: Now,
        why: "Whether what a virtual domain has no alias of its own for is looked for in alias_file.",
    }),
    row!(forward {
        kind: Forward,
        repeatable: true,
        takes_effect: Now,
        example: "sales@example.com carl@example.com \"|/usr/local/lib/dmail/robots/tickets -new\"",
        why: "Mail for ADDRESS, in a domain of ours or in any other, goes to the DESTINATIONS instead, before anything else is \
              asked about it: whole addresses, or programs. $user is the address itself.",
    }),
    row!(forward_cc {
        kind: Forward,
        repeatable: true,
        takes_effect: Now,
        example: "ann@example.com archive@example.net",
        why: "The same, and ADDRESS has the mail too.",
    }),
    row!(catch_all {
        kind: DomainAddress,
        repeatable: true,
        takes_effect: Now,
        example: "abc.example ann@example.com",
        why: "Who has the mail of a domain of ours for which there is neither alias nor user. Such a domain takes all the junk \
              there is.",
    }),
    row!(recipient_delimiter {
        kind: OneOf(&["none", "+", "-", "=", "~", "_", "."]),
        default: "+",
        takes_effect: Now,
        why: "ann+anything is ann where there is no such user or alias; `none`: only as it is written.",
    }),
    row!(no_dotforward {
        kind: Flag,
        default: "false",
        takes_effect: Now,
        why: "true: .forward files in the homes of users of this machine (authent_method unix_user) are ignored. Elsewhere a \
              user's forward file is NAME.fwd beside his drop file.",
    }),
    row!(drop_max {
        kind: number("KBYTES", 0, 1_000_000_000_000),
        default: "0",
        takes_effect: Now,
        why: "Most live mail in a drop file; deleted mail does not count, whether or not its bytes are gone. 0 = no bound. A \
              user's own bound, quota=\"100k\", \"5M\" or \"2G\" among what the authenticator says of him, comes before it; \
              quota=\"0\" is none. Messages that come at the same time are judged one by one: each sender may go \
              beyond it by one.",
    }),
    row!(quota_reply {
        kind: OneOf(QuotaReply::NAMES),
        default: "temporary",
        takes_effect: Now,
        why: "What a sender hears whose message does not fit: to try again later (452), or that it is refused (552).",
    }),
    row!(quota_warn {
        kind: number("PERCENT", 0, 100),
        default: "90",
        takes_effect: Now,
        why: "A user whose mail passes so much of his bound is told by a message, once until he is below it again; 0 = never.",
    }),
    row!(robot_path {
        part: "Programs that are given mail",
        kind: Folder,
        takes_effect: Now,
        example: "/usr/local/lib/dmail/robots",
        why: "The only directory whose programs a destination that begins with | may run: then the last part of a program's name \
              counts and no other, wherever it says the program lies. It must be root's. Put links there to what may be run, and \
              never a shell, an interpreter or anything else that runs what its arguments say. Unset, dmail.conf and alias \
              files may name any program, and it runs as run_as.",
    }),
    row!(robot_user {
        kind: User,
        takes_effect: Now,
        example: "nobody",
        why: "As whom programs run that dmail.conf and alias files name. Unset: run_as. Another user needs a robot_path. \
              Never root.",
    }),
    row!(user_robots {
        kind: Flag,
        default: "false",
        takes_effect: Now,
        why: "Whether users' own forward files may name programs of robot_path, which then run as that user.",
    }),
    row!(robot_secs {
        kind: number("SECONDS", 1, 3_600),
        default: "60",
        takes_effect: Now,
        why: "How long a program may take for a message. Then it is killed, with all it started, and given the message again \
              later.",
    }),
    row!(robot_number {
        kind: number("PROGRAMS", 1, 10),
        default: "4",
        takes_effect: Now,
        why: "How many programs are given mail at a time; further messages wait.",
    }),
    row!(robot_output {
        kind: number("KBYTES", 1, 64),
        default: "4",
        takes_effect: Now,
        why: "How much of what a program says is kept: its first lines go into the bounce. The rest is read and forgotten.",
    }),
    row!(gateway {
        part: "Mail that goes out",
        kind: Gateway,
        takes_effect: Now,
        example: "relay.example.net:587 tls=required login=/etc/dmail/relay.login",
        why: "A host that is given all mail for other hosts, whatever DNS says: a smart host. Several with commas are tried in their \
              order. The options are those of route. Unset, mail goes to the hosts that DNS names for its domain.",
    }),
    row!(route {
        kind: Route,
        repeatable: true,
        takes_effect: Now,
        example: "partner.example,*.partner.example [192.0.2.25] tls=required",
        why: "Where mail for DOMAINS goes instead: names, *.NAME for all below a name, * for all others, with commas; the most \
              specific one counts. TARGET is mx (the hosts that DNS names), mx:NAME (those of another name), HOST[:PORT], \
              [IP][:PORT], several of these with commas, lmtp:HOST:PORT, lmtp:/SOCKET, or park: it waits until it is asked for. \
              Options: tls=never, offered (as when not written), required or verified; wrapped (TLS from the first octet); \
              login=FILE (a file with a user and a password); inside (this machine may be meant); connections=NUMBER. See \
              docs/dsmtp-sending.md.",
    }),
    row!(sender_route {
        kind: SenderRoute,
        repeatable: true,
        takes_effect: Now,
        example: "*@news.example relay.example.net:587",
        why: "The same for mail of SENDERS, before route and gateway are asked: wildcards that are compared with the whole sender and \
              with its domain; <> is the null sender, who sends bounces. The first line that matches counts.",
    }),
    row!(smtp_out_port {
        kind: number("PORT", 1, 65_535),
        default: "25",
        takes_effect: Now,
        why: "The port of other hosts that mail is brought to, unless a route or gateway names another. Change it for tests alone: \
              the world listens on 25.",
    }),
    row!(send_name {
        kind: Host,
        takes_effect: NewConnections,
        example: "mail.example.com",
        why: "The name by which we greet other hosts (EHLO): that of this machine, to which its address should lead back. Unset, \
              it is the main domain.",
    }),
    row!(send_address {
        kind: Addresses,
        default: "*",
        repeatable: true,
        takes_effect: NewConnections,
        example: "192.0.2.1,2001:db8::1",
        why: "The addresses from which mail is sent, one of IPv4 and one of IPv6; * = as the system has it. With one alone, the other \
              kind goes as the system has it.",
    }),
    row!(send_connections {
        kind: number("CONNECTIONS", 1, 1_000),
        default: "10",
        takes_effect: Now,
        why: "Most connections at a time to one destination, unless its route says another number. There are fewer of them while it \
              is slow to take mail: it begins with few, grows with each success and shrinks with each refusal.",
    }),
    row!(send_connections_max {
        kind: number("CONNECTIONS", 1, 10_000),
        default: "100",
        takes_effect: Now,
        why: "Most connections at a time to all destinations together.",
    }),
    row!(send_connect_secs {
        kind: number("SECONDS", 1, 600),
        default: "30",
        takes_effect: NewConnections,
        why: "How long a host may take to accept a connection; then its next address is tried.",
    }),
    row!(send_greeting_secs {
        kind: number("SECONDS", 1, 3_600),
        default: "300",
        takes_effect: NewConnections,
        why: "How long it may take to greet us. RFC 5321 asks for five minutes, for this and for MAIL and RCPT.",
    }),
    row!(send_command_secs {
        kind: number("SECONDS", 1, 3_600),
        default: "300",
        takes_effect: NewConnections,
        why: "How long for the answer to EHLO, STARTTLS, AUTH and RSET.",
    }),
    row!(send_mail_secs {
        kind: number("SECONDS", 1, 3_600),
        default: "300",
        takes_effect: NewConnections,
        why: "How long for the answer to MAIL.",
    }),
    row!(send_rcpt_secs {
        kind: number("SECONDS", 1, 3_600),
        default: "300",
        takes_effect: NewConnections,
        why: "How long for the answer to each RCPT.",
    }),
    row!(send_data_secs {
        kind: number("SECONDS", 1, 3_600),
        default: "120",
        takes_effect: NewConnections,
        why: "How long for the answer to DATA. RFC 5321 asks for two minutes.",
    }),
    row!(send_block_secs {
        kind: number("SECONDS", 1, 3_600),
        default: "180",
        takes_effect: NewConnections,
        why: "How long it may take none of the text of a message. RFC 5321 asks for three minutes.",
    }),
    row!(send_dot_secs {
        kind: number("SECONDS", 1, 7_200),
        default: "600",
        takes_effect: NewConnections,
        why: "How long for the answer when it has the whole message. RFC 5321 asks for ten minutes, and who waits less may deliver \
              twice: see possibly_secs.",
    }),
    row!(send_quit_secs {
        kind: number("SECONDS", 1, 600),
        default: "10",
        takes_effect: NewConnections,
        why: "How long for the answer to QUIT, on which nothing depends.",
    }),
    row!(send_idle_secs {
        kind: number("SECONDS", 0, 300),
        default: "2",
        takes_effect: NewConnections,
        why: "How long a connection is kept for a next message to the same destination; 0 = it is not.",
    }),
    row!(send_session_secs {
        kind: number("SECONDS", 1, 86_400),
        default: "3600",
        takes_effect: NewConnections,
        why: "How long one transaction may take up to its text, however slow each answer may be; how long its text may take, \
              with a second more for each kilobyte; and how long a connection is used for further messages.",
    }),
    row!(dns_host {
        kind: Servers,
        repeatable: true,
        takes_effect: Now,
        example: "192.0.2.53,[2001:db8::53]:5353",
        why: "The DNS servers that are asked where mail goes: ADDRESS or ADDRESS:PORT, an IPv6 address with a port in brackets. \
              Unset, they are those of /etc/resolv.conf.",
    }),
    row!(dns_timeout {
        kind: number("SECONDS", 1, 60),
        default: "5",
        takes_effect: Now,
        why: "How long to wait for a DNS server's answer before the next one is asked.",
    }),
    row!(etrn_from_ip {
        kind: Networks,
        repeatable: true,
        takes_effect: NewConnections,
        example: "192.0.2.0/24",
        why: "Addresses that may ask with ETRN for the mail of a domain that waits here. Unset, nobody may.",
    }),
    row!(body_memory {
        part: "Delivery and the queue",
        kind: number("KBYTES", 512, 4_194_304),
        default: "4096",
        takes_effect: Restart,
        why: "Memory for the texts of all messages that are on their way at a time. What is larger, or finds no room, is kept in \
              files in work_path until it is delivered; senders wait while these are written.",
    }),
    row!(delivery_min_space {
        kind: number("MEGABYTES", 0, 1_000_000_000),
        default: "32",
        takes_effect: Now,
        why: "With less than this free where drop files lie, or in work_path, no new mail is taken: senders are told to try later \
              (452 4.3.1). Reading and deleting go on. 0 = free space is not watched.",
    }),
    row!(retry_schedule {
        kind: Schedule,
        default: "300,600,1200,2400,4800,9600,14400",
        takes_effect: Now,
        why: "How long a message that could not be delivered waits in the queue before it is tried again: behind the first try, \
              the second, and so on; the last of these repeats. Each wait is a tenth longer or shorter by chance. What is for \
              users here waits 10, 60, 300, 900 and then 3600 seconds where this says more.",
    }),
    row!(queue_life {
        kind: number("SECONDS", 60, 31_536_000),
        default: "432000",
        takes_effect: Now,
        why: "How long a message may wait. Behind that the next failure is the last one, and the sender is told.",
    }),
    row!(bounce_life {
        kind: number("SECONDS", 60, 31_536_000),
        default: "86400",
        takes_effect: Now,
        why: "How long a message may wait that comes from no sender, such as a bounce, if queue_life is not shorter. Then it is \
              dropped: there is nobody to tell.",
    }),
    row!(possibly_secs {
        kind: number("SECONDS", 1, 604_800),
        default: "14400",
        takes_effect: Now,
        why: "How long to wait, at least, when a server had the whole message and no answer came: it may have been delivered, and \
              trying again may deliver it twice.",
    }),
    row!(delay_warning {
        kind: number("SECONDS", 0, 31_536_000),
        default: "14400",
        takes_effect: Now,
        why: "A sender is told once when his message has waited so long and is still being tried; 0 = never. Who asked in the \
              message's envelope not to be told of delays is not.",
    }),
    row!(success_reports {
        kind: Flag,
        default: "true",
        takes_effect: Now,
        why: "Whether a sender who asks for it (NOTIFY=SUCCESS) is told that his message was delivered. false: nobody hears that a \
              message reached a mailbox, and that it was asked for is not passed on either.",
    }),
    row!(bounce_body {
        kind: Flag,
        default: "false",
        takes_effect: Now,
        why: "Whether a bounce brings the whole message back, not its header alone.",
    }),
    row!(bounce_max_size {
        kind: number("KBYTES", 0, 16_384),
        default: "1024",
        takes_effect: Now,
        why: "A larger message is never brought back whole, whatever bounce_body or its sender (RET=FULL) says: its header is.",
    }),
    row!(merge_repeats {
        kind: Flag,
        default: "true",
        takes_effect: Now,
        why: "Whether a message is taken once when a server sends it again because our answer, that it was taken, got lost: the \
              same sender, recipients and text, with the same Received lines. false: it is delivered as often as it comes.",
    }),
    row!(bulletin_path {
        part: "Bulletins",
        kind: Folder,
        takes_effect: Now,
        example: "/var/lib/dmail/bulletins",
        why: "Directory of bulletins, messages to all users: each is a text file NUMBER.txt, its number higher than any before. \
              It may begin with a Subject: line and a blank line. One file serves everybody: who deletes it is shown it no more, \
              and when the file is taken away it is gone for all. Unset, there are none.",
    }),
    row!(bulletin_from {
        kind: Text,
        default: "\"Email System Administrator\"",
        takes_effect: Now,
        why: "From whom bulletins are: a name, or a whole address.",
    }),
    row!(hide_old_bulls {
        kind: Flag,
        default: "false",
        takes_effect: NewConnections,
        why: "true: a user who logs in for the first time is not shown the bulletins that are there already.",
    }),
];

/// The row of `name`, in any case.
pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name.eq_ignore_ascii_case(name))
}

/// Names from the manual of the original, or promised for later, that this version does not use.
pub struct Unused {
    /// The names.
    pub names: &'static [&'static str],
    /// What happens instead.
    pub why: &'static str,
    /// Whether somebody may rely on them for his safety, or for where mail lies: said as a warning, not as a note.
    pub matters: bool,
    /// Whether a later version may use them.
    pub later: bool,
}

const fn note(names: &'static [&'static str], why: &'static str) -> Unused {
    Unused { names, why, matters: false, later: true }
}

const fn warn(names: &'static [&'static str], why: &'static str) -> Unused {
    Unused { names, why, matters: true, later: true }
}

const fn gone(names: &'static [&'static str], why: &'static str) -> Unused {
    Unused { names, why, matters: false, later: false }
}

/// Known, and for a later version.
#[rustfmt::skip]
pub static LATER: &[Unused] = &[
    warn(&["lock_id"], "do not let several machines serve one spool yet"),
    warn(&["allow_ip"], "what it meant is not known: user_ip_address says where users may log in from"),
    note(&["admin_port"], "there is no web administration yet"),
    note(
        &[
            "bomb_dec", "bomb_dir", "bomb_entries", "bomb_exception_from", "bomb_exception_ip", "bomb_exception_to",
            "bomb_max",
        ],
        "mail bombs are not looked for; fromip_max and max_rcpts bound what one sender can do",
    ),
    warn(
        &["filter_file", "mail_filter", "msg_filter"],
        "messages are not filtered yet: what these would keep out comes in",
    ),
    note(&["add_footer"], "no footer is added to messages yet: they are kept and sent as they came"),
    note(&["archive_batch"], "mail is not archived yet, so at the end of a day there is nothing to move"),
    note(
        &[
            "dlist_accept_from_request", "dlist_domain", "dlist_loglvl", "dlist_names", "dlist_path", "dlist_rotate",
            "dlist_smtp_host", "dlist_web_abs",
        ],
        "there is no list server yet",
    ),
];

/// Known, and needed no more.
#[rustfmt::skip]
pub static GONE: &[Unused] = &[
    gone(
        &["allowdup"],
        "several recipients of one message may always have the same drop: none of them is refused for it",
    ),
    gone(
        &["alias"],
        "there are no blocks of a domain: host_domain names another domain of the same users, alias_file_domain has aliases of one domain",
    ),
    gone(&["allow_dds"], "names with ../ in them are never users"),
    gone(&["dpop_host"], "tellpop reaches the server through a socket in work_path"),
    gone(&["dpop_path", "dsmtp_path"], "one file holds all programs; nothing is looked for beside it"),
    gone(&["dwatch_path"], "the system's own supervision watches over the server, systemd for one"),
    gone(&["exit_files"], "the server is stopped with SIGTERM"),
    gone(&["key"], "no licence key is needed"),
    gone(
        &["log_data"],
        "what messages say is never written to a log; `tellsmtp trace` follows one by its id or by an address",
    ),
    gone(&["manager_ip_address", "manager_ip_name"], "no port takes commands of managers: tellpop uses a socket in work_path"),
    gone(&["manager_password"], "who may use the socket in work_path may control the server; take the password out"),
    gone(&["use_drop"], "drop files stay the mbox files they are"),
];

/// Whether and why `name`, in any case, is not used: with the name as we write it.
pub fn unused(name: &str) -> Option<(&'static str, &'static Unused)> {
    let all = LATER.iter().chain(GONE).flat_map(|unused| unused.names.iter().map(move |name| (*name, unused)));
    all.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))
}

/// Every name there is, for suggestions.
pub fn names() -> impl Iterator<Item = &'static str> {
    let unused = LATER.iter().chain(GONE).flat_map(|unused| unused.names.iter().copied());
    ROWS.iter().map(|row| row.name).chain(unused)
}
