//! Which versions of Kubernetes go together: kubelet and kube-proxy are never newer than the API server, and at most three minors older.
//!
//! The policy is upstream's: <https://kubernetes.io/releases/version-skew-policy/>. It knows minor versions alone.
use anyhow::{Context, Result, anyhow};

use super::finished::Finished;

/// How many minors a kubelet may be older than the API server.
const OLDER: u32 = 3;

/// The minor of `v1.37.2`; of any release, not just of those that images are made of.
///
/// # Errors
/// Another form.
pub(super) fn minor(version: &str) -> Result<u32> {
    let form = || anyhow!("`{version}` is no version of Kubernetes such as v1.37.2");
    let rest = version.trim_start_matches('v').strip_prefix("1.").with_context(|| form().to_string())?;
    rest.split('.').next().unwrap_or_default().parse().map_err(|_| form())
}

/// What is wrong with a kubelet beside an API server.
fn kubelet(image: &Finished, server: (&str, &str)) -> Result<Option<String>> {
    let (whose, version) = server;
    let (own, api) = (minor(&image.version)?, minor(version)?);
    let how = match own {
        _ if own > api => "newer".to_owned(),
        _ if own + OLDER < api => format!("more than {OLDER} minors older"),
        _ => return Ok(None),
    };
    let Finished { file, version: of, .. } = image;
    Ok(Some(format!("{file} has kubelet and kube-proxy {of}, {how} than {whose}, {version}")))
}

/// What is wrong with images beside one another: each has a kubelet, a master's an API server too.
///
/// # Errors
/// A version is none.
pub(super) fn among(images: &[Finished]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for master in images.iter().filter(|image| image.master) {
        for image in images {
            let whose = format!("the API server of {}", master.file);
            faults.extend(kubelet(image, (&whose, &master.version))?);
        }
    }
    Ok(faults)
}

/// What is wrong with images beside the API server that there is. `whose`: what is said of it, e.g. `the API server that runs`.
///
/// # Errors
/// A version is none.
pub(super) fn against(images: &[Finished], whose: &str, version: &str) -> Result<Vec<String>> {
    let api = minor(version)?;
    let mut faults = Vec::new();
    for image in images {
        let Finished { file, version: of, master, .. } = image;
        let own = minor(of)?;
        faults.extend(match master {
            // A master's kubelet comes and goes with its API server.
            true if own < api => {
                Some(format!("{file} has {of}, older than {whose}, {version}: that is never taken back"))
            }
            true if own > api + 1 => {
                Some(format!("{file} has {of}, {whose} {version}: masters go on by one minor at a time"))
            }
            true => None,
            false if own > api => kubelet(image, (whose, version))?.map(|fault| format!("{fault}: masters come first")),
            false => kubelet(image, (whose, version))?,
        });
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::{Finished, against, among, minor};

    fn image(text: &str) -> Finished {
        let (file, version) = text.split_once(' ').unwrap();
        let version = version.to_owned();
        Finished { file: file.to_owned(), master: file.starts_with('m'), version, named: 0, faults: Vec::new() }
    }

    /// Images as `FILE VERSION`; those whose file begins with `m` are masters'.
    #[track_caller]
    fn beside_one_another(images: &[&str], want: &[&str]) {
        let images: Vec<_> = images.iter().map(|text| image(text)).collect();
        assert_eq!(among(&images).unwrap(), want);
    }

    #[track_caller]
    fn beside_what_runs(one: &str, version: &str, want: Option<&str>) {
        let found = against(&[image(one)], "what runs", version).unwrap();
        assert_eq!(found.first().map(String::as_str), want, "{one} beside {version}");
    }

    #[test]
    fn kubelets_are_never_newer_and_three_minors_older_at_most() {
        beside_one_another(&["m v1.37.2", "n v1.37.2"], &[]);
        // Patches are no matter.
        beside_one_another(&["m v1.37.2", "n v1.37.9"], &[]);
        beside_one_another(&["m v1.37.2", "a v1.36.0", "b v1.34.0-rc.1"], &[]);
        beside_one_another(
            &["m v1.37.2", "n v1.38.0"],
            &["n has kubelet and kube-proxy v1.38.0, newer than the API server of m, v1.37.2"],
        );
        beside_one_another(
            &["n v1.33.9", "m v1.37.2"],
            &["n has kubelet and kube-proxy v1.33.9, more than 3 minors older than the API server of m, v1.37.2"],
        );
        // Minors are numbers.
        beside_one_another(
            &["m v1.9.0", "n v1.10.0"],
            &["n has kubelet and kube-proxy v1.10.0, newer than the API server of m, v1.9.0"],
        );
        // Either may speak to the other's API server.
        beside_one_another(
            &["m1 v1.36.3", "m2 v1.37.2"],
            &["m2 has kubelet and kube-proxy v1.37.2, newer than the API server of m1, v1.36.3"],
        );
        // Without a master there is nothing to hold nodes against here.
        beside_one_another(&["a v1.34.0", "b v1.38.0"], &[]);
    }

    #[test]
    fn masters_come_first_and_go_on_by_one_minor() {
        for (one, version) in
            [("n v1.37.2", "v1.37.0"), ("n v1.34.4", "v1.37.0"), ("m v1.37.2", "v1.37.0"), ("m v1.38.0", "v1.37.0")]
        {
            beside_what_runs(one, version, None);
        }
        let newer = "n has kubelet and kube-proxy v1.38.0, newer than what runs, v1.37.0: masters come first";
        beside_what_runs("n v1.38.0", "v1.37.0", Some(newer));
        let older = "n has kubelet and kube-proxy v1.33.0, more than 3 minors older than what runs, v1.37.0";
        beside_what_runs("n v1.33.0", "v1.37.0", Some(older));
        beside_what_runs(
            "m v1.36.9",
            "v1.37.0",
            Some("m has v1.36.9, older than what runs, v1.37.0: that is never taken back"),
        );
        beside_what_runs(
            "m v1.39.0",
            "1.37.0",
            Some("m has v1.39.0, what runs 1.37.0: masters go on by one minor at a time"),
        );
    }

    #[test]
    fn what_is_no_version_is_told() {
        assert_eq!(minor("v1.37.2-eks-1").unwrap(), 37);
        for text in ["", "2.1.0", "v1", "1.x.2", "latest"] {
            assert!(minor(text).is_err(), "{text}");
        }
        assert!(against(&[image("n latest")], "what runs", "1.37.0").is_err());
    }
}
