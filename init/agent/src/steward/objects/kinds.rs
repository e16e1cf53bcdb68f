//! The kinds of objects that kscratch applies, and under which paths the API server has them.
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;

/// A kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    group: &'static str,
    version: &'static str,
    /// As it stands in objects.
    pub name: &'static str,
    plural: &'static str,
    /// Whether its objects are each in a namespace.
    pub namespaced: bool,
    /// Whether its objects are made by others alone.
    pub only_existing: bool,
}

const RBAC: &str = "rbac.authorization.k8s.io";

const fn kind(group: &'static str, name: &'static str, plural: &'static str, namespaced: bool) -> Kind {
    Kind { group, version: "v1", name, plural, namespaced, only_existing: false }
}

const KINDS: [Kind; 12] = [
    kind("", "Namespace", "namespaces", false),
    kind("", "Secret", "secrets", true),
    kind("", "ConfigMap", "configmaps", true),
    kind("", "ServiceAccount", "serviceaccounts", true),
    kind("", "Service", "services", true),
    Kind { only_existing: true, ..kind("", "Node", "nodes", false) },
    kind("apps", "Deployment", "deployments", true),
    kind("apps", "DaemonSet", "daemonsets", true),
    kind(RBAC, "ClusterRole", "clusterroles", false),
    kind(RBAC, "ClusterRoleBinding", "clusterrolebindings", false),
    kind(RBAC, "Role", "roles", true),
    kind(RBAC, "RoleBinding", "rolebindings", true),
];

impl Kind {
    /// The kind of an object's `apiVersion` and `kind`.
    pub fn find(api_version: &str, name: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        KINDS.into_iter().find(|kind| (kind.group, kind.version, kind.name) == (group, version, name))
    }

    /// Where the API server has it.
    pub fn resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, self.name), self.plural)
    }
}
