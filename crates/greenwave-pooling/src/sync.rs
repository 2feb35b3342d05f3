//! The mutex that guards hand-offs: parking_lot's or, under `--cfg greenwave_loom`, loom's.

#[cfg(not(greenwave_loom))]
pub(crate) use parking_lot::Mutex;

#[cfg(greenwave_loom)]
pub(crate) use loom_mutex::Mutex;

#[cfg(greenwave_loom)]
mod loom_mutex {
    //! loom's mutex with parking_lot's interface. Poisoning is ignored, since a model ends at its
    //! first panic.

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
