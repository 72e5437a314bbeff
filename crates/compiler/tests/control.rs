//! If, Loop, Scan: what is imported in place of them, against their evaluation turn by turn.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Dice, FLOATS, Tensors, agree, kernels, longs, scalar, tensor};
use sandpiper_compiler::build::{Attribute, ModelBuilder};
use sandpiper_compiler::{Options, Tensor, compile};
use sandpiper_core::tensor::DType;

fn graph(builder: ModelBuilder) -> Attribute {
    Attribute::Graph(Box::new(builder))
}

fn part() -> ModelBuilder {
    ModelBuilder::new(17)
}

fn truth(value: bool) -> Tensor {
    tensor(DType::Bool, Vec::new(), &[u8::from(value)])
}

fn given<const N: usize>(inputs: [(&str, Tensor); N]) -> Tensors {
    inputs.into_iter().map(|(n, t)| (n.to_owned(), t)).collect()
}

fn why_refused(model: &[u8]) -> String {
    compile(model, &Options::default()).unwrap_err().to_string()
}

/// y = x + 1 if c, else x * 2; both branches read x from around them.
fn branching(model: ModelBuilder) -> ModelBuilder {
    let then = part()
        .constant("one", &scalar(1.0))
        .node("Add", &["x", "one"], &["a"], [])
        .output("a");
    let other = part()
        .constant("one", &scalar(2.0))
        .node("Mul", &["x", "one"], &["a"], [])
        .output("a");
    let branches = [("then_branch", graph(then)), ("else_branch", graph(other))];
    model.node("If", &["c"], &["y"], branches).output("y")
}

#[test]
fn a_branch_is_chosen_when_compiled_or_when_run() {
    let mut dice = Dice(31);
    let x = dice.floats(&[3, 4]);
    let input = || part().input("x", DType::F32, &[None, Some(4)]);
    for value in [true, false] {
        let known = branching(input().constant("c", &truth(value))).finish();
        let compiled = agree(&known, 3, &given([("x", x.clone())]), 0.0);
        assert_eq!(compiled.report.steps.len(), 1, "only one branch is left");
        for dims in [&[][..], &[Some(1)]] {
            let open = branching(input().input("c", DType::Bool, dims)).finish();
            let c = truth(value).reshaped(vec![1; dims.len()]).unwrap();
            let both = agree(&open, 3, &given([("x", x.clone()), ("c", c)]), 0.0);
            assert!(kernels(&both).contains(&"where"));
        }
    }
    // Results of different shapes cannot be chosen from at run time.
    let then = part().node("Transpose", &["x"], &["a"], []).output("a");
    let other = part().node("Neg", &["x"], &["a"], []).output("a");
    let model = part()
        .input("x", DType::F32, &[Some(2), Some(3)])
        .input("c", DType::Bool, &[])
        .node(
            "If",
            &["c"],
            &["y"],
            [("then_branch", graph(then)), ("else_branch", graph(other))],
        )
        .output("y")
        .finish();
    assert!(why_refused(&model).contains("the two results differ"));
}

/// A Loop that carries s, to which it adds x and its turn; goes on while the sum of s is below a bound
/// that is a constant or an input.
fn looping(model: ModelBuilder, turns: &[i64], by_turn: bool) -> Vec<u8> {
    let mut body = part()
        .input("i", DType::I64, &[])
        .input("go", DType::Bool, &[])
        .input("s", DType::F32, &[Some(2), Some(3)])
        .constant("no_axes", &longs(&[0, 1]))
        .node("Cast", &["i"], &["f"], [("to", Attribute::Int(1))])
        .node("Add", &["s", "x"], &["t"], [])
        .node("Add", &["t", "f"], &["u"], [])
        .node(
            "ReduceMax",
            &["u"],
            &["m"],
            [("keepdims", Attribute::Int(0))],
        )
        .node("Less", &["m", "bound"], &["on"], [])
        .output("on")
        .output("u");
    if by_turn {
        body = body.output("t");
    }
    let to: &[&str] = if by_turn { &["y", "rows"] } else { &["y"] };
    let model = model
        .constant("n", &longs(turns).reshaped(Vec::new()).unwrap())
        .constant("yes", &truth(true))
        .node("Loop", &["n", "yes", "x"], to, [("body", graph(body))]);
    to.iter().fold(model, |m, name| m.output(name)).finish()
}

#[test]
fn loops_are_unrolled_and_may_end_early() {
    let mut dice = Dice(32);
    let x = || part().input("x", DType::F32, &[Some(2), Some(3)]);
    for bound in [-9.0, 2.5, 1e9] {
        let model = looping(x().input("bound", DType::F32, &[]), &[6], false);
        let inputs = given([("x", dice.floats(&[2, 3])), ("bound", scalar(bound))]);
        agree(&model, 1, &inputs, FLOATS);
    }
    // How many rows there are would be known only at run time.
    let open = looping(x().input("bound", DType::F32, &[]), &[6], true);
    assert!(why_refused(&open).contains("known only at run time"));
    // A counted loop: its condition is a constant.
    let body = part()
        .input("i", DType::I64, &[])
        .input("go", DType::Bool, &[])
        .input("s", DType::F32, &[Some(3)])
        .node("Add", &["s", "x"], &["t"], [])
        .node("Neg", &["t"], &["row"], [])
        .node("Identity", &["go"], &["on"], [])
        .output("on")
        .output("t")
        .output("row");
    let counted = |turns: i64| {
        part()
            .input("x", DType::F32, &[Some(3)])
            .constant("n", &longs(&[turns]))
            .node(
                "Loop",
                &["n", "", "x"],
                &["y", "rows"],
                [("body", graph(body.clone()))],
            )
            .output("y")
            .output("rows")
            .finish()
    };
    let inputs = given([("x", dice.floats(&[3]))]);
    agree(&counted(4), 1, &inputs, 0.0);
    assert!(why_refused(&counted(1025)).contains("1024"));
}

#[test]
fn scans_cut_join_and_carry() {
    let mut dice = Dice(33);
    let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
    for (axes, back) in [([0, 0], [0, 0]), ([1, 1], [1, 0]), ([-1, -1], [0, 1])] {
        let sum = part()
            .input("s", DType::F32, &[Some(4)])
            .input("a", DType::F32, &[Some(4)])
            .node("Add", &["s", "a"], &["t"], [])
            .node("Mul", &["t", "w"], &["row"], [])
            .output("t")
            .output("row");
        let dims = if axes[0] == 0 { [5, 4] } else { [4, 5] };
        let model = part()
            .input("s", DType::F32, &[Some(4)])
            .input("x", DType::F32, &dims.map(Some))
            .constant("w", &dice.floats(&[4]))
            .node(
                "Scan",
                &["s", "x"],
                &["end", "rows"],
                [
                    ("body", graph(sum)),
                    ("num_scan_inputs", Attribute::Int(1)),
                    ("scan_input_axes", ints(&axes[..1])),
                    ("scan_output_axes", ints(&axes[1..])),
                    ("scan_input_directions", ints(&back[..1])),
                    ("scan_output_directions", ints(&back[1..])),
                ],
            )
            .output("end")
            .output("rows")
            .finish();
        let x = dice.floats(&dims.map(|d| d as usize));
        let inputs = given([("s", dice.floats(&[4])), ("x", x)]);
        agree(&model, 1, &inputs, FLOATS);
    }
}

#[test]
fn loops_within_loops_are_bounded_together() {
    // A million turns that compute nothing but constants.
    let header = |b: ModelBuilder| b.input("i", DType::I64, &[]).input("go", DType::Bool, &[]);
    let inner = header(part())
        .input("s", DType::F32, &[])
        .node("Neg", &["s"], &["t"], [])
        .output("go")
        .output("t");
    let outer = header(part())
        .input("s", DType::F32, &[])
        .node("Loop", &["n", "", "s"], &["t"], [("body", graph(inner))])
        .output("go")
        .output("t");
    let model = part()
        .input("x", DType::F32, &[Some(1)])
        .constant("n", &longs(&[1000]))
        .constant("zero", &scalar(0.0))
        .node("Loop", &["n", "", "zero"], &["s"], [("body", graph(outer))])
        .node("Add", &["x", "s"], &["y"], [])
        .output("y")
        .finish();
    assert!(why_refused(&model).contains("loops unrolled"));
}
