//! A machine's logs in a folder, the agent that sends them, and the servers that take them.
use std::cell::Cell;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kscratch_pki::{Authority, OffsetDateTime, Pair, Usage, Wanted};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

/// Nothing that is waited for takes longer.
const SOON: Duration = Duration::from_secs(60);

pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

/// What PID 1 writes before what a boot writes.
pub fn mark(boot: &str) -> String {
    format!("-- boot {boot} --\n")
}

pub struct Machine {
    pub folder: tempfile::TempDir,
    kernel: Cell<Option<UnixDatagram>>,
    to_kernel: std::cell::RefCell<Vec<String>>,
    pid: Cell<u32>,
}

impl Machine {
    /// One that sends to these servers, and whose queues hold a megabyte.
    pub fn new(servers: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(at("logs")).unwrap();
        fs::create_dir(at("state")).unwrap();
        let servers: Vec<Value> = servers.iter().map(|server| parsed(server)).collect();
        let wanted = serde_json::json!({
            "servers": servers,
            "authorities": at("ca.crt"),
            "folder": at("logs"),
            "except": ["logs"],
            "places": at("state/places.json"),
            "room": 1 << 20,
            "name_within_seconds": 0,
            "ready": at("ready"),
        });
        fs::write(at("logs.json"), wanted.to_string()).unwrap();
        Self { folder, kernel: Cell::default(), to_kernel: Vec::new().into(), pid: Cell::default() }
    }

    pub fn trust(&self, pem: &str) {
        let fresh = self.folder.path().join("fresh.crt");
        fs::write(&fresh, pem).unwrap();
        fs::rename(fresh, self.folder.path().join("ca.crt")).unwrap();
    }

    /// What it proves itself by from its next start on.
    pub fn prove(&self, certificate: &Pair, key: &Pair) {
        let at = |name: &str| self.folder.path().join(name);
        fs::write(at("client.crt"), &certificate.certificate_pem).unwrap();
        fs::write(at("client.key"), &key.key_pem).unwrap();
        let mut wanted: Value = serde_json::from_slice(&fs::read(at("logs.json")).unwrap()).unwrap();
        wanted["identity"] = serde_json::json!({"certificate": at("client.crt"), "key": at("client.key")});
        fs::write(at("logs.json"), wanted.to_string()).unwrap();
    }

    /// Writes to a service's log.
    pub fn write(&self, service: &str, text: &str) {
        let path = self.folder.path().join(format!("logs/{service}.log"));
        File::options().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Puts a service's log aside, and begins a new one.
    pub fn rotate(&self, service: &str) {
        let at = |ending: &str| self.folder.path().join(format!("logs/{service}.log{ending}"));
        for (from, to) in [(".2", ".3"), (".1", ".2"), ("", ".1")] {
            let _ = fs::rename(at(from), at(to));
        }
        self.write(service, "");
    }

    /// [`Machine::rotate`], as PID 1 does it: with the boot's mark.
    pub fn turn(&self, service: &str) {
        self.rotate(service);
        self.write(service, &mark(&boot()));
    }

    /// The kernel says something, now or, where nobody reads yet, to whoever reads first.
    pub fn kernel(&self, record: &str) {
        let kernel = self.kernel.take();
        match &kernel {
            Some(kernel) => _ = kernel.send(record.as_bytes()).unwrap(),
            None => self.to_kernel.borrow_mut().push(record.to_owned()),
        }
        self.kernel.set(kernel);
    }

    pub fn start(&self) -> Sending<'_> {
        let (own, given) = UnixDatagram::pair().unwrap();
        for record in self.to_kernel.take() {
            own.send(record.as_bytes()).unwrap();
        }
        self.kernel.set(Some(own));
        let command = Command::new(env!("CARGO_BIN_EXE_kscratch-agent"));
        self.spawn(command, OwnedFd::from(given).into())
    }

    /// As a user without any rights, with the machine's own kernel log.
    pub fn start_confined(&self, user: u32) -> Sending<'_> {
        for place in ["", "state"] {
            chown(self.folder.path().join(place), Some(user), Some(user)).unwrap();
        }
        // Where the tests are compiled, that user need not get to.
        let program = self.folder.path().join("agent");
        fs::copy(env!("CARGO_BIN_EXE_kscratch-agent"), &program).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups"]);
        command.args(["--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"]).arg(program);
        self.spawn(command, File::open("/dev/kmsg").unwrap().into())
    }

    fn spawn(&self, mut command: Command, input: Stdio) -> Sending<'_> {
        let child = command
            .arg("logs")
            .arg(self.folder.path().join("logs.json"))
            .stdin(input)
            .stdout(File::create(self.folder.path().join("said")).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        self.pid.set(child.id());
        Sending { child, machine: self }
    }

    /// What the kernel says of the agent (proc_pid_status(5)).
    pub fn status(&self, key: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid.get())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap().trim().to_owned()
    }
}

fn parsed(server: &str) -> Value {
    let (protocol, rest) = server.split_once("://").unwrap();
    let (host, port) = rest.rsplit_once(':').unwrap();
    serde_json::json!({"protocol": protocol, "host": host, "port": port.parse::<u16>().unwrap()})
}

/// The agent while it runs. It is killed with the test.
pub struct Sending<'a> {
    child: Child,
    machine: &'a Machine,
}

impl Sending<'_> {
    pub fn log(&self) -> String {
        fs::read_to_string(self.machine.folder.path().join("said")).unwrap()
    }

    #[track_caller]
    pub fn says(&self, text: &str) {
        let end = Instant::now() + SOON;
        while !self.log().contains(text) {
            assert!(Instant::now() < end, "the agent does not say {text:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Is told to end, and does.
    #[track_caller]
    pub fn ends(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.machine.kernel.take());
    }
}

/// A server.
pub struct Tcp {
    listener: TcpListener,
    pub port: u16,
}

impl Tcp {
    /// On a port of the loopback address, any with 0.
    pub fn listen(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    pub fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// The next connection.
    pub fn accept(&self) -> Taken {
        let stream = self.stream();
        Taken(std::cell::RefCell::new(BufReader::new(stream)))
    }

    fn stream(&self) -> TcpStream {
        // A listener cannot be waited for with a bound but by looking again and again.
        self.listener.set_nonblocking(true).unwrap();
        let end = Instant::now() + SOON;
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) => assert!(Instant::now() < end, "nobody comes: {error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }
}

/// A connection that lines come from.
pub struct Taken(std::cell::RefCell<BufReader<TcpStream>>);

impl Taken {
    #[track_caller]
    pub fn take(&self, count: usize) -> Vec<Value> {
        let mut stream = self.0.borrow_mut();
        (0..count).map(|_| line(&mut *stream)).collect()
    }

    #[track_caller]
    pub fn messages(&self, count: usize) -> Vec<String> {
        self.take(count).iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }

    /// All messages until the connection ends; half a line at its end is none.
    pub fn rest(self) -> Vec<String> {
        let mut text = String::new();
        self.0.into_inner().read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let message = |line| serde_json::from_str::<Value>(line).unwrap()["message"].as_str().unwrap().to_owned();
        whole.lines().map(message).collect()
    }

    /// Says something, which no server of logs does, and lets go.
    pub fn answer(self, bytes: &[u8]) {
        let mut stream = self.0.into_inner();
        let _ = stream.get_mut().write_all(bytes);
        let _ = stream.read(&mut [0; 512]);
    }
}

/// The next line.
#[track_caller]
pub fn line(stream: &mut impl std::io::BufRead) -> Value {
    let mut text = String::new();
    stream.read_line(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// A connection that lines come from, with TLS.
pub type Secured = BufReader<StreamOwned<ServerConnection, TcpStream>>;

/// A connection with TLS, if the client believes who this is: a server with a certificate of that authority.
pub fn tls(server: &Tcp, authority: &Authority) -> Option<Secured> {
    secured(server, authority, None)
}

/// The same of a server that wants a client's certificate by that authority (in PEM), too.
pub fn mutual(server: &Tcp, authority: &Authority, clients: &str) -> Option<Secured> {
    secured(server, authority, Some(clients))
}

fn secured(server: &Tcp, authority: &Authority, clients: Option<&str>) -> Option<Secured> {
    let wanted = Wanted {
        usages: [Usage::Server].into(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
        ..Wanted::client("collector", None)
    };
    let pair = authority.issue(&wanted, OffsetDateTime::now_utc()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = clients.map(|pem| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build().unwrap()
    });
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let config = builder
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    let stream = StreamOwned::new(ServerConnection::new(config.into()).unwrap(), server.stream());
    let mut stream = BufReader::new(stream);
    // The client's first bytes come behind its approval.
    let approved = stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
    approved.then_some(stream)
}

/// A server that takes datagrams.
pub struct Udp {
    socket: UdpSocket,
    pub port: u16,
}

impl Udp {
    pub fn listen(port: u16) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let port = socket.local_addr().unwrap().port();
        Self { socket, port }
    }

    pub fn url(&self) -> String {
        format!("udp://127.0.0.1:{}", self.port)
    }

    #[track_caller]
    pub fn next(&self) -> Value {
        let mut bytes = vec![0; 65_536];
        let count = self.socket.recv(&mut bytes).unwrap();
        serde_json::from_slice(&bytes[..count]).unwrap()
    }
}

/// A name server to which every name is this machine's (RFC 1035, 4.1), from now on.
pub fn answer_names(address: &str) {
    let socket = UdpSocket::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            let end = 12 + bytes[12..count].iter().position(|byte| *byte == 0).unwrap() + 5;
            let is_ipv4 = bytes[end - 4..end - 2] == [0, 1];
            let mut answer = bytes[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
            if is_ipv4 {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
}
