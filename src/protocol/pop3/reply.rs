//! What a POP3 server says: every reply text there is, so that a manual can list them and a client's log be read.

use crate::text::bytes::Output;

/// A refusal: what the peer did wrong, or why it cannot be served now. RFC 2449 §8 and RFC 3206 give the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Over 255 octets, or over 12,288 in a SASL exchange.
    LineTooLong,
    /// Not a POP3 verb.
    UnknownCommand,
    /// A verb of another state.
    WrongState,
    /// A missing, extra or malformed argument.
    BadArgument,
    /// Plaintext passwords are refused on this connection.
    NeedsTls,
    /// PASS without USER.
    NeedsUser,
    /// A SASL mechanism we do not have.
    UnknownMechanism,
    /// `*` in a SASL exchange.
    Cancelled,
    /// Not base64, or not what the mechanism demands.
    BadResponse,
    /// Name and password do not fit.
    Denied,
    /// The password was right, and the last login is too short ago.
    TooSoon,
    /// The password was right, and the user has as many sessions as he may have.
    TooManySessions,
    /// The password was right, and there is no drop file, as there must be.
    NoMailbox,
    /// As many connections as there may be come from this network.
    TooManyConnections,
    /// All connections are taken, and this one has not logged in.
    Crowded,
    /// The account is set up in a way that cannot be served.
    Misconfigured,
    /// Somebody else has the maildrop.
    InUse,
    /// A helper, a disk or another program keeps us from it just now.
    Unavailable,
    /// No message has this number, or it is marked as deleted.
    NoSuchMessage,
    /// It is marked already.
    AlreadyDeleted,
    /// The drop was changed by another program in a way that this session cannot follow.
    Changed,
    /// The deletions could not be made durable.
    NotCommitted,
    /// STLS where it cannot be.
    NoTls,
    /// The server stops.
    Stopping,
    /// An operator or a newer session ended this one.
    Ended,
}

impl Refusal {
    /// The reply, without line end.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::LineTooLong => "-ERR Line too long",
            Refusal::UnknownCommand => "-ERR Unknown command",
            Refusal::WrongState => "-ERR Not now",
            Refusal::BadArgument => "-ERR Bad argument",
            Refusal::NeedsTls => "-ERR Passwords are taken under TLS only: use STLS or the TLS port",
            Refusal::NeedsUser => "-ERR USER first",
            Refusal::UnknownMechanism => "-ERR Unknown mechanism",
            Refusal::Cancelled => "-ERR Cancelled",
            Refusal::BadResponse => "-ERR Bad response",
            Refusal::Denied => "-ERR [AUTH] Name or password is wrong",
            Refusal::TooSoon => "-ERR [LOGIN-DELAY] Too soon after your last login; wait and try again",
            Refusal::TooManySessions => "-ERR [IN-USE] Too many sessions of this user",
            Refusal::NoMailbox => "-ERR [SYS/PERM] There is no mailbox for this user",
            Refusal::TooManyConnections => "-ERR [SYS/TEMP] Too many connections from your network",
            Refusal::Crowded => "-ERR [SYS/TEMP] All connections are taken; come back and log in sooner",
            Refusal::Misconfigured => "-ERR [SYS/PERM] This account cannot be served; the administrator's log says why",
            Refusal::InUse => "-ERR [IN-USE] Another session has this mailbox open",
            Refusal::Unavailable => "-ERR [SYS/TEMP] The mailbox cannot be reached just now; try again later",
            Refusal::NoSuchMessage => "-ERR No such message",
            Refusal::AlreadyDeleted => "-ERR Already deleted",
            Refusal::Changed => "-ERR [SYS/TEMP] The mailbox was changed by another program; log in again",
            Refusal::NotCommitted => "-ERR [SYS/TEMP] Deletions could not be saved; nothing was promised",
            Refusal::NoTls => "-ERR No TLS here",
            Refusal::Stopping => "-ERR [SYS/TEMP] The server is stopping",
            Refusal::Ended => "-ERR [SYS/TEMP] This session was ended",
        }
    }

    /// Whether it counts towards the limit after which a peer that only talks nonsense is closed.
    pub fn is_nonsense(self) -> bool {
        use Refusal::*;
        matches!(
            self,
            LineTooLong | UnknownCommand | WrongState | BadArgument | NeedsUser | UnknownMechanism | BadResponse
        )
    }
}

/// Writes one line.
pub fn line(out: &mut Output, text: &str) {
    out.push(text.as_bytes());
    out.push(b"\r\n");
}

pub(crate) use crate::protocol::say;
