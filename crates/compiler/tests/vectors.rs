//! Kernels with vectors for what transformers and sensor models spend their time on: functions with
//! their stated error, normalisation, reductions.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Dice, FLOATS, agree, kernels, longs, run, scaled, single};
use sandpiper_compiler::build::{Attribute, ModelBuilder};
use sandpiper_compiler::{Options, Tensor, compile, evaluate};
use sandpiper_core::tensor::DType;

/// The greatest error of a function over `low..high`, less `small`, relative to its value; the
/// evaluation in 64 bits is itself rounded to a float.
fn error_of(operator: &str, (low, high): (f32, f32), small: f64) -> f64 {
    let count = 200_000;
    let at = |i: u32| low + (high - low) * (i as f32 / count as f32);
    let x: Vec<f32> = (0..=count).map(at).collect();
    let x = Tensor::f32(&[x.len()], x).unwrap();
    let model = ModelBuilder::new(20)
        .input("x", DType::F32, &[Some(count + 1)])
        .node(operator, &["x"], &["y"], [])
        .output("y")
        .finish();
    let given = [("x".to_owned(), x)].into();
    let compiled = compile(&model, &Options::default()).unwrap();
    let found = run(&compiled, 1, &given).remove("y").unwrap();
    let wanted = evaluate(&model, &Options::default(), &given).unwrap();
    let pairs = found
        .as_f32()
        .unwrap()
        .iter()
        .zip(wanted["y"].as_f32().unwrap());
    let error = |(a, b): (&f32, &f32)| {
        let (a, b) = (f64::from(*a), f64::from(*b));
        ((a - b).abs() - small).max(0.0) / b.abs().max(f64::from(f32::MIN_POSITIVE))
    };
    pairs.map(error).fold(0.0, f64::max)
}

#[test]
fn functions_keep_their_stated_error() {
    let unit = f64::from(f32::EPSILON);
    for (operator, range, small, bound) in [
        ("Exp", (-87.3, 88.7), 0.0, 2.0 * unit),
        ("Erf", (-5.0, 5.0), 0.0, 4e-7),
        ("Erf", (-0.6, 0.6), 0.0, 4e-7),
        ("Gelu", (-6.0, 6.0), 1e-7, 1e-6),
        ("Sigmoid", (-80.0, 80.0), 0.0, 4.0 * unit),
        ("Tanh", (-9.0, 9.0), 0.0, 4e-7),
    ] {
        let error = error_of(operator, range, small);
        assert!(error <= bound, "{operator} over {range:?}: {error:e}");
    }
    // Beyond the range of normal floats nothing is lost that a float can say.
    let ends = [-103.0, -95.5, 88.72, 88.8, 200.0, -200.0, f32::INFINITY];
    let x = Tensor::f32(&[7], ends.to_vec()).unwrap();
    single("Exp", &[x], &[], 1, []);
}

#[test]
fn activations_by_curves() {
    let mut dice = Dice(11);
    let tangent = || [("approximate", Attribute::Text("tanh".into()))];
    let x = scaled(&mut dice, &[3, 67], 6.0, 0.0);
    single("Gelu", std::slice::from_ref(&x), &[], 1, tangent());
    single("Gelu", std::slice::from_ref(&x), &[], 1, []);
    for alpha in [0.3, -0.7] {
        let alpha = || [("alpha", Attribute::Float(alpha))];
        for name in ["Elu", "Celu"] {
            single(name, std::slice::from_ref(&x), &[], 1, alpha());
        }
    }
    for power in [2.0, 3.0, 2.5] {
        let power = Tensor::f32(&[], vec![power]).unwrap();
        single("Pow", std::slice::from_ref(&x), &[power], 1, []);
    }
}

#[test]
fn rows_and_columns_are_reduced() {
    let mut dice = Dice(12);
    for name in ["Sum", "Mean", "Min", "Max", "L1", "L2", "SumSquare"] {
        let operator = format!("Reduce{name}");
        for (dims, axes) in [
            (&[3, 1][..], &[1][..]),
            (&[2, 3, 7], &[2]),
            (&[2, 3, 300], &[-1]),
            (&[2, 5, 6], &[1, 2]),
            (&[2, 40, 6], &[1]),
            (&[2, 33, 9], &[0, 1]),
            (&[2, 1, 5, 3], &[1, 2]),
            (&[300], &[0]),
            (&[2, 3, 4], &[0, 2]),
        ] {
            for keep in [0, 1] {
                let x = scaled(&mut dice, dims, 2.0, 0.5);
                let keep = [("keepdims", Attribute::Int(keep))];
                single(&operator, &[x], &[longs(axes)], 1, keep);
            }
        }
    }
    // NaN is the extreme of what it is in, in rows and in columns.
    let mut values = vec![1.0; 21];
    values[9] = f32::NAN;
    let x = Tensor::f32(&[3, 7], values).unwrap();
    for axis in [0, 1] {
        single(
            "ReduceMax",
            std::slice::from_ref(&x),
            &[longs(&[axis])],
            1,
            [],
        );
    }
}

#[test]
fn what_convolutions_make_is_reduced_as_it_lies() {
    let mut dice = Dice(13);
    let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
    for (axes, keep) in [([2, 3], 0), ([2, 3], 1), ([1, 2], 0), ([1, 3], 1)] {
        let model = ModelBuilder::new(13)
            .input("x", DType::F32, &[None, Some(3), Some(5), Some(6)])
            .constant("w", &dice.floats(&[6, 3, 1, 1]))
            .node("Conv", &["x", "w"], &["c"], [])
            .node(
                "ReduceMean",
                &["c"],
                &["y"],
                [("axes", ints(&axes)), ("keepdims", Attribute::Int(keep))],
            )
            .output("y")
            .finish();
        let given = [("x".to_owned(), dice.floats(&[2, 3, 5, 6]))].into();
        let compiled = agree(&model, 2, &given, FLOATS);
        if axes == [2, 3] {
            assert_eq!(kernels(&compiled), ["layout", "conv-f32", "reduce-mean"]);
        }
    }
}

#[test]
fn groups_that_lie_together_are_normalised_by_vectors() {
    let mut dice = Dice(14);
    let axis = |axis| [("axis", Attribute::Int(axis))];
    for len in [3, 4, 30, 300] {
        let x = scaled(&mut dice, &[2, 3, len], 3.0, 1.0);
        let affine = [dice.floats(&[len]), dice.floats(&[len])];
        single(
            "LayerNormalization",
            std::slice::from_ref(&x),
            &affine,
            3,
            axis(-1),
        );
        single(
            "LayerNormalization",
            std::slice::from_ref(&x),
            &affine[..1],
            1,
            axis(2),
        );
        single(
            "RMSNormalization",
            std::slice::from_ref(&x),
            &affine[..1],
            1,
            axis(-1),
        );
        let all = [dice.floats(&[3, len]), dice.floats(&[3, len])];
        single(
            "LayerNormalization",
            std::slice::from_ref(&x),
            &all,
            1,
            axis(1),
        );
        // Factors that vary along what stays, alone or too.
        for dims in [
            &[3, len][..],
            &[3, 1],
            &[2, 1, 1],
            &[2, 3, 1],
            &[2, 1, len],
            &[1],
        ] {
            let some = [dice.floats(dims), dice.floats(dims)];
            single(
                "LayerNormalization",
                std::slice::from_ref(&x),
                &some,
                1,
                axis(2),
            );
        }
        // One factor for all elements of a row is no factor by element.
        let one = [dice.floats(&[3, 1]), dice.floats(&[3, 1])];
        single(
            "LayerNormalization",
            std::slice::from_ref(&x),
            &one,
            1,
            axis(1),
        );
        let by_channel = [dice.floats(&[3]), dice.floats(&[3])];
        single("InstanceNormalization", &[x], &by_channel, 1, []);
        let groups = [("num_groups", Attribute::Int(2))];
        let x = dice.floats(&[2, 6, 2, len]);
        let by_group = [dice.floats(&[2]), dice.floats(&[2])];
        single(
            "GroupNormalization",
            std::slice::from_ref(&x),
            &by_group,
            1,
            groups.clone(),
        );
        let model = ModelBuilder::new(21)
            .input(
                "x",
                DType::F32,
                &[Some(2), Some(6), Some(2), Some(len as u32)],
            )
            .constant("s", &dice.floats(&[6]))
            .constant("b", &dice.floats(&[6]))
            .node("GroupNormalization", &["x", "s", "b"], &["y"], groups)
            .output("y")
            .finish();
        agree(&model, 1, &[("x".to_owned(), x)].into(), FLOATS);
    }
}

#[test]
fn recurrences_with_constant_weights() {
    let mut dice = Dice(15);
    let text = |t: &str| Attribute::Text(t.into());
    for hidden in [1, 4, 7, 16] {
        for (operator, gates) in [("RNN", 1), ("GRU", 3), ("LSTM", 4)] {
            for (variant, (direction, d)) in [("forward", 1), ("reverse", 1), ("bidirectional", 2)]
                .into_iter()
                .enumerate()
            {
                let (steps, batch, inputs) = (5, 2, 3);
                let layout = (variant % 2) as i64;
                let first = |a: usize, b: usize| if layout == 1 { [b, a] } else { [a, b] };
                let [a, b] = first(steps, batch);
                let x = dice.floats(&[a, b, inputs]);
                let [a, b] = first(d, batch);
                let start = [dice.floats(&[a, b, hidden]), dice.floats(&[a, b, hidden])];
                let constants = [
                    dice.floats(&[d, gates * hidden, inputs]),
                    dice.floats(&[d, gates * hidden, hidden]),
                    dice.floats(&[d, 2 * gates * hidden]),
                ];
                let mut model = ModelBuilder::new(14)
                    .input(
                        "x",
                        DType::F32,
                        &x.dims().iter().map(|n| Some(*n as u32)).collect::<Vec<_>>(),
                    )
                    .input(
                        "h",
                        DType::F32,
                        &[Some(a as u32), Some(b as u32), Some(hidden as u32)],
                    )
                    .constant("w", &constants[0])
                    .constant("r", &constants[1])
                    .constant("b", &constants[2])
                    .constant("c", &start[1])
                    .constant("p", &dice.floats(&[d, 3 * hidden]));
                let how = [
                    ("hidden_size", Attribute::Int(hidden as i64)),
                    ("direction", text(direction)),
                    ("layout", Attribute::Int(layout)),
                    ("linear_before_reset", Attribute::Int(layout)),
                    ("clip", Attribute::Float(0.8)),
                ];
                let peeps = if variant == 2 { "p" } else { "" };
                let all = [
                    "x",
                    "w",
                    "r",
                    if variant == 1 { "" } else { "b" },
                    "",
                    "h",
                    "c",
                    peeps,
                ];
                let (from, to): (&[&str], &[&str]) = match operator {
                    "LSTM" => (&all, &["y", "y_h", "y_c"]),
                    _ => (&all[..6], &["y", "y_h"]),
                };
                model = model.node(operator, from, to, how);
                for name in to {
                    model = model.output(name);
                }
                let given = [("x".to_owned(), x), ("h".to_owned(), start[0].clone())].into();
                let compiled = agree(&model.finish(), 1, &given, FLOATS);
                assert!(kernels(&compiled).contains(&"gemm-f32"));
            }
        }
    }
    // Long sequences: the state of a batch's item begins anew, and errors do not grow.
    let model = ModelBuilder::new(14)
        .input("x", DType::F32, &[None, Some(40), Some(6)])
        .constant("w", &dice.floats(&[1, 36, 6]))
        .constant("r", &scaled(&mut dice, &[1, 36, 12], 0.3, 0.0))
        .node(
            "GRU",
            &["x", "w", "r"],
            &["y", "y_h"],
            [
                ("hidden_size", Attribute::Int(12)),
                ("layout", Attribute::Int(1)),
            ],
        )
        .output("y")
        .output("y_h")
        .finish();
    agree(
        &model,
        3,
        &[("x".to_owned(), dice.floats(&[3, 40, 6]))].into(),
        FLOATS,
    );
}

#[test]
fn integer_sums_with_constant_weights() {
    let mut dice = Dice(16);
    let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
    for (x_type, w_type, zero_known) in [
        (DType::U8, DType::I8, false),
        (DType::U8, DType::U8, true),
        (DType::I8, DType::I8, false),
    ] {
        let x_zero = dice.bytes(x_type, &[]);
        for (rows, columns, inner) in [(1, 3, 5), (5, 12, 17)] {
            let a = dice.bytes(x_type, &[2, rows, inner]);
            let b = dice.bytes(w_type, &[inner, columns]);
            let by_column = dice.bytes(w_type, &[columns]);
            let compiled = match zero_known {
                true => single(
                    "MatMulInteger",
                    &[a],
                    &[b, x_zero.clone(), by_column],
                    1,
                    [],
                ),
                false => {
                    let model = ModelBuilder::new(13)
                        .input(
                            "a",
                            x_type,
                            &[Some(2), Some(rows as u32), Some(inner as u32)],
                        )
                        .input("z", x_type, &[])
                        .constant("b", &b)
                        .constant("c", &by_column)
                        .node("MatMulInteger", &["a", "b", "z", "c"], &["y"], [])
                        .output("y")
                        .finish();
                    let given = [("a".to_owned(), a), ("z".to_owned(), x_zero.clone())].into();
                    agree(&model, 1, &given, 0.0)
                }
            };
            assert!(kernels(&compiled).contains(&"gemm-i8"));
        }
        for groups in [1, 6] {
            let w = dice.bytes(w_type, &[6, 6 / groups, 3, 2]);
            let model = ModelBuilder::new(13)
                .input("x", x_type, &[Some(2), Some(6), Some(5), Some(4)])
                .input("z", x_type, &[Some(1)])
                .constant("w", &w)
                .constant("c", &dice.bytes(w_type, &[6]))
                .node(
                    "ConvInteger",
                    &["x", "w", "z", "c"],
                    &["y"],
                    [
                        ("group", Attribute::Int(groups as i64)),
                        ("pads", ints(&[1, 0, 2, 1])),
                    ],
                )
                .output("y")
                .finish();
            let x = dice.bytes(x_type, &[2, 6, 5, 4]);
            let z = x_zero.reshaped(vec![1]).unwrap();
            agree(
                &model,
                1,
                &[("x".to_owned(), x), ("z".to_owned(), z)].into(),
                0.0,
            );
        }
    }
}

#[test]
fn a_range_is_found_and_quantised_to() {
    let mut dice = Dice(17);
    for (factor, shift) in [(3.0, 0.0), (1.0, 5.0), (0.5, -2.0), (0.0, 0.0)] {
        for outputs in [1, 3] {
            let x = scaled(&mut dice, &[5, 13], factor, shift);
            single("DynamicQuantizeLinear", &[x], &[], outputs, []);
        }
    }
    for dtype in [DType::I8, DType::U8, DType::I32] {
        let bytes = dice.bytes(DType::U8, &[4 * 11]).to_bytes();
        let n = bytes.len() / dtype.size_bytes();
        let x = common::tensor(dtype, vec![n], &bytes);
        single("Cast", &[x], &[], 1, [("to", Attribute::Int(1))]);
    }
}
