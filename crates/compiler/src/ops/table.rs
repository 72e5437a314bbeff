//! Functions of one byte by a table of 256: QLinearSigmoid, QLinearLeakyRelu, and what the rewriting
//! makes of any function between dequantising and quantising.

use super::{Call, Operator};
use crate::emit::Ref;
use crate::kernels::Scalar;
use crate::lower::scales::{Scale, eight_bit, result_dtype};
use crate::lower::{Layout, LowerCx};
use crate::reference::qlinear;
use crate::reference::quantize::Scales;
use crate::tensor::{Data, Tensor};
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// All bytes in the order of their bits, as elements of a type.
pub(crate) fn all_bytes(dtype: DType) -> Result<Tensor, String> {
    let bytes = 0..=u8::MAX;
    let data = match dtype {
        DType::I8 => Data::I8(bytes.map(|b| b as i8).collect()),
        _ => Data::U8(bytes.collect()),
    };
    Tensor::new(vec![256], data)
}

/// Adds the program that looks each byte of input 0 up, in whatever order they lie, and gives where the
/// results are.
fn looked_up(cx: &mut LowerCx<'_>, input: usize, table: &[u8], dst: Ref) -> Result<(), String> {
    let layout = cx.layout(input);
    let (n, src) = (cx.ty(input)?.elements(), cx.read(input, layout)?);
    let table = cx.weights(table)?;
    let mut program = Scalar::new("lookup");
    program.each(n, |s, i| {
        let byte = s.load(src, DType::U8, i.clone());
        let value = s.load(table, DType::U8, byte);
        s.store(dst, DType::U8, i, value);
    });
    cx.push_int(program, 0)
}

/// The bytes of input `index` with another scale and zero point, in the order in which they lie, which
/// is given too.
pub(crate) fn requantized(
    cx: &mut LowerCx<'_>,
    index: usize,
    (from, to): (Scale, Scale),
    dtype: DType,
) -> Result<(Ref, Layout), String> {
    let layout = cx.layout(index);
    let have = cx.ty(index)?.dtype;
    if from == to && have == dtype {
        return Ok((cx.read(index, layout)?, layout));
    }
    let table = table((from, have), (to, dtype), &|x| x)?;
    let dst = cx.temporary(cx.ty(index)?.bytes());
    looked_up(cx, index, &table, dst)?;
    Ok((dst, layout))
}

/// The table of a function of floats.
fn table(
    (x, x_type): (Scale, DType),
    (y, y_type): (Scale, DType),
    function: &dyn Fn(f32) -> f32,
) -> Result<Vec<u8>, String> {
    let scales = |s: Scale| {
        let zero = Tensor::new(Vec::new(), Data::I32(vec![s.zero]))?;
        Scales::of(&[256], 0, &Tensor::f32(&[], vec![s.scale])?, Some(&zero))
    };
    let floats = scales(x)?.dequantize(&all_bytes(x_type)?)?;
    let values = floats.as_f32()?.iter().map(|x| function(*x)).collect();
    let bytes = scales(y)?.quantize(&Tensor::f32(&[256], values)?, y_type)?;
    Ok(bytes.to_bytes())
}

/// A function of one quantised value: x, x_scale, x_zero, y_scale, y_zero.
pub(crate) struct Quantised(fn(f32, f32) -> f32);

/// QLinearSigmoid.
pub(crate) static SIGMOID: Quantised =
    Quantised(|x, _| (1.0 / (1.0 + (-f64::from(x)).exp())) as f32);
/// QLinearLeakyRelu.
pub(crate) static LEAKY_RELU: Quantised = Quantised(|x, alpha| if x < 0.0 { alpha * x } else { x });

impl Operator for Quantised {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        eight_bit(ty.dtype)?;
        Scale::at(node, 1)?;
        Scale::at(node, 3)?;
        Ok(vec![Type::new(result_dtype(node, 4)?, ty.dims.clone())])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (function, alpha) = (self.0, call.attrs().float("alpha").unwrap_or(0.01));
        call.run(qlinear::unary(move |x| function(x, alpha)))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (x, y) = (Scale::at(&node, 1)?, Scale::at(&node, 3)?);
        let (from, to) = ((x, node.ty(0)?.dtype), (y, cx.out()?.dtype));
        let alpha = node.attrs().float("alpha").unwrap_or(0.01);
        let table = table(from, to, &|x| (self.0)(x, alpha))?;
        let dst = cx.write(cx.layout(0))?;
        looked_up(cx, 0, &table, dst)
    }
}

/// Bytes, and a constant table of the 256 results by the bits of a byte. Only made by the rewriting.
pub(crate) struct Lookup;

impl Operator for Lookup {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let (ty, table) = (node.ty(0)?, node.constant(1)?);
        eight_bit(ty.dtype)?;
        eight_bit(table.dtype())?;
        match table.len() {
            256 => Ok(vec![Type::new(table.dtype(), ty.dims.clone())]),
            n => Err(format!("a table of {n} entries")),
        }
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, table) = (call.input(0)?, call.input(1)?);
        let bytes = x.to_bytes();
        Ok(vec![
            table.gathered(x.dims().to_vec(), |i| usize::from(bytes[i]))?,
        ])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let table = cx.view().constant(1)?.to_bytes();
        let dst = cx.write(cx.layout(0))?;
        looked_up(cx, 0, &table, dst)
    }
}
