//! Rules over the journal: who claims what once no engine runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use stillpoint::store_sqlite::SqliteStore;
use stillpoint_context::RunId;
use stillpoint_workflow::{
    ActionRegistry, Claim, Engine, EngineError, Journal as _, JournalError, RunState, Seq,
    StreamId, ThreadLanes, TokioSeams,
};

use super::{Broken, Rule};

/// How many streams or records are read at once.
const PAGE: usize = 1024;

/// Who claims what, and which runs are open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Who holds what.
    pub holders: Vec<(RunId, Vec<Claim>)>,
    /// Who waits for something.
    pub waiting: Vec<RunId>,
    /// Runs that have not ended, and whether they are parked.
    pub open: BTreeMap<RunId, bool>,
}

impl Claimed {
    /// Reads it through an engine that has no actions and writes nothing.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn read(state: &SqliteStore) -> Result<Self, EngineError> {
        let mut open = BTreeMap::new();
        let mut after = None;
        loop {
            let page = state.open(after, PAGE).await.map_err(EngineError::Journal)?;
            let Some(last) = page.last() else { break };
            after = Some(last.stream);
            for stream in page {
                if let StreamId::Run(run) = stream.stream {
                    let is_parked = replay(state, run)
                        .await
                        .map_err(EngineError::Journal)?
                        .is_some_and(|state| !state.parked().is_empty());
                    open.insert(run, is_parked);
                }
            }
        }
        let seams = TokioSeams::current().ok_or(EngineError::Gone)?;
        let journal = Arc::new(state.clone());
        let engine =
            Engine::builder(ActionRegistry::new(), journal, seams, Arc::new(ThreadLanes)).build();
        let holders = engine.holders().await?;
        let waiting = engine.waiting().await?.into_iter().map(|waiting| waiting.run).collect();
        Ok(Self { holders, waiting, open })
    }
}

/// The state of a run, from its records.
///
/// # Errors
/// When the journal cannot be read.
pub(crate) async fn replay(
    state: &SqliteStore,
    run: RunId,
) -> Result<Option<RunState>, JournalError> {
    let mut records = Vec::new();
    loop {
        let from = Seq(records.len() as u64);
        let page = state.read(&StreamId::Run(run), from, PAGE).await?;
        if page.is_empty() {
            break;
        }
        records.extend(page);
    }
    Ok(RunState::replay(records.iter().map(|stored| (stored.at.mono, &stored.record))))
}

/// No claim is held, and none waited for, without a run that is parked: no engine runs, so none is live.
pub fn claims_are_of_parked_runs(claimed: &Claimed) -> Vec<Broken> {
    let trouble = |run: &RunId| match claimed.open.get(run) {
        None => Some("is not open"),
        Some(false) => Some("is open and not parked"),
        Some(true) => None,
    };
    let mut broken = Vec::new();
    for (run, claims) in &claimed.holders {
        if let Some(trouble) = trouble(run) {
            let keys: Vec<_> = claims.iter().map(|claim| claim.key.as_str()).collect();
            let message = format!("run {run} holds {} and {trouble}", keys.join(", "));
            broken.push(Broken::new(Rule::Claims, message));
        }
    }
    for run in &claimed.waiting {
        if let Some(trouble) = trouble(run) {
            broken.push(Broken::new(Rule::Claims, format!("run {run} waits and {trouble}")));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use uuid::Uuid;

    use super::*;

    fn run(number: u128) -> RunId {
        RunId(Uuid::from_u128(number))
    }

    fn claims() -> Vec<Claim> {
        vec![Claim::exclusive("db/1/live".parse().unwrap())]
    }

    #[test]
    fn claims_of_parked_runs_are_good() {
        let claimed = Claimed {
            holders: vec![(run(1), claims())],
            waiting: vec![run(2)],
            open: BTreeMap::from([(run(1), true), (run(2), true)]),
        };
        assert_eq!(claims_are_of_parked_runs(&claimed), []);
        // A run that has no claims needs none.
        let open = BTreeMap::from([(run(3), false)]);
        assert_eq!(claims_are_of_parked_runs(&Claimed { open, ..Claimed::default() }), []);
    }

    #[test]
    fn a_claim_without_a_run_and_one_of_a_run_that_nobody_carries_on_are_seen() {
        for open in [BTreeMap::new(), BTreeMap::from([(run(1), false)])] {
            let holds = Claimed {
                holders: vec![(run(1), claims())],
                open: open.clone(),
                ..Claimed::default()
            };
            assert_eq!(claims_are_of_parked_runs(&holds).len(), 1, "{open:?}");
            let waits = Claimed { waiting: vec![run(1)], open, ..Claimed::default() };
            assert_eq!(claims_are_of_parked_runs(&waits).len(), 1);
        }
    }
}
