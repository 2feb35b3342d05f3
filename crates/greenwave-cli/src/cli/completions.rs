//! `greenwave completions` and `greenwave man`: files for packages of the program, made from its
//! command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output;

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Shell that reads the script.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Existing directory, in which pages of the same names are replaced.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Prints a completion script.
pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "greenwave", &mut script);
    output::answer(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::SUCCESS)
}

/// Writes a page for the program and for each command.
pub(super) fn man(args: &ManArgs) -> Result<Exit, CliError> {
    let written = clap_mangen::generate_to(Cli::command(), &args.directory);
    let path = args.directory.clone();
    written.map_err(|source| CliError::Io { operation: "write man pages to", path, source })?;
    Ok(Exit::SUCCESS)
}
