//! `greenwave init`: a commented plan to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use super::CliError;
use crate::output;

/// The plan that is written. Read by the same parser as any other, as a test makes sure.
const PLAN: &str = include_str!("../../examples/init.toml");

pub(super) fn init(path: &Path) -> Result<ExitCode, CliError> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::AlreadyExists => CliError::Exists { path: path.to_owned() },
        _ => CliError::Io { operation: "write", path: path.to_owned(), source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(PLAN.as_bytes()).map_err(failed)?;
    output::line(&format!("Wrote {0}. Edit it, then: greenwave run {0}", path.display()));
    Ok(ExitCode::SUCCESS)
}
