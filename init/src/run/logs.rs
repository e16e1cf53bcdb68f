//! Turns the output of a service into its log file, rotated by size, and into the last lines for the console.
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How many lines of a service that died the console shows ...
const TAIL_LINES: usize = 20;
/// ... and how many it shows to whoever asks.
const RECENT_LINES: usize = 60;
/// What is kept of one line for the console, in bytes.
const TAIL_LINE: usize = 400;

/// When a log file is put aside, and how many such are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// A file that would grow over this many bytes is put aside.
    pub size: u64,
    /// Files kept besides the one that is written: `NAME.log.1` (newest) to `NAME.log.<kept>`.
    pub kept: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { size: 8 << 20, kept: 3 }
    }
}

/// The log of one service.
pub struct Log {
    path: PathBuf,
    rotation: Rotation,
    file: Option<File>,
    size: u64,
    /// The last lines, and how many of them the console has not shown by itself.
    lines: VecDeque<String>,
    fresh: usize,
    unfinished: Vec<u8>,
    /// The line that says which boot what follows is of, and whether this boot's file has it already.
    mark: Option<String>,
    marked: bool,
}

impl Log {
    /// A log `NAME.log` in a folder. Nothing is opened before the first output.
    #[must_use]
    pub fn new(folder: &Path, name: &str, rotation: Rotation) -> Self {
        Self {
            path: folder.join(format!("{name}.log")),
            rotation,
            file: None,
            size: 0,
            lines: VecDeque::new(),
            fresh: 0,
            unfinished: Vec::new(),
            mark: None,
            marked: false,
        }
    }

    /// Has a line `-- boot BOOT --` before what is written first, and at the beginning of each further file. `kscratch-agent logs` looks for it.
    #[must_use]
    pub fn of_boot(self, boot: Option<&str>) -> Self {
        Self { mark: boot.map(|boot| format!("-- boot {boot} --\n")), ..self }
    }

    /// Takes output as it comes. The last lines are kept whatever the disk says.
    ///
    /// # Errors
    /// The file cannot be written (a full disk); the output is lost for it, and the next one is tried anew.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.remember(bytes);
        let result = self.store(bytes);
        if result.is_err() {
            self.file = None;
        }
        result
    }

    /// Where it is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the last lines for the console, oldest first; they are not shown twice.
    pub fn take_tail(&mut self) -> Vec<String> {
        let unfinished = std::mem::take(&mut self.unfinished);
        if !unfinished.is_empty() {
            self.finish_line(&unfinished);
        }
        let fresh = std::mem::take(&mut self.fresh).min(TAIL_LINES);
        self.lines.iter().skip(self.lines.len().saturating_sub(fresh)).cloned().collect()
    }

    /// The last lines for whoever asks, oldest first, shown before or not.
    #[must_use]
    pub fn recent(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }

    fn store(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_some() && self.size > 0 && self.size + bytes.len() as u64 > self.rotation.size {
            self.rotate()?;
        }
        if self.file.is_none() {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let file = File::options().create(true).append(true).open(&self.path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
            if self.size > 0 && self.size + bytes.len() as u64 > self.rotation.size {
                self.rotate()?;
            } else if !self.marked {
                self.put_mark()?;
            }
        }
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
            self.size += bytes.len() as u64;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (1..self.rotation.kept).rev() {
            match fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        if self.rotation.kept > 0 {
            fs::rename(&self.path, self.aside(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        self.file = Some(File::options().create(true).append(true).open(&self.path)?);
        self.size = 0;
        self.put_mark()
    }

    /// What stands there already may lack its line's end.
    fn put_mark(&mut self) -> io::Result<()> {
        let (Some(mark), Some(file)) = (&self.mark, &mut self.file) else { return Ok(()) };
        let text = if self.size > 0 { format!("\n{mark}") } else { mark.clone() };
        file.write_all(text.as_bytes())?;
        self.size += text.len() as u64;
        self.marked = true;
        Ok(())
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn remember(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let mut line = std::mem::take(&mut self.unfinished);
            line.extend_from_slice(&rest[..end.min(TAIL_LINE)]);
            self.finish_line(&line);
            rest = &rest[end + 1..];
        }
        let room = TAIL_LINE.saturating_sub(self.unfinished.len());
        self.unfinished.extend_from_slice(&rest[..rest.len().min(room)]);
    }

    fn finish_line(&mut self, line: &[u8]) {
        let line = &line[..line.len().min(TAIL_LINE)];
        if self.lines.len() == RECENT_LINES {
            self.lines.pop_front();
        }
        self.fresh = (self.fresh + 1).min(RECENT_LINES);
        // What a service prints must not steer the terminal behind the console.
        let text: String =
            String::from_utf8_lossy(line).trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.lines.push_back(text);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Log, Rotation};

    #[test]
    fn output_lands_in_the_file_and_is_rotated_by_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::new(&folder.path().join("deep"), "a", Rotation { size: 10, kept: 2 });
        for chunk in ["111111\n", "222222\n", "333333\n", "444444\n", "55\n"] {
            log.write(chunk.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join("deep").join(name)).ok();
        assert_eq!(read("a.log").as_deref(), Some("444444\n55\n"));
        assert_eq!(read("a.log.1").as_deref(), Some("333333\n"));
        assert_eq!(read("a.log.2").as_deref(), Some("222222\n"));
        assert_eq!(read("a.log.3"), None);
    }

    #[test]
    fn a_log_of_the_boot_before_is_continued() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["one\n", "two\n", "sixteen bytes..\n"] {
            Log::new(folder.path(), "a", Rotation { size: 10, kept: 1 }).write(text.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(folder.path().join("a.log")).unwrap(), "sixteen bytes..\n");
        assert_eq!(fs::read_to_string(folder.path().join("a.log.1")).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn every_file_says_which_boot_it_is_of() {
        let folder = tempfile::tempdir().unwrap();
        let rotation = Rotation { size: 60, kept: 2 };
        for (boot, texts) in [("b1", &["one\n", "half"][..]), ("b2", &["two\n", "three\n"]), ("b2", &[])] {
            let mut log = Log::new(folder.path(), "a", rotation).of_boot(Some(boot));
            texts.iter().for_each(|text| log.write(text.as_bytes()).unwrap());
            log.write(&[b'x'; 25]).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let x = "x".repeat(25);
        assert_eq!(read("a.log"), format!("-- boot b2 --\n{x}"));
        assert_eq!(read("a.log.1"), format!("-- boot b2 --\nthree\n{x}"));
        assert_eq!(read("a.log.2"), format!("-- boot b1 --\none\nhalf{x}\n-- boot b2 --\ntwo\n"));
    }

    #[test]
    fn the_last_lines_are_kept_even_where_the_file_cannot_be_written() {
        let mut log = Log::new(std::path::Path::new("/proc/no/such"), "a", Rotation::default());
        for number in 0..30 {
            log.write(format!("line {number}\nand a\x1b[31m ").as_bytes()).unwrap_err();
        }
        let tail = log.take_tail();
        assert_eq!(tail.len(), 20);
        assert_eq!(tail[18], "and a [31m line 29");
        assert_eq!(tail[19], "and a [31m");
        assert!(log.take_tail().is_empty());
        let recent = log.recent();
        assert_eq!((recent.len(), recent[0].as_str(), recent[30].as_str()), (31, "line 0", "and a [31m"));
    }

    #[test]
    fn a_line_without_an_end_takes_bounded_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::new(folder.path(), "a", Rotation::default());
        for _ in 0..100 {
            log.write(&[b'x'; 1000]).unwrap();
        }
        assert_eq!(log.take_tail(), ["x".repeat(400)]);
    }
}
