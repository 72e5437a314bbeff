//! Reduce*: sums, means, products, norms, extremes along axes. What is common has a kernel where the
//! axes that go lie next to each other.

use super::MIXES;
use super::{Call, Operator};
use crate::kernels::{self, Ex, Reduction, Scalar, Ty, Un, functions, index};
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::axis_of;
use crate::reference::numbers::{Number, numbers, tensor};
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::{DType, Dim};

/// What becomes of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sum,
    Mean,
    Product,
    Least,
    Greatest,
    L1,
    L2,
    Squares,
    LogSum,
    LogSumExp,
}

/// A reduction.
pub(crate) struct Reduce {
    name: &'static str,
    kind: Kind,
}

macro_rules! reductions {
    ($($id:ident $name:literal $kind:ident;)*) => {
        $(#[doc = $name] pub(crate) static $id: Reduce = Reduce { name: $name, kind: Kind::$kind };)*
    };
}

reductions! {
    SUM "reduce-sum" Sum;
    MEAN "reduce-mean" Mean;
    PROD "reduce-prod" Product;
    MIN "reduce-min" Least;
    MAX "reduce-max" Greatest;
    L1 "reduce-l1" L1;
    L2 "reduce-l2" L2;
    SUM_SQUARE "reduce-sum-square" Squares;
    LOG_SUM "reduce-log-sum" LogSum;
    LOG_SUM_EXP "reduce-log-sum-exp" LogSumExp;
}

/// Which axes go; `None`: nothing is reduced.
fn reduced(attrs: &Attrs<'_>, given: Option<&Tensor>, rank: usize) -> Result<Vec<bool>, String> {
    let axes = match given {
        Some(tensor) => Some(tensor.to_i64()?),
        None => attrs.ints("axes"),
    };
    let axes = axes.unwrap_or_default();
    if axes.is_empty() {
        return Ok(vec![attrs.int("noop_with_empty_axes", 0) == 0; rank]);
    }
    let mut gone = vec![false; rank];
    for axis in axes {
        gone[axis_of(axis, rank)?] = true;
    }
    Ok(gone)
}

fn of_node(node: &NodeView<'_>, axes: Option<usize>) -> Result<Vec<bool>, String> {
    let ty = node.ty(0)?;
    let given = axes.map(|i| node.optional_constant(i)).transpose()?;
    let gone = reduced(&node.attrs(), given.flatten(), ty.dims.len())?;
    if ty.has_batch() && gone.first() == Some(&true) {
        return Err(MIXES.into());
    }
    Ok(gone)
}

/// Extents and strides of dimensions.
type Extents = (Vec<usize>, Vec<usize>);

/// What a reduction runs over.
pub(super) struct Parts {
    /// Dimensions of the result.
    pub(super) dims: Vec<Dim>,
    /// Dimensions that stay.
    pub(super) outer: Extents,
    /// Dimensions that go.
    pub(super) inner: Extents,
}

/// The parts of a node's input 0, with axes from input `axes` or from the attribute.
pub(super) fn parts_of(node: &NodeView<'_>, axes: Option<usize>) -> Result<Parts, String> {
    let (gone, ty) = (of_node(node, axes)?, node.ty(0)?);
    let dims = ty.item();
    let strides = Layout::Plain.strides(&dims);
    let part = |wanted: bool| -> Extents {
        let all = dims.iter().zip(&strides).zip(&gone);
        all.filter(|(_, gone)| **gone == wanted)
            .map(|((d, s), _)| (*d, *s))
            .unzip()
    };
    Ok(Parts {
        outer: part(false),
        inner: part(true),
        dims: kept(&ty.dims, &gone, keeps(&node.attrs()), Dim::Fixed(1)),
    })
}

/// Dimensions that stay, as 1 where they are reduced and kept.
fn kept<T: Copy>(dims: &[T], gone: &[bool], keep: bool, one: T) -> Vec<T> {
    let all = dims.iter().zip(gone);
    all.filter(|(_, gone)| keep || !**gone)
        .map(|(d, gone)| if *gone { one } else { *d })
        .collect()
}

fn keeps(attrs: &Attrs<'_>) -> bool {
    attrs.int("keepdims", 1) != 0
}

impl Reduce {
    fn evaluate(&self, values: &[Number]) -> Number {
        let floats = || values.iter().map(|v| v.float());
        let integer = matches!(values.first(), Some(Number::Int(_)));
        let ints = || values.iter().map(|v| v.int());
        let whole = |v: i64| Number::Int(v);
        match self.kind {
            Kind::Sum if integer => whole(ints().fold(0, i64::wrapping_add)),
            Kind::Product if integer => whole(ints().fold(1, i64::wrapping_mul)),
            Kind::Least if integer => whole(ints().min().unwrap_or(0)),
            Kind::Greatest if integer => whole(ints().max().unwrap_or(0)),
            Kind::Sum => Number::Float(floats().sum()),
            Kind::Mean => Number::Float(floats().sum::<f64>() / values.len() as f64),
            Kind::Product => Number::Float(floats().product()),
            Kind::Least => Number::Float(floats().fold(f64::INFINITY, |a, b| {
                if a.is_nan() || b.is_nan() {
                    f64::NAN
                } else {
                    a.min(b)
                }
            })),
            Kind::Greatest => Number::Float(floats().fold(f64::NEG_INFINITY, |a, b| {
                if a.is_nan() || b.is_nan() {
                    f64::NAN
                } else {
                    a.max(b)
                }
            })),
            Kind::L1 => Number::Float(floats().map(f64::abs).sum()),
            Kind::L2 => Number::Float(floats().map(|v| v * v).sum::<f64>().sqrt()),
            Kind::Squares => Number::Float(floats().map(|v| v * v).sum()),
            Kind::LogSum => Number::Float(floats().sum::<f64>().ln()),
            Kind::LogSumExp => {
                let most = floats().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = floats().map(|v| (v - most).exp()).sum();
                Number::Float(sum.ln() + most)
            }
        }
    }

    /// The value that is there before any element, and what an element does to it.
    fn step(&self, s: &mut Scalar, sum: Ex, x: Ex, most: Option<Ex>) -> Ex {
        match self.kind {
            Kind::Sum | Kind::Mean | Kind::LogSum => sum + x,
            Kind::Product => sum * x,
            Kind::Least => sum.min(x),
            Kind::Greatest => sum.max(x),
            Kind::L1 => sum + x.un(Un::Abs),
            Kind::L2 | Kind::Squares => {
                let x = s.once(x);
                sum + x.clone() * x
            }
            Kind::LogSumExp => {
                let shift = most.unwrap_or(Ex::Double(0.0));
                sum + functions::exp(s, x - shift)
            }
        }
    }

    fn start(&self, ty: Ty) -> Ex {
        let integer = matches!(ty, Ty::Int | Ty::Long);
        match self.kind {
            Kind::Product => Ex::constant(ty, 1.0),
            Kind::Least if !integer => Ex::constant(ty, f64::INFINITY),
            Kind::Greatest if !integer => Ex::constant(ty, f64::NEG_INFINITY),
            // Conversions to integers saturate.
            Kind::Least => Ex::constant(ty, f64::MAX),
            Kind::Greatest => Ex::constant(ty, f64::MIN),
            _ => Ex::constant(ty, 0.0),
        }
    }
}

/// Extents before, of and after the dimensions that go, if these lie next to each other and there are
/// any; dimensions of 1 do not count.
fn three(dims: &[usize], gone: &[bool]) -> Option<[usize; 3]> {
    let mut three = [1; 3];
    let mut part = 0;
    for (n, gone) in dims.iter().zip(gone).filter(|(n, _)| **n != 1) {
        part = match (part, gone) {
            (0, false) => 0,
            (0 | 1, true) => 1,
            (1 | 2, false) => 2,
            _ => return None,
        };
        three[part] *= n;
    }
    (part > 0).then_some(three)
}

/// The input that may hold the axes.
const AXES: Option<usize> = Some(1);

impl Reduce {
    /// The reduction of a tensor.
    pub(super) fn of(
        &self,
        x: &Tensor,
        attrs: &Attrs<'_>,
        axes: Option<&Tensor>,
    ) -> Result<Tensor, String> {
        let gone = reduced(attrs, axes, x.dims().len())?;
        let full = kept(x.dims(), &gone, true, 1);
        let mut groups = vec![Vec::new(); full.iter().product()];
        for (place, value) in places(x.dims()).zip(numbers(x)) {
            let at = kept(&place, &gone, true, 0);
            groups[ravel(&at, &full)].push(value);
        }
        let values: Vec<Number> = groups.iter().map(|g| self.evaluate(g)).collect();
        let dims = kept(x.dims(), &gone, keeps(attrs), 1);
        tensor(x.dtype(), dims, &values)
    }

    /// What the kernel calls it.
    fn reduction(&self) -> Option<Reduction> {
        Some(match self.kind {
            Kind::Sum => Reduction::Sum,
            Kind::Mean => Reduction::Mean,
            Kind::Least => Reduction::Least,
            Kind::Greatest => Reduction::Greatest,
            Kind::L1 => Reduction::L1,
            Kind::L2 => Reduction::L2,
            Kind::Squares => Reduction::Squares,
            Kind::Product | Kind::LogSum | Kind::LogSumExp => return None,
        })
    }

    /// Adds the kernel if there is one for this node.
    fn by_kernel(&self, cx: &mut LowerCx<'_>) -> Result<bool, String> {
        let node = cx.view();
        let (gone, ty, keep) = (of_node(&node, AXES)?, node.ty(0)?, keeps(&node.attrs()));
        let Some(reduction) = self.reduction().filter(|_| ty.dtype == DType::F32) else {
            return Ok(false);
        };
        let ordered = |layout: Layout| -> Option<[usize; 3]> {
            let order = layout.order(gone.len());
            let dims: Vec<usize> = order.iter().map(|a| ty.item()[*a]).collect();
            let going: Vec<bool> = order.iter().map(|a| gone[*a]).collect();
            let staying = order.iter().filter(|a| !gone[**a]);
            (keep || staying.is_sorted()).then(|| three(&dims, &going))?
        };
        let at_hand = cx.layout(0);
        let layouts = [at_hand, Layout::Plain];
        let Some((layout, dims)) = layouts.into_iter().find_map(|l| Some((l, ordered(l)?))) else {
            return Ok(false);
        };
        let src = cx.read(0, layout)?;
        // Without the dimensions that go, what stays is in order.
        let dst = cx.write(if keep { layout } else { Layout::Plain })?;
        let kernel = kernels::Reduce {
            name: self.name,
            src,
            dst,
            reduction,
            dims,
        };
        cx.push(kernel, 0)?;
        Ok(true)
    }
}

impl Operator for Reduce {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let integers = [Kind::Sum, Kind::Product, Kind::Least, Kind::Greatest];
        let wide = matches!(ty.dtype, DType::I32 | DType::I64);
        let bytes = matches!(ty.dtype, DType::I8 | DType::U8 | DType::Bool);
        let extreme = matches!(self.kind, Kind::Least | Kind::Greatest);
        if !(ty.dtype == DType::F32
            || (wide && integers.contains(&self.kind))
            || (bytes && extreme))
        {
            return Err(format!("an operand of {}", ty.dtype));
        }
        Ok(vec![Type::new(ty.dtype, parts_of(node, AXES)?.dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        Ok(vec![self.of(x, &call.attrs(), call.optional(1))?])
    }
    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        if self.by_kernel(cx)? {
            return Ok(());
        }
        let node = cx.view();
        let parts = parts_of(&node, AXES)?;
        let dtype = node.ty(0)?.dtype;
        let ((outer, outer_strides), (inner, inner_strides)) = (parts.outer, parts.inner);
        let dense = Layout::Plain.strides(&outer);
        let count: usize = inner.iter().product();
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        // Floats are summed in 64 bits, so that the order of elements does not show.
        let ty = match Ty::of(dtype) {
            Ty::Real => Ty::Double,
            other => other,
        };
        let mut program = Scalar::new(self.name);
        program.nest(&outer, &mut |s, place| {
            let base = s.once(index(place, &outer_strides));
            let mut most = None;
            if self.kind == Kind::LogSumExp {
                let greatest = s.var(Ex::Double(f64::NEG_INFINITY));
                s.nest(&inner, &mut |s, place| {
                    let x = s.load(src, dtype, base.clone() + index(place, &inner_strides));
                    s.set(greatest, Ex::Var(greatest).max(x.to(ty)));
                });
                most = Some(Ex::Var(greatest));
            }
            let sum = s.var(self.start(ty));
            s.nest(&inner, &mut |s, place| {
                let x = s.load(src, dtype, base.clone() + index(place, &inner_strides));
                let next = self.step(s, Ex::Var(sum), x.to(ty), most.clone());
                s.set(sum, next);
            });
            let value = match self.kind {
                Kind::Mean => Ex::Var(sum) / Ex::constant(ty, count as f64),
                Kind::L2 => Ex::Var(sum).un(Un::Sqrt),
                Kind::LogSum => functions::log(s, Ex::Var(sum)),
                Kind::LogSumExp => {
                    functions::log(s, Ex::Var(sum)) + most.unwrap_or(Ex::Double(0.0))
                }
                _ => Ex::Var(sum),
            };
            s.store(dst, dtype, index(place, &dense), value.to(Ty::of(dtype)));
        });
        cx.push(program, 0)
    }
}
