//! Operators by hand: results that can be checked on paper, in the evaluation and in the code.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Tensors, agree, kernels, longs, run, scalar, zero};
use sandpiper_compiler::build::{Attribute, ModelBuilder};
use sandpiper_compiler::tensor::Data;
use sandpiper_compiler::{Options, Tensor, compile, evaluate};
use sandpiper_core::tensor::{DType, Dim};

fn f32s(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor::f32(dims, values.to_vec()).unwrap()
}

fn x(tensor: Tensor) -> Tensors {
    [("x".to_owned(), tensor)].into()
}

fn floats(dims: &[Option<u32>]) -> ModelBuilder {
    ModelBuilder::new(17).input("x", DType::F32, dims)
}

/// The output `y` of a model, which the code and the evaluation must agree on.
fn y(onnx: &[u8], batch: u32, inputs: &Tensors) -> Tensor {
    let compiled = agree(onnx, batch, inputs, 1e-6);
    run(&compiled, batch, inputs)["y"].clone()
}

#[test]
fn halves_are_rounded_to_even_and_nan_becomes_the_least_value() {
    let values = [
        0.5,
        1.5,
        2.5,
        -0.5,
        -1.5,
        -2.5,
        300.0,
        -300.0,
        f32::NAN,
        f32::INFINITY,
        3.49,
    ];
    let quantized = |dtype, zero_point| {
        let onnx = floats(&[None, Some(11)])
            .constant("s", &scalar(1.0))
            .constant("z", &zero(dtype, zero_point))
            .node("QuantizeLinear", &["x", "s", "z"], &["y"], [])
            .output("y")
            .finish();
        y(&onnx, 1, &x(f32s(&[1, 11], &values)))
    };
    let signed = vec![1, 3, 3, 1, -1, -1, 127, -128, -128, 127, 4];
    assert_eq!(quantized(DType::I8, 1).data(), &Data::I8(signed));
    let unsigned = vec![10, 12, 12, 10, 8, 8, 255, 0, 0, 255, 13];
    assert_eq!(quantized(DType::U8, 10).data(), &Data::U8(unsigned));
}

#[test]
fn accumulators_are_rounded_half_to_even() {
    // Products 1 * k with a multiplier of 0.5.
    let weights = Tensor::new(vec![1, 6], Data::I8(vec![1, 2, 3, 5, -1, -3])).unwrap();
    let onnx = ModelBuilder::new(17)
        .input("x", DType::U8, &[None, Some(1)])
        .constant("one", &scalar(1.0))
        .constant("xz", &zero(DType::U8, 0))
        .constant("w", &weights)
        .constant("wz", &zero(DType::I8, 0))
        .constant("two", &scalar(2.0))
        .constant("yz", &zero(DType::U8, 100))
        .node(
            "QLinearMatMul",
            &["x", "one", "xz", "w", "one", "wz", "two", "yz"],
            &["y"],
            [],
        )
        .output("y")
        .finish();
    let result = y(
        &onnx,
        1,
        &x(Tensor::new(vec![1, 1], Data::U8(vec![1])).unwrap()),
    );
    // 0.5, 1, 1.5, 2.5, -0.5, -1.5
    assert_eq!(result.data(), &Data::U8(vec![100, 101, 102, 102, 100, 98]));
}

#[test]
fn padding_has_the_value_of_the_zero_point() {
    // A window of three ones over [5, 6] around a zero point of 4: sums of 1 and 2, and nothing.
    let onnx = ModelBuilder::new(17)
        .input("x", DType::U8, &[None, Some(1), Some(2)])
        .constant("s", &scalar(1.0))
        .constant("z", &zero(DType::U8, 4))
        .constant(
            "w",
            &Tensor::new(vec![1, 1, 3], Data::I8(vec![1, 1, 1])).unwrap(),
        )
        .constant("wz", &zero(DType::I8, 0))
        .constant("yz", &zero(DType::U8, 0))
        .node(
            "QLinearConv",
            &["x", "s", "z", "w", "s", "wz", "s", "yz"],
            &["y"],
            [("pads", Attribute::Ints(vec![2, 2]))],
        )
        .output("y")
        .finish();
    let result = y(
        &onnx,
        1,
        &x(Tensor::new(vec![1, 1, 2], Data::U8(vec![5, 6])).unwrap()),
    );
    assert_eq!(result.data(), &Data::U8(vec![1, 3, 3, 2]));
}

#[test]
fn same_padding_puts_the_odd_element_where_it_says() {
    let conv = |auto_pad: &str| {
        let onnx = floats(&[None, Some(1), Some(4)])
            .constant("w", &f32s(&[1, 1, 2], &[1.0, 10.0]))
            .node(
                "Conv",
                &["x", "w"],
                &["y"],
                [("auto_pad", Attribute::Text(auto_pad.into()))],
            )
            .output("y")
            .finish();
        y(&onnx, 1, &x(f32s(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0])))
    };
    assert_eq!(
        conv("SAME_UPPER").as_f32().unwrap(),
        [21.0, 32.0, 43.0, 4.0]
    );
    assert_eq!(
        conv("SAME_LOWER").as_f32().unwrap(),
        [10.0, 21.0, 32.0, 43.0]
    );
    assert_eq!(conv("VALID").as_f32().unwrap(), [21.0, 32.0, 43.0]);
}

#[test]
fn limits_keep_nan_and_infinity() {
    let onnx = floats(&[None, Some(5)])
        .node("Relu", &["x"], &["y"], [])
        .output("y")
        .finish();
    let given = x(f32s(
        &[1, 5],
        &[-1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2.0],
    ));
    let result = y(&onnx, 1, &given);
    let values = result.as_f32().unwrap();
    assert!(values[1].is_nan());
    assert_eq!(
        [values[0], values[2], values[3], values[4]],
        [0.0, f32::INFINITY, 0.0, 2.0]
    );
}

#[test]
fn shapes_are_computed_when_the_model_is_compiled() {
    // x.reshape(x.shape[0], -1), as exporters write it.
    let onnx = floats(&[None, Some(2), Some(3)])
        .constant("zero", &Tensor::new(vec![], Data::I64(vec![0])).unwrap())
        .constant("first", &longs(&[0]))
        .constant("rest", &longs(&[-1]))
        .node("Shape", &["x"], &["s"], [])
        .node("Gather", &["s", "zero"], &["n"], [])
        .node("Unsqueeze", &["n", "first"], &["u"], [])
        .node(
            "Concat",
            &["u", "rest"],
            &["shape"],
            [("axis", Attribute::Int(0))],
        )
        .node("Reshape", &["x", "shape"], &["r"], [])
        .node("Relu", &["r"], &["y"], [])
        .output("y")
        .finish();
    let values: Vec<f32> = (0..12).map(|v| v as f32 - 5.0).collect();
    let compiled = agree(&onnx, 2, &x(f32s(&[2, 2, 3], &values)), 0.0);
    assert_eq!(kernels(&compiled), ["relu"]);
    assert_eq!(
        compiled.abi.outputs[0].spec.dims,
        [Dim::Batch, Dim::Fixed(6)]
    );
    // Arithmetic with the batch is not known.
    let computed = floats(&[None, Some(2)])
        .node("Shape", &["x"], &["s"], [])
        .node("Add", &["s", "s"], &["t"], [])
        .node("Reshape", &["x", "t"], &["y"], [])
        .output("y")
        .finish();
    let error = compile(&computed, &Options::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("Add"), "{error}");
}

#[test]
fn outputs_may_be_inputs_aliases_and_read_again() {
    let onnx = floats(&[None, Some(2), Some(2)])
        .constant("k", &f32s(&[2], &[10.0, 20.0]))
        .node("Identity", &["x"], &["same"], [])
        .node("Relu", &["x"], &["r"], [])
        .node("Flatten", &["r"], &["flat"], [])
        .node("Add", &["r", "k"], &["y"], [])
        .output("same")
        .output("r")
        .output("flat")
        .output("y")
        .finish();
    let given = x(f32s(
        &[2, 2, 2],
        &[-1.0, 2.0, -3.0, 4.0, 5.0, -6.0, 7.0, -8.0],
    ));
    let compiled = agree(&onnx, 2, &given, 0.0);
    let outputs = run(&compiled, 2, &given);
    assert_eq!(
        outputs["y"].as_f32().unwrap(),
        [10.0, 22.0, 10.0, 24.0, 15.0, 20.0, 17.0, 20.0]
    );
}

#[test]
fn channels_last_need_not_be_moved_for_a_transpose() {
    let onnx = floats(&[None, Some(3), Some(4), Some(5)])
        .constant("w", &f32s(&[2, 3, 1, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
        .node("Conv", &["x", "w"], &["c"], [])
        .node(
            "Transpose",
            &["c"],
            &["y"],
            [("perm", Attribute::Ints(vec![0, 2, 3, 1]))],
        )
        .output("y")
        .finish();
    let values: Vec<f32> = (0..60).map(|v| v as f32).collect();
    let compiled = agree(&onnx, 1, &x(f32s(&[1, 3, 4, 5], &values)), 1e-6);
    assert_eq!(kernels(&compiled), ["layout", "conv-f32"]);
}

#[test]
fn a_convolution_of_unquantised_input_stays_in_floats() {
    let onnx = floats(&[None, Some(1), Some(4)])
        .constant("w", &Tensor::new(vec![1, 1, 1], Data::I8(vec![2])).unwrap())
        .constant("ws", &scalar(0.5))
        .constant("wz", &zero(DType::I8, 0))
        .node("DequantizeLinear", &["w", "ws", "wz"], &["wd"], [])
        .node("Conv", &["x", "wd"], &["y"], [])
        .output("y")
        .finish();
    let given = x(f32s(&[1, 1, 4], &[0.1, 0.2, 0.3, 0.4]));
    let compiled = agree(&onnx, 1, &given, 1e-6);
    assert_eq!(
        compiled.report.macs.keys().collect::<Vec<_>>(),
        [&DType::F32]
    );
    assert_eq!(
        run(&compiled, 1, &given)["y"].as_f32().unwrap(),
        [0.1, 0.2, 0.3, 0.4]
    );
}

#[test]
fn batches_are_bounded_and_items_apart() {
    let onnx = floats(&[None, Some(3)])
        .node("Relu", &["x"], &["y"], [])
        .output("y")
        .finish();
    let compiled = compile(
        &onnx,
        &Options {
            max_batch: 3,
            ..Options::default()
        },
    )
    .unwrap();
    assert_eq!(compiled.abi.max_batch, 3);
    let whole = f32s(&[3, 3], &[1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 4.0, -4.0, 5.0]);
    let three = run(&compiled, 3, &x(whole.clone()));
    for item in 0..3 {
        let part = f32s(&[1, 3], &whole.as_f32().unwrap()[3 * item..][..3]);
        let one = run(&compiled, 1, &x(part));
        assert_eq!(
            one["y"].as_f32().unwrap(),
            &three["y"].as_f32().unwrap()[3 * item..][..3]
        );
    }
}

#[test]
fn shapes_of_the_caller_fix_free_dimensions() {
    let onnx = floats(&[None, None, Some(2)])
        .node("Relu", &["x"], &["y"], [])
        .output("y")
        .finish();
    let shapes = [("x".to_owned(), vec![None, Some(3), None])].into();
    let options = Options {
        shapes,
        ..Options::default()
    };
    let compiled = compile(&onnx, &options).unwrap();
    assert_eq!(
        compiled.abi.inputs[0].spec.dims,
        [Dim::Batch, Dim::Fixed(3), Dim::Fixed(2)]
    );
    let given = x(f32s(&[1, 3, 2], &[1.0, -1.0, 2.0, -2.0, 3.0, -3.0]));
    assert_eq!(
        evaluate(&onnx, &options, &given).unwrap(),
        run(&compiled, 1, &given)
    );
    let wrong = [("z".to_owned(), vec![None])].into();
    let error = compile(
        &onnx,
        &Options {
            shapes: wrong,
            ..Options::default()
        },
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "input `z`: the model has no such input; it has: x"
    );
}

#[test]
fn a_module_refuses_batches_by_itself() {
    let onnx = floats(&[None, Some(3)])
        .node("Relu", &["x"], &["y"], [])
        .output("y")
        .finish();
    let compiled = compile(
        &onnx,
        &Options {
            max_batch: 3,
            ..Options::default()
        },
    )
    .unwrap();
    assert!(compiled.weights.is_empty() && compiled.abi.weights.is_none());
    let engine = wasmtime::Engine::default();
    let module = wasmtime::Module::new(&engine, &compiled.wasm).unwrap();
    assert_eq!(module.imports().len(), 0);
    let mut store = wasmtime::Store::new(&engine, ());
    let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
    let infer = instance
        .get_typed_func::<i32, i32>(&mut store, "infer")
        .unwrap();
    for (batch, code) in [(1, 0), (3, 0), (0, 1), (4, 1), (-1, 1), (i32::MIN, 1)] {
        assert_eq!(
            infer.call(&mut store, batch).unwrap(),
            code,
            "batch {batch}"
        );
    }
    let memory = instance.get_memory(&mut store, "memory").unwrap();
    assert_eq!(memory.data_size(&store) as u64, compiled.abi.memory_bytes);
    let ty = memory.ty(&store);
    assert_eq!(ty.maximum(), Some(ty.minimum()));
}
