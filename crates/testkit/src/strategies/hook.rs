//! Hooks of policies.

use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use stillpoint_model::hook::{Hook, HookPhase, LONGEST_HOOK, MOST_HOOKS, OnHookFailure, VARIABLES};

/// Hooks that make sense by themselves: of every phase that there may be, with plain paths and odd ones, without time to spare and
/// with all that there may be, some with words and variables of their own.
pub fn hooks() -> impl Strategy<Value = Hook> {
    let program = prop_oneof![
        4 => "[a-z]{1,8}",
        1 => "[a-z]{1,4}(/[a-z0-9_-]{1,4}){1,3}\\.sh",
        1 => "[a-zäöü日本]( ?[a-z'\"$;&]){0,6}[a-z]",
    ];
    let word = prop_oneof![3 => "[a-z0-9=-]{0,8}", 1 => "[ -~äß\n\t]{0,20}"];
    let variables = btree_map("[A-R_][A-Z0-9_]{0,8}", word.clone(), 0..3);
    let time = prop_oneof![
        6 => (1..600_000_u64).prop_map(Duration::from_millis),
        1 => Just(LONGEST_HOOK),
    ];
    let means = prop_oneof![
        Just(OnHookFailure::Fail),
        Just(OnHookFailure::Warn),
        Just(OnHookFailure::Ignore),
    ];
    let phase = proptest::sample::select(HookPhase::ALLOWED.to_vec());
    (phase, program, vec(word, 0..3), variables, time, means).prop_map(
        |(phase, program, args, env, time, means)| {
            let mut hook = Hook::new(phase, program).with_args(args);
            hook.env = env;
            hook.with_timeout(time).on_failure(means)
        },
    )
}

/// How to break the hooks of a policy, and the code that says so.
pub(super) fn broken_hooks() -> impl Strategy<Value = (Vec<Hook>, &'static str)> {
    let outside = prop_oneof![
        Just("/bin/sh"),
        Just("../sh"),
        Just("a/../../sh"),
        Just("\\\\host\\share\\sh"),
        Just("C:sh"),
        Just("a/... /sh"),
    ];
    let outside = (hooks(), outside).prop_map(|(mut hook, program)| {
        program.clone_into(&mut hook.program);
        (vec![hook], "hook.path_escape")
    });
    let frozen = hooks().prop_map(|mut hook| {
        hook.phase = HookPhase::InFreeze;
        (vec![hook], "hook.phase_forbidden")
    });
    let senseless = (hooks(), 0..4_u8).prop_map(|(mut hook, which)| {
        match which {
            0 => hook.timeout = Duration::ZERO,
            1 => hook.timeout = LONGEST_HOOK + Duration::from_millis(1),
            2 => hook.args.push("\0".to_owned()),
            // One of ours.
            _ => hook = hook.with_variable(format!("{VARIABLES}JOB"), "x"),
        }
        (vec![hook], "hook.invalid")
    });
    let many = hooks().prop_map(|hook| (vec![hook; MOST_HOOKS + 1], "hook.too_many"));
    prop_oneof![outside, frozen, senseless, many]
}
