//! [`Places`] are how far a server has been sent the kernel's log and each service's, and survive the agent and the machine as a file.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::place;

/// Which file it is, whatever it is called now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// Its inode. Once a file is removed, the next one may get its number.
    pub inode: u64,
    /// When it was made, in nanoseconds since 1970, where the filesystem says that.
    pub born: Option<u64>,
}

/// The end of a line of a service's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    /// In which file.
    pub file: FileId,
    /// The byte behind the line.
    pub offset: u64,
    /// The line's boot, where the log says it.
    pub boot: Option<String>,
}

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The record of the kernel's log of this boot with that number.
    Kernel(u64),
    /// In the log of a service.
    Service(Rc<str>, Spot),
}

/// How far a server has been sent what there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The last record of the kernel's log, of the boot that the file is of.
    pub kernel: Option<u64>,
    /// The last line of each service.
    pub services: BTreeMap<String, Spot>,
}

impl Places {
    /// Has been sent that, too.
    pub fn note(&mut self, place: &Place) {
        match place {
            Place::Kernel(sequence) => self.kernel = Some(*sequence),
            Place::Service(service, spot) => match self.services.get_mut(&**service) {
                Some(last) => last.clone_from(spot),
                None => _ = self.services.insert(service.to_string(), spot.clone()),
            },
        }
    }

    /// Has been sent all of that, too.
    pub fn note_all(&mut self, later: Places) {
        self.kernel = later.kernel.or(self.kernel);
        self.services.extend(later.services);
    }
}

/// The places of all servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The boot that numbers of the kernel's records are of.
    pub boot: String,
    /// By what the server is called in the metadata.
    pub servers: BTreeMap<String, Places>,
}

impl Kept {
    /// What was kept, for this boot. Nothing is, before the first time.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(file: &Path, boot: &str) -> Result<Self> {
        let text = match fs::read(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.with_context(|| format!("reading {}", file.display()))?,
        };
        let mut kept: Self =
            serde_json::from_slice(&text).with_context(|| format!("reading what {} says", file.display()))?;
        if kept.boot != boot {
            // The next boot's kernel counts anew.
            kept.servers.values_mut().for_each(|places| places.kernel = None);
        }
        Ok(kept)
    }

    /// Writes it down. Where it need not be on the disk yet, nothing waits for that: a power cut has lines of a few seconds sent twice.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, file: &Path, synced: bool) -> Result<()> {
        let text = serde_json::to_vec(self).context("writing down what was sent")?;
        if synced {
            return place::file(file, &text, 0o600, rustix::process::getuid().as_raw());
        }
        let fresh = file.with_extension("new");
        fs::write(&fresh, &text)
            .and_then(|()| fs::rename(&fresh, file))
            .with_context(|| format!("writing {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::{FileId, Kept, Place, Places, Spot};

    fn spot(inode: u64, offset: u64) -> Spot {
        Spot { file: FileId { inode, born: Some(7) }, offset, boot: Some("b1".into()) }
    }

    #[test]
    fn places_survive_their_file_and_kernels_numbers_only_their_boot() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("places.json");
        assert_eq!(Kept::read(&file, "b1").unwrap(), Kept::default());
        let mut places = Places::default();
        places.note(&Place::Kernel(7));
        places.note(&Place::Service("a".into(), spot(1, 10)));
        places.note(&Place::Service("a".into(), spot(2, 5)));
        places.note_all(Places { kernel: None, services: [("b".into(), spot(3, 1))].into() });
        let kept = Kept { boot: "b1".into(), servers: [("tcp://h:1".into(), places.clone())].into() };
        for synced in [false, true] {
            kept.write(&file, synced).unwrap();
            assert_eq!(Kept::read(&file, "b1").unwrap(), kept);
        }
        let later = Kept::read(&file, "b2").unwrap();
        assert_eq!(later.servers["tcp://h:1"], Places { kernel: None, ..places });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::write(&file, "{").unwrap();
        assert!(Kept::read(&file, "b1").is_err());
    }
}
