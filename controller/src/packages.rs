//! What devices are installed from: a directory with the installer, packages, and their checksums.

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Where the controller's own package puts those of the agents.
const PACKAGED: &str = "/usr/share/sandpiper/packages";
/// The installer's name in the directory.
const SCRIPT: &str = "install.sh";
/// The checksums' name. What it does not list is not given away.
const SUMS: &str = "SHA256SUMS";

/// The installer is some kilobytes.
const MAX_SCRIPT_BYTES: u64 = 256 << 10;
/// A line for each of several hundred packages.
const MAX_SUMS_BYTES: u64 = 64 << 10;
/// A controller's package, which brings the agents' along, has about 50 MB.
const MAX_PACKAGE_BYTES: u64 = 512 << 20;
const MAX_NAME_BYTES: usize = 128;

/// Why a file is not given.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// There is no such package.
    #[error("there is no package `{0}` here")]
    Unknown(String),
    /// A file of the directory cannot be used.
    #[error(
        "cannot use `{path}`: a directory of packages is what `cargo xtask dist` leaves in target/dist"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A directory of packages. It is read anew for each request, so that packages may be added to it
/// while the controller runs: packages first, then the checksums.
#[derive(Debug, Clone)]
pub struct Packages {
    dir: PathBuf,
}

impl Packages {
    /// The given directory, or else that of the controller's own package, if there is one.
    ///
    /// # Errors
    /// [`PackageError::File`] when the directory lacks installer or checksums.
    pub fn find(given: Option<&Path>) -> Result<Option<Self>, PackageError> {
        let dir = match given {
            Some(dir) => dir.to_owned(),
            None if Path::new(PACKAGED).is_dir() => PACKAGED.into(),
            None => return Ok(None),
        };
        let it = Self { dir };
        it.text(SCRIPT, MAX_SCRIPT_BYTES)?;
        it.text(SUMS, MAX_SUMS_BYTES)?;
        Ok(Some(it))
    }

    /// The installer, made to install from the controller at `url`, whose key has this pin.
    ///
    /// # Errors
    /// [`PackageError::File`].
    pub fn installer(&self, url: &str, pin: &str) -> Result<String, PackageError> {
        let text = self.text(SCRIPT, MAX_SCRIPT_BYTES)?;
        let fill = |text: &str, name: &str, value: &str| {
            let empty = format!("\n{name}=\n");
            // Neither an address nor base64 holds a quote.
            let filled = format!("\n{name}='{value}'\n");
            (text.contains(&empty) && !value.contains('\''))
                .then(|| text.replacen(&empty, &filled, 1))
        };
        let filled = fill(&text, "FROM", url).and_then(|text| fill(&text, "PIN", pin));
        filled.ok_or_else(|| {
            self.unusable(
                SCRIPT,
                io::Error::other("it is no installer of this release"),
            )
        })
    }

    /// A package, or the checksums, with its size in bytes.
    ///
    /// # Errors
    /// [`PackageError::Unknown`] for everything that the checksums do not list.
    pub fn open(&self, name: &str) -> Result<(File, u64), PackageError> {
        let listed = name == SUMS || {
            let sums = self.text(SUMS, MAX_SUMS_BYTES)?;
            is_plain(name) && sums.lines().any(|line| listed_by(line) == Some(name))
        };
        if !listed {
            let shown = name.chars().take(MAX_NAME_BYTES).collect();
            return Err(PackageError::Unknown(shown));
        }
        self.regular(name, MAX_PACKAGE_BYTES)
    }

    /// A file directly in the directory, not through a link.
    fn regular(&self, name: &str, most: u64) -> Result<(File, u64), PackageError> {
        let path = self.dir.join(name);
        // What is no file must not make the controller wait, either.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        let file = File::from(opened.map_err(|e| self.unusable(name, e.into()))?);
        let about = file.metadata().map_err(|e| self.unusable(name, e))?;
        if !about.is_file() || about.len() > most {
            let why = format!("it is no file of at most {most} bytes");
            return Err(self.unusable(name, io::Error::other(why)));
        }
        Ok((file, about.len()))
    }

    fn text(&self, name: &str, most: u64) -> Result<String, PackageError> {
        let (file, size) = self.regular(name, most)?;
        let mut text = String::with_capacity(usize::try_from(size).unwrap_or_default());
        // It may grow while it is read.
        let read = file.take(most).read_to_string(&mut text);
        read.map_err(|e| self.unusable(name, e))?;
        Ok(text)
    }

    fn unusable(&self, name: &str, source: io::Error) -> PackageError {
        let path = self.dir.join(name);
        PackageError::File { path, source }
    }
}

/// The name in a line as `sha256sum` writes it: 64 digits, two blanks or a blank and a star.
fn listed_by(line: &str) -> Option<&str> {
    let (digits, name) = line.split_at_checked(64)?;
    let name = name.strip_prefix("  ").or(name.strip_prefix(" *"))?;
    digits
        .bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then_some(name)
}

/// Whether a name stays in its directory, whatever the list says.
fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+~-".contains(&b);
    name.len() <= MAX_NAME_BYTES && !name.starts_with('.') && name.bytes().all(plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    fn directory(sums: &str) -> (tempfile::TempDir, Packages) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(SCRIPT), "#!/bin/sh\nFROM=\nPIN=\nmain\n").unwrap();
        fs::write(dir.path().join(SUMS), sums).unwrap();
        let packages = Packages::find(Some(dir.path())).unwrap().unwrap();
        (dir, packages)
    }

    #[test]
    fn only_what_is_listed_and_lies_in_the_directory_is_given() {
        let digits = "0".repeat(64);
        let names = ["a_1.deb", "../secret", "link", "sub/b", ".hidden", "pipe"];
        let lines = names.map(|n| format!("{digits}  {n}\n")).concat();
        let (dir, packages) = directory(&lines);
        let at = |name: &str| dir.path().join(name);
        for name in ["a_1.deb", "unlisted", ".hidden"] {
            fs::write(at(name), "bytes").unwrap();
        }
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/b"), "bytes").unwrap();
        fs::create_dir(at("pipe")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("link")).unwrap();
        let (_, size) = packages.open("a_1.deb").unwrap();
        assert_eq!(size, 5);
        assert!(packages.open(SUMS).is_ok());
        for name in [
            "unlisted",
            "../secret",
            "sub/b",
            ".hidden",
            "",
            "/etc/passwd",
        ] {
            let refused = packages.open(name).unwrap_err();
            assert!(
                matches!(refused, PackageError::Unknown(_)),
                "{name}: {refused}"
            );
        }
        for name in ["link", "pipe"] {
            let refused = packages.open(name).unwrap_err();
            assert!(
                matches!(refused, PackageError::File { .. }),
                "{name}: {refused}"
            );
        }
    }

    #[test]
    fn the_installer_knows_where_it_came_from() {
        let (_dir, packages) = directory("");
        let text = packages
            .installer("https://[::1]:7443", "sha256//a/b=")
            .unwrap();
        assert!(
            text.contains("\nFROM='https://[::1]:7443'\nPIN='sha256//a/b='\n"),
            "{text}"
        );
        assert!(packages.installer("https://a'b", "pin").is_err());
    }

    #[test]
    fn a_directory_without_packages_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let error = Packages::find(Some(dir.path())).unwrap_err();
        assert!(error.to_string().contains("install.sh"), "{error}");
    }
}
