use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::kind::{Kind, Value};
use super::rows::{GONE, LATER};
use super::*;
use crate::rules::route::Target;
use crate::text::words::{quote, words};

const CONF: &str = "/conf/dmail.conf";
/// The compulsory settings, in lines 1 to 4.
const NEEDED: &str = "host_domain example.com\nwork_path /w\ndrop_path /d\nauthent_process /a\n";

fn read(text: &str) -> Loaded {
    parse::load_text(Path::new(CONF), text.as_bytes())
}

/// The settings of the compulsory lines and `more`, which begins in line 5.
fn good(more: &str) -> Settings {
    let loaded = read(&format!("{NEEDED}{more}"));
    loaded.settings.unwrap_or_else(|| panic!("{more}: {:?}", loaded.complaints))
}

/// The complaints about the compulsory lines and `more`, as printed, without the file.
fn said(more: &str) -> Vec<String> {
    let loaded = read(&format!("{NEEDED}{more}"));
    loaded.complaints.iter().map(|c| c.to_string().trim_start_matches(CONF).to_owned()).collect()
}

/// The only complaint there is.
fn only(more: &str) -> String {
    let said = said(more);
    assert_eq!(said.len(), 1, "{more}: {said:?}");
    said.into_iter().next().unwrap()
}

fn value_of(row: &Row, text: &str) -> Result<Settings, String> {
    let mut settings = parse::blank(CONF.into(), Path::new(CONF).into());
    let words = words(text, 1, row.kind.manner()).map_err(|trouble| trouble.text)?;
    let value = Value { name: row.name, kind: &row.kind, column: 1, words: &words, base: Path::new("/conf") };
    (row.set)(&mut settings, &value).map_err(|trouble| trouble.text)?;
    Ok(settings)
}

#[test]
fn every_row_is_complete_and_its_default_shows_back_to_itself() {
    let mut names: Vec<&str> = rows::names().collect();
    for row in ROWS {
        assert!(!row.why.is_empty() && row.why.ends_with('.'), "{}", row.name);
        assert!(!row.required || !row.example.is_empty(), "{} needs an example", row.name);
        assert!(!row.example.is_empty() || !row.default.is_empty(), "{} has nothing to show in the sample", row.name);
        assert!(row.follows.is_none_or(|other| rows::find(other).is_some() && row.default.is_empty()), "{}", row.name);
        let optional = !row.required && row.follows.is_none();
        assert!(optional || row.default.is_empty(), "{} needs no default", row.name);
        for text in [row.default, row.example] {
            if !text.is_empty() {
                let settings = value_of(row, text).unwrap_or_else(|why| panic!("{} {text}: {why}", row.name));
                let shown = (row.show)(&settings);
                if text == row.default {
                    assert_eq!(shown, [text], "{}", row.name);
                }
                // What is shown reads as the same again.
                let again: String = shown.iter().map(|line| format!("{} {line}\n", row.name)).collect();
                let again = read(&again).complaints;
                assert!(again.iter().all(|c| c.text.contains("is missing")), "{}: {again:?}", row.name);
            }
        }
        // Unset shows nothing, or what an empty list is called; and never panics.
        let _ = (row.show)(&parse::blank(CONF.into(), Path::new(CONF).into()));
    }
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "a name stands in two tables");
    assert!(LATER.iter().chain(GONE).all(|unused| !unused.why.is_empty()));
}

#[test]
fn numbers_fit_their_fields_to_the_bound_and_are_refused_beyond_it() {
    let mut numbers = 0;
    for row in ROWS {
        let Kind::Number { min, max, .. } = row.kind else { continue };
        numbers += 1;
        for value in [min, max] {
            assert_eq!((row.show)(&value_of(row, &value.to_string()).unwrap()), [value.to_string()], "{}", row.name);
        }
        let mut bad = vec![(max + 1).to_string(), "x".to_owned(), "-1".to_owned(), "1.5".to_owned(), "9".repeat(40)];
        bad.extend(min.checked_sub(1).map(|less| less.to_string()));
        for text in bad {
            let why = value_of(row, &text).map(|_| ()).unwrap_err();
            assert!(why.contains(&format!("from {min} to {max}")), "{} {text}: {why}", row.name);
        }
    }
    assert!(numbers > 10);
}

#[test]
fn the_defaults_are_what_the_manual_says() {
    let settings = good("");
    assert_eq!(settings.main_domain(), "example.com");
    assert_eq!(settings.authent_number, 2);
    assert_eq!(settings.authent_timeout, 10);
    assert_eq!(settings.authent_cache, 1000);
    assert_eq!(settings.authent_cache_hours, 12);
    assert!(!settings.authent_domain && !settings.auth_nocache && !settings.hide_version && !settings.apop_enable);
    assert_eq!(settings.log_level, LogLevel::Info);
    assert_eq!(settings.log_path, Path::new("/w"));
    assert_eq!((settings.log_max_size, settings.stats_path), (10_000, None));
    assert_eq!(settings.drop_root, [Path::new("/d")]);
    assert_eq!(settings.lock_method, [LockMethod::Dotlock, LockMethod::Fcntl]);
    assert_eq!(settings.plain_auth, PlainAuth::Local);
    assert!(settings.plain_networks.is_empty());
    assert_eq!((settings.pop_port, settings.pops_port), (110, 995));
    assert_eq!(
        (settings.smtp_port, settings.submission_port, settings.smtps_port, settings.lmtp_port),
        (25, 587, 465, 0)
    );
    assert_eq!((settings.smtp_max_size, settings.max_rcpts, settings.smtp_max_hops), (51_200, 1_000, 100));
    assert_eq!(
        (settings.smtp_header_lines, settings.smtp_header_kbytes, settings.smtp_line_bytes),
        (10_000, 1_024, 65_536)
    );
    assert_eq!((settings.bare_newline, settings.hide_auth), (BareNewline::Normalize, HideAuth::Nobody));
    assert_eq!((settings.smtp_greeting_hold_secs, settings.smtp_greeting_secs), (0, 300));
    assert_eq!((settings.smtp_command_secs, settings.smtp_data_secs, settings.smtp_max_errors), (300, 180, 20));
    assert_eq!(settings.bind_address, ["::".parse::<IpAddr>().unwrap(), "0.0.0.0".parse().unwrap()]);
    assert_eq!((settings.bin_path, settings.hash_spool), (None, 0));
    assert_eq!(settings.bin_pfull.to_string(), "0.5");
    assert_eq!((settings.hash_bindir, settings.min_space), (false, 0));
    assert_eq!((settings.pop3_idle_secs, settings.pop3_login_secs), (600, 180));
    assert_eq!((settings.max_connections, settings.max_errors, settings.min_uid), (0, 10, 100));
    assert_eq!((settings.bulletin_path, settings.bulletin_from.as_str()), (None, "Email System Administrator"));
    assert!(!settings.hide_old_bulls && !settings.add_status);
}

#[test]
fn users_of_the_system_need_no_authenticator_of_the_site() {
    let needed = NEEDED.replace("authent_process /a\n", "");
    let settings = read(&format!("{needed}authent_method Unix_User\nrun_as dmail\n")).settings.unwrap();
    assert_eq!((settings.authent_method, settings.run_as.as_deref()), (Method::UnixUser, Some("dmail")));
    let complaints = read(&format!("{needed}authent_method External\n")).complaints;
    assert!(complaints.iter().any(|complaint| complaint.text.starts_with("authent_process is missing")));
}

#[test]
fn access_is_open_by_default_and_its_lists_are_read() {
    let settings = good("");
    assert!(settings.valid_users.matches("anybody") && settings.user_ip_name.matches(""));
    assert!(settings.user_ip_address.contains("192.0.2.1".parse().unwrap()));
    assert!(!settings.drop_must_exist && !settings.lookup_names);
    assert_eq!((settings.max_per_user, settings.login_delay_secs, settings.expire_days), (0, 0, None));
    assert_eq!((settings.max_per_prefix, settings.prefix_bits_v4, settings.prefix_bits_v6), (0, 32, 64));
    assert_eq!(settings.penalty_max_secs, 15);
    let trusted = |text: &str| settings.trusted_networks.contains(text.parse().unwrap());
    assert!(trusted("127.0.0.1") && trusted("::1") && !trusted("127.0.0.2"));
    let settings = good(
        "valid_users a*, !abe\nuser_ip_address 10.0.0.0/8,!10.0.0.1\nuser_ip_name *.example\nlookup_names true\n\
         expire_days 30\ndrop_must_exist true\n",
    );
    assert!(settings.valid_users.matches("ann") && !settings.valid_users.matches("abe"));
    assert!(!settings.user_ip_address.contains("10.0.0.1".parse().unwrap()));
    assert!(settings.user_ip_name.matches("pc.example") && !settings.user_ip_name.matches(""));
    assert!(settings.lookup_names && settings.drop_must_exist);
    assert_eq!(settings.expire_days, Some(30));
    assert_eq!(good("expire_days NEVER").expire_days, None);
    for (line, says) in [
        ("expire_days 4000", "DAYS is a number from 0 to 3650"),
        ("expire_days sometimes", "DAYS is a number from 0 to 3650"),
        ("valid_users !ann", "only excludes"),
        ("user_ip_name", "says nothing"),
        ("user_ip_name *.example", "user_ip_name needs the names of hosts"),
    ] {
        let said = only(line);
        assert!(said.contains(says), "{line}: {said}");
    }
}

#[test]
fn an_entry_of_a_list_that_came_in_quotes_is_shown_so_that_it_is_one_entry_again() {
    for (line, shown) in [
        (r#"valid_users "a é"#, None),
        (r#"valid_users "a é""#, Some(r#""a é""#)),
        (r#"valid_users "a "é"#, Some(r#""a é""#)),
        (r#"valid_users "a é", b "#, Some(r#""a é,b""#)),
        (r##"valid_users "#a""##, Some(r##""#a""##)),
        (r#"valid_users "\"a",b"#, Some(r#""\"a,b""#)),
        (r"valid_users a\,b", Some(r"a\,b")),
        ("valid_users a é", Some("a,é")),
        (r#"ban_mailfrom "\"a b\"@x.example" <>"#, Some(r#""\"a b\"@x.example,<>""#)),
        ("user_ip_address \"10.0.0.1 - 10.0.0.9\"", Some("10.0.0.1-10.0.0.9")),
    ] {
        let name = line.split(' ').next().unwrap();
        let show = |settings: &Settings| (rows::find(name).unwrap().show)(settings);
        let settings = read(&format!("{NEEDED}{line}\n")).settings;
        assert_eq!(settings.as_ref().map(show), shown.map(|shown| vec![shown.to_owned()]), "{line}");
        if let (Some(settings), Some(shown)) = (settings, shown) {
            assert_eq!(diff(&settings, &good(&format!("{name} {shown}\n"))), [], "{line}");
        }
    }
}

#[test]
fn nobody_relays_by_default_but_this_machine_and_lists_may_have_several_lines() {
    let settings = good("");
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    for home in ["127.0.0.1", "127.0.0.2", "::1"] {
        assert!(settings.forward_from_ip.contains(address(home)) && settings.fromip_nolimit.contains(address(home)));
    }
    assert!(!settings.forward_from_ip.contains(address("192.0.2.1")));
    assert!(settings.relay_to.is_empty() && settings.forward_user.is_empty() && settings.forward_from.is_empty());
    assert!(settings.ban_ip.is_empty() && settings.ban_mailfrom.is_empty() && settings.ban_rcptto.is_empty());
    assert!(settings.sender_must_match && settings.sends_over == SendsOver::Refuse);
    assert_eq!((settings.sends_per_hour, settings.sends_per_day, settings.fromip_max), (500, 2_000, 0));
    assert_eq!(settings.forward_user_minutes, 30);
    let settings = good(
        "ban_mailfrom *@a.example\n\nban_mailfrom b.example,<>\nforward_from_ip 10.0.0.0/8 # home\nforward_from_ip 127.0.0.1\n\
         sends_over Hold\n",
    );
    assert_eq!(settings.sends_over, SendsOver::Hold);
    assert!(!settings.forward_from_ip.contains(address("::1")), "the default is replaced");
    let hit = settings.ban_mailfrom.decides(|entry| entry == "b.example").unwrap();
    assert_eq!((hit.part, settings.place_of("ban_mailfrom", hit.part).line), (1, 7), "an entry has its line");
    assert_eq!((rows::find("ban_mailfrom").unwrap().show)(&settings), ["*@a.example,b.example,<>"]);
}

#[test]
fn mail_goes_out_by_default_as_the_standard_wants_it() {
    let settings = good("");
    assert_eq!((settings.smtp_out_port, settings.greets_as(), &settings.gateway), (25, "example.com", &None));
    assert_eq!((settings.send_connections, settings.send_connections_max, settings.send_connect_secs), (10, 100, 30));
    assert_eq!((settings.send_greeting_secs, settings.send_command_secs, settings.send_mail_secs), (300, 300, 300));
    assert_eq!((settings.send_rcpt_secs, settings.send_data_secs, settings.send_block_secs), (300, 120, 180));
    assert_eq!((settings.send_dot_secs, settings.send_quit_secs, settings.send_idle_secs), (600, 10, 2));
    assert_eq!((settings.send_session_secs, settings.dns_timeout, settings.dns_host.len()), (3600, 5, 0));
    assert_eq!(settings.retry_schedule.to_string(), "300,600,1200,2400,4800,9600,14400");
    assert_eq!(settings.retry_schedule, Schedule::default());
    let rules = settings.retry_rules();
    assert_eq!((rules.life_secs, rules.bounce_life_secs, rules.possibly_secs), (432_000, 86_400, 14_400));
    assert_eq!((settings.delay_warning, settings.success_reports, settings.bounce_max_size), (14_400, true, 1_024));
    assert!(settings.merge_repeats && settings.etrn_from_ip.is_empty());
    for there in ["192.0.2.1", "2001:db8::1"] {
        assert_eq!(settings.sends_from(there.parse().unwrap()), None);
    }
    assert_eq!(&*settings.hops.hop("", "x@far.example").key, "mx far.example");
    let settings = good("send_address 192.0.2.7\nsend_name Mail.Example.com\n");
    assert_eq!(settings.sends_from("198.51.100.1".parse().unwrap()), Some("192.0.2.7".parse().unwrap()));
    assert_eq!(settings.sends_from("2001:db8::1".parse().unwrap()), None);
    assert_eq!(settings.greets_as(), "mail.example.com");
    assert_eq!(good("host_domain example.org\n").greets_as(), "example.com");
}

#[test]
fn routes_and_servers_are_read_and_shown_as_they_are_written() {
    let text = "gateway relay.example.net,[192.0.2.9]:26 tls=verified login=\"my login\"\nsmtp_out_port 2525\nsend_connections 3\n\
                route Partner.example,*.Partner.example mx tls=required connections=2\nroute * lmtp:/run/x\n\
                sender_route *@news.example,!root@news.example,<> park\n\
                dns_host 192.0.2.53,[2001:db8::53]:5353 2001:db8::53\ndns_host [::1]\n";
    let settings = good(text);
    let shown = |name: &str| (rows::find(name).unwrap().show)(&settings);
    assert_eq!(shown("gateway"), ["relay.example.net,[192.0.2.9]:26 tls=verified \"login=/conf/my login\""]);
    assert_eq!(shown("route"), ["partner.example,*.partner.example mx tls=required connections=2", "* lmtp:/run/x"]);
    assert_eq!(shown("sender_route"), ["\"*@news.example,!root@news.example,<>\" park"]);
    assert_eq!(shown("dns_host"), ["192.0.2.53", "[2001:db8::53]:5353", "2001:db8::53", "::1"]);
    let servers: Vec<String> = settings.dns_host.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.53:53", "[2001:db8::53]:5353", "[2001:db8::53]:53", "[::1]:53"]);
    assert_eq!(
        &*settings.hops.hop("a@b.example", "x@a.partner.example").key,
        "mx a.partner.example tls=required connections=2"
    );
    assert_eq!(&*settings.hops.hop("a@news.example", "x@far.example").key, "park far.example");
    assert_eq!(&*settings.hops.hop("a@b.example", "x@far.example").key, "lmtp /run/x");
    assert_eq!(settings.login_files().collect::<Vec<_>>(), [Path::new("/conf/my login")]);
    // The port and the number of connections come from their settings.
    let settings = good("gateway relay.example.net\nsmtp_out_port 2525\nsend_connections 3\n");
    let hop = settings.hops.hop("a@b.example", "x@far.example");
    assert_eq!((&*hop.key, hop.connections), ("relay.example.net:2525", 3));
}

#[test]
fn what_is_wrong_with_where_mail_goes_is_said_at_its_word() {
    for (line, says) in [
        ("gateway", ":5:8: error: gateway says nothing: write `gateway TARGET [OPTION ...]`"),
        (
            "gateway relay tls=perhaps",
            ":5:15: error: gateway cannot be `tls=perhaps`: tls is never, offered, required or verified",
        ),
        (
            "gateway [127.0.0.1]:26",
            ":5:9: error: gateway cannot be `[127.0.0.1]:26`: that is this machine: add `inside`",
        ),
        ("route a.example", ":5:6: error: route says nothing: write `route DOMAINS TARGET [OPTION ...]`"),
        ("route a.example,*b relay", ":5:7: error: route cannot be `a.example,*b`: `*b`: a star stands alone"),
        ("route * relay wrapped inside x", ":5:30: error: route cannot be `x`: the options are"),
        ("sender_route !a park", ":5:14: error: sender_route cannot be `!a`: `!a` only excludes"),
        ("dns_host ns.example", ":5:10: error: dns_host cannot be `ns.example`: it takes addresses"),
        ("dns_host 192.0.2.53:0", ":5:10: error: dns_host cannot be `192.0.2.53:0`: it takes addresses"),
        (
            "dns_host 192.0.2.53,192.0.2.53:53",
            ":5:10: error: dns_host cannot be `192.0.2.53,192.0.2.53:53`: it is named twice",
        ),
        (
            "send_name [192.0.2.1]",
            ":5:11: error: send_name cannot be `[192.0.2.1]`: `[192.0.2.1]` is no name of a host",
        ),
        ("send_name mail", ":5:1: warning: send_name: mail is no whole name"),
        ("send_address 192.0.2.1,192.0.2.2", ":5:1: error: send_address takes one address of IPv4 and one of IPv6"),
        ("send_connections 200", ":5:1: warning: send_connections is 200, and all destinations together have 100"),
        (
            "gateway relay:587 login=/x",
            ":5:1: warning: gateway: a password is never said in clear, so without tls=required or wrapped",
        ),
        (
            "send_name mx.example.com\nroute * mx.example.com",
            ":6:1: warning: route: mx.example.com, port 25, is this server itself",
        ),
        (
            "sender_route * [127.0.0.1]:587 inside",
            ":5:1: warning: sender_route: 127.0.0.1, port 587, is this server itself",
        ),
        ("gateway localhost inside", ":5:1: warning: gateway: localhost, port 25, is this server itself"),
        ("route Example.com relay", ":5:1: warning: route: example.com is a domain of ours"),
        (
            "route a.example relay\nroute b.example,A.example park",
            ":6:1: warning: route: a.example has a route already (in line 5)",
        ),
        ("smtp_out_port 0", ":5:15: error: smtp_out_port cannot be `0`: PORT is a number from 1 to 65535"),
    ] {
        let said = only(line);
        assert!(said.starts_with(says), "{line}:\n{said}");
    }
    for line in [
        "gateway relay tls=required login=/x",
        "gateway relay wrapped login=/x",
        "gateway mx tls=verified",
        "bind_address 192.0.2.1\ngateway [127.0.0.1] inside",
        "route * [127.0.0.1]:2525 inside",
        "send_address 192.0.2.1,2001:db8::1",
    ] {
        assert_eq!(said(line), [""; 0], "{line}");
    }
}

#[test]
fn logins_are_read_from_their_files_and_never_shown() {
    let folder = Folder::new();
    let path = folder.path("dmail.conf");
    let read = |more: &str| {
        let loaded = parse::load_text(&path, format!("{NEEDED}{more}").as_bytes());
        let mut settings = loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.complaints));
        let root = folder.0.path().to_str().unwrap();
        let said = settings.read_logins(&crate::sys::files::open_to_read);
        (settings, said.iter().map(|said| said.to_string().replace(root, "")).collect::<Vec<_>>())
    };
    let gateway = "gateway relay wrapped login=secret\n";
    for (text, user, password) in [
        ("ann opensesame\n", "ann", "opensesame"),
        ("# relay\n\n  ann@x.example \t open \"#sesame\" \r\n", "ann@x.example", "open \"#sesame\""),
        ("ünn pässword", "ünn", "pässword"),
    ] {
        folder.write("secret", text);
        folder.mode("secret", 0o600);
        let (settings, said) = read(gateway);
        assert_eq!(said, [""; 0], "{text}");
        let hop = settings.hops.hop("a@b.example", "x@far.example");
        let login = &settings.logins[hop.login.as_ref().unwrap()];
        assert_eq!((&login.user[..], login.password.reveal()), (user.as_bytes(), password.as_bytes()), "{text}");
        assert!(!format!("{settings:?}").contains(password), "{text}");
        let all: String = ROWS.iter().flat_map(|row| (row.show)(&settings)).collect();
        assert!(!all.contains(password), "{text}");
    }
    for (text, says) in [
        ("", "holds no login"),
        ("ann\n", "holds no login"),
        ("ann x\nbob y\n", "holds no login"),
        ("ann a\0b\n", "has a NUL in it"),
        (&"x".repeat(5000), "has more than 4096 bytes"),
    ] {
        folder.write("secret", text);
        folder.mode("secret", 0o600);
        let (settings, said) = read(&format!("{gateway}route a.example relay wrapped login=secret\n"));
        assert!(settings.logins.is_empty());
        assert_eq!(said.len(), 1, "each file once: {said:?}");
        assert!(
            said[0].starts_with("/dmail.conf:6:1: error: route: the login /secret ") && said[0].contains(says),
            "{said:?}"
        );
    }
    folder.write("secret", "ann opensesame\n");
    folder.mode("secret", 0o644);
    let (settings, said) = read(gateway);
    assert_eq!(said, ["/dmail.conf:5:1: warning: gateway: everybody can get at /secret: `chmod o= /secret`"]);
    assert_eq!(settings.logins.len(), 1);
    for (file, says) in [("none", "cannot be read: No such file"), (".", "is not a regular file")] {
        let (_, said) = read(&format!("gateway relay wrapped login={file}\n"));
        assert!(said[0].contains(says), "{said:?}");
    }
}

#[test]
fn what_opens_a_relay_or_means_nothing_is_said() {
    for (line, says) in [
        ("forward_from_ip *", ":5:1: warning: forward_from_ip lets half the world send to anywhere"),
        ("forward_from_ip 10.0.0.0/8\nforward_from_ip 0.0.0.0/0", ":6:1: warning: forward_from_ip lets half the world"),
        ("forward_from_ip 10.0.0.0/8", ":5:1: note: forward_from_ip has no 127.0.0.1"),
        ("relay_to *", ":5:1: warning: relay_to lets everybody send to everywhere"),
        ("relay_to *.com", ":5:1: warning: relay_to lets everybody send to everywhere"),
        (
            "forward_from partner.example",
            ":5:1: warning: forward_from: whoever says that he is partner.example may send to anywhere, and anybody can say so",
        ),
        ("forward_user_minutes 20", ":5:1: warning: forward_user_minutes means nothing without a forward_user"),
        ("ban_ip_except 192.0.2.1", ":5:1: warning: ban_ip_except means nothing without a ban_ip"),
        ("sends_per_hour 0\nsends_per_day 0\nsends_over hold", ":7:1: warning: sends_over means nothing while"),
        ("hide_auth recentpop", ":5:1: warning: hide_auth means nothing as recentpop without a forward_user"),
        ("relay_to !a", ":5:10: error: relay_to: `!a` only excludes"),
        ("ban_ip 10.0.0.0/33", ":5:8: error: ban_ip: `10.0.0.0/33` has more than 32 bits"),
        ("sends_over drop", ":5:12: error: sends_over cannot be `drop`: it takes refuse, hold"),
        (
            "forward_user_minutes 0",
            ":5:22: error: forward_user_minutes cannot be `0`: MINUTES is a number from 1 to 10080",
        ),
    ] {
        let said = only(line);
        assert!(said.starts_with(says), "{line}: {said}");
    }
    for line in [
        "forward_from_ip 127.0.0.1,192.168.1.*",
        "relay_to branch.example,*.branch.example",
        "ban_ip 192.0.2.0/24\nban_ip_except 192.0.2.1",
        "forward_user *\nforward_user_minutes 20\nhide_auth RecentPop",
    ] {
        assert_eq!(said(line), [""; 0], "{line}");
    }
}

#[test]
fn addresses_are_read_and_shown_as_they_are_written() {
    let settings = good("");
    assert_eq!((settings.recipient_delimiter, settings.alias_fallthrough, settings.drop_max), (Some('+'), true, 0));
    assert_eq!((settings.quota_reply, settings.quota_warn, settings.sysadmin), (QuotaReply::Temporary, 90, None));
    let text = "host_domain example.org\nsysadmin \"\\\"ann b\\\"@example.com\"\nalias_file aliases\n\
                alias_file_domain EXAMPLE.org \"my aliases\"\nrecipient_delimiter None\ncatch_all example.com x@far.example\n\
                forward a@b.example c@d.example,$user \"| /bin/x 'a, b'\" \\e@example.com\n\
                forward_cc a@b.example \"Ann <c@[192.0.2.1]>\" /dev/null\nquota_reply Permanent\ndrop_max 5000\n";
    // The second name of the main domain cannot have an alias file beside the first one's; here it has the only one.
    let settings = good(text);
    assert_eq!(settings.sysadmin.as_ref().unwrap().to_string(), "ann b@example.com");
    assert_eq!(settings.alias_file.as_deref(), Some(Path::new("/conf/aliases")));
    assert_eq!(settings.alias_file_domain[0].path, Path::new("/conf/my aliases"));
    assert_eq!((settings.recipient_delimiter, settings.quota_reply), (None, QuotaReply::Permanent));
    let shown = |targets: &[Target]| targets.iter().map(Target::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&settings.forward[0].to), ["c@d.example", "$user", "|/bin/x \"a, b\"", "\\e@example.com"]);
    assert_eq!(shown(&settings.forward_cc[0].to), ["c@[192.0.2.1]", "/dev/null"]);
    let again: String = ["host_domain", "sysadmin", "forward", "forward_cc", "catch_all", "alias_file_domain"]
        .into_iter()
        .flat_map(|name| {
            let values = (rows::find(name).unwrap().show)(&settings);
            values.into_iter().filter(|value| value != "example.com").map(move |value| format!("{name} {value}\n"))
        })
        .collect();
    let other = good(&again);
    assert_eq!(
        (&other.sysadmin, &other.forward, &other.forward_cc),
        (&settings.sysadmin, &settings.forward, &settings.forward_cc)
    );
    assert_eq!((&other.catch_all, &other.alias_file_domain), (&settings.catch_all, &settings.alias_file_domain));
    let said = only("host_domain example.org\ncatch_all example.com a@x.example\ncatch_all example.org a@x.example\n");
    assert!(
        said.contains(":7:1: error: example.org is another name of example.com, which has a catch_all already"),
        "{said}"
    );
}

#[test]
fn values_of_each_kind_are_read() {
    let settings = good(
        "  HOST_DOMAIN\tMail.Example.COM. # an alias\r\n\
         log_level WARN\n\
         authent_method External  # as in the manual\n\
         authent_domain TRUE\n\
         apop_enable True\n\
         bin_path \"my bins\"\n\
         bin_pfull .75 # of it\n\
         add_status true\n\
         hash_bindir true\nmin_space 50\n\
         lock_method flock, dotlock\n\
         drop_root /d\ndrop_root /home\n\
         bind_address 127.0.0.1, ::1\nbind_address 192.0.2.1\n\
         plain_networks 10.0.0.0/8 192.168.*,!10.0.0.1\n\
         tls_cert a.pem\ntls_cert b.pem B.example\ntls_key bk.pem b.example\ntls_key /k/ak.pem\n",
    );
    assert_eq!(settings.host_domain, ["example.com", "mail.example.com"]);
    assert_eq!(settings.log_level, LogLevel::Warn);
    assert!(settings.apop_enable);
    assert!(settings.authent_domain);
    assert_eq!(settings.bin_path.as_deref(), Some(Path::new("/conf/my bins")));
    assert_eq!(settings.bin_pfull.to_string(), "0.75");
    assert!(settings.add_status);
    assert_eq!((settings.hash_bindir, settings.min_space), (true, 50));
    assert_eq!(settings.lock_method, [LockMethod::Flock, LockMethod::Dotlock]);
    assert_eq!(settings.drop_root, [Path::new("/d"), Path::new("/home")]);
    let addresses: Vec<_> = settings.bind_address.iter().map(IpAddr::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1", "::1", "192.0.2.1"]);
    assert!(settings.plain_networks.contains("10.9.9.9".parse().unwrap()));
    assert!(!settings.plain_networks.contains("10.0.0.1".parse().unwrap()));
    let pairs = settings.tls_pairs();
    let path = Path::new;
    assert_eq!(pairs[0], TlsPair { domain: None, cert: path("/conf/a.pem"), key: path("/k/ak.pem") });
    assert_eq!(pairs[1], TlsPair { domain: Some("b.example"), cert: path("/conf/b.pem"), key: path("/conf/bk.pem") });
    assert_eq!(good("lock_method none").lock_method, []);
    assert_eq!(good("bulletin_from The  People # of\n").bulletin_from, "The People");
    assert_eq!(good("bulletin_from \"a # b\"").bulletin_from, "a # b");
}

#[test]
fn statistics_are_switched_off_by_a_blank_path_as_in_the_manual() {
    assert_eq!(good("stats_path my/stats/path").stats_path.as_deref(), Some(Path::new("/conf/my/stats/path")));
    for off in ["stats_path # To disable", "stats_path", "stats_path   ", "stats_path \"\""] {
        assert_eq!(good(off).stats_path, None, "{off}");
    }
    assert!(only("stats_path a b").contains("stats_path takes one value"));
    assert!(only("bin_path # none").contains("bin_path says nothing"));
}

#[test]
fn virtual_domains_are_read_and_their_directories_are_roots() {
    let settings = good(
        "vdomain abc 1.2.3.4,2001:db8::4 ABC.com \"/mail/a b\" # by address\n\
         vdomain abc /xdom abc.com \"/mail/a b\"\n\
         vdomain D @D.example d.example drops\n\
         vdomain_separator .\ndrop_prefix FALSE\nalt_drop_path D.example /e\n",
    );
    assert_eq!(settings.drop_root, ["/d", "/mail/a b", "/e"].map(Path::new));
    let name = |login: &str, address: &str| {
        let here = settings.domains.home_at(address.parse().unwrap());
        let name = settings.domains.resolve(login.as_bytes(), here).unwrap();
        let drop = settings.domains.drops_of(&name).join(&name.file);
        format!("{} {} {}", name.shown(), String::from_utf8(name.asked.clone()).unwrap(), drop.display())
    };
    assert_eq!(name("fred", "1.2.3.4"), "fred@abc.com abc.fred /mail/a b/fred");
    assert_eq!(name("Fred/XDOM", "9.9.9.9"), "fred@abc.com abc.fred /mail/a b/fred");
    assert_eq!(name("fred@d.example", "1.2.3.4"), "fred@d.example D.fred /e/fred");
    assert_eq!(name("fred", "9.9.9.9"), "fred fred /d/fred");
    let show = |name: &str| (rows::find(name).unwrap().show)(&settings);
    assert_eq!(
        show("vdomain"),
        [
            "abc 1.2.3.4,2001:db8::4 abc.com \"/mail/a b\"",
            "abc /xdom abc.com \"/mail/a b\"",
            "D @d.example d.example /conf/drops"
        ]
    );
    assert_eq!(show("alt_drop_path"), ["d.example /e"]);
    // What is written by hand is not added to.
    assert_eq!(good("drop_root /\nvdomain a /a a.com /m\n").drop_root, [Path::new("/")]);
}

#[test]
fn the_page_on_virtual_domains_has_lines_that_can_be_read() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dpop-virtual-domains.md")).unwrap();
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("vdomain ")).skip(1).collect();
    assert_eq!(good(&lines.join("\n")).vdomain.len(), lines.len());
    assert_eq!(lines.len(), 2);
    let signs: Vec<String> = crate::rules::domains::SIGNS.iter().map(char::to_string).collect();
    assert!(page.contains(&format!("begins with one of `{}`", signs.join(" "))), "{signs:?}");
}

#[test]
fn directories_of_virtual_domains_are_looked_at() {
    let folder = world();
    fs::create_dir(folder.path("drop/one")).unwrap();
    std::os::unix::fs::symlink("one", folder.path("drop/two")).unwrap();
    assert_eq!(judged(&folder, "vdomain a /a a.com drop/one\nvdomain a /aa a.com drop/one\n"), [""; 0]);
    let said =
        judged(&folder, "vdomain a /a a.com drop/one\nvdomain b /b b.com drop/two\nalt_drop_path b.com absent\n");
    assert_eq!(
        said,
        [
            "/dmail.conf:8:1: error: vdomain: /drop/two is the same directory as /drop/one: write it by one path only",
            "/dmail.conf:9:1: warning: alt_drop_path: there is no directory /absent: make it (`mkdir -p /absent`) or name \
             another",
        ]
    );
    let said = judged(&folder, "vdomain a /a a.com drop/../drop\n");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(":7:1: error: vdomain: /drop/../drop is the same directory as /drop"), "{said:?}");
}

#[test]
fn the_authenticator_is_a_command_line_without_a_shell() {
    let text = NEEDED.replace("/a", "bin/nwauth -path '/var/d m' \"-x=#1\" # stock");
    let settings = read(&text).settings.unwrap();
    assert_eq!(settings.authent_process.program, Path::new("/conf/bin/nwauth"));
    assert_eq!(settings.authent_process.words, ["bin/nwauth", "-path", "/var/d m", "-x=#1"]);
    assert_eq!(settings.authent_process.arguments(), ["-path", "/var/d m", "-x=#1"]);
}

#[test]
fn a_bad_line_is_told_with_its_line_column_and_remedy() {
    for (line, says) in [
        ("pop_port 70000", ":5:10: error: pop_port cannot be `70000`: PORT is a number from 0 to 65535"),
        ("  pop_port   11x # no", ":5:14: error: pop_port cannot be `11x`"),
        ("pop_port", ":5:9: error: pop_port says nothing: write `pop_port PORT`"),
        ("pop_port #110", ":5:9: error: pop_port says nothing"),
        ("pop_port 110 # ok\npop_port 111", ":6:1: error: pop_port is set already in line 5: keep one of them"),
        ("DROP_PATH /e", ":5:1: error: drop_path is set already in line 3"),
        (
            "bin_path /a b",
            ":5:13: error: bin_path takes one value, and `b` is a second: put a value with blanks in quotes",
        ),
        ("bin_path \"/a b", ":5:10: error: a \" without its partner"),
        ("bin_path ~/x", ":5:10: error: bin_path cannot be `~/x`: nothing is expanded"),
        ("bin_path \"\"", ":5:9: error: bin_path says nothing"),
        ("bin_pfull 1.5", ":5:11: error: bin_pfull cannot be `1.5`: it is a fraction from 0 to 1, such as 0.5"),
        ("bin_pfull", ":5:10: error: bin_pfull says nothing: write `bin_pfull FRACTION`"),
        ("hide_version yes", ":5:14: error: hide_version cannot be `yes`: it is either true or false"),
        (
            "log_level wran",
            ":5:11: error: log_level cannot be `wran`: it takes error, warn, info, debug (did you mean warn?)",
        ),
        ("host_domain a..b", ":5:13: error: host_domain cannot be `a..b`: each part"),
        ("host_domain münchen.de", ":5:13: error: host_domain cannot be `münchen.de`: write the domain's xn-- form"),
        ("host_domain EXAMPLE.com", ":5:13: error: host_domain cannot be `EXAMPLE.com`: it is named twice"),
        ("authent_method shadow", ":5:16: error: authent_method cannot be `shadow`: it takes external or unix_user"),
        ("run_as \"\"", ":5:7: error: run_as says nothing: write `run_as USER`"),
        ("run_as root:wheel", ":5:8: error: run_as cannot be `root:wheel`: no user has such a name"),
        ("authent_method NT_user", ":5:16: error: authent_method cannot be `NT_user`: this version asks a program"),
        ("lock_method dotlock,none", ":5:13: error: lock_method cannot be `dotlock,none`: none stands alone"),
        ("lock_method fcntl fcntl", ":5:19: error: lock_method cannot be `fcntl`: fcntl is there twice"),
        ("bind_address localhost", ":5:14: error: bind_address cannot be `localhost`: it takes addresses"),
        ("bind_address *,0.0.0.0", ":5:14: error: bind_address cannot be `*,0.0.0.0`: 0.0.0.0 is there twice"),
        ("bind_address *\nbind_address 127.0.0.1", ":6:1: error: bind_address 0.0.0.0 covers 127.0.0.1"),
        ("plain_networks 10.0.0.0/40", ":5:16: error: plain_networks: `10.0.0.0/40` has more than 32 bits"),
        ("plain_networks !10.1.1.1", ":5:16: error: plain_networks: `!10.1.1.1` only excludes"),
        ("tls_cert a b c", ":5:14: error: tls_cert takes a file and at most one domain"),
        ("tls_cert a.pem", ":5:1: error: tls_cert /conf/a.pem has no tls_key: add `tls_key FILE`"),
        (
            "tls_key a.pem x.example",
            ":5:1: error: tls_key /conf/a.pem x.example has no tls_cert: add `tls_cert FILE x.example`",
        ),
        ("pops_port 110", ":5:1: error: pops_port and pop_port are both 110"),
        ("drop_root /elsewhere", ":5:1: warning: no drop_root covers /d"),
        (
            "plain_auth never\nplain_networks ::1",
            ":6:1: warning: plain_networks means nothing while plain_auth is never",
        ),
        ("vdomain", ":5:8: error: vdomain says nothing: write `vdomain PREFIX ADDRESSES|SUFFIX DOMAIN DIRECTORY`"),
        ("vdomain abc 1.2.3.4 abc.com", ":5:21: error: vdomain takes 4 values, and here are 3: write `vdomain PREFIX"),
        ("vdomain abc 1.2.3.4 abc.com /m x", ":5:32: error: vdomain takes 4 values, and here are 5"),
        ("vdomain a/b 1.2.3.4 abc.com /m", ":5:9: error: vdomain cannot be `a/b`: a prefix begins names"),
        ("vdomain abc 1.2.3.400 abc.com /m", ":5:13: error: vdomain cannot be `1.2.3.400`: `1.2.3.400` is no address"),
        ("vdomain abc abc.com abc.com /m", ":5:13: error: vdomain cannot be `abc.com`: it takes an address of this"),
        ("vdomain abc 1.2.3.4 a..com /m", ":5:21: error: vdomain cannot be `a..com`: each part"),
        ("vdomain abc 1.2.3.4 abc.com ~/m", ":5:29: error: vdomain cannot be `~/m`: nothing is expanded"),
        (
            "vdomain abc 1.2.3.4 abc.com /m\n\nvdomain b 1.2.3.4 b.com /b",
            ":7:1: error: clients that connect to 1.2.3.4 are another domain's already (in line 5): give each domain",
        ),
        (
            "vdomain abc /a abc.com /m\nvdomain abc /b abc.com /n",
            ":6:1: error: abc.com has /m already, and cannot have /n (in line 5): one prefix, one domain, one path",
        ),
        (
            "vdomain abc /a example.com /m",
            ":5:1: error: example.com is the main domain's by its host_domain (in line 1): a domain is one or the other",
        ),
        (
            "drop_prefix false\nvdomain abc /a abc.com /d",
            ":6:1: error: users of the same name in two domains would have one drop file in /d, for drop_prefix is false \
             (in line 3): give each domain a path of its own",
        ),
        (
            "vdomain a /a a.com /a\nvdomain a_b /b b.com /b",
            ":6:1: warning: users of a.com whose names begin with b_ cannot log in: as a_b_... they would be users of \
             b.com (in line 5): choose a prefix",
        ),
        (
            "bind_address 10.0.0.1\nvdomain a 10.0.0.0/8 a.com /d\nvdomain b 192.0.2.4 b.com /d\nvdomain c /c c.com /d",
            ":7:1: warning: nobody can connect to 192.0.2.4: bind_address has none of them",
        ),
        (
            "alt_drop_path a.com",
            ":5:15: error: alt_drop_path takes 2 values, and here are 1: write `alt_drop_path DOMAIN",
        ),
        ("alt_drop_path a.com /a", ":5:1: error: a.com is no domain of ours: name the first host_domain"),
        ("vdomain_separator @", ":5:19: error: vdomain_separator cannot be `@`: it takes _, -, ., +, =, ~"),
        ("drop_root /d\nvdomain abc /a abc.com /m", ":5:1: warning: no drop_root covers /m: add `drop_root` lines"),
        ("#include", ":5:1: error: #include takes one file"),
        ("#include a b", ":5:1: error: #include takes one file"),
        ("hide\u{7}version", ":5:5: error: a control character"),
        ("manager_password secret", ":5:1: note: manager_password is needed no more: who may"),
        (
            "dlist_path a\ndlist_path b",
            ":5:1: note: dlist_path is known but not used by this version: there is no list",
        ),
        ("alias *.example", ":5:1: note: alias is needed no more: there are no blocks"),
        ("forward ann b@x.example", ":5:9: error: forward cannot be `ann`: it is a whole address"),
        ("forward ann@x.example bob", ":5:23: error: forward cannot be `bob`: `bob` is neither an address"),
        ("forward ann@x.example /tmp/x", ":5:23: error: forward cannot be `/tmp/x`: `/tmp/x`: mail is not appended"),
        ("forward ann@x.example :include:/x", ":5:23: error: forward cannot be `:include:/x`: files are included"),
        ("forward ann@x.example \"| a; b\"", ":5:23: error: forward cannot be `| a; b`"),
        ("forward ann@x.example", ":5:8: error: forward says nothing"),
        ("catch_all x.example ann@x.example", ":5:1: error: x.example is no domain of ours"),
        ("catch_all example.com ann", ":5:23: error: catch_all cannot be `ann`: it is a whole address"),
        (
            "catch_all example.com ann@x.example\ncatch_all example.com bob@x.example",
            ":6:11: error: catch_all cannot be `example.com`: this domain has one already",
        ),
        ("alias_file_domain x.example /x", ":5:1: error: x.example is no domain of ours"),
        ("recipient_delimiter !", ":5:21: error: recipient_delimiter cannot be `!`: it takes none, +"),
        ("allow_ip 1.2.3.*", ":5:1: warning: allow_ip is known but not used"),
        ("pop_prot 110", ":5:1: warning: `pop_prot` is not known and ignored: did you mean pop_port?"),
        ("pop_port=110", ":5:1: warning: `pop_port=110` is not known and ignored: a blank parts name and value"),
        ("bananas", ":5:1: warning: `bananas` is not known and ignored: `dmail settings` lists what is"),
    ] {
        let complaint = only(line);
        assert!(complaint.starts_with(says), "{line}\n     is: {complaint}\nshould: {says}");
    }
    let shell = read(&NEEDED.replace("/a", "/a | tee log")).complaints;
    assert!(shell[0].to_string().contains(":4:20: error: `|` is nothing special here"), "{shell:?}");
}

#[test]
fn what_is_missing_is_named_with_a_line_to_add() {
    let complaints = read("# nothing here\n").complaints;
    let said: Vec<_> = complaints.iter().map(Complaint::to_string).collect();
    assert_eq!(said.len(), 4);
    assert_eq!(said[0], "/conf/dmail.conf: error: host_domain is missing: add a line like `host_domain example.com`");
    // One that is there but wrong is not missing too.
    assert_eq!(read(&NEEDED.replace("/w", "")).complaints.len(), 1);
}

#[test]
fn comments_blank_lines_and_windows_line_ends_are_nothing() {
    assert_eq!(said("\n   \n# pop_port x\n#pop_port x\n\t# x\n#included x\n\r\n"), [""; 0]);
    assert_eq!(read(&format!("\u{feff}{NEEDED}")).complaints, []);
    assert_eq!(read(&NEEDED.replace('\n', "\r\n")).complaints, []);
}

#[test]
fn bytes_that_are_not_utf8_are_told_with_their_place() {
    let loaded = parse::load_text(Path::new(CONF), &[NEEDED.as_bytes(), b"# \xc3\xa9\xff\n"].concat());
    assert_eq!(loaded.complaints.len(), 1);
    assert!(loaded.complaints[0].to_string().contains(":5:4: error: this is not UTF-8"), "{:?}", loaded.complaints);
    assert!(loaded.settings.is_none());
}

#[test]
fn a_file_full_of_nonsense_ends_after_a_hundred_complaints() {
    let complaints = read(&"nonsense\n".repeat(100_000)).complaints;
    assert!(complaints.len() < 110, "{}", complaints.len());
    assert!(complaints[100].text.contains("that is enough"), "{}", complaints[100]);
    assert!(read(&"x".repeat(1 << 20)).complaints[0].to_string().len() < 200);
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        self.mode(name, 0o600);
        path
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) -> Loaded {
        load(&self.path("dmail.conf"))
    }

    fn complaint(&self) -> String {
        let complaints = self.load().complaints;
        assert!(!complaints.is_empty());
        complaints[0].to_string().replace(self.0.path().to_str().unwrap(), "")
    }
}

#[test]
fn an_include_is_read_in_place_and_relative_to_its_own_file() {
    let folder = Folder::new();
    folder.write("dmail.conf", &format!("{NEEDED}#include sub/one.conf # more\nmax_errors 9\n"));
    folder.write("sub/one.conf", "bin_path bins\n#include \"two 2.conf\"\n");
    folder.write("sub/two 2.conf", "pop_port 1100\n");
    let settings = folder.load().settings.unwrap();
    assert_eq!(settings.pop_port, 1100);
    assert_eq!(settings.max_errors, 9);
    // A relative path of a setting starts from the main file's directory wherever it stands.
    assert_eq!(settings.bin_path, Some(folder.path("bins")));
    let place = settings.place("pop_port");
    assert_eq!((&*place.file, place.line, place.column), (&*folder.path("sub/two 2.conf"), 1, 1));
    assert_eq!(settings.place("max_errors").line, 6);
    assert_eq!(
        (&*settings.place("pops_port").file, settings.place("pops_port").line),
        (&*folder.path("dmail.conf"), 0)
    );

    folder.write("sub/two 2.conf", "\nmax_errors 8\n");
    assert_eq!(
        folder.complaint(),
        "/dmail.conf:6:1: error: max_errors is set already at /sub/two 2.conf:2: keep one of them"
    );
}

#[test]
fn includes_that_cannot_be_followed_are_told_where_they_are_named() {
    let folder = Folder::new();
    folder.write("dmail.conf", "#include absent.conf\n");
    assert!(folder.complaint().starts_with("/dmail.conf:1:10: error: /absent.conf cannot be read: No such file"));
    folder.write("dmail.conf", "  #include .\n");
    assert!(folder.complaint().starts_with("/dmail.conf:1:12: error: /. is not a regular file"));
    folder.write("dmail.conf", "#include a.conf\n");
    folder.write("a.conf", "\n#include dmail.conf\n");
    assert!(folder.complaint().starts_with("/a.conf:2:10: error: /dmail.conf includes itself"));
    folder.write("dmail.conf", "#include 1.conf\n");
    for depth in 1..9 {
        folder.write(&format!("{depth}.conf"), &format!("#include {}.conf\n", depth + 1));
    }
    folder.write("8.conf", "#include 9.conf\n");
    folder.write("9.conf", "");
    assert_eq!(folder.complaint(), "/8.conf:1:1: error: #include goes 8 deep and no deeper: name the file further up");
    folder.write("8.conf", NEEDED);
    assert!(folder.load().settings.is_some());
    // Files that each include several multiply.
    for depth in 1..8 {
        folder.write(&format!("{depth}.conf"), &format!("#include {}.conf\n", depth + 1).repeat(10));
    }
    folder.write("8.conf", "");
    assert!(folder.complaint().contains("this would be the 257th file"), "{}", folder.complaint());
}

#[test]
fn a_file_that_is_no_configuration_is_refused_in_one_sentence() {
    let folder = Folder::new();
    assert!(folder.complaint().starts_with("/dmail.conf: error: this file cannot be read: No such file"));
    assert_eq!(folder.load().complaints.len(), 1);
    folder.write("dmail.conf", &"#\n".repeat(1 << 19));
    assert_eq!(folder.load().complaints.len(), 4, "just fits");
    folder.write("dmail.conf", &"#\n".repeat((1 << 19) + 1));
    assert!(folder.complaint().starts_with("/dmail.conf: error: this file has more than 1048576 bytes"));
    assert_eq!(load(folder.0.path()).complaints.len(), 1);
    assert_eq!(load(Path::new("")).complaints.len(), 1);
}

#[test]
fn a_file_that_everybody_may_write_is_not_trusted() {
    let folder = Folder::new();
    folder.write("dmail.conf", NEEDED);
    folder.mode("dmail.conf", 0o666);
    let level = if crate::sys::access::is_root() { "error" } else { "warning" };
    assert!(folder.complaint().starts_with(&format!("/dmail.conf: {level}: everybody may write to it: `chmod o-w ")));
}

#[test]
fn the_difference_names_each_row_and_when_it_takes_effect() {
    let old = good("tls_cert a\ntls_key b\n");
    let new = good("pop_port 1100\nlog_level debug\nbin_path \"/b b\"\nhost_domain two.example\n");
    let changes: Vec<_> = diff(&old, &new).iter().map(Change::to_string).collect();
    assert_eq!(
        changes,
        [
            "host_domain: example.com -> example.com, two.example (for new connections)",
            "log_level: info -> debug (at once)",
            "pop_port: 110 -> 1100 (at once)",
            "tls_cert: /conf/a -> (unset) (for new connections)",
            "tls_key: /conf/b -> (unset) (for new connections)",
            "bin_path: (unset) -> \"/b b\" (for new connections)",
        ]
    );
    // Where and how a line is written is no difference.
    assert_eq!(diff(&good(""), &good("\npop_port \"110\" # same\nlock_method dotlock fcntl\n")), []);
}

#[test]
fn the_sample_shows_every_row_and_can_be_read() {
    let sample = sample();
    for row in ROWS {
        let off = if row.required { "" } else { "#" };
        let line = format!("\n{off}{} ", row.name);
        assert_eq!(sample.matches(&line).count(), 1, "{}", row.name);
        assert!(reference().contains(&format!("{} {}", row.name, row.kind.form())), "{}", row.name);
    }
    assert!(sample.lines().all(|line| line.chars().count() <= 110), "a line is too long");
    assert_eq!(read(&sample).complaints, []);
    // With every setting in it taken out of its comment it still can be.
    let on = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(char::is_alphabetic) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let all: String = sample.lines().map(|line| on(line) + "\n").collect();
    let complaints = read(&all).complaints;
    let known = |text: &str| text.starts_with("no drop_root covers") || text.starts_with("forward_from: whoever says");
    assert!(complaints.iter().all(|c| known(&c.text)), "{complaints:?}");
    assert_eq!(read(&all).settings.unwrap().places.len(), ROWS.len());
}

#[test]
fn the_sample_in_conf_is_the_one_the_rows_give() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/dmail.conf");
    let there = fs::read_to_string(path).unwrap_or_default();
    assert!(there == sample(), "conf/dmail.conf is old: `dmail settings --sample > conf/dmail.conf`");
}

#[test]
fn the_reference_as_json_has_every_row() {
    let json: serde_json::Value = serde_json::from_str(&reference_json()).unwrap();
    assert_eq!(json.as_array().unwrap().len(), ROWS.len());
    for (entry, row) in json.as_array().unwrap().iter().zip(ROWS) {
        assert_eq!(entry["name"], row.name);
        assert_eq!(entry["why"], row.why);
    }
}

#[test]
fn programs_for_other_users_need_a_directory_of_their_own() {
    let complaints = |more: &str| {
        let text = format!("host_domain x.test\nwork_path w\ndrop_path d\nauthent_process a\n{more}");
        let loaded = parse::load_text(Path::new("/t/dmail.conf"), text.as_bytes());
        loaded.complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert!(complaints("user_robots true\n").contains("user_robots needs a robot_path"));
    assert!(complaints("run_as dmail\nrobot_user robot\n").contains("robot_user needs a robot_path"));
    for well in [
        "user_robots true\nrobot_path r\n",
        "run_as dmail\nrobot_user robot\nrobot_path r\n",
        "robot_user robot\n",
        "run_as dmail\nrobot_user dmail\n",
    ] {
        assert_eq!(complaints(well), "", "{well}");
    }
}

#[test]
fn programs_that_are_given_mail_have_a_user_and_a_place() {
    let folder = world();
    assert!(judged(&folder, "robot_user root\n").iter().any(|said| said.contains("name another user")));
    assert!(
        judged(&folder, "robot_user no-such-user\n").iter().any(|said| said.contains("there is no user no-such-user"))
    );
    assert!(
        judged(&folder, "robot_path missing\n")
            .iter()
            .any(|said| said.contains("robot_path") && said.contains("missing"))
    );
    fs::create_dir(folder.path("robots")).unwrap();
    let said = judged(&folder, "robot_user nobody\nrobot_path robots\n");
    assert!(!said.iter().any(|said| said.contains("robot")), "{said:?}");
    if crate::sys::access::is_root() {
        folder.mode("robots", 0o777);
        let said = judged(&folder, "run_as nobody\nrobot_path robots\n");
        assert!(said.iter().any(|said| said.contains("must be a directory of root's")), "{said:?}");
    }
}

#[test]
fn settings_for_tests_are_the_defaults_below_a_directory() {
    let settings = Settings::for_tests(Path::new("/t"));
    assert_eq!(settings.drop_path, Path::new("/t/drop"));
    assert_eq!(settings.work_path, Path::new("/t/work"));
    assert_eq!(settings.folder(), Path::new("/t"));
    assert_eq!(settings.pop3_idle_secs, 600);
}

/// A configuration whose world is as it should be.
fn world() -> Folder {
    let folder = Folder::new();
    let text = "host_domain example.com\nwork_path work\ndrop_path drop\nauthent_process auth -x\n\
                tls_cert cert.pem\ntls_key key.pem\n";
    folder.write("dmail.conf", text);
    for name in ["work", "drop"] {
        fs::create_dir(folder.path(name)).unwrap();
    }
    folder.write("auth", "#!/bin/sh\n");
    folder.mode("auth", 0o700);
    folder.write("cert.pem", "-----BEGIN CERTIFICATE-----\n");
    folder.write("key.pem", "-----BEGIN PRIVATE KEY-----\n");
    folder
}

fn judged(folder: &Folder, more: &str) -> Vec<String> {
    let text = fs::read_to_string(folder.path("dmail.conf")).unwrap();
    let loaded =
        parse::load_text(&folder.path("dmail.conf"), format!("{text}{more}\nsysadmin ann@example.com\n").as_bytes());
    let settings = loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.complaints));
    let root = folder.0.path().to_str().unwrap();
    judge(&settings, &Rights::OWN).iter().map(|complaint| complaint.to_string().replace(root, "")).collect()
}

#[test]
fn a_world_as_it_should_be_is_not_complained_about_nor_touched() {
    let folder = world();
    assert_eq!(judged(&folder, ""), [""; 0]);
    assert_eq!(fs::read_dir(folder.path("work")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(folder.path("drop")).unwrap().count(), 0);
}

type Spoil = &'static dyn Fn(&Folder);

#[test]
fn what_is_not_there_or_cannot_be_used_is_told_with_file_line_and_remedy() {
    let spoil: &[(Spoil, &str)] = &[
        (
            &|folder| fs::remove_dir(folder.path("work")).unwrap(),
            "/dmail.conf:2:1: error: work_path: there is no directory /work: make it (`mkdir -p /work`) or name another",
        ),
        (
            &|folder| {
                fs::remove_dir(folder.path("drop")).unwrap();
                folder.write("drop", "");
            },
            "/dmail.conf:3:1: error: drop_path: /drop is not a directory: name one",
        ),
        (
            &|folder| fs::remove_file(folder.path("auth")).unwrap(),
            "/dmail.conf:4:1: error: authent_process: there is no program /auth: write its whole path",
        ),
        (
            &|folder| folder.mode("auth", 0o600),
            "/dmail.conf:4:1: error: authent_process: /auth cannot be run: Permission denied",
        ),
        (
            &|folder| fs::remove_file(folder.path("cert.pem")).unwrap(),
            "/dmail.conf:5:1: error: tls_cert: /cert.pem cannot be read: No such file",
        ),
        (
            &|folder| {
                folder.write("key.pem", "-----BEGIN CERTIFICATE-----\n");
            },
            "/dmail.conf:6:1: error: tls_key: /key.pem holds no `PRIVATE KEY-----`",
        ),
        (
            &|folder| folder.mode("key.pem", 0o604),
            "/dmail.conf:6:1: warning: tls_key: everybody can get at /key.pem: `chmod o= /key.pem`",
        ),
    ];
    for (spoil, says) in spoil {
        let folder = world();
        spoil(&folder);
        let said = judged(&folder, "");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(says), "\n     is: {}\nshould: {says}", said[0]);
    }
    let folder = world();
    let said = judged(&folder, "log_path logs\nbin_path bins\ndrop_root drop\ndrop_root more\nstats_path stats\n");
    for (said, says) in said.iter().zip([
        ":7:1: error: log_path: ",
        ":11:1: error: stats_path: ",
        ":10:1: error: drop_root: ",
        ":8:1: error: bin_path: ",
    ]) {
        assert!(said.contains(says), "{said}");
    }
    assert_eq!(said.len(), 4);
}

#[test]
fn without_a_certificate_one_line_says_who_can_log_in() {
    for (more, says) in [
        (
            "",
            ": note: without a certificate only clients on this machine can log in: set tls_cert and tls_key for all others",
        ),
        (
            "plain_networks 10.0.0.0/8,!10.0.0.1\n",
            ": note: without a certificate only clients on this machine and in 10.0.0.0/8,!10.0.0.1 can log in",
        ),
        (
            "plain_auth always\n",
            ":5:1: warning: without a certificate everybody's password crosses the network in clear",
        ),
        ("plain_auth never\n", ":5:1: warning: without a certificate nobody can log in: set tls_cert and tls_key"),
        ("pop_port 0\nsmtp_port 0\nsubmission_port 0\nsmtps_port 0\n", ":5:1: warning: no port is open for POP3"),
        ("pop_port 0\nsubmission_port 0\n", ":5:1: note: no port is open for POP3"),
    ] {
        let folder = world();
        folder.write("dmail.conf", "host_domain example.com\nwork_path work\ndrop_path drop\nauthent_process auth\n");
        let said = judged(&folder, more);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(says), "{more}: {}", said[0]);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_every_complaint_has_a_place(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        placed(&bytes);
    }

    #[test]
    fn no_lines_that_look_like_settings_make_it_panic(
        lines in prop::collection::vec((0..ROWS.len(), "[ \t]{0,2}", "[-0-9a-z\"'#*!,./: \\\\|é]{0,24}"), 0..12)
    ) {
        let text: String = lines.iter().map(|(row, blank, value)| format!("{}{blank}{value}\n", ROWS[*row].name)).collect();
        placed(text.as_bytes());
        // What was taken is shown so that it is taken again, and is the same.
        if let Some(settings) = read(&format!("{NEEDED}{text}")).settings {
            let shown: String = ROWS
                .iter()
                .flat_map(|row| (row.show)(&settings).into_iter().map(move |value| format!("{} {value}\n", row.name)))
                .collect();
            let again = read(&shown);
            prop_assert!(again.settings.is_some(), "{}\n{:?}", shown, again.complaints);
            prop_assert_eq!(diff(&settings, &again.settings.unwrap()), []);
        }
    }

    #[test]
    fn any_path_can_be_written_and_read(name in "\\PC{1,20}") {
        prop_assume!(!name.starts_with('~'));
        let settings = good(&format!("bin_path {}\n", quote(&name)));
        prop_assert_eq!(settings.bin_path, Some(Path::new("/conf").join(&name)));
    }
}

fn placed(bytes: &[u8]) {
    let lines = bytes.split(|&byte| byte == b'\n').count();
    for complaint in parse::load_text(Path::new(CONF), bytes).complaints {
        assert_eq!(&*complaint.place.file, Path::new(CONF), "{complaint}");
        assert!(complaint.place.line <= lines, "{complaint}");
        assert!(complaint.place.line > 0 || complaint.text.contains("is missing"), "{complaint}");
        assert!(!complaint.to_string().chars().any(char::is_control), "{complaint:?}");
    }
}

#[test]
fn whoever_only_sends_needs_two_lines_of_a_configuration_that_may_be_wrong_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dmail.conf");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        office(&path).map_err(|complaint| complaint.to_string())
    };
    let found =
        read("pop_port x\nhost_domain Example.com\nhost_domain b.org\npop_prot 1\nwork_path work\ntls_cert a\n")
            .unwrap();
    assert_eq!((found.domain.as_str(), found.work_path), ("example.com", dir.path().join("work")));
    assert!(read("host_domain example.com\n").unwrap_err().ends_with("error: it names no host_domain or no work_path"));
    assert!(read("host_domain a b c\nwork_path work\n").unwrap_err().contains(":1:"));
    assert!(office(&dir.path().join("none")).unwrap_err().to_string().contains("cannot be read"));
}
