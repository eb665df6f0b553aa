//! Messages: a question as bytes, and what bytes say to it. The crate `domain` reads and writes; what is believed is decided
//! here.
//!
//! | what came                                          | is taken for                                      |
//! |----------------------------------------------------|---------------------------------------------------|
//! | no response, another id, question, type or class   | nothing: it is passed over                        |
//! | the question in other case than it was sent        | perhaps forged: asked once more without that trick |
//! | truncated                                          | to be asked over a stream                         |
//! | FORMERR, NOTIMP                                    | a server that knows no EDNS                       |
//! | another error; a referral                          | a server that will not tell                       |
//! | what cannot be parsed as far as it matters         | nonsense                                          |
//!
//! Only records of class IN count, that belong to the name that was asked or to one that its aliases lead to, and at most [`KEPT`]
//! of them; authority and additional sections teach nothing but how long an absence is good. Names that are not those of
//! hosts ([`is_host`]) make their record be left out.

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::message::Message;
use domain::base::message_builder::MessageBuilder;
use domain::base::name::{Name, ParsedName, ToLabelIter};
use domain::base::rdata::UnknownRecordData;
use domain::base::record::{ParsedRecord, Ttl};
use domain::dep::octseq::array::Array;
use domain::rdata::{A, Aaaa, Cname, Mx, Ptr, Soa, Txt};

use super::{Kind, Record, is_host};

/// Records kept of one answer.
pub const KEPT: usize = 100;
/// Aliases looked at in one answer.
const ALIASES: usize = 16;
/// The largest datagram we ask for: it passes everywhere without fragments, which are easy to forge (DNS flag day 2020).
const DATAGRAM: u16 = 1232;
/// The longest name, in wire form.
const NAME: usize = 255;

/// A question as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub id: u16,
    /// With letters in both cases, where that is not `plain`.
    pub name: Box<str>,
    pub kind: Kind,
    /// The case of letters says nothing.
    pub plain: bool,
}

/// What bytes say to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It is not the answer.
    Foreign,
    /// It is, but for the case of its letters.
    OtherCase,
    /// There is more than a datagram takes.
    Truncated,
    /// The server does not understand the question.
    Misunderstood,
    /// It cannot or will not tell.
    Refused,
    /// It is the answer, and cannot be used.
    Nonsense,
    /// These, after so many aliases, good for so many seconds. Never none.
    Records { records: Vec<Record>, hops: usize, ttl: u32 },
    /// The name is another's, about whom nothing is said.
    Alias { target: Box<str>, hops: usize, ttl: u32 },
    /// The name has no such records; good for so many seconds.
    NoData { ttl: u32 },
    /// There is no such name; good for so many seconds.
    NoName { ttl: u32 },
}

/// The bytes of a question; `None` for a name that cannot be asked about.
pub(super) fn query(sent: &Sent, extended: bool) -> Option<Array<512>> {
    let mut wire = Vec::with_capacity(NAME);
    for label in sent.name.split('.') {
        wire.push(u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    let name = Name::from_slice(&wire).ok()?;
    let mut message = MessageBuilder::from_target(Array::new()).ok()?;
    message.header_mut().set_id(sent.id);
    message.header_mut().set_rd(true);
    let mut message = message.question();
    message.push((name, number(sent.kind), Class::IN)).ok()?;
    let mut message = message.additional();
    if extended {
        let opt = |opt: &mut domain::base::message_builder::OptBuilder<'_, _>| {
            opt.set_udp_payload_size(DATAGRAM);
            Ok(())
        };
        message.opt(opt).ok()?;
    }
    Some(message.finish())
}

/// What these bytes say to that question.
pub(super) fn read(bytes: &[u8], sent: &Sent) -> Said {
    let Ok(message) = Message::from_slice(bytes) else { return Said::Foreign };
    let header = message.header();
    if !header.qr() || header.id() != sent.id || header.opcode() != Opcode::QUERY {
        return Said::Foreign;
    }
    let rcode = header.rcode();
    let failed = !matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN);
    if failed && message.header_counts().qdcount() == 0 {
        // Some leave the question out when they refuse. Nothing is believed that way but that this server will not tell.
        return refusal(rcode);
    }
    let Ok(asked) = message.sole_question() else { return Said::Foreign };
    if asked.qtype() != number(sent.kind) || asked.qclass() != Class::IN || !same(asked.qname(), &sent.name) {
        return Said::Foreign;
    }
    if !sent.plain
        && !asked.qname().iter().zip(sent.name.split('.')).all(|(label, text)| label.as_slice() == text.as_bytes())
    {
        return Said::OtherCase;
    }
    if failed {
        return refusal(rcode);
    }
    if header.tc() {
        return Said::Truncated;
    }
    answer(message, sent, rcode == Rcode::NXDOMAIN).unwrap_or(Said::Nonsense)
}

fn refusal(rcode: Rcode) -> Said {
    if matches!(rcode, Rcode::FORMERR | Rcode::NOTIMP) { Said::Misunderstood } else { Said::Refused }
}

/// What the sections say; `None` for nonsense.
fn answer(message: &Message<[u8]>, sent: &Sent, no_name: bool) -> Option<Said> {
    let mut aliases = Vec::new();
    for record in message.answer().ok()? {
        let record = record.ok()?;
        if record.rtype() == Rtype::CNAME && record.class() == Class::IN && aliases.len() < ALIASES {
            aliases.push(record.into_record::<Cname<ParsedName<&[u8]>>>().ok()??);
        }
    }
    let (mut name, mut hops, mut ttl) = (sent.name.clone(), 0, u32::MAX);
    if number(sent.kind) != Rtype::CNAME {
        while let Some(alias) = aliases.iter().find(|alias| same(alias.owner(), &name)) {
            hops += 1;
            if hops > ALIASES {
                return None;
            }
            ttl = ttl.min(secs(alias.ttl()));
            name = text(alias.data().cname())?;
        }
    }
    if no_name {
        return Some(Said::NoName { ttl: absence(message)?.map_or(0, |absence| absence.min(ttl)) });
    }
    let (mut records, mut unusable) = (Vec::new(), false);
    for record in message.answer().ok()? {
        let record = record.ok()?;
        if record.rtype() != number(sent.kind) || record.class() != Class::IN || !same(&record.owner(), &name) {
            continue;
        }
        if records.len() == KEPT {
            break;
        }
        ttl = ttl.min(secs(record.ttl()));
        match read_record(&record, sent.kind)? {
            Some(record) => records.push(record),
            None => unusable = true,
        }
    }
    if !records.is_empty() {
        return Some(Said::Records { records, hops, ttl });
    }
    if unusable {
        return None;
    }
    Some(match absence(message)? {
        Some(absence) => Said::NoData { ttl: absence.min(ttl) },
        None if hops > 0 => Said::Alias { target: name, hops, ttl },
        // Who the name's servers are, from one that does not ask them for us.
        None if message.authority().ok()?.any(|record| record.is_ok_and(|record| record.rtype() == Rtype::NS)) => {
            Said::Refused
        }
        None => Said::NoData { ttl: 0 },
    })
}

/// One record: `None` when it cannot be parsed, `Some(None)` when its name is not a host's.
fn read_record(record: &ParsedRecord<'_, [u8]>, kind: Kind) -> Option<Option<Record>> {
    Some(match kind {
        Kind::A => Some(Record::Address(record.to_record::<A>().ok()??.data().addr().into())),
        Kind::Aaaa => Some(Record::Address(record.to_record::<Aaaa>().ok()??.data().addr().into())),
        Kind::Mx => {
            let mx = record.to_record::<Mx<ParsedName<&[u8]>>>().ok()??;
            let (preference, exchange) = (mx.data().preference(), mx.data().exchange());
            let host = if exchange.is_root() { Some("".into()) } else { host(exchange) };
            host.map(|host| Record::Mx { preference, host })
        }
        Kind::Ptr => {
            let ptr = record.to_record::<Ptr<ParsedName<&[u8]>>>().ok()??;
            host(ptr.data().ptrdname()).map(Record::Name)
        }
        Kind::Txt => {
            let txt = record.to_record::<Txt<&[u8]>>().ok()??;
            Some(Record::Text(txt.data().iter().flatten().copied().collect()))
        }
        Kind::Tlsa | Kind::Other(_) => {
            let data = record.to_record::<UnknownRecordData<&[u8]>>().ok()??;
            Some(Record::Other((*data.data().data()).into()))
        }
    })
}

/// For how long the answer says that something is not there: `Some(None)` when it does not.
fn absence(message: &Message<[u8]>) -> Option<Option<u32>> {
    for record in message.authority().ok()? {
        let record = record.ok()?;
        if record.rtype() == Rtype::SOA && record.class() == Class::IN {
            let soa = record.to_record::<Soa<ParsedName<&[u8]>>>().ok()??;
            return Some(Some(secs(soa.ttl()).min(secs(soa.data().minimum()))));
        }
    }
    Some(None)
}

/// RFC 2181 section 8: a time with its highest bit set is none at all.
fn secs(ttl: Ttl) -> u32 {
    let secs = ttl.as_secs();
    if secs > i32::MAX as u32 { 0 } else { secs }
}

fn number(kind: Kind) -> Rtype {
    Rtype::from_int(match kind {
        Kind::A => 1,
        Kind::Ptr => 12,
        Kind::Mx => 15,
        Kind::Txt => 16,
        Kind::Aaaa => 28,
        Kind::Tlsa => 52,
        Kind::Other(number) => number,
    })
}

/// Whether these are the labels of that name, in any case.
fn same(name: &ParsedName<&[u8]>, text: &str) -> bool {
    let mut labels = name.iter().filter(|label| !label.is_root());
    let mut wanted = text.split('.');
    loop {
        match (labels.next(), wanted.next()) {
            (None, None) => return true,
            (Some(label), Some(wanted)) if label.as_slice().eq_ignore_ascii_case(wanted.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// A name in lower case, if it is a host's.
fn host(name: &ParsedName<&[u8]>) -> Option<Box<str>> {
    text(name).filter(|name| is_host(name))
}

/// A name in lower case, if each of its letters may stand in a question. A slash does in names that addresses are delegated
/// by (RFC 2317).
fn text(name: &ParsedName<&[u8]>) -> Option<Box<str>> {
    let mut text = String::with_capacity(usize::from(name.compose_len()));
    for label in name.iter().filter(|label| !label.is_root()) {
        if !text.is_empty() {
            text.push('.');
        }
        // A dot within a label would make two of it.
        text.push_str(std::str::from_utf8(label.as_slice()).ok().filter(|label| !label.contains('.'))?);
    }
    text.make_ascii_lowercase();
    is_host(&text.replace('/', "-")).then(|| text.into_boxed_str())
}
