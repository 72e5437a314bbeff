//! The operations that durable files are made of, behind a trait: what the agent keeps goes
//! through it, so that a test can record them, let any of them fail, and cut the power between
//! any two.

use super::FsError;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// To be read; it must be there.
    Read,
    /// To be read and written where it is; made when it is not there.
    Resume,
    /// To be written anew from its beginning, with these permission bits; made when it is not
    /// there.
    Replace {
        /// For example `0o600` for a key.
        mode: u32,
    },
}

/// A place that keeps files. Every method is one operation; none of them is durable by itself.
pub trait Disk: Debug + Send + Sync {
    /// Makes one directory; its parent must be there. Whether it was missing.
    ///
    /// # Errors
    /// What the system says.
    fn make_dir(&self, dir: &Path) -> io::Result<bool>;

    /// Opens a file.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, which may be taken; then its former file is gone.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Length in bytes of a file that is there.
    ///
    /// # Errors
    /// What the system says, also when it is no file.
    fn length(&self, path: &Path) -> io::Result<u64>;

    /// Bytes free for unprivileged programs; 0 when unknown.
    fn free_bytes(&self, dir: &Path) -> u64;
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn length(&self) -> io::Result<u64>;

    /// Reads at a place; 0 at the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at a place.
    ///
    /// # Errors
    /// What the system says.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes content, length and permissions durable.
    ///
    /// # Errors
    /// What the system says. What was written is lost then, whatever a second call says.
    fn sync(&self) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

/// The file system of this machine, shared.
pub fn system() -> Arc<dyn Disk> {
    Arc::new(SystemDisk)
}

impl Disk for SystemDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<bool> {
        match std::fs::create_dir(dir) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        match how {
            How::Read => options.read(true),
            How::Resume => options.read(true).write(true).create(true).truncate(false),
            How::Replace { mode } => options.write(true).create(true).truncate(true).mode(mode),
        };
        let file = options.open(path)?;
        if let How::Replace { mode } = how {
            // The file may be left over from a write that was cut, with other permissions.
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let entries = std::fs::read_dir(dir)?;
        entries.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        Ok(metadata.len())
    }

    fn free_bytes(&self, dir: &Path) -> u64 {
        rustix::fs::statvfs(dir).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize))
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// The content of a file of a few MiB at most.
///
/// # Errors
/// What the system says.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, How::Read)?;
    let length = usize::try_from(file.length()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    let mut at = 0;
    while at < length {
        match file.read_at(&mut bytes[at..], at as u64)? {
            0 => break, // It became shorter.
            n => at += n,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

/// Makes a directory durably; its parent must be there.
///
/// # Errors
/// [`FsError`] naming the step that failed.
pub fn make_dir(disk: &dyn Disk, dir: &Path) -> Result<(), FsError> {
    let made = disk
        .make_dir(dir)
        .map_err(super::step("make the directory", dir))?;
    if made {
        super::sync_dir_on(disk, super::parent(dir)?)?;
    }
    Ok(())
}
