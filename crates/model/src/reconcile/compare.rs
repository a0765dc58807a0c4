//! The comparison.

use std::collections::{BTreeMap, BTreeSet};

use super::{Comparison, Finding, FoundManifest, KnownPoint, Owner, Sight, Thing, Verdict};
use crate::id::{PointId, SetToken, SnapshotRef};
use crate::point::PointState;

/// Snapshots and manifests of ours that no point of the catalogue accounts for, by set.
#[derive(Debug, Default)]
struct Left<'a> {
    snapshots: BTreeSet<SnapshotRef>,
    manifests: BTreeMap<PointId, &'a KnownPoint>,
    /// Those of points that are known to be removed.
    removed: BTreeMap<PointId, &'a KnownPoint>,
}

pub(super) fn compare(sight: &Sight) -> Comparison {
    let shown: BTreeMap<&SnapshotRef, Option<&SetToken>> =
        sight.snapshots.iter().map(|(snapshot, token)| (snapshot, token.as_ref())).collect();
    let known: BTreeSet<PointId> = sight.points.iter().map(|point| point.point).collect();
    let members: BTreeSet<&SnapshotRef> =
        sight.points.iter().flat_map(|point| &point.members).collect();
    let mut findings: BTreeMap<Thing, Finding> = BTreeMap::new();
    let mut add = |thing: Thing, set: Option<&SetToken>, verdict| {
        findings.insert(thing.clone(), Finding { thing, set: set.cloned(), verdict });
    };

    for point in &sight.points {
        add(Thing::Point(point.point), Some(&point.set), of_point(sight, &shown, point));
    }
    let mut sets: BTreeMap<&SetToken, Left<'_>> = BTreeMap::new();
    for (snapshot, token) in &shown {
        match token {
            None => add(Thing::Snapshot((*snapshot).clone()), None, Verdict::Foreign),
            Some(_) if members.contains(snapshot) => {}
            Some(token) => {
                sets.entry(token).or_default().snapshots.insert((*snapshot).clone());
            }
        }
    }
    for (point, content) in readable(&sight.manifests) {
        match content {
            _ if known.contains(&point) => {}
            Ok(content) => {
                let left = sets.entry(&content.set).or_default();
                let is_removed = sight.removed.contains(&point);
                let of = if is_removed { &mut left.removed } else { &mut left.manifests };
                of.insert(point, content);
            }
            Err(why) => {
                let why = format!("its manifest cannot be read: {why}");
                add(Thing::Manifest(point), None, Verdict::Unreadable { why });
            }
        }
    }
    let mut told = BTreeSet::new();
    for (token, left) in &sets {
        let verdict = of_set(sight, &shown, token, left);
        // A leftover says nothing of the other manifests of its set.
        if matches!(verdict, None | Some(Verdict::Leftover { .. })) {
            for (point, manifest) in &left.manifests {
                add(Thing::Manifest(*point), Some(token), stray(sight, token, manifest));
            }
        }
        if let Some(verdict) = verdict {
            told.insert(*token);
            add(Thing::Set((*token).clone()), Some(token), verdict);
        }
    }
    for token in sight.noted.keys().filter(|token| !told.contains(token)) {
        // One that lies where nobody can look is not gone.
        let verdict = match first_unseen(sight) {
            Some(why) => Verdict::Unknown { why },
            None => Verdict::Settled,
        };
        add(Thing::Set(token.clone()), Some(token), verdict);
    }
    Comparison { findings: findings.into_values().collect() }
}

/// Each manifest once: one that can be read, if any copy of it can.
fn readable(manifests: &[FoundManifest]) -> BTreeMap<PointId, Result<&KnownPoint, &String>> {
    let mut best: BTreeMap<PointId, Result<&KnownPoint, &String>> = BTreeMap::new();
    for manifest in manifests {
        let content = manifest.content.as_ref();
        let better = best.get(&manifest.point).is_none_or(|known| match (known, content) {
            (Err(_), Ok(_)) => true,
            (Ok(_), Err(_)) => false,
            // Copies that differ: whatever the order in which they came.
            (Ok(known), Ok(content)) => content.members > known.members,
            (Err(known), Err(why)) => why < *known,
        });
        if better {
            best.insert(manifest.point, content);
        }
    }
    best
}

fn of_point(
    sight: &Sight,
    shown: &BTreeMap<&SnapshotRef, Option<&SetToken>>,
    point: &KnownPoint,
) -> Verdict {
    if point.state == PointState::Expiring {
        return Verdict::Owned(Owner::Deletion);
    }
    if sight.open.contains(&point.run) {
        return Verdict::Owned(Owner::Run(point.run));
    }
    let is_unseen = |snapshot: &&SnapshotRef| {
        !shown.contains_key(*snapshot) && !sight.seen.contains(&snapshot.volume)
    };
    let is_lost = |snapshot: &&SnapshotRef| {
        !shown.contains_key(*snapshot)
            && (sight.seen.contains(&snapshot.volume) || point.lost.contains(*snapshot))
    };
    let lost: BTreeSet<SnapshotRef> = point.members.iter().filter(is_lost).cloned().collect();
    let unseen = point.members.iter().find(is_unseen);
    if !lost.is_empty() {
        let is_news = lost != point.lost;
        return Verdict::Missing { lost, is_news };
    }
    if let Some(unseen) = unseen {
        let why = sight.unseen.get(&unseen.volume).map_or("nobody looked", String::as_str);
        return Verdict::Unknown { why: format!("{} was not seen: {why}", unseen.volume) };
    }
    if point.lost.is_empty() { Verdict::Whole } else { Verdict::Back }
}

fn owner(sight: &Sight, token: &SetToken) -> Option<Owner> {
    let run = token.parts().map(|(run, _)| run);
    let open = run.filter(|run| sight.open.contains(run)).map(Owner::Run);
    let pending = || sight.pending.contains(token).then_some(Owner::Pending);
    let debris = || sight.debris.contains(token).then_some(Owner::Debris);
    open.or_else(pending).or_else(debris)
}

/// The points whose manifests tell only of what is there, under the token of their set.
fn whole(
    sight: &Sight,
    shown: &BTreeMap<&SnapshotRef, Option<&SetToken>>,
    left: &Left<'_>,
) -> BTreeSet<PointId> {
    let is_whole = |manifest: &KnownPoint| {
        let is_there = |member: &SnapshotRef| shown.get(member) == Some(&Some(&manifest.set));
        !manifest.members.is_empty()
            && manifest.members.iter().all(is_there)
            && !sight.open.contains(&manifest.run)
    };
    let whole = left.manifests.iter().filter(|(_, manifest)| is_whole(manifest));
    whole.map(|(point, _)| *point).collect()
}

/// What the snapshots of a set are, with what tells of them; none where there are but manifests of nothing.
fn of_set(
    sight: &Sight,
    shown: &BTreeMap<&SnapshotRef, Option<&SetToken>>,
    token: &SetToken,
    left: &Left<'_>,
) -> Option<Verdict> {
    // Points that are adopted may lie on snapshots that other points have as well.
    let points = whole(sight, shown, left);
    if left.snapshots.is_empty() && left.removed.is_empty() && points.is_empty() {
        return None;
    }
    let runs = left.manifests.values().chain(left.removed.values()).map(|manifest| manifest.run);
    let open = || runs.into_iter().find(|run| sight.open.contains(run)).map(Owner::Run);
    if let Some(owner) = owner(sight, token).or_else(open) {
        return Some(Verdict::Owned(owner));
    }
    if !points.is_empty() {
        return Some(Verdict::Adoptable { points });
    }
    let since = sight.noted.get(token).copied();
    let stays = stays(sight, token, since);
    let snapshots = left.snapshots.clone();
    let tells = |manifests: &BTreeMap<PointId, &KnownPoint>, snapshot: &SnapshotRef| {
        manifests.values().any(|manifest| manifest.members.contains(snapshot))
    };
    let is_removed = |snapshot| tells(&left.removed, snapshot) && !tells(&left.manifests, snapshot);
    if snapshots.iter().all(is_removed) {
        let points = left.removed.keys().copied().collect();
        return Some(Verdict::Leftover { points, snapshots, since, stays });
    }
    let why = match left.manifests.keys().next() {
        Some(point) => format!("the manifest of {point} tells of more than is there"),
        None if left.removed.is_empty() => "there is no manifest of it".to_owned(),
        None => "no manifest tells of all of it".to_owned(),
    };
    Some(Verdict::Orphan { snapshots, why, since, stays })
}

/// Why an orphan or a leftover is not to be deleted now.
fn stays(
    sight: &Sight,
    token: &SetToken,
    since: Option<chrono::DateTime<chrono::Utc>>,
) -> Option<String> {
    if token.parts().is_none() {
        return Some("its token names no run of ours".to_owned());
    }
    let Some(since) = since else { return Some("it was not noted before".to_owned()) };
    let Some(grace) = sight.grace else { return Some("what is nobody's is kept".to_owned()) };
    let Some(due) = since.checked_add_signed(grace) else {
        return Some("its grace has no end".to_owned());
    };
    if due.max(since) > sight.now {
        return Some(format!("it is left alone until {}", due.format("%Y-%m-%dT%H:%M:%SZ")));
    }
    if let Some(why) = &sight.unread {
        return Some(format!("there may be a manifest of it: {why}"));
    }
    // One that a later version wrote, or that is damaged, may be of these snapshots.
    let may_be_of_it = |(point, read): &(PointId, Result<&KnownPoint, &String>)| {
        read.is_err() && !sight.removed.contains(point)
    };
    if let Some((point, _)) = readable(&sight.manifests).into_iter().find(may_be_of_it) {
        return Some(format!("the manifest of {point} cannot be read, and may be of it"));
    }
    // A member that was not seen may make its manifest whole.
    first_unseen(sight)
}

fn first_unseen(sight: &Sight) -> Option<String> {
    let (volume, why) = sight.unseen.first_key_value()?;
    Some(format!("{volume} was not seen: {why}"))
}

fn stray(sight: &Sight, token: &SetToken, manifest: &KnownPoint) -> Verdict {
    let open = sight.open.contains(&manifest.run).then_some(Owner::Run(manifest.run));
    if let Some(owner) = open.or_else(|| owner(sight, token)) {
        return Verdict::Owned(owner);
    }
    match manifest.members.iter().find(|member| !sight.seen.contains(&member.volume)) {
        Some(member) => Verdict::Unknown { why: format!("{} was not seen", member.volume) },
        None => Verdict::Stray,
    }
}
