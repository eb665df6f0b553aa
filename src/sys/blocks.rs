//! Where lines end, for 64 bytes at a time: the processor's wide compares are the reason that this stands here.

/// What is known of 64 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Bit n: byte n is an LF.
    pub ends: u64,
    /// LFs in the blocks before this one.
    pub before: u32,
    /// CRs in those: of every 64 bytes that have any at least one counts.
    pub crs: u32,
}

/// Puts one [`Block`] for every 64 bytes into `blocks`, one for those that are left over, and one behind all.
pub fn survey(bytes: &[u8], blocks: &mut Vec<Block>) {
    blocks.clear();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has both.
        return unsafe { survey_wide(bytes, blocks) };
    }
    survey_plain(bytes, blocks);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,popcnt")]
fn survey_wide(bytes: &[u8], blocks: &mut Vec<Block>) {
    use std::arch::x86_64::{
        _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
    };
    let (lf, cr) = (_mm256_set1_epi8(10), _mm256_set1_epi8(13));
    each(bytes, blocks, |block| {
        let (low, high) = block.split_at(32);
        // SAFETY: both halves are 32 bytes long, and the load asks for no alignment.
        let (low, high) =
            unsafe { (_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())) };
        let (low_ends, high_ends) = (_mm256_cmpeq_epi8(low, lf), _mm256_cmpeq_epi8(high, lf));
        let crs = _mm256_or_si256(_mm256_cmpeq_epi8(low, cr), _mm256_cmpeq_epi8(high, cr));
        let (low, high) = (_mm256_movemask_epi8(low_ends), _mm256_movemask_epi8(high_ends));
        let ends = u64::from(low.cast_unsigned()) | u64::from(high.cast_unsigned()) << 32;
        (ends, _mm256_movemask_epi8(crs) != 0)
    });
}

fn survey_plain(bytes: &[u8], blocks: &mut Vec<Block>) {
    each(bytes, blocks, |block| {
        let bit = |mask: u64, (at, &byte): (usize, &u8)| mask | u64::from(byte == b'\n') << at;
        (block.iter().enumerate().fold(0, bit), block.contains(&b'\r'))
    });
}

#[inline(always)]
fn each(bytes: &[u8], blocks: &mut Vec<Block>, look: impl Fn(&[u8; 64]) -> (u64, bool)) {
    let (whole, rest) = bytes.as_chunks();
    let mut last = [0; 64];
    last[..rest.len()].copy_from_slice(rest);
    blocks.resize(whole.len() + 2, Block::default());
    let mut behind = Block::default();
    // Plain loops: what goes through an iterator's closures loses the caller's target features, and is called for each block.
    for (block, place) in whole.iter().zip(&mut *blocks) {
        (*place, behind) = behind.then(look(block));
    }
    let end = &mut blocks[whole.len()..];
    (end[0], end[1]) = behind.then(look(&last));
}

impl Block {
    /// What such a block is behind what `self` counts, and what counts for the next one.
    #[inline(always)]
    fn then(self, (ends, cr): (u64, bool)) -> (Block, Block) {
        let (before, crs) = (self.before + ends.count_ones(), self.crs + u32::from(cr));
        (Block { ends, ..self }, Block { ends: 0, before, crs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_and_plain_see_the_same_in_any_length() {
        let text: Vec<u8> = (0..1000_usize).map(|at| b"\n\rab\n\0\x8a\x8d"[at * at / 7 % 8]).collect();
        for from in 0..70 {
            for length in (0..200).chain([930]) {
                let (bytes, mut wide, mut plain) = (&text[from..from + length], Vec::new(), Vec::new());
                survey(bytes, &mut wide);
                survey_plain(bytes, &mut plain);
                assert_eq!(wide, plain, "{length} bytes from {from}");
                assert_eq!(wide.len(), length / 64 + 2);
                let count = |what: u8| bytes.iter().filter(|&&byte| byte == what).count() as u32;
                let last = wide[wide.len() - 1];
                assert_eq!((last.ends, last.before), (0, count(b'\n')));
                assert_eq!(last.crs > 0, count(b'\r') > 0);
            }
        }
    }
}
