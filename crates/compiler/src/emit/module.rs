//! The module around the steps.

use super::func::Func;
use super::place::Places;
use crate::kernels::Kernel;
use sandpiper_core::abi::{ModuleAbi, SECTION, WASM_PAGE_BYTES};
use wasm_encoder::{
    BlockType, BranchHints, CodeSection, ConstExpr, CustomSection, ExportKind, ExportSection,
    Function, FunctionSection, GlobalSection, GlobalType, Instruction as I, MemorySection,
    MemoryType, Module, TypeSection, ValType,
};

/// The module that runs these kernels, in order, for each item of a batch. Every kernel is one
/// function, so that native code is made in pieces of bounded size. The same input gives the same
/// bytes.
pub(crate) fn module(kernels: &[&dyn Kernel], places: &Places, abi: &ModuleAbi) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32; 3], []);
    types.ty().function([ValType::I32], [ValType::I32]);
    types.ty().function([ValType::I32; 4], []);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    let mut all_hints = BranchHints::new();
    for (index, kernel) in kernels.iter().enumerate() {
        functions.function(0);
        let mut func = Func::new(places);
        if !kernel.shares() {
            func.only_first_part();
        }
        kernel.emit(&mut func);
        let (function, hints) = func.finish();
        code.function(&function);
        if !hints.is_empty() {
            all_hints.function_hints(index as u32, hints);
        }
    }
    let steps = kernels.len() as u32;
    functions.function(1);
    code.function(&infer(steps, abi.max_batch));
    functions.function(2);
    code.function(&step(steps));
    let pages = abi.memory_bytes / WASM_PAGE_BYTES;
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: pages,
        maximum: Some(pages),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut globals = GlobalSection::new();
    let constant = GlobalType {
        val_type: ValType::I32,
        mutable: false,
        shared: false,
    };
    globals.global(constant, &ConstExpr::i32_const(steps as i32));
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("infer", ExportKind::Func, steps);
    exports.export("step", ExportKind::Func, steps + 1);
    exports.export("steps", ExportKind::Global, 0);
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&memories)
        .section(&globals)
        .section(&exports);
    module.section(&all_hints).section(&code);
    let section = abi.to_section();
    module.section(&CustomSection {
        name: SECTION.into(),
        data: section.into(),
    });
    module.finish()
}

/// `infer(batch)`: 1 if the batch is 0 or too large; else all steps for each item, and 0.
fn infer(steps: u32, max_batch: u32) -> Function {
    let (batch, item) = (0, 1);
    let mut f = Function::new_with_locals_types([ValType::I32]);
    let mut op = |i: I<'_>| {
        f.instruction(&i);
    };
    op(I::LocalGet(batch));
    op(I::I32Const(1));
    op(I::I32Sub);
    op(I::I32Const(max_batch as i32));
    op(I::I32GeU);
    op(I::If(BlockType::Empty));
    op(I::I32Const(1));
    op(I::Return);
    op(I::End);
    op(I::Loop(BlockType::Empty));
    for step in 0..steps {
        op(I::LocalGet(item));
        op(I::I32Const(0));
        op(I::I32Const(1));
        op(I::Call(step));
    }
    op(I::LocalGet(item));
    op(I::I32Const(1));
    op(I::I32Add);
    op(I::LocalTee(item));
    op(I::LocalGet(batch));
    op(I::I32LtU);
    op(I::BrIf(0));
    op(I::End);
    op(I::I32Const(0));
    op(I::End);
    f
}

/// `step(step, item, part, parts)`: one part of one step for one item. A step that does not exist
/// traps.
fn step(steps: u32) -> Function {
    let mut f = Function::new([]);
    let mut op = |i: I<'_>| {
        f.instruction(&i);
    };
    for _ in 0..=steps {
        op(I::Block(BlockType::Empty));
    }
    op(I::LocalGet(0));
    let targets: Vec<u32> = (0..steps).collect();
    op(I::BrTable(targets.into(), steps));
    for step in 0..steps {
        op(I::End);
        (1..4).for_each(|parameter| op(I::LocalGet(parameter)));
        op(I::Call(step));
        op(I::Return);
    }
    op(I::End);
    op(I::Unreachable);
    op(I::End);
    f
}
