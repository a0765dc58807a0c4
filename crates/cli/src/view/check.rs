//! What `provider check` and `plugin check` show.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use stillpoint_testkit::conformance::{Outcome, Verdict};

use super::Report;
use super::doctor::{FindingView, Level, write_findings};
use crate::exit::Exit;
use crate::text::{self, Table};

/// Which side of a backup was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// The one that takes snapshots.
    Provider,
    /// The one that speaks for Exchange.
    Plugin,
}

/// Something that a side can do, or cannot.
#[derive(Clone, Debug, Serialize)]
struct AbilityView {
    ability: &'static str,
    can: bool,
    /// What that means.
    means: String,
}

/// How long a call took.
#[derive(Clone, Debug, Serialize)]
struct TimeView {
    call: &'static str,
    rounds: usize,
    median_ms: f64,
    worst_ms: f64,
    #[serde(skip)]
    told: [Duration; 2],
}

/// What the times were measured with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct MeasuredView {
    /// Files that were taken, and what they hold.
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// Files that a backup would take, and what they hold.
    pub(crate) of_files: usize,
    pub(crate) of_bytes: u64,
}

/// Whether a snapshot fits into a freeze.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FitView {
    limit_ms: f64,
    /// What the provider says before the freeze that it takes at worst.
    worst_case_ms: Option<f64>,
    fits: bool,
    message: String,
}

#[derive(Clone, Debug, Serialize)]
struct CaseView {
    case: &'static str,
    contract: &'static str,
    rule: &'static str,
    /// Of one that failed: how the rule is broken. Of one that was not tried: why.
    why: String,
}

/// What came of the cases of the suite that do no harm.
#[derive(Debug, Default, Serialize)]
struct CasesView {
    passed: usize,
    failed: Vec<CaseView>,
    skipped: Vec<CaseView>,
}

/// What `provider check` and `plugin check` show.
#[derive(Debug, Serialize)]
pub(crate) struct CheckView {
    side: Side,
    /// What it calls itself; none if it could not be opened.
    pub(crate) name: Option<String>,
    pub(crate) source: String,
    /// The folder in which copies would be kept.
    pub(crate) store: Option<String>,
    /// `files` or `btrfs`.
    pub(crate) storage: Option<&'static str>,
    /// A backup can be made with it.
    usable: bool,
    abilities: Vec<AbilityView>,
    times: Vec<TimeView>,
    pub(crate) measured: Option<MeasuredView>,
    pub(crate) freeze: Option<FitView>,
    cases: CasesView,
    findings: Vec<FindingView>,
    /// What could not be taken away again.
    pub(crate) left_behind: Vec<String>,
}

/// Milliseconds to the microsecond.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl FitView {
    pub(crate) fn new(
        limit: Duration,
        worst: Option<Duration>,
        fits: bool,
        message: impl Into<String>,
    ) -> Self {
        let worst_case_ms = worst.map(millis);
        Self { limit_ms: millis(limit), worst_case_ms, fits, message: message.into() }
    }
}

impl CheckView {
    pub(crate) fn new(side: Side, source: &std::path::Path) -> Self {
        Self {
            side,
            name: None,
            source: source.display().to_string(),
            store: None,
            storage: None,
            usable: false,
            abilities: Vec::new(),
            times: Vec::new(),
            measured: None,
            freeze: None,
            cases: CasesView::default(),
            findings: Vec::new(),
            left_behind: Vec::new(),
        }
    }

    pub(crate) fn ability(&mut self, ability: &'static str, can: bool, means: impl Into<String>) {
        self.abilities.push(AbilityView { ability, can, means: means.into() });
    }

    /// Notes how long a call took each time; not at all is not noted.
    pub(crate) fn time(&mut self, call: &'static str, mut took: Vec<Duration>) {
        took.sort();
        let (Some(median), Some(worst)) = (took.get(took.len() / 2), took.last()) else { return };
        let told = [*median, *worst];
        let (median_ms, worst_ms) = (millis(*median), millis(*worst));
        self.times.push(TimeView { call, rounds: took.len(), median_ms, worst_ms, told });
    }

    pub(crate) fn case(&mut self, verdict: &Verdict) {
        let Verdict { name, contract, rule, outcome } = verdict;
        let view = |why: &str| CaseView { case: name, contract, rule, why: why.to_owned() };
        match outcome {
            Outcome::Passed => self.cases.passed += 1,
            Outcome::Failed(flaw) => self.cases.failed.push(view(flaw)),
            Outcome::Skipped(why) => self.cases.skipped.push(view(why)),
        }
    }

    pub(crate) fn add(
        &mut self,
        area: &str,
        level: Level,
        message: impl Into<String>,
        remedy: &str,
    ) {
        self.findings.push(FindingView::new(area, level, message, remedy));
    }

    /// Whether something was found that no backup can be made with.
    pub(crate) fn is_unusable(&self) -> bool {
        self.findings.iter().any(|finding| finding.level() == Level::Error)
    }

    /// Draws the conclusion.
    pub(crate) fn close(&mut self) -> Exit {
        let is_told = |finding: &FindingView| finding.is_of("contract", Level::Error);
        if !self.cases.failed.is_empty() && !self.findings.iter().any(is_told) {
            let message = format!(
                "{} of the contract broken [check.contract_broken]",
                text::count(self.cases.failed.len(), "rule")
            );
            let remedy = "Look at each. If it is none of the system (room, rights, somebody else at work on it), report it \
                          to whoever made this side; do not trust its backups until then.";
            self.add("contract", Level::Error, message, remedy);
        }
        self.usable = !self.is_unusable();
        let worst = self.findings.iter().map(FindingView::level).max();
        match worst {
            _ if !self.left_behind.is_empty() => Exit::Attention,
            Some(Level::Error) => Exit::Failed,
            Some(Level::Warning) => Exit::Warnings,
            Some(Level::Ok) | None => Exit::Done,
        }
    }

    fn write_abilities(&self, text: &mut String) {
        for ability in &self.abilities {
            let can = if ability.can { "can" } else { "cannot" };
            let _ = writeln!(text, "{can:8} {}", ability.means);
        }
    }

    fn write_times(&self, text: &mut String) {
        if let Some(measured) = &self.measured {
            let MeasuredView { files, bytes, of_files, of_bytes } = *measured;
            let all = format!("{} with {}", text::count(of_files, "file"), text::bytes(of_bytes));
            if files == of_files {
                let _ = writeln!(text, "times    of {all}");
            } else {
                let some = format!("{} with {}", text::count(files, "file"), text::bytes(bytes));
                let _ = writeln!(text, "times    of {some}, out of {all}");
            }
        }
        let mut table = Table::default();
        for time in &self.times {
            let [median, worst] = time.told.map(|told| format!("{told:.1?}"));
            table.row([
                time.call.to_owned(),
                format!("median {median}"),
                format!("worst {worst}"),
                format!("of {}", time.rounds),
            ]);
        }
        table.write(text, "         ");
        if let Some(fit) = &self.freeze {
            let _ = writeln!(text, "freeze   {}", fit.message);
        }
    }

    fn write_cases(&self, text: &mut String) {
        let CasesView { passed, failed, skipped } = &self.cases;
        let tried = passed + failed.len();
        if tried > 0 {
            let skipped = skipped.len();
            let _ = writeln!(
                text,
                "contract {passed} of {} kept, {skipped} not to be tried here",
                text::count(tried, "rule")
            );
        }
        for case in failed {
            let _ = writeln!(
                text,
                "  broken {} {}\n         rule: {}",
                case.contract, case.case, case.rule
            );
            let _ = writeln!(text, "         {}", case.why);
        }
    }
}

impl Report for CheckView {
    const SCHEMA: &'static str = "stillpoint.check/1";

    fn text(&self, text: &mut String) {
        let side = match self.side {
            Side::Provider => "provider",
            Side::Plugin => "plug-in",
        };
        let name = self.name.as_deref().unwrap_or("(not opened)");
        let _ = writeln!(text, "{side} {name} over {}", self.source);
        self.write_abilities(text);
        self.write_times(text);
        self.write_cases(text);
        write_findings(text, &self.findings);
        for left in &self.left_behind {
            let _ = writeln!(text, "left behind: {left}");
        }
        let verdict = if self.usable {
            "a backup can be made with it"
        } else {
            "no backup can be made with it"
        };
        let _ = writeln!(text, "{verdict}");
    }
}
