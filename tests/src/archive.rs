//! Turns one program into a `docker save` archive that holds an image of it alone.
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

/// Writes `FOLDER/NAME.tar` with the image `NAME:TAG` that runs `program` as `/NAME`.
pub fn write(folder: &Path, name: &str, tag: &str, program: &Path) -> PathBuf {
    let program = std::fs::read(program).expect("reading the program");
    let layer = tar_of(&[(name, &program, 0o755)]);
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Entrypoint": [format!("/{name}")] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "kscratch-tests" }],
        "created": "1970-01-01T00:00:00Z",
    })
    .to_string();
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let manifest =
        json!([{ "Config": config_name, "RepoTags": [format!("{name}:{tag}")], "Layers": ["layer.tar"] }]).to_string();
    let archive = tar_of(&[
        ("layer.tar", &layer, 0o644),
        (&config_name, config.as_bytes(), 0o644),
        ("manifest.json", manifest.as_bytes(), 0o644),
    ]);
    let path = folder.join(format!("{name}.tar"));
    std::fs::write(&path, archive).expect("writing the archive");
    path
}

fn tar_of(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_data(&mut header, name, *bytes).expect("adding to an archive in memory");
    }
    tar.into_inner().expect("ending an archive in memory")
}
