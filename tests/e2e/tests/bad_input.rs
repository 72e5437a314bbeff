//! Bad input gives one clear message and an exit code, and loses nothing.
#![allow(clippy::unwrap_used)]

use sandpiper_e2e::activity;
use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::{Device, Hardware};

#[test]
fn a_truncated_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = Binaries::build("dev").unwrap();
    let whole = std::fs::read(activity().join("models/tiny-f32.onnx")).unwrap();
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        let file = dir.path().join("cut.onnx");
        std::fs::write(&file, &whole[..length]).unwrap();
        let output = std::process::Command::new(&binaries.controller)
            .args(["model", "check"])
            .arg(&file)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{length} bytes were accepted");
        assert!(
            !error.is_empty() && !error.contains("panicked"),
            "{length} bytes: {error}"
        );
    }
}

#[test]
fn unknown_names_and_malformed_labels_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = Binaries::build("dev").unwrap();
    let controller = Controller::start(&binaries, dir.path()).unwrap();
    let cases: &[(&[&str], i32)] = &[
        (&["describe", "device/nobody"], 5),
        (&["rollout", "status", "nothing-1"], 5),
        (&["join-token", "create", "--label", "=x"], 2),
        (&["get", "devices", "-l", "a b=c"], 2),
        (&["get", "nonsense"], 2),
    ];
    for (args, code) in cases {
        let said = controller.run(args).unwrap();
        assert_eq!(said.code, *code, "{args:?}: {}", said.err);
        assert!(
            !said.err.is_empty() && !said.err.contains("panicked"),
            "{args:?}: {}",
            said.err
        );
    }
    assert!(controller.list("devices").unwrap().is_empty());
}

#[test]
fn three_mistakes_of_a_configuration_are_reported_together() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = Binaries::build("dev").unwrap();
    let device = Device::make(&binaries, dir.path(), Hardware::plain("wrong")).unwrap();
    let text = format!(
        "state_dir = {:?}\n[serve]\nlisten = \"nowhere\"\n[emulate]\ncores = 0\ndtypes = [\"f99\"]\n",
        device.state_dir()
    );
    std::fs::write(device.config(), text).unwrap();
    let output = std::process::Command::new(&binaries.agent)
        .arg("--config")
        .arg(device.config())
        .arg("run")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for part in ["listen", "cores", "dtypes"] {
        assert!(error.contains(part), "`{part}` is not reported: {error}");
    }
}
