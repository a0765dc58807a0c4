//! What may happen in a state.

use std::time::Duration;

use stillpoint_context::{Effect, FencingToken};

use super::world::{At, World, failure};
use crate::action::{Probe, RawDone, Undone};
use crate::machine::Ticket;
use crate::machine::guard::{GuardEntry, GuardInput, GuardMachine, PartOutcome, Phase};
use crate::machine::run::{Input, Outcome, UndoOutcome};
use crate::payload::Payload;
use crate::plan::NodeNo;

/// One thing that may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The append under way becomes durable.
    Append,
    Crash {
        arrived: bool,
    },
    /// All inputs of the round are in.
    Close,
    Grant,
    Cancel,
    /// It becomes as late as the next timer.
    Time,
    End(At, How),
    Abandon,
    Resume,
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Ok,
    FailsWithoutEffect,
    Fails,
    Panics,
    NotDone,
    Unknown,
    /// Of a guard: its enter fails.
    EnterFails,
    /// Of a guard: its exit keeps failing.
    ExitFails,
    BodyAndExitFail,
    /// Of a guard that was told to end: before anything was entered.
    Never,
    /// The same, in the body.
    Stops,
}

impl How {
    /// How many faults it takes.
    pub(super) const fn faults(self) -> u32 {
        match self {
            Self::Ok | Self::NotDone | Self::Unknown | Self::Never | Self::Stops => 0,
            Self::FailsWithoutEffect
            | Self::Fails
            | Self::Panics
            | Self::EnterFails
            | Self::ExitFails => 1,
            Self::BodyAndExitFail => 2,
        }
    }
}

impl World {
    /// Everything that may happen now.
    pub(super) fn events(&self, grants: bool) -> Vec<Event> {
        let mut events = Vec::new();
        if self.durable.end().is_some() {
            return events;
        }
        if self.open {
            events.push(Event::Close);
        } else {
            if self.budget.crashes > 0 {
                events.push(Event::Crash { arrived: false });
                if self.writing.is_some() {
                    events.push(Event::Crash { arrived: true });
                }
            }
            if self.writing.is_some() {
                events.push(Event::Append);
            }
        }
        let state = self.machine.state();
        if state.end().is_some() || self.is_slow() && self.budget.slow == Some(0) {
            return events;
        }
        if self.budget.cancels > 0 {
            events.push(Event::Cancel);
        }
        if grants && !state.has_started() && self.writing.is_none() && !self.open {
            events.push(Event::Grant);
        }
        for at in &self.at {
            for how in self.endings(*at) {
                if how.faults() <= self.budget.faults {
                    events.push(Event::End(*at, *how));
                }
            }
        }
        if self.open {
            return events;
        }
        if self.machine.next_wake().is_some() {
            if self.faults_of_time() <= self.budget.faults {
                events.push(Event::Time);
            }
        } else if self.at.is_empty() && state.has_started() && self.writing.is_none() {
            // At rest and not ended: it waits for a person.
            assert!(!state.parked().is_empty(), "the run hangs: {state:?}");
            events.push(Event::Abandon);
            if self.budget.faults > 0 {
                events.push(Event::Resume);
            }
        }
        events
    }

    /// Whether what happens now happens while an append is under way.
    fn is_slow(&self) -> bool {
        self.writing.is_some() && !self.open
    }

    /// Time goes on only if nothing else may happen first, or as a fault of its own.
    fn faults_of_time(&self) -> u32 {
        let at_work = |at: &At| !matches!(at, At::Stuck(..) | At::StuckUndo(_));
        u32::from(self.writing.is_some() || self.at.iter().any(at_work))
    }

    pub(super) fn happen(&mut self, event: Event) {
        if self.is_slow() && !matches!(event, Event::Append | Event::Crash { .. }) {
            self.budget.slow = self.budget.slow.map(|slow| slow - 1);
        }
        match event {
            Event::Append => self.appended(),
            Event::Crash { arrived } => {
                self.budget.crashes -= 1;
                self.crash(arrived, FencingToken(self.fence.0 + 1));
            }
            Event::Close => self.close(),
            Event::Grant => self.tell(Input::Granted { fence: self.fence }),
            Event::Cancel => {
                self.budget.cancels -= 1;
                self.tell(Input::Cancel { by: "op".into(), ticket: Ticket(1) });
            }
            Event::Time => {
                self.budget.faults -= self.faults_of_time();
                self.now = self.now.max(self.machine.next_wake().unwrap_or_default());
                self.open = true;
            }
            Event::End(at, how) => {
                self.budget.faults -= how.faults();
                self.at.retain(|other| *other != at);
                let input = self.ends(at, how);
                self.tell(input);
            }
            Event::Abandon => {
                self.tell(Input::Abandon { by: "op".into(), ticket: Ticket(2) });
                assert!(self.machine.state().end().is_some(), "given up and not over");
            }
            Event::Resume => {
                self.budget.faults -= 1;
                self.resumed = true;
                self.tell(Input::Resume { by: "op".into(), ticket: Ticket(3) });
            }
        }
    }

    fn endings(&self, at: At) -> &'static [How] {
        match at {
            At::Run(..) => &[How::Ok, How::FailsWithoutEffect, How::Fails, How::Panics],
            At::Probe(..) => &[How::Ok, How::NotDone, How::Unknown],
            At::Undo(..) => &[How::Ok, How::Fails],
            At::Stuck(..) | At::StuckUndo(_) | At::Closing(_) => &[How::Ok],
            At::Prepare(_) => &[How::Ok, How::FailsWithoutEffect],
            At::Lane(guard) | At::Told(guard) if !self.is_fresh(guard) => {
                &[How::Ok, How::ExitFails]
            }
            At::Lane(_) => &[
                How::Ok,
                How::FailsWithoutEffect,
                How::Fails,
                How::EnterFails,
                How::ExitFails,
                How::BodyAndExitFail,
            ],
            At::Told(_) => &[How::Ok, How::Never, How::Stops, How::Fails, How::ExitFails],
        }
    }

    /// Whether a lane is there for the whole section, and not for the exits that are owed.
    fn is_fresh(&self, guard: NodeNo) -> bool {
        let state = self.machine.state();
        let again = state.guard_state(guard).is_some_and(|state| state.phase == Phase::Owing);
        state.exiting == 0 && !again
    }

    /// What is told of a call that ends so, and what is true then.
    fn ends(&mut self, at: At, how: How) -> Input {
        match at {
            At::Run(node, attempt) => {
                let outcome = match how {
                    How::Ok => Outcome::Ok(RawDone::default()),
                    How::FailsWithoutEffect => Outcome::Failed(Box::new(failure(Effect::None))),
                    How::Panics => Outcome::Panicked("p".into()),
                    _ => Outcome::Failed(Box::new(failure(Effect::Unknown))),
                };
                self.truth(node).touched |= how != How::FailsWithoutEffect;
                Input::Ended { node, attempt, outcome }
            }
            At::Stuck(node, attempt) => {
                self.truth(node).touched = true;
                Input::Ended { node, attempt, outcome: Outcome::Dropped }
            }
            At::Probe(node, attempt) => {
                let answer = match how {
                    How::Ok => Probe::Done(Payload::UNIT),
                    How::NotDone => Probe::NotDone,
                    _ => Probe::Unknown,
                };
                if how == How::NotDone {
                    self.truth(node).touched = false;
                }
                Input::Probed { node, attempt, answer }
            }
            At::Undo(node, attempt) => {
                let outcome = if how == How::Ok {
                    self.truth(node).touched = false;
                    UndoOutcome::Ok(Undone::clean())
                } else {
                    UndoOutcome::Failed(Box::new(failure(Effect::Unknown)))
                };
                Input::UndoEnded { node, attempt, outcome }
            }
            At::StuckUndo(node) => Input::Gone { node },
            At::Prepare(guard) if how == How::Ok => {
                Input::Prepared { guard, worst: Duration::ZERO, left: None }
            }
            At::Prepare(guard) => {
                Input::Refused { guard, failure: Box::new(failure(Effect::None)) }
            }
            At::Lane(guard) | At::Told(guard) | At::Closing(guard) => {
                let how = if matches!(at, At::Closing(_)) { How::Never } else { how };
                let log = self.lane(guard, how);
                let mut state = self.machine.state().guard_state(guard).unwrap().clone();
                state.apply_all(&log);
                let touched =
                    !matches!(how, How::Never | How::EnterFails | How::FailsWithoutEffect);
                if self.is_fresh(guard) && touched {
                    for part in self.body(guard) {
                        self.truth(part).touched = true;
                    }
                }
                let truth = self.truth(guard);
                truth.frozen = state.phase != Phase::Closed;
                truth.owed = false;
                Input::Closed { guard, log, facts: Vec::new() }
            }
        }
    }

    /// The log of a lane of one member and one body step, as the guard machine makes it.
    fn lane(&self, guard: NodeNo, how: How) -> Vec<GuardEntry> {
        let state = self.machine.state().guard_state(guard).unwrap().clone();
        let again = state.phase == Phase::Owing;
        let lost = self.machine.state().exiting > 0 && !again;
        let body = *state.body.keys().next().unwrap();
        let mut machine = GuardMachine::new(state, Duration::ZERO, 1);
        let ok = || PartOutcome::Ok { output: Payload::UNIT, warnings: Vec::new() };
        let failed = |effect| PartOutcome::Failed(Box::new(failure(effect)));
        let cause = || Box::new(failure(Effect::None));
        let mut now = self.now;
        if lost {
            machine.on(now, GuardInput::Lost);
        } else if again {
            machine.on(now, GuardInput::Reopen);
        } else if how == How::Never {
            machine.on(now, GuardInput::Cancel { cause: cause() });
            machine.on(now, GuardInput::Shut { member: 0, never: true });
            assert!(machine.is_over(), "closed without having begun");
        } else {
            machine.on(now, GuardInput::Open);
            machine.on(now, GuardInput::Polled { member: 0 });
            let entered = if how == How::EnterFails { failed(Effect::Unknown) } else { ok() };
            machine.on(now, GuardInput::Entered { member: 0, outcome: entered });
            let outcome = match how {
                How::FailsWithoutEffect => failed(Effect::None),
                How::Fails | How::BodyAndExitFail => failed(Effect::Unknown),
                _ => ok(),
            };
            match how {
                How::EnterFails => {}
                How::Stops => {
                    machine.on(now, GuardInput::Cancel { cause: cause() });
                    machine.on(now, GuardInput::Tick);
                }
                _ => drop(machine.on(now, GuardInput::BodyEnded { node: body, outcome })),
            }
        }
        while !machine.is_over() {
            let attempt = machine.state().members[0].attempt;
            let well = !matches!(how, How::ExitFails | How::BodyAndExitFail);
            let outcome = if well { ok() } else { failed(Effect::Unknown) };
            machine.on(now, GuardInput::ExitEnded { member: 0, attempt, outcome });
            now = machine.next_wake().unwrap_or(now);
            machine.on(now, GuardInput::Tick);
        }
        machine.into_log()
    }
}
