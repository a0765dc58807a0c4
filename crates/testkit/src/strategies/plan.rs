//! Plans of the workflow.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;
use stillpoint_workflow::{
    BodyBuilder, Call, Claim, ClaimKey, GuardVerdict, Handle, Known, Out, Outside, Plan,
    PlanBuilder, Retry,
};

use super::must;

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepShape {
    /// After which earlier ones it comes, by their places.
    pub after: Vec<usize>,
    /// Whether the run goes on without it.
    pub optional: bool,
    /// How often it is tried.
    pub attempts: u32,
}

/// A guarded section.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuardShape {
    /// After which steps it comes.
    pub after: Vec<usize>,
    /// How many members it has.
    pub members: usize,
    /// The steps of its body, each with the earlier ones after which it comes.
    pub body: Vec<Vec<usize>>,
    /// How long it may last.
    pub limit: Option<Duration>,
}

/// The shape of a plan, without what its steps do: those are put in by [`build`](Self::build).
///
/// Steps are named `s0`, `s1`…, those of the guard `guard/m0/enter`, `b0`, `guard/m0/exit`…, a point of no return `point`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanShape {
    /// The steps, in an order in which they can be carried out.
    pub steps: Vec<StepShape>,
    /// A guard after some of them.
    pub guard: Option<GuardShape>,
    /// Whether a point of no return comes after everything.
    pub point: bool,
    /// What the run claims.
    pub claims: Vec<Claim>,
}

type Entered = (Known<()>, ());

impl PlanShape {
    /// The plan, of steps and exits by their names.
    ///
    /// ```
    /// use proptest::prelude::*;
    /// use stillpoint_testkit::strategies::plan_shapes;
    /// use stillpoint_workflow::{Done, Known, step_fn};
    ///
    /// proptest!(ProptestConfig::with_cases(20), |(shape in plan_shapes(6))| {
    ///     let plan = shape.build(
    ///         |_name| step_fn(|_, ()| async { Ok(Done::new(())) }),
    ///         |_name| step_fn(|_, (_, ()): (Known<()>, ())| async { Ok(Done::new(())) }),
    ///     );
    ///     prop_assert!(plan.nodes().len() >= shape.steps.len());
    /// });
    /// ```
    ///
    /// # Panics
    /// When the steps make the plan illegal, as one that is irreversible and optional would.
    pub fn build(
        &self,
        mut step: impl FnMut(&str) -> Call<(), ()>,
        exit: impl FnMut(&str) -> Call<Entered, (), ()>,
    ) -> Plan {
        let mut plan = PlanBuilder::new("drawn");
        for claim in &self.claims {
            plan.claim(claim.clone());
        }
        let mut all: Vec<Box<dyn Handle<Outside>>> = Vec::new();
        for (at, shape) in self.steps.iter().enumerate() {
            let name = format!("s{at}");
            let mut this = plan.step(&name, step(&name)).retry(Retry::times(shape.attempts));
            for before in shape.after.iter().filter_map(|before| all.get(*before)) {
                this = this.after(&**before);
            }
            let this: Box<dyn Handle<Outside>> =
                if shape.optional { Box::new(this.optional().add()) } else { Box::new(this.add()) };
            all.push(this);
        }
        if let Some(guard) = &self.guard {
            let verdict = guard.build(&mut plan, &all, &mut step, exit);
            all.push(Box::new(verdict));
        }
        if self.point {
            let mut point = plan.step("point", step("point")).no_return();
            for before in &all {
                point = point.after(&**before);
            }
            let _point = point.add();
        }
        must(plan.build())
    }
}

impl GuardShape {
    fn build(
        &self,
        plan: &mut PlanBuilder,
        earlier: &[Box<dyn Handle<Outside>>],
        step: &mut impl FnMut(&str) -> Call<(), ()>,
        mut exit: impl FnMut(&str) -> Call<Entered, (), ()>,
    ) -> Out<GuardVerdict> {
        let mut guard = plan.guard("guard").limit(self.limit);
        for before in self.after.iter().filter_map(|before| earlier.get(*before)) {
            guard = guard.after(&**before);
        }
        for at in 0..self.members {
            let enter = step(&format!("guard/m{at}/enter"));
            guard = guard.member(format!("m{at}"), enter, exit(&format!("guard/m{at}/exit")));
        }
        let body = |body: &mut BodyBuilder<'_>| {
            let mut made = Vec::new();
            for (at, after) in self.body.iter().enumerate() {
                let name = format!("b{at}");
                let mut this = body.step(&name, step(&name));
                for before in after.iter().filter_map(|before| made.get(*before)) {
                    this = this.after(*before);
                }
                made.push(this.add());
            }
        };
        let (verdict, ()) = guard.body(body).close();
        verdict
    }
}

/// Some of the earlier ones, at most three.
fn after(count: usize) -> impl Strategy<Value = Vec<usize>> {
    subsequence((0..count).collect::<Vec<_>>(), 0..=count.min(3))
}

fn step_shapes(at: usize) -> impl Strategy<Value = StepShape> {
    (after(at), prop::bool::weighted(0.15), 1..4_u32)
        .prop_map(|(after, optional, attempts)| StepShape { after, optional, attempts })
}

fn guard_shapes(steps: usize) -> impl Strategy<Value = GuardShape> {
    let body = (1..=3_usize).prop_flat_map(|count| (0..count).map(after).collect::<Vec<_>>());
    let limit = option::of((10..60_u64).prop_map(Duration::from_secs));
    (after(steps), 1..=2_usize, body, limit).prop_map(|(after, members, body, limit)| GuardShape {
        after,
        members,
        body,
        limit,
    })
}

/// Few resources, one above another.
fn claims() -> impl Strategy<Value = Vec<Claim>> {
    let key = proptest::sample::select(vec!["db", "db/1", "db/1/live", "db/2", "volume/1"]);
    let claim = (key, any::<bool>()).prop_map(|(key, exclusive)| {
        let key = must(ClaimKey::new(key));
        if exclusive { Claim::exclusive(key) } else { Claim::shared(key) }
    });
    vec(claim, 0..3)
}

/// Shapes of valid plans with one to so many steps, some with a guard, some with a point of no return.
pub fn plan_shapes(most: usize) -> impl Strategy<Value = PlanShape> {
    let steps =
        (1..=most.max(1)).prop_flat_map(|count| (0..count).map(step_shapes).collect::<Vec<_>>());
    steps.prop_flat_map(|steps| {
        let guard = option::of(guard_shapes(steps.len()));
        (Just(steps), guard, any::<bool>(), claims())
            .prop_map(|(steps, guard, point, claims)| PlanShape { steps, guard, point, claims })
    })
}
