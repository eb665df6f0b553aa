//! The line ends of one window of a file, looked for once: the scanner asks for each of them three times.

use crate::sys::blocks::{Block, survey};

/// Where a window's lines end.
#[derive(Default)]
pub(super) struct Ends {
    /// One for each 64 bytes, and one behind them.
    blocks: Vec<Block>,
}

impl Ends {
    /// Of this window.
    pub(super) fn find(&mut self, window: &[u8]) {
        survey(window, &mut self.blocks);
    }

    /// The first LF at `at` or behind it.
    #[inline]
    pub(super) fn next(&self, at: usize) -> Option<usize> {
        let mut block = at / 64;
        let mut ends = self.blocks.get(block)?.ends >> (at % 64) << (at % 64);
        while ends == 0 {
            block += 1;
            ends = self.blocks.get(block)?.ends;
        }
        Some(block * 64 + ends.trailing_zeros() as usize)
    }

    /// The first LF at `at` or behind it that has another LF right before it, or one byte between. `before` are the two bytes
    /// before the window.
    pub(super) fn next_pair(&self, at: usize, before: [u8; 2]) -> Option<usize> {
        let start = at / 64;
        let mut earlier = match start.checked_sub(1) {
            Some(block) => self.blocks[block].ends,
            None => u64::from(before[0] == b'\n') << 62 | u64::from(before[1] == b'\n') << 63,
        };
        let mut masked = u64::MAX << (at % 64);
        for (index, &Block { ends, .. }) in self.blocks.get(start..)?.iter().enumerate() {
            let pairs = ends & (ends << 1 | earlier >> 63 | ends << 2 | earlier >> 62) & masked;
            if pairs != 0 {
                return Some((start + index) * 64 + pairs.trailing_zeros() as usize);
            }
            (earlier, masked) = (ends, u64::MAX);
        }
        None
    }

    /// How many LFs there are from `from` to before `to`.
    pub(super) fn count(&self, from: usize, to: usize) -> u32 {
        let upto = |at: usize| {
            let block = self.blocks[at / 64];
            block.before + (block.ends & !(u64::MAX << (at % 64))).count_ones()
        };
        upto(to) - upto(from)
    }

    /// Whether there may be a CR from `from` to before `to`: perhaps it stands a few bytes outside.
    pub(super) fn may_have_cr(&self, from: usize, to: usize) -> bool {
        from < to && self.blocks[from / 64].crs != self.blocks[(to - 1) / 64 + 1].crs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_answered_as_by_looking_at_each_byte() {
        let mut ends = Ends::default();
        for (step, length) in [(1, 0), (3, 1), (5, 64), (7, 65), (11, 128), (13, 300), (17, 511)] {
            let window: Vec<u8> = (0..length).map(|at: usize| b"\n\n\r\nabcdefgh\na"[at * at / step % 14]).collect();
            for before in [*b"\0\0", *b"\0\n", *b"\n\r", *b"\n\n"] {
                ends.find(&window);
                let all = [&before[..], &window].concat();
                let end = |at: usize| all[at + 2] == b'\n';
                let pair = |at: usize| end(at) && (all[at + 1] == b'\n' || all[at] == b'\n');
                for at in 0..=length {
                    assert_eq!(ends.next(at), (at..length).find(|&at| end(at)));
                    assert_eq!(ends.next_pair(at, before), (at..length).find(|&at| pair(at)));
                    for to in at..=length {
                        let part = &window[at..to];
                        assert_eq!(ends.count(at, to) as usize, part.iter().filter(|&&byte| byte == b'\n').count());
                        assert!(ends.may_have_cr(at, to) || !part.contains(&b'\r'));
                    }
                }
            }
        }
    }
}
