//! Prints what a machine's kernel says of its memory and of every process's, for the log of a pod; `rustc` alone compiles it.
//!
//! ```text
//! MemTotal:        2010000 kB      /proc/meminfo as it is
//! process 1 /init                  and of every process a line with its arguments
//! Pss:                1024 kB      and its /proc/PID/smaps_rollup as it is
//! ```
use std::fs;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

/// By then what starting this program set going is over.
const CALM: Duration = Duration::from_secs(30);

fn main() -> io::Result<()> {
    thread::sleep(CALM);
    let mut out = io::stdout().lock();
    out.write_all(&fs::read("/proc/meminfo")?)?;
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let Some(pid) = folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
        // Those of the kernel's own threads are empty, and those of a process that has ended meanwhile are not there.
        let rollup = fs::read(folder.join("smaps_rollup")).unwrap_or_default();
        if rollup.is_empty() {
            continue;
        }
        let command = fs::read(folder.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        writeln!(out, "process {pid} {}", words.join(" ").trim_end().replace('\n', " "))?;
        out.write_all(&rollup)?;
    }
    Ok(())
}
