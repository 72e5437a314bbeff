//! From an ONNX file to a sandboxed module: typed graph, memory plan, wasm code and packed weights.
