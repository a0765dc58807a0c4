//! What must hold of each run, whatever happened: order, undo, guards, attempts, recovery.

use std::collections::BTreeSet;

use stillpoint_workflow::*;

use super::cases::{Case, Doubt, StepSpec};
use super::naive;
use super::play::Played;
use super::world::{Event, What};

/// One run, and what the log has of it.
struct Checker<'a> {
    case: &'a Case,
    events: Vec<Event>,
    report: &'a RunReport,
    /// The number of events by which each process had died.
    deaths: Vec<usize>,
    /// What was at work may have been lost: with its process, or with its journal.
    crashed: bool,
}

impl Played<'_> {
    /// Checks each run by itself.
    pub fn check_runs(&self) {
        assert_eq!(self.world.log.mistakes(), Vec::<String>::new());
        let events = self.world.log.events();
        for (who, part) in self.story.parts.iter().enumerate() {
            let checker = Checker {
                case: &part.case,
                events: events.iter().filter(|event| event.who == who).cloned().collect(),
                report: &self.reports[who],
                deaths: self.world.log.deaths(),
                crashed: self.deaths > 0 || self.story.trouble.is_some(),
            };
            checker.check();
        }
    }
}

impl Checker<'_> {
    fn check(&self) {
        self.check_ended();
        self.check_order();
        self.check_undo();
        self.check_guard();
        self.check_repeats();
        self.check_owed_first();
        self.check_naive();
    }

    fn of<'a>(&'a self, name: &'a str, what: What) -> impl DoubleEndedIterator<Item = usize> + 'a {
        self.events.iter().filter(move |e| e.step == name && e.what == what).map(|e| e.at)
    }

    fn first(&self, name: &str, what: What) -> Option<usize> {
        self.of(name, what).next()
    }

    fn last(&self, name: &str, what: What) -> Option<usize> {
        self.of(name, what).next_back()
    }

    fn count(&self, name: &str, what: What) -> usize {
        self.of(name, what).count()
    }

    fn optional(&self, name: &str) -> bool {
        let plan = self.report.plan();
        plan.find(name).is_some_and(|node| match &plan.node(node).kind {
            NodeKind::Step(step) => step.optional,
            _ => false,
        })
    }

    /// The steps that can be undone, by name; those of the guard's body are tried once.
    fn reversible(&self) -> impl Iterator<Item = (String, &StepSpec)> {
        let steps = self.case.steps.iter().enumerate();
        let body = self.case.guard.iter().flat_map(|guard| guard.body.iter().enumerate());
        steps
            .map(|(at, spec)| (format!("s{at}"), spec))
            .chain(body.map(|(at, spec)| (format!("b{at}"), spec)))
    }

    /// Direct predecessors among the steps that leave traces.
    fn edges(&self) -> Vec<(String, String)> {
        let mut edges = Vec::new();
        for (at, spec) in self.case.steps.iter().enumerate() {
            edges.extend(spec.after.iter().map(|before| (format!("s{before}"), format!("s{at}"))));
        }
        if let Some(guard) = &self.case.guard {
            for (at, spec) in guard.body.iter().enumerate() {
                let name = format!("b{at}");
                edges.extend(spec.after.iter().map(|b| (format!("b{b}"), name.clone())));
                edges.extend(guard.after.iter().map(|b| (format!("s{b}"), name.clone())));
            }
        }
        edges
    }

    /// E10: it ends when all of it has, and says whether something is left.
    fn check_ended(&self) {
        for node in self.report.plan().nodes() {
            let name = node.name.as_str();
            assert_eq!(
                self.count(name, What::Begins),
                self.count(name, What::Ends),
                "{name} is still at work"
            );
            assert_eq!(self.count(name, What::UndoBegins), self.count(name, What::UndoEnds));
        }
        assert_eq!(self.report.end() == End::NeedsAttention, !self.report.debris().is_empty());
    }

    /// E1 and E6: after what comes before, and undone before it.
    fn check_order(&self) {
        for (before, after) in self.edges() {
            let Some(begins) = self.first(&after, What::Begins) else { continue };
            if self.optional(&before) {
                continue;
            }
            let done = self.of(&before, What::Succeeds).any(|at| at < begins);
            assert!(done, "{after} began before {before} had succeeded");
            if let Some(undo) = self.first(&before, What::UndoBegins)
                && let Some(theirs) = self.last(&after, What::UndoEnds)
            {
                assert!(theirs < undo, "{before} was undone before its successor {after}");
            }
        }
    }

    /// Whether a step may have had an effect that nobody has taken back.
    fn touched(&self, name: &str, tells: bool) -> bool {
        let (mut touched, mut before) = (false, false);
        for event in self.events.iter().filter(|event| event.step == name) {
            match event.what {
                // One whose probe tells has done nothing until it says so.
                What::Begins => {
                    before = touched;
                    touched |= !tells;
                }
                What::FailsClean => touched = before,
                What::Succeeds => touched = true,
                What::UndoSucceeds => touched = false,
                _ => {}
            }
        }
        touched
    }

    /// E6 and E14: what was done is undone, unless the run succeeded or has passed its point of no return.
    fn check_undo(&self) {
        let end = self.report.end();
        let progress = |name: &str| self.report.step_named(name).unwrap().progress;
        let crossed = self.first("point", What::Begins).is_some()
            && progress("point") != NodeProgress::Undone;
        for (name, spec) in self.reversible() {
            let name = name.as_str();
            let body = name.starts_with('b');
            let undone = self.first(name, What::UndoBegins).is_some();
            let begun = self.first(name, What::Begins).is_some();
            let succeeded = self.first(name, What::Succeeds).is_some();
            // What was armed or intended when its process died is undone, begun or not.
            assert!(
                begun || !undone || body || self.crashed,
                "{name} was undone and had never begun"
            );
            match end {
                End::Failed | End::Cancelled => {
                    // In a section nobody asks.
                    let touched = self.touched(name, spec.doubt == Doubt::Asks && !body);
                    assert!(!touched, "{name} was left as it was in a run that ended as {end:?}");
                }
                End::Succeeded | End::SucceededWithWarnings => {
                    let without = self.optional(name) && end == End::SucceededWithWarnings;
                    assert!(without || succeeded && !undone, "{name} in a run that succeeded");
                }
                End::NeedsAttention => {}
            }
            if crossed && succeeded && !self.optional(name) {
                assert!(!undone, "{name} was undone past the point of no return");
            }
        }
        match end {
            End::Failed | End::Cancelled => {
                assert!(!self.touched("point", false), "{end:?} past the point of no return");
            }
            End::Succeeded | End::SucceededWithWarnings if self.case.point.is_some() => {
                assert!(self.first("point", What::Succeeds).is_some(), "the point was not passed");
            }
            _ => {}
        }
    }

    /// E5: all members hold before the body begins, and are left before anything of it is undone.
    fn check_guard(&self) {
        let Some(guard) = &self.case.guard else { return };
        let body = || (0..guard.body.len()).map(|at| format!("b{at}"));
        let enters = || (0..guard.enters.len()).map(|at| format!("guard/m{at}/enter"));
        for (at, enter) in enters().enumerate() {
            let exit = format!("guard/m{at}/exit");
            assert!(self.count(&enter, What::Begins) <= 1, "{enter} was repeated");
            let Some(entered) = self.first(&enter, What::Begins) else { continue };
            let left = self.last(&exit, What::Succeeds);
            assert!(left.is_some_and(|left| left > entered), "{enter} began and was not left");
            for body in body() {
                if let Some(undo) = self.first(&body, What::UndoBegins) {
                    assert!(left < Some(undo), "{body} was undone before the exit");
                }
            }
        }
        for body in body() {
            let Some(begins) = self.first(&body, What::Begins) else { continue };
            let held =
                |enter: String| self.first(&enter, What::Succeeds).is_some_and(|h| h < begins);
            assert!(enters().all(held), "{body} began before all members held");
            assert!(self.count(&body, What::Begins) <= 1, "no second attempt in a section");
        }
    }

    /// What cannot be repeated is not, once it may have had an effect: not by a retry and not by another process.
    fn check_repeats(&self) {
        let steps = self.reversible().filter(|(_, spec)| spec.doubt != Doubt::Repeats);
        let once = steps
            .map(|(name, spec)| (name, spec.doubt == Doubt::Asks))
            .chain(["point", "late"].map(|name| (name.to_owned(), false)));
        for (name, tells) in once {
            let mut touched = false;
            for event in self.events.iter().filter(|event| event.step == name) {
                match event.what {
                    What::Begins => {
                        assert!(!touched, "{name} began again and may have had an effect");
                        touched = !tells;
                    }
                    What::FailsClean => touched = false,
                    What::Succeeds => touched = true,
                    _ => {}
                }
            }
        }
    }

    /// E9: where a process died in a section, the next one leaves it before it does anything else for the run.
    fn check_owed_first(&self) {
        let Some(guard) = &self.case.guard else { return };
        for death in &self.deaths {
            for member in 0..guard.enters.len() {
                let (enter, exit) =
                    (format!("guard/m{member}/enter"), format!("guard/m{member}/exit"));
                let before = |name: &str, what| self.of(name, what).filter(|at| at < death).count();
                // One that was given up for lack of success waits for a person.
                let owed = before(&enter, What::Begins) > 0
                    && before(&exit, What::Succeeds) == 0
                    && before(&exit, What::Begins) < 2;
                if !owed {
                    continue;
                }
                let is_exit = |event: &Event| event.step.ends_with("/exit");
                let works = |event: &&Event| {
                    matches!(event.what, What::Begins | What::UndoBegins | What::Probed)
                        && !is_exit(event)
                };
                let next = self.events.iter().filter(|e| e.at >= *death).find(works);
                let tried = self.of(&exit, What::Ends).find(|at| at >= death);
                if let Some(next) = next {
                    assert!(
                        tried.is_some_and(|tried| tried < next.at),
                        "{next:?} came before the owed {exit} had been tried"
                    );
                }
            }
        }
    }

    /// What the naive model says of the case.
    fn check_naive(&self) {
        let end = self.report.end();
        let allowed = naive::allowed(self.case, self.crashed);
        assert!(allowed.ends.contains(&end), "it ended as {end:?}, allowed is {:?}", allowed.ends);
        for name in &allowed.never {
            assert_eq!(self.count(name, What::Begins), 0, "{name} comes after a failure");
        }
        for name in &allowed.must {
            assert!(
                self.count(name, What::Begins) > 0,
                "{name} comes before the failure and never began"
            );
        }
        let whole = BTreeSet::from([End::Succeeded, End::SucceededWithWarnings]).contains(&end);
        let undisturbed = self.case.cancel.is_none() && !self.crashed;
        for (name, attempts) in &allowed.attempts {
            let begun = self.count(name, What::Begins);
            if whole && undisturbed {
                assert_eq!(begun, *attempts, "attempts of {name}");
            }
            assert!(begun <= *attempts, "{name} was tried too often");
        }
    }
}
