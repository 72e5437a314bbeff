//! The one long-lived stream to the controller: report, receive, come back with full jitter.

use crate::clock;
use crate::driver::{Handle, Input};
use crate::fetcher::Patience;
use crate::identity::Identity;
use crate::renewal::Renewal;
use crate::telemetry::Ring;
use anyhow::{Context as _, ensure};
use sandpiper_core::assignment::{Assignment, AssignmentBundle};
use sandpiper_core::backoff::FullJitter;
use sandpiper_core::manifest::VersionManifest;
use sandpiper_core::reconcile::DeviceEvent;
use sandpiper_core::signed::Purpose;
use sandpiper_core::update::AgentRelease;
use sandpiper_proto::convert::{FromController, FromDevice, Hello};
use sandpiper_proto::limits::{MAX_MESSAGE_BYTES, MAX_WINDOWS_PER_BATCH};
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_client::DeviceServiceClient;
use sandpiper_transport::client;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Time between two looks for telemetry to send.
const TELEMETRY_EVERY: Duration = Duration::from_secs(1);
/// Messages that may wait for the network; a slow one slows the reports, not the device.
const OUTGOING: usize = 8;
/// A renewal that takes longer has failed.
const RENEW_TIMEOUT: Duration = Duration::from_secs(30);

/// What the connection needs.
pub struct Attachment {
    /// The identity; renewed here.
    pub identity: Identity,
    /// Where it is written.
    pub state_dir: PathBuf,
    /// The driver.
    pub driver: Handle,
    /// Telemetry to send.
    pub ring: Arc<Mutex<Ring>>,
    /// The live channel, for fetches.
    pub channel: watch::Sender<Option<Channel>>,
    /// Waits between two connections.
    pub patience: Patience,
}

/// An open stream.
struct Stream {
    out: mpsc::Sender<v1::DeviceMessage>,
    incoming: Streaming<v1::ControllerMessage>,
    channel: Channel,
}

/// How the use of a stream ended.
enum Ended {
    /// By the controller, which wants the device back.
    Closed,
    /// By the controller, which does not want this device.
    Unwelcome,
    /// By the device, which has a new certificate or more to say of itself in its hello. The
    /// stream stays open until the next one is there.
    Again(Box<Stream>),
}

impl Attachment {
    /// Connects and comes back for ever; ends only when the driver is gone.
    pub async fn run(mut self) {
        let patience = || FullJitter::new(self.patience.first, self.patience.longest);
        let mut backoff = patience();
        let boot_id = rand::random();
        let mut renewal = match self.identity.validity() {
            Ok(validity) => Renewal::loaded(validity, Instant::now()),
            Err(error) => {
                tracing::error!("no connection is possible: {error}");
                return;
            }
        };
        let mut old = None;
        while !self.driver.inputs.is_closed() {
            let begin = Instant::now();
            let ended = self.session(boot_id, &mut renewal, old.take()).await;
            let mut wait = Duration::ZERO;
            match ended {
                Ok(Ended::Again(stream)) => {
                    old = Some(stream);
                    continue;
                }
                Ok(Ended::Closed) => tracing::info!("the controller ended the stream"),
                Ok(Ended::Unwelcome) => {
                    tracing::error!(
                        "the controller does not want this device; models go on being served"
                    );
                    // An operator may change his mind: come back, but as rarely as possible.
                    wait = self
                        .patience
                        .longest
                        .mul_f64(0.5 + rand::random::<f64>() / 2.0);
                }
                Err(error) => tracing::warn!("no connection to the controller: {error:#}"),
            }
            self.channel.send_replace(None);
            // The loop ends when nobody listens.
            let _ = self.driver.inputs.send(Input::Attached(false)).await;
            backoff.held_for(begin.elapsed());
            let jittered = backoff.after_failure(rand::random());
            tokio::time::sleep(wait.max(jittered)).await;
        }
    }

    /// Opens a stream and says hello on it.
    async fn open(&mut self, boot_id: u64) -> anyhow::Result<Stream> {
        let channel = client::connect(&self.identity.tls()?, &self.identity.address).await?;
        let mut service =
            DeviceServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (out, outgoing) = mpsc::channel(OUTGOING);
        let hello = Hello {
            boot_id,
            profile: self.driver.profile.borrow_and_update().clone(),
            observation: self.driver.observation.borrow_and_update().clone(),
        };
        let message = v1::DeviceMessage::try_from(FromDevice::Hello(Box::new(hello)))?;
        out.send(message).await?;
        let answer = service.attach(ReceiverStream::new(outgoing)).await?;
        tracing::info!(address = %self.identity.address, "attached");
        Ok(Stream {
            out,
            incoming: answer.into_inner(),
            channel,
        })
    }

    /// One stream, from its hello to its end.
    async fn session(
        &mut self,
        boot_id: u64,
        renewal: &mut Renewal,
        old: Option<Box<Stream>>,
    ) -> anyhow::Result<Ended> {
        let mut stream = self.open(boot_id).await?;
        self.channel.send_replace(Some(stream.channel.clone()));
        self.driver.inputs.send(Input::Attached(true)).await?;
        drop(old);
        let mut ticks = tokio::time::interval(TELEMETRY_EVERY);
        let mut sent = 0;
        loop {
            let look = renewal.look_after(clock::now(), Instant::now());
            tokio::select! {
                changed = self.driver.observation.changed() => {
                    changed?;
                    let now = self.driver.observation.borrow_and_update().clone();
                    let message = FromDevice::Observation(Box::new(now));
                    stream.out.send(v1::DeviceMessage::try_from(message)?).await?;
                }
                changed = self.driver.profile.changed() => {
                    changed?;
                    return Ok(Ended::Again(Box::new(stream)));
                }
                _ = ticks.tick() => {
                    let windows = self.ring().pending(sent, MAX_WINDOWS_PER_BATCH);
                    if let Some(last) = windows.last() {
                        sent = last.sequence;
                        let message = FromDevice::Telemetry(windows);
                        stream.out.send(v1::DeviceMessage::try_from(message)?).await?;
                    }
                }
                () = tokio::time::sleep(look) => {
                    let due = renewal.is_due(clock::now(), Instant::now());
                    if due && self.renew(renewal, &stream.channel).await {
                        return Ok(Ended::Again(Box::new(stream)));
                    }
                }
                message = stream.incoming.message() => {
                    let Some(message) = message? else { return Ok(Ended::Closed) };
                    match FromController::try_from(message)? {
                        FromController::Assignment(bundle) => self.assigned(&bundle).await?,
                        FromController::TelemetryAck { boot, sequence } => {
                            self.ring().acknowledge(boot, sequence)?;
                        }
                        FromController::Clock(time) => {
                            let counted = clock::counted();
                            let input = Input::Time { counted, time };
                            self.driver.inputs.send(input).await?;
                        }
                        FromController::Disconnect { reason, retry } => {
                            tracing::warn!(%reason, "the controller ends the stream");
                            return Ok(if retry { Ended::Closed } else { Ended::Unwelcome });
                        }
                    }
                }
            }
        }
    }

    /// Whether there is a new certificate.
    async fn renew(&mut self, renewal: &mut Renewal, channel: &Channel) -> bool {
        let work = self.identity.renew(&self.state_dir, channel.clone());
        let done = match tokio::time::timeout(RENEW_TIMEOUT, work).await {
            Ok(Ok(())) => self.identity.validity().map_err(|e| e.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the controller does not answer".to_owned()),
        };
        match done {
            Ok(validity) => {
                tracing::info!("the certificate was renewed");
                *renewal = Renewal::issued(validity, Instant::now());
                true
            }
            Err(error) => {
                tracing::warn!("the certificate was not renewed: {error}");
                renewal.failed(Instant::now());
                false
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
            Err(error) => {
                let refused = Input::Refused(format!("{error:#}"));
                self.driver.inputs.send(refused).await?;
            }
        }
        Ok(())
    }

    fn verified(
        &self,
        bundle: &AssignmentBundle,
    ) -> anyhow::Result<(Assignment, Vec<VersionManifest>)> {
        let keys = self.identity.assignment_keys();
        let payload = keys.verify(&bundle.assignment, Purpose::Assignment)?;
        let assignment: Assignment = serde_json::from_slice(payload)?;
        let publishers = self.identity.publisher_keys();
        let versions = bundle.versions.iter().map(|signed| {
            let payload = publishers.verify(signed, Purpose::Version)?;
            Ok(serde_json::from_slice(payload)?)
        });
        let versions = versions.collect::<anyhow::Result<_>>()?;
        let ordered = assignment.agent.as_ref().and_then(|o| o.release.as_ref());
        if let Some(ordered) = ordered {
            // The controller says what goes where, a publisher what is genuine.
            let version = &ordered.version;
            let signed = bundle.agent.as_ref();
            let signed = signed
                .with_context(|| format!("the signed release of agent {version} was not sent"))?;
            let payload = publishers.verify(signed, Purpose::Agent)?;
            let release: AgentRelease = serde_json::from_slice(payload)?;
            ensure!(
                release == *ordered,
                "the assignment's release of agent {version} is not what its publisher signed"
            );
        }
        Ok((assignment, versions))
    }
}
