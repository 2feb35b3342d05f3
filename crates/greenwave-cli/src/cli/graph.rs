//! `greenwave graph`: prints the features of a plan and their dependencies for a drawing tool.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use greenwave::{Plan, PlanError};

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
pub(super) enum GraphFormat {
    /// Mermaid, which GitHub renders in Markdown.
    Mermaid,
    /// DOT, for Graphviz.
    Dot,
}

/// Prints the graph of a plan.
pub(super) fn graph(args: &GraphArgs) -> Result<Exit, CliError> {
    let file = PlanFile::read(&args.plan)?;
    let text = graph_text(&file.plan, args.format).map_err(|error| file.locate_plan_error(&error))?;
    output::answer(&text)?;
    Ok(Exit::SUCCESS)
}

/// Returns the graph of a plan.
pub(super) fn graph_text(plan: &Plan, format: GraphFormat) -> Result<String, PlanError> {
    let graph = plan.graph()?;
    let label = |task| {
        let feature = &plan.features[graph.payload(task).index()];
        if feature.title == feature.id {
            feature.id.clone()
        } else {
            format!("{}\n{}", feature.id, feature.title)
        }
    };
    let text = match format {
        GraphFormat::Mermaid => graph.to_mermaid(label),
        GraphFormat::Dot => graph.to_dot(label),
    };
    Ok(text.trim_end().to_owned())
}
