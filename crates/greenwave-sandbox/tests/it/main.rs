//! Tests of greenwave-sandbox with real processes.

mod confinement;
mod landlock;
mod support;
mod trace;
