//! Writes plans from a goal, a list of issues and the answer of an agent.

mod draft;
mod issues;
mod prompt;
mod template;
mod toml_text;

pub(crate) use draft::{Draft, PLANNED_FILE, is_planned_test};
pub(crate) use issues::Issue;
pub(crate) use prompt::prompt;
pub(crate) use template::Template;
