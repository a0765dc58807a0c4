//! Whether the catalogue tells the truth, and what is done if it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::TimeDelta;
use stillpoint::catalog::DebrisKind;
use stillpoint::context::{Cx, ErrorFacts, HostPath, PathFlavor};
use stillpoint::model::hold::Hold;
use stillpoint::model::id::{HoldName, PointId, SetToken, SnapshotRef};
use stillpoint::model::job::{Job, JobState};
use stillpoint::model::manifest;
use stillpoint::model::point::{PointState, RestorePoint, Truncation, Trust};
use stillpoint::model::policy::{LogRetention, Retention, Verification};
use stillpoint::model::reconcile::{Owner, Thing, Verdict};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint::model::topology::Protection;
use stillpoint::storage::{DocName, Snapshot, SnapshotProvider};
use stillpoint::workflow::testing::Sim;
use stillpoint::{
    PruneScope, PruneTarget, ReconcileOptions, ReconcileReport, RepairRequest, VerifyRequest,
};
use stillpoint_testkit::{Fault, Trouble};

use crate::common::{HOST, key};
use crate::site::{DAY, Site, policy};

const WEEK: Duration = Duration::from_hours(24 * 7);

async fn found(site: &Site) -> ReconcileReport {
    site.this.reconcile(&ReconcileOptions::keep_orphans()).await.unwrap()
}

fn of(report: &ReconcileReport, thing: &Thing) -> Option<Verdict> {
    let findings = report.comparison.findings.iter();
    findings.filter(|found| found.thing == *thing).map(|found| found.verdict.clone()).next()
}

async fn verdict(site: &Site, thing: Thing) -> Verdict {
    let report = found(site).await;
    of(&report, &thing).unwrap_or_else(|| panic!("nothing is said of {thing}: {report:#?}"))
}

async fn repair(site: &Site, name: &str, options: ReconcileOptions) -> Job {
    let request = RepairRequest::new(key(name), options);
    site.this.repair(request).await.unwrap().wait().await
}

async fn repaired(site: &Site, name: &str) -> Job {
    repair(site, name, ReconcileOptions::delete_orphans_after(WEEK)).await
}

fn codes(job: &Job) -> Vec<String> {
    let warnings = job.runs.iter().flat_map(|run| &run.warnings);
    warnings.map(|warning| warning.code.to_string()).collect()
}

fn name_of(point: PointId) -> DocName {
    DocName::new(manifest::document_name(point)).unwrap()
}

/// What is beside the data, by provider and name.
async fn documents(site: &Site) -> BTreeMap<(String, String), Vec<u8>> {
    let cx = Cx::detached(site.this.seams());
    let mut documents = BTreeMap::new();
    for array in ["alpha", "beta"] {
        let storage = site.world.storage_named(array);
        for name in storage.list_docs(&cx).await.unwrap() {
            let bytes = storage.get_doc(&cx, &name).await.unwrap().unwrap();
            documents.insert((array.to_owned(), name.to_string()), bytes);
        }
    }
    documents
}

async fn write(site: &Site, name: &DocName, text: Option<&str>) {
    let cx = Cx::detached(site.this.seams());
    for array in ["alpha", "beta"] {
        let storage = site.world.storage_named(array);
        match text {
            Some(text) => storage.put_doc(&cx, name, text.as_bytes()).await.unwrap(),
            None => storage.delete_doc(&cx, name).await.unwrap(),
        }
    }
}

async fn topology(site: &Site) -> String {
    serde_json::to_string(&site.this.topology_of_catalog().await.unwrap()).unwrap()
}

/// Everything that is told of every point.
async fn told(site: &Site) -> BTreeMap<PointId, RestorePoint> {
    site.table().await.points.into_iter().map(|point| (point.id, point)).collect()
}

fn folder() -> RestoreTarget {
    let folder = HostPath::new(HOST.parse().unwrap(), PathFlavor::Windows, r"R:\x").unwrap();
    RestoreTarget::AlternatePath(folder)
}

fn foreign(site: &Site) -> SnapshotRef {
    let volume = site.world.volumes().into_iter().find(|known| known.id.as_str() == "data01");
    site.world.add_foreign_snapshot(&volume.unwrap(), "somebody-elses")
}

#[test]
fn s49_an_orphan_whose_manifest_is_whole_is_adopted() {
    let sim = Sim::new(490);
    sim.run(async {
        let site = Site::new(&sim);
        let theirs = foreign(&site);
        let daily = policy(1, "daily", Retention::count(5));
        site.save(&[&daily]).await;
        site.daily(2, &daily).await;
        let before = (topology(&site).await, told(&site).await);
        assert!(found(&site).await.is_clean());
        // Nobody knows them any more.
        let site = site.forgotten(&sim);
        let report = found(&site).await;
        assert!(!report.is_clean());
        assert_eq!(report.comparison.counts(), BTreeMap::from([("adoptable", 2), ("foreign", 1)]));
        let job = repaired(&site, "adopt").await;
        assert_eq!((job.state(), codes(&job)), (JobState::Succeeded, vec![]), "{job:#?}");
        assert_eq!((topology(&site).await, told(&site).await), before);
        let report = found(&site).await;
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!(of(&report, &Thing::Snapshot(theirs)), Some(Verdict::Foreign));
        assert!(site.this.debris().await.unwrap().is_empty());
        // Nothing is left to be done.
        let job = repaired(&site, "again").await;
        assert_eq!((job.state(), job.runs.len()), (JobState::Succeeded, 0), "{job:#?}");
        site.assert_storage_fits().await;
    });
}

#[test]
fn s49_an_orphan_without_a_manifest_is_reported_and_deleted_only_after_its_grace() {
    let sim = Sim::new(491);
    sim.run(async {
        let site = Site::new(&sim);
        let theirs = foreign(&site);
        let daily = policy(1, "daily", Retention::count(5));
        site.save(&[&daily]).await;
        site.backed_up("lost", &daily).await;
        let lost = site.points().await.remove(0);
        site.pass(DAY).await;
        let site = site.forgotten(&sim);
        site.save(&[&daily]).await;
        write(&site, &name_of(lost.id), None).await;
        site.backed_up("known", &daily).await;
        let thing = Thing::Set(lost.set.clone());
        let orphan = |verdict: Verdict| match verdict {
            Verdict::Orphan { snapshots, since, stays, .. } => {
                (snapshots.len(), since.is_some(), stays.is_some())
            }
            other => panic!("it is {other:?}"),
        };
        assert_eq!(orphan(verdict(&site, thing.clone()).await), (2, false, true));
        // To be told is not enough: the grace begins when it is noted, in the catalogue.
        site.pass(WEEK * 2).await;
        let job = repaired(&site, "note").await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        let debris = site.this.debris().await.unwrap();
        assert_eq!(debris.len(), 1);
        assert_eq!(debris[0].kind, DebrisKind::Orphan(lost.set.clone()));
        assert_eq!(orphan(verdict(&site, thing.clone()).await), (2, true, true));
        // A sweep does not cut it short.
        assert_eq!(site.this.sweep().await.unwrap().len(), 1);
        site.pass(DAY * 6).await;
        let job = repaired(&site, "early").await;
        assert_eq!((job.runs.len(), site.world.snapshots().len()), (0, 4), "{job:#?}");
        site.pass(DAY * 2).await;
        // Not if nobody has said how long it is to be left alone.
        let job = repair(&site, "keep", ReconcileOptions::keep_orphans()).await;
        assert_eq!((job.runs.len(), site.world.snapshots().len()), (0, 4), "{job:#?}");
        // Nor while a storage cannot tell whether there is a manifest.
        site.world
            .faults()
            .on("list_docs")
            .about("beta")
            .inject(Fault::fail(Trouble::unreachable()));
        let job = repaired(&site, "blind").await;
        assert_eq!((job.runs.len(), site.world.snapshots().len()), (0, 4), "{job:#?}");
        site.world.faults().clear();
        // Nor one that the storage has locked.
        let first = &lost.members[0].snapshot;
        site.world.hold(first, true);
        let job = repaired(&site, "held").await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        assert!(site.world.snapshots().iter().any(|shot| shot.reference() == *first));
        site.world.hold(first, false);
        let job = repaired(&site, "due").await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        site.assert_storage_fits().await;
        assert!(site.this.debris().await.unwrap().is_empty());
        let kept: Vec<_> = site.world.foreign_snapshots().iter().map(Snapshot::reference).collect();
        assert_eq!(kept, [theirs]);
        assert!(found(&site).await.is_clean());
    });
}

#[test]
fn s49_what_comes_back_of_a_removed_point_is_never_adopted_and_goes_after_its_grace() {
    let sim = Sim::new(493);
    sim.run(async {
        let site = Site::new(&sim);
        let daily = policy(1, "daily", Retention::count(2));
        site.save(&[&daily]).await;
        site.daily(2, &daily).await;
        let (gone, kept) = (site.points().await.remove(0), site.points().await.remove(1));
        let before = documents(&site).await;
        // It is deleted while an older state of its volumes is set aside.
        for member in &gone.members {
            site.world.lose_snapshot(&member.snapshot);
        }
        let job = site.prune("one", PruneTarget::of(PruneScope::Point(gone.id))).await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert!(found(&site).await.is_clean());
        // That state comes back, with the snapshots and what tells of them.
        for member in &gone.members {
            site.world.bring_back_snapshot(&member.snapshot);
        }
        let text = &before[&("beta".to_owned(), name_of(gone.id).to_string())];
        let text = std::str::from_utf8(text).unwrap();
        write(&site, &name_of(gone.id), Some(text)).await;
        let thing = Thing::Set(gone.set.clone());
        let left = |verdict: Verdict| match verdict {
            Verdict::Leftover { points, snapshots, since, stays } => {
                assert_eq!(points, [gone.id].into());
                (snapshots.len(), since.is_some(), stays.is_some())
            }
            other => panic!("it is {other:?}"),
        };
        assert_eq!(left(verdict(&site, thing.clone()).await), (2, false, true));
        assert!(!found(&site).await.is_clean());
        // It is noted, and no point again.
        let job = repaired(&site, "note").await;
        assert_eq!((job.state(), job.runs.len()), (JobState::Succeeded, 1), "{job:#?}");
        assert_eq!(site.ids().await, [kept.id]);
        let debris = site.this.debris().await.unwrap();
        assert_eq!(debris.len(), 1);
        assert_eq!(debris[0].kind, DebrisKind::Orphan(gone.set.clone()));
        assert!(debris[0].message.contains("removed"), "{}", debris[0].message);
        assert_eq!(left(verdict(&site, thing.clone()).await), (2, true, true));
        site.pass(DAY * 8).await;
        // It stays where nobody asks for its deletion.
        let job = repair(&site, "keep", ReconcileOptions::keep_orphans()).await;
        assert_eq!((job.runs.len(), site.world.snapshots().len()), (0, 4), "{job:#?}");
        let job = repaired(&site, "due").await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        site.assert_storage_fits().await;
        assert!(
            documents(&site).await.keys().all(|(_, name)| !name.contains(&gone.id.to_string()))
        );
        assert!(site.this.debris().await.unwrap().is_empty());
        assert!(found(&site).await.is_clean());
        // And again, with nothing but its manifest.
        write(&site, &name_of(gone.id), Some(text)).await;
        assert_eq!(left(verdict(&site, thing.clone()).await), (0, false, true));
        let job = repaired(&site, "note-again").await;
        assert_eq!((job.state(), job.runs.len()), (JobState::Succeeded, 1), "{job:#?}");
        assert_eq!(left(verdict(&site, thing).await), (0, true, true));
        site.pass(DAY * 8).await;
        let job = repaired(&site, "due-again").await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert!(
            documents(&site).await.keys().all(|(_, name)| !name.contains(&gone.id.to_string()))
        );
        assert!(found(&site).await.is_clean());
        assert_eq!(site.ids().await, [kept.id]);
        site.assert_storage_fits().await;
    });
}

#[test]
fn s49_what_a_backup_has_in_hand_is_no_orphan() {
    let sim = Sim::new(492);
    sim.run(async {
        let site = Site::new(&sim);
        let daily = policy(1, "daily", Retention::count(5));
        site.save(&[&daily]).await;
        site.world.faults().on("evidence").inject(Fault::Slow(Duration::from_mins(1)));
        let request = stillpoint::model::request::BackupRequest::new(
            key("slow"),
            crate::common::request("slow").target,
            daily.id,
        );
        let backup = site.this.backup(request).await.unwrap();
        site.pass(Duration::from_secs(40)).await;
        let shown = site.world.snapshots();
        assert_eq!(shown.len(), 2, "it is between its snapshots and its point");
        let set: SetToken = shown[0].token.clone().unwrap();
        let (run, _) = set.parts().unwrap();
        let thing = Thing::Set(set.clone());
        assert_eq!(verdict(&site, thing).await, Verdict::Owned(Owner::Run(run)));
        let eager = ReconcileOptions::delete_orphans_after(Duration::ZERO);
        for name in ["one", "two"] {
            let job = repair(&site, name, eager.clone()).await;
            assert_eq!((job.state(), job.runs.len()), (JobState::Succeeded, 0), "{job:#?}");
        }
        let job = backup.wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert!(found(&site).await.is_clean());
        site.assert_storage_fits().await;
    });
}

#[test]
fn s50_missing() {
    let sim = Sim::new(50);
    sim.run(async {
        let site = Site::new(&sim);
        let daily = policy(1, "daily", Retention::count(2));
        site.save(&[&daily]).await;
        site.daily(3, &daily).await;
        let points = site.points().await;
        let target = PruneTarget::everything();
        let goes = site.table().await.order.points.into_keys().collect::<Vec<_>>();
        assert_eq!(goes, [points[0].id], "two would be kept of the three");
        // An administrator deletes a member of the newest by hand.
        let (newest, member) = (&points[2], points[2].members[1].snapshot.clone());
        site.world.lose_snapshot(&member);
        let lost = BTreeSet::from([member.clone()]);
        let thing = Thing::Point(newest.id);
        let missing = |is_news| Verdict::Missing { lost: lost.clone(), is_news };
        assert_eq!(verdict(&site, thing.clone()).await, missing(true));
        assert!(!site.this.point(newest.id).await.unwrap().unwrap().is_missing(), "it only looked");
        let job = repaired(&site, "look").await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        assert_eq!(codes(&job), ["point.missing"]);
        // It is told, and stays told, and is in the catalogue still.
        let known = site.this.point(newest.id).await.unwrap().unwrap();
        assert!(known.is_missing() && known.state == PointState::Available, "{known:#?}");
        assert_eq!(verdict(&site, thing.clone()).await, missing(false));
        let view = site.this.topology_of_catalog().await.unwrap();
        let shown = view.databases[0].points.iter().find(|shown| shown.point == newest.id).unwrap();
        assert!(shown.missing_since.is_some());
        assert_eq!(view.databases[0].protection, Protection::Protected);
        let reached = |point: PointId| {
            let window = &view.databases[0].window;
            window.intervals.iter().any(|interval| interval.points.contains(&point))
        };
        assert!(!reached(newest.id) && reached(points[1].id));
        let request = RestoreRequest::new(key("r"), newest.id, folder());
        assert_eq!(site.this.restore(request).await.unwrap_err().code(), "restore.missing");
        let request = VerifyRequest::new(key("v"), vec![newest.id]);
        let job = site.this.verify(request).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Failed, "{job:#?}");
        // It leaves the counts: one more older point is kept.
        assert!(site.table().await.order.is_empty());
        let job = site.prune("prune", target.clone()).await;
        assert_eq!((job.state(), job.runs.len()), (JobState::Succeeded, 0), "{job:#?}");
        assert_eq!(site.ids().await.len(), 3);
        // The snapshot is there again.
        site.pass(DAY).await;
        site.world.bring_back_snapshot(&member);
        assert_eq!(verdict(&site, thing.clone()).await, Verdict::Back);
        let job = repaired(&site, "back").await;
        assert_eq!((job.state(), codes(&job)), (JobState::Succeeded, vec![]), "{job:#?}");
        assert!(!site.this.point(newest.id).await.unwrap().unwrap().is_missing());
        assert!(found(&site).await.is_clean());
        site.pruned("prune-again").await;
        assert_eq!(site.ids().await, [points[1].id, points[2].id]);
        site.assert_storage_fits().await;
    });
}

#[test]
fn s50_what_cannot_be_looked_at_is_unknown_and_not_missing() {
    let sim = Sim::new(501);
    sim.run(async {
        let site = Site::new(&sim);
        let daily = policy(1, "daily", Retention::count(2));
        site.save(&[&daily]).await;
        site.backed_up("day", &daily).await;
        let point = site.points().await.remove(0);
        site.world.faults().on("list").about("beta").inject(Fault::fail(Trouble::unreachable()));
        let report = found(&site).await;
        assert_eq!(report.limits.len(), 1, "{:?}", report.limits);
        let told = of(&report, &Thing::Point(point.id));
        assert!(matches!(told, Some(Verdict::Unknown { .. })), "{told:?}");
        let job = repaired(&site, "blind").await;
        assert_eq!((job.state(), job.runs.len()), (JobState::Succeeded, 0), "{job:#?}");
        site.world.faults().clear();
        // What goes away between the look and the act, too.
        site.world.lose_snapshot(&point.members[1].snapshot);
        site.world
            .faults()
            .on("volumes")
            .about("logs01")
            .inject(Fault::fail(Trouble::unreachable()));
        let job = repaired(&site, "half").await;
        assert!(job.state().is_final(), "{job:#?}");
        assert!(!site.this.point(point.id).await.unwrap().unwrap().is_missing());
        site.world.faults().clear();
        let job = repaired(&site, "seen").await;
        assert_eq!(codes(&job), ["point.missing"]);
    });
}

#[test]
fn s51_catalogue_lost() {
    let sim = Sim::new(51);
    sim.run(async {
        let site = Site::new(&sim);
        let mut daily = policy(1, "daily", Retention::count(2));
        daily.verification = Verification::None;
        daily.log_retention = LogRetention::Days(30);
        site.save(&[&daily]).await;
        site.daily(5, &daily).await;
        let points = site.points().await;
        // Some verified, some held, some reduced to their logs, some gone, one missing.
        let request = VerifyRequest::new(key("v"), vec![points[3].id]);
        let job = site.this.verify(request).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        let since = site.this.seams().clock.now();
        let case = HoldName::new("case-7").unwrap();
        let hold = Hold::new(case.clone(), [points[1].id].into(), "a case", "legal", since);
        let over = HoldName::new("case-8").unwrap();
        let off = Hold::new(over.clone(), [points[2].id].into(), "a case", "legal", since);
        site.this.put_hold(&hold).await.unwrap();
        site.this.put_hold(&off).await.unwrap();
        site.this.remove_hold(&over).await.unwrap();
        site.pruned("prune").await;
        site.pass(DAY).await;
        site.world.lose_snapshot(&points[4].members[0].snapshot);
        let job = repaired(&site, "missing").await;
        assert_eq!(codes(&job), ["point.missing"]);
        let before = told(&site).await;
        let states: BTreeSet<PointState> = before.values().map(|point| point.state).collect();
        assert_eq!(states, [PointState::Available, PointState::LogsOnly].into(), "{before:#?}");
        assert!(before.values().any(|point| matches!(point.trust, Trust::Verified { .. })));
        assert!(
            before.values().any(|point| matches!(point.truncation, Truncation::Confirmed { .. }))
        );
        assert!(before.values().any(RestorePoint::is_missing));
        let latest = site.this.seams().clock.now();
        let (view, holds) = (topology(&site).await, site.this.holds().await.unwrap());
        let beside = documents(&site).await;

        let site = site.forgotten(&sim);
        assert_ne!(topology(&site).await, view);
        let rebuilt = site.this.rebuild().await.unwrap();
        assert_eq!(rebuilt.points, before.keys().copied().collect());
        assert_eq!((rebuilt.known, rebuilt.skipped.len()), (0, 0), "{rebuilt:#?}");
        assert_eq!(rebuilt.holds, [case].into());
        assert_eq!(topology(&site).await, view);
        assert_eq!(told(&site).await, before);
        assert_eq!(site.this.holds().await.unwrap(), holds);
        // The chains lead as far as they did, and the clock does not go back behind what there is.
        let clock = rebuilt.clock.unwrap();
        assert!(clock <= latest && clock > latest - TimeDelta::minutes(5), "{clock} {latest}");
        // A second one changes nothing.
        let again = site.this.rebuild().await.unwrap();
        assert_eq!((again.known, again.points.len()), (before.len(), 0));
        assert_eq!((again.holds.len(), again.clock), (0, rebuilt.clock));
        assert_eq!((topology(&site).await, documents(&site).await), (view, beside));
    });
}

#[test]
fn s51_documents_that_cannot_be_read_are_told_and_left_out() {
    let sim = Sim::new(511);
    sim.run(async {
        let site = Site::new(&sim);
        let daily = policy(1, "daily", Retention::count(9));
        site.save(&[&daily]).await;
        site.daily(4, &daily).await;
        let mut points = site.points().await;
        // What was deleted stays so, though its manifest comes up again.
        let gone = points.remove(0).id;
        let beside = documents(&site).await;
        let text = &beside[&("beta".to_owned(), name_of(gone).to_string())];
        let job = site.prune("one", PruneTarget::of(PruneScope::Point(gone))).await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert!(documents(&site).await.keys().all(|(_, name)| !name.contains(&gone.to_string())));
        write(&site, &name_of(gone), Some(std::str::from_utf8(text).unwrap())).await;
        let rebuilt = site.this.rebuild().await.unwrap();
        assert_eq!((rebuilt.points.len(), rebuilt.skipped.len()), (0, 1), "{rebuilt:#?}");
        write(&site, &name_of(gone), None).await;
        write(&site, &name_of(points[0].id), Some("{\"format\": 99, \"all\": \"new\"}")).await;
        write(&site, &name_of(points[1].id), Some("{\"format\": 1, \"poi")).await;
        write(&site, &DocName::new("hold-x.json").unwrap(), Some("nothing")).await;
        let site = site.forgotten(&sim);
        let rebuilt = site.this.rebuild().await.unwrap();
        assert_eq!(rebuilt.points, [points[2].id].into());
        assert_eq!(rebuilt.skipped.len(), 2 + 2, "a hold at each array: {rebuilt:#?}");
        assert!(rebuilt.skipped[0].contains("99") || rebuilt.skipped[1].contains("99"));
        // Their snapshots are nobody's now, and are kept for as long as nobody can read the manifests.
        let eager = ReconcileOptions::delete_orphans_after(Duration::ZERO);
        for name in ["one", "two", "three"] {
            let job = repair(&site, name, eager.clone()).await;
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        }
        assert_eq!(site.world.snapshots().len(), 6);
    });
}
