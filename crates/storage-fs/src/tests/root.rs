//! Tests that need file systems of their own: a full one, a read-only one, and ones with reflinks.
//!
//! Each runs this program anew in a mount namespace, so that its mounts and loop devices go with it whatever happens.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use stillpoint_context::{Effect, ErrorFacts};
use stillpoint_model::id::ExposureKey;
use stillpoint_storage::{
    Discarded, DocName, Found, ProviderErrorKind, SnapshotProvider, SnapshotRestore,
};

use super::support::{Lab, assert_kind, everything, names, noise, snapshot_ref, tree};
use crate::{CloneMode, FsConfig, FsProvider};

/// Set for the program that runs inside.
const INSIDE: &str = "STILLPOINT_FS_TEST_INSIDE";

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Says that a test is skipped; that is a failure where it was required.
fn skip(test: &str, why: &str) {
    let required = std::env::var("STILLPOINT_REQUIRE").unwrap_or_default();
    // A test of a file system is required by the name of that, too.
    let of = ["btrfs", "xfs"].into_iter().filter(|name| test.contains(name));
    let is_required = |word: &str| word == "root" || of.clone().any(|name| name == word);
    let is_required = required.split(',').any(|word| is_required(word.trim()));
    assert!(!is_required, "{test} is required: {why}");
    println!("skipped: {test}: {why}");
}

/// Runs a test of this module behind `launcher`.
fn run_behind(launcher: &[&str], test: &str) {
    let (program, arguments) = launcher.split_first().unwrap();
    let name = format!("tests::root::inside::{test}");
    // A folder with a mount on it cannot be removed from inside; from outside the mount is gone afterwards.
    let folders = tempfile::tempdir().unwrap();
    let output = Command::new(program)
        .args(arguments)
        .env("TMPDIR", folders.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{test}:\n{told}\n{trouble}");
    print!("{told}");
}

/// Runs a test of this module in a mount namespace, if that can be had.
fn run_inside(test: &str, programs: &[&str]) {
    let missing: Vec<_> = programs.iter().filter(|program| !works(program, &["-V"])).collect();
    if !is_root() {
        skip(test, "it mounts file systems, which needs root");
    } else if !works("unshare", &["-m", "--propagation", "private", "true"]) {
        skip(test, "this root may not make a mount namespace");
    } else if !missing.is_empty() {
        skip(test, &format!("these programs are not there: {missing:?}"));
    } else {
        run_behind(&["unshare", "-m", "--propagation", "private"], test);
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_stays() {
    run_inside("full_disk", &[]);
}

#[test]
fn a_read_only_store_or_target_is_said_and_nothing_stays() {
    run_inside("read_only", &[]);
}

#[test]
fn reflinks_on_btrfs() {
    run_inside("btrfs", &["mkfs.btrfs"]);
}

#[test]
fn reflinks_on_xfs() {
    run_inside("xfs", &["mkfs.xfs"]);
}

#[test]
fn a_fragmented_file_on_btrfs_is_counted_and_refused_before_the_freeze() {
    run_inside("fragmented_btrfs", &["mkfs.btrfs"]);
}

#[test]
fn a_fragmented_file_on_xfs_is_counted_and_refused_before_the_freeze() {
    run_inside("fragmented_xfs", &["mkfs.xfs"]);
}

#[test]
fn xfs_without_reflinks_is_copied_or_refused() {
    run_inside("xfs_without", &["mkfs.xfs"]);
}

#[test]
fn a_file_without_read_permission_is_said_before_the_commit() {
    if !is_root() {
        return inside::check_unreadable();
    }
    let setpriv = [
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search",
        "--inh-caps=-dac_override,-dac_read_search",
    ];
    if works(setpriv[0], &["--version"]) {
        run_behind(&setpriv, "unreadable");
    } else {
        skip("unreadable", "root reads everything, and `setpriv` is not there");
    }
}

mod inside {
    use super::*;

    /// Runs a program that must succeed.
    fn run(program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    }

    fn may_mount() -> bool {
        let may = std::env::var_os(INSIDE).is_some();
        if !may {
            println!("skipped: it is run by another test, in a mount namespace of its own");
        }
        may
    }

    fn mount_tmpfs(at: &Path, size: &str) {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", at.to_str().unwrap()]);
    }

    fn remount(at: &Path, how: &str) {
        run("mount", &["-o", &format!("remount,{how}"), at.to_str().unwrap()]);
    }

    fn fill(folder: &Path, leave: u64) {
        let free = crate::prepare::free_bytes(folder).unwrap();
        let size = usize::try_from(free - leave).unwrap();
        fs::write(folder.join("filler"), vec![1; size]).unwrap();
    }

    #[test]
    #[ignore = "run by another test, in a mount namespace of its own"]
    fn full_disk() {
        if !may_mount() {
            return;
        }
        let lab = Lab::on_disk();
        mount_tmpfs(&lab.path("store"), "40m");
        let provider = lab.provider();
        let spec = lab.spec("t1");
        lab.take(&provider, "t0");
        lab.run(async {
            let prepared = provider.prepare(&lab.cx, &spec).await.unwrap();
            fill(&lab.path("store"), 2 << 20);
            let error =
                assert_kind(provider.commit(&lab.cx, &prepared).await, &ProviderErrorKind::NoSpace);
            assert_eq!(error.code().as_str(), "storage.no_space");
            assert_eq!(provider.discard(&lab.cx, &spec.token).await.unwrap(), Discarded::Gone);
            assert_eq!(lab.sets(), ["t0"]);
            // Known before the freeze from now on.
            let error =
                assert_kind(provider.prepare(&lab.cx, &spec).await, &ProviderErrorKind::NoSpace);
            assert_eq!(error.effect(), Effect::None);
            assert_eq!(lab.sets(), ["t0"]);
            let doc = DocName::new("doc").unwrap();
            let put = provider.put_doc(&lab.cx, &doc, &noise(4 << 20)).await;
            assert_kind(put, &ProviderErrorKind::NoSpace);
            assert_eq!(names(&lab.path("store/docs")), Vec::<String>::new());
            assert_eq!(fs::metadata(lab.path("store/filler")).unwrap().len() % 4096, 0);

            let side: &dyn SnapshotRestore = &provider;
            mount_tmpfs(&lab.path("target"), "20m");
            fill(&lab.path("target"), 17 << 20);
            let restore = lab.restore_spec("r1", "t0", "target/there");
            assert_kind(side.stage(&lab.cx, &restore).await, &ProviderErrorKind::NoSpace);
            assert_eq!(names(&lab.path("target")), ["filler"]);
            assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());
        });
    }

    #[test]
    #[ignore = "run by another test, in a mount namespace of its own"]
    fn read_only() {
        if !may_mount() {
            return;
        }
        let lab = Lab::on_disk();
        let (store, target) = (lab.path("store"), lab.path("target"));
        mount_tmpfs(&store, "100m");
        mount_tmpfs(&target, "100m");
        let provider = lab.provider();
        lab.take(&provider, "t0");
        let side: &dyn SnapshotRestore = &provider;
        let spec = lab.spec("t1");
        let restore = lab.restore_spec("r1", "t0", "target");
        let read_only = ProviderErrorKind::ReadOnly;
        lab.run(async {
            remount(&target, "ro");
            assert_kind(side.stage(&lab.cx, &restore).await, &read_only);
            assert_eq!(names(&target), Vec::<String>::new());
            assert_eq!(names(&store.join("restores")), Vec::<String>::new());
            remount(&target, "rw");
            side.stage(&lab.cx, &restore).await.unwrap();
            remount(&target, "ro");
            assert_kind(side.publish(&lab.cx, &restore.key).await, &read_only);
            assert_kind(side.unstage(&lab.cx, &restore.key).await, &read_only);
            remount(&target, "rw");
            side.retract(&lab.cx, &restore.key).await.unwrap();
            side.unstage(&lab.cx, &restore.key).await.unwrap();
            assert_eq!(names(&target), Vec::<String>::new());

            let prepared = provider.prepare(&lab.cx, &spec).await.unwrap();
            remount(&store, "ro");
            let before = everything(&store);
            let (cx, host) = (&lab.cx, "lab".parse().unwrap());
            assert_kind(provider.commit(cx, &prepared).await, &read_only);
            assert_kind(provider.discard(cx, &spec.token).await, &read_only);
            assert_kind(provider.prepare(cx, &lab.spec("t2")).await, &read_only);
            let data = snapshot_ref("data", "t0");
            assert_kind(provider.delete(cx, &data).await, &read_only);
            let key = ExposureKey::new("k").unwrap();
            assert_kind(provider.expose(cx, &[data], &host, &key).await, &read_only);
            let doc = DocName::new("doc").unwrap();
            assert_kind(provider.put_doc(cx, &doc, b"x").await, &read_only);
            assert_kind(FsProvider::open(&lab.config()), &read_only);
            // What only reads goes on.
            let t0 = "t0".parse().unwrap();
            assert!(matches!(provider.find(cx, &t0).await.unwrap(), Found::Complete(_)));
            assert_eq!(provider.list_docs(cx).await.unwrap(), vec![]);
            assert_eq!(everything(&store), before);
            remount(&store, "rw");
            assert_eq!(provider.discard(cx, &spec.token).await.unwrap(), Discarded::Gone);
            assert_eq!(lab.sets(), ["t0"]);
        });
    }

    #[test]
    #[ignore = "run by another test, without the right to read everything"]
    fn unreadable() {
        if may_mount() {
            check_unreadable();
        }
    }

    pub(super) fn check_unreadable() {
        let lab = Lab::new();
        let provider = lab.provider();
        let secret = lab.path("data/db one/DB01.edb");
        let spec = lab.spec("t1");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
        let error = assert_kind(
            lab.run(provider.prepare(&lab.cx, &spec)),
            &ProviderErrorKind::AccessDenied,
        );
        assert!(error.to_string().contains("DB01.edb"), "{error}");
        assert_eq!(error.effect(), Effect::None);
        assert_eq!(lab.sets(), Vec::<String>::new());
    }

    #[test]
    #[ignore = "run by another test, in a mount namespace of its own"]
    fn btrfs() {
        check_reflinks(&["mkfs.btrfs", "-q"]);
    }

    #[test]
    #[ignore = "run by another test, in a mount namespace of its own"]
    fn xfs() {
        check_reflinks(&["mkfs.xfs", "-q", "-m", "reflink=1"]);
    }

    #[test]
    #[ignore = "run by another test, in a mount namespace of its own"]
    fn fragmented_btrfs() {
        check_fragmented(&["mkfs.btrfs", "-q"]);
    }

    #[test]
    #[ignore = "run by another test, in a mount namespace of its own"]
    fn fragmented_xfs() {
        check_fragmented(&["mkfs.xfs", "-q", "-m", "reflink=1"]);
    }

    fn check_fragmented(mkfs: &[&str]) {
        const PIECES: u64 = 8000;
        if !may_mount() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let lab = Lab::at(&mount_new(place.path(), mkfs));
        let pieces = fs::File::create(lab.path("data/pieces.edb")).unwrap();
        for piece in 0..PIECES {
            use std::os::unix::fs::FileExt as _;
            pieces.write_all_at(&noise(4096), piece * 8192).unwrap();
        }
        drop(pieces);
        let config = lab.config().with_mode(CloneMode::Reflink);
        let provider = FsProvider::open(&config).unwrap();
        lab.run(async {
            // 8000 extents at 30 µs each are 240 ms, and 100 ms beside them.
            let short = lab.spec("t1").with_limit(Some(Duration::from_millis(300)));
            let error = provider.prepare(&lab.cx, &short).await.unwrap_err();
            let ProviderErrorKind::TooSlow { worst_case, limit } = error.kind() else {
                panic!("{error}")
            };
            assert!(*worst_case >= Duration::from_millis(340), "{error}");
            assert_eq!(*limit, Duration::from_millis(300));
            let remedy = error.remedy();
            // XFS may have set aside room between the pieces; those are extents, too.
            let (_, number) = remedy.split_once("pieces.edb, which has ").unwrap();
            let (number, _) = number.split_once(" of them").unwrap();
            assert!(number.parse::<u64>().unwrap() >= PIECES, "{error}: {remedy}");
            assert_eq!(error.effect(), Effect::None);
            assert_eq!(lab.sets(), Vec::<String>::new());
            // With time enough it is taken, and is what it was.
            let long = lab.spec("t1").with_limit(Some(Duration::from_mins(10)));
            let prepared = provider.prepare(&lab.cx, &long).await.unwrap();
            assert!(prepared.worst_case.unwrap() >= Duration::from_millis(340));
            provider.commit(&lab.cx, &prepared).await.unwrap();
            SnapshotProvider::settle(&provider, &lab.cx, &prepared).await.unwrap();
        });
        assert_eq!(tree(&lab.path("store/sets/t1/m0")), tree(&lab.path("data")));
    }

    #[test]
    #[ignore = "run by another test, in a mount namespace of its own"]
    fn xfs_without() {
        if !may_mount() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let lab = Lab::at(&mount_new(place.path(), &["mkfs.xfs", "-q", "-m", "reflink=0"]));
        let refused = FsProvider::open(&lab.config().with_mode(CloneMode::Reflink));
        assert_kind(refused, &ProviderErrorKind::Unsupported("instant"));
        let provider = lab.provider();
        assert!(!provider.caps().instant);
        let limited = lab.spec("t1").with_limit(Some(Duration::from_secs(20)));
        let refused = lab.run(provider.prepare(&lab.cx, &limited));
        assert_kind(refused, &ProviderErrorKind::Unsupported("instant"));
        lab.take(&provider, "t2");
        assert_eq!(tree(&lab.path("store/sets/t2/m0")), tree(&lab.path("data")));
    }

    /// Makes a file system in a file of this folder, and mounts it.
    fn mount_new(place: &Path, mkfs: &[&str]) -> std::path::PathBuf {
        let (image, at) = (place.join("image"), place.join("mnt"));
        fs::File::create(&image).unwrap().set_len(600 << 20).unwrap();
        fs::create_dir(&at).unwrap();
        let (image, mounted) = (image.to_str().unwrap(), at.to_str().unwrap());
        run(mkfs[0], &[&mkfs[1..], &[image]].concat());
        run("mount", &["-o", "loop", image, mounted]);
        at
    }

    /// Large enough that a copy would show in the free room.
    const LARGE: usize = 48 << 20;

    fn check_reflinks(mkfs: &[&str]) {
        if !may_mount() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let at = mount_new(place.path(), mkfs);
        let lab = Lab::at(&at);
        lab.write("data/large.edb", &noise(LARGE));
        rustix::fs::sync();

        let demanding = lab.config().with_mode(CloneMode::Reflink);
        let provider = FsProvider::open(&demanding).unwrap();
        assert!(provider.caps().instant);
        let spec = lab.spec("t1").with_limit(Some(Duration::from_secs(20)));
        let originals = tree(&lab.path("data"));
        lab.run(async {
            let free = || crate::prepare::free_bytes(&at).unwrap();
            let before = free();
            let prepared = provider.prepare(&lab.cx, &spec).await.unwrap();
            let worst = prepared.worst_case.unwrap();
            assert!(worst < Duration::from_secs(20), "{worst:?}");
            println!("worst case of the commit {worst:?}");
            provider.commit(&lab.cx, &prepared).await.unwrap();
            // Written after the commit, the source does not change the snapshot.
            lab.write("data/db one/DB01.edb", b"overwritten");
            let set = SnapshotProvider::settle(&provider, &lab.cx, &prepared).await.unwrap();
            rustix::fs::sync();
            let used = before.saturating_sub(free());
            assert!(used < (LARGE / 4) as u64, "the clones took {used} bytes");
            assert_eq!(set[0].bytes, None);
            assert_eq!(tree(&lab.path("store/sets/t1/m0")), originals);
            for file in &set[0].files {
                let inside = file.path.relative_to(&lab.host_path("data")).unwrap();
                file.seal.as_ref().unwrap().check_all(&originals[&inside].0).unwrap();
            }
            // A limit that no clone can hold is refused.
            let short = lab.spec("t2").with_limit(Some(Duration::from_millis(1)));
            let refused = provider.prepare(&lab.cx, &short).await.unwrap_err();
            assert!(matches!(refused.kind(), ProviderErrorKind::TooSlow { .. }), "{refused}");
            assert_eq!(lab.sets(), ["t1"]);

            let restore = lab.restore_spec("r1", "t1", "target");
            let side: &dyn SnapshotRestore = &provider;
            let staged = side.stage(&lab.cx, &restore).await.unwrap();
            assert_eq!(staged.bytes, 0, "by clone (S7)");
            side.publish(&lab.cx, &restore.key).await.unwrap();
            side.settle(&lab.cx, &restore.key).await.unwrap();
            assert_eq!(tree(&lab.path("target/data")), originals);
            assert_eq!(names(&lab.path("target")), ["data", "logs"]);

            let stored = lab.path("store/sets/t1/m0/large.edb");
            let mut bytes = fs::read(&stored).unwrap();
            bytes[40 << 20] ^= 1;
            fs::set_permissions(&stored, fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(&stored, bytes).unwrap();
            let again = lab.restore_spec("r2", "t1", "target/again");
            let error = assert_kind(side.stage(&lab.cx, &again).await, &ProviderErrorKind::Damaged);
            assert!(error.to_string().contains("offset 41943040"), "{error}");
            assert_eq!(names(&lab.path("target")), ["data", "logs"]);
        });

        // A store on another file system: copies, or a refusal where reflinks are demanded.
        let elsewhere = tempfile::tempdir().unwrap();
        let config = FsConfig { store: elsewhere.path().join("store"), ..lab.config() };
        assert!(!FsProvider::open(&config).unwrap().caps().instant);
        let refused = FsProvider::open(&config.with_mode(CloneMode::Reflink));
        assert_kind(refused, &ProviderErrorKind::Unsupported("instant"));
    }
}
