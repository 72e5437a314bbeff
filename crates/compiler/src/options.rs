//! What the caller may choose.

use crate::error::CompileError;
use std::collections::BTreeMap;

/// Largest batch that a module can be made for.
pub const MAX_BATCH: u32 = 4096;

/// Choices of a compilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Largest batch that the module accepts, 1 to [`MAX_BATCH`]. Inputs and outputs have room
    /// for so many items; activations for one. A model without a free first dimension gets 1.
    pub max_batch: u32,
    /// Dimensions of inputs, by name: for free dimensions other than the batch, or to fix the
    /// batch. `None` leaves a dimension as it is.
    pub shapes: BTreeMap<String, Vec<Option<u32>>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_batch: 8,
            shapes: BTreeMap::new(),
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), CompileError> {
        if (1..=MAX_BATCH).contains(&self.max_batch) {
            Ok(())
        } else {
            Err(CompileError::Options(format!(
                "the maximum batch must lie in 1..={MAX_BATCH}, not {}",
                self.max_batch
            )))
        }
    }
}
