//! Programs as instructions.

use super::Stmt;
use super::expr::{Bin, Ex, Ty, Un};
use crate::emit::{Func, Local, Ref, at};
use sandpiper_core::tensor::DType;
use wasm_encoder::{BlockType, Instruction as I};

/// Emission of a program.
pub(super) struct Emitter<'f, 'p> {
    pub(super) f: &'f mut Func<'p>,
    pub(super) locals: Vec<Local>,
    pub(super) bases: Vec<(Ref, Local)>,
}

impl Emitter<'_, '_> {
    fn address(&mut self, at: Ref, dtype: DType, index: &Ex) {
        let base = self.bases.iter().find(|(r, _)| *r == at).map(|(_, l)| *l);
        self.value(index);
        let shift = dtype.size_bytes().trailing_zeros() as i32;
        if shift > 0 {
            self.f.int(shift).op(I::I32Shl);
        }
        // Every tensor of a program has a base: see `emit`.
        if let Some(base) = base {
            self.f.get(base).op(I::I32Add);
        }
    }

    fn value(&mut self, ex: &Ex) {
        match ex {
            Ex::Int(v) => {
                self.f.int(*v);
            }
            Ex::Long(v) => {
                self.f.op(I::I64Const(*v));
            }
            Ex::Real(v) => {
                self.f.float(*v);
            }
            Ex::Double(v) => {
                self.f.op(I::F64Const((*v).into()));
            }
            Ex::Var(v) => {
                self.f.get(self.locals[v.index]);
            }
            Ex::Load(place, dtype, index) => {
                self.address(*place, *dtype, index);
                self.f.op(match dtype {
                    DType::F32 => I::F32Load(at(0)),
                    DType::I8 => I::I32Load8S(at(0)),
                    DType::U8 | DType::Bool => I::I32Load8U(at(0)),
                    DType::I32 => I::I32Load(at(0)),
                    DType::I64 => I::I64Load(at(0)),
                });
            }
            Ex::Bin(op, a, b) => self.pair(*op, a, b),
            Ex::Un(op, a) => {
                self.value(a);
                let double = a.ty() == Ty::Double;
                self.f.op(unary(*op, double));
            }
            Ex::Select(condition, a, b) => {
                self.value(a);
                self.value(b);
                self.value(condition);
                self.f.op(I::Select);
            }
            Ex::To(ty, a) => {
                self.value(a);
                self.convert(a.ty(), *ty);
            }
            Ex::Bits(a) => {
                self.value(a);
                self.f.op(match a.ty() {
                    Ty::Int => I::F32ReinterpretI32,
                    Ty::Long => I::F64ReinterpretI64,
                    Ty::Real => I::I32ReinterpretF32,
                    Ty::Double => I::I64ReinterpretF64,
                });
            }
        }
    }

    fn convert(&mut self, from: Ty, to: Ty) {
        self.f.op(match (from, to) {
            (Ty::Int, Ty::Long) => I::I64ExtendI32S,
            (Ty::Int, Ty::Real) => I::F32ConvertI32S,
            (Ty::Int, Ty::Double) => I::F64ConvertI32S,
            (Ty::Long, Ty::Int) => I::I32WrapI64,
            (Ty::Long, Ty::Real) => I::F32ConvertI64S,
            (Ty::Long, Ty::Double) => I::F64ConvertI64S,
            (Ty::Real, Ty::Int) => I::I32TruncSatF32S,
            (Ty::Real, Ty::Long) => I::I64TruncSatF32S,
            (Ty::Real, Ty::Double) => I::F64PromoteF32,
            (Ty::Double, Ty::Int) => I::I32TruncSatF64S,
            (Ty::Double, Ty::Long) => I::I64TruncSatF64S,
            (Ty::Double, Ty::Real) => I::F32DemoteF64,
            _ => I::Nop,
        });
    }

    fn pair(&mut self, op: Bin, a: &Ex, b: &Ex) {
        let ty = a.ty();
        if let (Bin::Min | Bin::Max, Ty::Int | Ty::Long) = (op, ty) {
            self.value(a);
            self.value(b);
            self.pair(Bin::Lt, a, b);
            if op == Bin::Max {
                self.f.op(I::I32Eqz);
            }
            self.f.op(I::Select);
            return;
        }
        self.value(a);
        self.value(b);
        self.f.op(match ty {
            Ty::Int => binary_int(op),
            Ty::Long => binary_long(op),
            Ty::Real => binary_real(op),
            Ty::Double => binary_double(op),
        });
    }

    pub(super) fn block(&mut self, body: &[Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::Set(var, value) => {
                    self.value(value);
                    self.f.set(self.locals[var.index]);
                }
                Stmt::Store(place, dtype, index, value) => {
                    self.address(*place, *dtype, index);
                    self.value(value);
                    self.f.op(match dtype {
                        DType::F32 => I::F32Store(at(0)),
                        DType::I8 | DType::U8 | DType::Bool => I::I32Store8(at(0)),
                        DType::I32 => I::I32Store(at(0)),
                        DType::I64 => I::I64Store(at(0)),
                    });
                }
                Stmt::For(var, times, inner) => {
                    let local = self.locals[var.index];
                    self.f.int(0).set(local);
                    if *times == 0 {
                        continue;
                    }
                    self.f.op(I::Loop(BlockType::Empty));
                    self.block(inner);
                    self.f
                        .get(local)
                        .int(1)
                        .op(I::I32Add)
                        .op(I::LocalTee(local));
                    self.f
                        .int(*times as i32)
                        .op(I::I32LtU)
                        .op(I::BrIf(0))
                        .op(I::End);
                }
                Stmt::While(var, most, condition, inner) => {
                    let local = self.locals[var.index];
                    self.f.int(0).set(local);
                    self.f
                        .op(I::Block(BlockType::Empty))
                        .op(I::Loop(BlockType::Empty));
                    self.value(condition);
                    self.f.op(I::I32Eqz).op(I::BrIf(1));
                    self.f
                        .get(local)
                        .int(*most as i32)
                        .op(I::I32GeU)
                        .op(I::BrIf(1));
                    self.block(inner);
                    self.f.get(local).int(1).op(I::I32Add).set(local);
                    self.f.op(I::Br(0)).op(I::End).op(I::End);
                }
            }
        }
    }
}

fn unary(op: Un, double: bool) -> I<'static> {
    match (op, double) {
        (Un::Abs, false) => I::F32Abs,
        (Un::Abs, true) => I::F64Abs,
        (Un::Neg, false) => I::F32Neg,
        (Un::Neg, true) => I::F64Neg,
        (Un::Floor, false) => I::F32Floor,
        (Un::Floor, true) => I::F64Floor,
        (Un::Ceil, false) => I::F32Ceil,
        (Un::Ceil, true) => I::F64Ceil,
        (Un::Nearest, false) => I::F32Nearest,
        (Un::Nearest, true) => I::F64Nearest,
        (Un::Trunc, false) => I::F32Trunc,
        (Un::Trunc, true) => I::F64Trunc,
        (Un::Sqrt, false) => I::F32Sqrt,
        (Un::Sqrt, true) => I::F64Sqrt,
    }
}

fn binary_int(op: Bin) -> I<'static> {
    match op {
        Bin::Add => I::I32Add,
        Bin::Sub => I::I32Sub,
        Bin::Mul => I::I32Mul,
        Bin::Div => I::I32DivS,
        Bin::Rem => I::I32RemS,
        Bin::RemU => I::I32RemU,
        Bin::And => I::I32And,
        Bin::Or => I::I32Or,
        Bin::Xor => I::I32Xor,
        Bin::Shl => I::I32Shl,
        Bin::ShrU => I::I32ShrU,
        Bin::ShrS => I::I32ShrS,
        Bin::Lt => I::I32LtS,
        Bin::Le => I::I32LeS,
        Bin::Eq => I::I32Eq,
        // Made of a comparison, or for floats only.
        Bin::Min | Bin::Max | Bin::CopySign => I::Unreachable,
    }
}

fn binary_long(op: Bin) -> I<'static> {
    match op {
        Bin::Add => I::I64Add,
        Bin::Sub => I::I64Sub,
        Bin::Mul => I::I64Mul,
        Bin::Div => I::I64DivS,
        Bin::Rem => I::I64RemS,
        Bin::RemU => I::I64RemU,
        Bin::And => I::I64And,
        Bin::Or => I::I64Or,
        Bin::Xor => I::I64Xor,
        Bin::Shl => I::I64Shl,
        Bin::ShrU => I::I64ShrU,
        Bin::ShrS => I::I64ShrS,
        Bin::Lt => I::I64LtS,
        Bin::Le => I::I64LeS,
        Bin::Eq => I::I64Eq,
        // Made of a comparison, or for floats only.
        Bin::Min | Bin::Max | Bin::CopySign => I::Unreachable,
    }
}

fn binary_real(op: Bin) -> I<'static> {
    match op {
        Bin::Add => I::F32Add,
        Bin::Sub => I::F32Sub,
        Bin::Mul => I::F32Mul,
        Bin::Div => I::F32Div,
        Bin::Min => I::F32Min,
        Bin::Max => I::F32Max,
        Bin::Lt => I::F32Lt,
        Bin::Le => I::F32Le,
        Bin::Eq => I::F32Eq,
        Bin::CopySign => I::F32Copysign,
        // For integers only.
        _ => I::Unreachable,
    }
}

fn binary_double(op: Bin) -> I<'static> {
    match op {
        Bin::Add => I::F64Add,
        Bin::Sub => I::F64Sub,
        Bin::Mul => I::F64Mul,
        Bin::Div => I::F64Div,
        Bin::Min => I::F64Min,
        Bin::Max => I::F64Max,
        Bin::Lt => I::F64Lt,
        Bin::Le => I::F64Le,
        Bin::Eq => I::F64Eq,
        Bin::CopySign => I::F64Copysign,
        // For integers only.
        _ => I::Unreachable,
    }
}
