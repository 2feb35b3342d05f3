//! `greenwave mcp`: a server of the Model Context Protocol (<https://modelcontextprotocol.io>) for
//! coding agents, which run and query the tests of a project.

#[cfg(feature = "mcp")]
mod http;
mod print_config;
#[cfg(feature = "mcp")]
mod server;

use std::net::SocketAddr;
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
    /// Serve several clients over HTTP instead of one on the standard streams. Without an address,
    /// on a free port of the loopback.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:0")]
    #[arg(conflicts_with = "print_config")]
    http: Option<SocketAddr>,
    /// File with the token that HTTP requests need [default: a random one, which is printed].
    #[arg(long, value_name = "FILE", requires = "http")]
    token_file: Option<PathBuf>,
}

/// Serves clients until a signal arrives, or the only client closes standard input.
pub(super) async fn mcp(args: &McpArgs) -> Result<Exit, CliError> {
    if let Some(client) = args.print_config {
        output::note(&format!("these settings belong into {}", client.file()));
        output::answer(client.settings())?;
        return Ok(Exit::SUCCESS);
    }
    #[cfg(feature = "mcp")]
    return serve(args).await;
    #[cfg(not(feature = "mcp"))]
    Err(CliError::NoMcp)
}

/// Serves clients. Runs that they have started end with the server.
#[cfg(feature = "mcp")]
async fn serve(args: &McpArgs) -> Result<Exit, CliError> {
    console::set_colors_enabled(false);
    console::set_colors_enabled_stderr(false);
    let mut signals = crate::signals::EndSignals::listen()?;
    let session = std::sync::Arc::new(server::session::Session::new(args.project.clone()));
    let clients = std::sync::Arc::clone(&session);
    let serving = async {
        match args.http {
            Some(address) => match http::serve(clients, address, args.token_file.clone()).await? {},
            None => server::serve(clients).await,
        }
    };
    let exit = tokio::select! {
        served = serving => served.map(|()| Exit::SUCCESS),
        // The supervisor kills tests that run.
        code = signals.next() => Ok(Exit::from(code)),
    };
    session.stop_plans().await;
    exit
}
