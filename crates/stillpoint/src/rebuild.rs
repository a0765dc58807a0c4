//! Rebuild: a catalogue made anew of what lies beside the data.
//!
//! ```text
//!   documents of every provider ─┬─ point-*.json, standing-*.json ─▶ restore points, with their states
//!                                ├─ hold-*.json ───────────────────▶ holds
//!                                ├─ fork-*.json ───────────────────▶ forks of chains of logs
//!                                └─ the latest instant in any ─────▶ the clock that must not go back
//! ```

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use stillpoint_context::{Effect, ErrorClass, Failure, RunId};
use stillpoint_model::fork::{self, ChainFork};
use stillpoint_model::hold::{self, Hold};
use stillpoint_model::id::{HoldName, PointId};
use stillpoint_model::manifest::{self, ManifestError};
use stillpoint_model::point::{PointFact, PointState, RestorePoint};
use stillpoint_model::standing::Standing;
use stillpoint_storage::DocName;

use crate::Stillpoint;
use crate::beside::{self, Told};
use crate::error::Error;

/// How many points are read before they are stored.
const BATCH: usize = 64;

/// What a rebuild came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Rebuilt {
    /// The points that were added.
    pub points: BTreeSet<PointId>,
    /// How many the catalogue had already.
    pub known: usize,
    /// The holds that were added.
    pub holds: BTreeSet<HoldName>,
    /// The restores at which chains of logs forked that were added.
    pub forks: BTreeSet<RunId>,
    /// The latest instant that anything beside the data tells of. Nothing is due before it.
    pub clock: Option<DateTime<Utc>>,
    /// What was left out, and why, in one sentence each.
    pub skipped: Vec<String>,
}

impl Stillpoint {
    /// Adds to the catalogue every restore point and hold that is described beside the data: the whole catalogue, if it is empty.
    ///
    /// Policies, groups, schedules and jobs are not there: the first three come back by an import. What was being deleted when
    /// the catalogue was lost comes back as it was before; a [`repair`](Self::repair) afterwards tells what is missing of it.
    ///
    /// # Errors
    /// `rebuild.busy` while runs are open, as their points are theirs to tell; of the catalogue. A document that is damaged or of
    /// a newer format, and a storage that cannot be asked, are told and left out.
    ///
    /// # Idempotence
    /// A second one changes nothing: what the catalogue knows stays as it is, and what it knows to be deleted stays so.
    ///
    /// # Crash behaviour
    /// Some of it may be there; another one adds the rest.
    pub async fn rebuild(&self) -> Result<Rebuilt, Error> {
        let services = self.services();
        if let Some(run) = services.pump.open_runs().await?.first() {
            let message = format!("run {run} is open");
            return Err(Failure::new("rebuild.busy", ErrorClass::Busy, message)
                .with_effect(Effect::None)
                .with_remedy("Wait until nothing is under way, or deal with what is parked.")
                .into());
        }
        services.pump.run(&*services.catalog).await?;
        let (mut points, mut holds) = (BTreeSet::new(), BTreeSet::new());
        let mut forks = BTreeSet::new();
        let mut rebuilt = Rebuilt::default();
        for side in beside::keepers(services) {
            match side.list_docs(&self.cx()).await {
                Ok(names) => {
                    points
                        .extend(names.iter().filter_map(|name| manifest::point_of(name.as_str())));
                    forks.extend(
                        names.iter().filter(|name| fork::is_document(name.as_str())).cloned(),
                    );
                    holds.extend(names.into_iter().filter(|name| hold::is_document(name.as_str())));
                }
                Err(error) => {
                    let id = side.caps().provider;
                    rebuilt.skipped.push(format!("the documents of {id}: {error}"));
                }
            }
        }
        // Before the points: whoever sees one knows what it can be put together with.
        self.add_forks(&forks, &mut rebuilt).await?;
        let points: Vec<PointId> = points.into_iter().collect();
        for batch in points.chunks(BATCH) {
            self.add_points(batch, &mut rebuilt).await?;
        }
        self.add_holds(&holds, &mut rebuilt).await?;
        if let Some(latest) = rebuilt.clock {
            drop(services.catalog.settle(latest, &[]).await?);
        }
        Ok(rebuilt)
    }

    async fn add_points(&self, batch: &[PointId], rebuilt: &mut Rebuilt) -> Result<(), Error> {
        let (services, cx) = (self.services(), self.cx());
        let mut facts = Vec::new();
        for id in batch {
            let told = match services.catalog.point(*id).await? {
                Some(known) => {
                    rebuilt.known += 1;
                    rebuilt.clock = rebuilt.clock.max(latest(&known));
                    continue;
                }
                None => beside::read(services, &cx, *id).await,
            };
            match told {
                Ok(Told::Point(point)) => {
                    rebuilt.clock = rebuilt.clock.max(latest(&point));
                    facts.push(PointFact::Published(point));
                }
                Ok(Told::Nothing) => {}
                Ok(Told::Unreadable(why)) => {
                    rebuilt.skipped.push(format!("the manifest of {id}: {why}"));
                }
                Err(failure) => rebuilt.skipped.push(format!("the manifest of {id}: {failure}")),
            }
        }
        services.catalog.apply(&facts, None).await?;
        for fact in &facts {
            let id = fact.point();
            if services.catalog.point(id).await?.is_some() {
                let _new = rebuilt.points.insert(id);
            } else {
                rebuilt.skipped.push(format!("the manifest of {id}: the point was deleted before"));
            }
        }
        Ok(())
    }

    /// What every provider says under this name, as far as it can be read; what cannot be is told.
    async fn read_all<T>(
        &self,
        name: &DocName,
        parse: impl Fn(&str) -> Result<T, ManifestError>,
        rebuilt: &mut Rebuilt,
    ) -> Vec<T> {
        let cx = self.cx();
        let mut found = Vec::new();
        for side in beside::keepers(self.services()) {
            let read = match side.get_doc(&cx, name).await {
                Ok(Some(bytes)) => {
                    parse(&String::from_utf8_lossy(&bytes)).map_err(|error| error.to_string())
                }
                Ok(None) => continue,
                Err(error) => Err(error.to_string()),
            };
            match read {
                Ok(document) => found.push(document),
                Err(why) => rebuilt.skipped.push(format!("{name}: {why}")),
            }
        }
        found
    }

    async fn add_forks(
        &self,
        names: &BTreeSet<DocName>,
        rebuilt: &mut Rebuilt,
    ) -> Result<(), Error> {
        let catalog = &self.services().catalog;
        for name in names {
            for fork in self.read_all(name, ChainFork::from_json, rebuilt).await {
                rebuilt.clock = rebuilt.clock.max(Some(fork.at));
                let known = catalog.forks(fork.database).await?;
                if known.iter().all(|known| known.run != fork.run) {
                    catalog.put_fork(&fork).await?;
                    let _new = rebuilt.forks.insert(fork.run);
                }
            }
        }
        Ok(())
    }

    async fn add_holds(
        &self,
        names: &BTreeSet<DocName>,
        rebuilt: &mut Rebuilt,
    ) -> Result<(), Error> {
        let services = self.services();
        let mut found: BTreeMap<HoldName, Hold> = BTreeMap::new();
        for name in names {
            for hold in self.read_all(name, Hold::from_json, rebuilt).await {
                let both = match found.remove(&hold.name) {
                    Some(known) => known.and(&hold),
                    None => hold,
                };
                let _none = found.insert(both.name.clone(), both);
            }
        }
        let known: BTreeSet<HoldName> =
            services.catalog.holds().await?.into_iter().map(|hold| hold.name).collect();
        for (name, mut hold) in found {
            if known.contains(&name) {
                continue;
            }
            let mut there = BTreeSet::new();
            for point in &hold.points {
                let state = services.catalog.point(*point).await?.map(|point| point.state);
                if state.is_some_and(|state| state != PointState::Expiring) {
                    let _new = there.insert(*point);
                }
            }
            if there.is_empty() {
                rebuilt.skipped.push(format!("hold {name}: none of its points is there"));
                continue;
            }
            hold.points = there;
            rebuilt.clock = rebuilt.clock.max(Some(hold.since));
            services.catalog.put_hold(&hold).await?;
            let _new = rebuilt.holds.insert(name);
        }
        Ok(())
    }
}

/// The latest instant that a point tells of.
fn latest(point: &RestorePoint) -> Option<DateTime<Utc>> {
    Standing::of(point).latest().max(Some(point.taken_at))
}
