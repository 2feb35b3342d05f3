//! The locks that the cache in memory is made of: parking_lot's, or under `--cfg greenwave_loom` those whose every interleaving loom tries. Knows
//! nothing of what they guard.

#[cfg(not(greenwave_loom))]
pub(crate) use parking_lot::{Mutex, RwLock};
#[cfg(not(greenwave_loom))]
pub(crate) use std::sync::atomic::AtomicUsize;

#[cfg(greenwave_loom)]
pub(crate) use loom::sync::atomic::AtomicUsize;
#[cfg(greenwave_loom)]
pub(crate) use modelled::{Mutex, RwLock};

/// How long it is since a time. In a model nothing takes any: a cost that is zero now and then would have the policy do something else, and
/// a model has to be able to repeat itself.
pub(crate) fn time_since(begun: tokio::time::Instant) -> std::time::Duration {
    if cfg!(greenwave_loom) { std::time::Duration::ZERO } else { begun.elapsed() }
}

#[cfg(greenwave_loom)]
mod modelled {
    //! parking_lot's calls on loom's locks, which are never poisoned: a model ends at the first panic.

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
    }
}
