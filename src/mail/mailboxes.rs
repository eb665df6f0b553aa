//! Lists of mailboxes as header fields carry them (RFC 5322 §3.4, with the older forms of §4.4): `To`, `Cc`, `From` and their
//! kin.
//!
//! | written                                   | names                                                            |
//! |-------------------------------------------|------------------------------------------------------------------|
//! | `ann@x.org`, `ann @ x . org`              | ann@x.org                                                        |
//! | `Ann B. <ann@x.org>`, `"B, Ann" <ann@x.org>` | the same                                                      |
//! | `root (Cron Daemon)`                      | root, whose domain is not said                                   |
//! | `<@a.org,@b.org:ann@x.org>`               | ann@x.org                                                        |
//! | `Friends: ann@x.org, bob@y.org;`          | both                                                             |
//! | `undisclosed-recipients:;`                | nobody                                                           |
//!
//! Comments nest, quoted strings keep what stands in them, lines may be folded anywhere, empty places between commas are
//! nobody. What is in no such shape is an error of the whole field: half of a list is no list. Whether an address is one that
//! SMTP can carry is judged by [`address`](super::address); nothing here grows beyond the field, and nothing recurses.

/// One mailbox of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// What is before the `@`, as it is written, quotes included, without comments and blanks between its parts. Empty: the
    /// null path `<>`.
    pub local: Vec<u8>,
    /// What is behind it, in the same way; `None` where nothing is.
    pub domain: Option<Vec<u8>>,
    /// Where in the field the local part ends: there a domain can be put that was left out.
    pub local_end: usize,
}

/// A field that is no list of mailboxes: near this byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoList(pub usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An atom or a quoted string.
    Word,
    /// `[...]`.
    Literal,
    /// One of `<>@,.:;`.
    Special(u8),
}

#[derive(Debug, Clone, Copy)]
struct Token {
    kind: Kind,
    from: usize,
    to: usize,
}

/// The mailboxes that the body of a field names, groups and all, in their order.
pub fn mailboxes(field: &[u8]) -> Result<Vec<Mailbox>, NoList> {
    let tokens = tokens(field)?;
    let mut found = Vec::new();
    let (mut at, mut in_group) = (0, false);
    while at < tokens.len() {
        let words = at;
        let stop = |token: &Token| matches!(token.kind, Kind::Special(b',' | b'<' | b'>' | b':' | b';'));
        at += tokens[at..].iter().position(stop).unwrap_or(tokens.len() - at);
        let before = &tokens[words..at];
        let wrong = NoList(tokens.get(at).map_or(field.len(), |token| token.from));
        let end = tokens.get(at).map(|token| token.kind);
        at += 1;
        match end {
            None | Some(Kind::Special(b',' | b';')) if !before.is_empty() => found.push(mailbox(field, before)?),
            Some(Kind::Special(b'<')) if is_phrase(before) => {
                let close = tokens[at..].iter().position(|token| token.kind == Kind::Special(b'>')).ok_or(wrong)?;
                found.push(angle(field, &tokens[at..at + close], wrong)?);
                at += close + 1;
                match tokens.get(at).map(|token| token.kind) {
                    None | Some(Kind::Special(b',' | b';')) => {}
                    Some(_) => return Err(NoList(tokens[at].from)),
                }
                // A `;` is looked at once more: it ends the group.
                at += usize::from(tokens.get(at).is_some_and(|token| token.kind == Kind::Special(b',')));
            }
            Some(Kind::Special(b':')) if !in_group && !before.is_empty() && is_phrase(before) => in_group = true,
            None | Some(Kind::Special(b',')) => {}
            Some(Kind::Special(b';')) if in_group => {}
            _ => return Err(wrong),
        }
        if end == Some(Kind::Special(b';')) {
            if !in_group {
                return Err(wrong);
            }
            in_group = false;
        }
    }
    // A group that nobody closed is closed by the field's end, as other programs have it.
    Ok(found)
}

/// What may stand before `<` and `:`: words, and the dots that people write into names.
fn is_phrase(tokens: &[Token]) -> bool {
    tokens.iter().all(|token| matches!(token.kind, Kind::Word | Kind::Special(b'.')))
}

/// What stands between `<` and `>`.
fn angle(field: &[u8], tokens: &[Token], wrong: NoList) -> Result<Mailbox, NoList> {
    let Some(first) = tokens.first() else {
        return Ok(Mailbox { local: Vec::new(), domain: None, local_end: wrong.0 + 1 });
    };
    if first.kind != Kind::Special(b'@') {
        return mailbox(field, tokens);
    }
    // A source route, long out of use: what counts is behind it.
    let colon = tokens.iter().position(|token| token.kind == Kind::Special(b':')).ok_or(wrong)?;
    mailbox(field, &tokens[colon + 1..])
}

/// `local`, or `local@domain`.
fn mailbox(field: &[u8], tokens: &[Token]) -> Result<Mailbox, NoList> {
    let at = tokens.iter().position(|token| token.kind == Kind::Special(b'@')).unwrap_or(tokens.len());
    let (local, behind) = tokens.split_at(at);
    let local_end = local.last().map_or(0, |token| token.to);
    let local = dotted(field, local)?;
    let domain = match behind {
        [] => None,
        [at] => return Err(NoList(at.from)),
        [_, literal] if literal.kind == Kind::Literal => Some(field[literal.from..literal.to].to_vec()),
        [_, domain @ ..] => Some(dotted(field, domain)?),
    };
    Ok(Mailbox { local, domain, local_end })
}

/// Words with a dot between each two: as they are written, one behind the other.
fn dotted(field: &[u8], tokens: &[Token]) -> Result<Vec<u8>, NoList> {
    let mut text = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let wanted = if index % 2 == 0 { token.kind == Kind::Word } else { token.kind == Kind::Special(b'.') };
        if !wanted {
            return Err(NoList(token.from));
        }
        text.extend_from_slice(&field[token.from..token.to]);
    }
    match tokens.last() {
        Some(last) if tokens.len() % 2 == 1 => {
            debug_assert_eq!(last.kind, Kind::Word);
            Ok(text)
        }
        last => Err(NoList(last.map_or(0, |token| token.from))),
    }
}

fn tokens(field: &[u8]) -> Result<Vec<Token>, NoList> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&byte) = field.get(at) {
        let from = at;
        let kind = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'(' => {
                at = comment_end(field, at)?;
                continue;
            }
            b'"' => {
                at = closed(field, at, b'"')?;
                Kind::Word
            }
            b'[' => {
                at = closed(field, at, b']')?;
                Kind::Literal
            }
            b'<' | b'>' | b'@' | b',' | b'.' | b':' | b';' => {
                at += 1;
                Kind::Special(byte)
            }
            _ => {
                at += field[at..].iter().position(|&byte| !is_atom(byte)).unwrap_or(field.len() - at);
                if at == from {
                    return Err(NoList(at));
                }
                Kind::Word
            }
        };
        tokens.push(Token { kind, from, to: at });
    }
    Ok(tokens)
}

/// Whether it may stand in a word without quotes. A backslash may not, nor may a control.
fn is_atom(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f && !b"()<>[]:;@\\,.\"".contains(&byte)
}

/// Behind the comment that begins here.
fn comment_end(field: &[u8], from: usize) -> Result<usize, NoList> {
    let (mut depth, mut at) = (0_usize, from);
    while let Some(&byte) = field.get(at) {
        at += 1;
        match byte {
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(NoList(from))
}

/// Behind what begins here and ends with `end`, where a backslash hides one byte.
fn closed(field: &[u8], from: usize, end: u8) -> Result<usize, NoList> {
    let mut at = from + 1;
    while let Some(&byte) = field.get(at) {
        at += 1;
        match byte {
            b'\\' => at += 1,
            _ if byte == end => return Ok(at),
            _ => {}
        }
    }
    Err(NoList(from))
}

#[cfg(test)]
mod tests;
