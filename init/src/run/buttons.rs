//! Turns presses of the machine's power button (`KEY_POWER` of any input device) into one word: pressed.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// `struct input_event` of a 64-bit kernel (linux/input.h): two 64-bit numbers of time, type, code, value.
const EVENT: usize = 24;
/// `EV_KEY` (linux/input-event-codes.h).
const KEY_EVENT: u16 = 1;
/// `KEY_POWER`.
const POWER_KEY: u16 = 116;

/// The input devices, and the folder in which new ones appear.
pub struct Buttons {
    folder: PathBuf,
    news: OwnedFd,
    devices: BTreeMap<OsString, File>,
}

impl Buttons {
    /// Opens what is in a folder (`/dev/input`, made where it is missing) and watches it for more.
    ///
    /// # Errors
    /// The folder cannot be made or watched.
    pub fn open(folder: &Path) -> Result<Self> {
        let what = || format!("watching {} for power buttons", folder.display());
        fs::create_dir_all(folder).with_context(what)?;
        let news = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).with_context(what)?;
        inotify::add_watch(&news, folder, WatchFlags::CREATE | WatchFlags::ATTRIB).with_context(what)?;
        let mut buttons = Self { folder: folder.to_owned(), news, devices: BTreeMap::new() };
        buttons.rescan();
        Ok(buttons)
    }

    /// Everything that may get readable.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.devices.values().map(AsFd::as_fd).chain([self.news.as_fd()])
    }

    /// Reads all that is there; says whether the button was pressed.
    pub fn pressed(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let mut news = false;
        while rustix::io::read(&self.news, &mut buffer).is_ok_and(|count| count > 0) {
            news = true;
        }
        if news {
            self.rescan();
        }
        let mut pressed = false;
        self.devices.retain(|_, device| {
            loop {
                match device.read(&mut buffer) {
                    Ok(0) => return false,
                    Ok(count) => pressed |= buffer[..count].chunks_exact(EVENT).any(is_power_press),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // ENODEV where the device was unplugged: it is let go, or the loop would spin.
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                }
            }
        });
        pressed
    }

    fn rescan(&mut self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b"event") && !self.devices.contains_key(&name) {
                let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
                if let Ok(device) = File::options().read(true).custom_flags(flags).open(entry.path()) {
                    self.devices.insert(name, device);
                }
            }
        }
    }
}

fn is_power_press(event: &[u8]) -> bool {
    let word = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    word(16) == KEY_EVENT && word(18) == POWER_KEY && value == 1
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::process::Command;

    use super::Buttons;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    /// FIFOs stand for the devices: they are as readable and non-blocking as those.
    #[test]
    fn only_a_press_of_the_power_key_counts() {
        let folder = tempfile::tempdir().unwrap();
        let device = |name: &str| {
            let path = folder.path().join(name);
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            path
        };
        let first = device("event0");
        // Opened for both, so that the FIFO never is without a writer, which would read as an unplugged device.
        let mut first = File::options().read(true).write(true).open(first).unwrap();
        let mut buttons = Buttons::open(folder.path()).unwrap();
        assert!(!buttons.pressed());
        for (kind, code, value, want) in
            [(1, 30, 1, false), (1, 116, 1, true), (1, 116, 0, false), (0, 0, 0, false), (2, 116, 1, false)]
        {
            first.write_all(&event(kind, code, value)).unwrap();
            assert_eq!(buttons.pressed(), want, "{kind} {code} {value}");
        }
        let mut second = File::options().read(true).write(true).open(device("event1")).unwrap();
        second.write_all(&event(1, 116, 1)).unwrap();
        assert!(buttons.pressed(), "a device that came later");
    }
}
