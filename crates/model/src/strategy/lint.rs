//! The linter: what will not do what somebody may think it does.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use stillpoint_context::ErrorFacts;

use super::budget::{VolumeNeed, budget};
use super::finding::{Finding, Severity};
use super::kept::Share;
use super::runway::{Assumptions, Runway};
use super::{Seen, Strategy};
use crate::group::ResourceGroup;
use crate::id::{DatabaseId, GroupId, PolicyId};
use crate::inventory::{CopyStatus, Database, Inventory};
use crate::job::{Job, JobKind};
use crate::kind::BackupKind;
use crate::point::RestorePoint;
use crate::policy::{LogRetention, Policy};
use crate::schedule::AttachmentId;

/// So many of the newest jobs say how long one takes.
const NEWEST: usize = 200;

/// What the linter looks at.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LintInputs<'a> {
    /// What is wanted.
    pub strategy: Strategy<'a>,
    /// What exists; without it only what needs no inventory is looked at.
    pub seen: Option<Seen<'a>>,
    /// The jobs, newest first, which say how long backups take.
    pub jobs: &'a [Job],
    /// The restore points, which say how fast logs come.
    pub points: &'a [RestorePoint],
    /// What the operator says.
    pub assumed: Assumptions,
}

impl<'a> LintInputs<'a> {
    /// A strategy, and nothing else known.
    pub fn new(strategy: Strategy<'a>) -> Self {
        Self { strategy, seen: None, jobs: &[], points: &[], assumed: Assumptions::default() }
    }
}

/// What is wrong with a strategy, the worst first.
pub fn lint(inputs: &LintInputs<'_>) -> Vec<Finding> {
    let strategy = &inputs.strategy;
    let mut findings = unscheduled(strategy);
    findings.extend(schedules(strategy));
    findings.extend(too_tight(inputs));
    if let Some(seen) = &inputs.seen {
        findings.extend(databases(inputs, seen));
        findings.extend(budget(strategy, seen).iter().flat_map(of_volume));
    }
    // A stable order, so that two looks at the same thing say the same.
    findings.sort_by(|a, b| {
        let key =
            |finding: &Finding| (std::cmp::Reverse(finding.severity), finding.code.to_string());
        key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
    });
    findings
}

/// Policies that nothing runs.
fn unscheduled(strategy: &Strategy<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for policy in strategy.policies {
        let having = || strategy.groups.iter().filter(|group| group.policies.contains(&policy.id));
        let runs = |group: &&ResourceGroup| {
            group.attachments.iter().any(|attached| attached.policy == policy.id)
        };
        let idle: Vec<&ResourceGroup> = having().filter(|group| !runs(group)).collect();
        let message = if having().next().is_none() {
            format!("policy {} is in no group", policy.name)
        } else if idle.is_empty() {
            continue;
        } else {
            let names: Vec<&str> = idle.iter().map(|group| group.name.as_str()).collect();
            format!("policy {} is on no schedule in {}", policy.name, names.join(", "))
        };
        let remedy = "Attach a schedule to it; until then it is run only when somebody asks.";
        let mut finding = Finding::new("strategy.no_schedule", Severity::Warning, message, remedy)
            .about("policy", policy.id);
        for group in idle {
            finding = finding.about("group", group.id);
        }
        findings.push(finding);
    }
    findings
}

/// Schedules that run nothing, or that are over.
fn schedules(strategy: &Strategy<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for stored in strategy.schedules {
        let mut attached = strategy.groups.iter().flat_map(|group| &group.attachments);
        let name = &stored.schedule.name;
        if !attached.any(|attached| attached.schedule == stored.id) {
            let message = format!("schedule {name} is attached to nothing");
            let remedy = "Attach it to a policy of a group, or remove it.";
            let code = "strategy.schedule_unattached";
            let finding = Finding::new(code, Severity::Info, message, remedy);
            findings.push(finding.about("schedule", stored.id));
        } else if stored.schedule.next(strategy.now).is_none() {
            let message = format!("schedule {name} is never due again");
            let remedy = "Give it a later end, or attach another one.";
            let code = "strategy.schedule_exhausted";
            let finding = Finding::new(code, Severity::Warning, message, remedy);
            findings.push(finding.about("schedule", stored.id));
        }
    }
    findings
}

/// How long the jobs of a policy of a group take: 95 of 100 no longer than that.
fn run_time(jobs: &[Job], group: GroupId, policy: PolicyId) -> Option<TimeDelta> {
    let is_its = |job: &&Job| {
        let made_under = job.policy.as_ref().map(|policy| policy.id);
        job.kind == JobKind::Backup && job.group == Some(group) && made_under == Some(policy)
    };
    let took = |job: &Job| {
        let runs = || job.runs.iter().filter(|run| !run.follow_up);
        let began = runs().filter_map(|run| run.started_at).min()?;
        let ended = runs().filter_map(|run| run.ended_at).max()?;
        job.ended_at.map(|_| ended - began)
    };
    let mut times: Vec<TimeDelta> =
        jobs.iter().filter(is_its).filter_map(took).take(NEWEST).collect();
    times.sort_unstable();
    let rank = (times.len() * 95).div_ceil(100).checked_sub(1)?;
    times.get(rank).copied()
}

/// Schedules that are due again before their job is over.
fn too_tight(inputs: &LintInputs<'_>) -> Vec<Finding> {
    let strategy = &inputs.strategy;
    let mut findings = Vec::new();
    for group in strategy.groups {
        let policies: BTreeSet<PolicyId> =
            group.attachments.iter().map(|attached| attached.policy).collect();
        for policy in policies {
            let pace = strategy.pace(policy, &BTreeSet::from([group.id]));
            let times = run_time(inputs.jobs, group.id, policy).zip(pace.intervals());
            let Some((takes, (shortest, _))) = times.filter(|(takes, (short, _))| short < takes)
            else {
                continue;
            };
            let name = strategy.policy(policy).map_or("", |policy| policy.name.as_str());
            let message = format!(
                "policy {name} of {} is due every {} minutes, and its backups take {}",
                group.name,
                shortest.num_minutes(),
                takes.num_minutes()
            );
            let remedy = "Have it due less often, or find out what takes so long.";
            let mut finding =
                Finding::new("schedule.too_tight", Severity::Warning, message, remedy)
                    .about("group", group.id)
                    .about("policy", policy);
            for id in AttachmentId::all_of(group).filter(|id| id.policy == policy) {
                finding = finding.about("schedule", id.schedule);
            }
            findings.push(finding);
        }
    }
    findings
}

/// Whether nobody writes logs for it.
fn is_at_rest(inventory: &Inventory, database: DatabaseId) -> bool {
    inventory.active_copy(database).is_some_and(|copy| copy.status == CopyStatus::AtRest)
}

fn databases<'a>(inputs: &LintInputs<'a>, seen: &Seen<'a>) -> Vec<Finding> {
    let (strategy, inventory) = (&inputs.strategy, seen.inventory);
    let mut findings = Vec::new();
    let mut in_group = BTreeSet::new();
    let mut runway = Runway::new(inputs.assumed);
    for (having, databases) in strategy.alike(inventory) {
        let shares = strategy.shares(&having);
        let known: Vec<&Database> =
            databases.iter().filter_map(|id| inventory.databases.get(id)).collect();
        in_group.extend(databases.iter().copied());
        findings.extend(log_times(&shares, &known));
        findings.extend(circular(&shares, &known));
        let truncates = |share: &Share<'_>| share.policy.kind.truncates() && share.pace.is_due();
        for database in known.iter().filter(|known| !is_at_rest(inventory, known.id)) {
            // What is overwritten needs nobody to truncate it.
            if database.circular_logging {
                continue;
            }
            if !shares.iter().any(truncates) {
                let message =
                    format!("no backup is planned that truncates the logs of {}", database.name);
                let remedy = "Attach a schedule to a policy of full backups of one of its groups.";
                let code = "strategy.no_truncating_backup";
                let finding = Finding::new(code, Severity::Warning, message, remedy);
                findings.push(finding.about("database", database.id));
            }
            runway.add(database, seen, &shares, inputs.points);
        }
    }
    findings.extend(runway.findings());
    let alone = inventory
        .databases
        .values()
        .filter(|database| !database.recovery && !in_group.contains(&database.id));
    for database in alone {
        let message = format!("database {} is in no group", database.name);
        let remedy = "Make it a member of a group, or of what a group takes as a whole.";
        let finding = Finding::new("strategy.no_group", Severity::Warning, message, remedy);
        findings.push(finding.about("database", database.id));
    }
    findings
}

/// The names of databases, as far as there is room for them.
fn names(databases: &[&Database]) -> String {
    let shown: Vec<&str> = databases.iter().take(3).map(|known| known.name.as_str()).collect();
    match databases.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn about_policy(finding: Finding, policy: &Policy, databases: &[&Database]) -> Finding {
    let about = finding.about("policy", policy.id);
    databases.iter().fold(about, |finding, database| finding.about("database", database.id))
}

/// A time in days and hours.
fn time(time: TimeDelta) -> String {
    match (time.num_days(), time.num_hours() % 24) {
        (days, 0) => format!("{days} days"),
        (0, hours) => format!("{hours} hours"),
        (days, hours) => format!("{days} days and {hours} hours"),
    }
}

/// Logs that are kept longer than what they could roll forward, and shorter.
fn log_times(shares: &[Share<'_>], databases: &[&Database]) -> Vec<Finding> {
    let Ok(logs) = Strategy::logs_of(shares) else { return Vec::new() };
    let fulls = || shares.iter().filter(|share| share.policy.kind.takes_database());
    let mut oldest = TimeDelta::zero();
    let mut findings = Vec::new();
    let mut all_known = true;
    for share in fulls() {
        let Ok(kept) = share.oldest() else {
            all_known = false;
            continue;
        };
        oldest = oldest.max(kept);
        if logs < kept {
            let message = format!(
                "restore points of policy {} are kept for {}, and logs of {} for {}: the older ones can be brought back to \
                 their own instant only",
                share.policy.name,
                time(kept),
                names(databases),
                time(logs)
            );
            let remedy = "Keep logs for as long, if they are to be rolled forward.";
            let code = "strategy.points_become_pit_only";
            let finding = Finding::new(code, Severity::Info, message, remedy);
            findings.push(about_policy(finding, share.policy, databases));
        }
    }
    let by_days = |share: &&Share<'_>| matches!(share.policy.log_retention, LogRetention::Days(_));
    if all_known && logs > oldest && fulls().next().is_some() {
        let message = format!(
            "logs of {} are kept for {}, and restore points for {}: the older logs roll nothing forward",
            names(databases),
            time(logs),
            time(oldest)
        );
        let remedy = "Keep restore points for as long, or logs for less.";
        let finding =
            Finding::new("strategy.logs_outlive_fulls", Severity::Warning, message, remedy);
        let by = shares.iter().find(by_days).or_else(|| shares.first());
        findings.extend(by.map(|by| about_policy(finding, by.policy, databases)));
    }
    findings
}

/// Log backups of databases whose logs are overwritten.
fn circular(shares: &[Share<'_>], databases: &[&Database]) -> Vec<Finding> {
    let circular: Vec<&Database> =
        databases.iter().copied().filter(|database| database.circular_logging).collect();
    let logs = shares.iter().filter(|share| share.policy.kind == BackupKind::Log);
    let finding = |share: &Share<'_>| {
        let message = format!(
            "policy {} backs up logs of {}, which has circular logging",
            share.policy.name,
            names(&circular)
        );
        let remedy = "Use a full policy, or switch circular logging off.";
        let code = "policy.log_with_circular_logging";
        about_policy(Finding::new(code, Severity::Error, message, remedy), share.policy, &circular)
    };
    if circular.is_empty() { Vec::new() } else { logs.map(finding).collect() }
}

/// What the snapshots of a volume come to.
fn of_volume(known: &VolumeNeed) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(limit) = known.limit else { return findings };
    if let Err(error) = known.check() {
        let (message, remedy) = (error.to_string(), error.remedy());
        findings.push(Finding::new(error.code(), Severity::Error, message, remedy));
    } else if known.is_tight() {
        let message = format!(
            "volume {} would hold {} snapshots, which is close to its limit of {limit}",
            known.volume, known.need
        );
        let remedy = "Keep less, or have the limit raised.";
        let code = "retention.snapshot_budget_tight";
        findings.push(Finding::new(code, Severity::Warning, message, remedy));
    }
    if !known.unknown.is_empty() {
        let why: Vec<String> = known.unknown.iter().map(ToString::to_string).collect();
        let message = format!(
            "it is not known how many snapshots volume {} would hold, of at most {limit}: {}",
            known.volume,
            why.join("; ")
        );
        let remedy = "Have the policy keep a number, or attach a schedule to it.";
        let code = "retention.snapshot_budget_unknown";
        findings.push(Finding::new(code, Severity::Info, message, remedy));
    }
    findings.into_iter().map(|finding| finding.about("volume", &known.volume)).collect()
}
