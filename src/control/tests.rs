//! Every verb: what it takes, and who may.

use super::*;

fn parsed(line: &str) -> Result<(Order, bool), String> {
    let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    parse(Teller::Pop, &words).map(|parsed| (parsed.order, parsed.json))
}

/// What tellsmtp would be understood to say.
fn smtp(line: &str) -> Result<(Order, bool), String> {
    let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    parse(Teller::Smtp, &words).map(|parsed| (parsed.order, parsed.json))
}

fn order(line: &str) -> Order {
    parsed(line).unwrap_or_else(|why| panic!("{line}: {why}")).0
}

#[test]
fn verbs_may_be_cut_short_while_they_stay_clear() {
    assert_eq!(parsed("status"), Ok((Order::Status(Teller::Pop), false)));
    assert_eq!(parsed("STATU --json"), Ok((Order::Status(Teller::Pop), true)));
    assert_eq!(order("loglevel warn"), Order::LogLevel(LevelFilter::Warn));
    assert_eq!(order("log_ Debug"), Order::LogLevel(LevelFilter::Debug));
    assert!(parsed("s").unwrap_err().contains("shutdown or statistics or stats or status"));
    assert!(parsed("lo x").unwrap_err().contains("log_level or lookup"));
    for wrong in ["", "frobnicate", "--json", "_"] {
        assert!(parsed(wrong).is_err(), "{wrong}");
    }
}

/// A verb, an argument list that it takes with the order that comes of it, and one that it does not take.
type Example = (&'static str, &'static str, Order, &'static str);

fn examples() -> Vec<Example> {
    let ann = || "ann".to_owned();
    let licence = || Order::Remark("licence", "no licence key is needed, and there is nothing to be registered");
    vec![
        ("bulletin", "", Order::ByTool(Tool::Bulletin), "text"),
        ("erase", "ann", Order::Erase(ann()), ""),
        ("forget", "ann", Order::Forget(ann()), "ann bob"),
        ("help", "", Order::Help(Teller::Pop), "me"),
        ("key", "abc 123", licence(), ""),
        ("kick", "ann", Order::Kick(ann()), ""),
        ("log_level", "warn", Order::LogLevel(LevelFilter::Warn), "loud"),
        ("lookup", "ann", Order::Lookup(ann()), ""),
        ("mem", "", Order::Mem, "now"),
        ("password", "x", Order::ByTool(Tool::Password(Some(Secret::new(b"x".to_vec())))), "x y"),
        ("register", "", licence(), ""),
        ("reload", "", Order::Reload, "now"),
        ("rename", "ann bob", Order::Rename(ann(), "bob".to_owned()), "ann"),
        ("shutdown", "", Order::Shutdown, "now"),
        ("statistics", "-U hour", Order::ByTool(Tool::Statistics), ""),
        ("stats", "--sort bytes file", Order::ByTool(Tool::Stats), ""),
        ("status", "", Order::Status(Teller::Pop), "now"),
        ("undelete", "ann", Order::Undelete(ann()), "ann bob"),
        ("users", "a*", Order::Users(Some("a*".to_owned())), "a* b*"),
        ("version", "", Order::Version, "2"),
    ]
}

#[test]
fn every_verb_takes_what_its_row_says_and_nothing_else() {
    let examples = examples();
    let names: Vec<&str> = examples.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, Teller::Pop.verbs().map(|verb| verb.name).collect::<Vec<_>>(), "an example for each, in order");
    for (name, arguments, wanted, wrong) in examples {
        assert_eq!(parsed(&format!("{name} {arguments}")), Ok((wanted.clone(), false)), "{name}");
        assert_eq!(parsed(&format!("{name} --json {arguments}")), Ok((wanted, true)), "{name}");
        if !matches!(name, "key" | "register" | "statistics" | "stats") {
            assert!(parsed(&format!("{name} {wrong}")).is_err(), "{name} {wrong}");
        }
    }
    assert_eq!(order("users"), Order::Users(None));
    assert_eq!(order("password"), Order::ByTool(Tool::Password(None)));
    assert!(parsed(&format!("kick {}", "a".repeat(600))).is_err(), "an argument without a bound");
    assert!(parse(Teller::Pop, &["kick".to_owned(), String::new()]).is_err(), "an empty name");
}

/// As [`examples`], for tellsmtp.
fn smtp_examples() -> Vec<Example> {
    let mail = |from: &str, to: &str, address: Option<&str>, login: Option<&str>| {
        let address = address.map(|address| address.parse().unwrap());
        Order::Why(Why { from: from.to_owned(), to: to.to_owned(), address, login: login.map(str::to_owned) })
    };
    let remark = |line: &str| match smtp(line) {
        Ok((remark @ Order::Remark(..), false)) => remark,
        other => panic!("{line}: {other:?}"),
    };
    vec![
        ("clear_cache_all", "", Order::ClearCache, "now"),
        ("config", "log_path", Order::Config("log_path".to_owned()), ""),
        ("filters", "", remark("filters"), ""),
        ("help", "", Order::Help(Teller::Smtp), "me"),
        ("log_level", "warn", Order::LogLevel(LevelFilter::Warn), "loud"),
        ("monitors", "", remark("monitors"), ""),
        ("pause", "mx a.test", Order::Pause(Some("mx a.test".to_owned())), "-h"),
        ("profile", "", Order::Profile, "now"),
        ("queue", "show K3J9", Order::Queue(queue::Ask::Show("K3J9".to_owned())), "show"),
        ("quiet", "", remark("quiet"), ""),
        ("register", "", remark("register"), ""),
        ("reload", "", Order::Reload, "now"),
        ("resume", "", Order::Resume(None), "{long}"),
        ("sendlog", "", Order::ByTool(Tool::SendLog), "now"),
        ("showchans", "", Order::Channels, "now"),
        ("showsend", "", Order::Sending, "now"),
        ("shutdown", "", Order::Shutdown, "now"),
        ("status", "", Order::Status(Teller::Smtp), "now"),
        ("trace", "ann@a.test", Order::ByTool(Tool::Trace("ann@a.test".to_owned())), ""),
        ("version", "", Order::Version, "2"),
        ("why", "a@b <c@d> ::1 as ann", mail("a@b", "c@d", Some("::1"), Some("ann")), "a@b"),
    ]
}

#[test]
fn tellsmtp_has_verbs_of_its_own_and_is_known_by_its_name() {
    let examples = smtp_examples();
    let names: Vec<&str> = examples.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, Teller::Smtp.verbs().map(|verb| verb.name).collect::<Vec<_>>(), "an example for each, in order");
    for (name, arguments, wanted, wrong) in examples {
        assert_eq!(smtp(&format!("{name} {arguments}")), Ok((wanted.clone(), false)), "{name}");
        assert_eq!(smtp(&format!("{name} --json {arguments}")), Ok((wanted.clone(), true)), "{name}");
        if !matches!(wanted, Order::Remark(..)) {
            let wrong = wrong.replace("{long}", &"x".repeat(600));
            assert!(smtp(&format!("{name} {wrong}")).is_err(), "{name} {wrong}");
        }
    }
    assert!(smtp("c").unwrap_err().contains("clear_cache_all or config"));
    assert_eq!(smtp("sta"), Ok((Order::Status(Teller::Smtp), false)), "clear among its own");
    for other in ["kick ann", "users", "erase ann", "stats"] {
        assert!(smtp(other).unwrap_err().contains("is no command"), "{other}");
    }
    assert!(smtp("all.msc").unwrap_err().contains("a shell script does it") && parsed("queue").is_err());
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(Teller::of(&words("tellsmtp status")), (Teller::Smtp, &words("status")[..]));
    assert_eq!(Teller::of(&words("status x")), (Teller::Pop, &words("status x")[..]));
}

#[test]
fn why_takes_a_sender_a_recipient_and_what_else_matters() {
    let why = |line: &str| smtp(&format!("why {line}")).map(|(order, _)| order);
    let Order::Why(asked) = why("<> c@d").unwrap() else { panic!("why is another order") };
    assert_eq!((&asked.from[..], &asked.to[..], asked.address, asked.login), ("", "c@d", None, None));
    for wrong in ["", "a@b", "a@b <>", "a@b c@d 1.2.3", "a@b c@d 1.2.3.4 x", "a@b c@d as", "as ann", "a@b as ann c@d"] {
        assert!(why(wrong).is_err(), "{wrong}");
    }
    assert!(why(&format!("{} c@d", "x".repeat(600))).is_err(), "a sender without a bound");
}

#[test]
fn who_may_use_which_verb() {
    let group = [
        "clear_cache_all",
        "config",
        "filters",
        "help",
        "key",
        "kick",
        "lookup",
        "mem",
        "monitors",
        "pause",
        "profile",
        "queue",
        "quiet",
        "register",
        "resume",
        "sendlog",
        "showchans",
        "showsend",
        "statistics",
        "stats",
        "status",
        "trace",
        "undelete",
        "users",
        "version",
        "why",
    ];
    for verb in VERBS {
        assert!(Caller::Owner.may(verb.rights), "{}", verb.name);
        assert_eq!(Caller::Member.may(verb.rights), group.contains(&verb.name), "{}", verb.name);
        assert!(!Caller::Stranger.may(verb.rights), "{}", verb.name);
        assert!(Caller::Member.refusal(verb).contains(verb.name));
    }
    for (line, rights) in [
        ("queue", Rights::Read),
        ("queue show K3", Rights::Read),
        ("queue hold K3", Rights::Operate),
        ("queue retry to=a --yes", Rights::Operate),
        ("queue delete K3", Rights::All),
        ("queue delete to=a", Rights::All),
        ("queue route K3 via=mx", Rights::All),
        ("queue route to=a via=mx --yes", Rights::All),
    ] {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(parse(Teller::Smtp, &words).unwrap().rights, rights, "{line}");
    }
}

#[test]
fn what_somebody_is_follows_from_uid_and_groups() {
    for (uid, groups, control, caller) in [
        (0, &[][..], None, Caller::Owner),
        (500, &[], None, Caller::Owner),
        (501, &[0, 500, 7], None, Caller::Stranger),
        (501, &[0, 500, 7], Some(7), Caller::Member),
        (501, &[0, 500], Some(7), Caller::Stranger),
        (500, &[7], Some(7), Caller::Owner),
    ] {
        assert_eq!(Caller::of(uid, groups, 500, control), caller, "{uid} {groups:?} {control:?}");
    }
}

#[test]
fn every_verb_is_in_the_help_of_its_tool_in_the_order_of_names() {
    for teller in [Teller::Pop, Teller::Smtp] {
        let help = help(teller);
        assert!(teller.verbs().all(|verb| help.contains(verb.name) && help.contains(verb.help)));
        assert!(help.lines().all(|line| line.chars().count() <= 140), "{help}");
    }
    assert!(VERBS.is_sorted_by_key(|verb| verb.name));
    assert!(!help(Teller::Pop).contains("queue") && !help(Teller::Smtp).contains("kick"));
}
