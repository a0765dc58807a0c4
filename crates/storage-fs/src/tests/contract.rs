//! The contracts S1–S9 on real files.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stillpoint_context::{Effect, ErrorFacts};
use stillpoint_model::handover::MemberRole;
use stillpoint_model::id::{ExposureKey, SetToken};
use stillpoint_storage::{
    Deleted, Discarded, DocName, Found, ProviderErrorKind, Snapshot, SnapshotProvider,
};

use super::support::{
    Lab, Trace, assert_kind, everything, mode, names, noise, snapshot_ref, tree, volume_ref,
};
use crate::disk::Op;

#[test]
fn a_set_goes_the_whole_way_and_leaves_nothing() {
    let lab = Lab::on_disk();
    let cx = lab.cx.clone();
    let provider = lab.provider();
    lab.run(async {
        let spec = lab.spec("t1");
        assert_eq!(provider.find(&cx, &spec.token).await.unwrap(), Found::Absent);
        let prepared = provider.prepare(&cx, &spec).await.unwrap();
        assert_eq!(provider.find(&cx, &spec.token).await.unwrap(), Found::Absent);
        let members = provider.commit(&cx, &prepared).await.unwrap();
        assert_eq!(members.len(), 2);
        assert!(members[0].taken_at <= members[1].taken_at, "data before logs (S9)");
        assert!(matches!(provider.find(&cx, &spec.token).await.unwrap(), Found::Complete(s) if s.len() == 2));

        let snapshots = provider_settle(&provider, &cx, &prepared).await;
        assert_eq!(provider.find(&cx, &spec.token).await.unwrap(), Found::Complete(snapshots.clone()));
        let data = &snapshots[0];
        assert_eq!((data.name.as_str(), data.tags["run"].as_str()), ("stillpoint-t1", "r1"));
        assert_eq!(data.files.len(), 3);
        for file in &data.files {
            let bytes = fs::read(file.path.to_native().unwrap()).unwrap();
            file.seal.as_ref().unwrap().check_all(&bytes).unwrap();
        }
        let listing = provider.list(&cx, &volume_ref("data"), None).await.unwrap();
        assert_eq!((listing.snapshots, listing.next), (vec![data.clone()], None));

        let key = ExposureKey::new("k.1").unwrap();
        let references: Vec<_> = snapshots.iter().map(Snapshot::reference).collect();
        let exposure =
            provider.expose(&cx, &references, &"lab".parse().unwrap(), &key).await.unwrap();
        for volume in ["data", "logs"] {
            for (file, bytes) in tree(&lab.path(volume)) {
                let original = lab.host_path(&format!("{volume}/{file}"));
                let exposed = exposure.find(&original).unwrap().to_native().unwrap();
                assert_eq!(fs::read(&exposed).unwrap(), bytes.0);
                assert_eq!(mode(&exposed) & 0o222, 0, "read-only (S4)");
                assert_eq!(mode(exposed.parent().unwrap()) & 0o222, 0);
            }
        }
        // Another process sees it, and nothing that is exposed goes.
        let other = lab.provider();
        assert_eq!(other.exposures(&cx).await.unwrap(), vec![exposure.clone()]);
        assert_kind(other.delete(&cx, &references[0]).await, &ProviderErrorKind::Dependents);
        assert_kind(other.discard(&cx, &spec.token).await, &ProviderErrorKind::Dependents);
        other.unexpose(&cx, &key).await.unwrap();
        assert_eq!(provider.exposures(&cx).await.unwrap(), vec![]);

        assert_eq!(provider.delete(&cx, &references[0]).await.unwrap(), Deleted::Gone);
        assert_eq!(
            provider.find(&cx, &spec.token).await.unwrap(),
            Found::Partial(vec![snapshots[1].clone()])
        );
        assert_kind(
            provider.expose(&cx, &references[..1], &"lab".parse().unwrap(), &key).await,
            &ProviderErrorKind::NotFound,
        );
        assert_eq!(provider.delete(&cx, &references[1]).await.unwrap(), Deleted::Gone);
        assert_eq!(provider.find(&cx, &spec.token).await.unwrap(), Found::Absent);
    });
    assert_eq!(lab.sets(), Vec::<String>::new());
}

#[test]
fn every_call_may_be_repeated() {
    let (lab, cx) = with_cx();
    let provider = lab.provider();
    lab.run(async {
        let spec = lab.spec("t1");
        let first = provider.prepare(&cx, &spec).await.unwrap();
        let prepared = provider.prepare(&cx, &spec).await.unwrap();
        assert_eq!(first.members, prepared.members);
        assert_kind(provider.commit(&cx, &first).await, &ProviderErrorKind::Expired);
        assert_kind(settle(&provider, &cx, &prepared).await, &ProviderErrorKind::NotFound);
        let members = provider.commit(&cx, &prepared).await.unwrap();
        assert_eq!(provider.commit(&cx, &prepared).await.unwrap(), members);
        let snapshots = provider_settle(&provider, &cx, &prepared).await;
        assert_eq!(provider_settle(&provider, &cx, &prepared).await, snapshots);
        assert_eq!(provider.commit(&cx, &prepared).await.unwrap(), members);
        // Prepared again it is the same set, and another set under its token is refused.
        let again = provider.prepare(&cx, &spec).await.unwrap();
        assert_eq!((&again.members, &again.opaque), (&prepared.members, &prepared.opaque));
        let mut other = lab.spec("t1");
        other.members.pop();
        assert_kind(provider.prepare(&cx, &other).await, &ProviderErrorKind::NameTaken);

        let key = ExposureKey::new("k").unwrap();
        let host = "lab".parse().unwrap();
        let data = [snapshot_ref("data", "t1")];
        let exposure = provider.expose(&cx, &data, &host, &key).await.unwrap();
        assert_eq!(provider.expose(&cx, &data, &host, &key).await.unwrap(), exposure);
        let logs = [snapshot_ref("logs", "t1")];
        assert_kind(provider.expose(&cx, &logs, &host, &key).await, &ProviderErrorKind::NameTaken);
        let elsewhere = provider.expose(&cx, &logs, &"proxy".parse().unwrap(), &key).await;
        assert_kind(elsewhere, &ProviderErrorKind::Unsupported("expose"));
        for _ in 0..2 {
            provider.unexpose(&cx, &key).await.unwrap();
        }
        for _ in 0..2 {
            assert_eq!(provider.discard(&cx, &spec.token).await.unwrap(), Discarded::Gone);
            assert_eq!(provider.delete(&cx, &data[0]).await.unwrap(), Deleted::Gone);
        }
        // A discarded set never comes back.
        let late = assert_kind(provider.commit(&cx, &prepared).await, &ProviderErrorKind::Expired);
        assert_eq!(late.effect(), Effect::None);
        assert_kind(settle(&provider, &cx, &prepared).await, &ProviderErrorKind::Expired);
        let unknown = SetToken::new("never-was").unwrap();
        assert_eq!(provider.discard(&cx, &unknown).await.unwrap(), Discarded::Gone);
    });
    assert_eq!(lab.sets(), Vec::<String>::new());
}

#[test]
fn a_limit_is_refused_where_files_are_copied() {
    let (lab, cx) = with_cx();
    let mut config = lab.config();
    config.mode = crate::CloneMode::Copy;
    let provider = crate::FsProvider::open(&config).unwrap();
    assert!(!provider.caps().instant);
    let spec = lab.spec("t1").with_limit(Some(Duration::from_secs(10)));
    let error = assert_kind(
        lab.run(provider.prepare(&cx, &spec)),
        &ProviderErrorKind::Unsupported("instant"),
    );
    assert_eq!((error.code().as_str(), error.effect()), ("storage.unsupported", Effect::None));
    assert!(error.subjects().iter().any(|subject| subject.kind == "volume"));
    assert_eq!(lab.sets(), Vec::<String>::new(), "a refusal leaves nothing");
}

#[test]
fn commit_syncs_nothing_and_settle_syncs_everything_before_the_name() {
    let (lab, cx) = with_cx();
    let trace = Arc::new(Trace::default());
    let provider = lab.hooked(Arc::clone(&trace) as _);
    let prepared = lab.run(provider.prepare(&cx, &lab.spec("t1"))).unwrap();
    trace.drain();
    lab.run(provider.commit(&cx, &prepared)).unwrap();
    let ops = trace.drain();
    assert!(ops.iter().all(|(op, _)| !matches!(op, Op::Sync | Op::SyncDir)), "{ops:?}");
    let order: Vec<_> = ops.iter().filter(|(op, _)| *op == Op::Create).map(|(_, p)| p).collect();
    let place = |part: &str| order.iter().rposition(|path| path.to_str().unwrap().contains(part));
    assert!(place("/m0/") < order.iter().position(|p| p.to_str().unwrap().contains("/m1/")));

    lab.run(settle(&provider, &cx, &prepared)).unwrap();
    let ops = trace.drain();
    let named = ops
        .iter()
        .position(|(op, path)| *op == Op::Rename && path.ends_with("sets/t1"))
        .expect("the set gets its name");
    let synced =
        |wanted: Op, path: &Path| ops[..named].iter().any(|(op, at)| *op == wanted && at == path);
    let partial = lab.path("store/sets/t1.partial");
    let settled = lab.path("store/sets/t1");
    for name in everything(&settled).into_keys() {
        let path = partial.join(name.trim_end_matches('/'));
        if name.ends_with('/') {
            assert!(synced(Op::SyncDir, &path), "{name} is synced");
        } else if name != "lock" && name != "set.json" {
            assert!(synced(Op::Sync, &path), "{name} is synced");
        }
    }
    assert!(synced(Op::Sync, &partial.join(".set.json.new")));
    assert!(synced(Op::SyncDir, &partial));
    let sets = lab.path("store/sets");
    assert!(ops[named..].iter().any(|(op, path)| *op == Op::SyncDir && *path == sets));
    assert_eq!(names(&settled), ["lock", "m0", "m1", "set.json"]);
}

#[test]
fn what_is_not_ours_is_listed_and_never_touched() {
    let (lab, cx) = with_cx();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    lab.write("store/sets/photos/a.jpg", b"mine");
    lab.write("store/sets/stray", b"mine");
    lab.write("store/sets/t2.partial/letter", b"mine");
    lab.write("store/sets/t3.discarded/letter", b"mine");
    lab.write("store/docs/.hidden", b"mine");
    lab.write("store/exposures/note.txt", b"mine");
    lab.write("store/exposures/k.json", b"{}");
    lab.write("store/notes", b"mine");
    let before = everything(&lab.path("store"));
    lab.run(async {
        let listing = provider.list(&cx, &volume_ref("data"), None).await.unwrap();
        let foreign: Vec<_> = listing.snapshots.iter().filter(|s| s.token.is_none()).collect();
        let ids: Vec<_> = foreign.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids, ["photos", "stray", "t2.partial", "t3.discarded"]);
        for snapshot in foreign {
            assert_kind(
                provider.delete(&cx, &snapshot.reference()).await,
                &ProviderErrorKind::Invalid,
            );
        }
        for token in ["photos", "stray", "t2"] {
            let token = SetToken::new(token).unwrap();
            assert_eq!(provider.discard(&cx, &token).await.unwrap(), Discarded::Gone);
            assert_eq!(provider.find(&cx, &token).await.unwrap(), Found::Absent);
            assert_kind(
                provider.prepare(&cx, &lab.spec(token.as_str())).await,
                &ProviderErrorKind::NameTaken,
            );
        }
        let t3 = SetToken::new("t3").unwrap();
        assert_kind(provider.discard(&cx, &t3).await, &ProviderErrorKind::NameTaken);
        assert_eq!(provider.list_docs(&cx).await.unwrap(), vec![]);
        assert_eq!(provider.exposures(&cx).await.unwrap(), vec![]);
        let key = ExposureKey::new("k").unwrap();
        provider.unexpose(&cx, &key).await.unwrap();
        let data = [snapshot_ref("data", "t1")];
        let over = provider.expose(&cx, &data, &"lab".parse().unwrap(), &key).await;
        assert_kind(over, &ProviderErrorKind::NameTaken);
    });
    assert_eq!(everything(&lab.path("store")), before);
    // Also not what somebody put into a folder of ours.
    lab.write("store/sets/t1/letter", b"mine");
    let token = SetToken::new("t1").unwrap();
    let error = assert_kind(lab.run(provider.discard(&cx, &token)), &ProviderErrorKind::NameTaken);
    assert_eq!(error.effect(), Effect::None);
    assert_kind(
        lab.run(async {
            provider.delete(&cx, &snapshot_ref("data", "t1")).await?;
            provider.delete(&cx, &snapshot_ref("logs", "t1")).await
        }),
        &ProviderErrorKind::NameTaken,
    );
    assert!(lab.path("store/sets/t1/letter").exists());
}

#[test]
fn a_listing_comes_page_by_page() {
    let lab = Lab::new();
    let trace = Arc::new(Trace::default());
    let provider = lab.hooked(trace as _);
    for set in 0..8 {
        lab.take(&provider, &format!("t{set}"));
    }
    lab.run(async {
        let (mut seen, mut pages, mut page) = (Vec::new(), 0, None);
        loop {
            let listing = provider.list(&lab.cx, &volume_ref("logs"), page).await.unwrap();
            seen.extend(listing.snapshots.into_iter().map(|s| s.id.to_string()));
            pages += 1;
            page = listing.next;
            if page.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..8).map(|set| format!("t{set}")).collect::<Vec<_>>());
        assert_eq!(pages, 3);
        let wrong = provider.list(&lab.cx, &volume_ref("logs"), Some("7".into())).await;
        assert_kind(wrong, &ProviderErrorKind::Invalid);
        let unknown = provider.list(&lab.cx, &volume_ref("other"), None).await;
        assert_kind(unknown, &ProviderErrorKind::NotFound);
        let facts = provider.volumes(&lab.cx, &[volume_ref("data")]).await.unwrap();
        assert_eq!((facts[0].snapshots_used, facts[0].snapshot_limit), (8, None));
        assert!(facts[0].free_bytes > Some(0));
        assert_kind(
            provider.volumes(&lab.cx, &[volume_ref("other")]).await,
            &ProviderErrorKind::NotFound,
        );
    });
}

#[test]
fn documents_are_put_whole_and_found_by_another_process() {
    let (lab, cx) = with_cx();
    let provider = lab.provider();
    lab.run(async {
        let (a, b) = (DocName::new("point-a.json").unwrap(), DocName::new("B").unwrap());
        assert_eq!(provider.get_doc(&cx, &a).await.unwrap(), None);
        provider.put_doc(&cx, &a, b"one").await.unwrap();
        provider.put_doc(&cx, &a, b"tw").await.unwrap();
        provider.put_doc(&cx, &b, &noise(100_000)).await.unwrap();
        let other = lab.provider();
        assert_eq!(other.list_docs(&cx).await.unwrap(), vec![b.clone(), a.clone()]);
        assert_eq!(other.get_doc(&cx, &a).await.unwrap().as_deref(), Some(&b"tw"[..]));
        for _ in 0..2 {
            other.delete_doc(&cx, &a).await.unwrap();
        }
        assert_eq!(provider.list_docs(&cx).await.unwrap(), vec![b]);
    });
    assert_eq!(names(&lab.path("store/docs")), ["B"]);
}

#[test]
fn documents_put_at_once_are_never_mixed() {
    let (lab, cx) = with_cx();
    let name = DocName::new("d").unwrap();
    let providers: Vec<_> = (0..4).map(|_| lab.provider()).collect();
    lab.run(async {
        for round in 0..20_u8 {
            let puts = providers.iter().enumerate().map(|(i, provider)| {
                let bytes = vec![round * 4 + u8::try_from(i).unwrap(); 10_000 + i];
                let (cx, name) = (&cx, &name);
                async move { provider.put_doc(cx, name, &bytes).await.unwrap() }
            });
            futures_util::future::join_all(puts).await;
            let bytes = providers[0].get_doc(&cx, &name).await.unwrap().unwrap();
            let by = usize::from(bytes[0] % 4);
            assert_eq!((bytes.len(), bytes[0] / 4), (10_000 + by, round));
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        }
    });
    assert_eq!(names(&lab.path("store/docs")), ["d"]);
}

#[test]
fn members_of_a_wave_are_taken_side_by_side() {
    use std::sync::Barrier;
    let lab = Lab::new();
    // Each of the two copies waits for the other to begin: one after the other would never end.
    let barrier = Barrier::new(2);
    let hook = super::support::Calling(move |op: Op, path: &Path| {
        if op == Op::Create && (path.ends_with("DB01.edb") || path.ends_with("E00.chk")) {
            barrier.wait();
        }
        Ok(())
    });
    let provider = lab.hooked(Arc::new(hook));
    let spec = |role| {
        let mut spec = lab.spec("t1");
        spec.members = vec![lab.member("data", role), lab.member("logs", role)];
        spec
    };
    let prepared = lab.run(provider.prepare(&lab.cx, &spec(MemberRole::DataAndLog))).unwrap();
    let members = lab.run(provider.commit(&lab.cx, &prepared)).unwrap();
    assert_eq!(members.len(), 2);
}

#[test]
fn members_of_one_set_may_be_deleted_at_once() {
    let (lab, cx) = with_cx();
    let provider = lab.provider();
    for round in 0..20 {
        let token = format!("t{round}");
        lab.take(&provider, &token);
        let (data, logs) = (snapshot_ref("data", &token), snapshot_ref("logs", &token));
        let other = lab.provider();
        let (a, b) = lab.run(async {
            futures_util::future::join(provider.delete(&cx, &data), other.delete(&cx, &logs)).await
        });
        assert_eq!((a.unwrap(), b.unwrap()), (Deleted::Gone, Deleted::Gone));
        assert_eq!(lab.sets(), Vec::<String>::new(), "round {round}");
    }
}

fn with_cx() -> (Lab, stillpoint_context::Cx) {
    let lab = Lab::new();
    let cx = lab.cx.clone();
    (lab, cx)
}

/// `settle` of the provider; the restore side has one too.
async fn settle(
    provider: &crate::FsProvider,
    cx: &stillpoint_context::Cx,
    prepared: &stillpoint_storage::Prepared,
) -> stillpoint_storage::ProviderResult<Vec<Snapshot>> {
    SnapshotProvider::settle(provider, cx, prepared).await
}

async fn provider_settle(
    provider: &crate::FsProvider,
    cx: &stillpoint_context::Cx,
    prepared: &stillpoint_storage::Prepared,
) -> Vec<Snapshot> {
    settle(provider, cx, prepared).await.unwrap()
}
