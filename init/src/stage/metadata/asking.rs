//! Asks a server for the metadata until it has given them, and keeps the machine's leases meanwhile.
//!
//! It goes on for as long as nobody stops the machine: a rack that comes back from a power cut may be there hours before its server, and nobody walks
//! along it then. A start anew, as where a root is not to be had, would bring nothing but its own time: the links that are there are looked at again with
//! each attempt, and the event loop hears the power button beside it.
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use kscratch_netlink::{LinkNews, Netlink};
use rustix::event::{PollFd, PollFlags, poll};

use super::patience::Patience;
use crate::apply::lease::{self, Keeper};
use crate::apply::network::{self, Link};
use crate::apply::steps::Machine;
use crate::log;
use crate::source::Text;
use crate::source::http::{self, Trouble};
use crate::sys::Sys;

/// How long it may take until it is noticed that the machine stops.
const STOPS_WITHIN: Duration = Duration::from_secs(1);

/// Asks for the text that the URL names, however often; nothing where the machine stops. `again` looks after the network before each attempt but the first.
///
/// # Errors
/// What another attempt would not change.
pub(super) fn ask(
    (sys, url): (&dyn Sys, &str),
    machine: &mut Machine<'_>,
    stop: &AtomicBool,
    mut again: impl FnMut(&mut Machine<'_>) -> Result<()>,
) -> Result<Option<Text>> {
    let mut keeping = Keeping::open()?;
    let mut patience = Patience::default();
    loop {
        let trouble = match keeping.during(&mut machine.leases, || http::fetch(sys, url))? {
            Ok(text) => return Ok(Some(text)),
            Err(Trouble::Lasts(error)) => return Err(error),
            Err(Trouble::Passes(error)) => error,
        };
        let words = words(&trouble, &machine.leases);
        if patience.tells(&words, log::monotonic()) {
            log::line(format_args!("role metadata: {words}; asked for again until they are there"));
        }
        let end = log::monotonic() + patience.pause();
        match keeping.until(&mut machine.leases, Until::Time(end), stop)? {
            Woken::Stops => return Ok(None),
            Woken::Leased => patience.begin_anew(),
            Woken::Over => {}
        }
        if let Err(error) = again(machine) {
            log::debug(format_args!("the network that the metadata are asked for over: {error:#}"));
        }
    }
}

/// The trouble in one line; where no link that asks for an address has one, that is the reason.
fn words(trouble: &Error, leases: &[Keeper]) -> String {
    let text = format!("{trouble:#}").replace('\n', "; ");
    if leases.is_empty() || leases.iter().any(|keeper| keeper.address().is_some()) {
        return text;
    }
    format!("{text} ({})", lease::why_none(&leases.iter().collect::<Vec<_>>()))
}

/// How long leases are kept here.
enum Until<'a> {
    /// Until this time, or until there is another address.
    Time(Duration),
    /// Until this end of a pipe has lost its other one.
    Ended(BorrowedFd<'a>),
}

/// Why they are not kept here any longer.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    /// What was waited for is over.
    Over,
    /// A link has a lease that it had not.
    Leased,
    /// The machine stops.
    Stops,
}

/// Keeps leases while something else is waited for.
struct Keeping {
    news: LinkNews,
    /// Links that the keepers have to be told of.
    changed: Vec<Link>,
}

impl Keeping {
    fn open() -> Result<Self> {
        // Open before it is looked: a carrier that comes in between is news.
        let news = LinkNews::open()?;
        Ok(Self { news, changed: network::links(&mut Netlink::open()?)? })
    }

    /// Keeps them while work is done in a thread: an offer of an address does not wait until a server is found not to answer.
    fn during<T: Send>(&mut self, leases: &mut [Keeper], work: impl FnOnce() -> T + Send) -> Result<T> {
        let (ended, end) = io::pipe().context("making a pipe")?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // It goes with this thread, however that ends.
                let _end = end;
                work()
            });
            let kept = self.until(leases, Until::Ended(ended.as_fd()), &AtomicBool::new(false));
            let done = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            kept.map(|_| done)
        })
    }

    fn until(&mut self, leases: &mut [Keeper], until: Until<'_>, stop: &AtomicBool) -> Result<Woken> {
        loop {
            let leased = self.turn(leases)?;
            let now = log::monotonic();
            let mut next = now + STOPS_WITHIN;
            if let Until::Time(end) = until {
                if stop.load(Ordering::Relaxed) {
                    return Ok(Woken::Stops);
                }
                if leased {
                    return Ok(Woken::Leased);
                }
                if now >= end {
                    return Ok(Woken::Over);
                }
                next = next.min(end);
            }
            next = leases.iter().filter_map(Keeper::next_deadline).fold(next, Duration::min);
            let timeout = rustix::time::Timespec::try_from(next.saturating_sub(now)).context("waiting for a server")?;
            let mut sources: Vec<PollFd<'_>> = leases.iter().map(|keeper| PollFd::new(keeper, PollFlags::IN)).collect();
            sources.push(PollFd::new(&self.news, PollFlags::IN));
            if let Until::Ended(pipe) = until {
                sources.push(PollFd::from_borrowed_fd(pipe, PollFlags::IN));
            }
            match poll(&mut sources, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for a server"),
            }
            let ended = sources.last().is_some_and(|source| !source.revents().is_empty());
            if ended && matches!(until, Until::Ended(_)) {
                return Ok(Woken::Over);
            }
        }
    }

    /// Does what is due; says whether a link has a lease now that it had not.
    fn turn(&mut self, leases: &mut [Keeper]) -> Result<bool> {
        let now = log::monotonic();
        match self.news.read()? {
            Some(messages) => self.changed.extend(messages.iter().filter_map(network::read_link)),
            // Some were lost.
            None => self.changed = network::links(&mut Netlink::open()?)?,
        }
        let addressed = |leases: &[Keeper]| leases.iter().filter(|keeper| keeper.address().is_some()).count();
        let before = addressed(leases);
        for keeper in leases.iter_mut() {
            let mut changes: Vec<lease::Change> =
                self.changed.iter().flat_map(|link| keeper.link_changed(link, now)).collect();
            changes.extend(keeper.timer(now));
            changes.extend(keeper.readable(now));
            for change in changes {
                log::line(format_args!("link {} {change}", keeper.link()));
            }
        }
        self.changed.clear();
        Ok(addressed(leases) > before)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Result, bail};

    use super::ask;
    use crate::apply::steps::Machine;
    use crate::http::tests::server;
    use crate::source::Text;
    use crate::sys::Recording;

    /// What comes of asking a server with these answers, and how often the network was looked after.
    fn asked(answers: &[&str], stop: &AtomicBool) -> (Result<Option<Text>>, u32) {
        let (port, _seen) = server(answers.iter().map(|answer| answer.as_bytes().to_vec()).collect());
        asked_at(port, stop)
    }

    fn asked_at(port: u16, stop: &AtomicBool) -> (Result<Option<Text>>, u32) {
        let sys = Recording::new();
        let mut machine = Machine::new(&sys, Path::new("/nowhere"), "");
        let mut again = 0;
        let url = format!("http://127.0.0.1:{port}/role.toml");
        let text = ask((&sys, &url), &mut machine, stop, |_| {
            again += 1;
            bail!("a card does not come up");
        });
        (text, again)
    }

    /// A port that nobody listens at.
    fn nobody() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn a_server_that_is_not_there_yet_is_asked_until_it_is() {
        let (text, again) =
            asked(&["HTTP/1.0 503 Busy\r\n\r\n", "", "HTTP/1.0 200 OK\r\n\r\nversion = 1"], &AtomicBool::new(false));
        assert_eq!(text.unwrap().unwrap().role, "version = 1");
        assert_eq!(again, 2);

        let port = nobody();
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, b"HTTP/1.0 200 OK\r\n\r\nversion = 1").unwrap();
            std::io::Read::read(&mut stream, &mut [0; 1000]).unwrap();
        });
        assert_eq!(asked_at(port, &AtomicBool::new(false)).0.unwrap().unwrap().role, "version = 1");
        late.join().unwrap();
    }

    #[test]
    fn what_the_server_refuses_is_not_asked_for_again() {
        let (text, again) = asked(&["HTTP/1.0 404 Not Found\r\n\r\n"], &AtomicBool::new(false));
        assert!(text.unwrap_err().to_string().ends_with("the server answers 404"));
        assert_eq!(again, 0);
    }

    #[test]
    fn a_machine_that_stops_asks_no_more() {
        let stop = AtomicBool::new(false);
        let begun = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(200));
                stop.store(true, Ordering::Relaxed);
            });
            assert_eq!(asked_at(nobody(), &stop).0.unwrap(), None);
        });
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
