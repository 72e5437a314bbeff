//! What lowering an operator to kernels needs: the program under construction, the order of
//! elements in memory, and what families of operators share.

mod bytes;
mod chains;
mod context;
pub(crate) mod dense;
pub(crate) mod elementwise;
mod layout;
pub(crate) mod loops;
pub(crate) mod pooling;
pub(crate) mod pooling_any;
mod program;
pub(crate) mod scales;
pub(crate) mod sums;
pub(crate) mod window;

pub(crate) use context::LowerCx;
pub(crate) use layout::Layout;
pub(crate) use program::{Buffer, Home, Program, Step};
