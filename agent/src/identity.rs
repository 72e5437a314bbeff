//! Who this device is: its key (made here, never leaves), certificate, fleet and trusted keys.

use sandpiper_core::names::{DeviceName, FleetName};
use sandpiper_core::policy::Labels;
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::{Credentials, EnrolRequest};
use sandpiper_proto::limits::MAX_MESSAGE_BYTES;
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_client::DeviceServiceClient;
use sandpiper_proto::v1::enrolment_client::EnrolmentClient;
use sandpiper_transport::client::{self, ClientIdentity, ClientTls, Clock, ConnectError};
use sandpiper_transport::fsio::{self, Disk, FsError};
use sandpiper_transport::pki::{self, KeyPair, PkiError, Validity};
use sandpiper_transport::signing::VerifyingKeys;
use sandpiper_transport::token::JoinToken;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tonic::transport::Channel;

/// Everything of the identity, in one file so that it is written atomically.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The fleet.
    pub fleet: FleetName,
    /// The device's name.
    pub name: DeviceName,
    /// Address of the controller's device listener.
    pub address: String,
    /// Random number of this installation.
    pub installation: u64,
    ca_der: Vec<u8>,
    key_pem: String,
    chain_pem: String,
    assignment_key: [u8; 32],
    publisher_keys: Vec<[u8; 32]>,
}

/// Why a device has no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It has not joined.
    #[error("this device has not joined a fleet: run `sandpiper-agent join TOKEN` first")]
    NotJoined,
    /// It has joined already.
    #[error("this device is `{name}` already: delete {} to let it join anew", path.display())]
    Joined {
        /// Its name.
        name: DeviceName,
        /// The identity.
        path: PathBuf,
    },
    /// The file cannot be used.
    #[error("the identity {} cannot be used: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It cannot be written.
    #[error("cannot write the identity")]
    Write(#[from] FsError),
    /// Key or certificate.
    #[error("cannot make or use key and certificate")]
    Pki(#[from] PkiError),
    /// The controller is out of reach or not the one of the token.
    #[error("cannot reach the controller")]
    Connect(#[from] ConnectError),
    /// The controller refuses.
    #[error("the controller refuses: {0}")]
    Refused(String),
}

fn refused(status: &tonic::Status) -> IdentityError {
    IdentityError::Refused(status.message().to_owned())
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("identity.json")
}

impl Identity {
    /// Reads the identity.
    ///
    /// # Errors
    /// [`IdentityError::NotJoined`], [`IdentityError::File`].
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        Self::load_on(&fsio::SystemDisk, state_dir)
    }

    /// [`Identity::load`] from any disk.
    ///
    /// # Errors
    /// [`IdentityError::NotJoined`], [`IdentityError::File`].
    pub fn load_on(disk: &dyn Disk, state_dir: &Path) -> Result<Self, IdentityError> {
        let path = path(state_dir);
        let bytes = match fsio::read(disk, &path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(IdentityError::NotJoined);
            }
            Err(e) => {
                return Err(IdentityError::File {
                    path,
                    why: e.to_string(),
                });
            }
        };
        serde_json::from_slice(&bytes).map_err(|e| IdentityError::File {
            path,
            why: e.to_string(),
        })
    }

    /// Writes the identity so that a power cut leaves the old or this one.
    ///
    /// # Errors
    /// [`IdentityError::Write`], [`IdentityError::File`].
    pub fn save_on(&self, disk: &dyn Disk, state_dir: &Path) -> Result<(), IdentityError> {
        let path = path(state_dir);
        let bytes = serde_json::to_vec(self).map_err(|e| IdentityError::File {
            path: path.clone(),
            why: e.to_string(),
        })?;
        Ok(fsio::write_atomic_on(disk, &path, &bytes, 0o600)?)
    }

    /// Joins a fleet: finds the controller by the token's pin, makes a key, and trades token and
    /// request for a certificate.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing is written unless all went well.
    pub async fn join(
        state_dir: &Path,
        token: &JoinToken,
        name: DeviceName,
    ) -> Result<Self, IdentityError> {
        if let Ok(old) = Self::load(state_dir) {
            return Err(IdentityError::Joined {
                name: old.name,
                path: path(state_dir),
            });
        }
        let ca_der = client::fetch_ca_by_pin(&token.address, token.ca_pin).await?;
        let tls = ClientTls {
            ca_der: ca_der.clone(),
            identity: None,
            clock: untrusted(),
        };
        let channel = client::connect(&tls, &token.address).await?;
        let key = KeyPair::generate()?;
        let request = EnrolRequest {
            token: token.secret.clone(),
            name,
            csr_der: key.request()?,
            labels: Labels::new(),
        };
        let mut enrolment =
            EnrolmentClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let answer = enrolment.enrol(v1::EnrolRequest::from(request)).await;
        let (fleet, name, credentials) = answer
            .map_err(|s| refused(&s))?
            .into_inner()
            .checked()
            .map_err(|e| IdentityError::Refused(e.to_string()))?;
        let identity = Self {
            fleet,
            name,
            address: token.address.clone(),
            installation: rand::random(),
            ca_der,
            key_pem: key.to_pem(),
            chain_pem: pki::chain_to_pem(&credentials.chain_der),
            assignment_key: credentials.assignment_key,
            publisher_keys: credentials.publisher_keys,
        };
        identity.save_on(&fsio::SystemDisk, state_dir)?;
        Ok(identity)
    }

    /// TLS settings of a channel to the controller.
    ///
    /// # Errors
    /// [`IdentityError::Pki`].
    pub fn tls(&self) -> Result<ClientTls, IdentityError> {
        let chain_der = pki::chain_from_pem(&self.chain_pem)?;
        let identity = Some(ClientIdentity {
            chain_der,
            key_pem: self.key_pem.clone(),
        });
        Ok(ClientTls {
            ca_der: self.ca_der.clone(),
            identity,
            clock: untrusted(),
        })
    }

    /// When the certificate is good.
    ///
    /// # Errors
    /// [`IdentityError::Pki`].
    pub fn validity(&self) -> Result<Validity, IdentityError> {
        let chain = pki::chain_from_pem(&self.chain_pem)?;
        let own = chain.first().ok_or(PkiError::Certificate)?;
        Ok(Validity::of_certificate(own)?)
    }

    /// Fetches a new certificate for the same key and writes it.
    ///
    /// # Errors
    /// [`IdentityError`]; the old one stays in use then.
    pub async fn renew(&mut self, state_dir: &Path, channel: Channel) -> Result<(), IdentityError> {
        let csr_der = KeyPair::from_pem(&self.key_pem)?.request()?;
        let mut service =
            DeviceServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let answer = service
            .renew(v1::RenewRequest { csr_der })
            .await
            .map_err(|s| refused(&s))?;
        let new = Credentials::try_from(answer.into_inner())
            .map_err(|e| IdentityError::Refused(e.to_string()))?;
        let mut next = self.clone();
        next.chain_pem = pki::chain_to_pem(&new.chain_der);
        next.assignment_key = new.assignment_key;
        next.publisher_keys = new.publisher_keys;
        next.save_on(&fsio::SystemDisk, state_dir)?;
        *self = next;
        Ok(())
    }

    /// Keys whose assignments are followed.
    pub fn assignment_keys(&self) -> VerifyingKeys {
        [self.assignment_key].into_iter().collect()
    }

    /// Keys whose versions are genuine.
    pub fn publisher_keys(&self) -> VerifyingKeys {
        self.publisher_keys.iter().copied().collect()
    }
}

/// The clock of a Pi decides nothing about trust; no certificate of a controller ended before
/// the epoch of this code.
fn untrusted() -> Clock {
    Clock::Untrusted { floor: Millis(0) }
}
