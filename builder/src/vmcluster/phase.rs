//! What a machine's console says that it is at, in a few words.

/// What one line tells of how far a machine is, if it tells anything; the latest such line of a console counts.
pub fn of_line(line: &str) -> Option<String> {
    if let Some(at) = line.find("Kernel panic - not syncing") {
        return Some(line[at..].to_owned());
    }
    if line.starts_with("BdsDxe: ") {
        return Some("firmware".to_owned());
    }
    let text = line.strip_prefix('[')?.split_once("] ")?.1;
    if let Some(phase) = text.strip_prefix("phase ") {
        return of_phase(phase);
    }
    if let Some(service) = text.strip_prefix("service ") {
        return of_service(service);
    }
    // The kernel's own stamps have six digits behind the point, init's three.
    if text.starts_with("Linux version") {
        return Some("kernel".to_owned());
    }
    text.contains(" in the initramfs").then(|| "initramfs".to_owned())
}

/// Whether a console's line says that the kubelet answers.
pub fn kubelet_ready(line: &str) -> bool {
    line.contains("] service kubelet: ready (")
}

/// `07 network: failed: no such device` as it is, `07 network: start` as `07 network`.
fn of_phase(text: &str) -> Option<String> {
    let (phase, state) = text.split_once(": ")?;
    let number = phase.split(' ').next()?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    match state {
        "start" => Some(format!("phase {phase}")),
        state if state.starts_with("ok") => Some(format!("phase {phase} done")),
        state => Some(format!("phase {phase}: {state}")),
    }
}

/// `dockerd: started pid 188` and what else is said of a service, without process numbers.
fn of_service(text: &str) -> Option<String> {
    let (service, state) = text.split_once(": ")?;
    let state = if state.starts_with("started") { "starting" } else { state };
    let state = if state.starts_with("ready") { "ready" } else { state };
    Some(format!("{service} {state}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: Option<&str>) {
        assert_eq!(of_line(line).as_deref(), want);
    }

    #[test]
    fn lines_become_phases() {
        check("BdsDxe: starting Boot0001 \"UEFI Misc Device\"", Some("firmware"));
        check("[    0.000000] Linux version 6.12.1 (x)", Some("kernel"));
        check("[   2.446] kscratch 0.1.0 in the initramfs", Some("initramfs"));
        check("[   3.631] phase 07 network: start", Some("phase 07 network"));
        check("[   3.691] phase 07 network: ok (0.060 s)", Some("phase 07 network done"));
        check("[   3.691] phase 07 network: failed: no link", Some("phase 07 network: failed: no link"));
        check("[   5.358] service dockerd: started pid 188", Some("dockerd starting"));
        check("[   9.700] service dockerd: ready (4.3 s)", Some("dockerd ready"));
        let again = "service kubelet: exited with status 1, again in 2 s";
        check(&format!("[  11.0] {again}"), Some("kubelet exited with status 1, again in 2 s"));
        check("[    9.1] Kernel panic - not syncing: VFS", Some("Kernel panic - not syncing: VFS"));
        check("[    0.694864] rcu: \tMax phase no-delay instances is 1000.", None);
        check("[    0.694864] phase shifted: ok", None);
        check("[   3.616] hint: to give it a cluster", None);
        check("[", None);
        check("", None);
        assert!(kubelet_ready("[  16.702] service kubelet: ready (4.8 s)"));
        assert!(!kubelet_ready("[  16.702] service kubelet: started pid 1"));
    }
}
