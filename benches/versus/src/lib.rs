//! Shared parts of the suites that compare this workspace's crates with rivals.
//!
//! A suite is a program in `suites/`, which `cargo xtask bench versus-NAME` runs. The feature of
//! the same name enables its rivals. Each rival does the same work in the same run, at its best
//! settings.

#[cfg(feature = "scheduler")]
pub mod scheduler;
#[cfg(feature = "storage")]
pub mod storage;
pub mod traces;
