//! Tests of greenwave-sandbox on real processes.

mod landlock;
mod trace;
