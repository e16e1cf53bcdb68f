//! Cuts a node's pod range between CNI and docker, and renders the CNI network that puts pods on cbr0.
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

/// Who may hand out which addresses of a node's range: two programs, never one address twice (R13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// The bridge: the range's first address with the range's prefix length.
    pub bridge: Ipv4Net,
    /// First and last address of host-local.
    pub pods: (Ipv4Addr, Ipv4Addr),
    /// The range's last quarter: docker's `fixed-cidr`.
    pub docker: Ipv4Net,
}

/// Cuts a range of /28 or larger (the metadata has no smaller ones).
pub(super) fn shares(range: Ipv4Net) -> Shares {
    let first = u32::from(range.network());
    let last = u32::from(range.broadcast());
    let quarter = last - (last - first) / 4;
    let prefix = range.prefix_len().saturating_add(2).min(32);
    Shares {
        bridge: Ipv4Net::new_assert(Ipv4Addr::from(first + 1), range.prefix_len()),
        pods: (Ipv4Addr::from(first + 2), Ipv4Addr::from(quarter - 1)),
        docker: Ipv4Net::new_assert(Ipv4Addr::from(quarter), prefix),
    }
}

/// The network configuration list (CNI spec 1.0.0, section 1). The bridge has its address already: the plugin finds it and adds
/// nothing.
pub(super) fn conflist(range: Ipv4Net, mtu: u32) -> Value {
    let shares = shares(range);
    json!({
        "cniVersion": "1.0.0",
        "name": "kscratch",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cbr0",
                "mtu": mtu,
                "isDefaultGateway": true,
                "hairpinMode": true,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/var/lib/cni/networks",
                    "ranges": [[{
                        "subnet": range.to_string(),
                        "gateway": shares.bridge.addr().to_string(),
                        "rangeStart": shares.pods.0.to_string(),
                        "rangeEnd": shares.pods.1.to_string(),
                    }]],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}
