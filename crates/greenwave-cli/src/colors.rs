//! The colors of phases and events of a run on a terminal.

use console::Style;

/// Returns the style of a phase or of another first word of a line.
pub(crate) fn color(word: &str) -> Style {
    match word {
        "red" | "failed" | "rejected" => Style::new().red(),
        "needs you" => Style::new().yellow().bold(),
        "yellow" | "review" | "tests" => Style::new().yellow(),
        "green" | "merged" => Style::new().green(),
        "held" => Style::new().yellow().bold(),
        "merging" | "checking" => Style::new().cyan(),
        _ => Style::new().dim(),
    }
}
