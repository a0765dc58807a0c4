//! One run with its journal and all that is at work for it, as the driver has them, less the clockwork.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::{Effect, ErrorClass, Failure, FencingToken, Mono, RunId};
use uuid::Uuid;

use super::happen::Event;
use crate::claim::Claim;
use crate::machine::run::state::RunState;
use crate::machine::run::{Command, Input, Outcome, Round, RunMachine};
use crate::machine::{Record, RunRecord, Submitted, Ticket};
use crate::plan::{NodeNo, Plan};

/// A call that somebody is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum At {
    Run(NodeNo, u32),
    /// Dropped, still on its thread.
    Stuck(NodeNo, u32),
    Probe(NodeNo, u32),
    Undo(NodeNo, u32),
    /// An undo that was dropped and is still on its thread.
    StuckUndo(NodeNo),
    Prepare(NodeNo),
    Lane(NodeNo),
    /// A lane that was told to end.
    Told(NodeNo),
    /// A lane that was told to end before it opened.
    Closing(NodeNo),
}

/// How much may go wrong on one way; bounds the exploration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Failures, panics, time that goes by while somebody is at work.
    pub(super) faults: u32,
    pub(super) cancels: u32,
    pub(super) crashes: u32,
    /// How often something else happens while an append is under way. `None` if appends are instantaneous: a crash is then one
    /// at rest, which is what a crash before, in or after an append amounts to.
    pub(super) slow: Option<u32>,
}

impl Budget {
    /// Whether all that may go wrong with the other one may go wrong with this one.
    pub(super) fn covers(self, other: Self) -> bool {
        self.faults >= other.faults
            && self.cancels >= other.cancels
            && self.crashes >= other.crashes
            && self.slow >= other.slow
    }

    pub(super) fn sum(self) -> u32 {
        self.faults + self.cancels + self.crashes + self.slow_left()
    }

    pub(super) fn slow_left(self) -> u32 {
        self.slow.unwrap_or_default()
    }
}

/// What is true of a node outside, whatever the engine believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(super) struct Truth {
    /// It may have had an effect that was not taken back.
    pub(super) touched: bool,
    /// A guard that was entered and not exited since.
    pub(super) frozen: bool,
    /// It was frozen when its process went, and no exit has been tried since.
    pub(super) owed: bool,
}

/// A log, newest first, that many states share.
#[derive(Clone, Default)]
pub(super) struct Log(Option<Arc<(Mono, Record, Log)>>);

impl Log {
    pub(super) fn push(&mut self, at: Mono, record: Record) {
        let before = std::mem::take(self);
        *self = Self(Some(Arc::new((at, record, before))));
    }

    /// Oldest first.
    pub(super) fn all(&self) -> Vec<(Mono, &Record)> {
        let mut all = Vec::new();
        let mut at = self;
        while let Some(link) = &at.0 {
            all.push((link.0, &link.1));
            at = &link.2;
        }
        all.reverse();
        all
    }
}

/// How a state was reached, newest first: whose event, of several worlds, and what.
#[derive(Clone, Default)]
pub(super) struct Trail(Option<Arc<(usize, Event, Trail)>>);

impl Trail {
    pub(super) fn push(&mut self, whose: usize, what: Event) {
        let before = std::mem::take(self);
        *self = Self(Some(Arc::new((whose, what, before))));
    }

    /// Oldest first.
    pub(super) fn all(&self) -> Vec<(usize, Event)> {
        let mut all = Vec::new();
        let mut at = self;
        while let Some(link) = &at.0 {
            all.push((link.0, link.1));
            at = &link.2;
        }
        all.reverse();
        all
    }
}

/// Records with their times, and the commands that wait for them.
pub(super) type Gathered = (Vec<(Mono, RunRecord)>, Vec<Command>);

#[derive(Clone)]
pub(super) struct World {
    pub(super) machine: RunMachine,
    /// What is durable.
    pub(super) log: Log,
    /// The state that is durable.
    pub(super) durable: RunState,
    pub(super) now: Mono,
    pub(super) at: Vec<At>,
    /// The append that is under way, and the commands that wait for it.
    pub(super) writing: Option<Gathered>,
    /// What gathers for the next one.
    pub(super) round: Gathered,
    /// Inputs have been taken and the round has not been ended.
    pub(super) open: bool,
    /// By node.
    pub(super) truth: Vec<Truth>,
    /// Asked and not answered by this process.
    pub(super) tickets: BTreeSet<Ticket>,
    /// A cancel was answered: accepted, or too late.
    pub(super) cancelled: Option<bool>,
    /// A person said: try again.
    pub(super) resumed: bool,
    pub(super) budget: Budget,
    /// The token of the grant to this process.
    pub(super) fence: FencingToken,
    /// What is wanted of the arbiter.
    pub(super) wanted: Vec<Command>,
    pub(super) trail: Trail,
}

pub(super) fn failure(effect: Effect) -> Failure {
    Failure::new("test", ErrorClass::Unavailable, "test").with_effect(effect)
}

impl World {
    pub(super) fn new(plan: &Plan, budget: Budget) -> Self {
        Self::of(RunId(Uuid::from_u128(1)), plan, Vec::new(), budget)
    }

    pub(super) fn of(run: RunId, plan: &Plan, claims: Vec<Claim>, budget: Budget) -> Self {
        let submitted = Arc::new(Submitted {
            run,
            plan: plan.clone(),
            inputs: std::collections::BTreeMap::new(),
            claims,
            key: None,
            labels: std::collections::BTreeMap::new(),
            head_start: Duration::ZERO,
            seed: 7,
        });
        let now = Mono(Duration::from_secs(1));
        let mut log = Log::default();
        log.push(now, Record::Run(RunRecord::Submitted(Arc::clone(&submitted))));
        let state = RunState::new(submitted);
        Self {
            machine: RunMachine::new(state.clone()),
            log,
            durable: state,
            now,
            at: Vec::new(),
            writing: None,
            round: (Vec::new(), Vec::new()),
            open: false,
            truth: vec![Truth::default(); plan.nodes().len()],
            tickets: BTreeSet::new(),
            cancelled: None,
            resumed: false,
            budget,
            fence: FencingToken(1),
            wanted: Vec::new(),
            trail: Trail::default(),
        }
    }

    pub(super) fn truth(&mut self, node: NodeNo) -> &mut Truth {
        &mut self.truth[node.index()]
    }

    pub(super) fn plan(&self) -> &Plan {
        self.durable.plan()
    }

    /// One input of a round. What is urgent is carried out before the next.
    pub(super) fn tell(&mut self, input: Input) {
        if let Input::Cancel { ticket, .. }
        | Input::Resume { ticket, .. }
        | Input::Abandon { ticket, .. } = &input
        {
            self.tickets.insert(*ticket);
        }
        let mut round = Round::default();
        self.machine.on(self.now, input, &mut round);
        self.open = true;
        self.take(round);
    }

    /// Ends the round: what has become due, what may begin; then its append, if none is under way.
    pub(super) fn close(&mut self) {
        let mut round = Round::default();
        self.machine.advance(self.now, &mut round);
        self.open = false;
        self.take(round);
        self.write();
    }

    fn take(&mut self, round: Round) {
        for command in round.urgent {
            self.carry_out(command);
        }
        for record in round.records {
            let Record::Run(record) = record else { continue };
            self.check_record(&record);
            self.round.0.push((self.now, record));
        }
        self.round.1.extend(round.gated);
    }

    /// Starts the next append, if none is under way.
    fn write(&mut self) {
        if self.writing.is_some() {
            return;
        }
        let (records, gated) = std::mem::take(&mut self.round);
        if records.is_empty() {
            Self::check_unwritten(&gated);
            return self.begin(gated);
        }
        self.writing = Some((records, gated));
        if self.budget.slow.is_none() {
            self.appended();
        }
    }

    fn begin(&mut self, gated: Vec<Command>) {
        for command in gated {
            self.carry_out(command);
        }
    }

    fn arrive(&mut self, records: Vec<(Mono, RunRecord)>) {
        for (at, record) in records {
            assert!(self.durable.end().is_none(), "a record after the last: {record:?}");
            self.durable.apply(at, &record);
            self.log.push(at, Record::Run(record));
        }
    }

    /// The append under way is durable.
    pub(super) fn appended(&mut self) {
        let Some((records, gated)) = self.writing.take() else { return };
        self.arrive(records);
        self.begin(gated);
        if self.durable.end().is_some() {
            self.check_end();
        }
        self.write();
    }

    /// The process is gone, and another one carries on; whether the append under way had arrived.
    pub(super) fn crash(&mut self, arrived: bool, fence: FencingToken) {
        self.perish(arrived);
        if self.durable.end().is_none() {
            self.recover(fence);
        }
    }

    /// The process is gone.
    pub(super) fn perish(&mut self, arrived: bool) {
        if let Some((records, _)) = self.writing.take().filter(|_| arrived) {
            self.arrive(records);
        }
        self.round = (Vec::new(), Vec::new());
        self.open = false;
        self.tickets.clear();
        self.wanted.clear();
        for at in std::mem::take(&mut self.at) {
            match at {
                // What was at work may have done what it was to do.
                At::Run(node, _) | At::Stuck(node, _) => self.truth(node).touched = true,
                At::Lane(guard) | At::Told(guard) if self.truth(guard).frozen => {
                    self.truth(guard).owed = true;
                    for part in self.body(guard) {
                        self.truth(part).touched = true;
                    }
                }
                _ => {}
            }
        }
        if self.durable.end().is_some() {
            self.check_end();
        }
    }

    /// Another process carries on, by another clock.
    pub(super) fn recover(&mut self, fence: FencingToken) {
        self.now = Mono(Duration::from_millis(10));
        self.fence = fence;
        self.machine = RunMachine::new(self.durable.clone());
        let (lingering, elapsed) = (BTreeSet::new(), Duration::from_secs(3));
        self.tell(Input::Recover { fence, elapsed, lingering });
        self.close();
    }

    pub(super) fn body(&self, guard: NodeNo) -> Vec<NodeNo> {
        self.plan().guard(guard).map(|guard| guard.body.clone()).unwrap_or_default()
    }

    fn carry_out(&mut self, command: Command) {
        self.check_command(&command);
        match command {
            Command::Launch { node, attempt } => self.at.push(At::Run(node, attempt)),
            Command::Skip { node, attempt } => {
                let outcome = Outcome::Failed(Box::new(failure(Effect::None)));
                self.tell(Input::Ended { node, attempt, outcome });
                self.close();
            }
            Command::Probe { node, attempt } => self.at.push(At::Probe(node, attempt)),
            Command::Undo { node, attempt } => self.at.push(At::Undo(node, attempt)),
            Command::Prepare { guard } => self.at.push(At::Prepare(guard)),
            Command::Unprepare { guard } => self.at.retain(|at| *at != At::Prepare(guard)),
            Command::Open { guard } | Command::Reopen { guard } => {
                self.truth(guard).frozen = true;
                self.at.push(At::Lane(guard));
            }
            Command::OpenClosed { guard, .. } => self.at.push(At::Closing(guard)),
            Command::CloseGuard { guard } | Command::SuspendGuard { guard } => {
                let suspended = matches!(command, Command::SuspendGuard { .. });
                if let Some(at) = self.at.iter_mut().find(|at| **at == At::Lane(guard)) {
                    *at = At::Told(guard);
                }
                for commands in self.pending() {
                    crate::driver::pending::close(commands, guard, suspended);
                }
            }
            Command::Signal { node } => {
                if !self.at.iter().any(|at| matches!(at, At::Run(n, _) if *n == node)) {
                    self.withdraw(node);
                }
            }
            Command::Drop { node } => self.drop_node(node),
            Command::Answer { ticket, answer } => self.answered(ticket, &answer),
            Command::ReleaseUntil { .. } | Command::Finish => self.wanted.push(command),
            Command::AskSlots { .. } | Command::ReturnSlots { .. } => {}
        }
        self.at.sort_unstable();
    }

    fn drop_node(&mut self, node: NodeNo) {
        let mut found = false;
        for at in &mut self.at {
            let stuck = match *at {
                At::Run(n, attempt) if n == node => At::Stuck(node, attempt),
                At::Undo(n, _) if n == node => At::StuckUndo(node),
                other => other,
            };
            found |= stuck != *at;
            *at = stuck;
        }
        let before = self.at.len();
        self.at.retain(|at| !matches!(at, At::Probe(n, _) if *n == node));
        if !found && before == self.at.len() {
            self.withdraw(node);
        }
    }

    fn pending(&mut self) -> impl Iterator<Item = &mut Vec<Command>> {
        let waits = self.writing.as_mut().map(|(_, gated)| gated);
        waits.into_iter().chain([&mut self.round.1])
    }

    fn withdraw(&mut self, node: NodeNo) {
        for commands in self.pending() {
            crate::driver::pending::withdraw(commands, node);
        }
    }

    /// Lets something happen, and remembers it for whoever has to understand a failure.
    pub(super) fn after(&self, event: Event) -> Self {
        let mut world = self.clone();
        world.trail.push(0, event);
        let said = Said(world.trail.clone());
        world.happen(event);
        drop(said);
        world
    }
}

/// Says how a state was reached, if a check fails in it.
pub(super) struct Said(pub(super) Trail);

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("it happened so:");
            for (whose, event) in self.0.all() {
                println!("  {whose}: {event:?}");
            }
        }
    }
}
