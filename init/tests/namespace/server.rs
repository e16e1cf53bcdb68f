//! A DHCP server (dnsmasq) at the other end of a veth pair.
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use kscratch_init::log::monotonic;

use super::run;

/// A DHCP server in a namespace of its own, at the other end of a veth pair.
pub struct Server {
    shell: Child,
    /// Each line is an address: the only one that the server gives from then on.
    wishes: Option<ChildStdin>,
    log: PathBuf,
}

impl Server {
    /// The pair `client` and `server`; the server has 10.9.0.1/24, and gives 10.9.0.50.
    pub fn start(folder: &Path) -> Self {
        run("ip link add client type veth peer name server");
        let dnsmasq = [
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-hosts --no-resolv --no-ping --port=0 --user=root --log-dhcp --log-facility=-",
            "--interface=server --bind-interfaces --dhcp-authoritative --dhcp-range=$address,$address,255.255.255.0,2m",
            "--dhcp-option=option:router,10.9.0.1 --dhcp-option=option:dns-server,10.9.0.2,10.9.0.3",
            "--dhcp-option=option:domain-search,a.example,b.example --dhcp-option=option:mtu,1400 --dhcp-option=option:ntp-server,10.9.0.4",
        ]
        .join(" ");
        let script = format!(
            "read go && ip link set server up && ip addr add 10.9.0.1/24 dev server || exit 1
            stop() {{ [ -z \"$pid\" ] || {{ kill $pid; wait $pid; }} }}
            while read address; do stop; {dnsmasq} --dhcp-leasefile={}/leases-$address & pid=$!; done; stop",
            folder.display()
        );
        let log = folder.join("log");
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        assert!(
            Command::new("sh").args(["-c", "command -v dnsmasq"]).stdout(Stdio::null()).status().unwrap().success(),
            "there is no dnsmasq: apt-get install -y dnsmasq-base"
        );
        // The namespace is the child's only once unshare has run.
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", child.id());
        wait_until("the server's namespace", || std::fs::read_link(&theirs).is_ok_and(|link| link != own));
        run(&format!("ip link set server netns {}", child.id()));
        let mut wishes = child.stdin.take();
        wishes.as_mut().unwrap().write_all(b"go\n").unwrap();
        let mut server = Self { shell: child, wishes, log };
        server.give("10.9.0.50");
        server
    }

    /// Gives this address from now on, and no other.
    pub fn give(&mut self, address: &str) {
        writeln!(self.wishes.as_mut().unwrap(), "{address}").unwrap();
        let says = format!("IP range {address} -- {address}");
        wait_until("the server", || self.log().contains(&says));
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Without wishes the shell ends the server, and itself.
        drop(self.wishes.take());
        let _ = self.shell.wait();
    }
}

/// Waits for something to be so, 20 seconds at most.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = monotonic() + Duration::from_secs(20);
    while !done() {
        assert!(monotonic() < end, "{what} did not come in 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}
