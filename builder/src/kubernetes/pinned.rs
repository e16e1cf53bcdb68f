//! The committed `builder/go/` becomes [`Module`]s: versions of Go modules whose every dependency is pinned by checksum.
use anyhow::{Result, anyhow};

use super::version::Version;
use crate::console::Hint;
use crate::store::Digest;

/// A Go module that can be compiled without asking anyone which versions to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Name of the artifact.
    pub name: &'static str,
    /// Path of the module.
    pub path: &'static str,
    /// Packages that are compiled, each into the program of its last part.
    pub programs: &'static [&'static str],
    /// go.mod that requires it.
    pub go_mod: &'static str,
    /// Checksums of every module, as the Go checksum database has them.
    pub go_sum: &'static str,
}

macro_rules! kubernetes {
    ($folder:literal) => {
        Module {
            name: "kubernetes",
            path: "k8s.io/kubernetes",
            programs: &["k8s.io/kubernetes/cmd/kubelet", "k8s.io/kubernetes/cmd/kube-proxy"],
            go_mod: include_str!(concat!("../../go/", $folder, "/go.mod")),
            go_sum: include_str!(concat!("../../go/", $folder, "/go.sum")),
        }
    };
}

const KUBERNETES: [Module; 4] = [
    kubernetes!("kubernetes-1.37"),
    kubernetes!("kubernetes-1.36"),
    kubernetes!("kubernetes-1.35"),
    kubernetes!("kubernetes-1.34"),
];

const CRI_DOCKERD: [Module; 1] = [Module {
    name: "cri-dockerd",
    path: "github.com/Mirantis/cri-dockerd",
    programs: &["github.com/Mirantis/cri-dockerd"],
    go_mod: include_str!("../../go/cri-dockerd-0.4/go.mod"),
    go_sum: include_str!("../../go/cri-dockerd-0.4/go.sum"),
}];

impl Module {
    /// The version that go.mod requires, without `v`.
    pub fn version(&self) -> &'static str {
        let required = self.go_mod.lines().find_map(|line| {
            let line = line.trim().trim_start_matches("require ");
            line.strip_prefix(self.path)?.strip_prefix(" v")?.split_whitespace().next()
        });
        required.unwrap_or_default()
    }

    /// The oldest Go that go.mod allows.
    pub fn go(&self) -> &'static str {
        self.go_mod.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or_default()
    }

    /// Digest over go.mod and go.sum: it stands for every byte of source that is compiled.
    pub fn digest(&self) -> Digest {
        crate::derived::key("go module", [self.go_mod.as_bytes(), self.go_sum.as_bytes()])
    }

    /// Flags of `go build`.
    pub fn flags(&self) -> Vec<String> {
        let version = self.version();
        let stamp = |package: &str, values: &[(&str, &str)]| {
            values.iter().map(|(name, value)| format!(" -X {package}.{name}={value}")).collect::<String>()
        };
        let stamps = if self.name == "kubernetes" {
            let (major, minor) =
                (version.split('.').next().unwrap_or_default(), version.split('.').nth(1).unwrap_or_default());
            let tag = format!("v{version}");
            // buildDate keeps its default, 1970-01-01T00:00:00Z: nothing in the image comes from the clock.
            let values = [
                ("gitVersion", tag.as_str()),
                ("gitMajor", major),
                ("gitMinor", minor),
                ("gitTreeState", "clean"),
                ("gitCommit", ""),
            ];
            stamp("k8s.io/component-base/version", &values) + &stamp("k8s.io/client-go/pkg/version", &values)
        } else {
            stamp("github.com/Mirantis/cri-dockerd/cmd/version", &[("Version", version), ("GitCommit", "module")])
        };
        [
            "-trimpath".into(),
            "-buildvcs=false".into(),
            "-mod=readonly".into(),
            format!("-ldflags=-s -w -buildid={stamps}"),
        ]
        .into()
    }
}

/// The module of a Kubernetes version.
///
/// # Errors
/// A version that is not pinned.
pub fn kubernetes(version: &Version) -> Result<Module> {
    find(&KUBERNETES, "Kubernetes", &version.to_string())
}

/// The module of a cri-dockerd version.
///
/// # Errors
/// A version that is not pinned.
pub fn cri_dockerd(version: &str) -> Result<Module> {
    find(&CRI_DOCKERD, "cri-dockerd", version)
}

fn find(modules: &[Module], what: &str, version: &str) -> Result<Module> {
    let found = modules.iter().find(|module| module.version() == version).copied();
    found.ok_or_else(|| {
        let known = modules.iter().map(Module::version).collect::<Vec<_>>().join(", ");
        let error = anyhow!("{what} {version} cannot be compiled: the modules are pinned for {known}");
        error.context(Hint(match what {
            "Kubernetes" => "take one of those, or an official server tarball: --kubernetes FILE".into(),
            _ => "take one of those, or a program of your own: version or source in [cri_dockerd] of image.toml".into(),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_module_says_its_version_and_checksums() {
        let versions: Vec<&str> = KUBERNETES.iter().chain(&CRI_DOCKERD).map(Module::version).collect();
        assert_eq!(versions, ["1.37.2", "1.36.3", "1.35.4", "1.34.4", "0.4.3"]);
        for module in KUBERNETES.iter().chain(&CRI_DOCKERD) {
            super::super::version::go(module.go()).unwrap();
            let sum = format!("{} v{} h1:", module.path, module.version());
            assert!(module.go_sum.contains(&sum), "{sum}");
        }
    }

    #[test]
    fn the_defaults_can_be_compiled() {
        let spec = crate::spec::ImageSpec::defaults().unwrap();
        assert_eq!(kubernetes(&Version::parse(&spec.kubernetes.version).unwrap()).unwrap().name, "kubernetes");
        assert_eq!(cri_dockerd(&spec.cri_dockerd.version).unwrap().name, "cri-dockerd");
        let flags = kubernetes(&Version::parse("1.37.2").unwrap()).unwrap().flags().join(" ");
        assert!(
            flags.contains(
                "-X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1"
            ),
            "{flags}"
        );
    }

    #[test]
    fn what_is_not_pinned_is_named() {
        let error = format!("{:#}", kubernetes(&Version::parse("1.37.1").unwrap()).unwrap_err());
        assert!(
            error.contains(
                "Kubernetes 1.37.1 cannot be compiled: the modules are pinned for 1.37.2, 1.36.3, 1.35.4, 1.34.4"
            ),
            "{error}"
        );
    }
}
