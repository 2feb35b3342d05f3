//! What goes to the standard streams beside progress: errors with their causes and cures, and warnings of the
//! crates below. Knows nothing of runs.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

use console::Style;

use crate::cli::CliError;

/// Exit code of a run in which some feature did not become green.
pub(crate) const NOT_GREEN: u8 = 1;
/// Exit code of whatever was wrong before anything was run: command line, settings, plan, project.
pub(crate) const WRONG_INPUT: u8 = 2;

/// Prints something that a person should know, beside what was asked for.
pub(crate) fn remark(text: &str) {
    let _ =
        writeln!(std::io::stderr(), "{}: {text}", Style::new().for_stderr().yellow().bold().apply_to("note"));
}

/// Prints what is wrong, why, and what would help, where the work goes on all the same.
pub(crate) fn warn(error: &CliError, consequence: &str) {
    let head = Style::new().for_stderr().yellow().bold().apply_to("warning");
    let _ = writeln!(std::io::stderr(), "{}", told(&format!("{head}: {consequence}"), error));
}

/// Prints an error with everything that caused it and what would help, and gives the program's exit code.
pub(crate) fn fail(error: &CliError) -> ExitCode {
    complain(error);
    match error {
        CliError::Stopped { code } => ExitCode::from(*code),
        _ => ExitCode::from(WRONG_INPUT),
    }
}

/// Prints an error with everything that caused it and what would help.
pub(crate) fn complain(error: &CliError) {
    let head = Style::new().for_stderr().red().bold().apply_to("error");
    // Where the error cannot even be printed, the exit code has to say it.
    let _ = writeln!(std::io::stderr(), "{}", told(&head.to_string(), error));
}

/// An error with its causes and its cure.
fn told(head: &str, error: &CliError) -> String {
    let mut text = format!("{head}: {error}");
    let mut said = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        let cause_text = cause.to_string();
        // A transparent error repeats its cause.
        if !said.contains(&cause_text) {
            text.push_str(&format!("\n  caused by: {cause_text}"));
        }
        said = cause_text;
        at = cause.source();
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\n{}: {hint}", Style::new().for_stderr().cyan().bold().apply_to("hint")));
    }
    text
}

/// Prints a line. When nobody reads any more (`| head`), the work goes on all the same; when it cannot be written, the work goes on too, and
/// [`code`] tells of it in the end.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        // The first one says why; those after it say the same.
        let _ = LOST.set(error);
    }
}

/// Why a line could not be written to the standard output.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// The program's exit code, which is no success where something that was to be printed is lost.
pub(crate) fn code(code: ExitCode) -> ExitCode {
    let Some(error) = LOST.get() else { return code };
    let error = std::io::Error::new(error.kind(), error.to_string());
    let failed = fail(&CliError::Output(error));
    if code == ExitCode::SUCCESS { failed } else { code }
}

/// Prints what the program was asked for. Whoever has read enough may hang up; any other loss is an error.
pub(crate) fn answer(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(()),
    }
}

pub(crate) fn lines(texts: &[String]) {
    texts.iter().for_each(|text| line(text));
}

/// Shows the warnings of the crates below on the standard error stream.
pub(crate) fn log_warnings() {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        // Where a warning cannot be printed, neither can it be said that it cannot.
        .log_internal_errors(false)
        .init();
}
