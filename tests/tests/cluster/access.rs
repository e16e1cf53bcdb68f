//! Who may do what: kubectl's ways into a pod, and everything that is closed (A4, A6).
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use kscratch_tests::cluster::{Cluster, SOON};
use kscratch_tests::http;
use kscratch_tests::program::{SHORT, run};
use serde_json::{Value, json};

use super::Cast;

/// A text that stands nowhere else.
const PLAIN: &str = "plain-text-of-a-secret";
/// The same in base64, as the API server says it.
const SEALED: &str = "cGxhaW4tdGV4dC1vZi1hLXNlY3JldA==";

/// `kubectl logs`, `exec` and `port-forward`, through a kubelet whose certificate the API server proves.
pub fn kubectl_gets_in(cluster: &Cluster) {
    let exec = ["exec", "b1", "--", "/kscratch-probe", "say", "hello", "there"];
    assert_eq!(cluster.kubectl(&exec).succeeded().stdout, "hello there\n");
    let logs = cluster.kubectl(&["logs", "--namespace", "kube-system", "etcd-m1", "--tail", "1"]).succeeded();
    assert!(logs.stdout.contains("\"level\""), "{}", logs.stdout);
    let mut command = cluster.kubectl_command();
    command.args(["port-forward", "pod/b1", ":9999"]).stdout(Stdio::piped()).stdin(Stdio::null());
    let mut forward = command.spawn().unwrap();
    let mut said = BufReader::new(forward.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next()?.parse().ok());
    let peer = port.map(|port| http::wait_for(port, "/peer", SOON, |_| true));
    forward.kill().unwrap();
    forward.wait().unwrap();
    assert_eq!(peer.as_deref(), Some("127.0.0.1\n"), "{line}");
}

/// The API server, the kubelets and etcd, asked by who has no business there.
pub fn nobody_gets_in(cluster: &Cluster, cast: &Cast) {
    let api = cluster.api();
    assert_eq!(api.get_as_nobody("/readyz"), (200, "ok".to_owned()));
    for path in ["/api", "/version", "/metrics", "/api/v1/nodes"] {
        assert_eq!(api.get_as_nobody(path).0, 401, "{path}");
    }
    let kubelet = format!("https://127.0.0.1:{}", cluster.forwarded("m1", 10250));
    for path in ["/pods", "/metrics", "/configz", "/logs/"] {
        let mut curl = Command::new("curl");
        // Its name is the machine's and not this host's: proven elsewhere, by every `kubectl logs`.
        curl.args([
            "--silent",
            "--insecure",
            "--max-time",
            "60",
            "--write-out",
            "%{http_code}",
            "--output",
            "/dev/null",
        ]);
        curl.arg(format!("{kubelet}{path}"));
        assert_eq!(run(curl, SHORT).stdout, "401", "{path}");
    }
    for node in ["m1", cast.pair] {
        let read = |file: &str| cluster.ask(&Cast::eye(node), &format!("/read?path=/proc/1/net/{file}"));
        let mut open = [listening(&read("tcp")), listening(&read("tcp6"))].concat();
        open.sort_unstable();
        open.dedup();
        // 9999 is the eye itself.
        let wanted: &[u16] = if node == "m1" { &[6443, 9999, 10250] } else { &[9999, 10250] };
        assert_eq!(open, wanted, "ports of {node} that listen to others");
    }
}

/// Ports of `/proc/net/tcp` that listen on another address than the loopback's (proc_pid_net(5)).
fn listening(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next()?, words.nth(1)?);
        let (address, port) = local.split_once(':')?;
        let loopback = address == "0100007F" || address == "00000000000000000000000001000000";
        (state == "0A" && !loopback).then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().filter_map(port).collect()
}

/// The services of a master and a node that are not root with all that root may, as the kernel has them (proc_pid_status(5)).
pub fn services_may_do_no_more_than_they_need(cluster: &Cluster) {
    // CHOWN is bit 0, DAC_OVERRIDE 1, DAC_READ_SEARCH 2, FOWNER 3, NET_ADMIN 12, NET_RAW 13 (capability.h).
    for (machine, command, user, capabilities) in [
        ("m1", "/usr/lib/kscratch/agent steward ", "0", "000000000000000b"),
        ("m1", "/usr/lib/kscratch/agent routes ", "905", "0000000000001000"),
        ("m1", "/usr/bin/kube-proxy ", "0", "0000000000003000"),
        ("n1", "/usr/lib/kscratch/agent identities ", "0", "0000000000000005"),
        ("n1", "/usr/lib/kscratch/agent routes ", "905", "0000000000001000"),
        ("n1", "/usr/bin/kube-proxy ", "0", "0000000000003000"),
        ("n1", "/usr/lib/kscratch/init inhibitor ", "907", "0000000000000000"),
    ] {
        let eye = format!("eye-{machine}");
        let processes = cluster.ask(&eye, "/processes");
        let process = processes.lines().find(|line| line.contains(command));
        let pid = process.and_then(|line| line.split(' ').next());
        let pid = pid.unwrap_or_else(|| panic!("{machine} runs no {command}: {processes}"));
        let status = cluster.ask(&eye, &format!("/read?path=/proc/{pid}/status"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let about = format!("{command}on {machine}: {status}");
        assert_eq!(field("Uid"), [user; 4].join(" "), "{about}");
        assert_eq!(field("Gid"), [user; 4].join(" "), "{about}");
        assert_eq!(field("Groups"), "", "{about}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), capabilities, "{set} of {about}");
        }
        assert_eq!(field("NoNewPrivs"), "1", "{about}");
    }
}

/// A pod that needs the secret, in its environment.
pub fn with_the_secret(mut pod: Value) -> Value {
    let word = json!({ "name": "WORD", "valueFrom": { "secretKeyRef": { "name": "guarded", "key": "word" } } });
    let variables = pod["spec"]["containers"][0]["env"].as_array_mut().expect("a probe has variables");
    variables.push(word);
    pod
}

/// What a secret is on etcd's disk.
pub fn secrets_are_encrypted(cluster: &Cluster) {
    let literal = format!("--from-literal=word={PLAIN}");
    cluster.kubectl(&["create", "secret", "generic", "guarded", &literal]).succeeded();
    let holds = |file: &str, text: &str| {
        let target = format!("/holds?path=/var/lib/etcd/member/{file}&text={text}");
        cluster.ask("eye-m1", &target) == "true"
    };
    let log = "wal/0000000000000000-0000000000000000.wal";
    assert!(holds(log, "/registry/secrets/default/guarded"), "the secret is not in etcd's log");
    assert!(holds(log, "k8s:enc:secretbox:v1:") || holds(log, "k8s:enc:aes"), "nothing is encrypted in etcd's log");
    for file in [log, "snap/db"] {
        assert!(!holds(file, PLAIN), "the secret's text stands in {file}");
    }
    let read = cluster.kubectl(&["get", "secret", "guarded", "--output", "jsonpath={.data.word}"]).succeeded();
    assert_eq!(read.stdout, SEALED);
}

/// A node's certificate reads what its own pods need, and nothing of another node's.
pub fn nodes_keep_to_themselves(cluster: &Cluster, cast: &Cast) {
    let (own, other) = (format!("/api/v1/nodes/{}", cast.pair), format!("/api/v1/nodes/{}", cast.single));
    let file = "/read?path=/var/lib/kubelet/pki/kubelet-client-current.pem";
    let api = cluster.api().as_certificate(&cluster.ask(&Cast::eye(cast.pair), file));
    assert_eq!(api.get(&own).0, 200);
    let guarded = "/api/v1/namespaces/default/secrets/guarded";
    assert_eq!(api.get(guarded).0, 403, "no pod of that node has that secret");
    // The other's kubelet has read it.
    assert_eq!(cluster.ask("b1", "/variable?name=WORD"), PLAIN);
    assert_eq!(api.get("/api/v1/secrets").0, 403);
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(api.get(&format!("{pods}/b1")).0, 403, "b1 is a pod of the other");
    assert_eq!(api.get(&format!("{pods}/a1")).0, 200, "a1 is a pod of its own");
    assert_eq!(api.patch(&own, r#"{"metadata":{"labels":{"example.com/own":"yes"}}}"#).0, 200);
    assert_eq!(api.patch(&other, r#"{"metadata":{"labels":{"example.com/own":"no"}}}"#).0, 403);
    // The label of a master would bring a master's pods.
    let label = r#"{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}"#;
    assert_eq!(api.patch(&own, label).0, 403);
}
