//! Calls on a state file: by many, after a kill, by who was taken over, while it is copied.

use super::*;

/// Not a test by itself: a process that stores points, says so after each, and is killed.
#[test]
#[ignore = "the other side of what_was_acknowledged_survives_a_kill"]
fn writer_process() {
    let Some(path) = state() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = SqliteStore::open(path).unwrap();
    runtime.block_on(async {
        for number in 1u64.. {
            store.apply(&[published(number.into())], Some(Cursor(number))).await.unwrap();
            say(number);
        }
    });
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let (_folder, path) = folder();
    let mut acknowledged = 0;
    for round in 1..=4 {
        let mut other = Other::start("calls::writer_process", &path);
        loop {
            let number = other.hear().parse::<u64>().unwrap();
            acknowledged = acknowledged.max(number);
            if number >= round * 7 {
                break;
            }
        }
        other.kill();

        let store = SqliteStore::open(&path).unwrap();
        store.check().await.unwrap();
        let points: Vec<RestorePoint> = store.all_points(&PointQuery::all()).await.unwrap();
        let stored = points.len() as u64;
        assert!(stored >= acknowledged, "{stored} of {acknowledged}");
        // Points and cursor are of one commit. Rounds begin again at 1, which changes nothing.
        assert_eq!(store.cursor().await.unwrap(), Some(Cursor(stored)));
    }
    assert!(acknowledged >= 28);
}

#[tokio::test]
async fn calls_from_many_tasks_are_each_whole() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let calls: Vec<_> = (1..=200u128)
        .map(|number| {
            let store = store.clone();
            async move {
                let stray = PointFact::Removed { point: published(number).point(), at: at(1) };
                match number % 4 {
                    // A pair in one call, a call that is refused, and reads in between.
                    0 => store.apply(&[published(number), published(number + 1000)], None).await,
                    1 => store.apply(&[published(number), late(number)], None).await,
                    2 => store.apply(&[published(number), stray], None).await,
                    _ => store
                        .points(&PointQuery::all(), &stillpoint_catalog::Page::first(3))
                        .await
                        .map(drop),
                }
            }
        })
        .collect();
    let refused = join_all(calls).await.into_iter().filter(Result::is_err).count();
    assert_eq!(refused, 50);
    assert_eq!(store.all_points(&PointQuery::all()).await.unwrap().len(), 100);
}

/// A fact about a point that does not exist.
fn late(number: u128) -> PointFact {
    let truncation = stillpoint_model::point::Truncation::Unknown;
    PointFact::Completed { point: published(number + 5000).point(), at: at(1), truncation }
}

#[tokio::test]
async fn who_was_taken_over_stores_no_job() {
    let (_folder, path) = folder();
    let (store, epoch) = leased(&path).await;
    let mut job = Job::new(
        JobId(Uuid::from_u128(1)),
        JobKind::Backup,
        IdempotencyKey::new("k").unwrap(),
        Trigger::Api,
        at(1),
    );
    store.begin_job(&job).await.unwrap();
    job.title = "of the first".to_owned();
    store.put_job_in_epoch(&job, process(1), epoch).await.unwrap();

    // Another process finds the lease over, and stores what it makes of the job.
    let other = SqliteStore::open(&path).unwrap();
    let later = mono(0) + TERM + MARGIN;
    assert_eq!(other.fence(process(1), later, MARGIN).await.unwrap(), Fencing::Fenced);
    let taken = other.acquire(process(2), later, TERM).await.unwrap().epoch;
    job.title = "of the second".to_owned();
    other.put_job_in_epoch(&job, process(2), taken).await.unwrap();

    // The first one wakes.
    let mut late = job.clone();
    late.title = "of the first, late".to_owned();
    for (owner, epoch) in
        [(process(1), epoch), (process(1), taken), (process(2), epoch), (process(3), 0)]
    {
        let error = store.put_job_in_epoch(&late, owner, epoch).await.unwrap_err();
        assert_eq!(error.code(), "catalog.fenced");
        assert_eq!(error.effect(), Effect::None);
    }
    assert_eq!(store.job(job.id).await.unwrap(), Some(job.clone()));

    let mut never = job;
    never.id = JobId(Uuid::from_u128(2));
    let error = other.put_job_in_epoch(&never, process(2), taken).await.unwrap_err();
    assert_eq!(error.code(), "catalog.not_found");
}

#[tokio::test]
async fn a_copy_is_taken_while_others_write() {
    let (kept, _) = folder();
    let folder = kept.path().to_owned();
    let (path, copy) = (folder.join("state.db"), folder.join("copy.db"));
    let store = SqliteStore::open(&path).unwrap();
    fill(&store).await;
    // Left by one that was killed.
    std::fs::write(folder.join("copy.db.part"), "half").unwrap();
    let others = SqliteStore::open(&path).unwrap();
    // Once they are asked for, the writes go on by themselves while the copy blocks.
    let facts: Vec<_> = (100..140).map(|number| [published(number)]).collect();
    let writes = join_all(facts.iter().map(|facts| others.apply(facts, None)));
    let (written, copied) = join(writes, async { store.back_up(&copy) }).await;
    written.into_iter().for_each(Result::unwrap);
    copied.unwrap();
    assert!(!folder.join("copy.db.part").exists());
    let opened = SqliteStore::open(&copy).unwrap();
    let mut kept = opened.all_points(&PointQuery::all()).await.unwrap();
    kept.retain(|point| point.id != published(1).point());
    // All of some commits and nothing of the rest: one for each point, in order.
    kept.sort_by_key(|point| point.id);
    let ids: Vec<_> = kept.iter().map(|point| point.id).collect();
    let first: Vec<_> = (100..140).map(|number| published(number).point()).collect();
    assert_eq!(ids, first[..ids.len()]);
    assert_eq!(opened.holds().await.unwrap(), store.holds().await.unwrap());
    assert_eq!(opened.policies().await.unwrap(), store.policies().await.unwrap());
    assert_eq!(opened.times().await.unwrap(), store.times().await.unwrap());
    assert_eq!(opened.debris().await.unwrap(), store.debris().await.unwrap());
    // What is removed stays so in a copy.
    let removed = published(2);
    opened.apply(std::slice::from_ref(&removed), None).await.unwrap();
    assert!(opened.point(removed.point()).await.unwrap().is_none());

    let refused = |to: &Path| store.back_up(to).unwrap_err().code().to_string();
    assert_eq!(refused(&copy), "state.exists");
    assert_eq!(refused(&path), "state.exists");
    assert_eq!(refused(&folder), "state.exists");
    assert_eq!(refused(&folder.join("no/copy.db")), "state.no_folder");
}
