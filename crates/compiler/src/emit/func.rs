//! Writing one function of a module.

use super::place::{Places, Ref};
use wasm_encoder::{BlockType, Function, Instruction as I, MemArg, MemArgTarget, ValType};

/// Index of a local variable.
pub(crate) type Local = u32;

/// The parameter of every step: the item of the batch.
const ITEM: Local = 0;

/// A function under construction: `(item: i32) -> ()`. Everything that is known when the model is
/// compiled is a constant in it: addresses, sizes, the number of turns of every loop.
pub(crate) struct Func<'a> {
    places: &'a Places,
    locals: Vec<ValType>,
    code: Vec<I<'static>>,
}

/// A constant offset from an address. Alignment is only a hint, and outputs of a batch need not
/// be aligned.
pub(crate) fn at(offset: u32) -> MemArg {
    MemArg {
        offset: u64::from(offset),
        align: 0,
        target: MemArgTarget::Memory(0),
        ordering: None,
    }
}

impl<'a> Func<'a> {
    /// An empty one.
    pub(crate) fn new(places: &'a Places) -> Self {
        Self {
            places,
            locals: Vec::new(),
            code: Vec::new(),
        }
    }

    /// The finished function.
    pub(crate) fn finish(self) -> Function {
        let mut function = Function::new_with_locals_types(self.locals);
        for instruction in &self.code {
            function.instruction(instruction);
        }
        function.instruction(&I::End);
        function
    }

    /// Adds an instruction.
    pub(crate) fn op(&mut self, instruction: I<'static>) -> &mut Self {
        self.code.push(instruction);
        self
    }

    /// A new variable.
    pub(crate) fn local(&mut self, ty: ValType) -> Local {
        self.locals.push(ty);
        // One parameter comes first; kernels use a few dozen locals.
        self.locals.len() as Local
    }

    /// A new integer variable.
    pub(crate) fn i32(&mut self) -> Local {
        self.local(ValType::I32)
    }

    /// A new float variable.
    pub(crate) fn f32(&mut self) -> Local {
        self.local(ValType::F32)
    }

    /// A new vector variable.
    pub(crate) fn v128(&mut self) -> Local {
        self.local(ValType::V128)
    }

    /// Pushes a variable.
    pub(crate) fn get(&mut self, local: Local) -> &mut Self {
        self.op(I::LocalGet(local))
    }

    /// Pops into a variable.
    pub(crate) fn set(&mut self, local: Local) -> &mut Self {
        self.op(I::LocalSet(local))
    }

    /// Pushes an integer. Addresses above 2 GiB are the same bits.
    pub(crate) fn int(&mut self, value: i32) -> &mut Self {
        self.op(I::I32Const(value))
    }

    /// Pushes a float.
    pub(crate) fn float(&mut self, value: f32) -> &mut Self {
        self.op(I::F32Const(value.into()))
    }

    /// Pushes a vector of four equal floats.
    pub(crate) fn floats(&mut self, value: f32) -> &mut Self {
        self.ints(value.to_bits() as i32)
    }

    /// Pushes a vector of four equal integers.
    pub(crate) fn ints(&mut self, value: i32) -> &mut Self {
        let lane = u128::from(value as u32);
        self.op(I::V128Const(
            (lane | lane << 32 | lane << 64 | lane << 96) as i128,
        ))
    }

    /// A new variable with the address of `place` for the current item, plus `offset` bytes.
    pub(crate) fn pointer(&mut self, place: Ref, offset: u32) -> Local {
        let pointer = self.i32();
        let found = self.places.of(place);
        self.int(found.base.wrapping_add(offset) as i32);
        if found.step > 0 {
            self.get(ITEM).int(found.step as i32);
            self.op(I::I32Mul).op(I::I32Add);
        }
        self.set(pointer);
        pointer
    }

    /// A new variable with the value of another.
    pub(crate) fn copy_of(&mut self, local: Local) -> Local {
        let copy = self.i32();
        self.get(local).set(copy);
        copy
    }

    /// Moves an address.
    pub(crate) fn bump(&mut self, pointer: Local, bytes: i64) {
        if bytes != 0 {
            // Memory is smaller than 4 GiB: a move fits 32 bits, modulo their wrapping.
            self.get(pointer)
                .int(bytes as i32)
                .op(I::I32Add)
                .set(pointer);
        }
    }

    /// Repeats `body` a constant number of times.
    pub(crate) fn repeat(&mut self, times: usize, body: impl FnOnce(&mut Self)) {
        match times {
            0 => {}
            1 => body(self),
            _ => {
                let left = self.i32();
                self.int(times as i32).set(left);
                self.op(I::Loop(BlockType::Empty));
                body(self);
                self.get(left).int(-1).op(I::I32Add).op(I::LocalTee(left));
                self.op(I::BrIf(0)).op(I::End);
            }
        }
    }

    /// Does `body` if the integer that was pushed is not 0.
    pub(crate) fn when(&mut self, body: impl FnOnce(&mut Self)) {
        self.op(I::If(BlockType::Empty));
        body(self);
        self.op(I::End);
    }

    /// Nested loops over `dims`, outermost first. In each turn of level `l`, pointer `p` has moved
    /// by `strides[p][l]` bytes per step; `body` must leave pointers where it found them. Afterwards
    /// all of them are where they were.
    pub(crate) fn nest(
        &mut self,
        dims: &[usize],
        pointers: &[(Local, Vec<i64>)],
        body: &mut dyn FnMut(&mut Self),
    ) {
        let Some((&times, inner)) = dims.split_first() else {
            body(self);
            return;
        };
        let level = |strides: &Vec<i64>| strides[strides.len() - dims.len()];
        let mut inner_body = Some(body);
        self.repeat(times, |f| {
            if let Some(body) = inner_body.take() {
                f.nest(inner, pointers, body);
            }
            pointers
                .iter()
                .for_each(|(p, strides)| f.bump(*p, level(strides)));
        });
        pointers
            .iter()
            .for_each(|(p, strides)| self.bump(*p, -level(strides) * times as i64));
    }
}
