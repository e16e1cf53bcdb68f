//! Turns small real programs into supervised services, in a process of its own and as PID 1 of a PID namespace, and watches from outside.
//!
//! This file is its own `main`: the event loop reads signals from a signalfd, which needs a process whose every thread blocks them, and
//! the threads of the usual test harness do not. `cargo test --test supervision WORD` runs the cases whose name contains WORD.
mod orphans;
mod output;
mod process;
mod rights;
mod scene;
mod start;
mod stop;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Nothing here takes longer, on a machine that has other things to do as well.
const PATIENCE: Duration = Duration::from_secs(30);

type Case = (&'static str, fn());
const CASES: [Case; 17] = [
    ("a_killed_service_is_started_again", start::a_killed_service_is_started_again),
    ("readiness_over_a_unix_socket_and_http", start::readiness_over_a_unix_socket_and_http),
    ("logs_are_rotated", output::logs_are_rotated),
    ("the_console_shows_what_a_service_said_last", output::the_console_shows_what_a_service_said_last),
    ("a_service_gets_what_its_definition_says", rights::a_service_gets_what_its_definition_says),
    ("a_service_has_no_more_rights_than_it_is_given", rights::a_service_has_no_more_rights_than_it_is_given),
    ("a_service_reads_what_it_is_given", rights::a_service_reads_what_it_is_given),
    ("without_its_rights_a_service_is_not_started", rights::without_its_rights_a_service_is_not_started),
    ("a_program_that_is_missing_is_named", output::a_program_that_is_missing_is_named),
    ("services_stop_in_reverse_order", stop::services_stop_in_reverse_order),
    ("who_ignores_sigterm_is_killed", stop::who_ignores_sigterm_is_killed),
    ("the_power_button_ends_the_loop", stop::the_power_button_ends_the_loop),
    ("as_pid_1_orphans_are_reaped", orphans::as_pid_1_orphans_are_reaped),
    ("a_service_that_hangs_is_started_again", start::a_service_that_hangs_is_started_again),
    ("the_boot_goes_on_beside_the_loop", start::the_boot_goes_on_beside_the_loop),
    ("who_watches_is_told_each_time", start::who_watches_is_told_each_time),
    ("cgroups_hold_services_and_containers_end_between", orphans::cgroups_hold_services_and_containers_end_between),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("loop") => process::run_loop(Path::new(&args[1])),
        Some("serve-unix") => process::serve_unix(&args[1]),
        Some("serve-http") => process::serve_http(&args[1]),
        // cargo and its kin ask for lists and pass flags of the usual harness.
        Some("--list") => {
            CASES.iter().for_each(|(name, _)| say(&format!("{name}: test")));
            ExitCode::SUCCESS
        }
        _ => run_cases(&args),
    }
}

fn run_cases(args: &[String]) -> ExitCode {
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let mut failed = 0;
    for (name, case) in CASES {
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let good = std::panic::catch_unwind(case).is_ok();
        failed += u8::from(!good);
        say(&format!("test {name} ... {}", if good { "ok" } else { "FAILED" }));
    }
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
