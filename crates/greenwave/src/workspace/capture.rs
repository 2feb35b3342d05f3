//! Reads files of a directory into the store.

use std::collections::BTreeSet;
use std::path::Path;

use greenwave_dir::Dir;
use greenwave_inputs::now_ns;
use greenwave_storage::Store;
use greenwave_testing::{EntryKind, Manifest};

use crate::copies::originals::{self, Originals};
use crate::error::Error;
use crate::file_state::{kind_of, read};
use crate::tree::{File, Tree};

/// Reads the files of a project into the store, and returns their tree, and the files that working
/// copies can take from the project as long as they are unchanged.
///
/// Leaves out files that the project's ignore files name unless they are in `tracked`, and files
/// whose names are not UTF-8.
pub(crate) async fn capture(
    project: &Path,
    tracked: &[String],
    store: &Store,
) -> Result<(Tree, Originals), Error> {
    let at = now_ns();
    let manifest =
        Manifest::of_project(project).map_err(|source| Error::Project { source: source.into() })?;
    let dir = Dir::open(project).map_err(Error::io("open", project))?;
    let mut files = Vec::new();
    for (path, entry) in manifest.files() {
        match path.to_str() {
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
    Ok((tree, originals))
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
