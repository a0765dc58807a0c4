//! What is kept and what may go, for every database: the table that a prune follows.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use stillpoint_catalog::{CatalogExt, PointQuery};
use stillpoint_context::{Cx, ErrorFacts, Failure};
use stillpoint_model::chain::LogSegment;
use stillpoint_model::group::{ResourceGroup, Selector};
use stillpoint_model::id::{DatabaseId, PointId, PolicyId};
use stillpoint_model::point::RestorePoint;
use stillpoint_model::policy::Policy;
use stillpoint_model::retention::{
    Decisions, Fate, Protected, PruneError, PruneOrder, RetentionInputs, decide, decide_for,
};
use stillpoint_storage::ProviderErrorKind;

use crate::Stillpoint;
use crate::error::Error;
use crate::prune::{PruneScope, PruneTarget};
use crate::services::Services;

/// What is kept of some databases, and what may go.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetentionTable {
    /// When it was made.
    pub at: DateTime<Utc>,
    /// The databases, by name.
    pub databases: Vec<DatabaseRetention>,
    /// What the policies are called that reasons name.
    pub policies: BTreeMap<PolicyId, String>,
}

/// What is kept of a database, and what may go.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DatabaseRetention {
    /// Which database.
    pub database: DatabaseId,
    /// What it was called last.
    pub name: String,
    /// Its points, oldest first.
    pub points: Vec<RestorePoint>,
    /// Its log segments.
    pub segments: Vec<LogSegment>,
    /// A verdict with reasons for each of them, in their order.
    pub decisions: Decisions,
    /// What a prune would delete.
    pub order: PruneOrder,
}

impl DatabaseRetention {
    /// What is decided upon these inputs. For tests of whoever shows it.
    pub fn of(database: DatabaseId, name: impl Into<String>, inputs: &RetentionInputs<'_>) -> Self {
        let decisions = decide(inputs);
        let order = PruneOrder::of(database, &decisions, inputs.points, None);
        let (points, segments) = (inputs.points.to_vec(), inputs.segments.to_vec());
        Self { database, name: name.into(), points, segments, decisions, order }
    }
}

impl RetentionTable {
    /// A table of these. For tests of whoever shows it.
    pub const fn new(
        at: DateTime<Utc>,
        databases: Vec<DatabaseRetention>,
        policies: BTreeMap<PolicyId, String>,
    ) -> Self {
        Self { at, databases, policies }
    }

    /// Whether a prune would have nothing to do.
    pub fn is_empty(&self) -> bool {
        self.databases.iter().all(|database| database.order.is_empty())
    }

    /// When the first of the locks is over that alone keep something.
    pub fn next_due(&self) -> Option<DateTime<Utc>> {
        self.databases.iter().filter_map(|database| database.decisions.next_due()).min()
    }
}

impl Stillpoint {
    /// The dry run of a prune: every point and log segment with its verdict, and the reasons, which name the rule and the point
    /// or policy that needs it. Changes nothing.
    ///
    /// # Errors
    /// Of the catalogue; [`Error::NotFound`] and [`Error::Prune`] for something that is named and is not there, or must not be
    /// deleted. A storage that cannot be asked for its locks is a reason, not an error.
    pub async fn retention(&self, target: &PruneTarget) -> Result<RetentionTable, Error> {
        self.retention_beside(target, Vec::new()).await
    }

    /// The same if there were these points, too.
    pub(crate) async fn retention_beside(
        &self,
        target: &PruneTarget,
        planned: Vec<RestorePoint>,
    ) -> Result<RetentionTable, Error> {
        let (services, cx) = (self.services(), self.cx());
        let catalog = &services.catalog;
        let mut wanted = None;
        let query = match &target.scope {
            PruneScope::Databases(databases) if databases.len() == 1 => {
                databases.iter().next().map_or_else(PointQuery::all, |only| PointQuery::of(*only))
            }
            PruneScope::Point(point) => {
                let known = self.point(*point).await?.ok_or_else(|| Error::no_point(*point))?;
                wanted = Some(*point);
                PointQuery::of(known.database)
            }
            _ => PointQuery::all(),
        };
        let points = catalog.all_points(&query).await?;
        if let PruneScope::Snapshot(snapshot) = &target.scope {
            return Err(match PruneError::of_part(snapshot, &points) {
                Some(refused) => refused.into(),
                None => Error::NotFound { kind: "snapshot", id: snapshot.to_string() },
            });
        }
        let mut by_database: BTreeMap<DatabaseId, Vec<RestorePoint>> = BTreeMap::new();
        for point in points.into_iter().chain(planned) {
            let is_meant = match &target.scope {
                PruneScope::Databases(databases) => databases.contains(&point.database),
                _ => true,
            };
            if is_meant {
                by_database.entry(point.database).or_default().push(point);
            }
        }
        let rules = Rules::read(services, cx.now()).await?;
        let mut databases = Vec::new();
        for (database, points) in by_database {
            let kept = Kept::of(services, &cx, &rules, database, points, wanted).await;
            let order = kept.order(target.policy, wanted)?;
            databases.push(kept.into_table(target.policy, order));
        }
        databases.sort_by(|a, b| (&a.name, a.database).cmp(&(&b.name, b.database)));
        let policies = rules.policies.into_iter().map(|policy| (policy.id, policy.name)).collect();
        Ok(RetentionTable { at: cx.now(), databases, policies })
    }
}

/// What holds for every database.
#[derive(Debug)]
pub(crate) struct Rules {
    policies: Vec<Policy>,
    groups: Vec<ResourceGroup>,
    holds: BTreeMap<PointId, BTreeSet<String>>,
}

impl Rules {
    pub(crate) async fn read(services: &Services, now: DateTime<Utc>) -> Result<Self, Failure> {
        let catalog = &services.catalog;
        let failed = |error| Failure::of(&error);
        let policies = catalog.policies().await.map_err(failed)?;
        let groups = catalog.groups().await.map_err(failed)?;
        let mut holds: BTreeMap<PointId, BTreeSet<String>> = BTreeMap::new();
        for hold in catalog.holds().await.map_err(failed)? {
            if hold.is_on(now) {
                for point in &hold.points {
                    holds.entry(*point).or_default().insert(hold.name.to_string());
                }
            }
        }
        Ok(Self { policies, groups, holds })
    }

    /// The policies that have a say: those that its points were made under, and those of every group that it may be in. Who is
    /// in a group by its server or DAG only an inventory says, which a prune does without; such a group counts, and may keep
    /// logs for longer than it has to.
    fn of(&self, database: DatabaseId, points: &[RestorePoint]) -> Vec<Policy> {
        let made = points.iter().filter_map(|point| Some(point.policy.as_ref()?.id));
        let may_have = |group: &&ResourceGroup| {
            group
                .members
                .iter()
                .any(|member| !matches!(member, Selector::Database(other) if *other != database))
        };
        let groups =
            self.groups.iter().filter(may_have).flat_map(|group| group.policies.iter().copied());
        let ids: BTreeSet<PolicyId> = made.chain(groups).collect();
        self.policies.iter().filter(|policy| ids.contains(&policy.id)).cloned().collect()
    }
}

/// All that is decided upon for one database.
#[derive(Debug)]
pub(crate) struct Kept {
    database: DatabaseId,
    pub(crate) points: Vec<RestorePoint>,
    segments: Vec<LogSegment>,
    policies: Vec<Policy>,
    protected: BTreeMap<PointId, Protected>,
    now: DateTime<Utc>,
}

impl Kept {
    /// What is known now of a database.
    ///
    /// # Errors
    /// Of the catalogue.
    pub(crate) async fn take(
        services: &Services,
        cx: &Cx,
        database: DatabaseId,
        wanted: Option<PointId>,
    ) -> Result<Self, Failure> {
        let points = services.catalog.all_points(&PointQuery::of(database)).await;
        let points = points.map_err(|error| Failure::of(&error))?;
        let rules = Rules::read(services, cx.now()).await?;
        Ok(Self::of(services, cx, &rules, database, points, wanted).await)
    }

    async fn of(
        services: &Services,
        cx: &Cx,
        rules: &Rules,
        database: DatabaseId,
        mut points: Vec<RestorePoint>,
        wanted: Option<PointId>,
    ) -> Self {
        points.sort_by_key(|point| (point.taken_at, point.id));
        let segments = points.iter().filter_map(LogSegment::of).collect();
        let policies = rules.of(database, &points);
        let now = cx.now();
        let mut kept =
            Self { database, points, segments, policies, protected: BTreeMap::new(), now };
        for (point, holds) in &rules.holds {
            kept.protected.entry(*point).or_default().holds.clone_from(holds);
        }
        // Only of what would go: to ask for every snapshot there is would take long.
        let going: BTreeSet<PointId> = kept
            .with(decide)
            .points
            .into_iter()
            .filter(|known| known.fate == Fate::Delete || Some(known.what) == wanted)
            .map(|known| known.what)
            .collect();
        for point in kept.points.iter().filter(|point| going.contains(&point.id)) {
            let asked = locks(services, cx, point).await;
            let known = kept.protected.entry(point.id).or_default();
            match asked {
                Ok(locks) => {
                    known.holds.extend(locks.holds);
                    known.locked_until = locks.locked_until;
                }
                Err(failure) => known.unknown = Some(failure.message),
            }
        }
        kept
    }

    /// Asks something of the rules.
    pub(crate) fn with<T>(&self, ask: impl FnOnce(&RetentionInputs<'_>) -> T) -> T {
        let mut inputs = RetentionInputs::new(self.now);
        inputs.points = &self.points;
        inputs.segments = &self.segments;
        inputs.policies = &self.policies;
        inputs.protected = &self.protected;
        ask(&inputs)
    }

    /// What is to be deleted: what the rules let go, or the one that somebody wants to.
    ///
    /// # Errors
    /// [`PruneError`] for one that is wanted and must not go.
    pub(crate) fn order(
        &self,
        policy: Option<PolicyId>,
        wanted: Option<PointId>,
    ) -> Result<PruneOrder, PruneError> {
        let Some(id) = wanted else {
            let decisions = self.with(|inputs| decide_for(inputs, policy));
            return Ok(PruneOrder::of(self.database, &decisions, &self.points, policy));
        };
        let known = self.points.iter().find(|point| point.id == id);
        let point = known.ok_or(PruneError::Unknown { point: id })?;
        self.with(|inputs| PruneOrder::of_one(inputs, point))
    }

    fn into_table(self, policy: Option<PolicyId>, order: PruneOrder) -> DatabaseRetention {
        let name = self.points.last().map(|point| point.database_name.clone()).unwrap_or_default();
        let decisions = self.with(|inputs| decide_for(inputs, policy));
        let Self { database, points, segments, .. } = self;
        DatabaseRetention { database, name, points, segments, decisions, order }
    }
}

/// What keeps the snapshots of a point at the storage. What is gone is kept by nobody.
///
/// # Errors
/// When a provider could not be asked.
pub(crate) async fn locks(
    services: &Services,
    cx: &Cx,
    point: &RestorePoint,
) -> Result<Protected, Failure> {
    let mut protected = Protected::default();
    for member in &point.members {
        let provider = services.provider(&member.snapshot.volume.provider)?;
        let Some(side) = provider.lock() else { continue };
        match side.keeps(cx, &member.snapshot).await {
            Ok(keeps) => {
                protected.holds.extend(keeps.holds.iter().map(ToString::to_string));
                protected.locked_until = protected.locked_until.max(keeps.locked_until);
            }
            Err(error) if *error.kind() == ProviderErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(point = %point.id, code = %error.code(), %error, "the locks of a point cannot be asked for");
                return Err(error.into());
            }
        }
    }
    Ok(protected)
}
