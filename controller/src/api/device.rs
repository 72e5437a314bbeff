//! The service for enrolled devices.

use super::status::of_fleet;
use super::throttle::Throttle;
use super::{auth, fetch};
use crate::catalogue::Blobs;
use crate::clock;
use crate::fleet::{FleetHandle, StreamId};
use sandpiper_core::bandwidth::{Bandwidth, Budget};
use sandpiper_core::names::DeviceName;
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::{FetchRequest, FromController, FromDevice};
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_server::DeviceService;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// A device says hello at once; who does not is not one of ours.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest sleep until a certificate is looked at again: a clock that is set is noticed.
const CLOCK_EVERY: Duration = Duration::from_secs(60);

/// The service.
pub struct Devices {
    /// The fleet's state.
    pub fleet: FleetHandle,
    /// Artefacts.
    pub blobs: Arc<Blobs>,
    /// Shares the bandwidth.
    pub throttle: Arc<Throttle>,
    /// What all fetches of the controller share.
    pub bandwidth: Bandwidth,
}

async fn admit(fleet: &FleetHandle, name: &DeviceName) -> Result<(), Status> {
    let name = name.clone();
    let job = fleet.run(move |state, _| Ok(state.fleet.admit(&name)?));
    job.await.map_err(|e| of_fleet(&e))
}

/// Admits a device to a fetch, under these budgets.
async fn admit_fetch(
    fleet: &FleetHandle,
    name: &DeviceName,
    bandwidth: &Bandwidth,
) -> Result<Vec<Budget>, Status> {
    let (name, bandwidth) = (name.clone(), bandwidth.clone());
    let job = fleet.run(move |state, _| {
        state.fleet.admit(&name)?;
        let labels = &state.fleet.device(&name)?.labels;
        let key = bandwidth.per_group.as_ref().map(|per| &per.group_by);
        let group = key.and_then(|key| labels.get(key));
        let mut all = bandwidth.budgets("controller", group.map(String::as_str));
        all.extend(state.fleet.budgets(&name));
        Ok(all)
    });
    job.await.map_err(|e| of_fleet(&e))
}

type Down = Pin<Box<dyn Stream<Item = Result<v1::ControllerMessage, Status>> + Send>>;

#[tonic::async_trait]
impl DeviceService for Devices {
    type AttachStream = Down;
    type FetchStream = fetch::Parts;

    async fn attach(
        &self,
        request: Request<Streaming<v1::DeviceMessage>>,
    ) -> Result<Response<Down>, Status> {
        let name = auth::device(&request)?;
        let expires = auth::expires(&request);
        admit(&self.fleet, &name).await?;
        let mut up = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, up.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello was said in time"))??;
        let first =
            first.ok_or_else(|| Status::invalid_argument("the stream ended without a hello"))?;
        let FromDevice::Hello(hello) = FromDevice::try_from(first)? else {
            return Err(Status::invalid_argument(
                "the first message must be a hello",
            ));
        };
        let device = name.clone();
        let job = self
            .fleet
            .run(move |state, now| state.attach(now, &device, *hello));
        let (id, receiver) = job.await.map_err(|e| of_fleet(&e))?;
        let (errors, error) = mpsc::channel(1);
        let said = listen(self.fleet.clone(), name, id, up, errors, expires);
        tokio::spawn(said);
        Ok(Response::new(Box::pin(down(receiver, error))))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<fetch::Parts>, Status> {
        let name = auth::device(&request)?;
        let budgets = admit_fetch(&self.fleet, &name, &self.bandwidth).await?;
        let fetching = fetch::Fetching {
            device: name.clone(),
            request: FetchRequest::try_from(request.into_inner())?,
            budgets,
        };
        let (fleet, bandwidth) = (self.fleet.clone(), self.bandwidth.clone());
        let again = move || {
            let (fleet, name) = (fleet.clone(), name.clone());
            let bandwidth = bandwidth.clone();
            async move { admit_fetch(&fleet, &name, &bandwidth).await }
        };
        let (blobs, throttle) = (Arc::clone(&self.blobs), Arc::clone(&self.throttle));
        let parts = fetch::stream(blobs, throttle, fetching, again);
        Ok(Response::new(parts))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let name = auth::device(&request)?;
        let csr = request.into_inner().checked()?;
        let job = self
            .fleet
            .run(move |state, now| state.renew(now, &name, &csr));
        Ok(Response::new(job.await.map_err(|e| of_fleet(&e))?.into()))
    }
}

/// Messages to the device, until the fleet drops its end or what the device said was wrong.
fn down(
    receiver: mpsc::Receiver<FromController>,
    error: mpsc::Receiver<Status>,
) -> impl Stream<Item = Result<v1::ControllerMessage, Status>> + Send {
    use tokio_stream::wrappers::ReceiverStream;
    // The end of either side ends the stream, which tells the device to come back.
    let messages = ReceiverStream::new(receiver).map(|m| Some(Ok(m.into())));
    let messages = messages.chain(tokio_stream::once(None));
    let errors = ReceiverStream::new(error).map(|status| Some(Err(status)));
    let errors = errors.chain(tokio_stream::once(None));
    let mut over = false;
    messages
        .merge(errors)
        .take_while(move |item| {
            let go_on = !over && item.is_some();
            over |= matches!(item, Some(Err(_)));
            go_on
        })
        .filter_map(|item| item)
}

/// Resolves when a certificate has ended by the wall clock, which may be set meanwhile.
async fn ended(expires: Option<Millis>) {
    let Some(end) = expires else {
        return std::future::pending().await;
    };
    loop {
        let left = end.since(clock::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(CLOCK_EVERY)).await;
    }
}

/// Hands on what the device says until its stream ends.
async fn listen(
    fleet: FleetHandle,
    name: DeviceName,
    id: StreamId,
    mut up: Streaming<v1::DeviceMessage>,
    errors: mpsc::Sender<Status>,
    expires: Option<Millis>,
) {
    let ended = loop {
        let message = tokio::select! {
            message = up.message() => message,
            // The certificate is checked at the handshake only, and a stream may outlive it.
            () = ended(expires) => break Some(Status::unauthenticated(
                "the certificate of this connection has expired: connect anew",
            )),
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => break None,
            // The connection is gone, and nobody is left to be told.
            Err(_) => break None,
        };
        if let Err(status) = take(&fleet, &name, id, message).await {
            break Some(status);
        }
    };
    if let Some(status) = ended {
        tracing::warn!(device = %name, "stream closed: {}", status.message());
        // The device may have gone in the meantime.
        let _ = errors.send(status).await;
    }
    let device = name.clone();
    let job = fleet.run(move |state, now| {
        state.detach(now, &device, id);
        Ok(())
    });
    if let Err(error) = job.await {
        tracing::debug!(device = %name, %error, "the end of a stream was not noted");
    }
}

async fn take(
    fleet: &FleetHandle,
    name: &DeviceName,
    id: StreamId,
    message: v1::DeviceMessage,
) -> Result<(), Status> {
    let name = name.clone();
    let done = match FromDevice::try_from(message)? {
        FromDevice::Hello(_) => {
            return Err(Status::invalid_argument("a hello is only said once"));
        }
        FromDevice::Observation(observation) => {
            fleet
                .run(move |state, now| Ok(state.fleet.report(now, &name, id, *observation)?))
                .await
        }
        FromDevice::Telemetry(windows) => {
            fleet
                .run(move |state, now| Ok(state.fleet.telemetry(now, &name, id, windows)?))
                .await
        }
    };
    done.map_err(|e| of_fleet(&e))
}
