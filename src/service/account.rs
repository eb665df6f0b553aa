//! From a login, and an authenticator's answer, to the place where the mail lies.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::protocol::helper::Account;
use crate::rules::domains::{Home, Name};
use crate::rules::{info, names};
use crate::settings::{LockMethod, Settings};
use crate::store::maildrop::{LockKind, Place};
use crate::store::path::drop_path;
use crate::sys::user;

/// Who a login means that came to the domain `here`, or `None` when no user can be called so.
pub fn name(login: &[u8], here: Home, settings: &Settings) -> Option<Name> {
    settings.domains.resolve(login, here)
}

/// Where this user's mail is. Refuses, with a sentence for the log, what an authenticator must not answer.
pub fn place(name: &Name, account: &Account, settings: &Settings) -> Result<Place, String> {
    let drop = match &account.path {
        None => drop_path(settings.domains.drops_of(name), settings.hash_spool, &name.local, &name.file),
        Some(path) => checked(Path::new(OsStr::from_bytes(path)), &settings.drop_root)?,
    };
    Ok(place_of(drop, settings))
}

/// Bytes that this user's mail may have: his own bound, or everybody's; 0 = no bound.
pub fn limit(account: &Account, settings: &Settings) -> u64 {
    info::quota(&account.info).unwrap_or(settings.drop_max.saturating_mul(1024))
}

/// The place of a drop, as the settings have it.
pub fn place_of(drop: PathBuf, settings: &Settings) -> Place {
    Place {
        drop,
        bin_path: settings.bin_path.clone(),
        work_path: settings.shared_work_path(),
        owner: None,
        full: settings.bin_pfull,
        locks: settings.lock_method.iter().map(lock).collect(),
        hash_bindir: settings.hash_bindir,
        min_space_bytes: settings.min_space.saturating_mul(1 << 20),
        lone: false,
        add_status: settings.add_status,
    }
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
mod tests;
