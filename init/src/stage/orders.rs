//! Turns the file in which the agent writes what the cluster has this machine do into the machine's end.
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::beside;
use crate::apply::disk::reset::{self, Reset};
use crate::apply::files;
use crate::log;
use crate::plan::cluster::{ORDER, ORDERS};
use crate::run::inbox::{Message, Sender};
use crate::supervise::{Ending, Reason};

/// An order is one word and its line's end.
const LONGEST: u64 = 32;

/// Watches for orders in a thread of its own, for as long as the machine runs. `lasting` says whether state outlives that.
pub fn watch(root: &Path, sender: &Sender, lasting: bool) {
    let (folder, root, sender) = (files::below(root, ORDERS), root.to_owned(), sender.clone());
    let work = move || {
        let follow = |order| match order {
            Order::End(ending) => sender.send(Message::Stop(Reason::Cluster(ending))),
            Order::Reset(reset) => match wipeable(lasting).and_then(|()| reset::ask(&root, reset)) {
                Ok(()) => sender.send(Message::Stop(Reason::Cluster(Ending::Reboot))),
                Err(error) => log::line(format_args!("{error:#}; the machine goes on as it is")),
            },
        };
        if let Err(error) = obey(&folder, follow) {
            log::line(format_args!("{error:#}; this machine follows no orders of its cluster"));
        }
    };
    if let Err(error) = beside::start("orders", work) {
        log::line(format_args!("watching for orders: {error:#}"));
    }
}

/// Whether a mark on state would be there at the next boot.
fn wipeable(lasting: bool) -> Result<()> {
    if !lasting {
        bail!(
            "a reset is not followed: state is in memory, and the partition would stay as it is; put that right first"
        );
    }
    Ok(())
}

/// Reads each order that is there or comes. The folder is root's alone, made here where the plan's phases have not made it yet.
fn obey(folder: &Path, follow: impl Fn(Order)) -> Result<()> {
    let what = || format!("watching {} for orders", folder.display());
    fs::create_dir_all(folder).with_context(what)?;
    let news = inotify::init(CreateFlags::CLOEXEC).with_context(what)?;
    inotify::add_watch(&news, folder, WatchFlags::MOVED_TO).with_context(what)?;
    let file = folder.join(ORDER);
    let mut buffer = [0; 4096];
    loop {
        match taken(&file) {
            Ok(Some(order)) => follow(order),
            Ok(None) => {}
            Err(error) => log::line(format_args!("{error:#}")),
        }
        match rustix::io::read(&news, &mut buffer) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).with_context(what),
        }
    }
}

/// Takes an order off its place: it is followed once.
fn taken(file: &Path) -> Result<Option<Order>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(file);
    let opened = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| format!("reading {}", file.display()))?,
    };
    let mut text = String::new();
    let read = opened.take(LONGEST).read_to_string(&mut text);
    fs::remove_file(file).with_context(|| format!("removing {}", file.display()))?;
    read.with_context(|| format!("reading {}", file.display()))?;
    meaning(&text).map(Some).with_context(|| format!("in {}", file.display()))
}

/// What the agent hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    End(Ending),
    Reset(Reset),
}

fn meaning(text: &str) -> Result<Order> {
    match text.trim_end() {
        "reboot" => Ok(Order::End(Ending::Reboot)),
        "shutdown" => Ok(Order::End(Ending::PowerOff)),
        "reset" => Ok(Order::Reset(Reset::All)),
        "reset keep-identity" => Ok(Order::Reset(Reset::KeepIdentity)),
        other => bail!("{other:?} is no order"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::{Ending, Order, Reset, meaning, obey, taken, wipeable};

    const REBOOT: Order = Order::End(Ending::Reboot);
    const SHUTDOWN: Order = Order::End(Ending::PowerOff);

    #[test]
    fn orders_are_words() {
        assert_eq!(meaning("reboot\n").unwrap(), REBOOT);
        assert_eq!(meaning("shutdown\n").unwrap(), SHUTDOWN);
        assert_eq!(meaning("reset\n").unwrap(), Order::Reset(Reset::All));
        assert_eq!(meaning("reset keep-identity\n").unwrap(), Order::Reset(Reset::KeepIdentity));
        for text in ["reset all", "", "\n", "Reboot", "reboot now", "shutdown\nreboot\n"] {
            assert!(meaning(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn state_in_memory_takes_no_reset() {
        assert!(wipeable(true).is_ok());
        assert!(wipeable(false).unwrap_err().to_string().contains("state is in memory"));
    }

    #[test]
    fn an_order_is_followed_once_and_whoever_writes_something_else_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (sender, orders) = mpsc::channel();
        fs::write(at("order"), "reboot\n").unwrap();
        let place = folder.path().to_owned();
        std::thread::spawn(move || obey(&place, |order| sender.send(order).unwrap()));
        let next = || orders.recv_timeout(Duration::from_secs(20));
        assert_eq!(next(), Ok(REBOOT), "one that was there before");
        let give = |text: &str| {
            fs::write(at(".order.new"), text).unwrap();
            fs::rename(at(".order.new"), at("order")).unwrap();
        };
        give("x".repeat(100).as_str());
        while at("order").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        give("shutdown\n");
        assert_eq!(next(), Ok(SHUTDOWN));
        std::os::unix::fs::symlink("/etc/hostname", at("link")).unwrap();
        assert!(taken(&at("link")).is_err(), "no link is followed");
        assert_eq!(taken(&at("nothing")).unwrap(), None);
    }
}
