//! Reads files of a directory into the store.

use std::collections::BTreeSet;
use std::path::Path;

use greenwave_dir::Dir;
use greenwave_inputs::{Error as InputError, now_ns};
use greenwave_storage::Store;
use greenwave_testing::{EntryKind, Manifest};

use crate::copies::originals::{self, Originals};
use crate::error::Error;
use crate::file_state::{kind_of, read};
use crate::tree::{File, Tree};

use super::listing::is_too_deep;

/// The files of a project at the start of a run.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) tree: Tree,
    /// The files that working copies can take from the project as long as they are unchanged.
    pub(crate) originals: Originals,
    /// Files and directories that the user has no permission to read, and that are left out.
    pub(crate) denied: Vec<String>,
    /// Files and directories that are left out because their paths are too long.
    pub(crate) too_deep: Vec<String>,
}

/// Reads the files of a project into the store.
///
/// Leaves out files that the project's ignore files name unless they are in `tracked`, files whose
/// names are not UTF-8, and those that cannot be read unless they are in `tracked`.
///
/// # Errors
/// [`Error::Project`] or [`Error::Io`] with the file that cannot be read, and [`Error::Store`].
pub(crate) async fn capture(project: &Path, tracked: &[String], store: &Store) -> Result<Captured, Error> {
    let at = now_ns();
    let read = Manifest::of_readable_project(project);
    let (manifest, errors) = read.map_err(|source| Error::Project { source: source.into() })?;
    let dir = Dir::open(project).map_err(Error::io("open", project))?;
    let denied = denied(project, tracked, errors)?;
    let (mut files, mut too_deep) = (Vec::new(), Vec::new());
    too_deep.extend(manifest.unexamined().map(|path| path.display().to_string()));
    for (path, entry) in manifest.files() {
        match path.to_str() {
            Some(name) if is_too_deep(name) => too_deep.push(name.to_owned()),
            Some(name) => files.push((name.to_owned(), entry.kind)),
            None => tracing::warn!(path = %path.display(), "skipped a file whose name is not UTF-8"),
        }
    }
    let listed: BTreeSet<String> = files.iter().map(|(name, _)| name.clone()).collect();
    for name in tracked.iter().filter(|name| !listed.contains(*name)) {
        files.extend(kind_at(&dir, name).map(|kind| (name.clone(), kind)));
    }
    let tree = read_kinds(&dir, files, store).await?;
    let original = |(name, file): (&String, &File)| {
        let line = manifest.get(Path::new(name))?;
        Some((name.clone(), originals::original(*file, &line.entry.hash, line.stamp, at)?))
    };
    let originals = Originals::new(dir, tree.iter().filter_map(original).collect());
    Ok(Captured { tree, originals, denied, too_deep })
}

/// Returns the paths that cannot be read, relative to the project. Fails for a tracked file, since
/// the copies would be a commit without it.
fn denied(project: &Path, tracked: &[String], errors: Vec<InputError>) -> Result<Vec<String>, Error> {
    let mut denied = Vec::new();
    for error in errors {
        let path = error.path().unwrap_or(project);
        let path = path.strip_prefix(project).unwrap_or(path).to_owned();
        if tracked.iter().any(|name| Path::new(name).starts_with(&path)) {
            return Err(Error::Project { source: error.into() });
        }
        denied.push(path.display().to_string());
    }
    Ok(denied)
}

/// Reads files and links below a directory into the store. Leaves out paths that have neither.
pub(crate) async fn read_files(root: &Dir, paths: &[String], store: &Store) -> Result<Tree, Error> {
    let kind = |path: &String| Some((path.clone(), kind_at(root, path)?));
    read_kinds(root, paths.iter().filter_map(kind).collect(), store).await
}

async fn read_kinds(project: &Dir, files: Vec<(String, EntryKind)>, store: &Store) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    for (name, kind) in files {
        let content = read(project, &name, kind).map_err(Error::io("read", project.path().join(&name)))?;
        let blob = store.put_blob(content).await.map_err(Error::store("write to"))?;
        tree.insert(name, File { kind, blob });
    }
    Ok(tree)
}

/// Returns the kind of a file or link. Returns `None` for other entries.
fn kind_at(root: &Dir, path: &str) -> Option<EntryKind> {
    kind_of(&root.metadata(path).ok()?)
}
