//! Resource groups.

use std::num::NonZeroU32;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use stillpoint_model::group::{ResourceGroup, Selector};
use stillpoint_model::id::GroupId;
use uuid::Uuid;

use super::Broken;
use super::organisation::{DATABASES, SERVERS, dag, database, host};
use super::policy::{broken_names, names, policy_ids};

fn selectors() -> impl Strategy<Value = Selector> {
    prop_oneof![
        2 => Just(Selector::Everything),
        4 => (1..=DATABASES).prop_map(|number| Selector::Database(database(number))),
        1 => Just(Selector::Dag(dag())),
        1 => (0..SERVERS).prop_map(|number| Selector::Host(host(number))),
    ]
}

/// Name templates that can be used, with a token that is unique or without.
fn templates() -> impl Strategy<Value = String> {
    let token = proptest::sample::select(vec![
        "{group}", "{policy}", "{host}", "{kind}", "{class}", "{time}", "{run}",
    ]);
    vec(prop_oneof![token.prop_map(str::to_owned), "[a-z_-]{1,8}"], 1..6)
        .prop_map(|pieces| pieces.concat())
}

/// Groups that make sense by themselves: of databases, servers and the DAG of an [`organisation`](super::organisations), whether
/// or not that has them.
pub fn groups() -> impl Strategy<Value = ResourceGroup> {
    let limits = (1..40_u32, 2..80_u32);
    let members = vec(selectors(), 1..6);
    let tags = btree_map("[a-z]{1,8}", "[a-z0-9]{0,8}", 0..3);
    (1..1000_u128, names(), members, policy_ids(), limits, option::of(templates()), tags).prop_map(
        |(id, name, mut members, policies, (databases, volumes), naming, tags)| {
            members.sort();
            members.dedup();
            let mut group = ResourceGroup::new(GroupId(Uuid::from_u128(id)), name, members);
            group.policies = policies;
            let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
            group.batching.max_databases = number(databases);
            group.batching.max_volumes = number(volumes);
            group.naming = naming;
            group.tags = tags;
            group
        },
    )
}

/// Groups that are valid but for one thing: a name that is none (`V1`), or no members.
pub fn broken_groups() -> impl Strategy<Value = Broken<ResourceGroup>> {
    (groups(), option::of(broken_names())).prop_map(|(mut group, name)| {
        if let Some(name) = name {
            group.name = name;
            return Broken::new(group, "V1", "group.name_invalid");
        }
        group.members.clear();
        Broken::new(group, "", "group.empty")
    })
}
