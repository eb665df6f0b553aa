//! A message's text between standard input and the server: a small one in memory, a larger one in a file that has no name any
//! more when the first byte is written, so that nobody finds it and nothing is left of it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use crate::sys::files;
use crate::text::fault::Fault;

/// Bytes of a text that stays in memory.
pub const MEMORY: usize = 64 * 1024;
/// Bytes that are read at a time.
const PIECE: usize = 16 * 1024;

/// A text, written once, read as often as one likes.
pub struct Spool {
    folder: PathBuf,
    memory: Vec<u8>,
    file: Option<File>,
}

impl Spool {
    /// An empty one; a larger one goes to a file in `folder`.
    pub fn new(folder: &Path) -> Spool {
        Spool { folder: folder.to_owned(), memory: Vec::new(), file: None }
    }

    /// Takes what is in `bytes`, and leaves it empty.
    pub fn take(&mut self, bytes: &mut Vec<u8>) -> Result<(), Fault> {
        if self.file.is_none() && self.memory.len() + bytes.len() <= MEMORY {
            self.memory.append(bytes);
            return Ok(());
        }
        let fault = |error| Fault::new("writing a file in", &self.folder, error);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut file = nameless(&self.folder).map_err(fault)?;
                file.write_all(&self.memory).map_err(fault)?;
                self.memory = Vec::new();
                self.file.insert(file)
            }
        };
        file.write_all(bytes).map_err(fault)?;
        bytes.clear();
        Ok(())
    }

    /// All of it, in its order; ends with the first error of `each`.
    pub fn each(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return each(&self.memory) };
        file.rewind()?;
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => each(&piece[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A file without a name, or with one for a moment that nobody guesses.
fn nameless(folder: &Path) -> io::Result<File> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let spare = format!(".dmail-{:032x}", u128::from_ne_bytes(random));
    files::nameless_at(&files::open_dir(folder)?, Path::new(&spare))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_given_again_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 10, MEMORY, MEMORY + 1, 5 * MEMORY] {
            let mut spool = Spool::new(folder.path());
            let text: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            for piece in text.chunks(7_000) {
                spool.take(&mut piece.to_vec()).unwrap();
            }
            assert_eq!(spool.file.is_some(), size > MEMORY);
            assert!(spool.memory.capacity() <= 2 * MEMORY);
            for _ in 0..2 {
                let mut again = Vec::new();
                spool.each(&mut |bytes| io::Write::write_all(&mut again, bytes)).unwrap();
                assert!(again == text);
            }
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        let mut spool = Spool::new(Path::new("/nowhere"));
        assert!(spool.take(&mut vec![0; MEMORY + 1]).unwrap_err().to_string().contains("/nowhere"));
    }
}
