//! Tests of greenwave-inputs on real directories.

mod maintained;
mod manifest;
mod option_ranges;
mod path_states;
mod selection;
mod snapshot;
mod support;
