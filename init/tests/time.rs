//! The whole time client against servers on loopback addresses: good ones, liars, and all that they can answer besides.
//!
//! The tests run themselves again below `unshare`, which needs root: NTP's port is everybody's there.
#[path = "../agent/tests/namespace/mod.rs"]
mod namespace;

use std::net::UdpSocket;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kscratch_init::sntp::keeper::Floor;
use kscratch_init::stage::synchronise::{Family, Means, Synchroniser};
use kscratch_init::sys::Recording;

/// How a server behaves.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Its clock is so many seconds ahead of this machine's.
    Ahead(i64),
    /// It refuses with this code.
    Kiss(&'static [u8; 4]),
    /// It reads, and says nothing.
    Silent,
    /// It answers what was not asked.
    WrongOrigin,
    /// As a false one, and then in truth: somebody answers in its place.
    Raced,
    /// It swallows the first question.
    Late,
}

/// Seconds since 1900 and their 2^32nds.
fn now(ahead: i64) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seconds = i64::try_from(since.as_secs()).unwrap() + 2_208_988_800 + ahead;
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (u64::try_from(seconds).unwrap() & 0xffff_ffff) << 32 | fraction
}

fn answer(question: &[u8], kind: Kind) -> Vec<Vec<u8>> {
    let sound = |ahead: i64| {
        let mut bytes = vec![0; 48];
        bytes[..4].copy_from_slice(&[0x24, 2, 6, 0xec]);
        bytes[24..32].copy_from_slice(&question[40..48]);
        bytes[32..40].copy_from_slice(&now(ahead).to_be_bytes());
        bytes[40..48].copy_from_slice(&now(ahead).to_be_bytes());
        bytes
    };
    let wrong = || {
        let mut bytes = sound(7200);
        bytes[31] ^= 1;
        bytes
    };
    match kind {
        Kind::Ahead(seconds) => vec![sound(seconds)],
        Kind::Late => vec![sound(0)],
        Kind::Silent => Vec::new(),
        Kind::WrongOrigin => vec![wrong()],
        Kind::Raced => vec![wrong(), vec![0; 10], sound(0)],
        Kind::Kiss(code) => {
            let mut bytes = sound(0);
            bytes[1] = 0;
            bytes[12..16].copy_from_slice(code);
            vec![bytes]
        }
    }
}

/// A server on an address of the loopback link.
fn serve(address: &str, kind: Kind) -> Receiver<()> {
    let socket = UdpSocket::bind((address, 123)).unwrap();
    let (asked, questions) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 100];
        let mut first = true;
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let _ = asked.send(());
            assert_eq!((len, bytes[0]), (48, 0x23), "a client's question of version 4");
            if std::mem::take(&mut first) && matches!(kind, Kind::Late) {
                continue;
            }
            for answer in answer(&bytes[..len], kind) {
                socket.send_to(&answer, from).unwrap();
            }
        }
    });
    questions
}

struct Scene {
    sys: &'static Recording,
    lines: Receiver<String>,
    synchroniser: Synchroniser,
}

impl Scene {
    fn with(servers: &[&str]) -> Self {
        let sys: &'static Recording = Box::leak(Box::new(Recording::new()));
        let (say, lines) = mpsc::channel();
        let floor = Floor { seconds: 1_577_836_800, what: "the image's date" };
        let means = Means { sys, floor, say: Box::new(move |line| drop(say.send(line.to_owned()))) };
        let synchroniser = Synchroniser::with(means, servers.iter().map(|name| (*name).to_owned()).collect());
        Self { sys, lines, synchroniser }
    }

    /// The next line that is told.
    fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(30)).expect("a line is told")
    }
}

#[test]
fn most_of_them_are_followed() {
    namespace::of_its_own("most_of_them_are_followed", || {
        serve("127.0.0.1", Kind::Ahead(3600));
        serve("127.0.0.2", Kind::Ahead(3600));
        serve("127.0.0.3", Kind::Ahead(-7230));
        serve("127.0.0.4", Kind::Ahead(-1_500_000_000));
        serve("127.0.0.5", Kind::Kiss(b"DENY"));
        // A name is looked up, and nobody listens at the last address.
        let scene = Scene::with(&["localhost", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.9"]);
        let line = scene.line();
        assert!(line.starts_with("the time server 127.0.0.4 says 19"), "{line}");
        assert!(
            line.contains(", which is before the image's date, 2020-01-01T00:00:00Z: it is not believed"),
            "{line}"
        );
        let denied = "the time server 127.0.0.5 refuses to serve this machine (DENY): it is not asked for 24 h";
        assert_eq!(scene.line(), denied);
        let line = scene.line();
        assert!(line.starts_with("the time server 127.0.0.3 says a time 3 h 0 min earlier than most others"), "{line}");
        let line = scene.line();
        assert!(line.starts_with("the clock is synchronised with "), "{line}");
        assert!(line.contains(" (2 of 6 servers agree): it said 2"), "{line}");
        let calls = scene.sys.calls();
        let [call] = &calls[..] else { panic!("{calls:?}") };
        let ms: i64 = call.strip_prefix("clock set by ").unwrap().strip_suffix(" ms").unwrap().parse().unwrap();
        assert!((3_599_000..=3_601_000).contains(&ms), "{call}");
    });
}

#[test]
fn what_is_no_answer_is_waited_past() {
    namespace::of_its_own("what_is_no_answer_is_waited_past", || {
        let wrong = serve("127.0.0.1", Kind::WrongOrigin);
        let silent = serve("127.0.0.2", Kind::Silent);
        serve("127.0.0.3", Kind::Raced);
        let late = serve("127.0.0.4", Kind::Late);
        let scene = Scene::with(&["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]);
        let line = scene.line();
        assert!(line.contains(" (2 of 4 servers agree): it was "), "{line}");
        assert!(scene.sys.calls()[0].starts_with("clock lead by "), "{:?}", scene.sys.calls());
        // Each was asked once more.
        for asked in [wrong, silent, late] {
            assert_eq!(asked.try_iter().count(), 2);
        }
    });
}

#[test]
fn a_lease_names_servers_where_nobody_else_does() {
    namespace::of_its_own("a_lease_names_servers_where_nobody_else_does", || {
        let first = serve("127.0.0.1", Kind::Silent);
        serve("127.0.0.2", Kind::Ahead(0));
        let mut scene = Scene::with(&[]);
        scene.synchroniser.leased("eth0", Family::V4, vec!["127.0.0.1".to_owned()]);
        first.recv_timeout(Duration::from_secs(10)).expect("the lease's server is asked");
        scene.synchroniser.leased("eth0", Family::V4, vec!["127.0.0.2".to_owned()]);
        let line = scene.line();
        assert!(line.starts_with("the clock is synchronised with 127.0.0.2: it was "), "{line}");
    });
}
