//! Passes on the output of tests while they run.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Test;

/// A function that receives the output of tests while they run.
///
/// It is called for each block that a test has written, and with an empty block once the output
/// has ended. A batch of tests in one process counts as its first test. The function may be called
/// from several threads at the same time, and delays the test while it runs. If it panics, that is
/// logged, no test fails, and it is not called again.
#[derive(Clone)]
pub struct OutputObserver(Arc<Observing>);

struct Observing {
    has_panicked: AtomicBool,
    observe: Box<ObserveFn>,
}

type ObserveFn = dyn Fn(&Test, &[u8]) + Send + Sync;

impl OutputObserver {
    /// Creates an observer that calls the function.
    pub fn new(observe: impl Fn(&Test, &[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Observing { has_panicked: AtomicBool::new(false), observe: Box::new(observe) }))
    }

    pub(crate) fn observe(&self, test: &Test, block: &[u8]) {
        let Observing { has_panicked, observe } = &*self.0;
        if has_panicked.load(Ordering::Relaxed) {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| observe(test, block))).is_err() {
            has_panicked.store(true, Ordering::Relaxed);
            tracing::warn!(test = test.name, "an observer of output panicked: it is not called again");
        }
    }
}

impl fmt::Debug for OutputObserver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OutputObserver").finish_non_exhaustive()
    }
}
