//! Steps of a log backup: the logs that are closed, without a session and without a freeze.
//!
//! What is closed is never written again, so a snapshot needs nobody to stand still. What can happen is that Exchange truncates
//! a log between the question and the snapshot; so the question is asked again afterwards, and only what is there both times
//! was there in between.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_catalog::{CatalogExt, PointQuery};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, Subject};
use stillpoint_exchange::{
    ClosedLogs, CopyEvidence, EvidenceGrain, RequiredFile, Session, SessionSpec, SetOutcome,
};
use stillpoint_model::availability::ranges;
use stillpoint_model::chain::Chains;
use stillpoint_model::fork::{LogChain, branch_after};
use stillpoint_model::id::{CopyId, PointId};
use stillpoint_model::inventory::{CopyFile, Generation, LogState};
use stillpoint_model::point::{PointFact, Truncation};
use stillpoint_model::quiesce::{Held, QuiesceLevel};
use stillpoint_workflow::{Action, Done, EffectKind};

use super::session::stale;
use crate::pump;
use crate::services::Services;

/// What is to be taken, and when that was decided.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ClosedParams {
    pub(crate) spec: SessionSpec,
    pub(crate) planned_at: DateTime<Utc>,
}

/// Asks for the closed logs, and chooses those that go on from what is stored.
///
/// Its answer has the form of a session, as it says the same to the steps that follow: what the snapshots must hold. No
/// session is begun. The log states of the copies travel in its opaque part.
#[derive(Debug)]
pub(crate) struct Closed(pub(crate) Arc<Services>);

#[async_trait]
impl Action for Closed {
    const NAME: &'static str = "exchange.closed_logs";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ClosedParams;
    type Input = ();
    type Output = Session;

    async fn run(
        &self,
        cx: &Cx,
        ClosedParams { spec, planned_at }: &ClosedParams,
        (): (),
    ) -> Result<Done<Session>, Failure> {
        let mut files = Vec::new();
        let mut states = BTreeMap::new();
        let mut gaps = Vec::new();
        for copy in &spec.copies {
            let ClosedLogs { state, files: closed, .. } =
                self.0.plugin.closed_logs(cx, copy).await?;
            let stored = self.stored_to(copy, &state, *planned_at).await?;
            let (chosen, gap) = going_on(closed, stored);
            if chosen.is_empty() {
                return Err(nothing_closed(copy));
            }
            gaps.extend(gap.map(|missing| truncated_before(copy, &missing)));
            files.extend(chosen.iter().map(|file| RequiredFile::of(copy.clone(), file)));
            let _none = states.insert(copy.clone(), told(copy, state)?);
        }
        let opaque = serde_json::to_vec(&states).map_err(|error| unreadable(&error))?;
        let session = Session::new(spec, files, cx.now()).with_opaque(opaque);
        Ok(gaps.into_iter().fold(Done::new(session), Done::with_warning))
    }
}

impl Closed {
    /// How far the stored logs of a copy's stream reach from the newest point that logs can be built on.
    async fn stored_to(
        &self,
        copy: &CopyId,
        state: &LogState,
        planned_at: DateTime<Utc>,
    ) -> Result<Option<Generation>, Failure> {
        let query = PointQuery::of(copy.database);
        let points = self.0.catalog.all_points(&query).await.map_err(|e| Failure::of(&e))?;
        let forks = self.0.catalog.forks(copy.database).await.map_err(|e| Failure::of(&e))?;
        if forks.iter().any(|fork| fork.at > planned_at) {
            // It waited for a restore. What was planned goes on from what is no more.
            return Err(stale(&format!("the log chain of {copy} has forked since")));
        }
        let chain = LogChain { signature: state.signature, branch: branch_after(&forks) };
        Ok(Chains::stored_to(copy.database, &points, chain))
    }
}

/// The log state of a copy, with all that a point of its logs has to know.
fn told(copy: &CopyId, mut state: LogState) -> Result<LogState, Failure> {
    if state.closed_at.is_none() {
        return Err(Failure::new(
            "exchange.closing_unknown",
            ErrorClass::Internal,
            format!("the plug-in does not say when the last closed log of {copy} was closed"),
        )
        .with_effect(Effect::None)
        .with_remedy("Nobody could say what the backup reaches to: mend the plug-in."));
    }
    // A point of logs alone has no database that needs any.
    state.required = None;
    Ok(state)
}

/// The closed logs that go on from the last one that is stored, which is taken once more so that they surely join, and the
/// generations that are missing in between. Logs that are followed by a gap are left.
fn going_on(
    closed: Vec<CopyFile>,
    stored: Option<Generation>,
) -> (Vec<CopyFile>, Option<RangeInclusive<Generation>>) {
    let last = closed.iter().filter_map(|file| file.generation).max();
    // What is stored may include the log that is being written, or more than a copy has that lags behind.
    let from = stored.min(last);
    let is_wanted = |file: &CopyFile| file.generation.is_some() && file.generation >= from;
    let mut chosen: Vec<CopyFile> = closed.into_iter().filter(is_wanted).collect();
    chosen.sort_by_key(|file| file.generation);
    let behind_gap = chosen.windows(2).rposition(|two| {
        let next = two[0].generation.and_then(Generation::next);
        next != two[1].generation
    });
    drop(chosen.drain(..behind_gap.map_or(0, |at| at + 1)));
    let first = chosen.first().and_then(|file| file.generation);
    let missing = stored.and_then(Generation::next).zip(first).filter(|(next, first)| next < first);
    let missing = missing.and_then(|(next, first)| Some(next..=first.previous()?));
    (chosen, missing)
}

fn nothing_closed(copy: &CopyId) -> Failure {
    Failure::new(
        "backup.no_closed_logs",
        ErrorClass::Conflict,
        format!("{copy} has no closed log to back up"),
    )
    .with_effect(Effect::None)
    .with_subject(Subject::new("copy", copy))
    .with_remedy("Nothing is lost: the log being written is taken when it is closed.")
}

fn truncated_before(copy: &CopyId, missing: &RangeInclusive<Generation>) -> Failure {
    Failure::new(
        "chain.gap",
        ErrorClass::Integrity,
        format!(
            "log generation {} of {copy} was truncated before it was stored",
            ranges(std::slice::from_ref(missing))
        ),
    )
    .with_effect(Effect::None)
    .with_subject(Subject::new("copy", copy))
    .with_remedy("Make a full backup; find out what else truncates the logs of this database.")
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new("plan.internal", ErrorClass::Internal, format!("the log states: {error}"))
}

/// Looks whether everything that was chosen is still there, now that the snapshots are taken.
#[derive(Debug)]
pub(crate) struct StillThere(pub(crate) Arc<Services>);

#[async_trait]
impl Action for StillThere {
    const NAME: &'static str = "exchange.logs_still_there";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ();
    type Input = Session;
    type Output = SetOutcome;

    async fn run(&self, cx: &Cx, (): &(), chosen: Session) -> Result<Done<SetOutcome>, Failure> {
        let states: BTreeMap<CopyId, LogState> =
            serde_json::from_slice(&chosen.opaque).map_err(|error| unreadable(&error))?;
        let mut outcome = SetOutcome::new(QuiesceLevel::AtRest, EvidenceGrain::PerDatabase);
        for (copy, state) in states {
            let now = self.0.plugin.closed_logs(cx, &copy).await?;
            let there = |file: &&RequiredFile| {
                now.files
                    .iter()
                    .any(|known| known.path == file.path && known.generation == file.generation)
            };
            let mut mine = chosen.files.iter().filter(|file| file.copy == copy);
            if now.state.signature != state.signature || !mine.all(|file| there(&file)) {
                return Err(stale(&format!("logs of {copy} went while they were backed up"))
                    .with_subject(Subject::new("copy", &copy)));
            }
            let evidence = CopyEvidence::new(Held::Yes).with_log_state(state);
            let _none = outcome.copies.insert(copy, evidence);
        }
        Ok(Done::new(outcome))
    }
}

/// The points become available: there is nobody to be told.
#[derive(Debug)]
pub(crate) struct Conclude;

#[async_trait]
impl Action for Conclude {
    const NAME: &'static str = "backup.conclude";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ();
    type Input = BTreeMap<CopyId, PointId>;
    type Output = ();

    async fn run(
        &self,
        cx: &Cx,
        (): &(),
        points: BTreeMap<CopyId, PointId>,
    ) -> Result<Done<()>, Failure> {
        let mut done = Done::new(());
        for point in points.into_values() {
            let truncation = Truncation::NotRequested;
            let over = PointFact::Completed { point, at: cx.now(), truncation };
            done = done.with_fact(pump::fact(&over)?);
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use stillpoint_context::{HostPath, PathFlavor};
    use stillpoint_model::inventory::FileRole;

    use super::*;

    fn logs(generations: &[u32]) -> Vec<CopyFile> {
        let file = |generation: &u32| {
            let name = format!("/logs/E00{generation:08X}.log");
            let path = HostPath::new("lab".parse().unwrap(), PathFlavor::Posix, name).unwrap();
            CopyFile::new(path, FileRole::Log).with_generation(Generation(*generation))
        };
        generations.iter().map(file).collect()
    }

    #[track_caller]
    fn chosen(there: &[u32], stored: Option<u32>) -> (Vec<u32>, Option<RangeInclusive<u32>>) {
        let (files, gap) = going_on(logs(there), stored.map(Generation));
        let generations = files.iter().map(|file| file.generation.unwrap().0).collect();
        (generations, gap.map(|gap| gap.start().0..=gap.end().0))
    }

    #[test]
    fn a_log_backup_goes_on_from_what_is_stored() {
        assert_eq!(chosen(&[3, 4, 5, 6], Some(4)), (vec![4, 5, 6], None));
        assert_eq!(
            chosen(&[6, 5, 4], Some(4)),
            (vec![4, 5, 6], None),
            "in whatever order they come"
        );
        assert_eq!(chosen(&[5, 6], Some(4)), (vec![5, 6], None), "the stored one was truncated");
        assert_eq!(
            chosen(&[3, 4], Some(4)),
            (vec![4], None),
            "nothing new shows that nothing came"
        );
        assert_eq!(chosen(&[3, 4], None), (vec![3, 4], None));
        assert_eq!(chosen(&[3, 4], Some(9)), (vec![4], None), "a copy that lags behind");
        assert_eq!(chosen(&[], None), (vec![], None));
    }

    #[test]
    fn what_is_missing_is_told_and_what_lies_before_it_is_left() {
        assert_eq!(chosen(&[7, 8], Some(4)), (vec![7, 8], Some(5..=6)));
        assert_eq!(chosen(&[4, 5, 7, 8], Some(4)), (vec![7, 8], Some(5..=6)));
        assert_eq!(chosen(&[4, 5, 7, 8], None), (vec![7, 8], None));
    }
}
