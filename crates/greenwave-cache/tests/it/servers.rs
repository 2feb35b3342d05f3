//! Options for remote backends on servers that respond, and on servers that do not.

use std::time::Duration;

use greenwave_cache::RemoteOptions;

/// Returns options with a timeout that is long enough on a busy machine.
pub(crate) fn patient(prefix: &str) -> RemoteOptions {
    RemoteOptions { prefix: prefix.to_owned(), timeout: Duration::from_secs(20), ..RemoteOptions::default() }
}

/// Returns options for a server that will not respond.
pub(crate) fn impatient() -> RemoteOptions {
    RemoteOptions { timeout: Duration::from_millis(50), ..RemoteOptions::default() }
}
