//! What is kept in the catalogue: policies, groups, jobs, restore points, topology.

use std::collections::{BTreeMap, BTreeSet};

use stillpoint_catalog::{CatalogExt, JobQuery, PointQuery};
use stillpoint_context::JobId;
use stillpoint_model::fork::ChainFork;
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::id::{DatabaseId, GroupId, PointId, PolicyId};
use stillpoint_model::inventory::Inventory;
use stillpoint_model::job::Job;
use stillpoint_model::point::RestorePoint;
use stillpoint_model::policy::Policy;
use stillpoint_model::topology::Topology;
use stillpoint_model::window::RecoveryWindow;

use crate::Stillpoint;
use crate::draft::Draft;
use crate::error::Error;

impl Stillpoint {
    /// Stores a policy; a changed one as its next version.
    ///
    /// # Errors
    /// When it breaks a rule of its own, when a hook of it could not be run (`hook.no_runner`, or as
    /// [`HookRunner::check`](crate::HookRunner::check)), or the catalogue fails; `retention.snapshot_budget_exceeded` where it
    /// would keep more snapshots of a volume of one of its groups than that can hold.
    pub async fn save_policy(&self, policy: &Policy) -> Result<(), Error> {
        let draft = Draft { policies: vec![policy.clone()], ..Draft::default() };
        self.save_draft(&draft).await.map(drop)
    }

    /// The newest version of a policy.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn policy(&self, id: PolicyId) -> Result<Option<Policy>, Error> {
        Ok(self.services().catalog.policy(id, None).await?)
    }

    /// The newest version of every policy, by name.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn policies(&self) -> Result<Vec<Policy>, Error> {
        Ok(self.services().catalog.policies().await?)
    }

    /// Stores a resource group; a changed one as its [next version](ResourceGroup::edit). A schedule that is attached to it anew
    /// counts from now.
    ///
    /// # Errors
    /// `group.version_conflict` if it does not follow what is stored: somebody else has changed it meanwhile (see
    /// [`change_group`](Self::change_group)).
    /// When it breaks a rule of its own, its snapshots cannot be named as it says (`naming.template_invalid`), or the catalogue
    /// fails; `retention.snapshot_budget_exceeded` where its policies would keep more snapshots of a volume than that can hold.
    pub async fn save_group(&self, group: &ResourceGroup) -> Result<(), Error> {
        let draft = Draft { groups: vec![group.clone()], ..Draft::default() };
        self.save_draft(&draft).await.map(drop)
    }

    /// A resource group.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn group(&self, id: GroupId) -> Result<Option<ResourceGroup>, Error> {
        Ok(self.services().catalog.group(id).await?)
    }

    /// Every resource group, by name.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn groups(&self) -> Result<Vec<ResourceGroup>, Error> {
        Ok(self.services().catalog.groups().await?)
    }

    /// Every job, newest first: those of the catalogue, and those under way, here or elsewhere, as they are now.
    ///
    /// # Errors
    /// Of the catalogue.
    ///
    /// # Complexity
    /// O(jobs, and records of the runs that are open elsewhere).
    pub async fn jobs(&self) -> Result<Vec<Job>, Error> {
        // Those under way first: one that ends meanwhile is stored before it is forgotten here, so it is not missed.
        let open = self.live().open();
        let mut jobs = self.services().catalog.all_jobs(&JobQuery::all()).await?;
        let is_here = |job: &Job| open.iter().any(|open| open.id == job.id);
        for job in jobs.iter_mut().filter(|job| job.ended_at.is_none()) {
            if !is_here(job) {
                self.look_up(job).await;
            }
        }
        for open in open {
            match jobs.iter_mut().find(|job| job.id == open.id) {
                // It has ended meanwhile.
                Some(stored) if stored.ended_at.is_some() => {}
                Some(stored) => *stored = open,
                None => jobs.push(open),
            }
        }
        jobs.sort_by_key(|job| std::cmp::Reverse((job.created_at, job.id)));
        Ok(jobs)
    }

    /// A job, as it is now.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        if let Some(live) = self.live().find(id) {
            return Ok(Some(live.snapshot()));
        }
        let mut job = self.services().catalog.job(id).await?;
        if let Some(job) = &mut job {
            self.look_up(job).await;
        }
        Ok(job)
    }

    /// A restore point.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn point(&self, id: PointId) -> Result<Option<RestorePoint>, Error> {
        Ok(self.services().catalog.point(id).await?)
    }

    /// Where the chain of a database's logs forked, in order: its restores in place.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn forks(&self, database: DatabaseId) -> Result<Vec<ChainFork>, Error> {
        Ok(self.services().catalog.forks(database).await?)
    }

    /// All copies of the data in one view: databases, their copies on servers, their restore points. Asks the plug-in for
    /// what there is.
    ///
    /// # Errors
    /// Of the plug-in and the catalogue.
    pub async fn topology(&self) -> Result<Topology, Error> {
        let discovery = self.discover().await?;
        self.topology_with(Some(&discovery.inventory)).await
    }

    /// The same from the catalogue alone, for when the servers cannot be asked.
    ///
    /// # Errors
    /// Of the catalogue.
    pub async fn topology_of_catalog(&self) -> Result<Topology, Error> {
        self.topology_with(None).await
    }

    /// The same of one database, whatever else the catalogue holds.
    ///
    /// # Errors
    /// Of the catalogue.
    ///
    /// # Complexity
    /// As many reads as the database has points.
    pub async fn topology_of(&self, database: DatabaseId) -> Result<Topology, Error> {
        let points = self.services().catalog.all_points(&PointQuery::of(database)).await?;
        self.topology_over(None, &points).await
    }

    /// What a database can be brought back to, and why not to the rest. Asks the plug-in for what there is, as circular logging
    /// leaves nothing but the instants of the backups; see [`topology_of_catalog`](Self::topology_of_catalog) for windows
    /// without that.
    ///
    /// # Errors
    /// `not_found` for a database that neither exists nor has restore points; of the plug-in and the catalogue.
    pub async fn recovery_window(&self, database: DatabaseId) -> Result<RecoveryWindow, Error> {
        let inventory = self.discover().await?.inventory;
        let points = self.services().catalog.all_points(&PointQuery::of(database)).await?;
        let known = inventory.databases.get(&database);
        if known.is_none() && points.is_empty() {
            return Err(Error::NotFound { kind: "database", id: database.to_string() });
        }
        let circular = known.is_some_and(|known| known.circular_logging);
        let forks = self.forks(database).await?;
        Ok(RecoveryWindow::of_forked(database, &points, &forks, circular))
    }

    async fn topology_with(&self, inventory: Option<&Inventory>) -> Result<Topology, Error> {
        let points = self.services().catalog.all_points(&PointQuery::all()).await?;
        self.topology_over(inventory, &points).await
    }

    async fn topology_over(
        &self,
        inventory: Option<&Inventory>,
        points: &[RestorePoint],
    ) -> Result<Topology, Error> {
        let mut forks = BTreeMap::new();
        for database in points.iter().map(|point| point.database).collect::<BTreeSet<_>>() {
            let _none = forks.insert(database, self.forks(database).await?);
        }
        Ok(Topology::of_forked(inventory, points, &forks))
    }
}
