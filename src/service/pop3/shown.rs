//! The bulletins that one session shows: behind the messages of the maildrop, numbered on from them.
//!
//! Rows are read once, when the maildrop is opened: there are few, and who has none has no [`Shown`] at all. Deletions are
//! marks until the maildrop's commit, which remembers them in the same record as the messages that were deleted.

use std::sync::Arc;

use crate::rules::bulletins::Seen;
use crate::store::bulletins::Board;
use crate::store::maildrop::{Maildrop, MessageReader, Miss, Reach, Row};

/// The bulletins of one session.
#[derive(Debug)]
pub struct Shown {
    board: Arc<Board>,
    /// What was gone when the session began.
    seen: Seen,
    /// Messages of the maildrop: bulletins are numbered from there.
    first: u32,
    /// With their places on the board.
    rows: Vec<(u32, Row)>,
}

impl Shown {
    /// What `board` has for the user of this maildrop; `None` when it has nothing. Newcomers are remembered as such at once,
    /// where `hide_old`. Waits for the disk: only in a job.
    pub fn of(board: Arc<Board>, maildrop: &mut Maildrop, hide_old: bool) -> Option<Box<Shown>> {
        if !maildrop.remembers() || board.epoch == 0 {
            return None;
        }
        let newcomer = hide_old && maildrop.is_new();
        let seen = Seen::now(maildrop.bulletins(), board.epoch, board.newest, newcomer);
        if newcomer {
            maildrop.remember(Some(seen));
            // If it could not be written, he is a newcomer again another time.
            let _ = maildrop.commit();
        }
        let mail = board.mail.clone()?;
        let (first, mut rows) = (maildrop.totals().messages, Vec::new());
        for (place, number) in (1..).zip(&board.numbers) {
            if seen.is_gone(*number) {
                continue;
            }
            // A board that cannot be read is shown to nobody; its own job says why.
            let row = mail.row(place, Reach::Wait).ok()??;
            rows.push((place, Row { number: first + 1 + rows.len() as u32, deleted: false, ..row }));
        }
        (!rows.is_empty()).then(|| Box::new(Shown { board, seen, first, rows }))
    }

    /// Which of ours has this number.
    fn index(&self, number: u32) -> Option<usize> {
        let index = number.checked_sub(self.first + 1)? as usize;
        (index < self.rows.len()).then_some(index)
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.rows.len() as u32
    }

    /// How many are not marked, and their octets.
    pub fn live(&self) -> (u32, u64) {
        let live = self.rows.iter().filter(|(_, row)| !row.deleted);
        live.fold((0, 0), |(count, octets), (_, row)| (count + 1, octets + row.octets))
    }

    /// Those from this number on, at most `most`; `None` when the number is none of ours.
    pub fn page(&self, from: u32, most: usize) -> Option<Vec<Row>> {
        let index = self.index(from)?;
        Some(self.rows[index..].iter().take(most).map(|(_, row)| *row).collect())
    }

    /// Whether that one is marked.
    pub fn is_deleted(&self, number: u32) -> bool {
        self.index(number).is_some_and(|index| self.rows[index].1.deleted)
    }

    /// Marks it.
    pub fn mark(&mut self, number: u32) {
        if let Some(index) = self.index(number) {
            self.rows[index].1.deleted = true;
        }
    }

    /// Forgets all marks.
    pub fn undelete_all(&mut self) {
        self.rows.iter_mut().for_each(|(_, row)| row.deleted = false);
    }

    /// A reader of that one; `None` when it is none of ours.
    pub fn reader(&self, number: u32, lines: Option<u64>, reach: Reach) -> Option<Result<MessageReader, Miss>> {
        let (place, _) = self.rows[self.index(number)?];
        Some(self.board.mail.as_ref()?.reader(place, lines, reach))
    }

    /// For a job: the board, and the place of that one on it.
    pub fn lookup(&self, number: u32) -> Option<(Arc<Board>, u32)> {
        Some((self.board.clone(), self.rows[self.index(number)?].0))
    }

    /// What is to be remembered when this session is committed, and how many were deleted; `None` when none were.
    pub fn commit(&self) -> Option<(Seen, u32)> {
        let (mut seen, mut deleted) = (self.seen, 0);
        for (place, row) in &self.rows {
            if row.deleted {
                seen.bury(self.board.numbers[*place as usize - 1], &self.board.numbers);
                deleted += 1;
            }
        }
        (deleted > 0).then_some((seen, deleted))
    }
}
