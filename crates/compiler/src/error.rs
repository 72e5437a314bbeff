//! Why an ONNX file does not become a module.

/// A node that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the node, or its place if it has none.
    pub node: String,
    /// Operator, with its domain unless it is the default one.
    pub operator: String,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.node, self.operator, self.why)
    }
}

/// Why an ONNX file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The bytes are not an ONNX model.
    #[error("this is not a complete ONNX model: {0}")]
    NotOnnx(String),
    /// Some nodes cannot be compiled; all of them are listed.
    #[error("{} of its nodes are not supported:{}", .0.len(), list(.0))]
    Unsupported(Vec<Refusal>),
    /// A file, tensor or graph is larger than the limits.
    #[error("{what} is too large: {size}, the limit is {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// An option is out of range.
    #[error("{0}")]
    Options(String),
    /// An input tensor is missing or has another type or shape.
    #[error("input `{name}`: {why}")]
    Input {
        /// Name of the input.
        name: String,
        /// What is wrong.
        why: String,
    },
}

fn list(refusals: &[Refusal]) -> String {
    refusals.iter().map(|r| format!("\n  {r}")).collect()
}
