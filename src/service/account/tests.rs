use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::settings::parse;
use crate::store::maildrop::{Maildrop, Reach};

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

/// Settings below `dir` with three domains of virtual users and the lines `more`.
fn domains(dir: &Path, more: &str) -> Settings {
    let text = format!(
        "host_domain example.test\ndrop_path drop\nwork_path work\nauthent_process nwauth\n\
         vdomain A 10.0.0.1 a.test a\nvdomain A /a a.test a\nvdomain B 10.0.0.2 b.test b\nvdomain B %b b.test b\n\
         vdomain C @c.test c.test c\n{more}"
    );
    let loaded = parse::load_text(&dir.join("dmail.conf"), text.as_bytes());
    loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.complaints))
}

#[test]
fn paths_that_an_authenticator_names_may_lie_where_virtual_domains_have_theirs() {
    let settings = domains(Path::new("/srv"), "");
    let fred = fred(&settings);
    assert!(place(&fred, &account(Some("/srv/b/x")), &settings).is_ok());
    assert!(place(&fred, &account(Some("/srv/e/x")), &settings).is_err());
}

#[test]
fn hash_directories_follow_the_user_and_not_the_prefix() {
    let settings = domains(Path::new("/srv"), "hash_spool 2\n");
    let virtually = name(b"fred/a", Home::default(), &settings).unwrap();
    assert_eq!(place(&virtually, &account(None), &settings).unwrap().drop, Path::new("/srv/a/f/r/A_fred"));
}

#[test]
fn the_same_name_in_all_domains_has_drop_and_bin_for_each() {
    for more in ["drop_prefix false\n", "drop_prefix false\nbin_path bins\n", "bin_path bins\n", ""] {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["drop", "a", "b", "c", "work", "bins"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            fs::set_permissions(dir.path().join(folder), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let settings = domains(dir.path(), more);
        let logins = ["fred", "fred/a", "fred%b", "fred@c.test"];
        let places = logins.map(|login| {
            let name = name(login.as_bytes(), Home::default(), &settings).unwrap();
            let place = place(&name, &account(None), &settings).unwrap();
            let text = format!("From x Mon Jan  5 10:00:00 2026\nSubject: {login}\n\n{login}\n\n");
            fs::write(&place.drop, text.repeat(login.len())).unwrap();
            place
        });
        // All are open at once: two that shared a bin would be [IN-USE].
        let open = places.map(|place| Maildrop::open(&place).unwrap());
        for (mut maildrop, login) in open.into_iter().zip(logins) {
            assert_eq!(maildrop.totals().messages as usize, login.len(), "{login} {more}");
            let row = maildrop.page(1, Reach::Wait).unwrap()[0];
            maildrop.mark(&row);
            assert_eq!(maildrop.commit().unwrap().deleted, 1);
        }
        for login in logins {
            let name = name(login.as_bytes(), Home::default(), &settings).unwrap();
            let place = place(&name, &account(None), &settings).unwrap();
            let left = Maildrop::open(&place).unwrap().totals().messages as usize;
            assert_eq!(left, login.len() - 1, "{login} {more}: one deletion each, in a ledger of its own");
        }
    }
}

/// What is asked, and where the mail is: as the manual's table has it, without anything of `rules::domains`.
fn naive(login: &str, address: u8, drop_prefix: bool, authent_domain: bool) -> Option<(String, PathBuf)> {
    let login = login.to_lowercase();
    let homes = [("a", "A", "/a"), ("b", "B", "%b"), ("c", "C", "@c.test")];
    let (user, home) = match homes.iter().find(|(_, _, suffix)| login.ends_with(suffix)) {
        Some(home) => (login[..login.len() - home.2.len()].to_owned(), Some(home)),
        None => match login.split_once('@') {
            Some((user, "a.test")) => (user.to_owned(), Some(&homes[0])),
            Some((user, "b.test")) => (user.to_owned(), Some(&homes[1])),
            Some((user, "example.test")) => (user.to_owned(), None),
            Some(_) => return None,
            None => (login, homes.get(usize::from(address) - 1)),
        },
    };
    if user.trim() != user || user.is_empty() || user.contains(['@', '/']) || user.contains("%00") {
        return None;
    }
    let dir = Path::new("/srv");
    match home {
        None if !authent_domain
            && homes.iter().any(|(small, ..)| user.len() > 2 && user.starts_with(&format!("{small}_"))) =>
        {
            None
        }
        None => {
            let asked = if authent_domain { format!("{user}@example.test") } else { user.clone() };
            Some((asked, dir.join("drop").join(user)))
        }
        Some((small, prefix, _)) => {
            let full = format!("{prefix}_{user}");
            let asked = if authent_domain { format!("{user}@{small}.test") } else { full.clone() };
            Some((asked, dir.join(small).join(if drop_prefix { full } else { user })))
        }
    }
}

#[test]
fn ten_thousand_random_logins_are_asked_and_placed_as_the_naive_twin_has_it() {
    // A plain generator: the same logins each time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most
    };
    let users =
        ["fred", "Fred", "FRED", "fred ", " fred", "ann", "a_fred", "A_Fred", "b_ann", "c_", "fred%00x", "a_b_fred"];
    let endings =
        ["", "", "", "/a", "/A", "%b", "@c.test", "@A.test", "@b.TEST", "@example.test", "@other.test", "/a%b", " "];
    for (drop_prefix, authent_domain) in [(true, false), (true, true), (false, false), (false, true)] {
        let more = format!("drop_prefix {drop_prefix}\nauthent_domain {authent_domain}\n");
        let settings = domains(Path::new("/srv"), &more);
        let mut good = 0;
        for _ in 0..2500 {
            let login = format!("{}{}", users[below(users.len())], endings[below(endings.len())]);
            let address = 1 + below(5) as u8;
            let here = settings.domains.home_at(std::net::Ipv4Addr::new(10, 0, 0, address).into());
            // The naive one knows c by its address too; here it has none.
            let there = if address == 3 { 4 } else { address };
            let found = name(login.as_bytes(), here, &settings);
            let found = found.filter(|name| !name.shown().ends_with("@other.test")).map(|name| {
                let drop = place(&name, &account(None), &settings).unwrap().drop;
                (String::from_utf8(name.asked).unwrap(), drop)
            });
            assert_eq!(found, naive(&login, there, drop_prefix, authent_domain), "{login:?} at {address}");
            good += usize::from(found.is_some());
        }
        assert!((500..2300).contains(&good), "{good}");
    }
}
