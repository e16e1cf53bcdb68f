//! A cluster's folder: it is made once, and not with settings that machines would refuse.
use std::fs;

use expect_test::{Expect, expect};
use kscratch_image::cluster::folder::{AUTHORITIES, CLUSTER_CA};
use kscratch_image::cluster::new;
use kscratch_image::cluster::settings::Settings;
use kscratch_image::cluster::token::Lapse;
use kscratch_pki::{Certificate, Duration};

use crate::{lab, now, settings, tree, words};

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
