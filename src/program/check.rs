//! `dmail check`: judges a configuration, with file, line and column, and touches nothing.
//!
//! Exit code: 0 when a server could run with it (warnings and notes or not), 1 when not, 2 for wrong options.

use std::fmt::Write;
use std::path::Path;

use super::options::{self, DONE, FAILED, USAGE};
use crate::rules::hops::{Reach, To};
use crate::server;
use crate::service::dns::RESOLV_CONF;
use crate::settings::{Level, Rights, Settings, complaint};
use crate::text::printable::visible;

const USAGE_TEXT: &str = "dmail check [-i FILE]

Reads dmail.conf and what it includes, looks whether what it names is there and can be used, and says what is wrong and
what to do. Nothing is changed. Exit code 1: a server could not run with it.";

/// What `-h` prints.
pub fn page() -> String {
    options::page(USAGE_TEXT, options::none)
}

/// Runs the program; gives its exit code.
pub fn run(args: &[String]) -> u8 {
    let (common, matches) = match options::read(args, USAGE_TEXT, options::none) {
        Ok(read) => read,
        Err(code) => return code,
    };
    if let [word, ..] = &matches.free[..] {
        eprintln!("dmail check takes no `{word}`: name a configuration with -i FILE");
        return USAGE;
    }
    let (text, code) = report(&common.config);
    options::print(&text);
    code
}

/// What is printed about the configuration `path`, and the exit code.
pub fn report(path: &Path) -> (String, u8) {
    let (settings, complaints) = server::judged(path, &Rights::OWN);
    let mut text = String::new();
    for complaint in &complaints {
        let _ = writeln!(text, "{complaint}");
    }
    if let Some(settings) = settings {
        let _ = writeln!(text, "{}: `dmail serve` opens {}", path.display(), server::opens(&settings));
        let _ = writeln!(text, "{}: {}", path.display(), sends(&settings));
        let _ = writeln!(text, "{}: {}", path.display(), server::roles(&settings));
    }
    let _ = writeln!(text, "{}: {}", path.display(), complaint::summary(&complaints));
    let failed = complaint::worst(&complaints) == Some(Level::Error);
    (text, if failed { FAILED } else { DONE })
}

/// Where mail for other domains would go, in one line.
fn sends(settings: &Settings) -> String {
    let main = settings.main_domain();
    // A domain that nobody has, so that no line is for it alone.
    let hop = settings.hops.hop(&format!("postmaster@{main}"), "somebody@nobody.invalid");
    let asked = || match &settings.dns_host[..] {
        [] => RESOLV_CONF.to_owned(),
        servers => servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    // The line for all others is no such line.
    let all = settings.route.iter().filter(|route| route.domains.contains(&Reach::All)).count();
    let lines = settings.route.len() + settings.sender_route.len() - all;
    let name = settings.greets_as();
    let towards = match hop.to {
        To::Mx(domain) if &*domain == "nobody.invalid" => {
            format!(
                "is sent to their mail hosts, port {}, by the DNS of {}, as {name}",
                settings.smtp_out_port,
                asked()
            )
        }
        To::Parked => "is parked, and not sent".to_owned(),
        _ => format!("is sent to {}, as {name}", visible(&hop.key)),
    };
    let more = if lines == 0 { "" } else { ", but for what lines of route and sender_route say otherwise" };
    format!("mail for other domains {towards}{more}")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn written(lines: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["work", "drop"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("auth"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(dir.path().join("auth"), fs::Permissions::from_mode(0o700)).unwrap();
        let path = dir.path().join("dmail.conf");
        let text = format!(
            "host_domain example.com\nwork_path work\ndrop_path drop\nauthent_process auth\n{lines}sysadmin ann@example.com\n"
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_good_configuration_is_ok_and_says_who_can_log_in() {
        let (_dir, path) = written("");
        let (text, code) = report(&path);
        assert_eq!(code, DONE, "{text}");
        assert!(text.contains("note: without a certificate only clients on this machine can log in"), "{text}");
        assert!(text.ends_with("dmail.conf: ok, 1 note\n"), "{text}");
    }

    #[test]
    fn the_ports_that_a_server_would_open_are_said() {
        let (_dir, path) = written("bind_address 127.0.0.1\nsmtps_port 4650\nsubmission_port 0\n");
        let (text, _) = report(&path);
        assert!(
            text.contains("dmail.conf: `dmail serve` opens POP3 on 127.0.0.1:110, SMTP on 127.0.0.1:25\n"),
            "{text}"
        );
        let (_dir, path) = written("bind_address 127.0.0.1\npop_port 0\nsmtp_port 0\nsubmission_port 0\n");
        assert!(report(&path).0.contains("dmail.conf: `dmail serve` opens no port\n"));
    }

    #[test]
    fn where_mail_for_others_would_go_is_said() {
        let said = |lines: &str| {
            let (_dir, path) = written(lines);
            let (text, _) = report(&path);
            let line = text.lines().find_map(|line| line.split_once(": mail for other domains ")).unwrap_or_default().1;
            line.to_owned()
        };
        assert_eq!(said(""), "is sent to their mail hosts, port 25, by the DNS of /etc/resolv.conf, as example.com");
        assert_eq!(
            said("dns_host 192.0.2.53\nsmtp_out_port 2525\nsend_name mx.example.com\nroute a.example mx:b.example\n"),
            "is sent to their mail hosts, port 2525, by the DNS of 192.0.2.53:53, as mx.example.com, but for what lines \
             of route and sender_route say otherwise"
        );
        assert_eq!(
            said("gateway relay.example.net:587 tls=required\n"),
            "is sent to relay.example.net:587 tls=required, as example.com"
        );
        assert_eq!(said("route * park\n"), "is parked, and not sent");
        assert_eq!(
            said("route * park\nroute a.example mx\n"),
            "is parked, and not sent, but for what lines of route and sender_route say otherwise"
        );
    }

    #[test]
    fn unknown_names_warn_and_later_ones_are_noted_but_both_pass() {
        let (_dir, path) = written("pop_prot 110\nadmin_port 8080\nallow_dds false\n");
        let (text, code) = report(&path);
        assert_eq!(code, DONE, "{text}");
        assert!(
            text.contains("dmail.conf:5:1: warning: `pop_prot` is not known and ignored: did you mean pop_port?"),
            "{text}"
        );
        assert!(text.contains("dmail.conf:6:1: note: admin_port is known but not used by this version"), "{text}");
        assert!(text.contains("dmail.conf:7:1: note: allow_dds is needed no more: names with"), "{text}");
        assert!(text.ends_with("1 warning, 3 notes\n"), "{text}");
    }

    #[test]
    fn errors_fail_with_their_place() {
        let (_dir, path) = written("pop_port 70000\n");
        let (text, code) = report(&path);
        assert_eq!(code, FAILED);
        assert!(text.contains("dmail.conf:5:10: error: pop_port cannot be `70000`"), "{text}");
        assert!(text.ends_with("dmail.conf: 1 error\n"), "{text}");
        let (text, code) = report(Path::new("/nowhere/dmail.conf"));
        assert_eq!(code, FAILED);
        assert!(text.contains("/nowhere/dmail.conf: error: this file cannot be read"), "{text}");
    }

    #[test]
    fn wrong_options_are_a_usage_error() {
        assert_eq!(run(&["stray".to_owned()]), USAGE);
        assert_eq!(run(&["-x".to_owned()]), USAGE);
    }
}
