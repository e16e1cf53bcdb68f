//! The control plane's pods are placed one after the other, as what they need begins to serve.
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::cluster::Cluster;
use crate::{Steward, with_data};

/// An etcd that tells of its health: it has no leader until it is told.
fn etcd(address: SocketAddr) -> Arc<AtomicBool> {
    let listener = TcpListener::bind(address).unwrap();
    let healthy = Arc::new(AtomicBool::new(false));
    let is = Arc::clone(&healthy);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .fold(String::new(), |all, line| all + &line);
            assert!(first.starts_with("GET /readyz HTTP/1.1"), "{first}");
            let (status, text) = if is.load(Ordering::Relaxed) {
                ("200 OK", "ok")
            } else {
                ("503 Service Unavailable", "[+]data_corruption ok\n[-]linearizable_read failed: no leader\n")
            };
            let length = text.len();
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}").unwrap();
        }
    });
    healthy
}

#[test]
fn each_is_placed_when_what_it_needs_serves() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1"]));
    let folder = folder.path();
    cluster.state().serving = false;
    let at = |name: &str| folder.join(name).display().to_string();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let pod = |name: &str, after: &str| {
        std::fs::write(folder.join(format!("{name}.json")), format!("the pod {name}")).unwrap();
        json!({ "name": name, "after": after, "manifest": at(&format!("{name}.json")), "place": at(&format!("manifests/{name}.json")) })
    };
    let pods =
        [pod("api", "etcd"), pod("manager", "api-server"), pod("scheduler", "api-server"), pod("earlier", "etcd")];
    std::fs::create_dir(folder.join("manifests")).unwrap();
    std::fs::write(folder.join("manifests/earlier.json"), "as it was placed").unwrap();
    let placed = |name: &str| std::fs::read_to_string(folder.join(format!("manifests/{name}.json"))).ok();

    let steward = Steward::of(folder, &cluster, "m1", |contract| {
        (contract["etcd"], contract["pods"]) = (json!(url), json!(pods));
    });
    steward.says(&format!("failed: etcd does not serve yet: nothing answers at {url}"));
    let healthy = etcd(address);
    steward.says("etcd does not serve yet: it is not ready: linearizable_read");
    assert_eq!(placed("api"), None);
    healthy.store(true, Ordering::Relaxed);
    steward.says("api is started: etcd serves");
    assert_eq!(placed("api").as_deref(), Some("the pod api"));
    steward.says("it is away");
    assert_eq!([placed("manager"), placed("scheduler")], [None, None]);
    cluster.state().serving = true;
    steward.says("scheduler is started: the API server serves");
    steward.says("manager is started: the API server serves");
    assert_eq!(placed("manager").as_deref(), Some("the pod manager"));
    // An API server that goes away later takes nothing with it.
    cluster.state().serving = false;
    thread::sleep(Duration::from_secs(1));
    assert!(placed("scheduler").is_some());
    assert_eq!(placed("earlier").as_deref(), Some("as it was placed"));
}
