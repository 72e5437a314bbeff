//! The installer, in a root of its own, with a package made here and programs that only write
//! down what they were asked.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PACKAGE: &str = "sandpiper-agent-0.1.0-arm64.tar.gz";
const TOKEN: &str = "sandpiper-join1.secret";

/// Stands for the agent: joining writes an identity; it notes its arguments and what it read.
const AGENT: &str = r#"#!/bin/sh
read -r token
echo "agent $*" >>"$SANDPIPER_ROOT/log"
echo "$token" >"$SANDPIPER_ROOT/token"
[ "$token" != refused ] || exit 1
echo '{}' >"$SANDPIPER_ROOT/var/lib/sandpiper-agent/identity.json"
"#;

struct Pi {
    dir: tempfile::TempDir,
}

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn shell(dir: &Path, text: &str) {
    let mut command = Command::new("sh");
    let status = command.args(["-ec", text]).current_dir(dir).status();
    assert!(status.unwrap().success(), "{text}");
}

impl Pi {
    /// A device with systemd and without dpkg, and a directory with a package for it.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let it = Self { dir };
        for place in ["proc/device-tree", "run/systemd/system", "etc"] {
            fs::create_dir_all(it.root().join(place)).unwrap();
        }
        fs::write(
            it.root().join("proc/device-tree/model"),
            "Raspberry Pi 3 Model B\0",
        )
        .unwrap();
        fs::write(it.root().join("etc/passwd"), "").unwrap();
        let tools = it.path("tools");
        let noted = "#!/bin/sh\necho \"${0##*/} $*\" >>\"$SANDPIPER_ROOT/log\"\n";
        program(&tools.join("systemctl"), noted);
        program(&tools.join("chown"), noted);
        let user = "echo sandpiper-agent:x:990:990 >>\"$SANDPIPER_ROOT/etc/passwd\"\n";
        program(&tools.join("useradd"), &format!("{noted}{user}"));
        it.package("# one\n");
        it
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// Makes the package, with this configuration.
    fn package(&self, config: &str) {
        let tree = self.path("tree");
        program(&tree.join("usr/bin/sandpiper-agent"), AGENT);
        program(
            &tree.join("usr/lib/systemd/system/sandpiper-agent.service"),
            config,
        );
        fs::create_dir_all(tree.join("etc/sandpiper")).unwrap();
        fs::write(tree.join("etc/sandpiper/agent.toml"), config).unwrap();
        fs::create_dir_all(self.path("packages")).unwrap();
        let text = format!(
            "tar -czf packages/{PACKAGE} -C tree etc usr; cd packages; sha256sum {PACKAGE} >SHA256SUMS"
        );
        shell(self.dir.path(), &text);
    }

    fn run(&self, args: &[&str], token: Option<&str>) -> Output {
        let token = token.map(|t| ("SANDPIPER_TOKEN", t));
        self.asked(args, &Vec::from_iter(token))
    }

    fn asked(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let packages = self.path("packages").display().to_string();
        let path = format!(
            "{}:{}",
            self.path("tools").display(),
            std::env::var("PATH").unwrap()
        );
        let mut command = Command::new("sh");
        command
            .arg(sandpiper_e2e::root().join("deploy/install.sh"))
            .args(args)
            .env("PATH", path)
            .env("SANDPIPER_ROOT", self.root())
            .env("SANDPIPER_MACHINE", "aarch64")
            .env("SANDPIPER_BITS", "64")
            .env_remove("SANDPIPER_TOKEN")
            .stdin(Stdio::null());
        if !args.contains(&"--uninstall") {
            command.args(["--packages", &packages]);
        }
        command.envs(env.iter().copied()).output().unwrap()
    }

    fn ok(&self, args: &[&str], token: Option<&str>) -> String {
        let output = self.run(args, token);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{err}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, args: &[&str], token: Option<&str>) -> String {
        let output = self.run(args, token);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.root().join(name)).unwrap_or_default()
    }

    fn has(&self, name: &str) -> bool {
        self.root().join(name).exists()
    }
}

#[test]
fn installs_joins_upgrades_and_goes() {
    let pi = Pi::new();
    let said = pi.ok(&["--name", "pi-1"], Some(TOKEN));
    assert!(said.contains("Raspberry Pi 3 Model B"), "{said}");
    assert_eq!(pi.text("token").trim(), TOKEN);
    let log = pi.text("log");
    assert!(log.contains("join - --name pi-1"), "{log}");
    // Arguments are seen by every user of the device.
    assert!(!log.contains(TOKEN), "{log}");
    assert!(log.contains("chown 990:990"), "{log}");
    assert!(
        log.contains("systemctl enable sandpiper-agent.service"),
        "{log}"
    );
    assert!(
        log.trim_end()
            .ends_with("systemctl restart sandpiper-agent.service"),
        "{log}"
    );

    // An upgrade: a new unit, the owner's configuration, the same identity, no second user.
    fs::write(pi.root().join("etc/sandpiper/agent.toml"), "# mine\n").unwrap();
    pi.package("# two\n");
    let said = pi.ok(&[], Some("another"));
    assert!(said.contains("has joined already"), "{said}");
    assert_eq!(pi.text("token").trim(), TOKEN);
    assert_eq!(pi.text("etc/sandpiper/agent.toml"), "# mine\n");
    assert_eq!(
        pi.text("usr/lib/systemd/system/sandpiper-agent.service"),
        "# two\n"
    );
    assert_eq!(pi.text("log").matches("useradd").count(), 1);

    let state = "var/lib/sandpiper-agent/identity.json";
    pi.ok(&["--uninstall"], None);
    assert!(!pi.has("usr/bin/sandpiper-agent") && pi.has(state));
    assert!(
        pi.text("log")
            .contains("disable --now sandpiper-agent.service")
    );
    pi.ok(&["--uninstall", "--purge"], None);
    assert!(!pi.has(state) && !pi.has("etc/sandpiper/agent.toml"));
}

#[test]
fn a_dry_run_changes_nothing() {
    let pi = Pi::new();
    let said = pi.ok(&["--dry-run"], Some(TOKEN));
    assert!(said.contains("would run: sandpiper-agent join -"), "{said}");
    assert!(!said.contains(TOKEN), "{said}");
    assert!(!pi.has("log") && !pi.has("usr") && !pi.has("var"));
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_installed() {
    let pi = Pi::new();
    let damaged = pi.path("packages").join(PACKAGE);
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let said = pi.refused(&[], Some(TOKEN));
    assert!(said.contains("is damaged"), "{said}");
    fs::remove_file(&damaged).unwrap();
    let said = pi.refused(&[], Some(TOKEN));
    assert!(said.contains("there is no sandpiper-agent-0.1.0"), "{said}");
    let said = pi.refused(&["a-secret"], None);
    assert!(said.contains("--token-stdin"), "{said}");
    assert!(!said.contains("a-secret"), "{said}");
    assert!(!pi.has("log") && !pi.has("usr"));
}

#[test]
fn a_token_among_the_arguments_is_taken_with_a_warning() {
    let pi = Pi::new();
    let output = pi.run(&[TOKEN], None);
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("other users") && !said.contains(TOKEN),
        "{said}"
    );
    assert_eq!(pi.text("token").trim(), TOKEN);
    assert!(!pi.text("log").contains(TOKEN));
}

#[test]
fn the_newest_package_is_installed_unless_another_is_asked_for() {
    let pi = Pi::new();
    let script = "cp -r packages/. more; cd more; \
        for v in 0.2.0 0.10.0; do cp *-0.1.0-arm64.tar.gz sandpiper-agent-$v-arm64.tar.gz; done; \
        cp *-0.1.0-arm64.tar.gz sandpiper-agent-0.99.0-armhf.tar.gz; sha256sum *.gz >SHA256SUMS; \
        mv * ../packages";
    fs::create_dir(pi.path("more")).unwrap();
    shell(pi.dir.path(), script);
    let said = pi.ok(&["--dry-run"], None);
    assert!(
        said.contains("installing sandpiper-agent-0.10.0-arm64.tar.gz"),
        "{said}"
    );
    let said = pi.asked(&["--dry-run"], &[("SANDPIPER_VERSION", "0.2.0")]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.contains("installing sandpiper-agent-0.2.0-arm64.tar.gz"),
        "{said}"
    );
    let said = pi.asked(&["--dry-run"], &[("SANDPIPER_VERSION", "7")]);
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(
        said.contains("there is no sandpiper-agent-7-arm64.tar.gz"),
        "{said}"
    );
}

#[test]
fn a_device_that_does_not_join_says_so() {
    let pi = Pi::new();
    let said = pi.refused(&[], Some("refused"));
    assert!(said.contains("did not join"), "{said}");
    assert!(!pi.text("log").contains("restart"));
}
