//! Checks that only listed files change the file system by paths, each for a reason.
//!
//! Another program can replace a directory by a symbolic link between a check of a path and its
//! use. Everything else therefore uses `greenwave_dir::Dir`.

use std::path::Path;

use super::calls::Calls;
use crate::Result;

/// Functions that change the file system at a path that they resolve themselves.
const FUNCTIONS: [&str; 25] = [
    "fs::write(",
    "fs::mkdir(",
    "fs::rename(",
    "fs::copy(",
    "fs::create_dir",
    "fs::remove_",
    "fs::hard_link(",
    "fs::soft_link(",
    "fs::symlink(",
    "fs::set_permissions(",
    "fs::chown(",
    "File::create",
    "File::options()",
    "OpenOptions::new()",
    "DirBuilder::new()",
    "tempfile::",
    "libc::mkdir(",
    "libc::open(",
    "libc::rename(",
    "libc::unlink(",
    "libc::symlink(",
    "libc::link(",
    "libc::chmod(",
    "libc::mknod(",
    "libc::mkfifo(",
];

/// Files below `crates` that may call them, each with the reason why no link leads it elsewhere.
const REASONS: [(&str, &str); 22] = [
    ("greenwave-cache/src/lease.rs", "the directory of results, which commands cannot change"),
    ("greenwave-cli/src/cli/demo.rs", "a new directory with an unpredictable name"),
    ("greenwave-cli/src/cli/test/reports.rs", "checks a file that the user names outside of the project"),
    ("greenwave-cli/src/mount_namespace.rs", "files of this process in /proc"),
    ("greenwave-cli/src/report_file.rs", "a file that the user names outside of the project"),
    ("greenwave-cli/src/schemas.rs", "a test"),
    ("greenwave-dir/src/dir.rs", "creates a directory whose path is the user's"),
    ("greenwave-dir/src/regular.rs", "opens files for reading"),
    ("greenwave-inputs/src/manifest.rs", "opens files for reading"),
    ("greenwave-process/src/setup/linux.rs", "mount points in a new file system, and files in /proc"),
    ("greenwave-process/src/supervisor/server.rs", "opens /dev/null"),
    (
        "greenwave-sandbox/src/confinement/private_dir.rs",
        "fills a new private directory before the command starts that may change it",
    ),
    ("greenwave-segment/src/disk/os.rs", "the directory of results; does not follow links in it"),
    ("greenwave-testing/src/conformance.rs", "tests"),
    ("greenwave-testing/src/harness/cargo/metadata.rs", "creates an empty home of cargo, as cargo does"),
    ("greenwave-testing/src/harness/pytest/collect.rs", "a new directory with an unpredictable name"),
    ("greenwave-testing/src/run/isolation.rs", "a new private directory, before the test starts"),
    ("greenwave-testing/src/run/private_dir.rs", "a new directory with an unpredictable name"),
    ("greenwave/src/confinement/paths.rs", "creates empty directories below the user's home directory"),
    ("greenwave/src/copies.rs", "a new directory with an unpredictable name"),
    ("greenwave/src/workspace/race.rs", "a test"),
    ("greenwave/src/stage/answer/check.rs", "new directories of tests and fuzz targets"),
];

/// Returns the calls in other files, and the reasons of files without such a call.
pub(super) fn check(crates: &Path) -> Result<Vec<String>> {
    let advice = "use `greenwave_dir::Dir`";
    Calls { functions: &FUNCTIONS, reasons: &REASONS, list: "xtask/src/tidy/writes.rs", advice }.check(crates)
}
