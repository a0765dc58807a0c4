//! What a run does about what it is told.

use std::collections::{BTreeMap, BTreeSet};

use stillpoint_context::Mono;

use super::state::{RunPhase, RunState, Stage, Thread, Timer};
use super::{Command, Input, Round};
use crate::action::EffectKind;
use crate::machine::record::{Cause, Next, ParkReason, Parked, Record, RunRecord};
use crate::plan::{NodeKind, NodeNo};

/// How many nodes of a run are at work at once, at most.
const MOST_ACTIVE: usize = 1024;

/// The run machine: a state, and the rules by which it goes on.
///
/// Beside the state there is what only this process knows and no log needs: it is gone with the process.
#[derive(Debug, Clone)]
pub(crate) struct RunMachine {
    pub(super) state: RunState,
    /// Attempts of before a recovery in the same process that are still on a thread.
    pub(super) lingering: BTreeSet<NodeNo>,
    /// Why nothing is begun.
    pub(super) held: Option<Held>,
    /// Slots of pools, asked for or held.
    pub(super) slots: BTreeMap<NodeNo, Slots>,
}

/// Why a run begins nothing for the time being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// The engine is suspended: what runs goes on to its next boundary.
    Suspended,
    /// The plan names an action that this process does not have; only owed exits are carried out.
    Unknown(NodeNo),
}

/// How a node stands to its pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slots {
    Asked,
    Held,
}

impl RunMachine {
    pub(crate) fn new(state: RunState) -> Self {
        Self { state, lingering: BTreeSet::new(), held: None, slots: BTreeMap::new() }
    }

    /// Begins nothing from now on, because this process lacks the action of a node.
    pub(crate) fn lack(&mut self, node: NodeNo) {
        self.held = Some(Held::Unknown(node));
    }

    /// The machine that takes the place of one whose log failed. Why it begins nothing and what it has of pools are of this process
    /// and not in the log.
    pub(crate) fn in_place_of(state: RunState, before: &Self) -> Self {
        Self { held: before.held, slots: before.slots.clone(), ..Self::new(state) }
    }

    /// What it asked for has not been heard.
    pub(crate) fn leave_line(&mut self, node: NodeNo) {
        self.slots.remove(&node);
    }

    pub(crate) fn held(&self) -> Option<Held> {
        self.held
    }

    pub(crate) fn state(&self) -> &RunState {
        &self.state
    }

    /// The state of a run that has ended, for those who ask later. Nothing may be asked of the machine any more.
    pub(crate) fn take_state(&mut self) -> RunState {
        let hollow = RunState::hollow(self.state.submission());
        std::mem::replace(&mut self.state, hollow)
    }

    /// The only way to a new state. Records of a later time than the first of their append say so.
    pub(super) fn note(&mut self, now: Mono, record: RunRecord, round: &mut Round) {
        if round.records.is_empty() {
            round.from = now;
            // An end and the intent that follows from it: what most rounds of a narrow graph are.
            round.records.reserve_exact(2);
        } else if round.at != now {
            let tick = RunRecord::Tick { at: now };
            self.state.apply(now, &tick);
            round.records.push(Record::Run(tick));
        }
        round.at = now;
        self.state.apply(now, &record);
        round.records.push(Record::Run(record));
    }

    /// Takes an input; adds to the round what is to be written and done. Once the inputs of a round are in,
    /// [`advance`](Self::advance) ends it.
    pub(crate) fn on(&mut self, now: Mono, input: Input, round: &mut Round) {
        if self.state.end().is_some() {
            Self::on_ended(&input, round);
            return;
        }
        match input {
            Input::Granted { fence } => {
                if self.state.phase == RunPhase::Queued {
                    self.note(now, RunRecord::Started { fence }, round);
                }
            }
            Input::Ended { node, attempt, outcome } => {
                self.ended(now, node, attempt, outcome, round);
            }
            Input::Probed { node, attempt, answer } => {
                self.probed(now, node, attempt, answer, round);
            }
            Input::UndoEnded { node, attempt, outcome } => {
                self.undo_ended(now, node, attempt, outcome, round);
            }
            Input::Prepared { guard, worst, left } => self.prepared(now, guard, worst, left, round),
            Input::Refused { guard, failure } => {
                if self.state.nodes[guard.index()].stage == Stage::Preparing {
                    self.final_failure(now, guard, 0, *failure, round);
                }
            }
            Input::Closed { guard, log, facts } => {
                round.facts.extend(facts);
                self.note(now, RunRecord::Guarded { guard, log }, round);
                self.guard_closed(now, guard, round);
            }
            Input::Gone { node } => {
                if matches!(self.state.nodes[node.index()].thread, Thread::Dropped(_)) {
                    self.note(now, RunRecord::Stopped { node }, round);
                }
            }
            Input::Recover { fence, elapsed, lingering } => {
                self.recover(now, fence, elapsed, lingering, round);
            }
            Input::Suspend => {
                self.held = Some(Held::Suspended);
                for index in 0..self.state.nodes.len() {
                    if self.state.nodes[index].stage == Stage::Armed {
                        let guard = NodeNo::at(index);
                        round.urgent.push(Command::SuspendGuard { guard });
                    }
                }
            }
            Input::Slots { node } => self.granted_slots(node, round),
            Input::Cancel { by, ticket } => self.cancel(now, by, ticket, round),
            Input::Resume { by, ticket } => self.resume(now, by, ticket, round),
            Input::Resolve { by, node, resolution, ticket } => {
                self.resolve(now, by, node, resolution, ticket, round);
            }
            Input::Abandon { by, ticket } => self.abandon(now, by, ticket, round),
        }
    }

    /// Does what has become due, starts what may start, and ends the run if all is over.
    pub(crate) fn advance(&mut self, now: Mono, round: &mut Round) {
        self.go_on(now, round);
        self.return_slots(round);
    }

    fn go_on(&mut self, now: Mono, round: &mut Round) {
        // Owed exits come first, and without its actions a run begins nothing.
        if self.state.exiting > 0 || matches!(self.held, Some(Held::Unknown(_))) {
            return;
        }
        while let Some((node, timer)) = self.next_due(now) {
            match timer {
                Timer::Stage => self.due(now, node, round),
                Timer::Thread => self.lingers(now, node, round),
            }
        }
        if self.held.is_some() {
            return;
        }
        while let Some(&node) = self.state.lost.front() {
            self.take_up(now, node, round);
        }
        loop {
            // After a late cancel nothing else is ready than the point of no return, or what a person asked for.
            let goes_on = matches!(self.state.phase, RunPhase::Forward | RunPhase::Halted);
            if goes_on && self.state.parked.is_empty() {
                self.start_ready(now, round);
            }
            while let Some(&node) = self.state.offers.front() {
                self.undo(now, node, round);
            }
            if !self.turn_if_over(now, round) {
                break;
            }
        }
    }

    /// When the next thing happens by itself.
    pub(crate) fn next_wake(&self) -> Option<Mono> {
        if self.state.exiting > 0 || matches!(self.held, Some(Held::Unknown(_))) {
            return None;
        }
        let mut timers = self.state.timers.iter();
        timers.find(|(_, node, timer)| self.counts(*node, *timer)).map(|(at, ..)| *at)
    }

    /// Whether a timer means something now: while the engine is suspended, what would begin something waits.
    fn counts(&self, node: NodeNo, timer: Timer) -> bool {
        self.held.is_none()
            || timer == Timer::Thread
            || !self.state.nodes[node.index()].stage.is_at_rest()
    }

    /// The first timer that is due.
    fn next_due(&self, now: Mono) -> Option<(NodeNo, Timer)> {
        if self.state.end().is_some() {
            return None;
        }
        let mut due = self.state.timers.range(..=(now, NodeNo(u32::MAX), Timer::Thread));
        due.find(|(_, node, timer)| self.counts(*node, *timer))
            .map(|&(_, node, timer)| (node, timer))
    }

    /// A dropped attempt is no longer waited for.
    fn lingers(&mut self, now: Mono, node: NodeNo, round: &mut Round) {
        let probed = matches!(
            self.state.nodes[node.index()].stage,
            Stage::Stopping { .. } | Stage::Asking { .. }
        );
        self.note(now, RunRecord::Lingers { node }, round);
        if probed {
            let attempt = self.state.nodes[node.index()].attempt;
            round.gated.push(Command::Probe { node, attempt });
        }
    }

    /// Whether nothing is at work and, as long as it is held, nothing will be.
    pub(crate) fn is_at_rest(&self) -> bool {
        let at_rest = |stage: Stage| !stage.is_active() || stage.is_at_rest();
        self.state.lingering == 0 && self.state.nodes.iter().all(|node| at_rest(node.stage))
    }

    /// Starts what may start and has the slots that it needs.
    fn start_ready(&mut self, now: Mono, round: &mut Round) {
        let mut at = 0;
        while self.state.active < MOST_ACTIVE
            && let Some(&node) = self.state.ready.get(at)
        {
            if self.has_slots(node, round) {
                self.start(now, node, round);
            } else {
                at += 1;
            }
        }
    }

    fn start(&mut self, now: Mono, node: NodeNo, round: &mut Round) {
        if matches!(self.state.plan().node(node).kind, NodeKind::Guard(_)) {
            self.note(now, RunRecord::Preparing { guard: node }, round);
            round.gated.push(Command::Prepare { guard: node });
        } else {
            self.attempt(now, node, round);
        }
    }

    /// Begins an attempt: intent first.
    fn attempt(&mut self, now: Mono, node: NodeNo, round: &mut Round) {
        let attempt = self.state.nodes[node.index()].attempt + 1;
        self.note(now, RunRecord::Intended { node, attempt }, round);
        round.gated.push(Command::Launch { node, attempt });
    }

    fn due(&mut self, now: Mono, node: NodeNo, round: &mut Round) {
        let attempt = self.state.nodes[node.index()].attempt;
        match self.state.nodes[node.index()].stage {
            Stage::Running { .. } => self.overran(now, node, attempt, round),
            Stage::Stopping { .. } | Stage::Asking { .. } => {
                self.note(now, RunRecord::ProbeDue { node }, round);
                round.gated.push(Command::Probe { node, attempt });
            }
            Stage::Probing { .. } => {
                round.urgent.push(Command::Drop { node });
                self.probe_failed(now, node, attempt, round);
            }
            Stage::Pausing { .. } if self.needs_slots(node) => {
                self.note(now, RunRecord::RetryDue { node }, round);
            }
            Stage::Pausing { .. } => self.attempt(now, node, round),
            Stage::Undoing { .. } => {
                round.urgent.push(Command::Drop { node });
                self.note(now, RunRecord::UndoDropped { node }, round);
                self.undo_overran(now, node, round);
            }
            Stage::UndoPausing { .. } => self.undo(now, node, round),
            // Other stages have no timer.
            _ => {}
        }
    }

    /// Unwinds, or parks past the point of no return.
    pub(super) fn failed_for_good(&mut self, now: Mono, node: NodeNo, round: &mut Round) {
        if self.state.phase != RunPhase::Forward || self.state.is_optional(node) {
            return;
        }
        let failure = self.state.nodes[node.index()].failure.clone();
        let Some(failure) = failure else { return };
        if self.state.crossed.is_some() {
            let reason = ParkReason::PastNoReturn;
            self.note(now, RunRecord::Parked(Parked { node, reason, failure }), round);
        } else {
            self.unwind(now, Cause::Failed { node, failure }, round);
        }
    }

    /// Turns round: tells everything that runs to stop.
    pub(super) fn unwind(&mut self, now: Mono, cause: Cause, round: &mut Round) {
        self.tell_to_stop(None, round);
        self.note(now, RunRecord::Unwinding { cause }, round);
    }

    /// Signals what runs, drops what only asks, closes what is guarded.
    pub(super) fn tell_to_stop(&self, except: Option<NodeNo>, round: &mut Round) {
        for index in 0..self.state.nodes.len() {
            let node = NodeNo::at(index);
            if except == Some(node) {
                continue;
            }
            match self.state.nodes[index].stage {
                Stage::Running { .. } => round.urgent.push(Command::Signal { node }),
                Stage::Probing { .. } => round.urgent.push(Command::Drop { node }),
                Stage::Armed => round.urgent.push(Command::CloseGuard { guard: node }),
                _ => {}
            }
        }
    }

    /// Begins an attempt to undo, or decides without one.
    fn undo(&mut self, now: Mono, node: NodeNo, round: &mut Round) {
        match self.state.effect(node) {
            EffectKind::Reversible => {
                let attempt = self.state.nodes[node.index()].undo_attempt + 1;
                self.note(now, RunRecord::UndoIntended { node, attempt }, round);
                round.gated.push(Command::Undo { node, attempt });
            }
            EffectKind::Irreversible => self.weigh(now, node, round),
            EffectKind::ReadOnly => {
                self.note(now, RunRecord::Undone { node, debris: Vec::new() }, round);
            }
        }
    }

    /// How often a step may still be tried, given how often it has been.
    pub(super) fn next(
        &self,
        now: Mono,
        node: NodeNo,
        failure: &stillpoint_context::Failure,
    ) -> Next {
        let Some(step) = self.state.step(node) else { return Next::Final };
        let state = &self.state.nodes[node.index()];
        let going_on = self.state.phase == RunPhase::Forward
            || (self.state.phase == RunPhase::Halted && self.state.crossed == Some(node));
        if !going_on || !failure.retryable || state.tries >= step.retry.attempts {
            return Next::Final;
        }
        let seed = self.state.submitted.seed ^ u64::from(node.0) << 32;
        let wait = step.retry.wait(state.tries, crate::retry::mix(seed));
        Next::Retry(now + wait.max(failure.retry_after.unwrap_or_default()))
    }
}
