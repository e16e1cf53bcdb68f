//! [`Qmp`] is a conversation in QEMU's machine protocol: commands in, answers and events out, each bounded in time.
//!
//! The protocol: QEMU's docs/interop/qmp-spec. The server greets, the client asks for no capabilities, then every command carries an
//! `id` that its answer repeats; events stand between answers.
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error as IoError, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::Error;

/// Something that QEMU told without being asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it came, since the machine's start, by the host's clock.
    pub at: Duration,
    /// Its name, e.g. `SHUTDOWN`.
    pub name: String,
    /// What belongs to it; an empty object where QEMU sends nothing.
    pub data: Value,
}

/// One conversation.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    heard: Heard,
    next: u64,
}

#[derive(Debug, Clone)]
struct Heard(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    greeted: bool,
    replies: BTreeMap<u64, Value>,
    events: Vec<Event>,
    closed: bool,
}

impl Qmp {
    /// Takes the greeting on a connected socket and leaves capability negotiation. Events are stamped from `start`.
    ///
    /// # Errors
    /// [`Error::Qmp`] if the other end closes, says nothing within `bound`, or does not speak QMP.
    pub fn greet(stream: UnixStream, start: Instant, bound: Duration) -> Result<Qmp, Error> {
        let failed = |source| Error::Qmp { what: "the greeting".to_owned(), source };
        let heard = Heard(Arc::default());
        let reader = BufReader::new(stream.try_clone().map_err(failed)?);
        thread::Builder::new()
            .name("qmp".to_owned())
            .spawn({
                let heard = heard.clone();
                move || heard.listen(reader, start)
            })
            .map_err(failed)?;
        heard.wait(bound, |state| state.greeted.then_some(())).map_err(failed)?;
        let mut qmp = Qmp { stream, heard, next: 0 };
        qmp.execute("qmp_capabilities", json!({}), bound)?;
        Ok(qmp)
    }

    /// Executes a command and gives what it returns.
    ///
    /// # Errors
    /// [`Error::Refused`] with QEMU's words, [`Error::Qmp`] if no answer comes within `bound`.
    pub fn execute(&mut self, command: &str, arguments: Value, bound: Duration) -> Result<Value, Error> {
        let failed = |source| Error::Qmp { what: command.to_owned(), source };
        let id = self.next;
        self.next += 1;
        let mut request = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        request.push('\n');
        self.stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut reply = self.heard.wait(bound, |state| state.replies.remove(&id)).map_err(failed)?;
        if let Some(error) = reply.get("error") {
            let word = |key| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (class, description) = (word("class"), word("desc"));
            return Err(Error::Refused { command: command.to_owned(), class, description });
        }
        Ok(reply.get_mut("return").map(Value::take).unwrap_or_default())
    }

    /// Every event so far.
    pub fn events(&self) -> Vec<Event> {
        self.heard.state().events.clone()
    }

    /// Waits for an event of this name, of before or of later; `None` if the other end closes or `bound` passes first.
    pub fn wait_for_event(&self, name: &str, bound: Duration) -> Option<Event> {
        self.heard.wait(bound, |state| state.events.iter().find(|event| event.name == name).cloned()).ok()
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // Ends the listening thread; a failure means that the other end is gone already, which ends it too.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

impl Heard {
    fn listen(&self, reader: impl BufRead, start: Instant) {
        for line in reader.lines() {
            let Ok(line) = line else { break };
            let Ok(message) = serde_json::from_str::<Value>(&line) else {
                break;
            };
            self.take(message, start.elapsed());
            self.0.1.notify_all();
        }
        self.state().closed = true;
        self.0.1.notify_all();
    }

    fn take(&self, mut message: Value, at: Duration) {
        let mut state = self.state();
        if message.get("QMP").is_some() {
            state.greeted = true;
        } else if let Some(name) = message.get("event").and_then(Value::as_str) {
            let name = name.to_owned();
            let data = message.get_mut("data").map_or_else(|| json!({}), Value::take);
            state.events.push(Event { at, name, data });
        } else if let Some(id) = message.get("id").and_then(Value::as_u64) {
            state.replies.insert(id, message);
        }
    }

    fn wait<T>(&self, bound: Duration, mut look: impl FnMut(&mut State) -> Option<T>) -> Result<T, IoError> {
        let deadline = Instant::now() + bound;
        let mut state = self.state();
        loop {
            if let Some(found) = look(&mut state) {
                return Ok(found);
            }
            if state.closed {
                return Err(IoError::new(ErrorKind::UnexpectedEof, "QEMU closed the connection"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(IoError::new(ErrorKind::TimedOut, format!("nothing within {bound:?}")));
            }
            state = self.0.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A server that greets and then answers each command with the next of these lines, `ID` standing for the command's id.
    fn serve(script: &'static [&'static str]) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            theirs.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n").unwrap();
            let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines();
            for answer in script {
                let Some(Ok(line)) = lines.next() else { return };
                let request: Value = serde_json::from_str(&line).unwrap();
                let answer = answer.replace("ID", &request["id"].to_string());
                theirs.write_all(answer.as_bytes()).unwrap();
            }
        });
        ours
    }

    #[test]
    fn answers_and_events_are_told_apart() {
        let stream = serve(&[
            "{\"return\": {}, \"id\": ID}\r\n",
            "{\"event\": \"STOP\", \"timestamp\": {}}\r\n{\"return\": {\"running\": false}, \"id\": ID}\r\n",
            "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such thing\"}, \"id\": ID}\r\n",
            "not json\n",
        ]);
        let mut qmp = Qmp::greet(stream, Instant::now(), SECOND).unwrap();
        assert_eq!(qmp.execute("query-status", json!({}), SECOND).unwrap(), json!({ "running": false }));
        assert_eq!(qmp.wait_for_event("STOP", SECOND).unwrap().data, json!({}));
        assert!(qmp.wait_for_event("RESET", Duration::from_millis(10)).is_none());
        let error = qmp.execute("dance", json!({}), SECOND).unwrap_err().to_string();
        assert_eq!(error, "QEMU refused `dance`: CommandNotFound: no such thing");
        assert!(matches!(qmp.execute("stop", json!({}), SECOND), Err(Error::Qmp { .. })));
        assert_eq!(qmp.events().len(), 1);
    }

    #[test]
    fn silence_ends_at_the_bound() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let bound = Duration::from_millis(30);
        let Err(Error::Qmp { source, .. }) = Qmp::greet(ours, Instant::now(), bound) else { panic!("no one greeted") };
        assert_eq!(source.kind(), ErrorKind::TimedOut);
    }
}
