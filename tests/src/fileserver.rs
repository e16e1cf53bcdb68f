//! Serves the files of a folder over HTTP to machines on QEMU's user network, and may fail at first as servers do.
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// How a request ends that is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server says that it is busy (503).
    Busy,
    /// The connection breaks in the middle of the file.
    BreaksOff,
}

/// A server, which goes on until the test ends.
#[derive(Debug)]
pub struct FileServer {
    address: SocketAddrV4,
    requests: Arc<Mutex<Vec<String>>>,
}

/// What a server's threads share.
struct Files {
    folder: PathBuf,
    /// The file whose first requests fail, and how.
    fails: String,
    faults: Mutex<Vec<Fault>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FileServer {
    /// Serves `folder`, which need not be there yet, to machines on QEMU's user network. The first requests for the file `fails` end by `faults`, one
    /// after the other.
    pub fn start(folder: &Path, fails: &str, faults: &[Fault]) -> FileServer {
        let server = Self::at(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), folder, fails, faults);
        // As such a guest reaches it.
        FileServer { address: SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 2), server.address.port()), ..server }
    }

    /// The same at an address of this host, in the network namespace of who calls it.
    pub fn at(address: SocketAddrV4, folder: &Path, fails: &str, faults: &[Fault]) -> FileServer {
        let listener = TcpListener::bind(address).expect("binding a server's port");
        let port = listener.local_addr().expect("asking for a server's port").port();
        let requests = Arc::default();
        let files = Files {
            folder: folder.to_owned(),
            fails: fails.to_owned(),
            faults: Mutex::new(faults.to_vec()),
            requests: Arc::clone(&requests),
        };
        let files = Arc::new(files);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let files = Arc::clone(&files);
                // A guest that is switched off in the middle breaks its connection.
                thread::spawn(move || files.answer(stream));
            }
        });
        FileServer { address: SocketAddrV4::new(*address.ip(), port), requests }
    }

    /// The folder's URL, as a guest reaches it.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The names that were asked for, in order.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Files {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        // Names of a folder's own files alone.
        let bytes = if name.contains('/') { None } else { fs::read(self.folder.join(&name)).ok() };
        let Some(bytes) = bytes else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = (name == self.fails && !faults.is_empty()).then(|| faults.remove(0));
        drop(faults);
        if fault == Some(Fault::Busy) {
            return stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len())?;
        // Firmware asks first how long the file is.
        if request.starts_with("HEAD ") {
            return Ok(());
        }
        let sent = if fault == Some(Fault::BreaksOff) { bytes.len() / 2 } else { bytes.len() };
        stream.write_all(&bytes[..sent])
    }
}
