//! A program for a privileged test pod: it lets a test look at a node, and end its processes, over HTTP from outside.
//!
//! The product has neither shell nor debug hook, so a test brings its own eyes as a pod (hostNetwork, hostPID, privileged).
//! `rustc` alone compiles this file, statically: it uses nothing but the standard library.
//!
//! ```text
//! GET /read?path=PATH            a file of the node
//! GET /list?path=PATH            names in a folder of the node, one a line
//! GET /processes                 `PID NAME COMMAND LINE`, one a line
//! GET /kill?pid=PID              SIGKILL to a service of the node, named by its process
//! GET /http?port=N&path=PATH     what a port of the node's loopback address answers
//! GET /unix?socket=S&path=PATH   what a unix socket of the node answers
//! ```
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

const PORT: u16 = 9999;
/// The node's root, as its PID 1 sees it.
const ROOT: &str = "/proc/1/root";
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    for stream in TcpListener::bind(("0.0.0.0", PORT))?.incoming() {
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
    let (status, body) = match answer(target) {
        Ok(body) => ("200 OK", body),
        Err(error) => ("500 Internal Server Error", format!("{target}: {error}\n").into_bytes()),
    };
    write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

fn answer(target: &str) -> io::Result<Vec<u8>> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let value = |key: &str| query.get(key).copied().ok_or_else(|| io::Error::other(format!("`{key}` is missing")));
    match path {
        "/read" => fs::read(format!("{ROOT}{}", value("path")?)),
        "/list" => list(value("path")?),
        "/processes" => processes(),
        "/kill" => kill(value("pid")?),
        "/http" => {
            let port = value("port")?.parse().map_err(io::Error::other)?;
            let stream = TcpStream::connect(("127.0.0.1", port))?;
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
    if status.starts_with('2') {
        return Ok(body);
    }
    Err(io::Error::other(format!("status {status}: {}", String::from_utf8_lossy(&body))))
}
