//! Trees of files by content, and three-way merges of changes to them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use greenwave_storage::{BlobId, Store};
use greenwave_testing::EntryKind;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Files of a project at one moment, by normalised relative path (`src/lib.rs`).
///
/// Clones share the files until one of them is changed, since many parts of a run hold a tree of
/// thousands of files that differ in few or none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree(Arc<BTreeMap<String, File>>);

impl Tree {
    pub(crate) fn new() -> Self {
        Self::default()
    }
}

impl Deref for Tree {
    type Target = BTreeMap<String, File>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Tree {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Tree {}

impl FromIterator<(String, File)> for Tree {
    fn from_iter<I: IntoIterator<Item = (String, File)>>(files: I) -> Self {
        Self(Arc::new(files.into_iter().collect()))
    }
}

impl IntoIterator for Tree {
    type Item = (String, File);
    type IntoIter = std::collections::btree_map::IntoIter<String, File>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}

impl<'a> IntoIterator for &'a Tree {
    type Item = (&'a String, &'a File);
    type IntoIter = std::collections::btree_map::Iter<'a, String, File>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// A file: its kind and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    /// Plain file, executable file or symbolic link.
    #[serde(with = "kind_as_number")]
    pub(crate) kind: EntryKind,
    /// Hash of the content, or of a link's target.
    #[serde(with = "id_as_text")]
    pub(crate) blob: BlobId,
}

/// A change of one file. `None` means that the file does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Path of the file.
    pub(crate) path: String,
    /// State before the change.
    pub(crate) before: Option<File>,
    /// State after the change.
    pub(crate) after: Option<File>,
}

impl Change {
    /// Returns the change that undoes this one.
    pub(crate) fn inverse(&self) -> Self {
        Self { path: self.path.clone(), before: self.after, after: self.before }
    }
}

/// Returns the changes that lead from one tree to another, sorted by path.
pub(crate) fn changes(before: &Tree, after: &Tree) -> Vec<Change> {
    if Arc::ptr_eq(&before.0, &after.0) {
        return Vec::new();
    }
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let change = |path: &String| Change {
        path: path.clone(),
        before: before.get(path).copied(),
        after: after.get(path).copied(),
    };
    paths.into_iter().map(change).filter(|change| change.before != change.after).collect()
}

/// A file that two sides changed in a way that cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// Path of the file.
    pub(crate) path: String,
    /// Content with conflict markers, or another description of both sides, if the file is text.
    pub(crate) marked: Option<String>,
}

/// Joins changes into a tree. Returns the changes to make in the tree.
///
/// A file that changed on both sides is merged by lines, as `diff3` does (Khanna, Kunal and Pierce,
/// "A Formal Investigation of Diff3", 2007).
///
/// # Errors
/// [`Error::Store`] or [`Error::MissingBlob`] if a content cannot be read. The inner error is the
/// first [`Conflict`].
pub(crate) async fn join(
    tree: &Tree,
    changes: &[Change],
    store: &Store,
) -> Result<Result<Vec<Change>, Conflict>, Error> {
    let mut joined = Vec::new();
    // A change can replace a file by a directory, or the other way round.
    let removed = removed_by(changes);
    for change in changes {
        let now = tree.get(&change.path).copied();
        if now == change.after {
            continue;
        }
        if change.after.is_some() && clashes_without(tree, &removed, &change.path) {
            return Ok(Err(Conflict { path: change.path.clone(), marked: None }));
        }
        let after = if now == change.before {
            change.after
        } else {
            match join_file(now, change, store).await? {
                Ok(file) => Some(file),
                Err(conflict) => return Ok(Err(conflict)),
            }
        };
        joined.push(Change { path: change.path.clone(), before: now, after });
    }
    Ok(Ok(joined))
}

/// Returns whether a path needs a directory where the tree has a file, or the other way round.
pub(crate) fn clashes(tree: &Tree, path: &str) -> bool {
    clashes_without(tree, &BTreeSet::new(), path)
}

/// Returns whether a path [clashes] with a file that is not `removed`.
pub(crate) fn clashes_without(tree: &Tree, removed: &BTreeSet<&str>, path: &str) -> bool {
    let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
    let start = format!("{path}/");
    let below = tree.range(start.clone()..).map(|(below, _)| below.as_str());
    let mut below = below.take_while(|below| below.starts_with(&start));
    above.any(|parent| tree.contains_key(parent) && !removed.contains(parent))
        || below.any(|below| !removed.contains(below))
}

/// Returns the paths of the files that changes remove.
pub(crate) fn removed_by(changes: &[Change]) -> BTreeSet<&str> {
    changes.iter().filter(|change| change.after.is_none()).map(|change| change.path.as_str()).collect()
}

/// Returns whether a tree has a file, or files below a directory.
pub(crate) fn contains(tree: &Tree, path: &str) -> bool {
    let below = format!("{path}/");
    tree.contains_key(path)
        || tree.range(below.clone()..).next().is_some_and(|(first, _)| first.starts_with(&below))
}

/// Applies changes to a tree.
pub(crate) fn apply(tree: &mut Tree, changes: &[Change]) {
    for change in changes {
        match change.after {
            Some(file) => tree.insert(change.path.clone(), file),
            None => tree.remove(&change.path),
        };
    }
}

/// Returns the content of a blob.
pub(crate) async fn content(store: &Store, id: &BlobId) -> Result<Bytes, Error> {
    let found = store.get_blob(id).await.map_err(Error::store("read from"))?;
    found.ok_or_else(|| Error::MissingBlob { id: id.to_string() })
}

async fn join_file(
    now: Option<File>,
    change: &Change,
    store: &Store,
) -> Result<Result<File, Conflict>, Error> {
    let conflict = |marked| Ok(Err(Conflict { path: change.path.clone(), marked }));
    let (now, before, after) = match (now, change.before, change.after) {
        (Some(now), Some(before), Some(after)) => (now, before, after),
        (Some(now), None, Some(after)) => return join_new(change, now, after, store).await,
        (None, ..) => return conflict(Some("The other side deletes the file.".to_owned())),
        (Some(now), _, None) => {
            let text = text(now, store).await?;
            return conflict(text.map(|text| format!("The other side keeps it, changed:\n\n{text}")));
        }
    };
    let kind = if before.kind == now.kind { after.kind } else { now.kind };
    let is_link = [now, before, after].iter().any(|file| file.kind == EntryKind::Symlink);
    // One side changed the permissions only, so the content need not be text.
    if !is_link && now.blob == before.blob {
        return Ok(Ok(File { kind, blob: after.blob }));
    }
    if !is_link && (after.blob == before.blob || after.blob == now.blob) {
        return Ok(Ok(File { kind, blob: now.blob }));
    }
    if is_link {
        return conflict(None);
    }
    let texts = [
        content(store, &before.blob).await?,
        content(store, &now.blob).await?,
        content(store, &after.blob).await?,
    ];
    let [Ok(base), Ok(ours), Ok(theirs)] = texts.each_ref().map(|bytes| std::str::from_utf8(bytes)) else {
        return conflict(None);
    };
    match diffy::merge(base, ours, theirs) {
        Ok(text) => {
            let blob = store.put_blob(Bytes::from(text)).await.map_err(Error::store("write to"))?;
            Ok(Ok(File { kind, blob }))
        }
        Err(marked) => conflict(Some(marked)),
    }
}

/// Joins two new files of one path. They can only be joined if one of them is empty.
async fn join_new(
    change: &Change,
    now: File,
    after: File,
    store: &Store,
) -> Result<Result<File, Conflict>, Error> {
    let conflict = |marked| Ok(Err(Conflict { path: change.path.clone(), marked }));
    let (Some(ours), Some(theirs)) = (text(now, store).await?, text(after, store).await?) else {
        return conflict(None);
    };
    match diffy::merge("", &ours, &theirs) {
        Ok(_) => Ok(Ok(if ours.is_empty() { after } else { now })),
        Err(marked) => conflict(Some(marked)),
    }
}

/// Returns the text of a file; `None` if it is a link, or not UTF-8.
async fn text(file: File, store: &Store) -> Result<Option<String>, Error> {
    if file.kind == EntryKind::Symlink {
        return Ok(None);
    }
    let content = content(store, &file.blob).await?;
    Ok(String::from_utf8(content.to_vec()).ok())
}

mod kind_as_number {
    use super::{Deserialize, EntryKind};

    pub(super) fn serialize<S: serde::Serializer>(kind: &EntryKind, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u8(*kind as u8)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(input: D) -> Result<EntryKind, D::Error> {
        let number = u8::deserialize(input)?;
        EntryKind::from_number(number)
            .ok_or_else(|| serde::de::Error::custom(format_args!("invalid kind of file {number}")))
    }
}

mod id_as_text {
    use super::{BlobId, Deserialize};

    pub(super) fn serialize<S: serde::Serializer>(id: &BlobId, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(input: D) -> Result<BlobId, D::Error> {
        String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
    }
}
