//! Takes the kernel's last words of an earlier boot out of the firmware's memory into the flight recorder, and sees to it that a panic leaves some.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kscratch_recorder::What;

use super::beside;
use super::hardware::Loader;
use crate::log;
use crate::run::recorder::{self, pstore};

/// What a panic begins with, and what comes before one.
const SIGNS: [&str; 4] = ["Kernel panic", "BUG: ", "Oops: ", "watchdog: "];

/// Does it in a thread: firmware takes its time, and other drivers are waited for meanwhile. A machine without UEFI has nowhere to leave them.
/// `reset` is why the machine was reset, which every machine may know.
pub(super) fn begin(root: &Path, loader: &Arc<Loader<'static>>, reset: Option<String>) {
    let started = reset.map_or(Ok(()), |reason| beside::start("last-reset", move || tell(reason)));
    if let Err(error) = started {
        log::line(format_args!("{error:#}: why the machine was reset is not told"));
    }
    if !root.join("sys/firmware/efi").exists() {
        return;
    }
    let (root, loader) = (root.to_owned(), Arc::clone(loader));
    if let Err(error) = beside::start("last-words", move || collect(&root, &loader)) {
        log::line(format_args!("{error:#}: what the kernel left of an earlier boot stays where it is"));
    }
}

/// Why the machine was reset, as its watchdogs say (Documentation/watchdog/watchdog-api.rst, `WDIOF_CARDRESET`; ABI/testing/sysfs-class-watchdog).
///
/// Asked before a watchdog is opened.
pub(super) fn reset(root: &Path) -> Option<String> {
    const CARD_RESET: u32 = 0x20;
    let text = |path: PathBuf| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let mut watchdogs: Vec<PathBuf> =
        fs::read_dir(root.join("sys/class/watchdog")).ok()?.flatten().map(|entry| entry.path()).collect();
    watchdogs.sort();
    watchdogs.into_iter().find_map(|watchdog| {
        let status: u32 = text(watchdog.join("bootstatus"))?.parse().ok()?;
        let name = text(watchdog.join("identity")).unwrap_or_else(|| "no name".to_owned());
        (status & CARD_RESET != 0).then(|| format!("its watchdog ({name})"))
    })
}

fn tell(reason: String) {
    log::line(format_args!("before this boot the machine was reset by {reason}"));
    if !recorder::keep(vec![What::Reset(reason)]) {
        log::line("flight recorder: why the machine was reset is not kept");
    }
}

fn collect(root: &Path, loader: &Loader<'_>) {
    if let Err(error) = loader.load("efi_pstore") {
        log::debug(format_args!("{error:#}"));
    }
    let left = pstore::read(&root.join(pstore::PLACE.trim_start_matches('/')));
    if left.files.is_empty() {
        return;
    }
    if let Some(sign) = left.lines.iter().find(|line| SIGNS.iter().any(|sign| line.contains(sign))) {
        log::line(format_args!("the kernel left last words of an earlier boot: {sign}"));
    }
    // Removed once they are kept elsewhere, or not at all: the firmware has room for a few.
    if recorder::keep(left.lines.into_iter().map(What::Left).collect()) {
        for file in &left.files {
            if let Err(error) = fs::remove_file(file) {
                log::line(format_args!("removing {}: {error}", file.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::reset;

    #[test]
    fn a_watchdog_that_bit_says_so() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(reset(root.path()), None);
        for (name, status) in [("watchdog0", "0\n"), ("watchdog1", "32\n")] {
            let folder = root.path().join("sys/class/watchdog").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("bootstatus"), status).unwrap();
            fs::write(folder.join("identity"), "i6300ESB timer\n").unwrap();
        }
        assert_eq!(reset(root.path()).as_deref(), Some("its watchdog (i6300ESB timer)"));
        fs::write(root.path().join("sys/class/watchdog/watchdog1/bootstatus"), "1\n").unwrap();
        assert_eq!(reset(root.path()), None);
    }
}
