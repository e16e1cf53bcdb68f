//! Annotations of a machine's own Node become orders to PID 1, whichever agent works there: for this boot, once, and through API servers that go away.
use std::fs;
use std::io::{Result, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kscratch_pki::{Authority, OffsetDateTime, Wanted};
use serde_json::{Value, json};

use crate::agentprocess::{Agent, SOON};
use crate::apiserver::{self, Stream};

/// The Node as the API server has it, and who waits for news of it.
#[derive(Default)]
struct Store {
    annotations: Mutex<(u64, Value)>,
    news: Condvar,
}

impl Store {
    fn annotate(&self, annotations: Value) {
        let mut known = self.annotations.lock().unwrap();
        *known = (known.0 + 1, annotations);
        self.news.notify_all();
    }

    fn node(known: &(u64, Value)) -> Value {
        json!({"kind": "Node", "apiVersion": "v1",
            "metadata": {"name": "n1", "resourceVersion": known.0.to_string(), "annotations": known.1}})
    }
}

fn serve(mut stream: Stream, store: &Store) -> Result<()> {
    while let Some(request) = apiserver::request(&mut stream)? {
        let words = request.line.as_str();
        assert!(request.body.is_empty(), "nothing is written: {words}");
        if !words.starts_with("GET /api/v1/nodes?") || !words.contains("fieldSelector=metadata.name%3Dn1") {
            // Certificates and the like, which are the verb's own business and not this test's.
            apiserver::answer(&mut stream, 404, &apiserver::status(404, "not found"))?;
        } else if words.contains("watch=true") {
            write!(stream, "HTTP/1.1 200 X\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n")?;
            stream.flush()?;
            let from = words.split("resourceVersion=").nth(1).and_then(|rest| rest.split(['&', ' ']).next());
            let from: u64 = from.and_then(|version| version.parse().ok()).unwrap_or_default();
            let end = Instant::now() + Duration::from_secs(30);
            let mut known = store.annotations.lock().unwrap();
            while known.0 == from && Instant::now() < end {
                known = store.news.wait_timeout(known, Duration::from_millis(100)).unwrap().0;
            }
            let event = json!({"type": "MODIFIED", "object": Store::node(&known)});
            drop(known);
            writeln!(stream, "{event}")?;
            stream.flush()?;
            // The watch ends here, as it does every minute.
            stream.conn.send_close_notify();
            return stream.flush();
        } else {
            let known = store.annotations.lock().unwrap();
            let version = known.0.to_string();
            let list = json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": version},
                "items": [Store::node(&known)]});
            drop(known);
            apiserver::answer(&mut stream, 200, &list.to_string())?;
        }
    }
    Ok(())
}

fn contract(folder: &Path, port: u16) -> String {
    let at = |name: &str| folder.join(name);
    json!({
        "server": format!("https://127.0.0.1:{port}"), "authority": at("ca.crt"), "kubelet": at("kubelet.pem"), "node": "n1",
        "remembered": at("node-name"), "identities": [], "ready": at("ready"),
        "orders": {"node": "n1", "place": at("order"), "resets": false},
    })
    .to_string()
}

#[track_caller]
fn wait(file: &PathBuf) -> String {
    let end = Instant::now() + SOON;
    while !file.exists() {
        assert!(Instant::now() < end, "{} does not come", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::read_to_string(file).unwrap()
}

#[test]
fn orders_are_for_this_boot_and_followed_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let now = OffsetDateTime::now_utc();
    let (authority, pair) = Authority::new_with_pair("kubernetes", now, 1).unwrap();
    fs::write(at("ca.crt"), pair.certificate_pem).unwrap();
    let pair = authority.issue(&Wanted::client("system:node:n1", Some("system:nodes")), now).unwrap();
    let store = Arc::new(Store::default());
    let of_server = store.clone();
    let port = apiserver::listen(&authority, Ipv4Addr::LOCALHOST, move |stream| serve(stream, &of_server));
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot = boot.trim();
    let agent = Agent::start(folder.path(), "identities", &contract(folder.path(), port));
    // The kubelet joins a little later.
    fs::write(at("kubelet.pem"), format!("{}{}", pair.certificate_pem, pair.key_pem)).unwrap();

    store.annotate(json!({"kscratch/reboot-requested": "a boot before this one"}));
    store.annotate(json!({"kscratch/shutdown-requested": boot, "kscratch/requested-by": "kubernetes-admin"}));
    assert_eq!(wait(&at("order")), "shutdown\n");
    agent.says("kubernetes-admin asks for a shutdown of this machine (kscratch/shutdown-requested)\n");
    fs::remove_file(at("order")).unwrap();
    // The Node changes for other reasons too.
    store.annotate(json!({"kscratch/shutdown-requested": boot, "x": "y"}));
    store.annotate(json!({"kscratch/reboot-requested": boot}));
    assert_eq!(wait(&at("order")), "reboot\n");
    agent.says("somebody who may change Nodes asks for a reboot of this machine (kscratch/reboot-requested)\n");
    assert_eq!(agent.log().matches(" asks for a ").count(), 2, "{}", agent.log());
    // Its contract says that it is a master.
    fs::remove_file(at("order")).unwrap();
    store.annotate(json!({"kscratch/reset-requested": boot}));
    agent.says("asks for a reset of this master (kscratch/reset-requested): it is not followed");
    assert!(!at("order").exists());
}
