use super::*;

fn settings() -> Settings {
    Settings::for_tests(Path::new("/srv/mail"))
}

fn account(path: Option<&str>) -> Account {
    Account { user: b"fred".to_vec(), path: path.map(|path| path.into()), uid: None, info: Vec::new() }
}

fn fred(settings: &Settings) -> Name {
    name(b"fred", Home::default(), settings).unwrap()
}

#[test]
fn an_authenticator_names_drop_files_below_the_roots_and_nothing_else() {
    let settings = settings();
    let fred = fred(&settings);
    assert_eq!(place(&fred, &account(None), &settings).unwrap().drop, Path::new("/srv/mail/drop/fred"));
    let inside = place(&fred, &account(Some("/srv/mail/drop/x/fred")), &settings).unwrap();
    assert_eq!(inside.drop, Path::new("/srv/mail/drop/x/fred"));
    for path in [
        "/etc/passwd",
        "fred",
        "drop/fred",
        "/srv/mail/drop/../../etc/passwd",
        "/srv/mail/dropped/fred",
        "/srv/mail/drop/.fred.bin",
        "/srv/mail/drop/fred.lock",
        "/srv/mail/drop/",
        "/srv/mail/drop",
        "/",
        "",
    ] {
        assert!(place(&fred, &account(Some(path)), &settings).is_err(), "{path:?}");
    }
}

#[test]
fn low_uids_and_unknown_users_own_no_mail() {
    assert_eq!(owner(b"1000", 100), Ok(1000));
    assert!(owner(b"99", 100).is_err());
    assert!(owner(b"root", 100).is_err());
    assert!(owner(b"no-such-user", 100).is_err());
    assert!(owner(b"4294967296", 100).is_err());
}
