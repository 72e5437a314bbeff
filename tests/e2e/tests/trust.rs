//! Who may do what: tokens, pins and roles, with the real programs.
#![allow(clippy::unwrap_used)]

use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::{Device, Hardware};

fn error_of(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).to_lowercase()
}

#[test]
fn a_token_is_good_once() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = Binaries::build("dev").unwrap();
    let controller = Controller::start(&binaries, dir.path()).unwrap();
    let token = controller.token(&[]).unwrap();
    let join = |name: &str| {
        let device = Device::make(&binaries, dir.path(), Hardware::plain(name)).unwrap();
        device.join(&token).unwrap()
    };
    let first = join("first");
    assert!(first.status.success(), "{}", error_of(&first));
    let second = join("second");
    assert!(!second.status.success());
    assert!(error_of(&second).contains("token"), "{}", error_of(&second));
    let names: Vec<_> = controller.list("devices").unwrap();
    assert_eq!(names.len(), 1, "a refused device was enrolled: {names:?}");
}

#[test]
fn a_token_of_another_fleet_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = Binaries::build("dev").unwrap();
    let ours = Controller::start(&binaries, &dir.path().join("ours")).unwrap();
    let other = Controller::start(&binaries, &dir.path().join("other")).unwrap();
    // The pin and secret of one fleet with the address of the other cannot be put together by
    // hand without the format of the token, so the other fleet takes the place of ours.
    let token = ours.token(&[]).unwrap();
    drop(ours);
    let device = Device::make(&binaries, dir.path(), Hardware::plain("lost")).unwrap();
    assert!(!device.join(&token).unwrap().status.success());
    assert!(other.list("devices").unwrap().is_empty());
}

#[test]
fn a_context_that_is_none_is_one_clear_message() {
    let binaries = Binaries::build("dev").unwrap();
    let output = std::process::Command::new(&binaries.controller)
        .args(["get", "devices", "--context", "/nonexistent/admin.toml"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(
        error_of(&output).contains("context"),
        "{}",
        error_of(&output)
    );
    assert!(
        output.stdout.is_empty(),
        "an error belongs on standard error"
    );
}
