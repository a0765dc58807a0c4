//! Backup by snapshots of a btrfs subvolume, and restore out of one: in the folder that it is given it makes a subvolume with a
//! database in it, and takes everything away in the end.
//!
//! ```text
//! cargo build -p stillpoint-examples --example btrfs
//! sudo target/debug/examples/btrfs /mnt/pool
//! ```
//!
//! Without a folder on a btrfs, or without root, it says what it needs and ends well.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use stillpoint::context::{HostId, HostPath, IdempotencyKey};
use stillpoint::exchange_files::FilesPlugin;
use stillpoint::model::id::{PolicyId, ProviderId};
use stillpoint::model::job::{JobState, MemberEnd};
use stillpoint::model::kind::BackupKind;
use stillpoint::model::policy::Policy;
use stillpoint::model::request::BackupRequest;
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::storage_btrfs::{BtrfsConfig, BtrfsProvider};
use stillpoint::store_sqlite::SqliteStore;
use stillpoint::{Stillpoint, storage_fs};
use stillpoint_ese::write::ExchangeSet;

/// What it makes, so that nothing of anybody else's is in its way.
const PLACE: &str = "stillpoint-example";

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example is to be watched")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(folder) = std::env::args_os().nth(1) else {
        println!("It needs a folder on a mounted btrfs, and root: name the folder.");
        return Ok(());
    };
    let place = Path::new(&folder).join(PLACE);
    if place.exists() {
        println!("It makes {} itself, and that is there already.", place.display());
        return Ok(());
    }
    if let Err(error) = fs::create_dir(&place) {
        println!("It needs a folder on a mounted btrfs, and root: {}: {error}.", place.display());
        return Ok(());
    }
    let done = match ready(&place) {
        Ok(()) => protect(&place).await,
        Err(why) => {
            println!("It needs a folder on a mounted btrfs, root, and the command `btrfs`: {why}.");
            Ok(())
        }
    };
    // Whatever happened: snapshots are subvolumes, and go as such.
    let removed = remove(&place);
    done.and(removed)
}

/// Makes the subvolume, and asks whether snapshots can be taken of it.
fn ready(place: &Path) -> Result<(), Box<dyn Error>> {
    let mail = place.join("mail");
    btrfs(&["subvolume", "create"], &mail)?;
    Ok(BtrfsProvider::check(&config(&mail, &place.join("store"))?)?)
}

fn config(volume: &Path, store: &Path) -> Result<BtrfsConfig, Box<dyn Error>> {
    let provider = ProviderId::new("btrfs")?;
    Ok(BtrfsConfig::new(provider, HostId::new("lab")?, store).with_volume(volume))
}

#[allow(clippy::print_stdout, reason = "an example is to be watched")]
async fn protect(place: &Path) -> Result<(), Box<dyn Error>> {
    // A database in the subvolume, and a store beside that on the same file system.
    let (mail, store) = (place.join("mail"), place.join("store"));
    let written = ExchangeSet::new(42).write_to(&mail)?;
    let original = fs::read(&written.database)?;

    let provider = BtrfsProvider::open(&config(&mail, &store)?)?;
    let stillpoint = Stillpoint::builder(Arc::new(FilesPlugin::new(&mail, HostId::new("lab")?)?))
        .provider(Arc::new(provider))
        .store(Arc::new(SqliteStore::open(place.join("state.db"))?))
        .build()?;
    let mut policy = Policy::new(PolicyId(stillpoint.seams().ids.uuid()), "snapshots");
    policy.kind = BackupKind::Copy;
    stillpoint.save_policy(&policy).await?;

    // Two backups: each takes milliseconds, however large the subvolume is, and shares every block with it.
    let mut points = Vec::new();
    for number in 1..=2 {
        let key = IdempotencyKey::new(format!("backup/{number}"))?;
        let job = stillpoint.backup(BackupRequest::everything(key, policy.id)).await?.wait().await;
        println!("backup {number} {}", job.state());
        points.extend(job.runs.iter().flat_map(|run| &run.members).filter_map(|member| {
            match member.end {
                Some(MemberEnd::Point { point, .. }) => Some(point),
                _ => None,
            }
        }));
    }
    println!("{}", stillpoint.topology().await?);

    // What was lost comes back out of the first of them.
    fs::write(&written.database, b"overwritten by mistake")?;
    let back = place.join("back");
    let target = RestoreTarget::AlternatePath(HostPath::from_native(HostId::new("lab")?, &back)?);
    let first = points.first().copied().ok_or("no restore point was made")?;
    let request = RestoreRequest::new(IdempotencyKey::new("restore/1")?, first, target);
    let restored = stillpoint.restore(request).await?.wait().await;
    println!("the restore {}", restored.state());
    let is_same = fs::read(back.join("DB01.edb"))? == original;
    println!("byte for byte the same: {is_same}");
    if is_same && restored.state() == JobState::Succeeded {
        Ok(())
    } else {
        Err("the restored database differs".into())
    }
}

/// Deletes the subvolumes, then the folder.
fn remove(place: &Path) -> Result<(), Box<dyn Error>> {
    let sets = place.join("store/sets");
    if storage_fs::is_store(&place.join("store")) {
        for set in fs::read_dir(sets)? {
            let snapshot = set?.path().join("m0/v");
            if snapshot.exists() {
                btrfs(&["subvolume", "delete"], &snapshot)?;
            }
        }
    }
    let mail = place.join("mail");
    if mail.exists() {
        btrfs(&["subvolume", "delete"], &mail)?;
    }
    Ok(fs::remove_dir_all(place)?)
}

fn btrfs(words: &[&str], path: &Path) -> Result<(), Box<dyn Error>> {
    let output = Command::new("btrfs").args(words).arg(path).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("btrfs {} {}: {}", words.join(" "), path.display(), said.trim()).into())
}
