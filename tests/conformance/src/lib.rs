//! Real models and data through the compiler, against reference results.
//!
//! | module | what it holds |
//! |---|---|
//! | [`published`] | the models whose accuracy is published, and where their files are |
//! | [`backend`] | ONNX's own tests of single operators |
//! | [`mapped`] | what this process has of a mapped file |
//! | [`module`] | a compiled model in the sandbox |
//! | [`oracle`] | the scalar evaluation of the compiler |

pub mod backend;
pub mod mapped;
pub mod module;
pub mod oracle;
pub mod published;

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}
