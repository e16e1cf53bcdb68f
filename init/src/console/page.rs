//! Turns a [`Status`] into lines of plain ASCII that are no longer than a terminal is wide.
use std::time::Duration;

use super::status::{Disk, Memory, Status};
use super::words::{Width, ago, bytes, date, days, moment, percent, wrapped};
use crate::supervise::{Stage, Standing};

/// Columns of the names on the left.
const LABEL: usize = 10;
/// Lines that one entry may take where there is room, and where there is less and less.
const MOST: [usize; 3] = [4, 2, 1];
/// With less left, in bytes, nothing of use can be written.
const LEAST: u64 = 4 << 20;
/// A certificate is near its end in its last days: kubelets and stewards renew long before.
const NEAR: i64 = 7 * 86_400;

/// The machine's state, in at most so many rows if it can be told in those.
#[must_use]
pub fn fitting(status: &Status, width: usize, rows: usize) -> Vec<String> {
    let pages = MOST.map(|most| lines_of(status, width, most));
    let fits = pages.iter().position(|lines| lines.len() <= rows);
    let [.., last] = &pages;
    fits.and_then(|fits| pages.get(fits)).unwrap_or(last).clone()
}

/// The machine's state.
#[must_use]
pub fn lines(status: &Status, width: usize) -> Vec<String> {
    lines_of(status, width, MOST[0])
}

fn lines_of(status: &Status, width: usize, most: usize) -> Vec<String> {
    let mut page = Page { width: Width::of(width), most, lines: Vec::new() };
    page.head(status);
    page.entry("boot", &boot(status));
    for failure in &status.told.failures {
        page.entry("failed", &format!("{}: {}", failure.what, failure.why));
        if let Some(hint) = &failure.hint {
            page.entry("what to do", hint);
        }
    }
    if let Some(text) = cluster(status) {
        page.entry("cluster", &text);
    }
    // Nothing was looked up yet where not even the kernel is known.
    if !status.sample.kernel.is_empty() {
        page.entry("addresses", &addresses(&status.sample.links));
        page.entry("versions", &versions(status));
        page.entry("clock", &clock(status));
    }
    if let Some(disk) = &status.sample.disk {
        page.entry("state", &state(disk));
    }
    if let Some(memory) = &status.sample.memory {
        page.entry("memory", &memory_words(memory));
    }
    if let Some(text) = certificates(status) {
        page.entry("certs", &text);
    }
    let told = |text: &str| status.told.failures.iter().any(|failure| text.starts_with(&failure.what));
    if let Some((at, text)) = status.told.error.as_ref().filter(|(_, text)| !told(text)) {
        page.entry("last error", &format!("{} {text}", moment(*at)));
    }
    page.services(&status.services.standings, status.now);
    page.lines
}

struct Page {
    width: Width,
    /// Lines that one entry may take.
    most: usize,
    lines: Vec<String>,
}

impl Page {
    /// Who it is on the left, the version and the age on the right.
    fn head(&mut self, status: &Status) {
        let name = status.sample.name.as_deref().unwrap_or("this machine");
        let cluster = status.known.cluster.as_ref();
        let who = match (status.known.role, cluster) {
            (Some("master"), Some((cluster, _))) => format!("{name}: a master of the cluster {cluster}"),
            (Some(role), Some((cluster, _))) => format!("{name}: a {role} of the cluster {cluster}"),
            (Some(role), None) => format!("{name}: a {role} that stands alone"),
            (None, _) => format!("{name}: what it is to be is not known yet"),
        };
        let right = format!("kscratch {}, up {}", env!("CARGO_PKG_VERSION"), ago(status.now));
        let room = self.width.columns().saturating_sub(right.len() + 1);
        let who: String = self.width.cut(&who).chars().take(room).collect();
        self.lines.push(self.width.cut(&format!("{who:<room$} {right}")));
    }

    fn entry(&mut self, label: &str, text: &str) {
        self.lines.extend(wrapped(label, text, LABEL, self.width, self.most));
    }

    fn services(&mut self, standings: &[Standing], now: Duration) {
        if standings.is_empty() {
            return;
        }
        // What is left of the names, the times and the restarts.
        let room = self.width.columns().saturating_sub(16 + 12 + 9).max(10);
        self.lines
            .push(self.width.cut(&format!("{:<16}{:<room$}{:<12}{:>8}", "SERVICE", "STATE", "SINCE", "RESTARTS")));
        for standing in standings {
            let (state, since) = stage(standing, now);
            let state: String = state.chars().take(room - 1).collect();
            let since = since.map(ago).unwrap_or_default();
            let row = format!("{:<16}{state:<room$}{since:<12}{:>8}", standing.name, standing.restarts);
            self.lines.push(self.width.cut(&row));
        }
    }
}

/// What a service is at, and for how long.
fn stage(standing: &Standing, now: Duration) -> (String, Option<Duration>) {
    let trouble = |words: &str| match &standing.trouble {
        Some(trouble) => format!("{words} ({trouble})"),
        None => words.to_owned(),
    };
    match &standing.stage {
        Stage::Waiting { on } if on.is_empty() => ("starts".to_owned(), None),
        Stage::Waiting { on } => (format!("waits for {}", on.join(", ")), None),
        Stage::Starting(since) => (trouble("starting"), Some(now.saturating_sub(*since))),
        Stage::Ready(since) => ("ready".to_owned(), Some(now.saturating_sub(*since))),
        Stage::Again(_) => (trouble("starts again"), None),
        Stage::Stopping(since) => ("stopping".to_owned(), Some(now.saturating_sub(*since))),
        Stage::Stopped => ("stopped".to_owned(), None),
    }
}

fn boot(status: &Status) -> String {
    let told = &status.told;
    let failed = match told.failures.len() {
        0 => String::new(),
        count => format!(", {count} failed"),
    };
    if let Some(why) = &status.services.stopping {
        return format!("stopping: {why}");
    }
    if let Some(phase) = told.phase.as_ref().filter(|phase| phase.open) {
        return format!("phase {} for {}{failed}", phase.name, ago(status.now.saturating_sub(phase.begun)));
    }
    if let Some(nothing) = &told.nothing {
        return nothing.clone();
    }
    let standings = &status.services.standings;
    let waited: Vec<&str> =
        standings.iter().filter(|one| !matches!(one.stage, Stage::Ready(_))).map(|one| one.name).collect();
    match (told.phase.is_some(), status.services.booted, waited.is_empty()) {
        (false, _, _) => "begins".to_owned(),
        (true, false, _) => format!("{} phases are over{failed}", told.over),
        (true, true, true) => format!("complete: {} phases{failed}, all services are ready", told.over),
        (true, true, false) => format!("{} phases are over{failed}; not ready: {}", told.over, waited.join(", ")),
    }
}

fn cluster(status: &Status) -> Option<String> {
    let (_, endpoint) = status.known.cluster.as_ref()?;
    let joined = match (status.known.role, status.sample.joined) {
        (Some("master"), _) => "",
        (_, true) => "joined",
        (_, false) => "not joined yet",
    };
    let endpoint = endpoint.as_ref().map(|endpoint| format!("https://{endpoint}"));
    let parts: Vec<&str> = endpoint.as_deref().into_iter().chain([joined]).filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn addresses(links: &[(String, Vec<String>)]) -> String {
    if links.is_empty() {
        return "none: there is no network card with a driver".to_owned();
    }
    let words = |(link, addresses): &(String, Vec<String>)| match addresses.is_empty() {
        true => format!("{link} has none"),
        false => format!("{link} {}", addresses.join(" ")),
    };
    links.iter().map(words).collect::<Vec<_>>().join("; ")
}

fn versions(status: &Status) -> String {
    let kubernetes = status.sample.kubernetes.as_ref().map(|version| format!("Kubernetes {version}, "));
    format!("{}kernel {}", kubernetes.unwrap_or_default(), status.sample.kernel)
}

fn clock(status: &Status) -> String {
    let held = match status.sample.synchronised {
        Some(true) => ", held to a time server's",
        Some(false) => ", the machine's own: no time server was heard",
        None => "",
    };
    format!("{}{held}", date(status.sample.clock))
}

fn state(disk: &Disk) -> String {
    let used = disk.total.saturating_sub(disk.free);
    let share = percent(used, disk.total);
    let inodes = percent(disk.inodes.saturating_sub(disk.inodes_free), disk.inodes);
    let mut text = format!("{} of {} used ({share} %), inodes {inodes} %", bytes(used), bytes(disk.total));
    if disk.free < LEAST || (disk.inodes > 0 && disk.inodes_free == 0) {
        text.push_str("; FULL: delete images, pods or their data");
    } else if share >= 90 || inodes >= 90 {
        text.push_str("; nearly full");
    }
    if disk.in_memory {
        text.push_str("; IN MEMORY: gone at the next boot");
    }
    text
}

fn memory_words(memory: &Memory) -> String {
    let used = memory.total.saturating_sub(memory.available);
    let mut text = format!("{} of {} used ({} %)", bytes(used), bytes(memory.total), percent(used, memory.total));
    if let Some(pressure) = memory.pressure {
        text.push_str(&format!(", waited for {}.{:02} % of the time", pressure / 100, pressure % 100));
    }
    text
}

/// The kubelet's own, the first of the others to end, the CA; what has ended is told whatever it is.
fn certificates(status: &Status) -> Option<String> {
    let clock = status.sample.clock;
    let words = |name: &str, until: i64| match until - clock {
        left if left < 0 => format!("{name} ENDED {} ago", days(-left)),
        left if left < NEAR => format!("{name} ENDS in {}", days(left)),
        left => format!("{name} ends in {}", days(left)),
    };
    let all = &status.sample.certificates;
    let is_kubelet = |name: &str| name == KUBELET;
    let mut parts: Vec<String> =
        all.iter().filter(|(name, _)| is_kubelet(name)).map(|(name, until)| words(name, *until)).collect();
    let others: Vec<&(String, i64)> = all.iter().filter(|(name, _)| !is_kubelet(name)).collect();
    if let Some((name, until)) = others.iter().min_by_key(|(_, until)| until) {
        let of = match others.len() {
            1 => String::new(),
            count => format!(" (the first of {count} more)"),
        };
        parts.push(format!("{}{of}", words(name, *until)));
    }
    parts.extend(status.known.ca_until.map(|until| words("the cluster's CA", until)));
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// What the kubelet's client certificate is called.
pub const KUBELET: &str = "kubelet";

#[cfg(test)]
mod tests;
