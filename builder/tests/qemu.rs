//! Unpacks Debian's QEMU and swtpm into a cache and starts them: what `run` falls back to on a machine without.
use std::path::Path;
use std::time::{Duration, Instant};

use kscratch_image::commands;
use kscratch_image::console::Console;
use kscratch_image::run::tools::{self, Qemu};
use kscratch_image::store::Store;
use kscratch_qemu::{Accelerator, Disk, Firmware, Machine, Overlay, Toolset, Tpm, Vm};

#[test]
fn an_unpacked_qemu_starts_a_machine_with_firmware_and_a_tpm_that_ends_with_it() {
    // The user's own store: packages are fetched once for all tests.
    let store = Store::open(&commands::default_cache().unwrap()).unwrap();
    let swtpm = tools::swtpm(Some(Qemu::Unpacked), &store, &Console::silent());
    let swtpm = swtpm.unwrap_or_else(|error| panic!("{error:?}"));
    let _alone = store.lock(&Console::silent()).unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = folder.path().join("qemu");
    tools::unpack_into(&root, &store, &Console::silent()).unwrap_or_else(|error| panic!("{error:?}"));
    let tools = Toolset::below(&root).unwrap();

    let disk = folder.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let overlay = Overlay::create(&tools, &disk, None).unwrap();
    let mut machine = Machine::new(Firmware::Uefi).disk(Disk::from(&overlay));
    machine.accelerator = Accelerator::Emulation;
    machine.memory = 256;
    // A comma ends a value of swtpm's options.
    let state = folder.path().join("m,tpm");
    let sockets = tempfile::tempdir().unwrap();
    let tpm = Tpm::start(&swtpm, tools.setpriv.as_deref(), &state, sockets.path());
    let tpm = tpm.unwrap_or_else(|error| panic!("{error}"));
    machine.tpm = Some(tpm.socket().to_owned());
    let mut vm = Vm::start(&tools, &machine).unwrap_or_else(|error| panic!("{error}"));
    vm.wait_for_line("BdsDxe: failed to load Boot0001", Duration::from_secs(120))
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(state.join("tpm2-00.permall").exists(), "the TPM was not started, or keeps nothing");
    vm.cut_power();
    let (process, cut) = (format!("/proc/{}", tpm.pid()), Instant::now());
    while Path::new(&process).exists() {
        assert!(cut.elapsed() < Duration::from_secs(10), "the TPM outlives its machine");
        std::thread::sleep(Duration::from_millis(20));
    }
}
