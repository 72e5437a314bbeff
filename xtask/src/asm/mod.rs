//! `cargo xtask asm MODEL`: the innermost loops of the native code that Cranelift makes of a model, and
//! what they spend their instructions on. Spills and moves in a hot loop are what a tile that is too
//! large, or of the wrong shape for a CPU, looks like.

mod listing;
mod loops;

use self::listing::Function;
use self::loops::{Hot, hot_loops};
use anyhow::{Context, Result, bail, ensure};
use sandpiper_compiler::{Options, compile};
use sandpiper_core::target::{Arch, Target};
use sandpiper_sandbox::{Origin, host_target, precompile};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Options of `asm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// An ONNX file, or a module that keeps the ABI (`.wasm`).
    model: PathBuf,
    /// What the code is made for, such as aarch64-linux/cortex-a53; this machine when missing.
    #[arg(long)]
    target: Option<Target>,
    /// So many loops, those with most vector arithmetic first.
    #[arg(long, default_value_t = 5)]
    loops: usize,
    /// Only the table, without the instructions.
    #[arg(long)]
    short: bool,
}

/// Prints the loops.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(args: &Args) -> ExitCode {
    match read(args) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read(args: &Args) -> Result<String> {
    let target = args.target.unwrap_or_else(host_target);
    let tool = Disassembler::of(target)?;
    let native = native_code(&args.model, target)?;
    let place = crate::shell::root().join("target/asm");
    std::fs::create_dir_all(&place)?;
    let file = place.join("native.elf");
    std::fs::write(&file, native)?;
    let functions = tool.functions(&file)?;
    let hot = hot_loops(&functions, target.arch());
    let shown = hot.len().min(args.loops);
    Ok(text(
        target,
        &functions,
        &hot[..shown],
        hot.len(),
        args.short,
    ))
}

fn native_code(model: &Path, target: Target) -> Result<Vec<u8>> {
    let bytes = std::fs::read(model).with_context(|| format!("cannot read {}", model.display()))?;
    let (wasm, origin) = if bytes.starts_with(b"\0asm") {
        (bytes, Origin::Brought)
    } else {
        let compiled = compile(&bytes, &Options::default())?;
        (compiled.wasm, Origin::OwnCompiler)
    };
    Ok(precompile(&wasm, target, origin)?.native)
}

/// `objdump` for an architecture.
struct Disassembler {
    program: &'static str,
    arguments: &'static [&'static str],
}

impl Disassembler {
    fn of(target: Target) -> Result<Self> {
        let (programs, arguments): (&[_], &[_]) = match target.arch() {
            Arch::X86_64 => (&["x86_64-linux-gnu-objdump", "objdump"], &["-M", "intel"]),
            Arch::Aarch64 => (&["aarch64-linux-gnu-objdump", "objdump"], &[]),
            Arch::Arm => bail!("{target} is interpreted: there is no native code to read"),
        };
        let own = cfg!(target_arch = "x86_64") == (target.arch() == Arch::X86_64);
        let works = |program: &&&str| {
            (own || program.contains('-')) && crate::shell::has(program, "--version")
        };
        let program = programs.iter().find(works).with_context(|| {
            format!(
                "there is no objdump for {target}: install binutils{}",
                if own {
                    ""
                } else {
                    " for that architecture (Debian: binutils-aarch64-linux-gnu)"
                }
            )
        })?;
        Ok(Self { program, arguments })
    }

    fn functions(&self, file: &Path) -> Result<Vec<Function>> {
        let output = Command::new(self.program)
            .args(["--disassemble", "--no-show-raw-insn", "--wide"])
            .args(self.arguments)
            .arg(file)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", self.program);
        Ok(listing::parse(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// A table of the loops, then each.
fn text(
    target: Target,
    functions: &[Function],
    hot: &[Hot<'_>],
    kinds: usize,
    short: bool,
) -> String {
    let count: usize = functions.iter().map(|f| f.instructions.len()).sum();
    let mut text = format!(
        "{target}: {count} instructions, {kinds} kinds of innermost loops with vector arithmetic\n\n\
         {:>3} {:>8} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6}\n",
        "", "first at", "places", "all", "vector", "load", "store", "stack", "move"
    );
    for (index, one) in hot.iter().enumerate() {
        text += &format!(
            "{:>3} {:>8x} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6}\n",
            index + 1,
            one.at(),
            one.places,
            one.body.len(),
            one.mix.arithmetic,
            one.mix.loads,
            one.mix.stores,
            one.mix.stack,
            one.mix.moves
        );
    }
    for (index, one) in hot.iter().enumerate().filter(|_| !short) {
        text += &format!("\n{}\n", index + 1);
        for instruction in one.body {
            text += &format!("{:>8x}  {}\n", instruction.at, instruction.text);
        }
    }
    text
}
