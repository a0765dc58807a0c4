//! Exhaustive exploration of the guard machine with up to three members: every enter may be slow, fail or never come back, every
//! body step and exit too, a cancel or a suspension may come at any time, the cutoff too, and the process may be gone.
//!
//! What is checked: the body runs only while all members hold; whatever was entered is exited before the guard is closed, an
//! enter that ends late included; at the cutoff the section is over; and the state is the replay of the log.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use stillpoint_context::{Effect, ErrorClass, Failure, Mono};

use super::state::GuardState;
use super::{GuardCommand, GuardInput, GuardMachine, Hold, PartOutcome, Phase};
use crate::action::{Call, Done, Known, Undone, step_fn};
use crate::payload::Payload;
use crate::plan::{NodeNo, Plan, PlanBuilder};
use crate::retry::Retry;

/// How the thread of an enter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Enter {
    /// It may begin.
    Free,
    /// It has begun; whether that has been told.
    Begun {
        told: bool,
    },
    Over,
    /// Its gate was closed first.
    Shut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Member {
    enter: Enter,
    /// What is true of it outside.
    frozen: bool,
    /// The attempt of the exit that is at work.
    exit: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    faults: u32,
    ends: u32,
    crashes: u32,
    /// How often time goes by though something else could happen.
    waits: u32,
}

#[derive(Clone)]
struct World {
    machine: GuardMachine,
    now: Mono,
    members: Vec<Member>,
    /// Body steps at work, and whether they were dropped.
    body: BTreeMap<NodeNo, bool>,
    budget: Budget,
    lost: bool,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Begins(u32),
    Polled(u32),
    Entered(u32, bool),
    Body(NodeNo, bool),
    Exit(u32, bool),
    Cancel,
    Suspend,
    Time,
    Crash,
}

const SECOND: Duration = Duration::from_secs(1);

fn failure() -> Box<Failure> {
    Box::new(Failure::new("test", ErrorClass::Unavailable, "test").with_effect(Effect::Unknown))
}

fn outcome(well: bool) -> PartOutcome {
    if well {
        PartOutcome::Ok { output: Payload::UNIT, warnings: Vec::new() }
    } else {
        PartOutcome::Failed(failure())
    }
}

fn plan(members: u32, body: u32) -> Plan {
    let step = || step_fn(|_, ()| async { Ok(Done::new(())) });
    let undone = || -> Call<(), ()> { step().undo(|_, (), _| async { Ok(Undone::clean()) }) };
    let mut plan = PlanBuilder::new("barrier");
    let mut guard = plan.guard("guard").limit(10 * SECOND).exit_timeout(2 * SECOND);
    guard = guard.exit_retry(Retry::times(2));
    for member in 0..members {
        let exit = step_fn(|_, (_, ()): (Known<()>, ())| async { Ok(Done::new(())) });
        guard = guard.member(format!("m{member}"), step(), exit);
    }
    let _closed = guard
        .body(|of| {
            for n in 0..body {
                of.step(format!("b{n}"), undone()).add();
            }
        })
        .close();
    plan.build().unwrap()
}

impl World {
    fn new(plan: &Plan, budget: Budget) -> Self {
        let guard = plan.find("guard").unwrap();
        let state = GuardState::armed(plan, guard);
        let member = Member { enter: Enter::Free, frozen: false, exit: None };
        let mut world = Self {
            members: vec![member; state.members.len()],
            machine: GuardMachine::new(state, SECOND, 1),
            now: Mono(SECOND),
            body: BTreeMap::new(),
            budget,
            lost: false,
        };
        world.tell(GuardInput::Open);
        world
    }

    fn member(&mut self, member: u32) -> &mut Member {
        &mut self.members[member as usize]
    }

    fn tell(&mut self, input: GuardInput) {
        let commands = self.machine.on(self.now, input);
        for command in commands {
            self.carry_out(&command);
        }
        self.check();
    }

    fn carry_out(&mut self, command: &GuardCommand) {
        match *command {
            GuardCommand::Shut { member } => {
                let never = self.member(member).enter == Enter::Free;
                match &mut self.member(member).enter {
                    // The answer tells that it has begun.
                    Enter::Begun { told } => *told = true,
                    enter if never => *enter = Enter::Shut,
                    _ => {}
                }
                self.tell(GuardInput::Shut { member, never });
            }
            GuardCommand::Run { node } => {
                assert!(self.members.iter().all(|m| m.frozen && m.exit.is_none()), "not all hold");
                self.body.insert(node, false);
            }
            GuardCommand::DropBody { node } => drop(self.body.insert(node, true)),
            GuardCommand::Exit { member, attempt } => {
                let at_work = self.body.values().any(|dropped| !dropped);
                assert!(!at_work, "an exit begins while the body goes on");
                let begun = !matches!(self.member(member).enter, Enter::Free | Enter::Shut);
                assert!(begun || self.lost, "an exit of what was never entered");
                self.member(member).exit = Some(attempt);
            }
            GuardCommand::DropExit { member } => self.member(member).exit = None,
            GuardCommand::Enter { .. } | GuardCommand::DropEnter { .. } | GuardCommand::Signal => {}
        }
    }

    fn check(&self) {
        let state = self.machine.state();
        let section =
            matches!(state.phase, Phase::Armed | Phase::Entering | Phase::Body | Phase::Stopping);
        let over = state.cutoff().is_some_and(|cutoff| cutoff <= self.now);
        assert!(!(section && over), "past its cutoff and still {:?}", state.phase);
        if state.phase == Phase::Closed {
            for member in &self.members {
                assert!(!member.frozen, "closed, and a member is left frozen");
                assert!(
                    !matches!(member.enter, Enter::Begun { .. }),
                    "an enter may yet take effect"
                );
            }
            let verdict = state.verdict();
            match verdict.hold {
                Hold::Held => {
                    assert!(state.all_entered() && !self.lost);
                    assert!(verdict.skew.is_some() && self.body.values().all(|dropped| !dropped));
                }
                Hold::NeverEntered(_) => {
                    assert!(self.members.iter().all(|member| member.enter == Enter::Shut));
                }
                Hold::Broken(_) => {}
            }
        }
    }

    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.machine.is_over() {
            return events;
        }
        for (number, member) in (0..).zip(&self.members) {
            match member.enter {
                Enter::Free => events.push(Event::Begins(number)),
                // A thread tells that it has begun before it tells how it ended.
                Enter::Begun { told: false } => events.push(Event::Polled(number)),
                Enter::Begun { told: true } => {
                    events.push(Event::Entered(number, true));
                    if self.budget.faults > 0 {
                        events.push(Event::Entered(number, false));
                    }
                }
                Enter::Over | Enter::Shut => {}
            }
            if member.exit.is_some() {
                events.push(Event::Exit(number, true));
                if self.budget.faults > 0 {
                    events.push(Event::Exit(number, false));
                }
            }
        }
        for node in self.body.keys() {
            events.push(Event::Body(*node, true));
            if self.budget.faults > 0 {
                events.push(Event::Body(*node, false));
            }
        }
        if self.budget.ends > 0 {
            events.extend([Event::Cancel, Event::Suspend]);
        }
        if self.budget.crashes > 0 {
            events.push(Event::Crash);
        }
        let waits = events.is_empty() || self.budget.waits > 0;
        if waits && self.machine.next_wake().is_some() {
            events.push(Event::Time);
        }
        assert!(!events.is_empty(), "the guard hangs: {:?}", self.machine.state());
        events
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Begins(member) => self.member(member).enter = Enter::Begun { told: false },
            Event::Polled(member) => {
                self.member(member).enter = Enter::Begun { told: true };
                self.tell(GuardInput::Polled { member });
            }
            Event::Entered(member, well) => {
                self.budget.faults -= u32::from(!well);
                let of = self.member(member);
                // One that fails may have frozen it all the same.
                of.enter = Enter::Over;
                of.frozen = true;
                self.tell(GuardInput::Entered { member, outcome: outcome(well) });
            }
            Event::Body(node, well) => {
                self.budget.faults -= u32::from(!well);
                self.body.remove(&node);
                self.tell(GuardInput::BodyEnded { node, outcome: outcome(well) });
            }
            Event::Exit(member, well) => {
                self.budget.faults -= u32::from(!well);
                let of = self.member(member);
                let Some(attempt) = of.exit.take() else { return };
                // What an enter that is still at work will do comes after.
                of.frozen &= !well;
                self.tell(GuardInput::ExitEnded { member, attempt, outcome: outcome(well) });
            }
            Event::Cancel => {
                self.budget.ends -= 1;
                self.tell(GuardInput::Cancel { cause: failure() });
            }
            Event::Suspend => {
                self.budget.ends -= 1;
                self.tell(GuardInput::Suspend { cause: failure() });
            }
            Event::Time => {
                self.budget.waits = self.budget.waits.saturating_sub(1);
                self.now = self.now.max(self.machine.next_wake().unwrap_or_default());
                self.tell(GuardInput::Tick);
            }
            Event::Crash => self.crash(),
        }
    }

    /// The process is gone and its threads with it; all that is known is that the guard was armed.
    fn crash(&mut self) {
        self.budget.crashes -= 1;
        let state = self.machine.state();
        let fresh = GuardState::armed(&state.plan, state.node);
        for member in &mut self.members {
            if matches!(member.enter, Enter::Begun { .. }) {
                member.frozen = true;
            }
            (member.enter, member.exit) = (Enter::Over, None);
        }
        self.body.clear();
        self.lost = true;
        self.machine = GuardMachine::new(fresh, SECOND, 1);
        self.tell(GuardInput::Lost);
        let owed = self.members.iter().all(|member| member.exit.is_some());
        assert!(owed, "after a crash every member is exited");
    }

    /// The log alone leads here.
    fn check_replay(&self) {
        let state = self.machine.state();
        let mut replayed = GuardState::armed(&state.plan, state.node);
        replayed.apply_all(&self.machine.clone().into_log());
        assert!(replayed == *state, "the log leads elsewhere");
    }

    fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        format!("{:?}", self.machine.state()).hash(&mut hasher);
        (&self.members, &self.body, self.budget, self.now.0, self.lost).hash(&mut hasher);
        hasher.finish()
    }
}

fn explore(members: u32, body: u32, budget: Budget) -> usize {
    let (mut seen, mut open) = (HashSet::new(), vec![World::new(&plan(members, body), budget)]);
    while let Some(world) = open.pop() {
        for event in world.events() {
            let mut next = world.clone();
            next.happen(event);
            if seen.insert(next.print()) {
                next.check_replay();
                open.push(next);
            }
        }
    }
    println!("{members} members, {body} body steps: {} states", seen.len());
    seen.len()
}

#[test]
fn one_member_and_two_steps() {
    let states = explore(1, 2, Budget { faults: 2, ends: 1, crashes: 1, waits: 3 });
    assert!(states > 200, "{states} states");
}

#[test]
fn two_members() {
    let states = explore(2, 1, Budget { faults: 1, ends: 1, crashes: 1, waits: 2 });
    assert!(states > 1000, "{states} states");
}

#[test]
fn a_barrier_over_three_members() {
    let states = explore(3, 1, Budget { faults: 0, ends: 1, crashes: 1, waits: 1 });
    assert!(states > 2000, "{states} states");
}
