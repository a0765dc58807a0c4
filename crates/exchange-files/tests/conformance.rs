//! The suite of the testkit, on folders of databases at rest.

// The databases are laid out and disturbed as on Unix.
#![cfg(unix)]
// A test may stop where it stands.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use async_trait::async_trait;
use stillpoint_context::{HostId, HostPath, Seams};
use stillpoint_ese::PageSize;
use stillpoint_ese::write::ExchangeSet;
use stillpoint_exchange::{CopyId, ExchangePlugin, Exposure, RequiredFile, Scope};
use stillpoint_exchange_files::FilesPlugin;
use stillpoint_model::handover::ExposedRoot;
use stillpoint_model::id::{ExposureKey, SnapshotId, SnapshotRef};
use stillpoint_model::inventory::FileRole;
use stillpoint_testkit::conformance::BoxError;
use stillpoint_testkit::conformance::plugin::{self, Can, PluginFactory, PluginPlace};
use stillpoint_workflow::TokioSeams;
use tempfile::TempDir;

/// Folders with two databases each.
struct Folders(Seams);

struct Folder {
    folder: TempDir,
    seams: Seams,
}

fn host() -> HostId {
    "lab".parse().unwrap()
}

#[async_trait]
impl PluginFactory for Folders {
    async fn place(&self) -> Result<Box<dyn PluginPlace>, BoxError> {
        let folder = tempfile::tempdir()?;
        for (name, seed) in [("one", 7), ("two", 8)] {
            let place = folder.path().join(name);
            fs::create_dir(&place)?;
            let set = ExchangeSet::new(seed).with_page_size(PageSize::KIB_4);
            set.with_pages(40).with_log_segments(8).write_to(&place)?;
        }
        Ok(Box::new(Folder { folder, seams: self.0.clone() }))
    }

    fn seams(&self) -> Seams {
        self.0.clone()
    }

    fn can(&self) -> BTreeSet<Can> {
        // Another process knows nothing of the sessions of this one.
        [Can::Reopen, Can::Read, Can::Disturb, Can::Expose, Can::Complete].into()
    }
}

#[async_trait]
impl PluginPlace for Folder {
    async fn open(&self) -> Result<Arc<dyn ExchangePlugin>, BoxError> {
        Ok(Arc::new(FilesPlugin::new(self.folder.path(), host())?))
    }

    async fn read(&self, path: &HostPath) -> Result<Option<Vec<u8>>, BoxError> {
        match fs::read(path.to_native()?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn disturb(&self, copy: &CopyId) -> Result<(), BoxError> {
        let plugin = FilesPlugin::new(self.folder.path(), host())?;
        let cx = stillpoint_context::Cx::detached(&self.seams);
        let inventory = plugin.inventory(&cx, &Scope::Everything).await?;
        let files = &inventory.copies.get(copy).ok_or("there is no such copy")?.files;
        let database = files.iter().find(|file| file.role == FileRole::Database);
        let path = database.ok_or("it has no database file")?.path.to_native()?;
        // A time stamp has the grain of the kernel's tick; write until the next one has begun.
        let before = fs::metadata(&path)?.modified()?;
        let file = OpenOptions::new().write(true).open(&path)?;
        while fs::metadata(&path)?.modified()? == before {
            file.write_all_at(b"x", 100)?;
        }
        Ok(())
    }

    async fn expose(&self, _: &[RequiredFile]) -> Result<Exposure, BoxError> {
        // At rest they can be read where they are.
        let root = HostPath::from_native(host(), &self.folder.path().canonicalize()?)?;
        let snapshot = SnapshotRef::new("fs:volume".parse()?, SnapshotId::new("one")?);
        let roots = vec![ExposedRoot::new(snapshot, root.clone(), root)];
        Ok(Exposure::new(ExposureKey::new("one")?, host(), roots))
    }
}

#[test]
fn databases_at_rest_are_a_plug_in() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let folders = Folders(TokioSeams::on(runtime.handle().clone()));
    let report = runtime.block_on(plugin::run_all(&folders));
    report.assert_passed();
    assert!(report.passed().contains(&"a_broken_freeze_is_not_called_held"), "{report}");
}
