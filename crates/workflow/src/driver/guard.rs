//! The driver of a guard: prepares a lane, and runs the guard machine on its control thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use stillpoint_context::{Cancel, Deadline, Effect, ErrorClass, Failure, Mono, Panicked, Subject};
use tokio::sync::mpsc;

use super::part::{Gate, Part};
use super::{Address, Mail, RunTask, Shared};
use crate::journal::FactDraft;
use crate::lane::LaneThread;
use crate::machine::{
    Enter, GUARD_SUSPENDED, GuardCommand, GuardEntry, GuardInput, GuardMachine, GuardRecord, Input,
    Outcome, PartOutcome, Phase,
};
use crate::payload::Payload;
use crate::plan::{Feed, NodeNo, Plan, longest_path};

/// The threads and calls of a guard, made before it is armed.
pub(crate) struct PreparedLane {
    control: Box<dyn LaneThread>,
    parts: BTreeMap<NodeNo, Part>,
}

impl std::fmt::Debug for PreparedLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PreparedLane({} parts)", self.parts.len())
    }
}

/// An open lane, as the driver of the run sees it.
#[derive(Debug)]
pub(crate) struct Lane(mpsc::UnboundedSender<Told>);

impl Lane {
    /// Tells the guard to end. Repeating it changes nothing.
    ///
    /// For a suspension only a guard that has not been entered ends; a body that runs goes on.
    pub(super) fn close(&self, suspended: bool) {
        let _ = self.0.send(Told::Close { suspended });
    }
}

/// What comes to the control thread.
enum Told {
    Input(Mono, GuardInput),
    /// A call of the body or of a member is over and its future gone.
    Ended(Mono, NodeNo, GuardInput, Vec<FactDraft>),
    Close {
        suspended: bool,
    },
}

/// Why a guard is told to end.
fn close_input(suspended: bool) -> GuardInput {
    let failure = |code, what: &str| {
        Box::new(Failure::new(code, ErrorClass::Unavailable, what).with_effect(Effect::None))
    };
    if suspended {
        GuardInput::Suspend { cause: failure(GUARD_SUSPENDED, "the engine was suspended") }
    } else {
        let cause =
            Failure::new("guard.cancelled", ErrorClass::Unavailable, "the section was cancelled");
        GuardInput::Cancel { cause: Box::new(cause) }
    }
}

impl RunTask {
    /// Makes threads and calls of a guard, away from the runtime's workers.
    pub(super) fn prepare(&mut self, guard: NodeNo) {
        let plan = self.machine.state().plan().clone();
        let Some(spec) = plan.guard(guard) else { return };
        let members = spec.members.iter().flat_map(|member| [member.enter, member.exit]);
        let mut parts = Vec::new();
        let mut worst = BTreeMap::new();
        for node in members.chain(spec.body.iter().copied()) {
            match self.part(&plan, node) {
                Ok((part, longest)) => {
                    worst.insert(node, longest);
                    parts.push((node, part));
                }
                Err(failure) => {
                    let _ = self
                        .mail
                        .send(Mail::Input(Input::Refused { guard, failure: Box::new(failure) }));
                    return;
                }
            }
        }
        let of = |node: NodeNo| worst.get(&node).copied().unwrap_or_default();
        let enters = spec.members.iter().map(|member| of(member.enter)).max().unwrap_or_default();
        let body = longest_path(&spec.body, of, |node, visit| {
            plan.topology().succs(node).iter().for_each(|next| visit(*next));
        });
        let worst = enters.saturating_add(body);
        let names: Vec<_> = std::iter::once(format!("guard {}", plan.node(guard).name))
            .chain(parts.iter().map(|(node, _)| plan.node(*node).name.to_string()))
            .collect();
        let (lanes, mail) = (Arc::clone(&self.shared.lanes), self.mail.clone());
        let make = move || {
            let threads = match lanes.threads(&names) {
                Ok(threads) => threads,
                Err(failure) => {
                    let _ = mail
                        .send(Mail::Input(Input::Refused { guard, failure: Box::new(failure) }));
                    return;
                }
            };
            let mut threads = threads.into_iter();
            let Some(control) = threads.next() else { return };
            let parts = parts.into_iter().zip(threads);
            let parts =
                parts.map(|((node, part), thread)| (node, Part { thread: Some(thread), ..part }));
            let lane = PreparedLane { control, parts: parts.collect() };
            let _ = mail.send(Mail::Lane { guard, lane, worst });
        };
        let Some(limit) = spec.limit.filter(|_| self.shared.lease.leases().is_some()) else {
            self.shared.seams.spawner.blocking("prepare guard", Box::new(make));
            return;
        };
        // Nothing is written from arming on, so the lease has to last until the guard is over.
        let core = Arc::clone(&self.shared.core);
        self.shared.seams.spawner.spawn(
            "lease for guard",
            Box::pin(async move {
                let _left = core.lease.ensure_left(limit.saturating_mul(2)).await;
                core.seams.spawner.blocking("prepare guard", Box::new(make));
            }),
        );
    }

    /// A call of the guard, and how long it may take at worst.
    fn part(&self, plan: &Plan, node: NodeNo) -> Result<(Part, Duration), Failure> {
        let spec = plan.node(node);
        let (Some(step), Some(action)) = (plan.step(node), self.action(node)) else {
            return Err(Failure::new(
                "guard.no_action",
                ErrorClass::Internal,
                "a part has no action",
            )
            .with_subject(Subject::new("step", &spec.name)));
        };
        let (cx, cancel) = self.context(&spec.name);
        // Only what comes from outside the guard is known yet.
        let mut outside = true;
        step.feed.each(&mut |from| outside &= plan.node(from).within != spec.within);
        let is_exit = step.role == crate::plan::Role::Exit;
        let asked = if outside && !is_exit {
            let input = self.machine.state().input(node);
            let asked = || action.worst_case(&step.params, &input);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(asked)).unwrap_or_else(
                |panic| {
                    let panicked = Panicked::from_payload(panic.as_ref());
                    let what = "the action panicked when it was asked how long it may take";
                    Err(Failure::new("step.panicked", ErrorClass::Internal, what)
                        .with_effect(Effect::None)
                        .with_cause(panicked.message)
                        .with_subject(Subject::new("step", &spec.name)))
                },
            )?
        } else {
            None
        };
        let worst = asked.into_iter().chain(step.worst_case).max().unwrap_or_default();
        let part = Part {
            thread: None,
            action,
            cx,
            cancel,
            params: step.params.clone(),
            timeout: step.timeout,
            abort: None,
        };
        Ok((part, worst))
    }

    /// The guard is armed and that is durable: hands it to its control thread.
    pub(super) fn open_lane(&mut self, guard: NodeNo) {
        if let Some(lane) = self.prepared.remove(&guard) {
            self.hand_over(guard, lane, GuardInput::Open);
        }
    }

    /// The guard is armed, and was told to end before it began.
    pub(super) fn open_closed(&mut self, guard: NodeNo, suspended: bool) {
        if let Some(lane) = self.prepared.remove(&guard) {
            self.hand_over(guard, lane, close_input(suspended));
        }
    }

    /// Opens a lane for the exits that are owed: by a guard whose exits kept failing, or whose process is gone.
    pub(super) fn reopen_lane(&mut self, guard: NodeNo) {
        let plan = self.machine.state().plan().clone();
        let Some(spec) = plan.guard(guard) else { return };
        let lost = self
            .machine
            .state()
            .guard_state(guard)
            .is_some_and(|state| state.phase == Phase::Armed);
        let parts = spec
            .members
            .iter()
            .filter_map(|member| Some((member.exit, self.part(&plan, member.exit).ok()?.0)));
        let parts = parts.collect();
        let made = self.shared.lanes.threads(&["guard again".to_owned()]);
        let first = if lost { GuardInput::Lost } else { GuardInput::Reopen };
        match made.map(|mut made| made.pop()) {
            Ok(Some(control)) => self.hand_over(guard, PreparedLane { control, parts }, first),
            failed => {
                // Without a thread the exit is owed as before.
                let failure = failed.err().unwrap_or_else(no_thread);
                let log = if lost { self.owed(guard, &failure) } else { Vec::new() };
                let closed = Input::Closed { guard, log, facts: Vec::new() };
                let _ = self.mail.send(Mail::Input(closed));
            }
        }
    }

    /// What is noted of a guard that was lost and cannot be exited.
    fn owed(&self, guard: NodeNo, failure: &Failure) -> Vec<GuardEntry> {
        let at = self.shared.seams.clock.mono();
        let members = self.machine.state().plan().guard(guard).map_or(0, |spec| spec.members.len());
        let members = (0..members).filter_map(|member| u32::try_from(member).ok());
        let owed = members
            .map(|member| GuardRecord::ExitOwed { member, failure: Box::new(failure.clone()) });
        let records = std::iter::once(GuardRecord::Lost).chain(owed);
        records.map(|record| GuardEntry { at, record }).collect()
    }

    fn hand_over(&mut self, guard: NodeNo, lane: PreparedLane, first: GuardInput) {
        let state = self.machine.state();
        let Some(guard_state) = state.guard_state(guard) else { return };
        let plan = state.plan().clone();
        let (told, inbox) = mpsc::unbounded_channel();
        let mut values = BTreeMap::new();
        for node in lane.parts.keys() {
            if let Some(step) = plan.step(*node) {
                step.feed.each(&mut |from| drop(values.insert(from, state.value(from))));
            }
        }
        // An exit is told what its enter gave, also when it is tried again after a while.
        for (member, state) in
            plan.guard(guard).map_or(&[][..], |spec| &spec.members).iter().zip(&guard_state.members)
        {
            if let Enter::Ended(_, PartOutcome::Ok { output, .. }) = &state.enter {
                values.insert(member.enter, output.clone());
            }
        }
        let gates = guard_state.members.iter().map(|_| Arc::<Gate>::default());
        let seed = state.submitted().seed ^ u64::from(guard.0);
        let control = Control {
            shared: Arc::clone(&self.shared),
            mail: self.mail.clone(),
            machine: GuardMachine::new(guard_state.clone(), plan.grace(guard), seed),
            plan,
            guard,
            parts: lane.parts,
            values,
            gates: gates.collect(),
            told: told.clone(),
            inbox,
            facts: Vec::new(),
        };
        self.lanes.insert(guard, Lane(told));
        self.shared.lease.guard_opens();
        lane.control.run(Box::pin(control.run(first)));
    }
}

/// What the control thread of a lane holds.
struct Control {
    shared: Arc<Shared>,
    mail: Address,
    machine: GuardMachine,
    plan: Plan,
    guard: NodeNo,
    parts: BTreeMap<NodeNo, Part>,
    /// What the parts bind: outputs from outside, and those of the body as they come.
    values: BTreeMap<NodeNo, Payload>,
    gates: Vec<Arc<Gate>>,
    told: mpsc::UnboundedSender<Told>,
    inbox: mpsc::UnboundedReceiver<Told>,
    facts: Vec<FactDraft>,
}

impl Control {
    /// Runs the guard until its exits have ended, well or owed.
    async fn run(mut self, first: GuardInput) {
        let clock = Arc::clone(&self.shared.seams.clock);
        self.feed(clock.mono(), first);
        while !self.machine.is_over() {
            let told = match self.machine.next_wake() {
                Some(wake) => {
                    let receive = std::pin::pin!(self.inbox.recv());
                    match select(receive, clock.sleep_until(wake)).await {
                        Either::Left((told, _)) => told,
                        Either::Right(_) => None,
                    }
                }
                None => self.inbox.recv().await,
            };
            if let Some(told) = told {
                self.take(told);
                while let Ok(told) = self.inbox.try_recv() {
                    self.take(told);
                }
            }
            self.feed(clock.mono(), GuardInput::Tick);
        }
        let Self { machine, mail, guard, facts, mut inbox, .. } = self;
        let log = machine.into_log();
        // The end is told first: only then can a late step find the inbox closed and tell the run itself.
        let _ = mail.send(Mail::Input(Input::Closed { guard, log, facts }));
        inbox.close();
        // What came in after the end concerns the run: a step of the body has left its thread.
        while let Ok(told) = inbox.try_recv() {
            if let Told::Ended(_, node, GuardInput::BodyEnded { .. }, _) = told {
                let _ = mail.send(Mail::Input(gone(node)));
            }
        }
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Input(at, input) => self.feed(at, input),
            Told::Ended(at, node, input, facts) => {
                if let Some(output) = output_of(&input) {
                    self.values.insert(node, output);
                    self.facts.extend(facts);
                }
                self.feed(at, input);
            }
            Told::Close { suspended } => {
                let now = self.shared.seams.clock.mono();
                self.feed(now, close_input(suspended));
            }
        }
    }

    fn feed(&mut self, at: Mono, input: GuardInput) {
        let mut commands = self.machine.on(at, input);
        while !commands.is_empty() {
            let mut answers = Vec::new();
            for command in commands.drain(..) {
                answers.extend(self.carry_out(&command));
            }
            for answer in answers {
                commands.extend(self.machine.on(at, answer));
            }
        }
    }

    fn member(&self, member: u32) -> Option<(NodeNo, NodeNo)> {
        let guard = self.plan.guard(self.guard)?;
        guard.members.get(member as usize).map(|member| (member.enter, member.exit))
    }

    fn carry_out(&mut self, command: &GuardCommand) -> Option<GuardInput> {
        match *command {
            GuardCommand::Enter { member } => self.enter(member),
            GuardCommand::Shut { member } => {
                let never = self.gates.get(member as usize)?.shut();
                return Some(GuardInput::Shut { member, never });
            }
            GuardCommand::DropEnter { member } => {
                let (enter, _) = self.member(member)?;
                self.drop_part(enter);
            }
            GuardCommand::Run { node } => self.body(node),
            GuardCommand::Signal => {
                for node in self.plan.guard(self.guard).map_or(&[][..], |guard| &guard.body) {
                    if let Some(part) = self.parts.get(node) {
                        part.cancel.cancel();
                    }
                }
            }
            GuardCommand::DropBody { node } => self.drop_part(node),
            GuardCommand::Exit { member, attempt } => return self.exit(member, attempt),
            GuardCommand::DropExit { member } => {
                let (_, exit) = self.member(member)?;
                self.drop_part(exit);
            }
        }
        None
    }

    fn drop_part(&mut self, node: NodeNo) {
        if let Some(part) = self.parts.get_mut(&node) {
            part.cancel.cancel();
            if let Some(abort) = part.abort.take() {
                abort.abort();
            }
        }
    }

    fn input(&self, node: NodeNo) -> Payload {
        let feed = self.plan.step(node).map_or(&Feed::Nothing, |step| &step.feed);
        feed.compose(&|from| self.values.get(&from).cloned().unwrap_or_default())
    }

    fn enter(&mut self, member: u32) {
        let Some((node, _)) = self.member(member) else { return };
        let Some(gate) = self.gates.get(member as usize).cloned() else { return };
        let input = self.input(node);
        let length = self
            .plan
            .guard(self.guard)
            .and_then(|guard| Some(guard.limit?.saturating_sub(guard.exit_timeout)));
        let (clock, told) = (Arc::clone(&self.shared.seams.clock), self.told.clone());
        let Some(part) = self.parts.get_mut(&node) else { return };
        let Some(thread) = part.thread.take() else { return };
        let work = part.work(1, input);
        thread.run(Box::pin(async move {
            if !gate.begin() {
                return;
            }
            let at = clock.mono();
            let _ = told.send(Told::Input(at, GuardInput::Polled { member }));
            let deadline = length.map_or(Deadline::never(), |length| Deadline::at(at + length));
            let (outcome, facts) = work(deadline, Arc::clone(&clock)).await;
            let input = GuardInput::Entered { member, outcome };
            let _ = told.send(Told::Ended(clock.mono(), node, input, facts));
        }));
    }

    fn body(&mut self, node: NodeNo) {
        let input = self.input(node);
        let deadline = self.machine.state().cutoff().map_or(Deadline::never(), Deadline::at);
        let (clock, told) = (Arc::clone(&self.shared.seams.clock), self.told.clone());
        let mail = self.mail.clone();
        let Some(part) = self.parts.get_mut(&node) else { return };
        let Some(thread) = part.thread.take() else { return };
        let work = part.work(1, input);
        thread.run(Box::pin(async move {
            let (outcome, facts) = work(deadline, Arc::clone(&clock)).await;
            let input = GuardInput::BodyEnded { node, outcome };
            if told.send(Told::Ended(clock.mono(), node, input, facts)).is_err() {
                // The lane has ended without it: what remains to be told is that the thread is free.
                let _ = mail.send(Mail::Input(gone(node)));
            }
        }));
    }

    fn exit(&mut self, member: u32, attempt: u32) -> Option<GuardInput> {
        let (enter, node) = self.member(member)?;
        let known = known_payload(self.values.get(&enter));
        let input = Payload::list([known, self.input(node)]);
        let timeout = self.plan.guard(self.guard)?.exit_timeout;
        let (clock, told) = (Arc::clone(&self.shared.seams.clock), self.told.clone());
        let lanes = Arc::clone(&self.shared.lanes);
        let part = self.parts.get_mut(&node)?;
        let thread = match part.thread.take() {
            Some(thread) => Ok(thread),
            // The first exit has its thread since before arming; a repeated one gets a new one, as the first may be
            // blocked.
            None => lanes
                .threads(&["exit again".to_owned()])
                .and_then(|mut threads| threads.pop().ok_or_else(no_thread)),
        };
        let thread = match thread {
            Ok(thread) => thread,
            Err(failure) => {
                let outcome = PartOutcome::Failed(Box::new(failure));
                return Some(GuardInput::ExitEnded { member, attempt, outcome });
            }
        };
        part.cancel = Cancel::new();
        part.cx = part.cx.clone().cancel(part.cancel.clone());
        let work = part.work(attempt, input);
        let deadline = Deadline::at(clock.mono() + timeout);
        thread.run(Box::pin(async move {
            let (outcome, facts) = work(deadline, Arc::clone(&clock)).await;
            let input = GuardInput::ExitEnded { member, attempt, outcome };
            let _ = told.send(Told::Ended(clock.mono(), node, input, facts));
        }));
        None
    }
}

fn no_thread() -> Failure {
    Failure::new("guard.no_thread", ErrorClass::Unavailable, "no thread was made")
}

/// A step of the body is off its thread.
fn gone(node: NodeNo) -> Input {
    Input::Ended { node, attempt: 1, outcome: Outcome::Dropped }
}

fn output_of(input: &GuardInput) -> Option<Payload> {
    let (GuardInput::Entered { outcome, .. }
    | GuardInput::BodyEnded { outcome, .. }
    | GuardInput::ExitEnded { outcome, .. }) = input
    else {
        return None;
    };
    match outcome {
        PartOutcome::Ok { output, .. } => Some(output.clone()),
        PartOutcome::Failed(_) => None,
    }
}

/// What is known of an enter, as serde writes [`Known`](crate::action::Known).
fn known_payload(output: Option<&Payload>) -> Payload {
    let Some(output) = output else { return Payload::from_json(&b"\"unknown\""[..]) };
    let mut text = b"{\"output\":".to_vec();
    text.extend_from_slice(output.as_bytes());
    text.push(b'}');
    Payload::from_json(text)
}
