//! How fast due times are found: the next firing of 100,000 schedules from cold, and one step of a timetable of as many.
//!
//! `cargo bench -p stillpoint-benches --bench schedule` prints one table, with a floor measured in the same run: the civil time of
//! as many instants in as many zones, and a push and a pop of a heap of as many entries.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking and prints its table"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, TimeDelta, Utc, Weekday};
use stillpoint::model::schedule::{MonthDay, Rule, Schedule, Timetable, Zone};
use stillpoint_benches::table::{best, is_wanted, micros_each, time, verdict};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The goals of the project: seconds for all of them from cold, microseconds for one due time.
const COLD: f64 = 1.0;
const STEP: f64 = 20.0;

/// Schedules of all kinds in all zones.
fn schedules(count: u32) -> Vec<Schedule> {
    let zones: Vec<Zone> = Zone::all().collect();
    let at = |n: u32| NaiveTime::from_hms_opt(n % 24, n % 60, 0).unwrap();
    (0..count)
        .map(|n| {
            let rule = match n % 6 {
                0 => Rule::Hourly { every: NonZeroU32::MIN, minute: n % 60 },
                1 => Rule::Daily { at: at(n) },
                2 => Rule::Weekly { on: vec![Weekday::Mon, Weekday::Fri], at: at(n) },
                3 => Rule::Monthly { on: MonthDay::LastOf(Weekday::Sat), at: at(n) },
                4 => Rule::Every { interval: Duration::from_secs(u64::from(600 + n % 3600)) },
                _ => Rule::Cron(format!("{} {} * * MON-FRI", n % 60, n % 24).parse().unwrap()),
            };
            let zone = zones[usize::try_from(n).unwrap() * 7 % zones.len()];
            let mut schedule = Schedule::new(format!("schedule {n}"), rule, zone);
            schedule.jitter = Duration::from_secs(u64::from(n % 3) * 60);
            schedule
        })
        .collect()
}

fn begin() -> DateTime<Utc> {
    // A day before clocks go forward in Europe, so that some of them meet a jump.
    "2026-03-28T12:00:00Z".parse().unwrap()
}

/// Microseconds for each due time of some hours, looked for whenever one comes.
fn steps(table: &mut Timetable, hours: i64) -> (f64, usize) {
    let (mut now, mut count) = (begin(), 0);
    let end = now + TimeDelta::hours(hours);
    let taken = time(|| {
        while now < end {
            let tick = table.tick(now);
            count += tick.due.len();
            now = tick.wake.map_or(end, |wake| wake.min(end));
        }
    });
    (micros_each(taken, count.max(1)), count)
}

fn floor(all: &[Schedule]) -> (f64, f64) {
    let civil = best(3, || {
        for (n, schedule) in (0..).zip(all) {
            black_box(schedule.zone.civil(begin() + TimeDelta::seconds(n)));
        }
    });
    let mut heap: BinaryHeap<_> =
        all.iter().map(|one| Reverse((begin(), one.name.clone()))).collect();
    let moves = best(3, || {
        for n in 0..100_000 {
            let Some(Reverse((_, name))) = heap.pop() else { return };
            heap.push(Reverse((begin() + TimeDelta::seconds(n), name)));
        }
    });
    (civil.as_secs_f64(), micros_each(moves, 100_000))
}

fn main() {
    let count = if is_wanted() { 100_000 } else { 1_000 };
    let all = schedules(count);
    let next = best(if is_wanted() { 3 } else { 1 }, || {
        for schedule in &all {
            black_box(schedule.next(begin()));
        }
    });
    let mut table = Timetable::new();
    let put = time(|| {
        for schedule in &all {
            table.put(schedule.clone(), begin()).unwrap();
        }
    });
    let (step, due) = steps(&mut table, if is_wanted() { 6 } else { 1 });
    assert!(due > 0);
    let (civil, moves) = floor(&all);
    if !is_wanted() {
        return;
    }
    let cold = next.as_secs_f64();
    println!("\n{count} schedules of all kinds in all zones\n");
    println!("| what | found | floor | goal | |");
    println!("|---|---|---|---|---|");
    println!(
        "| next firing of each, cold | {cold:.3} s | {civil:.3} s | {COLD} s | {} |",
        verdict(cold <= COLD)
    );
    println!("| put into a timetable, checked | {:.3} s | | | |", put.as_secs_f64());
    println!(
        "| one due time ({due} of them) | {step:.2} µs | {moves:.2} µs | {STEP} µs | {} |",
        verdict(step <= STEP)
    );
}
