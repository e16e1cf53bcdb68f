//! Asks a cluster's API server as its admin, or as nobody, with curl.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::program::{SHORT, run};

/// An API server, and who asks it.
#[derive(Debug)]
pub struct Api {
    server: String,
    folder: tempfile::TempDir,
    patience: Duration,
}

/// How long one answer may take; the machines are emulated.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer's status and text.
pub type Answer = (u16, String);

impl Api {
    /// Reads server and credentials out of a kubeconfig.
    pub fn of(kubeconfig: &Path) -> Self {
        let text = fs::read_to_string(kubeconfig).expect("reading the kubeconfig");
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("{name} is not in the kubeconfig")).trim_matches('"').to_owned()
        };
        let folder = tempfile::tempdir().expect("making a folder");
        for (name, file) in
            [("certificate-authority-data", "ca"), ("client-certificate-data", "cert"), ("client-key-data", "key")]
        {
            let bytes = STANDARD.decode(field(name)).expect("reading base64");
            fs::write(folder.path().join(file), bytes).expect("writing credentials");
        }
        Self { server: field("server"), folder, patience: PATIENCE }
    }

    /// The same server, asked with the certificate and key in a PEM text.
    #[must_use]
    pub fn as_certificate(&self, pem: &str) -> Self {
        let folder = tempfile::tempdir().expect("making a folder");
        fs::copy(self.file("ca"), folder.path().join("ca")).expect("copying the CA's certificate");
        for file in ["cert", "key"] {
            fs::write(folder.path().join(file), pem).expect("writing credentials");
        }
        Self { server: self.server.clone(), folder, patience: self.patience }
    }

    /// The same server, which may take so many seconds for an answer.
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Its URL, without a path.
    pub fn server(&self) -> &str {
        &self.server
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Asks as the admin. The server's certificate is held against the cluster's CA.
    pub fn get(&self, path: &str) -> Answer {
        self.ask_as_oneself(path, &[])
    }

    /// Changes an object by a JSON merge patch (RFC 7396).
    pub fn patch(&self, path: &str, patch: &str) -> Answer {
        let header = "Content-Type: application/merge-patch+json";
        self.ask_as_oneself(path, &["--request", "PATCH", "--header", header, "--data", patch])
    }

    /// Makes an object.
    pub fn post(&self, path: &str, object: &str) -> Answer {
        self.ask_as_oneself(path, &["--header", "Content-Type: application/json", "--data", object])
    }

    /// Deletes an object; its answer may come before its end.
    pub fn delete(&self, path: &str) -> Answer {
        self.ask_as_oneself(path, &["--request", "DELETE"])
    }

    fn ask_as_oneself(&self, path: &str, more: &[&str]) -> Answer {
        let [cert, key] = ["cert", "key"].map(|name| self.file(name).display().to_string());
        self.ask(path, &[&["--cert", &cert, "--key", &key], more].concat())
    }

    /// Asks without any credentials.
    pub fn get_as_nobody(&self, path: &str) -> Answer {
        self.ask(path, &[])
    }

    fn ask(&self, path: &str, more: &[&str]) -> Answer {
        let mut curl = Command::new("curl");
        let patience = self.patience.as_secs().to_string();
        curl.args(["--silent", "--show-error", "--max-time", &patience, "--write-out", "\n%{http_code}", "--cacert"]);
        curl.arg(self.file("ca")).args(more).arg(format!("{}{path}", self.server));
        // Where there is no curl, `run` says so; `apt-get install curl` helps.
        let said = run(curl, SHORT);
        let (text, code) = said.stdout.rsplit_once('\n').unwrap_or_default();
        match code.parse() {
            Ok(code) if said.code == 0 => (code, text.to_owned()),
            _ => (0, said.stderr),
        }
    }

    /// Asks until the answer is as wanted.
    #[track_caller]
    pub fn wait_for(&self, path: &str, within: Duration, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let end = Instant::now() + within;
        loop {
            let answer = self.get(path);
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < end, "{path} answers after {} s: {answer:?}", within.as_secs());
            thread::sleep(Duration::from_secs(2));
        }
    }

    /// The items of a list.
    #[track_caller]
    pub fn items(&self, path: &str) -> Vec<Value> {
        let (code, text) = self.get(path);
        assert_eq!(code, 200, "{path}: {text}");
        let list: Value = serde_json::from_str(&text).expect("reading a list");
        list["items"].as_array().expect("a list has items").clone()
    }
}
