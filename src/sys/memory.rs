//! What this process has of memory, and how it gives back what it needs no more.
//!
//! | call                                | gives back                                                                    |
//! |-------------------------------------|--------------------------------------------------------------------------------|
//! | [`trim`]                            | what was freed, with the pieces that malloc keeps aside for this thread          |
//! | [`unmap_idle_code`]                 | pages of our executable, code and constants: what is used again is mapped again |
//! | [`forget`]                          | the pages of a buffer that holds nothing of worth                              |
//! | [`release_stack`]                   | what this thread's stack was once used for                                     |
//!
//! None of them changes what a program can see, but [`forget`], which says so.

use std::thread;

/// Pieces of one size that malloc keeps aside for a thread, and the largest such size (glibc: tcache_count, tcache_max). They
/// count as used, no trim looks at them, and each holds the page it lies in.
#[cfg(target_env = "gnu")]
const KEPT: (usize, usize) = (7, 1032);
/// Enough for a thread that frees a list.
#[cfg(target_env = "gnu")]
const STACK: usize = 64 * 1024;
/// Of a stack, what is left alone below where its thread is.
const RED_ZONE: usize = 8 * 1024;
/// Of a stack, what is given back at most: no thread of ours uses more.
const STACK_BYTES: usize = 8 << 20;

/// Gives freed memory back to the system (malloc_trim(3)); true when some was.
///
/// What malloc keeps aside for this thread goes too: it is taken out, and freed by a thread that ends, whose own goes back with it.
pub fn trim() -> bool {
    #[cfg(target_env = "gnu")]
    {
        let (count, largest) = KEPT;
        let sizes = (24..=largest).step_by(16);
        let pieces: Vec<Vec<u8>> =
            sizes.flat_map(|size| std::iter::repeat_with(move || Vec::with_capacity(size)).take(count)).collect();
        // Without a thread they are freed here, and stay aside: no harm is done.
        if let Ok(thread) = thread::Builder::new().name("trim".into()).stack_size(STACK).spawn(move || drop(pieces)) {
            let _ = thread.join();
        }
        // SAFETY: takes a number, and malloc's own locks.
        unsafe { libc::malloc_trim(0) == 1 }
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

/// What malloc has: bytes in use, and bytes it keeps for later (mallinfo2(3)). `None` where it cannot tell.
pub fn heap() -> Option<(u64, u64)> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: takes nothing but malloc's own locks, gives plain numbers.
        let info = unsafe { libc::mallinfo2() };
        Some(((info.uordblks + info.hblkhd) as u64, info.fordblks as u64))
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

/// One arena for all threads: a thread that works on one job must not bring an arena of its own (mallopt(3)).
pub fn one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two numbers.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Bytes in a page.
fn page() -> usize {
    // SAFETY: takes a number; this one is known everywhere.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Lets go of the pages of our own executable that are mapped and never written to, code and constants (madvise(2),
/// MADV_DONTNEED): what is used again is mapped again, from the page cache, and what only a start or a burst needed is not.
/// Says how many bytes they are.
pub fn unmap_idle_code() -> usize {
    let mut bytes = 0_usize;
    // SAFETY: the callback gets what dl_iterate_phdr(3) promises, and `bytes`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(unmap_segments), (&raw mut bytes).cast()) };
    bytes
}

/// The first object is the executable: lets go of its segments, and ends the walk.
unsafe extern "C" fn unmap_segments(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    bytes: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr gives a whole record, whose table of segments is in memory for as long as the object.
    let (base, segments) = unsafe {
        let object = &*object;
        (object.dlpi_addr as usize, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    let page = page();
    for segment in segments {
        // What may be written to holds relocated addresses, and what was written.
        if segment.p_type != libc::PT_LOAD || segment.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = base + segment.p_vaddr as usize;
        let (start, end) = (start & !(page - 1), (start + segment.p_memsz as usize) & !(page - 1));
        // SAFETY: whole pages of one segment of this executable, mapped privately from its file and never written to (no
        // PF_W, no text relocations in a Rust executable), so each comes back as it was when it is next touched.
        let result =
            unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), end - start, libc::MADV_DONTNEED) };
        if result == 0 {
            // SAFETY: the number that the caller gave, which nobody else has.
            unsafe { *bytes.cast::<usize>() += end - start };
        }
    }
    1
}

/// A buffer that holds nothing of worth gives its pages back. It keeps its length; what is in it is zero or what was there.
pub fn forget(buffer: &mut [u8]) {
    let page = page();
    let start = buffer.as_mut_ptr();
    let skip = start.align_offset(page);
    let Some(bytes) = buffer.len().checked_sub(skip).map(|bytes| bytes & !(page - 1)).filter(|bytes| *bytes > 0) else {
        return;
    };
    // SAFETY: whole pages within the buffer, which is ours alone while this runs; malloc's memory is private and of no file, so
    // they come back as zeros. That it is refused changes nothing.
    unsafe { libc::madvise(start.add(skip).cast(), bytes, libc::MADV_DONTNEED) };
}

/// Gives back what this thread's stack was used for below the caller, but for a margin. For one that was busy and will wait, or
/// ends: the system keeps the stacks of threads that have ended, with up to 16 KB that they used.
#[inline(never)]
pub fn release_stack() {
    let mark = 0_u8;
    let here = (&raw const mark).expose_provenance();
    let (mut low, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are initialised by the first call, and given back by the last; the places are ours.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attributes) != 0 {
            return;
        }
        let known = libc::pthread_attr_getstack(&attributes, &mut low, &mut size) == 0;
        libc::pthread_attr_destroy(&mut attributes);
        if !known {
            return;
        }
    }
    let Some((low, end)) = unused(low.expose_provenance(), size, here) else { return };
    // SAFETY: from the end of this thread's own stack to well below its last frame: nothing lives there. Pages come back as
    // zeros when the stack grows over them again; that there are none, or a guard, is refused for those alone.
    unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(low), end - low, libc::MADV_DONTNEED) };
}

/// What to give back of a stack of `size` bytes from `low` on that is used down to `here`.
fn unused(low: usize, size: usize, here: usize) -> Option<(usize, usize)> {
    let page = page();
    let end = here.saturating_sub(RED_ZONE) & !(page - 1);
    // The first thread's stack may be as large as all that is free below it, where it has no limit (`ulimit -s unlimited`): other
    // threads' mappings may have come there since we were told.
    let start = low.max(end.saturating_sub(STACK_BYTES));
    (low..low.saturating_add(size)).contains(&here).then_some((start, end)).filter(|(start, end)| start < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_stack_without_a_limit_only_what_may_have_been_used_is_given_back() {
        let (page, top) = (page(), 1 << 46);
        let here = top - 100 * page;
        let (start, end) = unused(1 << 45, top - (1 << 45), here).unwrap();
        assert_eq!(end - start, STACK_BYTES);
        assert!(end <= here - RED_ZONE && end > here - RED_ZONE - page);
        // A thread's own, of known size.
        let low = top - 512 * page;
        assert_eq!(unused(low, 512 * page, here), Some((low, end)));
        assert_eq!(unused(low, 512 * page, low + RED_ZONE / 2), None);
        assert_eq!(unused(low, 512 * page, low - page), None);
    }

    #[test]
    fn the_system_answers() {
        trim();
        assert!(heap().is_none_or(|(used, _)| used > 0));
        assert!(unmap_idle_code() > 1_000_000, "there are code and constants, and they are still there");
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_malloc_keeps_aside_for_a_thread_goes_too() {
        let (count, largest) = KEPT;
        // Other tests of this process take and free memory meanwhile, so not every try shows it.
        let shown = (0..50).any(|_| {
            let sizes = (24..=largest).step_by(16);
            drop(sizes.flat_map(|size| vec![vec![0_u8; size]; count]).collect::<Vec<_>>());
            let used = || heap().unwrap_or_default().0;
            let before = used();
            trim();
            before >= used() + 150_000
        });
        assert!(shown);
    }

    #[test]
    fn a_forgotten_buffer_can_be_used_again() {
        for (before, size) in [(0, 0), (1, 100), (5, 3 * 4096), (0, 64 * 1024)] {
            let mut bytes = vec![7_u8; before + size + 9];
            forget(&mut bytes[before..before + size]);
            assert!(bytes[before..before + size].iter().all(|byte| [0, 7].contains(byte)));
            assert!(
                bytes[..before].iter().chain(&bytes[before + size..]).all(|byte| *byte == 7),
                "only what was named"
            );
            bytes.fill(1);
            assert!(bytes.iter().all(|byte| *byte == 1));
        }
        let mut bytes = vec![7_u8; 1 << 20];
        forget(&mut bytes);
        assert!(bytes.iter().filter(|byte| **byte == 0).count() >= bytes.len() - 2 * page(), "all whole pages");
    }

    #[test]
    fn a_thread_that_gave_its_stack_back_goes_on() {
        fn deep(levels: u32) -> u64 {
            let frame = std::hint::black_box([u64::from(levels); 64]);
            if levels == 0 { 0 } else { deep(levels - 1) + frame[std::hint::black_box(7)] }
        }
        let work = || {
            let kept = std::hint::black_box([3_u64; 32]);
            let before = deep(100);
            release_stack();
            (before, deep(100), kept.iter().sum::<u64>())
        };
        assert_eq!(thread::spawn(work).join().unwrap(), (5050, 5050, 96));
        assert_eq!(work(), (5050, 5050, 96));
    }
}
