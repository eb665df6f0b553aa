//! docs/dpop-troubleshooting.md, or docs/dsmtp-troubleshooting.md, knows every reply and every line of the log: whoever adds one has to say there what it means.
//!
//! Replies are looked for word by word. A line of the log is looked for by the longest piece of its format string that is
//! fixed; one whose words come from elsewhere is a row of [`ELSEWHERE`], which says from where.

use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/dpop-troubleshooting.md";
const SMTP_PAGE: &str = "docs/dsmtp-troubleshooting.md";
/// A piece shorter than this says nothing: `pop3 `.
const TELLING: usize = 7;

/// Format strings without words of their own, and where their words are: a file, and all literals behind each `After` or all
/// between the two texts of a `Within`.
const ELSEWHERE: &[(&str, &[(&str, Words)])] = &[
    // Its one word is a command.
    // The words of a Fault are its path's and the system's; what we say ourselves:
    ("pop3 {} {}: {fault}", &[("src/store/refresh.rs", After("refuse(\"reading\", &desk.spot.drop, "))]),
    (
        "pop3 {} {}: {}",
        &[
            ("src/service/account.rs", After("Err(format!(")),
            ("src/store/desk.rs", After("refuse(\"opening\", path, ")),
            ("src/store/desk.rs", After("refuse(\"opening\", path, &format!(")),
            ("src/store/desk.rs", After("refuse(\"opening\", &self.spot.drop, &format!(")),
        ],
    ),
    ("pop3 {} {} {}: {why}", &[("src/service/pop3/entering.rs", After("turned_away("))]),
    (
        "smtp {}: {}",
        &[
            ("src/service/account.rs", After("Err(format!(")),
            ("src/store/forward.rs", After("=> Err(")),
            ("src/store/forward.rs", After("Found::Ignored(")),
            ("src/store/forward.rs", After("Found::Ignored(format!(")),
            ("src/service/route.rs", After("&format!(")),
            ("src/rules/route.rs", After("self.remark(format!(")),
        ],
    ),
    ("pop3 {} {}: {}: {remark}", &[("src/store/desk.rs", Within("impl fmt::Display for Remark", "\n}\n"))]),
    (
        "{}: {}",
        &[
            ("src/service/noise.rs", Within("impl fmt::Display for Event", "\n}\n")),
            ("src/service/noise.rs", Within("fn sentence(", "\n}\n")),
        ],
    ),
    (
        "{text}",
        &[
            ("src/protocol/helper.rs", After("Act::Note(format!(")),
            ("src/protocol/helper.rs", After("give_up(now, copy, ")),
            ("src/protocol/helper.rs", After("return Err(")),
            ("src/protocol/helper.rs", After("ok_or(")),
        ],
    ),
    ("{remark}", &[("src/store/bulletins.rs", After("remarks.push(format!("))]),
    ("{said}", &[("src/net/watchdog.rs", Within("fn look(&mut self", "\n    }\n"))]),
    ("{why}", &[("src/server/start.rs", Within("fn open_to(", "\n}\n"))]),
    ("reload: {}", &[("src/server/reload.rs", After("log::info!("))]),
];

/// Words that reach the operator in other ways: reasons inside a line, the log's own lines, why a server does not start.
const BESIDES: &[(&str, Words)] = &[
    ("src/rules/access.rs", Within("pub fn reason(self)", "\n    }\n")),
    ("src/service/entering.rs", Within("fn denied(", "\n    }\n")),
    ("src/server/journal.rs", After("own(\"ERROR\", &format!(")),
    ("src/server/journal/log.rs", After("own(\"ERROR\", &format!(")),
    ("src/server/journal/log.rs", After("let text = format!(")),
    ("src/server/journal/logs.rs", After("let text = format!(")),
    ("src/server/journal/stats.rs", After("let text = format!(")),
    ("src/server/start.rs", After("format!(")),
];

#[derive(Clone, Copy)]
enum Words {
    /// The literal that follows this text, wherever it stands.
    After(&'static str),
    /// All literals between the first of these texts and the second behind it.
    Within(&'static str, &'static str),
}
use Words::{After, Within};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A source file, without its tests.
fn source(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let end = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].to_owned()
}

/// The string literal at the beginning of `text`, as it is meant; and what follows it.
fn literal(text: &str) -> Option<(String, &str)> {
    let mut said = String::new();
    let mut rest = text.trim_start().strip_prefix('"')?;
    loop {
        let at = rest.find(['"', '\\'])?;
        said += &rest[..at];
        let escaped = rest[at..].starts_with('\\');
        rest = &rest[at + 1..];
        if !escaped {
            return Some((said, rest));
        }
        let letter = rest.chars().next()?;
        rest = &rest[letter.len_utf8()..];
        match letter {
            // The line goes on at the next word.
            '\n' => rest = rest.trim_start(),
            letter => said.push(letter),
        }
    }
}

/// The first literal in `text`.
fn first_literal(text: &str) -> Option<(String, &str)> {
    text.find('"').and_then(|at| literal(&text[at..]))
}

fn words(path: &str, which: Words) -> Vec<String> {
    let text = source(&root().join(path));
    let mut found = Vec::new();
    match which {
        After(anchor) => found.extend(text.split(anchor).skip(1).filter_map(|rest| Some(literal(rest)?.0))),
        Within(from, to) => {
            let begin = text.find(from).unwrap_or_else(|| panic!("{path} has no `{from}`"));
            let mut rest = &text[begin..];
            rest = &rest[..rest.find(to).unwrap_or_else(|| panic!("{path} has no {to:?} behind `{from}`"))];
            while let Some((said, behind)) = first_literal(rest) {
                found.push(said);
                rest = behind;
            }
        }
    }
    assert!(!found.is_empty(), "{path} has no words there any more: correct the table in {}", file!());
    found
}

/// The longest fixed piece of a format string; empty when none says anything.
fn piece(format: &str) -> &str {
    let fixed = format.split('{').enumerate().map(|(index, part)| match index {
        0 => part,
        _ => part.split_once('}').map_or("", |(_, fixed)| fixed),
    });
    let longest = fixed.map(|part| part.trim_matches([' ', ':', ';', ',', '(', ')'])).max_by_key(|part| part.len());
    longest.filter(|part| part.len() >= TELLING).unwrap_or_default()
}

/// A page in one line, so that a sample may be broken anywhere.
fn page(name: &str) -> String {
    let text = fs::read_to_string(root().join(name)).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

#[test]
fn the_page_knows_every_reply() {
    let page = page(PAGE);
    let text = source(&root().join("src/protocol/pop3/reply.rs"));
    let replies: Vec<String> =
        text.match_indices("\"-ERR ").filter_map(|(at, _)| Some(literal(&text[at..])?.0)).collect();
    assert!(replies.len() > 20, "{} replies: is reply.rs still where they are?", replies.len());
    let missing: Vec<&String> = replies.iter().filter(|reply| !page.contains(&format!("`{reply}`"))).collect();
    assert!(missing.is_empty(), "{PAGE} does not say what these replies mean: {missing:#?}");
}

/// Replies of SMTP stand in a table as `NAME = 550 1 1 "text"`, or where they are said as `Reply::new(550, 1, 1, "text"`.
#[test]
fn the_page_of_smtp_knows_every_reply() {
    let page = page(SMTP_PAGE);
    let mut replies = Vec::new();
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    for file in files {
        let text = source(&file);
        let table = file.ends_with("protocol/smtp/reply.rs") || file.ends_with("rules/relay.rs");
        let said = text.match_indices("Reply::new(").map(|(at, _)| (&text[at + "Reply::new(".len()..], ", "));
        let rows = text.match_indices(" = ").filter(|_| table).map(|(at, _)| (&text[at + 3..], " "));
        for (rest, between) in said.chain(rows) {
            let mut parts = rest.trim_start().splitn(4, between);
            let mut number = || parts.next()?.trim().parse::<u16>().ok();
            let (Some(code), Some(subject), Some(detail)) = (number(), number(), number()) else { continue };
            let Some((words, _)) = parts.next().and_then(first_literal) else { continue };
            if code >= 400 {
                replies.push(format!("{code} {}.{subject}.{detail} {words}", code / 100));
            }
        }
    }
    assert!(replies.len() > 40, "{} replies: is reply.rs still where they are?", replies.len());
    let missing: Vec<&String> = replies.iter().filter(|reply| !page.contains(piece(reply))).collect();
    assert!(missing.is_empty(), "{SMTP_PAGE} does not say what these replies mean: {missing:#?}");
}

#[test]
fn the_page_knows_every_line_of_the_log() {
    let page = page(PAGE) + &page(SMTP_PAGE);
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let (mut lines, mut missing, mut wordless) = (0, Vec::new(), Vec::new());
    let mut look = |said: &str| {
        let piece = piece(said);
        if !piece.is_empty() && !page.contains(piece) {
            missing.push(said.to_owned());
        }
        !piece.is_empty()
    };
    for file in &files {
        let text = source(file);
        for macro_name in ["log::info!(", "log::warn!(", "log::error!(", "log::log!("] {
            for rest in text.split(macro_name).skip(1) {
                let Some((said, _)) = first_literal(rest) else { continue };
                lines += 1;
                if !look(&said) {
                    wordless.push(said);
                }
            }
        }
    }
    assert!(lines > 30, "{lines} lines: is the walk looking at src?");
    for said in &wordless {
        let known = ELSEWHERE.iter().any(|(format, _)| format == said);
        assert!(known, "the words of the line {said:?} are elsewhere: say where in the table in {}", file!());
    }
    for (format, from) in ELSEWHERE {
        assert!(
            wordless.iter().any(|said| said == format),
            "nobody logs {format:?} any more: take its row out of {}",
            file!()
        );
        from.iter().flat_map(|(path, which)| words(path, *which)).for_each(|said| _ = look(&said));
    }
    BESIDES.iter().flat_map(|(path, which)| words(path, *which)).for_each(|said| _ = look(&said));
    assert!(missing.is_empty(), "{PAGE} does not say what these lines mean: {missing:#?}");
}

#[test]
fn every_page_is_in_the_index_and_every_link_leads_somewhere() {
    let docs = root().join("docs");
    let index = fs::read_to_string(docs.join("README.md")).unwrap();
    for entry in fs::read_dir(&docs).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name == "README.md" || index.contains(&format!("({name})")), "docs/README.md does not name {name}");
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
            if link.starts_with("http") {
                continue;
            }
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { docs.join(file) };
            assert!(target.exists(), "{name} links to {link}, which is not there");
            if !section.is_empty() {
                let there = fs::read_to_string(&target).unwrap();
                let headings: Vec<String> = there.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
                assert!(headings.iter().any(|heading| heading == section), "{name} links to {link}: {headings:?}");
            }
        }
    }
}

/// The name that a heading has in a link.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}
