//! What is found, by examples and by what holds for anything that may be seen.

use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::id::SnapshotId;
use crate::seed::seeded;

fn epoch() -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn id(number: u32) -> PointId {
    PointId(Uuid::from_u128(number.into()))
}

fn run(number: u32) -> RunId {
    RunId(Uuid::from_u128(u128::from(number) + 1000))
}

fn token(number: u32) -> SetToken {
    SetToken::of(&run(number), id(number * 10))
}

fn volume(name: &str) -> VolumeRef {
    format!("sim:{name}").parse().unwrap()
}

fn snapshot(on: &str, number: u32) -> SnapshotRef {
    SnapshotRef::new(volume(on), SnapshotId::new(format!("{on}-{number}")).unwrap())
}

/// The point of a set, with a snapshot on each of two volumes.
fn point(set: u32) -> KnownPoint {
    KnownPoint {
        point: id(set * 10),
        database: DatabaseId(Uuid::from_u128(1)),
        set: token(set),
        run: run(set),
        state: PointState::Available,
        members: [snapshot("data", set), snapshot("logs", set)].into(),
        lost: BTreeSet::new(),
    }
}

/// Two volumes that were seen, with the snapshots of these sets.
fn sight(sets: &[u32]) -> Sight {
    let shown = sets
        .iter()
        .flat_map(|set| ["data", "logs"].map(|on| (snapshot(on, *set), Some(token(*set)))));
    Sight {
        now: epoch(),
        snapshots: shown.collect(),
        seen: [volume("data"), volume("logs")].into(),
        ..Sight::default()
    }
}

fn manifest(of: &KnownPoint) -> FoundManifest {
    FoundManifest { point: of.point, content: Ok(of.clone()) }
}

fn found(sight: &Sight, thing: &Thing) -> Option<Verdict> {
    let comparison = Comparison::of(sight);
    let finding = comparison.findings.into_iter().find(|finding| finding.thing == *thing);
    finding.map(|finding| finding.verdict)
}

#[test]
fn a_point_is_whole_missing_back_or_unknown() {
    let mut seen = sight(&[1]);
    seen.points = vec![point(1)];
    let one = Thing::Point(id(10));
    assert_eq!(found(&seen, &one), Some(Verdict::Whole));
    let lost = BTreeSet::from([snapshot("logs", 1)]);
    seen.snapshots.retain(|(shown, _)| !lost.contains(shown));
    assert_eq!(found(&seen, &one), Some(Verdict::Missing { lost: lost.clone(), is_news: true }));
    seen.points[0].lost.clone_from(&lost);
    assert_eq!(found(&seen, &one), Some(Verdict::Missing { lost: lost.clone(), is_news: false }));
    // What cannot be looked at is not found again, and not missing either.
    seen.seen.remove(&volume("logs"));
    seen.unseen.insert(volume("logs"), "the array is away".into());
    assert_eq!(found(&seen, &one), Some(Verdict::Missing { lost, is_news: false }));
    seen.points[0].lost.clear();
    let why = "sim:logs was not seen: the array is away".to_owned();
    assert_eq!(found(&seen, &one), Some(Verdict::Unknown { why }));
    let mut again = sight(&[1]);
    again.points = vec![point(1)];
    again.points[0].lost.insert(snapshot("data", 1));
    assert_eq!(found(&again, &one), Some(Verdict::Back));
}

#[test]
fn what_is_in_hand_is_left_alone() {
    let mut seen = sight(&[2, 3, 4]);
    let mut expiring = point(1);
    expiring.state = PointState::Expiring;
    let mut creating = point(5);
    creating.state = PointState::Provisional;
    seen.points = vec![expiring, creating];
    seen.open = [run(2), run(5)].into();
    seen.pending = [token(3)].into();
    seen.debris = [token(4)].into();
    seen.manifests = [2, 3, 4].map(|set| manifest(&point(set))).into();
    let owners = [
        (Thing::Point(id(10)), Owner::Deletion),
        (Thing::Point(id(50)), Owner::Run(run(5))),
        (Thing::Set(token(2)), Owner::Run(run(2))),
        (Thing::Set(token(3)), Owner::Pending),
        (Thing::Set(token(4)), Owner::Debris),
    ];
    for (thing, owner) in owners {
        assert_eq!(found(&seen, &thing), Some(Verdict::Owned(owner)), "{thing}");
    }
    assert!(Comparison::of(&seen).acts().is_empty());
}

#[test]
fn an_orphan_is_adopted_if_its_manifest_is_whole_and_deleted_only_after_its_grace() {
    let set = Thing::Set(token(1));
    let mut seen = sight(&[1]);
    seen.grace = Some(TimeDelta::days(7));
    seen.manifests = vec![manifest(&point(1))];
    assert_eq!(found(&seen, &set), Some(Verdict::Adoptable { points: [id(10)].into() }));
    let mut torn = point(1);
    torn.members.insert(snapshot("data", 99));
    seen.manifests = vec![manifest(&torn)];
    assert_eq!(acts(&seen), [Act::Note]);
    seen.noted.insert(token(1), epoch());
    let all = BTreeSet::from([snapshot("data", 1), snapshot("logs", 1)]);
    for (days, expected) in [(0, vec![]), (6, vec![]), (7, vec![Act::Delete { snapshots: all }])] {
        seen.now = epoch() + TimeDelta::days(days);
        assert_eq!(acts(&seen), expected, "after {days} days");
    }
    // Each of these keeps it, however long ago it was noted.
    let due = seen;
    let mut kept = due.clone();
    kept.grace = None;
    assert_eq!(acts(&kept), []);
    let mut kept = due.clone();
    kept.unread = Some("the array is away".into());
    assert_eq!(acts(&kept), []);
    let mut kept = due.clone();
    kept.unseen.insert(volume("other"), "the array is away".into());
    assert_eq!(acts(&kept), []);
    let mut kept = due.clone();
    kept.manifests.push(FoundManifest { point: id(7), content: Err("a newer format".into()) });
    assert_eq!(acts(&kept), []);
    let mut kept = due;
    kept.open.insert(run(1));
    assert_eq!(acts(&kept), []);
}

#[test]
fn a_token_that_names_no_run_is_reported_and_never_deleted() {
    let mut seen = Sight { grace: Some(TimeDelta::zero()), now: epoch(), ..Sight::default() };
    let odd = SetToken::new("somebody-elses").unwrap();
    seen.snapshots = vec![(snapshot("data", 1), Some(odd.clone()))];
    seen.noted.insert(odd.clone(), epoch() - TimeDelta::days(900));
    assert!(matches!(found(&seen, &Thing::Set(odd)), Some(Verdict::Orphan { stays: Some(_), .. })));
    assert!(Comparison::of(&seen).acts().is_empty());
}

fn acts(seen: &Sight) -> Vec<Act> {
    Comparison::of(seen).acts().into_values().flatten().collect()
}

#[test]
fn what_comes_back_of_a_removed_point_is_a_leftover() {
    let set = Thing::Set(token(1));
    let mut seen = sight(&[1]);
    seen.grace = Some(TimeDelta::days(7));
    seen.manifests = vec![manifest(&point(1))];
    seen.removed = [id(10)].into();
    let all = BTreeSet::from([snapshot("data", 1), snapshot("logs", 1)]);
    let stays = Some("it was not noted before".to_owned());
    let (points, snapshots) = (BTreeSet::from([id(10)]), all.clone());
    let wanted =
        Verdict::Leftover { points: points.clone(), snapshots: all.clone(), since: None, stays };
    assert_eq!(found(&seen, &set), Some(wanted));
    assert_eq!(acts(&seen), [Act::Note]);
    seen.noted.insert(token(1), epoch());
    let clear = Act::Clear { points: points.clone(), snapshots };
    for (days, expected) in [(0, vec![]), (6, vec![]), (7, vec![clear.clone()])] {
        seen.now = epoch() + TimeDelta::days(days);
        assert_eq!(acts(&seen), expected, "after {days} days");
    }
    // What keeps an orphan keeps it, but for what cannot be read of removed points.
    let mut kept = seen.clone();
    kept.grace = None;
    assert_eq!(acts(&kept), []);
    let mut kept = seen.clone();
    kept.unseen.insert(volume("other"), "the array is away".into());
    assert_eq!(acts(&kept), []);
    let mut kept = seen.clone();
    kept.debris.insert(token(1));
    assert_eq!(found(&kept, &set), Some(Verdict::Owned(Owner::Debris)));
    let mut more = seen.clone();
    more.manifests.push(FoundManifest { point: id(7), content: Err("a newer format".into()) });
    assert_eq!(acts(&more), []);
    more.removed.insert(id(7));
    assert_eq!(acts(&more), [clear]);
    // Nothing may be left but the manifest.
    let mut alone = seen;
    alone.snapshots.clear();
    assert_eq!(acts(&alone), [Act::Clear { points, snapshots: BTreeSet::new() }]);
}

#[test]
fn beside_the_leftover_of_a_set_others_are_what_they_are() {
    let set = Thing::Set(token(1));
    let mut seen = sight(&[1]);
    let (gone, mut other) = (point(1), point(1));
    other.point = id(11);
    seen.removed = [gone.point].into();
    seen.manifests = vec![manifest(&gone), manifest(&other)];
    // One that is whole is adopted first.
    assert_eq!(found(&seen, &set), Some(Verdict::Adoptable { points: [id(11)].into() }));
    // One that shares a snapshot with it, and is not whole, could be its.
    other.members.insert(snapshot("data", 99));
    seen.manifests[1] = manifest(&other);
    let why = |found: Option<Verdict>| match found {
        Some(Verdict::Orphan { why, .. }) => why,
        other => panic!("it is {other:?}"),
    };
    assert!(why(found(&seen, &set)).contains(&id(11).to_string()));
    // One that lies elsewhere is told by itself.
    other.members = [snapshot("data", 99)].into();
    seen.manifests[1] = manifest(&other);
    assert!(matches!(found(&seen, &set), Some(Verdict::Leftover { .. })));
    assert_eq!(found(&seen, &Thing::Manifest(id(11))), Some(Verdict::Stray));
    // A snapshot that it does not tell of is not of the removed point.
    seen.manifests.truncate(1);
    seen.snapshots.push((snapshot("data", 5), Some(token(1))));
    assert_eq!(why(found(&seen, &set)), "no manifest tells of all of it");
}

#[test]
fn manifests_of_nothing_are_told() {
    let mut seen = sight(&[]);
    seen.manifests = vec![
        manifest(&point(1)),
        FoundManifest { point: id(20), content: Err("it ends too early".into()) },
    ];
    assert_eq!(found(&seen, &Thing::Manifest(id(10))), Some(Verdict::Stray));
    let why = "its manifest cannot be read: it ends too early".to_owned();
    assert_eq!(found(&seen, &Thing::Manifest(id(20))), Some(Verdict::Unreadable { why }));
}

/// Carries out what is to be done.
fn apply(sight: &mut Sight) -> usize {
    let comparison = Comparison::of(sight);
    let acts = comparison.acts();
    let mut done = 0;
    for (set, act) in
        acts.into_iter().flat_map(|(set, acts)| acts.into_iter().map(move |act| (set, act)))
    {
        done += 1;
        let mut known = |wanted: PointId, lost: BTreeSet<SnapshotRef>| {
            let point = sight.points.iter_mut().find(|point| point.point == wanted);
            point.unwrap().lost = lost;
        };
        match act {
            Act::Mark { point, lost } => known(point, lost),
            Act::Unmark { point } => known(point, BTreeSet::new()),
            Act::Adopt { points } => {
                let (adopted, left) = std::mem::take(&mut sight.manifests)
                    .into_iter()
                    .partition(|manifest: &FoundManifest| points.contains(&manifest.point));
                sight.manifests = left;
                let mut told = BTreeSet::new();
                for manifest in adopted {
                    let Ok(content) = manifest.content else { continue };
                    if told.insert(content.point) {
                        sight.points.push(content);
                    }
                }
            }
            Act::Note => {
                sight.noted.insert(set.clone(), sight.now);
            }
            Act::Delete { snapshots } => {
                sight.snapshots.retain(|(shown, _)| !snapshots.contains(shown));
                sight.noted.remove(set);
            }
            Act::Forget => {
                sight.noted.remove(set);
            }
            Act::Clear { points, snapshots } => {
                sight.snapshots.retain(|(shown, _)| !snapshots.contains(shown));
                sight.manifests.retain(|manifest| !points.contains(&manifest.point));
                sight.noted.remove(set);
            }
        }
    }
    done
}

/// Anything that may be seen of five sets.
fn sights() -> impl Strategy<Value = Sight> {
    let set = (
        any::<[bool; 3]>(),
        prop_oneof![Just(None), Just(Some(true)), Just(Some(false))],
        any::<[bool; 4]>(),
        0_u8..4,
        any::<bool>(),
        any::<bool>(),
    );
    let world = (any::<[bool; 2]>(), any::<bool>(), prop::option::of(0_i64..3));
    (prop::collection::vec(set, 5), world).prop_map(|(sets, (seen, unread, grace))| {
        let mut sight = Sight {
            now: epoch() + TimeDelta::days(2),
            grace: grace.map(TimeDelta::days),
            unread: unread.then(|| "away".to_owned()),
            ..Sight::default()
        };
        for (on, is_seen) in ["data", "logs"].iter().zip(seen) {
            if is_seen {
                sight.seen.insert(volume(on));
            } else {
                sight.unseen.insert(volume(on), "away".into());
            }
        }
        for (number, (shown, known, marks, state, lost, removed)) in (1..).zip(sets) {
            for (on, is_shown) in ["data", "logs"].iter().zip(shown) {
                if is_shown && sight.seen.contains(&volume(on)) {
                    sight.snapshots.push((snapshot(on, number), Some(token(number))));
                }
            }
            if shown[2] && sight.seen.contains(&volume("data")) {
                sight.snapshots.push((snapshot("data", 100 + number), None));
            }
            let mut point = point(number);
            point.state = [
                PointState::Available,
                PointState::Provisional,
                PointState::Expiring,
                PointState::LogsOnly,
            ][usize::from(state)];
            if lost {
                point.lost.insert(snapshot("logs", number));
            }
            match known {
                Some(true) => sight.points.push(point),
                Some(false) => sight.manifests.push(manifest(&point)),
                None => {}
            }
            if removed && known == Some(false) {
                sight.removed.insert(id(number * 10));
            }
            let [open, pending, debris, noted] = marks;
            if open {
                sight.open.insert(run(number));
            }
            // Rarer, as both keep everything.
            if pending && debris {
                sight.debris.insert(token(number));
            }
            if noted {
                sight.noted.insert(token(number), epoch());
            }
        }
        sight
    })
}

proptest! {
    #![proptest_config(seeded("reconcile"))]

    #[test]
    fn the_order_does_not_matter(sight in sights(), by in any::<u64>()) {
        let mut other = sight.clone();
        let turn = |length: usize| usize::try_from(by).unwrap_or(0) % length.max(1);
        let (points, shown, manifests) =
            (other.points.len(), other.snapshots.len(), other.manifests.len());
        other.points.rotate_left(turn(points));
        other.snapshots.rotate_left(turn(shown));
        other.snapshots.reverse();
        other.manifests.rotate_left(turn(manifests));
        prop_assert_eq!(Comparison::of(&sight), Comparison::of(&other));
    }

    #[test]
    fn what_is_done_is_done_once(mut sight in sights()) {
        // Adopt, then note what is left, then delete it if it has no grace, then forget the note.
        let mut rounds = 0;
        while apply(&mut sight) > 0 {
            rounds += 1;
            prop_assert!(rounds <= 4, "it goes on for ever");
        }
        let settled = Comparison::of(&sight);
        prop_assert!(settled.acts().is_empty());
        prop_assert_eq!(settled, Comparison::of(&sight));
    }

    #[test]
    fn only_what_is_ours_and_nobodys_is_touched(sight in sights()) {
        let comparison = Comparison::of(&sight);
        let members: BTreeSet<_> = sight.points.iter().flat_map(|point| &point.members).collect();
        for (set, acts) in comparison.acts() {
            for act in acts {
                match act {
                    Act::Delete { snapshots } | Act::Clear { snapshots, .. } => {
                        for snapshot in &snapshots {
                            let shown = sight.snapshots.iter().find(|(shown, _)| shown == snapshot);
                            prop_assert_eq!(shown.unwrap().1.as_ref(), Some(set));
                            prop_assert!(!members.contains(snapshot));
                        }
                        let (run, _) = set.parts().unwrap();
                        prop_assert!(!sight.open.contains(&run) && !sight.debris.contains(set));
                        prop_assert!(sight.unseen.is_empty() && sight.unread.is_none());
                        prop_assert!(sight.now - sight.noted[set] >= sight.grace.unwrap());
                    }
                    Act::Mark { point, lost } => {
                        let known = sight.points.iter().find(|known| known.point == point).unwrap();
                        prop_assert!(known.state != PointState::Expiring);
                        for snapshot in &lost {
                            let is_seen = sight.seen.contains(&snapshot.volume);
                            prop_assert!(is_seen || known.lost.contains(snapshot));
                            prop_assert!(sight.snapshots.iter().all(|(shown, _)| shown != snapshot));
                        }
                    }
                    Act::Adopt { points } => {
                        prop_assert!(sight.points.iter().all(|known| !points.contains(&known.point)));
                        prop_assert!(sight.removed.is_disjoint(&points));
                    }
                    _ => {}
                }
            }
        }
        // And there is a finding for every single thing.
        let things: BTreeSet<_> = comparison.findings.iter().map(|found| &found.thing).collect();
        prop_assert_eq!(things.len(), comparison.findings.len());
        for point in &sight.points {
            prop_assert!(things.contains(&Thing::Point(point.point)));
        }
        let leftovers = comparison.findings.iter().filter_map(|found| match &found.verdict {
            Verdict::Leftover { points, .. } => Some(points),
            _ => None,
        });
        prop_assert!(leftovers.flatten().all(|point| sight.removed.contains(point)));
        for (shown, token) in &sight.snapshots {
            let told = match token {
                None => things.contains(&Thing::Snapshot(shown.clone())),
                Some(token) => {
                    members.contains(shown) || things.contains(&Thing::Set(token.clone()))
                }
            };
            prop_assert!(told, "{} is not told of", shown);
        }
    }
}
