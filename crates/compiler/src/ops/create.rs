//! ConstantOfShape, Range, EyeLike, Size, HannWindow, HammingWindow, BlackmanWindow: tensors that are
//! known when the model is compiled.

use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::math::turn;
use crate::onnx::{Attrs, dtype_of};
use crate::reference::numbers::{Number, numbers, tensor};
use crate::reference::places::places;
use crate::tensor::{Data, Tensor, elements};
use crate::typed::{BATCH_MARK, NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// Most elements that are made so: they become part of the weights.
const MAX_CREATED: usize = 1 << 24;

fn bounded(dims: Vec<usize>) -> Result<Vec<usize>, String> {
    match elements(&dims) {
        Some(n) if n <= MAX_CREATED => Ok(dims),
        _ => Err(format!("{dims:?} has more than {MAX_CREATED} elements")),
    }
}

macro_rules! known_operator {
    ($(#[$doc:meta])* $name:ident, $made:ident) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl Operator for $name {
            fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
                let made = $made(&node.attrs(), &values(node)?)?;
                Ok(vec![Type::new(made.dtype(), fixed(made.dims()))])
            }

            fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
                let inputs: Vec<&Tensor> = call.inputs.iter().flatten().copied().collect();
                Ok(vec![$made(&call.attrs(), &inputs)?])
            }

            fn lower(&self, _cx: &mut LowerCx<'_>) -> Result<(), String> {
                Err("it was not folded".into())
            }
        }
    };
}

fn values<'a>(node: &NodeView<'a>) -> Result<Vec<&'a Tensor>, String> {
    (0..node.inputs.len()).map(|i| node.constant(i)).collect()
}

fn filled(attrs: &Attrs<'_>, inputs: &[&Tensor]) -> Result<Tensor, String> {
    let shape = inputs.first().ok_or("the shape is missing")?.to_i64()?;
    if shape.contains(&BATCH_MARK) {
        return Err("its shape has the batch; give the input a fixed shape".into());
    }
    let size = |d: &i64| usize::try_from(*d).map_err(|_| format!("{shape:?} is not a shape"));
    let dims = bounded(shape.iter().map(size).collect::<Result<_, _>>()?)?;
    let value = attrs
        .tensor("value")?
        .unwrap_or(Tensor::f32(&[1], vec![0.0])?);
    let one = *numbers(&value).first().ok_or("the value is empty")?;
    let count = dims.iter().product();
    tensor(value.dtype(), dims, &vec![one; count])
}

fn range(_: &Attrs<'_>, inputs: &[&Tensor]) -> Result<Tensor, String> {
    let &[start, limit, delta] = inputs else {
        return Err("start, limit and delta are expected".into());
    };
    let first = |t: &Tensor| numbers(t).first().copied().ok_or("a bound is empty");
    let (a, b, d) = (first(start)?, first(limit)?, first(delta)?);
    let count = ((b.float() - a.float()) / d.float()).ceil().max(0.0);
    if !count.is_finite() || count as usize > MAX_CREATED {
        return Err(format!("{count} elements"));
    }
    let one = |i: usize| match (a, d) {
        (Number::Int(a), Number::Int(d)) => Number::Int(a + d * i as i64),
        (a, d) => Number::Float(a.float() + d.float() * i as f64),
    };
    let all: Vec<Number> = (0..count as usize).map(one).collect();
    tensor(start.dtype(), vec![all.len()], &all)
}

known_operator!(
    /// ConstantOfShape.
    ConstantOfShape, filled
);
known_operator!(
    /// Range.
    Range, range
);

/// A window of a raised cosine and, for the last term, one of twice the frequency.
fn window(attrs: &Attrs<'_>, inputs: &[&Tensor], terms: [f64; 3]) -> Result<Tensor, String> {
    let number = i32::try_from(attrs.int("output_datatype", 1)).unwrap_or(0);
    if dtype_of(number)? != DType::F32 {
        return Err("a window of integers".into());
    }
    let size = inputs.first().ok_or("the size is missing")?.to_i64()?;
    let size = size.first().and_then(|n| usize::try_from(*n).ok());
    let size = bounded(vec![size.ok_or("the size is negative")?])?[0];
    let whole = match attrs.int("periodic", 1) {
        0 => size.saturating_sub(1).max(1),
        _ => size,
    };
    let cosine = |i: usize| turn(i % whole, whole).0;
    let one = |i: usize| terms[0] - terms[1] * cosine(i) + terms[2] * cosine(2 * i);
    Tensor::f32(&[size], (0..size).map(|i| one(i) as f32).collect())
}

fn hann(attrs: &Attrs<'_>, inputs: &[&Tensor]) -> Result<Tensor, String> {
    window(attrs, inputs, [0.5, 0.5, 0.0])
}

fn hamming(attrs: &Attrs<'_>, inputs: &[&Tensor]) -> Result<Tensor, String> {
    window(attrs, inputs, [25.0 / 46.0, 21.0 / 46.0, 0.0])
}

fn blackman(attrs: &Attrs<'_>, inputs: &[&Tensor]) -> Result<Tensor, String> {
    window(attrs, inputs, [0.42, 0.5, 0.08])
}

known_operator!(
    /// HannWindow.
    HannWindow, hann
);
known_operator!(
    /// HammingWindow.
    HammingWindow, hamming
);
known_operator!(
    /// BlackmanWindow.
    BlackmanWindow, blackman
);

/// EyeLike: only the shape of the input counts.
pub(crate) struct EyeLike;

fn eye(attrs: &Attrs<'_>, dims: &[usize], like: DType) -> Result<Tensor, String> {
    let dtype = match attrs.int("dtype", 0) {
        0 => like,
        number => dtype_of(i32::try_from(number).unwrap_or(0))?,
    };
    if dims.len() != 2 {
        return Err("a matrix is expected".into());
    }
    let k = attrs.int("k", 0);
    let one = |place: Vec<usize>| Number::Int(i64::from(place[1] as i64 - place[0] as i64 == k));
    let all: Vec<Number> = places(&bounded(dims.to_vec())?).map(one).collect();
    tensor(dtype, dims.to_vec(), &all)
}

/// Size: the number of elements.
pub(crate) struct Size;

fn whole_shape(node: &NodeView<'_>) -> Result<Vec<usize>, String> {
    match node.ty(0)?.has_batch() {
        true => Err("it computes with the batch size; give the input a fixed shape".into()),
        false => Ok(node.ty(0)?.item()),
    }
}

fn size(dims: &[usize]) -> Result<Tensor, String> {
    Tensor::new(
        Vec::new(),
        Data::I64(vec![dims.iter().product::<usize>() as i64]),
    )
}

impl Operator for EyeLike {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let made = eye(&node.attrs(), &whole_shape(node)?, node.ty(0)?.dtype)?;
        Ok(vec![Type::new(made.dtype(), fixed(made.dims()))])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        Ok(vec![eye(&call.attrs(), x.dims(), x.dtype())?])
    }

    fn lower(&self, _cx: &mut LowerCx<'_>) -> Result<(), String> {
        Err("it was not folded".into())
    }

    fn known(&self, node: &NodeView<'_>) -> Result<Option<Vec<Tensor>>, String> {
        let made = eye(&node.attrs(), &whole_shape(node)?, node.ty(0)?.dtype)?;
        Ok(Some(vec![made]))
    }
}

impl Operator for Size {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        whole_shape(node)?;
        Ok(vec![Type::new(DType::I64, Vec::new())])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        Ok(vec![size(call.input(0)?.dims())?])
    }

    fn lower(&self, _cx: &mut LowerCx<'_>) -> Result<(), String> {
        Err("it was not folded".into())
    }

    fn known(&self, node: &NodeView<'_>) -> Result<Option<Vec<Tensor>>, String> {
        Ok(Some(vec![size(&whole_shape(node)?)?]))
    }
}
