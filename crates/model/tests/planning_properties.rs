//! What holds for every plan, over organisations made at random.

// A test may stop where it stands, and says how to replay it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use stillpoint_model::capability::{Coordination, ProviderCoordination};
use stillpoint_model::inventory::{CopyRole, CopyStatus};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::planning::{BackupPlan, BaseFull, Decision};
use stillpoint_model::policy::{CopySelection, MultipleTruncating};
use world::{World, db, host, now};

#[derive(Clone, Debug)]
struct Copy {
    database: u128,
    host: usize,
    status: usize,
    data: usize,
    logs: usize,
    lagged: bool,
    preference: u32,
}

fn copies() -> impl Strategy<Value = Vec<Copy>> {
    // Mostly fit states, so that plans are not empty.
    let status = prop_oneof![6 => Just(usize::MAX), 1 => 0..CopyStatus::EXCHANGE.len()];
    let copy =
        (1u128..12, 0usize..4, status, 0usize..14, 0usize..14, prop::bool::weighted(0.2), 1u32..5)
            .prop_map(|(database, host, status, data, logs, lagged, preference)| Copy {
                database,
                host,
                status,
                data,
                logs,
                lagged,
                preference,
            });
    prop::collection::vec(copy, 1..40)
}

fn selection() -> impl Strategy<Value = CopySelection> {
    let hosts = || {
        prop::sample::subsequence(vec![0usize, 1, 2, 3], 1..4)
            .prop_shuffle()
            .prop_map(|hosts| hosts.into_iter().map(|at| host(&format!("ex{at}"))).collect())
    };
    prop_oneof![
        Just(CopySelection::ActiveOnly),
        hosts().prop_map(|hosts| CopySelection::OnHosts { hosts }),
        hosts().prop_map(|hosts| CopySelection::ByPreference { hosts }),
        (any::<bool>(), any::<bool>()).prop_map(|(exclude_lagged, fallback_active)| {
            CopySelection::PreferPassive {
                exclude_lagged,
                max_replay_queue: Some(10),
                fallback_active,
            }
        }),
    ]
}

fn organisation() -> impl Strategy<Value = World> {
    (
        copies(),
        selection(),
        prop::sample::select(BackupKind::ALL.to_vec()),
        (1u32..6, 2u32..8, any::<bool>(), any::<bool>()),
    )
        .prop_map(|(copies, selection, kind, (databases, volumes, refuse, both))| {
            let mut world = World::new();
            world.policy.selection = selection;
            world.policy.kind = kind;
            if refuse {
                world.policy.multiple_truncating = MultipleTruncating::Refuse;
            }
            if both {
                world.coordinate([Coordination::Engine, Coordination::Plugin]);
            }
            world.provider("array", [ProviderCoordination::Adopt]);
            world.group.batching.max_databases = NonZeroU32::new(databases).unwrap();
            world.group.batching.max_volumes = NonZeroU32::new(volumes).unwrap();
            let mut active = BTreeSet::new();
            for copy in copies {
                let role =
                    if active.insert(copy.database) { CopyRole::Active } else { CopyRole::Passive };
                let place = |at: usize| {
                    // Two volumes are an array's, one is nobody's.
                    match at {
                        0 | 1 => format!("array:v{at}"),
                        2 => "nobody:v".to_owned(),
                        at => format!("sim:v{at}"),
                    }
                };
                let name = format!("ex{}", copy.host);
                // The active copy of a database stays where it was first seen.
                let id = stillpoint_model::id::CopyId::new(db(copy.database), host(&name));
                if world.inventory.copies.contains_key(&id) {
                    continue;
                }
                let id =
                    world.copy(copy.database, &name, role, &place(copy.data), &place(copy.logs));
                world.edit(&id, |known| {
                    if let Some(status) = CopyStatus::EXCHANGE.get(copy.status) {
                        known.status = *status;
                    }
                    if copy.lagged {
                        known.replay_lag = Duration::from_hours(1);
                    }
                    known.activation_preference = NonZeroU32::new(copy.preference);
                });
            }
            for database in world.inventory.databases.keys() {
                world.fulls.insert(*database, BaseFull::new(now(), None));
            }
            world
        })
}

fn check(world: &World, plan: &BackupPlan) {
    // Every copy of every selected database has exactly one decision.
    let mut decided = BTreeMap::new();
    for choice in plan.copies() {
        *decided.entry(choice.copy.clone()).or_insert(0) += 1;
        assert!(!choice.decision.code().is_empty());
    }
    assert_eq!(
        decided.keys().collect::<Vec<_>>(),
        world.inventory.copies.keys().collect::<Vec<_>>()
    );
    assert!(decided.values().all(|&count| count == 1));

    // What is taken is in exactly one set, and nothing else is.
    let taken: BTreeSet<_> =
        plan.copies().filter(|c| c.is_taken()).map(|c| c.copy.clone()).collect();
    let in_sets: Vec<_> =
        plan.sets.iter().flat_map(|set| &set.members).map(|m| m.copy.clone()).collect();
    assert_eq!(in_sets.iter().cloned().collect::<BTreeSet<_>>(), taken);
    assert_eq!(in_sets.len(), taken.len());

    // A database is refused exactly if none of its copies is taken.
    for database in &plan.databases {
        let any = database.copies.iter().any(stillpoint_model::planning::CopyChoice::is_taken);
        assert_eq!(database.refused.is_none(), any, "{database:?}");
    }

    for set in &plan.sets {
        assert!(!set.members.is_empty());
        assert!(set.members.len() <= world.group.batching.max_databases.get() as usize);
        assert!(set.snapshots.len() <= world.group.batching.max_volumes.get() as usize);
        let volumes: BTreeSet<_> = set.snapshots.iter().map(|s| &s.volume).collect();
        assert_eq!(volumes.len(), set.snapshots.len(), "one snapshot a volume");
        for member in &set.members {
            assert_eq!(member.copy.host, set.host, "one server a set");
            // The volumes of one database are together; a log backup has those of the logs.
            let placed = world.placement.of(&member.copy).unwrap();
            let log_only = set.kind == BackupKind::Log;
            let needed = if log_only { placed.logs.iter().collect() } else { placed.volumes() };
            assert!(needed.iter().all(|volume| volumes.contains(*volume)));
            let live = format!("db/{}/live", member.copy.database);
            assert!(set.claims.iter().any(|claim| claim.key == live));
            // Never the active and a passive copy of one database on one volume.
            for other in world.inventory.copies_of(member.copy.database) {
                let both = other.id != member.copy
                    && (other.role == CopyRole::Active) != (member.role == CopyRole::Active);
                let theirs = world.placement.of(&other.id).unwrap().volumes();
                assert!(!both || placed.volumes().is_disjoint(&theirs), "{member:?}");
            }
        }
        let Some(mode) = set.coordination else {
            assert!(set.kind == BackupKind::Log && set.freeze.is_none());
            continue;
        };
        assert!(set.kind != BackupKind::Log && set.freeze.is_some());
        for snapshot in &set.snapshots {
            let caps = &world.providers[&snapshot.volume.provider];
            assert!(caps.coordination.contains(&mode.provider_side()));
        }
    }

    // At most one copy of a database truncates.
    let mut truncating = BTreeMap::new();
    for member in plan.sets.iter().flat_map(|set| &set.members).filter(|m| m.truncates) {
        *truncating.entry(member.copy.database).or_insert(0) += 1;
    }
    assert!(truncating.values().all(|&count| count == 1));
    for choice in plan.copies() {
        if let Decision::Taken { kind, downgraded, .. } = &choice.decision {
            assert_eq!(downgraded.is_some(), *kind != world.policy.kind);
        }
    }

    // No name and no id twice.
    let mut names = BTreeSet::new();
    let mut points = BTreeSet::new();
    for set in &plan.sets {
        for snapshot in &set.snapshots {
            assert!(names.insert((snapshot.volume.clone(), snapshot.name.clone())));
        }
        for member in &set.members {
            assert!(points.insert(member.point));
        }
    }
}

proptest! {
    #![proptest_config(world::seed::seeded("every_plan_keeps_the_rules"))]

    #[test]
    fn every_plan_keeps_the_rules(world in organisation()) {
        let plan = world.plan();
        check(&world, &plan);
        // The same inputs give the same plan.
        prop_assert_eq!(&world.plan(), &plan);
        // And it survives storage.
        let json = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(&serde_json::from_str::<BackupPlan>(&json).unwrap(), &plan);
        prop_assert!(!plan.to_string().is_empty());
    }
}

/// The generator must make plans worth checking.
#[test]
fn most_organisations_have_something_to_back_up() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let full = (0..100)
        .filter(|_| {
            let world = organisation().new_tree(&mut runner).unwrap().current();
            world.plan().sets.iter().map(|set| set.members.len()).sum::<usize>() > 1
        })
        .count();
    assert!(full > 60, "only {full} of 100");
}
