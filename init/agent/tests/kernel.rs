//! Turns a state file into routes and an overlay of real network namespaces, and reads them back with iproute2.
//!
//! Each test runs itself again below `unshare --net`, which needs root. The agents run as PID 1 runs them: as a user of their own with
//! `CAP_NET_ADMIN` alone. Needs iproute2 and util-linux. No API server answers here.
mod namespace;

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use namespace::run;

/// The user of an agent, as in init/src/plan/cluster.rs.
const USER: u32 = 905;

/// Runs the test's body in a network namespace of its own that is called `one`, beside another one called `two`: they are machines n1 and n2.
fn between_two_machines(name: &str, body: fn(&Path)) {
    namespace::of_its_own(name, || {
        let folder = tempfile::tempdir().unwrap();
        run(&format!("ip netns attach one {}", std::process::id()));
        run("ip netns add two");
        run("ip link add eth0 type veth peer name eth0 netns two");
        for (machine, address, pods) in
            [("one", "192.168.7.11/24", "10.244.1.1/24"), ("two", "192.168.7.12/24", "10.244.2.1/24")]
        {
            run(&format!("ip -n {machine} link set lo up"));
            run(&format!("ip -n {machine} addr add {address} dev eth0"));
            run(&format!("ip -n {machine} link set eth0 up"));
            run(&format!("ip -n {machine} link add cbr0 type bridge"));
            run(&format!("ip -n {machine} addr add {pods} dev cbr0"));
            run(&format!("ip -n {machine} link set cbr0 up"));
        }
        body(folder.path());
    });
}

/// An agent of one of the machines, with what it says in a file. It ends with the test.
struct Agent {
    child: Child,
    log: std::path::PathBuf,
}

impl Agent {
    /// Starts one that knows these nodes from before: name, address, range.
    fn start(folder: &Path, machine: &str, mode: &str, nodes: &[(&str, &str, &str)]) -> Self {
        let rows: Vec<_> = nodes
            .iter()
            .map(|(name, address, range)| {
                format!(
                    r#""{name}":{{"created":"2026-01-01T00:00:00Z","addresses":["{address}"],"ranges":["{range}"]}}"#
                )
            })
            .collect();
        Self::start_from(folder, machine, mode, &format!(r#"{{"nodes":{{{}}}}}"#, rows.join(",")))
    }

    fn start_from(folder: &Path, machine: &str, mode: &str, state: &str) -> Self {
        let (node, address) = if machine == "one" { ("n1", "192.168.7.11") } else { ("n2", "192.168.7.12") };
        let at = |name: &str| folder.join(format!("{machine}-{name}"));
        let give = |path: &Path| std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
        give(folder);
        std::fs::write(at("nodes.json"), state).unwrap();
        give(&at("nodes.json"));
        let contract = format!(
            r#"{{"server":"https://127.0.0.1:1","authority":"/none/ca.crt","certificate":"/none/client.crt","key":"/none/client.key","node":"{node}",
            "mode":"{mode}","cluster_pod_range":"10.244.0.0/16","link":"eth0","address":"{address}","pod_range_file":"{}","state":"{}","mtu":1450}}"#,
            at("pod-range").display(),
            at("nodes.json").display()
        );
        std::fs::write(at("routes.json"), contract).unwrap();
        // Where the program was compiled nobody but root may be let in.
        let (program, log) = (at("agent"), at("log"));
        let _ = std::fs::remove_file(&program);
        std::fs::copy(env!("CARGO_BIN_EXE_kscratch-agent"), &program).unwrap();
        let user = USER.to_string();
        let child = Command::new("ip")
            .args(["netns", "exec", machine, "setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"])
            .args([
                "--bounding-set",
                "-all,+net_admin",
                "--inh-caps",
                "-all,+net_admin",
                "--ambient-caps",
                "+net_admin",
            ])
            .arg("--no-new-privs")
            .arg(program)
            .arg("routes")
            .arg(at("routes.json"))
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    #[track_caller]
    fn says(&self, text: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap();
            if log.contains(text) {
                return;
            }
            assert!(Instant::now() < end, "the agent does not say {text:?}:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const BOTH: [(&str, &str, &str); 2] =
    [("n1", "192.168.7.11", "10.244.1.0/24"), ("n2", "192.168.7.12", "10.244.2.0/24")];

/// Sends a packet from the own pods' range to the other machine's, and looks who sent it.
fn a_packet_arrives() {
    let other = std::thread::spawn(|| {
        let two = std::fs::File::open("/run/netns/two").unwrap();
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&two),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .unwrap();
        UdpSocket::bind("10.244.2.1:7000").unwrap()
    });
    let there = other.join().unwrap();
    there.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let here = UdpSocket::bind("10.244.1.1:0").unwrap();
    here.send_to(b"hello", "10.244.2.1:7000").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = there.recv_from(&mut buffer).expect("nothing came from pod to pod");
    assert_eq!((&buffer[..length], from.ip()), (&b"hello"[..], "10.244.1.1".parse().unwrap()), "source address kept");
}

#[test]
fn routed() {
    between_two_machines("routed", |folder| {
        run("ip route add 10.99.0.0/24 via 192.168.7.12");
        run("ip route add 10.244.9.0/24 via 192.168.7.12 proto 107");
        let nodes = [BOTH[0], BOTH[1], ("n3", "172.16.0.3", "10.244.3.0/24")];
        let one = Agent::start(folder, "one", "routed", &nodes);
        let two = Agent::start(folder, "two", "routed", &BOTH);
        one.says("3 nodes are known from before");
        one.says("the pods of node n3 are not reached: its address 172.16.0.3 is not on this machine's link (192.168.7.0/24)");
        one.says("setting the route to 10.244.2.0/24 through 192.168.7.12");
        one.says("removing the route to 10.244.9.0/24 through 192.168.7.12");
        one.says("watching the nodes of https://127.0.0.1:1 failed: reading /none/ca.crt: No such file");
        two.says("setting the route to 10.244.1.0/24 through 192.168.7.11");
        a_packet_arrives();
        let routes = run("ip route");
        assert!(routes.contains("10.99.0.0/24 via 192.168.7.12"), "somebody else's route stays: {routes}");
        assert!(routes.contains("10.244.2.0/24 via 192.168.7.12 dev eth0 proto 107"), "{routes}");
        drop(one);
        assert!(!folder.join("one-pod-range").exists(), "only the API server says it");

        let one = Agent::start(folder, "one", "routed", &[BOTH[0], ("n2", "192.168.7.22", "10.244.2.0/24")]);
        one.says("setting the route to 10.244.2.0/24 through 192.168.7.22");
        drop(one);
        let one = Agent::start(folder, "one", "routed", &BOTH[..1]);
        one.says("removing the route to 10.244.2.0/24 through 192.168.7.22");
        assert!(!run("ip route").contains("107"));
    });
}

#[test]
fn overlay() {
    between_two_machines("overlay", |folder| {
        let one = Agent::start(folder, "one", "overlay", &BOTH);
        let two = Agent::start(folder, "two", "overlay", &BOTH);
        one.says("setting the route to 10.244.2.0/24 through 10.244.2.0");
        two.says("setting the route to 10.244.1.0/24 through 10.244.1.0");
        a_packet_arrives();
        let device = run("ip -d link show kscratch-vx");
        for part in ["vxlan id 1 ", "local 192.168.7.11", "dstport 4789", "nolearning", "mtu 1450", "0e:6b:c0:a8:07:0b"]
        {
            assert!(device.contains(part), "{part}: {device}");
        }
        assert!(run("ip -4 -o addr show dev kscratch-vx").contains("10.244.1.0/32"));
        assert!(run("ip neigh show dev kscratch-vx").contains("10.244.2.0 lladdr 0e:6b:c0:a8:07:0c PERMANENT"));
        assert!(run("bridge fdb show dev kscratch-vx").contains("0e:6b:c0:a8:07:0c dst 192.168.7.12 self permanent"));
        let before = device.lines().next().unwrap().to_owned();
        drop(one);

        // Started again, it finds everything as it should be.
        let one = Agent::start(folder, "one", "overlay", &BOTH);
        one.says("watching the nodes of");
        assert_eq!(run("ip -d link show kscratch-vx").lines().next().unwrap(), before);
        let log = std::fs::read_to_string(&one.log).unwrap();
        assert!(!log.contains("setting") && !log.contains("adding"), "{log}");
        drop(one);

        // A device of the name that is another one makes way, with the machine that was known behind it.
        run("ip link del kscratch-vx");
        run("ip link add kscratch-vx type vxlan id 7 dstport 4789 local 192.168.7.11");
        let one = Agent::start(folder, "one", "overlay", &[BOTH[0], ("n2", "192.168.7.22", "10.244.2.0/24")]);
        one.says("setting the route to 10.244.2.0/24");
        assert!(run("bridge fdb show dev kscratch-vx").contains("0e:6b:c0:a8:07:16 dst 192.168.7.22"));
        drop(one);
        let one = Agent::start(folder, "one", "overlay", &BOTH[..1]);
        one.says("removing 192.168.7.22 from the overlay");
        assert_eq!(run("bridge fdb show dev kscratch-vx").trim(), "");
        assert_eq!(run("ip neigh show dev kscratch-vx nud permanent").trim(), "");
        drop(one);

        let one = Agent::start(folder, "one", "routed", &BOTH);
        one.says("setting the route to 10.244.2.0/24 through 192.168.7.12");
        assert!(!run("ip link").contains("kscratch-vx"), "the other mode's device goes");
    });
}

#[test]
fn what_another_takes_away_is_put_back() {
    between_two_machines("what_another_takes_away_is_put_back", |folder| {
        let one = Agent::start(folder, "one", "routed", &BOTH);
        one.says("setting the route to 10.244.2.0/24");
        run("ip link set eth0 down");
        run("ip link set eth0 up");
        let end = Instant::now() + Duration::from_secs(40);
        while !run("ip route").contains("10.244.2.0/24 via 192.168.7.12") {
            assert!(Instant::now() < end, "{}", std::fs::read_to_string(&one.log).unwrap());
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

#[test]
fn a_damaged_state_file_is_told_and_takes_no_route_with_it() {
    between_two_machines("a_damaged_state_file_is_told_and_takes_no_route_with_it", |folder| {
        run("ip route add 10.244.2.0/24 via 192.168.7.12 proto 107");
        let one = Agent::start_from(folder, "one", "routed", "{\"nodes\":{\"n2\":{\"crea");
        one.says("what was known before is lost: reading what ");
        one.says("watching the nodes of");
        assert!(run("ip route").contains("10.244.2.0/24 via 192.168.7.12 dev eth0 proto 107"));
    });
}
