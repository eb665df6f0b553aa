//! Plays conversation scripts with any machine. A script is read line by line:
//!
//! | line        | means                                                                                           |
//! |-------------|---------------------------------------------------------------------------------------------------|
//! | `= words`   | a new conversation; what the words say is the machine's                                           |
//! | `C: text`   | the client says it, with CRLF. `\0`, `\t` and `{300}` (so many letters x) are what they look like |
//! | `R: bytes`  | the client says just that: `\r`, `\n`, `\0`, `\\` are what they look like, nothing is added        |
//! | `S: text`   | the server must have said it                                                                      |
//! | `Q: ask`    | the machine must have asked it                                                                    |
//! | `A: answer` | it is answered                                                                                    |
//! | `D: text`   | this line must have been handed on as message text                                               |
//! | `E: reason` | the conversation is ended for it                                                                  |
//! | `X`         | it must have closed                                                                               |
//! | `# text`    | why                                                                                               |
//!
//! With a machine that is the client ([`Actor::IS_CLIENT`]) it is the other way about: `S:` is said to it, `C:` is what it must
//! have said.
//!
//! In `C:` and `S:` what stands between `{b64 ` and `}` is in base64 on the line, and `{version}` is this program's. To add
//! a case, add a file.

use std::collections::VecDeque;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::protocol::{End, Machine, Want};
use crate::text::bytes::{Input, Output};

/// A machine that scripts can be played with.
pub(crate) trait Actor: Machine {
    /// It is the client's side.
    const IS_CLIENT: bool = false;

    /// A new conversation, of the kind that these words of line `at` say.
    fn begin(at: &str, words: &[&str]) -> Self;
    /// An ask, as a script writes it.
    fn question(ask: &Self::Ask) -> String;
    /// An answer, as a script writes it.
    fn answer(text: &str) -> Self::Answer;
}

pub(crate) struct Player<M> {
    pub machine: M,
    pub input: Input,
    pub out: Output,
    pub said: VecDeque<String>,
    pub asked: Option<String>,
    pub text: Vec<u8>,
    pub closed: bool,
}

impl<M: Actor> Player<M> {
    pub fn new(mut machine: M) -> Player<M> {
        let mut out = Output::default();
        machine.open(Instant::now(), &mut out);
        let (input, said, text) = Default::default();
        Player { machine, input, out, said, asked: None, text, closed: false }
    }

    /// Lets the machine go on until it wants something.
    pub fn run(&mut self) {
        while self.asked.is_none() && !self.closed {
            match self.machine.step(Instant::now(), &mut self.input, &mut self.out) {
                Want::Input => break,
                Want::Again => {}
                Want::Ask(ask) => self.asked = Some(M::question(&ask)),
                Want::Data(text) => self.text.extend_from_slice(text),
                Want::Close => self.closed = true,
            }
        }
        let text = String::from_utf8(self.out.bytes().to_vec()).unwrap();
        self.said.extend(text.split_terminator("\r\n").map(str::to_owned));
        self.out.clear();
    }

    fn nothing_is_left(&self, at: &str) {
        assert!(self.said.is_empty(), "{at}: before that, not expected: {:?}", self.said);
        assert!(
            self.text.is_empty(),
            "{at}: before that, text not expected: {:?}",
            self.text.escape_ascii().to_string()
        );
    }
}

/// With what stands between `{b64 ` and `}` in base64, and the program's version.
fn encoded(text: &str) -> String {
    let text = &*text.replace("{version}", env!("CARGO_PKG_VERSION"));
    let Some((before, rest)) = text.split_once("{b64 ") else { return text.to_owned() };
    let (clear, after) = rest.split_once('}').expect("a brace that closes");
    format!("{before}{}{after}", BASE64.encode(clear))
}

fn raw(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().expect("something after a backslash") {
                b'r' => b'\r',
                b'n' => b'\n',
                b'0' => 0,
                other => other,
            },
            byte => byte,
        });
    }
    bytes
}

fn play<M: Actor>(name: &str, script: &str) {
    let mut player: Option<Player<M>> = None;
    for (number, line) in script.lines().enumerate() {
        let at = format!("{name}:{}: {line}", number + 1);
        let (kind, rest) = line.split_at(line.len().min(2));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        if kind.starts_with('=') {
            let words: Vec<&str> = line.trim_start_matches('=').split_whitespace().collect();
            if let Some(mut old) = player.replace(Player::new(M::begin(&at, &words))) {
                old.run();
                old.nothing_is_left(&at);
            }
            continue;
        }
        if kind.starts_with('#') || line.is_empty() {
            continue;
        }
        let player = player.as_mut().unwrap_or_else(|| panic!("{at}: begin with a line `= ...`"));
        let kind = match kind {
            "C:" if M::IS_CLIENT => "S:",
            "S:" if M::IS_CLIENT => "C:",
            kind => kind,
        };
        let clear = rest;
        let rest = &*encoded(rest);
        if kind != "C:" && kind != "R:" {
            player.run();
        }
        match kind {
            "C:" => {
                let bytes = rest.replace("\\0", "\0").replace("\\t", "\t");
                let bytes = bytes.replace("{300}", &"x".repeat(300)).replace("{13000}", &"x".repeat(13_000));
                player.input.push(bytes.as_bytes());
                player.input.push(b"\r\n");
            }
            "R:" => {
                player.input.push(&raw(clear));
            }
            "S:" => {
                let said = player.said.pop_front();
                assert_eq!(said.as_deref(), Some(rest), "{at}");
            }
            "Q:" => {
                assert!(player.said.is_empty(), "{at}: not expected: {:?}", player.said);
                assert_eq!(player.asked.as_deref(), Some(rest), "{at}");
            }
            "A:" => {
                assert!(player.asked.is_some() || rest == "sent", "{at}: nothing was asked");
                player.machine.answer(Instant::now(), <M as Actor>::answer(rest), &mut player.out);
                player.asked = None;
            }
            "D:" => {
                let end = player.text.iter().position(|&byte| byte == b'\n').unwrap_or_else(|| panic!("{at}: no text"));
                let text: Vec<u8> = player.text.drain(..=end).collect();
                assert_eq!(text[..end].escape_ascii().to_string(), rest, "{at}");
            }
            "E:" => {
                let why = match rest {
                    "overload" => End::Overload,
                    "kicked" => End::Kicked,
                    "shutdown" => End::Shutdown,
                    "silence" => End::Silence,
                    other => panic!("{at}: no end {other}"),
                };
                player.machine.end(Instant::now(), why, &mut player.out);
                player.asked = None;
            }
            "X" => {
                assert!(player.said.is_empty(), "{at}: not expected: {:?}", player.said);
                assert!(player.closed, "{at}: still open");
            }
            _ => panic!("{at}: what is this?"),
        }
    }
    let mut player = player.expect("a script has a conversation");
    player.run();
    player.nothing_is_left(&format!("{name}: the end"));
}

/// Plays every script in a directory of the project, and says how many there are.
pub(crate) fn play_all<M: Actor>(dir: &str) -> usize {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        play::<M>(&path.file_name().unwrap().to_string_lossy(), &std::fs::read_to_string(&path).unwrap());
        count += 1;
    }
    count
}
