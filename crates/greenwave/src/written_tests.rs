//! Tests of a feature that an agent has written.

use greenwave_testing::Test;
use serde::{Deserialize, Serialize};

use crate::tree::{self, Change, Tree};

/// The tests that an agent has written for a feature, and that failed as they must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrittenTests {
    /// The commands that run them, as the harnesses have found them.
    pub(crate) tests: Vec<Test>,
    /// The files that the agent has written.
    pub(crate) changes: Vec<Change>,
}

impl WrittenTests {
    /// Adds the files to a tree. A file that the tree has in another state stays.
    pub(crate) fn add_to(&self, tree: &mut Tree) {
        let fits = |change: &&Change| {
            let is_new = !tree::clashes(tree, &change.path);
            is_new && tree.get(&change.path) == change.before.as_ref()
        };
        let fitting: Vec<Change> = self.changes.iter().filter(fits).cloned().collect();
        tree::apply(tree, &fitting);
    }

    /// Returns whether the agent has written a file.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.changes.iter().any(|change| change.path == path)
    }
}

#[cfg(test)]
mod tests {
    use greenwave_storage::BlobId;
    use greenwave_testing::EntryKind;

    use super::*;
    use crate::tree::File;

    #[test]
    fn files_that_the_project_has_stay() {
        let file = |text: &str| File { kind: EntryKind::Regular, blob: BlobId::of(text.as_bytes()) };
        let change = |path: &str| Change { path: path.to_owned(), before: None, after: Some(file("new")) };
        let changes = ["a", "b", "c/d"].map(change).to_vec();
        let written = WrittenTests { tests: Vec::new(), changes };
        let mut tree: Tree = [("b", "old"), ("c", "old")]
            .map(|(path, text)| (path.to_owned(), file(text)))
            .into_iter()
            .collect();
        written.add_to(&mut tree);
        let texts: Vec<_> = tree.iter().map(|(path, found)| (path.as_str(), *found == file("new"))).collect();
        assert_eq!(texts, [("a", true), ("b", false), ("c", false)]);
        assert!(written.has("a") && !written.has("d"));
    }
}
