//! F4: the verbs of operation. One row each gives parsing, help, rights and, later, a web form; what an order does is
//! `server`'s business, how it is printed is [`Report`]'s.
//!
//! | whose                                        | verbs of these rights          |
//! |----------------------------------------------|--------------------------------|
//! | root, and the user that the server runs as   | [`Rights::Read`], [`Rights::Operate`], [`Rights::All`] |
//! | members of `control_group`                   | [`Rights::Read`], [`Rights::Operate`] |
//! | everybody else                               | none                           |
//!
//! Two tools give orders to the same server: tellpop, who thinks of mailboxes and POP3, and tellsmtp, who thinks of mail on its
//! way. A verb is the one's, the other's or both's ([`Verb::of`]); what is cut short is looked for among the tool's own.

pub mod queue;
pub mod report;
pub mod sending;

use std::net::IpAddr;

use log::LevelFilter;

pub use report::{Report, Told, render};

use crate::text::secret::Secret;

/// Where a server listens for orders, below its work_path.
pub const SOCKET: &str = "dmail.sock";
/// Longest argument that a person may write: names and patterns are short.
const ARGUMENT_LIMIT: usize = 512;

/// A command with its arguments that is longer moves the help of its line.
const HELP_WIDTH: usize = 30;

/// What somebody is told who may give no orders.
pub const STRANGER: &str = "only root, the user that the server runs as and members of control_group may give orders";

/// A tool that gives orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// tellpop.
    Pop,
    /// tellsmtp.
    Smtp,
}

impl Teller {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Teller::Pop => "tellpop",
            Teller::Smtp => "tellsmtp",
        }
    }

    /// Its verbs, in the order of their names.
    pub fn verbs(self) -> impl Iterator<Item = &'static Verb> {
        VERBS.iter().filter(move |verb| verb.of.is_none_or(|of| of == self))
    }

    /// The line's words without the tool's name, which tellsmtp puts before them, and the tool.
    pub fn of(words: &[String]) -> (Teller, &[String]) {
        match words {
            [name, rest @ ..] if name == Teller::Smtp.name() => (Teller::Smtp, rest),
            words => (Teller::Pop, words),
        }
    }
}

/// Something a running server is told to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Say how it is: all of it, or what mail on its way needs.
    Status(Teller),
    /// Say how long turns take.
    Profile,
    /// Say which connections there are.
    Channels,
    /// Say what a setting is.
    Config(String),
    /// Look at the queue, or change it.
    Queue(queue::Ask),
    /// Send nothing to this place, or to anybody, until that is taken back.
    Pause(Option<String>),
    /// Take that back.
    Resume(Option<String>),
    /// Say which places mail is sent to, and how each is.
    Sending,
    /// Say why mail is taken, or not.
    Why(Why),
    /// Forget all that authenticators and name servers said.
    ClearCache,
    /// Say what holds how much memory.
    Mem,
    /// Say who is logged in, of those whose names match.
    Users(Option<String>),
    /// End the sessions of a user, or the one with this id.
    Kick(String),
    /// Say where a user's mail is.
    Lookup(String),
    /// Call back a user's deleted mail that is still in his drop.
    Undelete(String),
    /// Take a user's mailbox away.
    Erase(String),
    /// Give the first user's mailbox to the second.
    Rename(String, String),
    /// Forget what authenticators said about a user.
    Forget(String),
    /// What a command of the original needs not be done for, or not yet: a name, and a sentence.
    Remark(&'static str, &'static str),
    /// Read the configuration again.
    Reload,
    /// Log more or less, until the next reload or start.
    LogLevel(LevelFilter),
    /// Stop in an orderly way.
    Shutdown,
    /// Say what it is.
    Version,
    /// List the verbs.
    Help(Teller),
    /// For the tool itself: it needs no server, and may judge the rest of its words.
    ByTool(Tool),
}

/// A message that might be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Its sender, as in MAIL; empty = `<>`.
    pub from: String,
    /// A recipient.
    pub to: String,
    /// Where the client is; none = it may be anywhere.
    pub address: Option<IpAddr>,
    /// As whom he has logged in.
    pub login: Option<String>,
}

/// What a tool does itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tool {
    /// Sum up statistics files of sessions.
    Stats,
    /// Sum up statistics files of messages.
    Statistics,
    /// Put a message to all users on the board.
    Bulletin,
    /// Set the password of administrators.
    Password(Option<Secret>),
    /// Show the log while it is written.
    SendLog,
    /// Show what the logs say about a message or an address.
    Trace(String),
}

/// What somebody must be to use a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// It only looks: `control_group` may.
    Read,
    /// Daily work that loses no mail: `control_group` may.
    Operate,
    /// Everything else: root and the user that the server runs as may.
    All,
}

/// Who gives an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Root, or the user that the server runs as.
    Owner,
    /// A member of `control_group`.
    Member,
    /// Somebody else.
    Stranger,
}

impl Caller {
    /// What somebody is who has this uid and is in these groups, to a server that runs as `own` and has this group's number
    /// for its `control_group`.
    pub fn of(uid: u32, groups: &[u32], own: u32, control: Option<u32>) -> Caller {
        if uid == 0 || uid == own {
            Caller::Owner
        } else if control.is_some_and(|control| groups.contains(&control)) {
            Caller::Member
        } else {
            Caller::Stranger
        }
    }

    /// Whether he may use verbs of these rights.
    pub fn may(self, rights: Rights) -> bool {
        match self {
            Caller::Owner => true,
            Caller::Member => matches!(rights, Rights::Read | Rights::Operate),
            Caller::Stranger => false,
        }
    }

    /// Why he may not: a sentence.
    pub fn refusal(self, verb: &Verb) -> String {
        match self {
            Caller::Member => {
                let name = verb.name;
                format!("{name}: only root and the user that the server runs as may do this, control_group may not")
            }
            Caller::Owner | Caller::Stranger => STRANGER.to_owned(),
        }
    }
}

/// One verb.
#[derive(Debug)]
pub struct Verb {
    /// Its name; a prefix that no other verb has will do, and case and `_` do not matter.
    pub name: &'static str,
    /// Whose it is; none = both tools'.
    pub of: Option<Teller>,
    /// What it takes, for the help.
    pub arguments: &'static str,
    /// What it does, for the help.
    pub help: &'static str,
    /// Who may.
    pub rights: Rights,
    /// It asks an authenticator or works on files, so it may take minutes.
    pub slow: bool,
    parse: fn(&[String]) -> Result<Order, String>,
}

/// What most verbs are.
const USUAL: Verb = Verb {
    name: "",
    of: None,
    arguments: "",
    help: "",
    rights: Rights::All,
    slow: false,
    parse: |_| Err("this command does nothing".to_owned()),
};
/// What most verbs of tellpop alone are.
const POPS: Verb = Verb { of: Some(Teller::Pop), ..USUAL };
/// What most verbs of tellsmtp alone are.
const SMTPS: Verb = Verb { of: Some(Teller::Smtp), ..USUAL };

/// A verb of the original that has nothing to do.
macro_rules! remark {
    ($of:expr, $name:literal, $arguments:literal, $about:literal, $text:literal) => {
        Verb {
            name: $name,
            of: $of,
            arguments: $arguments,
            help: concat!("nothing: ", $text),
            rights: Rights::Read,
            parse: |_| Ok(Order::Remark($about, $text)),
            ..USUAL
        }
    };
}

/// All verbs, in the order of their names.
pub static VERBS: &[Verb] = &[
    Verb {
        name: "bulletin",
        help: "post a message to all users: its text from standard input, up to a line with a single dot",
        parse: |args| none(args, Order::ByTool(Tool::Bulletin)),
        ..POPS
    },
    Verb {
        name: "clear_cache_all",
        help: "forget what authenticators said about users, and all that name servers said",
        rights: Rights::Operate,
        parse: |args| none(args, Order::ClearCache),
        ..SMTPS
    },
    Verb {
        name: "config",
        arguments: "SETTING",
        help: "the value in force, where it is written, and when a change takes effect",
        rights: Rights::Read,
        parse: |args| one(args, "the name of a setting").map(Order::Config),
        ..SMTPS
    },
    Verb {
        name: "erase",
        arguments: "USER",
        help: "delete a user's mailbox with all that is in it, for good",
        slow: true,
        parse: |args| user(args).map(Order::Erase),
        ..POPS
    },
    remark!(
        Some(Teller::Smtp),
        "filters",
        "",
        "filters",
        "no message is filtered by this version; mail_filter and filter_file are for a later one"
    ),
    Verb {
        name: "forget",
        arguments: "USER",
        help: "ask the authenticator anew at this user's next login",
        parse: |args| user(args).map(Order::Forget),
        ..POPS
    },
    Verb {
        name: "help",
        help: "list the commands",
        rights: Rights::Read,
        parse: |args| none(args, Order::Help(Teller::Pop)),
        ..POPS
    },
    Verb {
        name: "help",
        help: "list the commands",
        rights: Rights::Read,
        parse: |args| none(args, Order::Help(Teller::Smtp)),
        ..SMTPS
    },
    remark!(
        Some(Teller::Pop),
        "key",
        "[KEY]",
        "licence",
        "no licence key is needed, and there is nothing to be registered"
    ),
    Verb {
        name: "kick",
        arguments: "USER|ID",
        help: "end a user's sessions, or the one with this id; nothing is deleted by it",
        rights: Rights::Operate,
        parse: |args| one(args, "a user's name, or a session's id as `users` shows it").map(Order::Kick),
        ..POPS
    },
    Verb {
        name: "log_level",
        arguments: "error|warn|info|debug",
        help: "log this much, until the next reload or start",
        parse: log_level,
        ..USUAL
    },
    Verb {
        name: "lookup",
        arguments: "USER",
        help: "where a user's mail is, as the authenticator and the settings have it",
        rights: Rights::Read,
        slow: true,
        parse: |args| user(args).map(Order::Lookup),
        ..POPS
    },
    Verb {
        name: "mem",
        help: "what holds how much memory, and what a session may hold",
        rights: Rights::Read,
        parse: |args| none(args, Order::Mem),
        ..POPS
    },
    remark!(
        Some(Teller::Smtp),
        "monitors",
        "",
        "monitors",
        "logs are not sent to other machines; `tellsmtp sendlog` shows this one's"
    ),
    Verb {
        name: "password",
        arguments: "[NEW]",
        help: "set the password for remote administration; asked for when it is not given",
        parse: password,
        ..POPS
    },
    Verb {
        name: "pause",
        arguments: "[PLACE]",
        help: "send nothing to this place, or to anybody, until `resume`; a restart does not forget it",
        rights: Rights::Operate,
        parse: |args| place(args).map(Order::Pause),
        ..SMTPS
    },
    Verb {
        name: "profile",
        help: "how long turns take, for each kind of what has turns",
        rights: Rights::Read,
        parse: |args| none(args, Order::Profile),
        ..SMTPS
    },
    Verb {
        name: "queue",
        arguments: "[list|show|delete|hold|release|retry|route] [ID|FILTER ...]",
        help: "mail that waits, by from= to= domain= place= reason= state= size=",
        rights: Rights::Read,
        slow: true,
        parse: |args| queue::parse(args).map(Order::Queue),
        ..SMTPS
    },
    remark!(
        Some(Teller::Smtp),
        "quiet",
        "",
        "output",
        "the server prints nothing while it runs; `log_level` says how much is logged"
    ),
    remark!(None, "register", "", "licence", "no licence key is needed, and there is nothing to be registered"),
    Verb {
        name: "reload",
        help: "read the configuration again: all of it or, when something is wrong with it, none",
        slow: true,
        parse: |args| none(args, Order::Reload),
        ..USUAL
    },
    Verb {
        name: "rename",
        arguments: "OLD NEW",
        help: "give a user's mailbox to another name, with its UIDs",
        slow: true,
        parse: rename,
        ..POPS
    },
    Verb {
        name: "resume",
        arguments: "[PLACE]",
        help: "take `pause` back, of this place or of everything",
        rights: Rights::Operate,
        parse: |args| place(args).map(Order::Resume),
        ..SMTPS
    },
    Verb {
        name: "sendlog",
        help: "show dsmtp.log while it is written, until interrupted; needs no server",
        rights: Rights::Read,
        parse: |args| none(args, Order::ByTool(Tool::SendLog)),
        ..SMTPS
    },
    Verb {
        name: "showchans",
        help: "which connections there are, and how each is",
        rights: Rights::Read,
        parse: |args| none(args, Order::Channels),
        ..SMTPS
    },
    Verb {
        name: "showsend",
        help: "which places mail is sent to, how each is, and what waits for it",
        rights: Rights::Read,
        parse: |args| none(args, Order::Sending),
        ..SMTPS
    },
    Verb {
        name: "shutdown",
        help: "stop: clients are told, what was begun is finished",
        parse: |args| none(args, Order::Shutdown),
        ..USUAL
    },
    Verb {
        name: "statistics",
        arguments: "[-h] [OPTION ...] [TIME]",
        help: "sum up the statistics of messages, by domain or user; needs no server",
        rights: Rights::Read,
        parse: |_| Ok(Order::ByTool(Tool::Statistics)),
        ..POPS
    },
    Verb {
        name: "stats",
        arguments: "[-h] [FILE ...]",
        help: "sum up the statistics files, a line a user; needs no server",
        rights: Rights::Read,
        parse: |_| Ok(Order::ByTool(Tool::Stats)),
        ..POPS
    },
    Verb {
        name: "status",
        help: "how the server is: sessions, logins, authenticators, memory, longest turn",
        rights: Rights::Read,
        parse: |args| none(args, Order::Status(Teller::Pop)),
        ..POPS
    },
    Verb {
        name: "status",
        help: "how the server is: mail accepted, refused, delivered, waiting; memory, longest turn",
        rights: Rights::Read,
        parse: |args| none(args, Order::Status(Teller::Smtp)),
        ..SMTPS
    },
    Verb {
        name: "trace",
        arguments: "ID|ADDRESS",
        help: "what the logs say about a message, or an address, and where it waits",
        rights: Rights::Read,
        parse: |args| one(args, "a message's id or an address").map(|what| Order::ByTool(Tool::Trace(what))),
        ..SMTPS
    },
    Verb {
        name: "undelete",
        arguments: "USER",
        help: "call back what a user deleted, as far as it is still in the drop",
        rights: Rights::Operate,
        slow: true,
        parse: |args| user(args).map(Order::Undelete),
        ..POPS
    },
    Verb {
        name: "users",
        arguments: "[PATTERN]",
        help: "who is logged in, of those whose names match: * any run, ? one character",
        rights: Rights::Read,
        parse: |args| match args {
            [] => Ok(Order::Users(None)),
            args => one(args, "a pattern for users' names").map(|pattern| Order::Users(Some(pattern))),
        },
        ..POPS
    },
    Verb {
        name: "version",
        help: "what runs there",
        rights: Rights::Read,
        parse: |args| none(args, Order::Version),
        ..USUAL
    },
    Verb {
        name: "why",
        arguments: "FROM TO [IP] [as USER]",
        help: "which rules a message would meet, where they are written, and what they would say",
        rights: Rights::Read,
        slow: true,
        parse: why,
        ..SMTPS
    },
];

fn none(arguments: &[String], order: Order) -> Result<Order, String> {
    match arguments.first() {
        None => Ok(order),
        Some(extra) => Err(format!("`{extra}`: this command takes no arguments")),
    }
}

/// The only argument there is; `what` says what it should be.
fn one(arguments: &[String], what: &str) -> Result<String, String> {
    match arguments {
        [word] if word.is_empty() || word.len() > ARGUMENT_LIMIT => Err(format!("that is not {what}")),
        [word] => Ok(word.clone()),
        [] => Err(format!("this command takes {what}")),
        [_, extra, ..] => Err(format!("`{extra}`: this command takes {what}, and nothing else")),
    }
}

/// A place that mail is sent to, if one is named: its name may have a blank.
fn place(arguments: &[String]) -> Result<Option<String>, String> {
    match arguments {
        [] => Ok(None),
        [word, ..] if word.starts_with('-') => Err(format!("`{word}` is no place: `showsend` lists them")),
        words => one(&[words.join(" ")], "a place, as `showsend` lists them").map(Some),
    }
}

fn user(arguments: &[String]) -> Result<String, String> {
    one(arguments, "a user's name")
}

fn rename(arguments: &[String]) -> Result<Order, String> {
    let [old, new] = arguments else { return Err("rename takes two names: the old one and the new one".to_owned()) };
    let name = |word: &String| user(std::slice::from_ref(word));
    Ok(Order::Rename(name(old)?, name(new)?))
}

fn password(arguments: &[String]) -> Result<Order, String> {
    match arguments {
        [] => Ok(Order::ByTool(Tool::Password(None))),
        [word] => Ok(Order::ByTool(Tool::Password(Some(Secret::new(word.clone().into_bytes()))))),
        _ => Err("password takes one word: put one with blanks in quotes, or give none and be asked".to_owned()),
    }
}

fn log_level(arguments: &[String]) -> Result<Order, String> {
    let [word] = arguments else { return Err("log_level takes one of error, warn, info, debug".into()) };
    let level = match word.parse() {
        Ok(level @ (LevelFilter::Error | LevelFilter::Warn | LevelFilter::Info | LevelFilter::Debug)) => level,
        _ => return Err(format!("`{word}` is no level: log_level takes one of error, warn, info, debug")),
    };
    Ok(Order::LogLevel(level))
}

/// The message that is asked about: `<>` is the sender of bounces, and addresses may be in angle brackets.
fn why(arguments: &[String]) -> Result<Order, String> {
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let login = match words.iter().position(|word| word.eq_ignore_ascii_case("as")) {
        Some(at) if at + 2 == words.len() && at >= 2 => {
            let login = words[at + 1].to_owned();
            words.truncate(at);
            Some(login)
        }
        Some(_) => return Err("`as USER` ends the command".to_owned()),
        None => None,
    };
    let (from, to, address) = match words[..] {
        [from, to] => (from, to, None),
        [from, to, address] => {
            let address = address.parse().map_err(|_| format!("`{address}` is no address of a client"))?;
            (from, to, Some(address))
        }
        _ => return Err("why takes a sender, a recipient and, where it matters, the client's address".to_owned()),
    };
    let bare = |text: &str| text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text).to_owned();
    let (from, to) = (bare(from), bare(to));
    if to.is_empty() || from.len() > ARGUMENT_LIMIT || to.len() > ARGUMENT_LIMIT {
        return Err("that is no sender and recipient".to_owned());
    }
    Ok(Order::Why(Why { from, to, address, login }))
}

/// What words mean.
#[derive(Debug)]
pub struct Parsed {
    /// The verb.
    pub verb: &'static Verb,
    /// The verb with its arguments.
    pub order: Order,
    /// Who may give it.
    pub rights: Rights,
    /// Whether the report is wanted as JSON.
    pub json: bool,
}

impl Order {
    /// Who may give it, where not all orders of a verb are for the same.
    fn rights(&self, verb: &Verb) -> Rights {
        use queue::{Ask, Change};
        match self {
            // Who sends mail another way may read it there.
            Order::Queue(
                Ask::One(Change::Delete | Change::Route(_), _) | Ask::All(Change::Delete | Change::Route(_), ..),
            ) => Rights::All,
            Order::Queue(Ask::One(..) | Ask::All(..)) => Rights::Operate,
            _ => verb.rights,
        }
    }
}

/// The order that these words of a tool give. Refuses with a sentence.
pub fn parse(teller: Teller, words: &[String]) -> Result<Parsed, String> {
    let json = words.iter().any(|word| word == "--json");
    let words: Vec<String> = words.iter().filter(|word| *word != "--json").cloned().collect();
    let Some((name, arguments)) = words.split_first() else { return Err("no command: try `help`".into()) };
    let verb = verb(teller, name)?;
    let order = (verb.parse)(arguments)?;
    Ok(Parsed { verb, rights: order.rights(verb), order, json })
}

/// The verb that goes by this name or by this beginning of it.
fn verb(teller: Teller, name: &str) -> Result<&'static Verb, String> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "");
    let wanted = plain(name);
    let begun: Vec<&'static Verb> = teller.verbs().filter(|verb| plain(verb.name).starts_with(&wanted)).collect();
    match begun[..] {
        _ if wanted.is_empty() => Err("no command: try `help`".into()),
        [] if wanted.ends_with(".msc") => {
            Err(format!("`{name}`: script files are not read: a shell script does it, with a `tellsmtp` a line"))
        }
        [] => Err(format!("`{name}` is no command: try `help`")),
        [verb] => Ok(verb),
        _ => begun.iter().find(|verb| plain(verb.name) == wanted).copied().ok_or_else(|| {
            let names: Vec<&str> = begun.iter().map(|verb| verb.name).collect();
            format!("`{name}` may be {}: say more of it", names.join(" or "))
        }),
    }
}

/// A tool's commands, a line each.
pub fn help(teller: Teller) -> String {
    let call = |verb: &Verb| format!("{} {}", verb.name, verb.arguments);
    let width = teller.verbs().map(|verb| call(verb).len()).filter(|width| *width <= HELP_WIDTH).max().unwrap_or(0);
    let line = |verb: &Verb| {
        let mark = if verb.rights == Rights::All { ' ' } else { '+' };
        format!("  {:width$}  {mark} {}\n", call(verb), verb.help)
    };
    let lines: String = teller.verbs().map(line).collect();
    let beyond = match teller {
        Teller::Pop => "",
        Teller::Smtp => "`queue delete` and `queue route` are not.\n",
    };
    format!(
        "{lines}\nRoot and the user that the server runs as may do all of it, members of control_group what has a +.\n{beyond}\
         --json with any of them gives JSON. A command may be cut short while it stays clear.\n"
    )
}

#[cfg(test)]
mod tests;
