//! A program for test pods: it lets a test see from inside a pod, and in a privileged one look at the node and end its processes.
//!
//! The product has neither shell nor debug hook, so a test brings its own eyes as a pod; those that look at a node have hostNetwork,
//! hostPID and privileged. `rustc` alone compiles this file, statically: it uses nothing but the standard library.
//!
//! ```text
//! kscratch-probe [serve [PORT]]  answers on PORT, 9999 by default:
//!   GET /read?path=PATH            a file of the node
//!   GET /holds?path=PATH&text=TEXT whether a file of the node holds a text: `true` or `false`
//!   GET /tail?path=PATH&bytes=N    the last bytes of a file of the node
//!   GET /list?path=PATH            names in a folder of the node, one a line
//!   GET /processes                 `PID NAME COMMAND LINE`, one a line
//!   GET /kill?pid=PID              SIGKILL to a service of the node, named by its process
//!   GET /unix?socket=S&path=PATH   what a unix socket of the node answers
//!   GET /http?port=N&path=PATH     what a port answers with status 200; of the loopback address, or of the address `host`
//!   GET /connect?host=A&port=N     whether a port takes connections
//!   GET /name?of=NAME              addresses of a name, as the pod's /etc/resolv.conf leads to them, one a line
//!   GET /peer                      the address that asks
//!   GET /own?path=PATH             a file of the pod; /write?path=PATH&text=TEXT makes one
//!   GET /fill?path=PATH            writes a file until nothing can be written any more, and says why; with `sync`, once it is on the disk
//!   GET /variable?name=NAME        a variable of the pod's environment
//!   GET /exit?code=N               ends the program
//! kscratch-probe say WORDS       prints them
//! kscratch-probe write PATH TEXT makes a file
//! kscratch-probe holds PATH TEXT fails unless the file is that text; more pairs may follow
//! kscratch-probe again PATH      makes a file and fails; where it is there already, ends well
//! kscratch-probe equal A B       fails unless they are the same
//! kscratch-probe end CODE        ends with it
//! ```
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const PORT: u16 = 9999;
/// The node's root, as its PID 1 sees it.
const ROOT: &str = "/proc/1/root";
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["serve"] => listen(PORT),
        ["serve", port] => listen(port.parse().map_err(io::Error::other)?),
        ["say", ref words @ ..] => writeln!(io::stdout(), "{}", words.join(" ")),
        ["write", path, text] => fs::write(path, text),
        ["holds", ref pairs @ ..] if !pairs.is_empty() && pairs.len().is_multiple_of(2) => {
            pairs.chunks(2).try_for_each(holds)
        }
        ["again", path] if fs::exists(path)? => Ok(()),
        ["again", path] => fs::write(path, "").and(Err(io::Error::other("it was the first time"))),
        ["equal", a, b] if a == b => Ok(()),
        ["end", code] => std::process::exit(code.parse().map_err(io::Error::other)?),
        _ => Err(io::Error::other(format!("{arguments:?}"))),
    }
}

fn holds(pair: &[&str]) -> io::Result<()> {
    let is = fs::read_to_string(pair[0])?;
    if is == pair[1] { Ok(()) } else { Err(io::Error::other(format!("{} is {is:?}", pair[0]))) }
}

fn listen(port: u16) -> io::Result<()> {
    for stream in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        let stream = stream?;
        // A connection that breaks is its client's matter.
        thread::spawn(move || drop(serve(stream)));
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let target = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match answer(target, stream.peer_addr()?.ip()) {
        Ok(body) => ("200 OK", body),
        Err(error) => ("500 Internal Server Error", format!("{target}: {error}\n").into_bytes()),
    };
    write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

fn answer(target: &str, peer: IpAddr) -> io::Result<Vec<u8>> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let value = |key: &str| query.get(key).copied().ok_or_else(|| io::Error::other(format!("`{key}` is missing")));
    let number = |key: &str| value(key)?.parse::<u16>().map_err(io::Error::other);
    let place = || -> io::Result<SocketAddr> {
        let host = query.get("host").map_or(Ok(Ipv4Addr::LOCALHOST), |host| host.parse()).map_err(io::Error::other)?;
        Ok((host, number("port")?).into())
    };
    match path {
        "/read" => fs::read(of_node(value("path")?)),
        "/holds" => {
            let (bytes, text) = (fs::read(format!("{ROOT}{}", value("path")?))?, value("text")?.as_bytes());
            // Most of a large file is zeros, which emulation must not be made to call a comparison for.
            let is = |window: &[u8]| window.first() == text.first() && window == text;
            Ok(bytes.windows(text.len()).any(is).to_string().into_bytes())
        }
        "/tail" => tail(&of_node(value("path")?), value("bytes")?.parse().map_err(io::Error::other)?),
        "/peer" => Ok(format!("{peer}\n").into_bytes()),
        "/own" => fs::read(value("path")?),
        "/write" => fs::write(value("path")?, value("text")?).map(|()| Vec::new()),
        "/fill" => Ok(fill(value("path")?, value("sync").is_ok())),
        "/variable" => std::env::var(value("name")?).map(String::into_bytes).map_err(io::Error::other),
        "/exit" => std::process::exit(number("code")?.into()),
        "/name" => names(value("of")?),
        "/connect" => TcpStream::connect_timeout(&place()?, PATIENCE).map(|_| Vec::new()),
        "/list" => list(value("path")?),
        "/processes" => processes(),
        "/kill" => kill(value("pid")?),
        "/http" => {
            let stream = TcpStream::connect_timeout(&place()?, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            ask(stream, value("path")?)
        }
        "/unix" => {
            let stream = UnixStream::connect(format!("{ROOT}{}", value("socket")?))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            ask(stream, value("path")?)
        }
        _ => Err(ErrorKind::NotFound.into()),
    }
}

/// A file of the node; where it is a link to another of the node's, that one.
fn of_node(path: &str) -> PathBuf {
    let file = PathBuf::from(format!("{ROOT}{path}"));
    match fs::read_link(&file) {
        Ok(target) if target.is_absolute() => Path::new(ROOT).join(target.strip_prefix("/").unwrap_or(&target)),
        _ => file,
    }
}

fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut text = Vec::new();
    // It may grow faster than it is read.
    file.take(bytes).read_to_end(&mut text)?;
    Ok(text)
}

/// Zeros until the disk is full.
fn fill(path: &str, sync: bool) -> Vec<u8> {
    let write = || -> io::Result<()> {
        // Asked again by whoever lost patience: it goes on.
        let mut file = fs::File::options().append(true).create(true).open(path)?;
        let full = loop {
            if let Err(full) = file.write_all(&[0; 1 << 20]) {
                break full;
            }
        };
        if sync {
            file.sync_all()?;
        }
        Err(full)
    };
    write().err().map(|error| error.to_string()).unwrap_or_default().into_bytes()
}

/// Asks the name servers of resolv.conf(5) for IPv4 addresses, with its search list; the standard library's resolver would need files that an
/// image of one program does not have.
fn names(name: &str) -> io::Result<Vec<u8>> {
    let settings = fs::read_to_string("/etc/resolv.conf")?;
    let of = |key: &str| settings.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix(' ')).next();
    let server: Ipv4Addr = of("nameserver").ok_or(ErrorKind::NotFound)?.trim().parse().map_err(io::Error::other)?;
    let searched = of("search").unwrap_or_default().split_whitespace().map(|domain| format!("{name}.{domain}"));
    for full in searched.chain([name.to_owned()]) {
        let addresses = addresses(&full, server)?;
        if !addresses.is_empty() {
            return Ok(addresses.iter().map(|address| format!("{address}\n")).collect::<String>().into_bytes());
        }
    }
    Err(io::Error::other(format!("{server} knows no {name}")))
}

/// One question of type A, class IN (RFC 1035, sections 4.1 and 3.2), asked up to three times.
fn addresses(name: &str, server: Ipv4Addr) -> io::Result<Vec<Ipv4Addr>> {
    let mut question = vec![0x6b, 0x73, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        question.push(label.len().try_into().map_err(io::Error::other)?);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(PATIENCE / 2))?;
    let mut buffer = [0; 1500];
    let mut asked = Err(ErrorKind::TimedOut.into());
    for _ in 0..3 {
        socket.send_to(&question, (server, 53))?;
        asked = socket.recv(&mut buffer);
        if asked.is_ok() {
            break;
        }
    }
    let answer = &buffer[..asked?];
    // Addresses are the records that end in: type A, class IN, some seconds to live, four bytes.
    let records = answer.get(question.len()..).unwrap_or_default();
    let address = |at: usize| {
        let record = records.get(at..at + 14)?;
        (record[..4] == [0, 1, 0, 1] && record[8..10] == [0, 4])
            .then(|| Ipv4Addr::new(record[10], record[11], record[12], record[13]))
    };
    Ok((0..records.len()).filter_map(address).collect())
}

fn list(path: &str) -> io::Result<Vec<u8>> {
    let mut text = String::new();
    for entry in fs::read_dir(format!("{ROOT}{path}"))? {
        text.push_str(&entry?.file_name().to_string_lossy());
        text.push('\n');
    }
    Ok(text.into_bytes())
}

fn processes() -> io::Result<Vec<u8>> {
    let mut text = String::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (Ok(comm), Ok(command)) =
            (fs::read_to_string(entry.path().join("comm")), fs::read(entry.path().join("cmdline")))
        else {
            // No process, or one that ended meanwhile.
            continue;
        };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{name} {} {}", comm.trim(), command.trim());
    }
    Ok(text.into_bytes())
}

/// Ends a service of the node with SIGKILL, through `cgroup.kill` of its cgroup (cgroup-v2, "Core Interface Files"): the standard
/// library has no kill(2), and moving the process into a cgroup of its own is refused across cgroup namespaces.
fn kill(pid: &str) -> io::Result<Vec<u8>> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    // Seen from the pod's namespace: `0::/../../kscratch/dockerd`.
    let path = text.trim().trim_start_matches("0::").replace("/..", "");
    if !path.starts_with("/kscratch/") {
        return Err(io::Error::other(format!("the process {pid} is no service of the node, its cgroup is {path}")));
    }
    fs::write(format!("{ROOT}/sys/fs/cgroup{path}/cgroup.kill"), "1")?;
    Ok(format!("killed {path}\n").into_bytes())
}

fn ask(mut stream: impl Read + Write, path: &str) -> io::Result<Vec<u8>> {
    // HTTP/1.0: the answer comes whole and unchunked, and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let status = String::from_utf8_lossy(&bytes[..end]).split(' ').nth(1).unwrap_or_default().to_owned();
    let body = bytes.split_off(end + 4);
    if status == "200" {
        return Ok(body);
    }
    Err(io::Error::other(format!("status {status}: {}", String::from_utf8_lossy(&body))))
}
