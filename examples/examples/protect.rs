//! The whole workflow through the library, in seven steps, on a folder of our own making:
//!
//! ```text
//! cargo run -p stillpoint-examples --example protect
//! ```

use std::error::Error;
use std::fs;
use std::num::NonZeroU32;
use std::sync::Arc;

use stillpoint::context::{HostId, HostPath, IdempotencyKey};
use stillpoint::exchange_files::FilesPlugin;
use stillpoint::model::group::{ResourceGroup, Selector};
use stillpoint::model::id::{GroupId, PolicyId, ProviderId, VolumeId};
use stillpoint::model::job::MemberEnd;
use stillpoint::model::kind::BackupKind;
use stillpoint::model::policy::{Policy, Retention};
use stillpoint::model::request::{BackupRequest, Target};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::storage_fs::{FsConfig, FsProvider};
use stillpoint::store_sqlite::SqliteStore;
use stillpoint::{JobEvent, Stillpoint};
use stillpoint_ese::write::ExchangeSet;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example is to be watched")]
async fn main() -> Result<(), Box<dyn Error>> {
    // A folder that looks like a server's: a database with its logs and checkpoint.
    let lab = tempfile::tempdir()?;
    let mail = lab.path().join("mail");
    fs::create_dir(&mail)?;
    let written = ExchangeSet::new(42).write_to(&mail)?;

    // What speaks for Exchange, what takes snapshots, and where the state is kept. All three are traits: bring your own.
    let host = HostId::new("lab")?;
    let plugin = FilesPlugin::new(&mail, host.clone())?;
    let store = FsConfig::new(ProviderId::new("fs")?, host.clone(), lab.path().join("store"))
        .with_volume(VolumeId::new("mail")?, &mail);
    let stillpoint = Stillpoint::builder(Arc::new(plugin))
        .provider(Arc::new(FsProvider::open(&store)?))
        .store(Arc::new(SqliteStore::open(lab.path().join("state.db"))?))
        .build()?;
    let new_id = || stillpoint.seams().ids.uuid();

    // 1. Strategy: what may be lost, and for how long copies are kept. Here: a fortnight of whole copies that leave no
    //    trace in Exchange. It becomes a policy below.
    let (kind, keep) = (BackupKind::Copy, NonZeroU32::MIN.saturating_add(13));

    // 2. Availability: what there is, and what stands in the way of backing it up.
    for copy in stillpoint.discover().await?.inventory.copies.values() {
        println!("{}: {} reasons against it", copy.id, copy.availability.reasons.len());
    }

    // 3. Policy: how things are protected. Every edit makes a version, and a restore point names the one it was made under.
    let mut policy = Policy::new(PolicyId(new_id()), "fortnight");
    policy.kind = kind;
    policy.retention = Retention::count(keep.get());
    stillpoint.save_policy(&policy).await?;

    // 4. Resource group: what is protected together.
    let mut group = ResourceGroup::new(GroupId(new_id()), "mail", vec![Selector::Everything]);
    group.policies.push(policy.id);
    stillpoint.save_group(&group).await?;

    // 5. Backup: first the plan, which changes nothing, then the job. The key makes a repeated request the same job.
    let key = IdempotencyKey::new("fortnight/2026-11-22")?;
    let request = BackupRequest::new(key, Target::Group(group.id), policy.id);
    println!("{}", stillpoint.plan(&request).await?);
    let handle = stillpoint.backup(request).await?;

    // 6. Monitor: events while it runs, the truth at its end.
    let mut watch = handle.watch();
    while let Some(event) = watch.next().await {
        if let JobEvent::Step { step, what, .. } = event {
            println!("{step}: {what}");
        }
    }
    let job = handle.wait().await;
    println!("the job {}", job.state());

    // 7. Topology: every copy of everything, and how far it can be trusted.
    println!("{}", stillpoint.topology().await?);

    // And what it is all for: each byte is checked before anything appears at the target.
    let made = job.runs.iter().flat_map(|run| &run.members).find_map(|member| match member.end {
        Some(MemberEnd::Point { point, .. }) => Some(point),
        _ => None,
    });
    let back = lab.path().join("back");
    let target = RestoreTarget::AlternatePath(HostPath::from_native(host, &back)?);
    let key = IdempotencyKey::new("restore/1")?;
    let request = RestoreRequest::new(key, made.ok_or("no restore point was made")?, target);
    let restored = stillpoint.restore(request).await?.wait().await;
    println!("the restore {}", restored.state());
    let original = fs::read(&written.database)?;
    let copy = fs::read(back.join("DB01.edb"))?;
    println!("byte for byte the same: {}", copy == original);
    if copy == original { Ok(()) } else { Err("the restored database differs".into()) }
}
