//! Unpacks Debian's QEMU into a cache and starts it: what `run` falls back to on a machine without QEMU.
use std::time::Duration;

use kscratch_image::commands;
use kscratch_image::console::Console;
use kscratch_image::run::tools;
use kscratch_image::store::Store;
use kscratch_qemu::{Accelerator, Disk, Firmware, Machine, Overlay, Toolset, Vm};

#[test]
fn an_unpacked_qemu_starts_a_machine_with_firmware() {
    // The user's own store: packages are fetched once for all tests.
    let store = Store::open(&commands::default_cache().unwrap()).unwrap();
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
    let vm = Vm::start(&tools, &machine).unwrap_or_else(|error| panic!("{error}"));
    vm.wait_for_line("BdsDxe: failed to load Boot0001", Duration::from_secs(120))
        .unwrap_or_else(|error| panic!("{error}"));
}
