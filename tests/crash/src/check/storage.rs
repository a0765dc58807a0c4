//! Rules over what lies in the store and what the state file says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use stillpoint::catalog::{Debris, DebrisKind};
use stillpoint::model::job::{Job, JobState};
use stillpoint::model::point::RestorePoint;
use stillpoint_context::RunId;
use stillpoint_model::id::{ExposureKey, SetToken};
use stillpoint_model::quiesce::Consistency;

use super::{Broken, Rule};
use crate::ledger::{Line, What};
use crate::mail::beats_below;

/// How far a set in the store has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetState {
    /// Prepared, maybe taken.
    Partial,
    /// Durable.
    Settled,
    /// On its way out.
    Discarded,
}

/// What lies in the store's folder, read as files: nothing of the provider is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// The folder of the sets.
    pub folder: PathBuf,
    /// The sets, by token.
    pub sets: BTreeSet<(SetToken, SetState)>,
    /// The exposures that are open.
    pub exposures: BTreeSet<ExposureKey>,
}

impl OnDisk {
    /// Reads a store; one that was never made is empty.
    ///
    /// # Errors
    /// What the file system says, and for a name that is none of the provider's.
    pub fn read(store: &Path) -> io::Result<Self> {
        let mut found = Self { folder: store.join("sets"), ..Self::default() };
        for name in names(&found.folder)? {
            let (token, state) = match name.rsplit_once('.') {
                Some((token, "partial")) => (token, SetState::Partial),
                Some((token, "discarded")) => (token, SetState::Discarded),
                _ => (name.as_str(), SetState::Settled),
            };
            found.sets.insert((token.parse().map_err(io::Error::other)?, state));
        }
        for name in names(&store.join("exposures"))? {
            // One that is being written begins with a dot.
            if let Some(key) = name.strip_suffix(".json").filter(|name| !name.starts_with('.')) {
                found.exposures.insert(key.parse().map_err(io::Error::other)?);
            }
        }
        Ok(found)
    }

    /// Where the files of a settled set lie.
    pub fn files_of(&self, token: &SetToken) -> PathBuf {
        self.folder.join(token.as_str())
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Sets on storage = sets of restore points ∪ debris, but for what a parked run holds and what does not exist any more although
/// debris says that it might.
pub fn sets_are_accounted_for(
    disk: &OnDisk,
    points: &[RestorePoint],
    debris: &[Debris],
    parked: &BTreeSet<RunId>,
) -> Vec<Broken> {
    let mut broken = Vec::new();
    let of_points: BTreeSet<&SetToken> = points.iter().map(|point| &point.set).collect();
    let is_debris = |token: &SetToken| {
        debris.iter().any(|left| left.kind == DebrisKind::Snapshots(token.clone()))
    };
    let is_parked = |token: &SetToken| token.parts().is_some_and(|(run, _)| parked.contains(&run));
    for (token, state) in &disk.sets {
        let is_known = *state == SetState::Settled && of_points.contains(token);
        if !is_known && !is_debris(token) && !is_parked(token) {
            let message = format!("nobody knows of the {state:?} set {token}");
            broken.push(Broken::new(Rule::Sets, message));
        }
    }
    for point in points {
        if !disk.sets.contains(&(point.set.clone(), SetState::Settled)) {
            let message = format!("the set {} of point {} is not there", point.set, point.id);
            broken.push(Broken::new(Rule::Sets, message));
        }
    }
    broken
}

/// An exposure is debris, or of a parked run.
pub fn exposures_are_accounted_for(
    disk: &OnDisk,
    debris: &[Debris],
    parked: &BTreeSet<RunId>,
) -> Vec<Broken> {
    let is_known = |key: &&ExposureKey| {
        let of_run = |run: &RunId| key.as_str().ends_with(&run.0.simple().to_string());
        debris.iter().any(|left| left.kind == DebrisKind::Exposure((*key).clone()))
            || parked.iter().any(of_run)
    };
    let unknown = disk.exposures.iter().filter(|key| !is_known(key));
    unknown
        .map(|key| Broken::new(Rule::Exposures, format!("nobody knows of the exposure {key}")))
        .collect()
}

/// A point that calls itself application consistent holds what every file was while its run had frozen them: one beat, and
/// the one that the agent's log has for that freeze.
pub fn points_show_their_freezes(
    disk: &OnDisk,
    points: &[RestorePoint],
    lines: &[Line],
) -> Vec<Broken> {
    let frozen: BTreeMap<RunId, u64> = lines
        .iter()
        .filter_map(|line| match &line.what {
            What::Frozen { run, beat, .. } => Some((*run, *beat)),
            _ => None,
        })
        .collect();
    let mut broken = Vec::new();
    for point in points.iter().filter(|point| point.consistency == Consistency::Application) {
        let wanted: BTreeSet<u64> = frozen.get(&point.run).copied().into_iter().collect();
        let trouble = match beats_below(&disk.files_of(&point.set)) {
            Ok(beats) if beats == wanted && beats.len() == 1 => continue,
            Ok(beats) => format!("it holds the beats {beats:?}, frozen was {wanted:?}"),
            Err(error) => error.to_string(),
        };
        broken.push(Broken::new(Rule::Points, format!("point {}: {trouble}", point.id)));
    }
    broken
}

/// Every job is over or parked.
pub fn jobs_are_over(jobs: &[Job]) -> Vec<Broken> {
    let open = jobs.iter().filter(|job| {
        let state = job.state();
        !state.is_final() && state != JobState::Parked
    });
    open.map(|job| Broken::new(Rule::Jobs, format!("job {} is {}", job.id, job.state()))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use chrono::{DateTime, Utc};
    use stillpoint::model::evidence::EvidenceGrain;
    use stillpoint::model::job::{JobKind, JobRun, RunEnd, RunState};
    use stillpoint::model::kind::BackupKind;
    use stillpoint::model::point::{NewPoint, PointEvidence};
    use stillpoint::model::request::Trigger;
    use stillpoint_context::{FencingToken, JobId};
    use stillpoint_exchange::SessionId;
    use stillpoint_model::id::PointId;
    use stillpoint_model::quiesce::{Held, QuiesceLevel};
    use uuid::Uuid;

    use super::*;
    use crate::mail::Mail;

    const NOW: DateTime<Utc> = DateTime::<Utc>::UNIX_EPOCH;

    fn run(number: u128) -> RunId {
        RunId(Uuid::from_u128(number))
    }

    fn token(number: u128) -> SetToken {
        SetToken::of(&run(number), PointId(Uuid::from_u128(number)))
    }

    fn point(number: u128, held: Held) -> RestorePoint {
        RestorePoint::new(NewPoint {
            id: PointId(Uuid::from_u128(number)),
            copy: "00000000-0000-0000-0000-000000000007@ex1".parse().unwrap(),
            database_name: "DB01".to_owned(),
            kind: BackupKind::Full,
            taken_at: NOW,
            job: JobId(Uuid::from_u128(1)),
            run: run(number),
            set: token(number),
            evidence: PointEvidence::new(QuiesceLevel::App, held, EvidenceGrain::PerDatabase),
        })
    }

    fn debris(kind: DebrisKind) -> Debris {
        Debris::new("key", run(1), kind, "it was left", NOW)
    }

    fn disk(sets: &[(u128, SetState)]) -> OnDisk {
        let sets = sets.iter().map(|(number, state)| (token(*number), *state)).collect();
        OnDisk { sets, ..OnDisk::default() }
    }

    #[test]
    fn a_set_is_a_points_or_debris_or_a_parked_runs() {
        let nobody = BTreeSet::new();
        let settled = disk(&[(1, SetState::Settled)]);
        let (points, left) = ([point(1, Held::Yes)], [debris(DebrisKind::Snapshots(token(1)))]);
        assert_eq!(sets_are_accounted_for(&settled, &points, &[], &nobody), []);
        assert_eq!(sets_are_accounted_for(&settled, &[], &left, &nobody), []);
        assert_eq!(sets_are_accounted_for(&settled, &[], &[], &[run(1)].into()), []);
        assert_eq!(sets_are_accounted_for(&disk(&[]), &[], &left, &nobody), []);
    }

    #[test]
    fn a_set_that_nobody_knows_and_a_point_without_its_set_are_seen() {
        let nobody = BTreeSet::new();
        for state in [SetState::Partial, SetState::Settled, SetState::Discarded] {
            let others = [debris(DebrisKind::Snapshots(token(2)))];
            let found =
                sets_are_accounted_for(&disk(&[(1, state)]), &[], &others, &[run(2)].into());
            assert_eq!(found.len(), 1, "{state:?}");
        }
        // A point lies on settled sets alone.
        let partial = disk(&[(1, SetState::Partial)]);
        assert_eq!(sets_are_accounted_for(&partial, &[point(1, Held::Yes)], &[], &nobody).len(), 2);
        let found = sets_are_accounted_for(&disk(&[]), &[point(1, Held::Yes)], &[], &nobody);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn an_exposure_is_debris_or_a_parked_runs() {
        let key: ExposureKey = format!("verify-{}", run(1).0.simple()).parse().unwrap();
        let disk = OnDisk { exposures: [key.clone()].into(), ..OnDisk::default() };
        let left = [debris(DebrisKind::Exposure(key))];
        assert_eq!(exposures_are_accounted_for(&disk, &left, &BTreeSet::new()), []);
        assert_eq!(exposures_are_accounted_for(&disk, &[], &[run(1)].into()), []);
        assert_eq!(exposures_are_accounted_for(&disk, &[], &[run(2)].into()).len(), 1);
    }

    #[test]
    fn a_store_is_read_as_files() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(OnDisk::read(store.path()).unwrap().sets, BTreeSet::new());
        for name in ["sets/sp-1", "sets/sp-2.partial", "sets/sp-3.discarded", "exposures"] {
            std::fs::create_dir_all(store.path().join(name)).unwrap();
        }
        std::fs::write(store.path().join("exposures/verify-1.json"), "{}").unwrap();
        let found = OnDisk::read(store.path()).unwrap();
        let wanted = [
            ("sp-1", SetState::Settled),
            ("sp-2", SetState::Partial),
            ("sp-3", SetState::Discarded),
        ];
        let wanted = wanted.map(|(token, state)| (token.parse().unwrap(), state));
        assert_eq!(found.sets, BTreeSet::from(wanted));
        assert_eq!(found.exposures, BTreeSet::from(["verify-1".parse().unwrap()]));
    }

    #[test]
    fn a_point_that_is_torn_or_of_another_moment_is_seen() {
        let store = tempfile::tempdir().unwrap();
        let disk = OnDisk { folder: store.path().join("sets"), ..OnDisk::default() };
        let taken = disk.files_of(&token(1));
        Mail::make(&taken.join("m0"), 1).unwrap();
        let frozen = |beat| {
            let (session, fence) = (SessionId(Uuid::nil()), FencingToken(1));
            [Line { at: 1, what: What::Frozen { session, run: run(1), fence, until: 9, beat } }]
        };
        let good = [point(1, Held::Yes)];
        assert_eq!(points_show_their_freezes(&disk, &good, &frozen(1)), []);
        assert_eq!(points_show_their_freezes(&disk, &good, &frozen(2)).len(), 1);
        assert_eq!(points_show_their_freezes(&disk, &good, &[]).len(), 1);
        std::fs::write(taken.join("m0/DB01/DB01.pulse"), 7_u64.to_le_bytes()).unwrap();
        assert_eq!(points_show_their_freezes(&disk, &good, &frozen(1)).len(), 1);
        // What does not call itself consistent promises nothing.
        assert_eq!(points_show_their_freezes(&disk, &[point(1, Held::Unknown)], &frozen(1)), []);
    }

    #[test]
    fn a_job_that_is_not_over_is_seen() {
        let job = |state| {
            let mut job = Job::new(
                JobId(Uuid::from_u128(1)),
                JobKind::Backup,
                "key".parse().unwrap(),
                Trigger::Api,
                NOW,
            );
            job.planned_at = Some(NOW);
            let mut of = JobRun::new(run(1), NOW);
            of.state = state;
            job.runs.push(of);
            job
        };
        for over in [RunState::Parked, RunState::Ended(RunEnd::Failed)] {
            assert_eq!(jobs_are_over(&[job(over)]), []);
        }
        for open in [RunState::Queued, RunState::Running, RunState::Cancelling] {
            assert_eq!(jobs_are_over(&[job(open)]).len(), 1, "{open:?}");
        }
    }
}
