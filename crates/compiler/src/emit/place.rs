//! Where things lie in the linear memory.

/// Something in memory, before it has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ref {
    /// A buffer of the plan, by index.
    Buffer(usize),
    /// Bytes of the weights, by offset.
    Weights(u32),
}

/// An address and how far apart the items of a batch lie (0: one place for all).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Address of the first item.
    pub(crate) base: u32,
    /// Bytes from one item to the next.
    pub(crate) step: u32,
}

/// The addresses of a finished plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// Address of the weights.
    pub(crate) weights: u32,
    /// Buffers by index.
    pub(crate) buffers: Vec<Place>,
}

impl Places {
    /// Where `it` lies.
    pub(crate) fn of(&self, it: Ref) -> Place {
        match it {
            Ref::Buffer(index) => self.buffers[index],
            Ref::Weights(offset) => Place {
                base: self.weights + offset,
                step: 0,
            },
        }
    }
}
