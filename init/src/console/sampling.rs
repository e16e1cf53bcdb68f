//! Looks up what changes by itself, every few seconds in a thread of its own: a disk that does not answer keeps nobody else waiting.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kscratch_metadata::validity;
use kscratch_netlink::Netlink;

use super::board;
use super::page::KUBELET;
use super::status::{Disk, Memory, Sample};
use crate::apply::files::below;
use crate::apply::network;
use crate::plan;
use crate::stage::gather;
use crate::sys::Linux;

/// How often.
const EVERY: Duration = Duration::from_secs(10);
/// The same, in the machine's first two minutes.
const AT_FIRST: Duration = Duration::from_secs(2);
/// Until then much changes.
const FIRST: Duration = Duration::from_secs(120);
/// The kubelet's own for serving, signed by the cluster.
const SERVING: &str = "/var/lib/kubelet/pki/kubelet-server-current.pem";
/// Where all others of the machine are, a folder each.
const OTHERS: &str = "/var/lib/kubernetes";
/// The folder there that holds authorities: the cluster's is told for itself.
const AUTHORITIES: &str = "authorities";
/// A certificate's file is not larger.
const LARGEST: u64 = 256 << 10;

/// Runs until the machine stops: a file that is open then would keep state from being unmounted.
pub fn run(root: &Path) {
    loop {
        if board::is_stopping() {
            return;
        }
        let sample = take(root);
        board::change(|board| board.sample = sample);
        std::thread::sleep(if crate::log::monotonic() < FIRST { AT_FIRST } else { EVERY });
    }
}

fn take(root: &Path) -> Sample {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy().into_owned();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Sample {
        name: Some(name).filter(|name| name != "(none)" && name != "localhost"),
        kubernetes: gather::release(root).ok().map(|release| release.kubernetes),
        kernel: system.release().to_string_lossy().into_owned(),
        links: links(),
        clock: i64::try_from(clock).unwrap_or(i64::MAX),
        synchronised: Linux::clock_is_held().ok(),
        joined: below(root, plan::CLIENT).exists(),
        certificates: certificates(root),
        disk: disk(root),
        memory: memory(
            &fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default(),
            &fs::read_to_string(root.join("proc/pressure/memory")).unwrap_or_default(),
        ),
    }
}

fn links() -> Vec<(String, Vec<String>)> {
    let links = Netlink::open().and_then(|mut netlink| network::hardware_links(&mut netlink)).unwrap_or_default();
    let words = |link: crate::facts::Link| link.addresses.iter().map(ToString::to_string).collect();
    links.into_iter().map(|(name, link)| (name, words(link))).collect()
}

/// State, once it is mounted on the root.
fn disk(root: &Path) -> Option<Disk> {
    let var = root.join("var");
    if fs::metadata(&var).ok()?.dev() == fs::metadata(root).ok()?.dev() {
        return None;
    }
    let room = rustix::fs::statvfs(&var).ok()?;
    let kind = rustix::fs::statfs(&var).ok()?.f_type;
    Some(Disk {
        total: room.f_blocks.saturating_mul(room.f_frsize),
        free: room.f_bavail.saturating_mul(room.f_frsize),
        inodes: room.f_files,
        inodes_free: room.f_favail,
        in_memory: u64::try_from(kind).is_ok_and(|kind| kind == TMPFS),
    })
}

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS: u64 = 0x0102_1994;

/// `MemTotal` and `MemAvailable` in kB (proc_meminfo(5)); `some avg10=0.31 …` (Documentation/accounting/psi.rst).
#[must_use]
pub fn memory(meminfo: &str, pressure: &str) -> Option<Memory> {
    let kib = |key: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let avg10 = || {
        let (_, rest) = pressure.lines().find(|line| line.starts_with("some "))?.split_once("avg10=")?;
        let (whole, hundredths) = rest.split_whitespace().next()?.split_once('.')?;
        whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths.get(..2)?.parse().ok()?)
    };
    Some(Memory { total: kib("MemTotal")?, available: kib("MemAvailable")?, pressure: avg10() })
}

/// Certificates of this machine, by name.
fn certificates(root: &Path) -> Vec<(String, i64)> {
    let own = [(KUBELET.to_owned(), plan::CLIENT), ("kubelet/server".to_owned(), SERVING)];
    let mut files: Vec<(String, PathBuf)> = own.into_iter().map(|(name, path)| (name, below(root, path))).collect();
    let folders = fs::read_dir(below(root, OTHERS)).into_iter().flatten().flatten();
    for folder in folders.filter(|folder| folder.file_name() != AUTHORITIES) {
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            // What a component believes lies beside what it is.
            if let Some(name) = name.strip_suffix(".crt").filter(|name| !name.ends_with("ca") && *name != "signing") {
                files.push((format!("{}/{name}", folder.file_name().to_string_lossy()), file.path()));
            }
        }
    }
    files.sort();
    files.into_iter().filter_map(|(name, path)| Some((name, until(&path)?))).collect()
}

/// The last second of a file's first certificate, which is the machine's own; keys and authorities may stand behind it.
fn until(path: &Path) -> Option<i64> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    if fs::metadata(path).ok()?.len() > LARGEST {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let text = &text[text.find(BEGIN)?..];
    let text = &text[..text.find(END)? + END.len()];
    validity(text).map(|valid| valid.until)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::proptest;

    use super::{certificates, memory};
    use crate::console::status::Memory;

    const CA: &str = include_str!("../../metadata/tests/ca.pem");

    #[test]
    fn memory_is_what_the_kernel_says() {
        let meminfo = "MemTotal:        2030000 kB\nMemFree:  1 kB\nMemAvailable:   1015000 kB\n";
        let pressure = "some avg10=1.31 avg60=0.10 avg300=0.00 total=12\nfull avg10=9.00 avg60=0.00\n";
        let want = |pressure| Some(Memory { total: 2_078_720_000, available: 1_039_360_000, pressure });
        assert_eq!(memory(meminfo, pressure), want(Some(131)));
        // A kernel without PSI, or one where it is turned off.
        assert_eq!(memory(meminfo, ""), want(None));
        assert_eq!(memory("MemTotal: x kB\n", pressure), None);
    }

    #[test]
    fn certificates_are_found_by_name() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(certificates(root.path()), []);
        write("var/lib/kubelet/pki/kubelet-client-current.pem", &format!("{CA}-----BEGIN EC PRIVATE KEY-----\nMA==\n"));
        write("var/lib/kubernetes/etcd/server.crt", &format!("{CA}{CA}"));
        write("var/lib/kubernetes/etcd/ca.crt", CA);
        write("var/lib/kubernetes/etcd/server.key", "");
        write("var/lib/kubernetes/authorities/cluster.crt", CA);
        write("var/lib/kubernetes/routes/client.crt", "damaged");
        write("var/lib/kubernetes/file", "");
        let found = certificates(root.path());
        assert_eq!(found, [("etcd/server".to_owned(), 4_948_979_255), ("kubelet".to_owned(), 4_948_979_255)]);
    }

    proptest! {
        #[test]
        fn no_text_of_the_kernels_breaks_it(meminfo in ".{0,200}", pressure in "(some )?(avg10=)?.{0,40}") {
            let _ = memory(&format!("MemTotal: 1 kB\nMemAvailable: 1 kB\n{meminfo}"), &pressure);
        }
    }
}
