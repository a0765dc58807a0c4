//! The daemon killed and started again, many times over simulated weeks: each due time has one job or one reason.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::{Either, select};
use stillpoint::model::schedule::{
    AttachmentId, Blackout, Missed, Overrun, Schedule, StoredSchedule, Window,
};
use stillpoint::workflow::testing::Sim;
use stillpoint::{Scheduler, SchedulerOptions, Stillpoint};
use stillpoint_testkit::Fault;

use crate::outside::{
    MARGIN, Outside, TERM, attach, daily, due_jobs, finish, hourly, idle, put_group, put_policy,
};

/// How often it is killed, unless `SIM_KILLS` says otherwise: 200 times are weeks, over the days on which clocks change.
const KILLS: u64 = 40;

/// Schedules of all kinds.
fn schedules() -> Vec<Schedule> {
    let mut often = hourly("often");
    often.missed = Missed::All { most: 3 };
    often.overrun = Overrun::Queue;
    let mut coalesced = hourly("coalesced");
    coalesced.zone = crate::outside::zone("Europe/Berlin");
    let mut nightly = daily("nightly", 2, 30, "Europe/Berlin");
    nightly.jitter = Duration::from_mins(20);
    let mut rare = daily("rare", 4, 0, "America/New_York");
    (rare.missed, rare.overrun) = (Missed::Skip, Overrun::Skip);
    let from = chrono::NaiveTime::from_hms_opt(12, 0, 0).unwrap();
    let to = chrono::NaiveTime::from_hms_opt(14, 30, 0).unwrap();
    let window = Window::Weekly { on: vec![chrono::Weekday::Wed], from, to };
    often.blackouts.push(Blackout { name: "cut-over".into(), window });
    vec![often, coalesced, nightly, rare]
}

/// A scheduler that looks for what is new only now and then: in simulated weeks that counts.
fn start_calm(this: &Stillpoint) -> Scheduler {
    let mut options = SchedulerOptions::default();
    options.beat = Duration::from_mins(10);
    this.start_scheduler(options)
}

/// One life: it ends at an instant, or at a poll of whatever was about to happen.
fn live(outside: &Outside, sim: &Sim, dies: u64) -> Duration {
    let this = outside.process(sim);
    sim.run(async {
        let _scheduler = start_calm(&this);
        let life = std::pin::pin!(async {
            let time = Duration::from_secs(dies % (6 * 3600));
            crate::common::pause(this.seams(), time).await;
        });
        // Some die in the middle of something.
        let polls = if dies.is_multiple_of(3) { dies % 4001 } else { u64::MAX };
        match select(life, std::pin::pin!(sim.polled(polls))).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    });
    sim.seams().clock.mono().0
}

/// What is wrong with the due times of one attachment.
async fn wrong(
    this: &Stillpoint,
    id: AttachmentId,
    stored: &StoredSchedule,
    since: DateTime<Utc>,
) -> Vec<String> {
    let attached = this.attached().await.unwrap();
    let ledger = attached.into_iter().find(|known| known.id == id).unwrap().ledger.unwrap();
    let mut jobs: BTreeMap<DateTime<Utc>, u32> = BTreeMap::new();
    for (due, job) in due_jobs(this).await {
        if job.group == Some(id.group) {
            assert!(job.state().is_final(), "{job:#?}");
            *jobs.entry(due).or_default() += 1;
        }
    }
    let lapses = this.lapses(Some(id), u32::MAX).await.unwrap();
    let mut wrong = Vec::new();
    let schedule = stored.attached(id);
    let firings = schedule.firings(since).take_while(|firing| firing.due <= ledger.considered);
    let mut due_times = 0;
    for firing in firings {
        let jobs = jobs.remove(&firing.due).unwrap_or(0);
        let reasons = lapses.iter().filter(|recorded| recorded.lapse.has(firing.due)).count();
        if (jobs, reasons) != (1, 0) && (jobs, reasons) != (0, 1) {
            wrong.push(format!("{}: {jobs} jobs, {reasons} reasons", firing.due));
        }
        due_times += 1;
    }
    wrong.extend(jobs.into_keys().map(|due| format!("{due}: a job, and it was not due")));
    let counted: u64 = lapses.iter().map(|recorded| recorded.lapse.count).sum();
    assert!(counted < due_times || due_times == 0, "{counted} lapses of {due_times} due times");
    wrong
}

fn killed_and_restarted(seed: u64, kills: u64) {
    // From before the clocks of Europe and America go forward until after.
    let first = Sim::starting_at(seed, Duration::from_hours(24 * 60));
    let outside = Outside::new(idle(2, 2));
    let (ids, since) = first.run(async {
        let this = outside.process(&first);
        put_policy(&this).await;
        let mut ids = Vec::new();
        for (number, schedule) in (1..).zip(schedules()) {
            let name = outside.world.database(&format!("DB0{number}"));
            let members = vec![stillpoint::model::group::Selector::Database(name)];
            let group = put_group(&this, number, members).await;
            ids.push(attach(&this, &group, schedule).await);
        }
        (ids, this.seams().clock.now())
    });
    // Every now and then a backup takes hours, so that its schedule comes due meanwhile.
    for nth in [3, 9, 27, 50, 90] {
        outside.world.faults().on("begin").nth(nth).inject(Fault::Slow(Duration::from_mins(150)));
    }
    let mut at = first.seams().clock.mono().0;
    for kill in 0..kills {
        let random = Sim::new(seed.wrapping_mul(1_000_003).wrapping_add(kill)).random();
        let sim = Sim::starting_at(seed.wrapping_add(kill), at);
        at = live(&outside, &sim, random);
        // Down for a while: mostly minutes, sometimes more than a day.
        let down = if kill % 20 == 7 { 100_000 } else { random / 7 % 5400 };
        at += Duration::from_secs(down);
    }
    let last = Sim::starting_at(seed, at + TERM + MARGIN);
    last.run(async {
        let this = outside.process(&last);
        let scheduler = start_calm(&this);
        crate::common::pause(this.seams(), Duration::from_hours(30)).await;
        finish(&this, &scheduler).await;
        let mut all = Vec::new();
        for id in &ids {
            let stored = this.schedule(id.schedule).await.unwrap().unwrap();
            let found = wrong(&this, *id, &stored, since).await;
            all.extend(found.into_iter().map(|what| format!("{}: {what}", stored.schedule.name)));
        }
        assert!(all.is_empty(), "{} due times are wrong: {all:#?}", all.len());
        let lasted = this.seams().clock.now() - since;
        let jobs = due_jobs(&this).await.len() as u64;
        assert!(lasted > TimeDelta::minutes(150 * kills.cast_signed()), "{lasted}");
        assert!(2 * jobs > 3 * kills, "{jobs}");
        println!("{kills} kills in {} days: {jobs} jobs", lasted.num_days());
        for host in outside.world.hosts() {
            assert!(!outside.world.is_frozen(&host), "{host} is frozen");
        }
    });
}

/// Seeds and numbers can be given: `SIM_SEED=7 SIM_KILLS=200 cargo test -p stillpoint --test scheduled killed`.
#[test]
fn each_due_time_has_one_job_or_one_reason_however_often_the_daemon_is_killed() {
    let given = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let (only, kills) = (given("SIM_SEED"), given("SIM_KILLS").unwrap_or(KILLS));
    let seeds = only.map_or(1..=1_u64, |seed| seed..=seed);
    for seed in seeds {
        let run = std::panic::catch_unwind(|| killed_and_restarted(seed, kills));
        if let Err(panic) = run {
            println!(
                "seed {seed} failed; replay it with: SIM_SEED={seed} SIM_KILLS={kills} cargo test -p stillpoint --test scheduled killed"
            );
            std::panic::resume_unwind(panic);
        }
    }
}
