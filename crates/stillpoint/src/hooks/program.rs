//! Hooks as programs below a folder, without a shell.
//!
//! ```text
//!   root/program ─ links followed ─ still below root? ─▶ process group of its own ─┬─ ends
//!                                                                                 └─ too long, cancelled: TERM ─ KILL, all of it
//! ```

use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use stillpoint_context::{Cx, Effect, ErrorClass, Failure, Interrupted, Subject};
use stillpoint_model::hook::{Hook, HookEnd, HookError, HookStatus};

use super::{HookCall, HookRunner};

/// What a hook gets of the environment of the process, beside what is [its own](HookCall::environment). What its policy says goes
/// before it.
pub const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// The most bytes of output that are kept: the last ones.
const KEPT: usize = 16 * 1024;

/// Bytes that are read at once.
const READ: usize = 4096;

/// The most bytes that a pipe holds, unless root makes it larger.
const PIPE: usize = 1 << 20;

/// How long a program may take to end when it is asked to, before it is made to.
const ASKED: Duration = Duration::from_secs(2);

/// How long it is waited for news before its deadline is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Runs programs that lie below a folder, each in a process group of its own. Unix only: what ends a hook with everything that it
/// has started is not there on Windows, where an embedder brings a runner of its own.
///
/// The folder is the working directory. Standard output and standard error are one stream, of which the last 16 KiB are kept. A
/// program that takes too long is asked to end (SIGTERM to its group) and made to after 2 s (SIGKILL); a process that has left the
/// group by itself, as daemons do, is not. What a program leaves running in its group when it ends in time stays.
///
/// The folder confines which programs are run, not what they do: whoever may write into it, or into what is in it, may run anything
/// as the user of this process, and a program there that runs what its arguments say runs what a policy says.
#[derive(Debug, Clone)]
pub struct ProgramRunner {
    root: PathBuf,
    inherited: Vec<(OsString, OsString)>,
}

impl ProgramRunner {
    /// A runner of the programs below this folder.
    ///
    /// # Errors
    /// `hook.no_root` when it is no folder that can be looked into.
    pub fn new(root: impl AsRef<Path>) -> Result<Self, Failure> {
        let root = root.as_ref();
        let found = fs::canonicalize(root).and_then(|root| fs::read_dir(&root).map(|_| root));
        let root = found.map_err(|error| {
            Failure::new(
                "hook.no_root",
                ErrorClass::Invalid,
                format!("the folder of hooks {} cannot be used", root.display()),
            )
            .with_effect(Effect::None)
            .with_cause(error)
            .with_remedy("Name a folder that holds the programs.")
        })?;
        let inherited = INHERITED
            .into_iter()
            .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
        Ok(Self { root, inherited: inherited.collect() })
    }

    /// The folder, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a program is, with all links followed.
    fn resolve(&self, hook: &Hook) -> Result<PathBuf, Failure> {
        let program = &hook.program;
        stillpoint_model::hook::check_program(program).map_err(|error| Failure::of(&error))?;
        let missing = |why: &dyn std::fmt::Display| {
            Failure::new(
                "hook.program_missing",
                ErrorClass::Invalid,
                format!("the program {program:?} is not in the folder of hooks"),
            )
            .with_effect(Effect::None)
            .with_subject(Subject::new("hook", program))
            .with_cause(why)
            .with_remedy("Put the program there, and let it be executed.")
        };
        // A policy may name it with the separators of another system.
        let path = self.root.join(program.replace('\\', "/"));
        let found = fs::canonicalize(&path).map_err(|error| missing(&error))?;
        if !found.starts_with(&self.root) {
            let why = "a link on its way leads out of it".to_owned();
            return Err(Failure::of(&HookError::PathEscape { program: program.clone(), why }));
        }
        let facts = fs::metadata(&found).map_err(|error| missing(&error))?;
        if !facts.is_file() {
            return Err(missing(&"it is no file"));
        }
        if facts.permissions().mode() & 0o111 == 0 {
            return Err(missing(&"it is not executable"));
        }
        Ok(found)
    }

    /// Runs it to its end, on this thread.
    fn run_here(&self, cx: &Cx, call: &HookCall) -> Result<HookEnd, Failure> {
        let program = self.resolve(&call.hook)?;
        let not_started = |error: &io::Error| {
            Failure::new(
                "hook.not_started",
                ErrorClass::Unavailable,
                format!("the program {:?} cannot be started", call.hook.program),
            )
            .with_effect(Effect::None)
            .with_retryable(false)
            .with_subject(Subject::new("hook", &call.hook.program))
            .with_cause(error)
            .with_remedy(
                "See whether it is a program of this system, and its interpreter is there.",
            )
        };
        let started = io::pipe().and_then(|(reader, writer)| {
            let mut command = Command::new(program);
            command
                .args(&call.hook.args)
                .env_clear()
                .envs(self.inherited.iter().map(|(name, value)| (name, value)))
                .envs(call.environment(cx))
                .current_dir(&self.root)
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(writer.try_clone()?)
                .stderr(writer);
            // The command keeps the writing ends until it goes.
            Ok((command.spawn()?, reader))
        });
        let (child, reader) = started.map_err(|error| not_started(&error))?;
        Running { child, output: Output::of(reader) }.watched(cx)
    }
}

#[async_trait]
impl HookRunner for ProgramRunner {
    async fn check(&self, cx: &Cx, hook: &Hook) -> Result<(), Failure> {
        let (this, hook) = (self.clone(), hook.clone());
        let looked = cx.blocking("hook program", move || this.resolve(&hook).map(|_| ())).await;
        looked.unwrap_or_else(|panicked| Err(internal(&panicked)))
    }

    async fn run(&self, cx: &Cx, call: &HookCall) -> Result<HookEnd, Failure> {
        let (this, theirs, call) = (self.clone(), cx.clone(), call.clone());
        let ran = cx.blocking("hook", move || this.run_here(&theirs, &call)).await;
        ran.unwrap_or_else(|panicked| Err(internal(&panicked)))
    }
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure::new("hook.internal", ErrorClass::Internal, error.to_string())
        .with_remedy("Report it to the makers of Stillpoint.")
}

/// A program that has been started.
struct Running {
    child: Child,
    output: Output,
}

impl Running {
    fn watched(mut self, cx: &Cx) -> Result<HookEnd, Failure> {
        let lost = |error: io::Error| {
            Failure::new("hook.lost", ErrorClass::Internal, "the program was lost sight of")
                .with_cause(error)
                .with_remedy("Look whether it is still running.")
        };
        let status = loop {
            self.output.listen(LOOK).map_err(lost)?;
            if let Some(status) = self.child.try_wait().map_err(lost)? {
                break how(status);
            }
            match cx.check() {
                Ok(()) => {}
                Err(why) => {
                    self.end(cx).map_err(lost)?;
                    let is_late = why == Interrupted::DeadlinePassed;
                    break if is_late { HookStatus::TimedOut } else { HookStatus::Cancelled };
                }
            }
        };
        self.output.drain().map_err(lost)?;
        let (output, cut) = self.output.tail.into_text();
        Ok(HookEnd::new(status).with_output(output, cut))
    }

    /// Ends the process group: asks, then does not ask.
    ///
    /// The first process is not waited for before the group is dead: as long as it is there, if only as a zombie, nobody else's
    /// group has its number.
    fn end(&mut self, cx: &Cx) -> io::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = id {
            // A group of which nothing is left is fine.
            let _asked = kill_process_group(group, Signal::TERM);
            let until = cx.mono() + ASKED;
            while !has_ended(group)? && cx.mono() < until {
                self.output.listen(LOOK)?;
            }
            let _made = kill_process_group(group, Signal::KILL);
        }
        self.child.wait().map(|_| ())
    }
}

/// What a program writes.
struct Output {
    /// Where it comes from, until nobody can write to it any more.
    reader: Option<PipeReader>,
    tail: Tail,
}

impl Output {
    fn of(reader: PipeReader) -> Self {
        Self { reader: Some(reader), tail: Tail::default() }
    }

    /// Takes in what is written within this time; whether anything was.
    fn listen(&mut self, time: Duration) -> io::Result<bool> {
        let Some(reader) = &mut self.reader else {
            // Nothing more comes: the end is all there is to wait for.
            wait_for(&mut [], time)?;
            return Ok(false);
        };
        if !wait_for(&mut [PollFd::new(&*reader, PollFlags::IN)], time)? {
            return Ok(false);
        }
        let mut bytes = [0; READ];
        match reader.read(&mut bytes) {
            Ok(0) => self.reader = None,
            Ok(count) => {
                self.tail.take(&bytes[..count]);
                return Ok(true);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// Takes in what was written before the end: no more than a pipe holds, as somebody who was left behind may go on writing.
    fn drain(&mut self) -> io::Result<()> {
        for _ in 0..PIPE / READ {
            if !self.listen(Duration::ZERO)? {
                break;
            }
        }
        Ok(())
    }
}

/// Whether a child has ended; it may still be waited for.
fn has_ended(child: Pid) -> io::Result<bool> {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    Ok(waitid(WaitId::Pid(child), look)?.is_some())
}

/// Waits for news of these, at most this long; whether there are any.
fn wait_for(what: &mut [PollFd<'_>], time: Duration) -> io::Result<bool> {
    let time = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    match poll(what, Some(&time)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn how(status: ExitStatus) -> HookStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => HookStatus::Exited(code),
        (None, signal) => HookStatus::Signalled(signal.unwrap_or_default()),
    }
}

/// The end of a stream of bytes.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    cut: u64,
}

impl Tail {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Not at every byte, so that each is moved once at most on average.
        if self.bytes.len() > 2 * KEPT {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        let over = self.bytes.len().saturating_sub(KEPT);
        drop(self.bytes.drain(..over));
        self.cut += u64::try_from(over).unwrap_or(u64::MAX);
    }

    /// As text, with what is none replaced.
    fn into_text(mut self) -> (String, u64) {
        self.shorten();
        (String::from_utf8_lossy(&self.bytes).into_owned(), self.cut)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn whoever_goes_on_writing_is_not_waited_for() {
        let endless = OwnedFd::from(fs::File::open("/dev/zero").unwrap());
        let mut output = Output::of(PipeReader::from(endless));
        output.drain().unwrap();
        let (text, cut) = output.tail.into_text();
        assert_eq!((text.len(), cut), (KEPT, (PIPE - KEPT) as u64));
    }
}
