//! Files and tests as words of pytest's command line.

use crate::Test;

/// Returns whether pytest's command line can name a file: brackets and `::` begin the name of a
/// test there.
pub(super) fn can_be_named(file: &str) -> bool {
    !file.contains('[') && !file.contains("::")
}

/// Returns a file as a word that pytest does not take for an option or a file of arguments.
pub(super) fn word(file: &str) -> String {
    if file.starts_with(['-', '@']) { format!("./{file}") } else { file.to_owned() }
}

/// Returns a test for each node id of the tests in one file; `None` if there are none, or if the
/// command line cannot name one of them.
///
/// The path in a node id is relative to pytest's root directory, and that in a command to the
/// working directory.
pub(super) fn singles(file: &Test, ids: &[String]) -> Option<Vec<Test>> {
    let (path, words) = file.command.split_last()?;
    let single = |id: &String| {
        let (_, rest) = id.split_once("::")?;
        Some(Test {
            name: format!("{}::{rest}", file.name),
            command: words.iter().cloned().chain([format!("{path}::{rest}")]).collect(),
            ..file.clone()
        })
    };
    let single: Option<Vec<Test>> = ids.iter().map(single).collect();
    single.filter(|tests| !tests.is_empty())
}
