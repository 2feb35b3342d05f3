//! Writes lines, warnings and errors to the standard streams.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use console::Style;

use crate::error::CliError;
use crate::exit::{INVALID_INPUT, SUCCESS};
use crate::password::masked;
use crate::terminal_text::{SafeStderr, safe, shown};

/// The first error of writing to standard output.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// Prints a note to standard error.
pub(crate) fn note(text: &str) {
    let head = Style::new().for_stderr().yellow().bold().apply_to("note");
    let _ = writeln!(SafeStderr, "{head}: {}", masked(text));
}

/// Prints a warning with the error behind it, for work that continues.
pub(crate) fn warn(consequence: &str, error: &CliError) {
    let head = Style::new().for_stderr().yellow().bold().apply_to("warning");
    let _ = writeln!(SafeStderr, "{}", with_causes(&format!("{head}: {consequence}"), error));
}

/// Prints an error with its causes and hint. Returns the program's exit code.
pub(crate) fn fail(error: &CliError) -> u8 {
    report(error);
    match error {
        CliError::Stopped { code } => *code,
        _ => INVALID_INPUT,
    }
}

/// Prints an error with its causes and hint.
pub(crate) fn report(error: &CliError) {
    let head = Style::new().for_stderr().red().bold().apply_to("error");
    // If standard error cannot be written, the exit code still reports the error.
    let _ = writeln!(SafeStderr, "{}", with_causes(&head.to_string(), error));
}

/// Returns an error with its causes and hint.
#[cfg(feature = "mcp")]
pub(crate) fn error_text(error: &CliError) -> String {
    with_causes("error", error)
}

/// Prints what is wrong with the arguments, among which may be names that others have chosen.
/// Returns the program's exit code.
pub(crate) fn refuse_arguments(error: &clap::Error) -> i32 {
    let text = error.render();
    let text = if console::colors_enabled_stderr() { text.ansi().to_string() } else { text.to_string() };
    let _ = write!(SafeStderr, "{text}");
    error.exit_code()
}

fn with_causes(head: &str, error: &CliError) -> String {
    let mut text = format!("{head}: {error}");
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!("\n  caused by: {cause}"));
        next = cause.source();
    }
    // The causes come from other crates, which may repeat an address.
    let mut text = masked(&text);
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\n{}: {hint}", Style::new().for_stderr().cyan().bold().apply_to("hint")));
    }
    text
}

/// Prints a line about work in progress, made [`safe`]. The work continues if nobody reads (`|
/// head`) and if the line cannot be written; [`final_code`] reports the latter at the end.
pub(crate) fn line(text: &str) {
    raw_line(&safe(text));
}

/// Prints a line, as [`line`] does, that is safe for a terminal already.
pub(crate) fn raw_line(text: &str) {
    write_line(&shown(text));
}

/// Prints commands of a workflow on GitHub, made [`safe`].
pub(crate) fn commands(texts: impl IntoIterator<Item = impl AsRef<str>>) {
    texts.into_iter().for_each(|text| write_line(&safe(text.as_ref())));
}

fn write_line(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        // Later errors have the same cause.
        let _ = LOST.set(error);
    }
}

/// Prints several lines, each as [`line`] does.
pub(crate) fn lines(texts: impl IntoIterator<Item = impl AsRef<str>>) {
    texts.into_iter().for_each(|text| line(text.as_ref()));
}

/// Returns the program's exit code, which is not success if output was lost.
pub(crate) fn final_code(code: u8) -> u8 {
    let Some(error) = LOST.get() else { return code };
    let failed = fail(&CliError::Output(std::io::Error::new(error.kind(), error.to_string())));
    if code == SUCCESS { failed } else { code }
}

/// Prints the answer to a query, such as a graph or the settings, made [`safe`]. A reader may close
/// the pipe early.
///
/// # Errors
/// [`CliError::Output`] if the text cannot be written.
pub(crate) fn answer(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", shown(&safe(text))).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(()),
    }
}

/// Prints the warnings that other crates log to standard error.
pub(crate) fn log_warnings() {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(|| SafeStderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        // The subscriber would report a failed write to standard error on standard error.
        .log_internal_errors(false)
        .init();
}
