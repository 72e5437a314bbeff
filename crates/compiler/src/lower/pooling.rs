//! What the pooling operators share.

use super::window::{Geometry, image, result};
use super::{Layout, LowerCx};
use crate::kernels::{Pool, Pooling};
use crate::reference::Window;
use crate::typed::{Clamp, NodeView, Type};
use sandpiper_core::tensor::DType;

/// The window of a pooling operator; of all there is, for a global one.
pub(crate) fn geometry(node: &NodeView<'_>, global: bool) -> Result<Geometry, String> {
    let dims = image(node.ty(0)?)?;
    if node.attrs().int("channels_last", 0) != 0 {
        return Err("channels_last is not supported".into());
    }
    let spatial = &dims[2..];
    let window = if global {
        Window::whole(spatial)
    } else {
        Window::of(&node.attrs())?
    };
    let fitted = window.fit(spatial, None)?;
    Ok(Geometry::of(&dims, &fitted))
}

/// The type of the result.
pub(crate) fn infer(node: &NodeView<'_>, global: bool, dtype: DType) -> Result<Vec<Type>, String> {
    let g = geometry(node, global)?;
    let padded_away = (0..2).any(|i| g.begin[i] > (g.kernel[i] - 1) * g.dilations[i]);
    let last = |i: usize| (g.out[i] - 1) * g.strides[i];
    if padded_away || (0..2).any(|i| last(i) >= g.begin[i] + g.input[i]) {
        return Err("a window lies in padding only".into());
    }
    let ty = node.ty(0)?;
    let spatial = &g.out[4 - ty.dims.len()..];
    Ok(vec![result(ty, dtype, &[&[g.channels], spatial].concat())])
}

/// Adds the kernel.
pub(crate) fn lower(cx: &mut LowerCx<'_>, global: bool, pooling: Pooling) -> Result<(), String> {
    let node = cx.view();
    let g = geometry(&node, global)?;
    let dtype = node.ty(0)?.dtype;
    let src = cx.read(0, Layout::Last)?;
    let dst = cx.write(Layout::Last)?;
    let clamp = if dtype == DType::F32 {
        cx.node.clamp
    } else {
        Clamp::NONE
    };
    let kernel = Pool {
        src,
        dst,
        pooling,
        dtype,
        images: g.images,
        channels: g.channels,
        input: g.input,
        out: g.out,
        kernel: g.kernel,
        strides: g.strides,
        dilations: g.dilations,
        begin: g.begin,
        padded: g.padded(),
        clamp,
    };
    match pooling {
        Pooling::QuantizedMean { .. } => cx.push_int(kernel, 0),
        _ => cx.push(kernel, 0),
    }
}

/// Whether padding counts in a mean.
pub(crate) fn with_padding(node: &NodeView<'_>) -> bool {
    node.attrs().int("count_include_pad", 0) != 0
}
