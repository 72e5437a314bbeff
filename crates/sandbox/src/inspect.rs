//! Reads a module and holds it against the rules of ABI v1, before a compiler sees it.

use crate::error::SandboxError;
use crate::limits::MAX_TABLE_ENTRIES;
use sandpiper_core::abi::{self, ModuleAbi, WASM_PAGE_BYTES};
use wasmparser::{
    BinaryReaderError, CompositeInnerType, ConstExpr, DataKind, ExternalKind, MemoryType, Operator,
    Parser, Payload, TableType, ValType,
};

/// Longest module in bytes. Code only: weights travel apart, so this is many times the largest
/// network that fits into a device. It bounds what the compiler is asked to do.
const MAX_WASM_BYTES: usize = 32 << 20;

/// What the rules are about.
#[derive(Default)]
struct Facts<'a> {
    abi_sections: Vec<&'a [u8]>,
    memories: Vec<MemoryType>,
    tables: Vec<TableType>,
    /// Parameters and results of every type; `None` for a type that is no function.
    types: Vec<Option<(Vec<ValType>, Vec<ValType>)>>,
    /// Index of the type of every function.
    functions: Vec<u32>,
    memory_export: Option<(ExternalKind, u32)>,
    infer_export: Option<(ExternalKind, u32)>,
    /// Start and end of every data segment that is copied at instantiation.
    data: Vec<(u64, u64)>,
    has_start: bool,
}

/// The ABI of a module that keeps every rule.
pub(crate) fn inspect(wasm: &[u8]) -> Result<ModuleAbi, SandboxError> {
    if wasm.len() > MAX_WASM_BYTES {
        let (size_bytes, limit_bytes) = (wasm.len(), MAX_WASM_BYTES);
        return Err(SandboxError::TooLarge {
            size_bytes,
            limit_bytes,
        });
    }
    let facts = read(wasm)?;
    let [section] = facts.abi_sections[..] else {
        return Err(SandboxError::AbiSection {
            found: facts.abi_sections.len(),
        });
    };
    let abi = ModuleAbi::from_section(section)?;
    if facts.has_start {
        return refuse("it has a start function, which would run before any limit is in force");
    }
    check_exports(&facts)?;
    check_memory(&facts, &abi)?;
    check_tables(&facts)?;
    check_data(&facts, &abi)?;
    Ok(abi)
}

fn read(wasm: &[u8]) -> Result<Facts<'_>, SandboxError> {
    let mut facts = Facts::default();
    for payload in Parser::new(0).parse_all(wasm) {
        note(&mut facts, payload.map_err(invalid)?)?;
    }
    Ok(facts)
}

fn note<'a>(facts: &mut Facts<'a>, payload: Payload<'a>) -> Result<(), SandboxError> {
    match payload {
        Payload::Version {
            encoding: wasmparser::Encoding::Component,
            ..
        } => {
            return refuse("it is a component; a core module is needed");
        }
        Payload::TypeSection(groups) => {
            for group in groups {
                for ty in group.map_err(invalid)?.into_types() {
                    facts.types.push(match ty.composite_type.inner {
                        CompositeInnerType::Func(f) => {
                            Some((f.params().to_vec(), f.results().to_vec()))
                        }
                        _ => None,
                    });
                }
            }
        }
        Payload::ImportSection(imports) => {
            if let Some(import) = imports.into_imports().next() {
                let import = import.map_err(invalid)?;
                let (module, name) = (printable(import.module), printable(import.name));
                return Err(SandboxError::Import { module, name });
            }
        }
        Payload::FunctionSection(functions) => {
            for index in functions {
                facts.functions.push(index.map_err(invalid)?);
            }
        }
        Payload::TableSection(tables) => {
            for table in tables {
                facts.tables.push(table.map_err(invalid)?.ty);
            }
        }
        Payload::MemorySection(memories) => {
            for memory in memories {
                facts.memories.push(memory.map_err(invalid)?);
            }
        }
        Payload::ExportSection(exports) => {
            for export in exports {
                let export = export.map_err(invalid)?;
                match export.name {
                    "memory" => facts.memory_export = Some((export.kind, export.index)),
                    "infer" => facts.infer_export = Some((export.kind, export.index)),
                    _ => {}
                }
            }
        }
        Payload::StartSection { .. } => facts.has_start = true,
        Payload::DataSection(segments) => {
            for segment in segments {
                let segment = segment.map_err(invalid)?;
                if let DataKind::Active { offset_expr, .. } = segment.kind {
                    let start = constant(&offset_expr)?;
                    facts.data.push((start, start + segment.data.len() as u64));
                }
            }
        }
        Payload::CustomSection(section) if section.name() == abi::SECTION => {
            facts.abi_sections.push(section.data());
        }
        // The rest is validated by the compiler.
        _ => {}
    }
    Ok(())
}

fn check_exports(facts: &Facts<'_>) -> Result<(), SandboxError> {
    let wrong = |name, expected, found: String| {
        Err(SandboxError::Export {
            name,
            expected,
            found,
        })
    };
    match facts.memory_export {
        Some((ExternalKind::Memory, 0)) => {}
        Some((kind, _)) => return wrong("memory", "its memory", format!("{kind:?}")),
        None => return wrong("memory", "its memory", "nothing".into()),
    }
    let expected = "a function (i32) -> i32";
    let index = match facts.infer_export {
        Some((ExternalKind::Func, index)) => index as usize,
        Some((kind, _)) => return wrong("infer", expected, format!("{kind:?}")),
        None => return wrong("infer", expected, "nothing".into()),
    };
    let ty = facts
        .functions
        .get(index)
        .and_then(|t| facts.types.get(*t as usize));
    match ty.and_then(Option::as_ref) {
        Some((params, results))
            if params[..] == [ValType::I32] && results[..] == [ValType::I32] =>
        {
            Ok(())
        }
        Some((params, results)) => wrong(
            "infer",
            expected,
            format!("a function {params:?} -> {results:?}"),
        ),
        None => wrong("infer", expected, "a function that does not exist".into()),
    }
}

fn check_memory(facts: &Facts<'_>, abi: &ModuleAbi) -> Result<(), SandboxError> {
    let [memory] = facts.memories[..] else {
        return refuse(format!(
            "it has {} memories, exactly one is needed",
            facts.memories.len()
        ));
    };
    if memory.memory64 || memory.shared || memory.page_size_log2.is_some() {
        return refuse("its memory must be an ordinary 32-bit one: not 64-bit, not shared");
    }
    let pages = abi.memory_bytes / WASM_PAGE_BYTES;
    if memory.initial != pages || memory.maximum != Some(pages) {
        let max = memory
            .maximum
            .map_or_else(|| "none".to_owned(), |m| m.to_string());
        return refuse(format!(
            "its memory has minimum {} and maximum {max} pages, but its ABI says that both are {pages}",
            memory.initial
        ));
    }
    Ok(())
}

fn check_tables(facts: &Facts<'_>) -> Result<(), SandboxError> {
    let table = match facts.tables[..] {
        [] => return Ok(()),
        [table] => table,
        _ => {
            return refuse(format!(
                "it has {} tables, at most one is allowed",
                facts.tables.len()
            ));
        }
    };
    let fixed = table.maximum == Some(table.initial);
    if !fixed || table.table64 || table.initial > MAX_TABLE_ENTRIES as u64 {
        return refuse(format!(
            "its table must have a fixed size (minimum = maximum) of at most {MAX_TABLE_ENTRIES} entries"
        ));
    }
    Ok(())
}

/// Data under the weights would be lost without a word when the weights are mapped.
fn check_data(facts: &Facts<'_>, abi: &ModuleAbi) -> Result<(), SandboxError> {
    let Some(weights) = abi.weights else {
        return Ok(());
    };
    let start = u64::from(weights.offset);
    let end = (start + u64::from(weights.size_bytes)).next_multiple_of(WASM_PAGE_BYTES);
    match facts.data.iter().find(|(s, e)| *s < end && start < *e) {
        Some((s, e)) => refuse(format!(
            "a data segment at {s}..{e} overlaps its weights region"
        )),
        None => Ok(()),
    }
}

/// The offset of a data segment must be a plain constant.
fn constant(expr: &ConstExpr<'_>) -> Result<u64, SandboxError> {
    let mut ops = expr.get_operators_reader();
    match ops.read().map_err(invalid)? {
        Operator::I32Const { value } => {
            if matches!(ops.read().map_err(invalid)?, Operator::End) {
                return Ok(u64::from(value.cast_unsigned()));
            }
            refuse("a data segment's offset is an expression, not a constant")
        }
        _ => refuse("a data segment's offset is not an i32 constant"),
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, SandboxError> {
    Err(SandboxError::Refused { why: why.into() })
}

fn invalid(error: BinaryReaderError) -> SandboxError {
    SandboxError::NotWasm {
        reason: error.to_string(),
    }
}

/// Names come from the module: keep messages short and on one line.
fn printable(name: &str) -> String {
    name.chars()
        .take(80)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
