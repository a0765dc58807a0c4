//! The driver of one run.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use stillpoint_context::{BoxFuture, Cancel, Cx, CxBuilder, Failure, FencingToken, Mono, StepName};
use tokio::sync::oneshot;

use super::attempt::{Attempt, Work};
use super::fault::Fault;
use super::guard::{Lane, PreparedLane};
use super::unwritten::Unwritten;
use super::{Actions, Address, ArbiterMail, Ask, Mail, Mailbox, RunLink, Shared, Status, pending};
use crate::engine::{EngineError, Notice, NoticeKind, RunPhase};
use crate::journal::{Append, Journal, JournalError, Now, Position, Seq, StreamId};
use crate::machine::{
    Answer, CancelAnswer, Command, Held, Input, ParkReason, Parked, Record, Round, RunMachine,
    RunRecord, RunState, Ticket,
};
use crate::plan::NodeNo;

/// How long a round that is to be durable waits for others to join it: a third of the fastest sync of a disk, and as long as a
/// thread takes to wake.
const GATHER: Duration = Duration::from_micros(50);

/// How many turns that is at most, where turns are slow, or time stands still.
const GATHER_TURNS: u32 = 256;

/// The driver of one run: a machine, its mailbox, and the means to carry out what it wants.
pub(crate) struct RunTask {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Arc<RunLink>,
    pub(super) machine: RunMachine,
    pub(super) actions: Actions,
    pub(super) mail: Address,
    pub(super) mailbox: Mailbox,
    /// Number of records in the journal and on their way there.
    pub(super) head: Seq,
    /// Number of records in the journal when this driver was made.
    pub(super) found: Seq,
    pub(super) round: Round,
    /// What waits for the append that is under way.
    pub(super) gated: Vec<Command>,
    /// What it was told and the journal may not have.
    pub(super) unwritten: Unwritten,
    pub(super) attempts: BTreeMap<NodeNo, Attempt>,
    /// Attempts that were dropped and may still be on a thread, by their number.
    pub(super) dropped: HashMap<u64, (NodeNo, Work)>,
    pub(super) serial: u64,
    pub(super) prepared: BTreeMap<NodeNo, PreparedLane>,
    pub(super) lanes: BTreeMap<NodeNo, Lane>,
    /// What was asked and is not answered yet.
    pub(super) tickets: HashMap<Ticket, (Ask, oneshot::Sender<Answer>)>,
    last_ticket: u64,
    pub(super) timer: Option<(Mono, BoxFuture<'static, ()>)>,
    /// What all contexts of the run have in common.
    pub(super) base: CxBuilder,
    pub(super) shadow: Option<Box<RunState>>,
    pub(super) over: bool,
    /// The lease has run out: what was about to begin must not.
    pub(super) unfit: bool,
    pub(super) fault: Option<Fault>,
    /// Whom to tell whether the run is this process's, which its first append decides.
    pub(super) taking: Option<oneshot::Sender<bool>>,
}

/// An append under way, and what is told once it is durable.
struct Writing<'j> {
    commit: BoxFuture<'j, Result<Position, JournalError>>,
    news: News,
}

/// What handles are told of a state.
struct News {
    head: Seq,
    phase: RunPhase,
    parked: Vec<(StepName, Parked)>,
}

/// How a driver begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carry {
    /// With a run that has just been submitted.
    New,
    /// With one that somebody else has left, or this process when it was another.
    On {
        /// The token of the grant to this process.
        fence: FencingToken,
        /// How long ago its last record was written.
        elapsed: Duration,
    },
}

impl RunTask {
    /// The driver of a run whose first records are in the journal.
    pub(crate) fn new(
        shared: Arc<Shared>,
        link: Arc<RunLink>,
        mailbox: Mailbox,
        state: RunState,
        actions: Actions,
        head: Seq,
    ) -> Self {
        let base = Cx::builder(&shared.seams).run(state.run());
        let shadow = shared.audit.then(|| Box::new(state.clone()));
        shared.drivers.fetch_add(1, Ordering::AcqRel);
        Self {
            mail: link.mail.clone(),
            shared,
            link,
            machine: RunMachine::new(state),
            actions,
            mailbox,
            head,
            found: head,
            round: Round::default(),
            gated: Vec::new(),
            unwritten: Unwritten::default(),
            attempts: BTreeMap::new(),
            dropped: HashMap::new(),
            serial: 0,
            prepared: BTreeMap::new(),
            lanes: BTreeMap::new(),
            tickets: HashMap::new(),
            last_ticket: 0,
            timer: None,
            base,
            shadow,
            over: false,
            unfit: false,
            fault: None,
            taking: None,
        }
    }

    /// A driver of a run that another process may be about to carry on, too: the first append decides whose it is.
    pub(crate) fn taking(mut self, tell: oneshot::Sender<bool>) -> Self {
        self.taking = Some(tell);
        self
    }

    /// A driver that only exits what is owed: this process lacks the action of a node.
    pub(crate) fn without_action(mut self, node: NodeNo) -> Self {
        self.machine.lack(node);
        self
    }

    /// Runs the run to its end, or to where it is suspended.
    ///
    /// In a box: what is taken by value is twice in the future of an `async fn`, and there is one for every open run.
    pub(crate) async fn run(mut self: Box<Self>, carry: Carry) {
        if let Carry::On { fence, elapsed } = carry {
            let lingering = std::collections::BTreeSet::new();
            let now = self.shared.seams.clock.mono();
            self.feed(now, Input::Recover { fence, elapsed, lingering });
            self.go_on(now, 0);
        }
        let journal = Arc::clone(&self.shared.journal);
        let mut writing: Option<Writing<'_>> = None;
        let mut mails = VecDeque::new();
        loop {
            if writing.is_none() {
                writing = self.begin_write(&*journal);
                if self.over {
                    return self.finish();
                }
                if self.unfit {
                    writing = None;
                    let fenced = self.shared.lease.fenced();
                    if !self.stand_by(fenced).await {
                        return;
                    }
                    continue;
                }
                if writing.is_none() && self.is_suspended() {
                    return self.suspend();
                }
            }
            self.set_timer();
            let timer = self.timer.as_mut().map(|(_, timer)| timer);
            tokio::select! {
                biased;
                written = wait(writing.as_mut().map(|writing| &mut writing.commit)) => {
                    let Some(Writing { news, .. }) = writing.take() else { continue };
                    match written {
                        Ok(_) => self.written(Some(news)),
                        Err(error) => {
                            if !self.stand_by(error).await {
                                return;
                            }
                        }
                    }
                    continue;
                }
                () = self.mailbox.take(&mut mails) => {
                    self.gather(&mut mails).await;
                }
                () = wait(timer) => self.timer = None,
            }
            self.take_round(&mut mails);
        }
    }

    /// Lets others that are at work and about to end share this round and its append.
    ///
    /// Those on this thread need one turn. Those on another one, which may have to wake first, are worth a moment where an append
    /// takes many of them: a commit that is saved pays for it several times over.
    async fn gather(&mut self, mails: &mut VecDeque<Mail>) {
        let clock = Arc::clone(&self.shared.seams.clock);
        let until = clock.mono() + GATHER;
        let turns = if self.shared.journal.is_durable() { GATHER_TURNS } else { 1 };
        for _ in 0..turns {
            if mails.len() >= self.attempts.len() {
                return;
            }
            yield_once().await;
            self.mailbox.take_more(mails);
            if turns > 1 && clock.mono() >= until {
                return;
            }
        }
    }

    /// One round: all that has come in, then what has become due.
    fn take_round(&mut self, mails: &mut VecDeque<Mail>) {
        let now = self.shared.seams.clock.mono();
        let from = self.round.records.len();
        for mail in mails.drain(..) {
            if let Some(input) = self.open(mail) {
                self.feed(now, input);
            }
        }
        self.go_on(now, from);
    }

    /// One input. What is urgent is done before the next one is opened: what it is about is at work until then.
    pub(super) fn feed(&mut self, now: Mono, input: Input) {
        self.unwritten.keep(&input);
        self.machine.on(now, input, &mut self.round);
        self.hurry();
    }

    /// Does what has become due, and what may begin.
    pub(super) fn go_on(&mut self, now: Mono, from: usize) {
        self.machine.advance(now, &mut self.round);
        self.audit(now, from);
        self.hurry();
    }

    fn hurry(&mut self) {
        for command in std::mem::take(&mut self.round.urgent) {
            self.carry_out(command);
        }
    }

    /// Compares the state with what its records amount to.
    fn audit(&mut self, now: Mono, from: usize) {
        let Some(shadow) = &mut self.shadow else { return };
        for record in self.round.records[from..].iter().filter_map(Record::of_run) {
            shadow.apply(now, record);
        }
        assert!(**shadow == *self.machine.state(), "the state is not what its records amount to");
    }

    pub(super) fn open(&mut self, mail: Mail) -> Option<Input> {
        Some(match mail {
            Mail::Input(input) => {
                if let Input::Closed { guard, .. } = &input
                    && self.lanes.remove(guard).is_some()
                {
                    self.shared.lease.guard_closes();
                }
                input
            }
            Mail::Over { serial, input } => return self.over(serial, input),
            Mail::Suspend => Input::Suspend,
            Mail::Lane { guard, lane, worst } => {
                self.prepared.insert(guard, lane);
                let left = self.shared.lease.left();
                Input::Prepared { guard, worst, left }
            }
            Mail::Ask { ask, reply } => {
                self.last_ticket += 1;
                let ticket = Ticket(self.last_ticket);
                self.tickets.insert(ticket, (ask.clone(), reply));
                ask.into_input(ticket)
            }
        })
    }

    /// A call is over. Of one that was dropped only a late attempt still means something by itself; of the others, that they
    /// are off their thread.
    fn over(&mut self, serial: u64, input: Input) -> Option<Input> {
        let node = Work::node(&input)?;
        if self.attempts.get(&node).is_some_and(|attempt| attempt.serial == serial) {
            self.attempts.remove(&node);
            return Some(input);
        }
        match self.dropped.remove(&serial)?.1 {
            Work::Run => Some(input),
            Work::Undo => Some(Input::Gone { node }),
            Work::Probe => None,
        }
    }

    /// Starts to append what has gathered; without records the gated commands have nothing to wait for.
    fn begin_write<'j>(&mut self, journal: &'j dyn Journal) -> Option<Writing<'j>> {
        self.gated.append(&mut self.round.gated);
        self.unwritten.send(self.head);
        if self.round.records.is_empty() {
            self.written(None);
            return None;
        }
        let records = std::mem::take(&mut self.round.records);
        let facts = std::mem::take(&mut self.round.facts);
        self.tell(&records);
        let run = self.link.run;
        let expected = self.head;
        self.head = Seq(expected.0 + records.len() as u64);
        let mut batch = self.shared.batch(vec![Append {
            stream: StreamId::Run(run),
            expected,
            at: Now { mono: self.round.from, civil: self.shared.seams.clock.now() },
            records,
        }]);
        batch.facts = facts.into_iter().map(|fact| (run, fact)).collect();
        Some(Writing { commit: journal.commit(batch), news: self.news() })
    }

    /// The records are durable: tells of them, and does what waited for them.
    fn written(&mut self, news: Option<News>) {
        self.unwritten.forget();
        if let Some(news) = news {
            self.fault = None;
            if let Some(tell) = self.taking.take() {
                let _heard = tell.send(true);
            }
            self.publish(news);
        }
        let mut gated = std::mem::take(&mut self.gated);
        for command in gated.drain(..) {
            self.carry_out(command);
        }
        // Its room is used again.
        if self.gated.is_empty() {
            self.gated = gated;
        }
    }

    /// What is told of the state as it is now, once it is durable.
    fn news(&self) -> News {
        let state = self.machine.state();
        let named = |parked: &Parked| (state.plan().node(parked.node).name.clone(), parked.clone());
        let mut parked: Vec<_> = state.parked().iter().map(named).collect();
        parked.extend(self.lacking());
        let phase = match RunPhase::of(state) {
            RunPhase::Ended(end) => RunPhase::Ended(end),
            _ if !parked.is_empty() => RunPhase::Parked,
            phase => phase,
        };
        News { head: self.head, phase, parked }
    }

    /// What this process lacks to carry on.
    fn lacking(&self) -> Option<(StepName, Parked)> {
        let Some(Held::Unknown(node)) = self.machine.held() else { return None };
        let plan = self.machine.state().plan();
        let (action, version) =
            plan.step(node).map(|step| (step.action.to_string(), step.version)).unwrap_or_default();
        let name = plan.node(node).name.clone();
        let failure =
            Failure::of(&EngineError::UnknownAction { step: name.clone(), action, version });
        Some((name, Parked { node, reason: ParkReason::UnknownAction, failure: Box::new(failure) }))
    }

    fn publish(&self, news: News) {
        if !self.link.set_head(news.head) {
            return;
        }
        let quiet = {
            let status = self.link.status.borrow();
            status.phase == news.phase
                && status.parked.is_empty()
                && news.parked.is_empty()
                && status.broken.is_none()
        };
        if quiet && !self.link.is_followed() {
            return;
        }
        self.link.status.send_modify(|status| {
            status.phase = news.phase;
            if !status.parked.is_empty() || !news.parked.is_empty() {
                status.parked = news.parked;
            }
            status.broken = None;
        });
    }

    /// Whether it has come to rest for the sake of a suspension.
    fn is_suspended(&self) -> bool {
        self.machine.held() == Some(Held::Suspended)
            && self.machine.is_at_rest()
            && self.attempts.is_empty()
            && self.lanes.is_empty()
            && self.tickets.is_empty()
    }

    /// Leaves the run where it is: what it claims it keeps.
    fn suspend(&self) {
        self.link.status.send_modify(|status| {
            status.phase = RunPhase::Suspended;
            status.gone = true;
        });
    }

    /// Lossy news for whoever watches.
    fn tell(&self, records: &[Record]) {
        if self.shared.notices.receiver_count() == 0 {
            return;
        }
        let name = |node: &NodeNo| self.machine.state().plan().node(*node).name.clone();
        for record in records.iter().filter_map(Record::of_run) {
            let kind = match record {
                RunRecord::Started { .. } => NoticeKind::Started,
                RunRecord::Intended { node, attempt } => {
                    NoticeKind::StepStarted { step: name(node), attempt: *attempt }
                }
                RunRecord::Succeeded { node, .. } => NoticeKind::StepSucceeded { step: name(node) },
                RunRecord::Failed { node, failure, .. }
                | RunRecord::Unclear { node, failure, .. } => {
                    NoticeKind::StepFailed { step: name(node), failure: (**failure).clone() }
                }
                RunRecord::Parked(parked) => {
                    NoticeKind::Parked { step: name(&parked.node), reason: parked.reason }
                }
                RunRecord::Ended { end } => NoticeKind::Ended { end: *end },
                _ => continue,
            };
            self.shared.notify(Notice { run: self.link.run, kind });
        }
    }

    pub(super) fn carry_out(&mut self, command: Command) {
        match command {
            // Before each effect: whose lease has run out may have been taken over. Exits are owed whatever else is so.
            Command::Launch { .. }
            | Command::Probe { .. }
            | Command::Undo { .. }
            | Command::Open { .. }
                if !self.shared.lease.may_act() =>
            {
                self.unfit = true;
            }
            Command::Launch { node, attempt } => self.launch(node, attempt),
            Command::Skip { node, attempt } => self.skip(node, attempt),
            Command::Probe { node, attempt } => self.probe(node, attempt),
            Command::Undo { node, attempt } => self.undo(node, attempt),
            Command::Signal { node } => match self.attempts.get(&node) {
                Some(attempt) => attempt.cancel.cancel(),
                None => self.withdraw(node),
            },
            Command::Drop { node } => match self.attempts.remove(&node) {
                Some(attempt) => {
                    attempt.cancel.cancel();
                    attempt.abort.abort();
                    self.dropped.insert(attempt.serial, (node, attempt.work));
                }
                None => self.withdraw(node),
            },
            Command::Prepare { guard } => self.prepare(guard),
            Command::Unprepare { guard } => drop(self.prepared.remove(&guard)),
            Command::Open { guard } => self.open_lane(guard),
            Command::OpenClosed { guard, suspended } => self.open_closed(guard, suspended),
            Command::Reopen { guard } => self.reopen_lane(guard),
            Command::CloseGuard { guard } => self.close_guard(guard, false),
            Command::SuspendGuard { guard } => self.close_guard(guard, true),
            Command::AskSlots { node } => {
                let needs = self.machine.needs(node);
                let (run, mail) = (self.link.run, self.mail.clone());
                let _ = self.shared.arbiter.send(ArbiterMail::AskSlots { run, node, needs, mail });
            }
            Command::ReturnSlots { node } => {
                let run = self.link.run;
                let _ = self.shared.arbiter.send(ArbiterMail::ReturnSlots { run, node });
            }
            Command::ReleaseUntil { node } => self.release_until(node),
            Command::Finish => self.over = true,
            Command::Answer { ticket, answer } => {
                if let Some((_, reply)) = self.tickets.remove(&ticket) {
                    // Whoever asked may have gone.
                    drop(reply.send(answer));
                }
            }
        }
    }

    /// What waits for its append and has not begun does not begin.
    fn withdraw(&mut self, node: NodeNo) {
        let _found = pending::withdraw(&mut self.gated, node)
            || pending::withdraw(&mut self.round.gated, node);
    }

    /// Tells a guard to end; one whose lane is not open yet is opened only to be closed.
    fn close_guard(&mut self, guard: NodeNo, suspended: bool) {
        if let Some(lane) = self.lanes.get(&guard) {
            lane.close(suspended);
        } else {
            let _found = pending::close(&mut self.gated, guard, suspended)
                || pending::close(&mut self.round.gated, guard, suspended);
        }
    }

    fn release_until(&self, node: NodeNo) {
        let state = self.machine.state();
        let name = &state.plan().node(node).name;
        let claims = state.submitted().claims.iter();
        let claims: Vec<_> =
            claims.filter(|claim| claim.until.as_ref() == Some(name)).cloned().collect();
        if !claims.is_empty() {
            let _ = self.shared.arbiter.send(ArbiterMail::Release { run: self.link.run, claims });
        }
    }

    fn set_timer(&mut self) {
        let Some(wake) = self.machine.next_wake() else {
            self.timer = None;
            return;
        };
        // A timer that fires too early does no harm, so one is made anew only to fire earlier.
        if self.timer.as_ref().is_none_or(|(at, _)| *at > wake) {
            self.timer = Some((wake, self.shared.seams.clock.sleep_until(wake)));
        }
    }

    /// The run has ended: its claims are free, and all who wait are told.
    pub(super) fn finish(&mut self) {
        let run = self.link.run;
        let _ = self.shared.arbiter.send(ArbiterMail::Release { run, claims: Vec::new() });
        let state = Arc::new(self.machine.take_state());
        let phase = RunPhase::of(&state);
        self.link.set_head(self.head);
        self.link.status.send_modify(|status| {
            *status = Status { phase, last: Some(state), ..Status::new() };
        });
        for mail in self.mailbox.close() {
            if let Mail::Ask { ask, reply } = mail {
                let answer = match ask {
                    Ask::Cancel { .. } => Answer::Cancel(CancelAnswer::Ended),
                    Ask::Resume { .. } | Ask::Resolve { .. } | Ask::Abandon { .. } => {
                        Answer::NotParked
                    }
                };
                drop(reply.send(answer));
            }
        }
    }

    /// What the contexts of a step have in common, and the cancel token of its next attempt.
    pub(super) fn context(&self, name: &StepName) -> (CxBuilder, Cancel) {
        let cancel = Cancel::new();
        let fence = self.machine.state().fence();
        let builder = self.base.clone().step(name.clone()).fence(fence).cancel(cancel.clone());
        (builder, cancel)
    }
}

impl Drop for RunTask {
    /// Whoever waits is told, also when the driver was dropped with its runtime or has panicked.
    fn drop(&mut self) {
        self.shared.drivers.fetch_sub(1, Ordering::AcqRel);
        self.link.status.send_if_modified(|status| {
            !std::mem::replace(&mut status.gone, true) && status.last.is_none()
        });
    }
}

/// Lets the other tasks that are ready go first.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits for a future that may not be there.
async fn wait<T>(future: Option<&mut BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
