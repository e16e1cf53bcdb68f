//! Asks a machine's pod until it answers.
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use kscratch_qemu::Vm;

/// Between two questions to the pod: short against what is measured, and next to no work for the guest.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// The end of what the machine said.
pub fn console(vm: &Vm) -> String {
    let lines = vm.lines();
    let tail = lines[lines.len().saturating_sub(30)..].iter().map(ToString::to_string);
    tail.collect::<Vec<_>>().join("\n")
}

/// When the pod on this port of the guest answers, since QEMU's start.
///
/// # Errors
/// It does not within `bound`, with the last that went wrong; or QEMU has ended.
pub fn answered(vm: &Vm, guest: u16, bound: Duration) -> Result<Duration> {
    let port = vm.forwarded(guest).context("the pod's port is not forwarded")?;
    let deadline = Instant::now() + bound;
    let mut last = anyhow!("it was never asked");
    while Instant::now() < deadline {
        ensure!(vm.status().is_none(), "QEMU has ended: {}", vm.stderr());
        match ask(port) {
            Ok(()) => return Ok(vm.age()),
            Err(error) => last = error,
        }
        // QEMU's network accepts, and closes again while nobody listens in the guest: there is nothing to wait on.
        thread::sleep(PAUSE);
    }
    Err(last.context(format!("the pod did not answer within {} s", bound.as_secs())))
}

/// One GET that is answered with 200.
fn ask(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "it answered with the status `{status}`");
    Ok(())
}
