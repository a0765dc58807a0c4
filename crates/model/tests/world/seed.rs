//! Random tests that say how to replay them.

use std::hash::{BuildHasher, Hasher, RandomState};

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// Another seed each time, printed when the test fails; `STILLPOINT_SEED` plays one again.
pub fn seeded(test: &str) -> ProptestConfig {
    let seed = seed(test);
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

/// The seed that a test goes by: another one each time, told with how to play it again, or that of `STILLPOINT_SEED`.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("STILLPOINT_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("replay: STILLPOINT_SEED={seed} cargo test -p stillpoint-model {test}");
    seed
}

/// Numbers below what is asked, drawn by a seed.
#[allow(dead_code, reason = "not everybody who includes this needs it")]
pub fn drawn(mut state: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
    }
}
