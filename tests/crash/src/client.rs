//! The agent as a plug-in of the engine.
//!
//! # Where the calls block
//!
//! `freeze` and `thaw` talk to the agent **on the thread that polls them**, over a connection of their own. Contract X2 says
//! that they must not depend on tasks spawned elsewhere: the threads of a guard are made before it is armed, one for each
//! call, so that blocking one holds nothing up; a pool of blocking threads, or a reactor on the embedder's runtime, may be
//! full or blocked just when the thaw is due. They block in slices, and look between two of them whether the call is
//! cancelled or late, since a future that blocks in its poll cannot be dropped.
//!
//! All other calls block away from the runtime's workers, through [`Cx::blocking`].
//!
//! # What an error says
//!
//! The agent acts on whole lines only. As long as the line has not been handed over whole, surely nothing has happened: the
//! effect is none. From then on until the answer is there, it is unknown.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use stillpoint_context::{Cx, Interrupted};
use stillpoint_exchange::{
    Completion, CopyId, ExchangePlugin, Exposure, Frozen, Inventory, PluginCaps, PluginError,
    PluginErrorKind, PluginResult, Scope, Session, SessionId, SessionSpec, SessionState,
    SetOutcome, Truncation, Verdict, VerifyReport, VerifySpec,
};

use crate::stops::Stops;
use crate::wire::{Answer, Ask, Caller, LONGEST, Reply, Request};

/// How long a call blocks before it looks whether it is still wanted.
const SLICE: Duration = Duration::from_millis(20);

/// How long a call without a deadline waits: an agent that is stopped must not hold it for ever.
const PATIENCE: Duration = Duration::from_mins(2);

/// A plug-in that asks the agent behind a Unix socket.
#[derive(Debug, Clone)]
pub struct AgentPlugin {
    socket: PathBuf,
    caps: PluginCaps,
    stops: Stops,
}

impl AgentPlugin {
    /// The plug-in of the agent that serves this socket, which is asked what it can do. Blocks.
    ///
    /// # Errors
    /// `Unreachable` when nobody serves it.
    pub fn connect(socket: &Path, cx: &Cx) -> PluginResult<Self> {
        match ask(socket, cx, &Ask::Caps)? {
            Reply::Caps(caps) => {
                Ok(Self { socket: socket.to_owned(), caps: *caps, stops: Stops::none() })
            }
            other => Err(confused(&other)),
        }
    }

    /// The same, stopping at these places.
    pub fn with_stops(mut self, stops: Stops) -> Self {
        self.stops = stops;
        self
    }

    /// Asks on this thread.
    fn ask_here(&self, cx: &Cx, question: &Ask) -> PluginResult<Reply> {
        self.stops.reached(question.name(), "before");
        let answer = ask(&self.socket, cx, question);
        self.stops.reached(question.name(), "after");
        answer
    }

    /// Asks away from the runtime's workers.
    async fn ask(&self, cx: &Cx, question: Ask) -> PluginResult<Reply> {
        let (this, inner) = (self.clone(), cx.clone());
        cx.blocking("agent", move || this.ask_here(&inner, &question)).await?
    }
}

/// Asks the agent and waits for its answer, until the deadline, a cancel, or the end of patience.
///
/// # Errors
/// `Unreachable`, `TimedOut`, `Cancelled`, and what the agent answers. The effect is none where the agent surely has not
/// acted.
pub fn ask(socket: &Path, cx: &Cx, question: &Ask) -> PluginResult<Reply> {
    let request = Request { caller: Caller::of(cx), ask: question.clone() };
    let broken = |error: serde_json::Error| {
        PluginError::new(PluginErrorKind::Internal, error.to_string()).with_source(error)
    };
    let mut line = serde_json::to_vec(&request).map_err(|error| broken(error).without_effect())?;
    line.push(b'\n');
    let cx = if cx.deadline().instant().is_none() { cx.with_timeout(PATIENCE) } else { cx.clone() };
    let stream = connect(socket, &cx)?;
    send(&stream, &cx, &line).map_err(PluginError::without_effect)?;
    let line = receive(&stream, &cx)?;
    serde_json::from_slice::<Answer>(&line)
        .map_err(broken)?
        .map_err(crate::wire::Refusal::into_error)
}

fn lost(what: &str, error: io::Error) -> PluginError {
    PluginError::new(PluginErrorKind::Unreachable, format!("the agent {what}: {error}"))
        .with_source(error)
}

fn check(cx: &Cx) -> PluginResult<()> {
    cx.check().map_err(|interrupted: Interrupted| PluginError::from(interrupted))
}

fn connect(socket: &Path, cx: &Cx) -> PluginResult<UnixStream> {
    check(cx).map_err(PluginError::without_effect)?;
    let open = || -> io::Result<UnixStream> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(SLICE))?;
        stream.set_write_timeout(Some(SLICE))?;
        Ok(stream)
    };
    open().map_err(|error| lost("cannot be reached", error).without_effect())
}

/// Whether the slice is over, and nothing else is wrong.
fn is_slice(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// Hands the line over. After an error it has not been handed over whole: its last byte ends it.
fn send(mut stream: &UnixStream, cx: &Cx, mut line: &[u8]) -> PluginResult<()> {
    while !line.is_empty() {
        match stream.write(line) {
            Ok(0) => return Err(lost("hung up", io::ErrorKind::WriteZero.into())),
            Ok(written) => line = &line[written..],
            Err(error) if is_slice(&error) => check(cx)?,
            Err(error) => return Err(lost("hung up", error)),
        }
    }
    Ok(())
}

/// Waits for a line.
fn receive(mut stream: &UnixStream, cx: &Cx) -> PluginResult<Vec<u8>> {
    let (mut line, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(lost("hung up", io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => line.extend_from_slice(&buffer[..read]),
            Err(error) if is_slice(&error) => check(cx)?,
            Err(error) => return Err(lost("hung up", error)),
        }
        if line.last() == Some(&b'\n') {
            return Ok(line);
        }
        if line.len() as u64 > LONGEST {
            let message = "the agent's answer is too long";
            return Err(PluginError::new(PluginErrorKind::Internal, message));
        }
    }
}

/// The agent answered another question than was asked.
fn confused(reply: &Reply) -> PluginError {
    PluginError::new(PluginErrorKind::Internal, format!("the agent answered {reply:?}"))
}

#[async_trait]
impl ExchangePlugin for AgentPlugin {
    fn caps(&self) -> PluginCaps {
        self.caps.clone()
    }

    async fn inventory(&self, cx: &Cx, scope: &Scope) -> PluginResult<Inventory> {
        match self.ask(cx, Ask::Inventory(scope.clone())).await? {
            Reply::Inventory(inventory) => Ok(*inventory),
            other => Err(confused(&other)),
        }
    }

    async fn begin(&self, cx: &Cx, spec: &SessionSpec) -> PluginResult<Session> {
        match self.ask(cx, Ask::Begin(spec.clone())).await? {
            Reply::Session(session) => Ok(*session),
            other => Err(confused(&other)),
        }
    }

    async fn session(&self, cx: &Cx, id: SessionId) -> PluginResult<SessionState> {
        match self.ask(cx, Ask::Session(id)).await? {
            Reply::State(state) => Ok(state),
            other => Err(confused(&other)),
        }
    }

    async fn renew(&self, cx: &Cx, id: SessionId, lease: Duration) -> PluginResult<()> {
        self.ask(cx, Ask::Renew { id, lease }).await.map(drop)
    }

    /// Blocks the thread that polls it: see the module.
    async fn freeze(
        &self,
        cx: &Cx,
        id: SessionId,
        limit: Option<Duration>,
    ) -> PluginResult<Frozen> {
        match self.ask_here(cx, &Ask::Freeze { id, limit })? {
            Reply::Frozen(frozen) => Ok(frozen),
            other => Err(confused(&other)),
        }
    }

    /// Blocks the thread that polls it: see the module.
    async fn thaw(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        self.ask_here(cx, &Ask::Thaw(id)).map(drop)
    }

    async fn evidence(&self, cx: &Cx, id: SessionId) -> PluginResult<SetOutcome> {
        match self.ask(cx, Ask::Evidence(id)).await? {
            Reply::Evidence(outcome) => Ok(*outcome),
            other => Err(confused(&other)),
        }
    }

    async fn verify(
        &self,
        cx: &Cx,
        exposure: &Exposure,
        spec: &VerifySpec,
    ) -> PluginResult<VerifyReport> {
        let (exposure, spec) = (Box::new(exposure.clone()), Box::new(spec.clone()));
        match self.ask(cx, Ask::Verify { exposure, spec }).await? {
            Reply::Verified(report) => Ok(*report),
            other => Err(confused(&other)),
        }
    }

    async fn complete(
        &self,
        cx: &Cx,
        id: SessionId,
        verdicts: &BTreeMap<CopyId, Verdict>,
    ) -> PluginResult<BTreeMap<CopyId, Completion>> {
        match self.ask(cx, Ask::Complete { id, verdicts: verdicts.clone() }).await? {
            Reply::Completed(answers) => Ok(answers),
            other => Err(confused(&other)),
        }
    }

    async fn abort(&self, cx: &Cx, id: SessionId) -> PluginResult<()> {
        self.ask(cx, Ask::Abort(id)).await.map(drop)
    }

    async fn truncation(
        &self,
        cx: &Cx,
        copy: &CopyId,
        since: DateTime<Utc>,
    ) -> PluginResult<Truncation> {
        match self.ask(cx, Ask::Truncation { copy: copy.clone(), since }).await? {
            Reply::Truncation(truncation) => Ok(truncation),
            other => Err(confused(&other)),
        }
    }
}
