//! Finds calls of functions that only listed files may make.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::source::{code, contains_word, files_below, has_extension, is_test_or_example};

/// Functions, and the files below `crates` that may call them.
pub(super) struct Calls<'c> {
    pub(super) functions: &'c [&'static str],
    /// The files, each with its reason.
    pub(super) reasons: &'c [(&'c str, &'c str)],
    /// The file with the reasons.
    pub(super) list: &'c str,
    /// An instruction for other files.
    pub(super) advice: &'c str,
}

impl Calls<'_> {
    /// Returns the calls in other files, and the reasons of files without such a call.
    pub(super) fn check(&self, crates: &Path) -> Result<Vec<String>> {
        let (list, advice) = (self.list, self.advice);
        let mut violations = Vec::new();
        let mut used = BTreeSet::new();
        for file in files_below(crates)? {
            if !is_product(&file) {
                continue;
            }
            let text = fs::read_to_string(crates.join(&file))?;
            let found = calls(&text, self.functions);
            let shown = file.display();
            match self.reasons.iter().find(|(known, _)| Path::new(known) == file) {
                Some((known, _)) if !found.is_empty() => drop(used.insert(*known)),
                Some(_) => {}
                None => violations.extend(found.into_iter().map(|(line, function)| {
                    format!("crates/{shown}:{line}: `{function}`: {advice}, or give a reason in {list}")
                })),
            }
        }
        let unused = self.reasons.iter().filter(|(file, _)| !used.contains(file));
        violations.extend(
            unused.map(|(file, _)| format!("{list}: `{file}` makes no such call: remove its reason")),
        );
        Ok(violations)
    }
}

fn is_product(file: &Path) -> bool {
    let is_source = file.components().nth(1).is_some_and(|part| part.as_os_str() == "src");
    is_source && has_extension(file, "rs") && !file.starts_with("testkit") && !is_test_or_example(file)
}

/// Returns the lines of product code with a call, and the called function.
fn calls<'f>(text: &str, functions: &[&'f str]) -> Vec<(usize, &'f str)> {
    let called = |line: &str| functions.iter().copied().find(|function| contains_word(line, function));
    code(text).filter_map(|(number, line)| Some((number, called(line)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_in_product_code_are_found() {
        let text = "//! fs::write(\nfn f() {\n    std::fs::remove_dir_all(path);\n    dir.symlink(a, b);\n}\n\
            #[cfg(test)]\nmod tests {\n    fs::write(path, text);\n}\n";
        assert_eq!(calls(text, &["fs::write(", "fs::remove_"]), [(3, "fs::remove_")]);
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
