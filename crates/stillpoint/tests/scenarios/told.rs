//! What somebody is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stillpoint::catalog::{Catalog as _, CatalogExt as _, MemoryCatalog, PointQuery};
use stillpoint::context::{Cx, Failure};
use stillpoint::exchange::Coordination;
use stillpoint::model::inventory::CopyStatus;
use stillpoint::model::job::JobState;
use stillpoint::workflow::testing::Sim;
use stillpoint::{Notification, Notifier, NotifyOn, Outcome};
use stillpoint_testkit::{CopySpec, DatabaseSpec, VolumeSpec, World};

use crate::common::{HOST, builder, policy, request};

#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Vec<Notification>>>);

#[async_trait]
impl Notifier for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    async fn notify(&self, _: &Cx, notification: &Notification) -> Result<(), Failure> {
        self.0.lock().unwrap().push(notification.clone());
        Ok(())
    }
}

/// Five databases, of which the third has no copy that can be backed up.
fn five() -> World {
    let mut builder = World::builder().host(HOST);
    for number in 1..=5 {
        let (name, volume) = (format!("DB{number:02}"), format!("vol{number:02}"));
        let mut copy = CopySpec::active(&name, HOST).on(&volume, &volume).preference(1);
        if number == 3 {
            copy = copy.status(CopyStatus::Failed);
        }
        builder = builder
            .volume(VolumeSpec::new(&volume).mounted(HOST, format!(r"D:\{volume}")))
            .database(DatabaseSpec::new(&name).writes_every(Duration::from_secs(5)))
            .copy(copy);
    }
    builder.build()
}

/// Scenario 52: **Partial group.** Given 1 of 5 databases fails, then 4 points exist, the parent is SucceededWithWarnings, exit code
/// and notification say "4 of 5", and prune of the failed one's policy is not run.
#[test]
fn s52_partial_group() {
    let (sim, world) = (Sim::new(52), five());
    let (told, catalog) = (Told::default(), Arc::new(MemoryCatalog::new()));
    sim.run(async {
        let this = builder(&sim, &world, Coordination::Engine, |engine| engine)
            .catalog(Arc::clone(&catalog) as _)
            .notifier(NotifyOn::default(), Arc::new(told.clone()))
            .build()
            .unwrap();
        this.save_policy(&policy()).await.unwrap();
        let mut request = request("night");
        (request.prune, request.confirm_truncation) = (true, false);
        let job = this.backup(request).await.unwrap().wait().await;
        assert_eq!((job.state(), job.tally()), (JobState::SucceededWithWarnings, (4, 5)));
        assert_eq!(catalog.all_points(&PointQuery::all()).await.unwrap().len(), 4);
        assert!(job.warnings.iter().any(|warning| warning.code == "prune.not_done"), "{job:#?}");
        assert!(job.runs.iter().all(|run| !run.follow_up), "nothing was pruned");

        let told = told.0.lock().unwrap().clone();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].outcome, Outcome::Warnings);
        assert_eq!(told[0].subject, "backup: succeeded with warnings, 4 of 5 databases");
        assert!(told[0].text.contains("4 of 5 databases"), "{}", told[0].text);
        assert!(told[0].text.contains("DB03: NOT GOOD\n  "), "{}", told[0].text);
        assert_eq!((told[0].report.good, told[0].report.all), (4, 5));
        let bad: Vec<_> = told[0].report.databases.iter().filter(|one| !one.good).collect();
        assert_eq!((bad.len(), bad[0].name.as_str()), (1, "DB03"));
        assert!(bad[0].problem.is_some());
        assert_eq!(catalog.job(job.id).await.unwrap().unwrap(), job);
    });
}
