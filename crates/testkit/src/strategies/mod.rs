//! Strategies of proptest for what backup logic works on: what is drawn is valid, or breaks exactly one rule that it names; and
//! so does whatever it is shrunk to. With the feature `proptest`.
//!
//! | strategy | what it draws |
//! |---|---|
//! | [`organisations`] | servers, databases, copies, volumes and their providers, as an inventory and a placement |
//! | [`policies`], [`hooks`], [`groups`], [`retentions`], [`log_retentions`], [`schedules`] | valid ones |
//! | [`broken_policies`], [`broken_groups`], [`broken_schedules`] | ones that are refused, and with which code |
//! | [`plannings`], [`refused_plannings`] | all that a backup is planned from; with one rule that refuses one database, or all |
//! | [`plan_shapes`] | plans of the workflow, to be filled with steps of yours |
//! | [`fault_schedules`] | faults for [`Faults`](crate::Faults), in a [`World`](crate::World) or around a side of yours |
//!
//! ```
//! use proptest::prelude::*;
//! use stillpoint_testkit::strategies::{plannings, refused_plannings};
//!
//! proptest!(ProptestConfig::with_cases(20), |(planning in plannings(), refused in refused_plannings())| {
//!     // Whatever there is, and whatever is wanted: it can be planned.
//!     let plan = planning.plan()?;
//!     prop_assert!(!plan.to_string().is_empty());
//!     // One thing is wrong, and that is what is said.
//!     prop_assert_eq!(refused.codes(), [refused.code]);
//! });
//! ```
//!
//! Rules are called as in the tables of the reference (`V5`); the codes are those of the errors.
//!
//! What is drawn is made from plain numbers, so that shrinking goes towards fewer and smaller things: one server, one database,
//! the usual settings.

mod fault;
mod group;
mod hook;
mod organisation;
mod plan;
mod planning;
mod policy;
mod schedule;

pub use fault::{FaultSchedule, PlannedFault, fault_schedules};
pub use group::{broken_groups, groups};
pub use hook::hooks;
pub use organisation::{Organisation, fit_organisations, organisations};
pub use plan::{GuardShape, PlanShape, StepShape, plan_shapes};
pub use planning::{Planning, Refused, plannings, refused_plannings};
pub use policy::{broken_policies, log_retentions, names, policies, retentions};
pub use schedule::{broken_schedules, schedules};

/// Something that is refused by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broken<T> {
    /// What.
    pub what: T,
    /// The rule that it breaks, such as `V5`; empty for one that has no number.
    pub rule: &'static str,
    /// The code of the error.
    pub code: &'static str,
}

impl<T> Broken<T> {
    fn new(what: T, rule: &'static str, code: &'static str) -> Self {
        Self { what, rule, code }
    }
}

/// The value of something that is right by construction.
#[allow(clippy::panic, reason = "a strategy has nobody to tell but the test")]
fn must<T, E: std::fmt::Display>(value: Result<T, E>) -> T {
    value.unwrap_or_else(|error| panic!("a strategy drew what it should not: {error}"))
}
