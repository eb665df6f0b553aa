//! The model authenticators in `conf/authenticators`, run as a server runs them: over pipes, a line each way.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A model that runs, and its pipes.
struct Model {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Model {
    fn start(name: &str, args: &[&str]) -> Model {
        let mut command = Command::new(path(name));
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Model { child, input, output }
    }

    fn ask(&mut self, request: &str) -> String {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{request}\n").as_bytes()).unwrap();
        input.flush().unwrap();
        self.line()
    }

    fn line(&mut self) -> String {
        let mut reply = String::new();
        self.output.read_line(&mut reply).unwrap();
        assert!(reply.ends_with('\n'), "cut off: {reply:?}");
        reply.trim_end().to_owned()
    }

    /// It says goodbye and ends well.
    fn exits(mut self) {
        assert_eq!(self.ask("exit"), "+OK goodbye");
        assert!(self.child.wait().unwrap().success());
    }

    /// It ends well when the server is gone.
    fn ends_with_its_input(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/authenticators").join(name)
}

const WRONG: &str = "-ERR password wrong or not a valid user";

fn answers_as_any(mut model: Model, users: &Path) {
    for (request, reply) in [
        ("check fred secret 10.0.0.1", "+OK fred config 0"),
        ("check fred secret", "+OK fred config 0"),
        ("check fred wrong 10.0.0.1", WRONG),
        ("check nobody secret 10.0.0.1", WRONG),
        ("check * secret", WRONG),
        ("check fre. secret", WRONG),
        ("lookup ann@x", "+OK ann@x /m/ann 0"),
        ("lookup nobody", "-ERR does not exist"),
        ("check #fred secret", WRONG),
        ("frobnicate $(date) `date`", "-ERR unknown command"),
        ("", "-ERR unknown command"),
    ] {
        assert_eq!(model.ask(request), reply, "{request}");
    }
    assert!(model.ask(&format!("check {} x", "y".repeat(4000))).starts_with("-ERR"));
    fs::rename(users, users.with_extension("away")).unwrap();
    assert!(model.ask("check fred secret").starts_with("-DEAD"));
    fs::rename(users.with_extension("away"), users).unwrap();
    assert_eq!(model.ask("check fred secret"), "+OK fred config 0");
    model.exits();
}

#[test]
fn the_shell_model_answers() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    fs::write(&users, "# name:password:path\n#fred:secret\nfred:secret\nempty:\nann@x:other:/m/ann\n").unwrap();
    let args = [users.to_str().unwrap()];
    let mut model = Model::start("shell.sh", &args);
    assert_eq!(model.ask("check empty"), WRONG);
    model.ends_with_its_input();
    answers_as_any(Model::start("shell.sh", &args), &users);
}

#[test]
fn the_python_model_answers() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    let line = |name: &str, password: &str| {
        let mut model = Model::start("python.py", &["--line", name]);
        let line = model.ask(password);
        assert!(line.starts_with(&format!("{name}:")), "{line}");
        line
    };
    let text =
        format!("# users\n#{}\n{}\n{}:/m/ann\n", line("fred", "secret"), line("fred", "secret"), line("ann@x", "y"));
    fs::write(&users, text).unwrap();
    let args = [users.to_str().unwrap()];
    Model::start("python.py", &args).ends_with_its_input();
    answers_as_any(Model::start("python.py", &args), &users);
}

#[test]
fn the_laboratory_is_refused_in_working_hours_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    fs::write(&users, "fred:secret\n").unwrap();
    let shell = path("shell.sh");
    let start = |clock: &str| {
        let rule = ["--from", "10.4.0.0/16", "--from", "2001:db8::/32", "--closed", "mon-fri", "09:00-17:00"];
        let behind = ["--clock", clock, "--", shell.to_str().unwrap(), users.to_str().unwrap()];
        Model::start("office-hours.py", &[&rule[..], &behind[..]].concat())
    };
    let good = "+OK fred config 0";
    let refused = "-ERR no mail from here in working hours";
    for (clock, address, reply) in [
        ("tue 14:00", "10.4.1.2", refused),
        ("tue 14:00", "::ffff:10.4.1.2", refused),
        ("fri 09:00", "2001:db8::7", refused),
        ("tue 14:00", "10.5.1.2", good),
        ("tue 17:00", "10.4.1.2", good),
        ("tue 08:59", "10.4.1.2", good),
        ("sat 14:00", "10.4.1.2", good),
        ("tue 14:00", "", good),
        ("tue 14:00", "nonsense", good),
    ] {
        let mut model = start(clock);
        assert_eq!(model.ask(&format!("check fred secret {address}")), reply, "{clock} {address}");
        assert_eq!(model.ask("lookup fred"), good);
        model.exits();
    }
    let mut model = start("mon 10:00");
    for request in ["scram fred 10.4.1.2", "apop fred <1@x> 00 10.4.1.2", "CHECK fred secret 10.4.1.2"] {
        assert_eq!(model.ask(request), refused, "{request}: there is no way around");
    }
    assert_eq!(model.ask("scram fred 10.5.1.2"), "-ERR unknown command");
    assert_eq!(model.ask("check fred wrong 10.4.1.2"), refused, "the password is not looked at");
    assert_eq!(model.ask("check fred wrong 10.5.1.2"), WRONG);
    model.ends_with_its_input();
}

#[test]
fn when_the_one_behind_dies_the_asker_is_told_and_the_next_one_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("died");
    let script = r#"read -r line
        if [ ! -e "$0" ]; then : >"$0"; exit 3; fi
        printf '+DATA ann\n+DATA bob\n+OK\n'
        read -r line
        echo "+OK fred config 0""#;
    let rule = ["--from", "10.4.0.0/16", "--closed", "mon", "22:00-06:00", "--clock", "tue 05:00", "--"];
    let behind = ["sh", "-c", script, mark.to_str().unwrap()];
    let mut model = Model::start("office-hours.py", &[&rule[..], &behind[..]].concat());
    assert_eq!(model.ask("check fred x 10.4.0.1"), "-ERR no mail from here in working hours", "Monday's night");
    assert!(model.ask("lookup fred").starts_with("-DEAD"));
    assert_eq!(model.ask("search *"), "+DATA ann");
    assert_eq!((model.line(), model.line()), ("+DATA bob".to_owned(), "+OK".to_owned()));
    assert_eq!(model.ask("lookup fred"), "+OK fred config 0");
    assert!(model.ask("lookup fred").starts_with("-DEAD"));
    model.ends_with_its_input();

    let mut missing = Model::start("office-hours.py", &[&rule[..], &["/nonexistent/authenticator"]].concat());
    assert!(missing.ask("lookup fred").starts_with("-DEAD"));
    missing.ends_with_its_input();
}

#[test]
fn every_model_says_how_it_gets_into_dmail_conf_and_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut seen = 0;
    for entry in fs::read_dir(path("")).unwrap() {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        assert!(text.contains("authent_process "), "{:?}", entry.path());
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o111, 0o111, "{:?}", entry.path());
        seen += 1;
    }
    assert_eq!(seen, 3);
}

/// The programs in the manual's page, put together as it says.
#[test]
fn the_ones_in_the_manual_answer_and_prove() {
    use dmail::protocol::sasl::scram::Verifier;
    use dmail::text::secret::Secret;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dpop-authenticators.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> = page.split("```python\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    let [whole, more] = blocks[..] else { panic!("{} programs", blocks.len()) };
    assert!(whole.lines().count() <= 22, "about twenty lines");
    let added = format!(
        "{more}\nsimple = answer\ndef answer(command='', *rest):\n    if command == 'version':\n        return '+OK version 2 \
         scram apop'\n    if command == 'scram':\n        return scram(rest[0])\n    if command == 'apop':\n        return \
         apop(*rest[:3])\n    return simple(command, *rest)\n\nfor line in"
    );
    let dir = tempfile::tempdir().unwrap();
    for (program, proves) in [(whole.to_owned(), false), (whole.replacen("for line in", &added, 1), true)] {
        let path = dir.path().join("authenticator.py");
        fs::write(&path, program).unwrap();
        let mut child =
            Command::new("python3").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut model = Model { child, input, output };
        assert!(model.ask("version").starts_with("+OK version 2"));
        for (request, reply) in [
            ("check fred secret 10.0.0.1", "+OK fred config 0"),
            ("check ann two%20words", "+OK ann config 0"),
            ("check ann two words", WRONG),
            ("check nobody x", WRONG),
            ("check nobody", WRONG),
            ("lookup fred", "+OK fred config 0"),
            ("lookup nobody", "-ERR does not exist"),
            ("", "-ERR unknown command"),
        ] {
            assert_eq!(model.ask(request), reply, "{request}");
        }
        if proves {
            for (user, password, fits) in [("fred", "secret", true), ("ann", "two words", true), ("nobody", "", false)]
            {
                let reply = model.ask(&format!("scram {user} 10.0.0.1"));
                assert_eq!(model.ask(&format!("scram {user} 10.0.0.1")), reply, "the same each time");
                let word = reply.strip_prefix(&format!("+OK {user} config 0 scram%3D")).unwrap();
                let word = word.replace("%2C", ",").replace("%3D", "=").replace("%2B", "+").replace("%2F", "/");
                let verifier = Verifier::parse(word.as_bytes()).unwrap();
                let made = Verifier::of(&Secret::from(password.as_bytes()), verifier.salt(), verifier.iterations());
                assert_eq!(verifier == made, fits, "{user}");
            }
            let digest = "37257aa37904a2ac86c6572e6528a18c";
            assert_eq!(model.ask(&format!("apop fred <1@x> {digest} ::1")), "+OK fred config 0");
            assert_eq!(model.ask(&format!("apop nobody <1@x> {digest} ::1")), WRONG);
            assert_eq!(model.ask("apop fred <1@x> 00 ::1"), WRONG);
        }
        model.exits();
    }
}

/// What the manual's page shows of `nwauth` is what it says. A row that ends with dots is compared up to its verifier.
#[test]
fn the_sessions_in_the_manual_come_out() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dpop-authenticators.md");
    let page = fs::read_to_string(page).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dmail"));
    command.args(["nwauth", "-path"]).arg(dir.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
    let mut model = Model { child, input, output };
    let blocks = page.split("```\n").filter(|block| block.contains(" +OK fred ") || block.contains(" +OK version 2 "));
    let rows: Vec<&str> = blocks.flat_map(str::lines).collect();
    let mut compared = 0;
    let mut request = "";
    for row in rows.iter().filter(|row| !row.starts_with("exit")) {
        let (left, reply) = if row.len() > 46 && row.is_char_boundary(46) { row.split_at(46) } else { (*row, "") };
        if !left.trim().is_empty() {
            request = row.get(..row.len().min(46)).unwrap_or(row).trim();
            if reply.is_empty() || !reply.starts_with(['+', '-']) {
                request = row.trim();
            }
        }
        if !reply.starts_with(['+', '-']) {
            continue;
        }
        let said = if request.is_empty() { model.line() } else { model.ask(request) };
        request = "";
        match reply.split_once("scram=") {
            Some((before, _)) if reply.ends_with("...") => assert!(said.starts_with(before), "{row}: {said}"),
            _ => assert_eq!(said, reply.trim_end(), "{row}"),
        }
        compared += 1;
    }
    assert!(compared >= 15, "only {compared} rows");
    model.exits();
}
