//! `paused` in work_path: which sending an operator has paused, kept over a restart. What stands in it is
//! [`Paused`]'s business. It is replaced as a whole or stays as it was, whenever the power goes; while nothing is paused there is
//! no such file. One that cannot be read pauses everything, so that a fault sends nothing that was to be kept back.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::disk::{Disk, How, Reach};
use crate::rules::paused::{Paused, TEXT_BYTES};
use crate::text::fault::Fault;

/// The file.
const NAME: &str = "paused";
/// The file until it is whole.
const FRESH: &str = "paused.new";

/// What is paused; and why the file could not be read, if so: then that is everything. At start.
pub fn read<D: Disk>(disk: &D, work_path: &Path) -> (Paused, Option<Fault>) {
    let text = || {
        let dir = disk.open_dir(work_path)?;
        let file = match disk.open(&dir, Path::new(NAME), How::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut text = vec![0; TEXT_BYTES + 1];
        let mut read = 0;
        while read < text.len() {
            match disk.read(&file, &mut text[read..], read as u64, Reach::Wait)? {
                0 => break,
                some => read += some,
            }
        }
        text.truncate(read);
        Ok(Some(text))
    };
    match text() {
        Ok(None) => (Paused::default(), None),
        // What is longer than any text of ours says nothing that is understood.
        Ok(Some(text)) if text.len() > TEXT_BYTES => (Paused::parse(b""), None),
        Ok(Some(text)) => (Paused::parse(&text), None),
        Err(error) => (Paused::parse(b""), Some(Fault::new("reading", &work_path.join(NAME), error))),
    }
}

/// Whose turn it is to write.
#[derive(Debug, Default)]
pub struct Pen {
    /// The number of the newest that was written.
    newest: Mutex<u64>,
}

impl Pen {
    /// Writes down what is paused, unless something newer has been: who says it later has the greater `number`. It is on disk when
    /// this returns `Ok`. Waits for the disk: in a job.
    pub fn write<D: Disk>(&self, disk: &D, work_path: &Path, number: u64, paused: &Paused) -> Result<(), Fault> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if number > *newest {
            write(disk, work_path, paused)?;
            *newest = number;
        }
        Ok(())
    }
}

fn write<D: Disk>(disk: &D, work_path: &Path, paused: &Paused) -> Result<(), Fault> {
    let path = work_path.join(NAME);
    let (name, fresh) = (Path::new(NAME), Path::new(FRESH));
    let written = || {
        let dir = disk.open_dir(work_path)?;
        // Left behind by one that was killed.
        let removed = |name| match disk.remove(&dir, name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        removed(fresh)?;
        match paused.text() {
            Some(text) => {
                let file = disk.open(&dir, fresh, How::CreateNew)?;
                disk.write(&file, text.as_bytes(), 0)?;
                disk.sync(&file)?;
                disk.rename(&dir, fresh, name)?;
            }
            None => removed(name)?,
        }
        disk.sync_dir(&dir)
    };
    written().map_err(Fault::at("writing", &path))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::disk::RealDisk;

    #[test]
    fn what_is_written_is_read_and_nothing_leaves_no_file() {
        let (folder, disk) = (tempfile::tempdir().unwrap(), RealDisk::default());
        let read = || read(&disk, folder.path());
        assert!(read().0.is_nothing());
        let mut paused = Paused::default();
        paused.pause(None).unwrap();
        paused.pause(Some("mx a.test")).unwrap();
        fs::write(folder.path().join(FRESH), "of one that was killed").unwrap();
        write(&disk, folder.path(), &paused).unwrap();
        assert_eq!(read().0, paused);
        paused.resume(None);
        write(&disk, folder.path(), &paused).unwrap();
        assert_eq!(read().0, paused);
        paused.resume(Some("mx a.test"));
        write(&disk, folder.path(), &paused).unwrap();
        assert!(read().0.is_nothing() && fs::read_dir(folder.path()).unwrap().count() == 0);
    }

    #[test]
    fn who_comes_late_does_not_overwrite_what_is_newer() {
        let (folder, disk) = (tempfile::tempdir().unwrap(), RealDisk::default());
        let (pen, mut paused) = (Pen::default(), Paused::default());
        paused.pause(None).unwrap();
        pen.write(&disk, folder.path(), 2, &paused).unwrap();
        pen.write(&disk, folder.path(), 1, &Paused::default()).unwrap();
        assert!(read(&disk, folder.path()).0.is_all());
        pen.write(&disk, folder.path(), 3, &Paused::default()).unwrap();
        assert!(read(&disk, folder.path()).0.is_nothing());
    }

    #[test]
    fn what_cannot_be_read_or_understood_pauses_everything() {
        let (folder, disk) = (tempfile::tempdir().unwrap(), RealDisk::default());
        let path = folder.path().join(NAME);
        fs::create_dir(&path).unwrap();
        let (paused, fault) = read(&disk, folder.path());
        assert!(paused.is_all() && fault.is_some());
        fs::remove_dir(&path).unwrap();
        for text in ["".to_owned(), "x\n".repeat(TEXT_BYTES)] {
            fs::write(&path, &text).unwrap();
            let (paused, fault) = read(&disk, folder.path());
            assert!(paused.is_all() && paused.places().len() == 0 && fault.is_none(), "{} bytes", text.len());
        }
    }
}
