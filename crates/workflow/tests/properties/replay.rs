//! Trying a property on generated cases, each of which has a seed of its own that brings it back.

use std::fmt::Debug;
use std::hash::BuildHasher;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// The seed of the one case to be tried.
const SEED: &str = "PROPERTY_SEED";

/// The number of cases.
const CASES: &str = "PROPTEST_CASES";

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Draws cases, of other seeds each time, and checks them. A case that fails is made smaller, and comes with the command that
/// does the same again.
pub fn for_cases<S: Strategy>(
    property: &str,
    count: u64,
    strategy: impl Fn() -> S,
    check: impl Fn(S::Value),
) where
    S::Value: Debug,
{
    let only = number(SEED);
    let count = if only.is_some() { 1 } else { number(CASES).unwrap_or(count) };
    let first = only.unwrap_or_else(|| std::hash::RandomState::new().hash_one(property));
    for seed in (0..count).map(|at| first.wrapping_add(at)) {
        if let Err(why) = try_case(seed, &strategy(), &check) {
            panic!(
                "{why}\nseed {seed} failed; replay it alone with {SEED}={seed} cargo test -p stillpoint-workflow \
                 --test properties -- --exact {property}"
            );
        }
    }
}

/// The case of a seed.
fn draw<S: Strategy>(seed: u64, strategy: &S) -> (TestRunner, S::Tree) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tree = strategy.new_tree(&mut runner).expect("no strategy here gives up");
    (runner, tree)
}

/// The value of a seed, as it was drawn.
pub fn value_of<S: Strategy>(seed: u64, strategy: &S) -> S::Value {
    proptest::strategy::ValueTree::current(&draw(seed, strategy).1)
}

fn try_case<S: Strategy>(seed: u64, strategy: &S, check: &impl Fn(S::Value)) -> Result<(), String>
where
    S::Value: Debug,
{
    let (mut runner, tree) = draw(seed, strategy);
    let tried = runner.run_one(tree, |case| {
        check(case);
        Ok::<_, TestCaseError>(())
    });
    match tried {
        Ok(_) => Ok(()),
        Err(TestError::Fail(why, case)) => Err(format!("{case:#?}\n{why}")),
        Err(TestError::Abort(why)) => Err(why.to_string()),
    }
}
