//! Fault 38: a connection whose other end is gone without a word, as behind a NAT that forgot it.
//! The endpoint is that of production with shorter times; that its own add up to 65 s at most is
//! asserted when it is compiled.
#![allow(clippy::unwrap_used)]

use super::{Keepalive, endpoint};
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_client::DeviceServiceClient;
use sandpiper_proto::v1::device_service_server::{DeviceService, DeviceServiceServer};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Attaches devices and never says a word.
struct Silent;

type Replies<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl DeviceService for Silent {
    type AttachStream = Replies<v1::ControllerMessage>;
    type FetchStream = Replies<v1::FetchChunk>;

    async fn attach(
        &self,
        _: Request<Streaming<v1::DeviceMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }

    async fn fetch(
        &self,
        _: Request<v1::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        Err(Status::unimplemented("there is nothing"))
    }

    async fn renew(
        &self,
        _: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        Err(Status::unimplemented("there is nothing"))
    }
}

/// Copies until the connection is to be forgotten; then it stays open and nothing passes.
async fn pass(
    from: tokio::net::tcp::OwnedReadHalf,
    to: tokio::net::tcp::OwnedWriteHalf,
    forgotten: Arc<AtomicBool>,
) {
    let (mut from, mut to) = (from, to);
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if forgotten.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// A NAT before a server, and the word to forget all connections.
async fn nat() -> (String, Arc<AtomicBool>) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = server.local_addr().unwrap();
    let router = crate::server::builder().add_service(DeviceServiceServer::new(Silent));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(server)));
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap().to_string();
    let forgotten = Arc::new(AtomicBool::new(false));
    let word = forgotten.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = front.accept().await {
            let far = TcpStream::connect(behind).await.unwrap();
            let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(from_near, to_far, word.clone()));
            tokio::spawn(pass(from_far, to_near, word.clone()));
        }
    });
    (address, forgotten)
}

#[tokio::test]
async fn fault_38_a_half_open_connection_is_found() {
    let (address, forgotten) = nat().await;
    let keepalive = Keepalive {
        every: Duration::from_millis(300),
        patience: Duration::from_millis(300),
    };
    let channel = endpoint(&address, keepalive)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut service = DeviceServiceClient::new(channel);
    let (_out, outgoing) = tokio::sync::mpsc::channel(1);
    let attached = service.attach(ReceiverStream::new(outgoing)).await.unwrap();
    let mut stream = attached.into_inner();
    // While the other end answers pings, silence is no reason to leave.
    let held = tokio::time::timeout(6 * keepalive.every, stream.message()).await;
    assert!(held.is_err(), "{held:?}");
    forgotten.store(true, Ordering::SeqCst);
    // Hangs, and so fails, if nobody notices.
    let found = tokio::time::timeout(Duration::from_secs(60), stream.message()).await;
    assert!(found.unwrap().is_err());
}
