//! The command line.

pub(crate) mod keeping;
pub(crate) mod policy;
pub(crate) mod rules;
pub(crate) mod schedule;
mod value;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use keeping::{CatalogueCommand, HoldCommand, PruneArgs, ReconcileArgs};
use policy::PolicyCommand;
use rules::{ExportArgs, ImportArgs};
use schedule::{RunArgs, ScheduleCommand};
use value::{bytes, duration};

/// Application-consistent snapshot backup of Exchange databases.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 done with warnings, 4 needs attention or parked.
///
/// An interrupt cancels the job that is under way, which undoes what it did; a second one leaves it at once. While no job is
/// under way it ends the command, with exit code 1.
#[derive(Debug, Parser)]
#[command(name = "stillpoint", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The state file: jobs, policies, groups and restore points. [default: ./stillpoint.db]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// The folder that copies are kept in, never inside what is protected. [default: <state file's stem>.store beside
    /// the state file]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// How copies are made: of each file, or as snapshots of the btrfs subvolume that is protected. Remembered in the state
    /// file. [default: files]
    #[arg(long, global = true, value_enum, value_name = "KIND")]
    pub(crate) storage: Option<Storage>,
    /// The folder that is protected; remembered in the state file.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) source: Option<PathBuf>,
    /// The folder that the programs of hooks are in; remembered in the state file. [default: <state file's stem>.hooks beside
    /// the state file, if that is there]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) hooks: Option<PathBuf>,
    /// The file that says who is told what became of jobs; remembered in the state file. [default: <state file's
    /// stem>.notify.toml beside the state file, if that is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) notify: Option<PathBuf>,
    /// Print one JSON document on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no notes.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Log to standard error; twice for more. STILLPOINT_LOG takes filters such as `stillpoint=debug`.
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How copies are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Storage {
    /// Of each file: by reflink where the file system can, else in full.
    #[default]
    Files,
    /// As snapshots of a subvolume of btrfs, with the store on the same file system.
    Btrfs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole workflow in one go, with a default policy and group.
    ///
    /// Without DIR it makes a small Exchange-shaped folder of its own, protects it, verifies the restore points, restores
    /// them beside the original and compares.
    Protect(ProtectArgs),
    /// Show the databases that are there, and whether each can be backed up.
    Discover(FolderArgs),
    /// How things are protected. Hooks of a policy, the least consistency that it takes, and what is rarer still are set with `import`.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// What is protected together.
    #[command(subcommand)]
    Group(GroupCommand),
    /// When what is protected is backed up by itself.
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Show policies, groups and schedules as one TOML document.
    Export(ExportArgs),
    /// Make and change policies, groups and schedules as a document says. What it does not name stays as it is.
    Import(ImportArgs),
    /// Be the daemon: carry on with what was left open, then make a job of each time at which a schedule is due.
    ///
    /// After each backup that came out well, what its policy lets go is deleted: see `stillpoint prune --dry-run`.
    ///
    /// Ends on an interrupt or SIGTERM: no new job is begun, and those under way are waited for; a second one leaves at once.
    /// Other commands may be used meanwhile. Exit codes: 0 ended, 4 a job was left that needs somebody.
    Run(RunArgs),
    /// Back up a group, or some databases.
    Backup(BackupArgs),
    /// Bring a restore point back. Every byte is checked before anything appears at the target.
    Restore(RestoreArgs),
    /// Show the jobs, or one of them with its steps, what it holds and what it left behind.
    Jobs(JobsArgs),
    /// Show the runs that wait for a person, or deal with one of them.
    ///
    /// Exit code 4 while there is one.
    #[command(args_conflicts_with_subcommands = true)]
    Parked(ParkedArgs),
    /// Show what runs left behind.
    ///
    /// Exit code 4 while there is something.
    Debris(DebrisArgs),
    /// Show what is locked: by which run, since when, why, and who waits for it.
    Locks,
    /// Show every database with its copies and restore points.
    Topology,
    /// Show what databases can be brought back to: the times, the gaps between them, and why there are gaps.
    Windows(WindowsArgs),
    /// Look at what policies, groups and schedules amount to. Changes nothing.
    ///
    /// Logs that nothing truncates, volumes that cannot hold what is kept, databases in no group, policies on no schedule, and
    /// more. Exit codes: 0 nothing, or only what is worth knowing; 3 something is worth a look; 1 something cannot work.
    Lint(LintArgs),
    /// Check the bytes of restore points.
    Verify(VerifyArgs),
    /// Delete the restore points and logs that the policies let go.
    ///
    /// Shows every restore point and log segment with its verdict, and the rule and the point or policy that it comes from.
    Prune(PruneArgs),
    /// Keep restore points whatever their policies say.
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Compare the catalogue with what the storage shows: what is missing, what is nobody's, what cannot be said.
    ///
    /// Without --apply it changes nothing. Exit code 4 while there is something to look at.
    Reconcile(ReconcileArgs),
    /// Make the catalogue anew from the manifests that lie beside the data.
    ///
    /// Adds what a state file does not have, or makes a new one: then --source and --store say where things are. Policies, groups
    /// and schedules come back by `import`. Exit code 3 if something could not be read.
    Rebuild,
    /// What is done with the state file as a whole.
    #[command(subcommand)]
    Catalogue(CatalogueCommand),
    /// Who is told what became of jobs.
    #[command(subcommand)]
    Notify(NotifyCommand),
    /// Look for what is missing before it is missed. Changes nothing.
    Doctor(FolderArgs),
    /// Try the side that takes snapshots, before the first backup.
    #[command(subcommand)]
    Provider(ProviderCommand),
    /// Try the side that speaks for Exchange, before the first backup.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Check files of the Extensible Storage Engine by themselves: databases, logs, checkpoints, flush maps.
    ///
    /// Needs no state file and changes nothing. Exit codes of `check` and `logs`: 0 good, 3 usable and something is worth a
    /// look, 4 damaged or not recoverable, 1 nothing could be said of it.
    #[command(subcommand)]
    Ese(EseCommand),
}

/// What to do with notifications.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum NotifyCommand {
    /// Send a test to everybody, whatever they want to be told, and say what became of it.
    ///
    /// Exit codes: 0 all were sent, 3 some were not, 1 none was.
    Test,
}

/// What to do with the side that takes snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum ProviderCommand {
    /// Say what it can and cannot do with a folder, how long a snapshot takes, what is missing, and whether it keeps its contract.
    ///
    /// Takes snapshots of the files there, under names of its own in a temporary store beside the real one, looks at them and
    /// takes them away again. Changes no file of the folder, and needs no state file. Exit codes: 0 good, 3 usable and something is
    /// worth a look, 1 not usable or interrupted, 2 usage, 4 something was left behind.
    Check(ProviderCheckArgs),
}

/// What to do with the side that speaks for Exchange.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Say what it can and cannot do with the databases in a folder, how long a freeze takes to come and go, what is missing, and
    /// whether it keeps its contract.
    ///
    /// Begins sessions, freezes for a moment, thaws and gives them up; completes none. Changes nothing, and needs no state file.
    /// Exit codes: 0 good, 3 usable and something is worth a look, 1 not usable or interrupted, 2 usage.
    Check(PluginCheckArgs),
}

/// Arguments of `provider check`.
#[derive(Debug, Args)]
pub(crate) struct ProviderCheckArgs {
    /// The folder to take snapshots of. [default: the one that the state file knows]
    pub(crate) dir: Option<PathBuf>,
    /// How often each call is timed.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// The longest freeze that a snapshot has to fit into; without it that is told for 8s, which VSS leaves of its 10 s, and
    /// data at rest needs none.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) freeze_limit: Option<Duration>,
}

/// Arguments of `plugin check`.
#[derive(Debug, Args)]
pub(crate) struct PluginCheckArgs {
    /// The folder with the databases. [default: the one that the state file knows]
    pub(crate) dir: Option<PathBuf>,
    /// How often each call is timed.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
}

/// What to do with files of the Extensible Storage Engine.
#[derive(Debug, Subcommand)]
pub(crate) enum EseCommand {
    /// Read every byte of files, and of everything below folders, as one set: what is damaged, and whether each database can
    /// be recovered with the logs that are there.
    Check {
        /// Files and folders.
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
    },
    /// Show the header of a file.
    Header {
        /// The file.
        file: PathBuf,
    },
    /// Read the log stream of a base name in a folder: every log, and the rules between them.
    Logs {
        /// The folder.
        dir: PathBuf,
        /// The base name, such as E00.
        base: String,
    },
}

/// Arguments of `protect`.
#[derive(Debug, Args)]
pub(crate) struct ProtectArgs {
    /// The folder to protect.
    pub(crate) dir: Option<PathBuf>,
    /// Keep the folder that a run without DIR makes.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Arguments of commands that look at a folder.
#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// The folder to look at. [default: the one that the state file knows]
    pub(crate) dir: Option<PathBuf>,
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The group, by name or id. [default: the one that came with the state file]
    #[arg(long, short, value_name = "NAME", conflicts_with = "database")]
    pub(crate) group: Option<String>,
    /// Databases, by name or id, instead of a group.
    #[arg(long, short, value_name = "NAME", num_args = 1..)]
    pub(crate) database: Vec<String>,
    /// The policy, by name or id. [default: the group's first, else the default policy]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// Another kind than the policy's, this once.
    #[arg(long, short)]
    pub(crate) kind: Option<Kind>,
    /// Delete afterwards what the policy lets go, unless a database came out badly.
    #[arg(long)]
    pub(crate) prune: bool,
    /// Show the plan, with `--prune` also what would be deleted afterwards and why, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(crate) struct RestoreArgs {
    /// The restore point: the beginning of its id, or latest:NAME for the newest of a database.
    pub(crate) point: String,
    /// A folder to restore into.
    #[arg(long, value_name = "DIR", required_unless_present = "in_place")]
    pub(crate) to: Option<PathBuf>,
    /// Restore to where the files were. What is there is kept aside until the restored files have been checked.
    #[arg(long, conflicts_with = "to")]
    pub(crate) in_place: bool,
    /// Restore a suspect point all the same; damage still stops it.
    #[arg(long)]
    pub(crate) accept_suspect: bool,
    /// Restore a point whose backup is not over; every byte is checked all the same.
    #[arg(long)]
    pub(crate) accept_provisional: bool,
    /// Show the plan and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `jobs`.
#[derive(Debug, Args)]
pub(crate) struct JobsArgs {
    /// The beginning of a job's id.
    pub(crate) id: Option<String>,
}

/// Arguments of `windows`.
#[derive(Debug, Args)]
pub(crate) struct WindowsArgs {
    /// One database, by name or id.
    pub(crate) database: Option<String>,
}

/// Arguments of `lint`.
#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// How many bytes of logs a database writes in an hour, such as 500m. [default: what its restore points tell]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) log_rate: Option<u64>,
    /// How many bytes of logs a log volume has room for, such as 200g; without it nothing is said of its filling up.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) log_room: Option<u64>,
}

/// Arguments of `parked`.
#[derive(Debug, Args)]
pub(crate) struct ParkedArgs {
    /// What to do with one of them. [default: show all]
    #[command(subcommand)]
    pub(crate) command: Option<ParkedCommand>,
}

/// What to do with a parked run. Whatever a command that was killed left open is carried to its end first.
#[derive(Debug, Subcommand)]
pub(crate) enum ParkedCommand {
    /// Try again what is stuck.
    Resume {
        /// The beginning of the id of the run, or of its job.
        id: String,
    },
    /// Say that what is stuck has been seen to by hand, and let the run go on.
    ///
    /// What is not done is resumed, or abandoned.
    Resolve(ResolveArgs),
    /// Give the run up: what it owed is debris, what it held is free.
    Abandon {
        /// The beginning of the id of the run, or of its job.
        id: String,
    },
}

/// Arguments of `parked resolve`.
#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// The beginning of the id of the run, or of its job.
    pub(crate) id: String,
    /// The step, if several are stuck.
    #[arg(long, value_name = "NAME")]
    pub(crate) step: Option<String>,
    /// It is done: by hand, or after all.
    #[arg(long, required = true)]
    pub(crate) done: bool,
    /// What it gave, as JSON, if that is known.
    #[arg(long, value_name = "JSON")]
    pub(crate) output: Option<String>,
}

/// Arguments of `debris`.
#[derive(Debug, Args)]
pub(crate) struct DebrisArgs {
    /// Take away what can be taken away, and show what is left.
    #[arg(long)]
    pub(crate) sweep: bool,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Restore points: the beginning of an id, or latest:NAME.
    #[arg(value_name = "POINT", required_unless_present = "all")]
    pub(crate) points: Vec<String>,
    /// All there are.
    #[arg(long, conflicts_with = "points")]
    pub(crate) all: bool,
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Show all.
    List,
    /// Show one.
    Show {
        /// Its name, or the beginning of its id.
        name: String,
    },
    /// Make one.
    Create {
        /// Its name.
        name: String,
        /// What is in it.
        #[command(flatten)]
        edit: GroupEdit,
    },
    /// Change one.
    Edit {
        /// Its name, or the beginning of its id.
        name: String,
        /// What changes; members and policies are replaced as a whole, and schedules of policies that are left out are detached.
        #[command(flatten)]
        edit: GroupEdit,
        /// Its new name.
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
    },
    /// Remove one. Its restore points stay.
    Remove {
        /// Its name, or the beginning of its id.
        name: String,
    },
}

/// Settings of a group.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct GroupEdit {
    /// Databases, by name or id.
    #[arg(long, short, value_name = "NAME", num_args = 1..)]
    pub(crate) database: Vec<String>,
    /// Every database with a copy on these servers.
    #[arg(long, value_name = "SERVER", num_args = 1..)]
    pub(crate) host: Vec<String>,
    /// Every database there is.
    #[arg(long, conflicts_with_all = ["database", "host"])]
    pub(crate) everything: bool,
    /// Policies, by name or id; the first is the one that is used unless another is named.
    #[arg(long, short, value_name = "NAME", num_args = 1..)]
    pub(crate) policy: Vec<String>,
    /// At most so many databases are frozen together.
    #[arg(long, value_name = "N")]
    pub(crate) max_databases: Option<std::num::NonZeroU32>,
    /// At most so many volumes are snapped together.
    #[arg(long, value_name = "N")]
    pub(crate) max_volumes: Option<std::num::NonZeroU32>,
    /// How its snapshots are named: text with {group}, {policy}, {host}, {kind}, {class}, {time} and {run}, which comes last if it
    /// is left out. [default: stillpoint_{host}_{time}_{run}]
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) naming: Option<String>,
}

/// Kinds of backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Database and all logs; Exchange may truncate.
    FullAndLog,
    /// Database and the logs that it needs; Exchange may truncate.
    Full,
    /// Closed logs only.
    Log,
    /// Database and all logs, without a trace in Exchange.
    Copy,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }
}
