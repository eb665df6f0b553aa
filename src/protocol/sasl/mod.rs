//! SASL, the server's side (RFC 4422), for any protocol that has lines: POP3's AUTH (RFC 5034), SMTP's (RFC 4954). No I/O.
//!
//! | mechanism     | the client says                           | we say in between             | comes to                          |
//! |---------------|-------------------------------------------|-------------------------------|-----------------------------------|
//! | PLAIN         | `acting NUL name NUL password` (RFC 4616) | nothing                       | [`Step::Login`]                   |
//! | LOGIN         | name; password                            | `Username:`, `Password:`      | [`Step::Login`]                   |
//! | SCRAM-SHA-256 | name and nonce; proof; nothing            | salt and nonce; our own proof | [`Step::Verifier`], [`Step::Proof`] |
//!
//! An [`Exchange`] is fed with the client's lines, still in base64, and says what is next. Whoever drives it writes the
//! challenges, bounds the lines, and answers [`Step::Verifier`] by [`Exchange::challenge`].

pub mod scram;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::text::secret::Secret;
use scram::{Challenged, First, Malformed, Verifier};

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Proves it without sending the password.
    ScramSha256,
    /// Name and password in one message.
    Plain,
    /// Name, then password. Never a standard; old Outlooks know no other.
    Login,
}

impl Mechanism {
    /// All of them, in the order in which they are to be preferred.
    pub const ALL: [Mechanism; 3] = [Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login];

    /// As it is announced and asked for, in any case of letters.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }

    /// The mechanism of that name.
    pub fn find(name: &[u8]) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| name.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    }

    /// Whether the password itself goes over the line.
    pub fn sends_password(self) -> bool {
        self != Mechanism::ScramSha256
    }
}

/// A name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// As the client sent it.
    pub user: Vec<u8>,
    /// As the client sent it.
    pub password: Secret,
}

impl Login {
    /// Whether a text holds the password, as it is or as PLAIN and LOGIN say it.
    pub fn is_repeated_in(&self, text: &str) -> bool {
        let password = self.password.reveal();
        let plain = Secret::new([b"\0", &self.user[..], b"\0", password].concat());
        let said = [plain.reveal(), password].map(|clear| Secret::new(BASE64.encode(clear).into_bytes()));
        let holds = |word: &[u8]| !word.is_empty() && memchr::memmem::find(text.as_bytes(), word).is_some();
        holds(password) || said.iter().any(|word| holds(word.reveal()))
    }
}

/// What follows from what the client said.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, in base64; the client's next line is for us.
    Challenge(Vec<u8>),
    /// Do name and password fit? The exchange is over.
    Login(Vec<u8>, Secret),
    /// What is this user's verifier? Goes on with [`Exchange::challenge`].
    Verifier(Vec<u8>),
    /// Whether the password was proved. The exchange is over.
    Proof(bool),
    /// The client does not want to any more. The exchange is over.
    Cancelled,
    /// Not base64, or not what the mechanism demands. The exchange is over.
    Malformed,
}

/// One exchange with one client.
#[derive(Debug)]
pub struct Exchange(State);

#[derive(Debug)]
enum State {
    Plain,
    LoginName,
    LoginPassword(Vec<u8>),
    ScramFirst,
    /// The verifier is being looked for.
    ScramAsked(Box<First>),
    ScramFinal(Box<Challenged>),
    /// The proof was good, and the client is told that we know the password too.
    ScramProved,
    Over,
}

impl Exchange {
    /// An exchange begins, with the first response if the client sent one along: `=` is an empty one (RFC 5034 §4).
    pub fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> (Exchange, Step) {
        let (state, prompt) = match mechanism {
            Mechanism::Plain => (State::Plain, ""),
            Mechanism::Login => (State::LoginName, "Username:"),
            Mechanism::ScramSha256 => (State::ScramFirst, ""),
        };
        let mut exchange = Exchange(state);
        let step = match initial {
            None => Step::Challenge(prompt.into()),
            Some(b"=") => exchange.take(b""),
            Some(text) => exchange.take(text),
        };
        (exchange, step)
    }

    /// Whether somebody was asked for a verifier on its behalf, and it is not over yet.
    pub fn is_challenged(&self) -> bool {
        matches!(self.0, State::ScramFinal(_) | State::ScramProved)
    }

    /// The client's next line, without its line end.
    pub fn take(&mut self, line: &[u8]) -> Step {
        let state = std::mem::replace(&mut self.0, State::Over);
        if line == b"*" {
            return Step::Cancelled;
        }
        let Ok(response) = BASE64.decode(line).map(Secret::new) else { return Step::Malformed };
        self.response(state, response).unwrap_or(Step::Malformed)
    }

    fn response(&mut self, state: State, response: Secret) -> Result<Step, Malformed> {
        let step = match state {
            State::Plain => {
                let (user, password) = plain(response.reveal()).ok_or(Malformed)?;
                Step::Login(user.to_vec(), Secret::from(password))
            }
            State::LoginName => {
                self.0 = State::LoginPassword(response.reveal().to_vec());
                Step::Challenge(b"Password:".to_vec())
            }
            State::LoginPassword(user) => Step::Login(user, response),
            State::ScramFirst => {
                let first = First::parse(response.reveal())?;
                let user = first.user().to_vec();
                self.0 = State::ScramAsked(Box::new(first));
                Step::Verifier(user)
            }
            State::ScramFinal(challenged) => match challenged.judge(response.reveal())? {
                Some(last) => {
                    self.0 = State::ScramProved;
                    Step::Challenge(last)
                }
                None => Step::Proof(false),
            },
            State::ScramProved if response.reveal().is_empty() => Step::Proof(true),
            State::ScramProved | State::ScramAsked(_) | State::Over => Step::Malformed,
        };
        Ok(step)
    }

    /// The verifier that [`Step::Verifier`] asked for, and a nonce that is printable, has no comma and was never used: what
    /// to send, in base64.
    pub fn challenge(&mut self, verifier: Verifier, nonce: &[u8]) -> Vec<u8> {
        match std::mem::replace(&mut self.0, State::Over) {
            State::ScramAsked(first) => {
                let (message, challenged) = first.challenge(verifier, nonce);
                self.0 = State::ScramFinal(Box::new(challenged));
                message
            }
            state => unreachable!("nobody asked for a verifier in {state:?}"),
        }
    }
}

/// RFC 4616: authorisation NUL authentication NUL password. Acting for somebody else is not offered.
fn plain(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = message.split(|&byte| byte == 0);
    let (acting, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && !user.is_empty() && (acting.is_empty() || acting == user);
    whole.then_some((user, password))
}

#[cfg(test)]
mod tests {
    use super::scram::tests::{FINAL, FIRST, NONCE, pencil};
    use super::*;

    fn encoded(text: &str) -> Vec<u8> {
        BASE64.encode(text).into_bytes()
    }

    fn challenge(text: &str) -> Step {
        Step::Challenge(text.into())
    }

    #[test]
    fn a_password_is_known_in_whatever_way_it_was_said() {
        let login = Login { user: b"ann".to_vec(), password: b"secret"[..].into() };
        for (text, is_there) in [
            ("535 5.7.8 no such user ann", false),
            ("500 what is AUTH PLAIN AGFubgBzZWNyZXQ=", true),
            ("500 what is c2VjcmV0", true),
            ("535 secret is wrong", true),
        ] {
            assert_eq!(login.is_repeated_in(text), is_there, "{text}");
        }
        assert!(!Login { password: Secret::default(), ..login }.is_repeated_in("500 what"));
    }

    #[test]
    fn passwords_come_by_plain_and_by_login_in_one_line_or_more() {
        let login = |user: &str, password: &str| Step::Login(user.into(), Secret::from(password.as_bytes()));
        let (mut exchange, step) = Exchange::begin(Mechanism::Plain, None);
        assert_eq!(step, challenge(""));
        assert_eq!(exchange.take(&encoded("\0ann\0se cret")), login("ann", "se cret"));
        let (_, step) = Exchange::begin(Mechanism::Plain, Some(&encoded("ann\0ann\0x")));
        assert_eq!(step, login("ann", "x"));
        for wrong in ["", "ann", "ann\0x", "\0\0x", "bob\0ann\0x", "\0ann\0x\0y"] {
            assert_eq!(Exchange::begin(Mechanism::Plain, Some(&encoded(wrong))).1, Step::Malformed, "{wrong:?}");
        }
        let (mut exchange, step) = Exchange::begin(Mechanism::Login, Some(&encoded("ann")));
        assert_eq!(step, challenge("Password:"));
        assert_eq!(exchange.take(b""), login("ann", ""));
        let (mut exchange, step) = Exchange::begin(Mechanism::Login, None);
        assert_eq!(step, challenge("Username:"));
        assert_eq!(exchange.take(&encoded("ann")), challenge("Password:"));
        assert_eq!(exchange.take(b"*"), Step::Cancelled);
    }

    #[test]
    fn a_proof_takes_its_whole_way() {
        for initial in [true, false] {
            let first = encoded(FIRST);
            let (mut exchange, mut step) = Exchange::begin(Mechanism::ScramSha256, initial.then_some(&first));
            if !initial {
                assert_eq!(step, challenge(""));
                step = exchange.take(&first);
            }
            assert_eq!(step, Step::Verifier(b"user".to_vec()));
            assert!(exchange.challenge(pencil(), NONCE.as_bytes()).starts_with(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2"));
            assert_eq!(exchange.take(&encoded(FINAL)), challenge("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
            assert_eq!(exchange.take(b""), Step::Proof(true));
            assert_eq!(exchange.take(b""), Step::Malformed, "once");
        }
    }

    #[test]
    fn at_every_point_a_client_may_cancel_or_talk_nonsense_and_nothing_is_proved() {
        type Ways<'a> = &'a [(&'a [u8], Step)];
        let ways: Ways = &[(b"*", Step::Cancelled), (b"not base64", Step::Malformed), (b"eA==", Step::Malformed)];
        for (line, step) in ways {
            let (mut exchange, _) = Exchange::begin(Mechanism::ScramSha256, None);
            assert_eq!(exchange.take(line), *step);
            let (mut exchange, _) = Exchange::begin(Mechanism::ScramSha256, Some(&encoded(FIRST)));
            exchange.challenge(pencil(), NONCE.as_bytes());
            assert_eq!(exchange.take(line), *step);
            assert_eq!(exchange.take(&encoded(FINAL)), Step::Malformed, "it is over");
            let (mut exchange, _) = Exchange::begin(Mechanism::ScramSha256, Some(&encoded(FIRST)));
            exchange.challenge(pencil(), NONCE.as_bytes());
            exchange.take(&encoded(FINAL));
            assert_eq!(exchange.take(line), *step);
        }
        assert_eq!(Exchange::begin(Mechanism::ScramSha256, Some(b"=")).1, Step::Malformed);
        let (mut exchange, _) = Exchange::begin(Mechanism::ScramSha256, Some(&encoded(FIRST)));
        exchange.challenge(pencil(), b"another");
        assert_eq!(exchange.take(&encoded(FINAL)), Step::Proof(false), "a proof for another connection");
    }

    #[test]
    fn mechanisms_are_found_in_any_case() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::find(mechanism.name().to_ascii_lowercase().as_bytes()), Some(mechanism));
        }
        for other in ["", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "PLAINX", "CRAM-MD5"] {
            assert_eq!(Mechanism::find(other.as_bytes()), None);
        }
    }
}
