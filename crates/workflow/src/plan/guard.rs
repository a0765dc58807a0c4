//! Building a guard.

use std::time::Duration;

use stillpoint_context::{ErrorCode, StepName};

use super::builder::{PlanBuilder, StepBuilder};
use super::handle::{Handle, Inside, Leave, NodeNo, Out, Outside};
use super::{Guard, Member, NodeKind, OnBroken, PlanProblem, Role};
use crate::action::{Call, Known};
use crate::machine::GuardVerdict;
use crate::retry::Retry;

/// How long one attempt of an exit may take, unless said.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// A guard being built: its members, then its [`body`](Self::body), then `close`.
///
/// ```
/// use std::time::Duration;
/// use stillpoint_workflow::{Done, Known, PlanBuilder, step_fn};
///
/// let mut plan = PlanBuilder::new("snapshot");
/// let freeze = step_fn(|_, ()| async { Ok(Done::new("frozen".to_owned())) });
/// let thaw = step_fn(|_, (_frozen, ()): (Known<String>, ())| async { Ok(Done::new(())) });
/// let (verdict, snapshot) = plan
///     .guard("freeze")
///     .limit(Duration::from_secs(8))
///     .member("host", freeze, thaw)
///     .body(|body| body.step("commit", step_fn(|_, ()| async { Ok(Done::new(7_u32)) })).add())
///     .close();
/// # let _ = verdict;
/// plan.step("settle", step_fn(|_, _n: u32| async { Ok(Done::new(())) })).bind(snapshot).add();
/// # plan.build()?;
/// # Ok::<(), stillpoint_workflow::PlanError>(())
/// ```
#[derive(Debug)]
#[must_use = "a guard is whole once it is closed"]
pub struct GuardBuilder<'p, R = ()> {
    plan: &'p mut PlanBuilder,
    node: NodeNo,
    outputs: R,
}

impl<'p> GuardBuilder<'p> {
    pub(super) fn new(plan: &'p mut PlanBuilder, name: &str) -> Self {
        let guard = Guard {
            limit: None,
            exit_timeout: EXIT_TIMEOUT,
            exit_retry: Retry::times(3)
                .backoff(Duration::from_millis(50), Duration::from_millis(500)),
            on_broken: OnBroken::Fail,
            miss_code: ErrorCode::new("guard.cutoff"),
            members: Vec::new(),
            body: Vec::new(),
        };
        let node = plan.push(name, NodeKind::Guard(guard));
        Self { plan, node, outputs: () }
    }

    /// The steps that run while every member holds. What it returns comes out of [`close`](GuardBuilder::close).
    pub fn body<R: Leave>(
        self,
        build: impl FnOnce(&mut BodyBuilder<'_>) -> R,
    ) -> GuardBuilder<'p, R> {
        let Self { plan, node, .. } = self;
        let outputs = build(&mut BodyBuilder { plan, guard: node });
        GuardBuilder { plan, node, outputs }
    }
}

impl<R> GuardBuilder<'_, R> {
    fn guard(&mut self) -> Option<&mut Guard> {
        match &mut self.plan.nodes[self.node.index()].kind {
            NodeKind::Guard(guard) => Some(guard),
            NodeKind::Input | NodeKind::Step(_) => None,
        }
    }

    fn set(mut self, change: impl FnOnce(&mut Guard)) -> Self {
        if let Some(guard) = self.guard() {
            change(guard);
        }
        self
    }

    /// How long it may last, from the first poll of an enter to the end of the last exit. Without a limit (data at
    /// rest) it lasts as long as its body.
    pub fn limit(self, limit: impl Into<Option<Duration>>) -> Self {
        let limit = limit.into();
        self.set(|guard| guard.limit = limit)
    }

    /// How long one attempt of an exit may take. The body stops this long before the limit.
    pub fn exit_timeout(self, timeout: Duration) -> Self {
        self.set(|guard| guard.exit_timeout = timeout)
    }

    /// How often an exit is tried before the run is parked with the exit owed.
    pub fn exit_retry(self, retry: Retry) -> Self {
        self.set(|guard| guard.exit_retry = retry)
    }

    /// What follows when the body is whole but the section was not held to its end.
    pub fn on_broken(self, on_broken: OnBroken) -> Self {
        self.set(|guard| guard.on_broken = on_broken)
    }

    /// The code of the failure when the limit is missed; `guard.cutoff` unless said.
    pub fn miss_code(self, code: impl Into<ErrorCode>) -> Self {
        let code = code.into();
        self.set(|guard| guard.miss_code = code)
    }

    /// Places it after an earlier step.
    pub fn after<H: Handle<Outside>>(self, earlier: H) -> Self {
        self.plan.place_after(self.node, earlier.place());
        self
    }

    /// Adds a member. Its exit is told what is known of its enter, together with its own input.
    pub fn member<EI, EO, XI, XO>(
        self,
        name: impl AsRef<str>,
        enter: Call<EI, EO, EI>,
        exit: Call<(Known<EO>, XI), XO, XI>,
    ) -> Self {
        let guard = self.plan.nodes[self.node.index()].name.to_string();
        let name = match StepName::new(name.as_ref()) {
            Ok(name) => name,
            Err(error) => {
                let problem = PlanProblem::BadName {
                    name: name.as_ref().to_owned(),
                    why: error.why.to_owned(),
                };
                self.plan.problems.push(problem);
                return self;
            }
        };
        let within = Some(self.node);
        let enter =
            self.plan.push_step(&format!("{guard}/{name}/enter"), enter, Role::Enter, within);
        let exit = self.plan.push_step(&format!("{guard}/{name}/exit"), exit, Role::Exit, within);
        self.set(|guard| guard.members.push(Member { name, enter, exit }))
    }
}

impl<R: Leave> GuardBuilder<'_, R> {
    /// Adds the guard to the plan: its verdict, and what the body returned.
    pub fn close(self) -> (Out<GuardVerdict>, R::Outside) {
        (Out::new(self.plan.tag, self.node), self.outputs.leave())
    }
}

/// Collects the steps of a guard's body.
#[derive(Debug)]
pub struct BodyBuilder<'p> {
    plan: &'p mut PlanBuilder,
    guard: NodeNo,
}

impl BodyBuilder<'_> {
    /// Begins a step of the body; [`StepBuilder::add`] ends it. It is tried once: there is no time for more.
    pub fn step<I, O, X>(
        &mut self,
        name: impl AsRef<str>,
        call: Call<I, O, X>,
    ) -> StepBuilder<'_, Inside, I, O, X> {
        let step = StepBuilder::new(self.plan, name.as_ref(), call, Role::Body, Some(self.guard));
        step.in_body_of(self.guard)
    }
}
