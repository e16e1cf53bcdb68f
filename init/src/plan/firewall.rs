//! Renders the node's own nftables table: which pod traffic is masqueraded, and what the machine forwards at all.
use ipnet::Ipv4Net;

/// The ruleset for `nft -f -` (R14). `node` is this machine's range, once it has one, `pods` that of all pods.
///
/// It makes the table, deletes it and makes it anew in one transaction: `add` keeps `delete` from failing the first time, and no
/// packet ever meets half a table.
pub(super) fn ruleset(node: Option<Ipv4Net>, pods: Ipv4Net, masquerade: bool) -> String {
    let nat = if let Some(node) = node.filter(|_| masquerade) {
        format!(
            "\tchain postrouting {{
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip saddr {node} ip daddr != {pods} fib daddr type != local masquerade
\t}}
"
        )
    } else {
        String::new()
    };
    // A machine with ip_forward=1 routes for everybody who asks; this one does so for pods, and for what a service or a host port
    // sent another way (R3).
    format!(
        "add table ip kscratch
delete table ip kscratch
table ip kscratch {{
{nat}\tchain forward {{
\t\ttype filter hook forward priority filter; policy drop;
\t\tct state established,related accept
\t\tct status dnat accept
\t\tip saddr {pods} accept
\t\tip daddr {pods} accept
\t}}
}}
"
    )
}
