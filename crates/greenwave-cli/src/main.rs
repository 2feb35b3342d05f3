//! The program `greenwave`: reads the command line, files and environment variables, runs plans and
//! tests, and prints.
//!
//! No other crate of the workspace reads the environment or prints.

mod allocator;
mod board;
mod board_input;
mod board_keys;
mod cli;
mod colors;
mod config;
mod details;
mod diagnostic;
mod dirs;
mod error;
mod exit;
mod format;
mod jobserver;
mod key_error;
mod key_input;
mod mount_namespace;
#[cfg(not(feature = "otel"))]
mod no_otel;
mod notify_words;
#[cfg(feature = "otel")]
mod otel;
mod output;
mod password;
mod planfile;
mod planning;
mod printer;
mod progress;
mod pull_request;
mod random_token;
mod reader;
mod report_file;
mod result_keys;
mod result_scope;
mod run_trace;
#[cfg(test)]
mod schemas;
mod secrets;
mod server_login;
mod signals;
mod supervisor;
mod terminal_text;
mod test_timeline;
mod testfile;
mod testview;
mod text;
mod trace_events;
mod user_key;

use clap::Parser;

use crate::error::CliError;
use crate::exit::Exit;

fn main() {
    // SAFETY: no call before this one opens a file descriptor.
    unsafe { jobserver::inherit() };
    if let Some(code) = supervisor::serve_if_asked() {
        std::process::exit(code);
    }
    // SAFETY: no other thread runs yet, and no variable is borrowed.
    unsafe { secrets::hide_environment() };
    let cli = cli::Cli::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() {
            // Help, or the version.
            error.exit();
        }
        std::process::exit(output::refuse_arguments(&error))
    });
    // SAFETY: as above.
    unsafe { secrets::hide_passwords_in_arguments() };
    output::log_warnings();
    if cli.makes_copies() {
        allocator::limit_retained();
        // SAFETY: as above.
        unsafe { mount_namespace::enter(|| cli.copy_mode()) };
    }
    let exit = run(cli).unwrap_or_else(|error| Exit::from(output::fail(&error)));
    key_input::restore();
    // Exits without running destructors: taking a suite apart, or waiting for blocking threads,
    // would only delay the end.
    std::process::exit(i32::from(output::final_code(exit.code())))
}

fn run(cli: cli::Cli) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = std::mem::ManuallyDrop::new(runtime.map_err(CliError::Runtime)?);
    runtime.block_on(cli.run())
}
