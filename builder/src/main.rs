//! Runs the `kscratch-image` program.
use std::process::ExitCode;

use clap::Parser;
use kscratch_image::cli::Cli;
use kscratch_image::commands;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let console = commands::console(&cli.output);
    match commands::execute(cli, &console) {
        Ok(code) => code,
        Err(error) => {
            console.error(&error);
            ExitCode::FAILURE
        }
    }
}
