//! Installing from a controller: the line that it prints, with the real controller, the real agent
//! and curl, into a root of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::process::Process;
use sandpiper_e2e::wait;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn shell(dir: &Path, text: &str) {
    let status = Command::new("sh")
        .args(["-ec", text])
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success(), "{text}");
}

fn has_curl() -> bool {
    let there = Command::new("curl").arg("--version").output().is_ok();
    if !there {
        println!("skipped: there is no curl here");
    }
    there
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "arm" => "armhf",
        _ => "amd64",
    }
}

/// A controller with packages, and a place to install to.
struct Site {
    dir: tempfile::TempDir,
    controller: Controller,
}

impl Site {
    fn new() -> Self {
        let binaries = Binaries::build("dev").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/passwd"), "").unwrap();
        let noted = |then: &str| {
            format!(
                "#!/bin/sh\necho \"${{0##*/}} $*\" >>{:?}\n{then}\n",
                dir.path().join("log")
            )
        };
        let tools = dir.path().join("tools");
        program(&tools.join("chown"), &noted(""));
        program(&tools.join("sudo"), &noted("shift; exec \"$@\""));
        program(
            &tools.join("curl"),
            &noted("PATH=${PATH#*:} exec curl \"$@\""),
        );
        let user = "echo sandpiper-agent:x:990:990 >>\"$SANDPIPER_ROOT/etc/passwd\"";
        program(&tools.join("useradd"), &noted(user));
        let packages = Self::packages(&binaries, dir.path(), &root);
        let controller = Controller::start_with(&binaries, dir.path(), Some(&packages)).unwrap();
        Self { dir, controller }
    }

    /// What `cargo xtask dist` would leave, with the agent of this build.
    fn packages(binaries: &Binaries, dir: &Path, root: &Path) -> PathBuf {
        let tree = dir.join("tree");
        for place in ["usr/bin", "etc/sandpiper", "usr/lib/systemd/system"] {
            fs::create_dir_all(tree.join(place)).unwrap();
        }
        fs::copy(&binaries.agent, tree.join("usr/bin/sandpiper-agent")).unwrap();
        let deploy = sandpiper_e2e::root().join("deploy");
        let unit = "sandpiper-agent.service";
        fs::copy(
            deploy.join(unit),
            tree.join("usr/lib/systemd/system").join(unit),
        )
        .unwrap();
        let listen = sandpiper_e2e::controller::free_address().unwrap();
        let state = root.join("var/lib/sandpiper-agent");
        let config = format!("state_dir = {state:?}\n[serve]\nlisten = {listen:?}\n");
        fs::write(tree.join("etc/sandpiper/agent.toml"), config).unwrap();
        let packages = dir.join("packages");
        fs::create_dir(&packages).unwrap();
        fs::copy(deploy.join("install.sh"), packages.join("install.sh")).unwrap();
        fs::write(packages.join("unlisted"), "not for devices").unwrap();
        let name = format!("sandpiper-agent-9.9.9-{}.tar.gz", architecture());
        let text = format!(
            "tar -C tree -c etc usr | gzip -1 >packages/{name}; cd packages; sha256sum *.gz >SHA256SUMS"
        );
        shell(dir, &text);
        packages
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Runs a line as a person would, but with everything below the root of this test.
    fn run(&self, line: &str) -> Output {
        let tools = self.dir.path().join("tools");
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("PATH", path);
        command.env("SANDPIPER_ROOT", self.root());
        command.output().unwrap()
    }

    /// Whether a path of the device listener gives anything to curl with the right pin. What is
    /// no path of ours goes to gRPC, which answers 200 and nothing.
    fn gives(&self, pin: &str, url: &str) -> bool {
        let output = self.run(&format!(
            "curl -sk --path-as-is --pinnedpubkey '{pin}' -o /dev/null -w '%{{http_code}} %{{size_download}}' {url}"
        ));
        let said = String::from_utf8(output.stdout).unwrap();
        let (status, bytes) = said.split_once(' ').unwrap();
        assert!(["200", "400", "404"].contains(&status), "{url}: {said}");
        status == "200" && bytes != "0"
    }
}

#[test]
fn the_line_that_is_printed_installs_and_joins() {
    if !has_curl() {
        return;
    }
    let site = Site::new();
    let made = site.controller.json(&["join-token", "create"]).unwrap();
    let (line, token) = (
        made["install"].as_str().unwrap(),
        made["token"].as_str().unwrap(),
    );
    let pin = made["controller_pin"].as_str().unwrap();
    assert!(line.contains(pin), "{line}");

    // Somebody else's key: nothing is installed.
    let (other, _) = line.split_once("sha256//").unwrap();
    let rest = &line[other.len() + "sha256//".len() + 44..];
    let output = site.run(&format!("{other}sha256//{}={rest}", "A".repeat(43)));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("pinned"), "{said}");
    assert!(!site.root().join("usr").exists(), "{said}");

    let output = site.run(line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let log = fs::read_to_string(site.dir.path().join("log")).unwrap();
    assert!(log.contains("curl") && log.contains("sudo"), "{log}");
    // Arguments are seen by every user of the device.
    assert!(!log.contains(token), "{log}");
    let agent = site.root().join("usr/bin/sandpiper-agent");
    let config = site.root().join("etc/sandpiper/agent.toml");
    let mut command = Command::new(&agent);
    command.arg("--config").arg(&config).arg("run");
    let mut process = Process::start(&mut command, &site.dir.path().join("agent.log")).unwrap();
    wait::until("the installed agent is attached", PATIENCE, || {
        process.check()?;
        let devices = site.controller.list("devices")?;
        Ok(devices.iter().any(|d| d["connected"] == true).then_some(()))
    })
    .unwrap();

    // The same line again is an upgrade: the device has joined already and stays who it is.
    let identity = fs::read(site.root().join("var/lib/sandpiper-agent/identity.json")).unwrap();
    let output = site.run(line);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("has joined already"),
        "{said}"
    );
    assert_eq!(
        fs::read(site.root().join("var/lib/sandpiper-agent/identity.json")).unwrap(),
        identity
    );
}

#[test]
fn a_controller_gives_packages_and_nothing_else() {
    if !has_curl() {
        return;
    }
    let mut site = Site::new();
    let made = site.controller.json(&["join-token", "create"]).unwrap();
    let pin = made["controller_pin"].as_str().unwrap();
    let line = made["install"].as_str().unwrap();
    let (_, after) = line.split_once("https://").unwrap();
    let (address, _) = after.split_once('/').unwrap();
    for path in ["install", "packages/SHA256SUMS"] {
        assert!(
            site.gives(pin, &format!("https://{address}/{path}")),
            "{path}"
        );
    }
    for path in [
        "packages/unlisted",
        "packages/install.sh",
        "packages/../controller/ca.key",
        "packages/..%2fcontroller%2fca.key",
        "packages/%2e%2e",
        "packages/",
        "packages",
    ] {
        assert!(
            !site.gives(pin, &format!("https://{address}/{path}")),
            "{path}"
        );
    }

    // A package that was damaged on the controller is not installed.
    let packages = site.dir.path().join("packages");
    let name = format!("sandpiper-agent-9.9.9-{}.tar.gz", architecture());
    let mut bytes = fs::read(packages.join(&name)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(packages.join(&name), bytes).unwrap();
    let output = site.run(line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("is damaged"),
        "{said}"
    );
    assert!(!site.root().join("usr").exists());

    // The key stays, and so does a line that was printed before the controller was restarted.
    site.controller.stop().unwrap();
    site.controller.serve().unwrap();
    let again = site.controller.json(&["join-token", "create"]).unwrap();
    assert_eq!(again["controller_pin"], pin);
}
