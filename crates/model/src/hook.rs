//! Hooks: programs of the operator's that run at certain points of a job, never while anything is frozen.
//!
//! ```text
//!   before_job ─ … before_quiesce ─ begin ─[ freeze ]─ after_thaw ─ … judge ─ after_verify ─ publish … ─ after_backup ─ always
//!                                                                                             or on_failure
//!   before_restore ─ … ─ after_restore ─ always, or on_failure
//! ```
//!
//! ```
//! use stillpoint_model::hook::{Hook, HookPhase};
//!
//! let hook = Hook::new(HookPhase::BeforeQuiesce, "quiet/scanner").with_args(["--pause"]);
//! assert!(hook.check().is_ok());
//! let escapes = Hook::new(HookPhase::Always, "../../bin/sh");
//! assert_eq!(escapes.check().unwrap_err().to_string(), "the program \"../../bin/sh\" leaves the folder of hooks: it has ..");
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod rules;

pub use rules::{HookError, check_program};

/// The most hooks that a policy may have.
pub const MOST_HOOKS: usize = 32;
/// The longest that a hook may be given.
pub const LONGEST_HOOK: Duration = Duration::from_hours(24);
/// What the names of variables begin with that a hook is given by us, and cannot set itself.
pub const VARIABLES: &str = "STILLPOINT_";

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HookPhase {
    /// Before a backup job looks at what there is.
    BeforeJob,
    /// In each run of a backup, before its session begins.
    BeforeQuiesce,
    /// In each run, once the freeze is over, beside what makes the snapshots durable.
    AfterThaw,
    /// In each run, once its databases were judged, before anything is published.
    AfterVerify,
    /// After the last run of a backup job that succeeded, also with warnings, and what follows on it.
    AfterBackup,
    /// After a backup or restore job that failed, or left something that needs attention.
    OnFailure,
    /// Before the target of a restore is opened.
    BeforeRestore,
    /// After a restore that succeeded.
    AfterRestore,
    /// At the end of a backup or restore job, whatever became of it, also if it was cancelled.
    Always,
    /// While writes are held. Never allowed: it is here so that whoever asks for it is told so.
    #[serde(
        alias = "after_freeze",
        alias = "while_frozen",
        alias = "before_snapshot",
        alias = "after_snapshot",
        alias = "before_thaw"
    )]
    InFreeze,
}

impl HookPhase {
    /// All that are allowed, in the order in which a job comes to them.
    pub const ALLOWED: [Self; 9] = [
        Self::BeforeJob,
        Self::BeforeQuiesce,
        Self::AfterThaw,
        Self::AfterVerify,
        Self::BeforeRestore,
        Self::AfterRestore,
        Self::AfterBackup,
        Self::OnFailure,
        Self::Always,
    ];

    /// The word that stored forms use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::BeforeJob => "before_job",
            Self::BeforeQuiesce => "before_quiesce",
            Self::AfterThaw => "after_thaw",
            Self::AfterVerify => "after_verify",
            Self::AfterBackup => "after_backup",
            Self::OnFailure => "on_failure",
            Self::BeforeRestore => "before_restore",
            Self::AfterRestore => "after_restore",
            Self::Always => "always",
            Self::InFreeze => "in_freeze",
        }
    }

    /// Whether a hook can fail what it belongs to: not once everything is done.
    pub const fn may_fail(self) -> bool {
        match self {
            Self::BeforeJob
            | Self::BeforeQuiesce
            | Self::AfterThaw
            | Self::AfterVerify
            | Self::BeforeRestore => true,
            Self::AfterBackup
            | Self::OnFailure
            | Self::AfterRestore
            | Self::Always
            | Self::InFreeze => false,
        }
    }

    /// Whether it is bound to a freeze: right before databases have to stand still, or right after.
    pub const fn is_around_freeze(self) -> bool {
        matches!(self, Self::BeforeQuiesce | Self::AfterThaw)
    }

    /// Whether it is for restores alone.
    pub const fn is_of_restores(self) -> bool {
        matches!(self, Self::BeforeRestore | Self::AfterRestore)
    }
}

impl fmt::Display for HookPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.word().replace('_', " "))
    }
}

/// What happens when a hook fails: it does not start, ends with another code than 0, or takes too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnHookFailure {
    /// What it belongs to fails and is undone; where [nothing can fail any more](HookPhase::may_fail), it is a warning.
    #[default]
    Fail,
    /// A warning.
    Warn,
    /// Nothing. What it wrote is kept all the same.
    Ignore,
}

impl fmt::Display for OnHookFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fail => "fail",
            Self::Warn => "warn",
            Self::Ignore => "ignore",
        })
    }
}

/// A program that runs at a certain point of a job.
///
/// `Debug` shows the names of its variables and not what they are: they may be secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hook {
    /// When.
    pub phase: HookPhase,
    /// The program: a path below the folder of hooks, with `/` between its parts. It is not searched for.
    pub program: String,
    /// What it is called with, each word as it stands: no shell sees them.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables of its own, beside [ours](VARIABLES).
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// After this long it is ended, with everything that it has started.
    #[serde(rename = "timeout_ms", default = "usual_timeout", with = "crate::millis")]
    pub timeout: Duration,
    /// What its failure means.
    #[serde(default)]
    pub on_failure: OnHookFailure,
}

const fn usual_timeout() -> Duration {
    Duration::from_mins(1)
}

impl Hook {
    /// A hook without arguments that has a minute, and whose failure is a failure.
    pub fn new(phase: HookPhase, program: impl Into<String>) -> Self {
        Self {
            phase,
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            timeout: usual_timeout(),
            on_failure: OnHookFailure::default(),
        }
    }

    /// The same, called with these words.
    #[must_use]
    pub fn with_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The same with so much time.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same, with another meaning of its failure.
    #[must_use]
    pub const fn on_failure(mut self, on_failure: OnHookFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// Whether its failure fails what it belongs to.
    pub const fn is_needed(&self) -> bool {
        matches!(self.on_failure, OnHookFailure::Fail) && self.phase.may_fail()
    }

    /// Whether it makes sense by itself. Where its program really is, with links, is for whoever runs it to see.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), HookError> {
        rules::check(self)
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, program, args, env, timeout, on_failure } = self;
        f.debug_struct("Hook")
            .field("phase", phase)
            .field("program", program)
            .field("args", args)
            .field("env", &env.keys().collect::<Vec<_>>())
            .field("timeout", timeout)
            .field("on_failure", on_failure)
            .finish()
    }
}

impl fmt::Display for Hook {
    /// One line, without arguments and variables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, program, timeout, on_failure, .. } = self;
        write!(f, "{phase}: {program}, at most {} ms", timeout.as_millis())?;
        if self.is_needed() {
            return f.write_str(", must succeed");
        }
        match on_failure {
            OnHookFailure::Ignore => f.write_str(", its failure is ignored"),
            OnHookFailure::Fail | OnHookFailure::Warn => f.write_str(", its failure is a warning"),
        }
    }
}

/// How a hook ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HookStatus {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal, which we did not send.
    Signalled(i32),
    /// It took longer than it had, and was ended.
    TimedOut,
    /// The job was cancelled, and it was ended.
    Cancelled,
    /// It did not begin.
    NotStarted {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for HookStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "ended with code {code}"),
            Self::Signalled(signal) => write!(f, "was ended by signal {signal}"),
            Self::TimedOut => f.write_str("took longer than it had"),
            Self::Cancelled => f.write_str("was ended, as its job was cancelled"),
            Self::NotStarted { reason } => write!(f, "did not begin: {reason}"),
        }
    }
}

/// What became of a hook, as its run keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HookEnd {
    /// How it ended.
    pub status: HookStatus,
    /// The end of what it wrote to standard output and standard error, as it came.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// How many bytes it wrote before that, which are not kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut: u64,
}

// `skip_serializing_if` hands over references.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl HookEnd {
    /// One that wrote nothing.
    pub const fn new(status: HookStatus) -> Self {
        Self { status, output: String::new(), cut: 0 }
    }

    /// The same with what it wrote, and how many bytes before that are not kept.
    #[must_use]
    pub fn with_output(mut self, output: impl Into<String>, cut: u64) -> Self {
        (self.output, self.cut) = (output.into(), cut);
        self
    }

    /// Whether it did what it was for.
    pub const fn is_good(&self) -> bool {
        matches!(self.status, HookStatus::Exited(0))
    }
}
