//! A finished build becomes its SBOM: SPDX 2.3 JSON, one package for every artifact that the image holds something of.
use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::image::{Request, Root};
use crate::lock::{Artifact, Lock, Origin};
use crate::manifest::{beside, role_name, write_json};
use crate::store::Digest;
use crate::tree::Tree;

/// What SPDX writes where nobody has looked (SPDX 2.3, 7.13).
const UNKNOWN: &str = "NOASSERTION";

/// Writes the SBOM beside the image and tells where. `time` is seconds since 1970.
///
/// # Errors
/// What writing says.
pub fn write(request: &Request<'_>, root: &Root, time: i64) -> Result<PathBuf> {
    let file = beside(&request.output, "spdx.json");
    let name = format!("kscratch-{}", role_name(request.role));
    // Packages that only the boot file is made of: they leave no file in the root.
    let spec = request.spec;
    let boot = [&spec.boot.stub_package].into_iter().chain(spec.microcode_packages()).map(String::as_str).collect();
    write_json(&file, &document(&name, request.lock, &root.tree, &boot, time)?)?;
    Ok(file)
}

/// The document (SPDX 2.3, clause 6). Equal inputs give equal documents: the namespace follows from the contents.
fn document(name: &str, lock: &Lock, tree: &Tree, boot: &BTreeSet<&str>, time: i64) -> Result<Value> {
    let used: BTreeSet<&str> = tree.nodes.values().map(|node| node.origin.artifact.as_str()).collect();
    let holds = |artifact: &&Artifact| {
        let label = format!("{} {} (", artifact.name, artifact.version);
        boot.contains(artifact.name.as_str()) || used.iter().any(|used| used.starts_with(&label))
    };
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-Image",
        "name": name,
        "versionInfo": env!("CARGO_PKG_VERSION"),
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    })];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")];
    for artifact in lock.artifacts.iter().filter(holds) {
        let id = format!("SPDXRef-Package-{}", identifier(&artifact.name));
        relationships.push(relationship("SPDXRef-Image", "CONTAINS", &id));
        packages.push(package(&id, artifact, &lock.inputs.suites));
    }
    let contents = Digest::of(&serde_json::to_vec(&packages).context("printing the SBOM")?);
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:kscratch:spdx:{name}:{contents}"),
        "creationInfo": { "created": timestamp(time), "creators": [concat!("Tool: kscratch-image-", env!("CARGO_PKG_VERSION"))] },
        "packages": packages,
        "relationships": relationships,
    }))
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn package(id: &str, artifact: &Artifact, suites: &[String]) -> Value {
    let (purl, checksums) = match &artifact.origin {
        Origin::DebianPackage { .. } => {
            let distro = suites.first().map(|suite| format!("&distro={suite}")).unwrap_or_default();
            (
                format!("pkg:deb/debian/{}@{}?arch=amd64{distro}", artifact.name, percent(&artifact.version)),
                sha256(artifact),
            )
        }
        Origin::GoBuild { module, module_version, .. } => {
            (format!("pkg:golang/{}@{module_version}", module.to_lowercase()), Vec::new())
        }
        Origin::Tarball { sha512, .. } => {
            let mut sums = sha256(artifact);
            sums.push(json!({ "algorithm": "SHA512", "checksumValue": sha512 }));
            (format!("pkg:generic/{}@{}", artifact.name, percent(&artifact.version)), sums)
        }
        Origin::LocalFile { .. } => {
            (format!("pkg:generic/{}@{}", artifact.name, percent(&artifact.version)), sha256(artifact))
        }
    };
    let location = match &artifact.origin {
        Origin::Tarball { url, .. } => url.as_str(),
        _ => UNKNOWN,
    };
    json!({
        "SPDXID": id,
        "name": artifact.name,
        "versionInfo": artifact.version,
        "downloadLocation": location,
        "filesAnalyzed": false,
        "checksums": checksums,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "externalRefs": [{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }],
    })
}

fn sha256(artifact: &Artifact) -> Vec<Value> {
    artifact.sha256.iter().map(|digest| json!({ "algorithm": "SHA256", "checksumValue": digest.to_string() })).collect()
}

/// Letters that an SPDX identifier may have (SPDX 2.3, 7.2): others become dots and their code.
fn identifier(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') {
                c.to_string()
            } else {
                format!(".{:x}.", u32::from(c))
            }
        })
        .collect()
}

/// Percent-encoding of a version in a package URL (purl specification, "Character encoding").
fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Seconds since 1970 as SPDX wants them (SPDX 2.3, 6.9), by Howard Hinnant's days-to-civil.
fn timestamp(time: i64) -> String {
    let (days, second) = (time.div_euclid(86_400), time.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{Archive, Inputs};
    use crate::tree::{Node, Origin as From};

    fn artifact(name: &str, version: &str, origin: Origin) -> Artifact {
        Artifact { name: name.into(), version: version.into(), size: Some(1), sha256: Some(Digest([1; 32])), origin }
    }

    fn lock() -> Lock {
        let debian = || Origin::DebianPackage { archive: Archive::Main, path: "pool/x.deb".into() };
        let tarball = Origin::Tarball { url: "https://example.test/k.tar.gz".into(), sha512: "ab".into() };
        let inputs = Inputs {
            suites: vec!["trixie".into()],
            packages: Vec::new(),
            kubernetes: String::new(),
            kubernetes_source: String::new(),
            cri_dockerd: String::new(),
            cri_dockerd_source: String::new(),
            control_plane: None,
        };
        let artifacts = vec![
            artifact("docker.io", "26.1.5+dfsg1-9", debian()),
            artifact("kubernetes", "1.37.2", tarball),
            artifact("stub", "1", debian()),
            artifact("unused", "1", debian()),
        ];
        Lock { version: 1, inputs, releases: Vec::new(), artifacts }
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        for (path, artifact) in
            [("/a", "docker.io 26.1.5+dfsg1-9 (debian)"), ("/b", "kubernetes 1.37.2 (official tarball)")]
        {
            let origin = From { declaration: "program".into(), artifact: artifact.into() };
            tree.insert(path, Node::file(b"1".to_vec(), 0o755, origin)).unwrap();
        }
        tree
    }

    #[test]
    fn what_the_image_holds_is_listed_and_nothing_else() {
        let made = document("kscratch-node", &lock(), &tree(), &["stub"].into(), 1_750_000_000).unwrap();
        assert_eq!(made, document("kscratch-node", &lock(), &tree(), &["stub"].into(), 1_750_000_000).unwrap());
        let names: Vec<&str> =
            made["packages"].as_array().unwrap().iter().filter_map(|package| package["name"].as_str()).collect();
        assert_eq!(names, ["kscratch-node", "docker.io", "kubernetes", "stub"]);
        let purl = &made["packages"][1]["externalRefs"][0]["referenceLocator"];
        assert_eq!(purl, "pkg:deb/debian/docker.io@26.1.5%2Bdfsg1-9?arch=amd64&distro=trixie");
        assert_eq!(made["packages"][2]["checksums"][1]["algorithm"], "SHA512");
        assert_eq!(made["relationships"].as_array().unwrap().len(), 4);
        assert_eq!(made["creationInfo"]["created"], "2025-06-15T15:06:40Z");
    }

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        for (time, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(time), want);
        }
    }

    #[test]
    fn names_keep_to_what_spdx_allows() {
        assert_eq!(identifier("libstdc++6"), "libstdc.2b..2b.6");
    }
}
