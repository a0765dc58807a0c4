//! The checks, on the catalogue in memory, and on catalogues that are broken on purpose.

// A test may stop where it stands.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_catalog::conformance::{CASES, Subject};
use stillpoint_catalog::{
    Begun, Catalog, CatalogError, Cursor, Debris, JobQuery, Listing, MemoryCatalog, Page,
    PointQuery,
};
use stillpoint_context::JobId;
use stillpoint_model::group::ResourceGroup;
use stillpoint_model::id::{GroupId, PointId, PolicyId};
use stillpoint_model::job::Job;
use stillpoint_model::point::{PointFact, RestorePoint};
use stillpoint_model::policy::Policy;

#[tokio::test]
async fn the_catalogue_in_memory_conforms() {
    for (name, check) in CASES {
        if let Err(flaw) = check(Arc::new(MemoryCatalog::new())).await {
            panic!("{name}: {flaw}");
        }
    }
}

/// What is wrong with a catalogue.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    OneFactAtATime,
    ForgetsRemovals,
    CursorGoesBack,
    OldestFirst,
    LosesThePageEnd,
    IgnoresTheQuery,
    TwoJobsOfAKey,
    LosesPuts,
    OverwritesVersions,
    SharesNames,
    RemovesPoliciesInUse,
    ForgetsDebris,
}

#[derive(Debug)]
struct Broken(Fault, MemoryCatalog);

#[async_trait]
impl Catalog for Broken {
    async fn apply(&self, facts: &[PointFact], cursor: Option<Cursor>) -> Result<(), CatalogError> {
        match self.0 {
            Fault::OneFactAtATime => {
                for fact in facts {
                    self.1.apply(std::slice::from_ref(fact), cursor).await?;
                }
                Ok(())
            }
            Fault::ForgetsRemovals => {
                // Removals only hide what a later publication of another id brings back.
                let renamed: Vec<PointFact> = facts
                    .iter()
                    .filter(|fact| !matches!(fact, PointFact::Removed { .. }))
                    .cloned()
                    .collect();
                self.1.apply(&renamed, cursor).await
            }
            Fault::CursorGoesBack if cursor == Some(Cursor(2)) => {
                Err(CatalogError::NotFound { kind: "cursor", id: "2".into() })
            }
            _ => self.1.apply(facts, cursor).await,
        }
    }
    async fn cursor(&self) -> Result<Option<Cursor>, CatalogError> {
        self.1.cursor().await
    }
    async fn point(&self, id: PointId) -> Result<Option<RestorePoint>, CatalogError> {
        self.1.point(id).await
    }
    async fn points(
        &self,
        query: &PointQuery,
        page: &Page,
    ) -> Result<Listing<RestorePoint>, CatalogError> {
        let all = PointQuery::all();
        let query = if self.0 == Fault::IgnoresTheQuery { &all } else { query };
        let mut listing = self.1.points(query, page).await?;
        match self.0 {
            Fault::OldestFirst => listing.items.reverse(),
            Fault::LosesThePageEnd if listing.next.is_some() => {
                listing.items.pop();
            }
            _ => {}
        }
        Ok(listing)
    }
    async fn begin_job(&self, job: &Job) -> Result<Begun, CatalogError> {
        if self.0 == Fault::TwoJobsOfAKey {
            let mut job = job.clone();
            job.key = format!("{}-{}", job.key, job.id).parse().unwrap();
            return self.1.begin_job(&job).await;
        }
        self.1.begin_job(job).await
    }
    async fn put_job(&self, job: &Job) -> Result<(), CatalogError> {
        if self.0 == Fault::LosesPuts { Ok(()) } else { self.1.put_job(job).await }
    }
    async fn job(&self, id: JobId) -> Result<Option<Job>, CatalogError> {
        self.1.job(id).await
    }
    async fn jobs(&self, query: &JobQuery, page: &Page) -> Result<Listing<Job>, CatalogError> {
        self.1.jobs(query, page).await
    }
    async fn put_policy(&self, policy: &Policy) -> Result<(), CatalogError> {
        let stored = self.1.put_policy(policy).await;
        match (self.0, &stored) {
            (Fault::OverwritesVersions, Err(CatalogError::Version { .. }))
            | (Fault::SharesNames, Err(CatalogError::NameTaken { .. })) => Ok(()),
            _ => stored,
        }
    }
    async fn policy(
        &self,
        id: PolicyId,
        version: Option<NonZeroU32>,
    ) -> Result<Option<Policy>, CatalogError> {
        self.1.policy(id, version).await
    }
    async fn policies(&self) -> Result<Vec<Policy>, CatalogError> {
        self.1.policies().await
    }
    async fn remove_policy(&self, id: PolicyId) -> Result<(), CatalogError> {
        let removed = self.1.remove_policy(id).await;
        if self.0 == Fault::RemovesPoliciesInUse { Ok(()) } else { removed }
    }
    async fn put_group(&self, group: &ResourceGroup) -> Result<(), CatalogError> {
        self.1.put_group(group).await
    }
    async fn group(&self, id: GroupId) -> Result<Option<ResourceGroup>, CatalogError> {
        self.1.group(id).await
    }
    async fn groups(&self) -> Result<Vec<ResourceGroup>, CatalogError> {
        self.1.groups().await
    }
    async fn remove_group(&self, id: GroupId) -> Result<(), CatalogError> {
        self.1.remove_group(id).await
    }
    async fn put_debris(&self, debris: &Debris) -> Result<(), CatalogError> {
        if self.0 == Fault::ForgetsDebris { Ok(()) } else { self.1.put_debris(debris).await }
    }
    async fn debris(&self) -> Result<Vec<Debris>, CatalogError> {
        self.1.debris().await
    }
    async fn remove_debris(&self, key: &str) -> Result<(), CatalogError> {
        self.1.remove_debris(key).await
    }
}

#[tokio::test]
async fn each_broken_catalogue_is_caught() {
    for (fault, by) in [
        (Fault::OneFactAtATime, "facts_are_all_or_nothing"),
        (Fault::ForgetsRemovals, "removed_points_stay_removed"),
        (Fault::CursorGoesBack, "the_cursor_never_goes_back"),
        (Fault::OldestFirst, "pages_show_everything_once"),
        (Fault::LosesThePageEnd, "pages_show_everything_once"),
        (Fault::IgnoresTheQuery, "queries_choose"),
        (Fault::TwoJobsOfAKey, "a_request_is_one_job"),
        (Fault::LosesPuts, "jobs_are_listed_newest_first"),
        (Fault::OverwritesVersions, "policies_keep_their_versions"),
        (Fault::SharesNames, "names_are_unique"),
        (Fault::RemovesPoliciesInUse, "a_policy_in_use_stays"),
        (Fault::ForgetsDebris, "debris_is_kept_until_removed"),
    ] {
        let mut caught = Vec::new();
        for (name, check) in CASES {
            let subject: Subject = Arc::new(Broken(fault, MemoryCatalog::new()));
            if check(subject).await.is_err() {
                caught.push(*name);
            }
        }
        assert!(caught.contains(&by), "{fault:?} was caught by {caught:?} only");
    }
}
