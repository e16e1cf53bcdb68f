//! Plans what sends a machine's logs away: the agent's verb `logs`, with what it reads, where the metadata name a server.
use kscratch_metadata::{LogServer, Logs};
use serde_json::{Value, json};

use super::{Step, services};

/// Bytes that wait for a server at the most, each for itself.
const ROOM: u32 = 4 << 20;
/// How long it waits for the machine's name, and so for the network: a boot that gets no further has its lines sent all the same.
const NAME_WITHIN_SECONDS: u32 = 60;
/// Certificates of the public authorities in the image.
const PUBLIC: &str = "/etc/ssl/certs/ca-certificates.crt";

/// `None` where no server is named.
pub(super) fn steps(logs: &Logs) -> Option<Vec<Step>> {
    if logs.to.is_empty() {
        return None;
    }
    let own = |path: &str| Step::Directory { path: path.to_owned(), mode: 0o700, owner: services::LOGS_USER };
    let file = |path: &str, text: String| Step::File {
        path: path.to_owned(),
        contents: text.into_bytes(),
        mode: 0o644,
        owner: 0,
    };
    let mut steps = vec![own(services::LOGS_RUN), own(services::LOGS_STATE)];
    steps.extend(logs.ca.clone().map(|ca| file(services::LOGS_CA, ca)));
    if let (Some(certificate), Some(key)) = (&logs.certificate, &logs.key) {
        steps.push(file(services::LOGS_CERTIFICATE, certificate.clone()));
        let (path, contents) = (services::LOGS_KEY.to_owned(), key.expose().as_bytes().to_vec());
        steps.push(Step::File { path, contents, mode: 0o600, owner: services::LOGS_USER });
    }
    steps.push(file(services::LOGS, format!("{:#}\n", contract(logs))));
    steps.push(Step::Service(services::logs()));
    Some(steps)
}

fn contract(logs: &Logs) -> Value {
    let server =
        |server: &LogServer| json!({ "protocol": server.protocol.word(), "host": server.host, "port": server.port });
    let mut contract = json!({
        "servers": logs.to.iter().map(server).collect::<Vec<_>>(),
        "authorities": logs.ca.as_ref().map_or(PUBLIC, |_| services::LOGS_CA),
        "folder": "/var/log/kscratch",
        // Its own lines are few, and among init's: the console shows them.
        "except": ["logs"],
        "places": format!("{}/places.json", services::LOGS_STATE),
        "room": ROOM,
        "name_within_seconds": NAME_WITHIN_SECONDS,
        "ready": format!("{}/ready", services::LOGS_RUN),
    });
    if logs.certificate.is_some() {
        contract["identity"] = json!({ "certificate": services::LOGS_CERTIFICATE, "key": services::LOGS_KEY });
    }
    contract
}
