//! cluster.toml: what all machines of a cluster are told alike, held against the rules of the role metadata.
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use kscratch_metadata::{Endpoint, Errors, ProxyMode, RoleMetadata};
use serde::{Deserialize, Serialize};

use crate::kubernetes::Version;

/// The version of cluster.toml that this program reads and writes.
pub const VERSION: u32 = 1;

/// What all machines of a cluster are told alike. No secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the cluster, as it stands in kubeconfigs.
    pub name: String,
    /// API server, `HOST:PORT`.
    pub endpoint: String,
    /// Whether HOST is an address that the masters share: one that is alive has it, beside its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub virtual_endpoint: bool,
    /// Addresses of all pods.
    pub pod_range: String,
    /// Addresses of services.
    pub service_range: String,
    /// DNS domain of services.
    pub dns_domain: String,
    /// `routed` or `overlay`.
    pub mode: String,
    /// `nftables` or `iptables`; a cluster.toml from before there was a choice has the first.
    #[serde(default = "nftables")]
    pub proxy_mode: String,
    /// Time servers of all machines, names or addresses; one that is given its own has those instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub time_servers: Vec<String>,
    /// Version of Kubernetes that the cluster was made for, e.g. `1.37.2`, where it was known; a check holds images against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<String>,
}

fn nftables() -> String {
    ProxyMode::Nftables.word().to_owned()
}

impl Settings {
    /// Reads a cluster.toml and holds it against the rules.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, or breaks a rule.
    pub fn read(path: &Path) -> Result<Settings> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let settings: Settings = toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        if settings.version != VERSION {
            let what = format!("it has version {}, this program knows version {VERSION}", settings.version);
            return Err(anyhow!(what).context(format!("reading {}", path.display())));
        }
        settings.check("").with_context(|| format!("reading {}", path.display()))?;
        Ok(settings)
    }

    /// The settings again with the endpoint's port written out, if they break no rule of the role metadata. `prefix` is what a field's name
    /// has before it in the user's words, e.g. `--`.
    ///
    /// # Errors
    /// What is wrong, a line each.
    pub fn checked(mut self, prefix: &str) -> Result<Settings> {
        self.endpoint = self.check(prefix)?.to_string();
        Ok(self)
    }

    fn check(&self, prefix: &str) -> Result<Endpoint> {
        // The parser that the machines have is the judge; a master without secrets needs no more than this.
        let mut text = String::from("version = 1\nrole = \"master\"\n[cluster]\n");
        for (key, value) in [
            ("name", &self.name),
            ("endpoint", &self.endpoint),
            ("pod_range", &self.pod_range),
            ("service_range", &self.service_range),
            ("dns_domain", &self.dns_domain),
        ] {
            let _ = writeln!(text, "{key} = {}", toml::Value::String(value.clone()));
        }
        text.push_str("[network]\n");
        for (key, value) in [("mode", &self.mode), ("proxy_mode", &self.proxy_mode)] {
            let _ = writeln!(text, "{key} = {}", toml::Value::String(value.clone()));
        }
        let servers = self.time_servers.iter().cloned().map(toml::Value::String).collect();
        let _ = writeln!(text, "[time]\nservers = {}", toml::Value::Array(servers));
        let metadata = kscratch_metadata::parse(&text).map_err(|errors| told(&errors, prefix))?;
        if let Some(version) = &self.kubernetes {
            Version::parse(version).with_context(|| format!("{prefix}kubernetes"))?;
        }
        let endpoint = endpoint(&metadata)?;
        if self.virtual_endpoint {
            if endpoint.host.parse::<Ipv4Addr>().is_err() {
                let word = if prefix.is_empty() { "endpoint".to_owned() } else { format!("{prefix}endpoint") };
                bail!("{word}: {:?} is a name; give the IPv4 address that the masters are to share", endpoint.host);
            }
            let _ = writeln!(text, "[control_plane]\nvirtual_address = \"{}\"", endpoint.host);
            kscratch_metadata::parse(&text).map_err(|errors| told(&errors, prefix))?;
        }
        Ok(endpoint)
    }

    /// The address that the masters share, where they do.
    pub fn shared(&self) -> Option<Ipv4Addr> {
        let host = self.endpoint.split(':').next()?;
        host.parse().ok().filter(|_| self.virtual_endpoint)
    }

    /// `https://HOST:PORT`.
    pub fn server(&self) -> String {
        format!("https://{}", self.endpoint)
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let kubernetes = self.kubernetes.as_ref().map_or_else(String::new, |version| format!(", Kubernetes {version}"));
        format!(
            "{} {}, pods {}, services {}, {}, {}, {}{kubernetes}",
            if self.virtual_endpoint { "virtual endpoint" } else { "endpoint" },
            self.endpoint,
            self.pod_range,
            self.service_range,
            self.dns_domain,
            self.mode,
            self.proxy_mode
        )
    }
}

fn endpoint(metadata: &RoleMetadata) -> Result<Endpoint> {
    let cluster = metadata.cluster.as_ref();
    cluster.and_then(|cluster| cluster.endpoint.clone()).context("the settings name no endpoint")
}

/// How fields of the role metadata are called where they are given; what is not listed keeps its own name.
const WORDS: [(&str, &str); 24] = [
    ("cluster.name", "name"),
    ("cluster.endpoint", "endpoint"),
    ("cluster.pod_range", "pod-range"),
    ("cluster.service_range", "service-range"),
    ("cluster.dns_domain", "dns-domain"),
    ("node.name", "node"),
    ("node.pod_range", "pod-range"),
    ("node.labels", "label"),
    ("node.taints", "taint"),
    ("network.mode", "mode"),
    ("network.proxy_mode", "proxy-mode"),
    ("network.interface", "interface"),
    ("network.static.address", "address"),
    ("network.static.gateway", "gateway"),
    ("network.dns_servers", "dns-server"),
    ("network.mtu", "mtu"),
    ("time.servers", "time-server"),
    ("docker.mirrors", "docker-mirror"),
    ("docker.insecure_registries", "insecure-registry"),
    ("disks", "disk"),
    ("control_plane.names", "api-name"),
    ("control_plane.virtual_address", "virtual-endpoint"),
    ("control_plane.etcd.members", "etcd-member"),
    ("control_plane.etcd.join", "join-control-plane"),
];

/// What the parser found, in the user's words: options with `--` before them, or the keys of a file.
pub fn told(errors: &Errors, prefix: &str) -> anyhow::Error {
    let mut lines = Vec::new();
    for problem in errors.problems() {
        let field = problem.field.split('[').next().unwrap_or_default();
        let known = WORDS.iter().find(|(known, _)| field == *known || field.starts_with(&format!("{known}.")));
        let word = match known {
            // A list has them under the same name, and which of several it is.
            Some(("disks", _)) if prefix.is_empty() => problem.field.clone(),
            Some((_, word)) if prefix.is_empty() => word.replace('-', "_"),
            Some((_, word)) => format!("{prefix}{word}"),
            None => problem.field.clone(),
        };
        lines.push(format!("{word}: {}; {}", problem.what, problem.fix));
    }
    anyhow!(lines.join("\n"))
}
