//! What runs by itself: schedules, and the daemon.

use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, Utc, Weekday};
use clap::{Args, Subcommand, ValueEnum};
use stillpoint::model::schedule::{Blackout, CronRule, MonthDay, Window, Zone};

use super::value::{duration, instant};

/// What to do with schedules.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Show all, where each is attached, and when it is due next.
    List,
    /// Make one, and attach it if a group is named.
    Add {
        /// Its name.
        name: String,
        /// When it is due.
        #[command(flatten)]
        rule: RuleArgs,
        /// The rest.
        #[command(flatten)]
        edit: ScheduleEdit,
        /// Where it is attached.
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Make the next version of one: what is due from now on.
    Edit {
        /// Its name, or the beginning of its id.
        name: String,
        /// When it is due.
        #[command(flatten)]
        rule: RuleArgs,
        /// What changes.
        #[command(flatten)]
        edit: ScheduleEdit,
        /// Its new name.
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
    },
    /// Have one run a policy of a group from now on.
    Attach {
        /// Its name, or the beginning of its id.
        name: String,
        /// Where.
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// End that. Jobs under way go on.
    Detach {
        /// Its name, or the beginning of its id.
        name: String,
        /// Where.
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Show the next times at which one is due, with the reason for each that is shifted or skipped.
    Preview {
        /// Its name, or the beginning of its id.
        name: String,
        /// How many.
        #[arg(long, short = 'n', default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
        /// After this instant, such as 2026-03-28 or 2026-03-28T12:00:00Z. [default: now]
        #[arg(long, value_name = "TIME", value_parser = instant)]
        after: Option<DateTime<Utc>>,
    },
    /// Show the due times that became no jobs, newest first, with the reason for each; also of what is detached by now.
    Lapses {
        /// Of one, by its name or the beginning of its id. [default: of all]
        name: Option<String>,
        /// At most how many.
        #[arg(long, short = 'n', default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
    },
    /// Remove one that is attached to nothing.
    Remove {
        /// Its name, or the beginning of its id.
        name: String,
    },
    /// Say that the clock is right although it has gone back, so that schedules go on from now.
    BelieveClock,
}

/// Where a schedule is attached.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlaceArgs {
    /// The group, by name or id.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// The policy, by name or id. [default: the group's first]
    #[arg(long, short, value_name = "NAME", requires = "group")]
    pub(crate) policy: Option<String>,
}

/// When a schedule is due: one of these.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub(crate) struct RuleArgs {
    /// Whenever so much time has passed since its start, such as 6h.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) every: Option<Duration>,
    /// Each hour, at this minute.
    #[arg(long, value_name = "MINUTE", num_args = 0..=1, default_missing_value = "0")]
    pub(crate) hourly: Option<u32>,
    /// Each day, at this time, such as 02:30.
    #[arg(long, value_name = "HH:MM", value_parser = clock)]
    pub(crate) daily: Option<NaiveTime>,
    /// On days of the week, such as mon,thu@02:30.
    #[arg(long, value_name = "DAYS@HH:MM", value_parser = weekly)]
    pub(crate) weekly: Option<Weekly>,
    /// On a day of each month, such as 1@02:30, last@02:30, 2tue@02:30 or lastfri@02:30.
    #[arg(long, value_name = "DAY@HH:MM", value_parser = monthly)]
    pub(crate) monthly: Option<(MonthDay, NaiveTime)>,
    /// By a cron pattern of five fields, such as '30 2 * * MON-FRI', or of six with seconds in front.
    #[arg(long, value_name = "PATTERN", value_parser = cron)]
    pub(crate) cron: Option<CronRule>,
}

/// Days of the week, and a time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weekly {
    /// The days.
    pub(crate) on: Vec<Weekday>,
    /// The time.
    pub(crate) at: NaiveTime,
}

/// Settings of a schedule.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ScheduleEdit {
    /// In whose time it is, such as Europe/Berlin. [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub(crate) zone: Option<Zone>,
    /// Nothing is due before, such as 2026-12-24 or 2026-12-24T12:00:00Z. A day means its beginning in UTC.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) start: Option<DateTime<Utc>>,
    /// Nothing is due from then on.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) end: Option<DateTime<Utc>>,
    /// Each time is late by up to so much, such as 10m, so that not everything begins at once.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) jitter: Option<Duration>,
    /// At a time that clocks skip.
    #[arg(long)]
    pub(crate) gap: Option<GapWord>,
    /// At a time that clocks show twice.
    #[arg(long)]
    pub(crate) overlap: Option<OverlapWord>,
    /// What nobody was there for: skip, once, or make up for the latest N.
    #[arg(long, value_name = "skip|once|N", value_parser = missed)]
    pub(crate) missed: Option<stillpoint::model::schedule::Missed>,
    /// While a job of it is not over.
    #[arg(long)]
    pub(crate) overrun: Option<OverrunWord>,
    /// When nothing is due: a name, then days and times (sat,sun@22:00-06:00; daily@12:00-13:00) or two instants
    /// (2026-12-24T00:00:00Z..2026-12-27T00:00:00Z). May be given several times; replaces those that there are.
    #[arg(long, value_name = "NAME=WHEN", value_parser = blackout)]
    pub(crate) blackout: Vec<Blackout>,
    /// No blackouts any more.
    #[arg(long, conflicts_with = "blackout")]
    pub(crate) no_blackouts: bool,
}

/// At a time that clocks skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GapWord {
    /// As long after the jump as it would have been.
    Shift,
    /// Not that day.
    Skip,
}

/// At a time that clocks show twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverlapWord {
    /// The first time.
    First,
    /// The last time.
    Last,
    /// Both times.
    Both,
}

/// While a job of a schedule is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverrunWord {
    /// The next one waits behind it.
    Queue,
    /// The next one waits, and those that come due meanwhile are one with it.
    Coalesce,
    /// Nothing.
    Skip,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// How often the state file is looked at for what others have changed, at most once a second.
    #[arg(long, value_name = "TIME", value_parser = beat, default_value = "30s")]
    pub(crate) beat: Duration,
    /// How late a due time may be without being missed.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5m")]
    pub(crate) grace: Duration,
    /// How often the restore points are compared with what the storage has; `never` for not at all. What has changed is told, and
    /// restore points whose snapshots are gone are told to be missing.
    #[arg(long, value_name = "TIME", value_parser = rhythm, default_value = "1d")]
    pub(crate) reconcile_every: Rhythm,
    /// How long to wait for the first time.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
    pub(crate) reconcile_first: Duration,
    /// Delete snapshots of nobody that were noted so long ago; without it they are kept. Not where another state file shares the
    /// store: its restore points look like nobody's.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) delete_orphans_after: Option<Duration>,
    /// For how long jobs that are over are kept, with the records of their runs; `forever` for all of them. See `stillpoint catalogue
    /// forget`.
    #[arg(long, value_name = "TIME", value_parser = keeping, default_value = "400d")]
    pub(crate) keep_jobs: Keeping,
    /// How many operations of the storage (snapshots, deletions, restores) are under way at once; what is more waits in line.
    #[arg(long, value_name = "N")]
    pub(crate) storage_operations: Option<NonZeroU32>,
    /// What to do with jobs that are under way when it is told to end.
    #[arg(long, value_enum, default_value_t = OnStop::Finish)]
    pub(crate) on_stop: OnStop,
}

fn beat(text: &str) -> Result<Duration, String> {
    let every = duration(text)?;
    let is_busy = every < Duration::from_secs(1);
    if is_busy { Err("write a second or more".to_owned()) } else { Ok(every) }
}

/// How often something is done, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rhythm(pub(crate) Option<Duration>);

fn rhythm(text: &str) -> Result<Rhythm, String> {
    match text {
        "never" => Ok(Rhythm(None)),
        _ => match duration(text)? {
            Duration::ZERO => Err("write never, if that is meant".to_owned()),
            every => Ok(Rhythm(Some(every))),
        },
    }
}

/// How long something is kept, if it ever goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keeping(pub(crate) Option<Duration>);

fn keeping(text: &str) -> Result<Keeping, String> {
    match text {
        "forever" => Ok(Keeping(None)),
        _ => duration(text).map(Some).map(Keeping),
    }
}

/// What becomes of jobs under way when the daemon is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnStop {
    /// They are waited for.
    Finish,
    /// They are left, and carried on with by the next command or daemon.
    Leave,
}

fn clock(text: &str) -> Result<NaiveTime, String> {
    NaiveTime::parse_from_str(text, "%H:%M")
        .or_else(|_| NaiveTime::parse_from_str(text, "%H:%M:%S"))
        .map_err(|_| "write a time such as 02:30".to_owned())
}

fn zone(text: &str) -> Result<Zone, String> {
    let why = |error: stillpoint::model::schedule::ScheduleError| {
        format!("{error}; write a name of the tz database, such as Europe/Berlin")
    };
    text.parse().map_err(why)
}

fn cron(text: &str) -> Result<CronRule, String> {
    text.parse().map_err(|error: stillpoint::model::schedule::ScheduleError| error.to_string())
}

fn day(text: &str) -> Result<Weekday, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is no day of the week, such as mon"))
}

fn days(text: &str) -> Result<Vec<Weekday>, String> {
    text.split(',').map(day).collect()
}

fn at(text: &str) -> Result<(&str, &str), String> {
    text.split_once('@').ok_or_else(|| "write days, an @ and a time".to_owned())
}

fn weekly(text: &str) -> Result<Weekly, String> {
    let (on, time) = at(text)?;
    Ok(Weekly { on: days(on)?, at: clock(time)? })
}

fn monthly(text: &str) -> Result<(MonthDay, NaiveTime), String> {
    let (on, time) = at(text)?;
    let on = on.trim().to_lowercase();
    let which = match (on.strip_prefix("last"), on.parse()) {
        (Some(""), _) => MonthDay::Last,
        (Some(weekday), _) => MonthDay::LastOf(day(weekday)?),
        (None, Ok(number)) => MonthDay::Day(number),
        (None, Err(_)) => {
            let digits = on.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
            let nth = on[..digits].parse().map_err(|_| format!("{on:?} is no day of a month"))?;
            MonthDay::Nth { nth, weekday: day(&on[digits..])? }
        }
    };
    Ok((which, clock(time)?))
}

fn missed(text: &str) -> Result<stillpoint::model::schedule::Missed, String> {
    use stillpoint::model::schedule::Missed;
    match (text, text.parse()) {
        ("skip", _) => Ok(Missed::Skip),
        ("once", _) => Ok(Missed::Once),
        (_, Ok(most)) => Ok(Missed::All { most }),
        _ => Err("write skip, once or a number".to_owned()),
    }
}

fn blackout(text: &str) -> Result<Blackout, String> {
    let (name, when) = text.split_once('=').ok_or("write a name, an = and when")?;
    let window = if let Some((from, to)) = when.split_once("..") {
        let instant = |text: &str| {
            text.trim().parse::<DateTime<Utc>>().map_err(|_| format!("{text:?} is no instant"))
        };
        Window::Between { from: instant(from)?, to: instant(to)? }
    } else {
        let (on, times) = at(when)?;
        let (from, to) = times.split_once('-').ok_or("write two times with a - between")?;
        let on = if on == "daily" { Vec::new() } else { days(on)? };
        Window::Weekly { on, from: clock(from)?, to: clock(to)? }
    };
    Ok(Blackout { name: name.trim().to_owned(), window })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(hour: u32, minute: u32) -> NaiveTime {
        NaiveTime::from_hms_opt(hour, minute, 0).unwrap()
    }

    #[test]
    fn days_of_a_month_are_read() {
        let half_past = time(2, 30);
        for (text, wanted) in [
            ("1@02:30", MonthDay::Day(1)),
            ("last@02:30", MonthDay::Last),
            ("2tue@02:30", MonthDay::Nth { nth: 2, weekday: Weekday::Tue }),
            ("LastFri@02:30", MonthDay::LastOf(Weekday::Fri)),
        ] {
            assert_eq!(monthly(text), Ok((wanted, half_past)), "{text}");
        }
        for bad in ["", "1", "@02:30", "tue@02:30", "1@25:00", "lastx@02:30"] {
            assert!(monthly(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn weeks_and_blackouts_are_read() {
        let (on, at) = (vec![Weekday::Mon, Weekday::Thu], time(2, 30));
        assert_eq!(weekly("mon,Thursday@02:30"), Ok(Weekly { on, at }));
        let weekend = blackout("weekend=sat,sun@22:00-06:00").unwrap();
        let on = vec![Weekday::Sat, Weekday::Sun];
        assert_eq!(weekend.window, Window::Weekly { on, from: time(22, 0), to: time(6, 0) });
        let lunch = blackout("lunch=daily@12:00-13:00").unwrap();
        let (from, to) = (time(12, 0), time(13, 0));
        assert_eq!(lunch.window, Window::Weekly { on: vec![], from, to });
        let freeze = blackout("freeze=2026-12-24T00:00:00Z..2026-12-27T00:00:00Z").unwrap();
        assert!(matches!(freeze.window, Window::Between { .. }));
        for bad in ["x", "x=y", "x=sat@22:00", "x=2026..2027", "x=sat@22-23"] {
            assert!(blackout(bad).is_err(), "{bad:?}");
        }
    }
}
