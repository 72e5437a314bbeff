//! wasmtime behind one door: native code per target, mapped weights, limits, deadlines.
