//! Turns the phases of a boot into lines of `/var/lib/kscratch/boot-record.jsonl`, and the lines of an earlier boot into where it stopped.
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the record stands on state.
pub const PATH: &str = "/var/lib/kscratch/boot-record.jsonl";
/// Boots that are kept.
const KEPT_BOOTS: usize = 20;

/// One line: something that happened to a phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The kernel's name for this boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Seconds since the kernel started.
    pub at: f64,
    /// Number of the phase, from 1.
    pub number: u32,
    /// Its name.
    pub phase: String,
    /// What happened.
    pub event: Event,
    /// How long it took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What happens to a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// It begins.
    Start,
    /// It ended well.
    Ok,
    /// It failed.
    Failed,
}

/// The record of this boot. Until state is there, its lines wait in memory.
#[derive(Debug, Default)]
pub struct Record {
    waiting: Vec<Line>,
    file: Option<File>,
}

impl Record {
    /// One that waits for its file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line. Once there is a file, a start and a failure are on the disk before this returns; a good end is there with the start
    /// that follows it, which costs one wait for the disk instead of two ([`Record::sync`] for the last one).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, line: Line) -> io::Result<()> {
        match &mut self.file {
            Some(file) => {
                write(file, &line)?;
                if line.event == Event::Ok { Ok(()) } else { file.sync_data() }
            }
            None => {
                self.waiting.push(line);
                Ok(())
            }
        }
    }

    /// Sees to it that all lines are on the disk, once there is a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Opens the file below `root`, writes what waited, drops boots of long ago, and tells the phases that the boot before this one began and did not end, or
    /// that failed.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn attach(&mut self, root: &Path) -> io::Result<Vec<Line>> {
        let path = root.join(PATH.trim_start_matches('/'));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text?,
        };
        let earlier = parse(&String::from_utf8_lossy(&text));
        let kept = last_boots(&earlier, KEPT_BOOTS - 1);
        // A line that a power cut left half would spoil the next one.
        if kept.len() < earlier.len() || !(text.is_empty() || text.ends_with(b"\n")) {
            fs::rename(rewritten(&path, kept)?, &path)?;
        }
        let mut file = File::options().append(true).create(true).open(&path)?;
        for line in self.waiting.drain(..) {
            write(&mut file, &line)?;
        }
        // They are on the disk with the next phase's start.
        self.file = Some(file);
        Ok(unfinished(&earlier))
    }
}

fn rewritten(path: &Path, lines: &[Line]) -> io::Result<PathBuf> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    for line in lines {
        write(&mut file, line)?;
    }
    file.sync_all()?;
    Ok(fresh)
}

fn write(file: &mut File, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    // One call a line: half of one can come of a power cut alone.
    file.write_all(&text)
}

/// Reads a record; lines that a power cut left half are passed over.
#[must_use]
pub fn parse(text: &str) -> Vec<Line> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The lines of the last boots.
fn last_boots(lines: &[Line], boots: usize) -> &[Line] {
    let mut seen: Vec<&str> = Vec::new();
    let start = lines.iter().rposition(|line| {
        if !seen.contains(&line.boot.as_str()) {
            seen.push(&line.boot);
        }
        seen.len() > boots
    });
    &lines[start.map_or(0, |start| start + 1)..]
}

/// What the last boot began and did not end (power was cut, or PID 1 hung), and what failed in it.
#[must_use]
pub fn unfinished(lines: &[Line]) -> Vec<Line> {
    let Some(last) = lines.last() else { return Vec::new() };
    let mut open: Vec<Line> = Vec::new();
    for line in lines.iter().filter(|line| line.boot == last.boot) {
        open.retain(|other| other.number != line.number);
        if line.event != Event::Ok {
            open.push(line.clone());
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::proptest;

    use super::{Event, Line, Record, parse, unfinished};

    fn line(boot: &str, number: u32, phase: &str, event: Event) -> Line {
        Line { boot: boot.into(), at: 1.5, number, phase: phase.into(), event, seconds: None, reason: None }
    }

    fn text(root: &std::path::Path) -> String {
        fs::read_to_string(root.join("var/lib/kscratch/boot-record.jsonl")).unwrap()
    }

    #[test]
    fn lines_wait_for_state_and_then_go_to_the_file_at_once() {
        let root = tempfile::tempdir().unwrap();
        let mut record = Record::new();
        record.add(line("a", 1, "modules", Event::Start)).unwrap();
        assert!(record.attach(root.path()).unwrap().is_empty());
        record
            .add(Line {
                seconds: Some(0.25),
                reason: Some("no \"disk\"".into()),
                ..line("a", 1, "modules", Event::Failed)
            })
            .unwrap();
        assert_eq!(
            text(root.path()),
            "{\"boot\":\"a\",\"at\":1.5,\"number\":1,\"phase\":\"modules\",\"event\":\"start\"}\n{\"boot\":\"a\",\"at\":1.5,\"number\":1,\"phase\":\"modules\",\"event\":\"failed\",\"seconds\":0.25,\"reason\":\"no \\\"disk\\\"\"}\n"
        );
    }

    #[test]
    fn the_next_boot_learns_where_this_one_stopped() {
        let root = tempfile::tempdir().unwrap();
        let mut first = Record::new();
        first.attach(root.path()).unwrap();
        for (number, phase, event) in [
            (1, "state", Event::Start),
            (1, "state", Event::Ok),
            (2, "network", Event::Start),
            (2, "network", Event::Failed),
            (3, "docker", Event::Start),
        ] {
            first.add(line("a", number, phase, event)).unwrap();
        }
        // The power goes in the middle of a line.
        let path = root.path().join("var/lib/kscratch/boot-record.jsonl");
        fs::write(&path, text(root.path()) + "{\"boot\":\"a\",\"at\":2.0,\"num").unwrap();
        let told = Record::new().attach(root.path()).unwrap();
        assert_eq!(told, [line("a", 2, "network", Event::Failed), line("a", 3, "docker", Event::Start)]);
        assert!(text(root.path()).ends_with("}\n"));
    }

    #[test]
    fn a_finished_boot_leaves_nothing_to_tell_and_old_boots_go() {
        let root = tempfile::tempdir().unwrap();
        for boot in 0..30 {
            let mut record = Record::new();
            record.attach(root.path()).unwrap();
            record.add(line(&boot.to_string(), 1, "state", Event::Start)).unwrap();
            record.add(line(&boot.to_string(), 1, "state", Event::Ok)).unwrap();
        }
        let lines = parse(&text(root.path()));
        assert_eq!((lines.len(), lines[0].boot.as_str()), (40, "10"));
        assert!(unfinished(&lines).is_empty());
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(?s).{0,200}") {
            let _ = unfinished(&parse(&text));
        }
    }
}
