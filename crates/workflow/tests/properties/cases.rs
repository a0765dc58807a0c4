//! What is generated: plans that go wrong, the claims of runs on each other, and the deaths of processes.

use std::ops::RangeInclusive;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// What one attempt of a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Does {
    Work,
    FailNone,
    FailUnknown,
    Panic,
    Hang,
}

/// What can be done about an attempt of which nobody knows what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing.
    Stays,
    /// It may be repeated: the step is idempotent.
    Repeats,
    /// A probe tells whether it has done its work.
    Asks,
}

#[derive(Debug, Clone)]
pub struct StepSpec {
    /// One for each attempt; the last for all further ones.
    pub does: Vec<Does>,
    pub after: Vec<usize>,
    pub optional: bool,
    pub doubt: Doubt,
    /// Each attempt needs a slot of the pool.
    pub pooled: bool,
    pub attempts: u32,
    /// How often its undo fails.
    pub undo_fails: u32,
    pub millis: u64,
}

#[derive(Debug, Clone)]
pub struct GuardSpec {
    pub after: Vec<usize>,
    pub enters: Vec<Does>,
    pub exits: Vec<Does>,
    pub body: Vec<StepSpec>,
    pub limited: bool,
}

/// One run: its plan, and when somebody cancels it.
#[derive(Debug, Clone)]
pub struct Case {
    pub steps: Vec<StepSpec>,
    pub guard: Option<GuardSpec>,
    /// Whether a point of no return and a step after it end the plan, and what they do.
    pub point: Option<(Does, Does)>,
    pub cancel: Option<u64>,
}

/// How long a claim is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    End,
    Guard,
    Step(usize),
}

#[derive(Debug, Clone)]
pub struct ClaimSpec {
    pub key: &'static str,
    pub exclusive: bool,
    pub until: Until,
}

/// A run among others.
#[derive(Debug, Clone)]
pub struct Part {
    pub case: Case,
    pub claims: Vec<ClaimSpec>,
    /// When it is submitted, and by how much it goes before others.
    pub delay: u64,
    pub head_start: u64,
}

/// How a process dies: one of its appends is the last, and nobody is told whether it was written.
#[derive(Debug, Clone)]
pub struct Death {
    pub append: usize,
    pub written: bool,
    /// For so long the process goes on with a journal that hangs.
    pub lingers: u64,
}

/// How a journal fails: from one append on it refuses all of them, for a while.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub append: usize,
    pub millis: u64,
    /// Whether what it calls an I/O error has been written all the same.
    pub written: bool,
}

/// Runs on one engine; if it dies, the next process carries on.
#[derive(Debug, Clone)]
pub struct Story {
    /// Decides the order of everything that is not said here.
    pub seed: u64,
    pub parts: Vec<Part>,
    pub deaths: Vec<Death>,
    pub trouble: Option<Trouble>,
}

impl Story {
    fn of(seed: u64, parts: Vec<Part>) -> Self {
        Self { seed, parts, deaths: Vec::new(), trouble: None }
    }
}

/// Few resources, one above another.
const KEYS: [&str; 5] = ["db", "db/1", "db/1/live", "db/2", "volume/1"];

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        12 => Just(Does::Work),
        1 => Just(Does::FailNone),
        1 => Just(Does::FailUnknown),
        1 => Just(Does::Panic),
        1 => Just(Does::Hang),
    ]
}

/// Places among so many earlier steps.
fn after(count: usize, most: usize) -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0..count.max(1), 0..=most).prop_map(move |mut after| {
        if count == 0 {
            after.clear();
        }
        after.sort_unstable();
        after.dedup();
        after
    })
}

fn step(at: usize) -> impl Strategy<Value = StepSpec> {
    let doubt = prop_oneof![
        2 => Just(Doubt::Stays),
        3 => Just(Doubt::Repeats),
        2 => Just(Doubt::Asks),
    ];
    let flags = (prop::bool::weighted(0.15), doubt, prop::bool::weighted(0.3));
    let numbers = (1..=3_u32, 0..=5_u32, 1..50_u64);
    (proptest::collection::vec(does(), 1..=3), after(at, at.min(3)), flags, numbers).prop_map(
        |(does, after, (optional, doubt, pooled), (attempts, undo, millis))| {
            // Most undos work at once.
            let undo_fails = undo.saturating_sub(3) * 3;
            StepSpec { does, after, optional, doubt, pooled, attempts, undo_fails, millis }
        },
    )
}

fn steps(most: usize) -> impl Strategy<Value = Vec<StepSpec>> {
    (1..=most).prop_flat_map(|count| (0..count).map(step).collect::<Vec<_>>())
}

fn guard(count: usize) -> impl Strategy<Value = GuardSpec> {
    let enters = proptest::collection::vec(does(), 1..=2);
    (after(count, 2), enters, does(), steps(3), any::<bool>()).prop_map(
        |(after, enters, exit, body, limited)| {
            let exits = enters.iter().map(|_| exit).collect();
            GuardSpec { after, enters, exits, body, limited }
        },
    )
}

fn case(most: usize) -> impl Strategy<Value = Case> {
    steps(most).prop_flat_map(|steps| {
        let guard = proptest::option::of(guard(steps.len()));
        let point = proptest::option::of((does(), does()));
        let cancel = proptest::option::weighted(0.3, 0..400_u64);
        (Just(steps), guard, point, cancel).prop_map(|(steps, guard, point, cancel)| Case {
            steps,
            guard,
            point,
            cancel,
        })
    })
}

fn claim(steps: usize, guarded: bool) -> impl Strategy<Value = ClaimSpec> {
    let until = prop_oneof![
        2 => Just(Until::End),
        1 => Just(if guarded { Until::Guard } else { Until::End }),
        1 => (0..steps).prop_map(Until::Step),
    ];
    (prop::sample::select(&KEYS[..]), prop::bool::weighted(0.6), until)
        .prop_map(|(key, exclusive, until)| ClaimSpec { key, exclusive, until })
}

/// A run that claims something.
fn part() -> impl Strategy<Value = Part> {
    case(3).prop_flat_map(|case| {
        let claim = claim(case.steps.len(), case.guard.is_some());
        let claims = proptest::collection::vec(claim, 1..=3);
        (Just(case), claims, 0..60_u64, 0..40_u64)
            .prop_map(|(case, claims, delay, head_start)| Part { case, claims, delay, head_start })
    })
}

fn death() -> impl Strategy<Value = Death> {
    (1..=40_usize, any::<bool>(), prop_oneof![Just(0), 0..60_u64])
        .prop_map(|(append, written, lingers)| Death { append, written, lingers })
}

/// One run for itself, longer than those of other stories.
pub fn alone() -> impl Strategy<Value = Story> {
    (any::<u64>().no_shrink(), case(6)).prop_map(|(seed, case)| {
        let part = Part { case, claims: Vec::new(), delay: 0, head_start: 0 };
        Story::of(seed, vec![part])
    })
}

/// So many runs that get into each other's way.
fn crowd(count: RangeInclusive<usize>) -> impl Strategy<Value = Story> {
    (any::<u64>().no_shrink(), proptest::collection::vec(part(), count))
        .prop_map(|(seed, parts)| Story::of(seed, parts))
}

pub fn together() -> impl Strategy<Value = Story> {
    crowd(2..=4)
}

/// Runs in one or two processes that die one after the other.
pub fn dying() -> impl Strategy<Value = Story> {
    (crowd(1..=3), proptest::collection::vec(death(), 1..=2))
        .prop_map(|(story, deaths)| Story { deaths, ..story })
}

/// Runs in a process whose journal fails for a while.
pub fn failing() -> impl Strategy<Value = Story> {
    let trouble = (1..=40_usize, 0..5000_u64, any::<bool>())
        .prop_map(|(append, millis, written)| Trouble { append, millis, written });
    (crowd(1..=3), trouble).prop_map(|(story, trouble)| Story { trouble: Some(trouble), ..story })
}
