//! Draws the README's picture of a run: an SVG of what `greenwave demo` prints on a terminal.

use std::fs;

use crate::Result;
use crate::process::{cargo, output_of, root, run_visibly};

/// Where the picture is written, relative to the repository.
const PICTURE: &str = "docs/demo.svg";
/// Numbers of lines shown from the start and from the end of the output.
const FIRST_LINES: usize = 24;
const LAST_LINES: usize = 18;
/// Width of the terminal in columns.
const COLUMNS: usize = 96;

/// Runs the demo and writes its output as a picture.
///
/// # Errors
/// Fails if the demo fails, or if the picture cannot be written.
pub(crate) fn picture() -> Result<String> {
    run_visibly(&mut cargo(["build", "--quiet", "--package", "greenwave-cli"]))?;
    let directory = tempfile::Builder::new().prefix("greenwave-demo-").tempdir()?;
    let mut command = cargo(["run", "--quiet", "--package", "greenwave-cli", "--", "demo"]);
    command.args(["--no-metrics", "--dir"]).arg(directory.path()).env("CLICOLOR_FORCE", "1");
    let printed = output_of(&mut command)?;
    // The name of a temporary directory differs in each run.
    let printed = printed.replace(&directory.path().display().to_string(), "/tmp/greenwave-demo");
    let text = format!("$ greenwave demo\n{}", excerpt(&printed));
    let svg = anstyle_svg::Term::new().min_width_px(COLUMNS * 9).render_svg(&text);
    fs::write(root().join(PICTURE), svg)?;
    Ok(format!("picture: wrote {PICTURE}"))
}

/// Returns the first and the last lines, with a mark in between where lines are omitted.
fn excerpt(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= FIRST_LINES + LAST_LINES {
        return text.to_owned();
    }
    let (first, last) = (&lines[..FIRST_LINES], &lines[lines.len() - LAST_LINES..]);
    [first, &["  [...]"], last].concat().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_is_shortened_in_the_middle() {
        let short: String = (0..FIRST_LINES + LAST_LINES).map(|line| format!("{line}\n")).collect();
        assert_eq!(excerpt(&short), short);
        let long: String = (0..100).map(|line| format!("{line}\n")).collect();
        let lines: Vec<String> = excerpt(&long).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), FIRST_LINES + LAST_LINES + 1);
        assert_eq!((lines[FIRST_LINES].as_str(), lines.last().map(String::as_str)), ("  [...]", Some("99")));
    }
}
