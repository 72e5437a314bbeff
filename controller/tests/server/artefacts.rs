//! Uploads, publishing and fetching.

use crate::support::device::Device;
use crate::support::version::{bytes, manifest, sign, upload};
use crate::support::{Fleet, soon};
use sandpiper::api::client::CallError;
use sandpiper_core::chunks::{CHUNK_BYTES, ChunkTree};
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::manifest::VersionManifest;
use sandpiper_core::signed::{Purpose, Signed};
use sandpiper_core::view::ModelDoc;
use sandpiper_proto::convert::{FetchPart, FetchRequest, ResourceKind, UploadPart};
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_client::DeviceServiceClient;
use sandpiper_proto::v1::operator_service_client::OperatorServiceClient;
use sandpiper_transport::client::connect;
use sandpiper_transport::signing::SigningKey;
use tonic::transport::Channel;
use tonic::{Code, Status};

async fn raw(fleet: &Fleet) -> OperatorServiceClient<Channel> {
    let tls = fleet.tls(Some(fleet.operator_identity()));
    let channel = connect(&tls, fleet.operator_address()).await.unwrap();
    OperatorServiceClient::new(channel)
}

/// The refusal of an upload of these parts.
async fn upload_refused(fleet: &Fleet, parts: Vec<v1::UploadChunk>) -> Status {
    let mut client = raw(fleet).await;
    let answer = client.upload_artefact(tokio_stream::iter(parts));
    soon("an upload", answer).await.unwrap_err()
}

fn data(bytes: &[u8]) -> v1::UploadChunk {
    UploadPart::Data(bytes.to_vec().into()).into()
}

#[tokio::test]
async fn an_upload_must_be_what_it_announces() {
    let fleet = Fleet::start().await;
    let artefact = ArtefactRef::of(b"right");
    let announced = || v1::UploadChunk::from(UploadPart::Artefact(artefact));
    let cases = [
        (vec![], "the upload is empty"),
        (
            vec![data(b"right")],
            "an upload begins with the artefact it brings",
        ),
        (
            vec![announced(), announced()],
            "one upload brings one artefact",
        ),
        (
            vec![announced(), data(b"wrong")],
            "the bytes sent are not those of artefact",
        ),
        (
            vec![announced(), data(b"righ")],
            "the upload has 4 bytes where 5 were announced",
        ),
        (
            vec![announced(), data(b"right"), data(b"er")],
            "the upload has 7 bytes where 5 were announced",
        ),
    ];
    for (parts, expected) in cases {
        let status = upload_refused(&fleet, parts).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().starts_with(expected), "{status:?}");
    }
    let mut operator = fleet.operator().await;
    // Nothing of it was kept, and the right bytes are still welcome.
    assert_eq!(operator.missing(&[artefact]).await.unwrap(), [artefact]);
    operator.upload(artefact, b"right").await.unwrap();
    assert!(operator.missing(&[artefact]).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_oversized_upload_is_refused() {
    let fleet = Fleet::start().await;
    let mut huge = v1::ArtefactRef::from(ArtefactRef::of(b"x"));
    huge.size_bytes = (1 << 32) + 1;
    let part = v1::UploadChunk {
        part: Some(v1::upload_chunk::Part::Artefact(huge)),
    };
    let status = upload_refused(&fleet, vec![part]).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains("artefact.size_bytes"),
        "{status:?}"
    );
    let bytes = vec![0; (256 << 10) + 1];
    let announced = UploadPart::Artefact(ArtefactRef::of(&bytes)).into();
    let status = upload_refused(&fleet, vec![announced, data(&bytes)]).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("`data`"), "{status:?}");
}

/// The one message with which a version is refused.
async fn publish_refused(fleet: &Fleet, signed: Signed) -> String {
    let answer = fleet.operator().await.publish(signed).await;
    let error = answer.unwrap_err();
    assert!(
        matches!(&error, CallError::Status(s) if s.code() == Code::InvalidArgument),
        "{error:?}"
    );
    let models: Vec<ModelDoc> = fleet.list(ResourceKind::Models).await;
    assert!(models.is_empty());
    error.to_string()
}

#[tokio::test]
async fn a_version_is_published_only_when_all_of_it_is_there_and_genuine() {
    let fleet = Fleet::start().await;
    let (key, good) = (fleet.publisher(), manifest("v1"));
    let why = publish_refused(&fleet, sign(&key, &good)).await;
    assert!(why.contains("3 artefacts are not here"), "{why}");
    upload(&fleet, "v1").await;
    let stranger = SigningKey::generate().unwrap();
    let why = publish_refused(&fleet, sign(&stranger, &good)).await;
    assert!(why.contains("not trusted here"), "{why}");
    let mut altered = sign(&key, &good);
    let at = altered.payload.iter().position(|b| *b == b'9').unwrap();
    altered.payload[at] = b'8';
    let why = publish_refused(&fleet, altered).await;
    assert!(why.contains("was altered"), "{why}");
    let json = serde_json::to_vec(&good).unwrap();
    let why = publish_refused(&fleet, key.sign(Purpose::Assignment, json)).await;
    assert!(why.contains("Assignment"), "{why}");
    let nonsense = key.sign(Purpose::Version, b"{}".to_vec());
    let why = publish_refused(&fleet, nonsense).await;
    assert!(why.contains("not a version manifest"), "{why}");
    fleet
        .operator()
        .await
        .publish(sign(&key, &good))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_manifest_that_contradicts_itself_is_refused() {
    let fleet = Fleet::start().await;
    upload(&fleet, "v1").await;
    let key = fleet.publisher();
    let broken = |change: fn(&mut VersionManifest)| {
        let mut manifest = manifest("v1");
        change(&mut manifest);
        sign(&key, &manifest)
    };
    let none = broken(|m| m.variants.clear());
    let why = publish_refused(&fleet, none).await;
    assert!(why.contains("this one has 0"), "{why}");
    let twins = broken(|m| m.variants.push(m.variants[0].clone()));
    let why = publish_refused(&fleet, twins).await;
    assert!(why.contains("two variants are named"), "{why}");
    let abi = broken(|m| m.variants[0].abi.memory_bytes = 1);
    let why = publish_refused(&fleet, abi).await;
    assert!(why.contains("variant `small-f32`"), "{why}");
    let weights = broken(|m| m.variants[0].weights = Some(m.variants[0].wasm));
    let why = publish_refused(&fleet, weights).await;
    assert!(why.contains("weights"), "{why}");
    let large = broken(|m| m.labels = vec!["a".repeat(300 << 10)]);
    let why = publish_refused(&fleet, large).await;
    assert!(why.contains("at most 262144 are accepted"), "{why}");
}

#[tokio::test]
async fn a_version_never_changes() {
    let fleet = Fleet::start().await;
    upload(&fleet, "v1").await;
    let (key, mut manifest) = (fleet.publisher(), manifest("v1"));
    let mut operator = fleet.operator().await;
    operator.publish(sign(&key, &manifest)).await.unwrap();
    // The same again is no mistake: an import that was cut is repeated.
    operator.publish(sign(&key, &manifest)).await.unwrap();
    manifest.variants[0].params = 2;
    let error = operator.publish(sign(&key, &manifest)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "activity v1 is published already: versions never change"
    );
}

/// Everything that a fetch gives.
async fn fetch(
    client: &mut DeviceServiceClient<Channel>,
    artefact: ArtefactRef,
    first_chunk: u64,
) -> Result<(Vec<[u8; 32]>, Vec<u8>), Status> {
    let request = FetchRequest {
        artefact,
        first_chunk,
    };
    let parts = client.fetch(v1::FetchRequest::from(request)).await?;
    let mut parts = parts.into_inner();
    let (mut tree, mut bytes) = (None, Vec::new());
    while let Some(part) = soon("a part", parts.message()).await? {
        match FetchPart::try_from(part).unwrap() {
            FetchPart::Tree(values) => {
                assert!(tree.is_none() && bytes.is_empty(), "the tree comes first");
                tree = Some(values);
            }
            FetchPart::Chunk(chunk) => bytes.extend_from_slice(&chunk),
            FetchPart::Wait => {}
        }
    }
    Ok((tree.unwrap(), bytes))
}

#[tokio::test]
async fn a_fetch_begins_where_it_is_asked_to() {
    let fleet = Fleet::start().await;
    let device = Device::join(&fleet, "shed").await;
    let bytes: Vec<u8> = (0..2 * CHUNK_BYTES + 5).map(|n| n as u8).collect();
    let artefact = ArtefactRef::of(&bytes);
    let mut operator = fleet.operator().await;
    operator.upload(artefact, &bytes).await.unwrap();
    let mut client = device.client(&fleet).await;
    for first in 0..=3 {
        let (tree, got) = fetch(&mut client, artefact, first).await.unwrap();
        ChunkTree::verified(artefact, tree).unwrap();
        let from = (first as usize * CHUNK_BYTES).min(bytes.len());
        assert_eq!(got, bytes[from..], "from chunk {first}");
    }
    let status = fetch(&mut client, artefact, 4).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_not_held_is_not_found() {
    let fleet = Fleet::start().await;
    let device = Device::join(&fleet, "shed").await;
    let mut client = device.client(&fleet).await;
    let unknown = ArtefactRef::of(b"never uploaded");
    let status = fetch(&mut client, unknown, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("does not hold"), "{status:?}");
    // The right digest with another length is another artefact.
    upload(&fleet, "v1").await;
    let mut longer = ArtefactRef::of(&bytes("v1", "native"));
    longer.size_bytes += 1;
    let status = fetch(&mut client, longer, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}
