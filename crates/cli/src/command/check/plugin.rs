//! `plugin check`: what speaks for Exchange, tried on the databases in the operator's folder.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint::exchange::{ExchangePlugin, PluginResult, Scope, SessionId, SessionSpec};
use stillpoint::exchange_files::FilesPlugin;
use stillpoint::model::capability::{Coordination, PluginCaps};
use stillpoint::model::id::CopyId;
use stillpoint::model::inventory::Inventory;
use stillpoint::model::kind::BackupKind;
use stillpoint_testkit::conformance::BoxError;
use stillpoint_testkit::conformance::plugin::{self, Can, PluginFactory, PluginPlace};

use super::ground;
use super::seams::Watched;
use super::{interrupted, missing, refused, run_harmless, setting};
use crate::args::{Global, PluginCheckArgs};
use crate::command::tell;
use crate::context::{Cx, Effect, HostPath, Seams};
use crate::error::Outcome;
use crate::exit::Exit;
use crate::out::Talk;
use crate::site;
use crate::text;
use crate::view::{self, CheckView, Level, Side};

/// Files of a set up to this size are read again while it is frozen.
const READ_MOST: u64 = 64 << 20;
/// How long a session of a measurement lives if nobody ends it.
const LEASE: Duration = Duration::from_mins(1);

/// Tries the plug-in. It has no sessions but those of this process.
pub(in crate::command) async fn run(
    args: &PluginCheckArgs,
    global: &Global,
    talk: &Talk,
) -> Outcome<Exit> {
    let setting = setting(global, args.dir.as_deref()).await?;
    let mut view = CheckView::new(Side::Plugin, &setting.source);
    let watched = Watched::current()?;
    let interrupts = talk.interrupts.follow();
    let is_done = {
        let work = pin!(try_out(args, &setting.source, &watched, talk, &mut view));
        tokio::select! {
            () = work => true,
            () = interrupts.next() => false,
        }
    };
    drop(interrupts);
    if !is_done {
        return Err(interrupted(Effect::None));
    }
    let exit = view.close();
    tell(talk.out, &view, exit, None)
}

async fn try_out(
    args: &PluginCheckArgs,
    source: &std::path::Path,
    watched: &Watched,
    talk: &Talk,
    view: &mut CheckView,
) {
    let place = Folder { source: source.to_owned() };
    let plugin = match place.plugin() {
        Ok(plugin) => plugin,
        Err(error) => return missing(view, "source", &error.failure),
    };
    let (cx, caps) = (watched.cx(), plugin.caps());
    view.name = Some(caps.name.clone());
    tell_abilities(&caps, view);
    let inventory = match plugin.inventory(&cx, &Scope::Everything).await {
        Ok(inventory) => inventory,
        Err(error) => return refused(view, "source", &error),
    };
    let copies = databases(&inventory, view);
    if copies.is_empty() {
        let message = "there is no database that can be backed up [check.no_database]";
        let remedy = "Name the folder that holds the databases; `stillpoint discover` tells what there is and why not.";
        return view.add("source", Level::Error, message, remedy);
    }
    if let Err(error) = time(&cx, &plugin, &caps, &copies, args.rounds, view).await {
        return refused(view, "session", &error);
    }
    let files = ground::files(source, &inventory);
    let reads = ground::sum(&files) <= READ_MOST;
    let trials = Folders { place, reads, seams: watched.seams.clone() };
    run_harmless(talk, plugin::cases(), &trials, view).await;
}

/// Tells of every database; gives the copies of one server that can be backed up together.
fn databases(inventory: &Inventory, view: &mut CheckView) -> Vec<CopyId> {
    let copies = inventory.copies.values().filter(|copy| copy.availability.is_available());
    let mut copies: Vec<CopyId> = copies.map(|copy| copy.id.clone()).collect();
    let host = copies.first().map(|copy| copy.host.clone());
    copies.retain(|copy| Some(&copy.host) == host.as_ref());
    if !copies.is_empty() {
        let message = format!("{} can be backed up", text::count(copies.len(), "database"));
        view.add("databases", Level::Ok, message, "");
    }
    for refused in view::refused(inventory) {
        for reason in &refused.reasons {
            let message = format!("{} [{}]", reason.message, reason.code);
            view.add(&format!("database {}", refused.name), Level::Warning, message, reason.remedy);
        }
    }
    copies
}

/// What it can do, and what that means.
fn tell_abilities(caps: &PluginCaps, view: &mut CheckView) {
    let freezes = caps.coordination.contains(&Coordination::Engine);
    view.ability(
        "freeze",
        freezes,
        format!("hold writes between two calls, to the level `{}`", caps.quiesce),
    );
    let snaps = caps.coordination.contains(&Coordination::Plugin);
    view.ability("snap", snaps, "freeze, snap and thaw in one call, as VSS does");
    for kind in BackupKind::ALL {
        let can = caps.kinds.contains(&kind);
        let (ability, means) = match kind {
            BackupKind::FullAndLog => ("full_and_log", "back up databases with all of their logs"),
            BackupKind::Full => ("full", "back up databases with the logs that they need"),
            BackupKind::Log => ("log", "back up closed logs alone"),
            BackupKind::Copy => ("copy", "back up without a trace in Exchange"),
            _ => continue,
        };
        view.ability(ability, can, means);
    }
    let limit = caps.shortest_limit();
    let means = limit.map_or_else(
        || "thaw by itself at a limit of its own: nobody writes data at rest".to_owned(),
        |limit| format!("thaw by itself after {limit:?}"),
    );
    view.ability("freeze_limit", limit.is_some(), means);
    view.ability("verify", caps.verify, "verify what a restore point holds");
    view.ability("restore", caps.restore, "bring databases back to where they were");
    view.ability("fencing", caps.fencing, "refuse calls of a run that was taken over");
    if let Some(most) = caps.max_databases {
        view.ability("max_databases", true, format!("take {most} databases in one set"));
    }
}

/// Times sessions of these copies, and gives each of them up.
async fn time(
    cx: &Cx,
    plugin: &dyn ExchangePlugin,
    caps: &PluginCaps,
    copies: &[CopyId],
    rounds: u32,
    view: &mut CheckView,
) -> PluginResult<()> {
    let most = caps.max_databases.map_or(usize::MAX, |most| most.get() as usize);
    let copies: Vec<_> = copies.iter().take(most).cloned().collect();
    // One that leaves Exchange's logs alone, if there is such a one.
    let kinds = caps.kinds.iter().copied().filter(|kind| kind.takes_database());
    let Some(kind) = kinds.min_by_key(|kind| kind.truncates()) else { return Ok(()) };
    let calls = ["inventory", "begin", "freeze", "thaw", "evidence"];
    let mut times = calls.map(|_| Vec::new());
    for _ in 0..rounds {
        let id = SessionId(cx.seams().ids.uuid());
        let spec = SessionSpec::new(id, kind, copies.clone(), LEASE);
        let done = round(cx, plugin, caps, &spec, &mut times).await;
        plugin.abort(cx, id).await?;
        done?;
    }
    for (call, took) in calls.into_iter().zip(times) {
        view.time(call, took);
    }
    Ok(())
}

async fn round(
    cx: &Cx,
    plugin: &dyn ExchangePlugin,
    caps: &PluginCaps,
    spec: &SessionSpec,
    times: &mut [Vec<Duration>; 5],
) -> PluginResult<()> {
    let mut at = cx.mono();
    let mut next = |call: usize| {
        let now = cx.mono();
        if let Some(times) = times.get_mut(call) {
            times.push(now.saturating_since(at));
        }
        at = now;
    };
    plugin.inventory(cx, &Scope::Everything).await?;
    next(0);
    plugin.begin(cx, spec).await?;
    next(1);
    if !caps.coordination.contains(&Coordination::Engine) {
        return Ok(());
    }
    plugin.freeze(cx, spec.id, caps.shortest_limit()).await?;
    next(2);
    plugin.thaw(cx, spec.id).await?;
    next(3);
    plugin.evidence(cx, spec.id).await?;
    next(4);
    Ok(())
}

/// The operator's folder.
#[derive(Clone, Debug)]
struct Folder {
    source: PathBuf,
}

impl Folder {
    fn plugin(&self) -> Outcome<FilesPlugin> {
        Ok(FilesPlugin::new(&self.source, site::host()?)?)
    }
}

/// The same folder for every case.
struct Folders {
    place: Folder,
    reads: bool,
    seams: Seams,
}

#[async_trait]
impl PluginFactory for Folders {
    async fn place(&self) -> Result<Box<dyn PluginPlace>, BoxError> {
        Ok(Box::new(self.place.clone()))
    }

    fn seams(&self) -> Seams {
        self.seams.clone()
    }

    fn can(&self) -> BTreeSet<Can> {
        let reads = self.reads.then_some(Can::Read);
        reads.into_iter().chain([Can::Reopen]).collect()
    }
}

#[async_trait]
impl PluginPlace for Folder {
    async fn open(&self) -> Result<Arc<dyn ExchangePlugin>, BoxError> {
        let plugin = self.plugin().map_err(|error| error.failure.message.clone())?;
        Ok(Arc::new(plugin))
    }

    async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
        match fs::read(path.to_native()?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
