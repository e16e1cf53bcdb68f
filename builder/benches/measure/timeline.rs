//! Turns a machine's console into the times of its boot: the host's, from QEMU's start, and the guest's, from the kernel's.
use std::fmt;
use std::time::Duration;

use kscratch_qemu::Line;
use regex::Regex;

use super::Bar;

/// Bar for what init itself adds to a boot, in seconds.
const OWN_SHARE: f64 = 1.5;

/// Something that the console told.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    /// Since QEMU's start, by the host's clock: when the line was read.
    host: Duration,
    /// Since the kernel's start, by the guest's clock; none before and outside of it.
    guest: Option<f64>,
    what: String,
}

/// The boot in the order in which it happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    events: Vec<Event>,
    /// What init told of its own share: seconds, and its words; none where a service never got ready.
    own_share: Option<(f64, String)>,
}

impl Timeline {
    /// Reads a console; `besides` is what was seen elsewhere, and when.
    pub fn of(lines: &[Line], besides: Vec<(Duration, String)>) -> Timeline {
        let forms = Forms::new();
        let mut timeline = Timeline { events: Vec::new(), own_share: None };
        let mut open: Vec<(String, f64)> = Vec::new();
        for line in lines {
            let Some(told) = forms.read(&line.text) else { continue };
            let guest = told.guest;
            match told.news {
                News::PhaseStart(name) => {
                    open.push((name, guest.unwrap_or_default()));
                    continue;
                }
                News::PhaseEnd(name, how) => {
                    let end = guest.unwrap_or_default();
                    let start = open.iter().position(|(begun, _)| *begun == name).map(|at| open.swap_remove(at).1);
                    let start = start.unwrap_or(end);
                    let what = format!("  phase {name}: {how}, took {:.3} s", end - start);
                    timeline.events.push(Event { host: line.at, guest, what });
                }
                News::OwnShare(seconds, words) => timeline.own_share = Some((seconds, words)),
                News::Other(what) => timeline.events.push(Event { host: line.at, guest, what }),
            }
        }
        if let Some(first) = lines.first() {
            timeline.events.push(Event { host: first.at, guest: None, what: "firmware's first line".into() });
        }
        timeline.events.extend(besides.into_iter().map(|(host, what)| Event { host, guest: None, what }));
        timeline.events.sort_by_key(|event| event.host);
        timeline
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8} {:>8}", "host s", "guest s")?;
        for event in &self.events {
            let guest = event.guest.map(|at| format!("{at:.3}")).unwrap_or_default();
            writeln!(f, "{:>8.3} {guest:>8}  {}", event.host.as_secs_f64(), event.what)?;
        }
        match &self.own_share {
            Some((seconds, words)) => {
                writeln!(f, "init's own share, as it says: {}{words}", Bar::AtMost(OWN_SHARE).judge(*seconds, " s"))
            }
            None => writeln!(f, "init does not tell its own share: not every service got ready"),
        }
    }
}

/// What a line tells.
#[derive(Debug)]
struct Told {
    guest: Option<f64>,
    news: News,
}

#[derive(Debug)]
enum News {
    PhaseStart(String),
    PhaseEnd(String, String),
    OwnShare(f64, String),
    Other(String),
}

/// The forms of lines (ARCHITECTURE, "Console lines").
struct Forms {
    stamp: Regex,
    phase: Regex,
    service: Regex,
    own_share: Regex,
    stage: Regex,
}

impl Forms {
    #[allow(clippy::unwrap_used)] // Constants.
    fn new() -> Forms {
        let form = |text: &str| Regex::new(text).unwrap();
        Forms {
            stamp: form(r"^\[ *(\d+\.\d+)\] (.*)$"),
            phase: form(r"^phase (\d+) ([a-z0-9-]+): (start|ok|failed)"),
            service: form(r"^service ([a-z0-9-]+): (started|ready)(?: (\(.*\)))?"),
            own_share: form(r"init's own share: (\d+\.\d+) s(.*)$"),
            stage: form(r"^kscratch \S+ (in the initramfs|on the root)$"),
        }
    }

    fn read(&self, line: &str) -> Option<Told> {
        if line.contains("] Linux version ") {
            return Some(Told { guest: Some(0.0), news: News::Other("the kernel's first line".into()) });
        }
        let stamped = self.stamp.captures(line)?;
        let text = stamped.get(2)?.as_str();
        Some(Told { guest: stamped[1].parse().ok(), news: self.news(text)? })
    }

    fn news(&self, text: &str) -> Option<News> {
        if let Some(found) = self.phase.captures(text) {
            let name = format!("{} {}", &found[1], &found[2]);
            return Some(match &found[3] {
                "start" => News::PhaseStart(name),
                how => News::PhaseEnd(name, how.to_owned()),
            });
        }
        if let Some(found) = self.service.captures(text) {
            let took = found.get(3).map(|took| format!(" {}", took.as_str())).unwrap_or_default();
            let healthy = if &found[1] == "kubelet" && &found[2] == "ready" { ": kubelet is healthy" } else { "" };
            return Some(News::Other(format!("    service {}: {}{took}{healthy}", &found[1], &found[2])));
        }
        if let Some(found) = self.own_share.captures(text) {
            return Some(News::OwnShare(found[1].parse().ok()?, found[2].to_owned()));
        }
        let found = self.stage.captures(text)?;
        Some(News::Other(format!("init {}", &found[1])))
    }
}
