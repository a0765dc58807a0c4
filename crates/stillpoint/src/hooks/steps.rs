//! Hooks as steps of a plan.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, Subject};
use stillpoint_model::hook::{Hook, HookEnd, HookStatus, OnHookFailure};
use stillpoint_workflow::{Action, Done, EffectKind, Known, Out, PlanBuilder, Retry, Undone};

use super::{HookCall, no_runner};
use crate::backup::judge::Judgement;
use crate::services::Services;

/// What the name of a hook's step begins with.
pub(crate) const PREFIX: &str = "hook:";

/// What its runner has beyond the time-out of the hook to end it.
const MARGIN: Duration = Duration::from_secs(10);

/// How long it may take to end a hook that is not wanted any more.
const GRACE: Duration = Duration::from_secs(5);

/// How often it is begun at most: again only where nobody knows what became of it, as after a crash.
const TRIES: u32 = 3;

/// How much of its output is told with the failure of a hook that has to succeed, in bytes.
const TOLD: usize = 2048;

/// The longest that a hook takes, whatever it does.
pub(crate) fn longest(hook: &Hook) -> Duration {
    hook.timeout.saturating_add(MARGIN).saturating_add(GRACE)
}

/// Runs a hook.
///
/// It is *reversible* with nothing to take back: what a hook has done, another one may take back on failure. It may be repeated,
/// which its contract says.
#[derive(Debug)]
pub(crate) struct RunHook(pub(crate) Arc<Services>);

#[async_trait]
impl Action for RunHook {
    const NAME: &'static str = "hook.run";
    const EFFECT: EffectKind = EffectKind::Reversible;
    const IDEMPOTENT: bool = true;
    type Params = HookCall;
    /// The judgement, after the verification.
    type Input = Vec<Judgement>;
    type Output = HookEnd;

    async fn run(
        &self,
        cx: &Cx,
        call: &HookCall,
        judged: Vec<Judgement>,
    ) -> Result<Done<HookEnd>, Failure> {
        let mut call = call.clone();
        if let Some(judgement) = judged.first() {
            let is_good = |copy: &crate::backup::judge::CopyJudgement| {
                copy.refused.is_none() && !copy.verified.is_bad()
            };
            let word = if judgement.copies.values().all(is_good) { "good" } else { "bad" };
            call.outcome = Some(word.to_owned());
        }
        let hook = &call.hook;
        // Whoever wrote the plan may have been another process, or another version.
        let begun = match (hook.check(), &self.0.hooks) {
            (Err(error), _) => Err(Failure::of(&error)),
            (Ok(()), None) => Err(no_runner(hook)),
            (Ok(()), Some(runner)) => runner.run(&cx.with_timeout(hook.timeout), &call).await,
        };
        let (end, failure) = match begun {
            Ok(end) if end.is_good() => return Ok(Done::new(end)),
            Ok(end) => {
                let failure = failed(hook, &end);
                (end, failure)
            }
            Err(failure) => {
                let reason = failure.message.clone();
                (HookEnd::new(HookStatus::NotStarted { reason }), failure)
            }
        };
        if cx.cancel().is_cancelled() || hook.is_needed() {
            // It has had its turn: only what a crash has cut off is done again.
            return Err(failure.with_retryable(false));
        }
        Ok(match hook.on_failure {
            OnHookFailure::Ignore => Done::new(end),
            OnHookFailure::Warn | OnHookFailure::Fail => Done::new(end).with_warning(failure),
        })
    }

    async fn undo(
        &self,
        _: &Cx,
        _: &HookCall,
        _: Vec<Judgement>,
        _: Known<HookEnd>,
    ) -> Result<Undone, Failure> {
        Ok(Undone::clean())
    }
}

fn failed(hook: &Hook, end: &HookEnd) -> Failure {
    let code = match end.status {
        HookStatus::TimedOut => "hook.timed_out",
        HookStatus::Cancelled => "hook.cancelled",
        _ => "hook.failed",
    };
    let (phase, program) = (hook.phase, &hook.program);
    let message = format!("the hook {program:?} ({phase}) {}", end.status);
    let failure = Failure::new(code, ErrorClass::Conflict, message)
        .with_effect(Effect::Unknown)
        .with_subject(Subject::new("hook", program))
        .with_remedy("Look at what it wrote, and mend the program or the policy.");
    let said = end.output.trim_end();
    let mut from = said.len().saturating_sub(TOLD);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    match &said[from..] {
        "" => failure,
        said => failure.with_cause(format!("it wrote: {said}")),
    }
}

/// The hooks of one phase, one after the other, as steps of a plan.
pub(crate) struct HookSteps<'p, 'c> {
    plan: &'p mut PlanBuilder,
    /// What is called, but for the hook.
    call: &'c HookCall,
    last: Option<String>,
    count: usize,
}

impl<'p, 'c> HookSteps<'p, 'c> {
    /// Begins after the step of this name, if one is named.
    pub(crate) fn new(plan: &'p mut PlanBuilder, call: &'c HookCall, after: Option<&str>) -> Self {
        Self { plan, call, last: after.map(str::to_owned), count: 0 }
    }

    /// Adds hooks, which are told what was judged, if something was.
    pub(crate) fn add<'h>(
        &mut self,
        hooks: impl IntoIterator<Item = &'h Hook>,
        judged: Option<Out<Judgement>>,
    ) {
        for hook in hooks {
            self.count += 1;
            let name = format!("{PREFIX}{}:{}", hook.phase.word(), self.count);
            let params = HookCall { hook: hook.clone(), ..self.call.clone() };
            let judged: Vec<Out<Judgement>> = judged.into_iter().collect();
            let mut step = self
                .plan
                .step(&name, RunHook::with(params))
                .bind(judged)
                .timeout(hook.timeout.saturating_add(MARGIN))
                .retry(Retry::times(TRIES))
                .grace(GRACE);
            if let Some(before) = self.last.take() {
                step = step.after_named(before);
            }
            if hook.is_needed() {
                let _end = step.add();
            } else {
                // Also if the runner itself comes to grief.
                let _end = step.optional().add();
            }
            self.last = Some(name);
        }
    }

    /// The last step, after which what follows is to be placed: the one that it began after, if there was no hook.
    pub(crate) fn end(self) -> Option<String> {
        self.last
    }
}

/// Whether an action is a hook.
pub(crate) fn is_hook(action: &str) -> bool {
    action == RunHook::NAME
}
