//! Locks of the in-memory cache: those of parking_lot or, under `--cfg greenwave_loom`, those of
//! the loom model checker.

#[cfg(not(greenwave_loom))]
pub(crate) use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(greenwave_loom))]
pub(crate) use std::sync::atomic::AtomicUsize;

#[cfg(greenwave_loom)]
pub(crate) use loom::sync::atomic::AtomicUsize;
#[cfg(greenwave_loom)]
pub(crate) use loom::sync::{RwLockReadGuard, RwLockWriteGuard};
#[cfg(greenwave_loom)]
pub(crate) use modelled::{Mutex, RwLock};

/// Returns the time since `started`. It is zero in a loom model, which must be repeatable: a cost
/// that is sometimes zero would make the policy behave differently.
pub(crate) fn time_since(started: tokio::time::Instant) -> std::time::Duration {
    if cfg!(greenwave_loom) { std::time::Duration::ZERO } else { started.elapsed() }
}

#[cfg(greenwave_loom)]
mod modelled {
    //! The interface of parking_lot on top of loom's locks. They are never poisoned, because a
    //! model ends at the first panic.

    use std::sync::PoisonError;

    use loom::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }
    }

    #[derive(Debug)]
    pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }

        /// A model only locks by [`read`](Self::read), so that it has no more steps than needed.
        pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
            None
        }

        pub(crate) fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
            None
        }

        pub(crate) fn read_recursive(&self) -> RwLockReadGuard<'_, T> {
            self.read()
        }
    }
}
