//! Random models and damaged files for the compiler, each from a seed, so that every finding can be
//! repeated.
//!
//! | module | what it holds |
//! |---|---|
//! | [`network`] | a model as nodes over values of known shape, and its ONNX file |
//! | [`grow`] | a random network of several layers |
//! | [`quantise`] | the same network between quantisation and dequantisation (QDQ) |
//! | [`verdict`] | the compiled network held against the results of another engine |
//! | [`wire`] | any protobuf message as a tree, without its schema |
//! | [`damage`] | files that are broken in ways that a parser does not catch |
//!
//! Whoever runs it (`cargo xtask fuzz`) brings the other engine.

pub mod damage;
pub mod grow;
pub mod network;
pub mod quantise;
pub mod verdict;
pub mod wire;
