//! The fleet of the core against the small model of a rollout, over random sequences of verbs,
//! reports, silences and restarts. `PROPTEST_CASES` asks for more than the usual number.
#![allow(clippy::unwrap_used)]

mod machine;

use machine::Core;
use proptest::prelude::ProptestConfig;
use proptest_state_machine::prop_state_machine;

/// Sequences of one run of the test.
const CASES: u32 = 300;

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_core_does_what_the_small_model_does(sequential 1..120 => Core);
}
