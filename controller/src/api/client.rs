//! The operator's side of the operator service, in domain terms.

use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::names::RolloutName;
use sandpiper_core::policy::Labels;
use sandpiper_core::rollout::RolloutSpec;
use sandpiper_core::signed::Signed;
use sandpiper_core::view::AgentOrdersDoc;
use sandpiper_proto::convert::{
    AgentOrders, Change, ConvertError, JoinTokenRequest, ListQuery, SteerVerb, UploadPart,
};
use sandpiper_proto::{limits, v1};
use sandpiper_transport::client::{ClientTls, ConnectError, connect};
use serde_json::Value;
use tonic::transport::Channel;

/// Largest answer accepted: lists of large fleets are long.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The controller is not reached.
    #[error("the controller cannot be reached")]
    Connect(#[from] ConnectError),
    /// The controller refused.
    #[error("{}", status_text(.0))]
    Status(Box<tonic::Status>),
    /// What was sent or received is not valid.
    #[error("a message of the controller or for it is not valid")]
    Convert(#[from] ConvertError),
}

impl From<tonic::Status> for CallError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

fn status_text(status: &tonic::Status) -> String {
    match status.message() {
        "" => format!("the controller answered {}", status.code().description()),
        message => message.to_owned(),
    }
}

/// A resource: its name and its document.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Name.
    pub name: String,
    /// Document, as the controller sent it.
    pub document: Value,
}

/// A join token that was just made.
#[derive(Clone, serde::Serialize)]
pub struct MadeToken {
    /// Its public name.
    pub id: String,
    /// All that a device needs to join. A secret.
    pub token: String,
    /// What a person runs on a device to install and join it; none if the controller holds no
    /// packages. Holds the token.
    pub install: Option<String>,
    /// Pin of the controller's key, as `curl --pinnedpubkey` takes it; none without packages.
    pub controller_pin: Option<String>,
}

/// What a watch gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Watched {
    /// There is this resource, new, changed, or already before.
    Now(Item),
    /// The initial state is complete.
    Synced,
    /// It is gone.
    Gone(Item),
}

/// A connection to the operator listener.
#[derive(Debug, Clone)]
pub struct OperatorClient {
    inner: v1::operator_service_client::OperatorServiceClient<Channel>,
}

/// A running watch.
#[derive(Debug)]
pub struct Watch(tonic::Streaming<v1::ResourceEvent>);

impl Watch {
    /// The next change; `None` when the controller ends the watch.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn next(&mut self) -> Result<Option<Watched>, CallError> {
        let Some(event) = self.0.message().await? else {
            return Ok(None);
        };
        Ok(Some(match Change::try_from(event)? {
            Change::Current(resource) | Change::Updated(resource) => Watched::Now(item(&resource)?),
            Change::Synced => Watched::Synced,
            Change::Deleted(resource) => Watched::Gone(item(&resource)?),
        }))
    }
}

fn item(resource: &v1::Resource) -> Result<Item, CallError> {
    Ok(Item {
        name: resource.name.clone(),
        document: resource.parse()?,
    })
}

impl OperatorClient {
    /// Connects.
    ///
    /// # Errors
    /// [`CallError::Connect`].
    pub async fn connect(tls: &ClientTls, address: &str) -> Result<Self, CallError> {
        let channel = connect(tls, address).await?;
        let inner = v1::operator_service_client::OperatorServiceClient::new(channel)
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Self { inner })
    }

    /// The resources that a query finds.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn list(&mut self, query: ListQuery) -> Result<Vec<Item>, CallError> {
        let answer = self
            .inner
            .list(v1::ListRequest::from(query))
            .await?
            .into_inner();
        answer.resources.iter().map(item).collect()
    }

    /// Follows the resources that a query finds.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn watch(&mut self, query: ListQuery) -> Result<Watch, CallError> {
        Ok(Watch(
            self.inner
                .watch(v1::ListRequest::from(query))
                .await?
                .into_inner(),
        ))
    }

    /// Why a device runs what it runs; an empty version means the newest.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn explain(
        &mut self,
        device: &str,
        model: &str,
        version: &str,
    ) -> Result<Value, CallError> {
        let (device, model, version) = (device.to_owned(), model.to_owned(), version.to_owned());
        let answer = self
            .inner
            .explain(v1::ExplainRequest {
                device,
                model,
                version,
            })
            .await?;
        Ok(answer.into_inner().parse()?)
    }

    /// Makes a join token.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn create_join_token(
        &mut self,
        request: JoinTokenRequest,
    ) -> Result<MadeToken, CallError> {
        let request = v1::CreateJoinTokenRequest::from(request);
        let answer = self.inner.create_join_token(request).await?.into_inner();
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        Ok(MadeToken {
            id: answer.id,
            token: answer.token_string,
            install: some(answer.install_command),
            controller_pin: some(answer.controller_pin),
        })
    }

    /// Revokes a join token.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn revoke_join_token(&mut self, id: &str) -> Result<(), CallError> {
        self.inner
            .revoke_join_token(v1::NameRequest {
                name: id.to_owned(),
            })
            .await?;
        Ok(())
    }

    /// Sets and removes labels.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn set_labels(
        &mut self,
        device: &str,
        set: Labels,
        remove: Vec<String>,
    ) -> Result<(), CallError> {
        self.inner
            .set_labels(v1::SetLabelsRequest {
                device: device.to_owned(),
                set,
                remove,
            })
            .await?;
        Ok(())
    }

    /// Revokes a device.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn revoke_device(&mut self, device: &str) -> Result<(), CallError> {
        self.inner
            .revoke_device(v1::NameRequest {
                name: device.to_owned(),
            })
            .await?;
        Ok(())
    }

    /// Lets a device out of quarantine.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn release_device(&mut self, device: &str) -> Result<(), CallError> {
        self.inner
            .release_device(v1::NameRequest {
                name: device.to_owned(),
            })
            .await?;
        Ok(())
    }

    /// Which of these artefacts the controller lacks.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn missing(
        &mut self,
        artefacts: &[ArtefactRef],
    ) -> Result<Vec<ArtefactRef>, CallError> {
        let artefacts = artefacts.iter().map(|a| (*a).into()).collect();
        let answer = self
            .inner
            .missing_artefacts(v1::ArtefactList { artefacts })
            .await?
            .into_inner();
        let missing = answer
            .artefacts
            .into_iter()
            .map(ArtefactRef::try_from)
            .collect::<Result<_, _>>()?;
        Ok(missing)
    }

    /// Uploads an artefact.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn upload(&mut self, artefact: ArtefactRef, bytes: &[u8]) -> Result<(), CallError> {
        let chunks = bytes.chunks(limits::MAX_UPLOAD_DATA_BYTES);
        let data = chunks.map(|chunk| UploadPart::Data(chunk.to_vec().into()));
        let parts = std::iter::once(UploadPart::Artefact(artefact)).chain(data);
        let parts: Vec<v1::UploadChunk> = parts.map(Into::into).collect();
        self.inner
            .upload_artefact(tokio_stream::iter(parts))
            .await?;
        Ok(())
    }

    /// Publishes a signed version whose artefacts are all there.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn publish(&mut self, version: Signed) -> Result<(), CallError> {
        self.inner
            .publish_version(v1::Signed::from(version))
            .await?;
        Ok(())
    }

    /// Publishes a signed release of the agent whose programs are all there.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn publish_agent(&mut self, release: Signed) -> Result<(), CallError> {
        self.inner.publish_agent(v1::Signed::from(release)).await?;
        Ok(())
    }

    /// Tells devices which release of the agent to run.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn order_agents(&mut self, orders: AgentOrders) -> Result<AgentOrdersDoc, CallError> {
        let orders = v1::OrderAgentsRequest::from(orders);
        Ok(self
            .inner
            .order_agents(orders)
            .await?
            .into_inner()
            .parse()?)
    }

    /// Makes or changes a deployment.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn apply_deployment(
        &mut self,
        deployment: &sandpiper_core::policy::Deployment,
    ) -> Result<(), CallError> {
        self.inner
            .apply_deployment(v1::Document::of(deployment)?)
            .await?;
        Ok(())
    }

    /// Deletes a deployment.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn delete_deployment(&mut self, name: &str) -> Result<(), CallError> {
        self.inner
            .delete_deployment(v1::NameRequest {
                name: name.to_owned(),
            })
            .await?;
        Ok(())
    }

    /// The plan of a rollout; nothing moves.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn plan_rollout(&mut self, spec: &RolloutSpec) -> Result<Value, CallError> {
        Ok(self
            .inner
            .plan_rollout(rollout_request(spec)?)
            .await?
            .into_inner()
            .parse()?)
    }

    /// Starts a rollout; gives its name.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn start_rollout(&mut self, spec: &RolloutSpec) -> Result<String, CallError> {
        Ok(self
            .inner
            .start_rollout(rollout_request(spec)?)
            .await?
            .into_inner()
            .name)
    }

    /// Pauses, resumes, aborts or undoes a rollout.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn steer(&mut self, name: &RolloutName, verb: SteerVerb) -> Result<(), CallError> {
        self.inner
            .steer_rollout(v1::SteerRequest::of(name, verb))
            .await?;
        Ok(())
    }
}

fn rollout_request(spec: &RolloutSpec) -> Result<v1::RolloutRequest, CallError> {
    Ok(v1::RolloutRequest {
        spec_json: v1::Document::of(spec)?.json,
    })
}
