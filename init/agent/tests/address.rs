//! Turns a lease and what becomes of its holder into the address of one machine or another: two agents on one link, and a neighbour.
//!
//! Each test runs itself again below `unshare`, which needs root. Needs iproute2 and util-linux. One API server stands in for those of both machines, with
//! one store below them; it knows by the address who asks.
mod apiserver;
mod namespace;

use std::collections::BTreeMap;
use std::io::Result;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use apiserver::{Request, Stream, status};
use kscratch_pki::{Authority, OffsetDateTime, Wanted};
use namespace::run;
use serde_json::{Value, json};

/// The address that the machines share.
const SHARED: &str = "192.168.7.5";
/// The neighbour, where the server is too.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
/// How long a lease is left alone, as the machines have it, and how long its holder keeps the address: with what they and the kernel may be late.
const TAKEN: Duration = Duration::from_secs(15 + 3 + 6);
const LET_GO: Duration = Duration::from_secs(10 + 3);

/// How a machine's API server is.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Serves,
    /// As one that does not reach most of etcd.
    Refuses,
    Silent,
}

#[derive(Default)]
struct Store {
    lease: Option<Value>,
    version: u64,
    manners: BTreeMap<IpAddr, Manner>,
}

impl Store {
    /// What an API server answers to whoever may do this.
    fn answer(&mut self, request: &Request) -> (u16, String) {
        let mut words = request.line.split([' ', '?']);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let one = format!("{LEASES}/kscratch-endpoint");
        let known = self.lease.as_ref().map(|lease| &lease["metadata"]["resourceVersion"]);
        match (method, path) {
            ("GET", "/readyz") => return (200, "ok".to_owned()),
            ("GET", path) if path == one => {}
            ("POST", path) if path == LEASES && known.is_some() => return (409, status(409, "it is there already")),
            ("POST", path) if path == LEASES => self.put(&request.body),
            ("PUT", path) if path == one => {
                let wanted: Value = serde_json::from_slice(&request.body).unwrap();
                match known {
                    None => return (404, status(404, "not found")),
                    Some(known) if *known != wanted["metadata"]["resourceVersion"] => {
                        return (409, status(409, "the object has been modified"));
                    }
                    Some(_) => self.put(&request.body),
                }
            }
            other => panic!("nobody may ask for {other:?}"),
        }
        self.lease.as_ref().map_or_else(|| (404, status(404, "not found")), |lease| (200, lease.to_string()))
    }

    fn put(&mut self, body: &[u8]) {
        let mut lease: Value = serde_json::from_slice(body).unwrap();
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(lease);
    }
}

fn serve(mut stream: Stream, store: &Mutex<Store>) -> Result<()> {
    let peer = stream.sock.peer_addr()?.ip();
    while let Some(request) = apiserver::request(&mut stream)? {
        let manner = store.lock().unwrap().manners.get(&peer).copied().unwrap_or(Manner::Serves);
        let (code, text) = match manner {
            Manner::Serves => store.lock().unwrap().answer(&request),
            Manner::Refuses => (500, status(500, "etcdserver: request timed out")),
            Manner::Silent => {
                std::thread::sleep(Duration::from_secs(60));
                return Ok(());
            }
        };
        apiserver::answer(&mut stream, code, &text)?;
    }
    Ok(())
}

/// Two machines, one link, and the neighbour, whose namespace the test runs in.
struct Place {
    folder: tempfile::TempDir,
    store: Arc<Mutex<Store>>,
    port: u16,
}

/// Node and address of a machine.
fn machine(name: &str) -> (&'static str, &'static str) {
    if name == "one" { ("m1", "192.168.7.11") } else { ("m2", "192.168.7.12") }
}

fn on_one_link(name: &str, body: fn(&Place)) {
    namespace::of_its_own(name, || {
        run("ip link add br0 type bridge");
        run("ip addr add 192.168.7.1/24 dev br0");
        run("ip link set br0 up");
        for name in ["one", "two"] {
            let (_, address) = machine(name);
            run(&format!("ip netns add {name}"));
            run(&format!("ip link add {name} type veth peer name eth0 netns {name}"));
            run(&format!("ip link set {name} master br0 up"));
            run(&format!("ip -n {name} addr add {address}/24 dev eth0"));
            run(&format!("ip -n {name} link set eth0 up"));
        }
        let folder = tempfile::tempdir().unwrap();
        let (authority, pair) = Authority::new_with_pair("kubernetes", OffsetDateTime::now_utc(), 1).unwrap();
        std::fs::write(folder.path().join("ca.crt"), pair.certificate_pem).unwrap();
        let wanted = Wanted::client("kscratch:address", Some("kscratch:address"));
        let pair = authority.issue(&wanted, OffsetDateTime::now_utc()).unwrap();
        std::fs::write(folder.path().join("client.key"), &pair.key_pem).unwrap();
        std::fs::write(folder.path().join("client.crt"), &pair.certificate_pem).unwrap();
        let store = Arc::new(Mutex::new(Store::default()));
        let of_server = store.clone();
        let port = apiserver::listen(&authority, NEIGHBOUR, move |stream| serve(stream, &of_server));
        body(&Place { folder, store, port });
    });
}

impl Place {
    fn manner(&self, name: &str, manner: Manner) {
        let address = machine(name).1.parse().unwrap();
        self.store.lock().unwrap().manners.insert(address, manner);
    }

    fn holder(&self) -> String {
        let store = self.store.lock().unwrap();
        store
            .lease
            .as_ref()
            .map(|lease| lease["spec"]["holderIdentity"].as_str().unwrap().to_owned())
            .unwrap_or_default()
    }

    /// Waits for the file that tells PID 1 of a machine that it is known who has the address.
    #[track_caller]
    fn is_ready(&self, name: &str) {
        let (file, end) = (self.folder.path().join(format!("{name}-ready")), Instant::now() + Duration::from_secs(5));
        while !file.exists() {
            assert!(Instant::now() < end, "{name} is not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn start(&self, name: &str) -> Agent {
        Agent::start(self.folder.path(), self.port, name)
    }
}

/// Whether a machine has the address on its link.
fn has(name: &str) -> bool {
    run(&format!("ip -n {name} -4 -o addr show dev eth0")).contains(&format!("inet {SHARED}/32 "))
}

/// Waits until it is one machine that has the address; at no time it is both.
#[track_caller]
fn only(name: &str, other: &str, within: Duration) {
    let begun = Instant::now();
    loop {
        let (one, two) = (has(name), has(other));
        // Asked one after the other: only if the first still has it now, both had it at once.
        assert!(!(one && two && has(name)), "both have the address after {:?}", begun.elapsed());
        if one && !two {
            return;
        }
        assert!(begun.elapsed() < within, "{name} does not have the address after {within:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the neighbour believes that the address is a machine's; it asks nobody itself.
#[track_caller]
fn neighbour_knows(name: &str) {
    let link = run(&format!("ip -n {name} -o link show dev eth0"));
    let mac = link.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let end = Instant::now() + Duration::from_secs(3);
    loop {
        let knows = run(&format!("ip neigh show {SHARED} dev br0"));
        if knows.contains(&format!("lladdr {mac} ")) {
            return;
        }
        assert!(Instant::now() < end, "the neighbour knows {knows:?}, {name} has {mac}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The agent of a machine. It ends with the test.
struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    fn start(folder: &Path, port: u16, name: &str) -> Self {
        let at = |file: &str| folder.join(file).display().to_string();
        let contract = json!({
            "server": format!("https://{NEIGHBOUR}:{port}"),
            "authority": at("ca.crt"),
            "certificate": at("client.crt"),
            "key": at("client.key"),
            "node": machine(name).0,
            "namespace": "kube-system",
            "lease": "kscratch-endpoint",
            "link": "eth0",
            "address": SHARED,
            "ready": at(&format!("{name}-ready")),
        });
        let (file, log) = (folder.join(format!("{name}.json")), folder.join(format!("{name}.log")));
        std::fs::write(&file, contract.to_string()).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", name, env!("CARGO_BIN_EXE_kscratch-agent"), "address"])
            .arg(&file)
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    #[track_caller]
    fn says(&self, text: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap();
            if log.contains(text) {
                return;
            }
            assert!(Instant::now() < end, "the agent does not say {text:?}:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Tells it to stop, and waits until it has.
    fn stop(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn another_takes_the_address_of_one_that_ends() {
    on_one_link("another_takes_the_address_of_one_that_ends", |place| {
        let one = place.start("one");
        one.says("192.168.7.5 is on this machine now");
        only("one", "two", Duration::from_secs(5));
        // The neighbour learns it by asking, the first time.
        UdpSocket::bind((NEIGHBOUR, 0)).unwrap().send_to(b"hello", (SHARED, 9)).unwrap();
        neighbour_knows("one");
        let two = place.start("two");
        two.says("192.168.7.5 is kept by m1");
        place.is_ready("one");
        // Killed, it cannot take the address away: the kernel does, before the other takes it.
        drop(one);
        assert!(has("one"));
        only("two", "one", TAKEN);
        neighbour_knows("two");
        assert_eq!(place.holder(), "m2");
        let one = place.start("one");
        one.says("192.168.7.5 is kept by m2");
        // One that is told to stop gives it back at once.
        let begun = Instant::now();
        assert!(two.stop());
        only("one", "two", Duration::from_secs(8));
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        neighbour_knows("one");
        let log = std::fs::read_to_string(&one.log).unwrap();
        assert!(!log.contains("failed") && log.lines().count() == 2, "{log}");
    });
}

#[test]
fn one_whose_server_does_not_serve_lets_go() {
    on_one_link("one_whose_server_does_not_serve_lets_go", |place| {
        // Left there by one that was killed, which is not known to be right.
        run("ip -n one addr add 192.168.7.5/32 dev eth0");
        place.manner("one", Manner::Silent);
        let one = place.start("one");
        one.says("192.168.7.5 was left on eth0: removed");
        let two = place.start("two");
        only("two", "one", Duration::from_secs(5));
        one.says("asking https://192.168.7.1:");
        place.manner("one", Manner::Serves);
        one.says("192.168.7.5 is kept by m2");
        for (name, other, manner) in [("two", "one", Manner::Refuses), ("one", "two", Manner::Silent)] {
            let begun = Instant::now();
            place.manner(name, manner);
            while has(name) {
                assert!(begun.elapsed() < LET_GO, "{name} keeps the address");
                std::thread::sleep(Duration::from_millis(50));
            }
            only(other, name, TAKEN);
            place.manner(name, Manner::Serves);
        }
        two.says("192.168.7.5 is not on this machine any more: it could not be renewed for 10 s");
    });
}
