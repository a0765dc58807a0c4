//! State files as files: who may open one, what is none, what is damaged.

use super::*;

fn code(path: &Path) -> String {
    let error = SqliteStore::open(path).unwrap_err();
    let named = error.to_string().contains(path.file_name().unwrap().to_str().unwrap());
    assert!(named && !error.remedy().is_empty(), "{error}");
    error.code().to_string()
}

#[tokio::test]
async fn many_stores_have_a_file_open_whatever_the_way_to_it() {
    let (folder, path) = folder();
    let first = SqliteStore::open(&path).unwrap();
    let roundabout = folder.path().join(".").join("stillpoint.db");
    let mut others = vec![SqliteStore::open(&roundabout).unwrap()];
    #[cfg(unix)]
    {
        let link = folder.path().join("link-to-stillpoint.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        others.push(SqliteStore::open(&link).unwrap());
    }
    for (number, store) in (1..).zip(&others) {
        assert_eq!(store.path(), first.path());
        store.apply(&[published(number)], None).await.unwrap();
        assert!(first.point(published(number).point()).await.unwrap().is_some());
    }
    // Who goes first leaves the file to the others.
    drop(first);
    for store in others {
        store.apply(&[published(99)], None).await.unwrap();
    }
}

#[tokio::test]
async fn who_has_a_file_alone_shares_it_with_nobody() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let alone = |path: &Path| SqliteStore::open_alone(path).map(drop).map_err(|error| error.code());
    assert_eq!(alone(&path), Err("state.in_use".into()));
    drop(store);
    let store = SqliteStore::open_alone(&path).unwrap();
    assert_eq!(code(&path), "state.in_use");
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(error.to_string().contains("stillpoint.db.lock"), "{error}");
    assert_eq!(alone(&folder.path().join(".").join("stillpoint.db")), Err("state.in_use".into()));
    let clone = store.clone();
    drop(store);
    assert_eq!(code(&path), "state.in_use");
    drop(clone);
    alone(&path).unwrap();
    SqliteStore::open(&path).unwrap();

    let first = |path: &Path| SqliteStore::open_first(path).map_err(|error| error.code());
    let one = first(&path).unwrap();
    assert_eq!(first(&path).unwrap_err(), "state.in_use");
    drop(one);
    let shared = SqliteStore::open(&path).unwrap();
    let both = [first(&path).unwrap(), first(&path).unwrap()];
    drop(shared);
    assert_eq!(alone(&path), Err("state.in_use".into()), "they share it still");
    drop(both);
    alone(&path).unwrap();
}

/// A version of format 1 holds the lock beside the file as long as it has it open.
#[test]
fn old_versions_and_new_ones_never_work_together() {
    let (folder, path) = folder();
    let lock = File::create(folder.path().join("stillpoint.db.lock")).unwrap();
    lock.try_lock().unwrap();
    assert_eq!(code(&path), "state.in_use");
    assert!(!path.exists(), "nothing was touched");
    lock.unlock().unwrap();
    let store = SqliteStore::open(&path).unwrap();
    lock.try_lock().unwrap_err();
    drop(store);
    // A process that another test is just starting has, until it begins, what this one had open.
    while let Err(TryLockError::WouldBlock) = lock.try_lock() {
        std::thread::yield_now();
    }
}

/// Many at the same moment, where there is no file yet: one makes it, all have it.
#[test]
fn a_new_file_may_be_opened_by_many_at_once() {
    let (_folder, path) = folder();
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| SqliteStore::open(&path))).collect();
        for store in opened {
            store.join().unwrap().unwrap();
        }
    });
}

#[test]
fn what_is_no_state_file_is_refused_and_left_as_it_was() {
    let (folder, path) = folder();
    assert_eq!(code(folder.path()), "state.is_folder");
    assert_eq!(code(&folder.path().join("none").join("stillpoint.db")), "state.no_folder");
    assert_eq!(SqliteStore::open("/").unwrap_err().code(), "state.is_folder");

    let text = folder.path().join("letter.txt");
    std::fs::write(&text, "Dear Sir or Madam, ".repeat(200)).unwrap();
    let before = std::fs::read(&text).unwrap();
    assert_eq!(code(&text), "state.not_a_database");
    assert_eq!(std::fs::read(&text).unwrap(), before);

    // A file as a folder.
    assert_eq!(code(&text.join("stillpoint.db")), "state.unavailable");

    let foreign = folder.path().join("photos.db");
    let db = Connection::open(&foreign).unwrap();
    db.execute_batch("CREATE TABLE photo (x)").unwrap();
    drop(db);
    let before = std::fs::read(&foreign).unwrap();
    assert_eq!(code(&foreign), "state.foreign");
    assert_eq!(std::fs::read(&foreign).unwrap(), before);

    drop(SqliteStore::open(&path).unwrap());
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", FORMAT + 1).unwrap();
    drop(db);
    assert_eq!(code(&path), "state.newer_format");
    let error = SqliteStore::open(&path).unwrap_err().to_string();
    for number in [FORMAT, FORMAT + 1] {
        assert!(error.contains(&format!("{number}")), "{error}");
    }
}

#[test]
fn an_empty_file_becomes_a_state_file() {
    let (_folder, path) = folder();
    std::fs::write(&path, "").unwrap();
    drop(SqliteStore::open(&path).unwrap());
    assert!(std::fs::metadata(&path).unwrap().len() > 0);
}

#[test]
fn a_read_only_file_is_refused() {
    let (_folder, path) = folder();
    drop(SqliteStore::open(&path).unwrap());
    let mut rights = std::fs::metadata(&path).unwrap().permissions();
    rights.set_readonly(true);
    std::fs::set_permissions(&path, rights).unwrap();
    assert_eq!(code(&path), "state.read_only");
}

#[tokio::test]
async fn damage_is_found() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).unwrap();
    let facts: Vec<PointFact> = (1..200).map(published).collect();
    store.apply(&facts, None).await.unwrap();
    drop(store);
    let good = std::fs::read(&path).unwrap();

    // Every page after the first, one after the other, filled with the same byte.
    let page = 4096;
    let mut refused = 0;
    let mut pages = 0;
    for at in (page..good.len()).step_by(page * 7) {
        let mut bad = good.clone();
        bad[at..at + page].fill(0xA5);
        std::fs::write(&path, &bad).unwrap();
        pages += 1;
        match SqliteStore::open(&path) {
            Err(error) => {
                assert_eq!(error.code(), "state.corrupt", "{error}");
                refused += 1;
            }
            // Overflow pages hold text alone; what reads them says so.
            Ok(store) => {
                let error = store.all_points(&PointQuery::all()).await.unwrap_err();
                assert_eq!(error.code(), "state.corrupt", "{error}");
            }
        }
    }
    assert!(pages > 10 && refused > 0, "{refused} of {pages}");

    for length in [page - 1, page + 1, good.len() - page] {
        std::fs::write(&path, &good[..length]).unwrap();
        let found = code(&path);
        assert!(["state.corrupt", "state.not_a_database"].contains(&found.as_str()), "{found}");
    }

    std::fs::write(&path, &good).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE point SET body = '{}' WHERE rowid = 1", []).unwrap();
    drop(db);
    let store = SqliteStore::open(&path).unwrap();
    let error = store.all_points(&PointQuery::all()).await.unwrap_err();
    assert_eq!(error.code(), "state.corrupt");
    assert!(store.point(published(100).point()).await.unwrap().is_some(), "the others can be read");
}
