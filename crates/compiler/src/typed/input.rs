//! Types of inputs.

use super::Type;
use super::import::check_type;
use crate::onnx::{ValueInfoProto, dtype_of};
use sandpiper_core::tensor::Dim;

/// The type of an input, and the name of its batch dimension if it has one.
pub(super) fn input_type<'a>(
    info: &'a ValueInfoProto,
    given: Option<&Vec<Option<u32>>>,
) -> Result<(Type, Option<&'a str>), String> {
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let tensor = tensor.ok_or("it is not a tensor")?;
    let dtype = dtype_of(tensor.elem_type)?;
    let shape = tensor.shape.as_ref().ok_or("its shape is not given")?;
    if given.is_some_and(|g| g.len() != shape.dim.len()) {
        return Err(format!(
            "it has {} dimensions, not as many as were given",
            shape.dim.len()
        ));
    }
    let (mut dims, mut batch) = (Vec::new(), None);
    for (i, dim) in shape.dim.iter().enumerate() {
        let pinned = given.and_then(|g| g.get(i).copied().flatten());
        dims.push(match (u32::try_from(dim.dim_value), pinned) {
            (Err(_), _) => return Err(format!("dimension {i} is {}", dim.dim_value)),
            (Ok(own), Some(n)) if own != 0 && own != n => {
                return Err(format!("dimension {i} is {own}, not {n}"));
            }
            (Ok(0), Some(0)) => return Err(format!("dimension {i} must not be 0")),
            (Ok(0), Some(n)) | (Ok(n), _) if n > 0 => Dim::Fixed(n),
            _ if i == 0 => {
                batch = Some(dim.dim_param.as_str());
                Dim::Batch
            }
            _ => return Err(format!("dimension {i} is free; give the input a shape")),
        });
    }
    let ty = Type::new(dtype, dims);
    check_type(&ty).map_err(|why| why.replace("its result", "it"))?;
    Ok((ty, batch))
}
