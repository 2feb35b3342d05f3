//! Tests of greenwave-sandbox with real processes.

mod confinement;
mod guard;
mod landlock;
mod peers;
mod support;
mod trace;
