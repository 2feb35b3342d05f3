//! `greenwave graph`: a plan's features and what each waits for, as a picture's source.

use std::path::Path;
use std::process::ExitCode;

use super::{CliError, GraphFormat, located, read_plan};
use crate::output;

pub(super) fn graph(path: &Path, format: GraphFormat) -> Result<ExitCode, CliError> {
    let file = read_plan(path)?;
    let graph = file.plan.graph().map_err(|error| located(&file, &error))?;
    let label = |task| {
        let feature = &file.plan.features[graph.payload(task).index()];
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
    output::answer(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
