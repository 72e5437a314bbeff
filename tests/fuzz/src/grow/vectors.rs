//! Layers over `[1, features]`.

use super::{Growing, Value};
use sandpiper_compiler::build::Attribute;

impl Growing {
    pub(super) fn vector_layer(&mut self, x: &Value) -> Value {
        match self.within(0, 9) {
            0..=3 => self.gemm(x),
            4 => self.activation(x),
            5 => self.join(x),
            6 => self.with_constant(x),
            7 => {
                let last = vec![("axis", Attribute::Int(1))];
                self.node("Softmax", [x.name.as_str()], last, x.dims.clone())
            }
            8 => self.beside(x),
            _ => self.cut(x),
        }
    }

    fn gemm(&mut self, x: &Value) -> Value {
        let (features, width) = (x.dims[1], self.within(1, 2 * self.width));
        let transposed = self.chance(0.7);
        let sides = if transposed {
            [width, features]
        } else {
            [features, width]
        };
        let w = self.weights(&sides, features);
        let mut inputs = vec![x.name.clone(), w];
        if self.chance(0.8) {
            inputs.push(self.random(&[width], 0.3));
        }
        let attributes = vec![("transB", Attribute::Int(i64::from(transposed)))];
        let names = inputs.iter().map(String::as_str);
        let y = self.node("Gemm", names, attributes, vec![1, width]);
        if self.chance(0.5) {
            self.activation(&y)
        } else {
            y
        }
    }

    /// Beside itself, or another vector.
    fn beside(&mut self, x: &Value) -> Value {
        let vector = |v: &&Value| v.dims.len() == 2;
        let before: Vec<Value> = self.values.iter().filter(vector).cloned().collect();
        let other = self.one(&before);
        let width = x.dims[1] + other.dims[1];
        if width > 4 * self.width {
            return self.gemm(x);
        }
        let axis = vec![("axis", Attribute::Int(self.one(&[1, -1])))];
        self.node(
            "Concat",
            [x.name.as_str(), &other.name],
            axis,
            vec![1, width],
        )
    }

    fn cut(&mut self, x: &Value) -> Value {
        let start = self.within(0, x.dims[1] - 1);
        let end = self.within(start + 1, x.dims[1]);
        let parts = [start, end, 1].map(|v| self.longs(&[v as i64]));
        let inputs = std::iter::once(x.name.as_str()).chain(parts.iter().map(String::as_str));
        self.node("Slice", inputs, vec![], vec![1, end - start])
    }
}
