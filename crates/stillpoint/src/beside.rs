//! The documents beside the data: what a catalogue is rebuilt from.
//!
//! ```text
//!   point-<id>.json      a restore point as it was published     written by a backup, and by a prune that leaves its logs
//!   standing-<id>.json   what became of it since                 written when a run is over that was about it
//!   hold-<name>.json     a hold                                  written with the hold
//!   fork-<run>.json      where a chain of logs forked            written by a restore in place
//! ```

use std::collections::{BTreeMap, BTreeSet};

use stillpoint_catalog::{Page, PointQuery};
use stillpoint_context::{Cx, ErrorClass, Failure, RunId};
use stillpoint_model::fork::{self, ChainFork};
use stillpoint_model::hold::{self, Hold};
use stillpoint_model::id::{DatabaseId, PointId, ProviderId};
use stillpoint_model::manifest::{self, Manifest};
use stillpoint_model::point::{PointMember, PointState, RestorePoint, Truncation};
use stillpoint_model::standing::{self, Standing};
use stillpoint_storage::{DocName, SnapshotProvider};

use crate::Stillpoint;
use crate::bounds::within;
use crate::error::Error;
use crate::services::Services;

/// The name of a document.
///
/// # Errors
/// `manifest.name`, which is a defect of ours.
pub(crate) fn name(text: String) -> Result<DocName, Failure> {
    DocName::new(text)
        .map_err(|error| Failure::new("manifest.name", ErrorClass::Internal, error.to_string()))
}

pub(crate) fn manifest_name(point: PointId) -> Result<DocName, Failure> {
    name(manifest::document_name(point))
}

pub(crate) fn standing_name(point: PointId) -> Result<DocName, Failure> {
    name(standing::document_name(point))
}

/// The providers that keep documents.
pub(crate) fn keepers(services: &Services) -> impl Iterator<Item = &dyn SnapshotProvider> {
    services.providers.values().map(AsRef::as_ref).filter(|side| side.caps().documents)
}

/// Takes away what tells of a point. The manifest first: a standing alone tells of nothing.
pub(crate) async fn forget(
    side: &dyn SnapshotProvider,
    cx: &Cx,
    point: PointId,
) -> Result<(), Failure> {
    side.delete_doc(cx, &manifest_name(point)?).await?;
    side.delete_doc(cx, &standing_name(point)?).await?;
    Ok(())
}

/// Tells how a point stands, wherever a part of it lies.
pub(crate) async fn tell(
    services: &Services,
    cx: &Cx,
    point: &RestorePoint,
) -> Result<(), Failure> {
    let text = Standing::of(point).to_json().map_err(|error| Failure::of(&error))?;
    let name = standing_name(point.id)?;
    for side in keepers(services) {
        let id = side.caps().provider;
        if point.members.iter().any(|member| member.snapshot.volume.provider == id) {
            side.put_doc(cx, &name, text.as_bytes()).await?;
        }
    }
    Ok(())
}

/// Writes a hold beside the data of every provider that `lacks` it.
pub(crate) async fn put_hold(
    services: &Services,
    cx: &Cx,
    held: &Hold,
    lacks: impl Fn(&ProviderId, &DocName) -> bool + Send,
) -> Result<(), Failure> {
    let text = held.to_json().map_err(|error| Failure::of(&error))?;
    put_everywhere(services, cx, name(hold::document_name(&held.name))?, &text, lacks).await
}

/// Writes a fork beside the data of every provider that `lacks` it.
pub(crate) async fn put_fork(
    services: &Services,
    cx: &Cx,
    fork: &ChainFork,
    lacks: impl Fn(&ProviderId, &DocName) -> bool + Send,
) -> Result<(), Failure> {
    let text = fork.to_json().map_err(|error| Failure::of(&error))?;
    put_everywhere(services, cx, name(fork::document_name(fork.run))?, &text, lacks).await
}

/// Takes a fork away that is none.
pub(crate) async fn forget_fork(services: &Services, cx: &Cx, run: RunId) -> Result<(), Failure> {
    let name = name(fork::document_name(run))?;
    for side in keepers(services) {
        side.delete_doc(cx, &name).await?;
    }
    Ok(())
}

async fn put_everywhere(
    services: &Services,
    cx: &Cx,
    name: DocName,
    text: &str,
    lacks: impl Fn(&ProviderId, &DocName) -> bool + Send,
) -> Result<(), Failure> {
    for side in keepers(services) {
        if lacks(&side.caps().provider, &name) {
            side.put_doc(cx, &name, text.as_bytes()).await?;
        }
    }
    Ok(())
}

/// What the documents say of a point.
#[derive(Debug)]
pub(crate) enum Told {
    /// There is no manifest of it.
    Nothing,
    /// The point.
    Point(Box<RestorePoint>),
    /// There is one, and it cannot be read.
    Unreadable(String),
}

/// Reads a point from the documents beside the data: the first manifest that can be read, and the standing that knows the most.
///
/// A point whose backup nobody knows the end of is as one whose completion was lost.
///
/// # Errors
/// When a storage could not be asked and no other one has a manifest.
pub(crate) async fn read(services: &Services, cx: &Cx, point: PointId) -> Result<Told, Failure> {
    let (mut found, mut unreadable, mut failed) = (None, None, None);
    let mut best: Option<Standing> = None;
    for side in keepers(services) {
        match side.get_doc(cx, &manifest_name(point)?).await {
            Ok(None) => {}
            Ok(Some(bytes)) => match parse(&bytes) {
                Ok(read) if read.id == point => {
                    let _first = found.get_or_insert(read);
                }
                Ok(read) => unreadable = Some(format!("it is of point {}", read.id)),
                Err(why) => unreadable = Some(why),
            },
            Err(error) => failed = Some(error),
        }
        match side.get_doc(cx, &standing_name(point)?).await {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                let text = String::from_utf8_lossy(&bytes);
                match Standing::from_json(&text) {
                    Ok(standing)
                        if best.as_ref().is_none_or(|b| b.latest() < standing.latest()) =>
                    {
                        best = Some(standing);
                    }
                    Ok(_) => {}
                    // The point is worth having all the same: every byte is checked before it is used.
                    Err(error) => {
                        tracing::warn!(%point, %error, "the standing of a point cannot be read");
                    }
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    match (found, unreadable, failed) {
        // Half of what is said of it is not enough.
        (_, _, Some(error)) => Err(error.into()),
        (Some(mut point), _, None) => {
            if let Some(standing) = best {
                standing.apply(&mut point);
            }
            if point.state == PointState::Provisional {
                point.state = PointState::Available;
                point.truncation = Truncation::Unknown;
            }
            Ok(Told::Point(Box::new(point)))
        }
        (None, Some(why), None) => Ok(Told::Unreadable(why)),
        (None, None, None) => Ok(Told::Nothing),
    }
}

fn parse(bytes: &[u8]) -> Result<RestorePoint, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let manifest = Manifest::from_json(text).map_err(|error| words(&error))?;
    let mut point = manifest.point;
    point.manifest_digest = Some(Manifest::digest(text));
    Ok(point)
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Stillpoint {
    /// Writes what is not beside the data yet and should be: how points stand, holds, and forks.
    pub(crate) async fn tell_unwritten(&self) {
        if let Err(failure) = self.unwritten().await {
            tracing::warn!(%failure, "not all that should be beside the data could be written");
        }
    }

    async fn unwritten(&self) -> Result<(), Failure> {
        let (services, cx) = (self.services(), self.cx());
        let mut names: BTreeMap<ProviderId, BTreeSet<DocName>> = BTreeMap::new();
        for side in keepers(services) {
            let _none = names
                .insert(side.caps().provider, side.list_docs(&cx).await?.into_iter().collect());
        }
        for held in services.catalog.holds().await.map_err(|error| Failure::of(&error))? {
            put_hold(services, &cx, &held, |id, name| {
                !names.get(id).is_some_and(|known| known.contains(name))
            })
            .await?;
        }
        let mut databases: BTreeSet<DatabaseId> = BTreeSet::new();
        let mut page = Page::first(Page::LARGEST);
        loop {
            let listing = services.catalog.points(&PointQuery::all(), &page).await;
            let listing = listing.map_err(|error| Failure::of(&error))?;
            for point in &listing.items {
                let _new = databases.insert(point.database);
                let name = standing_name(point.id)?;
                let lacks = |member: &PointMember| {
                    let known = names.get(&member.snapshot.volume.provider);
                    known.is_some_and(|known| !known.contains(&name))
                };
                // A point whose run is open, or that is being deleted, is told when that is over.
                if point.state == PointState::Available && point.members.iter().any(lacks) {
                    tell(services, &cx, point).await?;
                }
            }
            match listing.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        for database in databases {
            for fork in services.catalog.forks(database).await.map_err(|e| Failure::of(&e))? {
                put_fork(services, &cx, &fork, |id, name| {
                    !names.get(id).is_some_and(|known| known.contains(name))
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Tells beside the data how points stand that a run was about. What cannot be told now is told by a [`repair`](Self::repair)
    /// or at the next change, and nothing but a rebuilt catalogue misses it meanwhile.
    pub(crate) async fn note_standings(&self, points: &[PointId]) {
        let services = self.services();
        let told = async {
            for point in points {
                if let Some(known) = services.catalog.point(*point).await? {
                    tell(services, &self.cx(), &known).await?;
                }
            }
            Ok::<(), Error>(())
        };
        let limit = self.timeouts().publish;
        let told = within(self.seams(), limit, "writing beside the data", told).await;
        if let Err(error) = told {
            tracing::warn!(%error, "how points stand could not be told beside the data");
        }
    }
}
