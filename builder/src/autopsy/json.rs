//! Turns boots into a JSON array for programs. Times are seconds since the boot's kernel started, `begun` is in RFC 3339.
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use kscratch_pki::{OffsetDateTime, moment};
use kscratch_recorder::story::{Outcome, Phase, Service};
use kscratch_recorder::{Entry, What};
use serde::Serialize;

use super::{Finding, Told};
use crate::console::is_obeyed;

#[derive(Serialize)]
struct BootReport<'a> {
    number: usize,
    id: String,
    begun: Option<String>,
    kscratch: Option<&'a str>,
    kernel: Option<&'a str>,
    begin_lost: bool,
    lost_blocks: u64,
    phases: Vec<PhaseReport<'a>>,
    services: Vec<ServiceReport<'a>>,
    kernel_errors: Vec<Line<'a>>,
    troubles: Vec<String>,
    last_said: Option<Line<'a>>,
    /// How long it is known to have run.
    ran: f64,
    /// How it ended in order; none where it ended without a word, or runs still.
    ended: Option<&'a str>,
    /// What the next boot found of this one.
    found_by_next: Option<FindingReport<'a>>,
    /// What this boot found of one that nothing else is left of.
    found_before: Option<FindingReport<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Vec<EntryReport<'a>>>,
}

#[derive(Serialize)]
struct PhaseReport<'a> {
    number: u32,
    name: &'a str,
    begun: f64,
    /// `ok`, `failed`, or `open` where nothing is said of its end.
    outcome: &'static str,
    ended: Option<f64>,
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct ServiceReport<'a> {
    name: &'a str,
    starts: u32,
    ready: Option<f64>,
    troubles: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct FindingReport<'a> {
    kernel_left: &'a [String],
    reset: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    at: f64,
    text: &'a str,
}

#[derive(Serialize)]
struct EntryReport<'a> {
    at: f64,
    /// `begin`, `said`, `kernel`, `kernel_left`, `reset`, `alive` or `end`.
    kind: &'static str,
    /// The level of a kernel's line.
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

/// The array, with nothing in it that a terminal would obey.
pub(super) fn of(boots: &[Told], log: bool) -> Result<String> {
    let reports: Vec<BootReport<'_>> = boots.iter().map(|told| report(told, log)).collect();
    let text = serde_json::to_string_pretty(&reports).context("writing the boots as JSON")?;
    let mut safe = String::with_capacity(text.len() + 1);
    for char in text.chars() {
        // JSON wants no escapes for those from 0x7F on (RFC 8259, section 7). All of them have four digits.
        if is_obeyed(char) && char != '\n' {
            let _ = write!(safe, "\\u{:04x}", u32::from(char));
        } else {
            safe.push(char);
        }
    }
    safe.push('\n');
    Ok(safe)
}

fn report(told: &Told, log: bool) -> BootReport<'_> {
    let Told { boot, story, .. } = told;
    let begin = story.begin.as_ref();
    let time = begin.and_then(|begin| OffsetDateTime::from_unix_timestamp(begin.clock).ok());
    BootReport {
        number: told.number,
        id: hex::encode(boot.id.0),
        begun: time.map(moment),
        kscratch: begin.map(|begin| begin.kscratch.as_str()),
        kernel: begin.map(|begin| begin.kernel.as_str()),
        begin_lost: boot.cut,
        lost_blocks: boot.lost,
        phases: story.phases.iter().map(phase).collect(),
        services: story.services.iter().map(service).collect(),
        kernel_errors: story.kernel.iter().map(line).collect(),
        troubles: story.troubles(),
        last_said: story.last.as_ref().map(line),
        ran: seconds(story.until),
        ended: story.end.as_deref(),
        found_by_next: told.found.as_ref().map(finding),
        found_before: told.found_before.as_ref().map(finding),
        log: log.then(|| boot.entries.iter().map(entry).collect()),
    }
}

fn phase(phase: &Phase) -> PhaseReport<'_> {
    let (outcome, ended, reason) = match &phase.outcome {
        Outcome::Ok(end) => ("ok", Some(seconds(*end)), None),
        Outcome::Failed(why) => ("failed", None, Some(why.as_str())),
        Outcome::Open => ("open", None, None),
    };
    PhaseReport { number: phase.number, name: &phase.name, begun: seconds(phase.begun), outcome, ended, reason }
}

fn service(service: &Service) -> ServiceReport<'_> {
    ServiceReport {
        name: &service.name,
        starts: service.starts,
        ready: service.ready.map(seconds),
        troubles: service.troubles.iter().map(line).collect(),
    }
}

fn finding(found: &Finding) -> FindingReport<'_> {
    FindingReport { kernel_left: &found.left, reset: found.reset.as_deref() }
}

fn line((at, text): &(Duration, String)) -> Line<'_> {
    Line { at: seconds(*at), text }
}

fn entry(Entry { at, what }: &Entry) -> EntryReport<'_> {
    let (kind, level, text) = match what {
        What::Begin(_) => ("begin", None, None),
        What::Said(text) => ("said", None, Some(text)),
        What::Kernel(level, text) => ("kernel", Some(*level), Some(text)),
        What::Left(text) => ("kernel_left", None, Some(text)),
        What::Reset(text) => ("reset", None, Some(text)),
        What::Alive => ("alive", None, None),
        What::End(how) => ("end", None, Some(how)),
    };
    EntryReport { at: seconds(*at), kind, level, text: text.map(String::as_str) }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
