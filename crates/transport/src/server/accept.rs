//! Accepting connections: bounded, with a deadline for the handshake.

use super::{Peer, ServerTls};
use crate::identity::Identity;
use crate::pki::Validity;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// Bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A handshake that takes longer is cut.
    pub handshake_timeout: Duration,
    /// Handshakes at once: each costs a signature, and a storm must not starve open streams.
    /// Others wait in the kernel's backlog.
    pub max_handshakes: usize,
    /// Handshakes at once of one address. Further ones are closed at once, so that one that
    /// stays silent cannot take the places of all.
    pub max_handshakes_per_address: usize,
    /// Connections at once, handshakes included. Further ones are closed at once.
    pub max_connections: usize,
    /// Connections at once of one address. Many devices may share one behind NAT.
    pub max_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 1024,
            max_handshakes_per_address: 256,
            max_connections: 120_000,
            max_per_address: 20_000,
        }
    }
}

/// How long to wait when the system gives no connection, above all when file descriptors are
/// used up: `accept` fails at once then, and trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Finished handshakes that wait for the server to take them.
const READY: usize = 64;

/// Finished connections, for `serve_with_incoming`. Dropping it closes the listener.
pub struct Incoming {
    ready: mpsc::Receiver<TlsConnection>,
    task: tokio::task::JoinHandle<()>,
}

impl Stream for Incoming {
    type Item = io::Result<TlsConnection>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready
            .poll_recv(cx)
            .map(|connection| connection.map(Ok))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection whose handshake is done.
pub struct TlsConnection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _place: Place,
}

impl Connected for TlsConnection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connections of one address.
#[derive(Default)]
struct Count {
    open: usize,
    shaking: usize,
}

/// Connections by address.
type Counts = Arc<Mutex<HashMap<IpAddr, Count>>>;

/// The place of one connection among all, given back when it is dropped.
struct Place {
    address: IpAddr,
    counts: Counts,
    shaking: bool,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(
        address: IpAddr,
        counts: &Counts,
        all: &Arc<Semaphore>,
        limits: &Limits,
    ) -> Option<Self> {
        let permit = all.clone().try_acquire_owned().ok()?;
        let mut map = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = map.entry(address).or_default();
        if count.open >= limits.max_per_address
            || count.shaking >= limits.max_handshakes_per_address
        {
            return None;
        }
        count.open += 1;
        count.shaking += 1;
        Some(Self {
            address,
            counts: counts.clone(),
            shaking: true,
            _permit: permit,
        })
    }

    /// The handshake is done.
    fn shaken(&mut self) {
        let mut map = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = map.get_mut(&self.address)
            && std::mem::take(&mut self.shaking)
        {
            count.shaking -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shaken();
        let mut map = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = map.get_mut(&self.address) {
            count.open -= 1;
            if count.open == 0 {
                map.remove(&self.address);
            }
        }
    }
}

/// Accepts connections on a listener until the returned stream is dropped.
pub fn listen(listener: TcpListener, tls: Arc<ServerTls>, limits: Limits) -> Incoming {
    let (sender, ready) = mpsc::channel(READY);
    let task = tokio::spawn(accept_all(listener, tls, limits, sender));
    Incoming { ready, task }
}

async fn accept_all(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    limits: Limits,
    sender: mpsc::Sender<TlsConnection>,
) {
    let all = Arc::new(Semaphore::new(limits.max_connections));
    let handshakes = Arc::new(Semaphore::new(limits.max_handshakes));
    let counts = Counts::default();
    loop {
        let Ok(handshake) = handshakes.clone().acquire_owned().await else {
            return;
        };
        let (socket, addr) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = Place::take(addr.ip(), &counts, &all, &limits) else {
            tracing::warn!(%addr, "a connection is refused: too many are open");
            continue;
        };
        let (tls, sender) = (tls.clone(), sender.clone());
        tokio::spawn(async move {
            let _handshake = handshake;
            let shaken = tokio::time::timeout(
                limits.handshake_timeout,
                shake_hands(socket, addr, &tls, place),
            );
            match shaken.await {
                // The receiver is gone when the server ends; the connection ends with it.
                Ok(Ok(connection)) => drop(sender.send(connection).await),
                Ok(Err(error)) => tracing::debug!(%addr, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%addr, "a TLS handshake took too long"),
            }
        });
    }
}

async fn shake_hands(
    socket: TcpStream,
    addr: SocketAddr,
    tls: &ServerTls,
    mut place: Place,
) -> io::Result<TlsConnection> {
    // Control messages are small and must not wait for each other.
    socket.set_nodelay(true)?;
    let stream = TlsAcceptor::from(tls.current()).accept(socket).await?;
    let own = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    let (identity, expires) = match own {
        Some(der) => {
            let identity = Identity::of_certificate(der).map_err(io::Error::other)?;
            let validity = Validity::of_certificate(der).map_err(io::Error::other)?;
            (Some(identity), Some(validity.to))
        }
        None => (None, None),
    };
    place.shaken();
    Ok(TlsConnection {
        stream,
        peer: Peer {
            identity,
            addr,
            expires,
        },
        _place: place,
    })
}
