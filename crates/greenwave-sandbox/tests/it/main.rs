//! Tests of greenwave-sandbox with real processes.

mod common_place;
mod confinement;
mod guard;
mod landlock;
mod option_ranges;
mod own_processes;
mod peers;
mod support;
mod trace;
