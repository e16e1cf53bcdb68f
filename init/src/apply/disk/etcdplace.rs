//! Decides whether etcd may use the disk that is named for it: its data must not begin anew, nor go back in time, because they are elsewhere.
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::apply::files;
use crate::partition::Guid;
use crate::plan::ETCD_WAL;

/// On state, where etcd's data would be: the partition that they are on. What is mounted there hides it.
const MARK: &str = "/var/lib/etcd/kscratch-disk";

/// Where etcd's data are, as state knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Before {
    /// There are none yet.
    Nowhere,
    /// On state.
    State,
    /// On the partition with this GUID.
    Disk(Guid),
}

/// Where etcd's data are, for a person: on a partition that is not mounted. `None` where it is, or where they have no disk of their own.
///
/// # Errors
/// State cannot be read, or what stands there is damaged.
pub fn elsewhere(root: &Path) -> Result<Option<String>> {
    let text = match fs::read_to_string(files::below(root, MARK)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("reading {MARK}"))?,
    };
    let guid: Guid = text.trim().parse().with_context(|| format!("reading {MARK}"))?;
    Ok(Some(guid.to_string()))
}

/// What state says, before anything is mounted over it.
pub(super) fn before(root: &Path) -> Result<Before> {
    match elsewhere(root)? {
        Some(guid) => Ok(Before::Disk(guid.parse()?)),
        None if files::below(root, ETCD_WAL).exists() => Ok(Before::State),
        None => Ok(Before::Nowhere),
    }
}

/// Whether etcd may go on with a partition (`None`: one that is still to be made).
pub(super) fn allow(before: &Before, now: Option<Guid>, replaces: Option<&str>) -> Result<()> {
    let held = if now.is_some() { "has other data" } else { "is blank" };
    match before {
        Before::Nowhere => Ok(()),
        Before::Disk(guid) if now == Some(*guid) => Ok(()),
        Before::Disk(guid) if replaces == Some(guid.to_string().as_str()) => Ok(()),
        Before::State if replaces == Some("state") => Ok(()),
        Before::Disk(guid) => bail!(
            "etcd's data are on partition {guid}, and this disk {held}; name the disk that has them, or write replaces = \"{guid}\" to give them up"
        ),
        Before::State => bail!(
            "etcd's data are on state, and this disk {held}; take it out of the metadata, or write replaces = \"state\" to give them up"
        ),
    }
}

/// Remembers on state where etcd's data are from now on.
pub(super) fn remember(root: &Path, guid: Guid) -> Result<()> {
    files::file(root, MARK, format!("{guid}\n").as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::{Before, allow, before, elsewhere, remember};
    use crate::partition::Guid;

    #[test]
    fn etcd_goes_on_where_its_data_are() {
        let [one, other] = [1, 2].map(|byte| Guid::version_4([byte; 16]));
        let name = one.to_string();
        for (before, now, replaces, want) in [
            (Before::Nowhere, None, None, ""),
            // The machine's own disk was written anew, and this one kept.
            (Before::Nowhere, Some(one), None, ""),
            (Before::Disk(one), Some(one), None, ""),
            (Before::Disk(one), Some(one), Some("state"), ""),
            (Before::Disk(one), None, None, "and this disk is blank; name the disk that has them"),
            (Before::Disk(one), Some(other), None, "and this disk has other data; name the disk"),
            (Before::Disk(one), Some(other), Some("state"), "are on partition 01010101-"),
            (Before::Disk(one), None, Some(name.as_str()), ""),
            (Before::Disk(one), Some(other), Some(name.as_str()), ""),
            (Before::Disk(other), None, Some(name.as_str()), "and this disk is blank"),
            (Before::State, None, None, "etcd's data are on state, and this disk is blank; take it out"),
            (Before::State, Some(one), None, "are on state, and this disk has other data"),
            (Before::State, None, Some("state"), ""),
            (Before::State, None, Some(name.as_str()), "are on state"),
        ] {
            let said = allow(&before, now, replaces).err().map(|error| error.to_string());
            match said {
                Some(said) => {
                    assert!(!want.is_empty() && said.contains(want), "{before:?} {now:?} {replaces:?}: {said}")
                }
                None => assert!(want.is_empty(), "{before:?} {now:?} {replaces:?}: allowed"),
            }
        }
    }

    #[test]
    fn state_remembers_the_partition() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!((before(root.path()).unwrap(), elsewhere(root.path()).unwrap()), (Before::Nowhere, None));
        let wal = root.path().join("var/lib/etcd/member/wal");
        std::fs::create_dir_all(&wal).unwrap();
        assert_eq!(before(root.path()).unwrap(), Before::State);
        let guid = Guid::version_4([7; 16]);
        remember(root.path(), guid).unwrap();
        assert_eq!(before(root.path()).unwrap(), Before::Disk(guid));
        assert_eq!(elsewhere(root.path()).unwrap(), Some(guid.to_string()));
        std::fs::write(root.path().join("var/lib/etcd/kscratch-disk"), "").unwrap();
        let error = format!("{:#}", before(root.path()).unwrap_err());
        assert!(error.starts_with("reading /var/lib/etcd/kscratch-disk: not a GUID"), "{error}");
    }
}
