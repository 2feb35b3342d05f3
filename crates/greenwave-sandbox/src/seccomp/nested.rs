//! Detects that this process is itself traced, by asking the tracer.
//!
//! An environment variable would not do: processes outside the trace may have inherited it.

use std::ffi::CStr;
use std::io;

use libc::c_int;

/// A path that never exists. A tracer answers a lookup of it with [`ANSWER`] instead of letting the
/// call continue.
pub(super) const QUESTION: &CStr = c"/proc/greenwave/is-this-traced";
/// The error that means "yes". No file system returns it from a lookup.
pub(super) const ANSWER: c_int = libc::EALREADY;

/// Returns whether another process that uses this crate traces this process.
pub(crate) fn is_traced() -> bool {
    // SAFETY: `QUESTION` is a static string that ends with NUL, and `access` only reads it.
    let found = unsafe { libc::access(QUESTION.as_ptr(), libc::F_OK) };
    found != 0 && io::Error::last_os_error().raw_os_error() == Some(ANSWER)
}
