//! Lists upstream's cases, by their names in Kubernetes' `test/conformance/testdata/conformance.yaml`, each with the check that stands for it here.

/// A case's name, and what is checked.
pub const CASES: &[(&str, &str)] = &[
    (
        "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition creating/deleting custom resource definition objects works [Conformance]",
        "a kind of object is made and deleted",
    ),
    (
        "[sig-api-machinery] FieldValidation should create/apply a valid CR for CRD with validation schema [Conformance]",
        "a schema takes what it allows, and refuses what it does not",
    ),
    (
        "[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning [Conformance]",
        "a deployment's replica sets and pods go with it",
    ),
    (
        "[sig-api-machinery] Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted [Conformance]",
        "a namespace's pods go with it",
    ),
    (
        "[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod. [Conformance]",
        "a quota counts a pod and refuses the next one",
    ),
    (
        "[sig-api-machinery] Watchers should be able to start watching from a specific resource version [Conformance]",
        "a watch from before an object's life tells all of it",
    ),
    (
        "[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps [Conformance]",
        "a watch from before an object's life tells all of it",
    ),
    ("[sig-api-machinery] server version should find the server version [Conformance]", "the API server's version"),
    (
        "[sig-apps] Daemon set [Serial] should run and stop simple daemon [Conformance]",
        "a daemon runs on every node, again when its pod is deleted, and stops",
    ),
    (
        "[sig-apps] Deployment Deployment should have a working scale subresource [Conformance]",
        "a deployment is scaled up and down",
    ),
    (
        "[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones [Conformance]",
        "a deployment's change replaces its pods",
    ),
    (
        "[sig-apps] Job should run a job to completion when tasks sometimes fail and are locally restarted [Conformance]",
        "a job's tasks fail once and are complete",
    ),
    (
        "[sig-apps] ReplicaSet should serve a basic image on each replica with a public image [Conformance]",
        "each replica answers",
    ),
    (
        "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale subresource [Conformance]",
        "a stateful set is scaled up, and its members have their names",
    ),
    (
        "[sig-auth] ServiceAccounts should allow opting out of API token automount [Conformance]",
        "a pod that wants no token has none",
    ),
    (
        "[sig-auth] ServiceAccounts should mount an API token into pods [Conformance]",
        "a pod has a token, an authority and a namespace",
    ),
    ("[sig-network] DNS should provide DNS for ExternalName services [Conformance]", "a name that leads to another"),
    ("[sig-network] DNS should provide DNS for pods for Hostname [Conformance]", "a pod's name in its service"),
    ("[sig-network] DNS should provide DNS for pods for Subdomain [Conformance]", "a service without an address"),
    ("[sig-network] DNS should provide DNS for services [Conformance]", "a service's name"),
    ("[sig-network] DNS should provide DNS for the cluster [Conformance]", "the API server's name"),
    (
        "[sig-network] EndpointSlice should have Endpoints and EndpointSlices pointing to API Server [Conformance]",
        "the API server's endpoints",
    ),
    (
        "[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http [NodeConformance] [Conformance]",
        "pods reach pods",
    ),
    (
        "[sig-network] Networking Granular Checks: Pods should function for node-pod communication: http [LinuxOnly] [NodeConformance] [Conformance]",
        "nodes reach pods",
    ),
    (
        "[sig-network] Services should be able to create a functioning NodePort service [Conformance]",
        "a port of every node",
    ),
    (
        "[sig-network] Services should have session affinity work for service with type clusterIP [LinuxOnly] [Conformance]",
        "a client stays with one of several pods",
    ),
    (
        "[sig-node] ConfigMap should be consumable via environment variable [NodeConformance] [Conformance]",
        "a setting in a variable, and that in an argument",
    ),
    (
        "[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart exec hook properly [NodeConformance] [Conformance]",
        "what a hook has written when its pod started",
    ),
    (
        "[sig-node] Downward API should provide host IP as an env var [NodeConformance] [Conformance]",
        "a pod knows its node's address",
    ),
    (
        "[sig-node] Downward API should provide pod name, namespace and IP address as env vars [NodeConformance] [Conformance]",
        "a pod knows its name, namespace and address",
    ),
    (
        "[sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartNever pod [Conformance]",
        "one container writes before another reads",
    ),
    (
        "[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete [NodeConformance] [Conformance]",
        "a pod that has failed is deleted",
    ),
    (
        "[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason [NodeConformance] [Conformance]",
        "a pod that has failed says how",
    ),
    (
        "[sig-node] Kubelet when scheduling a read only busybox container should not write to root filesystem [LinuxOnly] [NodeConformance] [Conformance]",
        "a root filesystem that is read-only",
    ),
    (
        "[sig-node] Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts [NodeConformance] [Conformance]",
        "other names of hosts",
    ),
    (
        "[sig-node] Probing container should be restarted with a /healthz http liveness probe [NodeConformance] [Conformance]",
        "a container that is not healthy is started anew",
    ),
    (
        "[sig-node] Probing container with readiness probe that fails should never be ready and never restart [NodeConformance] [Conformance]",
        "a container whose probe fails never becomes ready",
    ),
    (
        "[sig-node] Secrets should be consumable from pods in env vars [NodeConformance] [Conformance]",
        "a secret in a variable",
    ),
    (
        "[sig-node] Security Context When creating a container with runAsUser should run the container with uid 65534 [LinuxOnly] [NodeConformance] [Conformance]",
        "a container's user",
    ),
    (
        "[sig-node] Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false [LinuxOnly] [NodeConformance] [Conformance]",
        "a container that may gain no privileges",
    ),
    (
        "[sig-node] Variable Expansion should allow substituting values in a container's args [NodeConformance] [Conformance]",
        "a setting in a variable, and that in an argument",
    ),
    (
        "[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if matching [Conformance]",
        "a pod goes where its selector says",
    ),
    (
        "[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if not matching [Conformance]",
        "a pod goes nowhere if no node is as its selector says",
    ),
    (
        "[sig-storage] ConfigMap should be consumable from pods in volume [NodeConformance] [Conformance]",
        "a setting in a file",
    ),
    (
        "[sig-storage] EmptyDir volumes pod should support shared volumes between containers [Conformance]",
        "one container writes before another reads",
    ),
    (
        "[sig-storage] Projected combined should project all components that make up the projection API [Projection] [NodeConformance] [Conformance]",
        "a setting, a secret and a name in one folder",
    ),
    (
        "[sig-storage] Projected downwardAPI should provide podname only [NodeConformance] [Conformance]",
        "a setting, a secret and a name in one folder",
    ),
    (
        "[sig-storage] Secrets should be consumable from pods in volume as non-root with defaultMode and fsGroup set [LinuxOnly] [NodeConformance] [Conformance]",
        "a secret in a file of a user's group",
    ),
    (
        "[sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod [Conformance]",
        "one file of a volume",
    ),
];

#[test]
fn cases_are_in_order_and_each_is_there_once_in_upstreams_form() {
    for pair in CASES.windows(2) {
        assert!(pair[0].0 < pair[1].0, "{} is not in order, or twice there", pair[1].0);
    }
    for (case, _) in CASES {
        assert!(case.starts_with("[sig-") && case.ends_with(" [Conformance]") && !case.contains("  "), "{case}");
    }
}
