//! The role metadata of one machine: what a node and a master are given of the cluster's identity, and what is refused.
use std::collections::BTreeMap;
use std::fs;

use expect_test::{Expect, expect};
use kscratch_image::cluster::folder::{AUTHORITIES, CLUSTER_CA, Folder};
use kscratch_image::cluster::metadata::{Machine, Members, Rendered, render};
use kscratch_image::cluster::settings::Settings;
use kscratch_image::cluster::token::{self, Lapse};
use kscratch_image::cluster::{machines, new};
use kscratch_metadata::{RoleMetadata, parse, parse_with_secrets};
use kscratch_pki::{Authority, Duration, Key};

use crate::{lab, now, settings, words};

fn machine(role: &str) -> Machine {
    Machine { name: "m1".to_owned(), role: role.to_owned(), ..Machine::default() }
}

fn rendered(folder: &Folder, machine: &Machine, apart: bool) -> Rendered {
    render(folder, machine, &Members::new(), apart, "--", now()).unwrap()
}

#[test]
fn masters_are_told_of_the_address_that_they_share() {
    let parent = tempfile::tempdir().unwrap();
    let settings = Settings { endpoint: "192.168.7.5".to_owned(), virtual_endpoint: true, ..settings() };
    let settings = settings.checked("--").unwrap();
    let folder = new::new(parent.path(), &settings, Lapse::Never, now()).unwrap();
    assert_eq!(folder.settings, settings, "what was written is read again");
    assert!(settings.summary().starts_with("virtual endpoint 192.168.7.5:6443, pods "), "{}", settings.summary());
    let master = Machine { address: Some("192.168.7.10/24".to_owned()), ..machine("master") };
    let metadata = parse(&rendered(&folder, &master, false).role).unwrap();
    assert_eq!(metadata.control_plane.unwrap().virtual_address, Some("192.168.7.5".parse().unwrap()));
    let node = rendered(&folder, &machine("node"), false).role;
    assert!(node.contains("endpoint = \"192.168.7.5:6443\"") && !node.contains("virtual"), "{node}");
    let elsewhere = Machine { address: Some("192.168.8.10/24".to_owned()), ..machine("master") };
    let error = render(&folder, &elsewhere, &Members::new(), false, "", now()).unwrap_err().to_string();
    assert!(error.starts_with("virtual_endpoint: 192.168.7.5 lies outside 192.168.8.0/24"), "{error}");
}

#[test]
fn a_machine_has_its_own_time_servers_or_its_clusters() {
    let parent = tempfile::tempdir().unwrap();
    let of_all = vec!["time.lab".to_owned(), "192.168.7.1".to_owned()];
    let settings = Settings { time_servers: of_all.clone(), ..settings() }.checked("--").unwrap();
    let folder = new::new(parent.path(), &settings, Lapse::Never, now()).unwrap();
    assert_eq!(folder.settings, settings, "what was written is read again");
    for (own, want) in [(vec![], of_all), (vec!["192.168.7.2".to_owned()], vec!["192.168.7.2".to_owned()])] {
        let machine = Machine { time_servers: own, ..machine("node") };
        assert_eq!(parse(&rendered(&folder, &machine, false).role).unwrap().time.servers, want);
    }
    let wrong = vec!["time lab".to_owned()];
    let machine = Machine { time_servers: wrong.clone(), ..machine("node") };
    let error = render(&folder, &machine, &Members::new(), false, "--", now()).unwrap_err().to_string();
    assert!(error.starts_with("--time-server: \"time lab\" is neither"), "{error}");
    let error = Settings { time_servers: wrong, ..settings }.checked("").unwrap_err().to_string();
    assert!(error.starts_with("time_server: \"time lab\" is neither"), "{error}");
}

#[test]
fn a_node_is_given_a_token_and_no_key() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    // Without the keys it can be rendered too: they are not even read.
    for files in AUTHORITIES {
        fs::remove_file(folder.file(files.key)).unwrap();
    }
    let node = Machine {
        interface: Some("52:54:00:12:34:56".to_owned()),
        address: Some("192.168.7.11/24".to_owned()),
        gateway: Some("192.168.7.1".to_owned()),
        dns_servers: vec!["192.168.7.1".to_owned()],
        labels: BTreeMap::from([("example.org/rack".to_owned(), "a".to_owned())]),
        taints: vec!["dedicated=db:NoSchedule".to_owned()],
        ..machine("node")
    };
    let whole = rendered(&folder, &node, false);
    assert!(!whole.role.contains("PRIVATE KEY") && whole.secrets.is_none(), "{}", whole.role);
    assert_eq!(whole.joins_until, Some(now() + Duration::days(30)));
    let tokens = token::read(&folder).unwrap();
    let shown = whole.role.replace(&folder.text(CLUSTER_CA.certificate).unwrap(), "PEM\n");
    expect![[r#"
        version = 1
        role = "node"

        [cluster]
        name = "lab"
        endpoint = "192.168.7.10:6443"
        pod_range = "10.244.0.0/16"
        service_range = "10.96.0.0/16"
        dns_domain = "cluster.local"
        ca = """
        PEM
        """

        [node]
        name = "m1"
        taints = ["dedicated=db:NoSchedule"]

        [node.labels]
        "example.org/rack" = "a"

        [network]
        mode = "routed"
        proxy_mode = "nftables"
        interface = "52:54:00:12:34:56"
        dns_servers = ["192.168.7.1"]

        [network.static]
        address = "192.168.7.11/24"
        gateway = "192.168.7.1"

        [join]
        token = "TOKEN"
    "#]]
    .assert_eq(&shown.replace(tokens[0].token.expose(), "TOKEN"));
    let parted = rendered(&folder, &node, true);
    let secrets = parted.secrets.unwrap();
    assert!(!parted.role.contains(tokens[0].token.expose()), "{}", parted.role);
    assert_eq!(parse_with_secrets(&parted.role, &secrets).unwrap(), parse(&whole.role).unwrap());

    let later = now() + Duration::days(31);
    let ended = render(&folder, &node, &Members::new(), false, "--", later).unwrap_err();
    expect![[r#"
        error: lab has no join token that is still good
        hint: kscratch-image cluster token create lab
    "#]]
    .assert_eq(&words(&ended));
}

#[test]
fn link_and_docker_are_as_they_are_said_to_be() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    let plain = parse(&rendered(&folder, &machine("node"), false).role).unwrap();
    assert_eq!((plain.network.mtu, plain.network.masquerade, plain.docker.mirrors.len()), (None, true, 0));
    let said = Machine {
        mtu: Some(9000),
        masquerade: Some(false),
        docker_mirrors: vec!["https://mirror.example.org".to_owned()],
        insecure_registries: vec!["registry.example.org:5000".to_owned(), "10.0.0.0/8".to_owned()],
        ..machine("node")
    };
    let told = parse(&rendered(&folder, &said, false).role).unwrap();
    assert_eq!((told.network.mtu, told.network.masquerade), (Some(9000), false));
    assert_eq!(told.docker.mirrors, ["https://mirror.example.org"]);
    assert_eq!(told.docker.insecure_registries, ["registry.example.org:5000", "10.0.0.0/8"]);
    // A list of machines says it with the keys of a file.
    let list = "version = 1\n[[machines]]\nname = \"m1\"\nrole = \"node\"\nmtu = 9000\nmasquerade = false\n\
                docker_mirrors = [\"https://mirror.example.org\"]\ninsecure_registries = [\"registry.example.org:5000\", \"10.0.0.0/8\"]\n";
    let path = parent.path().join("machines.toml");
    fs::write(&path, list).unwrap();
    assert_eq!(machines::read(&path).unwrap(), [said]);
}

#[test]
fn a_master_is_given_the_whole_identity() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    token::create(&folder, Lapse::Never, now()).unwrap();
    // One that has ended is no use to a master.
    token::create(&folder, Lapse::After(Duration::hours(1)), now() - Duration::days(1)).unwrap();
    let master = Machine { schedule_pods: true, api_names: vec!["api.example.org".to_owned()], ..machine("master") };
    let whole = rendered(&folder, &master, false);
    let metadata: RoleMetadata = parse(&whole.role).unwrap();
    assert_eq!((metadata.join.token.as_ref(), whole.joins_until), (None, None));
    let control_plane = metadata.control_plane.clone().unwrap();
    assert_eq!(control_plane.names, ["api.example.org"]);
    assert_eq!(control_plane.schedule_pods, Some(true));
    let secrets = control_plane.secrets.unwrap();
    let ca = metadata.cluster.as_ref().unwrap().ca.as_ref().unwrap();
    Authority::parse(ca, secrets.ca_key.expose()).unwrap();
    Authority::parse(&secrets.etcd_ca, secrets.etcd_ca_key.expose()).unwrap();
    Authority::parse(&secrets.front_proxy_ca, secrets.front_proxy_ca_key.expose()).unwrap();
    let service_account = Key::parse(secrets.service_account_key.expose()).unwrap();
    assert_eq!(secrets.service_account_public_key, service_account.public_pem());
    let expires: Vec<_> = secrets.tokens.iter().map(|token| token.expires.as_deref()).collect();
    assert_eq!(expires, [Some("2027-02-14T08:00:00Z"), None]);

    let parted = rendered(&folder, &master, true);
    assert!(!parted.role.contains("PRIVATE KEY"), "{}", parted.role);
    assert_eq!(parse_with_secrets(&parted.role, &parted.secrets.unwrap()).unwrap(), metadata);

    // A key of another authority goes to no machine.
    fs::copy(folder.file("secrets/etcd-ca.key"), folder.file(CLUSTER_CA.key)).unwrap();
    let error = render(&folder, &master, &Members::new(), false, "--", now()).unwrap_err();
    let said = words(&error).replace(&parent.path().display().to_string(), "DIR");
    expect![[r#"
        error: reading DIR/lab/secrets/ca.crt and DIR/lab/secrets/ca.key
          because: the key does not belong to the certificate of kubernetes
    "#]]
    .assert_eq(&said);
}

#[test]
fn what_a_machine_would_refuse_is_told_in_the_users_words() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    let row = |machine: Machine, members: &[(&str, &str)], want: Expect| {
        let members = members.iter().map(|(name, ip)| ((*name).to_owned(), (*ip).to_owned())).collect();
        want.assert_eq(&words(&render(&folder, &machine, &members, false, "--", now()).unwrap_err()));
    };
    let text = |text: &str| Some(text.to_owned());
    row(
        Machine { address: text("192.168.7.11"), gateway: text("a"), interface: text("lo"), ..machine("node") },
        &[],
        expect![[r#"
            error: --interface: "lo" is no link to the outside; give the name or the hardware address of a network card
            --address: "192.168.7.11" has no prefix length; write it like 192.168.7.11/24
            --gateway: "a" is no IPv4 address; write it like 192.168.7.10
        "#]],
    );
    row(
        Machine { gateway: text("192.168.7.1"), ..machine("node") },
        &[],
        expect![[r#"
            error: --gateway goes with --address; with DHCP the server names the gateway
        "#]],
    );
    row(
        Machine { schedule_pods: true, ..machine("node") },
        &[],
        expect![[r#"
            error: --schedule-pods is for masters only
        "#]],
    );
    row(
        Machine {
            mtu: Some(500),
            docker_mirrors: vec!["https://mirror.example.org/path".to_owned()],
            insecure_registries: vec!["http://registry".to_owned()],
            ..machine("node")
        },
        &[],
        expect![[r#"
            error: --mtu: 500 is smaller than 576; give a value between 576 and 65535
            --insecure-registry: "http://registry" has a scheme; leave out "http://" and write "registry"
            --docker-mirror: "https://mirror.example.org/path" has a path; give scheme, host and port only: dockerd takes nothing more
        "#]],
    );
    row(
        Machine { disks: vec!["for = \"etcd\"\npath = \"/dev/sdb\"".parse().unwrap()], ..machine("node") },
        &[],
        expect![[r#"
            error: --disk: is for masters only; remove it, or write role = "master"
            --disk: "/dev/sdb" is given by order, and another disk's at the next boot; give what `ls -l /dev/disk/by-path` shows for it, e.g. pci-0000:00:1f.2-ata-1
        "#]],
    );
    row(
        machine("master"),
        &[("m1", "192.168.7.10"), ("m2", "192.168.7.11")],
        expect![[r#"
            error: --etcd-member: names 2 members; name 1, 3 or 5 masters, or have this one join those that live
        "#]],
    );
    let joins = |role: &str| Machine { join_control_plane: true, ..machine(role) };
    row(
        joins("node"),
        &[],
        expect![[r#"
        error: --join-control-plane is for masters only
    "#]],
    );
    row(
        joins("master"),
        &[],
        expect![[r#"
        error: --join-control-plane: no master that lives is named
        hint: add --etcd-member NODE=IP for every master that lives, and for this machine; a master whose own metadata has no --etcd-member cannot be joined: give it metadata with one for itself, and restart it
    "#]],
    );
    row(
        joins("master"),
        &[("m1", "192.168.7.10")],
        expect![[r#"
        error: --join-control-plane: there is no other member to ask; name two members or more: this master, and those that live
    "#]],
    );
}

#[test]
fn a_master_joins_those_that_live() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    let joins = Machine { join_control_plane: true, ..machine("master") };
    let members = [("m0", "192.168.7.9"), ("m1", "192.168.7.10")].map(|(name, ip)| (name.to_owned(), ip.to_owned()));
    let role = render(&folder, &joins, &members.into(), false, "--", now()).unwrap().role;
    let etcd = parse(&role).unwrap().control_plane.unwrap().etcd;
    assert_eq!((etcd.join, etcd.members.len()), (true, 2));
}

#[test]
fn links_of_a_list_reach_the_machine() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    let links = "[eth0]\n[eth1]\n[bond0]\nbond = { members = [\"eth0\", \"eth1\"], mode = \"802.3ad\" }\n\
        [\"bond0.7\"]\nvlan = { over = \"bond0\", id = 7 }\naddresses = [\"2001:db8::7/64\", \"192.168.7.11/24\"]\n\
        [\"bond0.8\"]\nvlan = { over = \"bond0\", id = 8 }\naddresses = [\"192.168.8.11/24\"]\nprimary = true\n";
    let node = Machine { links: links.parse().unwrap(), mac: Some("52:54:00:12:34:56".to_owned()), ..machine("node") };
    assert_eq!(node.fixed_address(), Some("192.168.8.11"));
    let network = parse(&rendered(&folder, &node, false).role).unwrap().network;
    assert_eq!(network.links.len(), 5);
    assert_eq!(network.links["bond0"].bond.as_ref().unwrap().members, ["eth0", "eth1"]);
    assert_eq!(network.interface, None);
    let wrong = Machine { interface: Some("eth0".to_owned()), ..node };
    let error = render(&folder, &wrong, &Members::new(), false, "", now()).unwrap_err().to_string();
    assert!(error.contains("interface: stands beside network.links"), "{error}");
}
