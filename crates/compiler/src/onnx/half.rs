//! 16-bit floats of files: they are read as 32-bit floats, which hold every one of them.

/// The value of the bits of a 16-bit float.
pub(crate) fn widened(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, bits >> 10 & 31, bits & 1023);
    let size = match exponent {
        // Multiples of the least one.
        0 => f32::from(fraction) * 2f32.powi(-24),
        31 if fraction == 0 => f32::INFINITY,
        31 => f32::NAN,
        _ => f32::from_bits((u32::from(exponent) + 112) << 23 | u32::from(fraction) << 13),
    };
    if sign == 1 { -size } else { size }
}

/// The bits of the nearest 16-bit float, of two the even one; infinite from 65520 on.
pub(crate) fn narrowed(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    let size = x.abs();
    if size.is_nan() {
        return sign | 0x7e00;
    }
    if size < 2f32.powi(-14) {
        // Below 2^-14 all are multiples of 2^-24; the greatest becomes the least normal one.
        return sign | (size * 2f32.powi(24)).round_ties_even() as u16;
    }
    if size >= 65_520.0 {
        return sign | 0x7c00;
    }
    let bits = size.to_bits() - (112 << 23);
    let rounded = bits + 0xfff + (bits >> 13 & 1);
    sign | (rounded >> 13) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back() {
        for bits in 0..=u16::MAX {
            let x = widened(bits);
            if x.is_nan() {
                assert!(widened(narrowed(x)).is_nan());
            } else {
                assert_eq!(narrowed(x), bits, "{x}");
            }
        }
    }

    #[test]
    fn the_nearest_is_taken_and_of_two_the_even_one() {
        for bits in (0..0x7bffu16).chain(0x8000..0xfbff) {
            let (a, b) = (widened(bits), widened(bits + 1));
            // Exact: the sum has one more bit than each.
            let middle = (a + b) / 2.0;
            let even = bits + (bits & 1);
            assert_eq!(narrowed(middle), even);
            assert_eq!(narrowed(middle + (b - a) / 8.0), bits + 1);
            assert_eq!(narrowed(middle - (b - a) / 8.0), bits);
        }
        assert_eq!(widened(narrowed(65_519.0)), 65_504.0);
        assert_eq!(widened(narrowed(65_520.0)), f32::INFINITY);
        assert_eq!(widened(narrowed(-1e9)), f32::NEG_INFINITY);
    }
}
