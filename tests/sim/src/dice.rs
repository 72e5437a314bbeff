//! Chance from a seed: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). One stream of numbers for
//! each part of the world, so that taking a fault away changes nothing but its consequences.

/// A stream of numbers that its seed and its name determine.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream of this name.
    pub fn new(seed: u64, name: &str, number: u64) -> Self {
        let mut dice = Self(seed ^ 0x9e37_79b9_7f4a_7c15);
        for part in name.bytes().map(u64::from).chain([number]) {
            dice.0 ^= part;
            dice.0 = dice.roll();
        }
        dice
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..bound`; 0 when there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of the remainder is below 2^-32 for the bounds used here.
        self.roll() % bound.max(1)
    }

    /// One of `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// In `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of several.
    ///
    /// # Panics
    /// Without any.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// Standard normal, as a sum of twelve uniform numbers: the same bits on every machine.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_another_gives_others() {
        let take = |seed, name| -> Vec<u64> {
            let mut dice = Dice::new(seed, name, 3);
            (0..8).map(|_| dice.roll()).collect()
        };
        assert_eq!(take(1, "net"), take(1, "net"));
        assert_ne!(take(1, "net"), take(2, "net"));
        assert_ne!(take(1, "net"), take(1, "disk"));
    }

    #[test]
    fn numbers_stay_in_their_bounds_and_spread() {
        let mut dice = Dice::new(7, "test", 0);
        let mut seen = [0_u32; 6];
        for _ in 0..6_000 {
            seen[dice.between(0, 5) as usize] += 1;
            assert!((0.0..1.0).contains(&dice.unit()));
        }
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
        let mean = (0..6_000).map(|_| dice.normal()).sum::<f64>() / 6_000.0;
        assert!(mean.abs() < 0.05, "{mean}");
    }
}
