//! `greenwave init`: creates a plan with comments.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::CliError;
use crate::exit::Exit;
use crate::output;
use crate::report_file;

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// File to create.
    #[arg(value_name = "FILE", default_value = "plan.toml")]
    pub(super) plan: PathBuf,
}

/// The created plan. A test reads it with the parser of plans.
const PLAN: &str = include_str!("../../examples/init.toml");

/// Creates the plan.
pub(super) fn init(path: &Path) -> Result<Exit, CliError> {
    create(path, PLAN)?;
    output::line(&format!("Created {0}. Edit it, then run: greenwave run {0}", path.display()));
    Ok(Exit::SUCCESS)
}

/// Creates a file with this text.
///
/// # Errors
/// [`CliError::Exists`] if the file exists.
pub(super) fn create(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::AlreadyExists => CliError::Exists { path: path.to_owned(), source },
        _ => CliError::Io { operation: "create", path: path.to_owned(), source },
    };
    let mut file = report_file::create_new(Path::new("."), path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
