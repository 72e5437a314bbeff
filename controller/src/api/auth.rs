//! Who is calling: taken from the certificate, never from the message.

use sandpiper_core::names::{ActorName, DeviceName};
use sandpiper_core::time::Millis;
use sandpiper_transport::identity::{Identity, IdentityKind};
use sandpiper_transport::server::Peer;
use tonic::{Request, Status};

fn identity<T>(request: &Request<T>) -> Result<&Identity, Status> {
    let peer = request.extensions().get::<Peer>();
    let peer = peer.ok_or_else(|| Status::internal("the connection has no peer"))?;
    // A connection may outlive the certificate that opened it.
    if peer.expires.is_some_and(|end| end <= crate::clock::now()) {
        return Err(Status::unauthenticated(
            "the certificate of this connection has expired: connect anew",
        ));
    }
    peer.identity.as_ref().ok_or_else(|| {
        Status::unauthenticated("this call needs a certificate of the fleet: join first")
    })
}

/// When the certificate of the connection ends.
pub(super) fn expires<T>(request: &Request<T>) -> Option<Millis> {
    request.extensions().get::<Peer>()?.expires
}

/// The device that calls.
pub(super) fn device<T>(request: &Request<T>) -> Result<DeviceName, Status> {
    let identity = identity(request)?;
    identity.device_name().ok_or_else(|| {
        Status::permission_denied(format!(
            "{identity} is not a device: only devices may do this"
        ))
    })
}

/// The operator that calls.
pub(super) fn operator<T>(request: &Request<T>) -> Result<ActorName, Status> {
    let identity = identity(request)?;
    match identity.kind {
        IdentityKind::Operator => Ok(identity.name.clone()),
        IdentityKind::Device | IdentityKind::Publisher | IdentityKind::Controller => {
            let text = format!("{identity} is not an operator: only operators may do this");
            Err(Status::permission_denied(text))
        }
    }
}
