//! Policies, and what they are made of.

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use stillpoint_context::HostId;
use stillpoint_model::hook::Hook;
use stillpoint_model::id::PolicyId;
use stillpoint_model::kind::BackupKind;
use stillpoint_model::policy::{
    CopySelection, FrequencyClass, Gfs, LogRetention, MOST_DAYS, MOST_KEPT, MultipleTruncating,
    OnMiss, OnPartial, Policy, Retention, Verification,
};
use uuid::Uuid;

use super::Broken;
use super::hook::{broken_hooks, hooks};
use super::organisation::{SERVERS, host};

/// Names of policies, groups and schedules: short and plain, or with anything in them that may be.
pub fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[A-Z][a-z]{0,9}",
        1 => "[a-zA-Z0-9äöüß日本][ a-zA-Z0-9äöüß日本._/-]{0,30}[a-zA-Z0-9äöüß日本]",
        1 => "[x]{250}",
    ]
}

/// Texts that are no names, for one reason each.
pub(super) fn broken_names() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("   ".to_owned()),
        " [a-z]{1,5}",
        "[a-z]{1,5}\t",
        "[a-z]{1,5}\u{7}[a-z]{1,5}",
        "[x]{251,300}",
    ]
}

fn nonzero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// Rules of what is kept: none, one or several of them, small numbers and the largest that may be.
pub fn retentions() -> impl Strategy<Value = Retention> {
    let count = prop_oneof![6 => 1..20_u32, 1 => Just(MOST_KEPT)];
    let days = prop_oneof![6 => 1..60_u32, 1 => Just(36_500_u32)];
    let gfs = (0..25_u32, 0..15_u32, 0..6_u32, 0..13_u32, 0..8_u32);
    (option::of(count), option::of(days), option::of(gfs), 1..5_u32).prop_map(
        |(count, within_days, gfs, least)| {
            let mut retention = Retention::default();
            retention.count = count;
            retention.within_days = within_days;
            retention.gfs = gfs.map(|(hourly, daily, weekly, monthly, yearly)| Gfs {
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
            });
            retention.min_keep = nonzero(least);
            retention
        },
    )
}

/// How long logs are kept.
pub fn log_retentions() -> impl Strategy<Value = LogRetention> {
    prop_oneof![
        Just(LogRetention::AsFulls),
        Just(LogRetention::None),
        (1..10_u32).prop_map(LogRetention::FollowFulls),
        (1..40_u32).prop_map(LogRetention::Days),
    ]
}

/// Some of the servers of an organisation, in any order.
fn servers() -> impl Strategy<Value = Vec<HostId>> {
    let all: Vec<_> = (0..SERVERS).map(host).collect();
    proptest::sample::subsequence(all, 1..=SERVERS).prop_shuffle()
}

fn selections() -> impl Strategy<Value = CopySelection> {
    prop_oneof![
        Just(CopySelection::ActiveOnly),
        servers().prop_map(|hosts| CopySelection::OnHosts { hosts }),
        servers().prop_map(|hosts| CopySelection::ByPreference { hosts }),
        (any::<bool>(), option::of(0..200_u64), any::<bool>()).prop_map(
            |(exclude_lagged, max_replay_queue, fallback_active)| CopySelection::PreferPassive {
                exclude_lagged,
                max_replay_queue,
                fallback_active,
            }
        ),
    ]
}

fn verifications() -> impl Strategy<Value = Verification> {
    prop_oneof![
        Just(Verification::None),
        Just(Verification::AfterCompletion),
        (option::of(1..8_u64), any::<bool>()).prop_map(|(hours, required)| {
            let cap = hours.map(Duration::from_hours);
            Verification::BeforeCompletion { cap, required }
        }),
    ]
}

fn misses() -> impl Strategy<Value = OnMiss> {
    let retry = (1..4_u32, 1..600_u64).prop_map(|(times, seconds)| OnMiss::Retry {
        times: nonzero(times),
        pause: Duration::from_secs(seconds),
    });
    prop_oneof![Just(OnMiss::Fail), retry]
}

fn classes() -> impl Strategy<Value = FrequencyClass> {
    prop_oneof![
        Just(FrequencyClass::OnDemand),
        Just(FrequencyClass::Hourly),
        Just(FrequencyClass::Daily),
        Just(FrequencyClass::Weekly),
        Just(FrequencyClass::Monthly),
        "[a-z]{1,12}".prop_map(FrequencyClass::Custom),
    ]
}

/// Policies that make sense by themselves, of every kind and selection. A limit of the freeze, if there is one, is no longer
/// than the 10 s that [`plannings`](super::plannings) have.
pub fn policies() -> impl Strategy<Value = Policy> {
    let what = (
        names(),
        proptest::sample::select(BackupKind::ALL.to_vec()),
        selections(),
        any::<bool>(),
        any::<bool>(),
        classes(),
    );
    // Most have none.
    let hooks = prop_oneof![4 => Just(Vec::new()), 1 => vec(hooks(), 1..4)];
    let how = (option::of(4..=10_u64), 0..3_u64, misses(), verifications(), any::<bool>(), hooks);
    (1..1000_u128, what, how, retentions(), log_retentions()).prop_map(
        |(id, what, how, retention, logs)| {
            let (name, kind, selection, refuse, promote, class) = what;
            let (limit, margin, on_miss, verification, fails, hooks) = how;
            let mut policy = Policy::new(PolicyId(Uuid::from_u128(id)), name);
            policy.kind = kind;
            policy.selection = selection;
            if refuse {
                policy.multiple_truncating = MultipleTruncating::Refuse;
            }
            policy.promote_log = promote;
            policy.class = class;
            policy.quiesce.limit = limit.map(Duration::from_secs);
            policy.quiesce.thaw_margin = Duration::from_secs(margin);
            policy.quiesce.on_miss = on_miss;
            policy.verification = verification;
            policy.on_partial = if fails { OnPartial::Fail } else { OnPartial::Warn };
            policy.retention = retention;
            policy.log_retention = logs;
            policy.hooks = hooks;
            policy
        },
    )
}

/// How to break a policy.
#[derive(Debug, Clone)]
enum Break {
    Name(String),
    Count(u32),
    Days(u32),
    Grid(usize, u32),
    Least(u32),
    Fulls(u32),
    LogDays(u32),
    NoHosts(bool),
    NoTime,
    Hooks(Vec<Hook>, &'static str),
}

/// Zero, or more than this.
fn out_of_range(most: u32) -> impl Strategy<Value = u32> {
    prop_oneof![Just(0_u32), Just(most + 1), most + 1..=u32::MAX]
}

fn breaks() -> impl Strategy<Value = Break> {
    prop_oneof![
        1 => broken_names().prop_map(Break::Name),
        1 => out_of_range(MOST_KEPT).prop_map(Break::Count),
        1 => out_of_range(MOST_DAYS).prop_map(Break::Days),
        1 => (0..5_usize, MOST_KEPT + 1..=u32::MAX).prop_map(|(grid, places)| Break::Grid(grid, places)),
        1 => (MOST_KEPT + 1..=u32::MAX).prop_map(Break::Least),
        1 => out_of_range(MOST_KEPT).prop_map(Break::Fulls),
        1 => out_of_range(MOST_DAYS).prop_map(Break::LogDays),
        1 => any::<bool>().prop_map(Break::NoHosts),
        1 => Just(Break::NoTime),
        3 => broken_hooks().prop_map(|(hooks, code)| Break::Hooks(hooks, code)),
    ]
}

/// Policies that are valid but for one thing: a name that is none (`V2`), a number of the retention that is out of range (`V5`),
/// a selection that names no server, a freeze of no length, or hooks that break a rule.
pub fn broken_policies() -> impl Strategy<Value = Broken<Policy>> {
    (policies(), breaks()).prop_map(|(mut policy, how)| {
        let (rule, code) = match how {
            Break::Name(name) => {
                policy.name = name;
                ("V2", "policy.name_invalid")
            }
            Break::NoHosts(in_order) => {
                let hosts = Vec::new();
                policy.selection = if in_order {
                    CopySelection::ByPreference { hosts }
                } else {
                    CopySelection::OnHosts { hosts }
                };
                ("", "policy.no_hosts")
            }
            Break::NoTime => {
                policy.quiesce.limit = Some(Duration::ZERO);
                ("", "quiesce.limit_zero")
            }
            Break::Hooks(hooks, code) => {
                policy.hooks = hooks;
                ("", code)
            }
            number => {
                match number {
                    Break::Count(count) => policy.retention.count = Some(count),
                    Break::Days(days) => policy.retention.within_days = Some(days),
                    Break::Grid(grid, places) => {
                        let gfs = policy.retention.gfs.get_or_insert_default();
                        *[
                            &mut gfs.hourly,
                            &mut gfs.daily,
                            &mut gfs.weekly,
                            &mut gfs.monthly,
                            &mut gfs.yearly,
                        ][grid % 5] = places;
                    }
                    Break::Least(least) => policy.retention.min_keep = nonzero(least),
                    Break::Fulls(fulls) => policy.log_retention = LogRetention::FollowFulls(fulls),
                    Break::LogDays(days) => policy.log_retention = LogRetention::Days(days),
                    Break::Name(_) | Break::NoHosts(_) | Break::NoTime | Break::Hooks(..) => {}
                }
                ("V5", "retention.out_of_range")
            }
        };
        Broken::new(policy, rule, code)
    })
}

/// Some policies with ids and names of their own.
pub(super) fn policy_ids() -> impl Strategy<Value = Vec<PolicyId>> {
    vec(1..1000_u128, 0..4).prop_map(|mut ids| {
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().map(|id| PolicyId(Uuid::from_u128(id))).collect()
    })
}
