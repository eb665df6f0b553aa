//! The maildrop on real files in temporary folders.

use std::fs;
use std::path::PathBuf;

use super::maildrop::*;
use crate::text::bytes::Output;

fn from(k: usize) -> String {
    format!("From s{k}@example.org Mon Jan  5 10:00:00 2026\n")
}

fn letter(k: usize) -> String {
    format!("{}Subject: m{k}\n\nbody {k}\n.dot\n\n", from(k))
}

/// A spool that only we may write to, with one drop.
struct Site {
    folder: tempfile::TempDir,
    place: Place,
}

impl Site {
    fn new() -> Site {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("spool");
        fs::create_dir(&spool).unwrap();
        fs::set_permissions(&spool, fs::Permissions::from_mode(0o755)).unwrap();
        let place = Place::new(spool.join("ann"), folder.path().join("work"));
        Site { folder, place }
    }

    fn with(letters: usize) -> Site {
        let site = Site::new();
        fs::write(&site.place.drop, (1..=letters).map(letter).collect::<String>()).unwrap();
        site
    }

    fn open(&self) -> Maildrop {
        Maildrop::open(&self.place).unwrap()
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.place.drop.with_file_name(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.place.drop).unwrap()
    }
}

/// What RETR sends.
fn retr(maildrop: &Maildrop, number: u32) -> String {
    let mut reader = maildrop.reader(number, None, Reach::Wait).unwrap();
    let mut out = Output::default();
    let mut scratch = vec![0; 4096];
    loop {
        match reader.pull(&mut scratch, &mut out) {
            Ok(Pulled::More) => {}
            Ok(Pulled::Last) => return String::from_utf8(out.bytes().to_vec()).unwrap(),
            Err(Miss::Cold) => {
                let fetched = reader.fetch().run().unwrap();
                reader.supply(fetched);
            }
            Err(miss) => panic!("{miss:?}"),
        }
    }
}

fn rows(maildrop: &Maildrop) -> Vec<Row> {
    let mut rows = Vec::new();
    loop {
        let page = maildrop.lookup(rows.len() as u32 + 1).run().unwrap();
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

#[test]
fn a_session_lists_reads_marks_and_deletes() {
    let site = Site::with(3);
    let mut maildrop = site.open();
    assert_eq!(maildrop.totals().messages, 3);
    assert_eq!(retr(&maildrop, 2), "Subject: m2\r\n\r\nbody 2\r\n..dot\r\n.\r\n");
    let before = rows(&maildrop);
    assert_eq!(before.iter().map(|row| row.octets).sum::<u64>(), maildrop.totals().octets);
    maildrop.delete(2).unwrap();
    assert!(matches!(maildrop.delete(2), Err(NotDeleted::Already)));
    assert!(matches!(maildrop.delete(4), Err(NotDeleted::NoSuch)));
    assert_eq!(maildrop.live_totals().messages, 2);
    let commit = maildrop.commit().unwrap();
    assert_eq!((commit.deleted, commit.octets, commit.wants_compaction), (1, before[1].octets, true));
    let compacted = maildrop.compact(&mut || true).unwrap();
    assert_eq!(compacted.freed_bytes as usize, letter(2).len());
    assert_eq!(site.text(), letter(1) + &letter(3));
    let after = rows(&site.open());
    assert_eq!(after.iter().map(|row| row.uid).collect::<Vec<_>>(), [before[0].uid, before[2].uid]);
}
