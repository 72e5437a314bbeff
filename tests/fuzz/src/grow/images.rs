//! Layers over `[1, channels, height, width]`.

use super::{Growing, Value, ints};
use sandpiper_compiler::build::Attribute;

impl Growing {
    pub(super) fn image_layer(&mut self, x: &Value) -> Value {
        match self.within(0, 19) {
            0..=5 => self.conv_block(x),
            6 => self.batch_norm(x),
            7 => self.activation(x),
            8..=9 => self.join(x),
            10 => self.concat_channels(x),
            11..=12 => self.pool(x),
            13 => self.squeeze_and_excite(x),
            14 => self.with_constant(x),
            15 => self.pad(x),
            16 => self.slice_channels(x),
            17 => self.enlarge(x),
            18 => self.places_as_steps(x),
            _ => self.all_as_vector(x),
        }
    }

    /// A convolution, often with what follows it in real networks.
    fn conv_block(&mut self, x: &Value) -> Value {
        let mut y = self.conv(x);
        if self.chance(0.4) {
            y = self.batch_norm(&y);
        }
        if self.chance(0.6) {
            y = self.activation(&y);
        }
        y
    }

    fn conv(&mut self, x: &Value) -> Value {
        let [_, channels, height, width] = x.dims[..] else {
            return x.clone();
        };
        let (groups, outputs) = match self.within(0, 3) {
            0 => (channels, channels),
            1 if channels % 2 == 0 => (2, 2 * self.within(1, self.width / 2)),
            _ => (1, self.within(1, self.width)),
        };
        let short = height.min(width);
        let kernel = self.one(&[1, 1, 3, 3, 3, 5]).min(short);
        let dilation = if kernel == 3 && short >= 5 {
            self.one(&[1, 1, 2])
        } else {
            1
        };
        let stride = self.one(&[1, 1, 2]);
        let reach = dilation * (kernel - 1) + 1;
        let pads: Vec<usize> = match self.within(0, 2) {
            0 => vec![0; 4],
            1 => vec![reach / 2; 4],
            _ => (0..4).map(|_| self.within(0, reach - 1)).collect(),
        };
        let size = |length: usize, side: usize| {
            (length + pads[side] + pads[side + 2] - reach) / stride + 1
        };
        let dims = vec![1, outputs, size(height, 0), size(width, 1)];
        let each = channels / groups;
        let w = self.weights(&[outputs, each, kernel, kernel], each * kernel * kernel);
        let mut inputs = vec![x.name.clone(), w];
        if self.chance(0.6) {
            inputs.push(self.random(&[outputs], 0.3));
        }
        let attributes = vec![
            ("kernel_shape", ints(&[kernel; 2])),
            ("strides", ints(&[stride; 2])),
            ("dilations", ints(&[dilation; 2])),
            ("pads", ints(&pads)),
            ("group", Attribute::Int(groups as i64)),
        ];
        self.node("Conv", inputs.iter().map(String::as_str), attributes, dims)
    }

    fn batch_norm(&mut self, x: &Value) -> Value {
        let channels = [x.dims[1]];
        let scale = self.random(&channels, 1.5);
        let (bias, mean) = (self.random(&channels, 0.5), self.random(&channels, 0.5));
        let spread = super::floats(&mut self.dice, &channels, 0.5);
        let spread = spread.as_f32().map(|v| v.iter().map(|v| v + 1.0).collect());
        let spread = spread.and_then(|v| sandpiper_compiler::Tensor::f32(&channels, v));
        let variance = self.constant(spread.expect("as many as before"));
        let inputs = [x.name.as_str(), &scale, &bias, &mean, &variance];
        self.node("BatchNormalization", inputs, vec![], x.dims.clone())
    }

    fn concat_channels(&mut self, x: &Value) -> Value {
        let fits = |v: &&Value| v.dims.len() == 4 && v.dims[2..] == x.dims[2..];
        let mut parts: Vec<Value> = self.values.iter().filter(fits).cloned().collect();
        parts.truncate(2);
        parts.push(x.clone());
        let channels: usize = parts.iter().map(|v| v.dims[1]).sum();
        if channels > 2 * self.width {
            return self.conv(x);
        }
        let dims = vec![1, channels, x.dims[2], x.dims[3]];
        let names = parts.iter().map(|v| v.name.as_str());
        self.node("Concat", names, vec![("axis", Attribute::Int(1))], dims)
    }

    fn pool(&mut self, x: &Value) -> Value {
        let short = x.dims[2].min(x.dims[3]);
        if short < 3 {
            return self.activation(x);
        }
        let (kernel, stride) = (self.one(&[2, 3]), self.one(&[1, 2]));
        let pad = self.within(0, kernel - 1);
        let ceil = usize::from(self.chance(0.3) && pad == 0);
        let size = |length: usize| {
            let room = length + 2 * pad - kernel;
            if ceil == 1 {
                room.div_ceil(stride) + 1
            } else {
                room / stride + 1
            }
        };
        let dims = vec![1, x.dims[1], size(x.dims[2]), size(x.dims[3])];
        let mut attributes = vec![
            ("kernel_shape", ints(&[kernel; 2])),
            ("strides", ints(&[stride; 2])),
            ("pads", ints(&[pad; 4])),
            ("ceil_mode", Attribute::Int(ceil as i64)),
        ];
        let operator = self.one(&["MaxPool", "AveragePool"]);
        if operator == "AveragePool" && ceil == 0 {
            let count = i64::from(self.chance(0.5));
            attributes.push(("count_include_pad", Attribute::Int(count)));
        }
        self.node(operator, [x.name.as_str()], attributes, dims)
    }

    /// A gate for each channel, computed from the mean of all.
    fn squeeze_and_excite(&mut self, x: &Value) -> Value {
        let (channels, inner) = (x.dims[1], self.within(1, 6));
        let y = self.global_mean(x);
        let y = self.pointwise(&y, inner);
        let y = self.map("Relu", &y);
        let y = self.pointwise(&y, channels);
        let gate = self.one(&["Sigmoid", "HardSigmoid"]);
        let y = self.map(gate, &y);
        self.node("Mul", [x.name.as_str(), &y.name], vec![], x.dims.clone())
    }

    fn global_mean(&mut self, x: &Value) -> Value {
        let dims = vec![1, x.dims[1], 1, 1];
        self.node("GlobalAveragePool", [x.name.as_str()], vec![], dims)
    }

    fn pointwise(&mut self, x: &Value, outputs: usize) -> Value {
        let w = self.weights(&[outputs, x.dims[1], 1, 1], x.dims[1]);
        let b = self.random(&[outputs], 0.2);
        let dims = vec![1, outputs, x.dims[2], x.dims[3]];
        self.node("Conv", [x.name.as_str(), &w, &b], vec![], dims)
    }

    fn pad(&mut self, x: &Value) -> Value {
        let sides: Vec<usize> = (0..4).map(|_| self.within(0, 2)).collect();
        let [top, left, bottom, right] = sides[..] else {
            return x.clone();
        };
        let mode = self.one(&["constant", "constant", "reflect", "edge"]);
        if mode == "reflect" && x.dims[2].min(x.dims[3]) < 3 {
            return self.activation(x);
        }
        let pads = [0, 0, top, left, 0, 0, bottom, right].map(|v| v as i64);
        let pads = self.longs(&pads);
        let dims = vec![
            1,
            x.dims[1],
            x.dims[2] + top + bottom,
            x.dims[3] + left + right,
        ];
        let attributes = vec![("mode", Attribute::Text(mode.to_owned()))];
        self.node("Pad", [x.name.as_str(), &pads], attributes, dims)
    }

    fn slice_channels(&mut self, x: &Value) -> Value {
        let axis = self.within(1, 3);
        let length = x.dims[axis];
        let start = self.within(0, length - 1);
        let end = self.within(start + 1, length);
        let step = self.one(&[1, 1, 2]);
        let parts = [start, end, axis, step].map(|v| self.longs(&[v as i64]));
        let mut dims = x.dims.clone();
        dims[axis] = (end - start).div_ceil(step);
        let inputs = std::iter::once(x.name.as_str()).chain(parts.iter().map(String::as_str));
        self.node("Slice", inputs, vec![], dims)
    }

    /// Twice as high and wide, by repetition.
    fn enlarge(&mut self, x: &Value) -> Value {
        let [_, channels, height, width] = x.dims[..] else {
            return x.clone();
        };
        if height.max(width) > 8 {
            return self.pool(x);
        }
        let scales = vec![1.0, 1.0, 2.0, 2.0];
        let scales = sandpiper_compiler::Tensor::f32(&[4], scales).expect("four values");
        let scales = self.constant(scales);
        let attributes = vec![
            ("mode", Attribute::Text("nearest".to_owned())),
            ("nearest_mode", Attribute::Text("floor".to_owned())),
            (
                "coordinate_transformation_mode",
                Attribute::Text("asymmetric".to_owned()),
            ),
        ];
        let dims = vec![1, channels, 2 * height, 2 * width];
        self.node("Resize", [x.name.as_str(), "", &scales], attributes, dims)
    }

    /// Places become steps, channels features.
    fn places_as_steps(&mut self, x: &Value) -> Value {
        let [_, channels, height, width] = x.dims[..] else {
            return x.clone();
        };
        let shape = self.longs(&[0, channels as i64, -1]);
        let flat = vec![1, channels, height * width];
        let y = self.node("Reshape", [x.name.as_str(), &shape], vec![], flat);
        let perm = vec![("perm", ints(&[0, 2, 1]))];
        let dims = vec![1, height * width, channels];
        self.node("Transpose", [y.name.as_str()], perm, dims)
    }

    fn all_as_vector(&mut self, x: &Value) -> Value {
        let mut y = x.clone();
        if self.chance(0.7) {
            y = self.global_mean(x);
        }
        let size = y.dims.iter().product();
        let axis = vec![("axis", Attribute::Int(1))];
        self.node("Flatten", [y.name.as_str()], axis, vec![1, size])
    }
}
