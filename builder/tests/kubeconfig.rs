//! `kubeconfig` on disks of machines whose power was cut: what they keep of their cluster is in the journal of their state alone.
mod holder;
mod tool;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use expect_test::{Expect, expect};
use holder::Holder;
use kscratch_formats::gpt;
use kscratch_image::cli::Cli;
use kscratch_image::commands::execute;
use kscratch_image::console::{Console, error_lines};
use kscratch_image::inspect::{self, Opened};
use kscratch_image::running::is_in_use;
use kscratch_image::store::Digest;
use kscratch_image::tree::{Content, Kind, Node, Origin, Tree};
use kscratch_image::write::{self, Format};
use kscratch_image::{filesystem, plan, uki};
use kscratch_pki::{Authority, Certificate, Key, OffsetDateTime, Token, Usage, Wanted, encryption_key};
use tempfile::TempDir;
use tool::run;

const MIB: u64 = 1 << 20;
const TIME: i64 = 1_760_000_000;
const BLOCK: usize = 4096;
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
const MASTER: &str = r#"{"kubernetes":"v1.37.2","role":"master"}"#;
const NODE: &str = r#"{"kubernetes":"v1.37.2","role":"node"}"#;
const CA: &str = "/lib/kscratch/cluster/ca.crt";
const SECRETS: &str = "/lib/kscratch/cluster/secrets.toml";
const SERVER: &str = "/lib/kubernetes/kube-apiserver/apiserver.crt";

type Files = BTreeMap<&'static str, String>;

fn root(release: &str) -> Tree {
    let node = |kind| Node {
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        xattrs: BTreeMap::new(),
        origin: Origin { declaration: "test".into(), artifact: "test".into() },
    };
    let mut nodes: BTreeMap<String, Node> = ["/", "/usr", "/usr/share", "/usr/share/kscratch"]
        .map(|path| (path.to_owned(), node(Kind::Directory)))
        .into_iter()
        .collect();
    let release = node(Kind::File(Content::Literal(release.as_bytes().into())));
    nodes.insert("/usr/share/kscratch/release.json".into(), release);
    Tree { nodes }
}

/// What a master's state holds once it has begun a cluster: as init's agent writes it.
fn begun(addresses: &[&str]) -> Files {
    let now = OffsetDateTime::now_utc();
    let authority = |name| Authority::new_with_pair(name, now, 10).unwrap();
    let (cluster, pair) = authority("kubernetes");
    let ((_, etcd), (_, front)) = (authority("etcd-ca"), authority("front-proxy-ca"));
    let accounts = Key::generate().unwrap();
    let secrets = [
        ("ca_key", &pair.key_pem),
        ("etcd_ca", &etcd.certificate_pem),
        ("etcd_ca_key", &etcd.key_pem),
        ("front_proxy_ca", &front.certificate_pem),
        ("front_proxy_ca_key", &front.key_pem),
        ("service_account_key", &accounts.pem()),
        ("service_account_public_key", &accounts.public_pem()),
    ];
    let mut text = "[control_plane.secrets]\n".to_owned();
    text.extend(secrets.map(|(name, value)| format!("{name} = '''\n{value}'''\n")));
    text += &format!("encryption_key = \"{}\"\n", encryption_key().unwrap());
    text += &format!("[[control_plane.secrets.tokens]]\ntoken = \"{}\"\n", Token::generate().unwrap().expose());
    let wanted = Wanted {
        usages: [Usage::Server].into(),
        dns_names: vec!["kubernetes".into(), "localhost".into(), "m1".into()],
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ..Wanted::client("kube-apiserver", None)
    };
    let server = cluster.issue(&wanted, now).unwrap().certificate_pem;
    Files::from([(CA, pair.certificate_pem), (SECRETS, text), (SERVER, server)])
}

/// The disk of a machine whose state has these files in its journal, and nowhere else.
fn disk(folder: &Path, release: &str, esp: &[(&str, &str)], files: &Files) -> PathBuf {
    let built = filesystem::root(&root(release), 16 * MIB, TIME).unwrap();
    let esp = esp.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    let boot = uki::Boot {
        stub: &fs::read(STUB).expect("systemd's EFI stub is missing: apt-get install systemd-boot-efi"),
        kernel: b"kernel",
        version: "6.12.0-test",
        initramfs: b"070701",
        cmdline: "",
        os_release: "ID=kscratch\n",
    };
    let esp = filesystem::esp(uki::build(&boot).unwrap(), &esp, 64 * MIB, 512, TIME).unwrap();
    let state = filesystem::state(64 * MIB, TIME, &built.digest).unwrap();
    let (path, plan) = (folder.join("disk.img"), plan::disk(esp, built, Some(state), 512).unwrap());
    write::image(&plan.image, folder, Format::Raw, &path, &|_| ()).unwrap();
    if !files.is_empty() {
        let table = {
            let disk = Opened::open(&path).unwrap();
            gpt::read(&disk, disk.disk_len()).unwrap()
        };
        let (_, place) = table.partitions.iter().find(|(_, partition)| partition.name == "state").unwrap();
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let mut bytes = vec![0; place.len as usize];
        file.read_exact_at(&mut bytes, place.start).unwrap();
        file.write_all_at(&cut(folder, &bytes, files), place.start).unwrap();
    }
    path
}

/// The filesystem with the files written to its journal.
fn cut(folder: &Path, state: &[u8], files: &Files) -> Vec<u8> {
    let (before, after, blocks) = (folder.join("before"), folder.join("after"), folder.join("blocks"));
    let debugfs = |disk: &Path, requests: &str| {
        fs::write(folder.join("requests"), requests).unwrap();
        let list = folder.join("requests");
        run("debugfs", "e2fsprogs", &["-w", "-f", list.to_str().unwrap(), disk.to_str().unwrap()])
    };
    fs::write(&before, state).unwrap();
    fs::write(&after, state).unwrap();
    let mut requests =
        ["/lib", "/lib/kscratch", "/lib/kscratch/cluster", "/lib/kubernetes", "/lib/kubernetes/kube-apiserver"]
            .map(|path| format!("mkdir {path}\n"))
            .concat();
    for (index, (path, text)) in files.iter().enumerate() {
        let source = folder.join(format!("file-{index}"));
        fs::write(&source, text).unwrap();
        requests += &format!("write {} {path}\n", source.display());
    }
    debugfs(&after, &requests);
    let (mut numbers, mut changed) = (Vec::new(), Vec::new());
    for (number, (old, new)) in state.chunks(BLOCK).zip(fs::read(&after).unwrap().chunks(BLOCK)).enumerate() {
        if old != new {
            numbers.push(number.to_string());
            changed.extend_from_slice(new);
        }
    }
    fs::write(&blocks, changed).unwrap();
    debugfs(&before, &format!("jo -c -v 3\njw -b {} {}\njc\n", numbers.join(","), blocks.display()));
    fs::read(&before).unwrap()
}

/// A disk in a folder of its own.
fn machine(release: &str, esp: &[(&str, &str)], files: &Files) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(folder.path(), release, esp, files);
    (folder, disk)
}

/// Has the kubeconfig made; gives the error's lines, with the folder taken out.
fn kubeconfig(folder: &Path, args: &[&str]) -> Result<(), String> {
    let args =
        ["kscratch-image", "kubeconfig"].iter().chain(args).map(|arg| arg.replace("DIR", folder.to_str().unwrap()));
    match execute(Cli::try_parse_from(args).unwrap(), &Console::silent()) {
        Ok(_) => Ok(()),
        Err(error) => Err(error_lines(&error).join("\n").replace(folder.to_str().unwrap(), "DIR") + "\n"),
    }
}

#[track_caller]
fn refused(folder: &Path, args: &[&str], want: &Expect) {
    want.assert_eq(&kubeconfig(folder, args).unwrap_err());
}

/// Whom the kubeconfig leads where as: server, user and group; its certificate is signed by the authority.
#[track_caller]
fn leads(path: &Path, files: &Files) -> (String, String, Vec<String>) {
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(path).unwrap();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("{key} is not in {text}")).trim_matches('"').to_owned()
    };
    let pem = |key: &str| String::from_utf8(STANDARD.decode(value(key)).unwrap()).unwrap();
    let authority = Certificate::parse(&files[CA]).unwrap();
    assert_eq!(pem("certificate-authority-data"), authority.pem());
    let certificate = Certificate::parse(&pem("client-certificate-data")).unwrap();
    assert!(certificate.signed_by(&authority) && certificate.fits(&Key::parse(&pem("client-key-data")).unwrap()));
    assert!(certificate.facts().valid_at(OffsetDateTime::now_utc()));
    let names = &certificate.facts().names;
    (value("server"), names.common_name.clone(), names.organizations.clone())
}

#[test]
fn a_master_that_was_cut_gives_its_kubeconfig() {
    let files = begun(&["10.96.0.1", "127.0.0.1", "192.168.7.10"]);
    let (folder, disk) = machine(MASTER, &[], &files);
    let (path, before) = (folder.path().join("admin.kubeconfig"), Digest::of(&fs::read(&disk).unwrap()));
    let report = inspect::report(&disk, true).unwrap();
    let state = report.partitions[4].filesystem.as_ref().unwrap();
    assert!(state.needs_recovery && state.replayed == 1);
    assert!(report.to_string().contains("in use or not unmounted: read with a transaction of its journal"), "{report}");
    assert!(state.entries.as_ref().unwrap().iter().any(|entry| entry.path == CA));

    let out = ["DIR/disk.img", "-o", "DIR/admin.kubeconfig"];
    kubeconfig(folder.path(), &out).unwrap();
    let admin = ("kubernetes-admin".to_owned(), vec!["kubeadm:cluster-admins".to_owned()]);
    let at = |server: &str| (server.to_owned(), admin.0.clone(), admin.1.clone());
    assert_eq!(leads(&path, &files), at("https://192.168.7.10:6443"));
    assert!(Digest::of(&fs::read(&disk).unwrap()) == before, "the disk has changed");

    let first = fs::read(&path).unwrap();
    refused(
        folder.path(),
        &out,
        &expect![[r#"
            error: DIR/admin.kubeconfig is there already
            hint: --force replaces it, --output FILE names another
        "#]],
    );
    assert!(fs::read(&path).unwrap() == first);
    kubeconfig(folder.path(), &[&out[..], &["--force", "--server", "api.lab:8443"]].concat()).unwrap();
    assert_eq!(leads(&path, &files), at("https://api.lab:8443"));
    refused(
        folder.path(),
        &["DIR/disk.img", "-o", "DIR/other", "--server", "a:0"],
        &expect![[r#"
            error: --server: "0" is no port
            hint: write HOST or HOST:PORT, such as 192.168.7.10:6443
        "#]],
    );
}

#[test]
fn what_lies_over_an_image_is_read_with_it() {
    let files = begun(&["10.96.0.1", "127.0.0.1", "10.0.2.15"]);
    // The image below has no cluster; what the machine wrote is above, and relative names are seen from there.
    let (folder, image) = machine(MASTER, &[], &Files::new());
    let own = folder.path().join("own");
    fs::create_dir(&own).unwrap();
    let written = disk(&own, MASTER, &[], &files);
    let overlay = folder.path().join("own/overlay.qcow2");
    run(
        "qemu-img",
        "qemu-utils",
        &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "../disk.img", overlay.to_str().unwrap()],
    );
    let (old, new) = (fs::read(image).unwrap(), fs::read(written).unwrap());
    let mut requests = Vec::new();
    for (index, (old, new)) in old.chunks(1 << 16).zip(new.chunks(1 << 16)).enumerate() {
        if old != new {
            let bytes = own.join(format!("cluster-{index}"));
            fs::write(&bytes, new).unwrap();
            requests.extend(["-c".to_owned(), format!("write -s {} {} {}", bytes.display(), index << 16, new.len())]);
        }
    }
    requests.push(overlay.to_str().unwrap().to_owned());
    run(
        "qemu-io",
        "qemu-utils",
        &[&["-f", "qcow2"], &requests.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat(),
    );
    kubeconfig(folder.path(), &["DIR/own/overlay.qcow2", "-o", "DIR/out"]).unwrap();
    assert_eq!(leads(&folder.path().join("out"), &files).0, "https://10.0.2.15:6443");
    // The image itself has nothing.
    assert!(
        kubeconfig(folder.path(), &["DIR/disk.img", "-o", "DIR/none"]).unwrap_err().contains("not begun a cluster")
    );
    assert!(!folder.path().join("none").exists());
    fs::remove_file(folder.path().join("disk.img")).unwrap();
    refused(
        folder.path(),
        &["DIR/own/overlay.qcow2", "-o", "DIR/none"],
        &expect![[r#"
            error: reading the cluster on DIR/own/overlay.qcow2
              because: opening what DIR/own/overlay.qcow2 lies over
              because: opening DIR/own/../disk.img
              because: No such file or directory (os error 2)
        "#]],
    );
}

#[test]
fn an_address_that_the_disk_does_not_tell_is_asked_for() {
    let mut files = begun(&["10.0.2.15", "10.96.0.1", "127.0.0.1", "192.168.7.10"]);
    let (folder, _) = machine(MASTER, &[], &files);
    let out = ["DIR/disk.img", "-o", "DIR/out"];
    refused(
        folder.path(),
        &out,
        &expect![[r#"
            error: the disk does not tell one place where its API server is reached: 10.0.2.15, 10.96.0.1, 127.0.0.1, 192.168.7.10, kubernetes, localhost, m1
            hint: --server HOST[:PORT] names it
        "#]],
    );
    // Metadata without an identity may name the place, the cluster and its ranges.
    let role = "version = 1\nrole = \"master\"\n[cluster]\nname = \"edge\"\nendpoint = \"api.edge\"\n";
    let (folder, _) = machine(MASTER, &[("/kscratch/role.toml", role)], &files);
    kubeconfig(folder.path(), &out).unwrap();
    assert_eq!(leads(&folder.path().join("out"), &files).0, "https://api.edge:6443");
    assert!(fs::read_to_string(folder.path().join("out")).unwrap().contains("kubernetes-admin@edge"));

    files.remove(SERVER);
    let (folder, _) = machine(MASTER, &[], &files);
    refused(
        folder.path(),
        &out,
        &expect![[r#"
            error: the disk does not tell where its API server is reached: that has no certificate yet
            hint: --server HOST[:PORT] names it
        "#]],
    );
    kubeconfig(folder.path(), &[&out[..], &["--server", "10.0.0.1"]].concat()).unwrap();
    assert_eq!(leads(&folder.path().join("out"), &files).0, "https://10.0.0.1:6443");
}

#[test]
fn a_disk_without_a_cluster_of_its_own_says_what_it_is() {
    let out = ["DIR/disk.img", "-o", "DIR/out"];
    let (folder, disk) = machine(NODE, &[], &Files::new());
    refused(
        folder.path(),
        &out,
        &expect![[r#"
            error: reading the cluster on DIR/disk.img
              because: the machine is a node: it has no cluster of its own
            hint: the identity is in the folder that `kscratch-image cluster new` made, or on the disk of the master that began the cluster
        "#]],
    );
    run("sgdisk", "gdisk", &["-d", "5", disk.to_str().unwrap()]);
    refused(
        folder.path(),
        &out,
        &expect![[r#"
            error: reading the cluster on DIR/disk.img
              because: there is no state partition on it
            hint: a machine whose image was built with `state = "elsewhere"` has state on another of its disks: name that one
        "#]],
    );
    let mut files = begun(&["192.168.7.10"]);
    files.remove(SECRETS);
    let (folder, _) = machine(MASTER, &[], &files);
    refused(
        folder.path(),
        &out,
        &expect![[r#"
            error: reading the cluster on DIR/disk.img
              because: the machine is a master of a cluster that it was given by its metadata
            hint: the identity is in the folder that `kscratch-image cluster new` made; `kscratch-image cluster kubeconfig NAME` makes its kubeconfigs anew
        "#]],
    );
    // An identity whose parts are not of one cluster.
    let mut files = begun(&["192.168.7.10"]);
    files.insert(CA, begun(&[]).remove(CA).unwrap());
    let (folder, _) = machine(MASTER, &[], &files);
    let error = kubeconfig(folder.path(), &out).unwrap_err();
    assert!(error.contains("reading the cluster's identity in /var/lib/kscratch/cluster"), "{error}");
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_disk_that_a_machine_writes_to_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    drop(Holder::of(&disk));
    assert!(!is_in_use(&disk));
}
