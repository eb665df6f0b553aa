use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::rules::domains::Home;
use crate::settings::{Level, parse};
use crate::sys::files::{effective_uid, open_to_read};

fn settings(folder: &Path, more: &str) -> Settings {
    let text =
        format!("host_domain example.test\ndrop_path drop\nwork_path work\nauthent_process nwauth\nmin_uid 1\n{more}");
    let loaded = parse::load_text(&folder.join("dmail.conf"), text.as_bytes());
    loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.complaints))
}

fn written(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A configuration's table, and its complaints as printed, without the folder.
fn drawn(folder: &Path, more: &str) -> (Settings, Table, Vec<String>) {
    let settings = settings(folder, more);
    let (table, complaints) = draw(&settings, &open_to_read);
    assert!(complaints.iter().all(|complaint| complaint.level == Level::Error));
    let shown = complaints.iter().map(|complaint| complaint.to_string().replace(&format!("{}/", folder.display()), ""));
    let shown = shown.collect();
    (settings, table, shown)
}

#[test]
fn alias_files_are_read_with_what_they_include_and_are_told_of_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("list"), "ann\nbob@far.example\n").unwrap();
    fs::write(path("aliases"), format!("staff: :include:{}\n", path("list").display())).unwrap();
    let (_, table, told) = drawn(folder.path(), "alias_file aliases\n");
    assert_eq!(told, [""; 0]);
    let found = table.aliases.find("staff", "example.test", true).unwrap();
    assert_eq!(
        found.targets().map(|target| target.to_string()).collect::<Vec<_>>(),
        ["ann@example.test", "bob@far.example"]
    );

    let (.., told) = drawn(folder.path(), "alias_file nowhere\n");
    assert!(told[0].starts_with("dmail.conf:6:1: error: the alias file nowhere: it cannot be read"), "{told:?}");
    fs::set_permissions(path("list"), Permissions::from_mode(0o666)).unwrap();
    let (.., told) = drawn(folder.path(), "alias_file aliases\n");
    assert!(told[0].starts_with("aliases:1: error: list: everybody may write to it"), "{told:?}");
    written(&path("aliases"), "a: b\nb: a\nx /y\n", 0o600);
    let (.., told) = drawn(folder.path(), "alias_file aliases\n");
    assert!(told[0].starts_with("aliases:3: error: `x /y`: an alias is a name"), "{told:?}");
    assert!(told[1].starts_with("aliases:1: error: this goes round in circles: a -> b -> a"), "{told:?}");
    fs::set_permissions(path("aliases"), Permissions::from_mode(0o602)).unwrap();
    let (.., told) = drawn(folder.path(), "alias_file aliases\n");
    assert!(told[0].contains("everybody may write to it: `chmod o-w"), "{told:?}");
    let (.., told) = drawn(folder.path(), "alias_file drop/../.\n");
    assert!(told[0].contains("it is not a regular file") || told[0].contains("cannot be read"), "{told:?}");
}

#[test]
fn what_was_applied_is_told_with_the_line_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("aliases"), "# mine\ninfo: ann@far.example\n").unwrap();
    let more =
        "alias_file aliases\nforward sales@example.test info@example.test\ncatch_all example.test sales@example.test\n";
    let (settings, table, told_of) = drawn(folder.path(), more);
    assert_eq!(told_of, [""; 0]);
    let mut route: Route<Arc<Account>> = Route::new(addressee("whoever@example.test").unwrap(), Stage::Whole, true);
    let Want::User(name) = route.next(&table, &settings.domains) else { panic!("he is asked about") };
    assert_eq!(name.shown(), "whoever");
    assert_eq!(route.looked_up(Ok(None), &table, &settings.domains), Want::Nothing);
    let lines: Vec<String> = route.trail().iter().map(|applied| told(applied, &settings)).collect();
    let lines: Vec<String> =
        lines.iter().map(|line| line.replace(&format!("{}/", folder.path().display()), "")).collect();
    assert_eq!(
        lines,
        [
            "user: whoever@example.test -> there is none",
            "dmail.conf:8:1: catch_all: whoever@example.test -> sales@example.test",
            "dmail.conf:7:1: forward: sales@example.test -> info@example.test",
            "aliases:2: alias: info@example.test -> ann@far.example",
            "another host: ann@far.example -> sent there",
        ]
    );
    let ways: Vec<Way> = route.finish().unwrap().into_iter().filter_map(way).collect();
    assert!(
        matches!(&ways[..], [Way { to: Destination::Remote(address), sender: None, .. }] if address.to_string() == "ann@far.example")
    );
}

#[test]
fn addresses_of_the_envelope_go_through_and_come_back() {
    for text in ["Ann@Example.test", "\"ann b\"@x.example", "ann@[192.0.2.1]", "ann@[IPv6:2001:db8::1]", "ü@ü.example"]
    {
        let (Some(recipient), _) = address::path(format!("<{text}>").as_bytes(), true).unwrap() else {
            panic!("{text}")
        };
        let whole = whole(&recipient, "main.example");
        assert_eq!(address(whole).as_ref(), Some(&recipient), "{text}");
    }
    let (Some(here), _) = address::path(b"<postmaster>", true).unwrap() else { panic!() };
    assert_eq!(whole(&here, "main.example").to_string(), "postmaster@main.example");
}

#[test]
fn every_failure_has_a_reply_whose_class_says_whether_to_try_again() {
    let folder = tempfile::tempdir().unwrap();
    let (temporary, permanent) = (settings(folder.path(), ""), settings(folder.path(), "quota_reply permanent\n"));
    for failure in [Failure::Nobody, Failure::Round, Failure::TooMany] {
        assert_eq!(reply(failure, &temporary).code() / 100, 5, "{failure:?}");
    }
    for failure in [Failure::Unclear, Failure::Stuck, Failure::Misconfigured] {
        assert_eq!(reply(failure, &permanent).code(), 451, "{failure:?}");
    }
    assert_eq!((reply(Failure::Full, &temporary).code(), reply(Failure::Full, &permanent).code()), (452, 552));
}

/// A look at ann's mailbox below the folder.
fn look(folder: &Path, more: &str, limit: u64, octets: u64) -> Result<Looked, String> {
    let settings = settings(folder, more);
    let name = settings.domains.resolve(b"ann", Home::default()).unwrap();
    let account = Account { user: b"ann".to_vec(), path: None, uid: None, info: Vec::new() };
    let place = account::place(&name, &account, &settings).unwrap();
    let uid = Some(effective_uid().max(1).to_string().into_bytes()).filter(|_| effective_uid() != 0);
    Looking { place, uid, follow: true, limit, octets, settings: &settings }.look(&RealDisk::default(), None)
}

#[test]
fn a_mailbox_is_looked_at_for_a_forward_file_and_for_room() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("drop")).unwrap();
    fs::create_dir(folder.path().join("work")).unwrap();
    let looked = |limit, octets| look(folder.path(), "", limit, octets).unwrap();
    assert_eq!(looked(0, 1 << 40), Looked { forward: None, ignored: None, room: None, full: false });
    assert!(!looked(1000, 1000).full && looked(1000, 1001).full);
    assert_eq!(looked(1000, 0).room, Some(1000));
    written(&folder.path().join("drop/ann"), &"From a@b Thu Jan  1 00:00:00 1970\n\nx\n".repeat(10), 0o600);
    assert!(!looked(1000, 100).full && looked(1000, 900).full);
    assert_eq!(
        (looked(1000, 0).room, looked(100, 0)),
        (Some(630), Looked { room: Some(0), full: true, ..looked(0, 0) })
    );
    let fwd = folder.path().join("drop/ann.fwd");
    written(&fwd, "bob\n", 0o600);
    assert_eq!(looked(0, 0).forward.as_deref(), Some("bob\n"));
    written(&fwd, "bob\n", 0o666);
    let ignored = looked(0, 0);
    assert_eq!((ignored.forward, ignored.ignored.as_deref()), (None, Some("others may write to it")));
    fs::remove_dir_all(folder.path().join("drop")).unwrap();
    assert_eq!(looked(0, 0), Looked { forward: None, ignored: None, room: None, full: false }, "he had no mail yet");
}
