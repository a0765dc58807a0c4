//! Carrying out one case: a backup with its fault, what an operator does about it, and the next backup.

use std::sync::Arc;
use std::time::Duration;

use stillpoint::JobHandle;
use stillpoint::catalog::MemoryCatalog;
use stillpoint::model::job::{Job, JobState};
use stillpoint::workflow::GrantPolicy;
use stillpoint::workflow::testing::{Part, Sim};
use stillpoint_testkit::{Change, Side};

use super::audit::Rig;
use super::cases::Case;
use super::common::*;

/// What is broken on purpose, to see that the matrix notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    None,
    NoExit,
    NoUndo,
    NoClaims,
}

/// What a case came to.
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    /// Whether everything that was to go wrong did.
    pub(crate) touched: bool,
    pub(crate) state: Option<JobState>,
}

const DAY: Duration = Duration::from_hours(24);

/// Long enough for everything that is late.
const AFTERWARDS: Duration = Duration::from_mins(15);

/// A job on one line.
fn brief(job: &Job) -> String {
    let runs = job.runs.iter().map(|run| {
        let codes: Vec<_> = run.warnings.iter().map(|warning| &warning.code).collect();
        let why = run.failure.as_ref().map(|failure| (&failure.code, &failure.message));
        format!("{:?} {why:?} {codes:?} {:?}", run.state, run.debris)
    });
    let runs: Vec<_> = runs.collect();
    let codes: Vec<_> = job.warnings.iter().map(|warning| &warning.code).collect();
    let why =
        job.failure.as_ref().map(|failure| (&failure.code, &failure.message, &failure.causes));
    format!("{} {why:?} {codes:?} runs {runs:?}", job.state())
}

/// What the rival of a case is: a backup of the same databases, asked for at the same moment.
fn has_rival(case: &Case, mutant: Mutant) -> bool {
    mutant == Mutant::NoClaims || digest(&case.name).is_multiple_of(4)
}

fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Carries out one case.
#[allow(clippy::too_many_lines, reason = "one story from beginning to end")]
pub(crate) fn carry_out(case: &Case, mutant: Mutant) -> Outcome {
    let sim = Sim::new(digest(&case.name));
    let world = two_arrays(2);
    let catalog = Arc::new(MemoryCatalog::new());
    let mut rules = case.rules.clone();
    match mutant {
        Mutant::NoExit => rules.push(Rule::on_action("exchange.thaw", Part::Run, Blow::Skip)),
        Mutant::NoUndo => rules.push(Rule::on_action("", Part::Undo, Blow::Skip)),
        Mutant::None | Mutant::NoClaims => {}
    }
    let (saboteur, mut cancels) = Saboteur::new(rules);
    let interpose = saboteur.tune();
    let tune = move |engine| {
        let engine = interpose(engine);
        if mutant == Mutant::NoClaims { engine.grant_policy(GrantPolicy::Always) } else { engine }
    };
    let shared: Arc<MemoryCatalog> = Arc::clone(&catalog);
    let ran = sim.try_run(async {
        let this = builder(&sim, &world, case.mode, tune).catalog(shared).build().unwrap();
        this.save_policy(&policy()).await.unwrap();
        let mut rig = Rig {
            world: &world,
            this: &this,
            catalog,
            mode: case.mode,
            gagged: case
                .rules
                .iter()
                .any(|rule| rule.step.ends_with("/exit") && rule.times == u32::MAX && !rule.after),
            mishap: case.mishap.clone(),
            found: Vec::new(),
        };
        if let Some(mishap) = &case.mishap {
            let mut rule = world.faults().on(mishap.call).step(&mishap.step);
            if !mishap.always {
                rule = rule.nth(1);
            }
            if mishap.after {
                rule = rule.after_effect();
            }
            rule.inject(mishap.fault.clone());
        }
        let first = this.backup(request("first")).await.unwrap();
        let (asked, seams) = (first.clone(), sim.seams());
        let rival = if has_rival(case, mutant) {
            // As soon as the first has its claims, so that it is not the one that waits.
            let waits = |job: Job| {
                !job.state().is_final()
                    && job.runs.first().is_none_or(|run| run.started_at.is_none())
            };
            while waits(first.job()) {
                pause(&seams, Duration::from_micros(100)).await;
            }
            Some(this.backup(request("rival")).await.unwrap())
        } else {
            None
        };
        seams.spawner.spawn(
            "canceller",
            Box::pin(async move {
                while cancels.recv().await.is_some() {
                    asked.cancel("a test").await.unwrap();
                }
            }),
        );
        let Some(job) = end_of(&this, &first).await else {
            rig.found.push(format!("the job does not end: {}", brief(&first.job())));
            return (rig.found, None);
        };
        let state = job.state();
        if let Some(rival) = &rival
            && state != JobState::Parked
            && end_of(&this, rival).await.is_none()
        {
            rig.found.push(format!("the rival does not end: {}", brief(&rival.job())));
            return (rig.found, Some(state));
        }
        pause(&seams, AFTERWARDS).await;
        let jobs = |more: Option<Job>| {
            let both = [Some(first.job()), rival.as_ref().map(JobHandle::job), more];
            both.into_iter().flatten().collect::<Vec<_>>()
        };
        rig.audit("at the end", &jobs(None)).await;
        let listed = rig.listed().await;
        for debris in jobs(None).iter().flat_map(|job| &job.runs).flat_map(|run| &run.debris) {
            rig.check(listed.contains(debris), || format!("{debris} is not in the catalogue"));
        }

        // What an operator does: mends what is broken, resumes what is parked, sweeps what is left.
        world.faults().clear();
        saboteur.clear();
        if mutant == Mutant::NoUndo {
            return (rig.found, Some(state));
        }
        for side in [Side::Exchange, Side::Storage] {
            world.change(&Change::Revive(side));
        }
        let parked = this.engine().parked();
        rig.check(parked.is_empty() == (state != JobState::Parked), || {
            format!("the job is {state}, parked: {parked:?}")
        });
        if state == JobState::Parked {
            let told = this.jobs().await.unwrap();
            let told = told.iter().any(|j| j.id == job.id && j.state() == JobState::Parked);
            rig.check(told, || "a parked job is not listed".to_owned());
            for (run, _, _) in parked {
                this.engine().run(run).unwrap().resume("an operator").await.unwrap();
            }
            for _ in 0..48 {
                if first.job().state().is_final() {
                    break;
                }
                pause(&seams, DAY / 48).await;
            }
            pause(&seams, AFTERWARDS).await;
            let over = first.job().state().is_final();
            rig.check(over, || format!("resumed, it does not end: {}", brief(&first.job())));
            rig.audit("after resuming", &jobs(None)).await;
        }
        let left = this.sweep().await.unwrap();
        rig.check(left.is_empty(), || format!("cannot be swept: {left:?}"));
        if rig.lies("complete") {
            // The plug-in has said "completed" and has not: the database is in a backup until its lease ends.
            return (rig.found, Some(state));
        }
        let next = this.backup(request("next")).await.unwrap();
        match end_of(&this, &next).await {
            // Where the plug-in has said "completed" and has not, the database is in a backup until the lease ends.
            Some(job) => {
                let well = job.state() == JobState::Succeeded;
                rig.check(well, || format!("the next backup is {}", brief(&job)));
            }
            None => rig.found.push(format!("the next backup does not end: {}", brief(&next.job()))),
        }
        rig.audit("after the next", &jobs(Some(next.job()))).await;
        (rig.found, Some(state))
    });
    let mut touched = saboteur.fired().iter().take(case.rules.len()).all(|hits| *hits > 0);
    touched &= case.mishap.is_none() || world.faults().fired() > 0;
    if std::env::var("FAULT_CASE").is_ok() {
        for call in world.calls().all() {
            println!("{:>12?} {} {}: {call}", call.started.mono.0, call.run.short(), call.step);
        }
    }
    match ran {
        Ok((violations, state)) => Outcome { violations, touched, state },
        Err(stuck) => Outcome { violations: vec![stuck.to_string()], touched, state: None },
    }
}
