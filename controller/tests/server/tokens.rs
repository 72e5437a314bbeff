//! One-time tokens: who is let in, and that every refusal is noted.

use crate::support::device::enrol;
use crate::support::{Fleet, make};
use sandpiper_core::digest::Digest;
use sandpiper_core::view::JoinTokenDoc;
use sandpiper_proto::convert::ResourceKind;
use sandpiper_transport::client::{ConnectError, fetch_ca_by_pin};
use sandpiper_transport::pki::{Ca, KeyPair};
use std::time::Duration;
use tonic::Code;

const LONG: Duration = Duration::from_secs(600);

/// Tries to join; gives the code and the message of the refusal.
async fn refused(fleet: &Fleet, secret: &str, name: &str) -> String {
    let csr = KeyPair::generate().unwrap().request().unwrap();
    let status = enrol(fleet, secret, name, csr).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let noted = fleet
        .events(&format!("device/{name}"), "EnrolRefused")
        .await;
    let expected = format!("enrolment refused: {}", status.message());
    assert_eq!(noted, [expected]);
    status.message().to_owned()
}

#[tokio::test]
async fn a_token_lets_one_device_in_once() {
    let fleet = Fleet::start().await;
    let (id, token) = fleet.token(LONG).await;
    let csr = KeyPair::generate().unwrap().request().unwrap();
    enrol(&fleet, &token.secret, "first", csr).await.unwrap();
    let why = refused(&fleet, &token.secret, "second").await;
    assert!(why.contains("used already"), "{why}");
    let enrolled = fleet.events("device/first", "Enrolled").await;
    assert_eq!(enrolled, [format!("joined with token {id}")]);
    let tokens: Vec<JoinTokenDoc> = fleet.list(ResourceKind::JoinTokens).await;
    assert_eq!(tokens[0].used_by.as_deref(), Some("first"));
}

#[tokio::test]
async fn of_two_devices_with_one_token_one_joins() {
    let fleet = Fleet::start().await;
    let (_, token) = fleet.token(LONG).await;
    let csr = || KeyPair::generate().unwrap().request().unwrap();
    let (a, b) = tokio::join!(
        enrol(&fleet, &token.secret, "a", csr()),
        enrol(&fleet, &token.secret, "b", csr()),
    );
    assert_eq!([a, b].iter().filter(|r| r.is_ok()).count(), 1);
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let fleet = Fleet::start().await;
    let (_, token) = fleet.token(Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let why = refused(&fleet, &token.secret, "late").await;
    assert!(why.contains("has expired"), "{why}");
}

#[tokio::test]
async fn a_revoked_token_is_refused() {
    let fleet = Fleet::start().await;
    let (id, token) = fleet.token(LONG).await;
    let mut operator = fleet.operator().await;
    operator.revoke_join_token(&id).await.unwrap();
    let why = refused(&fleet, &token.secret, "unwelcome").await;
    assert!(why.contains("was revoked"), "{why}");
    let noted = fleet.events(&format!("join-token/{id}"), "Revoked").await;
    assert_eq!(noted.len(), 1);
}

#[tokio::test]
async fn an_unknown_token_is_refused() {
    let fleet = Fleet::start().await;
    let (_, token) = fleet.token(LONG).await;
    let mut guess = token.secret.clone();
    // Of the same short name would be a collision of 256 bits; one character off is a guess.
    guess.replace_range(0..1, if guess.starts_with('A') { "B" } else { "A" });
    let why = refused(&fleet, &guess, "guesser").await;
    assert!(why.contains("not known here"), "{why}");
}

#[tokio::test]
async fn a_flood_of_guesses_does_not_wash_the_events_away() {
    let fleet = Fleet::start().await;
    let (_, token) = fleet.token(LONG).await;
    let csr = KeyPair::generate().unwrap().request().unwrap();
    enrol(&fleet, &token.secret, "first", csr.clone())
        .await
        .unwrap();
    for _ in 0..150 {
        let answer = enrol(&fleet, "guess", "guesser", csr.clone()).await;
        assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied);
    }
    let noted = fleet.events("device/guesser", "EnrolRefused").await;
    assert!(!noted.is_empty());
    let withheld = fleet.events("controller/enrolment", "EnrolRefused").await;
    // All of them within two minutes at most, each of which notes a bounded number.
    assert!(noted.len() < 150 && !withheld.is_empty(), "{withheld:?}");
}

#[tokio::test]
async fn a_controller_of_another_fleet_does_not_fit_the_pin() {
    let fleet = Fleet::start().await;
    let (_, token) = fleet.token(LONG).await;
    let address = fleet.device_address();
    let found = fetch_ca_by_pin(address, token.ca_pin).await.unwrap();
    assert_eq!(found, fleet.ca_der());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("controller");
    make(&data);
    let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
    let other = Ca::load(&read("ca.pem"), &read("ca.key")).unwrap();
    for pin in [other.pin(), Digest::of(b"nothing")] {
        let answer = fetch_ca_by_pin(address, pin).await;
        assert!(
            matches!(answer, Err(ConnectError::Pin { .. })),
            "{answer:?}"
        );
    }
}
