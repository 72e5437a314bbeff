//! What a process at rest does not need is given back: the pages of its own program that only the
//! start touched, and what the allocator holds free. A page that is needed after all comes back from
//! the page cache, as it came the first time.

use rustix::mm::{Advice, madvise};
use std::ops::Range;
use std::path::Path;

/// Has the allocator keep one pool of memory for all threads instead of one for each. To be called
/// before the first thread is started.
pub fn one_pool() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the function changes a setting of the allocator and touches no memory of ours.
        #[allow(unsafe_code)]
        let done = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
        // It only fails for a setting that it does not know; then there are more pools.
        debug_assert_eq!(done, 1);
    }
}

/// Places of this process where its own program is mapped, and nothing was written since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(Vec<Range<usize>>);

impl Program {
    /// Looks them up; none when the system does not tell.
    pub fn find() -> Self {
        let exe = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        Self(clean(&smaps, &exe))
    }

    /// Takes them out of memory, and gives back what the allocator does not use.
    pub fn give_back(&self) {
        for range in &self.0 {
            let start = range.start as *mut std::ffi::c_void;
            // SAFETY: the range is a private mapping of a file, without a page that differs from the
            // file and without the right to write, so that every page comes back as it was.
            #[allow(unsafe_code)]
            let done = unsafe { madvise(start, range.len(), Advice::LinuxDontNeed) };
            if let Err(error) = done {
                tracing::debug!("pages of the program stay in memory: {error}");
            }
        }
        #[cfg(target_env = "gnu")]
        {
            // SAFETY: the function gives free pages of the allocator back and touches no others.
            #[allow(unsafe_code)]
            let _given = unsafe { libc::malloc_trim(0) };
        }
    }
}

/// Mappings of `exe` that cannot be written to and hold no page of their own.
fn clean(smaps: &str, exe: &Path) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut open = None;
    for line in smaps.lines() {
        if let Some(mapping) = header(line, exe) {
            open = mapping;
        } else if let Some(kib) = line.strip_prefix("Anonymous:") {
            found.extend(open.take().filter(|_| kib.trim() == "0 kB"));
        }
    }
    found
}

/// Of the first line of a mapping: its range, if it is one of the program that is only read. `None`
/// for any other line.
fn header(line: &str, exe: &Path) -> Option<Option<Range<usize>>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let range = address(start)?..address(end)?;
    let rights = words.next()?;
    // Behind offset, device and inode.
    let path = words.nth(3).unwrap_or_default();
    let ours = matches!(rights, "r--p" | "r-xp") && Path::new(path) == exe;
    Some(ours.then_some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-3000 r--p 00000000 fe:01 77 /usr/bin/agent
Rss:                   8 kB
Anonymous:             0 kB
3000-9000 r-xp 00002000 fe:01 77 /usr/bin/agent
Anonymous:             0 kB
9000-a000 r--p 00008000 fe:01 77 /usr/bin/agent
Anonymous:             4 kB
a000-b000 rw-p 00009000 fe:01 77 /usr/bin/agent
Anonymous:             0 kB
b000-c000 rw-p 00000000 00:00 0
Anonymous:             0 kB
c000-d000 r-xp 00000000 fe:01 78 /usr/lib/libc.so.6
Anonymous:             0 kB
";

    #[test]
    fn only_what_the_file_holds_too_is_found() {
        let found = clean(SMAPS, Path::new("/usr/bin/agent"));
        assert_eq!(found, [0x1000..0x3000, 0x3000..0x9000]);
        assert!(clean(SMAPS, Path::new("/usr/bin/other")).is_empty());
    }

    #[test]
    fn a_process_lives_on_without_its_pages() {
        let program = Program::find();
        assert!(!program.0.is_empty(), "the program is mapped somewhere");
        for _ in 0..3 {
            program.give_back();
            assert_eq!(program, Program::find());
        }
    }
}
