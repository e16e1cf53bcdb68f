//! Keeps the last known machines in a file, so that a machine that starts without an API server still reaches the others' pods.
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::wanted::Peers;
use crate::place;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    nodes: Peers,
}

/// What was kept; nothing where nothing was.
///
/// # Errors
/// The file cannot be read or is damaged.
pub fn read(path: &Path) -> Result<Option<Peers>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("reading {}", path.display()))?,
    };
    let kept: Kept = serde_json::from_slice(&text).with_context(|| format!("reading what {} says", path.display()))?;
    Ok(Some(kept.nodes))
}

/// Keeps these.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, nodes: &Peers) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making the directory {}", folder.display()))?;
    }
    let text = serde_json::to_vec(&Kept { nodes: nodes.clone() }).context("writing the nodes as JSON")?;
    place::file(path, &text, 0o600, rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::super::wanted::{Peer, Peers};
    use super::{read, write};

    #[test]
    fn what_is_kept_is_read_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes/nodes.json");
        assert_eq!(read(&path).unwrap(), None);
        let peer = Peer {
            created: "2026-01-01T00:00:00Z".to_owned(),
            addresses: vec!["192.168.7.12".parse().unwrap()],
            ranges: vec!["10.244.2.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        };
        let nodes = Peers::from([("n2".to_owned(), peer)]);
        write(&path, &nodes).unwrap();
        assert_eq!(read(&path).unwrap(), Some(nodes));
        let whole = std::fs::read(&path).unwrap();
        for damaged in
            [&whole[..whole.len() - 5], b"", b"{}", b"\0\0\0\0", b"{\"nodes\":{\"n2\":{\"ranges\":[\"x\"]}}}"]
        {
            std::fs::write(&path, damaged).unwrap();
            let error = format!("{:#}", read(&path).unwrap_err());
            assert!(error.contains("nodes.json says: "), "{error}");
        }
    }
}
