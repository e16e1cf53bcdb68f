//! The committed `builder/go/` becomes [`Module`]s: versions of Go modules whose every dependency is pinned by checksum.
use anyhow::{Result, anyhow};

use super::part;
use crate::console::Hint;
use crate::store::Digest;

/// A Go module that can be compiled without asking anyone which versions to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Name of the artifact.
    pub name: &'static str,
    /// Path of the module.
    pub path: &'static str,
    /// Packages that are compiled.
    pub programs: &'static [Main],
    /// go.mod that requires it.
    pub go_mod: &'static str,
    /// Checksums of every module, as the Go checksum database has them.
    pub go_sum: &'static str,
    /// A main.go of our own beside go.mod, where what it imports decides what is in the program.
    pub main_go: Option<&'static str>,
    /// Changes of its own source, where upstream has a fault that nothing else helps against.
    pub patches: &'static [Patch],
}

/// One place of a module's source that is written otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// The file, from the module's root.
    pub file: &'static str,
    /// What stands there once.
    pub from: &'static str,
    /// What is compiled instead.
    pub to: &'static str,
}

/// A package that becomes a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Main {
    /// Import path; `.` for a module's own main.go.
    pub package: &'static str,
    /// What the program is called here.
    pub program: &'static str,
}

impl Main {
    const fn new(package: &'static str, program: &'static str) -> Main {
        Main { package, program }
    }

    /// What `go build` calls the program: the last part of its path, versions left out (`go help build`).
    pub fn built_as(&self) -> &'static str {
        let version = |part: &&str| {
            part.strip_prefix('v').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        match self.package.rsplit('/').find(|part| !version(part)) {
            Some(".") | None => self.program,
            Some(last) => last,
        }
    }
}

macro_rules! pinned {
    ($folder:literal, $name:expr, $path:literal, $programs:expr) => {
        Module {
            name: $name,
            path: $path,
            programs: $programs,
            go_mod: include_str!(concat!("../../go/", $folder, "/go.mod")),
            go_sum: include_str!(concat!("../../go/", $folder, "/go.sum")),
            main_go: None,
            patches: &[],
        }
    };
}

/// The parts of Kubernetes. What runs on machines and what runs the cluster are of one set of pins; kubectl needs some modules more.
macro_rules! kubernetes {
    ($folder:literal, $kubectl:literal) => {
        [
            pinned!($folder, part::NODE.artifact, "k8s.io/kubernetes", NODE),
            pinned!($folder, part::CONTROL_PLANE.artifact, "k8s.io/kubernetes", CONTROL_PLANE),
            pinned!($kubectl, part::KUBECTL.artifact, "k8s.io/kubernetes", KUBECTL),
        ]
    };
}

const NODE: &[Main] = &[
    Main::new("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
    Main::new("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
];

const CONTROL_PLANE: &[Main] = &[
    Main::new("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
    Main::new("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
    Main::new("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
];

const KUBECTL: &[Main] = &[Main::new("k8s.io/kubernetes/cmd/kubectl", "kubectl")];

const KUBERNETES: [[Module; 3]; 4] = [
    kubernetes!("kubernetes-1.37", "kubectl-1.37"),
    kubernetes!("kubernetes-1.36", "kubectl-1.36"),
    kubernetes!("kubernetes-1.35", "kubectl-1.35"),
    kubernetes!("kubernetes-1.34", "kubectl-1.34"),
];

/// Where `kubectl exec`, `attach` and `port-forward` go is told to the kubelet without a scheme, and kubelets from 1.36 on take that for https, which
/// cri-dockerd does not speak (its issue 569, open at 0.4.4).
const CRI_OVER_HTTP: Patch = Patch {
    file: "cmd/server.go",
    from: r#"&url.URL{Path: "/cri/"}"#,
    to: r#"&url.URL{Scheme: "http", Path: "/cri/"}"#,
};

/// A kubelet whose disk is full deletes every image that no container has, and is told of the pause image alone that it must not. No registry brings
/// back what came with the machine's image, and its layers are links into the root: deleting it frees nothing. All of it stands in `seed.json`.
const PINNED_IMAGES: Patch = Patch {
    file: "core/image.go",
    from: "\tpinned := false\n\tfor _, tag := range tags {\n\t\tif tag == image {",
    to: "\tpinned := false\n\tseed, _ := os.ReadFile(\"/usr/share/kscratch/images/seed.json\")\n\tfor _, tag := range tags {\n\t\tif tag == image || strings.Contains(string(seed), strconv.Quote(tag)) {",
};
const PINNED_IMAGES_IMPORT: Patch =
    Patch { file: "core/image.go", from: "\"net/http\"\n\t\"strconv\"", to: "\"net/http\"\n\t\"os\"\n\t\"strconv\"" };

const CRI_DOCKERD: Module = Module {
    patches: &[CRI_OVER_HTTP, PINNED_IMAGES, PINNED_IMAGES_IMPORT],
    ..pinned!(
        "cri-dockerd-0.4",
        "cri-dockerd",
        "github.com/Mirantis/cri-dockerd",
        &[Main::new("github.com/Mirantis/cri-dockerd", "cri-dockerd")]
    )
};

const ETCD: &[Main] = &[Main::new("go.etcd.io/etcd/server/v3", "etcd")];

const ETCDS: [Module; 2] = [
    pinned!("etcd-3.7", part::ETCD, "go.etcd.io/etcd/server/v3", ETCD),
    pinned!("etcd-3.6", part::ETCD, "go.etcd.io/etcd/server/v3", ETCD),
];

/// Upstream's main package imports every plugin, clouds' clients among them.
const COREDNS: Module = Module {
    main_go: Some(include_str!("../../go/coredns-1.14/main.go")),
    ..pinned!("coredns-1.14", part::COREDNS, "github.com/coredns/coredns", &[Main::new(".", "coredns")])
};

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

    /// Digest over go.mod, go.sum, main.go and the patches: it stands for every byte of source that is compiled.
    pub fn digest(&self) -> Digest {
        let files = [Some(self.go_mod), Some(self.go_sum), self.main_go].into_iter().flatten();
        let patches = self.patches.iter().flat_map(|patch| [patch.file, patch.from, patch.to]);
        crate::derived::key("go module", files.chain(patches).map(str::as_bytes))
    }

    /// Flags of `go build`.
    pub fn flags(&self) -> Vec<String> {
        let version = self.version();
        let stamp = |package: &str, values: &[(&str, &str)]| {
            values.iter().map(|(name, value)| format!(" -X {package}.{name}={value}")).collect::<String>()
        };
        let stamps = match self.path {
            "k8s.io/kubernetes" => {
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
            }
            "github.com/Mirantis/cri-dockerd" => {
                stamp("github.com/Mirantis/cri-dockerd/cmd/version", &[("Version", version), ("GitCommit", "module")])
            }
            "go.etcd.io/etcd/server/v3" => stamp("go.etcd.io/etcd/api/v3/version", &[("GitSHA", "module")]),
            "github.com/coredns/coredns" => stamp("github.com/coredns/coredns/coremain", &[("GitCommit", "module")]),
            _ => String::new(),
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

/// Every module.
fn all() -> impl Iterator<Item = Module> {
    KUBERNETES.into_iter().flatten().chain([CRI_DOCKERD]).chain(ETCDS).chain([COREDNS])
}

/// The module of an artifact in a version.
///
/// # Errors
/// A version that is not pinned.
pub fn find(artifact: &str, version: &str) -> Result<Module> {
    let found = all().find(|module| module.name == artifact && module.version() == version);
    found.ok_or_else(|| {
        let known: Vec<&str> = all().filter(|module| module.name == artifact).map(|module| module.version()).collect();
        let (what, section) = match artifact {
            "cri-dockerd" => ("cri-dockerd", "cri_dockerd"),
            part::ETCD => ("etcd", "etcd"),
            part::COREDNS => ("CoreDNS", "coredns"),
            _ => ("Kubernetes", "kubernetes"),
        };
        anyhow!("{what} {version} cannot be compiled: the modules are pinned for {}", known.join(", ")).context(Hint(
            match section {
                "kubernetes" => "take one of those, or an official server tarball: --kubernetes FILE".into(),
                "cri_dockerd" => {
                    "take one of those, or a program of your own: version or source in [cri_dockerd] of image.toml"
                        .into()
                }
                _ => format!("take one of those: version in [{section}] of image.toml"),
            },
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::*;

    #[test]
    fn every_pinned_module_says_its_version_and_checksums() {
        let of = |name: &str| -> Vec<&str> {
            all().filter(|module| module.name == name).map(|module| module.version()).collect()
        };
        for part in [part::NODE, part::CONTROL_PLANE, part::KUBECTL] {
            assert_eq!(of(part.artifact), ["1.37.2", "1.36.3", "1.35.4", "1.34.4"]);
        }
        assert_eq!(
            (of("cri-dockerd"), of("etcd"), of("coredns")),
            (vec!["0.4.3"], vec!["3.7.3", "3.6.16"], vec!["1.14.7"])
        );
        for module in all() {
            super::super::version::go(module.go()).unwrap();
            let sum = format!("{} v{} h1:", module.path, module.version());
            assert!(module.go_sum.contains(&sum), "{sum}");
        }
    }

    #[test]
    fn a_release_has_the_same_programs_compiled_and_from_a_tarball() {
        for part in [part::NODE, part::CONTROL_PLANE, part::KUBECTL] {
            let module = find(part.artifact, "1.37.2").unwrap();
            assert_eq!(module.programs.iter().map(|main| main.program).collect::<Vec<_>>(), part.programs);
            assert!(module.programs.iter().all(|main| main.built_as() == main.program));
        }
        let built_as = |artifact: &str, version: &str| find(artifact, version).unwrap().programs[0].built_as();
        assert_eq!((built_as("etcd", "3.6.16"), built_as("coredns", "1.14.7")), ("server", "coredns"));
    }

    #[test]
    fn the_defaults_can_be_compiled() {
        let spec = crate::spec::ImageSpec::defaults().unwrap();
        let kubernetes = find("kubernetes", &spec.kubernetes.version).unwrap();
        find("cri-dockerd", &spec.cri_dockerd.version).unwrap();
        find("coredns", &spec.coredns.version).unwrap();
        for parts in KUBERNETES {
            find("etcd", Version::parse(parts[0].version()).unwrap().etcd()).unwrap();
        }
        let flags = kubernetes.flags().join(" ");
        assert!(
            flags.contains(
                "-X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1"
            ),
            "{flags}"
        );
    }

    #[test]
    fn a_node_is_compiled_as_it_was_before_there_were_masters() {
        // Locks hold this digest: with another one, every node's lock would be refused.
        let digest = find("kubernetes", "1.37.2").unwrap().digest().to_string();
        assert_eq!(digest, "aac7ec017f69edbc2faab619f5c48b16ddadaf285d4a65c91fa8d68daf6671ae");
        assert_ne!(find("coredns", "1.14.7").unwrap().digest(), Module { main_go: Some(""), ..COREDNS }.digest());
        assert_ne!(CRI_DOCKERD.digest(), Module { patches: &[], ..CRI_DOCKERD }.digest());
    }

    #[test]
    fn what_is_not_pinned_is_named() {
        for (artifact, version, want) in [
            (
                "kubernetes",
                "1.37.1",
                "Kubernetes 1.37.1 cannot be compiled: the modules are pinned for 1.37.2, 1.36.3, 1.35.4, 1.34.4",
            ),
            (
                "etcd",
                "3.5.1",
                "version in [etcd] of image.toml: etcd 3.5.1 cannot be compiled: the modules are pinned for 3.7.3, 3.6.16",
            ),
            ("coredns", "1.13.1", "CoreDNS 1.13.1 cannot be compiled: the modules are pinned for 1.14.7"),
        ] {
            let error = format!("{:#}", find(artifact, version).unwrap_err());
            assert!(error.contains(want), "{error}");
        }
    }
}
