//! The text of a Kubernetes version becomes a [`Version`] that this program can make a node of.
use std::fmt;

use anyhow::{Result, anyhow, ensure};

use crate::console::Hint;

/// The oldest minor of Kubernetes 1 that is supported.
pub const OLDEST_MINOR: u32 = 34;

/// `1.MINOR.PATCH`, with what follows a `-` for versions before a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The minor version.
    pub minor: u32,
    /// The rest: patch, and perhaps `-rc.1`.
    rest: String,
}

impl Version {
    /// Reads `1.37.2` or `v1.37.2`.
    ///
    /// # Errors
    /// Another form; a version older than 1.34, with the reason.
    pub fn parse(text: &str) -> Result<Version> {
        let form = || anyhow!("the Kubernetes version `{text}` is not of the form 1.37.2");
        let (major, rest) = text.trim_start_matches('v').split_once('.').ok_or_else(form)?;
        let (minor, rest) = rest.split_once('.').ok_or_else(form)?;
        let patch = rest.split('-').next().unwrap_or_default();
        let minor: u32 = minor.parse().map_err(|_| form())?;
        let plain = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
        ensure!(major == "1" && patch.parse::<u32>().is_ok() && plain, form());
        ensure!(minor >= OLDEST_MINOR, too_old(minor));
        Ok(Version { minor, rest: rest.to_owned() })
    }

    /// The etcd that goes with it: the newest pinned one of the minor that kubeadm takes
    /// (`cmd/kubeadm/app/constants/constants.go`, `DefaultEtcdVersion`).
    pub fn etcd(&self) -> &'static str {
        match self.minor {
            ..=36 => "3.6.16",
            _ => "3.7.3",
        }
    }
}

fn too_old(minor: u32) -> anyhow::Error {
    let why = match minor {
        ..24 => "before 1.24 kubelet spoke to docker by itself, and this image has cri-dockerd for that",
        _ => {
            "it is out of support upstream, and this image's etcd 3.6, cgroup v2 and cri-dockerd were tried with 1.34 and later alone"
        }
    };
    anyhow!("Kubernetes 1.{minor} is not supported: {why}")
        .context(Hint("take 1.34 or later: --kubernetes 1.37.2".into()))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}.{}", self.minor, self.rest)
    }
}

/// A Go version `1.26.8` or `1.26rc1`, for comparing. Nothing may stand behind it: it becomes a folder of the cache that a program is started from.
///
/// # Errors
/// Another form.
pub fn go(text: &str) -> Result<(u32, u32, u32)> {
    let form = || anyhow!("the Go version `{text}` is not of the form 1.26.8 or 1.26rc1");
    let number = |digits: &str| -> Result<u32> {
        // A number of Rust's may have a `+` before it.
        ensure!(digits.bytes().all(|byte| byte.is_ascii_digit()), form());
        digits.parse().map_err(|_| form())
    };
    let whole = text.strip_prefix("go").unwrap_or(text);
    // `1.26rc1` counts as 1.26: what is tried before a release compiles what the release does.
    let (release, candidate) = whole.split_once("rc").map_or((whole, None), |(release, rc)| (release, Some(rc)));
    candidate.map(number).transpose()?;
    match release.split('.').map(number).collect::<Result<Vec<u32>>>()?[..] {
        [major, minor] => Ok((major, minor, 0)),
        [major, minor, patch] => Ok((major, minor, patch)),
        _ => Err(form()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = Version::parse(text).map_or_else(|error| format!("{error:#}"), |version| version.to_string());
        assert!(got.contains(want), "{got}");
    }

    #[test]
    fn versions_are_read_or_refused_with_the_reason() {
        check("1.37.2", "1.37.2");
        check("v1.34.0-rc.1", "1.34.0-rc.1");
        check("1.33.9", "Kubernetes 1.33 is not supported: it is out of support upstream");
        check("1.8.15", "before 1.24 kubelet spoke to docker by itself");
        for bad in ["1.37", "2.37.1", "latest", "1.x.2", "1.37.x", "1.37.2/../..", ""] {
            check(bad, "is not of the form 1.37.2");
        }
    }

    #[test]
    fn etcd_follows_from_the_minor() {
        let of = |version: &str| Version::parse(version).unwrap().etcd();
        assert_eq!([of("1.34.4"), of("1.36.3"), of("1.37.2"), of("1.38.0")], ["3.6.16", "3.6.16", "3.7.3", "3.7.3"]);
    }

    #[test]
    fn go_versions_compare_as_numbers() {
        assert!(go("go1.26.8").unwrap() > go("1.26.0").unwrap());
        assert!(go("1.9").unwrap() < go("1.10").unwrap());
        assert_eq!((go("1.26rc1").unwrap(), go("1.26.1rc2").unwrap()), ((1, 26, 0), (1, 26, 1)));
    }

    #[test]
    fn only_whole_go_versions_are_read() {
        for bad in [
            "1.26.11/../../../x",
            "../1.26",
            "1.26/..",
            "1.26.8-custom",
            "1.26.8.1",
            "1.26rc1/x",
            "1.26rc",
            "1.+26",
            "1.26.",
            "1",
            "gogo1.26",
            "devel",
            "",
        ] {
            let error = go(bad).unwrap_err().to_string();
            assert_eq!(error, format!("the Go version `{bad}` is not of the form 1.26.8 or 1.26rc1"));
        }
    }
}
