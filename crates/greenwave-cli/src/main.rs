//! The `greenwave` program: reads command line, files and variables, runs plans, and prints. The only crate
//! that does either.

mod cli;
mod config;
mod diagnostic;
mod output;
mod planfile;
mod progress;
mod reader;
mod testfile;
mod testview;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // SAFETY: nothing before it opens a descriptor.
    unsafe { cli::inherit_jobserver() };
    let cli = cli::Cli::parse();
    output::log_warnings();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&cli::CliError::Runtime(error)),
    };
    let code = output::code(runtime.block_on(cli.run()).unwrap_or_else(|error| output::fail(&error)));
    // Whatever still runs on blocking threads is not worth waiting for.
    runtime.shutdown_background();
    code
}
