//! Takes an agent's work: the parts of its answer, and the changes in its directory.
//!
//! The work is applied to a draft of the workspace's tree. It is taken as a whole or not at all:
//! the workspace is written only after every part was applied.
//!
//! An agent that edits files itself also prints a summary, with excerpts of its edits. So if it
//! has changed its directory, that counts, and a block of the answer is taken only if it adds
//! something: a file that the agent has not touched, given as a whole, or an edit that applies to
//! such a file. Other blocks are reported. If the agent has changed nothing itself, its answer is
//! its work, and a block that cannot be applied refuses the attempt.

#[cfg(any(test, feature = "conformance"))]
pub(crate) mod check;

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use greenwave_storage::{BlobId, Store};
use greenwave_streaming::{Unit, UnitKind};
use greenwave_testing::EntryKind;

use crate::answer::{self, EditProblem, FilePatch, PatchKind};
use crate::confine::{self, PathError, PathProblem};
use crate::error::Error;
use crate::event::FileChange;
use crate::large_files;
use crate::tree::{self, File, Tree};

/// Languages of blocks that usually hold commands or output, not files.
const NO_FILES: [&str; 12] = [
    "",
    "bash",
    "console",
    "diff",
    "output",
    "plaintext",
    "sh",
    "shell",
    "shell-session",
    "text",
    "txt",
    "zsh",
];

/// A part of an answer that is about a file.
#[derive(Debug)]
pub(super) enum AnswerPart {
    /// A whole file. Its content is in the store.
    File { path: String, content: StoredContent },
    /// Search/replace blocks.
    Edit { path: Option<String>, text: String },
    /// A diff.
    Diff { path: Option<String>, text: String },
    /// A part that cannot be used, with the reason.
    Unusable { path: Option<String>, reason: String },
}

/// A content that was put into the store, with what a tree needs to know of it. It is read again
/// only to compare it with another, because it can be many megabytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredContent {
    blob: BlobId,
    bytes: usize,
    /// Whether it begins with `#!`.
    is_script: bool,
}

impl StoredContent {
    async fn put(store: &Store, content: Bytes) -> Result<Self, Error> {
        let (bytes, is_script) = (content.len(), content.starts_with(b"#!"));
        let blob = store.put_blob(content).await.map_err(Error::store("write to"))?;
        large_files::record(blob, bytes);
        Ok(Self { blob, bytes, is_script })
    }
}

/// A file that was taken from an agent's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TakenFile {
    pub(super) path: String,
    pub(super) change: FileChange,
    /// Path before a rename.
    pub(super) from: Option<String>,
    /// Size of the file, in bytes; 0 if it is deleted.
    pub(super) bytes: usize,
    pub(super) executable: bool,
}

/// A part of an answer that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotTaken {
    pub(super) path: Option<String>,
    pub(super) reason: String,
}

/// Reason why a part cannot be applied.
pub(super) enum PartError {
    /// The part does not fit.
    Problem { path: Option<String>, reason: String },
    /// The store or a file failed.
    Run(Error),
}

impl From<Error> for PartError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidPath(error) => error.into(),
            error => PartError::Run(error),
        }
    }
}

impl From<PathError> for PartError {
    fn from(error: PathError) -> Self {
        PartError::Problem { path: Some(error.path.clone()), reason: error.to_string() }
    }
}

/// The files of a workspace as an agent's work leaves them.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    root: &'a Path,
    /// Path of the project in the workspace, which the agent's paths are relative to.
    project: &'a str,
    store: &'a Store,
    pub(super) tree: Tree,
    pub(super) taken: Vec<TakenFile>,
    /// The path of the last edit, for blocks that name none.
    last_path: Option<String>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(root: &'a Path, project: &'a str, store: &'a Store, tree: Tree) -> Self {
        Self { root, project, store, tree, taken: Vec::new(), last_path: None }
    }

    /// Returns the path in the workspace of a path in the project.
    fn within(&self, path: &str) -> Result<String, PathError> {
        let path = confine::plain(path)?;
        Ok(if self.project.is_empty() { path } else { format!("{}/{path}", self.project) })
    }

    /// Applies a part of the answer of an agent that has changed nothing itself.
    ///
    /// # Errors
    /// [`PartError`] if the part does not fit.
    pub(super) async fn apply(&mut self, part: &AnswerPart) -> Result<(), PartError> {
        match part {
            AnswerPart::File { path, content } => self.take_file(path, *content).await,
            AnswerPart::Edit { path, text } => self.take_edit(path.as_deref(), text).await,
            AnswerPart::Diff { path, text } => self.take_diff(path.as_deref(), text).await,
            AnswerPart::Unusable { path, reason } => {
                Err(PartError::Problem { path: path.clone(), reason: reason.clone() })
            }
        }
    }

    /// Applies a part of the answer of an agent that has changed `touched` files itself, if the
    /// part adds something. Otherwise returns why it is not taken; `None` if it only repeats.
    ///
    /// # Errors
    /// [`Error`] of the store.
    pub(super) async fn apply_beside(
        &mut self,
        part: &AnswerPart,
        touched: &BTreeSet<String>,
    ) -> Result<Option<NotTaken>, Error> {
        let not_taken = |path: &str, reason: &str| {
            Ok(Some(NotTaken { path: Some(path.to_owned()), reason: reason.to_owned() }))
        };
        let shown = "the agent edited this file directly, and the edit is used";
        if let AnswerPart::File { path, content: StoredContent { blob, .. } } = part
            && let Ok(path) = self.within(path)
        {
            let now = self.tree.get(&path).copied();
            if now.is_some_and(|file| file.blob == *blob) {
                return Ok(None);
            }
            if touched.contains(&path) {
                return not_taken(&path, shown);
            }
            if let Some(file) = now {
                let texts = (self.text(&file).await?, tree::content(self.store, blob).await?);
                let (Some(before), Ok(after)) = (texts.0, std::str::from_utf8(&texts.1)) else {
                    return not_taken(&path, "the block is not a whole file");
                };
                if answer::is_excerpt(&before, after) || answer::loses_most(&before, after) {
                    return not_taken(&path, "the block shows only a part of the file");
                }
            }
        }
        if let AnswerPart::Edit { path, text } | AnswerPart::Diff { path, text } = part
            && let Some(path) = targets(part, path.as_deref(), text)
                .iter()
                .filter_map(|path| self.within(path).ok())
                .find(|path| touched.contains(path))
        {
            return not_taken(&path, shown);
        }
        // A whole file is taken or not; of several edits, some may fit.
        let tree = (!matches!(part, AnswerPart::File { .. })).then(|| self.tree.clone());
        let taken = self.taken.len();
        match self.apply(part).await {
            Ok(()) => Ok(None),
            Err(PartError::Run(error)) => Err(error),
            Err(PartError::Problem { path, reason }) => {
                if let Some(tree) = tree {
                    self.tree = tree;
                }
                self.taken.truncate(taken);
                Ok(Some(NotTaken { path, reason }))
            }
        }
    }

    async fn take_file(&mut self, path: &str, content: StoredContent) -> Result<(), PartError> {
        let path = self.inside(path)?;
        if let Some(file) = self.tree.get(&path).copied().filter(|file| file.blob != content.blob)
            && let Some(before) = self.text(&file).await?
            && let Ok(after) = std::str::from_utf8(&tree::content(self.store, &content.blob).await?)
            && let Some((comment, lost)) = answer::lost_lines(&before, after)
        {
            let reason = format!(
                "`{path}` is given with {comment:?} in place of {lost} of its lines, which would be lost; answer \
                 with the whole file, or with search/replace blocks"
            );
            return Err(PartError::Problem { path: Some(path), reason });
        }
        self.insert(&path, content, None, None);
        Ok(())
    }

    async fn take_edit(&mut self, path: Option<&str>, text: &str) -> Result<(), PartError> {
        let malformed = |path: Option<&str>, problem: EditProblem| problem_of(path, &problem);
        for replacement in answer::parse_replacements(text).map_err(|problem| malformed(path, problem))? {
            let named = replacement.path.filter(|inner| confine::plain(inner).is_ok()).or(path);
            let Some(named) = named.map(str::to_owned).or_else(|| self.last_path.clone()) else {
                let reason = "a search/replace block names no file; put its path on the line above it";
                return Err(PartError::Problem { path: None, reason: reason.to_owned() });
            };
            let path = self.inside(&named)?;
            let before = self.text_at(&path).await?;
            let after =
                replacement.apply(before.as_deref()).map_err(|problem| malformed(Some(&path), problem))?;
            self.put(&path, Bytes::from(after), None).await?;
            self.last_path = Some(named);
        }
        Ok(())
    }

    async fn take_diff(&mut self, path: Option<&str>, text: &str) -> Result<(), PartError> {
        let patches = answer::parse_diff(text, path).map_err(|problem| problem_of(path, &problem))?;
        for patch in &patches {
            self.take_patch(patch).await?;
        }
        Ok(())
    }

    async fn take_patch(&mut self, patch: &FilePatch<'_>) -> Result<(), PartError> {
        let path = self.inside(&patch.path)?;
        let new_path = match &patch.new_path {
            Some(new) => self.inside(new)?,
            None => path.clone(),
        };
        let problem = |problem: EditProblem| problem_of(Some(&path), &problem);
        if new_path != path && self.tree.contains_key(&new_path) {
            return Err(problem_of(Some(&new_path), &EditProblem::Exists));
        }
        let old = self.tree.get(&path).copied();
        let Some(file) = old.filter(|_| patch.only_moves()) else {
            let before = match patch.kind {
                // A binary file can be deleted too.
                PatchKind::Delete => old.map(|_| String::new()),
                _ => self.text_at(&path).await?,
            };
            let after = patch.apply(before.as_deref()).map_err(problem)?;
            let executable = patch.executable.or(old.map(|file| file.kind == EntryKind::Executable));
            if after.is_none() || patch.kind == PatchKind::Rename {
                self.tree.remove(&path);
            }
            return match after {
                Some(after) => {
                    let from = (patch.kind == PatchKind::Rename).then(|| path.clone());
                    self.put_from(&new_path, Bytes::from(after), executable, from).await
                }
                None => {
                    self.report(path, FileChange::Deleted, None, 0, false);
                    Ok(())
                }
            };
        };
        // Renames and modes do not depend on the content, which may be binary.
        let content = tree::content(self.store, &file.blob).await?;
        if patch.kind == PatchKind::Rename {
            self.tree.remove(&path);
        }
        let from = (patch.kind == PatchKind::Rename).then(|| path.clone());
        let executable = patch.executable.unwrap_or(file.kind == EntryKind::Executable);
        self.put_from(&new_path, content, Some(executable), from).await
    }

    async fn put(&mut self, path: &str, content: Bytes, executable: Option<bool>) -> Result<(), PartError> {
        self.put_from(path, content, executable, None).await
    }

    async fn put_from(
        &mut self,
        path: &str,
        content: Bytes,
        executable: Option<bool>,
        from: Option<String>,
    ) -> Result<(), PartError> {
        let content = StoredContent::put(self.store, content).await?;
        self.insert(path, content, executable, from);
        Ok(())
    }

    /// Inserts a file into the tree. A new file that begins with `#!` becomes executable, because
    /// an answer has no other way to say so.
    fn insert(&mut self, path: &str, content: StoredContent, executable: Option<bool>, from: Option<String>) {
        let StoredContent { blob, bytes, is_script } = content;
        let old = self.tree.get(path).copied();
        let kind = match (executable, old) {
            (Some(true), _) => EntryKind::Executable,
            (Some(false), _) => EntryKind::Regular,
            (None, Some(file)) => file.kind,
            (None, None) if is_script => EntryKind::Executable,
            (None, None) => EntryKind::Regular,
        };
        self.tree.insert(path.to_owned(), File { kind, blob });
        let change = match (&from, old) {
            (Some(_), _) => FileChange::Renamed,
            (None, Some(_)) => FileChange::Modified,
            (None, None) => FileChange::Created,
        };
        self.report(path.to_owned(), change, from, bytes, kind == EntryKind::Executable);
    }

    fn report(
        &mut self,
        path: String,
        change: FileChange,
        from: Option<String>,
        bytes: usize,
        executable: bool,
    ) {
        self.taken.push(TakenFile { path, change, from, bytes, executable });
    }

    /// Returns the path of a file inside the workspace, with symbolic links resolved.
    fn inside(&self, path: &str) -> Result<String, PartError> {
        let inside = confine::inside(self.root, &self.within(path)?)?;
        if tree::clashes(&self.tree, &inside) {
            let problem = PathProblem::Obstructed(inside);
            return Err(PathError { path: path.to_owned(), problem }.into());
        }
        Ok(inside)
    }

    /// Returns the text of a file; `None` if it does not exist.
    async fn text_at(&self, path: &str) -> Result<Option<String>, PartError> {
        let Some(file) = self.tree.get(path) else { return Ok(None) };
        let text = self.text(file).await?;
        text.map(Some).ok_or_else(|| problem_of(Some(path), &EditProblem::NotText))
    }

    /// Returns the text of a file; `None` if it is a link, or not UTF-8.
    async fn text(&self, file: &File) -> Result<Option<String>, Error> {
        if file.kind == EntryKind::Symlink {
            return Ok(None);
        }
        let content = tree::content(self.store, &file.blob).await?;
        Ok(String::from_utf8(content.to_vec()).ok())
    }
}

fn problem_of(path: Option<&str>, problem: &EditProblem) -> PartError {
    let reason = match path {
        Some(path) => format!("cannot edit `{path}`: {problem}"),
        None => format!("cannot apply an edit: {problem}"),
    };
    PartError::Problem { path: path.map(str::to_owned), reason }
}

/// Returns the paths of the files that an edit or a diff changes.
fn targets(part: &AnswerPart, path: Option<&str>, text: &str) -> Vec<String> {
    let mut paths: Vec<String> = path.map(str::to_owned).into_iter().collect();
    if matches!(part, AnswerPart::Edit { .. }) {
        let found = answer::parse_replacements(text).unwrap_or_default();
        paths.extend(found.iter().filter_map(|found| found.path.map(str::to_owned)));
    } else {
        for patch in answer::parse_diff(text, path).unwrap_or_default() {
            paths.push(patch.path.into_owned());
            paths.extend(patch.new_path.map(std::borrow::Cow::into_owned));
        }
    }
    paths
}

/// Returns the part of an answer that a unit is; `None` for a block that is about no file.
///
/// # Errors
/// [`Error::Store`] if the content of a file cannot be stored.
pub(super) async fn part_of(unit: &Unit<'_>, store: &Store) -> Result<Option<AnswerPart>, Error> {
    let path = unit.path().or_else(|| unit.edited_path()).map(str::to_owned);
    let unusable = |reason: String| Ok(Some(AnswerPart::Unusable { path: path.clone(), reason }));
    let name = path.as_ref().map_or("a file".to_owned(), |path| format!("`{path}`"));
    let text = || String::from_utf8_lossy(&unit.content()).into_owned();
    match unit.kind() {
        UnitKind::File | UnitKind::Edit | UnitKind::Diff if !unit.is_complete() => {
            unusable(format!("file {name} is cut off by the end of the answer"))
        }
        UnitKind::Diff => Ok(Some(AnswerPart::Diff { path, text: text() })),
        UnitKind::Edit if answer::parse_replacements(&text()) != Ok(Vec::new()) => {
            Ok(Some(AnswerPart::Edit { path, text: text() }))
        }
        UnitKind::Edit if path.is_none() || !answer::has_elision(&text()) => unusable(format!(
            "{name} is given in part only; answer with the whole file, or with search/replace blocks"
        )),
        // A whole file in which comments replace lines, or which merely has such comments.
        UnitKind::File | UnitKind::Edit => {
            let content = StoredContent::put(store, owned_content(unit)).await?;
            Ok(path.map(|path| AnswerPart::File { path, content }))
        }
        UnitKind::Ambiguous => unusable(format!(
            "{name} holds fences as long as the one around it, so its end is unclear; answer with a longer \
             fence around the whole file"
        )),
        _ => Ok(None),
    }
}

/// Returns the content of a unit. It is copied if a slice would keep much more of the answer in
/// memory than itself.
fn owned_content(unit: &Unit<'_>) -> Bytes {
    let content = unit.bytes();
    if content.len() >= unit.block_bytes() / 10 * 9 { content } else { Bytes::copy_from_slice(&content) }
}

/// Returns a remark about a block that may be meant as a file, but names none.
pub(super) fn nameless(unit: &Unit<'_>) -> Option<String> {
    let language = unit.language().unwrap_or_default();
    let is_file =
        unit.kind() == UnitKind::Code && !NO_FILES.contains(&language.to_ascii_lowercase().as_str());
    is_file.then(|| {
        let language: String = language.chars().filter(|c| !c.is_control()).take(20).collect();
        format!("a `{language}` block names no file; put the path of its file after the language")
    })
}

/// Describes changes that an agent made in its directory. A deleted file whose content appears in a
/// created one was renamed.
pub(super) fn describe_changes(changes: &[tree::Change], sizes: impl Fn(&str) -> usize) -> Vec<TakenFile> {
    let mut deleted: Vec<&tree::Change> = changes.iter().filter(|change| change.after.is_none()).collect();
    let mut taken = Vec::new();
    for change in changes {
        let Some(after) = change.after else { continue };
        let is_source = |other: &&tree::Change| other.before.is_some_and(|before| before.blob == after.blob);
        let from = match change.before {
            Some(_) => None,
            None => deleted.iter().position(is_source).map(|at| deleted.remove(at).path.clone()),
        };
        let kind = match (&from, change.before) {
            (Some(_), _) => FileChange::Renamed,
            (None, Some(_)) => FileChange::Modified,
            (None, None) => FileChange::Created,
        };
        taken.push(TakenFile {
            path: change.path.clone(),
            change: kind,
            from,
            bytes: sizes(&change.path),
            executable: after.kind == EntryKind::Executable,
        });
    }
    let deleted = deleted.into_iter().map(|change| TakenFile {
        path: change.path.clone(),
        change: FileChange::Deleted,
        from: None,
        bytes: 0,
        executable: false,
    });
    taken.extend(deleted);
    taken
}
