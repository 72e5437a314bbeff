//! What this process has of a mapped file, as Linux accounts it.

use anyhow::Result;
use std::path::Path;

/// All mappings of a file in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mapped {
    /// Address space.
    pub size_bytes: u64,
    /// Of it in RAM.
    pub resident_bytes: u64,
    /// Of that, pages that are not as they are on the disk, so that the kernel cannot just drop them:
    /// written to by this process, or by whoever wrote the file and has not synced it.
    pub dirty_bytes: u64,
    /// Pages that this process has a copy of its own of.
    pub copied_bytes: u64,
}

/// The mappings of `file`; all zero when there is none.
///
/// # Errors
/// When there is no `/proc`.
pub fn mapped(file: &Path) -> Result<Mapped> {
    let text = std::fs::read_to_string("/proc/self/smaps")?;
    let name = file.to_string_lossy();
    let mut found = Mapped::default();
    let mut of_file = false;
    for line in text.lines() {
        let Some((key, figure)) = line.split_once(':') else {
            continue;
        };
        let field = match key {
            "Size" => &mut found.size_bytes,
            "Rss" => &mut found.resident_bytes,
            "Private_Dirty" => &mut found.dirty_bytes,
            "Anonymous" => &mut found.copied_bytes,
            // The head of a mapping: addresses, rights, device, file.
            head if head.contains('-') => {
                of_file = line.ends_with(&*name);
                continue;
            }
            _ => continue,
        };
        if of_file {
            let kib: u64 = figure.trim().trim_end_matches("kB").trim_end().parse()?;
            *field += kib * 1024;
        }
    }
    Ok(found)
}
