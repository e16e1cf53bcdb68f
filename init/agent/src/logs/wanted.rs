//! The file that PID 1 renders for `logs`, `/run/kscratch/logs.json`, as types; an unknown field is refused.
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// What is sent where.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Every line goes to each of them; at most eight.
    pub servers: Vec<Server>,
    /// PEM file of the authorities that servers with TLS prove themselves by.
    pub authorities: PathBuf,
    /// What this machine proves itself by to servers with TLS that ask for it.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// Folder of the services' logs, `NAME.log`.
    pub folder: PathBuf,
    /// Services whose logs are not sent.
    #[serde(default)]
    pub except: BTreeSet<String>,
    /// Where it is kept what each server was sent.
    pub places: PathBuf,
    /// Bytes that wait for a server at the most, each for itself.
    pub room: usize,
    /// Seconds that the machine may take to get its name, before its lines are sent without.
    pub name_within_seconds: u64,
    /// An empty file, written at once: nobody waits for a server.
    pub ready: PathBuf,
}

/// A certificate of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// PEM file of the certificate, and of those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// Who takes lines.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// How it takes them.
    pub protocol: Protocol,
    /// Address or name.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How lines travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// One after the other, in clear.
    Tcp,
    /// One after the other, to a server that proves itself.
    Tls,
    /// A datagram each.
    Udp,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Tls => "tls",
            Protocol::Udp => "udp",
        };
        write!(f, "{protocol}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::Logs;

    #[test]
    fn the_file_is_read_and_nothing_unknown_is_passed_over() {
        let text = r#"{"servers": [{"protocol": "tls", "host": "logs.lab", "port": 6514}, {"protocol": "udp", "host": "10.0.0.5", "port": 5170}],
            "authorities": "/a.crt", "identity": {"certificate": "/c.crt", "key": "/c.key"}, "folder": "/l", "except": ["logs"], "places": "/p.json", "room": 4194304, "name_within_seconds": 60, "ready": "/r"}"#;
        let mut whole: serde_json::Value = serde_json::from_str(text).unwrap();
        let read: Logs = serde_json::from_value(whole.clone()).unwrap();
        let servers: Vec<String> = read.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["tls://logs.lab:6514", "udp://10.0.0.5:5170"]);
        let identity = read.identity.map(|identity| (identity.certificate, identity.key));
        assert_eq!(identity, Some(("/c.crt".into(), "/c.key".into())));
        whole["surprise"] = 1.into();
        assert!(serde_json::from_value::<Logs>(whole).is_err_and(|error| error.to_string().contains("surprise")));
    }
}
