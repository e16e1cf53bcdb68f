//! What `cluster check` finds in finished images: what they name and lack, and whether their versions fit one another and what runs.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use kscratch_image::cluster::check;
use kscratch_image::cluster::folder::{CLUSTER_CA, Folder};
use kscratch_image::cluster::kubeconfigs::{issue, renew};
use kscratch_image::cluster::settings::Settings;
use kscratch_image::tree::{Content, Kind, Node, Origin, Tree};
use kscratch_image::write::{self, Format};
use kscratch_image::{filesystem, inspect, plan};
use kscratch_pki::{Authority, Duration, OffsetDateTime, Usage, Wanted};

use crate::check::server;
use crate::{lab, now, settings};

const MIB: u64 = 1 << 20;
const TIME: i64 = 1_760_000_000;
const POD: &str = "kind: Pod\nspec: {containers: [{name: a, image: 'registry.example/app:1'}]}\n";

/// A disk whose root says that it is of this role and version, names `registry.example/app:1`, and holds these images besides that of pause.
fn image(folder: &Path, name: &str, role: &str, version: &str, images: &[&str]) -> PathBuf {
    let node = |kind| Node {
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        xattrs: BTreeMap::new(),
        origin: Origin { declaration: "test".into(), artifact: "test".into() },
    };
    let list = ["pause:1"].iter().chain(images);
    let list: Vec<_> = list.map(|name| serde_json::json!({"reference": name, "id": "0", "layers": []})).collect();
    let release = serde_json::json!({"kubernetes": version, "role": role, "pause_image": "pause:1"});
    let mut tree = Tree::default();
    for path in ["/", "/usr", "/usr/share", "/usr/share/kscratch", "/usr/share/kscratch/images"] {
        tree.nodes.insert(path.into(), node(Kind::Directory));
    }
    tree.nodes.insert("/usr/share/kscratch/manifests".into(), node(Kind::Directory));
    for (path, text) in [
        ("release.json", release.to_string()),
        ("images/seed.json", serde_json::json!({ "images": list }).to_string()),
        // What an image's own layers hold is not the machine's.
        ("images/other.yaml", POD.replace("app:1", "other:1")),
        ("manifests/app.yaml", POD.to_owned()),
    ] {
        let content = Content::Literal(text.into_bytes().into());
        tree.nodes.insert(format!("/usr/share/kscratch/{path}"), node(Kind::File(content)));
    }
    let root = filesystem::root(&tree, 16 * MIB, TIME).unwrap();
    let esp = filesystem::esp(b"no program".to_vec().into(), &BTreeMap::new(), 64 * MIB, 512, TIME).unwrap();
    let state = filesystem::state(64 * MIB, TIME, &root.digest).unwrap();
    let path = folder.join(name);
    write::image(&plan::disk(esp, root, Some(state), 512).unwrap().image, folder, Format::Raw, &path, &|_| ()).unwrap();
    path
}

/// The rows of versions and images, with the folder's path and the network's words taken out, and the exit code.
#[track_caller]
fn rows(folder: &Folder, images: &[&PathBuf], at: OffsetDateTime, want: &Expect) -> u8 {
    let images: Vec<_> = images.iter().map(|path| (*path).clone()).collect();
    let report = check::cluster(folder, &images, at);
    let from = report.table.find("versions fit").unwrap();
    let from = report.table[..from].rfind('\n').unwrap() + 1;
    let parent = folder.path().parent().unwrap().display().to_string();
    let table = report.table[from..].replace(&format!("{parent}/"), "");
    let lines = table.lines().map(|line| if line.contains("asking https") { "                   …" } else { line });
    want.assert_eq(&lines.map(|line| format!("{line}\n")).collect::<String>());
    report.exit_code()
}

#[test]
fn images_are_held_against_what_they_name_and_one_another() {
    let parent = tempfile::tempdir().unwrap();
    let mut folder = lab(parent.path());
    // Nothing listens there.
    folder.settings.endpoint = "127.0.0.1:9".to_owned();
    renew(&folder, now()).unwrap();
    let app = ["registry.example/app:1"];
    let master = image(parent.path(), "m.img", "master", "v1.37.2", &app);
    let node = image(parent.path(), "n.img", "node", "v1.36.3", &app);
    assert_eq!(inspect::kubernetes(&node).unwrap().unwrap(), "1.36.3");
    assert_eq!(
        rows(
            &folder,
            &[&master, &node],
            now(),
            &expect![[r#"
        could not check  versions fit the API server
                           …
        ok               images hold what they name         m.img names 2, n.img names 2
        ok               images fit one another             m.img v1.37.2, n.img v1.36.3
    "#]]
        ),
        3
    );

    let newer = image(parent.path(), "newer.img", "node", "v1.38.0", &[]);
    assert_eq!(
        rows(
            &folder,
            &[&master, &newer],
            now(),
            &expect![[r#"
        could not check  versions fit the API server
                           …
        failed           images hold what they name         pods would wait for a registry that may not be there
                           newer.img: /usr/share/kscratch/manifests/app.yaml names the image registry.example/app:1, which is not in the image; save it (docker save NAME:TAG -o FILE) and name the file in load of [images] in image.toml
        failed           images fit one another             Kubernetes supports no kubelet that is newer than its API server, or four minors older
                           newer.img has kubelet and kube-proxy v1.38.0, newer than the API server of m.img, v1.37.2
    "#]]
        ),
        1
    );

    // One that is none keeps a rule open, and hides nothing.
    let none = parent.path().join("none.img");
    fs::write(&none, "text").unwrap();
    assert_eq!(
        rows(
            &folder,
            &[&none, &master],
            now(),
            &expect![[r#"
        could not check  versions fit the API server
                           …
        could not check  images hold what they name
                           reading the image none.img: opening none.img: it is 4 bytes long, too short for a disk
        could not check  images fit one another
                           reading the image none.img: opening none.img: it is 4 bytes long, too short for a disk
    "#]]
        ),
        3
    );
    assert_eq!(
        rows(
            &folder,
            &[&none, &master, &newer],
            now(),
            &expect![[r#"
        could not check  versions fit the API server
                           …
        failed           images hold what they name         pods would wait for a registry that may not be there
                           newer.img: /usr/share/kscratch/manifests/app.yaml names the image registry.example/app:1, which is not in the image; save it (docker save NAME:TAG -o FILE) and name the file in load of [images] in image.toml
                           reading the image none.img: opening none.img: it is 4 bytes long, too short for a disk
        failed           images fit one another             Kubernetes supports no kubelet that is newer than its API server, or four minors older
                           newer.img has kubelet and kube-proxy v1.38.0, newer than the API server of m.img, v1.37.2
                           reading the image none.img: opening none.img: it is 4 bytes long, too short for a disk
    "#]]
        ),
        1
    );

    // What the cluster was made for is better than nothing.
    folder.settings.kubernetes = Some("1.37.2".to_owned());
    assert_eq!(
        rows(
            &folder,
            &[&node],
            now(),
            &expect![[r#"
        could not check  versions fit the API server
                           …
        ok               images hold what they name         n.img names 2
        ok               images fit one another             n.img v1.36.3
    "#]]
        ),
        3
    );
    assert_eq!(
        rows(
            &folder,
            &[&newer],
            now(),
            &expect![[r#"
        failed           versions fit the API server        Kubernetes supports no kubelet that is newer than its API server, or four minors older
                           newer.img has kubelet and kube-proxy v1.38.0, newer than the API server by cluster.toml, 1.37.2: masters come first
        failed           images hold what they name         pods would wait for a registry that may not be there
                           newer.img: /usr/share/kscratch/manifests/app.yaml names the image registry.example/app:1, which is not in the image; save it (docker save NAME:TAG -o FILE) and name the file in load of [images] in image.toml
        ok               images fit one another             newer.img v1.38.0
    "#]]
        ),
        1
    );
}

#[test]
fn images_are_held_against_the_api_server_that_runs() {
    let parent = tempfile::tempdir().unwrap();
    let real = OffsetDateTime::now_utc();
    let mut folder = lab(parent.path());
    let (authority, pair) = Authority::new_with_pair("kubernetes", real - Duration::days(1), 10).unwrap();
    fs::write(folder.file(CLUSTER_CA.certificate), &pair.certificate_pem).unwrap();
    fs::write(folder.file(CLUSTER_CA.key), &pair.key_pem).unwrap();
    let wanted = Wanted {
        addresses: vec![[127, 0, 0, 1].into()],
        usages: [Usage::Server].into(),
        ..Wanted::client("kube-apiserver", None)
    };
    let pair = authority.issue(&wanted, real).unwrap();
    let node = image(parent.path(), "n.img", "node", "v1.37.2", &["registry.example/app:1"]);
    let mut row = |recorded: Option<&str>, status: &str, said: &str, want: &Expect| {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{said}", said.len());
        let (mut child, endpoint) = server(parent.path(), &pair.certificate_pem, &pair.key_pem, &answer);
        folder.settings.endpoint = endpoint;
        folder.settings.kubernetes = recorded.map(str::to_owned);
        let code = rows(&folder, &[&node], real, want);
        child.kill().unwrap();
        child.wait().unwrap();
        code
    };
    let version = |version: &str| format!(r#"{{"major":"1","gitVersion":"{version}"}}"#);
    row(
        None,
        "200 OK",
        &version("v1.38.1"),
        &expect![[r#"
        ok               versions fit the API server        v1.38.1 runs
        ok               images hold what they name         n.img names 2
        ok               images fit one another             n.img v1.37.2
    "#]],
    );
    row(
        None,
        "200 OK",
        &version("v1.36.3"),
        &expect![[r#"
        failed           versions fit the API server        Kubernetes supports no kubelet that is newer than its API server, or four minors older
                           n.img has kubelet and kube-proxy v1.37.2, newer than the API server that runs, v1.36.3: masters come first
        ok               images hold what they name         n.img names 2
        ok               images fit one another             n.img v1.37.2
    "#]],
    );
    row(
        Some("1.36.3"),
        "200 OK",
        &version("v1.37.4"),
        &expect![[r#"
        failed           versions fit the API server        Kubernetes supports no kubelet that is newer than its API server, or four minors older
                           cluster.toml says 1.36.3, but v1.37.4 runs: write kubernetes = "1.37.4" there
        ok               images hold what they name         n.img names 2
        ok               images fit one another             n.img v1.37.2
    "#]],
    );
    row(
        Some("1.37.2"),
        "401 Unauthorized",
        "",
        &expect![[r#"
        could not check  versions fit the API server
                           it answers 401 to who asks for its version
        ok               images hold what they name         n.img names 2
        ok               images fit one another             n.img v1.37.2
    "#]],
    );
    row(
        None,
        "200 OK",
        "a page",
        &expect![[r#"
        could not check  versions fit the API server
                           reading its version: expected value at line 1 column 1
        ok               images hold what they name         n.img names 2
        ok               images fit one another             n.img v1.37.2
    "#]],
    );

    // Machines in QEMU are asked through their gateway: at the endpoint itself nobody is reached from here.
    let said = version("v1.37.2");
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len());
    let (mut child, gateway) = server(parent.path(), &pair.certificate_pem, &pair.key_pem, &answer);
    folder.settings.endpoint = "192.0.2.1:6443".to_owned();
    let people = ("kubernetes-admin", "kubeadm:cluster-admins");
    let kubeconfig = issue("lab", &format!("https://{gateway}"), people, &authority, real).unwrap();
    fs::create_dir(folder.file("machines")).unwrap();
    fs::write(folder.file("machines/admin.kubeconfig"), kubeconfig).unwrap();
    rows(
        &folder,
        &[&node],
        real,
        &expect![[r#"
        ok               versions fit the API server        v1.37.2 runs
        ok               images hold what they name         n.img names 2
        ok               images fit one another             n.img v1.37.2
    "#]],
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_cluster_remembers_the_version_that_it_was_made_for() {
    let parent = tempfile::tempdir().unwrap();
    let read = |text: &str| {
        let path = parent.path().join("cluster.toml");
        fs::write(&path, text).unwrap();
        Settings::read(&path).map_err(|error| format!("{error:#}"))
    };
    let made = Settings { kubernetes: Some("1.37.2".to_owned()), ..settings() };
    let text = toml::to_string_pretty(&made).unwrap();
    assert_eq!(read(&text).unwrap(), made);
    assert!(made.summary().ends_with(", nftables, Kubernetes 1.37.2"), "{}", made.summary());
    // A file from before there was one.
    let before = text.replace("kubernetes = \"1.37.2\"\n", "");
    assert_eq!(read(&before).unwrap(), settings());
    assert_eq!(toml::to_string_pretty(&settings()).unwrap(), before);
    let error = read(&text.replace("1.37.2", "latest")).unwrap_err();
    assert!(error.contains("kubernetes: the Kubernetes version `latest` is not of the form 1.37.2"), "{error}");
}
