//! Turns the words of a metadata file (names, labels, ranges, endpoints, tokens) into values, or into the fault they have.
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::address::{Endpoint, Interface, Mac};
use crate::read::{Fault, fault};
use crate::role::{Effect, Taint};
use crate::secret::Secret;

/// Ranges that no pod, service or host can have (RFC 6890).
const SPECIAL: [(Ipv4Net, &str); 4] = [
    (Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8), "\"this network\""),
    (Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8), "the loopback range"),
    (Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16), "the link-local range"),
    (Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3), "the multicast and reserved range"),
];

/// RFC 1123 subdomain: labels of at most 63 of `a-z 0-9 -`, joined by dots, at most 253 in all.
pub(crate) fn subdomain(text: &str) -> Result<String, Fault> {
    let label = |label: &str| {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err(fault(
        format!("{text:?} is no RFC 1123 name"),
        "use lower case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
    ))
}

/// Name of a node: a subdomain that also fits a label value and the kernel's host name.
pub(crate) fn node_name(text: &str) -> Result<String, Fault> {
    let name = subdomain(text)?;
    if name.len() > 63 {
        let what = format!("{name:?} is {} characters long", name.len());
        return Err(fault(what, "give at most 63 characters: it becomes a host name and a label value"));
    }
    Ok(name)
}

/// A host as URLs name it: an IPv4 address or a DNS name, upper case allowed.
pub(crate) fn host(text: &str) -> Result<String, Fault> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(address.to_string());
    }
    if text.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
        return Err(fault(
            format!("{text:?} is an IPv6 address"),
            "give an IPv4 address or a name: version 1 knows only IPv4",
        ));
    }
    // `10.1.2` or `10.1.2.256` is a mistyped address, not a name: no top-level domain is a number.
    let numeric =
        text.rsplit('.').next().is_some_and(|last| !last.is_empty() && last.bytes().all(|c| c.is_ascii_digit()));
    let lower = text.to_ascii_lowercase();
    if numeric || subdomain(&lower).is_err() {
        return Err(fault(
            format!("{text:?} is neither an IPv4 address nor a DNS name"),
            "write it like 192.168.7.10 or server.example.org",
        ));
    }
    Ok(lower)
}

/// `HOST[:PORT]`.
pub(crate) fn host_and_port(text: &str) -> Result<(String, Option<u16>), Fault> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(fault(
            format!("{text:?} has a scheme"),
            format!("leave out {:?} and write {:?}", format!("{scheme}://"), rest),
        ));
    }
    if text.starts_with('[') || text.parse::<Ipv6Addr>().is_ok() {
        return Err(fault(
            format!("{text:?} is an IPv6 address"),
            "give an IPv4 address or a name: version 1 knows only IPv4",
        ));
    }
    match text.rsplit_once(':') {
        None => Ok((host(text)?, None)),
        Some((name, port)) => match port.parse::<u16>() {
            // `u16::from_str` also takes a sign.
            Ok(number) if number > 0 && port.bytes().all(|c| c.is_ascii_digit()) => Ok((host(name)?, Some(number))),
            _ => Err(fault(format!("{port:?} is no port"), "give a port between 1 and 65535")),
        },
    }
}

/// An API server.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, Fault> {
    let (host, port) = host_and_port(text)?;
    Ok(Endpoint { host, port: port.unwrap_or(Endpoint::DEFAULT_PORT) })
}

/// An IPv4 address.
pub(crate) fn address(text: &str) -> Result<Ipv4Addr, Fault> {
    text.parse().map_err(|_| {
        if text.parse::<Ipv6Addr>().is_ok() {
            fault(format!("{text:?} is an IPv6 address"), "give an IPv4 address: version 1 knows only IPv4")
        } else {
            fault(format!("{text:?} is no IPv4 address"), "write it like 192.168.7.10")
        }
    })
}

/// A name server that pods can reach too.
pub(crate) fn name_server(text: &str) -> Result<Ipv4Addr, Fault> {
    let server = address(text)?;
    if server.is_loopback() {
        return Err(fault(
            format!("{server} is a loopback address, which means another machine in every pod"),
            "give the address of a server on the network",
        ));
    }
    Ok(server)
}

/// An IPv4 address that a host on an ordinary network may have.
pub(crate) fn host_address(text: &str) -> Result<Ipv4Addr, Fault> {
    let host = address(text)?;
    match SPECIAL.iter().find(|(special, _)| special.contains(&host)) {
        Some((special, name)) => {
            let what = format!("{host} is of {special}, {name}");
            Err(fault(what, "give an address of the network that the machines are on"))
        }
        None => Ok(host),
    }
}

/// `ADDRESS/PREFIX`.
pub(crate) fn address_in_network(text: &str) -> Result<Ipv4Net, Fault> {
    let net: Ipv4Net = text.parse().map_err(|_| {
        if text.parse::<Ipv6Net>().is_ok() {
            fault(format!("{text:?} is an IPv6 range"), "give an IPv4 range: version 1 knows only IPv4")
        } else if text.parse::<Ipv4Addr>().is_ok() {
            fault(format!("{text:?} has no prefix length"), format!("write it like {text}/24"))
        } else {
            fault(format!("{text:?} is no ADDRESS/PREFIX"), "write it like 10.244.0.0/16")
        }
    })?;
    for (special, name) in SPECIAL {
        if special.contains(&net.addr()) || net.contains(&special.addr()) {
            return Err(fault(
                format!("{net} overlaps {special}, {name}"),
                "give a range of ordinary addresses, e.g. of 10.0.0.0/8",
            ));
        }
    }
    Ok(net)
}

/// A range without host bits, with a prefix length between two bounds.
pub(crate) fn range(text: &str, min: u8, max: u8) -> Result<Ipv4Net, Fault> {
    let net = address_in_network(text)?;
    if net != net.trunc() {
        return Err(fault(
            format!("{net} is an address inside a range"),
            format!("write the range itself: {}", net.trunc()),
        ));
    }
    if net.prefix_len() < min || net.prefix_len() > max {
        let size = if net.prefix_len() < min { "large" } else { "small" };
        return Err(fault(format!("{net} is too {size}"), format!("give a prefix length between /{min} and /{max}")));
    }
    Ok(net)
}

/// A link, by name or hardware address.
pub(crate) fn interface(text: &str) -> Result<Interface, Fault> {
    if let Ok(mac) = text.parse::<Mac>() {
        return Ok(Interface::Mac(mac));
    }
    if text.contains(':') {
        return Err(fault(format!("{text:?} is no hardware address"), "write it like 52:54:00:12:34:56"));
    }
    if ["lo", "cbr0", "docker0"].contains(&text) {
        return Err(fault(
            format!("{text:?} is no link to the outside"),
            "give the name or the hardware address of a network card",
        ));
    }
    // Linux, `dev_valid_name`: at most 15 bytes, no slash, no white space, not `.` or `..`.
    let valid = (1..=15).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_graphic() && c != b'/')
        && text != "."
        && text != "..";
    if valid {
        return Ok(Interface::Name(text.to_owned()));
    }
    Err(fault(
        format!("{text:?} is no name of a link"),
        "give a name like eth0 (at most 15 characters) or a hardware address like 52:54:00:12:34:56",
    ))
}

/// `insecure-registries` of dockerd: `HOST[:PORT]` or a range.
pub(crate) fn registry(text: &str) -> Result<String, Fault> {
    if text.contains("://") || !text.contains('/') {
        host_and_port(text)?;
    } else {
        address_in_network(text)?;
    }
    Ok(text.to_owned())
}

/// `registry-mirrors` of dockerd: scheme and host alone, as dockerd wants them.
pub(crate) fn mirror(text: &str) -> Result<String, Fault> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err(fault("is no http or https URL", "write it like https://mirror.example.org"));
    };
    if rest.contains('@') {
        // Never shown: it may hold a password.
        return Err(fault("holds a user name", "leave it out: dockerd does not take credentials here"));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(fault(
            format!("{text:?} has a path"),
            "give scheme, host and port only: dockerd takes nothing more",
        ));
    }
    host_and_port(authority)?;
    Ok(text.to_owned())
}

/// Bootstrap token, `[a-z0-9]{6}.[a-z0-9]{16}`. The fault never shows it.
pub(crate) fn token(text: &str) -> Result<Secret, Fault> {
    let part =
        |part: &str, length| part.len() == length && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    match text.split_once('.') {
        Some((id, secret)) if part(id, 6) && part(secret, 16) => Ok(Secret::new(text)),
        _ => Err(fault(
            "is no bootstrap token",
            "give 6 and 16 lower case letters or digits with a dot between ([a-z0-9]{6}.[a-z0-9]{16}), as `kubeadm token create` prints it",
        )),
    }
}

/// The name part of a label key, or a label value: at most 63 of `A-Z a-z 0-9 - _ .`, letter or digit at both ends.
fn is_label_word(text: &str) -> bool {
    let end = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && end(text.bytes().next())
        && end(text.bytes().next_back())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
}

/// Kubernetes' qualified name: `[PREFIX/]NAME`.
fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => subdomain(prefix).is_ok() && is_label_word(name),
        None => is_label_word(text),
    }
}

/// Labels of Kubernetes' own namespaces that a kubelet may set on its node (k8s.io/kubelet, `pkg/apis/well_known_labels.go`).
const KUBELET_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Whether kubelet would refuse to start with this label.
fn is_refused_by_kubelet(key: &str) -> bool {
    let Some((namespace, _)) = key.split_once('/') else {
        return false;
    };
    let within =
        |domain: &str| namespace.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    (within("kubernetes.io") || within("k8s.io"))
        && !within("kubelet.kubernetes.io")
        && !within("node.kubernetes.io")
        && !KUBELET_LABELS.contains(&key)
}

/// The key of a node label.
pub(crate) fn label_key(key: &str) -> Result<String, Fault> {
    if !is_qualified_name(key) {
        return Err(fault(
            "is no label key",
            "write [PREFIX/]NAME: a DNS name, then at most 63 letters, digits, `-`, `_`, `.`",
        ));
    }
    if is_refused_by_kubelet(key) {
        return Err(fault(
            "is a label that a kubelet may not set on its own node",
            "take a prefix of your own, node.kubernetes.io/… or kubelet.kubernetes.io/…, or set it later with kubectl",
        ));
    }
    Ok(key.to_owned())
}

/// The value of a label.
pub(crate) fn label_value(text: &str) -> Result<String, Fault> {
    if text.is_empty() || is_label_word(text) {
        return Ok(text.to_owned());
    }
    Err(fault(
        format!("{text:?} is no label value"),
        "use at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends",
    ))
}

/// `key[=value]:Effect`, as kubectl writes it.
pub(crate) fn taint(text: &str) -> Result<Taint, Fault> {
    let (word, effect) = text.rsplit_once(':').ok_or_else(|| {
        fault(format!("{text:?} names no effect"), "write key[=value]:Effect, e.g. dedicated=db:NoSchedule")
    })?;
    let effect = match effect {
        "NoSchedule" => Effect::NoSchedule,
        "PreferNoSchedule" => Effect::PreferNoSchedule,
        "NoExecute" => Effect::NoExecute,
        other => {
            return Err(fault(
                format!("{other:?} is no effect of a taint"),
                "use NoSchedule, PreferNoSchedule or NoExecute",
            ));
        }
    };
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    if !is_qualified_name(key) {
        return Err(fault(
            format!("{key:?} is no key of a taint"),
            "write [PREFIX/]NAME: a DNS name, then at most 63 letters, digits, `-`, `_`, `.`",
        ));
    }
    Ok(Taint { key: key.to_owned(), value: label_value(value)?, effect })
}

/// A moment in UTC, `YYYY-MM-DDTHH:MM:SSZ` (RFC 3339), as Kubernetes writes them.
pub(crate) fn utc_time(text: &str) -> Result<String, Fault> {
    let number = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<u32>().ok());
    let shape = text.len() == 20
        && text.bytes().enumerate().all(|(at, c)| match at {
            4 | 7 => c == b'-',
            10 => c == b'T',
            13 | 16 => c == b':',
            19 => c == b'Z',
            _ => c.is_ascii_digit(),
        });
    let year = number(0, 4).unwrap_or(0);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match number(5, 7) {
        Some(4 | 6 | 9 | 11) => 30,
        Some(2) => 28 + u32::from(leap),
        Some(1..=12) => 31,
        _ => 0,
    };
    let within = |value: Option<u32>, most: u32| value.is_some_and(|value| value <= most);
    let day = number(8, 10);
    if shape
        && day != Some(0)
        && within(day, days)
        && within(number(11, 13), 23)
        && within(number(14, 16), 59)
        && within(number(17, 19), 59)
    {
        return Ok(text.to_owned());
    }
    Err(fault(format!("{text:?} is no moment in UTC"), "write it like 2027-01-31T00:00:00Z"))
}
