//! Renders the static pods of the control plane (R20 to R23): what each program is told, what it sees of the host, how its health is asked.
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::{API_PORT, Component, Master};

/// Where the API server writes its audit log.
pub(super) const AUDIT_LOGS: &str = "/var/log/kube-apiserver";
/// Where etcd tells of its health: a port of its own, in clear on the loopback address, for the other one wants a client certificate.
pub(super) const ETCD_HEALTH: &str = "http://127.0.0.1:2381";
/// etcd's data.
pub(super) const ETCD_DATA: &str = "/var/lib/etcd";

/// The static pod of a component, as JSON: the kubelet takes it as it takes YAML.
pub(super) fn pod(component: Component, master: &Master<'_>) -> Value {
    let directory = component.directory();
    // What the component reads, and for two of them where they write.
    let mut places = vec![("files", directory.as_str(), true)];
    match component {
        Component::Etcd => places.push(("data", ETCD_DATA, false)),
        Component::ApiServer => places.push(("audit", AUDIT_LOGS, false)),
        Component::ControllerManager | Component::Scheduler => {}
    }
    let mounts: Vec<Value> = places
        .iter()
        .map(|(name, path, read_only)| json!({ "name": name, "mountPath": path, "readOnly": read_only }))
        .collect();
    let volumes: Vec<Value> = places
        .iter()
        .map(|(name, path, _)| json!({ "name": name, "hostPath": { "path": path, "type": "Directory" } }))
        .collect();
    let mut command = vec![format!("/usr/local/bin/{}", component.name())];
    command.extend(arguments(component, master).into_iter().map(|(name, value)| format!("--{name}={value}")));
    let health = Health::of(component);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": component.name(),
            "namespace": "kube-system",
            "labels": { "component": component.name(), "tier": "control-plane" },
        },
        "spec": {
            "hostNetwork": true,
            "priorityClassName": "system-node-critical",
            // The class by its number too: a kubelet does not look classes up for static pods, and would end them with ordinary ones (graceful node shutdown).
            "priority": 2_000_001_000,
            "securityContext": {
                "runAsUser": component.user(),
                "runAsGroup": component.user(),
                "runAsNonRoot": true,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": component.name(),
                "image": master.image(component.name()),
                "imagePullPolicy": "IfNotPresent",
                "command": command,
                "ports": [{ "name": "probe", "containerPort": health.port, "protocol": "TCP" }],
                // Ten minutes: until the first roles are written nobody may ask, and a slow machine takes its time for them.
                "startupProbe": health.probe(health.started, 5, 120),
                // Four minutes: a machine that is short of processors for a while is not helped by starting all of it anew.
                "livenessProbe": health.probe(health.alive, 10, 24),
                "readinessProbe": health.probe(health.ready, 5, 3),
                "resources": { "requests": requests(component) },
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": { "drop": ["ALL"] },
                    "readOnlyRootFilesystem": true,
                },
                "volumeMounts": mounts,
            }],
            "volumes": volumes,
        },
    })
}

/// As kubeadm asks for them, etcd apart.
fn requests(component: Component) -> Value {
    match component {
        // Not kubeadm's 100m: where processors are short, etcd must not wait behind the API server whose every request waits for it.
        Component::Etcd => json!({ "cpu": "300m", "memory": "100Mi" }),
        Component::ApiServer => json!({ "cpu": "250m" }),
        Component::ControllerManager => json!({ "cpu": "200m" }),
        Component::Scheduler => json!({ "cpu": "100m" }),
    }
}

/// Where and how a component is asked for its health, always on the loopback address.
struct Health {
    port: u16,
    scheme: &'static str,
    started: &'static str,
    alive: &'static str,
    ready: &'static str,
}

impl Health {
    fn of(component: Component) -> Self {
        let (port, scheme) = match component {
            // Its own port for health, in clear on the loopback address: the other wants a client certificate.
            Component::Etcd => (2381, "HTTP"),
            Component::ApiServer => (API_PORT, "HTTPS"),
            Component::ControllerManager => (10257, "HTTPS"),
            Component::Scheduler => (10259, "HTTPS"),
        };
        let all = |path| Self { port, scheme, started: path, alive: path, ready: path };
        match component {
            Component::Etcd => Self { alive: "/livez", ..all("/readyz") },
            // It has no other path.
            Component::ControllerManager => all("/healthz"),
            Component::ApiServer | Component::Scheduler => Self { ready: "/readyz", ..all("/livez") },
        }
    }

    fn probe(&self, path: &str, period: u32, failures: u32) -> Value {
        json!({
            "httpGet": { "host": "127.0.0.1", "path": path, "port": "probe", "scheme": self.scheme },
            "periodSeconds": period,
            "timeoutSeconds": 15,
            "failureThreshold": failures,
        })
    }
}

type Arguments = Vec<(&'static str, String)>;

fn arguments(component: Component, master: &Master<'_>) -> Arguments {
    match component {
        Component::Etcd => etcd(master),
        Component::ApiServer => api_server(master),
        Component::ControllerManager => controller_manager(master),
        Component::Scheduler => clients_of_api_server(Component::Scheduler, master).into(),
    }
}

/// Where etcd answers clients on an address.
pub(super) fn client_url(address: Ipv4Addr) -> String {
    format!("https://{address}:2379")
}

/// Where etcd's members speak with one another.
pub(super) fn peer_url(address: Ipv4Addr) -> String {
    format!("https://{address}:2380")
}

/// A member that no list names keeps to the loopback address: it then does not care which address the machine gets. One that is listed may
/// get others later, and is from the beginning as theirs will be.
fn etcd(master: &Master<'_>) -> Arguments {
    let file = |name: &str| Component::Etcd.file(name);
    let (client, peer, listed) = (client_url, peer_url, master.is_listed());
    let own = if listed { master.address } else { Ipv4Addr::LOCALHOST };
    let clients = if listed { format!("{},{}", client(Ipv4Addr::LOCALHOST), client(own)) } else { client(own) };
    let etcd = &master.control_plane.etcd;
    let members = if listed {
        let members = etcd.members.iter().map(|(name, address)| format!("{name}={}", peer(*address)));
        members.collect::<Vec<_>>().join(",")
    } else {
        format!("{}={}", master.name, peer(own))
    };
    // Five times etcd's own: a disk or a processor that is slow for a second must not cost the members their leader. It is found missing after
    // five seconds then, which is less than the clients' patience.
    let patience = [("heartbeat-interval", "500".to_owned()), ("election-timeout", "5000".to_owned())];
    let patience = patience.into_iter().filter(|_| listed);
    // Even where it is started by mistake, it begins no cluster.
    let state = etcd.join.then(|| ("initial-cluster-state", "existing".to_owned()));
    let arguments = [
        ("name", master.name.to_owned()),
        ("data-dir", ETCD_DATA.to_owned()),
        ("listen-client-urls", clients),
        ("advertise-client-urls", client(own)),
        ("listen-peer-urls", peer(own)),
        ("initial-advertise-peer-urls", peer(own)),
        ("initial-cluster", members),
        ("initial-cluster-token", master.cluster.name.clone()),
        ("listen-metrics-urls", ETCD_HEALTH.to_owned()),
        ("cert-file", file("server.crt")),
        ("key-file", file("server.key")),
        ("trusted-ca-file", file("ca.crt")),
        ("client-cert-auth", "true".to_owned()),
        ("peer-cert-file", file("peer.crt")),
        ("peer-key-file", file("peer.key")),
        ("peer-trusted-ca-file", file("ca.crt")),
        ("peer-client-cert-auth", "true".to_owned()),
        ("feature-gates", "InitialCorruptCheck=true".to_owned()),
        ("watch-progress-notify-interval", "5s".to_owned()),
        ("tls-min-version", "TLS1.2".to_owned()),
    ];
    arguments.into_iter().chain(patience).chain(state).collect()
}

fn api_server(master: &Master<'_>) -> Arguments {
    let (cluster, file) = (master.cluster, |name: &str| Component::ApiServer.file(name));
    vec![
        ("advertise-address", master.address.to_string()),
        ("secure-port", API_PORT.to_string()),
        ("tls-cert-file", file("apiserver.crt")),
        ("tls-private-key-file", file("apiserver.key")),
        ("client-ca-file", file("ca.crt")),
        ("authentication-config", file("authentication.json")),
        ("enable-bootstrap-token-auth", "true".to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("service-cluster-ip-range", cluster.service_range.to_string()),
        ("service-account-issuer", format!("https://kubernetes.default.svc.{}", cluster.dns_domain)),
        ("service-account-key-file", file("service-account.pub")),
        ("service-account-signing-key-file", file("service-account.key")),
        ("etcd-servers", "https://127.0.0.1:2379".to_owned()),
        ("etcd-cafile", file("etcd-ca.crt")),
        ("etcd-certfile", file("etcd-client.crt")),
        ("etcd-keyfile", file("etcd-client.key")),
        ("encryption-provider-config", file("encryption.json")),
        ("kubelet-certificate-authority", file("ca.crt")),
        ("kubelet-client-certificate", file("kubelet-client.crt")),
        ("kubelet-client-key", file("kubelet-client.key")),
        ("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname".to_owned()),
        ("proxy-client-cert-file", file("front-proxy-client.crt")),
        ("proxy-client-key-file", file("front-proxy-client.key")),
        ("requestheader-client-ca-file", file("front-proxy-ca.crt")),
        ("requestheader-allowed-names", "front-proxy-client".to_owned()),
        ("requestheader-username-headers", "X-Remote-User".to_owned()),
        ("requestheader-group-headers", "X-Remote-Group".to_owned()),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".to_owned()),
        ("audit-policy-file", file("audit-policy.json")),
        ("audit-log-path", format!("{AUDIT_LOGS}/audit.log")),
        ("audit-log-maxage", "30".to_owned()),
        ("audit-log-maxbackup", "5".to_owned()),
        ("audit-log-maxsize", "20".to_owned()),
        ("profiling", "false".to_owned()),
    ]
}

fn controller_manager(master: &Master<'_>) -> Arguments {
    let (cluster, component) = (master.cluster, Component::ControllerManager);
    let file = |name: &str| component.file(name);
    let mut arguments: Arguments = clients_of_api_server(component, master).into();
    arguments.extend([
        ("cluster-name", cluster.name.clone()),
        ("allocate-node-cidrs", "true".to_owned()),
        ("cluster-cidr", cluster.pod_range.to_string()),
        ("service-cluster-ip-range", cluster.service_range.to_string()),
        ("controllers", "*,bootstrapsigner,tokencleaner".to_owned()),
        ("use-service-account-credentials", "true".to_owned()),
        ("client-ca-file", file("ca.crt")),
        ("requestheader-client-ca-file", file("front-proxy-ca.crt")),
        ("root-ca-file", file("ca.crt")),
        ("service-account-private-key-file", file("service-account.key")),
        ("cluster-signing-cert-file", file("signing.crt")),
        ("cluster-signing-key-file", file("ca.key")),
    ]);
    arguments
}

/// What controller-manager and scheduler have in common. Where no other master can come they elect nobody: a start would wait for the lease of the one
/// before, and an API server that is slow for ten seconds would make them end.
fn clients_of_api_server(component: Component, master: &Master<'_>) -> [(&'static str, String); 6] {
    let kubeconfig = component.file("kubeconfig.json");
    [
        ("kubeconfig", kubeconfig.clone()),
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig),
        ("bind-address", "127.0.0.1".to_owned()),
        ("leader-elect", master.is_listed().to_string()),
        ("profiling", "false".to_owned()),
    ]
}
