//! Values as they are written on a command line.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};

use crate::model::policy::LogRetention;

/// A time such as `90s`, `4h` or `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "write a number and a unit, such as 8s or 4h")?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" | "min" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        _ => return Err("the unit must be ms, s, m, h or d".to_owned()),
    }
    .ok_or_else(|| "that is too long".to_owned())
}

/// A number of bytes such as `4096`, `500m` or `200g`: in units of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| "write a number of bytes, such as 500m or 200g")?;
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err("the unit must be k, m, g or t".to_owned()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "that is too much".to_owned())
}

/// A day, which means its beginning in UTC, or an instant.
pub(crate) fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    text.parse().map_err(|_| {
        "write a day or an instant, such as 2027-01-31 or 2027-01-31T12:00:00Z".to_owned()
    })
}

/// How long logs are kept.
pub(crate) fn log_retention(text: &str) -> Result<LogRetention, String> {
    let number = |digits: &str| {
        let number: u32 = digits.parse().ok().filter(|number| *number > 0)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(number)
    };
    let days = text.strip_suffix('d').and_then(number).map(LogRetention::Days);
    let fulls = text.strip_suffix("fulls").and_then(number).map(LogRetention::FollowFulls);
    match text {
        "as-fulls" => Ok(LogRetention::AsFulls),
        "none" => Ok(LogRetention::None),
        _ => days.or(fulls).ok_or_else(|| {
            "write as-fulls, none, a number of fulls such as 3fulls, or of days such as 10d"
                .to_owned()
        }),
    }
}

/// A choice.
pub(crate) fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("write yes or no".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("4h"), Ok(Duration::from_hours(4)));
        for bad in ["", "4", "h", "4 h", "-4h", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bytes_are_read_with_their_unit() {
        assert_eq!((bytes("4096"), bytes("500m")), (Ok(4096), Ok(500 << 20)));
        assert_eq!((bytes("1k"), bytes("2g"), bytes("3t")), (Ok(1024), Ok(2 << 30), Ok(3 << 40)));
        for bad in
            ["", "m", "-1", "1.5g", "4 k", "4x", "18446744073709551616", "18446744073709551615k"]
        {
            assert!(bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn how_long_logs_are_kept_is_read() {
        for (text, wanted) in [
            ("as-fulls", LogRetention::AsFulls),
            ("none", LogRetention::None),
            ("3fulls", LogRetention::FollowFulls(3)),
            ("10d", LogRetention::Days(10)),
        ] {
            assert_eq!(log_retention(text), Ok(wanted));
        }
        for bad in
            ["", "3", "0d", "0fulls", "-1d", "+1d", "1.5d", "fulls", "d", "3 fulls", "4294967296d"]
        {
            assert!(log_retention(bad).is_err(), "{bad:?}");
        }
        assert_eq!((yes_or_no("yes"), yes_or_no("no")), (Ok(true), Ok(false)));
        assert!(yes_or_no("true").is_err());
    }

    #[test]
    fn ends_are_days_or_instants() {
        assert_eq!(instant("2027-01-31").unwrap().to_rfc3339(), "2027-01-31T00:00:00+00:00");
        assert_eq!(
            instant("2027-01-31T12:00:00+02:00").unwrap().to_rfc3339(),
            "2027-01-31T10:00:00+00:00"
        );
        for bad in ["", "tomorrow", "2027-02-30", "2027-01-31T12:00:00"] {
            assert!(instant(bad).is_err(), "{bad:?}");
        }
    }
}
