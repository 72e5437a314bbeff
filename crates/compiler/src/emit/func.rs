//! Writing one function of a module.

use super::place::{Places, Ref};
use wasm_encoder::{
    BlockType, BranchHint, Function, Instruction as I, MemArg, MemArgTarget, ValType,
};

/// Index of a local variable.
pub(crate) type Local = u32;

/// The parameters of every step: the item of the batch; which part of the work; of how many parts.
const ITEM: Local = 0;
const PART: Local = 1;
const PARTS: Local = 2;
const PARAMETERS: u32 = 3;

/// A function under construction: `(item: i32, part: i32, parts: i32) -> ()`. Everything that is
/// known when the model is compiled is a constant in it: addresses, sizes, the number of turns of
/// every loop but those that are shared.
pub(crate) struct Func<'a> {
    places: &'a Places,
    locals: Vec<ValType>,
    code: Vec<I<'static>>,
    /// Indices in `code` of branches that are hardly ever taken.
    rare: Vec<usize>,
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
            rare: Vec::new(),
        }
    }

    /// The finished function, and the hints about its branches.
    pub(crate) fn finish(self) -> (Function, Vec<BranchHint>) {
        let mut function = Function::new_with_locals_types(self.locals);
        let (mut hints, mut rare) = (Vec::new(), self.rare.into_iter().peekable());
        for (i, instruction) in self.code.iter().enumerate() {
            if rare.next_if_eq(&i).is_some() {
                hints.push(BranchHint {
                    branch_func_offset: function.byte_len() as u32,
                    branch_hint_value: 0,
                });
            }
            function.instruction(instruction);
        }
        function.instruction(&I::End);
        (function, hints)
    }

    /// Adds an instruction.
    pub(crate) fn op(&mut self, instruction: I<'static>) -> &mut Self {
        self.code.push(instruction);
        self
    }

    /// A new variable.
    pub(crate) fn local(&mut self, ty: ValType) -> Local {
        // Kernels use a few dozen locals.
        let local = self.locals.len() as Local + PARAMETERS;
        self.locals.push(ty);
        local
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

    /// As [`Func::when`], for what is hardly ever true: its code is laid out apart.
    pub(crate) fn rarely(&mut self, body: impl FnOnce(&mut Self)) {
        self.rare.push(self.code.len());
        self.when(body);
    }

    /// Leaves `depth` blocks if the integer that was pushed is not 0, which it hardly ever is: what
    /// follows the block is laid out apart.
    pub(crate) fn rarely_leave(&mut self, depth: u32) {
        self.rare.push(self.code.len());
        self.op(I::BrIf(depth));
    }

    /// A new variable that is 0, which a compiler cannot know: there are fewer than
    /// 2^16 parts (the sandbox allows 16).
    pub(crate) fn never(&mut self) -> Local {
        let never = self.i32();
        self.get(PARTS).int(16).op(I::I32ShrU).set(never);
        never
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

    /// Nothing of what follows is done by any part but the first: for work that is not shared.
    pub(crate) fn only_first_part(&mut self) -> &mut Self {
        self.get(PART);
        self.when(|f| {
            f.op(I::Return);
        });
        self
    }

    /// The part's share of `times` turns of `body`, which must move `pointers` itself, by that many
    /// bytes a turn. They are moved to the first turn of the share before, and left behind its last.
    /// Together the parts do each turn once: part p of n does those from `times * p / n` on and
    /// before `times * (p + 1) / n`.
    pub(crate) fn share(
        &mut self,
        times: usize,
        pointers: &[(Local, i64)],
        body: impl FnOnce(&mut Self),
    ) {
        let (first, left) = (self.i32(), self.i32());
        // Turn `times * part / parts`, in 64 bits, since the product may not fit 32.
        let bound = |f: &mut Self, more: i32| {
            f.op(I::I64Const(times as i64));
            f.get(PART).int(more).op(I::I32Add).op(I::I64ExtendI32U);
            f.op(I::I64Mul).get(PARTS).op(I::I64ExtendI32U);
            f.op(I::I64DivU).op(I::I32WrapI64);
        };
        bound(self, 0);
        self.set(first);
        bound(self, 1);
        self.get(first).op(I::I32Sub).set(left);
        for (pointer, bytes) in pointers {
            self.get(*pointer).get(first).int(*bytes as i32);
            self.op(I::I32Mul).op(I::I32Add).set(*pointer);
        }
        self.get(left);
        self.when(|f| {
            f.op(I::Loop(BlockType::Empty));
            body(f);
            f.get(left).int(-1).op(I::I32Add).op(I::LocalTee(left));
            f.op(I::BrIf(0)).op(I::End);
        });
    }

    /// Does `body` in the first part alone.
    pub(crate) fn first_part(&mut self, body: impl FnOnce(&mut Self)) {
        self.get(PART).op(I::I32Eqz);
        self.when(body);
    }

    /// Does `body` in the last part alone.
    pub(crate) fn last_part(&mut self, body: impl FnOnce(&mut Self)) {
        self.get(PART).int(1).op(I::I32Add);
        self.get(PARTS).op(I::I32Eq);
        self.when(body);
    }

    /// Does `body` if the integer that was pushed is not 0.
    pub(crate) fn when(&mut self, body: impl FnOnce(&mut Self)) {
        self.op(I::If(BlockType::Empty));
        body(self);
        self.op(I::End);
    }

    /// Does the one body if the integer that was pushed is not 0, else the other.
    pub(crate) fn choose(&mut self, yes: impl FnOnce(&mut Self), no: impl FnOnce(&mut Self)) {
        self.op(I::If(BlockType::Empty));
        yes(self);
        self.op(I::Else);
        no(self);
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
