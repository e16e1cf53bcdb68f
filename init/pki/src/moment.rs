//! Writes moments as Kubernetes and people's logs do: RFC 3339 in UTC, `2027-01-31T00:00:00Z`.
use time::UtcOffset;
use time::format_description::well_known::Rfc3339;

use crate::OffsetDateTime;

/// A moment as text. Fractions of a second are left out.
pub fn moment(time: OffsetDateTime) -> String {
    let time = time.checked_to_offset(UtcOffset::UTC).unwrap_or(time);
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    // RFC 3339 has four digits for the year; what is beyond is still told.
    whole.format(&Rfc3339).unwrap_or_else(|_| whole.to_string())
}
