//! Settings that hold addresses: forward lines, catch-alls, alias files, the administrator.

use std::path::PathBuf;

use super::kind::{Field, Value, domain};
use crate::mail::address::{self, Place};
use crate::rules::route::list::{Reader, Voice};
use crate::rules::route::{Addressee, Target};
use crate::text::words::{Trouble, quote};

/// A `forward` or `forward_cc` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardLine {
    /// Whose mail.
    pub from: Addressee,
    /// Where it goes.
    pub to: Vec<Target>,
}

/// A `catch_all` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchAll {
    /// The domain, in lower case.
    pub domain: String,
    /// Who has the mail of nobody there.
    pub to: Addressee,
}

/// An `alias_file_domain` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasFile {
    /// The domain, in lower case.
    pub domain: String,
    /// Its alias file.
    pub path: PathBuf,
}

/// The grammar of whole addresses: `ann@x.example`, `"ann b"@x.example`, `ann@[192.0.2.1]`.
pub fn addressee(text: &str) -> Option<Addressee> {
    match address::path(format!("<{text}>").as_bytes(), true) {
        Ok((Some(address), b"")) => {
            let domain = match address.place {
                Place::Domain(domain) => domain,
                Place::Literal(std::net::IpAddr::V4(ip)) => format!("[{ip}]").into(),
                Place::Literal(std::net::IpAddr::V6(ip)) => format!("[IPv6:{ip}]").into(),
                Place::Here => return None,
            };
            Some(Addressee { local: address.local, domain })
        }
        _ => None,
    }
}

impl Value<'_> {
    fn addressee(&self, word: &crate::text::words::Word) -> Result<Addressee, Trouble> {
        match addressee(&word.text) {
            Some(whole) => Ok(whole),
            None => self.refuse(word, "it is a whole address, as ann@example.com"),
        }
    }
}

/// An address as it is written: quoted where it has to be.
fn written(whole: &Addressee) -> String {
    let plain = format!("{}@{}", whole.local, whole.domain);
    if addressee(&plain).as_ref() == Some(whole) {
        return quote(&plain);
    }
    let local = whole.local.replace('\\', "\\\\").replace('"', "\\\"");
    quote(&format!("\"{local}\"@{}", whole.domain))
}

impl Field for Option<Addressee> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        *self = Some(value.addressee(value.one()?)?);
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        self.iter().map(written).collect()
    }
}

impl Field for Vec<ForwardLine> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let [from, to @ ..] = value.words else { return Err(value.missing()) };
        if to.is_empty() {
            return Err(value.missing());
        }
        let from = value.addressee(from)?;
        let reader = Reader { domain: "", voice: Voice::Operator, grammar: addressee };
        let mut targets = Vec::new();
        for word in to {
            // Quotes are taken off already: what begins a command is one.
            let read = match word.text.strip_prefix('|') {
                Some(command) => reader.program(command).map(|target| vec![target]),
                None => reader.list(&word.text),
            };
            targets.extend(read.or_else(|why| value.refuse(word, &why))?);
            if targets.iter().any(|target| matches!(target, Target::Include(_))) {
                return value.refuse(word, "files are included in alias files alone");
            }
        }
        if targets.is_empty() {
            return Err(value.missing());
        }
        self.push(ForwardLine { from, to: targets });
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        let target = |target: &Target| match target {
            Target::Address(whole) => written(whole),
            target => quote(&target.to_string()),
        };
        let line = |line: &ForwardLine| {
            [written(&line.from)].into_iter().chain(line.to.iter().map(target)).collect::<Vec<_>>()
        };
        self.iter().map(|one| line(one).join(" ")).collect()
    }
}

impl Field for Vec<CatchAll> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let [name, to] = value.fields()?;
        let domain = domain(&name.text).or_else(|why| value.refuse(name, why))?;
        if self.iter().any(|line| line.domain == domain) {
            return value.refuse(name, "this domain has one already");
        }
        self.push(CatchAll { domain, to: value.addressee(to)? });
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        self.iter().map(|line| format!("{} {}", line.domain, written(&line.to))).collect()
    }
}

impl Field for Vec<AliasFile> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let [name, file] = value.fields()?;
        let domain = domain(&name.text).or_else(|why| value.refuse(name, why))?;
        if self.iter().any(|line| line.domain == domain) {
            return value.refuse(name, "this domain has an alias file already");
        }
        self.push(AliasFile { domain, path: value.path(file)? });
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        self.iter().map(|line| format!("{} {}", line.domain, quote(&line.path.to_string_lossy()))).collect()
    }
}

/// A sign out of a few, or `none`.
impl Field for Option<char> {
    fn take(&mut self, value: &Value<'_>) -> Result<(), Trouble> {
        let word = value.one()?;
        if word.text.eq_ignore_ascii_case("none") {
            *self = None;
            return Ok(());
        }
        let mut sign = ' ';
        sign.take(value)?;
        *self = Some(sign);
        Ok(())
    }
    fn show(&self) -> Vec<String> {
        vec![self.map_or_else(|| "none".to_owned(), |sign| sign.to_string())]
    }
}
