//! Descriptions of the progress between two attempts.

use std::collections::BTreeSet;

use super::{FileChange, describe_progress};

#[test]
fn progress_names_tests_and_files() {
    let names =
        |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let changed = FileChange {
        path: "src/a.rs".to_owned(),
        before: Some("one\ntwo\n".to_owned()),
        after: Some("one\n2\n3\n".to_owned()),
    };
    assert_eq!(
        describe_progress(&names(&["a", "b"]), &names(&["b", "c"]), &[changed]),
        "No longer failing: a\nStill failing: b\nNewly failing: c\n\
         Changed since the previous attempt: src/a.rs (+2 -1)"
    );
    assert_eq!(describe_progress(&names(&[]), &names(&["b"]), &[]), "");
}
