//! The quantised dialects beyond convolutions and products: tables, joining, means, blocks of scales,
//! integers of 4 bits.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Dice, FLOATS, Tensors, agree, kernels, scalar, tensor, zero};
use sandpiper_compiler::build::{Attribute, ModelBuilder};
use sandpiper_compiler::{Options, Tensor, compile};
use sandpiper_core::tensor::DType;

fn given(name: &str, tensor: Tensor) -> Tensors {
    [(name.to_owned(), tensor)].into()
}

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

#[test]
fn operators_of_one_quantised_value() {
    let mut dice = Dice(21);
    for (dtype, result, x_zero) in [(DType::U8, DType::U8, 120), (DType::I8, DType::U8, -5)] {
        for (operator, attributes) in [
            ("QLinearSigmoid", vec![]),
            ("QLinearLeakyRelu", vec![("alpha", Attribute::Float(0.2))]),
            (
                "QLinearReduceMean",
                vec![("axes", ints(&[2])), ("keepdims", Attribute::Int(0))],
            ),
        ] {
            let model = ModelBuilder::new(13)
                .input("x", dtype, &[None, Some(3), Some(40)])
                .constant("s", &scalar(0.05))
                .constant("z", &zero(dtype, x_zero))
                .constant("t", &scalar(0.03))
                .constant("u", &zero(result, 60));
            let operator = format!("com.microsoft:{operator}");
            let (from, to) = (["x", "s", "z", "t", "u"], ["y"]);
            let model = match &attributes[..] {
                [] => model.node(&operator, &from, &to, []),
                [a] => model.node(&operator, &from, &to, [a.clone()]),
                more => model.node(&operator, &from, &to, [more[0].clone(), more[1].clone()]),
            };
            // A mean is rounded once here, and as a float and then once there.
            let steps = if attributes.len() == 2 { 1.0 } else { 0.0 };
            let x = dice.bytes(dtype, &[2, 3, 40]);
            agree(&model.output("y").finish(), 2, &given("x", x), steps);
        }
    }
}

#[test]
fn parts_of_other_scales_are_joined() {
    let mut dice = Dice(22);
    for axis in [1, -1] {
        let model = ModelBuilder::new(13)
            .input("a", DType::U8, &[None, Some(3), Some(4)])
            .input("b", DType::U8, &[None, Some(3), Some(4)])
            .input("c", DType::I8, &[None, Some(3), Some(4)])
            .constant("s", &scalar(0.05))
            .constant("z", &zero(DType::U8, 100))
            .constant("t", &scalar(0.08))
            .constant("u", &zero(DType::I8, -7))
            .node(
                "com.microsoft:QLinearConcat",
                &["s", "z", "a", "s", "z", "b", "t", "z", "c", "t", "u"],
                &["y"],
                [("axis", Attribute::Int(axis))],
            )
            .output("y")
            .finish();
        let mut some = |dtype| dice.bytes(dtype, &[2, 3, 4]);
        let inputs = [
            ("a".to_owned(), some(DType::U8)),
            ("b".to_owned(), some(DType::U8)),
            ("c".to_owned(), some(DType::I8)),
        ];
        let compiled = agree(&model, 2, &inputs.into(), 0.0);
        let lookups = kernels(&compiled)
            .iter()
            .filter(|k| **k == "lookup")
            .count();
        assert_eq!(lookups, 2, "one part has the scale of the result");
    }
}

/// x quantised, dequantised, and what `middle` makes of the float `d` and leaves as `r`, quantised.
fn wrapped(middle: impl FnOnce(ModelBuilder) -> ModelBuilder) -> Vec<u8> {
    let model = ModelBuilder::new(18)
        .input("x", DType::F32, &[None, Some(4), Some(3), Some(5)])
        .constant("s", &scalar(0.02))
        .constant("z", &zero(DType::I8, 10))
        .constant("t", &scalar(0.03))
        .constant("u", &zero(DType::I8, -20))
        .constant("axes", &common::longs(&[2, 3]))
        .constant("half", &scalar(0.5))
        .node("QuantizeLinear", &["x", "s", "z"], &["q"], [])
        .node("DequantizeLinear", &["q", "s", "z"], &["d"], []);
    middle(model)
        .node("QuantizeLinear", &["r", "t", "u"], &["v"], [])
        .node("DequantizeLinear", &["v", "t", "u"], &["y"], [])
        .output("y")
        .finish()
}

#[test]
fn pairs_around_operators_leave_no_floats() {
    let mut dice = Dice(23);
    let mut check = |model: &[u8], expected: &[&str], tolerance: f64| {
        let x = common::scaled(&mut dice, &[2, 4, 3, 5], 3.0, 0.0);
        let compiled = agree(model, 2, &given("x", x), tolerance);
        let all = kernels(&compiled);
        assert_eq!(all[..1], ["quantize"]);
        assert_eq!(all[1..all.len() - 1], *expected);
        assert_eq!(all[all.len() - 1..], ["dequantize"]);
    };
    for operator in [
        "Sigmoid",
        "Tanh",
        "HardSwish",
        "Elu",
        "Erf",
        "Softplus",
        "LeakyRelu",
        "Sqrt",
    ] {
        check(
            &wrapped(|m| m.node(operator, &["d"], &["r"], [])),
            &["lookup"],
            FLOATS,
        );
    }
    // Limits, and nothing at all but another scale.
    check(
        &wrapped(|m| m.node("Relu", &["d"], &["r"], [])),
        &["lookup"],
        FLOATS,
    );
    let cut = |m: ModelBuilder| {
        m.node("Tanh", &["d"], &["e"], [])
            .node("Clip", &["e", "", "half"], &["r"], [])
    };
    check(&wrapped(cut), &["lookup"], FLOATS);
    // One step of the result's scale where a mean lies between two.
    let mean = |m: ModelBuilder| m.node("ReduceMean", &["d", "axes"], &["r"], []);
    check(&wrapped(mean), &["reduce-mean-i8"], 0.030_1);
    let join = |m: ModelBuilder| {
        m.node("Sigmoid", &["d"], &["e"], [])
            .node("QuantizeLinear", &["e", "t", "u"], &["f"], [])
            .node("DequantizeLinear", &["f", "t", "u"], &["g"], [])
            .node("Concat", &["d", "g"], &["r"], [("axis", Attribute::Int(1))])
    };
    check(
        &wrapped(join),
        &["lookup", "lookup", "concat", "concat"],
        FLOATS,
    );
}

#[test]
fn scales_by_block_and_integers_of_four_bits() {
    let mut dice = Dice(24);
    let blocks = || {
        [
            ("axis", Attribute::Int(0)),
            ("block_size", Attribute::Int(4)),
        ]
    };
    for dtype in [DType::I8, DType::U8] {
        // The last block of ten rows is not whole, and the number of elements is odd.
        let w = dice.bytes(dtype, &[10, 3]);
        let zeros = tensor(dtype, vec![3, 3], &[1, 2, 3, 4, 5, 6, 7, 0, 1]);
        for narrow in [false, true] {
            let model = ModelBuilder::new(21).input("x", DType::F32, &[None, Some(10)]);
            let model = match narrow {
                true => model.nibbles("w", &w).nibbles("z", &zeros),
                false => model.constant("w", &w).constant("z", &zeros),
            };
            let model = model
                .constant("s", &common::scaled(&mut dice, &[3, 3], 0.04, 0.05))
                .node("DequantizeLinear", &["w", "s", "z"], &["f"], blocks())
                .node("MatMul", &["x", "f"], &["y"], [])
                .output("y")
                .finish();
            let compiled = agree(&model, 3, &given("x", dice.floats(&[3, 10])), FLOATS);
            assert_eq!(kernels(&compiled), ["gemm-f32"]);
        }
    }
    let model = ModelBuilder::new(21)
        .input("x", DType::F32, &[Some(2), Some(10), Some(3)])
        .constant("s", &common::scaled(&mut dice, &[2, 3, 3], 0.04, 0.05))
        .node(
            "QuantizeLinear",
            &["x", "s"],
            &["q"],
            [("block_size", Attribute::Int(4))],
        )
        .node(
            "DequantizeLinear",
            &["q", "s"],
            &["y"],
            [("block_size", Attribute::Int(4))],
        )
        .output("y")
        .output("q")
        .finish();
    agree(&model, 1, &given("x", dice.floats(&[2, 10, 3])), FLOATS);
    // Four bits are not taken for eight.
    let model = ModelBuilder::new(21)
        .input("x", DType::I8, &[Some(3)])
        .nibbles("w", &tensor(DType::I8, vec![3], &[1, 2, 3]))
        .node("Add", &["x", "w"], &["y"], [])
        .output("y")
        .finish();
    let error = compile(&model, &Options::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("4 bits"), "{error}");
}

#[test]
fn products_of_two_quantised_tensors() {
    let mut dice = Dice(25);
    for (a_type, b_type) in [(DType::U8, DType::I8), (DType::I8, DType::I8)] {
        let model = ModelBuilder::new(13)
            .input("a", a_type, &[None, Some(2), Some(3), Some(7)])
            .input("b", b_type, &[None, Some(2), Some(7), Some(5)])
            .constant("s", &scalar(0.02))
            .constant("az", &zero(a_type, 17))
            .constant("bz", &zero(b_type, -3))
            .constant("t", &scalar(0.3))
            .constant("yz", &zero(a_type, 100))
            .node(
                "QLinearMatMul",
                &["a", "s", "az", "b", "s", "bz", "t", "yz"],
                &["y"],
                [],
            )
            .output("y")
            .finish();
        let inputs = [
            ("a".to_owned(), dice.bytes(a_type, &[2, 2, 3, 7])),
            ("b".to_owned(), dice.bytes(b_type, &[2, 2, 7, 5])),
        ];
        agree(&model, 2, &inputs.into(), 0.0);
    }
}
