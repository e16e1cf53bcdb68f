//! The parts of PID 1: what it decides (pure) and how it acts (behind one trait).
pub mod facts;
pub mod log;
pub mod plan;
pub mod sys;
pub mod supervise;
pub mod cmdline;
pub mod kmod;
pub mod partition;
pub mod uevent;
pub mod stage;
pub mod superblock;
pub mod apply;
pub mod record;
pub mod run;
pub mod source;
