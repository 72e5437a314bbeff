//! Attributes of a node, with their defaults.

use super::{AttributeProto, GraphProto, NodeProto, tensor_of};
use crate::tensor::Tensor;

/// The attributes of one node.
pub(crate) struct Attrs<'a>(&'a [AttributeProto]);

impl<'a> Attrs<'a> {
    /// Of this node.
    pub(crate) fn of(node: &'a NodeProto) -> Self {
        Self(&node.attribute)
    }

    fn find(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.iter().find(|a| a.name == name)
    }

    /// An integer.
    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.find(name).map_or(default, |a| a.i)
    }

    /// A float.
    pub(crate) fn float(&self, name: &str) -> Option<f32> {
        self.find(name).map(|a| a.f)
    }

    /// Whether there is one of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Texts.
    pub(crate) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let text = |s: &Vec<u8>| String::from_utf8_lossy(s).into_owned();
        self.find(name)
            .map(|a| a.strings.iter().map(text).collect())
    }

    /// Floats.
    pub(crate) fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.find(name).map(|a| a.floats.clone())
    }

    /// Integers.
    pub(crate) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.find(name).map(|a| a.ints.clone())
    }

    /// Integers that must not be negative.
    pub(crate) fn sizes(&self, name: &str) -> Result<Option<Vec<usize>>, String> {
        let Some(ints) = self.ints(name) else {
            return Ok(None);
        };
        let sizes: Result<Vec<_>, _> = ints.iter().map(|i| usize::try_from(*i)).collect();
        match sizes {
            Ok(sizes) if sizes.iter().all(|s| *s <= 1 << 20) => Ok(Some(sizes)),
            _ => Err(format!("attribute `{name}` is out of range: {ints:?}")),
        }
    }

    /// A text.
    pub(crate) fn text(&self, name: &str, default: &str) -> String {
        let text = self
            .find(name)
            .map(|a| String::from_utf8_lossy(&a.s).into_owned());
        text.unwrap_or_else(|| default.to_owned())
    }

    /// A graph.
    pub(crate) fn graph(&self, name: &str) -> Option<&'a GraphProto> {
        self.find(name).and_then(|a| a.g.as_ref())
    }

    /// A tensor.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Tensor>, String> {
        self.find(name)
            .and_then(|a| a.t.as_ref())
            .map(tensor_of)
            .transpose()
    }
}
