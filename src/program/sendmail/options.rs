//! The command line, as programs have written it for forty years: letters that may stand together, values attached or behind.

use std::path::PathBuf;

use crate::mail::mailboxes::mailboxes;
use crate::program::options::CONFIG;
use crate::text::xtext;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A message comes on standard input.
    Send,
    /// SMTP is spoken on standard input and output.
    Smtp,
    /// The queue is to be listed.
    List,
    /// Alias files are to be judged and read again.
    Aliases,
    /// What waits in the queue is to be tried now.
    Retry,
}

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is to be done.
    pub mode: Mode,
    /// The configuration.
    pub config: PathBuf,
    /// The message names its recipients itself.
    pub from_header: bool,
    /// A line that is nothing but a dot ends the message.
    pub dots: bool,
    /// Where bounces go; empty: nowhere.
    pub sender: Option<String>,
    /// The sender's name among people.
    pub name: Option<String>,
    /// What is said to the server, and what it says, is shown.
    pub verbose: bool,
    /// NOTIFY, as SMTP has it.
    pub notify: Option<String>,
    /// RET.
    pub ret: Option<&'static str>,
    /// ENVID, in xtext.
    pub envid: Option<String>,
    /// Recipients that are named here; each may be a list.
    pub recipients: Vec<String>,
}

/// What a letter does with what is attached to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Nothing is: more letters may follow.
    Nothing,
    /// Its value, attached or as the next word.
    Value,
    /// Its value, if one is attached.
    Attached,
}

struct Letter {
    letter: char,
    takes: Takes,
    set: fn(&mut Options, &str) -> Result<(), String>,
    form: &'static str,
    why: &'static str,
}

#[rustfmt::skip]
const LETTERS: &[Letter] = &[
    Letter { letter: 't', takes: Takes::Nothing, form: "-t", why: "the recipients are those in To, Cc and Bcc, besides ADDRESS ...",
             set: |o, _| { o.from_header = true; Ok(()) } },
    Letter { letter: 'i', takes: Takes::Nothing, form: "-i, -oi", why: "a line with only a dot is text, not the end",
             set: |o, _| { o.dots = false; Ok(()) } },
    Letter { letter: 'f', takes: Takes::Value, form: "-f ADDRESS, -r ADDRESS", why: "the sender: where bounces go; <> is nobody (you, at the main domain)",
             set: |o, value| sender(o, value) },
    Letter { letter: 'r', takes: Takes::Value, form: "", why: "", set: |o, value| sender(o, value) },
    Letter { letter: 'F', takes: Takes::Value, form: "-F NAME", why: "the sender's name, for a message without From (from the system's list of users)",
             set: |o, value| { o.name = Some(clean(value)?); Ok(()) } },
    Letter { letter: 'v', takes: Takes::Nothing, form: "-v", why: "show what is said to the server, and what it says",
             set: |o, _| { o.verbose = true; Ok(()) } },
    Letter { letter: 'N', takes: Takes::Value, form: "-N WHEN", why: "when the sender is told: never, or some of success,failure,delay",
             set: |o, value| { o.notify = Some(notify(value)?); Ok(()) } },
    Letter { letter: 'R', takes: Takes::Value, form: "-R WHAT", why: "what he gets back: full or hdrs", set: |o, value| {
        o.ret = Some(match () {
            () if value.eq_ignore_ascii_case("full") => "FULL",
            () if value.eq_ignore_ascii_case("hdrs") => "HDRS",
            () => return Err("takes full or hdrs".to_owned()),
        });
        Ok(())
    } },
    Letter { letter: 'V', takes: Takes::Value, form: "-V ID", why: "what the sender calls this message, told with what he gets back", set: |o, value| {
        let id = xtext::encode(clean(value)?.as_bytes());
        if id.is_empty() || id.len() > ENVID_LIMIT || !value.is_ascii() { return Err(format!("takes up to {ENVID_LIMIT} characters of ASCII")) }
        o.envid = Some(id);
        Ok(())
    } },
    Letter { letter: 'C', takes: Takes::Value, form: "-C FILE", why: "use this configuration instead of /etc/dmail.conf",
             set: |o, value| { o.config = PathBuf::from(value); Ok(()) } },
    Letter { letter: 'b', takes: Takes::Value, form: "-bm", why: "take a message from standard input: what it does anyway",
             set: |o, value| mode(o, value) },
    Letter { letter: 'q', takes: Takes::Attached, form: "-q", why: "have the server try now what waits in its queue; an interval or pattern behind it makes no difference",
             set: |o, _| { o.mode = Mode::Retry; Ok(()) } },
    Letter { letter: 'I', takes: Takes::Nothing, form: "", why: "", set: |o, _| { o.mode = Mode::Aliases; Ok(()) } },
    Letter { letter: 'o', takes: Takes::Value, form: "", why: "", set: |o, value| { o.dots &= value != "i"; Ok(()) } },
    Letter { letter: 'O', takes: Takes::Value, form: "", why: "", set: |o, value| {
        let (name, value) = value.split_once('=').unwrap_or((value, "true"));
        let said = value.trim().starts_with(['t', 'T', 'y', 'Y', '1']);
        o.dots &= !(name.trim().eq_ignore_ascii_case("IgnoreDots") && said);
        Ok(())
    } },
];

/// Letters of other programs that go by this name, for which there is nothing to do here: without a value, with one, with one if
/// it is attached.
const IGNORED: [(&str, Takes); 3] =
    [("cEGlmnsTUwx", Takes::Nothing), ("ABDehLMpX", Takes::Value), ("d", Takes::Attached)];

/// Octets of an ENVID (RFC 3461 §4.4).
const ENVID_LIMIT: usize = 100;

/// Reads what follows the program's name. `mode` is what that name means by itself.
pub fn parse(mode: Mode, args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        mode,
        config: PathBuf::from(CONFIG),
        from_header: false,
        dots: true,
        sender: None,
        name: None,
        verbose: false,
        notify: None,
        ret: None,
        envid: None,
        recipients: Vec::new(),
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let Some(mut letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            options.recipients.push(word.clone());
            continue;
        };
        if word == "--" {
            options.recipients.extend(words.cloned());
            break;
        }
        while let Some(letter) = letters.chars().next() {
            letters = &letters[letter.len_utf8()..];
            let row = LETTERS.iter().find(|row| row.letter == letter);
            let ignored = || IGNORED.iter().find(|(known, _)| known.contains(letter)).map(|(_, takes)| *takes);
            let Some(takes) = row.map(|row| row.takes).or_else(ignored) else {
                return Err(format!("-{letter} is no option of this sendmail"));
            };
            let value = match takes {
                Takes::Nothing => "",
                Takes::Attached => std::mem::take(&mut letters),
                Takes::Value if !letters.is_empty() => std::mem::take(&mut letters),
                Takes::Value => words.next().ok_or_else(|| format!("-{letter} takes a value"))?,
            };
            if let Some(row) = row {
                (row.set)(&mut options, value).map_err(|why| format!("-{letter} {why}"))?;
            }
        }
    }
    Ok(options)
}

/// The lines of the help text.
pub fn help() -> String {
    let own = LETTERS.iter().map(|row| (row.form, row.why));
    let modes = [
        ("-bs", "speak SMTP on standard input and output"),
        ("-bp", "list the queue, as mailq does"),
        ("-bi", "judge alias files and have them read again, as newaliases does"),
        ("--", "what follows are addresses, whatever they begin with"),
    ];
    own.chain(modes).filter(|(form, _)| !form.is_empty()).map(|(form, why)| format!("    {form:22}  {why}\n")).collect()
}

fn mode(options: &mut Options, value: &str) -> Result<(), String> {
    options.mode = match value {
        "m" => Mode::Send,
        "s" => Mode::Smtp,
        "p" => Mode::List,
        "i" => Mode::Aliases,
        "d" | "D" => return Err(format!("{value}: the server is `dmail serve`")),
        "v" | "t" => return Err(format!("{value}: `tellsmtp why` says what would become of a message")),
        _ => return Err(format!("takes m, s, p or i, not `{value}`")),
    };
    Ok(())
}

fn sender(options: &mut Options, value: &str) -> Result<(), String> {
    let value = clean(value)?;
    let list = mailboxes(value.as_bytes()).map_err(|_| format!("takes an address, not `{value}`"))?;
    if list.len() > 1 {
        return Err(format!("takes one address, not `{value}`"));
    }
    options.sender = Some(value);
    Ok(())
}

fn notify(value: &str) -> Result<String, String> {
    let words: Vec<String> = value.split(',').map(|word| word.trim().to_ascii_uppercase()).collect();
    let known = |word: &String| ["SUCCESS", "FAILURE", "DELAY"].contains(&word.as_str());
    let twice = words.iter().enumerate().any(|(index, word)| words[..index].contains(word));
    if words == ["NEVER"] || (words.iter().all(known) && !twice) {
        return Ok(words.join(","));
    }
    Err("takes never, or some of success,failure,delay".to_owned())
}

/// What becomes a header field or a command holds no line end and nothing else that a person cannot write.
fn clean(value: &str) -> Result<String, String> {
    if value.chars().any(char::is_control) {
        return Err("takes no control characters".to_owned());
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, String> {
        let words: Vec<String> = line.split('|').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        parse(Mode::Send, &words)
    }

    fn shown(line: &str) -> String {
        let options = read(line).unwrap_or_else(|why| panic!("{line}: {why}"));
        let sender = options.sender.as_deref().map_or(String::new(), |sender| format!(" f={sender}"));
        let flags = [(options.from_header, "t"), (!options.dots, "i"), (options.verbose, "v")];
        let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, letter)| *letter).collect();
        format!("{:?} {flags}{sender} {}", options.mode, options.recipients.join(" "))
    }

    #[test]
    fn letters_stand_alone_or_together_and_values_attached_or_behind() {
        for (line, wanted) in [
            ("ann", "Send ann"),
            ("-t|-i", "Send ti"),
            ("-it", "Send ti"),
            ("-oi|-t", "Send ti"),
            ("-o|i|ann", "Send i  ann"),
            ("-oIgnoreDots|ann", "Send ann"),
            ("-OIgnoreDots|ann", "Send i  ann"),
            ("-O|IgnoreDots=False|ann", "Send ann"),
            ("-fann@x|bob", "Send f=ann@x bob"),
            ("-f|ann@x|bob", "Send f=ann@x bob"),
            ("-tif|ann@x", "Send ti f=ann@x"),
            ("-r|<>|bob", "Send f=<> bob"),
            ("-oem|-odb|-oQ/tmp|bob", "Send bob"),
            ("-FCronDaemon|-i|-B8BITMIME|-oem|root", "Send i  root"),
            ("-bs", "Smtp"),
            ("-b|p", "List"),
            ("-bi", "Aliases"),
            ("-I", "Aliases"),
            ("-q", "Retry"),
            ("-q30m", "Retry"),
            ("-qRann|-v", "Retry v"),
            ("-bm|--|-t", "Send -t"),
            ("-U|-x|-G|-n|-m|-h|3|-L|tag|-d0.1|-X/tmp/log|-p|x|bob", "Send bob"),
            ("bob|-t|carl", "Send t  bob carl"),
            ("-|bob", "Send - bob"),
        ] {
            let wanted: Vec<&str> = wanted.split_whitespace().collect();
            assert_eq!(shown(line).split_whitespace().collect::<Vec<_>>(), wanted, "{line}");
        }
        let all = read("-N|failure,Delay|-R|hdrs|-VQQ 314=+|-F|Ann L|-C/x.conf").unwrap();
        assert_eq!(all.notify.as_deref(), Some("FAILURE,DELAY"));
        assert_eq!((all.ret, all.envid.as_deref()), (Some("HDRS"), Some("QQ+20314+3D+2B")));
        assert_eq!((all.name.as_deref(), all.config), (Some("Ann L"), PathBuf::from("/x.conf")));
    }

    #[test]
    fn what_is_not_understood_or_smuggles_a_line_is_refused() {
        for line in [
            "-k",
            "-Q",
            "-ü",
            "-f",
            "-F",
            "-bd",
            "-bD",
            "-bt",
            "-bv",
            "-bx",
            "-b",
            "-N|often",
            "-N|never,success",
            "-N|delay,delay",
            "-R|all",
            "-V",
            "-V|",
            "-F|x\nBcc: y",
            "-fann@x\r\nDATA",
            "-f|a b",
            "-f|a@x,b@x",
            "-V|a\nb",
            "-F|a\0b",
        ] {
            assert!(read(line).is_err(), "{line}: {:?}", read(line));
        }
        assert!(read(&format!("-V|{}", "x".repeat(ENVID_LIMIT + 1))).is_err());
    }
}
