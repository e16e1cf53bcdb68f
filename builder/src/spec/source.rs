//! A word or a path of image.toml says how Kubernetes, or cri-dockerd, is got.
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How Kubernetes is got: a word, or a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KubernetesSource {
    /// The official tarball if it can be reached, otherwise compiled.
    Auto,
    /// The official tarball.
    Tarball,
    /// Compiled from its Go modules.
    Compile,
    /// A server tarball or the folder it was unpacked to.
    Path(PathBuf),
}

impl FromStr for KubernetesSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(KubernetesSource::Auto),
            "tarball" => Ok(KubernetesSource::Tarball),
            "compile" => Ok(KubernetesSource::Compile),
            path if path.contains('/') || path.contains(".tar") => Ok(KubernetesSource::Path(PathBuf::from(path))),
            other => Err(format!(
                "the source `{other}` is none of `auto`, `tarball`, `compile` and no path (write `./{other}` for a path)"
            )),
        }
    }
}

impl TryFrom<String> for KubernetesSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<KubernetesSource> for String {
    fn from(source: KubernetesSource) -> String {
        source.to_string()
    }
}

impl fmt::Display for KubernetesSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KubernetesSource::Auto => f.write_str("auto"),
            KubernetesSource::Tarball => f.write_str("tarball"),
            KubernetesSource::Compile => f.write_str("compile"),
            KubernetesSource::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How cri-dockerd is got: a word, or a path. Its project publishes no checksums, so nothing is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CriDockerdSource {
    /// Compiled from its Go modules.
    Compile,
    /// The program, a folder that holds it, or the published archive.
    Path(PathBuf),
}

impl FromStr for CriDockerdSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "compile" => Ok(CriDockerdSource::Compile),
            path if path.contains('/') || path.ends_with(".tgz") => Ok(CriDockerdSource::Path(PathBuf::from(path))),
            other => Err(format!("the source `{other}` is not `compile` and no path (write `./{other}` for a path)")),
        }
    }
}

impl TryFrom<String> for CriDockerdSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<CriDockerdSource> for String {
    fn from(source: CriDockerdSource) -> String {
        source.to_string()
    }
}

impl fmt::Display for CriDockerdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CriDockerdSource::Compile => f.write_str("compile"),
            CriDockerdSource::Path(path) => write!(f, "{}", path.display()),
        }
    }
}
