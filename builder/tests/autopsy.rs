//! `autopsy`, the program, on whole disks of every form.
mod sample;
mod tool;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kscratch_formats::gpt;
use kscratch_image::inspect::Opened;
use kscratch_image::plan::{TYPE_RECORDER, TYPE_VAR};
use kscratch_image::write::Format;
use kscratch_recorder::{Begin, BootId, Entry, Ring, What};
use sample::written;
use tool::run;

const NOTHING: &str = "this disk has recorded no boot yet\n";

/// Status, what is printed, and what is said beside it.
fn autopsy(disk: &Path, args: &[&str]) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_kscratch-image")).arg("autopsy").arg(disk).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn partition(disk: &Path) -> gpt::Partition {
    let opened = Opened::open(disk).unwrap();
    let table = gpt::read(&opened, opened.disk_len()).unwrap();
    table.partitions.into_iter().find(|(_, partition)| partition.kind == TYPE_RECORDER).unwrap().1
}

/// Boots onto the disk: a second for each entry.
fn record(disk: &Path, boots: &[&[What]]) {
    let place = partition(disk);
    let file = File::options().read(true).write(true).open(disk).unwrap();
    for (entries, number) in boots.iter().zip(1..) {
        let mut bytes = vec![0; place.len as usize];
        file.read_exact_at(&mut bytes, place.start).unwrap();
        let mut writer = Ring::read(&bytes).writer(BootId([number; 16])).unwrap();
        let put = |placed: Option<kscratch_recorder::Placed>| {
            if let Some((offset, block)) = placed {
                file.write_all_at(&block[..], place.start + offset).unwrap();
            }
        };
        for (what, at) in entries.iter().zip(1..) {
            put(writer.push(&Entry { at: Duration::from_secs(at), what: what.clone() }));
        }
        put(writer.flush());
    }
}

#[test]
fn a_disk_that_never_ran_says_so_in_every_form() {
    for (format, name) in [(Format::Raw, "d.img"), (Format::RawZst, "d.img.zst"), (Format::Qcow2, "d.qcow2")] {
        let (_folder, disk, _) = written(format, name);
        assert_eq!(autopsy(&disk, &[]), (0, NOTHING.into(), String::new()), "{name}");
        assert_eq!(autopsy(&disk, &["--json"]).1, "[]\n", "{name}");
    }
}

#[test]
fn boots_are_told_of_a_disk_and_of_what_lies_over_it() {
    let (folder, raw, _) = written(Format::Raw, "d.img");
    let begin = |clock| What::Begin(Begin { clock, kscratch: "0.1.0".into(), kernel: "6.12.1".into() });
    let (first, second) = (begin(1_795_000_000), begin(1_795_000_060));
    let failed = ["phase 01 mounts: start", "phase 01 mounts: failed: no space"].map(|text| What::Said(text.into()));
    record(&raw, &[&[first, What::End("reboot".into())], &[&[second][..], &failed].concat()]);
    let (status, text, said) = autopsy(&raw, &[]);
    assert_eq!((status, said.as_str()), (0, ""));
    let line = "boot 2  begun 2026-11-18 11:06:40 UTC  ran 2 s                     reboot          no troubles\n\n";
    assert!(text.starts_with(line), "{text}");
    assert!(text.contains("01 mounts failed: no space\n") && text.contains("or it runs still"), "{text}");
    let (over, copy) = (folder.path().join("over.qcow2"), folder.path().join("copy.qcow2"));
    let (raw_path, over_path, copy_path) = (raw.to_str().unwrap(), over.to_str().unwrap(), copy.to_str().unwrap());
    run("qemu-img", "qemu-utils", &["create", "-q", "-f", "qcow2", "-b", raw_path, "-F", "raw", over_path, "8G"]);
    run("qemu-img", "qemu-utils", &["convert", "-f", "raw", "-O", "qcow2", raw_path, copy_path]);
    for disk in [&over, &copy] {
        assert_eq!(autopsy(disk, &[]), (0, text.clone(), String::new()));
    }
    let (_, all, _) = autopsy(&over, &["--all", "--log"]);
    assert!(all.contains("[   2.000] end: reboot\n") && all.contains("[   1.000] begin: "), "{all}");
    let (_, one, _) = autopsy(&raw, &["--boot", "2"]);
    assert!(one.starts_with("boot 2: begun") && one.contains("ended in order, 2 s after its start: reboot"), "{one}");
    let json: serde_json::Value = serde_json::from_str(&autopsy(&raw, &["--json"]).1).unwrap();
    assert_eq!((&json[0]["number"], &json[0]["ended"]), (&2.into(), &"reboot".into()));
    assert_eq!((&json[1]["phases"][0]["reason"], &json[1]["ended"]), (&"no space".into(), &serde_json::Value::Null));
    let (status, text, said) = autopsy(&raw, &["--boot", "3"]);
    assert!(status != 0 && text.is_empty(), "{text}");
    assert!(said.contains("there is no boot 3") && said.contains("hint: --boot 1"), "{said}");
}

#[test]
fn a_disk_without_a_recorder_is_refused_with_a_hint() {
    let (_folder, disk, _) = written(Format::Raw, "d.img");
    let opened = Opened::open(&disk).unwrap();
    let table = gpt::read(&opened, opened.disk_len()).unwrap();
    let mut parts: Vec<gpt::Partition> = table.partitions.into_iter().map(|(_, partition)| partition).collect();
    parts
        .iter_mut()
        .filter(|partition| partition.kind == TYPE_RECORDER)
        .for_each(|partition| partition.kind = TYPE_VAR);
    let file = File::options().write(true).open(&disk).unwrap();
    for extent in gpt::tables::<()>(table.disk, opened.disk_len(), 512, &parts).unwrap() {
        let kscratch_formats::image::Data::Bytes(bytes) = extent.data else { panic!("a table is bytes") };
        file.write_all_at(&bytes, extent.offset).unwrap();
    }
    let (status, text, said) = autopsy(&disk, &[]);
    assert!(status != 0 && text.is_empty(), "{text}");
    assert!(said.contains("there is no flight recorder's partition on it") && said.contains("hint: "), "{said}");
}
