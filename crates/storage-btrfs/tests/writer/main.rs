//! Files that change at full speed while they are backed up: each restore point, exposed, is byte for byte what the writer had
//! declared quiesced. The same without holding the writer, and with a provider that takes its snapshots late, is caught.
//!
//! A few backups on each file system; `WRITER_BACKUPS=200` for the long form. Skipped without root, unless
//! `STILLPOINT_REQUIRE` has the file system in it.

// Tests may panic; their helpers are no test functions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::future_not_send
)]
#![forbid(unsafe_code)]

#[path = "../inside/mod.rs"]
mod inside;
mod writer;

use std::path::Path;

use stillpoint_context::{Cx, HostPath};
use stillpoint_storage::{
    Discarded, ExposureKey, MemberRole, MemberSpec, PrepareSpec, Prepared, ProviderErrorKind,
    ProviderResult, Snapshot, SnapshotProvider, VolumeRef,
};
use stillpoint_storage_btrfs::{BtrfsConfig, BtrfsProvider};
use stillpoint_storage_fs::{CloneMode, FsConfig, FsProvider};
use stillpoint_workflow::TokioSeams;

use inside::{inside, mount_new, run};
use writer::{Content, Writer};

/// How a backup is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// As it should be.
    Held,
    /// Nobody holds the writer.
    NotHeld,
    /// The provider answers at once and takes the snapshot later.
    Late,
}

/// A provider that answers `commit` before it has taken anything.
struct Late<'a>(&'a dyn SnapshotProvider);

impl Late<'_> {
    async fn settle(&self, cx: &Cx, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
        self.0.commit(cx, prepared).await?;
        self.0.settle(cx, prepared).await
    }
}

/// How many backups are made.
fn backups() -> usize {
    let asked = std::env::var("WRITER_BACKUPS").ok();
    asked.map_or(8, |text| text.parse().expect("WRITER_BACKUPS is a number"))
}

struct Bench<'a> {
    provider: &'a dyn SnapshotProvider,
    volume: VolumeRef,
    folder: &'a Path,
    cx: Cx,
    writer: Writer,
}

impl Bench<'_> {
    fn spec(&self, token: &str) -> PrepareSpec {
        let files = Writer::FILES.iter().map(|name| self.host_path(name)).collect();
        let member = MemberSpec::new(self.volume.clone(), MemberRole::DataAndLog, files);
        PrepareSpec::new(token.parse().unwrap(), token).with_member(member)
    }

    fn host_path(&self, name: &str) -> HostPath {
        HostPath::from_native("lab".parse().unwrap(), &self.folder.join(name)).unwrap()
    }

    /// Makes one backup, and gives what was declared and the snapshots.
    async fn back_up(
        &self,
        token: &str,
        manner: Manner,
    ) -> (Content, ProviderResult<Vec<Snapshot>>) {
        let cx = &self.cx;
        let prepared = self.provider.prepare(cx, &self.spec(token)).await.unwrap();
        let held = self.writer.hold();
        let declared = held.content();
        if manner == Manner::Held {
            self.provider.commit(cx, &prepared).await.unwrap();
            drop(held);
            return (declared, self.provider.settle(cx, &prepared).await);
        }
        // It goes on before anything is taken.
        drop(held);
        self.writer.wait_for_rounds(2);
        let outcome = match manner {
            Manner::Late => Late(self.provider).settle(cx, &prepared).await,
            _ => match self.provider.commit(cx, &prepared).await {
                Ok(_) => self.provider.settle(cx, &prepared).await,
                Err(error) => Err(error),
            },
        };
        (declared, outcome)
    }

    /// What the snapshots hold, as somebody reads it to whom they are exposed.
    async fn exposed(&self, snapshots: &[Snapshot]) -> Content {
        let all: Vec<_> = snapshots.iter().map(Snapshot::reference).collect();
        let (host, key) = ("lab".parse().unwrap(), ExposureKey::new("look").unwrap());
        let exposure = self.provider.expose(&self.cx, &all, &host, &key).await.unwrap();
        let content = Writer::FILES.iter().map(|name| {
            let exposed = exposure.find(&self.host_path(name)).unwrap();
            std::fs::read(exposed.to_native().unwrap()).unwrap()
        });
        let content = content.collect();
        self.provider.unexpose(&self.cx, &key).await.unwrap();
        content
    }

    async fn check(&self) {
        let mut kept: Vec<(String, Content, Vec<Snapshot>)> = Vec::new();
        for number in 0..backups() {
            let token = format!("held-{number}");
            let (declared, snapshots) = self.back_up(&token, Manner::Held).await;
            let snapshots = snapshots.unwrap();
            assert!(
                self.exposed(&snapshots).await == declared,
                "backup {number} is not what it was"
            );
            kept.push((token, declared, snapshots));
            if kept.len() > 3 {
                self.check_and_remove(kept.remove(0)).await;
            }
        }
        // Also after everything that was written and removed since.
        for each in kept {
            self.check_and_remove(each).await;
        }
        for manner in [Manner::NotHeld, Manner::Late] {
            for number in 0..3 {
                let token = format!("{number}-{manner:?}").to_lowercase();
                let (declared, snapshots) = self.back_up(&token, manner).await;
                let caught = match snapshots {
                    Ok(snapshots) => self.exposed(&snapshots).await != declared,
                    // The provider itself has seen a file grow or shrink.
                    Err(error) => *error.kind() == ProviderErrorKind::Busy,
                };
                assert!(caught, "{manner:?}: the writer went on, and nobody saw it");
            }
        }
        assert!(self.writer.rounds() > 20, "the writer went on meanwhile");
        println!("{} backups, {} rounds of writing", backups(), self.writer.rounds());
    }

    async fn check_and_remove(
        &self,
        (token, declared, snapshots): (String, Content, Vec<Snapshot>),
    ) {
        assert!(self.exposed(&snapshots).await == declared, "{token} has changed since");
        let token = token.parse().unwrap();
        assert_eq!(self.provider.discard(&self.cx, &token).await.unwrap(), Discarded::Gone);
    }
}

/// Makes the volume and the provider on a new file system, and checks.
fn check(kind: &str, make: impl FnOnce(&Path, &Path) -> (Box<dyn SnapshotProvider>, VolumeRef)) {
    let place = tempfile::tempdir().unwrap();
    let at = mount_new(kind, place.path());
    let folder = at.join("mail");
    if kind == "btrfs" {
        run("btrfs", &["subvolume", "create", folder.to_str().unwrap()]);
    } else {
        std::fs::create_dir(&folder).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let cx = Cx::detached(&TokioSeams::on(runtime.handle().clone()));
    let writer = Writer::start(&folder);
    let (provider, volume) = make(&folder, &at.join("store"));
    assert!(provider.caps().instant);
    let bench = Bench { provider: &*provider, volume, folder: &folder, cx, writer };
    runtime.block_on(bench.check());
}

fn reflinks(folder: &Path, store: &Path) -> (Box<dyn SnapshotProvider>, VolumeRef) {
    let config = FsConfig::new("fs".parse().unwrap(), "lab".parse().unwrap(), store)
        .with_volume("mail".parse().unwrap(), folder)
        .with_mode(CloneMode::Reflink);
    (Box::new(FsProvider::open(&config).unwrap()), "fs:mail".parse().unwrap())
}

#[test]
fn restore_points_on_btrfs_are_what_the_writer_had_declared() {
    let test = "restore_points_on_btrfs_are_what_the_writer_had_declared";
    inside("btrfs", test, || {
        check("btrfs", |folder, store| {
            let config = BtrfsConfig::new("btrfs".parse().unwrap(), "lab".parse().unwrap(), store);
            let provider = BtrfsProvider::open(&config.with_volume(folder)).unwrap();
            let volume = provider.volume(folder).unwrap();
            (Box::new(provider), volume)
        });
    });
}

#[test]
fn reflinks_on_btrfs_are_what_the_writer_had_declared() {
    let test = "reflinks_on_btrfs_are_what_the_writer_had_declared";
    inside("btrfs", test, || check("btrfs", reflinks));
}

#[test]
fn reflinks_on_xfs_are_what_the_writer_had_declared() {
    let test = "reflinks_on_xfs_are_what_the_writer_had_declared";
    inside("xfs", test, || check("xfs", reflinks));
}
