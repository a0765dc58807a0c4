//! Holds and locks: what is kept cannot be removed, and the refusal says by whom or until when.

use chrono::TimeDelta;
use stillpoint_context::{Effect, ErrorFacts};
use stillpoint_storage::{
    Deleted, Discarded, Found, HoldName, ProviderErrorKind, SnapshotLock, SnapshotProvider,
};

use super::support::{Failing, Lab, assert_kind, snapshot_ref};

fn name(text: &str) -> HoldName {
    HoldName::new(text).unwrap()
}

#[test]
fn a_held_snapshot_stays_until_the_last_hold_has_ended() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    let data = snapshot_ref("data", "t1");
    assert!(provider.caps().lock);
    let side = SnapshotProvider::lock(&provider).unwrap();
    lab.run(async {
        let cx = &lab.cx;
        side.hold(cx, &data, &name("case-1")).await.unwrap();
        side.hold(cx, &data, &name("case-1")).await.unwrap();
        side.hold(cx, &data, &name("case-2")).await.unwrap();
        // Known to another process, too.
        let other = lab.provider();
        let error = assert_kind(other.delete(cx, &data).await, &ProviderErrorKind::Held);
        assert!(error.to_string().contains("case-1, case-2"), "{error}");
        assert_eq!(error.effect(), Effect::None);
        // The set is removed whole or not at all.
        let discarded = other.discard(cx, &"t1".parse().unwrap()).await;
        assert_kind(discarded, &ProviderErrorKind::Held);
        // The other member is nobody's.
        assert_eq!(other.delete(cx, &snapshot_ref("logs", "t1")).await.unwrap(), Deleted::Gone);
        side.release(cx, &data, &name("case-1")).await.unwrap();
        side.release(cx, &data, &name("case-1")).await.unwrap();
        assert_kind(other.delete(cx, &data).await, &ProviderErrorKind::Held);
        side.release(cx, &data, &name("case-2")).await.unwrap();
        assert_eq!(other.delete(cx, &data).await.unwrap(), Deleted::Gone);
        let missing = side.hold(cx, &data, &name("case-1")).await;
        assert_kind(missing, &ProviderErrorKind::NotFound);
        assert_kind(side.keeps(cx, &data).await, &ProviderErrorKind::NotFound);
    });
}

#[test]
fn a_lock_is_never_shortened_and_its_end_is_said() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    let data = snapshot_ref("data", "t1");
    let side: &dyn SnapshotLock = &provider;
    lab.run(async {
        let cx = &lab.cx;
        let until = cx.now() + TimeDelta::days(30);
        side.lock(cx, &data, until).await.unwrap();
        side.lock(cx, &data, until).await.unwrap();
        assert_eq!(side.keeps(cx, &data).await.unwrap().locked_until, Some(until));
        let locked = ProviderErrorKind::Locked { until };
        let error = assert_kind(lab.provider().delete(cx, &data).await, &locked);
        assert!(error.to_string().contains(&until.to_string()), "{error}");
        assert_kind(lab.provider().discard(cx, &"t1".parse().unwrap()).await, &locked);
        assert_kind(side.lock(cx, &data, until - TimeDelta::seconds(1)).await, &locked);
        // No hold and no release makes it shorter.
        side.hold(cx, &data, &name("case-1")).await.unwrap();
        side.release(cx, &data, &name("case-1")).await.unwrap();
        assert_eq!(side.keeps(cx, &data).await.unwrap().locked_until, Some(until));
        let later = until + TimeDelta::days(1);
        side.lock(cx, &data, later).await.unwrap();
        assert_kind(provider.delete(cx, &data).await, &ProviderErrorKind::Locked { until: later });
        assert!(matches!(
            provider.find(cx, &"t1".parse().unwrap()).await.unwrap(),
            Found::Complete(_)
        ));
        let logs = snapshot_ref("logs", "t1");
        let over = side.lock(cx, &logs, cx.now() - TimeDelta::seconds(1)).await;
        assert_kind(over, &ProviderErrorKind::Invalid);
        assert_eq!(side.keeps(cx, &logs).await.unwrap().locked_until, None);
    });
}

#[test]
fn a_lock_that_is_over_keeps_nothing() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    let data = snapshot_ref("data", "t1");
    let side: &dyn SnapshotLock = &provider;
    lab.run(async {
        // Ordered by what the clock says, not by how long anything takes.
        let until = lab.cx.now() + TimeDelta::milliseconds(50);
        match side.lock(&lab.cx, &data, until).await {
            Ok(()) => {}
            // So slow a machine that it was over before it began.
            Err(error) => assert_eq!(*error.kind(), ProviderErrorKind::Invalid, "{error}"),
        }
        while lab.cx.now() <= until {
            lab.cx.sleep(std::time::Duration::from_millis(5)).await.unwrap();
        }
        assert_eq!(
            provider.discard(&lab.cx, &"t1".parse().unwrap()).await.unwrap(),
            Discarded::Gone
        );
    });
}

#[test]
fn a_hold_that_dies_anywhere_is_there_or_not() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    let data = snapshot_ref("data", "t1");
    let mut died = 0;
    for changes in 0.. {
        let dying = lab.hooked(Failing::dead_after(changes));
        let side: &dyn SnapshotLock = &dying;
        let result = lab.run(side.hold(&lab.cx, &data, &name("case-1")));
        let fresh = lab.provider();
        let kept = lab.run(SnapshotLock::keeps(&fresh, &lab.cx, &data)).unwrap();
        let is_held = kept.holds.contains(&name("case-1"));
        if result.is_ok() {
            assert!(is_held);
            break;
        }
        died += 1;
        lab.run(SnapshotLock::release(&fresh, &lab.cx, &data, &name("case-1"))).unwrap();
    }
    assert!(died > 3, "only {died} places");
}
