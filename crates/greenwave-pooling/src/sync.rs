//! The lock that hand-offs are decided under: parking_lot's, or under `--cfg greenwave_loom` one whose every interleaving loom tries. Knows
//! nothing of what it guards.

#[cfg(not(greenwave_loom))]
pub(crate) use parking_lot::Mutex;

#[cfg(greenwave_loom)]
pub(crate) use modelled::Mutex;

#[cfg(greenwave_loom)]
mod modelled {
    //! parking_lot's calls on loom's lock, which is never poisoned: a model ends at the first panic.

    use std::sync::PoisonError;

    use loom::sync::MutexGuard;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
