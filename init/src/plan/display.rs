//! Turns a [`Plan`] into text for people: one line per step, files and rulesets indented below theirs.
use std::fmt;
use std::net::IpAddr;

use super::{Change, Made, Phase, Plan, Ready, Service, Step};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in &self.phases {
            phase.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "phase {}", self.name)?;
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(text) => write!(f, "note {text}"),
            Self::Sysctl { key, value } => write!(f, "sysctl {key} = {value}"),
            Self::Hostname(name) => write!(f, "hostname {name}"),
            Self::Directory { path, mode, owner } => {
                write!(f, "directory {path} {mode:04o}")?;
                owned(f, *owner)
            }
            Self::File { path, contents, mode, owner } => {
                write!(f, "file {path} {mode:04o}")?;
                owned(f, *owner)?;
                // Others may not read it, so the console may not either: tokens stand in such files.
                if mode & 0o077 == 0 {
                    return write!(f, " ({} bytes, private)", contents.len());
                }
                block(f, &String::from_utf8_lossy(contents))
            }
            Self::ClusterCa { ca: _, change } => {
                f.write_str("cluster's CA remembered")?;
                f.write_str(match change {
                    Change::None => "",
                    Change::Leave => ", certificates of another cluster put aside",
                    Change::Return => ", certificates of this cluster taken back",
                })
            }
            Self::NodeName { name, left, returns } => {
                write!(f, "node name {name}")?;
                left.as_ref().map_or(Ok(()), |left| write!(f, ", the certificate of {left} put aside"))?;
                if *returns { f.write_str(", its own certificate taken back") } else { Ok(()) }
            }
            Self::Prune { path } => write!(f, "prune {path}"),
            Self::HalfPair { certificate, key } => write!(f, "remove {certificate} and {key}, if one is empty"),
            Self::LinkUp { link, mtu } => {
                write!(f, "up {link}")?;
                mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))
            }
            Self::MakeLink { link, made } => write!(f, "make {link}, {made}"),
            Self::Dhcp { link, metric, optional } => {
                write!(f, "dhcp {link}")?;
                metric.map_or(Ok(()), |metric| write!(f, " metric {metric}"))?;
                f.write_str(if *optional { ", not waited for" } else { "" })
            }
            Self::Dhcp6 { link, optional } => {
                write!(f, "dhcp6 {link}{}", if *optional { ", not waited for" } else { "" })
            }
            Self::AnyLease => f.write_str("wait for a lease of any link"),
            Self::Addresses { link, addresses, alone } => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let beside = if *alone { "" } else { ", beside others" };
                write!(f, "address {} on {link}{beside}", addresses.join(", "))
            }
            Self::RemoveAddress { link, address } => write!(f, "remove address {address} of {link}"),
            Self::Route { destination, gateway, link, metric } => {
                write!(f, "route {destination}")?;
                way(f, gateway.as_ref(), link.as_deref(), *metric)
            }
            Self::RemoveRoute { destination, gateway, link, metric } => {
                write!(f, "remove route {destination}")?;
                way(f, gateway.as_ref(), link.as_deref(), *metric)
            }
            Self::RemoveLink { link } => write!(f, "remove link {link}"),
            Self::Bridge { link, address, mtu } => {
                write!(f, "bridge {link} {address} mtu {mtu}")
            }
            Self::Firewall { ruleset } => {
                f.write_str("firewall")?;
                block(f, ruleset)
            }
            Self::Certificates { wanted } => write!(f, "certificates as {wanted} wants them"),
            Self::SeedImages => f.write_str("seed docker's store with the image's own images"),
            Self::Service(service) => service.fmt(f),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}", self.name)?;
        if !self.after.is_empty() {
            write!(f, " after {}", self.after.join(", "))?;
        }
        write!(f, "\n    | {}", self.program)?;
        for argument in &self.args {
            write!(f, "\n    |   {argument}")?;
        }
        for (name, value) in &self.env {
            write!(f, "\n    env {name}={value}")?;
        }
        let Self { ready, ready_within, stop_within, oom_score_adj, open_files, leave_children, .. } = self;
        write!(f, "\n    ready {ready} within {ready_within:?}, ")?;
        if let Some(within) = self.answers_within {
            write!(f, "answers within {within:?}, ")?;
        }
        write!(f, "stops within {stop_within:?}")?;
        write!(f, "\n    oom {oom_score_adj}, open files {open_files}")?;
        if *leave_children {
            f.write_str(", leaves its children")?;
        }
        if self.stops_first {
            f.write_str(", stops first")?;
        }
        if let Some(rights) = &self.rights {
            write!(f, "\n    rights {rights}")?;
        }
        if let Some(input) = self.reads {
            write!(f, "\n    reads {}", input.path())?;
        }
        Ok(())
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnixSocket(path) => write!(f, "when {path} accepts"),
            Self::File(path) => write!(f, "when {path} is there"),
            Self::UnixHttp { socket, path } => write!(f, "when GET {path} on {socket} answers"),
            Self::Http { port, path } => {
                write!(f, "when GET http://127.0.0.1:{port}{path} answers")
            }
        }
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |members: &[String]| if members.is_empty() { "nothing".to_owned() } else { members.join(", ") };
        match self {
            Self::Bond(bond) => {
                write!(f, "a bond of {}, {}", list(&bond.members), bond.mode.word())?;
                bond.miimon.map_or(Ok(()), |miimon| write!(f, ", miimon {miimon}"))?;
                bond.arp_interval.map_or(Ok(()), |interval| write!(f, ", arp interval {interval}"))?;
                for (at, target) in bond.arp_targets.iter().enumerate() {
                    write!(f, "{} {target}", if at == 0 { ", arp targets" } else { "," })?;
                }
                bond.lacp_rate.map_or(Ok(()), |rate| write!(f, ", lacp rate {}", rate.word()))?;
                bond.hash_policy.map_or(Ok(()), |policy| write!(f, ", hash policy {}", policy.word()))?;
                bond.primary.as_ref().map_or(Ok(()), |primary| write!(f, ", primary {primary}"))
            }
            Self::Vlan(vlan) => write!(f, "VLAN {} of {}", vlan.id, vlan.over),
            Self::Bridge { members, stp } => {
                write!(f, "a bridge of {}{}", list(members), if *stp { ", with stp" } else { "" })
            }
        }
    }
}

fn way(f: &mut fmt::Formatter<'_>, gateway: Option<&IpAddr>, link: Option<&str>, metric: Option<u32>) -> fmt::Result {
    gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))?;
    link.map_or(Ok(()), |link| write!(f, " on {link}"))?;
    metric.map_or(Ok(()), |metric| write!(f, " metric {metric}"))
}

/// Root is not worth a word.
fn owned(f: &mut fmt::Formatter<'_>, owner: u32) -> fmt::Result {
    if owner == 0 { Ok(()) } else { write!(f, " of {owner}") }
}

fn block(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for line in text.lines() {
        write!(f, "\n    |{}{line}", if line.is_empty() { "" } else { " " })?;
    }
    Ok(())
}
