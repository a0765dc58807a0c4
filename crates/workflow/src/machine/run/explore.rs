//! Exhaustive exploration of the run machine on small plans: every way in which every call may end, in every order,
//! with appends that take their time, a cancel at any time, and crashes before, in and after any append. At every state
//! that is reached the log alone leads there, and the promises hold.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use stillpoint_context::{Effect, ErrorClass, Failure, FencingToken, Mono, RunId};
use uuid::Uuid;

use super::state::RunState;
use super::{Command, Input, Outcome, Round, RunMachine, UndoOutcome};
use crate::action::{Call, Done, Known, Probe, RawDone, Undone, step_fn};
use crate::machine::guard::{GuardInput, GuardMachine, PartOutcome};
use crate::machine::{GuardEntry, Record, RunRecord, Submitted, Ticket};
use crate::payload::Payload;
use crate::plan::{NodeNo, Plan, PlanBuilder};
use crate::retry::Retry;

/// A call that somebody is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum At {
    Run(NodeNo, u32),
    /// Dropped, still on its thread.
    Stuck(NodeNo, u32),
    Probe(NodeNo, u32),
    Undo(NodeNo, u32),
    /// An undo that was dropped and is still on its thread.
    StuckUndo(NodeNo),
    Prepare(NodeNo),
    Lane(NodeNo),
    /// A lane that was told to close before it opened.
    Closing(NodeNo),
}

/// How much may go wrong on one way; bounds the exploration.
#[derive(Debug, Clone, Copy, Hash)]
struct Budget {
    faults: u32,
    cancels: u32,
    crashes: u32,
}

/// Records with their times, and the commands that wait for them.
type Gathered = (Vec<(Mono, Record)>, Vec<Command>);

#[derive(Clone)]
struct World {
    machine: RunMachine,
    /// What is durable.
    log: Vec<(Mono, Record)>,
    /// The state that is durable.
    durable: RunState,
    now: Mono,
    at: Vec<At>,
    /// The append that is under way, and the commands that wait for it.
    writing: Option<Gathered>,
    /// What gathers for the next one.
    round: Gathered,
    /// Steps whose run may have changed something and whose undo has not succeeded since.
    touched: BTreeMap<NodeNo, bool>,
    /// Guards that were entered and not exited since.
    frozen: BTreeMap<NodeNo, bool>,
    budget: Budget,
}

fn failure(effect: Effect) -> Failure {
    Failure::new("test", ErrorClass::Unavailable, "test").with_effect(effect)
}

impl World {
    fn new(plan: &Plan, budget: Budget) -> Self {
        let submitted = Box::new(Submitted {
            run: RunId(Uuid::from_u128(1)),
            plan: plan.clone(),
            inputs: BTreeMap::new(),
            claims: Vec::new(),
            key: None,
            labels: BTreeMap::new(),
            head_start: Duration::ZERO,
            seed: 7,
        });
        let now = Mono(Duration::from_secs(1));
        let first = Record::Run(RunRecord::Submitted(submitted.clone()));
        let state = RunState::new(submitted);
        Self {
            machine: RunMachine::new(state.clone()),
            log: vec![(now, first)],
            durable: state,
            now,
            at: Vec::new(),
            writing: None,
            round: (Vec::new(), Vec::new()),
            touched: BTreeMap::new(),
            frozen: BTreeMap::new(),
            budget,
        }
    }

    /// One round; checks what must hold in every state. What is urgent is carried out at once, the rest after its append.
    fn tell(&mut self, input: Option<Input>) {
        let mut round = Round::default();
        let from = self.now;
        if let Some(input) = input {
            self.machine.on(self.now, input, &mut round);
        }
        self.machine.advance(self.now, &mut round);
        for command in round.urgent {
            self.carry_out(&command);
        }
        for record in round.records {
            let Record::Run(record) = record else { continue };
            self.check_record(&record);
            self.round.0.push((from, Record::Run(record)));
        }
        self.round.1.extend(round.gated);
        self.write();
    }

    /// Starts the next append, if none is under way.
    fn write(&mut self) {
        if self.writing.is_some() {
            return;
        }
        let (records, gated) = std::mem::take(&mut self.round);
        if records.is_empty() {
            for command in gated {
                self.carry_out(&command);
            }
        } else {
            self.writing = Some((records, gated));
        }
    }

    /// The append under way is durable.
    fn appended(&mut self) {
        let Some((records, gated)) = self.writing.take() else { return };
        for (at, record) in &records {
            let Record::Run(record) = record else { continue };
            self.durable.apply(*at, record);
        }
        self.log.extend(records);
        let replayed = RunState::replay(self.log.iter().map(|(at, record)| (*at, record))).unwrap();
        assert!(replayed == self.durable, "the log leads elsewhere");
        if self.round.0.is_empty() {
            assert!(
                self.durable == *self.machine.state(),
                "the state is not what its log amounts to"
            );
        }
        for command in gated {
            self.carry_out(&command);
        }
        if self.durable.end().is_some() {
            self.check_end();
        }
        self.write();
    }

    /// The process is gone, and another one carries on; whether the append under way had arrived.
    fn crash(&mut self, arrived: bool) {
        if arrived && let Some((records, _)) = self.writing.take() {
            for (at, record) in &records {
                let Record::Run(record) = record else { continue };
                self.durable.apply(*at, record);
            }
            self.log.extend(records);
        }
        self.writing = None;
        self.round = (Vec::new(), Vec::new());
        for at in std::mem::take(&mut self.at) {
            // What was at work may have done what it was to do.
            if let At::Run(node, _) | At::Stuck(node, _) = at {
                self.touched.insert(node, true);
            }
        }
        if self.durable.end().is_some() {
            return self.check_end();
        }
        // Another process, another clock.
        self.now = Mono(Duration::from_millis(10));
        self.machine = RunMachine::new(self.durable.clone());
        let lingering = std::collections::BTreeSet::new();
        let (fence, elapsed) = (FencingToken(2), Duration::from_secs(3));
        self.tell(Some(Input::Recover { fence, elapsed, lingering }));
    }

    /// Order: an attempt follows the success of all it waits for; an undo follows the end of all that followed it.
    fn check_record(&self, record: &RunRecord) {
        let plan = self.machine.state().plan();
        match record {
            RunRecord::Intended { node, .. } => {
                for before in plan.topology().preds(*node) {
                    let optional = plan.step(*before).is_some_and(|step| step.optional);
                    assert!(optional || self.machine.state().output(*before).is_some());
                }
            }
            RunRecord::UndoIntended { node, .. } => {
                for after in plan.topology().succs(*node) {
                    let busy = |at: &At| matches!(at, At::Run(n, _) | At::Undo(n, _) | At::Lane(n) | At::Closing(n) if n == after);
                    assert!(!self.at.iter().any(busy), "undone while a successor is at work");
                }
            }
            _ => {}
        }
    }

    fn check_end(&self) {
        let state = &self.durable;
        let end = state.end().unwrap();
        assert!(
            self.at
                .iter()
                .all(|at| matches!(at, At::Stuck(..) | At::StuckUndo(_) | At::Prepare(_))),
            "ended while at work: {:?}",
            self.at
        );
        let debris: HashSet<_> = state.debris().iter().map(|debris| debris.step.as_str()).collect();
        if matches!(end, crate::machine::End::Failed | crate::machine::End::Cancelled) {
            let left: Vec<_> = self.touched.iter().filter(|(_, touched)| **touched).collect();
            assert!(left.is_empty(), "clean end, but {left:?} may be left");
            assert!(debris.is_empty());
        }
        if end != crate::machine::End::NeedsAttention {
            assert!(!self.frozen.values().any(|frozen| *frozen), "ended while frozen");
        }
        assert!(state.timers.is_empty() || state.phase_is_abandoned(), "a timer is left");
    }

    fn carry_out(&mut self, command: &Command) {
        match *command {
            Command::Launch { node, attempt } => {
                assert!(
                    !self
                        .at
                        .iter()
                        .any(|at| matches!(at, At::Run(n, _) | At::Stuck(n, _) if *n == node))
                );
                self.at.push(At::Run(node, attempt));
            }
            Command::Skip { node, attempt } => {
                let outcome = Outcome::Failed(Box::new(failure(Effect::None)));
                self.tell(Some(Input::Ended { node, attempt, outcome }));
            }
            Command::Probe { node, attempt } => self.at.push(At::Probe(node, attempt)),
            Command::Undo { node, attempt } => self.at.push(At::Undo(node, attempt)),
            Command::Prepare { guard } => self.at.push(At::Prepare(guard)),
            Command::Open { guard } | Command::Reopen { guard } => {
                self.frozen.insert(guard, true);
                self.at.push(At::Lane(guard));
            }
            Command::OpenClosed { guard, .. } => self.at.push(At::Closing(guard)),
            Command::CloseGuard { guard } | Command::SuspendGuard { guard } => {
                let suspended = matches!(command, Command::SuspendGuard { .. });
                let waits = self.writing.as_mut().map(|(_, gated)| gated);
                for commands in waits.into_iter().chain([&mut self.round.1]) {
                    crate::driver::pending::close(commands, guard, suspended);
                }
            }
            Command::Signal { node }
                if !self.at.iter().any(|at| matches!(at, At::Run(n, _) if *n == node)) =>
            {
                self.withdraw(node);
            }
            Command::Drop { node } => {
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
            _ => {}
        }
        self.at.sort_unstable();
    }

    fn withdraw(&mut self, node: NodeNo) {
        let waits = self.writing.as_mut().map(|(_, gated)| gated);
        for commands in waits.into_iter().chain([&mut self.round.1]) {
            crate::driver::pending::withdraw(commands, node);
        }
    }

    /// Every state that one event leads to.
    fn next(&self) -> Vec<Self> {
        let mut next = Vec::new();
        if self.durable.end().is_some() {
            return next;
        }
        let event = |next: &mut Vec<Self>, happen: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            happen(&mut world);
            next.push(world);
        };
        if self.budget.crashes > 0 {
            for arrived in [false, true] {
                if arrived && self.writing.is_none() {
                    continue;
                }
                event(&mut next, &|world| {
                    world.budget.crashes -= 1;
                    world.crash(arrived);
                });
            }
        }
        let state = self.machine.state();
        let writing = self.writing.is_some();
        if writing {
            event(&mut next, &Self::appended);
        }
        if self.budget.cancels > 0 && state.end().is_none() {
            event(&mut next, &|world| {
                world.budget.cancels -= 1;
                world.tell(Some(Input::Cancel { by: "op".into(), ticket: Ticket(1) }));
            });
        }
        if state.end().is_some() {
            return next;
        }
        if !state.has_started() && !writing {
            event(&mut next, &|world| world.tell(Some(Input::Granted { fence: FencingToken(1) })));
        }
        for at in &self.at {
            for (input, fault, touched) in self.endings(*at) {
                if fault > self.budget.faults {
                    continue;
                }
                let mut world = self.clone();
                world.budget.faults -= fault;
                world.at.retain(|other| other != at);
                if let Some((node, touched)) = touched {
                    world.touched.insert(node, touched);
                }
                if let (At::Lane(guard), Input::Closed { log, .. }) = (at, &input) {
                    let mut state = state.guard_state(*guard).unwrap().clone();
                    state.apply_all(log);
                    let left = state.phase == crate::machine::guard::Phase::Closed;
                    world.frozen.insert(*guard, !left);
                }
                world.tell(Some(input));
                next.push(world);
            }
        }
        // Time goes on only if nothing else may happen first, or as a fault of its own.
        if let Some(wake) = self.machine.next_wake() {
            let busy =
                writing || self.at.iter().any(|at| !matches!(at, At::Stuck(..) | At::StuckUndo(_)));
            let fault = u32::from(busy);
            if fault <= self.budget.faults {
                event(&mut next, &|world| {
                    world.budget.faults -= fault;
                    world.now = world.now.max(wake);
                    world.tell(None);
                });
            }
        } else if self.at.is_empty() && state.has_started() && !writing {
            // At rest and not ended: it waits for a person.
            assert!(!state.parked().is_empty(), "the run hangs: {state:?}");
            event(&mut next, &|world| {
                world.tell(Some(Input::Abandon { by: "op".into(), ticket: Ticket(2) }));
                assert!(world.machine.state().end().is_some());
            });
            if self.budget.faults > 0 {
                event(&mut next, &|world| {
                    world.budget.faults -= 1;
                    world.tell(Some(Input::Resume { by: "op".into(), ticket: Ticket(3) }));
                });
            }
        }
        next
    }

    /// How a call may end: what is told, how many faults that takes, whether the step may have changed something.
    #[allow(clippy::type_complexity, reason = "one row for each way to end")]
    fn endings(&self, at: At) -> Vec<(Input, u32, Option<(NodeNo, bool)>)> {
        let ended = |node, attempt, outcome| Input::Ended { node, attempt, outcome };
        let was = |node: &NodeNo| self.touched.get(node).copied().unwrap_or(false);
        match at {
            At::Run(node, n) => vec![
                (ended(node, n, Outcome::Ok(RawDone::default())), 0, Some((node, true))),
                (
                    ended(node, n, Outcome::Failed(Box::new(failure(Effect::None)))),
                    1,
                    Some((node, was(&node))),
                ),
                (
                    ended(node, n, Outcome::Failed(Box::new(failure(Effect::Unknown)))),
                    1,
                    Some((node, true)),
                ),
                (ended(node, n, Outcome::Panicked("p".into())), 1, Some((node, true))),
            ],
            At::Stuck(node, n) => vec![(ended(node, n, Outcome::Dropped), 0, Some((node, true)))],
            At::Probe(node, attempt) => {
                let probed = |answer| Input::Probed { node, attempt, answer };
                vec![
                    (probed(Probe::Done(Payload::UNIT)), 0, None),
                    (probed(Probe::NotDone), 0, Some((node, false))),
                    (probed(Probe::Unknown), 0, None),
                ]
            }
            At::Undo(node, attempt) => {
                let undone = |outcome| Input::UndoEnded { node, attempt, outcome };
                vec![
                    (undone(UndoOutcome::Ok(Undone::clean())), 0, Some((node, false))),
                    (undone(UndoOutcome::Failed(Box::new(failure(Effect::Unknown)))), 1, None),
                ]
            }
            At::StuckUndo(node) => vec![(Input::Gone { node }, 0, None)],
            At::Closing(guard) => {
                let state = self.machine.state().guard_state(guard).unwrap().clone();
                let mut machine = GuardMachine::new(state, Duration::ZERO, 1);
                let cause = Box::new(failure(Effect::None));
                machine.on(self.now, GuardInput::Cancel { cause });
                machine.on(self.now, GuardInput::Shut { member: 0, never: true });
                assert!(machine.is_over(), "closed without having begun");
                let log = machine.into_log();
                vec![(Input::Closed { guard, log, facts: Vec::new() }, 0, None)]
            }
            At::Prepare(guard) => vec![
                (Input::Prepared { guard, worst: Duration::ZERO, left: None }, 0, None),
                (Input::Refused { guard, failure: Box::new(failure(Effect::None)) }, 1, None),
            ],
            At::Lane(guard) => {
                let lost = self.machine.state().is_armed(guard) && self.machine.state().exiting > 0;
                let body = self.machine.state().plan().guard(guard).unwrap().body[0];
                let endings =
                    [(true, true, 0), (false, true, 1), (true, false, 1), (false, false, 2)];
                let closed = endings.into_iter().filter(|(body_ok, ..)| *body_ok || !lost);
                let closed = closed.map(|(body_ok, exit_ok, faults)| {
                    let log = self.lane(guard, lost, body_ok, exit_ok);
                    let input = Input::Closed { guard, log, facts: Vec::new() };
                    (input, faults, Some((body, true)))
                });
                closed.collect()
            }
        }
    }

    /// The log of a lane of one member and one body step, as the guard machine makes it.
    fn lane(&self, guard: NodeNo, lost: bool, body_ok: bool, exit_ok: bool) -> Vec<GuardEntry> {
        let state = self.machine.state().guard_state(guard).unwrap().clone();
        let again = state.phase == crate::machine::guard::Phase::Owing;
        let body = *state.body.keys().next().unwrap();
        let mut machine = GuardMachine::new(state, Duration::ZERO, 1);
        let outcome = |ok| {
            if ok {
                PartOutcome::Ok { output: Payload::UNIT, warnings: Vec::new() }
            } else {
                PartOutcome::Failed(Box::new(failure(Effect::Unknown)))
            }
        };
        let now = self.now;
        if lost {
            machine.on(now, GuardInput::Lost);
        } else if again {
            machine.on(now, GuardInput::Reopen);
        } else {
            machine.on(now, GuardInput::Open);
            machine.on(now, GuardInput::Polled { member: 0 });
            machine.on(now, GuardInput::Entered { member: 0, outcome: outcome(true) });
            machine.on(now, GuardInput::BodyEnded { node: body, outcome: outcome(body_ok) });
        }
        let mut now = now;
        while !machine.is_over() {
            let attempt = machine.state().members[0].attempt;
            machine
                .on(now, GuardInput::ExitEnded { member: 0, attempt, outcome: outcome(exit_ok) });
            now = machine.next_wake().unwrap_or(now);
            machine.on(now, GuardInput::Tick);
        }
        machine.into_log()
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        format!("{:?}{:?}{:?}{:?}", self.machine.state(), self.durable, self.writing, self.round)
            .hash(&mut hasher);
        (&self.at, self.budget, &self.touched, &self.frozen).hash(&mut hasher);
        hasher.finish()
    }
}

impl RunState {
    fn phase_is_abandoned(&self) -> bool {
        !self.debris.is_empty()
    }
}

/// Visits every state; the number of them.
fn explore(plan: &Plan, faults: u32, cancels: u32, crashes: u32) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![World::new(plan, Budget { faults, cancels, crashes })];
    while let Some(world) = open.pop() {
        for next in world.next() {
            if seen.insert(next.fingerprint()) {
                open.push(next);
            }
        }
    }
    println!("{}: {} states", plan.name(), seen.len());
    seen.len()
}

fn reversible() -> Call<(), ()> {
    step_fn(|_, ()| async { Ok(Done::new(())) }).undo(|_, (), _| async { Ok(Undone::clean()) })
}

fn irreversible() -> Call<(), ()> {
    step_fn(|_, ()| async { Ok(Done::new(())) })
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_chain_with_retries_and_time_outs() {
    let mut plan = PlanBuilder::new("chain");
    let a = plan.step("a", reversible()).timeout(SECOND).retry(Retry::times(2)).add();
    let b = plan.step("b", reversible()).after(a).undo_retry(Retry::times(2)).add();
    plan.step("c", irreversible().idempotent()).after(b).retry(Retry::times(2)).add();
    let states = explore(&plan.build().unwrap(), 1, 1, 1);
    assert!(states > 500, "{states} states");
}

#[test]
fn a_diamond_with_an_optional_side() {
    let mut plan = PlanBuilder::new("diamond");
    let a = plan.step("a", reversible()).add();
    let b = plan.step("b", reversible()).after(a).add();
    let c = plan.step("c", reversible()).after(a).optional().add();
    plan.step("d", reversible()).after(b).after(c).add();
    let states = explore(&plan.build().unwrap(), 1, 1, 1);
    assert!(states > 1000, "{states} states");
}

#[test]
fn a_point_of_no_return() {
    let mut plan = PlanBuilder::new("point");
    let a = plan.step("a", reversible()).add();
    let point = plan.step("point", irreversible()).timeout(SECOND).no_return().after(a).add();
    plan.step("b", irreversible()).after(point).add();
    plan.step("c", irreversible()).after(point).optional().add();
    let states = explore(&plan.build().unwrap(), 1, 1, 1);
    assert!(states > 500, "{states} states");
}

#[test]
fn a_guard_between_two_steps_and_one_beside_it() {
    let mut plan = PlanBuilder::new("guard");
    let a = plan.step("a", reversible()).add();
    plan.step("beside", reversible()).after(a).add();
    let exit = step_fn(|_, (_, ()): (Known<()>, ())| async { Ok(Done::new(())) });
    let (verdict, ()) = plan
        .guard("guard")
        .after(a)
        .exit_retry(Retry::times(2))
        .member("m", irreversible(), exit)
        .body(|body| {
            body.step("commit", reversible()).add();
        })
        .close();
    plan.step("z", reversible()).after(verdict).add();
    let states = explore(&plan.build().unwrap(), 1, 1, 1);
    assert!(states > 1000, "{states} states");
}
