//! AUTH, the client's side (RFC 4954): PLAIN where it is offered, else LOGIN.
//!
//! | to be said next | at a 334 it is followed by       | a 235 may come |
//! |-----------------|----------------------------------|----------------|
//! | `AUTH PLAIN` and the response | `*`                | yes            |
//! | `AUTH PLAIN`    | the response                     | no             |
//! | the response    | `*`                              | yes            |
//! | `AUTH LOGIN`    | the name                         | no             |
//! | the name        | the password                     | no             |
//! | the password    | `*`                              | yes            |
//! | `*`             | nothing: that is out of place    | no             |

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Extensions, Unfit};
use crate::protocol::sasl::Login;
use crate::protocol::smtp::SASL_LIMIT;
use crate::text::bytes::Output;
use crate::text::secret::Secret;

/// Octets of a command with a response in it; a longer response follows on a line of its own (RFC 4954 §4).
const COMMAND_LIMIT: usize = 512;

/// A login on its way.
#[derive(Debug)]
pub(super) struct Saying {
    /// What is said next.
    next: Next,
    /// PLAIN's response, or LOGIN's name; in base64.
    first: Secret,
    /// LOGIN's password; in base64.
    second: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    PlainAtOnce,
    Plain,
    Response,
    Login,
    Name,
    Password,
    Cancel,
}

impl Saying {
    /// With what the server offers.
    pub(super) fn new(login: &Login, offers: &Extensions) -> Result<Saying, Unfit> {
        let (user, password) = (&login.user[..], login.password.reveal());
        if user.contains(&0) || password.contains(&0) {
            return Err(Unfit::BadLogin);
        }
        let encoded = |clear: &[u8]| Secret::new(BASE64.encode(clear).into_bytes());
        let (first, second) = if offers.plain {
            let clear = Secret::new([b"\0", user, b"\0", password].concat());
            (encoded(clear.reveal()), Secret::default())
        } else {
            (encoded(user), encoded(password))
        };
        let long = |word: &Secret| word.reveal().len() + 2 > SASL_LIMIT;
        let next = match (offers.plain, offers.login) {
            _ if long(&first) || long(&second) => return Err(Unfit::BadLogin),
            (true, _) if first.reveal().len() + "AUTH PLAIN \r\n".len() <= COMMAND_LIMIT => Next::PlainAtOnce,
            (true, _) => Next::Plain,
            (false, true) => Next::Login,
            (false, false) => return Err(Unfit::NoLogin),
        };
        Ok(Saying { next, first, second })
    }

    /// Says what is next.
    pub(super) fn say(&self, out: &mut Output) {
        match self.next {
            Next::PlainAtOnce => {
                out.push(b"AUTH PLAIN ");
                out.push(self.first.reveal());
            }
            Next::Plain => out.push(b"AUTH PLAIN"),
            Next::Login => out.push(b"AUTH LOGIN"),
            Next::Response | Next::Name => out.push(self.first.reveal()),
            Next::Password => out.push(self.second.reveal()),
            Next::Cancel => out.push(b"*"),
        }
        out.push(b"\r\n");
    }

    /// The server says yes (`done`), or wants more. Whether it can, at this point.
    pub(super) fn goes_on(&mut self, done: bool) -> bool {
        let all_said = matches!(self.next, Next::PlainAtOnce | Next::Response | Next::Password);
        if done {
            return all_said;
        }
        self.next = match self.next {
            Next::PlainAtOnce | Next::Response | Next::Password => Next::Cancel,
            Next::Plain => Next::Response,
            Next::Login => Next::Name,
            Next::Name => Next::Password,
            Next::Cancel => return false,
        };
        true
    }
}
