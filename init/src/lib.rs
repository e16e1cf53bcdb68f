//! The parts of PID 1: what it decides (pure) and how it acts (behind one trait).
pub mod apply;
pub mod cmdline;
pub mod console;
pub mod facts;
pub mod inhibitor;
pub mod kmod;
pub mod log;
pub mod partition;
pub mod plan;
pub mod run;
pub mod sntp;
pub mod source;
pub mod stage;
pub mod superblock;
pub mod supervise;
pub mod sys;
pub mod uevent;
