//! What a backup promises, one promise a test: verdicts, the limit of a freeze, stale plans, unclear completions, keys.

use std::num::NonZeroU32;
use std::time::Duration;

use stillpoint::context::{ErrorFacts, HostPath, PathFlavor};
use stillpoint::exchange::Coordination;
use stillpoint::model::id::VolumeRef;
use stillpoint::model::job::{JobState, MemberEnd, RunEnd, RunState};
use stillpoint::model::point::Truncation;
use stillpoint::model::policy::OnMiss;
use stillpoint::model::quiesce::QuiesceLevel;
use stillpoint::model::verdict::Verdict;
use stillpoint::workflow::testing::Sim;
use stillpoint_testkit::{Change, CopySpec, DatabaseSpec, Ended, VolumeSpec, World};

use super::common::*;

#[test]
fn one_bad_database_in_three_is_completed_as_bad_and_the_others_as_good() {
    for mode in BOTH {
        let (sim, world) = (Sim::new(3), two_arrays(3));
        sim.run(async {
            let this = stillpoint(&sim, &world, mode, |engine| engine);
            this.save_policy(&policy()).await.unwrap();
            let bad = world.database("DB02");
            let copy = world.copies().into_iter().find(|copy| copy.database == bad).unwrap();
            world.damage().database(&copy);
            let job = this.backup(request("three")).await.unwrap().wait().await;
            assert_eq!(job.state(), JobState::SucceededWithWarnings, "{mode}: {job:#?}");
            let completes = world.completes();
            assert_eq!(completes.len(), 1, "{mode}");
            let verdicts = &completes[0].verdicts;
            let said: Vec<bool> = ["DB01", "DB02", "DB03"]
                .map(|name| {
                    let id = world.database(name);
                    let mut of = verdicts.iter().filter(|(copy, _)| copy.database == id);
                    matches!(of.next(), Some((_, Verdict::Good)))
                })
                .to_vec();
            assert_eq!((said, completes[0].bad()), (vec![true, false, true], vec![&copy]));
            let members = job.runs.iter().flat_map(|run| &run.members);
            for member in members {
                let Some(MemberEnd::Point { point, suspect }) = member.end else {
                    panic!("{member:?} has no point")
                };
                assert_eq!(suspect, member.database == bad, "{member:?}");
                let point = this.point(point).await.unwrap().unwrap();
                let asked = matches!(point.truncation, Truncation::Requested);
                assert_eq!(asked, member.database != bad, "{:?}", point.truncation);
            }
            let topology = this.topology().await.unwrap();
            let trust = |word: &str| {
                let points = topology.databases.iter().flat_map(|database| &database.points);
                points.filter(|point| format!("{:?}", point.trust).starts_with(word)).count()
            };
            assert_eq!((trust("Verified"), trust("Suspect")), (2, 1), "{mode}");
            assert!(job.runs[0].warnings.iter().any(|w| w.code == "verify.suspect"));
        });
    }
}

#[test]
fn a_commit_that_outlasts_the_limit_is_thawed_by_the_cutoff_and_never_published() {
    let (sim, world) = (Sim::new(5), slow_world(Duration::from_secs(25)));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        let mut policy = policy();
        policy.quiesce.limit = Some(Duration::from_secs(2));
        let (times, pause_before) = (NonZeroU32::new(2).unwrap(), Duration::from_mins(3));
        policy.quiesce.on_miss = OnMiss::Retry { times, pause: pause_before };
        this.save_policy(&policy).await.unwrap();
        let plan = this.plan(&request("slow")).await.unwrap();
        let cutoff = plan.sets[0].freeze.unwrap().cutoff().unwrap();
        assert_eq!(cutoff, Duration::from_millis(1500));

        let job = this.backup(request("slow")).await.unwrap().wait().await;
        pause(this.seams(), Duration::from_mins(10)).await;
        assert_eq!(job.state(), JobState::Failed, "{job:#?}");
        // Each retry is a run of the same job, with a pause before it.
        assert_eq!(job.runs.len(), 3);
        for run in &job.runs {
            let failure = run.failure.as_ref().unwrap();
            assert_eq!(failure.code, "quiesce.freeze_timeout", "{failure:?}");
        }
        let superseded: Vec<_> = job.runs.iter().map(|run| run.superseded_by).collect();
        assert_eq!(superseded, [Some(job.runs[1].run), Some(job.runs[2].run), None]);
        for pair in job.runs.windows(2) {
            let waited = pair[1].queued_at - pair[0].ended_at.unwrap();
            assert_eq!(waited.to_std().unwrap(), pause_before);
        }

        let windows = world.freeze_windows();
        assert_eq!(windows.len(), 3);
        for window in &windows {
            let asked = window.asked.unwrap().since(window.from);
            assert!(asked <= cutoff, "asked for the thaw after {asked:?}");
            assert_eq!(window.ended.map(|(_, how)| how), Some(Ended::Thaw));
        }
        world.assert_thawed_in_time();
        assert!(world.completes().is_empty() && world.open_sessions().is_empty());
        // The late snapshots came and went.
        assert_eq!(world.calls().count("commit"), 3);
        assert!(world.in_flight().is_empty() && world.snapshots().is_empty());
        assert!(this.debris().await.unwrap().is_empty());
        let topology = this.topology().await.unwrap();
        assert!(topology.databases.iter().all(|database| database.points.is_empty()));
    });
}

#[test]
fn a_snapshot_that_comes_later_than_anybody_waits_is_listed_as_debris_and_swept() {
    let (sim, world) = (Sim::new(5), slow_world(Duration::from_hours(1)));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        let mut policy = policy();
        policy.quiesce.on_miss = OnMiss::Fail;
        this.save_policy(&policy).await.unwrap();
        let job = this.backup(request("late")).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::NeedsAttention, "{job:#?}");
        assert_eq!(job.runs[0].failure.as_ref().unwrap().code, "quiesce.freeze_timeout");
        let debris = this.debris().await.unwrap();
        assert_eq!(debris.len(), 1, "{debris:?}");
        let (token, _, _) = world.in_flight().remove(0);
        assert_eq!(debris[0].kind.to_string(), format!("snapshots {token}"));
        // It may still appear: it stays listed.
        assert_eq!(this.sweep().await.unwrap().len(), 1);
        pause(this.seams(), Duration::from_hours(2)).await;
        assert_eq!(world.snapshots().len(), 1);
        assert!(this.sweep().await.unwrap().is_empty() && world.snapshots().is_empty());
        assert!(this.debris().await.unwrap().is_empty());
    });
}

#[test]
fn a_failover_between_plan_and_begin_makes_the_job_plan_again() {
    let (sim, world) = (Sim::new(7), World::dag(2, 1));
    let (saboteur, mut asked) = Saboteur::new([Rule::at(
        "confirm",
        stillpoint::workflow::testing::Part::Run,
        Blow::Cancel,
    )]);
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, saboteur.tune());
        let mut policy = policy();
        policy.selection = stillpoint::model::policy::CopySelection::ActiveOnly;
        this.save_policy(&policy).await.unwrap();
        let plan = this.plan(&request("moved")).await.unwrap();
        assert_eq!(plan.sets[0].host.as_str(), "ex1.example.com");
        let job = this.backup(request("moved")).await.unwrap();
        // The saboteur says that the first confirmation begins; that is when the copy moves.
        asked.recv().await.unwrap();
        let to = world.copies().into_iter().find(|copy| copy.host.as_str() != HOST).unwrap();
        world.change(&Change::FailOver { database: to.database, to: to.host.clone() });
        let job = job.wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        assert_eq!(job.runs.len(), 2, "{job:#?}");
        assert_eq!(job.runs[0].failure.as_ref().unwrap().code, "plan.stale");
        assert_eq!(job.runs[0].superseded_by, Some(job.runs[1].run));
        assert_eq!(job.runs[1].members[0].copy.as_ref().unwrap(), &to);
        let topology = this.topology().await.unwrap();
        assert_eq!(topology.databases[0].points[0].copy.host, to.host);
        assert_eq!(world.calls().count("begin"), 1, "nothing was begun under the stale plan");
    });
}

#[test]
fn a_plan_that_is_stale_every_time_fails_the_job() {
    let (sim, world) = (Sim::new(7), World::dag(2, 1));
    let stale = Blow::Fail { effect: stillpoint::context::Effect::None, retryable: false };
    let rule = Rule::on_action("backup.confirm", stillpoint::workflow::testing::Part::Run, stale);
    let (saboteur, _) = Saboteur::new([rule]);
    let saboteur = saboteur.failing_with("plan.stale");
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, saboteur.tune());
        this.save_policy(&policy()).await.unwrap();
        let job = this.backup(request("moving")).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Failed, "{job:#?}");
        let failed = |run: &stillpoint::model::job::JobRun| {
            run.failure.as_ref().is_some_and(|failure| failure.code == "plan.stale")
        };
        assert!(job.runs.len() > 1 && job.runs.iter().all(failed), "{job:#?}");
        assert!(job.runs.last().unwrap().superseded_by.is_none());
    });
}

#[test]
fn a_completion_that_stays_unclear_is_a_warning_and_truncation_unknown() {
    for mode in BOTH {
        let (sim, world) = (Sim::new(11), two_arrays(1));
        sim.run(async {
            let this = stillpoint(&sim, &world, mode, |engine| engine);
            this.save_policy(&policy()).await.unwrap();
            world.change(&Change::CompletionsUnclear("the writer failed".to_owned()));
            let job = this.backup(request("unclear")).await.unwrap().wait().await;
            assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
            let codes: Vec<_> = job.runs[0].warnings.iter().map(|w| w.code.as_str()).collect();
            assert_eq!(codes, ["complete.unconfirmed"]);
            let Some(MemberEnd::Point { point, suspect: false }) = job.runs[0].members[0].end
            else {
                panic!("{job:#?}")
            };
            let point = this.point(point).await.unwrap().unwrap();
            assert!(matches!(point.truncation, Truncation::Unknown), "{:?}", point.truncation);
            assert!(world.open_sessions().is_empty());
        });
    }
}

#[test]
fn active_and_passive_copy_on_one_volume_refuse_that_database_alone() {
    let hosts = ["ex1.example.com", "ex2.example.com"];
    let mut builder = World::builder().host(hosts[0]).host(hosts[1]).dag("DAG1", hosts);
    let mount = |name: &str| {
        let volume = VolumeSpec::new(name);
        hosts.iter().fold(volume, |volume, host| volume.mounted(*host, format!(r"D:\{name}")))
    };
    builder =
        builder.volume(mount("shared")).volume(VolumeSpec::new("own").mounted(hosts[0], r"D:\own"));
    let world = builder
        .database(DatabaseSpec::new("DB01"))
        .database(DatabaseSpec::new("DB02"))
        .copy(CopySpec::active("DB01", hosts[0]).on("shared", "shared"))
        .copy(CopySpec::passive("DB01", hosts[1]).on("shared", "shared"))
        .copy(CopySpec::active("DB02", hosts[0]).on("own", "own"))
        .build();
    let sim = Sim::new(13);
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        this.save_policy(&policy()).await.unwrap();
        let job = this.backup(request("shared")).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::SucceededWithWarnings, "{job:#?}");
        let [skipped] = job.skipped.as_slice() else { panic!("{job:#?}") };
        assert_eq!(skipped.database, world.database("DB01"));
        let Some(MemberEnd::Skipped { failure }) = &skipped.end else { panic!("{skipped:?}") };
        assert_eq!(failure.code, "placement.active_passive_share_volume");
        let named = format!("{} {:?}", failure.message, failure.subjects);
        for wanted in [hosts[0], hosts[1], "shared"] {
            assert!(named.contains(wanted), "{wanted} is not named: {named}");
        }
        let shared: VolumeRef = "sim:shared".parse().unwrap();
        assert!(world.snapshots().iter().all(|snapshot| snapshot.volume != shared));
        assert_eq!(job.runs.len(), 1);
        assert_eq!(job.runs[0].members[0].database, world.database("DB02"));
        assert_eq!(job.runs[0].state, RunState::Ended(RunEnd::Succeeded));
    });
}

#[test]
fn a_key_is_one_job_and_another_request_under_it_is_refused() {
    let (sim, world) = (Sim::new(17), two_arrays(2));
    sim.run(async {
        let this = stillpoint(&sim, &world, Coordination::Engine, |engine| engine);
        this.save_policy(&policy()).await.unwrap();
        let (one, two) =
            futures_util::future::join(this.backup(request("key")), this.backup(request("key")))
                .await;
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.id(), two.id());
        let error = this.backup(request_for("key", &world, &["DB01"])).await.unwrap_err();
        assert_eq!(error.code().as_str(), "run.key_reused");
        assert_eq!(one.wait().await.state(), JobState::Succeeded);
        assert_eq!(two.wait().await.state(), JobState::Succeeded);
        let again = this.backup(request("key")).await.unwrap();
        assert_eq!((again.id(), again.wait().await.state()), (one.id(), JobState::Succeeded));
        assert_eq!((this.jobs().await.unwrap().len(), world.completes().len()), (1, 1));
    });
}

/// The journal has to be written before anything can be thawed: it must not lie where a freeze blocks all writes.
#[test]
fn a_state_file_on_a_volume_that_is_frozen_is_refused_before_anything_is_frozen() {
    let sim = Sim::new(3);
    let world = two_arrays(2);
    let at = |path: &str| HostPath::new(HOST.parse().unwrap(), PathFlavor::Windows, path).unwrap();
    let with = |level: QuiesceLevel, files: &[&str]| {
        let plugin = world.exchange().only(Coordination::Engine);
        let plugin = plugin.with_caps(|caps| caps.quiesce = level);
        let builder = builder_over(&sim, &world, plugin, |engine| engine);
        files.iter().fold(builder, |builder, file| builder.state_at(at(file))).build().unwrap()
    };
    let (inside, beside) = (r"D:\logs01\stillpoint.db", r"C:\stillpoint.db");
    sim.run(async {
        for level in [QuiesceLevel::AppFsFlushed, QuiesceLevel::AppIoHeld] {
            // One of several files is enough.
            let this = with(level, &[beside, inside]);
            this.save_policy(&policy()).await.unwrap();
            let plan = this.plan(&request("plan")).await.unwrap();
            let refused: Vec<_> = plan.refused().collect();
            let [(database, failure)] = refused.as_slice() else { panic!("{plan}") };
            assert_eq!((database.name.as_str(), failure.code.as_str()), ("DB01", CODE));
            assert!(!failure.remedy.is_empty());
            assert_eq!(plan.sets.len(), 1, "the other database is none of its business: {plan}");

            let asked = request_for("one", &world, &["DB01"]);
            let job = this.backup(asked).await.unwrap().wait().await;
            assert_eq!((job.state(), job.runs.len()), (JobState::Failed, 0), "{job:#?}");
            assert_eq!(world.calls().count("freeze"), 0);
            let found = this.doctor().await;
            let found = found.iter().filter(|found| found.area == "state").collect::<Vec<_>>();
            let [found] = found.as_slice() else { panic!("{found:#?}") };
            assert_eq!(found.code.as_ref().unwrap().as_str(), CODE);
        }
        for (level, file) in [(QuiesceLevel::App, inside), (QuiesceLevel::AppIoHeld, beside)] {
            let this = with(level, &[file]);
            this.save_policy(&policy()).await.unwrap();
            let plan = this.plan(&request("plan")).await.unwrap();
            assert_eq!(plan.refused().count(), 0, "{level}: {plan}");
            assert!(this.doctor().await.iter().all(|found| found.area != "state"));
            let job = this.backup(request("all")).await.unwrap().wait().await;
            assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
        }
    });
}

const CODE: &str = "state.on_protected_volume";
