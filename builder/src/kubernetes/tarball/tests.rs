//! A release made by hand is taken from a file, a folder, and a server of the loopback that publishes checksums beside it.
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;

use super::*;

fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn release() -> Vec<u8> {
    tarball(&[
        ("kubernetes/LICENSES", b"text"),
        ("kubernetes/server/bin/kubelet", b"kubelet's bytes"),
        ("kubernetes/server/bin/kube-proxy", b"proxy's bytes"),
        ("kubernetes/server/bin/kubeadm", b"not taken"),
        ("kubernetes/server/bin/kube-apiserver", b"server's bytes"),
        ("kubernetes/server/bin/kube-scheduler", b"scheduler's bytes"),
        ("kubernetes/server/bin/kube-controller-manager", b"manager's bytes"),
        ("kubernetes/server/bin/kube-apiserver.tar", b"image"),
        ("kubernetes/server/bin/kube-apiserver.docker_tag", b"v1.36.1\n"),
    ])
}

fn world() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn assert_whole(contents: &Contents) {
    assert!(contents.programs.contains_key("kube-proxy") && !contents.programs.contains_key("kubeadm"));
    assert_eq!(contents.programs["kubelet"], Digest::of(b"kubelet's bytes"));
    assert_eq!(contents.images.iter().collect::<Vec<_>>(), ["kube-apiserver.tar"]);
    assert_eq!(contents.version.as_deref(), Some("1.36.1"));
}

#[test]
fn a_local_tarball_says_its_own_version_and_may_not_change() {
    let (folder, store) = world();
    let path = folder.path().join("server.tar.gz");
    fs::write(&path, release()).unwrap();
    let artifact =
        local_artifact(Path::new(""), &path, part::NODE, &Version::parse("1.37.2").unwrap(), &store).unwrap();
    assert_eq!((artifact.version.as_str(), artifact.size), ("1.36.1", Some(release().len() as u64)));
    assert_whole(&local(&path, part::NODE, &artifact.sha256.unwrap(), &store).unwrap());
    fs::write(&path, tarball(&[("x", b"")])).unwrap();
    // What was taken once is in the store; the file itself is not needed again.
    assert_whole(&local(&path, part::NODE, &artifact.sha256.unwrap(), &store).unwrap());
    let (_other, empty) = world();
    let error = format!("{:#}", local(&path, part::NODE, &artifact.sha256.unwrap(), &empty).unwrap_err());
    assert!(error.contains("has changed: its digest is"), "{error}");
}

#[test]
fn a_folder_is_as_good_as_its_tarball() {
    let (folder, store) = world();
    let root: PathBuf = folder.path().join("unpacked");
    let gz = flate2::read::GzDecoder::new(release().leak() as &[u8]);
    tar::Archive::new(gz).unpack(&root).unwrap();
    for path in [root.clone(), root.join("kubernetes"), root.join("kubernetes/server/bin")] {
        let artifact =
            local_artifact(Path::new(""), &path, part::NODE, &Version::parse("1.37.2").unwrap(), &store).unwrap();
        assert_whole(&local(&path, part::NODE, &artifact.sha256.unwrap(), &store).unwrap());
    }
}

#[test]
fn a_part_is_found_by_its_programs_or_missed_by_name() {
    let (folder, store) = world();
    let packed = folder.path().join("server.tar.gz");
    fs::write(&packed, release()).unwrap();
    let root = folder.path().join("unpacked");
    tar::Archive::new(flate2::read::GzDecoder::new(release().leak() as &[u8])).unpack(&root).unwrap();
    let asked = Version::parse("1.37.2").unwrap();
    for path in [&packed, &root] {
        let artifact = local_artifact(Path::new(""), path, part::CONTROL_PLANE, &asked, &store).unwrap();
        assert_eq!((artifact.name.as_str(), artifact.version.as_str()), ("kubernetes-control-plane", "1.36.1"));
        let contents = local(path, part::CONTROL_PLANE, &artifact.sha256.unwrap(), &store).unwrap();
        assert_eq!(contents.programs["kube-apiserver"], Digest::of(b"server's bytes"));
        // Asked again, what is remembered of the file is held against the part too.
        for _ in 0..2 {
            let error =
                format!("{:#}", local_artifact(Path::new(""), path, part::KUBECTL, &asked, &store).unwrap_err());
            assert!(error.contains("holds no kubernetes/server/bin/kubectl"), "{error}");
        }
    }
    // A folder is locked by what is taken from it: a node's lock does not change when other programs come to stand there.
    let node = local_artifact(Path::new(""), &root, part::NODE, &asked, &store).unwrap();
    fs::write(root.join("kubernetes/server/bin/kube-scheduler"), b"another").unwrap();
    assert_eq!(local_artifact(Path::new(""), &root, part::NODE, &asked, &store).unwrap(), node);
}

#[test]
fn what_is_no_release_is_named() {
    let (folder, store) = world();
    let version = Version::parse("1.37.2").unwrap();
    let path = folder.path().join("x.tar.gz");
    for (bytes, want) in [
        (
            tarball(&[("kubernetes/server/bin/kubelet", b"1")]),
            "is no Kubernetes server release: it holds no kubernetes/server/bin/kube-proxy",
        ),
        (b"text".to_vec(), "reading"),
        (release()[..100].to_vec(), "reading"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = format!("{:#}", local_artifact(Path::new(""), &path, part::NODE, &version, &store).unwrap_err());
        assert!(error.contains(want), "{error}");
    }
    let error =
        format!("{:#}", local_artifact(Path::new(""), folder.path(), part::NODE, &version, &store).unwrap_err());
    assert!(error.contains("holds no kubernetes/server/bin/kubelet"), "{error}");
}

/// Serves files by path until the test ends.
fn serve(files: BTreeMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let mut words = request.split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let (status, body) = files.get(path).map_or(("404 Not Found", &b""[..]), |bytes| ("200 OK", bytes));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            if method == "GET" {
                stream.write_all(body).unwrap();
            }
        }
    });
    base
}

#[test]
fn an_official_tarball_is_locked_by_what_is_published_beside_it() {
    let (_folder, store) = world();
    let version = Version::parse("1.36.1").unwrap();
    let path = "/v1.36.1/kubernetes-server-linux-amd64.tar.gz";
    let sha512 = hex::encode(Sha512::digest(release()));
    let base = serve(BTreeMap::from([
        (path.to_owned(), release()),
        (format!("{path}.sha256"), Digest::of(&release()).to_string().into_bytes()),
        (format!("{path}.sha512"), format!("{sha512}  kubernetes-server-linux-amd64.tar.gz\n").into_bytes()),
    ]));
    let http = Http::new().unwrap().attempts(1);
    let artifact = artifact(&url(&base, &version), &version, &http).unwrap();
    assert_eq!((artifact.size, artifact.sha256), (Some(release().len() as u64), Some(Digest::of(&release()))));
    assert_eq!(artifact.origin, Origin::Tarball { url: format!("{base}{path}"), sha512: sha512.clone() });

    let digest = store.add_bytes(&release()).unwrap();
    assert_whole(&official(&digest, part::NODE, &sha512, &store).unwrap());
    let error = official(&digest, part::NODE, &"0".repeat(128), &store).unwrap_err().to_string();
    assert!(error.contains("the SHA-512 of the Kubernetes tarball is"), "{error}");
    let missing = super::artifact(&url(&base, &Version::parse("1.36.9").unwrap()), &version, &http).unwrap_err();
    assert!(format!("{missing:#}").contains("404"), "{missing:#}");
}
