//! Hosts differ in how they multiply bytes (x86 as unsigned, others as signed). Results must not: every
//! model is held against the evaluation as this host runs it, and as one that multiplies signed
//! bytes does.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Dice, Tensors, agree, run, scalar, tensor, zero};
use sandpiper_compiler::build::{Attribute, ModelBuilder};
use sandpiper_compiler::{Compiled, Tensor};
use sandpiper_core::tensor::DType;
use wasmtime::{Config, Engine, Instance, Module, Store};

/// The outputs of a module on a host that multiplies signed bytes: relaxed instructions have the
/// meaning there that they have in the deterministic profile.
fn as_signed(compiled: &Compiled, inputs: &Tensors) -> Vec<Vec<u8>> {
    let mut config = Config::new();
    config
        .wasm_simd(true)
        .wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(true);
    let engine = Engine::new(&config).unwrap();
    let module = Module::new(&engine, &compiled.wasm).unwrap();
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let memory = instance.get_memory(&mut store, "memory").unwrap();
    let abi = &compiled.abi;
    if let Some(weights) = &abi.weights {
        let at = weights.offset as usize;
        memory.write(&mut store, at, &compiled.weights).unwrap();
    }
    for input in &abi.inputs {
        let bytes = inputs[&input.spec.name].to_bytes();
        memory
            .write(&mut store, input.offset as usize, &bytes)
            .unwrap();
    }
    let infer = instance
        .get_typed_func::<i32, i32>(&mut store, "infer")
        .unwrap();
    assert_eq!(infer.call(&mut store, 1).unwrap(), 0);
    let outputs = abi.outputs.iter().map(|output| {
        let mut bytes = vec![0; output.spec.size_bytes(1)];
        memory
            .read(&store, output.offset as usize, &mut bytes)
            .unwrap();
        bytes
    });
    outputs.collect()
}

/// Weights of which so many per mille are as large as there are, the rest half of that.
fn weights(dice: &mut Dice, dims: &[usize], large: usize) -> Tensor {
    let n = dims.iter().product();
    let one = |dice: &mut Dice| {
        if dice.below(1000) < large {
            dice.one(&[127, -128, 127, -127])
        } else {
            dice.within(0, 128) as i32 - 64
        }
    };
    let bytes: Vec<u8> = (0..n).map(|_| one(dice) as i8 as u8).collect();
    tensor(DType::I8, dims.to_vec(), &bytes)
}

/// Activations, most of them at the ends of their range.
fn activations(dice: &mut Dice, dtype: DType, dims: &[usize]) -> Tensor {
    let n: usize = dims.iter().product();
    let one = |dice: &mut Dice| {
        let any = dice.bits() as u8;
        dice.one(&[0, 255, 127, 128, 255, 0, any])
    };
    let bytes: Vec<u8> = (0..n).map(|_| one(dice)).collect();
    tensor(dtype, dims.to_vec(), &bytes)
}

fn held(model: &[u8], x: Tensor) {
    let given: Tensors = [("x".to_owned(), x)].into();
    let compiled = agree(model, 1, &given, 0.0);
    let here: Vec<Vec<u8>> = {
        let mut named = run(&compiled, 1, &given);
        let outputs = compiled.abi.outputs.iter();
        outputs
            .map(|o| named.remove(&o.spec.name).unwrap().to_bytes())
            .collect()
    };
    assert!(
        here == as_signed(&compiled, &given),
        "it depends on the host"
    );
}

/// No weight that would have to be split, some, most.
const LARGE: [usize; 3] = [0, 8, 900];

#[test]
fn convolutions_of_extreme_values() {
    let dice = &mut Dice(31);
    // Channels, outputs, groups, window, dilation, stride, padding.
    for (channels, outputs, groups, window, dilation, stride, pad) in [
        (24, 37, 1, 1, 1, 1, 0),
        (24, 37, 1, 3, 1, 1, 1),
        (3, 16, 1, 3, 1, 2, 1),
        (10, 36, 2, 3, 2, 1, 2),
        (90, 20, 1, 1, 1, 1, 0),
        (6, 6, 6, 3, 1, 1, 1),
    ] {
        for (large, dtype) in LARGE
            .iter()
            .flat_map(|l| [(*l, DType::U8), (*l, DType::I8)])
        {
            let w = weights(dice, &[outputs, channels / groups, window, window], large);
            let ints = |v: i64, n: usize| Attribute::Ints(vec![v; n]);
            let model = ModelBuilder::new(17)
                .input("x", dtype, &[None, Some(channels as u32), Some(9), Some(7)])
                .constant("w", &w)
                .constant("s", &scalar(0.001))
                .constant("xz", &zero(dtype, 77))
                .constant("wz", &zero(DType::I8, 0))
                .constant("t", &scalar(0.0025))
                .constant("yz", &zero(dtype, 5))
                .node(
                    "QLinearConv",
                    &["x", "t", "xz", "w", "s", "wz", "t", "yz"],
                    &["y"],
                    [
                        ("group", Attribute::Int(groups as i64)),
                        ("strides", ints(stride, 2)),
                        ("dilations", ints(dilation, 2)),
                        ("pads", ints(pad, 4)),
                    ],
                )
                .node(
                    "ConvInteger",
                    &["x", "w", "xz"],
                    &["sums"],
                    [
                        ("group", Attribute::Int(groups as i64)),
                        ("strides", ints(stride, 2)),
                        ("dilations", ints(dilation, 2)),
                        ("pads", ints(pad, 4)),
                    ],
                )
                .output("y")
                .output("sums")
                .finish();
            held(&model, activations(dice, dtype, &[1, channels, 9, 7]));
        }
    }
}

#[test]
fn products_of_extreme_values() {
    let dice = &mut Dice(32);
    for (rows, inner, columns) in [(1, 70, 33), (2, 9, 7), (3, 90, 20), (13, 130, 40)] {
        for (large, dtype) in LARGE
            .iter()
            .flat_map(|l| [(*l, DType::U8), (*l, DType::I8)])
        {
            let model = ModelBuilder::new(17)
                .input("x", dtype, &[Some(1), Some(rows), Some(inner)])
                .constant("w", &weights(dice, &[inner as usize, columns], large))
                .constant("xz", &zero(dtype, 100))
                .node("MatMulInteger", &["x", "w", "xz"], &["y"], [])
                .output("y")
                .finish();
            let dims = [1, rows as usize, inner as usize];
            held(&model, activations(dice, dtype, &dims));
        }
    }
}

#[test]
fn zero_points_that_are_known_only_at_run_time() {
    let dice = &mut Dice(33);
    for large in LARGE {
        let model = ModelBuilder::new(17)
            .input("x", DType::F32, &[Some(1), Some(8), Some(6), Some(11)])
            .constant("w", &weights(dice, &[20, 8, 3, 3], large))
            .constant("v", &weights(dice, &[11, 30], large))
            .node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], [])
            .node(
                "ConvInteger",
                &["q", "w", "z"],
                &["y"],
                [("pads", Attribute::Ints(vec![1; 4]))],
            )
            .node("MatMulInteger", &["q", "v", "z"], &["u"], [])
            .output("y")
            .output("u")
            .finish();
        held(&model, dice.floats(&[1, 8, 6, 11]));
    }
}
