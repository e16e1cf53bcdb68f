//! A cluster's identity as its owner sees it: what is made, what each machine is given of it, and what a check finds.
mod check;
mod folder;
mod images;
mod metadata;
mod rack;
mod token;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kscratch_image::cluster::folder::Folder;
use kscratch_image::cluster::new;
use kscratch_image::cluster::settings::Settings;
use kscratch_image::cluster::token::Lapse;
use kscratch_image::console::error_lines;
use kscratch_pki::{Duration, OffsetDateTime};

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
        time_servers: Vec::new(),
        kubernetes: None,
    }
}

fn lab(parent: &Path) -> Folder {
    new::new(parent, &settings().checked("--").unwrap(), Lapse::After(Duration::days(30)), now()).unwrap()
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
