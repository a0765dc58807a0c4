//! Exhaustive exploration of the run machine on small plans: every way in which every call may end, in every order, alone or
//! with others in one round, with appends that take their time, a cancel at any time, and crashes before, in and after any
//! append. At every state that is reached the log alone leads there, and the promises hold.
//!
//! ```text
//!   world.rs    the run, its journal, what is at work      happen.rs   what may happen next
//!   check.rs    the promises                               print.rs    what tells states apart
//!   shape.rs    all graphs up to six steps              pair.rs    several runs, their processes and the arbiter
//! ```
//!
//! States are told apart by what follows from them, not by how they were reached. `cargo test` looks at the short form;
//! `EXPLORE=long cargo test --release -p stillpoint-workflow --lib explore -- --nocapture` at all of it.

mod check;
mod happen;
mod pair;
mod print;
mod shape;
mod world;

use std::collections::HashMap;
use std::time::Duration;

use shape::Shape;
use world::{Budget, World};

use crate::action::{Call, Done, Known, Undone, step_fn};
use crate::plan::{Handle, Outside, Plan, PlanBuilder};
use crate::retry::Retry;

/// Visits every state; the number of them. Those for which less has gone wrong come first: they cover what follows from others.
fn explore(plan: &Plan, budget: Budget) -> usize {
    let mut seen: HashMap<u64, Vec<Budget>> = HashMap::new();
    let mut open: Vec<Vec<World>> = Vec::new();
    open.resize_with(budget.sum() as usize + 1, Vec::new);
    open[budget.sum() as usize].push(World::new(plan, budget));
    while let Some(worlds) = open.iter_mut().rev().find(|worlds| !worlds.is_empty()) {
        let Some(world) = worlds.pop() else { continue };
        for event in world.events(true) {
            let next = world.after(event);
            let known = seen.entry(next.print()).or_default();
            if known.iter().any(|known| known.covers(next.budget)) {
                continue;
            }
            if known.is_empty() {
                next.check_state();
            }
            known.push(next.budget);
            open[next.budget.sum() as usize].push(next);
        }
    }
    seen.len()
}

/// Whether to look at everything that the documentation promises, which takes minutes.
fn is_long() -> bool {
    std::env::var("EXPLORE").is_ok_and(|form| form == "long")
}

/// The plan of a shape. A marked node is a guard with a step in it, the others are reversible steps.
fn plan_of(shape: Shape, guard: Option<usize>) -> Plan {
    let mut plan = PlanBuilder::new(format!("{shape:?} {guard:?}"));
    let mut made: Vec<Box<dyn Handle<Outside>>> = Vec::new();
    for node in 0..shape.count {
        let after = shape.preds(node);
        if guard == Some(node) {
            let mut section = plan.guard("guard");
            for before in after {
                section = section.after(&*made[before]);
            }
            let exit = step_fn(|_, (_, ()): (Known<()>, ())| async { Ok(Done::new(())) });
            let section = section.member("m", irreversible(), exit);
            let (verdict, ()) = section
                .body(|body| {
                    body.step("body", reversible()).add();
                })
                .close();
            made.push(Box::new(verdict));
        } else {
            let mut step = plan.step(format!("s{node}"), reversible());
            for before in after {
                step = step.after(&*made[before]);
            }
            made.push(Box::new(step.add()));
        }
    }
    plan.build().unwrap()
}

/// Explores a plan for each shape, on all processors; the number of plans, of all states, and of the most of one plan.
fn explore_all(shapes: &[(Shape, Option<usize>)], budget: Budget) -> (usize, usize, usize) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let (mut states, mut most) = (0, 0);
        loop {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some((shape, guard)) = shapes.get(at) else { return (states, most) };
            let found = explore(&plan_of(*shape, *guard), budget);
            states += found;
            most = most.max(found);
            if is_long() && at % 100 == 99 {
                println!("{} of {}", at + 1, shapes.len());
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (states, most) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let found = threads.into_iter().map(|thread| thread.join().expect("a check failed"));
        found.fold((0, 0), |all, one| (all.0 + one.0, all.1.max(one.1)))
    });
    println!("{budget:?}: {} plans, {states} states, at most {most} of one", shapes.len());
    (shapes.len(), states, most)
}

/// A cancel, two crashes, and what comes of them.
const CRASHES: Budget = Budget { faults: 0, cancels: 1, crashes: 2, slow: None };

/// The same, and something fails or is slow besides.
const FAULTS: Budget = Budget { faults: 1, ..CRASHES };

#[test]
fn every_shape_of_a_few_steps() {
    let most = if is_long() { 4 } else { 3 };
    let shapes: Vec<_> = (1..=most).flat_map(|count| shape::all(count, 3)).collect();
    let (plans, states, _) = explore_all(&shapes, FAULTS);
    assert!(plans >= 23 && states > 200_000, "{plans} plans, {states} states");
}

/// Of six steps at most three wide there are 1,495 graphs, counting where the guard is. The short form looks at some that differ
/// most: a chain, three side by side between two, two layers of three, three chains of two, and the shapes of an N.
#[test]
fn six_steps_with_a_guard() {
    if is_long() {
        let shapes: Vec<_> = (4..=6).flat_map(|count| shape::all(count, 3)).collect();
        let (plans, ..) = explore_all(&shapes, CRASHES);
        assert!(plans > 1_495);
        return;
    }
    let chain = Shape::of(6, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
    let fork = Shape::of(6, &[(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (4, 5)]);
    let ladder = Shape::of(6, &[(0, 2), (1, 3), (0, 3), (2, 4), (3, 5), (2, 5)]);
    let side = Shape::of(6, &[(0, 1), (1, 2), (2, 3), (3, 5), (0, 4), (4, 5)]);
    let shapes =
        [(chain, Some(2)), (fork, Some(2)), (fork, Some(4)), (ladder, Some(3)), (side, Some(2))];
    let (_, states, _) = explore_all(&shapes, CRASHES);
    assert!(states > 20_000, "{states} states");
}

/// With appends so slow that anything may happen while one is under way.
#[test]
fn slow_appends() {
    let shapes = shape::all(2, 2);
    let budget = Budget { faults: 0, cancels: 1, crashes: 2, slow: Some(2) };
    let (_, states, _) = explore_all(&shapes, budget);
    assert!(states > 10_000, "{states} states");
}

fn reversible() -> Call<(), ()> {
    step_fn(|_, ()| async { Ok(Done::new(())) }).undo(|_, (), _| async { Ok(Undone::clean()) })
}

fn irreversible() -> Call<(), ()> {
    step_fn(|_, ()| async { Ok(Done::new(())) })
}

const SECOND: Duration = Duration::from_secs(1);

const BUDGET: Budget = Budget { faults: 1, cancels: 1, crashes: 1, slow: Some(9) };

#[test]
fn a_chain_with_retries_and_time_outs() {
    let mut plan = PlanBuilder::new("chain");
    let a = plan.step("a", reversible()).timeout(SECOND).retry(Retry::times(2)).add();
    let b = plan.step("b", reversible()).after(a).undo_retry(Retry::times(2)).add();
    plan.step("c", irreversible().idempotent()).after(b).retry(Retry::times(2)).add();
    let states = explore(&plan.build().unwrap(), BUDGET);
    assert!(states > 500, "{states} states");
}

#[test]
fn a_diamond_with_an_optional_side() {
    let mut plan = PlanBuilder::new("diamond");
    let a = plan.step("a", reversible()).add();
    let b = plan.step("b", reversible()).after(a).add();
    let c = plan.step("c", reversible()).after(a).optional().add();
    plan.step("d", reversible()).after(b).after(c).add();
    let states = explore(&plan.build().unwrap(), BUDGET);
    assert!(states > 1000, "{states} states");
}

#[test]
fn a_point_of_no_return() {
    let mut plan = PlanBuilder::new("point");
    let a = plan.step("a", reversible()).add();
    let point = plan.step("point", irreversible()).timeout(SECOND).no_return().after(a).add();
    plan.step("b", irreversible()).after(point).add();
    plan.step("c", irreversible()).after(point).optional().add();
    let states = explore(&plan.build().unwrap(), BUDGET);
    assert!(states > 500, "{states} states");
}

#[test]
fn a_guard_between_two_steps_and_one_beside_it() {
    let mut plan = PlanBuilder::new("guard");
    let a = plan.step("a", reversible()).add();
    plan.step("beside", reversible()).after(a).add();
    let exit = step_fn(|_, (_, ()): (Known<()>, ())| async { Ok(Done::new(())) });
    let (verdict, ()) = plan
        .guard("guard")
        .after(a)
        .exit_retry(Retry::times(2))
        .member("m", irreversible(), exit)
        .body(|body| {
            body.step("commit", reversible()).add();
        })
        .close();
    plan.step("z", reversible()).after(verdict).add();
    let states = explore(&plan.build().unwrap(), BUDGET);
    assert!(states > 1000, "{states} states");
}
