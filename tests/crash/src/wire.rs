//! What goes over the agent's socket: one JSON document a line, a question and its answer.
//!
//! ```text
//!   engine process                                agent process
//!   {"caller":{…},"ask":{"freeze":{…}}}\n  ───▶   a line that is whole is acted upon,
//!   {"Ok":{"frozen":{…}}}\n                ◀───   one that is cut short is not
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{Attempt, Cx, Effect, ErrorFacts, FencingToken, RunId, StepName, Subject};
use stillpoint_exchange::{
    Completion, CopyId, Exposure, Frozen, Inventory, PluginCaps, PluginError, PluginErrorKind,
    Scope, Session, SessionId, SessionSpec, SessionState, SetOutcome, Truncation, Verdict,
    VerifyReport, VerifySpec,
};

/// The longest line that either side reads.
pub const LONGEST: u64 = 16 << 20;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The run; nil outside of one.
    pub run: RunId,
    /// Its step.
    pub step: StepName,
    /// Which try of it.
    pub attempt: Attempt,
    /// The token under which the run acts.
    pub fence: FencingToken,
}

impl Caller {
    /// Who calls with this context.
    pub fn of(cx: &Cx) -> Self {
        Self { run: cx.run(), step: cx.step().clone(), attempt: cx.attempt(), fence: cx.fence() }
    }
}

/// A question: a call of [`ExchangePlugin`](stillpoint_exchange::ExchangePlugin), or one of the harness's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// `caps`.
    Caps,
    /// `inventory`.
    Inventory(Scope),
    /// `begin`.
    Begin(SessionSpec),
    /// `session`.
    Session(SessionId),
    /// `renew`.
    Renew {
        /// Which session.
        id: SessionId,
        /// How long it may live from now on.
        lease: Duration,
    },
    /// `freeze`.
    Freeze {
        /// Which session.
        id: SessionId,
        /// After this long it ends by itself.
        limit: Option<Duration>,
    },
    /// `thaw`.
    Thaw(SessionId),
    /// `evidence`.
    Evidence(SessionId),
    /// `verify`.
    Verify {
        /// Where the files can be read.
        exposure: Box<Exposure>,
        /// Which files.
        spec: Box<VerifySpec>,
    },
    /// `complete`.
    Complete {
        /// Which session.
        id: SessionId,
        /// What is thought of each copy.
        verdicts: BTreeMap<CopyId, Verdict>,
    },
    /// `abort`.
    Abort(SessionId),
    /// `truncation`.
    Truncation {
        /// Of which copy.
        copy: CopyId,
        /// Since when.
        since: DateTime<Utc>,
    },
    /// Of the harness: answers as soon as nothing is frozen, so that nobody has to sleep and look again.
    AwaitThaw,
}

impl Ask {
    /// The name of the call.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Caps => "caps",
            Self::Inventory(_) => "inventory",
            Self::Begin(_) => "begin",
            Self::Session(_) => "session",
            Self::Renew { .. } => "renew",
            Self::Freeze { .. } => "freeze",
            Self::Thaw(_) => "thaw",
            Self::Evidence(_) => "evidence",
            Self::Verify { .. } => "verify",
            Self::Complete { .. } => "complete",
            Self::Abort(_) => "abort",
            Self::Truncation { .. } => "truncation",
            Self::AwaitThaw => "await_thaw",
        }
    }

    /// The session that it is about, if it is about one.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Begin(spec) => Some(spec.id),
            Self::Session(id)
            | Self::Renew { id, .. }
            | Self::Freeze { id, .. }
            | Self::Thaw(id)
            | Self::Evidence(id)
            | Self::Complete { id, .. }
            | Self::Abort(id) => Some(*id),
            _ => None,
        }
    }
}

/// A question with who asks it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks.
    pub caller: Caller,
    /// What.
    pub ask: Ask,
}

/// What a question that could be answered is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `caps`.
    Caps(Box<PluginCaps>),
    /// To `inventory`.
    Inventory(Box<Inventory>),
    /// To `begin`.
    Session(Box<Session>),
    /// To `session`.
    State(SessionState),
    /// To `freeze`.
    Frozen(Frozen),
    /// To what gives nothing back.
    Done,
    /// To `evidence`.
    Evidence(Box<SetOutcome>),
    /// To `verify`.
    Verified(Box<VerifyReport>),
    /// To `complete`.
    Completed(BTreeMap<CopyId, Completion>),
    /// To `truncation`.
    Truncation(Truncation),
}

/// An answer.
pub type Answer = Result<Reply, Refusal>;

/// An error as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The stable code.
    pub code: String,
    /// What happened.
    pub message: String,
    /// Whether anything may have been changed.
    pub effect: Effect,
    /// What it is about.
    pub subjects: Vec<Subject>,
    /// The capability that is missing, if it is that.
    pub capability: Option<Cow<'static, str>>,
}

impl Refusal {
    /// A refusal of this kind; nothing was changed.
    pub fn new(kind: PluginErrorKind, message: impl Into<String>) -> Self {
        Self::of(&PluginError::new(kind, message).without_effect())
    }

    /// The error as it travels.
    pub fn of(error: &PluginError) -> Self {
        let capability = match error.kind() {
            PluginErrorKind::Unsupported(name) => Some(Cow::Borrowed(*name)),
            _ => None,
        };
        Self {
            code: error.code().as_str().to_owned(),
            message: error.to_string(),
            effect: error.effect(),
            subjects: error.subjects(),
            capability,
        }
    }

    /// The error as the caller sees it.
    pub fn into_error(self) -> PluginError {
        let kind = self.kind();
        let mut error = PluginError::new(kind, self.message);
        if self.effect == Effect::None {
            error = error.without_effect();
        }
        self.subjects.into_iter().fold(error, PluginError::with_subject)
    }

    /// The kinds that this agent gives; any other is a defect of one of the two sides.
    fn kind(&self) -> PluginErrorKind {
        use PluginErrorKind as Kind;
        match self.code.as_str() {
            "exchange.unsupported" => Kind::Unsupported(match self.capability.as_deref() {
                Some("kind") => "kind",
                Some("verify") => "verify",
                _ => "snap",
            }),
            "exchange.invalid" => Kind::Invalid,
            "exchange.not_found" => Kind::NotFound,
            "resource.not_available" => Kind::NotAvailable,
            "quiesce.freeze_timeout" => Kind::FreezeTimeout,
            "quiesce.busy_other_requester" => Kind::BusyOtherRequester,
            "quiesce.superseded" => Kind::Superseded,
            "session.gone" => Kind::SessionGone,
            "lease.fenced" => Kind::Fenced,
            "exchange.access_denied" => Kind::AccessDenied,
            "exchange.timed_out" => Kind::TimedOut,
            "call.cancelled" => Kind::Cancelled,
            "exchange.io" => Kind::Io,
            _ => Kind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_error_arrives_as_it_was_sent() {
        let sent = PluginError::new(PluginErrorKind::Superseded, "too late")
            .without_effect()
            .with_subject(Subject::new("session", "one"));
        let line = serde_json::to_string(&Refusal::of(&sent)).unwrap();
        let got = serde_json::from_str::<Refusal>(&line).unwrap().into_error();
        assert_eq!(got.kind(), sent.kind());
        assert_eq!((got.code(), got.effect()), (sent.code(), sent.effect()));
        assert_eq!((got.to_string(), got.subjects()), (sent.to_string(), sent.subjects()));

        let unknown = PluginError::new(PluginErrorKind::Io, "the disk is gone");
        assert_eq!(Refusal::of(&unknown).into_error().effect(), Effect::Unknown);
        let missing = PluginError::unsupported("kind");
        assert_eq!(Refusal::of(&missing).into_error().kind(), missing.kind());
    }

    #[test]
    fn a_line_holds_one_document() {
        let ask = Ask::Freeze {
            id: SessionId(uuid::Uuid::from_u128(7)),
            limit: Some(Duration::from_millis(1500)),
        };
        let caller = Caller {
            run: RunId(uuid::Uuid::from_u128(1)),
            step: StepName::new("freeze").unwrap(),
            attempt: Attempt::FIRST,
            fence: FencingToken(3),
        };
        let request = Request { caller, ask };
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        assert_eq!((request.ask.name(), request.ask.session().is_some()), ("freeze", true));
    }
}
