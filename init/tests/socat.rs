//! Runs the port forwarder as cri-dockerd does, against a server of the test's own.
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

#[test]
fn a_question_goes_in_and_the_answer_comes_out() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let pod = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut question = String::new();
        // Until the other side closes its half; the answer goes out after that.
        stream.read_to_string(&mut question).unwrap();
        stream.write_all(question.to_uppercase().as_bytes()).unwrap();
    });
    let mut socat = Command::new(env!("CARGO_BIN_EXE_kscratch-socat"))
        .args(["-", &format!("TCP4:localhost:{port}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let question = "all of it, ".repeat(10_000);
    socat.stdin.take().unwrap().write_all(question.as_bytes()).unwrap();
    let output = socat.wait_with_output().unwrap();
    pod.join().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), question.to_uppercase());
}

#[test]
fn a_closed_port_is_told() {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let output = Command::new(env!("CARGO_BIN_EXE_kscratch-socat"))
        .args(["-", &format!("TCP4:localhost:{free}")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, format!("connecting to port {free} of the pod: Connection refused (os error 111)\n"));
}
