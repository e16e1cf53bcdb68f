//! Turns the supervisor's actions into processes, and what the kernel tells into the supervisor's events.
pub mod buttons;
pub mod cgroup;
pub mod confine;
pub mod eventloop;
pub mod inbox;
pub mod logs;
pub mod power;
pub mod ready;
pub mod recorder;
pub mod spawn;
pub mod watchdog;
