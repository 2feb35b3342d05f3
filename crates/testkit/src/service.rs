//! Decides whether a test may be skipped because something that it needs is not available, and
//! compiles programs in C.

use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Environment variable that turns a skipped test into a failure.
const REQUIRE: &str = "GREENWAVE_REQUIRE_SERVICES";

/// Reports that a test is skipped.
///
/// # Panics
/// If the environment requires all services.
pub fn skip(reason: &str) {
    assert!(std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, but {reason}");
    // Written directly, because the test harness captures `eprintln!` and the note must be seen.
    std::io::stderr().write_all(format!("skipped: {reason}\n").as_bytes()).unwrap();
}

/// Returns whether something that a test needs is available. Reports that the test is skipped if
/// not.
///
/// # Panics
/// If it is not available and the environment requires all services.
pub fn is_available<E: Display>(what: &str, found: &Result<(), E>) -> bool {
    if let Err(error) = found {
        skip(&format!("{what} is not available: {error}"));
    }
    found.is_ok()
}

/// Compiles a C program in a directory. Returns `None` if no compiler is available.
///
/// # Panics
/// If the source cannot be written, or no compiler is installed and the environment requires all
/// services.
pub fn compile(directory: &Path, name: &str, source: &str, flags: &[&str]) -> Option<PathBuf> {
    let (text, program) = (directory.join(name).with_extension("c"), directory.join(name));
    fs::write(&text, source).unwrap();
    let built = Command::new("cc").args(flags).arg("-o").arg(&program).arg(&text).output();
    let built = built.map_err(|error| error.to_string()).and_then(|output| {
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(messages)
    });
    is_available("a C compiler", &built).then_some(program)
}
