//! What runs left behind: listed in plain sight, and swept when it can be.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use stillpoint_catalog::{CatalogExt, Debris, DebrisKind, PointQuery};
use stillpoint_context::{Effect, ErrorClass, Failure, JobId};
use stillpoint_exchange::SessionState;
use stillpoint_model::id::{ExposureKey, PointId, SessionId, SetToken};
use stillpoint_model::job::{JobRun, RunState};
use stillpoint_storage::{Discarded, RestoreKey};
use stillpoint_workflow::{RunPhase, RunReport};

use crate::Stillpoint;
use crate::beside::manifest_name;
use crate::error::Error;
use crate::restore::steps::located;

/// What the steps of a plan leave outside, so that debris names the object and not only the step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Leaves {
    pub(crate) token: Option<SetToken>,
    pub(crate) session: Option<SessionId>,
    pub(crate) exposure: Option<ExposureKey>,
    pub(crate) points: Vec<PointId>,
    pub(crate) restore: Option<RestoreKey>,
}

impl Leaves {
    /// What a step left if its undo failed; nothing if that is not known.
    fn of(&self, step: &str) -> Vec<DebrisKind> {
        let (kind, _) = step.split_once([':', '/']).unwrap_or((step, ""));
        match kind {
            "prepare" | "commit" | "snap" | "adopt" | "settle" => {
                self.token.iter().cloned().map(DebrisKind::Snapshots).collect()
            }
            "begin" | "freeze" => self.session.into_iter().map(DebrisKind::Session).collect(),
            "expose" => self.exposure.iter().cloned().map(DebrisKind::Exposure).collect(),
            "stage" => self.restore.iter().map(|key| DebrisKind::Staged(key.to_string())).collect(),
            "place" => {
                let placed = |key| format!("files of restore {key} under their targets' names");
                self.restore.iter().map(|key| DebrisKind::Other(placed(key))).collect()
            }
            "publish" => self.points.iter().copied().map(DebrisKind::Manifest).collect(),
            _ => Vec::new(),
        }
    }

    /// The debris of a run, as the catalogue keeps it: each object once for each step that owed its removal.
    pub(crate) fn debris(
        &self,
        job: JobId,
        report: &RunReport,
        now: chrono::DateTime<chrono::Utc>,
    ) -> Vec<Debris> {
        let run = report.run();
        let mut debris = Vec::new();
        for left in report.debris() {
            let mut kinds = self.of(left.step.as_str());
            // A step of which no object is known: what it did is for a person to judge.
            let nameless = left.object.kind == "step";
            let did = if left.possible { "may have done" } else { "did" };
            if kinds.is_empty() {
                let what = format!("what step {} {did}", left.step);
                kinds.push(DebrisKind::Other(if nameless {
                    what
                } else {
                    left.object.to_string()
                }));
            }
            let message = if nameless {
                format!("what step {} {did} is left: {}", left.step, left.why)
            } else {
                let possible = if left.possible { "maybe " } else { "" };
                format!("{possible}{} of step {}: {}", left.object, left.step, left.why)
            };
            debris.extend(kinds.into_iter().map(|kind| {
                Debris::new(format!("{run}/{}/{kind}", left.step), run, kind, &*message, now)
                    .of_job(job)
                    .owed_by(left.step.clone())
                    .maybe(left.possible)
            }));
        }
        // The one thing that a backup may leave without failing for it: an exposure that could not be ended.
        let hidden = report.step_named("unexpose");
        let hidden = hidden.and_then(|step| Some((step.name, step.failure?)));
        if let (Some((step, failure)), Some(key)) = (hidden, &self.exposure) {
            let kind = DebrisKind::Exposure(key.clone());
            let message = format!("it could not be ended: {}", failure.message);
            let left = Debris::new(format!("{run}/unexpose"), run, kind, message, now);
            debris.push(left.of_job(job).owed_by(step));
        }
        debris
    }
}

impl Stillpoint {
    /// Everything that runs are known to have left behind, oldest first. [`sweep`](Self::sweep) takes it away.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn debris(&self) -> Result<Vec<Debris>, Error> {
        Ok(self.services().catalog.debris().await?)
    }

    /// Tries to take away what runs left behind, and gives what is left still: what cannot be taken away now, what may yet
    /// appear, and what only a person can judge.
    ///
    /// Snapshots that a restore point lies on are never touched. Exposures that outlived their run are ended, also those
    /// that nobody listed because they came to be after their run.
    ///
    /// # Errors
    /// Of the catalogue. A side that refuses or cannot be reached leaves its debris listed.
    ///
    /// # Idempotence
    /// May be repeated, and dropped at any time.
    pub async fn sweep(&self) -> Result<Vec<Debris>, Error> {
        if let Err(failure) = self.end_stray_exposures().await {
            tracing::warn!(%failure, "stray exposures could not be looked for");
        }
        let mut left = Vec::new();
        for debris in self.debris().await? {
            match self.take_away(&debris).await {
                Ok(true) => self.services().catalog.remove_debris(&debris.key).await?,
                Ok(false) => left.push(debris),
                Err(failure) => {
                    tracing::warn!(debris = %debris.key, %failure, "it could not be taken away");
                    left.push(debris);
                }
            }
        }
        Ok(left)
    }

    /// Whether it is gone.
    async fn take_away(&self, debris: &Debris) -> Result<bool, Failure> {
        let (cx, services) = (self.cx(), self.services());
        let run = self.engine().run(debris.run);
        let open = run.is_some_and(|run| !matches!(run.status().phase, RunPhase::Ended(_)));
        if open {
            return Ok(false);
        }
        match &debris.kind {
            DebrisKind::Snapshots(token) => {
                let points = services.catalog.all_points(&PointQuery::all()).await;
                let points = points.map_err(|error| Failure::of(&error))?;
                let sets: BTreeSet<&SetToken> = points.iter().map(|point| &point.set).collect();
                if sets.contains(token) {
                    return Err(Failure::new(
                        "debris.in_use",
                        ErrorClass::Conflict,
                        format!("a restore point lies on {token}"),
                    )
                    .with_effect(Effect::None)
                    .with_remedy("Remove the restore point first, if it is not wanted."));
                }
                let mut gone = true;
                for provider in services.providers.values() {
                    gone &= provider.discard(&cx, token).await? == Discarded::Gone;
                }
                Ok(gone)
            }
            DebrisKind::Exposure(key) => {
                for provider in services.providers.values() {
                    provider.unexpose(&cx, key).await?;
                }
                Ok(true)
            }
            DebrisKind::Session(id) => {
                let state = services.plugin.session(&cx, *id).await?;
                // A session that was completed is over; to abort it then would be against its contract.
                if !matches!(state, SessionState::Completed(_) | SessionState::Aborted) {
                    services.plugin.abort(&cx, *id).await?;
                }
                Ok(true)
            }
            DebrisKind::Staged(restore) => {
                let key = RestoreKey::new(restore).map_err(|error| {
                    let what = error.to_string();
                    Failure::new("debris.unknown", ErrorClass::Internal, what)
                })?;
                for side in services.providers.values().filter_map(|known| known.restore()) {
                    side.unstage(&cx, &key).await?;
                }
                Ok(true)
            }
            DebrisKind::Manifest(point) => {
                let known = services.catalog.point(*point).await;
                if known.map_err(|error| Failure::of(&error))?.is_some() {
                    return Ok(false);
                }
                let name = manifest_name(*point)?;
                for provider in services.providers.values() {
                    if provider.caps().documents {
                        provider.delete_doc(&cx, &name).await?;
                    }
                }
                Ok(true)
            }
            // Whether anybody knows of an orphan is for a reconcile to say, and when it may go.
            _ => Ok(false),
        }
    }

    /// Ends exposures of ours that outlived their run, such as one that a storage made after it was given up on.
    async fn end_stray_exposures(&self) -> Result<(), Failure> {
        let (cx, services) = (self.cx(), self.services());
        let jobs = self.jobs().await.map_err(|error| Failure::of(&error))?;
        let over = jobs.iter().flat_map(|job| &job.runs);
        let over = over.filter(|run| matches!(run.state, RunState::Ended(_)));
        let of_run = |run: &JobRun| {
            [format!("verify-{}", run.run.0.simple()), located(&RestoreKey::of(run.run))]
        };
        let over: BTreeSet<String> = over.flat_map(of_run).collect();
        for provider in services.providers.values() {
            for exposure in provider.exposures(&cx).await? {
                if over.contains(exposure.key.as_str()) {
                    provider.unexpose(&cx, &exposure.key).await?;
                }
            }
        }
        Ok(())
    }
}
