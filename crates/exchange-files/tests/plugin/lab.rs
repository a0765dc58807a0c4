//! A folder, a plug-in over it, and what all tests ask of them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stillpoint_context::{Cx, ErrorFacts, HostId, HostPath};
use stillpoint_ese::PageSize;
use stillpoint_ese::write::ExchangeSet;
use stillpoint_exchange::{
    BackupKind, CopyId, ExchangePlugin, Exposure, Held, Inventory, RequiredFile, Scope, Session,
    SessionId, SessionSpec, SessionState, VerifyFile, VerifySpec,
};
use stillpoint_exchange_files::FilesPlugin;
use stillpoint_model::availability::Reason;
use stillpoint_model::handover::ExposedRoot;
use stillpoint_model::id::{ExposureKey, SnapshotId, SnapshotRef};
use stillpoint_model::inventory::DatabaseCopy;
use stillpoint_model::seal::{Seal, SealWriter};
use tempfile::TempDir;

use super::support::{Bench, block_on};

pub(crate) const LEASE: Duration = Duration::from_mins(10);

/// A folder, a plug-in over it, and a machine to run it on.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) plugin: FilesPlugin,
    pub(crate) bench: Bench,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugin = FilesPlugin::new(folder.path(), host()).unwrap();
        Self { folder, plugin, bench: Bench::new() }
    }

    /// With one small set in it.
    pub(crate) fn with_set() -> Self {
        let lab = Self::new();
        set().write_to(lab.folder.path()).unwrap();
        lab
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.plugin.root().join(below)
    }

    pub(crate) fn dir(&self, below: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn cx(&self) -> Cx {
        self.bench.cx()
    }

    pub(crate) fn inventory(&self) -> Inventory {
        block_on(self.plugin.inventory(&self.cx(), &Scope::Everything)).unwrap()
    }

    pub(crate) fn begin(&self, copies: Vec<CopyId>) -> Session {
        let spec = SessionSpec::new(session_id(1), BackupKind::FullAndLog, copies, LEASE);
        block_on(self.plugin.begin(&self.cx(), &spec)).unwrap()
    }

    pub(crate) fn freeze(&self) {
        block_on(self.plugin.freeze(&self.cx(), session_id(1), None)).unwrap();
    }

    pub(crate) fn thaw(&self) {
        block_on(self.plugin.thaw(&self.cx(), session_id(1))).unwrap();
    }

    pub(crate) fn held(&self, copy: &CopyId) -> Held {
        block_on(self.plugin.evidence(&self.cx(), session_id(1))).unwrap().held(copy)
    }

    pub(crate) fn state(&self) -> SessionState {
        block_on(self.plugin.session(&self.cx(), session_id(1))).unwrap()
    }
}

pub(crate) fn host() -> HostId {
    HostId::new("lab").unwrap()
}

pub(crate) fn set() -> ExchangeSet {
    ExchangeSet::new(7).with_page_size(PageSize::KIB_4).with_pages(40).with_log_segments(8)
}

pub(crate) fn session_id(number: u128) -> SessionId {
    SessionId(uuid::Uuid::from_u128(number))
}

pub(crate) fn copy_named<'a>(inventory: &'a Inventory, name: &str) -> &'a DatabaseCopy {
    let database = inventory.database_named(name).unwrap_or_else(|| {
        let names: Vec<_> = inventory.databases.values().map(|database| &database.name).collect();
        panic!("no {name} in {names:?}")
    });
    inventory.active_copy(database.id).unwrap()
}

pub(crate) fn names(copy: &DatabaseCopy) -> Vec<&str> {
    copy.files.iter().filter_map(|file| file.path.file_name()).collect()
}

pub(crate) fn missing(copy: &DatabaseCopy) -> Vec<(u32, u32)> {
    match copy.availability.reasons.first() {
        Some(Reason::NotRecoverable { missing }) => {
            missing.iter().map(|range| (range.start().0, range.end().0)).collect()
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn code(error: &stillpoint_exchange::PluginError) -> String {
    error.code().to_string()
}

/// What is to be verified, and where it lies.
pub(crate) struct Plan {
    pub(crate) files: Vec<VerifyFile>,
    pub(crate) exposure: Exposure,
}

impl Lab {
    /// The files of these copies, sealed as they are now and exposed where they are.
    pub(crate) fn plan(&self, copies: &[DatabaseCopy]) -> Plan {
        let files = copies
            .iter()
            .flat_map(|copy| copy.files.iter().map(|file| RequiredFile::of(copy.id.clone(), file)))
            .map(|file| {
                let seal = seal(Path::new(file.path.as_str()));
                VerifyFile::new(file, Some(seal))
            })
            .collect();
        let root = HostPath::from_native(host(), self.plugin.root()).unwrap();
        let snapshot =
            SnapshotRef::new("fs:volume".parse().unwrap(), SnapshotId::new("one").unwrap());
        let roots = vec![ExposedRoot::new(snapshot, root.clone(), root)];
        Plan { files, exposure: Exposure::new(ExposureKey::new("k").unwrap(), host(), roots) }
    }

    pub(crate) fn verify(
        &self,
        plan: &Plan,
        with_seals: bool,
    ) -> stillpoint_exchange::VerifyReport {
        let mut files = plan.files.clone();
        if !with_seals {
            for file in &mut files {
                file.seal = None;
            }
        }
        block_on(self.plugin.verify(&self.cx(), &plan.exposure, &VerifySpec::new(files))).unwrap()
    }
}

pub(crate) fn seal(path: &Path) -> Seal {
    let bytes = fs::read(path).unwrap();
    let mut writer = SealWriter::new(bytes.len() as u64);
    writer.update(&bytes);
    writer.finish()
}

pub(crate) fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    // A time stamp has the grain of the kernel's tick; wait until the next one has begun.
    let before = fs::metadata(path).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    loop {
        file.write_all_at(bytes, offset).unwrap();
        if fs::metadata(path).unwrap().modified().unwrap() != before.modified().unwrap() {
            return;
        }
    }
}
