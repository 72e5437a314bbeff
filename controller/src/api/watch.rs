//! Watching resources: the present state, then every change. A watcher that falls behind is
//! sent everything again instead of being dropped.

use super::status::of_fleet;
use crate::fleet::{Changed, FleetHandle};
use sandpiper_proto::convert::{Change, ListQuery};
use sandpiper_proto::v1;
use std::collections::BTreeMap;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Resources waiting for one watcher.
const QUEUE: usize = 64;

pub(super) type Changes = ReceiverStream<Result<v1::ResourceEvent, Status>>;
type Sender = mpsc::Sender<Result<v1::ResourceEvent, Status>>;

/// Resources that a query finds.
pub(super) async fn list(
    fleet: &FleetHandle,
    query: ListQuery,
) -> Result<Vec<v1::Resource>, Status> {
    let kind = query.kind;
    let job = fleet.run(move |state, now| state.list(now, &query));
    let shown = job.await.map_err(|e| of_fleet(&e))?;
    let resources = shown.into_iter().map(|s| v1::Resource {
        kind: kind.to_string(),
        name: s.name,
        json: s.json,
    });
    Ok(resources.collect())
}

/// Starts a watch.
pub(super) fn watch(fleet: FleetHandle, query: ListQuery) -> Changes {
    let (sender, receiver) = mpsc::channel(QUEUE);
    // Subscribed before the first listing, so that no change falls between them.
    let changes = fleet.changes();
    tokio::spawn(async move {
        if let Err(status) = follow(&fleet, &query, changes, &sender).await {
            // The watcher may have gone.
            let _ = sender.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver)
}

struct Known(BTreeMap<String, v1::Resource>);

/// Sends; false when the watcher has gone.
async fn send(sender: &Sender, change: Change) -> bool {
    sender.send(Ok(change.into())).await.is_ok()
}

async fn follow(
    fleet: &FleetHandle,
    query: &ListQuery,
    mut changes: broadcast::Receiver<Changed>,
    sender: &Sender,
) -> Result<(), Status> {
    let mut known = Known(BTreeMap::new());
    for resource in list(fleet, query.clone()).await? {
        known.0.insert(resource.name.clone(), resource.clone());
        if !send(sender, Change::Current(resource)).await {
            return Ok(());
        }
    }
    let mut open = send(sender, Change::Synced).await;
    while open {
        let name = tokio::select! {
            change = changes.recv() => match change {
                Ok(change) if change.kind != query.kind => continue,
                Ok(change) if query.name.as_ref().is_some_and(|n| *n != change.name) => continue,
                Ok(change) => Some(change.name),
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return Err(Status::unavailable("the controller is stopping")),
            },
            () = sender.closed() => return Ok(()),
        };
        open = known.refresh(fleet, query, name, sender).await?;
    }
    Ok(())
}

impl Known {
    /// Sends what differs from what was sent: of one resource, or of all.
    async fn refresh(
        &mut self,
        fleet: &FleetHandle,
        query: &ListQuery,
        name: Option<String>,
        sender: &Sender,
    ) -> Result<bool, Status> {
        let query = ListQuery {
            name: name.clone().or_else(|| query.name.clone()),
            ..query.clone()
        };
        let found = match list(fleet, query).await {
            Ok(found) => found,
            Err(status) if status.code() == tonic::Code::NotFound => Vec::new(),
            Err(status) => return Err(status),
        };
        let gone: Vec<String> = self
            .0
            .keys()
            .filter(|k| {
                name.as_ref().is_none_or(|n| n == *k) && !found.iter().any(|r| r.name == **k)
            })
            .cloned()
            .collect();
        for key in gone {
            if let Some(resource) = self.0.remove(&key)
                && !send(sender, Change::Deleted(resource)).await
            {
                return Ok(false);
            }
        }
        for resource in found {
            let old = self.0.insert(resource.name.clone(), resource.clone());
            if old.as_ref() != Some(&resource) && !send(sender, Change::Updated(resource)).await {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
