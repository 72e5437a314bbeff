//! GridSample of images: nearest, linear or cubic, at places that are known only at run time.

use super::{Call, Operator};
use crate::kernels::{Bin, Ex, Scalar, Ty, Un, index};
use crate::lower::window::image;
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// GridSample.
pub(crate) struct GridSample;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

struct How {
    mode: Mode,
    padding: Padding,
    corners: bool,
}

/// The coefficient of the cubic kernel.
const CUBIC: f32 = -0.75;

impl How {
    fn of(attrs: &Attrs<'_>) -> Result<Self, String> {
        Ok(Self {
            mode: match attrs.text("mode", "linear").as_str() {
                "linear" | "bilinear" => Mode::Linear,
                "nearest" => Mode::Nearest,
                "cubic" | "bicubic" => Mode::Cubic,
                other => return Err(format!("the mode `{other}` is not known")),
            },
            padding: match attrs.text("padding_mode", "zeros").as_str() {
                "zeros" => Padding::Zeros,
                "border" => Padding::Border,
                "reflection" => Padding::Reflection,
                other => return Err(format!("the padding `{other}` is not known")),
            },
            corners: attrs.int("align_corners", 0) != 0,
        })
    }

    /// Places before, and number of places along an axis, that a sample takes.
    fn reach(&self) -> (i32, usize) {
        match self.mode {
            Mode::Nearest => (0, 1),
            Mode::Linear => (0, 2),
            Mode::Cubic => (1, 4),
        }
    }

    /// Least and greatest coordinate, for reflection.
    fn edges(&self, size: usize) -> (f32, f32) {
        match self.corners {
            true => (0.0, size as f32 - 1.0),
            false => (-0.5, size as f32 - 0.5),
        }
    }

    fn coordinate(&self, x: f64, size: usize) -> f64 {
        let size = size as f64;
        match self.corners {
            true => (x + 1.0) / 2.0 * (size - 1.0),
            false => ((x + 1.0) * size - 1.0) / 2.0,
        }
    }

    /// The place that one outside stands for; `None` for zeros.
    fn place(&self, at: i64, size: usize) -> Option<usize> {
        let last = size as i64 - 1;
        match self.padding {
            Padding::Zeros => (0..=last).contains(&at).then_some(at as usize),
            Padding::Border => Some(at.clamp(0, last) as usize),
            Padding::Reflection => {
                let (low, high) = self.edges(size);
                let (low, span) = (f64::from(low), f64::from(high - low));
                if span == 0.0 {
                    return Some(0);
                }
                let far = (at as f64 - low).abs();
                let (turns, rest) = ((far / span).floor(), far % span);
                let at = if turns % 2.0 == 0.0 {
                    low + rest
                } else {
                    low + span - rest
                };
                Some((at as i64).clamp(0, last) as usize)
            }
        }
    }
}

fn cubic(far: f64) -> f64 {
    let (far, a) = (far.abs(), f64::from(CUBIC));
    if far <= 1.0 {
        ((a + 2.0) * far - (a + 3.0)) * far * far + 1.0
    } else {
        ((a * far - 5.0 * a) * far + 8.0 * a) * far - 4.0 * a
    }
}

/// Shapes: images, channels, input, output.
fn shape(x: &[usize], grid: &[usize]) -> Result<([usize; 4], [usize; 2]), String> {
    let (&[n, c, h, w], &[m, rows, columns, 2]) = (x, grid) else {
        return Err(format!("an image of {x:?} and a grid of {grid:?}"));
    };
    match n == m {
        true => Ok(([n, c, h, w], [rows, columns])),
        false => Err(format!("an image of {x:?} and a grid of {grid:?}")),
    }
}

impl Operator for GridSample {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        How::of(&node.attrs())?;
        let (x, grid) = (node.float(0)?, node.float(1)?);
        let ([n, c, ..], [rows, columns]) = shape(&image(x)?, &grid.item())?;
        if x.has_batch() != grid.has_batch() {
            return Err(super::MIXES.into());
        }
        let mut dims = fixed(&[n, c, rows, columns]);
        dims[0] = x.dims[0];
        Ok(vec![Type::new(DType::F32, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, grid, how) = (call.input(0)?, call.input(1)?, How::of(&call.attrs())?);
        let ([n, c, h, w], [rows, columns]) = shape(x.dims(), grid.dims())?;
        let (xs, gs) = (x.as_f32()?, grid.as_f32()?);
        let (before, count) = how.reach();
        let dims = [n, c, rows, columns];
        let taps = |axis: usize, at: usize, size: usize| -> Vec<(Option<usize>, f64)> {
            let x = how.coordinate(f64::from(gs[at * 2 + axis]), size);
            if how.mode == Mode::Nearest {
                return vec![(how.place(x.round_ties_even() as i64, size), 1.0)];
            }
            let first = x.floor() as i64 - i64::from(before);
            let weight = |i: i64| match how.mode {
                Mode::Cubic => cubic(x - i as f64),
                _ => 1.0 - (x - i as f64).abs(),
            };
            (first..first + count as i64)
                .map(|i| (how.place(i, size), weight(i)))
                .collect()
        };
        let one = |place: Vec<usize>| {
            let at = (place[0] * rows + place[2]) * columns + place[3];
            let (across, down) = (taps(0, at, w), taps(1, at, h));
            let mut sum = 0.0;
            for (row, a) in &down {
                for (column, b) in &across {
                    if let (Some(row), Some(column)) = (row, column) {
                        let from = ravel(&[place[0], place[1], *row, *column], &[n, c, h, w]);
                        sum += a * b * f64::from(xs[from]);
                    }
                }
            }
            sum as f32
        };
        Ok(vec![Tensor::f32(&dims, places(&dims).map(one).collect())?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let how = How::of(&node.attrs())?;
        let ([n, c, h, w], [rows, columns]) = shape(&node.ty(0)?.item(), &node.ty(1)?.item())?;
        let [src, grid] = [cx.read(0, Layout::Plain)?, cx.read(1, Layout::Plain)?];
        let dst = cx.write(Layout::Plain)?;
        let (_, count) = how.reach();
        let mut program = Scalar::new("grid-sample");
        program.nest(&[n, rows, columns], &mut |s, place| {
            let at = s.once(index(place, &[rows * columns * 2, columns * 2, 2]));
            let coordinates = [(0, w), (1, h)].map(|(axis, size)| {
                let x = s.load(grid, DType::F32, at.clone() + Ex::Int(axis));
                how.coordinate_program(s, x, size)
            });
            s.each(c, |s, channel| {
                let sum = s.var(Ex::Real(0.0));
                s.nest(&[count, count], &mut |s, tap| {
                    let (row, inside_row, a) = how.tap_program(s, &coordinates[1], &tap[0], h);
                    let (column, inside_column, b) =
                        how.tap_program(s, &coordinates[0], &tap[1], w);
                    let from = [place[0].clone(), channel.clone(), row, column];
                    let x = s.load(src, DType::F32, index(&from, &[c * h * w, h * w, w, 1]));
                    let inside = inside_row.bin(Bin::And, inside_column);
                    let part = inside.pick(x * a * b, Ex::Real(0.0));
                    s.set(sum, Ex::Var(sum) + part);
                });
                let to = [
                    place[0].clone(),
                    channel,
                    place[1].clone(),
                    place[2].clone(),
                ];
                let strides = [c * rows * columns, rows * columns, columns, 1];
                s.store(dst, DType::F32, index(&to, &strides), Ex::Var(sum));
            });
        });
        cx.push(program, 0)
    }
}

impl How {
    fn coordinate_program(&self, s: &mut Scalar, x: Ex, size: usize) -> Ex {
        let (size, one, two) = (size as f32, Ex::Real(1.0), Ex::Real(2.0));
        let x = match self.corners {
            true => (x + one) / two * Ex::Real(size - 1.0),
            false => ((x + one.clone()) * Ex::Real(size) - one) / two,
        };
        // Far outside, nothing changes any more; and floats this small have exact neighbours.
        s.once(x.max(Ex::Real(-1e6)).min(Ex::Real(1e6)))
    }

    /// The place of a tap, whether it is inside, and its weight.
    fn tap_program(&self, s: &mut Scalar, x: &Ex, tap: &Ex, size: usize) -> (Ex, Ex, Ex) {
        let (before, _) = self.reach();
        let first = match self.mode {
            Mode::Nearest => x.clone().un(Un::Nearest),
            _ => x.clone().un(Un::Floor) - Ex::Real(before as f32),
        };
        let at = s.once(first + tap.clone().to(Ty::Real));
        let far = s.once((x.clone() - at.clone()).un(Un::Abs));
        let weight = match self.mode {
            Mode::Nearest => Ex::Real(1.0),
            Mode::Linear => Ex::Real(1.0) - far,
            Mode::Cubic => {
                let a = CUBIC;
                let near = ((Ex::Real(a + 2.0) * far.clone() - Ex::Real(a + 3.0)) * far.clone())
                    * far.clone()
                    + Ex::Real(1.0);
                let away = ((Ex::Real(a) * far.clone() - Ex::Real(5.0 * a)) * far.clone()
                    + Ex::Real(8.0 * a))
                    * far.clone()
                    - Ex::Real(4.0 * a);
                far.le(Ex::Real(1.0)).pick(near, away)
            }
        };
        let place = match self.padding {
            Padding::Reflection => {
                let (low, high) = self.edges(size);
                let span = high - low;
                if span == 0.0 {
                    Ex::Real(0.0)
                } else {
                    let far = s.once((at.clone() - Ex::Real(low)).un(Un::Abs));
                    let turns = s.once((far.clone() / Ex::Real(span)).un(Un::Floor));
                    let rest = s.once(far - turns.clone() * Ex::Real(span));
                    let half = turns * Ex::Real(0.5);
                    let even = half.clone().un(Un::Floor).eq(half);
                    even.pick(Ex::Real(low) + rest.clone(), Ex::Real(high) - rest)
                        .un(Un::Trunc)
                }
            }
            _ => at.clone(),
        };
        let last = Ex::Real(size as f32 - 1.0);
        let cut = s.once(place.max(Ex::Real(0.0)).min(last));
        let inside = match self.padding {
            Padding::Zeros => cut.clone().eq(at),
            _ => Ex::Int(1),
        };
        (cut.to(Ty::Int), inside, s.once(weight))
    }
}
