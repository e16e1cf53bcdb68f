//! Turns boots into lines for people.
use std::fmt::Write as _;
use std::time::Duration;

use kscratch_recorder::story::{Outcome, Phase, Service, Story};
use kscratch_recorder::{Begin, Entry, What};
use time::OffsetDateTime;

use super::{Finding, Told};
use crate::console::shown;

/// Of a longer list so many are told at its begin, and so many at its end.
const ENDS: usize = 10;

/// A line for each earlier boot, then those that are chosen in full.
pub(super) fn of(earlier: &[Told], chosen: &[Told], log: bool) -> String {
    let mut text = String::new();
    let width = earlier.first().map_or(0, |told| told.number.to_string().len());
    for told in earlier {
        // Writing into a String does not fail.
        let _ = writeln!(text, "{}", shown(&line(told, width)));
    }
    for told in chosen {
        if !text.is_empty() {
            text.push('\n');
        }
        whole(&mut text, told, log);
    }
    text
}

fn line(told: &Told, width: usize) -> String {
    let Told { number, story, .. } = told;
    let run = span(story.until) + if story.end.is_some() { "" } else { " or more" };
    let troubles = counted(story.troubles().len(), "trouble");
    let left = told.found.as_ref().is_some_and(|found| !found.left.is_empty());
    let left = if left { ", last words of the kernel" } else { "" };
    format!(
        "boot {number:>width$}  begun {:<23}  ran {run:<22}  {:<14}  {troubles}{left}",
        begun(story.begin.as_ref()).as_deref().unwrap_or(UNKNOWN),
        story.end.as_deref().unwrap_or(if story.end_lost { "its end is lost" } else { "without a word" }),
    )
}

fn whole(text: &mut String, told: &Told, log: bool) {
    let Told { number, story, .. } = told;
    let last = if *number == 1 { " (the last)" } else { "" };
    let _ = writeln!(text, "boot {number}{last}: begun {}", by_its_clock(story.begin.as_ref()));
    if let Some(Begin { kscratch, kernel, .. }) = &story.begin {
        row(text, "version", &[format!("kscratch {}, Linux {}", known(kscratch), known(kernel))]);
    }
    row(text, "record", &gaps(told));
    if let Some(found) = &told.found_before {
        row(text, "before it", &finding(found, "found at its start, of a boot that nothing else is left of"));
    }
    row(text, "phases", &phases(story));
    row(text, "services", &story.services.iter().flat_map(service).collect::<Vec<_>>());
    row(text, "kernel", &some(story.kernel.iter().map(|(at, line)| stamped(*at, line)).collect()));
    row(text, "end", &end(told));
    if let Some(found) = &told.found {
        row(text, "after it", &finding(found, &format!("found by the next boot, boot {}", number - 1)));
    }
    if log {
        let _ = writeln!(text, "  log");
        for Entry { at, what } in &told.boot.entries {
            for line in entry(what).split('\n') {
                let _ = writeln!(text, "  {}", shown(stamped(*at, line).trim_end()));
            }
        }
    }
}

/// The lines with what they are about before the first; without lines, nothing. What a terminal would obey goes no further than here.
fn row(text: &mut String, label: &str, lines: &[String]) {
    let mut label = label;
    for line in lines.iter().flat_map(|line| line.split('\n')) {
        let _ = writeln!(text, "{}", format!("  {label:<9}  {}", shown(line)).trim_end());
        label = "";
    }
}

fn gaps(told: &Told) -> Vec<String> {
    let mut lines = Vec::new();
    if told.boot.cut {
        let why = if told.oldest { "overwritten by later boots, or damaged" } else { "damaged" };
        lines.push(format!("its begin is {why}: what is told here is the rest"));
    }
    match told.boot.lost {
        0 => {}
        1 => lines.push("a block is lost in between: something that it said is missing here".to_owned()),
        lost => lines.push(format!("{lost} blocks are lost in between: something that it said is missing here")),
    }
    lines
}

fn phases(story: &Story) -> Vec<String> {
    if story.phases.is_empty() {
        return vec!["none is told".to_owned()];
    }
    let well: Vec<(&Phase, Duration)> = story
        .phases
        .iter()
        .filter_map(|phase| match &phase.outcome {
            Outcome::Ok(end) => Some((phase, *end)),
            Outcome::Open | Outcome::Failed(_) => None,
        })
        .collect();
    let mut head = format!("{} ended well", well.len());
    let first = story.phases.iter().map(|phase| phase.begun).min();
    let last = well.iter().map(|(_, end)| *end).max();
    if let (Some(first), Some(last)) = (first, last) {
        let _ = write!(head, " in {}", seconds(last.saturating_sub(first)));
    }
    // Those of outside bytes may end before they begin.
    let longest =
        well.iter().map(|(phase, end)| (end.saturating_sub(phase.begun), phase)).max_by_key(|(took, _)| *took);
    if let Some((took, phase)) = longest {
        let _ = write!(head, ", the longest is {} in {}", named(phase), seconds(took));
    }
    let rest = story.phases.iter().filter_map(|phase| match &phase.outcome {
        Outcome::Ok(_) => None,
        Outcome::Failed(why) => Some(stamped(phase.begun, &format!("{} failed: {why}", named(phase)))),
        Outcome::Open => Some(stamped(phase.begun, &format!("{} began and did not end", named(phase)))),
    });
    let rest = some(rest.collect());
    [head].into_iter().chain(rest).collect()
}

fn named(phase: &Phase) -> String {
    format!("{:02} {}", phase.number, phase.name)
}

fn service(service: &Service) -> Vec<String> {
    let starts = match service.starts {
        0 => "no start of it is told".to_owned(),
        1 => "started once".to_owned(),
        times => format!("started {times} times"),
    };
    let ready = match service.ready {
        Some(at) => format!("first ready at {}", seconds(at)),
        None => "never told to be ready".to_owned(),
    };
    let troubles = some(service.troubles.iter().map(|(at, trouble)| stamped(*at, trouble)).collect());
    let troubles = troubles.into_iter().map(|trouble| format!("  {trouble}"));
    [format!("{}: {starts}, {ready}", service.name)].into_iter().chain(troubles).collect()
}

fn end(told: &Told) -> Vec<String> {
    let until = span(told.story.until);
    if let Some(how) = &told.story.end {
        return vec![format!("ended in order, {until} after its start: {how}")];
    }
    let why = match &told.found {
        Some(found) if !found.left.is_empty() => "the last words of its kernel stand below",
        _ if told.story.end_lost => "or its end is lost, for blocks behind the last one of it are damaged",
        _ if told.number == 1 => "its power was cut, or it hung, or it runs still",
        _ => "its power was cut, or it hung",
    };
    let last = match &told.story.last {
        Some((at, text)) => format!("the last that init said, at {}: {text}", seconds(*at)),
        None => "nothing that init said is left".to_owned(),
    };
    vec![format!("ended without a word {until} or more after its start: {why}"), last]
}

fn finding(found: &Finding, head: &str) -> Vec<String> {
    let reset = found.reset.as_ref().map(|reset| format!("  why the machine was reset: {reset}"));
    let left = (!found.left.is_empty()).then(|| "  what the kernel left behind:".to_owned());
    let words = found.left.iter().flat_map(|words| words.split('\n')).map(|line| format!("    {line}"));
    [format!("{head}:")].into_iter().chain(reset).chain(left).chain(words).collect()
}

fn entry(what: &What) -> String {
    match what {
        What::Begin(begin) => {
            let (kscratch, kernel) = (known(&begin.kscratch), known(&begin.kernel));
            format!("begin: kscratch {kscratch}, Linux {kernel}, {}", by_its_clock(Some(begin)))
        }
        What::Said(text) => text.clone(),
        What::Kernel(level, text) => format!("kernel {level}: {text}"),
        What::Left(text) => format!("left by the boot before: {text}"),
        What::Reset(text) => format!("reset before this boot: {text}"),
        What::Alive => "it runs".to_owned(),
        What::End(how) => format!("end: {how}"),
    }
}

fn known(version: &str) -> &str {
    if version.is_empty() { "(unknown)" } else { version }
}

const UNKNOWN: &str = "at an unknown time";

/// When a boot began; none where that is lost, or is no time that there is.
fn begun(begin: Option<&Begin>) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(begin?.clock).ok()?;
    let (date, (hour, minute, second)) = (time.date(), time.to_hms());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    Some(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"))
}

/// A clock may be wrong.
fn by_its_clock(begin: Option<&Begin>) -> String {
    begun(begin).map_or_else(|| UNKNOWN.to_owned(), |time| format!("{time} by its clock"))
}

/// A line with its time, as the console of the machine shows it.
fn stamped(at: Duration, line: &str) -> String {
    format!("[{:8.3}] {line}", at.as_secs_f64())
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// A time in the two largest units that it has; below two minutes, seconds.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{minutes} min {} s", seconds % 60),
        7200..172_800 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

fn counted(number: usize, what: &str) -> String {
    match number {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// The begin and the end of a long list.
fn some(mut lines: Vec<String>) -> Vec<String> {
    let between = lines.len().saturating_sub(2 * ENDS);
    // A line that says that one is left out would be none the shorter.
    if between > 1 {
        lines.splice(ENDS..ENDS + between, [format!("(and {between} more, which --log tells)")]);
    }
    lines
}
