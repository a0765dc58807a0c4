//! X3 and X7: evidence, verification and completion.

use std::collections::BTreeMap;
use std::time::Duration;

use stillpoint_context::{Effect, ErrorFacts};
use stillpoint_exchange::{
    BackupKind, Completion, Held, PluginErrorKind as Kind, SessionSpec, SessionState, Truncation,
    Verdict, VerifyFile, VerifySpec,
};
use stillpoint_model::seal::SealWriter;
use stillpoint_model::verdict::{Finding, FindingKind};

use super::super::frame::{Flaw, ensure, same};
use super::place::Can;
use super::trial::{Trial, all_good, missing_kind, placed, refused};

pub(super) async fn evidence_is_of_every_copy(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.thawed(&spec).await?;
    let plugin = trial.plugin()?;
    let outcome = plugin.evidence(trial.cx(), spec.id).await?;
    let mut copies: Vec<_> = spec.copies.clone();
    copies.sort();
    same("whose evidence there is", &outcome.copies.keys().cloned().collect(), &copies)?;
    same("the level that was reached", &outcome.level, &trial.caps.quiesce)?;
    same("the grain of the evidence", &outcome.grain, &trial.caps.grain)?;
    if let (Some(frozen), Some(thawed)) = (outcome.frozen_at, outcome.thawed_at) {
        ensure(frozen <= thawed, || format!("thawed at {thawed}, frozen at {frozen}"))?;
    }
    for copy in &spec.copies {
        let held = outcome.held(copy);
        ensure(!matches!(held, Held::Broken(_)), || {
            format!("a freeze that nothing disturbed was broken for {copy}: {held:?}")
        })?;
    }
    same("evidence, asked again", &plugin.evidence(trial.cx(), spec.id).await?, &outcome)?;
    trial.end(&spec).await
}

async fn nothing_held(trial: &Trial, spec: &SessionSpec, when: &str) -> Result<(), Flaw> {
    let outcome = trial.plugin()?.evidence(trial.cx(), spec.id).await?;
    for copy in &spec.copies {
        let held = outcome.held(copy);
        ensure(held != Held::Yes, || format!("{when} the freeze of {copy} is said to have held"))?;
    }
    Ok(())
}

pub(super) async fn what_is_not_known_is_not_called_held(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    nothing_held(&trial, &spec, "before any freeze").await?;
    if trial.freezes() {
        trial.plugin()?.freeze(trial.cx(), spec.id, trial.limit()).await?;
        nothing_held(&trial, &spec, "before the thaw").await?;
        trial.plugin()?.thaw(trial.cx(), spec.id).await?;
    }
    trial.end(&spec).await
}

pub(super) async fn a_broken_freeze_is_not_called_held(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.frozen(&spec).await?;
    let copy = spec.copies.first().ok_or_else(|| Flaw::new("there is no copy"))?;
    placed("disturb", trial.place.disturb(copy).await)?;
    trial.plugin()?.thaw(trial.cx(), spec.id).await?;
    let held = trial.plugin()?.evidence(trial.cx(), spec.id).await?.held(copy);
    ensure(held != Held::Yes, || {
        format!("the freeze of {copy} was broken, and is said to have held")
    })?;
    trial.end(&spec).await
}

pub(super) async fn what_is_bad_is_a_verdict(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    let session = trial.begin(&spec).await?;
    let plugin = trial.plugin()?;
    plugin.freeze(trial.cx(), spec.id, trial.limit()).await?;
    let exposure = placed("expose", trial.place.expose(&session.files).await)?;
    plugin.thaw(trial.cx(), spec.id).await?;
    let whole: Vec<_> =
        session.files.iter().map(|file| VerifyFile::new(file.clone(), None)).collect();
    let report = plugin.verify(trial.cx(), &exposure, &VerifySpec::new(whole.clone())).await?;
    for copy in &spec.copies {
        let verdict = report.verdict(copy);
        ensure(verdict.is_good(), || format!("what is whole is {verdict:?}"))?;
    }
    // Every byte is compared where a seal is given: this one is of other bytes.
    let mut writer = SealWriter::new(5);
    writer.update(b"other");
    let seal = writer.finish();
    let mut sealed = whole.clone();
    if let Some(file) = sealed.first_mut() {
        file.seal = Some(seal);
        let copy = file.file.copy.clone();
        let report = plugin.verify(trial.cx(), &exposure, &VerifySpec::new(sealed)).await?;
        let verdict = report.verdict(&copy);
        ensure(matches!(verdict, Verdict::Bad { .. }), || {
            format!("what is not what was sealed is {verdict:?}")
        })?;
    }
    let mut missing = whole;
    if let Some(file) = missing.first_mut() {
        let copy = file.file.copy.clone();
        let raw = format!("{}.not-there", file.file.path.as_str());
        let path = &file.file.path;
        file.file.path = stillpoint_context::HostPath::new(path.host().clone(), path.flavor(), raw)
            .map_err(|error| Flaw::new(error.to_string()))?;
        let report = plugin.verify(trial.cx(), &exposure, &VerifySpec::new(missing)).await?;
        let verdict = report.verdict(&copy);
        ensure(matches!(verdict, Verdict::Bad { .. }), || {
            format!("what is missing is {verdict:?}")
        })?;
    }
    trial.end(&spec).await
}

pub(super) async fn a_kind_that_is_not_declared_is_refused(trial: Trial) -> Result<(), Flaw> {
    let mut spec = trial.spec()?;
    spec.kind = missing_kind(&trial.caps);
    let begun = trial.plugin()?.begin(trial.cx(), &spec).await;
    refused("beginning a kind that is not declared", begun, "Unsupported", |kind| {
        matches!(kind, Kind::Unsupported(_))
    })?;
    let state = trial.state(spec.id).await?;
    ensure(!matches!(state, SessionState::Open), || "what was refused is open".to_owned())
}

pub(super) async fn the_kind_is_fixed_at_the_beginning(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.begin(&spec).await?;
    for kind in trial.caps.kinds.iter().copied().filter(|kind| *kind != spec.kind) {
        let mut other = spec.clone();
        other.kind = kind;
        if let Ok(session) = trial.plugin()?.begin(trial.cx(), &other).await {
            same("the kind of a session begun as another", &session.kind, &spec.kind)?;
        }
    }
    same("the session", &trial.begin(&spec).await?.kind, &spec.kind)?;
    trial.end(&spec).await
}

pub(super) async fn a_completion_answers_for_each_copy(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.thawed(&spec).await?;
    let plugin = trial.plugin()?;
    let mut verdicts = all_good(&spec);
    // One without a verdict has an answer, too.
    if verdicts.len() > 1 {
        verdicts.pop_last();
    }
    let answers = plugin.complete(trial.cx(), spec.id, &verdicts).await?;
    let mut copies = spec.copies.clone();
    copies.sort();
    same("whose completions there are", &answers.keys().cloned().collect(), &copies)?;
    let bad = spec.copies.iter().map(|copy| (copy.clone(), bad())).collect();
    for (what, verdicts) in [("with others' verdicts", bad), ("again", verdicts)] {
        let again = plugin.complete(trial.cx(), spec.id, &verdicts).await?;
        same(&format!("completing {what}"), &again, &answers)?;
    }
    let state = trial.state(spec.id).await?;
    let legal = [SessionState::Completed(answers), SessionState::Unknown];
    ensure(legal.contains(&state), || format!("a completed session is {state:?}"))
}

fn bad() -> Verdict {
    Verdict::bad(vec![Finding::new("file", FindingKind::Checksum, "it is bad")])
}

/// Completes a session with these verdicts, waits, and looks that nothing was truncated for it.
async fn truncates_nothing(
    trial: &Trial,
    spec: &SessionSpec,
    verdicts: &BTreeMap<stillpoint_exchange::CopyId, Verdict>,
    why: &str,
) -> Result<(), Flaw> {
    trial.thawed(spec).await?;
    let since = trial.cx().now();
    let plugin = trial.plugin()?;
    plugin.complete(trial.cx(), spec.id, verdicts).await?;
    if trial.can(Can::Virtual) {
        trial.wait(Duration::from_hours(1)).await;
    }
    for copy in &spec.copies {
        let truncation = plugin.truncation(trial.cx(), copy, since).await?;
        let none = matches!(truncation, Truncation::NothingEligible { .. } | Truncation::Unknown);
        ensure(none, || format!("{why} the truncation of {copy} is {truncation:?}"))?;
    }
    Ok(())
}

fn truncating(trial: &Trial) -> Result<SessionSpec, Flaw> {
    let mut spec = trial.spec()?;
    let kind = trial.caps.kinds.iter().copied().find(|kind| kind.truncates());
    spec.kind = kind.ok_or_else(|| Flaw::new("no kind truncates"))?;
    Ok(spec)
}

pub(super) async fn a_bad_verdict_truncates_nothing(trial: Trial) -> Result<(), Flaw> {
    let spec = truncating(&trial)?;
    let verdicts = spec.copies.iter().map(|copy| (copy.clone(), bad())).collect();
    truncates_nothing(&trial, &spec, &verdicts, "after a bad verdict").await
}

pub(super) async fn a_copy_without_a_verdict_truncates_nothing(trial: Trial) -> Result<(), Flaw> {
    let spec = truncating(&trial)?;
    truncates_nothing(&trial, &spec, &BTreeMap::new(), "without a verdict").await
}

pub(super) async fn a_copy_only_backup_truncates_nothing(trial: Trial) -> Result<(), Flaw> {
    let mut spec = trial.spec()?;
    spec.kind = BackupKind::Copy;
    let verdicts = all_good(&spec);
    truncates_nothing(&trial, &spec, &verdicts, "after a copy-only backup").await
}

pub(super) async fn what_was_not_completed_is_not_truncated(trial: Trial) -> Result<(), Flaw> {
    let spec = truncating(&trial)?;
    let since = trial.cx().now();
    trial.thawed(&spec).await?;
    trial.end(&spec).await?;
    if trial.can(Can::Virtual) {
        trial.wait(Duration::from_hours(1)).await;
    }
    for copy in &spec.copies {
        let truncation = trial.plugin()?.truncation(trial.cx(), copy, since).await?;
        let none = matches!(truncation, Truncation::NothingEligible { .. } | Truncation::Unknown);
        ensure(none, || format!("nothing was completed, and the truncation is {truncation:?}"))?;
    }
    Ok(())
}

pub(super) async fn what_was_given_up_is_not_completed(trial: Trial) -> Result<(), Flaw> {
    let spec = trial.spec()?;
    trial.thawed(&spec).await?;
    trial.end(&spec).await?;
    let verdicts = all_good(&spec);
    for id in [spec.id, trial.id()] {
        match trial.plugin()?.complete(trial.cx(), id, &verdicts).await {
            Ok(answers) => {
                let lost = answers.values().all(|answer| *answer != Completion::Completed);
                ensure(lost, || format!("what is not open was completed: {answers:?}"))?;
            }
            Err(error) => same("the effect of a refusal", &error.effect(), &Effect::None)?,
        }
    }
    trial.is_over(&spec, "when it was to be completed,").await
}
