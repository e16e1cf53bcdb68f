//! What can come between a machine and its root on a server: each trouble in one line that says what to do, and whether to try again.
use std::fmt;
use std::time::Duration;

use crate::http;

/// How long it is tried while not a byte comes: a server that starts with the rest of its rack takes minutes.
const GIVE_UP: Duration = Duration::from_secs(300);
/// How long in all: a transfer that always breaks off does not go on for ever.
const IN_ALL: Duration = Duration::from_secs(3600);
/// The first pause before another attempt, and the longest.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Memory for what runs on the root: a node needs this at the least.
pub const BESIDES: u64 = 256 << 20;
const MIB: u64 = 1 << 20;

/// Why there is no root yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// No link has an address; the text says why.
    NoNetwork(String),
    /// The server cannot be reached, or answers nonsense.
    Silent(String),
    /// It answers with another status than 200, and where it sends to instead.
    Status(u16, Option<String>),
    /// It does not say how long the file is.
    NoLength,
    /// The body ended early: bytes that came, and that were to come.
    BrokeOff(u64, u64),
    /// The file's digest is another one.
    Digest(String),
    /// Memory is too little: bytes that are wanted for the root, that are free, and that there are.
    Memory(u64, u64, u64),
    /// The file could not be kept in memory.
    Kept(String),
}

/// What there was before the next attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    /// Attempts.
    pub attempts: u32,
    /// Of these, such as brought a file with another digest.
    pub others: u32,
    /// How long nothing of the file has come.
    pub quiet: Duration,
    /// How long it is tried.
    pub all: Duration,
}

impl Trouble {
    /// Whether bytes of the file have come before it.
    #[must_use]
    pub fn brought_something(&self) -> bool {
        matches!(self, Self::Digest(_) | Self::BrokeOff(1.., _))
    }

    /// The pause before the next attempt. `None` where another one would bring the same, or there were enough.
    #[must_use]
    pub fn again(&self, tried: Tried) -> Option<Duration> {
        let lasts = match self {
            Self::Memory(..) | Self::Kept(_) | Self::NoLength => true,
            Self::Status(status, _) => !http::may_pass(*status),
            // A file that was being replaced is whole at the second attempt.
            Self::Digest(_) => tried.others > 1,
            Self::NoNetwork(_) | Self::Silent(_) | Self::BrokeOff(..) => false,
        };
        let pause = LONGEST_PAUSE.min(PAUSE.saturating_mul(1 << tried.attempts.saturating_sub(1).min(8)));
        (!lasts && tried.quiet + pause < GIVE_UP && tried.all < IN_ALL).then_some(pause)
    }
}

/// Whether there is memory for a root of `bytes`, where it is known: `free` of `all` are available.
///
/// # Errors
/// There is too little.
pub fn room(bytes: u64, free: u64, all: u64) -> Result<(), Trouble> {
    if free >= bytes.saturating_add(BESIDES) { Ok(()) } else { Err(Trouble::Memory(bytes, free, all)) }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNetwork(why) => {
                write!(f, "there is no network: {why}; look at cable and DHCP server, or give ip= on the kernel command line")
            }
            Self::Silent(why) => write!(f, "the server cannot be asked: {why}; is it on, and in this machine's reach?"),
            Self::Status(404, _) => {
                f.write_str("the server has no such file (404): put all that kscratch-image build --format pxe wrote onto it, and look at kscratch.root")
            }
            Self::Status(status, Some(to)) if (300..400).contains(status) => {
                write!(f, "the server sends to {to} ({status}), and nobody is followed from here: give kscratch.root that URL, where it begins with http://")
            }
            Self::Status(status, _) if *status >= 500 => write!(f, "the server has a fault of its own (it answers {status}): look at its log"),
            Self::Status(status @ (408 | 429), _) => write!(f, "the server is busy (it answers {status}): look at its log"),
            Self::Status(status, _) => write!(f, "the server does not give the file (it answers {status}): let it serve that to everybody"),
            Self::NoLength => f.write_str("the server does not say how long the file is (Content-Length): have it served as a plain file"),
            Self::BrokeOff(at, of) => {
                write!(f, "the transfer broke off after {} of {} MiB: look at the cable, and at the server's log", at / MIB, of / MIB)
            }
            Self::Digest(found) => {
                write!(f, "what the server sent is not the root of this kernel (its SHA-256 is {found}), and nothing of it is used: put kernel, initramfs and root of one build onto it")
            }
            Self::Memory(bytes, free, all) => {
                let (wanted, besides) = (bytes.div_ceil(MIB), BESIDES / MIB);
                let least = (all.saturating_sub(*free) + bytes + BESIDES).div_ceil(MIB).next_multiple_of(64);
                let (free, all) = (free / MIB, all / MIB);
                write!(f, "the machine has too little memory: its root takes {wanted} MiB and what runs on it {besides} at the least, and {free} of {all} are free; give it {least} MiB or more")
            }
            Self::Kept(why) => write!(f, "the root cannot be kept in memory: {why}; give the machine more of it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Tried, Trouble, room};

    #[test]
    fn what_may_pass_is_tried_again_and_what_lasts_is_not() {
        let silent = || Trouble::Silent(String::new());
        for (trouble, nth, since, want) in [
            (silent(), 1, 0, Some(2)),
            (silent(), 2, 9, Some(4)),
            (silent(), 3, 9, Some(8)),
            (silent(), 4, 9, Some(15)),
            (silent(), 4_000_000_000, 200, Some(15)),
            (silent(), 9, 290, None),
            (Trouble::NoNetwork(String::new()), 1, 30, Some(2)),
            (Trouble::BrokeOff(1, 2), 1, 30, Some(2)),
            (Trouble::Status(503, None), 1, 0, Some(2)),
            (Trouble::Status(429, None), 1, 0, Some(2)),
            (Trouble::Status(404, None), 1, 0, None),
            (Trouble::Status(301, None), 1, 0, None),
            (Trouble::Digest(String::new()), 1, 0, Some(2)),
            (Trouble::Digest(String::new()), 2, 0, None),
            (Trouble::NoLength, 1, 0, None),
            (Trouble::Memory(1, 2, 3), 1, 0, None),
            (Trouble::Kept(String::new()), 1, 0, None),
        ] {
            let want = want.map(Duration::from_secs);
            let tried = Tried {
                attempts: nth,
                others: nth,
                quiet: Duration::from_secs(since),
                all: Duration::from_secs(since),
            };
            assert_eq!(trouble.again(tried), want, "{trouble:?} {nth} {since}");
        }
        // What brings something is gone on with, for an hour.
        let tried = |all: u64| Tried { attempts: 9, others: 1, quiet: Duration::ZERO, all: Duration::from_secs(all) };
        assert_eq!(Trouble::BrokeOff(1, 2).again(tried(3599)), Some(Duration::from_secs(15)));
        assert_eq!(Trouble::BrokeOff(1, 2).again(tried(3600)), None);
        assert_eq!(Trouble::Digest(String::new()).again(tried(900)), Some(Duration::from_secs(15)));
        assert!(Trouble::BrokeOff(1, 2).brought_something() && !Trouble::BrokeOff(0, 2).brought_something());
    }

    #[test]
    fn memory_is_counted_before_anything_is_fetched() {
        let mib = |count: u64| count << 20;
        assert_eq!(room(mib(480), mib(736), mib(1000)), Ok(()));
        let short = room(mib(480), mib(735), mib(1000)).unwrap_err();
        let want = "the machine has too little memory: its root takes 480 MiB and what runs on it 256 at the least, and 735 of 1000 are free; give it 1024 MiB or more";
        assert_eq!(short.to_string(), want);
        assert!(room(u64::MAX, 0, 0).is_err());
    }

    #[test]
    fn every_trouble_is_one_line_that_says_what_to_do() {
        let text = String::from;
        for (trouble, want) in [
            (Trouble::NoNetwork(text("no card")), "there is no network: no card; look at cable and DHCP server"),
            (Trouble::Silent(text("connecting to h")), "the server cannot be asked: connecting to h; is it on"),
            (Trouble::Status(404, None), "the server has no such file (404): put all that"),
            (
                Trouble::Status(302, Some(text("http://g/"))),
                "the server sends to http://g/ (302), and nobody is followed",
            ),
            (Trouble::Status(302, None), "the server does not give the file (it answers 302)"),
            (Trouble::Status(403, None), "the server does not give the file (it answers 403): let it"),
            (Trouble::Status(502, None), "the server has a fault of its own (it answers 502): look"),
            (Trouble::NoLength, "the server does not say how long the file is (Content-Length): have"),
            (Trouble::BrokeOff(5 << 20, 9 << 20), "the transfer broke off after 5 of 9 MiB: look"),
            (
                Trouble::Digest(text("00")),
                "what the server sent is not the root of this kernel (its SHA-256 is 00), and nothing of it is used: put",
            ),
            (Trouble::Kept(text("no space")), "the root cannot be kept in memory: no space; give"),
        ] {
            let line = trouble.to_string();
            assert!(line.starts_with(want) && !line.contains('\n'), "{line}");
        }
    }
}
