//! Turns the bytes of an NTP packet into the time that a server says it is, or into why that is not taken (RFC 5905, 7.3 and 7.4).
use std::time::Duration;

/// Bytes of a packet without extensions.
pub const LEN: usize = 48;
/// Server mode; a client's is 3.
const SERVER: u8 = 4;
const CLIENT: u8 = 3;
/// Seconds from 1900 to 1970.
const EPOCH: i128 = 2_208_988_800;
/// Seconds until the 32 bits of seconds begin anew: an era (RFC 5905, 6).
const ERA: i128 = 1 << 32;
const NANOS: i128 = 1_000_000_000;
/// From this stratum on a server has no time itself.
const UNSYNCHRONISED: u8 = 16;
/// What no clock and no machine is better than: two threads may be kept waiting between reading a clock and sending.
const PRECISION: Duration = Duration::from_millis(1);
/// A server whose time may be off by more is of no use (RFC 5905, MAXDIST).
const FARTHEST: Duration = Duration::from_millis(1500);
/// How much longer than the question took a server may say that it worked on it: its clock may be slewed meanwhile.
const TOLERANCE: i128 = 10_000_000;

/// A question. `cookie` comes back with the answer to it, and nobody who does not see it can guess that; it tells nothing of this machine's clock.
#[must_use]
pub fn question(cookie: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    // No leap warning, version 4.
    bytes[0] = 4 << 3 | CLIENT;
    bytes[40..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

/// What a server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// When it got the question, and when it answered: seconds of an unknown era and their 2^32nds.
    received: u64,
    sent: u64,
    /// How far its own time may be off.
    root: Duration,
}

/// Why what came is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is no answer to this question: a true one may come yet.
    Stray,
    /// The server serves this machine no more (`DENY`, `RSTR`).
    Denied(&'static str),
    /// It is asked too often (`RATE`).
    TooOften,
    /// It has no time itself, or what it says cannot be.
    Unsound(String),
}

/// How this machine's clock is off by one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds to add to the clock.
    pub offset: i128,
    /// How far that may be wrong, in nanoseconds.
    pub distance: i128,
}

/// Reads what came as the answer to the question with this cookie.
///
/// # Errors
/// Why it is not one to be taken.
pub fn read(bytes: &[u8], cookie: u64) -> Result<Answer, Refused> {
    let word = |at: usize| -> Option<u32> { Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
    let long = |at: usize| -> Option<u64> { Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
    let fields = || Some((*bytes.first()?, *bytes.get(1)?, word(4)?, word(8)?, bytes.get(12..16)?, long(24)?));
    let (Some((flags, stratum, delay, dispersion, reference, origin)), Some(received), Some(sent)) =
        (fields(), long(32), long(40))
    else {
        return Err(Refused::Stray);
    };
    let (leap, version, mode) = (flags >> 6, flags >> 3 & 7, flags & 7);
    // Before all else: whoever cannot see the question can say nothing here, not even that it is refused.
    if origin != cookie || mode != SERVER || !(3..=4).contains(&version) {
        return Err(Refused::Stray);
    }
    match (stratum, reference) {
        (0, b"DENY") => return Err(Refused::Denied("DENY")),
        (0, b"RSTR") => return Err(Refused::Denied("RSTR")),
        (0, b"RATE") => return Err(Refused::TooOften),
        (0, code) => return Err(Refused::Unsound(format!("it has no time ({})", letters(code)))),
        _ if stratum >= UNSYNCHRONISED || leap == 3 => return Err(unsound("it has no time itself")),
        _ if received == 0 || sent == 0 => return Err(unsound("its answer has no time in it")),
        _ => {}
    }
    Ok(Answer { received, sent, root: short(delay) / 2 + short(dispersion) })
}

fn unsound(why: &str) -> Refused {
    Refused::Unsound(why.to_owned())
}

/// A code of four letters, whatever bytes it is.
fn letters(code: &[u8]) -> String {
    code.iter().map(|byte| if byte.is_ascii_alphanumeric() { char::from(*byte) } else { '.' }).collect()
}

/// NTP's short format: seconds and their 2^16ths. A negative delay, which is one of a few microseconds, is a very long one here, and so refused.
fn short(value: u32) -> Duration {
    Duration::from_nanos((u64::from(value) * 1_000_000_000) >> 16)
}

impl Answer {
    /// Holds the answer against this machine's clock, which said `asked` (nanoseconds since 1970) when the question was sent; the answer was there after
    /// `took`. Of the times that the server's could be, it is the one less than 68 years from `near` (seconds since 1970).
    ///
    /// # Errors
    /// [`Refused::Unsound`]: the times cannot be true, or the answer came from too far away.
    pub fn against(&self, asked: i128, took: Duration, near: i64) -> Result<Sample, Refused> {
        let (received, sent) = (nanos(self.received, near), nanos(self.sent, near));
        let took = i128::try_from(took.as_nanos()).unwrap_or(i128::MAX / 4);
        let worked = sent - received;
        if worked < 0 || worked > took + TOLERANCE {
            return Err(unsound("its answer's two times do not go together"));
        }
        let delay = (took - worked).max(0);
        let root = i128::try_from(self.root.as_nanos()).unwrap_or(i128::MAX / 4);
        let distance = delay / 2 + root + precision();
        if distance > i128::try_from(FARTHEST.as_nanos()).unwrap_or_default() {
            return Err(Refused::Unsound(format!("its time may be off by {} ms", distance / 1_000_000)));
        }
        Ok(Sample { offset: ((received - asked) + (sent - asked - took)) / 2, distance })
    }
}

fn precision() -> i128 {
    i128::try_from(PRECISION.as_nanos()).unwrap_or_default()
}

/// Nanoseconds since 1970 of a time whose era is unknown.
fn nanos(time: u64, near: i64) -> i128 {
    let (seconds, fraction) = (i128::from(time >> 32) - EPOCH, i128::from(time & 0xffff_ffff));
    let first = i128::from(near) - ERA / 2;
    let eras = (first - seconds + ERA - 1).div_euclid(ERA);
    (seconds + eras * ERA) * NANOS + ((fraction * NANOS) >> 32)
}

#[cfg(test)]
mod tests;
