//! Joins standard input and output to a TCP port of the loopback address: what `kubectl port-forward` needs inside a pod's network.
//!
//! cri-dockerd runs `nsenter -t PID -n socat - TCP4:localhost:PORT`. This program knows that one call and nothing else: the real socat
//! could listen, run programs and open devices, which has no place on a machine without a shell.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const USAGE: &str = "usage: socat - TCP4:localhost:PORT";
/// Once nobody sends any more, the pod may stay silent for so long before it is left.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match port(&arguments).and_then(join) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever runs this shows it to whoever asked for the port.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn port(arguments: &[String]) -> io::Result<u16> {
    let wrong = || io::Error::new(ErrorKind::InvalidInput, USAGE);
    let [input, address] = arguments else { return Err(wrong()) };
    let port = address.strip_prefix("TCP4:localhost:").filter(|_| input == "-").ok_or_else(wrong)?;
    port.parse().map_err(|_| wrong())
}

/// Ends when the pod has closed its side.
fn join(port: u16) -> io::Result<()> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| io::Error::new(error.kind(), format!("connecting to port {port} of the pod: {error}")))?;
    let sender = stream.try_clone()?;
    thread::spawn(move || {
        // Whichever way it ends, nothing more comes from here.
        let _ = copy(&mut io::stdin().lock(), &mut &sender);
        let _ = sender.set_read_timeout(Some(PATIENCE));
        let _ = sender.shutdown(Shutdown::Write);
    });
    copy(&mut &stream, &mut io::stdout().lock())
}

/// Every piece at once, as it comes; an end without a word is an end.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset) => return Ok(()),
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..length])?;
        to.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::{copy, port};

    #[track_caller]
    fn check(arguments: &[&str], want: Option<u16>) {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        assert_eq!(port(&arguments).ok(), want, "{arguments:?}");
    }

    #[test]
    fn one_call_is_understood() {
        check(&["-", "TCP4:localhost:8080"], Some(8080));
        check(&["-", "TCP4:localhost:80800"], None);
        check(&["-", "TCP4:10.0.0.1:8080"], None);
        check(&["-", "EXEC:/bin/sh"], None);
        check(&["TCP4-LISTEN:80", "TCP4:localhost:80"], None);
        check(&["-"], None);
        check(&["-", "TCP4:localhost:80", "-"], None);
    }

    #[test]
    fn bytes_go_as_they_come() {
        let (mut from, mut to) = (&b"a\0b\n"[..], Vec::new());
        copy(&mut from, &mut to).unwrap();
        assert_eq!(to, b"a\0b\n");
    }
}
