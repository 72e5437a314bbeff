//! The one long-lived stream to the controller: report, receive, come back with full jitter.

use crate::driver::{Handle, Input};
use crate::identity::Identity;
use crate::telemetry::Ring;
use sandpiper_core::assignment::{Assignment, AssignmentBundle};
use sandpiper_core::manifest::VersionManifest;
use sandpiper_core::profile::DeviceProfile;
use sandpiper_core::reconcile::DeviceEvent;
use sandpiper_core::signed::Purpose;
use sandpiper_proto::convert::{FromController, FromDevice, Hello};
use sandpiper_proto::limits::{MAX_MESSAGE_BYTES, MAX_WINDOWS_PER_BATCH};
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_client::DeviceServiceClient;
use sandpiper_transport::backoff::FullJitter;
use sandpiper_transport::client;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Time between two looks for telemetry to send.
const TELEMETRY_EVERY: Duration = Duration::from_secs(1);
/// Messages that may wait for the network; a slow one slows the reports, not the device.
const OUTGOING: usize = 8;

/// What the connection needs.
pub struct Attachment {
    /// The identity; renewed here.
    pub identity: Identity,
    /// Where it is written.
    pub state_dir: PathBuf,
    /// What the device is.
    pub profile: DeviceProfile,
    /// The driver.
    pub driver: Handle,
    /// Telemetry to send.
    pub ring: Arc<Mutex<Ring>>,
    /// The live channel, for fetches.
    pub channel: watch::Sender<Option<Channel>>,
}

impl Attachment {
    /// Connects and comes back for ever; ends only when the driver is gone or the controller
    /// says that this identity is not welcome any more.
    pub async fn run(mut self) {
        let mut backoff = FullJitter::default();
        let boot_id = rand::random();
        while !self.driver.inputs.is_closed() {
            let begin = Instant::now();
            match self.session(boot_id).await {
                Ok(true) => tracing::info!("the controller ended the stream"),
                Ok(false) => {
                    tracing::error!(
                        "the controller does not want this device; models go on being served"
                    );
                    return;
                }
                Err(error) => tracing::warn!("no connection to the controller: {error:#}"),
            }
            self.channel.send_replace(None);
            backoff.held_for(begin.elapsed());
            tokio::time::sleep(backoff.after_failure(rand::random())).await;
        }
    }

    /// One connection; whether to come back.
    async fn session(&mut self, boot_id: u64) -> anyhow::Result<bool> {
        let channel = client::connect(&self.identity.tls()?, &self.identity.address).await?;
        if self.identity.renewal_due()? {
            match self.identity.renew(&self.state_dir, channel.clone()).await {
                Ok(()) => tracing::info!("the certificate was renewed"),
                Err(error) => tracing::warn!("the certificate was not renewed: {error}"),
            }
        }
        let mut service =
            DeviceServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (out, outgoing) = mpsc::channel(OUTGOING);
        let mut observed = self.driver.observation.clone();
        let observation = observed.borrow_and_update().clone();
        let hello = Hello {
            boot_id,
            profile: self.profile.clone(),
            observation,
        };
        out.send(v1::DeviceMessage::try_from(FromDevice::Hello(Box::new(
            hello,
        )))?)
        .await?;
        let mut incoming = service
            .attach(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        tracing::info!(address = %self.identity.address, "attached");
        self.channel.send_replace(Some(channel));
        let mut ticks = tokio::time::interval(TELEMETRY_EVERY);
        let mut sent = 0;
        loop {
            tokio::select! {
                changed = observed.changed() => {
                    changed?;
                    let now = observed.borrow_and_update().clone();
                    let message = FromDevice::Observation(Box::new(now));
                    out.send(v1::DeviceMessage::try_from(message)?).await?;
                }
                _ = ticks.tick() => {
                    let windows = self.ring().pending(sent, MAX_WINDOWS_PER_BATCH);
                    if let Some(last) = windows.last() {
                        sent = last.sequence;
                        let message = FromDevice::Telemetry(windows);
                        out.send(v1::DeviceMessage::try_from(message)?).await?;
                    }
                }
                message = incoming.message() => {
                    let Some(message) = message? else { return Ok(true) };
                    match FromController::try_from(message)? {
                        FromController::Assignment(bundle) => self.assigned(&bundle).await?,
                        FromController::TelemetryAck { boot, sequence } => {
                            self.ring().acknowledge(boot, sequence)?;
                        }
                        FromController::Disconnect { reason, retry } => {
                            tracing::warn!(%reason, "the controller ends the stream");
                            return Ok(retry);
                        }
                    }
                }
            }
        }
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Verifies every signature, then tells the driver. What does not verify changes nothing.
    async fn assigned(&self, bundle: &AssignmentBundle) -> anyhow::Result<()> {
        match self.verified(bundle) {
            Ok((assignment, versions)) => {
                let event = DeviceEvent::Assigned(assignment, versions);
                self.driver.inputs.send(Input::Event(event)).await?;
            }
            Err(error) => tracing::error!("an assignment is refused: {error:#}"),
        }
        Ok(())
    }

    fn verified(
        &self,
        bundle: &AssignmentBundle,
    ) -> anyhow::Result<(Assignment, Vec<VersionManifest>)> {
        let keys = self.identity.assignment_keys();
        let payload = keys.verify(&bundle.assignment, Purpose::Assignment)?;
        let assignment = serde_json::from_slice(payload)?;
        let publishers = self.identity.publisher_keys();
        let versions = bundle.versions.iter().map(|signed| {
            let payload = publishers.verify(signed, Purpose::Version)?;
            Ok(serde_json::from_slice(payload)?)
        });
        Ok((assignment, versions.collect::<anyhow::Result<_>>()?))
    }
}
