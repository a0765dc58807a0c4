//! The whole workflow over the simulated Exchange, in both coordination modes.

use std::sync::Arc;

use stillpoint::Stillpoint;
use stillpoint::context::{HostPath, IdempotencyKey, PathFlavor};
use stillpoint::exchange::Coordination;
use stillpoint::model::group::Selector;
use stillpoint::model::id::PolicyId;
use stillpoint::model::job::{JobState, MemberEnd};
use stillpoint::model::policy::Policy;
use stillpoint::model::request::{BackupRequest, Target};
use stillpoint::model::restore::{RestoreRequest, RestoreTarget};
use stillpoint_testkit::World;
use uuid::Uuid;

fn over(world: &World, mode: Coordination) -> Stillpoint {
    let plugin = Arc::new(world.exchange().only(mode));
    Stillpoint::in_memory(plugin, Arc::new(world.storage())).unwrap()
}

async fn everything(this: &Stillpoint, key: &str) -> BackupRequest {
    let policy = Policy::new(PolicyId(Uuid::from_u128(1)), "default");
    this.save_policy(&policy).await.unwrap();
    let target = Target::Selected(vec![Selector::Everything]);
    BackupRequest::new(IdempotencyKey::new(key).unwrap(), target, policy.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_taken_verified_and_restored_in_either_mode() {
    for mode in [Coordination::Engine, Coordination::Plugin] {
        let world = World::one_server(2);
        let this = over(&world, mode);
        let request = everything(&this, "first").await;
        let plan = this.plan(&request).await.unwrap();
        assert_eq!(plan.sets.len(), 1, "{plan}");
        let job = this.backup(request).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{mode}: {job:#?}");
        let topology = this.topology().await.unwrap();
        assert_eq!(topology.databases.len(), 2);
        assert!(topology.databases.iter().all(|database| database.points.len() == 1));
        world.assert_thawed_in_time();
        assert_eq!(world.completes().len(), 1);
        assert!(world.open_sessions().is_empty());

        let point = topology.databases[0].points[0].point;
        let host = topology.databases[0].copies[0].copy.host.clone();
        let target = HostPath::new(host, PathFlavor::Windows, r"R:\restored").unwrap();
        let request = RestoreRequest::new(
            IdempotencyKey::new("back").unwrap(),
            point,
            RestoreTarget::AlternatePath(target),
        );
        let job = this.restore(request).await.unwrap().wait().await;
        assert_eq!(job.state(), JobState::Succeeded, "{mode}: {job:#?}");
        assert!(matches!(job.runs[0].members[0].end, Some(MemberEnd::Done)));
    }
}
