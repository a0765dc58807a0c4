//! Hooks: programs of the operator's at certain points of a job.
//!
//! ```text
//!   policy ─ hooks ─┬─ in a run: steps of its plan, before the session and after the freeze ─┐
//!                   └─ around a job: runs of its own, before the first and after the last   ─┴─▶ HookRunner ─▶ program
//! ```
//!
//! A hook is a step like any other: it has a time-out, is cancelled, journalled, carried on after a crash, and its output is in the
//! account of the job. No hook is ever inside a guard, nor beside one: each is before the session of its run begins, or after the
//! freeze is over (decision 0022).

pub(crate) mod jobs;
#[cfg(unix)]
mod program;
pub(crate) mod steps;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, HostId, JobId};
use stillpoint_model::hook::{Hook, HookEnd};
use stillpoint_model::job::JobKind;
use stillpoint_model::policy::PolicyRef;

#[cfg(unix)]
pub use program::{INHERITED, ProgramRunner};

/// The version of the [environment](HookCall::environment): names are added, and what one means is not changed, without another
/// number.
pub const ENVIRONMENT_VERSION: u32 = 1;

/// The most bytes of names of databases in the environment.
const MOST_NAMES: usize = 64 * 1024;

/// What carries out hooks. `ProgramRunner` runs programs below a folder, on Unix; an embedder may bring another, and a test
/// one that runs nothing.
///
/// # The contract
/// - **Confined.** Only what [`check`](Self::check) allows is ever run, and `run` checks it again, where it is with all links
///   followed: what was good when the policy was saved may have been replaced.
/// - **As it stands.** The program gets the words of [`Hook::args`] without a shell, and the variables of
///   [`HookCall::environment`]. Nothing else of the process reaches it unless the runner's documentation lists it. Its standard input
///   is empty.
/// - **It ends.** When the deadline of the call passes or the call is cancelled, the program is ended, with what it has started.
///   That holds if the future is dropped as well.
/// - **Bounded.** What is kept of its output is bounded by the runner.
/// - **Again.** After a crash of the process a hook may be run again: with the same [`Cx::key`], which is in its environment, and a
///   higher [`Cx::attempt`].
///
/// # Cancel safety
/// Dropping `run` leaves its effect unknown.
#[async_trait]
pub trait HookRunner: fmt::Debug + Send + Sync + 'static {
    /// Whether a hook could be run: asked when a policy is saved.
    ///
    /// # Errors
    /// `hook.path_escape` for a program that is not where hooks are, `hook.program_missing` for one that is not there.
    async fn check(&self, cx: &Cx, hook: &Hook) -> Result<(), Failure>;

    /// Runs it, and says how it ended: whatever the program did is an answer.
    ///
    /// # Errors
    /// When it did not begin: as [`check`](Self::check), and `hook.not_started`.
    async fn run(&self, cx: &Cx, call: &HookCall) -> Result<HookEnd, Failure>;
}

/// A hook that is to be run, and what it is run for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HookCall {
    /// The hook.
    pub hook: Hook,
    /// The job.
    pub job: JobId,
    /// What the job does.
    pub kind: JobKind,
    /// What the job is about, for people.
    pub title: String,
    /// The policy that the hook is of.
    pub policy: PolicyRef,
    /// The databases: of the run, or of the whole job after its end. None before a job has looked at what there is.
    pub databases: Vec<String>,
    /// The server whose writes are held, or were, in a run of a backup.
    pub host: Option<HostId>,
    /// What came of it so far: after verification `good` or `bad`, after a job the word of its state.
    pub outcome: Option<String>,
    /// How many databases came out well, and how many there were, after a job.
    pub tally: Option<(usize, usize)>,
}

impl HookCall {
    /// A call of a hook for a job, of which nothing else is known. For tests of runners.
    pub const fn new(
        hook: Hook,
        job: JobId,
        kind: JobKind,
        title: String,
        policy: PolicyRef,
    ) -> Self {
        let databases = Vec::new();
        Self { hook, job, kind, title, policy, databases, host: None, outcome: None, tally: None }
    }

    /// The variables that it is given: those of the hook, and ours, which are always these:
    ///
    /// | name | what |
    /// |---|---|
    /// | `STILLPOINT_HOOK_VERSION` | [`ENVIRONMENT_VERSION`] |
    /// | `STILLPOINT_PHASE` | [`HookPhase::word`](stillpoint_model::hook::HookPhase::word) |
    /// | `STILLPOINT_JOB`, `STILLPOINT_JOB_KIND`, `STILLPOINT_TITLE` | the job, `backup` or `restore`, and its group's name or what it is about |
    /// | `STILLPOINT_POLICY` | the policy as `name@version` |
    /// | `STILLPOINT_RUN` | the run that the hook is a step of |
    /// | `STILLPOINT_DATABASES`, `STILLPOINT_DATABASE_COUNT` | their names, one a line, as many as there is room for in 64 KiB; how many there are |
    /// | `STILLPOINT_HOST` | the server, or empty |
    /// | `STILLPOINT_OUTCOME` | what came of it so far, or empty |
    /// | `STILLPOINT_GOOD`, `STILLPOINT_ALL` | how many databases came out well, of how many; or empty |
    /// | `STILLPOINT_KEY`, `STILLPOINT_ATTEMPT` | the same whenever this hook of this run is run again; how often it has been, from 1 |
    pub fn environment(&self, cx: &Cx) -> BTreeMap<String, String> {
        let mut all = self.hook.env.clone();
        let mut names = String::new();
        for name in &self.databases {
            if names.len() + name.len() + 1 > MOST_NAMES {
                break;
            }
            if !names.is_empty() {
                names.push('\n');
            }
            names.extend(name.chars().map(|c| if c.is_control() { '?' } else { c }));
        }
        let plain = |text: &str| text.replace('\0', "?");
        let number = |number: Option<usize>| number.map_or_else(String::new, |n| n.to_string());
        let ours = [
            ("HOOK_VERSION", ENVIRONMENT_VERSION.to_string()),
            ("PHASE", self.hook.phase.word().to_owned()),
            ("JOB", self.job.to_string()),
            ("JOB_KIND", self.kind.to_string()),
            ("TITLE", plain(&self.title)),
            ("POLICY", plain(&self.policy.to_string())),
            ("RUN", cx.run().to_string()),
            ("DATABASES", names),
            ("DATABASE_COUNT", self.databases.len().to_string()),
            ("HOST", self.host.as_ref().map_or_else(String::new, ToString::to_string)),
            ("OUTCOME", self.outcome.clone().unwrap_or_default()),
            ("GOOD", number(self.tally.map(|(good, _)| good))),
            ("ALL", number(self.tally.map(|(_, all)| all))),
            ("KEY", cx.key().to_string()),
            ("ATTEMPT", cx.attempt().to_string()),
        ];
        let ours = ours.into_iter();
        all.extend(ours.map(|(name, value)| (format!("STILLPOINT_{name}"), value)));
        all
    }
}

/// There is nothing that could run a hook.
pub(crate) fn no_runner(hook: &Hook) -> Failure {
    Failure::new(
        "hook.no_runner",
        ErrorClass::Invalid,
        format!("nothing runs hooks here, so {:?} cannot be run", hook.program),
    )
    .with_effect(Effect::None)
    .with_remedy("Say which folder hooks are in, or take the hook out of the policy.")
}
