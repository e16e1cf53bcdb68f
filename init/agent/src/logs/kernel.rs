//! Reads the kernel's log, which init's lines stand in too, off the descriptor that PID 1 has opened: with the rights of this process nobody could.
use std::collections::BTreeMap;
use std::io::Stdin;
use std::rc::Rc;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use kscratch_pki::OffsetDateTime;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use time::Duration;

use super::places::{Place, Places};
use super::records::{Record, record};
use super::said::{Recipients, Said};

/// A record, its dictionary included, is shorter (kernel/printk/internal.h, `PRINTK_MESSAGE_MAX`).
const LONGEST: usize = 8 << 10;

/// Records that are read before the services get their turn.
const TURN: usize = 256;

/// The kernel's log as it comes.
#[derive(Debug)]
pub struct Kernel {
    input: Stdin,
    /// What each server was sent before, of this boot.
    sent: Vec<Option<u64>>,
    /// The last record that was there.
    last: Option<u64>,
    boot: Rc<str>,
    ended: bool,
}

impl Kernel {
    /// Takes the standard input.
    ///
    /// # Errors
    /// The kernel does not let it be read without waiting.
    pub fn on_standard_input(boot: Rc<str>, sent: &[Option<Places>]) -> Result<Self> {
        let input = std::io::stdin();
        rustix::io::ioctl_fionbio(&input, true).context("making the kernel's log non-blocking")?;
        let sent: Vec<Option<u64>> = sent.iter().map(|places| places.as_ref()?.kernel).collect();
        Ok(Self { input, sent, last: None, boot, ended: false })
    }

    /// Reads what there is, a bounded number of records, and says whether there may be more.
    ///
    /// # Errors
    /// The log cannot be read; it is not tried again.
    pub fn turn(&mut self, said: &mut Vec<Said>) -> Result<bool> {
        let start = start();
        let mut bytes = vec![0; 2 * LONGEST];
        for _ in 0..TURN {
            if self.ended {
                return Ok(false);
            }
            match rustix::io::read(&self.input, bytes.as_mut_slice()) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    if let Some(record) = record(bytes.get(..count).unwrap_or_default()) {
                        said.extend(self.missing(record.sequence));
                        said.push(self.said(record, start));
                    }
                }
                Err(Errno::AGAIN) => return Ok(false),
                // Records were overwritten; the next one that is there comes next, and its number tells.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(error) => {
                    self.ended = true;
                    return Err(error).context("reading the kernel's log");
                }
            }
        }
        Ok(true)
    }

    fn said(&self, record: Record, start: OffsetDateTime) -> Said {
        let unsent = |number: usize| match self.sent.get(number) {
            Some(sent) => sent.is_none_or(|sent| record.sequence > sent),
            None => false,
        };
        Said {
            time: start.saturating_add(record.at.try_into().unwrap_or(Duration::ZERO)),
            boot: Some(self.boot.clone()),
            source: record.source.into(),
            severity: record.severity,
            to: Recipients::of(unsent),
            passed: Recipients::default(),
            message: record.text,
            place: Some(Place::Kernel(record.sequence)),
        }
    }

    /// What there is to say where numbers are left out, to each server that was not sent those before. The first record of a boot has number 0.
    fn missing(&mut self, sequence: u64) -> Vec<Said> {
        let next = self.last.replace(sequence).map_or(0, |last| last.saturating_add(1));
        let mut servers: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (number, sent) in self.sent.iter().enumerate() {
            let next = sent.map_or(next, |sent| next.max(sent.saturating_add(1)));
            if let Some(count) = sequence.checked_sub(next).filter(|count| *count > 0) {
                servers.entry(count).or_default().push(number);
            }
        }
        let said = |(count, servers): (u64, Vec<usize>)| Said {
            time: OffsetDateTime::from(SystemTime::now()),
            boot: Some(self.boot.clone()),
            source: "logs".into(),
            severity: None,
            message: format!(
                "{count} lines of the kernel's log are missing here: they were gone before they were sent"
            ),
            place: None,
            to: Recipients::of(|number| servers.contains(&number)),
            passed: Recipients::default(),
        };
        servers.into_iter().map(said).collect()
    }
}

/// When the kernel was started, by the clock as it is now: one that was set meanwhile makes the first lines right, too.
fn start() -> OffsetDateTime {
    let monotonic = clock_gettime(ClockId::Monotonic);
    let since = Duration::seconds(monotonic.tv_sec).saturating_add(Duration::nanoseconds(monotonic.tv_nsec));
    OffsetDateTime::from(SystemTime::now()).saturating_sub(since)
}

#[cfg(test)]
mod tests {
    use super::Kernel;

    /// What two servers are told, as `count` or `-`, by the numbers of the records that are there and of those that they were sent.
    #[track_caller]
    fn check(sent: [Option<u64>; 2], there: &[u64], want: &[&str]) {
        let (input, sent) = (std::io::stdin(), sent.to_vec());
        let mut kernel = Kernel { input, sent, last: None, boot: "b1".into(), ended: false };
        let mut told = Vec::new();
        for sequence in there {
            let missing = kernel.missing(*sequence);
            let of = |number: usize| {
                let mut own = missing.iter().filter(|said| said.to.has(number));
                let first = own.next().and_then(|said| said.message.split(' ').next());
                assert!(own.next().is_none(), "{number} is told twice");
                first.unwrap_or("-").to_owned()
            };
            told.push(format!("{} {}", of(0), of(1)));
        }
        assert_eq!(told, want, "{there:?}");
    }

    #[test]
    fn who_was_not_sent_what_is_gone_is_told_how_much_it_is() {
        check([None, None], &[0, 1, 2], &["- -", "- -", "- -"]);
        check([None, None], &[5, 6, 9], &["5 5", "- -", "2 2"]);
        check([Some(3), None], &[5, 6], &["1 5", "- -"]);
        check([Some(7), None], &[5, 6, 9], &["- 5", "- -", "1 2"]);
        check([Some(20), Some(4)], &[5, 10], &["- -", "- 4"]);
    }
}
