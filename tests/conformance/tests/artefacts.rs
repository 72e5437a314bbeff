//! What a model becomes on its way to a device: the same bytes every time, and weights that stay in
//! their file.
#![allow(clippy::unwrap_used)]

use sandpiper_compiler::{Options, compile};
use sandpiper_conformance::mapped::mapped;
use sandpiper_conformance::root;
use sandpiper_core::target::Target;
use sandpiper_sandbox::{
    Instance, Limits, LoadSpec, Native, Origin, Weights, host_target, precompile,
};
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

fn example(name: &str) -> Vec<u8> {
    std::fs::read(root().join(format!("examples/activity/models/{name}.onnx"))).unwrap()
}

#[test]
fn the_same_file_gives_the_same_module_weights_and_native_code() {
    for name in ["small-f32", "small-int8"] {
        let onnx = example(name);
        let [one, two] = [(); 2].map(|()| compile(&onnx, &Options::default()).unwrap());
        assert_eq!(one, two, "{name}");
        for target in Target::ALL {
            let native = || precompile(&one.wasm, target, Origin::OwnCompiler).unwrap();
            assert_eq!(native(), native(), "{name} for {target}");
        }
    }
}

/// A device maps the weights file; after an inference every page is still the file's, so that the
/// kernel may drop it and read it again.
#[test]
fn weights_of_a_real_model_are_mapped_and_stay_clean() {
    let made = compile(&example("large-f32"), &Options::default()).unwrap();
    let code = precompile(&made.wasm, host_target(), Origin::OwnCompiler).unwrap();
    // Not in /tmp, which may be memory: there every page is dirty.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (native, weights) = (dir.path().join("native"), dir.path().join("weights"));
    for (path, bytes) in [(&native, &code.native), (&weights, &made.weights)] {
        let mut file = File::create(path).unwrap();
        file.write_all(bytes).unwrap();
        file.sync_all().unwrap();
    }
    let input = vec![0; code.abi.input_bytes(1)];
    let limits = Limits {
        memory_bytes: code.abi.memory_bytes,
        deadline: Duration::from_secs(60),
    };
    let mut instance = Instance::load(LoadSpec {
        native: Native::File(&native),
        abi: code.abi,
        weights: Some(Weights::File(&weights)),
        limits,
    })
    .unwrap();
    instance.infer(1, &[&input], &mut [Vec::new()]).unwrap();
    let found = mapped(&weights).unwrap();
    let size = made.weights.len() as u64;
    assert!(found.size_bytes >= size && size > 500_000, "{found:?}");
    assert!(found.resident_bytes > size / 2, "{found:?}");
    assert_eq!((found.dirty_bytes, found.copied_bytes), (0, 0), "{found:?}");
}
