//! Checks that only listed files open files of unknown kind and size.
//!
//! A test, an agent or a clone can put a pipe, a device without an end or a file of any size in the
//! place of a file. Everything else therefore uses `greenwave_dir::Dir` or `read_regular`, which
//! refuse the former and limit the latter.

use std::path::Path;

use super::calls::Calls;
use crate::Result;

/// Functions that wait for the other end of a pipe, or read without a limit.
const FUNCTIONS: [&str; 3] = ["fs::read(", "fs::read_to_string(", "File::open("];

/// Files below `crates` that may call them, each with the reason why nobody else has put anything
/// there.
const REASONS: [(&str, &str); 30] = [
    ("greenwave-cli/src/cli/test/shard.rs", "a file that the user names, which may be a pipe"),
    ("greenwave-cli/src/random_token.rs", "opens /dev/urandom"),
    ("greenwave-cli/src/secrets.rs", "a file of the kernel"),
    ("greenwave-inputs/src/memory_devices.rs", "a file of the kernel"),
    ("greenwave-inputs/src/seal.rs", "opens /dev/urandom"),
    ("greenwave-process/src/left_over.rs", "a file of the kernel"),
    ("greenwave-process/src/spawn/linux.rs", "opens /dev/null"),
    ("greenwave-process/src/supervisor/descendants.rs", "a file of the kernel"),
    ("greenwave-process/src/supervisor/init.rs", "a file of the kernel"),
    ("greenwave-process/src/supervisor/server.rs", "opens /dev/tty"),
    ("greenwave-sandbox/src/aliases.rs", "a file of the kernel"),
    (
        "greenwave-sandbox/src/confinement/private_dir.rs",
        "a copy in a new private directory, before the command starts that may change it",
    ),
    ("greenwave-sandbox/src/namespace.rs", "a file of the kernel"),
    ("greenwave-sandbox/src/seccomp/ipc.rs", "a file of the kernel"),
    ("greenwave-sandbox/src/seccomp/net_tables.rs", "a file of the kernel"),
    ("greenwave-sandbox/src/seccomp/observer/reach.rs", "a file of the kernel"),
    ("greenwave-sandbox/src/seccomp/opener.rs", "a file of the kernel"),
    ("greenwave-sandbox/src/seccomp/processes.rs", "a file of the kernel"),
    ("greenwave-sandbox/src/seccomp/readers.rs", "a file of the kernel"),
    ("greenwave-sandbox/src/seccomp/sockets.rs", "a file of the kernel"),
    (
        "greenwave-scheduler/src/load.rs",
        "files of the kernel, in the first group of processes that they name",
    ),
    ("greenwave-segment/src/disk/os.rs", "opens a directory"),
    ("greenwave-telemetry/src/memory.rs", "a file of the kernel"),
    ("greenwave-testing/src/results/key.rs", "a file of the kernel"),
    ("greenwave-testing/src/results/more_reads.rs", "opens a directory"),
    ("greenwave-testing/src/results/state.rs", "opens a directory"),
    ("greenwave-testing/src/run/left_objects.rs", "a file of the kernel"),
    ("greenwave/src/confinement/sockets.rs", "a file of the kernel"),
    ("greenwave/src/workspace/race.rs", "a test"),
    ("greenwave/src/stage/answer/check.rs", "new directories of tests and fuzz targets"),
];

/// Returns the calls in other files, and the reasons of files without such a call.
pub(super) fn check(crates: &Path) -> Result<Vec<String>> {
    let advice = "use `greenwave_dir::read_regular` or `Dir`";
    Calls { functions: &FUNCTIONS, reasons: &REASONS, list: "xtask/src/tidy/reads.rs", advice }.check(crates)
}
