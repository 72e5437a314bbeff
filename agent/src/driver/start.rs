//! Verifies the files of a variant, loads a guest and tests it.

use crate::depot::{Depot, DepotError};
use crate::guest::{LaunchSpec, Launcher};
use crate::launch::self_test;
use crate::serve::routes::Served;
use crate::tally::ServedBy;
use crate::words::chain;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::manifest::VariantManifest;
use sandpiper_core::telemetry::FailureKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything that a guest is made from.
pub(super) struct Start {
    pub(super) depot: Depot,
    pub(super) launcher: Arc<dyn Launcher>,
    pub(super) manifest: VariantManifest,
    pub(super) native: ArtefactRef,
    pub(super) by: ServedBy,
    /// Number of classes that the first output tells apart.
    pub(super) classes: Option<usize>,
    /// Longest time one request may take.
    pub(super) deadline: Duration,
    /// Whether the golden outputs are compared.
    pub(super) test: bool,
}

type Failed = (FailureKind, String);

impl Start {
    /// The guest, ready to serve.
    pub(super) async fn run(self) -> Result<Arc<Served>, Failed> {
        let load = FailureKind::Load;
        // Native code is run as it is: only bytes that were verified just now reach the runner.
        let code = self.verified(self.native, load).await?;
        let weights = match self.manifest.weights {
            Some(weights) => Some(self.verified(weights, load).await?),
            None => None,
        };
        let by = &self.by;
        let spec = LaunchSpec {
            label: format!("{}/{}/{}", by.model, by.version, by.variant),
            native: code,
            weights,
            abi: self.manifest.abi.clone(),
            deadline: self.deadline,
        };
        let launched = self.launcher.launch(spec).await;
        let guest = launched.map_err(|e| (load, e.to_string()))?;
        if self.test {
            let (kind, golden) = (FailureKind::SelfTest, self.manifest.golden);
            self.verified(golden.artefact, kind).await?;
            let depot = self.depot.clone();
            let bytes = on_disk(kind, move || depot.read(golden.artefact)).await?;
            self_test(&*guest, &self.manifest.abi, &bytes, golden.tolerance)
                .await
                .map_err(|why| (kind, why))?;
        }
        let abi = self.manifest.abi;
        Ok(Arc::new(Served::new(self.by, abi, guest, self.classes)))
    }

    /// Hashes the file on a thread that may block: a large one takes a slow card seconds.
    async fn verified(&self, artefact: ArtefactRef, kind: FailureKind) -> Result<PathBuf, Failed> {
        let depot = self.depot.clone();
        on_disk(kind, move || depot.verify(artefact)).await
    }
}

/// Runs what may wait for the disk on a thread that may block.
async fn on_disk<T: Send + 'static>(
    kind: FailureKind,
    job: impl FnOnce() -> Result<T, DepotError> + Send + 'static,
) -> Result<T, Failed> {
    match tokio::task::spawn_blocking(job).await {
        Ok(done) => done.map_err(|e| (kind, chain(&e))),
        Err(error) => Err((kind, format!("a job on the disk did not finish ({error})"))),
    }
}
