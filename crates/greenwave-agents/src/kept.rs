//! A place where an agent keeps a running program between two requests for the same directory.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// A place where an agent may keep its running program from the end of a response until the next
/// request. The program is suspended with all its descendants there, so that it changes nothing
/// while others use the directory. Clones are the same place.
///
/// A request [names](crate::Request::keeping_in) the place. Its directories must exist until the
/// place is [cleared](Self::clear) or its last clone is dropped, which kills the program.
#[derive(Clone, Default)]
pub struct KeptProgram(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl KeptProgram {
    /// Creates an empty place.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether the place has no program.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_none()
    }

    /// Kills the program, if there is one.
    pub fn clear(&self) {
        drop(self.0.lock().take());
    }

    pub(crate) fn take<T: Any + Send>(&self) -> Option<Box<T>> {
        // A program of another agent is killed.
        self.0.lock().take()?.downcast().ok()
    }

    pub(crate) fn put(&self, program: Box<dyn Any + Send>) {
        *self.0.lock() = Some(program);
    }
}

impl fmt::Debug for KeptProgram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeptProgram").field("is_empty", &self.is_empty()).finish()
    }
}

impl PartialEq for KeptProgram {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for KeptProgram {}
