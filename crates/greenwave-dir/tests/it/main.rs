//! Tests of directory handles through their public interface, with and without `openat2`.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

use std::path::Path;

use greenwave_dir::Dir;

mod links;
mod model;
mod option_ranges;
mod race;
mod regular;
mod removal;
mod replacement;

/// Returns handles of a directory that resolve paths in each of the ways.
fn handles(path: &Path) -> [Dir; 2] {
    [Dir::open(path).unwrap(), Dir::open(path).unwrap().without_openat2()]
}
