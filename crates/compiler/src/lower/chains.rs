//! Chains of steps over elements become one: what lies between is neither stored nor read.

use super::{Home, Program};
use crate::emit::Ref;
use crate::kernels::{Elementwise, Expr, Store};
use sandpiper_core::tensor::DType;
use std::collections::BTreeMap;

/// Most operands of a joined step: each of them takes a register.
const MAX_OPERANDS: usize = 8;
/// Most operations of its expression: it is walked recursively, and its code is unrolled.
const MAX_OPERATIONS: usize = 48;

/// Which steps write and read each buffer.
#[derive(Default)]
struct Uses {
    writers: Vec<usize>,
    readers: Vec<usize>,
}

/// Joins each step over elements with those that make its operands and nothing else. Results are the
/// same to the bit: what was stored between them was a float, and is one.
pub(super) fn join(program: &mut Program) {
    let mut uses: BTreeMap<Ref, Uses> = BTreeMap::new();
    for (i, step) in program.steps.iter().enumerate() {
        let kernel = &step.kernel;
        kernel
            .writes()
            .into_iter()
            .for_each(|r| uses.entry(r).or_default().writers.push(i));
        let mut reads = kernel.reads();
        reads.sort_unstable();
        reads.dedup();
        reads
            .into_iter()
            .for_each(|r| uses.entry(r).or_default().readers.push(i));
    }
    let mut gone = vec![false; program.steps.len()];
    for last in 0..program.steps.len() {
        while let Some((first, joined)) = joined(program, &uses, last) {
            gone[first] = true;
            let nodes = std::mem::take(&mut program.steps[first].nodes);
            for operand in &joined.operands {
                let readers = &mut uses.entry(operand.at).or_default().readers;
                readers.retain(|r| *r != first);
                if !readers.contains(&last) {
                    readers.push(last);
                }
            }
            let step = &mut program.steps[last];
            step.nodes.splice(..0, nodes);
            step.nodes.dedup();
            step.kernel = Box::new(joined);
        }
    }
    let mut gone = gone.into_iter();
    program.steps.retain(|_| !gone.next().unwrap_or(false));
}

/// The step `last` joined with one that makes one of its operands, and which that is.
fn joined(
    program: &Program,
    uses: &BTreeMap<Ref, Uses>,
    last: usize,
) -> Option<(usize, Elementwise)> {
    let kernel = program.steps[last].kernel.elementwise()?;
    kernel
        .operands
        .iter()
        .enumerate()
        .find_map(|(index, operand)| {
            let Ref::Buffer(buffer) = operand.at else {
                return None;
            };
            let of = uses.get(&operand.at)?;
            let ([first], [_]) = (&of.writers[..], &of.readers[..]) else {
                return None;
            };
            let before = program.steps[*first].kernel.elementwise()?;
            let inner = |o: &&crate::kernels::Operand| o.at == operand.at;
            let alone = kernel.operands.iter().filter(inner).count() == 1
                && program.buffers[buffer].home == Home::Arena
                && operand.dtype == DType::F32
                && matches!(before.store, Store::Float);
            // What the first one reads must still be there.
            let kept = before.operands.iter().all(|o| {
                let writers = uses.get(&o.at).map_or(&[][..], |u| &u.writers);
                writers.iter().all(|w| w < first)
            });
            let made = (alone && kept && *first < last).then(|| within(kernel, index, before))?;
            Some((*first, made?))
        })
}

/// A step with the expression of another one in place of operand `index`, which that one makes.
fn within(kernel: &Elementwise, index: usize, before: &Elementwise) -> Option<Elementwise> {
    if kernel.operands[index].strides != dense(&kernel.dims)
        || kernel.expr.uses(index) != 1
        || kernel.operands.len() + before.operands.len() > MAX_OPERANDS + 1
        || kernel.expr.operations() + before.expr.operations() > MAX_OPERATIONS
    {
        return None;
    }
    let dims = common(&kernel.dims, &before.dims)?;
    let (inner, [a, b]) = (dims.last()?, [kernel.dims.last()?, before.dims.last()?]);
    // Rests of rows are done one by one.
    if a != b && !inner.is_multiple_of(4) && *inner < 32 {
        return None;
    }
    let over = |k: &Elementwise| -> Vec<crate::kernels::Operand> {
        let each = k.operands.iter().map(|o| crate::kernels::Operand {
            strides: finer(&k.dims, &o.strides, &dims),
            ..o.clone()
        });
        each.collect()
    };
    let (mut operands, more) = (over(kernel), over(before));
    operands.remove(index);
    let shift = operands.len();
    operands.extend(more);
    let expr = kernel.expr.clone().mapped(&|i| match i.cmp(&index) {
        std::cmp::Ordering::Less => Expr::In(i),
        std::cmp::Ordering::Equal => before.expr.clone().mapped(&|i| Expr::In(shift + i)),
        std::cmp::Ordering::Greater => Expr::In(i - 1),
    });
    let joined = Elementwise {
        dims,
        operands,
        expr,
        ..kernel.clone()
    };
    Some(joined.simplified())
}

/// Strides of a tensor of these dimensions without gaps. Along a single element there are none.
fn dense(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; dims.len()];
    let mut next = 1;
    for (stride, n) in strides.iter_mut().zip(dims).rev() {
        if *n > 1 {
            *stride = next;
        }
        next *= n;
    }
    strides
}

/// The coarsest dimensions of which those of both consist; `None` if there are none.
fn common(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let (mut a, mut b) = (a.to_vec(), b.to_vec());
    let mut made = Vec::new();
    loop {
        let (x, y) = match (a.pop(), b.pop()) {
            (Some(x), Some(y)) => (x, y),
            (None, None) => break,
            (Some(1), None) | (None, Some(1)) => continue,
            _ => return None,
        };
        let (small, large) = (x.min(y), x.max(y));
        if small == 0 || large % small != 0 {
            return None;
        }
        made.push(small);
        match x.cmp(&y) {
            std::cmp::Ordering::Less => b.push(large / small),
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => a.push(large / small),
        }
    }
    made.reverse();
    Some(made)
}

/// Strides over dimensions `to`, of which `from` consists.
fn finer(from: &[usize], strides: &[usize], to: &[usize]) -> Vec<usize> {
    let mut made = vec![0; to.len()];
    let mut parts = made.iter_mut().zip(to).rev();
    for (n, stride) in from.iter().zip(strides).rev() {
        let mut done = 1;
        while done < *n {
            let Some((made, part)) = parts.next() else {
                break;
            };
            *made = stride * done;
            done *= part;
        }
    }
    made
}
