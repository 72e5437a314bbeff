//! One kernel or another, by how the host multiplies bytes.

use super::Kernel;
use crate::emit::{Func, Ref};

/// Two kernels with the same results, one of which is run.
pub(crate) struct BySense {
    /// Where bytes are multiplied as signed.
    pub(crate) signed: Box<dyn Kernel>,
    /// Where they are not.
    pub(crate) unsigned: Box<dyn Kernel>,
}

impl Kernel for BySense {
    fn name(&self) -> &'static str {
        self.signed.name()
    }

    fn reads(&self) -> Vec<Ref> {
        [self.signed.reads(), self.unsigned.reads()].concat()
    }

    fn writes(&self) -> Vec<Ref> {
        self.signed.writes()
    }

    fn shares(&self) -> bool {
        self.signed.shares() && self.unsigned.shares()
    }

    fn emit(&self, f: &mut Func<'_>) {
        f.signed_bytes()
            .choose(|f| self.signed.emit(f), |f| self.unsigned.emit(f));
    }
}
