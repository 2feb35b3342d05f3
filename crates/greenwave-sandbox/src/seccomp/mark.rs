//! The mark at which a running command gets a trace of its accesses up to there.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::sync::oneshot;

use crate::Trace;

/// A path whose status a command asks for once, and the receiver of the trace up to there.
///
/// Dropping the mark ends the wait of the receiver without a trace.
#[derive(Debug)]
pub(super) struct Mark {
    path: Vec<u8>,
    reached: oneshot::Sender<Trace>,
}

impl Mark {
    pub(super) fn new(path: &Path) -> (Self, oneshot::Receiver<Trace>) {
        let (reached, marked) = oneshot::channel();
        (Self { path: path.as_os_str().as_bytes().to_vec(), reached }, marked)
    }

    /// Returns whether a path, which is not resolved, is that of the mark.
    pub(super) fn is_at(&self, path: &[u8]) -> bool {
        self.path == path
    }

    /// Sends the trace up to the mark.
    pub(super) fn reach(self, trace: Trace) {
        // The receiver is dropped if the session was.
        let _ = self.reached.send(trace);
    }
}
