//! Makes installers of a small disk, and reads them with the tools of others: as a CD, as a disk, and as what they install.
mod sample;
mod tool;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use kscratch_formats::bytes::{ReadAt, Window};
use kscratch_formats::gpt;
use kscratch_formats::guid::Guid;
use kscratch_image::installer::{self, Installer, Medium, Source};
use kscratch_image::write::{Format, Written};
use kscratch_install::Plain;
use kscratch_install::packed::Packed;
use sample::{MIB, TIME, written};
use tempfile::TempDir;
use tool::run;

/// A disk, and its installer.
struct Made {
    folder: TempDir,
    disk: PathBuf,
    told: Written,
    iso: PathBuf,
    made: Installer,
}

/// What boots says for which disk it is made.
fn boot(guid: Guid) -> Vec<u8> {
    format!("boots {guid}").repeat(3000).into_bytes()
}

fn made() -> Made {
    let (folder, disk, told) = written(Format::Raw, "disk.img");
    let iso = folder.path().join("installer.iso");
    let made = make(&disk, &told, folder.path(), &iso);
    Made { folder, disk, told, iso, made }
}

fn make(disk: &Path, told: &Written, store: &Path, iso: &Path) -> Installer {
    make_with(BTreeMap::new(), disk, told, store, iso)
}

fn make_with(files: BTreeMap<String, Vec<u8>>, disk: &Path, told: &Written, store: &Path, iso: &Path) -> Installer {
    let source = Source { disk, written: told, sector: 512 };
    let program = |guid: Guid| -> anyhow::Result<Arc<[u8]>> { Ok(Arc::from(boot(guid))) };
    let medium = Medium { boot: &program, files: &files, time: TIME };
    let mut done = 0;
    let made = installer::write(&source, &medium, store, iso, &mut |bytes| done += bytes).unwrap();
    assert!(done >= told.chunks.len() as u64 * MIB / 2, "{done} bytes were told of");
    made
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn it_is_a_cd_and_a_disk_from_which_the_same_boots() {
    let Made { folder, iso, made, .. } = made();
    let told = run("xorriso", "xorriso", &["-indev", path(&iso), "-toc", "-report_el_torito", "plain", "-lsl", "/"]);
    for want in ["Volume id    : 'KSCRATCH_INSTALL'", "'DISK.KSP'", "'ESP.IMG'", "'README.TXT'"] {
        assert!(told.contains(want), "`{want}` is not in: {told}");
    }
    assert!(told.lines().any(|line| line.starts_with("El Torito boot img :   1  UEFI")), "{told}");
    let verdict = run("sgdisk", "gdisk", &["-v", path(&iso)]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let second = run("sgdisk", "gdisk", &["-i", "2", path(&iso)]);
    assert!(second.contains(&made.guid.to_string().to_uppercase()) && second.contains("'install'"), "{second}");

    // What the CD's entry leads to is the disk's ESP.
    let out = folder.path().join("esp.img");
    run("xorriso", "xorriso", &["-osirrox", "on", "-indev", path(&iso), "-extract", "/ESP.IMG", path(&out)]);
    run("fsck.fat", "dosfstools", &["-n", path(&out)]);
    let bytes = fs::read(&iso).unwrap();
    let table = gpt::read(bytes.as_slice(), bytes.len() as u64).unwrap();
    let esp = &table.partitions[0].1;
    assert_eq!(esp.name, "esp");
    assert!(fs::read(&out).unwrap() == bytes[esp.start as usize..(esp.start + esp.len) as usize], "they differ");
    let program = folder.path().join("program");
    run("mcopy", "mtools", &["-i", path(&out), "::/EFI/BOOT/BOOTX64.EFI", path(&program)]);
    assert!(fs::read(&program).unwrap() == boot(made.guid), "it was told another disk");
    assert_eq!((made.len, made.len % MIB), (bytes.len() as u64, 0));
}

#[test]
fn what_it_installs_is_the_disk() {
    let Made { folder, disk, told, iso, made } = made();
    let file = Plain::open(&iso).unwrap();
    let table = gpt::read(&file, file.len()).unwrap();
    let partition = table.partitions[1].1.clone();
    let window = Window { inner: file, start: partition.start, len: partition.len };
    let packed = Packed::open(window, partition.len).unwrap();
    assert_eq!((packed.identity(), partition.guid), (made.guid, made.guid));
    assert_eq!((packed.index().disk, packed.index().sector), (told.disk, Some(512)));
    let want = fs::read(&disk).unwrap();
    for start in (0..told.disk).step_by(3 * MIB as usize) {
        let mut bytes = vec![0; (told.disk - start).min(3 * MIB) as usize];
        packed.read_at(start, &mut bytes).unwrap();
        assert!(bytes == want[start as usize..start as usize + bytes.len()], "at byte {start}");
    }
    // The same disk gives the same bytes.
    let again = folder.path().join("again.iso");
    assert_eq!(make(&disk, &told, folder.path(), &again).guid, made.guid);
    assert!(fs::read(&again).unwrap() == fs::read(&iso).unwrap(), "two builds differ");
}

#[test]
fn with_metadata_it_is_its_owners_alone() {
    let Made { folder, disk, told, iso, .. } = made();
    let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&iso), 0o644);
    let files = BTreeMap::from([("/kscratch/role.toml".to_owned(), b"version = 1\nrole = \"node\"\n".to_vec())]);
    make_with(files, &disk, &told, folder.path(), &iso);
    assert_eq!(mode(&iso), 0o600);
}

#[test]
fn metadata_are_stamped_onto_it_as_onto_a_disk() {
    let Made { folder, iso, made, .. } = made();
    let role = folder.path().join("role.toml");
    fs::write(&role, "version = 1\nrole = \"node\"\n[install]\nserial = \"S1\"\n").unwrap();
    let stamp =
        Command::new(env!("CARGO_BIN_EXE_kscratch-image")).arg("stamp").arg(&iso).arg("--metadata").arg(&role).output();
    let stamp = stamp.unwrap();
    assert!(stamp.status.success(), "{}", String::from_utf8_lossy(&stamp.stderr));
    let bytes = fs::read(&iso).unwrap();
    let table = gpt::read(bytes.as_slice(), bytes.len() as u64).unwrap();
    let place = format!("{}@@{}", iso.display(), table.partitions[0].1.start);
    let text = run("mtype", "mtools", &["-i", &place, "::/kscratch/role.toml"]);
    assert_eq!(text, fs::read_to_string(&role).unwrap());
    assert_eq!(table.partitions[1].1.guid, made.guid);
}
