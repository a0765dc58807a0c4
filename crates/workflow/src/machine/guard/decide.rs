//! What a guard does about what it is told.

use std::time::Duration;

use stillpoint_context::{Effect, ErrorClass, Failure, Mono, Subject};

use super::state::{BodyState, Enter, Exit, GuardState, Phase};
use super::{GuardCommand, GuardEntry, GuardInput, GuardRecord, PartOutcome, STOP_WAIT};
use crate::retry::mix;

/// The guard machine: a state, and the records that brought it there since the lane took over.
#[derive(Debug, Clone)]
pub(crate) struct GuardMachine {
    state: GuardState,
    grace: Duration,
    seed: u64,
    log: Vec<GuardEntry>,
}

impl GuardMachine {
    pub(crate) fn new(state: GuardState, grace: Duration, seed: u64) -> Self {
        Self { state, grace, seed, log: Vec::new() }
    }

    pub(crate) fn state(&self) -> &GuardState {
        &self.state
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state.phase, Phase::Closed | Phase::Owing)
    }

    pub(crate) fn next_wake(&self) -> Option<Mono> {
        self.state.next_wake()
    }

    pub(crate) fn into_log(self) -> Vec<GuardEntry> {
        self.log
    }

    fn note(&mut self, at: Mono, record: GuardRecord) {
        self.state.apply(at, &record);
        self.log.push(GuardEntry { at, record });
    }

    /// Takes an input and says what is to be done at once.
    pub(crate) fn on(&mut self, now: Mono, input: GuardInput) -> Vec<GuardCommand> {
        let mut commands = Vec::new();
        match input {
            GuardInput::Open => {
                self.note(now, GuardRecord::Opened);
                let members = 0..self.state.members.len();
                commands.extend(
                    members
                        .filter_map(|m| u32::try_from(m).ok())
                        .map(|member| GuardCommand::Enter { member }),
                );
            }
            GuardInput::Polled { member } => {
                if self.enter_is(member, &Enter::Waiting) {
                    self.note(now, GuardRecord::Polled { member });
                }
            }
            GuardInput::Entered { member, outcome } => {
                self.entered(now, member, outcome, &mut commands);
            }
            GuardInput::Shut { member, never } => {
                if never {
                    self.note(now, GuardRecord::Shut { member });
                } else {
                    if self.enter_is(member, &Enter::Waiting) {
                        self.note(now, GuardRecord::Polled { member });
                    }
                    if self.enter_is(member, &Enter::Polled) {
                        commands.push(GuardCommand::DropEnter { member });
                    }
                }
            }
            GuardInput::BodyEnded { node, outcome } => match self.state.body.get(&node) {
                Some(BodyState::Running) => {
                    self.body_ended(now, node, outcome, &mut commands);
                }
                Some(BodyState::Ended { on_thread: true, .. }) => {
                    self.note(now, GuardRecord::BodyStopped { node });
                }
                _ => {}
            },
            GuardInput::ExitEnded { member, attempt, outcome } => {
                let running = self.state.member(member).is_some_and(|member| {
                    member.attempt == attempt && matches!(member.exit, Exit::Running { .. })
                });
                if running {
                    self.exit_ended(now, member, attempt, outcome);
                }
            }
            GuardInput::Cancel { cause } => self.cancel(now, cause, &mut commands),
            GuardInput::Suspend { cause } => {
                if self.state.phase == Phase::Armed {
                    self.close(now, Some(cause), &mut commands);
                }
            }
            GuardInput::Lost => self.note(now, GuardRecord::Lost),
            GuardInput::Reopen => self.note(now, GuardRecord::Reopened),
            GuardInput::Tick => {}
        }
        self.advance(now, &mut commands);
        commands
    }

    fn enter_is(&self, member: u32, enter: &Enter) -> bool {
        self.state.member(member).is_some_and(|member| member.enter == *enter)
    }

    fn entered(
        &mut self,
        now: Mono,
        member: u32,
        outcome: PartOutcome,
        commands: &mut Vec<GuardCommand>,
    ) {
        if !self.enter_is(member, &Enter::Waiting) && !self.enter_is(member, &Enter::Polled) {
            return;
        }
        let failure = match &outcome {
            PartOutcome::Failed(failure) => Some(failure.clone()),
            PartOutcome::Ok { .. } => None,
        };
        self.note(now, GuardRecord::Entered { member, outcome });
        let open = matches!(self.state.phase, Phase::Armed | Phase::Entering);
        if let (true, Some(failure)) = (open, failure) {
            let cause = self.in_time(now, failure);
            self.close(now, Some(cause), commands);
        }
    }

    fn body_ended(
        &mut self,
        now: Mono,
        node: crate::plan::NodeNo,
        outcome: PartOutcome,
        commands: &mut Vec<GuardCommand>,
    ) {
        let failure = match &outcome {
            PartOutcome::Failed(failure) => Some(failure.clone()),
            PartOutcome::Ok { .. } => None,
        };
        self.note(now, GuardRecord::BodyEnded { node, outcome });
        match (self.state.phase, failure) {
            (Phase::Body, Some(failure)) => {
                let cause = self.in_time(now, failure);
                self.close(now, Some(cause), commands);
            }
            (Phase::Stopping, _) if self.state.running == 0 => {
                self.close(now, self.state.cause.clone(), commands);
            }
            _ => {}
        }
    }

    fn exit_ended(&mut self, now: Mono, member: u32, attempt: u32, outcome: PartOutcome) {
        let retry = self.state.guard().map(|guard| guard.exit_retry).unwrap_or_default();
        let failed = self.state.member(member).map_or(0, |member| member.failed) + 1;
        let seed = mix(self.seed ^ u64::from(member) << 32 ^ u64::from(attempt));
        let retry_at =
            (!outcome.is_ok() && failed < retry.attempts).then(|| now + retry.wait(failed, seed));
        self.note(now, GuardRecord::ExitEnded { member, attempt, outcome, retry_at });
    }

    fn cancel(&mut self, now: Mono, cause: Box<Failure>, commands: &mut Vec<GuardCommand>) {
        match self.state.phase {
            Phase::Armed | Phase::Entering => self.close(now, Some(cause), commands),
            Phase::Body => {
                let until = now + self.grace;
                let until = self.state.cutoff().map_or(until, |cutoff| cutoff.min(until));
                self.note(now, GuardRecord::Stopping { cause: cause.clone(), until });
                commands.push(GuardCommand::Signal);
                if self.state.running == 0 {
                    self.close(now, Some(cause), commands);
                }
            }
            Phase::Stopping | Phase::Closing | Phase::Closed | Phase::Owing => {}
        }
    }

    /// Ends the section: what still runs is dropped, with effect unknown.
    fn close(&mut self, now: Mono, cause: Option<Box<Failure>>, commands: &mut Vec<GuardCommand>) {
        let running: Vec<_> = self
            .state
            .body
            .iter()
            .filter(|(_, state)| **state == BodyState::Running)
            .map(|(node, _)| *node)
            .collect();
        self.note(now, GuardRecord::Closing { cause });
        for node in running {
            commands.push(GuardCommand::DropBody { node });
            let name = &self.state.plan.node(node).name;
            let failure = Failure::new(
                "step.dropped",
                ErrorClass::Unavailable,
                "the section ended while the step was at work",
            );
            let failure = Box::new(failure.with_subject(Subject::new("step", name)));
            self.note(now, GuardRecord::BodyDropped { node, failure });
        }
        for member in 0..self.state.members.len() {
            let Ok(number) = u32::try_from(member) else { continue };
            match self.state.members[member].enter {
                Enter::Waiting => commands.push(GuardCommand::Shut { member: number }),
                Enter::Polled => commands.push(GuardCommand::DropEnter { member: number }),
                Enter::Ended(..) | Enter::Never => {}
            }
        }
    }

    /// Does what has become due.
    fn advance(&mut self, now: Mono, commands: &mut Vec<GuardCommand>) {
        let cutoff = self.state.cutoff().is_some_and(|cutoff| cutoff <= now);
        match self.state.phase {
            Phase::Armed | Phase::Entering | Phase::Body if cutoff => {
                let missed = Box::new(self.missed());
                self.close(now, Some(missed), commands);
            }
            Phase::Stopping if self.state.stop_at.is_some_and(|at| at <= now) => {
                self.close(now, self.state.cause.clone(), commands);
            }
            Phase::Body => {
                let startable: Vec<_> = self.state.startable().collect();
                for node in startable {
                    self.note(now, GuardRecord::BodyStarted { node });
                    commands.push(GuardCommand::Run { node });
                }
                if self.state.left == 0 {
                    self.close(now, None, commands);
                }
            }
            _ => {}
        }
        if self.state.phase == Phase::Closing {
            self.exits(now, commands);
        }
    }

    /// A part that fails at its deadline has missed the limit, whatever it calls that.
    fn in_time(&self, now: Mono, failure: Box<Failure>) -> Box<Failure> {
        if self.state.cutoff().is_some_and(|cutoff| cutoff <= now) {
            Box::new(self.missed().with_cause(failure))
        } else {
            failure
        }
    }

    fn missed(&self) -> Failure {
        let guard = self.state.guard();
        let code = guard.map_or("guard.cutoff".into(), |guard| guard.miss_code.clone());
        let limit = guard.and_then(|guard| guard.limit).unwrap_or_default();
        let name = &self.state.plan.node(self.state.node).name;
        Failure::new(code, ErrorClass::Unavailable, "the section was not over by its cutoff")
            .with_subject(Subject::new("guard", name))
            .with_cause(format_args!("its limit is {limit:?}"))
            .with_remedy("Find out what is slow between enter and exit, or make the set smaller.")
    }

    /// Starts, repeats and gives up exits.
    fn exits(&mut self, now: Mono, commands: &mut Vec<GuardCommand>) {
        let late = self.state.closing_at.is_some_and(|at| at + STOP_WAIT <= now);
        for at in 0..self.state.members.len() {
            let Ok(member) = u32::try_from(at) else { continue };
            if let Exit::Running { since } = self.state.members[at].exit
                && self.state.exit_deadline(since) <= now
            {
                commands.push(GuardCommand::DropExit { member });
                let failure =
                    Failure::new("guard.exit_timeout", ErrorClass::Unavailable, "the exit overran")
                        .with_remedy(
                            "Look at the side that was frozen; it should have thawed by itself.",
                        );
                let outcome = PartOutcome::Failed(Box::new(failure));
                self.exit_ended(now, member, self.state.members[at].attempt, outcome);
            }
            let state = &self.state.members[at];
            let due = match state.exit {
                Exit::Pausing { until } => until <= now,
                _ => GuardState::needs_exit(state),
            };
            if due {
                let attempt = state.attempt + 1;
                self.note(now, GuardRecord::ExitStarted { member, attempt });
                commands.push(GuardCommand::Exit { member, attempt });
            } else if late
                && state.enter == Enter::Polled
                && matches!(state.exit, Exit::Done { .. })
            {
                let failure = Box::new(
                    Failure::new(
                        "guard.enter_stuck",
                        ErrorClass::Unavailable,
                        "an enter that was dropped is still on its thread and may yet take effect",
                    )
                    .with_effect(Effect::Unknown)
                    .with_remedy("See whether the member is free, then resolve or resume the run."),
                );
                self.note(now, GuardRecord::ExitOwed { member, failure });
            }
        }
    }
}
