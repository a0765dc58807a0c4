//! What is there, for the comparison: of everything, or of one set.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use stillpoint_catalog::{Catalog, Debris, DebrisKind, Page, PointQuery};
use stillpoint_context::{Cx, ErrorClass, Failure};
use stillpoint_model::id::{PointId, SetToken, SnapshotRef, VolumeRef};
use stillpoint_model::manifest;
use stillpoint_model::reconcile::{FoundManifest, KnownPoint, Sight};
use stillpoint_storage::{Found, SnapshotProvider};

use crate::Stillpoint;
use crate::beside::{self, Told};
use crate::bounds::within;
use crate::error::Error;
use crate::services::Services;

/// The most pages that a listing of a volume may have. One that has more goes round in circles.
const PAGES: usize = 1_000_000;

/// What was seen, and where nobody could look.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) sight: Sight,
    pub(crate) limits: Vec<String>,
}

/// The points of a query, as far as they matter: one page of them is held whole at a time.
pub(crate) async fn known(
    catalog: &dyn Catalog,
    query: &PointQuery,
) -> Result<BTreeMap<PointId, KnownPoint>, Failure> {
    let mut points = BTreeMap::new();
    let mut page = Page::first(Page::LARGEST);
    loop {
        let listing = catalog.points(query, &page).await.map_err(|error| Failure::of(&error))?;
        points.extend(listing.items.iter().map(|point| (point.id, KnownPoint::of(point))));
        match listing.next {
            Some(next) => page.after = Some(next),
            None => return Ok(points),
        }
    }
}

/// Looks at everything. The order matters: what comes to be or goes meanwhile is no finding.
///
/// ```text
///   open runs ─ points ─ volumes ─ names of documents ─ open runs ─ points ─ manifests
///   └ a run that is open at either end, or whose points came between, owns what it made
///            └ what was in a point before and is in none after has been deleted meanwhile
/// ```
pub(crate) async fn everything(
    this: &Stillpoint,
    grace: Option<TimeDelta>,
) -> Result<Looked, Error> {
    let (services, cx) = (this.services(), this.cx());
    let catalog = &*services.catalog;
    let mut limits = Vec::new();
    let mut sight = Sight::at(cx.now(), grace);
    sight.open = services.pump.open_runs().await?;
    services.pump.run(catalog).await?;
    let before = known(catalog, &PointQuery::all()).await?;

    for volume in volumes(this, &before, &mut limits).await {
        let listed = within(this.seams(), this.timeouts().settle, "listing a volume", async {
            Ok(list(services.provider(&volume.provider)?, &cx, &volume).await?)
        });
        match listed.await {
            Ok(shown) => {
                sight.snapshots.extend(shown);
                let _new = sight.seen.insert(volume);
            }
            Err(error) => {
                let _none = sight.unseen.insert(volume, error.to_string());
            }
        }
    }
    let documents = documents(services, &cx).await;

    sight.open.extend(services.pump.open_runs().await?);
    services.pump.run(catalog).await?;
    let after = known(catalog, &PointQuery::all()).await?;
    let came = after.values().filter(|point| !before.contains_key(&point.point));
    sight.open.extend(came.map(|point| point.run));
    let in_points: BTreeSet<&SnapshotRef> =
        after.values().flat_map(|point| &point.members).collect();
    let went: BTreeSet<SnapshotRef> = before
        .values()
        .flat_map(|point| &point.members)
        .filter(|member| !in_points.contains(member))
        .cloned()
        .collect();
    sight.snapshots.retain(|(shown, _)| !went.contains(shown));
    note_debris(&mut sight, &catalog.debris().await?);
    read_manifests(services, &cx, &mut sight, &documents, |point| !after.contains_key(&point))
        .await?;
    limits.extend(sight.unread.clone());
    limits.extend(sight.unseen.iter().map(|(volume, why)| format!("volume {volume}: {why}")));
    sight.points = after.into_values().collect();
    Ok(Looked { sight, limits })
}

/// Looks at one set again, that nobody else deletes from: its points, what the storages have of it, and, if `manifests` says so,
/// every manifest whose point the catalogue does not have.
pub(crate) async fn of_set(
    services: &Services,
    cx: &Cx,
    set: &SetToken,
    manifests: bool,
    grace: Option<TimeDelta>,
) -> Result<Sight, Failure> {
    let mut sight = Sight::at(cx.now(), grace);
    sight.open = services.pump.open_runs().await?;
    services.pump.run(&*services.catalog).await?;
    let mut query = PointQuery::all();
    query.set = Some(set.clone());
    let points = known(&*services.catalog, &query).await?;
    let mut asked = BTreeSet::new();
    for (id, side) in &services.providers {
        match side.find(cx, set).await {
            Ok(Found::Partial(found) | Found::Complete(found)) => {
                let ours = found.iter().map(|shown| (shown.reference(), Some(set.clone())));
                sight.snapshots.extend(ours);
                let _new = asked.insert(id.clone());
            }
            Ok(Found::Absent) => {
                let _new = asked.insert(id.clone());
            }
            Ok(_) => {
                let _new = sight.pending.insert(set.clone());
            }
            Err(error) if points.is_empty() => {
                // What cannot be asked may have the rest of an orphan.
                return Err(error.into());
            }
            Err(error) => tracing::warn!(provider = %id, %error, "a set cannot be looked for"),
        }
    }
    let members = points.values().flat_map(|point| &point.members);
    let members: BTreeSet<&VolumeRef> = members.map(|member| &member.volume).collect();
    for volume in members {
        // A storage that answers may still not have the volume.
        let there = match services.provider(&volume.provider) {
            Ok(side) => side.volumes(cx, std::slice::from_ref(volume)).await.map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        match there {
            Ok(_) if asked.contains(&volume.provider) => {
                let _new = sight.seen.insert(volume.clone());
            }
            Ok(_) => {
                let _none = sight.unseen.insert(volume.clone(), "it did not answer".to_owned());
            }
            Err(failure) => {
                let _none = sight.unseen.insert(volume.clone(), failure.message);
            }
        }
    }
    let debris = services.catalog.debris().await.map_err(|error| Failure::of(&error))?;
    note_debris(&mut sight, &debris);
    sight.noted.retain(|noted, _| noted == set);
    if manifests {
        let documents = documents(services, cx).await;
        let everything = known(&*services.catalog, &PointQuery::all()).await?;
        read_manifests(services, cx, &mut sight, &documents, |id| !everything.contains_key(&id))
            .await?;
        // Others' affairs are no part of it; what cannot be read may be.
        sight.manifests.retain(|found| found.content.as_ref().map_or(true, |of| of.set == *set));
    }
    sight.points = points.into_values().collect();
    Ok(sight)
}

/// The volumes that something of ours may lie on.
async fn volumes(
    this: &Stillpoint,
    points: &BTreeMap<PointId, KnownPoint>,
    limits: &mut Vec<String>,
) -> BTreeSet<VolumeRef> {
    let members = points.values().flat_map(|point| &point.members);
    let mut volumes: BTreeSet<VolumeRef> = members.map(|member| member.volume.clone()).collect();
    let inventory = this.discover();
    let limit = this.timeouts().inventory;
    match within(this.seams(), limit, "taking the inventory", inventory).await {
        Ok(found) => volumes.extend(found.volumes.into_keys()),
        Err(error) => {
            limits
                .push(format!("volumes that no restore point lies on were not looked at: {error}"));
        }
    }
    volumes
}

/// The snapshots of a volume, page by page.
async fn list(
    side: &dyn SnapshotProvider,
    cx: &Cx,
    volume: &VolumeRef,
) -> Result<Vec<(SnapshotRef, Option<SetToken>)>, Failure> {
    let (mut shown, mut page) = (Vec::new(), None);
    for _ in 0..PAGES {
        let listing = side.list(cx, volume, page.clone()).await?;
        let references = listing.snapshots.into_iter();
        shown.extend(references.map(|known| (known.reference(), known.token)));
        if listing.next.is_none() {
            return Ok(shown);
        }
        if listing.next == page {
            break;
        }
        page = listing.next;
    }
    let message = format!("the listing of volume {volume} does not end");
    Err(Failure::new("storage.list_endless", ErrorClass::Internal, message)
        .with_remedy("Report it to the makers of the provider."))
}

/// The points that there are manifests of, and why others may not have been seen.
async fn documents(services: &Services, cx: &Cx) -> (BTreeSet<PointId>, Option<String>) {
    let (mut points, mut unread) = (BTreeSet::new(), None);
    for side in beside::keepers(services) {
        match side.list_docs(cx).await {
            Ok(names) => {
                points.extend(names.iter().filter_map(|name| manifest::point_of(name.as_str())));
            }
            Err(error) => {
                let id = side.caps().provider;
                let _first = unread.get_or_insert(format!("documents of {id}: {error}"));
            }
        }
    }
    (points, unread)
}

/// Reads the manifests of points that are unknown, and which of those were removed.
async fn read_manifests(
    services: &Services,
    cx: &Cx,
    sight: &mut Sight,
    (points, unread): &(BTreeSet<PointId>, Option<String>),
    is_unknown: impl Fn(PointId) -> bool + Send + Sync,
) -> Result<(), Failure> {
    sight.unread.clone_from(unread);
    for point in points.iter().copied().filter(|point| is_unknown(*point)) {
        match beside::read(services, cx, point).await {
            // It went meanwhile.
            Ok(Told::Nothing) => {}
            Ok(Told::Point(told)) => {
                let content = Ok(KnownPoint::of(&told));
                sight.manifests.push(FoundManifest::new(point, content));
            }
            Ok(Told::Unreadable(why)) => sight.manifests.push(FoundManifest::new(point, Err(why))),
            Err(failure) => {
                let _first = sight.unread.get_or_insert(format!("manifest of {point}: {failure}"));
            }
        }
    }
    let found: Vec<PointId> = sight.manifests.iter().map(|found| found.point).collect();
    let removed = services.catalog.removed(&found).await;
    sight.removed = removed.map_err(|error| Failure::of(&error))?;
    Ok(())
}

fn note_debris(sight: &mut Sight, debris: &[Debris]) {
    for left in debris {
        match &left.kind {
            DebrisKind::Snapshots(set) => {
                let _new = sight.debris.insert(set.clone());
            }
            DebrisKind::Orphan(set) => {
                let known: &mut DateTime<Utc> =
                    sight.noted.entry(set.clone()).or_insert(left.since);
                *known = (*known).min(left.since);
            }
            _ => {}
        }
    }
}
