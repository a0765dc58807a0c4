//! Attempts, probes, undos and guards that have ended.

use std::time::Duration;

use stillpoint_context::{Effect, ErrorClass, Failure, Mono, Subject};

use super::decide::RunMachine;
use super::recover::UNTIL_GONE;
use super::state::{RunPhase, Stage, Thread};
use super::{Answer, Command, Input, Outcome, Round, UndoOutcome};
use crate::action::{Probe, RawProbe};
use crate::machine::record::{CancelAnswer, Debris, Next, ParkReason, Parked, RunRecord};
use crate::plan::NodeNo;

impl RunMachine {
    /// What comes too late.
    pub(super) fn on_ended(input: &Input, round: &mut Round) {
        match *input {
            // The grant crossed with the cancel.
            Input::Granted { .. } => round.gated.push(Command::Finish),
            Input::Prepared { guard, .. } => round.urgent.push(Command::Unprepare { guard }),
            Input::Cancel { ticket, .. } => {
                let answer = Answer::Cancel(CancelAnswer::Ended);
                round.gated.push(Command::Answer { ticket, answer });
            }
            Input::Resume { ticket, .. }
            | Input::Resolve { ticket, .. }
            | Input::Abandon { ticket, .. } => {
                round.gated.push(Command::Answer { ticket, answer: Answer::NotParked });
            }
            Input::Ended { .. }
            | Input::Probed { .. }
            | Input::UndoEnded { .. }
            | Input::Refused { .. }
            | Input::Closed { .. }
            | Input::Gone { .. }
            | Input::Recover { .. }
            | Input::Suspend => {}
            Input::Slots { node } => round.gated.push(Command::ReturnSlots { node }),
        }
    }

    pub(super) fn ended(
        &mut self,
        now: Mono,
        node: NodeNo,
        attempt: u32,
        outcome: Outcome,
        round: &mut Round,
    ) {
        let state = &self.state.nodes[node.index()];
        if state.attempt != attempt {
            return;
        }
        if matches!(state.thread, Thread::Dropped(_)) {
            // A late result is ignored; that it came means that the thread is free.
            let probe = matches!(state.stage, Stage::Stopping { .. } | Stage::Asking { .. });
            self.note(now, RunRecord::Stopped { node }, round);
            if probe {
                round.gated.push(Command::Probe { node, attempt });
            }
            return;
        }
        if !matches!(state.stage, Stage::Running { .. }) {
            return;
        }
        match self.in_time(now, node, outcome) {
            Outcome::Ok(done) => {
                round.facts.extend(done.facts);
                let (output, warnings) = (done.output, done.warnings);
                self.note(now, RunRecord::Succeeded { node, attempt, output, warnings }, round);
                self.release_after(node, round);
            }
            Outcome::Failed(failure) if failure.effect == Effect::None => {
                let next = self.next(now, node, &failure);
                self.note(now, RunRecord::Failed { node, attempt, failure, next }, round);
                if next == Next::Final {
                    self.failed_for_good(now, node, round);
                }
            }
            Outcome::Failed(failure) => self.unclear(now, node, attempt, *failure, false, round),
            Outcome::Panicked(message) => {
                let failure = self
                    .about(node, "step.panicked", "the step panicked")
                    .with_cause(message)
                    .with_remedy("This is a defect of the action; see the log.");
                self.unclear(now, node, attempt, failure, false, round);
            }
            Outcome::Dropped => {
                let failure = self.about(node, "step.lost", "the step was dropped by its runtime");
                self.unclear(now, node, attempt, failure, false, round);
            }
        }
    }

    /// Lets go of claims that lasted until this node.
    pub(super) fn release_after(&self, node: NodeNo, round: &mut Round) {
        let name = self.state.name(node);
        let claims = &self.state.submitted().claims;
        if claims.iter().any(|claim| claim.until.as_ref() == Some(name)) {
            round.gated.push(Command::ReleaseUntil { node });
        }
    }

    /// A step that fails at its deadline has overrun, whatever it calls that.
    fn in_time(&self, now: Mono, node: NodeNo, outcome: Outcome) -> Outcome {
        let due = self.state.nodes[node.index()].stage.timer().is_some_and(|until| until <= now);
        match outcome {
            Outcome::Failed(failure) if due && self.state.phase == RunPhase::Forward => {
                let effect = failure.effect;
                let overran = self.overran_its_time(node).with_effect(effect);
                Outcome::Failed(Box::new(overran.with_cause(failure)))
            }
            outcome => outcome,
        }
    }

    fn overran_its_time(&self, node: NodeNo) -> Failure {
        self.about(node, "step.timeout", "the step overran its time")
            .with_remedy("Find out what is slow, or give the step more time.")
    }

    /// A failure of the engine's own making about a step; retryable, effect unknown.
    pub(super) fn about(&self, node: NodeNo, code: &'static str, message: &str) -> Failure {
        Failure::new(code, ErrorClass::Unavailable, message)
            .with_subject(Subject::new("step", self.state.name(node)))
    }

    pub(super) fn unclear(
        &mut self,
        now: Mono,
        node: NodeNo,
        attempt: u32,
        failure: Failure,
        dropped: bool,
        round: &mut Round,
    ) {
        let failure = Box::new(failure);
        self.note(now, RunRecord::Unclear { node, attempt, failure, dropped }, round);
        if matches!(self.state.nodes[node.index()].stage, Stage::Probing { .. }) {
            round.gated.push(Command::Probe { node, attempt });
        }
    }

    /// An attempt has had its time, or its grace.
    pub(super) fn overran(&mut self, now: Mono, node: NodeNo, attempt: u32, round: &mut Round) {
        round.urgent.push(Command::Drop { node });
        let told = self.state.phase == RunPhase::Unwinding || self.state.is_stopped_follow_up(node);
        let failure = if told {
            self.about(node, "step.dropped", "the step did not stop when told to")
                .with_remedy("Let the action watch its cancel token.")
        } else {
            self.overran_its_time(node)
        };
        self.unclear(now, node, attempt, failure, true, round);
    }

    pub(super) fn probed(
        &mut self,
        now: Mono,
        node: NodeNo,
        attempt: u32,
        answer: RawProbe,
        round: &mut Round,
    ) {
        let state = &self.state.nodes[node.index()];
        if state.attempt != attempt || !matches!(state.stage, Stage::Probing { .. }) {
            return;
        }
        if self.state.phase == RunPhase::Unwinding {
            return self.weighed(now, node, &answer, round);
        }
        match answer {
            Probe::Done(output) => {
                let warnings = Vec::new();
                self.note(now, RunRecord::Succeeded { node, attempt, output, warnings }, round);
                self.release_after(node, round);
            }
            Probe::NotDone if state.thread == Thread::Free => {
                let failure = self.last_failure(node).with_effect(Effect::None);
                let next = self.next(now, node, &failure);
                self.probe_says(now, node, attempt, failure, next, round);
            }
            // An attempt that is still on its thread may act after the probe has looked.
            Probe::NotDone | Probe::Unknown => self.probe_failed(now, node, attempt, round),
            Probe::InFlight(time) => {
                // A probe that says "now" for ever must not spin.
                let until = now + time.max(Duration::from_millis(100));
                self.note(now, RunRecord::InFlight { node, until }, round);
            }
        }
    }

    /// There is no telling what an attempt did: it may be repeated only if that is harmless.
    pub(super) fn probe_failed(
        &mut self,
        now: Mono,
        node: NodeNo,
        attempt: u32,
        round: &mut Round,
    ) {
        if self.state.phase == RunPhase::Unwinding {
            return self.weighed(now, node, &Probe::Unknown, round);
        }
        if let Thread::Dropped(at) = self.state.nodes[node.index()].thread {
            // No attempt beside one that may still act: it is asked about again when it is off its thread, or given up.
            self.note(now, RunRecord::InFlight { node, until: at + UNTIL_GONE }, round);
            return;
        }
        let failure = self.last_failure(node).with_effect(Effect::Unknown);
        let idempotent = self.state.step(node).is_some_and(|step| step.idempotent);
        let next = if idempotent { self.next(now, node, &failure) } else { Next::Final };
        self.probe_says(now, node, attempt, failure, next, round);
    }

    fn probe_says(
        &mut self,
        now: Mono,
        node: NodeNo,
        attempt: u32,
        failure: Failure,
        next: Next,
        round: &mut Round,
    ) {
        let failure = Box::new(failure);
        self.note(now, RunRecord::Failed { node, attempt, failure, next }, round);
        if next == Next::Final {
            self.failed_for_good(now, node, round);
        }
    }

    pub(super) fn last_failure(&self, node: NodeNo) -> Failure {
        let failure = self.state.nodes[node.index()].failure.as_deref().cloned();
        failure.unwrap_or_else(|| self.about(node, "step.unclear", "the outcome is unknown"))
    }

    /// A guard, or a step, fails before anything began.
    pub(super) fn final_failure(
        &mut self,
        now: Mono,
        node: NodeNo,
        attempt: u32,
        failure: Failure,
        round: &mut Round,
    ) {
        let failure = Box::new(failure.with_effect(Effect::None));
        let next = Next::Final;
        self.note(now, RunRecord::Failed { node, attempt, failure, next }, round);
        self.failed_for_good(now, node, round);
    }

    // ---- Guards. ----

    /// Arms a guard, if it can keep its word.
    pub(super) fn prepared(
        &mut self,
        now: Mono,
        guard: NodeNo,
        worst: Duration,
        left: Option<Duration>,
        round: &mut Round,
    ) {
        if self.state.nodes[guard.index()].stage != Stage::Preparing || self.held.is_some() {
            round.urgent.push(Command::Unprepare { guard });
            return;
        }
        let spec = self.state.plan().guard(guard);
        let limit = spec.and_then(|spec| spec.limit);
        if let (Some(left), Some(limit)) = (left, limit)
            && left < limit
        {
            round.urgent.push(Command::Unprepare { guard });
            let failure = Failure::new(
                "guard.lease_too_short",
                ErrorClass::Unavailable,
                format!("the section may last {limit:?}, the lease of this process only {left:?}"),
            )
            .with_subject(Subject::new("guard", self.state.name(guard)))
            .with_remedy("Give the engine a longer lease, or see why it is not renewed.");
            self.final_failure(now, guard, 0, failure, round);
            return;
        }
        let cutoff = spec.and_then(|spec| Some(spec.limit?.saturating_sub(spec.exit_timeout)));
        if let Some(cutoff) = cutoff.filter(|cutoff| worst > *cutoff) {
            round.urgent.push(Command::Unprepare { guard });
            let failure = Failure::new(
                "guard.worst_case_too_long",
                ErrorClass::Conflict,
                format!("the body may take {worst:?}, it has {cutoff:?} until its cutoff"),
            )
            .with_subject(Subject::new("guard", self.state.name(guard)))
            .with_remedy("Make the set smaller, or use storage that snaps faster.");
            self.final_failure(now, guard, 0, failure, round);
            return;
        }
        self.note(now, RunRecord::Armed { guard }, round);
        round.gated.push(Command::Open { guard });
    }

    pub(super) fn guard_closed(&mut self, now: Mono, guard: NodeNo, round: &mut Round) {
        match self.state.nodes[guard.index()].stage {
            Stage::Owing => {
                let Some(failure) = self.state.nodes[guard.index()].failure.clone() else { return };
                let owed = self.state.guard_state(guard).and_then(|state| state.owed().cloned());
                let parked = Parked {
                    node: guard,
                    reason: ParkReason::ExitOwed,
                    failure: owed.map_or_else(|| failure.clone(), Box::new),
                };
                self.note(now, RunRecord::Parked(parked), round);
                if self.state.phase == RunPhase::Forward && self.state.crossed.is_none() {
                    let cause = crate::machine::Cause::Failed { node: guard, failure };
                    self.unwind(now, cause, round);
                }
            }
            stage => {
                round.gated.push(Command::ReleaseUntil { node: guard });
                if stage == Stage::Failed {
                    self.failed_for_good(now, guard, round);
                }
            }
        }
    }

    // ---- Undo. ----

    pub(super) fn undo_ended(
        &mut self,
        now: Mono,
        node: NodeNo,
        attempt: u32,
        outcome: UndoOutcome,
        round: &mut Round,
    ) {
        let state = &self.state.nodes[node.index()];
        if state.undo_attempt != attempt || !matches!(state.stage, Stage::Undoing { .. }) {
            return;
        }
        match outcome {
            UndoOutcome::Ok(undone) => {
                round.facts.extend(undone.facts);
                let mut debris: Vec<_> = undone
                    .debris
                    .into_iter()
                    .map(|object| self.debris(node, object, false, "the undo left it"))
                    .collect();
                if state.thread == Thread::GivenUp {
                    // The attempt never left its thread: whatever the undo says, it may still act.
                    let object = Subject::new("step", self.state.name(node));
                    debris.push(self.debris(node, object, true, "an attempt is still at work"));
                }
                self.note(now, RunRecord::Undone { node, debris }, round);
            }
            UndoOutcome::Failed(failure) => self.undo_failed(now, node, *failure, round),
        }
    }

    pub(super) fn undo_overran(&mut self, now: Mono, node: NodeNo, round: &mut Round) {
        let failure = self.about(node, "step.undo_timeout", "the undo overran its time");
        self.undo_failed(now, node, failure, round);
    }

    fn undo_failed(&mut self, now: Mono, node: NodeNo, failure: Failure, round: &mut Round) {
        let Some(step) = self.state.step(node) else { return };
        let attempt = self.state.nodes[node.index()].undo_attempt;
        if attempt < step.undo_retry.attempts {
            let seed = self.state.submitted.seed ^ !u64::from(node.0);
            let wait = step.undo_retry.wait(attempt, crate::retry::mix(seed));
            let retry_at = now + wait.max(failure.retry_after.unwrap_or_default());
            let failure = Box::new(failure);
            self.note(now, RunRecord::UndoFailed { node, attempt, failure, retry_at }, round);
        } else {
            let debris = self.left_by(node, &failure, false);
            self.note(now, RunRecord::Undone { node, debris }, round);
        }
    }

    /// Decides what a step without undo leaves: asks, if its outcome is open.
    pub(super) fn weigh(&mut self, now: Mono, node: NodeNo, round: &mut Round) {
        let state = &self.state.nodes[node.index()];
        // An optional step that fails going forward has been probed already.
        if state.output.is_some() || self.state.phase != RunPhase::Unwinding {
            let debris = self.left_behind(node, state.output.is_none());
            self.note(now, RunRecord::Undone { node, debris }, round);
        } else {
            let attempt = state.attempt;
            self.note(now, RunRecord::ProbeDue { node }, round);
            round.gated.push(Command::Probe { node, attempt });
        }
    }

    fn weighed(&mut self, now: Mono, node: NodeNo, answer: &RawProbe, round: &mut Round) {
        let gone = self.state.nodes[node.index()].thread == Thread::Free;
        let debris = match answer {
            Probe::NotDone if gone => Vec::new(),
            Probe::Done(_) => self.left_behind(node, false),
            Probe::NotDone | Probe::InFlight(_) | Probe::Unknown => self.left_behind(node, true),
        };
        self.note(now, RunRecord::Undone { node, debris }, round);
    }

    fn left_behind(&self, node: NodeNo, possible: bool) -> Vec<Debris> {
        let object = Subject::new("step", self.state.name(node));
        vec![self.debris(node, object, possible, "the step cannot be undone")]
    }

    /// The objects that a failing undo names, or the step itself.
    pub(super) fn left_by(&self, node: NodeNo, failure: &Failure, possible: bool) -> Vec<Debris> {
        let mut objects = failure.subjects.clone();
        if objects.is_empty() {
            objects.push(Subject::new("step", self.state.name(node)));
        }
        let why = &failure.message;
        objects.into_iter().map(|object| self.debris(node, object, possible, why)).collect()
    }

    pub(super) fn debris(
        &self,
        node: NodeNo,
        object: Subject,
        possible: bool,
        why: &str,
    ) -> Debris {
        Debris { step: self.state.name(node).clone(), object, possible, why: why.to_owned() }
    }
}
