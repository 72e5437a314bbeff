//! Operators that are programs over scalars: generated code against the scalar evaluation, which
//! folds constants, so that both must say the same.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Dice, FLOATS, agree, difference, longs, run, scaled, single, tensor};
use sandpiper_compiler::Tensor;
use sandpiper_compiler::build::{Attribute, ModelBuilder, halved};
use sandpiper_core::tensor::DType;

#[test]
fn functions_of_one_float() {
    let mut dice = Dice(1);
    // Name, factor and shift of arguments in -1..1.
    let all = [
        ("Abs", 9.0, 0.0),
        ("Neg", 9.0, 0.0),
        ("Floor", 9.0, 0.0),
        ("Ceil", 9.0, 0.0),
        ("Round", 9.0, 0.0),
        ("Sqrt", 4.0, 5.0),
        ("Reciprocal", 4.0, 5.0),
        ("Sign", 1.0, 0.0),
        ("Exp", 9.0, 0.0),
        ("Log", 4.0, 4.5),
        ("Sigmoid", 20.0, 0.0),
        ("Tanh", 6.0, 0.0),
        ("Sinh", 6.0, 0.0),
        ("Cosh", 6.0, 0.0),
        ("Asinh", 9.0, 0.0),
        ("Acosh", 4.0, 5.5),
        ("Atanh", 0.99, 0.0),
        ("Sin", 50.0, 0.0),
        ("Cos", 50.0, 0.0),
        ("Tan", 1.4, 0.0),
        ("Asin", 1.0, 0.0),
        ("Acos", 1.0, 0.0),
        ("Atan", 20.0, 0.0),
        ("Erf", 4.0, 0.0),
        ("Softplus", 20.0, 0.0),
        ("Softsign", 9.0, 0.0),
        ("Mish", 9.0, 0.0),
        ("HardSwish", 6.0, 0.0),
        ("HardSigmoid", 6.0, 0.0),
        ("LeakyRelu", 3.0, 0.0),
        ("ThresholdedRelu", 3.0, 0.0),
        ("Elu", 4.0, 0.0),
        ("Selu", 4.0, 0.0),
        ("Celu", 4.0, 0.0),
        ("Shrink", 2.0, 0.0),
        ("IsNaN", 1.0, 0.0),
        ("IsInf", 1.0, 0.0),
    ];
    for (name, factor, shift) in all {
        let x = scaled(&mut dice, &[3, 67], factor, shift);
        single(name, &[x], &[], 1, []);
        let edges = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            1e-20,
        ];
        // Half of these are no arguments of some functions: both sides then give NaN.
        if !matches!(
            name,
            "Sin" | "Cos" | "Tan" | "Mish" | "HardSwish" | "Softsign" | "Celu" | "Sign"
        ) {
            single(
                name,
                &[Tensor::f32(&[8], edges.to_vec()).unwrap()],
                &[],
                1,
                [],
            );
        }
    }
}

#[test]
fn pairs_are_broadcast_and_typed() {
    let mut dice = Dice(2);
    for name in [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Min",
        "Max",
        "Equal",
        "Less",
        "GreaterOrEqual",
        "Mod",
    ] {
        for dtype in [DType::I8, DType::U8, DType::I32, DType::I64] {
            let width = dtype.size_bytes();
            let mut some = |dims: &[usize]| {
                let n = dims.iter().product::<usize>() * width;
                let bytes = dice.bytes(DType::U8, &[n]).to_bytes();
                tensor(dtype, dims.to_vec(), &bytes)
            };
            let pair = [some(&[2, 1, 5]), some(&[3, 1])];
            single(name, &pair, &[], 1, []);
        }
        if name != "Mod" {
            single(
                name,
                &[dice.floats(&[2, 1, 5]), dice.floats(&[3, 1])],
                &[],
                1,
                [],
            );
        }
    }
    let base = scaled(&mut dice, &[4, 9], 2.0, 2.1);
    single(
        "Pow",
        &[base, scaled(&mut dice, &[9], 3.0, 0.0)],
        &[],
        1,
        [],
    );
    let bools = |dice: &mut Dice, dims: &[usize]| {
        let bytes: Vec<u8> = (0..dims.iter().product())
            .map(|_| (dice.bits() & 1) as u8)
            .collect();
        tensor(DType::Bool, dims.to_vec(), &bytes)
    };
    for name in ["And", "Or", "Xor"] {
        single(
            name,
            &[bools(&mut dice, &[3, 4]), bools(&mut dice, &[4])],
            &[],
            1,
            [],
        );
    }
    let condition = bools(&mut dice, &[3, 1]);
    single(
        "Where",
        &[condition, dice.floats(&[3, 4]), dice.floats(&[1, 4])],
        &[],
        1,
        [],
    );
}

#[test]
fn reductions_normalisations_and_lanes() {
    let mut dice = Dice(3);
    for name in [
        "Sum",
        "Mean",
        "Prod",
        "Min",
        "Max",
        "L1",
        "L2",
        "SumSquare",
        "LogSumExp",
    ] {
        let x = dice.floats(&[2, 5, 3, 4]);
        let axes = longs(&[1, -1]);
        let name = format!("Reduce{name}");
        single(&name, &[x], &[axes], 1, [("keepdims", Attribute::Int(0))]);
    }
    for name in [
        "ArgMax",
        "ArgMin",
        "Hardmax",
        "LogSoftmax",
        "Softmax",
        "LpNormalization",
    ] {
        let x = dice.floats(&[2, 5, 3]);
        single(name, &[x], &[], 1, [("axis", Attribute::Int(1))]);
    }
    let sum = [
        ("reverse", Attribute::Int(1)),
        ("exclusive", Attribute::Int(1)),
    ];
    single("CumSum", &[dice.floats(&[3, 6])], &[longs(&[1])], 1, sum);
    let (x, c) = (
        dice.floats(&[2, 6, 5]),
        [dice.floats(&[6]), dice.floats(&[6])],
    );
    single("InstanceNormalization", std::slice::from_ref(&x), &c, 1, []);
    let groups = [dice.floats(&[3]), dice.floats(&[3])];
    single(
        "GroupNormalization",
        std::slice::from_ref(&x),
        &groups,
        1,
        [("num_groups", Attribute::Int(3))],
    );
    let last = [dice.floats(&[5]), dice.floats(&[5])];
    single("LayerNormalization", &[x], &last, 3, []);
    let k = [("largest", Attribute::Int(0)), ("axis", Attribute::Int(1))];
    single("TopK", &[dice.floats(&[2, 9, 3])], &[longs(&[4])], 2, k);
    single(
        "LRN",
        &[dice.floats(&[1, 7, 3, 3])],
        &[],
        1,
        [("size", Attribute::Int(3))],
    );
}

#[test]
fn elements_are_found_and_moved() {
    let mut dice = Dice(4);
    let x = dice.floats(&[4, 5]);
    let at = Tensor::new(
        vec![3, 5],
        sandpiper_compiler::tensor::Data::I64(
            (0..15)
                .map(|i| i64::from(i * 7 % 4) - i64::from(i % 2 == 0))
                .collect(),
        ),
    )
    .unwrap();
    single("GatherElements", &[x.clone(), at.clone()], &[], 1, []);
    let add = [("reduction", Attribute::Text("add".into()))];
    single(
        "ScatterElements",
        &[x.clone(), at, dice.floats(&[3, 5])],
        &[],
        1,
        add,
    );
    let pairs = longs(&[1, 2, 3, -1, 0, 0]).reshaped(vec![3, 2]).unwrap();
    single("GatherND", &[x.clone(), pairs.clone()], &[], 1, []);
    single(
        "ScatterND",
        &[x.clone(), pairs, dice.floats(&[3])],
        &[],
        1,
        [],
    );
    single("Gather", &[x.clone(), longs(&[3, 0, -2])], &[], 1, []);
    for mode in ["constant", "edge", "reflect", "wrap"] {
        let pads = longs(&[2, 1, 3, 2]);
        single(
            "Pad",
            std::slice::from_ref(&x),
            &[pads],
            1,
            [("mode", Attribute::Text(mode.into()))],
        );
    }
    single("Tile", std::slice::from_ref(&x), &[longs(&[2, 3])], 1, []);
    single(
        "Expand",
        &[dice.floats(&[3, 1])],
        &[longs(&[2, 3, 4])],
        1,
        [],
    );
    single(
        "Trilu",
        std::slice::from_ref(&x),
        &[],
        1,
        [("upper", Attribute::Int(0))],
    );
    single("Split", &[x], &[longs(&[1, 3])], 2, []);
    let image = dice.floats(&[1, 8, 4, 6]);
    for name in ["DepthToSpace", "SpaceToDepth"] {
        single(
            name,
            std::slice::from_ref(&image),
            &[],
            1,
            [("blocksize", Attribute::Int(2))],
        );
    }
    let depth = Tensor::f32(&[], vec![5.0]).unwrap();
    let values = dice.floats(&[2]);
    single("OneHot", &[longs(&[1, 4, -1, 7])], &[depth, values], 1, []);
    for mode in ["nearest", "linear", "cubic"] {
        let scales = Tensor::f32(&[4], vec![1.0, 1.0, 1.5, 0.6]).unwrap();
        let none = Tensor::f32(&[0], Vec::new()).unwrap();
        single(
            "Resize",
            std::slice::from_ref(&image),
            &[none, scales],
            1,
            [("mode", Attribute::Text(mode.into()))],
        );
        let grid = scaled(&mut dice, &[1, 3, 5, 2], 1.3, 0.0);
        let mode = if mode == "cubic" { "bicubic" } else { mode };
        let mode = if mode == "linear" { "bilinear" } else { mode };
        single(
            "GridSample",
            &[image.clone(), grid],
            &[],
            1,
            [("mode", Attribute::Text(mode.into()))],
        );
    }
}

#[test]
fn products_windows_and_recurrences() {
    let mut dice = Dice(5);
    single(
        "MatMul",
        &[dice.floats(&[2, 1, 3, 5]), dice.floats(&[4, 5, 6])],
        &[],
        1,
        [],
    );
    for (rows, columns, inner) in [(1, 1, 1), (4, 8, 3), (5, 13, 7), (9, 16, 2), (3, 3, 20)] {
        let a = dice.floats(&[2, 3, rows, inner]);
        single(
            "MatMul",
            &[a, dice.floats(&[3, inner, columns])],
            &[],
            1,
            [],
        );
    }
    single(
        "MatMul",
        &[dice.floats(&[7]), dice.floats(&[2, 7, 5])],
        &[],
        1,
        [],
    );
    single(
        "MatMul",
        &[dice.floats(&[2, 5, 7]), dice.floats(&[7])],
        &[],
        1,
        [],
    );
    let both = [
        ("transA", Attribute::Int(1)),
        ("alpha", Attribute::Float(0.5)),
        ("beta", Attribute::Float(2.0)),
    ];
    single(
        "Gemm",
        &[
            dice.floats(&[5, 3]),
            dice.floats(&[5, 4]),
            dice.floats(&[3, 1]),
        ],
        &[],
        1,
        both,
    );
    let (a, b) = (
        dice.bytes(DType::U8, &[3, 7]),
        dice.bytes(DType::I8, &[7, 4]),
    );
    let zeros = [
        tensor(DType::U8, vec![], &[130]),
        tensor(DType::I8, vec![], &[3]),
    ];
    single("MatMulInteger", &[a, b], &zeros, 1, []);
    let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
    let window = [
        ("strides", ints(&[2, 1])),
        ("pads", ints(&[1, 0, 0, 1])),
        ("group", Attribute::Int(2)),
    ];
    let (x, w) = (dice.floats(&[1, 4, 5, 4]), dice.floats(&[4, 3, 3, 2]));
    single(
        "ConvTranspose",
        std::slice::from_ref(&x),
        &[w, dice.floats(&[6])],
        1,
        window,
    );
    let pool = [
        ("kernel_shape", ints(&[2, 2])),
        ("strides", ints(&[2, 3])),
        ("ceil_mode", Attribute::Int(1)),
    ];
    for name in ["MaxPool", "AveragePool"] {
        single(name, std::slice::from_ref(&x), &[], 1, pool.clone());
    }
    single(
        "LpPool",
        std::slice::from_ref(&x),
        &[],
        1,
        [("kernel_shape", ints(&[3, 2])), ("p", Attribute::Int(3))],
    );
    single("GlobalMaxPool", &[x], &[], 1, []);
    for (name, gates) in [("RNN", 1), ("GRU", 3), ("LSTM", 4)] {
        let (steps, batch, inputs, hidden) = (4, 2, 3, 5);
        let x = dice.floats(&[steps, batch, inputs]);
        let constants = [
            dice.floats(&[2, gates * hidden, inputs]),
            dice.floats(&[2, gates * hidden, hidden]),
            dice.floats(&[2, 2 * gates * hidden]),
        ];
        let how = [
            ("hidden_size", Attribute::Int(hidden as i64)),
            ("direction", Attribute::Text("bidirectional".into())),
        ];
        single(name, &[x], &constants, 2, how);
    }
    single(
        "DynamicQuantizeLinear",
        &[scaled(&mut dice, &[3, 5], 4.0, 1.0)],
        &[],
        3,
        [],
    );
}

#[test]
fn half_floats_are_read_and_rounded_to() {
    let mut dice = Dice(6);
    // Halves of every size, what lies between them, and what they cannot say.
    let mut values: Vec<f32> = (0..400)
        .map(|i| dice.float() * 2f32.powi(i % 60 - 35))
        .collect();
    values.extend([
        65_504.0,
        65_519.9,
        65_520.0,
        -1e30,
        f32::NAN,
        f32::INFINITY,
        -0.0,
    ]);
    values.extend([
        2f32.powi(-24),
        2f32.powi(-25),
        3.0 * 2f32.powi(-25),
        6.097e-5,
    ]);
    let x = Tensor::f32(&[values.len()], values).unwrap();
    let to = [("to", Attribute::Int(10))];
    single("Cast", &[x], &[], 1, to);
    let ints = longs(&[1, 2049, 70_000, -3]);
    single("Cast", &[ints], &[], 1, [("to", Attribute::Int(10))]);

    let model = ModelBuilder::new(17)
        .input("x", DType::F32, &[None, Some(3), Some(8), Some(8)])
        .constant("w", &dice.floats(&[4, 3, 3, 3]))
        .constant("b", &dice.floats(&[4]))
        .node("Conv", &["x", "w", "b"], &["c"], [])
        .node("Relu", &["c"], &["r"], [])
        .node("GlobalAveragePool", &["r"], &["p"], [])
        .node("Flatten", &["p"], &["f"], [])
        .node("Cast", &["f"], &["y"], [("to", Attribute::Int(1))])
        .output("y")
        .finish();
    let halves = halved(&model).unwrap();
    assert!(halves.len() < model.len());
    let given = [("x".to_owned(), dice.floats(&[2, 3, 8, 8]))].into();
    let narrow = agree(&halves, 2, &given, 1e-3);
    // Inputs and outputs are 32-bit floats.
    assert_eq!(narrow.abi.inputs[0].spec.dtype, DType::F32);
    let (a, b) = (run(&narrow, 2, &given), agree(&model, 2, &given, FLOATS));
    let b = run(&b, 2, &given);
    assert!(difference(&a["y"], &b["y"]) < 2e-3);
}
