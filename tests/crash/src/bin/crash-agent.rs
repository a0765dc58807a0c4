//! The agent: a simulated Exchange server, served to other processes over a Unix socket.
//!
//! It prints one line when it serves, and ends when its standard input does.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use stillpoint_context::{Cx, HostId};
use stillpoint_crash::ledger::Ledger;
use stillpoint_crash::mail::Mail;
use stillpoint_crash::server::{await_end_of_input, serve_here};
use stillpoint_crash::simulated::{Setup, SimulatedExchange};
use stillpoint_workflow::TokioSeams;

/// Serves a simulated Exchange server over real files.
#[derive(Debug, Parser)]
struct Args {
    /// The folder of the databases; they are made if there are none.
    #[arg(long)]
    folder: PathBuf,
    /// The socket to serve on.
    #[arg(long)]
    socket: PathBuf,
    /// The log to append to, outside the folder.
    #[arg(long)]
    log: PathBuf,
    /// What this machine is called.
    #[arg(long, default_value = "ex1")]
    host: HostId,
    /// How many databases are made.
    #[arg(long, default_value_t = 2)]
    databases: u8,
    /// After so many milliseconds a freeze ends by itself.
    #[arg(long, default_value_t = 2000)]
    freeze_limit: u64,
    /// So many milliseconds the writer rests between two rounds.
    #[arg(long, default_value_t = 5)]
    rest: u64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _told = writeln!(std::io::stderr(), "crash-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let is_new = !args.folder.exists();
    std::fs::create_dir_all(&args.folder)?;
    if is_new || std::fs::read_dir(&args.folder)?.next().is_none() {
        Mail::make(&args.folder, args.databases)?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let cx = Cx::detached(&TokioSeams::on(runtime.handle().clone()));
    let setup = Setup {
        host: args.host.clone(),
        freeze_limit: Duration::from_millis(args.freeze_limit),
        rest: Duration::from_millis(args.rest),
    };
    let plugin = SimulatedExchange::open(&args.folder, setup, Ledger::open(&args.log)?)?;
    serve_here(&args.socket, plugin, cx, runtime.handle().clone())?;
    let mut out = std::io::stdout();
    writeln!(out, "{{\"event\":\"ready\"}}")?;
    out.flush()?;
    await_end_of_input();
    Ok(())
}
