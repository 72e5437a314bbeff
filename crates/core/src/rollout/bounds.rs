//! Bounds of what is not known exactly. Gates are looked at after every report, so the bound that
//! lets one fail must hold at all looks together; see [`at_every_look`].

use crate::outputs::{BINS, Histogram};

/// One-sided 95 % of a standard normal distribution: what a pass needs.
pub const Z_PASS: f64 = 1.645;
/// One-sided 99 %, at one look.
pub const Z_FAIL: f64 = 2.326;
/// The share of rollouts without a change beyond its limit in which one gate may fail, over all
/// looks together.
pub const FALSE_ALARMS: f64 = 0.01;

/// In place of [`Z_FAIL`] when the same figure is looked at again and again while what is behind it
/// grows: how many standard errors a mean may be off at *any* of the looks, with probability
/// [`FALSE_ALARMS`]. `seen` observations are behind this look, and `first` behind the first one.
///
/// The mixture boundary of Robbins (Annals of Mathematical Statistics 41, 1970) as given by Howard,
/// Ramdas, McAuliffe and Sekhon (Annals of Statistics 49, 2021): with `r = seen / rho` it is
/// `sqrt((1 + 1/r) (ln(1 + r) - 2 ln(2 alpha)))`, each side having `alpha`. It grows with the
/// logarithm of the observations; `rho` makes it least at 8 times the first look.
pub fn at_every_look(seen: f64, first: f64) -> f64 {
    let ratio = 8.0 * (seen / first.max(1.0)).max(1.0);
    let level = -2.0 * (2.0 * FALSE_ALARMS).ln();
    ((1.0 + 1.0 / ratio) * (ratio.ln_1p() + level)).sqrt()
}

/// Score bounds of a rate that was seen in so many tries (Wilson, Journal of the American
/// Statistical Association 22, 1927).
pub(super) fn wilson(rate: f64, tries: f64, z: f64) -> (f64, f64) {
    if tries <= 0.0 {
        return (0.0, 1.0);
    }
    let z2 = z * z / tries;
    let middle = rate + z2 / 2.0;
    let half = z
        * (rate * (1.0 - rate) / tries + z2 / (4.0 * tries))
            .max(0.0)
            .sqrt();
    let bound = |x: f64| (x / (1.0 + z2)).clamp(0.0, 1.0);
    (bound(middle - half), bound(middle + half))
}

/// The rate below the one that was seen in so many tries at which that becomes as unlikely as `z`
/// says: where the exponent of Chernoff's bound (Annals of Mathematical Statistics 23, 1952) is
/// `z²/2`. It holds at few hits, where Wilson's bound is too sure of them.
pub(super) fn chernoff_low(rate: f64, tries: f64, z: f64) -> f64 {
    if tries <= 0.0 || rate <= 0.0 {
        return 0.0;
    }
    let part = |seen: f64, of: f64| {
        if seen > 0.0 {
            seen * (seen / of).ln()
        } else {
            0.0
        }
    };
    let exponent = |p: f64| tries * (part(rate, p) + part(1.0 - rate, 1.0 - p));
    let (mut low, mut high) = (0.0, rate);
    // Halved until nothing is left of it at the precision of the figures that are shown.
    for _ in 0..48 {
        let middle = (low + high) / 2.0;
        match exponent(middle) > z * z / 2.0 {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

/// A rate and the tries behind it.
pub(super) type Rate = (f64, f64);

/// Bounds of the rise from one rate to another, from the bounds of both (Newcombe, Statistics in
/// Medicine 17, 1998, method 10): score bounds, but for the lower one of the rate after, see
/// [`chernoff_low`]. What was before is fixed when the looks begin, so that its bound needs only
/// hold once.
pub(super) fn rise(before: Rate, after: Rate, z_low: f64) -> (f64, f64) {
    let change = after.0 - before.0;
    let (low_before, _) = wilson(before.0, before.1, Z_PASS);
    let (_, high_before) = wilson(before.0, before.1, Z_FAIL);
    let (_, high_after) = wilson(after.0, after.1, Z_PASS);
    let below = after.0 - chernoff_low(after.0, after.1, z_low);
    let low = change - below.hypot(high_before - before.0);
    let high = change + (high_after - after.0).hypot(before.0 - low_before);
    (low, high)
}

/// How far the histograms of two versions are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Distance {
    /// Total variation distance of the two: 0 for equal shares, 1 for shares without overlap.
    pub(super) found: f64,
    /// By how much chance alone raises `found` at most, on average.
    pub(super) bias: f64,
    /// `1/n + 1/m` for the independent observations behind them: a quarter of it bounds the variance
    /// (McDiarmid's inequality: one observation moves the distance by at most its own share).
    pub(super) inverse: f64,
    /// Independent observations after.
    pub(super) after: f64,
}

/// The distance of two histograms, each with how often consecutive answers differed in class;
/// `None` when one is empty.
pub(super) fn distance(before: (&Histogram, f64), after: (&Histogram, f64)) -> Option<Distance> {
    let (n, m) = (before.0.total() as f64, after.0.total() as f64);
    if n < 1.0 || m < 1.0 {
        return None;
    }
    let inverse = 1.0 / (n * before.1) + 1.0 / (m * after.1);
    let (mut found, mut bias) = (0.0, 0.0);
    for bin in 0..BINS {
        let (was, is) = (before.0.count(bin), after.0.count(bin));
        let (was, is) = (f64::from(was), f64::from(is));
        found += (was / n - is / m).abs() / 2.0;
        let both = (was + is) / (n + m);
        // The mean of a distance from the mean is at most its standard deviation.
        bias += (both * (1.0 - both) * inverse).sqrt() / 2.0;
    }
    Some(Distance {
        found,
        bias,
        inverse,
        after: m * after.1,
    })
}

/// What share of the answers counts as independent when like inputs follow each other: for a chain
/// whose next state is the last one with probability `r` and a fresh draw otherwise, `(1 - r) /
/// (1 + r)` of them (Bayley and Hammersley, Supplement to the Journal of the Royal Statistical
/// Society 8, 1946). `r` follows from how often the class differed from the one before.
pub(super) fn independent_share(classes: &Histogram, turns: u64) -> f64 {
    let n = classes.total() as f64;
    if n < 2.0 {
        return 1.0;
    }
    let same: f64 = (0..BINS)
        .map(|bin| (f64::from(classes.count(bin)) / n).powi(2))
        .sum();
    // One is added to both, so that a model that always finds the same class is no riddle.
    let (seen, drawn) = ((turns as f64 + 1.0) / n, 1.0 - same + 1.0 / n);
    let fresh = (seen / drawn).clamp(1.0 / n, 1.0);
    fresh / (2.0 - fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[u32]) -> Histogram {
        let mut all = Histogram::default();
        for (bin, count) in counts.iter().enumerate() {
            (0..*count).for_each(|_| all.record(bin));
        }
        all
    }

    #[test]
    fn wilson_is_right_at_known_points() {
        // 10 of 100 at 95 % two-sided, z = 1.96: 0.0552 to 0.1744.
        let (low, high) = wilson(0.1, 100.0, 1.96);
        assert!((low - 0.0552).abs() < 1e-4 && (high - 0.1744).abs() < 1e-4);
        assert_eq!(wilson(0.0, 0.0, 1.96), (0.0, 1.0));
    }

    #[test]
    fn a_single_hit_proves_little() {
        let (one, z) = (1.0 / 20.0, 3.4);
        let exact = 1.0 - (1.0_f64 - 0.000_34).powf(1.0 / 20.0);
        assert!(chernoff_low(one, 20.0, z) < 4.0 * exact);
        assert!(wilson(one, 20.0, z).0 > 100.0 * exact, "which is why");
        let many = chernoff_low(0.3, 1e5, 1.96) - wilson(0.3, 1e5, 1.96).0;
        assert!(
            many.abs() < 1e-4,
            "and where there are many both say the same"
        );
        assert_eq!(chernoff_low(0.0, 10.0, z), 0.0);
        assert!((0.0..1.0).contains(&chernoff_low(1.0, 10.0, z)));
    }

    #[test]
    fn the_rise_is_that_of_the_paper() {
        // Its example (a), 56/70 and 48/80 at 95 % two-sided: 0.0524 to 0.3339.
        let bound = |before: Rate, after: Rate| {
            let (l1, u1) = wilson(before.0, before.1, 1.96);
            let (l2, u2) = wilson(after.0, after.1, 1.96);
            let change = after.0 - before.0;
            let low = change - (after.0 - l2).hypot(u1 - before.0);
            let high = change + (u2 - after.0).hypot(before.0 - l1);
            (low, high)
        };
        let (low, high) = bound((0.6, 80.0), (0.8, 70.0));
        assert!((low - 0.0524).abs() < 1e-4 && (high - 0.3339).abs() < 1e-4);
        let (ours, above) = rise((0.6, 80.0), (0.8, 70.0), Z_FAIL);
        assert!(
            ours < low && above < high,
            "99 % below, 95 % one-sided above"
        );
    }

    #[test]
    fn looking_often_needs_more_than_looking_once() {
        let all = [1.0, 10.0, 100.0, 1e4].map(|seen| at_every_look(seen * 20.0, 20.0));
        assert!(
            all.iter().all(|z| *z > Z_FAIL) && all.is_sorted(),
            "{all:?}"
        );
        assert!(all[3] < 2.0 * Z_FAIL, "and not without bound: {all:?}");
    }

    #[test]
    fn equal_shares_have_no_distance_and_disjoint_ones_all_of_it() {
        let (a, b) = (histogram(&[30, 10]), histogram(&[0, 0, 50]));
        let same = distance((&a, 1.0), (&histogram(&[60, 20]), 1.0));
        assert!(same.is_some_and(|d| d.found < 1e-12 && d.bias > 0.0));
        let apart = distance((&a, 1.0), (&b, 1.0));
        assert!(apart.is_some_and(|d| (d.found - 1.0).abs() < 1e-12));
        assert_eq!(distance((&a, 1.0), (&Histogram::default(), 1.0)), None);
    }

    #[test]
    fn a_long_run_of_one_class_is_worth_few_answers() {
        let half = histogram(&[500, 500]);
        assert!(independent_share(&half, 500) > 0.95);
        assert!(independent_share(&half, 1) * 1000.0 < 3.0);
        assert!((independent_share(&histogram(&[1000]), 0) - 1.0).abs() < 1e-9);
    }
}
