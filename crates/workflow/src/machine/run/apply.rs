//! How records change the state of a run: the only mutation.

use stillpoint_context::{Effect, Failure, Mono};

use super::state::{GuardRun, RunPhase, RunState, Stage, Thread, remove};
use crate::action::EffectKind;
use crate::machine::guard::{BodyState, GUARD_SUSPENDED, GuardState, Hold, PartOutcome, Phase};
use crate::machine::record::{Next, RunRecord, Warning};
use crate::payload::Payload;
use crate::plan::{NodeKind, NodeNo, OnBroken};

/// How long a probe may take where its step does not say.
const PROBE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

impl RunState {
    /// Takes note of a record.
    pub(crate) fn apply(&mut self, at: Mono, record: &RunRecord) {
        let at = match record {
            // From another clock: the one time that may be earlier than what was before.
            RunRecord::Recovered { fence, elapsed } => return self.recover(at, *fence, *elapsed),
            RunRecord::Tick { at } => *at,
            _ => at.max(self.seen),
        };
        self.seen = at;
        match record {
            RunRecord::Submitted(_) | RunRecord::Tick { .. } | RunRecord::Recovered { .. } => {}
            RunRecord::Started { fence } => self.start(*fence),
            RunRecord::Intended { node, attempt } => self.intend(at, *node, *attempt),
            RunRecord::Succeeded { node, attempt, output, warnings } => {
                self.nodes[node.index()].attempt = *attempt;
                for failure in warnings {
                    self.warn(*node, failure.clone());
                }
                self.succeed(*node, output.clone());
            }
            RunRecord::Failed { node, failure, next, .. } => self.fail(*node, failure, *next),
            RunRecord::Unclear { node, failure, dropped, .. } => {
                self.unclear(at, *node, failure, *dropped);
            }
            RunRecord::Stopped { node } => {
                self.set_thread(*node, Thread::Free);
                self.after_thread(at, *node);
            }
            RunRecord::Lingers { node } => {
                self.set_thread(*node, Thread::GivenUp);
                if let Some(failure) = self.nodes[node.index()].failure.clone() {
                    self.warn(*node, *failure);
                }
                self.after_thread(at, *node);
            }
            RunRecord::ProbeDue { node } => {
                self.unoffer(*node);
                self.probe(at, *node);
            }
            RunRecord::RetryDue { node } => {
                self.set(*node, Stage::Ready);
                self.ready.push_back(*node);
            }
            RunRecord::InFlight { node, until } => self.set(*node, Stage::Asking { until: *until }),
            RunRecord::Preparing { guard } => {
                self.unready(*guard);
                self.set(*guard, Stage::Preparing);
            }
            RunRecord::Armed { guard } => {
                self.set(*guard, Stage::Armed);
                let state = GuardState::armed(self.plan(), *guard);
                self.guards.insert(*guard, GuardRun { state, unsettled: 0 });
            }
            RunRecord::Guarded { guard, log } => {
                if let Some(run) = self.guards.get_mut(guard) {
                    run.state.apply_all(log);
                }
                self.guard_over(at, *guard);
            }
            RunRecord::Unwinding { cause } => self.unwind(at, cause),
            RunRecord::UndoIntended { node, attempt } => {
                self.unoffer(*node);
                self.nodes[node.index()].undo_attempt = *attempt;
                let timeout = self.step(*node).and_then(|step| step.undo_timeout);
                self.set(*node, Stage::Undoing { until: timeout.map(|timeout| at + timeout) });
            }
            RunRecord::Undone { node, debris } => {
                self.unoffer(*node);
                self.debris.extend(debris.iter().cloned());
                self.settle(*node);
            }
            RunRecord::UndoFailed { node, failure, retry_at, .. } => {
                self.nodes[node.index()].failure = Some(failure.clone());
                self.set(*node, Stage::UndoPausing { until: *retry_at });
            }
            RunRecord::UndoDropped { node } => {
                if self.nodes[node.index()].thread == Thread::Free {
                    self.set_thread(*node, Thread::Dropped(at));
                }
            }
            RunRecord::CancelRequested { by, late } => {
                self.cancelled_by.get_or_insert_with(|| by.clone());
                if late.is_some() && self.phase == RunPhase::Forward {
                    self.halt(at);
                }
            }
            RunRecord::Parked(parked) => self.parked.push(parked.clone()),
            RunRecord::Resumed { .. } => self.resume(at),
            RunRecord::Resolved { node, resolution, .. } => self.resolve(at, *node, resolution),
            RunRecord::Abandoned { debris, .. } => {
                self.debris.extend(debris.iter().cloned());
                self.abandon();
            }
            RunRecord::Ended { end } => self.phase = RunPhase::Ended(*end),
        }
    }

    pub(super) fn warn(&mut self, node: NodeNo, failure: Failure) {
        let step = self.name(node).clone();
        self.warnings.push(Warning { step, failure });
    }

    fn start(&mut self, fence: stillpoint_context::FencingToken) {
        self.fence = fence;
        self.phase = RunPhase::Forward;
        let plan = self.plan().clone();
        for node in plan.topology().top() {
            let spec = plan.node(*node);
            if spec.kind == NodeKind::Input {
                let value = self.submitted.inputs.get(&spec.name).cloned().unwrap_or_default();
                self.succeed(*node, value);
            } else if plan.topology().preds(*node).is_empty() {
                self.set(*node, Stage::Ready);
                self.ready.push_back(*node);
            }
        }
    }

    fn unready(&mut self, node: NodeNo) {
        remove(&mut self.ready, node);
    }

    fn intend(&mut self, at: Mono, node: NodeNo, attempt: u32) {
        if self.nodes[node.index()].stage == Stage::Ready {
            self.unready(node);
        }
        let step = self.step(node);
        let until = step.and_then(|step| step.timeout).map(|timeout| at + timeout);
        if step.is_some_and(|step| step.no_return) {
            self.crossed = Some(node);
        }
        let state = &mut self.nodes[node.index()];
        state.attempt = attempt;
        state.tries += 1;
        self.set(node, Stage::Running { until });
    }

    pub(super) fn succeed(&mut self, node: NodeNo, output: Payload) {
        let owed = self.effect(node) != EffectKind::ReadOnly;
        let state = &mut self.nodes[node.index()];
        state.output = Some(output);
        state.failure = None;
        state.owed |= owed;
        self.set(node, Stage::Done);
        match self.phase {
            RunPhase::Unwinding => self.offer(node),
            _ => self.unblock(node),
        }
    }

    /// A top-level node is done, or is done without: what waited for it may start.
    pub(super) fn unblock(&mut self, node: NodeNo) {
        self.left -= 1;
        let plan = self.plan().clone();
        for next in plan.topology().succs(node) {
            let state = &mut self.nodes[next.index()];
            state.waits -= 1;
            if state.waits == 0 && state.stage == Stage::Waiting {
                self.set(*next, Stage::Ready);
                self.ready.push_back(*next);
            }
        }
    }

    fn fail(&mut self, node: NodeNo, failure: &Failure, next: Next) {
        let owed = failure.effect == Effect::Unknown && self.effect(node) != EffectKind::ReadOnly;
        let state = &mut self.nodes[node.index()];
        state.failure = Some(Box::new(failure.clone()));
        state.owed |= owed;
        match next {
            Next::Retry(until) => self.set(node, Stage::Pausing { until }),
            Next::Final => {
                self.set(node, Stage::Failed);
                if self.crossed == Some(node) && !self.nodes[node.index()].owed {
                    // Every attempt ended without effect: the point is un-crossed.
                    self.crossed = None;
                }
                self.stopped(node);
            }
        }
    }

    /// An attempt that may still be on a thread, or whose effect is open.
    fn unclear(&mut self, at: Mono, node: NodeNo, failure: &Failure, dropped: bool) {
        self.nodes[node.index()].failure = Some(Box::new(failure.clone()));
        if dropped {
            self.set_thread(node, Thread::Dropped(at));
        }
        if self.is_stopped_follow_up(node) {
            self.warn(node, failure.clone());
        }
        let ends = self.phase == RunPhase::Unwinding || self.is_stopped_follow_up(node);
        if ends {
            let owed = self.effect(node) != EffectKind::ReadOnly;
            self.nodes[node.index()].owed |= owed;
            self.set(node, Stage::Failed);
            self.stopped(node);
        } else if dropped {
            let until = at + self.plan().grace(node);
            self.set(node, Stage::Stopping { until });
        } else {
            self.probe(at, node);
        }
    }

    /// A dropped attempt is gone, or no longer waited for.
    fn after_thread(&mut self, at: Mono, node: NodeNo) {
        match self.nodes[node.index()].stage {
            Stage::Stopping { .. } | Stage::Asking { .. } => self.probe(at, node),
            Stage::Failed | Stage::Done => self.stopped(node),
            _ => {}
        }
    }

    pub(super) fn probe(&mut self, at: Mono, node: NodeNo) {
        let timeout = self.step(node).and_then(|step| step.timeout).unwrap_or(PROBE_TIMEOUT);
        self.set(node, Stage::Probing { until: at + timeout });
    }

    /// A node that no longer does anything by itself: undone at once if it is optional, in its turn if all is undone.
    pub(super) fn stopped(&mut self, node: NodeNo) {
        if self.phase == RunPhase::Unwinding || self.is_optional(node) {
            self.offer(node);
        }
    }

    /// The lane of a guard has ended: its outcome becomes that of the node and of its body.
    pub(super) fn guard_over(&mut self, at: Mono, guard: NodeNo) {
        let Some(run) = self.guards.get_mut(&guard) else { return };
        let (over, verdict) = (run.state.phase, run.state.verdict());
        let whole = run.state.body_is_whole();
        let cause = run.state.cause.clone();
        let warnings = std::mem::take(&mut run.state.warnings);
        let parts: Vec<_> =
            run.state.body.iter().map(|(node, state)| (*node, state.clone())).collect();
        for (node, failure) in warnings {
            self.warn(node, failure);
        }
        for (node, state) in parts {
            self.body_over(at, node, &state);
        }
        let degrade =
            self.plan().guard(guard).is_some_and(|guard| guard.on_broken == OnBroken::Degrade);
        if over == Phase::Owing {
            let owed = self.guards.get(&guard).and_then(|run| run.state.owed().cloned());
            self.nodes[guard.index()].failure = cause.or(owed.map(Box::new));
            self.set(guard, Stage::Owing);
            return;
        }
        if matches!(&verdict.hold, Hold::NeverEntered(why) if why.code == GUARD_SUSPENDED) {
            return self.begin_anew(guard);
        }
        match verdict.hold.clone() {
            Hold::Held => self.guard_done(guard, &verdict),
            Hold::Broken(failure) if degrade && whole => {
                self.warn(guard, *failure);
                self.guard_done(guard, &verdict);
            }
            Hold::Broken(failure) | Hold::NeverEntered(failure) => {
                self.nodes[guard.index()].failure = Some(failure);
                self.set(guard, Stage::Failed);
                self.stopped(guard);
            }
        }
    }

    fn guard_done(&mut self, guard: NodeNo, verdict: &crate::machine::GuardVerdict) {
        // A verdict is made of numbers, codes and text: writing it cannot fail.
        let output = Payload::of(verdict).unwrap_or_default();
        self.succeed(guard, output);
    }

    fn body_over(&mut self, at: Mono, node: NodeNo, state: &BodyState) {
        let BodyState::Ended { outcome, on_thread } = state else {
            self.set(node, Stage::Skipped);
            return;
        };
        if self.nodes[node.index()].stage.has_started() {
            return;
        }
        let owed = GuardState::may_have_acted(outcome) && self.effect(node) != EffectKind::ReadOnly;
        let state = &mut self.nodes[node.index()];
        state.attempt = 1;
        state.owed = owed;
        match outcome {
            PartOutcome::Ok { output, .. } => {
                state.output = Some(output.clone());
                self.set(node, Stage::Done);
            }
            PartOutcome::Failed(failure) => {
                state.failure = Some(failure.clone());
                self.set(node, Stage::Failed);
            }
        }
        if *on_thread {
            self.set_thread(node, Thread::Dropped(at));
        }
    }
}
