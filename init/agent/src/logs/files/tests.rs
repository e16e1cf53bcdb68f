//! Real files that are written, rotated and removed as PID 1 does it, and a reader that goes on where another one stopped.
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use proptest::prelude::{Just, Strategy, prop, prop_assert_eq, prop_oneof, proptest};

use super::{Folder, TURN};
use crate::logs::places::Places;
use crate::logs::said::Said;

const BOOT: &str = "11111111-1111-1111-1111-111111111111";
const BEFORE: &str = "00000000-0000-0000-0000-000000000000";
const MISSING: &str = "lines of a are missing here: their files were gone before they were sent";

/// Writes to the log of `a`, without a rotation.
fn write(folder: &Path, text: &str) {
    fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("a.log"))
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

fn rotate(folder: &Path) {
    let at = |name: &str| folder.join(name);
    for (from, to) in [("a.log.2", "a.log.3"), ("a.log.1", "a.log.2"), ("a.log", "a.log.1")] {
        let _ = fs::rename(at(from), at(to));
    }
    write(folder, "");
}

fn mark(boot: &str) -> String {
    format!("-- boot {boot} --\n")
}

fn reader(folder: &Path, sent: Vec<Option<Places>>) -> Folder {
    Folder::new(folder, ["logs".to_owned()].into(), BOOT.into(), sent)
}

/// All that is there now.
fn all(folder: &mut Folder) -> Vec<Said> {
    let mut said = Vec::new();
    loop {
        let news = folder.turn(&mut said);
        assert_eq!(news.faults, Vec::<String>::new());
        if !news.more {
            return said;
        }
    }
}

fn words(said: &[Said], server: usize) -> Vec<&str> {
    said.iter().filter(|said| said.to.has(server)).map(|said| said.message.as_str()).collect()
}

#[test]
fn a_new_server_gets_this_boot_and_rotations_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, &format!("older\n{}old\n\n{}one\n", mark(BEFORE), mark(BOOT)));
    fs::write(path.join("logs.log"), format!("{}own\n", mark(BOOT))).unwrap();
    fs::write(path.join("a.log.x"), "no log").unwrap();
    let mut reader = reader(path, vec![None]);
    let said = all(&mut reader);
    assert_eq!(words(&said, 0), ["one"]);
    assert_eq!((said[2].source.as_ref(), said[2].boot.as_deref()), ("a", Some(BOOT)));
    write(path, "two\nhalf");
    rotate(path);
    write(path, &format!("{} a line\nthree\n", mark(BOOT)));
    rotate(path);
    write(path, &format!("{}four\n", mark(BOOT)));
    assert_eq!(words(&all(&mut reader), 0), ["two", "half a line", "three", "four"]);
    assert!(all(&mut reader).is_empty());
    fs::write(path.join("b.log"), format!("{}late\n", mark(BOOT))).unwrap();
    assert_eq!(words(&all(&mut reader), 0), ["late"]);
}

#[test]
fn each_server_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, &format!("{}one\n", mark(BEFORE)));
    let places = |said: &[Said]| {
        let mut places = Places::default();
        said.iter().for_each(|said| places.note(said.place.as_ref().unwrap()));
        places
    };
    let known = Some(Places::default());
    let first = places(&all(&mut reader(path, vec![known.clone()])));
    write(path, "two\n");
    rotate(path);
    write(path, "three\n");
    let second = places(&all(&mut reader(path, vec![known.clone()])));
    rotate(path);
    write(path, &format!("{}four\n", mark(BOOT)));
    let said = all(&mut reader(path, vec![Some(first.clone()), Some(second), None, known]));
    assert_eq!(words(&said, 0), ["two", "three", "four"]);
    assert_eq!(words(&said, 1), ["four"]);
    assert_eq!(words(&said, 2), ["four"]);
    assert_eq!(words(&said, 3), ["one", "two", "three", "four"]);
    assert_eq!(said.iter().find(|said| said.message == "two").unwrap().boot.as_deref(), Some(BEFORE));
    // What was to come next is gone.
    for _ in 0..3 {
        rotate(path);
    }
    let said = all(&mut reader(path, vec![Some(first)]));
    assert_eq!(words(&said, 0), [MISSING, "four"]);
}

/// What was sent of the boot before is not on the disk any more, and this boot has written in its place.
#[test]
fn a_log_that_lost_its_end_with_the_power_loses_nothing_of_this_boot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let before = format!("{}one\ntwo\nthree\nfour\nfive\n", mark(BEFORE));
    write(path, &before);
    let mut places = Places::default();
    let sent = all(&mut reader(path, vec![Some(places.clone())]));
    assert_eq!(sent.len(), 5);
    sent.iter().for_each(|said| places.note(said.place.as_ref().unwrap()));
    for left in [0, 52] {
        let file = fs::File::options().write(true).open(path.join("a.log")).unwrap();
        file.set_len(0).unwrap();
        write(path, &before);
        file.set_len(left).unwrap();
        write(path, &format!("{}six\n", mark(BOOT)));
        assert_eq!(words(&all(&mut reader(path, vec![Some(places.clone())])), 0), ["six"], "{left}");
        write(path, &"x\n".repeat(100));
        assert_eq!(words(&all(&mut reader(path, vec![Some(places.clone())])), 0).len(), 101, "{left}");
    }
    // Or the whole file, or all that was put aside is another's.
    fs::remove_file(path.join("a.log")).unwrap();
    write(path, &format!("{}seven\n", mark(BOOT)));
    assert_eq!(words(&all(&mut reader(path, vec![Some(places)])), 0), ["seven"]);
}

#[test]
fn who_is_behind_is_told_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "one\n");
    let mut reader = reader(path, vec![Some(Places::default())]);
    assert_eq!(words(&all(&mut reader), 0), ["one"]);
    write(path, "two\nhalf a line");
    for number in 3..8 {
        rotate(path);
        write(path, &format!("{number}\n"));
    }
    let said = all(&mut reader);
    // The file that is open is read to its end wherever it is.
    assert_eq!(words(&said, 0), ["two", MISSING, "4", "5", "6", "7"]);
}

#[test]
fn who_has_read_a_file_misses_nothing_when_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for line in ["one\n", "two\n", "three\n", "four\n"] {
        rotate(path);
        write(path, line);
    }
    let mut reader = reader(path, vec![Some(Places::default())]);
    let mut said = Vec::new();
    reader.turn(&mut said);
    assert_eq!(words(&said, 0), ["one"]);
    rotate(path);
    write(path, "five\n");
    assert_eq!(words(&all(&mut reader), 0), ["two", "three", "four", "five"]);
    // Nor does he who reads so slowly that four more come meanwhile.
    write(path, &"six\n".repeat(2 * TURN));
    for line in ["seven\n", "eight\n", "nine\n", "ten\n"] {
        reader.turn(&mut said);
        rotate(path);
        write(path, line);
    }
    let rest = all(&mut reader);
    let rest = words(&rest, 0);
    assert_eq!(rest[rest.len() - 5..], ["six", "seven", "eight", "nine", "ten"]);
}

#[test]
fn who_has_more_than_is_gone_gets_all_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // A file that is kept open gives its inode to no other one.
    let (mut places, mut kept) = (Vec::new(), Vec::new());
    for lines in ["one\n", "two\n", "three\nthree again\n", "four\n"] {
        rotate(path);
        write(path, lines);
        kept.push(File::open(path.join("a.log")).unwrap());
        let said = all(&mut reader(path, vec![Some(Places::default())]));
        let mut sent = Places::default();
        let last = said.iter().rfind(|said| said.message != "three again").unwrap();
        sent.note(last.place.as_ref().unwrap());
        places.push(Some(sent));
    }
    let mut reader = reader(path, vec![places[0].clone(), places[2].clone(), places[1].clone()]);
    let mut said = Vec::new();
    reader.turn(&mut said);
    for line in ["five\n", "six\n"] {
        rotate(path);
        write(path, line);
    }
    said.extend(all(&mut reader));
    assert_eq!(words(&said, 0), [MISSING, "three", "three again", "four", "five", "six"]);
    assert_eq!(words(&said, 1), ["three again", "four", "five", "six"]);
    assert_eq!(words(&said, 2)[..2], [MISSING, "three"]);
}

#[test]
fn what_cannot_be_read_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none");
    let mut reader = reader(&path, vec![None]);
    let mut said = Vec::new();
    assert!(reader.turn(&mut said).faults[0].contains("none: No such file"));
    assert_eq!(reader.turn(&mut said).faults.len(), 0);
    fs::create_dir_all(path.join("a.log")).unwrap();
    assert!(reader.turn(&mut said).faults[0].contains("a.log: Is a directory"));
    assert_eq!(reader.turn(&mut said).faults.len(), 0);
}

#[derive(Debug, Clone)]
enum Act {
    Write(usize),
    Rotate,
    Read,
    Restart,
}

/// What was written, and what a server should have got of it.
#[derive(Default)]
struct Model {
    files: Vec<String>,
    /// The file that is open, and how far it is read.
    open: Option<(usize, usize)>,
    half: String,
    /// Where the last line that was sent ends.
    sent: Option<(usize, usize)>,
    got: Vec<String>,
}

impl Model {
    fn read(&mut self) {
        let Some(last) = self.files.len().checked_sub(1) else { return };
        // Those that rotate() leaves.
        let oldest = last.saturating_sub(3);
        let (mut file, mut at) = self.open.unwrap_or_else(|| {
            self.half.clear();
            if self.sent.is_some_and(|(file, _)| file < oldest) {
                self.got.push(MISSING.to_owned());
            }
            self.sent.filter(|(file, _)| *file >= oldest).unwrap_or((oldest, 0))
        });
        loop {
            for piece in self.files[file][at..].split_inclusive('\n') {
                at += piece.len();
                self.half += piece;
                if self.half.ends_with('\n') {
                    let line = std::mem::take(&mut self.half);
                    if !line.trim_end().is_empty() {
                        self.got.push(line.trim_end().to_owned());
                        self.sent = Some((file, at));
                    }
                }
            }
            if file == last {
                break;
            }
            if file + 1 < oldest {
                self.got.push(MISSING.to_owned());
                self.half.clear();
            }
            (file, at) = ((file + 1).max(oldest), 0);
        }
        self.open = Some((file, at));
    }
}

/// A log that is written as [`Model::files`] says, and never gets the inode of another one.
struct Written<'a> {
    folder: &'a Path,
    kept: Vec<File>,
    model: Model,
}

impl Written<'_> {
    fn write(&mut self, text: &str) {
        if self.model.files.is_empty() {
            self.begin();
        }
        write(self.folder, text);
        *self.model.files.last_mut().unwrap() += text;
    }

    fn begin(&mut self) {
        rotate(self.folder);
        self.kept.push(File::open(self.folder.join("a.log")).unwrap());
        self.model.files.push(String::new());
    }
}

proptest! {
    /// Lines that are written, put aside, removed, read and read again after a restart come once each and in order; what is lost is told where it was, and nothing else.
    #[test]
    fn every_line_comes_once_or_is_told_to_be_missing(acts in prop::collection::vec(prop_oneof![
        4 => (1..12_usize).prop_map(Act::Write),
        3 => Just(Act::Rotate),
        2 => Just(Act::Read),
        1 => Just(Act::Restart),
    ], 0..60)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut written = Written { folder: path, kept: Vec::new(), model: Model::default() };
        let mut places = Places::default();
        let mut reading = reader(path, vec![Some(places.clone())]);
        let (mut got, mut rotations, mut at) = (Vec::new(), 0, 0);
        // All that is ever written; a piece of it may end anywhere.
        let whole: String = (0..200).map(|number| format!("line {number}\n")).collect();
        for act in acts.into_iter().chain([Act::Read]) {
            match act {
                Act::Write(more) => {
                    written.write(&whole[at..at + more]);
                    at += more;
                }
                Act::Rotate => {
                    written.begin();
                    rotations += 1;
                }
                Act::Read => {
                    // Nobody can tell whether the one that came next is the oldest that is left, or was before it: it counts as lost.
                    if rotations == 4 {
                        written.begin();
                    }
                    // What was sent may be read once more, and is for nobody then.
                    for said in all(&mut reading).into_iter().filter(|said| said.to.has(0)) {
                        said.place.iter().for_each(|place| places.note(place));
                        got.push(said.message);
                    }
                    written.model.read();
                    rotations = 0;
                }
                Act::Restart => {
                    reading = reader(path, vec![Some(places.clone())]);
                    written.model.open = None;
                }
            }
        }
        prop_assert_eq!(got, written.model.got);
    }
}
