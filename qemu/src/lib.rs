//! Starts, watches, scripts and stops virtual machines, always bounded in time.
//!
//! ```no_run
//! use std::time::Duration;
//! use kscratch_qemu::{Disk, Firmware, Forward, Machine, Overlay, Toolset, Vm};
//!
//! # fn main() -> Result<(), kscratch_qemu::Error> {
//! let tools = Toolset::find()?;
//! let overlay = Overlay::create(&tools, "kscratch-node.img".as_ref(), Some(8 << 30))?;
//! let machine = Machine::new(Firmware::Uefi).disk(Disk::from(&overlay)).forward(Forward::to(8080));
//! let mut vm = Vm::start(&tools, &machine)?;
//! let line = vm.wait_for_line("service kubelet: ready", Duration::from_secs(120))?;
//! println!("kubelet was ready after {:?}; the pod is at {:?}", line.at, vm.forwarded(8080));
//! vm.power_button()?;
//! vm.wait_for_exit(Duration::from_secs(60))?;
//! # Ok(())
//! # }
//! ```
pub mod accelerator;
pub mod arguments;
pub mod child;
pub mod console;
pub mod error;
pub mod gateway;
pub mod hardware;
pub mod link;
pub mod machine;
pub mod memory;
mod opening;
pub mod overlay;
pub mod plugging;
pub mod qmp;
mod terminal;
pub mod toolset;
pub mod tpm;
pub mod vm;

pub use console::{Line, Pattern};
pub use error::Error;
pub use gateway::{Gateway, RunningGateway};
pub use hardware::{CardModel, DiskModel};
pub use link::{Condition, Link};
pub use machine::{Accelerator, Card, Disk, DiskFormat, Firmware, Forward, FwCfg, Machine, Serial};
pub use memory::Memory;
pub use overlay::Overlay;
pub use toolset::Toolset;
pub use tpm::Tpm;
pub use vm::Vm;
