//! Decides whether a test may be skipped because a program that it needs is not installed.

use std::io::Write;

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
