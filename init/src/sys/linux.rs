//! [`Linux`] turns the calls of [`Sys`] into Linux system calls; the only place of the crate with `unsafe`.
#![allow(unsafe_code)]
use std::ffi::{CString, c_int, c_long, c_void};
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::libc::{ADJ_ESTERROR, ADJ_MAXERROR, ADJ_NANO, ADJ_OFFSET, ADJ_SETOFFSET, ADJ_STATUS, ADJ_TIMECONST, STA_PLL};
use rustix::ioctl::{Getter, Setter, Updater, ioctl, opcode};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, Signal};
use rustix::system::RebootCommand;
use rustix::time::{ClockId, Timespec};

use super::{Everyone, Flag, Mount, Power, Ran, Sys};
use crate::sntp::keeper::Adjust;

/// The running kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linux;

/// A child of the calling thread that has ended and is not reaped yet, whatever signal ended it: nix gives none whose signal has no name, as those
/// for real time have none, and rustix gives no number.
#[must_use]
pub fn ended_child() -> Option<Pid> {
    // SAFETY: all of its fields may be zeros.
    let mut found: nix::libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = nix::libc::WEXITED | nix::libc::WNOHANG | nix::libc::WNOWAIT | nix::libc::__WNOTHREAD;
    // SAFETY: it is written to by the call alone, and outlives it.
    let done = unsafe { nix::libc::waitid(nix::libc::P_ALL, 0, &raw mut found, flags) };
    // SAFETY: waitid(2) sets this field, to 0 where no child has ended.
    if done == 0 { Pid::from_raw(unsafe { found.si_pid() }) } else { None }
}

/// `struct blkpg_partition` of `linux/blkpg.h`.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct blkpg_ioctl_arg` of `linux/blkpg.h`.
#[repr(C)]
struct BlkpgArgument {
    operation: c_int,
    flags: c_int,
    length: c_int,
    data: *mut c_void,
}

/// `BLKPG`, `_IO(0x12, 105)`.
const BLKPG: u32 = opcode::none(0x12, 105);
/// `BLKPG_ADD_PARTITION` and `BLKPG_RESIZE_PARTITION` of `linux/blkpg.h`.
const BLKPG_ADD_PARTITION: c_int = 1;
const BLKPG_RESIZE_PARTITION: c_int = 3;
/// `EXT4_IOC_RESIZE_FS`, `_IOW('f', 16, __u64)`.
const EXT4_IOC_RESIZE_FS: u32 = opcode::write::<u64>(b'f', 16);

/// `WDIOC_SETTIMEOUT` and `WDIOC_GETTIMEOUT` of `linux/watchdog.h`: `_IOWR('W', 6, int)` and `_IOR('W', 7, int)`.
const WDIOC_SETTIMEOUT: u32 = opcode::read_write::<c_int>(b'W', 6);
const WDIOC_GETTIMEOUT: u32 = opcode::read::<c_int>(b'W', 7);
/// `struct loop_config` of `linux/loop.h`, with its `struct loop_info64`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// `lo_device`, `lo_inode`, `lo_rdevice`, `lo_offset`, `lo_sizelimit`.
    places: [u64; 5],
    /// `lo_number`, `lo_encrypt_type`, `lo_encrypt_key_size`.
    numbers: [u32; 3],
    flags: u32,
    /// `lo_file_name`, `lo_crypt_name`, `lo_encrypt_key`.
    names: [u8; 160],
    /// `lo_init`.
    init: [u64; 2],
    reserved: [u64; 8],
}

/// `LOOP_CONFIGURE` and `LOOP_CTL_GET_FREE` of `linux/loop.h`.
const LOOP_CONFIGURE: u32 = 0x4C0A;
const LOOP_CTL_GET_FREE: u32 = 0x4C82;
/// `LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR`.
const LOOP_FLAGS: u32 = 1 | 4;

/// In a second.
const NANOS: i128 = 1_000_000_000;

fn invalid() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

fn flags(list: &[Flag]) -> MountFlags {
    list.iter().fold(MountFlags::empty(), |all, flag| {
        all | match flag {
            Flag::ReadOnly => MountFlags::RDONLY,
            Flag::NoSuid => MountFlags::NOSUID,
            Flag::NoDev => MountFlags::NODEV,
            Flag::NoExec => MountFlags::NOEXEC,
            Flag::NoAtime => MountFlags::NOATIME,
            Flag::Bind => MountFlags::BIND,
        }
    })
}

fn text(bytes: &str) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn change_partition(operation: c_int, disk: &Path, number: u32, start: u64, length: u64) -> io::Result<()> {
    let mut partition = BlkpgPartition {
        start: signed(start)?,
        length: signed(length)?,
        number: c_int::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = BlkpgArgument {
        operation,
        flags: 0,
        length: size_of::<BlkpgPartition>() as c_int,
        data: (&raw mut partition).cast(),
    };
    let disk = File::options().read(true).write(true).open(disk)?;
    // SAFETY: BLKPG takes a pointer to `struct blkpg_ioctl_arg`, whose `data` points to a `struct blkpg_partition`; both have
    // the kernel's layout (repr(C), fields in linux/blkpg.h's order) and live until the call returns.
    unsafe { Ok(ioctl(&disk, Setter::<BLKPG, BlkpgArgument>::new(argument))?) }
}

impl Linux {
    /// Whether the kernel's clock is held to another one's time (adjtimex(2): `TIME_ERROR` where nobody does).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn clock_is_held() -> io::Result<bool> {
        // SAFETY: `struct timex` of linux/timex.h has nothing but integers, for which zeros are a value; with no modes it is only written to.
        let mut timex: nix::libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one `struct timex`, which lives until the call returns.
        match unsafe { nix::libc::adjtimex(&raw mut timex) } {
            -1 => Err(io::Error::last_os_error()),
            state => Ok(state != nix::libc::TIME_ERROR),
        }
    }
}

impl Sys for Linux {
    fn mount(&self, mount: &Mount<'_>) -> io::Result<()> {
        let data = text(mount.data)?;
        Ok(rustix::mount::mount(mount.source, mount.target, mount.kind, flags(mount.flags), data.as_c_str())?)
    }

    fn share(&self, target: &Path) -> io::Result<()> {
        Ok(rustix::mount::mount_change(target, MountPropagationFlags::SHARED | MountPropagationFlags::REC)?)
    }

    fn move_mount(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::mount::mount_move(from, to)?)
    }

    fn remount_read_only(&self, target: &Path) -> io::Result<()> {
        Ok(rustix::mount::mount_remount(target, MountFlags::RDONLY, "")?)
    }

    fn unmount(&self, target: &Path, lazily: bool) -> io::Result<()> {
        let how = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        Ok(rustix::mount::unmount(target, how)?)
    }

    fn load_module(&self, file: &Path, parameters: &str) -> io::Result<()> {
        match rustix::system::finit_module(File::open(file)?, &text(parameters)?, 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn enter_root(&self, new_root: &Path) -> io::Result<()> {
        std::env::set_current_dir(new_root)?;
        self.move_mount(Path::new("."), Path::new("/"))?;
        rustix::process::chroot(".")?;
        std::env::set_current_dir("/")
    }

    fn set_host_name(&self, name: &str) -> io::Result<()> {
        Ok(rustix::system::sethostname(name.as_bytes())?)
    }

    fn set_clock(&self, seconds: i64) -> io::Result<()> {
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        Ok(rustix::time::clock_settime(ClockId::Realtime, time)?)
    }

    fn adjust_clock(&self, adjust: &Adjust) -> io::Result<()> {
        let (seconds, nanos) = (adjust.offset.div_euclid(NANOS), adjust.offset.rem_euclid(NANOS));
        // SAFETY: `struct timex` of linux/timex.h has nothing but integers, for which zeros are a value.
        let mut timex: nix::libc::timex = unsafe { std::mem::zeroed() };
        // That the status says nothing of being unsynchronised makes the kernel write the hardware clock every 11 minutes, too (kernel/time/ntp.c,
        // `sync_hw_clock`); it forgets it by itself once the error that grows is too large.
        timex.modes = ADJ_STATUS | ADJ_NANO | ADJ_MAXERROR | ADJ_ESTERROR;
        timex.status = STA_PLL;
        let micros = c_long::try_from(adjust.error.as_micros()).map_err(|_| invalid())?;
        (timex.maxerror, timex.esterror) = (micros, micros);
        if adjust.at_once {
            timex.modes |= ADJ_SETOFFSET;
            timex.time.tv_sec = seconds.try_into().map_err(|_| invalid())?;
            timex.time.tv_usec = nanos.try_into().map_err(|_| invalid())?;
        } else {
            timex.modes |= ADJ_OFFSET | ADJ_TIMECONST;
            timex.offset = adjust.offset.try_into().map_err(|_| invalid())?;
            // As RFC 5905 has it: four less than the logarithm of the pause between two answers, which is 64 s at least.
            timex.constant = c_long::from(adjust.next.as_secs().max(16).ilog2()) - 4;
        }
        // SAFETY: the kernel reads and writes one `struct timex`, which lives until the call returns.
        match unsafe { nix::libc::adjtimex(&raw mut timex) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    fn set_watchdog(&self, device: &File, seconds: u32) -> io::Result<u32> {
        let mut value = c_int::try_from(seconds).map_err(|_| invalid())?;
        // SAFETY: WDIOC_SETTIMEOUT reads one int and writes what became of it.
        let set = unsafe { ioctl(device, Updater::<WDIOC_SETTIMEOUT, c_int>::new(&mut value)) };
        if set.is_err() {
            // SAFETY: WDIOC_GETTIMEOUT writes one int.
            value = unsafe { ioctl(device, Getter::<WDIOC_GETTIMEOUT, c_int>::new())? };
        }
        u32::try_from(value).map_err(|_| invalid())
    }

    fn resize_partition(&self, disk: &Path, number: u32, start: u64, length: u64) -> io::Result<()> {
        change_partition(BLKPG_RESIZE_PARTITION, disk, number, start, length)
    }

    fn add_partition(&self, disk: &Path, number: u32, start: u64, length: u64) -> io::Result<()> {
        change_partition(BLKPG_ADD_PARTITION, disk, number, start, length)
    }

    fn resize_ext4(&self, mountpoint: &Path, blocks: u64) -> io::Result<()> {
        let root = File::open(mountpoint)?;
        // SAFETY: EXT4_IOC_RESIZE_FS reads one u64, the wanted number of blocks.
        unsafe { Ok(ioctl(&root, Setter::<EXT4_IOC_RESIZE_FS, u64>::new(blocks))?) }
    }

    fn loop_device(&self, file: &File) -> io::Result<(PathBuf, File)> {
        let control = File::options().read(true).write(true).open("/dev/loop-control")?;
        // SAFETY: LOOP_CTL_GET_FREE has no argument.
        let number = unsafe { nix::libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE.into()) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::open(&path)?;
        let config = LoopConfig {
            fd: u32::try_from(file.as_raw_fd()).map_err(|_| invalid())?,
            block_size: 0,
            places: [0; 5],
            numbers: [0; 3],
            flags: LOOP_FLAGS,
            names: [0; 160],
            init: [0; 2],
            reserved: [0; 8],
        };
        // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, whose layout this is (repr(C), fields in linux/loop.h's order).
        unsafe { ioctl(&device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config))? };
        Ok((path, device))
    }

    fn run(&self, program: &Path, args: &[&str], stdin: &[u8]) -> io::Result<Ran> {
        let mut child = Command::new(program)
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // A program that ends without reading its input breaks the pipe; its exit status tells the story then.
        if let Some(mut pipe) = child.stdin.take() {
            let _ = pipe.write_all(stdin);
        }
        let output = child.wait_with_output()?;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Ran { status: output.status.code(), text: said })
    }

    fn set_timer_slack(&self, slack: Duration) -> io::Result<()> {
        let nanoseconds = u64::try_from(slack.as_nanos()).ok().and_then(NonZeroU64::new);
        Ok(rustix::thread::set_current_timer_slack(nanoseconds)?)
    }

    fn catch_ctrl_alt_del(&self) -> io::Result<()> {
        Ok(rustix::system::reboot(RebootCommand::CadOff)?)
    }

    fn signal_everyone(&self, signal: Everyone) -> io::Result<()> {
        let signal = match signal {
            Everyone::Terminate => Signal::TERM,
            Everyone::Kill => Signal::KILL,
        };
        // kill(2): a process group of -1 is every process that may be signalled, but PID 1.
        match rustix::process::kill_process_group(Pid::INIT, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) {
        rustix::fs::sync();
    }

    fn power(&self, how: Power) -> io::Result<()> {
        let command = match how {
            Power::Off => RebootCommand::PowerOff,
            Power::Restart => RebootCommand::Restart,
            Power::Halt => RebootCommand::Halt,
        };
        Ok(rustix::system::reboot(command)?)
    }
}
