//! What a commit costs beside the calls of the kernel that it makes, printed: run it by its name, with `--ignored --nocapture`
//! and in release. Nothing is asserted of times.

// Tests may panic; their helpers are no test functions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stillpoint_context::{Cx, HostPath};
use stillpoint_storage::{MemberRole, MemberSpec, PrepareSpec, SnapshotProvider};
use stillpoint_workflow::TokioSeams;

use crate::inside::{inside, mount_new, run};
use crate::{BtrfsConfig, BtrfsProvider, ioctl};

/// Rounds of each; the median counts.
const ROUNDS: usize = 7;

#[test]
#[ignore = "it measures"]
fn a_commit_beside_the_bare_calls() {
    inside("btrfs", "speed::a_commit_beside_the_bare_calls", || {
        for count in [1, 8, 64] {
            let (through, bare) = measure(count);
            let ratio = through.as_secs_f64() / bare.as_secs_f64();
            println!("{count:3} subvolumes: commit {through:?}, bare calls {bare:?}: {ratio:.2}");
        }
    });
}

#[test]
#[ignore = "it measures"]
fn a_listing_of_ten_thousand_and_a_look_for_one() {
    inside("btrfs", "speed::a_listing_of_ten_thousand_and_a_look_for_one", || {
        let place = tempfile::tempdir().unwrap();
        let at = mount_new("btrfs", place.path());
        let lab = Lab::new(&at, 1);
        lab.runtime.block_on(async {
            // One after the other, through the provider, would take minutes; what is listed is the same.
            let spec = lab.spec("first");
            let prepared = lab.provider.prepare(&lab.cx, &spec).await.unwrap();
            lab.provider.commit(&lab.cx, &prepared).await.unwrap();
            lab.provider.settle(&lab.cx, &prepared).await.unwrap();
            let volume = spec.members[0].volume.clone();
            let source = File::open(at.join("v0")).unwrap();
            let record = fs::read_to_string(at.join("store/sets/first/set.json")).unwrap();
            let number = std::env::var("LISTED").map_or(10_000, |text| text.parse().unwrap());
            for index in 1..number {
                let token = format!("more-{index}");
                let set = at.join("store/sets").join(&token);
                fs::create_dir_all(set.join("m0")).unwrap();
                let folder = File::open(set.join("m0")).unwrap();
                ioctl::snap_create(&source, &folder, "v", true).unwrap();
                let made = ioctl::subvol_info(&File::open(set.join("m0/v")).unwrap()).unwrap();
                let uuid = uuid::Uuid::from_bytes(made.uuid).to_string();
                let first = record.split("\"subvolume\": \"").nth(1).unwrap();
                let first = first.split('"').next().unwrap();
                let record = record.replace("\"first\"", &format!("\"{token}\""));
                fs::write(set.join("set.json"), record.replace(first, &uuid)).unwrap();
            }
            let began = Instant::now();
            let (mut page, mut found) = (None, 0);
            loop {
                let listing = lab.provider.list(&lab.cx, &volume, page).await.unwrap();
                found += listing.snapshots.iter().filter(|s| s.token.is_some()).count();
                page = listing.next;
                if page.is_none() {
                    break;
                }
            }
            println!("{found} snapshots listed in {:?}", began.elapsed());
            let began = Instant::now();
            let token = format!("more-{}", number / 2).parse().unwrap();
            let _found = lab.provider.find(&lab.cx, &token).await.unwrap();
            println!("one found among them in {:?}", began.elapsed());
        });
    });
}

struct Lab {
    runtime: tokio::runtime::Runtime,
    cx: Cx,
    provider: BtrfsProvider,
    volumes: Vec<PathBuf>,
}

impl Lab {
    fn new(at: &Path, count: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
        let cx = Cx::detached(&TokioSeams::on(runtime.handle().clone()));
        let mut config =
            BtrfsConfig::new("btrfs".parse().unwrap(), "lab".parse().unwrap(), at.join("store"));
        let volumes: Vec<_> = (0..count).map(|index| at.join(format!("v{index}"))).collect();
        for volume in &volumes {
            run("btrfs", &["subvolume", "create", volume.to_str().unwrap()]);
            fs::write(volume.join("DB.edb"), b"x").unwrap();
            config = config.with_volume(volume);
        }
        let provider = BtrfsProvider::open(&config).unwrap();
        Self { runtime, cx, provider, volumes }
    }

    fn spec(&self, token: &str) -> PrepareSpec {
        let mut spec = PrepareSpec::new(token.parse().unwrap(), token);
        for volume in &self.volumes {
            let file =
                HostPath::from_native("lab".parse().unwrap(), &volume.join("DB.edb")).unwrap();
            let volume = self.provider.volume(volume).unwrap();
            spec = spec.with_member(MemberSpec::new(volume, MemberRole::DataAndLog, vec![file]));
        }
        spec
    }

    fn write(&self) {
        for volume in &self.volumes {
            fs::write(volume.join("DB.edb"), vec![7; 512 << 10]).unwrap();
        }
    }
}

/// The median times of a commit and of the bare calls in as many threads, both after what waits in memory was written out.
fn measure(count: usize) -> (Duration, Duration) {
    let place = tempfile::tempdir().unwrap();
    let at = mount_new("btrfs", place.path());
    let lab = Lab::new(&at, count);
    let (mut through, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        lab.write();
        through.push(lab.runtime.block_on(async {
            let spec = lab.spec(&format!("round-{round}"));
            let prepared = lab.provider.prepare(&lab.cx, &spec).await.unwrap();
            let began = Instant::now();
            lab.provider.commit(&lab.cx, &prepared).await.unwrap();
            let took = began.elapsed();
            lab.provider.settle(&lab.cx, &prepared).await.unwrap();
            took
        }));
        lab.write();
        let opened = lab.volumes.iter().enumerate().map(|(index, volume)| {
            let folder = at.join(format!("bare-{round}-{index}"));
            fs::create_dir(&folder).unwrap();
            (File::open(volume).unwrap(), File::open(&folder).unwrap())
        });
        let opened: Vec<_> = opened.collect();
        for _ in 0..2 {
            rustix::fs::syncfs(File::open(&at).unwrap()).unwrap();
        }
        let began = Instant::now();
        std::thread::scope(|scope| {
            for (source, folder) in &opened {
                scope.spawn(|| ioctl::snap_create(source, folder, "v", true).unwrap());
            }
        });
        bare.push(began.elapsed());
    }
    through.sort();
    bare.sort();
    (through[ROUNDS / 2], bare[ROUNDS / 2])
}
