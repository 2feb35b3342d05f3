//! Unified diffs between two sets of files.

use std::fmt;

/// Maximum size of a text. Longer ones are only reported as different, because the time for a diff
/// grows with length times changes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Differences between two sets of files. Displayed as one patch in unified format.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff {
    /// Changed files, sorted by path.
    pub files: Vec<FileDiff>,
}

/// Difference of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiff {
    /// Path of the file.
    pub path: String,
    /// Kind of change.
    pub change: ChangeKind,
    /// Unified diff. `None` if either side is not UTF-8 text or is longer than 1 MiB.
    pub patch: Option<String>,
}

/// Kind of change of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The file was added.
    Added,
    /// The file was removed.
    Removed,
    /// The contents changed.
    Modified,
}

impl FileDiff {
    pub(crate) fn new(path: &str, old: Option<&[u8]>, new: Option<&[u8]>) -> Self {
        let change = match (old, new) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Modified,
        };
        let text = |side: Option<&[u8]>| {
            let bytes = side.unwrap_or_default();
            (bytes.len() <= TEXT_BYTES_MAX).then(|| String::from_utf8(bytes.to_vec()).ok()).flatten()
        };
        let patch = text(old).zip(text(new)).map(|(old, new)| patch(path, change, &old, &new));
        Self { path: path.to_owned(), change, patch }
    }
}

fn patch(path: &str, change: ChangeKind, old: &str, new: &str) -> String {
    let side =
        |side: &str, absent| if change == absent { "/dev/null".to_owned() } else { format!("{side}/{path}") };
    let mut options = diffy::DiffOptions::new();
    options
        .set_original_filename(side("a", ChangeKind::Added))
        .set_modified_filename(side("b", ChangeKind::Removed));
    options.create_patch(old, new).to_string()
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            match &file.patch {
                Some(patch) => f.write_str(patch)?,
                None => writeln!(f, "Files a/{0} and b/{0} differ", file.path)?,
            }
        }
        Ok(())
    }
}
