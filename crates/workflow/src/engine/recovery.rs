//! Carrying on with what somebody left open: this process when it was another, or one that is gone.
//!
//! ```text
//!   open streams ─▶ whose owner is gone, or is ours ─▶ read ─▶ new tokens from the arbiter ─▶ drivers
//!                        │                              │
//!                        └ alive: left alone            └ cannot be read: listed, claims kept
//! ```
//!
//! A process is gone when its lease has ended and the margin has gone by, or when the store knows that it has died. It is
//! fenced off first: from then on the journal refuses every word of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::stream::{self, StreamExt};
use stillpoint_context::{FencingToken, ProcessId, RunId};
use tokio::sync::oneshot;

use super::{Engine, EngineError, RunHandle};
use crate::action::AnyAction;
use crate::driver::{Actions, ArbiterMail, Carry, Mailbox, Request, RunLink, RunTask};
use crate::journal::{JournalError, OpenStream, Seq, Stored, StreamId, open_stream, read_run};
use crate::lease::Fencing;
use crate::machine::RunState;
use crate::plan::{NodeKind, NodeNo, Plan};

/// How many streams are read at once.
const PAGE: usize = 1024;

/// How many runs are read at once: a store may have several readers, and reading is mostly decoding.
const AT_ONCE: usize = 32;

/// What a recovery found open.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// Runs that this engine carries on, those that owe an exit first.
    pub runs: Vec<RunHandle>,
    /// Runs of other processes that are alive.
    pub elsewhere: Vec<(RunId, ProcessId)>,
    /// Runs that cannot be read: of a newer format, or damaged. They keep what they claim.
    pub unreadable: Vec<(RunId, JournalError)>,
}

/// A run as it was found.
struct Found {
    state: RunState,
    first: Option<Stored>,
    head: Seq,
    written: DateTime<Utc>,
    actions: Actions,
    lacking: Option<NodeNo>,
}

/// What a look at a listed run brings.
enum Find {
    /// It is open, and its process is gone.
    Open(Box<Found>),
    /// It has ended since.
    Over,
    /// Another process has taken it.
    Elsewhere(ProcessId),
}

/// A run that is about to be carried on.
struct Taken {
    found: Found,
    link: Arc<RunLink>,
    mailbox: Mailbox,
}

impl Engine {
    /// Carries on with every open run of the journal whose process is gone: owed exits first, then what was at work is asked
    /// about, then it is undone or goes on. Runs of this engine, and of processes that are alive, are left alone.
    ///
    /// A run whose plan names an action that this process does not have is parked: its owed exits are carried out, nothing
    /// else.
    ///
    /// # Errors
    /// Of the journal and its leases; what was taken by then is carried on.
    ///
    /// # Idempotence
    /// May be repeated at any time; also two processes may do it at once, each run is carried on by one of them.
    ///
    /// # Cancel safety
    /// Dropped, some runs may have been taken and others not.
    ///
    /// # Complexity
    /// O(records of the open runs).
    pub async fn recover(&self) -> Result<Recovery, EngineError> {
        let shared = &self.0.shared;
        let _one = self.0.recovering.lock().await;
        if !self.is_open() {
            return Err(EngineError::Closing);
        }
        shared.lease.ensure(&shared.seams).await.map_err(EngineError::Journal)?;
        let mut recovery = Recovery::default();
        let mut found = Vec::new();
        let mut open = BTreeSet::new();
        let mut gone: HashMap<ProcessId, bool> = HashMap::new();
        let mut after = None;
        loop {
            let page = shared.journal.open(after, PAGE).await.map_err(EngineError::Journal)?;
            let Some(last) = page.last() else { break };
            after = Some(last.stream);
            let mut orphans = Vec::new();
            for stream in page {
                let StreamId::Run(run) = stream.stream else { continue };
                open.insert(run);
                if self.lock().by_id.get(&run).is_some_and(|link| !link.is_over()) {
                    continue;
                }
                let is_gone = match gone.get(&stream.owner) {
                    Some(known) => *known,
                    None => self.fence(stream.owner).await?,
                };
                gone.insert(stream.owner, is_gone);
                if !is_gone {
                    recovery.elsewhere.push((run, stream.owner));
                    continue;
                }
                orphans.push((run, stream));
            }
            let finds =
                orphans.into_iter().map(async |(run, listed)| (run, self.find(run, listed).await));
            let mut finds = stream::iter(finds).buffered(AT_ONCE);
            while let Some((run, find)) = finds.next().await {
                match find {
                    Ok(Find::Open(run)) => found.push(*run),
                    Ok(Find::Over) => {}
                    Ok(Find::Elsewhere(owner)) => recovery.elsewhere.push((run, owner)),
                    Err(
                        error @ (JournalError::Format { .. }
                        | JournalError::PlanFormat { .. }
                        | JournalError::Corrupt(_)),
                    ) => {
                        tracing::error!(%run, %error, "an open run cannot be read");
                        recovery.unreadable.push((run, error));
                    }
                    Err(error) => return Err(EngineError::Journal(error)),
                }
            }
        }
        // Owed exits first.
        found.sort_by_key(|found| !found.state.owes_exit());
        self.lock().unreadable = recovery.unreadable.iter().cloned().collect();
        let (runs, lost) = self.carry_on(found).await?;
        recovery.runs = runs;
        for run in lost {
            match self.stream(run).await? {
                Some(stream) => recovery.elsewhere.push((run, stream.owner)),
                // Asked for once more here after it had let go.
                None => {
                    let _ = shared.arbiter.send(ArbiterMail::Forget { runs: vec![run] });
                }
            }
        }
        self.let_go_for_the_dead(&open).await?;
        Ok(recovery)
    }

    /// Whether no other process on the journal's store is alive. Those that are gone are fenced off by this.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when the leases cannot be read or ended.
    pub async fn is_alone(&self) -> Result<bool, EngineError> {
        Ok(self.others().await?.is_empty())
    }

    /// The other processes on the journal's store that are alive, each with the epoch of its lease. Those that are gone are fenced
    /// off by this: of an epoch that is not among these and not ours nothing is heard any more.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when the leases cannot be read or ended.
    pub async fn others(&self) -> Result<BTreeSet<(ProcessId, u64)>, EngineError> {
        let mut others = BTreeSet::new();
        let Some(leases) = self.0.shared.lease.leases() else { return Ok(others) };
        for lease in leases.leases().await.map_err(EngineError::Journal)? {
            if !self.fence(lease.process).await? {
                others.insert((lease.process, lease.epoch));
            }
        }
        Ok(others)
    }

    /// Whether this process may still speak for its runs: for those who keep records of their own beside the journal, which
    /// refuses the words of a process that was taken over by itself. An engine that has not begun, that needs no lease or that
    /// has given its own back may.
    ///
    /// # Errors
    /// [`EngineError::Journal`] with [`JournalError::Fenced`] when another process has taken over, and when the leases cannot
    /// be read.
    pub async fn check_lease(&self) -> Result<(), EngineError> {
        self.0.shared.lease.check().await.map_err(EngineError::Journal)
    }

    /// In whose name this engine writes: its process, and the epoch of the lease that it has taken and not given back. For
    /// those who keep records of their own in the store that keeps the leases, and look at the lease as they write.
    pub fn lease(&self) -> Option<(ProcessId, u64)> {
        let lease = &self.0.shared.lease;
        lease.held_epoch().map(|epoch| (self.0.shared.owner, epoch))
    }

    /// The same as [`lease`](Self::lease), of an engine that takes one if it has none and is not closing: whoever looks for it
    /// finds that it is alive.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when there is none to be had, as another process has taken over or the leases cannot be changed.
    pub async fn hold_lease(&self) -> Result<Option<(ProcessId, u64)>, EngineError> {
        let shared = &self.0.shared;
        if self.is_open() {
            shared.lease.ensure(&shared.seams).await.map_err(EngineError::Journal)?;
        }
        Ok(self.lease())
    }

    /// Whether a process is gone; it cannot come back then.
    async fn fence(&self, owner: ProcessId) -> Result<bool, EngineError> {
        let lease = &self.0.shared.lease;
        let Some(leases) = lease.leases() else { return Ok(true) };
        if owner == self.0.shared.owner {
            return Ok(true);
        }
        let now = self.0.shared.seams.clock.boot();
        let fencing = leases.fence(owner, now, lease.margin()).await;
        Ok(fencing.map_err(EngineError::Journal)? == Fencing::Fenced)
    }

    async fn stream(&self, run: RunId) -> Result<Option<OpenStream>, EngineError> {
        open_stream(&*self.0.shared.journal, run).await.map_err(EngineError::Journal)
    }

    /// Reads a run whose process is gone, as it was listed. If somebody has written to it since, that is who carries it on.
    async fn find(&self, run: RunId, listed: OpenStream) -> Result<Find, JournalError> {
        let mut listed = listed;
        loop {
            let found = self.read_run(run).await?;
            let Some(found) = found else { return Ok(Find::Over) };
            if found.head == listed.head {
                return Ok(Find::Open(Box::new(found)));
            }
            match open_stream(&*self.0.shared.journal, run).await? {
                // Its last words, from before it was fenced off.
                Some(now) if now.owner == listed.owner => listed = now,
                Some(now) => return Ok(Find::Elsewhere(now.owner)),
                None => return Ok(Find::Over),
            }
        }
    }

    async fn read_run(&self, run: RunId) -> Result<Option<Found>, JournalError> {
        let Some((state, stored)) = read_run(&*self.0.shared.journal, run).await? else {
            return Ok(None);
        };
        let written = stored.last().map(|stored| stored.at.civil).unwrap_or_default();
        let head = Seq(stored.len() as u64);
        let first = stored.into_iter().next();
        if state.end().is_some() {
            return Ok(None);
        }
        let (actions, lacking) = self.actions_at_hand(state.plan());
        Ok(Some(Found { state, first, head, written, actions, lacking }))
    }

    /// The actions that this process has, and the first node of one that it has not.
    fn actions_at_hand(&self, plan: &Plan) -> (Actions, Option<NodeNo>) {
        let mut lacking = None;
        let of = |(at, node): (usize, &crate::plan::Node)| -> Option<Arc<dyn AnyAction>> {
            let NodeKind::Step(step) = &node.kind else { return None };
            let action = self.0.shared.registry.find(&step.action, step.version);
            if action.is_none() {
                lacking.get_or_insert(NodeNo::at(at));
            }
            action
        };
        let actions: Actions = plan.nodes().iter().enumerate().map(of).collect();
        (actions, lacking)
    }

    /// Gets new tokens for runs and starts their drivers, in this order. Gives those that are carried on here, once that is
    /// in the journal, and those that another process was faster to take.
    async fn carry_on(
        &self,
        found: Vec<Found>,
    ) -> Result<(Vec<RunHandle>, Vec<RunId>), EngineError> {
        let shared = &self.0.shared;
        if found.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut taken = Vec::new();
        for mut found in found {
            let (link, mailbox) = self.link(&found.state);
            if let Some(first) = found.first.take() {
                link.begin(first);
            }
            link.set_head(found.head);
            link.status.send_modify(|status| status.phase = super::RunPhase::of(&found.state));
            let mut runs = self.lock();
            if runs.by_id.get(&link.run).is_some_and(|known| !known.is_over()) {
                continue;
            }
            let digest = link.key.as_ref().and_then(|_| found.state.submitted().digest().ok());
            runs.enter(&link, digest.as_deref());
            drop(runs);
            taken.push(Taken { found, link, mailbox });
        }
        let requests = taken.iter().map(|taken| {
            let submitted = taken.found.state.submitted();
            let (claims, head_start) = (submitted.claims.clone(), submitted.head_start);
            Request { run: submitted.run, claims, head_start, mail: taken.link.mail.clone() }
        });
        let (reply, tokens) = oneshot::channel();
        let adopt = ArbiterMail::Adopt { requests: requests.collect(), reply };
        let sent = shared.arbiter.send(adopt);
        let tokens = match sent {
            Ok(()) => tokens.await.map_err(|_| EngineError::Gone),
            Err(_) => Err(EngineError::Gone),
        };
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(error) => {
                for taken in &taken {
                    self.leave(&taken.link, error.clone());
                }
                return Err(error);
            }
        };
        let now = shared.seams.clock.now();
        let begun: Vec<_> =
            taken.into_iter().map(|taken| self.start(taken, &tokens, now)).collect();
        let (mut runs, mut lost) = (Vec::new(), Vec::new());
        for (link, ours) in begun {
            // A driver that ends before it knows has told its handle why.
            if ours.await.unwrap_or(true) {
                runs.push(RunHandle::new(link));
            } else {
                self.leave(&link, EngineError::Gone);
                lost.push(link.run);
            }
        }
        Ok((runs, lost))
    }

    fn start(
        &self,
        taken: Taken,
        tokens: &HashMap<RunId, FencingToken>,
        now: DateTime<Utc>,
    ) -> (Arc<RunLink>, oneshot::Receiver<bool>) {
        let Taken { found, link, mailbox } = taken;
        let Found { state, head, written, actions, lacking, .. } = found;
        let shared = &self.0.shared;
        let fence = tokens.get(&state.run()).copied().unwrap_or_else(|| state.fence());
        // Civil time may have been set back meanwhile; then nothing is known to have gone by.
        let elapsed = (now - written).to_std().unwrap_or(Duration::ZERO);
        let task =
            RunTask::new(Arc::clone(shared), Arc::clone(&link), mailbox, state, actions, head);
        let task = match lacking {
            Some(node) => task.without_action(node),
            None => task,
        };
        let (taken, ours) = oneshot::channel();
        let task = task.taking(taken);
        shared
            .seams
            .spawner
            .spawn("run", Box::pin(Box::new(task).run(Carry::On { fence, elapsed })));
        (link, ours)
    }

    /// Frees what is claimed for runs that have ended: their process went before it could.
    async fn let_go_for_the_dead(&self, open: &BTreeSet<RunId>) -> Result<(), EngineError> {
        let journal = &self.0.shared.core.journal;
        let mut dead = Vec::new();
        for run in self.lines().await?.claimants {
            if open.contains(&run) || self.lock().by_id.get(&run).is_some_and(|l| !l.is_over()) {
                continue;
            }
            let stream = StreamId::Run(run);
            let head = journal.head(&stream).await.map_err(EngineError::Journal)?;
            let Some(last) = head.0.checked_sub(1) else {
                dead.push(run);
                continue;
            };
            let last = journal.read(&stream, Seq(last), 1).await.map_err(EngineError::Journal)?;
            if last.last().is_some_and(|stored| stored.record.ends_run()) {
                dead.push(run);
            }
        }
        if !dead.is_empty() {
            tracing::info!(runs = dead.len(), "claims of ended runs are let go");
            let _ = self.0.shared.arbiter.send(ArbiterMail::Forget { runs: dead });
        }
        Ok(())
    }

    /// The handle of a run that this engine may not carry: one that it leads, or can lead, or one that only watches.
    pub(super) async fn handle_of(&self, run: RunId) -> Result<RunHandle, EngineError> {
        if let Some(handle) = self.run(run) {
            return Ok(handle);
        }
        self.recover().await?;
        match self.run(run) {
            Some(handle) => Ok(handle),
            None => self.watch(run).await,
        }
    }
}

impl RunState {
    /// Whether it has a guard that must be exited first of all.
    fn owes_exit(&self) -> bool {
        (0..self.plan().nodes().len()).any(|at| self.is_armed(NodeNo::at(at)))
    }
}
