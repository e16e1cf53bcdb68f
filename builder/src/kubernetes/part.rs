//! What a lock's artifact stands for: the [`Part`]s of a Kubernetes release, and what a control plane needs besides.

/// Some programs of a Kubernetes release, however it is got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Name of the artifact.
    pub artifact: &'static str,
    /// Its programs, by the names that they have in `kubernetes/server/bin` of a server tarball.
    pub programs: &'static [&'static str],
}

/// What every machine runs.
pub const NODE: Part = Part { artifact: "kubernetes", programs: &["kubelet", "kube-proxy"] };

/// What a master runs besides, in containers.
pub const CONTROL_PLANE: Part = Part {
    artifact: "kubernetes-control-plane",
    programs: &["kube-apiserver", "kube-controller-manager", "kube-scheduler"],
};

/// The client: in no image.
pub const KUBECTL: Part = Part { artifact: "kubectl", programs: &["kubectl"] };

/// Every part.
pub const PARTS: [Part; 3] = [NODE, CONTROL_PLANE, KUBECTL];

/// Name of etcd's artifact and program.
pub const ETCD: &str = "etcd";

/// Name of CoreDNS' artifact and program.
pub const COREDNS: &str = "coredns";

/// Whether an artifact is there for masters alone.
pub fn of_masters(artifact: &str) -> bool {
    [CONTROL_PLANE.artifact, KUBECTL.artifact, ETCD, COREDNS].contains(&artifact)
}

/// The part that an artifact is.
pub fn of(artifact: &str) -> Option<Part> {
    PARTS.into_iter().find(|part| part.artifact == artifact)
}
