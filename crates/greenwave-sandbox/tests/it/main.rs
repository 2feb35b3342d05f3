//! Tests of greenwave-sandbox with real processes.

mod confinement;
mod guard;
mod landlock;
mod support;
mod trace;
