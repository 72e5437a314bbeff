//! Sums by equation, boxes, transforms: operators that are products or programs of their own.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Dice, FLOATS, Tensors, agree, kernels, longs, scalar};
use sandpiper_compiler::build::{Attribute, ModelBuilder};
use sandpiper_compiler::{Options, Tensor, compile};
use sandpiper_core::tensor::DType;

fn part() -> ModelBuilder {
    ModelBuilder::new(18)
}

fn given<const N: usize>(inputs: [(&str, Tensor); N]) -> Tensors {
    inputs.into_iter().map(|(n, t)| (n.to_owned(), t)).collect()
}

fn why_refused(model: &[u8]) -> String {
    compile(model, &Options::default()).unwrap_err().to_string()
}

/// A model of one operator over these inputs, all but the first `open` of them constants.
fn operator<const N: usize>(
    name: &str,
    inputs: &[Tensor],
    open: usize,
    attributes: [(&str, Attribute); N],
) -> Tensors {
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("i{i}")).collect();
    let mut model = ModelBuilder::new(18);
    for (i, (name, tensor)) in names.iter().zip(inputs).enumerate() {
        let dims: Vec<_> = tensor.dims().iter().map(|d| Some(*d as u32)).collect();
        model = match i < open {
            true => model.input(name, tensor.dtype(), &dims),
            false => model.constant(name, tensor),
        };
    }
    let from: Vec<&str> = names.iter().map(String::as_str).collect();
    let model = model
        .node(name, &from, &["y"], attributes)
        .output("y")
        .finish();
    let given: Tensors = names
        .iter()
        .cloned()
        .zip(inputs.iter().cloned())
        .take(open)
        .collect();
    let compiled = agree(&model, 1, &given, FLOATS);
    common::run(&compiled, 1, &given)
}

#[test]
fn sums_by_equation() {
    let mut dice = Dice(34);
    for (equation, shapes) in [
        ("ij->ji", vec![vec![3, 4]]),
        ("ij->", vec![vec![3, 4]]),
        ("ii->i", vec![vec![4, 4]]),
        ("i,j->ij", vec![vec![3], vec![5]]),
        ("ij,jk", vec![vec![3, 4], vec![4, 5]]),
        ("ij,jk->ki", vec![vec![3, 4], vec![4, 5]]),
        ("bhqd,bhkd->bhqk", vec![vec![2, 3, 5, 4], vec![2, 3, 6, 4]]),
        ("bqhd,bkhd->bhqk", vec![vec![2, 5, 3, 4], vec![2, 6, 3, 4]]),
        ("bhqk,bkhd->bqhd", vec![vec![2, 3, 5, 6], vec![2, 6, 3, 4]]),
        ("...ij,...jk->...ik", vec![vec![2, 3, 4, 5], vec![3, 5, 2]]),
        ("b...,b...->b", vec![vec![2, 3, 4], vec![2, 3, 4]]),
        ("ij,ik->jk", vec![vec![3, 4], vec![3, 5]]),
        ("ij,kj->i", vec![vec![3, 4], vec![5, 4]]),
        ("i,ij,j->", vec![vec![3], vec![3, 4], vec![4]]),
    ] {
        let inputs: Vec<Tensor> = shapes.iter().map(|s| dice.floats(s)).collect();
        let how = [("equation", Attribute::Text(equation.into()))];
        operator("Einsum", &inputs, inputs.len(), how);
    }
    // A batch goes through if it is first everywhere.
    let batched = |equation: &str| {
        part()
            .input("x", DType::F32, &[None, Some(3), Some(4)])
            .input("z", DType::F32, &[None, Some(5), Some(4)])
            .node(
                "Einsum",
                &["x", "z"],
                &["y"],
                [("equation", Attribute::Text(equation.into()))],
            )
            .output("y")
            .finish()
    };
    let inputs = given([
        ("x", dice.floats(&[2, 3, 4])),
        ("z", dice.floats(&[2, 5, 4])),
    ]);
    let compiled = agree(&batched("bid,bjd->bij"), 2, &inputs, FLOATS);
    assert!(kernels(&compiled).contains(&"matmul-f32"));
    for mixed in ["bid,bjd->ij", "bid,cjd->bcij", "bid,bjd->ijb"] {
        assert!(
            why_refused(&batched(mixed)).contains("mixes the items"),
            "{mixed}"
        );
    }
}

#[test]
fn boxes_are_selected() {
    let mut dice = Dice(35);
    for (most, centred) in [(3, 0), (20, 1)] {
        for score in [None, Some(0.2)] {
            let mut inputs = vec![
                common::scaled(&mut dice, &[2, 12, 4], 0.6, 0.5),
                dice.floats(&[2, 3, 12]),
                longs(&[most]),
                scalar(0.4),
            ];
            inputs.extend(score.map(scalar));
            let how = [("center_point_box", Attribute::Int(centred))];
            let rows = operator("NonMaxSuppression", &inputs, 2, how)
                .remove("y")
                .unwrap();
            let rows = rows.to_i64().unwrap();
            assert_eq!(rows.len(), 2 * 3 * 12.min(most as usize) * 3);
            // Rows that are not filled come last.
            let filled = rows.iter().position(|v| *v < 0).unwrap_or(rows.len());
            assert!(filled > 0 && rows[filled..].iter().all(|v| *v == -1));
        }
    }
    let model = part()
        .input("b", DType::F32, &[Some(1), Some(4), Some(4)])
        .input("s", DType::F32, &[Some(1), Some(1), Some(4)])
        .constant("n", &longs(&[2]))
        .node("NonMaxSuppression", &["b", "s", "n"], &["r"], [])
        .node("Cast", &["r"], &["y"], [("to", Attribute::Int(1))])
        .output("y")
        .finish();
    assert!(why_refused(&model).contains("depends on data"));
}

#[test]
fn transforms_are_products() {
    let mut dice = Dice(36);
    let int = Attribute::Int;
    for parts in [1, 2] {
        for (axis, dims) in [
            (1, vec![2, 9, parts]),
            (1, vec![2, 8, 3, parts]),
            (2, vec![2, 3, 7, parts]),
        ] {
            for length in [None, Some(5), Some(12)] {
                for (onesided, inverse) in [(0, 0), (1, 0), (0, 1)] {
                    let mut inputs = vec![dice.floats(&dims)];
                    inputs.extend(length.map(|n| longs(&[n]).reshaped(Vec::new()).unwrap()));
                    let how = [
                        ("axis", int(axis)),
                        ("onesided", int(onesided)),
                        ("inverse", int(inverse)),
                    ];
                    operator("DFT", &inputs, 1, how);
                }
            }
        }
    }
    for (parts, onesided) in [(1, 1), (1, 0), (2, 0)] {
        for periodic in [0, 1] {
            let model = part()
                .input("x", DType::F32, &[None, Some(50), Some(parts)])
                .constant("step", &longs(&[7]))
                .constant("size", &longs(&[16]))
                .node(
                    "HannWindow",
                    &["size"],
                    &["w"],
                    [("periodic", int(periodic))],
                )
                .node(
                    "STFT",
                    &["x", "step", "w"],
                    &["y"],
                    [("onesided", int(onesided))],
                )
                .output("y")
                .finish();
            let x = dice.floats(&[3, 50, parts as usize]);
            let compiled = agree(&model, 3, &given([("x", x)]), FLOATS);
            assert_eq!(kernels(&compiled), ["gemm-f32"]);
        }
    }
    let both = [("onesided", int(1)), ("inverse", int(1))];
    let model = part()
        .input("x", DType::F32, &[Some(1), Some(8), Some(2)])
        .node("DFT", &["x"], &["y"], both)
        .output("y")
        .finish();
    assert!(why_refused(&model).contains("one side"));
}

#[test]
fn grids_regions_and_columns() {
    let mut dice = Dice(37);
    let int = Attribute::Int;
    let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
    for corners in [0, 1] {
        for size in [&[2, 3, 4, 5][..], &[2, 3, 2, 4, 5]] {
            let rank = size.len() - 2;
            let inputs = [dice.floats(&[2, rank, rank + 1]), longs(size)];
            operator("AffineGrid", &inputs, 1, [("align_corners", int(corners))]);
        }
    }
    // Columns of 2 channels: 3 x 2 windows of 2 x 3 elements, some of them in padding.
    let how = [
        ("strides", ints(&[2, 3])),
        ("pads", ints(&[1, 1, 0, 1])),
        ("dilations", ints(&[1, 2])),
    ];
    let inputs = [dice.floats(&[2, 12, 6]), longs(&[5, 6]), longs(&[2, 3])];
    operator("Col2Im", &inputs, 1, how);
    let flat = [dice.floats(&[1, 4, 6]), longs(&[9]), longs(&[4])];
    operator("Col2Im", &flat, 1, []);
    for (mode, ratio) in [("avg", 2), ("max", 3)] {
        for coordinates in ["half_pixel", "output_half_pixel"] {
            let how = [
                ("mode", Attribute::Text(mode.into())),
                (
                    "coordinate_transformation_mode",
                    Attribute::Text(coordinates.into()),
                ),
                ("sampling_ratio", int(ratio)),
                ("output_height", int(3)),
                ("output_width", int(2)),
                ("spatial_scale", Attribute::Float(0.7)),
            ];
            let inputs = [
                dice.floats(&[2, 3, 6, 7]),
                common::scaled(&mut dice, &[5, 4], 6.0, 4.0),
                longs(&[0, 1, 1, 0, 9]),
            ];
            operator("RoiAlign", &inputs, 3, how);
        }
    }
    // Back to where the greatest were, also into more room.
    let model = |inputs: &[&str]| {
        part()
            .input("x", DType::F32, &[Some(1), Some(2), Some(4), Some(6)])
            .constant("room", &longs(&[1, 2, 5, 7]))
            .node(
                "MaxPool",
                &["x"],
                &["m", "i"],
                [("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2]))],
            )
            .node(
                "MaxUnpool",
                inputs,
                &["y"],
                [("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2]))],
            )
            .output("y")
            .finish()
    };
    let x = given([("x", dice.floats(&[1, 2, 4, 6]))]);
    agree(&model(&["m", "i"]), 1, &x, 0.0);
    agree(&model(&["m", "i", "room"]), 1, &x, 0.0);
}
