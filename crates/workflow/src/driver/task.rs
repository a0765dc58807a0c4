//! The driver of one run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::Poll;

use stillpoint_context::{BoxFuture, Cancel, Cx, CxBuilder, IdempotencyKey, Mono, StepName};
use tokio::sync::{mpsc, oneshot};

use super::attempt::{Attempt, Work};
use super::guard::{Lane, PreparedLane};
use super::{Actions, ArbiterMail, Ask, Mail, RunLink, Shared};
use crate::engine::{Notice, NoticeKind, RunPhase};
use crate::journal::{Append, Batch, Journal, JournalError, Position, Seq, StreamId};
use crate::machine::{
    Answer, CancelAnswer, Command, Input, Record, Round, RunMachine, RunRecord, RunState, Ticket,
};
use crate::plan::NodeNo;

/// How many messages one round takes at most.
const MOST: usize = 512;

/// The driver of one run: a machine, its mailbox, and the means to carry out what it wants.
pub(crate) struct RunTask {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Arc<RunLink>,
    pub(super) machine: RunMachine,
    pub(super) actions: Actions,
    pub(super) mail: mpsc::UnboundedSender<Mail>,
    mailbox: mpsc::UnboundedReceiver<Mail>,
    /// Number of records in the journal and on their way there.
    head: Seq,
    round: Round,
    pub(super) attempts: HashMap<NodeNo, Attempt>,
    pub(super) prepared: BTreeMap<NodeNo, PreparedLane>,
    pub(super) lanes: BTreeMap<NodeNo, Lane>,
    tickets: HashMap<Ticket, oneshot::Sender<Answer>>,
    last_ticket: u64,
    timer: Option<(Mono, BoxFuture<'static, ()>)>,
    /// What all contexts of the run have in common.
    pub(super) base: CxBuilder,
    /// What the keys of all its steps begin with.
    prefix: String,
    shadow: Option<Box<RunState>>,
    over: bool,
}

/// An append under way, and what waits for it.
struct Writing<'j> {
    commit: BoxFuture<'j, Result<Position, JournalError>>,
    gated: Vec<Command>,
    head: Seq,
}

impl RunTask {
    /// The driver of a run whose first records are in the journal.
    pub(crate) fn new(
        shared: Arc<Shared>,
        link: Arc<RunLink>,
        mailbox: mpsc::UnboundedReceiver<Mail>,
        state: RunState,
        actions: Actions,
        head: Seq,
    ) -> Self {
        let base = Cx::builder(&shared.seams).run(state.run());
        let prefix = format!("{}/", state.run());
        let shadow = shared.audit.then(|| Box::new(state.clone()));
        Self {
            mail: link.mail.clone(),
            shared,
            link,
            machine: RunMachine::new(state),
            actions,
            mailbox,
            head,
            round: Round::default(),
            attempts: HashMap::new(),
            prepared: BTreeMap::new(),
            lanes: BTreeMap::new(),
            tickets: HashMap::new(),
            last_ticket: 0,
            timer: None,
            base,
            prefix,
            shadow,
            over: false,
        }
    }

    /// Runs the run to its end.
    pub(crate) async fn run(mut self) {
        let journal = Arc::clone(&self.shared.journal);
        let mut writing: Option<Writing<'_>> = None;
        let mut mails = Vec::new();
        loop {
            if writing.is_none() {
                writing = self.begin_write(&*journal);
                if self.over {
                    return self.finish();
                }
            }
            self.set_timer();
            let timer = self.timer.as_mut().map(|(_, timer)| timer);
            tokio::select! {
                biased;
                written = wait(writing.as_mut().map(|writing| &mut writing.commit)) => {
                    let Some(Writing { gated, head, .. }) = writing.take() else { continue };
                    match written {
                        Ok(_) => self.written(gated, head),
                        Err(error) => return self.give_up(error).await,
                    }
                    continue;
                }
                _ = self.mailbox.recv_many(&mut mails, MOST) => {
                    if mails.len() < self.attempts.len() {
                        // Others are at work: those that are ready share this round and its append.
                        yield_once().await;
                        while mails.len() < MOST && let Ok(mail) = self.mailbox.try_recv() {
                            mails.push(mail);
                        }
                    }
                }
                () = wait(timer) => self.timer = None,
            }
            self.take_round(&mut mails);
        }
    }

    /// One round: all that has come in, then what has become due.
    fn take_round(&mut self, mails: &mut Vec<Mail>) {
        let now = self.shared.seams.clock.mono();
        let from = self.round.records.len();
        for mail in mails.drain(..) {
            let input = self.open(mail);
            self.machine.on(now, input, &mut self.round);
        }
        self.machine.advance(now, &mut self.round);
        self.audit(now, from);
        for command in std::mem::take(&mut self.round.urgent) {
            self.carry_out(command);
        }
    }

    /// Compares the state with what its records amount to.
    fn audit(&mut self, now: Mono, from: usize) {
        let Some(shadow) = &mut self.shadow else { return };
        for record in &self.round.records[from..] {
            shadow.apply(now, record);
        }
        assert!(**shadow == *self.machine.state(), "the state is not what its records amount to");
    }

    fn open(&mut self, mail: Mail) -> Input {
        match mail {
            Mail::Input(input) => {
                if let Some((node, what)) = Work::ended(&input) {
                    if self.attempts.get(&node).is_some_and(|attempt| attempt.what == what) {
                        self.attempts.remove(&node);
                    }
                } else if let Input::Closed { guard, .. } = &input {
                    self.lanes.remove(guard);
                }
                input
            }
            Mail::Lane { guard, lane, worst } => {
                self.prepared.insert(guard, lane);
                Input::Prepared { guard, worst }
            }
            Mail::Ask { ask, reply } => {
                self.last_ticket += 1;
                let ticket = Ticket(self.last_ticket);
                self.tickets.insert(ticket, reply);
                match ask {
                    Ask::Cancel { by } => Input::Cancel { by, ticket },
                    Ask::Resume { by } => Input::Resume { by, ticket },
                    Ask::Resolve { by, node, resolution } => {
                        Input::Resolve { by, node, resolution, ticket }
                    }
                    Ask::Abandon { by } => Input::Abandon { by, ticket },
                }
            }
        }
    }

    /// Starts to append what has gathered; without records the gated commands have nothing to wait for.
    fn begin_write<'j>(&mut self, journal: &'j dyn Journal) -> Option<Writing<'j>> {
        if self.round.records.is_empty() {
            let gated = std::mem::take(&mut self.round.gated);
            self.written(gated, self.head);
            return None;
        }
        let Round { records, facts, gated, .. } = std::mem::take(&mut self.round);
        self.tell(&records);
        let run = self.link.run;
        let expected = self.head;
        self.head = Seq(expected.0 + records.len() as u64);
        let batch = Batch {
            owner: self.shared.owner,
            epoch: self.shared.epoch,
            appends: vec![Append {
                stream: StreamId::Run(run),
                expected,
                at: self.shared.now(),
                records: records.into_iter().map(Record::Run).collect(),
            }],
            facts: facts.into_iter().map(|fact| (run, fact)).collect(),
        };
        Some(Writing { commit: journal.commit(batch), gated, head: self.head })
    }

    /// The records are durable: publishes the state, and does what waited for them.
    fn written(&mut self, gated: Vec<Command>, head: Seq) {
        self.publish(head);
        for command in gated {
            self.carry_out(command);
        }
    }

    fn publish(&self, head: Seq) {
        let state = self.machine.state();
        let phase = RunPhase::of(state);
        self.link.status.send_if_modified(|status| {
            if status.head == head {
                return false;
            }
            status.head = head;
            status.phase = phase;
            if status.parked.len() != state.parked().len() || !status.parked.is_empty() {
                let named = state
                    .parked()
                    .iter()
                    .map(|parked| (state.plan().node(parked.node).name.clone(), parked.clone()));
                status.parked = named.collect();
            }
            true
        });
    }

    /// Lossy news for whoever watches.
    fn tell(&self, records: &[RunRecord]) {
        if self.shared.notices.receiver_count() == 0 {
            return;
        }
        let name = |node: &NodeNo| self.machine.state().plan().node(*node).name.clone();
        for record in records {
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

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Launch { node, attempt } => self.launch(node, attempt),
            Command::Probe { node, attempt } => self.probe(node, attempt),
            Command::Undo { node, attempt } => self.undo(node, attempt),
            Command::Signal { node } => {
                if let Some(attempt) = self.attempts.get(&node) {
                    attempt.cancel.cancel();
                }
            }
            Command::Drop { node } => {
                if let Some(attempt) = self.attempts.remove(&node) {
                    attempt.cancel.cancel();
                    attempt.abort.abort();
                }
            }
            Command::Prepare { guard } => self.prepare(guard),
            Command::Unprepare { guard } => drop(self.prepared.remove(&guard)),
            Command::Open { guard } => self.open_lane(guard),
            Command::Reopen { guard } => self.reopen_lane(guard),
            Command::CloseGuard { guard } => {
                if let Some(lane) = self.lanes.get(&guard) {
                    lane.close();
                }
            }
            Command::ReleaseUntil { node } => self.release_until(node),
            Command::Finish => self.over = true,
            Command::Answer { ticket, answer } => {
                if let Some(reply) = self.tickets.remove(&ticket) {
                    // Whoever asked may have gone.
                    drop(reply.send(answer));
                }
            }
        }
    }

    fn release_until(&self, node: NodeNo) {
        let state = self.machine.state();
        let name = &state.plan().node(node).name;
        let claims = &state.submitted().claims;
        let keys: Vec<_> = claims
            .iter()
            .filter(|claim| claim.until.as_ref() == Some(name))
            .map(|claim| claim.key.clone())
            .collect();
        if !keys.is_empty() {
            let _ = self.shared.arbiter.send(ArbiterMail::Release { run: self.link.run, keys });
        }
    }

    fn set_timer(&mut self) {
        let Some(wake) = self.machine.state().next_wake() else {
            self.timer = None;
            return;
        };
        // A timer that fires too early does no harm, so one is made anew only to fire earlier.
        if self.timer.as_ref().is_none_or(|(at, _)| *at > wake) {
            self.timer = Some((wake, self.shared.seams.clock.sleep_until(wake)));
        }
    }

    /// The run has ended: its claims are free, and all who wait are told.
    fn finish(self) {
        let run = self.link.run;
        let _ = self.shared.arbiter.send(ArbiterMail::Release { run, keys: Vec::new() });
        let state = Arc::new(self.machine.into_state());
        let phase = RunPhase::of(&state);
        let head = self.head;
        self.link.status.send_modify(|status| {
            *status =
                super::Status { phase, head, parked: Vec::new(), last: Some(state), broken: None };
        });
        let mut mailbox = self.mailbox;
        mailbox.close();
        while let Ok(mail) = mailbox.try_recv() {
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

    /// The journal has failed: nothing more is launched, guards exit, what runs gets token and grace. The machine is
    /// ahead of its log and is thrown away; the run stays open in the journal.
    async fn give_up(mut self, error: JournalError) {
        for attempt in self.attempts.values() {
            attempt.cancel.cancel();
        }
        for lane in self.lanes.values() {
            lane.close();
        }
        let grace = self.shared.seams.clock.mono() + crate::plan::DEFAULT_GRACE;
        let mut timer = self.shared.seams.clock.sleep_until(grace);
        let mut waiting = true;
        while waiting && !self.attempts.is_empty() || !self.lanes.is_empty() {
            tokio::select! {
                biased;
                mail = self.mailbox.recv() => {
                    if let Some(mail) = mail {
                        let _: Input = self.open(mail);
                    }
                }
                () = &mut timer, if waiting => {
                    waiting = false;
                    for (_, attempt) in self.attempts.drain() {
                        attempt.abort.abort();
                    }
                }
            }
        }
        self.link.status.send_modify(|status| {
            status.phase = RunPhase::Broken;
            status.broken = Some(error);
        });
    }

    /// The cancel token of the next attempt, and the key of a step over all attempts.
    pub(super) fn context(&self, name: &StepName) -> (CxBuilder, Cancel) {
        let cancel = Cancel::new();
        let mut key = String::with_capacity(self.prefix.len() + name.as_str().len());
        key.push_str(&self.prefix);
        key.push_str(name.as_str());
        let mut builder = self
            .base
            .clone()
            .step(name.clone())
            .fence(self.machine.state().fence())
            .cancel(cancel.clone());
        // A run id and a step name together are always a legal key.
        if let Ok(key) = IdempotencyKey::new(key) {
            builder = builder.key(key);
        }
        (builder, cancel)
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
