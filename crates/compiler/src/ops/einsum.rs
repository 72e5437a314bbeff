//! Einsum of floats: two operands as a product of matrices where their letters allow it, else a program.

use super::MIXES;
use super::{Call, Operator};
use crate::kernels::{Ex, Product, Scalar, Ty, index};
use crate::lower::{Layout, LowerCx};
use crate::reference::places::places;
use crate::tensor::{Tensor, elements};
use crate::typed::{Clamp, NodeView, Type, fixed};
use sandpiper_core::tensor::{DType, Dim};

/// Einsum.
pub(crate) struct Einsum;

/// A letter, or a dimension that an ellipsis stands for, counted from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Letter(char),
    Ellipsis(usize),
}

/// An equation for operands of known dimensions.
struct Plan {
    /// All labels with their sizes: those of the result in order, then those that are summed over.
    labels: Vec<(Label, usize)>,
    /// How many labels the result has.
    kept: usize,
    /// Elements from one to the next, by operand and label.
    strides: Vec<Vec<usize>>,
}

fn letters(part: &str) -> Result<(Vec<char>, Option<usize>), String> {
    let compact: String = part.chars().filter(|c| !c.is_whitespace()).collect();
    let (before, after) = match compact.split_once("...") {
        Some((before, after)) => (before.to_owned(), Some(after.to_owned())),
        None => (compact, None),
    };
    let at = after.as_ref().map(|_| before.chars().count());
    let all: Vec<char> = before
        .chars()
        .chain(after.iter().flat_map(|a| a.chars()))
        .collect();
    match all.iter().all(char::is_ascii_alphabetic) {
        true => Ok((all, at)),
        false => Err(format!("the part `{part}` of its equation")),
    }
}

/// Labels of letters, with an ellipsis of so many dimensions.
fn labels((letters, at): &(Vec<char>, Option<usize>), ellipsis: usize) -> Vec<Label> {
    let mut all: Vec<Label> = letters.iter().map(|c| Label::Letter(*c)).collect();
    if let Some(at) = at {
        let dims = (0..ellipsis).rev().map(Label::Ellipsis);
        all.splice(at..at, dims);
    }
    all
}

impl Plan {
    fn of(equation: &str, operands: &[Vec<usize>]) -> Result<Self, String> {
        let (left, right) = match equation.split_once("->") {
            Some((left, right)) => (left, Some(letters(right)?)),
            None => (equation, None),
        };
        let parts: Vec<_> = left.split(',').map(letters).collect::<Result<_, _>>()?;
        if parts.len() != operands.len() {
            return Err(format!("an equation of {} operands", parts.len()));
        }
        let mut widest = 0;
        let mut of_operands = Vec::new();
        for (part, dims) in parts.iter().zip(operands) {
            let rest = dims.len().checked_sub(part.0.len());
            let rest = rest.filter(|r| *r == 0 || part.1.is_some());
            let rest = rest.ok_or_else(|| format!("`{equation}` for an operand of {dims:?}"))?;
            widest = widest.max(rest);
            of_operands.push(labels(part, rest));
        }
        let mut sizes: Vec<(Label, usize)> = Vec::new();
        for (label, n) in of_operands.iter().flatten().zip(operands.iter().flatten()) {
            match sizes.iter_mut().find(|(l, _)| l == label) {
                None => sizes.push((*label, *n)),
                Some((_, size)) if *size == 1 => *size = *n,
                Some((_, size)) if *n == 1 || size == n => {}
                Some((_, size)) => return Err(format!("{label:?} is {size} and {n}")),
            }
        }
        let result = match &right {
            Some(right) => labels(right, widest),
            None => implied(&of_operands, widest),
        };
        let known = |l: &Label| sizes.iter().find(|(s, _)| s == l).copied();
        let kept: Option<Vec<_>> = result.iter().map(known).collect();
        let kept = kept.ok_or("a letter of its result is in no operand")?;
        let twice = |(i, l): (usize, &Label)| result[..i].contains(l);
        if result.iter().enumerate().any(twice) {
            return Err("a letter is twice in its result".into());
        }
        let summed = sizes.iter().filter(|(l, _)| !result.contains(l));
        let all: Vec<_> = kept.iter().chain(summed).copied().collect();
        let strides = of_operands.iter().zip(operands).map(|(labels, dims)| {
            let dense = Layout::Plain.strides(dims);
            let along = |label: &Label| {
                let own = labels.iter().zip(dims).zip(&dense);
                own.filter(|((l, n), _)| *l == label && **n != 1)
                    .map(|(_, s)| *s)
                    .sum()
            };
            all.iter().map(|(l, _)| along(l)).collect()
        });
        Ok(Self {
            strides: strides.collect(),
            labels: all,
            kept: result.len(),
        })
    }

    fn dims(&self) -> Vec<usize> {
        self.labels[..self.kept].iter().map(|(_, n)| *n).collect()
    }

    fn summed(&self) -> Vec<usize> {
        self.labels[self.kept..].iter().map(|(_, n)| *n).collect()
    }
}

/// Without an arrow: the ellipsis, then the letters that are there once, in alphabetic order.
fn implied(operands: &[Vec<Label>], ellipsis: usize) -> Vec<Label> {
    let all: Vec<char> = operands
        .iter()
        .flatten()
        .filter_map(|l| match l {
            Label::Letter(c) => Some(*c),
            Label::Ellipsis(_) => None,
        })
        .collect();
    let once = |c: &&char| all.iter().filter(|o| o == c).count() == 1;
    let mut single: Vec<char> = all.iter().filter(once).copied().collect();
    single.sort_unstable();
    let dims = (0..ellipsis).rev().map(Label::Ellipsis);
    dims.chain(single.into_iter().map(Label::Letter)).collect()
}

fn of_node(node: &NodeView<'_>) -> Result<Plan, String> {
    let mut operands = Vec::new();
    for i in 0..node.inputs.len() {
        operands.push(node.float(i)?.item());
    }
    Plan::of(&node.attrs().text("equation", ""), &operands)
}

/// The labels of a product of matrices: before, rows, columns, inner; by index among all labels.
struct Matrices([Vec<usize>; 4]);

impl Matrices {
    fn of(plan: &Plan) -> Option<Self> {
        let [a, b] = plan.strides.as_slice() else {
            return None;
        };
        let mut groups: [Vec<usize>; 4] = Default::default();
        for (i, (_, n)) in plan.labels.iter().enumerate() {
            let (left, right, kept) = (a[i] != 0, b[i] != 0, i < plan.kept);
            let group = match (left, right, kept) {
                _ if *n == 1 => continue,
                (true, true, true) => 0,
                (true, false, true) => 1,
                (false, true, true) => 2,
                (true, true, false) => 3,
                // Summed over in one operand, or in none.
                _ => return None,
            };
            groups[group].push(i);
        }
        Some(Self(groups))
    }

    fn size(&self, plan: &Plan, group: usize) -> usize {
        self.0[group].iter().map(|i| plan.labels[*i].1).product()
    }
}

/// Adds the kernels of a product of matrices: operands and result are brought into order if they are
/// in another one.
fn by_product(cx: &mut LowerCx<'_>, plan: &Plan, m: &Matrices) -> Result<(), String> {
    let [outer, rows, columns, inner] = [0, 1, 2, 3].map(|g| m.size(plan, g));
    let ordered = |groups: [usize; 3]| -> Vec<usize> {
        groups
            .iter()
            .flat_map(|g| m.0[*g].iter().copied())
            .collect()
    };
    let pick = |of: &[usize], order: &[usize]| order.iter().map(|i| of[*i]).collect::<Vec<_>>();
    let sizes: Vec<usize> = plan.labels.iter().map(|(_, n)| *n).collect();
    let mut sources = Vec::new();
    for (i, groups) in [[0, 1, 3], [0, 3, 2]].into_iter().enumerate() {
        let order = ordered(groups);
        let (dims, from) = (pick(&sizes, &order), pick(&plan.strides[i], &order));
        let dense = Layout::Plain.strides(&dims);
        let src = cx.read(i, Layout::Plain)?;
        sources.push(if from == dense {
            src
        } else {
            let dst = cx.temporary(4 * dims.iter().product::<usize>());
            cx.reorder("einsum", (src, dst), &dims, [&from, &dense])?;
            dst
        });
    }
    let order = ordered([0, 1, 2]);
    let dims = pick(&sizes, &order);
    let (from, to) = (
        Layout::Plain.strides(&dims),
        Layout::Plain.strides(&plan.dims()),
    );
    let to = pick(&to, &order);
    let result = cx.write(Layout::Plain)?;
    let made = match from == to {
        true => result,
        false => cx.temporary(4 * outer * rows * columns),
    };
    let product = Product {
        sources: [sources[0], sources[1]],
        dst: made,
        outer: vec![outer],
        steps: [
            vec![rows * inner],
            vec![inner * columns],
            vec![rows * columns],
        ],
        sizes: [rows, columns, inner],
        clamp: Clamp::NONE,
    };
    cx.push(product, (outer * rows * columns) as u64 * inner as u64)?;
    match from == to {
        true => Ok(()),
        false => cx.reorder("einsum", (made, result), &dims, [&from, &to]),
    }
}

impl Operator for Einsum {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let plan = of_node(node)?;
        let mut work: Vec<usize> = plan.dims();
        work.extend(plan.summed());
        elements(&work).ok_or("it has more terms than a tensor may have elements")?;
        let mut dims = fixed(&plan.dims());
        for (i, strides) in plan.strides.iter().enumerate() {
            let ty = node.ty(i)?;
            if !ty.has_batch() {
                continue;
            }
            // Of one item the batch has size 1, so that its label is looked up by its name.
            let equation = node.attrs().text("equation", "");
            let others = (0..plan.strides.len()).all(|j| {
                node.ty(j)
                    .is_ok_and(|t| t.has_batch() || !shares_first(&equation, i, j))
            });
            if !first_is_first(&equation, i) || !others || strides.is_empty() {
                return Err(MIXES.into());
            }
            dims[0] = Dim::Batch;
        }
        Ok(vec![Type::new(DType::F32, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let mut operands = Vec::new();
        for i in 0..call.inputs.len() {
            operands.push(call.input(i)?);
        }
        let dims: Vec<_> = operands.iter().map(|t| t.dims().to_vec()).collect();
        let plan = Plan::of(&call.attrs().text("equation", ""), &dims)?;
        let values: Vec<&[f32]> = operands
            .iter()
            .map(|t| t.as_f32())
            .collect::<Result<_, _>>()?;
        let one = |kept: Vec<usize>| {
            let term = |summed: Vec<usize>| {
                let place: Vec<usize> = kept.iter().chain(&summed).copied().collect();
                let at = |strides: &Vec<usize>| -> usize {
                    place.iter().zip(strides).map(|(p, s)| p * s).sum()
                };
                let factors = values.iter().zip(&plan.strides);
                factors.map(|(v, s)| f64::from(v[at(s)])).product::<f64>()
            };
            places(&plan.summed()).map(term).sum::<f64>() as f32
        };
        let result = places(&plan.dims()).map(one).collect();
        Ok(vec![Tensor::f32(&plan.dims(), result)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let plan = of_node(&cx.view())?;
        if let Some(matrices) = Matrices::of(&plan) {
            return by_product(cx, &plan, &matrices);
        }
        let mut sources = Vec::new();
        for i in 0..plan.strides.len() {
            sources.push(cx.read(i, Layout::Plain)?);
        }
        let dst = cx.write(Layout::Plain)?;
        let dense = Layout::Plain.strides(&plan.dims());
        let mut program = Scalar::new("einsum");
        program.nest(&plan.dims(), &mut |s, kept| {
            let sum = s.var(Ex::Double(0.0));
            s.nest(&plan.summed(), &mut |s, summed| {
                let place = [kept, summed].concat();
                let mut product = Ex::Double(1.0);
                for (src, strides) in sources.iter().zip(&plan.strides) {
                    let x = s.load(*src, DType::F32, index(&place, strides));
                    product = product * x.to(Ty::Double);
                }
                s.set(sum, Ex::Var(sum) + product);
            });
            s.store(
                dst,
                DType::F32,
                index(kept, &dense),
                Ex::Var(sum).to(Ty::Real),
            );
        });
        let terms: usize = plan.labels.iter().map(|(_, n)| n).product();
        cx.push(program, terms as u64)
    }
}

/// What the first dimension of an operand, or of the result (`None`), is called: a letter or `...`.
fn first_name(equation: &str, operand: Option<usize>) -> Option<String> {
    let (left, right) = equation.split_once("->").unwrap_or((equation, ""));
    let part = match operand {
        Some(i) => left.split(',').nth(i)?.trim_start(),
        None => right.trim_start(),
    };
    match part.starts_with("...") {
        true => Some("...".into()),
        false => part.chars().next().map(String::from),
    }
}

/// Whether an operand's first dimension is that of the result, which must be written out, and occurs
/// nowhere else in it.
fn first_is_first(equation: &str, operand: usize) -> bool {
    let name = first_name(equation, Some(operand));
    let left = equation.split_once("->").map_or(equation, |e| e.0);
    let own = left.split(',').nth(operand).unwrap_or_default();
    let once = name
        .as_ref()
        .is_some_and(|n| own.matches(n.as_str()).count() == 1);
    // An ellipsis of several operands is aligned at its end: which of them is the batch is not clear.
    name.is_some() && once && name != Some("...".into()) && name == first_name(equation, None)
}

/// Whether operand `j` has the first dimension of operand `i`.
fn shares_first(equation: &str, i: usize, j: usize) -> bool {
    let left = equation.split_once("->").map_or(equation, |e| e.0);
    let own = left.split(',').nth(j).unwrap_or_default();
    first_name(equation, Some(i)).is_some_and(|n| own.contains(&n))
}
