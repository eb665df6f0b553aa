//! From a login, and an authenticator's answer, to the place where the mail lies.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::protocol::helper::Account;
use crate::rules::names;
use crate::settings::{LockMethod, Settings};
use crate::store::maildrop::{LockKind, Place};
use crate::store::path::drop_path;
use crate::sys::user;

/// Who somebody says he is, in the one form that everything else compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// In lower case, without our main domain: `fred`, or `fred@other.example`.
    pub user: String,
    /// What the authenticator is told.
    pub asked: Vec<u8>,
}

/// The name that a login means, or `None` when no user can have it.
pub fn name(login: &[u8], settings: &Settings) -> Option<Name> {
    let login = std::str::from_utf8(login).ok()?.to_ascii_lowercase();
    let user = match login.rsplit_once('@') {
        Some((local, domain)) if settings.host_domain.iter().any(|ours| ours == domain) => local,
        _ => &login,
    };
    if !names::is_user_name(user.as_bytes()) {
        return None;
    }
    let asked = if settings.authent_domain && !user.contains('@') {
        format!("{user}@{}", settings.main_domain()).into_bytes()
    } else {
        user.as_bytes().to_vec()
    };
    Some(Name { user: user.to_owned(), asked })
}

/// Where this user's mail is. Refuses, with a sentence for the log, what an authenticator must not answer.
pub fn place(user: &str, account: &Account, settings: &Settings) -> Result<Place, String> {
    let drop = match &account.path {
        None => drop_path(&settings.drop_path, settings.hash_spool, user),
        Some(path) => checked(Path::new(OsStr::from_bytes(path)), &settings.drop_root)?,
    };
    Ok(Place {
        drop,
        bin_path: settings.bin_path.clone(),
        work_path: settings.work_path.clone(),
        owner: None,
        locks: settings.lock_method.iter().map(lock).collect(),
        lone: false,
    })
}

/// The number behind an authenticator's uid field. May ask a name service, so this is for a job.
pub fn owner(uid: &[u8], min_uid: u32) -> Result<u32, String> {
    let text = String::from_utf8_lossy(uid);
    let number = match text.parse::<u32>() {
        Ok(number) => Some(number),
        Err(_) => user::entry(uid).map_err(|error| format!("uid {text}: {error}"))?.map(|entry| entry.uid),
    };
    match number {
        Some(number) if number >= min_uid => Ok(number),
        Some(number) => Err(format!("uid {number} is below min_uid {min_uid}")),
        None => Err(format!("uid {text}: no such user")),
    }
}

fn lock(method: &LockMethod) -> LockKind {
    match method {
        LockMethod::Dotlock => LockKind::Dotlock,
        LockMethod::Fcntl => LockKind::Fcntl,
        LockMethod::Flock => LockKind::Flock,
    }
}

/// A path that an authenticator gave: absolute, without `..`, below a root, and not the name of something of ours.
fn checked(path: &Path, roots: &[PathBuf]) -> Result<PathBuf, String> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let named = path.file_name().is_some_and(|name| names::is_user_name(name.as_bytes()));
    if !path.is_absolute() || !plain || !named {
        return Err(format!("{}: not the full path of a drop file", path.display()));
    }
    if !roots.iter().any(|root| path != root && path.starts_with(root)) {
        return Err(format!("{}: not below a drop_root", path.display()));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::for_tests(Path::new("/srv/mail"))
    }

    fn account(path: Option<&str>) -> Account {
        Account { user: b"fred".to_vec(), path: path.map(|path| path.into()), uid: None, info: Vec::new() }
    }

    #[test]
    fn names_are_case_blind_and_lose_our_own_domain() {
        let mut settings = settings();
        settings.host_domain = vec!["example.test".into(), "alias.test".into()];
        for (login, user) in [
            ("fred", Some("fred")),
            ("Fred", Some("fred")),
            ("FRED@Example.Test", Some("fred")),
            ("fred@alias.test", Some("fred")),
            ("fred@other.test", Some("fred@other.test")),
            ("../root", None),
            ("a/b", None),
            (".hidden", None),
            ("fred.lock", None),
            ("fred.fwd@example.test", None),
            ("fr\0ed", None),
            ("fr\ned", None),
            ("", None),
            ("@example.test", None),
        ] {
            let found = name(login.as_bytes(), &settings).map(|name| name.user);
            assert_eq!(found.as_deref(), user, "{login:?}");
        }
        assert_eq!(name(b"fred", &settings).unwrap().asked, b"fred");
        settings.authent_domain = true;
        assert_eq!(name(b"fred", &settings).unwrap().asked, b"fred@example.test");
        assert_eq!(name(b"fred@other.test", &settings).unwrap().asked, b"fred@other.test");
    }

    #[test]
    fn an_authenticator_names_drop_files_below_the_roots_and_nothing_else() {
        let settings = settings();
        assert_eq!(place("fred", &account(None), &settings).unwrap().drop, Path::new("/srv/mail/drop/fred"));
        let inside = place("fred", &account(Some("/srv/mail/drop/x/fred")), &settings).unwrap();
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
            assert!(place("fred", &account(Some(path)), &settings).is_err(), "{path:?}");
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
}
