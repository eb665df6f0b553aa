//! Every verb: what it takes, and who may.

use super::*;

fn parsed(line: &str) -> Result<(Order, bool), String> {
    let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    parse(&words).map(|parsed| (parsed.order, parsed.json))
}

fn order(line: &str) -> Order {
    parsed(line).unwrap_or_else(|why| panic!("{line}: {why}")).0
}

#[test]
fn verbs_may_be_cut_short_while_they_stay_clear() {
    assert_eq!(parsed("status"), Ok((Order::Status, false)));
    assert_eq!(parsed("STATU --json"), Ok((Order::Status, true)));
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
    vec![
        ("bulletin", "", Order::ByTool(Tool::Bulletin), "text"),
        ("erase", "ann", Order::Erase(ann()), ""),
        ("forget", "ann", Order::Forget(ann()), "ann bob"),
        ("help", "", Order::Help, "me"),
        ("key", "abc 123", Order::Licence, ""),
        ("kick", "ann", Order::Kick(ann()), ""),
        ("log_level", "warn", Order::LogLevel(LevelFilter::Warn), "loud"),
        ("lookup", "ann", Order::Lookup(ann()), ""),
        ("mem", "", Order::Mem, "now"),
        ("password", "x", Order::ByTool(Tool::Password(Some(Secret::new(b"x".to_vec())))), "x y"),
        ("register", "", Order::Licence, ""),
        ("reload", "", Order::Reload, "now"),
        ("rename", "ann bob", Order::Rename(ann(), "bob".to_owned()), "ann"),
        ("shutdown", "", Order::Shutdown, "now"),
        ("statistics", "-U hour", Order::ByTool(Tool::Statistics), ""),
        ("stats", "--sort bytes file", Order::ByTool(Tool::Stats), ""),
        ("status", "", Order::Status, "now"),
        ("undelete", "ann", Order::Undelete(ann()), "ann bob"),
        ("users", "a*", Order::Users(Some("a*".to_owned())), "a* b*"),
        ("version", "", Order::Version, "2"),
    ]
}

#[test]
fn every_verb_takes_what_its_row_says_and_nothing_else() {
    let examples = examples();
    let names: Vec<&str> = examples.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, VERBS.iter().map(|verb| verb.name).collect::<Vec<_>>(), "an example for each, in the same order");
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
    assert!(parse(&["kick".to_owned(), String::new()]).is_err(), "an empty name");
}

#[test]
fn who_may_use_which_verb() {
    let group = [
        "help",
        "key",
        "kick",
        "lookup",
        "mem",
        "register",
        "statistics",
        "stats",
        "status",
        "undelete",
        "users",
        "version",
    ];
    for verb in VERBS {
        assert!(Caller::Owner.may(verb.rights), "{}", verb.name);
        assert_eq!(Caller::Member.may(verb.rights), group.contains(&verb.name), "{}", verb.name);
        assert!(!Caller::Stranger.may(verb.rights), "{}", verb.name);
        assert!(Caller::Member.refusal(verb).contains(verb.name));
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
fn every_verb_is_in_the_help_in_the_order_of_names() {
    let help = help();
    assert!(VERBS.iter().all(|verb| help.contains(verb.name) && help.contains(verb.help)));
    assert!(VERBS.is_sorted_by_key(|verb| verb.name));
}
