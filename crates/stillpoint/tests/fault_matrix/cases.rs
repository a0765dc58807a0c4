//! The cases: every step, call and undo of the plan × everything that may happen to it.

use std::collections::BTreeSet;
use std::time::Duration;

use stillpoint::context::Effect;
use stillpoint::exchange::Coordination;
use stillpoint::model::job::JobState;
use stillpoint::workflow::testing::{Part, Sim};
use stillpoint::workflow::{NodeKind, Plan};
use stillpoint_testkit::{Fault, Lie, Trouble};

use super::common::*;

/// A fault of the simulated Exchange or storage itself.
#[derive(Debug, Clone)]
pub(crate) struct Mishap {
    pub(crate) step: String,
    pub(crate) call: &'static str,
    pub(crate) after: bool,
    pub(crate) always: bool,
    pub(crate) fault: Fault,
}

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) mode: Coordination,
    pub(crate) rules: Vec<Rule>,
    pub(crate) mishap: Option<Mishap>,
}

/// The plan of the backup that every case makes, and the calls of each of its steps.
pub(crate) fn blueprint(mode: Coordination) -> (Plan, BTreeSet<(String, &'static str)>) {
    let (sim, world) = (Sim::new(1), two_arrays(2));
    let plan = sim.run(async {
        let this = stillpoint(&sim, &world, mode, |engine| engine);
        this.save_policy(&policy()).await.unwrap();
        let plans = this.engine_plans(&request("first")).await.unwrap();
        let job = this.backup(request("first")).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        let [plan] = <[Plan; 1]>::try_from(plans).unwrap();
        plan
    });
    let steps: BTreeSet<String> = plan.nodes().iter().map(|node| node.name.to_string()).collect();
    let calls = world.calls().all().into_iter().map(|call| (call.step.to_string(), call.name));
    // What is asked while a backup is planned is asked outside any step.
    (plan, calls.filter(|(step, _)| steps.contains(step) || step == "detached").collect())
}

pub(crate) fn case(mode: Coordination, step: &str, what: &str, rules: Vec<Rule>) -> Case {
    let word = match mode {
        Coordination::Engine => "engine",
        Coordination::Plugin => "plugin",
    };
    Case { name: format!("{word}/{step}/{what}"), mode, rules, mishap: None }
}

pub(crate) fn fail(effect: Effect, retryable: bool) -> Blow {
    Blow::Fail { effect, retryable }
}

/// Every step × everything that may happen to its call, on the side of the engine.
pub(crate) fn step_cases(mode: Coordination, plan: &Plan) -> Vec<Case> {
    let mut cases = Vec::new();
    for node in plan.nodes() {
        let NodeKind::Step(step) = &node.kind else { continue };
        let name = node.name.as_str();
        let beyond = step.timeout.unwrap_or(Duration::from_secs(25)) + Duration::from_secs(10);
        let rule = |blow| Rule::at(name, Part::Run, blow);
        let faults = [
            ("fails", rule(fail(Effect::None, true))),
            ("keeps failing", rule(fail(Effect::None, true)).always()),
            ("is refused", rule(fail(Effect::None, false))),
            ("may have failed", rule(fail(Effect::Unknown, true))),
            ("is in doubt", rule(fail(Effect::Unknown, false))),
            ("stays in doubt", rule(fail(Effect::Unknown, true)).always()),
            ("fails when done", rule(fail(Effect::Unknown, true)).after()),
            ("is in doubt when done", rule(fail(Effect::Unknown, false)).after()),
            ("hangs", rule(Blow::Hang)),
            ("is deaf", rule(Blow::Deaf)),
            ("stays deaf", rule(Blow::Deaf).always()),
            ("is deaf when done", rule(Blow::Deaf).after()),
            ("is slow", rule(Blow::Slow(beyond))),
            ("is slow when done", rule(Blow::Slow(beyond)).after()),
            ("panics", rule(Blow::Panic)),
            ("panics when done", rule(Blow::Panic).after()),
            ("is cancelled", rule(Blow::Cancel)),
            ("is cancelled when done", rule(Blow::Cancel).after()),
        ];
        cases.extend(faults.map(|(what, rule)| case(mode, name, what, vec![rule])));
    }
    cases
}

/// Every call of every step × everything that may happen to it at the other side.
pub(crate) fn call_cases(
    mode: Coordination,
    calls: &BTreeSet<(String, &'static str)>,
) -> Vec<Case> {
    let mut cases = Vec::new();
    for (step, call) in calls {
        let faults = [
            ("io", false, false, Fault::Fail(Trouble::io())),
            ("io for good", false, true, Fault::Fail(Trouble::io())),
            ("timed out when done", true, false, Fault::Fail(Trouble::timed_out())),
            ("timed out when done for good", true, true, Fault::Fail(Trouble::timed_out())),
            ("fenced", false, false, Fault::Fail(Trouble::fenced())),
            ("a little slow", false, false, Fault::Slow(Duration::from_millis(700))),
            ("slow", false, false, Fault::Slow(Duration::from_secs(30))),
            ("hangs", false, false, Fault::Hang),
            ("deaf", false, false, Fault::Deaf),
            ("deaf when done", true, false, Fault::Deaf),
            ("panics", false, false, Fault::Panic),
            ("panics when done", true, false, Fault::Panic),
            ("soon", false, false, Fault::LateArrival(Duration::from_secs(5))),
            ("late", false, false, Fault::LateArrival(Duration::from_secs(90))),
            ("lies", false, false, Fault::Lie(Lie::Done)),
            ("dies", false, false, Fault::Die),
            ("dies when done", true, false, Fault::Die),
        ];
        for (what, after, always, fault) in faults {
            let what = format!("{call} {what}");
            let mishap = Mishap { step: step.clone(), call, after, always, fault };
            cases.push(Case { mishap: Some(mishap), ..case(mode, step, &what, Vec::new()) });
        }
    }
    cases
}

/// Every undo × everything that may happen to it, of a run that fails just before its point of no return.
pub(crate) fn undo_cases(mode: Coordination, plan: &Plan) -> Vec<Case> {
    let doom = Rule::at("index", Part::Run, fail(Effect::None, false));
    let mut cases = Vec::new();
    for node in plan.nodes() {
        let NodeKind::Step(step) = &node.kind else { continue };
        if step.effect != stillpoint::workflow::EffectKind::Reversible {
            continue;
        }
        let name = node.name.as_str();
        // What a guard's enter did is undone by its exit, which the cases above are about.
        if name.ends_with("/enter") {
            continue;
        }
        let rule = |blow| Rule::at(name, Part::Undo, blow);
        let faults = [
            ("undo fails", rule(fail(Effect::None, true))),
            ("undo keeps failing", rule(fail(Effect::None, true)).always()),
            ("undo is refused", rule(fail(Effect::None, false)).always()),
            ("undo fails when done", rule(fail(Effect::Unknown, true)).after()),
            ("undo is deaf", rule(Blow::Deaf)),
            ("undo stays deaf", rule(Blow::Deaf).always()),
            ("undo panics", rule(Blow::Panic)),
            ("undo panics when done", rule(Blow::Panic).after()),
            ("undo is cancelled", rule(Blow::Cancel)),
        ];
        cases.extend(faults.map(|(what, rule)| case(mode, name, what, vec![doom.clone(), rule])));
    }
    cases
}
