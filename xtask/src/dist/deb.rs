//! Packages of Debian: an `ar` file of two archives.

use super::archive::{Entry, gzip, tar};
use super::platform::{Platform, Program};
use anyhow::Result;
use std::path::Path;

/// What a package tells of itself and does when it is installed.
struct About {
    summary: &'static str,
    /// Its directory below `deploy/deb`.
    scripts: &'static str,
    recommends: &'static str,
}

fn about(program: Program) -> About {
    match program {
        Program::Agent => About {
            summary: "runs small machine-learning models on this device",
            scripts: "agent",
            recommends: "ca-certificates",
        },
        Program::Controller => About {
            summary: "controller of a fleet that runs small machine-learning models",
            scripts: "controller",
            recommends: "ca-certificates",
        },
    }
}

/// The bytes of a `.deb` that installs these files.
///
/// # Errors
/// When a maintainer script of `deploy/deb` cannot be read.
pub(super) fn deb(
    program: Program,
    platform: Platform,
    version: &str,
    files: &[Entry],
    mtime: u64,
) -> Result<Vec<u8>> {
    let about = about(program);
    let kib: usize = files.iter().map(|f| f.bytes.len().div_ceil(1024)).sum();
    let control = format!(
        "Package: {}\nVersion: {version}\nArchitecture: {}\nMaintainer: Sandpiper\nSection: misc\n\
         Priority: optional\nInstalled-Size: {kib}\nRecommends: {}\nDescription: {}\n",
        program.package(),
        platform.name(),
        about.recommends,
        about.summary,
    );
    // Files below /etc belong to whoever runs the machine: an upgrade does not overwrite them.
    let conffiles: String = files
        .iter()
        .filter(|f| f.path.starts_with("etc/"))
        .map(|f| format!("/{}\n", f.path))
        .collect();
    let mut inside = vec![
        Entry::new("control", 0o644, control),
        Entry::new("conffiles", 0o644, conffiles),
    ];
    let scripts = super::deploy("deb").join(about.scripts);
    for name in ["postinst", "prerm", "postrm"] {
        inside.push(script(name, &scripts.join(name))?);
    }
    let mut builder = ar::Builder::new(Vec::new());
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64);
        header.set_mode(0o100_644);
        header.set_mtime(mtime);
        builder.append(&header, bytes)
    };
    put("debian-binary", b"2.0\n")?;
    put("control.tar.gz", &gzip(&tar(&inside, mtime)?)?)?;
    put("data.tar.gz", &gzip(&tar(files, mtime)?)?)?;
    Ok(builder.into_inner()?)
}

fn script(name: &str, path: &Path) -> Result<Entry> {
    Entry::of(name, 0o755, path)
}
