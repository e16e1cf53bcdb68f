//! The service that stands in for logind, as a program: what the kubelet's D-Bus library sends it, what it gets, and how the machine's end waits for it.
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, Signal, kill_process};

/// Nothing here takes longer, on a machine that has other things to do as well.
const PATIENCE: Duration = Duration::from_secs(30);

// What godbus 5.2.2, which the kubelet of Kubernetes 1.37 speaks through, sent for the calls of its node shutdown manager.
const HELLO: &[u8] =
    b"l\x01\0\x01\0\0\0\0\x01\0\0\0m\0\0\0\x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0\x06\x01s\0\x14\0\0\0org\
    .freedesktop.DBus\0\0\0\0\x03\x01s\0\x05\0\0\0Hello\0\0\0\x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0";
const GET_DELAY: &[u8] =
    b"l\x01\0\x01<\0\0\0\x02\0\0\0\x80\0\0\0\x01\x01o\0\x17\0\0\0/org/freedesktop/login1\0\x06\x01s\0\x16\0\0\0org\
    .freedesktop.login1\0\0\x03\x01s\0\x03\0\0\0Get\0\0\0\0\0\x02\x01s\0\x1f\0\0\0org.freedesktop.DBus.Propertie\
    s\0\x08\x01g\0\x02ss\0\x1e\0\0\0org.freedesktop.login1.Manager\0\0\x13\0\0\0InhibitDelayMaxUSec\0";
const INHIBIT: &[u8] =
    b"l\x01\0\x01V\0\0\0\x03\0\0\0\x82\0\0\0\x01\x01o\0\x17\0\0\0/org/freedesktop/login1\0\x06\x01s\0\x16\0\0\0org\
    .freedesktop.login1\0\0\x03\x01s\0\x07\0\0\0Inhibit\0\x02\x01s\0\x1e\0\0\0org.freedesktop.login1.Manager\0\0\
    \x08\x01g\0\x04ssss\0\0\0\0\0\0\0\x08\0\0\0shutdown\0\0\0\0\x07\0\0\0kubelet\0*\0\0\0Kubelet needs time to h\
    andle node shutdown\0\0\x05\0\0\0delay\0";
const INHIBIT_SLEEP: &[u8] =
    b"l\x01\0\x01*\0\0\0\x04\0\0\0\x87\0\0\0\x08\x01g\0\x04ssss\0\0\0\0\0\0\0\x01\x01o\0\x17\0\0\0/org/freedesktop\
    /login1\0\x06\x01s\0\x16\0\0\0org.freedesktop.login1\0\0\x03\x01s\0\x07\0\0\0Inhibit\0\x02\x01s\0\x1e\0\0\0o\
    rg.freedesktop.login1.Manager\0\0\x05\0\0\0sleep\0\0\0\x07\0\0\0kubelet\0\x01\0\0\0x\0\0\0\x05\0\0\0delay\0";
const ADD_MATCH: &[u8] =
    b"l\x01\0\x01x\0\0\0\x05\0\0\0}\0\0\0\x03\x01s\0\x08\0\0\0AddMatch\0\0\0\0\0\0\0\0\x02\x01s\0\x14\0\0\0org.fre\
    edesktop.DBus\0\0\0\0\x08\x01g\0\x01s\0\0\x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0\x06\x01s\0\x14\0\0\
    \0org.freedesktop.DBus\0\0\0\0s\0\0\0type='signal',interface='org.freedesktop.login1.Manager',member='Prepar\
    eForShutdown',path='/org/freedesktop/login1'\0";

struct Service {
    folder: tempfile::TempDir,
    child: Child,
}

impl Service {
    /// Started with so many seconds for the kubelet.
    fn start(seconds: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kscratch-init"))
            .arg("inhibitor")
            .arg(folder.path().join("bus"))
            .args([&seconds.to_string(), "0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { folder, child }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("bus")
    }

    fn connect(&self) -> Client {
        let end = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return Client(stream);
                }
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits for the end, which is a good one, and gives what it has said.
    #[track_caller]
    fn end(mut self) -> String {
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                self.child.kill().unwrap();
                panic!("the service does not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(self.child.wait().unwrap().success());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

struct Client(UnixStream);

impl Client {
    fn line(&mut self, line: &str, want: &str) {
        self.0.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            got.push(byte[0]);
        }
        assert_eq!(String::from_utf8(got).unwrap(), format!("{want}\r\n"), "{line}");
    }

    /// The handshake, in the order in which godbus has it.
    fn greet(&mut self) {
        self.0.write_all(&[0]).unwrap();
        self.line("AUTH", "REJECTED EXTERNAL");
        self.line("AUTH EXTERNAL", "OK 6b736372617463680000000000000001");
        self.line("NEGOTIATE_UNIX_FD", "AGREE_UNIX_FD");
        self.0.write_all(b"BEGIN\r\n").unwrap();
    }

    fn call(&mut self, message: &[u8]) -> (Vec<u8>, Option<OwnedFd>) {
        self.0.write_all(message).unwrap();
        self.message()
    }

    /// The next message, and the descriptor beside it.
    fn message(&mut self) -> (Vec<u8>, Option<OwnedFd>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut head = [0; 16];
        let got =
            rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut head)], &mut beside, RecvFlags::WAITALL).unwrap();
        assert_eq!(got.bytes, 16, "the service has hung up");
        let descriptor = beside.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()) as usize;
        let mut rest = vec![0; (16 + number(12)).next_multiple_of(8) - 16 + number(4)];
        self.0.read_exact(&mut rest).unwrap();
        ([head.to_vec(), rest].concat(), descriptor)
    }

    /// All that a kubelet does at its start; gives its lock.
    fn as_kubelet(&mut self) -> OwnedFd {
        self.greet();
        self.call(HELLO);
        self.call(GET_DELAY);
        let (_, lock) = self.call(INHIBIT);
        self.call(ADD_MATCH);
        lock.expect("a lock came")
    }
}

fn holds(message: &[u8], text: &str) -> bool {
    message.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn the_machine_waits_until_the_kubelet_lets_it_go() {
    let service = Service::start(20);
    // Whoever looks whether it is ready says nothing.
    drop(service.connect());
    let mut client = service.connect();
    client.greet();
    let (name, _) = client.call(HELLO);
    assert!(name[1] == 2 && holds(&name, ":1.1"), "{name:?}");
    let (delay, _) = client.call(GET_DELAY);
    assert!(delay[1] == 2 && delay.ends_with(&20_000_000_u64.to_le_bytes()), "{delay:?}");
    let (answer, lock) = client.call(INHIBIT);
    assert_eq!((answer[1], lock.is_some()), (2, true), "{answer:?}");
    let (refusal, none) = client.call(INHIBIT_SLEEP);
    assert!(refusal[1] == 3 && none.is_none() && holds(&refusal, "only shutdown can be delayed here"), "{refusal:?}");
    assert_eq!(client.call(ADD_MATCH).0[1], 2);

    service.stop();
    let (signal, _) = client.message();
    assert!(signal[1] == 4 && holds(&signal, "PrepareForShutdown") && signal.ends_with(&[1, 0, 0, 0]), "{signal:?}");
    std::thread::sleep(Duration::from_millis(300));
    // A second wish changes nothing, and nobody is told twice.
    service.stop();
    drop(lock);
    let said = service.end();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert_eq!(lines[0], "the kubelet ends its pods, in 20 s at most");
    assert!(lines[1].starts_with("the kubelet is done with its pods (0."), "{said}");
    assert_eq!(client.0.read(&mut [0; 100]).unwrap(), 0, "nothing more came");
}

#[test]
fn without_a_kubelet_nothing_is_waited_for() {
    for after in ["never came", "has died", "has not asked for a lock"] {
        let service = Service::start(600);
        let mut client = service.connect();
        match after {
            "never came" => drop(client),
            "has died" => {
                drop(client.as_kubelet());
                drop(client);
            }
            _ => {
                client.greet();
                client.call(HELLO);
                client.call(ADD_MATCH);
                service.stop();
                assert_eq!(service.end(), "");
                continue;
            }
        }
        service.stop();
        assert_eq!(service.end(), "", "the kubelet {after}");
    }
}

#[test]
fn a_kubelet_that_keeps_its_lock_is_waited_for_so_long_and_no_longer() {
    let service = Service::start(1);
    let mut client = service.connect();
    let _lock = client.as_kubelet();
    let begun = Instant::now();
    service.stop();
    let said = service.end();
    assert!(said.ends_with("the kubelet is not done with its pods after 3 s: they are ended without it\n"), "{said}");
    assert!(begun.elapsed() >= Duration::from_secs(3));
}

#[test]
fn a_kubelet_that_listens_late_is_told_then() {
    let service = Service::start(20);
    let mut client = service.connect();
    client.greet();
    client.call(HELLO);
    let (_, lock) = client.call(INHIBIT);
    service.stop();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(client.call(ADD_MATCH).0[1], 2);
    assert!(holds(&client.message().0, "PrepareForShutdown"));
    drop(lock);
    service.end();
}

#[test]
fn whoever_breaks_the_protocol_is_let_go_and_the_others_are_not() {
    let service = Service::start(20);
    let mut good = service.connect();
    let lock = good.as_kubelet();
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), b"\0BEGIN\r\n".to_vec(), [vec![0], vec![b'x'; 5000]].concat()] {
        let mut bad = service.connect();
        bad.0.write_all(&bytes).unwrap();
        // It is hung up on: what it has sent besides may be thrown away with the connection.
        assert!(matches!(bad.0.read(&mut [0; 100]), Ok(0) | Err(_)), "{bytes:?}");
    }
    let mut bad = service.connect();
    bad.greet();
    bad.0.write_all(&[b'B'; 64]).unwrap();
    assert!(matches!(bad.0.read(&mut [0; 100]), Ok(0) | Err(_)));
    service.stop();
    assert!(holds(&good.message().0, "PrepareForShutdown"));
    drop(lock);
    service.end();
}
