//! Checks that only listed files change the file system by paths, each for a reason.
//!
//! Another program can replace a directory by a symbolic link between a check of a path and its
//! use. Everything else therefore uses `greenwave_dir::Dir`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::source::{code, contains_word, files_below, has_extension, is_test_or_example};

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
const REASONS: [(&str, &str); 21] = [
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
];

/// Returns the calls in other files, and the reasons of files without such a call.
pub(super) fn check(crates: &Path) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    let mut used = BTreeSet::new();
    for file in files_below(crates)? {
        if !is_product(&file) {
            continue;
        }
        let text = fs::read_to_string(crates.join(&file))?;
        let shown = file.display();
        match REASONS.iter().find(|(known, _)| Path::new(known) == file) {
            Some((known, _)) if !writes(&text).is_empty() => drop(used.insert(*known)),
            Some(_) => {}
            None => violations.extend(writes(&text).into_iter().map(|(line, function)| {
                format!("crates/{shown}:{line}: `{function}`: use `greenwave_dir::Dir`, or give a reason in xtask/src/tidy/writes.rs")
            })),
        }
    }
    let unused = REASONS.iter().filter(|(file, _)| !used.contains(file));
    violations.extend(unused.map(|(file, _)| {
        format!("xtask/src/tidy/writes.rs: `{file}` changes nothing by its path: remove its reason")
    }));
    Ok(violations)
}

fn is_product(file: &Path) -> bool {
    let is_source = file.components().nth(1).is_some_and(|part| part.as_os_str() == "src");
    is_source && has_extension(file, "rs") && !file.starts_with("testkit") && !is_test_or_example(file)
}

/// Returns the lines of product code with a call, and the called function.
fn writes(text: &str) -> Vec<(usize, &'static str)> {
    let called = |line: &str| FUNCTIONS.into_iter().find(|function| contains_word(line, function));
    code(text).filter_map(|(number, line)| Some((number, called(line)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_in_product_code_are_found() {
        let text = "//! fs::write(\nfn f() {\n    std::fs::remove_dir_all(path);\n    dir.symlink(a, b);\n}\n\
            #[cfg(test)]\nmod tests {\n    fs::write(path, text);\n}\n";
        assert_eq!(writes(text), [(3, "fs::remove_")]);
    }

    #[test]
    fn tests_and_other_packages_may_write() {
        for file in [
            "greenwave/tests/it/a.rs",
            "testkit/src/lib.rs",
            "greenwave/examples/a.rs",
            "greenwave/src/a.txt",
        ] {
            assert!(!is_product(Path::new(file)), "{file}");
        }
        assert!(is_product(Path::new("greenwave/src/copies/method.rs")));
    }
}
