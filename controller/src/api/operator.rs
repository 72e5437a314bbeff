//! The service for operators and publishers.

use super::status::{of_blob, of_fleet, of_join};
use super::{Installation, auth, watch};
use crate::catalogue::{self, Blobs};
use crate::fleet::{Authority, FleetError, FleetHandle};
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::names::{DeploymentName, DeviceName, FleetName, NameError};
use sandpiper_core::policy::Deployment;
use sandpiper_core::rollout::RolloutSpec;
use sandpiper_core::signed::Signed;
use sandpiper_proto::convert::{AgentOrders, JoinTokenRequest, ListQuery, UploadPart, from_json};
use sandpiper_proto::v1;
use sandpiper_proto::v1::operator_service_server::OperatorService;
use sandpiper_transport::token::JoinToken;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// Most artefacts asked for at once: a version of 64 variants and 8 targets stays below it.
const MAX_ARTEFACTS: usize = 4096;

/// The service.
pub struct Operators {
    /// The fleet's state.
    pub fleet: FleetHandle,
    /// Artefacts.
    pub blobs: Arc<Blobs>,
    /// Whose signatures are accepted, and the authority that tokens pin.
    pub authority: Arc<Authority>,
    /// What devices are told to connect to.
    pub device_address: String,
    /// The fleet's name.
    pub name: FleetName,
    /// What devices are installed from, if the controller holds packages.
    pub installation: Option<Installation>,
}

type Answer<T> = Result<Response<T>, Status>;

fn name<T>(text: &str) -> Result<T, Status>
where
    T: std::str::FromStr<Err = NameError>,
{
    text.parse()
        .map_err(|e: NameError| Status::invalid_argument(e.to_string()))
}

fn done<T>(result: Result<T, FleetError>) -> Result<T, Status> {
    result.map_err(|e| of_fleet(&e))
}

const EMPTY: v1::Empty = v1::Empty {};

#[tonic::async_trait]
impl OperatorService for Operators {
    type WatchStream = watch::Changes;

    async fn list(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListResponse> {
        auth::operator(&request)?;
        let query = ListQuery::try_from(request.into_inner())?;
        let resources = watch::list(&self.fleet, query).await?;
        Ok(Response::new(v1::ListResponse { resources }))
    }

    async fn watch(&self, request: Request<v1::ListRequest>) -> Answer<watch::Changes> {
        auth::operator(&request)?;
        let query = ListQuery::try_from(request.into_inner())?;
        Ok(Response::new(watch::watch(self.fleet.clone(), query)))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::Document> {
        auth::operator(&request)?;
        let wire = request.into_inner();
        let (device, model) = (name(&wire.device)?, name(&wire.model)?);
        let version = match wire.version.as_str() {
            "" => None,
            text => Some(name(text)?),
        };
        let job = self
            .fleet
            .run(move |state, _| state.explain(&device, &model, version));
        Ok(Response::new(v1::Document {
            json: done(job.await)?,
        }))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Answer<v1::CreateJoinTokenResponse> {
        let actor = auth::operator(&request)?;
        let wish = JoinTokenRequest::try_from(request.into_inner())?;
        let job = self
            .fleet
            .run(move |state, now| state.create_token(now, actor.as_str(), wish));
        let token = done(job.await)?;
        let string = JoinToken {
            address: self.device_address.clone(),
            fleet: self.name.clone(),
            ca_pin: self.authority.ca.pin(),
            secret: token.secret,
        };
        let token_string = string.to_string();
        let installation = self.installation.as_ref();
        let response = v1::CreateJoinTokenResponse {
            id: token.id,
            install_command: installation
                .map(|i| i.command(&token_string))
                .unwrap_or_default(),
            controller_pin: installation.map(|i| i.pin().to_owned()).unwrap_or_default(),
            token_string,
        };
        Ok(Response::new(response))
    }

    async fn revoke_join_token(&self, request: Request<v1::NameRequest>) -> Answer<v1::Empty> {
        let actor = auth::operator(&request)?;
        let id = request.into_inner().name;
        let job = self
            .fleet
            .run(move |state, now| state.revoke_token(now, actor.as_str(), &id));
        done(job.await)?;
        Ok(Response::new(EMPTY))
    }

    async fn set_labels(&self, request: Request<v1::SetLabelsRequest>) -> Answer<v1::Empty> {
        let actor = auth::operator(&request)?;
        let wire = request.into_inner();
        let device: DeviceName = name(&wire.device)?;
        let job = self.fleet.run(move |state, now| {
            Ok(state
                .fleet
                .set_labels(now, actor.as_str(), &device, wire.set, &wire.remove)?)
        });
        done(job.await)?;
        Ok(Response::new(EMPTY))
    }

    async fn revoke_device(&self, request: Request<v1::NameRequest>) -> Answer<v1::Empty> {
        let actor = auth::operator(&request)?;
        let device: DeviceName = name(&request.into_inner().name)?;
        let job = self
            .fleet
            .run(move |state, now| Ok(state.fleet.revoke_device(now, actor.as_str(), &device)?));
        done(job.await)?;
        Ok(Response::new(EMPTY))
    }

    async fn release_device(&self, request: Request<v1::NameRequest>) -> Answer<v1::Empty> {
        let actor = auth::operator(&request)?;
        let device: DeviceName = name(&request.into_inner().name)?;
        let job = self
            .fleet
            .run(move |state, now| Ok(state.fleet.release_device(now, actor.as_str(), &device)?));
        done(job.await)?;
        Ok(Response::new(EMPTY))
    }

    async fn missing_artefacts(
        &self,
        request: Request<v1::ArtefactList>,
    ) -> Answer<v1::ArtefactList> {
        auth::operator(&request)?;
        let wire = request.into_inner().artefacts;
        if wire.len() > MAX_ARTEFACTS {
            let text = format!("at most {MAX_ARTEFACTS} artefacts can be asked for at once");
            return Err(Status::invalid_argument(text));
        }
        let wanted = wire.into_iter().map(ArtefactRef::try_from);
        let wanted: Vec<ArtefactRef> = wanted.collect::<Result<_, _>>()?;
        let blobs = Arc::clone(&self.blobs);
        let missing = tokio::task::spawn_blocking(move || blobs.missing(&wanted)).await;
        let missing = missing.map_err(|e| of_join(&e))?;
        let artefacts = missing.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ArtefactList { artefacts }))
    }

    async fn upload_artefact(
        &self,
        request: Request<Streaming<v1::UploadChunk>>,
    ) -> Answer<v1::Empty> {
        auth::operator(&request)?;
        let mut parts = request.into_inner();
        let first = parts.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("the upload is empty"))?;
        let UploadPart::Artefact(artefact) = UploadPart::try_from(first)? else {
            return Err(Status::invalid_argument(
                "an upload begins with the artefact it brings",
            ));
        };
        let blobs = Arc::clone(&self.blobs);
        let mut upload = blocking(move || blobs.begin(artefact)).await?;
        while let Some(part) = parts.message().await? {
            let UploadPart::Data(bytes) = UploadPart::try_from(part)? else {
                return Err(Status::invalid_argument("one upload brings one artefact"));
            };
            upload = blocking(move || upload.write(&bytes).map(|()| upload)).await?;
        }
        blocking(move || upload.finish()).await?;
        Ok(Response::new(EMPTY))
    }

    async fn publish_version(&self, request: Request<v1::Signed>) -> Answer<v1::Empty> {
        let actor = auth::operator(&request)?;
        let signed = Signed::try_from(request.into_inner())?;
        let (blobs, authority) = (Arc::clone(&self.blobs), Arc::clone(&self.authority));
        let admitted = tokio::task::spawn_blocking(move || {
            catalogue::admit(signed, &authority.publishers, &blobs)
        });
        let admitted = admitted.await.map_err(|e| of_join(&e))?;
        let published = done(admitted.map_err(FleetError::from))?;
        let job = self
            .fleet
            .run(move |state, now| Ok(state.fleet.publish(now, actor.as_str(), published)?));
        done(job.await)?;
        Ok(Response::new(EMPTY))
    }

    async fn publish_agent(&self, request: Request<v1::Signed>) -> Answer<v1::Empty> {
        let actor = auth::operator(&request)?;
        let signed = Signed::try_from(request.into_inner())?;
        let (blobs, authority) = (Arc::clone(&self.blobs), Arc::clone(&self.authority));
        let admitted = tokio::task::spawn_blocking(move || {
            catalogue::admit_agent(signed, &authority.publishers, &blobs)
        });
        let admitted = admitted.await.map_err(|e| of_join(&e))?;
        let published = done(admitted.map_err(FleetError::from))?;
        let job = self.fleet.run(move |state, now| {
            Ok(state.fleet.publish_agent(now, actor.as_str(), published)?)
        });
        done(job.await)?;
        Ok(Response::new(EMPTY))
    }

    async fn order_agents(&self, request: Request<v1::OrderAgentsRequest>) -> Answer<v1::Document> {
        let actor = auth::operator(&request)?;
        let AgentOrders { version, devices } = AgentOrders::try_from(request.into_inner())?;
        let job = self.fleet.run(move |state, now| {
            let fleet = &mut state.fleet;
            Ok(fleet.order_agents(now, actor.as_str(), version.as_ref(), &devices)?)
        });
        let doc = done(job.await)?;
        Ok(Response::new(v1::Document::of(&doc)?))
    }

    async fn apply_deployment(&self, request: Request<v1::Document>) -> Answer<v1::Empty> {
        let actor = auth::operator(&request)?;
        let deployment: Deployment = request.into_inner().parse()?;
        let job = self.fleet.run(move |state, now| {
            Ok(state
                .fleet
                .apply_deployment(now, actor.as_str(), deployment)?)
        });
        done(job.await)?;
        Ok(Response::new(EMPTY))
    }

    async fn delete_deployment(&self, request: Request<v1::NameRequest>) -> Answer<v1::Empty> {
        let actor = auth::operator(&request)?;
        let deployment: DeploymentName = name(&request.into_inner().name)?;
        let job = self.fleet.run(move |state, now| {
            Ok(state
                .fleet
                .delete_deployment(now, actor.as_str(), &deployment)?)
        });
        done(job.await)?;
        Ok(Response::new(EMPTY))
    }

    async fn plan_rollout(&self, request: Request<v1::RolloutRequest>) -> Answer<v1::Document> {
        auth::operator(&request)?;
        let spec: RolloutSpec = from_json("spec_json", &request.into_inner().spec_json)?;
        let job = self
            .fleet
            .run(move |state, now| Ok((state.fleet.draft_rollout(spec)?, now)));
        let (draft, now) = done(job.await)?;
        // Neither the fleet nor the network's threads wait for what a large plan would do.
        let document = move || v1::Document::of(&draft.foresee(now));
        let document = tokio::task::spawn_blocking(document).await;
        Ok(Response::new(document.map_err(|e| of_join(&e))??))
    }

    async fn start_rollout(&self, request: Request<v1::RolloutRequest>) -> Answer<v1::NameRequest> {
        let actor = auth::operator(&request)?;
        let spec: RolloutSpec = from_json("spec_json", &request.into_inner().spec_json)?;
        let job = self
            .fleet
            .run(move |state, now| Ok(state.fleet.start_rollout(now, &actor, spec)?));
        let name = done(job.await)?.into();
        Ok(Response::new(v1::NameRequest { name }))
    }

    async fn steer_rollout(&self, request: Request<v1::SteerRequest>) -> Answer<v1::Empty> {
        let actor = auth::operator(&request)?;
        let (rollout, verb) = request.into_inner().checked()?;
        let job = self
            .fleet
            .run(move |state, now| Ok(state.fleet.steer_rollout(now, &actor, &rollout, verb)?));
        done(job.await)?;
        Ok(Response::new(EMPTY))
    }
}

/// Runs a job on the file system away from the network's threads.
async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, catalogue::BlobError> + Send + 'static,
) -> Result<T, Status> {
    let joined = tokio::task::spawn_blocking(job)
        .await
        .map_err(|e| of_join(&e))?;
    joined.map_err(|e| of_blob(&e))
}
