//! Random tests that say how to replay them.

use std::hash::{BuildHasher, Hasher, RandomState};

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// Another seed each time, printed when the test fails; `STILLPOINT_SEED` plays one again.
pub fn seeded(test: &str) -> ProptestConfig {
    let seed = std::env::var("STILLPOINT_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("replay: STILLPOINT_SEED={seed} cargo test -p stillpoint-model {test}");
    ProptestConfig {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Default::default()
    }
}

/// The same with so many cases, unless `PROPTEST_CASES` says how many.
#[allow(dead_code, reason = "not everybody who includes this needs it")]
pub fn seeded_cases(test: &str, cases: u32) -> ProptestConfig {
    let seeded = seeded(test);
    let told = std::env::var_os("PROPTEST_CASES").is_some();
    if told { seeded } else { ProptestConfig { cases, ..seeded } }
}
