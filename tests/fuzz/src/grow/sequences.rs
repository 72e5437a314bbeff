//! Layers over `[1, steps, features]`.

use super::{Growing, Value, ints};
use sandpiper_compiler::build::Attribute;

/// Attention costs the square of this.
const MAX_STEPS: usize = 64;

impl Growing {
    pub(super) fn sequence_layer(&mut self, x: &Value) -> Value {
        match self.within(0, 13) {
            0..=3 => self.dense(x),
            4 => self.layer_norm(x),
            5 => self.activation(x),
            6 => self.join(x),
            7..=8 => self.attention(x),
            9 => self.softmax(x),
            10 => self.swap(x),
            11 => self.with_constant(x),
            12 => self.mean_of_steps(x),
            _ => self.convolved(x),
        }
    }

    /// A product with constants, a bias and perhaps an activation.
    fn dense(&mut self, x: &Value) -> Value {
        let (features, width) = (x.dims[2], self.within(1, self.width));
        let w = self.weights(&[features, width], features);
        let dims = vec![1, x.dims[1], width];
        let mut y = self.node("MatMul", [x.name.as_str(), &w], vec![], dims.clone());
        if self.chance(0.7) {
            let b = self.random(&[width], 0.3);
            y = self.node("Add", [y.name.as_str(), &b], vec![], dims);
        }
        if self.chance(0.5) {
            self.activation(&y)
        } else {
            y
        }
    }

    fn layer_norm(&mut self, x: &Value) -> Value {
        let features = [x.dims[2]];
        if features == [1] {
            // Of a single feature nothing is left but noise.
            return self.activation(x);
        }
        let (scale, bias) = (self.random(&features, 1.0), self.random(&features, 0.5));
        let attributes = vec![
            ("axis", Attribute::Int(-1)),
            ("epsilon", Attribute::Float(1e-3)),
        ];
        let inputs = [x.name.as_str(), &scale, &bias];
        self.node("LayerNormalization", inputs, attributes, x.dims.clone())
    }

    fn softmax(&mut self, x: &Value) -> Value {
        let axis = self.one(&[-1, -1, 1, 2]);
        let attributes = vec![("axis", Attribute::Int(axis))];
        self.node("Softmax", [x.name.as_str()], attributes, x.dims.clone())
    }

    fn swap(&mut self, x: &Value) -> Value {
        let dims = vec![1, x.dims[2], x.dims[1]];
        if x.dims[1] > self.width {
            return self.dense(x);
        }
        self.node(
            "Transpose",
            [x.name.as_str()],
            vec![("perm", ints(&[0, 2, 1]))],
            dims,
        )
    }

    fn mean_of_steps(&mut self, x: &Value) -> Value {
        let keep = self.chance(0.3);
        let operator = self.one(&["ReduceMean", "ReduceMean", "ReduceMax"]);
        let attributes = vec![
            ("axes", ints(&[1])),
            ("keepdims", Attribute::Int(i64::from(keep))),
        ];
        let dims = if keep {
            vec![1, 1, x.dims[2]]
        } else {
            vec![1, x.dims[2]]
        };
        self.node(operator, [x.name.as_str()], attributes, dims)
    }

    /// A convolution over the steps.
    fn convolved(&mut self, x: &Value) -> Value {
        let [_, steps, features] = x.dims[..] else {
            return x.clone();
        };
        let (outputs, kernel) = (self.within(1, self.width), self.one(&[1, 3, 5]));
        let perm = || vec![("perm", ints(&[0, 2, 1]))];
        let y = self.node(
            "Transpose",
            [x.name.as_str()],
            perm(),
            vec![1, features, steps],
        );
        let w = self.weights(&[outputs, features, kernel], features * kernel);
        let b = self.random(&[outputs], 0.3);
        let attributes = vec![
            ("kernel_shape", ints(&[kernel])),
            ("pads", ints(&[kernel / 2; 2])),
        ];
        let dims = vec![1, outputs, steps];
        let y = self.node("Conv", [y.name.as_str(), &w, &b], attributes, dims);
        self.node(
            "Transpose",
            [y.name.as_str()],
            perm(),
            vec![1, steps, outputs],
        )
    }

    /// Attention of one or two heads over the steps.
    fn attention(&mut self, x: &Value) -> Value {
        let [_, steps, features] = x.dims[..] else {
            return x.clone();
        };
        if steps > MAX_STEPS {
            return self.dense(x);
        }
        let (heads, size) = (self.within(1, 2), self.within(1, 8));
        let query = self.heads(x, heads, size, [0, 2, 1, 3]);
        let key = self.heads(x, heads, size, [0, 2, 3, 1]);
        let value = self.heads(x, heads, size, [0, 2, 1, 3]);
        let square = vec![1, heads, steps, steps];
        let y = self.node(
            "MatMul",
            [query.name.as_str(), &key.name],
            vec![],
            square.clone(),
        );
        let root = self.scalar((size as f32).sqrt());
        let y = self.node("Div", [y.name.as_str(), &root], vec![], square.clone());
        let last = vec![("axis", Attribute::Int(-1))];
        let y = self.node("Softmax", [y.name.as_str()], last, square);
        let dims = vec![1, heads, steps, size];
        let y = self.node("MatMul", [y.name.as_str(), &value.name], vec![], dims);
        let perm = vec![("perm", ints(&[0, 2, 1, 3]))];
        let y = self.node(
            "Transpose",
            [y.name.as_str()],
            perm,
            vec![1, steps, heads, size],
        );
        let shape = self.longs(&[0, 0, (heads * size) as i64]);
        let dims = vec![1, steps, heads * size];
        let y = self.node("Reshape", [y.name.as_str(), &shape], vec![], dims);
        let w = self.weights(&[heads * size, features], heads * size);
        let y = self.node("MatMul", [y.name.as_str(), &w], vec![], x.dims.clone());
        self.node("Add", [x.name.as_str(), &y.name], vec![], x.dims.clone())
    }

    /// A product with constants, split into heads, with its dimensions in this order.
    fn heads(&mut self, x: &Value, heads: usize, size: usize, order: [usize; 4]) -> Value {
        let (steps, features) = (x.dims[1], x.dims[2]);
        let w = self.weights(&[features, heads * size], features);
        let wide = vec![1, steps, heads * size];
        let y = self.node("MatMul", [x.name.as_str(), &w], vec![], wide);
        let shape = self.longs(&[0, 0, heads as i64, size as i64]);
        let split = [1, steps, heads, size];
        let y = self.node("Reshape", [y.name.as_str(), &shape], vec![], split.to_vec());
        let dims = order.map(|d| split[d]).to_vec();
        self.node(
            "Transpose",
            [y.name.as_str()],
            vec![("perm", ints(&order))],
            dims,
        )
    }
}
