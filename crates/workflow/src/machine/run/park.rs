//! Cancel, and what a person may do with a parked run.

use stillpoint_context::{Effect, Failure, Mono, Subject};

use super::decide::{Held, RunMachine};
use super::state::{RunPhase, RunState, Stage};
use super::{Answer, Command, Round};
use crate::machine::guard::GuardRecord;
use crate::machine::record::{
    CancelAnswer, Cause, Debris, End, ParkReason, Parked, Resolution, RunRecord, Ticket,
};
use crate::plan::{NodeKind, NodeNo};

impl RunMachine {
    pub(super) fn cancel(&mut self, now: Mono, by: String, ticket: Ticket, round: &mut Round) {
        let late = self.state.crossed;
        if late.is_some() && self.state.phase == RunPhase::Forward {
            self.tell_to_stop(late, round);
        }
        self.note(now, RunRecord::CancelRequested { by: by.clone(), late }, round);
        let answer = match late {
            Some(point) => CancelAnswer::TooLate { step: self.state.name(point).clone() },
            None => CancelAnswer::Accepted,
        };
        round.gated.push(Command::Answer { ticket, answer: Answer::Cancel(answer) });
        match self.state.phase {
            RunPhase::Queued => {
                self.note(now, RunRecord::Ended { end: End::Cancelled }, round);
                round.gated.push(Command::Finish);
            }
            RunPhase::Forward if late.is_none() => {
                self.unwind(now, Cause::Cancelled { by }, round);
            }
            _ => {}
        }
    }

    pub(super) fn resume(&mut self, now: Mono, by: String, ticket: Ticket, round: &mut Round) {
        if self.state.parked.is_empty() {
            round.gated.push(Command::Answer { ticket, answer: Answer::NotParked });
            return;
        }
        let owing = self.state.parked.iter().filter(|p| p.reason == ParkReason::ExitOwed);
        let owing: Vec<_> = owing.map(|parked| parked.node).collect();
        self.note(now, RunRecord::Resumed { by }, round);
        round.gated.extend(owing.into_iter().map(|guard| Command::Reopen { guard }));
        round.gated.push(Command::Answer { ticket, answer: Answer::Done });
    }

    pub(super) fn resolve(
        &mut self,
        now: Mono,
        by: String,
        node: NodeNo,
        resolution: Resolution,
        ticket: Ticket,
        round: &mut Round,
    ) {
        let parked = self.state.parked.iter().find(|parked| parked.node == node);
        let reason = parked.map(|parked| parked.reason);
        let is_guard = self.state.plan().guard(node).is_some();
        // Nobody can say by hand what the body of a guard gave.
        let possible = reason.filter(|r| !is_guard || *r == ParkReason::ExitOwed);
        let Some(reason) = possible else {
            round.gated.push(Command::Answer { ticket, answer: Answer::NotParked });
            return;
        };
        self.note(now, RunRecord::Resolved { by, node, resolution }, round);
        if reason == ParkReason::ExitOwed {
            self.guard_closed(now, node, round);
        }
        round.gated.push(Command::Answer { ticket, answer: Answer::Done });
    }

    /// Ends a parked run that is at rest: everything that is owed becomes debris.
    pub(super) fn abandon(&mut self, now: Mono, by: String, ticket: Ticket, round: &mut Round) {
        let lacking = match self.held {
            Some(Held::Unknown(node)) => Some(node),
            _ => None,
        };
        let may = if lacking.is_some() {
            // What waits to be taken up is at rest: nobody here can take it up.
            self.state.exiting == 0 && self.is_at_rest()
        } else {
            let at_work = self.state.active > 0 || self.state.lingering > 0;
            !self.state.parked.is_empty() && !at_work
        };
        if !may {
            round.gated.push(Command::Answer { ticket, answer: Answer::NotParked });
            return;
        }
        if let Some(node) = lacking
            && self.state.phase == RunPhase::Forward
            && self.state.crossed.is_none()
        {
            let failure = Box::new(self.lacks(node));
            self.unwind(now, Cause::Failed { node, failure }, round);
        }
        let debris = self.everything_owed();
        self.note(now, RunRecord::Abandoned { by, debris }, round);
        // Only past the point of no return nothing may be owed: then what was wanted is done, and the rest is not.
        let end = if self.state.crossed.is_none() && self.state.debris.is_empty() {
            self.state.bad_end()
        } else {
            self.state.good_end().max(End::SucceededWithWarnings)
        };
        self.note(now, RunRecord::Ended { end }, round);
        round.gated.push(Command::Finish);
        round.gated.push(Command::Answer { ticket, answer: Answer::Done });
    }

    /// Why a run failed whose action nobody has.
    fn lacks(&self, node: NodeNo) -> Failure {
        let step = self.state.step(node);
        let (action, version) = step.map(|step| (&*step.action, step.version)).unwrap_or_default();
        let what = format!("action {action} version {version} is not registered here");
        self.about(node, "engine.unknown_action", &what).with_effect(Effect::None)
    }

    fn everything_owed(&self) -> Vec<Debris> {
        let mut debris = Vec::new();
        for Parked { node, failure, reason } in &self.state.parked {
            if *reason == ParkReason::ExitOwed {
                debris.extend(self.left_by(*node, failure, true));
            }
        }
        for (index, state) in self.state.nodes.iter().enumerate() {
            let node = NodeNo::at(index);
            let is_step = matches!(self.state.plan().node(node).kind, NodeKind::Step(_));
            // Past the point of no return what succeeded is wanted; only what failed is in doubt.
            let wanted = self.state.crossed.is_some() && state.output.is_some();
            if is_step && state.owed && state.stage != Stage::Settled && !wanted {
                let object = Subject::new("step", self.state.name(node));
                let possible = state.output.is_none();
                debris.push(self.debris(node, object, possible, "the run was abandoned"));
            }
        }
        debris
    }
}

impl RunState {
    pub(super) fn resume(&mut self, at: Mono) {
        for Parked { node, reason, .. } in std::mem::take(&mut self.parked) {
            match reason {
                ParkReason::ExitOwed => self.set(node, Stage::Armed),
                ParkReason::PastNoReturn if self.guards.contains_key(&node) => {
                    self.begin_anew(node);
                }
                ParkReason::PastNoReturn => {
                    self.nodes[node.index()].tries = 0;
                    self.set(node, Stage::Pausing { until: at });
                }
                ParkReason::UnknownAction => {}
            }
        }
    }

    pub(super) fn resolve(&mut self, at: Mono, node: NodeNo, resolution: &Resolution) {
        let Some(place) = self.parked.iter().position(|parked| parked.node == node) else { return };
        let Resolution::Done(output) = resolution;
        match self.parked.remove(place).reason {
            ParkReason::ExitOwed => {
                if let Some(run) = self.guards.get_mut(&node) {
                    run.state.apply(at, &GuardRecord::Resolved);
                }
                self.guard_over(at, node);
            }
            ParkReason::PastNoReturn => self.succeed(node, output.clone()),
            ParkReason::UnknownAction => {}
        }
    }

    /// A guard begins anew, with all its parts.
    pub(super) fn begin_anew(&mut self, guard: NodeNo) {
        self.guards.remove(&guard);
        let plan = self.plan().clone();
        for part in plan.guard(guard).map_or(&[][..], |guard| &guard.body) {
            self.set(*part, Stage::Waiting);
        }
        self.set(guard, Stage::Ready);
        self.ready.push_back(guard);
    }

    pub(super) fn abandon(&mut self) {
        for Parked { node, failure, .. } in std::mem::take(&mut self.parked) {
            self.warn(node, *failure);
        }
        self.ready.clear();
        self.offers.clear();
        self.timers.clear();
    }
}
