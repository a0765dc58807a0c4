//! One line for each method that `clippy.toml` disallows, under the very path that it names there.

#![allow(clippy::let_underscore_future)]

use std::time::Duration;

pub fn std_clocks() {
    let _ = std::time::SystemTime::now();
    let _ = std::time::Instant::now();
    std::thread::sleep(Duration::ZERO);
    let _ = std::thread::spawn(|| ());
    let _ = std::thread::Builder::spawn(std::thread::Builder::new(), || ());
}

pub fn chrono_clocks() {
    let _ = chrono::Utc::now();
    let _ = chrono::Local::now();
}

pub fn tokio_tasks(handle: &tokio::runtime::Handle) {
    let _ = tokio::spawn(async {});
    let _ = tokio::task::spawn(async {});
    let _ = tokio::task::spawn_local(async {});
    let _ = tokio::task::spawn_blocking(|| ());
    let _ = tokio::runtime::Handle::spawn(handle, async {});
    let _ = tokio::runtime::Handle::spawn_blocking(handle, || ());
}

pub fn tokio_runtimes(runtime: &tokio::runtime::Runtime, set: &mut tokio::task::JoinSet<()>) {
    let _ = tokio::runtime::Runtime::spawn(runtime, async {});
    let _ = tokio::runtime::Runtime::spawn_blocking(runtime, || ());
    let _ = tokio::task::JoinSet::spawn(set, async {});
    let _ = tokio::task::JoinSet::spawn_blocking(set, || ());
}

pub fn tokio_timers() {
    let at = tokio::time::Instant::now();
    let _ = tokio::time::sleep(Duration::ZERO);
    let _ = tokio::time::sleep_until(at);
    let _ = tokio::time::timeout(Duration::ZERO, async {});
    let _ = tokio::time::timeout_at(at, async {});
    let _ = tokio::time::interval_at(at, Duration::from_secs(1));
    let _ = tokio::time::interval(Duration::from_secs(1));
}

pub fn random_ids() {
    let _ = uuid::Uuid::new_v4();
    let _ = uuid::Uuid::now_v7();
}
