//! `greenwave graph`: prints the features of a plan and their dependencies for a drawing tool.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::error::CliError;
use crate::exit::Exit;
use crate::output;
use crate::planfile::PlanFile;

#[derive(Debug, Args)]
pub(super) struct GraphArgs {
    /// File of the plan.
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// Graph language.
    #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
    format: GraphFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GraphFormat {
    /// Mermaid, which GitHub renders in Markdown.
    Mermaid,
    /// DOT, for Graphviz.
    Dot,
}

/// Prints the graph of a plan.
pub(super) fn graph(args: &GraphArgs) -> Result<Exit, CliError> {
    let file = PlanFile::read(&args.plan)?;
    let graph = file.plan.graph().map_err(|error| file.locate_plan_error(&error))?;
    let label = |task| {
        let feature = &file.plan.features[graph.payload(task).index()];
        if feature.title == feature.id {
            feature.id.clone()
        } else {
            format!("{}\n{}", feature.id, feature.title)
        }
    };
    let text = match args.format {
        GraphFormat::Mermaid => graph.to_mermaid(label),
        GraphFormat::Dot => graph.to_dot(label),
    };
    output::answer(text.trim_end())?;
    Ok(Exit::SUCCESS)
}
