//! Files that hold either the old or the new content after a power cut, never a mixture.

mod disk;

pub use disk::{Disk, DiskFile, How, SystemDisk, make_dir, read, system};

use std::io;
use std::path::{Path, PathBuf};

/// Which step of a durable write failed.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The path names no file in a directory.
    #[error("`{0}` does not name a file")]
    NoFile(PathBuf),
    /// A step failed.
    #[error("cannot {step} `{path}`")]
    Step {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn step<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FsError + 'a {
    move |source| FsError::Step {
        step,
        path: path.to_owned(),
        source,
    }
}

fn parent(path: &Path) -> Result<&Path, FsError> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => Err(FsError::NoFile(path.to_owned())),
    }
}

/// Makes the names in a directory durable: what was created, renamed or removed in it.
///
/// # Errors
/// [`FsError::Step`] when the directory cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> Result<(), FsError> {
    sync_dir_on(&SystemDisk, dir)
}

/// [`sync_dir`] on any disk.
///
/// # Errors
/// [`FsError::Step`].
pub fn sync_dir_on(disk: &dyn Disk, dir: &Path) -> Result<(), FsError> {
    disk.sync_dir(dir).map_err(step("sync the directory", dir))
}

/// Renames and makes the new name durable.
///
/// # Errors
/// [`FsError`] naming the step that failed.
pub fn rename(from: &Path, to: &Path) -> Result<(), FsError> {
    rename_on(&SystemDisk, from, to)
}

/// [`rename`] on any disk.
///
/// # Errors
/// [`FsError`] naming the step that failed.
pub fn rename_on(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), FsError> {
    disk.rename(from, to).map_err(step("rename", from))?;
    sync_dir_on(disk, parent(to)?)
}

/// Replaces the content of `path`: temporary file in the same directory, sync, rename, sync of
/// the directory. When it returns, the new content survives a power cut; when it fails, the
/// content is the old one or, if only the last sync failed, perhaps the new one. `mode` holds the
/// permission bits, for example `0o600` for a key.
///
/// One writer per path: two at once would share the temporary file's name.
///
/// # Errors
/// [`FsError`] naming the step that failed; the temporary file is removed.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    write_atomic_on(&SystemDisk, path, bytes, mode)
}

/// [`write_atomic`] on any disk.
///
/// # Errors
/// [`FsError`] naming the step that failed; the temporary file is removed.
pub fn write_atomic_on(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<(), FsError> {
    let name = path
        .file_name()
        .ok_or_else(|| FsError::NoFile(path.to_owned()))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".tmp");
    let temporary = path.with_file_name(temporary);
    let written = write_synced(disk, &temporary, bytes, mode)
        .and_then(|()| rename_on(disk, &temporary, path));
    if written.is_err() {
        // The first failure is what matters; a file left behind is overwritten next time.
        let _ = disk.remove(&temporary);
    }
    written
}

fn write_synced(disk: &dyn Disk, path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let file = disk
        .open(path, How::Replace { mode })
        .map_err(step("create", path))?;
    file.write_all_at(bytes, 0).map_err(step("write", path))?;
    file.sync().map_err(step("sync", path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn content_and_mode_are_replaced_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_atomic(&path, b"old", 0o644).unwrap();
        std::fs::write(dir.path().join(".key.tmp"), b"cut").unwrap();
        write_atomic(&path, b"new", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        let error = write_atomic(&path, b"new", 0o600).unwrap_err();
        assert!(
            matches!(error, FsError::Step { step: "rename", .. }),
            "{error}"
        );
        assert!(path.is_dir());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(matches!(
            write_atomic(Path::new("/"), b"", 0),
            Err(FsError::NoFile(_))
        ));
    }
}
