//! A server tarball, or the folder it was unpacked to, becomes [`Contents`]: programs in the store and the names of its image archives.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha512};

use super::part::{self, Part};
use super::version::Version;
use crate::console::Hint;
use crate::derived;
use crate::http::Http;
use crate::lock::{Artifact, Origin};
use crate::store::{Digest, Store};

/// Where the Kubernetes project publishes its releases.
pub const OFFICIAL: &str = "https://dl.k8s.io";

/// The folder of a server tarball that holds programs and image archives.
const BIN: &str = "kubernetes/server/bin/";

/// Published checksums are one line.
const CHECKSUM_LIMIT: u64 = 4096;

/// What a release holds of interest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Digests of the programs of Kubernetes' parts (and of cri-dockerd, where somebody put it beside them), by name.
    pub programs: BTreeMap<String, Digest>,
    /// Names of the archives of images beside them: `kube-apiserver.tar`.
    pub images: BTreeSet<String>,
    /// What the images' tags say the version is, without `v`.
    pub version: Option<String>,
}

/// Where a version's tarball is below `base`.
pub fn url(base: &str, version: &Version) -> String {
    format!("{base}/v{version}/kubernetes-server-linux-amd64.tar.gz")
}

/// The artifact of a node's part of the tarball at a URL, by the checksums published beside it.
///
/// # Errors
/// No such version, or checksums of another form.
pub fn artifact(url: &str, version: &Version, http: &Http) -> Result<Artifact> {
    let published = |kind: &str, digits: usize| -> Result<String> {
        let text = http.get(&format!("{url}.{kind}"), CHECKSUM_LIMIT)?;
        let text = String::from_utf8_lossy(&text);
        let hex = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        ensure!(
            hex.len() == digits && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{url}.{kind} holds no checksum"
        );
        Ok(hex)
    };
    let sha256 = published("sha256", 64)?;
    Ok(Artifact {
        name: part::NODE.artifact.into(),
        version: version.to_string(),
        size: Some(http.length(url)?),
        sha256: Some(sha256.parse().map_err(|error| anyhow!("reading {url}.sha256: {error}"))?),
        origin: Origin::Tarball { url: url.to_owned(), sha512: published("sha512", 128)? },
    })
}

/// The artifact of a part of a tarball or folder of this machine, whose path is taken from `folder` where it is relative.
///
/// # Errors
/// It cannot be read, or is no release with that part.
pub fn local_artifact(folder: &Path, path: &Path, part: Part, asked: &Version, store: &Store) -> Result<Artifact> {
    let place = folder.join(path);
    let (digest, size) = local_digest(&place, part)?;
    let contents = local(&place, part, &digest, store)?;
    let version = contents.version.map_or(Ok(asked.clone()), |found| Version::parse(&found))?;
    let origin = Origin::LocalFile { path: path.display().to_string() };
    Ok(Artifact {
        name: part.artifact.into(),
        version: version.to_string(),
        size: Some(size),
        sha256: Some(digest),
        origin,
    })
}

/// Digest and length of a tarball; of a folder, those of its listing of what is taken from it.
fn local_digest(path: &Path, part: Part) -> Result<(Digest, u64)> {
    let context = || format!("reading the release {}", path.display());
    if !fs::metadata(path).with_context(context)?.is_dir() {
        return hash(&mut File::open(path).with_context(context)?).with_context(context);
    }
    let (mut listing, mut size) = (String::new(), 0);
    for (name, file) in files(path, part).with_context(context)? {
        let (digest, len) = hash(&mut File::open(&file).with_context(context)?).with_context(context)?;
        listing += &format!("{digest} {name}\n");
        size += len;
    }
    Ok((Digest::of(listing.as_bytes()), size))
}

pub(super) fn hash(reader: &mut dyn Read) -> io::Result<(Digest, u64)> {
    let mut verify = crate::store::Verify::new(io::sink());
    io::copy(reader, &mut verify)?;
    let (_, digest, len) = verify.into_parts();
    Ok((digest, len))
}

/// Files of a part in a release's folder, which may be that of the tarball or any above its programs.
fn files(root: &Path, part: Part) -> Result<BTreeMap<String, std::path::PathBuf>> {
    let folder = [BIN, "server/bin", "bin", ""]
        .iter()
        .map(|below| root.join(below))
        .find(|folder| folder.join(part.programs[0]).is_file());
    let folder = folder.with_context(|| format!("{} holds no {BIN}{}", root.display(), part.programs[0]))?;
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && path.is_file()
            && of_interest(name, part)
        {
            files.insert(name.to_owned(), path);
        }
    }
    Ok(files)
}

/// What a folder is listed by. A node's part has the image archives too: locks hold the digest of that listing.
fn of_interest(name: &str, part: Part) -> bool {
    let besides = part == part::NODE && (name == "cri-dockerd" || name.ends_with(".tar"));
    part.programs.contains(&name) || besides || name.ends_with(".docker_tag")
}

impl Contents {
    fn take(&mut self, name: &str, reader: &mut dyn Read, store: &Store) -> Result<()> {
        if part::PARTS.iter().any(|part| part.programs.contains(&name)) || name == "cri-dockerd" {
            self.programs.insert(name.to_owned(), store.add(reader)?.0);
        } else if name.ends_with(".tar") {
            self.images.insert(name.to_owned());
        } else if name.ends_with(".docker_tag") {
            let mut tag = String::new();
            reader.take(CHECKSUM_LIMIT).read_to_string(&mut tag)?;
            self.version = Some(tag.trim().trim_start_matches('v').to_owned());
        }
        Ok(())
    }

    fn whole(self, what: &str, part: Part) -> Result<Contents> {
        match part.programs.iter().find(|name| !self.programs.contains_key(**name)) {
            Some(missing) => bail!("{what} is no Kubernetes server release: it holds no {BIN}{missing}"),
            None => Ok(self),
        }
    }
}

/// What a tarball in the store holds, whose SHA-512 must be the published one.
///
/// # Errors
/// A wrong checksum, or no release with that part.
pub fn official(digest: &Digest, part: Part, sha512: &str, store: &Store) -> Result<Contents> {
    let key = derived::key("kubernetes tarball 2", [digest.0.as_slice(), sha512.as_bytes()]);
    if let Some(contents) = known(&key, store) {
        return contents.whole("the tarball", part);
    }
    let mut hash = Sha512::new();
    let mut file = store.get(digest)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).context("reading the tarball")? {
            0 => break,
            got => hash.update(&buffer[..got]),
        }
    }
    let actual = hex::encode(hash.finalize());
    ensure!(actual == sha512, "the SHA-512 of the Kubernetes tarball is {actual}, published is {sha512}");
    let contents = read(store.get(digest)?, "the tarball", store)?;
    derived::put(store, &key, &contents)?;
    contents.whole("the tarball", part)
}

/// What a tarball or folder of this machine holds, which must be as the lock has it.
///
/// # Errors
/// It has changed, or is no release with that part.
pub fn local(path: &Path, part: Part, digest: &Digest, store: &Store) -> Result<Contents> {
    let what = path.display().to_string();
    let key = derived::key("kubernetes local 2", [digest.0.as_slice()]);
    if let Some(contents) = known(&key, store) {
        return contents.whole(&what, part);
    }
    let (actual, _) = local_digest(path, part)?;
    if actual != *digest {
        let error = anyhow!("{} has changed: its digest is {actual}, the lock says {digest}", path.display());
        return Err(
            error.context(Hint(format!("take it as it is now: kscratch-image lock --update {}", part.artifact)))
        );
    }
    let contents = if path.is_dir() {
        let mut contents = Contents::default();
        for (name, file) in files(path, part)? {
            contents.take(
                &name,
                &mut File::open(&file).with_context(|| format!("opening {}", file.display()))?,
                store,
            )?;
        }
        contents
    } else {
        read(File::open(path).with_context(|| format!("opening {what}"))?, &what, store)?
    };
    let contents = contents.whole(&what, part)?;
    derived::put(store, &key, &contents)?;
    Ok(contents)
}

pub(super) fn known(key: &Digest, store: &Store) -> Option<Contents> {
    derived::get::<Contents>(store, key).filter(|contents| contents.programs.values().all(|digest| store.has(digest)))
}

fn read(mut file: File, what: &str, store: &Store) -> Result<Contents> {
    let mut start = [0; 2];
    let got = file.read(&mut start)?;
    io::Seek::rewind(&mut file)?;
    let reader: Box<dyn Read> =
        if start[..got] == [0x1f, 0x8b] { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut archive = tar::Archive::new(reader);
    let mut contents = Contents::default();
    let context = || format!("reading {what}");
    for entry in archive.entries().with_context(context)? {
        let mut entry = entry.with_context(context)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if let Some(name) = path.trim_start_matches("./").strip_prefix(BIN)
            && entry.header().entry_type().is_file()
        {
            contents.take(name, &mut entry, store).with_context(context)?;
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests;
