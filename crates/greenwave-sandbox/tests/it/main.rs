//! Tests of greenwave-sandbox with real processes.

mod landlock;
mod support;
mod trace;
