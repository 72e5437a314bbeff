//! Messages and domain types: what goes over the wire comes back, and what is missing or wrong
//! is named.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use prost::Message as _;
use sandpiper_core::assignment::{AssignmentBundle, Generation};
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::names::{DeviceName, FleetName, RolloutName};
use sandpiper_core::policy::Labels;
use sandpiper_core::profile::{Conditions, Power};
use sandpiper_core::signed::{Purpose, Signed};
use sandpiper_core::telemetry::Observation;
use sandpiper_proto::convert::*;
use sandpiper_proto::{limits, v1};

fn signed(purpose: Purpose) -> Signed {
    Signed {
        purpose,
        payload: b"{}".to_vec(),
        key: Digest::of(b"key"),
        signature: vec![7; 64],
    }
}

/// Over the wire and back.
fn sent<M: prost::Message + Default>(message: M) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn observation() -> Observation {
    Observation {
        generation: Generation(3),
        conditions: Conditions {
            ram_available_bytes: 1 << 28,
            disk_free_bytes: 1 << 30,
            power: Power::Battery {
                percent: 40,
                charging: false,
                remaining_uj: None,
            },
            temperature_mc: Some(51_500),
            throttled: false,
        },
        models: Vec::new(),
        refused: None,
        agent: None,
    }
}

fn missing<T: std::fmt::Debug>(result: Result<T, ConvertError>) -> &'static str {
    match result {
        Err(ConvertError::Missing(field)) => field,
        other => panic!("a missing field was expected, not {other:?}"),
    }
}

#[test]
fn signed_payloads_come_back_and_every_field_is_checked() {
    for purpose in [Purpose::Version, Purpose::Assignment, Purpose::Agent] {
        let wire = sent(v1::Signed::from(signed(purpose)));
        assert_eq!(Signed::try_from(wire).unwrap(), signed(purpose));
    }
    let good = v1::Signed::from(signed(Purpose::Version));
    assert_eq!(
        missing(Signed::try_from(v1::Signed::default())),
        "signed.purpose"
    );
    let with = |change: fn(&mut v1::Signed)| {
        let mut wire = good.clone();
        change(&mut wire);
        Signed::try_from(wire)
    };
    assert_eq!(missing(with(|wire| wire.payload.clear())), "signed.payload");
    assert_eq!(missing(with(|wire| wire.key.clear())), "signed.key");
    assert_eq!(
        missing(with(|wire| wire.signature.clear())),
        "signed.signature"
    );
    let short = with(|wire| wire.signature.truncate(63)).unwrap_err();
    assert!(
        matches!(
            short,
            ConvertError::Length {
                have: 63,
                want: 64,
                ..
            }
        ),
        "{short}"
    );
    let unknown = with(|wire| wire.purpose = 9).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "the field `signed.purpose` has the unknown value `9`"
    );
}

#[test]
fn artefacts_larger_than_a_linear_memory_are_refused() {
    let artefact = ArtefactRef::of(b"weights");
    assert_eq!(
        ArtefactRef::try_from(sent(v1::ArtefactRef::from(artefact))).unwrap(),
        artefact
    );
    let mut wire = v1::ArtefactRef::from(artefact);
    wire.size_bytes = u64::MAX;
    assert!(matches!(
        ArtefactRef::try_from(wire),
        Err(ConvertError::TooMany { .. })
    ));
    assert_eq!(
        missing(ArtefactRef::try_from(v1::ArtefactRef::default())),
        "artefact.digest"
    );
}

#[test]
fn an_enrolment_comes_back_and_every_field_is_checked() {
    let request = EnrolRequest {
        token: "secret".into(),
        name: DeviceName::new("shed-1").unwrap(),
        csr_der: vec![0x30, 0],
        labels: Labels::from([("site".to_owned(), "garden".to_owned())]),
    };
    let good = v1::EnrolRequest::from(request.clone());
    assert_eq!(EnrolRequest::try_from(sent(good.clone())).unwrap(), request);
    let with = |change: fn(&mut v1::EnrolRequest)| {
        let mut wire = good.clone();
        change(&mut wire);
        EnrolRequest::try_from(wire)
    };
    assert_eq!(missing(with(|wire| wire.token.clear())), "token");
    assert_eq!(missing(with(|wire| wire.name.clear())), "name");
    assert_eq!(missing(with(|wire| wire.csr_der.clear())), "csr_der");
    let name = with(|wire| wire.name = "../etc".into()).unwrap_err();
    assert!(matches!(name, ConvertError::Name { field: "name", .. }));
    // What an operator reads at the other end says the field and the rule.
    let status = tonic::Status::from(name);
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("`name`") && status.message().contains("../etc"));
    let label = with(|wire| drop(wire.labels.insert("a b".into(), String::new())));
    assert!(matches!(
        label,
        Err(ConvertError::Label {
            field: "labels",
            ..
        })
    ));
    let huge = with(|wire| wire.csr_der = vec![0; limits::MAX_CSR_BYTES + 1]);
    assert!(matches!(
        huge,
        Err(ConvertError::TooMany {
            field: "csr_der",
            ..
        })
    ));
}

#[test]
fn credentials_come_back_with_their_names() {
    let credentials = Credentials {
        chain_der: vec![vec![1], vec![2]],
        assignment_key: [3; 32],
        publisher_keys: vec![[4; 32], [5; 32]],
    };
    let (fleet, name) = (
        FleetName::new("garden").unwrap(),
        DeviceName::new("shed-1").unwrap(),
    );
    let wire = sent(
        credentials
            .clone()
            .into_enrol_response(fleet.clone(), name.clone()),
    );
    assert_eq!(wire.checked().unwrap(), (fleet, name, credentials.clone()));
    let wire = sent(v1::RenewResponse::from(credentials.clone()));
    assert_eq!(Credentials::try_from(wire.clone()).unwrap(), credentials);
    let none = v1::RenewResponse::default();
    assert_eq!(
        missing(Credentials::try_from(none)),
        "certificate_chain_der"
    );
    let mut short = wire;
    short.publisher_keys[1].pop();
    let refused = Credentials::try_from(short);
    assert!(matches!(
        refused,
        Err(ConvertError::Length {
            field: "publisher_keys",
            ..
        })
    ));
}

#[test]
fn messages_of_the_stream_come_back_and_empty_ones_are_refused() {
    let message = FromDevice::Observation(Box::new(observation()));
    let wire = sent(v1::DeviceMessage::try_from(message.clone()).unwrap());
    assert_eq!(FromDevice::try_from(wire).unwrap(), message);
    assert_eq!(
        missing(FromDevice::try_from(v1::DeviceMessage::default())),
        "message"
    );

    let bundle = AssignmentBundle {
        assignment: signed(Purpose::Assignment),
        versions: vec![signed(Purpose::Version)],
        agent: Some(signed(Purpose::Agent)),
    };
    for message in [
        FromController::Assignment(Box::new(bundle)),
        FromController::Clock(sandpiper_core::time::Millis(1_773_619_200_000)),
        FromController::TelemetryAck {
            boot: 1,
            sequence: 2,
        },
        FromController::Disconnect {
            reason: "revoked".into(),
            retry: false,
        },
    ] {
        let wire = sent(v1::ControllerMessage::from(message.clone()));
        assert_eq!(FromController::try_from(wire).unwrap(), message);
    }
    assert_eq!(
        missing(FromController::try_from(v1::ControllerMessage::default())),
        "message"
    );
    let empty = v1::AssignmentBundle::default();
    assert_eq!(missing(AssignmentBundle::try_from(empty)), "assignment");
}

#[test]
fn documents_that_do_not_parse_or_contradict_the_envelope_are_refused() {
    let mut wire = v1::Observation::try_from(observation()).unwrap();
    wire.generation = 4;
    let refused = Observation::try_from(wire.clone());
    assert!(matches!(
        refused,
        Err(ConvertError::Contradiction("generation", _))
    ));
    wire.observation_json.truncate(10);
    let refused = Observation::try_from(wire);
    assert!(matches!(
        refused,
        Err(ConvertError::Json {
            field: "observation_json",
            ..
        })
    ));
    assert_eq!(
        missing(Observation::try_from(v1::Observation::default())),
        "observation_json"
    );
    let mut hello = v1::Hello {
        boot_id: 1,
        ..v1::Hello::default()
    };
    assert_eq!(missing(Hello::try_from(hello.clone())), "profile_json");
    hello.profile_json = b"[]".to_vec();
    let refused = Hello::try_from(hello);
    assert!(matches!(
        refused,
        Err(ConvertError::Json {
            field: "profile_json",
            ..
        })
    ));
    let window_json = vec![b"{}".to_vec(); limits::MAX_WINDOWS_PER_BATCH + 1];
    let batch = v1::TelemetryBatch { window_json };
    let message = Some(v1::device_message::Message::Telemetry(batch));
    let refused = FromDevice::try_from(v1::DeviceMessage { message });
    assert!(matches!(
        refused,
        Err(ConvertError::TooMany {
            field: "window_json",
            ..
        })
    ));
}

#[test]
fn a_fetch_begins_within_its_artefact_and_its_parts_are_bounded() {
    let artefact = ArtefactRef {
        digest: Digest::of(b""),
        size_bytes: 200_000,
    };
    for first_chunk in [0, 4] {
        let request = FetchRequest {
            artefact,
            first_chunk,
        };
        assert_eq!(
            FetchRequest::try_from(sent(v1::FetchRequest::from(request))).unwrap(),
            request
        );
    }
    let behind = v1::FetchRequest::from(FetchRequest {
        artefact,
        first_chunk: 5,
    });
    assert!(matches!(
        FetchRequest::try_from(behind),
        Err(ConvertError::Unknown { .. })
    ));
    for part in [
        FetchPart::Tree(vec![[1; 32], [2; 32]]),
        FetchPart::Chunk(vec![3; 65536].into()),
        FetchPart::Wait,
    ] {
        assert_eq!(
            FetchPart::try_from(sent(v1::FetchChunk::from(part.clone()))).unwrap(),
            part
        );
    }
    let large = v1::FetchChunk::from(FetchPart::Chunk(vec![3; 65537].into()));
    assert!(matches!(
        FetchPart::try_from(large),
        Err(ConvertError::TooMany { .. })
    ));
    let ragged = v1::fetch_chunk::Part::Tree(vec![0; 33].into());
    let refused = FetchPart::try_from(v1::FetchChunk { part: Some(ragged) });
    assert!(matches!(
        refused,
        Err(ConvertError::Length {
            field: "tree",
            have: 1,
            want: 32
        })
    ));
}

#[test]
fn what_operators_send_comes_back_and_unknown_values_are_named() {
    for kind in ResourceKind::ALL {
        let selector = Some("site=garden".parse().unwrap());
        let query = ListQuery {
            kind,
            name: Some("a".into()),
            selector,
        };
        assert_eq!(
            ListQuery::try_from(sent(v1::ListRequest::from(query.clone()))).unwrap(),
            query
        );
    }
    let wire = v1::ListRequest {
        kind: "pods".into(),
        ..Default::default()
    };
    let unknown = ListQuery::try_from(wire).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "the field `kind` has the unknown value `pods`"
    );
    let rollout = RolloutName::new("activity-3").unwrap();
    for verb in [
        SteerVerb::Pause,
        SteerVerb::Resume,
        SteerVerb::Approve { why: None },
        SteerVerb::Approve {
            why: Some("seen on the bench".to_owned()),
        },
        SteerVerb::Promote { full: false },
        SteerVerb::Promote { full: true },
        SteerVerb::Abort,
        SteerVerb::Retry,
        SteerVerb::Undo { to: None },
        SteerVerb::Undo {
            to: Some("v1".parse().unwrap()),
        },
    ] {
        let wire = sent(v1::SteerRequest::of(&rollout, verb.clone()));
        assert_eq!(wire.checked().unwrap(), (rollout.clone(), verb));
    }
    assert_eq!(missing(v1::SteerRequest::default().checked()), "verb");
    let resource = v1::Resource::of(ResourceKind::Events, "1", &["shown"]).unwrap();
    assert_eq!(resource.parse::<Vec<String>>().unwrap(), ["shown"]);
    for change in [
        Change::Current(resource.clone()),
        Change::Synced,
        Change::Updated(resource.clone()),
        Change::Deleted(resource),
    ] {
        assert_eq!(
            Change::try_from(sent(v1::ResourceEvent::from(change.clone()))).unwrap(),
            change
        );
    }
    let wire = v1::CreateJoinTokenRequest::default();
    assert_eq!(missing(JoinTokenRequest::try_from(wire)), "ttl_s");
}

proptest! {
    /// Bytes of a stranger are refused or accepted, and never more than that.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(wire) = v1::DeviceMessage::decode(bytes.as_slice()) {
            let _ = FromDevice::try_from(wire);
        }
        if let Ok(wire) = v1::ControllerMessage::decode(bytes.as_slice()) {
            let _ = FromController::try_from(wire);
        }
        if let Ok(wire) = v1::EnrolRequest::decode(bytes.as_slice()) {
            let _ = EnrolRequest::try_from(wire);
        }
        if let Ok(wire) = v1::FetchChunk::decode(bytes.as_slice()) {
            let _ = FetchPart::try_from(wire);
        }
    }
}
