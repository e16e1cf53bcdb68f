//! Turns a DHCPv6 server's leases (dnsmasq's) into addresses of a link in a real network namespace, and reads them back with iproute2.
//!
//! Each test runs itself again below `unshare --net`, which needs root. Needs iproute2, util-linux and dnsmasq-base.
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use kscratch_init::apply::dhcp6::{Change, Keeper};
use kscratch_init::apply::steps::Machine;
use kscratch_init::log::monotonic;
use kscratch_init::plan::{Phase, Plan, Step};
use kscratch_init::sys::Linux;
use kscratch_namespace::{of_its_own as in_namespace, run};

const UUID: &str = "4c4c4544-0051-3010-8048-b4c04f4a3132";

/// A DHCPv6 server that is a router, in a namespace of its own, at the other end of the veth pair `client` and `server`.
struct Server {
    shell: Child,
    /// The server lives as long as this.
    life: Option<ChildStdin>,
    log: PathBuf,
}

impl Server {
    /// It has 2001:db8:9::1/64, and gives 2001:db8:9::50 for two minutes. `before` is done in its namespace first.
    fn start(folder: &Path, before: &str, options: &str) -> Self {
        let found = Command::new("sh").args(["-c", "command -v dnsmasq"]).stdout(Stdio::null()).status();
        assert!(found.unwrap().success(), "there is no dnsmasq: apt-get install -y dnsmasq-base");
        run("ip link add client type veth peer name server");
        let dnsmasq = [
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-hosts --no-resolv --port=0 --user=root --pid-file --log-dhcp --log-facility=-",
            "--interface=server --bind-interfaces --dhcp-authoritative --enable-ra --dhcp-range=2001:db8:9::50,2001:db8:9::50,64,2m",
            "--dhcp-option=option6:dns-server,[2001:db8:9::2],[2001:db8:9::3] --dhcp-option=option6:domain-search,a.example,b.example --dhcp-option=option6:ntp-server,[2001:db8:9::4]",
            options,
        ]
        .join(" ");
        // The kernel of the server asks nobody whether its addresses are another's: it would be silent meanwhile.
        let script = format!(
            "read go && echo 0 >/proc/sys/net/ipv6/conf/server/accept_dad && ip link set server up || exit 1
            ip addr add 2001:db8:9::1/64 dev server nodad || exit 1
            {before}
            {dnsmasq} --dhcp-leasefile={}/leases & pid=$!; echo ready; read end; kill $pid; wait $pid",
            folder.display()
        );
        let log = folder.join("log");
        let file = std::fs::File::create(&log).unwrap();
        let mut shell = Command::new("unshare")
            .args(["--net", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        // The namespace is the child's only once unshare has run.
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", shell.id());
        let shared = || std::fs::read_link(&theirs).map_or(true, |link| link == own);
        wait_while(|| shared().then(|| "the server has no namespace of its own".into()));
        run(&format!("ip link set server netns {}", shell.id()));
        let mut life = shell.stdin.take();
        std::io::Write::write_all(life.as_mut().unwrap(), b"go\n").unwrap();
        let server = Self { shell, life, log };
        wait_while(|| {
            let log = server.log();
            (!log.contains("DHCPv6, IP range 2001:db8:9::50"))
                .then(|| format!("the server does not serve; it has said: {log}"))
        });
        server
    }

    /// What it has said.
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.life.take());
        let _ = self.shell.wait();
    }
}

/// Waits until nothing is wrong any more, 20 seconds at most.
fn wait_while(mut wrong: impl FnMut() -> Option<String>) {
    let end = monotonic() + Duration::from_secs(20);
    while let Some(wrong) = wrong() {
        assert!(monotonic() < end, "after 20 s: {wrong}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the event loop hears of a lease at a time.
fn changes(keeper: &mut Keeper, now: Duration) -> Vec<Change> {
    let mut changes = keeper.readable(now);
    changes.extend(keeper.timer(now));
    changes
}

/// Keeps a lease as the event loop does, on a clock that a test may move, until `done` says so.
fn keep(
    keeper: &mut Keeper,
    clock: impl Fn() -> Duration,
    what: &str,
    mut done: impl FnMut(&[Change], &Keeper) -> bool,
) {
    wait_while(|| {
        let changes = changes(keeper, clock());
        (!done(&changes, keeper)).then(|| format!("{what} did not come"))
    });
}

fn start() -> Keeper {
    Keeper::start("client", UUID, Some("node-1".to_owned()), 0x12_3456, 99, monotonic())
        .unwrap_or_else(|error| panic!("{error:#}"))
}

/// Waits for a lease, and gives what was said until then.
fn acquire(keeper: &mut Keeper, server: &Server) -> Vec<String> {
    let mut seen = Vec::new();
    wait_while(|| {
        seen.extend(changes(keeper, monotonic()).iter().map(ToString::to_string));
        keeper.lease().is_none().then(|| format!("{}\n{}", keeper.why_none(), server.log()))
    });
    seen
}

/// IPv6 addresses of the client's link but for its own, as iproute2 says them.
fn addresses() -> String {
    run("ip -6 -o addr show dev client scope global")
}

#[test]
fn a_lease_from_a_real_server_is_taken_renewed_and_lost() {
    in_namespace("a_lease_from_a_real_server_is_taken_renewed_and_lost", || {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path(), "", "");
        let mut keeper = start();
        assert!(keeper.why_none().starts_with("client has no IPv6 address of its own yet"), "{}", keeper.why_none());
        let seen = acquire(&mut keeper, &server);
        let lease = keeper.lease().unwrap().clone();
        assert_eq!(seen, [format!("has 2001:db8:9::50 from {} for 120 s", lease.server)]);
        assert!(lease.server.is_unicast_link_local());
        let servers = ["2001:db8:9::2", "2001:db8:9::3"].map(|server| server.parse::<Ipv6Addr>().unwrap());
        assert_eq!(
            (lease.dns_servers.as_slice(), lease.search.as_slice()),
            (&servers[..], &["a.example".into(), "b.example".into()][..])
        );
        assert_eq!(lease.time_servers, ["2001:db8:9::4"]);
        let text = addresses();
        assert!(
            text.contains("2001:db8:9::50/128") && text.contains("noprefixroute") && !text.contains("tentative"),
            "{text}"
        );
        assert!(text.contains("valid_lft 1") && !text.contains("forever"), "{text}");
        assert!(!run("ip -6 route show proto kernel").contains("2001:db8:9::50"), "an address is no network");
        // By the name that it tells, and by its DUID-UUID (RFC 6355): the same at every boot.
        let known = std::fs::read_to_string(folder.path().join("leases")).unwrap();
        assert!(known.contains(" node-1 00:04:4c:4c:45:44:00:51:30:10:80:48:b4:c0:4f:4a:31:32"), "{known}");

        // A minute on, at T1, the server is asked for more, and nothing changes for us.
        let renewed = || server.log().matches("DHCPRENEW").count();
        let at_renewal = || monotonic() + Duration::from_secs(61);
        assert_eq!(renewed(), 0);
        keep(&mut keeper, at_renewal, "a renewal", |changes, _| {
            assert!(changes.is_empty(), "{changes:?}");
            renewed() > 0
        });
        keep(&mut keeper, at_renewal, "the server's answer", |changes, keeper| {
            assert!(changes.is_empty(), "{changes:?}");
            keeper.next_deadline().is_some_and(|deadline| deadline > at_renewal() + Duration::from_secs(30))
        });

        // The server is gone. After the lease's time the address is gone too, and a lease is looked for again.
        drop(server);
        let later = || monotonic() + Duration::from_secs(300);
        let mut seen = Vec::new();
        keep(&mut keeper, later, "the end of the lease", |changes, keeper| {
            seen.extend(changes.iter().map(ToString::to_string));
            keeper.lease().is_none()
        });
        assert_eq!(seen, ["lost its lease of 2001:db8:9::50: no DHCPv6 server renewed it; looking for another"]);
        assert!(!addresses().contains("2001:db8:9::50"));
        assert!(keeper.next_deadline().is_some());
    });
}

#[test]
fn an_address_that_another_machine_has_is_given_back() {
    in_namespace("an_address_that_another_machine_has_is_given_back", || {
        let folder = tempfile::tempdir().unwrap();
        let taken = "ip addr add 2001:db8:9::50/128 dev server nodad";
        let server = Server::start(folder.path(), taken, "--dhcp-rapid-commit");
        let mut keeper = start();
        let mut seen = Vec::new();
        keep(&mut keeper, monotonic, "the refusal", |changes, _| {
            seen.extend(changes.iter().map(ToString::to_string));
            server.log().contains("DHCPDECLINE")
        });
        assert_eq!(
            seen,
            ["lost its lease of 2001:db8:9::50: another machine on the link has it; looking for another"],
            "{}",
            server.log()
        );
        assert!(!addresses().contains("2001:db8:9::50") && keeper.lease().is_none());
    });
}

#[test]
fn a_machine_has_its_lease_and_the_routes_that_are_announced() {
    in_namespace("a_machine_has_its_lease_and_the_routes_that_are_announced", || {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path(), "", "--dhcp-rapid-commit");
        // This machine is no other than in the tests before.
        std::fs::create_dir_all(folder.path().join("sys/class/dmi/id")).unwrap();
        std::fs::write(folder.path().join("sys/class/dmi/id/product_uuid"), UUID).unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/client/accept_ra", "2").unwrap();
        let mut machine = Machine::new(&Linux, folder.path(), "0123456789abcdef0123456789abcdef");
        let steps = vec![
            Step::LinkUp { link: "client".into(), mtu: None },
            Step::Dhcp6 { link: "client".into(), optional: false },
        ];
        let plan = Plan { phases: vec![Phase { name: "network", steps }] };
        machine.plan(&plan).unwrap_or_else(|error| panic!("{error:#}\n{}", server.log()));
        assert!(addresses().contains("2001:db8:9::50/128"));
        assert!(server.log().contains("DHCPSOLICIT") && !server.log().contains("DHCPREQUEST"), "{}", server.log());
        let routed = || run("ip -6 route show default").contains("dev client");
        wait_while(|| (!routed()).then(|| "the router's route is not there".into()));
        // It is kept as it is by a plan that wants it, and given up by one that does not.
        machine.keep_leases_of(&plan).unwrap();
        assert_eq!(machine.leases.len(), 1);
        machine.keep_leases_of(&Plan { phases: Vec::new() }).unwrap();
        assert!(machine.leases.is_empty() && !addresses().contains("2001:db8:9::50"));
    });
}

#[test]
fn the_boot_waits_for_nobody_longer_than_it_may() {
    in_namespace("the_boot_waits_for_nobody_longer_than_it_may", || {
        run("ip link add client type veth peer name server");
        let folder = tempfile::tempdir().unwrap();
        let mut machine = Machine::new(&Linux, folder.path(), "0123456789abcdef0123456789abcdef");
        machine.lease_within = Duration::from_millis(300);
        let steps = |optional| vec![Step::Dhcp6 { link: "client".into(), optional }];
        let plan = |optional| Plan { phases: vec![Phase { name: "network", steps: steps(optional) }] };
        let error = machine.plan(&plan(false)).unwrap_err().to_string();
        assert_eq!(error, "no DHCPv6 server answered on client (it has no carrier); it is asked on");
        // Its carrier comes, and nobody answers.
        machine.lease_within = Duration::from_secs(6);
        run("ip link set server up");
        let begun = monotonic();
        let error = machine.plan(&plan(false)).unwrap_err().to_string();
        assert_eq!(error, "no DHCPv6 server answered on client; it is asked on");
        let took = monotonic() - begun;
        assert!(took >= Duration::from_secs(6) && took < Duration::from_secs(10), "{took:?}");
        machine.plan(&plan(true)).unwrap();
        assert!(monotonic() - begun < took + Duration::from_secs(1), "an optional one is not waited for");
    });
}
