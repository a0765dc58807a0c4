//! The plan of a generated case.

use std::time::Duration;

use stillpoint_workflow::*;

use super::cases::{Case, ClaimSpec, Does, Doubt, GuardSpec, Part, StepSpec, Until};
use super::common::key;
use super::world::{Exit, Plain, Takes, Told};

const MILLI: Duration = Duration::from_millis(1);

/// The pool of which some steps need a slot.
pub fn pool() -> PoolName {
    PoolName::new("pool").unwrap()
}

impl StepSpec {
    fn call(&self, who: usize) -> Call<(), ()> {
        let told = Told {
            who,
            does: self.does.clone(),
            millis: self.millis,
            undo_fails: self.undo_fails,
            tells: self.doubt == Doubt::Asks,
        };
        if self.doubt == Doubt::Repeats {
            Takes::<true>::with(told)
        } else {
            Takes::<false>::with(told)
        }
    }
}

fn quick(who: usize, does: Vec<Does>) -> Told {
    Told { who, does, millis: 5, undo_fails: 0, tells: false }
}

fn plain(who: usize, does: Does) -> Call<(), ()> {
    Plain::with(quick(who, vec![does]))
}

impl ClaimSpec {
    pub fn claim(&self) -> Claim {
        let key = key(self.key);
        let claim = if self.exclusive { Claim::exclusive(key) } else { Claim::shared(key) };
        match self.until {
            Until::End => claim,
            Until::Guard => claim.until("guard".parse().unwrap()),
            Until::Step(at) => claim.until(format!("s{at}").parse().unwrap()),
        }
    }
}

impl Part {
    /// Of the run that has this place among all.
    pub fn plan(&self, who: usize) -> Plan {
        let mut plan = PlanBuilder::new("generated");
        plan.grace(30 * MILLI);
        for claim in &self.claims {
            plan.claim(claim.claim());
        }
        self.case.build(plan, who)
    }
}

impl Case {
    fn build(&self, mut plan: PlanBuilder, who: usize) -> Plan {
        let mut after: Vec<Box<dyn Handle<Outside>>> = Vec::new();
        for (at, spec) in self.steps.iter().enumerate() {
            let mut step = plan
                .step(format!("s{at}"), spec.call(who))
                .timeout(200 * MILLI)
                .retry(Retry::times(spec.attempts).backoff(MILLI, 20 * MILLI))
                .undo_timeout(Duration::from_secs(1))
                .undo_retry(Retry::times(3).backoff(MILLI, 20 * MILLI));
            if spec.pooled {
                step = step.pool(pool());
            }
            for before in &spec.after {
                step = step.after(&*after[*before]);
            }
            if spec.optional {
                after.push(Box::new(step.optional().add()));
            } else {
                after.push(Box::new(step.add()));
            }
        }
        if let Some(guard) = &self.guard {
            let verdict = guard.build(&mut plan, who, &after);
            after.push(Box::new(verdict));
        }
        if let Some((point, late)) = self.point {
            let again = Retry::times(2).backoff(MILLI, 20 * MILLI);
            let step = plan.step("point", plain(who, point)).timeout(200 * MILLI).retry(again);
            let mut step = step.pool(pool()).no_return();
            for before in &after {
                step = step.after(&**before);
            }
            let point = step.add();
            plan.step("late", plain(who, late)).timeout(200 * MILLI).after(point).add();
        }
        plan.build().unwrap()
    }
}

impl GuardSpec {
    fn build(
        &self,
        plan: &mut PlanBuilder,
        who: usize,
        earlier: &[Box<dyn Handle<Outside>>],
    ) -> Out<GuardVerdict> {
        // Without a limit nothing ends what hangs.
        let bounded = |does| if self.limited || does != Does::Hang { does } else { Does::Work };
        let mut guard = plan
            .guard("guard")
            .limit(self.limited.then_some(120 * MILLI))
            .exit_timeout(20 * MILLI)
            .exit_retry(Retry::times(2).backoff(MILLI, MILLI));
        for before in &self.after {
            guard = guard.after(&*earlier[*before]);
        }
        for (at, (enter, exit)) in self.enters.iter().zip(&self.exits).enumerate() {
            // The third attempt of an exit always works.
            let exit = Exit::with(quick(who, vec![*exit, *exit, Does::Work]));
            guard = guard.member(format!("m{at}"), plain(who, bounded(*enter)), exit);
        }
        let body = |body: &mut BodyBuilder<'_>| {
            let mut made = Vec::new();
            for (at, spec) in self.body.iter().enumerate() {
                let once = StepSpec { does: vec![bounded(spec.does[0])], ..spec.clone() };
                let mut step = body
                    .step(format!("b{at}"), once.call(who))
                    .undo_retry(Retry::times(3).backoff(MILLI, 20 * MILLI));
                for before in &spec.after {
                    step = step.after(made[*before]);
                }
                made.push(step.add());
            }
        };
        let (verdict, ()) = guard.body(body).close();
        verdict
    }
}
