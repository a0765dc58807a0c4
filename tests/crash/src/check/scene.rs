//! Everything that the checks look at, gathered while no engine runs.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use stillpoint::catalog::{Catalog as _, CatalogExt as _, Debris, JobQuery, PointQuery};
use stillpoint::model::job::{Job, RunState};
use stillpoint::model::point::RestorePoint;
use stillpoint::store_sqlite::SqliteStore;
use stillpoint_context::RunId;

use super::{
    Broken, Claimed, OnDisk, Rule, claims_are_of_parked_runs, completions_are_of_freezes_that_held,
    every_freeze_ends, exposures_are_accounted_for, jobs_are_over, nothing_is_written_while_frozen,
    points_show_their_freezes, sets_are_accounted_for, tokens_never_go_back,
};
use crate::ledger::{Line, now};
use crate::process::Lab;

/// What a crash has left, as seen from outside.
#[derive(Debug, Clone)]
pub struct Scene {
    /// When it was gathered, on the clock of the log.
    pub at: u64,
    /// What the agent has logged.
    pub lines: Vec<Line>,
    /// What lies in the store.
    pub disk: OnDisk,
    /// The restore points.
    pub points: Vec<RestorePoint>,
    /// What is known to be left behind.
    pub debris: Vec<Debris>,
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Who claims what, and what is open.
    pub claimed: Claimed,
    /// What is wrong with the state file.
    pub unsound: Option<String>,
}

impl Scene {
    /// Gathers it. Blocks; the state file must not be in use.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn gather(lab: &Lab) -> Result<Self, Box<dyn Error>> {
        // First of all the time: a freeze that is open in the log was open then.
        let at = now();
        let lines = lab.lines()?;
        let disk = OnDisk::read(&lab.store())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(async {
            let state = SqliteStore::open(lab.state())?;
            let points = state.all_points(&PointQuery::all()).await?;
            let jobs = state.all_jobs(&JobQuery::all()).await?;
            let debris = state.debris().await?;
            let claimed = Claimed::read(&state).await?;
            let unsound = state.check().await.err().map(|error| error.to_string());
            Ok(Self { at, lines, disk, points, debris, jobs, claimed, unsound })
        })
    }

    /// Every rule that does not hold.
    pub fn broken(&self, slack: Duration) -> Vec<Broken> {
        let parked: BTreeSet<RunId> = self
            .jobs
            .iter()
            .flat_map(|job| &job.runs)
            .filter(|run| run.state == RunState::Parked)
            .map(|run| run.run)
            .collect();
        let Self { lines, disk, points, debris, jobs, claimed, unsound, .. } = self;
        let mut broken = self.broken_by_the_agent(slack);
        broken.extend(sets_are_accounted_for(disk, points, debris, &parked));
        broken.extend(exposures_are_accounted_for(disk, debris, &parked));
        broken.extend(points_show_their_freezes(disk, points, lines));
        broken.extend(jobs_are_over(jobs));
        broken.extend(claims_are_of_parked_runs(claimed));
        broken.extend(unsound.iter().map(|message| Broken::new(Rule::Sound, message)));
        broken
    }

    /// The rules that hold even before anything was recovered.
    pub fn broken_by_the_agent(&self, slack: Duration) -> Vec<Broken> {
        let mut broken = every_freeze_ends(&self.lines, self.at, slack);
        broken.extend(nothing_is_written_while_frozen(&self.lines));
        broken.extend(tokens_never_go_back(&self.lines));
        broken.extend(completions_are_of_freezes_that_held(&self.lines));
        broken
    }
}
