//! Turns seconds since 1970 into the fields of a calendar in UTC.

/// A moment in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub year: i64,
    /// From 1.
    pub month: i64,
    /// From 1.
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
}

/// The moment of a time that is not before 1970.
pub(crate) fn moment(time: i64) -> Moment {
    let time = time.max(0);
    let (days, seconds) = (time / 86_400, time % 86_400);
    // Days to year, month and day by eras of 400 years that begin in March (Howard Hinnant, "chrono-compatible date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Moment { year, month, day, hour: seconds / 3600, minute: seconds / 60 % 60, second: seconds % 60 }
}

#[cfg(test)]
mod tests {
    use super::{Moment, moment};

    #[test]
    fn days_are_those_of_the_calendar() {
        for (time, year, month, day, hour, minute, second) in [
            (0, 1970, 1, 1, 0, 0, 0),
            (-5, 1970, 1, 1, 0, 0, 0),
            (951_782_399, 2000, 2, 28, 23, 59, 59),
            (951_782_400, 2000, 2, 29, 0, 0, 0),
            (1_760_000_000, 2025, 10, 9, 8, 53, 20),
            (4_107_542_400, 2100, 3, 1, 0, 0, 0),
        ] {
            assert_eq!(moment(time), Moment { year, month, day, hour, minute, second }, "{time}");
        }
    }
}
