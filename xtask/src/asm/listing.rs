//! What `objdump` prints, as functions of instructions.

/// A function.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) at: u64,
    /// Mnemonic and operands, separated by one space.
    pub(super) text: String,
}

impl Instruction {
    /// The mnemonic, and what it works on.
    pub(super) fn parts(&self) -> (&str, &str) {
        self.text.split_once(' ').unwrap_or((&self.text, ""))
    }
}

/// Lines of other shapes (headers, padding without an instruction) are passed over.
pub(super) fn parse(text: &str) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    for line in text.lines() {
        if is_head(line) {
            functions.push(Function {
                instructions: Vec::new(),
            });
        } else if let (Some(function), Some(instruction)) = (functions.last_mut(), body(line)) {
            function.instructions.push(instruction);
        }
    }
    functions
}

/// `0000000000000040 <name>:`
fn is_head(line: &str) -> bool {
    let name = line.strip_suffix(">:").and_then(|l| l.split_once(" <"));
    name.is_some_and(|(at, _)| u64::from_str_radix(at, 16).is_ok())
}

/// `  40:\tmnemonic operands`
fn body(line: &str) -> Option<Instruction> {
    let (at, text) = line.trim_start().split_once(":\t")?;
    let at = u64::from_str_radix(at, 16).ok()?;
    let words: Vec<&str> = text.split_whitespace().collect();
    (!words.is_empty()).then(|| Instruction {
        at,
        text: words.join(" "),
    })
}
