//! Turns a [`Report`] into lines for people.
use std::fmt;

use super::{FileReport, Form, MachineReport, PartitionReport, Report, RoleReport};

/// Bytes in the largest unit that leaves a number above one.
fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Raw => "raw",
            Form::RawZst => "raw.zst",
            Form::Qcow2 => "qcow2",
            Form::Vmdk => "vmdk",
            Form::Vhd => "vhd",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "disk       {} ({} bytes), {}, sectors of {} bytes, GUID {}",
            size(self.disk_bytes),
            self.disk_bytes,
            self.form,
            self.sector_bytes,
            self.disk_guid
        )?;
        if let Some(warning) = &self.table_warning {
            writeln!(f, "warning    {warning}")?;
        }
        for partition in &self.partitions {
            write!(f, "{partition}")?;
        }
        if let Some(boot) = &self.boot {
            writeln!(f, "boot       {} ({})", boot.path, size(boot.len))?;
            let initramfs = boot.initrd_bytes.saturating_sub(boot.microcode_bytes);
            write!(f, "kernel     {} ({}), initramfs {}", boot.kernel, size(boot.linux_bytes), size(initramfs))?;
            if boot.microcode_bytes > 0 {
                write!(f, ", microcode {}", size(boot.microcode_bytes))?;
            }
            writeln!(f)?;
            writeln!(f, "cmdline    {}", boot.cmdline)?;
            if boot.state_elsewhere {
                writeln!(
                    f,
                    "state      elsewhere: on the disk of the machine that has a partition for it, else in memory"
                )?;
            }
        }
        for (name, version) in self.release.iter().filter_map(serde_json::Value::as_object).flatten() {
            let plain = version.as_str().map_or_else(|| version.to_string(), str::to_owned);
            writeln!(f, "release    {name} {plain}")?;
        }
        match &self.role {
            Some(role) => write!(f, "{role}")?,
            None => writeln!(f, "metadata   none; `kscratch-image stamp` puts it there")?,
        }
        for partition in &self.partitions {
            let entries = partition.filesystem.as_ref().and_then(|filesystem| filesystem.entries.as_ref());
            if let Some(entries) = entries {
                writeln!(f, "\n{}:", partition.name)?;
                entries.iter().try_for_each(|entry| write!(f, "{entry}"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for PartitionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "partition  {} {:<8} {:>10} at {:>10}  PARTUUID {}",
            self.number,
            self.name,
            size(self.len),
            size(self.start),
            self.guid
        )?;
        match (&self.filesystem, &self.problem) {
            (Some(fs), _) => {
                let replay = match (fs.needs_recovery, fs.replayed) {
                    (false, _) => String::new(),
                    (true, 0) => ", in use or not unmounted".to_owned(),
                    (true, 1) => ", in use or not unmounted: read with a transaction of its journal".to_owned(),
                    (true, many) => format!(", in use or not unmounted: read with {many} transactions of its journal"),
                };
                writeln!(
                    f,
                    "\n           {} {}, UUID {}, {} of {} used, {} files{replay}",
                    fs.kind,
                    fs.label,
                    fs.uuid,
                    size(fs.used),
                    size(fs.size),
                    fs.files
                )
            }
            (None, Some(problem)) => writeln!(f, "\n           {problem}"),
            (None, None) => writeln!(f, "\n           empty"),
        }
    }
}

impl fmt::Display for RoleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(problem) = &self.problem {
            return writeln!(f, "metadata   {} is not valid: {problem}", self.path);
        }
        let different = if self.machines.is_empty() { "unknown" } else { "of each its own" };
        let role = self.role.as_ref().and_then(serde_json::Value::as_str).unwrap_or(different);
        write!(f, "metadata   {}: role {role}", self.path)?;
        for (name, value) in [("cluster", &self.cluster), ("endpoint", &self.endpoint), ("name", &self.node)] {
            if let Some(value) = value {
                write!(f, ", {name} {value}")?;
            }
        }
        if !self.machines.is_empty() {
            write!(f, ", machines of a rack: {}", self.machines.len())?;
        }
        writeln!(f, "{}", if self.secrets_file { ", secrets beside it" } else { "" })?;
        self.machines.iter().try_for_each(|machine| write!(f, "{machine}"))
    }
}

impl fmt::Display for MachineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "           {}", self.node.as_deref().unwrap_or("without a name"))?;
        self.told_by.iter().try_for_each(|(key, value)| write!(f, ", {key} {}", value.escape_debug()))?;
        writeln!(f)
    }
}

impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.sha256.as_deref().unwrap_or("-");
        let mode = self.mode.as_deref().unwrap_or("-");
        write!(f, "{digest:<64} {:<9} {mode:<4} {:>10} {}", self.kind, self.len, self.path)?;
        match &self.target {
            Some(target) => writeln!(f, " -> {target}"),
            None => writeln!(f),
        }
    }
}
