//! A random network of several layers, of the kinds that real networks consist of.

mod images;
mod sequences;
mod vectors;

use crate::network::{Network, Node};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sandpiper_compiler::Tensor;
use sandpiper_compiler::build::Attribute;
use sandpiper_compiler::tensor::Data;
use std::collections::BTreeMap;

/// Largest number of layers; a layer is one node or a few.
const LAYERS: usize = 9;

/// Widths that layers may have: most networks are narrow, so that many run in a short time; a few are
/// wide enough for what kernels do in blocks.
const NARROW: usize = 20;
const WIDE: usize = 72;

/// A value and its shape; the first dimension is a batch of 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    name: String,
    dims: Vec<usize>,
}

/// A network that grows.
pub(crate) struct Growing {
    dice: StdRng,
    network: Network,
    /// Largest number of channels or features that a layer gives.
    width: usize,
    /// All values that layers have given, so that later ones can join them.
    values: Vec<Value>,
}

/// The network of a seed.
pub fn network(seed: u64) -> Network {
    let mut dice = StdRng::seed_from_u64(seed);
    let wide = dice.random_bool(0.1);
    let (width, side) = if wide { (WIDE, 40) } else { (NARROW, 14) };
    let mut some = |low, high| dice.random_range(low..=high);
    let dims = match some(0, 3) {
        0 => vec![1, some(1, side), some(4, width)],
        1 => vec![1, some(1, 2 * width)],
        _ => vec![1, some(1, width / 2), some(5, side), some(5, side)],
    };
    let name = "x".to_owned();
    let sample = floats(&mut dice, &dims, 1.0);
    let network = Network {
        input: (name.clone(), sample),
        free_batch: dice.random_bool(0.5),
        constants: BTreeMap::new(),
        nodes: Vec::new(),
        outputs: Vec::new(),
    };
    let mut growing = Growing {
        dice,
        network,
        width,
        values: Vec::new(),
    };
    growing.grow(Value { name, dims })
}

/// A tensor of floats from `-size` to `size`.
fn floats(dice: &mut StdRng, dims: &[usize], size: f32) -> Tensor {
    let count = dims.iter().product();
    let values = (0..count).map(|_| dice.random_range(-size..size)).collect();
    Tensor::f32(dims, values).expect("as many values as the dimensions say")
}

impl Growing {
    fn grow(&mut self, mut value: Value) -> Network {
        let layers = self.within(2, LAYERS);
        for _ in 0..layers {
            self.values.push(value.clone());
            value = match value.dims.len() {
                4 => self.image_layer(&value),
                3 => self.sequence_layer(&value),
                _ => self.vector_layer(&value),
            };
        }
        self.network.outputs.push(value.name);
        if self.chance(0.2) {
            // A value that is read by others and leaves the network as well.
            let also = self.one(&self.network.nodes.clone()).output;
            if !self.network.outputs.contains(&also) {
                self.network.outputs.push(also);
            }
        }
        self.network.clone()
    }

    fn within(&mut self, low: usize, high: usize) -> usize {
        self.dice.random_range(low..=high)
    }

    fn chance(&mut self, share: f64) -> bool {
        self.dice.random_bool(share)
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.dice.random_range(0..of.len())].clone()
    }

    /// Adds a node; gives its value.
    fn node<'a>(
        &mut self,
        operator: &'static str,
        inputs: impl IntoIterator<Item = &'a str>,
        attributes: Vec<(&'static str, Attribute)>,
        dims: Vec<usize>,
    ) -> Value {
        let name = format!("v{}", self.network.nodes.len());
        self.network.nodes.push(Node {
            operator,
            inputs: inputs.into_iter().map(str::to_owned).collect(),
            output: name.clone(),
            attributes,
        });
        Value { name, dims }
    }

    /// A node of one value, without attributes, that keeps the shape.
    fn map(&mut self, operator: &'static str, x: &Value) -> Value {
        self.node(operator, [x.name.as_str()], vec![], x.dims.clone())
    }

    fn constant(&mut self, tensor: Tensor) -> String {
        let name = format!("c{}", self.network.constants.len());
        self.network.constants.insert(name.clone(), tensor);
        name
    }

    /// Random constants from `-size` to `size`.
    fn random(&mut self, dims: &[usize], size: f32) -> String {
        let tensor = floats(&mut self.dice, dims, size);
        self.constant(tensor)
    }

    /// Weights under which sums of `terms` products keep their size.
    fn weights(&mut self, dims: &[usize], terms: usize) -> String {
        self.random(dims, (3.0 / terms as f32).sqrt())
    }

    fn scalar(&mut self, value: f32) -> String {
        self.constant(Tensor::f32(&[], vec![value]).expect("one value for no dimensions"))
    }

    fn longs(&mut self, values: &[i64]) -> String {
        let data = Data::I64(values.to_vec());
        self.constant(Tensor::new(vec![values.len()], data).expect("a list of its own length"))
    }

    /// An activation, of any shape.
    fn activation(&mut self, x: &Value) -> Value {
        let float = |name, value| vec![(name, Attribute::Float(value))];
        let same = x.dims.clone();
        match self.within(0, 13) {
            0..=3 => self.map("Relu", x),
            4 => {
                let (low, high) = (self.scalar(0.0), self.scalar(6.0));
                self.node("Clip", [x.name.as_str(), &low, &high], vec![], same)
            }
            5 => self.node("LeakyRelu", [x.name.as_str()], float("alpha", 0.1), same),
            6 => self.node("Elu", [x.name.as_str()], float("alpha", 0.7), same),
            7 => self.map("Sigmoid", x),
            8 => self.map("Tanh", x),
            9 => self.map("HardSwish", x),
            10 => self.node("HardSigmoid", [x.name.as_str()], float("alpha", 0.25), same),
            11 => self.map("Softplus", x),
            12 => self.gelu(x),
            _ => {
                // x * sigmoid(x), as exporters write it.
                let y = self.map("Sigmoid", x);
                self.node("Mul", [x.name.as_str(), &y.name], vec![], same)
            }
        }
    }

    fn gelu(&mut self, x: &Value) -> Value {
        let (root, one, half) = (
            self.scalar(std::f32::consts::SQRT_2),
            self.scalar(1.0),
            self.scalar(0.5),
        );
        let same = || x.dims.clone();
        let y = self.node("Div", [x.name.as_str(), &root], vec![], same());
        let y = self.map("Erf", &y);
        let y = self.node("Add", [y.name.as_str(), &one], vec![], same());
        let y = self.node("Mul", [x.name.as_str(), &y.name], vec![], same());
        self.node("Mul", [y.name.as_str(), &half], vec![], same())
    }

    /// Arithmetic with a constant: one number, one per channel, or one per element.
    fn with_constant(&mut self, x: &Value) -> Value {
        let mut dims = x.dims[1..].to_vec();
        match self.within(0, 2) {
            0 => dims.clear(),
            1 => dims.iter_mut().skip(1).for_each(|d| *d = 1),
            _ => {}
        }
        let operator = self.one(&["Add", "Sub", "Mul", "Div", "Max", "Min"]);
        let tensor = floats(&mut self.dice, &dims, 1.0);
        // Quotients by numbers near zero would drown what came before.
        let apart = |v: &f32| if *v < 0.0 { v - 0.5 } else { v + 0.5 };
        let apart = tensor.as_f32().map(|v| v.iter().map(apart).collect());
        let apart = apart.and_then(|v| Tensor::f32(&dims, v)).unwrap_or(tensor);
        let c = self.constant(apart);
        let inputs = if operator != "Div" && self.chance(0.3) {
            [c.as_str(), &x.name]
        } else {
            [x.name.as_str(), &c]
        };
        self.node(operator, inputs, vec![], x.dims.clone())
    }

    /// Joins a value to one of the same shape that came before; to itself through an activation
    /// if there is none.
    fn join(&mut self, x: &Value) -> Value {
        let fits = |v: &&Value| v.dims == x.dims && v.name != x.name;
        let before: Vec<Value> = self.values.iter().filter(fits).cloned().collect();
        let other = if before.is_empty() {
            self.activation(x)
        } else {
            self.one(&before)
        };
        let operator = self.one(&["Add", "Add", "Mul", "Sub"]);
        let inputs = if self.chance(0.5) {
            [x.name.as_str(), &other.name]
        } else {
            [other.name.as_str(), &x.name]
        };
        self.node(operator, inputs, vec![], x.dims.clone())
    }
}

/// An attribute of integers.
fn ints(values: &[usize]) -> Attribute {
    Attribute::Ints(values.iter().map(|v| *v as i64).collect())
}
