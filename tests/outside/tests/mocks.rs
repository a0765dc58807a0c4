//! Backup logic tested with the mocks, without storage and without Exchange.

use std::num::NonZeroU32;

use chrono::DateTime;
use mockall::predicate::{always, eq};
use stillpoint::context::{HostId, HostPath, PathFlavor};
use stillpoint::exchange::{
    CopyId, Cx, DatabaseId, Inventory, MockExchangePlugin, PluginError, PluginErrorKind, Scope,
};
use stillpoint::model::availability::{Availability, Reason};
use stillpoint::model::inventory::{
    CopyFile, CopyRole, CopyStatus, Database, DatabaseCopy, FileRole,
};
use stillpoint::model::quiesce::QuiesceLevel;
use stillpoint::storage::{MockSnapshotProvider, Placement, VolumeFacts, VolumeRef};
use stillpoint::workflow::TokioSeams;
use stillpoint_outside::{Obstacle, obstacles};
use uuid::Uuid;

fn cx() -> Cx {
    Cx::detached(&TokioSeams::current().unwrap())
}

fn database(number: u128) -> DatabaseId {
    DatabaseId(Uuid::from_u128(number))
}

fn host() -> HostId {
    "ex1.example.org".parse().unwrap()
}

fn file(name: &str) -> HostPath {
    HostPath::new(host(), PathFlavor::Windows, format!(r"D:\Mail\{name}")).unwrap()
}

/// DB01 can be backed up, DB02 cannot.
fn inventory() -> Inventory {
    let now = DateTime::UNIX_EPOCH;
    let mut inventory = Inventory::new("1".parse().unwrap(), now);
    let refused = Availability::unavailable(now, vec![Reason::NotMounted]);
    for (number, availability) in [(1, Availability::available(now)), (2, refused)] {
        let id = CopyId::new(database(number), host());
        let status = CopyStatus::Mounted;
        let mut copy = DatabaseCopy::new(id, CopyRole::Active, status, availability);
        copy.files.push(CopyFile::new(file(&format!("DB0{number}.edb")), FileRole::Database));
        inventory.add_copy(copy);
        inventory.add_database(Database::new(database(number), format!("DB0{number}")));
    }
    inventory
}

fn volume() -> VolumeRef {
    "array:lun-7".parse().unwrap()
}

#[tokio::test]
async fn what_cannot_be_backed_up_and_a_full_volume_stand_in_the_way() {
    let mut plugin = MockExchangePlugin::new();
    plugin
        .expect_inventory()
        .with(always(), eq(Scope::Everything))
        .times(1)
        .returning(|_, _| Ok(inventory()));
    let mut provider = MockSnapshotProvider::new();
    provider.expect_resolve().withf(|_, files| files == [file("db01.EDB")]).times(1).returning(
        |_, files| Ok(vec![Placement::new(files[0].clone(), volume(), "Mail/DB01.edb")]),
    );
    provider.expect_volumes().times(1).returning(|_, volumes| {
        let mut facts = VolumeFacts::new(volumes[0].clone(), QuiesceLevel::App, None);
        facts.snapshots_used = 1020;
        facts.snapshot_limit = NonZeroU32::new(1023);
        Ok(vec![facts])
    });

    let found = obstacles(&cx(), &plugin, &provider, 7).await.unwrap();
    let reasons = vec![Reason::NotMounted.code()];
    assert_eq!(found, [Obstacle::Unavailable(database(2), reasons), Obstacle::NoRoom(volume(), 3)]);
}

#[tokio::test]
async fn a_file_on_foreign_storage_stands_in_the_way() {
    let mut plugin = MockExchangePlugin::new();
    plugin.expect_inventory().returning(|_, _| Ok(inventory()));
    let mut provider = MockSnapshotProvider::new();
    provider.expect_resolve().returning(|_, _| Ok(Vec::new()));
    provider.expect_volumes().returning(|_, volumes| {
        assert!(volumes.is_empty());
        Ok(Vec::new())
    });
    let found = obstacles(&cx(), &plugin, &provider, 1).await.unwrap();
    assert!(found.contains(&Obstacle::Elsewhere(database(1))), "{found:?}");
}

#[tokio::test]
async fn the_storage_is_not_asked_when_exchange_does_not_answer() {
    let mut plugin = MockExchangePlugin::new();
    plugin.expect_inventory().returning(|_, _| {
        Err(PluginError::new(PluginErrorKind::Unreachable, "the agent does not answer"))
    });
    // A mock without expectations panics when it is called.
    let provider = MockSnapshotProvider::new();
    let error = obstacles(&cx(), &plugin, &provider, 1).await.unwrap_err();
    assert!(error.to_string().contains("the agent does not answer"), "{error}");
}
