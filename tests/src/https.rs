//! A real server of files over TLS, `openssl s_server`, with a certificate that is its own authority.
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::program::{self, SHORT};

/// Serves a folder until it is dropped; each file holds a whole HTTP answer.
#[derive(Debug)]
pub struct Server {
    process: Child,
    /// Where it listens, on all addresses of this host.
    pub port: u16,
}

/// Makes a certificate for an address, as `NAME.crt` and `NAME.key` in the folder.
#[track_caller]
pub fn certificate(folder: &Path, name: &str, address: &str) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=IP:{address}")]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    command.args(["-out", &format!("{name}.crt"), "-keyout", &format!("{name}.key")]).current_dir(folder);
    program::run(command, SHORT).succeeded();
}

impl Server {
    /// Serves with the certificate `NAME.crt`; port 0 is any that is free.
    #[track_caller]
    pub fn start(folder: &Path, name: &str, port: u16) -> Server {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        let mut process = Command::new("openssl")
            .args(["s_server", "-HTTP", "-accept", &port.to_string(), "-cert", &certificate, "-key", &key])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting openssl");
        let lines = BufReader::new(process.stdout.take().expect("its output is a pipe")).lines();
        let accept = lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("ACCEPT")?.to_owned()));
        let accept = accept.expect("openssl listens nowhere");
        // It names the port only where it chose it.
        let chosen = accept.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Server { process, port: chosen.unwrap_or(port) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes a file whose text the server answers with.
#[track_caller]
pub fn page(folder: &Path, name: &str, text: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{text}");
    fs::write(folder.join(name), answer).expect("writing a page");
}
