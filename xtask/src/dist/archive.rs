//! Archives whose bytes depend on nothing but what is in them: fixed times and owners, sorted.

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use ring::digest::{SHA256, digest};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// A file of an archive.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Where it goes, without a slash at the begin.
    pub(super) path: String,
    /// Its permissions.
    pub(super) mode: u32,
    pub(super) bytes: Vec<u8>,
}

impl Entry {
    pub(super) fn new(path: impl Into<String>, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            mode,
            bytes: bytes.into(),
        }
    }

    /// A file of the repository.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn of(path: impl Into<String>, mode: u32, from: &Path) -> Result<Self> {
        Ok(Self::new(path, mode, super::read(from)?))
    }
}

/// A tar file of these entries and the directories above them, everything owned by root.
///
/// # Errors
/// When a path is too long for the format.
pub(super) fn tar(entries: &[Entry], mtime: u64) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(mtime);
        header
    };
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut made = BTreeSet::new();
    for entry in sorted {
        let whole = entry.path.as_str();
        for (at, _) in whole.match_indices('/') {
            let dir = &whole[..=at];
            if made.insert(dir.to_owned()) {
                let mut header = header(tar::EntryType::Directory, 0o755, 0);
                builder.append_data(&mut header, dir, std::io::empty())?;
            }
        }
        let size = entry.bytes.len() as u64;
        let mut header = header(tar::EntryType::Regular, entry.mode, size);
        builder.append_data(&mut header, whole, entry.bytes.as_slice())?;
    }
    Ok(builder.into_inner()?)
}

/// Compressed without a name and a time, as small as it gets.
///
/// # Errors
/// Never: writing to memory does not fail.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write as _;
    let mut writer = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::best());
    writer.write_all(bytes)?;
    Ok(writer.finish()?)
}

/// SHA-256 in hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in digest(&SHA256, bytes).as_ref() {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn order_of_files_and_time_of_day_change_no_byte() {
        let a = Entry::new("usr/bin/a", 0o755, "a");
        let b = Entry::new("etc/b", 0o644, "b");
        let one = tar(&[a.clone(), b.clone()], 7).unwrap();
        let other = tar(&[b, a], 7).unwrap();
        assert_eq!(one, other);
        assert_eq!(gzip(&one).unwrap(), gzip(&other).unwrap());
        let mut archive = tar::Archive::new(one.as_slice());
        let list: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                let header = e.header();
                assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 7));
                (
                    e.path().unwrap().display().to_string(),
                    header.mode().unwrap(),
                )
            })
            .collect();
        let want = [
            ("etc/", 0o755),
            ("etc/b", 0o644),
            ("usr/", 0o755),
            ("usr/bin/", 0o755),
            ("usr/bin/a", 0o755),
        ];
        // `Path` shows no slash at the end of a directory on some versions; compare without.
        let strip = |(p, m): (String, u32)| (p.trim_end_matches('/').to_owned(), m);
        let want: Vec<_> = want.map(|(p, m)| strip((p.to_owned(), m))).into();
        assert_eq!(list.into_iter().map(strip).collect::<Vec<_>>(), want);
    }
}
