//! `provider check`: what takes snapshots, tried on the operator's folder.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stillpoint::storage::{
    MemberRole, MemberSpec, PrepareSpec, ProviderError, ProviderErrorKind, ProviderResult,
    SnapshotProvider,
};
use stillpoint_testkit::conformance::BoxError;
use stillpoint_testkit::conformance::provider::{
    self, Can, Ground, ProviderFactory, ProviderPlace, TestVolume,
};

use super::ground::{self, Found};
use super::seams::Watched;
use super::trial::{TrialStore, discard};
use super::{Setting, interrupted, missing, refused, run_harmless, setting};
use crate::args::{Global, ProviderCheckArgs, Storage};
use crate::command::tell;
use crate::context::{Cx, Effect, HostPath, Seams};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::model::capability::{ProviderCaps, VolumeFacts};
use crate::model::id::{SetToken, VolumeRef};
use crate::out::{Out, Talk};
use crate::site;
use crate::text;
use crate::view::{CheckView, FitView, Level, MeasuredView, Side};

/// What VSS leaves of the 10 s for which it holds I/O.
const USUAL_LIMIT: Duration = Duration::from_secs(8);

/// Tries the provider; whatever happens, nothing of it stays.
pub(in crate::command) async fn run(
    args: &ProviderCheckArgs,
    global: &Global,
    talk: &Talk,
) -> Outcome<Exit> {
    if args.freeze_limit.is_some_and(|limit| limit.is_zero()) {
        return Err(CliError::usage("a freeze of no time holds no snapshot"));
    }
    let setting = setting(global, args.dir.as_deref()).await?;
    let Setting { source, store, storage, .. } = &setting;
    let mut view = CheckView::new(Side::Provider, source);
    view.store = Some(store.display().to_string());
    view.storage = Some(match storage {
        Storage::Files => "files",
        Storage::Btrfs => "btrfs",
    });
    // Before anything is made.
    if let Err(error) = site::check_provider(source, store, *storage) {
        missing(&mut view, "store", &error.failure);
        let exit = view.close();
        return tell(talk.out, &view, exit, None);
    }
    let watched = Watched::current()?;
    let interrupts = talk.interrupts.follow();
    for left in TrialStore::left(source, store, &watched) {
        let what = left.path().display().to_string();
        match left.remove().await {
            Ok(()) => talk.out.note(&format!("took away what an earlier check left: {what}")),
            Err(why) => view.left_behind.push(why),
        }
    }
    let trial = match TrialStore::make(source, store, *storage, &watched) {
        Ok(trial) => trial,
        Err(error) => {
            missing(&mut view, "store", &error.failure);
            let exit = view.close();
            return tell(talk.out, &view, exit, None);
        }
    };
    let is_done = {
        let work = pin!(try_out(args, &setting, &trial, &watched, talk, &mut view));
        tokio::select! {
            () = work => true,
            () = interrupts.next() => false,
        }
    };
    if !is_done {
        Out::alarm("interrupted: what was made is taken away; once more to leave at once");
    }
    let place = trial.path().display().to_string();
    let removed = tokio::select! {
        removed = trial.remove() => removed,
        () = interrupts.next() => Err(format!("{place}: nobody waited for it to be taken away")),
    };
    drop(interrupts);
    if let Err(why) = removed {
        view.left_behind.push(why);
    }
    if is_done {
        let exit = view.close();
        return tell(talk.out, &view, exit, None);
    }
    let Some(left) = view.left_behind.pop() else { return Err(interrupted(Effect::None)) };
    let mut error = interrupted(Effect::Unknown).about("left", left);
    error.exit = Exit::Attention;
    Err(error)
}

/// Opens the provider, asks it, times it and runs the suite on it, as far as it comes.
async fn try_out(
    args: &ProviderCheckArgs,
    setting: &Setting,
    trial: &TrialStore,
    watched: &Watched,
    talk: &Talk,
    view: &mut CheckView,
) {
    let provider = match trial.open() {
        Ok(provider) => provider,
        Err(error) => return missing(view, "store", &error.failure),
    };
    let inventory = match site::inventory(&setting.source).await {
        Ok(inventory) => inventory,
        Err(error) => return missing(view, "source", &error.failure),
    };
    let caps = provider.caps();
    view.name = Some(caps.provider.to_string());
    let files = ground::files(&setting.source, &inventory);
    if files.is_empty() {
        let message = "there is no file to take a snapshot of [check.no_file]";
        return view.add(
            "source",
            Level::Error,
            message,
            "Name the folder that holds the databases.",
        );
    }
    let cx = watched.cx();
    let volume = match placed(&cx, &*provider, &files).await {
        Ok(volume) => volume,
        Err(error) => return missing(view, "source", &error.failure),
    };
    let facts = match provider.volumes(&cx, std::slice::from_ref(&volume)).await {
        Ok(facts) => facts.into_iter().next(),
        Err(error) => return refused(view, "volume", &error),
    };
    tell_abilities(&caps, setting.storage, view);
    room(&caps, facts.as_ref(), &files, view);
    // A whole set would be copied in every round, or read again to be sealed.
    let round = if caps.instant { files.clone() } else { ground::for_rounds(&files) };
    let bench = Bench { cx: &cx, provider: &*provider, volume: &volume };
    fit(&bench, args.freeze_limit, &files, view).await;
    if view.is_unusable() {
        return;
    }
    let settles = setting.storage == Storage::Btrfs || ground::sum(&round) <= ground::ROUND_MOST;
    view.measured = Some(MeasuredView {
        files: round.len(),
        bytes: ground::sum(&round),
        of_files: files.len(),
        of_bytes: ground::sum(&files),
    });
    if round.is_empty() {
        let message = format!(
            "the smallest file is larger than the {} that are copied in a round: nothing was timed",
            text::bytes(ground::ROUND_MOST)
        );
        view.add("times", Level::Ok, message, "");
    } else if let Err(error) = bench.time(args.rounds, &round, settles, view).await {
        return missing(view, "snapshot", &error.failure);
    }
    let small = ground::for_suite(&files);
    if small.is_empty() {
        let message =
            "every file is too large to be read again for each rule: the contract was not tried";
        view.add("contract", Level::Warning, message, "Try it on a folder with a small file.");
        return;
    }
    drop(provider);
    match Trials::of(setting, trial, watched, volume, &small) {
        Ok(trials) => run_harmless(talk, provider::cases(), &trials, view).await,
        Err(error) => missing(view, "source", &error.failure),
    }
}

/// The volume on which the files lie.
async fn placed(cx: &Cx, provider: &dyn SnapshotProvider, files: &[Found]) -> Outcome<VolumeRef> {
    let paths = host_paths(files)?;
    let placements = provider.resolve(cx, &paths).await?;
    let volume = placements.into_iter().next().map(|placement| placement.volume);
    volume.ok_or_else(|| {
        let text = "no file of the folder lies on the volume of the provider";
        let error = ProviderError::new(ProviderErrorKind::NotFound, text);
        error.with_remedy("Name the folder by its own path, without links.").into()
    })
}

fn host_paths(files: &[Found]) -> Outcome<Vec<HostPath>> {
    let host = site::host()?;
    let path = |file: &Found| {
        HostPath::from_native(host.clone(), &file.path).map_err(|error| {
            CliError::invalid("path.invalid", error.to_string(), "Rename it to valid Unicode.")
        })
    };
    files.iter().map(path).collect()
}

/// What it can do, and how to live without what it cannot.
fn tell_abilities(caps: &ProviderCaps, storage: Storage, view: &mut CheckView) {
    let files = storage == Storage::Files;
    let instant = if caps.instant {
        "take a snapshot without copying data, in a time that does not grow with the data"
    } else {
        "take a snapshot without copying data: every backup copies everything, which needs room and time and is for data at \
         rest only. Put the store on the file system of the folder (btrfs, or XFS with reflink)"
    };
    view.ability("instant", caps.instant, instant);
    let group = if caps.atomic_group {
        "snap several volumes at one instant"
    } else {
        "snap several volumes at one instant: writes are held over all of them"
    };
    view.ability("atomic_group", caps.atomic_group, group);
    view.ability("expose", caps.expose, "show snapshots for reading, so that they can be verified");
    view.ability("clone", caps.clone, "restore single databases out of a snapshot");
    let revert = if caps.revert {
        "take a whole volume back to a snapshot"
    } else {
        "take a whole volume back to a snapshot: everything is restored file by file"
    };
    view.ability("revert", caps.revert, revert);
    view.ability("lock", caps.lock, "keep snapshots from being deleted, by holds and until a date");
    view.ability(
        "documents",
        caps.documents,
        "keep the manifest beside the data, from which the catalogue can be rebuilt",
    );
    let replicate = if caps.replicate {
        "replicate snapshots"
    } else {
        "replicate snapshots: copy the store elsewhere by other means"
    };
    view.ability("replicate", caps.replicate, replicate);
    let fencing = if caps.fencing {
        "refuse calls of a run that was taken over"
    } else if files {
        "refuse calls of a run that was taken over: the locks in the store keep two processes apart"
    } else {
        "refuse calls of a run that was taken over: the locks in the store keep two processes apart, also over snapshots"
    };
    view.ability("fencing", caps.fencing, fencing);
}

/// Whether there is room for a backup of everything.
fn room(caps: &ProviderCaps, facts: Option<&VolumeFacts>, files: &[Found], view: &mut CheckView) {
    let Some(facts) = facts else { return };
    if facts.snapshots_left() == Some(0) {
        let message = "the volume has as many snapshots as it can have [storage.snapshot_limit]";
        view.add("volume", Level::Error, message, "Delete some of them.");
    }
    let Some(free) = facts.free_bytes else { return };
    let needed = ground::sum(files);
    let message = format!("{} of {} free", text::bytes(needed), text::bytes(free));
    if caps.instant {
        let message =
            format!("{} free, of which a snapshot takes only what changes", text::bytes(free));
        view.add("space", Level::Ok, message, "");
    } else if free < needed {
        let message = format!("a backup copies {message} [storage.no_space]");
        let remedy = "Make room, or name a store on another file system with --store.";
        view.add("space", Level::Error, message, remedy);
    } else {
        view.add("space", Level::Ok, format!("a backup copies {message}"), "");
    }
}

/// Whether a snapshot of everything fits into a freeze: the provider says so before there is one.
async fn fit(bench: &Bench<'_>, asked: Option<Duration>, files: &[Found], view: &mut CheckView) {
    let limit = asked.unwrap_or(USUAL_LIMIT);
    let (token, spec) = match bench.spec(files) {
        Ok(made) => made,
        Err(error) => return missing(view, "source", &error.failure),
    };
    let answer = bench.provider.prepare(bench.cx, &spec.with_limit(Some(limit))).await;
    let undone = discard(bench.cx, bench.provider, &token).await;
    let (worst, why, remedy) = match answer {
        Ok(prepared) => {
            let worst = prepared.worst_case;
            let told = worst.map(|worst| format!(", {worst:.1?} at worst")).unwrap_or_default();
            let message = format!("a snapshot fits into a freeze of {limit:?}{told}");
            view.freeze = Some(FitView::new(limit, worst, true, message));
            return note_undone(undone, view);
        }
        Err(error) => {
            let worst = match error.kind() {
                ProviderErrorKind::TooSlow { worst_case, .. } => Some(*worst_case),
                ProviderErrorKind::Unsupported(_) => None,
                // It is not about the limit.
                _ => {
                    refused(view, "snapshot", &error);
                    return note_undone(undone, view);
                }
            };
            (worst, error.to_string(), crate::context::ErrorFacts::remedy(&error).into_owned())
        }
    };
    let message = format!("a snapshot does not fit into a freeze of {limit:?}: {why}");
    if asked.is_some() {
        view.add("freeze", Level::Error, format!("{message} [check.freeze_limit]"), &remedy);
    } else if worst.is_some() {
        let message = format!("{message}; databases at rest need none [check.freeze_limit]");
        view.add("freeze", Level::Warning, message, &remedy);
    }
    let message = format!("{message}; databases at rest need none");
    view.freeze = Some(FitView::new(limit, worst, false, message));
    note_undone(undone, view);
}

fn note_undone(undone: Result<(), String>, view: &mut CheckView) {
    if let Err(why) = undone {
        view.add(
            "snapshot",
            Level::Error,
            format!("{why} [check.not_undone]"),
            "Find out what keeps it.",
        );
    }
}

/// What is timed.
struct Bench<'a> {
    cx: &'a Cx,
    provider: &'a dyn SnapshotProvider,
    volume: &'a VolumeRef,
}

impl Bench<'_> {
    /// A new set of files.
    fn spec(&self, files: &[Found]) -> Outcome<(SetToken, PrepareSpec)> {
        let id = self.cx.seams().ids.uuid().simple();
        let token = SetToken::new(format!("check-{id}")).map_err(|error| {
            CliError::invalid("cli.internal", error.to_string(), "Report this.")
        })?;
        let paths = host_paths(files)?;
        let member = MemberSpec::new(self.volume.clone(), MemberRole::DataAndLog, paths);
        Ok((token.clone(), PrepareSpec::new(token, "stillpoint check").with_member(member)))
    }

    /// Times so many rounds, and takes away each.
    async fn time(
        &self,
        rounds: u32,
        files: &[Found],
        settles: bool,
        view: &mut CheckView,
    ) -> Outcome<()> {
        let mut times = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..rounds {
            let (token, spec) = self.spec(files)?;
            let done = self.round(&spec, settles, &mut times).await;
            let began = self.cx.mono();
            let undone = discard(self.cx, self.provider, &token).await;
            times[3].push(self.cx.mono().saturating_since(began));
            done?;
            undone.map_err(|why| {
                ProviderError::new(
                    ProviderErrorKind::Internal,
                    format!("what was taken stays: {why}"),
                )
            })?;
        }
        for (call, took) in ["prepare", "commit", "settle", "discard"].into_iter().zip(times) {
            view.time(call, took);
        }
        if !settles {
            let message = format!(
                "settling was not timed: it reads every byte once, {} of them",
                text::bytes(ground::sum(files))
            );
            view.add("times", Level::Ok, message, "");
        }
        Ok(())
    }

    async fn round(
        &self,
        spec: &PrepareSpec,
        settles: bool,
        times: &mut [Vec<Duration>; 4],
    ) -> ProviderResult<()> {
        let began = self.cx.mono();
        let prepared = self.provider.prepare(self.cx, spec).await?;
        let is_prepared = self.cx.mono();
        times[0].push(is_prepared.saturating_since(began));
        self.provider.commit(self.cx, &prepared).await?;
        let is_taken = self.cx.mono();
        times[1].push(is_taken.saturating_since(is_prepared));
        if settles {
            self.provider.settle(self.cx, &prepared).await?;
            times[2].push(self.cx.mono().saturating_since(is_taken));
        }
        Ok(())
    }
}

/// One place for every case: the operator's folder, and the store of the check.
struct Trials {
    place: Arc<Shared>,
    seams: Seams,
}

struct Shared {
    source: PathBuf,
    store: PathBuf,
    storage: Storage,
    ground: Ground,
}

impl Trials {
    fn of(
        setting: &Setting,
        trial: &TrialStore,
        watched: &Watched,
        volume: VolumeRef,
        files: &[Found],
    ) -> Outcome<Self> {
        let at = |path: PathBuf| {
            let found = Found { path, bytes: 0 };
            host_paths(&[found]).map(|paths| paths.into_iter().next())
        };
        let mut ground = Ground::new(Vec::new(), site::host()?);
        if let Some(root) = at(setting.source.clone())? {
            ground.volumes.push(TestVolume::new(volume, root, host_paths(files)?));
        }
        if let Some(targets) = at(trial.path().join("targets"))? {
            ground = ground.with_targets(targets);
        }
        if let Some(elsewhere) = at(trial.path().join("targets/elsewhere"))? {
            ground = ground.with_elsewhere(elsewhere);
        }
        let (source, storage) = (setting.source.clone(), setting.storage);
        let place = Shared { source, store: trial.path().join("store"), storage, ground };
        Ok(Self { place: Arc::new(place), seams: watched.seams.clone() })
    }
}

#[async_trait]
impl ProviderFactory for Trials {
    async fn place(&self) -> Result<Box<dyn ProviderPlace>, BoxError> {
        Ok(Box::new(OnePlace(Arc::clone(&self.place))))
    }

    fn seams(&self) -> Seams {
        self.seams.clone()
    }

    fn can(&self) -> BTreeSet<Can> {
        [Can::Reopen].into()
    }
}

struct OnePlace(Arc<Shared>);

#[async_trait]
impl ProviderPlace for OnePlace {
    async fn open(&self) -> Result<Arc<dyn SnapshotProvider>, BoxError> {
        let Shared { source, store, storage, .. } = &*self.0;
        site::provider(source, store, *storage)
            .map_err(|error| error.failure.message.clone().into())
    }

    fn ground(&self) -> Ground {
        self.0.ground.clone()
    }

    async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
        match fs::read(path.to_native()?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn is_read_only(&self, path: &HostPath) -> Result<bool, BoxError> {
        let path = path.to_native()?;
        if fs::metadata(&path)?.permissions().mode() & 0o222 == 0 {
            return Ok(true);
        }
        // Opened for writing, and nothing is written.
        let refused = OpenOptions::new().append(true).open(path).err().map(|error| error.kind());
        Ok(matches!(
            refused,
            Some(io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
        ))
    }
}
