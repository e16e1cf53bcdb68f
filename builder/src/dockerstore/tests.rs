//! Archives made by hand go through [`load`] and [`seed`]; skopeo-like readers are not needed to know a layer's ids.
use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::store::Store;
use crate::tree::Content;

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        let (kind, link) = match path.split_once(" -> ") {
            Some((_, to)) => (tar::EntryType::Symlink, Some(to)),
            None if path.ends_with('/') => (tar::EntryType::Directory, None),
            None => (tar::EntryType::Regular, None),
        };
        let path = path.split_once(" -> ").map_or(*path, |(path, _)| path);
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(7);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        tar.append_data(&mut header, path, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

struct World {
    folder: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        World { folder, store }
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join("image.tar");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn load(&self, bytes: &[u8]) -> Result<Vec<Image>> {
        load(&self.file(bytes), "image.tar", &self.store)
    }
}

fn config(layers: &[&[u8]], architecture: &str) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", Digest::of(layer))).collect();
    json!({ "architecture": architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": ids } })
        .to_string()
        .into_bytes()
}

fn saved(layers: &[&[u8]], tags: serde_json::Value, config: &[u8]) -> Vec<u8> {
    let names: Vec<String> = (0..layers.len()).map(|at| format!("{at}/layer.tar")).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": names }]).to_string();
    let mut files: Vec<(&str, &[u8])> = vec![("manifest.json", manifest.as_bytes()), ("config.json", config)];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().copied()));
    tar_of(&files)
}

#[test]
fn a_saved_image_becomes_a_seed_with_whiteouts_as_overlay2_keeps_them() {
    let world = World::new();
    let lower = tar_of(&[("etc/", b""), ("etc/old", b"old"), ("bin/sh", b"shell"), ("bin/ash -> sh", b"")]);
    let upper = tar_of(&[("etc/.wh.old", b""), ("var/.wh..wh..opq", b""), ("var/", b""), ("var/new", b"newer")]);
    let images =
        world.load(&saved(&[&lower, &upper], json!(["a/b:1", "a/b:2"]), &config(&[&lower, &upper], "amd64"))).unwrap();
    assert_eq!(images.iter().map(|image| image.reference.as_str()).collect::<Vec<_>>(), ["a/b:1", "a/b:2"]);
    assert_eq!(images[0].layers.iter().map(Layer::size).collect::<Vec<_>>(), [8, 5]);

    let tree = seed(&images).unwrap();
    let seed_json: Seed = match &tree.nodes[&format!("{SEED}/seed.json")].kind {
        Kind::File(Content::Literal(bytes)) => serde_json::from_slice(bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    let layers = &seed_json.images[0].layers;
    let (first, second) = (Digest::of(&lower), Digest::of(&upper));
    assert_eq!(layers[0].chain_id, first.to_string());
    assert_eq!(layers[1].chain_id, Digest::of(format!("sha256:{first} sha256:{second}").as_bytes()).to_string());
    assert_eq!(layers[1].parent.as_ref(), Some(&layers[0].chain_id));
    assert!(layers.iter().all(|layer| layer.link.len() == 26 && layer.cache_id.len() == 64));

    let at = |layer: usize, path: &str| &tree.nodes[&format!("{SEED}/layers/{}{path}", layers[layer].cache_id)];
    assert_eq!(at(1, "/etc/old").kind, Kind::CharDevice { major: 0, minor: 0 });
    assert_eq!(at(1, "/var").xattrs["trusted.overlay.opaque"], b"y");
    assert_eq!(at(0, "/bin/ash").kind, Kind::Symlink("sh".into()));
    assert_eq!(at(0, "/bin/sh").uid, 7);
    let Kind::File(content) = &at(0, "/bin/sh").kind else { panic!() };
    assert_eq!(crate::tree::Contents::read(&world.store, content).unwrap(), b"shell");
    assert_eq!(references(&tree).unwrap().len(), 2);
    // Remembered digests give the same layer.
    assert_eq!(Layer::read(first, &world.store).unwrap(), images[0].layers[0]);
}

#[test]
fn an_oci_layout_with_compressed_layers_is_read_too() {
    let world = World::new();
    let layer = tar_of(&[("x", b"1")]);
    let (packed, config) = (gz(&layer), config(&[&layer], "amd64"));
    let manifest = json!({
        "config": { "digest": format!("sha256:{}", Digest::of(&config)) },
        "layers": [{ "digest": format!("sha256:{}", Digest::of(&packed)) }],
    });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({ "manifests": [{
        "digest": format!("sha256:{}", Digest::of(&manifest)),
        "annotations": { "io.containerd.image.name": "registry.example/x:1" },
    }] });
    let index = index.to_string().into_bytes();
    let blobs =
        [&packed, &config, &manifest].map(|bytes| (format!("blobs/sha256/{}", Digest::of(bytes)), bytes.as_slice()));
    let mut files: Vec<(&str, &[u8])> = blobs.iter().map(|(path, bytes)| (path.as_str(), *bytes)).collect();
    files.push(("index.json", &index));
    let images = world.load(&gz(&tar_of(&files))).unwrap();
    assert_eq!(
        (images[0].reference.as_str(), images[0].layers[0].diff_id),
        ("registry.example/x:1", Digest::of(&layer))
    );
}

#[track_caller]
fn check_error(archive: &[u8], want: &str) {
    let error = format!("{:#}", World::new().load(archive).unwrap_err());
    assert!(error.contains(want), "{error}");
}

#[test]
fn bad_archives_are_refused_with_the_reason() {
    let layer = tar_of(&[("x", b"1")]);
    let good = config(&[&layer], "amd64");
    check_error(&saved(&[&layer], json!(null), &good), "has no name; save it by its name");
    check_error(&saved(&[&layer], json!(["a:1"]), &config(&[&layer], "arm64")), "the image a:1 is for linux/arm64");
    check_error(&saved(&[&layer], json!(["a:1"]), &config(&[b"other"], "amd64")), "the image's config says");
    check_error(&saved(&[&layer, &layer], json!(["a:1"]), &good), "has 2 layers, and its config names 1");
    check_error(&tar_of(&[("x", b"1")]), "neither manifest.json (docker save) nor index.json");
    check_error(b"text", "it is no tar, or cut off");
    check_error(&saved(&[&layer], json!(["a:1"]), &good)[..1024], "");
}

#[test]
fn composed_images_hold_no_clock_and_differ_by_their_program() {
    let image = compose(PAUSE, "pause", b"program", None).unwrap();
    assert_eq!(image, compose(PAUSE, "pause", b"program", None).unwrap());
    assert_ne!(image.id(), compose(PAUSE, "pause", b"other", None).unwrap().id());
    let text = String::from_utf8(image.config.clone()).unwrap();
    assert!(text.contains(r#""Entrypoint":["/pause"]"#) && text.contains(r#""User":"65535:65535""#), "{text}");
    // Machines that run an earlier image have it by this id: what an image's bytes follow from does not change unseen.
    let layer = "7ff1ae6ac42ace5e512f604817a5091ea3a4cca6f2e30e0a64e265f078756319";
    assert_eq!(image.layers[0].diff_id.to_string(), layer);
    let clash = seed(&[image, compose(PAUSE, "pause", b"other", None).unwrap()]).unwrap_err();
    assert!(clash.to_string().contains("two different images have one name: kscratch.local/pause:"));
}

/// A tar as a composed layer's shall be, written by another hand: folders and one file, no clock, all root's.
fn layer_of(folders: &[&str], path: &str, mode: u32, bytes: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut append = |path: &str, kind: u8, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).unwrap();
        header.as_mut_bytes()[156] = kind;
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, bytes).unwrap();
    };
    folders.iter().for_each(|folder| append(folder, b'5', 0o755, b""));
    append(path, 0, mode, bytes);
    tar.into_inner().unwrap()
}

#[test]
fn a_component_is_what_unpacking_its_layers_would_give() {
    let world = World::new();
    let stored = |bytes: &[u8]| Content::Stored(world.store.whole(&world.store.add_bytes(bytes).unwrap()).unwrap());
    let made = |program: &[u8]| {
        let made = Component {
            reference: "registry.example/server:v1".into(),
            path: "/usr/local/bin/server",
            program: stored(program),
            user: 901,
            bundle: Some(Content::from(b"certificates".to_vec())),
            artifact: "server 1 (test)".into(),
        };
        component(&made, &world.store).unwrap()
    };
    let image = made(b"program");
    let certificates =
        layer_of(&["etc/", "etc/ssl/", "etc/ssl/certs/"], "etc/ssl/certs/ca-certificates.crt", 0o644, b"certificates");
    let program = layer_of(&["usr/", "usr/local/", "usr/local/bin/"], "usr/local/bin/server", 0o755, b"program");
    for (layer, tar) in image.layers.iter().zip([&certificates, &program]) {
        let unpacked = Layer::read(world.store.add_bytes(tar).unwrap(), &world.store).unwrap();
        assert_eq!(layer.diff_id, unpacked.diff_id);
        assert_eq!(layer.nodes.keys().collect::<Vec<_>>(), unpacked.nodes.keys().collect::<Vec<_>>());
        for (path, node) in &layer.nodes {
            assert!(node.same_as(&unpacked.nodes[path]), "{path}");
        }
    }
    let config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    assert_eq!(config["config"]["Entrypoint"], json!(["/usr/local/bin/server"]));
    assert_eq!((&config["config"]["User"], &config["created"]), (&json!("901:901"), &json!("1970-01-01T00:00:00Z")));
    assert_eq!(config["history"].as_array().unwrap().len(), config["rootfs"]["diff_ids"].as_array().unwrap().len());

    // Made again, from what is remembered, it is the same; another program is another image beside the same certificates.
    assert_eq!(made(b"program"), image);
    let other = made(b"another");
    assert!(other.layers[0] == image.layers[0] && other.id() != image.id());
    let tree = seed(std::slice::from_ref(&image)).unwrap();
    let files = tree.nodes.values().filter(|node| matches!(&node.kind, Kind::File(content) if content.len() == 7));
    assert_eq!(files.map(|node| node.mode).collect::<Vec<_>>(), [0o755]);
}
