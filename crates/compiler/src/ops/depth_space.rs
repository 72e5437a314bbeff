//! DepthToSpace and SpaceToDepth: blocks of pixels from and to channels.

use super::{Call, Operator};
use crate::kernels::Copy;
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};

/// DepthToSpace and SpaceToDepth.
pub(crate) struct Depth {
    to_space: bool,
}

/// DepthToSpace.
pub(crate) static DEPTH_TO_SPACE: Depth = Depth { to_space: true };
/// SpaceToDepth.
pub(crate) static SPACE_TO_DEPTH: Depth = Depth { to_space: false };

/// The input as an array of six dimensions, the order of them in the result, and its shape.
type Blocks = ([usize; 6], [usize; 6], Vec<usize>);

impl Depth {
    fn plan(&self, attrs: &Attrs<'_>, dims: &[usize]) -> Result<Blocks, String> {
        let &[n, c, h, w] = dims else {
            return Err("an image of [N, C, H, W] is expected".into());
        };
        let b = usize::try_from(attrs.int("blocksize", 0)).unwrap_or(0);
        let fits = match self.to_space {
            true => b > 0 && c % (b * b) == 0,
            false => b > 0 && h % b == 0 && w % b == 0,
        };
        if !fits {
            return Err(format!("blocks of {b} do not divide {dims:?}"));
        }
        if !self.to_space {
            let out = vec![n, c * b * b, h / b, w / b];
            return Ok(([n, c, h / b, b, w / b, b], [0, 3, 5, 1, 2, 4], out));
        }
        let out = vec![n, c / (b * b), h * b, w * b];
        Ok(match attrs.text("mode", "DCR").as_str() {
            "CRD" => ([n, c / (b * b), b, b, h, w], [0, 1, 4, 2, 5, 3], out),
            _ => ([n, b, b, c / (b * b), h, w], [0, 3, 4, 1, 5, 2], out),
        })
    }
}

impl Operator for Depth {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let (_, _, out) = self.plan(&node.attrs(), &ty.item())?;
        let mut dims = fixed(&out);
        dims[0] = ty.dims[0];
        Ok(vec![Type::new(ty.dtype, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let (view, order, out) = self.plan(&call.attrs(), x.dims())?;
        let turned = order.map(|a| view[a]);
        let sources: Vec<usize> = places(&turned)
            .map(|place| {
                let mut from = [0; 6];
                order.iter().zip(&place).for_each(|(a, p)| from[*a] = *p);
                ravel(&from, &view)
            })
            .collect();
        Ok(vec![x.gathered(out, |i| sources[i])?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let ty = node.ty(0)?;
        let (view, order, _) = self.plan(&node.attrs(), &ty.item())?;
        let size = ty.dtype.size_bytes();
        let bytes = |v: Vec<usize>| v.into_iter().map(|s| (s * size) as i64).collect();
        let strides = Layout::Plain.strides(&view);
        let turned: Vec<usize> = order.iter().map(|a| view[*a]).collect();
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let kernel = Copy {
            name: "depth-space",
            src,
            dst,
            size,
            from: (0, bytes(order.iter().map(|a| strides[*a]).collect())),
            to: (0, bytes(Layout::Plain.strides(&turned))),
            dims: turned,
            fill: None,
        };
        cx.push(kernel.simplified(), 0)
    }
}
