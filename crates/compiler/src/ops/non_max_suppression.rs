//! NonMaxSuppression: boxes, scores, most boxes of a class, thresholds of overlap and score.
//!
//! The result has as many rows as there can be; rows that are not filled come last and are -1. As that
//! is not what ONNX says of the shape, nothing within the model may read it: see `typed`.

use super::MIXES;
use super::{Call, Operator};
use crate::emit::Ref;
use crate::kernels::{Bin, Ex, Scalar, Ty, index};
use crate::lower::{Layout, LowerCx};
use crate::tensor::{Data, Tensor, elements};
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// NonMaxSuppression.
pub(crate) struct NonMaxSuppression;

/// Sizes and thresholds.
struct Plan {
    batch: usize,
    classes: usize,
    boxes: usize,
    /// Most boxes of a class.
    most: usize,
    overlap: f32,
    /// Only scores above it count; all do if there is none.
    score: Option<f32>,
    /// Whether boxes are given by centre and size.
    centred: bool,
}

fn single(tensor: Option<&Tensor>) -> Result<Option<f32>, String> {
    let values = tensor.map(Tensor::as_f32).transpose()?;
    Ok(values.and_then(|v| v.first().copied()))
}

impl Plan {
    fn of(
        (boxes, scores): (&[usize], &[usize]),
        [most, overlap, score]: [Option<&Tensor>; 3],
        centred: bool,
    ) -> Result<Self, String> {
        let (&[batch, n, 4], &[other, classes, count]) = (boxes, scores) else {
            return Err(format!("boxes of {boxes:?} and scores of {scores:?}"));
        };
        if other != batch || count != n {
            return Err(format!("boxes of {boxes:?} and scores of {scores:?}"));
        }
        let most = most.map(Tensor::to_i64).transpose()?;
        let most = most.and_then(|v| v.first().copied()).unwrap_or(0);
        Ok(Self {
            batch,
            classes,
            boxes: n,
            most: usize::try_from(most).unwrap_or(0).min(n),
            overlap: single(overlap)?.unwrap_or(0.0),
            score: single(score)?,
            centred,
        })
    }

    fn of_node(node: &NodeView<'_>) -> Result<Self, String> {
        let (boxes, scores) = (node.float(0)?, node.float(1)?);
        if boxes.has_batch() || scores.has_batch() {
            return Err(MIXES.into());
        }
        let mut given = [None; 3];
        for (slot, i) in given.iter_mut().zip(2..) {
            *slot = node.optional_constant(i)?;
        }
        let centred = node.attrs().int("center_point_box", 0) != 0;
        Self::of((&boxes.item(), &scores.item()), given, centred)
    }

    fn rows(&self) -> usize {
        self.batch * self.classes * self.most
    }
}

/// Corners of a box: least and greatest of both axes.
fn corners(b: &[f32], centred: bool) -> [f64; 4] {
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| f64::from(b[i]));
    match centred {
        true => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        false => [a.min(c), b.min(d), a.max(c), b.max(d)],
    }
}

/// Intersection over union; 0 for boxes without an area.
fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |c: [f64; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    let both = side(0) * side(1);
    if area(a) <= 0.0 || area(b) <= 0.0 {
        return 0.0;
    }
    both / (area(a) + area(b) - both)
}

impl Operator for NonMaxSuppression {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let plan = Plan::of_node(node)?;
        let dims = [plan.rows(), 3];
        elements(&dims).ok_or("its result is too large")?;
        Ok(vec![Type::new(DType::I64, fixed(&dims))])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (boxes, scores) = (call.input(0)?, call.input(1)?);
        let given = [2, 3, 4].map(|i| call.optional(i));
        let centred = call.attrs().int("center_point_box", 0) != 0;
        let p = Plan::of((boxes.dims(), scores.dims()), given, centred)?;
        let (boxes, scores) = (boxes.as_f32()?, scores.as_f32()?);
        let mut rows = Vec::new();
        for (b, c) in (0..p.batch).flat_map(|b| (0..p.classes).map(move |c| (b, c))) {
            let score = |i: &usize| scores[(b * p.classes + c) * p.boxes + i];
            let corners = |i: &usize| corners(&boxes[(b * p.boxes + i) * 4..], p.centred);
            let counts = |i: &usize| match p.score {
                Some(least) => score(i) > least,
                None => !score(i).is_nan(),
            };
            let mut order: Vec<usize> = (0..p.boxes).filter(counts).collect();
            order.sort_by(|a, b| score(b).total_cmp(&score(a)));
            let mut chosen: Vec<usize> = Vec::new();
            for i in order {
                let near = |o: &usize| overlap(corners(o), corners(&i)) > f64::from(p.overlap);
                if chosen.len() < p.most && !chosen.iter().any(near) {
                    chosen.push(i);
                }
            }
            rows.extend(chosen.iter().flat_map(|i| [b as i64, c as i64, *i as i64]));
        }
        rows.resize(3 * p.rows(), -1);
        Ok(vec![Tensor::new(vec![p.rows(), 3], Data::I64(rows))?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let p = Plan::of_node(&cx.view())?;
        let [boxes, scores] = [cx.read(0, Layout::Plain)?, cx.read(1, Layout::Plain)?];
        let (dst, gone) = (cx.write(Layout::Plain)?, cx.temporary(p.boxes));
        let mut program = Scalar::new("non-max-suppression");
        program.each(3 * p.rows(), |s, i| {
            s.store(dst, DType::I64, i, Ex::Long(-1))
        });
        let filled = program.var(Ex::Int(0));
        program.nest(&[p.batch, p.classes], &mut |s, place| {
            let first_score = s.once(index(place, &[p.classes * p.boxes, p.boxes]));
            let first_box = s.once(index(&place[..1], &[4 * p.boxes]));
            s.each(p.boxes, |s, i| {
                let score = s.load(scores, DType::F32, first_score.clone() + i.clone());
                let low = match p.score {
                    Some(least) => score.le(Ex::Real(least)),
                    None => Ex::Int(0),
                };
                s.store(gone, DType::U8, i, low);
            });
            s.each(p.most, |s, _| {
                let (best, most) = (s.var(Ex::Int(-1)), s.var(Ex::Real(0.0)));
                s.each(p.boxes, |s, i| {
                    let score = s.load(scores, DType::F32, first_score.clone() + i.clone());
                    let score = s.once(score);
                    let out = s.load(gone, DType::U8, i.clone());
                    let none = Ex::Var(best).lt(Ex::Int(0));
                    let more = Ex::Var(most).lt(score.clone());
                    let real = score.clone().eq(score.clone());
                    let here = out.not().bin(Bin::And, real);
                    let take = s.once(here.bin(Bin::And, none.bin(Bin::Or, more)));
                    s.set(most, take.clone().pick(score, Ex::Var(most)));
                    s.set(best, take.pick(i, Ex::Var(best)));
                });
                let found = s.once(Ex::Var(best).lt(Ex::Int(0)).not());
                let at = s.once(Ex::Var(best).max(Ex::Int(0)));
                for (k, value) in [place[0].clone(), place[1].clone(), at.clone()]
                    .into_iter()
                    .enumerate()
                {
                    let value = found.clone().pick(value, Ex::Int(-1)).to(Ty::Long);
                    let to = Ex::Var(filled) * Ex::Int(3) + Ex::Int(k as i32);
                    s.store(dst, DType::I64, to, value);
                }
                s.set(filled, Ex::Var(filled) + found.clone());
                let taken =
                    program_corners(s, boxes, first_box.clone() + at * Ex::Int(4), p.centred);
                s.each(p.boxes, |s, i| {
                    let from = first_box.clone() + i.clone() * Ex::Int(4);
                    let other = program_corners(s, boxes, from, p.centred);
                    let ratio = program_overlap(s, &taken, &other);
                    let near = Ex::Double(f64::from(p.overlap)).lt(ratio);
                    let itself = i.clone().eq(Ex::Var(best));
                    let drop = near.bin(Bin::Or, itself).bin(Bin::And, found.clone());
                    let before = s.load(gone, DType::U8, i.clone());
                    s.store(gone, DType::U8, i, before.bin(Bin::Or, drop));
                });
            });
        });
        cx.push(program, 0)
    }
}

fn program_corners(s: &mut Scalar, boxes: Ref, first: Ex, centred: bool) -> [Ex; 4] {
    let first = s.once(first);
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| {
        let x = s.load(boxes, DType::F32, first.clone() + Ex::Int(i));
        s.once(x.to(Ty::Double))
    });
    let half = |x: &Ex| x.clone() * Ex::Double(0.5);
    let all = match centred {
        true => [
            a.clone() - half(&c),
            b.clone() - half(&d),
            a + half(&c),
            b + half(&d),
        ],
        false => [
            a.clone().min(c.clone()),
            b.clone().min(d.clone()),
            a.max(c),
            b.max(d),
        ],
    };
    all.map(|x| s.once(x))
}

fn program_overlap(s: &mut Scalar, a: &[Ex; 4], b: &[Ex; 4]) -> Ex {
    let zero = || Ex::Double(0.0);
    let area = |c: &[Ex; 4]| (c[2].clone() - c[0].clone()) * (c[3].clone() - c[1].clone());
    let side = |i: usize| {
        let end = a[i + 2].clone().min(b[i + 2].clone());
        (end - a[i].clone().max(b[i].clone())).max(zero())
    };
    let both = s.once(side(0) * side(1));
    let [one, other] = [a, b].map(|c| s.once(area(c)));
    let empty = one
        .clone()
        .le(zero())
        .bin(Bin::Or, other.clone().le(zero()));
    let ratio = both.clone() / (one + other - both);
    s.once(empty.pick(zero(), ratio))
}
