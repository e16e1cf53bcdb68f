//! Turns what QEMU says where it refuses a machine into the hint that helps.
use crate::console::Hint;

/// The same error, with a hint where there is one for it.
pub(super) fn hinted(error: anyhow::Error) -> anyhow::Error {
    // QEMU's own words may stand behind those of what was being started.
    let said: Vec<String> = error.chain().map(|cause| cause.to_string()).collect();
    match hint(&said.join("\n")) {
        Some(hint) => error.context(Hint(hint)),
        None => error,
    }
}

fn hint(said: &str) -> Option<String> {
    if said.contains("host forwarding rule") {
        return Some("--forward 0:8080 takes any free port".to_owned());
    }
    if !said.contains("\"write\" lock") {
        return None;
    }
    // `Is another process using the image [FILE]?`
    let named = said.split_once("using the image [").and_then(|(_, rest)| rest.split_once("]?"));
    let file = named.map_or("this disk", |(file, _)| file);
    Some(format!("another machine runs on {file}: end it, or take another file"))
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::hinted;
    use crate::console::error_lines;

    #[track_caller]
    fn check(said: &'static str, want: Option<&str>) {
        let started = Err::<(), _>(anyhow!(said)).context("starting what is behind the machine's cable").unwrap_err();
        for error in [anyhow!(said), started] {
            let lines = error_lines(&hinted(error));
            assert_eq!(lines.iter().find_map(|line| line.strip_prefix("hint: ")), want, "{lines:?}");
        }
    }

    #[test]
    fn what_qemu_refuses_is_helped_by_a_hint() {
        check(
            "QEMU said: -netdev user,id=net0: Could not set up host forwarding rule 'tcp:127.0.0.1:8080-:8080'",
            Some("--forward 0:8080 takes any free port"),
        );
        check(
            "QEMU said: Failed to get \"write\" lock\nIs another process using the image [/m/a].qcow2]?",
            Some("another machine runs on /m/a].qcow2: end it, or take another file"),
        );
        check(
            "QEMU said: Failed to get \"write\" lock",
            Some("another machine runs on this disk: end it, or take another file"),
        );
        check("QEMU said: no bootable device", None);
    }
}
