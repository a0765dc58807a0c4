//! The simulated provider holds and locks its snapshots, where its capabilities say so.

use stillpoint_storage::{
    Deleted, HoldName, ProviderErrorKind as Kind, SnapshotLock, SnapshotProvider,
};
use stillpoint_testkit::World;

use super::common::{Backup, Time, s};

#[test]
fn what_is_held_or_locked_stays_until_that_is_over() {
    let (time, world) = (Time::default(), World::one_server(1));
    let backup = Backup::new(&time, &world, 1, &["DB01"]);
    assert!(SnapshotProvider::lock(&backup.storage).is_none(), "it is a capability");
    let storage = world.storage().with_caps(|caps| caps.lock = true);
    time.run(async {
        let (_, snapshots) = backup.taken().await;
        let (cx, snapshot) = (&backup.cx, snapshots[0].reference());
        let side: &dyn SnapshotLock = SnapshotProvider::lock(&storage).unwrap();
        let refused = async || storage.delete(cx, &snapshot).await.unwrap_err().kind().clone();
        assert_eq!(side.keeps(cx, &snapshot).await.unwrap(), stillpoint_storage::Keeps::default());
        let [one, other] = ["case-1", "case-2"].map(|name| HoldName::new(name).unwrap());
        for name in [&one, &other, &one] {
            side.hold(cx, &snapshot, name).await.unwrap();
        }
        assert_eq!(
            side.keeps(cx, &snapshot).await.unwrap().holds,
            [one.clone(), other.clone()].into()
        );
        side.release(cx, &snapshot, &one).await.unwrap();
        assert_eq!(refused().await, Kind::Held);
        side.release(cx, &snapshot, &other).await.unwrap();

        let until = cx.now() + s(60);
        side.lock(cx, &snapshot, until).await.unwrap();
        side.lock(cx, &snapshot, until).await.unwrap();
        let shorter = side.lock(cx, &snapshot, until - s(1)).await.unwrap_err();
        assert_eq!(*shorter.kind(), Kind::Locked { until });
        let over = side.lock(cx, &snapshot, cx.now()).await.unwrap_err();
        assert_eq!(*over.kind(), Kind::Invalid);
        assert_eq!(refused().await, Kind::Locked { until });
        assert_eq!(side.keeps(cx, &snapshot).await.unwrap().locked_until, Some(until));
        cx.sleep(s(61)).await.unwrap();
        assert_eq!(side.keeps(cx, &snapshot).await.unwrap().locked_until, None);
        assert_eq!(storage.delete(cx, &snapshot).await.unwrap(), Deleted::Gone);
        let gone = side.keeps(cx, &snapshot).await.unwrap_err();
        assert_eq!(*gone.kind(), Kind::NotFound);
        let foreign = world.add_foreign_snapshot(&snapshot.volume, "foreign");
        assert_eq!(*side.hold(cx, &foreign, &one).await.unwrap_err().kind(), Kind::NotFound);
    });
}
