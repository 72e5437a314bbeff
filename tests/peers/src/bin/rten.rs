//! rten on one thread.

use anyhow::Result;
use sandpiper_peers::{Loaded, serve};
use sandpiper_peers_rten::Rten;
use std::path::Path;

struct Native(Rten);

impl Loaded for Native {
    fn run(&mut self) -> Result<()> {
        self.0.run()?;
        Ok(())
    }

    fn outputs(&mut self) -> Result<Vec<Vec<f64>>> {
        self.0.outputs()
    }
}

fn load(path: &Path, inputs: &[Vec<u8>]) -> Result<Native> {
    Rten::load(std::fs::read(path)?, inputs).map(Native)
}

fn main() -> Result<()> {
    serve("rten 0.27.0", load)
}
