//! Messages that go with a commit though nobody marked them: the old ones, and those that were fetched.
//!
//! Both only mark, all that they find or, with a [`Miss`], none; the commit that follows says so in the ledger as of any other
//! mark. Both wait for the disk: only in a job, before the commit.

use super::disk::{Disk, Reach};
use super::maildrop::{Maildrop, Miss};
use crate::mail::asctime::posted;

impl<D: Disk> Maildrop<D> {
    /// Marks every message whose From_ line is of a moment before `before` (seconds since 1970), as far as the caller
    /// `allows` its number, and says how many they were. One without a date stays. No more than the From_ lines is read of
    /// the drop; one that is not where it was is [`Miss::Changed`].
    pub fn expire(&mut self, before: i64, allows: &mut dyn FnMut(u32) -> bool) -> Result<u32, Miss> {
        let mut old = Vec::new();
        let mut from = 1;
        loop {
            let page = self.core.entries(from, super::index::PAGE as u32, Reach::Wait)?;
            let Some((last, _)) = page.last() else { break };
            from = last + 1;
            for (number, entry) in &page {
                let wanted = !self.is_deleted(*number) && allows(*number);
                if wanted && posted(&self.core.read_from_line(entry)?).is_some_and(|moment| moment < before) {
                    old.push(self.core.row(*number, entry, false));
                }
            }
        }
        old.iter().for_each(|row| self.mark(row));
        Ok(old.len() as u32)
    }

    /// Marks the messages with these numbers, those that were fetched for one, and says how many were not marked before. Numbers
    /// of no message are passed over.
    pub fn mark_all(&mut self, numbers: impl IntoIterator<Item = u32>) -> Result<u32, Miss> {
        let mut rows = Vec::new();
        for number in numbers {
            rows.extend(self.row(number, Reach::Wait)?);
        }
        let before = self.deletions();
        rows.iter().for_each(|row| self.mark(row));
        Ok(self.deletions() - before)
    }
}
