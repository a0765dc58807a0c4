//! What a set of snapshots is worth, copy by copy: evidence and verification become verdicts.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, Subject};
use stillpoint_exchange::Session;
use stillpoint_model::evidence::SetOutcome;
use stillpoint_model::id::CopyId;
use stillpoint_model::quiesce::{Cause, Consistency, Held};
use stillpoint_model::verdict::{Verdict, VerifyReport};
use stillpoint_workflow::{Action, Done, EffectKind, GuardVerdict, Hold};

use super::snapshots::Settled;

/// How strict the judgement is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JudgeParams {
    /// The least that a restore point may be.
    pub(crate) floor: Consistency,
    /// Whether only what was verified as good may be completed as good.
    pub(crate) verification_required: bool,
}

/// What was found out about a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopyJudgement {
    /// Whether its freeze held while every member was taken.
    pub(crate) held: Held,
    /// What a restore point of it may be called.
    pub(crate) consistency: Consistency,
    /// What verification said of it.
    pub(crate) verified: Verdict,
    /// What the session is completed with.
    pub(crate) completion: Verdict,
    /// Whether a restore point of it is published; if not, why.
    pub(crate) refused: Option<Failure>,
}

/// The judgement over a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Judgement {
    pub(crate) copies: BTreeMap<CopyId, CopyJudgement>,
}

impl Judgement {
    /// A verdict for each copy of the session.
    pub(crate) fn for_completion(&self) -> BTreeMap<CopyId, Verdict> {
        self.copies.iter().map(|(copy, judged)| (copy.clone(), judged.completion.clone())).collect()
    }

    /// The copies of which a restore point is published.
    pub(crate) fn published(&self) -> impl Iterator<Item = (&CopyId, &CopyJudgement)> {
        self.copies.iter().filter(|(_, judged)| judged.refused.is_none())
    }
}

/// Judges a set.
#[derive(Debug)]
pub(crate) struct Judge;

#[async_trait]
impl Action for Judge {
    const NAME: &'static str = "backup.judge";
    const EFFECT: EffectKind = EffectKind::ReadOnly;
    type Params = JudgeParams;
    type Input = JudgeInput;
    type Output = Judgement;

    async fn run(
        &self,
        cx: &Cx,
        params: &JudgeParams,
        input: JudgeInput,
    ) -> Result<Done<Judgement>, Failure> {
        let _ = cx;
        let judgement = judge(params, &input)?;
        let mut done = Done::new(judgement);
        for (copy, judged) in &done.output.copies {
            let warning = if let Some(refused) = &judged.refused {
                Some(refused.clone())
            } else if let Verdict::Bad { reason, .. } = &judged.verified {
                Some(bad(
                    "verify.suspect",
                    copy,
                    format!("the copy of {copy} is suspect: {reason}"),
                ))
            } else if let (Verdict::Unverified { reason }, true) =
                (&judged.verified, params.verification_required)
            {
                let message = format!("{copy} was not verified: {reason}");
                Some(bad("verify.not_done", copy, message))
            } else {
                None
            };
            done.warnings.extend(warning);
        }
        Ok(done)
    }
}

/// Session, guard verdict (none where the plug-in coordinates), evidence, what each provider took, verification (none where
/// the policy does not ask for it).
pub(crate) type JudgeInput =
    (Session, Vec<GuardVerdict>, SetOutcome, Vec<Settled>, Vec<Result<VerifyReport, Failure>>);

/// Judges every copy of a session.
///
/// # Errors
/// `quiesce.broken` when no copy of the set reaches the floor: that concerns the whole set.
fn judge(params: &JudgeParams, input: &JudgeInput) -> Result<Judgement, Failure> {
    let (session, guard, evidence, settled, report) = input;
    let taken: Vec<DateTime<Utc>> =
        settled.iter().flat_map(|part| part.members.iter().map(|member| member.taken_at)).collect();
    let inside = whole(guard).and(frozen_throughout(evidence, &taken));
    let mut copies = BTreeMap::new();
    for copy in &session.copies {
        let held = evidence.held(copy).and(inside.clone());
        let consistency = Consistency::of(evidence.level, &held);
        let verified = match report.first() {
            Some(Ok(report)) => report.verdict(copy),
            Some(Err(failure)) => Verdict::Unverified { reason: failure.message.clone() },
            None => Verdict::Unverified {
                reason: "the policy does not ask for verification".to_owned(),
            },
        };
        let refused = (consistency < params.floor).then(|| refusal(copy, &held));
        let completion = completion(params, &held, &verified);
        let judged = CopyJudgement { held, consistency, verified, completion, refused };
        let _none = copies.insert(copy.clone(), judged);
    }
    if copies.values().all(|judged| judged.refused.is_some()) {
        let held = copies.values().next().map_or(Held::Unknown, |judged| judged.held.clone());
        return Err(broken(&session.copies, &held));
    }
    Ok(Judgement { copies })
}

/// The verdict with which a copy is completed. Only a good one may lead to truncation, so everything that is not surely good
/// is told as bad.
fn completion(params: &JudgeParams, held: &Held, verified: &Verdict) -> Verdict {
    match (held, verified) {
        (Held::Yes, Verdict::Unverified { reason }) if params.verification_required => {
            Verdict::Bad { reason: format!("not verified: {reason}"), findings: Vec::new() }
        }
        (Held::Yes, verdict) => verdict.clone(),
        (held, _) => Verdict::Bad { reason: format!("the freeze: {held}"), findings: Vec::new() },
    }
}

/// Whether the engine's own guard was held to its end. Without a guard that is the plug-in's to say.
fn whole(guard: &[GuardVerdict]) -> Held {
    let broken = guard.iter().find_map(|verdict| match &verdict.hold {
        Hold::Held => None,
        Hold::Broken(failure) | Hold::NeverEntered(failure) => Some(failure.message.clone()),
    });
    broken.map_or(Held::Yes, |message| Held::Broken(Cause::Other { message }))
}

/// How far the clocks of two sides may be apart before one of them contradicts the other.
const SKEW: TimeDelta = TimeDelta::seconds(5);

/// Whether every member was taken between freeze and thaw, as far as the clocks of those who did both can tell. The engine
/// has kept the order of the calls, and the plug-in says whether it held; this catches a side whose calls lie.
fn frozen_throughout(evidence: &SetOutcome, taken: &[DateTime<Utc>]) -> Held {
    let late = evidence.thawed_at.and_then(|thawed| taken.iter().find(|at| **at > thawed + SKEW));
    let early = evidence.frozen_at.and_then(|frozen| taken.iter().find(|at| **at < frozen - SKEW));
    match (late, early) {
        (None, None) => Held::Yes,
        (Some(at), _) => Held::Broken(Cause::Other {
            message: format!("a snapshot was taken at {at}, after the thaw"),
        }),
        (None, Some(at)) => Held::Broken(Cause::Other {
            message: format!("a snapshot was taken at {at}, before the freeze"),
        }),
    }
}

fn refusal(copy: &CopyId, held: &Held) -> Failure {
    bad("quiesce.not_held", copy, format!("the freeze of {copy} did not hold: {held}"))
        .with_remedy("Find out what wrote to the database, then back up again.")
}

fn broken(copies: &[CopyId], held: &Held) -> Failure {
    let failure = Failure::new(
        "quiesce.broken",
        ErrorClass::Unavailable,
        format!("the freeze did not hold for any database of the set: {held}"),
    )
    .with_effect(Effect::None)
    .with_remedy("Find out what ended the freeze, then back up again.");
    copies.iter().fold(failure, |failure, copy| failure.with_subject(Subject::new("copy", copy)))
}

fn bad(code: &'static str, copy: &CopyId, message: impl fmt::Display) -> Failure {
    Failure::new(code, ErrorClass::Integrity, message.to_string())
        .with_effect(Effect::None)
        .with_subject(Subject::new("copy", copy))
        .with_remedy("Look at the findings of its restore point; earlier points are not concerned.")
}
