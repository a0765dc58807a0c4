//! How far a job has come: bars on a terminal, lines elsewhere, nothing if nobody wants it.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use stillpoint::JobEvent;
use stillpoint::context::{Failure, Progress, ProgressUnit, RunId, StepName};
use stillpoint::model::job::JobState;

use crate::out::Out;
use crate::text::printable;

/// Shows the events of one job.
#[derive(Debug)]
pub(crate) struct Display {
    out: Out,
    title: String,
    bars: Option<Bars>,
}

#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    job: ProgressBar,
    steps: BTreeMap<(RunId, StepName), ProgressBar>,
}

impl Display {
    /// Begins to show a job of this title.
    pub(crate) fn begin(out: Out, title: impl Into<String>) -> Self {
        let title = printable(&title.into());
        let bars = out.draws().then(|| {
            let all = MultiProgress::new();
            let job = all.add(ProgressBar::new_spinner().with_message(title.clone()));
            job.enable_steady_tick(Duration::from_millis(100));
            Bars { all, job, steps: BTreeMap::new() }
        });
        Self { out, title, bars }
    }

    /// Takes in what happened.
    pub(crate) fn event(&mut self, event: &JobEvent) {
        match &mut self.bars {
            Some(bars) => bars.event(event, &self.title),
            None => self.line(event),
        }
    }

    /// A line above whatever is drawn.
    pub(crate) fn note(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.all.suspend(|| Out::alarm(line)),
            None => Out::alarm(line),
        }
    }

    /// Clears what is drawn, and says how it ended.
    pub(crate) fn end(self, state: JobState) {
        if let Some(bars) = &self.bars {
            for step in bars.steps.values() {
                step.finish_and_clear();
            }
            bars.job.finish_and_clear();
        }
        self.out.note(&format!("{}: {state}", self.title));
    }

    /// Lines tell what begins and what waits; counting would fill a log.
    fn line(&self, event: &JobEvent) {
        match event {
            JobEvent::State(state) if !state.is_final() => {
                self.out.note(&format!("{}: {state}", self.title));
            }
            JobEvent::Step { step, what: "running", .. } => {
                self.out.note(&format!("{}: {step}", self.title));
            }
            JobEvent::Step { step, what, .. } if *what != "done" => {
                self.out.note(&format!("{}: {step} {what}", self.title));
            }
            JobEvent::Waiting { key, holder, .. } => {
                self.out.note(&format!("{}: waits for {key}, held by run {holder}", self.title));
            }
            JobEvent::Stalled { why, .. } => self.out.note(&stalled(&self.title, why)),
            _ => {}
        }
    }
}

impl Bars {
    fn event(&mut self, event: &JobEvent, title: &str) {
        match event {
            JobEvent::State(state) => self.job.set_message(format!("{title}: {state}")),
            JobEvent::Step { run, step, what } => {
                let key = (*run, step.clone());
                if *what == "running" {
                    self.job.set_message(format!("{title}: {step}"));
                } else if let Some(bar) = self.steps.remove(&key) {
                    bar.finish_and_clear();
                }
            }
            JobEvent::Progress { run, step, progress } => self.progress(*run, step, progress),
            JobEvent::Waiting { key, holder, .. } => {
                self.job.set_message(format!("{title}: waits for {key}, held by run {holder}"));
            }
            JobEvent::Stalled { why, .. } => self.job.set_message(stalled(title, why)),
            _ => {}
        }
    }

    fn progress(&mut self, run: RunId, step: &StepName, progress: &Progress) {
        let all = &self.all;
        let bar = self
            .steps
            .entry((run, step.clone()))
            .or_insert_with(|| all.add(ProgressBar::no_length().with_style(style(progress.unit))));
        if let Some(total) = progress.total {
            bar.set_length(total);
        }
        bar.set_position(progress.done);
        bar.set_message(printable(&progress.what));
    }
}

fn stalled(title: &str, why: &Failure) -> String {
    printable(&format!("{title}: stands still: {why} ({})", why.code))
}

fn style(unit: ProgressUnit) -> ProgressStyle {
    let template = match unit {
        ProgressUnit::Bytes => "  {bytes:>10} of {total_bytes:10} {wide_bar} {msg}",
        _ => "  {pos:>10} of {len:10} {wide_bar} {msg}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
