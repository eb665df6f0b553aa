//! What an order comes to, before anything is written: exact for the drops, close for the directories and lists beside them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use dmail::sys::files::{free_bytes, free_inodes};
use dmail::text::fault::Fault;

use super::order::Order;
use crate::laws::Kind;
use crate::manifest::{FROM_LINE_BYTES, Manifest, Totals};

/// What a file takes on the disk is a multiple of this, nearly everywhere.
const BLOCK: u64 = 4_096;
/// An entry of a directory beside the name it holds; directories of ext4 are three quarters full.
const ENTRY: u64 = 16;
/// A line in each of users, accounts and drops, beside the login and the password.
const LINES: u64 = 60;
/// Files of the server, and whatever was forgotten.
const BESIDE: u64 = 1 << 20;

/// What is to be written where.
pub struct Plan {
    /// Octets are not known before the letters are written.
    pub totals: Totals,
    /// Of the drop files.
    pub bytes: u64,
    /// What that takes on the disk, with everything beside.
    pub disk_bytes: u64,
    /// Files and directories.
    pub inodes: u64,
    /// Accounts, those of one directory together: they lie side by side on the disk then.
    pub order: Vec<u32>,
    /// The directories of the drops, below the spool folder.
    pub dirs: Vec<PathBuf>,
}

impl Plan {
    /// Draws everything once.
    pub fn of(manifest: &Manifest) -> Plan {
        let mut totals = Totals::default();
        let (mut disk_bytes, mut names) = (0, 0);
        let mut dirs: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
        for index in 0..manifest.count() {
            let mailbox = manifest.mailbox(index);
            let login = manifest.login(index);
            match mailbox.kind {
                Kind::Empty => totals.empty += 1,
                Kind::Small => totals.small += 1,
                Kind::Large => totals.large += 1,
                Kind::Shaped => {}
            }
            let bytes: u64 = mailbox.messages.iter().map(|message| FROM_LINE_BYTES + message.bytes + 1).sum();
            totals.messages += mailbox.messages.len() as u64;
            totals.bytes += bytes;
            disk_bytes += bytes.next_multiple_of(BLOCK);
            names += login.len() as u64;
            let path = manifest.drop_path(Path::new(""), &login);
            let dir = path.parent().expect("a drop lies in a directory").to_owned();
            dirs.entry(dir).or_default().push(u32::try_from(index).expect("ACCOUNTS_MOST bounds it"));
        }
        let entries = (names + manifest.count() * ENTRY) * 4 / 3 + dirs.len() as u64 * BLOCK;
        let lists = 3 * names + manifest.count() * (LINES + 2 * manifest.password.len() as u64);
        Plan {
            bytes: totals.bytes,
            disk_bytes: disk_bytes + entries + lists + BESIDE,
            // Directories above those of the drops are no more than these.
            inodes: manifest.count() + 2 * dirs.len() as u64 + 16,
            order: dirs.values().flatten().copied().collect(),
            dirs: dirs.into_keys().collect(),
            totals,
        }
    }

    /// For whoever waits for it.
    pub fn told(&self, order: &Order) -> String {
        let Totals { empty, small, large, messages, .. } = self.totals;
        let shaped = order.manifest.shapes.len();
        let shaped = if shaped > 0 { format!(", {shaped} as asked for") } else { String::new() };
        format!(
            "{}: {} accounts ({empty} without mail, {small} small, {large} large{shaped}), {messages} messages, {}\nit takes {} \
             and {} inodes\n",
            order.dir.display(),
            order.manifest.count(),
            size(self.bytes),
            size(self.disk_bytes),
            self.inodes,
        )
    }

    /// Refuses where the disk that `dir` is on, or will be, has less.
    pub fn fits(&self, dir: &Path) -> Result<(), String> {
        let above = Order::whole(dir);
        let there = above.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let fault = |error| Fault::new("asking for the free space of", there, error).to_string();
        let place = File::open(there).map_err(fault)?;
        self.compare(dir, free_bytes(&place).map_err(fault)?, free_inodes(&place).map_err(fault)?)
    }

    fn compare(&self, dir: &Path, bytes: u64, inodes: Option<u64>) -> Result<(), String> {
        let advice = "make fewer accounts (--accounts), less mail (--law), or name a folder on another disk";
        let dir = dir.display();
        match inodes {
            _ if bytes < self.disk_bytes => Err(format!("{dir}: the disk has {} free; {advice}", size(bytes))),
            Some(inodes) if inodes < self.inodes => Err(format!("{dir}: the disk has {inodes} inodes free; {advice}")),
            _ => Ok(()),
        }
    }
}

/// `12.3 GB`: thousands, as disks are sold.
fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "bytes");
    for next in ["KB", "MB", "GB", "TB"] {
        if value < 1_000.0 {
            break;
        }
        (value, unit) = (value / 1_000.0, next);
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let sizes = [0, 999, 1_000, 12_345_678, 1_000_000_000].map(size);
        assert_eq!(sizes, ["0 bytes", "999 bytes", "1.0 KB", "12.3 MB", "1.0 GB"]);
    }

    #[test]
    fn a_disk_that_has_less_is_refused() {
        let plan = Plan {
            totals: Totals::default(),
            bytes: 900,
            disk_bytes: 1_000_000,
            inodes: 50,
            order: Vec::new(),
            dirs: Vec::new(),
        };
        let dir = Path::new("d");
        assert_eq!(plan.compare(dir, 1_000_000, Some(50)), Ok(()));
        assert_eq!(plan.compare(dir, 1_000_000, None), Ok(()));
        assert!(plan.compare(dir, 999_999, Some(50)).unwrap_err().starts_with("d: the disk has 1000.0 KB free; make"));
        assert!(
            plan.compare(dir, 1_000_000, Some(49)).unwrap_err().starts_with("d: the disk has 49 inodes free; make")
        );
    }
}
