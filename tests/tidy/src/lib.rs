//! The style of this repository as an ordinary test: finds the sources and reads them.
//!
//! The rules themselves, each with its reason, are in `tests/`.

use std::path::{Path, PathBuf};

/// A source file of the workspace.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path from the root of the workspace, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// Lines of code with their numbers from 1: comments that fill a line are left out.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Every file below the root whose name ends in one of these, build output left out.
///
/// # Errors
/// When a directory or a file cannot be read.
pub fn sources(endings: &[&str]) -> std::io::Result<Vec<Source>> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    open.push(path);
                }
            } else if endings.iter().any(|e| name.ends_with(e)) {
                let inside = path.strip_prefix(&root).unwrap_or(&path);
                let inside = inside.to_string_lossy().replace('\\', "/");
                found.push(Source {
                    path: inside,
                    text: std::fs::read_to_string(&path)?,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
