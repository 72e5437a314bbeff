//! From a failing run to the shortest list of faults that still fails: delta debugging after
//! Zeller and Hildebrandt (IEEE TSE 2002), first over the faults, then over what operators did.

use crate::scenario::{Scenario, Step};
use crate::world::run;

/// Most runs that shortening may take.
const MAX_RUNS: usize = 400;

/// The scenario without what is not needed to break this invariant.
pub fn shrink(scenario: &Scenario, invariant: &str) -> Scenario {
    let mut budget = MAX_RUNS;
    let mut fails = |candidate: &Scenario| {
        budget = budget.saturating_sub(1);
        let found = run(candidate).found;
        budget > 0 && found.is_some_and(|f| f.violation.name == invariant)
    };
    let faults = minimal(scenario.faults.clone(), |faults| {
        let faults = faults.to_vec();
        fails(&Scenario {
            faults,
            ..scenario.clone()
        })
    });
    let scenario = Scenario {
        faults,
        ..scenario.clone()
    };
    let (kept, loose): (Vec<_>, Vec<_>) = scenario
        .steps
        .iter()
        .cloned()
        .partition(|(_, step)| matches!(step, Step::Join(_)));
    let all = |loose: &[(u64, Step)]| {
        let mut steps = [&kept[..], loose].concat();
        steps.sort_by_key(|(at, _)| *at);
        steps
    };
    let loose = minimal(loose, |loose| {
        fails(&Scenario {
            steps: all(loose),
            ..scenario.clone()
        })
    });
    Scenario {
        steps: all(&loose),
        ..scenario
    }
}

/// The part of a list that still fails, of which nothing more can be left out one by one.
fn minimal<T: Clone>(mut list: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut parts = 2;
    while !list.is_empty() {
        let size = list.len().div_ceil(parts);
        let mut shorter = None;
        for from in (0..list.len()).step_by(size) {
            let to = (from + size).min(list.len());
            let rest = [&list[..from], &list[to..]].concat();
            if fails(&rest) {
                shorter = Some(rest);
                break;
            }
        }
        match shorter {
            Some(rest) => {
                list = rest;
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(list.len()),
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_kept_and_nothing_else() {
        let list: Vec<u32> = (0..40).collect();
        let found = minimal(list, |l| l.contains(&3) && l.contains(&29));
        assert_eq!(found, [3, 29]);
    }

    #[test]
    fn nothing_is_needed_for_what_always_fails() {
        assert!(minimal(vec![1, 2, 3], |_| true).is_empty());
    }
}
