//! Random small graphs, operator by operator: generated code against the scalar evaluation.
//!
//! | result | tolerance |
//! |---|---|
//! | floats | 1e-4, relative to max(1, value) |
//! | QLinearConv, QGemm, QLinearMatMul, QLinearAdd, QLinearMul, QuantizeLinear, MaxPool, moves | exact |
//! | QLinearAveragePool, QLinearGlobalAveragePool, QLinearSoftmax | 1 step: means and exponentials are rounded in another order |
//! | QDQ patterns | 1 step: the evaluation sums in floats, the code in integers |
#![allow(clippy::unwrap_used)]

mod common;

use common::{Dice, agree, kernels, longs, scalar, zero};
use proptest::prelude::*;
use sandpiper_compiler::Tensor;
use sandpiper_compiler::build::{Attribute, ModelBuilder};
use sandpiper_compiler::tensor::Data;
use sandpiper_core::tensor::DType;

const FLOATS: f64 = 1e-4;

fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn ints(values: &[usize]) -> Attribute {
    Attribute::Ints(values.iter().map(|v| *v as i64).collect())
}

fn dims(channels: usize, spatial: &[usize]) -> Vec<Option<u32>> {
    let rest = std::iter::once(channels).chain(spatial.iter().copied());
    std::iter::once(None)
        .chain(rest.map(|d| Some(d as u32)))
        .collect()
}

fn shape(batch: usize, channels: usize, spatial: &[usize]) -> Vec<usize> {
    [&[batch, channels], spatial].concat()
}

/// A random window over one or two spatial dimensions.
struct Windowed {
    batch: usize,
    channels: usize,
    spatial: Vec<usize>,
    kernel: Vec<usize>,
    attributes: [(&'static str, Attribute); 4],
}

fn windowed(dice: &mut Dice, dilated: bool) -> Windowed {
    let rank = dice.within(1, 2);
    let mut some = |low, high| {
        (0..rank)
            .map(|_| dice.within(low, high))
            .collect::<Vec<_>>()
    };
    let (kernel, strides) = (some(1, 4), some(1, 3));
    let dilations = some(1, if dilated { 2 } else { 1 });
    let spatial = some(7, 13);
    let pads: Vec<usize> = (0..2 * rank)
        .map(|i| dice.below(kernel[i % rank]))
        .collect();
    Windowed {
        batch: dice.within(1, 3),
        channels: dice.within(1, 11),
        spatial,
        attributes: [
            ("kernel_shape", ints(&kernel)),
            ("strides", ints(&strides)),
            ("dilations", ints(&dilations)),
            ("pads", ints(&pads)),
        ],
        kernel,
    }
}

/// Groups and output channels: general, depthwise, or a few groups.
fn grouped(dice: &mut Dice, w: &mut Windowed) -> (usize, usize) {
    match dice.below(3) {
        0 => (1, dice.within(1, 19)),
        1 => (w.channels, w.channels),
        _ => {
            let groups = dice.within(2, 3);
            w.channels = groups * dice.within(1, 5);
            (groups, groups * dice.within(1, 10))
        }
    }
}

fn with_group(w: &Windowed, groups: usize) -> [(&'static str, Attribute); 5] {
    let [a, b, c, d] = w.attributes.clone();
    [a, b, c, d, ("group", Attribute::Int(groups as i64))]
}

fn eight(dice: &mut Dice) -> DType {
    dice.one(&[DType::I8, DType::U8])
}

fn any_zero(dice: &mut Dice, dtype: DType) -> Tensor {
    let value = dice.within(0, 255) as i32;
    zero(
        dtype,
        if dtype == DType::I8 {
            value - 128
        } else {
            value
        },
    )
}

/// Scales by output channel, and zero points of the weights.
fn weight_scales(dice: &mut Dice, dtype: DType, n: usize) -> (Tensor, Tensor) {
    let single = dice.below(2) == 0;
    let count = if single { 1 } else { n };
    let scales = (0..count)
        .map(|_| 0.002 + 0.004 * dice.float().abs())
        .collect();
    let zeros = if dice.below(2) == 0 {
        common::tensor(dtype, vec![count], &vec![0; count])
    } else {
        dice.bytes(dtype, &[count])
    };
    (Tensor::f32(&[count], scales).unwrap(), zeros)
}

fn biases(dice: &mut Dice, n: usize) -> Tensor {
    let bias = (0..n).map(|_| (dice.float() * 3000.0) as i32).collect();
    Tensor::new(vec![n], Data::I32(bias)).unwrap()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn conv(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let mut w = windowed(dice, true);
        let (groups, outputs) = grouped(dice, &mut w);
        let weights = dice.floats(&[&[outputs, w.channels / groups], w.kernel.as_slice()].concat());
        let last = dice.one(&["Relu", "Clip", "Identity"]);
        let onnx = ModelBuilder::new(17)
            .input("x", DType::F32, &dims(w.channels, &w.spatial))
            .constant("w", &weights)
            .constant("b", &dice.floats(&[outputs]))
            .constant("low", &scalar(-0.3))
            .node("Conv", &["x", "w", "b"], &["c"], with_group(&w, groups))
            .node(last, if last == "Clip" { &["c", "low"] } else { &["c"] }, &["y"], [])
            .output("y")
            .finish();
        let x = dice.floats(&shape(w.batch, w.channels, &w.spatial));
        agree(&onnx, w.batch as u32, &[("x".into(), x)].into(), FLOATS);
    }

    #[test]
    fn qlinear_conv(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let mut w = windowed(dice, true);
        let (groups, outputs) = grouped(dice, &mut w);
        let (x_type, w_type) = (eight(dice), eight(dice));
        let weights = dice.bytes(w_type, &[&[outputs, w.channels / groups], w.kernel.as_slice()].concat());
        let (scales, zeros) = weight_scales(dice, w_type, outputs);
        let onnx = ModelBuilder::new(17)
            .input("x", x_type, &dims(w.channels, &w.spatial))
            .constant("xs", &scalar(0.02))
            .constant("xz", &any_zero(dice, x_type))
            .constant("w", &weights)
            .constant("ws", &scales)
            .constant("wz", &zeros)
            .constant("ys", &scalar(0.05))
            .constant("yz", &any_zero(dice, x_type))
            .constant("b", &biases(dice, outputs))
            .node("QLinearConv", &["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], &["y"], with_group(&w, groups))
            .output("y")
            .finish();
        let x = dice.bytes(x_type, &shape(w.batch, w.channels, &w.spatial));
        agree(&onnx, w.batch as u32, &[("x".into(), x)].into(), 0.0);
    }

    #[test]
    fn gemm_and_matmul(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let (batch, inner, columns) = (dice.within(1, 5), dice.within(1, 40), dice.within(1, 21));
        let transposed = dice.below(2);
        let sizes = if transposed == 1 { [columns, inner] } else { [inner, columns] };
        let onnx = ModelBuilder::new(13)
            .input("x", DType::F32, &[None, Some(inner as u32)])
            .input("z", DType::F32, &[None, Some(3), Some(inner as u32)])
            .constant("w", &dice.floats(&sizes))
            .constant("v", &dice.floats(&[inner, columns]))
            .constant("b", &dice.floats(&[columns]))
            .constant("f", &dice.floats(&[columns]))
            .node("Gemm", &["x", "w", "b"], &["g"], [
                ("transB", Attribute::Int(transposed as i64)),
                ("alpha", Attribute::Float(0.5)),
                ("beta", Attribute::Float(2.0)),
            ])
            .node("Mul", &["g", "f"], &["m"], [])
            .node("Add", &["b", "m"], &["a"], [])
            .node("Relu", &["a"], &["y"], [])
            .node("MatMul", &["z", "v"], &["u"], [])
            .output("y")
            .output("u")
            .finish();
        let inputs = [("x".into(), dice.floats(&[batch, inner])), ("z".into(), dice.floats(&[batch, 3, inner]))];
        let compiled = agree(&onnx, batch as u32, &inputs.into(), FLOATS);
        prop_assert_eq!(kernels(&compiled), ["gemm-f32", "gemm-f32"]);
    }

    #[test]
    fn quantised_products(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let (batch, inner, columns) = (dice.within(1, 5), dice.within(1, 40), dice.within(1, 21));
        let (x_type, w_type) = (eight(dice), eight(dice));
        let transposed = dice.below(2);
        let sizes = if transposed == 1 { [columns, inner] } else { [inner, columns] };
        let (scales, zeros) = weight_scales(dice, w_type, columns);
        let onnx = ModelBuilder::new(13)
            .input("x", x_type, &[None, Some(inner as u32)])
            .constant("xs", &scalar(0.02))
            .constant("xz", &any_zero(dice, x_type))
            .constant("w", &dice.bytes(w_type, &sizes))
            .constant("v", &dice.bytes(w_type, &[inner, columns]))
            .constant("ws", &scales)
            .constant("wz", &zeros)
            .constant("c", &biases(dice, columns))
            .constant("ys", &scalar(0.04))
            .constant("yz", &any_zero(dice, x_type))
            .node("com.microsoft:QGemm", &["x", "xs", "xz", "w", "ws", "wz", "c", "ys", "yz"], &["y"], [
                ("transB", Attribute::Int(transposed as i64)),
            ])
            .node("com.microsoft:QGemm", &["x", "xs", "xz", "v", "ws", "wz", "c"], &["f"], [])
            .node("QLinearMatMul", &["x", "xs", "xz", "v", "ws", "wz", "ys", "yz"], &["m"], [])
            .output("y")
            .output("f")
            .output("m")
            .finish();
        let x = dice.bytes(x_type, &[batch, inner]);
        agree(&onnx, batch as u32, &[("x".into(), x)].into(), 0.0);
    }

    #[test]
    fn pools(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let w = windowed(dice, false);
        let (dtype, count) = (eight(dice), dice.below(2) as i64);
        let [kernel, strides, _, pads] = w.attributes.clone();
        let mean = [kernel.clone(), strides.clone(), pads.clone(), ("count_include_pad", Attribute::Int(count))];
        let max = [kernel, strides, pads];
        let quantized = ["q", "xs", "xz", "ys", "yz"];
        let onnx = ModelBuilder::new(17)
            .input("x", DType::F32, &dims(w.channels, &w.spatial))
            .input("q", dtype, &dims(w.channels, &w.spatial))
            .constant("xs", &scalar(0.03))
            .constant("xz", &any_zero(dice, dtype))
            .constant("ys", &scalar(0.02))
            .constant("yz", &any_zero(dice, dtype))
            .node("AveragePool", &["x"], &["mean"], mean.clone())
            .node("MaxPool", &["x"], &["max"], max)
            .node("GlobalAveragePool", &["x"], &["all"], [])
            .node("com.microsoft:QLinearAveragePool", &quantized, &["qmean"], mean)
            .node("com.microsoft:QLinearGlobalAveragePool", &quantized, &["qall"], [])
            .output("mean")
            .output("max")
            .output("all")
            .output("qmean")
            .output("qall")
            .finish();
        let shape = shape(w.batch, w.channels, &w.spatial);
        let inputs = [("x".into(), dice.floats(&shape)), ("q".into(), dice.bytes(dtype, &shape))].into();
        let options = sandpiper_compiler::Options::default();
        let compiled = sandpiper_compiler::compile(&onnx, &options).unwrap();
        let expected = sandpiper_compiler::evaluate(&onnx, &options, &inputs).unwrap();
        for (name, found) in common::run(&compiled, w.batch as u32, &inputs) {
            let tolerance = if name.starts_with('q') { 1.0 } else { FLOATS };
            let far = common::difference(&found, &expected[&name]);
            prop_assert!(far <= tolerance, "{name} differs by {far}");
        }
    }

    #[test]
    fn elementwise(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let (batch, c, h, w) = (dice.within(1, 3), dice.within(1, 9), dice.within(1, 5), dice.within(1, 7));
        let side = |n: usize, dice: &mut Dice| if dice.below(2) == 0 { 1 } else { n };
        let first = dice.below(4);
        let other: Vec<usize> = [1, c, h, w][first..].iter().map(|n| side(*n, dice)).collect();
        let onnx = ModelBuilder::new(17)
            .input("x", DType::F32, &dims(c, &[h, w]))
            .input("z", DType::F32, &dims(c, &[h, w]))
            .constant("k", &dice.floats(&other))
            // A convolution in between puts the channels last.
            .constant("one", &dice.floats(&[c, c, 1, 1]))
            .node("Conv", &["z", "one"], &["v"], [])
            .node("Mul", &["x", "k"], &["a"], [])
            .node("Add", &["a", "v"], &["b"], [])
            .node("Sub", &["k", "b"], &["d"], [])
            .node("Relu", &["d"], &["y"], [])
            .output("y")
            .finish();
        let shape = [batch, c, h, w];
        let inputs = [("x".into(), dice.floats(&shape)), ("z".into(), dice.floats(&shape))];
        agree(&onnx, batch as u32, &inputs.into(), FLOATS);
    }

    #[test]
    fn quantised_elementwise(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let (batch, n, dtype) = (dice.within(1, 3), dice.within(1, 37), eight(dice));
        let names = ["q", "qs", "qz", "k", "ks", "kz", "ys", "yz"];
        let onnx = ModelBuilder::new(17)
            .input("x", DType::F32, &[None, Some(n as u32)])
            .constant("qs", &scalar(0.01))
            .constant("qz", &any_zero(dice, dtype))
            .constant("k", &dice.bytes(dtype, &[n]))
            .constant("ks", &scalar(0.013))
            .constant("kz", &any_zero(dice, dtype))
            .constant("ys", &scalar(0.017))
            .constant("yz", &any_zero(dice, dtype))
            .node("QuantizeLinear", &["x", "qs", "qz"], &["q"], [])
            .node("com.microsoft:QLinearAdd", &names, &["a"], [])
            .node("com.microsoft:QLinearMul", &names, &["m"], [])
            .node("DequantizeLinear", &["a", "ys", "yz"], &["d"], [])
            .output("q")
            .output("a")
            .output("m")
            .output("d")
            .finish();
        let x = dice.floats(&[batch, n]);
        agree(&onnx, batch as u32, &[("x".into(), x)].into(), 0.0);
    }

    #[test]
    fn softmax(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let (batch, rows, n) = (dice.within(1, 3), dice.within(1, 4), dice.within(1, 19));
        let (opset, factor) = (dice.one(&[11, 13]), dice.one(&[1.0, 30.0]));
        let onnx = ModelBuilder::new(opset)
            .input("x", DType::F32, &[None, Some(rows as u32), Some(n as u32)])
            .constant("f", &scalar(factor))
            .node("Mul", &["x", "f"], &["m"], [])
            .node("Softmax", &["m"], &["y"], [])
            .output("y")
            .finish();
        let x = dice.floats(&[batch, rows, n]);
        agree(&onnx, batch as u32, &[("x".into(), x)].into(), 1e-6);
    }

    /// Between quantised values, along an axis that the integer kernel does not take.
    #[test]
    fn softmax_along_any_axis_between_quantised_values(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let (rows, len) = (dice.within(2, 9), dice.within(2, 9));
        let axis = dice.one(&[1, 2]);
        let onnx = ModelBuilder::new(17)
            .input("x", DType::F32, &[None, Some(rows as u32), Some(len as u32)])
            .constant("xs", &scalar(0.02))
            .constant("ys", &scalar(1.0 / 256.0))
            .constant("z", &zero(DType::U8, 0))
            .node("QuantizeLinear", &["x", "xs", "z"], &["xq"], [])
            .node("DequantizeLinear", &["xq", "xs", "z"], &["xd"], [])
            .node("Softmax", &["xd"], &["s"], [("axis", Attribute::Int(axis))])
            .node("QuantizeLinear", &["s", "ys", "z"], &["yq"], [])
            .output("yq")
            .finish();
        let x = dice.floats(&[1, rows, len]);
        agree(&onnx, 1, &[("x".into(), x)].into(), 1.0);
    }

    #[test]
    fn quantised_softmax(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let (batch, n, dtype) = (dice.within(1, 3), dice.within(1, 19), eight(dice));
        let onnx = ModelBuilder::new(13)
            .input("x", dtype, &[None, Some(n as u32)])
            .constant("xs", &scalar(dice.one(&[0.01, 0.2])))
            .constant("xz", &any_zero(dice, dtype))
            .constant("ys", &scalar(1.0 / 256.0))
            .constant("yz", &zero(dtype, if dtype == DType::I8 { -128 } else { 0 }))
            .node("com.microsoft:QLinearSoftmax", &["x", "xs", "xz", "ys", "yz"], &["y"], [("opset", Attribute::Int(13))])
            .output("y")
            .finish();
        let x = dice.bytes(dtype, &[batch, n]);
        agree(&onnx, batch as u32, &[("x".into(), x)].into(), 1.0);
    }

    #[test]
    fn moves(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let (batch, c, h, w) = (dice.within(1, 3), dice.within(2, 6), dice.within(2, 6), dice.within(2, 20));
        let dtype = dice.one(&[DType::F32, DType::I8, DType::I64]);
        let perm = dice.one(&[[0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 3, 2], [0, 1, 2, 3]]);
        let (start, step) = dice.one(&[(0, 1), (1, 1), (1, 2), (-1, -1), (-2, -2)]);
        let end = if step > 0 { i64::MAX } else { i64::MIN };
        let onnx = ModelBuilder::new(17)
            .input("x", dtype, &dims(c, &[h, w]))
            .constant("start", &longs(&[start]))
            .constant("end", &longs(&[end]))
            .constant("axis", &longs(&[dice.within(1, 3) as i64]))
            .constant("step", &longs(&[step]))
            .constant("pick", &longs(&[1, 0, -1]))
            .constant("flat", &longs(&[0, -1]))
            .constant("two", &longs(&[2]))
            .node("Transpose", &["x"], &["t"], [("perm", Attribute::Ints(perm.to_vec()))])
            .node("Slice", &["x", "start", "end", "axis", "step"], &["s"], [])
            .node("Gather", &["x", "pick"], &["g"], [("axis", Attribute::Int(dice.within(1, 3) as i64))])
            .node("Reshape", &["t", "flat"], &["r"], [])
            .node("Unsqueeze", &["r", "two"], &["u"], [])
            .node("Squeeze", &["u", "two"], &["q"], [])
            .output("t")
            .output("s")
            .output("g")
            .output("q")
            .finish();
        let x = common::tensor(dtype, vec![batch, c, h, w], &dice.bytes(DType::U8, &[batch, c, h, w, dtype.size_bytes()]).to_bytes());
        agree(&onnx, batch as u32, &[("x".into(), x)].into(), 0.0);
    }

    #[test]
    fn concat(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let (batch, axis, dtype) = (dice.within(1, 3), dice.within(1, 3), dice.one(&[DType::F32, DType::U8]));
        let mut first = [batch, dice.within(1, 5), dice.within(1, 5), dice.within(1, 20)];
        let mut second = first;
        second[axis] = dice.within(1, 6);
        let mut some = |dims: &[usize]| {
            let bytes = dice.bytes(DType::U8, &[dims, &[dtype.size_bytes()]].concat());
            common::tensor(dtype, dims.to_vec(), &bytes.to_bytes())
        };
        let (a, b) = (some(&first), some(&second));
        first[0] = 1;
        let onnx = ModelBuilder::new(17)
            .input("a", dtype, &dims(first[1], &first[2..]))
            .input("b", dtype, &dims(second[1], &second[2..]))
            .node("Concat", &["a", "b", "a"], &["y"], [("axis", Attribute::Int(axis as i64))])
            .output("y")
            .finish();
        let compiled = agree(&onnx, batch as u32, &[("a".into(), a), ("b".into(), b)].into(), 0.0);
        prop_assert_eq!(kernels(&compiled), ["concat"; 3]);
    }

    #[test]
    fn qdq_networks(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let (batch, c, n) = (dice.within(1, 3), dice.within(1, 9), dice.within(8, 16));
        let (k, m, dtype) = (dice.within(1, 3), dice.within(1, 12), eight(dice));
        let low = if dtype == DType::I8 { -128 } else { 0 };
        // With a zero point above the least value, the limits are not implied by saturation.
        let y_zero = low + dice.one(&[0, 100]);
        let cut = dice.one(&["Relu", "Clip"]);
        let (scales, _) = weight_scales(dice, DType::I8, m);
        let scales = Tensor::f32(&[m], (0..m).map(|i| scales.as_f32().unwrap()[i % scales.len()]).collect()).unwrap();
        let bias_scales: Vec<f32> = scales.as_f32().unwrap().iter().map(|s| s * 0.01).collect();
        let zeros = |n: usize, dtype: DType| common::tensor(dtype, vec![n], &vec![0; n * dtype.size_bytes()]);
        let onnx = ModelBuilder::new(17)
            .input("x", DType::F32, &dims(c, &[n]))
            .constant("s", &scalar(0.01))
            .constant("z", &zero(dtype, low + 128))
            .constant("w", &dice.bytes(DType::I8, &[m, c, k]))
            .constant("ws", &scales)
            .constant("wz", &zeros(m, DType::I8))
            .constant("b", &biases(dice, m))
            .constant("bs", &Tensor::f32(&[m], bias_scales).unwrap())
            .constant("bz", &zeros(m, DType::I32))
            .constant("ys", &scalar(0.04))
            .constant("yz", &zero(dtype, y_zero))
            .constant("least", &scalar(-0.5))
            .constant("most", &scalar(2.0))
            .node("QuantizeLinear", &["x", "s", "z"], &["xq"], [])
            .node("DequantizeLinear", &["xq", "s", "z"], &["xd"], [])
            .node("DequantizeLinear", &["w", "ws", "wz"], &["wd"], [("axis", Attribute::Int(0))])
            .node("DequantizeLinear", &["b", "bs", "bz"], &["bd"], [("axis", Attribute::Int(0))])
            .node("Conv", &["xd", "wd", "bd"], &["c"], [("pads", ints(&[k / 2, k / 2]))])
            .node(cut, if cut == "Clip" { &["c", "least", "most"] } else { &["c"] }, &["r"], [])
            .node("QuantizeLinear", &["r", "ys", "yz"], &["q"], [])
            .node("DequantizeLinear", &["q", "ys", "yz"], &["d"], [])
            .node("Flatten", &["d"], &["f"], [])
            .node("QuantizeLinear", &["f", "ys", "yz"], &["y"], [])
            .output("y")
            .finish();
        let x = dice.floats(&[batch, c, n]);
        let compiled = agree(&onnx, batch as u32, &[("x".into(), x)].into(), 1.0);
        prop_assert!(kernels(&compiled).contains(&"conv-i8") || kernels(&compiled).contains(&"depthwise-i8"));
        prop_assert!(!kernels(&compiled).contains(&"dequantize"));
    }

    #[test]
    fn batch_norm(seed in 1u64..) {
        let dice = &mut Dice(seed);
        let (batch, c, n) = (dice.within(1, 3), dice.within(1, 9), dice.within(3, 9));
        let variance = Tensor::f32(&[c], (0..c).map(|_| 0.5 + dice.float().abs()).collect()).unwrap();
        let onnx = ModelBuilder::new(17)
            .input("x", DType::F32, &dims(c, &[n]))
            .constant("w", &dice.floats(&[c, c, 3]))
            .constant("scale", &dice.floats(&[c]))
            .constant("bias", &dice.floats(&[c]))
            .constant("mean", &dice.floats(&[c]))
            .constant("var", &variance)
            .node("BatchNormalization", &["x", "scale", "bias", "mean", "var"], &["a"], [])
            .node("Conv", &["a", "w"], &["b"], [])
            .node("BatchNormalization", &["b", "scale", "bias", "mean", "var"], &["d"], [])
            .node("Relu", &["d"], &["y"], [])
            .output("y")
            .finish();
        let x = dice.floats(&[batch, c, n]);
        let compiled = agree(&onnx, batch as u32, &[("x".into(), x)].into(), FLOATS);
        prop_assert_eq!(kernels(&compiled).iter().filter(|k| **k == "batch-norm").count(), 1);
    }
}
