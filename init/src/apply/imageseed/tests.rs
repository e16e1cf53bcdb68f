//! The seed written into an empty store, into one with images of its own, and a second time.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{familiar, seed};

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const LOW: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const HIGH: &str = "2222222222222222222222222222222222222222222222222222222222222222";

/// A root with one image of two layers.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("usr/share/kscratch/images");
    fs::create_dir_all(images.join("config")).unwrap();
    fs::write(images.join("config").join(ID), "{\"os\":\"linux\"}").unwrap();
    let layer = |digit: &str, parent: &str| {
        format!(
            r#"{{"chain_id":"sha256:{chain}","diff_id":"sha256:{diff}","cache_id":"{cache}","link":"LINK{digit}","size":{digit}00{parent}}}"#,
            chain = digit.repeat(64),
            diff = "d".repeat(63) + digit,
            cache = "c".repeat(63) + digit
        )
    };
    let high = layer("2", &format!(r#","parent":"sha256:{LOW}""#));
    let text = format!(
        r#"{{"images":[{{"reference":"docker.io/library/echo:1","id":"{ID}","layers":[{},{high}]}}]}}"#,
        layer("1", "")
    );
    fs::write(images.join("seed.json"), text).unwrap();
    root
}

fn docker(root: &Path) -> PathBuf {
    root.join("var/lib/docker")
}

/// Path to contents, links as `-> target`, folders left out.
fn dump(folder: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).unwrap().map(Result::unwrap) {
            let name = entry.path().strip_prefix(folder).unwrap().display().to_string().replace(&"c".repeat(63), "c");
            if entry.file_type().unwrap().is_symlink() {
                all.insert(
                    name,
                    format!("-> {}", fs::read_link(entry.path()).unwrap().display()).replace(&"c".repeat(63), "c"),
                );
            } else if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            } else {
                all.insert(
                    name,
                    fs::read_to_string(entry.path())
                        .unwrap()
                        .replace(&"d".repeat(63), "d")
                        .replace(&"c".repeat(63), "c"),
                );
            }
        }
    }
    all
}

#[test]
fn an_empty_store_gets_what_docker_would_have_written() {
    let root = root();
    assert_eq!(seed(root.path()).unwrap(), ["docker.io/library/echo:1"]);
    let low = format!("image/overlay2/layerdb/sha256/{LOW}");
    let high = format!("image/overlay2/layerdb/sha256/{HIGH}");
    let want: Vec<(String, String)> = vec![
        (format!("image/overlay2/imagedb/content/sha256/{ID}"), "{\"os\":\"linux\"}".into()),
        (format!("{low}/cache-id"), "c1".into()),
        (format!("{low}/diff"), "sha256:d1".into()),
        (format!("{low}/size"), "100".into()),
        (format!("{high}/cache-id"), "c2".into()),
        (format!("{high}/diff"), "sha256:d2".into()),
        (format!("{high}/parent"), format!("sha256:{LOW}")),
        (format!("{high}/size"), "200".into()),
        (
            "image/overlay2/repositories.json".into(),
            format!(r#"{{"Repositories":{{"echo":{{"echo:1":"sha256:{ID}"}}}}}}"#),
        ),
        ("overlay2/c1/committed".into(), String::new()),
        ("overlay2/c1/diff".into(), "-> /usr/share/kscratch/images/layers/c1".into()),
        ("overlay2/c1/link".into(), "LINK1".into()),
        ("overlay2/c2/committed".into(), String::new()),
        ("overlay2/c2/diff".into(), "-> /usr/share/kscratch/images/layers/c2".into()),
        ("overlay2/c2/link".into(), "LINK2".into()),
        ("overlay2/c2/lower".into(), "l/LINK1".into()),
        ("overlay2/l/LINK1".into(), "-> ../c1/diff".into()),
        ("overlay2/l/LINK2".into(), "-> ../c2/diff".into()),
    ];
    assert_eq!(dump(&docker(root.path())), BTreeMap::from_iter(want));
    assert!(docker(root.path()).join(format!("overlay2/{}2/work", "c".repeat(63))).is_dir());
}

#[test]
fn a_second_boot_writes_nothing() {
    let root = root();
    seed(root.path()).unwrap();
    let file = docker(root.path()).join("image/overlay2/repositories.json");
    let before = fs::metadata(&file).unwrap();
    let all = dump(&docker(root.path()));
    seed(root.path()).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().ino(), before.ino());
    assert_eq!(dump(&docker(root.path())), all);
}

#[test]
fn what_a_power_cut_left_is_put_right() {
    let root = root();
    seed(root.path()).unwrap();
    let all = dump(&docker(root.path()));
    let overlay = docker(root.path()).join("overlay2").join("c".repeat(63) + "2");
    fs::write(overlay.join("lower"), "").unwrap();
    fs::remove_file(overlay.join("diff")).unwrap();
    fs::write(docker(root.path()).join("image/overlay2/repositories.json"), "{\"Repos").unwrap();
    fs::write(docker(root.path()).join(format!("image/overlay2/layerdb/sha256/{HIGH}/size")), "").unwrap();
    seed(root.path()).unwrap();
    assert_eq!(dump(&docker(root.path())), all);
}

#[test]
fn other_images_stay_and_our_name_is_ours() {
    let root = root();
    let file = docker(root.path()).join("image/overlay2/repositories.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(
        &file,
        r#"{"Repositories":{"echo":{"echo:1":"sha256:old","echo:2":"sha256:two"},"mine":{"mine:x":"sha256:m"}}}"#,
    )
    .unwrap();
    seed(root.path()).unwrap();
    let want = format!(
        r#"{{"Repositories":{{"echo":{{"echo:1":"sha256:{ID}","echo:2":"sha256:two"}},"mine":{{"mine:x":"sha256:m"}}}}}}"#
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), want);
}

#[test]
fn a_layer_that_docker_has_by_itself_is_used_as_it_is() {
    let root = root();
    let own = docker(root.path()).join("overlay2/own");
    fs::create_dir_all(own.join("diff")).unwrap();
    fs::write(own.join("link"), "OWN").unwrap();
    let entry = docker(root.path()).join(format!("image/overlay2/layerdb/sha256/{LOW}"));
    fs::create_dir_all(&entry).unwrap();
    fs::write(entry.join("cache-id"), "own").unwrap();
    seed(root.path()).unwrap();
    assert_eq!(fs::read_to_string(entry.join("cache-id")).unwrap(), "own");
}

#[test]
fn a_root_without_images_and_a_damaged_seed() {
    let empty = tempfile::tempdir().unwrap();
    assert!(seed(empty.path()).unwrap().is_empty());
    let root = root();
    let list = root.path().join("usr/share/kscratch/images/seed.json");
    let text = fs::read_to_string(&list).unwrap();
    for (broken, want) in [
        (
            text.replace(ID, "../../etc/passwd"),
            "giving docker the image docker.io/library/echo:1: the seed's digest \"../../etc/passwd\" is not one of 64 hex digits",
        ),
        (
            text.replace(&format!("\"parent\":\"sha256:{LOW}\""), "\"parent\":null"),
            "does not name the layer below it as its parent",
        ),
        (text.replace("LINK2", "a/b"), "has the link name \"a/b\""),
        ("{".to_owned(), "reading /usr/share/kscratch/images/seed.json: EOF"),
    ] {
        fs::write(&list, broken).unwrap();
        let error = format!("{:#}", seed(root.path()).unwrap_err());
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn references_take_dockers_short_form() {
    for (reference, name, full) in [
        ("docker.io/library/busybox:1", "busybox", "busybox:1"),
        ("docker.io/calico/node", "calico/node", "calico/node:latest"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause", "registry.k8s.io/pause:3.10"),
        ("localhost:5000/a/b", "localhost:5000/a/b", "localhost:5000/a/b:latest"),
    ] {
        assert_eq!(familiar(reference), (name.to_owned(), full.to_owned()));
    }
}
