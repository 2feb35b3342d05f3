//! The chores of this workspace. `flags.rs` is the command line, whole; each command has a file of its own.
//! Depends on nothing of ours: what it checks must not be able to break it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what a command line program is for"
)]

mod bench;
mod ci;
mod flags;
mod fuzz;
mod layers;
mod long;
mod loom;
mod metadata;
mod profiles;
mod program;
mod script;
mod simulation;
mod soundness;
mod source;
mod tidy;

use std::process::ExitCode;

use flags::Command;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let command = match flags::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("error: {problem}\n\n{}", flags::USAGE);
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Help => Ok(flags::USAGE.trim_end().to_owned()),
        Command::Ci { test } => ci::ci(test),
        Command::Layers => layers::layers(),
        Command::Tidy => tidy::tidy(),
        Command::Profiles => profiles::profiles(),
        Command::Bench { suites } => bench::bench(&suites),
        Command::Long { runs, rounds } => long::long(&runs, rounds),
        Command::Fuzz { targets, seconds } => fuzz::fuzz(&targets, seconds),
        Command::Loom => loom::loom(),
        Command::Simulation => simulation::simulation(),
        Command::Soundness { against } => soundness::soundness(against),
        Command::DemoScript { check } => script::demo_script(check),
    };
    match result {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
