//! A cluster that one master began, which kept its etcd to itself, gets a second and a third one: the way of the README.
use std::fs;
use std::path::PathBuf;

use kscratch_tests::cluster::{BOOT, Cluster, MAPS};
use kscratch_tests::step::step;

use crate::heard::Heard;

/// A master's metadata, around what they say of etcd.
struct Master<'a> {
    cluster: &'a Cluster,
    name: &'static str,
    file: PathBuf,
    before: String,
    behind: String,
}

impl<'a> Master<'a> {
    fn of(cluster: &'a Cluster, name: &'static str) -> Self {
        let file = cluster.file(&format!("machines/{name}/role.toml"));
        let role = fs::read_to_string(&file).unwrap();
        let (before, rest) = role.split_once("[control_plane.etcd").expect("one of three masters is given their list");
        let behind = &rest[rest.find("[control_plane.secrets]").expect("a master has secrets")..];
        Master { cluster, name, file, before: before.to_owned(), behind: behind.to_owned() }
    }

    /// Starts it with such metadata.
    fn boots(&self, etcd: &str) -> Heard<'a> {
        fs::write(&self.file, format!("{}{etcd}{}", self.before, self.behind)).unwrap();
        let heard = Heard::of(self.cluster, self.name);
        self.cluster.power("on", &[self.name]);
        heard
    }
}

/// What metadata say of etcd.
fn members(join: bool, masters: usize) -> String {
    let members: Vec<String> =
        (1..=masters).map(|number| format!("m{number} = \"192.168.76.{}\"", number + 9)).collect();
    format!("[control_plane.etcd]\njoin = {join}\nmembers = {{ {} }}\n\n", members.join(", "))
}

pub fn one_master_becomes_three() {
    let cluster = Cluster::made("routed", 3, 0, &[]);
    let [m1, m2, m3] = ["m1", "m2", "m3"].map(|name| Master::of(&cluster, name));
    step("alone", || {
        m1.boots("").wait("service steward: ready");
        cluster.makes_map("alone", BOOT);
    });
    step("named", || {
        cluster.power("off", &["m1"]);
        m1.boots(&members(false, 1))
            .wait("etcd's only member m1 is at https://192.168.76.10:2380 now: others can join it");
        cluster.makes_map("named", BOOT);
    });
    for (master, count) in [(&m2, 2), (&m3, 3)] {
        step(master.name, || {
            let heard = master.boots(&members(true, count));
            heard.wait(&format!("{} is one of {count} members of etcd now", master.name));
            heard.wait("service steward: ready");
            cluster.makes_map(&format!("with-{count}"), BOOT);
        });
    }
    step("without the first", || {
        cluster.power("cut", &["m1"]);
        cluster.makes_map("without-the-first", BOOT);
        let maps = cluster.api().items(MAPS);
        for name in ["alone", "named", "with-2", "with-3", "without-the-first"] {
            assert!(maps.iter().any(|map| map["metadata"]["name"] == *name), "{name} is lost");
        }
    });
}
