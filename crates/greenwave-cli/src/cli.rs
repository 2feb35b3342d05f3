//! The command line: one file per command, with its arguments.

mod approve;
mod attempts;
mod cache;
mod clean;
#[cfg(feature = "completions")]
mod completions;
mod dashboard;
mod demo;
mod doctor;
mod forget;
mod graph;
mod history;
mod init;
mod key;
mod mcp;
mod plan;
mod profile;
mod run;
pub(crate) mod schema;
mod settings;
mod test;

use clap::{Parser, Subcommand};
use greenwave::CopyMode;

use crate::error::CliError;
use crate::exit::Exit;

/// Run a project's tests, skipping those with a cached result, and run coding agents on many
/// features at once: tests fail (red), an agent writes the code (yellow), tests pass and it is
/// merged (green).
#[derive(Debug, Parser)]
#[command(name = "greenwave", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an example plan: a calculator in ten features, written by scripted agents.
    Demo(demo::DemoArgs),
    /// Run a plan.
    Run(Box<run::RunArgs>),
    /// Show attempts at features: the agents' changes and messages, and output of failed tests.
    Attempts(attempts::AttemptsArgs),
    /// Show a recorded run in the browser: its features on a time axis, and their attempts.
    Dashboard(dashboard::DashboardArgs),
    /// Approve features that are held before their merge (`hold = true` in a plan).
    Approve(approve::ApproveArgs),
    /// Reject a held feature: the agent gets your comment and another attempt.
    Reject(approve::RejectArgs),
    /// Remove the records of features from earlier runs, so that they start again.
    Forget(forget::ForgetArgs),
    /// Remove working copies that killed runs have left, and the state of a project.
    Clean(clean::CleanArgs),
    /// Run the project's tests, skipping those with a cached result.
    Test(Box<test::TestArgs>),
    /// Manage the test-result cache.
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Manage the key that signs the test results that you store on a server.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Look at settings, test runs and runs of plans, and say what to change.
    Doctor(doctor::DoctorArgs),
    /// Show what test runs have learned: slower tests, flaky tests, time saved by cached results.
    History(history::HistoryArgs),
    /// Let coding agents run and query tests over the Model Context Protocol.
    Mcp(mcp::McpArgs),
    /// Create a plan with comments, to start from.
    Init(init::InitArgs),
    /// Write a plan with an agent, or from a list of issues, and show its graph.
    Plan(Box<plan::PlanArgs>),
    /// Print the features of a plan and their dependencies as a graph.
    Graph(graph::GraphArgs),
    /// Print the JSON Schema of plans or settings, for editors.
    Schema(schema::SchemaArgs),
    /// Show the effective settings.
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Print a script that completes commands and options in a shell.
    #[cfg(feature = "completions")]
    Completions(completions::CompletionsArgs),
    /// Write man pages to a directory, for packages.
    #[cfg(feature = "completions")]
    #[command(hide = true)]
    Man(completions::ManArgs),
}

impl Cli {
    /// Returns whether the command makes working copies.
    pub(crate) fn makes_copies(&self) -> bool {
        matches!(self.command, Command::Run(_) | Command::Demo(_) | Command::Plan(_))
    }

    /// Returns the setting of how working copies are made. `None` if it cannot be read, which the
    /// command itself reports.
    pub(crate) fn copy_mode(&self) -> Option<CopyMode> {
        match &self.command {
            Command::Run(args) => run::copy_mode(args),
            Command::Plan(args) => plan::copy_mode(args),
            _ => None,
        }
    }

    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, CliError> {
        match self.command {
            Command::Demo(args) => demo::demo(&args).await,
            Command::Run(args) => run::run(&args).await,
            Command::Attempts(args) => attempts::attempts(&args).await,
            Command::Dashboard(args) => dashboard::dashboard(&args).await,
            Command::Approve(args) => approve::approve(&args),
            Command::Reject(args) => approve::reject(&args),
            Command::Forget(args) => forget::forget(&args),
            Command::Clean(args) => clean::clean(&args),
            Command::Test(args) => test::test(&args).await,
            Command::Cache(command) => cache::cache(command).await,
            Command::Key(command) => key::key(&command),
            Command::Doctor(args) => doctor::doctor(&args).await,
            Command::History(args) => history::history(&args),
            Command::Mcp(args) => mcp::mcp(&args).await,
            Command::Init(args) => init::init(&args.plan),
            Command::Plan(args) => plan::plan(&args).await,
            Command::Graph(args) => graph::graph(&args),
            Command::Schema(args) => Ok(schema::schema(&args)),
            Command::Profile(profile::ProfileCommand::Show(args)) => profile::show(&args),
            #[cfg(feature = "completions")]
            Command::Completions(args) => completions::completions(&args),
            #[cfg(feature = "completions")]
            Command::Man(args) => completions::man(&args),
        }
    }
}
