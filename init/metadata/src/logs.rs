//! The `[logs]` table: to which servers a machine sends what its services, its kernel and its init say.
use std::fmt;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::certificate;
use crate::read::{Fault, Reader, Table, fault};
use crate::secret::{self, Secret};
use crate::syntax;

/// Every line goes to every server, and waits for each of them by itself.
const MOST: usize = 4;

/// How a server is written.
const FORM: &str = "write it like tcp://10.0.0.5:5170, tls://logs.example.org:6514 or udp://10.0.0.5:5170";

/// How the authorities of servers are given.
const CA: &str = "paste the certificate of the authority that signs the servers' between ''' and '''";

/// How this machine's own certificate is given.
const OWN: &str = "paste the certificate that servers know this machine by between ''' and ''', and below it those that lead to its authority";

/// Where a machine's logs go, besides its own disk: one JSON object a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Logs {
    /// Servers, at most four, as `tcp://HOST:PORT`, `tls://HOST:PORT` or `udp://HOST:PORT`; every line goes to each of them. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", extend("maxItems" = MOST))]
    pub to: Vec<LogServer>,
    /// PEM certificates of the authorities that sign the certificates of the `tls://` servers. Default: the public authorities in the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// PEM certificate by which this machine proves itself to `tls://` servers that ask for one, and below it those that lead to its authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Its private key, PEM (PKCS#8). Secret: it may stand in the secrets file instead.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "secret::expose_option")]
    #[schemars(with = "Option<String>")]
    pub key: Option<Secret>,
}

/// A server that takes lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogServer {
    /// How it takes them.
    pub protocol: LogProtocol,
    /// IPv4 address or DNS name.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How lines travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogProtocol {
    /// One after the other, in clear.
    Tcp,
    /// One after the other, to a server that proves itself.
    Tls,
    /// A datagram each, which may get lost.
    Udp,
}

impl LogProtocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Tls, Self::Udp];

    /// The word before `://`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for LogServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.protocol.word(), self.host, self.port)
    }
}

impl Serialize for LogServer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the table.
pub(crate) fn logs(reader: &mut Reader<'_>, mut table: Table<'_>) -> Logs {
    let to = reader.take_strings(&mut table, "to", server);
    let ca = reader.take_string(&mut table, "ca", |text| certificate::certificates(text, CA));
    let certificate = reader.take_string(&mut table, "certificate", own);
    let key = reader.take_string(&mut table, "key", certificate::private_key);
    let (to_field, ca_field) = (table.path_of("to"), table.path_of("ca"));
    if to.len() > MOST {
        let what = format!("{} servers, and every line goes to each of them", to.len());
        reader.fault_at(&to_field, fault(what, format!("name at most {MOST}")));
    }
    if ca.is_some() && !speak_tls(&to) && !reader.faulty_below(&to_field) {
        let fix = "write tls:// before a server that is to prove itself by it, or remove it";
        reader.fault_at(&ca_field, fault("no server of logs.to speaks TLS", fix));
    }
    reader.finish(&table);
    Logs { to, ca, certificate, key }
}

/// Certificate and key belong together, and are for servers with TLS. The key may have come from the secrets file.
pub(crate) fn check(reader: &mut Reader<'_>, logs: &Logs) {
    const CERTIFICATE: &str = "logs.certificate";
    const KEY: &str = "logs.key";
    match (reader.given(CERTIFICATE), reader.given(KEY)) {
        (true, false) => {
            let fix = "add its `key`, here or as `logs.key` of the secrets file";
            reader.fault_at(CERTIFICATE, fault("has no key", fix));
        }
        (false, true) => {
            let fix = "add its `certificate` to [logs] of the role file, or remove it";
            reader.fault_at(KEY, fault("is the key of no certificate", fix));
        }
        (true, true) if !speak_tls(&logs.to) && !reader.faulty_below("logs.to") => {
            let fix = "write tls:// before a server that is to know this machine by it, or remove it and its key";
            reader.fault_at(CERTIFICATE, fault("no server of logs.to speaks TLS", fix));
        }
        _ => {}
    }
}

fn speak_tls(servers: &[LogServer]) -> bool {
    servers.iter().any(|server| server.protocol == LogProtocol::Tls)
}

fn own(text: &str) -> Result<String, Fault> {
    if text.contains("PRIVATE KEY-----") {
        return Err(fault("holds a private key", "move it to `key`, which is never shown"));
    }
    certificate::certificates(text, OWN)
}

fn server(text: &str) -> Result<LogServer, Fault> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(fault(format!("{text:?} names no protocol"), FORM));
    };
    let protocol = LogProtocol::ALL.into_iter().find(|protocol| protocol.word() == scheme);
    let protocol = protocol.ok_or_else(|| fault(format!("{scheme:?} is no protocol of logs"), FORM))?;
    if rest.contains('@') {
        // Never shown: it may hold a password.
        return Err(fault("holds a user name", "leave it out: a server of logs takes none"));
    }
    if rest.contains(['/', '?', '#']) {
        return Err(fault(format!("{text:?} has a path"), FORM));
    }
    match syntax::host_and_port(rest)? {
        (host, Some(port)) => Ok(LogServer { protocol, host, port }),
        (_, None) => Err(fault(format!("{text:?} names no port"), FORM)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{LogProtocol, LogServer, server};

    #[test]
    fn a_server_is_protocol_host_and_port() {
        for (text, protocol, host, port) in [
            ("tcp://10.0.0.5:5170", LogProtocol::Tcp, "10.0.0.5", 5170),
            ("tls://Logs.Example:6514", LogProtocol::Tls, "logs.example", 6514),
            ("udp://collector:1", LogProtocol::Udp, "collector", 1),
        ] {
            assert_eq!(server(text).unwrap(), LogServer { protocol, host: host.into(), port }, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_server_survives_its_text(which in 0..3_usize, host in "[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z]{1,5})?", port in 1..=u16::MAX) {
            let one = LogServer { protocol: LogProtocol::ALL[which], host, port };
            prop_assert_eq!(server(&one.to_string()).ok(), Some(one));
        }

        #[test]
        fn what_is_taken_is_taken_again(text in "(tcp|tls|udp|http)?(://)?[ -~]{0,20}", wild in any::<String>()) {
            for text in [text, wild] {
                if let Ok(one) = server(&text) {
                    prop_assert_eq!(server(&one.to_string()).ok(), Some(one));
                }
            }
        }
    }
}
