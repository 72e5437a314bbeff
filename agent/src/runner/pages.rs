//! The memory that agent and runner share: a file in memory, of which the runner maps into the memory
//! of its module the pages with inputs and outputs. The agent writes inputs to where the module reads
//! them and reads outputs from where it left them, so that each is copied once.
//!
//! The agent does not map it: a runner that does what it likes with its side cannot make the agent
//! fault, and what it changes while the agent reads is a wrong output, as any other would be.

use rustix::fs::{MemfdFlags, SealFlags};
use sandpiper_core::abi::ModuleAbi;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// The agent's side.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
}

impl Pages {
    /// Takes no memory before something is written. Nobody can change its length.
    pub(super) fn new(abi: &ModuleAbi) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("sandpiper-tensors", flags)?);
        file.set_len(abi.memory_bytes)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        Ok(Self { file })
    }

    /// For the runner.
    pub(super) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Puts the inputs of a batch, which fit the ABI, where the module reads them.
    pub(super) fn put(&self, abi: &ModuleAbi, inputs: &[Vec<u8>]) -> io::Result<()> {
        for (tensor, bytes) in abi.inputs.iter().zip(inputs) {
            self.file.write_all_at(bytes, tensor.offset.into())?;
        }
        Ok(())
    }

    /// Fetches the outputs of a batch that the ABI allows.
    pub(super) fn take(&self, abi: &ModuleAbi, batch: u32) -> io::Result<Vec<Vec<u8>>> {
        let take = |tensor: &sandpiper_core::abi::PlacedTensor| {
            let mut bytes = vec![0; tensor.spec.size_bytes(batch)];
            self.file.read_exact_at(&mut bytes, tensor.offset.into())?;
            Ok(bytes)
        };
        abi.outputs.iter().map(take).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use sandpiper_core::abi::{ABI_VERSION, PlacedTensor};
    use sandpiper_core::tensor::{DType, Dim, TensorSpec};

    #[test]
    fn tensors_lie_where_the_abi_says_and_the_length_is_fixed() {
        let tensor = |offset| PlacedTensor {
            spec: TensorSpec {
                name: "t".into(),
                dtype: DType::U8,
                dims: vec![Dim::Batch, Dim::Fixed(3)],
            },
            offset,
        };
        let abi = ModuleAbi {
            abi: ABI_VERSION,
            inputs: vec![tensor(16), tensor(64)],
            outputs: vec![tensor(60)],
            max_batch: 2,
            memory_bytes: 1 << 16,
            weights: None,
            bounded: true,
        };
        let pages = Pages::new(&abi).unwrap();
        pages.put(&abi, &[vec![1; 6], vec![2; 6]]).unwrap();
        assert_eq!(pages.take(&abi, 2).unwrap(), [[0, 0, 0, 0, 2, 2]]);
        let theirs = pages.share().unwrap();
        assert!(theirs.set_len(0).is_err());
        assert!(theirs.set_len(1 << 17).is_err());
    }
}
