//! Turns a few instructions into a guest of some hundred bytes that QEMU boots directly: no kernel has to be fetched to test the harness.
use std::fs;
use std::path::{Path, PathBuf};

/// Where the guest is loaded and entered.
const BASE: u32 = 0x10_0000;
/// Length of the header up to the entry point.
const HEADER: u32 = 32;

const COM1_DATA: u16 = 0x3f8;
const COM1_LINE_STATUS: u16 = 0x3fd;
// Where SeaBIOS puts the ACPI registers of a q35 machine (ACPI 6.5, 4.8.3: PM1 event and control registers).
const PM1_STATUS: u16 = 0x600;
const PM1_ENABLE: u16 = 0x602;
const PM1_CONTROL: u16 = 0x604;
const RESET_CONTROL: u16 = 0xcf9;

/// Writes the guest into `folder`. It says `guest: up`, answers a typed letter with `guest: heard`, switches off at `o` or the power
/// button (after `guest: button`), resets at `r`, says a kernel's panic line at `p`.
pub fn write(folder: &Path) -> PathBuf {
    let path = folder.join("guest");
    fs::write(&path, image()).unwrap();
    path
}

fn image() -> Vec<u8> {
    let mut code = Code::default();
    code.out16(PM1_ENABLE, 0x0100); // power button enabled
    code.print("\r\nguest: up\r\n");
    code.label("loop");
    code.port(PM1_STATUS);
    code.bytes(&[0x66, 0xed, 0xf6, 0xc4, 0x01]); // in ax, dx; test ah, 1: power button pressed
    code.jump_if_not_zero("button");
    code.port(COM1_LINE_STATUS);
    code.bytes(&[0xec, 0xa8, 0x01]); // in al, dx; test al, 1: a byte has come
    code.jump_if_zero("loop");
    code.port(COM1_DATA);
    code.bytes(&[0xec]); // in al, dx
    for (letter, label) in [(b'\n', "loop"), (b'o', "off"), (b'r', "reset"), (b'p', "panic")] {
        code.bytes(&[0x3c, letter]); // cmp al, letter
        code.jump_if_zero(label);
    }
    code.print("guest: heard\r\n");
    code.jump("loop");
    code.label("button");
    code.print("guest: button\r\n");
    code.label("off");
    code.print("guest: off\r\n");
    code.out16(PM1_CONTROL, 0x2000); // SLP_EN with the sleep type that is S5 here
    code.jump("loop");
    code.label("reset");
    code.out16(RESET_CONTROL, 0x0006);
    code.jump("loop");
    code.label("panic");
    code.print("Kernel panic - not syncing: asked to\r\n");
    code.jump("loop");
    let code = code.linked();

    // Multiboot 0.6.96, 3.1: magic, flags (bit 16: addresses follow), checksum, header, load, load end, bss end, entry.
    let end = BASE + HEADER + u32::try_from(code.len()).unwrap();
    let (magic, flags) = (0x1bad_b002_u32, 0x1_0000_u32);
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
    let mut image = Vec::new();
    for word in [magic, flags, checksum, BASE, BASE, end, end, BASE + HEADER] {
        image.extend_from_slice(&word.to_le_bytes());
    }
    image.extend_from_slice(&code);
    image
}

#[derive(Default)]
struct Code {
    bytes: Vec<u8>,
    labels: Vec<(&'static str, usize)>,
    jumps: Vec<(&'static str, usize)>,
}

impl Code {
    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn label(&mut self, name: &'static str) {
        self.labels.push((name, self.bytes.len()));
    }

    /// mov dx, port
    fn port(&mut self, port: u16) {
        self.bytes(&[0x66, 0xba]);
        self.bytes(&port.to_le_bytes());
    }

    fn out16(&mut self, port: u16, value: u16) {
        self.port(port);
        self.bytes(&[0x66, 0xb8]); // mov ax, value
        self.bytes(&value.to_le_bytes());
        self.bytes(&[0x66, 0xef]); // out dx, ax
    }

    fn print(&mut self, text: &str) {
        self.port(COM1_DATA);
        for byte in text.bytes() {
            self.bytes(&[0xb0, byte, 0xee]); // mov al, byte; out dx, al
        }
    }

    fn jump(&mut self, label: &'static str) {
        self.bytes(&[0xe9]);
        self.target(label);
    }

    fn jump_if_zero(&mut self, label: &'static str) {
        self.bytes(&[0x0f, 0x84]);
        self.target(label);
    }

    fn jump_if_not_zero(&mut self, label: &'static str) {
        self.bytes(&[0x0f, 0x85]);
        self.target(label);
    }

    fn target(&mut self, label: &'static str) {
        self.jumps.push((label, self.bytes.len()));
        self.bytes(&[0; 4]);
    }

    /// The bytes with every jump's distance, counted from the end of its instruction.
    fn linked(mut self) -> Vec<u8> {
        for (label, at) in self.jumps {
            let (_, target) = self.labels.iter().find(|(name, _)| *name == label).unwrap();
            let distance = i32::try_from(*target).unwrap() - i32::try_from(at + 4).unwrap();
            self.bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        self.bytes
    }
}
