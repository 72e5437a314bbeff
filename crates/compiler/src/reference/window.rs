//! Sliding windows: what convolution and pooling share.

use crate::onnx::Attrs;

/// Attributes of a window, one entry per spatial dimension.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    kernel: Option<Vec<usize>>,
    strides: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
    pads: Option<Vec<usize>>,
    auto_pad: String,
    /// A last window that reaches beyond the padding counts as well, if it begins before it.
    ceil: bool,
}

/// A window fitted to an input: everything by spatial dimension.
#[derive(Debug, Clone)]
pub(crate) struct Fitted {
    /// Size of the kernel.
    pub(crate) kernel: Vec<usize>,
    /// Size of the output.
    pub(crate) out: Vec<usize>,
    /// Size of the input.
    pub(crate) input: Vec<usize>,
    /// Steps between windows.
    pub(crate) strides: Vec<usize>,
    /// Steps within a window.
    pub(crate) dilations: Vec<usize>,
    /// Padding before the input.
    pub(crate) begin: Vec<usize>,
}

impl Window {
    /// Reads the attributes.
    pub(crate) fn of(attrs: &Attrs<'_>) -> Result<Self, String> {
        let ceil = attrs.int("ceil_mode", 0) != 0;
        if ceil && attrs.int("count_include_pad", 0) != 0 {
            return Err("ceil_mode with count_include_pad is not supported".into());
        }
        Ok(Self {
            kernel: attrs.sizes("kernel_shape")?,
            strides: attrs.sizes("strides")?,
            dilations: attrs.sizes("dilations")?,
            pads: attrs.sizes("pads")?,
            auto_pad: attrs.text("auto_pad", "NOTSET"),
            ceil,
        })
    }

    /// The window that is all of a spatial input.
    pub(crate) fn whole(input: &[usize]) -> Self {
        Self {
            kernel: Some(input.to_vec()),
            strides: None,
            dilations: None,
            pads: None,
            auto_pad: String::new(),
            ceil: false,
        }
    }

    /// Fits it to a spatial input; `weights` are the spatial dimensions of a convolution's
    /// weights, which stand in for a missing `kernel_shape`.
    pub(crate) fn fit(&self, input: &[usize], weights: Option<&[usize]>) -> Result<Fitted, String> {
        let rank = input.len();
        let kernel = self
            .kernel
            .as_deref()
            .or(weights)
            .ok_or("kernel_shape is missing")?
            .to_vec();
        let ones = || vec![1; rank];
        let strides = self.strides.clone().unwrap_or_else(ones);
        let dilations = self.dilations.clone().unwrap_or_else(ones);
        if [&kernel, &strides, &dilations]
            .iter()
            .any(|v| v.len() != rank || v.contains(&0))
        {
            return Err(format!(
                "the window does not fit an input of {rank} spatial dimensions"
            ));
        }
        let span: Vec<_> = (0..rank)
            .map(|i| (kernel[i] - 1) * dilations[i] + 1)
            .collect();
        let (mut begin, mut end) = (vec![0; rank], vec![0; rank]);
        match self.auto_pad.as_str() {
            "NOTSET" | "" => {
                let pads = self.pads.clone().unwrap_or_else(|| vec![0; 2 * rank]);
                if pads.len() != 2 * rank {
                    return Err(format!("pads needs {} entries", 2 * rank));
                }
                begin.copy_from_slice(&pads[..rank]);
                end.copy_from_slice(&pads[rank..]);
            }
            "VALID" => {}
            same @ ("SAME_UPPER" | "SAME_LOWER") => {
                for i in 0..rank {
                    let out = input[i].div_ceil(strides[i]);
                    let need =
                        (out.saturating_sub(1) * strides[i] + span[i]).saturating_sub(input[i]);
                    let small = need / 2;
                    begin[i] = if same == "SAME_UPPER" {
                        small
                    } else {
                        need - small
                    };
                    end[i] = need - begin[i];
                }
            }
            other => return Err(format!("auto_pad `{other}` is not known")),
        }
        let mut out = Vec::with_capacity(rank);
        for i in 0..rank {
            let padded = input[i] + begin[i] + end[i];
            let room = padded
                .checked_sub(span[i])
                .ok_or("the kernel is larger than the input")?;
            let rounded = if self.ceil {
                let windows = room.div_ceil(strides[i]) + 1;
                // One that begins behind the input sees nothing but padding.
                windows - usize::from((windows - 1) * strides[i] >= input[i] + begin[i])
            } else {
                room / strides[i] + 1
            };
            out.push(rounded);
        }
        Ok(Fitted {
            kernel,
            out,
            input: input.to_vec(),
            strides,
            dilations,
            begin,
        })
    }
}

impl Fitted {
    /// Calls `visit(kernel element, input element)` for each element of the kernel that lies
    /// over the input (not the padding) at output element `at`.
    pub(crate) fn visit(&self, at: usize, mut visit: impl FnMut(usize, usize)) {
        let place = unravel(at, &self.out);
        let total: usize = self.kernel.iter().product();
        'kernel: for k in 0..total {
            let offset = unravel(k, &self.kernel);
            let mut source = 0;
            for i in 0..self.input.len() {
                let padded = place[i] * self.strides[i] + offset[i] * self.dilations[i];
                match padded.checked_sub(self.begin[i]) {
                    Some(x) if x < self.input[i] => source = source * self.input[i] + x,
                    _ => continue 'kernel,
                }
            }
            visit(k, source);
        }
    }
}

/// The coordinates of flat element `index` in `dims`.
pub(crate) fn unravel(mut index: usize, dims: &[usize]) -> Vec<usize> {
    let mut place = vec![0; dims.len()];
    for (p, d) in place.iter_mut().zip(dims).rev() {
        *p = index % d;
        index /= d;
    }
    place
}
