//! What the server may ask of the launcher, the process that kept root, and how both write it down. No I/O.
//!
//! | request             | done when                                                  | the answer carries                          |
//! |---------------------|------------------------------------------------------------|---------------------------------------------|
//! | `Reload`            | the configuration, read again, is root's and has no error  | its number                                  |
//! | `Bind address`      | a configuration it holds opens that port                   | the listening socket                        |
//! | `Read path`         | it is one of its files: itself, an included one, PEM       | the file, to be read                        |
//! | `Start program`     | it is the authenticator of a configuration it holds        | stdin, stdout, stderr, an eye, a leash; pid |
//! | `Open path uid`     | the drop lies below a drop_root and is that user's         | the file, to be read and written            |
//! | `Forward path uid`  | it is that user's `.forward`, or `.fwd` beside such a drop | the file, to be read                        |
//! | `Lock path uid`     | nobody who lives has the dotlock of that drop              | the lock's file                             |
//! | `Unlock path inode` | the dotlock is that file                                   | nothing                                     |
//! | `Robot name args`   | the program is in robot_path, and may be that user's       | its output, a hold that tells its end       |
//!
//! A packet is a serial number, a letter for its kind, then fields in order: numbers in little-endian bytes, texts with
//! their length before them. Nothing may be missing and nothing stand behind. Whatever does not read so is no request: it is
//! refused, and nothing is done. At most [`PACKET`] bytes; a serial number comes back with its answer, so that one which came
//! too late is known for what it is.

use std::net::{IpAddr, SocketAddr};

use crate::rules::robot::FACT_BYTES;

/// Longest packet, either way.
pub const PACKET: usize = 8192;
/// Longest path in a request; the system's own bound.
pub const PATH_MOST: usize = 4096;
/// Longest line in a dotlock.
pub const LINE_MOST: usize = 512;
/// Most words of a robot's command.
pub const WORDS_MOST: usize = 64;
/// Longest reason for a refusal; what is longer is cut.
pub const REASON_MOST: usize = 4096;

/// What the server asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read the configuration again; the server lives by the one with this number.
    Reload {
        /// See there.
        in_force: u32,
    },
    /// Listen on a configured port.
    Bind(SocketAddr),
    /// Open a configured file.
    Read(Vec<u8>),
    /// Start the configured authenticator: the one whose words have this hash.
    Start(u64),
    /// Open a drop.
    Open {
        /// Its full path.
        path: Vec<u8>,
        /// Its owner.
        uid: u32,
        /// Whether it may be made.
        create: bool,
    },
    /// Open a user's forward file.
    Forward {
        /// The full path of his drop, beside which it lies; empty: it is in his home.
        path: Vec<u8>,
        /// Whose it is.
        uid: u32,
    },
    /// Make the dotlock of a drop.
    Lock {
        /// The drop's full path.
        path: Vec<u8>,
        /// Its owner, and the lock's.
        uid: u32,
        /// What the lock says.
        line: Vec<u8>,
    },
    /// Take the dotlock of a drop away.
    Unlock {
        /// The drop's full path.
        path: Vec<u8>,
        /// Its owner.
        uid: u32,
        /// Which file the lock must be.
        inode: u64,
    },
    /// Run a program that is given mail; its standard input comes along as a descriptor.
    Robot {
        /// Its name in robot_path.
        name: Vec<u8>,
        /// What it is given behind its name.
        args: Vec<Vec<u8>>,
        /// The user whose own forward file names it; `None`: robot_user.
        uid: Option<u32>,
        /// What it is told of the message: values of `rules::robot::Facts`.
        facts: [Vec<u8>; 7],
    },
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done; with a number where the table says so, else 0.
    Done(u64),
    /// It was not: the system's number for why, 0 when it is a rule of ours, and a sentence.
    Refused(i32, String),
}

/// A request as a packet; one that has a path or a line over its bound makes a packet that is refused.
pub fn encode_request(serial: u32, request: &Request) -> Vec<u8> {
    let mut packet = Packet::new(serial);
    match request {
        Request::Reload { in_force } => packet.kind(b'R').number(*in_force),
        Request::Bind(address) => {
            let packet = packet.kind(b'B').bytes(&u64::from(address.port()).to_le_bytes());
            match address.ip() {
                IpAddr::V4(ip) => packet.text(&ip.octets()),
                IpAddr::V6(ip) => packet.text(&ip.octets()),
            }
        }
        Request::Read(path) => packet.kind(b'F').text(path),
        Request::Start(program) => packet.kind(b'S').bytes(&program.to_le_bytes()),
        Request::Open { path, uid, create } => packet.kind(b'O').number(*uid).number(u32::from(*create)).text(path),
        Request::Forward { path, uid } => packet.kind(b'H').number(*uid).text(path),
        Request::Lock { path, uid, line } => packet.kind(b'L').number(*uid).text(path).text(line),
        Request::Unlock { path, uid, inode } => packet.kind(b'U').number(*uid).bytes(&inode.to_le_bytes()).text(path),
        Request::Robot { name, args, uid, facts } => {
            // Nobody's number: -1 is no uid.
            let packet = packet.kind(b'X').number(uid.unwrap_or(u32::MAX)).text(name);
            let packet = facts.iter().fold(packet, |packet, fact| packet.text(fact));
            let packet = packet.number(u32::try_from(args.len()).unwrap_or(u32::MAX));
            args.iter().fold(packet, |packet, word| packet.text(word))
        }
    };
    packet.0
}

/// The request in a packet, and its serial number; `Err` is the serial number of what is none, 0 where there is not even
/// that.
pub fn decode_request(packet: &[u8]) -> Result<(u32, Request), u32> {
    let mut fields = Fields(packet);
    let serial = fields.number().ok_or(0u32)?;
    request(&mut fields).filter(|_| fields.0.is_empty() && packet.len() <= PACKET).map(|it| (serial, it)).ok_or(serial)
}

fn request(fields: &mut Fields<'_>) -> Option<Request> {
    Some(match fields.take(1)?[0] {
        b'R' => Request::Reload { in_force: fields.number()? },
        b'B' => {
            let port = u16::try_from(fields.long()?).ok().filter(|port| *port != 0)?;
            let ip = fields.text(16)?;
            let ip = match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
                (Ok(ip), _) => IpAddr::from(ip),
                (_, Ok(ip)) => IpAddr::from(ip),
                _ => return None,
            };
            Request::Bind(SocketAddr::new(ip, port))
        }
        b'F' => Request::Read(fields.path()?),
        b'X' => {
            let uid = Some(fields.number()?).filter(|uid| *uid != u32::MAX);
            let name = fields.path()?;
            let mut facts: [Vec<u8>; 7] = Default::default();
            for fact in &mut facts {
                *fact = fields.text(FACT_BYTES)?.to_vec();
            }
            let count = Some(fields.number()? as usize).filter(|count| *count <= WORDS_MOST)?;
            let args = (0..count).map(|_| fields.text(PACKET).map(<[u8]>::to_vec)).collect::<Option<_>>()?;
            Request::Robot { name, args, uid, facts }
        }
        b'S' => Request::Start(fields.long()?),
        b'O' => {
            let uid = fields.number()?;
            let create = match fields.number()? {
                0 => false,
                1 => true,
                _ => return None,
            };
            Request::Open { uid, create, path: fields.path()? }
        }
        b'H' => Request::Forward { uid: fields.number()?, path: fields.path()? },
        b'L' => Request::Lock { uid: fields.number()?, path: fields.path()?, line: fields.text(LINE_MOST)?.to_vec() },
        b'U' => Request::Unlock { uid: fields.number()?, inode: fields.long()?, path: fields.path()? },
        _ => return None,
    })
}

/// An answer as a packet.
pub fn encode_answer(serial: u32, answer: &Answer) -> Vec<u8> {
    let mut packet = Packet::new(serial);
    match answer {
        Answer::Done(number) => packet.kind(b'+').bytes(&number.to_le_bytes()),
        Answer::Refused(number, reason) => {
            let most = (0..=reason.len().min(REASON_MOST)).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
            packet.kind(b'-').number(number.cast_unsigned()).text(&reason.as_bytes()[..most])
        }
    };
    packet.0
}

/// The answer in a packet, and its serial number.
pub fn decode_answer(packet: &[u8]) -> Option<(u32, Answer)> {
    let mut fields = Fields(packet);
    let serial = fields.number()?;
    let answer = match fields.take(1)?[0] {
        b'+' => Answer::Done(fields.long()?),
        b'-' => {
            let number = fields.number()?.cast_signed();
            Answer::Refused(number, String::from_utf8(fields.text(REASON_MOST)?.to_vec()).ok()?)
        }
        _ => return None,
    };
    fields.0.is_empty().then_some((serial, answer))
}

struct Packet(Vec<u8>);

impl Packet {
    fn new(serial: u32) -> Packet {
        Packet(serial.to_le_bytes().to_vec())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Packet {
        self.0.extend_from_slice(bytes);
        self
    }

    fn kind(&mut self, letter: u8) -> &mut Packet {
        self.bytes(&[letter])
    }

    fn number(&mut self, number: u32) -> &mut Packet {
        self.bytes(&number.to_le_bytes())
    }

    fn text(&mut self, text: &[u8]) -> &mut Packet {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX)).bytes(text)
    }
}

/// What is left of a packet.
struct Fields<'p>(&'p [u8]);

impl<'p> Fields<'p> {
    fn take(&mut self, count: usize) -> Option<&'p [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self, most: usize) -> Option<&'p [u8]> {
        let count = self.number()? as usize;
        if count > most { None } else { self.take(count) }
    }

    fn path(&mut self) -> Option<Vec<u8>> {
        Some(self.text(PATH_MOST)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requests() -> impl Strategy<Value = Request> {
        let path = || prop::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            any::<u32>().prop_map(|in_force| Request::Reload { in_force }),
            (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(|(ip, port)| Request::Bind((ip, port).into())),
            (any::<[u8; 16]>(), 1..=u16::MAX).prop_map(|(ip, port)| Request::Bind((ip, port).into())),
            path().prop_map(Request::Read),
            any::<u64>().prop_map(Request::Start),
            (path(), any::<u32>(), any::<bool>()).prop_map(|(path, uid, create)| Request::Open { path, uid, create }),
            (path(), any::<u32>()).prop_map(|(path, uid)| Request::Forward { path, uid }),
            (path(), any::<u32>(), path()).prop_map(|(path, uid, line)| Request::Lock { path, uid, line }),
            (path(), any::<u32>(), any::<u64>()).prop_map(|(path, uid, inode)| Request::Unlock { path, uid, inode }),
            (path(), prop::collection::vec(path(), 0..5), prop::option::of(0..u32::MAX), path()).prop_map(
                |(name, args, uid, fact)| {
                    let facts = std::array::from_fn(|index| fact[..fact.len().min(index * 10)].to_vec());
                    Request::Robot { name, args, uid, facts }
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn a_request_is_read_as_it_was_written(serial: u32, request in requests()) {
            let packet = encode_request(serial, &request);
            prop_assert!(packet.len() <= PACKET);
            prop_assert_eq!(decode_request(&packet), Ok((serial, request)));
        }

        #[test]
        fn half_a_request_or_more_than_one_is_none(serial: u32, request in requests(), more in 1..9usize) {
            let mut packet = encode_request(serial, &request);
            for cut in 0..packet.len() {
                let refused = decode_request(&packet[..cut]);
                prop_assert_eq!(refused, Err(if cut < 4 { 0 } else { serial }));
            }
            packet.resize(packet.len() + more, 0);
            prop_assert_eq!(decode_request(&packet), Err(serial));
        }

        #[test]
        fn any_bytes_are_judged_and_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in "[RBFSOLUXH+-]") {
            let _ = (decode_request(&bytes), decode_answer(&bytes));
            let mut packet = bytes;
            if packet.len() > 4 {
                packet[4] = kind.as_bytes()[0];
            }
            // What is taken for a request means exactly these bytes.
            if let Ok((serial, request)) = decode_request(&packet) {
                prop_assert_eq!(encode_request(serial, &request), packet);
            }
        }

        #[test]
        fn an_answer_is_read_as_it_was_written(serial: u32, number: u64, errno: i32, reason in ".{0,200}") {
            for answer in [Answer::Done(number), Answer::Refused(errno, reason)] {
                let packet = encode_answer(serial, &answer);
                prop_assert_eq!(decode_answer(&packet), Some((serial, answer)));
                prop_assert_eq!(decode_answer(&packet[..packet.len() - 1]), None);
            }
        }
    }

    #[test]
    fn bounds_hold_both_ways() {
        let path = vec![b'a'; PATH_MOST + 1];
        assert_eq!(decode_request(&encode_request(7, &Request::Read(path.clone()))), Err(7));
        let line = vec![b'a'; LINE_MOST + 1];
        assert_eq!(
            decode_request(&encode_request(7, &Request::Lock { path: path[1..].to_vec(), uid: 1, line })),
            Err(7)
        );
        let long = "\u{eb}".repeat(REASON_MOST);
        let packet = encode_answer(1, &Answer::Refused(5, long));
        assert!(packet.len() <= PACKET);
        let Some((1, Answer::Refused(5, cut))) = decode_answer(&packet) else { panic!("it is an answer") };
        assert_eq!(cut.len(), REASON_MOST);
    }
}
