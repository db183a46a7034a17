//! Calendar dates (proleptic Gregorian, UTC, no leap seconds) for log lines and certificates.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A second of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// For instance 2026.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

/// English names, as the common log format wants them.
pub const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

const DAY: i64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01: years begin in March below, so that the leap day is last.
const EPOCH: i64 = 719_468;
/// Days in 400 years, after which the calendar repeats.
const ERA: i64 = 146_097;

impl Civil {
    /// The date that is `seconds` after 1970-01-01T00:00:00Z.
    pub fn from_unix(seconds: i64) -> Civil {
        let days = seconds.div_euclid(DAY) + EPOCH;
        let (era, day_of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
        // A leap day ends every 4th year (1,460 days after the last), save every 100th (36,524),
        // but not every 400th (146,096).
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - days_before_year(year_of_era);
        // Months from March have 31, 30, 31, 30, 31 days, over and over: 153 days in five.
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - days_before_month(month_from_march) + 1;
        let month = (month_from_march + 2) % 12 + 1;
        let time = seconds.rem_euclid(DAY);
        Civil {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: month as u8,
            day: day as u8,
            hour: (time / 3_600) as u8,
            minute: (time / 60 % 60) as u8,
            second: (time % 60) as u8,
        }
    }

    /// The date of a point in time, its fraction of a second cut off.
    pub fn of(time: SystemTime) -> Civil {
        Civil::from_unix(unix_millis(time).div_euclid(1_000))
    }

    /// Seconds since 1970-01-01T00:00:00Z; `None` when this is no date.
    pub fn to_unix(self) -> Option<i64> {
        let in_range = (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            && self.second < 60;
        if !in_range {
            return None;
        }
        let year = self.year - i64::from(self.month <= 2);
        let day_of_year =
            days_before_month((i64::from(self.month) + 9) % 12) + i64::from(self.day) - 1;
        let days =
            year.div_euclid(400) * ERA + days_before_year(year.rem_euclid(400)) + day_of_year
                - EPOCH;
        let time =
            i64::from(self.hour) * 3_600 + i64::from(self.minute) * 60 + i64::from(self.second);
        Some(days * DAY + time)
    }

    /// The same as a point in time.
    pub fn to_system_time(self) -> Option<SystemTime> {
        let seconds = self.to_unix()?;
        let distance = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        }
    }
}

/// Milliseconds since 1970; negative before it.
pub fn unix_millis(time: SystemTime) -> i64 {
    // Not `as_millis`: a division of 128 bits for every line of a log.
    let millis = |time: Duration| time.as_secs() as i64 * 1_000 + i64::from(time.subsec_millis());
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    }
}

/// Writes a point in time as RFC 3339 does, in UTC.
#[derive(Debug, Clone, Copy)]
pub struct Rfc3339 {
    date: Civil,
    millis: Option<u16>,
}

impl Rfc3339 {
    /// As in `2026-03-04T05:06:07Z`.
    pub fn seconds(time: SystemTime) -> Rfc3339 {
        Rfc3339 {
            date: Civil::of(time),
            millis: None,
        }
    }

    /// As in `2026-03-04T05:06:07.089Z`.
    pub fn millis(time: SystemTime) -> Rfc3339 {
        Rfc3339 {
            date: Civil::of(time),
            millis: Some(unix_millis(time).rem_euclid(1_000) as u16),
        }
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self.date;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if let Some(millis) = self.millis {
            write!(f, ".{millis:03}")?;
        }
        f.write_str("Z")
    }
}

fn days_before_year(year_of_era: i64) -> i64 {
    365 * year_of_era + year_of_era / 4 - year_of_era / 100
}

fn days_before_month(month_from_march: i64) -> i64 {
    (153 * month_from_march + 2) / 5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn civil(year: i64, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Civil {
        Civil {
            year,
            month,
            day,
            hour,
            minute,
            second,
        }
    }

    #[test]
    fn known_dates() {
        // The right-hand side is what `date -u -d @N` prints.
        for (unix, date) in [
            (0, civil(1970, 1, 1, 0, 0, 0)),
            (-1, civil(1969, 12, 31, 23, 59, 59)),
            (951_782_399, civil(2000, 2, 28, 23, 59, 59)),
            (951_782_400, civil(2000, 2, 29, 0, 0, 0)),
            (951_868_800, civil(2000, 3, 1, 0, 0, 0)),
            (1_234_567_890, civil(2009, 2, 13, 23, 31, 30)),
            (4_107_542_400, civil(2100, 3, 1, 0, 0, 0)),
        ] {
            assert_eq!(Civil::from_unix(unix), date);
            assert_eq!(date.to_unix(), Some(unix));
        }
    }

    #[test]
    fn every_day_of_eight_centuries_follows_the_one_before() {
        let first = civil(1800, 1, 1, 0, 0, 0).to_unix().unwrap();
        let mut yesterday = Civil::from_unix(first - DAY);
        for n in 0..=ERA * 2 {
            let today = Civil::from_unix(first + n * DAY);
            assert_eq!(today.to_unix(), Some(first + n * DAY));
            let leap = today.year % 4 == 0 && today.year % 100 != 0 || today.year % 400 == 0;
            let length = match yesterday.month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = match (yesterday.month, yesterday.day) {
                (12, 31) => (yesterday.year + 1, 1, 1),
                (month, day) if day == length => (yesterday.year, month + 1, 1),
                (month, day) => (yesterday.year, month, day + 1),
            };
            assert_eq!((today.year, today.month, today.day), expected);
            yesterday = today;
        }
    }

    #[test]
    fn written_as_rfc_3339() {
        let time = UNIX_EPOCH + Duration::from_millis(1_234_567_890_007);
        assert_eq!(Rfc3339::seconds(time).to_string(), "2009-02-13T23:31:30Z");
        assert_eq!(
            Rfc3339::millis(time).to_string(),
            "2009-02-13T23:31:30.007Z"
        );
        let before = UNIX_EPOCH - Duration::from_millis(1);
        assert_eq!(
            Rfc3339::millis(before).to_string(),
            "1969-12-31T23:59:59.999Z"
        );
    }

    #[test]
    fn what_is_no_date_has_no_time() {
        assert_eq!(civil(2026, 0, 1, 0, 0, 0).to_unix(), None);
        assert_eq!(civil(2026, 13, 1, 0, 0, 0).to_unix(), None);
        assert_eq!(civil(2026, 1, 1, 24, 0, 0).to_unix(), None);
    }
}
