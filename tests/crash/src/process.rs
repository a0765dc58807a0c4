//! Both processes as the harness starts, follows and kills them. Whoever drops one of these ends the process.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use stillpoint_context::Cx;
use stillpoint_exchange::{PluginResult, SessionId, SessionState};

use crate::client::ask;
use crate::engine::Event;
use crate::ledger::{self, Line};
use crate::stops::VARIABLE;
use crate::wire::{Ask, Reply};

/// Where everything of one lab lies.
#[derive(Debug, Clone)]
pub struct Lab {
    root: PathBuf,
}

impl Lab {
    /// A lab below this folder, which is there. Its path must be short: a socket's may have 107 bytes.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The databases.
    pub fn mail(&self) -> PathBuf {
        self.root.join("mail")
    }

    /// Makes the folder of the databases a subvolume of the btrfs on which the lab lies.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn make_subvolume(&self) -> io::Result<()> {
        let made = Command::new("btrfs")
            .args([OsStr::new("subvolume"), OsStr::new("create"), self.mail().as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if made.success() { Ok(()) } else { Err(io::Error::other("no subvolume was made")) }
    }

    /// The snapshots.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The state file.
    pub fn state(&self) -> PathBuf {
        self.root.join("state.db")
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("agent.sock")
    }

    /// The agent's log.
    pub fn log(&self) -> PathBuf {
        self.root.join("agent.log")
    }

    /// What the agent has logged so far.
    ///
    /// # Errors
    /// What the file system says.
    pub fn lines(&self) -> io::Result<Vec<Line>> {
        ledger::read(&self.log())
    }

    /// Asks the agent something of the harness's own.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn ask(&self, cx: &Cx, question: &Ask) -> PluginResult<Reply> {
        ask(&self.socket(), cx, question)
    }

    /// Where a session stands.
    ///
    /// # Errors
    /// When the agent cannot be asked.
    pub fn session(&self, cx: &Cx, id: SessionId) -> PluginResult<Option<SessionState>> {
        Ok(match self.ask(cx, &Ask::Session(id))? {
            Reply::State(state) => Some(state),
            _ => None,
        })
    }
}

/// The agent's process.
#[derive(Debug)]
pub struct AgentProcess {
    child: Child,
    // Its end is the agent's end.
    input: Option<ChildStdin>,
}

impl AgentProcess {
    /// Starts `program` in a lab and returns once it serves.
    ///
    /// # Errors
    /// When it cannot be started, or ends at once.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        lab: &Lab,
        more: impl IntoIterator<Item = A>,
    ) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args([OsStr::new("--folder"), lab.mail().as_os_str()])
            .args([OsStr::new("--socket"), lab.socket().as_os_str()])
            .args([OsStr::new("--log"), lab.log().as_os_str()])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, out) = (child.stdin.take(), child.stdout.take());
        let agent = Self { child, input };
        let mut line = String::new();
        if let Some(out) = out {
            BufReader::new(out).read_line(&mut line)?;
        }
        if line.contains("ready") { Ok(agent) } else { Err(io::Error::other("it does not serve")) }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it end by itself, as its input does.
    ///
    /// # Errors
    /// What the system says.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        drop(self.input.take());
        self.child.wait()
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// An engine's process.
#[derive(Debug)]
pub struct EngineProcess {
    child: Child,
    input: Option<ChildStdin>,
    events: Option<Lines<BufReader<ChildStdout>>>,
}

impl EngineProcess {
    /// Starts `program` in a lab: so many backups under keys that begin with `name`, stopping at these places.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        program: &Path,
        lab: &Lab,
        name: &str,
        backups: u32,
        stop_at: &str,
    ) -> io::Result<Self> {
        Self::start_with(program, lab, name, backups, stop_at, &[])
    }

    /// The same, with more arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(
        program: &Path,
        lab: &Lab,
        name: &str,
        backups: u32,
        stop_at: &str,
        more: &[&str],
    ) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args([OsStr::new("--folder"), lab.mail().as_os_str()])
            .args([OsStr::new("--store"), lab.store().as_os_str()])
            .args([OsStr::new("--state"), lab.state().as_os_str()])
            .args([OsStr::new("--agent"), lab.socket().as_os_str()])
            .args(["--name", name, "--backups", &backups.to_string()])
            .args(more)
            .env(VARIABLE, stop_at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let events = child.stdout.take().map(|out| BufReader::new(out).lines());
        Ok(Self { input: child.stdin.take(), child, events })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next event; `None` once it has ended. Blocks.
    ///
    /// # Errors
    /// What the system says, and for a line that is no event.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        let line = self.events.as_mut().and_then(Iterator::next).transpose()?;
        line.map(|line| serde_json::from_str(&line).map_err(io::Error::other)).transpose()
    }

    /// Follows it until it has stopped at one of its places, all its threads; `None` if it ends without that.
    ///
    /// # Errors
    /// As [`next_event`](Self::next_event).
    pub fn until_stopped(&mut self) -> io::Result<Option<String>> {
        while let Some(event) = self.next_event()? {
            if let Event::Stopped { place } = event {
                // It tells first and stops then; a signal to continue that came in between would be lost.
                let pid = Pid::from_child(&self.child);
                let seen = retry_on_intr(|| waitpid(Some(pid), WaitOptions::UNTRACED))?;
                if !seen.is_some_and(|(_, status)| status.stopped()) {
                    return Err(io::Error::other("it ended where it was to stop"));
                }
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Lets it go on from where it has stopped.
    ///
    /// # Errors
    /// What the system says.
    pub fn go_on(&mut self) -> io::Result<()> {
        if let Some(input) = &mut self.input {
            input.write_all(b"\n")?;
        }
        kill_process(Pid::from_child(&self.child), Signal::CONT)?;
        Ok(())
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_over(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// What the system says.
    pub fn kill(mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Follows it to its end.
    ///
    /// # Errors
    /// As [`next_event`](Self::next_event).
    pub fn finish(mut self) -> io::Result<(ExitStatus, Vec<Event>)> {
        let mut events = Vec::new();
        while let Some(event) = self.next_event()? {
            events.push(event);
        }
        Ok((self.child.wait()?, events))
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills a process of ours that has not been waited for.
fn end(child: &mut Child) {
    // Both fail if it is gone, which is what is wanted.
    let _killed = child.kill();
    let _waited = child.wait();
}
