//! Exhaustive exploration of the run machine on small plans: every way in which every call may end, in every order,
//! with a cancel at any time. At every state that is reached the log alone leads there, and the promises hold.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use stillpoint_context::{Effect, ErrorClass, Failure, FencingToken, Mono, RunId};
use uuid::Uuid;

use super::state::RunState;
use super::{Command, Input, Outcome, Round, RunMachine, UndoOutcome};
use crate::action::{Call, Done, Known, Probe, RawDone, Undone, step_fn};
use crate::machine::guard::{GuardInput, GuardMachine, PartOutcome};
use crate::machine::{GuardEntry, RunRecord, Submitted, Ticket};
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
    Prepare(NodeNo),
    Lane(NodeNo),
}

/// How much may go wrong on one way; bounds the exploration.
#[derive(Debug, Clone, Copy, Hash)]
struct Budget {
    faults: u32,
    cancels: u32,
}

#[derive(Clone)]
struct World {
    machine: RunMachine,
    shadow: RunState,
    now: Mono,
    at: Vec<At>,
    /// Steps whose run may have changed something and whose undo has not succeeded since.
    touched: BTreeMap<NodeNo, bool>,
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
            seed: 7,
        });
        let state = RunState::new(submitted);
        Self {
            machine: RunMachine::new(state.clone()),
            shadow: state,
            now: Mono(Duration::from_secs(1)),
            at: Vec::new(),
            touched: BTreeMap::new(),
            budget,
        }
    }

    /// One round, carried out at once; checks what must hold in every state.
    fn tell(&mut self, input: Option<Input>) {
        let mut round = Round::default();
        if let Some(input) = input {
            self.machine.on(self.now, input, &mut round);
        }
        self.machine.advance(self.now, &mut round);
        for record in &round.records {
            self.shadow.apply(self.now, record);
            self.check_record(record);
        }
        assert!(self.shadow == *self.machine.state(), "the log leads elsewhere");
        for command in round.urgent.into_iter().chain(round.gated) {
            self.carry_out(&command);
        }
        if self.machine.state().end().is_some() {
            self.check_end();
        }
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
                    let busy = |at: &At| matches!(at, At::Run(n, _) | At::Undo(n, _) | At::Lane(n) if n == after);
                    assert!(!self.at.iter().any(busy), "undone while a successor is at work");
                }
            }
            _ => {}
        }
    }

    fn check_end(&self) {
        let state = self.machine.state();
        let end = state.end().unwrap();
        assert!(
            self.at.iter().all(|at| matches!(at, At::Stuck(..) | At::Prepare(_))),
            "ended while at work: {:?}",
            self.at
        );
        let debris: HashSet<_> = state.debris().iter().map(|debris| debris.step.as_str()).collect();
        if matches!(end, crate::machine::End::Failed | crate::machine::End::Cancelled) {
            let left: Vec<_> = self.touched.iter().filter(|(_, touched)| **touched).collect();
            assert!(left.is_empty(), "clean end, but {left:?} may be left");
            assert!(debris.is_empty());
        }
        assert!(state.timers.is_empty() || state.phase_is_abandoned(), "a timer is left");
    }

    fn carry_out(&mut self, command: &Command) {
        match *command {
            Command::Launch { node, attempt } => {
                assert!(!self.at.iter().any(|at| matches!(at, At::Run(n, _) if *n == node)));
                self.at.push(At::Run(node, attempt));
            }
            Command::Probe { node, attempt } => self.at.push(At::Probe(node, attempt)),
            Command::Undo { node, attempt } => self.at.push(At::Undo(node, attempt)),
            Command::Prepare { guard } => self.at.push(At::Prepare(guard)),
            Command::Open { guard } | Command::Reopen { guard } => self.at.push(At::Lane(guard)),
            Command::Drop { node } => {
                // A run may be stuck on its thread; a probe or undo is simply gone.
                for at in &mut self.at {
                    if let At::Run(n, attempt) = *at
                        && n == node
                    {
                        *at = At::Stuck(node, attempt);
                    }
                }
                self.at.retain(|at| !matches!(at, At::Probe(n, _) | At::Undo(n, _) if *n == node));
            }
            _ => {}
        }
        self.at.sort_unstable();
    }

    /// Every state that one event leads to.
    fn next(&self) -> Vec<Self> {
        let mut next = Vec::new();
        let state = self.machine.state();
        if state.end().is_some() {
            return next;
        }
        if !state.has_started() {
            let mut world = self.clone();
            world.tell(Some(Input::Granted { fence: FencingToken(1) }));
            next.push(world);
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
                world.tell(Some(input));
                next.push(world);
            }
        }
        if self.budget.cancels > 0 {
            let mut world = self.clone();
            world.budget.cancels -= 1;
            world.tell(Some(Input::Cancel { by: "op".into(), ticket: Ticket(1) }));
            next.push(world);
        }
        // Time goes on only if nothing else may happen first, or as a fault of its own.
        if let Some(wake) = state.next_wake() {
            let fault = u32::from(self.at.iter().any(|at| !matches!(at, At::Stuck(..))));
            if fault <= self.budget.faults {
                let mut world = self.clone();
                world.budget.faults -= fault;
                world.now = world.now.max(wake);
                world.tell(None);
                next.push(world);
            }
        } else if self.at.is_empty() && state.has_started() {
            // At rest and not ended: it waits for a person.
            assert!(!state.parked().is_empty(), "the run hangs: {state:?}");
            let mut world = self.clone();
            world.tell(Some(Input::Abandon { by: "op".into(), ticket: Ticket(2) }));
            assert!(world.machine.state().end().is_some());
            next.push(world);
            let mut world = self.clone();
            if world.budget.faults > 0 {
                world.budget.faults -= 1;
                world.tell(Some(Input::Resume { by: "op".into(), ticket: Ticket(3) }));
                next.push(world);
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
                    ended(node, n, Outcome::Failed(failure(Effect::None))),
                    1,
                    Some((node, was(&node))),
                ),
                (ended(node, n, Outcome::Failed(failure(Effect::Unknown))), 1, Some((node, true))),
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
                    (undone(UndoOutcome::Failed(failure(Effect::Unknown))), 1, None),
                ]
            }
            At::Prepare(guard) => vec![
                (Input::Prepared { guard, worst: Duration::ZERO }, 0, None),
                (Input::Refused { guard, failure: failure(Effect::None) }, 1, None),
            ],
            At::Lane(guard) => {
                let body = self.machine.state().plan().guard(guard).unwrap().body[0];
                let endings =
                    [(true, true, 0), (false, true, 1), (true, false, 1), (false, false, 2)];
                let closed = endings.map(|(body_ok, exit_ok, faults)| {
                    let log = self.lane(guard, body_ok, exit_ok);
                    let input = Input::Closed { guard, log, facts: Vec::new() };
                    (input, faults, Some((body, true)))
                });
                closed.into()
            }
        }
    }

    /// The log of a lane of one member and one body step, as the guard machine makes it.
    fn lane(&self, guard: NodeNo, body_ok: bool, exit_ok: bool) -> Vec<GuardEntry> {
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
        if again {
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
        format!("{:?}", self.machine.state()).hash(&mut hasher);
        (&self.at, self.budget, &self.touched).hash(&mut hasher);
        hasher.finish()
    }
}

impl RunState {
    fn phase_is_abandoned(&self) -> bool {
        !self.debris.is_empty()
    }
}

/// Visits every state; the number of them.
fn explore(plan: &Plan, faults: u32, cancels: u32) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![World::new(plan, Budget { faults, cancels })];
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
    let states = explore(&plan.build().unwrap(), 2, 1);
    assert!(states > 500, "{states} states");
}

#[test]
fn a_diamond_with_an_optional_side() {
    let mut plan = PlanBuilder::new("diamond");
    let a = plan.step("a", reversible()).add();
    let b = plan.step("b", reversible()).after(a).add();
    let c = plan.step("c", reversible()).after(a).optional().add();
    plan.step("d", reversible()).after(b).after(c).add();
    let states = explore(&plan.build().unwrap(), 2, 1);
    assert!(states > 1000, "{states} states");
}

#[test]
fn a_point_of_no_return() {
    let mut plan = PlanBuilder::new("point");
    let a = plan.step("a", reversible()).add();
    let point = plan.step("point", irreversible()).timeout(SECOND).no_return().after(a).add();
    plan.step("b", irreversible()).after(point).add();
    plan.step("c", irreversible()).after(point).optional().add();
    let states = explore(&plan.build().unwrap(), 2, 1);
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
    let states = explore(&plan.build().unwrap(), 2, 1);
    assert!(states > 1000, "{states} states");
}
