//! [`Sys`] is the kernel as PID 1 needs it: the calls that change the machine, behind one trait that tests record.
//!
//! Plain file work is not here: functions that read or write files take the folder to do it under, and tests give a temporary one.
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sntp::keeper::Adjust;

pub mod linux;
pub mod recording;

pub use linux::Linux;
pub use recording::Recording;

/// Calls that change the machine. Object safe: it is handed around as `&dyn Sys`.
pub trait Sys: Send + Sync {
    /// Mounts a filesystem (`mount(2)`).
    ///
    /// # Errors
    /// What the kernel says.
    fn mount(&self, mount: &Mount<'_>) -> io::Result<()>;

    /// Gives a mount and all below it a propagation of `shared` (`MS_REC | MS_SHARED`); kubelet's volumes need it (R16).
    ///
    /// # Errors
    /// What the kernel says.
    fn share(&self, target: &Path) -> io::Result<()>;

    /// Moves a mount with all below it (`MS_MOVE`).
    ///
    /// # Errors
    /// What the kernel says.
    fn move_mount(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes a mounted filesystem read-only (`MS_REMOUNT | MS_RDONLY`), as the last act before power goes.
    ///
    /// # Errors
    /// `EBUSY` where a file is still open for writing.
    fn remount_read_only(&self, target: &Path) -> io::Result<()>;

    /// Unmounts; `lazily` lets go of the name at once and of the filesystem when nobody uses it (`MNT_DETACH`).
    ///
    /// # Errors
    /// What the kernel says.
    fn unmount(&self, target: &Path, lazily: bool) -> io::Result<()>;

    /// Loads one module file (`finit_module(2)`); its dependencies are the caller's business. A module that is there already is no error.
    ///
    /// # Errors
    /// What the kernel says (`ENOEXEC` for one of another kernel).
    fn load_module(&self, file: &Path, parameters: &str) -> io::Result<()>;

    /// Makes `new_root` the root (`chdir`, `MS_MOVE` onto `/`, `chroot`).
    ///
    /// # Errors
    /// What the kernel says.
    fn enter_root(&self, new_root: &Path) -> io::Result<()>;

    /// Sets the kernel's host name.
    ///
    /// # Errors
    /// What the kernel says.
    fn set_host_name(&self, name: &str) -> io::Result<()>;

    /// Sets the clock to this many seconds since 1970 (clock_settime(2), `CLOCK_REALTIME`).
    ///
    /// # Errors
    /// The kernel's error.
    fn set_clock(&self, seconds: i64) -> io::Result<()>;

    /// Sets the clock, or has the kernel lead it to the true time, and tells the kernel that it is synchronised (adjtimex(2)).
    ///
    /// # Errors
    /// The kernel's error.
    fn adjust_clock(&self, adjust: &Adjust) -> io::Result<()>;

    /// Sets the time in seconds after which a watchdog that is not fed resets the machine, and gives the one that it has taken (`WDIOC_SETTIMEOUT`).
    ///
    /// # Errors
    /// It does not say which it has.
    fn set_watchdog(&self, device: &File, seconds: u32) -> io::Result<u32>;

    /// Tells the kernel that a partition in use has grown (`BLKPG_RESIZE_PARTITION`). Bytes.
    ///
    /// # Errors
    /// What the kernel says.
    fn resize_partition(&self, disk: &Path, number: u32, start: u64, length: u64) -> io::Result<()>;

    /// Tells the kernel of a partition that it does not know (`BLKPG_ADD_PARTITION`). Bytes.
    ///
    /// # Errors
    /// What the kernel says (`EBUSY` where it knows one there).
    fn add_partition(&self, disk: &Path, number: u32, start: u64, length: u64) -> io::Result<()>;

    /// Grows a mounted ext4 to `blocks` of its own blocks (`EXT4_IOC_RESIZE_FS`).
    ///
    /// # Errors
    /// What the kernel says.
    fn resize_ext4(&self, mountpoint: &Path, blocks: u64) -> io::Result<()>;

    /// Makes a read-only disk of a file (`LOOP_CONFIGURE`) and gives its device file, and that opened: the device goes with its last user.
    ///
    /// # Errors
    /// What the kernel says (`ENOENT` where it has no loop devices).
    fn loop_device(&self, file: &File) -> io::Result<(PathBuf, File)>;

    /// Runs a program to its end and gives what it said. Not for services (`run/spawn.rs`), and only before the event loop reaps.
    ///
    /// # Errors
    /// The program could not be started.
    fn run(&self, program: &Path, args: &[&str], stdin: &[u8]) -> io::Result<Ran>;

    /// How late timers of this thread may be, and of all that it starts (`PR_SET_TIMERSLACK`).
    ///
    /// # Errors
    /// What the kernel says.
    fn set_timer_slack(&self, slack: Duration) -> io::Result<()>;

    /// Turns ctrl-alt-del into a SIGINT to PID 1 instead of a hard reset.
    ///
    /// # Errors
    /// What the kernel says.
    fn catch_ctrl_alt_del(&self) -> io::Result<()>;

    /// Sends a signal to every process but PID 1 (`kill(-1)`); none being there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    fn signal_everyone(&self, signal: Everyone) -> io::Result<()>;

    /// Writes all dirty pages to the disks (`sync(2)`).
    fn sync(&self);

    /// Ends the machine's run. Returns only on failure.
    ///
    /// # Errors
    /// What the kernel says (`EPERM` where this is no PID 1 of a machine).
    fn power(&self, how: Power) -> io::Result<()>;
}

/// Arguments of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mount<'a> {
    /// Device or word, e.g. `/dev/vda4` or `tmpfs`.
    pub source: &'a str,
    /// Where to.
    pub target: &'a Path,
    /// Filesystem type.
    pub kind: &'a str,
    /// Options that every filesystem has, as `mount(8)` spells them: `ro nosuid nodev noexec noatime`.
    pub flags: &'a [Flag],
    /// The filesystem's own options, comma separated.
    pub data: &'a str,
}

/// A mount option that every filesystem has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// `ro`
    ReadOnly,
    /// `nosuid`
    NoSuid,
    /// `nodev`
    NoDev,
    /// `noexec`
    NoExec,
    /// `noatime`
    NoAtime,
    /// `bind`
    Bind,
}

/// How the machine's run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Power off.
    Off,
    /// Reboot.
    Restart,
    /// Stop the processors and stay.
    Halt,
}

/// Signals that go to everyone at shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Everyone {
    /// SIGTERM
    Terminate,
    /// SIGKILL
    Kill,
}

/// What a program that ran to its end left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Exit status; `None` where a signal ended it.
    pub status: Option<i32>,
    /// Its output and error output, one after the other, as text.
    pub text: String,
}

impl Ran {
    /// Whether it exited with 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.status == Some(0)
    }
}
