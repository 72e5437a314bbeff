//! The controller's own certificate: issued at start, because hosts may have changed, and again
//! long before it ends, because a controller may run for longer than a certificate lives.

use super::{ServeError, read};
use crate::clock;
use crate::config::HostPort;
use crate::fleet::Authority;
use crate::init::issue_server;
use sandpiper_core::time::Millis;
use sandpiper_transport::pki::{Issued, Validity, chain_from_pem};
use sandpiper_transport::server::{ClientCertificates, ServerTls};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Time between two looks at the certificate. Short against its life, and a clock that was set
/// is noticed soon.
const LOOK: Duration = Duration::from_secs(3600);

/// The certificate with the listeners that show it.
pub(super) struct ServerCertificate {
    dir: PathBuf,
    authority: Arc<Authority>,
    hosts: Vec<HostPort>,
    listeners: Vec<Arc<ServerTls>>,
    issued: Issued,
    validity: Validity,
    pin: String,
}

impl ServerCertificate {
    /// Issues a certificate for these hosts and writes it to the data directory.
    pub(super) fn issue(
        dir: PathBuf,
        authority: Arc<Authority>,
        hosts: Vec<HostPort>,
        now: Millis,
    ) -> Result<Self, ServeError> {
        let named: Vec<&HostPort> = hosts.iter().collect();
        let pin = issue_server(&dir, &authority.ca, &named, now)?.pin();
        let issued = Issued {
            chain_pem: read(&dir, "server.pem")?,
            key_pem: read(&dir, "server.key")?,
        };
        let chain = chain_from_pem(&issued.chain_pem)?;
        let validity = Validity::of_certificate(&chain[0])?;
        Ok(Self {
            dir,
            authority,
            hosts,
            listeners: Vec::new(),
            issued,
            validity,
            pin,
        })
    }

    /// By which programs that are not ours know the controller, see
    /// [`sandpiper_transport::pki::KeyPair::pin`].
    pub(super) fn pin(&self) -> &str {
        &self.pin
    }

    /// TLS for a listener, which from now on shows whatever certificate is the newest.
    pub(super) fn listener(
        &mut self,
        clients: ClientCertificates,
    ) -> Result<Arc<ServerTls>, ServeError> {
        let ca_der = self.authority.ca.certificate_der();
        let tls = ServerTls::new(&self.issued, ca_der, clients)?;
        self.listeners.push(Arc::clone(&tls));
        Ok(tls)
    }

    /// Issues another certificate when half the life of this one is over, or when the clock was
    /// set to before its begin. Whether it did.
    pub(super) fn renew_if_due(&mut self, now: Millis) -> Result<bool, ServeError> {
        if now < self.validity.renew_at() && now >= self.validity.from {
            return Ok(false);
        }
        let authority = Arc::clone(&self.authority);
        let next = Self::issue(self.dir.clone(), authority, self.hosts.clone(), now)?;
        for tls in &self.listeners {
            tls.replace(&next.issued)?;
        }
        (self.issued, self.validity, self.pin) = (next.issued, next.validity, next.pin);
        Ok(true)
    }

    /// Keeps the certificate good until the server stops. One that cannot be renewed stays in
    /// use; half its life is left to try again.
    pub(super) async fn keep(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                // An error means that the server was dropped, which is a stop as well.
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            match self.renew_if_due(clock::now()) {
                Ok(true) => tracing::info!("the controller's certificate was renewed"),
                Ok(false) => {}
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the controller's certificate was not renewed"
                ),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::init::{InitArgs, init};
    use crate::serve::authority;
    use sandpiper_transport::client::{ClientTls, Clock, connect};
    use sandpiper_transport::pki::SERVICE_LIFE;
    use sandpiper_transport::server::{Limits, builder, listen};

    /// The certificate that lies in the data directory.
    fn on_disk(certificate: &ServerCertificate) -> Validity {
        let pem = read(&certificate.dir, "server.pem").unwrap();
        Validity::of_certificate(&chain_from_pem(&pem).unwrap()[0]).unwrap()
    }

    fn certificate(dir: &std::path::Path, now: Millis) -> ServerCertificate {
        let args = InitArgs {
            data: dir.to_owned(),
            fleet: "garden".to_owned(),
            device_address: Some("127.0.0.1:7443".to_owned()),
            operator_address: None,
            listen: None,
        };
        init(&args, now).unwrap();
        let authority = Arc::new(authority(dir).unwrap());
        let host = "127.0.0.1:7443".parse().unwrap();
        ServerCertificate::issue(dir.to_owned(), authority, vec![host], now).unwrap()
    }

    #[test]
    fn it_is_renewed_at_half_of_its_life_and_not_before() {
        let (dir, now) = (tempfile::tempdir().unwrap(), clock::now());
        let mut certificate = certificate(dir.path(), now);
        let first = on_disk(&certificate);
        let pin = certificate.pin().to_owned();
        assert!(!certificate.renew_if_due(now).unwrap());
        let early = now.plus(SERVICE_LIFE / 2 - Duration::from_secs(7200));
        assert!(!certificate.renew_if_due(early).unwrap());
        let late = now.plus(SERVICE_LIFE / 2 + Duration::from_secs(1));
        assert!(certificate.renew_if_due(late).unwrap());
        assert!(on_disk(&certificate).to > first.to);
        assert!(!certificate.renew_if_due(late).unwrap());
        // A clock that was years ahead at the start and was then put right.
        let back = Millis(now.0 - 86_400_000);
        assert!(certificate.renew_if_due(back).unwrap());
        assert!(on_disk(&certificate).to < first.to);
        assert_eq!(certificate.pin(), pin, "the key stays");
    }

    #[tokio::test]
    async fn a_listener_shows_the_renewed_certificate() {
        // It began long ago and has ended; only its renewal makes the listener usable.
        let now = clock::now();
        let past = Millis(now.0 - 2 * 365 * 86_400_000);
        let dir = tempfile::tempdir().unwrap();
        let mut certificate = certificate(dir.path(), past);
        let tls = certificate.listener(ClientCertificates::Optional).unwrap();
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let incoming = listen(socket, tls, Limits::default());
        let router = builder().add_routes(tonic::service::Routes::default());
        let server = tokio::spawn(router.serve_with_incoming(incoming));
        let client = ClientTls {
            ca_der: certificate.authority.ca.certificate_der().to_vec(),
            identity: None,
            clock: Clock::Trusted,
        };
        assert!(connect(&client, &address).await.is_err());
        assert!(certificate.renew_if_due(now).unwrap());
        connect(&client, &address).await.unwrap();
        server.abort();
    }
}
