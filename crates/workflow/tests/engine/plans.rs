//! Building plans: what is refused, all at once, by name; diagrams; the stored format.

use std::time::Duration;

use stillpoint_context::{ErrorFacts as _, StepName};
use stillpoint_workflow::*;

fn nothing() -> Call<(), ()> {
    step_fn(|_, ()| async { Ok(Done::new(())) })
}

fn exit() -> Call<(Known<()>, ()), ()> {
    step_fn(|_, (_, ()): (Known<()>, ())| async { Ok(Done::new(())) })
}

fn key(text: &str) -> ClaimKey {
    ClaimKey::new(text).unwrap()
}

fn problems(plan: PlanBuilder) -> Vec<PlanProblem> {
    plan.build().unwrap_err().problems
}

#[test]
fn all_problems_come_at_once_and_name_their_steps() {
    let mut other = PlanBuilder::new("other");
    let foreign = other.step("foreign", nothing()).add();

    let mut plan = PlanBuilder::new("bad");
    let a = plan.step("a", nothing()).add();
    plan.step("a", nothing()).after(a).add();
    plan.step("two words", nothing()).after_named("nobody").add();
    plan.step("stranger", nothing()).after(foreign).add();
    plan.step("x", nothing()).after_named("z").add();
    plan.step("y", nothing()).after_named("x").add();
    plan.step("z", nothing()).after_named("y").add();
    plan.claim(Claim::shared(key("host/1")).until(StepName::new("freeze").unwrap()));
    let found = problems(plan);
    let text = PlanError { problems: found.clone() }.to_string();
    for expected in [
        "two steps are named a",
        "\"two words\" is not a legal name",
        "comes after nobody, which is not in the plan",
        "step stranger uses a handle of another plan",
        "steps wait for each other in a ring: x → y → z → x",
        "claim host/1 lasts until freeze, which is not in the plan",
    ] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    assert_eq!(found.len(), 6);
    let codes: Vec<_> = found.iter().map(|problem| problem.code().to_string()).collect();
    assert!(codes.contains(&"plan.cycle".to_owned()));
    assert_eq!(problems(PlanBuilder::new("empty")), [PlanProblem::Empty]);
}

#[test]
fn steps_that_use_one_thing_exclusively_must_be_ordered() {
    let build = |ordered: bool| {
        let mut plan = PlanBuilder::new("uses");
        let a = plan.step("a", nothing()).exclusive(key("volume/1")).add();
        let b = plan.step("b", nothing()).shared(key("volume/1/part/2"));
        if ordered {
            b.after(a).add()
        } else {
            b.add()
        };
        plan.build()
    };
    let error = build(false).unwrap_err();
    let expected =
        PlanProblem::UnorderedUse { key: "volume/1".into(), first: "a".into(), second: "b".into() };
    assert_eq!(error.problems, [expected]);
    assert_eq!(error.code(), "plan.unordered_use");
    // What the steps use, the run claims.
    let claims = build(true).unwrap().claims().to_vec();
    assert_eq!(claims, [Claim::exclusive(key("volume/1")), Claim::shared(key("volume/1/part/2"))]);
}

#[test]
fn the_point_of_no_return_is_one_cut_outside_guards_with_no_undo_after_it() {
    let mut plan = PlanBuilder::new("beside");
    let a = plan.step("a", nothing()).add();
    plan.step("point", nothing()).no_return().after(a).add();
    plan.step("beside", nothing()).after(a).add();
    let expected = PlanProblem::NoReturnNotCut { step: "point".into(), beside: "beside".into() };
    assert_eq!(problems(plan), [expected]);

    let mut plan = PlanBuilder::new("twice");
    let a = plan.step("a", nothing()).no_return().add();
    plan.step("b", nothing()).no_return().after(a).add();
    let expected = PlanProblem::SecondNoReturn { first: "a".into(), second: "b".into() };
    assert_eq!(problems(plan), [expected]);

    let undoable = || nothing().undo(|_, (), _| async { Ok(Undone::clean()) });
    let mut plan = PlanBuilder::new("undo");
    let point = plan.step("point", nothing()).no_return().add();
    plan.step("late", undoable()).after(point).add();
    plan.step("extra", undoable()).after(point).optional().add();
    assert_eq!(problems(plan), [PlanProblem::UndoNeverOwed { step: "late".into() }]);
}

#[test]
fn a_guard_needs_members_and_time() {
    let mut plan = PlanBuilder::new("guards");
    let _closed = plan.guard("nobody").body(|b| b.step("s1", nothing()).add()).close();
    let _closed = plan
        .guard("short")
        .limit(Duration::from_secs(1))
        .exit_timeout(Duration::from_secs(2))
        .member("host", nothing(), exit())
        .body(|b| b.step("s2", nothing()).add())
        .close();
    let second = Duration::from_secs(1);
    let _closed = plan
        .guard("slow")
        .limit(8 * second)
        .exit_timeout(2 * second)
        .member("host", nothing().worst_case(second), exit())
        .body(|body| {
            let a = body.step("s3", nothing()).worst_case(3 * second).add();
            body.step("s4", nothing()).worst_case(3 * second).after(a).add();
            body.step("s5", nothing()).worst_case(4 * second).add();
        })
        .close();
    let found = problems(plan);
    let bad: Vec<_> = found.iter().map(|problem| problem.steps()[0].to_owned()).collect();
    assert_eq!(bad, ["nobody", "short", "slow"]);
    // The slowest enter and the slowest path, not the sum of all.
    let expected = PlanProblem::WorstCaseTooLong {
        guard: "slow".into(),
        worst: 7 * second,
        cutoff: 6 * second,
    };
    assert_eq!(found[2], expected);
}

#[test]
fn a_plan_that_was_read_is_checked_again() {
    let mut plan = PlanBuilder::new("stored");
    let a = plan.step("a", nothing()).add();
    plan.step("b", nothing()).after(a).add();
    let good = serde_json::to_value(plan.build().unwrap()).unwrap();
    let damage: [fn(&mut serde_json::Value); 4] = [
        |plan| plan["nodes"][1]["after"] = serde_json::json!([7]),
        |plan| plan["nodes"][0]["after"] = serde_json::json!([1]),
        |plan| plan["nodes"][0]["within"] = serde_json::json!(1),
        |plan| plan["nodes"][1]["kind"]["step"]["feed"] = serde_json::json!({"node": 40}),
    ];
    assert!(serde_json::from_value::<Plan>(good.clone()).is_ok());
    for damage in damage {
        let mut bad = good.clone();
        damage(&mut bad);
        assert!(serde_json::from_value::<Plan>(bad).is_err());
    }
}

fn pictured() -> Plan {
    let mut plan = PlanBuilder::new("backup");
    let begin = plan.step("begin", nothing()).add();
    let (verdict, commit) = plan
        .guard("freeze")
        .after(begin)
        .member("host", nothing(), exit())
        .body(|body| body.step("commit", nothing()).add())
        .close();
    let check = plan.step("check", nothing()).bind(commit).optional().add();
    plan.step("complete", nothing()).after(check).after(verdict).no_return().add();
    plan.build().unwrap()
}

#[test]
fn diagrams_show_guards_edges_and_marks() {
    let plan = pictured();
    let dot = plan.to_dot();
    for expected in ["cluster_1", "n0 -> n1;", "freeze/host/enter", "check (optional)", "n1 -> n5;"]
    {
        assert!(dot.contains(expected), "{expected} in {dot}");
    }
    let mermaid = plan.to_mermaid();
    for expected in ["flowchart LR", "subgraph n1[\"freeze\"]", "complete (no return)", "n5 --> n6"]
    {
        assert!(mermaid.contains(expected), "{expected} in {mermaid}");
    }
}

/// What is in the golden file of a format.
fn golden(format: u32) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    std::fs::read_to_string(format!("{folder}/plan-{format}.json")).unwrap()
}

#[test]
fn the_stored_plan_keeps_its_format() {
    let stored = serde_json::to_string_pretty(&pictured()).unwrap() + "\n";
    let golden = golden(PLAN_FORMAT);
    assert_eq!(stored, golden, "a changed format needs a new number and a reader of the old one");
    let read: Plan = serde_json::from_str(&golden).unwrap();
    assert_eq!(read, pictured());
}

#[test]
fn a_plan_of_an_older_format_is_read_and_written_anew() {
    for format in 1..PLAN_FORMAT {
        let read: Plan = serde_json::from_str(&golden(format)).unwrap();
        assert_eq!(read, pictured(), "format {format}");
        let again = serde_json::to_string_pretty(&read).unwrap() + "\n";
        assert_eq!(again, golden(PLAN_FORMAT), "format {format}");
    }
}

#[test]
fn a_deep_plan_does_not_overflow_the_stack() {
    let mut plan = PlanBuilder::new("deep");
    let mut last = plan.step("s0", nothing()).add();
    for at in 1..100_000 {
        last = plan.step(format!("s{at}"), nothing()).after(last).add();
    }
    assert_eq!(plan.build().unwrap().nodes().len(), 100_000);
}
