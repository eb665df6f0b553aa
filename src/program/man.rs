//! `dmail man`: the manual pages, made from what the programs say of themselves with `-h` and from the rows of the settings; so
//! neither can say what the other does not.
//!
//! | in a `-h` text                            | in the page (man(7))                  |
//! |-------------------------------------------|---------------------------------------|
//! | `usage: NAME ...`                         | SYNOPSIS                              |
//! | a line that ends with `:`, then indented ones | a section                         |
//! | an indented line of two columns           | a tagged paragraph; deeper lines go on with it |
//! | any other line                            | text; a blank line begins a paragraph |

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::options::{self, DONE, FAILED, USAGE};
use super::{PROGRAMS, Program};
use crate::settings::{reference, rows};
use crate::text::fault::Fault;

const USAGE_TEXT: &str = "dmail man [PAGE | -d DIR]

Prints a manual page in the form that man(1) reads (`dmail man tellpop | man -l -`), or writes all of them below DIR, as
man8/NAME.8 and man5/dmail.conf.5. Without either it lists them.";

fn own(options: &mut getopts::Options) {
    options.optopt("d", "", "write all pages below this directory", "DIR");
}

/// What `-h` prints.
pub fn page() -> String {
    options::page(USAGE_TEXT, own)
}

/// Runs the program; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    let (_, matches) = match options::read(args, USAGE_TEXT, own) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let pages = pages();
    match (&matches.free[..], matches.opt_str("d")) {
        ([], None) => {
            for page in &pages {
                options::print(&format!("{}({})\n", page.name, page.section));
            }
            DONE
        }
        ([name], None) => match pages.iter().find(|page| page.name == *name || page.name == format!("dmail-{name}")) {
            Some(page) => {
                options::print(&page.text);
                DONE
            }
            None => {
                eprintln!("there is no page `{name}`: `dmail man` lists them");
                FAILED
            }
        },
        ([], Some(dir)) => match pages.iter().try_for_each(|page| page.write(Path::new(&dir))) {
            Ok(()) => DONE,
            Err(fault) => {
                eprintln!("dmail man: {fault}");
                FAILED
            }
        },
        _ => {
            eprintln!("dmail man takes one page, or -d DIR for all of them");
            USAGE
        }
    }
}

struct Page {
    name: String,
    section: u8,
    text: String,
}

impl Page {
    fn write(&self, dir: &Path) -> Result<(), Fault> {
        let dir = dir.join(format!("man{}", self.section));
        fs::create_dir_all(&dir).map_err(Fault::at("making", &dir))?;
        let path = dir.join(format!("{}.{}", self.name, self.section));
        fs::write(&path, &self.text).map_err(Fault::at("writing", &path))
    }
}

/// All pages.
fn pages() -> Vec<Page> {
    let mut pages = vec![overview(), conf()];
    for program in PROGRAMS {
        let name = page_name(program);
        let text = format!(
            "{}.SH NAME\n{name} \\- {}\n{}{}",
            title(&name, 8),
            roff(program.help),
            from_help(&(program.page)()),
            see_also(&name)
        );
        pages.push(Page { name, section: 8, text });
    }
    pages
}

fn page_name(program: &Program) -> String {
    if program.link { program.name.to_owned() } else { format!("dmail-{}", program.name) }
}

fn overview() -> Page {
    let mut text = title("dmail", 8);
    text +=
        ".SH NAME\ndmail \\- a mail system in one program\n.SH SYNOPSIS\n.B dmail\n.I PROGRAM\n[\\fIOPTION\\fR ...]\n";
    text += ".SH DESCRIPTION\nOne executable holds all programs. Each is called by its name behind\n.BR dmail ,\nand \
             those with a page of their own name also by that name alone.\n";
    for program in PROGRAMS {
        let _ = write!(text, ".TP\n.B {}\n{} (\\fB{}\\fR(8))\n", program.name, roff(program.help), page_name(program));
    }
    text += ".SH EXIT STATUS\n0: done. 1: it failed. 2: wrong options.\n.SH FILES\n.TP\n.I /etc/dmail.conf\nThe \
             configuration, unless another is named with\n.BR \\-i .\n";
    text += &see_also("dmail");
    Page { name: "dmail".to_owned(), section: 8, text }
}

/// dmail.conf(5).
fn conf() -> Page {
    let mut text = title("dmail.conf", 5);
    text += ".SH NAME\ndmail.conf \\- the settings of dmail\n.SH DESCRIPTION\n";
    text += &paragraphs(reference::MANNER);
    for row in rows::ROWS {
        if !row.part.is_empty() {
            let _ = writeln!(text, ".SH {}", roff(&row.part.to_uppercase()));
        }
        let (facts, why) = (reference::facts(row), row.why);
        let _ = write!(
            text,
            ".TP\n.B {} \\fI{}\\fR\n{}\n.br\n{}\n",
            row.name,
            roff(&row.kind.form()),
            roff(&facts),
            roff(why)
        );
    }
    for (title, all) in [("KNOWN, NOT USED BY THIS VERSION", rows::LATER), ("KNOWN, NEEDED NO MORE", rows::GONE)] {
        let _ = writeln!(text, ".SH {title}");
        for unused in all {
            let _ = write!(text, ".TP\n.B {}\n{}.\n", roff(&unused.names.join(", ")), roff(unused.why));
        }
    }
    text += &see_also("dmail.conf");
    Page { name: "dmail.conf".to_owned(), section: 5, text }
}

fn title(name: &str, section: u8) -> String {
    format!(".TH {} {section} \"\" \"dmail {}\" \"DMail\"\n", name.to_uppercase(), env!("CARGO_PKG_VERSION"))
}

fn see_also(own: &str) -> String {
    let mut others = vec!["dmail(8)".to_owned(), "dmail.conf(5)".to_owned()];
    others.extend(PROGRAMS.iter().map(|program| format!("{}(8)", page_name(program))));
    others.retain(|other| !other.starts_with(&format!("{own}(")));
    format!(".SH SEE ALSO\n{}\n", roff(&others.join(", ")))
}

/// The sections of a page, out of a `-h` text.
fn from_help(help: &str) -> String {
    let mut text = String::from(".SH SYNOPSIS\n");
    let mut lines = help.lines().peekable();
    while let Some(line) = lines.next_if(|line| !line.trim().is_empty()) {
        let line = line.trim_start_matches("usage:").trim();
        let (name, rest) =
            line.split_once(" [").map_or((line, String::new()), |(name, rest)| (name, format!("[{rest}")));
        let _ = write!(text, ".B {}\n{}\n.br\n", roff(name), roff(&rest));
    }
    text += ".SH DESCRIPTION\n";
    let mut listed = false;
    while let Some(line) = lines.next() {
        let below = lines.peek().is_some_and(|next| next.starts_with(' '));
        if line.trim().is_empty() {
            text += ".PP\n";
        } else if let Some(title) = line.strip_suffix(':').filter(|title| below && !title.starts_with(' ')) {
            let _ = writeln!(text, ".SH {}", roff(&title.to_uppercase()));
        } else if let Some((term, meaning)) = columns(line) {
            let _ = write!(text, ".TP\n.B {}\n{}\n", roff(term), roff(meaning));
            listed = true;
            continue;
        } else if line.starts_with(' ') && !listed {
            let _ = write!(text, ".TP\n.B {}\n", roff(line.trim()));
            continue;
        } else {
            let _ = writeln!(text, "{}", roff(line.trim()));
        }
        listed = listed && line.starts_with(' ');
    }
    text
}

/// An indented line of two columns.
fn columns(line: &str) -> Option<(&str, &str)> {
    let (term, meaning) = line.strip_prefix("  ")?.trim_start().split_once("  ")?;
    Some((term, meaning.trim_start())).filter(|(term, meaning)| !term.is_empty() && !meaning.is_empty())
}

/// Lines of text; a blank one begins a paragraph.
fn paragraphs(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { ".PP\n".to_owned() } else { format!("{}\n", roff(line)) }).collect()
}

/// Text that is nothing but text to roff(7).
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Teller;

    #[test]
    fn every_program_and_every_setting_is_in_a_page() {
        let pages = pages();
        let page = |name: &str| &pages.iter().find(|page| page.name == name).unwrap().text;
        for program in PROGRAMS {
            let page = page(&page_name(program));
            assert!(page.contains(".SH SYNOPSIS\n.B ") && page.contains(&roff(program.help)), "{page}");
            let commands = (program.page)().lines().filter(|line| columns(line).is_some()).count();
            assert!(page.matches("\n.TP\n").count() >= commands, "{page}");
        }
        for row in rows::ROWS {
            assert!(page("dmail.conf").contains(&format!("\n.B {} ", row.name)), "{}", row.name);
        }
        for teller in [Teller::Pop, Teller::Smtp] {
            for verb in teller.verbs() {
                let name = teller.name();
                assert!(page(name).contains(&format!("\n.B {}", roff(verb.name))), "{name} {}", verb.name);
            }
        }
    }

    #[test]
    fn a_help_text_becomes_sections_and_tagged_paragraphs() {
        let help = "usage: dmail tea [-i FILE]\n\nMakes tea.\n.hot\n\nOptions:\n    -i FILE        use this\n                        pot\n";
        assert_eq!(
            from_help(help),
            ".SH SYNOPSIS\n.B dmail tea\n[\\-i FILE]\n.br\n.SH DESCRIPTION\n.PP\nMakes tea.\n\\&.hot\n.PP\n.SH OPTIONS\n\
             .TP\n.B \\-i FILE\nuse this\npot\n"
        );
    }

    #[test]
    fn no_text_is_taken_for_a_request() {
        for page in pages() {
            for line in page.text.lines() {
                let request = line.starts_with(['.', '\'']);
                let known = [".TH ", ".SH ", ".TP", ".B ", ".BR ", ".I ", ".br", ".PP"];
                assert!(!request || known.iter().any(|known| line.starts_with(known)), "{}: {line}", page.name);
            }
        }
    }
}
