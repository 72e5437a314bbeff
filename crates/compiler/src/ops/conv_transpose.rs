//! ConvTranspose over one or two spatial dimensions: each place of the result gathers the inputs whose
//! windows cover it.

use super::{Call, Operator};
use crate::kernels::{Bin, Ex, Scalar, index};
use crate::lower::window::image;
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// ConvTranspose.
pub(crate) struct ConvTranspose;

/// Shapes; one spatial dimension is one row.
struct Plan {
    /// Images, groups, input channels and output channels of a group.
    sizes: [usize; 4],
    input: [usize; 2],
    out: [usize; 2],
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    begin: [usize; 2],
    dims: Vec<usize>,
}

fn rows(v: &[usize], first: usize) -> [usize; 2] {
    match v {
        [w] => [first, *w],
        v => [v[0], v[1]],
    }
}

fn plan(attrs: &Attrs<'_>, x: &[usize], w: &[usize]) -> Result<Plan, String> {
    let rank = x.len() - 2;
    let groups = usize::try_from(attrs.int("group", 1)).unwrap_or(0);
    if w.len() != x.len() || groups == 0 || w[0] != x[1] || !x[1].is_multiple_of(groups) {
        return Err(format!(
            "an input of {x:?}, weights of {w:?}, {groups} groups"
        ));
    }
    let list = |name: &str, n: usize, default: usize| -> Result<Vec<usize>, String> {
        let list = attrs.sizes(name)?.unwrap_or_else(|| vec![default; n]);
        match list.len() == n {
            true => Ok(list),
            false => Err(format!("{name} needs {n} entries")),
        }
    };
    let (strides, dilations) = (list("strides", rank, 1)?, list("dilations", rank, 1)?);
    let (more, pads) = (list("output_padding", rank, 0)?, list("pads", 2 * rank, 0)?);
    if strides.contains(&0) || dilations.contains(&0) {
        return Err("a stride or dilation of 0".into());
    }
    let wanted = attrs.sizes("output_shape")?;
    let auto = attrs.text("auto_pad", "NOTSET");
    let (mut out, mut begin) = (Vec::new(), Vec::new());
    for i in 0..rank {
        let full = strides[i] * (x[i + 2] - 1) + more[i] + (w[i + 2] - 1) * dilations[i] + 1;
        let target = match (&wanted, auto.as_str()) {
            (Some(shape), _) => Some(shape[shape.len().saturating_sub(rank) + i]),
            (None, "SAME_UPPER" | "SAME_LOWER") => Some(x[i + 2] * strides[i]),
            (None, "NOTSET" | "VALID" | "") => None,
            (None, other) => return Err(format!("auto_pad `{other}` is not known")),
        };
        let (before, total) = match target {
            Some(target) => {
                let total = full
                    .checked_sub(target)
                    .ok_or("the output is larger than what there is")?;
                let small = total / 2;
                (
                    if auto == "SAME_UPPER" {
                        small
                    } else {
                        total - small
                    },
                    total,
                )
            }
            None => (pads[i], pads[i] + pads[i + rank]),
        };
        begin.push(before);
        out.push(
            full.checked_sub(total)
                .filter(|n| *n > 0)
                .ok_or("nothing is left")?,
        );
    }
    let channels = w[1] * groups;
    Ok(Plan {
        sizes: [x[0], groups, x[1] / groups, w[1]],
        input: rows(&x[2..], 1),
        out: rows(&out, 1),
        kernel: rows(&w[2..], 1),
        strides: rows(&strides, 1),
        dilations: rows(&dilations, 1),
        begin: rows(&begin, 0),
        dims: [&[x[0], channels], &out[..]].concat(),
    })
}

fn of_node(node: &NodeView<'_>) -> Result<Plan, String> {
    let plan = plan(
        &node.attrs(),
        &image(node.float(0)?)?,
        &node.float(1)?.item(),
    )?;
    if node.ty(1)?.has_batch() {
        return Err("its weights have a batch; give them a fixed shape".into());
    }
    if let Some(bias) = node.optional(2)
        && bias.ty.elements() != plan.dims[1]
    {
        return Err("the bias does not have an entry per output channel".into());
    }
    Ok(plan)
}

impl Operator for ConvTranspose {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let mut dims = fixed(&of_node(node)?.dims);
        dims[0] = node.ty(0)?.dims[0];
        Ok(vec![Type::new(DType::F32, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, w) = (call.input(0)?, call.input(1)?);
        let p = plan(&call.attrs(), x.dims(), w.dims())?;
        let [images, groups, inputs, outputs] = p.sizes;
        let channels = groups * outputs;
        let bias = call.optional(2).map(Tensor::as_f32).transpose()?;
        let (xs, ws) = (x.as_f32()?, w.as_f32()?);
        let y_dims = [images, channels, p.out[0], p.out[1]];
        let start = |m: usize| bias.map_or(0.0, |b| f64::from(b[m]));
        let mut y: Vec<f64> = places(&y_dims).map(|place| start(place[1])).collect();
        // Scattered, as it is defined: every input adds its weights to a window of the result.
        for at in places(&[images, groups, inputs, p.input[0], p.input[1]]) {
            let c = at[1] * inputs + at[2];
            let value = f64::from(
                xs[ravel(
                    &[at[0], c, at[3], at[4]],
                    &[images, groups * inputs, p.input[0], p.input[1]],
                )],
            );
            for tap in places(&[outputs, p.kernel[0], p.kernel[1]]) {
                let to = [0, 1].map(|i| {
                    (at[3 + i] * p.strides[i] + tap[1 + i] * p.dilations[i]).checked_sub(p.begin[i])
                });
                let [Some(row), Some(column)] = to else {
                    continue;
                };
                if row < p.out[0] && column < p.out[1] {
                    let weight = ws[ravel(
                        &[c, tap[0], tap[1], tap[2]],
                        &[groups * inputs, outputs, p.kernel[0], p.kernel[1]],
                    )];
                    y[ravel(&[at[0], at[1] * outputs + tap[0], row, column], &y_dims)] +=
                        value * f64::from(weight);
                }
            }
        }
        Ok(vec![Tensor::f32(
            &p.dims,
            y.into_iter().map(|v| v as f32).collect(),
        )?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let p = of_node(&node)?;
        let [images, groups, inputs, outputs] = p.sizes;
        let [src, weights] = [cx.read(0, Layout::Plain)?, cx.read(1, Layout::Plain)?];
        let bias = node
            .optional(2)
            .is_some()
            .then(|| cx.read(2, Layout::Plain))
            .transpose()?;
        let dst = cx.write(Layout::Plain)?;
        let dims = [images, groups, outputs, p.out[0], p.out[1]];
        let dense = Layout::Plain.strides(&dims);
        let x_strides = Layout::Plain.strides(&[images, groups, inputs, p.input[0], p.input[1]]);
        let w_strides = Layout::Plain.strides(&[groups, inputs, outputs, p.kernel[0], p.kernel[1]]);
        let float = DType::F32;
        let mut program = Scalar::new("conv-transpose");
        program.nest(&dims, &mut |s, place| {
            let start = match bias {
                Some(bias) => s.load(bias, float, index(&place[1..3], &[outputs, 1])),
                None => Ex::Real(0.0),
            };
            let sum = s.var(start);
            s.nest(&p.kernel, &mut |s, tap| {
                let (mut covered, mut at) = (Ex::Int(1), Vec::new());
                for i in 0..2 {
                    let step = tap[i].clone() * Ex::Int(p.dilations[i] as i32);
                    let far = s.once(place[3 + i].clone() + Ex::Int(p.begin[i] as i32) - step);
                    let stride = Ex::Int(p.strides[i] as i32);
                    let row = s.once(far.clone().bin(Bin::Div, stride.clone()));
                    let cut = s.once(
                        row.clone()
                            .max(Ex::Int(0))
                            .min(Ex::Int(p.input[i] as i32 - 1)),
                    );
                    let exact = (cut.clone() * stride).eq(far);
                    covered = covered.bin(Bin::And, exact);
                    at.push(cut);
                }
                let covered = s.once(covered);
                s.each(inputs, |s, c| {
                    let from = [
                        place[0].clone(),
                        place[1].clone(),
                        c.clone(),
                        at[0].clone(),
                        at[1].clone(),
                    ];
                    let with = [
                        place[1].clone(),
                        c,
                        place[2].clone(),
                        tap[0].clone(),
                        tap[1].clone(),
                    ];
                    let x = s.load(src, float, index(&from, &x_strides));
                    let w = s.load(weights, float, index(&with, &w_strides));
                    let part = covered.clone().pick(x * w, Ex::Real(0.0));
                    s.set(sum, Ex::Var(sum) + part);
                });
            });
            s.store(dst, float, index(place, &dense), Ex::Var(sum));
        });
        let taps = (p.kernel[0] * p.kernel[1] * inputs) as u64;
        cx.push(program, dims.iter().product::<usize>() as u64 * taps)
    }

    fn folds(&self) -> bool {
        false
    }
}
