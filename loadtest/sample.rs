//! What processes use, read from /proc: a server's by pid, all of its descendants together, and the kernel's own share.
//!
//! | what     | from                        | counts                                                             |
//! |----------|-----------------------------|--------------------------------------------------------------------|
//! | `pss`    | `smaps_rollup`, Pss         | its pages; what n processes share counts an n-th for each          |
//! | `private`| Private_Clean + Private_Dirty | its pages that nobody else maps                                  |
//! | `cpu`    | `stat`, utime + stime       | of all threads, and of children that were waited for               |
//! | `files`  | `fd`                        | open descriptors                                                   |
//! | kernel   | `meminfo`, `net/sockstat`   | of the whole machine: only a difference says something, on a calm one |
//!
//! A process that ends while it is looked at counts nothing.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Clock ticks a second in /proc: fixed in the kernel's interface.
const TICKS: u64 = 100;
/// Bytes of a page in `net/sockstat`.
const PAGE: u64 = 4096;

/// What some processes use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    pub processes: u64,
    pub pss: u64,
    pub private: u64,
    pub cpu: Duration,
    pub files: u64,
}

/// Looks at these processes.
pub fn sample(pids: &[u32]) -> Sample {
    let mut sum = Sample::default();
    for &pid in pids {
        let folder = folder(pid);
        let Ok(rollup) = fs::read_to_string(folder.join("smaps_rollup")) else { continue };
        sum.processes += 1;
        sum.pss += field(&rollup, "Pss:");
        sum.private += field(&rollup, "Private_Clean:") + field(&rollup, "Private_Dirty:");
        sum.files += fs::read_dir(folder.join("fd")).map_or(0, |files| files.count() as u64);
        sum.cpu += cpu(&fs::read_to_string(folder.join("stat")).unwrap_or_default());
    }
    sum
}

/// The Pss of these processes alone: what a peak is looked for by.
pub fn pss(pids: &[u32]) -> u64 {
    let rollup = |pid: &u32| fs::read_to_string(folder(*pid).join("smaps_rollup")).ok();
    pids.iter().filter_map(rollup).map(|rollup| field(&rollup, "Pss:")).sum()
}

/// What the kernel holds for everybody, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Its own objects: sockets, files, inodes, epoll entries.
    pub slab: u64,
    pub page_tables: u64,
    pub stacks: u64,
    /// What sockets have in flight.
    pub sockets: u64,
}

impl Kernel {
    /// Now, for the whole machine.
    pub fn now() -> Kernel {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
        Kernel::read(&meminfo, &sockets)
    }

    fn read(meminfo: &str, sockstat: &str) -> Kernel {
        let tcp = sockstat.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
        let pages = tcp.split_whitespace().skip_while(|&word| word != "mem").nth(1);
        Kernel {
            slab: field(meminfo, "SUnreclaim:"),
            page_tables: field(meminfo, "PageTables:"),
            stacks: field(meminfo, "KernelStack:"),
            sockets: pages.and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE,
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.slab + self.page_tables + self.stacks + self.sockets
    }
}

/// The process of that number and all below it, without the first `above` generations.
pub fn descendants(pid: u32, above: usize) -> Vec<u32> {
    let numbers = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(numbers);
    let parents = all.filter_map(|pid| {
        let stat = fs::read_to_string(folder(pid).join("stat")).ok()?;
        Some((pid, words(&stat).nth(1)?.parse().ok()?))
    });
    below(pid, above, parents)
}

fn below(pid: u32, above: usize, parents: impl Iterator<Item = (u32, u32)>) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    parents.for_each(|(pid, parent)| children.entry(parent).or_default().push(pid));
    let (mut found, mut generation) = (Vec::new(), vec![pid]);
    for depth in 0.. {
        if generation.is_empty() {
            break;
        }
        if depth >= above {
            found.extend_from_slice(&generation);
        }
        // Each process has one parent, so that taking the lists away ends this.
        generation = generation.iter().filter_map(|pid| children.remove(pid)).flatten().collect();
    }
    found
}

fn folder(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// The fields of `stat` behind the name, which is in brackets and may hold anything: state, parent ...
fn words(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

/// utime, stime, and those of children that were waited for.
fn cpu(stat: &str) -> Duration {
    let ticks: u64 = words(stat).skip(11).take(4).filter_map(|word| word.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// A field that is given in kB, in bytes; 0 when there is none.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_a_process_is_found_but_for_what_is_above_the_server() {
        let parents = [(2, 1), (3, 2), (4, 3), (5, 3), (6, 1), (7, 6), (8, 5)];
        assert_eq!(below(2, 0, parents.into_iter()), [2, 3, 4, 5, 8]);
        assert_eq!(below(2, 2, parents.into_iter()), [4, 5, 8]);
        assert_eq!(below(9, 1, parents.into_iter()), [0_u32; 0]);
    }

    #[test]
    fn a_name_with_brackets_and_blanks_moves_no_field() {
        let stat = "12 (a) b) c) S 7 12 12 0 -1 4194560 1 2 3 4 250 50 10 5 20 0 1 0";
        assert_eq!(words(stat).nth(1), Some("7"));
        assert_eq!(cpu(stat), Duration::from_millis(3150));
        assert_eq!(cpu("gone"), Duration::ZERO);
    }

    #[test]
    fn the_kernels_share_is_read_in_bytes() {
        let meminfo = "MemTotal: 1 kB\nSUnreclaim:   10 kB\nKernelStack:  2 kB\nPageTables:  3 kB\n";
        let kernel =
            Kernel::read(meminfo, "sockets: used 1\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 4\nUDP: inuse 1 mem 9\n");
        assert_eq!(kernel, Kernel { slab: 10_240, page_tables: 3072, stacks: 2048, sockets: 16_384 });
        assert_eq!(kernel.total(), 31_744);
        assert_eq!(Kernel::read("", ""), Kernel::default());
    }

    #[test]
    fn we_ourselves_use_memory_and_files() {
        let own = sample(&[std::process::id()]);
        assert_eq!(own.processes, 1);
        assert!(own.pss > 100_000 && own.private > 10_000 && own.files >= 3, "{own:?}");
        assert!(own.pss >= own.private, "{own:?}");
    }

    #[test]
    fn a_process_that_is_gone_counts_nothing() {
        assert_eq!(sample(&[u32::MAX]), Sample::default());
    }
}
