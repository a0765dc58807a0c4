//! The state of a guard, and how records change it.

use std::collections::BTreeMap;
use std::time::Duration;

use stillpoint_context::{Effect, ErrorClass, Failure, Mono};

use super::{GuardEntry, GuardRecord, PartOutcome, STOP_WAIT};
use crate::plan::{Guard, NodeNo, Plan};

/// The state of one guard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GuardState {
    pub(crate) plan: Plan,
    pub(crate) node: NodeNo,
    pub(crate) phase: Phase,
    pub(crate) members: Vec<MemberState>,
    pub(crate) body: BTreeMap<NodeNo, BodyState>,
    /// Body steps not yet ended well.
    pub(crate) left: usize,
    pub(crate) running: usize,
    /// When the lane took over, then when the first enter was polled: the limit counts from here.
    pub(crate) clock: Option<Mono>,
    pub(crate) polled: bool,
    /// When a body that was told to stop is dropped.
    pub(crate) stop_at: Option<Mono>,
    /// Why the section ended before its body was whole.
    pub(crate) cause: Option<Box<Failure>>,
    pub(crate) closing_at: Option<Mono>,
    pub(crate) warnings: Vec<(NodeNo, Failure)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Armed,
    Entering,
    Body,
    Stopping,
    Closing,
    Closed,
    Owing,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MemberState {
    pub(crate) enter: Enter,
    pub(crate) exit: Exit,
    /// Number of the latest attempt to exit.
    pub(crate) attempt: u32,
    /// Attempts that failed since the guard closed or was reopened.
    pub(crate) failed: u32,
    /// Its enter ended after the latest exit had begun, and may have undone that. Told by the order of records: a coarse
    /// clock gives both the same time.
    pub(crate) late: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Enter {
    Waiting,
    Polled,
    /// Ended at this time; polled or not, what it did is in the outcome.
    Ended(Mono, PartOutcome),
    /// Never started, never will.
    Never,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Exit {
    No,
    Running {
        since: Mono,
    },
    Pausing {
        until: Mono,
    },
    /// Ended well, then.
    Done {
        ended: Mono,
    },
    Owed(Box<Failure>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum BodyState {
    Waiting {
        preds: u32,
    },
    Running,
    /// Ended, or dropped and perhaps still on its thread.
    Ended {
        outcome: PartOutcome,
        on_thread: bool,
    },
}

impl GuardState {
    /// A guard that is being armed.
    pub(crate) fn armed(plan: &Plan, node: NodeNo) -> Self {
        let guard = plan.guard(node);
        let members = guard.map_or(0, |guard| guard.members.len());
        let body: BTreeMap<_, _> = guard
            .map_or(&[][..], |guard| &guard.body)
            .iter()
            .map(|step| {
                let preds = plan.topology().preds(*step).len();
                (*step, BodyState::Waiting { preds: u32::try_from(preds).unwrap_or(u32::MAX) })
            })
            .collect();
        let member = MemberState {
            enter: Enter::Waiting,
            exit: Exit::No,
            attempt: 0,
            failed: 0,
            late: false,
        };
        Self {
            plan: plan.clone(),
            node,
            phase: Phase::Armed,
            members: vec![member; members],
            left: body.len(),
            body,
            running: 0,
            clock: None,
            polled: false,
            stop_at: None,
            cause: None,
            closing_at: None,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn guard(&self) -> Option<&Guard> {
        self.plan.guard(self.node)
    }

    /// When the body must have stopped.
    pub(crate) fn cutoff(&self) -> Option<Mono> {
        let guard = self.guard()?;
        Some(self.clock? + guard.limit?.saturating_sub(guard.exit_timeout))
    }

    fn exit_timeout(&self) -> Duration {
        self.guard().map_or(Duration::ZERO, |guard| guard.exit_timeout)
    }

    /// When a running exit has overrun.
    pub(crate) fn exit_deadline(&self, since: Mono) -> Mono {
        since + self.exit_timeout()
    }

    pub(crate) fn member(&self, member: u32) -> Option<&MemberState> {
        self.members.get(member as usize)
    }

    fn member_mut(&mut self, member: u32) -> Option<&mut MemberState> {
        self.members.get_mut(member as usize)
    }

    /// Body steps that may start now.
    pub(crate) fn startable(&self) -> impl Iterator<Item = NodeNo> {
        let free = |state: &BodyState| matches!(state, BodyState::Waiting { preds: 0 });
        self.body.iter().filter(move |(_, state)| free(state)).map(|(node, _)| *node)
    }

    pub(crate) fn all_entered(&self) -> bool {
        self.members
            .iter()
            .all(|member| matches!(&member.enter, Enter::Ended(_, outcome) if outcome.is_ok()))
    }

    /// Whether an exit must begin now: none has begun since the enter was last seen to be able to take effect.
    pub(crate) fn needs_exit(member: &MemberState) -> bool {
        match (&member.enter, &member.exit) {
            (Enter::Polled | Enter::Ended(..), Exit::No) => true,
            // An enter that ended after its exit had begun may have undone it: exit again.
            (Enter::Ended(..), Exit::Done { .. }) => member.late,
            _ => false,
        }
    }

    /// When the next thing happens by itself.
    pub(crate) fn next_wake(&self) -> Option<Mono> {
        let section = match self.phase {
            Phase::Armed | Phase::Entering | Phase::Body => self.cutoff(),
            Phase::Stopping => self.stop_at,
            Phase::Closing | Phase::Closed | Phase::Owing => None,
        };
        let late = self.closing_at.map(|at| at + STOP_WAIT);
        let member = |member: &MemberState| match (&member.exit, &member.enter) {
            (Exit::Running { since }, _) => Some(self.exit_deadline(*since)),
            (Exit::Pausing { until }, _) => Some(*until),
            (Exit::Done { .. }, Enter::Polled) => late,
            _ => None,
        };
        let members = match self.phase {
            Phase::Closing => self.members.iter().filter_map(member).min(),
            _ => None,
        };
        [section, members].into_iter().flatten().min()
    }

    /// The state after a whole log.
    pub(crate) fn apply_all(&mut self, log: &[GuardEntry]) {
        for entry in log {
            self.apply(entry.at, &entry.record);
        }
    }

    /// Takes note of a record: the only mutation.
    pub(crate) fn apply(&mut self, at: Mono, record: &GuardRecord) {
        match record {
            GuardRecord::Opened => self.clock = Some(at),
            GuardRecord::Polled { member } => {
                if !std::mem::replace(&mut self.polled, true) {
                    self.clock = Some(at);
                }
                if self.phase == Phase::Armed {
                    self.phase = Phase::Entering;
                }
                if let Some(member) = self.member_mut(*member) {
                    member.enter = Enter::Polled;
                }
            }
            GuardRecord::Entered { member, outcome } => {
                let enter = self
                    .guard()
                    .and_then(|guard| guard.members.get(*member as usize))
                    .map(|member| member.enter);
                if let Some(enter) = enter {
                    self.warn(enter, outcome);
                }
                if let Some(member) = self.member_mut(*member) {
                    member.late = member.exit != Exit::No;
                    member.enter = Enter::Ended(at, outcome.clone());
                }
                if self.phase == Phase::Entering && self.all_entered() {
                    self.phase = Phase::Body;
                }
                self.close_if_over();
            }
            GuardRecord::Shut { member } => {
                if let Some(member) = self.member_mut(*member) {
                    member.enter = Enter::Never;
                }
                self.close_if_over();
            }
            GuardRecord::BodyStarted { node } => {
                self.body.insert(*node, BodyState::Running);
                self.running += 1;
            }
            GuardRecord::BodyEnded { node, outcome } => self.body_ended(*node, outcome, false),
            GuardRecord::BodyDropped { node, failure } => {
                self.body_ended(*node, &PartOutcome::Failed(failure.clone()), true);
            }
            GuardRecord::BodyStopped { node } => {
                if let Some(BodyState::Ended { on_thread, .. }) = self.body.get_mut(node) {
                    *on_thread = false;
                }
            }
            GuardRecord::Stopping { cause, until } => {
                self.phase = Phase::Stopping;
                self.stop_at = Some(*until);
                self.cause = Some(cause.clone());
            }
            GuardRecord::Closing { cause } => {
                self.phase = Phase::Closing;
                self.stop_at = None;
                self.closing_at = Some(at);
                self.cause.clone_from(cause);
            }
            GuardRecord::ExitStarted { member, attempt } => {
                if let Some(member) = self.member_mut(*member) {
                    member.attempt = *attempt;
                    member.late = false;
                    member.exit = Exit::Running { since: at };
                }
            }
            GuardRecord::ExitEnded { member, outcome, retry_at, .. } => {
                self.exit_ended(at, *member, outcome, *retry_at);
            }
            GuardRecord::ExitOwed { member, failure } => {
                if let Some(member) = self.member_mut(*member) {
                    member.exit = Exit::Owed(failure.clone());
                }
                self.close_if_over();
            }
            GuardRecord::Lost => self.lose(at),
            GuardRecord::Reopened => self.reopen(at),
            GuardRecord::Resolved => {
                for member in &mut self.members {
                    if matches!(member.exit, Exit::Owed(_)) {
                        member.exit = Exit::Done { ended: at };
                    }
                }
                self.phase = Phase::Closed;
            }
        }
    }

    /// Nobody knows what was done: everything may have been.
    fn lose(&mut self, at: Mono) {
        let lost = || {
            Box::new(
                Failure::new(
                    "guard.lost",
                    ErrorClass::Unavailable,
                    "the process ended while the section was open",
                )
                .with_effect(Effect::Unknown)
                .with_remedy("Nothing is to be done: the section has been left. Run it again."),
            )
        };
        self.phase = Phase::Closing;
        self.closing_at = Some(at);
        self.cause = Some(lost());
        self.polled = true;
        self.clock = None;
        self.running = 0;
        for member in &mut self.members {
            member.enter = Enter::Ended(at, PartOutcome::Failed(lost()));
            member.exit = Exit::No;
        }
        for state in self.body.values_mut() {
            *state = BodyState::Ended { outcome: PartOutcome::Failed(lost()), on_thread: false };
        }
    }

    /// What is owed is tried once more.
    fn reopen(&mut self, at: Mono) {
        self.phase = Phase::Closing;
        self.closing_at = Some(at);
        for member in &mut self.members {
            if !matches!(member.exit, Exit::Owed(_)) {
                continue;
            }
            member.failed = 0;
            member.exit = Exit::Pausing { until: at };
            // Whatever its thread did, it has had its time: the exit that follows is the last word.
            if member.enter == Enter::Polled {
                let gone = Failure::new(
                    "guard.enter_lost",
                    ErrorClass::Unavailable,
                    "the enter never came back",
                );
                member.enter = Enter::Ended(at, PartOutcome::Failed(Box::new(gone)));
            }
        }
    }

    fn warn(&mut self, node: NodeNo, outcome: &PartOutcome) {
        if let PartOutcome::Ok { warnings, .. } = outcome {
            self.warnings.extend(warnings.iter().map(|warning| (node, warning.clone())));
        }
    }

    fn body_ended(&mut self, node: NodeNo, outcome: &PartOutcome, on_thread: bool) {
        self.warn(node, outcome);
        let ended = BodyState::Ended { outcome: outcome.clone(), on_thread };
        if self.body.insert(node, ended) == Some(BodyState::Running) {
            self.running -= 1;
        }
        if outcome.is_ok() {
            self.left -= 1;
            let plan = self.plan.clone();
            for next in plan.topology().succs(node) {
                if let Some(BodyState::Waiting { preds }) = self.body.get_mut(next) {
                    *preds -= 1;
                }
            }
        }
    }

    fn exit_ended(&mut self, at: Mono, member: u32, outcome: &PartOutcome, retry: Option<Mono>) {
        let exit = self
            .guard()
            .and_then(|guard| guard.members.get(member as usize))
            .map(|member| member.exit);
        if let Some(exit) = exit {
            self.warn(exit, outcome);
        }
        let Some(member) = self.member_mut(member) else { return };
        let Exit::Running { .. } = member.exit else { return };
        match (outcome, retry) {
            (PartOutcome::Ok { .. }, _) => member.exit = Exit::Done { ended: at },
            (PartOutcome::Failed(_), Some(until)) => {
                member.failed += 1;
                member.exit = Exit::Pausing { until };
            }
            (PartOutcome::Failed(failure), None) => member.exit = Exit::Owed(failure.clone()),
        }
        self.close_if_over();
    }

    /// Closing is over when no enter can take effect any more and every exit has ended, well or owed.
    fn close_if_over(&mut self) {
        if self.phase != Phase::Closing {
            return;
        }
        let over = |member: &MemberState| match (&member.enter, &member.exit) {
            (Enter::Never, _) | (_, Exit::Owed(_)) => true,
            (Enter::Ended(..), Exit::Done { .. }) => !Self::needs_exit(member),
            _ => false,
        };
        if self.members.iter().all(over) {
            let owed = self.members.iter().any(|member| matches!(member.exit, Exit::Owed(_)));
            self.phase = if owed { Phase::Owing } else { Phase::Closed };
        }
    }

    /// What the last failing exit said.
    pub(crate) fn owed(&self) -> Option<&Failure> {
        self.members.iter().find_map(|member| match &member.exit {
            Exit::Owed(failure) => Some(&**failure),
            _ => None,
        })
    }

    /// Whether a body step may have had an effect.
    pub(crate) fn may_have_acted(outcome: &PartOutcome) -> bool {
        match outcome {
            PartOutcome::Ok { .. } => true,
            PartOutcome::Failed(failure) => failure.effect == Effect::Unknown,
        }
    }
}
