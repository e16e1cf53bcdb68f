//! Pods reach one another, services and the world outside, and who is asked sees the right address (A4).
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use kscratch_tests::cluster::{Cluster, SOON, service};
use kscratch_tests::http;
use serde_json::json;

use super::Cast;

/// The name of the pod that answers.
const WHO: &str = "/variable?name=POD";

/// What a pod asks another address for.
fn http(host: &str, port: u16, path: &str) -> String {
    format!("/http?host={host}&port={port}&path={path}")
}

/// All of it, for the pods `a1` and `a2` on one node, `b1` on another, and the nodes' eyes. `mtu` is that of a pod's link.
pub fn holds(cluster: &Cluster, mtu: &str, cast: &Cast) {
    let (eye, pair, single) = (Cast::eye(cast.pair), Cast::address(cast.pair), Cast::address(cast.single));
    let [a1, a2, b1] = ["a1", "a2", "b1"].map(|pod| cluster.address_of(pod));
    let peer = |pod: &str, host: &str, port: u16| cluster.ask(pod, &http(host, port, "/peer")).trim().to_owned();
    // On one node and across nodes, both ways: nobody translates.
    assert_eq!(peer("a1", &a2, 9999), a1);
    assert_eq!(peer("a1", &b1, 9999), a1);
    assert_eq!(peer("b1", &a1, 9999), b1);
    // More than one packet, and none too large for the way.
    assert_eq!(cluster.ask(&eye, "/read?path=/sys/class/net/cbr0/mtu").trim(), mtu);
    let program = cluster.ask("a1", &http(&b1, 9999, "/own?path=/kscratch-probe"));
    assert!(program.len() > 100_000, "{} bytes came", program.len());
    // What is no pod sees the node.
    assert_eq!(peer("a1", &single, 9999), pair);
    // A node sees its own pods and those of others.
    for (pod, address) in [("a1", &a1), ("b1", &b1)] {
        assert_eq!(cluster.ask(&eye, &http(address, 9999, WHO)), pod);
    }

    services(cluster, &[&a1, &b1], cast);
    // The image's own pod has the node's port 8080.
    let hello = cluster.ask("b1", &http(&pair, 8080, "/"));
    assert!(hello.starts_with(&format!("hello from hello-{} at 10.244.", cast.pair)), "{hello}");
}

fn services(cluster: &Cluster, [a1, b1]: &[&String; 2], cast: &Cast) {
    let mut outside = service("outside", "a1");
    outside["spec"]["type"] = json!("NodePort");
    outside["spec"]["ports"][0]["nodePort"] = json!(30080);
    cluster.apply(&[service("front-a", "a1"), service("front-b", "b1"), outside]);
    let address = |name: &str| {
        let (_, text) = cluster.api().get(&format!("/api/v1/namespaces/default/services/{name}"));
        let service: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned()
    };
    let (front_a, front_b) = (address("front-a"), address("front-b"));
    // Rules come a little after the objects: the first question is asked until it is answered.
    let seen = cluster.ask_for("a1", &http(&front_b, 80, "/peer"), |peer| peer.trim() == *a1);
    assert_eq!(seen.trim(), *a1, "a service keeps the pod's address");
    assert_eq!(cluster.ask("b1", &http(&front_a, 80, "/peer")).trim(), *b1);
    // A pod that asks its own service is its own peer (hairpin), however its address is written there.
    assert_eq!(cluster.ask("a1", &http(&front_a, 80, WHO)), "a1");
    // From a node's own network, from a pod through nodes with and without that pod, and from outside.
    assert_eq!(cluster.ask(&Cast::eye(cast.pair), &http(&front_b, 80, WHO)), "b1");
    for node in cast.machines {
        assert_eq!(cluster.ask("b1", &http(&Cast::address(node), 30080, WHO)), "a1", "by {node}");
    }
    http::wait_for(cluster.forwarded("m1", 30080), WHO, SOON, |who| who == "a1");

    // Names, as the pod's resolv.conf leads to them.
    assert_eq!(cluster.ask("a1", "/name?of=front-b").trim(), front_b);
    assert_eq!(cluster.ask("b1", "/name?of=front-b.default.svc").trim(), front_b);
    assert_eq!(cluster.ask("b1", "/name?of=kubernetes.default").trim(), "10.96.0.1");
}

/// A server on this host, which has no way to an address of a pod: it is answered because the node lends its own.
pub fn reaches_outside(cluster: &Cluster) {
    let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nfrom outside");
        }
    });
    // The gateway's address is this host's loopback (QEMU, "-netdev user").
    assert_eq!(cluster.ask("a1", &http("192.168.76.2", port, "/")), "from outside");
}
