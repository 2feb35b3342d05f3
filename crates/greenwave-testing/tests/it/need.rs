//! Programs and kernel features that some tests need.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests count as tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// Returns whether something that a test needs is available. Prints a note if not, and panics if
/// `GREENWAVE_REQUIRE_SERVICES` is 1.
pub(crate) fn is_there<E: std::fmt::Display>(what: &str, found: &Result<(), E>) -> bool {
    if let Err(why) = found {
        let required = std::env::var_os("GREENWAVE_REQUIRE_SERVICES").is_some_and(|value| value == "1");
        assert!(!required, "{what} is not available: {why}");
        eprintln!("SKIPPED: {what} is not available: {why}");
    }
    found.is_ok()
}

/// Builds a C program that needs no library; `None` without a compiler.
pub(crate) fn compile(directory: &Path, name: &str, source: &str, flags: &[&str]) -> Option<PathBuf> {
    let (text, program) = (directory.join(name).with_extension("c"), directory.join(name));
    fs::write(&text, source).unwrap();
    let mut compiler = std::process::Command::new("cc");
    let built = compiler.args(flags).arg("-o").arg(&program).arg(&text).output();
    let built = built.map_err(|error| error.to_string()).and_then(|output| {
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(messages)
    });
    is_there("a C compiler", &built).then_some(program)
}
