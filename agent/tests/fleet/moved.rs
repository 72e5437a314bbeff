//! A card that is put into another board, and back: the CPU prefers other code than what the card
//! holds, and then cannot run what it holds.

use crate::device::{bundle, version};
use crate::eventually;
use crate::serving::Setup;
use sandpiper_core::digest::Digest;
use sandpiper_core::manifest::{NativeCode, VersionManifest};
use sandpiper_core::target::Target;
use sandpiper_core::telemetry::ModelPhase;
use sandpiper_proto::convert::FromController;
use sandpiper_sandbox::{Origin, host_target, precompile};

const BEST: Target = Target::X8664V3;
const PLAIN: Target = Target::X8664V2;

/// A version with code for both.
fn for_both(setup: &Setup) -> VersionManifest {
    let mut version = version(&setup.controller);
    let variant = &mut version.variants[0];
    let wasm = setup.controller.desk().blobs[&variant.wasm.digest].clone();
    let made = precompile(&wasm, PLAIN, Origin::OwnCompiler).unwrap();
    let native = NativeCode {
        artefact: setup.controller.hold(made.native),
        runtime_key: made.runtime_key,
    };
    variant.native.insert(PLAIN, native);
    assert!(variant.native.contains_key(&BEST));
    version
}

impl Setup {
    /// Ends the agent and starts it as on a CPU with these features.
    async fn moves_to(&mut self, features: Option<&[&str]>) {
        let before = self.controller.desk().streams.len();
        self.device.kill();
        self.device.pretend(features);
        self.device.start();
        eventually("the device attaches again", async || {
            (self.controller.desk().streams.len() > before).then_some(())
        })
        .await;
    }

    /// What the device says of the code that serves.
    fn told(&self) -> Option<Digest> {
        let desk = self.controller.desk();
        let observation = &desk.streams.last()?.hello.observation;
        let model = observation.models.first()?;
        let serving = model.serving.as_ref()?;
        (model.phase == ModelPhase::Serving).then_some(serving.code)
    }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout)]
async fn a_card_serves_at_once_in_another_board_and_moves_to_its_better_code_without_a_gap() {
    if host_target() != BEST {
        println!(
            "skipped: this CPU runs one kind of code only, a board with better code needs two"
        );
        return;
    }
    let mut setup = Setup::attached().await;
    let plain = PLAIN.required_features();
    setup.moves_to(Some(plain)).await;
    let version = for_both(&setup);
    let code = |target| version.variants[0].native[&target].artefact.digest;
    let bundle = bundle(&setup.controller, "shed-1", 1, &version);
    let message = FromController::Assignment(Box::new(bundle));
    setup.controller.send(message).await;
    setup.serves().await;

    // No fetch comes to its end meanwhile.
    setup.controller.gate.forget_permits(1000);
    setup.moves_to(None).await;
    setup.serves().await;
    eventually("what serves is told", async || setup.told()).await;
    assert_eq!(setup.told(), Some(code(PLAIN)));

    setup.controller.gate.add_permits(1000);
    eventually("the better code serves, and no request fails", async || {
        let reply = setup.device.infer().await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
        (setup.told() == Some(code(BEST))).then_some(())
    })
    .await;
    let files = walk(&setup.device.state_dir());
    let on_disk = |digest: Digest| files.iter().any(|f| f.contains(&digest.to_string()));
    assert!(on_disk(code(BEST)), "{files:?}");
    assert!(!on_disk(code(PLAIN)), "what nobody needs is deleted");

    setup.moves_to(Some(plain)).await;
    setup.serves().await;
    eventually("its own code serves", async || {
        (setup.told() == Some(code(PLAIN))).then_some(())
    })
    .await;
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(walk(&entry.path())),
            false => all.push(entry.path().display().to_string()),
        }
    }
    all
}
