//! Chooses the files that a model server gets with its prompt.

use greenwave_testing::EntryKind;

use crate::included::is_secret;
use crate::protection;
use crate::tree::Tree;

/// Maximum number of files.
const FILES_MAX: usize = 10_000;

/// Extensions of files that are sources, whatever words their names contain, such as `token.c`.
const SOURCES: [&str; 24] = [
    "c", "cc", "cpp", "cs", "css", "ex", "exs", "h", "hpp", "hs", "html", "jsx", "kt", "lua", "md", "ml",
    "php", "scala", "sh", "sql", "swift", "tsx", "vue", "zig",
];

/// Returns the paths of the files that patterns match, relative to the project, in order. `project`
/// is the path of the project in the tree. Links and files that probably hold secrets are left out.
pub(super) fn files(patterns: &[String], tree: &Tree, project: &str) -> Vec<String> {
    // Invalid patterns, which plan files refuse, match nothing.
    let Some(selection) = protection::patterns(patterns) else { return Vec::new() };
    let within = |path: &str| match project {
        "" => Some(path.to_owned()),
        project => Some(path.strip_prefix(project)?.strip_prefix('/')?.to_owned()),
    };
    let files = tree.iter().filter(|(_, file)| file.kind != EntryKind::Symlink);
    let found = files.filter_map(|(path, _)| within(path));
    let found = found.filter(|path| protection::matches(&selection, path) && !is_withheld(path));
    found.take(FILES_MAX).collect()
}

/// Returns whether a file probably holds secrets, by its name.
pub(super) fn is_withheld(path: &str) -> bool {
    let extension = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, end)| end);
    is_secret(path) && !extension.is_some_and(|extension| SOURCES.contains(&extension))
}

#[cfg(test)]
mod tests {
    use greenwave_storage::BlobId;

    use super::*;
    use crate::tree::File;

    fn tree(paths: &[&str]) -> Tree {
        let file = |kind| File { blob: BlobId::of(b""), kind };
        let kind = |path: &str| if path == "src/link" { EntryKind::Symlink } else { EntryKind::Regular };
        paths.iter().map(|path| ((*path).to_owned(), file(kind(path)))).collect()
    }

    #[test]
    fn files_are_chosen_by_patterns_and_secrets_are_left_out() {
        let paths = [
            "a/src/z.rs",
            "src/.env",
            "src/a.rs",
            "src/deep/b.rs",
            "src/id_rsa",
            "src/link",
            "t/token.c",
            "x.md",
        ];
        let choose = |patterns: &[&str], project: &str| {
            let patterns: Vec<_> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            files(&patterns, &tree(&paths), project).join(" ")
        };
        assert_eq!(choose(&["/src/**"], ""), "src/a.rs src/deep/b.rs");
        assert_eq!(choose(&["*.rs", "!/src/deep/**"], ""), "a/src/z.rs src/a.rs");
        assert_eq!(choose(&["src"], "a"), "src/z.rs");
        assert_eq!(choose(&["t"], ""), "t/token.c");
        assert_eq!(choose(&[], ""), "");
        assert_eq!(choose(&["no.rs"], ""), "");
    }
}
