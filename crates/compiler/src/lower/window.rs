//! Windows over images: 1-D and 2-D as rows and columns, and their padding.

use super::dense::framed;
use super::loops::Span;
use super::{Layout, LowerCx};
use crate::emit::Ref;
use crate::kernels::{Copy, Fill, Form, Frame, Pixels};
use crate::reference::Fitted;
use crate::tensor::elements;
use crate::typed::Type;
use sandpiper_core::tensor::Dim;

/// A window over rows and columns; one spatial dimension is one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    /// Number of images.
    pub(crate) images: usize,
    /// Channels of the source.
    pub(crate) channels: usize,
    /// Source.
    pub(crate) input: [usize; 2],
    /// Result.
    pub(crate) out: [usize; 2],
    /// Size of the window.
    pub(crate) kernel: [usize; 2],
    /// Steps between windows.
    pub(crate) strides: [usize; 2],
    /// Steps within a window.
    pub(crate) dilations: [usize; 2],
    /// Padding before.
    pub(crate) begin: [usize; 2],
}

/// Dimensions of [N, C, spatial..]: N as it is, the others fixed.
pub(crate) fn image(ty: &Type) -> Result<Vec<usize>, String> {
    let dims = ty.item();
    if !(3..=4).contains(&dims.len()) {
        return Err(format!(
            "an input of {} dimensions; [N, C, W] or [N, C, H, W] is supported",
            dims.len()
        ));
    }
    Ok(dims)
}

/// The type of a result: N of the input, channels, and spatial dimensions.
pub(crate) fn result(input: &Type, dtype: sandpiper_core::tensor::DType, rest: &[usize]) -> Type {
    let first = input.dims.first().copied().unwrap_or(Dim::Fixed(1));
    let dims = std::iter::once(first)
        .chain(crate::typed::fixed(rest))
        .collect();
    Type::new(dtype, dims)
}

impl Geometry {
    /// Of an input of [N, C, spatial..].
    pub(crate) fn of(dims: &[usize], fitted: &Fitted) -> Self {
        let both = |v: &[usize], one: usize| match v {
            [w] => [one, *w],
            [h, w, ..] => [*h, *w],
            [] => [one, one],
        };
        Self {
            images: dims[0],
            channels: dims[1],
            input: both(&fitted.input, 1),
            out: both(&fitted.out, 1),
            kernel: both(&fitted.kernel, 1),
            strides: both(&fitted.strides, 1),
            dilations: both(&fitted.dilations, 1),
            begin: both(&fitted.begin, 0),
        }
    }

    /// Rows and columns from the first to the last that any window sees, padding included.
    fn extent(&self) -> [usize; 2] {
        [0, 1].map(|i| {
            (self.out[i] - 1) * self.strides[i] + (self.kernel[i] - 1) * self.dilations[i] + 1
        })
    }

    /// Rows and columns of the source with its padding.
    pub(crate) fn full(&self) -> [usize; 2] {
        let extent = self.extent();
        [0, 1].map(|i| extent[i].max(self.begin[i] + self.input[i]))
    }

    /// How windows lie over rows (0) or columns (1), for programs.
    pub(crate) fn span(&self, axis: usize) -> Span {
        Span {
            size: self.input[axis],
            stride: self.strides[axis],
            dilation: self.dilations[axis],
            begin: self.begin[axis],
        }
    }

    /// Whether any window reaches into padding.
    pub(crate) fn padded(&self) -> bool {
        let extent = self.extent();
        (0..2).any(|i| self.begin[i] > 0 || extent[i] > self.input[i])
    }

    /// The source with channels last and with padding of `fill` around it, and its size.
    pub(crate) fn source(
        &self,
        cx: &mut LowerCx<'_>,
        index: usize,
        fill: Fill,
    ) -> Result<(Ref, [usize; 2]), String> {
        if !self.padded() {
            return Ok((cx.read(index, Layout::Last)?, self.input));
        }
        let size = cx.ty(index)?.dtype.size_bytes();
        let full = self.full();
        let total = elements(&[self.images, full[0], full[1], self.channels]);
        let bytes = total.ok_or("its padded input is too large")? * size;
        let from = cx.layout(index);
        if from == Layout::Last || self.channels == 1 {
            return Ok((
                self.framed(cx, index, ("pad", &[Form::Same(size)], fill))?,
                full,
            ));
        }
        let src = cx.read(index, from)?;
        let dst = cx.temporary(bytes);
        let (c, [h, w]) = (self.channels, self.input);
        let logical = from.strides(&[self.images, c, h, w]);
        let [n_step, c_step, h_step, w_step] = [0, 1, 2, 3].map(|i| (logical[i] * size) as i64);
        let (row, pixel) = (full[1] * c * size, c * size);
        cx.push(
            Copy {
                name: "pad",
                src,
                dst,
                size,
                dims: vec![self.images, h, w, c],
                from: (0, vec![n_step, h_step, w_step, c_step]),
                to: (
                    (self.begin[0] * row + self.begin[1] * pixel) as u32,
                    vec![
                        (full[0] * row) as i64,
                        row as i64,
                        pixel as i64,
                        size as i64,
                    ],
                ),
                fill: Some((fill, bytes)),
            }
            .simplified(),
            0,
        )?;
        Ok((dst, full))
    }

    /// The source of input `index` with channels last, in one of these forms, with padding around it
    /// where windows reach into it.
    pub(crate) fn framed(
        &self,
        cx: &mut LowerCx<'_>,
        index: usize,
        (name, forms, fill): (&'static str, &[Form], Fill),
    ) -> Result<Ref, String> {
        let full = self.full();
        let [around, beside] = [0, 1].map(|i| {
            let before = self.begin[i];
            [before, full[i] - before - self.input[i]]
        });
        let total = elements(&[self.images, full[0], full[1], self.channels]);
        let total = total.ok_or("its padded input is too large")?;
        let frame = |src, dst, form| Frame {
            name,
            src,
            dst,
            form,
            images: self.images,
            rows: self.input[0],
            row: self.input[1] * self.channels,
            around,
            beside: beside.map(|n| n * self.channels),
            fill,
        };
        let src = cx.read(index, Layout::Last)?;
        framed(cx, forms, total, &|dst, form| frame(src, dst, form))
    }

    /// The output's pixels over a source of this size.
    pub(crate) fn pixels(&self, full: [usize; 2], size: usize) -> Pixels {
        let row = full[1] * self.channels * size;
        Pixels {
            images: self.images,
            out: self.out,
            steps: [
                full[0] * row,
                self.strides[0] * row,
                self.strides[1] * self.channels * size,
            ],
        }
    }
}
