//! F4: the verbs of operation. One row each gives parsing, help, rights and, later, a web form; what an order does is
//! `server`'s business, how it is printed is [`Report`]'s.
//!
//! | whose                                        | verbs of these rights          |
//! |----------------------------------------------|--------------------------------|
//! | root, and the user that the server runs as   | [`Rights::Read`], [`Rights::Operate`], [`Rights::All`] |
//! | members of `control_group`                   | [`Rights::Read`], [`Rights::Operate`] |
//! | everybody else                               | none                           |

pub mod report;

use log::LevelFilter;

pub use report::{Report, Told, render};

use crate::text::secret::Secret;

/// Where a server listens for orders, below its work_path.
pub const SOCKET: &str = "dmail.sock";
/// Longest argument that a person may write: names and patterns are short.
const ARGUMENT_LIMIT: usize = 512;

/// What somebody is told who may give no orders.
pub const STRANGER: &str = "only root, the user that the server runs as and members of control_group may give orders";

/// Something a running server is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Say how it is.
    Status,
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
    /// There is no licence to be loaded or registered.
    Licence,
    /// Read the configuration again.
    Reload,
    /// Log more or less, until the next reload or start.
    LogLevel(LevelFilter),
    /// Stop in an orderly way.
    Shutdown,
    /// Say what it is.
    Version,
    /// List the verbs.
    Help,
    /// For tellpop itself: it needs no server, and may judge the rest of its words.
    ByTool(Tool),
}

/// What tellpop does itself.
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
    arguments: "",
    help: "",
    rights: Rights::All,
    slow: false,
    parse: |_| Err("this command does nothing".to_owned()),
};

/// All verbs, in the order of their names.
pub static VERBS: &[Verb] = &[
    Verb {
        name: "bulletin",
        help: "post a message to all users: its text from standard input, up to a line with a single dot",
        parse: |args| none(args, Order::ByTool(Tool::Bulletin)),
        ..USUAL
    },
    Verb {
        name: "erase",
        arguments: "USER",
        help: "delete a user's mailbox with all that is in it, for good",
        slow: true,
        parse: |args| user(args).map(Order::Erase),
        ..USUAL
    },
    Verb {
        name: "forget",
        arguments: "USER",
        help: "ask the authenticator anew at this user's next login",
        parse: |args| user(args).map(Order::Forget),
        ..USUAL
    },
    Verb {
        name: "help",
        help: "list the commands",
        rights: Rights::Read,
        parse: |args| none(args, Order::Help),
        ..USUAL
    },
    Verb {
        name: "key",
        arguments: "[KEY]",
        help: "nothing: no licence key is needed",
        rights: Rights::Read,
        parse: |_| Ok(Order::Licence),
        ..USUAL
    },
    Verb {
        name: "kick",
        arguments: "USER|ID",
        help: "end a user's sessions, or the one with this id; nothing is deleted by it",
        rights: Rights::Operate,
        parse: |args| one(args, "a user's name, or a session's id as `users` shows it").map(Order::Kick),
        ..USUAL
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
    },
    Verb {
        name: "mem",
        help: "what holds how much memory, and what a session may hold",
        rights: Rights::Read,
        parse: |args| none(args, Order::Mem),
        ..USUAL
    },
    Verb {
        name: "password",
        arguments: "[NEW]",
        help: "set the password for remote administration; asked for when it is not given",
        parse: password,
        ..USUAL
    },
    Verb {
        name: "register",
        help: "nothing: there is nothing to be registered",
        rights: Rights::Read,
        parse: |_| Ok(Order::Licence),
        ..USUAL
    },
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
        ..USUAL
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
        ..USUAL
    },
    Verb {
        name: "stats",
        arguments: "[-h] [FILE ...]",
        help: "sum up the statistics files, a line a user; needs no server",
        rights: Rights::Read,
        parse: |_| Ok(Order::ByTool(Tool::Stats)),
        ..USUAL
    },
    Verb {
        name: "status",
        help: "how the server is: sessions, logins, authenticators, memory, longest turn",
        rights: Rights::Read,
        parse: |args| none(args, Order::Status),
        ..USUAL
    },
    Verb {
        name: "undelete",
        arguments: "USER",
        help: "call back what a user deleted, as far as it is still in the drop",
        rights: Rights::Operate,
        slow: true,
        parse: |args| user(args).map(Order::Undelete),
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
        ..USUAL
    },
    Verb {
        name: "version",
        help: "what runs there",
        rights: Rights::Read,
        parse: |args| none(args, Order::Version),
        ..USUAL
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

/// What words mean.
#[derive(Debug)]
pub struct Parsed {
    /// The verb.
    pub verb: &'static Verb,
    /// The verb with its arguments.
    pub order: Order,
    /// Whether the report is wanted as JSON.
    pub json: bool,
}

/// The order that these words give. Refuses with a sentence.
pub fn parse(words: &[String]) -> Result<Parsed, String> {
    let json = words.iter().any(|word| word == "--json");
    let words: Vec<String> = words.iter().filter(|word| *word != "--json").cloned().collect();
    let Some((name, arguments)) = words.split_first() else { return Err("no command: try `help`".into()) };
    let verb = verb(name)?;
    Ok(Parsed { verb, order: (verb.parse)(arguments)?, json })
}

/// The verb that goes by this name or by this beginning of it.
fn verb(name: &str) -> Result<&'static Verb, String> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "");
    let wanted = plain(name);
    let begun: Vec<&Verb> = VERBS.iter().filter(|verb| plain(verb.name).starts_with(&wanted)).collect();
    match begun[..] {
        _ if wanted.is_empty() => Err("no command: try `help`".into()),
        [] => Err(format!("`{name}` is no command: try `help`")),
        [verb] => Ok(verb),
        _ => begun.iter().find(|verb| plain(verb.name) == wanted).copied().ok_or_else(|| {
            let names: Vec<&str> = begun.iter().map(|verb| verb.name).collect();
            format!("`{name}` may be {}: say more of it", names.join(" or "))
        }),
    }
}

/// The commands, a line each.
pub fn help() -> String {
    let calls: Vec<String> = VERBS.iter().map(|verb| format!("{} {}", verb.name, verb.arguments)).collect();
    let width = calls.iter().map(String::len).max().unwrap_or(0);
    let mark = |verb: &Verb| if verb.rights == Rights::All { ' ' } else { '+' };
    let lines = calls.iter().zip(VERBS).map(|(call, verb)| format!("  {call:width$}  {} {}\n", mark(verb), verb.help));
    lines.collect::<String>()
        + "\nRoot and the user that the server runs as may do all of it, members of control_group what has a +.\n\
           --json with any of them gives JSON. A command may be cut short while it stays clear.\n"
}

#[cfg(test)]
mod tests;
