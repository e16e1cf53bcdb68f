//! Turns offsets and times into words for people.
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const NANOS: i128 = 1_000_000_000;

/// A time in nanoseconds since 1970, to the second: `2026-11-24T12:34:56Z`; what no calendar reaches as a number.
pub(super) fn moment(nanos: i128) -> String {
    let seconds = nanos.div_euclid(NANOS);
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{seconds} s after 1970"))
}

/// How far a clock is off by this offset to the true time: `0.4 ms behind`, `3.204 s ahead`.
pub(super) fn off(offset: i128) -> String {
    format!("{} {}", length(offset), if offset < 0 { "ahead" } else { "behind" })
}

/// How far a server's time is from the others': `3.204 s later`.
pub(super) fn apart(offset: i128) -> String {
    format!("{} {}", length(offset), if offset < 0 { "earlier" } else { "later" })
}

fn length(nanos: i128) -> String {
    let nanos = nanos.unsigned_abs();
    let (seconds, rest) = (nanos / NANOS.unsigned_abs(), nanos % NANOS.unsigned_abs());
    match seconds {
        0 => format!("{}.{} ms", rest / 1_000_000, rest / 100_000 % 10),
        1..3600 => format!("{seconds}.{:03} s", rest / 1_000_000),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{apart, moment, off};

    #[test]
    fn offsets_are_told_as_people_tell_them() {
        for (offset, want) in [
            (0, "0.0 ms behind"),
            (-412_345, "0.4 ms ahead"),
            (128_900_000, "128.9 ms behind"),
            (3_204_567_890, "3.204 s behind"),
            (-7_380_000_000_000, "2 h 3 min ahead"),
            (i128::from(u64::MAX) * 1_000_000_000, "213503982334601 days behind"),
        ] {
            assert_eq!(off(offset), want);
        }
        assert_eq!(apart(-3_600_000_000_000), "1 h 0 min earlier");
        assert_eq!(moment(1_795_000_000_999_999_999), "2026-11-18T11:06:40Z");
        assert_eq!(moment(-1), "1969-12-31T23:59:59Z");
        assert_eq!(moment(i128::MAX), format!("{} s after 1970", i128::MAX / 1_000_000_000));
    }
}
