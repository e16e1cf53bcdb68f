//! Follows the logs of services in PID 1's folder, over every rotation, from where each server was sent them last.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use kscratch_pki::OffsetDateTime;

use super::pieces::{Piece, Pieces};
use super::places::{FileId, Place, Places, Spot};
use super::said::{Recipients, Said};

/// How much of one log is read before the others get their turn, in bytes.
const TURN: usize = 64 << 10;

/// The oldest file that is looked for is `NAME.log.9`; PID 1 keeps fewer.
const OLDEST: u32 = 9;

/// The folder, and how far each of its logs is read.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    except: BTreeSet<String>,
    /// What each server was sent before; `None` for one that is new.
    sent: Vec<Option<Places>>,
    /// This boot.
    boot: Rc<str>,
    tails: BTreeMap<String, Tail>,
    /// Logs that could not be read the last time.
    broken: BTreeSet<String>,
}

/// What is there to be told of beside what was said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Whether there may be more.
    pub more: bool,
    /// Logs that cannot be read, and why: each once.
    pub faults: Vec<String>,
}

/// One service's log.
#[derive(Debug)]
struct Tail {
    service: Rc<str>,
    path: PathBuf,
    pieces: Pieces,
    open: Open,
    /// The files that come after the open one, the oldest first, as they were seen last; `None` for some that nobody has seen.
    later: Vec<Option<FileId>>,
    /// Files behind the first one that was there.
    generation: u64,
    starts: Vec<Start>,
    /// For whom it is not complete: what was to come next is not there any more.
    gap: Recipients,
}

#[derive(Debug)]
struct Open {
    file: File,
    id: FileId,
    /// How far it is read.
    at: u64,
}

/// Where what a server is sent begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// With this boot.
    ThisBoot,
    /// Behind that byte of the file of that generation.
    Behind(u64, u64),
    /// There, and with all of this boot: the power may have been cut, and the file have lost its end.
    BehindOrThisBoot(u64, u64),
}

impl Start {
    /// Whether a file of an earlier generation has something for this server.
    fn is_before(self, generation: u64) -> bool {
        match self {
            Self::ThisBoot => true,
            Self::Behind(own, _) | Self::BehindOrThisBoot(own, _) => own < generation,
        }
    }
}

impl Folder {
    /// `sent` is what each server was sent before, `None` for one that is new and gets what is of this boot.
    pub fn new(path: &Path, except: BTreeSet<String>, boot: Rc<str>, sent: Vec<Option<Places>>) -> Self {
        Self { path: path.to_owned(), except, sent, boot, tails: BTreeMap::new(), broken: BTreeSet::new() }
    }

    /// Reads on in all logs, a bounded piece of each.
    pub fn turn(&mut self, said: &mut Vec<Said>) -> News {
        let mut news = News::default();
        let names = match names(&self.path) {
            Ok(names) => names,
            Err(error) => {
                self.fault(&mut news, "", &format!("reading the folder {}: {error}", self.path.display()));
                return news;
            }
        };
        self.broken.remove("");
        for name in names {
            if self.except.contains(&name) {
                continue;
            }
            match self.read(&name, said) {
                Ok(more) => {
                    self.broken.remove(&name);
                    news.more |= more;
                }
                Err(error) => {
                    let path = self.path.join(format!("{name}.log"));
                    self.fault(&mut news, &name, &format!("reading {}: {error}", path.display()));
                }
            }
        }
        news
    }

    fn fault(&mut self, news: &mut News, name: &str, what: &str) {
        if self.broken.insert(name.to_owned()) {
            news.faults.push(what.to_owned());
        }
    }

    fn read(&mut self, name: &str, said: &mut Vec<Said>) -> io::Result<bool> {
        if !self.tails.contains_key(name) {
            let path = self.path.join(format!("{name}.log"));
            let Some(tail) = Tail::begin(name, path, &self.boot, &self.sent)? else { return Ok(false) };
            self.tails.insert(name.to_owned(), tail);
        }
        match self.tails.get_mut(name) {
            Some(tail) => tail.read(&self.boot, said),
            None => Ok(false),
        }
    }
}

/// The services that have a log, sorted.
fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().to_str().and_then(|name| name.strip_suffix(".log")).map(str::to_owned));
    }
    Ok(names)
}

fn id(metadata: &Metadata) -> FileId {
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    FileId { inode: metadata.ino(), born: born.and_then(|born| u64::try_from(born.as_nanos()).ok()) }
}

/// A log's files, the oldest first. They are opened from the newest on: a rotation meanwhile has one seen twice, and none not at all.
fn chain(path: &Path) -> io::Result<Vec<(File, FileId, u64)>> {
    let mut files: Vec<(File, FileId, u64)> = Vec::new();
    let aside = (1..=OLDEST).map(|number| PathBuf::from(format!("{}.{number}", path.display())));
    for path in [path.to_owned()].into_iter().chain(aside) {
        match File::open(path) {
            Ok(file) => {
                let metadata = file.metadata()?;
                if files.iter().all(|(_, other, _)| *other != id(&metadata)) {
                    files.push((file, id(&metadata), metadata.len()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    files.reverse();
    Ok(files)
}

impl Tail {
    /// `None` where there is no file after all.
    fn begin(name: &str, path: PathBuf, boot: &str, sent: &[Option<Places>]) -> io::Result<Option<Self>> {
        let mut files = chain(&path)?;
        let mut gap = Vec::new();
        let starts = sent.iter().enumerate().map(|(number, places)| {
            let Some(places) = places else { return (Start::ThisBoot, None) };
            let Some(spot) = places.services.get(name) else { return (Start::Behind(0, 0), None) };
            let is_earlier = spot.boot.as_deref() != Some(boot);
            let is_this =
                |(_, id, length): &(File, FileId, u64)| *id == spot.file && (is_earlier || spot.offset <= *length);
            match files.iter().position(is_this) {
                Some(found) if is_earlier => (Start::BehindOrThisBoot(found as u64, spot.offset), None),
                Some(found) => (Start::Behind(found as u64, spot.offset), spot.boot.as_deref()),
                None => {
                    // Where nothing was put aside yet, the file itself was lost with the power.
                    if files.len() > 1 {
                        gap.push(number);
                    }
                    (Start::Behind(0, 0), None)
                }
            }
        });
        let starts: Vec<(Start, Option<&str>)> = starts.collect();
        // Who has the furthest to go says where to begin; who is new may need all that there is.
        let first = starts.iter().map(|(start, boot)| match start {
            Start::ThisBoot => (0, 0, None),
            Start::Behind(generation, offset) => (*generation, *offset, *boot),
            Start::BehindOrThisBoot(generation, _) => (*generation, 0, None),
        });
        let (generation, at, boot) =
            first.min_by_key(|(generation, offset, _)| (*generation, *offset)).unwrap_or_default();
        let number = usize::try_from(generation).unwrap_or(usize::MAX);
        if number >= files.len() {
            return Ok(None);
        }
        let later = files.iter().skip(number + 1).map(|(_, id, _)| Some(*id)).collect();
        let (file, id, _) = files.swap_remove(number);
        Ok(Some(Self {
            service: name.into(),
            path,
            pieces: Pieces::of(boot.map(Rc::from)),
            open: Open { file, id, at },
            later,
            generation,
            starts: starts.into_iter().map(|(start, _)| start).collect(),
            gap: Recipients::of(|number| gap.contains(&number)),
        }))
    }

    /// Whether there may be more.
    fn read(&mut self, boot: &Rc<str>, said: &mut Vec<Said>) -> io::Result<bool> {
        if self.gap != Recipients::default() {
            let gap = std::mem::take(&mut self.gap);
            said.push(self.gap(gap, boot));
        }
        // Asked before it is read: nobody writes to a file that has another name, so that its end is the end then.
        let newest = match fs::metadata(&self.path) {
            Ok(metadata) => Some(id(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // Each is seen as soon as it is there: who reads slowly still knows which came next when others have been removed.
        let latest = self.later.last().copied().flatten().unwrap_or(self.open.id);
        if newest.is_some_and(|newest| newest != latest) {
            self.look(&chain(&self.path)?);
        }
        let mut bytes = vec![0; TURN];
        let count = self.open.file.read_at(&mut bytes, self.open.at)?;
        if count > 0 {
            self.take(bytes.get(..count).unwrap_or_default(), boot, said)?;
            return Ok(true);
        }
        match newest {
            Some(newest) if newest != self.open.id => self.go_on(boot, said),
            _ => Ok(false),
        }
    }

    fn take(&mut self, bytes: &[u8], boot: &Rc<str>, said: &mut Vec<Said>) -> io::Result<()> {
        let time = written(&self.open.file.metadata()?);
        let mut found = Vec::new();
        self.pieces.feed(bytes, self.open.at, &mut found);
        self.open.at += bytes.len() as u64;
        said.extend(found.into_iter().map(|piece| self.said(piece, time, boot)));
        Ok(())
    }

    fn said(&self, piece: Piece, time: OffsetDateTime, boot: &Rc<str>) -> Said {
        let is_new = piece.boot.as_ref() == Some(boot);
        let place = (self.generation, piece.end);
        let starts = |number: usize| match self.starts.get(number) {
            Some(Start::ThisBoot) => is_new,
            Some(Start::Behind(generation, offset)) => place > (*generation, *offset),
            Some(Start::BehindOrThisBoot(generation, offset)) => is_new || place > (*generation, *offset),
            None => false,
        };
        let passed = |number: usize| !is_new && self.starts.get(number) == Some(&Start::ThisBoot);
        let spot =
            Spot { file: self.open.id, offset: piece.end, boot: piece.boot.as_ref().map(|boot| boot.to_string()) };
        Said {
            time,
            boot: piece.boot,
            source: self.service.clone(),
            severity: None,
            message: piece.text,
            place: Some(Place::Service(self.service.clone(), spot)),
            to: Recipients::of(starts),
            passed: Recipients::of(passed),
        }
    }

    /// Remembers which files come after the open one.
    fn look(&mut self, files: &[(File, FileId, u64)]) {
        let known = |id| id == self.open.id || self.later.contains(&Some(id));
        let last = files.iter().rposition(|(_, id, _)| known(*id));
        if last.is_none() && !files.is_empty() {
            self.later.push(None);
        }
        let fresh = files.iter().skip(last.map_or(0, |last| last + 1));
        self.later.extend(fresh.map(|(_, id, _)| Some(*id)));
    }

    /// Takes the file that came after this one, or after those that are gone.
    fn go_on(&mut self, boot: &Rc<str>, said: &mut Vec<Said>) -> io::Result<bool> {
        let files = chain(&self.path)?;
        self.look(&files);
        let place = |wanted: &Option<FileId>| files.iter().position(|(_, id, _)| Some(*id) == *wanted);
        let next = self.later.iter().enumerate().find_map(|(gone, id)| Some((gone, place(id)?)));
        let Some((gone, place)) = next else { return Ok(false) };
        let Some((file, id, _)) = files.into_iter().nth(place) else { return Ok(false) };
        self.generation += gone as u64 + 1;
        if gone == 0 {
            self.pieces.next_file();
        } else {
            // A line that was not over yet has lost its end.
            self.pieces = Pieces::default();
            let starts = |number: usize| self.starts.get(number).is_some_and(|start| start.is_before(self.generation));
            said.push(self.gap(Recipients::of(starts), boot));
        }
        self.later.drain(..=gone);
        self.open = Open { file, id, at: 0 };
        Ok(true)
    }

    /// Says that lines are missing here. How many there were, nobody knows.
    fn gap(&self, to: Recipients, boot: &Rc<str>) -> Said {
        Said {
            time: now(),
            boot: Some(boot.clone()),
            source: "logs".into(),
            severity: None,
            message: format!("lines of {} are missing here: their files were gone before they were sent", self.service),
            place: None,
            to,
            passed: Recipients::default(),
        }
    }
}

/// When a log was last written to: what stands in it is no younger.
fn written(metadata: &Metadata) -> OffsetDateTime {
    metadata.modified().map_or_else(|_| now(), |time| OffsetDateTime::from(time).min(now()))
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from(SystemTime::now())
}

#[cfg(test)]
mod tests;
