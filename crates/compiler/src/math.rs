//! Functions that generated code and tables share, so that both are the same on every host.

/// Adding this to a float of magnitude below 2^22 rounds it half to even.
pub(crate) const ROUNDER: f32 = 12_582_912.0;
/// ln 2 in two parts: the first has few bits, so that its product with a small integer is exact.
pub(crate) const LN_2_HIGH: f32 = 0.693_359_4;
/// What is left of ln 2; negative, since the first part is rounded up.
pub(crate) const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Arguments below are taken as this: e^x is then 1.2e-38, the least normal float.
pub(crate) const EXP_LEAST: f32 = -87.336_54;
/// Coefficients of the Taylor series of e^x, highest first: 1/7! .. 1/0!. On |x| <= ln(2) / 2 the
/// first term left out is below 6e-9.
pub(crate) const EXP_TERMS: [f32; 8] = [
    1.0 / 5040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// e^x for x <= 0, within 2 units in the last place; step by step what the softmax kernel does.
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x < EXP_LEAST { EXP_LEAST } else { x };
    let turns = x * std::f32::consts::LOG2_E + ROUNDER;
    let whole = turns - ROUNDER;
    let rest = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    let power = EXP_TERMS[1..]
        .iter()
        .fold(EXP_TERMS[0], |p, term| p * rest + term);
    let exponent = turns
        .to_bits()
        .wrapping_sub(ROUNDER.to_bits())
        .wrapping_add(127);
    f32::from_bits(exponent << 23) * power
}

/// Cosine and sine of `i` of `n` parts of a turn, `i` below `n`: by their series below an eighth, so that
/// tables of them are the same on every host.
pub(crate) fn turn(i: usize, n: usize) -> (f64, f64) {
    // Eighths of the turn before, and what is left of it; of every other eighth, what is missing.
    let (eighth, rest) = (8 * i / n, 8 * i % n);
    let rest = if eighth.is_multiple_of(2) {
        rest
    } else {
        n - rest
    };
    let angle = std::f64::consts::FRAC_PI_4 * rest as f64 / n as f64;
    let square = angle * angle;
    let series = |first: f64, from: u32| {
        let mut term = first;
        let mut sum = first;
        for k in 0..9 {
            let n = f64::from(from + 2 * k);
            term *= -square / (n * (n + 1.0));
            sum += term;
        }
        sum
    };
    let (c, s) = (series(1.0, 1), series(angle, 2));
    match eighth {
        0 => (c, s),
        1 => (s, c),
        2 => (-s, c),
        3 => (-c, s),
        4 => (-c, -s),
        5 => (-s, -c),
        6 => (s, -c),
        _ => (c, -s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_exact() {
        for n in [1, 2, 3, 8, 12, 400, 1023] {
            for i in 0..n {
                let (cosine, sine) = turn(i, n);
                let angle = std::f64::consts::TAU * i as f64 / n as f64;
                assert!((cosine - angle.cos()).abs() < 4e-15, "{i} of {n}");
                assert!((sine - angle.sin()).abs() < 4e-15, "{i} of {n}");
            }
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * exact / 2.0;
            let error = (f64::from(exp(x)) - exact).abs();
            assert!(error <= 2.0 * 2.0 * unit, "e^{x}: {error:e}, unit {unit:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
        assert!(exp(f32::NAN).is_nan());
    }
}
