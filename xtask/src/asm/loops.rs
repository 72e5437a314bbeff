//! Innermost loops, and what their instructions do.

use super::listing::{Function, Instruction};
use sandpiper_core::target::Arch;

/// A loop that holds no other.
#[derive(Debug)]
pub(super) struct Hot<'a> {
    pub(super) body: &'a [Instruction],
    pub(super) mix: Mix,
    /// So many loops have the same length and mix: mostly one kernel with other constants.
    pub(super) places: usize,
}

impl Hot<'_> {
    /// Address of the first instruction.
    pub(super) fn at(&self) -> u64 {
        self.body.first().map_or(0, |i| i.at)
    }
}

/// How many instructions of a loop do what. One may load and compute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mix {
    /// Multiply, add or the like on vectors.
    pub(super) arithmetic: usize,
    /// Reads memory other than the stack.
    pub(super) loads: usize,
    /// Writes memory other than the stack.
    pub(super) stores: usize,
    /// Reads or writes the stack: mostly spills.
    pub(super) stack: usize,
    /// Copies one register to another.
    pub(super) moves: usize,
}

/// One innermost loop of each kind that has vector arithmetic, those with most of it first.
pub(super) fn hot_loops(functions: &[Function], arch: Arch) -> Vec<Hot<'_>> {
    let mut all: Vec<Hot<'_>> = functions.iter().flat_map(|f| innermost(f, arch)).collect();
    all.retain(|hot| hot.mix.arithmetic > 0);
    let kind = |hot: &Hot<'_>| {
        (
            std::cmp::Reverse(hot.mix.arithmetic),
            hot.body.len(),
            hot.mix,
        )
    };
    all.sort_by_key(kind);
    all.dedup_by(|later, first| {
        let same = kind(later) == kind(first);
        first.places += usize::from(same);
        same
    });
    all
}

fn innermost(function: &Function, arch: Arch) -> Vec<Hot<'_>> {
    let code = &function.instructions;
    let jump = |end: usize| {
        let begin = code.binary_search_by_key(&backward(&code[end], arch)?, |i| i.at);
        Some((begin.ok()?, end))
    };
    let loops: Vec<(usize, usize)> = (0..code.len()).filter_map(jump).collect();
    let holds_other = |(begin, end): (usize, usize)| {
        let inside = |&(b, e): &(usize, usize)| b >= begin && e <= end && (b, e) != (begin, end);
        loops.iter().any(inside)
    };
    let plain = loops.iter().filter(|l| !holds_other(**l));
    plain
        .map(|&(begin, end)| {
            let body = &code[begin..=end];
            let mut mix = Mix::default();
            body.iter().for_each(|i| mix.count(i, arch));
            Hot {
                body,
                mix,
                places: 1,
            }
        })
        .collect()
}

/// Where a jump back goes to.
fn backward(instruction: &Instruction, arch: Arch) -> Option<u64> {
    let (name, operands) = instruction.parts();
    let jumps = match arch {
        Arch::X86_64 => name.starts_with('j'),
        Arch::Aarch64 => {
            name == "b" || name.starts_with("b.") || ["cbz", "cbnz", "tbz", "tbnz"].contains(&name)
        }
        Arch::Arm => false,
    };
    // `40 <name+0x10>`, on ARM after a register and a comma.
    let place = operands.split(" <").next()?.split(", ").last()?;
    let to = u64::from_str_radix(place.trim_start_matches("0x"), 16).ok()?;
    (jumps && to <= instruction.at).then_some(to)
}

impl Mix {
    fn count(&mut self, instruction: &Instruction, arch: Arch) {
        let (name, operands) = instruction.parts();
        // Names of places hold brackets too, and on ARM the lanes of a vector.
        let operands = operands.split(" <").next().unwrap_or(operands);
        let memory = match arch {
            Arch::X86_64 => operands.contains('['),
            Arch::Aarch64 | Arch::Arm => operands.contains(", ["),
        };
        let (stack, stores, moves) = match arch {
            Arch::X86_64 => (
                operands.contains("[rsp") || operands.contains("[rbp"),
                // The place written comes first.
                name.contains("mov") && operands.split(',').next().is_some_and(|o| o.contains('[')),
                name.contains("mov") && !memory && registers(operands),
            ),
            Arch::Aarch64 | Arch::Arm => (
                operands.contains("[sp"),
                name.starts_with("st"),
                name == "mov" && !memory,
            ),
        };
        self.arithmetic += usize::from(computes(name, operands, arch));
        self.stack += usize::from(memory && stack);
        self.stores += usize::from(memory && !stack && stores);
        self.loads += usize::from(memory && !stack && !stores && name != "lea");
        self.moves += usize::from(moves);
    }
}

fn registers(operands: &str) -> bool {
    operands
        .split(',')
        .all(|o| o.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// Vector arithmetic: what a kernel is there for.
fn computes(name: &str, operands: &str, arch: Arch) -> bool {
    let vector = match arch {
        Arch::X86_64 => operands.contains("xmm") || operands.contains("ymm"),
        Arch::Aarch64 | Arch::Arm => operands.starts_with('v'),
    };
    let kinds = [
        "add", "sub", "mul", "madd", "fma", "mla", "mls", "dot", "max", "min", "div", "sqrt",
    ];
    vector && kinds.iter().any(|kind| name.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::super::listing::parse;
    use super::*;

    const X86: &str = "\
0000000000000040 <wasm[0]::function[1]>:
      40:\tmov    rax,rdi
      43:\tvmovups xmm0,XMMWORD PTR [rax]
      47:\tvmulps xmm1,xmm0,XMMWORD PTR [rsi+0x10]
      4c:\tvaddps xmm2,xmm2,xmm1
      50:\tvmovups XMMWORD PTR [rsp+0x20],xmm2
      56:\tjne    43 <wasm[0]::function[1]+0x3>
      58:\tjb     40 <wasm[0]::function[1]>
      5a:\tret
";

    #[test]
    fn the_innermost_loop_is_found_and_its_instructions_are_told_apart() {
        let functions = parse(X86);
        let hot = hot_loops(&functions, Arch::X86_64);
        assert_eq!(hot.len(), 1, "the outer loop holds another");
        assert_eq!(hot[0].body.first().map(|i| i.at), Some(0x43));
        let mix = Mix {
            arithmetic: 2,
            loads: 2,
            stores: 0,
            stack: 1,
            moves: 0,
        };
        assert_eq!(hot[0].mix, mix);
    }

    #[test]
    fn loops_of_aarch64_end_with_a_compare_and_branch() {
        let text = "\
0000000000000000 <f>:
       0:\tldr\tq0, [x1, x2]
       4:\tfmla\tv1.4s, v0.4s, v2.s[0]
       8:\tstr\tq1, [sp, #16]
       c:\tmov\tv3.16b, v1.16b
      10:\tcbnz\tw3, 0 <f>
";
        let functions = parse(text);
        let hot = hot_loops(&functions, Arch::Aarch64);
        let mix = Mix {
            arithmetic: 1,
            loads: 1,
            stores: 0,
            stack: 1,
            moves: 1,
        };
        assert_eq!(hot[0].mix, mix);
    }
}
