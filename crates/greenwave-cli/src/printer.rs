//! Prints the progress of a run: above a progress line on a terminal, as plain lines in a pipe, or
//! as JSON lines.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::time::Duration;

use console::strip_ansi_codes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format::Format;
use crate::output;
use crate::terminal_text::{safe, safe_json, safe_output};

/// Interval at which the progress line is redrawn while nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// The destination of a run's output.
pub(crate) enum Printer {
    /// Lines above one progress line.
    Terminal(ProgressBar),
    /// Lines only.
    Plain,
    /// JSON objects only.
    Json,
}

impl Printer {
    /// Creates the printer for a format. `template` describes the progress line, in indicatif's
    /// syntax; `length` is the number of steps, if there is one.
    pub(crate) fn new(format: Format, template: &str, length: Option<u64>) -> Self {
        match format {
            Format::Json => Printer::Json,
            Format::Human if std::io::stdout().is_terminal() => Printer::Terminal(bar(template, length)),
            Format::Human => Printer::Plain,
        }
    }

    /// Creates the printer for a format, without a progress line.
    pub(crate) fn without_bar(format: Format) -> Self {
        match format {
            Format::Json => Printer::Json,
            Format::Human => Printer::Plain,
        }
    }

    /// Returns whether the output is JSON.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self, Printer::Json)
    }

    /// Returns the progress line, on a terminal.
    pub(crate) fn bar(&self) -> Option<&ProgressBar> {
        match self {
            Printer::Terminal(bar) => Some(bar),
            Printer::Plain | Printer::Json => None,
        }
    }

    /// Prints a line, unless the output is JSON.
    pub(crate) fn line(&self, text: &str) {
        match self {
            Printer::Terminal(bar) => bar.println(safe(text)),
            Printer::Plain => output::line(text),
            Printer::Json => {}
        }
    }

    /// Prints the output of a program, unless the output is JSON. Its colors appear on a terminal
    /// only. Other control sequences are removed in a pipe, and are visible text on a terminal.
    pub(crate) fn program_output(&self, text: &str) {
        match self {
            // `println` of the bar would cut long lines off.
            Printer::Terminal(bar) => bar.suspend(|| output::raw_line(&safe_output(text))),
            Printer::Plain => output::raw_line(&safe_output(&strip_ansi_codes(text))),
            Printer::Json => {}
        }
    }

    /// Prints a JSON object, if the output is JSON.
    pub(crate) fn json<T: ToString>(&self, object: impl FnOnce() -> T) {
        if self.is_json() {
            output::raw_line(&safe_json(&object().to_string()));
        }
    }

    /// Removes the progress line.
    pub(crate) fn close(&self) {
        if let Printer::Terminal(bar) = self {
            bar.finish_and_clear();
        }
    }

    /// Shows a message in the progress line.
    pub(crate) fn message(&self, text: impl Into<Cow<'static, str>>) {
        if let Printer::Terminal(bar) = self {
            bar.set_message(safe(&text.into()).into_owned());
        }
    }
}

fn bar(template: &str, length: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stdout());
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.expect("templates are constants, and tests draw them"));
    bar.enable_steady_tick(TICK);
    bar
}
