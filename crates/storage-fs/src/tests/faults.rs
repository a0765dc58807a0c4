//! Sources that change under the copy, calls that are cancelled, and a discard that comes while a commit runs.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use stillpoint_context::{Cancel, Cx, Effect, ErrorFacts, Progress, ProgressSink};
use stillpoint_model::id::SetToken;
use stillpoint_storage::{Discarded, Found, ProviderErrorKind, SnapshotProvider, SnapshotRestore};
use stillpoint_workflow::TokioSeams;

use super::support::{BIG, Calling, Lab, assert_kind, everything, names};
use crate::FsProvider;
use crate::commit::Claim;
use crate::disk::Op;
use crate::remove::Removal;

/// Does something once, before the second chunk of the big database is written.
fn in_mid_copy(
    work: impl Fn() + Send + Sync + 'static,
) -> Arc<Calling<impl Fn(Op, &Path) -> std::io::Result<()> + Send + Sync>> {
    let writes = AtomicUsize::new(0);
    Arc::new(Calling(move |op: Op, path: &Path| {
        if op == Op::Write
            && path.ends_with("DB01.edb")
            && writes.fetch_add(1, Ordering::SeqCst) == 1
        {
            work();
        }
        Ok(())
    }))
}

#[test]
fn a_file_that_changes_or_goes_under_the_copy_is_an_error() {
    use ProviderErrorKind::{Busy, Vanished};
    type Change = fn(&Path);
    let cases: [(&str, Change, ProviderErrorKind); 6] = [
        (
            "grew",
            |path| OpenOptions::new().append(true).open(path).unwrap().write_all(b"x").unwrap(),
            Busy,
        ),
        (
            "shrank",
            |path| {
                OpenOptions::new().write(true).open(path).unwrap().set_len(BIG as u64 - 1).unwrap();
            },
            Busy,
        ),
        ("shrank", |path| File::create(path).map(drop).unwrap(), Busy),
        ("not there", |path| fs::remove_file(path).unwrap(), Vanished),
        ("not there", |path| fs::rename(path, path.with_extension("old")).unwrap(), Vanished),
        (
            "replaced",
            |path| {
                fs::copy(path, path.with_extension("new")).unwrap();
                fs::rename(path.with_extension("new"), path).unwrap();
            },
            Vanished,
        ),
    ];
    for (word, change, kind) in cases {
        let lab = Lab::new();
        let source = lab.path("data/db one/DB01.edb");
        let provider = lab.hooked(in_mid_copy(move || change(&source)));
        let spec = lab.spec("t1");
        lab.run(async {
            let prepared = provider.prepare(&lab.cx, &spec).await.unwrap();
            let error = assert_kind(provider.commit(&lab.cx, &prepared).await, &kind);
            assert!(error.to_string().contains(word), "{error}");
            assert!(error.subjects().iter().any(|s| s.id.ends_with("DB01.edb")));
            assert!(matches!(
                provider.find(&lab.cx, &spec.token).await.unwrap(),
                Found::Partial(_)
            ));
            assert_kind(
                SnapshotProvider::settle(&provider, &lab.cx, &prepared).await,
                &ProviderErrorKind::NotFound,
            );
            assert_eq!(provider.discard(&lab.cx, &spec.token).await.unwrap(), Discarded::Gone);
        });
        assert_eq!(lab.sets(), Vec::<String>::new());
    }
}

#[test]
fn a_member_that_vanishes_before_the_commit_is_an_error() {
    let lab = Lab::new();
    let provider = lab.provider();
    let prepared = lab.run(provider.prepare(&lab.cx, &lab.spec("t1"))).unwrap();
    fs::remove_file(lab.path("logs/E00/E00.log")).unwrap();
    let error =
        assert_kind(lab.run(provider.commit(&lab.cx, &prepared)), &ProviderErrorKind::Vanished);
    assert!(error.to_string().contains("E00.log"), "{error}");
    // Put back, the same call takes the whole set anew.
    lab.write("logs/E00/E00.log", b"again");
    lab.run(async {
        provider.commit(&lab.cx, &prepared).await.unwrap();
        SnapshotProvider::settle(&provider, &lab.cx, &prepared).await.unwrap();
    });
    assert_eq!(everything(&lab.path("store/sets/t1/m1")), everything(&lab.path("logs")));
}

#[test]
fn cancel_stops_a_copy_and_a_restore_between_pieces() {
    let lab = Lab::new();
    lab.take(&lab.provider(), "t0");
    let cancel = Cancel::new();
    let cx =
        Cx::builder(&TokioSeams::on(lab.runtime.handle().clone())).cancel(cancel.clone()).build();
    let provider = lab.hooked(in_mid_copy({
        let cancel = cancel.clone();
        move || cancel.cancel()
    }));
    lab.run(async {
        let prepared = provider.prepare(&cx, &lab.spec("t1")).await.unwrap();
        let error =
            assert_kind(provider.commit(&cx, &prepared).await, &ProviderErrorKind::Cancelled);
        assert_eq!(error.effect(), Effect::Unknown);
        let copied =
            fs::metadata(lab.path("store/sets/t1.partial/m0/db one/DB01.edb")).unwrap().len();
        assert_eq!(copied, 1 << 20, "the piece that was under way, and no more");
        assert_eq!(provider.discard(&lab.cx, &prepared.token).await.unwrap(), Discarded::Gone);
    });
    assert_eq!(lab.sets(), ["t0"]);

    let cancel = Cancel::new();
    let cx =
        Cx::builder(&TokioSeams::on(lab.runtime.handle().clone())).cancel(cancel.clone()).build();
    let provider = lab.hooked(in_mid_copy(move || cancel.cancel()));
    let side: &dyn SnapshotRestore = &provider;
    let staged = lab.run(side.stage(&cx, &lab.restore_spec("r1", "t0", "target")));
    assert_kind(staged, &ProviderErrorKind::Cancelled);
    assert_eq!(names(&lab.path("target")), Vec::<String>::new(), "it cleans up by itself");
    assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());
}

#[derive(Debug, Default)]
struct Sink(Mutex<Vec<Progress>>);

impl ProgressSink for Sink {
    fn report(&self, progress: Progress) {
        self.0.lock().unwrap().push(progress);
    }
}

#[test]
fn copies_tell_how_far_they_are() {
    let lab = Lab::new();
    let sink = Arc::new(Sink::default());
    let cx = Cx::builder(&TokioSeams::on(lab.runtime.handle().clone()))
        .progress(Arc::clone(&sink) as _)
        .build();
    let mut config = lab.config();
    config.mode = crate::CloneMode::Copy;
    let provider = FsProvider::open(&config).unwrap();
    lab.run(async {
        let prepared = provider.prepare(&cx, &lab.spec("t1")).await.unwrap();
        provider.commit(&cx, &prepared).await.unwrap();
    });
    let told = sink.0.lock().unwrap();
    let of_database: Vec<_> =
        told.iter().filter(|p| p.what == "DB01.edb").map(|p| p.done).collect();
    assert_eq!(of_database, [1 << 20, 2 << 20, BIG as u64]);
}

/// A provider whose copy of the big database stands still in its middle, until it is told to go on.
struct Held {
    provider: FsProvider,
    reached: Receiver<()>,
    go_on: Sender<()>,
}

fn held(lab: &Lab) -> Held {
    let (reach, reached) = channel();
    let (go_on, gone_on) = channel();
    let gone_on = Mutex::new(gone_on);
    let provider = lab.hooked(in_mid_copy(move || {
        reach.send(()).unwrap();
        gone_on.lock().unwrap().recv().unwrap();
    }));
    Held { provider, reached, go_on }
}

#[test]
fn a_discard_during_a_commit_waits_or_watches_and_the_late_commit_leaves_nothing() {
    let lab = Lab::new();
    let Held { provider, reached, go_on } = held(&lab);
    let token = SetToken::new("t1").unwrap();
    let prepared = lab.run(provider.prepare(&lab.cx, &lab.spec("t1"))).unwrap();
    let late = lab.spawn({
        let (provider, cx, prepared) = (provider.clone(), lab.cx.clone(), prepared.clone());
        async move { provider.commit(&cx, &prepared).await }
    });
    reached.recv().unwrap();
    lab.run(async {
        let (cx, other) = (&lab.cx, lab.provider());
        assert!(matches!(other.find(cx, &token).await.unwrap(), Found::InFlight { .. }));
        // A repeated commit, and one of another process, do not join in.
        assert_kind(other.commit(cx, &prepared).await, &ProviderErrorKind::Busy);
        assert!(matches!(provider.discard(cx, &token).await.unwrap(), Discarded::WatchUntil(_)));
        assert!(matches!(provider.find(cx, &token).await.unwrap(), Found::InFlight { .. }));
        assert_kind(provider.prepare(cx, &lab.spec("t1")).await, &ProviderErrorKind::Busy);
        assert_kind(provider.commit(cx, &prepared).await, &ProviderErrorKind::Expired);
        go_on.send(()).unwrap();
        let error = assert_kind(late.await.unwrap(), &ProviderErrorKind::Expired);
        assert_eq!(error.code().as_str(), "storage.expired");
        assert_eq!(lab.sets(), Vec::<String>::new(), "the late commit has removed what it made");
        assert_eq!(provider.find(cx, &token).await.unwrap(), Found::Absent);
        assert_eq!(provider.discard(cx, &token).await.unwrap(), Discarded::Gone);
    });
}

#[test]
fn a_discard_waits_for_a_commit_that_stops_in_time() {
    let lab = Lab::new();
    let Held { provider, reached, go_on } = held(&lab);
    let prepared = lab.run(provider.prepare(&lab.cx, &lab.spec("t1"))).unwrap();
    // The future is dropped, as a step is at its cutoff; the copy goes on in its thread.
    let call = lab.spawn({
        let (provider, cx, prepared) = (provider.clone(), lab.cx.clone(), prepared.clone());
        async move { provider.commit(&cx, &prepared).await }
    });
    reached.recv().unwrap();
    call.abort();
    let discard = lab.spawn({
        let (other, cx, token) = (lab.provider(), lab.cx.clone(), prepared.token.clone());
        async move { other.discard(&cx, &token).await }
    });
    while lab.sets() != ["t1.discarded"] {
        std::thread::yield_now();
    }
    go_on.send(()).unwrap();
    assert_eq!(lab.run(discard).unwrap().unwrap(), Discarded::Gone);
    assert_eq!(lab.sets(), Vec::<String>::new());
}

#[test]
fn an_unstage_stops_a_stage_that_goes_on_after_it_was_dropped() {
    let lab = Lab::new();
    lab.take(&lab.provider(), "t1");
    let Held { provider, reached, go_on } = held(&lab);
    let spec = lab.restore_spec("r1", "t1", "target");
    let call = lab.spawn({
        let (provider, cx, spec) = (provider.clone(), lab.cx.clone(), spec.clone());
        async move { SnapshotRestore::stage(&provider, &cx, &spec).await }
    });
    reached.recv().unwrap();
    call.abort();
    let side: &dyn SnapshotRestore = &provider;
    lab.run(async {
        assert_kind(side.stage(&lab.cx, &spec).await, &ProviderErrorKind::Busy);
        let error = assert_kind(side.unstage(&lab.cx, &spec.key).await, &ProviderErrorKind::Busy);
        assert!(error.is_retryable() && error.retry_after().is_some());
        go_on.send(()).unwrap();
        let other = lab.provider();
        SnapshotRestore::retract(&other, &lab.cx, &spec.key).await.unwrap();
        SnapshotRestore::unstage(&other, &lab.cx, &spec.key).await.unwrap();
    });
    assert_eq!(names(&lab.path("target")), Vec::<String>::new());
    assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());
}

#[test]
fn commits_and_discards_that_race_end_in_one_of_two_ways() {
    let lab = Lab::new();
    for round in 0..60 {
        let (one, other) = (lab.provider(), lab.provider());
        let token = SetToken::new(format!("t{round}")).unwrap();
        let prepared = lab.run(one.prepare(&lab.cx, &lab.spec(token.as_str()))).unwrap();
        let started = Arc::new(AtomicBool::new(false));
        let commit = lab.spawn({
            let (cx, prepared, started) = (lab.cx.clone(), prepared.clone(), Arc::clone(&started));
            async move {
                started.store(true, Ordering::SeqCst);
                one.commit(&cx, &prepared).await?;
                SnapshotProvider::settle(&one, &cx, &prepared).await
            }
        });
        while !started.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        for _ in 0..round * 50 {
            std::thread::yield_now();
        }
        let discarded = lab.run(other.discard(&lab.cx, &token));
        let committed = lab.run(commit).unwrap();
        assert_eq!(discarded.unwrap(), Discarded::Gone);
        if let Err(error) = committed {
            assert_eq!(*error.kind(), ProviderErrorKind::Expired, "round {round}: {error}");
        }
        assert_eq!(lab.sets(), Vec::<String>::new(), "round {round}");
    }
}

/// Between the claim and the look at what was taken, a discard moves the set away: that is not "never taken".
#[test]
fn a_set_that_is_discarded_under_a_settle_has_expired() {
    let lab = Lab::new();
    let provider = lab.provider();
    let prepared = lab.run(provider.prepare(&lab.cx, &lab.spec("t1"))).unwrap();
    lab.run(provider.commit(&lab.cx, &prepared)).unwrap();
    let store = Arc::new(provider.into_store());
    let (claim, _plan) =
        Claim::take(&store, &lab.cx, &prepared.token, &store.nonce(&prepared).unwrap()).unwrap();
    assert!(claim.taken().unwrap().is_some());
    assert_eq!(store.discard(&lab.cx, &prepared.token).unwrap(), Removal::Waiting);
    assert_kind(claim.taken(), &ProviderErrorKind::Expired);
    drop(claim);
    assert_eq!(lab.sets(), Vec::<String>::new());
}

#[test]
fn what_was_not_settled_before_a_restart_of_the_machine_is_not_trusted() {
    let lab = Lab::new();
    let provider = lab.provider();
    let spec = lab.spec("t1");
    lab.run(async {
        let prepared = provider.prepare(&lab.cx, &spec).await.unwrap();
        provider.commit(&lab.cx, &prepared).await.unwrap();
        let path = lab.path("store/sets/t1.partial/taken.json");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(boot.trim(), "another-boot")).unwrap();
        let found = provider.find(&lab.cx, &spec.token).await.unwrap();
        assert!(
            matches!(&found, Found::Partial(s) if s.len() == 2 && s[0].tags["unsettled"] == "true"),
            "{found:?}"
        );
        let settled = SnapshotProvider::settle(&provider, &lab.cx, &prepared).await;
        let error = assert_kind(settled, &ProviderErrorKind::Expired);
        assert!(error.remedy().contains("restarted"));
        assert_kind(provider.commit(&lab.cx, &prepared).await, &ProviderErrorKind::Expired);
        assert_eq!(provider.discard(&lab.cx, &spec.token).await.unwrap(), Discarded::Gone);
    });
}

#[test]
fn what_was_damaged_before_it_was_settled_is_not_settled() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.run(async {
        let prepared = provider.prepare(&lab.cx, &lab.spec("t1")).await.unwrap();
        provider.commit(&lab.cx, &prepared).await.unwrap();
        let path = lab.path("store/sets/t1.partial/m1/E00/E00.log");
        OpenOptions::new().write(true).open(&path).unwrap().set_len(7).unwrap();
        let settled = SnapshotProvider::settle(&provider, &lab.cx, &prepared).await;
        assert_kind(settled, &ProviderErrorKind::Damaged);
    });
}

#[test]
fn sets_that_share_a_volume_are_taken_at_once() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.run(async {
        let sets = (0..8).map(|set| {
            let (provider, cx, spec) = (&provider, &lab.cx, lab.spec(&format!("t{set}")));
            async move {
                let prepared = provider.prepare(cx, &spec).await?;
                provider.commit(cx, &prepared).await?;
                SnapshotProvider::settle(provider, cx, &prepared).await
            }
        });
        for set in futures_util::future::join_all(sets).await {
            assert_eq!(set.unwrap().len(), 2);
        }
    });
    assert_eq!(lab.sets().len(), 8);
}
