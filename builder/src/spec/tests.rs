//! Texts of image.toml become specs, or errors with their place.
use std::path::Path;

use expect_test::{Expect, expect};

use super::{ByteSize, CriDockerdSource, DEFAULT, ImageSpec, KubernetesSource, State, keys};

fn parse(text: &str) -> anyhow::Result<ImageSpec> {
    ImageSpec::parse(text, Path::new("image.toml"))
}

#[track_caller]
fn refused(text: &str, want: Expect) {
    want.assert_eq(&parse(text).unwrap_err().to_string());
}

#[test]
fn the_defaults_are_the_defaults() {
    let spec = parse("").unwrap();
    assert_eq!(spec, parse(DEFAULT).unwrap(), "laying the defaults over themselves changes nothing");
    assert_eq!(spec.disk.esp, ByteSize(512 << 20));
    assert_eq!(spec.kubernetes.source, KubernetesSource::Auto);
    assert!(spec.packages().contains(&"linux-image-cloud-amd64".to_owned()));
}

#[test]
fn every_key_is_in_the_list_and_none_besides() {
    let mut spec = parse("[debian]\nmirror='x'\nsecurity_mirror='y'\nkeyring='z'\n[etcd]\nversion='v'").unwrap();
    spec.programs.truncate(1);
    spec.programs[0].target = Some("/x".into());
    spec.files.truncate(1);
    spec.files[0].target = Some("/x".into());
    let toml::Value::Table(document) = toml::Value::try_from(&spec).unwrap() else { panic!("no table") };
    let check = |section: &str, table: &toml::Table| {
        let mut known = keys::of(section).to_vec();
        known.sort_unstable();
        assert_eq!(table.keys().map(String::as_str).collect::<Vec<_>>(), known, "[{section}]");
    };
    check("", &document);
    for (section, value) in &document {
        match value {
            toml::Value::Table(table) => check(section, table),
            toml::Value::Array(items) => {
                items.iter().filter_map(toml::Value::as_table).for_each(|table| check(section, table))
            }
            _ => {}
        }
    }
}

#[test]
fn what_the_user_says_wins() {
    let spec = parse(
        "drop = ['/usr/sbin/tc', '/etc/ssl/certs/ca-certificates.crt']\n[disk]\nroot='2GiB'\n[kernel]\nload=['overlay']\n\
         [kubernetes]\nsource='./k.tar.gz'\n[[program]]\npackage='strace'\npath='/usr/bin/strace'\nroles=['master']\n\
         [[program]]\npackage='mount'\npath='/usr/bin/mount'\nas='/bin/mount'",
    )
    .unwrap();
    let defaults = parse("").unwrap();
    assert_eq!(spec.disk.root.to_string(), "2GiB");
    assert_eq!(spec.disk.state, defaults.disk.state);
    assert_eq!(spec.kernel.load, ["overlay"]);
    assert_eq!(spec.kernel.modules, defaults.kernel.modules);
    assert_eq!(spec.kubernetes.source, KubernetesSource::Path("./k.tar.gz".into()));
    assert_eq!(spec.programs.len(), defaults.programs.len(), "one dropped, one added, one replaced");
    assert!(spec.bundles.is_empty());
    assert_eq!(
        spec.programs.iter().find(|program| program.path == "/usr/bin/mount").unwrap().destination(),
        "/bin/mount"
    );
}

#[test]
fn paths_are_relative_to_the_file() {
    let text = "[images]\nload=['app.tar']\n[manifests]\nfiles=['/etc/pod.yaml']\n[overlays]\nfolders=['own']\n[debian]\nkeyring='keys.gpg'\n\
                [cri_dockerd]\nsource='cri-dockerd.tgz'";
    let spec = ImageSpec::parse(text, Path::new("config/image.toml")).unwrap();
    assert_eq!(spec.images.load, [Path::new("config/app.tar")]);
    assert_eq!(spec.manifests.files, [Path::new("/etc/pod.yaml")]);
    assert_eq!(spec.overlays.folders, [Path::new("config/own")]);
    assert_eq!(spec.debian.keyring.as_deref(), Some(Path::new("config/keys.gpg")));
    // Written into locks, which are the same from everywhere.
    assert_eq!(spec.folder, Path::new("config"));
    assert_eq!(spec.cri_dockerd.source, CriDockerdSource::Path("cri-dockerd.tgz".into()));
    let mut printed = spec.clone();
    printed.anchor_sources();
    assert_eq!(printed.cri_dockerd.source, CriDockerdSource::Path("config/cri-dockerd.tgz".into()));
    assert_eq!(printed.folder, Path::new(""), "what was printed is not anchored twice");
}

#[test]
fn refusals_name_line_and_fix() {
    refused(
        "\n[debian]\nsiute = 'x'\n",
        expect!["image.toml:3:1: unknown key `siute` in [debian]; did you mean `suite`?"],
    );
    refused("[kernl]\n", expect!["image.toml:1:2: unknown key `kernl` at the top level; did you mean `kernel`?"]);
    refused(
        "[disk]\nsomething = 1",
        expect!["image.toml:2:1: unknown key `something` in [disk]; known are esp, root, state, sector_size"],
    );
    refused(
        "[disk]\nesp = '512MB'",
        expect!["image.toml:2:7: the size `512MB` is not a number with a unit, such as `512MiB` or `1GiB`"],
    );
    refused(
        "[disk]\nsector_size = 520",
        expect!["image.toml:2:15: sectors of 520 bytes: there are disks with 512 and with 4096"],
    );
    refused(
        "[disk]\nesp = 'elsewhere'",
        expect!["image.toml:2:7: the size `elsewhere` is not a number with a unit, such as `512MiB` or `1GiB`"],
    );
    refused(
        "[disk]\nstate = 'nowhere'",
        expect![
            "image.toml:2:9: the size `nowhere` is not a number with a unit, such as `512MiB` or `1GiB`; or `elsewhere`, for another disk of the machine"
        ],
    );
    refused("[disk]\nesp = 512", expect!["image.toml:2:7: invalid type: integer `512`, expected a string"]);
    refused(
        "[kernel]\nflavour = 'tiny'",
        expect!["image.toml:2:11: unknown variant `tiny`, expected one of `cloud`, `generic`, `metal`"],
    );
    refused(
        "[kubernetes]\nsource = 'mirror'",
        expect![
            "image.toml:2:10: the source `mirror` is none of `auto`, `tarball`, `compile` and no path (write `./mirror` for a path)"
        ],
    );
    refused(
        "[cri_dockerd]\nsource = 'tarball'",
        expect!["image.toml:2:10: the source `tarball` is not `compile` and no path (write `./tarball` for a path)"],
    );
    refused(
        "[[program]]\npackage='x11-apps'\npath='usr/bin/xeyes'",
        expect!["image.toml:3:6: the path `usr/bin/xeyes` is not absolute: write it with a leading `/`"],
    );
    refused(
        "[[file]]\npackage='libc6'\npath='/usr/../etc/passwd'",
        expect!["image.toml:3:6: the path `/usr/../etc/passwd` has an empty, `.` or `..` part, or a trailing slash"],
    );
    refused(
        "[[file]]\npackage='../libc6'\npath='/etc/passwd'",
        expect!["image.toml:2:9: `../libc6` is not the name of a Debian package"],
    );
    refused("[[file]]\npackage='libc6'", expect!["image.toml:1:1: missing field `path`"]);
    refused("drop = ['/usr/bin/vi']", expect!["image.toml:1:9: nothing in the defaults has the path `/usr/bin/vi`"]);
    refused("version = 2", expect!["image.toml: version 2 is not known; this program reads version 1"]);
    refused("[debian\n", expect!["image.toml:1:8: unclosed table, expected `]`"]);
}

#[test]
fn metal_has_firmware_and_microcode_and_cloud_has_none() {
    let (cloud, metal) = (parse("").unwrap(), parse("[kernel]\nflavour = 'metal'").unwrap());
    assert_eq!(metal, parse("[kernel]\nflavour = 'generic'").unwrap(), "the name before");
    let more: Vec<String> = metal.packages().into_iter().filter(|name| !cloud.packages().contains(name)).collect();
    let own = ["linux-image-amd64".to_owned()].into_iter();
    let mut wanted: Vec<String> =
        own.chain(metal.hardware.firmware.clone()).chain(metal.hardware.microcode.clone()).collect();
    wanted.sort();
    assert_eq!(more, wanted);
    let bare = parse("[kernel]\nflavour = 'metal'\n[hardware]\nfirmware = []\nmicrocode = []").unwrap();
    assert!(!bare.packages().iter().any(|name| name.contains("firmware") || name.contains("microcode")));
}

#[test]
fn a_class_is_replaced_alone_and_disks_are_for_the_initramfs_too() {
    let spec = parse("[hardware]\nstorage = ['nvme']\nusb = []").unwrap();
    let kernel = spec.kernel_with_hardware();
    assert_eq!(spec.hardware.network, parse("").unwrap().hardware.network);
    let has = |list: &[String], name: &str| list.iter().any(|module| module == name);
    assert!(has(&kernel.modules, "nvme") && has(&kernel.initramfs, "nvme") && !has(&kernel.initramfs, "ahci"));
    let of_cards = |list: &[String]| list.iter().any(|module| module.starts_with("drivers/net/ethernet/{intel"));
    assert!(of_cards(&kernel.modules) && !of_cards(&kernel.initramfs));
    let kernel = spec.for_netboot().kernel_with_hardware();
    assert!(of_cards(&kernel.initramfs) && has(&kernel.initramfs, "loop") && has(&kernel.initramfs, "nvme"));
    assert!(!kernel.modules.iter().any(|module| module.starts_with("drivers/usb")));
}

#[test]
fn state_is_on_the_disk_or_elsewhere() {
    let here = parse("").unwrap().disk.state;
    assert_eq!((here, here.bytes(), here.word()), (State::Here(ByteSize(512 << 20)), Some(512 << 20), None));
    let spec = parse("[disk]\nstate = 'elsewhere'").unwrap();
    assert_eq!((spec.disk.state.bytes(), spec.disk.state.word().as_deref()), (None, Some("kscratch.state=elsewhere")));
    // As it is printed it is read again.
    for (state, want) in [(here, "512MiB"), (State::Elsewhere, "elsewhere")] {
        assert_eq!((state.to_string().as_str(), want.parse::<State>()), (want, Ok(state)));
    }
}

#[test]
fn sizes_are_written_as_they_are_read() {
    for text in ["1MiB", "512MiB", "1GiB", "1536MiB", "1024GiB"] {
        assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
    }
    for text in ["", "MiB", "0MiB", "-1MiB", "1.5GiB", "17TiB", "99999999999999999999TiB"] {
        assert!(text.parse::<ByteSize>().is_err(), "{text}");
    }
}
