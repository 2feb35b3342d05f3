//! `greenwave schema`: prints the JSON Schema of plans or settings, for editors.

use clap::{Args, ValueEnum};

use crate::exit::Exit;
use crate::output;

/// Schema of plans.
pub(crate) const PLAN: &str = include_str!("../../schemas/plan.schema.json");
/// Schema of settings files.
pub(crate) const SETTINGS: &str = include_str!("../../schemas/settings.schema.json");

#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// Kind of file that the schema describes.
    #[arg(value_enum)]
    kind: SchemaKind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaKind {
    /// Plans, for `greenwave run`.
    Plan,
    /// Settings and tests, in `greenwave.toml`.
    Settings,
}

/// Prints a schema.
pub(super) fn schema(args: &SchemaArgs) -> Exit {
    output::line(match args.kind {
        SchemaKind::Plan => PLAN.trim_end(),
        SchemaKind::Settings => SETTINGS.trim_end(),
    });
    Exit::SUCCESS
}
