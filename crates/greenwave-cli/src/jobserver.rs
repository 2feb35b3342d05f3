//! The jobserver of an outer run, if this program is a test of that run.

use std::sync::OnceLock;

use greenwave_testing::{Jobserver, RESULTS_VARIABLE};

static OUTER: OnceLock<Jobserver> = OnceLock::new();

/// Takes over the jobserver of the outer run, if this program is a test of one.
///
/// # Safety
/// The requirements of [`Jobserver::inherited`]: this must be the first call in `main`.
pub(crate) unsafe fn inherit() {
    if std::env::var_os(RESULTS_VARIABLE).is_some() {
        // SAFETY: the caller meets the same requirements.
        if let Some(jobserver) = unsafe { Jobserver::inherited() } {
            let _ = OUTER.set(jobserver);
        }
    }
}

/// Returns the jobserver of the outer run, if there is one.
pub(crate) fn outer() -> Option<Jobserver> {
    OUTER.get().cloned()
}
