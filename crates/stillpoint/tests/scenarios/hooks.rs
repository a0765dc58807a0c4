//! What runs before and after, and never in between.

use std::sync::Arc;

use stillpoint::Stillpoint;
use stillpoint::context::ErrorFacts as _;
use stillpoint::exchange::Coordination;
use stillpoint::model::hook::{Hook, HookPhase};
use stillpoint::model::job::JobState;
use stillpoint::workflow::testing::Sim;
use stillpoint::workflow::{NodeKind, NodeNo, Plan};

use crate::common::hooks::Noting;
use crate::common::{BOTH, builder, policy, request, two_arrays};

/// Every node that comes before a node, itself included.
fn before(plan: &Plan, node: NodeNo) -> Vec<NodeNo> {
    let mut seen = vec![node];
    let mut next = 0;
    while let Some(at) = seen.get(next).copied() {
        next += 1;
        for earlier in &plan.node(at).after {
            if !seen.contains(earlier) {
                seen.push(*earlier);
            }
        }
    }
    seen
}

/// Scenario 13: **Hook must not sit in the freeze.** Given a hook with phase inside the freeze, when the policy is saved, then
/// `hook.phase_forbidden`.
///
/// And no phase that is allowed is in it: every hook of a plan is before what freezes or after what thaws.
#[test]
fn s13_hook_must_not_sit_in_the_freeze() {
    for mode in BOTH {
        let (sim, world) = (Sim::new(13), two_arrays(2));
        let noting = Noting::over(&world);
        sim.run(async {
            let this: Stillpoint = builder(&sim, &world, mode, |engine| engine)
                .hooks(Arc::new(noting.clone()))
                .build()
                .unwrap();
            let mut frozen = policy();
            frozen.hooks = vec![Hook::new(HookPhase::InFreeze, "ok")];
            let error = this.save_policy(&frozen).await.unwrap_err();
            assert_eq!(error.code(), "hook.phase_forbidden");
            assert!(this.policies().await.unwrap().is_empty());

            let mut all = policy();
            all.hooks =
                HookPhase::ALLOWED.into_iter().map(|phase| Hook::new(phase, "ok")).collect();
            this.save_policy(&all).await.unwrap();
            let plans = this.engine_plans(&request("night")).await.unwrap();
            let freeze = if mode == Coordination::Engine { "freeze" } else { "snap" };
            for plan in &plans {
                let freeze = plan.find(freeze).unwrap();
                let mut hooks = 0;
                for node in plan.nodes() {
                    let NodeKind::Step(step) = &node.kind else { continue };
                    if step.action != "hook.run" {
                        continue;
                    }
                    hooks += 1;
                    let at = plan.find(node.name.as_str()).unwrap();
                    assert!(node.within.is_none(), "{} is in a guard", node.name);
                    let is_before = before(plan, freeze).contains(&at);
                    let is_after = before(plan, at).contains(&freeze);
                    assert!(is_before != is_after, "{} is beside the freeze", node.name);
                    assert_eq!(is_before, node.name.as_str() == "hook:before_quiesce:1");
                }
                assert_eq!(hooks, 3);
            }
            // The runner of this test looks, at each call, whether anything is frozen.
            let job = this.backup(request("night")).await.unwrap().wait().await;
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
            assert_eq!(noting.calls().len(), 6);
        });
    }
}
