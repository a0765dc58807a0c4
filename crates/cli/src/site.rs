//! A state file with everything that belongs to it: catalogue, store, source, and the Stillpoint over them.
//!
//! What is protected and where copies are kept is remembered in the default group, so that a later process needs the state
//! file and nothing else, also when the source is gone.
//!
//! ```text
//!   --state ──▶ catalogue ──▶ default group: source, store ──▶ plug-in, provider ──▶ Stillpoint
//!                                  ▲
//!        DIR, --source, --store ───┘ the first time
//! ```

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stillpoint::catalog::{Catalog, Page, PointQuery};
use stillpoint::context::{Cx, ErrorClass, HostId, HostPath, IdempotencyKey, PathFlavor};
use stillpoint::exchange::{ExchangePlugin as _, Scope};
use stillpoint::exchange_files::FilesPlugin;
use stillpoint::model::group::{ResourceGroup, Selector};
use stillpoint::model::id::{GroupId, PolicyId, ProviderId, VolumeId};
use stillpoint::model::inventory::Inventory;
use stillpoint::model::kind::BackupKind;
use stillpoint::model::policy::Policy;
use stillpoint::model::topology::Topology;
use stillpoint::storage::SnapshotProvider;
use stillpoint::storage_btrfs::{BtrfsConfig, BtrfsProvider};
use stillpoint::storage_fs::{FsConfig, FsProvider, is_store};
use stillpoint::store_sqlite::{OpenError, SqliteStore};
use stillpoint::workflow::TokioSeams;
use stillpoint::{HookRunner, ProgramRunner, Stillpoint};

use crate::args::Storage;
use crate::error::{CliError, Outcome};
use crate::notifiers::{self, Subscription};
use crate::out::Out;
use crate::pick;
use crate::place::{Places, check_apart, check_source};

/// The name of the group and of the policy that are made with a state file.
pub(crate) const DEFAULT: &str = "default";
/// What this machine is called in paths and copies: a state file may outlive a change of the machine's name.
const HOST: &str = "localhost";
const SOURCE_TAG: &str = "stillpoint.source";
const STORE_TAG: &str = "stillpoint.store";
/// Who is told what became of jobs.
const NOTIFY_TAG: &str = "stillpoint.notify";
/// Where the programs of hooks are.
const HOOKS_TAG: &str = "stillpoint.hooks";
/// How copies are made; without it, of each file.
const STORAGE_TAG: &str = "stillpoint.storage";
const BTRFS: &str = "btrfs";

/// What to do when there is no state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Say so.
    Refuse,
    /// Make one.
    Make,
}

/// What the daemon has beside what the state file says.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// How many storage operations there are at once.
    pub(crate) storage_operations: Option<NonZeroU32>,
    /// Whoever is told of jobs whatever the file of notifications says.
    pub(crate) told: Option<Subscription>,
}

/// An open state file and what belongs to it. Held for as long as the command runs: the file is locked.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) stillpoint: Stillpoint,
    pub(crate) state: PathBuf,
    pub(crate) store: PathBuf,
    pub(crate) source: PathBuf,
    /// How copies are made.
    pub(crate) storage: Storage,
    /// Copies are clones that take an instant and no room.
    pub(crate) clones: bool,
    /// Why nobody is told what becomes of jobs, where somebody was to be.
    pub(crate) untold: Option<CliError>,
}

impl Site {
    /// Opens the state file, and puts a Stillpoint together over what it remembers.
    ///
    /// One command at a time has it: what one process leaves open the next one carries on. The daemon shares it with any.
    pub(crate) async fn open(places: &Places, absent: Absent) -> Outcome<Self> {
        Self::open_by(places, absent, Own::default(), |file| SqliteStore::open_first(file)).await
    }

    /// The same for the daemon, with what only it has.
    pub(crate) async fn open_shared(places: &Places, absent: Absent, own: Own) -> Outcome<Self> {
        Self::open_by(places, absent, own, |file| SqliteStore::open(file)).await
    }

    async fn open_by(
        places: &Places,
        absent: Absent,
        own: Own,
        open: impl Fn(&Path) -> Result<SqliteStore, OpenError>,
    ) -> Outcome<Self> {
        if absent == Absent::Refuse {
            places.require_state()?;
        } else if !places.has_state() {
            check_new(places)?;
        }
        // Journal, leases and catalogue.
        let catalog = Arc::new(open(&places.state)?);
        let group = default_group(&*catalog).await?;
        let remembered = |tag: &str| {
            let group = group.as_ref()?;
            group.tags.get(tag).map(PathBuf::from)
        };
        let source = source_of(places, remembered(SOURCE_TAG))?;
        let store = store_of(places, remembered(STORE_TAG), has_points(&*catalog).await?)?;
        check_apart(&source, &store)?;
        if absent == Absent::Refuse && !is_store(&store) {
            return Err(no_store(&store));
        }
        let known = group.is_some().then(|| remembered(STORAGE_TAG));
        let storage =
            storage_of(places, known.map(|tag| tag.is_some_and(|tag| tag == Path::new(BTRFS))))?;
        let hooks = hooks_of(places, remembered(HOOKS_TAG))?;
        let (mut notifiers, untold) = match notifiers_of(places, remembered(NOTIFY_TAG)) {
            Ok(notifiers) => (notifiers, None),
            Err(error) if places.notify.is_some() => return Err(error),
            // It keeps nobody from a backup or a restore.
            Err(error) => {
                let failure = &error.failure;
                Out::alarm(&format!(
                    "warning: nobody is told what becomes of jobs: {} [{}]\n  remedy: {}",
                    failure.message, failure.code, failure.remedy
                ));
                (Vec::new(), Some(error))
            }
        };
        notifiers.extend(own.told);
        let storage_operations = own.storage_operations;
        let sides = Sides { state: Some(catalog), hooks, notifiers, storage_operations };
        let (stillpoint, clones) = compose(&source, &store, storage, sides)?;
        let state = places.state.clone();
        let site = Self { stillpoint, state, store, source, storage, clones, untold };
        if absent == Absent::Make {
            site.remember(group, places).await?;
        }
        Ok(site)
    }

    /// Notes where the operator has said that notifications and hooks are: whoever tries them, or starts the daemon with them, will
    /// not say it again.
    pub(crate) async fn note(&self, places: &Places) -> Outcome<()> {
        if places.notify.is_none() && places.hooks.is_none() {
            return Ok(());
        }
        let group = self.default_group().await?;
        self.remember(Some(group), places).await
    }

    /// Brings to its end what a command left open whose process was killed. For commands that go on to change something.
    pub(crate) async fn recover(&self) -> Outcome<()> {
        for job in self.stillpoint.recover().await? {
            // What became of it is in the list of jobs.
            let _job = job.settled().await;
        }
        Ok(())
    }

    /// Waits until the runs that have ended hold nothing any more: a process that is gone before that leaves it to the next.
    pub(crate) async fn let_go(&self) -> Outcome<()> {
        // The arbiter has taken in what runs let go of by the time that it answers.
        let _holders = self.stillpoint.engine().holders().await?;
        Ok(())
    }

    /// Makes the default policy and group if they are not there, and notes where things are. Where the store is remembered to
    /// be changes only if the operator has `named` one.
    async fn remember(&self, group: Option<ResourceGroup>, named: &Places) -> Outcome<()> {
        let known = group.clone();
        let mut group = match group {
            Some(group) => group,
            None => self.new_group().await?,
        };
        group.tags.insert(SOURCE_TAG.to_owned(), text(&self.source)?);
        if named.store.is_some() || !group.tags.contains_key(STORE_TAG) {
            group.tags.insert(STORE_TAG.to_owned(), text(&self.store)?);
        }
        if let Some(notify) = &named.notify {
            group.tags.insert(NOTIFY_TAG.to_owned(), text(notify)?);
        }
        if let Some(hooks) = &named.hooks {
            group.tags.insert(HOOKS_TAG.to_owned(), text(hooks)?);
        }
        if self.storage == Storage::Btrfs {
            group.tags.insert(STORAGE_TAG.to_owned(), BTRFS.to_owned());
        }
        if known.as_ref() == Some(&group) {
            return Ok(());
        }
        let group = match known {
            Some(known) => known.edit(group)?,
            None => group,
        };
        Ok(self.stillpoint.save_group(&group).await?)
    }

    /// The group that comes with a state file, and its policy.
    async fn new_group(&self) -> Outcome<ResourceGroup> {
        let policies = self.stillpoint.policies().await?;
        let policy = if let Some(policy) = policies.iter().find(|policy| policy.name == DEFAULT) {
            policy.id
        } else {
            let mut policy = Policy::new(PolicyId(self.stillpoint.seams().ids.uuid()), DEFAULT);
            // At rest nobody truncates anything, and the plan should not say so.
            policy.kind = BackupKind::Copy;
            self.stillpoint.save_policy(&policy).await?;
            policy.id
        };
        let id = GroupId(self.stillpoint.seams().ids.uuid());
        let mut group = ResourceGroup::new(id, DEFAULT, vec![Selector::Everything]);
        group.policies.push(policy);
        Ok(group)
    }

    /// The group that came with the state file, whatever it is called now.
    pub(crate) async fn default_group(&self) -> Outcome<ResourceGroup> {
        let groups = self.stillpoint.groups().await?;
        match groups.iter().find(|group| group.tags.contains_key(SOURCE_TAG)) {
            Some(group) => Ok(group.clone()),
            None => Ok(pick::group(&groups, DEFAULT)?.clone()),
        }
    }

    /// A key for a request that nobody repeats.
    pub(crate) fn key(&self, what: &str) -> Outcome<IdempotencyKey> {
        let id = self.stillpoint.seams().ids.uuid();
        IdempotencyKey::new(format!("cli/{what}/{id}")).map_err(|error| {
            CliError::of_class("cli.internal", ErrorClass::Internal, error.to_string(), "")
        })
    }

    /// The topology, with what exists now if the source is still there.
    pub(crate) async fn topology(&self) -> Outcome<Topology> {
        if self.source.is_dir() {
            Ok(self.stillpoint.topology().await?)
        } else {
            Ok(self.stillpoint.topology_of_catalog().await?)
        }
    }
}

/// That a state file can be made here: everything that can be wrong is looked at before it is. Gives what it would protect.
pub(crate) fn check_new(places: &Places) -> Outcome<&Path> {
    let source = places.source.as_deref().ok_or_else(|| no_source(places))?;
    check_source(source)?;
    let store = places.store();
    // What is remembered must be readable again.
    for path in [source, &store, &places.state] {
        let _text = text(path)?;
    }
    check_apart(source, &store)?;
    check_provider(source, &store, places.storage.unwrap_or_default())?;
    Ok(source)
}

/// What a Stillpoint has beside a folder and a store.
#[derive(Debug, Default)]
pub(crate) struct Sides {
    /// Its state; in memory, if none is given.
    pub(crate) state: Option<Arc<SqliteStore>>,
    /// What runs hooks.
    pub(crate) hooks: Option<Arc<dyn HookRunner>>,
    /// Who is told what became of jobs.
    pub(crate) notifiers: Vec<Subscription>,
    /// How many storage operations there are at once.
    pub(crate) storage_operations: Option<NonZeroU32>,
}

/// A Stillpoint over a folder and a store, and whether the store takes clones.
pub(crate) fn compose(
    source: &Path,
    store: &Path,
    storage: Storage,
    sides: Sides,
) -> Outcome<(Stillpoint, bool)> {
    let plugin = FilesPlugin::new(source, host()?)?;
    let provider = provider(source, store, storage)?;
    let clones = provider.caps().instant;
    let mut builder = Stillpoint::builder(Arc::new(plugin)).provider(provider);
    if let Some(most) = sides.storage_operations {
        builder = builder.storage_operations(most);
    }
    if let Some(hooks) = sides.hooks {
        builder = builder.hooks(hooks);
    }
    for (on, notifier) in sides.notifiers {
        builder = builder.notifier(on, notifier);
    }
    if let Some(state) = sides.state {
        let file = HostPath::new(host()?, PathFlavor::Posix, text(state.path())?);
        let file = file.map_err(|error| unusable(state.path(), &error))?;
        builder = builder.state_at(file).store(state);
    }
    Ok((builder.build()?, clones))
}

/// What takes snapshots of a folder into a store.
pub(crate) fn provider(
    source: &Path,
    store: &Path,
    storage: Storage,
) -> Outcome<Arc<dyn SnapshotProvider>> {
    Ok(match storage {
        Storage::Files => Arc::new(FsProvider::open(&of_files(source, store)?)?),
        Storage::Btrfs => Arc::new(BtrfsProvider::open(&of_subvolume(source, store)?)?),
    })
}

/// That there can be such a one, as far as that is seen without making anything.
pub(crate) fn check_provider(source: &Path, store: &Path, storage: Storage) -> Outcome<()> {
    match storage {
        Storage::Files => FsProvider::check(&of_files(source, store)?)?,
        Storage::Btrfs => BtrfsProvider::check(&of_subvolume(source, store)?)?,
    }
    Ok(())
}

fn of_files(source: &Path, store: &Path) -> Outcome<FsConfig> {
    let volume = VolumeId::new(text(source)?).map_err(|error| unusable(source, &error))?;
    let provider = ProviderId::new("fs").map_err(|error| unusable(store, &error))?;
    let config = FsConfig::new(provider, host()?, store).with_volume(volume, source);
    Ok(if is_store(store) { config.with_existing_store() } else { config })
}

fn of_subvolume(source: &Path, store: &Path) -> Outcome<BtrfsConfig> {
    let provider = ProviderId::new(BTRFS).map_err(|error| unusable(store, &error))?;
    let config = BtrfsConfig::new(provider, host()?, store).with_volume(source).without_revert();
    Ok(if is_store(store) { config.with_existing_store() } else { config })
}

/// What there is under a folder. Makes nothing, not even a store.
pub(crate) async fn inventory(source: &Path) -> Outcome<Inventory> {
    let seams = TokioSeams::current().ok_or_else(|| {
        CliError::of_class("cli.internal", ErrorClass::Internal, "there is no runtime", "")
    })?;
    let plugin = FilesPlugin::new(source, host()?)?;
    Ok(plugin.inventory(&Cx::detached(&seams), &Scope::Everything).await?)
}

/// This machine, as paths and copies name it.
pub(crate) fn host() -> Outcome<HostId> {
    HostId::new(HOST).map_err(|error| unusable(Path::new(HOST), &error))
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::invalid("path.invalid", format!("{}: {error}", path.display()), "Use another path.")
}

/// The path as text: what is remembered must be readable again.
fn text(path: &Path) -> Outcome<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let message = format!("the path {} is not Unicode", path.display());
        CliError::invalid("path.invalid", message, "Use a path of Unicode characters.")
    })
}

async fn default_group(catalog: &dyn Catalog) -> Outcome<Option<ResourceGroup>> {
    let groups = catalog.groups().await?;
    Ok(groups.into_iter().find(|group| group.tags.contains_key(SOURCE_TAG)))
}

fn no_source(places: &Places) -> CliError {
    CliError::invalid(
        "state.no_source",
        if places.has_state() {
            format!("the state file {} does not know what it protects", places.state.display())
        } else {
            format!(
                "there is no state file {}, and nothing says what to protect",
                places.state.display()
            )
        },
        "Name the folder with --source.",
    )
}

/// The source: the named one must be the remembered one.
fn source_of(places: &Places, remembered: Option<PathBuf>) -> Outcome<PathBuf> {
    match (&places.source, remembered) {
        (Some(named), Some(known)) if *named != known => Err(CliError::of_class(
            "state.other_source",
            ErrorClass::Conflict,
            format!(
                "the state file {} protects {}, not {}",
                places.state.display(),
                known.display(),
                named.display()
            ),
            "Use another state file for another folder: --state.",
        )),
        (Some(named), _) => Ok(named.clone()),
        (None, Some(known)) => Ok(known),
        (None, None) => Err(no_source(places)),
    }
}

/// How copies are made: as it is remembered of a state file that is in use (`is_btrfs`), else as the operator says.
fn storage_of(places: &Places, is_btrfs: Option<bool>) -> Outcome<Storage> {
    let known = is_btrfs.map(|is| if is { Storage::Btrfs } else { Storage::Files });
    match (places.storage, known) {
        (Some(named), Some(known)) if named != known => Err(CliError::of_class(
            "state.other_storage",
            ErrorClass::Conflict,
            format!("copies of {} are not made in this way", places.state.display()),
            "Leave --storage out, or use another state file: --state.",
        )),
        (named, known) => Ok(known.or(named).unwrap_or_default()),
    }
}

/// The store: the one that the operator names, else the remembered one, else the one beside the state file if that is a store
/// (state and store may have been moved together). A remembered store that is not there is never replaced unasked: the disk
/// that holds it may just not be mounted.
fn store_of(places: &Places, remembered: Option<PathBuf>, has_points: bool) -> Outcome<PathBuf> {
    let Some(known) = remembered else { return Ok(places.store()) };
    // A folder without a store in it may be an empty mount point.
    let is_there = is_store(&known) || (known.is_dir() && !has_points);
    match (&places.store, is_there) {
        (Some(named), true) if *named != known => Err(CliError::of_class(
            "state.other_store",
            ErrorClass::Conflict,
            format!(
                "the restore points of {} are in {}, not in {}",
                places.state.display(),
                known.display(),
                named.display()
            ),
            "Leave --store out, or use another state file: --state.",
        )),
        (_, true) => Ok(known),
        (Some(named), false) if *named != known => Ok(named.clone()),
        (None, false) if is_store(&places.store()) => Ok(places.store()),
        (_, false) => Err(no_store(&known)),
    }
}

/// What runs hooks: below the folder that the operator names, else the remembered one, else the one beside the state file. One that
/// was not named and is not there keeps nobody from the rest: hooks that have to succeed then fail.
fn hooks_of(places: &Places, remembered: Option<PathBuf>) -> Outcome<Option<Arc<dyn HookRunner>>> {
    if let Some(named) = &places.hooks {
        return Ok(Some(Arc::new(ProgramRunner::new(named)?)));
    }
    let folder = remembered.unwrap_or_else(|| places.state.with_extension("hooks"));
    match ProgramRunner::new(&folder) {
        Ok(runner) => Ok(Some(Arc::new(runner))),
        Err(failure) => {
            tracing::debug!(folder = %folder.display(), %failure, "no hooks are run");
            Ok(None)
        }
    }
}

/// Who is told: as the file says that the operator names, else the remembered one, else the one beside the state file.
fn notifiers_of(places: &Places, remembered: Option<PathBuf>) -> Outcome<Vec<Subscription>> {
    if let Some(named) = &places.notify {
        return notifiers::read(named);
    }
    let file = match remembered {
        Some(file) => file,
        None if !default_notify(places).exists() => return Ok(Vec::new()),
        None => default_notify(places),
    };
    notifiers::read(&file)
}

fn default_notify(places: &Places) -> PathBuf {
    places.state.with_extension("notify.toml")
}

fn no_store(store: &Path) -> CliError {
    CliError::of_class(
        "store.missing",
        ErrorClass::Unavailable,
        format!("there is no store at {}", store.display()),
        "Mount the disk that holds it; if it lies elsewhere now, name the folder with --store.",
    )
    .about("path", store.display())
}

async fn has_points(catalog: &dyn Catalog) -> Outcome<bool> {
    let first = catalog.points(&PointQuery::all(), &Page::first(1)).await?;
    Ok(!first.items.is_empty())
}
