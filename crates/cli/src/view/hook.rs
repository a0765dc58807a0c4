//! Hooks: in policies, in plans, and in the account of a job.

use std::fmt::Write as _;

use serde::Serialize;

use crate::model::hook::{Hook, HookEnd, HookStatus, OnHookFailure};

/// A hook of a policy. What its variables are is not shown: they may be secrets.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HookView {
    phase: &'static str,
    program: String,
    args: Vec<String>,
    variables: Vec<String>,
    timeout_ms: u64,
    on_failure: OnHookFailure,
    /// Whether its failure fails what it belongs to.
    needed: bool,
    #[serde(skip)]
    line: String,
}

impl HookView {
    pub(crate) fn all(hooks: &[Hook]) -> Vec<Self> {
        hooks.iter().map(Self::of).collect()
    }

    fn of(hook: &Hook) -> Self {
        Self {
            phase: hook.phase.word(),
            program: hook.program.clone(),
            args: hook.args.clone(),
            variables: hook.env.keys().cloned().collect(),
            timeout_ms: u64::try_from(hook.timeout.as_millis()).unwrap_or(u64::MAX),
            on_failure: hook.on_failure,
            needed: hook.is_needed(),
            line: hook.to_string(),
        }
    }

    pub(crate) fn write(text: &mut String, indent: &str, hooks: &[Self]) {
        for hook in hooks {
            let _ = writeln!(text, "{indent}hook {}", hook.line);
        }
    }
}

/// What became of a hook.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HookEndView {
    /// `exited`, `signalled`, `timed_out`, `cancelled` or `not_started`.
    end: &'static str,
    /// The code, or the signal.
    number: Option<i32>,
    output: String,
    cut: u64,
    #[serde(skip)]
    line: String,
}

impl HookEndView {
    pub(crate) fn of(end: &HookEnd) -> Self {
        let (word, number) = match &end.status {
            HookStatus::Exited(code) => ("exited", Some(*code)),
            HookStatus::Signalled(signal) => ("signalled", Some(*signal)),
            HookStatus::TimedOut => ("timed_out", None),
            HookStatus::Cancelled => ("cancelled", None),
            _ => ("not_started", None),
        };
        let (output, cut) = (end.output.clone(), end.cut);
        Self { end: word, number, output, cut, line: end.status.to_string() }
    }

    /// What it wrote, for people.
    pub(crate) fn write(&self, text: &mut String, indent: &str, step: &str) {
        let _ = writeln!(text, "{indent}{step} {}", self.line);
        if self.cut > 0 {
            let _ = writeln!(text, "{indent}  … {} bytes before this are not kept", self.cut);
        }
        for line in self.output.lines() {
            // It is somebody else's text: nothing of it may steer a terminal.
            let plain: String =
                line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            let _ = writeln!(text, "{indent}  | {plain}");
        }
    }
}
