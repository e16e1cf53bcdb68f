//! Who the machines are: role metadata of each, out of the cluster's identity, or of a node that stands alone.
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use kscratch_pki::{Credentials, Kubeconfig, OffsetDateTime, Trust};
use serde::Serialize;

use super::api::Access;
use super::plan::{API_PORT, Plan, PlannedDisk, PlannedMachine, SHARED};
use crate::cluster::folder::{ADMIN, Folder, SETTINGS};
use crate::cluster::metadata::{self, Machine, Members};
use crate::cluster::new;
use crate::cluster::settings::{self, Settings};
use crate::cluster::token::Lapse;
use crate::console::Hint;
use crate::inspect;
use crate::kubernetes::Version;

/// How long the token is good that machines join with: as long as an authority, since the folder holds its key anyway.
const TOKEN: &str = "30d";

/// What a cluster is asked to be; where nothing is said it is as it was made, or gets the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Modes {
    /// `routed` or `overlay`.
    pub network: Option<&'static str>,
    /// `nftables` or `iptables`.
    pub proxy: Option<&'static str>,
}

/// Opens the cluster's identity, or makes it; `None` for nodes that stand alone.
///
/// # Errors
/// The one that is there leads to another endpoint, or has another mode; or none can be made.
pub fn open(parent: &Path, plan: &Plan, modes: Modes, now: OffsetDateTime) -> Result<Option<Folder>> {
    let Some(first) = plan.machines.iter().find(|machine| machine.master) else { return Ok(None) };
    let endpoint = |shared: bool| format!("{}:{API_PORT}", if shared { SHARED } else { first.address });
    if parent.join(&plan.name).join(SETTINGS).exists() {
        let folder = Folder::open(parent, &plan.name)?;
        let endpoint = endpoint(folder.settings.virtual_endpoint);
        if folder.settings.endpoint != endpoint {
            let what = format!(
                "{} has the endpoint {}, its machines in QEMU have {endpoint}",
                plan.name, folder.settings.endpoint
            );
            return Err(anyhow!(what).context(Hint("take another name for the cluster in QEMU".into())));
        }
        let Settings { mode, proxy_mode, .. } = &folder.settings;
        for (what, asked, made) in [("mode", modes.network, mode), ("proxy mode", modes.proxy, proxy_mode)] {
            if let Some(asked) = asked.filter(|asked| asked != made) {
                let what = format!("{} was made with {what} {made}, not {asked}", plan.name);
                return Err(anyhow!(what).context(Hint("take another name for the cluster in QEMU".into())));
            }
        }
        return Ok(Some(folder));
    }
    // Where several masters are, none of them has to be the one that answers.
    let shared = plan.count(true) > 1;
    let settings = Settings {
        version: settings::VERSION,
        name: plan.name.clone(),
        endpoint: endpoint(shared),
        virtual_endpoint: shared,
        pod_range: kscratch_metadata::DEFAULT_POD_RANGE.to_string(),
        service_range: kscratch_metadata::DEFAULT_SERVICE_RANGE.to_string(),
        dns_domain: kscratch_metadata::DEFAULT_DNS_DOMAIN.to_owned(),
        mode: modes.network.unwrap_or("routed").to_owned(),
        proxy_mode: modes.proxy.unwrap_or("nftables").to_owned(),
        time_servers: Vec::new(),
        // What the first master will run. An image that does not say it is no reason to make no cluster.
        kubernetes: (inspect::kubernetes(&first.image.path).ok().flatten())
            .filter(|version| Version::parse(version).is_ok()),
    };
    let lapse: Lapse = TOKEN.parse().map_err(|error: String| anyhow!(error))?;
    new::new(parent, &settings.checked("--")?, lapse, now).map(Some)
}

/// The role metadata of a machine.
///
/// # Errors
/// The identity cannot be read, or init would refuse what comes out.
pub fn role(identity: Option<&Folder>, plan: &Plan, machine: &PlannedMachine, now: OffsetDateTime) -> Result<String> {
    let action = || format!("making the role metadata of {}", machine.name);
    let gateway = plan.gateway();
    let said = Machine {
        name: machine.name.clone(),
        role: if machine.master { "master" } else { "node" }.to_owned(),
        interface: Some(machine.mac_text()),
        address: Some(format!("{}/{}", machine.address, gateway.prefix)),
        gateway: Some(gateway.address.to_string()),
        dns_servers: vec![gateway.dns.to_string()],
        disks: machine.disks.iter().map(|disk| told(disk, &machine.name)).collect(),
        ..Machine::default()
    };
    match identity {
        None => alone(said).with_context(action),
        Some(folder) => {
            let members = if machine.master { members(plan) } else { Members::new() };
            Ok(metadata::render(folder, &said, &members, false, "", now).with_context(action)?.role)
        }
    }
}

/// A disk as role metadata tell it.
fn told(disk: &PlannedDisk, machine: &str) -> toml::Table {
    let pairs = [("for", disk.purpose.word().to_owned()), ("serial", disk.serial(machine))];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
}

/// All masters with their addresses, where there are several.
fn members(plan: &Plan) -> Members {
    let masters: Members = (plan.machines.iter())
        .filter(|machine| machine.master)
        .map(|machine| (machine.name.clone(), machine.address.to_string()))
        .collect();
    if masters.len() > 1 { masters } else { Members::new() }
}

/// The administrator's kubeconfig with the gateway's forward as its server. The API server's certificate is good for 127.0.0.1.
///
/// # Errors
/// The cluster's own cannot be read.
pub fn kubeconfig(identity: &Folder, port: u16) -> Result<String> {
    let action = || format!("reading {}", identity.file(ADMIN).display());
    let access = Access::parse(&identity.text(ADMIN)?).with_context(action)?;
    let kubeconfig = Kubeconfig {
        cluster: &identity.settings.name,
        server: &format!("https://127.0.0.1:{port}"),
        user: &access.user,
        trust: Trust::Embedded(&access.authority),
        credentials: Credentials::Embedded { certificate: &access.certificate, key: &access.key },
    };
    Ok(kubeconfig.to_yaml())
}

#[derive(Serialize)]
struct Alone {
    version: u32,
    role: &'static str,
    node: AloneNode,
    network: AloneNetwork,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disks: Vec<toml::Table>,
}

#[derive(Serialize)]
struct AloneNode {
    name: String,
}

#[derive(Serialize)]
struct AloneNetwork {
    interface: Option<String>,
    dns_servers: Vec<String>,
    #[serde(rename = "static")]
    fixed: AloneStatic,
}

#[derive(Serialize)]
struct AloneStatic {
    address: Option<String>,
    gateway: Option<String>,
}

/// A node without a cluster: it runs its own static pods.
fn alone(machine: Machine) -> Result<String> {
    let role = Alone {
        version: 1,
        role: "node",
        node: AloneNode { name: machine.name },
        network: AloneNetwork {
            interface: machine.interface,
            dns_servers: machine.dns_servers,
            fixed: AloneStatic { address: machine.address, gateway: machine.gateway },
        },
        disks: machine.disks,
    };
    let text = toml::to_string_pretty(&role)?;
    kscratch_metadata::parse(&text).map_err(|errors| anyhow!(errors.to_string()))?;
    Ok(text)
}
