//! Looking at the journal from outside: every open run, and every claim, of all processes. Nothing is changed, and no lease is
//! needed.

use chrono::{DateTime, Utc};
use stillpoint_context::{Failure, ProcessId, RunId, StepName};

use super::{Engine, EngineError};
use crate::claim::Claim;
use crate::driver::read_snapshot;
use crate::journal::{JournalError, Seq, Stored, StreamId, read_run};
use crate::machine::{
    ArbiterMachine, Claimant, GrantPolicy, ParkReason, Parked, Record, RunRecord, RunState, Waiting,
};
use crate::plan::{NodeKind, NodeNo};

/// How many streams or records are read at once.
const PAGE: u64 = 1024;

/// A run that has not ended, as the journal has it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenRun {
    /// The run.
    pub run: RunId,
    /// The process that wrote of it last.
    pub owner: ProcessId,
    /// What is known of it; not readable where it is of a newer format, or damaged.
    pub account: Result<RunAccount, JournalError>,
}

/// A run as the journal has it, with the times that people read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunAccount {
    /// Its state.
    pub state: RunState,
    /// When it was submitted.
    pub submitted_at: DateTime<Utc>,
    /// When it got its claims.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was last written of.
    pub written_at: DateTime<Utc>,
    /// What of it waits for a person, in the order of its parking.
    pub parked: Vec<ParkedNode>,
}

/// A step or guard that waits for a person.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParkedNode {
    /// Its name.
    pub step: StepName,
    /// Why.
    pub reason: ParkReason,
    /// What failed last.
    pub failure: Failure,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// Who holds what, and who waits for whom, as the journal has it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Claims {
    /// The runs that hold claims, in line, with what they hold.
    pub holders: Vec<(RunId, Vec<Claim>)>,
    /// The runs that wait, in line, with what they wait for.
    pub waiting: Vec<Waiting>,
    /// What the runs that wait have asked for.
    pub wanted: Vec<(RunId, Vec<Claim>)>,
}

impl Engine {
    /// Every run of the journal that has not ended, of all processes, also of those that are gone, in the order of their ids.
    /// Changes nothing: a run that nobody carries stays as it is until somebody [recovers](Self::recover) it.
    ///
    /// A run whose plan names an action that this process does not have is given as parked for it.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when the journal cannot be read. A single run that cannot be is among the answers.
    ///
    /// # Complexity
    /// O(records of the open runs).
    pub async fn open_runs(&self) -> Result<Vec<OpenRun>, EngineError> {
        let journal = &self.0.shared.core.journal;
        let mut open = Vec::new();
        let mut after = None;
        loop {
            let max = usize::try_from(PAGE).unwrap_or(usize::MAX);
            let page = journal.open(after, max).await.map_err(EngineError::Journal)?;
            let Some(last) = page.last() else { return Ok(open) };
            after = Some(last.stream);
            for stream in page {
                let StreamId::Run(run) = stream.stream else { continue };
                let account = match self.account(run).await {
                    // It has ended meanwhile.
                    Ok(Some(account)) if account.state.end().is_some() => continue,
                    Ok(Some(account)) => Ok(account),
                    Ok(None) => continue,
                    Err(EngineError::Journal(
                        error @ (JournalError::Format { .. } | JournalError::Corrupt(_)),
                    )) => Err(error),
                    Err(error) => return Err(error),
                };
                open.push(OpenRun { run, owner: stream.owner, account });
            }
        }
    }

    /// What the journal has of a run, open or ended; nothing if it has no such run.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when it cannot be read.
    ///
    /// # Complexity
    /// O(records of the run).
    pub async fn account(&self, run: RunId) -> Result<Option<RunAccount>, EngineError> {
        let read = read_run(&*self.0.shared.core.journal, run).await;
        let Some((state, stored)) = read.map_err(EngineError::Journal)? else { return Ok(None) };
        Ok(Some(self.tell_of(state, &stored)))
    }

    fn tell_of(&self, state: RunState, stored: &[Stored]) -> RunAccount {
        let submitted_at = stored.first().map(|first| first.at.civil).unwrap_or_default();
        let written_at = stored.last().map_or(submitted_at, |last| last.at.civil);
        let mut started_at = None;
        let mut since: Vec<(NodeNo, DateTime<Utc>)> = Vec::new();
        for stored in stored {
            match &stored.record {
                Record::Run(RunRecord::Started { .. }) => started_at = Some(stored.at.civil),
                Record::Run(RunRecord::Parked(parked)) => {
                    since.push((parked.node, stored.at.civil));
                }
                Record::Run(RunRecord::Guarded { guard, .. }) => {
                    since.push((*guard, stored.at.civil));
                }
                _ => {}
            }
        }
        let latest = |node: NodeNo| {
            let known = since.iter().rev().find(|(parked, _)| *parked == node);
            known.map_or(written_at, |(_, at)| *at)
        };
        let named = |parked: &Parked| ParkedNode {
            step: state.plan().node(parked.node).name.clone(),
            reason: parked.reason,
            failure: (*parked.failure).clone(),
            since: latest(parked.node),
        };
        let mut parked: Vec<_> = state.parked().iter().map(named).collect();
        if state.end().is_none() {
            parked.extend(self.lacking(&state, written_at));
        }
        RunAccount { state, submitted_at, started_at, written_at, parked }
    }

    /// What this process lacks to carry a run.
    fn lacking(&self, state: &RunState, since: DateTime<Utc>) -> Option<ParkedNode> {
        if state.plan().is_ephemeral() {
            return None;
        }
        state.plan().nodes().iter().find_map(|node| {
            let NodeKind::Step(step) = &node.kind else { return None };
            if self.0.shared.registry.find(&step.action, step.version).is_some() {
                return None;
            }
            let (name, action) = (node.name.clone(), step.action.to_string());
            let error = EngineError::UnknownAction { step: name, action, version: step.version };
            Some(ParkedNode {
                step: node.name.clone(),
                reason: ParkReason::UnknownAction,
                failure: Failure::of(&error),
                since,
            })
        })
    }

    /// Every claim of the journal, of all processes: who holds it, who waits for it. Changes nothing.
    ///
    /// A run that has ended may still be among the holders when its process went before it let go; the next
    /// [recovery](Self::recover) frees what it holds.
    ///
    /// # Errors
    /// [`EngineError::Journal`] when the journal cannot be read.
    ///
    /// # Complexity
    /// O(records of the arbiter since its last snapshot).
    pub async fn claims(&self) -> Result<Claims, EngineError> {
        let machine = self.arbiter().await.map_err(EngineError::Journal)?;
        let state = machine.state();
        let holders = state.holders().map(|(run, claims)| (run, claims.to_vec())).collect();
        let wanted = state.claimants().filter(|claimant| claimant.token.is_none());
        let wanted = wanted.map(|Claimant { run, claims, .. }| (run, claims)).collect();
        Ok(Claims { holders, waiting: state.waiting(), wanted })
    }

    /// The arbiter's state, read from its last snapshot on.
    async fn arbiter(&self) -> Result<ArbiterMachine, JournalError> {
        let journal = &self.0.shared.core.journal;
        let anew = async || {
            let (state, _) = read_snapshot(&**journal, GrantPolicy::Strict).await?;
            Ok::<_, JournalError>(ArbiterMachine::of(state, GrantPolicy::Strict))
        };
        let mut machine = anew().await?;
        loop {
            let from = Seq(machine.state().head());
            let max = usize::try_from(PAGE).unwrap_or(usize::MAX);
            let stored = journal.read(&StreamId::Arbiter, from, max).await?;
            let Some(first) = stored.first() else { return Ok(machine) };
            if first.seq != from {
                // What came in between was forgotten meanwhile: a later snapshot has it.
                machine = anew().await?;
                continue;
            }
            for stored in stored {
                if let Record::Arbiter(record) = stored.record {
                    machine.apply(&record);
                }
            }
        }
    }
}
