//! Lays what the kernel command line says of the network under the role metadata, whose own word wins.
use kscratch_metadata::{Mac, RoleMetadata};

use crate::cmdline::network::Words;
use crate::facts::Facts;

/// Has metadata that say nothing of links, or of name servers, say what the command line does. Gives what there is to tell.
pub fn lay_under(words: &Words, metadata: &mut RoleMetadata, facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    if words.is_empty() {
        return lines;
    }
    if !metadata.network.leaves_links_open() {
        lines.push("network: as the metadata say; the kernel command line's is passed over".to_owned());
        return lines;
    }
    let cards: Vec<(&str, Mac)> = facts.links.iter().map(|(name, link)| (name.as_str(), Mac(link.mac))).collect();
    if let Some(network) = words.network(&cards, &mut lines) {
        lines.push("network: as the kernel command line says".to_owned());
        metadata.network.links = network.links;
    }
    if metadata.network.dns_servers.is_empty() {
        // MAXNS of resolv.conf(5).
        metadata.network.dns_servers = words.dns_servers.iter().take(3).copied().collect();
    }
    lines
}

#[cfg(test)]
mod tests {
    use kscratch_metadata::{RoleMetadata, parse};

    use super::lay_under;
    use crate::cmdline::CommandLine;
    use crate::plan::tests::facts;

    #[test]
    fn metadata_win() {
        let words = CommandLine::parse("ip=192.168.7.9::192.168.7.1:24::eth0:none nameserver=9.9.9.9").network;
        let mut open = RoleMetadata::standalone();
        let lines = lay_under(&words, &mut open, &facts());
        assert_eq!(lines, ["network: as the kernel command line says"]);
        assert_eq!(open.network.links["eth0"].addresses, ["192.168.7.9/24".parse().unwrap()]);
        assert_eq!(open.network.dns_servers, [std::net::Ipv4Addr::new(9, 9, 9, 9)]);

        let own = parse("version = 1\nrole = \"node\"\n[network]\ninterface = \"eth1\"\n").unwrap();
        let mut kept = own.clone();
        let lines = lay_under(&words, &mut kept, &facts());
        assert_eq!(lines, ["network: as the metadata say; the kernel command line's is passed over"]);
        assert_eq!(kept, own);

        // Name servers of its own and no word of links: half and half.
        let mut half = parse("version = 1\nrole = \"node\"\n[network]\ndns_servers = [\"9.9.9.1\"]\n").unwrap();
        lay_under(&words, &mut half, &facts());
        assert_eq!(half.network.dns_servers, [std::net::Ipv4Addr::new(9, 9, 9, 1)]);
        assert_eq!(half.network.links.len(), 1);

        let mut plain = RoleMetadata::standalone();
        assert!(lay_under(&CommandLine::parse("quiet").network, &mut plain, &facts()).is_empty());
        assert_eq!(lay_under(&CommandLine::parse("ip=dhcp").network, &mut plain, &facts()).len(), 0);
        assert_eq!(plain, RoleMetadata::standalone());
    }
}
