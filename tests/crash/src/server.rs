//! The agent's door: a Unix socket, a thread for each connection.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::Builder;

use stillpoint_context::Cx;
use stillpoint_exchange::PluginErrorKind;
use tokio::runtime::Handle;

use crate::ledger::What;
use crate::simulated::SimulatedExchange;
use crate::wire::{LONGEST, Refusal, Request};

/// Serves a plug-in until the process ends.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    plugin: SimulatedExchange,
    cx: Cx,
    runtime: Handle,
}

impl Server {
    /// Takes the socket; one that an agent before has left there is taken over.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(
        socket: &Path,
        plugin: SimulatedExchange,
        cx: Cx,
        runtime: Handle,
    ) -> io::Result<Self> {
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        Ok(Self { listener, plugin, cx, runtime })
    }

    /// Serves, with threads of its own for time and for writing. Returns when the socket fails.
    ///
    /// # Errors
    /// What the system says.
    pub fn serve(self) -> io::Result<()> {
        let (plugin, cx) = (self.plugin.clone(), self.cx.clone());
        thread("time", move || plugin.keep_time(&cx))?;
        let (plugin, cx) = (self.plugin.clone(), self.cx.clone());
        thread("writer", move || plugin.write(&cx))?;
        self.plugin.ledger().note(What::Started { pid: std::process::id() });
        let this = Arc::new(self);
        loop {
            let (stream, _) = this.listener.accept()?;
            let server = Arc::clone(&this);
            thread("call", move || {
                // A caller that is gone is no trouble of the agent's.
                let _gone = server.converse(&stream);
            })?;
        }
    }

    /// Answers line after line, until the caller ends the connection.
    fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        let mut lines = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
            // A line that was cut short is not acted upon: its caller knows that it has not asked.
            if line.pop() != Some(b'\n') {
                return Ok(());
            }
            let answer = match serde_json::from_slice::<Request>(&line) {
                Ok(request) => self.plugin.answer(&self.cx, &self.runtime, &request),
                Err(error) => Err(Refusal::new(PluginErrorKind::Invalid, error.to_string())),
            };
            let mut bytes = serde_json::to_vec(&answer)?;
            bytes.push(b'\n');
            (&mut &*stream).write_all(&bytes)?;
        }
    }
}

/// A thread of the agent. It has no engine and no virtual time, so the seams are not for it.
#[allow(
    clippy::disallowed_methods,
    reason = "the agent is a process of its own, outside the engine"
)]
fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// Serves an agent in this process, on threads, for tests of what is served.
///
/// # Errors
/// What the system says.
pub fn serve_here(
    socket: &Path,
    plugin: SimulatedExchange,
    cx: Cx,
    runtime: Handle,
) -> io::Result<()> {
    let server = Server::bind(socket, plugin, cx, runtime)?;
    thread("agent", move || {
        let _failed = server.serve();
    })
}

/// Waits until standard input ends: whoever started this process is gone, or wants it to go.
pub fn await_end_of_input() {
    let mut input = io::stdin().lock();
    let mut buffer = [0; 256];
    while matches!(input.read(&mut buffer), Ok(read) if read > 0) {}
}
