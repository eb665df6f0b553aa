//! The drops: one open, write and close each, by some threads; no sync, for one sync of the file system follows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use dmail::mail::asctime;
use dmail::text::fault::Fault;
use indicatif::ProgressBar;

use super::order::Order;
use super::plan::Plan;
use crate::manifest::Manifest;

/// A thread takes so many accounts at a time.
const SHARE: usize = 64;
/// Longer drops are written in parts: memory does not depend on the largest.
const PART: usize = 8 << 20;

/// Writes them all; gives the octets of each account's mail, by account.
pub fn drops(order: &Order, plan: &Plan, bar: &ProgressBar) -> Result<Vec<u64>, String> {
    let manifest = &order.manifest;
    let owner = order.run_as.as_ref().map(|user| (user.uid, user.gid));
    let octets: Vec<AtomicU64> = (0..manifest.count()).map(|_| AtomicU64::new(0)).collect();
    each(&plan.order, order.threads, |index, buffer| {
        let login = manifest.login(index);
        let path = manifest.drop_path(&order.dir, &login);
        let fault = Fault::at("writing", &path);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            if let Some((uid, gid)) = owner {
                fchown(&file, Some(uid), Some(gid))?;
            }
            one(manifest, index, &login, buffer, |part| {
                bar.inc(part.len() as u64);
                file.write_all(part)
            })
        })();
        octets[index as usize].store(written.map_err(fault)?, Ordering::Relaxed);
        Ok(())
    })?;
    Ok(octets.into_iter().map(AtomicU64::into_inner).collect())
}

/// Reads them all, and refuses at the first that is not as it was made; gives how many there are.
pub fn compare(dir: &Path, manifest: &Manifest, threads: usize) -> Result<u64, String> {
    let order: Vec<u32> = (0..manifest.count()).map(|index| index as u32).collect();
    each(&order, threads, |index, buffer| {
        let login = manifest.login(index);
        let path = manifest.drop_path(dir, &login);
        let mut file = File::open(&path).map_err(Fault::at("opening", &path))?;
        let mut found = Vec::new();
        let same = one(manifest, index, &login, buffer, |part| {
            found.resize(part.len(), 0);
            file.read_exact(&mut found)?;
            if found == part { Ok(()) } else { Err(io::Error::other("it is not as it was made")) }
        });
        same.map_err(Fault::at("comparing", &path))?;
        match file.read(&mut [0]).map_err(Fault::at("reading", &path))? {
            0 => Ok(()),
            _ => Err(Fault::new("comparing", &path, io::Error::other("it is longer than it was made"))),
        }
    })?;
    Ok(manifest.count())
}

/// Makes the drop of account `index`, and gives it away in parts; the octets of its mail.
fn one(
    manifest: &Manifest,
    index: u64,
    login: &str,
    buffer: &mut Vec<u8>,
    mut give: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    buffer.clear();
    let mut octets = 0;
    for (message, number) in manifest.mailbox(index).messages.iter().zip(1..) {
        let (letter, from) = manifest.letter(index, login, number, message);
        octets += letter.octets();
        buffer.extend_from_slice(format!("From {from} {}\n", asctime::written(message.written_secs)).as_bytes());
        let mut given = Ok(());
        letter.each(|part| {
            buffer.extend_from_slice(part);
            if buffer.len() >= PART && given.is_ok() {
                given = give(buffer);
                buffer.clear();
            }
        });
        given?;
        buffer.push(b'\n');
    }
    if !buffer.is_empty() {
        give(buffer)?;
    }
    Ok(octets)
}

/// Does something for each of `accounts`, in this order but for what happens at the same time; ends at the first fault.
fn each(
    accounts: &[u32],
    threads: usize,
    work: impl Fn(u64, &mut Vec<u8>) -> Result<(), Fault> + Sync,
) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let fault = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buffer = Vec::new();
                while !failed.load(Ordering::Relaxed) {
                    let from = next.fetch_add(SHARE, Ordering::Relaxed);
                    let Some(share) = accounts.get(from..accounts.len().min(from + SHARE)).filter(|s| !s.is_empty())
                    else {
                        return;
                    };
                    for &index in share {
                        if let Err(why) = work(u64::from(index), &mut buffer) {
                            failed.store(true, Ordering::Relaxed);
                            fault.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(why);
                            return;
                        }
                    }
                }
            });
        }
    });
    match fault.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        Some(why) => Err(format!("{why}; what is there so far is left as it is")),
        None => Ok(()),
    }
}
