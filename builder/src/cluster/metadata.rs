//! Renders the role metadata of one machine out of a cluster's folder, with the secrets that its role needs and no other.
use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use kscratch_pki::{Authority, OffsetDateTime, moment};
use serde::{Deserialize, Serialize};

use super::folder::{
    AuthorityFiles, CLUSTER_CA, ENCRYPTION_KEY, ETCD_CA, FRONT_PROXY_CA, Folder, SERVICE_ACCOUNT_KEY,
    SERVICE_ACCOUNT_PUBLIC_KEY,
};
use super::settings::{Settings, told};
use super::token;
use crate::console::Hint;

/// What is said about one machine; everything but name and role may be left out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Name of the node.
    pub name: String,
    /// `node` or `master`.
    pub role: String,
    /// Hardware address of one of its links, to tell it by.
    pub mac: Option<String>,
    /// Serial number in its SMBIOS tables, to tell it by.
    pub serial: Option<String>,
    /// UUID in its SMBIOS tables, to tell it by.
    pub uuid: Option<String>,
    /// The one link to use, by name or hardware address.
    pub interface: Option<String>,
    /// Fixed address with prefix length; without it, DHCP.
    pub address: Option<String>,
    /// Default gateway beside a fixed address.
    pub gateway: Option<String>,
    /// Several links, bonds, VLANs and bridges, as `network.links` of role metadata has them; instead of `interface`, `address` and `mtu`.
    #[serde(default)]
    pub links: toml::Table,
    /// Name servers.
    #[serde(default)]
    pub dns_servers: Vec<String>,
    /// Time servers, names or addresses; without them, those of the settings.
    #[serde(default)]
    pub time_servers: Vec<String>,
    /// MTU of its link in bytes; without it, what the link has.
    pub mtu: Option<u32>,
    /// Whether its pods reach the world outside under its address; without it, they do.
    pub masquerade: Option<bool>,
    /// Mirrors of docker's default registry, as URLs.
    #[serde(default)]
    pub docker_mirrors: Vec<String>,
    /// Registries without TLS.
    #[serde(default)]
    pub insecure_registries: Vec<String>,
    /// Its disks besides the one that it runs from, as `[[disks]]` of role metadata has them.
    #[serde(default)]
    pub disks: Vec<toml::Table>,
    /// Addresses of its pods (manual mode).
    pub pod_range: Option<String>,
    /// Labels of the node.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints of the node.
    #[serde(default)]
    pub taints: Vec<String>,
    /// Master: run ordinary pods too.
    #[serde(default)]
    pub schedule_pods: bool,
    /// Master: further names and addresses of the API server.
    #[serde(default)]
    pub api_names: Vec<String>,
    /// Master: join the masters that live; never begin a cluster.
    #[serde(default)]
    pub join_control_plane: bool,
}

impl Machine {
    /// Its fixed address, without the prefix length: its own, or the first IPv4 address of its links, of the primary one before others.
    pub fn fixed_address(&self) -> Option<&str> {
        if let Some(address) = &self.address {
            return address.split('/').next();
        }
        let is_primary = |link: &toml::Value| link.get("primary").and_then(toml::Value::as_bool) == Some(true);
        let mut links: Vec<&toml::Value> = self.links.values().collect();
        links.sort_by_key(|link| !is_primary(link));
        let addresses = links.into_iter().filter_map(|link| link.get("addresses")?.as_array()).flatten();
        let mut plain = addresses.filter_map(|address| address.as_str()?.split('/').next());
        plain.find(|address| address.parse::<std::net::Ipv4Addr>().is_ok())
    }
}

/// Names and addresses of the masters that begin the cluster, or that one joins; empty for a single one that stays alone.
pub type Members = BTreeMap<String, String>;

/// A machine's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// `role.toml`.
    pub role: String,
    /// `secrets.toml`; `None` where the secrets stand in `role`.
    pub secrets: Option<String>,
    /// Until when a node can join with it; `None` for masters, and where it has no end.
    pub joins_until: Option<OffsetDateTime>,
}

#[derive(Serialize)]
struct Role<'a> {
    version: u32,
    role: &'a str,
    cluster: Cluster<'a>,
    node: Node<'a>,
    network: Network<'a>,
    #[serde(skip_serializing_if = "Docker::is_default")]
    docker: Docker<'a>,
    #[serde(skip_serializing_if = "Time::is_default")]
    time: Time<'a>,
    #[serde(flatten)]
    secret: Secrets,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_plane: Option<ControlPlane<'a>>,
    #[serde(skip_serializing_if = "<[toml::Table]>::is_empty")]
    disks: &'a [toml::Table],
}

#[derive(Serialize)]
struct Cluster<'a> {
    name: &'a str,
    endpoint: &'a str,
    pod_range: &'a str,
    service_range: &'a str,
    dns_domain: &'a str,
    ca: String,
}

#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_range: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    taints: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Network<'a> {
    mode: &'a str,
    proxy_mode: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    dns_servers: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    masquerade: Option<bool>,
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    fixed: Option<Static<'a>>,
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    links: &'a toml::Table,
}

#[derive(Serialize)]
struct Docker<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    insecure_registries: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    mirrors: &'a [String],
}

impl Docker<'_> {
    fn is_default(&self) -> bool {
        self.insecure_registries.is_empty() && self.mirrors.is_empty()
    }
}

#[derive(Serialize)]
struct Time<'a> {
    servers: &'a [String],
}

impl Time<'_> {
    fn is_default(&self) -> bool {
        self.servers.is_empty()
    }
}

#[derive(Serialize)]
struct Static<'a> {
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<&'a str>,
}

#[derive(Serialize)]
struct ControlPlane<'a> {
    schedule_pods: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    names: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd: Option<Etcd<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets: Option<MasterSecrets>,
}

#[derive(Serialize)]
struct Etcd<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    join: bool,
    members: &'a Members,
}

/// What only some may read: of a node the token alone.
#[derive(Default, Serialize)]
struct Secrets {
    #[serde(skip_serializing_if = "Option::is_none")]
    join: Option<Join>,
}

#[derive(Serialize)]
struct Join {
    token: String,
}

#[derive(Serialize)]
struct MasterSecrets {
    encryption_key: String,
    ca_key: String,
    etcd_ca: String,
    etcd_ca_key: String,
    front_proxy_ca: String,
    front_proxy_ca_key: String,
    service_account_key: String,
    service_account_public_key: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

/// secrets.toml.
#[derive(Serialize)]
struct Apart {
    version: u32,
    #[serde(flatten)]
    secret: Secrets,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_plane: Option<ApartControlPlane>,
}

#[derive(Serialize)]
struct ApartControlPlane {
    secrets: MasterSecrets,
}

/// Renders a machine's metadata; `apart` puts its secrets into a text of their own. `prefix` as of [`told`].
///
/// # Errors
/// Init would refuse it, the folder has no token that is still good, or cannot be read.
pub fn render(
    folder: &Folder,
    machine: &Machine,
    members: &Members,
    apart: bool,
    prefix: &str,
    now: OffsetDateTime,
) -> Result<Rendered> {
    let settings = &folder.settings;
    let mut role = Role {
        version: 1,
        role: &machine.role,
        cluster: Cluster {
            name: &settings.name,
            endpoint: &settings.endpoint,
            pod_range: &settings.pod_range,
            service_range: &settings.service_range,
            dns_domain: &settings.dns_domain,
            ca: folder.text(CLUSTER_CA.certificate)?,
        },
        node: Node {
            name: &machine.name,
            pod_range: machine.pod_range.as_deref(),
            taints: &machine.taints,
            labels: &machine.labels,
        },
        network: network(machine, settings, prefix)?,
        docker: Docker { insecure_registries: &machine.insecure_registries, mirrors: &machine.docker_mirrors },
        time: Time {
            servers: if machine.time_servers.is_empty() { &settings.time_servers } else { &machine.time_servers },
        },
        secret: Secrets::default(),
        control_plane: None,
        disks: &machine.disks,
    };
    let mut aside = Apart { version: 1, secret: Secrets::default(), control_plane: None };
    let mut joins_until = None;
    if machine.role == "master" {
        let secrets = master_secrets(folder, now)?;
        let join = machine.join_control_plane;
        if join && members.is_empty() {
            return Err(nobody_to_join(prefix));
        }
        let etcd = (!members.is_empty()).then_some(Etcd { join, members });
        let (here, there) = if apart { (None, Some(secrets)) } else { (Some(secrets), None) };
        let names = machine.api_names.as_slice();
        role.control_plane = Some(ControlPlane {
            schedule_pods: machine.schedule_pods,
            names,
            virtual_address: settings.shared().map(|address| address.to_string()),
            etcd,
            secrets: here,
        });
        aside.control_plane = there.map(|secrets| ApartControlPlane { secrets });
    } else {
        let given = [
            ("schedule-pods", machine.schedule_pods),
            ("api-name", !machine.api_names.is_empty()),
            ("join-control-plane", machine.join_control_plane),
        ];
        if let Some((option, _)) = given.into_iter().find(|(_, given)| *given) {
            bail!("{prefix}{} is for masters only", word(prefix, option));
        }
        let tokens = token::read(folder)?;
        let kept = token::longest(&tokens, now).ok_or_else(|| no_token(&settings.name))?;
        joins_until = kept.expires;
        let secret = if apart { &mut aside.secret } else { &mut role.secret };
        secret.join = Some(Join { token: kept.token.expose().to_owned() });
    }
    let rendered = Rendered {
        role: toml::to_string_pretty(&role)?,
        secrets: if apart { Some(toml::to_string_pretty(&aside)?) } else { None },
        joins_until,
    };
    // Nothing is given out that the machine would refuse.
    let read = match &rendered.secrets {
        Some(secrets) => kscratch_metadata::parse_with_secrets(&rendered.role, secrets),
        None => kscratch_metadata::parse(&rendered.role),
    };
    read.map_err(|errors| told(&errors, prefix))?;
    Ok(rendered)
}

/// An option's name, or the key of a file where there is no prefix.
fn word(prefix: &str, option: &str) -> String {
    if prefix.is_empty() { option.replace('-', "_") } else { option.to_owned() }
}

fn network<'a>(machine: &'a Machine, settings: &'a Settings, prefix: &str) -> Result<Network<'a>> {
    let gateway = machine.gateway.as_deref();
    let fixed = machine.address.as_deref().map(|address| Static { address, gateway });
    if fixed.is_none() && gateway.is_some() {
        bail!("{prefix}gateway goes with {prefix}address; with DHCP the server names the gateway");
    }
    // A fixed address belongs to one link: where none is named, to the one that the machine is told by.
    let interface = machine.interface.as_deref().or(fixed.as_ref().and(machine.mac.as_deref()));
    let Settings { mode, proxy_mode, .. } = settings;
    let Machine { mtu, masquerade, dns_servers, links, .. } = machine;
    Ok(Network { mode, proxy_mode, interface, mtu: *mtu, dns_servers, masquerade: *masquerade, fixed, links })
}

/// What is lacking may be on the other side, too: a first master that no list names.
fn nobody_to_join(prefix: &str) -> anyhow::Error {
    let error = anyhow!("{prefix}{}: no master that lives is named", word(prefix, "join-control-plane"));
    if prefix.is_empty() {
        return error;
    }
    let hint = "add --etcd-member NODE=IP for every master that lives, and for this machine; a master whose own metadata has no --etcd-member \
                cannot be joined: give it metadata with one for itself, and restart it";
    error.context(Hint(hint.into()))
}

fn no_token(name: &str) -> anyhow::Error {
    anyhow!("{name} has no join token that is still good")
        .context(Hint(format!("kscratch-image cluster token create {name}")))
}

/// Reads an authority's two texts; a pair that does not belong together is told here and not by the first machine that fails.
fn authority(folder: &Folder, files: AuthorityFiles) -> Result<(String, String)> {
    let (certificate, key) = (folder.text(files.certificate)?, folder.text(files.key)?);
    Authority::parse(&certificate, &key).with_context(|| {
        let (certificate, key) = (folder.file(files.certificate), folder.file(files.key));
        format!("reading {} and {}", certificate.display(), key.display())
    })?;
    Ok((certificate, key))
}

fn master_secrets(folder: &Folder, now: OffsetDateTime) -> Result<MasterSecrets> {
    let (_, ca_key) = authority(folder, CLUSTER_CA)?;
    let (etcd_ca, etcd_ca_key) = authority(folder, ETCD_CA)?;
    let (front_proxy_ca, front_proxy_ca_key) = authority(folder, FRONT_PROXY_CA)?;
    let mut tokens = Vec::new();
    for kept in token::read(folder)?.iter().filter(|kept| kept.good(now)) {
        let expires = kept.expires.map(moment);
        tokens.push(Token { token: kept.token.expose().to_owned(), expires });
    }
    Ok(MasterSecrets {
        encryption_key: folder.text(ENCRYPTION_KEY)?.trim_end().to_owned(),
        ca_key,
        etcd_ca,
        etcd_ca_key,
        front_proxy_ca,
        front_proxy_ca_key,
        service_account_key: folder.text(SERVICE_ACCOUNT_KEY)?,
        service_account_public_key: folder.text(SERVICE_ACCOUNT_PUBLIC_KEY)?,
        tokens,
    })
}
