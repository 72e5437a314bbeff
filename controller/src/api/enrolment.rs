//! Enrolment: the one service that needs no certificate.

use super::status::of_fleet;
use crate::fleet::FleetHandle;
use sandpiper_core::names::FleetName;
use sandpiper_proto::convert::EnrolRequest;
use sandpiper_proto::v1;
use sandpiper_proto::v1::enrolment_server::Enrolment;
use tonic::{Request, Response, Status};

/// The service.
pub struct Enrolments {
    /// The fleet's state.
    pub fleet: FleetHandle,
    /// The fleet's name.
    pub name: FleetName,
}

#[tonic::async_trait]
impl Enrolment for Enrolments {
    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        let request = EnrolRequest::try_from(request.into_inner())?;
        let job = self.fleet.run(move |state, now| state.enrol(now, request));
        let (name, credentials) = job.await.map_err(|e| of_fleet(&e))?;
        Ok(Response::new(
            credentials.into_enrol_response(self.name.clone(), name),
        ))
    }
}
