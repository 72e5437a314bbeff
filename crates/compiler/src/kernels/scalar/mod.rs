//! Small programs over scalars, for what no kernel with vectors does: index arithmetic, integers,
//! searches, rare functions. Loops have a constant number of turns.

mod emit;
mod expr;

pub(crate) use expr::{Bin, Ex, Ty, Un, index};

use super::Kernel;
use crate::emit::{Func, Local, Ref};
use emit::Emitter;
use expr::Var;
use sandpiper_core::tensor::DType;

/// A statement.
#[derive(Debug, Clone)]
enum Stmt {
    Set(Var, Ex),
    /// Element by index becomes a value, wrapped to the width of its type.
    Store(Ref, DType, Ex, Ex),
    /// The variable counts from 0.
    For(Var, usize, Vec<Stmt>),
    /// Repeats while the condition holds, at most so often.
    While(Var, usize, Ex, Vec<Stmt>),
}

/// A program under construction, and a kernel.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    name: &'static str,
    vars: Vec<Ty>,
    body: Vec<Stmt>,
    reads: Vec<Ref>,
    writes: Vec<Ref>,
}

impl Scalar {
    /// An empty one, with its name for reports.
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            vars: Vec::new(),
            body: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
        }
    }

    fn declare(&mut self, ty: Ty) -> Var {
        self.vars.push(ty);
        Var {
            index: self.vars.len() - 1,
            ty,
        }
    }

    /// A new variable with a value.
    pub(crate) fn var(&mut self, value: Ex) -> Var {
        let var = self.declare(value.ty());
        self.set(var, value);
        var
    }

    /// A value computed once.
    pub(crate) fn once(&mut self, value: Ex) -> Ex {
        Ex::Var(self.var(value))
    }

    /// Gives a variable a value.
    pub(crate) fn set(&mut self, var: Var, value: Ex) {
        self.body.push(Stmt::Set(var, value));
    }

    /// An element of a tensor.
    pub(crate) fn load(&mut self, at: Ref, dtype: DType, index: Ex) -> Ex {
        if !self.reads.contains(&at) {
            self.reads.push(at);
        }
        Ex::Load(at, dtype, Box::new(index))
    }

    /// Stores an element.
    pub(crate) fn store(&mut self, at: Ref, dtype: DType, index: Ex, value: Ex) {
        if !self.writes.contains(&at) {
            self.writes.push(at);
        }
        self.body.push(Stmt::Store(at, dtype, index, value));
    }

    fn block(&mut self, body: impl FnOnce(&mut Self)) -> Vec<Stmt> {
        let outer = std::mem::take(&mut self.body);
        body(self);
        std::mem::replace(&mut self.body, outer)
    }

    /// Does `body` for each number from 0 to `n` - 1.
    pub(crate) fn each(&mut self, n: usize, body: impl FnOnce(&mut Self, Ex)) {
        if n == 1 {
            body(self, Ex::Int(0));
            return;
        }
        let var = self.declare(Ty::Int);
        let inner = self.block(|s| body(s, Ex::Var(var)));
        self.body.push(Stmt::For(var, n, inner));
    }

    /// Does `body` for each place of an array of these extents, outermost first.
    pub(crate) fn nest(&mut self, dims: &[usize], body: &mut dyn FnMut(&mut Self, &[Ex])) {
        self.nest_from(dims, &mut Vec::new(), body);
    }

    fn nest_from(
        &mut self,
        dims: &[usize],
        place: &mut Vec<Ex>,
        body: &mut dyn FnMut(&mut Self, &[Ex]),
    ) {
        match dims.split_first() {
            None => body(self, place),
            Some((n, inner)) => self.each(*n, |s, i| {
                place.push(i);
                s.nest_from(inner, place, body);
                place.pop();
            }),
        }
    }

    /// Does `body` while the condition is not 0, at most `most` times.
    pub(crate) fn while_at_most(
        &mut self,
        most: usize,
        condition: Ex,
        body: impl FnOnce(&mut Self),
    ) {
        let var = self.declare(Ty::Int);
        let inner = self.block(body);
        self.body.push(Stmt::While(var, most, condition, inner));
    }
}

impl Kernel for Scalar {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reads(&self) -> Vec<Ref> {
        self.reads.clone()
    }

    fn writes(&self) -> Vec<Ref> {
        self.writes.clone()
    }

    fn emit(&self, f: &mut Func<'_>) {
        let places = self.reads.iter().chain(&self.writes);
        let mut bases: Vec<(Ref, Local)> = Vec::new();
        for place in places {
            if bases.iter().all(|(r, _)| r != place) {
                bases.push((*place, f.pointer(*place, 0)));
            }
        }
        let locals = self.vars.iter().map(|ty| f.local(ty.wasm())).collect();
        let mut emitter = Emitter { f, locals, bases };
        emitter.block(&self.body);
    }
}
