//! Concat.

use super::quantize::axis_of;
use super::{Built, plain, required};
use crate::onnx::Attrs;
use crate::tensor::{Data, Tensor};

/// Rows of `each` elements from every input in turn.
fn joined<T: Copy>(parts: &[(&[T], usize)], outer: usize) -> Vec<T> {
    let row = |i: usize| {
        parts
            .iter()
            .flat_map(move |(v, each)| &v[i * each..(i + 1) * each])
    };
    (0..outer).flat_map(row).copied().collect()
}

/// Builds the operator.
pub(crate) fn build(attrs: &Attrs<'_>) -> Built {
    along(attrs.int("axis", 0))
}

/// Joins along an axis.
pub(crate) fn along(axis: i64) -> Built {
    plain(move |inputs| {
        let first = required(inputs, 0)?;
        let axis = axis_of(axis, first.dims().len())?;
        let mut dims = first.dims().to_vec();
        dims[axis] = 0;
        let tensors: Vec<&Tensor> = (0..inputs.len())
            .map(|i| required(inputs, i))
            .collect::<Result<_, _>>()?;
        for tensor in &tensors {
            let fits = |(i, d): (usize, &usize)| i == axis || *d == first.dims()[i];
            let same = tensor.dtype() == first.dtype() && tensor.dims().len() == dims.len();
            if !same || !tensor.dims().iter().enumerate().all(fits) {
                return Err(format!(
                    "{:?} does not fit {:?}",
                    tensor.dims(),
                    first.dims()
                ));
            }
            dims[axis] += tensor.dims()[axis];
        }
        let outer: usize = dims[..axis].iter().product();
        macro_rules! join {
            ($kind:ident) => {{
                let mut parts = Vec::new();
                for tensor in &tensors {
                    if let Data::$kind(v) = tensor.data() {
                        parts.push((v.as_slice(), v.len() / outer.max(1)));
                    }
                }
                Data::$kind(joined(&parts, outer))
            }};
        }
        let data = match first.data() {
            Data::F32(_) => join!(F32),
            Data::I8(_) => join!(I8),
            Data::U8(_) => join!(U8),
            Data::I32(_) => join!(I32),
            Data::I64(_) => join!(I64),
            Data::Bool(_) => join!(Bool),
        };
        Ok(vec![Tensor::new(dims, data)?])
    })
}
