//! How much of the system the services leave open, as systemd itself counts it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::Command;

/// Of 10, which is a service without any protection.
const MOST: f64 = 2.0;

#[test]
fn services_are_locked_in() {
    let probe = Command::new("systemd-analyze").arg("--version").output();
    if !probe.is_ok_and(|o| o.status.success()) {
        println!("skipped: there is no systemd-analyze here");
        return;
    }
    for name in ["sandpiper-agent.service", "sandpiper.service"] {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(sandpiper_e2e::root().join("deploy").join(name))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|l| l.contains("Overall exposure level"));
        let words = line.unwrap().split_whitespace();
        let found = words.filter_map(|w| w.parse::<f64>().ok()).next_back();
        let exposure = found.unwrap();
        assert!(exposure <= MOST, "{name}: {exposure}\n{text}");
    }
}
