//! `greenwave mcp`: a server of the Model Context Protocol (<https://modelcontextprotocol.io>) for
//! coding agents, which run and query the tests of a project.

mod print_config;
#[cfg(feature = "mcp")]
mod server;

use std::path::PathBuf;

use clap::Args;

use self::print_config::ClientProgram;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output;

#[derive(Debug, Args)]
pub(super) struct McpArgs {
    /// Project directory [default: the nearest directory with a greenwave.toml at or above the
    /// current one, or else the current one].
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Print the settings with which a client starts the server, and their file.
    #[arg(long, value_name = "CLIENT", value_enum)]
    print_config: Option<ClientProgram>,
}

/// Serves a client on the standard streams until it closes standard input, or a signal arrives.
pub(super) async fn mcp(args: &McpArgs) -> Result<Exit, CliError> {
    if let Some(client) = args.print_config {
        output::note(&format!("these settings belong into {}", client.file()));
        output::answer(client.settings())?;
        return Ok(Exit::SUCCESS);
    }
    #[cfg(feature = "mcp")]
    return server::serve(args.project.clone()).await;
    #[cfg(not(feature = "mcp"))]
    Err(CliError::NoMcp)
}
