//! What can be wrong with a plan.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Subject};

/// Everything that is wrong with a plan, at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    /// The problems, in the order of the plan; never empty.
    pub problems: Vec<PlanProblem>,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the plan is not valid: ")?;
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}

impl ErrorFacts for PlanError {
    fn code(&self) -> ErrorCode {
        self.problems.first().map_or("plan.invalid".into(), PlanProblem::code)
    }
    fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }
    fn effect(&self) -> Effect {
        Effect::None
    }
    fn subjects(&self) -> Vec<Subject> {
        let names = self.problems.iter().flat_map(PlanProblem::steps);
        names.map(|name| Subject::new("step", name)).collect()
    }
    fn remedy(&self) -> Cow<'static, str> {
        "Correct the plan; every problem is listed.".into()
    }
}

/// One thing that is wrong with a plan, naming its steps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanProblem {
    /// The stored plan is of a newer format.
    #[error("the plan has format {found}, this program knows up to {known}")]
    Format {
        /// The plan's format.
        found: u32,
        /// The newest that can be read.
        known: u32,
    },
    /// There are no steps.
    #[error("the plan has no steps")]
    Empty,
    /// A name that is not legal.
    #[error("{name:?} is not a legal name: {why}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Two nodes of one name.
    #[error("two steps are named {name}")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A dependency on what is not there.
    #[error("step {step} comes after {name}, which is not in the plan")]
    UnknownDependency {
        /// The dependent step.
        step: String,
        /// What it asks for.
        name: String,
    },
    /// A handle of another plan, or one from inside a guard that the step is not in.
    #[error("step {step} uses a handle of another plan or guard")]
    ForeignHandle {
        /// The step.
        step: String,
    },
    /// Steps that wait for each other.
    #[error("steps wait for each other in a ring: {}", steps.join(" → "))]
    Cycle {
        /// The whole ring, in order.
        steps: Vec<String>,
    },
    /// Two steps that may run at the same time, one of which needs the resource for itself.
    #[error("steps {first} and {second} both use {key}, one of them exclusively, in no order")]
    UnorderedUse {
        /// The resource.
        key: String,
        /// One step.
        first: String,
        /// The other.
        second: String,
    },
    /// A guard in a guard.
    #[error("guard {inner} is nested in guard {outer}")]
    NestedGuard {
        /// The outer guard.
        outer: String,
        /// The inner guard.
        inner: String,
    },
    /// A guard that nothing enters, or whose parts do not fit together.
    #[error("guard {guard} is not whole: {why}")]
    BadGuard {
        /// The guard.
        guard: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A body that cannot end in time.
    #[error("the body of guard {guard} may take {worst:?}, it has {cutoff:?} until its cutoff")]
    WorstCaseTooLong {
        /// The guard.
        guard: String,
        /// The declared worst case.
        worst: Duration,
        /// Limit less exit time-out.
        cutoff: Duration,
    },
    /// A point of no return beside which something else may still run.
    #[error("step {step} is no point of no return: {beside} is neither before nor after it")]
    NoReturnNotCut {
        /// The step.
        step: String,
        /// A step beside it.
        beside: String,
    },
    /// A point of no return in a guard.
    #[error("step {step} is the point of no return and sits in guard {guard}")]
    NoReturnInGuard {
        /// The step.
        step: String,
        /// The guard.
        guard: String,
    },
    /// More than one point of no return.
    #[error("steps {first} and {second} are both the point of no return")]
    SecondNoReturn {
        /// One step.
        first: String,
        /// The other.
        second: String,
    },
    /// A point of no return without which the run could go on.
    #[error("step {step} is the point of no return and cannot be optional")]
    OptionalNoReturn {
        /// The step.
        step: String,
    },
    /// A step with an undo where nothing is ever undone.
    #[error("step {step} has an undo that is never owed: it is at or after the point of no return")]
    UndoNeverOwed {
        /// The step.
        step: String,
    },
    /// A claim until a guard or a step outside guards that is not there.
    #[error("claim {key} lasts until {guard}, which is not in the plan")]
    UnknownGuard {
        /// The claim.
        key: String,
        /// The guard.
        guard: String,
    },
    /// Parameters that cannot be stored.
    #[error("the parameters of step {step} cannot be stored: {why}")]
    BadParams {
        /// The step.
        step: String,
        /// Why.
        why: String,
    },
}

impl PlanProblem {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::new(match self {
            Self::Format { .. } => "plan.newer_format",
            Self::Empty => "plan.empty",
            Self::BadName { .. } => "plan.bad_name",
            Self::DuplicateName { .. } => "plan.duplicate_name",
            Self::UnknownDependency { .. } => "plan.unknown_dependency",
            Self::ForeignHandle { .. } => "plan.foreign_handle",
            Self::Cycle { .. } => "plan.cycle",
            Self::UnorderedUse { .. } => "plan.unordered_use",
            Self::NestedGuard { .. } => "plan.nested_guard",
            Self::BadGuard { .. } => "plan.bad_guard",
            Self::WorstCaseTooLong { .. } => "guard.worst_case_too_long",
            Self::NoReturnNotCut { .. } => "plan.no_return_not_cut",
            Self::NoReturnInGuard { .. } => "plan.no_return_in_guard",
            Self::SecondNoReturn { .. } => "plan.second_no_return",
            Self::OptionalNoReturn { .. } => "plan.optional_no_return",
            Self::UndoNeverOwed { .. } => "plan.undo_never_owed",
            Self::UnknownGuard { .. } => "plan.unknown_guard",
            Self::BadParams { .. } => "plan.bad_params",
        })
    }

    /// The steps and guards that it is about.
    pub fn steps(&self) -> Vec<&str> {
        match self {
            Self::Format { .. } | Self::Empty => Vec::new(),
            Self::BadName { name, .. } | Self::DuplicateName { name } => vec![name],
            Self::UnknownDependency { step, name } => vec![step, name],
            Self::ForeignHandle { step }
            | Self::OptionalNoReturn { step }
            | Self::UndoNeverOwed { step }
            | Self::BadParams { step, .. } => vec![step],
            Self::Cycle { steps } => steps.iter().map(String::as_str).collect(),
            Self::UnorderedUse { first, second, .. } | Self::SecondNoReturn { first, second } => {
                vec![first, second]
            }
            Self::NestedGuard { outer, inner } => vec![outer, inner],
            Self::BadGuard { guard, .. }
            | Self::WorstCaseTooLong { guard, .. }
            | Self::UnknownGuard { guard, .. } => vec![guard],
            Self::NoReturnNotCut { step, beside } => vec![step, beside],
            Self::NoReturnInGuard { step, guard } => vec![step, guard],
        }
    }
}
