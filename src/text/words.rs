//! One line into words, of dmail.conf or of a command: blanks part them, quotes keep them together, a blank and `#` end it.
//!
//! The table of examples in the tests below is the definition. There are two manners, by what the setting holds:
//!
//! * [`Manner::Plain`]: `"..."` keeps blanks and `#`; inside, `\"` and `\\` stand for `"` and `\`. Nothing else is special, so
//!   `O'Brien` and `c:\mail` are what they look like.
//! * [`Manner::Shell`]: a command line, split as a shell would, without a shell: also `'...'` quotes, and `\` outside quotes
//!   takes the next character as it is. Nothing is expanded and nothing is piped; what a shell would act on is refused unless
//!   it is quoted, for nobody writes it without expecting the shell.

/// A word and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// What it says, quotes taken off.
    pub text: String,
    /// Where it begins: the first character of the line is column 1.
    pub column: usize,
}

/// How a value is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Words and double quotes.
    Plain,
    /// As on a command line.
    Shell,
}

/// Something is wrong at a column of the line at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Where: the first character of the line is column 1.
    pub column: usize,
    /// What, and what to do instead.
    pub text: String,
}

impl Trouble {
    /// Trouble at `column`.
    pub fn at(column: usize, text: impl Into<String>) -> Trouble {
        Trouble { column, text: text.into() }
    }
}

/// What a shell would act on.
const SHELL_ACTS_ON: &str = "|&;<>$`()";

/// The words of `line` from `column` (1-based) on, up to a comment; refuses an open quote.
pub fn words(line: &str, column: usize, manner: Manner) -> Result<Vec<Word>, Trouble> {
    let mut words = Vec::new();
    let mut chars = line.chars().zip(1..).skip(column - 1).peekable();
    loop {
        while chars.next_if(|&(c, _)| is_blank(c)).is_some() {}
        let Some(&(first, column)) = chars.peek() else { break };
        if first == '#' {
            break;
        }
        let mut text = String::new();
        while let Some((c, at)) = chars.next_if(|&(c, _)| !is_blank(c)) {
            match c {
                '"' => loop {
                    match chars.next() {
                        None => return Err(Trouble::at(at, "a \" without its partner: close it on the same line")),
                        Some(('"', _)) => break,
                        Some(('\\', _)) => {
                            let escaped = chars.next_if(|&(c, _)| {
                                c == '"' || c == '\\' || manner == Manner::Shell && (c == '$' || c == '`')
                            });
                            text.push(escaped.map_or('\\', |(c, _)| c));
                        }
                        Some((c, _)) => text.push(c),
                    }
                },
                '\'' if manner == Manner::Shell => loop {
                    match chars.next() {
                        None => return Err(Trouble::at(at, "a ' without its partner: close it on the same line")),
                        Some(('\'', _)) => break,
                        Some((c, _)) => text.push(c),
                    }
                },
                '\\' if manner == Manner::Shell => match chars.next() {
                    None => return Err(Trouble::at(at, "a \\ at the end of the line: a value cannot be continued")),
                    Some((c, _)) => text.push(c),
                },
                c if manner == Manner::Shell && SHELL_ACTS_ON.contains(c) => {
                    let text =
                        format!("`{c}` is nothing special here, for there is no shell: quote it, or call a script");
                    return Err(Trouble::at(at, text));
                }
                c => text.push(c),
            }
        }
        words.push(Word { text, column });
    }
    Ok(words)
}

/// What parts words.
pub fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// `text` as one word of a line, in either manner: `words(quote(x))` is `x`.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:@,=+*?!%^[]{}".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        if c == '"' || c == '\\' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Words = Option<&'static [&'static str]>;

    /// Line, its words in the plain manner, its words as a command; `None` = refused.
    const TABLE: &[(&str, Words, Words)] = &[
        ("a", Some(&["a"]), Some(&["a"])),
        ("", Some(&[]), Some(&[])),
        ("  a \t b  ", Some(&["a", "b"]), Some(&["a", "b"])),
        // A blank and # end the value; without the blank, # is a character.
        ("5  # five", Some(&["5"]), Some(&["5"])),
        ("5# five", Some(&["5#", "five"]), Some(&["5#", "five"])),
        ("# nothing", Some(&[]), Some(&[])),
        ("a\t#b", Some(&["a"]), Some(&["a"])),
        // Quotes keep blanks and #, and join what they touch.
        (r#""a b" c"#, Some(&["a b", "c"]), Some(&["a b", "c"])),
        (r##""a # b""##, Some(&["a # b"]), Some(&["a # b"])),
        (r#"a" "b"#, Some(&["a b"]), Some(&["a b"])),
        (r#""""#, Some(&[""]), Some(&[""])),
        (r#""a"#, None, None),
        (r#"a""#, None, None),
        // A backslash in double quotes.
        (r#""a\"b\\c\d""#, Some(&[r#"a"b\c\d"#]), Some(&[r#"a"b\c\d"#])),
        (r#""\$x""#, Some(&[r"\$x"]), Some(&["$x"])),
        // A backslash outside quotes.
        (r"c:\mail\drop", Some(&[r"c:\mail\drop"]), Some(&["c:maildrop"])),
        (r"a\ b", Some(&[r"a\", "b"]), Some(&["a b"])),
        (r"a \# b", Some(&["a", r"\#", "b"]), Some(&["a", "#", "b"])),
        (r"a\", Some(&[r"a\"]), None),
        // Single quotes.
        ("O'Brien", Some(&["O'Brien"]), None),
        ("'a b' c", Some(&["'a", "b'", "c"]), Some(&["a b", "c"])),
        (r#"'a"b\'"#, None, Some(&[r#"a"b\"#])),
        (r"-x='a b'", Some(&["-x='a", "b'"]), Some(&["-x=a b"])),
        // What a shell would act on.
        ("a | b", Some(&["a", "|", "b"]), None),
        ("a '|' b", Some(&["a", "'|'", "b"]), Some(&["a", "|", "b"])),
        ("a $HOME", Some(&["a", "$HOME"]), None),
        (r#"a "$HOME" *"#, Some(&["a", "$HOME", "*"]), Some(&["a", "$HOME", "*"])),
        ("a > b", Some(&["a", ">", "b"]), None),
        ("a; b", Some(&["a;", "b"]), None),
    ];

    fn texts(line: &str, manner: Manner) -> Option<Vec<String>> {
        words(line, 1, manner).ok().map(|words| words.into_iter().map(|word| word.text).collect())
    }

    #[test]
    fn lines_are_split_as_the_table_says() {
        let owned =
            |words: &Option<&[&str]>| words.map(|words| words.iter().map(|w| w.to_string()).collect::<Vec<_>>());
        for (line, plain, shell) in TABLE {
            assert_eq!(texts(line, Manner::Plain), owned(plain), "plain: {line}");
            assert_eq!(texts(line, Manner::Shell), owned(shell), "shell: {line}");
        }
    }

    #[test]
    fn columns_count_characters_from_one() {
        let columns = |line| words(line, 1, Manner::Plain).unwrap().iter().map(|w| w.column).collect::<Vec<_>>();
        assert_eq!(columns("a bb  c"), [1, 3, 7]);
        assert_eq!(columns("é \"ü\" c"), [1, 3, 7]);
        assert_eq!(words("aaa \"b", 1, Manner::Plain).unwrap_err().column, 5);
        assert_eq!(words("name value", 5, Manner::Plain).unwrap()[0].column, 6);
    }

    proptest! {
        #[test]
        fn a_quoted_text_is_one_word_again(text in "\\PC{0,12}") {
            for manner in [Manner::Plain, Manner::Shell] {
                prop_assert_eq!(texts(&quote(&text), manner), Some(vec![text.clone()]));
            }
        }
    }
}
