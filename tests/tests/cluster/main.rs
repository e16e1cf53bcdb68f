//! Brings up a cluster of a master and a node and holds it against requirements' acceptance list, as far as it is asked here.
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use kscratch_tests::api::Api;
use kscratch_tests::node_image;
use kscratch_tests::program::{Said, kscratch, kscratch_image};
use serde_json::Value;

/// A control plane under emulation, beside another machine.
const BOOT: Duration = Duration::from_secs(25 * 60);
/// What follows from something else within seconds on a machine that is not emulated.
const SOON: Duration = Duration::from_secs(5 * 60);

struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    fn command(&self, args: &[&str]) -> Said {
        kscratch(self.folder.path(), ["cluster"].iter().chain(args), BOOT)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("lab/machines/admin.kubeconfig")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for machine in ["m1", "n1"] {
                let console = self.command(&["logs", "lab", machine]).stdout;
                let tail: Vec<&str> = console.lines().rev().take(60).collect();
                for line in tail.into_iter().rev() {
                    let _ = writeln!(std::io::stderr(), "{machine}: {line}");
                }
            }
        }
        let mut command = Command::new(kscratch_image());
        command.args(["cluster", "down", "lab", "--cut"]).current_dir(self.folder.path());
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn a_master_and_a_node_become_a_cluster() {
    let cluster = Cluster { folder: tempfile::tempdir().unwrap() };
    let (master, node) = (node_image::master().display().to_string(), node_image::node().display().to_string());
    let up = ["up", "lab", "--masters", "1", "--nodes", "1", "--image-master", &master, "--image-node", &node];
    cluster.command(&[&up[..], &["--timeout", "1400"]].concat()).succeeded();
    let api = Api::of(&cluster.kubeconfig());

    // A2, A6: health is for everybody, everything else for those who prove who they are.
    assert_eq!(api.get_as_nobody("/readyz"), (200, "ok".to_owned()));
    for path in ["/api", "/version", "/api/v1/nodes"] {
        assert_eq!(api.get_as_nobody(path).0, 401, "{path}");
    }

    // A3: all nodes, each with a range of its own; the control plane's mirror pods.
    let nodes = api.items("/api/v1/nodes");
    let mut ranges: Vec<&str> = nodes.iter().map(|node| text(&node["spec"]["podCIDR"])).collect();
    ranges.sort_unstable();
    assert_eq!(ranges, ["10.244.0.0/24", "10.244.1.0/24"]);
    let pods = api.items("/api/v1/namespaces/kube-system/pods");
    for name in ["etcd-m1", "kube-apiserver-m1", "kube-controller-manager-m1", "kube-scheduler-m1"] {
        assert!(pods.iter().any(|pod| pod["metadata"]["name"] == name), "{name} is not among the pods");
    }

    // A4: from the master's own network to a pod on the node, through the route that the agent keeps.
    let page = "/api/v1/namespaces/kube-system/pods/hello-n1:8080/proxy/";
    let (_, hello) = api.wait_for(page, SOON, |(code, _)| *code == 200);
    assert!(hello.starts_with("hello from hello-n1 at 10.244."), "{hello}");
    // The log goes through the kubelet, whose serving certificate the API server holds against the CA.
    let log = "/api/v1/namespaces/kube-system/pods/hello-n1/log";
    api.wait_for(log, SOON, |(code, _)| *code == 200);
    // The cluster's DNS runs.
    let dns = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
    api.wait_for(dns, SOON, |(code, text)| {
        let deployment: Value = serde_json::from_str(text).unwrap_or_default();
        *code == 200 && deployment["status"]["availableReplicas"] == 2
    });

    // A5: a power cut of the node; it comes back as what it was, with the certificates that it had.
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let before = api.items(requests).len();
    cluster.command(&["power", "cut", "lab", "n1"]).succeeded();
    cluster.command(&["power", "on", "lab", "n1"]).succeeded();
    cluster.command(&["up", "lab", "--timeout", "900"]).succeeded();
    let (_, again) = api.wait_for(page, SOON, |(code, _)| *code == 200);
    assert!(again.starts_with("hello from hello-n1 at 10.244."), "{again}");
    assert_eq!(api.items(requests).len(), before, "a machine that comes back asks for no new certificate");
    cluster.command(&["down", "lab"]).succeeded();
    let token = fs::read_to_string(cluster.folder.path().join("lab/secrets/tokens.toml")).unwrap();
    assert!(token.contains("token"), "the identity outlives the machines");
}
