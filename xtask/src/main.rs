//! Development tasks of this workspace: `cargo xtask COMMAND`.
//!
//! `cli.rs` is the whole command line; each command is a file. Must not depend on a crate of the
//! workspace: the checks have to compile when the crates do not.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program prints its result")]

mod bench;
mod ci;
mod cli;
mod dashboard_pictures;
mod defaults;
mod demo_script;
mod dist;
mod features;
mod field;
mod fuzz;
mod layers;
mod live;
mod long;
mod loom;
mod macos;
mod msrv;
mod outside;
mod picture;
mod process;
mod profiles;
mod seen_figures;
mod simulation;
mod soundness;
mod source;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Ci { jobs, no_test } => ci::ci(&jobs, !no_test),
        Command::Defaults => defaults::defaults(),
        Command::Layers => layers::layers(),
        Command::Features => features::features(),
        Command::Tidy => tidy::tidy(),
        Command::Words { directories, list } => tidy::words(&directories, list),
        Command::Profiles => profiles::profiles(),
        Command::Bench { suites } => bench::bench(&suites),
        Command::Long { runs, rounds } => long::long(&runs, rounds),
        Command::Field { edits: true, .. } => field::field_edits(),
        Command::Field { projects, minutes, check, .. } => field::field(&projects, minutes, check),
        Command::Dist { check: true, .. } => dist::check(),
        Command::Dist { targets, url, .. } => dist::dist(&targets, url.as_deref()),
        Command::Live { programs } => live::live(&programs),
        Command::Fuzz { targets, seconds } => fuzz::fuzz(&targets, seconds),
        Command::Loom => loom::loom(),
        Command::Macos => macos::macos(),
        Command::Msrv => msrv::msrv(),
        Command::Outside => outside::outside(),
        Command::Simulation => simulation::simulation(),
        Command::Soundness { against } => soundness::soundness(against),
        Command::DashboardPictures => dashboard_pictures::dashboard_pictures(),
        Command::SeenFigures => seen_figures::seen_figures(),
        Command::Picture => picture::picture(),
        Command::DemoScript { check } => demo_script::demo_script(check),
    };
    match result {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
