//! A cluster is switched off for most of a year, and its machines find their certificates near their end.
use kscratch_tests::cluster::Cluster;

use crate::heard::Heard;
use crate::surroundings::in_days;

/// Certificates last for 365 days. A kubelet begins to renew its own when seven to nine tenths of that are over, the others are made anew after two thirds.
const LATER: u32 = 340;

/// All machines boot that much later. There is no way back: what is signed then is not good before.
pub fn certificates_are_made_anew(cluster: &Cluster, machines: &[&str]) {
    let file = "/read?path=/var/lib/kubelet/pki/kubelet-client-current.pem";
    let before = cluster.ask("eye-n1", file);
    for machine in machines {
        cluster.power("off", &[machine]);
    }
    let (master, clock) = (Heard::of(cluster, "m1"), in_days(LATER));
    cluster.power("on", &[machines, &["--clock", &clock]].concat());
    for file in ["kube-apiserver/apiserver", "kube-apiserver/kubelet-client", "etcd/server", "steward/client"] {
        let file = regex::escape(file);
        master.wait(&format!(
            r"made certificate /var/lib/kubernetes/{file}\.crt until [0-9-]+: only \d+ of its 365 days are left"
        ));
    }
    crate::is_healthy(cluster);
    // The kubelet asks for it, and the cluster gives it without anybody's help.
    cluster.ask_for("eye-n1", file, |now| now.contains("BEGIN CERTIFICATE") && now != before);
    crate::n1_serves(cluster);
    cluster.kubectl(&["logs", "--namespace", "kube-system", "hello-n1"]).succeeded();
    // The join token ended long ago. That is no object that went missing.
    assert_eq!(master.times("is missing: applying it again"), 0, "{}", master.said());
}
