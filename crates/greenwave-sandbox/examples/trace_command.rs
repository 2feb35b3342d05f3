//! Runs a command and prints which paths it read, wrote, listed and missed.
//!
//! `cargo run -p greenwave-sandbox --example trace_command -- COMMAND [ARGUMENTS…]`

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::path::Path;
use std::process::{Command, ExitCode};

use greenwave_sandbox::Tracer;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: trace_command COMMAND [ARGUMENTS…]");
        return Ok(ExitCode::from(2));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    let session = Tracer::default().attach(&mut command)?;
    let status = command.status()?;
    let trace = session.blocking_finish();
    print("read", trace.read_paths());
    print("written", trace.written_paths());
    print("listed", trace.listed_paths());
    print("missing", trace.missing_paths());
    if let Some(reason) = &trace.incomplete {
        eprintln!("warning: the trace is incomplete: the command {reason}");
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn print<'p>(access: &str, paths: impl Iterator<Item = &'p Path>) {
    for path in paths {
        println!("{access:<8} {}", path.display());
    }
}
