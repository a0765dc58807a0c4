//! Guards with several members, a consistency barrier over hosts: the body runs only if all hold, else all are exited, and how far
//! apart they came to hold is told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stillpoint_context::{Cx, Effect, Failure};
use stillpoint_workflow::testing::{Scenario, Sim, trials};
use stillpoint_workflow::*;

use super::common::*;

const SECOND: Duration = Duration::from_secs(1);
const MEMBERS: [&str; 3] = ["a", "b", "c"];

/// What the enter of a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Takes so many seconds.
    Hold(u64),
    Fail,
    Hang,
    Panic,
}

/// guard [ a, b, c · commit ] → after, each enter after its own word.
fn barrier(trace: &Trace, enters: [Does; 3]) -> Plan {
    let mut plan = PlanBuilder::new("barrier");
    plan.grace(SECOND);
    let mut guard = plan.guard("freeze").limit(20 * SECOND).exit_timeout(2 * SECOND);
    for (name, does) in MEMBERS.into_iter().zip(enters) {
        let (entered, exited) = (trace.clone(), trace.clone());
        let enter = step_fn(move |cx: Cx, ()| {
            let trace = entered.clone();
            async move {
                trace.note(format!("enter {name}"));
                match does {
                    Does::Hold(seconds) => {
                        let slept = cx.sleep(Duration::from_secs(seconds)).await;
                        slept.map_err(|error| Failure::of(&error))?;
                    }
                    Does::Fail => {
                        cx.sleep(2 * SECOND).await.map_err(|error| Failure::of(&error))?;
                        return Err(refusal(Effect::None));
                    }
                    Does::Hang => std::future::pending().await,
                    Does::Panic => panic!("as told"),
                }
                trace.note(format!("{name} holds"));
                Ok(Done::new(()))
            }
        });
        let exit = step_fn(move |_, (_, ()): (Known<()>, ())| {
            exited.note(format!("exit {name}"));
            async { Ok(Done::new(())) }
        });
        guard = guard.member(name, enter, exit);
    }
    let commit = trace.step("commit");
    let (verdict, ()) = guard.body(|body| _ = body.step("commit", commit).add()).close();
    plan.step("after", trace.step("after")).after(verdict).add();
    plan.build().unwrap()
}

fn verdict(report: &RunReport) -> GuardVerdict {
    report.step_named("freeze").unwrap().verdict.unwrap()
}

/// Every member that was entered is exited after its last word.
fn all_are_exited(trace: &Trace) {
    let all = trace.all();
    for name in MEMBERS {
        let last = |what: &str| all.iter().rposition(|entry| entry == what);
        let Some(entered) = last(&format!("enter {name}")) else { continue };
        let entered = entered.max(last(&format!("{name} holds")).unwrap_or_default());
        let exited = last(&format!("exit {name}"));
        assert!(exited.is_some_and(|exited| exited > entered), "{name} is not exited: {all:?}");
    }
}

fn run(sim: &Sim, enters: [Does; 3], cancel: Option<Duration>) -> (RunReport, Trace) {
    let (engine, trace, seams) = (engine(sim), Trace::default(), sim.seams());
    let plan = barrier(&trace, enters);
    let report = sim.run(async {
        let run = engine.submit(Submission::new(plan)).await.unwrap();
        if let Some(after) = cancel {
            pause(&seams, after).await;
            run.cancel("op").await.unwrap();
        }
        replays(&run).await;
        run.wait().await.unwrap()
    });
    all_are_exited(&trace);
    (report, trace)
}

#[test]
fn the_body_waits_for_the_slowest_and_the_skew_is_told() {
    for_seeds(60, |sim| {
        let (report, trace) = run(&sim, [Does::Hold(1), Does::Hold(7), Does::Hold(3)], None);
        assert_eq!(report.end(), End::Succeeded);
        trace.ordered("b holds", "commit");
        for name in MEMBERS {
            trace.ordered("commit", &format!("exit {name}"));
        }
        let verdict = verdict(&report);
        assert_eq!((verdict.hold, verdict.skew), (Hold::Held, Some(6 * SECOND)));
        // It is in the record too: the output of the guard.
        let guard = report.plan().find("freeze").unwrap();
        let stored: GuardVerdict = report.output(guard).unwrap().read().unwrap();
        assert_eq!(stored.skew, Some(6 * SECOND));
    });
}

#[test]
fn if_one_fails_hangs_or_panics_all_are_exited_and_the_body_never_runs() {
    for does in [Does::Fail, Does::Hang, Does::Panic, Does::Hold(19)] {
        for place in 0..3 {
            for_seeds(25, |sim| {
                let mut enters = [Does::Hold(1), Does::Hold(4), Does::Hold(3)];
                enters[place] = does;
                let (report, trace) = run(&sim, enters, None);
                assert_eq!(report.end(), End::Failed, "{enters:?}");
                assert_eq!((trace.count("commit"), trace.count("after")), (0, 0), "{enters:?}");
                assert!(!matches!(verdict(&report).hold, Hold::Held));
                // Not held as one: those that did come to hold are told apart all the same.
                assert!(verdict(&report).lasted().is_none_or(|lasted| lasted <= 20 * SECOND));
            });
        }
    }
}

#[test]
fn a_cancel_while_some_hold_and_others_enter_exits_all() {
    for tenths in [0, 5, 15, 35, 60] {
        for_seeds(40, |sim| {
            let enters = [Does::Hold(1), Does::Hold(4), Does::Hold(3)];
            let after = Duration::from_millis(100 * tenths);
            let (report, trace) = run(&sim, enters, Some(after));
            // The cancel may come before the guard, in it, and after all is done.
            if tenths < 40 {
                assert_eq!(report.end(), End::Cancelled);
                assert_eq!(trace.count("commit"), 0);
            }
        });
    }
}

/// The hosts, which outlive whoever freezes them.
#[derive(Debug, Clone, Default)]
struct Hosts(Arc<Mutex<Frozen>>);

#[derive(Debug, Default)]
struct Frozen {
    hosts: BTreeSet<String>,
    snapped: bool,
}

/// Freezes a host, after so many milliseconds.
#[derive(Debug)]
struct Enter(Hosts);

#[async_trait::async_trait]
impl Action for Enter {
    const NAME: &'static str = "enter";
    const EFFECT: EffectKind = EffectKind::Reversible;
    type Params = (String, u64);
    type Input = ();
    type Output = ();

    async fn run(
        &self,
        cx: &Cx,
        (host, millis): &(String, u64),
        (): (),
    ) -> Result<Done<()>, Failure> {
        self.0.0.lock().unwrap().hosts.insert(host.clone());
        let held = cx.sleep(Duration::from_millis(*millis)).await;
        held.map_err(|error| Failure::of(&error))?;
        Ok(Done::new(()))
    }

    async fn undo(
        &self,
        _: &Cx,
        _: &(String, u64),
        (): (),
        _: Known<()>,
    ) -> Result<Undone, Failure> {
        // Its exit has been.
        Ok(Undone::clean())
    }
}

/// Thaws one.
#[derive(Debug)]
struct Exit(Hosts);

#[async_trait::async_trait]
impl Action for Exit {
    const NAME: &'static str = "exit";
    const EFFECT: EffectKind = EffectKind::Irreversible;
    const IDEMPOTENT: bool = true;
    type Params = String;
    type Input = (Known<()>, ());
    type Output = ();

    async fn run(
        &self,
        _: &Cx,
        host: &String,
        (_, ()): (Known<()>, ()),
    ) -> Result<Done<()>, Failure> {
        self.0.0.lock().unwrap().hosts.remove(host);
        Ok(Done::new(()))
    }
}

/// Takes the snapshot of all of them.
#[derive(Debug)]
struct Snap(Hosts);

#[async_trait::async_trait]
impl Action for Snap {
    const NAME: &'static str = "snap";
    const EFFECT: EffectKind = EffectKind::Reversible;
    type Params = ();
    type Input = ();
    type Output = ();

    async fn run(&self, _: &Cx, (): &(), (): ()) -> Result<Done<()>, Failure> {
        let mut frozen = self.0.0.lock().unwrap();
        assert_eq!(frozen.hosts.len(), MEMBERS.len(), "taken while not all are frozen");
        frozen.snapped = true;
        Ok(Done::new(()))
    }

    async fn undo(&self, _: &Cx, (): &(), (): (), _: Known<()>) -> Result<Undone, Failure> {
        let mut frozen = self.0.0.lock().unwrap();
        assert!(frozen.hosts.is_empty(), "undone inside the freeze");
        frozen.snapped = false;
        Ok(Undone::clean())
    }
}

/// What comes after it: another chance to die.
#[derive(Debug)]
struct Rest;

#[async_trait::async_trait]
impl Action for Rest {
    const NAME: &'static str = "rest";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = ();
    type Input = ();
    type Output = ();

    async fn run(&self, cx: &Cx, (): &(), (): ()) -> Result<Done<()>, Failure> {
        cx.sleep(Duration::from_millis(1)).await.map_err(|error| Failure::of(&error))?;
        Ok(Done::new(()))
    }
}

/// All hosts, each with its own time to freeze, and a snapshot.
struct AllHosts;

impl Scenario for AllHosts {
    type World = Hosts;

    fn world(&self) -> Hosts {
        Hosts::default()
    }

    fn registry(&self, hosts: &Hosts) -> ActionRegistry {
        let mut registry = ActionRegistry::new();
        registry.register(Enter(hosts.clone())).unwrap();
        registry.register(Exit(hosts.clone())).unwrap();
        registry.register(Snap(hosts.clone())).unwrap();
        registry.register(Rest).unwrap();
        registry
    }

    fn plan(&self, _: &Hosts) -> Plan {
        let mut plan = PlanBuilder::new("all hosts");
        let mut guard = plan.guard("freeze").limit(20 * SECOND).exit_timeout(2 * SECOND);
        for (name, millis) in MEMBERS.into_iter().zip([3, 9, 5]) {
            let enter = Enter::with((name.to_owned(), millis)).bind(());
            guard = guard.member(name, enter, Exit::with(name.to_owned()).bind(()));
        }
        let (verdict, ()) = guard.body(|body| _ = body.step("snap", Snap::with(())).add()).close();
        plan.step("after", Rest::with(())).after(verdict).add();
        plan.build().unwrap()
    }

    fn check(&self, hosts: &Hosts, end: End) -> Result<(), String> {
        let frozen = hosts.0.lock().unwrap();
        if !frozen.hosts.is_empty() {
            return Err(format!("{:?} frozen after {end:?}", frozen.hosts));
        }
        let good = end <= End::SucceededWithWarnings;
        (good == frozen.snapped).then_some(()).ok_or_else(|| format!("{frozen:?} after {end:?}"))
    }
}

#[test]
fn no_member_stays_frozen_whatever_goes_wrong_and_whenever_the_process_dies() {
    for seed in 0..20 {
        let tried = trials::all(&AllHosts, seed).unwrap();
        assert!(tried > 60, "{tried} mishaps");
    }
}
