//! What a device that has no agent yet asks for by plain HTTP, beside gRPC on the same listener:
//! the installer and the packages. Nothing here is a secret, so nobody has to prove who he is.

use crate::packages::{PackageError, Packages};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// Packages that are read at once; further askers are told to come back.
const MAX_DOWNLOADS: usize = 64;
/// 8 MB at 10 kB/s take less; who reads slower holds a place that others need.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(900);
/// One part of a package, of which two are read ahead of the network.
const PART_BYTES: usize = 64 << 10;
const READ_AHEAD: usize = 2;
/// Seconds after which a device that was sent away may try again.
const COME_BACK_S: &str = "5";

/// What is installed from, and how devices know that it comes from this controller.
#[derive(Debug, Clone)]
pub struct Installation {
    packages: Packages,
    url: String,
    pin: String,
}

impl Installation {
    /// From the controller that devices reach at `address` (`HOST:PORT`) and that shows the key
    /// with this pin.
    pub fn new(packages: Packages, address: &str, pin: &str) -> Self {
        Self {
            packages,
            url: format!("https://{address}"),
            pin: pin.to_owned(),
        }
    }

    /// The pin of the controller's key, for `curl --pinnedpubkey`.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// What a person runs on the device. The token goes by the environment, since other users of
    /// the device see the arguments of programs. The certificate need not be known to the device
    /// (`-k`): the pin says more.
    pub fn command(&self, token: &str) -> String {
        let Self { url, pin, .. } = self;
        format!(
            "export SANDPIPER_TOKEN='{token}'; curl -fsSk --pinnedpubkey '{pin}' {url}/install \
             | sudo --preserve-env=SANDPIPER_TOKEN sh"
        )
    }
}

struct Shared {
    installation: Option<Installation>,
    places: Arc<Semaphore>,
}

/// `GET /install` and `GET /packages/NAME`.
pub fn routes(installation: Option<Installation>) -> Router {
    let places = Arc::new(Semaphore::new(MAX_DOWNLOADS));
    Router::new()
        .route("/install", get(installer))
        .route("/packages/{name}", get(package))
        .with_state(Arc::new(Shared {
            installation,
            places,
        }))
}

/// Why nothing is given, in words.
struct Refusal {
    status: StatusCode,
    why: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.why + "\n").into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let later = HeaderValue::from_static(COME_BACK_S);
            response.headers_mut().insert(header::RETRY_AFTER, later);
        }
        response
    }
}

impl From<PackageError> for Refusal {
    fn from(error: PackageError) -> Self {
        match error {
            PackageError::Unknown(_) => Self {
                status: StatusCode::NOT_FOUND,
                why: error.to_string(),
            },
            PackageError::File { .. } => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "a device cannot be installed");
                Self {
                    status: StatusCode::INTERNAL_SERVER_ERROR,
                    why: "the packages of this controller cannot be read: its log says why".into(),
                }
            }
        }
    }
}

impl Shared {
    fn installation(&self) -> Result<Installation, Refusal> {
        self.installation.clone().ok_or_else(|| Refusal {
            status: StatusCode::NOT_FOUND,
            why: "this controller holds no packages: name their directory with `sandpiper serve --packages DIR`".into(),
        })
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            why: format!("{MAX_DOWNLOADS} packages are being fetched: come back soon"),
        })
    }
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, PackageError> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(job).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Refusal {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            why: error.to_string(),
        }),
    }
}

async fn installer(State(shared): State<Arc<Shared>>) -> Result<Response, Refusal> {
    let from = shared.installation()?;
    let script = blocking(move || from.packages.installer(&from.url, &from.pin)).await?;
    let kind = [(header::CONTENT_TYPE, "text/x-shellscript; charset=utf-8")];
    Ok((kind, script).into_response())
}

async fn package(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let from = shared.installation()?;
    let place = shared.place()?;
    let (file, size) = blocking(move || from.packages.open(&name)).await?;
    let about = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    Ok((about, body(tokio::fs::File::from_std(file), size, place)).into_response())
}

/// The file, read as fast as the device takes it. The place is given back at its end.
fn body(file: tokio::fs::File, size: u64, place: OwnedSemaphorePermit) -> Body {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::spawn(async move {
        let _place = place;
        let sent = tokio::time::timeout(DOWNLOAD_TIMEOUT, send(file, size, &sender));
        let error = match sent.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => std::io::ErrorKind::TimedOut.into(),
        };
        // Cuts the answer off, so that it is not taken for whole. The device may have gone.
        let _ = sender.try_send(Err(error));
    });
    Body::from_stream(ReceiverStream::new(receiver))
}

async fn send(
    file: tokio::fs::File,
    size: u64,
    sender: &mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<()> {
    // No more than was promised, also if the file grows.
    let mut file = file.take(size);
    loop {
        let mut part = Vec::with_capacity(PART_BYTES);
        if (&mut file)
            .take(PART_BYTES as u64)
            .read_to_end(&mut part)
            .await?
            == 0
        {
            return Ok(());
        }
        if sender.send(Ok(part.into())).await.is_err() {
            return Ok(());
        }
    }
}
