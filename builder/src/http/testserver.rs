//! Files in memory become an HTTP server on the loopback address, with the faults that a test asks for.
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server does wrong, each once unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Closes the connection after so many bytes of a body.
    BreakAfter(usize),
    /// Answers 503.
    Busy,
    /// Ignores ranges, for ever.
    NoRanges,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) faults: Vec<Fault>,
    /// `path range` of each request.
    pub(crate) requests: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || drop(answer(stream, &shared)));
            }
        });
        Server { url, state }
    }

    pub(crate) fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes.into());
    }

    pub(crate) fn fail(&self, faults: &[Fault]) {
        self.state.lock().unwrap().faults = faults.to_vec();
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut from = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(range) = line.to_ascii_lowercase().trim().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse::<usize>().ok();
        }
    }
    let (body, fault) = {
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{path} {}", from.map_or("all".to_owned(), |from| from.to_string())));
        let fault = match state.faults.first().copied() {
            Some(Fault::NoRanges) => Some(Fault::NoRanges),
            Some(fault) => {
                state.faults.remove(0);
                Some(fault)
            }
            None => None,
        };
        (state.files.get(&path).cloned(), fault)
    };
    if fault == Some(Fault::NoRanges) {
        from = None;
    }
    let (status, headers, body) = match (body, fault) {
        (_, Some(Fault::Busy)) => ("503 Busy", String::new(), Vec::new()),
        (None, _) => ("404 Not Found", String::new(), Vec::new()),
        (Some(body), _) => match from {
            Some(from) if from < body.len() => {
                let range = format!("Content-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
                ("206 Partial Content", range, body[from..].to_vec())
            }
            _ => ("200 OK", String::new(), body),
        },
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}Connection: close\r\n\r\n", body.len())?;
    match fault {
        Some(Fault::BreakAfter(bytes)) => stream.write_all(&body[..bytes.min(body.len())]),
        _ => stream.write_all(&body),
    }
}
