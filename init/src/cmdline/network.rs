//! Turns what the kernel command line says of the network, in the words of dracut.cmdline(7), into links as role metadata have them.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use kscratch_metadata::{
    Bond, BondMode, Bridge, DEFAULT_MIIMON, HashPolicy, LacpRate, Link, Mac, Network, Route, Vlan, is_link_name,
    link_problems,
};

#[cfg(test)]
mod tests;

/// Words of this page; others are no business of it.
const KEYS: [&str; 8] = ["ifname", "bond", "bridge", "vlan", "ip", "nameserver", "rd.route", "team"];

/// Those that make a link, find one, or give it its address.
const LINK_WORDS: [&str; 5] = ["ifname", "bond", "bridge", "vlan", "ip"];

const ALL_PASSED_OVER: &str = "the kernel command line's words of the network are passed over";

const UNNAMED: &str = "an ip= on the kernel command line is passed over";

/// What the words say, before it is known which cards there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words {
    /// Links by name.
    pub links: BTreeMap<String, Link>,
    /// What every link is that no word gives anything: `ip=dhcp`, `ip=dhcp6`, `ip=auto6`, `ip=off`; DHCP where there is no `ip=`.
    pub others: Option<Link>,
    /// An address that no word gives to a link.
    pub unnamed: Option<Link>,
    /// Name servers.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Words that could not be read, with the reason.
    pub faults: Vec<String>,
    /// A link or an address is among those words: the others may be worth nothing without it.
    lacking: bool,
}

impl Words {
    /// Reads the words, each split at its first `=`.
    #[must_use]
    pub fn read<'w>(words: impl Iterator<Item = (&'w str, &'w str)>) -> Self {
        let words: Vec<(&str, &str)> = words.filter(|(key, _)| KEYS.contains(key)).collect();
        let mut found = Self::default();
        // What a word names may be made by a later one: links first, then their addresses, then routes through those.
        for wanted in KEYS {
            for (key, value) in words.iter().filter(|(key, _)| *key == wanted) {
                if let Err(why) = found.word(key, value) {
                    found.lacking |= LINK_WORDS.contains(key);
                    found.faults.push(format!("{key}={value} on the kernel command line is passed over: {why}"));
                }
            }
        }
        if !words.is_empty() && !words.iter().any(|(key, _)| *key == "ip") && !found.links.is_empty() {
            found.others = Some(dhcp());
        }
        found
    }

    /// Whether there is no word of the network.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.others.is_none() && self.unnamed.is_none() && self.dns_servers.is_empty()
    }

    fn word(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "ifname" => self.card(value),
            "bond" => self.bond(value),
            "bridge" => self.bridge(value),
            "vlan" => self.vlan(value),
            "ip" => self.address(value),
            "nameserver" => self.name_server(value),
            "rd.route" => self.route(value),
            _ => Err("kscratch makes bonds (bond=), and no teams".to_owned()),
        }
    }

    /// `NAME:MAC`: the card is found by its hardware address, and keeps the kernel's name.
    fn card(&mut self, value: &str) -> Result<(), String> {
        let (name, mac) = value.split_once(':').ok_or("write ifname=NAME:MAC")?;
        let mac = mac.parse().map_err(|()| format!("{mac:?} is no hardware address"))?;
        self.link(name)?.mac = Some(mac);
        Ok(())
    }

    /// `NAME[:MEMBERS[:OPTIONS[:MTU]]]`.
    fn bond(&mut self, value: &str) -> Result<(), String> {
        let fields = fields(value)?;
        let field = |at: usize| fields.get(at).map(String::as_str).filter(|field| !field.is_empty());
        let members = list(field(1).unwrap_or("eth0,eth1"));
        let mut bond = Bond {
            members,
            mode: BondMode::default(),
            miimon: None,
            arp_interval: None,
            arp_targets: Vec::new(),
            lacp_rate: None,
            hash_policy: None,
            primary: None,
        };
        for option in field(2).unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
            let (key, word) = option.split_once('=').unwrap_or((option, ""));
            let unknown = || format!("{word:?} is no {key} of a bond");
            match key {
                "mode" => bond.mode = BondMode::from_word(word).ok_or_else(unknown)?,
                "miimon" => bond.miimon = Some(milliseconds(word).ok_or_else(unknown)?),
                "arp_interval" => bond.arp_interval = Some(milliseconds(word).ok_or_else(unknown)?),
                // Several with semicolons between them (dracut.cmdline(7)): commas part the options.
                "arp_ip_target" => {
                    let targets: Option<_> = word.split(';').map(|target| target.parse().ok()).collect();
                    bond.arp_targets = targets.ok_or_else(unknown)?;
                }
                "lacp_rate" => bond.lacp_rate = Some(LacpRate::from_word(word).ok_or_else(unknown)?),
                "xmit_hash_policy" => bond.hash_policy = Some(HashPolicy::from_word(word).ok_or_else(unknown)?),
                "primary" => bond.primary = Some(word.to_owned()),
                _ => return Err(format!("{key:?} is no option of a bond that kscratch sets")),
            }
        }
        if bond.arp_interval.is_none() {
            bond.miimon.get_or_insert(DEFAULT_MIIMON);
        }
        let (name, mtu) = (field(0).unwrap_or("bond0"), field(3).map(mtu).transpose()?);
        self.made(name)?;
        self.members(&bond.members)?;
        let link = self.made(name)?;
        (link.bond, link.mtu) = (Some(bond), mtu);
        Ok(())
    }

    /// `NAME:MEMBERS`.
    fn bridge(&mut self, value: &str) -> Result<(), String> {
        let fields = fields(value)?;
        let field = |at: usize| fields.get(at).map(String::as_str).filter(|field| !field.is_empty());
        let members = list(field(1).unwrap_or("eth0"));
        let name = field(0).unwrap_or("br0");
        self.made(name)?;
        self.members(&members)?;
        self.made(name)?.bridge = Some(Bridge { members, stp: false });
        Ok(())
    }

    /// `NAME:LINK`; the number is what follows the name's last dot, or `vlan`.
    fn vlan(&mut self, value: &str) -> Result<(), String> {
        let (name, over) = value.split_once(':').ok_or("write vlan=NAME:LINK")?;
        let number = name.strip_prefix("vlan").or_else(|| name.rsplit_once('.').map(|(_, number)| number));
        let number = number.and_then(|number| number.parse().ok()).filter(|id| (1..=4094).contains(id));
        let id = number.ok_or("its name has no number between 1 and 4094: write vlan5 or eth0.5")?;
        self.made(name)?;
        self.link(over)?;
        self.made(name)?.vlan = Some(Vlan { over: over.to_owned(), id });
        Ok(())
    }

    /// `METHOD`, `LINK:METHOD[:MTU]` or `[ADDRESS]:[PEER]:[GATEWAY]:[NETMASK]:[HOST]:[LINK]:[METHOD][:MTU|:DNS[:DNS]]`.
    fn address(&mut self, value: &str) -> Result<(), String> {
        let fields = fields(value)?;
        let field = |at: usize| fields.get(at).map(String::as_str).unwrap_or_default();
        if let [method] = fields.as_slice() {
            self.others = Some(by(method)?);
            return Ok(());
        }
        if !field(0).is_empty() && field(0).parse::<IpAddr>().is_err() {
            if field(0).starts_with(|first: char| first.is_ascii_digit()) && field(0).contains(['.', ':']) {
                return Err(format!("{:?} is no address", field(0)));
            }
            let more = Link { mtu: optional_mtu(field(2))?, ..by(field(1))? };
            if fields.iter().skip(3).any(|field| !field.is_empty()) {
                return Err("kscratch gives no card another hardware address".to_owned());
            }
            return merge(self.link(field(0))?, more);
        }
        let mut more = if field(6).is_empty() { Link::default() } else { by(field(6))? };
        if !field(1).is_empty() {
            return Err("a peer's address is nothing that kscratch sets".to_owned());
        }
        if !field(0).is_empty() {
            more.addresses.push(net(field(0), field(3))?);
        }
        if !field(2).is_empty() {
            let gateway = field(2).parse().map_err(|_| format!("{:?} is no gateway's address", field(2)))?;
            more.routes.push(Route { destination: None, gateway: Some(gateway), metric: None });
        }
        let mut servers = Vec::new();
        for field in fields.iter().skip(7).filter(|field| !field.is_empty()) {
            match field.parse::<IpAddr>() {
                Ok(_) => servers.push(server(field)?),
                Err(_) => more.mtu = Some(mtu(field)?),
            }
        }
        match field(5) {
            "" => merge(self.unnamed.get_or_insert_default(), more)?,
            link => merge(self.link(link)?, more)?,
        }
        servers.into_iter().for_each(|server| self.add_server(server));
        Ok(())
    }

    fn name_server(&mut self, value: &str) -> Result<(), String> {
        let server = server(value.trim_matches(['[', ']']))?;
        self.add_server(server);
        Ok(())
    }

    fn add_server(&mut self, server: Ipv4Addr) {
        if !self.dns_servers.contains(&server) {
            self.dns_servers.push(server);
        }
    }

    /// `NET/NETMASK:GATEWAY[:LINK]`.
    fn route(&mut self, value: &str) -> Result<(), String> {
        let fields = fields(value)?;
        let field = |at: usize| fields.get(at).map(String::as_str).unwrap_or_default();
        let (address, mask) = field(0).split_once('/').unwrap_or((field(0), ""));
        let destination = net(address, mask)?.trunc();
        let gateway = match field(1) {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_| format!("{text:?} is no gateway's address"))?),
        };
        let route = Route { destination: Some(destination), gateway, metric: None };
        let near = |link: &Link| gateway.is_some_and(|gateway| link.addresses.iter().any(|net| net.contains(&gateway)));
        let link = match field(2) {
            "" => self.links.values_mut().chain(&mut self.unnamed).find(|link| near(link)),
            name => Some(self.link(name)?),
        };
        let link = link.ok_or("no ip= word gives a link an address beside its gateway: name the link behind it")?;
        link.routes.push(route);
        Ok(())
    }

    fn link(&mut self, name: &str) -> Result<&mut Link, String> {
        if !is_link_name(name) {
            return Err(format!("{name:?} is no name of a link"));
        }
        Ok(self.links.entry(name.to_owned()).or_default())
    }

    /// A link to be made; a name is given once.
    fn made(&mut self, name: &str) -> Result<&mut Link, String> {
        let link = self.link(name)?;
        if link.is_made() {
            return Err(format!("{name} is made by another word already"));
        }
        Ok(link)
    }

    fn members(&mut self, names: &[String]) -> Result<(), String> {
        names.iter().try_for_each(|name| self.link(name).map(drop))
    }

    /// The network of a machine that has these cards. `None` where the words say nothing of links, or make no sense together; what there is to
    /// tell is added to `lines`.
    #[must_use]
    pub fn network(&self, cards: &[(&str, Mac)], lines: &mut Vec<String>) -> Option<Network> {
        let plain = self.others.as_ref().is_none_or(|others| *others == dhcp());
        if self.links.is_empty() && self.unnamed.is_none() && plain {
            return None;
        }
        let mut links = self.links.clone();
        let below: BTreeSet<String> = links.values().flat_map(Link::below).map(str::to_owned).collect();
        let mut lacking = self.lacking;
        if let Some(unnamed) = &self.unnamed {
            let named = links
                .iter()
                .filter(|(name, link)| !below.contains(*name) && !carries(link))
                .map(|(name, _)| name.clone());
            let cards =
                cards.iter().filter(|(name, mac)| !known(&links, name, *mac)).map(|(name, _)| (*name).to_owned());
            let free: Vec<String> = named.chain(cards).collect();
            match free.as_slice() {
                [one] => _ = merge(links.entry(one.clone()).or_default(), unnamed.clone()),
                [] => lines.push(format!("{UNNAMED}: it names no link, and every link has what it needs")),
                several => lines.push(format!("{UNNAMED}: it names no link, and there are {}", several.join(", "))),
            }
            lacking |= free.len() != 1;
        }
        if let Some(others) = &self.others {
            let new: Vec<&str> =
                cards.iter().filter(|(name, mac)| !known(&links, name, *mac)).map(|(name, _)| *name).collect();
            links
                .iter_mut()
                .filter(|(name, link)| !below.contains(*name) && !carries(link))
                .for_each(|(_, link)| _ = merge(link, others.clone()));
            // Nobody waits for cards that no word names, beside those that one does.
            let optional = !links.is_empty();
            links.extend(new.into_iter().map(|name| (name.to_owned(), Link { optional, ..others.clone() })));
        }
        let network = Network { links, dns_servers: self.dns_servers.clone(), ..Network::default() };
        let mut problems = link_problems(&network);
        problems.extend(network.links.iter().filter(|(_, link)| link.is_made()).find_map(|(made, _)| {
            let card = cards.iter().any(|(name, _)| name == made);
            card.then(|| format!("{made}: is a link to be made, and the machine has a network card of that name"))
        }));
        if !problems.is_empty() {
            lines.extend(problems);
            lines.push(format!("{ALL_PASSED_OVER}: they make no sense together"));
            return None;
        }
        let links = &network.links;
        if links.is_empty() {
            return None;
        }
        if lacking && !links.iter().any(|(name, link)| carries(link) && is_there(links, name, cards)) {
            lines.push(format!("{ALL_PASSED_OVER}: without the one above they give no link that is there an address"));
            return None;
        }
        Some(network)
    }
}

fn milliseconds(word: &str) -> Option<u32> {
    word.parse().ok().filter(|it| (1..=10_000).contains(it))
}

fn carries(link: &Link) -> bool {
    link.dhcp4 || link.dhcp6 || !link.addresses.is_empty() || link.accept_ra.is_some()
}

/// Whether a link is a card that the machine has, or made of one. No link is carried by itself.
fn is_there(links: &BTreeMap<String, Link>, name: &str, cards: &[(&str, Mac)]) -> bool {
    match links.get(name) {
        Some(link) if link.is_made() => link.below().any(|below| is_there(links, below, cards)),
        Some(Link { mac: Some(mac), .. }) => cards.iter().any(|(_, card)| card == mac),
        _ => cards.iter().any(|(card, _)| *card == name),
    }
}

/// Whether a card has a table of its own.
fn known(links: &BTreeMap<String, Link>, name: &str, mac: Mac) -> bool {
    links.contains_key(name) || links.values().any(|link| link.mac == Some(mac))
}

fn dhcp() -> Link {
    Link { dhcp4: true, ..Link::default() }
}

/// What a method of `ip=` gives a link.
fn by(method: &str) -> Result<Link, String> {
    match method {
        "dhcp" | "on" | "any" | "single-dhcp" => Ok(dhcp()),
        "auto6" | "either6" => Ok(Link { accept_ra: Some(true), ..Link::default() }),
        "none" | "off" | "static" => Ok(Link::default()),
        "dhcp6" => Ok(Link { dhcp6: true, ..Link::default() }),
        other => Err(format!("{other:?} is no way to an address that kscratch knows (dhcp, dhcp6, auto6, none)")),
    }
}

/// Adds what one word says of a link to what others said.
fn merge(link: &mut Link, more: Link) -> Result<(), String> {
    link.dhcp4 |= more.dhcp4;
    link.dhcp6 |= more.dhcp6;
    link.accept_ra = more.accept_ra.or(link.accept_ra);
    link.mtu = more.mtu.or(link.mtu);
    link.addresses.extend(more.addresses);
    link.routes.extend(more.routes);
    Ok(())
}

fn net(address: &str, mask: &str) -> Result<IpNet, String> {
    let address: IpAddr = address.parse().map_err(|_| format!("{address:?} is no address"))?;
    let wrong = || format!("{mask:?} is no netmask of {address}");
    match (address, mask.parse::<Ipv4Addr>()) {
        (IpAddr::V4(address), Ok(mask)) => Ipv4Net::with_netmask(address, mask).map(IpNet::V4).map_err(|_| wrong()),
        // What a link of IPv6 has, as a rule (RFC 4291, 2.5.4).
        (IpAddr::V6(_), _) if mask.is_empty() => IpNet::new(address, 64).map_err(|_| wrong()),
        _ => IpNet::new(address, mask.parse().map_err(|_| wrong())?).map_err(|_| wrong()),
    }
}

fn server(text: &str) -> Result<Ipv4Addr, String> {
    match text.parse() {
        Ok(IpAddr::V4(server)) => Ok(server),
        Ok(IpAddr::V6(server)) => Err(format!("{server} is an IPv6 address, which pods cannot ask for names")),
        Err(_) => Err(format!("{text:?} is no address")),
    }
}

fn mtu(text: &str) -> Result<u32, String> {
    let mtu = text.parse().ok().filter(|mtu| (576..=65535).contains(mtu));
    mtu.ok_or_else(|| format!("{text:?} is no MTU (576 to 65535)"))
}

fn optional_mtu(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() { Ok(None) } else { mtu(text).map(Some) }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Splits at colons outside of brackets, which IPv6 addresses stand in, and drops the brackets.
fn fields(value: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut field, mut inside) = (Vec::new(), String::new(), false);
    for character in value.chars() {
        match character {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            ':' if !inside => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    if inside {
        return Err("a bracket is not closed".to_owned());
    }
    fields.push(field);
    Ok(fields)
}
