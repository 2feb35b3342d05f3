//! What the suites beside rivals share. Knows nothing of what is measured.
//!
//! A suite is a program in `suites/`, run by `cargo xtask bench versus-NAME`. It needs the feature of its name, which
//! brings its rivals. Each rival is used at its best settings, on the same work, in the same run as ours.

#[cfg(feature = "scheduler")]
pub mod scheduler;
#[cfg(feature = "storage")]
pub mod storage;
pub mod traces;
