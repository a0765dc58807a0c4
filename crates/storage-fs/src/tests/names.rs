//! Names and links that lead elsewhere, and configurations that make no sense.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use stillpoint_context::{Effect, ErrorFacts, HostPath, PathFlavor};
use stillpoint_model::handover::MemberRole;
use stillpoint_model::id::SetToken;
use stillpoint_storage::{
    Deleted, Discarded, Found, MemberSpec, PrepareSpec, ProviderErrorKind, SnapshotProvider,
    SnapshotRestore,
};

use super::support::{Lab, assert_kind, everything, noise, snapshot_ref, tree, volume_ref};
use crate::{CloneMode, FsConfig, FsProvider};

fn of(lab: &Lab, paths: &[HostPath]) -> PrepareSpec {
    let member = MemberSpec::new(volume_ref("data"), MemberRole::Data, paths.to_vec());
    PrepareSpec::new(SetToken::new("t1").unwrap(), "set")
        .with_member(member)
        .with_tag("lab", lab.path("").display().to_string())
}

#[test]
fn what_leads_out_of_the_volume_is_refused() {
    use ProviderErrorKind::{Invalid, PathEscapes, Vanished};
    let lab = Lab::new();
    let provider = lab.provider();
    lab.write("outside/secret", b"secret");
    symlink(lab.path("outside/secret"), lab.path("data/link")).unwrap();
    symlink(lab.path("outside"), lab.path("data/folder")).unwrap();
    symlink("../outside/secret", lab.path("data/relative")).unwrap();
    symlink("loop", lab.path("data/loop")).unwrap();
    symlink("nowhere", lab.path("data/broken")).unwrap();
    symlink(lab.path("store"), lab.path("data/store")).unwrap();
    fs::create_dir(lab.path("data/x.edb")).unwrap();
    let other_host = HostPath::new(
        "ex1".parse().unwrap(),
        PathFlavor::Posix,
        lab.path("data/link").to_str().unwrap(),
    )
    .unwrap();
    let windows = HostPath::new("lab".parse().unwrap(), PathFlavor::Windows, r"C:\data\x").unwrap();
    let cases = [
        (lab.host_path("data/link"), PathEscapes),
        (lab.host_path("data/folder/secret"), PathEscapes),
        (lab.host_path("data/relative"), PathEscapes),
        (lab.host_path("data/loop"), PathEscapes),
        (lab.host_path("data/store/store.json"), PathEscapes),
        (lab.host_path("outside/secret"), PathEscapes),
        (lab.host_path("data"), PathEscapes),
        (lab.host_path("logs/E00/E00.log"), PathEscapes),
        (other_host, PathEscapes),
        (windows, PathEscapes),
        (lab.host_path("data/broken"), Vanished),
        (lab.host_path("data/none"), Vanished),
        (lab.host_path("data/db one/DB01.edb/x"), Vanished),
        (lab.host_path("data/x.edb"), Invalid),
    ];
    let before = everything(&lab.path("store"));
    for (path, kind) in cases {
        let error =
            lab.run(provider.prepare(&lab.cx, &of(&lab, std::slice::from_ref(&path)))).unwrap_err();
        assert_eq!(*error.kind(), kind, "{path}: {error}");
        assert_eq!(error.effect(), Effect::None);
        assert_eq!(error.volume(), Some(&volume_ref("data")));
    }
    assert_eq!(everything(&lab.path("store")), before);
    // A named pipe neither blocks nor passes.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        lab.path("data/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_kind(
        lab.run(provider.prepare(&lab.cx, &of(&lab, &[lab.host_path("data/pipe")]))),
        &Invalid,
    );

    let asked = [
        "data/link",
        "data/folder/secret",
        "data/db one/DB01.edb",
        "data/db one/new",
        "outside/secret",
    ]
    .map(|path| lab.host_path(path));
    let placed = lab.run(provider.resolve(&lab.cx, &asked)).unwrap();
    let placed: Vec<_> = placed.iter().map(|p| (p.volume.id.as_str(), p.inside.as_str())).collect();
    assert_eq!(placed, [("data", "db one/DB01.edb"), ("data", "db one/new")]);
}

#[test]
fn a_link_put_in_between_preparation_and_commit_is_refused() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.write("outside/secret", b"secret");
    let database = lab.host_path("data/db one/DB01.edb");
    let prepared = lab.run(provider.prepare(&lab.cx, &of(&lab, &[database]))).unwrap();
    fs::remove_file(lab.path("data/db one/DB01.edb")).unwrap();
    symlink(lab.path("outside/secret"), lab.path("data/db one/DB01.edb")).unwrap();
    assert_kind(lab.run(provider.commit(&lab.cx, &prepared)), &ProviderErrorKind::PathEscapes);
    let discarded = lab.run(provider.discard(&lab.cx, &prepared.token)).unwrap();
    assert_eq!(discarded, Discarded::Gone);
}

#[test]
fn a_link_inside_the_volume_is_taken_under_its_own_name() {
    let lab = Lab::new();
    let provider = lab.provider();
    symlink(lab.path("data/zwei"), lab.path("data/current")).unwrap();
    let asked = lab.host_path("data/current/Größe 日本.edb");
    lab.run(async {
        let spec = of(&lab, &[asked.clone(), asked.clone()]);
        let prepared = provider.prepare(&lab.cx, &spec).await.unwrap();
        provider.commit(&lab.cx, &prepared).await.unwrap();
        let set = SnapshotProvider::settle(&provider, &lab.cx, &prepared).await.unwrap();
        assert_eq!(set[0].files.len(), 1, "a file named twice is taken once");
        assert_eq!(set[0].files[0].path, asked);
        let key = "k".parse().unwrap();
        let refs = [set[0].reference()];
        let exposure =
            provider.expose(&lab.cx, &refs, &"lab".parse().unwrap(), &key).await.unwrap();
        let at = exposure.find(&asked).unwrap().to_native().unwrap();
        assert_eq!(fs::read(at).unwrap(), noise(70_000));
    });
}

#[test]
fn a_volume_may_be_named_by_a_link_and_asked_by_both_names() {
    let lab = Lab::new();
    symlink(lab.path("data"), lab.path("alias")).unwrap();
    let config = FsConfig::new("fs".parse().unwrap(), "lab".parse().unwrap(), lab.path("store"))
        .with_volume("data".parse().unwrap(), lab.path("alias"))
        .with_mode(CloneMode::Copy);
    let provider = FsProvider::open(&config).unwrap();
    let named =
        HostPath::from_native("lab".parse().unwrap(), &lab.path("").join("alias/db one/DB01.edb"))
            .unwrap();
    let real = lab.host_path("data/zwei/Größe 日本.edb");
    lab.run(async {
        let spec = of(&lab, &[named.clone(), real.clone()]);
        let prepared = provider.prepare(&lab.cx, &spec).await.unwrap();
        provider.commit(&lab.cx, &prepared).await.unwrap();
        let set = SnapshotProvider::settle(&provider, &lab.cx, &prepared).await.unwrap();
        let refs = [set[0].reference()];
        let key = "k".parse().unwrap();
        let exposure =
            provider.expose(&lab.cx, &refs, &"lab".parse().unwrap(), &key).await.unwrap();
        for original in [&named, &real] {
            assert!(exposure.find(original).unwrap().to_native().unwrap().exists(), "{original}");
        }
        let mut spec = lab.restore_spec("r1", "t1", "target");
        spec.files.retain(|file| file.original == real);
        let side: &dyn SnapshotRestore = &provider;
        side.stage(&lab.cx, &spec).await.unwrap();
    });
}

#[test]
fn a_volume_inside_a_volume_is_one_of_its_own() {
    let lab = Lab::new();
    let config = lab.config().with_volume("inner".parse().unwrap(), lab.path("data/zwei"));
    let provider = FsProvider::open(&config).unwrap();
    let file = lab.host_path("data/zwei/Größe 日本.edb");
    let placed = lab.run(provider.resolve(&lab.cx, std::slice::from_ref(&file))).unwrap();
    assert_eq!(
        (placed[0].volume.id.as_str(), placed[0].inside.as_str()),
        ("inner", "Größe 日本.edb")
    );
    assert_kind(
        lab.run(provider.prepare(&lab.cx, &of(&lab, &[file]))),
        &ProviderErrorKind::PathEscapes,
    );
    symlink("zwei", lab.path("data/link")).unwrap();
    let around = of(&lab, &[lab.host_path("data/link/Größe 日本.edb")]);
    assert_kind(lab.run(provider.prepare(&lab.cx, &around)), &ProviderErrorKind::PathEscapes);
}

#[test]
fn tokens_that_are_no_names_reach_nothing() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    let before = everything(&lab.path("store"));
    for text in [".", "..", ".hidden", "t1.partial", "t1.discarded", "..."] {
        let token = SetToken::new(text).unwrap();
        lab.run(async {
            assert_kind(
                provider.prepare(&lab.cx, &lab.spec(text)).await,
                &ProviderErrorKind::Invalid,
            );
            assert_eq!(provider.discard(&lab.cx, &token).await.unwrap(), Discarded::Gone);
            assert_eq!(provider.find(&lab.cx, &token).await.unwrap(), Found::Absent);
            assert_eq!(
                provider.delete(&lab.cx, &snapshot_ref("data", text)).await.unwrap(),
                Deleted::Gone
            );
        });
    }
    for text in ["../docs", "a/b", "/"] {
        let deleted = lab.run(provider.delete(&lab.cx, &snapshot_ref("data", text)));
        assert_eq!(deleted.unwrap(), Deleted::Gone, "{text}");
    }
    assert_eq!(everything(&lab.path("store")), before);
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_and_makes_nothing() {
    use ProviderErrorKind::{Invalid, PathEscapes};
    let lab = Lab::new();
    let config =
        |store: &str| FsConfig::new("fs".parse().unwrap(), "lab".parse().unwrap(), lab.path(store));
    let with = |store: &str, volume: &str| {
        config(store).with_volume("v".parse().unwrap(), lab.path(volume))
    };
    symlink(lab.path("data"), lab.path("door")).unwrap();
    let raw = std::ffi::OsStr::from_bytes(b"bad-\xff");
    fs::create_dir(lab.path("").join(raw)).unwrap();
    let cases = [
        ("no volume", config("store"), Invalid),
        ("in the volume", with("data/store", "data"), Invalid),
        ("in the volume, by a link", with("door/deep/store", "data"), Invalid),
        ("around the volume", with("", "data"), Invalid),
        ("the same", with("data", "data"), Invalid),
        ("a file", with("store", "logs/E00/E00.log"), Invalid),
        (
            "twice",
            with("store", "data").with_volume("w".parse().unwrap(), lab.path("door")),
            Invalid,
        ),
        (
            "one name twice",
            with("store", "data").with_volume("v".parse().unwrap(), lab.path("logs")),
            Invalid,
        ),
        (
            "no text",
            config("store").with_volume("v".parse().unwrap(), lab.path("").join(raw)),
            PathEscapes,
        ),
        (
            "no text in the store",
            FsConfig { store: lab.path("").join(raw).join("s"), ..with("store", "data") },
            PathEscapes,
        ),
    ];
    fs::create_dir(lab.path("elsewhere")).unwrap();
    let before = tree(lab.folder.path());
    for (what, config, kind) in cases {
        let error = FsProvider::open(&config).expect_err(what);
        assert_eq!(*error.kind(), kind, "{what}: {error}");
        assert_eq!(error.effect(), Effect::None, "{what}");
    }
    assert!(!lab.path("store").exists() && !lab.path("data/store").exists());
    assert_eq!(tree(lab.folder.path()), before);
    // What is a file cannot be a store.
    FsProvider::open(&with("logs/E00/E00.log", "data")).unwrap_err();
    // Reflinks are demanded where there are none.
    let demanding = with("store", "data").with_mode(CloneMode::Reflink);
    if let Err(error) = FsProvider::open(&demanding) {
        assert_eq!(*error.kind(), ProviderErrorKind::Unsupported("instant"), "{error}");
    } else {
        println!("this file system has reflinks");
    }
}

#[test]
fn a_store_of_a_newer_program_is_left_alone() {
    let lab = Lab::new();
    drop(lab.provider());
    let mark = lab.path("store/store.json");
    let text = fs::read_to_string(&mark).unwrap();
    fs::write(&mark, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    let refused = FsProvider::open(&lab.config());
    assert_kind(refused, &ProviderErrorKind::Unsupported("stored format"));
    fs::write(&mark, "a letter").unwrap();
    assert_kind(FsProvider::open(&lab.config()), &ProviderErrorKind::NameTaken);
}

#[test]
fn names_that_look_like_ours_are_files_like_any_other() {
    let lab = Lab::new();
    for name in [
        "set.json",
        "plan.json",
        "lock",
        "m0/m0",
        ".plan.json.new",
        "trial",
        "a\\b",
        "con:1",
        "new\nline",
    ] {
        lab.write(&format!("data/{name}"), name.as_bytes());
    }
    let provider = lab.provider();
    lab.take(&provider, "t1");
    assert_eq!(tree(&lab.path("store/sets/t1/m0")), tree(&lab.path("data")));
    let spec = lab.restore_spec("r1", "t1", "target");
    lab.run(async {
        let side: &dyn SnapshotRestore = &provider;
        side.stage(&lab.cx, &spec).await.unwrap();
        side.publish(&lab.cx, &spec.key).await.unwrap();
        side.settle(&lab.cx, &spec.key).await.unwrap();
    });
    assert_eq!(tree(&lab.path("target/data")), tree(&lab.path("data")));
}

#[test]
fn a_store_that_has_to_be_there_is_not_made() {
    let lab = tempfile::tempdir().unwrap();
    let (data, store) = (lab.path().join("data"), lab.path().join("store"));
    fs::create_dir(&data).unwrap();
    let config = FsConfig::new("fs".parse().unwrap(), "lab".parse().unwrap(), &store)
        .with_volume("data".parse().unwrap(), &data);
    let existing = config.clone().with_existing_store();
    let refused = || {
        let error = FsProvider::open(&existing).unwrap_err();
        assert_eq!(*error.kind(), ProviderErrorKind::NotFound, "{error}");
    };
    refused();
    assert!(!store.exists());
    fs::create_dir(&store).unwrap();
    refused();
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0);
    assert!(!crate::is_store(&store));
    drop(FsProvider::open(&config).unwrap());
    assert!(crate::is_store(&store));
    drop(FsProvider::open(&existing).unwrap());
}
