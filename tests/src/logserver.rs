//! A [`LogServer`] takes the lines of JSON that a machine sends, over as many connections as it makes.
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A server on this host's loopback address, until the test ends.
#[derive(Debug)]
pub struct LogServer {
    /// Its port.
    pub port: u16,
    lines: Receiver<String>,
}

impl LogServer {
    /// Begins to listen.
    #[track_caller]
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listening for a machine's logs");
        let port = listener.local_addr().expect("a listener has an address").port();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
                });
            }
        });
        Self { port, lines }
    }

    /// Waits for a line of this source whose message has this in it, and gives it; those before it are passed over.
    #[track_caller]
    pub fn wait_for(&self, source: &str, message: &str, bound: Duration) -> Value {
        let end = Instant::now() + bound;
        let mut last = Value::Null;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line of {source} with {message:?} came; the last one of all was {last}");
            };
            last = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let said = last["message"].as_str().unwrap_or_else(|| panic!("{line}"));
            if last["source"] == source && said.contains(message) {
                return last;
            }
        }
    }
}
