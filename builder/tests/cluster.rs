//! A cluster's identity as its owner sees it: what is made, what each machine is given of it, and what a check finds.
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use expect_test::{Expect, expect};
use kscratch_image::cluster::check;
use kscratch_image::cluster::folder::{AUTHORITIES, CLUSTER_CA, Folder};
use kscratch_image::cluster::metadata::{Machine, Members, Rendered, render};
use kscratch_image::cluster::settings::Settings;
use kscratch_image::cluster::token::{self, Lapse};
use kscratch_image::cluster::{kubeconfigs, machines, new};
use kscratch_image::console::error_lines;
use kscratch_metadata::{Identity, Mac, RoleMetadata, parse, parse_with_secrets, select};
use kscratch_pki::{Authority, Certificate, Duration, Key, OffsetDateTime, Usage, Wanted};

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn settings() -> Settings {
    Settings {
        version: 1,
        name: "lab".to_owned(),
        endpoint: "192.168.7.10".to_owned(),
        virtual_endpoint: false,
        pod_range: "10.244.0.0/16".to_owned(),
        service_range: "10.96.0.0/16".to_owned(),
        dns_domain: "cluster.local".to_owned(),
        mode: "routed".to_owned(),
        proxy_mode: "nftables".to_owned(),
    }
}

fn lab(parent: &Path) -> Folder {
    new::new(parent, &settings().checked("--").unwrap(), Lapse::After(Duration::days(30)), now()).unwrap()
}

fn machine(role: &str) -> Machine {
    Machine { name: "m1".to_owned(), role: role.to_owned(), ..Machine::default() }
}

fn rendered(folder: &Folder, machine: &Machine, apart: bool) -> Rendered {
    render(folder, machine, &Members::new(), apart, "--", now()).unwrap()
}

fn words(error: &anyhow::Error) -> String {
    error_lines(error).join("\n") + "\n"
}

/// Every file and folder with its mode.
fn tree(folder: &Path, below: &str, text: &mut String) {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let path = folder.join(&name);
        let shown = format!("{below}{}", name.to_str().unwrap());
        let metadata = path.metadata().unwrap();
        *text += &format!("{:o} {shown}\n", metadata.permissions().mode() & 0o777);
        if metadata.is_dir() {
            tree(&path, &format!("{shown}/"), text);
        }
    }
}

#[test]
fn a_folder_is_made_once() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    let mut text = String::new();
    tree(parent.path(), "", &mut text);
    expect![[r#"
        755 lab
        600 lab/admin.kubeconfig
        644 lab/cluster.toml
        700 lab/secrets
        644 lab/secrets/ca.crt
        600 lab/secrets/ca.key
        600 lab/secrets/encryption.key
        644 lab/secrets/etcd-ca.crt
        600 lab/secrets/etcd-ca.key
        644 lab/secrets/front-proxy-ca.crt
        600 lab/secrets/front-proxy-ca.key
        600 lab/secrets/service-account.key
        644 lab/secrets/service-account.pub
        600 lab/secrets/tokens.toml
        600 lab/super-admin.kubeconfig
    "#]]
    .assert_eq(&text);
    expect![[r#"
        # What all machines of this cluster are told alike, as `kscratch-image cluster new` wrote it. No secret stands here.
        version = 1
        name = "lab"
        endpoint = "192.168.7.10:6443"
        pod_range = "10.244.0.0/16"
        service_range = "10.96.0.0/16"
        dns_domain = "cluster.local"
        mode = "routed"
        proxy_mode = "nftables"
    "#]]
    .assert_eq(&folder.text("cluster.toml").unwrap());
    for files in AUTHORITIES {
        let certificate = Certificate::parse(&folder.text(files.certificate).unwrap()).unwrap();
        assert_eq!(certificate.facts().names.common_name, files.name);
        // A hardware clock in local time is not before it.
        assert_eq!(certificate.facts().not_before, now() - Duration::days(1));
    }

    // Never again, and nothing has changed.
    let key = folder.text(CLUSTER_CA.key).unwrap();
    let again = || new::new(parent.path(), &folder.settings, Lapse::Never, now()).unwrap_err();
    let said = words(&again()).replace(&parent.path().display().to_string(), "DIR");
    expect![[r#"
        error: the cluster lab is there already, in DIR/lab: endpoint 192.168.7.10:6443, pods 10.244.0.0/16, services 10.96.0.0/16, cluster.local, routed, nftables
        hint: kscratch-image cluster check lab tells how it stands; for another cluster take another name
    "#]]
    .assert_eq(&said);
    assert_eq!(folder.text(CLUSTER_CA.key).unwrap(), key);
    // Nor into a folder that is something else, were it empty.
    fs::remove_dir_all(folder.path()).unwrap();
    fs::create_dir(folder.path()).unwrap();
    let said = words(&again()).replace(&parent.path().display().to_string(), "DIR");
    expect![[r#"
        error: DIR/lab is there already, and it is no cluster's folder: it has no cluster.toml
        hint: take another name, or another folder with --folder DIR
    "#]]
    .assert_eq(&said);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn settings_that_machines_would_refuse_are_refused() {
    let row = |change: &dyn Fn(&mut Settings), want: Expect| {
        let mut settings = settings();
        change(&mut settings);
        want.assert_eq(&settings.checked("--").unwrap_err().to_string());
    };
    row(
        &|settings| settings.service_range = "10.244.0.0/16".to_owned(),
        expect![
            "--service-range: 10.244.0.0/16 overlaps cluster.pod_range, 10.244.0.0/16; move one of the two: set cluster.service_range or cluster.pod_range"
        ],
    );
    row(
        &|settings| settings.endpoint = "10.244.0.9".to_owned(),
        expect![
            "--endpoint: 10.244.0.9 lies inside cluster.pod_range, 10.244.0.0/16; give the address under which the masters are reached from outside"
        ],
    );
    row(
        &|settings| settings.endpoint = "https://a".to_owned(),
        expect![[r#"--endpoint: "https://a" has a scheme; leave out "https://" and write "a""#]],
    );
    row(
        &|settings| (settings.virtual_endpoint, settings.endpoint) = (true, "api.lab".to_owned()),
        expect![[r#"--endpoint: "api.lab" is a name; give the IPv4 address that the masters are to share"#]],
    );
    row(
        &|settings| (settings.virtual_endpoint, settings.endpoint) = (true, "192.168.7.5:443".to_owned()),
        expect![[
            r#"--endpoint: port 443 is not where a master that has the virtual address answers; write "192.168.7.5:6443""#
        ]],
    );
    row(
        &|settings| settings.mode = "flat".to_owned(),
        expect![[r#"--mode: "flat" is no mode; use "routed" or "overlay""#]],
    );
    row(
        &|settings| settings.proxy_mode = "ipvs".to_owned(),
        expect![[r#"--proxy-mode: "ipvs" is no mode of kube-proxy; use "nftables" or "iptables""#]],
    );
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
        machine("master"),
        &[("m1", "192.168.7.10"), ("m2", "192.168.7.11")],
        expect![[r#"
            error: --etcd-member: names 2 members; name 1, 3 or 5 masters
        "#]],
    );
}

const RACK: &str = r#"
version = 1
[[machines]]
name = "m1"
role = "master"
mac = "52:54:00:00:00:10"
address = "192.168.7.10/24"
[[machines]]
name = "n1"
role = "node"
serial = "ABC123"
[[machines]]
name = "n2"
role = "node"
mac = "52-54-00-00-00-12"
"#;

#[test]
fn a_rack_gets_a_file_a_machine() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    let (list, out) = (parent.path().join("machines.toml"), parent.path().join("out"));
    let write = |text: &str| {
        fs::write(&list, text).unwrap();
        machines::write_all(&folder, &list, &out, now())
    };
    let written = write(RACK).unwrap();
    let mut text = String::new();
    tree(&out, "", &mut text);
    assert_eq!(text, "600 m1.toml\n600 n1.toml\n600 n2.toml\n600 rack.toml\n");
    assert_eq!(
        written.rack.summary("rack/rack.toml".as_ref()),
        "rack/rack.toml: one file for n1, n2; not in it: m1 (a file of its own holds the cluster's keys)"
    );
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert!(read("m1.toml").starts_with("# For master m1 of the cluster lab (mac 52:54:00:00:00:10).\n"));
    assert!(read("m1.toml").contains("interface = \"52:54:00:00:00:10\""), "a fixed address goes to the known link");
    for node in ["n1.toml", "n2.toml"] {
        assert!(!read(node).contains("PRIVATE KEY"), "{node} holds a key");
        parse(&read(node)).unwrap();
    }

    let rack = read("rack.toml");
    assert!(
        rack.starts_with("# For the nodes of the cluster lab: each picks its own entry.\n")
            && !rack.contains("PRIVATE KEY")
    );
    let (_, machines) = rack.split_once("\n[[machines]]").unwrap();
    expect![[r#"

        serial = "ABC123"

        [machines.node]
        name = "n1"

        [[machines]]
        mac = "52-54-00-00-00-12"

        [machines.node]
        name = "n2"
    "#]]
    .assert_eq(machines);
    for (name, identity) in [
        ("n1.toml", Identity::new([], "ABC123\n", "")),
        ("n2.toml", Identity::new([Mac([0x52, 0x54, 0, 0, 0, 0x12])], "", "")),
    ] {
        assert_eq!(select(&rack, &identity).unwrap().metadata, parse(&read(name)).unwrap());
    }

    fs::remove_dir_all(&out).unwrap();
    let untold = RACK.replace("serial = \"ABC123\"\n", "").replace("mac = \"52-54-00-00-00-12\"", "");
    let written = write(&untold).unwrap();
    assert_eq!(
        written.rack.summary("rack/rack.toml".as_ref()),
        "there is no rack/rack.toml; not in it: m1 (a file of its own holds the cluster's keys); \
         not in it: n1, n2 (without mac, serial or uuid, nothing tells it)"
    );
    assert!(!out.join("rack.toml").exists());

    fs::remove_dir_all(&out).unwrap();
    let row = |text: &str, want: Expect| {
        let said = words(&write(text).unwrap_err()).replace(&list.display().to_string(), "machines.toml");
        want.assert_eq(&said);
        assert!(!out.exists(), "something was written");
    };
    row(
        &RACK.replace("52-54-00-00-00-12", "52:54:00:00:00:10"),
        expect![[r#"
            error: reading machines.toml
              because: n2: mac: 52:54:00:00:00:10 is the mac of m1 too
        "#]],
    );
    row(
        &RACK.replace("serial = \"ABC123\"", "role2 = 1"),
        expect![[r#"
            error: reading machines.toml
              because: TOML parse error at line 11, column 1
               |
            11 | role2 = 1
               | ^^^^^
            unknown field `role2`, expected one of `name`, `role`, `mac`, `serial`, `uuid`, `interface`, `address`, `gateway`, `dns_servers`, `pod_range`, `labels`, `taints`, `schedule_pods`, `api_names`

        "#]],
    );
    row(
        &RACK.replace("serial = \"ABC123\"", "address = \"192.168.7\"\npod_range = \"10.9.0.0/24\""),
        expect![[r#"
            error: reading machines.toml
              because: n1: address: "192.168.7" is no ADDRESS/PREFIX; write it like 10.244.0.0/16
            n1: pod_range: 10.9.0.0/24 lies outside cluster.pod_range, 10.244.0.0/16; give a part of 10.244.0.0/16
        "#]],
    );
    row(
        &RACK
            .replace("ABC123", "Default string\"\npod_range = \"10.244.5.0/24")
            .replace("52-54-00-00-00-12\"", "53-54-00-00-00-12\"\npod_range = \"10.244.5.0/24\""),
        expect![[r#"
            error: reading machines.toml
              because: n1: serial: "Default string" is what vendors leave in, and other machines have it too; tell the machine by its mac
            n2: mac: 53:54:00:00:00:12 is no network card's address; give that of one of the machine's cards
            n2: pod_range: 10.244.5.0/24 overlaps that of n1, 10.244.5.0/24; give each machine its own
        "#]],
    );
    row(
        &RACK.replace("n2", "rack"),
        expect![[r#"
            error: reading machines.toml
              because: rack: name: rack.toml is the file for all machines; give the machine another name
        "#]],
    );
    let three = RACK.replace("role = \"node\"", "role = \"master\"");
    row(
        &three,
        expect![[r#"
            error: reading machines.toml
              because: n1: address: is missing; etcd's members have to know one another by fixed addresses
        "#]],
    );
    let addressed = three
        .replace("serial = \"ABC123\"", "address = \"192.168.7.11/24\"")
        .replace("mac = \"52-54-00-00-00-12\"", "address = \"192.168.7.12/24\"");
    write(&addressed).unwrap();
    let members = parse(&read("n2.toml")).unwrap().control_plane.unwrap().etcd.members;
    assert_eq!(members.len(), 3, "{members:?}");
}

#[test]
fn tokens_end() {
    let parent = tempfile::tempdir().unwrap();
    let folder = lab(parent.path());
    for (text, want) in [
        ("90m", Ok(Lapse::After(Duration::minutes(90)))),
        ("24h", Ok(Lapse::After(Duration::hours(24)))),
        ("never", Ok(Lapse::Never)),
        ("0h", Err("`0h` is over at once")),
        ("9999d", Err("`9999d` is longer than ten years; say `never`")),
        ("+1h", Ok(Lapse::After(Duration::hours(1)))),
        ("1", Err("`1` is no time such as `90m`, `24h` or `30d`, nor `never`")),
        ("", Err("`` is no time such as `90m`, `24h` or `30d`, nor `never`")),
        ("1\u{e4}", Err("`1\u{e4}` is no time such as `90m`, `24h` or `30d`, nor `never`")),
    ] {
        assert_eq!(text.parse::<Lapse>(), want.map_err(str::to_owned), "{text}");
    }
    let day = token::create(&folder, Lapse::After(Duration::hours(24)), now()).unwrap();
    let tokens = token::read(&folder).unwrap();
    assert_eq!(tokens[1], day);
    assert!(day.good(now() + Duration::hours(23)) && !day.good(now() + Duration::hours(24)));
    let table = token::table(&tokens, now() + Duration::days(2));
    let table = tokens.iter().fold(table, |table, kept| table.replace(kept.token.expose(), "abcdef.0123456789abcdef"));
    expect![[r#"
        TOKEN                    CREATED               EXPIRES               STATE
        abcdef.0123456789abcdef  2027-01-15T08:00:00Z  2027-02-14T08:00:00Z  good
        abcdef.0123456789abcdef  2027-01-15T08:00:00Z  2027-01-16T08:00:00Z  ended
    "#]]
    .assert_eq(&table);
    let secret: serde_json::Value = serde_json::from_str(&token::secret(&day).unwrap()).unwrap();
    assert_eq!(secret["metadata"]["name"], format!("bootstrap-token-{}", day.token.id()));
    assert_eq!(secret["stringData"]["expiration"], "2027-01-16T08:00:00Z");

    // A fault in the file shows its line, not what stands there.
    let text = folder.text("secrets/tokens.toml").unwrap();
    fs::write(folder.file("secrets/tokens.toml"), text.replace("created", "credit")).unwrap();
    let said = words(&token::read(&folder).unwrap_err());
    assert!(said.contains("line 3: unknown field `credit`") && !said.contains(day.token.secret()), "{said}");
}

#[track_caller]
fn table(folder: &Folder, at: OffsetDateTime, want: Expect) -> usize {
    let report = check::cluster(folder, at);
    let parent = folder.path().parent().unwrap().display().to_string();
    let mut table = report.table.replace(&parent, "DIR");
    for kept in token::read(folder).unwrap() {
        table = table.replace(kept.token.id(), "abcdef");
    }
    // The network's own words differ from machine to machine.
    let lines = table.lines().map(|line| if line.contains("asking https") { "                   …" } else { line });
    want.assert_eq(&lines.map(|line| format!("{line}\n")).collect::<String>());
    report.failed
}

#[test]
fn a_check_finds_what_is_wrong() {
    let parent = tempfile::tempdir().unwrap();
    let mut folder = lab(parent.path());
    // Nothing listens there.
    folder.settings.endpoint = "127.0.0.1:9".to_owned();
    kubeconfigs::renew(&folder, now()).unwrap();
    let failed = table(
        &folder,
        now(),
        expect![[r#"
            ok               settings are sound, ranges apart   endpoint 127.0.0.1:9, pods 10.244.0.0/16, services 10.96.0.0/16, cluster.local, routed, nftables
            ok               secrets are their owner's alone
            ok               keys fit their certificates
            ok               authorities last                   kubernetes 3649 days, etcd-ca 3649 days, front-proxy-ca 3649 days
            ok               service account keys are sound
            ok               kubeconfigs are good               admin.kubeconfig 365 days, super-admin.kubeconfig 365 days
            ok               a token is good                    abcdef until 2027-02-14T08:00:00Z
            could not check  the endpoint proves itself
                               …
            could not check  the endpoint's clock is right
                               …
        "#]],
    );
    assert_eq!(failed, 0);

    fs::set_permissions(folder.file("secrets/ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::copy(folder.file("secrets/etcd-ca.key"), folder.file("secrets/front-proxy-ca.key")).unwrap();
    fs::write(folder.file("secrets/service-account.pub"), Key::generate().unwrap().public_pem()).unwrap();
    fs::write(folder.file("secrets/encryption.key"), "c2hvcnQ=\n").unwrap();
    folder.settings.endpoint = "127.0.0.1:1".to_owned();
    let failed = table(
        &folder,
        now() + Duration::days(3400),
        expect![[r#"
            ok               settings are sound, ranges apart   endpoint 127.0.0.1:1, pods 10.244.0.0/16, services 10.96.0.0/16, cluster.local, routed, nftables
            failed           secrets are their owner's alone    who reads them owns the cluster
                               DIR/lab/secrets/ca.key has mode 640: chmod go= DIR/lab/secrets/ca.key
            failed           keys fit their certificates        masters could not make certificates that anyone believes
                               secrets/front-proxy-ca.crt, secrets/front-proxy-ca.key: the key does not belong to the certificate of front-proxy-ca
            failed           authorities last                   every certificate of the cluster ends with its authority
                               kubernetes ends in 249 days, on 2037-01-11T08:00:00Z
                               etcd-ca ends in 249 days, on 2037-01-11T08:00:00Z
                               front-proxy-ca ends in 249 days, on 2037-01-11T08:00:00Z
            failed           service account keys are sound     pods would be nobody to the API server, and stored secrets unreadable
                               secrets/service-account.pub is not the public part of secrets/service-account.key
                               secrets/encryption.key is not 32 bytes in base64
            failed           kubeconfigs are good               people would be refused
                               admin.kubeconfig: it names https://127.0.0.1:9, not https://127.0.0.1:1; `kscratch-image cluster kubeconfig lab` makes it anew
                               super-admin.kubeconfig: it names https://127.0.0.1:9, not https://127.0.0.1:1; `kscratch-image cluster kubeconfig lab` makes it anew
            failed           a token is good                    no new machine could join
                               of 1 tokens none is good any more: `kscratch-image cluster token create lab` makes one
            could not check  the endpoint proves itself
                               …
            could not check  the endpoint's clock is right
                               …
        "#]],
    );
    assert_eq!(failed, 6);
}

/// `openssl s_server` with this certificate, and its address. It answers everyone with `answer`.
fn server(folder: &Path, certificate: &str, key: &str, answer: &str) -> (Child, String) {
    fs::write(folder.join("server.crt"), certificate).unwrap();
    fs::write(folder.join("server.key"), key).unwrap();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-cert", "server.crt", "-key", "server.key", "-naccept", "1"]);
    command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("this test needs `openssl`: apt-get install openssl");
    child.stdin.as_mut().unwrap().write_all(answer.as_bytes()).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned));
    // What it says further is read to the end, so that it never waits.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address.expect("openssl names its port"))
}

#[test]
fn an_endpoint_has_to_prove_itself() {
    let parent = tempfile::tempdir().unwrap();
    let mut folder = lab(parent.path());
    let read = |name| folder.text(name).unwrap();
    let authority = Authority::parse(&read(CLUSTER_CA.certificate), &read(CLUSTER_CA.key)).unwrap();
    let stranger = Authority::new("kubernetes", now() - Duration::days(1), 10).unwrap();
    // TLS is checked by this machine's clock; the certificate is good by both.
    let real = OffsetDateTime::now_utc();
    let begin = real - Duration::days(1);
    let authority_now = Authority::new_with_pair("kubernetes", begin, 10).unwrap();
    drop(authority);
    fs::write(folder.file(CLUSTER_CA.certificate), &authority_now.1.certificate_pem).unwrap();
    fs::write(folder.file(CLUSTER_CA.key), &authority_now.1.key_pem).unwrap();
    let wanted = |address: [u8; 4]| Wanted {
        addresses: vec![address.into()],
        usages: [Usage::Server].into(),
        ..Wanted::client("kube-apiserver", None)
    };
    let mut row = |authority: &Authority, address: [u8; 4], date: &str, want: [&str; 2]| {
        let pair = authority.issue(&wanted(address), real).unwrap();
        let answer = format!("HTTP/1.1 401 Unauthorized\r\n{date}Content-Length: 0\r\n\r\n");
        let (mut child, endpoint) = server(parent.path(), &pair.certificate_pem, &pair.key_pem, &answer);
        folder.settings.endpoint = endpoint.clone();
        let report = check::cluster(&folder, real);
        child.kill().unwrap();
        child.wait().unwrap();
        let from = report.table.find("the endpoint proves itself").unwrap();
        let from = report.table[..from].rfind('\n').unwrap() + 1;
        let said = report.table[from..].replace(&endpoint, "HOST:PORT");
        for want in want {
            assert!(said.contains(want), "{want:?} is not in\n{said}");
        }
    };
    let date = |time: OffsetDateTime| {
        let text = time.format(&time::format_description::well_known::Rfc2822).unwrap();
        format!("Date: {}\r\n", text.replace("+0000", "GMT"))
    };
    let here = [127, 0, 0, 1];
    let proven = "ok               the endpoint proves itself         https://HOST:PORT";
    row(&authority_now.0, here, &date(real), [proven, "ok               the endpoint's clock is right      0 s"]);
    row(&authority_now.0, here, &date(real - Duration::days(1)), [proven, "it is 86400 s behind of this machine's"]);
    row(
        &authority_now.0,
        here,
        "",
        [proven, "could not check  the endpoint's clock is right\n                   it does not tell the time"],
    );
    let failed = "failed           the endpoint proves itself";
    row(&authority_now.0, [127, 0, 0, 2], "", [failed, "not valid for"]);
    row(&stranger, here, "", [failed, "https://HOST:PORT: "]);
}
